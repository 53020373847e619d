"""Small GGUF files for tests: written from a tiny variant of a family, read by transformers, llama.cpp and cantolyric.

    model, tokenizer = gguf_variant("qwen2.5", wide=True)
    model = write_gguf((model, tokenizer), tmp_path / "tiny.gguf", kinds={"attn_v": "Q8_0", "ffn": "Q4_K"}, head="Q6_K")

Quantizing changes the weights. `write_gguf` therefore returns a copy of the model that holds exactly the values which
the file decodes to, so a test can compare it bit by bit with whatever was loaded from the file.
"""

import copy
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from cantolyric.families.tiny import tiny_variant

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PRE_TOKENIZERS = {"qwen2": "qwen2", "qwen3": "qwen2", "llama": "deepseek-llm"}  # model type -> tokenizer.ggml.pre


def gguf_variant(
    family="qwen2.5",  # also "qwen3"; "deepseek-llm" has the llama architecture
    wide=False,  # rows of 256 values, as the K kinds need
    tied=False,  # tie the output head to the embedding
    **changes,  # to the config
):  # -> (model, tokenizer)
    """A tiny variant that survives a GGUF file: transformers reads no head_dim for Qwen3, so 128 is the only one.

    The tokenizer gets a ChatML template. Its end token is <|im_end|> where the family has one, as in the released
    files of instruction-tuned models.
    """
    if family == "qwen3":
        changes = {"head_dim": 128, **changes}
    if wide:
        changes = {"hidden_size": 256, "intermediate_size": 512, **changes}
    model, tokenizer = tiny_variant(family, tie_word_embeddings=tied, **changes)
    tokenizer.chat_template = CHAT_TEMPLATE
    if "<|im_end|>" in tokenizer.get_vocab():
        tokenizer.eos_token = "<|im_end|>"
    return model, tokenizer


def write_gguf(
    source,  # a folder that holds a model in safetensors, or (model, tokenizer)
    path,  # the file to write
    kinds="F32",  # a kind for every matrix, or {part of a GGUF tensor name: kind}; other matrices stay F32
    head=None,  # kind of `output.weight`; None: as `kinds` says, and a tied head is left out of the file
    seed=0,  # for the random blocks of Q4_K and Q6_K
):  # -> a copy of the model, with the values that the file decodes to
    """Write a model and its tokenizer as one GGUF file.

    Kinds: F32, F16, BF16, Q8_0, Q5_0 (rows of a multiple of 32), Q4_K and Q6_K (rows of a multiple of 256). The
    `gguf` package cannot quantize to the two K kinds: those tensors get random valid blocks, scaled to the standard
    deviation of the weights they replace. With `head=` a tied head is stored a second time, at that precision, and
    the returned model is untied: this is what the released Qwen2.5 files do.

    The tokenizer is written in full for the byte-level families with Qwen's pre-tokenizer. For "deepseek-llm"
    (architecture llama) the weights are exact, but readers cut text with another pattern than the tokenizer does.
    """
    model, tokenizer = _loaded(source)
    model = copy.deepcopy(model).float()
    config = model.config
    if config.model_type not in PRE_TOKENIZERS:
        raise ValueError(f"write_gguf knows {', '.join(PRE_TOKENIZERS)}, not the model type {config.model_type!r}")
    if head and config.tie_word_embeddings:
        _untie(model)
    writer = gguf.GGUFWriter(path, config.model_type)
    _write_config(writer, config)
    _write_tokenizer(writer, tokenizer, config)
    rng = np.random.default_rng(seed)
    state, stored = model.state_dict(), {}
    for name, values in state.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stored[name] = _write_tensor(writer, config, name, values, _kind_of(name, config, kinds, head), rng)
    for name, values in stored.items():
        state[name].copy_(values)
    _save(writer)
    return model.eval()


def gguf_name(name, config):
    """The GGUF name of a parameter of transformers: model.layers.0.mlp.up_proj.weight -> blk.0.ffn_up.weight."""
    names = gguf.get_tensor_name_map(_architecture(config), config.num_hidden_layers)
    return names.get_name(name, try_suffixes=(".weight", ".bias"))


def random_blocks(kind, rows, width, std, rng):  # -> uint8 (rows, bytes of a row)
    """Random Q4_K or Q6_K blocks whose values have mean 0 and a standard deviation of about `std`."""
    block, size = gguf.GGML_QUANT_SIZES[Kind[kind]]
    raw = rng.integers(0, 256, (rows, width // block, size), dtype=np.uint8)
    if kind == "Q4_K":  # d * scale * q - dmin * m: q has the mean 7.5, scale and m the same distribution
        raw[..., 0:2] = _half(std / 258)
        raw[..., 2:4] = _half(7.5 * std / 258)
    else:  # Q6_K: d * scale * (q - 32), with scales from -32 to 31, so that d is no subnormal number
        scales = rng.integers(-32, 32, (rows, width // block, 16)).astype(np.int8)
        raw[..., 192:208] = scales.view(np.uint8)
        raw[..., 208:210] = _half(std / 342)
    return raw.reshape(rows, -1)


def _save(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _half(value):
    return np.frombuffer(np.float16(value).tobytes(), np.uint8)


def _loaded(source):
    if isinstance(source, (str, Path)):
        return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), AutoTokenizer.from_pretrained(source)
    return source


def _untie(model):
    model.config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.detach().clone())


def _architecture(config):
    return next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type)


def _kind_of(name, config, kinds, head):
    if name == "lm_head.weight" and head:
        return head
    if isinstance(kinds, str):
        return kinds
    return next((kind for part, kind in kinds.items() if part in gguf_name(name, config)), "F32")


def _write_tensor(writer, config, name, values, kind, rng):  # -> the stored values
    if values.dim() == 1:
        kind = "F32"
    heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
    turned = config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name)
    array = (_interleaved(values, heads) if turned else values).contiguous().numpy()
    if kind in ("Q4_K", "Q6_K"):
        raw = random_blocks(kind, *array.shape, float(array.std()), rng)
    else:
        raw = gguf.quants.quantize(array, Kind[kind])
    writer.add_tensor(gguf_name(name, config), raw, raw_dtype=Kind[kind])
    stored = torch.from_numpy(np.array(gguf.quants.dequantize(raw, Kind[kind])).reshape(array.shape))
    return _halves(stored, heads) if turned else stored


def _interleaved(weight, heads):
    """The order of llama.cpp: the two halves of each head, which rotary embeddings turn, row by row in turn."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _halves(weight, heads):
    """The order of transformers: undo `_interleaved`."""
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _write_config(writer, config):
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if config.model_type == "qwen3" and size != 128:
        raise ValueError(f"transformers reads a Qwen3 GGUF file with head_dim=128 only, not {size}: use gguf_variant")
    writer.add_type("model")
    writer.add_name(f"tiny {config.model_type}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_tokenizer(writer, tokenizer, config):
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = [f"[PAD{i}]" for i in range(config.vocab_size)]
    types = [gguf.TokenType.UNUSED] * config.vocab_size
    for token, i in bpe["vocab"].items():
        tokens[i], types[i] = token, gguf.TokenType.NORMAL
    for i, token in tokenizer.added_tokens_decoder.items():
        tokens[i] = token.content
        types[i] = gguf.TokenType.CONTROL if token.special else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZERS[config.model_type])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
