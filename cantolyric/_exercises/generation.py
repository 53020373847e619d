"""Checkers for lesson 21. Each returns "Right." or says what is not right yet; none raises."""
from cantolyric._exercises import RIGHT, run


def _model():
    "A tiny model with random weights, and its calls: how many tokens went in."
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM
    torch.manual_seed(0)
    sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=64)
    model, calls = Qwen3ForCausalLM(Qwen3Config(**sizes, eos_token_id=None, pad_token_id=0)).eval(), []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: calls.append(out.shape[1]))
    return model, calls


def check_greedy(fn) -> str:
    "`fn(model, ids, new)` -> ids with `new` more tokens, the likeliest each time, read once each."
    import torch
    for prompt, new in (([3, 1, 4, 1, 5], 6), ([7], 1), ([2, 2], 9)):
        model, calls = _model()
        ids = torch.tensor([prompt])
        want = model.generate(ids, max_new_tokens=new, do_sample=False)
        calls.clear()
        got, error = run(fn, model, ids.clone(), new)
        if error: return error
        if not torch.is_tensor(got) or got.shape != want.shape: return f"Not yet: wanted is a tensor of shape {tuple(want.shape)}, it returned {tuple(got.shape) if torch.is_tensor(got) else repr(got)}"
        if not torch.equal(got, want): return f"Not yet: for the prompt {prompt} wanted is {want[0].tolist()}, it returned {got[0].tolist()}"
        if calls not in ([len(prompt)] + [1] * (new - 1), [len(prompt)] + [1] * new):
            return f"Not yet: the tokens are right, but the model read {calls} tokens in its calls; wanted is the prompt ({len(prompt)}) once, then one token at a time"
    return RIGHT


def check_epsilon(fn) -> str:
    "`fn(scores, e)` -> scores, -inf where the probability is below e, but not at the likeliest."
    import torch
    scores = torch.tensor([[.5, .3, .2], [.05, .05, .9]]).log() + 3
    for e, keep, why in [(.25, [[1, 1, 0], [0, 0, 1]], "0.2 and 0.05 are below 0.25"), (.01, [[1, 1, 1], [1, 1, 1]], "all are above 0.01"), (.95, [[1, 0, 0], [0, 0, 1]], "the likeliest stays, even below e")]:
        got, error = run(fn, scores.clone(), e)
        if error: return error
        if not torch.is_tensor(got) or got.shape != scores.shape: return f"Not yet: wanted is a tensor of shape {tuple(scores.shape)}, it returned {got!r}"
        if got.isfinite().int().tolist() != keep: return f"Not yet: for e={e} the tokens kept should be {keep} ({why}), kept are {got.isfinite().int().tolist()}"
        if not torch.equal(got[got.isfinite()], scores[got.isfinite()]): return "Not yet: the scores that stay must not change"
    return RIGHT


def check_work(fn) -> str:
    "`fn(prompt, new, cache)` -> tokens that the model reads."
    for args, want, about in [((10, 1, True), 10, "one new token needs the prompt only"), ((10, 5, True), 14, "the last token is not read"), ((10, 1, False), 10, "one new token needs the prompt only"),
                              ((10, 3, False), 33, "10 + 11 + 12"), ((1, 10, False), 55, "1 + 2 + … + 10"), ((1_000, 1_000_000, True), 1_000_999, "a million"), ((1_000, 1_000_000, False), 501_000 * 1_000_000 - 500_000, "a million")]:
        got, error = run(fn, *args)
        if error: return error
        if got != want: return f"Not yet: for {args} wanted is {want:,} ({about}), it returned {got!r}"
    return RIGHT
