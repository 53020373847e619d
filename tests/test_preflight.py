"""Lesson 40: healthy runs pass every gate; each planted mistake is stopped first by the gate that was made for it."""

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from cantolyric._exercises import preflight as exercises  # noqa: E402
from cantolyric.base import asset_path, hf_tokenizer, load_base  # noqa: E402
from cantolyric.formats import FORMATS, Alpaca, ChatML  # noqa: E402
from cantolyric.hooks import output_head  # noqa: E402
from cantolyric.preflight import (
    GATES,
    MISTAKES,
    SHOWS,
    GateResult,
    Gates,
    Look,
    add_adapter,
    adamw,
    backward_in_parts,
    bill,
    caught_by,
    four_bit_base,  # noqa: E402
    full_run,
    gate_accumulation,
    gate_data,
    gate_forecast,
    gate_hook,
    gate_labels,
    gate_mask,
    gate_merge,
    gate_quantized,
    gate_resume,
    gate_stops,
    gate_vocabulary,
    label_count,
    labelled,
    load_state,
    make_parts,
    masking,
    merged_copy,
    micro_batches,
    preflight,
    run_gate,
    save_state,
    small_experts,
    small_variant,
    tone_batch,
    wilson,
)
from cantolyric.reading import Reader  # noqa: E402
from cantolyric.tones import CantolyricError  # noqa: E402

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
    return make_parts(
        add_adapter(small_variant(tokenizer)), tokenizer, train, held_out, format=fmt, reader=reader, lr=1e-2
    )


@pytest.fixture(scope="module")
def parts(reader, tokenizer):
    return build(reader, tokenizer, ChatML())


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


def test_slow_gates_are_named_while_the_others_go_on(parts, monkeypatch, capsys):
    import cantolyric.preflight as module

    told = []
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    preflight(parts, ("data", "gradients"), desc="smoke: gates", say=told.append)
    shown = capsys.readouterr().err
    assert not told and "smoke: gates" in shown and "gradients" in shown  # neither takes a second
    monkeypatch.setattr(module, "LONG", -1.0)
    preflight(parts, ("data", "gradients"), say=told.append)
    assert [x.split(" after ")[0].strip() for x in told] == ["gate data: passed", "gate gradients: passed"]


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
    "answers truncated": "raise the length",
    "end token masked": "masks the pad token",
    "padding counted": "padding tokens carry loss",
    "another end token": "eos_token_id",
    "tokens added": "resize_token_embeddings",
    "wrong format at generation": "one format for both",
    "last newline missing": "prompts part at token",
    "mask one token late": "one token late",
    "hook missing": "it is missing",
    "mask upside down": "upside down",
    "hook after the loss": "after the loss, put it on the head",
    "hook never removed": "take it off",
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
    "dice not saved": "save and load the dice",
    "merge into 4 bits": "rounded to 4 bits",
    "merged with another scale": "with another scale",
    "experts left unquantized": "fused experts",
    "layers left in 16 bits": "left out by name",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_stopped_first_by_its_own_gate(parts, name):
    wanted = MISTAKES[name].gate
    found = preflight(MISTAKES[name](parts), [g for g in GATES if g in CHEAP or g == wanted], stop=True)
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
def test_more_of_a_mistake_is_caught_when_less_is(parts, name):
    "At the far end always; and the figure behind the gate is larger there."
    m = MISTAKES[name]
    small, large = (run_gate(m.gate, m(parts, s)) for s in (m.severities[0], m.severities[-1]))
    assert not large and (small or not large)
    if name in ("parts not divided", "merged with another scale"):
        assert large.value > small.value
    if name == "layers left in 16 bits":
        assert large.value < small.value and small.ok


