"""Checkers for lesson 42. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, number_of, run


def check_bits(fn: Callable) -> str:
    "`fn(bits, block, group, constant, small)` -> bits per parameter."
    for args, want, what in (
        ((4, 64), 4.5, "4 bits, blocks of 64"),
        ((4, 64, 256), 4.126953125, "the same, 256 constants sharing one"),
        ((4, 32, 256), 4.25390625, "blocks of 32, 256 constants sharing one"),
        ((8, 4096), 8.0078125, "8 bits, blocks of 4,096"),
        ((4, 64, None, 16), 4.25, "constants of 16 bits"),
        ((3, 128, 64, 16, 4), 3.033203125, "3 bits, blocks of 128, constants of 4 bits, 64 sharing one of 16"),
    ):
        if why := number_of(fn, args, want, what):
            return why
    return RIGHT


def check_houlsby(fn: Callable) -> str:
    "`fn(width, blocks, r)` -> the number of parameters of two adapters per block."
    for args, want, what in (
        ((4, 1, 1), 26, "width 4, one block, r = 1"),
        ((4, 1, 3), 62, "width 4, one block, r = 3"),
        ((12_288, 96, 1), 7_078_080, "GPT-3, r = 1"),
        ((12_288, 96, 64), 304_361_472, "GPT-3, r = 64"),
    ):
        if why := number_of(fn, args, want, what):
            return why
    return RIGHT


def check_could_be(fn: Callable) -> str:
    "`fn(printed, exact)` -> whether `printed` is `exact`, rounded or truncated."
    for printed, exact, want in (
        ("4.7M", 4_718_592, True),
        ("18.8M", 18_874_368, True),
        ("18.9M", 18_874_368, True),
        ("19.0M", 18_874_368, False),
        ("0.35M", 393_216, False),
        ("0.3M", 294_912, True),
        ("603.8M", 603_979_776, False),
        ("175B", 175_255_800_000, True),
        ("4,096", 4_096, True),
        ("4,097", 4_096, False),
        ("175,255.8M", 175_255_800_000, True),
        ("175,255.9M", 175_255_800_000, False),
        ("2K", 1_500, True),
        ("1K", 1_500, True),
        ("2K", 1_499, False),
    ):
        got, error = run(fn, printed, exact)
        if error:
            return error
        if not isinstance(got, bool):
            return f"Not yet: expected True or False, got {got!r}"
        if got != want:
            return f"Not yet: for {printed!r} and {exact:,} expected {want}, got {got}"
    return RIGHT
