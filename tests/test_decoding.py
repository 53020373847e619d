"""Decoding with some rows of the head: the same tokens as `generate` under the same mask, for every kind of head."""

import math

import pytest

torch = pytest.importorskip("torch")
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from cantolyric.base import load_base
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.bits import unpack_mask
from cantolyric.constraint.decoding import (
    beams,
    bits_without_cache,
    decode_ids,
    sampled,
    smc,
    unmasked_beams,
    write_tokens,
)
from cantolyric.constraint.processor import ToneLogitsProcessor
from cantolyric.constraint.sampling import TextRows
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.errors import ArgumentError, CantolyricError
from cantolyric.model_head import head_rows, sliced_head

TEMPLATES = ["0243/33", "22034", "4[34]0*"]
SIZES = dict(
    vocab_size=8000,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)


@pytest.fixture(scope="module")
def tiny():
    model, tokenizer = load_base()
    return model, tokenizer, TokenTable.from_tokenizer(tokenizer)


def made(kind):
    "A model with random weights and the head that the name says."
    torch.manual_seed(0)
    if kind == "tied":
        return Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True)).eval()
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False)).eval()
    if kind == "bias":
        model.lm_head = torch.nn.Linear(32, 8000)
        model.lm_head.bias.data.normal_()
    if kind == "int8":
        import bitsandbytes as bnb

        head = bnb.nn.Linear8bitLt(32, 8000, bias=False, has_fp16_weights=False)
        head.load_state_dict(model.lm_head.state_dict())
        model.lm_head = head.to("cpu")
    if kind.startswith("lora"):
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(
                r=4, target_modules=["q_proj", "lm_head"], use_dora=kind == "lora+dora", init_lora_weights=False
            ),
        ).eval()
        if kind == "lora merged":
            model.merge_adapter()
    return model


HEADS = ["tied", "llama", "untied", "bias", "int8", "lora", "lora+dora", "lora merged"]


@pytest.mark.parametrize("kind", HEADS)
def test_rows_equal_the_whole_head(kind):
    model = made(kind)
    head, x, rows = model.get_output_embeddings(), torch.randn(3, 1, 32), torch.tensor([5, 7999, 17])
    with torch.no_grad(), sliced_head(model) as asked:
        whole = head(x)
        asked.rows = rows
        torch.testing.assert_close(head(x), whole[..., rows], rtol=0, atol=1e-5)
        assert (head_rows(head, x, rows) is None) == (kind in ("int8", "lora+dora"))
    assert "forward" not in head.__dict__ and torch.equal(head(x), whole)


@pytest.mark.parametrize("kind", HEADS)
def test_same_tokens_as_generate(kind, tiny):
    model, table = made(kind), tiny[2]
    prompts, there = torch.tensor([[1, 2, 3], [0, 0, 9], [0, 4, 5]]), torch.tensor([[1, 1, 1], [0, 0, 1], [0, 1, 1]])
    cs = [ToneConstraint(t, table) for t in TEMPLATES]
    from cantolyric.constraint.processor import ToneLogitsProcessor

    out = model.generate(
        input_ids=prompts,
        attention_mask=there,
        max_new_tokens=60,
        do_sample=False,
        logits_processor=[ToneLogitsProcessor(cs, 3)],
        eos_token_id=list(table.end),
        pad_token_id=table.end[0],
    )
    want = [row[: row.index(table.end[0])] for row in out[:, 3:].tolist()]
    for allowed_rows_only in (True, False):
        assert write_tokens(model, prompts, cs, there, allowed_rows_only=allowed_rows_only).ids == want


def bits_of(model, prompt, ids, c):
    "What an answer and its end cost, by one forward over all of it."
    row = torch.tensor([*ids, c.table.end[0]])
    with torch.no_grad():
        logits = model(input_ids=torch.cat([torch.tensor(prompt), row])[None]).logits[0, len(prompt) - 1 : -1].double()
    logits = logits.masked_fill(
        ~torch.from_numpy(unpack_mask(c.masks_along(row.tolist()), c.table.vocab_size)), -math.inf
    )
    return -float(logits.log_softmax(-1).gather(1, row[:, None]).sum()) / math.log(2)


