"""Checkers for lesson 21. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def _model():
    "Return a tiny model with random weights, and a list of its calls: how many tokens each one read."
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    sizes = dict(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
    )
    config = Qwen3Config(**sizes, eos_token_id=None, pad_token_id=0)  # type: ignore[arg-type]
    model, calls = Qwen3ForCausalLM(config).eval(), []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: calls.append(out.shape[1]))
    return model, calls


def check_greedy(fn: Callable) -> str:
    "`fn(model, ids, new)` -> ids with `new` more tokens, the most likely each time; every token is read once."
    import torch

    for prompt, new in (([3, 1, 4, 1, 5], 6), ([7], 1), ([2, 2], 9)):
        model, calls = _model()
        ids = torch.tensor([prompt])
        want = model.generate(ids, max_new_tokens=new, do_sample=False)
        calls.clear()
        got, error = run(fn, model, ids.clone(), new)
        if error:
            return error
        if not torch.is_tensor(got) or got.shape != want.shape:
            return (
                f"Not yet: expected a tensor of shape {tuple(want.shape)}, got "
                f"{tuple(got.shape) if torch.is_tensor(got) else repr(got)}"
            )
        if not torch.equal(got, want):
            return f"Not yet: for the prompt {prompt} expected {want[0].tolist()}, got {got[0].tolist()}"
        if calls not in ([len(prompt)] + [1] * (new - 1), [len(prompt)] + [1] * new):
            return (
                f"Not yet: the tokens are right, but the model read {calls} tokens in its calls: expected "
                f"the prompt ({len(prompt)}) once, then one token at a time"
            )
    return RIGHT


def check_epsilon(fn: Callable) -> str:
    "`fn(scores, e)` -> scores, -inf where the probability is below e, except for the most likely token."
    import torch

    scores = torch.tensor([[0.5, 0.3, 0.2], [0.05, 0.05, 0.9]]).log() + 3
    for e, keep, why in [
        (0.25, [[1, 1, 0], [0, 0, 1]], "0.2 and 0.05 are below 0.25"),
        (0.01, [[1, 1, 1], [1, 1, 1]], "all are above 0.01"),
        (0.95, [[1, 0, 0], [0, 0, 1]], "the most likely token stays, even below e"),
    ]:
        got, error = run(fn, scores.clone(), e)
        if error:
            return error
        if not torch.is_tensor(got) or got.shape != scores.shape:
            return f"Not yet: expected a tensor of shape {tuple(scores.shape)}, got {got!r}"
        if got.isfinite().int().tolist() != keep:
            return f"Not yet: for e={e} expected to keep {keep} ({why}), got {got.isfinite().int().tolist()}"
        if not torch.equal(got[got.isfinite()], scores[got.isfinite()]):
            return "Not yet: the scores of the tokens that are kept must not change"
    return RIGHT


def check_work(fn: Callable) -> str:
    "`fn(prompt, new, cache)` -> the number of tokens that the model reads."
    for args, want, about in [
        ((10, 1, True), 10, "one new token needs the prompt only"),
        ((10, 5, True), 14, "the last token is not read"),
        ((10, 1, False), 10, "one new token needs the prompt only"),
        ((10, 3, False), 33, "10 + 11 + 12"),
        ((1, 10, False), 55, "1 + 2 + … + 10"),
        ((1_000, 1_000_000, True), 1_000_999, "a million"),
        ((1_000, 1_000_000, False), 501_000 * 1_000_000 - 500_000, "a million"),
    ]:
        got, error = run(fn, *args)
        if error:
            return error
        if got != want:
            return f"Not yet: for {args} expected {want:,} ({about}), got {got!r}"
    return RIGHT
