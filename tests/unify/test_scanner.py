"""Compiled code reads what the readers in Python read, just the same, and leaves everything else to them."""

from __future__ import annotations

import dataclasses
import gc
import os
import random
import shutil
import sys
import threading
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.support.samples import payload_files
from tests.unify.test_poison import mutants
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.exchange.values import LAST_DIRECT_MILLISECOND, to_moment, to_symbol
from upbit_backbone.models.half_made import Habit
from upbit_backbone.models.market import OrderbookUnit
from upbit_backbone.unify import scanner
from upbit_backbone.unify.scanner import Scanner, key_of, scanner_of
from upbit_backbone.unify.stream import BOOK_HEADS, HALF_HEADS, HEAD_BYTES, StreamDecoder

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
WANTED = ("symbol", "timestamp", "price", "volume", "side", "sequential_id")
TRADE = (
    b'{"ty":"trade","cd":"KRW-BTC","tms":1795974789000,"td":"2026-11-29","ttm":"17:53:05","ttms":1795974788999,'
    b'"tp":132827000.00000000,"tv":0.00548108,"ab":"ASK","pcp":132580000.0,"c":"RISE","cp":247000.0,"sid":17959747889990000,'
    b'"bap":132828000,"bas":2.7669E-4,"bbp":132827000,"bbs":0.01185673,"st":"REALTIME"}'
)
TICKER = (
    b'{"ty":"ticker","cd":"KRW-BTC","tp":132827000.0,"scp":-247000.0,"scr":-0.0018630261,"ttms":1795974788999,'
    b'"h52wdt":"2026-07-12","ms":"ACTIVE","its":false,"dd":null,"tms":1795974789000,"st":"REALTIME"}'
)
BOOK = (
    b'{"ty":"orderbook","cd":"KRW-BTC","tms":1795974789000,"tas":0.10592501,"tbs":0.1009245,"obu":['
    b'{"ap":132828000,"bp":132827000,"as":0.5,"bs":0.25},{"ap":132829000,"bp":0,"as":1E-8,"bs":0.00000000}],'
    b'"st":"REALTIME","lv":0}'
)
IS_ASKED_FOR = os.environ.get(scanner.VARIABLE) == "1"
needs_it = pytest.mark.skipif(not scanner.is_compiled(), reason="nothing is compiled here")


def scanner_for(kind: str = "trade", wanted: tuple[str, ...] = WANTED) -> Scanner:
    found = scanner_of(kind, Spelling.SIMPLE, wanted)
    assert found is not None
    return found


@pytest.mark.skipif(not IS_ASKED_FOR or shutil.which("cc") is None, reason="not asked for, or no compiler")
def test_what_was_asked_to_be_compiled_is() -> None:
    assert scanner.is_compiled()


def test_where_nothing_is_compiled_nobody_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner, "_compiled", None)
    assert not scanner.is_compiled()
    assert scanner_of("trade", Spelling.SIMPLE, WANTED) is None


def test_the_environment_can_leave_it_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scanner.VARIABLE, "0")
    assert scanner._loaded() is None


def test_what_was_built_and_cannot_be_loaded_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*arguments: object) -> None:
        raise ImportError("undefined symbol: of another Python")

    monkeypatch.delenv(scanner.VARIABLE, raising=False)
    monkeypatch.setattr(scanner, "import_module", fails)
    assert scanner._loaded() is None
    assert "undefined symbol: of another Python" in caplog.text


@needs_it
def test_what_is_wanted_comes_in_the_order_of_the_table() -> None:
    found = scanner_for().scan(TRADE)
    assert found == (
        "KRW-BTC", to_moment(1795974788999), Decimal(132827000), Decimal("0.00548108"), "ASK", 17959747889990000,
    )  # fmt: skip
    assert str(found[2]) == "132827000"


@needs_it
def test_a_wanted_field_that_was_left_out_or_is_null_is_none() -> None:
    scan = scanner_for().scan
    assert scan(TRADE.replace(b'"ab":"ASK",', b""))[4] is None  # type: ignore[index]
    assert scan(TRADE.replace(b'"ASK"', b"null"))[4] is None  # type: ignore[index]


