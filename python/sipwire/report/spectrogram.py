"""A spectrogram as a small PNG between axes."""

from __future__ import annotations

import base64
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Sequence

from .charts import LEFT, RIGHT, WIDTH
from .svg import Frame, document, number
from .text import clean, escape
from .wav import Samples, read_wav

SpectrogramFunction = Callable[[bytes, int, int, int], bytes]
"""``(pcm, rate, columns, rows)`` → ``rows * columns`` levels, line by line as an image: the highest frequency (half the
rate) first, the silence of the floor 0, full scale 255. ``sipwire._core.spectrogram`` is one."""

_COLUMNS, _ROWS = 570, 180
_TOP_HZ = 8000
"""Frequencies drawn: speech and every codec of telephones ends below."""

# Black over violet and orange to pale yellow: equal steps of level look equal, also in grey and to the colour-blind.
_ANCHORS = (
    (0.00, (4, 4, 12)),
    (0.15, (30, 14, 68)),
    (0.32, (89, 19, 110)),
    (0.50, (152, 40, 98)),
    (0.66, (212, 72, 66)),
    (0.80, (245, 125, 30)),
    (0.92, (250, 192, 60)),
    (1.00, (252, 250, 200)),
)


def _palette() -> bytes:
    colours = bytearray()
    for level in range(256):
        at = level / 255
        for (start, low), (end, high) in itertools.pairwise(_ANCHORS):
            if at <= end:
                share = (at - start) / (end - start)
                colours.extend(round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
                break
    return bytes(colours)


def indexed_png(width: int, height: int, levels: bytes) -> bytes:
    """A PNG of one octet a pixel through our palette, line by line from the top."""
    if width <= 0 or height <= 0 or len(levels) != width * height:
        raise ValueError(f"{len(levels)} levels are not a picture of {width} by {height}")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + levels[start : start + width] for start in range(0, len(levels), width))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"PLTE", _palette())
        + chunk(b"IDAT", zlib.compress(lines, 9))
        + chunk(b"IEND", b"")
    )


def spectrogram_svg(
    recording: str | os.PathLike[str] | Samples,
    spectrogram: SpectrogramFunction,
    *,
    channels: Sequence[str] = (),
    standalone: bool = True,
) -> str:
    """The spectrograms of a wav file up to 8 kHz, one for each channel, against seconds and kHz.

    Raises ValueError when the file is not a 16-bit wav with samples.
    """
    samples = recording if isinstance(recording, Samples) else read_wav(recording)
    parts = []
    top = 22.0
    for index in range(len(samples.channels)):
        last = index == len(samples.channels) - 1
        name = clean(channels[index], 60) if index < len(channels) else ""
        title = f"spectrogram — {name}" if name else "spectrogram"
        parts.append(_picture(samples, index, spectrogram, title, top, last))
        top += 150 + (24 if last else 28)
    return document(WIDTH, top + 2, "".join(parts), title="spectrogram", standalone=standalone)


def _picture(
    samples: Samples, channel: int, spectrogram: SpectrogramFunction, title: str, top: float, last: bool
) -> str:
    half = samples.rate / 2
    shown = min(half, _TOP_HZ)
    all_rows = round(_ROWS * half / shown)
    levels = spectrogram(samples.pcm(channel), samples.rate, _COLUMNS, all_rows)
    if len(levels) != _COLUMNS * all_rows:
        raise ValueError(f"a spectrogram of {_COLUMNS} by {all_rows} came with {len(levels)} levels")
    png = indexed_png(_COLUMNS, _ROWS, levels[-_COLUMNS * _ROWS :])
    frame = Frame(LEFT, top, WIDTH - LEFT - RIGHT, 150, (0, samples.seconds), (0, shown / 1000))
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<text class="title" x="{number(LEFT)}" y="{number(top - 8)}">{escape(title)}</text>'
        f'<image x="{number(frame.left)}" y="{number(frame.top)}" width="{number(frame.width)}"'
        f' height="{number(frame.height)}" preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
        + frame.axes(x_unit="s", y_unit="kHz", grid=False, x_labels=last)
    )
