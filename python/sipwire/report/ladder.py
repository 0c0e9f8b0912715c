"""The ladder of a call: who sent what to whom, and when."""

from __future__ import annotations

import enum
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .text import clean, shorten

MAX_ROWS = 1000
"""Messages drawn; a ladder of more is read by nobody, and a page with it opens slowly."""

MAX_PARTIES = 12
"""Columns drawn; the parties beyond share the last one."""

_MAX_LABEL = 60
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_UNSPECIFIED = ("0.0.0.0", "::", "")

Address = tuple[str, int]
_OTHERS: Address = ("", -1)


@dataclass(frozen=True, slots=True)
class SIPMessageTrace:
    """One SIP message as it passed a socket of ours."""

    timestamp: float
    """Seconds since any fixed moment, the same for all messages of a ladder."""
    received: bool
    """False when we sent it."""
    source: Address
    destination: Address
    transport: str
    data: bytes


class Kind(enum.StrEnum):
    """What a message is, for its colour."""

    REQUEST = "request"
    PROVISIONAL = "provisional"
    SUCCESS = "success"
    REDIRECT = "redirect"
    FAILURE = "failure"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class LadderRow:
    """One arrow."""

    time: float
    """Seconds since the first message."""
    source: int
    """The number of the party it leaves, as in :attr:`Ladder.parties`."""
    destination: int
    label: str
    """Such as ``INVITE  SDP sendrecv`` or ``180 Ringing (INVITE)``."""
    kind: Kind
    transport: str
    text: str
    """The whole message, fit to be shown."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Arrows between parties."""

    parties: list[tuple[str, str]] = field(default_factory=list)
    """Name and address of each column, in order of appearance."""
    rows: list[LadderRow] = field(default_factory=list)
    left_out: int = 0
    """Messages beyond :data:`MAX_ROWS`."""


def build_ladder(records: Iterable[SIPMessageTrace], names: Mapping[Address, str] | None = None) -> Ladder:
    """The arrows of these messages, in order of time.

    A message that was traced by its sender and by its receiver, both being ours, becomes one arrow. ``names`` says what
    to call the party at an address; without it a party is known by its User-Agent or Server header.
    """
    ordered = sorted(_without_echoes(list(records)), key=lambda record: record.timestamp)
    shown = ordered[:MAX_ROWS]
    columns = _Columns(shown, names or {})
    start = shown[0].timestamp if shown else 0.0
    rows = []
    for record in shown:
        message = _Message(record.data)
        source, destination = columns.of(record.source), columns.of(record.destination)
        columns.introduce(source, message)
        rows.append(
            LadderRow(
                record.timestamp - start,
                source,
                destination,
                message.label(),
                message.kind(),
                clean(record.transport, 8).upper(),
                message.text,
            )
        )
    return Ladder(columns.headers(), rows, len(ordered) - len(shown))


def _without_echoes(records: list[SIPMessageTrace]) -> list[SIPMessageTrace]:
    """Leaves out what was received when the same bytes are there as sent. Retransmissions stay, each once."""

    def key(record: SIPMessageTrace) -> tuple[bytes, int, int]:
        return record.data, record.source[1], record.destination[1]

    sent = Counter(key(record) for record in records if not record.received)
    kept = []
    for record in records:
        if record.received and sent[key(record)] > 0:
            sent[key(record)] -= 1
        else:
            kept.append(record)
    return kept


class _Columns:
    """Addresses to columns. A wildcard address is the one party seen at that port."""

    def __init__(self, records: Sequence[SIPMessageTrace], names: Mapping[Address, str]) -> None:
        self._names = names
        self._columns: dict[Address, int] = {}
        self._agents: dict[int, str] = {}
        self._at_port: dict[int, Address] = {}
        for record in records:
            for host, port in (record.source, record.destination):
                if host not in _UNSPECIFIED:
                    self._at_port.setdefault(port, (host, port))

    def of(self, address: Address) -> int:
        host, port = address
        party = self._at_port.get(port, (host, port)) if host in _UNSPECIFIED else (host, port)
        if party not in self._columns and len(self._columns) >= MAX_PARTIES - 1:
            party = _OTHERS
        return self._columns.setdefault(party, len(self._columns))

    def introduce(self, column: int, message: _Message) -> None:
        agent = message.header("user-agent") or message.header("server")
        if agent:
            self._agents.setdefault(column, agent)

    def headers(self) -> list[tuple[str, str]]:
        headers = []
        for (host, port), column in self._columns.items():
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            name = self._names.get((host, port)) or self._agents.get(column, "")
            if (host, port) == _OTHERS:
                name, place = "others", ""
            headers.append((shorten(clean(name), 28), shorten(clean(place), 48)))
        return headers


