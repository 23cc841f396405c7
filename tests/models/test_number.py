"""Numbers print as people write them, and stay the numbers they are."""

from __future__ import annotations

import copy
import csv
import io
import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.models.number import SmallDecimal, plain, spell_each, strip_each, total

SPELLINGS = [
    ("91200000.0", "91200000"),
    ("106691000.00000000", "106691000"),
    ("1.16539E8", "116539000"),
    ("103460000", "103460000"),
    ("7.9276E-4", "0.00079276"),
    ("5.0E-4", "0.0005"),
    ("0.00001234", "0.00001234"),
    ("0.00000120", "0.0000012"),
    ("1.2E-7", "0.00000012"),
    ("0.00000001", "0.00000001"),
    ("-224000.00000000", "-224000"),
    ("-1E-8", "-0.00000001"),
    ("0E-8", "0"),
    ("0E+5", "0"),
    ("-0.0", "0"),
]


@pytest.mark.parametrize(("spelled", "written"), SPELLINGS)
def test_every_spelling_prints_as_people_write_it(spelled: str, written: str) -> None:
    number = plain(Decimal(spelled))
    assert (str(number), f"{number}", repr(number)) == (written, written, f"Decimal('{written}')")
    page = io.StringIO()
    csv.writer(page).writerow([number])
    assert page.getvalue().strip() == written


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=20))
def test_the_value_stays_equal_hashes_alike_and_survives_copies(number: Decimal) -> None:
    written = plain(number)
    assert written == number
    assert hash(written) == hash(number)
    assert "E" not in str(written)
    assert "." not in str(written) or not str(written).endswith("0")
    for again in (pickle.loads(pickle.dumps(written)), copy.deepcopy(written), Decimal(str(written))):  # noqa: S301
        assert again == written
    assert str(plain(written)) == str(written)


AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**12, places=10)
SMALL_AMOUNTS = st.integers(0, 20_000).map(lambda units: Decimal(units).scaleb(-10))


@given(st.lists(AMOUNTS | SMALL_AMOUNTS))
def test_many_at_a_time_are_written_as_each_alone(numbers: list[Decimal]) -> None:
    stripped, has_small = strip_each(numbers)
    many = spell_each(stripped) if has_small else stripped
    assert list(map(str, many)) == [str(plain(number)) for number in numbers]
    assert [type(number) for number in many] == [type(plain(number)) for number in numbers]


def test_a_small_number_obeys_format_specifications() -> None:
    number = plain(Decimal("1.2E-7"))
    assert type(number) is SmallDecimal
    assert (f"{number:.10f}", f"{number:e}", f"{number:>12}", f"{number:%}") == (
        "0.0000001200", "1.2e-7", "  0.00000012", "0.000012%",
    )  # fmt: skip
    assert number + 1 == Decimal("1.00000012")


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "sNaN", "1E+999", "1E-999", "1" * 200])
def test_what_is_no_number_of_any_size_is_refused(bad: str) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        plain(Decimal(bad))


def test_a_sum_is_written_plainly() -> None:
    assert str(total([Decimal("0.5"), Decimal("0.50")])) == "1"
    assert str(total([])) == "0"
