"""What people type to find a market."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.qt.market_search import initial, matches

BITCOIN = ("KRW-BTC", "비트코인", "Bitcoin")
SHIBA = ("KRW-SHIB", "시바이누", "Shiba Inu")
BASIC = ("KRW-BAT", "베이직어텐션토큰", "Basic Attention Token")


@pytest.mark.parametrize(
    "typed",
    [
        "", "btc", "KRW-BTC", "krw btc", "krw/btc", "비트", "트코", "bitCOIN",
        "ㅂㅌㅋㅇ", "ㅂㅌ", "ㅌㅋ", "비ㅌㅋ", "ㅂ트", "빝", "비틐",
    ],
)  # fmt: skip
def test_bitcoin_is_found_by(typed: str) -> None:
    assert matches(typed, *BITCOIN)


@pytest.mark.parametrize("typed", ["eth", "ㅂㅌㅋㄴ", "ㅋㅂ", "비코", "btcx", "이더", "ㅃ"])
def test_bitcoin_is_not_found_by(typed: str) -> None:
    assert not matches(typed, *BITCOIN)


def test_two_consonants_that_a_keyboard_joins_are_two_initials() -> None:
    assert matches("ㅄ", "KRW-X", "비상", "X")
    assert matches("ㅄ", "KRW-X", "비상", None)
    assert not matches("ㅄ", *BITCOIN)


def test_words_are_found_whatever_stands_between_them() -> None:
    assert matches("shibainu", *SHIBA)
    assert matches("basic att", *BASIC)
    assert matches("ㅂㅇㅈㅇㅌㅅㅌㅋ", *BASIC)


def test_a_market_without_a_name_is_found_by_its_code() -> None:
    assert matches("abc", "KRW-ABC", None, "")
    assert not matches("ㅂ", "KRW-ABC", None, "")


SYLLABLES = st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1, max_size=8)


@given(SYLLABLES)
def test_every_name_is_found_by_its_initials_by_its_parts_and_however_it_is_spelled(name: str) -> None:
    assert matches("".join(map(initial, name)), name)
    assert matches(name[len(name) // 2 :], name)
    assert matches(unicodedata.normalize("NFD", name), name)


@given(SYLLABLES)
def test_every_beginning_of_a_name_is_found_while_it_is_being_composed(name: str) -> None:
    """Keyboards add the next consonant to the syllable before: 비 + ㅌ is 빝 until a vowel follows."""
    for count in range(1, len(name)):
        last, following = name[count - 1], initial(name[count])
        endings = {"ㄱ": 1, "ㄴ": 4, "ㄷ": 7, "ㄹ": 8, "ㅁ": 16, "ㅂ": 17, "ㅅ": 19, "ㅇ": 21, "ㅌ": 25, "ㅎ": 27}
        is_open = (ord(last) - 0xAC00) % 28 == 0
        if is_open and following in endings:
            assert matches(name[: count - 1] + chr(ord(last) + endings[following]), name)


def test_initials_of_other_characters_are_themselves() -> None:
    assert [initial(each) for each in "가힣aㄱ1"] == ["ㄱ", "ㅎ", "a", "ㄱ", "1"]
