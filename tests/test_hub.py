"""The published tokenizer of every family, as the Hub has it today: the chat format is still theirs, and a masked walk still has every tone right.

`make test-hub`; needs a network. Where a published vocabulary is at hand (CANTOLYRIC_DATA), the same check runs on it without one.
"""

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")

from cantolyric._published import TOKENIZERS  # noqa: E402
from cantolyric.constraint import TokenTable, ToneConstraint  # noqa: E402
from cantolyric.families import FAMILIES  # noqa: E402
from cantolyric.formats import format_named, user_text  # noqa: E402
from cantolyric.template import ToneTemplate  # noqa: E402

EXAMPLE = {"topic": "夜雨", "tones": "0243/3324", "lyrics": ""}  # je6 jyu5, night rain
SMALL = {name: min(family.checkpoints, key=lambda c: c.billions).id for name, family in FAMILIES.items()}


def walk(constraint: ToneConstraint, seed: int) -> list:
    "Ids drawn evenly from those that the mask allows."
    rng, ids, state = np.random.default_rng(seed), [], constraint.start()
    while not constraint.is_final(state):
        ids.append(int(rng.choice(constraint.allowed_ids(state))))
        state = constraint.advance(state, ids[-1])
    return ids


def check(tokenizer, form: str, end: str):
    "What the lessons take for granted of a published tokenizer."
    messages = [{"role": "user", "content": user_text(EXAMPLE)}]
    if tokenizer.chat_template:
        how = dict(add_generation_prompt=True, enable_thinking=False, return_dict=True)
        theirs = tokenizer.apply_chat_template(messages, **how)["input_ids"]
        assert theirs == format_named(form).prompt_ids(EXAMPLE, tokenizer)
    else:  # DeepSeek-V4 publishes code in the place of a template
        assert form == "deepseek-v4" and format_named(form).prompt_ids(EXAMPLE, tokenizer)
    constraint = ToneConstraint(EXAMPLE["tones"], TokenTable.from_tokenizer(tokenizer, end=end))
    for seed in range(5):
        assert ToneTemplate.parse(EXAMPLE["tones"]).matches(tokenizer.decode(walk(constraint, seed)))


@pytest.mark.hub
@pytest.mark.parametrize("name", FAMILIES)
def test_on_the_hub(name):
    tokenizer = transformers.AutoTokenizer.from_pretrained(SMALL[name], trust_remote_code=False)  # as load_model does
    check(tokenizer, FAMILIES[name].format, FAMILIES[name].end)


@pytest.mark.skipif(
    not (TOKENIZERS / "qwen2/vocab.json").exists(), reason="CANTOLYRIC_DATA names no folder with Qwen2's vocabulary"
)
def test_at_hand():
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZERS / "qwen2")
    check(tokenizer, "qwen2", "<|im_end|>")
    with pytest.raises(AssertionError):
        check(tokenizer, "qwen2.5", "<|im_end|>")  # another system line
