"""Search under the tone constraint with the finetuned 0.5B: which text each method picks, and how long it takes.

    python benchmarks/qwen_search.py write [ADAPTER]   samples, beams, revisions and the default for 32 requests
    python benchmarks/qwen_search.py judge [ADAPTER]   scores the samples with the other rankers; loads the 1.5B
    python benchmarks/qwen_search.py report            writes benchmarks/results/qwen_search.json
    python benchmarks/qwen_search.py batch SYSTEM ...  writes the texts of some systems for blind_reading.py

The requests are validation verses, half of them whole and half random windows, because the best method becomes a
default and the test verses are kept for the evaluation. Texts and scores are kept in the cache folder as they are made,
and an interrupted run continues. Times are medians of wall-clock seconds on the machine that the result names. Beam
search uses sixteen beams, revision starts no new rewrite once it has taken as long as the default, and a ranker's time
is added to that of the sixteen samples. ADAPTER is a folder; the default is the shipped adapter.

Blind readings led to the default (benchmarks/results/blind_reading.json). In the batches search-1 to search-4, the
adapter was the one trained under the mask, or without it where the name says so, and no search was guided. search-5
uses an average of three adapters. search-6 to search-8 contain texts of this program.
"""

import json
import sys
import time
from functools import partial

import numpy as np
import torch
from _common import made, write
from tqdm import tqdm

from cantolyric.constraint.decoding import beams, decode_text, unmasked_beams, write_tokens
from cantolyric.data.examples import load_examples, random_window
from cantolyric.evaluation.metrics import reference_model
from cantolyric.generation import Sampling
from cantolyric.models import load_model
from cantolyric.paths import cache_folder
from cantolyric.template.template import ToneTemplate
from cantolyric.writing.lyricist import Lyricist
from cantolyric.writing.prompts import prompt_tones, writing_constraint
from cantolyric.writing.sampler import rows_for, write_rows
from cantolyric.writing.scoring import answer_nll

SMALL, LARGE = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
REQUESTS, SAMPLES, TRIES = 32, 16, 8
READ, TINY, VERSES = 24, "tiny", "verses"  # how many requests are read blind, and the systems of every batch
ONE, MANY, DEFAULT = "one sample", f"{SAMPLES} samples", "guided beams without the mask"  # what `write` does
SAMPLING = Sampling(do_sample=True, temperature=0.8, top_p=0.95)
CHAT = "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
WRITE = "請用廣東話寫一段歌詞，主題是「{topic}」。"
SENSE = "以下是一段廣東話歌詞，主題是「{topic}」：\n{text}\n這段歌詞通順、有意思嗎？只答「是」或「否」。"
# The rankers of the samples; lower is better
RANKERS = {
    "own likelihood": "own",
    "own likelihood, without the mask": "own, free",
    "reference model": "5-gram",
    "1.5B, likelihood": "large",
    "1.5B, makes sense": "large, no",
}
SEARCHES = ("beams under the mask", "beams without the mask", "revision", DEFAULT)


def requests():
    "Return validation verses of at most eight lines, each used once: whole verses alternate with random windows."
    rows = [r for r in load_examples("verses", kind="verses")("validation") if r["tones"].count("/") < 8]
    rng, out = np.random.default_rng(0), []
    for k, row in enumerate(rows[:REQUESTS]):
        row = (random_window(row, rng) or row) if k % 2 else row
        out.append(dict(id=f"s{k:02d}", topic=row["topic"], tones=row["tones"], lyrics=row["lyrics"]))
    return out


def store(name, result=None):
    "Read the kept results of one kind, by request; or keep them."
    file = cache_folder() / "benchmarks" / "qwen_search" / f"{name}.json"
    if result is None:
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
    return result


def for_each_request(name, make):
    "Make a result for every request that has none yet, and time it; `make` takes the number and the request."
    done = store(name)
    for k, r in enumerate(tqdm(requests(), desc=name)):
        if r["id"] not in done:
            start = time.perf_counter()
            made = make(k, r)
            done[r["id"]] = made | dict(seconds=round(time.perf_counter() - start, 2))
            store(name, done)
    return done


