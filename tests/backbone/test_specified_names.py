"""The parts the system was specified with, and their methods: they exist, are documented, and do what they say."""

from __future__ import annotations

import inspect
from decimal import Decimal

import pytest

import upbit_backbone
from tests.support.clock import ManualClock
from tests.support.waiting import wait_until
from upbit_backbone import (
    Channel,
    ChannelPreference,
    ChannelUnavailableError,
    CircuitBreaker,
    ConnectionPool,
    ConnectionState,
    DataRequest,
    DataStrategy,
    DataType,
    IntelligentCache,
    InvalidRequestError,
    MarketDataBackbone,
    RequestKind,
    RequestRouter,
    SessionManager,
    choose_channel,
)
from upbit_backbone.models.request import Topic
from upbit_backbone.simulator import FakeUpbit

BTC = DataRequest(RequestKind.TICKER, ("KRW-BTC",))

SPECIFIED = {
    "MarketDataBackbone": ("get_ticker", "get_candles", "get_orderbook", "subscribe_realtime"),
    "SessionManager": ("initialize", "maintain_connections", "handle_disconnection"),
    "ConnectionPool": ("get_connection", "release_connection", "cleanup_idle_connections"),
    "CircuitBreaker": ("call", "handle_failure", "attempt_recovery"),
    "RequestRouter": (
        "analyze_request", "choose_channel", "get_average_latency", "get_performance_metrics",
        "update_routing_strategy",
    ),
    "IntelligentCache": ("get_cached_data", "cache_data", "invalidate_cache"),
    "DataUnifier": (
        "unify_ticker_data", "unify_candle_data", "unify_orderbook_data", "unify_trade_data", "unify_market_data",
    ),
    "HealthMonitor": ("check_rest_api_health", "check_websocket_health", "get_performance_report"),
}  # fmt: skip


@pytest.mark.parametrize(("part", "method"), [(part, method) for part, names in SPECIFIED.items() for method in names])
def test_every_method_of_the_specification_is_there_public_documented_and_synchronous(part: str, method: str) -> None:
    found = getattr(getattr(upbit_backbone, part), method)
    assert inspect.getdoc(found)
    assert not inspect.iscoroutinefunction(found)


@pytest.fixture
def market(upbit: FakeUpbit) -> MarketDataBackbone:
    return MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url)


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_connection_given_up_comes_back_with_all_it_carried(market: MarketDataBackbone) -> None:
    with market, market.subscribe("KRW-BTC", DataType.TICKER) as tickers:
        assert tickers.get(timeout=20) is not None
        sessions = market.session_manager
        (session,) = sessions.stats()
        before = tickers.stats.received
        sessions.handle_disconnection(session.session)
        wait_until(lambda: sessions.stats()[0].connects == 2, "the connection was made anew")
        wait_until(lambda: sessions.stats()[0].state is ConnectionState.LIVE, "the new connection is live")
        wait_until(lambda: tickers.stats.received > before, "the snapshot of the restored subscription came")


def test_giving_up_a_connection_that_is_not_ours_names_those_that_are(market: MarketDataBackbone) -> None:
    with market, market.subscribe("KRW-BTC", DataType.TICKER) as tickers:
        tickers.get(timeout=20)
        with pytest.raises(InvalidRequestError, match=r"session-99.*session-1"):
            market.session_manager.handle_disconnection("session-99")


def test_a_round_of_upkeep_tells_who_is_alive_and_closes_what_nobody_wants(market: MarketDataBackbone) -> None:
    with market:
        sessions = market.session_manager
        assert sessions.maintain_connections() == ((), (), ())
        with market.subscribe("KRW-BTC", DataType.TICKER) as tickers:
            tickers.get(timeout=20)
            assert sessions.maintain_connections() == (("session-1",), (), ())
        wait_until(lambda: not sessions.topics(), "the subscription is taken back")
        assert sessions.maintain_connections() == ((), (), ("session-1",))
        assert sessions.stats() == []


def test_initializing_makes_a_session_that_waits_try_again_at_once(market: MarketDataBackbone, upbit) -> None:
    with market:
        assert market.session_manager.initialize() == {}
        assert isinstance(market.session_manager, SessionManager)
        with market.subscribe("KRW-BTC", DataType.TICKER) as tickers:
            tickers.get(timeout=20)
            assert set(market.session_manager.initialize()) == {"session-1"}
            assert market.session_manager.stats()[0].connects == 1  # a line that is up is left alone


def test_a_pool_names_the_connection_of_a_symbol_gives_one_up_and_forgets_the_idle() -> None:
    pool: ConnectionPool[str] = ConnectionPool(max_connections=2, max_topics_per_connection=2)
    assert pool.get_connection("KRW-BTC") is None  # none is open yet
    pool.add("one")
    ticker, trade = Topic(DataType.TICKER, "KRW-BTC"), Topic(DataType.TRADE, "KRW-BTC")
    assert pool.get_connection("KRW-BTC") == pool.place(ticker) == pool.place(trade) == "one"
    assert pool.get_connection("KRW-BTC") == "one"  # full, but it carries the symbol
    assert pool.get_connection("KRW-ETH") is None  # a further one would be opened
    pool.add("two")
    assert pool.get_connection("KRW-ETH") == "two"
    assert pool.cleanup_idle_connections() == 1
    assert pool.carriers() == ["one"]
    assert pool.release_connection("one") == {ticker, trade}
    assert pool.release_connection("one") == frozenset()
    assert pool.carriers() == []


