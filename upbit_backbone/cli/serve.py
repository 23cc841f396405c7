"""`serve-metrics`, `serve-replay` and `simulator`: commands that serve until Ctrl-C."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from .._concurrency import Deadline, Flag, wait_event
from .._language import spoken
from ..models.enums import DataType
from . import output
from .record import speed_of
from .running import Json, Seconds, command, moment_of, need, open_market


@command
def serve_metrics(
    symbols: Annotated[list[str] | None, typer.Argument(help="Markets to stream.", metavar="[SYMBOL...]")] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 9464,
    host: Annotated[str, typer.Option(help="0.0.0.0 serves other machines too.")] = "127.0.0.1",
    data_type: Annotated[DataType, typer.Option("--type", help="What to stream.", metavar="TYPE")] = DataType.TICKER,
    seconds: Seconds = None,
    json: Json = False,
) -> None:
    """Serve health and performance for Prometheus (the [prometheus] extra)."""
    need("prometheus_client", "prometheus")
    from ..monitoring.prometheus import serve_metrics as serve

    with open_market() as market, serve(market, port, host) as server:
        if symbols:
            market.subscribe_realtime(symbols, [data_type], callback=lambda item: None)
        if json:
            output.print_json({"url": server.url})
        else:
            print(spoken(f"serving {server.url} (Ctrl-C ends)"), flush=True)
        wait_event(Flag(), Deadline.after(seconds))


@command
def serve_replay(
    file: Annotated[Path, typer.Argument(help="A store.")],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="0.0.0.0 serves other machines too.")] = "127.0.0.1",
    speed: Annotated[str, typer.Option(help="1 for the recorded pace, 10 for ten times it, max for no pause.")] = "1",
    start: Annotated[str | None, typer.Option(help="Play from this time on (UTC unless it names a zone).")] = None,
    end: Annotated[str | None, typer.Option(help="Play what came before this time.")] = None,
    now: Annotated[bool, typer.Option("--now", help="Play at once, and not from the first subscription on.")] = False,
    seconds: Seconds = None,
    json: Json = False,
) -> None:
    """Serve a store as Upbit would, for any client, at the time that is played."""
    import asyncio

    from ..archive.replay import StoreRecording
    from .serve_replay import serve

    def tell(rest_url: str, websocket_url: str) -> None:
        if json:
            output.print_json({"rest_url": rest_url, "websocket_url": websocket_url})
        else:
            print(spoken(f"serving {rest_url} and {websocket_url} (Ctrl-C ends)"), flush=True)

    first, stop = moment_of(start, "--start"), moment_of(end, "--end")
    serving = serve(
        StoreRecording(file), host, port, speed=speed_of(speed), since=first, until=stop, is_at_once=now, tell=tell
    )
    with contextlib.suppress(TimeoutError):
        asyncio.run(asyncio.wait_for(serving, seconds))


@command
def simulator(context: typer.Context) -> int:
    """Run a local Upbit; every option is the simulator's own (`simulator --help`)."""
    from ..simulator.__main__ import main

    return main(context.args)
