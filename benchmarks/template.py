"""What templates cost: building the automaton, deciding texts beside the oracle, and the engines' own compilers on the exports.

python benchmarks/template.py    writes benchmarks/results/template.json
"""
import json
import os
import platform
import statistics
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

from cantolyric.reading import _data, default_reader
from cantolyric.template import ToneTemplate, lexicon_of, lyric_lines, reads_right

LINES, SLOTS = 8, 9


def cpu(f, n=1):
    "Seconds of processor time of `n` runs, each by itself."
    out = []
    for _ in range(n):
        start = time.process_time()
        f()
        out.append(time.process_time() - start)
    return out


def building(text, n=200, **kwargs):
    "Parsing and building, in milliseconds: the first time in a process, then median and worst of `n`."
    first = cpu(lambda: ToneTemplate.parse(text, **kwargs).automaton())[0]
    template = ToneTemplate.parse(text, **kwargs)
    ms = [1000 * s for s in cpu(template.automaton, n)]
    return dict(first_ms=round(1000 * first, 2), median_ms=round(statistics.median(ms), 3), worst_ms=round(max(ms), 3),
                parse_median_ms=round(1000 * statistics.median(cpu(lambda: ToneTemplate.parse(text, **kwargs), n)), 3))


def deciding(lines):
    "Milliseconds a line: the automaton, and the oracle that reads the whole line."
    pairs = [(t := ToneTemplate.of(line), t.automaton(), line) for line in lines]
    automaton = cpu(lambda: [a.accepts(line) for _, a, line in pairs])[0]
    oracle = cpu(lambda: [reads_right(t, line) for t, _, line in pairs])[0]
    return dict(lines=len(lines), characters=sum(map(len, lines)), automaton_ms=round(1000 * automaton / len(lines), 4), oracle_ms=round(1000 * oracle / len(lines), 4))


def compiling(text):
    "Seconds that the engines need to compile the exports over a vocabulary of single bytes: llguidance the expression, xgrammar the grammar."
    import llguidance, xgrammar
    template = ToneTemplate.parse(text)
    regex, grammar = template.to_regex(), template.to_gbnf()
    info = xgrammar.TokenizerInfo([bytes([b]) for b in range(256)] + [b"<end>"], xgrammar.VocabType.RAW, stop_token_ids=[256])

    class Bytes:
        tokens, eos_token_id, bos_token_id, special_token_ids = [bytes([b]) for b in range(256)] + [b"<end>"], 256, None, [256]
        def __call__(self, text): return list(text if isinstance(text, bytes) else text.encode())
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
    matcher = lambda: llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_regex(regex))
    return dict(export=round(cpu(template.to_regex)[0], 4), regex_signs=len(regex), gbnf_signs=len(grammar), xgrammar=round(cpu(lambda: xgrammar.GrammarCompiler(info).compile_grammar(grammar))[0], 3),
                llguidance=round(cpu(matcher)[0], 3))


def main():
    text = "/".join(["024332402"] * LINES)
    reader = default_reader()
    start = cpu(lambda: lexicon_of(reader))[0]
    sentences = json.loads((_data() / "ctcpc/sents.json").read_text(encoding="utf-8"))[::20]
    lines = [x for s in sentences for x in lyric_lines(s) if len(x) <= 40 and all(reader.jyutping(x))][:5000]
    result = dict(lexicon_seconds=round(start, 3), template=f"{LINES} lines of {SLOTS} slots", plain=building(text),
                  rhymed=building(text, rhyme="AABAAABA"), deciding=deciding(lines), compile_seconds_over_bytes=compiling(text),
                  made=date.today().isoformat(), python=platform.python_version(), llguidance=version("llguidance"), xgrammar=version("xgrammar"),
                  machine=f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}; processor time, one thread")
    path = Path(__file__).parent / "results" / "template.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__": main()
