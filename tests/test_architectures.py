"""Writing to given tones with many architectures and every kind of cache: the texts do not depend on the cache."""

import json
import logging
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from cantolyric.constraint import cache_use as module
from cantolyric.constraint.cache_use import CacheUse
from cantolyric.constraint.decoding import beams, check_writing, decode_ids, sampled, smc, write_tokens
from cantolyric.errors import ArgumentError, CantolyricError
from cantolyric.writing.scoring import token_nll

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import architectures
from architectures import ARCHITECTURES, PROMPT, RIGHT, small_model

TABLE = json.loads((BENCHMARKS / "results/architectures.json").read_text(encoding="utf-8"))["architectures"]
QUICK = {
    "llama",
    "mistral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5_text",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v4",
    "gemma3_text",
    "glm4",
    "hunyuan_v1_dense",
    "minimax_m2",
    "ernie4_5",
    "phi3",
    "gpt_oss",
    "granite",
    "olmo2",
    "smollm3",
    "falcon_h1",
    "jamba",
    "lfm2",
    "mamba2",
}
KINDS = {  # kinds of cache, and an architecture that has it
    "keys and values": "llama",
    "sliding windows": "gemma3_text",
    "linear attention": "qwen3_5_text",
    "both in one layer": "falcon_h1",
    "convolutions": "lfm2",
    "the model's own layers": "deepseek_v4",
    "outside the layers": "minimax",
    "another name": "mamba2",
}
WAYS = {
    "greedy": (1, sampled),
    "sampled": (3, lambda: sampled(do_sample=True, temperature=0.9)),
    "beams": (3, lambda: beams),
    "particles": (3, smc),
}


@pytest.fixture(scope="module")
def constraint():
    return architectures.constraint()


@pytest.fixture(scope="module")
def batch():
    "Two prompts, the second a token shorter."
    ids = torch.tensor([PROMPT, [0, *PROMPT[1:]]])
    return ids, torch.tensor([[1] * len(PROMPT), [0] + [1] * (len(PROMPT) - 1)])


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ARCHITECTURES])
def test_the_table_is_what_is_found(name, constraint):
    model = small_model(name)
    found = check_writing(model, constraint, torch.tensor(PROMPT))
    assert found.tones and found.off < RIGHT
    row = architectures.row(model, found) | {"why": found.use.why}
    assert row == {k: v for k, v in TABLE[name].items() if k != "off, bits"}


def test_the_table_has_every_architecture():
    assert set(TABLE) == set(ARCHITECTURES) and QUICK < set(TABLE)
    assert all(r["passes"] and r["off, bits"] < RIGHT for r in TABLE.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_without_a_cache(kind, constraint, batch):
    "Token for token, for every way to choose; and a padded prompt is written as it is alone."
    model, (ids, mask) = small_model(KINDS[kind]), batch
    for copies, choose in WAYS.values():
        written = []
        for cache in (None, False):
            torch.manual_seed(1)
            written.append(write_tokens(model, ids, constraint, mask, copies, choose(), cache=cache))
        assert written[0].ids == written[1].ids
        assert written[0].bits == pytest.approx(written[1].bits, abs=RIGHT)
        for text in written[0].ids:
            assert constraint.template.matches(decode_ids(constraint.table, text))
    alone = write_tokens(model, ids[1:, 1:], constraint, cache=False)
    assert write_tokens(model, ids, constraint, mask).ids[1] == alone.ids[0]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_share_a_prompt_cost_what_each_costs_alone(kind, batch):
    "The prompt is read once if the cache allows it; answers have different lengths, one of them a single token."
    model, (ids, _) = small_model(KINDS[kind]), batch
    answers = [[5, 6, 7, 8], [9], [5, 6]]
    shared = token_nll(model, [ids[0].tolist()] * 3, answers, [None] * 3)
    for answer, bits in zip(answers, shared, strict=True):
        (alone,) = token_nll(model, [ids[0].tolist()], [answer], [None])
        assert bits.shape == (len(answer),) and bits == pytest.approx(alone, abs=RIGHT)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3_5_text", "falcon_h1", "lfm2"])
def test_a_cache_of_ones_own(name, constraint, batch):
    "Static and dynamic, given by the user."
    model, (ids, mask) = small_model(name), batch
    want = write_tokens(model, ids, constraint, mask, 3, beams, cache=False)
    for cache in (StaticCache(config=model.config, max_cache_len=64), DynamicCache(config=model.config)):
        assert write_tokens(model, ids, constraint, mask, 3, beams, cache=cache).ids == want.ids


# why the cache is used as it is: these fail when transformers has mended it, and then a rule can go


def as_if(monkeypatch, **use):
    monkeypatch.setattr(module, "cache_use", lambda model, cache: CacheUse(**use))


def test_why_linear_layers_read_one_token_per_call(monkeypatch, constraint):
    "Jamba's forget their state when several tokens are read at once."
    as_if(monkeypatch)
    assert check_writing(small_model("jamba"), constraint, torch.tensor(PROMPT)).off > RIGHT


def test_why_some_models_get_no_padding(monkeypatch, constraint):
    "DeepSeek-V4 compresses padding together with text."
    as_if(monkeypatch, several=False)
    assert check_writing(small_model("deepseek_v4"), constraint, torch.tensor(PROMPT)).off > RIGHT


@torch.no_grad()
def test_why_rows_are_copied_by_reordering():
    "`batch_repeat_interleave` fails on a linear layer, and leaves half of a layer of both kinds as it was."
    ids = torch.tensor([PROMPT])
    filled = lambda name: small_model(name)(input_ids=ids, use_cache=True).past_key_values
    linear = filled("qwen3_5_text")
    with pytest.raises(AttributeError, match="batch_repeat_interleave"):
        linear.batch_repeat_interleave(3)
    once, again = filled("falcon_h1"), filled("falcon_h1")
    once.batch_repeat_interleave(3)
    again.reorder_cache(torch.zeros(3, dtype=torch.long))
    for cache, states in (once, 1), (again, 3):
        assert len(cache.layers[0].keys) == 3 and len(cache.layers[0].recurrent_states[0]) == states


# what happens where a cache cannot be used


def test_a_cache_that_cannot_copy_rows(monkeypatch, caplog, constraint, batch):
    "The texts are the same, and the log says once that they took longer."
    model, (ids, mask) = small_model("llama"), batch
    want = write_tokens(model, ids, constraint, mask, 3, beams)

    def refuse(self, rows):
        raise NotImplementedError("no rows here")

    monkeypatch.setattr(DynamicLayer, "reorder_cache", refuse)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            got = write_tokens(model, ids, constraint, mask, 3, beams)
    assert got.ids == want.ids and got.bits == pytest.approx(want.bits, abs=RIGHT)
    said = [r.message for r in caplog.records if "no rows here" in r.message]
    assert said == [
        "the cache of llama cannot copy rows (no rows here): the whole text is read again at each step, which is slower"
    ]


def test_a_cache_serves_one_length(constraint, batch):
    ids, mask = batch
    cache = DynamicCache(config=small_model("deepseek_v4").config)
    with pytest.raises(CantolyricError, match="deepseek_v4 writes prompts of 2 lengths one after another"):
        write_tokens(small_model("deepseek_v4"), ids, constraint, mask, cache=cache)


def test_padding_behind_a_prompt(constraint, batch):
    ids, mask = batch
    with pytest.raises(ArgumentError) as e:
        write_tokens(small_model("llama"), ids, constraint, mask.flip(1))
    assert e.value.name == "attention_mask" and "padding_side='left'" in e.value.problem
