"""The guarded logger: whatever a handler of the user's raises, the place that logs goes on."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import upbit_backbone
from upbit_backbone._concurrency import Deadline, get_logger, join_all, spawn
from upbit_backbone._log import LogThrottle

WAIT_SECONDS = 30.0
NAME = "upbit_backbone.test_log"


class Raising(logging.Handler):
    """A user's handler that breaks."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
        self.asked = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.asked += 1
        raise self.error


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers.clear()
    logger.filters.clear()
    logger.propagate = True


def test_an_error_of_a_handler_stays_there_and_is_told_on_stderr(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(handler := Raising(ValueError("no disk")))
    log = get_logger(NAME)
    for write in (log.debug, log.info, log.warning, log.error, log.exception, log.critical):
        write("a line of %s", "ours")
    assert handler.asked == log.lost == 6
    errors = capsys.readouterr().err
    assert errors.count("ValueError: no disk") == 1  # the first of them; the others are counted
    assert NAME in errors
    assert "a line of %s" in errors


def test_an_error_of_a_filter_stays_there_too(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise KeyError(record.name)

    logger.addFilter(broken)
    get_logger(NAME).warning("a line")
    assert "KeyError" in capsys.readouterr().err


def test_nothing_is_printed_where_logging_is_told_not_to(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.addHandler(Raising(ValueError("no disk")))
    get_logger(NAME).warning("a line")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_a_program_reaches_the_program_but_no_thread_of_ours(
    logger: logging.Logger, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(Raising(error))
    log = get_logger(NAME)
    with pytest.raises(type(error)):
        log.warning("on the main thread")
    went_on = []
    thread = spawn(lambda: (log.warning("on ours"), went_on.append(True)), "test-log")
    assert join_all([thread], Deadline.after(WAIT_SECONDS)) == []
    assert went_on == [True]
    assert type(error).__name__ in capsys.readouterr().err


def test_a_record_names_the_line_that_logs(logger: logging.Logger) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    log = get_logger(NAME)
    log.warning("a line")
    log.log(logging.INFO, "another")
    assert {(record.filename, record.funcName) for record in records} == {
        ("test_log.py", "test_a_record_names_the_line_that_logs")
    }


def test_no_module_of_ours_logs_past_the_guard() -> None:
    """By the source: a `logging.getLogger` of its own would let a user's handler raise into the module's thread."""
    package = Path(upbit_backbone.__file__).parent
    unguarded = {}
    for path in package.rglob("*.py"):
        if path.name in ("_log.py", "_concurrency.py") or "simulator" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "getLogger":
                unguarded[path.name] = node.lineno
    assert unguarded == {}


def test_a_throttle_says_yes_to_the_first_to_tenfold_counts_and_after_a_while() -> None:
    throttle = LogThrottle(interval=10.0)
    due = [count for count in range(1, 2001) if throttle.is_due(count, now=0.0)]
    assert due == [1, 10, 100, 1000]
    assert not throttle.is_due(2001, now=9.9)
    assert throttle.is_due(2002, now=10.0)
