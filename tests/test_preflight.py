"""Lesson 40: healthy runs pass every gate; each planted mistake is stopped first by the gate that was made for it."""
import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from cantolyric._exercises import preflight as exercises  # noqa: E402
from cantolyric.base import asset_path, hf_tokenizer  # noqa: E402
from cantolyric.formats import Alpaca, ChatML  # noqa: E402
from cantolyric.hooks import output_head  # noqa: E402
from cantolyric.preflight import (GATES, MISTAKES, GateResult, Gates, Look, add_adapter, caught_by, gate_data, gate_forecast, gate_mask, labelled,  # noqa: E402
                                  make_parts, preflight, run_gate, small_variant, tone_batch)
from cantolyric.reading import Reader  # noqa: E402
from cantolyric.tones import CantolyricError  # noqa: E402

WORDS = {w: tuple(j.split()) for w, j in {"今": "gam1", "晚": "maan5", "落": "lok6", "雨": "jyu5", "我": "ngo5", "想": "soeng2", "你": "nei5", "行": "haang4",
                                          "路": "lou6", "天": "tin1", "光": "gwong1", "銀": "ngan4", "銀行": "ngan4 hong4"}.items()}
CHEAP = [g for g in GATES if g not in ("overfit", "forecast")]


def pairs(reader, *items):
    return [dict(topic=t, lyrics=x, tones="/".join(reader.tones(line) for line in x.split("\n"))) for t, x in items]


@pytest.fixture(scope="module")
def reader(): return Reader(WORDS)


@pytest.fixture(scope="module")
def tokenizer(): return hf_tokenizer(asset_path("base", "tokenizer.json"))


def build(reader, tokenizer, fmt):
    train = pairs(reader, ("夜雨", "今晚落雨\n我想你"), ("行路", "我行路"), ("天光", "天光\n落雨"))
    held_out = pairs(reader, ("銀行", "銀行今晚落雨"))
    return make_parts(add_adapter(small_variant(tokenizer)), tokenizer, train, held_out, format=fmt, reader=reader, lr=1e-2)


@pytest.fixture(scope="module")
def parts(reader, tokenizer): return build(reader, tokenizer, ChatML())


def test_healthy_parts_pass_and_stay_as_they_are(parts):
    before = {n: p.detach().clone() for n, p in parts.model.named_parameters()}
    dice = torch.get_rng_state()
    report = preflight(parts)
    assert report.ok and report.failed == [] and len(report) == len(GATES), str(report)
    assert all(torch.equal(p, before[n]) for n, p in parts.model.named_parameters())
    assert all(p.grad is None for p in parts.model.parameters()) and torch.equal(dice, torch.get_rng_state())
    assert not output_head(parts.model)._forward_hooks
    assert report.require("training") is report
    assert report._repr_html_().count("<tr>") == len(GATES) + 1 and "overfit" in str(report)


def test_another_format(reader, tokenizer):
    assert preflight(build(reader, tokenizer, Alpaca()), CHEAP).ok


def test_there_are_enough_mistakes(): assert len(MISTAKES) >= 10 and {m.gate for m in MISTAKES.values()} == set(GATES)


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_stopped_first_by_its_own_gate(parts, name):
    wanted = MISTAKES[name].gate
    failed = caught_by(name, parts, [g for g in GATES if g in CHEAP or g == wanted])
    assert failed[:1] == [wanted]


def test_mistakes_leave_the_healthy_parts_alone(parts):
    for name in MISTAKES: MISTAKES[name](parts)
    assert preflight(parts, CHEAP).ok


def test_without_a_mask(parts):
    batch = {k: v for k, v in parts.batch.items() if k not in ("states", "table")}
    assert preflight(replace(parts, batch=batch, attach=None), CHEAP).ok
    assert preflight(replace(parts, attach=None), CHEAP).failed[0] == "hook"


def test_stop_and_require(parts):
    spoilt = MISTAKES["prompt in the loss"](parts)
    short = preflight(spoilt, stop=True)
    assert short.failed == ["labels"] and len(short) < len(GATES)
    with pytest.raises(CantolyricError, match=r"stopped before the smoke rung: \[labels\] example 0"): short.require("the smoke rung")


