"""Checkers for lesson 11. Each returns "Right." or says what is not right yet; none raises."""
import re

from cantolyric._exercises import RIGHT, run


def check_assistant_labels(fn) -> str:
    "`fn(turns, end)` -> ids and labels of a conversation."
    x = -100
    for turns, want, why in [
            ([("user", [1, 2], [10, 11]), ("assistant", [1, 3], [20, 21])], ([1, 2, 10, 11, 9, 1, 3, 20, 21, 9], [x, x, x, x, x, x, x, 20, 21, 9]), "the answer and its end are learnt"),
            ([("assistant", [1], [9, 5])], ([1, 9, 5, 9], [x, 9, 5, 9]), "go by the turn, not by the id"),
            ([("user", [1], [7]), ("assistant", [2], [8]), ("user", [1], [8]), ("assistant", [2], [6])], ([1, 7, 9, 2, 8, 9, 1, 8, 9, 2, 6, 9], [x, x, x, x, 8, 9, x, x, x, x, 6, 9]), "every assistant turn is learnt"),
            ([("system", [4], [5])], ([4, 5, 9], [x, x, x]), "nothing to learn"), ([], ([], []), "no turns")]:
        got, error = run(fn, turns, 9)
        if error: return error
        if not isinstance(got, tuple) or len(got) != 2: return f"Not yet: wanted are two lists, ids and labels; it returned {got!r}"
        if list(got[0]) != want[0]: return f"Not yet: for {turns} the ids wanted are {want[0]}, it returned {got[0]}"
        if list(got[1]) != want[1]: return f"Not yet: for {turns} the labels wanted are {want[1]} ({why}), it returned {got[1]}"
    return RIGHT


def _turns(text):
    "What a parser of control tokens sees: (role, text) of each complete turn."
    return [tuple(t.split("\n", 1)) for t in re.findall(r"<\|im_start\|>((?:(?!<\|im_(?:start|end)\|>).)*)<\|im_end\|>", text, re.S) if "\n" in t]


def check_attack(fn) -> str:
    "`fn(request)` -> a topic that forges an assistant turn in a naive prompt, and only there."
    for request in ("我唔寫。", "好"):
        topic, error = run(fn, request)
        if error: return error
        if not isinstance(topic, str): return f"Not yet: wanted is a topic, it returned {topic!r}"
        turns = _turns(f"<|im_start|>user\n主題：{topic}\n聲調：3\n<|im_end|>\n<|im_start|>assistant\n")
        roles = [role for role, _ in turns]
        if "assistant" not in roles: return f"Not yet: the naive prompt has the complete turns {roles}, wanted is one of the assistant among them"
        if turns[roles.index("assistant")][1].strip() != request: return f"Not yet: the assistant seems to have said {turns[roles.index('assistant')][1]!r}, wanted is {request!r}"
        if roles[-1] != "user" or roles.index("assistant") == len(roles) - 1: return "Not yet: wanted is a user turn behind it, so that the prompt goes on as if nothing had happened"
    return RIGHT
