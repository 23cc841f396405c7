"""REST answers that go wrong on purpose."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
from typing import Any

from upbit_backbone.simulator.payloads.moments import http_date
from upbit_backbone.simulator.serving.connection import Connection
from upbit_backbone.simulator.serving.faults import Rule
from upbit_backbone.simulator.serving.http_wire import Request, Response

BOMB_BYTES = 256 * 1024 * 1024
HTML = "<!DOCTYPE html><html><head><title>Service Unavailable</title></head><body><h1>점검 중입니다</h1></body></html>"
ODD_SPELLINGS = tuple(
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r'"change":"\w+"', '"change":"SIDEWAYS"'),
        (r'"ask_bid":"\w+"', '"ask_bid":"BOTH"'),
        (r'"prev_closing_price":[^,}]+', '"prev_closing_price":null'),
        (r'("(?:warning|PRICE_FLUCTUATIONS)"):(true|false)', r'\1:{"is":\2,"level":"DANGER"}'),
        (r'"(trade_date\w*|\w+_52_week_date|korean_name)":"[^"]*"', r'"\1":{"label":null}'),
        (r'"(total_\w+_size|acc_trade_\w+|candle_acc_trade_price)":[^,}]+', r'"\1":"much"'),
    )
)
ODD_ROWS = 'null,"rumour",[],{},{"market":"KRW-ODD","trade_price":null,"timestamp":null,"sequential_id":null}'


async def respond_late(connection: Connection, request: Request, response: Response, seconds: float) -> None:
    await asyncio.sleep(seconds)
    connection.respond(request, response)


async def misbehave(
    connection: Connection, request: Request, response: Response, rule: Rule, entry: dict[str, Any]
) -> None:
    """Answers `request` in the way the rule says, instead of with `response`."""
    if rule.latency:
        await asyncio.sleep(rule.latency)
    mode = rule.mode
    if mode == "hang":
        connection.ignore_input()
    elif mode == "reset":
        connection.reset()
    elif mode == "fin":
        connection.fin()
    elif mode in ("fin_mid_body", "reset_mid_body"):
        await _cut(connection, request, response, mode == "reset_mid_body")
    elif mode == "stale":
        response.body = connection.context.remembered(request) or response.body
        connection.respond(request, response)
    elif mode == "drip":
        await _drip(connection, request, response, rule.interval)
    else:
        changed = _changed(response, rule)
        entry["status"], entry["bytes"] = changed.status, len(changed.body)
        connection.respond(request, changed)


def _changed(response: Response, rule: Rule) -> Response:
    headers = {**response.headers, **rule.headers}
    plain = Response(response.status, response.body, response.content_type, headers)
    if rule.body is not None:
        plain.body = rule.body.encode()
    match rule.mode:
        case "status" | "redirect":
            page = rule.body if rule.body is not None else HTML if rule.status >= 500 else ""
            plain = Response(rule.status, page.encode(), "text/html; charset=utf-8", headers)
        case "html":
            plain = Response(200, HTML.encode(), "text/html; charset=utf-8", headers)
        case "garbage":
            plain.body = random.Random(len(response.body)).randbytes(max(64, len(response.body)))
        case "truncated":
            plain.body = response.body[: max(1, len(response.body) * 2 // 3)]
        case "shape":
            plain.body = b'{"unexpected":[null,true,{"deep":[]}]}' if rule.body is None else plain.body
        case "empty":
            plain.body = b""
        case "charset":
            plain.body = response.body.decode().encode("utf-16")
        case "odd_rows":
            plain.body = _odd(response.body.decode()).encode()
        case "gzip_bomb":
            plain.body = _bomb()
            plain.headers["Content-Encoding"] = "gzip"
    return plain


def _odd(text: str) -> str:
    """Every row still says what, when and how much; the rest comes in new words and shapes, and beside stand rows that
    say nothing."""
    for pattern, instead in ODD_SPELLINGS:
        text = pattern.sub(instead, text)
    rows = text.removeprefix("[").removesuffix("]")
    return f"[{ODD_ROWS},{rows},{ODD_ROWS}]" if text.startswith("[") and rows else text


def _bomb() -> bytes:
    """A quarter of a gigabyte of zeros; built from equal gzip members, so that making it is quick."""
    member = gzip.compress(b"\0" * (16 * 1024 * 1024), 9)
    return member * (BOMB_BYTES // (16 * 1024 * 1024))


def _rendered(connection: Connection, request: Request, response: Response) -> bytes:
    return response.render(http_date(connection.context.clock.now_ms()), request.keep_alive, False)


async def _cut(connection: Connection, request: Request, response: Response, reset: bool) -> None:
    whole = _rendered(connection, request, response)
    connection.write(whole[: len(whole) - max(1, len(response.body) // 2)])
    await asyncio.sleep(0.05)
    (connection.reset if reset else connection.fin)()


async def _drip(connection: Connection, request: Request, response: Response, interval: float) -> None:
    for byte in _rendered(connection, request, response):
        if not connection.is_open:
            return
        connection.write(bytes((byte,)))
        await asyncio.sleep(interval)
    connection.finish(request.keep_alive)
