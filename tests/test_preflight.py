"""Lesson 40: healthy runs pass every gate; each planted mistake is stopped first by the gate that was made for it."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from cantolyric._exercises import preflight as exercises
from cantolyric.base import load_base
from cantolyric.checks.costs import caught_by, mistake_cost, run_cost, wilson
from cantolyric.checks.data_gates import gate_data, gate_labels
from cantolyric.checks.defaults import (
    accumulate_gradients,
    adamw,
    count_labels,
    load_state,
    micro_batches,
    save_state,
)
from cantolyric.checks.mistake import SHOWS
from cantolyric.checks.mistakes import MISTAKES, OLD_NAMES
from cantolyric.checks.model_gates import gate_hook, gate_mask, gate_quantized, gate_vocabulary
from cantolyric.checks.planted_model import four_bit_base, small_experts
from cantolyric.checks.preflight import GATES, preflight, run_gate, small_variant
from cantolyric.checks.results import ExampleView, GateReport, GateResult
from cantolyric.checks.setup import RunPlan, make_setup, mask_context_for, merged_copy, tone_batch, with_fresh_lora
from cantolyric.checks.training_gates import gate_accumulation, gate_forecast, gate_merge, gate_resume, gate_stops
from cantolyric.errors import ArgumentError, GateError
from cantolyric.formats import FORMATS, Alpaca, ChatML
from cantolyric.hooks import output_head
from cantolyric.paths import asset_path
from cantolyric.pretraining import hf_tokenizer
from cantolyric.reading import Reader
from cantolyric.rows import answer_ids

WORDS = {
    w: tuple(j.split())
    for w, j in {
        "今": "gam1",
        "晚": "maan5",
        "落": "lok6",
        "雨": "jyu5",
        "我": "ngo5",
        "想": "soeng2",
        "你": "nei5",
        "行": "haang4",
        "路": "lou6",
        "天": "tin1",
        "光": "gwong1",
        "銀": "ngan4",
        "銀行": "ngan4 hong4",
    }.items()
}
CHEAP = [g for g in GATES if g not in ("overfit", "stops", "resume", "merge", "forecast")]


def pairs(reader, *items):
    return [dict(topic=t, lyrics=x, tones="/".join(reader.tones(line) for line in x.split("\n"))) for t, x in items]


@pytest.fixture(scope="module")
def reader():
    return Reader(WORDS)


@pytest.fixture(scope="module")
def tokenizer():
    return hf_tokenizer(asset_path("base", "tokenizer.json"))


def build(reader, tokenizer, fmt):
    train = pairs(reader, ("夜雨", "今晚落雨\n我想你"), ("行路", "我行路"), ("天光", "天光\n落雨"))
    held_out = pairs(reader, ("銀行", "銀行今晚落雨"))
    return make_setup(
        with_fresh_lora(small_variant(tokenizer)), tokenizer, train, held_out, format=fmt, reader=reader, lr=1e-2
    )


@pytest.fixture(scope="module")
def healthy(reader, tokenizer):
    return build(reader, tokenizer, ChatML())


def test_healthy_parts_pass_and_stay_as_they_are(healthy):
    before = {n: p.detach().clone() for n, p in healthy.model.named_parameters()}
    rng_state = torch.get_rng_state()
    report = preflight(healthy)
    assert report.ok and report.failed == [] and len(report) == len(GATES), str(report)
    assert all(torch.equal(p, before[n]) for n, p in healthy.model.named_parameters())
    assert all(p.grad is None for p in healthy.model.parameters()) and torch.equal(rng_state, torch.get_rng_state())
    assert not output_head(healthy.model)._forward_hooks
    assert report.require("training") is report
    assert report._repr_html_().count("<tr>") == len(GATES) + 1 and "overfit" in str(report)


def test_slow_gates_are_named_while_the_others_go_on(healthy, monkeypatch, capsys):
    logged = []
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    preflight(healthy, ("data", "gradients"), desc="smoke: gates", log=logged.append)
    shown = capsys.readouterr().err
    assert not logged and "smoke: gates" in shown and "gradients" in shown  # neither takes a second
    preflight(healthy, ("data", "gradients"), log=logged.append, log_after=-1.0)
    assert [x.split(" after ")[0].strip() for x in logged] == ["gate data: passed", "gate gradients: passed"]


def test_another_format(reader, tokenizer):
    assert preflight(build(reader, tokenizer, Alpaca()), CHEAP).ok


def test_there_are_enough_mistakes():
    assert len(MISTAKES) >= 26 and {m.gate for m in MISTAKES.values()} == set(GATES)
    for m in MISTAKES.values():
        assert (
            m.shows in SHOWS
            and list(m.severities) == sorted(m.severities)
            and (m.usual in m.severities if m.severities else m.usual is None)
        )


NAMED = {  # what the message must say: the cause, not only that something is wrong
    "train/test leak": "split first",
    "tone digits swapped": "another tone table",
    "prompt in the loss": "labels of the prompt to -100",
    "labels shifted twice": "must not be shifted",
    "answers truncated": "raise the maximum length",
    "end token masked": "masks the pad token",
    "padding counted": "padding tokens carry loss",
    "another end token": "eos_token_id",
    "tokens added": "resize_token_embeddings",
    "wrong format at generation": "one format for both",
    "last newline missing": "prompts differ from token",
    "mask one token late": "one token late",
    "hook missing": "it is missing",
    "mask upside down": "upside down",
    "hook after the loss": "after the loss, put it on the head",
    "hook never removed": "remove the hook",
    "hook under a fused loss": "a fused loss",
    "weights without scales": "the right weights",
    "not a number": "overflowed",
    "nothing trainable": "is_trainable=True",
    "base not frozen": "freeze the base",
    "adapter in 16 bits": "keep the adapter in float32",
    "matrices frozen": "are frozen",
    "gradient cut": "detached",
    "end ignored by the loss": "'<|im_end|>'",
    "labels made by the loss": "labels of its own",
    "evaluation with dropout": "dropout is on",
    "training without dropout": "model.train()",
    "mean of the means": "labels of the whole batch",
    "parts not divided": "divide by the number of parts",
    "optimizer made too early": "Make it after the adapter",
    "learning rate too high": "rate is too high",
    "learning rate too low": "rate is too low",
    "a run of weeks": "fewer steps",
    "optimizer not saved": "the optimizer's state",
    "data from the start": "the data start over",
    "random state not saved": "save and load the random state",
    "merge into 4 bits": "rounded to 4 bits",
    "merged with another scale": "with another scale",
    "experts left unquantized": "fused experts",
    "layers left in 16 bits": "left out by name",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_stopped_first_by_its_own_gate(healthy, name):
    wanted = MISTAKES[name].gate
    found = preflight(MISTAKES[name](healthy), [g for g in GATES if g in CHEAP or g == wanted], stop=True)
    assert found.failed == [wanted], str(found)
    assert NAMED[name] in found[wanted].message and "could not be checked" not in found[wanted].message, str(
        found[wanted]
    )


ENDS = [
    "tone digits swapped",
    "prompt in the loss",
    "weights without scales",
    "evaluation with dropout",
    "parts not divided",
    "learning rate too high",
    "merged with another scale",
    "layers left in 16 bits",
]


@pytest.mark.parametrize("name", ENDS)
def test_more_of_a_mistake_is_caught_when_less_is(healthy, name):
    "At the far end always; and the figure behind the gate is larger there."
    m = MISTAKES[name]
    small, large = (run_gate(m.gate, m(healthy, s)) for s in (m.severities[0], m.severities[-1]))
    assert not large and (small or not large)
    if name in ("parts not divided", "merged with another scale"):
        assert large.value > small.value
    if name == "layers left in 16 bits":
        assert large.value < small.value and small.ok


def test_severities_that_cannot_be(healthy):
    for name, severity in (("not a number", 2), ("tone digits swapped", -1)):
        with pytest.raises(ArgumentError) as error:
            MISTAKES[name](healthy, severity)
        assert (error.value.name, error.value.value) == ("severity", severity)
    assert "share of the examples" in str(error.value)
    leaked = lambda s: sum(
        e in healthy.train
        for e in MISTAKES["train/test leak"](replace(healthy, held_out=healthy.held_out * 20), s).held_out
    )
    assert (leaked(0.05), leaked(0.5), leaked(1.0)) == (1, 10, 20)
    assert caught_by("learning rate too high", healthy, ["overfit"], severity=1000) == ["overfit"]


def test_mistakes_leave_the_healthy_parts_alone(healthy):
    before = {n: p.detach().clone() for n, p in healthy.model.named_parameters()}
    flags = {n: (p.requires_grad, p.dtype) for n, p in healthy.model.named_parameters()}
    for name in MISTAKES:
        MISTAKES[name](healthy)
    assert all(
        torch.equal(p, before[n]) and (p.requires_grad, p.dtype) == flags[n]
        for n, p in healthy.model.named_parameters()
    )
    assert preflight(healthy, CHEAP).ok


def test_without_a_mask(healthy):
    batch = {k: v for k, v in healthy.batch.items() if k not in ("mask_ids", "mask_table")}
    assert preflight(replace(healthy, batch=batch, mask_context=None), CHEAP).ok
    assert preflight(replace(healthy, mask_context=None), CHEAP).failed[0] == "hook"


def test_modes_and_random_state_are_restored(healthy):
    model = copy.deepcopy(healthy.model).train()
    first = next(m for m in model.modules() if not list(m.children()))
    first.eval()  # one module that somebody froze
    was, rng_state = {n: m.training for n, m in model.named_modules()}, torch.get_rng_state()
    for g in ("numbers", "hook", "start", "evaluation", "accumulation", "step", "stops", "resume", "merge"):
        assert run_gate(g, replace(healthy, model=model, mask_context=mask_context_for(model))), g
    assert {n: m.training for n, m in model.named_modules()} == was and torch.equal(rng_state, torch.get_rng_state())


def test_gates_that_do_not_apply_say_why(healthy):
    skipped = lambda r: r.ok and r.message.startswith("skipped: ")
    assert skipped(gate_quantized(healthy.model)) and skipped(gate_merge(replace(healthy, merge=None)))
    assert skipped(gate_merge(healthy, max_gib=1e-6))
    assert skipped(gate_accumulation(healthy.model, micro_batches(healthy.batch)[0], healthy.loss_of))
    plain = {k: healthy.batch[k] for k in ("input_ids", "attention_mask", "labels")}
    assert skipped(run_gate("mask", replace(healthy, batch=plain)))


def test_labels_of_a_format_with_control_tokens(healthy, tokenizer):
    "A control token at the end of the prompt is not overlooked; the end token may be one without a role."
    row = healthy.encoded[0]
    k = next(i for i, x in enumerate(row["labels"]) if x != -100)
    special = row["input_ids"][: k - 1] + [tokenizer.convert_tokens_to_ids("<|im_start|>")] + row["input_ids"][k:]
    wrong = dict(input_ids=special, labels=[*row["labels"][: k - 1], special[k - 1], *row["labels"][k:]])
    assert not gate_labels(healthy.train[:1], [wrong], tokenizer) and gate_labels(healthy.train[:1], [row], tokenizer)
    gap = dict(row, labels=[*row["labels"][: k + 1], -100, *row["labels"][k + 2 :]])
    assert not gate_labels(healthy.train[:1], [gap], tokenizer), "a hole in the answer"


def test_vocabulary(healthy, tokenizer):
    assert (
        "another tokenizer"
        in gate_vocabulary([dict(input_ids=[9000])], healthy.format, tokenizer, healthy.model).message
    )

    class Strange:
        end_token = "<|nowhere|>"

    assert "has no <|nowhere|>" in gate_vocabulary(healthy.encoded, Strange, tokenizer, healthy.model).message


def test_rows_add_up(healthy):
    rows = micro_batches(healthy.batch)
    assert sum(map(count_labels, rows)) == count_labels(healthy.batch) and rows[1]["input_ids"].shape[1] == int(
        healthy.batch["attention_mask"][1].sum()
    )
    weighed = sum(float(healthy.loss_of(r).detach()) * count_labels(r) for r in rows) / count_labels(healthy.batch)
    assert abs(weighed - float(healthy.loss().detach())) < 1e-4
    assert gate_accumulation(healthy.model, healthy.batch, healthy.loss_of, accumulate_gradients).value < 1e-3


def test_a_state_is_one_file_of_tensors(healthy, tmp_path):
    model = copy.deepcopy(healthy.model)
    p = replace(
        healthy,
        model=model,
        mask_context=None,
        batch={k: healthy.batch[k] for k in ("input_ids", "attention_mask", "labels")},
    )
    how = adamw(model, 1e-2)
    p.loss().backward()
    how.step()
    want = {n: w.detach().clone() for n, w in model.named_parameters()}
    save_state(tmp_path, model, how, 7)
    assert [f.name for f in tmp_path.iterdir()] == ["state.safetensors"]
    with torch.no_grad():
        for w in model.parameters():
            if w.requires_grad:
                w.add_(1.0)
    other = adamw(model, 1e-2)
    assert load_state(tmp_path, model, other) == 7 and all(torch.equal(w, want[n]) for n, w in model.named_parameters())
    a, b = how.state_dict()["state"], other.state_dict()["state"]
    assert a.keys() == b.keys() and all(torch.equal(a[i][k], b[i][k]) for i in a for k in a[i])


def test_resume_tells_the_weights_apart(healthy):
    def nothing(folder, model, optimizer):
        return 3

    assert "weights are not what was saved" in gate_resume(replace(healthy, load=nothing)).message


def test_stops_without_a_mask_and_with_a_strange_prompt(healthy, tokenizer):
    free = replace(
        healthy, mask_context=None, batch={k: healthy.batch[k] for k in ("input_ids", "attention_mask", "labels")}
    )
    assert run_gate("stops", free)
    never = gate_stops(replace(free, lr=0.0), steps=2)
    assert not never and "without <|im_end|>" in never.message


def test_merged_and_four_bits(healthy):
    four = with_fresh_lora(four_bit_base(healthy.model), dropout=0.1)
    assert gate_quantized(four, "nf4").value > 0.97 and not gate_quantized(four, "int8")
    q = replace(
        healthy,
        model=four,
        mask_context=None,
        batch={k: healthy.batch[k] for k in ("input_ids", "attention_mask", "labels")},
        quantization="nf4",
    )
    assert run_gate("merge", q).value < 1e-3, "made dense first, an adapter on 4 bits merges"
    whole = merged_copy(four)
    assert not any("lora_" in n for n, _ in whole.named_parameters()) and all(
        p.dtype == torch.float32 for p in whole.parameters()
    )

    def careless(model):
        return model.merge_and_unload()

    spoilt = replace(healthy, model=copy.deepcopy(healthy.model), mask_context=None, batch=q.batch, merge=careless)
    assert "merge a copy" in run_gate("merge", spoilt).message


def test_a_mixture_of_experts_is_told(healthy):
    experts = with_fresh_lora(small_experts(len(healthy.tokenizer)))
    assert gate_quantized(experts) and ".experts." in gate_quantized(experts, "nf4").message


def test_a_fused_loss_that_the_hook_knows_is_no_failure(healthy):
    fused = MISTAKES["hook under a fused loss"](healthy)
    assert gate_hook(fused.model, fused.batch, mask_context_for(fused.model)), "logits_hook goes around the fused loss"


def test_shares_and_costs():
    assert (
        wilson(0, 20)[0] == 0
        and abs(wilson(0, 20)[1] - 0.161) < 0.001
        and abs(wilson(5, 10)[0] - 0.237) < 0.001
        and wilson(9, 9)[1] == 1
    )
    for k, n, name in ((3, 2, "k"), (0, 0, "n")):
        with pytest.raises(ArgumentError) as error:
            wilson(k, n)
        assert error.value.name == name
    run = run_cost(num_examples=320)
    assert run.steps == 10 and abs(run.hours - 10 * run.seconds_per_step / 3600) < 1e-12 and run.low < run.high
    lost = {name: mistake_cost(name, run).hours for name in MISTAKES}
    assert lost["hook missing"] == run.hours > lost["learning rate too high"] > lost["not a number"] > 0
    with pytest.raises(ArgumentError, match="train/test leak"):
        mistake_cost("nope", run)


FEW = [
    ("chatml", 4, 1, 0.0, "none"),
    ("alpaca", 32, 2, 0.1, "none"),
    ("chatml", 16, 3, 0.0, "nf4"),
    ("qwen2.5", 8, 4, 0.0, "none"),
]


def healthy_run(reader, tokenizer, fmt, rank, seed, dropout, quantization):
    lyrics = [
        ("夜雨", "今晚落雨\n我想你"),
        ("行路", "我行路"),
        ("天光", "天光\n落雨"),
        ("今晚", "今晚行路\n落雨\n我想你\n天光\n今晚我行\n落雨"),
    ]
    model = small_variant(tokenizer, seed)
    if quantization == "nf4":
        model = four_bit_base(with_fresh_lora(model))
    return make_setup(
        with_fresh_lora(model, rank, seed, dropout),
        tokenizer,
        pairs(reader, *lyrics[seed % 2 :]),
        pairs(reader, ("銀行", "銀行今晚落雨")),
        format=FORMATS[fmt],
        reader=reader,
        lr=1e-2,
        quantization=quantization,
    )


@pytest.mark.parametrize("how", FEW)
def test_healthy_runs_are_let_through(reader, tokenizer, how):
    report = preflight(healthy_run(reader, tokenizer, *how))
    assert report.ok, str(report)


@pytest.fixture(scope="module")
def shipped_base(reader, tokenizer):
    items = ("夜雨", "今晚落雨\n我想你"), ("行路", "我行路"), ("天光", "天光\n落雨")
    return make_setup(
        with_fresh_lora(load_base()[0]),
        tokenizer,
        pairs(reader, *items),
        pairs(reader, ("銀行", "銀行今晚落雨")),
        reader=reader,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_on_the_shipped_base(shipped_base, name):
    planted, own = MISTAKES[name](shipped_base), MISTAKES[name].gate
    found = preflight(planted, stop=True)
    if found.failed == ["start"] and own == "places":
        found = preflight(
            planted, [own]
        )  # a pretrained base pays so much for a prompt that its first loss tells as well
    assert found.failed == [own] and NAMED[name] in found[own].message, str(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_twenty_healthy_runs(reader, tokenizer, seed):
    how = (
        ("chatml", "alpaca", "qwen2.5", "yi")[seed % 4],
        (4, 8, 16, 32)[seed // 4 % 4],
        200 + seed,
        0.1 * (seed % 3 == 2),
        "nf4" if seed % 5 == 4 else "none",
    )
    report = preflight(healthy_run(reader, tokenizer, *how))
    assert report.ok, str(report)


def test_stop_and_require(healthy):
    spoilt = MISTAKES["prompt in the loss"](healthy)
    short = preflight(spoilt, stop=True)
    assert short.failed == ["labels"] and len(short) < len(GATES)
    with pytest.raises(GateError, match=r"stopped before the smoke stage: \[labels\] example 0") as error:
        short.require("the smoke stage")
    assert error.value.gates == ("labels",)


def test_an_error_inside_a_gate_is_a_failure(healthy):
    result = run_gate("prompt", replace(healthy, prompt_ids=lambda e: 1 / 0))
    assert not result and "ZeroDivisionError" in result.message
    broken = replace(healthy, train=[dict(healthy.train[0], tones="99"), *healthy.train[1:]])
    assert not run_gate("template", broken)


def test_names_that_are_none(healthy):
    assert [r.name for r in preflight(healthy, "data")] == ["data"]
    for call, known in (
        (lambda: preflight(healthy, ["nope"]), "data, template"),
        (lambda: caught_by("nope", healthy), "train/test leak"),
    ):
        with pytest.raises(ArgumentError, match=f"expected one of {known}") as error:
            call()
        assert (error.value.name, error.value.value) == ("name", "nope")
    with pytest.raises(KeyError, match="'hook'"):
        preflight(healthy, "data")["hook"]


def test_nothing_to_train_on_and_encodings_that_are_missing(healthy, tokenizer):
    with pytest.raises(ArgumentError) as error:
        tone_batch([], [], tokenizer)
    assert (error.value.name, error.value.value) == ("pairs", [])
    short = run_gate("labels", replace(healthy, encoded=healthy.encoded[:-1]))
    assert not short and "3 examples, but 2 of them encoded" in short.message


def test_data_gate():
    e = lambda s: dict(lyrics=s)
    assert gate_data([e("天光")], [e("落雨")]) and not gate_data([], [e("落雨")]) and not gate_data([e("落雨")], [])
    assert not gate_data([e("天光\n落雨")], [e("天光 落雨")])


def test_a_character_cut_in_half(healthy, tokenizer):
    rare = dict(healthy.train[0], lyrics="今晚㗎")
    row = healthy.format.encode(rare, tokenizer)
    cut = {k: v[:-2] for k, v in row.items()}
    result = run_gate("truncation", replace(healthy, train=[rare], encoded=[cut]))
    assert not result and result.value == 1


def test_mask_gate(healthy):
    assert not gate_mask(dict(healthy.batch, mask_table=torch.ones_like(healthy.batch["mask_table"]))), (
        "a mask that allows everything"
    )
    states = healthy.batch["mask_ids"].clone()
    states[0, 0] = 1
    assert not gate_mask(dict(healthy.batch, mask_ids=states)), "the prompt is masked"


def test_forecast(healthy):
    forecast = lambda **plan: gate_forecast(healthy.model, healthy.batch, healthy.loss, RunPlan(**plan))
    assert forecast(steps=10) and forecast(steps=100, seconds_per_step=1.0, max_seconds=100).value[0] == 100
    assert not forecast(steps=101, seconds_per_step=1.0, max_seconds=100)
    assert not forecast(steps=1, seconds_per_step=1.0, tokens_per_step=10**7, max_gib=8)


def test_batch_and_look(healthy, tokenizer, reader):
    assert [answer_ids(dict(labels=r)) for r in healthy.batch["labels"].tolist()] == [
        answer_ids(r) for r in healthy.encoded
    ]
    plain = tone_batch(healthy.train, healthy.encoded, tokenizer)
    assert set(plain) == {"input_ids", "attention_mask", "labels"} and torch.equal(
        plain["labels"], healthy.batch["labels"]
    )
    look = ExampleView(healthy.encoded[0], tokenizer)
    assert str(look).endswith("⟦今晚落雨\n我想你<|im_end|>⟧") and "&lt;|im_end|&gt;" in look._repr_html_()


def test_gates_report():
    report = GateReport([GateResult("a", True, "fine"), GateResult("b", False, "<bad>")])
    assert (
        not report.ok
        and report["b"].message == "<bad>"
        and "&lt;bad&gt;" in report._repr_html_()
        and str(report).split("\n")[1].startswith("FAIL b")
    )
    assert GateReport().ok


def test_a_run_can_go_on_from_parts_that_were_checked(healthy):
    model = copy.deepcopy(healthy.model)  # a checked model is no special model
    assert preflight(replace(healthy, model=model), ["adapter", "numbers"]).ok


def test_checkers_know_wrong():
    for check in (
        exercises.check_gate_repeats,
        exercises.check_accumulated,
        exercises.check_first_spike,
        exercises.check_topics_moved,
    ):
        assert check(lambda *a: ...).startswith("Not yet")
    unweighted = lambda means, counts: [m / len(means) for m in means]
    assert "the mean of the whole batch" in exercises.check_accumulated(unweighted)
    assert "expected 2" in exercises.check_first_spike(
        lambda losses, window, factor: next(
            (i for i, x in enumerate(losses) if i > 2 and x > factor * sorted(losses[:i])[i // 2]), None
        )
    )

    assert "healthy examples were changed" in exercises.check_topics_moved(
        lambda p, share: (p.train.reverse(), dict(train=p.train))[1]
    )
    assert "expected the topics ['山', '雨', '月', '海', '山']" in exercises.check_topics_moved(
        lambda p, share: dict(train=[dict(e, topic=p.train[i - 1]["topic"]) for i, e in enumerate(p.train)])
    )


def test_gates_know_nothing_of_the_planted_mistakes():
    import subprocess
    import sys

    code = "import sys, cantolyric.checks.preflight; print(*(m for m in sys.modules if m.startswith('cantolyric')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "cantolyric.checks.training_gates" in loaded
    forbidden = (
        "cantolyric.checks.mistake",
        "cantolyric.checks.planted",
        "cantolyric.training",
        "cantolyric.evaluation",
    )
    assert not [m for m in loaded if m.startswith(forbidden)]


def test_every_mistake_has_a_name_and_a_story():
    assert all(m.name == name and m.story and not m.story.endswith(".") for name, m in MISTAKES.items())
    measured = Path(__file__).parent.parent / "benchmarks" / "results" / "mistakes.json"
    names = json.loads(measured.read_text(encoding="utf-8"))["without"]
    assert [OLD_NAMES.get(n, n) for n in names] == list(MISTAKES)


def test_the_old_path_still_has_the_names_that_others_use():
    import cantolyric.preflight as old

    assert old.MISTAKES is MISTAKES and old.preflight is preflight
