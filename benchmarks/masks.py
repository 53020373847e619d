"""Masks next to llguidance, xgrammar and outlines-core: Qwen2's vocabulary, templates of 8 lines of 9 slots, one run.

python benchmarks/masks.py            writes benchmarks/results/masks.json; one thread, wall-clock time: run it on an
                                      idle machine
python benchmarks/masks.py melody     only the part about melodies, written into the same file
python benchmarks/masks.py --small    2 lines of 4 slots and one template, to try the script; prints, writes nothing
With --cpu as well: processor time, for a busy machine; it adds about half a microsecond to each figure.

Needs CANTOLYRIC_DATA (a folder with tokenizers/qwen2) and the extra `dev`. What is measured:

vocabulary pass   from token bytes to a table with which a template of one slot gives its first mask; the lexicon exists
                  already. Peers: their tokenizer object
template ready    ours: from the typed template to a start state; peers: from the exported expression to a matcher
seen before       one mask on a second walk over the same text, the peers' into the caller's buffer; ours as it is
                  returned, and copied into that buffer
first visits      masks on the first walk over a text; `advance` (taking the token) is timed separately
verse             template ready and every first visit, without and with the advances
in generate       one call of the logits processor per step, for batches of 1 and 32 texts of one template: our
                  `ToneLogitsProcessor` and `xgrammar.contrib.hf.LogitsProcessor`, with logits that are ready; the
                  first texts, and texts whose masks have been computed before
melody            the same walks under `Melody.constraint()`, for random tunes of 8 phrases of 9 notes, next to digits;
                  no peer has such a constraint

The texts are random allowed tokens, so all engines that read by characters walk the same way; the reader in context has
its own texts. Every mask of a peer is compared with ours, bit by bit; xgrammar 0.2.8 forgets a token now and then
(tests/test_peers.py). llguidance and xgrammar run on both exports, the expression and the grammar, because their times
differ by up to fifty times. Python's garbage collector is off during the walks.
"""

import gc
import json
import os
import statistics
import sys
import tempfile
import tracemalloc
from time import perf_counter, process_time

os.environ.update(OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1")  # before the engines are loaded

import llguidance
import numpy as np
import outlines_core
import torch
import xgrammar
from _common import RESULTS, made, write
from llguidance.gbnf_to_lark import any_to_lark
from xgrammar.contrib.hf import LogitsProcessor as XGrammarProcessor

from cantolyric._published import published
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.decoding import random_ids
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.melody import Melody
from cantolyric.reading import as_reader
from cantolyric.template.lexicon import lexicon_of
from cantolyric.template.template import ToneTemplate

SIZE, END = 151_936, 151_643  # Qwen2's mask bits, padding included, and its <|endoftext|>
READERS = {"ours, in context": None, "ours, characters": "characters"}
PEERS = (
    "llguidance, expression",
    "llguidance, grammar",
    "xgrammar, expression",
    "xgrammar, grammar",
    "outlines-core, expression",
)


clock = process_time if "--cpu" in sys.argv else perf_counter


def timed(f):
    "Milliseconds of one call, and what it returned."
    start = clock()
    out = f()
    return 1000 * (clock() - start), out


# Ours


class Ours:
    "The constraint with one reader."

    def __init__(self, bpe, reader):
        self.reader, self.tokens = as_reader(reader), {i: b for b, i in bpe.vocab.items()}
        lexicon_of(self.reader)

    def build(self, folder=None):
        "The vocabulary pass; with a folder that an earlier pass has filled, from disk."
        with tempfile.TemporaryDirectory() as new:
            os.environ["CANTOLYRIC_CACHE"] = folder or new
            self.table = TokenTable(self.tokens, SIZE, (END,))
            c = ToneConstraint("3", self.table, self.reader)
            c.mask(c.start())

    def from_disk(self):
        "Milliseconds of the passes that find what another has kept."
        with tempfile.TemporaryDirectory() as folder:
            self.build(folder)
            return [timed(lambda: self.build(folder))[0] for _ in range(3)]

    def ready(self, template):
        given = template if template.moves else str(template)  # digits are parsed, as a user's are
        self.c = ToneConstraint(given, self.table, self.reader)
        self.s = self.c.start()

    def again(self):
        self.s = self.c.start()

    def mask(self):
        return self.c.mask(self.s)

    def fill(self, buffer):
        self.c.fill(self.s, buffer)

    def advance(self, i):
        self.s = self.c.advance(self.s, i)

    def memory(self, templates, texts):
        """MB that Python's allocator (NumPy's arrays included) gives for the table, alone and with what these templates
        leave in its caches. Not included: the token bytes, the lexicon, and files that are mapped rather than read."""
        gc.collect()
        tracemalloc.start()
        self.build()
        gc.collect()
        fresh = tracemalloc.get_traced_memory()[0]
        for template, text in zip(templates, texts):
            walk(self, template, text)
        self.c = None
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return dict(table_mb=round(fresh / 1e6, 1), table_mb_after_templates=round(used / 1e6, 1), templates=len(texts))


# Peers


class LLGuidance:
    """Forcing is off: with it, where only one text is possible, only the usual token is allowed. The default limits end
    some of these templates early."""

    limits = dict(initial_lexer_fuel=10**9, step_lexer_fuel=10**9, max_lexer_states=10**7)

    def __init__(self, bpe, kind):
        class Vocabulary:  # with a real tokenizing callback: one that returns nothing gives wrong masks
            tokens, eos_token_id, bos_token_id, special_token_ids = (
                token_list(bpe),
                END,
                None,
                [i for i in range(SIZE) if i not in bpe.id_to_bytes],
            )

            def __call__(self, text):
                return bpe.encode(text)

        self.kind, self.vocabulary = kind, Vocabulary()

    def build(self):
        self.tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(self.vocabulary))

    def export(self, template):
        return '%llguidance {"no_forcing": true}\n' + (
            any_to_lark(template.to_gbnf(verify=True))
            if self.kind == "grammar"
            else f"start: /{template.to_regex(verify=True)}/"
        )

    def ready(self, export):
        self.m = llguidance.LLMatcher(
            self.tokenizer,
            llguidance.LLMatcher.grammar_from_lark(export),
            limits=llguidance.LLParserLimits(**self.limits),
        )
        if self.m.is_error():
            raise RuntimeError(self.m.get_error())

    def again(self):
        self.m.reset()

    def fill(self, buffer):
        self.m.unsafe_compute_mask_ptr(buffer.ctypes.data, buffer.nbytes)

    def advance(self, i):
        return self.m.consume_token(i)


