"""`python -m upbit_backbone.compat.pyupbit script.py …`: run a program as it is, with the stand-in for its pyupbit.

`-m module` runs a module instead. `--path` prints the folder that does it, for an environment that is to do so always:
`PYTHONPATH="$(python -m upbit_backbone.compat.pyupbit --path)" python script.py`.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from .stand_in import PLACE, switch_on


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--path"]:
        sys.stdout.write(f"{PLACE}\n")
        return
    is_module = len(arguments) > 1 and arguments[0] == "-m"
    if not arguments or (arguments[0].startswith("-") and not is_module):
        sys.exit(f"usage: python -m upbit_backbone.compat.pyupbit [--path | script.py … | -m module …]\n\n{__doc__}")
    if is_module:
        # As with `python -m`: what is looked for lies in the present folder first.
        sys.argv, sys.path[0] = arguments[1:], ""
        switch_on()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        # As with `python script.py`: what the script imports lies beside it first.
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).resolve().parent)
        switch_on()
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
