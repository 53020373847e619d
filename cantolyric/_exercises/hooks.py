"""Checkers for lesson 23. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def _model():
    "Return a very small causal language model and a batch."
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=2,
            intermediate_size=8,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=8,
            tie_word_embeddings=False,
            use_cache=False,
        )
    ).eval()
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    return model, dict(input_ids=ids, labels=ids)


def _left_over(model):
    "Return the names of the modules that still have hooks."
    return [n or "the model itself" for n, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks]


def check_soft_bonus(fn: Callable) -> str:
    "`fn(ids, bonus)` -> a function that adds the bonus to the logits of those tokens."
    import torch

    for ids, bonus in (([1, 3], 2.0), ([0], -1.5), ([], 9.0)):
        logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
        given, want = logits.clone(), logits.clone()
        want[..., ids] += bonus
        got, error = run(lambda ids=ids, bonus=bonus, given=given: fn(ids, bonus)(given))
        if error:
            return error
        if not isinstance(got, torch.Tensor):
            return f"Not yet: expected the function that you return to return a tensor, got {got!r}"
        if got.shape != want.shape or not torch.allclose(got, want):
            return (
                f"Not yet: for tokens {ids} and bonus {bonus} expected the logits plus the bonus at those tokens, "
                "got something else"
            )
        if not torch.equal(given, logits):
            return "Not yet: the function changed its argument in place"
    return RIGHT


def check_count_calls(fn: Callable) -> str:
    "`fn(model, run)` -> how often each submodule was called."
    model, batch = _model()
    twice = lambda: [model(**batch) for _ in range(2)]
    got, error = run(fn, model, twice)
    if error:
        return error
    if not isinstance(got, dict):
        return f"Not yet: expected a dict, got {got!r}"
    for name, want in (("lm_head", 2), ("model.layers.1.mlp", 2), ("", 2), ("model.norm", 2)):
        if got.get(name) != want:
            return f"Not yet: {name or 'the model itself'!r}: expected {want} calls, got {got.get(name)}"
    if "model.layers" in got:
        return "Not yet: 'model.layers' should not be counted: it is a list of modules, which is never called"
    if _left_over(model):
        return f"Not yet: hooks are left on {_left_over(model)[:3]}"

    def fail():
        model(**batch)
        raise KeyError("fail")

    try:
        fn(model, fail)
    except KeyError:
        pass
    except Exception as e:
        return f"Not yet: if run() raises KeyError, expected KeyError to be passed on, got {type(e).__name__}"
    else:
        return "Not yet: if run() raises KeyError, expected KeyError to be passed on, but nothing was raised"
    return f"Not yet: if run() raises, hooks are left on {_left_over(model)[:3]}" if _left_over(model) else RIGHT


def check_gradient_share(fn: Callable) -> str:
    "`fn(model, batch, ids)` -> the share of the logits' gradient on those tokens."
    import torch

    model, batch = _model()
    logits = model(**batch).logits.detach().requires_grad_()
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()).backward()
    for ids in ([2, 3], [0], list(range(20))):
        want = float(logits.grad[..., ids].abs().sum() / logits.grad.abs().sum())
        got, error = run(fn, model, batch, ids)
        if error:
            return error
        try:
            off = abs(float(got) - want)
        except (TypeError, ValueError):
            return f"Not yet: expected a number, got {got!r}"
        if off > 1e-4:
            return f"Not yet: for tokens {ids} expected a share of {want:.4f}, got {float(got):.4f}"
    if any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters()):
        return "Not yet: the parameters still have gradients"
    return f"Not yet: hooks are left on {_left_over(model)[:3]}" if _left_over(model) else RIGHT


def _fused_model():
    "Return the same model with a loss that takes the head's weights and never calls the head."
    import torch
    from transformers.modeling_outputs import CausalLMOutputWithPast

    model, batch = _model()

    def forward(input_ids, labels):
        logits = model.model(input_ids=input_ids).last_hidden_state @ model.lm_head.weight.T
        return CausalLMOutputWithPast(
            loss=torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), logits=logits
        )

    model.forward = forward
    return model, batch


def check_loss_sees(fn: Callable) -> str:
    "`fn(model, place, batch)` -> whether noise on the output of that submodule changes the loss."
    import torch

    for kind, (model, batch) in (("", _model()), (" of a model with a fused loss", _fused_model())):
        model.idle = torch.nn.Linear(2, 2)
        with torch.no_grad():
            before = model(**batch).loss
        for place, want in (
            ("lm_head", not kind),
            ("", False),
            ("model.layers.0.self_attn", True),
            ("model.norm", True),
            ("idle", False),
        ):
            got, error = run(fn, model, place, batch)
            if error:
                return error
            if not isinstance(got, bool):
                return f"Not yet: expected True or False, got {got!r}"
            if got != want:
                return f"Not yet: for {place or 'the model itself'!r}{kind} expected {want}, got {got}"
            if _left_over(model):
                return f"Not yet: hooks are left on {_left_over(model)[:3]}"
        with torch.no_grad():
            if not torch.equal(before, model(**batch).loss):
                return "Not yet: the model's loss has changed"
        if any(p.grad is not None for p in model.parameters()):
            return "Not yet: the parameters still have gradients"
    return RIGHT
