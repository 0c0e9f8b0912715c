"""Text from the wire made fit to be shown: nothing in it can move a cursor, reorder a line or open a tag."""

from __future__ import annotations

import unicodedata
from html import escape as _escape


def clean(text: str, limit: int = 200, *, lines: bool = False) -> str:
    """Replaces what is not a visible character by a mark; with ``lines`` line feeds and tabs stay.

    Control characters, lone surrogates, private and unassigned code points, and the invisible ones that change the
    direction of writing are marked. The text is cut at ``limit`` characters.
    """
    shown = "".join(
        character if character.isprintable() or (lines and character in "\n\t") else _mark(character)
        for character in text[:limit]
    )
    return shown + "…" if len(text) > limit else shown


def _mark(character: str) -> str:
    if unicodedata.category(character) == "Zs":  # a blank of unusual width
        return " "
    return "�"


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters, the last one an ellipsis when something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escape(text: str) -> str:
    """For element content and quoted attributes of HTML and SVG."""
    return _escape(text, quote=True)
