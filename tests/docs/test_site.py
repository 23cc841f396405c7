"""The site: its Python runs against the simulator and prints what it shows, and its languages are twins."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import re
import shlex
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.site import DOCS, load
from upbit_backbone import MarketDataBackbone, default_backbone
from upbit_backbone.simulator import FakeUpbit

PRINTS = 12  # after so many in one block an endless loop has shown what it can do
NEEDS = {
    "qtpy": "qtpy",
    "pyqtgraph": "pyqtgraph",
    "to_dataframe": "pandas",
    "prometheus": "prometheus_client",
    "matplotlib": "matplotlib",
    "plotly": "plotly",
}


twins, korean = load("twins"), load("korean")
PAGES = sorted((DOCS / "en").rglob("*.md"))
RUN_ELSEWHERE = {"migration/pyupbit"}  # by tests/compat, in both manners of importing it


def name_of(page: Path) -> str:
    return page.relative_to(DOCS / "en").with_suffix("").as_posix()


WITH_CODE = [
    page
    for page in PAGES
    if any(kind == "python" for kind, _ in twins.blocks(page.read_text("utf-8"))) and name_of(page) not in RUN_ELSEWHERE
]


class Enough(BaseException):
    """The block has shown what it can do."""


class Reader:
    """Somebody who types in a page from top to bottom, and whose endless loops are ended after some lines."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "print": self.show}
        self.lines: list[str] = []
        self._main = threading.get_ident()

    def show(self, *words: object, **options: Any) -> None:
        text = io.StringIO()
        print(*words, file=text)
        self.lines += text.getvalue().splitlines()
        if threading.get_ident() == self._main and len(self.lines) >= PRINTS:
            raise Enough

    def run(self, code: str, place: str) -> list[str]:
        """What the block printed."""
        self.lines = []
        # A process has one, and another test may have made it.
        code = code.replace("QApplication([])", "QApplication.instance() or QApplication([])")
        with contextlib.suppress(Enough):
            exec(compile(code, place, "exec"), self.names)  # noqa: S102 - our own pages
        return self.lines

    def close(self) -> None:
        for thing in self.names.values():
            if isinstance(thing, MarketDataBackbone | FakeUpbit):
                thing.close()
        if (shared := default_backbone._backbone) is not None:
            shared.close()


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=7, trades_per_second=200, markets=["KRW-BTC", "KRW-ETH", "KRW-XRP"], rest_limit=100) as upbit:
        yield upbit


@pytest.fixture
def reader(
    upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, leaves_nothing_behind: None
) -> Iterator[Reader]:
    for name, value in upbit.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UPBIT_BACKBONE_REST_REQUESTS_PER_SECOND", "50")
    monkeypatch.setenv("UPBIT_BACKBONE_TIMEOUT_SECONDS", "60")  # the pages are about what comes, not about how soon
    monkeypatch.setenv("MPLBACKEND", "Agg")  # there is no notebook to draw into
    monkeypatch.chdir(tmp_path)
    reader, on_sigterm = Reader(), signal.getsignal(signal.SIGTERM)
    yield reader
    reader.close()
    signal.signal(signal.SIGTERM, on_sigterm)  # a page shows how to end on it


def alike(line: str) -> str:
    """A line of output but for its numbers, which change with the market, and its spaces."""
    return re.sub(r"\s+", " ", re.sub(r"-?\d[\d,.]*", "#", line)).strip()


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_its_code_runs_and_prints_what_the_page_shows(page: Path, reader: Reader, upbit: FakeUpbit) -> None:
    text = page.read_text("utf-8")
    for word, package in NEEDS.items():
        if word in text:
            pytest.importorskip(package)
    printed: list[str] = []
    ran = 0
    for number, (kind, code) in enumerate(twins.blocks(text), 1):
        if kind == "python":
            printed = reader.run(code, f"{name_of(page)}, block {number}")
            assert printed or "print(" not in code or "def " in code, f"block {number} printed nothing"
            ran += 1
        elif kind == "text":
            shown = [alike(line) for line in code.splitlines()]
            assert [line for line in shown if line not in set(map(alike, printed))] == [], printed
    assert ran
    for name, thing in list(reader.names.items()):
        if name.startswith("test_"):  # a test for readers: it gets its exchange from us
            try:
                thing(upbit)
            finally:
                upbit.resume()


def commands() -> list[tuple[str, str]]:
    found = []
    for page in sorted(DOCS.rglob("*.md")):
        for kind, code in twins.blocks(page.read_text("utf-8")):
            if kind == "sh":
                found += [(page.relative_to(DOCS).as_posix(), line) for line in code.splitlines()]
    return found


def check_command(line: str) -> None:
    """Its options and arguments are taken; it is not carried out. Everything else may only be pip."""
    typer = pytest.importorskip("typer")
    pytest.importorskip("rich")
    from upbit_backbone.cli.app import app

    words = shlex.split(line)
    if words[:4] == ["python", "-m", "pip", "install"]:
        return
    if words[:2] == ["python", "examples/chart_viewer"]:  # tests/qt start it
        assert words[2:] in ([], ["--simulator"])
        return
    if words == ["python", "examples/fleet"]:  # tests/relay start it
        return
    assert words[0] == "upbit-backbone", line
    group: Any = typer.main.get_command(app)
    command = group.commands[words[1]]
    command.make_context(words[1], words[2:])


