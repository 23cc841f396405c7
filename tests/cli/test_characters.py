"""Outputs that are not UTF-8: a redirected console on Korean or Western Windows, LC_ALL=C. Nothing dies."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from upbit_backbone.cli.characters import HANDLER, SPELLINGS, json_line

COMMAND = [sys.executable, "-m", "upbit_backbone"]


@pytest.mark.parametrize("encoding", ["cp949", "ascii"])
def test_a_report_redirected_into_a_file_is_whole(encoding: str, environment: dict[str, str], tmp_path: Path) -> None:
    environment |= {"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    report = tmp_path / "report.txt"
    with report.open("wb") as file:
        done = subprocess.run([*COMMAND, "doctor"], env=environment, stdout=file, stderr=subprocess.PIPE, timeout=60)
    text = report.read_bytes().decode(encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert text.startswith("+ system")
    assert text.rstrip().endswith("Everything is well.")


@pytest.mark.slow
def test_no_command_dies_of_a_character_in_any_encoding(environment: dict[str, str], tmp_path: Path) -> None:
    script = Path(__file__).with_name("every_output.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    listed = {encoding: (tmp_path / f"{encoding} markets --json").read_bytes() for encoding in ("cp949", "ascii")}
    names = [[each["korean_name"] for each in json.loads(text.decode(name))] for name, text in listed.items()]
    assert names[0] == names[1]
    assert "비트코인" in listed["cp949"].decode("cp949")
    assert "비트코인" in (tmp_path / "cp949 markets").read_bytes().decode("cp949")
    assert "\\ube44" in (tmp_path / "ascii markets").read_text("ascii")


def test_what_an_encoding_lacks_is_spelt_and_the_rest_written_as_its_code() -> None:
    assert "✔ 12 → 13 …".encode("ascii", HANDLER) == b"+ 12 -> 13 ..."
    assert "비트코인 ✔".encode("cp949", HANDLER).decode("cp949") == "비트코인 +"
    assert "비 💥 \udc80".encode("ascii", HANDLER) == b"\\ube44 \\U0001f4a5 \\udc80"
    assert all(spelling.isascii() for spelling in SPELLINGS.values())  # or the handler itself would fail


def test_json_keeps_hangul_and_nothing_a_terminal_obeys() -> None:
    value = {"name": "비트코인", "bad": "\x1b[31m\x9b\u2028\u202e\ud800\x7f"}
    korean, plain = (io.TextIOWrapper(io.BytesIO(), encoding=name) for name in ("cp949", "ascii"))
    assert "비트코인" in json_line(value, korean)
    for output in (korean, plain, io.StringIO()):
        line = json_line(value, output)
        assert json.loads(line) == value
        assert line.isprintable()
    assert json_line(value, plain).isascii()
