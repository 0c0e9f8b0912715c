"""The ladder as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .ladder import Address, Kind, Ladder, LadderRow, SIPMessageTrace, build_ladder
from .svg import document, number
from .text import escape

_ROW = 27.0
_HEAD = 46.0
_LEFT = 78.0  # for the times
_MARGIN = 74.0  # half a header beyond the outer lifelines
_LETTER = 6.2  # width of an average letter of a label


def ladder_svg(
    records: Iterable[SIPMessageTrace] | Ladder,
    *,
    names: Mapping[Address, str] | None = None,
    standalone: bool = True,
) -> str:
    """The ladder as SVG: requests blue, provisional answers quiet, 2xx green, failures red; messages as tooltips.

    ``standalone`` False leaves out the style sheet for a page that has it.
    """
    ladder = records if isinstance(records, Ladder) else build_ladder(records, names)
    if not ladder.rows:
        body = '<text class="muted" x="8" y="24">no SIP messages</text>'
        return document(300, 40, body, title="call ladder without messages", standalone=standalone)
    longest = max(len(row.label) for row in ladder.rows)
    headers = max(max(len(name), len(place)) for name, place in ladder.parties)
    gap = max(longest * _LETTER + 44, headers * 6.6 + 16, 220.0)
    places = [_LEFT + _MARGIN + gap * column for column in range(len(ladder.parties))]
    bottom = _HEAD + _ROW * len(ladder.rows) + 10
    parts = [_markers()]
    for (name, address), x in zip(ladder.parties, places, strict=True):
        parts.append(f'<path class="life" d="M{number(x)} {number(_HEAD - 4)}V{number(bottom)}"/>')
        title, quiet = (name, address) if name else (address, "")
        parts.append(f'<text class="title" x="{number(x)}" y="18" text-anchor="middle">{escape(title)}</text>')
        parts.append(f'<text class="muted" x="{number(x)}" y="34" text-anchor="middle">{escape(quiet)}</text>')
    parts.extend(_row(row, _HEAD + _ROW * (index + 1), places) for index, row in enumerate(ladder.rows))
    if ladder.left_out:
        bottom += 18
        parts.append(
            f'<text class="muted" x="{number(places[0])}" y="{number(bottom)}">… {ladder.left_out} more messages</text>'
        )
    width = places[-1] + _MARGIN + 12
    return document(width, bottom + 8, "".join(parts), title="call ladder", standalone=standalone)


def _markers() -> str:
    """One arrow head for each colour."""
    heads = "".join(
        f'<marker id="sipwire-{kind.value}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"'
        f' orient="auto-start-reverse" markerUnits="userSpaceOnUse">'
        f'<path d="M0 0.8L8 4L0 7.2z" fill="{_colour(kind)}"/></marker>'
        for kind in Kind
    )
    return f"<defs>{heads}</defs>"


def _colour(kind: Kind) -> str:
    return "var(--muted)" if kind is Kind.OTHER else f"var(--{kind.value})"


def _row(row: LadderRow, y: float, places: list[float]) -> str:
    colour = _colour(row.kind)
    start, end = places[row.source], places[row.destination]
    if row.source == row.destination:
        line = f"M{number(start)} {number(y - 8)}h22v8h-20"
        middle = start + 34 + len(row.label) * _LETTER / 2
    else:
        inset = 2.0 if start < end else -2.0
        line = f"M{number(start + inset)} {number(y)}H{number(end - inset)}"
        middle = (start + end) / 2
    return (
        f"<g><title>{escape(row.text)}</title>"
        f'<text class="time" x="{number(_LEFT - 8)}" y="{number(y + 4)}" text-anchor="end">{row.time:.3f} s</text>'
        f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="1.5"'
        f' marker-end="url(#sipwire-{row.kind.value})"/>'
        f'<text x="{number(middle)}" y="{number(y - 6)}" text-anchor="middle" style="fill:{colour}">'
        f"{escape(row.label)}</text></g>"
    )
