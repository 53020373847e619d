"""Checkers of the lessons' exercises: each returns "Right." or says what is not right yet; none raises."""
RIGHT = "Right."


def run(fn, *args):
    "What `fn` gives, or why it gave nothing."
    try: return fn(*args), None
    except Exception as e: return None, f"Not yet: it raised {type(e).__name__}: {e}"


def number(got, want, about, tolerance):
    "None where `got` is close to `want`, else what is not right."
    try: ok = abs(float(got) - want) <= tolerance
    except (TypeError, ValueError): return f"Not yet: wanted is a number, it returned {got!r}"
    return None if ok else f"Not yet: {about}: wanted is {want:,.4g}, it returned {got:,.6g}"


def number_of(fn, args, want, about, tolerance=1e-9):
    "None where `fn(*args)` is close to `want`, else what is not right."
    got, error = run(fn, *args)
    return error or number(got, want, about, tolerance)