# Writing


def prompt_of(x, r):
    return x.format.prompt_ids(dict(topic=r["topic"], tones=prompt_tones(ToneTemplate.parse(r["tones"]))), x.tokenizer)


def constraint_of(x, r):
    return writing_constraint(ToneTemplate.parse(r["tones"]), x.table, x.reader, x.unambiguous_only)


def samples(x, n):
    "The first `n` samples of each request, in the order in which they were drawn."

    def make(k, r):
        constraint = constraint_of(x, r)
        rows = rows_for([constraint], k, range(n))
        for _ in write_rows(x.model, prompt_of(x, r), rows, SAMPLING):
            pass
        texts = [decode_text(row.ids, constraint) for row in rows]
        return dict(texts=texts, bits=[row.bits / (len(t) + 1) for row, t in zip(rows, texts, strict=True)])

    return make


def searched(x, strategy):
    "The best text that beam search finds."

    def make(k, r):
        constraint, ids = constraint_of(x, r), torch.tensor([prompt_of(x, r)])
        out = write_tokens(x.model, ids, constraint, num_return_sequences=SAMPLES, strategy=strategy)
        return dict(text=decode_text(out.ids[0], constraint))

    return make


def default(x):
    "The text that `Lyricist.write` writes by default."

    def make(k, r):
        best = x.write(r["topic"], r["tones"], n=1)[0]
        return dict(text=best.text, bits=best.bits)

    return make


def free_bits(x, r, texts):
    "Bits per character of each text, scored without the mask."
    prompt = prompt_of(x, r)
    answers = [x.format.encode(dict(r, lyrics=t), x.tokenizer)["input_ids"][len(prompt) :] for t in texts]
    bits = answer_nll(x.model, [prompt] * len(texts), answers, [None] * len(texts))
    return [b / (len(t) + 1) for b, t in zip(bits, texts, strict=True)]


