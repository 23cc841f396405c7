"""Every error of ours, in one tree.

UpbitBackboneError
├── InvalidRequestError          the question cannot be asked (also a ValueError); nothing went on the wire
│   ├── UnknownSymbolError       no such market at Upbit
│   ├── UnknownTimeframeError    no such candle unit
│   └── FileInUseError           somebody else writes that file; `holder` says who
├── RateLimitError               Upbit said 429, or our own limiter cannot serve you before your deadline
│   └── BannedError              Upbit said 418: the whole IP waits until `until`
├── AuthenticationError          401/403: public data needs no key, so a proxy or firewall stands in between
├── ServerError                  Upbit failed (5xx)
│   └── MaintenanceError         Upbit is closed for maintenance (503, or HTML where JSON belongs)
├── NetworkError                 the bytes did not get through
│   ├── RequestTimeoutError      nothing came back by your deadline (also a TimeoutError)
│   └── TlsError                 the certificate or the TLS handshake is not acceptable
├── ProtocolError                the other side does not speak Upbit's protocol
│   ├── MalformedDataError       a payload of the wrong shape; names the field
│   └── MessageTooBigError       more bytes than we are willing to hold
├── ChannelUnavailableError      no channel can answer now
├── StaleDataError               only an old value is known; it travels in `last_known`
├── NoTradesYetError             the market is listed, but nobody has traded there yet: it has no price
├── SubscriptionError            a subscription was refused, overflowed or never produced a first frame
├── DownloadCancelledError       you cancelled a download; what came before travels in `partial`
├── ResourceError                this machine has no thread, file or module to give (also a RuntimeError)
└── ClosedError                  the backbone (or subscription) is closed

Each error says whose fault it is, whether asking again can help (`retryable`) and when (`retry_after`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from ._language import spoken

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")
MAX_FOREIGN_TEXT = 200


def one_line(text: object, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Foreign text made safe for messages and logs: control characters escaped, at most `limit` characters."""
    escaped = _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", str(text))
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


class UpbitBackboneError(Exception):
    """Base of every error this library raises.

    `retryable` tells whether the same call may succeed later without any change;
    `retry_after` is the number of seconds to wait first, or None where nobody said.

    An error that ends a download carries what was fetched before it in `partial` (oldest first) and the question
    for the rest in `resume` (see `candles.ranges.ResumePoint`); elsewhere they are () and None.
    """

    retryable: ClassVar[bool] = False
    whose_fault: ClassVar[str] = "the library's"
    partial: Sequence[Any] = ()
    resume: Any = None

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return spoken(super().__str__())

    @property
    def help_page(self) -> str:
        """Where the documentation says what to do about it: page and anchor, within either language."""
        return f"reference/errors.html#{type(self).__name__.lower()}"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would replay only `args`; keyword-only state travels separately.
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(kind: type[UpbitBackboneError], args: tuple[Any, ...], state: dict[str, Any]) -> UpbitBackboneError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidRequestError(UpbitBackboneError, ValueError):
    """The question itself is wrong: the message names what was asked, what is allowed and what to do."""

    whose_fault = "the caller's"


class UnknownSymbolError(InvalidRequestError):
    """Upbit has no such market. `symbols` are the unknown ones, `suggestions` near matches."""

    def __init__(self, message: str, *, symbols: Sequence[str] = (), suggestions: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.symbols = tuple(symbols)
        self.suggestions = tuple(suggestions)


class UnknownTimeframeError(InvalidRequestError):
    """No such candle unit; the message lists those that exist."""


class FileInUseError(InvalidRequestError):
    """Somebody else writes this file now; `holder` names the process and what it does."""

    retryable = True

    def __init__(self, message: str, *, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder


class RateLimitError(UpbitBackboneError):
    """Too many requests for one rate group; `retry_after` says how many seconds to wait."""

    retryable = True
    whose_fault = "the caller's"

    def __init__(self, message: str, *, retry_after: float | None = None, group: str | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.group = group


class BannedError(RateLimitError):
    """Upbit blocks this IP. No part of the library sends a request before `until` (aware UTC).

    Streams that are open go on. One that breaks meanwhile tries to connect once a second, until a handshake is refused
    with a 418, too.
    """

    def __init__(self, message: str, *, until: datetime | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.until = until


class AuthenticationError(UpbitBackboneError):
    """401 or 403 on public data: something between you and Upbit wants credentials."""

    whose_fault = "the network's"


class ServerError(UpbitBackboneError):
    """Upbit answered with a server error (5xx)."""

    retryable = True
    whose_fault = "Upbit's"

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status


class MaintenanceError(ServerError):
    """Upbit is in maintenance."""


class NetworkError(UpbitBackboneError):
    """The connection failed: refused, reset, unresolvable or cut."""

    retryable = True
    whose_fault = "the network's"


class RequestTimeoutError(NetworkError, TimeoutError):
    """No answer by the deadline."""


class TlsError(NetworkError):
    """The server's certificate or TLS handshake was not acceptable; never retried in a hurry, never switched off."""

    retryable = False


class ProtocolError(UpbitBackboneError):
    """The other side broke the HTTP, WebSocket or Upbit protocol."""

    retryable = True
    whose_fault = "Upbit's"


class MalformedDataError(ProtocolError):
    """A payload could not be understood. `field` names the first field that is wrong, where one can be named."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class MessageTooBigError(ProtocolError):
    """A frame, message or answer is larger than the library is willing to hold. The same question would be answered
    alike."""

    retryable = False


class ChannelUnavailableError(UpbitBackboneError):
    """Neither REST nor WebSocket can answer now. `last_known` is the newest value ever seen, or None."""

    retryable = True
    whose_fault = "the network's"

    def __init__(
        self,
        message: str,
        *,
        last_known: Any = None,
        age: float | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.last_known = last_known
        self.age = age


class StaleDataError(ChannelUnavailableError):
    """Only an old value is known: `last_known` is it, `age` its age in seconds."""


class NoTradesYetError(UpbitBackboneError):
    """The market `symbol` exists and has no price, because nobody has traded there yet. Its first trade ends that."""

    retryable = True
    whose_fault = "nobody's"

    def __init__(self, message: str | None = None, *, symbol: str) -> None:
        super().__init__(
            message
            or f"{symbol} is listed, but nobody has traded there yet, so it has no price: ask again later, or "
            "subscribe to its ticker and take what comes"
        )
        self.symbol = symbol


class SubscriptionError(UpbitBackboneError):
    """A subscription failed: refused by Upbit, overflowed under Overflow.ERROR, or silent from the start."""


class DownloadCancelledError(UpbitBackboneError):
    """You cancelled; asking `resume` continues where the download ended."""

    retryable = True
    whose_fault = "the caller's"


class ResourceError(UpbitBackboneError, RuntimeError):
    """What is needed is not there: no thread or file descriptor is left, no temporary folder, or a part of the library
    cannot be loaded, as after an upgrade under the running program."""

    retryable = True
    whose_fault = "the machine's"


class ClosedError(UpbitBackboneError):
    """The object was closed; make a new one."""

    whose_fault = "the caller's"
