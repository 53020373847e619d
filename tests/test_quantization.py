"""Lesson 31: the same bytes as bitsandbytes, rounding that comes off again, and what a model holds."""

import logging
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
bnb = pytest.importorskip("bitsandbytes")
import bitsandbytes.functional as bf

from cantolyric._exercises import quantization as exercises
from cantolyric.errors import ArgumentError, CantolyricError
from cantolyric.lora import undo_cpu_packing
from cantolyric.quantization import (
    FLOAT_DTYPES,
    NF4,
    QuantizedScales,
    block_linears,
    check_quantizable,
    cpu_packed_layers,
    dequantize_int8,
    dequantize_nf4,
    dequantize_scales,
    dynamic_codebook,
    modified_weights,
    nearest_code,
    normal_codebook,
    pack_nibbles,
    quantize_dequantize,
    quantize_int8,
    quantize_nf4,
    quantize_scales,
    relative_error,
    split_into_groups,
    storage_report,
    uniform_codebook,
    unpack_nibbles,
    with_outliers,
)

SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


@pytest.fixture(autouse=True, scope="module")
def eager():
    "bitsandbytes compiles its PyTorch forms for each shape anew; they compute the same without."
    import torch._dynamo

    was, torch._dynamo.config.disable = torch._dynamo.config.disable, True
    yield
    torch._dynamo.config.disable = was


def weights(shape, dtype=torch.float32, seed=0, zeros=0, scale=0.03):
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    w.view(-1)[:zeros] = 0
    return w.to(dtype)


def theirs(w, block_size, double=False):
    """bitsandbytes' bytes, state and weights.

    Weights are read as one long row: its AVX512 kernel is wrong for rows that are no multiple of a block."""
    packed, state = bf.quantize_4bit(w, blocksize=block_size, quant_type="nf4", compress_statistics=double)
    if w.numel() % 2 == 0:
        state.shape = (1, w.numel())
    return packed.flatten(), state, bf.dequantize_4bit(packed, state).flatten()


def assert_same(w, block_size, double=False):
    packed, state, back = theirs(w, block_size, double)
    q = quantize_nf4(w, block_size, double)
    assert torch.equal(q.codes, packed)
    if double:
        assert (
            torch.equal(q.absmax.codes, state.absmax)
            and torch.equal(q.absmax.absmax, state.state2.absmax)
            and torch.equal(q.absmax.offset, state.offset)
        )
    else:
        assert torch.equal(q.absmax, state.absmax)
    again = dequantize_nf4(q)
    assert again.shape == w.shape and again.dtype == w.dtype and torch.equal(again.flatten(), back)


SHAPES = [
    (128, 96),
    (96, 70),
    (31, 33),
    (257, 64),
    (1000,),
    (1001,),
    (4096, 3),
    (2, 4098),
    (63, 1),
    (5, 130),
    (2, 3, 40),
    (1,),
]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("block_size", SIZES)
def test_nf4_equals_bitsandbytes(block_size, dtype, double):
    for shape in SHAPES:
        assert_same(weights(shape, dtype, block_size, zeros=min(math.prod(shape), block_size)), block_size, double)
    assert_same(weights((512, 256), dtype, 1), block_size, double)


@pytest.mark.parametrize("double", [False, True])
def test_zeros_and_extremes(double):
    for n in (1, 64, 70, 128, 64 * 300):
        assert_same(torch.zeros(n), 64, double)
    for scale in (1e-30, 1e-6, 1e6, 1e30):
        assert_same(weights((64, 192), scale=scale), 64, double)
    half = torch.full((2, 64), torch.finfo(torch.float16).max, dtype=torch.float16)
    assert_same(half, 64, double)
    assert_same(torch.tensor([0.0, -0.0, 1e-45, 1.0] * 16), 64, double)


