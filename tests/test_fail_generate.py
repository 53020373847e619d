"""The tone guarantee in `generate`: whatever else acts on the logits, a text is right and complete, or there is an error."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cantolyric.base import load_base  # noqa: E402
from cantolyric.constraint import TokenTable, ToneConstraint, ToneLogitsProcessor, write_tokens  # noqa: E402
from cantolyric.tones import CantolyricError  # noqa: E402


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
    with pytest.raises(CantolyricError, match="not allowed in line 1, slot 1"):
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
    with pytest.raises(CantolyricError, match="2 constraints for 3 prompts"):
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
