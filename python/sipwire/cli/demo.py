"""`sipwire demo`: a call between two engines on loopback, measured.

Alice calls Bob with Opus under SRTP. Alice speaks (a synthetic voice), Bob answers with a tone; both record in stereo.
First a few short bursts tell the delay from Python to Python. The verdict is read from the recordings, not from what was
meant to be sent.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import statistics
import time
import wave
from pathlib import Path
from typing import Any

from sipwire import Engine, Session
from sipwire.notification import Notification, NotificationCenter
from sipwire.report import JitterTrace, Recording, render_ladder_text, write_report
from sipwire.testing import find_tone, similarity, tone_bytes, write_voice

from .common import Ladder, in_words, summary
from .output import LOCAL_ERROR, OK, Output

TONE = 1000.0  # Hz, what Bob sends
TOLERANCE = 3.0  # Hz
RATE = 48000  # of the frames read and written, and of the recordings
BURSTS = 8
LOUD = 2000  # a frame with a sample above this holds a burst; Opus noise stays far below
SPEECH_SECONDS = 5.0


class Notes:
    """Every notification of the demo's sessions, in order, with the seconds since the first."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, str, str, str]] = []
        self._began: float | None = None
        self.names: dict[Any, str] = {}

    def handle_notification(self, notification: Notification) -> None:
        if notification.name.startswith("SIPSession"):
            self._began = self._began or notification.timestamp
            words = [f"{key}={value}" for key, value in notification.data.items() if key != "timestamp"]
            who = "alice" if notification.sender.direction == "outgoing" else "bob"
            self.rows.append((notification.timestamp - self._began, who, notification.name, " ".join(words)))


async def _bob(engine: Engine, recording: Path, arrivals: asyncio.Queue[float]) -> Session:
    """Answers the first call, records it, and says when a burst came in."""
    async for session in engine.incoming():
        session.accept(audio=True)
        await session.wait_for("SIPSessionDidStart")
        assert session.audio is not None
        session.audio.start_recording(recording, channels="stereo")
        last = 0.0
        listening = session.audio.frames(rate=RATE)
        heard = 0
        async for frame in listening:
            now = time.monotonic()
            if max(memoryview(frame).cast("B").cast("h")) > LOUD:
                if now - last > 0.1:
                    heard += 1
                    arrivals.put_nowait(now)
                last = now
            if heard == BURSTS:
                break
        await listening.aclose()
        session.audio.tone(TONE, -12)
        return session
    raise AssertionError("engine.incoming() ends only with the engine")


async def _delays(session: Session, arrivals: asyncio.Queue[float]) -> list[float]:
    """Sends bursts and waits for each at the other side; milliseconds from the write to the frame read."""
    assert session.audio is not None
    burst = tone_bytes(800, seconds=0.02, rate=RATE, level_db=-6)
    delays = []
    for number in range(BURSTS):
        sent = time.monotonic()
        await session.audio.write(burst, rate=RATE)
        delays.append(1000 * (await asyncio.wait_for(arrivals.get(), 5) - sent))
        await asyncio.sleep(0.15 + 0.0077 * number)  # another phase of the 20 ms grid each time
    return delays


def _channel(path: Path, number: int) -> tuple[array.array[int], int]:
    """One channel of a recording, and its rate."""
    with wave.open(str(path)) as file:
        samples = array.array("h", file.readframes(file.getnframes()))
        return samples[number :: file.getnchannels()], file.getframerate()


async def _call(out: Path, output: Output, notes: Notes) -> dict[str, Any]:
    options: dict[str, Any] = {"local_ip": "127.0.0.1", "trace_sip": True, "trace_rtp": True, "codecs": ("opus",)}
    speech = out / "speech.wav"
    write_voice(speech, seconds=SPEECH_SECONDS, rate=RATE)
    arrivals: asyncio.Queue[float] = asyncio.Queue()
    async with Engine("alice", **options) as alice, Engine("bob", **options) as bob:
        ladder = Ladder(alice)
        accounts = [await engine.add_account(f"sip:{engine.name}@127.0.0.1") for engine in (alice, bob)]
        for account in accounts:
            account.rtp.srtp_encryption = "mandatory"
            account.save()
        answering = asyncio.ensure_future(_bob(bob, out / "bob.wav", arrivals))
        output.line("alice calls bob: Opus, SRTP, 127.0.0.1")
        async with accounts[0].call(bob.sip_uri("bob")) as session:
            assert session.audio is not None
            session.audio.start_recording(out / "alice.wav", channels="stereo")
            delays = await _delays(session, arrivals)
            callee = await answering
            output.line(f"alice speaks for {SPEECH_SECONDS:g} s, bob sends {TONE:g} Hz; both record")
            await session.audio.play(speech)
        await callee.wait_for("SIPSessionDidEnd")
    return {"delays": delays, "ladder": ladder.messages, "sessions": {"alice": session, "bob": callee}, "speech": speech}


