"""Checkers for lesson 33. Each returns "Right." or explains what is wrong; none raises."""

import tempfile
from collections.abc import Callable

from cantolyric._exercises import RIGHT, number_of, run


def _config(kind, **more):
    "Return a small config."
    from transformers import AutoConfig

    return AutoConfig.for_model(
        kind,
        **dict(
            vocab_size=90,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        | more,
    )


def check_tokens_that_fit(fn: Callable) -> str:
    "`fn(config, room, each)` -> the number of tokens whose cache fits."
    gqa, mla = (
        _config("llama"),
        _config(
            "deepseek_v3",
            kv_lora_rank=24,
            qk_rope_head_dim=8,
            q_lora_rank=16,
            qk_nope_head_dim=8,
            v_head_dim=8,
            n_routed_experts=4,
            n_group=1,
            topk_group=1,
            num_key_value_heads=4,
        ),
    )
    for config, room, each, want, about in (
        (gqa, 12_800, 2, 100, "two blocks of two key heads of 8, 2 bytes per number"),
        (gqa, 12_799, 2, 99, "the same, one byte short of a hundred tokens"),
        (gqa, 12_800, 1, 200, "the same with 1 byte per number"),
        (mla, 12_800, 2, 100, "latent attention: 24 + 8 numbers per block"),
        (mla, 100, 2, 0, "no room for one token"),
    ):
        if why := number_of(fn, (config, room, each), want, about):
            return why
    return RIGHT


def _models():
    "(what, model, expected names)"
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    made = lambda c: AutoModelForCausalLM.from_config(c)
    attention, mlp = ("k_proj", "o_proj", "q_proj", "v_proj"), ("down_proj", "gate_proj", "up_proj")
    dense = sorted(
        [f"model.layers.{k}.self_attn.{x}" for k in (0, 1) for x in attention]
        + [f"model.layers.{k}.mlp.{x}" for k in (0, 1) for x in mlp]
    )
    yield "a Llama", made(_config("llama")), dense
    other = made(_config("llama"))
    other.output = other.lm_head
    del other.lm_head
    other.get_output_embeddings = lambda: other.output
    yield "a model whose head is called output, as InternLM2's is", other, dense
    old = made(_config("llama"))  # experts and router as linear layers, as in transformers 4
    old.model.layers[1].mlp = torch.nn.ModuleDict(
        dict(
            router=torch.nn.ModuleDict(dict(gate=torch.nn.ModuleDict(dict(proj=torch.nn.Linear(4, 4))))),
            experts=torch.nn.ModuleList([torch.nn.Linear(4, 4)]),
            shared=torch.nn.Linear(4, 4),
        )
    )
    yield (
        "experts and router as linear layers",
        old,
        sorted([n for n in dense if not n.startswith("model.layers.1.mlp")] + ["model.layers.1.mlp.shared"]),
    )


def check_linear_names(fn: Callable) -> str:
    "`fn(model)` -> the sorted full names of the linear layers, without head, router and experts."
    for what, model, want in _models():
        got, error = run(fn, model)
        if error:
            return error
        if not isinstance(got, list):
            return f"Not yet: expected a list of names, got {got!r}"
        if extra := sorted(set(got) - set(want)):
            return f"Not yet: {what}: {extra[0]!r} does not belong in the list"
        if missing := sorted(set(want) - set(got)):
            return f"Not yet: {what}: {missing[0]!r} is missing"
        if got != want:
            return f"Not yet: {what}: the names are right, but they are not sorted, or some occur twice"
    return RIGHT


def check_smollm2(fn: Callable) -> str:
    "`fn()` -> the `Family` of SmolLM2-1.7B."
    from cantolyric.families.table import Family, count_parameters, family_config
    from cantolyric.formats import FORMATS

    f, error = run(fn)
    if error:
        return error
    if not isinstance(f, Family):
        return f"Not yet: expected a Family, got {f!r}"
    for k, want in dict(
        model_type="llama",
        attention="MHA",
        format="chatml",
        tokenizer="byte-level",
        tokenizer_class="GPT2Tokenizer",
        eos="<|im_end|>",
        context=8192,
        licence="Apache-2.0",
    ).items():
        if getattr(f, k) != want:
            return f"Not yet: {k}: expected {want!r}, got {getattr(f, k)!r}"
    counted, error = run(lambda: count_parameters(family_config(f))[0])
    if error:
        return error
    if counted != 1_711_376_384:
        return f"Not yet: its shape: expected 1,711,376,384 parameters, got {counted:,}"
    return run(_path, f, FORMATS[f.format])[1] or RIGHT


def _path(f, form):
    "Build a tiny variant, save, load and encode; raise an exception if something is wrong."
    from cantolyric.families.tiny import tiny_variant
    from cantolyric.models import load_model

    with tempfile.TemporaryDirectory() as d:
        _, tokenizer = tiny_variant(f, d)
        model, again = load_model(d)
        example = {"topic": "夜雨", "tones": "2444/0442", "lyrics": "夜雨過去\n唔會再會"}
        if form.encode(example, tokenizer) != form.encode(example, again):
            raise ValueError("the tokenizer gives different ids after loading")
        return type(model).__name__
