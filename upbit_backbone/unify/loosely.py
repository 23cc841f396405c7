"""JSON read by the standard library: slower, and exact for any shape of message."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NoReturn

from ..errors import MalformedDataError, one_line


def read_json(raw: bytes) -> Any:
    """The decoded payload, its numbers Decimal or int; of equal keys the last one counts. Anything that is not JSON
    in UTF-8, nests too deep or holds impossible numbers is a MalformedDataError."""
    try:
        return json.loads(str(raw, "utf-8"), parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError) as problem:
        sample = one_line(bytes(raw[:60]).decode("utf-8", "replace"), 80)
        raise MalformedDataError(f"not JSON ({one_line(problem, 100)}): {sample}") from problem


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")
