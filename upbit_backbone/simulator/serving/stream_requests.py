"""What a client may say on the WebSocket: one JSON array, read into subscriptions or refused with Upbit's error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from upbit_backbone.simulator.payloads.stream_payloads import FORMATS

CANDLE_MS = {"candle.1s": 1_000} | {f"candle.{unit}m": unit * 60_000 for unit in (1, 3, 5, 10, 15, 30, 60, 240)}
TYPES = ("ticker", "trade", "orderbook", *CANDLE_MS)
_DEPTH = re.compile(r"^(.+?)\.(\d+)$")


class RequestError(Exception):
    """Upbit's error object for a message it refuses."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(slots=True, frozen=True)
class Subscription:
    """One type object of a request. `depths` belongs to `codes`; `level` is in units of 1e-8."""

    type: str
    codes: tuple[str, ...]
    asked_codes: tuple[str, ...]
    depths: tuple[int, ...]
    level: int = 0
    only_snapshot: bool = False
    only_realtime: bool = False


@dataclass(slots=True, frozen=True)
class StreamRequest:
    """A whole message: subscriptions, or none of them and `lists` for LIST_SUBSCRIPTIONS."""

    ticket: str
    subscriptions: tuple[Subscription, ...]
    format: str
    lists: bool = False


def parse(text: str) -> StreamRequest:
    """Raises `RequestError` with the first thing that is wrong, in the order in which Upbit looks."""
    try:
        objects = json.loads(text)
    except (ValueError, RecursionError):
        objects = None
    if not isinstance(objects, list) or not objects or not all(isinstance(one, dict) for one in objects):
        raise RequestError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
    merged: dict[str, Any] = {key: one[key] for one in objects for key in ("ticket", "format", "method") if key in one}
    ticket = merged.get("ticket")
    if not isinstance(ticket, (str, int)) or ticket == "":
        raise RequestError("NO_TICKET", "티켓이 존재하지 않거나, 유효하지 않습니다.")
    format_name = merged.get("format", "DEFAULT")
    if format_name not in FORMATS:
        raise RequestError("INVALID_PARAM", f"{format_name} 은 지원하지 않는 포맷입니다.")
    if "method" in merged:
        if merged["method"] != "LIST_SUBSCRIPTIONS":
            raise RequestError("INVALID_PARAM", f"{merged['method']} 은 지원하지 않는 메서드입니다.")
        return StreamRequest(str(ticket), (), format_name, lists=True)
    typed = [one for one in objects if "type" in one]
    if not typed or any("codes" in one and "type" not in one for one in objects):
        raise RequestError("NO_TYPE", "타입이 존재하지 않습니다.")
    return StreamRequest(str(ticket), tuple(_subscription(one) for one in typed), format_name)


def _subscription(one: dict[str, Any]) -> Subscription:
    kind, asked = one["type"], one.get("codes")
    if kind not in TYPES:
        raise RequestError("INVALID_PARAM", f"{kind} 은 지원하지 않는 타입입니다.")
    if asked is None or asked == []:
        raise RequestError("NO_CODES", "코드가 존재하지 않습니다.")
    if not isinstance(asked, list) or not all(isinstance(code, str) for code in asked):
        raise RequestError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
    split = [_code_and_depth(code) if kind == "orderbook" else (code, 30) for code in asked]
    return Subscription(
        kind,
        tuple(code for code, _ in split),
        tuple(asked),
        tuple(depth for _, depth in split),
        _level(one.get("level", 0)) if kind == "orderbook" else 0,
        bool(one.get("is_only_snapshot", one.get("isOnlySnapshot", False))),
        bool(one.get("is_only_realtime", one.get("isOnlyRealtime", False))),
    )


def _code_and_depth(text: str) -> tuple[str, int]:
    """`KRW-BTC.5` is the code and its depth; a depth that Upbit does not offer means 30."""
    match = _DEPTH.match(text)
    if match is None:
        return text, 30
    depth = int(match.group(2)[:6])
    return match.group(1), depth if depth in (1, 5, 15, 30) else 30


def _level(value: Any) -> int:
    try:
        scaled = Decimal(str(value)) * 100_000_000
    except InvalidOperation:
        raise RequestError("INVALID_PARAM", f"{value} 은 지원하지 않는 level 입니다.") from None
    if not scaled.is_finite() or scaled < 0 or scaled > 10**30:
        raise RequestError("INVALID_PARAM", f"{value} 은 지원하지 않는 level 입니다.")
    return int(scaled)
