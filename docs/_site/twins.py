"""English and Korean pages are twins: same headings, same blocks, and neither older than the other.

`python docs/_site/twins.py` has the pages say what the code says now (`reference`), and writes down that all twins are
in step. It refuses a pair of which one page alone has changed, unless `--alike` says that the change concerns one
language only (a typing error, a better word).
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
RECORD = DOCS / "twins.json"
FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)

Marks = dict[str, list[str]]


def names() -> list[str]:
    """All pages of either language, without the language."""
    return sorted({page.relative_to(folder).as_posix() for folder in _folders() for page in folder.rglob("*.md")})


def _folders() -> tuple[Path, Path]:
    return DOCS / "en", DOCS / "ko"


def mark(page: Path) -> str:
    return hashlib.sha256(page.read_bytes()).hexdigest()[:12]


def marks() -> Marks:
    """What each pair looks like now: page → [English, Korean]; "" for a page that is not there."""
    return {
        name: [mark(folder / name) if (folder / name).exists() else "" for folder in _folders()] for name in names()
    }


def recorded() -> Marks:
    found: Marks = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    return found


def behind() -> list[str]:
    """Pairs that were changed since they were last said to be in step."""
    known = recorded()
    return [name for name, now in marks().items() if known.get(name) != now]


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block, in order."""
    return [(match[2].strip(), match[3]) for match in FENCE.finditer(text)]


def shape(text: str) -> list[str]:
    """Headings by their level, blocks by their language, table rows and list items, in order."""
    outline = FENCE.sub(lambda match: f"BLOCK {match[2].strip()}\n", text)
    return [each.strip() for each in re.findall(r"^(#+ |BLOCK .*|\| |\* |\d+\. |\(\w[\w-]*\)=)", outline, re.MULTILINE)]


def skeleton(code: str) -> tuple[str, list[str]]:
    """Python code without its comments and texts, and the texts. What stands in an f-string beside its fields is left
    out: words come in another order in another language."""
    tree, texts = ast.parse(code), []
    for node in [each for each in ast.walk(tree) if isinstance(each, ast.JoinedStr)]:
        node.values = [value for value in node.values if not isinstance(value, ast.Constant)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
            node.value = ""
    return ast.dump(tree), texts


def fill() -> None:
    import reference  # asks all of the library, and packages of its extras

    for folder in _folders():
        for page in folder.rglob("*.md"):
            old = page.read_text("utf-8")
            if (new := reference.filled(old, folder.name)) != old:
                page.write_text(new, "utf-8")


def main() -> None:
    fill()
    known, now = recorded(), marks()
    if "--alike" not in sys.argv:
        for name, pair in now.items():
            changed = [mark for mark, before in zip(pair, known.get(name, ["", ""]), strict=True) if mark != before]
            if len(changed) == 1:
                raise SystemExit(f"{name}: one language has changed and the other has not; --alike if that is right")
    RECORD.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
