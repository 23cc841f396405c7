"""`relay`: one process asks Upbit and publishes to a Redis server, for many that read there."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._concurrency import Deadline, Flag, wait_event
from .._language import spoken
from ..config import BackboneConfig
from ..errors import InvalidRequestError
from ..routing.requests import data_types
from . import output
from .running import TYPE_HELP, Json, Seconds, command, need, open_market, overrides, say_error, type_words

if TYPE_CHECKING:
    from ..relay import Relay

LOOK_SECONDS = 0.25
COLLECT_SECONDS = 60.0


@command
def relay(
    redis: Annotated[
        str,
        typer.Option(
            "--redis",
            envvar="UPBIT_BACKBONE_REDIS",
            show_envvar=False,
            metavar="URL",
            help="The server: redis://, rediss:// (TLS) or unix://; with a password better as UPBIT_BACKBONE_REDIS.",
        ),
    ],
    symbols: Annotated[
        list[str] | None, typer.Option("--symbols", help="Market codes, with commas between them; repeatable.")
    ] = None,
    quote: Annotated[str | None, typer.Option(help="All markets priced in this currency, such as KRW.")] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--types",
            help=f"What to publish: {TYPE_HELP}; with commas, repeatable.",
            metavar="TYPES",
            autocompletion=type_words,
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="What the keys in Redis begin with.")] = "upbit",
    kept: Annotated[int, typer.Option(min=1, help="Trades and candles kept in each stream.")] = 10_000,
    seconds: Seconds = None,
    json: Json = False,
) -> None:
    """Publish streams to a Redis server, for many readers; of several relays one leads (the [redis] extra)."""
    need("redis", "redis")
    from ..relay import Relay

    kinds = data_types(_words(types) or ["ticker"])
    codes = _words(symbols)
    if (quote is None) == (not codes):
        raise InvalidRequestError("name the markets by --symbols, or all of a currency by --quote")
    # Those whom it feeds keep the limits there, and it with them, unless it is told another place.
    config = BackboneConfig.from_environment(**overrides)
    shared: dict[str, Any] = {} if config.share_limits_at else {"share_limits_at": redis, "upstream_prefix": prefix}
    with (
        open_market(**shared) as market,
        Relay(market, redis, codes or None, kinds, quote=quote, prefix=prefix, kept=kept) as running,
        _seldom_collected() as collect_if_due,
    ):
        _show(running, Deadline.after(seconds), json, collect_if_due)
    if json:
        output.print_json(output.as_plain(running.stats))


def _words(given: list[str] | None) -> list[str]:
    return [word for each in given or [] for word in each.replace(",", " ").split()]


@contextlib.contextmanager
def _seldom_collected() -> Iterator[Callable[[], None]]:
    """Meanwhile this process looks for garbage once a minute, when what it gives is called, and else not.

    What streams through a relay is let go of without a collector. One that looked after each 700 objects took a tenth
    of the relay's time, most of it to look at the trades of the last seconds again; now and then all of them waited
    for it, up to 30 ms.
    """
    was_enabled = gc.isenabled()
    due = Deadline.after(COLLECT_SECONDS)

    def collect_if_due() -> None:
        nonlocal due
        if due.expired:
            gc.collect()
            due = Deadline.after(COLLECT_SECONDS)

    gc.disable()
    gc.freeze()  # what is there by now stays, and need not be looked at
    try:
        yield collect_if_due
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _show(running: Relay, end: Deadline, json: bool, collect_if_due: Callable[[], None]) -> None:
    """Who leads, whenever that changes, and what is wrong."""
    told, error = None, None
    while not (end.expired or running.closed):
        stats = running.stats
        if stats.is_leading != told:
            told = stats.is_leading
            if not json:
                name = output.safe(running.name)
                text = f"{name} leads (Ctrl-C ends)" if told else f"{name} stands by (Ctrl-C ends)"
                print(spoken(text), flush=True)
        if stats.error not in (None, error):
            say_error(str(stats.error))
        error = stats.error
        collect_if_due()
        wait_event(Flag(), end.sooner(LOOK_SECONDS))
