"""Answers that processes of one machine leave each other in files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from upbit_backbone._concurrency import SYSTEM_CLOCK
from upbit_backbone.upstream.answer_files import HEAD, MAX_ANSWER_BYTES, AnswerFiles, FiledAnswer

QUESTION = "0" * 32
OTHER = "0" * 31 + "1"  # begins alike, and shares the file
WHOSE = "a" * 32


def answer(body: bytes = b"[1]", ago: float = 0.0) -> FiledAnswer:
    return FiledAnswer(body, time.monotonic() - ago, WHOSE)


@pytest.fixture
def files(tmp_path: Path) -> AnswerFiles:
    return AnswerFiles("127.0.0.1:1", SYSTEM_CLOCK, tmp_path)


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("*/*.answer*")
    return path


def test_the_last_answer_to_a_question_is_there_for_others(files: AnswerFiles, tmp_path: Path) -> None:
    assert files.read(QUESTION) is None
    first, second = answer(b"[1]", 1.0), answer(b"[2]", 0.5)
    files.write(QUESTION, first)
    assert AnswerFiles("127.0.0.1:1", SYSTEM_CLOCK, tmp_path).read(QUESTION) == first
    files.write(QUESTION, second)
    assert files.read(QUESTION) == second
    assert AnswerFiles("127.0.0.1:2", SYSTEM_CLOCK, tmp_path).read(QUESTION) is None
    if os.name == "posix":
        assert the_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_another_question_takes_the_place_and_is_not_taken_for_this_one(files: AnswerFiles, tmp_path: Path) -> None:
    files.write(QUESTION, answer())
    files.write(OTHER, answer(b"[2]"))
    assert files.read(QUESTION) is None
    assert files.read(OTHER) is not None
    the_file(tmp_path)  # one


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: HEAD.size - 1])


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" " * MAX_ANSWER_BYTES)


def _foreign(path: Path) -> None:
    path.write_bytes(b"somebody" + path.read_bytes()[8:])


def _of_yesterday(path: Path) -> None:
    """By the monotonic clock it is young: the machine started anew in between."""
    os.utime(path, (time.time() - 86_400.0,) * 2)


@pytest.mark.parametrize("change", [_cut, _grow, _foreign, _of_yesterday, Path.unlink])
def test_what_is_none_of_ours_or_of_another_start_is_no_answer(
    files: AnswerFiles, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    files.write(QUESTION, answer())
    change(the_file(tmp_path))
    assert files.read(QUESTION) is None
    files.write(QUESTION, answer())
    assert files.read(QUESTION) is not None


def test_what_left_in_the_future_is_no_answer(files: AnswerFiles) -> None:
    files.write(QUESTION, answer(ago=-60.0))
    assert files.read(QUESTION) is None


def test_what_is_too_large_is_not_left(files: AnswerFiles, tmp_path: Path) -> None:
    files.write(QUESTION, answer(b"x" * (MAX_ANSWER_BYTES + 1)))
    assert list(tmp_path.glob("*/*")) == []


def test_without_a_folder_nothing_is_shared_and_nobody_fails(tmp_path: Path) -> None:
    files = AnswerFiles("127.0.0.1:1", SYSTEM_CLOCK, tmp_path / "none")
    files.write(QUESTION, answer())
    assert files.read(QUESTION) is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="elsewhere the temporary folder is the user's own")
def test_a_folder_that_others_can_write_to_is_not_trusted(files: AnswerFiles, tmp_path: Path) -> None:
    files.write(QUESTION, answer())
    the_file(tmp_path).parent.chmod(0o777)
    assert files.read(QUESTION) is None
    files.write(OTHER, answer())
    the_file(tmp_path).parent.chmod(0o700)
    assert files.read(OTHER) is None
