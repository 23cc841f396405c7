from __future__ import annotations

import threading
from decimal import Decimal
from enum import StrEnum

import pytest

from tests.sinks.conftest import at, book, candle, ticker, trade
from tests.sinks.test_sqlite import ODD_TRADES, gap, span
from tests.support.waiting import wait_until
from upbit_backbone.archive.store import reading
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models.number import plain
from upbit_backbone.sinks import columnar
from upbit_backbone.sinks.base import Batch

pytest.importorskip("pyarrow")


@pytest.fixture
def store(make_store):
    tiny = trade(4, symbol="BTC-XRP", price=plain(Decimal("0.000000000012")), volume=Decimal("12345678901.5"))
    items = [trade(1), trade(2), trade(3, sequential_id=None), tiny, ticker(1, volume_today=None), book(1), candle(0)]
    return make_store(Batch(items, spans=(span(0, 9),)), gap(3, 4))


def test_a_table_has_what_the_models_have_exactly(store):
    table = store.table("trades", "KRW-BTC")
    models = store.trades("KRW-BTC")
    assert table["price"].to_pylist() == [each.price for each in models]
    assert table["timestamp"].to_pylist() == [each.timestamp for each in models]
    assert table["sequential_id"].to_pylist() == [each.sequential_id for each in models]
    assert table["is_backfilled"].to_pylist() == [False] * 3
    assert store.table("trades", "KRW-BTC", at(0.15), at(0.25)).num_rows == 1
    assert store.table("tickers")["volume_today"].to_pylist() == [None]
    assert store.table("candles")["close_price"].to_pylist() == [3]
    assert store.table("coverage")["end"].to_pylist() == [at(9)]
    assert store.table("gaps")["reason"].to_pylist() == ["gone"]
    assert store.table("trades", "KRW-ETH").num_rows == 0
    with pytest.raises(InvalidRequestError, match="expected one of trades"):
        store.table("users")


def test_a_few_columns_are_read_alone(store):
    table = store.table("trades", "KRW-BTC", columns=["volume", "timestamp"])
    assert table.column_names == ["volume", "timestamp"]
    assert table["volume"].to_pylist() == [each.volume for each in store.trades("KRW-BTC")]
    assert store.table("gaps", columns=["reason"]).num_rows == 1
    for wrong in (["prise"], [], "price"):
        with pytest.raises(InvalidRequestError, match="trades has symbol, price"):
            store.table("trades", columns=wrong)


def test_many_rows_come_in_pieces_and_numbers_that_are_wider_fit(store, monkeypatch):
    monkeypatch.setattr(columnar, "BATCH_ROWS", 1)
    table = store.table("trades")
    assert table.num_rows == 4
    assert table["volume"].to_pylist()[-1] == Decimal("12345678901.5")
    assert table["price"].to_pylist()[-1] == Decimal("0.000000000012")


@pytest.mark.parametrize(("rows", "pieces"), [(2, 1), (5, 2)])
def test_small_pieces_become_one_and_large_ones_are_not_copied(make_store, monkeypatch, rows, pieces):
    monkeypatch.setattr(columnar, "TEXT_ROWS", rows)
    monkeypatch.setattr(columnar, "SMALL_ROWS", 4)
    items = [trade(number) for number in range(10)]
    table = make_store(Batch(items)).table("trades", "KRW-BTC")
    assert {column.num_chunks for column in table.columns} == {pieces}
    assert table["price"].to_pylist() == [each.price for each in items]


