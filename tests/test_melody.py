"""Melodies: readers, syllables and phrases, likely tones, export."""

import importlib
import json
import os
import random
import struct
import zipfile
from fractions import Fraction
from io import BytesIO
from itertools import product
from pathlib import Path

import pytest

from cantolyric.errors import ArgumentError, CantolyricError, FileError, MissingDependencyError, ParseError
from cantolyric.melody import Key, Melody, Meter, PhraseRules, ReadOptions
from cantolyric.melody import midi_reader as midi_module
from cantolyric.melody.abc_pitch import parse_key
from cantolyric.melody.export import lyric_words
from cantolyric.melody.musicxml_reader import parse_xml
from cantolyric.melody.tones import CLASSES, allowed_classes, is_allowed, likely_digits, table_distance
from cantolyric.reading import default_reader
from cantolyric.template.template import ToneTemplate


def listed(melody: Melody) -> list[tuple]:
    "Onset, duration and pitch of every note; whole numbers compare equal to fractions."
    return [(n.onset, n.duration, n.pitch) for n in melody.notes]


def pitches(melody: Melody) -> list[int]:
    return [n.pitch for n in melody.notes]


def sizes(melody: Melody) -> list[int]:
    return [len(p) for p in melody.phrases]


def lyrics(melody: Melody) -> list[str | None]:
    return [n.lyric for n in melody.notes]


