"""`relay`: one process asks Upbit and publishes to a Redis server, for many that read there."""

from __future__ import annotations

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
    ):
        _show(running, Deadline.after(seconds), json)
    if json:
        output.print_json(output.as_plain(running.stats))


def _words(given: list[str] | None) -> list[str]:
    return [word for each in given or [] for word in each.replace(",", " ").split()]


def _show(running: Relay, end: Deadline, json: bool) -> None:
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
        wait_event(Flag(), end.sooner(LOOK_SECONDS))
