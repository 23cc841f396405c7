"""What this site adds to Sphinx: tables made from the code, diagrams, and a search that knows Korean particles."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from docutils import nodes
from sphinx.search import SearchLanguage, languages
from sphinx.util.docutils import SphinxDirective
from sphinx.writers import text

from . import diagrams, korean, reference


class KoreanSearch(SearchLanguage):
    lang = "ko"
    language_name = "Korean"
    js_stemmer_code = korean.JAVASCRIPT

    def stem(self, word: str) -> str:
        return korean.stem(word)


class Diagram(SphinxDirective):
    """`{diagram} answer`: a picture inside the page, in the page's colours; its caption in the plain-text twin, and as
    the block's text, for whoever reads the page where nothing is drawn."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        language = self.config.language or "en"
        svg, caption = diagrams.svg(self.arguments[0], language)
        html = f'<figure class="diagram">{svg}</figure>'
        picture = nodes.raw("", html, format="html")
        twin = nodes.raw("", f"[{caption}]\n\n", format="text")
        return [picture, twin]


def setup(app: Any) -> dict[str, bool]:
    languages["ko"] = KoreanSearch
    # Korean lines end between words. Sphinx ends them within, as Chinese may, and put spaces where none are.
    text.TextWrapper._split = textwrap.TextWrapper._split  # type: ignore[method-assign]
    app.add_directive("diagram", Diagram)
    app.connect("autodoc-process-docstring", _korean_first)
    app.connect("autodoc-process-docstring", _part_code_from_letters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _korean_first(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """On Korean pages the catalogue's sentence stands before the docstring, which is English."""
    told = reference.texts(app.config.language).get("summaries", {}).get(reference.name_in_catalogue(name))
    if told:
        lines[:0] = [told, ""]


def _part_code_from_letters(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write `get`s (and Korean `get`은), which reStructuredText takes for a quotation that never ends."""
    lines[:] = [re.sub(r"(`[^`]+`)([\w(]?)", lambda m: f"{m[1]}\\ {m[2]}" if m[2] else m[1], line) for line in lines]
