"""The report: one page that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .charts import Mark, jitter_svg, waveform_svg
from .ladder import Address, SIPMessageTrace, build_ladder
from .ladder_svg import ladder_svg
from .spectrogram import SpectrogramFunction, spectrogram_svg
from .svg import STYLE
from .text import clean, escape
from .wav import Samples, read_wav

_MAX_MESSAGES = 200
"""Messages printed in full below the ladder."""
_MAX_NOTIFICATIONS = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the table at the top: what was measured, what came out, what was hoped for."""

    name: str
    value: str
    ok: bool | None = None
    """None when it is a fact and no test."""
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """A wav file to show."""

    path: str | os.PathLike[str]
    title: str = ""
    channels: Sequence[str] = ()
    """What is in each channel, such as ``("remote", "local")``."""
    marks: Sequence[Mark] = ()


@dataclass(frozen=True, slots=True)
class JitterTrace:
    """The packets of one received stream."""

    title: str
    packets: Sequence[tuple[float, float, float, int]]
    """As :func:`jitter_svg` takes them."""
    marks: Sequence[Mark] = ()


@dataclass(frozen=True, slots=True)
class NotificationRow:
    """One line of the list of notifications."""

    timestamp: float
    """Seconds, counted as in the ladder's records."""
    sender: str
    name: str
    details: str = field(default="")

    @classmethod
    def of(cls, notification: Any, sender: str | None = None) -> NotificationRow:
        """The row of a notification as the center delivers it; ``sender`` says it shorter than its repr."""
        items = getattr(notification.data, "items", None)
        pairs = items() if callable(items) else vars(notification.data).items() if notification.data else ()
        details = ", ".join(f"{key}={_brief(value)}" for key, value in pairs if key != "timestamp")
        return cls(
            notification.timestamp, repr(notification.sender) if sender is None else sender, notification.name, details
        )


def _brief(value: object) -> str:
    text = str(value) if isinstance(value, (str, int, float, type(None))) else repr(value)
    return clean(text, 80)


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    verdicts: Sequence[Verdict] = (),
    ladder: Iterable[SIPMessageTrace] = (),
    names: Mapping[Address, str] | None = None,
    recordings: Sequence[Recording] = (),
    jitter: Sequence[JitterTrace] = (),
    notifications: Iterable[NotificationRow] = (),
    spectrogram: SpectrogramFunction | None = None,
) -> Path:
    """Writes the page and returns its path. What is empty is left out.

    A recording that cannot be read gets a line that says why. ``spectrogram`` None: the one of the core. Raises OSError
    when the page cannot be written.
    """
    if spectrogram is None:
        spectrogram = _core_spectrogram()
    records = sorted(ladder, key=lambda record: record.timestamp)
    rows = sorted(notifications, key=lambda row: row.timestamp)
    starts = [record.timestamp for record in records[:1]] + [row.timestamp for row in rows[:1]]
    left = [_verdicts(verdicts), _ladder(records, names)]
    right = [_recording(recording, spectrogram) for recording in recordings]
    right += [_card("", jitter_svg(t.packets, title=t.title, marks=t.marks, standalone=False)) for t in jitter]
    below = [_notifications(rows, min(starts, default=0.0)), _messages(records, names)]
    columns = "".join(f"<div>{''.join(cards)}</div>" for cards in (left, right) if any(cards))
    html = _PAGE.format(
        title=escape(clean(title, 200)),
        style=STYLE + _PAGE_STYLE,
        when=_when(min(starts, default=0.0)),
        columns=columns,
        below="".join(below),
    )
    target = Path(path)
    target.write_text(html, encoding="utf-8")
    return target.absolute()


def _core_spectrogram() -> SpectrogramFunction:
    from sipwire import _core  # only here: pictures without spectrograms need no core

    function: SpectrogramFunction = _core.spectrogram
    return function


def _when(timestamp: float) -> str:
    """The local time of the start, when it is a time and not a count of seconds."""
    if timestamp < 1e9:
        return ""
    return f"<p>{datetime.fromtimestamp(timestamp).astimezone():%Y-%m-%d %H:%M:%S %z}</p>"


def _card(title: str, body: str, kind: str = "") -> str:
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f'<section class="card {kind}">{heading}{body}</section>'


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    signs = {True: ("pass", "✓"), False: ("fail", "✗"), None: ("fact", "")}
    lines = []
    for verdict in verdicts:
        kind, sign = signs[verdict.ok]
        lines.append(
            f'<tr class="{kind}"><td class="sign">{sign}</td><th scope="row">{escape(clean(verdict.name))}</th>'
            f"<td>{escape(clean(verdict.value))}</td>"
            f'<td class="quiet">{escape(clean(verdict.expected))}</td></tr>'
        )
    failed = sum(verdict.ok is False for verdict in verdicts)
    tested = sum(verdict.ok is not None for verdict in verdicts)
    summary = ""
    if tested:
        text = f"{failed} of {tested} failed" if failed else f"all {tested} passed"
        summary = f'<p class="summary {"fail" if failed else "pass"}">{text}</p>'
    return _card("Verdict", f"{summary}<table>{''.join(lines)}</table>")


