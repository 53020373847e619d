"""Lesson 30: LoRA from scratch, beside PEFT."""

import json
import math
import warnings

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file
from torch import nn

from cantolyric._exercises import lora as exercises
from cantolyric.adapter_files import load_lora, save_lora
from cantolyric.errors import ArgumentError, CantolyricError, FileError
from cantolyric.lora import (
    LoRALinear,
    LoRASettings,
    adapter_parameters,
    add_lora,
    dense_weight,
    linear_layers,
    list_adapters,
    lora_layers,
    lora_parameters,
    matching_layers,
    merge_lora,
    remove_lora,
    undo_cpu_packing,
    use_adapter,
    using_adapter,
)
from cantolyric.model_head import head_parts, head_rows
from cantolyric.quantization import convert_to_nf4

KINDS = {"lora": {}, "rslora": dict(rslora=True), "dora": dict(dora=True), "rsdora": dict(rslora=True, dora=True)}
IDS = torch.randint(0, 50, (3, 7), generator=torch.Generator().manual_seed(5))


def small(seed=0, bias=True, tied=False, dtype=torch.float32, width=32):
    "A very small Qwen2: its q, k and v have biases."
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    kind, config = (Qwen2ForCausalLM, Qwen2Config) if bias else (Qwen3ForCausalLM, Qwen3Config)
    return (
        kind(
            config(
                vocab_size=50,
                hidden_size=width,
                num_hidden_layers=2,
                intermediate_size=2 * width,
                num_attention_heads=2,
                num_key_value_heads=1,
                tie_word_embeddings=tied,
                use_cache=False,
                **({} if bias else dict(head_dim=width // 2)),
            )
        )
        .to(dtype)
        .eval()
    )


def shaken(model, name="default", size=0.05):
    "An adapter that does something: B, and where there are any the lengths, moved off their start."
    g = torch.Generator().manual_seed(3)
    for layer in lora_layers(model).values():
        if name not in layer.updates:
            continue
        pair = layer.updates[name]
        pair.B.data.normal_(0, size, generator=g)
        if hasattr(pair, "magnitude"):
            pair.magnitude.data.mul_(1 + 0.1 * torch.rand(pair.magnitude.shape, generator=g))
    return model


def peft_of(model, pattern="all-linear", rank=4, alpha=6, dropout=0.0, rslora=False, dora=False):
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(
            model,
            LoraConfig(
                r=rank,
                lora_alpha=alpha,
                lora_dropout=dropout,
                use_rslora=rslora,
                use_dora=dora,
                target_modules=pattern,
                task_type="CAUSAL_LM",
            ),
        )


def loaded(base, folder):
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(base, str(folder))


def pairs_of_peft(model):
    "Its layers as ours: name -> dict of A, B, magnitude."
    out = {}
    for n, m in model.named_modules():
        if not hasattr(m, "lora_A") or "default" not in m.lora_A:
            continue
        out[n.removeprefix("base_model.model.")] = dict(
            A=m.lora_A["default"].weight,
            B=m.lora_B["default"].weight,
            **(
                {"magnitude": m.lora_magnitude_vector["default"].weight} if "default" in m.lora_magnitude_vector else {}
            ),
        )
    return out


def twins(kind, dropout=0.0, **kw):
    "Ours and PEFT's with the same weights."
    ours = shaken(add_lora(small(**kw), rank=4, alpha=6, dropout=dropout, **KINDS[kind]))
    theirs = peft_of(small(**kw), dropout=dropout, **KINDS[kind])
    for n, part in pairs_of_peft(theirs).items():
        for k, p in part.items():
            p.data.copy_(getattr(lora_layers(ours)[n].updates["default"], k).data)
    return ours, theirs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_equal_pefts(kind, dropout):
    ours, theirs = twins(kind, dropout)
    assert set(lora_layers(ours)) == set(pairs_of_peft(theirs))
    for m in (ours, theirs):
        m.train()
    torch.manual_seed(1)
    a = ours(IDS, labels=IDS)
    torch.manual_seed(1)
    b = theirs(input_ids=IDS, labels=IDS)
    assert float((a.logits - b.logits).detach().abs().max()) < 1e-6 and not torch.equal(a.logits, small()(IDS).logits)
    a.loss.backward()
    b.loss.backward()
    for n, part in pairs_of_peft(theirs).items():
        for k, p in part.items():
            mine = getattr(lora_layers(ours)[n].updates["default"], k).grad
            assert mine is not None and float((mine - p.grad).detach().abs().max()) < 1e-6
    assert [n for n, p in ours.named_parameters() if p.grad is not None and ".updates." not in n] == []


def test_trains_as_peft_does():
    ours, theirs = twins("lora")
    losses = {}
    for key, m in (("ours", ours), ("theirs", theirs)):
        o = torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-3)
        losses[key] = []
        for _ in range(10):
            loss = m(input_ids=IDS, labels=IDS).loss
            loss.backward()
            o.step()
            o.zero_grad()
            losses[key].append(loss.item())
    assert losses["ours"] == pytest.approx(losses["theirs"], abs=1e-5) and losses["ours"][-1] < losses["ours"][0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_bases_equal_pefts(dtype):
    ours, theirs = twins("lora", dtype=dtype)
    assert {p.dtype for p in ours.parameters() if p.requires_grad} == {torch.float32}
    with torch.no_grad():
        assert torch.equal(ours(IDS).logits, theirs(input_ids=IDS).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_starts_as_the_base(kind):
    want, model = small()(IDS).logits, add_lora(small(), **KINDS[kind])
    assert float((model(IDS).logits - want).detach().abs().max()) < (1e-6 if "dora" in kind else 1e-12)
    pair = next(iter(lora_layers(model).values())).updates["default"]
    assert (
        float(pair.A.abs().max()) <= 1 / math.sqrt(pair.A.shape[1])
        and float(pair.A.detach().std()) > 0.3 / math.sqrt(pair.A.shape[1])
        and not pair.B.any()
    )


def test_scaling():
    assert [LoRASettings(16, 32).scaling, LoRASettings(16, 32, rslora=True).scaling] == [2, 8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", ["all-linear", r"[qv]_proj", ["down_proj", "model.layers.1.self_attn.o_proj"]])
def test_ours_loads_into_peft(kind, pattern, tmp_path):
    model = shaken(add_lora(small(), pattern, rank=4, alpha=6, **KINDS[kind]))
    theirs = loaded(small(), save_lora(model, tmp_path / "a", base="small"))
    assert set(pairs_of_peft(theirs)) == set(lora_layers(model))
    assert float((theirs(input_ids=IDS).logits - model(IDS).logits).detach().abs().max()) < 1e-6
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", ["all-linear", ["q_proj", "v_proj"], r".*layers\.1\..*_proj"])
def test_pefts_loads_into_ours(kind, pattern, tmp_path):
    theirs = peft_of(small(), pattern, **KINDS[kind])
    for part in pairs_of_peft(theirs).values():
        part["B"].data.normal_(0, 0.05)
        if "magnitude" in part:
            part["magnitude"].data.mul_(1.1)
    theirs.save_pretrained(str(tmp_path))
    model = load_lora(small(), tmp_path)
    assert set(lora_layers(model)) == set(pairs_of_peft(theirs))
    assert float((theirs(input_ids=IDS).logits - model(IDS).logits).detach().abs().max()) < 1e-6
    again = load_lora(small(), save_lora(model, tmp_path / "again"))
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_the_shipped_adapter():
    from cantolyric.base import load_base
    from cantolyric.paths import asset_path

    ids = torch.randint(0, 7_000, (2, 20))
    ours, theirs = (
        load_lora(load_base()[0], asset_path("adapter")),
        loaded(load_base()[0], asset_path("adapter")).eval(),
    )
    with torch.no_grad():
        assert float((ours(ids).logits - theirs(input_ids=ids).logits).detach().abs().max()) < 1e-5
    assert (
        adapter_parameters(ours) == 933_888 == lora_parameters([x.weight.shape for x in lora_layers(ours).values()], 32)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_merge_is_exact_in_fp32(kind):
    model = shaken(add_lora(small(), rank=4, **KINDS[kind]))
    want, peft = model(IDS).logits, twins(kind)[1]
    merged = merge_lora(model)
    assert merged is model and not lora_layers(model) and set(linear_layers(model)) == set(linear_layers(small()))
    assert (
        float((model(IDS).logits - want).detach().abs().max()) < 1e-5
        and type(model.model.layers[0].mlp.up_proj) is nn.Linear
    )
    ours = merge_lora(twins(kind)[0])
    assert float((ours(IDS).logits - peft.merge_and_unload()(input_ids=IDS).logits).detach().abs().max()) < 1e-5


def test_a_small_update_is_lost_in_bf16_and_that_is_said():
    model = shaken(add_lora(small(dtype=torch.bfloat16), rank=4), size=1e-4)
    with pytest.warns(UserWarning, match="was not exact"):
        merge_lora(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merge_lora(shaken(add_lora(small(), rank=4), size=1e-4))


def test_merge_refuses():
    with pytest.raises(CantolyricError, match="never added|was merged already|none was added"):
        merge_lora(small())
    model = merge_lora(shaken(add_lora(small())))
    with pytest.raises(CantolyricError, match="merged already"):
        merge_lora(model)
    model = add_lora(add_lora(small()), name="second")
    with pytest.raises(ArgumentError, match="which adapter.*default, second"):
        merge_lora(model)
    with pytest.raises(ArgumentError, match="no adapter 'third'"):
        merge_lora(model, "third")
    merge_lora(shaken(model, "second"), "second")
    model = add_lora(small(tied=True), ["lm_head"])
    before = model.lm_head.weight.clone()
    with pytest.raises(CantolyricError, match="lm_head shares its weights with model.embed_tokens"):
        merge_lora(shaken(model))
    assert torch.equal(model.lm_head.weight, before) and list_adapters(model) == ["default"]
    model = shaken(add_lora(small(dtype=torch.float16)), size=1e6)
    with pytest.raises(CantolyricError, match="not finite"):
        merge_lora(model)
    assert list_adapters(model) == ["default"] and all(p.isfinite().all() for p in model.parameters())


def test_merging_one_of_two_drops_the_other():
    model = add_lora(shaken(add_lora(small(), "mlp")), "self_attn", name="second")
    with using_adapter(model, "default"):
        want = model(IDS).logits
    merge_lora(model, "default")
    assert float((model(IDS).logits - want).detach().abs().max()) < 1e-5


def two():
    return shaken(
        add_lora(shaken(add_lora(small(), rank=4)), r"[qv]_proj", rank=2, name="other", dora=True), "other", 0.1
    )


def test_several_adapters_on_one_base():
    model = two()
    alone = {}
    for name in ("default", "other", None):
        with using_adapter(model, name):
            alone[name] = model(IDS).logits
    assert torch.equal(alone[None], small()(IDS).logits) and not torch.allclose(
        alone["default"], alone["other"], atol=1e-3
    )
    names = ["other", None, "default"]
    use_adapter(model, names)
    mixed = model(IDS).logits
    for k, name in enumerate(names):
        assert float((mixed[k] - alone[name][k]).detach().abs().max()) < 1e-6
    with pytest.raises(CantolyricError, match="3 names for 2 rows"):
        model(IDS[:2])
    assert not [p for p in model.parameters() if p.requires_grad]  # nothing is trained while rows differ
    remove_lora(model)
    assert torch.equal(model(IDS).logits, alone[None])


def test_what_is_active_is_trained():
    model = two()
    trained = lambda: {n.split(".updates.")[1].split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained() == {"other"}
    with using_adapter(model, "default"):
        assert trained() == {"default"}
    assert trained() == {"other"}
    with pytest.raises(ZeroDivisionError):
        with using_adapter(model, None):
            raise ZeroDivisionError
    use_adapter(model, "default")
    assert trained() == {"default"}
    for wrong in ("third", ["default", "third"]):
        with pytest.raises(ArgumentError, match="no adapter 'third' on this model; there are default, other"):
            use_adapter(model, wrong)
    with pytest.raises(CantolyricError, match="no adapter on this model"):
        use_adapter(small(), "default")


def test_two_saved_adapters_travel_apart(tmp_path):
    model = two()
    folders = {name: save_lora(model, tmp_path / name, name) for name in ("default", "other")}
    again = load_lora(load_lora(small(), folders["default"]), folders["other"], "other")
    for name in folders:
        with using_adapter(model, name), using_adapter(again, name):
            assert torch.equal(model(IDS).logits, again(IDS).logits)
    assert list_adapters(again) == ["default", "other"]
    with pytest.raises(ArgumentError, match="no adapter 'x'"):
        save_lora(model, tmp_path / "x", "x")


def test_matching():
    model = small()
    ends = lambda names: sorted({n.rpartition(".")[2] for n in names})
    assert len(matching_layers(model, "all-linear")) == 14 and "lm_head" not in matching_layers(model, "all-linear")
    assert (
        ends(matching_layers(model, "q_proj|v_proj")) == ["q_proj", "v_proj"]
        and len(matching_layers(model, r"layers\.0\.")) == 7
    )
    assert matching_layers(model, ["lm_head"]) == ["lm_head"] and matching_layers(model, ("layers.1.mlp.up_proj",)) == [
        "model.layers.1.mlp.up_proj"
    ]
    assert matching_layers(add_lora(model, "q_proj"), "all-linear") == matching_layers(small(), "all-linear")
    for wrong, about in (
        ("nothing", "'nothing'.*down_proj"),
        (["q_proj", "p_proj"], "'p_proj'"),
        ([], r"\[\]"),
        ("proj", None),
        ("(", "not a regular expression"),
        ("embed_tokens", "no linear layer"),
    ):
        if about is None:
            assert len(matching_layers(model, wrong)) == 14
        else:
            with pytest.raises(ArgumentError, match=about):
                matching_layers(model, wrong)
    with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("pattern", "all-linear")):
        add_lora(nn.Linear(3, 3))


@pytest.mark.parametrize(
    "wrong, about",
    [
        (dict(rank=0), "rank=0"),
        (dict(rank=-1), "rank=-1"),
        (dict(rank=2.0), "rank=2.0"),
        (dict(rank=True), "rank=True"),
        (dict(alpha=0), "alpha=0"),
        (dict(alpha=math.nan), "alpha=nan"),
        (dict(alpha="16"), "alpha='16'"),
        (dict(dropout=1.0), "dropout=1.0"),
        (dict(dropout=-0.1), "dropout=-0.1"),
        (dict(name="a.b"), "name="),
        (dict(name=""), "name="),
        (dict(name="keys"), "name="),
        (dict(name="training"), "name="),
        (dict(name=None), "name="),
        (dict(pattern="x_proj"), "x_proj"),
    ],
)
def test_bad_settings_change_nothing(wrong, about):
    model = small()
    with pytest.raises(ArgumentError, match=about):
        add_lora(model, **wrong)
    assert not lora_layers(model) and all(p.requires_grad for p in model.parameters())


def test_refuses_what_it_cannot_stand_beside():
    with pytest.raises(CantolyricError, match="got Embedding"):
        LoRALinear(nn.Embedding(3, 3))
    with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("name", "default")):
        add_lora(add_lora(small()))
    with pytest.raises(CantolyricError, match="PEFT"):
        add_lora(peft_of(small()))


def test_adapters_for_another_base(tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = save_lora(shaken(add_lora(small(), rank=4)), tmp_path)
    with pytest.raises(CantolyricError, match="other weights"):
        load_lora(small(seed=1), folder)
    wide = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=50,
            hidden_size=64,
            num_hidden_layers=2,
            intermediate_size=64,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    with pytest.raises(CantolyricError, match=r"another base.*\(32, 4\), expected \(64, 4\)"):
        load_lora(wide, folder)
    short = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=1,
            intermediate_size=64,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    with pytest.raises(CantolyricError, match="another base: there is no linear layer model.layers.1"):
        load_lora(short, folder)
    assert not lora_layers(wide) and not lora_layers(short) and wide.lm_head.weight.requires_grad
    load_lora(
        small(dtype=torch.bfloat16), save_lora(shaken(add_lora(small(dtype=torch.bfloat16))), tmp_path / "b")
    )  # one base, 16 and 32 bits
    load_lora(small(dtype=torch.bfloat16).float(), tmp_path / "b")
    with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("name", "default")):
        load_lora(add_lora(small()), folder)


def test_broken_files(tmp_path):
    def fresh(name, config=None, tensors=lambda t: t):
        folder = save_lora(shaken(add_lora(small(), rank=4)), tmp_path / name)
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | (config or {})))
        save_file(tensors(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors")
        return folder

    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    cases = {
        "rank": (dict(r=8), None, "another rank"),
        "bias": (dict(bias="all"), None, "sets bias"),
        "type": (dict(peft_type="IA3"), None, "type is 'IA3'"),
        "pattern": (dict(rank_pattern={"q": 2}), None, "rank_pattern"),
        "alpha": (dict(lora_alpha=None), None, "lora_alpha is None"),
        "pissa": (dict(init_lora_weights="pissa"), None, "init_lora_weights"),
        "dora": (dict(use_dora=True), None, "lacks magnitude"),
        "half": ({}, lambda t: {k: v for k, v in t.items() if k != first + "A.weight"}, "lacks A"),
        "nan": ({}, lambda t: t | {first + "B.weight": t[first + "B.weight"] * math.nan}, "not finite"),
        "more": ({}, lambda t: t | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, "not part of LoRA"),
        "none": ({}, lambda t: {}, "damaged"),
    }
    for name, (config, change, about) in cases.items():
        model = small()
        with pytest.raises(CantolyricError, match=about):
            load_lora(model, fresh(name, config, change or (lambda t: t)))
        assert not lora_layers(model), name
    with pytest.raises(FileError, match="nowhere.*no adapter.*adapter_config.json"):
        load_lora(small(), tmp_path / "nowhere")
    cut = fresh("cut") / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:500])
    with pytest.raises(FileError, match="cut short"):
        load_lora(small(), tmp_path / "cut")
    (fresh("json") / "adapter_config.json").write_text("{")
    with pytest.raises(FileError, match="not valid JSON"):
        load_lora(small(), tmp_path / "json")
    assert load_lora(small(), fresh("fine"))


def test_on_the_head_the_sliced_head_still_agrees():
    model = shaken(add_lora(small(), ["lm_head"]))
    x, rows = torch.randn(4, 32), torch.tensor([3, 7])
    assert head_parts(model.lm_head, x) is None and head_rows(model.lm_head, x, rows) is None  # it is computed whole
    assert model.lm_head.weight.shape == (50, 32) and model.lm_head.bias is None


def four_bit(nested):
    "The small model with its blocks in NF4."
    pytest.importorskip("bitsandbytes")
    model = convert_to_nf4(small(bias=False, width=64), nested)
    model.is_loaded_in_4bit = True  # as after from_pretrained: PEFT looks at it
    return model.eval()


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.filterwarnings("ignore:merging adapter")
def test_four_bits(kind, nested):
    "Whether or not the model was used before, and on any CPU, merging gives 4-bit weights near the sum."
    got = {}
    for used in (False, True):
        model = shaken(add_lora(four_bit(nested), rank=4, **KINDS[kind]))
        pair, layer = (lambda m: (m.updates["default"], m.base_layer))(model.model.layers[0].mlp.up_proj)
        want = pair.merged(dense_weight(layer)).detach()
        with torch.no_grad():
            if used:
                model(IDS)
            merge_lora(model)
            got[used] = dense_weight(model.model.layers[0].mlp.up_proj).clone()
            assert float((got[used] - want).norm() / want.norm()) < 0.15 and model(IDS).logits.isfinite().all()
            if used:
                pytest.raises(CantolyricError, merge_lora, model)
    assert (
        float((got[True] - got[False]).norm() / want.norm()) < 0.05
    )  # the scales of the blocks were rounded once more


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_plain_order_guards_pefts_merge_too(nested, tmp_path):
    folder = save_lora(shaken(add_lora(small(bias=False, width=64), rank=4)), tmp_path)
    model = loaded(four_bit(nested), folder).eval()
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    with torch.no_grad():
        want = dense_weight(layer.base_layer) + layer.get_delta_weight("default")
        model(input_ids=IDS)
        got = dense_weight(undo_cpu_packing(model).merge_and_unload().model.layers[0].mlp.up_proj)
    assert float((got - want).norm() / want.norm()) < 0.15


def test_eight_bits_are_refused_by_name():
    class Int8(nn.Linear):
        pass

    layer = Int8(4, 4, bias=False)
    layer.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    model = nn.Sequential()
    model.add_module("one", LoRALinear(layer))
    with pytest.raises(CantolyricError, match="cannot read the weights of Int8"):
        merge_lora(model)


def test_counts_of_the_paper():
    from transformers import OPTConfig, OPTModel, RobertaConfig, RobertaModel

    square = lambda d, n: [(d, d)] * n
    assert [lora_parameters(square(12288, 96 * 2), r) for r in (1, 8)] == [4_718_592, 37_748_736]
    assert lora_parameters(square(768, 12 * 2), 8) == 294_912
    with torch.device("meta"):
        roberta = RobertaModel(RobertaConfig())
        gpt3 = OPTModel(
            OPTConfig(
                hidden_size=12288,
                word_embed_proj_dim=12288,
                ffn_dim=4 * 12288,
                num_hidden_layers=96,
                num_attention_heads=96,
            )
        )
    assert adapter_parameters(add_lora(roberta, ["query", "value"], rank=8)) == 294_912
    assert adapter_parameters(add_lora(gpt3, ["q_proj", "v_proj"], rank=1)) == 4_718_592


def test_exercises():
    assert (
        exercises.check_largest_rank(lambda shapes, budget: budget // sum(a + b for a, b in shapes)) == exercises.RIGHT
    )
    for wrong in (
        lambda s, b: b // sum(a * c for a, c in s),
        lambda s, b: b / sum(a + c for a, c in s),
        lambda s, b: -(-b // sum(a + c for a, c in s)),
        lambda s, b: ...,
        lambda s, b: 1 / 0,
    ):
        assert exercises.check_largest_rank(wrong).startswith("Not yet"), wrong
    right = lambda x, W, A, B, scaling: x @ W.T + scaling * (x @ A.T) @ B.T
    assert exercises.check_narrow(right) == exercises.RIGHT
    for wrong in (
        lambda x, W, A, B, s: x @ (W + s * B @ A).T,
        lambda x, W, A, B, s: x @ W.T + s * x @ (B @ A).T,
        lambda x, W, A, B, s: x @ W.T + (x @ A.T) @ B.T,
        lambda x, W, A, B, s: s * (x @ W.T + (x @ A.T) @ B.T),
        lambda x, W, A, B, s: s * (x @ A.T) @ B.T,
        lambda x, W, A, B, s: ...,
        lambda x, W, A, B, s: x @ A,
    ):
        assert exercises.check_narrow(wrong).startswith("Not yet"), wrong

    def fewer(A, B, rank):
        (Qb, Rb), (Qa, Ra) = torch.linalg.qr(B), torch.linalg.qr(A.T)
        U, S, V = torch.linalg.svd(Rb @ Ra.T)
        return S[:rank, None] * V[:rank] @ Qa.T, Qb @ U[:, :rank]

    assert exercises.check_fewer(fewer) == exercises.RIGHT

    def direct(A, B, rank):
        U, S, V = torch.linalg.svd(B @ A, full_matrices=False)
        return V[:rank], U[:, :rank] * S[:rank]

    assert exercises.check_fewer(direct) == exercises.RIGHT
    for wrong in (
        lambda A, B, r: (A[:r], B[:, :r]),
        lambda A, B, r: (A, B),
        lambda A, B, r: direct(A, B, r)[::-1],
        lambda A, B, r: ...,
        lambda A, B, r: A[:r],
        lambda A, B, r: (torch.linalg.svd(A, full_matrices=False)[2][:r], B[:, :r]),
    ):
        assert exercises.check_fewer(wrong).startswith("Not yet"), wrong


def test_dora_on_unreadable_weights_changes_nothing():
    model = small()
    last = [n for n in linear_layers(model) if n != "lm_head"][-1]
    model.get_submodule(last).weight = nn.Parameter(
        torch.zeros_like(model.get_submodule(last).weight, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(CantolyricError, match="cannot read the weights"):
        add_lora(model, dora=True)
    assert not lora_layers(model) and model.model.embed_tokens.weight.requires_grad
