"""Programs written for the layout of 0.1.0 go on."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from upbit_backbone._moved import MOVED

MODULES = sorted((old, new) for old, new in MOVED.items() if new)


@pytest.mark.parametrize(("old", "new"), MODULES)
def test_an_old_path_leads_to_the_new_module_and_says_so(old: str, new: str) -> None:
    sys.modules.pop(f"upbit_backbone.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"upbit_backbone.{new}"):
        found = importlib.import_module(f"upbit_backbone.{old}")
    moved = importlib.import_module(f"upbit_backbone.{new}")
    public = [name for name in vars(moved) if not name.startswith("__")]
    assert public
    assert [name for name in public if getattr(found, name) is not getattr(moved, name)] == []


def test_a_path_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"upbit_backbone\.candles\.never"):
        importlib.import_module("upbit_backbone.candles.never")


def test_a_program_sees_one_class_under_both_paths_and_nothing_on_stderr_by_default() -> None:
    script = (
        "import helper\n"
        "from upbit_backbone.exchange.timeframes import Timeframe\n"
        "print(helper.Timeframe is Timeframe)\n"
    )
    helper = "import sys, types; helper = types.ModuleType('helper'); sys.modules['helper'] = helper\n"
    helper += "exec('from upbit_backbone.models.timeframe import *', vars(helper))\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", helper + script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("True\n", "")
