"""Checkers of the exercises of lesson 22. Each returns "Right." or says what is missing."""


def check_no_repeat(fn) -> str:
    "Every token that stands in its row is forbidden, and nothing else changes."
    import torch
    scores = torch.arange(10.).view(2, 5)
    got = fn(torch.tensor([[1, 3], [0, 0]]), scores.clone())
    if not isinstance(got, torch.Tensor): return f"Not yet: wanted a tensor, it returned {type(got).__name__}"
    want = scores.clone()
    want[0, [1, 3]] = want[1, 0] = -torch.inf
    return "Right." if torch.equal(got, want) else f"Not yet: for rows [1, 3] and [0, 0] it gave {got.tolist()}"


def check_longest_pending(fn) -> str:
    "The longest key of `lexicon.next`."
    from cantolyric.constraint import lexicon_of
    from cantolyric.reading import Reader
    reader = Reader({"一": ("jat1",), "丁": ("ding1",), "一丁": ("jat1", "ding1"), "一丁一丁": ("jat1", "ding1", "jat1", "ding1")})
    got = fn(lexicon_of(reader))
    return "Right." if got == 3 else f"Not yet: for the words 一, 丁, 一丁 and 一丁一丁 it is 3, it returned {got!r}"
