"""One frozen, validated value that holds every setting; units are in the names. And surroundings that are refused.

Each field can also be set from the environment as UPBIT_BACKBONE_<FIELD> (for example UPBIT_BACKBONE_URL), so
that any program can be pointed at another server unchanged. Precedence: argument, environment, default.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ._arguments import as_real, whole_number
from ._lazy import nearest
from .errors import InvalidRequestError
from .exchange.endpoints import CONNECTS_PER_SECOND, REGION_HOSTS, REQUESTS_PER_SECOND, WEBSOCKET_FORMATS

ENVIRONMENT_PREFIX = "UPBIT_BACKBONE_"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
_NETLOC = re.compile(r"[A-Za-z0-9._:\[\]-]+", re.ASCII)  # a host, perhaps a port, and nothing else
MAY_BE_ZERO = frozenset({"gap_hold_seconds", "gap_strict_seconds", "gather_seconds"})
LONGEST_GATHERING = 0.1  # seconds; pings and deadlines of a line wait as long


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """Settings of one `MarketDataBackbone`. Raises InvalidRequestError that names the field and what it expects.

    Every setting, and when to change it:

    region: Upbit's venue: kr, sg, id or th, each with its own listings, currency and limits. Change it to read there.
    url: another server for REST and streams, scheme and host without /v1; empty means the region's. For the simulator.
    rest_url: scheme and host of the REST server, without /v1; empty means that of `url`.
    websocket_url: full URL of the WebSocket server; empty means that of `url`. Set it together with `rest_url`.
    allow_different_hosts: accept a REST host and a stream host that differ. Only where they really are two.
    ca_file: PEM file of one more certificate authority, for companies that inspect TLS; checking is never switched off.
    proxy: `http://[user:password@]host:port` or `socks5://…`; `env` follows HTTPS_PROXY and the like. Behind a proxy.
    upstream: the URL of a Redis server that a relay publishes to (extra `redis`); streams come from there.
    upstream_prefix: what the relay's keys begin with, where it was given another `--prefix`.
    share_limits_at: the URL of a Redis server at which all machines keep limits together; empty means `upstream`.
    egress: a name for the IP address that Upbit sees. Another for each, where machines that share Redis have several.
    timeout_seconds: deadline of every call that is given no `timeout=`. Longer on slow lines, shorter in GUIs.
    connect_timeout_seconds: how long one connection may take to be made. Longer over satellite or congested VPNs.
    close_timeout_seconds: how long `close()` waits for threads. Longer if your callbacks need time to finish.
    rest_requests_per_second: requests per rate group. Lower it if other programs share your IP address.
    rest_workers_per_group: requests of one market under way at once. Lower it for less load, rarely higher.
    rest_attempts: how often a failed request is tried in all, within its deadline. 1 means no second try.
    merge_window_seconds: how long a list request waits for more symbols. Rarely worth changing.
    share_limits_between_processes: keep limits with this user's other processes. Off where each has its own address.
    breaker_failures: failures in a row that open the circuit breaker. Higher on lines that lose single requests.
    breaker_reset_seconds: how long an open breaker waits before a probe. Longer spares a struggling server.
    liveness_seconds: a session unheard for longer proves nothing. Shorter finds dead lines sooner, with more REST.
    max_lag_seconds: data later than this by Upbit's clock is not current. Raise it only on slow lines.
    rest_max_age_seconds: how old a REST answer may be to answer another question. 1 by default; raise to ask less.
    markets_max_age_seconds: how old the market list may be. Shorter where new listings matter within minutes.
    connects_per_second: WebSocket handshakes of this IP address. Lower it if other programs share the address.
    websocket_format: SIMPLE, DEFAULT, JSON_LIST or SIMPLE_LIST; SIMPLE costs the fewest bytes.
    ping_interval_seconds: how often a line is asked whether it lives. Longer saves traffic on metered lines.
    gather_seconds: above 1,500 reads a second (all lines) data comes up to so much later, at half the CPU. 0: at once.
    pong_timeout_seconds: how long the answer may take before the line counts as dead. Longer on slow lines.
    stall_probe_seconds: silence of all topics after which REST is asked whether there was news. Rarely changed.
    first_frame_seconds: a topic without a first frame for this long is reported. Longer with thousands of topics.
    max_connections: WebSockets at most. Fewer if several programs share an IP address.
    max_topics_per_connection: topics on one WebSocket before another is opened. Lower spreads load over connections.
    idle_connection_seconds: how long a connection without topics stays open. Longer if you resubscribe often.
    reconnect_cap_seconds: longest wait between two attempts after a break. Longer where many programs reconnect.
    offline_reconnect_cap_seconds: the same while this machine has no network. Rarely changed.
    healthy_after_seconds: a line that held this long starts the retry policy over. Rarely changed.
    audit_subscriptions: ask Upbit for its list of subscriptions after each change, and repair. For suspicious proxies.
    promote_after_questions: questions about a market, within the window, after which it is streamed. 1 streams at once.
    promote_window_seconds: the window in which those are counted. Longer if you poll slowly.
    demote_after_seconds: unasked for this long, a streamed market is dropped again. Longer if you poll slowly.
    max_promoted_topics: topics streamed for questions at most. 0 is not allowed; `strategy=` forces REST instead.
    max_subscribed_symbols: symbols of one subscription at most, against typing errors. Rarely changed.
    queue_size: items a subscription holds before it drops (40,000 trades: 45 MB). Higher for consumers that pause long.
    backfill_max_trades: trades fetched to fill one gap at most. Higher for long outages of busy markets.
    gap_hold_seconds: how long live data waits for the repair of a gap. 0 never waits; higher keeps order longer.
    gap_strict_seconds: the same for subscribers with `gap_order="strict"`.
    """

    region: str = "kr"
    url: str = ""  # another server for both: scheme and host, without /v1; empty: the region's
    rest_url: str = ""  # scheme and host, without /v1; empty: that of `url`
    websocket_url: str = ""  # full URL; empty: that of `url`
    allow_different_hosts: bool = False  # questions to one host and streams from another
    # Extra certificate authority, beside those of REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE, or the system's,
    # or certifi's. Verification itself cannot be switched off.
    ca_file: str | None = None
    # http:// or socks5://[user:password@]host:port; "env": what the environment says, which is ignored otherwise. Never
    # shown: it may hold a password.
    proxy: str | None = field(default=None, repr=False)

    # redis://, rediss:// (TLS) or unix://, with user and password if need be. Never shown.
    upstream: str = field(default="", repr=False)
    upstream_prefix: str = "upbit"
    share_limits_at: str = field(default="", repr=False)  # likewise
    # One for all unless told otherwise: limits that are shared without need cost speed, the opposite costs a ban. What
    # this machine takes for its address says nothing: behind a NAT each has another, and many have the same.
    egress: str = "default"

    timeout_seconds: float = 5.0  # default for every blocking call
    connect_timeout_seconds: float = 5.0
    close_timeout_seconds: float = 1.5  # how long `close()` waits at most; two seconds in all with this default

    # REST
    rest_requests_per_second: float = REQUESTS_PER_SECOND  # per rate group (docs: rate-limits)
    rest_workers_per_group: int = 4  # requests of one market that may be under way at once
    rest_attempts: int = 3
    merge_window_seconds: float = 0.003
    share_limits_between_processes: bool = True
    breaker_failures: int = 5
    breaker_reset_seconds: float = 5.0

    # What we are willing to call current
    liveness_seconds: float = 10.0  # a session unheard for longer proves nothing
    max_lag_seconds: float = 2.0  # data that comes later than this after its making is not current
    rest_max_age_seconds: float = 1.0  # how old a REST ticker, book or chart may be to answer a second question
    markets_max_age_seconds: float = 300.0

    # Sessions
    connects_per_second: float = CONNECTS_PER_SECOND  # WebSocket handshakes of this IP (docs: rate-limits)
    websocket_format: str = "SIMPLE"
    ping_interval_seconds: float = 5.0  # Upbit drops idle sockets after 60 s (measured) to 120 s (documented)
    pong_timeout_seconds: float = 5.0
    # Where more than 1,500 reads a second would be due: a quarter (three lines) to half (one) of the CPU is spared
    # (measured), for as much delay at most.
    gather_seconds: float = 0.002
    # Silence on all topics for this long starts a probe: REST is asked for newer trades, or, while REST does not say,
    # the stream for its snapshots. A stall is found within five seconds more (nine while REST hangs).
    stall_probe_seconds: float = 10.0
    first_frame_seconds: float = 5.0  # a topic without a first frame for this long is reported
    max_connections: int = 5
    max_topics_per_connection: int = 1000
    idle_connection_seconds: float = 30.0
    reconnect_cap_seconds: float = 1.5  # on average less than one attempt a second
    offline_reconnect_cap_seconds: float = 10.0
    healthy_after_seconds: float = 30.0  # only after this long does the retry policy start over
    audit_subscriptions: bool = False  # check with LIST_SUBSCRIPTIONS after each change

    # Routing
    promote_after_questions: int = 3  # within the window; for charts, which share no requests, one less
    promote_window_seconds: float = 10.0
    demote_after_seconds: float = 60.0
    max_promoted_topics: int = 1000

    # Delivery
    max_subscribed_symbols: int = 5000
    queue_size: int = 40_000  # 45 MB of trades at most, should nobody read them
    backfill_max_trades: int = 10_000
    gap_hold_seconds: float = 2.0  # after a reconnect, live data waits for REST's repair at most this long; 0: never
    gap_strict_seconds: float = 60.0  # and this long for subscribers with gap_order="strict"

    def __post_init__(self) -> None:
        for each in fields(self):
            _check_text(each.name, str(each.type), getattr(self, each.name))
        if self.region not in REGION_HOSTS:
            raise _bad("region", self.region, f"one of {', '.join(REGION_HOSTS)}")
        url = (self.url or f"https://{REGION_HOSTS[self.region]}").rstrip("/")
        _check_base("url", url)
        object.__setattr__(self, "share_limits_at", self.share_limits_at or self.upstream)
        object.__setattr__(self, "rest_url", (self.rest_url or url).rstrip("/"))
        object.__setattr__(self, "websocket_url", self.websocket_url or f"ws{url.removeprefix('http')}/websocket/v1")
        _check_base("rest_url", self.rest_url)
        _check_url("websocket_url", self.websocket_url, ("wss", "ws"))
        self._check_hosts()
        if self.websocket_format not in WEBSOCKET_FORMATS:
            raise _bad("websocket_format", self.websocket_format, f"one of {', '.join(WEBSOCKET_FORMATS)}")
        if self.ca_file is not None and not Path(self.ca_file).is_file():
            raise _bad("ca_file", self.ca_file, "the path of a PEM file that exists")
        for each in fields(self):
            object.__setattr__(self, each.name, _checked(each.name, str(each.type), getattr(self, each.name)))
        if self.gather_seconds > LONGEST_GATHERING:
            raise _bad("gather_seconds", self.gather_seconds, f"at most {LONGEST_GATHERING} seconds")

    def _check_hosts(self) -> None:
        """Both URLs lead to one host: otherwise the prices of a test server would be mixed with those of Upbit."""
        asked, streamed = (_host_of(url) for url in (self.rest_url, self.websocket_url))
        if asked != streamed and not self.allow_different_hosts:
            raise InvalidRequestError(
                f"rest_url={self.rest_url!r} and websocket_url={self.websocket_url!r}: questions would go to one host "
                "and streams come from another; give url= for both, or allow_different_hosts=True if that is meant"
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> BackboneConfig:
        """Settings from arguments first, then UPBIT_BACKBONE_* variables, then the defaults."""
        environ = os.environ if environ is None else environ
        known = {each.name: str(each.type) for each in fields(cls)}
        for name in overrides:
            if name not in known:
                raise _no_setting(name, known)
        values: dict[str, Any] = {}
        for name, kind in known.items():
            text = environ.get(ENVIRONMENT_PREFIX + name.upper())
            if text:
                values[name] = _parse(name, kind, text)
        if overrides.get("url") is not None:
            # Said here and now, it stands for both; what the environment says of either is of another server.
            values = {name: value for name, value in values.items() if name not in ("rest_url", "websocket_url")}
        values.update((name, value) for name, value in overrides.items() if value is not None)
        return cls(**values)


def _no_setting(name: str, known: Collection[str]) -> InvalidRequestError:
    if near := nearest(name, known):
        return InvalidRequestError(f"{name!r} is no setting; did you mean {', '.join(near)}?")
    return InvalidRequestError(f"{name!r} is no setting; the settings are: {', '.join(known)}")


def _bad(name: str, value: object, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name}={value!r}: expected {expected}")


def _check_base(name: str, url: str) -> None:
    _check_url(name, url, ("https", "http"))
    if url != "{0.scheme}://{0.netloc}".format(urlsplit(url)):
        raise _bad(name, url, "scheme and host only, without /v1")


def _check_text(name: str, kind: str, value: Any) -> None:
    if not kind.startswith("str") or value is None or isinstance(value, str):
        return
    if not (name == "ca_file" and isinstance(value, os.PathLike)):
        # Not the value itself: even the wrong kind of it may hold a password.
        raise InvalidRequestError(f"{name}: expected a text, got one of type {type(value).__name__!r}")


def _host_of(url: str) -> str:
    host = (urlsplit(url).hostname or "").rstrip(".")
    return "this machine" if host in LOOPBACK_HOSTS else host


def _check_url(name: str, url: str, schemes: tuple[str, str]) -> None:
    secure, plain = schemes
    if "@" in url:  # before anything that repeats the URL
        raise InvalidRequestError(f"{name}: expected no user name or password in the URL")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _bad(name, url, "a URL") from error
    if parts.scheme not in schemes or not host or not _NETLOC.fullmatch(parts.netloc):
        raise _bad(name, url, f"a {secure}:// URL with a host")
    if parts.scheme == plain and host not in LOOPBACK_HOSTS:
        raise _bad(
            name,
            url,
            f"{secure}://, because {plain}:// is allowed to this machine only (127.0.0.1, localhost)",
        )


def _checked(name: str, kind: str, value: Any) -> Any:
    """`value` as Python's own number where the field is one; InvalidRequestError where it cannot be."""
    if kind == "int":
        return whole_number(value, name, low=1)
    if kind == "float":
        number = as_real(value)
        is_allowed = number is not None and math.isfinite(number) and number >= 0
        if not is_allowed or (number == 0 and name not in MAY_BE_ZERO):
            raise _bad(name, value, "a number >= 0" if name in MAY_BE_ZERO else "a number > 0")
        return value if isinstance(value, int) else number
    if kind == "bool" and not isinstance(value, bool):
        raise _bad(name, value, "True or False")
    return value


_TRUTH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_PARSERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": lambda text: _TRUTH[text.lower()],
}
_WRITTEN = {"int": "a whole number", "float": "a number", "bool": "'on' or 'off'"}


def _parse(name: str, kind: str, text: str) -> Any:
    try:
        return _PARSERS.get(kind, str)(text)
    except (ValueError, KeyError) as error:
        raise InvalidRequestError(f"{ENVIRONMENT_PREFIX}{name.upper()}={text!r}: expected {_WRITTEN[kind]}") from error


# Surroundings in which nothing of ours can work: refused at construction, in a sentence that names the way out.


def check_surroundings() -> None:
    """InvalidRequestError under eventlet's monkey patches. gevent's are fine."""
    patcher = sys.modules.get("eventlet.patcher")
    # Its sockets and locks lack what ours are asked for, and eventlet itself advises against its use.
    if patcher is not None and (patcher.is_monkey_patched("thread") or patcher.is_monkey_patched("socket")):
        raise InvalidRequestError(
            "eventlet.monkey_patch() is active, under which this library cannot keep its streams alive: "
            "use gevent, whose monkey.patch_all() works, or threads"
        )