# ── circuit breaker ──────────────────────────────────────────────────────────────────────────────────────────────────


def broken(clock: ManualClock) -> CircuitBreaker:
    breaker = CircuitBreaker("test", failures=2, reset_seconds=5.0, probes=1, clock=clock)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            breaker.call(divmod, 1, 0)
    return breaker


def test_a_breaker_calls_counts_failures_and_recovers_by_one_probe() -> None:
    clock = ManualClock()
    breaker = broken(clock)
    assert breaker.state == "open"
    with pytest.raises(ChannelUnavailableError) as refused:
        breaker.call(divmod, 7, 2)
    assert refused.value.retry_after == 5.0
    assert breaker.attempt_recovery() is False
    clock.now += 5.0
    assert breaker.attempt_recovery() is True
    assert breaker.state == "half-open"
    assert breaker.call(divmod, 7, 2) == (3, 1)
    assert breaker.state == "closed"


def test_a_failure_that_happened_elsewhere_counts_and_an_interrupt_does_not() -> None:
    breaker = CircuitBreaker("test", failures=2, reset_seconds=5.0)
    breaker.handle_failure(OSError("elsewhere"))

    def interrupted() -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            breaker.call(interrupted)
    assert breaker.state == "closed"
    breaker.handle_failure(OSError("elsewhere"))
    assert breaker.state == "open"


# ── routing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("strategy", "preference"),
    [
        (DataStrategy.AUTO, ChannelPreference.REST_API_PREFERRED),
        (DataStrategy.REST_ONLY, ChannelPreference.REST_API_PREFERRED),
        (DataStrategy.PREFER_WEBSOCKET, ChannelPreference.WEBSOCKET_PREFERRED),
        (DataStrategy.WEBSOCKET_ONLY, ChannelPreference.WEBSOCKET_PREFERRED),
    ],
)
def test_a_choice_prefers_one_of_upbits_two_ways(strategy: DataStrategy, preference: ChannelPreference) -> None:
    decision = choose_channel(DataRequest(RequestKind.TICKER, ("KRW-BTC",), strategy=strategy))
    assert decision.preference is preference
    assert preference.value in ("WEBSOCKET_PREFERRED", "REST_API_PREFERRED")


def test_a_router_measures_its_channels_and_can_be_told_of_others_measurements(market: MarketDataBackbone) -> None:
    assert Channel.REST_API is Channel.REST
    with market:
        router: RequestRouter = market.router
        assert router.get_average_latency(Channel.REST_API) is None
        market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY)
        mean = router.get_average_latency("rest")
        assert mean is not None
        assert 0 < mean < 60
        metrics = router.get_performance_metrics()
        assert metrics["rest"] is metrics[Channel.REST]  # type: ignore[index]
        assert router.choose_channel(BTC).reason == router.analyze_request(BTC).reason
        assert router.update_routing_strategy() is False
        assert router.update_routing_strategy({}) is False
        with pytest.raises(InvalidRequestError, match="channel='fax': expected one of live, websocket, rest, cache"):
            router.get_average_latency("fax")


# ── cache ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cache_is_asked_by_the_question_itself() -> None:
    cache = IntelligentCache()
    deep = DataRequest(RequestKind.ORDERBOOK, ("KRW-BTC",), levels=12, level=Decimal(0))
    candles = DataRequest(RequestKind.CANDLES, ("KRW-BTC",), timeframe="1m", count=5)
    for request, answer in ((BTC, "ticker"), (deep, "book"), (candles, "candles")):
        assert cache.get_cached_data(request) is None
        cache.cache_data(request, answer, ttl=60.0)
        assert cache.get_cached_data(request) == answer
    assert cache.get_cached_data(("ticker", "KRW-BTC")) == "ticker"
    assert cache.invalidate_cache(BTC) == 1
    assert cache.get_cached_data(BTC) is None
    assert cache.invalidate_cache("KRW-BTC", "orderbook") == 1
    assert cache.invalidate_cache("KRW-BTC") == 1


def test_the_facade_takes_questions_as_keys_too(market: MarketDataBackbone) -> None:
    with market:
        market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY)
        assert market.get_cached_data(BTC, max_age=60.0).symbol == "KRW-BTC"


# ── spellings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_mapping_leads_from_each_wire_name_to_ours() -> None:
    mapping = upbit_backbone.FIELD_MAPPING
    assert mapping["REST_API"]["trade_price"] == "current_price"
    assert mapping["WEBSOCKET_DEFAULT"]["trade_price"] == "current_price"
    simple = mapping["WEBSOCKET_SIMPLE"]
    assert (simple["tp"], simple["scr"], simple["scp"]) == ("current_price", "change_rate", "change_amount")


# ── the module's functions ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["get_ticker", "get_tickers", "get_orderbook", "get_trades", "get_candles", "get_markets"]
)
def test_a_function_of_the_module_has_the_methods_arguments_and_its_help(name: str) -> None:
    function, method = getattr(upbit_backbone, name), getattr(MarketDataBackbone, name)
    (_, *theirs) = inspect.signature(method).parameters.values()
    assert list(inspect.signature(function).parameters.values()) == theirs
    assert inspect.getdoc(function) == inspect.getdoc(method)
    assert (function.__name__, function.__module__) == (name, "upbit_backbone.default_backbone")
    with pytest.raises(TypeError, match="max_ags"):
        function("KRW-BTC", max_ags=1)
