"""Our loop writes transformers' tokens: architectures, samplers, padding, cache, end tokens; `trace` counts calls."""

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    InternLM3Config,
    LlamaConfig,
    MinPLogitsWarper,
    Qwen2Config,
    Qwen3Config,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cantolyric import generation as g
from cantolyric.errors import ArgumentError, CantolyricError
from cantolyric.generation import Sampling, generate, trace

SIZES = dict(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    eos_token_id=3,
    pad_token_id=0,
    bos_token_id=1,
)
KINDS = {
    "Qwen2": Qwen2Config,
    "Qwen3": Qwen3Config,
    "Llama (DeepSeek-LLM, Yi)": LlamaConfig,
    "InternLM3": InternLM3Config,
}
HOW = {
    "greedy": {},
    "penalty": dict(repetition_penalty=1.4),
    "drawn": dict(do_sample=True),
    "temperature": dict(do_sample=True, temperature=0.6),
    "top_k": dict(do_sample=True, top_k=7),
    "top_p": dict(do_sample=True, top_p=0.7),
    "min_p": dict(do_sample=True, min_p=0.2),
    "all": dict(do_sample=True, temperature=0.8, top_k=30, top_p=0.9, min_p=0.02, repetition_penalty=1.2),
}


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    torch.manual_seed(5)
    sizes = (
        SIZES
        | (dict(head_dim=8) if request.param in ("Qwen3", "InternLM3") else {})
        | (dict(attention_bias=True, mlp_bias=True) if request.param == "InternLM3" else {})
    )
    model = AutoModelForCausalLM.from_config(KINDS[request.param](**sizes)).eval()
    for p in model.parameters():
        p.data *= 6  # random weights of the usual size give nearly equal scores
    return model


@pytest.fixture(scope="module")
def batch():
    "Three prompts of different length, padded on the left."
    torch.manual_seed(1)
    mask = torch.tensor([[1] * 9, [0] * 4 + [1] * 5, [0] * 8 + [1]])
    return dict(input_ids=torch.randint(4, 97, (3, 9)) * mask, attention_mask=mask)


def both(model, batch, new=20, cache=True, seed=0, **how):
    "What we write, and what transformers writes."
    torch.manual_seed(seed)
    ours = generate(model, **batch, max_new_tokens=new, use_cache=cache, **how)
    torch.manual_seed(seed)
    theirs = model.generate(**batch, max_new_tokens=new, use_cache=cache, **dict(do_sample=False, top_k=0) | how)
    return ours, theirs


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_the_same_tokens(model, batch, how, cache):
    for seed in range(3):
        ours, theirs = both(model, batch, cache=cache, seed=seed, **HOW[how])
        assert torch.equal(ours, theirs)
        if not HOW[how].get("do_sample"):
            break


def test_the_same_scores(model, batch):
    "The scores of every step, to 1e-5 of their size."
    kept = []
    ours = generate(
        model, **batch, max_new_tokens=12, processors=[lambda ids, scores: kept.append(scores) or scores], eos=()
    )
    theirs = model.generate(
        **batch, max_new_tokens=12, do_sample=False, eos_token_id=-1, output_logits=True, return_dict_in_generate=True
    )
    assert torch.equal(ours, theirs.sequences) and len(kept) == len(theirs.logits) == 12
    for a, b in zip(kept, theirs.logits):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_rows_end_by_themselves(model, batch):
    "Ends come at different times, filled with padding; all ended, the loop stops; several end tokens."
    ours, theirs = both(model, batch, new=60, do_sample=True, temperature=3.0)
    assert torch.equal(ours, theirs)
    for end in (3, [3, 17, 40]):
        torch.manual_seed(0)
        own = generate(model, **batch, max_new_tokens=60, do_sample=True, temperature=3.0, eos=end)
        torch.manual_seed(0)
        assert torch.equal(
            own, model.generate(**batch, max_new_tokens=60, do_sample=True, temperature=3.0, top_k=0, eos_token_id=end)
        )
    free = generate(model, **batch, max_new_tokens=3)
    stop = int(free[0, 9])
    rows = generate(model, **batch, max_new_tokens=8, eos=stop, pad=0)
    assert (rows[0, 10:] == 0).all() and rows.shape[1] <= 17


