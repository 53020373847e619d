"""The reader against an oracle that knows nothing of its index, and its hard cases."""

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cantolyric._exercises.reading import check_net_gain, check_read_backward
from cantolyric.characters import VARIANTS, is_han
from cantolyric.confidence import AGREED, CONFIDENCES, DIFFER, GUESSED, ReadingSources, confidences, words_read
from cantolyric.context_rules import SUNG, TALK, WRITTEN, expand_pattern, rule_readings
from cantolyric.errors import ArgumentError, FileError, ParseError, SimplifiedWarning
from cantolyric.lexicon_builder import COLLOQUIAL, build_lexicon, learn_contexts
from cantolyric.pronunciation_data import conversations, rime_words, tone_classes, transcript
from cantolyric.reading import (
    Reader,
    accuracy,
    as_reader,
    class_accuracy,
    conversation_folds,
    default_reader,
    hand_annotated_lines,
    unambiguous_characters,
)
from cantolyric.template.template import ToneTemplate

READINGS = [f"{s}{t}" for s in ("si", "ngo") for t in range(1, 7)]
ALPHABET = "行長種為爲裡裏，a\n"


def oracle(words, text):
    "The definition, slowly: fold, then at each place the longest word that starts there."
    fold = lambda s: "".join(VARIANTS.get(c, c) for c in s)
    text, out, i = fold(text), [], 0
    while i < len(text):
        n = next((n for n in range(len(text) - i, 0, -1) if text[i : i + n] in words), 0)
        out += words[text[i : i + n]] if n else [None]
        i += n or 1
    return out


words = st.dictionaries(st.text("行長種為裏", min_size=1, max_size=4), st.just(0), max_size=12)


@settings(max_examples=300, deadline=None)
@given(words, st.text(ALPHABET, max_size=12), st.randoms(use_true_random=False))
def test_longest_word(keys, text, rng):
    lexicon = {w: tuple(rng.choice(READINGS) for _ in w) for w in keys}
    assert Reader(lexicon).jyutping(text) == oracle(lexicon, text)


@settings(max_examples=100, deadline=None)
@given(words, words, st.text(ALPHABET, max_size=12))
def test_entries_put_in_and_taken_back(keys, later, text):
    lexicon = {w: ("si1",) * len(w) for w in keys}
    new = {w: ("ngo6",) * len(w) for w in later if len(w) > 1}
    reader = Reader(lexicon)
    for w, j in new.items():
        reader.set_word(w, j)
    assert reader.jyutping(text) == oracle(
        {"".join(VARIANTS.get(c, c) for c in w): j for w, j in lexicon.items()} | new, text
    )
    for w in new:
        reader.set_word(w, lexicon.get(w))
    assert reader.jyutping(text) == oracle(lexicon, text)


def test_default_lexicon_against_the_oracle():
    reader, rng = default_reader(), random.Random(0)
    known = [w for w in reader.words if len(w) > 1]
    for _ in range(300):
        text = "".join(w[: rng.randint(1, len(w))] for w in rng.choices(known, k=6))
        assert reader.jyutping(text) == oracle(
            {
                text[i:j]: reader.words[text[i:j]]
                for i in range(len(text))
                for j in range(i + 1, len(text) + 1)
                if text[i:j] in reader.words
            },
            text,
        )


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_text(text):
    "One entry a character, whatever the text; nothing is dropped without a word in the report."
    reader = default_reader()
    read = reader.jyutping(text)
    assert len(read) == len(text) == len(reader.read(text))
    assert sum(map(bool, (reader.jyutping("\n".join(text.split("\n")))))) == len(reader.tones(text).replace("\n", ""))
    assert len(reader.unread(text)) == sum(j is None and (c.isalnum() or is_han(c)) for c, j in zip(text, read))


