"""Lyric files: what is sung of what people write down, and the commands that read such files."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cantolyric.characters import is_han
from cantolyric.errors import FileError, ParseError
from cantolyric.lyricfile import Line, LyricFile, Section, decode_lyrics, parse_lyrics, read_lyrics

ROOT = Path(__file__).resolve().parent.parent
PLAIN = "落緊嘅雨洗淨條街\n你冇帶遮我都冇帶\n"
TONES = "23443203/44434344"
LABELLED = """《夜雨》
曲：阿明　詞：阿芬
Lyrics by Fan

[Verse 1: 阿明]
[00:12.34]男：落緊嘅雨洗淨條街 (x2)
～～～
副歌：你冇帶遮我都冇帶
（間奏）
"""


def texts(text: str) -> list[str]:
    return [line.text for line in parse_lyrics(text).lines]


def sections(text: str) -> list[tuple]:
    return [(s.label, s.kind, *(x.text for x in s.lines)) for s in parse_lyrics(text).sections]


@pytest.mark.parametrize(
    "row, label, kind",
    [
        ("[Verse 1]", "Verse 1", "verse"),
        ("[Verse 1: 阿明]", "Verse 1: 阿明", "verse"),
        ("【副歌】", "副歌", "chorus"),
        ("[結他獨奏]", "結他獨奏", ""),
        ("[Chorus][x2]", "Chorus x2", "chorus"),
        ("(Chorus)", "Chorus", "chorus"),
        ("（副歌）", "副歌", "chorus"),
        ("(Chorus x2)", "Chorus x2", "chorus"),
        ("（副歌：合）", "副歌：合", "chorus"),
        ("副歌（合）", "副歌（合）", "chorus"),
        ("Verse 1 (男)", "Verse 1 (男)", "verse"),
        ("Chorus:", "Chorus", "chorus"),
        ("副歌：", "副歌", "chorus"),
        ("音樂：", "音樂", ""),
        ("（重複）", "重複", ""),
        ("Verse 1", "Verse 1", "verse"),
        ("VERSE 2", "VERSE 2", "verse"),
        ("Verse A", "Verse A", "verse"),
        ("verse1", "verse1", "verse"),
        ("Pre-Chorus", "Pre-Chorus", "pre-chorus"),
        ("Pre Chorus", "Pre Chorus", "pre-chorus"),
        ("prechorus", "prechorus", "pre-chorus"),
        ("導歌：", "導歌", "pre-chorus"),
        ("Refrain", "Refrain", "chorus"),
        ("Hook", "Hook", "chorus"),
        ("Bridge", "Bridge", "bridge"),
        ("橋段：", "橋段", "bridge"),
        ("（過門）", "過門", "bridge"),
        ("Intro", "Intro", "intro"),
        ("前奏：", "前奏", "intro"),
        ("Outro", "Outro", "outro"),
        ("Coda", "Coda", "outro"),
        ("（尾奏）", "尾奏", "outro"),
        ("Interlude", "Interlude", ""),
        ("（間奏）", "間奏", ""),
        ("Rap:", "Rap", "rap"),
        ("Repeat Chorus x2", "Repeat Chorus x2", "chorus"),
        ("重唱 *#", "重唱 *#", ""),
        ("主歌A", "主歌A", "verse"),
        ("主歌 2", "主歌 2", "verse"),
        ("副歌", "副歌", "chorus"),
        ("副歌 Chorus", "副歌 Chorus", "chorus"),
        ("Verse 1 主歌", "Verse 1 主歌", "verse"),
        ("**Chorus**", "Chorus", "chorus"),
        ("## Chorus", "Chorus", "chorus"),
        ("[]", "", ""),
    ],
)
def test_a_label_starts_a_section(row, label, kind):
    assert sections(f"落雨\n{row}\n落雪") == [("", "", "落雨"), (label, kind, "落雪")]


@pytest.mark.parametrize(
    "row, label, kind, sung",
    [
        ("Chorus: 落雨", "Chorus", "chorus", "落雨"),
        ("副歌：落緊嘅雨", "副歌", "chorus", "落緊嘅雨"),
        ("副歌：男：落雨 x2", "副歌", "chorus", "落雨"),
        ("主歌A：落雨：落雪", "主歌A", "verse", "落雨：落雪"),
        ("(Chorus) 落雨", "Chorus", "chorus", "落雨"),
        ("（副歌）：落雨", "副歌", "chorus", "落雨"),
        ("[Verse 2] 落雨", "Verse 2", "verse", "落雨"),
    ],
)
def test_a_label_with_the_lyric_behind_it(row, label, kind, sung):
    assert sections(row) == [(label, kind, sung)]


@pytest.mark.parametrize(
    "row",
    [
        "音樂",
        "重複",
        "過門",
        "橋段",
        "副歌唱完",
        "唱到副歌",
        "佢話：落雨喇",
        "問：點解",
        "Hooks",
        "Chorus of rain",
        "Rapper",
        "[A] 落雨 [B] 落雪",
        "曲終人散",
        "詞不達意",
        "作曲家嘅夜晚",
        "編曲嘅人",
        "歌手唱完",
        "監製一場夢",
        "主唱嘅聲",
        "男人嘅眼淚",
        "女人嘅眼淚",
        "合埋眼",
        "不斷重複",
        "3x2",
        "max2",
        "Musical",
        "copyrighted",
        "Standing by 河邊",
    ],
)
def test_what_is_sung_though_it_looks_like_something_else(row):
    assert texts(f"落雪\n{row}") == ["落雪", row]


def test_blank_rows_and_labels_cut_and_marks_do_not():
    assert sections("落雨\n　\n落雪\n") == [("", "", "落雨"), ("", "", "落雪")]
    assert sections("[Chorus]\n\n落雨\n\n\n落雪") == [("Chorus", "chorus", "落雨"), ("", "", "落雪")], (
        "a label waits for its lines, and ends with them"
    )
    assert sections("[Intro]\n[Verse]\n落雨\n[Outro]") == [("Verse", "verse", "落雨")], "no section is empty"
    for mark in ("~~~", "***", "——", "♪", "Music", "(Music)", "…", "男：", "（合）", "x2", "曲：阿明"):
        assert sections(f"落雨\n{mark}\n落雪") == [("", "", "落雨", "落雪")], mark
    assert sections("落雨\n[♪]\n落雪") == [("", "", "落雨"), ("♪", "", "落雪")], "a label, although of marks"


def test_a_section_word_that_is_the_whole_text_is_sung():
    assert texts("副歌") == ["副歌"] and texts("\n《夜雨》\n") == ["《夜雨》"]


@pytest.mark.parametrize(
    "row",
    [
        "男：落雨",
        "女: 落雨",
        "合：落雨",
        "男1:落雨",
        "男 1：落雨",
        "Both: 落雨",
        "ALL：落雨",
        "A：落雨",
        "男/女：落雨",
        "（男）落雨",
        "(Both) 落雨",
        "【合】落雨",
        "[女] 落雨",
        "（男：）落雨",
        "合唱：落雨",
    ],
)
def test_singers_are_dropped(row):
    assert texts(f"{row}\n落雪") == ["落雨", "落雪"]


def test_a_second_singer_in_a_row_is_dropped():
    assert texts("男：落雨 女：落雪 （合）落霜") == ["落雨 落雪 落霜"]


@pytest.mark.parametrize(
    "mark",
    [
        "x2",
        "X 2",
        "×2",
        " x2",
        "(x2)",
        "（×2）",
        "(2x)",
        "（重複）",
        "(重複 x2)",
        "（重唱兩次）",
        "(Repeat)",
        " x2 (重複)",
        "【重複】",
        "*2",
        " * 2",
        "＊2",
        " 2x",
        "（兩遍）",
    ],
)
def test_repeat_marks_are_information(mark):
    song = parse_lyrics(f"落雨{mark}\n落雪")
    assert [(x.text, x.times) for x in song.lines] == [("落雨", 2), ("落雪", 1)]


@pytest.mark.parametrize(
    "text, times",
    [
        ("[Chorus x3]\n落雨\n落雪", 3),
        ("Chorus (x2)\n落雨\n落雪", 2),
        ("副歌（重複）：\n落雨\n落雪", 2),
        ("[Chorus]\n落雨\n落雪\nx2", 2),
        ("[Chorus]\n落雨\n落雪\n(x4)", 4),
        ("[Chorus]\n落雨\n落雪\n[x2]", 2),
        ("[Chorus]\n落雨\n落雪\n（重唱三次）\n", 3),
        ("[Chorus]\n落雨\n落雪", 1),
    ],
)
def test_a_section_is_sung_several_times(text, times):
    (section,) = [x for x in parse_lyrics(text).sections if x.lines]
    assert section.times == times and [x.text for x in section.lines] == ["落雨", "落雪"]


def test_a_repeat_mark_ends_no_section_and_counts_for_the_one_above():
    song = parse_lyrics("[A]\n落雨\n(x2)\n\n[B]\n落雪\nx3\n落霜")
    assert [(s.label, s.times, len(s.lines)) for s in song.sections] == [("A", 2, 1), ("B", 3, 2)]


@pytest.mark.parametrize(
    "row, text, backing",
    [
        ("我愛你（愛你）", "我愛你", ["愛你"]),
        ("我愛你 (愛你)", "我愛你", ["愛你"]),
        ("(oh) 我愛你", "我愛你", ["oh"]),
        ("我 (愛) 你（oh oh）", "我 你", ["愛", "oh oh"]),
        ("我愛你（愛你）x2", "我愛你", ["愛你"]),
        ("我愛你 x2（愛你）", "我愛你", ["愛你"]),
        ("男：我愛你（愛你）", "我愛你", ["愛你"]),
        ("我愛你（男）落雨（合）", "我愛你 落雨", []),
        ("我愛（你", "我愛（你", []),
        ("我愛你（）", "我愛你（）", []),
        ("（啦啦啦）", None, ["啦啦啦"]),
        ("(oh oh)", None, ["oh oh"]),
        ("(Chorus of rain)", None, ["Chorus of rain"]),
    ],
)
def test_backing_vocals_are_kept_apart(row, text, backing):
    song = parse_lyrics(f"落雪\n{row}\n落霜")
    assert [x.text for x in song.lines] == ["落雪", *filter(None, [text]), "落霜"]
    assert [(x.text, x.number) for x in song.backing] == [(x, 2) for x in backing]
    whole = parse_lyrics(f"落雪\n{row}\n落霜", backing=True)
    assert len(whole.lines) == 3 and not whole.backing
    assert all(x in whole.lines[1].text for x in backing)


def test_a_song_in_parentheses_is_sung():
    assert texts("（啦啦啦）") == ["（啦啦啦）"] and texts("(我愛你)\n(愛你)") == ["(我愛你)", "(愛你)"]


@pytest.mark.parametrize(
    "row, credits",
    [
        *(
            (f"{role}：阿明", [(role, "阿明")])
            for role in (
                "作曲",
                "曲",
                "詞",
                "填詞",
                "作詞",
                "編曲",
                "監製",
                "主唱",
                "歌手",
                "專輯",
                "詞/曲",
                "曲、詞",
                "詞曲",
                "作曲 / 編曲",
            )
        ),
        *(
            (f"{role}: Ming", [(role, "Ming")])
            for role in ("Composer", "LYRICIST", "Artist", "Album", "Words and Music", "Music")
        ),
        *((f"{role} Ming", [(role, "Ming")]) for role in ("Lyrics by", "Music by", "Lyrics & Music by", "Composed by")),
        ("Lyrics by: Ming", [("Lyrics by", "Ming")]),
        ("Copyright 2024 Ming", [("Copyright", "2024 Ming")]),
        ("曲：阿明　詞：阿芬", [("曲", "阿明"), ("詞", "阿芬")]),
        ("曲：阿明 / 詞：阿芬 / 編：阿強", [("曲", "阿明"), ("詞", "阿芬"), ("編", "阿強")]),
        ("作曲：", []),
        ("[ar:阿明][by:阿強]", [("ar", "阿明"), ("by", "阿強")]),
        ("[00:01.00]作曲 : 阿明", [("作曲", "阿明")]),
    ],
)
def test_credits(row, credits):
    for text in (f"{row}\n落雨\n落雪", f"落雨\n{row}\n落雪", f"落雨\n落雪\n{row}"):
        song = parse_lyrics(text)
        assert list(song.credits) == credits and song.text == "落雨\n落雪" and len(song.sections) == 1


@pytest.mark.parametrize(
    "top",
    [
        "歌名：夜雨",
        "歌名：《夜雨》",
        "Title: 夜雨",
        "[ti:夜雨]",
        "[ti: 夜雨][ar:阿明]",
        "《夜雨》",
        "曲：阿明\n《夜雨》",
        "《夜雨》\n歌名：另一首",
    ],
)
def test_title(top):
    song = parse_lyrics(f"{top}\n\n落雨")
    assert (song.title, song.text) == ("夜雨", "落雨")
    assert parse_lyrics("落雨").title == "" and texts("落雨\n《夜雨》") == ["落雨", "《夜雨》"]


def test_topics():
    song = parse_lyrics("落霜\n# 夜雨\n落雨\n\n[Chorus]\n落雪\n＃月光\n月亮\n#\n星光")
    assert [(s.topic, s.label, *(x.text for x in s.lines)) for s in song.sections] == [
        ("", "", "落霜"),
        ("夜雨", "", "落雨"),
        ("夜雨", "Chorus", "落雪"),
        ("月光", "", "月亮", "星光"),
    ]


@pytest.mark.parametrize(
    "stamp, seconds",
    [
        ("[00:12.34]", 12.34),
        ("[00:12]", 12.0),
        ("[01:12:34]", 72.34),
        ("[00:12.345]", 12.345),
        ("[0:02.5]", 2.5),
        ("[100:00.00]", 6000.0),
    ],
)
def test_timestamps(stamp, seconds):
    assert parse_lyrics(f"{stamp}落雨").lines == (Line("落雨", 1, seconds),)
    assert parse_lyrics(f"{stamp} 男：<00:01.00>落 <00:01.50>雨 x2").lines == (Line("落 雨", 1, seconds, 2),)


def test_lines_are_sung_at_each_of_their_times():
    song = parse_lyrics(
        "[Chorus]\n[00:10.00][00:30.00]落雨\n[00:12.00][00:32.00]落雪\n[Verse]\n[00:20.00]落霜\n[00:10.00]同時"
    )
    assert [(s.label, [(x.text, x.number, x.seconds) for x in s.lines]) for s in song.sections] == [
        ("Chorus", [("落雨", 2, 10.0)]),
        ("Verse", [("同時", 6, 10.0)]),
        ("Chorus", [("落雪", 3, 12.0)]),
        ("Verse", [("落霜", 5, 20.0)]),
        ("Chorus", [("落雨", 2, 30.0), ("落雪", 3, 32.0)]),
    ]


@pytest.mark.parametrize(
    "offset, seconds", [("+500", [9.5, 0.0]), ("500", [9.5, 0.0]), ("-500", [10.5, 0.6]), ("x", [10.0, 0.1])]
)
def test_offset(offset, seconds):
    lines = parse_lyrics(f"[00:10.00]落雨\n[offset:{offset}]\n[00:00.10]落雪").lines
    assert [x.seconds for x in lines] == seconds[::-1], "sorted by time; a song starts at 0"


def test_pauses_and_rows_without_a_time():
    assert sections("[00:01.00]落雨\n[00:02.00]\n[00:03.00]落雪") == [("", "", "落雨"), ("", "", "落雪")]
    assert sections("[Chorus]\n[00:01.00]\n[00:02.00]落雨") == [("Chorus", "chorus", "落雨")], "a pause under a label"
    assert sections("[Chorus]\n[00:01.00]落雨\n[00:09.00]落雪\n[Verse]\n[00:05.00]") == [
        ("Chorus", "chorus", "落雨"),
        ("Chorus", "chorus", "落雪"),
    ]
    song = parse_lyrics("開頭\n[00:20.00]落雪\n跟住\n再跟\n[00:10.00]落雨")
    assert [(x.text, x.seconds) for x in song.lines] == [
        ("開頭", None),
        ("落雨", 10.0),
        ("落雪", 20.0),
        ("跟住", None),
        ("再跟", None),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "落雨\r\n落雪\r\n",
        "落雨\r落雪",
        "\ufeff落雨\n落雪",
        "　落雨　\n\t落雪\u200b\n",
        "落\u200b雨\n\u2060落雪\ufe00",
        "\n\n落雨\n落雪\n\n",
    ],
)
def test_line_ends_spaces_and_characters_without_a_width(text):
    assert texts(text) == ["落雨", "落雪"]
    assert texts("落雨　落雪\u00a0落霜") == ["落雨 落雪 落霜"]


def test_rows_are_counted_in_the_file():
    song = parse_lyrics("《夜雨》\r\n\r\n[Verse]\r\n落雨\r\n\r\n副歌：落雪")
    assert song == LyricFile(
        "夜雨",
        (),
        (
            Section("Verse", "verse", "", (Line("落雨", 4, None),)),
            Section("副歌", "chorus", "", (Line("落雪", 6, None),)),
        ),
    )


HAN_LINES = st.lists(
    st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=3, max_size=12), min_size=1, max_size=8
)
MARKED = st.text(st.sampled_from("落雨曲詞男合副歌 　，。！、…\n"), max_size=60)


@given(HAN_LINES)
def test_every_character_of_a_plain_lyric_survives(lines):
    kept = [line for line in lines if not re.search("主歌|副歌|導歌|导歌|前奏|間奏|间奏|尾奏", line)]
    assert texts("\n".join(kept)) == kept


@given(MARKED)
def test_so_it_does_with_punctuation(text):
    rows = [row for row in text.splitlines() if row.strip(" 　") not in ("副歌",)]
    text = "\n".join(rows)
    assert [ch for line in texts(text) for ch in line if is_han(ch)] == list(filter(is_han, text))


@given(st.text(st.sampled_from("落雨曲男 x2[]()（）【】《》#<>:：.0123*~♪\n\r\ufeff\0") | st.characters(), max_size=80))
def test_any_text_is_read(text):
    song = parse_lyrics(text)
    assert all(s.lines for s in song.sections) and all(x.text == x.text.strip() != "" for x in song.lines)


SONG = "落緊嘅雨洗淨條街\n你冇帶遮我都冇帶\n行到街尾先停低"


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_are_read(codec):
    assert decode_lyrics(SONG.encode(codec), "song.txt") == SONG
    assert decode_lyrics(b"\xfe\xff" + SONG.encode("utf-16-be"), "song.txt") == SONG


@pytest.mark.parametrize(
    "text, codec, encoding",
    [
        (SONG, "big5hkscs", "BIG5-HKSCS"),
        ("我们在雨里走过这条街\n没有带伞也没有说话", "gbk", "GBK"),
        (SONG, "gb18030", "GBK"),
        ("我們在雨裏走過這條街\n㗎", "gb18030", "GB18030"),
    ],
)
def test_other_encodings_are_named_with_the_command_that_converts_them(text, codec, encoding, tmp_path):
    path = tmp_path / "my song.txt"
    path.write_bytes(b"[Verse]\n" + text.encode(codec))
    with pytest.raises(ParseError) as e:
        read_lyrics(path)
    message = str(e.value)
    assert (
        repr(str(path)) in message
        and "byte 9" in message
        and f"probably {encoding};" in message
        and "\n" not in message
    )
    if shutil.which("iconv") is None:
        pytest.skip("no iconv")
    subprocess.run(message.partition("convert it with: ")[2], shell=True, check=True)
    assert read_lyrics(f"{path}.utf8.txt").text == text


@pytest.mark.parametrize(
    "raw, says",
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "binary"),
        (SONG.encode("utf-16-le"), "binary"),
        (b"ab\0cd", "NUL"),
        (b"\xff\xfea", "UTF-16"),
        (b"{\\rtf1 x}", "RTF"),
        (b"PK\x03\x04", "Word"),
        (SONG.encode()[:-1], "damaged"),
        (b"abc\xff", "byte 4"),
    ],
)
def test_files_that_are_no_text(raw, says):
    with pytest.raises(ParseError, match=says) as e:
        decode_lyrics(raw, "song.txt")
    assert "'song.txt'" in str(e.value) and "UTF-8" in str(e.value) and "iconv" not in str(e.value)


def test_files_without_lyrics(tmp_path):
    with pytest.raises(FileError, match="cannot read"):
        read_lyrics(tmp_path / "none.txt")
    for k, text in enumerate(("", " \n", "[Chorus]\n曲：阿明\n~~~")):
        (tmp_path / f"{k}.txt").write_text(text, encoding="utf-8")
        with pytest.raises(ParseError, match="empty or holds only labels"):
            read_lyrics(tmp_path / f"{k}.txt")


def test_large_and_odd_files_are_quick():
    rows = ["[Verse 1]", "男：落緊嘅雨洗淨條街 x2", "[00:10.00][01:10.00]你冇帶遮", "", "曲：阿明", "行到街尾"] * 17_000
    start = time.perf_counter()
    assert len(parse_lyrics("\n".join(rows)).lines) == 4 * 17_000
    n = 100_000
    for row in (
        "[" * n,
        "[00:01]" * n,
        " ".join(["x2"] * n),
        "(" + " " * n + "x",
        "男 " * n,
        "曲 " * n + "：",
        "副歌" + " " * n + "雨",
        "曲：" * n,
        "<00:01" * n,
        "《" * n,
        "#" * n,
        "落" + " " * n + "雨",
        "[a]" * n + "雨",
        "[ti:" * n + "]",
        "x" * n + "2",
        "重複" * n,
        "(重複 " * n,
        "1" * n + ":",
    ):
        parse_lyrics(f"落\n{row}\n雪")
    assert time.perf_counter() - start < 30, "about 2 s alone; quadratic rules would take minutes"


def shell(*args, stdin=b""):
    "Run the command in a process of its own."
    return subprocess.run(
        [sys.executable, "-c", "import sys; from cantolyric.cli.main import main; sys.exit(main())", *map(str, args)],
        input=stdin,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )


@pytest.fixture
def files(tmp_path):
    "The same lyric, without and with labels."
    for name, text in (("plain.txt", PLAIN), ("labelled.txt", LABELLED)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "plain.txt", tmp_path / "labelled.txt"


@pytest.mark.parametrize(
    "args", [["check", "--tones", TONES], ["check", "--tones", TONES.replace("/44", "/42")], ["read"]]
)
def test_labels_change_nothing(files, args):
    plain, labelled = (shell(*args, "--json", f) for f in files)
    assert plain.returncode == labelled.returncode == (1 if "23443203/42434344" in args else 0), labelled.stderr
    assert json.loads(plain.stdout) == json.loads(labelled.stdout) and plain.stdout == labelled.stdout
    piped = shell(*args, "--json", "-", stdin=files[1].read_bytes())
    assert piped.stdout == plain.stdout


def test_labels_change_nothing_in_rewrite(files):
    plain, labelled = (
        shell("rewrite", f, "--line", "2", "--slots", "4-8", "--topic", "夜雨", "-n", "2", "--seed", "0", "--json")
        for f in files
    )
    assert plain.returncode == labelled.returncode == 0, labelled.stderr
    a, b = (json.loads(x.stdout)["candidates"] for x in (plain, labelled))
    assert [c["text"] for c in a] == [c["text"] for c in b] and a
    assert all(c["text"].startswith("落緊嘅雨洗淨條街\n你冇帶") for c in b)


def test_a_character_without_a_reading_is_found_in_the_file(tmp_path, capsys):
    from cantolyric.cli.main import main

    (tmp_path / "v.txt").write_text("[Verse]\n男：落の雨\n[00:01.00][00:02.00]落雨（x）ん\n", encoding="utf-8")
    assert main(["read", "--json", str(tmp_path / "v.txt")]) == 0
    assert json.loads(capsys.readouterr().out)["unknown"] == [
        dict(line=2, column=4, char="の"),
        dict(line=3, column=26, char="ん"),
    ]


@pytest.mark.parametrize("args", [["check", "--tones", "24"], ["read"], ["rewrite", "--line", "1", "--topic", "雨"]])
def test_another_encoding_on_standard_input_is_one_line(args):
    done = shell(*args, "-", stdin=SONG.encode("big5hkscs"))
    assert done.returncode == 2 and not done.stdout and done.stderr.count(b"\n") == 1
    assert b"iconv -f BIG5-HKSCS -t UTF-8 < FILE" in done.stderr


def note_lines(done) -> list[str]:
    "The notes that a command printed."
    return [x for x in done.err.splitlines() if x.startswith("cantolyric: note: ")]


def run(*args) -> int:
    from cantolyric.cli.main import main

    return main(list(map(str, args)))


def json_of(capsys, *args):
    "Run a command in this process; return its JSON and its notes."
    code = run(*args, "--json")
    done = capsys.readouterr()
    return code, json.loads(done.out), note_lines(done)


WRITTEN = """《夜雨》
曲：阿明　詞：阿芬

