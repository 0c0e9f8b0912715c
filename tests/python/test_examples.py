"""Every program in examples/, run as its reader would."""

from __future__ import annotations

import asyncio
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from sipwire import NotificationCenter
from sipwire.notification import Notification
from sipwire.testing import Wav, assert_tone, tone_bytes, write_tone

from .conftest import Pair
from .test_audio import audio_of, heard

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def answered(pair: Pair) -> Iterator[Pair]:
    """Bob takes every call."""

    def accept(notification: Notification) -> None:
        notification.sender.accept(audio=True)

    NotificationCenter().add_observer(accept, "SIPSessionNewIncoming")
    yield pair
    NotificationCenter().remove_observer(accept, "SIPSessionNewIncoming")


class Program:
    """An example in the background, with the lines it prints."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        assert self.process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._queue.put(line)

    def wait(self, pattern: str) -> re.Match[str]:
        """The first line that matches, printed already or not."""
        while True:
            try:
                line = self._queue.get(timeout=20)
            except queue.Empty:
                raise AssertionError(f"no line like {pattern!r} in {self.lines}") from None
            self.lines.append(line)
            found = re.search(pattern, line)
            if found:
                return found

    def close(self) -> int:
        """Ctrl-C, then its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self._thread.join(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, timeout=60
    )


def test_outbound_call(answered: Pair, tmp_path: Path) -> None:
    done = run("outbound_call.py", answered.uri, "0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Ringing!",
        f"Session started with {answered.uri}",
        "Session ended by the local side",
        "Engine stopped",
    ]
    incoming = answered.watch.wait("SIPSessionNewIncoming").sender
    answered.ended(incoming)
    assert answered.watch.of(incoming)[-1] == "DidEnd remote"


def test_outbound_call_that_fails(answered: Pair) -> None:
    done = run("outbound_call.py", answered.uri.replace("bob", "nobody"), "5")
    assert done.returncode == 1
    assert "Failed to connect: 404" in done.stdout
    done = run("outbound_call.py", "bob")
    assert done.returncode == 1
    assert "bob" in done.stderr


def test_outbound_call_asyncio(answered: Pair) -> None:
    done = run("outbound_call_asyncio.py", answered.uri, "0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"Session started with {answered.uri}, opus",
        "Hanging up",
        "Session ended",
    ]
    done = run("outbound_call_asyncio.py", answered.uri.replace("bob", "nobody"))
    assert done.returncode == 1
    assert "Failed to connect: 404" in done.stdout


async def test_echo_bot(pair: Pair) -> None:
    program = Program("echo_bot.py", "0")
    try:
        port = int((await asyncio.to_thread(program.wait, r"'udp': \('[^']*', (\d+)\)"))[1])
        async with pair.alice.call(f"sip:anybody@127.0.0.1:{port}") as session:
            listening = asyncio.ensure_future(heard(session, 2.0))
            await audio_of(session).write(tone_bytes(1100, seconds=2.0))
            assert_tone(Wav(16000, (await listening).samples[16000:]), 1100)
        await asyncio.to_thread(program.wait, "has gone")
    finally:
        code = await asyncio.to_thread(program.close)
    assert code == 0


async def test_recorder(pair: Pair, tmp_path: Path) -> None:
    write_tone(tmp_path / "greeting.wav", 440, seconds=0.5)
    program = Program("recorder.py", str(tmp_path / "calls"), "0", str(tmp_path / "greeting.wav"))
    try:
        port = int((await asyncio.to_thread(program.wait, r"'udp': \('[^']*', (\d+)\)"))[1])
        async with pair.alice.call(f"sip:anybody@127.0.0.1:{port}") as session:
            assert_tone(await heard(session, 0.4), 440)
            await audio_of(session).write(tone_bytes(1300, seconds=2.0))
            await audio_of(session).drained()
            session.send_dtmf("#")
            await session.wait_for("SIPSessionDidEnd", timeout=10)
        path = (await asyncio.to_thread(program.wait, r"wrote (.*\.wav)"))[1]
    finally:
        code = await asyncio.to_thread(program.close)
    assert code == 0
    assert Path(path).parent == tmp_path / "calls"
    assert_tone(path, 1300)
