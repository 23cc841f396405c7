"""A model that is made when it is looked at is, whatever is asked of it, the model that is read in full."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import random
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.samples import payload_files
from tests.unify.test_poison import mutants
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.models.half_made import SAMPLED_EVERY, Habit, rest_of
from upbit_backbone.models.market import OrderbookData, TickerData, TradeData, frame_of, keep_frame
from upbit_backbone.unify import halves, scanner
from upbit_backbone.unify.stream import TICKER_HEADS, TRADE_HEADS, StreamDecoder

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DECODER = StreamDecoder()  # of either way, by turns
LEVEL = '{"ap":%s,"bp":%s,"as":%s,"bs":%s}'
LEVELS = [("132828000", "132827000", "0.00054810", "2.7669E-4"), ("132829000.0", "132826000", "1", "0.5")]


@pytest.fixture(scope="module", params=["python", "compiled"], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything here holds with and without compiled code."""
    global DECODER
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setattr(scanner, "_compiled", None)
        elif not scanner.is_compiled():
            pytest.skip("nothing is compiled here")
        DECODER = StreamDecoder()
        yield request.param


def frame(*levels: tuple[str, ...], more: str = "") -> bytes:
    units = ",".join(LEVEL % level for level in levels)
    return (
        '{"ty":"orderbook","cd":"KRW-BTC","tms":1795974789000,"tas":0.10592501,"tbs":0.1009245,'
        f'"obu":[{units}]{more},"st":"REALTIME","lv":0}}'
    ).encode()


def half(raw: bytes) -> OrderbookData:
    book = DECODER.half_book(raw, NOW)
    assert book is not None
    assert rest_of(book) is not None
    return book


def whole(raw: bytes) -> OrderbookData:
    (book,) = DECODER.decode(raw, NOW)
    assert isinstance(book, OrderbookData)
    assert rest_of(book) is None
    return book


def pickled(book: Any, protocol: int) -> Any:
    return pickle.loads(pickle.dumps(book, protocol))  # noqa: S301


