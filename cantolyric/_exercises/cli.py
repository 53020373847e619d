"""Checkers for lesson 54. Each returns "Right." or explains what is wrong; none raises."""

import contextlib
import io
from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def check_worst(fn: Callable) -> str:
    "`fn(data)` -> the numbers of the lines with a wrong slot, the worst first; `data` is what `check --json` prints."

    def line(*right: bool) -> list[dict]:
        return [dict(char="夜", jyutping="je6", wanted="2", got="2", right=r) for r in right]

    for lines, want, about in [
        ([line(True, True)], [], "all right"),
        ([line(True), line(False), line(True)], [2], "one wrong slot in line 2"),
        ([line(False, True), line(False, False)], [2, 1], "two wrong slots are worse than one"),
        ([line(False), line(True), line(False)], [1, 3], "equally bad lines stay in order"),
    ]:
        got, error = run(fn, dict(ok=not want, lines=lines))
        if error:
            return error
        if not isinstance(got, list) or got != want:
            return f"Not yet: {about}: expected {want}, got {got!r}"
    return RIGHT


def check_rhyme_command(fn: Callable) -> str:
    "`fn(commands)` adds a command `rhyme A B` that prints the grade; exit code 0 if they rhyme, 1 if not."
    from cantolyric.cli.parsing import Parser

    parser = Parser(prog="cantolyric")
    _, error = run(fn, parser.add_subparsers(required=True, parser_class=Parser))
    if error:
        return error
    for words, want, code in [(["gaai1", "paai4"], "3", 0), (["jyu5", "lou6"], "0", 1)]:
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                args = parser.parse_args(["rhyme", *words])
                got = args.run(args)
        except SystemExit:
            return (
                f"Not yet: 'rhyme {' '.join(words)}' is not understood: "
                f"{err.getvalue().strip() or out.getvalue().strip()}"
            )
        except AttributeError as e:
            return f"Not yet: {e}; is the function set with set_defaults(run=...)?"
        except Exception as e:
            return f"Not yet: it raised {type(e).__name__}: {e}"
        if out.getvalue().strip() != want:
            return f"Not yet: rhyme {' '.join(words)}: expected the output {want!r}, got {out.getvalue().strip()!r}"
        if got != code:
            return f"Not yet: rhyme {' '.join(words)}: expected the exit code {code}, got {got!r}"
    return RIGHT
