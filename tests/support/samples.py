"""Sample payloads: our own, as Upbit writes them, and whatever others have recorded."""

from __future__ import annotations

import os
from pathlib import Path

OWN = Path(__file__).with_name("payloads")


def payload_files(pattern: str = "*.json*") -> list[Path]:
    """Ours, and all under the folders that UPBIT_BACKBONE_PAYLOADS names (separated like PATH)."""
    folders = [OWN, *map(Path, filter(None, os.environ.get("UPBIT_BACKBONE_PAYLOADS", "").split(os.pathsep)))]
    return sorted(path for folder in folders for path in folder.rglob(pattern) if path.suffix in {".json", ".jsonl"})


def our_messages() -> list[bytes]:
    """One line of each of our own stream payloads after another."""
    files = sorted((OWN / "ws").iterdir())
    return [line for path in files for line in path.read_bytes().splitlines() if line.strip()]