LOOKS: list[Callable[[Any], Any]] = [
    type,
    lambda book: book.__class__,
    lambda book: isinstance(book, OrderbookData),
    lambda book: book.asks,
    lambda book: book.bids,
    lambda book: [type(level) for level in book.asks + book.bids],
    lambda book: [(str(level.price), str(level.size)) for level in book.asks + book.bids],
    lambda book: (book.best_ask, book.best_bid),
    lambda book: [str(each) for each in (book.spread, book.mid_price, book.spread_percent)],
    lambda book: (book.symbol, book.timestamp, book.source, book.level, book.received_at, book.stream_type),
    lambda book: (str(book.total_ask_size), str(book.total_bid_size), book.degraded),
    lambda book: book == whole(frame(*LEVELS)),
    lambda book: whole(frame(*LEVELS)) == book,
    lambda book: book == half(frame(*LEVELS)),
    lambda book: book == half(frame(*LEVELS[:1])),
    lambda book: book in {whole(frame(*LEVELS))},
    hash,
    repr,
    str,
    lambda book: book._repr_html_(),
    lambda book: json.loads(book.to_json()),
    lambda book: book.to_dict(),
    lambda book: OrderbookData.from_json(book.to_json()) == book,
    dataclasses.asdict,
    dataclasses.astuple,
    lambda book: dataclasses.replace(book, degraded=True).asks,
    lambda book: dataclasses.replace(book, asks=()).bids,
    *(lambda book, protocol=protocol: pickled(book, protocol).bids for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
    lambda book: (copy.copy(book), type(copy.copy(book))),
    lambda book: (copy.deepcopy(book), copy.deepcopy(book).asks),
    lambda book: hasattr(book, "asks"),
    lambda book: hasattr(book, "no_such_name"),
    lambda book: [field.name for field in dataclasses.fields(book)],
]


@pytest.mark.parametrize("look", LOOKS)
def test_whatever_is_asked_first_it_is_the_book_that_is_read_in_full(look: Callable[[Any], Any]) -> None:
    raw = frame(*LEVELS)
    assert look(half(raw)) == look(whole(raw))


def test_its_best_levels_are_seen_without_making_the_others_and_stay_what_they_were() -> None:
    book = half(frame(*LEVELS))
    ask, bid = book.best_ask, book.best_bid
    assert (book.spread, book.mid_price) == (Decimal(1000), Decimal("132827500"))
    assert rest_of(book) is not None
    assert book.asks[0] is ask
    assert book.bids[0] is bid
    assert rest_of(book) is None
    assert (book.best_ask, book.best_bid) == (ask, bid)


def test_it_is_as_frozen_as_any() -> None:
    book = half(frame(*LEVELS))
    for change in (lambda: setattr(book, "asks", ()), lambda: delattr(book, "bids")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    assert book == whole(frame(*LEVELS))


def test_a_misspelled_name_is_told_as_on_any_object() -> None:
    messages = []
    for book in (half(frame(*LEVELS)), whole(frame(*LEVELS))):
        with pytest.raises(AttributeError) as caught:
            book.ask  # type: ignore[attr-defined]  # noqa: B018
        messages.append((str(caught.value), caught.value.name, caught.value.obj is book))
    assert messages[0] == messages[1]


def test_asking_for_what_only_others_have_makes_nothing() -> None:
    for model in (half(frame(*LEVELS)), a_half_ticker()):
        assert getattr(model, "sequential_id", 0) == 0
        assert rest_of(model) is not None


def test_threads_that_look_at_once_see_one_book() -> None:
    expected = whole(frame(*LEVELS * 15))
    for _ in range(50):
        book = half(frame(*LEVELS * 15))
        seen: list[Any] = []
        together = threading.Barrier(4)

        def look(book: OrderbookData = book, seen: list[Any] = seen, together: threading.Barrier = together) -> None:
            together.wait()
            seen.append((book.best_bid, book.bids, book.asks, book.best_ask))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [(expected.bids[0], expected.bids, expected.asks, expected.asks[0])] * 4


@pytest.mark.parametrize(
    "levels",
    [
        [],
        [("0", "132827000", "0", "1")],
        [("0", "132827000", "0", "1"), ("132828000", "0", "1", "0")],
        [("132828000", "-0", "1", "0")],
        [("4.2E-7", "0.00000041", "2.50", "1000.00000000"), ("0.00000100", "0.000000400", "3", "1E-7")],
    ],
)
def test_empty_sides_padding_and_tiny_prices_are_read_alike(levels: list[tuple[str, ...]]) -> None:
    raw = frame(*levels)
    best, expected = half(raw), whole(raw)
    assert (best.best_ask, best.best_bid) == (
        expected.asks[0] if expected.asks else None,
        expected.bids[0] if expected.bids else None,
    )
    assert (str(best.spread), str(best.mid_price)) == (str(expected.spread), str(expected.mid_price))
    assert best == half(raw) == expected
    assert [str(level) for level in half(raw).asks + half(raw).bids] == [
        str(each) for each in expected.asks + expected.bids
    ]


@pytest.mark.parametrize(
    "broken",
    [
        "-1", '"NaN"', '"Infinity"', "null", "true", "[]", "{}", '"x"', "1E400", "1E-300", "1" * 101, "0." + "1" * 101,
        "1e999999999", "1E91",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", range(4))
def test_a_number_that_cannot_be_read_is_never_left_for_later(broken: str, place: int) -> None:
    level = [*LEVELS[1][:place], broken, *LEVELS[1][place + 1 :]]
    assert DECODER.half_book(frame(LEVELS[0], tuple(level)), NOW) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"{", b'{"ty":"orderbook"}', frame(*LEVELS)[:-1], frame(*LEVELS) + b"x",
        frame(*LEVELS).replace(b'"as"', b'"xx"'), frame(*LEVELS).replace(b"KRW-BTC", b"KRW BTC"),
        frame(*LEVELS).replace(b"1795974789000", b"-1"), frame(*LEVELS).replace(b"REALTIME", b"\xff\xfe"),
        frame(*LEVELS).replace(b'"tas":0.10592501', b'"tas":-3'),
        frame(*LEVELS).replace(b'"ty":"orderbook"', b'"ty":"ticker"'),
        frame(*LEVELS, more=',"obu":[]'), frame(*LEVELS, more=',"x":[1]'),
    ],
)  # fmt: skip
def test_what_is_not_sound_or_not_plain_is_left_to_the_whole_reader(raw: bytes) -> None:
    assert DECODER.half_book(raw, NOW) is None


def test_an_unknown_object_in_a_level_hides_no_level() -> None:
    raw = frame(*LEVELS).replace(b'{"ap":132828000', b'{"x":{"y":1},"ap":132828000')
    book = half(raw)
    assert (book.best_ask, book.best_bid) == (whole(raw).asks[0], whole(raw).bids[0])


spelled = st.one_of(
    st.decimals(min_value=0, max_value=10**12, places=8).map(lambda number: f"{number:f}"),
    st.decimals(min_value=0, allow_nan=False, allow_infinity=False).map(str),
    st.from_regex(r"(0|[1-9][0-9]{0,80})(\.[0-9]{1,120})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.integers(min_value=-3, max_value=10**20).map(str),
)


@given(st.lists(st.tuples(spelled, spelled, spelled, spelled), max_size=4))
def test_what_was_taken_by_half_can_always_be_read_in_full(levels: list[tuple[str, ...]]) -> None:
    raw = frame(*levels)
    book = DECODER.half_book(raw, NOW)
    if book is None:
        return
    expected = whole(raw)
    asks, bids = (side[0] if side else None for side in (expected.asks, expected.bids))
    assert [repr(each) for each in (book.best_ask, book.best_bid)] == [repr(asks), repr(bids)]
    assert [repr(each) for each in book.asks + book.bids] == [repr(each) for each in expected.asks + expected.bids]
    assert book == expected


def test_books_share_the_levels_that_stay_and_read_as_if_each_were_alone() -> None:
    numbers = [("132828000", "132827000", "0.5", f"0.{number}") for number in range(10, 40)]
    for index, level in enumerate(numbers):
        first, second = half(frame(*LEVELS, level)), half(frame(*LEVELS, *numbers[index : index + 5]))
        for book, levels in (first, (level,)), (second, numbers[index : index + 5]):
            expected = whole(frame(*LEVELS, *levels))
            assert [repr(each) for each in (book.asks, book.bids)] == [repr(expected.asks), repr(expected.bids)]
        assert all(one is other for one, other in zip(first.asks, second.asks, strict=False))


def kept_levels(decoder: StreamDecoder) -> list[int]:
    """How many of each market."""
    books = decoder._half_books[Spelling.SIMPLE]
    return [len(levels) for _, levels in books._before.values()] or list(map(len, books._known.values()))


def test_the_levels_that_are_kept_are_twice_those_of_a_book_at_most() -> None:
    decoder = StreamDecoder()
    for number in range(1_000):
        book = decoder.half_book(frame(*LEVELS, (str(number), "1", "1.5", f"{number}.25")), NOW)
        assert book is not None
        assert (len(book.asks), len(book.bids)) == (3 if number else 2, 3)
    (kept,) = kept_levels(decoder)
    assert 6 <= kept <= 12


def test_nobodys_stream_fills_the_memory_with_levels_of_ever_new_markets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "_MOST_MARKETS", 10)
    decoder = StreamDecoder()
    for number in range(100):
        book = decoder.half_book(frame(*LEVELS).replace(b"KRW-BTC", b"KRW-X%d" % number), NOW)
        assert book is not None
        assert book.asks == whole(frame(*LEVELS)).asks
        assert 1 <= len(kept_levels(decoder)) <= 10


@pytest.mark.parametrize(
    "unusual",
    [
        (b'"ap":132828000', b'"ap": 132828000'), (b'"as":1,', b'"as":1e0,'), (b'"as":1,', b'"as":1,"n":0,'),
        (b'"ap":132829000.0,"bp":132826000', b'"bp":132826000,"ap":132829000.0'),
    ],
)  # fmt: skip
def test_levels_that_are_written_otherwise_read_alike(unusual: tuple[bytes, bytes]) -> None:
    raw = frame(*LEVELS).replace(*unusual)
    assert raw != frame(*LEVELS)
    assert half(raw) == whole(frame(*LEVELS))
    assert repr(half(raw).asks) == repr(whole(raw).asks)


def test_every_recorded_book_reads_alike() -> None:
    frames = [
        line
        for path in payload_files()
        for line in path.read_bytes().splitlines()
        if line.startswith((b'{"ty":"orderbook"', b'{"type":"orderbook"'))
    ]
    taken = 0
    for raw in frames:
        if (best := DECODER.half_book(raw, NOW)) is None:
            continue
        expected = whole(raw)
        assert (best.best_ask, best.best_bid) == (expected.best_ask, expected.best_bid)
        assert half(raw) == expected
        taken += 1
    assert taken


TICKER = (
    b'{"ty":"ticker","cd":"KRW-BTC","op":132611000.0,"hp":133724000.0,"lp":132470000.0,"tp":132827000.0,'
    b'"pcp":132580000.0,"atp":905265336.46112,"c":"FALL","cp":247000.0,"scp":-247000.0,"cr":0.0018630261,'
    b'"scr":-0.0018630261,"ab":"ASK","tv":5.48108E-3,"atv":6.79528674,"tdt":"20261129","ttm":"175305",'
    b'"ttms":1795974788999,"aav":3.80330427,"abv":2.99198247,"h52wp":205974000.0,"h52wdt":"2026-07-12",'
    b'"l52wp":85760000.0,"l52wdt":"2026-01-11","ms":"ACTIVE","its":false,"dd":null,"mw":"NONE","tms":1795974789000,'
    b'"atp24h":1219809674.86753,"atv24h":9.16464508,"st":"REALTIME"}'
)


def half_ticker(raw: bytes) -> TickerData | None:
    heads = [head for head in TICKER_HEADS if raw.startswith(head)]
    ticker = DECODER.halves(heads[0]).read(raw, NOW, Habit()) if heads else None
    assert ticker is None or type(ticker) is TickerData
    return ticker


def a_half_ticker(raw: bytes = TICKER) -> TickerData:
    ticker = half_ticker(raw)
    assert ticker is not None
    assert rest_of(ticker) is not None
    return ticker


def a_whole_ticker(raw: bytes = TICKER) -> TickerData:
    (ticker,) = DECODER.decode(raw, NOW)
    assert isinstance(ticker, TickerData)
    assert rest_of(ticker) is None
    return ticker


TICKER_LOOKS: list[Callable[[Any], Any]] = [
    *(lambda ticker, name=field.name: (name, repr(getattr(ticker, name))) for field in dataclasses.fields(TickerData)),
    type,
    lambda ticker: isinstance(ticker, TickerData),
    lambda ticker: (ticker.change_percent, ticker.timestamp_kst),
    lambda ticker: ticker == a_whole_ticker(),
    lambda ticker: a_whole_ticker() == ticker,
    lambda ticker: ticker == a_half_ticker(),
    lambda ticker: ticker == a_half_ticker(TICKER.replace(b'"tp":132827000.0', b'"tp":132827001')),
    lambda ticker: ticker in {a_whole_ticker()},
    hash,
    repr,
    str,
    lambda ticker: ticker._repr_html_(),
    lambda ticker: ticker.to_dict(),
    lambda ticker: TickerData.from_json(ticker.to_json()) == ticker,
    dataclasses.asdict,
    dataclasses.astuple,
    lambda ticker: dataclasses.replace(ticker, degraded=True),
    *(lambda ticker, protocol=protocol: pickled(ticker, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
    copy.copy,
    copy.deepcopy,
    lambda ticker: hasattr(ticker, "current_price"),
    lambda ticker: hasattr(ticker, "no_such_name"),
]


@pytest.mark.parametrize("look", TICKER_LOOKS)
def test_whatever_is_asked_first_it_is_the_ticker_that_is_read_in_full(look: Callable[[Any], Any]) -> None:
    assert look(a_half_ticker()) == look(a_whole_ticker())


def test_whose_and_from_when_a_ticker_is_costs_no_look() -> None:
    ticker, whole = a_half_ticker(), a_whole_ticker()
    for name in ("symbol", "timestamp", "trade_timestamp", "source", "received_at", "degraded"):
        assert getattr(ticker, name) == getattr(whole, name)
    assert rest_of(ticker) is not None


def test_a_few_numbers_are_made_alone_and_stay_what_they_were() -> None:
    ticker, whole = a_half_ticker(), a_whole_ticker()
    names = ("current_price", "change_rate", "last_trade_volume")
    given = [getattr(ticker, name) for name in names]
    assert [repr(each) for each in given] == [repr(getattr(whole, name)) for name in names]
    assert rest_of(ticker) is not None
    assert ticker.volume_24h == whole.volume_24h
    assert rest_of(ticker) is None
    assert all(getattr(ticker, name) is each for name, each in zip(names, given, strict=True))
    assert ticker == whole


@pytest.mark.parametrize("spelled", ["0", "0.0", "0E-8", "-0.0", "4.2E-7", "0.00000100", "132827000.00000000", "1E3"])
@pytest.mark.parametrize(
    ("key", "name"), [(b"tp", "current_price"), (b"scr", "change_rate"), (b"tv", "last_trade_volume")]
)
def test_a_number_alone_is_spelled_as_among_the_others(spelled: str, key: bytes, name: str, way: str) -> None:
    raw = re.sub(b'"%s":[^,]+' % key, b'"%s":%s' % (key, spelled.encode()), TICKER)
    is_zero = float(spelled) == 0.0
    if name != "change_rate" and (spelled.startswith("-") or (is_zero and way == "python")):
        assert half_ticker(raw) is None  # a float does not tell a zero from what is too near to it
    else:
        assert repr(getattr(a_half_ticker(raw), name)) == repr(getattr(a_whole_ticker(raw), name))


def test_a_field_that_was_left_out_is_none_alone_too() -> None:
    raw = TICKER.replace(b'"tv":5.48108E-3,', b"").replace(b'"atv":6.79528674', b'"atv":null')
    assert (a_half_ticker(raw).last_trade_volume, a_half_ticker(raw).volume_today) == (None, None)
    assert a_half_ticker(raw) == a_whole_ticker(raw)


@given(st.tuples(*[spelled] * 6), st.sampled_from(["", "-"]))
def test_a_ticker_that_was_taken_by_half_can_always_be_read_in_full(numbers: tuple[str, ...], sign: str) -> None:
    raw = TICKER
    for key, number in zip((b"tp", b"tv", b"atp", b"l52wp", b"scp", b"scr"), numbers, strict=True):
        spelling = (sign if key.startswith(b"s") else "") + number
        raw = re.sub(b'"%s":[^,]+' % key, b'"%s":%s' % (key, spelling.encode()), raw)
    if (ticker := half_ticker(raw)) is not None:
        expected = [repr(each) for each in dataclasses.astuple(a_whole_ticker(raw))]
        assert [repr(each) for each in dataclasses.astuple(ticker)] == expected


def test_a_half_ticker_is_as_frozen_as_any() -> None:
    ticker = a_half_ticker()
    for change in (lambda: setattr(ticker, "current_price", 1), lambda: delattr(ticker, "symbol")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    assert ticker == a_whole_ticker()


def test_threads_that_look_at_once_see_one_ticker() -> None:
    expected = a_whole_ticker()
    for _ in range(50):
        ticker = a_half_ticker()
        seen: list[Any] = []
        together = threading.Barrier(4)

        def look(ticker: TickerData = ticker, seen: list[Any] = seen, together: threading.Barrier = together) -> None:
            together.wait()
            seen.append((ticker.stream_type, ticker.current_price, ticker))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [(expected.stream_type, expected.current_price, expected)] * 4


@pytest.mark.parametrize("key", [b"tp", b"scr", b"scp", b"tv", b"atp24h", b"l52wp"])
@pytest.mark.parametrize(
    "broken",
    [
        "-1", '"NaN"', "null", "true", "[]", "{}", '"x"', "1E400", "1E-300", "-1E91", "1" * 101, "0." + "1" * 101,
        '"132827000.0"',
    ],
)  # fmt: skip
def test_a_tickers_number_that_cannot_be_read_is_found_on_arrival(key: bytes, broken: str) -> None:
    raw = re.sub(b'"%s":[^,]+' % key, b'"%s":%s' % (key, broken.encode()), TICKER)
    assert raw != TICKER
    readable = {"-1": (b"scr", b"scp"), "null": (b"tv", b"atp24h", b"l52wp")}
    is_readable = key in readable.get(broken, ())
    assert (half_ticker(raw) is not None) == is_readable
    if is_readable:
        assert a_half_ticker(raw) == a_whole_ticker(raw)


@pytest.mark.parametrize(
    "raw",
    [
        TICKER[:-1], TICKER + b"x", TICKER.replace(b"KRW-BTC", b"KRW BTC"),
        TICKER.replace(b',"tms":1795974789000', b""),
        TICKER.replace(b"1795974789000", b"-1"), TICKER.replace(b"FALL", b"SIDEWAYS"),
        TICKER.replace(b"FALL", b"\xff"),
        TICKER.replace(b"2026-07-12", b"2026-13-12"), TICKER.replace(b'"its":false', b'"its":0'),
        TICKER.replace(b'"ticker"', b'"ticket"'), TICKER.replace(b'"scp":-247000.0,', b""),
    ],
)  # fmt: skip
def test_what_is_unusual_in_a_ticker_is_left_to_the_whole_reader(raw: bytes) -> None:
    assert half_ticker(raw) is None


def test_every_recorded_ticker_reads_alike() -> None:
    taken = 0
    for path in payload_files():
        for raw in path.read_bytes().splitlines():
            if half_ticker(raw) is not None:
                assert [repr(each) for each in dataclasses.astuple(a_half_ticker(raw))] == [
                    repr(each) for each in dataclasses.astuple(a_whole_ticker(raw))
                ]
                taken += 1
    assert taken


TRADE = (
    b'{"ty":"trade","cd":"KRW-BTC","tms":1795974789000,"td":"2026-11-29","ttm":"17:53:05","ttms":1795974788999,'
    b'"tp":132827000.00000000,"tv":5.48108E-3,"ab":"ASK","pcp":132580000.00000000,"c":"FALL","cp":247000.00000000,'
    b'"sid":17959747890000000,"bap":132828000,"bas":2.7669E-4,"bbp":132827000,"bbs":0.01185673,"st":"REALTIME"}'
)
MADE_OF_A_TRADE = (
    "symbol", "price", "volume", "side", "timestamp", "sequential_id", "source", "stream_type", "is_backfilled",
    "received_at", "degraded",
)  # fmt: skip


def half_trade(raw: bytes) -> TradeData | None:
    heads = [head for head in TRADE_HEADS if raw.startswith(head)]
    trade = DECODER.halves(heads[0]).read(raw, NOW, Habit()) if heads else None
    assert trade is None or type(trade) is TradeData
    return trade


def a_half_trade(raw: bytes = TRADE) -> TradeData:
    trade = half_trade(raw)
    assert trade is not None
    assert rest_of(trade) is not None
    return trade


def a_whole_trade(raw: bytes = TRADE) -> TradeData:
    (trade,) = DECODER.decode(raw, NOW)
    assert isinstance(trade, TradeData)
    assert rest_of(trade) is None
    return trade


TRADE_LOOKS: list[Callable[[Any], Any]] = [
    *(lambda trade, name=field.name: (name, repr(getattr(trade, name))) for field in dataclasses.fields(TradeData)),
    type,
    lambda trade: isinstance(trade, TradeData),
    lambda trade: (trade.timestamp_kst, trade.change_amount, trade.published_at),
    lambda trade: trade == a_whole_trade(),
    lambda trade: a_whole_trade() == trade,
    lambda trade: trade == a_half_trade(),
    lambda trade: trade == a_half_trade(TRADE.replace(b'"bap":132828000', b'"bap":132829000')),
    lambda trade: trade in {a_whole_trade()},
    hash,
    repr,
    str,
    lambda trade: trade._repr_html_(),
    lambda trade: trade.to_dict(),
    lambda trade: TradeData.from_json(trade.to_json()) == trade,
    dataclasses.asdict,
    dataclasses.astuple,
    lambda trade: dataclasses.replace(trade, is_backfilled=True),
    *(lambda trade, protocol=protocol: pickled(trade, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
    copy.copy,
    copy.deepcopy,
    lambda trade: hasattr(trade, "best_bid_price"),
    lambda trade: hasattr(trade, "no_such_name"),
    frame_of,
]


@pytest.mark.parametrize("look", TRADE_LOOKS)
def test_whatever_is_asked_first_it_is_the_trade_that_is_read_in_full(look: Callable[[Any], Any]) -> None:
    assert look(a_half_trade()) == look(a_whole_trade())


def test_what_nearly_everybody_looks_at_in_a_trade_costs_no_look() -> None:
    trade, whole = a_half_trade(), a_whole_trade()
    for name in MADE_OF_A_TRADE:
        assert repr(getattr(trade, name)) == repr(getattr(whole, name))
    assert rest_of(trade) is not None


def test_a_best_price_is_made_alone_and_what_is_worked_out_makes_all() -> None:
    trade, whole = a_half_trade(), a_whole_trade()
    best = trade.best_bid_price
    assert repr(best) == repr(whole.best_bid_price)
    assert rest_of(trade) is not None
    assert trade.change_amount == whole.change_amount == Decimal(-247000)
    assert rest_of(trade) is None
    assert trade.best_bid_price is best
    assert trade == whole


def test_a_half_trade_is_as_frozen_as_any() -> None:
    trade = a_half_trade()
    for change in (lambda: setattr(trade, "best_ask_price", 1), lambda: delattr(trade, "price")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    assert trade == a_whole_trade()


def test_a_half_trade_can_carry_its_frame() -> None:
    trade = a_half_trade()
    keep_frame(trade, TRADE)
    assert frame_of(trade) == TRADE
    assert trade == a_whole_trade()


@pytest.mark.parametrize("key", [b"tp", b"tv", b"pcp", b"cp", b"bap", b"bas", b"bbp", b"bbs", b"sid", b"tms", b"ttms"])
@pytest.mark.parametrize(
    "broken",
    [
        "-1", '"NaN"', "true", "[]", "{}", '"x"', "1E400", "1E-300", "1E-400", "-1E91", "1" * 101, "0." + "1" * 101,
        "9223372036854775808", '"132827000.0"',
    ],
)  # fmt: skip
def test_a_trades_number_that_cannot_be_read_is_found_on_arrival(key: bytes, broken: str) -> None:
    raw = re.sub(b'"%s":[^,]+' % key, b'"%s":%s' % (key, broken.encode()), TRADE)
    assert raw != TRADE
    is_readable = (broken == "9223372036854775808" and key not in (b"sid", b"tms", b"ttms")) or (
        broken == '"132827000.0"' and key in (b"tp", b"tv")
    )
    assert (half_trade(raw) is not None) == is_readable
    if is_readable:
        assert a_half_trade(raw) == a_whole_trade(raw)


def _with_numbers(numbers: tuple[str, ...]) -> bytes:
    raw = TRADE
    for key, number in zip((b"tp", b"tv", b"pcp", b"cp", b"bap", b"bas", b"bbp", b"bbs"), numbers, strict=True):
        raw = re.sub(b'"%s":[^,]+' % key, b'"%s":%s' % (key, number.encode()), raw)
    return raw


@given(st.tuples(*[spelled] * 8))
def test_a_trade_that_was_taken_by_half_can_always_be_read_in_full(numbers: tuple[str, ...]) -> None:
    raw = _with_numbers(numbers)
    if (trade := half_trade(raw)) is not None:
        expected = [repr(each) for each in dataclasses.astuple(a_whole_trade(raw))]
        assert [repr(each) for each in dataclasses.astuple(trade)] == expected


@pytest.mark.parametrize("spelled", ["0", "0.0", "0E-8", "4.2E-7", "0.00000100", "1E-12", "132827000.00000000", "1E3"])
def test_usual_numbers_of_a_trade_are_taken_by_half(spelled: str) -> None:
    best = "0.00027" if float(spelled) == 0.0 else spelled
    raw = _with_numbers(("132827000.0", spelled, "132580000", spelled, "132828000", best, "132827000", "0.5"))
    trade, whole = a_half_trade(raw), a_whole_trade(raw)
    assert [repr(each) for each in dataclasses.astuple(trade)] == [repr(each) for each in dataclasses.astuple(whole)]


@pytest.mark.parametrize(
    "raw",
    [
        TRADE[:-1], TRADE + b"x", TRADE.replace(b"KRW-BTC", b"KRW BTC"), TRADE.replace(b',"ttms":1795974788999', b""),
        TRADE.replace(b"FALL", b"SIDEWAYS"), TRADE.replace(b'"ASK"', b'"NOBODY"'), TRADE.replace(b"FALL", b"\xff"),
        TRADE.replace(b'"bap":132828000', b'"bap":1E-95'), TRADE.replace(b'"bas":2.7669E-4', b'"bas":-1'),
        TRADE.replace(b'"trade"', b'"trades"'), TRADE.replace(b'"tp":132827000.00000000,', b""),
    ],
)  # fmt: skip
def test_what_is_unusual_in_a_trade_is_left_to_the_whole_reader(raw: bytes) -> None:
    assert half_trade(raw) is None


def test_a_trade_without_what_may_be_left_out_is_taken_by_half() -> None:
    raw = re.sub(b',"(?:bap|bas|bbp|bbs|pcp|cp|tms|sid|st)":[^,}]+', b"", TRADE)
    assert repr(a_half_trade(raw)) == repr(a_whole_trade(raw))
    assert a_half_trade(raw) == a_whole_trade(raw)


def test_every_recorded_trade_reads_alike() -> None:
    taken = 0
    for path in payload_files():
        for raw in path.read_bytes().splitlines():
            if half_trade(raw) is not None:
                assert [repr(each) for each in dataclasses.astuple(a_half_trade(raw))] == [
                    repr(each) for each in dataclasses.astuple(a_whole_trade(raw))
                ]
                taken += 1
    assert taken


def test_mutilated_frames_that_are_taken_by_half_read_alike_in_full() -> None:
    taken = 0
    for raw in mutants(random.randrange(2**32), 3_000, [TICKER, TRADE, frame(*LEVELS)]):
        book, ticker, trade = DECODER.half_book(raw, NOW), half_ticker(raw), half_trade(raw)
        if (half := ticker or book or trade) is not None:
            assert half == DECODER.decode(raw, NOW)[0], raw
            taken += 1
    assert taken


def looked_at(habit: Habit, count: int, *, wholly: bool, behind: int = 0) -> list[bool]:
    """Whether each was made by half, of as many that were looked at by somebody with that habit, who may be behind."""
    halves = []
    waiting: deque[Any] = deque()
    reader = DECODER.halves(next(head for head in TICKER_HEADS if TICKER.startswith(head)))
    for _ in range(count):
        halves.append(habit.is_half_enough())
        if halves[-1]:
            ticker = reader.read(TICKER, NOW, habit)
            assert ticker is not None
        else:
            ticker = a_whole_ticker()
        waiting.append(ticker)
        if len(waiting) > behind:
            read = waiting.popleft()
            assert (dataclasses.astuple(read) if wholly else read.current_price) is not None
    return halves


@pytest.mark.parametrize("behind", [0, 3, SAMPLED_EVERY + 50])
def test_whoever_looks_at_whole_models_gets_them_whole_but_for_samples(behind: int) -> None:
    halves = looked_at(Habit(), 4 * SAMPLED_EVERY, wholly=True, behind=behind)
    assert all(halves[: behind + 1])
    assert sum(halves[2 * SAMPLED_EVERY :]) == 2


def test_whoever_looks_at_a_part_gets_no_more() -> None:
    assert all(looked_at(Habit(), 3 * SAMPLED_EVERY, wholly=False))


def test_a_changed_habit_is_noticed() -> None:
    habit = Habit()
    for wholly in (True, False, True):
        halves = looked_at(habit, 3 * SAMPLED_EVERY, wholly=wholly)
        assert sum(halves[-SAMPLED_EVERY:]) == (1 if wholly else SAMPLED_EVERY)
