"""The melody readers and exports next to music21, on public-domain files of its own corpus.

python benchmarks/melody.py      writes benchmarks/results/melody.json; needs music21 (pip install music21)

Both read the same files: repeats played out, ties joined, grace notes left out. A difference counts once per note.
"""

import sys
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path

from _common import made, write

from cantolyric.errors import CantolyricError
from cantolyric.melody import Melody, PhraseRules, ReadOptions, read_score
from cantolyric.melody.singing import join_ties

TUNES, CHORALES, SETTINGS = 60, 12, 6  # files: ABC tunes, Bach chorales, settings of medieval songs
EXPORTS = 10  # files whose export is read back
LIMIT = 10_000  # denominators; music21 keeps offsets as floats where it can

Row = tuple[Fraction, Fraction, int]  # onset and duration in quarter notes, MIDI pitch


def ours(path: Path, part: int | None) -> list[Row]:
    "Read the notes of a part with cantolyric."
    notes = read_score(path, part, ReadOptions(chords="highest")).notes
    return [(n.onset, n.duration, n.pitch) for n in join_ties([n for n in notes if not n.grace])]


def theirs(path: Path, part: int) -> list[Row]:
    "Read the notes of a part with music21; of a chord, the highest."
    from music21 import chord, converter, harmony, repeat

    score = converter.parse(path, forceSource=True)
    stream = (list(score.parts) or [score])[part - 1]
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
        if x != y:
            found["pitch" if x[2] != y[2] else "onset" if x[0] != y[0] else "duration"] += 1
    return found


def corpus_files() -> list[tuple[str, Path, int | None, int]]:
    "Return (kind, file, part for cantolyric, part for music21) of the files to compare."
    from music21 import common

    root = common.getCorpusFilePath()
    tunes = sorted((root / "ryansMammoth").glob("*.abc"))
    step = max(1, len(tunes) // TUNES)
    files: list[tuple[str, Path, int | None, int]] = [("ABC tune", p, None, 1) for p in tunes[::step][:TUNES]]
    chorales = sorted((root / "bach").glob("bwv*.mxl"))
    for k, path in enumerate(chorales[:: max(1, len(chorales) // CHORALES)][:CHORALES]):
        files.append(("chorale, .mxl", path, k % 4 + 1, k % 4 + 1))
    settings = sorted((root / "trecento").glob("*.xml"))[:SETTINGS]
    files += [("setting, .xml", p, 1, 1) for p in settings]
    return files


def compared(kind: str, path: Path, own: int | None, other: int) -> dict:
    "Compare one file."
    row: dict = dict(kind=kind, file=path.name)
    try:
        a = ours(path, own)
    except CantolyricError as error:
        return row | dict(refused=str(error).replace(str(path), path.name)[:200])
    try:
        b = theirs(path, other)
    except Exception as error:  # music21 raises many kinds
        return row | dict(music21_failed=f"{type(error).__name__}: {error}"[:200])
    return row | dict(notes=len(a), differences=dict(differences(a, b)))


def exported(path: Path, folder: Path) -> Counter[str]:
    "Read our exports of a tune with music21; return the differences."
    whole = PhraseRules(rest=0, marks=frozenset(), longest=None)
    melody = Melody.from_file(path, phrases=whole, melismas="none", options=ReadOptions(chords="highest"))
    rows = [(n.onset, n.duration, n.pitch) for n in melody.notes]
    melody.to_musicxml(folder / "t.musicxml")
    melody.to_midi(folder / "t.mid")
    xml, midi = theirs(folder / "t.musicxml", 1), theirs(folder / "t.mid", 1)
    found = Counter({f"MusicXML, {k}": v for k, v in differences(rows, xml).items()})
    return found + Counter({f"MIDI, {k}": v for k, v in differences(rows, midi).items()})


def main() -> None:
    try:
        import music21  # noqa: F401
    except ModuleNotFoundError:
        sys.exit(print("left out: music21 is not installed; type: pip install music21"))
    files = corpus_files()
    rows = [compared(*file) for file in files]
    total: Counter[str] = Counter()
    for row in rows:
        total += Counter(row.get("differences", {}))
    done = [row for row in rows if "notes" in row]
    readable = [path for (kind, path, *_), row in zip(files, rows) if "notes" in row and kind == "ABC tune"][:EXPORTS]
    back: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for path in readable:
            back += exported(path, Path(folder))
    summary = dict(
        files=len(done),
        notes=sum(row["notes"] for row in done),
        files_that_agree=sum(not row["differences"] for row in done),
        differences=dict(total),
        refused=[row for row in rows if "refused" in row],
        music21_failed=[row for row in rows if "music21_failed" in row],
        exports=dict(files=len(readable), differences=dict(back)),
        kinds={kind: sum(row["kind"] == kind for row in done) for kind in sorted({row["kind"] for row in done})},
        files_that_differ=[row for row in done if row["differences"]],
    )
    write("melody", summary | made("numpy", "mido", "music21"))


if __name__ == "__main__":
    main()
