"""Checkers for the lessons' exercises. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable
from typing import Any

RIGHT = "Right."


def run(fn: Callable, *args: Any) -> tuple[Any, str | None]:
    "Call `fn`; return its result and None, or None and a message about the exception that it raised."
    try:
        return fn(*args), None
    except Exception as e:
        return None, f"Not yet: it raised {type(e).__name__}: {e}"


def number(got: Any, want: float, about: str, tolerance: float) -> str | None:
    "Return None if `got` is close to `want`, otherwise a message."
    try:
        ok = abs(float(got) - want) <= tolerance
    except (TypeError, ValueError):
        return f"Not yet: expected a number, got {got!r}"
    return None if ok else f"Not yet: {about}: expected {want:,.4g}, got {got:,.6g}"


def number_of(fn: Callable, args: tuple, want: float, about: str, tolerance: float = 1e-9) -> str | None:
    "Return None if `fn(*args)` is close to `want`, otherwise a message."
    got, error = run(fn, *args)
    return error or number(got, want, about, tolerance)