def test_ties_and_ends_of_every_step():
    "Numbers on and next to each midpoint, and one of each value of the code."
    code = normal_codebook(4)
    middle = (code[1:] + code[:-1]) / 2
    w = torch.cat(
        [torch.ones(1), code, middle, torch.nextafter(middle, torch.ones(15)), torch.nextafter(middle, -torch.ones(15))]
    )
    w = torch.cat([w, torch.zeros(64 - len(w))]) if len(w) < 64 else w[:64]
    assert_same(w, 64)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=16), min_size=1, max_size=300),
    st.sampled_from(SIZES),
    st.sampled_from(FLOAT_DTYPES),
    st.booleans(),
)
def test_any_numbers(numbers, block_size, dtype, double):
    assert_same(torch.tensor(numbers).to(dtype), block_size, double)


def test_scales_over_many_blocks():
    "A million weights: about one scale in a thousand lies near a midpoint of the dynamic code."
    for seed in range(3):
        absmax = torch.rand(60_001, generator=torch.Generator().manual_seed(seed)) * 0.1 + 0.02
        s = quantize_scales(absmax)
        codes, state = bf.quantize_blockwise(absmax - absmax.mean(), blocksize=256)
        assert torch.equal(s.codes, codes) and torch.equal(s.absmax, state.absmax)
        assert torch.equal(dequantize_scales(s), bf.dequantize_blockwise(codes, state) + absmax.mean())
    exact = nearest_code(split_into_groups(absmax - s.offset, 256) / s.absmax[:, None], dynamic_codebook()).flatten()[
        : len(absmax)
    ]
    assert 0.0003 < float((exact != s.codes).float().mean()) < 0.003


def test_codes():
    assert torch.equal(normal_codebook(4), bf.get_4bit_type("nf4", "cpu")) and torch.equal(
        dynamic_codebook(), bf.create_dynamic_map()
    )
    for bits in range(2, 9):
        n, u = normal_codebook(bits), uniform_codebook(bits)
        assert len(n) == 2**bits and len(u) == 2**bits - 1
        for c in (n, u):
            assert (c.diff() > 0).all() and 0 in c and c[0] == -1 and c[-1] == 1
        assert int((n > 0).sum()) == 2 ** (bits - 1)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_int8_equals_bitsandbytes(dtype):
    for shape in ((48, 96), (7, 33), (1, 5), (300, 64)):
        w = weights(shape, dtype, zeros=shape[1])  # the first row is zero
        values, scale, _ = bf.int8_vectorwise_quant(w.clone())
        q = quantize_int8(w)
        assert torch.equal(q.values, values) and torch.equal(q.scale, scale)
        assert torch.equal(dequantize_int8(q), bf.int8_vectorwise_dequant(values, scale).to(dtype))


def test_int8_equals_the_linear_layer():
    w = weights((48, 96))
    layer = bnb.nn.Linear8bitLt(96, 48, bias=False, has_fp16_weights=False)
    layer.weight = bnb.nn.Int8Params(w.clone(), requires_grad=False, has_fp16_weights=False)
    layer = layer.to("cpu")
    q = quantize_int8(w.half())  # the layer casts to fp16 first
    assert torch.equal(layer.weight.data, q.values) and torch.equal(layer.weight.SCB, q.scale)


@pytest.mark.parametrize("by,groups", [("tensor", 1), ("row", 6), ("block", 9)])
def test_int8_groups(by, groups):
    w = weights((6, 91))
    q = quantize_int8(w, by)
    assert len(q.scale) == groups and q.values.shape == w.shape
    step = q.scale.repeat_interleave(q.size)[: w.numel()].view(w.shape) / 127
    assert ((dequantize_int8(q) - w).abs() <= step * 0.501).all()


def test_a_finer_scale_is_never_much_worse_and_an_outlier_stays_where_it_is():
    w = weights((256, 256))
    w[3, 5] = 3.0
    error = {by: relative_error(w[:3], dequantize_int8(quantize_int8(w, by))[:3]) for by in ("tensor", "row", "block")}
    assert error["tensor"] > 10 * error["row"] > 10 * error["block"] * 0.8


