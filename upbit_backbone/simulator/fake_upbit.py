"""`FakeUpbit`: the simulator as an object."""

from __future__ import annotations

import base64
from types import TracebackType
from typing import Any

from upbit_backbone.simulator.process import ControlClient, SimulatorProcess, SimulatorThread, can_start_python

_ENVIRONMENT = {
    "UPBIT_BACKBONE_REST_URL": "rest_url",
    "UPBIT_BACKBONE_WEBSOCKET_URL": "websocket_url",
    "UPBIT_BACKBONE_CA_FILE": "ca_file",
}


class FakeUpbit:
    """A simulated Upbit in its own process; running as soon as it is made, gone after `close`.

    In a frozen program, which has no Python to start, it runs on a thread of this process.

    Keyword arguments are the switches of `simulator.serving.options.Options`. Usable from several threads.
    Every method that changes something has taken effect when it returns, except where it says otherwise.
    """

    def __init__(self, *, seed: int = 1, tls: bool = False, trades_per_second: float = 50.0,
                 markets: int | list[str] | None = None, **switches: Any) -> None:  # fmt: skip
        settings = {"seed": seed, "tls": tls, "trades_per_second": trades_per_second, "markets": markets} | switches
        self._process = SimulatorProcess(settings) if can_start_python() else SimulatorThread(settings)
        urls = self._process.urls
        self.url: str = urls["rest_url"]  # serves both; the two below are doors apart, so that one can fail alone
        self.rest_url: str = urls["rest_url"]
        self.websocket_url: str = urls["websocket_url"]
        self.control_url: str = urls["control_url"]
        self.ca_file: str | None = urls["ca_file"]
        self.pid = self._process.pid
        try:
            self._control = ControlClient(self.control_url)
        except BaseException:
            self._process.stop()
            raise

    def __repr__(self) -> str:
        state = "running" if self._process.is_running else "ended"
        return f"<FakeUpbit {state} pid={self.pid} {self.rest_url} {self.websocket_url}>"

    def __enter__(self) -> FakeUpbit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and waits until it is gone. Safe to call again."""
        self._control.close()
        self._process.stop()

    def environment(self) -> dict[str, str]:
        """The variables that point any program built on upbit_backbone at this simulator."""
        values = ((variable, getattr(self, name)) for variable, name in _ENVIRONMENT.items())
        return {variable: value for variable, value in values if value is not None}

    def inject(self, verb: str, **arguments: Any) -> Any:
        """Calls any verb of the control port (`GET` on `control_url` lists them)."""
        return self._control.call(verb, **arguments)

    # -- looking ---------------------------------------------------------------------------------------------------

    def markets(self) -> list[str]:
        """The codes of all pairs, KRW-BTC first."""
        codes: list[str] = self.inject("markets")
        return codes

    def wire_log(
        self,
        kind: str | None = None,
        since: int | None = None,
        where: dict[str, Any] | None = None,
        limit: int = 10_000,
    ) -> list[dict[str, Any]]:
        """Entries (connect, disconnect, request, handshake, message, control, close, fault), oldest first.

        Each has `n` (serial number, usable as `since`), `t` (the machine's monotonic clock) and `wall_ms`.
        """
        entries: list[dict[str, Any]] = self.inject("wire_log", kind=kind, since=since, where=where, limit=limit)
        return entries

    def requests(
        self, path: str | None = None, group: str | None = None, since: int | None = None
    ) -> list[dict[str, Any]]:
        """The REST requests that arrived, with `t`, `path`, `query`, `headers`, `group`, `status`, `bytes`, `fault`."""
        where = {name: value for name, value in (("path", path), ("group", group)) if value is not None}
        return self.wire_log("request", since, where, 1_000_000)

    def busiest(self, kind: str = "request", seconds: float = 1.0, **where: Any) -> int:
        """The largest number of entries of the wire log within any such span of time, e.g. `busiest(group="candle")`.

        This is the figure that a rate limit is about: every window is looked at, not only whole seconds.
        """
        times = [entry["t"] for entry in self.wire_log(kind, where=where, limit=1_000_000)]
        most = first = 0
        for last, moment in enumerate(times):
            while moment - times[first] >= seconds:
                first += 1
            most = max(most, last - first + 1)
        return most

    def sessions(self) -> list[dict[str, Any]]:
        """The open WebSockets: `id`, `format`, `subscriptions` (type, codes, level, …), `sent` counts, …"""
        rows: list[dict[str, Any]] = self.inject("sessions")
        return rows

    def subscribed(self) -> set[tuple[str, str]]:
        """All (type, code) that live sessions are subscribed to; codes as asked (with `.5` and the like)."""
        return {(one["type"], code) for session in self.sessions() for one in session["subscriptions"]
                for code in one["codes"]}  # fmt: skip

    def counters(self) -> dict[str, Any]:
        """How many of each kind of log entry, open connections, rejections per group, `now_ms`, …"""
        counts: dict[str, Any] = self.inject("counters")
        return counts

    def trades(self, symbol: str, since_ms: int = 0, until_ms: int | None = None) -> list[dict[str, Any]]:
        """Every trade of a pair since the start: what a client that lost nothing has seen."""
        rows: list[dict[str, Any]] = self.inject("trades", symbol=symbol, since_ms=since_ms, until_ms=until_ms)
        return rows

    def now_ms(self) -> int:
        """The simulator's own time."""
        return int(self.counters()["now_ms"])

    # -- breaking --------------------------------------------------------------------------------------------------

    def close_sessions(self, code: int | None = 1000, reason: str = "", session: int | None = None) -> int:
        """Close frame with any code to all WebSockets (or one); answers how many."""
        return int(self.inject("close_sessions", code=code, reason=reason, session=session))

    def drop_sessions(self, how: str = "fin", session: int | None = None) -> int:
        """TCP ends without a close frame: "fin" or "rst"."""
        return int(self.inject("drop_sessions", how=how, session=session))

    def drop_connections(self, how: str = "fin", door: str = "rest") -> int:
        """All TCP connections of a door end; with "rest" that makes kept-alive sockets stale."""
        return int(self.inject("drop_connections", how=how, door=door))

    def flap(self, times: int = 10, seconds: float = 10.0, code: int = 1000) -> None:
        """Closes all WebSockets so many times within the seconds; returns at once."""
        self.inject("flap", times=times, seconds=seconds, code=code)

    def freeze(self, seconds: float | None = None, target: str = "websocket", new_connections: bool = True) -> int:
        """Nothing is read or written, TCP stays open; target: "websocket", "rest" or "all"."""
        return int(self.inject("freeze", seconds=seconds, target=target, new_connections=new_connections))

    def thaw(self) -> None:
        """Ends a freeze."""
        self.inject("thaw")

    def mute(
        self, symbols: list[str] | None = None, types: list[str] | None = None, seconds: float | None = None
    ) -> None:
        """Silent stall of these pairs and types (None: all); pings are answered, REST goes on."""
        self.inject("mute", symbols=symbols, types=types, seconds=seconds)

    def unmute(self) -> None:
        """Ends all muting."""
        self.inject("unmute")

    def refuse(
        self, seconds: float, target: str = "websocket", drop: str | None = "fin", instead: str = "refuse"
    ) -> None:
        """No listener for so long. `instead`: "refuse", "silence" (accepts, says nothing) or "blackhole"."""
        self.inject("refuse", seconds=seconds, target=target, drop=drop, instead=instead)

    def handshake_fault(self, mode: str = "status", status: int = 503, times: int | None = 1, **more: Any) -> None:
        """The next handshakes fail: status, drip, silence, flood, flood_body, redirect, wrong_accept, close_after_101,
        reset_after_101, fin, reset, extension, garbage, delay. More: seconds, body, headers, latency, interval,
        location.
        """
        self.inject("handshake_fault", mode=mode, status=status, times=times, **more)

    def rest_fault(
        self, path: str = "*", mode: str = "status", status: int = 503, times: int | None = 1, **more: Any
    ) -> None:
        """The next answers of matching paths fail: status, latency, drip, garbage, truncated, html, shape, empty,
        gzip_bomb, hang, reset, fin, fin_mid_body, reset_mid_body, redirect, charset, stale, odd_rows (good rows in new
        spellings, with rows between them that are none). More: seconds, body, headers, latency, interval, location.
        """
        self.inject("rest_fault", path=path, mode=mode, status=status, times=times, **more)

    def line_fault(
        self,
        *,
        bandwidth: float = 0.0,
        latency: float = 0.0,
        jitter: float = 0.0,
        duplicates: float = 0.0,
        reorders: float = 0.0,
        seconds: float | None = None,
        target: str = "websocket",
    ) -> None:
        """Lines towards clients become narrow (bytes a second), long and uneven (seconds); of the messages with market
        data these shares come twice, or after the next one. Replaces what was set before; no arguments end it."""
        self.inject("line_fault", bandwidth=bandwidth, latency=latency, jitter=jitter, duplicates=duplicates,
                    reorders=reorders, seconds=seconds, target=target)  # fmt: skip

    def lagging_replica(self, seconds: float, lasting: float | None = None) -> None:
        """REST shows tickers, books and trades as they were so long ago (a minute at most), for a while or until 0
        ends it."""
        self.inject("lagging_replica", seconds=seconds, lasting=lasting)

    def set_limit(self, group: str, per_second: int | None) -> None:
        """Another limit for a REST group from now on; None takes it away."""
        self.inject("set_limit", group=group, per_second=per_second)

    def ban(self, seconds: float) -> None:
        """418 to every request and handshake for so long."""
        self.inject("ban", seconds=seconds)

    def remaining_req(self, value: str | None) -> None:
        """Replaces the Remaining-Req header ("" leaves it out) until None is given."""
        self.inject("remaining_req", value=value)

    def clear_faults(self) -> None:
        """Ends all faults except a running `refuse`."""
        self.inject("clear_faults")

    def send_raw(self, data: bytes, session: int | None = None) -> int:
        """Raw bytes on the WebSockets, outside any frame."""
        return int(self.inject("send_raw", data=base64.b64encode(data).decode(), session=session))

    def send_text(self, text: str, session: int | None = None) -> int:
        """This text in a text frame."""
        return int(self.inject("send_text", text=text, session=session))

    def send_json(self, text: str, session: int | None = None) -> int:
        """This text in a binary frame, as Upbit sends its messages."""
        return int(self.inject("send_json", text=text, session=session))

    def send_binary(self, data: bytes, session: int | None = None) -> int:
        """These bytes in a binary frame."""
        return int(self.inject("send_binary", data=base64.b64encode(data).decode(), session=session))

    def send_half_frame(
        self, declared: int = 5_000, sent: int = 3, freeze: bool = True, session: int | None = None
    ) -> int:
        """The head of a frame that declares more bytes than follow; then silence."""
        return int(self.inject("send_half_frame", declared=declared, sent=sent, freeze=freeze, session=session))

    def send_huge_frame(self, declared: int = 2**40, seconds: float = 5.0, session: int | None = None) -> int:
        """A frame that declares an absurd length, and bytes of it for some seconds."""
        return int(self.inject("send_huge_frame", declared=declared, seconds=seconds, session=session))

    def send_fragments(self, count: int = 32_000, size: int = 1_024, session: int | None = None) -> int:
        """One message in very many fragments that never ends."""
        return int(self.inject("send_fragments", count=count, size=size, session=session))

    def send_pings(self, count: int = 1, per_second: float = 0.0, session: int | None = None) -> int:
        """Pings to the client; 0 per second sends them at once."""
        return int(self.inject("send_pings", count=count, per_second=per_second, session=session))

    # -- the market ------------------------------------------------------------------------------------------------

    def publish_trade(
        self, symbol: str, price: Any = None, volume: Any = None, ask_bid: str | None = None
    ) -> dict[str, Any]:
        """A trade now; numbers may be int, str, float or Decimal.

        Returns sequential_id, trade_timestamp, price and volume (as text, exact) and ask_bid.
        """
        price, volume = (None if value is None else str(value) for value in (price, volume))
        row: dict[str, Any] = self.inject("publish_trade", symbol=symbol, price=price, volume=volume, ask_bid=ask_bid)
        return row

    def burst(self, symbol: str, count: int) -> int:
        """So many trades of one pair as fast as the simulator can, many of them in the same millisecond."""
        return int(self.inject("burst", symbol=symbol, count=count))

    def touch_book(self, symbol: str) -> None:
        """The order book changes without a trade."""
        self.inject("touch_book", symbol=symbol)

    def pause(self, symbols: list[str] | None = None) -> None:
        """Legal silence: nobody trades (in these pairs)."""
        self.inject("pause", symbols=symbols)

    def resume(self) -> None:
        """Everybody trades again."""
        self.inject("resume")

    def set_rate(self, trades_per_second: float) -> None:
        """Another average number of trades per second over all markets."""
        self.inject("set_rate", trades_per_second=trades_per_second)

    def load(self, messages_per_second: float, tick: float = 0.01, stamped_ids: bool = False) -> None:
        """Made-up frames at this rate to every session, round robin over its subscriptions; 0 ends it.

        They leave in bursts every `tick` seconds. With `stamped_ids` a trade's `sequential_id - 10**16` is what
        `time.monotonic_ns()` said when it was sent, so that a receiver can measure the way.
        """
        self.inject("load", messages_per_second=messages_per_second, tick=tick, stamped_ids=stamped_ids)

    def list_market(self, symbol: str) -> None:
        """A new pair, in the list, on REST and on the streams."""
        self.inject("list_market", symbol=symbol)

    def rename(self, symbol: str, korean_name: str | None = None, english_name: str | None = None) -> None:
        """The pair has other names in the list."""
        self.inject("rename", symbol=symbol, korean_name=korean_name, english_name=english_name)

    def warn(self, symbol: str, warning: bool | None = None, cautions: list[str] | None = None) -> None:
        """The pair is under warning, and these caution flags are up; None leaves it as it is."""
        self.inject("warn", symbol=symbol, warning=warning, cautions=cautions)

    def suspend(self, symbol: str, on: bool = True) -> None:
        """The stream says that trading in the pair is suspended."""
        self.inject("suspend", symbol=symbol, on=on)

    def delist(self, symbol: str) -> None:
        """The pair is gone: from the list, from REST and from the streams."""
        self.inject("delist", symbol=symbol)

    def announce_delisting(self, symbol: str, date: str | None) -> None:
        """The pair carries this delisting date (ISO 8601), or none."""
        self.inject("announce_delisting", symbol=symbol, date=date)

    def advance_clock(self, seconds: float) -> int:
        """Moves the simulator's time; answers with the new time in ms."""
        return int(self.inject("advance_clock", seconds=seconds))

    def stale_timestamps(self, milliseconds: int) -> None:
        """Everything is stamped so many milliseconds too early."""
        self.inject("stale_timestamps", milliseconds=milliseconds)

    def duplicate_trades(self, on: bool = True) -> None:
        """Every trade is sent twice, or once again."""
        self.inject("duplicate_trades", on=on)

    def replay_trades(self, symbol: str, count: int = 1) -> int:
        """The newest trades of a pair are sent once more; how many."""
        return int(self.inject("replay_trades", symbol=symbol, count=count))

    def repeat_candle(self, symbol: str, type: str, periods_ago: int = 0) -> None:  # noqa: A002
        """A candle of now or of the past once more; `type` as on the stream, e.g. "candle.1m"."""
        self.inject("repeat_candle", symbol=symbol, type=type, periods_ago=periods_ago)

    def shuffle_trades(self, seconds: float = 2.0) -> None:
        """Trades come out of order within so many seconds."""
        self.inject("shuffle_trades", seconds=seconds)

    def set_options(self, **changes: Any) -> None:
        """Changes switches of the running simulator."""
        self.inject("set_options", **changes)
