"""Checkers for lesson 34. Each returns "Right." or says what is not right yet; none raises."""
from cantolyric._exercises import RIGHT, number_of


def check_break_even(fn) -> str:
    "`fn(price, tokens a second, the other's)` -> the other's price."
    for args, want in (((.5, 1000., 4000.), 2.), ((2., 3000., 1500.), 1.), ((.7, 10., 10.), .7)):
        if why := number_of(fn, args, want, f"price, speed, other speed {args}"): return why
    return RIGHT


def check_adam8_bytes(fn) -> str:
    "`fn(sizes)` -> bytes of AdamW's state in 8 bits."
    for sizes, want, what in (([25_600], 52_000, "one tensor of 100 blocks"), ([100, 4095], 33_560, "two tensors below 4,096"), ([4096], 8_320, "exactly 4,096"),
                              ([5000], 10_160, "5,000, whose last block is only begun"), ([25_600, 100, 5000], 62_960, "three tensors"), ([], 0, "no tensor")):
        if why := number_of(fn, (list(sizes),), want, what): return why
    return RIGHT


def check_with_accumulation(fn) -> str:
    "`fn(moments)` -> bytes at the fullest moment, gradients there from the start."
    loss, last, first, end = {"weights": 4, "activations": 5, "logits and loss": 3}, {"weights": 4, "activations": 5, "gradients": 1}, {"weights": 4, "activations": 1, "gradients": 7}, {"weights": 4, "gradients": 8}
    made = lambda **more: {k: dict(m) for k, m in zip(("loss", "last block", "first block", "end"), (loss, last | more, first, end))}
    for given, want, what in ((made(), 20, "fullest at the loss"), (made(**{"at work": 6}), 23, "fullest in the last block"),
                              ({"loss": {"weights": 2}, "last block": {"weights": 2, "gradients": 1}, "first block": {"weights": 2, "gradients": 1}, "end": {"weights": 2, "gradients": 1, "at work": 9}}, 12, "fullest at the end")):
        before = {k: dict(m) for k, m in given.items()}
        if why := number_of(fn, (given,), want, what): return why
        if given != before: return "Not yet: it changes the moments that it is given"
    return RIGHT