def test_pack():
    for n in (0, 1, 2, 7, 100):
        codes = torch.randint(0, 16, (n,), generator=torch.Generator().manual_seed(n)).to(torch.uint8)
        assert torch.equal(unpack_nibbles(pack_nibbles(codes), n), codes) and len(pack_nibbles(codes)) == (n + 1) // 2
    assert pack_nibbles(torch.tensor([1, 2, 3], dtype=torch.uint8)).tolist() == [0x12, 0x37]


def test_round_weights():
    w = weights((32, 128), torch.bfloat16)
    assert torch.equal(quantize_dequantize(w, 4), dequantize_nf4(quantize_nf4(w)))
    errors = {
        (k, b): relative_error(w.float(), quantize_dequantize(w.float(), b, k))
        for k in ("normal", "uniform")
        for b in range(2, 9)
    }
    assert all(errors[k, b] > 1.35 * errors[k, b + 1] for k in ("normal", "uniform") for b in range(2, 7))
    assert all(errors["normal", b] < errors["uniform", b] for b in (2, 3, 4))
    assert all(len(row.unique()) <= 4 for row in quantize_dequantize(w, 2).view(-1, 64))  # two bits, four values


def test_bytes():
    w = weights((64, 256))
    assert quantize_nf4(w).nbytes == w.numel() / 2 + 4 * w.numel() / 64
    q = quantize_nf4(w, double=True)
    assert (
        isinstance(q, NF4)
        and isinstance(q.absmax, QuantizedScales)
        and q.nbytes == w.numel() / 2 + w.numel() / 64 + 4 * 1 + 4
    )


@pytest.mark.parametrize(
    "bad,says",
    [
        (torch.zeros(3, dtype=torch.int8), "int8"),
        ([1.0], "list"),
        (torch.zeros(()), "not empty"),
        (torch.zeros(0, 4), "not empty"),
        (torch.tensor([[0.0, 1.0], [math.inf, 2.0]]), r"\(1, 0\) is inf"),
    ],
)
def test_bad_weights_are_named(bad, says):
    for f in (quantize_int8, quantize_nf4, lambda w: quantize_dequantize(w, 4)):
        with pytest.raises(CantolyricError, match=says):
            f(bad)


def test_bad_settings_are_named():
    w = weights((2, 64))
    for f, says in (
        (lambda: check_quantizable(w, 0), "block_size=0"),
        (lambda: quantize_nf4(w, 6.4), "block_size=6.4"),
        (lambda: quantize_int8(w, "column"), "tensor, row, block"),
        (lambda: quantize_dequantize(w, 4, "even"), "normal, uniform"),
        (lambda: normal_codebook(1), "bits=1"),
        (lambda: uniform_codebook(16), "bits=16"),
    ):
        with pytest.raises(ArgumentError, match=says):
            f()


def small(dtype=torch.float32):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    return (
        Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=128,
                hidden_size=64,
                num_hidden_layers=2,
                intermediate_size=128,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=64,
                tie_word_embeddings=True,
                use_cache=False,
            )
        )
        .to(dtype)
        .eval()
    )


def logits(model):
    return model(input_ids=torch.arange(20)[None]).logits.detach()


def test_rounded_comes_off():
    model = small()
    before, state = logits(model), {k: v.clone() for k, v in model.state_dict().items()}
    names = list(block_linears(model))
    assert len(names) == 14 and "lm_head" not in names
    with modified_weights(model, lambda n, w: quantize_dequantize(w, 3) if n == names[0] else None):
        changed = [k for k, v in model.state_dict().items() if not torch.equal(v, state[k])]
        assert changed == [f"{names[0]}.weight"] and not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)
    with pytest.raises(KeyError), modified_weights(model, lambda n, w: quantize_dequantize(w, 2)):
        raise KeyError
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())

    def breaks(name, w):
        if name == names[5]:
            raise ValueError
        return w * 0

    with pytest.raises(ValueError), modified_weights(model, breaks):
        pass
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("factor", [32.0, 1 / 32])
def test_outliers_change_no_logit(factor):
    model = small()
    before, w = logits(model), model.model.layers[1].mlp.up_proj.weight.clone()
    with with_outliers(model, [3, 40], factor):
        assert torch.equal(logits(model), before)
        assert torch.equal(model.model.layers[1].mlp.up_proj.weight[:, 3], w[:, 3] * factor)
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight, w)


