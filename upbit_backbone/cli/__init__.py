"""The command `upbit-backbone` (the [cli] extra: typer and rich).

    upbit-backbone demo                    # no network needed: a simulated Upbit, live
    upbit-backbone ticker KRW-BTC KRW-ETH
    upbit-backbone watch KRW-BTC KRW-ETH --type orderbook

Exit codes: 0 done; 1 something was found to be wrong (doctor) or nothing came; 2 the command or a symbol is wrong;
3 a package of an extra is missing; 4 Upbit or the network failed; 5 rate limit or ban; 6 a file could not be read or
written; 130 ended with Ctrl-C.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from .characters import let_nothing_die

MISSING_EXTRA = 3
NEEDED = ("typer", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    let_nothing_die()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(_how_to_install(missing), file=sys.stderr)
        return MISSING_EXTRA
    from .app import run

    return run(arguments)


def _how_to_install(missing: Sequence[str]) -> str:
    names = ", ".join(missing)
    return (
        f'upbit-backbone: the command line needs {names}. Install it with:  pip install "upbit-backbone[cli]"\n'
        f'upbit-backbone: 명령줄 도구를 쓰려면 {names} 패키지가 필요합니다. 설치:  pip install "upbit-backbone[cli]"'
    )
