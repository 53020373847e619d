"""The tone guarantee in `generate`: whatever else changes the logits, a text is right and complete, or it raises."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cantolyric.base import load_base
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.decoding import write_tokens
from cantolyric.constraint.processor import ToneLogitsProcessor, generate_kwargs
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.errors import ArgumentError, CantolyricError


@pytest.fixture(scope="module")
def tiny():
    """The shipped base, a table with two end tokens, a constraint, and a way to call `generate` under it."""
    model, tokenizer = load_base()
    table = TokenTable.from_tokenizer(tokenizer, end=[tokenizer.eos_token_id, "<|im_end|>"])
    constraint = ToneConstraint("0243/33", table)
    start = torch.full((1, 1), tokenizer.eos_token_id)

    def write(ids=start, constraint=constraint, **how):
        processors = how.pop("logits_processor", None) or [constraint.logits_processor(ids.shape[1])]
        how = dict(max_new_tokens=40, eos_token_id=list(table.end), pad_token_id=table.end[0], do_sample=False) | how
        return model.generate(ids, attention_mask=torch.ones_like(ids), logits_processor=processors, **how)

    return model, tokenizer, table, constraint, write


def texts(tiny, out, width=1):
    """The texts after the prompts; what comes after the first end token must be end tokens."""
    _, tokenizer, table, _, _ = tiny
    found = []
    for row in out[:, width:].tolist():
        end = next(k for k, i in enumerate(row) if i in table.end)
        assert set(row[end:]) <= set(table.end)
        found.append(tokenizer.decode(row[:end]))
    return found


def newlines(table):
    return [i for i, b in table.tokens.items() if b"\n" in b]


HOWS = [
    dict(),
    dict(num_beams=4),
    dict(num_beams=4, num_return_sequences=4),
    dict(do_sample=True),
    dict(do_sample=True, num_return_sequences=3),
    dict(do_sample=True, num_beams=3),
]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("forbid", ["suppress_tokens", "bad_words_ids"])
def test_no_line_end_is_left(tiny, how, forbid):
    "Today's failure: one line instead of two, without an error."
    *_, table, _, write = tiny
    ids = newlines(table)
    with pytest.raises(CantolyricError, match=r"row \d, line 1, slot 5 .*suppress_tokens, bad_words_ids"):
        write(**{forbid: ids if forbid == "suppress_tokens" else [[i] for i in ids]}, **how)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("limit", [1, 40])
def test_no_first_token_is_left(tiny, how, limit):
    *_, constraint, write = tiny
    first = constraint.allowed_ids(constraint.start()).tolist()
    with pytest.raises(CantolyricError, match="line 1, slot 1 "):
        write(suppress_tokens=first, max_new_tokens=limit, **how)


def test_no_last_token_is_left(tiny):
    "One slot and its end, two tokens: the end is forbidden, and it would be the very last step."
    *_, table, _, write = tiny
    with pytest.raises(CantolyricError, match="row 0, line 1, slot 2 .*-inf"):
        write(constraint=ToneConstraint("2", table), suppress_tokens=list(table.end), max_new_tokens=2)


def test_a_single_row_of_several_without_a_token(tiny):
    *_, table, _, write = tiny
    cs = [ToneConstraint(t, table) for t in ("2", "2/2", "33")]
    with pytest.raises(CantolyricError, match="row 1, line 1, slot 2 "):
        write(
            torch.tensor([[1], [2], [3]]),
            logits_processor=[ToneLogitsProcessor(cs, 1)],
            suppress_tokens=newlines(table),
        )


@pytest.mark.parametrize(
    "how",
    [dict(min_new_tokens=30), dict(min_new_tokens=30, num_beams=4), dict(forced_eos_token_id=7999, max_new_tokens=4)],
)
def test_other_ways_to_leave_nothing(tiny, how):
    with pytest.raises(CantolyricError):
        tiny[-1](**how)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("eos", [[7997], [7999], [5], None])
def test_only_end_tokens_after_the_end(tiny, how, eos):
    "Whatever `generate` takes for the end; `None` means that it never stops by itself."
    *_, constraint, write = tiny
    torch.manual_seed(0)
    out = write(eos_token_id=eos, **how)
    assert all(constraint.template.matches(t) for t in texts(tiny, out))
    if eos in ([7997], [7999]):
        assert out.shape[1] < 41  # it met its own end token


def test_suppressed_end_tokens_after_the_end(tiny):
    "Rows that have ended wait for longer ones, even if another processor has forbidden every end token by then."
    *_, table, _, write = tiny
    cs = [ToneConstraint(t, table) for t in ("2", "2204/22")]
    late = lambda ids, scores: (
        scores.index_fill(1, torch.tensor(table.end), -torch.inf) if ids.shape[1] == 5 else scores
    )
    out = write(
        torch.tensor([[1], [2]]), logits_processor=[late, ToneLogitsProcessor(cs, 1)], do_sample=True, eos_token_id=[5]
    )
    assert all(c.template.matches(t) for c, t in zip(cs, texts(tiny, out)))


@pytest.mark.parametrize("rows, n", [(3, 2), (1, 2), (2, 0)])
def test_constraints_and_rows_do_not_match(tiny, rows, n):
    *_, constraint, write = tiny
    with pytest.raises(CantolyricError, match=f"{n} constraints for {rows} rows"):
        write(torch.ones(rows, 1, dtype=torch.long), logits_processor=[ToneLogitsProcessor([constraint] * n, 1)])


def test_two_prompts_never_share_one_of_several_constraints(tiny):
    "Four prompts and two constraints look like two prompts with two copies each; the prompts tell."
    *_, constraint, write = tiny
    with pytest.raises(CantolyricError, match="different prompts"):
        write(torch.tensor([[1], [2], [3], [4]]), logits_processor=[ToneLogitsProcessor([constraint] * 2, 1)])
    write(torch.tensor([[1], [2]]), logits_processor=[ToneLogitsProcessor([constraint] * 2, 1)], num_beams=2)


def test_prompt_length(tiny):
    *_, constraint, write = tiny
    with pytest.raises(CantolyricError, match="prompt_length=2"):
        write(logits_processor=[constraint.logits_processor(2)])
    with pytest.raises(CantolyricError, match="not allowed at line 1, slot 1"):
        write(torch.tensor([[1, 2]]), logits_processor=[constraint.logits_processor(1)])


@pytest.mark.parametrize("how", HOWS)
def test_too_few_tokens(tiny, how):
    *_, constraint, write = tiny
    for limit in (1, 4):
        with pytest.raises(
            CantolyricError, match=f"max_new_tokens={limit} is not enough: row [0-9], line 1, .*; 32 are always enough"
        ):
            write(max_new_tokens=limit, **how)
    with pytest.raises(CantolyricError, match="max_new_tokens=4 is not enough"):
        write(max_new_tokens=None, max_length=5, **how)
    assert all(map(constraint.template.matches, texts(tiny, write(max_new_tokens=32, **how))))


def test_the_limit_that_is_just_enough(tiny):
    *_, constraint, write = tiny
    needed = write().shape[1] - 1
    assert texts(tiny, write(max_new_tokens=needed))
    with pytest.raises(CantolyricError, match="is not enough"):
        write(max_new_tokens=needed - 1)


def test_a_processor_serves_again(tiny):
    "A second batch starts anew, with its own limit."
    *_, constraint, write = tiny
    processor = constraint.logits_processor(1)
    with pytest.raises(CantolyricError):
        write(logits_processor=[processor], max_new_tokens=3)
    assert texts(tiny, write(logits_processor=[processor])) == texts(tiny, write())


def test_a_decoding_loop_of_ones_own(tiny):
    "It passes its limit, or has the result checked."
    from cantolyric.generation import generate

    model, tokenizer, table, constraint, _ = tiny
    start = torch.full((1, 1), tokenizer.eos_token_id)

    def loop(n, processor):
        return generate(model, start, max_new_tokens=n, eos=list(table.end), processors=[processor])

    with pytest.raises(CantolyricError, match="max_new_tokens=4 is not enough"):
        loop(4, constraint.logits_processor(1, max_new_tokens=4))
    processor = constraint.logits_processor(1)
    with pytest.raises(CantolyricError, match="the text is not complete: row 0, line 1, slot 5 "):
        processor.check_complete(loop(4, processor))
    processor.check_complete(loop(40, processor))


def test_check_complete_of_texts_cut_by_a_stop_string(tiny):
    _, tokenizer, _, constraint, write = tiny
    processor = constraint.logits_processor(1)
    out = write(logits_processor=[processor], stop_strings=["\n"], tokenizer=tokenizer)
    with pytest.raises(CantolyricError, match="row 0, line 2, slot 1 .*end token"):
        processor.check_complete(out)


@pytest.mark.parametrize("how", [dict(), dict(num_beams=3), dict(do_sample=True)])
def test_nan_logits(tiny, how):
    *_, constraint, write = tiny
    bad = lambda ids, scores: torch.full_like(scores, torch.nan)
    with pytest.raises(CantolyricError, match="row 0, .*NaN"):
        write(logits_processor=[bad, constraint.logits_processor(1)], **how)


def test_our_own_loop_refuses_too(tiny):
    model, _, table, constraint, _ = tiny
    with pytest.raises(ArgumentError, match="2 constraints for 3 prompts"):
        write_tokens(model, torch.tensor([[1], [2], [3]]), [constraint] * 2)

    class Broken(torch.nn.Module):
        "A model whose head has been damaged."

        def __init__(self):
            super().__init__()
            self.inner, self.config, self.generation_config = model, model.config, model.generation_config

        def get_output_embeddings(self):
            return self.inner.get_output_embeddings()

        def forward(self, **inputs):
            out = self.inner(**inputs)
            out.logits = out.logits * np.nan
            return out

    with pytest.raises(CantolyricError, match="text 0, after 0 tokens: the model's logits are NaN"):
        write_tokens(Broken(), torch.tensor([[1]]), constraint)


# generate_kwargs


def test_it_is_a_logits_processor(tiny):
    import transformers

    assert isinstance(tiny[3].logits_processor(1), transformers.LogitsProcessor)


@pytest.mark.parametrize("how", HOWS)
def test_generate_kwargs_is_all_that_generate_needs(tiny, how):
    """Two prompts of different lengths, one constraint or one each: every text is right."""
    model, tokenizer, table, constraint, _ = tiny
    inputs = {"input_ids": torch.tensor([[0, 5], [6, 7]]), "attention_mask": torch.tensor([[0, 1], [1, 1]])}
    several = [constraint, ToneConstraint("2204/22", table)]
    torch.manual_seed(0)
    n = how.get("num_return_sequences", 1)
    for kwargs, each in (
        (constraint.generate_kwargs(inputs, **how), [constraint] * 2),
        (constraint.generate_kwargs(inputs, several, **how), several),
        (generate_kwargs(several, inputs, **how), several),
    ):
        assert kwargs["max_new_tokens"] in (32,) and kwargs["eos_token_id"] == list(table.end)
        out = model.generate(**inputs, **kwargs)
        kwargs["logits_processor"][-1].check_complete(out)
        for k, text in enumerate(texts(tiny, out, 2)):
            assert each[k // n].template.matches(text)


def test_generate_kwargs_passes_on_what_is_given(tiny):
    model, _, table, constraint, _ = tiny
    inputs = {"input_ids": torch.full((1, 1), 5)}
    seen = []
    other = lambda ids, scores: (seen.append(ids.shape[1]), scores)[1]
    kwargs = constraint.generate_kwargs(inputs, logits_processor=[other], max_new_tokens=30, pad_token_id=0)
    assert kwargs["max_new_tokens"] == 30 and kwargs["pad_token_id"] == 0 and len(kwargs["logits_processor"]) == 2
    model.generate(**inputs, **kwargs)
    assert seen[0] == 1
    with pytest.raises(CantolyricError, match="max_new_tokens=3 is not enough"):
        model.generate(**inputs, **constraint.generate_kwargs(inputs, max_new_tokens=3))
    with pytest.raises(CantolyricError, match="max_new_tokens=4 is not enough"):
        model.generate(**inputs, **constraint.generate_kwargs(inputs, max_length=5))
    ids = torch.full((1, 1), 5)
    assert constraint.generate_kwargs(ids)["logits_processor"][0].prompt_length == 1  # a tensor alone will do


def test_generate_kwargs_with_embeddings(tiny):
    model, _, _, constraint, _ = tiny
    embeds = model.get_input_embeddings()(torch.tensor([[5, 6]])).detach()
    inputs = {"inputs_embeds": embeds, "attention_mask": torch.ones(1, 2, dtype=torch.long)}
    out = model.generate(**inputs, **constraint.generate_kwargs(inputs))
    assert constraint.template.matches(texts(tiny, out, 0)[0])


@pytest.mark.parametrize(
    "name, change",
    [
        ("assistant_model", dict(assistant_model=torch.nn.Linear(1, 1))),
        ("prompt_lookup_num_tokens", dict(prompt_lookup_num_tokens=3)),
        ("attention_mask", dict(attention_mask=torch.tensor([[1, 0]]))),
        ("inputs", dict(input_ids=[[1, 2]])),
        ("inputs", dict(input_ids=None)),
    ],
)
def test_generate_kwargs_refuses(tiny, name, change):
    inputs = {"input_ids": torch.tensor([[5, 6]])}
    inputs |= {k: v for k, v in change.items() if k in ("input_ids", "attention_mask")}
    options = {k: v for k, v in change.items() if k not in inputs}
    with pytest.raises(ArgumentError) as said:
        tiny[3].generate_kwargs(inputs, **options)
    assert said.value.name == name
    if "assist" in name or "lookup" in name:
        assert "several tokens before their masks are known" in str(said.value)


def test_generate_kwargs_refuses_constraints_that_do_not_fit(tiny):
    inputs = {"input_ids": torch.ones(3, 2, dtype=torch.long)}
    for wrong in ([tiny[3]] * 2, [], "0243"):
        with pytest.raises(ArgumentError) as said:
            generate_kwargs(wrong, inputs)
        assert said.value.name == "constraints"


# the rows of a batch


def allowed(out):
    return [set((row > -torch.inf).nonzero().flatten().tolist()) for row in out]


def test_rows_that_change_places_keep_their_states(tiny):
    """Rows are permuted, doubled and dropped between steps, as beams are: each mask belongs to the row's own text."""
    *_, table, constraint, _ = tiny
    cs = [constraint, ToneConstraint("4[34]0*", table)]
    rng, processor = np.random.default_rng(0), ToneLogitsProcessor(cs, 1)
    ids = torch.tensor([[1]] * 3 + [[2]] * 3)
    for _ in range(5):
        out = processor(ids, torch.zeros(6, table.vocab_size))
        for b, (row, found) in enumerate(zip(ids[:, 1:].tolist(), allowed(out))):
            s = cs[b // 3].start()
            for i in row:
                s = cs[b // 3].advance(s, i) if not s.ended else s
            assert s.ended or found == set(cs[b // 3].allowed_ids(s).tolist())
        last = torch.tensor([[int(rng.choice(sorted(found)))] for found in allowed(out)])
        ids = torch.cat([ids, last], 1)
        order = np.concatenate([rng.integers(0, 3, 3), rng.integers(3, 6, 3)])
        ids = ids[torch.from_numpy(order)]


def test_a_loop_that_adds_several_tokens_at_a_time(tiny):
    *_, constraint, write = tiny
    whole = write()
    processor = constraint.logits_processor(1)
    for width in (2, 4, 5, 3):
        out = processor(whole[:, :width], torch.zeros(1, constraint.table.vocab_size))
        assert int(whole[0, width]) in allowed(out)[0]


def test_masks_from_packed_bits_are_the_same(tiny):
    """What runs on an accelerator, beside what runs on the CPU; half precision and rows with gaps in memory too."""
    from cantolyric.constraint.processor import keep_logits, mask_logits

    *_, table, constraint, _ = tiny
    states = [constraint.start()]
    while not constraint.is_final(states[-1]):
        states.append(constraint.advance(states[-1], int(constraint.allowed_ids(states[-1])[0])))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits = torch.randn(table.vocab_size, len(states)).to(dtype).T
        a = mask_logits(logits, np.stack([constraint.mask(s) for s in states]))
        b, usable = keep_logits(logits, [constraint.allowed_ids(s) for s in states])
        assert torch.equal(a, b) and usable and a.dtype == dtype


def test_memory_of_ten_thousand_tokens():
    """A text of 10,000 tokens at Qwen2's width, where each mask takes 19 kB: caches stay small."""
    import tracemalloc

    from cantolyric.reading import Reader

    reader = Reader({"一": ("jat1",), "丁": ("ding1",), "七": ("cat1",)})
    table = TokenTable({i: bytes([i]) for i in range(256)}, 151_936, (256,))
    constraint = ToneConstraint("/".join(["3333333"] * 460), table, reader)
    processor, ids = constraint.logits_processor(1, max_new_tokens=constraint.max_new_tokens), torch.ones(1, 1).long()
    scores = torch.zeros(1, table.vocab_size)
    tracemalloc.start()
    while int(ids[0, -1]) not in table.end:
        out = processor(ids, scores)
        ids = torch.cat([ids, out.argmax(-1)[:, None]], 1)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ids.shape[1] > 10_000 and used < 60e6
