"""What goes over the wire, judged by the server: nothing about us, nothing unvalidated; and nothing bad comes back."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone import DataStrategy, DataType, MarketDataBackbone, UpbitBackboneError
from upbit_backbone.exchange.markets import CODE
from upbit_backbone.simulator import FakeUpbit

ROOT = Path(__file__).resolve().parents[2]
SECRET_HEADERS = {"origin", "authorization", "proxy-authorization", "cookie", "referer", "from", "x-forwarded-for"}
PARTS = {"ticket", "type", "codes", "level", "is_only_snapshot", "is_only_realtime", "format", "method"}
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
PATHS = re.compile(
    r"/v1/(market/all|ticker(/all)?|orderbook|trades/ticks|candles/(seconds|days|weeks|months|years|minutes/\d{1,3}))",
    re.ASCII,
)
QUERY = re.compile(r"(?:(?:is_details|markets|quote_currencies|market|count|level|to|cursor|days_ago|unit)="
                   r"[A-Za-z0-9.,%:+-]*&?)*", re.ASCII)  # fmt: skip


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    markets = ["KRW-BTC", "KRW-ETH", "BTC-ETH", "USDT-BTC"]
    with FakeUpbit(seed=5, trades_per_second=100, markets=markets, rest_limit=100_000, ban_after=0) as upbit:
        yield upbit


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[FakeUpbit]:
    """Where nobody should go."""
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"]) as upbit:
        yield upbit


@pytest.fixture
def market(upbit: FakeUpbit) -> Iterator[MarketDataBackbone]:
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:
        yield market
    upbit.clear_faults()


def mark(upbit: FakeUpbit) -> int | None:
    """Where the wire log ends now."""
    newest = upbit.wire_log(limit=1)
    return newest[-1]["n"] if newest else None


# ── what goes out ────────────────────────────────────────────────────────────────────────────────────────────────────

EVERYTHING = """
from upbit_backbone import *
with MarketDataBackbone() as market:
    for _ in range(2):
        market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY, max_age=0)
    market.get_tickers(quote="KRW")
    market.get_orderbook("KRW-BTC", strategy=DataStrategy.REST_ONLY)
    market.get_trades("KRW-BTC", count=3)
    market.get_candles("KRW-BTC", "1d", count=3)
    market.get_markets()
    market.subscribe("KRW-BTC", "trade").get(timeout=10)