def revision(x, budget):
    """Draw half as many samples, then rewrite the worst line of the likeliest until time is up or no line improves.

    Texts are compared by their likelihood without the mask, and lines by their likelihood under it.
    """

    def make(k, r):
        start, template = time.perf_counter(), ToneTemplate.parse(r["tones"])
        texts = samples(x, SAMPLES // 2)(k, r)["texts"]
        bits, text = min(zip(free_bits(x, r, texts), texts, strict=True))
        history, tried = [round(bits, 3)], set()
        while time.perf_counter() - start < budget[r["id"]]["seconds"] and len(tried) < len(template.lines):
            of_lines = x.line_bits(r["topic"], text, template)
            line = max((i for i in range(len(of_lines)) if i not in tried), key=lambda i: of_lines[i])
            options = dict(topic=r["topic"], tones=template, n=TRIES, seed=1000 * k + len(history))
            texts = [c.text for c in x.rewrite(text, line + 1, **options)]
            least, new = min(zip(free_bits(x, r, texts), texts, strict=True))
            if least < bits - 1e-6:
                text, bits, tried = new, least, set()
            else:
                tried.add(line)
            history.append(round(bits, 3))
        return dict(text=text, history=history)

    return make


def write_all(adapter):
    x = Lyricist.from_pretrained(SMALL, adapter)
    for_each_request("warm-up", samples(x, 1))  # fills the caches of the constraint
    for_each_request(ONE, samples(x, 1))
    for_each_request(MANY, samples(x, SAMPLES))
    budget = for_each_request(DEFAULT, default(x))
    for_each_request("beams under the mask", searched(x, beams))
    for_each_request("beams without the mask", searched(x, unmasked_beams))
    for_each_request("revision", revision(x, budget))


# Judging: every ranker scores the samples; lower is better


def of_samples(score):
    "Score the samples of each request; `score` gets the request and the texts."
    return lambda k, r: dict(scores=score(r, store(MANY)[r["id"]]["texts"]))


def five_gram(model):
    def score(r, texts):
        lines = [t.replace("\n", "，") for t in texts]
        return [float(b) / (len(t) + 1) for b, t in zip(model.bits_per_text(lines), lines, strict=True)]

    return score


def large_likelihood(model, tokenizer):
    "Bits per character of each text as the answer to a request for lyrics about the topic, without tones."

    def score(r, texts):
        prompt = tokenizer(CHAT.format(system=SYSTEM, user=WRITE.format(topic=r["topic"])))["input_ids"]
        answers = [tokenizer(t + "<|im_end|>")["input_ids"] for t in texts]
        bits = answer_nll(model, [prompt] * len(texts), answers, [None] * len(texts))
        return [b / (len(t) + 1) for b, t in zip(bits, texts, strict=True)]

    return score


def large_no(model, tokenizer):
    "The probability that the model answers no, rather than yes, when asked whether a text makes sense."
    yes, no = (tokenizer(word)["input_ids"][0] for word in ("是", "否"))

    def answer(r, text):
        ids = tokenizer(CHAT.format(system=SYSTEM, user=SENSE.format(topic=r["topic"], text=text)))["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
        return float(torch.sigmoid(logits[no] - logits[yes]))

    return lambda r, texts: [answer(r, text) for text in texts]


def judge_all(adapter):
    x = Lyricist.from_pretrained(SMALL, adapter)
    for_each_request("own, free", of_samples(partial(free_bits, x)))
    for_each_request("5-gram", of_samples(five_gram(reference_model())))
    del x
    model, tokenizer = load_model(LARGE)
    for_each_request("large", of_samples(large_likelihood(model, tokenizer)))
    for_each_request("large, no", of_samples(large_no(model, tokenizer)))


# Reporting


def systems():
    "One text per request and system, and what each system cost."
    ids, out = [r["id"] for r in requests()], {}

    def seconds(found):
        return float(np.median([found[i]["seconds"] for i in ids]))

    drawn, one = store(MANY), store(ONE)
    out[ONE] = ([one[i]["texts"][0] for i in ids], seconds(one))
    for name, kind in RANKERS.items():
        judged = store(kind)
        if kind == "own":
            judged = {i: dict(scores=drawn[i]["bits"], seconds=0.0) for i in ids}
        if judged:
            texts = [drawn[i]["texts"][int(np.argmin(judged[i]["scores"]))] for i in ids]
            out[f"best of {SAMPLES}: {name}"] = (texts, seconds(drawn) + seconds(judged))
    for name in SEARCHES:
        found = store(name)
        if all(i in found for i in ids):
            out[name] = ([found[i]["text"] for i in ids], seconds(found))
    return out


def report():
    rows, every = {}, systems()
    plain = every[ONE][1]
    for name, (texts, seconds) in every.items():
        rows[name] = dict(seconds=round(seconds, 1), times_one_sample=round(seconds / plain, 1), first=texts[:6])
    write("qwen_search", dict(model=SMALL, requests=REQUESTS, samples=SAMPLES, systems=rows) | made("torch"))


def batch(names):
    "Write the texts of some systems, of the tiny model and of the verses to batch.json in the cache folder."
    every, tiny = systems(), Lyricist.from_pretrained()

    def make(k, r):
        return dict(text=tiny.write(r["topic"], r["tones"], n=1, seed=k, method="sample")[0].text)

    asked, written = requests()[:READ], for_each_request(TINY, make)
    texts = {VERSES: [r["lyrics"] for r in asked], TINY: [written[r["id"]]["text"] for r in asked]}
    for name in names:
        if name not in every:
            raise SystemExit(f"there is no system {name!r}; there are: {'; '.join(every)}")
        texts[name] = every[name][0][:READ]
    store("batch", dict(requests=asked, texts=texts))


def main():
    if not sys.argv[1:]:  # `make bench`
        return print("skipped: give write, judge or report, in this order")
    command, *rest = sys.argv[1:]
    torch.set_num_threads(2)
    adapter = rest[0] if rest else None
    commands = dict(write=lambda: write_all(adapter), judge=lambda: judge_all(adapter), report=report)
    commands["batch"] = lambda: batch(rest)
    commands[command]()


if __name__ == "__main__":
    main()