def test_severities_that_cannot_be(parts):
    with pytest.raises(CantolyricError, match="has no severity: leave it out"):
        MISTAKES["not a number"](parts, 2)
    with pytest.raises(CantolyricError, match=r"severity=-1: a number above 0 is wanted \(share of the examples\)"):
        MISTAKES["tone digits swapped"](parts, -1)
    leaked = lambda s: sum(
        e in parts.train for e in MISTAKES["train/test leak"](replace(parts, held_out=parts.held_out * 20), s).held_out
    )
    assert (leaked(0.05), leaked(0.5), leaked(1.0)) == (1, 10, 20)
    assert caught_by("learning rate too high", parts, ["overfit"], severity=1000) == ["overfit"]


def test_mistakes_leave_the_healthy_parts_alone(parts):
    before = {n: p.detach().clone() for n, p in parts.model.named_parameters()}
    flags = {n: (p.requires_grad, p.dtype) for n, p in parts.model.named_parameters()}
    for name in MISTAKES:
        MISTAKES[name](parts)
    assert all(
        torch.equal(p, before[n]) and (p.requires_grad, p.dtype) == flags[n] for n, p in parts.model.named_parameters()
    )
    assert preflight(parts, CHEAP).ok


def test_without_a_mask(parts):
    batch = {k: v for k, v in parts.batch.items() if k not in ("states", "table")}
    assert preflight(replace(parts, batch=batch, attach=None), CHEAP).ok
    assert preflight(replace(parts, attach=None), CHEAP).failed[0] == "hook"


def test_modes_and_dice_are_put_back(parts):
    model = copy.deepcopy(parts.model).train()
    first = next(m for m in model.modules() if not list(m.children()))
    first.eval()  # one module that somebody froze
    was, dice = {n: m.training for n, m in model.named_modules()}, torch.get_rng_state()
    for g in ("numbers", "hook", "start", "evaluation", "accumulation", "step", "stops", "resume", "merge"):
        assert run_gate(g, replace(parts, model=model, attach=masking(model))), g
    assert {n: m.training for n, m in model.named_modules()} == was and torch.equal(dice, torch.get_rng_state())


def test_gates_that_do_not_apply_say_why(parts):
    skipped = lambda r: r.ok and r.message.startswith("skipped: ")
    assert skipped(gate_quantized(parts.model)) and skipped(gate_merge(parts.model, parts.batch, parts.loss, parts.lr))
    assert skipped(gate_merge(parts.model, parts.batch, parts.loss, parts.lr, merged_copy, most_gib=1e-6))
    assert skipped(gate_accumulation(parts.model, micro_batches(parts.batch)[0], parts.loss_of))
    assert (
        run_gate(
            "mask", replace(parts, batch={k: parts.batch[k] for k in ("input_ids", "attention_mask", "labels")})
        ).message
        == "no mask was asked for"
    )


def test_labels_of_a_format_with_control_tokens(parts, tokenizer):
    "The last token of the prompt, where that is a control token, is not overlooked; the end token may be one without a role."
    row = parts.encoded[0]
    k = next(i for i, x in enumerate(row["labels"]) if x != -100)
    special = row["input_ids"][: k - 1] + [tokenizer.convert_tokens_to_ids("<|im_start|>")] + row["input_ids"][k:]
    wrong = dict(input_ids=special, labels=[*row["labels"][: k - 1], special[k - 1], *row["labels"][k:]])
    assert not gate_labels(parts.train[:1], [wrong], tokenizer) and gate_labels(parts.train[:1], [row], tokenizer)
    gap = dict(row, labels=[*row["labels"][: k + 1], -100, *row["labels"][k + 2 :]])
    assert not gate_labels(parts.train[:1], [gap], tokenizer), "a hole in the answer"


def test_vocabulary(parts, tokenizer):
    assert (
        "another tokenizer" in gate_vocabulary([dict(input_ids=[9000])], parts.format, tokenizer, parts.model).message
    )

    class Strange:
        end_token = "<|nowhere|>"

    assert "has no <|nowhere|>" in gate_vocabulary(parts.encoded, Strange, tokenizer, parts.model).message


