"""Where words fight a tune: the check, its picture, and the sound."""

import json
import random
import re
import wave
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cantolyric.cli.main import main
from cantolyric.errors import ArgumentError, FileError, MissingDependencyError
from cantolyric.lyricfile import parse_lyrics
from cantolyric.melody import Melody
from cantolyric.melody.check import MelodyCheck
from cantolyric.melody.notes import Note, pitch_name
from cantolyric.melody.picture import check_page
from cantolyric.melody.sound import contour, frequency, melody_sound, seconds, wav_bytes
from cantolyric.melody.tones import CLASSES, class_ranges, is_allowed
from cantolyric.reading import default_reader
from cantolyric.template.template import ToneTemplate

TUNE = "C4 D4 E4 C4 | E4 F4 G4"
RIGHT = "微雨過後\n涼風起"  # mei4 jyu5 gwo3 hau6 0442, loeng4 fung1 hei2 033
ROUND = "X:1\nT:Round\nM:4/4\nL:1/4\nQ:1/4=120\nK:C\nC D E C | E F G2 |]\n"


def classes(check: MelodyCheck) -> list[str]:
    return ["".join(n.tone_class for n in line.notes) for line in check.lines]


def test_each_move():
    check = Melody.parse(TUNE).check(RIGHT)
    assert check.ok and classes(check) == ["0442", "033"] and not check.fights
    assert [(m.line, m.place, m.chars, m.classes, m.tune, m.tones) for m in check.lines[0].moves] == [
        (1, 1, "微雨", "04", 1, 1),
        (1, 2, "雨過", "44", 1, 0),
        (1, 3, "過後", "42", -1, -1),
    ]
    assert [n.pitch for n in check.lines[1].notes] == ["E4", "F4", "G4"]
    assert len(check.moves) == 5  # nothing is asked across the end of a phrase


def test_a_fight_says_what_would_fit():
    check = Melody.parse("C4 D4 E4 C4").check("微雨後過")  # 0424
    assert [(m.place, m.classes, m.right) for m in check.moves] == [(1, "04", True), (2, "42", False), (3, "24", False)]
    text = str(check)
    assert "雨 jyu5 (4) → 後 hau6 (2): the tune rises from D4 to E4, but the tones fall" in text
    assert "雨 could be 0 or 2, or 後 could be 4" in text  # 4 → 4 → 4
    assert "1 of 3 moves fit the tune" in text and not check.ok
    level = Melody.parse("C4 C4").check("我後")
    assert str(level.fights[0]).startswith("我 ngo5 (4) → 後 hau6 (2): the tune repeats C4, but the tones fall")


def test_moves_and_remedies_against_the_rule():
    "Random tunes and lines: the verdict is `is_allowed`, and the remedies are what changing one class can mend."
    rng, chars = random.Random(3), "微雨過後涼風起我人夜"
    seen = set()
    for _ in range(300):
        size = rng.randint(1, 7)
        pitches = [rng.randint(58, 64) for _ in range(size)]
        check = Melody.parse(" ".join(map(pitch_name, pitches))).check("，".join(rng.choices(chars, k=size)))
        own = classes(check)[0]
        steps = list(zip(pitches, pitches[1:]))
        for k, move in enumerate(check.moves):
            assert move.right == is_allowed(own[k], own[k + 1], steps[k][1] - steps[k][0])
            seen.add(move.right)
        for k, note in enumerate(check.lines[0].notes):
            around = [j for j in (k - 1, k) if 0 <= j < size - 1]
            others = {c: own[:k] + c + own[k + 1 :] for c in CLASSES}
            mended = (
                c
                for c, x in others.items()
                if all(is_allowed(*x[j : j + 2], steps[j][1] - steps[j][0]) for j in around)
            )
            assert note.fits == "".join(mended)
        assert check.ok == all(m.right for m in check.moves)
    assert seen == {True, False}


def test_ranges_next_to_notes_without_a_class():
    phrase = Melody.parse("60 62 60").phrases[0]
    assert class_ranges(phrase, "2*0") == (CLASSES, "243", CLASSES)
    assert class_ranges(phrase, "*3?") == (CLASSES, CLASSES, CLASSES)
    assert class_ranges(phrase, "-2-") == ("02", CLASSES, "02")