[Verse 1]
落緊嘅雨　洗淨條街（oh yeah）x2
（啦啦啦）

副歌 x2
１．
你冇帶遮 我都冇帶！
(重複)
Repeat Chorus x2
"""


def test_nothing_that_is_not_sung_shifts_a_line(tmp_path, capsys):
    path = tmp_path / "song.txt"
    path.write_text(WRITTEN.replace("１．\n", ""), encoding="utf-8")
    code, data, notes = json_of(capsys, "check", "--tones", TONES, path)
    assert code == 0 and data["ok"] and data["slots"] == 16
    assert len(notes) == 3, notes
    says = ("line 5: sung 2 times", "line 9: sung 2 times", "line 5 oh yeah, line 6 啦啦啦")
    assert all(any(x in note for note in notes) for x in says), notes


def test_numbers_in_reports_are_those_of_the_file(tmp_path, capsys):
    path = tmp_path / "song.txt"
    path.write_text(WRITTEN.replace("１．\n", ""), encoding="utf-8")
    assert run("check", "--tones", TONES.replace("/", " A/") + " A/33 A", path) == 1
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows[:3]] == [
        "5. 落緊嘅雨洗淨條街",
        "9. 你冇帶遮我都冇帶",
        "(line 3 of the template). □□",
    ]
    assert "of line 5" in rows[2], rows


def test_backing_vocals_count_if_asked_for(tmp_path, capsys):
    path = tmp_path / "song.txt"
    path.write_text("落雨（落雪）\n", encoding="utf-8")
    assert json_of(capsys, "read", path)[1]["tones"] == "24"
    assert json_of(capsys, "read", "--backing", path)[1]["tones"] == "2424"
    assert json_of(capsys, "check", "--tones", "2424", "--backing", path)[0] == 0


@pytest.mark.parametrize(
    "text, tones",
    [
        ("love you 呀", "**0"),
        ("baby 我好掛住你", "**43424"),
        ("3點鐘", "333"),
        ("２０４６呀", "20420"),
        ("2046呀", "20420"),
        ("1997年", "33330"),
        ("10點", "23"),
        ("25歲", "2244"),
        ("2個人", "440"),
        ("K歌", "*3"),
        ("OK 啦", "**3"),
        ("don't 走", "*3"),
        ("Ｂａｂｙ 走", "**3"),
    ],
)
def test_english_and_digits_are_sung(text, tones, tmp_path, capsys):

    code, data, notes = json_of(capsys, "read", "--text", text)
    assert code == 0 and data["tones"] == tones and data["unknown"] == [] and len(notes) == 1
    (tmp_path / "v.txt").write_text(text, encoding="utf-8")
    assert json_of(capsys, "check", "--tones", tones.replace("*", "3"), tmp_path / "v.txt")[0] == 0


def test_syllables_can_be_corrected(tmp_path, capsys):
    assert json_of(capsys, "read", "--text", "fire 呀")[1]["tones"] == "*0"
    _, data, notes = json_of(capsys, "read", "--text", "Fire 呀", "--syllables", "fire=2")
    assert data["tones"] == "**0" and "fire 2" in notes[0]
    for wrong in ("fire", "fire=x", "fire=0", "火=2"):
        assert run("read", "--text", "fire 呀", "--syllables", wrong) == 2
        assert "--syllables" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spaced",
    ["今晚 去街", "今 晚去街", "今晚　去街", "今晚\t去 街", "今晚\u00a0去街", "今\u200b晚去街", " 今 晚 去 街 "],
)
def test_spaces_change_no_reading(spaced, capsys):
    from cantolyric.reading import default_reader
    from cantolyric.template.template import ToneTemplate

    assert json_of(capsys, "read", "--text", spaced)[1]["tones"] == default_reader().tones(spaced) == "3343"
    assert ToneTemplate.parse("3343").matches(spaced) and ToneTemplate.parse("3343").automaton().accepts(spaced)


@given(st.text(st.sampled_from("銀行長街好奇怪今晚雨夜 　\u200b"), max_size=12))
def test_no_text_is_read_differently_for_its_spaces(text):
    from cantolyric.reading import default_reader

    reader = default_reader()
    read = reader.jyutping(text)
    assert len(read) == len(text)
    assert [j for j in read if j] == reader.jyutping(re.sub("[ 　\u200b]", "", text))


def test_a_word_across_a_space_is_mentioned(capsys):
    _, data, notes = json_of(capsys, "read", "--text", "佢好 奇")
    assert data["lines"][0]["jyutping"][1] == "hou3" and "好 is hou3, but hou2" in notes[0]


@pytest.mark.parametrize(
    "typed, meant", [("医生听歌", "醫生聽歌"), ("身体", "身體"), ("落雨听雨声", "落雨聽雨聲"), ("头发长", "頭髮長")]
)
def test_simplified_characters_are_converted_or_refused(typed, meant, capsys, tmp_path):
    pytest.importorskip("opencc")
    _, data, notes = json_of(capsys, "read", "--text", typed)
    assert data["lines"][0]["text"] == meant and "simplified" in notes[0] and "→" in notes[0]
    assert data["tones"] == json_of(capsys, "read", "--text", meant)[1]["tones"]
    (tmp_path / "v.txt").write_text(f"[副歌]\n男：落雨\n男：{typed}\n皇后\n", encoding="utf-8")
    for command in (["check", "--tones", "33"], ["read"], ["rewrite", "--line", "1", "--topic", "雨"]):
        assert run(*command, "--simplified", "refuse", tmp_path / "v.txt") == 2
        err = capsys.readouterr().err
        assert "line 3, column " in err and "v.txt" in err and "simplified" in err
    assert json_of(capsys, "read", tmp_path / "v.txt")[1]["lines"][2]["text"] == "皇后"


def test_simplified_characters_without_opencc(monkeypatch, capsys):
    from cantolyric import lyricnotes

    monkeypatch.setitem(sys.modules, "opencc", None)
    lyricnotes._converter.cache_clear()
    assert run("read", "--text", "落雨听歌") == 2
    err = capsys.readouterr().err
    assert "'听' in line 1, column 3" in err and "pip install opencc" in err
    assert run("read", "--text", "落雨聽歌") == 0
    lyricnotes._converter.cache_clear()


def test_no_character_of_hong_kong_counts_as_simplified():
    from cantolyric.characters import is_simplified
    from cantolyric.data import load_verses

    verses = "".join(line for lines in load_verses()["lines"] for line in lines)
    assert len(verses) > 10_000 and {c for c in verses if is_simplified(c)} == set()
    assert all(map(is_simplified, "听体医们说话爱国头发开关"))
    assert not any(map(is_simplified, "嘅咗啲喺嚟嘢佢哋冇唔睇瞓攞畀揾搵啱嘞嗰噉咁乜𡃉〇里后只台"))


@pytest.mark.parametrize("typed", ["岩岩", "食左飯", "我地", "我既心", "果個人", "做野", "過黎", "唔系"])
def test_common_misspellings_are_mentioned(typed, capsys):
    code, _, notes = json_of(capsys, "read", "--text", f"落雨{typed}")
    assert code == 0 and len(notes) == 1 and "possible misspellings: line 1, column " in notes[0]


@pytest.mark.parametrize(
    "typed", ["啱啱", "如果個天", "蘋果個心", "走左邊", "野心", "我既然愛", "黎明", "地方", "岩石", "系統"]
)
def test_words_that_only_look_misspelled(typed, capsys):
    assert json_of(capsys, "read", "--text", f"落雨{typed}")[2] == []


def test_plain_lyrics_have_no_notes():
    "Nothing is said about the verses that come with the course, so a note means something."
    from cantolyric.data import load_verses
    from cantolyric.lyricnotes import lyric_notes
    from cantolyric.reading import default_reader

    reader = default_reader()
    texts_ = ["\n".join(lines) for lines in load_verses()["lines"][:300]]
    noted = [t for t in texts_ if lyric_notes(parse_lyrics(t), t, reader)]
    assert len(noted) <= 3, noted
