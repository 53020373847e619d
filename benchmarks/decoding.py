"""Constrained and unconstrained decoding: seconds per step of `write_tokens` and of transformers' `generate`.

python benchmarks/decoding.py    writes benchmarks/results/decoding.json; wall clock, two threads, fp32. Needs Qwen2's
                                 vocabulary (CANTOLYRIC_DATA)
The models have the shapes of Qwen2.5 and random weights: the time of a step does not depend on what the weights say.
"""

import time

import numpy as np
import torch
from _common import made, write
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding

from cantolyric._published import published
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.decoding import sampled, write_tokens
from cantolyric.constraint.vocabulary import TokenTable

SIZES = {
    "0.5B": dict(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "1.5B": dict(
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "7B": dict(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    ),
}
VOCABULARY, END, PROMPT, ROUNDS = 151_936, 151_643, 48, 5
HOW = dict(do_sample=True, temperature=0.8, top_p=0.95)


def clock(f):
    start = time.perf_counter()
    return f(), time.perf_counter() - start


def beside(model, table, rng, prompts, copies, lines, slots):
    "Seconds a step of both, which take turns; the free one takes as many steps as ours called the model."
    per, skipped = dict(ours=[], free=[]), 0
    for seed in range(ROUNDS):
        cs = [
            ToneConstraint("/".join("".join(rng.choice(list("0243"), slots)) for _ in range(lines)), table)
            for _ in range(prompts)
        ]
        ids = torch.from_numpy(rng.integers(0, 100_000, (prompts, PROMPT)))
        torch.manual_seed(seed)
        out, seconds = clock(lambda: write_tokens(model, ids, cs, num_return_sequences=copies, strategy=sampled(**HOW)))
        assert all(
            c.template.matches(b"".join(table.tokens[i] for i in t).decode())
            for c, t in zip(np.repeat(cs, copies), out.ids)
        )
        per["ours"].append(seconds / out.calls)
        skipped += out.skipped
        _, seconds = clock(
            lambda: model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=out.calls,
                min_new_tokens=out.calls,
                pad_token_id=END,
                num_return_sequences=copies,
                top_k=0,
                **HOW,
            )
        )
        per["free"].append(seconds / out.calls)
    ours, free = (float(np.median(x)) for x in per.values())
    return {
        "constrained, ms per step": round(1000 * ours, 1),
        "unconstrained, ms per step": round(1000 * free, 1),
        "speed-up": round(free / ours, 2),
        "tokens that needed no step": skipped,
    }


def share(sizes, batch=1):
    "Milliseconds of one layer and of the head for one new token, and the head's share of a step."
    config = Qwen2Config(vocab_size=VOCABULARY, **sizes)
    layer, rotary = Qwen2DecoderLayer(config, 0).eval(), Qwen2RotaryEmbedding(config)
    head, x = torch.nn.Linear(config.hidden_size, VOCABULARY, bias=False), torch.randn(batch, 1, config.hidden_size)
    at = rotary(x, torch.zeros(1, 1, dtype=torch.long))

    def ms(f):
        return 1000 * min(clock(f)[1] for _ in range(9))

    with torch.no_grad():
        a, b = ms(lambda: layer(x, position_embeddings=at)), ms(lambda: head(x))
    return {
        "layer, ms": round(a, 2),
        "layers": config.num_hidden_layers,
        "head, ms": round(b, 2),
        "share": round(b / (config.num_hidden_layers * a + b), 3),
    }


def main():
    torch.set_num_threads(2)
    rng = np.random.default_rng(0)
    try:
        table = TokenTable.from_tokenizer(published("Qwen2"), VOCABULARY, end=END)
    except FileNotFoundError as e:
        return print(f"left out: {e}")
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=VOCABULARY, eos_token_id=None, bos_token_id=None, pad_token_id=None, **SIZES["0.5B"])
    ).eval()
    beside(model, table, rng, 1, 1, 1, 4)  # the first of everything
    result = {
        "batch 1, 4 lines of 9": beside(model, table, rng, 1, 1, 4, 9),
        "batch 8, 2 lines of 7": beside(model, table, rng, 8, 1, 2, 7),
        "32 texts for one prompt, 2 lines of 7": beside(model, table, rng, 1, 32, 2, 7),
    }
    del model
    result["the head's share of a step"] = {name: share(sizes) for name, sizes in SIZES.items()}
    write("decoding", result | made("torch", "transformers"))


if __name__ == "__main__":
    main()