class XGrammar:
    def __init__(self, bpe, kind):
        self.kind, self.tokens = kind, token_list(bpe)

    def build(self):
        info = xgrammar.TokenizerInfo(self.tokens, xgrammar.VocabType.RAW, stop_token_ids=[END])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def export(self, template):
        return template.to_gbnf(verify=True) if self.kind == "grammar" else template.to_regex(verify=True)

    def compile(self, export):
        return self.compiler.compile_grammar(export) if self.kind == "grammar" else self.compiler.compile_regex(export)

    def ready(self, export):
        self.m = xgrammar.GrammarMatcher(self.compile(export))

    def again(self):
        self.m.reset()

    def fill(self, buffer):
        self.m.fill_next_token_bitmask(buffer)

    def advance(self, i):
        return self.m.accept_token(i)


class Outlines:
    def __init__(self, bpe, kind):
        self.ids = {b: [i] for b, i in bpe.vocab.items()}

    def build(self):
        self.vocabulary = outlines_core.Vocabulary(END, self.ids)

    def export(self, template):
        return template.to_regex(verify=True)

    def ready(self, export):
        self.m = outlines_core.Guide(outlines_core.Index(export, self.vocabulary))

    def again(self):
        self.m.reset()

    def fill(self, buffer):
        self.m.write_mask_into(buffer.ctypes.data, buffer.size, buffer.itemsize)

    def advance(self, i):
        return self.m.is_finished() or self.m.advance(i, False)


ENGINES = {"ours": Ours, "llguidance": LLGuidance, "xgrammar": XGrammar, "outlines-core": Outlines}


def token_list(bpe):
    "Each id's bytes; the end token needs some, as xgrammar takes an empty one for padding."
    return [bpe.id_to_bytes.get(i, b"<|endoftext|>" if i == END else b"") for i in range(SIZE)]


# Walks


