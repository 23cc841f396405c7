from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.cli.output import BLOCKS, area_chart, bar, short, sparkline, squeeze

numbers = st.lists(st.floats(-1e9, 1e9), max_size=300)


def test_a_rise_is_seen():
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 20) == BLOCKS
    assert sparkline([5, 5, 5], 20) == "▄▄▄"
    assert sparkline([], 20) == ""


@given(numbers, st.integers(0, 120))
def test_a_sparkline_never_exceeds_its_width(values, width):
    assert len(sparkline(values, width)) == min(len(values), width)


@given(numbers, st.integers(1, 100), st.integers(1, 10))
def test_an_area_chart_fits_its_place_and_touches_top_and_bottom(values, width, height):
    lines = area_chart(values, width, height)
    assert len(lines) == (height if values else 0)
    assert all(len(line) == min(len(values), width) for line in lines)
    if len(set(squeeze(values, width))) > 1:
        assert "█" in lines[0] or any(block in lines[0] for block in BLOCKS)


@given(numbers, st.integers(1, 50))
def test_squeezing_keeps_the_newest(values, width):
    shown = squeeze(values, width)
    assert len(shown) == min(len(values), width)
    assert shown[-1:] == values[-1:]


def test_a_bar_fills_its_share():
    assert bar(0.5, 4) == "██"
    assert bar(2.0, 4) == "████"
    assert bar(-1.0, 4) == ""


@pytest.mark.parametrize(
    ("amount", "english", "korean"),
    [
        ("123456789012", "123.46B", "1,234.57억"),
        ("2500000000000", "2.50T", "2.50조"),
        ("1340000000", "1.34B", "13.40억"),
        ("-59469.31", "-59,469.31", "-5.95만"),
        ("0.87", "0.87", "0.87"),
    ],
)
def test_large_amounts_are_told_as_their_reader_counts(
    amount: str, english: str, korean: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for language, shown in (("en", english), ("ko", korean)):
        monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", language)
        assert short(Decimal(amount)) == shown


def test_numbers_are_shown_exactly():
    from upbit_backbone.cli.output import number, safe

    assert number(Decimal("1.16539E8")) == "116,539,000"
    assert number(Decimal("0.00077720")) == "0.0007772"
    assert number(Decimal("0E-8")) == "0"
    assert number(None) == "–"
    assert safe("a\x1b[31m\nb") == "a\\u001b[31m\\u000ab"