def test_english_digits_and_counts():
    melody = Melody.parse("C4 D4 C4 D4 E4")
    check = melody.check("hello 2點，愛")  # 愛 oi3
    assert [n.char for n in check.lines[0].notes] == ["hel", "lo", "兩", "點", "愛"]
    assert classes(check) == ["**434"] and [m.classes for m in check.moves] == ["43", "34"]
    assert [m is None for m in check.lines[0].all_moves] == [True, True, False, False]
    assert melody.check("hello愛", syllables={"Hello": 4}).lines[0].extra == ()
    with pytest.raises(ArgumentError, match="syllables="):
        melody.check("愛", syllables={"愛": 2})


def test_lines_that_are_too_long_or_too_short_shift_nothing():
    melody = Melody.parse("C4 D4 E4 C4 | E4 F4 G4 | E4 F4")
    check = melody.check("微雨\n涼風起夜\n夜雨\n人")
    assert [len(line.unsung) for line in check.lines] == [2, 0, 0, 0]
    assert [len(line.extra) for line in check.lines] == [0, 1, 0, 1]
    assert [line.phrase for line in check.lines] == [1, 2, 3, 0] and not check.ok
    assert classes(check) == ["04--", "0332", "24", "0"]
    assert [len(line.moves) for line in check.lines] == [1, 2, 1, 0]
    problems = [p for line in check.lines for p in line.problems]
    assert problems == [
        "2 syllables for 4 notes; nothing is sung from E4 (note 3) on",
        "4 syllables for 3 notes; no note for 夜",
        "the melody has no phrase for this line of 1 syllable",
    ]
    short = melody.check("微雨過後")
    assert [line.number for line in short.lines] == [1, 0, 0]
    assert short.lines[1].problems == ("no line of lyrics for the 3 notes of this phrase",)


def test_phrases_that_would_fit_are_found():
    check = Melody.parse("C4 D4 E4 C4 E4 F4 G4").check(RIGHT)
    assert check.other_phrases == (4, 3) and "with phrases of 4,3 notes" in str(check)
    assert Melody.parse(TUNE).check(RIGHT).other_phrases == ()
    assert Melody.parse("C4 D4").check(RIGHT).other_phrases == ()


def test_text_is_parsed_like_a_file(tmp_path):
    text = "《歌》\n\n[Verse 1]\n微雨過後（雨）\n\n副歌：\n涼風起 x2\n"
    melody = Melody.parse(TUNE)
    check = melody.check(text)
    assert check.ok and [line.number for line in check.lines] == [4, 7] and "4. 微雨過後" in str(check)
    assert melody.check(parse_lyrics(text)) == check
    melody.to_musicxml(tmp_path / "a.musicxml", text)
    assert [n.lyric for n in Melody.from_file(tmp_path / "a.musicxml").notes] == list("微雨過後涼風起")
    with pytest.raises(ArgumentError, match="expected lyrics as a string"):
        melody.check(5)
    with pytest.raises(ArgumentError, match="expected lyrics as a string"):
        melody.to_musicxml(tmp_path / "b.musicxml", 5)


def test_a_character_without_a_reading_is_a_problem():
    check = Melody.parse("C4 D4 E4").check("雨の夜")
    assert classes(check) == ["4?2"] and check.moves == () and not check.ok
    assert check.lines[0].problems == ("no reading is known for の",)


def test_syllables_are_counted_as_in_the_check_of_a_template():
    rng, parts = random.Random(5), ["雨", "hello", "12", "，", "love", "夜", "の", " ", "OK", "2點"]
    for _ in range(100):
        text = "夜" + "".join(rng.choices(parts, k=6))
        found = Melody.parse("60 " * 40).check(text, syllables={"love": 3}).lines[0]
        report = ToneTemplate.parse("*").check(text, syllables={"love": 3})
        assert [(n.char, n.tone_class) for n in found.notes if n.sung] == [(c.char, c.got) for c in report.lines[0]]


