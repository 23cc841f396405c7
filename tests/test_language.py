"""Korean for whoever's locale is Korean: every text of ours has its twin, and English stays what it was."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import typer
from rich.cells import cell_len

import upbit_backbone
from tests.support.english import english_words
from upbit_backbone import BackboneConfig, MarketDataBackbone, errors
from upbit_backbone._korean import COMMAND_LINE, ERRORS, KOREAN, REPORTS
from upbit_backbone._language import in_korean, is_korean, spoken
from upbit_backbone.cli.app import app, run
from upbit_backbone.cli.helping import EXAMPLES, JOBS, wrapped
from upbit_backbone.models.enums import HealthStatus
from upbit_backbone.models.events import ConnectionState

PACKAGE = Path(upbit_backbone.__file__).parent
ELSEWHERE = {"simulator", "compat", "_pyinstaller", "qt"}  # edges with readers of their own
HANGUL = re.compile("[가-힣]")
WORDS = re.compile("[A-Za-z]{3}")


@pytest.fixture
def korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", "ko")


def template(node: ast.expr) -> str | None:
    """What is written there, with {} for what is filled in; None for what is put together elsewhere."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values)
    return None


def called(node: ast.Call) -> str:
    """What is called, by its own name: `errors.ClosedError(…)` calls ClosedError."""
    return getattr(node.func, "id", "") or getattr(node.func, "attr", "")


def texts_of_errors() -> Iterator[tuple[str, str]]:
    """Every text that an error of ours is made with, and where."""
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    kinds |= {"MailboxClosedError", "NothingArrivedError", "AbandonedError"}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args and called(node) in kinds:
                text = template(node.args[0])
                if text is not None and WORDS.search(text.replace("{}", "")):
                    yield text, f"{path.relative_to(PACKAGE)}:{node.lineno}"


def texts_of_the_command_line() -> Iterator[tuple[str, str]]:
    group: Any = typer.main.get_command(app)
    for command in (group, *group.commands.values()):
        for text in (command.help, *(getattr(each, "help", None) for each in command.params)):
            if text:
                yield cleandoc(text), f"--help of {command.name}"
    yield from ((job, "--help") for job in JOBS)
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and called(node) == "say_error":
                text = template(node.args[0])
                if text is not None and WORDS.search(text.replace("{}", "")) and not HANGUL.search(text):
                    yield text, f"{path.name}:{node.lineno}"


# What is no part of an error nor shown by a command: what Prometheus and alerts say, reports for whoever prints them.
OTHERS = {
    "monitoring/prometheus.py",
    "monitoring/alerts.py",
    "models/report.py",
    "models/metric.py",
    "models/readable.py",
}
OF_PROGRAMMERS = {"TypeError", "AttributeError", "NotImplementedError", "DeprecationWarning", "dispatch"}
PHRASE = re.compile("[A-Za-z]{2,} [A-Za-z]{2,}")
# Said to nobody: styles of rich, an example for a shell, keys, both languages at once, Upbit's own words.
NOT_SAID = re.compile(
    "^bold |^upbit-backbone |style=|^ by process |Code not found|^(utc text|raised flags|stream type|>?day (high|low)"
    "|>?(bid|ask) size)$|(the (library|caller|network|machine)'s)|^(alert rule|on demand|at work|of a source tree)$"
    "|^(waiting to be wanted|never loaded|none needed|not running|not set|not connected|banned for )$"
    "|패키지가 필요합니다|pip install|the old path goes|task_done|must be a non-negative|a logging handler raised"
    "|pages under way|a permit counts|is not needed here"
    "|a subscription's queue is filled|lines were withheld|the outage of|further lines are withheld"
    "|^Invalid parameter|^the replay is over$"  # said on the wire
    "|items wait, .* are lost so far|sink .* works again|^open file $"  # logs, and a key
    # SQL speaks in capitals.
    "|[A-Z]{2,} [A-Z]{2,}|SELECT |UPDATE |DELETE |INSERT |PRAGMA |FROM |WHERE |INTO | DESC|ORDER BY| = \\?|nullif"
    "|redis\\.call"  # scripts for Redis
)


