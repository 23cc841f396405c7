"""Builds the site: `python docs/build.py [FOLDER]`. Both languages, a plain-text twin of each page, and llms.txt.

Warnings are errors, links within the site are followed, and no page may load anything from outside.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
LANGUAGES = ("en", "ko")
# What a browser fetches by itself, from other hosts. Links to click on are no such thing.
FOREIGN = r"""["'](?:https?:)?//"""
LOADED = re.compile(
    rf"""<(?:script|img|iframe|source|video)\b[^>]*\bsrc={FOREIGN}"""
    rf"""|<link\b[^>]*\brel=["'](?:stylesheet|preload|preconnect|icon)["'][^>]*\bhref={FOREIGN}"""
    r"""|url\(["']?https?://|@import"""
)
HREF = re.compile(r"""<a\b[^>]*\bhref=["']([^"']+)["']""")
ANCHOR = re.compile(r"""\bid=["']([^"']+)["']""")

CHOICE = """<!doctype html><meta charset="utf-8"><title>upbit_backbone</title>
<script>location.replace((navigator.language || "").startsWith("ko") ? "ko/index.html" : "en/index.html")</script>
<p><a href="en/index.html">English</a> · <a href="ko/index.html">한국어</a></p>
"""


def sphinx(builder: str, language: str, out: Path) -> None:
    command = [
        *(sys.executable, "-m", "sphinx", "-b", builder, "-c", str(HERE), "-D", f"language={language}"),
        *("-d", str(out.parent / f".doctrees-{language}"), "-W", "--keep-going", "-q", str(HERE / language), str(out)),
    ]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own interpreter
        raise SystemExit(f"{builder} of {language}: see the warnings above")


def build(language: str, out: Path) -> None:
    sphinx("html", language, out / language)
    sphinx("text", language, out / f".text-{language}")
    shutil.copytree(out / f".text-{language}", out / language, dirs_exist_ok=True)


def pages(language: str) -> list[Path]:
    """The pages of one language in the order of its tables of contents."""
    source, order = HERE / language, []

    def walk(name: str) -> None:
        path = source / f"{name}.md"
        if path in order:
            return
        order.append(path)
        for toctree in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
            for line in toctree.splitlines():
                if line and not line.startswith(":"):
                    walk((Path(name).parent / line.strip()).as_posix())

    walk("index")
    return order


def title_of(page: Path) -> str:
    return next(line[2:].strip() for line in page.read_text("utf-8").splitlines() if line.startswith("# "))


def llms() -> str:
    """The table of contents for programs that read: https://llmstxt.org's form, links to the plain-text twins."""
    lines = [
        "# upbit_backbone",
        "",
        "> Upbit market data (prices, candles, trades, order books; REST and WebSocket) through one blocking,"
        " thread-safe Python object. No asyncio, no API key. 업비트 시세를 동기식 객체 하나로.",
        "",
    ]
    for language, heading in (("en", "English"), ("ko", "한국어")):
        lines += [f"## {heading}", ""]
        for page in pages(language):
            twin = page.relative_to(HERE).with_suffix(".txt").as_posix()
            lines.append(f"- [{title_of(page)}]({twin})")
        lines.append("")
    return "\n".join(lines)


def complaints(out: Path) -> list[str]:
    """Links and anchors that lead nowhere within the site, and whatever a page would load from outside."""
    found = []
    texts = {page: page.read_text("utf-8") for page in out.rglob("*.html")}
    anchors = {page: set(ANCHOR.findall(text)) for page, text in texts.items()}
    for page, text in texts.items():
        found += [f"{page.relative_to(out)} loads from outside: {each}" for each in LOADED.findall(text)]
        for href in HREF.findall(text):
            if re.match(r"[a-z]+:|//", href):
                continue
            file, _, anchor = href.partition("#")
            target = (page.parent / file).resolve() if file else page
            if not target.exists():
                found.append(f"{page.relative_to(out)} links to {href}, which is not there")
            elif anchor and target in anchors and anchor not in anchors[target]:
                found.append(f"{page.relative_to(out)} links to {href}: no such anchor")
    for style in out.rglob("*.css"):
        found += [f"{style.relative_to(out)} loads {each}" for each in LOADED.findall(style.read_text("utf-8"))]
    return found


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "_build").resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with ThreadPoolExecutor(len(LANGUAGES)) as workers:
        list(workers.map(lambda language: build(language, out), LANGUAGES))
    (out / "index.html").write_text(CHOICE, "utf-8")
    (out / "llms.txt").write_text(llms(), "utf-8")
    for scrap in out.glob(".*"):
        shutil.rmtree(scrap)
    if found := complaints(out):
        raise SystemExit("\n".join(found))
    sys.stdout.write(f"{len(list(out.rglob('*.html')))} pages in {out}\n")


if __name__ == "__main__":
    main()