@pytest.mark.parametrize(("page", "line"), commands())
def test_its_commands_are_understood(page: str, line: str) -> None:
    check_command(line)


def test_the_example_of_each_command_is_understood() -> None:
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    from upbit_backbone.cli.helping import EXAMPLES

    for line in EXAMPLES.values():
        check_command(line)


def names_in(code: str) -> tuple[set[str], set[str]]:
    """What names a block makes, and which it uses."""
    made, used = set(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(each.asname or each.name).partition(".")[0] for each in node.names}
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            made.add(node.name)
    return made, used


@pytest.mark.parametrize("name", [f"{language}/{name}" for language in ("en", "ko") for name in twins.names()])
def test_each_block_runs_when_pasted_after_the_first_of_its_page(name: str) -> None:
    parts = [code for kind, code in twins.blocks((DOCS / name).read_text("utf-8")) if kind == "python"]
    known = set(dir(builtins)) | (names_in(parts[0])[0] if parts else set())
    for number, code in enumerate(parts, 1):
        made, used = names_in(code)
        assert used - made - known == set(), f"Python block {number}"


@pytest.mark.parametrize("name", ["README.md", "README_KR.md"])
def test_each_block_of_the_readmes_runs_when_pasted_alone(name: str) -> None:
    for number, (kind, code) in enumerate(twins.blocks((DOCS.parent / name).read_text("utf-8")), 1):
        if kind == "python":
            made, used = names_in(code)
            assert used - made - set(dir(builtins)) <= {"window"}, f"block {number}"


def test_no_page_is_older_than_its_twin() -> None:
    assert twins.behind() == [], "bring the other language in step, then run: python docs/_site/twins.py"


def test_every_page_is_there_in_both_languages_with_the_same_shape() -> None:
    for name in twins.names():
        english, korean_text = ((DOCS / language / name).read_text("utf-8") for language in ("en", "ko"))
        assert twins.shape(korean_text) == twins.shape(english), name


def test_the_code_of_the_korean_pages_is_that_of_the_english_ones_but_for_words() -> None:
    for name in twins.names():
        pairs = [
            [code for kind, code in twins.blocks((DOCS / language / name).read_text("utf-8")) if kind == "python"]
            for language in ("en", "ko")
        ]
        for ours, theirs in zip(*pairs, strict=True):
            (code, words), (code_there, words_there) = twins.skeleton(ours), twins.skeleton(theirs)
            assert code_there == code, name
            for word, there in zip(words, words_there, strict=True):
                assert word == there or not re.search("[A-Za-z]", re.sub(r"[가-힣].*", "", there)), f"{name}: {there!r}"


def test_comments_in_the_code_of_korean_pages_are_korean() -> None:
    for page in sorted((DOCS / "ko").rglob("*.md")):
        for _, code in twins.blocks(page.read_text("utf-8")):
            for comment in re.findall(r"(?:^|\s)# (.*)", code):
                assert not comment.isascii(), f"{page.name}: {comment}"


@pytest.mark.parametrize(
    ("word", "stem"),
    [
        ("가격을", "가격"), ("가격", "가격"), ("호가", "호가"), ("현재가는", "현재가"), ("현재가", "현재가"),
        ("REST로", "rest"), ("스트림에서는", "스트림"), ("체결이", "체결"), ("시각", "시각"), ("KRW-BTC", "krw-btc"),
        ("데이터가", "데이터"), ("마켓마다", "마켓"), ("get_ticker", "get_ticker"), ("재시도", "재시도"), ("가", "가"),
    ],
)  # fmt: skip
def test_the_search_knows_korean_words_without_their_particles(word: str, stem: str) -> None:
    assert korean.stem(word) == stem


def test_the_searchs_javascript_cuts_by_the_same_table() -> None:
    for particle in korean.PARTICLES:
        assert f'"{particle}"' in korean.JAVASCRIPT
    for word in korean.WHOLE:
        assert f'"{word}"' in korean.JAVASCRIPT


def test_pictures_are_drawn_in_both_languages_without_colours_of_their_own() -> None:
    diagrams = load("diagrams")
    used = {name for page in PAGES for name in re.findall(r"\{diagram\} (\w+)", page.read_text("utf-8"))}
    assert used == set(diagrams.PICTURES)
    for name in diagrams.PICTURES:
        (english, english_caption), (korean_picture, caption) = diagrams.svg(name, "en"), diagrams.svg(name, "ko")
        for language, told in (("en", english_caption), ("ko", caption)):
            pages = [page.read_text("utf-8") for page in (DOCS / language).rglob("*.md")]
            assert any(f"```{{diagram}} {name}\n{told}\n```" in page for page in pages), f"{name}: {told}"
        assert english != korean_picture
        assert not caption.isascii()
        assert "fill=" not in english