def phrases(node: ast.AST) -> Iterator[tuple[str, int]]:
    """What is written there of at least two English words, but for docstrings, logs and what only programmers see."""
    if isinstance(node, ast.FunctionDef) and node.name.startswith(("__repr", "_repr")):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        if function in OF_PROGRAMMERS or function.startswith(("log.", "warnings.", "re.compile", "_log.")):
            return
    text = template(node) if isinstance(node, ast.expr) else None
    if text is not None and PHRASE.search(text):
        yield text, node.lineno  # type: ignore[attr-defined]
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):
            yield from phrases(child)


def test_no_error_lacks_its_korean() -> None:
    found = list(texts_of_errors())
    assert len(found) > 150
    assert {text: where for text, where in found if text not in ERRORS} == {}


def test_nothing_that_may_be_filled_into_a_text_lacks_its_korean(korean: None) -> None:
    """An error is put together of what lies all over the code: every phrase there stands in the catalogue."""
    missing, found = dict[str, str](), 0
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.split("/")[0] in ELSEWHERE | {"_korean.py"} or name in OTHERS:
            continue
        for text, line in phrases(ast.parse(path.read_text("utf-8"))):
            plain = re.sub(r"\{\w[^{}]*\}", "{}", text)
            pieces = [piece for piece in plain.split("{}") if PHRASE.search(piece)]
            found += 1
            is_known = any(all(piece in each for piece in pieces) for each in KOREAN)
            alone = spoken(plain.replace("{}", "1").removeprefix("; "))
            if not (NOT_SAID.search(text) or is_known or (HANGUL.search(alone) and not PHRASE.search(alone))):
                missing[text] = f"{name}:{line}"
    assert found > 400
    assert missing == {}


# For each setting out of its range, of a wrong kind or both: what a number, a truth or a text may not be.
REFUSED: dict[str, list[Any]] = {
    "int": [0, -1, 0.5, 10**30, "x"],
    "float": [0, -1, math.nan, math.inf, 10**9, "x"],
    "bool": [7, "x"],
    "str": ["x y", "http://a.example", "https://a.example/v1", "https://a:b@a.example", "ftp://a:1", "https://[", 7],
}
# What only the part understands that it is for; with a server that needs no certificates, which take long to load.
READ_LATER = {
    "proxy": {},
    "upstream": {},
    "share_limits_at": {},
    "upstream_prefix": {"upstream": "redis://127.0.0.1:1"},
    "egress": {"upstream": "redis://127.0.0.1:1"},
}


def refusals(name: str, kind: str) -> Iterator[str]:
    """What is said of a setting, as an argument and as a variable of the environment."""
    for value in REFUSED[kind]:
        variables = {f"UPBIT_BACKBONE_{name.upper()}": str(value)}
        for arguments, environment in (({name: value}, {}), ({}, variables)):
            try:
                BackboneConfig.from_environment(environment, **arguments)
                if name in READ_LATER:
                    settings = {"url": "http://127.0.0.1:1", **READ_LATER[name], name: str(value)}
                    MarketDataBackbone(**settings).close()
            except errors.UpbitBackboneError as refused:
                yield str(refused)


def test_no_refused_setting_is_answered_half_in_english(korean: None) -> None:
    """Put together at run time, a text may be translated but for what is filled in: so each is provoked and read."""
    mixed, never_refused, said = dict[str, str](), set[str](), set[str]()
    for each in dataclasses.fields(BackboneConfig):
        found = set(refusals(each.name, str(each.type).split()[0]))
        mixed |= {text: each.name for text in found if english_words(text, {"ftp"}) or not HANGUL.search(text)}
        said |= found
        if not found:
            never_refused.add(each.name)
    assert mixed == {}
    assert never_refused == set()
    tree = ast.parse((PACKAGE / "config.py").read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node) == "_bad":
            for text in filter(None, map(template, branches(node.args[2]))):
                own = re.escape(in_korean(text.replace("{}", "FILLED"))).replace("FILLED", ".*")
                assert any(re.search(own, one, re.DOTALL) for one in said), f"nothing provokes {text!r}"


