"""The WebSocket handshake: Upbit's rules, and the ways in which it can go wrong on purpose."""

from __future__ import annotations

import asyncio

from upbit_backbone.simulator.payloads import rest_payloads
from upbit_backbone.simulator.payloads.moments import http_date
from upbit_backbone.simulator.serving import rest
from upbit_backbone.simulator.serving.connection import Connection
from upbit_backbone.simulator.serving.faults import Rule
from upbit_backbone.simulator.serving.framing import Deflater, accept_key
from upbit_backbone.simulator.serving.http_wire import Request, Response
from upbit_backbone.simulator.serving.rest_faults import HTML
from upbit_backbone.simulator.serving.session import Publisher, Session

PATH = "/websocket/v1"
_PRIVATE = (PATH + "/private", PATH + "/info")


def answer(connection: Connection, request: Request, hub: Publisher) -> None:
    """Upgrades the connection or refuses."""
    context = connection.context
    rule = context.faults.next_handshake(request.path)
    verdict = context.limits.handshake(connection.ip, "origin" in request.headers, context.clock.now_ms())
    refusal = _refusal(connection, request) if verdict.status == 200 else rest.refusal(context, verdict)
    if rule is not None and rule.mode in ("status", "redirect"):
        refusal = _scripted(rule)
    status = 101 if refusal is None else refusal.status
    context.note(
        "handshake", conn=connection.id, port=connection.port, ip=connection.ip, path=request.path,
        headers=request.headers, origin="origin" in request.headers, group=verdict.group, status=status,
        fault=None if rule is None else rule.mode,
    )  # fmt: skip
    if refusal is not None:
        request.keep_alive = False
        connection.respond(request, refusal)
    elif rule is None:
        connection.write(_accept(connection, request, verdict.remaining))
        _upgrade(connection, request, hub)
    else:
        context.start(_misbehave(connection, request, verdict.remaining, rule, hub))


def _refusal(connection: Connection, request: Request) -> Response | None:
    if request.path in _PRIVATE:
        body = rest_payloads.error("INVALID_AUTH", "인증 정보가 올바르지 않습니다.")
        return Response(401, body.encode())
    if request.path != PATH:
        return Response(404, rest_payloads.error("not_found", "no Route matched with those values").encode())
    if not request.headers.get("sec-websocket-key") or request.headers.get("sec-websocket-version") != "13":
        return Response(400, b"Bad WebSocket request", "text/plain")
    return None


def _scripted(rule: Rule) -> Response:
    body = rule.body if rule.body is not None else HTML if rule.status >= 500 else ""
    return Response(rule.status, body.encode(), "text/html; charset=utf-8", dict(rule.headers))


def _accept(
    connection: Connection, request: Request, remaining: str, key: str | None = None, extension: str = ""
) -> bytes:
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        f"Date: {http_date(connection.context.clock.now_ms())}",
        "Connection: upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Accept: {key or accept_key(request.headers['sec-websocket-key'])}",
        f"Remaining-Req: {remaining}",
        "Limit-By-Ip: Yes",
    ]
    extension = extension or (Deflater.ANSWER if _deflates(connection, request) else "")
    if extension:
        lines.append(f"Sec-WebSocket-Extensions: {extension}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _deflates(connection: Connection, request: Request) -> bool:
    offered = request.headers.get("sec-websocket-extensions", "")
    return connection.context.options.deflate and "permessage-deflate" in offered


def _upgrade(connection: Connection, request: Request, hub: Publisher) -> None:
    connection.upgrade(Session(connection, _deflates(connection, request), hub))


async def _misbehave(connection: Connection, request: Request, remaining: str, rule: Rule, hub: Publisher) -> None:
    if rule.latency:
        await asyncio.sleep(rule.latency)
    good = _accept(connection, request, remaining)
    match rule.mode:
        case "silence":
            connection.ignore_input()
        case "fin":
            connection.fin()
        case "reset":
            connection.reset()
        case "drip":
            await _drip(connection, good, rule.interval)
        case "flood":
            await _flood(connection, b"HTTP/1.1 101 Switching Protocols\r\n", b"X-Padding: " + b"x" * 4000 + b"\r\n")
        case "flood_body":
            await _flood(
                connection, b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10000000000\r\n\r\n", b"x" * 65_536
            )
        case "garbage":
            connection.write(bytes(range(256)) * 8)
            connection.fin()
        case "wrong_accept":
            connection.write(_accept(connection, request, remaining, key="AAAAAAAAAAAAAAAAAAAAAAAAAAA="))
            _upgrade(connection, request, hub)
        case "extension":
            connection.write(_accept(connection, request, remaining, extension="permessage-deflate"))
            _upgrade(connection, request, hub)
        case "close_after_101" | "reset_after_101":
            connection.write(good)
            await asyncio.sleep(0.01)
            (connection.fin if rule.mode == "close_after_101" else connection.reset)()
        case _:
            connection.write(good)
            _upgrade(connection, request, hub)


async def _drip(connection: Connection, data: bytes, interval: float) -> None:
    for byte in data:
        if not connection.is_open:
            return
        connection.write(bytes((byte,)))
        await asyncio.sleep(interval)


async def _flood(connection: Connection, start: bytes, more: bytes) -> None:
    """Never ends by itself; waits when the client does not read."""
    connection.write(start)
    while connection.is_open:
        if connection.unsent < 4 * 1024 * 1024:
            connection.write(more)
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(0.01)
