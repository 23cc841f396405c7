"""Public names that cost nothing until they are used (PEP 562): a package names them, their modules load later."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def _loaded(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as theirs:
        if "subinterpreters" not in str(theirs):
            raise
        from ._language import spoken  # seldom needed, and `import upbit_backbone` loads next to nothing

        # CPython's own words name a module that nobody here has asked for.
        raise ImportError(
            spoken(f"upbit_backbone does not work in an isolated subinterpreter ({theirs}): use threads, or processes")
        ) from theirs


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Around an import that is made when something is first needed: ResourceError where that cannot be loaded."""
    try:
        yield
    except (ImportError, SyntaxError, OSError) as theirs:
        raise unloadable("a part of upbit-backbone", theirs) from theirs


def unloadable(what: str, theirs: Exception) -> Exception:
    """The ResourceError for what can be found and yet not be loaded."""
    from .errors import ResourceError, one_line  # loaded long ago; `import upbit_backbone` alone loads nothing

    what_helps = (
        "ask again once others are closed"
        if isinstance(theirs, OSError) and theirs.errno in (errno.EMFILE, errno.ENFILE)
        else "was upbit-backbone changed under the running program? Start the program anew"
    )
    return ResourceError(f"{what} cannot be loaded ({one_line(theirs)}): {what_helps}")


def nearest(name: str, known: Collection[str], most: int = 3) -> list[str]:
    """What may have been meant by `name`; a hint, so nothing where that cannot be found out now."""
    try:
        from difflib import get_close_matches  # slow to import, and seldom needed
    except (ImportError, OSError):
        return []
    return get_close_matches(name, known, n=most)


def _where_else(name: str, known: Collection[str], stand_in: str | None) -> str:
    """A hint for whoever asks for a `name` that is not `known`: where else it is, or what may have been meant."""
    if name.startswith("_"):  # asked for by tools, which catch the error
        return ""
    from ._language import spoken

    if stand_in is not None and name in dir(import_module(stand_in)):
        return spoken(f"; that is pyupbit's: import {stand_in} as pyupbit")
    near = nearest(name, known)
    return spoken(f"; did you mean {', '.join(near)}?") if near else ""


def attributes(
    package: str, names_of: Mapping[str, tuple[str, ...]], stand_in: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for `package`, whose submodules (keys) define its public names (values).

    A name is looked up once and then an ordinary attribute. So are the submodules themselves, where they lie directly
    in the package. An ImportError of theirs comes out as it is; for a name that nobody defines it is AttributeError,
    which names the nearest one, or the module `stand_in` if that has it.
    Safe from any thread: the import system lets one load a module while the others wait for it.
    """
    module_of = {name: module for module, names in names_of.items() for name in names}
    submodules = {module.partition(".")[0] for module in names_of}

    def get(name: str) -> Any:
        if name in module_of:
            value = getattr(_loaded(f"{package}.{module_of[name]}"), name)
        elif name in submodules:
            value = import_module(f"{package}.{name}")
        else:
            hint = _where_else(name, {*module_of, *submodules}, stand_in)
            raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of, *submodules})

    return get, names