@needs_it
def test_a_field_that_upbit_adds_is_passed_over() -> None:
    scan = scanner_for().scan
    for new in (b"1.5E3", b'"text"', b"true", b"false", b"null"):
        assert scan(TRADE[:-1] + b',"new":%s}' % new) == scan(TRADE)


UNUSUAL = [
    b"", b"{", b"{}", b"[]", TRADE[:-1], TRADE + b" ", TRADE + TRADE, b" " + TRADE, b"[" + TRADE + b"]",
    TRADE.replace(b'"ty":"trade"', b'"ty":"ticker"'), TRADE.replace(b'"ty":"trade",', b""),
    TRADE.replace(b'"cd":"KRW-BTC",', b""), TRADE.replace(b"KRW-BTC", "KRW-비트".encode()),
    TRADE.replace(b"KRW-BTC", b"KRW\\u002dBTC"), TRADE.replace(b"KRW-BTC", b"KRW\x00BTC"),
    TRADE.replace(b'"tv":0.00548108', b'"tv":0.00548108,"tv":1'), TRADE.replace(b'"tv":', b'"tv": '),
    *(TRADE.replace(b"0.00548108", text) for text in (
        b"", b"-1", b"-0", b"+1", b"01", b"1.", b".5", b"1e", b"1E+", b"1E-10", b"1E41", b"1E123", b"NaN", b"null",
        b"Infinity", b'"1"', b"[1]", b"{}", b"true", b"1_0", b"0x1", b"1" * 41, b"1 ", b"1\x00",
    )),
    *(TRADE.replace(b"17959747889990000", text) for text in (b"1.0", b"-1", b"1E5", b"9" * 19, b"007", b'"7"')),
    *(TRADE.replace(b"1795974788999", text) for text in (b"1795974788999000", b"-1", b"0.5", b"null")),
    TRADE.replace(b'"ASK"', b'"NOBODY"'), TRADE.replace(b'"RISE"', b'"rise"'), TRADE.replace(b'"RISE"', b"1"),
    TRADE[:-1] + b',"new":[1]}', TRADE[:-1] + b',"new":{"a":1}}', TRADE[:-1] + b',"new":tru}', TRADE[:-1] + b',new:1}',
]  # fmt: skip


@needs_it
@pytest.mark.parametrize("raw", UNUSUAL)
def test_what_is_not_of_the_usual_shape_is_left_to_others(raw: bytes) -> None:
    assert scanner_for().scan(raw) is None


@needs_it
@pytest.mark.parametrize(("kind", "raw"), [("trade", TRADE), ("ticker", TICKER), ("orderbook", BOOK)])
def test_a_frame_that_breaks_off_anywhere_is_left_to_others(kind: str, raw: bytes) -> None:
    scan = scanner_for(kind).scan
    assert scan(raw) is not None
    assert [end for end in range(len(raw)) if scan(raw[:end]) is not None] == []


@needs_it
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"2026-07-12"', b'"2026-13-12"'), (b'"2026-07-12"', b'"2026-07-00"'), (b'"2026-07-12"', b'"2026-07-31"'),
        (b'"2026-07-12"', b'"20260712"'), (b'"2026-07-12"', b'"0000-07-12"'), (b'"2026-07-12"', b'"2026-07-12x"'),
        (b'"2026-07-12"', b'"2026-0"'), (b"false", b"0"), (b"false", b"fals"), (b'"dd":null', b'"dd":nul'),
        (b'"tms":1795974789000', b'"tms":8589934592000'), (b'"tp":132827000.0,', b""),
    ],
)  # fmt: skip
def test_what_is_unusual_in_a_ticker_is_left_to_others(old: bytes, new: bytes) -> None:
    assert scanner_for("ticker").scan(TICKER) is not None
    assert old in TICKER
    assert scanner_for("ticker").scan(TICKER.replace(old, new)) is None


