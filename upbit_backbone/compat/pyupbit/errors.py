"""pyupbit's errors. Where pyupbit is installed they are its own classes, so that what its trading raises is caught by
the same names; elsewhere classes of the same shape (`name`, `code`, `msg`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from ... import errors
from ..._log import get_logger
from .stand_in import installed

log = get_logger("upbit_backbone.compat")


class UpbitErrorMixin(Exception):  # noqa: N818 - pyupbit's name
    """An error with what Upbit says of it: `name`, `code` and `msg`."""

    name: str | int = ""
    code: int = -1
    msg: str = ""

    def __init__(self, **about: Any) -> None:
        super().__init__(*about.values())
        self.__dict__.update(about)

    def __str__(self) -> str:
        return self.msg

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self).__name__, self.name, self.code, self.msg)


# By family, and for each error the word by which Upbit names it.
_FAMILIES: Final[Mapping[str, tuple[int, Mapping[str, str]]]] = {
    "UpbitError": (-1, {}),
    "UpbitBadRequestError": (
        400,
        {
            "CreateAskError": "create_ask_error",
            "CreateBidError": "create_bid_error",
            "InsufficientFundsAsk": "insufficient_funds_ask",
            "InsufficientFundsBid": "insufficient_funds_bid",
            "UnderMinTotalAsk": "under_min_total_ask",
            "UnderMinTotalBid": "under_min_total_bid",
            "WidthdrawAddressNotRegisterd": "withdraw_address_not_registerd",
            "ValidationError": "validation_error",
        },
    ),
    "UpbitUnauthorizedError": (
        401,
        {
            "InvalidQueryPayload": "invalid_query_payload",
            "JwtVerification": "jwt_verification",
            "ExpiredAccessKey": "expired_access_key",
            "NonceUsed": "nonce_used",
            "NoAutorizationIP": "no_authorization_i_p",
            "OutOfScope": "out_of_scope",
            "InValidAccessKey": "",
        },
    ),
    "UpbitLimitError": (429, {"TooManyRequests": "Too many API requests.", "RemainingReqParsingError": ""}),
}
_NAMES: Final = frozenset({*_FAMILIES, *(name for _, members in _FAMILIES.values() for name in members)})


@cache
def _classes() -> Mapping[str, type[Exception]]:
    """By name: the installed pyupbit's, or our own."""
    try:
        pyupbit = installed()
    except ImportError as error:  # it is broken, so no program can meet its classes
        log.warning("the pyupbit that is installed cannot be loaded", extra={"why": errors.one_line(error)})
        pyupbit = None
    if pyupbit is not None:
        return {name: getattr(pyupbit.errors, name) for name in _NAMES}
    found: dict[str, type[Exception]] = {}
    for family, (code, members) in _FAMILIES.items():
        base = found[family] = type(family, (UpbitErrorMixin,), {"__module__": __name__, "code": code})
        for name, word in members.items():
            about = {"__module__": __name__, "name": word, "msg": f"{name} ({word or code})"}
            found[name] = type(name, (base,), about)
    return found


@cache
def _raised(kinds: tuple[type[Exception], ...]) -> Callable[..., Exception]:
    """One of pyupbit's errors that says what ours says; the cause tells the rest."""
    if len(kinds) == 1 and issubclass(kinds[0], UpbitErrorMixin):
        return kinds[0]

    def text(self: Any) -> str:
        return str(self.msg)

    def pickled(self: Any) -> tuple[Any, ...]:
        return _remade, (kinds[0].__name__, self.name, self.code, self.msg)

    return type(kinds[0].__name__, kinds, {"__module__": __name__, "__str__": text, "__reduce__": pickled})


def _remade(kind: str, name: object, code: int, msg: str) -> Exception:
    return _raised((_classes()[kind],))(name=name, code=code, msg=msg)


def error_for(error: errors.UpbitBackboneError) -> Exception:
    """What a program written for pyupbit expects to catch where we failed with `error`: TooManyRequests, or an
    UpbitError; where the network failed, one that is also the `ConnectionError` of requests."""
    msg = str(error)
    classes = _classes()
    if isinstance(error, errors.RateLimitError) and not isinstance(error, errors.BannedError):
        return _raised((classes["TooManyRequests"],))(name="Too many API requests.", code=429, msg=msg)
    kinds: tuple[type[Exception], ...] = (classes["UpbitError"],)
    if isinstance(error, errors.NetworkError | errors.ChannelUnavailableError):
        from requests.exceptions import ConnectionError as LostConnectionError

        kinds = (*kinds, LostConnectionError)
    return _raised(kinds)(name=_status(error), code=_status(error), msg=msg)


def _status(error: errors.UpbitBackboneError) -> int:
    if isinstance(error, errors.UnknownSymbolError):
        return 404
    if isinstance(error, errors.BannedError):
        return 418
    if isinstance(error, errors.ServerError):
        return error.status or 500
    return 400 if error.whose_fault == "the caller's" else 500


if TYPE_CHECKING:
    UpbitError = TooManyRequests = RemainingReqParsingError = UpbitErrorMixin
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            globals()[name] = _classes()[name]
            return globals()[name]
        pyupbit = installed() if not name.startswith("_") else None
        if pyupbit is None or not hasattr(pyupbit.errors, name):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(pyupbit.errors, name)
