"""What tests of telephony programs need: a registrar and proxy, tones to send and tones to find.

Files are wav, 16 bits; levels are dB below full scale (RMS, so a full-scale sine is -3).
"""

from __future__ import annotations

import array
import math
import os
import sys
import typing as t
import wave

from sipwire import _core
from sipwire._proxy import Proxy, ProxyMessage, ProxyRegistration, Registrar

__all__ = [
    "Proxy",
    "ProxyMessage",
    "ProxyRegistration",
    "Registrar",
    "Tone",
    "Wav",
    "assert_tone",
    "delay_ms",
    "dominant_tone",
    "read_wav",
    "silence_bytes",
    "tone_bytes",
    "write_tone",
    "write_voice",
    "write_wav",
]


class Tone(t.NamedTuple):
    """A tone in a recording."""

    hz: float
    level_db: float
    snr_db: float
    """The tone against everything else."""


class Wav(t.NamedTuple):
    """One channel of a wav file."""

    rate: int
    samples: array.array[int]

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def tone_bytes(hz: float, *, seconds: float, rate: int = 16000, level_db: float = -10.0) -> bytes:
    """A sine as signed 16-bit mono samples; ``level_db`` is that of its peak."""
    peak = 32767.0 * 10.0 ** (min(level_db, 0.0) / 20.0)
    step = 2.0 * math.pi * hz / rate
    samples = array.array("h", (round(peak * math.sin(step * index)) for index in range(round(seconds * rate))))
    return samples.tobytes()


def silence_bytes(*, seconds: float, rate: int = 16000) -> bytes:
    """Silence as signed 16-bit mono samples."""
    return bytes(2 * round(seconds * rate))


def write_wav(path: str | os.PathLike[str], pcm: bytes, *, rate: int = 16000, channels: int = 1) -> None:
    """Writes interleaved signed 16-bit samples as a wav file."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)


def write_tone(
    path: str | os.PathLike[str], hz: float, *, seconds: float, rate: int = 16000, level_db: float = -10.0
) -> None:
    """Writes a sine as a mono wav file."""
    write_wav(path, tone_bytes(hz, seconds=seconds, rate=rate, level_db=level_db), rate=rate)


def write_voice(path: str | os.PathLike[str], *, seconds: float, rate: int = 16000, seed: int = 1) -> None:
    """Writes a speech-like sound as a mono wav file; the same for the same seed."""
    write_wav(path, _core.voice(seconds, rate, seed), rate=rate)


def read_wav(path: str | os.PathLike[str], *, channel: int = 0) -> Wav:
    """Reads one channel of a wav file of 16-bit samples; raises :exc:`ValueError` naming one that is none."""
    try:
        with wave.open(os.fspath(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    if width != 2:
        raise ValueError(f"{os.fspath(path)}: {8 * width} bits a sample, not 16")
    if not 0 <= channel < channels:
        raise ValueError(f"{os.fspath(path)}: there is no channel {channel} of {channels}")
    samples = array.array("h", data[: len(data) // (2 * channels) * (2 * channels)])
    if sys.byteorder == "big":
        samples.byteswap()
    return Wav(rate, samples[channel::channels])


def dominant_tone(wav: str | os.PathLike[str] | Wav, *, channel: int = 0) -> Tone | None:
    """The loudest tone of a recording; ``None`` when it is silent."""
    wav = wav if isinstance(wav, Wav) else read_wav(wav, channel=channel)
    found = _core.dominant_tone(wav.samples, wav.rate)
    return None if found is None else Tone(*found)


def assert_tone(
    wav: str | os.PathLike[str] | Wav,
    hz: float,
    *,
    channel: int = 0,
    tolerance_hz: float = 3.0,
    snr_db: float | None = None,
    seconds: float = 0.2,
) -> Tone:
    """Asserts that a tone of ``hz`` is the loudest thing in a recording of at least ``seconds``; returns it.

    With ``snr_db`` it also has to stand that far above everything else.
    """
    name = "recording" if isinstance(wav, Wav) else os.fspath(wav)
    wav = wav if isinstance(wav, Wav) else read_wav(wav, channel=channel)
    assert wav.seconds >= seconds, f"{name} is {wav.seconds:.2f} s long, expected at least {seconds} s"
    tone = dominant_tone(wav)
    assert tone is not None, f"{name} is silent, expected {hz} Hz"
    assert abs(tone.hz - hz) <= tolerance_hz, f"{name}: loudest is {tone.hz:.1f} Hz, expected {hz} Hz"
    if snr_db is not None:
        assert tone.snr_db >= snr_db, f"{name}: {tone.hz:.1f} Hz is {tone.snr_db:.1f} dB above the rest, not {snr_db}"
    return tone


def delay_ms(reference: Wav, recording: Wav) -> float | None:
    """How much later ``recording`` holds what ``reference`` does; ``None`` when they have nothing in common."""
    if reference.rate != recording.rate:
        raise ValueError(f"rates differ: {reference.rate} and {recording.rate} Hz")
    return _core.delay_ms(reference.samples, recording.samples, reference.rate)