def test_hard_cases():
    reader = default_reader()
    for text, want in [
        ("銀行行長", "ngan4 hong4 hong4 zoeng2"),
        ("獨行長街", "duk6 haang4 coeng4 gaai1"),
        ("望着你", "mong6 zoek6 nei5"),
        ("因爲", "jan1 wai6"),
        ("這個", "ze5 go3"),
        ("一種", "jat1 zung2"),
        ("種花", "zung3 faa1"),
        ("放下", "fong3 haa6"),
        ("羣山", "kwan4 saan1"),
        ("群山", "kwan4 saan1"),
        ("有時間", "jau5 si4 gaan3"),
        ("噉我哋", "gam2 ngo5 dei6"),
        ("我為你", "ngo5 wai6 nei5"),
        ("成為你", "sing4 wai4 nei5"),
        ("愛上你", "oi3 soeng5 nei5"),
        ("睇下", "tai2 haa5"),
        ("唱下去", "coeng3 haa6 heoi3"),
        ("跟你重逢", "gan1 nei5 cung4 fung4"),
        ("這一夜", "ze5 jat1 je6"),
        ("聽不到", "teng1 bat1 dou2"),
        ("唔知道", "m4 zi1 dou3"),
        ("點鐘度", "dim2 zung1 dou2"),
        ("肥肥哋", "fei4 fei2 dei2"),
        ("酸酸哋", "syun1 syun1 dei2"),
    ]:
        assert reader.jyutping(text) == want.split()


def test_every_entry_is_well_formed():
    reader = default_reader()
    assert all(len(w) == len(j) for w, j in reader.words.items())
    assert reader.max_len == max(map(len, reader.words))
    for w in reader.words:
        assert not VARIANTS.keys() & set(w)


def test_variants_are_no_chains():
    assert not VARIANTS.keys() & set(VARIANTS.values())
    assert all(len(a) == len(b) == 1 for a, b in VARIANTS.items())


