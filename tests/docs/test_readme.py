"""What the READMEs say is true: their code runs, their commands, files, names and settings exist."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import upbit_backbone
from upbit_backbone import BackboneConfig
from upbit_backbone.simulator import FakeUpbit

ROOT = Path(__file__).resolve().parents[2]
ENGLISH, KOREAN = ROOT / "README.md", ROOT / "README_KR.md"
READMES = [path for path in (ENGLISH, KOREAN) if path.exists()]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)[^)]*\)")

# Around a block: what it may take for granted, and an end for what would go on for ever.
BEFORE = """
import builtins, sys, threading, time

class Enough(BaseException):
    "The block has shown what it can do."

shown = threading.Semaphore(0)
said, limit = builtins.print, 8

def show(*words, **options):
    global limit
    said(*words, **options)
    shown.release()
    if threading.current_thread() is threading.main_thread():
        limit -= 1
        if limit <= 0:
            raise Enough

builtins.print = show
"""
RUN = """
try:
    exec(compile(sys.stdin.read(), "README", "exec"))
except Enough:
    pass
"""
GIVEN_WINDOW = """
from qtpy import QtWidgets
application = QtWidgets.QApplication([])

class Window(QtWidgets.QWidget):
    def show_ticker(self, ticker):
        self.ticker = ticker

    def show_candles(self, candles):
        self.candles = candles

window = Window()
window.ticker = window.candles = None
"""
AFTER_WINDOW = """
end = time.monotonic() + 20
while (window.ticker is None or window.candles is None or table.rowCount() < 3) and time.monotonic() < end:
    application.processEvents()
    time.sleep(0.01)
assert window.ticker.symbol in ("KRW-BTC", "KRW-ETH", "KRW-XRP") and len(window.candles) == 500
assert table.rowCount() == 3
market.close()
"""


class Block(NamedTuple):
    readme: str
    number: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.readme}-{self.number}"


def blocks(path: Path, language: str) -> list[Block]:
    found = [Block(path.stem, number, *match) for number, match in enumerate(FENCE.findall(path.read_text("utf-8")), 1)]
    return [block for block in found if block.language == language]


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text("utf-8"))


def inline_code(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(path))


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=7, trades_per_second=200, markets=["KRW-BTC", "KRW-ETH", "KRW-XRP"], rest_limit=100) as upbit:
        yield upbit


PYTHON = blocks(ENGLISH, "python")  # the Korean ones are the same but for comments: a test below sees to that
SHELL = [block for path in READMES for block in blocks(path, "sh")]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
def test_its_code_runs(block: Block, upbit: FakeUpbit) -> None:
    before, after = BEFORE, ""
    if "window" in block.text:
        pytest.importorskip("qtpy")
        before, after = BEFORE + GIVEN_WINDOW, AFTER_WINDOW
    if "callback=print" in block.text:
        text = block.text.replace("market.unsubscribe", "assert shown.acquire(timeout=10)\nmarket.unsubscribe", 1)
    else:
        text = block.text
    done = subprocess.run(
        [sys.executable, "-c", before + RUN + after],
        input=text, env=os.environ
        | upbit.environment()
        | {"PYTHONPATH": str(ROOT), "QT_QPA_PLATFORM": "offscreen", "UPBIT_BACKBONE_TIMEOUT_SECONDS": "60"},
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    if "print" in block.text:
        assert done.stdout.strip()


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.name)
def test_its_commands_name_tox_environments_that_exist(block: Block) -> None:
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    named = re.findall(r"tox run -e (\w+)", block.text)
    for command in (line for line in block.text.splitlines() if line and not line.startswith("#")):
        assert command.startswith("python -m pip install tox && python -m tox run -e "), command
    assert named
    for environment in named:
        assert f"testenv:{environment}" in tox


def test_the_demo_command_runs_and_ends_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    given = re.search(r"-e demo -- (.*)", ENGLISH.read_text("utf-8"))
    options = given.group(1).split() if given else []
    options[options.index("--seconds") + 1] = "2"
    done = subprocess.run(
        [sys.executable, "-m", "upbit_backbone.cli", "demo", *options],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "KRW-BTC" in done.stdout


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    ours = next(line for block in SHELL for line in block.text.splitlines() if line.endswith("tox run -e test"))
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    for part in ours.split(" && "):
        pattern = re.escape(part.removeprefix("python ")).replace("install\\ tox", "install (--quiet )?tox")
        assert re.search(rf"python {pattern}( \|\| \{{)?$", script, re.MULTILINE), part


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(path: Path) -> None:
    targets = [target for target in LINK.findall(path.read_text("utf-8")) if "://" not in target]
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert [target for target in missing if target != KOREAN.name] == []


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.stem)
def test_the_settings_it_names_are_settings(path: Path) -> None:
    text = path.read_text("utf-8")
    settings = {each.name for each in dataclasses.fields(BackboneConfig)}
    variables = {name.lower() for name in re.findall(r"\bUPBIT_BACKBONE_([A-Z_]+[A-Z])\b", text)}
    assert variables
    assert variables - settings == {"payloads"} & variables
    arguments = {name for code in inline_code(path) for name in re.findall(r"MarketDataBackbone\((\w+)=", code)}
    assert arguments <= settings


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.stem)
def test_the_extras_and_commands_it_names_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    extras = set(importlib.metadata.metadata("upbit-backbone").get_all("Provides-Extra") or [])
    assert set(re.findall(r"upbit-backbone\[(\w+)\]", text)) <= extras
    assert {code.strip("[]") for code in inline_code(path) if re.fullmatch(r"\[\w+\]", code)} <= extras


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.stem)
def test_the_classes_it_names_exist(path: Path) -> None:
    """Words in CamelCase inside code quotes are names of ours, public, unless somebody else's are listed here."""
    others = {"Decimal", "Future", "Ctrl", "QTimer", "DataFrame"}
    words = {word for code in inline_code(path) for word in re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", code)}
    simulator = {"FakeUpbit", "MarketBridge", "QtBridge"}
    missing = {word for word in words - others - simulator if not hasattr(upbit_backbone, word)}
    assert missing == set()


@pytest.mark.skipif(not KOREAN.exists(), reason="the Korean README is still to come")
def test_the_korean_readme_says_the_same() -> None:
    def shape(path: Path) -> list[str]:
        """Headings, blocks, list items and table rows in their order: the same skeleton in both languages."""
        text = FENCE.sub(lambda match: f"block {match.group(1)}", path.read_text("utf-8"))
        marks = re.findall(r"^(#+ |\| |\* |block \w*)", text, re.MULTILINE)
        return [mark.strip() for mark in marks]

    assert shape(KOREAN) == shape(ENGLISH)
    ours, theirs = blocks(ENGLISH, "python"), blocks(KOREAN, "python")
    for english, korean in zip(ours, theirs, strict=True):
        assert ast.dump(ast.parse(english.text)) == ast.dump(ast.parse(korean.text))
    for english, korean in zip(blocks(ENGLISH, "sh"), blocks(KOREAN, "sh"), strict=True):
        commands = [
            [line for line in block.text.splitlines() if not line.startswith("#")] for block in (english, korean)
        ]
        assert commands[0] == commands[1]
    elsewhere = {KOREAN.name, ENGLISH.name}
    links = [[to for to in LINK.findall(path.read_text("utf-8")) if to not in elsewhere] for path in (ENGLISH, KOREAN)]
    assert sorted(to.replace("docs/ko/", "docs/en/") for to in links[1]) == sorted(links[0])