@needs_it
@pytest.mark.parametrize(
    "spelled",
    ["0", "0.0", "0.00000000", "0E-8", "1", "10", "100.00", "0.1", "0.10", "0.000001", "0.0000010", "0.0000001",
     "0.00000010", "1E3", "1.50E+2", "1e-7", "2.7669E-4", "132827000.00000000", "1234567890123456789.123456789"],
)  # fmt: skip
def test_numbers_are_spelled_plainly(spelled: str) -> None:
    raw = TRADE.replace(b"0.00548108", spelled.encode())
    volume = scanner_for().scan(raw)[3]  # type: ignore[index]
    assert (str(volume), repr(volume)) == (str(number := scanner._odd_number(spelled)), repr(number))
    assert repr(scanner_for().number(raw, key_of("tv"))) == repr(volume)


@needs_it
def test_moments_are_those_of_the_calendar() -> None:
    scan, dice = scanner_for("ticker", ("timestamp",)).scan, random.Random(7)
    ends = [0, 1, 999, 86_399_999, 86_400_000, LAST_DIRECT_MILLISECOND - 1]
    leap_days = [951_782_400_000, 951_868_799_999, 951_868_800_000, 4_107_542_400_000, 4_107_456_000_000]
    for stamp in (*ends, *leap_days, *(dice.randrange(LAST_DIRECT_MILLISECOND) for _ in range(2_000))):
        (moment,) = scan(TICKER.replace(b'"tms":1795974789000', b'"tms":%d' % stamp))  # type: ignore[misc]
        assert moment == to_moment(stamp)
        assert moment.tzinfo is UTC


@needs_it
def test_one_string_is_kept_for_each_market() -> None:
    scan = scanner_for("ticker", ("symbol",)).scan
    assert scan(TICKER)[0] is scan(TICKER)[0] is to_symbol("KRW-" + "BTC")  # type: ignore[index]
    for odd in (b"", b"KRW BTC", b"K" * 41):
        assert scan(TICKER.replace(b"KRW-BTC", odd)) is None
    assert scan(TICKER.replace(b"KRW-BTC", b"K" * 40)) == ("K" * 40,)


@needs_it
def test_a_number_that_is_not_there_is_none() -> None:
    raw = TRADE.replace(b'"tv":0.00548108', b'"tv":null')
    for key in ("tv", "ab", "nothing", "", "x" * 500):
        assert scanner_for().number(raw, key_of(key)) is None
    assert scanner_for().number(b"", key_of("tv")) is None


def level(price: Decimal, size: Decimal) -> OrderbookUnit | None:
    return OrderbookUnit(price, size) if price else None


def spelled(side: tuple[OrderbookUnit, ...]) -> list[tuple[str, str]]:
    return [(str(each.price), str(each.size)) for each in side]


@needs_it
def test_padding_is_no_level() -> None:
    asks, bids, _ = scanner_for("orderbook").sides(BOOK, None, level)  # type: ignore[misc]
    assert spelled(asks) == [("132828000", "0.5"), ("132829000", "0.00000001")]
    assert spelled(bids) == [("132827000", "0.25")]
    assert not any(map(gc.is_tracked, asks + bids))


def book(*levels: tuple[int, int, int, int]) -> bytes:
    rows = b",".join(b'{"ap":%d,"bp":%d,"as":%d,"bs":%d}' % each for each in levels)
    return BOOK[: BOOK.index(b"[") + 1] + rows + BOOK[BOOK.index(b"]") :]


