"""Compare the melody readers and exports with music21, on public-domain files from music21's own corpus.

python benchmarks/melody.py      writes benchmarks/results/melody.json; needs music21 (pip install music21)

Both read the same files, with ties joined and grace notes left out. Each note that differs counts once.

ABC tunes are read from copies that say which version of the standard they follow, because in older files
music21 does not carry an accidental through the bar. It also ignores a broken rhythm before a decoration or a
fingering, so decorations and fingerings in that position are removed from the copies. At a second :| without |:, it
goes back too far, so notes are compared without repeats, and repeats are counted separately.
"""

import re
import sys
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from _common import made, write

from cantolyric.errors import CantolyricError
from cantolyric.melody import Melody, PhraseRules, ReadOptions, read_score
from cantolyric.melody.singing import join_ties

TUNES, COLLECTIONS, CHORALES, SETTINGS = 36, 20, 12, 6  # files: ABC tunes, ABC collections, chorales, old songs
EXPORTS = 10  # files whose export is read back
LIMIT = 10_000  # denominators; music21 keeps offsets as floats where it can

Row = tuple[Fraction, Fraction, int]  # onset and duration in quarter notes, MIDI pitch


class Piece(NamedTuple):
    "A part to compare."

    kind: str
    path: Path
    part: int = 1  # from 1
    tune: int | None = None  # X: number of the tune, in a file with several

    def copied(self, folder: Path, repeats: bool) -> "Piece":
        "Return the piece in a copy of its ABC file that both read alike; other files stay as they are."
        if self.path.suffix != ".abc":
            return self
        text = self.path.read_text(encoding="utf-8", errors="replace")
        if self.tune:
            text = re.search(rf"(?ms)^X: *{self.tune}\b.*?(?=^X:|\Z)", text)[0]
        lines = [line if re.match("[A-Za-z]:|%", line) else plain(line, repeats) for line in text.splitlines()]
        copy = folder / self.path.name
        copy.write_text("\n".join(["%abc-2.1", "%%propagate-accidentals octave", *lines, ""]), encoding="utf-8")
        return self._replace(path=copy, tune=None)


def plain(line: str, repeats: bool) -> str:
    "Return a line of music without the symbols between > and its note and, unless `repeats`, without repeat signs."
    line = re.sub(r'([<>])(?:\.|[uv]|"[^"]*")+', r"\1", line)
    return line if repeats else re.sub(r":*\|[\]|:]*[0-9]?|::|\[[0-9]", "|", line)


def ours(piece: Piece) -> list[Row]:
    "Read the notes of a part with cantolyric."
    part = None if piece.path.suffix == ".abc" else piece.part
    notes = read_score(piece.path, part, ReadOptions(chords="highest", tune=piece.tune)).notes
    return [(n.onset, n.duration, n.pitch) for n in join_ties([n for n in notes if not n.grace])]


def theirs(piece: Piece) -> list[Row]:
    "Read the notes of a part with music21; a chord gives its highest note."
    from music21 import chord, converter, harmony, repeat

    score = converter.parse(
        piece.path, forceSource=True, **({"quantizePost": False} if piece.path.suffix == ".mid" else {})
    )
    stream = (list(score.parts) or [score])[piece.part - 1]
    try:
        stream = stream.expandRepeats()
    except repeat.ExpanderException:  # no repeats, or some that it does not understand
        pass
    stream = stream.toSoundingPitch().stripTies()
    rows = []
    for n in stream.flatten().notes:
        if n.duration.isGrace or isinstance(n, harmony.ChordSymbol):
            continue
        pitch = max(p.midi for p in n.pitches) if isinstance(n, chord.Chord) else n.pitch.midi
        times = (Fraction(x).limit_denominator(LIMIT) for x in (n.offset, n.duration.quarterLength))
        rows.append((*times, pitch))
    return sorted(rows)


def differences(a: list[Row], b: list[Row]) -> Counter[str]:
    "Count the notes that differ, by what differs first."
    found: Counter[str] = Counter()
    if len(a) != len(b):
        found["number of notes"] = abs(len(a) - len(b))
    for x, y in zip(a, b):
        kind = next((name for name, k in (("pitch", 2), ("onset", 0), ("duration", 1)) if x[k] != y[k]), None)
        if kind:
            found[kind] += 1
    return found


