"""How much a program remembers: the sizes of all containers that can be reached from one of our objects."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

CONTAINERS = (dict, list, set, frozenset, deque)


def tables(root: Any) -> Counter[str]:
    """The elements held, by the way that leads there: `._parts.repair._flows[]._seen` counts over all flows."""
    sizes: Counter[str] = Counter()
    met: dict[int, Any] = {}  # also keeps them alive, so that no id is used twice
    ahead = [("", root)]
    while ahead:
        way, thing = ahead.pop()
        if id(thing) in met:
            continue
        met[id(thing)] = thing
        if isinstance(thing, CONTAINERS):
            sizes[way] += len(thing)
        ahead.extend((way + step, inner) for step, inner in _within(thing))
    return sizes


def _within(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, dict):
        yield from (("[]", each) for each in list(thing.values()))
    elif isinstance(thing, (*CONTAINERS, tuple)):
        yield from (("[]", each) for each in list(thing))
    elif type(thing).__module__.startswith("upbit_backbone"):
        yield from (("." + name, getattr(thing, name)) for name in _attributes(thing))
    elif hasattr(thing, "__self__"):  # a bound method leads to its object
        yield "", thing.__self__
    elif hasattr(thing, "queue"):
        yield ".queue", thing.queue


def _attributes(thing: Any) -> list[str]:
    names = set(getattr(thing, "__dict__", ()))
    for parent in type(thing).__mro__:
        slots = getattr(parent, "__slots__", ())
        names.update([slots] if isinstance(slots, str) else slots)
    return sorted(name for name in names if hasattr(thing, name))