# Eleven digits before the point, where a price has ten; nine behind it, where it has eight. And so of what does not
# repeat as prices do.
@pytest.mark.parametrize(
    ("column", "wide"),
    [
        ("price", Decimal(12345678901)),
        ("price", Decimal("0.123456789")),
        ("best_bid_size", Decimal(12345678901)),
        ("best_bid_size", Decimal("0.123456789")),
    ],
)
def test_a_number_of_more_digits_than_its_kind_has_makes_the_column_wider(make_store, column, wide):
    store = make_store(Batch([trade(1), trade(2, **{column: wide}), trade(3, best_ask_price=None)]))
    table = store.table("trades", "KRW-BTC")
    assert table[column].to_pylist() == [getattr(trade(1), column), wide, getattr(trade(3), column)]
    assert str(table.schema.field(column).type) == "decimal128(38, 16)"
    assert str(table.schema.field("volume").type) == "decimal128(20, 8)"
    assert table["best_ask_price"].to_pylist()[2] is None


@pytest.mark.parametrize("numbers", ["exact", "float"])
def test_a_trade_like_any_other_is_read_without_python_s_objects(make_store, monkeypatch, numbers):
    items = [trade(1), trade(2, sequential_id=None, side=None, received_at=None, change_amount=None), trade(3)]
    store = make_store(Batch(items))
    monkeypatch.delattr(columnar, "_decoded")
    for name, column in zip((table := store.table("trades", numbers=numbers)).column_names, table, strict=True):
        told = [getattr(each, name) for each in items]
        written = [str(each) if isinstance(each, StrEnum) else each for each in told]
        is_rounded = str(column.type) == "double"
        assert column.to_pylist() == [None if each is None else float(each) if is_rounded else each for each in written]


def test_floats_are_the_nearest_to_the_exact_numbers_and_ids_stay_exact(store):
    table = store.table("trades", "KRW-BTC", numbers="float")
    models = store.trades("KRW-BTC")
    assert str(table.schema.field("price").type) == "double"
    assert table["volume"].to_pylist() == [float(each.volume) for each in models]
    assert table["best_ask_price"].to_pylist() == [
        None if each.best_ask_price is None else float(each.best_ask_price) for each in models
    ]
    assert table["sequential_id"].to_pylist() == [each.sequential_id for each in models]
    assert table["timestamp"].to_pylist() == [each.timestamp for each in models]
    assert store.table("candles", numbers="float")["close_price"].to_pylist() == [3.0]
    with pytest.raises(InvalidRequestError, match="expected 'exact' or 'float'"):
        store.table("trades", numbers="double")


def test_trades_are_in_the_order_of_their_time_whatever_their_numbers(make_store, monkeypatch):
    monkeypatch.setattr(columnar, "TEXT_ROWS", 2)
    numbers = (50, 10, 40, 20, 30)
    items = [trade(place, sequential_id=number) for place, number in enumerate(numbers)]
    store = make_store(Batch([*items, trade(9, symbol="KRW-ETH", sequential_id=15)]))
    assert store.table("trades", "KRW-BTC")["sequential_id"].to_pylist() == list(numbers)
    assert store.table("trades", "KRW-BTC", at(0.05), at(0.35))["sequential_id"].to_pylist() == [10, 40, 20]
    assert store.table("trades")["sequential_id"].to_pylist() == [*numbers, 15]
    assert store.table("trades", "KRW-BTC", columns=["price"])["price"].to_pylist() == [each.price for each in items]


def test_a_word_with_strange_signs_is_read_as_it_was_written(make_store):
    strange = 'B"I\\D,\n한'
    store = make_store(Batch([trade(1), trade(2, side=strange), trade(3, side="null"), trade(4, side=None)]))
    assert store.table("trades")["side"].to_pylist() == [str(trade(1).side), strange, "null", None]


LISTED = ["received_at", "is_backfilled", "stream_type", "source", "change_amount", "best_ask_price", "published_at"]


@pytest.mark.parametrize("without", [None, 3])  # the one with strange signs, for which the others are read otherwise
def test_what_lies_in_a_trades_list_comes_as_it_was(make_store, without):
    items = [each for place, each in enumerate(ODD_TRADES) if place != without]
    table = make_store(Batch(items)).table("trades", "KRW-BTC", columns=LISTED)
    assert table.column_names == LISTED
    for name in LISTED:
        told = [getattr(each, name) for each in items]
        assert table[name].to_pylist() == [str(each) if isinstance(each, StrEnum) else each for each in told]