def test_processors_and_callbacks(model, batch):
    only = lambda ids, scores: torch.full_like(scores, -torch.inf).index_fill(
        1, torch.tensor([50 + ids.shape[1] % 5]), 0.0
    )
    seen = []
    rows = generate(model, **batch, max_new_tokens=6, processors=[only], on_token=lambda t: seen.append(t.tolist()))
    assert rows[:, 9:].tolist() == [[50 + n % 5 for n in range(9, 15)]] * 3 == [list(x) for x in zip(*seen)]
    assert torch.equal(rows, model.generate(**batch, max_new_tokens=6, do_sample=False, logits_processor=[only]))


def test_tiny_base():
    from cantolyric.base import load_base

    model, tokenizer = load_base()
    tokenizer.padding_side = "left"
    batch = dict(tokenizer(["今晚落雨", "聽日", "我"], return_tensors="pt", padding=True))
    batch.pop("token_type_ids", None)
    for how in HOW.values():
        assert torch.equal(*both(model.eval(), batch, new=16, **how))


SCORES = st.lists(st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5), min_size=1, max_size=4).map(
    torch.tensor
)


@settings(max_examples=150, deadline=None)
@given(
    SCORES, st.floats(0.05, 5), st.integers(1, 9), st.floats(0.01, 1), st.floats(0, 1), st.floats(0.3, 3), st.randoms()
)
def test_samplers_equal_the_library(scores, t, k, p, q, penalty, rng):
    ids = torch.tensor([[rng.randrange(5) for _ in range(3)] for _ in scores])
    for own, their in [
        (g.temperature(scores, t), TemperatureLogitsWarper(t)),
        (g.top_k(scores, k), TopKLogitsWarper(k)),
        (g.top_p(scores, p), TopPLogitsWarper(p)),
        (g.min_p(scores, q), MinPLogitsWarper(q)),
        (g.repetition_penalty(scores, ids, penalty), RepetitionPenaltyLogitsProcessor(penalty)),
    ]:
        assert torch.equal(own, their(ids, scores.clone()))
        assert own.isfinite().any(-1).all()  # something is always left


@pytest.mark.parametrize("cache", [True, False])
def test_trace_counts(model, batch, cache):
    with trace(model) as steps:
        generate(model, **batch, max_new_tokens=5, eos=(), use_cache=cache)
    assert [(s.batch, s.tokens, s.logits, s.cache) for s in steps] == [
        (3, 9 if k == 0 else 1, 1, 9 + k) if cache else (3, 9 + k, 1, 0) for k in range(5)
    ]
    with trace(model) as theirs:
        model.generate(**batch, max_new_tokens=5, do_sample=False, eos_token_id=-1, use_cache=cache)
    assert [(s.tokens, s.logits) for s in theirs] == [(s.tokens, s.logits) for s in steps]
    with trace(model) as training:
        model(**batch)
    assert [(s.tokens, s.logits) for s in training] == [(9, 9)] and training[0].milliseconds > 0


def test_trace_comes_off(model, batch):
    hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    before = hooks()
    with pytest.raises(ZeroDivisionError):
        with trace(model):
            raise ZeroDivisionError
    assert hooks() == before


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(input_ids=torch.zeros(1, 0, dtype=torch.long)), "prompt is empty"),
        (dict(input_ids=[1, 2]), "input_ids=.*tensor of whole numbers"),
        (dict(input_ids=torch.tensor([1, 2])), "a row for each text"),
        (dict(input_ids=torch.tensor([[97]])), "id 97 is outside the model's vocabulary of 97"),
        (dict(input_ids=torch.tensor([[-1]])), "id -1 is outside"),
        (dict(input_ids=torch.tensor([[5, 0]]), attention_mask=torch.tensor([[1, 0]])), "row 0 .* padded on the right"),
        (
            dict(input_ids=torch.tensor([[5, 6]]), attention_mask=torch.tensor([[1]])),
            r"attention_mask has the shape \(1, 1\)",
        ),
        (dict(input_ids=torch.tensor([[5]]), max_new_tokens=128), "do not fit into the model's 128 positions"),
        (dict(input_ids=torch.tensor([[5]]), max_new_tokens=0), "max_new_tokens=0"),
    ],
)
def test_bad_prompts(model, change, message):
    with pytest.raises(CantolyricError, match=message):
        generate(model, **change)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(temperature=0.0),
        dict(temperature=-1.0),
        dict(top_k=-1),
        dict(top_k=1.5),
        dict(top_p=0.0),
        dict(top_p=1.1),
        dict(min_p=-0.1),
        dict(repetition_penalty=0.0),
    ],
)
def test_bad_settings(wrong):
    with pytest.raises(ArgumentError) as e:
        Sampling(do_sample=True, **wrong)
    assert {e.value.name: e.value.value} == wrong
