"""Checkers for lesson 34. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, number_of


def check_break_even(fn: Callable) -> str:
    "`fn(price, speed, other_speed)` -> the price at which the other machine costs the same per token."
    for args, want in (((0.5, 1000.0, 4000.0), 2.0), ((2.0, 3000.0, 1500.0), 1.0), ((0.7, 10.0, 10.0), 0.7)):
        if why := number_of(fn, args, want, f"price, speed, other speed {args}"):
            return why
    return RIGHT


def check_adam8_bytes(fn: Callable) -> str:
    "`fn(sizes)` -> the bytes of AdamW's state in 8 bits."
    for sizes, want, what in (
        ([25_600], 52_000, "one tensor of 100 blocks"),
        ([100, 4095], 33_560, "two tensors below 4,096"),
        ([4096], 8_320, "exactly 4,096"),
        ([5000], 10_160, "5,000, with an incomplete last block"),
        ([25_600, 100, 5000], 62_960, "three tensors"),
        ([], 0, "no tensor"),
    ):
        if why := number_of(fn, (list(sizes),), want, what):
            return why
    return RIGHT


def check_with_accumulation(fn: Callable) -> str:
    "`fn(moments)` -> the peak in bytes if the gradients exist from the start."
    loss, last, first, end = (
        {"weights": 4, "activations": 5, "logits and loss": 3},
        {"weights": 4, "activations": 5, "gradients": 1},
        {"weights": 4, "activations": 1, "gradients": 7},
        {"weights": 4, "gradients": 8},
    )
    moments = ("loss", "last block", "first block", "end")

    def made(**more: int) -> dict[str, dict[str, int]]:
        return {k: dict(m) for k, m in zip(moments, (loss, last | more, first, end))}

    for given, want, what in (
        (made(), 20, "peak at the loss"),
        (made(**{"temporary": 6}), 23, "peak in the last block"),
        (
            {
                "loss": {"weights": 2},
                "last block": {"weights": 2, "gradients": 1},
                "first block": {"weights": 2, "gradients": 1},
                "end": {"weights": 2, "gradients": 1, "temporary": 9},
            },
            12,
            "peak at the end",
        ),
    ):
        before = {k: dict(m) for k, m in given.items()}
        if why := number_of(fn, (given,), want, what):
            return why
        if given != before:
            return "Not yet: the function changed its argument, the moments"
    return RIGHT