def test_own_readings(tmp_path):
    assert Reader(extra={"夜雨": "je6 jyu6"}).jyutping("夜雨") == ["je6", "jyu6"]
    path = tmp_path / "mine.tsv"
    path.write_text("# mine\n為人\twai6 jan4\n", encoding="utf-8")
    assert Reader(extra=path).jyutping("爲人") == ["wai6", "jan4"]
    for wrong, why in [
        ({"夜a": "je6 aa1"}, "not a word of Chinese"),
        ({"夜雨": "je6"}, "2 characters but 1 readings"),
        ({"夜": "ye6"}, "no final"),
    ]:
        with pytest.raises(ArgumentError, match=why) as e:
            Reader(extra=wrong)
        assert (e.value.name, e.value.value) == ("extra", wrong)
    with pytest.raises(FileError, match="No such file") as e:
        Reader(extra=f"{path}x")
    assert e.value.path == f"{path}x"
    for text, line, why in [
        ("為人 wai6 jan4\n", 1, "no tab"),
        ("# mine\n\n為人\twai6\n", 3, "2 characters but 1 readings"),
        ("為\twai6\n夜\tye6\n", 2, "no final"),
        ("K\tkei1\n", 1, "not a word of Chinese"),
        ("為\twai6\n爲\twai4\n", 2, "but wai6 in line 1"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ParseError, match=why) as e:
            Reader(extra=path)
        assert e.value.line == line and f"line {line} of the readings in" in str(e.value) and "mine.tsv" in str(e.value)
    path.write_bytes("為人\twai6 jan4\n".encode("big5"))
    with pytest.raises(FileError, match="UTF-8"):
        Reader(extra=path)
    with pytest.raises(ArgumentError) as e:
        as_reader("x")
    assert (e.value.name, e.value.value) == ("reader", "x")


def test_patterns():
    assert (
        expand_pattern("[愛戀]上") == ["愛上", "戀上"]
        and expand_pattern("[介紹 睇]下[去 來]") == ["介紹下去", "介紹下來", "睇下去", "睇下來"]
        and expand_pattern("千斤重") == ["千斤重"]
    )
    words = {"種": ("zung2",), "下": ("haa6",), "花": ("faa1",), "雨": ("jyu5",)}
    assert rule_readings("種=zung3 種[花雨]", words) == {"種花": ("zung3", "faa1"), "種雨": ("zung3", "jyu5")}
    assert rule_readings("下=haa5 種下\n種=zung3 種下", words) == {"種下": ("zung3", "haa5")}
    for line in (
        WRITTEN + TALK
    ).splitlines():  # each pattern holds the character that it reads, and a reading that can be
        Reader({}, extra={line[0]: line[2:].split()[0]})
        assert line[1] == "=" and rule_readings(line, {}) and all(line[0] in w for w in rule_readings(line, {}))
    assert all(
        tone_classes(default_reader().words[w]) == tone_classes(j)
        for w, j in rule_readings(WRITTEN, default_reader().words).items()
    )


@pytest.mark.parametrize(
    "text, reading",
    [
        ("開番個會先", "hoi1 faan1 go3 wui2 sin1"),  # a split compound
        ("我開緊會", "ngo5 hoi1 gan2 wui2"),
        ("佢會嚟", "keoi5 wui5 lai4"),
        ("一個會議", "jat1 go3 wui6 ji5"),
        ("雞蛋", "gai1 daan2"),  # the dictionary also has daan6
        ("動畫", "dung6 waa2"),
        ("手袋", "sau2 doi2"),
        ("門口", "mun4 hau2"),
        ("學會堅強", "hok6 wui5 gin1 koeng4"),
        ("為甚麼", "wai6 sam6 mo1"),
        ("半夜", "bun3 je6"),
    ],
)
def test_changed_tones(text, reading):
    assert default_reader().jyutping(text) == reading.split()


def test_two_fold_accuracy():
    "Class and tone on conversations that were not learnt from, as the lesson gives them."
    a, b = ([conversations()[f] for f in names] for names in conversation_folds())
    one, two = (accuracy(Reader(build_lexicon(learn)).jyutping, test) for learn, test in ((a, b), (b, a)))
    assert one["characters"] + two["characters"] == 161_045
    assert (one["class"] + two["class"]) / 2 >= 99.2 and (one["tone"] + two["tone"]) / 2 >= 99


def test_written_register():
    read = default_reader().jyutping
    assert (
        len(hand_annotated_lines("verse")) > 100
        and len(hand_annotated_lines("own")) > 70
        and len(hand_annotated_lines()) == len(hand_annotated_lines("verse") + hand_annotated_lines("own"))
    )
    for text, said in hand_annotated_lines():
        assert len(text) == len(said)
        for ch, right in zip(text, said):
            assert (right == ["-"]) == ("".join(VARIANTS.get(c, c) for c in ch) not in default_reader().words)
            for j in right:
                if j != "-":
                    Reader({}, extra={"一": j})  # well formed
    assert (
        class_accuracy(read, hand_annotated_lines("verse")) >= 99.5
        and class_accuracy(read, hand_annotated_lines("own")) >= 99.5
    )
    assert (
        class_accuracy(lambda t: [None] * len(t), hand_annotated_lines()) == 0
        and class_accuracy(as_reader("characters").jyutping, hand_annotated_lines()) < 98
    )


def test_what_is_learnt_shows_its_register():
    "A stretch may not overrule a character as sung unless it holds one that only talk writes, or was said three times."
    say = lambda *pairs: [list(pairs)]
    words = {"我": ("ngo5",), "唔": ("m4",), "着": ("zoek6",), "你": ("nei5",)}
    rare, talk = say(("我", "ngo5"), ("着", "zoek3")), say(("唔", "m4"), ("着", "zoek3"))
    assert "着" in SUNG and "唔" in COLLOQUIAL
    assert learn_contexts(words, [rare, rare]) == {} and learn_contexts(words, [rare] * 3) == {
        "我着": ("ngo5", "zoek3")
    }
    assert learn_contexts(words, [talk]) == {"唔着": ("m4", "zoek3")}
    assert learn_contexts(words, [talk, say(("唔", "m4"), ("着", "zoek6"))]) == {}  # as often one way as the other
    assert learn_contexts(words, []) == {}


def test_the_unambiguous_reader_reads_as_the_default_does():
    "Over any text of unambiguous characters: its reading is the default's, or none where the class of a word differs."
    default, unambiguous, agreed, rng = (
        default_reader(),
        as_reader("unambiguous"),
        unambiguous_characters(),
        random.Random(1),
    )
    assert unambiguous is default.unambiguous() and 1500 < len(agreed) < len(default.words)
    known, chars = [w for w in unambiguous.words if len(w) > 1], sorted(agreed)
    unread = 0
    for _ in range(2000):
        text = "".join(
            rng.choice(known)[: rng.randint(1, 4)] if rng.random() < 0.6 else rng.choice(chars) for _ in range(6)
        )
        for c, a, b in zip(text, unambiguous.jyutping(text), default.jyutping(text)):
            unread += a is None
            assert a == b and tone_classes([a]) == [agreed[c]] if a else b, text
    assert unread and unambiguous.jyutping("㗎A，") == [None] * 3
    assert unambiguous.read("好奇") == [None, None] and unambiguous.tones("好天") == default.tones("好天")
    assert Reader(extra={"風": "fung3"}).unambiguous().jyutping("風雨") == [
        None,
        "jyu5",
    ]  # a user's own reading makes it ambiguous


def test_default_reader_finds_the_tones_that_the_unambiguous_one_wrote():
    np, c = pytest.importorskip("numpy"), pytest.importorskip("cantolyric.constraint")
    default, unambiguous = default_reader(), as_reader("unambiguous")
    pieces = [w.encode() for w in unambiguous.words][::7] + [w.encode()[:-1] for w in unambiguous.words][::2000]
    tokens = dict(enumerate(dict.fromkeys([bytes([b]) for b in range(256)] + pieces)))
    table, rng = c.TokenTable(tokens, len(tokens) + 1, (len(tokens),)), np.random.default_rng(0)
    for _ in range(60):
        template = "/".join("".join(rng.choice(list("0243"), rng.integers(1, 10))) for _ in range(2))
        text = c.decode_ids(table, c.random_ids(c.ToneConstraint(template, table, reader="unambiguous"), rng))
        assert default.tones(text) == unambiguous.tones(text) == template.replace("/", "\n"), (template, text)


def test_variants_have_candidates():
    for ch, common in VARIANTS.items():
        assert default_reader().candidates(ch) == default_reader().candidates(common)
    assert set(default_reader().candidates("爲")) >= {"wai4", "wai6"}


def test_exercise_on_reading_backward():
    def backward(text, lexicon, most=99, join=lambda word, rest: [*word, *rest]):
        readings, end = [], len(text)
        while end:
            starts = range(max(0, end - most), end)
            start = next((k for k in starts if text[k:end] in lexicon), end - 1)
            readings = join(lexicon.get(text[start:end], (None,)), readings)
            end = start
        return readings

    assert check_read_backward(backward) == "Right."
    wrong_order = check_read_backward(lambda *a: backward(*a, join=lambda word, rest: [*rest, *word]))
    assert "got ['si4', 'gaan3', 'jau5']" in wrong_order
    assert "four characters" in check_read_backward(lambda *a: backward(*a, most=2))
    no_gap = check_read_backward(lambda text, lexicon: [j for j in backward(text, lexicon) if j])
    assert "銀 alone is not in the lexicon" in no_gap


def test_exercise_on_net_gain():
    right = lambda words, cases: sum(
        g == s for text, said in cases for g, s in zip(Reader(words).jyutping(text), said) if s
    )
    solution = lambda words, word, reading, cases: right(words | {word: reading}, cases) - right(words, cases)
    assert check_net_gain(solution) == "Right."
    for wrong in (
        lambda *a: ...,
        lambda *a: None,
        lambda *a: 1 / 0,
        lambda words, word, reading, cases: right(words | {word: reading}, cases),  # forgets what was right before
        lambda words, word, reading, cases: words.update({word: reading}) or solution(words, word, reading, cases),
    ):
        assert check_net_gain(wrong).startswith("Not yet")


def test_candidates():
    found = default_reader().candidates("長")
    assert abs(sum(found.values()) - 1) < 1e-9 and list(found)[:2] == ["coeng4", "zoeng2"]
    assert default_reader().candidates("Q") == {} and default_reader().candidates("") == {}


def test_shipped_readings_are_what_the_code_learns():
    assert Reader(build_lexicon()).words == default_reader().words


def test_light_and_quick():
    "No heavy import; the dictionaries load in about a second, and only when they are needed."
    code = (
        "import sys, time; t = time.time()\n"
        "import cantolyric, cantolyric.tones, cantolyric.reading, cantolyric.template; a = time.time() - t\n"
        "heavy = {'torch', 'numpy', 'pycantonese', 'matplotlib', 'fastcore', 'ToJyutping'} & set(sys.modules)\n"
        "t = time.time(); cantolyric.reading.Reader().read('夜雨'); print(a, time.time() - t, heavy)"
    )
    imports, load, heavy = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split(maxsplit=2)
    assert heavy.strip() == "set()"
    assert float(imports) < 1 and float(load) < 5  # wide: the machine may be busy; 0.06 s and 0.7 s on a free one


def test_peer_is_no_part_of_the_reader():
    from cantolyric import reading

    assert "import ToJyutping" not in open(reading.__file__, encoding="utf-8").read()
    assert len(rime_words()) > 100_000


@settings(max_examples=200, deadline=None)
@given(st.text("行長到呀銀見爲裡 　，aK\n", max_size=12))
def test_a_confidence_for_each_reading(text):
    reader = default_reader()
    assert [level in CONFIDENCES for level in reader.confidences(text)] == [bool(j) for j in reader.jyutping(text)]
    solid = text.replace(" ", "").replace("\u3000", "")
    assert [x for x in reader.confidences(text) if x] == [x for x in reader.confidences(solid) if x]
    assert "".join(words_read(solid, reader)) == "".join(map(reader.fold, solid))


def test_confidence_follows_the_sources():
    reader = default_reader()
    assert reader.confidences("風雨") == [AGREED, AGREED]
    assert reader.confidences("到") == [GUESSED] and reader.confidences("見到") == [AGREED, AGREED]
    assert reader.confidences("呀") == [DIFFER]
    assert Reader(extra={"到": "dou2"}).confidences("到") == [AGREED]  # the user knows
    assert reader.unambiguous().confidences("到") == [None]  # it has no reading there
    assert confidences("見到", reader, ReadingSources([])) == [AGREED, DIFFER]  # the dictionary alone
    with pytest.raises(ArgumentError):
        reader.confidences(None)


def test_the_more_certain_the_more_often_right():
    "On conversations that neither the lexicon nor the sources have seen."
    learn, unseen = ([conversations()[f] for f in names] for names in conversation_folds())
    reader, sources = Reader(build_lexicon(learn)), ReadingSources(learn)
    found = {level: [] for level in CONFIDENCES}
    for text, said in (transcript(u) for talk in unseen[::4] for u in talk):
        for right, got, level in zip(said, reader.jyutping(text), confidences(text, reader, sources)):
            if right and got:
                found[level].append(tone_classes([right]) == tone_classes([got]))
    agreed, differ, guessed = (100 * sum(x) / len(x) for x in found.values())
    assert agreed > 99.5 > 99 > differ > guessed > 80


def test_simplified_characters_are_not_read_in_silence(recwarn):
    template = ToneTemplate.parse("3333")
    for call in (
        lambda: default_reader().read("医生听歌"),
        lambda: template.check("医生听歌"),
        lambda: template.matches("医生听歌"),
        lambda: ToneTemplate.of("医生听歌"),
    ):
        with pytest.warns(SimplifiedWarning, match="医听"):
            call()
    assert default_reader().confidences("医") == [GUESSED]
    for text in ("醫生聽歌", "着吓响恒", "為爲裏裡", "K歌，3"):
        default_reader().read(text)
    Reader(extra={"医": "ji1"}).read("医")  # the user gave a reading
    default_reader().with_simplified().read("医生")
    assert not [w for w in recwarn if w.category is SimplifiedWarning]
