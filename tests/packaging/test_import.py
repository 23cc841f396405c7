"""What importing the package gives, and what it leaves alone until somebody uses it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

import upbit_backbone
from upbit_backbone.simulator import FakeUpbit

ROOT = Path(__file__).resolve().parents[2]

# What other people wrote, and is of no use to somebody who only imports us.
HEAVY = {"requests", "urllib3", "websocket", "dataclasses_json", "marshmallow", "pandas", "numpy", "pyarrow", "rich",
         "typer", "trustme", "qtpy", "PySide6", "pyqtgraph", "prometheus_client", "pytest",
         "asyncio", "multiprocessing", "http.client", "difflib", "statistics", "tempfile", "shutil"}  # fmt: skip

# What a program that asks REST now and then never comes to: streams, the past, recordings, reports on ourselves.
LATER = {"history", "live", "cli", "export", "qt", "simulator", "default_backbone",
         "sessions.session", "sessions.lifecycle", "sessions.open_connection", "sessions.messages",
         "wire.websocket_transport", "wire.frames", "exchange.stream",
         "models.report", "recorder.recorder", "recorder.recording", "recorder.format", "recorder.replay",
         "monitoring.health_monitor", "monitoring.alerts", "monitoring.assessment",
         "monitoring.prometheus"}  # fmt: skip


def printed_by(script: str) -> str:
    """What `script` prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def modules_after(script: str) -> set[str]:
    """What is loaded by the end of `script`; ours without the name of the package."""
    loaded = printed_by(f"{script}\nimport json, sys; print(json.dumps(sorted(sys.modules)))")
    return {name.removeprefix("upbit_backbone.") for name in json.loads(loaded)}


@pytest.fixture
def upbit():
    with FakeUpbit(seed=3, markets=["KRW-BTC", "KRW-ETH"]) as upbit:
        yield upbit


def making(upbit: FakeUpbit) -> str:
    return (
        "from upbit_backbone import MarketDataBackbone\n"
        f"market = MarketDataBackbone(rest_url={upbit.rest_url!r}, websocket_url={upbit.websocket_url!r})\n"
    )


def test_the_bare_import_loads_nothing_of_ours_but_the_table_of_names() -> None:
    before, after = modules_after(""), modules_after("import upbit_backbone")
    ours = {name for name in after - before if (ROOT / "upbit_backbone" / f"{name.replace('.', '/')}.py").exists()}
    assert ours == {"_lazy", "_moved"}
    assert after & HEAVY == before & HEAVY


def test_importing_the_facade_loads_neither_other_peoples_weight_nor_what_few_programs_use() -> None:
    # pybreaker brings all of redis where that is installed, which is between these two.
    bare, loaded = modules_after("import pybreaker"), modules_after("from upbit_backbone import MarketDataBackbone")
    assert "backbone" in loaded
    assert (loaded - bare) & (HEAVY | LATER) == set()
    if find_spec("redis") is None:
        assert bare & HEAVY == set()


def test_what_pybreaker_would_like_to_have_is_not_loaded_and_still_there_for_others(tmp_path: Path) -> None:
    """It imports redis and tornado wherever they are installed, at many times the cost of all of ours."""
    for name in ("redis", "tornado"):
        (tmp_path / f"{name}.py").write_text("gen = Redis = None", encoding="utf-8")
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    ours = "import upbit_backbone.resilience.circuit_breaker as ours\n"
    assert {"redis", "tornado", "pybreaker"} & modules_after(begin + ours) == set()
    assert {"redis", "tornado", "pybreaker"} <= modules_after(begin + ours + "import pybreaker")
    same = "import pybreaker\n" + ours + "print(ours.pybreaker is pybreaker)"
    assert printed_by(begin + same) == "True\n"


def test_making_a_backbone_and_asking_rest_does_not_load_them_either(upbit) -> None:
    loaded = modules_after(making(upbit) + 'market.get_ticker("KRW-BTC")\nmarket.close()')
    assert loaded & LATER == set()


def test_a_question_loads_nothing_that_making_the_backbone_has_not_loaded(upbit) -> None:
    """Beside a thread that computes all the time, each of an import's hundreds of file reads waits for its turn."""
    made, asked = modules_after(making(upbit)), modules_after(making(upbit) + 'market.get_ticker("KRW-BTC")')
    assert "requests" in made
    assert asked - made <= {"encodings.idna", "stringprep", "unicodedata"}  # what looking a name up takes


@pytest.mark.parametrize(
    ("use", "needed"),
    [
        ('market.get_candles("KRW-BTC", count=1)', "history.candles"),
        ('market.get_trades("KRW-BTC", count=1)', "history.trades"),
        ("market.health()", "monitoring.health_monitor"),
        ('market.subscribe("KRW-BTC").get(timeout=10)', "sessions.session"),
        ('market.live_orderbook("KRW-BTC")', "live.orderbook"),
    ],
)
def test_what_was_left_out_comes_with_its_first_use(upbit, use: str, needed: str) -> None:
    assert needed in modules_after(making(upbit) + f"{use}\nmarket.close()")