def load(folder, **how):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    return AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=BitsAndBytesConfig(**how), dtype=torch.float32
    )


NF4_HOW = dict(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
)


def test_held(tmp_path):
    model = small()
    rows = storage_report(model)
    assert sum(r["bytes"] for r in rows) == sum(p.nbytes for p in model.parameters())  # the tied head counts once
    assert {r["bits"] for r in rows} == {"32"} and [r["bytes"] for r in rows if r["name"] == "lm_head.weight"] == [0]
    model.save_pretrained(tmp_path)
    four, eight = load(tmp_path, **NF4_HOW), load(tmp_path, load_in_8bit=True)
    w = model.model.layers[0].mlp.up_proj.weight
    find = lambda m: next(r for r in storage_report(m) if r["name"] == "model.layers.0.mlp.up_proj.weight")
    assert find(four)["bits"] == "4" and find(four)["module"] == "Linear4bit" and find(four)["numbers"] == w.numel()
    assert find(four)["bytes"] == quantize_nf4(w, double=True).nbytes + 4 * (16 + 256)  # and the two codes
    assert find(eight)["bits"] == "8" and find(eight)["bytes"] == w.numel() + 4 * len(w)
    eight.eval()(input_ids=torch.arange(5)[None])  # moves the scales
    assert find(eight)["bytes"] == w.numel() + 4 * len(w)
    q = quantize_nf4(w.data, double=True)
    layer = four.model.layers[0].mlp.up_proj
    assert torch.equal(layer.weight.data.flatten(), q.codes) and torch.equal(
        layer.weight.quant_state.absmax, q.absmax.codes
    )


def test_gradients_after_an_evaluation(tmp_path):
    "On CPUs with AVX512-BF16 an evaluation repacks 4-bit weights; `plain_order` undoes it."
    from peft import LoraConfig, get_peft_model

    small().save_pretrained(tmp_path)
    ids = torch.arange(40).view(2, 20)

    def gradient(evaluate):
        torch.manual_seed(0)
        student = get_peft_model(
            load(tmp_path, **NF4_HOW), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        )
        if evaluate:
            with torch.no_grad():
                student.eval()(input_ids=ids)
            assert len(cpu_packed_layers(student)) in (0, 14)  # none on other CPUs
            assert undo_cpu_packing(student) is student and not cpu_packed_layers(student)
        student.train()(input_ids=ids, labels=ids).loss.backward()
        return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])

    a, b = gradient(False), gradient(True)
    assert float(torch.nn.functional.cosine_similarity(a, b, 0)) > 0.99


def test_checkers_know_wrong():
    for check in (exercises.check_bits_a_weight, exercises.check_pack3, exercises.check_best_scale):
        assert check(lambda *a: ...).startswith("Not yet")
    assert "double quantization" in exercises.check_bits_a_weight(
        lambda bits, size, double: bits + (8 if double else 32) / size
    )

    def from_below(codes):  # the first code in the lowest bits
        bits = torch.stack([codes >> k & 1 for k in range(3)], 1).flatten()
        bits = torch.cat([bits, bits.new_zeros(-len(bits) % 8)]).view(-1, 8)
        return (bits * 2 ** torch.arange(8)).sum(1).to(torch.uint8)

    assert "bytes that begin with" in exercises.check_pack3(from_below)
    assert "expected" in exercises.check_best_scale(lambda w, code, shares: 1.0)
