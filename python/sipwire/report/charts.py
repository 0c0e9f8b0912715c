"""Charts against time: the waveform of a recording, the jitter of a stream."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from .svg import MINUS, Frame, document, number, path
from .text import clean, escape
from .wav import Column, Samples, envelope, read_wav

WIDTH = 640.0
LEFT = 58.0
RIGHT = 12.0
_COLUMNS = 1140
"""Columns of an envelope: two for each unit of width, for sharp screens."""
_BARS = 570
"""Bars of a jitter chart; packets beyond are drawn together."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of time worth seeing: a hold, a digit. Seconds since the start of the recording or stream."""

    start: float
    end: float
    text: str = ""


def waveform_svg(
    recording: str | os.PathLike[str] | Samples,
    *,
    channels: Sequence[str] = (),
    marks: Sequence[Mark] = (),
    standalone: bool = True,
) -> str:
    """The waveform of a wav file, one strip for each channel: its extremes, and within them its power.

    ``channels`` names them; ``marks`` are shaded. Raises ValueError when the file is not a 16-bit wav with samples.
    """
    samples = recording if isinstance(recording, Samples) else read_wav(recording)
    strips = []
    top = 22.0
    for index, channel in enumerate(samples.channels):
        last = index == len(samples.channels) - 1
        strips.append(_strip(samples, index, envelope(channel, _COLUMNS), top, channels, marks, last))
        top += 120 + (24 if last else 28)
    return document(WIDTH, top + 2, "".join(strips), title="waveform", standalone=standalone)


def _strip(
    samples: Samples,
    index: int,
    columns: list[Column],
    top: float,
    names: Sequence[str],
    marks: Sequence[Mark],
    last: bool,
) -> str:
    peak = max(max(-column.low, column.high) for column in columns)
    scale = _round_up(peak) if peak > 0 else 0.01
    frame = Frame(LEFT, top, WIDTH - LEFT - RIGHT, 120, (0, samples.seconds), (-scale, scale))
    single = "recording" if len(samples.channels) == 1 else f"channel {index + 1}"
    name = clean(names[index], 60) if index < len(names) else single
    level = f"peak {20 * math.log10(peak):.1f} dBFS".replace("-", MINUS) if peak > 0 else "silent"
    colours = ("var(--wave)", "var(--wave-core)") if index % 2 == 0 else ("var(--second)", "var(--second-core)")
    bands, texts = _shades(frame, marks)
    return (
        f'<text class="title" x="{number(LEFT)}" y="{number(top - 8)}">{escape(name)}</text>'
        f'<text class="muted" x="{number(WIDTH - RIGHT)}" y="{number(top - 8)}" text-anchor="end">{level}</text>'
        + bands
        + frame.axes(x_unit="s", y_unit="of full scale", x_labels=last)
        + _area(frame, [(column.low, column.high) for column in columns], colours[0], 1.0)
        + _area(frame, [(-column.rms, column.rms) for column in columns], colours[1], 0.55)
        + texts
    )


def _round_up(value: float) -> float:
    """The next number of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten, full scale at most."""
    power = 10.0 ** math.floor(math.log10(value))
    return min(1.0, next(power * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if value <= power * step * 1.0001))


def _area(frame: Frame, pairs: Sequence[tuple[float, float]], colour: str, opacity: float) -> str:
    """The band between the lower and the upper values, never thinner than a hair line."""
    step = frame.width / len(pairs)
    upper, lower = [], []
    for index, (low, high) in enumerate(pairs):
        x = number(frame.left + (index + 0.5) * step)
        top, bottom = frame.y(high), frame.y(low)
        if bottom - top < 0.8:
            top, bottom = (top + bottom) / 2 - 0.4, (top + bottom) / 2 + 0.4
        upper.append(f"{x} {number(top)}")
        lower.append(f"{x} {number(bottom)}")
    outline = "L".join(upper + lower[::-1])
    return f'<path d="M{outline}Z" fill="{colour}" fill-opacity="{opacity:g}"/>'


def _shades(frame: Frame, marks: Sequence[Mark]) -> tuple[str, str]:
    """The bands of the marks, to lie under a chart, and their texts, to lie over it."""
    low, high = frame.x_range
    bands, texts = [], []
    for mark in marks:
        if mark.end < low or mark.start > high:
            continue
        x = frame.x(max(mark.start, low))
        width = max(1.5, frame.x(min(mark.end, high)) - x)
        bands.append(
            f'<rect x="{number(x)}" y="{number(frame.top)}" width="{number(width)}" height="{number(frame.height)}"'
            f' fill="var(--mark)" fill-opacity="0.3"/>'
        )
        texts.append(
            f'<text x="{number(x + width / 2)}" y="{number(frame.top + 14)}" text-anchor="middle" class="over">'
            f"{escape(clean(mark.text, 40))}</text>"
        )
    return "".join(bands), "".join(texts)