def saved(folder: Path, content: str | bytes, name: str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# ABC


@pytest.fixture
def abc(tmp_path):
    def read(body: str, header: str = "M:4/4\nL:1/4\nK:C\n", **options) -> Melody:
        return Melody.from_file(saved(tmp_path, f"X:1\nT:t\n{header}{body}\n", "t.abc"), **options)

    return read


def test_abc_joins_a_tie_over_a_bar_line_and_drops_grace_notes(abc):
    melody = abc("C2 {d}E F- | F2 z {/cd}G |")
    assert listed(melody) == [(0, 2, 60), (2, 1, 64), (3, 3, 65), (7, 1, 67)]
    assert sizes(melody) == [3, 1]  # the rest ends a phrase


def test_abc_accidentals_last_until_the_bar_line(abc):
    assert pitches(abc("^F F f | F _B, =B, | ^c- | c d c |")) == [66, 66, 77, 65, 58, 59, 73, 74, 72]
    for scope, third in (("pitch", [66, 66, 78]), ("octave", [66, 66, 77]), ("not", [66, 65, 77])):
        header = f"%%propagate-accidentals {scope}\nL:1/4\nK:C\n"
        assert pitches(abc("^F F f |", header=header)) == third


@pytest.mark.parametrize(
    "key, fifths",
    [("G", 1), ("Bb", -2), ("Am", 0), ("F#m", 3), ("Ddor", 0), ("E Phrygian", 0), ("Amix", 2), ("Flyd", 0)],
)
def test_abc_keys_and_modes(key, fifths):
    found = parse_key(key)[0]
    assert found is not None and found.fifths == fifths


def test_abc_keys_with_accidentals_of_their_own(abc):
    assert pitches(abc("F G A B |", header="L:1/4\nK:D Phr ^f\n")) == [66, 67, 69, 70]
    assert pitches(abc("F C [K:G] F C |", header="L:1/4\nK:D\n")) == [66, 61, 66, 60]
    assert pitches(abc("F C |", header="L:1/4\nK:none\n")) == [65, 60]


def test_abc_lengths_tuplets_and_broken_rhythm(abc):
    melody = abc("C/ C3/2 C// (3C/C/C/ (3:2:2 C C/ C>D C<D C>>D |", melismas="none")
    half, third, quarter = Fraction(1, 2), Fraction(1, 3), Fraction(1, 4)
    found = [n.duration for n in melody.notes]
    assert found[:8] == [half, 3 * half, quarter, third, third, third, 2 * third, third]
    assert found[8:] == [3 * half, half, half, 3 * half, 7 * quarter, quarter]
    assert [n.duration for n in abc("(2abc (4abcd |", header="M:6/8\nL:1/8\nK:C\n").notes][:2] == [3 * quarter] * 2


def test_abc_unit_length_follows_the_meter(abc):
    assert abc("C |", header="M:2/4\nK:C\n").notes[0].duration == Fraction(1, 4)
    assert abc("C |", header="M:6/8\nK:C\n").notes[0].duration == Fraction(1, 2)
    assert abc("C |", header="M:C|\nK:C\n").meter == Meter(2, 2)


def test_abc_repeats_and_endings(abc):
    assert pitches(abc("|: C D |1 E :|2 F || G |]")) == [60, 62, 64, 60, 62, 65, 67]
    assert pitches(abc("C || D :| E |]")) == [60, 62, 62, 64]
    assert pitches(abc("|: C |1 D :|2 E |: F :|")) == [60, 62, 60, 64, 65, 65]
    assert pitches(abc("C |: D :: E :| F |]")) == [60, 62, 62, 64, 64, 65]
    assert pitches(abc("|: C |[1,3 D :|[2 E :| F |]")) == [60, 62, 60, 64, 60, 62, 65]


def test_abc_pick_up_is_bar_zero(abc):
    melody = abc("G | c2 e2 | d4 |]", header="M:4/4\nL:1/4\nQ:1/4=96\nK:C\n")
    assert (melody.pickup, melody.tempo, melody.key) == (1, 96, Key(0))
    assert [n.bar for n in melody.notes] == [0, 1, 1, 2]


def test_abc_words_show_melismas(abc):
    melody = abc("(CD) E F | G A2 B |\nw: 落 _ 雨 收 | 柴 _ 喇\nw: a _ b c | d- e f")
    assert lyrics(melody) == ["落", "雨", "收", "柴", "喇"]
    assert melody.notes[0].duration == 2 and [n.pitch for n in melody.notes[0].parts] == [60, 62]
    assert len(abc("(CD) E |\nw: 落 _ 雨", melismas="none")) == 3
    second = abc("(CD) E F | G A2 B |\nw: 落 _ 雨 收 | 柴 _ 喇\nw: a _ b c | d- e f", options=ReadOptions(verse=2))
    assert lyrics(second) == ["a", "b", "c", "d-", "e", "f"]


def test_each_pass_of_a_repeat_has_its_verse(abc):
    melody = abc("|: C D E F :|\nw: 落 雨 收 柴\nw: 天 晴 出 街")
    assert "".join(x or "?" for x in lyrics(melody)) == "落雨收柴天晴出街"


def test_slurs_without_lyrics(abc):
    melody = abc("(CD) E | (CDEFG) A |")
    assert sizes(melody) == [7, 1]  # two notes on one syllable; a long slur is a phrase
    assert len(abc("(CD) E |", melismas="lyrics")) == 3


def test_abc_marks_end_phrases(abc):
    assert sizes(abc("C D !breath!E F | HG A || B c |\nd e |")) == [3, 2, 1, 2, 2]
    assert sizes(abc("C D E F | G A \\\nB c |\nd e |")) == [8, 2]


def test_abc_chords_are_refused_or_reduced(abc):
    with pytest.raises(FileError, match=r"line 6, column 5 .*chord '\[CEG\]2'.*chords='highest'"):
        abc("C D [CEG]2 |")
    melody = abc("C D [CEG]2 |", options=ReadOptions(chords="highest"))
    assert listed(melody) == [(0, 1, 60), (1, 1, 62), (2, 2, 67)]


TWO_VOICES = 'V:S name="Soprano"\nV:A name="Alto"\nK:C\n[V:S] c d |\n[V:A] C D |\n[V:S] e f |\n[V:A] E F |'


def test_abc_voices_are_chosen(abc):
    with pytest.raises(ArgumentError, match=r"t\.abc.*2 parts.*1 = 'S' Soprano.*2 = 'A' Alto"):
        abc(TWO_VOICES, header="L:1/4\n")
    for part in ("A", "alto", "Alto", 2):
        assert pitches(abc(TWO_VOICES, header="L:1/4\n", part=part)) == [60, 62, 64, 65]
    with pytest.raises(ArgumentError, match="no parts have this name"):
        abc(TWO_VOICES, header="L:1/4\n", part="Tenor")


def test_abc_transposition_is_ignored_with_a_remark(abc):
    assert "ignored" in abc("C D |", header="L:1/4\n%%transpose 2\nK:C transpose=-2\n").remarks[0]


def test_abc_words_without_notes_are_remarked(abc):
    melody = abc("C D |\nw: one two three")
    assert lyrics(melody) == ["one", "two"] and "more syllables" in melody.remarks[0]


def test_abc_of_several_tunes(tmp_path):
    path = saved(tmp_path, "X:1\nT:One\nL:1/4\nK:C\nC D|\n\nX:7\nT:Two\nL:1/4\nK:C\nE F|\n", "two.abc")
    with pytest.raises(ArgumentError, match="X:1 One.*X:7 Two"):
        Melody.from_file(path)
    assert pitches(Melody.from_file(path, options=ReadOptions(tune=7))) == [64, 65]
    with pytest.raises(ArgumentError, match="no tunes have this"):
        Melody.from_file(path, options=ReadOptions(tune=2))


def test_abc_symbols_before_notes_are_no_notes(abc):
    assert pitches(abc("uC VD .E ~F KG |")) == [60, 62, 64, 65, 67]


def test_abc_keeps_its_unit_length_when_the_meter_changes(abc):
    assert [n.duration for n in abc("C [M:2/4] C |", header="M:4/4\nK:C\n").notes] == [Fraction(1, 2)] * 2


@pytest.mark.parametrize(
    "text, problem",
    [
        ("X:1\nK:C\nC D & E |", "line 3, column 5"),
        ("X:1\nK:H\nC D |", "line 2 of the ABC text: the key 'H'"),
        ("X:1\nM:4/0\nK:C\nC |", "line 2 of the ABC text: the meter"),
        ("X:1\nT:no key\nC D |", "no K: field"),
        ("X:1\nK:C\n", "no notes"),
        ("X:1\nK:C\nC0 |", "line 3, column 1"),
        ("X:1\nK:C\n|: C |1-2-3 D :|", "the ending '1-2-3'"),
        ("X:1\nK:C\nC99999999 |", "out of range"),
        ("X:1\nK:C\n" + "(" * 30 + "C", "more than 20 open slurs"),
        ("X:1\nK:C\n" + "Z999 " * 200 + "C", "quarter notes long"),
        ("X:1\nK:C\nC" + "1" * 50_000, "out of range"),
        ("X:1\nK:C\n" + "|: " + "C" * 9_999 + " |1-99 D :|", "more than 20,000 notes"),
    ],
)
def test_abc_errors_say_where(tmp_path, text, problem):
    with pytest.raises(FileError) as caught:
        Melody.from_file(saved(tmp_path, text, "bad.abc"))
    assert problem in str(caught.value) and "bad.abc" in str(caught.value)


# MusicXML


def xml_note(
    step: str = "", octave: int = 4, duration: int = 2, inside: str = "", first: str = "", alter: int = 0
) -> str:
    pitch = f"<pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave></pitch>" if step else "<rest/>"
    length = "" if "grace" in first else f"<duration>{duration}</duration>"
    return f"<note>{first}{pitch}{length}{inside}</note>"


def xml_score(*parts: str, names: tuple[str, ...] = ("Voice",), attributes: str = "") -> str:
    "A score with two divisions per quarter note; `|` separates the measures of a part."
    listed = "".join(f'<score-part id="P{k}"><part-name>{n}</part-name></score-part>' for k, n in enumerate(names))
    time = "<time><beats>4</beats><beat-type>4</beat-type></time>"
    first = f"<attributes><divisions>2</divisions>{time}{attributes}</attributes>"
    text = ""
    for k, part in enumerate(parts):
        measures = part.split("|")
        inside = (f'<measure number="{n}">{first if n == 1 else ""}{m}</measure>' for n, m in enumerate(measures, 1))
        text += f'<part id="P{k}">{"".join(inside)}</part>'
    return f'<?xml version="1.0"?><score-partwise><part-list>{listed}</part-list>{text}</score-partwise>'


@pytest.fixture
def xml(tmp_path):
    def read(*parts: str, names: tuple[str, ...] = ("Voice",), attributes: str = "", **options) -> Melody:
        return Melody.from_file(
            saved(tmp_path, xml_score(*parts, names=names, attributes=attributes), "t.musicxml"), **options
        )

    return read


def lyric(text: str, syllabic: str = "single", number: int = 1, extend: str = "") -> str:
    return f'<lyric number="{number}"><syllabic>{syllabic}</syllabic><text>{text}</text>{extend}</lyric>'


def test_musicxml_ties_grace_notes_and_rests(xml):
    melody = xml(
        xml_note("C", duration=4)
        + xml_note("D", first="<grace/>")
        + xml_note("E", duration=4, inside='<tie type="start"/>')
        + "|"
        + xml_note("E", duration=2, inside='<tie type="stop"/>')
        + xml_note()
        + xml_note("F", duration=4, alter=1)
    )
    assert listed(melody) == [(0, 2, 60), (2, 3, 64), (6, 2, 66)]
    assert sizes(melody) == [2, 1] and [n.bar for n in melody.notes] == [1, 1, 2]


def test_musicxml_sounding_pitch_of_a_transposing_part(xml):
    clarinet = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
    melody = xml(xml_note("D"), attributes=f"<key><fifths>2</fifths></key>{clarinet}")
    assert pitches(melody) == [60] and melody.key == Key(0)
    tenor = "<transpose><chromatic>0</chromatic><octave-change>-1</octave-change></transpose>"
    assert pitches(xml(xml_note("C"), attributes=tenor)) == [48]


def test_musicxml_melismas_and_lyrics(xml):
    slur = '<notations><slur type="{}" number="1"/></notations>'
    melody = xml(
        xml_note("C", inside=slur.format("start") + lyric("落"))
        + xml_note("D", inside=slur.format("stop"))
        + xml_note("E", inside=lyric("ma", "begin"))
        + xml_note("F", inside=lyric("ny", "end", extend="<extend/>"))
        + "|"
        + xml_note("G")
        + xml_note("A", inside=lyric("柴"))
    )
    assert lyrics(melody) == ["落", "ma-", "ny", "柴"]
    assert [len(n.parts) for n in melody.notes] == [2, 1, 2, 1]


def test_musicxml_repeat_with_two_endings(xml):
    forward = '<barline location="left"><repeat direction="forward"/></barline>'
    first = '<barline location="left"><ending number="1" type="start"/></barline>'
    back = '<barline location="right"><ending number="1" type="stop"/><repeat direction="backward"/></barline>'
    second = '<barline location="left"><ending number="2" type="start"/></barline>'
    melody = xml(
        f"{forward}{xml_note('C', duration=8)}|{first}{xml_note('D', duration=8)}{back}"
        f"|{second}{xml_note('E', duration=8)}|{xml_note('F', duration=8)}"
    )
    assert listed(melody) == [(0, 4, 60), (4, 4, 62), (8, 4, 60), (12, 4, 64), (16, 4, 65)]


def test_musicxml_pick_up_key_and_tempo(xml):
    tempo = '<direction><sound tempo="72"/></direction>'
    melody = xml(tempo + xml_note("G") + "|" + xml_note("C", duration=8), attributes="<key><fifths>-3</fifths></key>")
    assert (melody.pickup, melody.tempo, str(melody.key), melody.meter) == (1, 72, "Eb major", Meter(4, 4))


def test_musicxml_voices_and_chords_must_be_chosen(xml):
    two = (
        xml_note("C", duration=8, inside="<voice>1</voice>")
        + "<backup><duration>8</duration></backup>"
        + xml_note("E", duration=4, inside="<voice>2</voice>")
        + xml_note("F", duration=4, inside="<voice>2</voice>")
    )
    with pytest.raises(ArgumentError, match=r"2 voices.*1 = '1' \(1 notes\); 2 = '2' \(2 notes\)"):
        xml(two)
    assert listed(xml(two, options=ReadOptions(voice="2"))) == [(0, 2, 64), (2, 2, 65)]
    chord = xml_note("C") + xml_note("E", first="<chord/>")
    with pytest.raises(FileError, match="bar 1: a chord.*chords='highest'"):
        xml(chord)
    assert listed(xml(chord, options=ReadOptions(chords="highest"))) == [(0, 1, 64)]


def test_musicxml_parts_are_chosen_by_name_or_number(xml):
    parts, names = (
        (xml_note("C"), xml_note("E"), "<note><unpitched/><duration>2</duration></note>"),
        ("人聲", "結他", "鼓"),
    )
    with pytest.raises(ArgumentError, match=r"2 parts.*1 = '人聲' \(1 notes\); 2 = '結他'"):
        xml(*parts, names=names)
    assert pitches(xml(*parts, names=names, part="結他")) == pitches(xml(*parts, names=names, part=2)) == [64]


def test_musicxml_marks_end_phrases(xml):
    breath = "<notations><articulations><breath-mark/></articulations></notations>"
    fermata = "<notations><fermata/></notations>"
    double = '<barline location="right"><bar-style>light-light</bar-style></barline>'
    text = xml_note("C", inside=breath) + xml_note("D") + xml_note("E", inside=fermata) + xml_note("F") + double
    melody = xml(text + "|" + xml_note("G"))
    assert sizes(melody) == [1, 2, 1, 1]


def mxl(score: str, name: str = "score.xml", container: bool = True) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if container:
            rootfile = f'<container><rootfiles><rootfile full-path="{name}"/></rootfiles></container>'
            archive.writestr("META-INF/container.xml", rootfile)
        archive.writestr(name, score)
    return file.getvalue()


@pytest.mark.parametrize("container", [True, False])
def test_compressed_musicxml_in_a_chinese_folder(tmp_path, container):
    folder = tmp_path / "旋律"
    folder.mkdir()
    path = saved(folder, mxl(xml_score(xml_note("C")), "樂譜.xml", container), "落雨.mxl")
    melody = Melody.from_file(path)
    assert pitches(melody) == [60] and melody.source == "落雨.mxl"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_musicxml_encodings(tmp_path, encoding):
    score = xml_score(xml_note("C", inside=lyric("落"))).replace('<?xml version="1.0"?>', "")
    assert lyrics(Melody.from_file(saved(tmp_path, score.encode(encoding), "t.xml"))) == ["落"]


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><score-partwise>&b;</score-partwise>'


@pytest.mark.parametrize(
    "content, problem",
    [
        (LAUGHS, "defines an XML entity"),
        ("<score-partwise><part-list>", "the XML is damaged"),
        ("<html></html>", "not a MusicXML score"),
        ("<score-timewise/>", "timewise"),
        ("<a>" * 100_000, "nested"),
        (xml_score(xml_note("H")), "bar 1: <step> is 'H'"),
        (xml_score("<note><pitch><step>C</step><octave>x</octave></pitch></note>"), "<octave> is 'x'"),
        (xml_score(xml_note("C", octave=44)), "outside the range"),
        (xml_score(xml_note("C").replace("<duration>2", "<duration>1e999999999")), "<duration> is '1e999999999'"),
        (xml_score(xml_note("C", duration=-2)), "negative"),
        (mxl("x" * 11_000_000), "larger than 10 MB"),
        (mxl("no", "readme.txt", False), "holds no score"),
        (mxl(xml_score(xml_note("C")))[:-40], "compressed score is damaged"),
        (b"", "it is empty"),
        (b"\x00\x01\x02", "none of the known formats"),
    ],
)
def test_hostile_and_damaged_scores(tmp_path, content, problem):
    with pytest.raises(FileError) as caught:
        Melody.from_file(saved(tmp_path, content, "bad.musicxml"))
    assert problem in str(caught.value) and "bad.musicxml" in str(caught.value)


def test_a_doctype_without_entities_is_fine():
    assert parse_xml(b'<!DOCTYPE a PUBLIC "-//x" "http://localhost/none.dtd"><a>b</a>').text == "b"


def test_a_missing_part_is_said(tmp_path):
    with pytest.raises(ArgumentError, match="no part with notes"):
        Melody.from_file(saved(tmp_path, xml_score(xml_note()), "rests.musicxml"))


# MIDI


@pytest.fixture
def mido():
    return pytest.importorskip("mido")


@pytest.fixture
def midi(mido, tmp_path):
    def read(*tracks, name: str = "t.mid", ticks: int = 480, **options) -> Melody:
        file = mido.MidiFile(ticks_per_beat=ticks, charset="latin-1")
        for events in tracks:
            file.tracks.append(mido.MidiTrack(events))
        path = tmp_path / name
        file.save(filename=str(path))
        return Melody.from_file(path, **options)

    return read


def struck(mido, *notes: tuple[int, int], gap: int = 0, channel: int = 0, words: list[bytes] | None = None) -> list:
    "Events of (pitch, ticks) notes, each with its lyric."
    events, wait = [], 0
    for k, (pitch, ticks) in enumerate(notes):
        if words and words[k]:
            events.append(mido.MetaMessage("lyrics", text=words[k].decode("latin-1"), time=wait))
            wait = 0
        events.append(mido.Message("note_on", note=pitch, velocity=64, channel=channel, time=wait))
        events.append(mido.Message("note_off", note=pitch, channel=channel, time=ticks - gap))
        wait = gap
    return events


def test_midi_notes_tempo_meter_and_key(midi, mido):
    head = [
        mido.MetaMessage("set_tempo", tempo=750_000),
        mido.MetaMessage("time_signature", numerator=3, denominator=4),
        mido.MetaMessage("key_signature", key="F#m"),
    ]
    melody = midi(head + struck(mido, (60, 480), (62, 240), (64, 160), (65, 720)), name="旋律.mid")
    assert listed(melody) == [
        (0, 1, 60),
        (1, Fraction(1, 2), 62),
        (Fraction(3, 2), Fraction(1, 3), 64),
        (Fraction(11, 6), Fraction(3, 2), 65),
    ]
    assert (melody.tempo, melody.meter, str(melody.key)) == (80, Meter(3, 4), "F# minor")
    assert melody.source == "旋律.mid"


@pytest.mark.parametrize("encoding, charset", [("utf-8", None), ("gbk", None), ("big5", None), ("gbk", "gbk")])
def test_midi_lyrics_in_every_encoding(midi, mido, encoding, charset):
    words = [ch.encode(encoding) for ch in "我在雨中走過"]
    track = struck(mido, *[(60 + k, 480) for k in range(6)], words=words)
    assert "".join(lyrics(midi(track, options=ReadOptions(charset=charset)))) == "我在雨中走過"


def test_midi_melisma_and_lines(midi, mido):
    words = ["落".encode(), b"", "雨\r".encode(), "收".encode()]
    melody = midi(struck(mido, (60, 480), (62, 480), (64, 480), (65, 480), words=words))
    assert lyrics(melody) == ["落", "雨", "收"] and sizes(melody) == [2, 1]


def test_midi_parts(midi, mido):
    voice = [mido.MetaMessage("track_name", name="人聲".encode("big5").decode("latin-1"))] + struck(mido, (60, 480))
    piano = [mido.MetaMessage("track_name", name="Piano")] + struck(mido, (48, 480), channel=1)
    drums = struck(mido, (35, 480), channel=9)
    with pytest.raises(ArgumentError, match=r"2 parts.*1 = '人聲' \(1 notes\); 2 = 'Piano'"):
        midi(voice, piano, drums)
    assert pitches(midi(voice, piano, drums, part="人聲")) == pitches(midi(voice, piano, drums, part=1)) == [60]


def test_midi_chords_and_legato(midi, mido):
    on, off = (
        (lambda p, t: mido.Message("note_on", note=p, time=t)),
        (lambda p, t: mido.Message("note_off", note=p, time=t)),
    )
    legato = [on(60, 0), on(62, 440), off(60, 40), off(62, 440)]
    assert [n.pitch for n in midi(legato).notes] == [60, 62]
    chord = [on(60, 0), on(64, 0), off(60, 480), off(64, 0), on(67, 0), off(67, 480)]
    with pytest.raises(FileError, match="quarter note 0 .*chords='highest'"):
        midi(chord)
    assert listed(midi(chord, options=ReadOptions(chords="highest"))) == [(0, 1, 64), (1, 1, 67)]


def test_damaged_midi(mido, tmp_path):
    for content in (b"MThd", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\x20\0\x90", b"MThd" + bytes(range(200))):
        with pytest.raises(CantolyricError):
            Melody.from_file(saved(tmp_path, content, "bad.mid"))
    frames = b"MThd" + struct.pack(">IHHh", 6, 0, 1, -0x1878) + b"MTrk\0\0\0\4\0\xff\x2f\0"
    with pytest.raises(FileError, match="SMPTE frames"):
        Melody.from_file(saved(tmp_path, frames, "film.mid"))


def mutated(raw: bytes, seed: int) -> bytes:
    "Change, drop, double or insert a few bytes."
    dice, data = random.Random(seed), bytearray(raw)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data))
        size = dice.randint(1, 8)
        piece = bytes(dice.randrange(256) for _ in range(size)) if seed % 2 else bytes(dice.choices(raw, k=size))
        data[at : at + dice.choice([0, 1, size])] = dice.choice([piece, b"", piece * 3])
    return bytes(data)


