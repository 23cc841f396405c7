"""What a project shows besides code: how to report a hole, how to cite it, and issue forms in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import upbit_backbone

ROOT = Path(__file__).resolve().parents[2]
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"


def ids(form: Path) -> list[tuple[str, str]]:
    """(kind, id) of each field of a form, in order."""
    return re.findall(r"- type: (textarea|input|dropdown)\n    id: (\w+)", form.read_text("utf-8"))


def test_issue_forms_ask_the_same_in_both_languages() -> None:
    english = [form for form in FORMS.glob("*.yml") if not form.stem.endswith("_ko") and form.stem != "config"]
    assert len(english) >= 2
    for form in english:
        twin = form.with_name(f"{form.stem}_ko.yml")
        assert ids(form)
        assert ids(twin) == ids(form)
        assert not twin.read_text("utf-8").isascii()


def test_the_pages_that_issue_forms_name_exist() -> None:
    for form in FORMS.glob("*.yml"):
        for name in re.findall(r"[\w/]+\.md", form.read_text("utf-8")):
            assert (ROOT / name).exists(), f"{form.name}: {name}"


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {upbit_backbone.__version__}\n" in citation
    assert "\nlicense: MIT\n" in citation


def test_security_tells_the_same_in_both_languages() -> None:
    english, korean = (ROOT / "SECURITY.md").read_text("utf-8").split("\n# 보안\n")
    assert len(re.findall(r"^## ", english, re.MULTILINE)) == len(re.findall(r"^## ", korean, re.MULTILINE)) == 3
    assert len(re.findall(r"^\* ", english, re.MULTILINE)) == len(re.findall(r"^\* ", korean, re.MULTILINE))
