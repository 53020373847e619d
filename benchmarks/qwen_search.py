"""Search under the tone constraint with the finetuned 0.5B: which text each method picks, and how long it takes.

    python benchmarks/qwen_search.py write [ADAPTER]   samples, beams and revisions for 32 requests
    python benchmarks/qwen_search.py judge [ADAPTER]   scores the samples with the other rankers; loads the 1.5B
    python benchmarks/qwen_search.py search NAME ADAPTER [unambiguous]   writes with the default of `Lyricist.write`
    python benchmarks/qwen_search.py report            writes benchmarks/results/qwen_search.json
    python benchmarks/qwen_search.py batch SYSTEM ...  writes the texts of some systems for blind_reading.py

The requests are validation verses, half of them whole and half random windows, because the best method becomes a
default and the test verses are kept for the evaluation. Texts and scores are kept in the cache folder as they are made,
and an interrupted run continues. Times are wall-clock seconds on the machine that the result names. Beam
search uses sixteen beams, revision starts no new rewrite after the time that a batch of sixteen samples took, and a
ranker's time is added to that of the samples. ADAPTER is a folder; the default is the shipped adapter.

In the committed results, "search, masked 300" and "search, no mask 100" began with a sampled first token, as `write` no
longer does, and the pools and beams were written before simplified characters were excluded.
"""

import json
import sys
import time

import numpy as np
import torch
from _common import made, write
from tqdm import tqdm

from cantolyric.constraint.decoding import beams, decode_ids, unmasked_beams, write_tokens
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
# The pools of samples: which words may be used, and the temperature
UNAMBIGUOUS, EVERY, COOL = "unambiguous words", "all words", "all words, temperature 0.5"
POOLS = {UNAMBIGUOUS: (True, 0.8), EVERY: (False, 0.8), COOL: (False, 0.5)}
CHAT = "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
WRITE = "請用廣東話寫一段歌詞，主題是「{topic}」。"
SENSE = "以下是一段廣東話歌詞，主題是「{topic}」：\n{text}\n這段歌詞通順、有意思嗎？只答「是」或「否」。"
# The rankers that judge one pool of samples; lower is better
RANKERS = {
    "own likelihood": "own",
    "own likelihood, without the mask": "own, free",
    "reference model": "5-gram",
    "1.5B, likelihood": "large",
    "1.5B, makes sense": "large, no",
}


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
    "Make something for every request that has none yet; `make` gets the number and the request."
    done = store(name)
    for k, r in enumerate(tqdm(requests(), desc=name)):
        if r["id"] not in done:
            done[r["id"]] = make(k, r)
            store(name, done)
    return done


# Writing


def prompt_of(x, r):
    return x.format.prompt_ids(dict(topic=r["topic"], tones=prompt_tones(ToneTemplate.parse(r["tones"]))), x.tokenizer)


def samples(x, n, pool):
    "The first `n` samples of each request, in the order in which they were drawn, with the seconds of the batch."
    unambiguous, temperature = POOLS[pool]
    sampling = Sampling(do_sample=True, temperature=temperature, top_p=0.95)

    def make(k, r):
        start = time.perf_counter()
        constraint = writing_constraint(ToneTemplate.parse(r["tones"]), x.table, x.reader, unambiguous)
        rows = rows_for([constraint], k, range(n))
        for _ in write_rows(x.model, prompt_of(x, r), rows, sampling):
            pass
        texts = [decode_ids(x.table, row.ids) for row in rows]
        bits = [row.bits / (len(t) + 1) for row, t in zip(rows, texts, strict=True)]
        return dict(texts=texts, bits=bits, seconds=round(time.perf_counter() - start, 2))

    return make


def beam(x, n, pool, strategy=beams):
    "The best text that beam search finds, with the words of a pool."

    def make(k, r):
        start = time.perf_counter()
        constraint = writing_constraint(ToneTemplate.parse(r["tones"]), x.table, x.reader, POOLS[pool][0])
        ids = torch.tensor([prompt_of(x, r)])
        out = write_tokens(x.model, ids, constraint, num_return_sequences=n, strategy=strategy)
        text = decode_ids(x.table, out.ids[0])
        return dict(text=text, bits=out.bits[0] / (len(text) + 1), seconds=round(time.perf_counter() - start, 2))

    return make


