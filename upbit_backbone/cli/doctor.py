"""`doctor`: is everything between here and Upbit well, and if not, what to do."""

from __future__ import annotations

import os
import platform
import queue
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from rich.cells import cell_len
from rich.text import Text

from .._concurrency import Deadline
from .._language import spoken, word
from ..backbone import MarketDataBackbone
from ..config import ENVIRONMENT_PREFIX, BackboneConfig
from ..errors import RateLimitError, UpbitBackboneError
from ..exchange import endpoints
from ..exchange.endpoints import parse_remaining
from ..models.enums import DataType
from ..unify.scanner import is_compiled
from ..wire.dialing import connect, proxy_for, resolve, start_tls
from ..wire.io_deadline import IoDeadline
from ..wire.rest_transport import RestResponse, RestTransport
from ..wire.trust import tls_context, trusted_source
from ..wire.websocket_transport import WebSocketTransport
from . import output
from .running import FOUND_TROUBLE, Json, command, overrides

# What `doctor` looks at. Each check gives findings; none raises.

CHECK_SECONDS = 5.0
ADDRESS_SECONDS = 2.0
MOST_ADDRESSES = 4
WIDEST_CHECK = 10
CLOCK_WARNING_SECONDS = 2.0
PACKAGES = ("requests", "websocket-client", "msgspec", "cachetools", "pybreaker", "dataclasses-json")


class Verdict(StrEnum):
    OK = "ok"
    NOTE = "note"  # worth knowing, nothing to do
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `advice` says what to do when it is bad."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


def examine(config: BackboneConfig) -> Iterator[Finding]:
    """All findings, in the order in which one depends on the other; nearly all take well under a second."""
    yield from _versions(config)
    is_reachable = True
    for finding in _hosts(config):
        is_reachable = is_reachable and finding.verdict is not Verdict.BAD
        yield finding
    if not is_reachable:
        yield Finding("REST, WebSocket", Verdict.NOTE, "not tried, because the host cannot be reached")
        return
    yield from _guarded("REST", lambda: _rest(config), "Upbit or something on the way refuses; try again later")
    yield from _guarded("WebSocket", lambda: _websocket(config), _WEBSOCKET_ADVICE)
    yield from _guarded("stream", lambda: _stream(config), _WEBSOCKET_ADVICE)


_WEBSOCKET_ADVICE = "a proxy or firewall may block WebSocket; set UPBIT_BACKBONE_PROXY or ask for an exception"
_PROXY_ADVICE = f"is that the proxy of this network? {ENVIRONMENT_PREFIX}PROXY names one, or env for the environment's"
_ORIGIN_ADVICE = "something on the way adds an Origin header, which Upbit limits to 1 request per 10 s: take it off"


def _guarded(check: str, look: Callable[[], Iterator[Finding]], advice: str) -> Iterator[Finding]:
    try:
        yield from look()
    except RateLimitError as error:
        yield Finding(check, Verdict.BAD, str(error), "wait; every program behind this IP address shares the limits")
    except (UpbitBackboneError, OSError, queue.Empty) as error:
        yield Finding(check, Verdict.BAD, str(error) or "nothing came", advice)