def jitter_svg(
    packets: Sequence[tuple[float, float, float, int]],
    *,
    title: str = "jitter of the received RTP stream",
    marks: Sequence[Mark] = (),
    standalone: bool = True,
) -> str:
    """When packets came, against when they were due.

    ``packets`` are (seconds since the stream began, arrival minus RTP time in ms, RFC 3550 jitter in ms, packets lost
    before this one). Bars are the deviations, the line is the jitter, losses are marked in red.
    """
    lost = sum(packet[3] for packet in packets)
    heading = f"{clean(title, 80)} ({len(packets)} packets, {lost} lost)"
    top = 22.0
    head = f'<text class="title" x="{number(LEFT)}" y="14">{escape(heading)}</text>'
    if not packets:
        body = f'{head}<text class="muted" x="{number(LEFT)}" y="40">no packet was received</text>'
        return document(WIDTH, 52, body, title=heading, standalone=standalone)
    high = max(0.5, max(max(packet[1], packet[2]) for packet in packets))
    low = min(-0.5, min(packet[1] for packet in packets))
    room = (high - low) * 0.06
    end = max(packets[-1][0], 0.02)
    frame = Frame(LEFT, top, WIDTH - LEFT - RIGHT, 190, (min(0.0, packets[0][0]), end), (low - room, high + room))
    bands, texts = _shades(frame, marks)
    body = (
        head
        + bands
        + frame.axes(x_unit="s", y_unit="ms")
        + _losses(frame, packets)
        + _bars(frame, packets)
        + _jitter_line(frame, packets)
        + texts
        + _legend(frame.top + frame.height + 36, lost > 0)
    )
    return document(WIDTH, top + 190 + 42, body, title=heading, standalone=standalone)


def _bars(frame: Frame, packets: Sequence[tuple[float, float, float, int]]) -> str:
    """One bar from zero for each packet, or from the least to the most deviation of several."""
    zero = frame.y(0)
    count = min(_BARS, len(packets))
    steps = []
    for index in range(count):
        group = packets[index * len(packets) // count : (index + 1) * len(packets) // count]
        deviations = [packet[1] for packet in group]
        x = number(frame.x(group[0][0]))
        top, bottom = min(zero, frame.y(max(deviations))), max(zero, frame.y(min(deviations)))
        if bottom - top >= 0.3:
            steps.append(f"M{x} {number(bottom)}V{number(top)}")
    width = max(0.8, min(4.0, frame.width / count * 0.6))
    return (
        f'<path d="{"".join(steps)}" stroke="var(--bar)" stroke-width="{number(width)}"/>'
        f'<path class="axis" d="M{number(frame.left)} {number(zero)}h{number(frame.width)}"/>'
    )


def _jitter_line(frame: Frame, packets: Sequence[tuple[float, float, float, int]]) -> str:
    count = min(_BARS, len(packets))
    last = [packets[(index + 1) * len(packets) // count - 1] for index in range(count)]
    points = [(frame.x(packet[0]), frame.y(packet[2])) for packet in last]
    return path(points, "var(--line)", 'stroke-width="1.8"')


def _losses(frame: Frame, packets: Sequence[tuple[float, float, float, int]]) -> str:
    """A red line where packets are missing, with their number where there is room."""
    gaps = [(frame.x(packet[0]), packet[3]) for packet in packets if packet[3] > 0]
    thin = gaps[:: max(1, len(gaps) // _BARS)]
    lines = "".join(f"M{number(x)} {number(frame.top)}V{number(frame.top + frame.height)}" for x, _ in thin)
    labels, free = [], -math.inf
    for x, lost in gaps:
        if x >= free:  # the labels of losses close together would cover each other
            free = x + 26
            place = f'x="{number(x + 4)}" y="{number(frame.top + frame.height - 6)}"'
            labels.append(f'<text {place} class="over" style="fill:var(--lost)">{MINUS}{lost}</text>')
    return (
        f'<path d="{lines}" stroke="var(--lost)" stroke-width="1.5" stroke-opacity="0.7"/>{"".join(labels)}'
        if gaps
        else ""
    )


def _legend(y: float, losses: bool) -> str:
    entries = [("var(--bar)", f"arrival {MINUS} RTP time"), ("var(--line)", "RFC 3550 jitter")]
    if losses:
        entries.append(("var(--lost)", "lost packets"))
    parts, x = [], LEFT
    for colour, text in entries:
        parts.append(
            f'<path d="M{number(x)} {number(y - 4)}h16" stroke="{colour}" stroke-width="4"/>'
            f'<text class="muted" x="{number(x + 22)}" y="{number(y)}">{text}</text>'
        )
        x += 40 + len(text) * 6.4
    return "".join(parts)
