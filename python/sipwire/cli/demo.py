"""`sipwire demo`: a call between two engines on loopback, measured.

Alice calls Bob with Opus under SRTP. Alice speaks (a synthetic voice), Bob answers with a tone; both record in stereo.
First a few short bursts tell the delay from Python to Python. The verdict is read from the recordings, not from what
was meant to be sent.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sipwire import Engine, Session
from sipwire.notification import Notification, NotificationCenter
from sipwire.report import JitterTrace, NotificationRow, Recording, Verdict, render_ladder_text, write_report
from sipwire.testing import Wav, delay_ms, dominant_tone, read_wav, tone_bytes, write_voice

from .common import Ladder, in_words, summary
from .output import LOCAL_ERROR, OK, Output

TONE = 1000.0  # Hz, what Bob sends
TOLERANCE = 3.0  # Hz
RATE = 48000  # of the frames read and written, and of the recordings
BURSTS = 7
LOUD = 2000  # a frame with a sample above this holds a burst; Opus noise stays far below
SPEECH_SECONDS = 5.0


class Notes:
    """The notifications of the demo's sessions, in order, with who heard them."""

    def __init__(self) -> None:
        self.rows: list[NotificationRow] = []

    def handle_notification(self, notification: Notification) -> None:
        if notification.name.startswith("SIPSession"):
            who = "alice" if notification.sender.direction == "outgoing" else "bob"
            self.rows.append(NotificationRow.of(notification, who))


async def _bob(calls: AsyncIterator[Session], recording: Path, arrivals: asyncio.Queue[float]) -> Session:
    """Answers the first call, records it, and says when a burst came in."""
    async for session in calls:
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
    raise AssertionError("calls end only with their engine")


async def _delays(session: Session, arrivals: asyncio.Queue[float]) -> list[float]:
    """Sends bursts and waits for each at the other side; milliseconds from the write to the frame read."""
    assert session.audio is not None
    burst = tone_bytes(800, seconds=0.02, rate=RATE, level_db=-6)
    delays = []
    for number in range(BURSTS):
        sent = time.monotonic()
        await session.audio.write(burst, rate=RATE)
        delays.append(1000 * (await asyncio.wait_for(arrivals.get(), 5) - sent))
        # Another phase of the 20 ms grid each time, and so long a pause that it is no stutter (no underrun is told).
        await asyncio.sleep(0.51 + 0.0077 * number)
    return delays


async def _call(out: Path, output: Output) -> dict[str, Any]:
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
        answering = asyncio.ensure_future(_bob(bob.incoming(), out / "bob.wav", arrivals))
        output.line("alice calls bob: Opus, SRTP, 127.0.0.1")
        async with accounts[0].call(bob.sip_uri("bob")) as session:
            assert session.audio is not None
            session.audio.start_recording(out / "alice.wav", channels="stereo")
            delays = await _delays(session, arrivals)
            callee = await answering
            output.line(f"alice speaks for {SPEECH_SECONDS:g} s, bob sends {TONE:g} Hz; both record")
            await session.audio.play(speech)
        await callee.wait_for("SIPSessionDidEnd")
        names = {engine.addresses["udp"]: engine.name for engine in (alice, bob)}
    sessions = {"alice": session, "bob": callee}
    return {"delays": delays, "ladder": ladder.messages, "names": names, "sessions": sessions, "speech": speech}


def _judge(out: Path, call: dict[str, Any]) -> tuple[list[Verdict], dict[str, Any]]:
    """The rows of the verdict (what, figure, good) and the same as plain fields."""
    heard = read_wav(out / "alice.wav", channel=0)
    tone = dominant_tone(Wav(heard.rate, heard.samples[-3 * heard.rate :]))
    speech = delay_ms(read_wav(call["speech"]), read_wav(out / "bob.wav", channel=0))
    delay = statistics.median(call["delays"])
    numbers = {name: summary(session) for name, session in call["sessions"].items()}
    lost = sum(max(figures["lost"], 0) for figures in numbers.values())
    encryption = numbers["alice"]["encryption"]
    fields = {
        "tone_hz": tone and round(tone.hz, 2),
        "snr_db": tone and round(tone.snr_db, 1),
        "speech_found": speech is not None,
        "one_way_delay_ms": round(delay, 1),
        "packets_lost": lost,
        "encryption": encryption,
        "codec": numbers["alice"]["codec"],
        "calls": numbers,
    }
    rows = [
        Verdict(
            "tone at alice",
            f"{tone.hz:.1f} Hz" if tone else "silence",
            tone is not None and abs(tone.hz - TONE) <= TOLERANCE,
            f"{TONE:g} ± {TOLERANCE:g} Hz",
        ),
        Verdict(
            "SNR of the tone",
            f"{tone.snr_db:.1f} dB" if tone else "none",
            tone is not None and tone.snr_db >= 20,
            "≥ 20 dB",
        ),
        Verdict(
            "speech at bob",
            "none" if speech is None else "found",
            speech is not None,
            "what alice said, by correlation",
        ),
        Verdict("one-way delay", f"{delay:.1f} ms", delay < 150, f"< 150 ms, Python to Python, median of {BURSTS}"),
        Verdict("packets lost", str(lost), lost == 0, "0 both ways"),
        Verdict("encryption", str(encryption or "none"), encryption is not None, "SRTP"),
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
        call = await _call(out, output)
    finally:
        NotificationCenter().remove_observer(notes)
    rows, fields = _judge(out, call)
    good = all(row.ok for row in rows)
    output.line()
    output.line(render_ladder_text(call["ladder"], colour=output.colour, names=call["names"]))
    output.line()
    began = notes.rows[0].timestamp
    for note in notes.rows:
        output.line(f"{note.timestamp - began:8.3f}  {note.sender:5}  {note.name:34} {note.details}".rstrip())
    output.line()
    for row in rows:
        output.line(f"{'ok  ' if row.ok else 'FAIL'}  {row.name:16} {row.value:24} {row.expected}")
    for name, session in call["sessions"].items():
        output.line(f"      {name:16} {in_words(summary(session))}")
    page = out / "report.html"
    write_report(
        page,
        title="sipwire demo: a call between two endpoints on this machine",
        verdicts=rows,
        ladder=call["ladder"],
        names=call["names"],
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
