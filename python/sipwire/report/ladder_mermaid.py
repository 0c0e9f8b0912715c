"""The ladder as a Mermaid sequence diagram."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .ladder import Address, Kind, SIPMessageTrace, build_ladder


def ladder_mermaid(records: Iterable[SIPMessageTrace], *, names: Mapping[Address, str] | None = None) -> str:
    """Text that Mermaid draws: requests with full lines, responses dashed, failures with a cross."""
    ladder = build_ladder(records, names)
    lines = ["sequenceDiagram"]
    for number, (name, address) in enumerate(ladder.parties):
        title = "<br/>".join(_plain(part) for part in (name, address) if part)
        lines.append(f"    participant P{number} as {title}")
    for row in ladder.rows:
        arrow = "->>" if row.kind in (Kind.REQUEST, Kind.OTHER) else "--x" if row.kind is Kind.FAILURE else "-->>"
        lines.append(f"    P{row.source}{arrow}P{row.destination}: {_plain(row.label)} [{row.time:.3f} s]")
    if ladder.left_out:
        lines.append(f"    note over P0: {ladder.left_out} more messages")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text without what Mermaid would read as its own: `#`, `;` and markup."""
    return "".join(letter if letter not in "#;<>:" else f"#{ord(letter)};" for letter in text)
