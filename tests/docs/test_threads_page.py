"""The page of promises about threads and signals: each sentence has its test, and the tests exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / language / "explanations" / "threads-and-signals.md" for language in ("en", "ko")]


def promises(page: Path) -> list[str]:
    """The list entries of the page."""
    return re.findall(r"^\* .*?(?=^\* |^#|\Z)", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parts[-3])
def test_each_promise_names_a_test_and_each_of_them_exists(page: Path) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"^(?:    )?def (test_\w+)", sources, flags=re.M))
    assert len(promises(page)) >= 12
    for promise in promises(page):
        named = re.findall(r"`(test_\w+)`", promise)
        assert named, f"no test shows this: {promise}"
        assert set(named) <= known, f"not there any more: {set(named) - known}"