def test_exports_take_syllable_counts(tmp_path):
    melody = Melody.parse("C4 D4 E4")
    for path in (tmp_path / "a.musicxml", tmp_path / "a.mid"):
        write = melody.to_midi if path.suffix == ".mid" else melody.to_musicxml
        if path.suffix == ".mid":
            pytest.importorskip("mido")
        write(path, "愛 fire", syllables={"fire": 2})
        assert "".join(n.lyric for n in Melody.from_file(path).notes).replace("-", "") == "愛fire"
        with pytest.raises(ArgumentError, match="has 2 syllables"):
            write(path, "愛 fire", syllables={"fire": 1})


def test_a_wide_miss_is_a_hint_and_no_fault():
    check = Melody.parse("C4 C#4 | C4 G4").check("人高\n人高")  # 0 → 3
    assert check.ok and (check.widest_miss.line, check.widest_miss.miss) == (1, 6)
    assert "line 1, note 1, 人高: 1 semitone for 0 → 3, 6 off" in str(check)
    assert Melody.parse("C4 G4 F4").check("人高高").hint == ""  # the same class may move by any interval


# picture


class Parsed(HTMLParser):
    "Names and attributes of all elements; every element is closed."

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("br", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_decl(self, decl):
        pass


def test_the_picture_marks_each_fight_and_has_names():
    check = Melody.parse(TUNE).check("微雨後過\n涼風の")
    picture = Parsed(check._repr_html_())
    svgs = [attrs for tag, attrs in picture.elements if tag == "svg"]
    assert len(svgs) == 2 and all(a["role"] == "img" for a in svgs)
    assert "tune up up down; tones up down up; forbidden: 雨 jyu5 (4) to 後 hau6 (2)" in svgs[0]["aria-label"]
    zigzags = [a for tag, a in picture.elements if tag == "path" and a["d"].count("L") > 10]
    assert len(zigzags) == len(check.fights) == 2
    assert check._repr_html_().count("✗</text>") == 2 and "tones ↓" in check._repr_html_()
    dots = [a for tag, a in picture.elements if tag == "circle"]
    assert len(dots) == sum(bool(n.jyutping) for line in check.lines for n in line.notes)


def test_strokes_follow_the_tones():
    "Higher on the page is a smaller y: tone 2 ends at the level of tone 1, tone 4 below all others."
    check = Melody.parse("C4 C4 C4 C4 C4 C4").check("詩史試時市事")  # si1 to si6
    ends = [float(a["cy"]) for tag, a in Parsed(check._repr_html_()).elements if tag == "circle"]
    assert ends[0] == ends[1] < ends[2] == ends[4] < ends[5] < ends[3]


def test_a_melody_and_a_page_show_themselves():
    melody = Melody.parse(TUNE)
    shown = Parsed(melody._repr_html_())
    assert sum(tag == "svg" for tag, _ in shown.elements) == 2 and "/".join(melody.digits()) in melody._repr_html_()
    page = check_page(melody.check(RIGHT), "a < b")
    assert Parsed(page) and page.startswith("<!doctype html>") and "<title>a &lt; b</title>" in page
    assert "Zigzags" not in page


# sound


def loudest(sound: np.ndarray, rate: int) -> float:
    "The frequency with the most energy, in hertz."
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 16 * len(sound)))
    return float(np.fft.rfftfreq(16 * len(sound), 1 / rate)[spectrum.argmax()])


def read_wav(path) -> tuple[np.ndarray, int]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2"), file.getframerate()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_each_note_sounds_at_its_pitch(tmp_path, rate):
    melody = Melody.parse("C4 A4 G3:2 r C5:1/2 Bb4")
    melody.to_wav(tmp_path / "a.wav", rate)
    sound, found = read_wav(tmp_path / "a.wav")
    end = 60 / 100 * 6.5  # 100 quarter notes per minute
    assert found == rate and len(sound) == round((end + 0.3) * rate) and 0 < np.abs(sound).max() < 32767
    for note in melody.notes:
        start, stop = (round(seconds(t, ()) * rate) for t in (note.onset, note.end))
        assert abs(loudest(sound[start:stop] / 32768, rate) / frequency(note.pitch) - 1) < 0.003  # a semitone: 0.059
    rest = sound[round(4 * 0.6 * rate) + 1 : round(5 * 0.6 * rate) - 1]
    assert not rest.any()


