"""The reference tells all there is, in both languages: settings, events, errors, metrics, commands, public names."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest

import upbit_backbone
from tests.support.site import DOCS, load
from upbit_backbone import BackboneConfig, UpbitBackboneError
from upbit_backbone._language import in_korean
from upbit_backbone.routing.policy import TABLE
from upbit_backbone.simulator import FakeUpbit

LANGUAGES = ["en", "ko"]
reference = load("reference")


def section(language: str, name: str) -> dict[str, str]:
    found: dict[str, str] = reference.texts(language).get(name, {})
    assert all(text.strip() for text in found.values())
    return found


def settings() -> set[str]:
    return {each.name for each in dataclasses.fields(BackboneConfig)}


def test_help_of_the_configuration_explains_every_setting() -> None:
    assert set(reference.setting_texts()) == settings()


def test_the_korean_reference_explains_every_setting() -> None:
    assert set(section("ko", "settings")) == settings()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_event_says_what_to_do(language: str) -> None:
    events = {each.__name__ for each in reference.event_classes()}
    assert set(section(language, "events")) == events
    assert set(section("ko", "event_meanings")) == events


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_says_what_to_do(language: str) -> None:
    errors = {each.__name__ for each in reference.error_classes()}
    assert set(section(language, "errors")) == errors
    assert set(section("ko", "error_meanings")) == errors


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_help_page_of_every_error_has_its_anchor(language: str) -> None:
    page = reference.markdown("errors", language)
    for kind in reference.error_classes():
        error = kind.__new__(kind)
        assert isinstance(error, UpbitBackboneError)
        path, _, anchor = error.help_page.partition("#")
        assert (DOCS / language / path).with_suffix(".md").exists()
        assert re.search(rf"^## {anchor}$", page, re.MULTILINE | re.IGNORECASE)


def test_every_metric_is_in_the_tables() -> None:
    pytest.importorskip("prometheus_client")
    names = {family.name.removeprefix("upbit_backbone_") for family in reference.metric_families()}
    assert set(section("ko", "metrics")) == names
    for language in LANGUAGES:
        table = reference.markdown("metrics", language)
        assert [name for name in names if f"upbit_backbone_{name}" not in table] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_command_has_its_example_and_every_option_its_words(language: str) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    from upbit_backbone.cli.helping import EXAMPLES

    table = reference.markdown("commands", language)
    for name, command in reference.commands().items():
        assert f"```sh\n{EXAMPLES[name]}\n```" in table
        for text in (command.help, *(option.help for option in command.params)):
            assert text, f"{name}: something has no help"
            said = in_korean(text) if language == "ko" else text
            assert reference._one_line(said) in table
            assert (said != text) == (language == "ko"), f"{text} is not in the catalogue of `--help`"


def test_every_row_of_the_routing_table_has_korean_words() -> None:
    assert set(section("ko", "routing")) == {rule.name for rule in TABLE}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_public_name_is_in_the_reference(language: str) -> None:
    pages = "\n".join(page.read_text("utf-8") for page in (DOCS / language / "reference").glob("*.md"))
    generated = {each.__name__ for each in (*reference.event_classes(), *reference.error_classes())}
    told = set(re.findall(r"\b\w+\b", pages)) | generated | {"Event", "__version__"}
    assert sorted(set(upbit_backbone.__all__) - told) == []


def test_every_verb_of_the_simulator_says_what_it_does() -> None:
    verbs = {name: verb for name, verb in inspect.getmembers(FakeUpbit, inspect.isfunction) if name[0] != "_"}
    assert verbs
    assert sorted(name for name, verb in verbs.items() if not inspect.getdoc(verb)) == []


def test_every_switch_of_the_simulator_says_what_it_does_in_both_languages() -> None:
    assert [name for name, (_, meaning) in reference.switches().items() if not meaning] == []
    assert set(section("ko", "switches")) == set(reference.switches())


@pytest.fixture
def documented() -> dict[str, Any]:
    """Name in the catalogue → whatever the reference documents."""
    for package in ("qtpy", "pyqtgraph", "pandas", "psycopg", "redis"):
        pytest.importorskip(package)
    found = {}
    for page in (DOCS / "en" / "reference").glob("*.md"):
        for each in reference.documented(page.read_text("utf-8")):
            found[each.name] = each.thing
            found |= {f"{each.name}.{member}": getattr(each.thing, member) for member in each.members}
    return found


def test_whatever_the_reference_documents_has_a_docstring_and_a_korean_summary(documented: dict[str, Any]) -> None:
    assert len(documented) > 200
    assert sorted(name for name, thing in documented.items() if not inspect.getdoc(thing)) == []
    korean = section("ko", "summaries")
    assert set(korean) == set(documented)
    assert [text for text in korean.values() if text.isascii()] == []


def test_the_pages_say_what_the_code_says_now(documented: dict[str, Any]) -> None:
    """A Korean page that is older than its English is found by the twins: what is filled in counts as the page."""
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    pytest.importorskip("prometheus_client")
    places = []
    for language in LANGUAGES:
        for page in sorted((DOCS / language).rglob("*.md")):
            text = page.read_text("utf-8")
            places += reference.REGION.findall(text)
            assert reference.filled(text, language) == text, f"{page.name}: run python docs/_site/twins.py"
    assert {name for _, name, *_ in places} == {*reference._TABLES, "listed"}
