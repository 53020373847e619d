"""Checkers for lesson 22. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def check_no_repeat(fn: Callable) -> str:
    "`fn(ids, scores)` -> the scores, -inf for the tokens that occur in their row."
    import torch

    scores = torch.arange(10.0).view(2, 5)
    got, error = run(fn, torch.tensor([[1, 3], [0, 0]]), scores.clone())
    if error:
        return error
    if not isinstance(got, torch.Tensor):
        return f"Not yet: expected a tensor, got {type(got).__name__}"
    want = scores.clone()
    want[0, [1, 3]] = want[1, 0] = -torch.inf
    if got.shape != want.shape or not torch.equal(got, want):
        return f"Not yet: for the rows [1, 3] and [0, 0] expected {want.tolist()}, got {got.tolist()}"
    return RIGHT


def check_longest_pending(fn: Callable) -> str:
    "`fn(lexicon)` -> the length of the longest key of `lexicon.children`."
    from cantolyric.reading import Reader
    from cantolyric.template.lexicon import lexicon_of

    reader = Reader(
        {"一": ("jat1",), "丁": ("ding1",), "一丁": ("jat1", "ding1"), "一丁一丁": ("jat1", "ding1", "jat1", "ding1")}
    )
    got, error = run(fn, lexicon_of(reader))
    if error:
        return error
    return RIGHT if got == 3 else f"Not yet: for the words 一, 丁, 一丁 and 一丁一丁 expected 3, got {got!r}"
