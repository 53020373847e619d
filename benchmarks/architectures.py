"""Which architectures can write under the constraint: a small random model of each, and what its cache supports.

python benchmarks/architectures.py    writes benchmarks/results/architectures.json; a minute on one core

tests/test_architectures.py checks that the results are still the same. For a model of your own, call
cantolyric.constraint.decoding.check_writing.
"""

from importlib.metadata import version

import torch
from _common import write
from transformers import AutoConfig, AutoModelForCausalLM

from cantolyric.base import load_base
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.decoding import check_writing
from cantolyric.constraint.vocabulary import TokenTable

TEMPLATE = "2/2/24"  # short lines: the mask often leaves one token, so that several new tokens are read at once
PROMPT = list(range(100, 111))  # longer than the windows below
RIGHT = 0.05  # bits per text; rounding errors are a few thousandths at most
SIZES = dict(
    vocab_size=8000,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    initializer_range=0.2,
    pad_token_id=0,
    eos_token_id=0,
)

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
SPARSE, HEAVY = "compressed_sparse_attention", "heavily_compressed_attention"
HEAD = dict(head_dim=16)
WINDOW = dict(sliding_window=6)
MIXED = WINDOW | dict(layer_types=[SLIDING, FULL] * 2)
TWO_OF_FOUR = dict(num_experts_per_tok=2, moe_intermediate_size=32)
EXPERTS, LOCAL, ROUTED = (TWO_OF_FOUR | {k: 4} for k in ("num_experts", "num_local_experts", "n_routed_experts"))
SHARED = EXPERTS | dict(shared_expert_intermediate_size=32)
GROUPS = dict(first_k_dense_replace=1, n_group=1, topk_group=1)
MLA = dict(kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16, num_key_value_heads=4)
DELTA = HEAD | dict(
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=16,
)
MAMBA = dict(mamba_n_heads=4, mamba_n_groups=1, mamba_d_state=16, mamba_chunk_size=8)
SSM = dict(n_groups=1, chunk_size=8)
JAMBA = dict(
    num_experts=2,
    num_experts_per_tok=2,
    attn_layer_period=2,
    attn_layer_offset=1,
    expert_layer_period=2,
    mamba_d_state=8,
    mamba_dt_rank=8,
)
V4 = ROUTED | dict(
    intermediate_size=32,
    num_key_value_heads=1,
    head_dim=32,
    qk_rope_head_dim=8,
    q_lora_rank=32,
    o_groups=2,
    o_lora_rank=16,
    sliding_window=6,
    layer_types=[SLIDING, SPARSE, HEAVY, SPARSE],
    compress_rates={SPARSE: 4, HEAVY: 8},
    mlp_layer_types=["hash_moe", "moe", "moe", "moe"],
    index_n_heads=16,
    index_head_dim=16,
    index_topk=3,  # with few heads, scores tie at 0, and ties depend on the shape of the call
)
ARCHITECTURES = {  # model_type -> what its config needs besides SIZES
    "llama": {},
    "mistral": WINDOW,
    "mixtral": LOCAL,
    "phi3": {},
    "granite": {},
    "olmo2": {},
    "smollm3": {},
    "qwen2": {},
    "qwen2_moe": SHARED,
    "qwen3": HEAD,
    "qwen3_moe": EXPERTS | HEAD,
    "qwen3_next": SHARED | DELTA,
    "qwen3_5_text": DELTA,
    "qwen3_5_moe_text": SHARED | DELTA,
    "deepseek_v2": ROUTED | MLA | GROUPS | dict(q_lora_rank=None),
    "deepseek_v3": ROUTED | MLA | GROUPS | dict(q_lora_rank=32),
    "deepseek_v4": V4,
    "gemma2": HEAD | WINDOW,
    "gemma3_text": HEAD | MIXED,
    "gemma4_text": HEAD | MIXED,
    "gpt_oss": LOCAL | HEAD | WINDOW,
    "cohere2": MIXED,
    "exaone4": MIXED,
    "internlm3": HEAD,
    "ernie4_5": HEAD,
    "glm4": HEAD,
    "glm4_moe": ROUTED | HEAD | GROUPS,
    "hunyuan_v1_dense": HEAD,
    "hunyuan_v1_moe": EXPERTS | HEAD | dict(moe_topk=2),
    "minimax": LOCAL | HEAD | dict(block_size=8, layer_types=[LINEAR, FULL] * 2),
    "minimax_m2": LOCAL | HEAD | dict(rotary_dim=8),
    "falcon_h1": HEAD | MAMBA | dict(mamba_d_ssm=64, mamba_d_head=16),
    "jamba": JAMBA,
    "lfm2": dict(block_multiple_of=16, layer_types=["conv", FULL] * 2),
    "bamba": MAMBA | dict(mamba_d_head=32, attn_layer_indices=[1, 3]),
    "granitemoehybrid": LOCAL
    | MAMBA
    | dict(
        mamba_d_head=32,
        layer_types=["mamba", "attention"] * 2,
        shared_intermediate_size=32,
    ),
    "nemotron_h": SSM
    | dict(
        mamba_num_heads=4,
        mamba_head_dim=32,
        ssm_state_size=16,
        hybrid_override_pattern="M*-M",
    ),
    "olmo_hybrid": DELTA | dict(num_key_value_heads=4),
    "mamba2": SSM | dict(num_heads=4, head_dim=32, state_size=16, expand=2),
    "recurrent_gemma": HEAD | dict(attention_window_size=6),
    "rwkv": {},
}


def small_model(name):
    "A model of the given architecture with random weights."
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SIZES | ARCHITECTURES[name])).eval()
    for key, table in model.named_buffers():  # the experts of DeepSeek-V4's first blocks, which a checkpoint contains
        if key.endswith("tid2eid"):
            table.random_(0, 4)
    return model


def constraint():
    "A short template over the tiny base's vocabulary."
    return ToneConstraint(TEMPLATE, TokenTable.from_tokenizer(load_base()[1]))


def reads(use):
    "How the new tokens of a step are read, in words."
    if not use.rows:
        return "the whole text at each step"
    together = "" if use.padding else ", prompts of one length"
    return ("several tokens per call" if use.several else "one token per call") + together


def row(model, found):
    "One row of the table: what `check_writing` found."
    passes = found.tones and found.off < RIGHT
    return {"class": type(model).__name__, "cache": found.layers, "reads": reads(found.use), "passes": passes}


def main():
    c, table = constraint(), {}
    for name in ARCHITECTURES:
        model = small_model(name)
        found = check_writing(model, c, torch.tensor(PROMPT))
        table[name] = row(model, found) | {"why": found.use.why, "off, bits": float(f"{found.off:.0e}")}
    made_with = {package: version(package) for package in ("transformers", "torch")}
    write("architectures", dict(architectures=table, template=TEMPLATE, **made_with))


if __name__ == "__main__":
    main()
