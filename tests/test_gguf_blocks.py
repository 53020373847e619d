"""cantolyric.gguf_blocks: our decoders against the gguf package and transformers, bit by bit."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import gguf_name, gguf_variant, random_blocks, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from cantolyric.base import quiet_loading
from cantolyric.errors import CantolyricError
from cantolyric.gguf_blocks import BLOCKS, decode_blocks, decode_tensor


def bits(x):
    "The bits of float32 numbers: NaN equals NaN, and 0 differs from -0."
    return np.ascontiguousarray(x).view(np.uint32)


def reference(raw, kind):
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])


def model_file(name):
    "The GGUF file of the catalogue, or skip."
    try:
        from cantolyric.models import model_path

        return Path(model_path(name))
    except (ImportError, CantolyricError) as e:
        pytest.skip(f"needs the real model: {e}")


@pytest.mark.parametrize("kind", BLOCKS)
def test_block_sizes_are_those_of_the_gguf_package(kind):
    assert BLOCKS[kind] == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 40), blocks=st.integers(1, 5))
@pytest.mark.parametrize("kind", BLOCKS)
def test_random_bytes_decode_to_the_same_bits(kind, seed, rows, blocks):
    size = BLOCKS[kind][1]
    raw = np.random.default_rng(seed).integers(0, 256, (rows, blocks * size), dtype=np.uint8)
    ours = decode_blocks(raw, kind)
    assert ours.dtype == np.float32 and ours.shape == (rows, blocks * BLOCKS[kind][0])
    assert np.array_equal(bits(ours), bits(reference(raw, kind)))


@pytest.mark.parametrize("kind", BLOCKS)
def test_matrices_of_several_chunks_decode_to_the_same_bits(kind):
    size = BLOCKS[kind][1]
    raw = np.random.default_rng(1).integers(0, 256, (700, (1 << 20) // 700 // size * size + size), dtype=np.uint8)
    assert raw.nbytes > 1 << 20 and np.array_equal(bits(decode_blocks(raw, kind)), bits(reference(raw, kind)))


@pytest.mark.parametrize("kind", BLOCKS)
def test_strided_bytes_decode_like_contiguous_ones(kind):
    size = BLOCKS[kind][1]
    wide = np.random.default_rng(2).integers(0, 256, (9, 4 * size), dtype=np.uint8)
    part = wide[::2, size : 3 * size]
    assert np.array_equal(bits(decode_blocks(part, kind)), bits(decode_blocks(part.copy(), kind)))


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0"])
def test_what_was_quantized_comes_back_within_half_a_step(kind):
    weights = np.random.default_rng(3).normal(0, 0.02, (16, 128)).astype(np.float32)
    raw = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[kind])
    largest = np.abs(weights).reshape(-1, 32).max(1)
    step = (largest / (127 if kind == "Q8_0" else 16))[:, None]
    error = np.abs(decode_blocks(raw, kind) - weights).reshape(-1, 32)
    allowed = step / 2 if kind == "Q8_0" else step  # Q5_0 has one step less on one side
    assert (error <= allowed * 1.01 + largest[:, None] * 2**-11).all() and error.max() > 0


@pytest.mark.parametrize("scale", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("kind,at", [("Q8_0", 0), ("Q5_0", 0), ("Q4_K", 0), ("Q4_K", 2), ("Q6_K", 208)])
def test_a_scale_that_is_not_finite_stays_in_its_block(kind, at, scale):
    values, size = BLOCKS[kind]
    raw = np.random.default_rng(4).integers(1, 60, (1, 2 * size), dtype=np.uint8)
    raw[0, at : at + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    ours = decode_blocks(raw, kind)
    assert not np.isfinite(ours[0, :values]).any() and np.isfinite(ours[0, values:]).all()
    assert np.array_equal(bits(ours), bits(reference(raw, kind)))


@pytest.mark.filterwarnings("error")
def test_a_scale_that_is_not_finite_warns_nobody():
    raw = np.full((1, 34), 255, np.uint8)
    assert np.isnan(decode_blocks(raw, "Q8_0")).all()


@pytest.mark.parametrize(
    "raw,kind,words",
    [
        (np.zeros((1, 34), np.uint8), "IQ2_XS", "expected one of F32"),
        (np.zeros((1, 34), np.float32), "Q8_0", "float32"),
        (np.zeros(34, np.uint8), "Q8_0", r"\(34,\)"),
        (np.zeros((2, 33), np.uint8), "Q8_0", "blocks of 34 bytes"),
    ],
)
def test_what_cannot_be_decoded_is_refused_on_one_line(raw, kind, words):
    with pytest.raises(CantolyricError, match=words) as e:
        decode_blocks(raw, kind)
    assert "\n" not in str(e.value)


KINDS = {
    "ffn_up": "Q4_K",
    "attn_v": "Q6_K",
    "ffn_down": "Q5_0",
    "attn_q": "F16",
    "attn_k": "BF16",
    "token_embd": "Q8_0",
}


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_tensors_of_a_file_are_what_transformers_loads(family, tmp_path):
    written = write_gguf(gguf_variant(family, wide=True), tmp_path / "tiny.gguf", KINDS, head="Q6_K")
    with quiet_loading():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    names = names_in_file(loaded)
    tensors = gguf.GGUFReader(tmp_path / "tiny.gguf").tensors
    assert {t.tensor_type.name for t in tensors} == set(BLOCKS) and len(tensors) == len(names)
    for t in tensors:
        ours = decode_tensor(t)
        assert np.array_equal(bits(ours), bits(loaded.state_dict()[names[t.name]].numpy())), t.name
        assert np.array_equal(bits(ours), bits(written.state_dict()[names[t.name]].numpy())), t.name


def names_in_file(model):
    "GGUF name -> name in transformers."
    return {gguf_name(name, model.config): name for name in model.state_dict()}


def test_a_damaged_file_is_refused(tmp_path):
    raw = random_blocks("Q4_K", 4, 512, 0.02, np.random.default_rng(5))
    raw[2, 144:146] = 255  # the scale of one block becomes NaN
    writer = gguf.GGUFWriter(tmp_path / "bad.gguf", "qwen2")
    writer.add_tensor("blk.0.ffn_up.weight", raw, raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CantolyricError, match="'blk.0.ffn_up.weight' holds weights that are not finite.*SHA-256"):
        decode_tensor(gguf.GGUFReader(tmp_path / "bad.gguf").tensors[0])


@pytest.mark.qwen
@pytest.mark.parametrize("name", ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"])
def test_every_tensor_of_a_real_file_decodes_to_the_same_bits(name):
    seen = set()
    for t in gguf.GGUFReader(model_file(name)).tensors:
        assert np.array_equal(bits(decode_tensor(t)), bits(reference(t.data, t.tensor_type.name))), t.name
        seen.add(t.tensor_type.name)
    assert {"F32", "Q4_K", "Q6_K"} <= seen


@pytest.mark.qwen
def test_transformers_loads_the_same_bits_from_a_real_file():
    path = model_file("qwen2.5-coder-0.5b")
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    names, state = names_in_file(model), model.state_dict()
    tensors = gguf.GGUFReader(path).tensors
    assert {t.name for t in tensors} == set(names)
    for t in tensors:
        assert np.array_equal(bits(decode_tensor(t)), bits(state[names[t.name]].numpy())), t.name


def test_the_recorded_comparison_supports_what_the_notebook_says():
    "Equal bits in every kind, no slower than the gguf package, and llama.cpp runs the same model."
    path = Path(__file__).parent.parent / "benchmarks" / "results" / "gguf.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    kinds = result["kinds"]
    assert set(kinds) == {"F32", "Q8_0", "Q5_0", "Q4_K", "Q6_K"}
    assert all(kind["equal"] == kind["tensors"] for kind in kinds.values())
    assert all(kind.get("speedup", 1) >= 1 for kind in kinds.values())
    assert result["loaded"]["equal"] == result["loaded"]["tensors"] == sum(kind["tensors"] for kind in kinds.values())
    assert result["llama_cpp"]["mean_kl"] <= 0.02 and len(result["llama_cpp"]["prompts"]) == 5