def test_an_error_inside_a_gate_is_a_failure(parts):
    result = run_gate("prompt", replace(parts, prompt_ids=lambda e: 1 / 0))
    assert not result and "ZeroDivisionError" in result.message
    broken = replace(parts, train=[dict(parts.train[0], tones="99"), *parts.train[1:]])
    assert not run_gate("template", broken)


def test_names_that_are_none(parts):
    assert [r.name for r in preflight(parts, "data")] == ["data"]
    with pytest.raises(CantolyricError, match="no gate 'nope': there are data, template"): preflight(parts, ["nope"])
    with pytest.raises(CantolyricError, match="no mistake 'nope': there are train/test leak"): caught_by("nope", parts)
    with pytest.raises(KeyError, match="no gate 'hook' was asked"): preflight(parts, "data")["hook"]


def test_nothing_to_train_on_and_encodings_that_are_missing(parts, tokenizer):
    with pytest.raises(CantolyricError, match="no examples"): tone_batch([], [], tokenizer)
    short = run_gate("labels", replace(parts, encoded=parts.encoded[:-1]))
    assert not short and "3 examples, but 2 of them encoded" in short.message


def test_data_gate():
    e = lambda s: dict(lyrics=s)
    assert gate_data([e("天光")], [e("落雨")]) and not gate_data([], [e("落雨")]) and not gate_data([e("落雨")], [])
    assert not gate_data([e("天光\n落雨")], [e("天光 落雨")])


def test_a_character_cut_in_half(parts, tokenizer):
    rare = dict(parts.train[0], lyrics="今晚㗎")
    row = parts.format.encode(rare, tokenizer)
    cut = {k: v[:-2] for k, v in row.items()}
    result = run_gate("truncation", replace(parts, train=[rare], encoded=[cut]))
    assert not result and result.value == 1


def test_mask_gate(parts):
    assert not gate_mask(dict(parts.batch, table=torch.ones_like(parts.batch["table"]))), "a mask that allows everything"
    states = parts.batch["states"].clone()
    states[0, 0] = 1
    assert not gate_mask(dict(parts.batch, states=states)), "the prompt is masked"


def test_forecast(parts):
    forecast = lambda **plan: gate_forecast(parts.model, parts.batch, parts.loss, plan)
    assert forecast(steps=10) and forecast(steps=100, seconds_a_step=1., max_seconds=100).value[0] == 100
    assert not forecast(steps=101, seconds_a_step=1., max_seconds=100)
    assert not forecast(steps=1, seconds_a_step=1., tokens_a_step=10**7, max_gib=8)


def test_batch_and_look(parts, tokenizer, reader):
    assert [labelled(dict(labels=r)) for r in parts.batch["labels"].tolist()] == [labelled(r) for r in parts.encoded]
    plain = tone_batch(parts.train, parts.encoded, tokenizer)
    assert set(plain) == {"input_ids", "attention_mask", "labels"} and torch.equal(plain["labels"], parts.batch["labels"])
    look = Look(parts.encoded[0], tokenizer)
    assert str(look).endswith("⟦今晚落雨\n我想你<|im_end|>⟧") and "&lt;|im_end|&gt;" in look._repr_html_()


def test_gates_report():
    report = Gates([GateResult("a", True, "fine"), GateResult("b", False, "<bad>")])
    assert not report.ok and report["b"].message == "<bad>" and "&lt;bad&gt;" in report._repr_html_() and str(report).split("\n")[1].startswith("FAIL b")
    assert Gates().ok


def test_a_run_can_go_on_from_parts_that_were_checked(parts):
    model = copy.deepcopy(parts.model) # a checked model is no special model
    assert preflight(replace(parts, model=model), ["adapter", "numbers"]).ok


def test_checkers_know_wrong():
    for check in (exercises.check_gate_repeats, exercises.check_accumulated, exercises.check_first_spike): assert check(lambda *a: ...).startswith("Not yet")
    assert "the whole batch has" in exercises.check_accumulated(lambda means, counts: [m / len(means) for m in means])
    assert "wanted is 2" in exercises.check_first_spike(lambda losses, window, factor: next((i for i, x in enumerate(losses) if i > 2 and x > factor * sorted(losses[:i])[i // 2]), None))