@needs_it
@pytest.mark.parametrize(
    ("after", "made"),
    [
        (((5, 4, 1, 1), (6, 3, 2, 2), (7, 2, 3, 3)), []),
        (((5, 4, 1, 1), (6, 3, 9, 2), (7, 2, 3, 3)), ["6 9"]),  # a size has changed
        (((5, 4, 9, 9), (6, 3, 9, 9), (7, 2, 9, 9)), ["5 9", "6 9", "7 9", "4 9", "3 9", "2 9"]),
        (((6, 4, 2, 1), (7, 3, 3, 2), (8, 2, 4, 3)), ["8 4"]),  # the best ask has gone
        (((7, 2, 3, 3), (8, 1, 4, 4), (9, 0, 5, 0)), ["8 4", "9 5", "1 4", "0 0"]),  # two of each side have
        (((4, 4, 7, 1), (5, 3, 1, 2), (6, 2, 2, 3)), ["4 7"]),  # a better ask has come
        (((5, 4, 1, 1),), []),
        (((5, 4, 1, 1), (6, 3, 2, 2), (7, 2, 3, 3), (8, 1, 4, 4)), ["8 4", "1 4"]),
    ],
)
def test_levels_that_stay_are_the_very_same(after: tuple[tuple[int, int, int, int], ...], made: list[str]) -> None:
    books, told = scanner_for("orderbook"), list[str]()

    def make(price: Decimal, size: Decimal) -> OrderbookUnit | None:
        told.append(f"{price} {size}")
        return level(price, size)

    asks, bids, before = books.sides(book((5, 4, 1, 1), (6, 3, 2, 2), (7, 2, 3, 3)), None, make)  # type: ignore[misc]
    told.clear()
    new_asks, new_bids, _ = books.sides(book(*after), before, make)  # type: ignore[misc]
    assert told == made
    assert spelled(new_asks) == [(str(ask), str(size)) for ask, _, size, _ in after]
    assert spelled(new_bids) == [(str(bid), str(size)) for _, bid, _, size in after if bid]
    known = {id(each) for each in asks + bids}
    assert sum(id(each) not in known for each in new_asks + new_bids) == len([each for each in made if each != "0 0"])


@needs_it
def test_books_that_change_at_random_are_what_they_are_without_the_one_before() -> None:
    books, dice = scanner_for("orderbook"), random.Random(7)
    before = None
    for _ in range(500):
        depth = dice.randrange(1, 31)
        asks, bids = (sorted(dice.sample(range(1, 40), depth)) for _ in range(2))
        rows = [
            (ask, bid, dice.randrange(1, 3), dice.randrange(1, 3)) for ask, bid in zip(asks, bids[::-1], strict=True)
        ]
        found = books.sides(book(*rows), before, level)
        assert found is not None
        assert found[:2] == books.sides(book(*rows), None, level)[:2]  # type: ignore[index]
        before = found[2]


@needs_it
def test_what_was_before_may_be_of_anything() -> None:
    books = scanner_for("orderbook")
    expected = books.sides(BOOK, None, level)
    for before in ((b"", ()), (BOOK, ()), (TRADE, (1, 2)), (BOOK[:-30], (None,) * 4), (book(*[(1, 1, 1, 1)] * 70), ())):
        assert books.sides(BOOK, before, level)[:2] == expected[:2]  # type: ignore[index]


@needs_it
def test_a_book_of_too_many_levels_is_left_to_others() -> None:
    assert scanner_for("orderbook").sides(book(*[(2, 1, 1, 1)] * 64), None, level) is not None
    assert scanner_for("orderbook").sides(book(*[(2, 1, 1, 1)] * 65), None, level) is None


@needs_it
@pytest.mark.parametrize(
    "levels",
    [
        b"", b"{}", b"1", b'{"ap":1,"bp":1,"as":1,"bs":1},', b'{"ap":1,"as":1,"bp":1,"bs":1}',
        b'{"ap":1,"bp":1,"as":1}',
        b'{"ap":1,"bp":1,"as":1,"bs":1,"xs":1}', b'{"ap":-1,"bp":1,"as":1,"bs":1}', b'{"ap":null,"bp":1,"as":1,"bs":1}',
        b'{"ap":1,"bp":1,"as":1,"bs":1}{"ap":1,"bp":1,"as":1,"bs":1}', b'[{"ap":1,"bp":1,"as":1,"bs":1}]',
    ],
)  # fmt: skip
def test_unusual_levels_are_left_to_others(levels: bytes) -> None:
    start, end = BOOK.index(b"[") + 1, BOOK.index(b"]")
    books = scanner_for("orderbook")
    raw = BOOK[:start] + levels + BOOK[end:]
    assert books.scan(raw) is None
    assert books.sides(raw, None, level) is None


@needs_it
def test_an_error_of_who_makes_levels_comes_through() -> None:
    def make(price: Decimal, size: Decimal) -> None:
        if price == 132829000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scanner_for("orderbook").sides(BOOK, None, make)