def test_what_the_first_subscription_waits_for_is_cheaply_made(upbit) -> None:
    """A dataclass takes a millisecond to be made: 38 of them were most of what the first subscribe() took."""
    count = """
import dataclasses
made, make = [], dataclasses.dataclass
dataclasses.dataclass = lambda *args, **options: made.append(options) or make(*args, **options)
import upbit_backbone.sessions.session, upbit_backbone.wire.websocket_transport
print(len(made), "upbit_backbone.sessions.messages" in __import__("sys").modules)
"""
    number, has_loaded = printed_by(making(upbit) + count + "market.close()").split()
    assert has_loaded == "True"
    assert int(number) <= 2


def test_all_that_is_said_to_come_later_exists() -> None:
    package = ROOT / "upbit_backbone"
    paths = [package / name.replace(".", "/") for name in LATER]
    assert [path for path in paths if not (path.is_dir() or path.with_suffix(".py").exists())] == []


def test_type_checkers_are_told_of_the_very_names_that_are_there() -> None:
    tree = ast.parse((ROOT / "upbit_backbone" / "__init__.py").read_text(encoding="utf-8"))
    block = next(each for each in tree.body if isinstance(each, ast.If))
    told = {statement.module: tuple(sorted(name.name for name in statement.names))
            for statement in block.body if isinstance(statement, ast.ImportFrom)}  # fmt: skip
    table = {module: tuple(sorted(names)) for module, names in upbit_backbone._NAMES_OF.items()}
    assert told == table
    named = {name for names in table.values() for name in names} | {"__version__"}
    assert named == set(upbit_backbone.__all__)


def test_every_public_name_can_be_imported_listed_and_starred() -> None:
    script = """
import upbit_backbone
missing = set(upbit_backbone.__all__) - set(dir(upbit_backbone))
from upbit_backbone import *
absent = [name for name in upbit_backbone.__all__ if globals().get(name) is not getattr(upbit_backbone, name)]
print(missing, absent)
"""
    assert printed_by(script) == "set() []\n"


def test_a_module_directly_in_the_package_is_an_attribute_without_an_import_of_its_own() -> None:
    assert "errors" in modules_after("import upbit_backbone as ub; ub.errors.NetworkError; ub.models")


def test_an_unknown_name_is_refused_as_python_refuses_it() -> None:
    with pytest.raises(AttributeError, match="module 'upbit_backbone' has no attribute 'get_tickr'"):
        upbit_backbone.get_tickr  # noqa: B018
    with pytest.raises(AttributeError, match=r"did you mean get_ticker, get_tickers"):
        upbit_backbone.get_tickr  # noqa: B018
    with pytest.raises(AttributeError, match=r"pyupbit's: import upbit_backbone\.compat\.pyupbit as pyupbit"):
        upbit_backbone.get_current_price  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute '_private'$"):
        upbit_backbone._private  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'MarketDataBakbone' from 'upbit_backbone'"):
        from upbit_backbone import MarketDataBakbone  # noqa: F401


def test_a_missing_dependency_is_named_by_its_own_import_error() -> None:
    script = """
import sys
sys.modules["cachetools"] = None
import upbit_backbone
try:
    upbit_backbone.IntelligentCache
except ModuleNotFoundError as error:
    print(error.name, hasattr(upbit_backbone, "DataType"))
"""
    assert printed_by(script) == "cachetools True\n"


def test_threads_that_use_the_package_first_at_the_same_time_get_the_same_things() -> None:
    script = """
import threading
import upbit_backbone
start, seen = threading.Barrier(16), []
def use(number):
    start.wait()
    for name in upbit_backbone.__all__[number:] + upbit_backbone.__all__[:number]:
        seen.append((name, id(getattr(upbit_backbone, name))))
threads = [threading.Thread(target=use, args=(number * 4,)) for number in range(16)]
[thread.start() for thread in threads]
[thread.join(60) for thread in threads]
print(len(seen) == 16 * len(upbit_backbone.__all__), len(set(seen)) == len(upbit_backbone.__all__))
"""
    assert printed_by(script) == "True True\n"


def test_threads_that_ask_for_the_past_first_at_the_same_time_share_one(upbit) -> None:
    start, pasts = threading.Barrier(16), []
    with upbit_backbone.MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market:

        def ask() -> None:
            start.wait(10)
            pasts.append(market._parts.history)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(pasts) == 16
    assert len({id(past) for past in pasts}) == 1


def test_after_closing_the_first_report_can_still_be_read_and_the_past_is_not_opened_any_more(upbit) -> None:
    market = upbit_backbone.MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url)
    market.close()
    assert "closed" in str(market.health())
    with pytest.raises(upbit_backbone.ClosedError):
        market._parts.history  # noqa: B018 - who got past the door just before it closed
