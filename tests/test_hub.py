"""The tokenizer of every family as the Hub has it today: same chat format, and every tone of a masked walk is right.

`make test-hub`; needs a network. For the published vocabularies in the folder CANTOLYRIC_DATA, the same check runs
offline.
"""

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")

from cantolyric._published import TOKENIZERS
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.families.table import FAMILIES
from cantolyric.formats import format_named, user_text
from cantolyric.template.template import ToneTemplate

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
    check(tokenizer, FAMILIES[name].format, FAMILIES[name].end_token)


@pytest.mark.skipif(
    not (TOKENIZERS / "qwen2/vocab.json").exists(), reason="CANTOLYRIC_DATA names no folder with Qwen2's vocabulary"
)
def test_at_hand():
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZERS / "qwen2")
    check(tokenizer, "qwen2", "<|im_end|>")
    with pytest.raises(AssertionError):
        check(tokenizer, "qwen2.5", "<|im_end|>")  # another system line
