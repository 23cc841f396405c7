"""Tables of the reference, made from the code at build time; what it cannot say is in `<language>/reference.toml`.

Where the Korean words for something are missing, the English ones stand, and a test says so.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from upbit_backbone import errors
from upbit_backbone._language import in_korean
from upbit_backbone.config import ENVIRONMENT_PREFIX, BackboneConfig
from upbit_backbone.exchange.endpoints import REST_GROUPS
from upbit_backbone.models import events
from upbit_backbone.routing.policy import TABLE

DOCS = Path(__file__).resolve().parent.parent
UNITS = {
    "_seconds": ("s", "초"),
    "_per_second": ("/s", "/초"),
    "_trades": ("trades", "건"),
    "_topics": ("topics", "개"),
}
HEADS = {
    "fields": (("fields", ""), ("필드", "")),
    "metrics": (("metric", "kind", "labels", "meaning"), ("지표", "종류", "레이블", "뜻")),
    "options": (("argument or option", "meaning"), ("인수·옵션", "뜻")),
    "routing": (("row", "channels in order", "reason given"), ("행", "채널 순서", "이유")),
}
WORDS = {
    "whose": ("whose fault", "누구 문제인가"),
    "retry": ("ask again?", "다시 물어도 되나"),
    "do": ("what to do", "할 일"),
    "yes": ("yes, as it is", "네, 그대로"),
    "no": ("no", "아니요"),
    "environment": ("in the environment", "환경 변수"),
    "default": ("default", "기본값"),
    "none": ("none", "없음"),
    "also": ("also a", "다음도 상속합니다:"),
}
FAULTS = {
    "the library's": "라이브러리",
    "the caller's": "호출한 쪽",
    "the network's": "네트워크",
    "the machine's": "이 컴퓨터",
    "Upbit's": "업비트",
    "nobody's": "누구의 문제도 아님",
}


@cache
def texts(language: str) -> dict[str, dict[str, str]]:
    """What people wrote for the tables of one language: section → name → text."""
    return tomllib.loads((DOCS / language / "reference.toml").read_text("utf-8"))


def setting_texts() -> dict[str, str]:
    """The paragraph of each setting in the docstring of `BackboneConfig`."""
    doc = inspect.getdoc(BackboneConfig) or ""
    return dict(re.findall(r"^(\w+): (.+)$", doc, re.MULTILINE))


def event_classes() -> list[type[events.Event]]:
    return [
        each
        for each in vars(events).values()
        if inspect.isclass(each) and issubclass(each, events.Event) and each is not events.Event
    ]


def error_classes() -> list[type[errors.UpbitBackboneError]]:
    """In the order of the tree."""
    return [
        each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, errors.UpbitBackboneError)
    ]


def metric_families() -> list[Any]:
    from prometheus_client.core import Metric

    from upbit_backbone.monitoring.prometheus import PrometheusCollector

    families: list[Metric] = list(PrometheusCollector({}).describe())
    return families


def commands() -> dict[str, Any]:
    """Name → click command of `upbit-backbone`, in the order of its help."""
    import typer

    from upbit_backbone.cli.app import app

    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def markdown(name: str, language: str) -> str:
    """The table `name` in Markdown."""
    return _TABLES[name](language, 1 if language == "ko" else 0)


def _one_line(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip().replace("|", "\\|")


def _first_paragraph(thing: object) -> str:
    return _one_line((inspect.getdoc(thing) or "").partition("\n\n")[0])


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def _settings(language: str, place: int) -> str:
    told = setting_texts() | texts(language).get("settings", {})
    blocks = []
    for each in dataclasses.fields(BackboneConfig):
        unit = next((words[place] for end, words in UNITS.items() if each.name.endswith(end)), "")
        default = (
            WORDS["none"][place] if each.default in ("", None) else f"`{each.default}`{' ' + unit if unit else ''}"
        )
        variable = f"`{ENVIRONMENT_PREFIX}{each.name.upper()}`"
        blocks.append(
            f"(setting-{each.name})=\n### {each.name}\n\n{_one_line(told[each.name])}\n\n"
            f"{WORDS['default'][place]}: {default} · {WORDS['environment'][place]}: {variable}\n"
        )
    return "\n".join(blocks)


def _events(language: str, place: int) -> str:
    written = texts(language)
    blocks = []
    for each in event_classes():
        what = written.get("event_meanings", {}).get(each.__name__, _first_paragraph(each))
        own = [one.name for one in dataclasses.fields(each) if one.name != "at"]
        blocks.append(
            f"({each.__name__.lower()})=\n## {each.__name__}\n\n{what}\n\n"
            f"**{WORDS['do'][place]}**: {written['events'][each.__name__]}\n\n"
            f"{HEADS['fields'][place][0]}: {', '.join(f'`{name}`' for name in ('at', *own))}\n"
        )
    return "\n".join(blocks)


def _errors(language: str, place: int) -> str:
    written = texts(language)
    blocks = []
    for each in error_classes():
        what = written.get("error_meanings", {}).get(each.__name__, _first_paragraph(each))
        parents = [parent.__name__ for parent in each.__bases__ if parent is not Exception]
        fault = FAULTS[each.whose_fault] if language == "ko" else each.whose_fault
        again = WORDS["yes" if each.retryable else "no"][place]
        lines = [
            f"({each.__name__.lower()})=\n## {each.__name__}\n",
            f"{what}\n",
            f"* {WORDS['whose'][place]}: {fault}",
            f"* {WORDS['retry'][place]} `retryable={each.retryable}`: {again}",
        ]
        if parents:
            lines.append(f"* {WORDS['also'][place]} {', '.join(f'`{parent}`' for parent in parents)}")
        lines.append(f"\n**{WORDS['do'][place]}**: {written['errors'][each.__name__]}\n")
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _metrics(language: str, place: int) -> str:
    told = texts(language).get("metrics", {})
    rows = []
    for family in metric_families():
        short = family.name.removeprefix("upbit_backbone_")
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
        meaning = told.get(short, family.documentation)
        rows.append((f"`{name}`", family.type, labels or "–", _one_line(meaning)))
    return _table(HEADS["metrics"][place], rows)


def _commands(language: str, place: int) -> str:
    """The help of the command line in the words of `--help`, which has one catalogue for both languages."""
    from upbit_backbone.cli.helping import EXAMPLES  # of an extra

    said = in_korean if language == "ko" else str
    blocks = []
    for name, command in commands().items():
        blocks.append(f"(command-{name})=\n## upbit-backbone {name}\n\n{_one_line(said(command.help))}\n")
        blocks.append(f"```sh\n{EXAMPLES[name]}\n```\n")
        rows = []
        for option in command.params:
            spelled = " ".join(f"`{word}`" for word in option.opts) if option.opts else f"`{option.name}`"
            if option.param_type_name == "argument":
                spelled = f"`{(option.metavar or option.name or '').upper()}`"
            rows.append((spelled, _one_line(said(option.help))))
        if rows:
            blocks.append(_table(HEADS["options"][place], rows))
    return "\n".join(blocks)


def _routing(language: str, place: int) -> str:
    told = texts(language).get("routing", {})
    rows = []
    for rule in TABLE:
        channels = " → ".join(channel.value for channel in rule.channels) or "–"
        reason = told.get(rule.name, rule.reason)
        rows.append((f"`{rule.name}`", channels, _one_line(reason)))
    return _table(HEADS["routing"][place], rows)


def _groups(language: str, place: int) -> str:
    return ", ".join(f"`{group.value}`" for group in REST_GROUPS) + "\n"


_TABLES = {
    "settings": _settings,
    "events": _events,
    "errors": _errors,
    "metrics": _metrics,
    "commands": _commands,
    "routing": _routing,
    "rest-groups": _groups,
}