def test_rows_add_up(parts):
    rows = micro_batches(parts.batch)
    assert sum(map(label_count, rows)) == label_count(parts.batch) and rows[1]["input_ids"].shape[1] == int(
        parts.batch["attention_mask"][1].sum()
    )
    weighed = sum(float(parts.loss_of(r).detach()) * label_count(r) for r in rows) / label_count(parts.batch)
    assert abs(weighed - float(parts.loss().detach())) < 1e-4
    assert gate_accumulation(parts.model, parts.batch, parts.loss_of, backward_in_parts).value < 1e-3


def test_a_state_is_one_file_of_tensors(parts, tmp_path):
    model = copy.deepcopy(parts.model)
    p = replace(
        parts, model=model, attach=None, batch={k: parts.batch[k] for k in ("input_ids", "attention_mask", "labels")}
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


def test_resume_tells_the_weights_apart(parts):
    def nothing(folder, model, optimizer):
        return 3

    assert (
        "weights are not what was saved"
        in gate_resume(parts.model, parts.batch, parts.loss_of, parts.lr, load=nothing).message
    )


def test_stops_without_a_mask_and_with_a_strange_prompt(parts, tokenizer):
    free = replace(parts, attach=None, batch={k: parts.batch[k] for k in ("input_ids", "attention_mask", "labels")})
    assert run_gate("stops", free)
    never = gate_stops(parts.model, parts.train, free.batch, free.loss_of, 0.0, parts.format, tokenizer, steps=2)
    assert not never and "without <|im_end|>" in never.message


def test_merged_and_four_bits(parts):
    four = add_adapter(four_bit_base(parts.model), dropout=0.1)
    assert gate_quantized(four, "nf4").value > 0.97 and not gate_quantized(four, "int8")
    q = replace(
        parts,
        model=four,
        attach=None,
        batch={k: parts.batch[k] for k in ("input_ids", "attention_mask", "labels")},
        quantization="nf4",
    )
    assert run_gate("merge", q).value < 1e-3, "made dense first, an adapter on 4 bits merges"
    whole = merged_copy(four)
    assert not any("lora_" in n for n, _ in whole.named_parameters()) and all(
        p.dtype == torch.float32 for p in whole.parameters()
    )

    def careless(model):
        return model.merge_and_unload()

    spoilt = replace(parts, model=copy.deepcopy(parts.model), attach=None, batch=q.batch, merge=careless)
    assert "merge a copy" in run_gate("merge", spoilt).message


def test_a_mixture_of_experts_is_told(parts):
    experts = add_adapter(small_experts(len(parts.tokenizer)))
    assert gate_quantized(experts) and ".experts." in gate_quantized(experts, "nf4").message


def test_a_fused_loss_that_the_hook_knows_is_no_failure(parts):
    fused = MISTAKES["hook under a fused loss"](parts)
    assert gate_hook(fused.model, fused.batch, masking(fused.model)), "logits_hook goes around the fused loss"


def test_share_and_bill():
    assert (
        wilson(0, 20)[0] == 0
        and abs(wilson(0, 20)[1] - 0.161) < 0.001
        and abs(wilson(5, 10)[0] - 0.237) < 0.001
        and wilson(9, 9)[1] == 1
    )
    with pytest.raises(CantolyricError, match="3 of 2"):
        wilson(3, 2)
    run = full_run(pairs=320)
    assert run["steps"] == 10 and abs(run["hours"] - 10 * run["step"] / 3600) < 1e-12 and run["low"] < run["high"]
    lost = {name: bill(name, run)["hours"] for name in MISTAKES}
    assert lost["hook missing"] == run["hours"] > lost["learning rate too high"] > lost["not a number"] > 0
    with pytest.raises(CantolyricError, match="no mistake 'nope'"):
        bill("nope", run)


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
        model = four_bit_base(add_adapter(model))
    return make_parts(
        add_adapter(model, rank, seed, dropout),
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
    return make_parts(
        add_adapter(load_base()[0]),
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


def test_stop_and_require(parts):
    spoilt = MISTAKES["prompt in the loss"](parts)
    short = preflight(spoilt, stop=True)
    assert short.failed == ["labels"] and len(short) < len(GATES)
    with pytest.raises(CantolyricError, match=r"stopped before the smoke rung: \[labels\] example 0"):
        short.require("the smoke rung")


def test_an_error_inside_a_gate_is_a_failure(parts):
    result = run_gate("prompt", replace(parts, prompt_ids=lambda e: 1 / 0))
    assert not result and "ZeroDivisionError" in result.message
    broken = replace(parts, train=[dict(parts.train[0], tones="99"), *parts.train[1:]])
    assert not run_gate("template", broken)


def test_names_that_are_none(parts):
    assert [r.name for r in preflight(parts, "data")] == ["data"]
    with pytest.raises(CantolyricError, match="no gate 'nope': there are data, template"):
        preflight(parts, ["nope"])
    with pytest.raises(CantolyricError, match="no mistake 'nope': there are train/test leak"):
        caught_by("nope", parts)
    with pytest.raises(KeyError, match="no gate 'hook' was asked"):
        preflight(parts, "data")["hook"]


def test_nothing_to_train_on_and_encodings_that_are_missing(parts, tokenizer):
    with pytest.raises(CantolyricError, match="no examples"):
        tone_batch([], [], tokenizer)
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
    assert not gate_mask(dict(parts.batch, table=torch.ones_like(parts.batch["table"]))), (
        "a mask that allows everything"
    )
    states = parts.batch["states"].clone()
    states[0, 0] = 1
    assert not gate_mask(dict(parts.batch, states=states)), "the prompt is masked"


def test_forecast(parts):
    forecast = lambda **plan: gate_forecast(parts.model, parts.batch, parts.loss, plan)
    assert forecast(steps=10) and forecast(steps=100, seconds_a_step=1.0, max_seconds=100).value[0] == 100
    assert not forecast(steps=101, seconds_a_step=1.0, max_seconds=100)
    assert not forecast(steps=1, seconds_a_step=1.0, tokens_a_step=10**7, max_gib=8)


def test_batch_and_look(parts, tokenizer, reader):
    assert [labelled(dict(labels=r)) for r in parts.batch["labels"].tolist()] == [labelled(r) for r in parts.encoded]
    plain = tone_batch(parts.train, parts.encoded, tokenizer)
    assert set(plain) == {"input_ids", "attention_mask", "labels"} and torch.equal(
        plain["labels"], parts.batch["labels"]
    )
    look = Look(parts.encoded[0], tokenizer)
    assert str(look).endswith("⟦今晚落雨\n我想你<|im_end|>⟧") and "&lt;|im_end|&gt;" in look._repr_html_()


def test_gates_report():
    report = Gates([GateResult("a", True, "fine"), GateResult("b", False, "<bad>")])
    assert (
        not report.ok
        and report["b"].message == "<bad>"
        and "&lt;bad&gt;" in report._repr_html_()
        and str(report).split("\n")[1].startswith("FAIL b")
    )
    assert Gates().ok


def test_a_run_can_go_on_from_parts_that_were_checked(parts):
    model = copy.deepcopy(parts.model)  # a checked model is no special model
    assert preflight(replace(parts, model=model), ["adapter", "numbers"]).ok


def test_checkers_know_wrong():
    for check in (
        exercises.check_gate_repeats,
        exercises.check_accumulated,
        exercises.check_first_spike,
        exercises.check_topics_moved,
    ):
        assert check(lambda *a: ...).startswith("Not yet")
    assert "the whole batch has" in exercises.check_accumulated(lambda means, counts: [m / len(means) for m in means])
    assert "wanted is 2" in exercises.check_first_spike(
        lambda losses, window, factor: next(
            (i for i, x in enumerate(losses) if i > 2 and x > factor * sorted(losses[:i])[i // 2]), None
        )
    )

    assert "healthy parts were changed" in exercises.check_topics_moved(
        lambda p, share: (p.train.reverse(), dict(train=p.train))[1]
    )
    assert "should be ['山', '雨', '月', '海', '山']" in exercises.check_topics_moved(
        lambda p, share: dict(train=[dict(e, topic=p.train[i - 1]["topic"]) for i, e in enumerate(p.train)])
    )