def _versions(config: BackboneConfig) -> Iterator[Finding]:
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {ssl.OPENSSL_VERSION}"
    is_new_enough = sys.version_info >= (3, 11)
    yield Finding("system", Verdict.OK if is_new_enough else Verdict.BAD, system, "install Python 3.11 or newer")
    yield Finding("packages", Verdict.OK, ", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    # Whoever had it compiled wants to know that it is used; the others, that it can be.
    yield Finding("decoding", Verdict.OK, "by compiled code" if is_compiled() else "by Python, as nothing was compiled")
    default = BackboneConfig()
    is_upbit = config.rest_url == default.rest_url and config.websocket_url == default.websocket_url
    where = f"{config.rest_url}, {config.websocket_url}"
    note = "" if is_upbit else f" (not Upbit Korea: --region, --url or {ENVIRONMENT_PREFIX}… is set)"
    yield Finding("settings", Verdict.OK if is_upbit else Verdict.NOTE, where + note)
    yield from _proxies(config)
    yield from _guarded("CA", lambda: _authorities(config), "name a file that exists, or leave the setting out")


def _proxies(config: BackboneConfig) -> Iterator[Finding]:
    """Which proxy is used, and which variables are not: what a browser and curl obey is expected to be obeyed."""
    words = [f"{each}_proxy" for each in ("https", "http", "all", "no")]
    named = [name for word in words for name in (word.upper(), word)]
    found = [f"{name}={_without_secrets(os.environ[name])}" for name in named if os.environ.get(name)]
    if config.proxy == "env":
        yield Finding("proxy", Verdict.NOTE, f"the environment's is used: {', '.join(found) or 'it names none'}")
        return
    if config.proxy:
        yield Finding("proxy", Verdict.NOTE, "an explicit proxy is set")
    if found:
        way = f"{ENVIRONMENT_PREFIX}PROXY=env uses them"
        yield Finding("proxy", Verdict.NOTE, f"ignored: {', '.join(found)} ({way})")


def _without_secrets(value: str) -> str:
    """A proxy as it may be shown: without user and password."""
    return re.sub(r"[^/@,]*@", "…@", value)


def _authorities(config: BackboneConfig) -> Iterator[Finding]:
    yield Finding("CA", Verdict.OK, f"certificates are vouched for by {trusted_source(config.ca_file)}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _hosts(config: BackboneConfig) -> Iterator[Finding]:
    for door, url in {_door(url): url for url in (config.websocket_url, config.rest_url)}.items():
        # What the environment says may hold for one host and not for the other (NO_PROXY).
        yield from _guarded("proxy", lambda url=url, door=door: _way(config, url, door), _PROXY_ADVICE)  # type: ignore[misc]


def _way(config: BackboneConfig, url: str, door: tuple[str, int, bool]) -> Iterator[Finding]:
    proxy = proxy_for(url, config.proxy)
    if proxy is None:
        yield from _host(config, *door)
        return
    # It looks the host's name up itself and is the only way there, so nothing is asked of the host directly.
    began = time.monotonic()
    connect(
        proxy.host, proxy.port, IoDeadline(f"checking the proxy {proxy.address}", Deadline.after(CHECK_SECONDS))
    ).close()
    yield Finding("proxy", Verdict.OK, f"{proxy.address} answers, the way to {door[0]} ({_since(began)})")


def _door(url: str) -> tuple[str, int, bool]:
    parts = urlsplit(url)
    is_secure = parts.scheme in ("https", "wss")
    return parts.hostname or "", parts.port or (443 if is_secure else 80), is_secure


def _host(config: BackboneConfig, host: str, port: int, is_secure: bool) -> Iterator[Finding]:
    patience = IoDeadline(f"checking {host}", Deadline.after(CHECK_SECONDS))
    try:
        began = time.monotonic()
        addresses = list(dict.fromkeys(str(address[3][0]) for address in resolve(host, port, patience)))
        yield Finding("DNS", Verdict.OK, f"{host}: {', '.join(addresses[:MOST_ADDRESSES])} ({_since(began)})")
    except UpbitBackboneError as error:
        yield Finding("DNS", Verdict.BAD, str(error), "check the network connection and the DNS server")
        return
    try:
        began = time.monotonic()
        sock = connect(host, port, patience)
        with sock:
            yield Finding("TCP", Verdict.OK, f"connected to {host}:{port} ({_since(began)})")
            yield from _addresses(addresses[:MOST_ADDRESSES], port)
            if not is_secure:
                yield Finding("TLS", Verdict.NOTE, "plain text, to this machine only")
                return
            began = time.monotonic()
            with start_tls(sock, tls_context(config.ca_file), host, patience) as tls:
                yield _certificate(tls, began)
    except (UpbitBackboneError, OSError) as error:
        yield Finding("TCP, TLS", Verdict.BAD, str(error), _reach_advice(error))


def _addresses(addresses: list[str], port: int) -> Iterator[Finding]:
    """Each address by itself: one that is dead (IPv6 without a way out, as a rule) costs time with every connection."""
    for address in addresses if len(addresses) > 1 else ():
        try:
            connect(address, port, IoDeadline(f"checking {address}", Deadline.after(ADDRESS_SECONDS))).close()
        except (UpbitBackboneError, OSError) as error:
            family = "IPv6" if ":" in address else "IPv4"
            yield Finding(family, Verdict.NOTE, f"{address} does not answer, others do: {error}")


def _reach_advice(error: Exception) -> str:
    if isinstance(error.__cause__ or error, ssl.SSLCertVerificationError):
        return f"the clock may be wrong, or a company's proxy re-encrypts: {ENVIRONMENT_PREFIX}CA_FILE=its certificate"
    return f"a firewall may be in the way; a proxy is set with {ENVIRONMENT_PREFIX}PROXY=http://host:port"


def _certificate(tls: ssl.SSLSocket, began: float) -> Finding:
    certificate = tls.getpeercert() or {}
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    days = (ends - datetime.now(UTC)).days
    return Finding("TLS", Verdict.OK, f"{tls.version()}, certificate valid for {days} more days ({_since(began)})")


def _rest(config: BackboneConfig) -> Iterator[Finding]:
    transport = RestTransport(config.rest_url, ca_file=config.ca_file, proxy=config.proxy)
    try:
        began, before = time.monotonic(), datetime.now(UTC)
        response = transport.get(endpoints.markets(details=False), Deadline.after(CHECK_SECONDS))
        detail = f"{response.status}, {len(response.body):,} bytes ({_since(began)})"
        is_good = response.status == 200
        advice = "wait until Upbit lifts the limit" if response.status in (418, 429) else "Upbit may be in maintenance"
        yield Finding("REST", Verdict.OK if is_good else Verdict.BAD, detail, advice)
        yield _origin(response.headers.get("remaining-req"))
        yield from _clock(response, before)
    finally:
        transport.close()


def _origin(header: str | None) -> Finding:
    remaining = parse_remaining(header)
    if remaining is None:
        return Finding("limits", Verdict.NOTE, "no Remaining-Req header; the documented limits are kept")
    if remaining.name == "origin":
        return Finding("Origin", Verdict.BAD, "Upbit saw an Origin header", _ORIGIN_ADVICE)
    return Finding(
        "Origin", Verdict.OK, f"not sent; {remaining.per_second} more requests this second ({remaining.name})"
    )


def _clock(response: RestResponse, before: datetime) -> Iterator[Finding]:
    text = response.headers.get("date")
    if not text:
        return
    try:
        theirs = parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        return
    # The header has whole seconds: on average it is half a second behind.
    middle = before + (datetime.now(UTC) - before) / 2
    offset = (middle - theirs).total_seconds() - 0.5
    is_good = abs(offset) <= CLOCK_WARNING_SECONDS
    detail = f"this machine's clock is {offset:+.1f} s off (± 0.5 s)"
    yield Finding("clock", Verdict.OK if is_good else Verdict.BAD, detail, "switch on time synchronisation (NTP)")


def _websocket(config: BackboneConfig) -> Iterator[Finding]:
    began = time.monotonic()
    transport = WebSocketTransport(config.websocket_url, ca_file=config.ca_file, proxy=config.proxy)
    connection = transport.open(Deadline.after(CHECK_SECONDS))
    try:
        yield Finding("WebSocket", Verdict.OK, f"connected ({_since(began)})")
        remaining = parse_remaining(connection.response_headers.get("remaining-req"))
        if remaining is not None and remaining.name == "origin":
            yield Finding("Origin", Verdict.BAD, "Upbit saw an Origin header at the handshake", _ORIGIN_ADVICE)
    finally:
        connection.send_close()
        connection.close()


def _stream(config: BackboneConfig) -> Iterator[Finding]:
    with MarketDataBackbone(config) as market:
        symbol = market.get_markets()[0].symbol
        began = time.monotonic()
        with market.subscribe(symbol, DataType.TICKER) as stream:
            ticker = stream.queue.get(timeout=CHECK_SECONDS)
            yield Finding("stream", Verdict.OK, f"first {ticker.symbol} ticker after {_since(began)}")
        groups = [group for group in market.health().groups if group.requests]
        free = ", ".join(f"{group.group} {group.available:.0f}/{group.limit_per_second:g}" for group in groups)
        refused = sum(group.limited_429 + group.banned_418 for group in groups)
        verdict = Verdict.BAD if refused else Verdict.OK
        advice = "another program behind this IP address uses Upbit as well: they share the limits"
        yield Finding("limits", verdict, f"free requests: {free}; refused: {refused}", advice)


def _since(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f} ms"


MARKS = {Verdict.OK: ("✔", "green"), Verdict.NOTE: ("•", "yellow"), Verdict.BAD: ("✘", "bold red")}


@command
def doctor(json: Json = False) -> int:
    """Check versions, DNS, TLS, REST, WebSocket, Origin, clock and limits; say what to do."""
    config = BackboneConfig.from_environment(**overrides)
    findings = []
    for finding in examine(config):
        findings.append(finding)
        if not json:
            _show(finding)
    is_well = all(finding.verdict is not Verdict.BAD for finding in findings)
    if json:
        rows = [
            {"check": f.check, "verdict": f.verdict.value, "detail": f.detail, "advice": f.advice} for f in findings
        ]
        output.print_json({"ok": is_well, "findings": rows})
    else:
        print(spoken("Everything is well." if is_well else "Something is wrong; see the lines with ✘."))
    return 0 if is_well else FOUND_TROUBLE


def _show(finding: Finding) -> None:
    mark, style = MARKS[finding.verdict]
    check = word(finding.check)
    check += " " * (WIDEST_CHECK - cell_len(check))
    detail = output.safe(spoken(finding.detail), 400)
    if output.is_terminal():
        output.console.print(Text.assemble((mark, style), f" {check} ", detail))
    else:
        print(f"{mark} {check} {detail}", flush=True)
    if finding.verdict is Verdict.BAD and finding.advice:
        print(f"  → {spoken(finding.advice)}", flush=True)
