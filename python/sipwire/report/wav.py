"""Samples of a wav file, as much as pictures need."""

from __future__ import annotations

import array
import os
import struct
import sys
import wave
from collections.abc import Sequence
from dataclasses import dataclass

_MOST_BYTES = 512 * 1024 * 1024
"""Read at most: an hour and a half of stereo at 48 kHz."""
_LOOKED_AT = 4096
"""Samples looked at for one column of the envelope; of longer stretches every n-th."""
_FOR_POWER = 96
"""Samples looked at for the power of one column."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Signed 16-bit samples, channel by channel."""

    rate: int
    channels: list[Sequence[int]]

    @property
    def seconds(self) -> float:
        return len(self.channels[0]) / self.rate

    def pcm(self, channel: int) -> bytes:
        """One channel as little-endian bytes."""
        samples = array.array("h", self.channels[channel])
        if sys.byteorder == "big":
            samples.byteswap()
        return samples.tobytes()


def read_wav(path: str | os.PathLike[str]) -> Samples:
    """Reads a PCM wav of 16 bits a sample, also one that was cut short.

    Raises ValueError that names the file when it is something else or holds no samples, OSError when it cannot be read.
    """
    try:
        with wave.open(os.fspath(path), "rb") as file:
            width, count, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(min(file.getnframes(), _MOST_BYTES // max(1, width * count)))
    except (wave.Error, EOFError, RuntimeError, struct.error) as error:  # the last two on lying chunk sizes
        reason = str(error) or "it ends too early"
        raise ValueError(f"{os.fspath(path)} is not a wav file that can be read: {reason}") from error
    if width != 2 or rate <= 0:
        raise ValueError(f"{os.fspath(path)} has {8 * width} bits a sample at {rate} Hz; 16 bits are expected")
    samples = array.array("h")
    samples.frombytes(data[: len(data) // (2 * count) * (2 * count)])
    if sys.byteorder == "big":
        samples.byteswap()
    if not samples:
        raise ValueError(f"{os.fspath(path)} holds no samples")
    return Samples(rate, [samples[channel::count] for channel in range(count)])


@dataclass(frozen=True, slots=True)
class Column:
    """A stretch of sound: its extremes and its power, 1.0 being full scale."""

    low: float
    high: float
    rms: float


def envelope(samples: Sequence[int], columns: int) -> list[Column]:
    """Cuts the samples into so many columns, or fewer when they are few."""
    total = len(samples)
    columns = max(1, min(columns, total))
    result = []
    for column in range(columns):
        start, end = column * total // columns, (column + 1) * total // columns
        piece = samples[start : end : max(1, (end - start) // _LOOKED_AT)]
        sparse = piece[:: max(1, len(piece) // _FOR_POWER)]
        power = sum(sample * sample for sample in sparse) / len(sparse)
        result.append(Column(min(piece) / 32768, max(piece) / 32768, power**0.5 / 32768))
    return result
