"""What this site adds to Sphinx: tables made from the code, diagrams, and a search that knows Korean particles."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.search import SearchLanguage, languages
from sphinx.util.docutils import SphinxDirective

from . import diagrams, korean, reference


class KoreanSearch(SearchLanguage):
    lang = "ko"
    language_name = "Korean"
    js_stemmer_code = korean.JAVASCRIPT

    def stem(self, word: str) -> str:
        return korean.stem(word)


class FromCode(SphinxDirective):
    """`{from-code} settings`: the table of that name, made from what the code says now."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = reference.markdown(self.arguments[0], self.config.language or "en")
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Diagram(SphinxDirective):
    """`{diagram} answer`: a picture inside the page, in the page's colours; its caption in the plain-text twin."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        language = self.config.language or "en"
        svg, caption = diagrams.svg(self.arguments[0], language)
        html = f'<figure class="diagram">{svg}</figure>'
        picture = nodes.raw("", html, format="html")
        twin = nodes.raw("", f"[{caption}]\n\n", format="text")
        return [picture, twin]


def setup(app: Any) -> dict[str, bool]:
    languages["ko"] = KoreanSearch
    app.add_directive("from-code", FromCode)
    app.add_directive("diagram", Diagram)
    app.connect("env-before-read-docs", _read_generated_anew)
    app.connect("autodoc-process-docstring", _part_code_from_letters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _part_code_from_letters(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write `get`s, which reStructuredText takes for a quotation that never ends."""
    lines[:] = [re.sub(r"(`[^`]+`)(\w?)", lambda m: f"{m[1]}\\ {m[2]}" if m[2] else m[1], line) for line in lines]


def _read_generated_anew(app: Any, env: Any, names: list[str]) -> None:
    """Pages with tables from the code depend on all of it: they are never taken from the last build."""
    names += [name for name in env.found_docs if name.startswith("reference/") and name not in names]
