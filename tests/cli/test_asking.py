from __future__ import annotations

import json
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

COMMANDS = [
    (("ticker", "KRW-BTC"), "KRW-BTC"),
    (("ticker", "KRW-BTC", "KRW-ETH"), "KRW-ETH"),
    (("book", "KRW-BTC", "--levels", "3"), "spread"),
    (("trades", "KRW-BTC", "--count", "3"), "side"),
    (("markets", "--quote", "KRW"), "3 markets"),
    (("explain", "ticker", "KRW-BTC"), "rule: "),
    (("candles", "KRW-BTC", "1m", "--count", "30"), "30 candles from"),
]


@pytest.mark.parametrize(("arguments", "words"), COMMANDS)
def test_in_a_terminal_an_answer_comes_and_nothing_else_happens(terminal, arguments, words):
    screen = terminal(*arguments)
    assert screen.finish() == 0, screen.seen
    assert words in screen.seen
    assert "Traceback" not in screen.seen


@pytest.mark.parametrize("arguments", [arguments for arguments, _ in COMMANDS])
def test_for_scripts_everything_is_json(piped, arguments):
    done = piped(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert done.stdout.rstrip("\n").isprintable()
    assert done.stderr == ""


def test_into_a_pipe_go_tab_separated_lines(piped):
    lines = piped("ticker", "KRW-BTC", "KRW-ETH").stdout.splitlines()
    assert lines[0].split("\t")[:2] == ["symbol", "price"]
    assert [line.split("\t")[0] for line in lines[1:]] == ["KRW-BTC", "KRW-ETH"]


def test_prices_are_exact(piped):
    (ticker,) = json.loads(piped("ticker", "KRW-BTC", "--json").stdout)
    assert Decimal(ticker["current_price"]) > 0
    assert isinstance(ticker["current_price"], str)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ticker", "krw-btc"), 2, "did you mean 'KRW-BTC'?"),
        (("ticker", "KRW-NOPE"), 2, "KRW-NOPE"),
        (("candles", "KRW-BTC", "7m"), 2, "1m"),
        (("candles", "KRW-BTC", "1m", "--start", "yesterday"), 2, "expected a time such as"),
        (("book", "KRW-BTC", "--levels", "99"), 2, "levels"),
        (("no-such-command",), 2, "no-such-command"),
        (("--rest-url", "http://example.com", "ticker", "KRW-BTC"), 2, "https://"),
        (("--rest-url", "http://127.0.0.1:9", "--timeout", "2", "trades", "KRW-BTC"), 4, "error"),
        (("replay", "/no/such/file"), 6, "/no/such/file"),
        (("candles", "KRW-BTC", "1m", "--csv", "/no/such/a.csv"), 6, "/no/such: there is no such folder"),
        (("record", "/no/such/a.rec", "KRW-BTC"), 6, "/no/such/a.rec: cannot record there"),
    ],
)
def test_mistakes_end_with_one_line_and_their_exit_code(piped, arguments, code, words):
    done = piped(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_help_documents_the_exit_codes_and_every_command(piped):
    done = piped("--help")
    assert done.returncode == 0
    text = re.sub(r"[│\s]+", " ", done.stdout)
    for word in ("ticker", "watch", "book", "candles", "trades", "markets", "explain", "doctor", "record", "replay",
                 "simulator", "demo", "serve-metrics", "--install-completion", "Exit codes", "130 Ctrl-C"):  # fmt: skip
        assert word in text
    assert "upbit-backbone" in piped("--version").stdout


@pytest.mark.parametrize("text", ["KRW-BTC\x1b[2J", "\x1b]0;title\x07", "KRW-BTC\nKRW", "A" * 5000, "../../etc", "💥"])
def test_whatever_is_typed_the_terminal_is_not_harmed(piped, text):
    for arguments in (("ticker", text), ("candles", "KRW-BTC", text), ("explain", "ticker", text)):
        done = piped(*arguments)
        assert done.returncode == 2
        assert "\x1b" not in done.stderr
        assert "\x07" not in done.stderr


@pytest.mark.endurance
def test_thousands_of_odd_words_do_no_harm(environment):
    fuzzer = str(Path(__file__).with_name("odd_words.py"))
    done = subprocess.run([sys.executable, fuzzer], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_reader_that_goes_away_is_no_error(environment):

    command = [sys.executable, "-m", "upbit_backbone.cli", "watch", "KRW-BTC", "--type", "trade"]
    producer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert producer.stdout.readline()
    producer.stdout.close()
    assert producer.wait(20.0) == 0
    assert b"Traceback" not in producer.stderr.read()
    producer.stderr.close()
