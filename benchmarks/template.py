"""What templates cost: building the automaton, checking texts with it and with the oracle, and compiling the exports.

python benchmarks/template.py    writes benchmarks/results/template.json; processor time of one thread
"""

import json
import statistics

from _common import made, seconds, write

from cantolyric.paths import pycantonese_data
from cantolyric.reading import default_reader
from cantolyric.template.lexicon import lexicon_of
from cantolyric.template.report import reads_right
from cantolyric.template.sung import lyric_lines
from cantolyric.template.template import ToneTemplate

LINES, SLOTS = 8, 9


def building(text, n=200, **kwargs):
    "Milliseconds to parse and build: the first time in a process, then the median and worst of `n`."
    first = seconds(lambda: ToneTemplate.parse(text, **kwargs).automaton())
    template = ToneTemplate.parse(text, **kwargs)
    ms = [1000 * seconds(template.automaton) for _ in range(n)]
    return dict(
        first_ms=round(1000 * first, 2),
        median_ms=round(statistics.median(ms), 3),
        worst_ms=round(max(ms), 3),
        parse_median_ms=round(
            1000 * statistics.median(seconds(lambda: ToneTemplate.parse(text, **kwargs)) for _ in range(n)), 3
        ),
    )


def deciding(lines):
    "Milliseconds per line of the automaton, and of the oracle, which reads the whole line."
    pairs = [(t := ToneTemplate.of(line), t.automaton(), line) for line in lines]
    automaton = seconds(lambda: [a.accepts(line) for _, a, line in pairs])
    oracle = seconds(lambda: [reads_right(t, line) for t, _, line in pairs])
    return dict(
        lines=len(lines),
        characters=sum(map(len, lines)),
        automaton_ms=round(1000 * automaton / len(lines), 4),
        oracle_ms=round(1000 * oracle / len(lines), 4),
    )


def compiling(text):
    """Seconds that the engines take to compile the exports over a vocabulary of single bytes.

    llguidance compiles the expression, xgrammar the grammar."""
    import llguidance
    import xgrammar

    template = ToneTemplate.parse(text)
    regex, grammar = template.to_regex(verify=True), template.to_gbnf(verify=True)
    info = xgrammar.TokenizerInfo(
        [bytes([b]) for b in range(256)] + [b"<end>"], xgrammar.VocabType.RAW, stop_token_ids=[256]
    )

    class Bytes:
        tokens, eos_token_id, bos_token_id, special_token_ids = (
            [bytes([b]) for b in range(256)] + [b"<end>"],
            256,
            None,
            [256],
        )

        def __call__(self, text):
            return list(text if isinstance(text, bytes) else text.encode())

    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
    matcher = lambda: llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_regex(regex))
    return dict(
        export=round(seconds(template.to_regex), 4),
        regex_signs=len(regex),
        gbnf_signs=len(grammar),
        xgrammar=round(seconds(lambda: xgrammar.GrammarCompiler(info).compile_grammar(grammar)), 3),
        llguidance=round(seconds(matcher), 3),
    )


def main():
    text = "/".join(["024332402"] * LINES)
    reader = default_reader()
    start = seconds(lambda: lexicon_of(reader))
    sentences = json.loads(pycantonese_data("ctcpc", "sents.json").read_text(encoding="utf-8"))[::20]
    lines = [x for s in sentences for x in lyric_lines(s) if len(x) <= 40 and all(reader.jyutping(x))][:5000]
    result = dict(
        lexicon_seconds=round(start, 3),
        template=f"{LINES} lines of {SLOTS} slots",
        plain=building(text),
        rhymed=building(text, rhyme="AABAAABA"),
        deciding=deciding(lines),
        compile_seconds_over_bytes=compiling(text),
    )
    write("template", result | made("llguidance", "xgrammar"))


if __name__ == "__main__":
    main()
