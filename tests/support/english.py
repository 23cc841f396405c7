"""English words in a text that should be Korean: what is neither a name, a code, a unit nor what somebody typed."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable
from functools import cache

from upbit_backbone import BackboneConfig, ConnectionState, MarketDataBackbone
from upbit_backbone.exchange.endpoints import REGION_HOSTS, RateGroup
from upbit_backbone.models import enums

QUOTED = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|<[^>]*>|\\u[0-9a-f]{4}")
WORD = re.compile(r"(?<![\w./:=@-])[A-Z]?[a-z]+(?:'s)?(?![\w/=@(]|[.:-]\w|://)")
UNITS = {"s", "ms", "min", "µs", "x"}
# Products, formats, and what everybody who programs calls so.
NAMES = {
    *{"upbit", "backbone", "pandas", "pyarrow", "polars", "certifi", "env", "max", "true", "false", "type", "list"},
    *{
        "Python",
        "Linux",
        "Windows",
        "Darwin",
        "Prometheus",
        "Redis",
        "redis",
        "rediss",
        "postgres",
        "unix",
        "Parquet",
        "DataFrame",
        "Remaining",
        "Req",
        "None",
        "Decimal",
    },
    *{"True", "False", "Origin", "ping", "gevent", "fork", "selector", "gzip", "opcode", "datetime", "result", "codes"},
    *{"requests", "msgspec", "cachetools", "pybreaker", "dataclasses", "day", "demo", "doctor", "simulator", "since"},
    *{
        "localhost",
        "ws",
        "prometheus",
        "parquet",
        "days",
        "callback",
        "queue",
        "overflow",
        "python",
        "pip",
        "install",
        "import",
        "as",
    },
}


@cache
def _names_of_arguments() -> set[str]:
    methods = [each for _, each in inspect.getmembers(MarketDataBackbone, inspect.isfunction)]
    found = {name for method in methods for name in inspect.signature(method).parameters}
    return found | {each.name for each in dataclasses.fields(BackboneConfig)}


@cache
def _codes() -> set[str]:
    found = [*vars(enums).values(), ConnectionState]
    kinds = [kind for kind in found if inspect.isclass(kind) and issubclass(kind, enums.StrEnum)]
    return {*REGION_HOSTS, *(each.value for each in RateGroup)} | {
        word for kind in kinds for each in kind for word in re.split(r"[._]", f"{each.value}")
    }


def english_words(text: str, typed: Iterable[str] = ()) -> list[str]:
    """The English words of `text`; identifiers with `_`, `.`, `=` or `(`, capitals and what is quoted are none."""
    for each in sorted((part for word in typed for part in (word, *word.split("/"))), key=len, reverse=True):
        text = text.replace(each, "·") if len(each) > 2 else text
    known = UNITS | NAMES | _names_of_arguments() | _codes()
    return [word for word in WORD.findall(QUOTED.sub("·", text)) if word not in known]