class _Message:
    """As much of a SIP message as a ladder shows; anything else is told apart, never refused."""

    def __init__(self, data: bytes) -> None:
        self._size = len(data)
        text = data[:65536].decode("utf-8", "replace").replace("\r\n", "\n")
        self.text = clean(text, 16384, lines=True)
        head, _, self._body = text.lstrip("\n").partition("\n\n")
        self._start, *self._lines = head.split("\n")

    def header(self, name: str, compact: str = "") -> str:
        """The first value of a header, "" when it is not there."""
        for line in self._lines:
            key, colon, value = line.partition(":")
            if colon and key.strip().lower() in (name, compact or name):
                return value.strip()
        return ""

    def _status(self) -> int:
        """The code of a response; 0 for anything else."""
        version, _, rest = self._start.partition(" ")
        code = rest[:3]
        return int(code) if version.upper().startswith("SIP/") and code.isascii() and code.isdigit() else 0

    def kind(self) -> Kind:
        status = self._status()
        if status:
            kinds = {1: Kind.PROVISIONAL, 2: Kind.SUCCESS, 3: Kind.REDIRECT}
            return kinds.get(status // 100, Kind.FAILURE)
        return Kind.REQUEST if self._is_request() else Kind.OTHER

    def _is_request(self) -> bool:
        parts = self._start.split(" ")
        return len(parts) >= 3 and parts[-1].upper().startswith("SIP/")

    def label(self) -> str:
        status = self._status()
        if status:
            reason = clean(self._start.partition(" ")[2], 40)
            method = clean(self.header("cseq").partition(" ")[2], 16)
            label = f"{reason} ({method})" if method else reason
        elif self._is_request():
            label = clean(self._start.partition(" ")[0], 24)
        elif not self._start.strip():
            return "keep-alive"
        else:
            return f"not SIP ({self._size} bytes)"
        return shorten(f"{label}{self._describe_body()}", _MAX_LABEL)

    def _describe_body(self) -> str:
        """What a session description does with audio."""
        if self.header("content-type", "c").partition(";")[0].strip().lower() != "application/sdp":
            return ""
        session, _, media = self._body.partition("\nm=audio ")
        if not media:
            return "  SDP without audio"
        own = media.partition("\nm=")[0]
        if own.partition(" ")[0] == "0":
            return "  SDP audio refused"
        for part in (own, session.partition("\nm=")[0]):
            for line in part.split("\n"):
                if line.startswith("a=") and line[2:].strip() in _DIRECTIONS:
                    return f"  SDP {line[2:].strip()}"
        return "  SDP sendrecv"


_COLOURS = {
    Kind.REQUEST: "34",
    Kind.PROVISIONAL: "90",
    Kind.SUCCESS: "32",
    Kind.REDIRECT: "33",
    Kind.FAILURE: "31",
    Kind.OTHER: "90",
}
_TIME_WIDTH = 11


def render_ladder_text(
    records: Iterable[SIPMessageTrace], *, colour: bool | None = None, names: Mapping[Address, str] | None = None
) -> str:
    """The ladder for a terminal. ``colour`` None: when stdout is a terminal and NO_COLOR is not set."""
    if colour is None:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    ladder = build_ladder(records, names)
    if not ladder.rows:
        return "no SIP messages"
    longest = max(len(row.label) for row in ladder.rows)
    headers = max(max(len(name), len(place)) for name, place in ladder.parties)
    gap = max(longest + 8, headers + 2, 24)
    first = _TIME_WIDTH + max(2, (headers + 1) // 2 - _TIME_WIDTH + 2)
    places = [first + gap * column for column in range(len(ladder.parties))]

    lines = []
    for texts in zip(*ladder.parties, strict=True):
        if any(texts):
            lines.append(_header_line(texts, places))
    lines.extend(_row_line(row, places, colour) for row in ladder.rows)
    if ladder.left_out:
        lines.append(f"… {ladder.left_out} more messages")
    return "\n".join(lines)


class LiveLadder:
    """A ladder that grows: gives the lines to print for each message as it comes."""

    _GAP = 52

    def __init__(self, *, colour: bool = False, names: Mapping[Address, str] | None = None) -> None:
        self._colour = colour
        self._columns = _Columns((), names or {})
        self._shown: list[tuple[str, str]] = []
        self._seen: deque[tuple[bytes, int, int]] = deque(maxlen=64)
        self._start: float | None = None

    def add(self, record: SIPMessageTrace) -> str:
        """The lines of one more message; "" for one that was shown as it left another socket of ours."""
        key = record.data, record.source[1], record.destination[1]
        if record.received and key in self._seen:
            self._seen.remove(key)
            return ""
        if not record.received:
            self._seen.append(key)
        if self._start is None:
            self._start = record.timestamp
        message = _Message(record.data)
        source, destination = self._columns.of(record.source), self._columns.of(record.destination)
        self._columns.introduce(source, message)
        label, kind = message.label(), message.kind()
        time = max(0.0, record.timestamp - self._start)
        row = LadderRow(time, source, destination, label, kind, record.transport.upper(), message.text)
        headers = self._columns.headers()
        places = [_TIME_WIDTH + 12 + self._GAP * column for column in range(len(headers))]
        lines = []
        if len(headers) != len(self._shown):  # somebody new
            self._shown = headers
            lines += ["", *(_header_line(texts, places) for texts in zip(*headers, strict=True) if any(texts))]
        lines.append(_row_line(row, places, self._colour))
        return "\n".join(lines)


def _header_line(texts: Sequence[str], places: Sequence[int]) -> str:
    line = ""
    for text, place in zip(texts, places, strict=True):
        line = line.ljust(max(place - len(text) // 2, len(line))) + text
    return line


def _row_line(row: LadderRow, places: Sequence[int], colour: bool) -> str:
    line = list(" " * (places[-1] + 1))
    for place in places:
        line[place] = "│"
    time = f"{row.time:.3f} s".rjust(_TIME_WIDTH - 2)
    line[: len(time)] = time
    if row.source == row.destination:
        place = places[row.source]
        arrow, start = f"↺ {row.label}", place + 1
        line[start : start + len(arrow)] = arrow
    else:
        left, right = sorted((places[row.source], places[row.destination]))
        start, width = left + 1, right - left - 1
        to_right = row.source < row.destination
        body = f" {row.label} ".center(width - 1, "─")
        arrow = f"{body}▶" if to_right else f"◀{body}"
        line[start : start + width] = arrow
    end = start + len(arrow)
    text = "".join(line)
    if not colour:
        return text.rstrip()
    return f"{text[:start]}\x1b[{_COLOURS[row.kind]}m{text[start:end]}\x1b[0m{text[end:]}".rstrip()
