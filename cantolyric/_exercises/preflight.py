"""Checkers for lesson 40. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def check_gate_repeats(fn: Callable) -> str:
    "`fn(train, most)` -> a GateResult with the name repeats."
    from cantolyric.checks.results import GateResult

    def make(*lyrics: str) -> list[dict]:
        return [dict(topic="雨", tones="*", lyrics=x) for x in lyrics]

    for train, most, ok, value in (
        (make("落雨", "天光"), 1, True, 1),
        (make("落雨", "落雨", "天光"), 1, False, 2),
        (make("落雨", "落雨", "天光"), 2, True, 2),
        (make("落雨\n天光", "落雨 天光", "落雨天光"), 2, False, 3),
        ([], 3, True, 0),
    ):
        got, error = run(fn, train, most)
        if error:
            return error
        if not isinstance(got, GateResult):
            return f"Not yet: expected a GateResult, got {got!r}"
        about = f"for {[e['lyrics'] for e in train]} with at most {most}"
        if got.name != "repeats":
            return f"Not yet: expected the name 'repeats', got {got.name!r}"
        if got.value != value:
            return f"Not yet: {about} expected the value {value}, got {got.value!r}"
        if bool(got) != ok:
            return f"Not yet: {about} expected the gate to {'pass' if ok else 'fail'}, got ok={got.ok!r}"
        if not ok and "落雨" not in got.message:
            return f"Not yet: expected a message that shows the repeated lyric, got {got.message!r}"
    return RIGHT


def check_accumulated(fn: Callable) -> str:
    "`fn(means, counts)` -> losses that add up to the mean of the whole batch."
    for means, counts in (
        ([2.0, 2.0], [5, 5]),
        ([1.0, 4.0], [30, 10]),
        ([3.0, 1.0, 2.0, 7.0], [1, 50, 20, 3]),
        ([2.5], [8]),
        ([1.0, 0.0], [4, 0]),
    ):
        want = sum(m * n for m, n in zip(means, counts)) / sum(counts)
        got, error = run(fn, list(means), list(counts))
        if error:
            return error
        try:
            total = float(sum(got)) if len(got) == len(means) else None
        except TypeError:
            return f"Not yet: expected a list of numbers, got {got!r}"
        if total is None:
            return f"Not yet: expected {len(means)} losses, got {len(got)}"
        if abs(total - want) > 1e-9:
            about = f"means {means} of {counts} labels"
            return f"Not yet: {about}: expected a sum of {want:.4f}, the mean of the whole batch, got {total:.4f}"
    return RIGHT


def check_first_spike(fn: Callable) -> str:
    "`fn(losses, window, factor)` -> the index of the first spike, or None."
    nan, inf = float("nan"), float("inf")
    for losses, window, factor, want in (
        ([4, 3, 3, 2, 2, 2], 10, 3.0, None),
        ([4, 3, 3, 2, 9, 2, 2], 10, 3.0, None),
        ([4, 3, 3, 2, 10, 2, 2], 10, 3.0, 4),
        ([4, 3, nan, 2], 10, 3.0, 2),
        ([nan], 10, 3.0, 0),
        ([1, 50, 1, 1, 1], 10, 3.0, None),
        ([9, 9, 9, 1, 1, 1, 5], 3, 3.0, 6),
        ([9, 9, 9, 1, 1, 1, 5], 10, 3.0, None),
        ([3, 3, 3, inf], 10, 3.0, 3),
        ([], 10, 3.0, None),
    ):
        got, error = run(fn, list(losses), window, factor)
        if error:
            return error
        if got != want:
            return f"Not yet: for {losses} (window {window}, factor {factor:g}) expected {want}, got {got!r}"
    return RIGHT


def check_topics_moved(fn: Callable) -> str:
    "`fn(p, share)` -> dict(train=...) in which some examples have the topic of the previous one."
    from types import SimpleNamespace

    names = ["雨", "風", "月", "海", "山"]
    for n, share, few in ((5, 1.0, 5), (5, 0.4, 2), (5, 0.01, 1), (3, 0.5, 2), (1, 1.0, 1)):
        train = [dict(topic=t, lyrics=f"{t}呀", tones="*") for t in names[:n]]
        p = SimpleNamespace(train=[dict(e) for e in train], held_out=[])
        got, error = run(fn, p, share)
        if error:
            return error
        about = f"for {n} examples and a share of {share:g}"
        if p.train != train:
            return f"Not yet: {about} the healthy examples were changed: create new ones"
        if not isinstance(got, dict) or set(got) != {"train"}:
            return f"Not yet: expected a dict with the changed field, train, got {got!r}"
        want = [dict(e, topic=train[i - 1]["topic"]) if i < few else e for i, e in enumerate(train)]
        if got["train"] != want:
            try:
                topics = [e["topic"] for e in got["train"]]
            except (TypeError, KeyError):
                return f"Not yet: {about} expected a list of examples, got {got['train']!r}"
            expected = [e["topic"] for e in want]
            return f"Not yet: {about} expected the topics {expected} and nothing else changed, got the topics {topics}"
    return RIGHT