def _judge(out: Path, call: dict[str, Any]) -> tuple[list[tuple[str, str, bool]], dict[str, Any]]:
    """The rows of the verdict (what, figure, good) and the same as plain fields."""
    tone_pcm, rate = _channel(out / "alice.wav", 0)
    speech_pcm, _ = _channel(out / "bob.wav", 0)
    original, _ = _channel(call["speech"], 0)
    tone = find_tone(tone_pcm[-3 * rate :], rate)
    alike = similarity(original, speech_pcm, rate)
    delay = statistics.median(call["delays"])
    numbers = {name: summary(session) for name, session in call["sessions"].items()}
    lost = sum(max(figures["lost"], 0) for figures in numbers.values())
    encryption = numbers["alice"]["encryption"]
    fields = {
        "tone_hz": round(tone.frequency, 2), "snr_db": round(tone.snr_db, 1), "speech_similarity": round(alike, 3),
        "one_way_delay_ms": round(delay, 1), "packets_lost": lost, "encryption": encryption,
        "codec": numbers["alice"]["codec"], "calls": numbers,
    }
    rows = [
        ("tone at alice", f"{tone.frequency:.1f} Hz (sent {TONE:g})", abs(tone.frequency - TONE) <= TOLERANCE),
        ("SNR of the tone", f"{tone.snr_db:.1f} dB", tone.snr_db >= 20),
        ("speech at bob", f"{alike:.0%} alike what was spoken", alike >= 0.5),
        ("one-way delay", f"{delay:.1f} ms, Python to Python (median of {BURSTS})", delay < 150),
        ("packets lost", str(lost), lost == 0),
        ("encryption", str(encryption or "none"), encryption is not None),
    ]
    return rows, fields


async def run(arguments: argparse.Namespace, output: Output) -> int:
    """Runs the demo; the exit code says whether the verdict is good."""
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for name in ("alice.wav", "bob.wav"):
        (out / name).unlink(missing_ok=True)
    notes = Notes()
    NotificationCenter().add_observer(notes)
    try:
        call = await _call(out, output, notes)
    finally:
        NotificationCenter().remove_observer(notes)
    rows, fields = _judge(out, call)
    good = all(ok for _, _, ok in rows)
    output.line()
    output.line(render_ladder_text(call["ladder"], colour=output.colour))
    output.line()
    for at, who, name, words in notes.rows:
        output.line(f"{at:8.3f}  {who:5}  {name:34} {words}".rstrip())
    output.line()
    for what, figure, ok in rows:
        output.line(f"{'ok  ' if ok else 'FAIL'}  {what:16} {figure}")
    for name, session in call["sessions"].items():
        output.line(f"      {name:16} {in_words(summary(session))}")
    page = out / "report.html"
    write_report(
        page,
        title="sipwire demo: a call between two endpoints on this machine",
        verdict=rows,
        ladder=call["ladder"],
        recordings=[
            Recording(out / "alice.wav", "alice.wav", ("remote (bob)", "local (alice)")),
            Recording(out / "bob.wav", "bob.wav", ("remote (alice)", "local (bob)")),
        ],
        jitter=[
            JitterTrace(f"received by {name}", session.audio.take_trace()) for name, session in call["sessions"].items()
        ],
        notifications=notes.rows,
    )
    fields |= {"good": good, "recordings": [str(out / "alice.wav"), str(out / "bob.wav")], "report": str(page)}
    output.result(f"\n{'good' if good else 'NOT good'}: {out / 'alice.wav'}, {out / 'bob.wav'}, {page}", **fields)
    return OK if good else LOCAL_ERROR
