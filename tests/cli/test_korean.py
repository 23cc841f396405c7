"""The whole command line in Korean: of English there are names, codes and what was typed, and nothing else."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.cli.every_output import ASKED, MORE
from tests.support.english import english_words
from upbit_backbone.cli.helping import EXAMPLES
from upbit_backbone.routing.policy import TABLE

HANGUL = re.compile("[가-힣]")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NAMES_OF_MARKETS = {"Bitcoin", "Ethereum", "XRP", "Ripple"}
# Rules of the routing table, types in `--help`, the month in which OpenSSL was made.
RULES = {word for rule in TABLE for word in rule.name.split("-")}
MONTHS = {f"{datetime(2026, month, 1):%b}" for month in range(1, 13)}
CODES = {*EXAMPLES, *RULES, *MONTHS, "str", "float", "int", "range", "path", "file"}


def english_in(text: str, arguments: list[str]) -> list[str]:
    return [word for word in english_words(text, arguments) if word not in NAMES_OF_MARKETS | CODES]


@pytest.mark.parametrize(
    "arguments",
    [
        ("watch", "KRW-BTC", "KRW-ETH", "--count", "6"),
        ("watch", "KRW-BTC", "--type", "orderbook", "--count", "3"),
        ("watch", "KRW-BTC", "KRW-ETH", "--type", "trade", "--count", "6"),
        ("watch", "KRW-BTC", "--type", "1m", "--count", "2"),
        ("candles", "KRW-BTC", "1m", "--count", "3"),
        ("markets",),
        ("doctor",),
    ],
)
def test_a_live_table_has_no_english_in_its_korean(
    environment: dict[str, str], terminal: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    environment["UPBIT_BACKBONE_LANGUAGE"] = "ko"
    screen = terminal(*arguments)
    assert screen.finish() == 0, screen.seen
    text = ESCAPES.sub(" ", screen.seen)
    assert HANGUL.search(text)
    assert english_in(text, list(arguments)) == [], text


@pytest.mark.slow
def test_no_command_mixes_english_into_its_korean(environment: dict[str, str], tmp_path: Path) -> None:
    script = Path(__file__).with_name("every_output.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "utf-8"],
        env=environment | {"UPBIT_BACKBONE_LANGUAGE": "ko"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    mixed = {}
    for arguments in ASKED + MORE:
        name = f"utf-8 {' '.join(arguments)}".replace("/", "∕")
        text = (tmp_path / name).read_text("utf-8")
        if "--json" in arguments or "--version" in arguments:
            continue
        assert HANGUL.search(text) or arguments[0] == "watch", arguments
        if words := english_in(text, arguments):
            mixed[" ".join(arguments)] = words
    assert mixed == {}


def test_the_help_of_the_simulator_is_korean_and_fits_the_screen() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "upbit_backbone", "simulator", "--help"],
        env={**os.environ, "UPBIT_BACKBONE_LANGUAGE": "ko", "PYTHONIOENCODING": "utf-8"},
        capture_output=True, text=True, encoding="utf-8", timeout=60, check=True,
    )  # fmt: skip
    told, _, switches = done.stdout.partition("--set으로")
    assert "옵션" in told
    assert switches
    assert [word for word in english_words(told) if word not in {"upbit", "backbone"}] == []
    assert max(map(cell_len, done.stdout.splitlines())) <= 80


BY_ONE_NAME, BY_ANOTHER = ("upbit_backbone", "simulator"), ("upbit_backbone.simulator",)


@pytest.mark.parametrize(
    ("module", "wrong"),
    [
        (BY_ONE_NAME, ("--rest-port", "x")),
        (BY_ANOTHER, ("--rest-port", "x")),
        (BY_ONE_NAME, ("--nonsense",)),
        (BY_ANOTHER, ("--set",)),
        (BY_ANOTHER, ("--tls=1",)),
        (BY_ANOTHER, ("--re", "1", "--co", "--s")),
        (BY_ANOTHER, ("--set", "foo=1")),
        (BY_ANOTHER, ("--markets", "0")),
        (BY_ANOTHER, ("--markets", "krw-btc")),
        (BY_ANOTHER, ("--start-time", "yesterday")),
    ],
)
def test_what_is_wrong_with_the_simulators_options_is_said_in_korean(
    module: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *module, *wrong],
        env={**os.environ, "UPBIT_BACKBONE_LANGUAGE": "ko", "PYTHONIOENCODING": "utf-8"},
        capture_output=True, text=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    told = done.stderr.splitlines()[-1].partition("backbone-simulator: ")[2]
    named, _, _ = told.partition("이름은 다음과 같습니다")
    assert told.startswith("오류: ")
    assert english_in(named, list(wrong)) == [], told


def test_a_port_that_is_taken_is_told_in_korean() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "upbit_backbone.simulator", "--rest-port", str(taken.getsockname()[1])],
            env={**os.environ, "UPBIT_BACKBONE_LANGUAGE": "ko", "PYTHONIOENCODING": "utf-8"},
            capture_output=True, text=True, encoding="utf-8", timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert english_words(done.stderr.splitlines()[-1].partition("backbone-simulator: ")[2]) == []
