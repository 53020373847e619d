"""The reader against an oracle that knows nothing of its index, and its hard cases."""
import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings, strategies as st

from cantolyric.reading import VARIANTS, Reader, as_reader, build_lexicon, default_reader, rime_words
from cantolyric.tones import CantolyricError

READINGS = [f"{s}{t}" for s in ("si", "ngo") for t in range(1, 7)]
ALPHABET = "行長種為爲裡裏，a\n"


def oracle(words, text):
    "The definition, slowly: fold, then at each place the longest word that starts there."
    fold = lambda s: "".join(VARIANTS.get(c, c) for c in s)
    text, out, i = fold(text), [], 0
    while i < len(text):
        n = next((n for n in range(len(text) - i, 0, -1) if text[i:i+n] in words), 0)
        out += words[text[i:i+n]] if n else [None]
        i += n or 1
    return out


words = st.dictionaries(st.text("行長種為裏", min_size=1, max_size=4), st.just(0), max_size=12)


@settings(max_examples=300, deadline=None)
@given(words, st.text(ALPHABET, max_size=12), st.randoms(use_true_random=False))
def test_longest_word(keys, text, rng):
    lexicon = {w: tuple(rng.choice(READINGS) for _ in w) for w in keys}
    assert Reader(lexicon).jyutping(text) == oracle(lexicon, text)


def test_default_lexicon_against_the_oracle():
    reader, rng = default_reader(), random.Random(0)
    known = [w for w in reader.words if len(w) > 1]
    for _ in range(300):
        text = "".join(w[:rng.randint(1, len(w))] for w in rng.choices(known, k=6))
        assert reader.jyutping(text) == oracle({text[i:j]: reader.words[text[i:j]] for i in range(len(text)) for j in range(i + 1, len(text) + 1)
                                                if text[i:j] in reader.words}, text)


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_text(text):
    "One entry a character, whatever the text; nothing is dropped without a word in the report."
    reader = default_reader()
    read = reader.jyutping(text)
    assert len(read) == len(text) == len(reader.read(text))
    assert sum(map(bool, (reader.jyutping("\n".join(text.split("\n")))))) == len(reader.tones(text).replace("\n", ""))
    assert len(reader.report(text)) == sum(j is None and c.isalnum() for c, j in zip(text, read))


def test_hard_cases():
    reader = default_reader()
    for text, want in [("銀行行長", "ngan4 hong4 hong4 zoeng2"), ("獨行長街", "duk6 haang4 coeng4 gaai1"), ("望着你", "mong6 zoek6 nei5"),
                       ("因爲", "jan1 wai6"), ("這個", "ze5 go3"), ("一種", "jat1 zung2"), ("種花", "zung3 faa1"), ("放下", "fong3 haa6"),
                       ("羣山", "kwan4 saan1"), ("群山", "kwan4 saan1")]:
        assert reader.jyutping(text) == want.split()


def test_every_entry_is_well_formed():
    reader = default_reader()
    assert all(len(w) == len(j) for w, j in reader.words.items())
    assert reader.max_len == max(map(len, reader.words))
    for w in reader.words: assert not VARIANTS.keys() & set(w)


def test_variants_are_no_chains():
    assert not VARIANTS.keys() & set(VARIANTS.values())
    assert all(len(a) == len(b) == 1 for a, b in VARIANTS.items())


def test_own_readings(tmp_path):
    assert Reader(extra={"夜雨": "je6 jyu6"}).jyutping("夜雨") == ["je6", "jyu6"]
    path = tmp_path / "mine.tsv"
    path.write_text("# mine\n為人\twai6 jan4\n", encoding="utf-8")
    assert Reader(extra=path).jyutping("爲人") == ["wai6", "jan4"]
    for wrong, why in [({"夜a": "je6 aa1"}, "no word of Chinese"), ({"夜雨": "je6"}, "1 readings (je6)"), ({"夜": "ye6"}, "no final"), (str(path) + "x", "No such file")]:
        with pytest.raises(CantolyricError, match="readings|word|final") as e: Reader(extra=wrong)
        assert why in str(e.value)
    path.write_text("為人 wai6 jan4\n", encoding="utf-8")
    with pytest.raises(CantolyricError): Reader(extra=path)
    with pytest.raises(CantolyricError, match="no reader 'x'"): as_reader("x")


def test_candidates():
    found = default_reader().candidates("長")
    assert abs(sum(found.values()) - 1) < 1e-9 and list(found)[:2] == ["coeng4", "zoeng2"]
    assert default_reader().candidates("Q") == {} and default_reader().candidates("") == {}


def test_shipped_readings_are_what_the_code_learns():
    assert Reader(build_lexicon()).words == default_reader().words


def test_light_and_quick():
    "No heavy import; the dictionaries load in about a second, and only when they are needed."
    code = ("import sys, time; t = time.time(); import cantolyric, cantolyric.tones, cantolyric.reading, cantolyric.template; a = time.time() - t\n"
            "heavy = {'torch', 'numpy', 'pycantonese', 'matplotlib', 'fastcore', 'ToJyutping'} & set(sys.modules)\n"
            "t = time.time(); cantolyric.reading.Reader().read('夜雨'); print(a, time.time() - t, heavy)")
    imports, load, heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(maxsplit=2)
    assert heavy.strip() == "set()"
    assert float(imports) < 1 and float(load) < 3 # wide: the machine may be busy


def test_peer_is_no_part_of_the_reader():
    from cantolyric import reading
    assert "import ToJyutping" not in open(reading.__file__, encoding="utf-8").read()
    assert len(rime_words()) > 100_000
