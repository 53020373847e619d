"""Lesson 34: what a finetune takes, said from its config."""

import csv
import json
from contextlib import nullcontext
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from cantolyric._exercises import gpus as exercises
from cantolyric.errors import ArgumentError, CantolyricError
from cantolyric.families.table import QWEN25_SHAPES
from cantolyric.fitting import calibrated_efficiency, fit
from cantolyric.gpus import GPU, GPUS, estimate, read_gpus, step_seconds
from cantolyric.memory_model import (
    FINETUNE_METHODS,
    memory_moments,
    model_shape,
    qwen25_config,
    saved_per_token,
    weight_bytes,
)

ROOT = Path(__file__).parent.parent


def test_published_counts():
    "Parameters as published with the weights (7B and up untied), and the shapes' own arithmetic."
    known = {
        "0.5B": 494_032_768,
        "1.5B": 1_543_714_304,
        "3B": 3_085_938_688,
        "7B": 7_615_616_512,
        "14B": 14_770_033_664,
        "32B": 32_763_876_352,
        "72B": 72_706_203_648,
    }
    assert {z: model_shape(f"Qwen/Qwen2.5-{z}-Instruct").params for z in QWEN25_SHAPES} == known
    s = model_shape("Qwen2.5-7B")
    assert len(s.linears) == 28 * 7 and not s.tied and model_shape("Qwen2.5-3B").tied and (s.q, s.kv) == (3584, 512)


def test_any_config(tmp_path):
    from transformers import GPT2Config, LlamaConfig, Qwen3Config

    llama = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    assert model_shape(llama).params == 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 2 * 100 * 32 + 32
    qwen25_config("0.5B").save_pretrained(tmp_path)
    assert model_shape(str(tmp_path)) == model_shape("Qwen2.5-0.5B")
    assert (
        model_shape(
            Qwen3Config(
                hidden_size=32,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=24,
                intermediate_size=48,
                num_hidden_layers=1,
                vocab_size=50,
            )
        ).q
        == 48
    )
    for bad, why in ((GPT2Config(), "'gpt2'"), (str(tmp_path / "none"), "no config of"), (7, "is not counted here")):
        with pytest.raises(CantolyricError, match=why):
            model_shape(bad)


def small(kind, blocks, bits, method, rank=4, **kw):
    "A real small model with random weights, ready to train."
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind,
        **dict(
            vocab_size=90,
            hidden_size=48,
            intermediate_size=112,
            num_hidden_layers=blocks,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=8,
            use_cache=False,
        )
        | kw,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.bfloat16 if bits == 16 and method != "full" else torch.float32
    )
    if method == "lora":
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    return config, model.train()


def kept(model, bits):
    "Bytes that autograd keeps of a forward, without parameters and their copies."
    ids, own, seen, alive = (
        torch.randint(0, 90, (2, 20)),
        {p.untyped_storage().data_ptr() for p in model.parameters()},
        {},
        [],
    )

    def pack(t):
        storage = t.untyped_storage()
        alive.append(t)
        if storage.data_ptr() not in own and (t.dim() != 2 or len(t) == 40):
            seen[storage.data_ptr()] = storage.nbytes()
        return t

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        torch.autocast("cpu", torch.bfloat16) if bits == 16 else nullcontext(),
    ):
        model(input_ids=ids, labels=ids)
    return sum(seen.values())


