"""The reference tells all there is, in both languages: settings, events, errors, metrics, commands, public names."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

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
        assert f"({anchor})=" in page


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


def test_the_pages_with_tables_ask_for_them() -> None:
    asked = set()
    for page in Path(DOCS / "en").rglob("*.md"):
        asked |= set(re.findall(r"\{from-code\} ([\w-]+)", page.read_text("utf-8")))
    assert asked == set(reference._TABLES)
