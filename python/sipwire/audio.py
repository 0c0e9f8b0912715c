"""The audio of a session: frames out and in, files, digits, bridges, numbers.

All audio is signed 16-bit mono in the machine's byte order (little-endian everywhere this package runs), any number of
samples to write, 20 ms a frame to read. Nothing here disturbs the call: when Python is late, the peer hears silence and
a counter tells.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
import weakref

from sipwire import _core
from sipwire._core import AudioFrame, AudioStatistics
from sipwire.errors import MediaError, SessionStateError
from sipwire.notification import NotificationCenter, NotificationStream

if t.TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Generator

    from sipwire.session import Session

    Buffer = bytes | bytearray | memoryview | AudioFrame | t.Any
    """Anything with the buffer protocol over 16-bit samples or bytes."""

__all__ = ["AudioBridge", "AudioFrame", "AudioStatistics", "AudioStream", "FrameStream", "Playback"]

_CHUNK = 48_000
"""Samples given to the core at once while writing: enough for one turn of any ring, so long audio is not copied again
and again."""


class _Hub:
    """Lets the core wake one asyncio loop, through one file descriptor however many streams wait."""

    _hubs: t.ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Hub]] = weakref.WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.core = _core.WakeHub()
        self.signals: dict[int, asyncio.Event] = {}
        loop.add_reader(self.core.fileno(), self._woken)

    @classmethod
    def here(cls) -> _Hub:
        import asyncio

        loop = asyncio.get_running_loop()
        hub = cls._hubs.get(loop)
        if hub is None:
            hub = cls._hubs[loop] = cls(loop)
        return hub

    def _woken(self) -> None:
        for number in self.core.take():
            signal = self.signals.get(number)
            if signal is not None:
                signal.set()


class _Signal:
    """One thing a coroutine waits for. Clear it, look, and only then wait: what came in between is not lost."""

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._hub = _Hub.here()
        self.token = self._hub.core.token()
        self._event = self._hub.signals[self.token.number] = asyncio.Event()

    def clear(self) -> None:
        self._event.clear()

    async def wait(self) -> None:
        import asyncio

        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this stream was opened in another event loop")
        await self._event.wait()

    def close(self) -> None:
        if self._hub.signals.pop(self.token.number, None) is not None:
            self._hub.core.forget(self.token)

    def __del__(self) -> None:
        self.close()


class FrameStream:
    """What the peer says as an asynchronous iterator of frames; made by :meth:`AudioStream.frames`.

    Ends with the stream. ``overflow_ms`` tells how much was lost because nobody read.
    """

    def __init__(self, reader: _core.FrameReader) -> None:
        self._reader = reader
        self._signal = _Signal()
        self._closed = False
        reader.set_waker(self._signal.token)

    @property
    def overflow_ms(self) -> int:
        return self._reader.overflow_ms

    def __aiter__(self) -> AsyncIterator[AudioFrame]:
        return self

    async def __anext__(self) -> AudioFrame:
        while not self._closed:
            self._signal.clear()
            frame = self._reader.try_read()
            if frame is not None:
                return frame
            if self._reader.is_over:
                break
            await self._signal.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the iteration."""
        self._closed = True
        self._signal._event.set()