@pytest.mark.parametrize("kind", ["qwen2", "llama", "mistral", "qwen3"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("bits", [16, 32])
def test_autograd_keeps_what_is_counted(kind, method, bits):
    (config, two), (_, three) = (small(kind, n, bits, method) for n in (2, 3))
    assert (kept(three, bits) - kept(two, bits)) / 40 == sum(
        saved_per_token(model_shape(config), method, bits, rank=4).values()
    )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("bits", [16, 32])
def test_peak_of_living_tensors(method, checkpointing, bits):
    "A step watched operation by operation: its fullest moment is as estimated, within 5 %."
    import weakref

    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    class Alive(TorchDispatchMode):
        sizes, peak = {}, 0

        def see(self, t):
            s = t.untyped_storage()
            if s._cdata not in self.sizes:
                self.sizes[s._cdata] = s.nbytes()
                weakref.finalize(s, self.sizes.pop, s._cdata, 0)

        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            out = f(*args, **(kwargs or {}))
            tree_map_only(torch.Tensor, self.see, out)
            self.peak = max(self.peak, sum(self.sizes.values()))
            return out

    for wide in (
        dict(vocab_size=90, intermediate_size=512),
        dict(vocab_size=3000, intermediate_size=112),
    ):  # fullest in the blocks, at the loss
        config, model = small(
            "qwen2", 6, bits, method, hidden_size=96, tie_word_embeddings=True, num_attention_heads=12, **wide
        )
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            if method == "lora":
                model.enable_input_require_grads()
        ids, alive = torch.randint(0, 90, (8, 100)), Alive()
        alive.sizes = {}
        for p in model.parameters():
            alive.see(p)
        with alive:
            with torch.autocast("cpu", torch.bfloat16) if bits == 16 else nullcontext():
                loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
        held = memory_moments(model_shape(config), method, 800, bits, 4, checkpointing)
        said = max(sum(m.values()) - m["optimizer"] for m in held.values())
        assert said == pytest.approx(alive.peak, rel=0.05), (
            wide,
            said / alive.peak,
            max(held, key=lambda k: sum(held[k].values())),
        )


def test_weights_by_hand():
    s = model_shape("Qwen2.5-7B")
    inside = 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18_944)
    assert sum(i * o for i, o in s.linears) == inside
    full, lora, qlora = (weight_bytes(s, m) for m in FINETUNE_METHODS)
    assert full["weights"] + full["optimizer"] == 12 * s.params and full["adapter"] == 0
    assert lora["weights"] == 2 * s.params and lora["optimizer"] == 2 * lora["adapter"]
    assert lora["adapter"] == 4 * 16 * 28 * (2 * 2 * 3584 + 2 * (3584 + 512) + 3 * (3584 + 18_944))
    assert qlora["weights"] == inside / 2 + 2 * (s.params - inside)
    assert qlora["quantization constants"] == pytest.approx(inside * 0.127 / 8, rel=1e-3)


def test_more_takes_more():
    "Every part of the job that grows makes memory and time grow, and what is meant to save memory does."
    base = dict(config="Qwen2.5-1.5B", method="lora", seq_len=512, batch_size=4, gpu="A100-80")
    a = estimate(**base)
    for more in (dict(seq_len=1024), dict(batch_size=8), dict(rank=64), dict(config="Qwen2.5-3B")):
        b = estimate(**base | more)
        assert b.bytes > a.bytes and b.step > a.step, more
    for less in (dict(checkpointing=True), dict(method="qlora"), dict(loss="sliced")):
        assert estimate(**base | less).bytes < a.bytes, less
    assert estimate(**base | dict(checkpointing=True)).step > a.step > estimate(**base | dict(loss="sliced")).step
    assert estimate(**base | dict(method="full")).bytes > a.bytes
    assert estimate(**base | dict(efficiency=2 * a.settings["efficiency"])).step == pytest.approx(a.step / 2)
    assert calibrated_efficiency(a, a.step * 2) == pytest.approx(a.settings["efficiency"] / 2)


def test_two_cards():
    one, two = (estimate("Qwen2.5-3B", "full", 512, 1, g, checkpointing=True) for g in ("4090", "2x4090"))
    assert (
        two.moments["end"]["weights"] == one.moments["end"]["weights"] / 2
        and two.moments["loss"]["activations"] == one.moments["loss"]["activations"]
    )
    assert (
        two.moments["loss"]["gathered"] > 0 and two.seconds["between cards"] > 0 and "between cards" not in one.seconds
    )
    assert two.bytes < one.bytes and two.tokens_per_second < 2 * one.tokens_per_second


def test_fit():
    for method, gpu in (("qlora", "T4"), ("lora", "L4"), ("full", "H200")):
        e = fit("Qwen2.5-1.5B", method, 512, gpu)
        assert e.fits and not estimate("Qwen2.5-1.5B", method, 512, e.batch_size + 1, gpu).fits
    cheap = fit("Qwen2.5-7B", "qlora", 512, checkpointing=True, most=8)
    others = [fit("Qwen2.5-7B", "qlora", 512, g, checkpointing=True, most=8) for g in GPUS if g != "A100-40"]
    assert cheap.dollars[1] == min(e.dollars[1] for e in others)
    with pytest.raises(
        CantolyricError,
        match=r"fits on none of T4, .*Try method='qlora', checkpointing=True, loss='sliced', "
        "a smaller seq_len, a smaller model",
    ):
        fit("Qwen2.5-72B", "full")
    with pytest.raises(CantolyricError, match="Qwen2.5-14B by lora .* fits on none of T4: .* Try method='qlora'"):
        fit("Qwen2.5-14B", "lora", gpu="T4")


def test_bad_input_is_named():
    for wrong, why in (
        (dict(gpu="T5"), "gpu='T5': expected one of T4, L4"),
        (dict(method="dora"), "method='dora'"),
        (dict(seq_len=0), "seq_len=0"),
        (dict(batch_size=1.5), "batch_size=1.5"),
        (dict(bits=8), "bits=8"),
        (dict(loss="half"), "loss='half'"),
        (dict(rank=0), "rank=0"),
        (dict(labelled=0), "labelled=0"),
    ):
        with pytest.raises(ArgumentError, match=why):
            estimate("Qwen2.5-0.5B", **wrong)


def test_table_of_gpus(tmp_path):
    rows = list(csv.DictReader((ROOT / "cantolyric/assets/gpus.csv").read_text(encoding="utf-8").splitlines()))
    assert [r["name"] for r in rows] == list(GPUS) and all(r["source"] and r["dated"] for r in rows)
    assert not GPUS["T4"].bf16 and all(g.bf16 for n, g in GPUS.items() if n != "T4")
    assert GPUS["H100"].tflops == 989 and GPUS["L4"].tflops == 121  # dense, not the sparse rate
    assert "fp16 because there is no bf16" in str(estimate("Qwen2.5-0.5B", gpu="T4")) and "no price known" in str(
        estimate("Qwen2.5-0.5B", gpu="A100-40")
    )
    mine = tmp_path / "mine.csv"
    mine.write_text("name,gb,gbs,tflops\nmine,48,864,181\n")
    assert read_gpus(mine) == {"mine": GPU("mine", 48.0, 864.0, 181.0)}
    assert estimate("Qwen2.5-0.5B", gpu=read_gpus(mine)["mine"]).fits
    for bad in (
        "name,gb\nmine,48\n",
        "name,gb,gbs,tflops\nmine,much,864,181\n",
        "name,gb,gbs,tflops,colour\nmine,48,864,181,red\n",
    ):
        mine.write_text(bad)
        with pytest.raises(CantolyricError, match="is not a table of GPUs"):
            read_gpus(mine)


def test_shows_itself():
    e = estimate("Qwen2.5-7B", method="qlora", seq_len=512, batch_size=4, gpu="L4")
    for text in (str(e), e._repr_html_()):
        for word in (
            "quantization constants",
            "adapter",
            "optimizer",
            "activations",
            "logits and loss",
            "CUDA context",
            "gradients",
            "per million tokens",
            "2026-11",
        ):
            assert word in text
    assert sum(e.moments[e.peak].values()) == e.bytes and f"{e.bytes / 1e9:,.2f}" in str(e)
    assert e.dollars[0] == pytest.approx(0.44 / 3600 * e.step / 2048 * 1e6)


def test_roofline_by_hand():
    "One token a row: weights are read, arithmetic is nothing. Many tokens: 2 operations a weight and pass."
    s, g = model_shape("Qwen2.5-7B"), GPU("g", 1e6, 1000, 100)
    inside = sum(i * o for i, o in s.linears)
    assert step_seconds(s, "lora", 1, 1, g)["blocks"] == pytest.approx(2 * 2 * inside / 1e12)
    assert step_seconds(s, "lora", 4096, 4, g)["blocks"] == pytest.approx(2 * 2 * 16_384 * inside / 1e14)
    assert step_seconds(s, "full", 4096, 4, g)["blocks"] == pytest.approx(2 * 3 * 16_384 * inside / 1e14)


def test_measured():
    "The committed measurement: every case has at least 1 GiB, memory is within 10 %, predicted time within 30 %."
    result = json.loads((ROOT / "benchmarks/results/gpus.json").read_text(encoding="utf-8"))
    for r in result["cases"]:
        assert r["measured GiB"] >= 1 and abs(r["memory off"]) <= 0.1, r
        assert r["calibrates"] or abs(r["time off"]) <= 0.3, r


def test_checkers_know_wrong():
    for check in (exercises.check_break_even, exercises.check_adam8_bytes, exercises.check_with_accumulation):
        assert check(lambda *a: ...).startswith("Not yet")
    assert "expected 2" in exercises.check_break_even(lambda p, a, b: p * a / b)
    assert "incomplete last block" in exercises.check_adam8_bytes(
        lambda sizes: sum(8 * n if n < 4096 else 2 * (n + 4 * (n // 256)) for n in sizes)
    )
    assert "exactly 4,096" in exercises.check_adam8_bytes(
        lambda sizes: sum(8 * n if n <= 4096 else 2 * (n + 4 * -(-n // 256)) for n in sizes)
    )
    assert "below 4,096" in exercises.check_adam8_bytes(lambda sizes: sum(2 * (n + 4 * -(-n // 256)) for n in sizes))
    adds = lambda m: max(sum(x.values()) for x in m.values()) + m["end"]["gradients"]
    assert "peak in the last block" in exercises.check_with_accumulation(adds)

    def changes(m):
        for x in m.values():
            x["gradients"] = m["end"]["gradients"]
        return max(sum(x.values()) for x in m.values())

    assert "changed its argument" in exercises.check_with_accumulation(changes)