def spread(paths: list[Path], n: int) -> list[Path]:
    "Return at most `n` paths, evenly spread over a list."
    return paths[:: max(1, len(paths) // n)][:n]


def corpus_pieces() -> list[Piece]:
    "Return the pieces to compare; the choice depends only on the corpus."
    from music21 import common

    root = common.getCorpusFilePath()
    pieces = [Piece("ABC tune", p) for p in spread(sorted((root / "ryansMammoth").glob("*.abc")), TUNES)]
    for k, path in enumerate(spread(sorted((root / "essenFolksong").glob("*.abc")), COLLECTIONS)):
        numbers = re.findall(r"(?m)^X: *([0-9]+)", path.read_text(encoding="utf-8", errors="replace"))
        pieces.append(Piece("folk song in an ABC collection", path, 1, int(numbers[7 * k % len(numbers)])))
    for k, path in enumerate(spread(sorted((root / "bach").glob("bwv*.mxl")), CHORALES)):
        pieces.append(Piece("chorale, .mxl", path, k % 4 + 1))
    return pieces + [Piece("old song, .xml", p) for p in spread(sorted((root / "trecento").glob("*.xml")), SETTINGS)]


def compared(original: Piece, folder: Path) -> dict:
    "Compare one piece."
    row: dict = dict(kind=original.kind, file=original.path.name, part=original.part, tune=original.tune)
    piece = original.copied(folder, repeats=False)
    try:
        a = ours(piece)
    except CantolyricError as error:
        return row | dict(refused=str(error).replace(str(piece.path), piece.path.name)[:200])
    try:
        b = theirs(piece)
    except Exception as error:  # music21 raises many kinds of exceptions
        return row | dict(music21_failed=f"{type(error).__name__}: {error}"[:200])
    return row | dict(notes=len(a), differences=dict(differences(a, b)))


def exported(path: Path, folder: Path) -> Counter[str]:
    "Read our exports of a tune with music21; return the differences."
    whole = PhraseRules(rest=0, marks=frozenset(), longest=None)
    melody = Melody.from_file(path, phrases=whole, melismas="none", options=ReadOptions(chords="highest"))
    rows = [(n.onset, n.duration, n.pitch) for n in melody.notes]
    melody.to_musicxml(folder / "t.musicxml")
    melody.to_midi(folder / "t.mid")
    xml, midi = theirs(Piece("", folder / "t.musicxml")), theirs(Piece("", folder / "t.mid"))
    found = Counter({f"MusicXML, {k}": v for k, v in differences(rows, xml).items()})
    return found + Counter({f"MIDI, {k}": v for k, v in differences(rows, midi).items()})


def repeats_count(piece: Piece, row: dict) -> bool:
    "Return whether a piece is a tune with repeats that both can read."
    return (
        piece.kind == "ABC tune" and "notes" in row and ":|" in piece.path.read_text(encoding="utf-8", errors="replace")
    )


def main() -> None:
    try:
        import music21  # noqa: F401
    except ModuleNotFoundError:
        sys.exit(print("left out: music21 is not installed; type: pip install music21"))
    pieces = corpus_pieces()
    with tempfile.TemporaryDirectory() as folder:
        rows = [compared(piece, Path(folder)) for piece in pieces]
        tunes = [p.copied(Path(folder), repeats=True) for p, row in zip(pieces, rows) if repeats_count(p, row)]
        otherwise = [p.path.name for p in tunes if len(ours(p)) != len(theirs(p))]
    total: Counter[str] = Counter()
    for row in rows:
        total += Counter(row.get("differences", {}))
    done = [row for row in rows if "notes" in row]
    readable = [p.path for p, row in zip(pieces, rows) if "notes" in row and p.kind == "ABC tune"][:EXPORTS]
    back: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for path in readable:
            back += exported(path, Path(folder))
    summary = dict(
        pieces=len(done),
        notes=sum(row["notes"] for row in done),
        pieces_that_agree=sum(not row["differences"] for row in done),
        differences=dict(total),
        refused=[row for row in rows if "refused" in row],
        music21_failed=[row for row in rows if "music21_failed" in row],
        repeats=dict(tunes=len(tunes), played_otherwise=otherwise),
        exports=dict(tunes=len(readable), differences=dict(back)),
        kinds={kind: sum(row["kind"] == kind for row in done) for kind in sorted({row["kind"] for row in done})},
        pieces_that_differ=[row for row in done if row["differences"]],
    )
    write("melody", summary | made("numpy", "mido", "music21"))


if __name__ == "__main__":
    main()