def _ladder(records: Sequence[SIPMessageTrace], names: Mapping[Address, str] | None) -> str:
    ladder = build_ladder(records, names)
    return _card("Call ladder", ladder_svg(ladder, standalone=False), "ladder") if ladder.rows else ""


def _recording(recording: Recording, spectrogram: SpectrogramFunction) -> str:
    title = recording.title or Path(recording.path).name

    def draw(samples: Samples) -> str:
        wave = waveform_svg(samples, channels=recording.channels, marks=recording.marks, standalone=False)
        return wave + spectrogram_svg(samples, spectrogram, channels=recording.channels, standalone=False)

    return _card(clean(title, 120), _or_reason(lambda: draw(read_wav(recording.path))))


def _or_reason(draw: Callable[[], str]) -> str:
    try:
        return draw()
    except (OSError, ValueError) as error:
        return f'<p class="fail">{escape(clean(str(error), 400))}</p>'


def _notifications(rows: Sequence[NotificationRow], start: float) -> str:
    if not rows:
        return ""
    lines = "".join(
        f'<tr><td class="number">{row.timestamp - start:.3f}</td><td>{escape(clean(row.sender, 60))}</td>'
        f'<td>{escape(clean(row.name, 80))}</td><td class="quiet">{escape(clean(row.details, 400))}</td></tr>'
        for row in rows[:_MAX_NOTIFICATIONS]
    )
    more = len(rows) - _MAX_NOTIFICATIONS
    rest = f"<p>… {more} more</p>" if more > 0 else ""
    head = "<thead><tr><th>s</th><th>sender</th><th>notification</th><th>data</th></tr></thead>"
    return _card("Notifications", f'<table class="list">{head}<tbody>{lines}</tbody></table>{rest}')


def _messages(records: Sequence[SIPMessageTrace], names: Mapping[Address, str] | None) -> str:
    ladder = build_ladder(records, names)
    if not ladder.rows:
        return ""
    parts = []
    for row in ladder.rows[:_MAX_MESSAGES]:
        parties = [name or address for name, address in ladder.parties]
        summary = (
            f"{row.time:.3f} s · {parties[row.source]} → {parties[row.destination]} · {row.transport} · {row.label}"
        )
        parts.append(f"<details><summary>{escape(summary)}</summary><pre>{escape(row.text)}</pre></details>")
    return _card("Messages", "".join(parts))


_PAGE_STYLE = """
* { box-sizing: border-box; }
body { margin: 0; padding: 24px clamp(12px, 3vw, 40px) 48px; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
header, main { max-width: 1480px; margin: 0 auto; }
header { display: flex; align-items: baseline; gap: 16px; flex-wrap: wrap; }
header p { color: var(--muted); margin: 0; }
h1 { font-size: 22px; margin: 0 0 12px; }
h2 { font-size: 15px; margin: 0 0 12px; }
.columns { display: grid; grid-template-columns: minmax(0, 1fr); gap: 16px; align-items: start; }
@media (min-width: 1080px) { .columns { grid-template-columns: minmax(0, 10fr) minmax(0, 12fr); } }
.columns > div:only-child { grid-column: 1 / -1; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 16px 18px;
  margin: 0 0 16px; overflow-x: auto; }
.card svg + svg { margin-top: 10px; }
.ladder svg { max-width: 760px; margin: 0 auto; min-width: 420px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 4px 12px 4px 0; vertical-align: top; font-weight: 400;
  border-top: 1px solid var(--grid); overflow-wrap: anywhere; }
tr:first-child > * { border-top: 0; }
thead th { color: var(--muted); border-top: 0; }
tbody tr:first-child > * { border-top: 1px solid var(--grid); }
.quiet, .number { color: var(--muted); }
.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
.card > table:not(.list) :is(th, td.quiet) { white-space: nowrap; }
.list th:first-child { text-align: right; }
.sign { width: 22px; font-weight: 700; }
.pass .sign, .summary.pass { color: var(--success); }
.fail .sign, .fail td, p.fail { color: var(--failure); }
.fail td.quiet { color: var(--muted); }
.summary { font-weight: 600; margin: -6px 0 8px; }
.list td:nth-child(2), .list td:nth-child(3) { white-space: nowrap; }
details { border-top: 1px solid var(--grid); padding: 4px 0; }
summary { cursor: pointer; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
pre { margin: 8px 0 8px 16px; white-space: pre-wrap; overflow-wrap: anywhere; color: var(--muted);
  font: 12px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
"""

# No script and no address may be loaded, whatever a peer managed to put into the page.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><header><h1>{title}</h1>{when}</header>
<main><div class="columns">{columns}</div>{below}</main></body></html>
"""