def walk(engine, template, text=None, masks=None, rng=None):
    """Times in ms of one template and two walks over a text; without a text (ours only) it is drawn on the way, so that
    nothing is computed before it is timed. With `masks`, how many bits differ. Also the text and its masks."""
    ours = isinstance(engine, Ours)
    export = template if ours else engine.export(template)
    out = dict(ready=timed(lambda: engine.ready(export))[0], first=[], advance=[], again=[], copied=[])
    buffer, found, drawn = np.zeros((1, -(-SIZE // 32)), np.int32), [], list(text or [])
    while len(found) < len(text) if text else not engine.s.ended:
        ms, mask = timed(engine.mask) if ours else timed(lambda: engine.fill(buffer))
        out["first"].append(ms)
        found.append(np.array(mask if ours else buffer[0]))
        if not text:
            drawn.append(int(rng.choice(engine.c.allowed_ids(engine.s))))
        i = drawn[len(found) - 1]
        out["advance"].append(timed(lambda: engine.advance(i))[0])
    engine.again()
    for i in drawn:
        if ours:
            out["again"].append(timed(engine.mask)[0])
        out["copied" if ours else "again"].append(timed(lambda: engine.fill(buffer))[0])
        engine.advance(i)
    if masks is not None:
        out["apart"] = sum(int(np.bitwise_count(f ^ m).sum()) for f, m in zip(found, masks, strict=True))
    return out, drawn, found


def summary(walks):
    "What is reported of one engine's walks: the first template separately, as it fills caches of the vocabulary."
    later = walks[1:] or walks
    us = lambda key: round(1000 * statistics.median(x for w in later for x in w[key]), 2)
    ms = lambda f, ws: round(statistics.median(map(f, ws)), 3)
    verse, whole = (
        (lambda w: w["ready"] + sum(w["first"])),
        (lambda w: w["ready"] + sum(w["first"]) + sum(w["advance"])),
    )
    out = dict(
        templates=len(walks),
        steps=[len(w["first"]) for w in walks],
        ready_ms=ms(lambda w: w["ready"], later),
        ready_worst_ms=round(max(w["ready"] for w in later), 3),
        ready_first_template_ms=round(walks[0]["ready"], 3),
        seen_before_us=us("again"),
        seen_before_copied_us=us("copied") if walks[0]["copied"] else us("again"),
        first_visit_us=us("first"),
        first_visit_worst_ms=round(max(x for w in later for x in w["first"]), 3),
        first_visits_sum_ms=ms(lambda w: sum(w["first"]), later),
        first_template_worst_ms=round(max(walks[0]["first"]), 3),
        first_template_sum_ms=round(sum(walks[0]["first"]), 3),
        advance_us=us("advance"),
        verse_ms=ms(verse, later),
        verse_worst_ms=round(max(map(verse, later)), 3),
        verse_with_advances_ms=ms(whole, later),
        verse_first_template_ms=round(verse(walks[0]), 3),
    )
    if "apart" in walks[0]:
        out["bits_unlike_ours"] = sum(w["apart"] for w in walks)
    return out


# In `generate`: the processor's share of a step


def scripted(constraint, rows, rng):
    "Random texts of one template, int64 (rows, T): a column is a step; rows that have ended continue with end tokens."
    texts = [[*random_ids(constraint, rng), END] for _ in range(rows)]
    width = max(map(len, texts))
    return torch.tensor([t + [END] * (width - len(t)) for t in texts])


def steps(processor, ids):
    "Milliseconds of each call of a logits processor on the way of some texts, with logits that are ready."
    logits, prompt = torch.randn(len(ids), SIZE, generator=torch.Generator().manual_seed(0)), torch.ones(len(ids), 1)
    tokens, found = torch.cat([prompt.long(), ids], 1), []
    for t in range(ids.shape[1]):
        scores, seen = logits.clone(), tokens[:, : t + 1]
        found.append(timed(lambda: processor(seen, scores))[0])
    return found


def step_times(make, ids, rounds=3):
    "Milliseconds per step of a first text and, the best of some rounds, of texts whose masks have been made before."
    mean = statistics.fmean
    first = mean(steps(make(), ids))
    return dict(first_ms=round(first, 3), again_ms=round(min(mean(steps(make(), ids)) for _ in range(rounds)), 3))


def processors(bpe, template, batches, kinds=("expression", "grammar")):
    "Overhead per step of our processor and of xgrammar's, for batches of texts of one template."
    out = {f"batch {rows}": {} for rows in batches}
    gc.disable()
    for name, reader in READERS.items():
        engine = Ours(bpe, reader)
        engine.build()
        for rows in batches:
            c = ToneConstraint(str(template), engine.table, engine.reader)
            ids = scripted(c, rows, np.random.default_rng(24))
            engine.ready(template)  # a constraint that has made no mask yet
            found = step_times(lambda: engine.c.logits_processor(1, engine.c.max_new_tokens), ids)
            out[f"batch {rows}"][name] = dict(steps=ids.shape[1], **found)
    for kind in kinds:
        engine = XGrammar(bpe, kind)
        engine.build()
        ms, compiled = timed(lambda: engine.compile(engine.export(template)))
        ours = Ours(bpe, "characters")
        ours.build()
        c = ToneConstraint(str(template), ours.table, ours.reader)
        for rows in batches:
            ids = scripted(c, rows, np.random.default_rng(24))
            found = step_times(lambda: XGrammarProcessor(compiled), ids)
            out[f"batch {rows}"][f"xgrammar, {kind}"] = dict(steps=ids.shape[1], compile_ms=round(ms, 1), **found)
    gc.enable()
    return out


# All together


def templates(n, lines, slots):
    "Templates with random digits of the scheme 0243."
    rng = np.random.default_rng(22)
    return [
        ToneTemplate.parse("/".join("".join(rng.choice(list("0243"), slots)) for _ in range(lines))) for _ in range(n)
    ]


def tunes(n, phrases, notes):
    "Constraints of random tunes, whose intervals have at most seven semitones."
    rng = np.random.default_rng(25)
    pitches = 60 + rng.integers(-7, 8, (n, phrases, notes)).cumsum(-1) // 2
    return [Melody.parse(" | ".join(" ".join(map(str, p)) for p in tune)).constraint() for tune in pitches]


def melodies(bpe, n, lines, slots):
    "Masks under the direction rule of melodies, next to those under digits."
    engine = Ours(bpe, None)
    engine.build()
    gc.disable()
    out = {}
    for name, todo in (("digits", templates(n, lines, slots)), ("melody", tunes(n, lines, slots))):
        rng = np.random.default_rng(23)
        out[name] = summary([walk(engine, template, rng=rng)[0] for template in todo])
    gc.enable()
    return out | made("numpy")


def measure(name, bpe, todo, texts=None, masks=None):
    "Everything about one engine but its memory; and for each template the text of its walk, and the masks."
    engine = Ours(bpe, READERS[name]) if name in READERS else ENGINES[name.split(",")[0]](bpe, name.split(", ")[1])
    out, rng = (
        dict(vocabulary_pass_s=round(timed(engine.build)[0] / 1000, 3)),
        np.random.default_rng(23),
    )  # once: a second pass finds the lexicon's caches full
    if name in READERS:
        out["vocabulary_from_disk_s"] = round(statistics.median(engine.from_disk()) / 1000, 3)
    gc.collect()
    # As `timeit` does: a full collection of a process that holds a lexicon takes a tenth of a second, in any step.
    gc.disable()
    walks, texts, masks = zip(
        *(walk(engine, t, texts and texts[k], masks and masks[k], rng) for k, t in enumerate(todo))
    )
    gc.enable()
    out |= summary(walks)
    print(name, out, file=sys.stderr, flush=True)
    return out, texts, masks


def ratios(found):
    "How many times as long the quickest peer takes, row by row."
    rows = {
        "vocabulary_pass_s": "vocabulary_pass_s",
        "ready_ms": "ready_ms",
        "seen_before_us": "seen_before_us",
        "seen_before_copied_us": "seen_before_us",
        "first_visits_sum_ms": "first_visits_sum_ms",
        "verse_ms": "verse_ms",
        "verse_with_advances_ms": "verse_with_advances_ms",
    }
    out = {}
    for ours, theirs in rows.items():
        peer = min((p for p in PEERS if p in found), key=lambda p: found[p][theirs])
        out[ours] = dict(
            quickest_peer=peer, **{o: float(f"{found[peer][theirs] / found[o][ours]:.3g}") for o in READERS}
        )
    return out


def main(lines=8, slots=9, n_ours=12, n_peers=2, keep=True):
    "`n_ours`, `n_peers`: templates."
    try:
        bpe = published("Qwen2")
    except FileNotFoundError as e:
        return print(f"left out: {e}; set it to a folder that holds tokenizers/qwen2/vocab.json and merges.txt")
    todo, found, texts, masks = templates(n_ours, lines, slots), {}, {}, {}
    for name in READERS:
        found[name], texts[name], masks[name] = measure(name, bpe, todo)
    path = texts["ours, characters"]
    for name in PEERS:  # outlines-core takes a minute for a template
        n = 1 if name.startswith("outlines") else n_peers
        found[name] = measure(name, bpe, todo[:n], path, masks["ours, characters"])[0]
    for name, reader in READERS.items():
        found[name] |= Ours(bpe, reader).memory(todo[:3], texts[name][:3])
    inside = [
        sum(bpe.id_to_bytes[i].decode("utf-8", "ignore").encode() != bpe.id_to_bytes[i] for i in x[:-1]) for x in path
    ]
    result = dict(
        vocabulary=f"Qwen2, {len(bpe.vocab)} tokens, {SIZE} bits",
        template=f"{lines} lines of {slots} slots",
        engines=found,
        clock=clock.__name__,
        tokens_that_are_pieces_of_characters=sum(inside),
        ratios_to_the_quickest_peer=ratios(found),
        in_generate=processors(bpe, todo[0], (1, 32)),
        melody=melodies(bpe, n_ours, lines, slots),
    )
    result |= made("llguidance", "xgrammar", "outlines-core", "numpy")
    if keep:
        write("masks", result)
    else:
        print(json.dumps(result, indent=1))


def add_melodies():
    "Measure the part about melodies alone."
    result = json.loads((RESULTS / "masks.json").read_text(encoding="utf-8"))
    write("masks", result | dict(melody=melodies(published("Qwen2"), 12, 8, 9)))


if __name__ == "__main__":
    if "melody" in sys.argv:
        add_melodies()
    elif "--small" in sys.argv:
        main(2, 4, 1, 1, keep=False)
    else:
        main()