def by_line(x, n):
    "Write line by line: draw `n` samples of each line, and keep the likeliest before going on."

    def make(k, r):
        start, lines, size = time.perf_counter(), [], r["tones"].count("/") + 1
        for number in range(size):
            found = x.next_line(lines, r["topic"], r["tones"], n=n // 4, method="best", seed=1000 * k + number)
            lines = found[0].lines
        text = "\n".join(lines)
        seconds = round(time.perf_counter() - start, 2)
        bits = x.bits_of(r["topic"], [text], ToneTemplate.parse(r["tones"]))[0]
        return dict(text=text, bits=bits, seconds=seconds)

    return make


def revision(x, budget, pool):
    "Draw half as many samples, then rewrite the worst line of the likeliest text until time is up or no line improves."

    def make(k, r):
        start = time.perf_counter()
        template = ToneTemplate.parse(r["tones"])
        drawn = samples(x, SAMPLES // 2, pool)(k, r)
        text = drawn["texts"][int(np.argmin(drawn["bits"]))]
        bits = x.bits_of(r["topic"], [text], template)[0]
        history, tried, rounds = [round(bits, 3)], set(), 0
        while time.perf_counter() - start < budget[r["id"]] and len(tried) < len(template.lines):
            of_lines = x.line_bits(r["topic"], text, template)
            line = max((i for i in range(len(of_lines)) if i not in tried), key=lambda i: of_lines[i])
            rounds += 1
            new = x.rewrite(text, line + 1, topic=r["topic"], tones=template, n=TRIES, seed=1000 * k + rounds)[0]
            if new.bits < bits - 1e-6:
                text, bits, tried = new.text, new.bits, set()
            else:
                tried.add(line)
            history.append(round(bits, 3))
        return dict(text=text, bits=bits, history=history, seconds=round(time.perf_counter() - start, 2))

    return make


def write_all(adapter):
    x = Lyricist.from_pretrained(SMALL, adapter)
    for pool in (EVERY, UNAMBIGUOUS, COOL):
        for_each_request(f"warm-up, {pool}", samples(x, 1, pool))  # fills the caches of the constraint
        for_each_request(f"one, {pool}", samples(x, 1, pool))
        drawn = for_each_request(pool, samples(x, SAMPLES, pool))
        if pool == EVERY:
            x.unambiguous_only = False
            for_each_request("beam", beam(x, SAMPLES, pool))
            for_each_request("unmasked beams", beam(x, SAMPLES, pool, unmasked_beams))
            for_each_request("line by line", by_line(x, SAMPLES))
            for_each_request("revision", revision(x, {k: v["seconds"] for k, v in drawn.items()}, pool))


def write_searched(name, adapter, *options):
    "Write with the default of `Lyricist.write`, with an adapter; `unambiguous` uses unambiguous words only."
    x = Lyricist.from_pretrained(SMALL, adapter, unambiguous_only="unambiguous" in options)

    def make(k, r):
        start = time.perf_counter()
        best = x.write(r["topic"], r["tones"], n=1, seed=k)[0]
        return dict(text=best.text, bits=best.bits, seconds=round(time.perf_counter() - start, 2))

    for_each_request(f"search, {name}", make)


def searches():
    "The names of the searches that have been written."
    folder = cache_folder() / "benchmarks" / "qwen_search"
    return sorted(file.stem for file in folder.glob("search, *.json"))


# Judging: every ranker scores the texts of a pool, lower is better


def own_free(x, pool):
    "Bits per character of each sample without the mask."

    def make(k, r):
        start, texts = time.perf_counter(), store(pool)[r["id"]]["texts"]
        prompt = prompt_of(x, r)
        answers = [x.format.encode(dict(r, lyrics=t), x.tokenizer)["input_ids"][len(prompt) :] for t in texts]
        bits = answer_nll(x.model, [prompt] * len(texts), answers, [None] * len(texts))
        scores = [b / (len(t) + 1) for b, t in zip(bits, texts, strict=True)]
        return dict(scores=scores, seconds=round(time.perf_counter() - start, 2))

    return make


def five_gram(model, pool):
    def make(k, r):
        start, texts = time.perf_counter(), store(pool)[r["id"]]["texts"]
        lines = [t.replace("\n", "，") for t in texts]
        scores = [float(b) / (len(t) + 1) for b, t in zip(model.bits_per_text(lines), lines, strict=True)]
        return dict(scores=scores, seconds=round(time.perf_counter() - start, 2))

    return make


def large_likelihood(model, tokenizer, pool):
    "Bits per character of each sample as the answer to a request for lyrics about the topic, without tones."

    def make(k, r):
        start, texts = time.perf_counter(), store(pool)[r["id"]]["texts"]
        prompt = tokenizer(CHAT.format(system=SYSTEM, user=WRITE.format(topic=r["topic"])))["input_ids"]
        answers = [tokenizer(t + "<|im_end|>")["input_ids"] for t in texts]
        bits = answer_nll(model, [prompt] * len(texts), answers, [None] * len(texts))
        scores = [b / (len(t) + 1) for b, t in zip(bits, texts, strict=True)]
        return dict(scores=scores, seconds=round(time.perf_counter() - start, 2))

    return make


def large_no(model, tokenizer, pool):
    "The probability that the model answers no, rather than yes, to whether a sample makes sense."
    yes, no = (tokenizer(word)["input_ids"][0] for word in ("是", "否"))

    def make(k, r):
        start, scores = time.perf_counter(), []
        for text in store(pool)[r["id"]]["texts"]:
            ids = tokenizer(CHAT.format(system=SYSTEM, user=SENSE.format(topic=r["topic"], text=text)))["input_ids"]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
            scores.append(float(torch.sigmoid(logits[no] - logits[yes])))
        return dict(scores=scores, seconds=round(time.perf_counter() - start, 2))

    return make


def judge_all(adapter):
    x, reference = Lyricist.from_pretrained(SMALL, adapter), reference_model()
    for pool in POOLS:
        for_each_request(f"{pool}: own, free", own_free(x, pool))
        for_each_request(f"{pool}: 5-gram", five_gram(reference, pool))
    del x
    model, tokenizer = load_model(LARGE)
    for_each_request(f"{EVERY}: large", large_likelihood(model, tokenizer, EVERY))
    for_each_request(f"{EVERY}: large, no", large_no(model, tokenizer, EVERY))


# Reporting


def systems():
    "One text per request and system, and what each system cost."
    ids, out = [r["id"] for r in requests()], {}

    def seconds(found):
        return float(np.mean([found[i]["seconds"] for i in ids]))

    for pool in POOLS:
        drawn, one = store(pool), store(f"one, {pool}")
        if any(i not in drawn for i in ids):
            continue
        out[f"one sample, {pool}"] = ([one[i]["texts"][0] for i in ids], seconds(one))
        for name, kind in RANKERS.items():
            judged = store(f"{pool}: {kind}")
            if kind == "own":
                judged = {i: dict(scores=drawn[i]["bits"], seconds=0.0) for i in ids}
            if judged:
                texts = [drawn[i]["texts"][int(np.argmin(judged[i]["scores"]))] for i in ids]
                out[f"best of {SAMPLES}, {pool}: {name}"] = (texts, seconds(drawn) + seconds(judged))
    for name in ("beam", "unmasked beams", "line by line", "revision", *searches()):
        found = store(name)
        if all(i in found for i in ids):
            out[name] = ([found[i]["text"] for i in ids], seconds(found))
    return out


def report():
    rows, every = {}, systems()
    plain = every[f"one sample, {EVERY}"][1]
    for name, (texts, seconds) in every.items():
        rows[name] = dict(seconds=round(seconds, 1), times_one_sample=round(seconds / plain, 1), first=texts[:6])
    write("qwen_search", dict(model=SMALL, requests=REQUESTS, samples=SAMPLES, systems=rows) | made("torch"))


def batch(names):
    "Write the texts of some systems, of the tiny model and of the verses to batch.json in the cache folder."
    every, tiny = systems(), Lyricist.from_pretrained()

    def make(k, r):
        return tiny.write(r["topic"], r["tones"], n=1, seed=k, method="sample")[0].text

    asked, written = requests()[:READ], for_each_request(TINY, make)
    texts = {VERSES: [r["lyrics"] for r in asked], TINY: [written[r["id"]] for r in asked]}
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
    commands |= dict(batch=lambda: batch(rest), search=lambda: write_searched(*rest))
    commands[command]()


if __name__ == "__main__":
    main()
