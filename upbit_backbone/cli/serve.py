"""`serve-metrics` and `simulator`: commands that serve until Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer

from .._concurrency import Deadline, Flag, wait_event
from .._language import spoken
from ..models.enums import DataType
from . import output
from .running import Json, Seconds, command, need, open_market


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
def simulator(context: typer.Context) -> int:
    """Run a local Upbit; every option is the simulator's own (`simulator --help`)."""
    from ..simulator.__main__ import main

    return main(context.args)