class Playback:
    """A wav file being played: ``await`` its end, or :meth:`wait` for it. Forgetting it does not stop it."""

    def __init__(self, core: _core.Playback) -> None:
        self._core = core

    def stop(self) -> None:
        self._core.stop()

    @property
    def is_finished(self) -> bool:
        return self._core.is_finished

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until the end; false after ``timeout`` seconds. Raises :exc:`MediaError` for a broken file."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            rest = 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))
            if self._core.wait(rest):
                self._check()
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _check(self) -> None:
        error = self._core.error
        if error is not None:
            raise MediaError(error)

    def __await__(self) -> Generator[t.Any, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        signal = _Signal()
        self._core.set_waker(signal.token)
        try:
            while True:
                signal.clear()
                if self._core.is_finished:
                    break
                await signal.wait()
        except BaseException:  # cancelled: nobody waits for the rest
            self._core.stop()
            raise
        finally:
            signal.close()
        self._check()


class AudioBridge:
    """Two calls that hear each other, until closed; also an ``(async) with`` block."""

    def __init__(self, core: _core.Bridge) -> None:
        self._core = core

    def close(self) -> None:
        self._core.close()

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> t.Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()


class AudioStream:
    """The audio of one session (``session.audio``).

    After the call the statistics stay; everything else raises :exc:`MediaError`.
    """

    max_ahead_ms = 200
    """How much may wait to be sent before :meth:`write` waits; set it before the first write."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._core: _core.Audio | None = None
        self._writer: _core.FrameWriter | None = None
        self._reader: _core.FrameReader | None = None
        self._write_signal: _Signal | None = None

    def __repr__(self) -> str:
        return f"<AudioStream of {self.session!r}>"

    def _handle(self) -> _core.Audio:
        if self._core is None:
            engine, number = self.session._core, self.session._number
            found = None if engine is None or number is None else engine.audio(number)
            if found is None:
                raise MediaError("the session has no audio")
            self._core = found
        return self._core

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def codec(self) -> str | None:
        return self.session.audio_codec

    @property
    def sample_rate(self) -> int | None:
        """Of the codec, Hz. Reading and writing convert."""
        return self.session.audio_sample_rate

    @property
    def encryption(self) -> str | None:
        """The SRTP suite in use; ``None`` in clear."""
        return self._handle().statistics().encryption

    @property
    def statistics(self) -> AudioStatistics:
        """Counters of both directions since the start; the final ones after the call."""
        return self._handle().statistics()

    def take_trace(self) -> list[tuple[float, float, float, int]]:
        """Packets received since the last call: (seconds since the start, arrival minus RTP time in ms, RFC 3550
        jitter in ms, packets lost before it). Empty unless the engine runs with ``trace_rtp``.
        """
        return self._handle().take_trace()

    @property
    def level(self) -> float:
        """Of the last frame from the peer, dB below full scale; silence is -127."""
        return self._handle().level

    @property
    def muted(self) -> bool:
        """While true, the peer hears silence instead of everything this side would send."""
        return self._handle().muted

    @muted.setter
    def muted(self, value: bool) -> None:
        self._handle().set_muted(bool(value))

    # --- frames from the peer ----------------------------------------------------------------------------------------

    def frames(self, rate: int = 16000, *, capacity_ms: int = 1000) -> FrameStream:
        """What the peer says from now on: ``async for frame in audio.frames()``, 20 ms each, at ``rate`` Hz.

        Each call opens a stream of its own. When more than ``capacity_ms`` wait, the newest are dropped and counted.
        """
        return FrameStream(self._handle().reader(rate, capacity_ms))

    def read(self, timeout: float | None = None, rate: int = 16000) -> AudioFrame | None:
        """Blocks for the next frame; ``None`` after ``timeout`` seconds or at the end. The first call starts it."""
        if self._reader is None or self._reader.rate != rate:
            self._reader = self._handle().reader(rate, 1000)
        reader = self._reader
        if timeout is not None:
            return reader.read(timeout)
        while not reader.is_over:
            frame = reader.read(1.0)
            if frame is not None:
                return frame
        return None

    # --- audio to the peer -------------------------------------------------------------------------------------------

    def _out(self) -> _core.FrameWriter:
        if self._writer is None:
            self._writer = self._handle().writer(self.max_ahead_ms)
        return self._writer

    async def write(self, pcm: Buffer, rate: int = 16000) -> None:
        """Sends audio of any length; waits while more than ``max_ahead_ms`` is queued.

        Returns when the last of it is queued. Raises :exc:`MediaError` when the stream ends first.
        """
        view = memoryview(pcm)
        if view.format not in ("h", "<h", "B", "b", "c"):
            raise TypeError(f"audio of format {view.format!r} is not signed 16-bit samples or bytes")
        if view.nbytes % 2:
            raise ValueError(f"audio of {view.nbytes} bytes is not whole 16-bit samples")
        rest, writer = view.cast("B"), self._out()
        while True:
            if self._write_signal is not None:
                self._write_signal.clear()
            taken = writer.try_write(rest[: 2 * _CHUNK], rate)
            rest = rest[2 * taken :]
            if not rest:
                return
            if self._write_signal is None or self._write_signal._hub is not _Hub.here():
                self._write_signal = _Signal()
                writer.set_waker(self._write_signal.token)
            elif not taken:
                await self._write_signal.wait()

    def write_nowait(self, pcm: Buffer, rate: int = 16000) -> int:
        """Sends what fits now and returns how many samples were taken."""
        return self._out().try_write(pcm, rate)

    def clear(self) -> tuple[int, int]:
        """Drops what waits to be sent; returns (played, dropped) milliseconds since the last clear."""
        return (0, 0) if self._writer is None else self._writer.clear()

    @property
    def queued_ms(self) -> int:
        """Milliseconds written and not yet sent."""
        return 0 if self._writer is None else self._writer.queued_ms

    async def drained(self) -> None:
        """Waits until everything written was sent, or the stream is over."""
        writer = self._writer
        if writer is None:
            return
        while True:
            if self._write_signal is None or self._write_signal._hub is not _Hub.here():
                self._write_signal = _Signal()
                writer.set_waker(self._write_signal.token)
            self._write_signal.clear()
            if writer.is_drained or writer.is_over:
                return
            await self._write_signal.wait()

    def play(self, source: str | os.PathLike[str] | bytes, loop: int = 1) -> Playback:
        """Plays a wav file (a path, or its content) ``loop`` times (0: until stopped), mixed with everything else.

        Starts at once; ``await`` the result for the end. Raises :exc:`MediaError` naming a file that is no wav.
        """
        if isinstance(loop, bool) or not isinstance(loop, int) or loop < 0:
            raise ValueError(f"loop {loop!r} is not a count from 0 up")
        content = source if isinstance(source, bytes) else os.fspath(source)
        return Playback(self._handle().play(content, loop))

    def tone(self, hz: float | None, level: float = -10.0) -> None:
        """Sends a sine at ``level`` dB below full scale until replaced; ``None`` stops it."""
        self._handle().tone(hz, level)

    @property
    def echo(self) -> bool:
        """While true, the peer hears itself."""
        return self._echo

    @echo.setter
    def echo(self, value: bool) -> None:
        self._handle().echo(bool(value))
        self._echo = bool(value)

    _echo = False

    # --- everything else ---------------------------------------------------------------------------------------------

    def bridge(self, other: AudioStream | Session) -> AudioBridge:
        """Lets the peers of two calls hear each other until the bridge is closed or one call ends."""
        stream = other if isinstance(other, AudioStream) else other.audio
        if stream is None:
            raise MediaError(f"{other!r} has no audio to bridge")
        return AudioBridge(self._handle().bridge(stream._handle()))

    async def collect_digits(self, max: int, timeout: float, terminator: str | None = "#") -> str:
        """Collects up to ``max`` digits the peer types, also those typed since the last call.

        Returns at ``max``, at the ``terminator`` (not part of the result), after ``timeout`` seconds, or at the end of
        the call, with what there is.
        """
        import asyncio

        if isinstance(max, bool) or not isinstance(max, int) or max < 1:
            raise ValueError(f"max {max!r} is not a count from 1 up")
        session, digits = self.session, ""
        stream = NotificationStream(
            NotificationCenter(), (("SIPSessionGotDTMF", session), ("SIPSessionDidEnd", session))
        )
        with contextlib.suppress(TimeoutError):
            async with stream, asyncio.timeout(timeout):
                while True:
                    while session._digits:
                        digit = session._digits.popleft()
                        if digit == terminator:
                            return digits
                        digits += digit
                        if len(digits) == max:
                            return digits
                    if "SIPSessionDidEnd" in session._seen:
                        return digits
                    await anext(stream, None)
        return digits

    def start_recording(self, path: str | os.PathLike[str] | None = None, channels: str = "mix") -> None:
        """Records into a new wav file: ``"mix"`` one channel, ``"stereo"`` the peer left and this side right.

        Otherwise as :meth:`Session.start_recording_audio`.
        """
        if channels not in ("mix", "stereo"):
            raise ValueError(f"channels {channels!r} is neither mix nor stereo")
        self.session._record(path, stereo=channels == "stereo")

    def stop_recording(self) -> None:
        self.session.stop_recording_audio()

    def pause_recording(self) -> None:
        """Leaves out what is said from now on; raises :exc:`SessionStateError` when nothing is recorded."""
        self._recording("pause_recording", lambda core, number: core.pause_recording(number))

    def resume_recording(self) -> None:
        """Goes on; raises :exc:`SessionStateError` when nothing is recorded."""
        self._recording("resume_recording", lambda core, number: core.resume_recording(number))

    def _recording(self, verb: str, call: Callable[[_core.Engine, int], None]) -> None:
        if self.session.audio_recording_file_name is None:
            raise SessionStateError(f"{verb}() is not possible now: no recording", self.session.state)
        self.session._verb(verb, [], call)
