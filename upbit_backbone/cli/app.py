"""The commands under one roof."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from .._language import is_korean, spoken
from ..errors import one_line
from ..exchange.endpoints import REGION_HOSTS
from . import asking, candles, demo, doctor, record, relay, serve, store, watch
from .helping import EXAMPLES, ByJob, speaking
from .running import EXIT_CODES, WRONG_USE, end_in_order, overrides, say_error, tell_file_trouble

app = typer.Typer(
    name="upbit-backbone",
    cls=ByJob,
    help="Upbit market data in the terminal: no key, no programming.\n\nTry `upbit-backbone demo` first: it needs no "
    "network. Every setting of the library can be given as UPBIT_BACKBONE_… in the environment.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # which takes [pandas] for its own and leaves it out
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _epilog(name: str) -> str:
    return f"{EXAMPLES[name]}\n\n{EXIT_CODES}"


for each in (
    asking.ticker,
    watch.watch,
    asking.book,
    candles.candles,
    asking.trades,
    asking.markets,
    asking.explain,
    doctor.doctor,
    record.record,
    record.replay,
    store.store,
    relay.relay,
    demo.demo,
):
    app.command(epilog=_epilog(each.__name__))(each)
app.command("serve-metrics", epilog=_epilog("serve-metrics"))(serve.serve_metrics)
app.command("serve-replay", epilog=_epilog("serve-replay"))(serve.serve_replay)
app.command(
    "simulator",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=_epilog("simulator"),
)(serve.simulator)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"upbit-backbone {own_version()}")
        raise typer.Exit


def own_version() -> str:
    try:
        return version("upbit-backbone")
    except PackageNotFoundError:
        return spoken("(not installed)")


@app.callback()
def settings(
    region: Annotated[str | None, typer.Option(help=f"Upbit's region: {', '.join(REGION_HOSTS)}.")] = None,
    url: Annotated[str | None, typer.Option(help="Another server for everything, scheme and host.")] = None,
    rest_url: Annotated[str | None, typer.Option(help="Another REST server, scheme and host.")] = None,
    websocket_url: Annotated[str | None, typer.Option(help="Another WebSocket server, full URL.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds an answer may take.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the library's log on stderr.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    given = {
        "region": region,
        "url": url,
        "rest_url": rest_url,
        "websocket_url": websocket_url,
        "timeout_seconds": timeout,
    }
    overrides.clear()
    overrides.update((name, value) for name, value in given.items() if value is not None)
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.CRITICAL, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    end_in_order()


# What is wrong with a command line is said by typer, whose errors have no public name in common.
_WrongUse: Any = typer.BadParameter.__mro__[2]


def _tell_wrong_use(error: Any) -> int:
    """typer says it in English only; in Korean its words are looked up as ours are."""
    message = error.format_message()
    if not is_korean() or "\n" in message:  # the whole help, which speaks Korean already
        error.show()
    else:
        if (context := getattr(error, "ctx", None)) is not None:
            print(context.get_usage(), spoken(f"Try '{context.command_path} -h' for help."), sep="\n", file=sys.stderr)
        say_error(message)
    return int(error.exit_code)


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for word in given:
        if one_line(word, limit=len(word) + 1) != word:  # typer repeats what it does not understand as it came
            say_error(f"{one_line(word)}: control characters are not allowed in arguments")
            return WRONG_USE
    try:
        code = speaking(typer.main.get_command(app))(args=given, prog_name="upbit-backbone", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except typer.Abort:
        say_error("Aborted!")
        return 1
    except _WrongUse as error:
        return _tell_wrong_use(error)
    except OSError as error:  # of --help, which no command writes
        return tell_file_trouble(error)
