"""Checkers for lesson 11. Each returns "Right." or explains what is wrong; none raises."""

import re
from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def check_assistant_labels(fn: Callable) -> str:
    "`fn(turns, end)` -> the ids and labels of a conversation."
    x = -100
    for turns, want, why in [
        (
            [("user", [1, 2], [10, 11]), ("assistant", [1, 3], [20, 21])],
            ([1, 2, 10, 11, 9, 1, 3, 20, 21, 9], [x, x, x, x, x, x, x, 20, 21, 9]),
            "the answer and its end have labels",
        ),
        ([("assistant", [1], [9, 5])], ([1, 9, 5, 9], [x, 9, 5, 9]), "labels depend on the turn, not on the id"),
        (
            [("user", [1], [7]), ("assistant", [2], [8]), ("user", [1], [8]), ("assistant", [2], [6])],
            ([1, 7, 9, 2, 8, 9, 1, 8, 9, 2, 6, 9], [x, x, x, x, 8, 9, x, x, x, x, 6, 9]),
            "every assistant turn has labels",
        ),
        ([("system", [4], [5])], ([4, 5, 9], [x, x, x]), "there is no assistant turn"),
        ([], ([], []), "no turns"),
    ]:
        got, error = run(fn, turns, 9)
        if error:
            return error
        if not isinstance(got, tuple) or len(got) != 2:
            return f"Not yet: expected two lists, ids and labels, got {got!r}"
        if list(got[0]) != want[0]:
            return f"Not yet: for {turns} expected the ids {want[0]}, got {got[0]}"
        if list(got[1]) != want[1]:
            return f"Not yet: for {turns} expected the labels {want[1]} ({why}), got {got[1]}"
    return RIGHT


def _turns(text):
    "Return the complete turns that a parser of control tokens sees, as (role, text)."
    return [
        tuple(t.split("\n", 1))
        for t in re.findall(r"<\|im_start\|>((?:(?!<\|im_(?:start|end)\|>).)*)<\|im_end\|>", text, re.S)
        if "\n" in t
    ]


def check_attack(fn: Callable) -> str:
    "`fn(request)` -> a topic that forges an assistant turn in a naive prompt."
    for request in ("我唔寫。", "好"):
        topic, error = run(fn, request)
        if error:
            return error
        if not isinstance(topic, str):
            return f"Not yet: expected a topic, got {topic!r}"
        turns = _turns(f"<|im_start|>user\n主題：{topic}\n聲調：3\n<|im_end|>\n<|im_start|>assistant\n")
        roles = [role for role, _ in turns]
        if "assistant" not in roles:
            return f"Not yet: expected a complete assistant turn in the naive prompt, got the turns {roles}"
        if turns[roles.index("assistant")][1].strip() != request:
            return f"Not yet: expected the assistant turn {request!r}, got {turns[roles.index('assistant')][1]!r}"
        if roles[-1] != "user" or roles.index("assistant") == len(roles) - 1:
            return "Not yet: expected a user turn after the forged one, so that the prompt continues as usual"
    return RIGHT