@pytest.mark.parametrize(
    "strategy", [lambda: sampled(do_sample=True, temperature=0.7, top_p=0.9, min_p=0.01), lambda: beams, smc]
)
def test_copies_share_a_prompt(strategy, tiny):
    model, _, table = tiny
    prompts, cs = torch.tensor([[1, 2], [3, 4]]), [ToneConstraint(t, table) for t in TEMPLATES[:2]]
    torch.manual_seed(0)
    out = write_tokens(model, prompts, cs, num_return_sequences=4, strategy=strategy())
    assert len(out.ids) == 8
    for r, (ids, bits) in enumerate(zip(out.ids, out.bits)):
        assert cs[r // 4].template.matches(decode_ids(table, ids))
        assert bits == pytest.approx(bits_of(model, prompts[r // 4].tolist(), ids, cs[r // 4]), abs=1e-3)


def test_sampling_draws_what_the_mask_leaves(tiny):
    "One slot, a thousand draws: the shares are the masked model's."
    model, _, table = tiny
    c = ToneConstraint("2", table)
    torch.manual_seed(0)
    out = write_tokens(model, torch.tensor([[1]]), c, num_return_sequences=1000, strategy=sampled(do_sample=True))
    texts = [decode_ids(table, i) for i in out.ids]
    top = max(set(texts), key=texts.count)
    assert texts.count(top) / 1000 == pytest.approx(2 ** -out.bits[texts.index(top)], abs=0.06)


def test_beams_are_exact_where_nothing_is_cut(tiny):
    "With as many beams as there are texts, beam search finds the likeliest one."
    model, _, table = tiny
    c = ToneConstraint("2", table)
    best = write_tokens(model, torch.tensor([[1]]), c, num_return_sequences=64, strategy=beams)
    greedy = write_tokens(model, torch.tensor([[1]]), c)
    assert min(best.bits) <= greedy.bits[0] + 1e-6 and best.bits == sorted(best.bits)
    assert len({tuple(i) for i in best.ids}) == 64


def test_beams_compare_prefixes_by_bits_per_character(tiny):
    "Beams find likelier texts than the same number of samples, though some tokens hold several characters."
    model, _, table = tiny
    for tones in ("0243324/3324043", "3324/0243/3324"):
        c, prompt = ToneConstraint(tones, table), torch.tensor([[1]])
        found = write_tokens(model, prompt, c, num_return_sequences=8, strategy=beams)
        torch.manual_seed(0)
        drawn = write_tokens(model, prompt, c, num_return_sequences=32, strategy=sampled(do_sample=True))
        greedy = write_tokens(model, prompt, c)
        assert min(found.bits) < min(*drawn.bits, *greedy.bits)


def test_unmasked_beams_find_the_likeliest_text_without_the_mask(tiny):
    "With as many beams as there are texts, they come in the order of their bits in a forward pass without a mask."
    model, _, table = tiny
    c, prompt = ToneConstraint("2", table), torch.tensor([[1]])
    found = write_tokens(model, prompt, c, num_return_sequences=64, strategy=unmasked_beams).ids
    masked = write_tokens(model, prompt, c, num_return_sequences=64, strategy=beams).ids
    bits = [bits_without_cache(model, prompt[0], ids, end=table.end[0]) for ids in found]
    assert bits == pytest.approx(sorted(bits), abs=1e-3) and found != masked
    assert bits[0] <= min(bits_without_cache(model, prompt[0], ids, end=table.end[0]) for ids in masked) + 1e-3
    longer = ToneConstraint("0243/3324", table)
    few = write_tokens(model, prompt, longer, num_return_sequences=8, strategy=unmasked_beams).ids
    torch.manual_seed(0)
    drawn = write_tokens(model, prompt, longer, num_return_sequences=32, strategy=sampled(do_sample=True)).ids
    own, others = (
        min(bits_without_cache(model, prompt[0], ids, end=table.end[0]) for ids in texts) for texts in (few, drawn)
    )
    assert own < others and all(longer.template.matches(decode_ids(table, ids)) for ids in few)


def test_guidance_is_that_of_generate(tiny):
    "The likeliest tokens under guidance and the mask are those of `generate`, whose processor reads the texts again."
    model, tokenizer, table = tiny
    c, prompt, negative = ToneConstraint("0243324/3324", table), torch.tensor([[1, 700]]), torch.tensor([[1, 900, 40]])
    plain = write_tokens(model, prompt, c).ids
    for scale in (1.5, 4.0):
        found = write_tokens(model, prompt, c, negative_prompt_ids=negative, guidance_scale=scale)
        want = model.generate(
            prompt,
            negative_prompt_ids=negative,
            guidance_scale=scale,
            logits_processor=[ToneLogitsProcessor([c], prompt.shape[1])],
            max_new_tokens=c.max_new_tokens,
            eos_token_id=list(table.end),
            pad_token_id=table.end[0],
            do_sample=False,
        )[0, prompt.shape[1] :].tolist()
        assert found.ids[0] == want[: len(found.ids[0])] and want[len(found.ids[0])] in table.end
        assert found.ids != plain
    several = dict(num_return_sequences=4, strategy=unmasked_beams)
    for strategy in ({}, several):
        same = write_tokens(model, prompt, c, negative_prompt_ids=prompt, guidance_scale=4.0, **strategy)
        assert same.ids == write_tokens(model, prompt, c, **strategy).ids


@pytest.mark.parametrize("scale", [0.5, "2", True, float("nan"), None])
def test_a_wrong_guidance_scale_is_refused(tiny, scale):
    model, _, table = tiny
    prompt = torch.tensor([[1]])
    with pytest.raises(ArgumentError, match="guidance_scale"):
        write_tokens(model, prompt, ToneConstraint("0", table), negative_prompt_ids=prompt, guidance_scale=scale)


@pytest.mark.parametrize("negative", [None, [[1]], torch.tensor([1]), torch.tensor([[1], [2]])])
def test_guidance_needs_a_negative_prompt_per_prompt(tiny, negative):
    model, _, table = tiny
    with pytest.raises(ArgumentError, match="negative_prompt_ids"):
        write_tokens(
            model, torch.tensor([[1]]), ToneConstraint("0", table), negative_prompt_ids=negative, guidance_scale=2.0
        )


def test_characters_are_counted_where_they_begin(tiny):
    "A character that is spread over several tokens counts with its first byte."
    _, _, table = tiny
    rows = TextRows([ToneConstraint("33", table)] * 2)
    offered, _ = rows.choices()
    text = rows.characters_with_choices()
    whole = [table.tokens[int(i)].decode("utf-8", "ignore") for i in offered]
    rest = [len(table.tokens[int(i)]) > len(w.encode()) for i, w in zip(offered, whole)]
    assert text.shape == (2, len(offered)) and any(rest)
    assert text[0].tolist() == [len(w) + r for w, r in zip(whole, rest)]


def test_beams_where_there_are_fewer_ways_than_beams(tiny):
    "A fixed first character leaves a handful of tokens: no forbidden one is taken, and the beams separate early."
    model, _, table = tiny
    cs = [ToneConstraint(t, table) for t in ("雨=4", "雨2", "夜33")]
    out = write_tokens(model, torch.tensor([[1], [2], [3]]), cs, num_return_sequences=24, strategy=beams)
    for r, ids in enumerate(out.ids):
        assert cs[r // 24].template.matches(decode_ids(table, ids))
    assert len({tuple(i) for i in out.ids[24:48]}) == len({tuple(i) for i in out.ids[48:]}) == 24
    canonical = ToneConstraint("雨2", table, canonical=True)
    ids = write_tokens(model, torch.tensor([[1]]), canonical, num_return_sequences=8, strategy=beams).ids
    assert len({tuple(i) for i in ids}) == 8


def test_a_way_to_choose_serves_again(tiny):
    model, _, table = tiny
    strategy = smc()
    for num_return_sequences in (4, 6):
        assert (
            len(
                write_tokens(
                    model,
                    torch.tensor([[1]]),
                    ToneConstraint("22/0", table),
                    num_return_sequences=num_return_sequences,
                    strategy=strategy,
                ).ids
            )
            == num_return_sequences
        )


def test_forced_tokens_need_no_call(tiny):
    model, _, table = tiny
    calls = []
    hook = model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        out = write_tokens(model, torch.tensor([[1]]), ToneConstraint("2/2/2", table))
    finally:
        hook.remove()
    assert (
        out.calls == len(calls) and out.skipped >= 3 and out.calls + out.skipped == len(out.ids[0]) + 1
    )  # two line ends and the end


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda m, t: dict(input_ids=torch.ones(1, 1023, dtype=torch.long)),
            "do not fit into the model's 1024 positions",
        ),
        (
            lambda m, t: dict(constraints=ToneConstraint("22", TokenTable(t.tokens, 8100, t.end))),
            "the model has 8000 logits, the token table 8100; make the table with vocab_size=8000",
        ),
        (lambda m, t: dict(strategy=sampled(repetition_penalty=1.2)), "repetition_penalty"),
    ],
)
def test_mistakes(change, message, tiny):
    model, _, table = tiny
    with pytest.raises(CantolyricError, match=message):
        write_tokens(
            model,
            **(dict(input_ids=torch.tensor([[1]]), constraints=ToneConstraint("22", table)) | change(model, table)),
        )


def test_beams_of_generate_have_their_own_states(tiny):
    model, tok, table = tiny
    c = ToneConstraint("0243/3304", table)
    out = model.generate(
        torch.tensor([[tok.eos_token_id]]),
        attention_mask=torch.ones(1, 1),
        num_beams=4,
        num_return_sequences=4,
        max_new_tokens=40,
        do_sample=False,
        logits_processor=[c.logits_processor(1)],
    )
    for row in out[:, 1:].tolist():
        assert c.template.matches(tok.decode([i for i in row if i not in table.end]))