@pytest.mark.parametrize("rows", [1, 2, 5, 6])
def test_trades_of_one_moment_are_each_there_once_wherever_a_piece_ends(make_store, monkeypatch, rows):
    monkeypatch.setattr(columnar, "TEXT_ROWS", rows)
    items = [trade(number, seconds=place) for number, place in enumerate((0, 0, 0, 1, 2, 2))]
    for columns in (None, ["price", "sequential_id"]):
        table = make_store(Batch(items)).table("trades", "KRW-BTC", columns=columns)
        assert table["sequential_id"].to_pylist() == [each.sequential_id for each in items]


def test_many_rows_are_parsed_on_threads_of_their_own_and_a_few_where_they_are_asked_for(make_store, monkeypatch):
    parse, threads = columnar._parsed, []

    def parsed(*given):
        threads.append(threading.current_thread())
        return parse(*given)

    monkeypatch.setattr(columnar, "_parsed", parsed)
    store = make_store(Batch([trade(number) for number in range(95)]))
    assert store.table("trades", "KRW-BTC").num_rows == 95
    assert threads == [threading.current_thread()]
    monkeypatch.setattr(columnar, "TEXT_ROWS", 10)
    table = store.table("trades", "KRW-BTC")
    assert table["sequential_id"].to_pylist() == [trade(number).sequential_id for number in range(95)]
    assert len(threads) == 1 + 10
    own = set(threads[1:])
    assert 1 <= len(own) <= columnar.PARSERS
    assert all(thread.name.startswith("upbit-columns") for thread in own)
    wait_until(lambda: not any(thread.is_alive() for thread in own))


def test_what_cannot_be_parsed_is_raised_where_it_was_asked_for_and_the_connection_is_free(make_store, monkeypatch):
    monkeypatch.setattr(columnar, "TEXT_ROWS", 10)
    tiny = trade(45, price=Decimal("1.123456789012345678901234567890123456789"))
    store = make_store(Batch([tiny if number == 45 else trade(number) for number in range(95)]))
    with reading(store.path) as connection:
        with pytest.raises(InvalidRequestError, match="does not fit 38 digits"):
            columnar.frame_of(connection, "trades", "KRW-BTC")
        assert not connection.in_transaction
        assert columnar.frame_of(connection, "trades", "KRW-BTC", at(0), at(4.5)).num_rows == 45


def test_each_trade_is_looked_at_once_whatever_the_bounds(make_store, monkeypatch):
    monkeypatch.setattr(columnar, "TEXT_ROWS", 10)
    store = make_store(Batch([trade(number) for number in range(1_000)]))

    def steps(*bounds) -> int:
        with reading(store.path) as connection:
            seen: list[None] = []
            connection.set_progress_handler(lambda: seen.append(None), 1)
            assert columnar.frame_of(connection, "trades", "KRW-BTC", *bounds).num_rows == 1_000
        return len(seen)

    assert steps(at(0), at(100)) < 1.5 * steps()


def test_pandas_and_polars_take_a_table(store):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    table = store.table("trades", "KRW-BTC")
    assert isinstance(table.to_pandas(), pandas.DataFrame)
    assert polars.from_arrow(table).height == 3


def test_sql_is_answered_exactly(store):
    pytest.importorskip("duckdb")
    found = store.sql(
        "select sum(price * volume) as value, count(*) as n from trades where symbol = $symbol and timestamp >= $since",
        symbol="KRW-BTC",
        since=at(0),
    )
    expected = sum(each.price * each.volume for each in store.trades("KRW-BTC"))
    assert found.to_pylist() == [{"value": expected, "n": 3}]
    assert store.sql('select max("end") as reached from coverage').to_pylist()[0]["reached"] == at(9)
    with pytest.raises(InvalidRequestError, match="DuckDB does not take that"):
        store.sql("select nonsense from trades")
