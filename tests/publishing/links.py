"""Finds the links in documents that lead nowhere, without asking any other machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MARKDOWN = MarkdownIt("commonmark").enable("table")


def broken(document: Path, top: Path) -> Iterator[str]:
    """Each link of a Markdown document to a file, or to a heading, that is not there; links must not leave `top`.

    A link to another machine only has to be one by https.
    """
    for link in _links(_tokens(document)):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            if not target.startswith("https://"):
                yield f"{link} is not by https"
            continue
        file = (document.parent / unquote(target)).resolve() if target else document.resolve()
        if not file.is_relative_to(top.resolve()) or not file.exists():
            yield f"{link} leads to no file"
        elif anchor and anchor not in _anchors(file):
            yield f"{link} leads to no heading"


def _links(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        for name in ("href", "src"):
            if name in token.attrs:
                yield str(token.attrs[name])
        yield from _links(token.children or [])


@cache
def _anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document, and none for anything else."""
    if file.suffix != ".md":
        return set()
    tokens, met, anchors = _tokens(file), Counter[str](), set()
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            words = "".join(child.content for child in inline.children or [])
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            anchors.add(f"{slug}-{met[slug]}" if met[slug] else slug)
            met[slug] += 1
    return anchors


def _tokens(file: Path) -> list[Token]:
    return _MARKDOWN.parse(file.read_text(encoding="utf-8"))