def test_tempos_and_melismas(tmp_path):
    tempos = ((Fraction(0), Fraction(60)), (Fraction(2), Fraction(120)))
    assert [seconds(Fraction(x), tempos) for x in (0, 1, 2, 4)] == [0, 1, 2, 3]
    assert seconds(Fraction(4), ((Fraction(2), Fraction(120)),)) == 2  # the first tempo also holds before it
    path = tmp_path / "t.abc"
    path.write_text("X:1\nM:4/4\nL:1/4\nQ:1/4=60\nK:C\n(CA) |]\n")
    melody = Melody.from_file(path)
    assert len(melody) == 1
    sound = melody_sound([(n, None) for n in melody.notes], melody.tempos, 8_000)
    halves = sound[:8_000], sound[8_000:16_000]
    assert [round(loudest(x, 8_000)) for x in halves] == [262, 440]


def test_no_sound_clips():
    notes = [(Note(Fraction(0), Fraction(1), p), t) for p in range(48, 84, 4) for t in (1, 2, 3, 4, 5, 6)]
    sound = melody_sound(notes)
    assert np.abs(sound).max() == pytest.approx(0.9)
    assert np.frombuffer(wav_bytes(np.array([-1.0, 1.0]), 8_000)[44:], "<i2").tolist() == [-32767, 32767]


def test_the_voice_follows_the_tones_and_not_the_tune():
    ends = {tone: contour(tone, 60, 1_000)[-1] for tone in range(1, 7)}
    assert [ends[t] for t in (4, 6, 3, 5, 1, 2)] == [56, 58, 60, 60, 64, 64]
    words = Melody.parse("A4 E5").check("高人")  # gou1 jan4: the tune rises, the tones fall
    assert [m.right for m in words.moves] == [False]
    notes = [(n.note, int(n.jyutping[-1])) for n in words.lines[0].notes]
    voice = melody_sound(notes, rate=16_000) - melody_sound([(n, None) for n, _ in notes], rate=16_000)
    first, second = (loudest(voice[k : k + 7_200], 16_000) for k in (0, 9_600))
    assert first > 1.3 * second and first == pytest.approx(frequency((69 + 76) / 2 - 12 + 4), rel=0.01)


@pytest.mark.parametrize("rate", [0, 1_000, 8_000.0, True, "8000"])
def test_wrong_rates(rate):
    with pytest.raises(ArgumentError, match="rate="):
        melody_sound([], (), rate)


def test_very_long_melodies_and_unwritable_files(tmp_path):
    with pytest.raises(ArgumentError, match="at most 1,200 are played"):
        Melody.parse("C4:99 " * 30).to_wav(tmp_path / "a.wav")
    with pytest.raises(FileError, match="cannot write it"):
        Melody.parse("C4").to_wav(tmp_path / "none" / "a.wav")
    assert not list(tmp_path.iterdir())


def test_the_player(monkeypatch):
    check = Melody.parse(TUNE).check(RIGHT)
    for playable in (check, Melody.parse(TUNE)):
        shown = playable.audio(rate=8_000)._repr_html_()
        assert "data:audio/wav;base64," in shown
    assert check.audio(8_000).data != Melody.parse(TUNE).audio(8_000).data
    monkeypatch.setitem(__import__("sys").modules, "IPython.display", None)
    with pytest.raises(MissingDependencyError, match=r"cantolyric\[course\]"):
        check.audio()


# command line


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.abc").write_text(ROUND)
    (tmp_path / "right.txt").write_text(RIGHT, encoding="utf-8")
    (tmp_path / "wrong.txt").write_text("[Verse]\n微雨後過\n涼風起", encoding="utf-8")

    def run(*args):
        capsys.readouterr()
        return main(["check", *args]), *capsys.readouterr()

    return run


