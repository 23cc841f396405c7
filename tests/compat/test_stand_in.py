"""In pyupbit's place: programs that cannot be edited, their child processes, and a pyupbit that is installed beside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from upbit_backbone.compat.pyupbit import stand_in
from upbit_backbone.simulator import FakeUpbit

SOURCES = str(Path(stand_in.__file__).parents[3])


def run(upbit: FakeUpbit, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, **upbit.environment(), "PYTHONPATH": SOURCES, **variables}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=90, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PROGRAM = """
import sys, helper, pyupbit, pyupbit.errors
from pyupbit.websocket_api import WebSocketManager as Manager

print(helper.NAME, sys.argv[1:], pyupbit.__version__, Manager is pyupbit.WebSocketManager)
print(pyupbit.get_current_price("KRW-BTC") > 0)
"""
SAID = "beside the script ['one', 'two'] 0.2.33 True\nTrue\n"
PARENT = """
import multiprocessing

def child(answers):
    import pyupbit
    answers.put(pyupbit.get_current_price("KRW-BTC") > 0)

if __name__ == "__main__":
    started = multiprocessing.get_context("spawn")
    answers = started.Queue()
    process = started.Process(target=child, args=(answers,))
    process.start()
    print("child", answers.get(timeout=60))
    process.join()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("NAME = 'beside the script'\n")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.slow
def test_a_program_runs_as_it_is(upbit: FakeUpbit, script: Path) -> None:
    assert run(upbit, "-m", "upbit_backbone.compat.pyupbit", str(script), "one", "two") == SAID


@pytest.mark.slow
def test_so_do_its_child_processes(upbit: FakeUpbit, tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    assert run(upbit, "-m", "upbit_backbone.compat.pyupbit", str(tmp_path / "parent.py")) == "child True\n"


@pytest.mark.slow
def test_an_environment_variable_does_the_same_for_every_program(upbit: FakeUpbit, script: Path) -> None:
    assert run(upbit, "-m", "upbit_backbone.compat.pyupbit", "--path").strip() == stand_in.PLACE
    assert run(upbit, str(script), "one", "two", PYTHONPATH=os.pathsep.join([stand_in.PLACE, SOURCES])) == SAID


@pytest.mark.slow
def test_a_module_runs_likewise(upbit: FakeUpbit, script: Path) -> None:
    beside = os.pathsep.join([SOURCES, str(script.parent)])
    assert run(upbit, "-m", "upbit_backbone.compat.pyupbit", "-m", "program", "one", "two", PYTHONPATH=beside) == SAID


def test_importing_it_loads_neither_pandas_nor_the_network(upbit: FakeUpbit) -> None:
    heavy = "{'pandas', 'numpy', 'requests', 'websocket', 'msgspec'}"
    said = run(upbit, "-c", f"import sys, upbit_backbone.compat.pyupbit; print({heavy} & set(sys.modules))")
    assert said == "set()\n"


@pytest.fixture
def installed(tmp_path: Path, in_place: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A pyupbit in the place of an installed one, whose modules import each other as those do."""
    package = tmp_path / "pyupbit"
    package.mkdir()
    (package / "__init__.py").write_text("from .exchange_api import *\nfrom . import errors\nORIGINAL = True\n")
    (package / "exchange_api.py").write_text(
        "from pyupbit.errors import UpbitError\nclass Upbit:\n    def __init__(self, access, secret):\n"
        "        self.secret = secret\n    def fail(self):\n"
        "        raise UpbitError(name='x', code=500, msg='trading')\n"
    )
    names = (name for name in in_place.errors._NAMES if name != "UpbitError")
    own = "".join(f"class {name}(UpbitError): pass\n" for name in sorted(names))
    (package / "errors.py").write_text(
        "class UpbitErrorMixin(Exception):\n    def __init__(self, **about):\n        self.__dict__ = about\n"
        "    def __str__(self):\n        return self.msg\n"
        f"class UpbitError(UpbitErrorMixin): pass\n{own}"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(stand_in, "_pyupbit", None)
    forget(in_place)
    yield in_place
    forget(in_place)


def forget(pyupbit: ModuleType) -> None:
    """Whose classes the errors are is found out once; here it is to be found out again."""
    pyupbit.errors._classes.cache_clear()
    pyupbit.errors._raised.cache_clear()
    for name in ("Upbit", *pyupbit.errors._NAMES):
        vars(pyupbit).pop(name, None)
        vars(pyupbit.errors).pop(name, None)


def test_trading_is_passed_through_to_an_installed_pyupbit(installed: ModuleType) -> None:
    import pyupbit
    from pyupbit.exchange_api import Upbit

    assert pyupbit is installed
    assert pyupbit.Upbit is Upbit
    assert pyupbit.Upbit("access", "hush").secret == "hush"  # noqa: S105 - nobody's
    assert pyupbit.ORIGINAL
    assert sys.modules["pyupbit"] is installed


def test_what_trading_raises_and_what_prices_raise_are_caught_by_one_name(installed: ModuleType) -> None:
    import pyupbit
    from pyupbit.errors import UpbitError

    with pytest.raises(UpbitError, match="trading"):
        pyupbit.Upbit("access", "secret").fail()
    with pytest.raises(UpbitError, match="KRW-NOSUCH"):
        pyupbit.get_current_price("KRW-NOSUCH")


def test_without_pyupbit_its_trading_says_in_one_sentence_what_to_do(pyupbit: ModuleType) -> None:
    with pytest.raises(ImportError, match="pip install pyupbit"):
        pyupbit.Upbit("access", "secret")
    with pytest.raises(AttributeError, match="nosuch"):
        _ = pyupbit.nosuch
    assert not hasattr(pyupbit.exchange_api, "nosuch")


def test_a_star_import_brings_pyupbits_names_and_nothing_of_trading(in_place: ModuleType) -> None:
    names: dict[str, object] = {}
    exec("from pyupbit import *", names)  # noqa: S102 - which is what is tried
    wanted = {"get_ohlcv", "get_tick_size", "WebSocketManager", "pd", "time", "datetime", "TooManyRequests", "Dict"}
    assert wanted <= names.keys()
    assert not {"Upbit", "strict", "status", "backbone"} & names.keys()
