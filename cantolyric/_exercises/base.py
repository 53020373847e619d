"""Checkers for lesson 20. Each returns "Right." or explains what is wrong; none raises."""

import math
from collections.abc import Callable

from cantolyric._exercises import RIGHT, number_of, run


def check_parameters(fn: Callable) -> str:
    "`fn(config)` -> the number of parameters of a base with these sizes."
    from cantolyric.base import BaseConfig

    def count(c):
        d = c.hidden // c.heads
        block = 2 * c.hidden * c.heads * d + 2 * c.hidden * c.kv_heads * d + 3 * c.hidden * c.mlp + 2 * c.hidden + 2 * d
        return c.vocab_size * c.hidden + c.layers * block + c.hidden

    for c, about in [
        (BaseConfig(), "the shipped sizes"),
        (BaseConfig(vocab_size=500, layers=1), "one layer, 500 tokens"),
        (BaseConfig(hidden=64, heads=8, kv_heads=1, mlp=100, layers=3), "eight heads that share keys and values"),
    ]:
        got, error = run(fn, c)
        if error:
            return error
        if got != count(c):
            return f"Not yet: {about}: expected {count(c):,}, got {got!r}"
    return RIGHT


def check_bits(fn: Callable) -> str:
    "`fn(loss, tokens, characters, texts)` -> bits per character."
    for args, want, about in [
        ((math.log(2), 100, 99, 1), 1.0, "one bit per token, and as many tokens as characters and ends"),
        ((math.log(8000), 10, 16, 4), math.log2(8000) / 2, "two characters per token"),
        ((0.0, 10, 10, 1), 0.0, "a loss of 0"),
    ]:
        if problem := number_of(fn, args, want, about, 1e-6):
            return problem
    return RIGHT


def check_padding(fn: Callable) -> str:
    "`fn(lengths, batch)` -> the share of positions that are padding."
    for args, want, about in [
        (([5, 5, 5, 5], 2), 0.0, "equal lengths"),
        (([1, 3], 2), 1 / 3, "lengths 1 and 3 in one batch"),
        (([1, 3], 1), 0.0, "one text per batch"),
        (([1, 10, 2, 10, 4], 2), 17 / 44, "five texts, the last batch has only one"),
    ]:
        if problem := number_of(fn, args, want, about, 1e-6):
            return problem
    return RIGHT


def check_head_adds(fn: Callable) -> str:
    "`fn(mixed, o_proj, head)` -> what one head adds to the residual stream, float (T, hidden)."
    import torch

    rng = torch.Generator().manual_seed(0)
    mixed = torch.randn(4, 5, 3, generator=rng)  # heads, T, d
    o_proj = torch.randn(7, 12, generator=rng)  # hidden, heads × d
    for head in range(4):
        got, error = run(fn, mixed, o_proj, head)
        if error:
            return error
        if not torch.is_tensor(got) or got.shape != (5, 7):
            return (
                f"Not yet: expected a tensor of shape (5, 7), got {tuple(got.shape) if torch.is_tensor(got) else got!r}"
            )
        alone = torch.zeros_like(mixed)
        alone[head] = mixed[head]
        want = alone.transpose(0, 1).flatten(1) @ o_proj.T
        if not torch.allclose(got.float(), want, atol=1e-4):
            return f"Not yet: head {head}: expected what is left when all other heads output zeros, got other numbers"
    return RIGHT