@needs_it
def test_who_hands_in_something_else_is_told() -> None:
    trades, books = scanner_for(), scanner_for("orderbook")
    for call in (
        lambda: trades.scan(bytearray(TRADE)), lambda: trades.scan("text"), lambda: trades.number(TRADE, "tv"),
        lambda: trades.number(TRADE), lambda: books.first(None), lambda: books.sides(BOOK, [], print),
        lambda: books.sides(BOOK, (BOOK, []), print),
        lambda: books.sides(BOOK, None), lambda: type(trades)((), (), Decimal), lambda: type(trades)([], (), 1, 1),
        lambda: type(trades)((1,), (), 1, 1), lambda: type(trades)((), (1, 2, 3, 4), 1, 1),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError, SystemError)):
            call()  # type: ignore[no-untyped-call]
    any_kind = scanner._compiled.ANY  # type: ignore[union-attr]
    for rows in ((b"k", any_kind, 0, 1, ()), (b"k", 99, 0, 0, ()), (b"k", any_kind, 0, 0, (1,))):
        with pytest.raises(ValueError, match="is no"):
            type(trades)((rows,), (), Decimal, Decimal)
    with pytest.raises(ValueError, match="frames"):
        type(trades)(((b"k", any_kind, 0, 0, ()),) * 65, (), Decimal, Decimal)
    with pytest.raises(ValueError, match="frames"):
        type(trades)((), (b"k",), Decimal, Decimal)


@needs_it
def test_what_it_is_shows() -> None:
    assert repr(scanner_for()) == "<Scanner of 18 fields, 6 wanted>"


def every_frame() -> list[bytes]:
    """Recorded ones, where there are some, and our own."""
    lines = [line for path in payload_files("ws") for line in path.read_bytes().splitlines()]
    return [TRADE, TICKER, BOOK, *lines]


def half_of(decoder: StreamDecoder, raw: bytes) -> Any:
    if raw[:HEAD_BYTES] in BOOK_HEADS:
        return decoder.half_book(raw, NOW)
    if raw[:HEAD_BYTES] in HALF_HEADS:
        return decoder.halves(raw[:HEAD_BYTES]).read(raw, NOW, Habit())
    return None


@needs_it
def test_every_recorded_frame_and_what_becomes_of_it_reads_as_it_does_without() -> None:
    decoder = StreamDecoder()
    frames = every_frame()
    taken = 0
    for raw in (*frames, *mutants(7, 4_000, frames)):
        if (half := half_of(decoder, raw)) is None:
            continue
        taken += 1
        (whole,) = decoder.decode(raw, NOW)  # which compiled code has no part in
        for field in dataclasses.fields(whole):
            assert repr(getattr(half, field.name)) == repr(getattr(whole, field.name)), raw
    assert taken > 100


@needs_it
def test_nothing_is_kept_of_frames_that_were_read_or_refused() -> None:
    trades, books = scanner_for(), scanner_for("orderbook")
    frames = [TRADE, *UNUSUAL]

    def work(times: int) -> None:
        for _ in range(times):
            for raw in frames:
                trades.scan(raw)
                trades.number(raw, key_of("tv"))
            books.scan(BOOK)
            books.first(BOOK)
            books.sides(BOOK, books.sides(BOOK, None, level)[2], level)  # type: ignore[index]

    work(3)
    gc.collect()
    counts = [sys.getrefcount(each) for each in (TRADE, BOOK)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work(100)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 10_000
    assert [sys.getrefcount(each) for each in (TRADE, BOOK)] == counts


@needs_it
def test_many_threads_read_at_once() -> None:
    trades, books = scanner_for(), scanner_for("orderbook")
    before = books.sides(BOOK, None, level)[2]  # type: ignore[index]
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(300):
            raw = TRADE.replace(b"0.00548108", b"%d.%d" % (number, turn + 1))
            found = trades.scan(raw)
            sides = books.sides(BOOK.replace(b"0.25", b"0.%d" % (turn + 1)), before, level)
            if found is None or found[3] != Decimal(f"{number}.{turn + 1}") or sides is None or len(sides[1]) != 1:
                wrong.append((found, sides))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