"""


def test_nothing_about_us_goes_out_and_the_environment_changes_nothing(upbit: FakeUpbit, tmp_path: Path) -> None:
    """With a netrc, proxies in the environment and a server that sets cookies."""
    (tmp_path / ".netrc").write_text("default login canary password canary\n")
    (tmp_path / ".netrc").chmod(0o600)
    dead = "http://canary:canary@127.0.0.1:9"
    proxies = {
        name: dead
        for word in ("http", "https", "all", "ws", "wss")
        for name in (f"{word}_proxy", f"{word}_PROXY".upper())
    }
    upbit.rest_fault("*", "latency", latency=0.0, times=None, headers={"Set-Cookie": "session=canary; Path=/"})
    before = mark(upbit)
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING],
        env=os.environ | upbit.environment() | proxies
        | {"HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc"), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    upbit.clear_faults()
    assert (done.returncode, done.stderr) == (0, "")
    requests, handshakes = upbit.requests(since=before), upbit.wire_log("handshake", since=before)
    assert len(requests) >= 7
    assert handshakes
    for entry in requests + handshakes:
        assert SECRET_HEADERS & set(entry["headers"]) == set()
        assert "canary" not in json.dumps(entry)
    assert {entry["headers"]["accept-encoding"] for entry in requests} == {"gzip"}
    assert not [entry for entry in handshakes if "sec-websocket-extensions" in entry["headers"]]


@pytest.mark.parametrize("status", [301, 302, 307])
def test_redirects_lead_nowhere(status: int, upbit: FakeUpbit, elsewhere: FakeUpbit) -> None:
    with MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url, rest_attempts=1) as market:
        upbit.rest_fault("*", "redirect", status=status, times=None, location=f"{elsewhere.rest_url}/v1/market/all")
        upbit.handshake_fault("redirect", status=status, times=None, location=elsewhere.websocket_url)
        with pytest.raises(UpbitBackboneError):
            market.get_markets(timeout=1)
        with pytest.raises(UpbitBackboneError):
            market.get_ticker("KRW-BTC", timeout=0.5)
        upbit.clear_faults()
        assert elsewhere.requests() == []
        assert elsewhere.wire_log("connect") == elsewhere.wire_log("handshake") == []


# ── whatever is asked ────────────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = st.sampled_from([
    "KRW-BTC&markets=KRW-ETH", "KRW-BTC\n", "KRW-BTC\r\nX: y", "1/../../orders?x=", "../../v1/accounts",
    "KRW-BTC%0d%0a", "KRW-BTC#", "KRW-BTC?x=1", "KRW-BTC.15", "KRW-BTC,KRW-ETH", "KRW-ＢＴＣ", "KRW-BTC\x00",
    '"},{"type":"myOrder"}', "１m", "minutes/1", "1m/../..", "KRW-\u0130", "krw-btc", "KRW/BTC/ETH", "KRW-BTC ", "",
    "-", "KRW-", "1M\n",
])  # fmt: skip
WORDS = st.one_of(HOSTILE, st.text(max_size=24), st.from_regex(CODE, fullmatch=True), st.just("KRW-BTC"))

Question = Callable[[MarketDataBackbone, str, str], object]
QUESTIONS: list[Question] = [
    lambda market, a, b: market.get_ticker(a, timeout=2),
    lambda market, a, b: market.get_ticker(a, strategy=DataStrategy.REST_ONLY, max_age=0, timeout=2),
    lambda market, a, b: market.get_tickers([a, b], timeout=2),
    lambda market, a, b: market.get_tickers(quote=a, timeout=2),
    lambda market, a, b: market.get_orderbook(a, level=b, timeout=2),
    lambda market, a, b: market.get_trades(a, count=1, timeout=2),
    lambda market, a, b: market.get_candles(a, b, count=1, timeout=2),
    lambda market, a, b: market.get_candles("KRW-BTC", a, count=1, timeout=2),
    lambda market, a, b: market.get_markets(a, timeout=2),
    lambda market, a, b: market.subscribe(a, b).close(),
    lambda market, a, b: market.subscribe("KRW-BTC", a).close(),
    lambda market, a, b: market.subscribe([a, b], DataType.ORDERBOOK, level=b).close(),
    lambda market, a, b: market.explain(a, b),
]


@pytest.fixture
def tireless(upbit: FakeUpbit) -> Iterator[MarketDataBackbone]:
    """Asked thousands of questions: the limiter would make the test wait."""
    urls = {"rest_url": upbit.rest_url.replace("127.0.0.1", "localhost"), "websocket_url": upbit.websocket_url}
    with MarketDataBackbone(**urls, rest_requests_per_second=10_000) as market:
        yield market


def test_whatever_is_asked_only_known_paths_and_codes_reach_the_wire(
    upbit: FakeUpbit, tireless: MarketDataBackbone
) -> None:
    before = mark(upbit)
    asked: list[tuple[Question, str, str]] = []

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(QUESTIONS), WORDS, WORDS)
    def collect(question: Question, first: str, second: str) -> None:
        asked.append((question, first, second))

    collect()  # first all of them, because hypothesis objects to what threads of ours do meanwhile
    for question, first, second in asked:
        with suppress(UpbitBackboneError):  # and nothing else
            question(tireless, first, second)
    requests = upbit.requests(since=before)
    assert requests
    for entry in requests:
        assert entry.get("bad") is None
        assert PATHS.fullmatch(entry["path"]), entry
        assert QUERY.fullmatch(entry["raw_query"]), entry
        for name in ("market", "markets"):
            for code in entry["query"].get(name, "").split(",") if name in entry["query"] else ():
                assert CODE.fullmatch(code), entry
    for entry in upbit.wire_log("message", since=before):
        check_message(entry["text"])


def check_message(text: str) -> None:
    assert text.isascii()
    for part in json.loads(text):
        assert set(part) <= {
            "ticket",
            "type",
            "codes",
            "level",
            "is_only_snapshot",
            "is_only_realtime",
            "format",
            "method",
        }
        if "type" in part:
            assert part["type"] in {each.value for each in DataType}
        for code in part.get("codes", ()):
            assert CODE.fullmatch(code.partition(".")[0]), text
            assert re.fullmatch(r"|\.(1|5|15|30)", code.partition(".")[1] + code.partition(".")[2]), text


# ── whatever comes back ──────────────────────────────────────────────────────────────────────────────────────────────

# Terminal escapes, line breaks of every kind, text direction, and far too much of it.
EVIL = "\x1b[2J\x1b[31mCANARY\r\nERROR root: forged\x07\x85\u2028\u2029\u202e\x00" + "A" * 5000
JSON_EVIL = json.dumps({"error": {"name": EVIL, "message": EVIL}})


def by_rest(**fault: Any) -> Callable[[FakeUpbit, MarketDataBackbone], object]:
    def act(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
        upbit.rest_fault("*", times=None, **fault)
        market.get_ticker("KRW-ETH", strategy=DataStrategy.REST_ONLY, max_age=0, timeout=0.5)

    return act


def by_handshake(**fault: Any) -> Callable[[FakeUpbit, MarketDataBackbone], object]:
    def act(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
        upbit.handshake_fault(times=None, **fault)
        market.get_ticker("KRW-ETH", strategy=DataStrategy.WEBSOCKET_ONLY, timeout=0.5)

    return act


def by_frame(send: Callable[[FakeUpbit], object]) -> Callable[[FakeUpbit, MarketDataBackbone], object]:
    def act(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
        with market.subscribe("KRW-BTC", DataType.TRADE) as trades:
            trades.get(timeout=10)
            send(upbit)
            for _ in range(40):
                trades.get(timeout=10)

    return act


BAD_ANSWERS: dict[str, Callable[[FakeUpbit, MarketDataBackbone], object]] = {
    **{f"REST {code}": by_rest(status=code, body=JSON_EVIL) for code in (400, 403, 404, 500, 503)},
    "REST plain text": by_rest(status=500, body=EVIL),
    "REST html": by_rest(mode="html", body=EVIL),
    "REST garbage": by_rest(mode="garbage", body=EVIL),
    "REST truncated": by_rest(mode="truncated"),
    "REST shape": by_rest(mode="shape", body=json.dumps([{"market": EVIL, "trade_price": EVIL}])),
    **{f"handshake {code}": by_handshake(status=code, body=EVIL) for code in (400, 403, 503)},
    "handshake garbage": by_handshake(mode="garbage", body=EVIL),
    "error object": by_frame(lambda upbit: upbit.send_json(JSON_EVIL)),
    "poison text": by_frame(lambda upbit: upbit.send_json(EVIL)),
    "poison trade": by_frame(
        lambda upbit: upbit.send_json(json.dumps({"ty": "trade", "cd": EVIL, "tp": EVIL, "sid": EVIL}))
    ),
    "unknown type": by_frame(lambda upbit: upbit.send_json(json.dumps({"ty": EVIL, "cd": "KRW-BTC"}))),
    "text frame": by_frame(lambda upbit: upbit.send_text(EVIL)),
    "close reason": by_frame(lambda upbit: upbit.close_sessions(4000, EVIL[:60])),
    "bytes that are no frame": by_frame(lambda upbit: upbit.send_raw(EVIL.encode())),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_foreign_text_stays_on_one_line(
    name: str, upbit: FakeUpbit, market: MarketDataBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    """In errors, in log records and in the words of events: no control character, no forged line, no flood."""
    caplog.set_level(logging.DEBUG, logger="upbit_backbone")
    market.get_markets()
    events: list[Any] = []
    market.on_event(events.append)
    errors: list[UpbitBackboneError] = []
    try:
        BAD_ANSWERS[name](upbit, market)
    except UpbitBackboneError as error:
        errors.append(error)
    report = market.health()
    market.close()
    chain = [each for error in errors for each in chained(error) if isinstance(each, UpbitBackboneError)]
    texts = [str(error) for error in chain]
    texts += [record.getMessage() for record in caplog.records]
    texts += [str(value) for event in events for value in values_of(event)]
    texts += [*report.reasons, *(str(session.last_error) for session in report.sessions)]
    for text in texts:
        assert not CONTROL.search(text), repr(text)
        assert len(text) < 1500
    formatter = logging.Formatter("%(levelname)s %(message)s")
    lines = [formatter.format(record) for record in caplog.records if not record.exc_info]
    assert [line for line in lines if "\n" in line] == []


def chained(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def values_of(event: Any) -> Iterator[object]:
    for name in event.__dataclass_fields__:
        value = getattr(event, name)
        yield from value if isinstance(value, tuple) else (value,)


def test_a_traceback_of_ours_shows_no_control_characters(upbit: FakeUpbit, market: MarketDataBackbone) -> None:
    market.get_markets()
    upbit.rest_fault("*", "status", status=400, body=JSON_EVIL, times=None)
    with pytest.raises(UpbitBackboneError) as failed:
        market.get_ticker("KRW-ETH", strategy=DataStrategy.REST_ONLY, max_age=0, timeout=1)
    shown = "".join(traceback.format_exception(failed.value))
    assert not CONTROL.search(shown.replace("\n", ""))
    assert "\nERROR root: forged" not in shown
