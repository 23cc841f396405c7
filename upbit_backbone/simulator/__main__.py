"""`python -m upbit_backbone.simulator` and the command `upbit-backbone-simulator`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from upbit_backbone._language import spoken  # words for people: of what is tested nothing is imported
from upbit_backbone.simulator.serving.options import Options, parse_setting

if TYPE_CHECKING:
    from upbit_backbone.simulator.serving.server import Server

WIDE_LETTERS_WIDTH = 52


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a simulator until Ctrl-C, SIGTERM or the end of its parent; 0 after a clean end."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        options = _options(chosen)
        return asyncio.run(_serve(options, chosen))
    except KeyboardInterrupt:
        return 0
    except (ValueError, OSError) as problem:
        # From Python 3.13 on a port that is taken has its number twice.
        parser.fail(re.sub(r"(?<=: )\[errno \d+\] ", "", str(problem)))


class Parser(argparse.ArgumentParser):
    """argparse's own words, too, in the language of whoever reads them."""

    def format_help(self) -> str:
        return super().format_help().replace("usage: ", spoken("Usage: "), 1)

    def format_usage(self) -> str:
        return super().format_usage().replace("usage: ", spoken("Usage: "), 1)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.fail(message)

    def fail(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {spoken('error')}: {spoken(message)}\n")


def _parser() -> Parser:
    switches = ", ".join(f"{field.name}={field.default!r}" for field in fields(Options))
    is_wide = not spoken("Usage: ").isascii()
    # argparse counts characters, of which most of another alphabet are two columns wide.
    narrow = partial(argparse.HelpFormatter, width=WIDE_LETTERS_WIDTH) if is_wide else argparse.HelpFormatter
    parser = Parser(
        prog="upbit-backbone-simulator",
        epilog=f"{spoken('Switches for --set, with their defaults:')} {switches}",
        description=spoken("A faithful local Upbit: public REST and WebSocket, with faults on demand."),
        formatter_class=narrow,
        add_help=False,
    )
    group = parser.add_argument_group(spoken("Options"))

    def add(*names: str, about: str, **more: Any) -> None:
        group.add_argument(*names, help=spoken(about), **more)

    add("-h", "--help", action="help", about="Show this message and exit.")
    add("--host", default="127.0.0.1", about="address to listen on (default: 127.0.0.1)")
    add("--rest-port", "--port", type=int, default=0, about="REST port; 0 picks a free one")
    add("--websocket-port", type=int, default=0, about="WebSocket port; 0 picks a free one")
    add("--control-port", type=int, default=0, about="control port; 0 picks a free one")
    add("--tls", action="store_true", about="https and wss with a certificate of its own authority")
    add("--seed", type=int, default=1, about="the same seed gives the same market (default: 1)")
    add("--markets", default=None, about="how many pairs, or a comma list of them (default: 855)")
    add("--rate", type=float, default=50.0, about="trades per second over all pairs; 0: only by control")
    add("--start-time", default=None, about="where the clock starts, e.g. 2026-11-20T23:59:50Z")
    add(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        about="any switch of upbit_backbone.simulator.serving.options.Options, repeatable",
    )  # fmt: skip
    add("--quiet", action="store_true", about="print nothing")
    add("--ready-json", action="store_true", about="print the addresses as one line of JSON")
    add("--parent", type=int, default=None, about="end when this process ends or standard input closes")
    return parser


def _options(chosen: argparse.Namespace) -> Options:
    markets: Any = chosen.markets
    if markets is not None:
        markets = int(markets) if markets.isdigit() else [code for code in markets.split(",") if code]
    settings = dict(parse_setting(text) for text in chosen.set)
    base: dict[str, Any] = {
        "host": chosen.host, "rest_port": chosen.rest_port, "websocket_port": chosen.websocket_port,
        "control_port": chosen.control_port, "tls": chosen.tls, "seed": chosen.seed, "markets": markets,
        "trades_per_second": chosen.rate, "start_time": chosen.start_time,
    }  # fmt: skip
    return Options(**(base | settings))


async def _serve(options: Options, chosen: argparse.Namespace) -> int:
    from upbit_backbone.simulator.control.port import Control
    from upbit_backbone.simulator.serving.server import Server

    server = Server(options, control=lambda server: Control(server).serve)
    loop = asyncio.get_running_loop()
    for number in filter(None, (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGBREAK", None))):
        try:
            loop.add_signal_handler(number, server.stop)
        except NotImplementedError:  # Windows' loop has none, but wakes for those of the signal module
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(server.stop))
    await server.start()
    if chosen.parent is not None:
        for watch in (partial(_watch_parent, chosen.parent, server), partial(_watch_stdin, server)):
            threading.Thread(target=watch, name="watch-parent", daemon=True).start()
    if chosen.ready_json:
        print(json.dumps(server.urls()), flush=True)
    elif not chosen.quiet:
        _print_urls(server.urls())
    await server.run_until_stopped()
    return 0


def _print_urls(urls: dict[str, Any]) -> None:
    print(spoken("A simulated Upbit is running. Ctrl-C ends it."))
    for name, variable in (("rest_url", "REST_URL"), ("websocket_url", "WEBSOCKET_URL"), ("ca_file", "CA_FILE")):
        if urls[name]:
            print(f"  export UPBIT_BACKBONE_{variable}={urls[name]}")
    print(f"  control: {urls['control_url']}", flush=True)


def _watch_parent(parent: int, server: Server) -> None:
    """Whoever inherited our standard input can keep it open after the parent's death, so look at the parent too."""
    while os.name == "nt" or os.getppid() == parent:
        time.sleep(0.5)
    _end(server)


def _watch_stdin(server: Server) -> None:
    """The end of standard input is the parent's way to say stop, also when it was killed."""
    while sys.stdin.buffer.read(1024):
        pass
    _end(server)


def _end(server: Server) -> None:
    """At once, whatever the loop is doing; nobody listens any more."""
    server.clean_up()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