SAMPLES = {
    "abc": b"X:1\nM:6/8\nL:1/8\nQ:3/8=60\nK:Ddor\n(3abc [1 (AB){c}d>e :|2 ^f2- f !fermata!z |]\nw: one two_ * three\n",
    "xml": xml_score(xml_note("C", inside=lyric("a")) + xml_note("D", first="<grace/>") + "|" + xml_note("E")).encode(),
    "txt": b"60 C#4:1/2 | r bb3",
}


@pytest.mark.parametrize("kind", ["abc", "xml", "mxl", "mid", "txt"])
def test_damaged_files_raise_our_errors_only(mido, tmp_path, kind):
    if kind == "mid":
        Melody.parse("60 62 64").to_midi(tmp_path / "good.mid", lyrics="落雨喇")
        raw = (tmp_path / "good.mid").read_bytes()
    else:
        raw = mxl(SAMPLES["xml"].decode()) if kind == "mxl" else SAMPLES[kind]
    for seed in range(150):
        path = saved(tmp_path, mutated(raw, seed), f"t.{kind}")
        try:
            Melody.from_file(path).template()
        except CantolyricError:
            pass


def test_midi_without_mido(monkeypatch, tmp_path):
    def missing(*_):
        raise MissingDependencyError("reading and writing MIDI", "mido", "melody")

    monkeypatch.setattr(midi_module, "import_optional", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'cantolyric\[melody\]'"):
        Melody.from_file(saved(tmp_path, b"MThd", "t.mid"))


# typed forms


def test_typed_melodies():
    melody = Melody.parse("60 62 64:2 | 67")
    assert [p.pitches for p in melody.phrases] == [(60, 62, 64), (67,)]
    assert listed(melody)[2:] == [(2, 2, 64), (4, 1, 67)]
    assert pitches(Melody.parse("C4 D4 | E4\nc#5 Bb3 B♭3 bb3")) == [60, 62, 64, 73, 58, 58, 58]


def test_numbered_notation_is_explicit():
    with pytest.raises(ParseError, match="jianpu=True"):
        Melody.parse("1 1 5 5 | 6 6 5")
    melody = Melody.parse("1155|665-/4433|221-", jianpu=True)
    assert pitches(melody) == [60, 60, 67, 67, 69, 69, 67, 65, 65, 64, 64, 62, 62, 60] and sizes(melody) == [7, 7]
    assert melody.notes[6].duration == 2 and [n.bar for n in melody.notes][3:5] == [1, 2]
    assert pitches(Melody.parse("1 5, #4 b7' 0 1\u0307", jianpu=True, key="Bb3")) == [58, 53, 64, 80, 70]
    with pytest.raises(ArgumentError, match="jianpu=True"):
        Melody.parse("60 62", key="C")
    with pytest.raises(ArgumentError, match="tonic such as C"):
        Melody.parse("1 2", jianpu=True, key="H")


@pytest.mark.parametrize(
    "text, jianpu, place",
    [
        ("60 62\n64 H4", False, (2, 4)),
        ("60:x", False, (1, 1)),
        ("128", False, (1, 1)),
        ("1 2 9", True, (1, 5)),
        ("- 1", True, (1, 1)),
    ],
)
def test_typed_errors_name_line_and_column(text, jianpu, place):
    with pytest.raises(ParseError) as caught:
        Melody.parse(text, jianpu=jianpu)
    assert (caught.value.line, caught.value.column) == place


@pytest.mark.parametrize("text", ["", "| /", "r r", 60, "60 " * 50_000])
def test_typed_melodies_without_notes_or_too_long(text):
    with pytest.raises(CantolyricError):
        Melody.parse(text)


# phrases and transposition


def test_phrases_by_hand_by_bars_and_by_length():
    text = " ".join(["60"] * 14)
    assert sizes(Melody.parse(text, phrases=[7, 7])) == [7, 7]
    assert sizes(Melody.parse(text).with_phrases([4, 10])) == [4, 10]
    with pytest.raises(ArgumentError, match="add up to 13, but the melody has 14 notes"):
        Melody.parse(text).with_phrases([6, 7])
    for wrong in ([14, 0], "77", [7.0, 7], [True] * 14):
        with pytest.raises(ArgumentError):
            Melody.parse(text).with_phrases(wrong)
    assert max(sizes(Melody.parse(" ".join(["60"] * 100)))) <= 16
    with pytest.raises(ArgumentError, match="no time signature"):
        Melody.parse(text, phrases=PhraseRules(bars=2))


def test_phrases_of_two_bars_start_with_the_pick_up(abc):
    melody = abc("G | c e d e | c3 G | c e d e | c3 |]", phrases=PhraseRules(marks=frozenset(), bars=2))
    assert sizes(melody) == [6, 6]


def test_wrong_rules_are_said():
    for wrong in (dict(marks=frozenset({"breathe"})), dict(bars=0), dict(longest=1)):
        with pytest.raises(ArgumentError):
            PhraseRules(**wrong)
    with pytest.raises(ArgumentError, match="expected 'refuse' or 'highest'"):
        ReadOptions(chords="all")


def test_transpose(abc):
    melody = abc("(CD) E |\nw: 落 _ 雨")
    up = melody.transpose(3)
    assert [[n.pitch for n in note.parts] for note in up.notes] == [[63, 65], [67]] and str(up.key) == "Eb major"
    assert up.transpose(-3) == melody
    with pytest.raises(ArgumentError, match="MIDI allows 0 to 127"):
        melody.transpose(100)
    with pytest.raises(ArgumentError):
        melody.transpose(1.5)


# tones


def cost(pitches: tuple[int, ...], digits: str) -> int:
    "The documented formula, written out."
    pairs = zip(digits, digits[1:], pitches, pitches[1:])
    return sum(table_distance(a, b, y - x) for a, b, x, y in pairs)


@pytest.mark.parametrize(
    "tune",
    [(60, 62, 64, 60), (67, 67, 64, 60, 62), (60, 72, 48, 60, 61), (62, 67, 71, 67, 71, 69), (60,), (60, 60, 60)],
)
def test_likely_digits_are_the_best_of_all(tune):
    def allowed(digits: str) -> bool:
        return all(is_allowed(a, b, y - x) for a, b, x, y in zip(digits, digits[1:], tune, tune[1:]))

    def register(digits: str) -> int:
        span = max(tune) - min(tune)
        return sum((3 * (p - min(tune)) - CLASSES.index(d) * span) ** 2 for p, d in zip(tune, digits))

    strings = ("".join(x) for x in product(CLASSES, repeat=len(tune)))
    best = min((cost(tune, d), register(d), d) for d in strings if allowed(d))
    assert likely_digits(tune, min(tune), max(tune)) == best[2]


def test_the_direction_rule():
    assert [allowed_classes("2", d) for d in (5, 0, -1)] == ["243", "2", "02"]
    sizes = [len(allowed_classes(c, d)) for c in CLASSES for d in (-1, 1)]
    assert sum(sizes) / len(sizes) == 2.5


def test_template_and_ranges():
    melody = Melody.parse("60 62 64 | 67 60")
    template = melody.template()
    assert str(template) == "/".join(melody.digits()) and template.scheme == "0243"
    for phrase, digits, ranges in zip(melody.phrases, melody.digits(), melody.ranges()):
        for k, (own, classes) in enumerate(zip(digits, ranges)):
            assert own in classes
            for c in classes:
                other = digits[:k] + c + digits[k + 1 :]
                moves = zip(other, other[1:], phrase.intervals)
                assert all(is_allowed(a, b, d) for a, b, d in moves)
    with pytest.raises(ArgumentError, match="phrase 1 has 41 notes"):
        Melody.parse("60 " * 41).with_phrases([41]).template()


# export


def test_musicxml_round_trip(abc, tmp_path):
    melody = abc("G | (cd) (3e/f/g/ a- | a4 | z2 ^f5/4 g3/4 | c'4 |]", header="M:4/4\nL:1/4\nQ:1/4=90\nK:Eb\n")
    melody.to_musicxml(tmp_path / "落雨.musicxml")
    again = Melody.from_file(tmp_path / "落雨.musicxml", phrases=sizes(melody))
    assert listed(again) == listed(melody)
    assert (again.keys, again.meters, again.tempos, again.pickup) == (melody.keys, melody.meters, melody.tempos, 1)


def test_musicxml_lyrics_and_jyutping(abc, tmp_path):
    melody = abc("(CD) E | F2- | F G |]", header="M:2/4\nL:1/4\nK:C\n", phrases=[2, 2], melismas="slurs")
    path = tmp_path / "t.musicxml"
    melody.to_musicxml(path, lyrics="落雨，\n收柴！", jyutping=True)
    root = parse_xml(path.read_bytes())
    found = [[x.findtext("text") for x in note.iterfind("lyric")] for note in root.iter("note")]
    assert found == [["落", "lok6"], [], ["雨", "jyu5"], ["收", "sau1"], [], ["柴", "caai4"], []]
    assert lyrics(Melody.from_file(path)) == ["落", "雨", "收", "柴"]
    for wrong, problem in (
        ("落雨收柴", "1 lines for 2 phrases"),
        ("落雨\n收柴喇", "line 2 .* has 3 syllables"),
        (5, "as a string"),
    ):
        with pytest.raises(ArgumentError, match=problem):
            melody.to_musicxml(path, lyrics=wrong)
    assert not list(tmp_path.glob("*.tmp"))


def test_lyrics_of_the_file_are_kept(mido, abc, tmp_path):
    melody = abc("C D E (FG) |\nw: ma- ny- more times _")
    melody.to_musicxml(tmp_path / "t.musicxml")
    melody.to_midi(tmp_path / "t.mid")
    syllabic = [x.text for x in parse_xml((tmp_path / "t.musicxml").read_bytes()).iter("syllabic")]
    assert syllabic == ["begin", "middle", "end", "single"]
    for name in ("t.musicxml", "t.mid"):
        assert lyrics(Melody.from_file(tmp_path / name)) == ["ma-", "ny-", "more", "times"]


def test_english_words_take_one_note(tmp_path):
    path = tmp_path / "t.musicxml"
    Melody.parse("60 62 64 65").to_musicxml(path, lyrics="我 love ba-by")
    assert lyrics(Melody.from_file(path)) == ["我", "love", "ba", "by"]


def test_midi_round_trip(mido, abc, tmp_path):
    melody = abc("(CD) (3E/F/G/ A- | A4 | z2 F5/4 G3/4 |]", header="M:4/4\nL:1/4\nQ:1/4=90\nK:Bb\n")
    chars = iter("落雨收柴出街喇")
    text = "\n".join("".join(next(chars) for _ in p.notes) for p in melody.phrases)
    melody.to_midi(tmp_path / "落雨.mid", lyrics=text)
    again = Melody.from_file(tmp_path / "落雨.mid", phrases=sizes(melody))
    assert listed(again) == listed(melody) and "".join(lyrics(again)) == text.replace("\n", "")
    assert (again.tempo, again.meter, again.key) == (90, Meter(4, 4), Key(-2))
    assert "落".encode() in (tmp_path / "落雨.mid").read_bytes()


def test_nothing_half_written(tmp_path):
    melody = Melody.parse("60 62")
    with pytest.raises(FileError, match="cannot write"):
        melody.to_musicxml(tmp_path / "missing" / "t.musicxml")
    with pytest.raises(ArgumentError):
        melody.to_musicxml(tmp_path / "t.musicxml", lyrics="落")
    assert list(tmp_path.iterdir()) == []


# music21 as an oracle

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def oracle(monkeypatch):
    pytest.importorskip("music21")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("melody")


def test_readers_agree_with_music21(oracle, tmp_path):
    "Four files here; benchmarks/melody.py has the others."
    pieces = oracle.corpus_pieces()
    for original in (pieces[0], pieces[1], *[p for p in pieces if p.kind.startswith("chorale")][:2]):
        piece = original.copied(tmp_path, repeats=False)
        assert not oracle.differences(oracle.ours(piece), oracle.theirs(piece)), piece


def test_exports_agree_with_music21(oracle, mido, tmp_path):
    assert not oracle.exported(oracle.corpus_pieces()[0].path, tmp_path)


def test_the_benchmark_compared_enough():
    result = json.loads((BENCHMARKS / "results" / "melody.json").read_text(encoding="utf-8"))
    assert (
        result["pieces"] >= 40 and result["pieces_that_agree"] + len(result["pieces_that_differ"]) == result["pieces"]
    )
    assert not result["exports"]["differences"]


# real tunes

TUNES = Path(os.environ.get("CANTOLYRIC_DATA", "missing")) / "melodies"
real = pytest.mark.skipif(not TUNES.is_dir(), reason="CANTOLYRIC_DATA is not set")


@real
def test_amazing_grace():
    path = TUNES / "Amazing_Grace-New_Britain.abc"
    with pytest.raises(ArgumentError, match="4 parts.*S1V1.*S2V2"):
        Melody.from_file(path)
    melody = Melody.from_file(path, part="S1V1", phrases=[8, 6, 8, 6])
    assert (str(melody.key), melody.meter, melody.tempo, melody.pickup) == ("G major", Meter(3, 4), 100, 1)
    assert melody.phrases[0].pitches == (62, 67, 71, 71, 69, 67, 64, 62)
    assert " ".join(lyrics(melody)[:8]) == "A- maz- ing grace! How sweet the sound"
    assert [len(n.parts) for n in melody.notes][:4] == [1, 1, 2, 1] and melody.notes[13].duration == 5
    assert melody.notes[-1].end == 48


@real
def test_silent_night():
    melody = Melody.from_file(TUNES / "Silent_Night-Stille_Nacht.abc", part=1)
    assert (str(melody.key), len(melody), melody.pickup) == ("Bb major", 41, 0)
    assert melody.phrases[0].pitches[:6] == (65, 65, 62, 65, 65, 62)
    assert [n.lyric for n in melody.notes][:6] == ["Si-", "lent", "night,", "ho-", "ly", "night,"]
    assert max(map(len, melody.phrases)) <= 16


def test_lyrics_are_counted_as_in_check(tmp_path):
    "English words take a note per syllable, digits are sung in Cantonese, and spaces take none."
    text = "hello 2點，baby\n愛 你 love"
    melody = Melody.parse("60 62 64 65 67 69 / 60 62 64")
    assert ToneTemplate.parse("******/***").check(text).ok
    words = [w for line in lyric_words(text, default_reader(), jyutping=True) for w in line]
    assert [w.text for w in words] == ["hel", "lo", "兩", "點", "ba", "by", "愛", "你", "love"]
    assert [w.syllabic for w in words] == ["begin", "end", "single", "single", "begin", "end", *["single"] * 3]
    assert [w.jyutping for w in words] == ["", "", "loeng5", "dim2", "", "", "oi3", "nei5", ""]
    melody.to_musicxml(tmp_path / "a.musicxml", text, jyutping=True)
    again = Melody.from_file(tmp_path / "a.musicxml", phrases=[6, 3])
    assert [n.lyric for n in again.notes] == ["hel-", "lo", "兩", "點", "ba-", "by", "愛", "你", "love"]
