"""What the pages say of the code, made from the code: tables, and lists of what classes can do.

It stands in the pages themselves, between `<!-- from-code: NAME -->` and `<!-- end -->`, so that it can be read where
nobody builds the site; `filled` writes it anew, and a test compares. What the code cannot say is in
`<language>/reference.toml`. Where the Korean words for something are missing, the English ones stand, and a test tells.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

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
    "metrics": (("metric", "kind", "labels", "meaning"), ("지표", "종류", "레이블", "뜻")),
    "options": (("argument or option", "meaning"), ("인수·옵션", "뜻")),
    "routing": (("row", "channels in order", "reason given"), ("행", "채널 순서", "이유")),
    "members": (("name", "what it does"), ("이름", "하는 일")),
    "switches": (("switch", "default", "meaning"), ("스위치", "기본값", "뜻")),
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
    "fields": ("fields", "필드"),
    "values": ("values", "값"),
    "also": ("also a", "다음도 상속합니다:"),
}
REGION = re.compile(
    r"(<!-- from-code: (?P<name>[\w-]+) -->\n).*?(<!-- end -->\n)(?P<below>\n```\{eval-rst\}\n.*?^```$)?",
    re.DOTALL | re.MULTILINE,
)
DIRECTIVE = re.compile(r"^\.\. auto(?:class|function):: ([\w.]+)((?:\n   :.*)*)", re.MULTILINE)
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


def filled(page: str, language: str) -> str:
    """The text of a page with what the code says now in its places."""

    def anew(match: re.Match[str]) -> str:
        name, below = match["name"], match["below"] or ""
        made = listed(below, language) if name == "listed" else markdown(name, language)
        return f"{match[1]}\n{made.strip()}\n\n{match[3]}{below}"

    return REGION.sub(anew, page)


class Documented(NamedTuple):
    """A class or function that a page documents, by its name in the catalogue, with the members that are shown."""

    name: str
    thing: Any
    members: list[str]


def documented(page: str) -> Iterator[Documented]:
    """What the `autoclass` and `autofunction` directives of a page show."""
    for path, options in DIRECTIVE.findall(page):
        module, _, name = path.rpartition(".")
        thing = getattr(importlib.import_module(module), name)
        yield Documented(name, thing, _members(thing, options) if inspect.isclass(thing) else [])


def _members(thing: type, options: str) -> list[str]:
    chosen = dict(re.findall(r":([\w-]+): *(.*)", options))
    if chosen.get("members"):
        return [each.strip() for each in chosen["members"].split(",")]
    out = {each.strip() for each in chosen.get("exclude-members", "").split(",")}
    kinds = property | classmethod | staticmethod
    return [
        name
        for name, member in vars(thing).items()
        if name[0] != "_" and name not in out and (inspect.isfunction(member) or isinstance(member, kinds))
    ]


def summary(name: str, thing: Any, language: str) -> str:
    """The first sentence of the docstring; in Korean the catalogue's."""
    english = re.split(r"(?<=\.)\s+(?=[A-Z])", _first_paragraph(thing))[0]
    return texts(language).get("summaries", {}).get(name, english)


def name_in_catalogue(path: str) -> str:
    """`upbit_backbone.qt.MarketBridge.ask` → `MarketBridge.ask`; of a function its last name."""
    parts = path.split(".")
    classes = [number for number, part in enumerate(parts) if part[:1].isupper()]
    return ".".join(parts[classes[0] if classes else -1 :])


def listed(page: str, language: str) -> str:
    """What a page documents, with what each member does in a sentence."""
    place, blocks = 1 if language == "ko" else 0, []
    for each in documented(page):
        is_class = inspect.isclass(each.thing)
        head = each.name if is_class else _called(each.name, each.thing)
        blocks.append(f"**`{head}`**: {summary(each.name, each.thing, language)}\n")
        if is_class and (values := _values(each.thing)):
            blocks.append(f"{WORDS['values' if issubclass(each.thing, enum.Enum) else 'fields'][place]}: {values}\n")
        rows = []
        for name in each.members:
            member = getattr(each.thing, name)
            said = summary(f"{each.name}.{name}", member, language)
            rows.append((f"`{name if isinstance(member, property) else _called(name, member)}`", said))
        if rows:
            blocks.append(_table(HEADS["members"][place], rows))
    return "\n".join(blocks)


def _called(name: str, function: Any) -> str:
    """How it is called: the names of its arguments, and no more."""
    parameters = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    words, is_named = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not is_named:
            is_named = True
            words += [] if words and words[-1].startswith("*") else ["*"]
        words.append({each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "") + each.name)
    return f"{name}({', '.join(words)})"


def _values(thing: type) -> str:
    """The fields of a dataclass, or the members of an enumeration."""
    if issubclass(thing, enum.Enum):
        return ", ".join(f"`{each.name}`" for each in thing)
    if dataclasses.is_dataclass(thing):
        return ", ".join(f"`{each.name}`" for each in dataclasses.fields(thing) if each.name[0] != "_")
    return ""


def switches() -> dict[str, tuple[Any, str]]:
    """The simulator's: name → (default, what stands below it in the source)."""
    from upbit_backbone.simulator.serving.options import Options

    body = ast.parse(inspect.getsource(Options)).body[0].body  # type: ignore[attr-defined]
    told = {}
    for line, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign):
            is_told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            told[line.target.id] = after.value.value if is_told else ""  # type: ignore[union-attr]
    return {each.name: (each.default, told[each.name]) for each in dataclasses.fields(Options)}


def _switches(language: str, place: int) -> str:
    told = texts(language).get("switches", {})
    rows = [
        (f"`{name}`", f"`{default!r}`", _one_line(told.get(name, meaning)))
        for name, (default, meaning) in switches().items()
    ]
    return _table(HEADS["switches"][place], rows)


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
            f"### {each.name}\n\n{_one_line(told[each.name])}\n\n"
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
            f"## {each.__name__}\n\n{what}\n\n"
            f"**{WORDS['do'][place]}**: {written['events'][each.__name__]}\n\n"
            f"{WORDS['fields'][place]}: {', '.join(f'`{name}`' for name in ('at', *own))}\n"
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
            f"## {each.__name__}\n",
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
        blocks.append(f"## upbit-backbone {name}\n\n{_one_line(said(command.help))}\n")
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
    "switches": _switches,
}
