"""What PyInstaller asks an installed package for: where its hooks are (entry point `pyinstaller40`)."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """The folder of `hook-upbit_backbone.py`."""
    return [str(Path(__file__).parent)]