def branches(node: ast.expr) -> list[ast.expr]:
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]


def test_no_text_of_the_command_line_lacks_its_korean(korean: None) -> None:
    found = list(texts_of_the_command_line())
    assert len(found) > 60
    missing = {text: where for text, where in found if not HANGUL.search(spoken(text.replace("{}", "1")))}
    assert {text for text in missing if not text.startswith("this needs")} == set()  # said in both at once


def test_what_is_filled_in_is_filled_in_there_as_well() -> None:
    for english, korean in KOREAN.items():
        named = sorted({int(name) for _, name, _, _ in Formatter().parse(korean) if name is not None})
        assert named == list(range(english.count("{}"))), english
        assert HANGUL.search(korean) or not WORDS.search(english.replace("{}", "")), english


def test_nothing_is_translated_that_nobody_says() -> None:
    said = {text for text, _ in texts_of_errors()}
    put_together = {"{}: cannot connect to {}:{} ({})"}
    assert {text for text in ERRORS if text not in said and WORDS.search(text)} <= put_together


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"LANG": "ko_KR.UTF-8"}, True),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR.EUC-KR"}, True),
        ({"LANG": "ko_KR.UTF-8", "UPBIT_BACKBONE_LANGUAGE": "en"}, False),
        ({"LANG": "C", "UPBIT_BACKBONE_LANGUAGE": "ko"}, True),
    ],
)
def test_the_locale_decides_and_a_variable_of_ours_before_it(
    settings: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UPBIT_BACKBONE_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert is_korean() == expected


def test_an_error_is_read_in_korean_and_stays_english_inside(korean: None) -> None:
    error = errors.NetworkError("/v1/ticker at x: cannot connect to x:9 (127.0.0.1: Connection refused)")
    assert str(error) == "/v1/ticker at x: x:9에 연결할 수 없습니다(127.0.0.1: 연결이 거부되었습니다)"
    assert error.args == ("/v1/ticker at x: cannot connect to x:9 (127.0.0.1: Connection refused)",)
    unknown = errors.UpbitBackboneError("something { that } nobody {0} translated")
    assert str(unknown) == "something { that } nobody {0} translated"


def test_a_long_text_of_somebody_else_takes_no_time(korean: None) -> None:
    assert spoken("a: b (c) " * 40)


def test_korean_is_not_loaded_for_who_does_not_read_it() -> None:
    program = (
        "import sys, upbit_backbone as ub\n"
        "str(ub.NetworkError('/v1/ticker: not finished by its deadline'))\n"
        "print('upbit_backbone._korean' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_every_command_stands_under_one_job_with_an_example() -> None:
    group: Any = typer.main.get_command(app)
    assert sorted(name for names in JOBS.values() for name in names) == sorted(group.commands)
    for name, command in group.commands.items():
        assert EXAMPLES[name].split()[1] == name
        assert command.epilog.startswith(EXAMPLES[name])


def test_lines_are_broken_by_columns_and_not_by_characters() -> None:
    assert wrapped("가나다 라마바 abc", 10) == ["가나다", "라마바 abc"]
    assert wrapped("a b", 80) == ["a b"]
    assert wrapped("", 10) == [""]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_help_fits_its_columns(
    columns: int, language: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", language)
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in (["--help"], ["candles", "--help"], ["record", "--help"]):
        assert run(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) > 10
        assert max(map(cell_len, lines)) <= columns, max(lines, key=cell_len)
        assert bool(HANGUL.search("".join(lines))) == (language == "ko")


def test_every_text_of_the_help_is_of_the_help() -> None:
    assert not set(COMMAND_LINE) & set(ERRORS)


def test_every_piece_of_a_report_has_its_korean_and_each_is_said() -> None:
    said = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and called(node) == "told":
                said |= {each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)}
    states = {*(each.name for each in HealthStatus), *(each.value for each in ConnectionState)}
    breakers = {f"breaker {each}" for each in ("closed", "open", "half-open")}
    assert states | breakers | (said - {"breaker "}) == set(REPORTS)
