"""Formulas of the pages as MathML, which browsers show by themselves: no script, no font, no network.

A hook of MkDocs. `$a$` and a block `$$a$$` arrive marked by pymdownx.arithmatex and leave as <math> elements.
"""

import html
import re

from latex2mathml.converter import convert

MARKED = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(text: str, **_: object) -> str:
    """The page with its formulas typeset; called by MkDocs."""
    return MARKED.sub(_formula, text)


def _formula(match: re.Match[str]) -> str:
    display = "block" if match[2] == "[" else "inline"
    return convert(html.unescape(match[3]).strip(), display=display)