def test_check_a_file(run, tmp_path):
    where = ("--melody", "t.abc", "--phrases", "4,3")
    code, out, _ = run(*where, "right.txt")
    assert code == 0 and "5 of 5 moves fit the tune" in out
    code, out, _ = run(*where, "--html", "a.html", "--wav", "a.wav", "wrong.txt")
    assert code == 1 and "2. 微雨後過" in out and "3 of 5 moves" in out
    assert Parsed((tmp_path / "a.html").read_text(encoding="utf-8")) and len(read_wav("a.wav")[0]) > 16_000
    code, out, _ = run("--json", *where, "wrong.txt")
    data = json.loads(out)
    assert code == 1 and (data["ok"], data["moves"], data["fights"]) == (False, 5, 2)
    first = data["lines"][0]
    assert [m["right"] for m in first["moves"]] == [True, False, False] and first["line"] == 2
    note = dict(pitch="D4", midi=62, char="雨", jyutping="jyu5", confidence="agreed", tone_class="4", fits="02")
    assert first["notes"][1] == note
    assert run(*where, "--text", RIGHT)[0] == 0
    code, out, _ = run("--melody", "t.abc", "right.txt")
    assert code == 1 and "with phrases of 4,3 notes" in out


@pytest.mark.parametrize(
    "args, problem",
    [
        (["right.txt"], "--tones, or a tune with --melody"),
        (["--tones", "02", "--melody", "t.abc", "right.txt"], "give only one"),
        (["--melody", "t.abc", "--text", "雨", "right.txt"], "--text and the file 'right.txt' are both given"),
        (["--tones", "02", "--wav", "a.wav", "right.txt"], "--wav is for --melody"),
        (["--tones", "02", "--phrases", "4", "right.txt"], "--phrases is for --melody"),
        (["--melody", "t.abc", "--scheme", "0243", "right.txt"], "--scheme is for --tones"),
        (["--melody", "t.abc", "--phrases", "4,x", "right.txt"], "--phrases '4,x': expected the number of notes"),
        (["--melody", "t.abc", "--phrases", "4,4", "right.txt"], "--phrases: they add up to 8, but the melody has 7"),
        (["--melody", "t.abc", "--tune", "3", "right.txt"], "--tune: "),
        (["--melody", "none.mid", "right.txt"], "'none.mid': cannot read it"),
        (["--melody", "right.txt", "right.txt"], "'right.txt': line 1, column 1"),
        (["--melody", "chord.abc", "right.txt"], "--chords highest"),
        (["--melody", "t.abc", "--html", "no/a.html", "right.txt"], "'no/a.html': cannot write it"),
    ],
)
def test_wrong_input_names_the_remedy(run, tmp_path, args, problem):
    (tmp_path / "chord.abc").write_text("X:1\nL:1/4\nK:C\n[CE] D\n")
    code, out, err = run(*args)
    assert code == 2 and out == "" and problem in err and err.count("\n") == 1, err


def test_the_reader_is_used():
    melody = Melody.parse("C4 D4")  # 種 is zung3 in 種花, and zung2 on its own
    assert melody.check("種花").lines[0].notes[0].jyutping == "zung3"
    assert melody.check("種花", default_reader()) == melody.check("種花")
    assert melody.check("種花", "characters").lines[0].notes[0].jyutping == "zung2"


def test_lesson_03_glosses_each_line_with_its_reading():
    notebook = json.loads((Path(__file__).resolve().parent.parent / "nbs/03_melody.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    pairs = re.findall(r"([\u3400-\u9fff]+)(?: \| | \()\*([a-z1-6 ]+)\*", text)
    assert len(pairs) >= 15
    for characters, jyutping in pairs:
        assert default_reader().jyutping(characters) == jyutping.split(), characters


def test_uncertain_readings_are_marked():
    check = Melody.parse("G4 G4 F4").check("我到呀")
    assert [n.marked for n in check.lines[0].notes] == ["ngo5", "dou3?", "aa4~"]
    assert "ngo5 dou3? aa4~" in str(check) and check.legend in str(check) and "~ the sources differ" in check.legend
    assert ">dou3?<" in check._repr_html_() and "? guessed" in check._repr_html_()
    assert Melody.parse("G4 G4").check("見到").legend == ""
