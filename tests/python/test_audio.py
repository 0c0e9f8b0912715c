"""Audio through Python: frames, playing, recording, digits, bridges, statistics."""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from sipwire import Account, AudioStream, Engine, MediaError, Session, SessionStateError
from sipwire.testing import Wav, assert_tone, read_wav, tone_bytes, write_tone, write_wav

from .conftest import Pair, Watch


@pytest.fixture
def call(pair: Pair) -> Iterator[tuple[Session, Session]]:
    outgoing, incoming = pair.established()
    yield outgoing, incoming
    outgoing.end()
    pair.ended(outgoing, incoming)


def audio_of(session: Session) -> AudioStream:
    assert session.audio is not None
    return session.audio


async def heard(session: Session, seconds: float, rate: int = 16000) -> Wav:
    """What comes from the peer, as one recording."""
    samples, stream = array.array("h"), audio_of(session).frames(rate)
    async for frame in stream:
        samples.frombytes(bytes(frame))
        if len(samples) >= seconds * rate:
            break
    return Wav(rate, samples)


# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
async def test_what_is_written_is_heard(call: tuple[Session, Session], rate: int) -> None:
    outgoing, incoming = call
    listening = asyncio.ensure_future(heard(incoming, 1.2, rate))
    audio = audio_of(outgoing)
    await audio.write(tone_bytes(700, seconds=1.5, rate=rate), rate=rate)
    assert_tone(await listening, 700)
    audio.clear()


async def test_frames_have_the_buffer_protocol(call: tuple[Session, Session]) -> None:
    async for frame in audio_of(call[0]).frames(rate=16000):
        samples = numpy.frombuffer(frame, "<i2")  # type: ignore[call-overload]
        assert len(frame) == len(samples) == 320
        assert (frame.rate, len(bytes(frame))) == (16000, 640)
        assert -127 <= frame.level <= 0
        assert memoryview(frame).readonly
        with pytest.raises(ValueError, match="read-only"):
            samples[0] = 1
        assert samples.tobytes() == bytes(frame)
        assert "16000 Hz" in repr(frame)
        break


async def test_timestamps_go_by_20_ms(call: tuple[Session, Session]) -> None:
    stream = audio_of(call[0]).frames()
    stamps = [(await anext(stream)).timestamp for _ in range(10)]
    steps = [round(after - before, 3) for before, after in itertools.pairwise(stamps)]
    assert steps == [0.02] * 9
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_writing_waits_for_the_line(call: tuple[Session, Session]) -> None:
    """A second of audio cannot be queued in less than the time it takes, less what may wait."""
    audio, loop = audio_of(call[0]), asyncio.get_running_loop()
    began = loop.time()
    await audio.write(tone_bytes(500, seconds=1.0))
    took = loop.time() - began
    assert 0.6 <= took < 5
    assert 0 < audio.queued_ms <= 240
    await audio.drained()
    assert audio.queued_ms == 0


async def test_clear_tells_what_was_played_and_dropped(call: tuple[Session, Session]) -> None:
    audio = audio_of(call[0])
    assert audio.clear() == (0, 0)
    taken = audio.write_nowait(tone_bytes(500, seconds=5.0))
    assert 0 < taken < 5 * 16000
    played, dropped = audio.clear()
    assert dropped > 0
    assert abs(played + dropped - taken / 16) < 60
    assert audio.queued_ms == 0


async def test_an_echo_through_python_on_both_sides(call: tuple[Session, Session]) -> None:
    outgoing, incoming = call

    async def echo() -> None:
        audio = audio_of(incoming)
        with contextlib.suppress(MediaError):  # the call may end between a frame and its echo
            async for frame in audio.frames(rate=16000):
                await audio.write(frame, rate=16000)

    echoing = asyncio.ensure_future(echo())
    listening = asyncio.ensure_future(heard(outgoing, 2.0))
    await audio_of(outgoing).write(tone_bytes(1000, seconds=2.0))
    recording = await listening
    assert_tone(Wav(16000, recording.samples[16000:]), 1000)
    outgoing.end()
    await asyncio.wait_for(echoing, 10)  # the frames end with the call


async def test_the_echo_switch(call: tuple[Session, Session]) -> None:
    outgoing, incoming = call
    audio_of(incoming).echo = True
    assert audio_of(incoming).echo
    listening = asyncio.ensure_future(heard(outgoing, 1.5))
    audio_of(outgoing).tone(620)
    assert_tone(Wav(16000, (await listening).samples[8000:]), 620)


def test_reading_blocks(call: tuple[Session, Session]) -> None:
    audio = audio_of(call[0])
    frames = [audio.read(5) for _ in range(5)]
    assert all(frame is not None and frame.rate == 16000 for frame in frames)
    ended = threading.Event()

    def read() -> None:
        while audio.read() is not None:
            pass
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    call[1].end()
    assert ended.wait(10)
    thread.join()


@pytest.mark.parametrize("pcm", [b"abc", "text", 5, None, numpy.zeros(4), numpy.zeros(4, "uint16")])
async def test_what_is_no_audio_is_refused(call: tuple[Session, Session], pcm: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        await audio_of(call[0]).write(pcm)
    with pytest.raises((TypeError, ValueError)):
        audio_of(call[0]).write_nowait(pcm)


async def test_bad_rates_are_refused(call: tuple[Session, Session]) -> None:
    for rate in (0, 7999, 1_000_000):
        with pytest.raises((MediaError, ValueError), match=str(rate)):
            audio_of(call[0]).frames(rate)


async def test_after_the_call(pair: Pair) -> None:
    outgoing, incoming = pair.established()
    audio = audio_of(outgoing)
    stream = audio.frames()
    await anext(stream)
    outgoing.end()
    await outgoing.wait_for("SIPSessionDidEnd")
    await incoming.wait_for("SIPSessionDidEnd")
    async for _ in stream:
        pass  # what was left, then the end
    assert audio.statistics.packets_sent > 0
    with pytest.raises(MediaError):
        await audio.write(tone_bytes(500, seconds=1))
    with pytest.raises(MediaError):
        audio.play(b"")
    with pytest.raises(MediaError):
        audio.frames()


async def test_audio_of_a_session_that_has_none(pair: Pair) -> None:
    session = Session(pair.alice)
    assert session.audio is None
    stream = AudioStream(session)
    with pytest.raises(MediaError, match="no audio"):
        _ = stream.level


# --- playing ---------------------------------------------------------------------------------------------------------


async def test_playing_a_file_and_its_content(call: tuple[Session, Session], tmp_path: Path) -> None:
    outgoing, incoming = call
    path = tmp_path / "tone.wav"
    write_tone(path, 850, seconds=0.8, rate=44100)
    for source in (path, path.read_bytes()):
        listening = asyncio.ensure_future(heard(incoming, 0.9))
        await asyncio.wait_for(audio_of(outgoing).play(source), 10)
        assert_tone(await listening, 850)


async def test_playing_in_a_loop_until_stopped(call: tuple[Session, Session], tmp_path: Path) -> None:
    write_tone(tmp_path / "tone.wav", 850, seconds=0.1)
    playback = audio_of(call[0]).play(tmp_path / "tone.wav", loop=0)
    assert not playback.wait(0.4)
    assert not playback.is_finished
    playback.stop()
    await asyncio.wait_for(playback, 10)
    assert playback.is_finished
    playback = audio_of(call[0]).play(tmp_path / "tone.wav", loop=3)
    assert await asyncio.to_thread(playback.wait, 10)


async def test_cancelling_stops_the_file(call: tuple[Session, Session], tmp_path: Path) -> None:
    write_tone(tmp_path / "tone.wav", 850, seconds=30)
    playback = audio_of(call[0]).play(tmp_path / "tone.wav")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await playback
    assert await asyncio.to_thread(playback.wait, 10)


def test_a_file_that_cannot_be_played_is_named(call: tuple[Session, Session], tmp_path: Path) -> None:
    audio = audio_of(call[0])
    (tmp_path / "text.wav").write_text("this is not audio")
    for path in (tmp_path / "missing.wav", tmp_path / "text.wav", tmp_path):
        with pytest.raises(MediaError, match=re.escape(path.name)):
            audio.play(path)
    with pytest.raises(MediaError):
        audio.play(b"RIFF")
    with pytest.raises(ValueError, match="-1"):
        audio.play(tmp_path / "missing.wav", loop=-1)
    assert call[0].state == "ESTABLISHED"


async def test_muting(call: tuple[Session, Session]) -> None:
    outgoing, incoming = call
    audio = audio_of(outgoing)
    audio.tone(600)
    assert_tone(await heard(incoming, 0.5), 600)
    audio.muted = True
    assert audio.muted
    quiet = Wav(16000, (await heard(incoming, 1.0)).samples[8000:])
    assert max(abs(sample) for sample in quiet.samples) < 100
    audio.muted = False
    assert_tone(Wav(16000, (await heard(incoming, 1.0)).samples[8000:]), 600)


# --- recording -------------------------------------------------------------------------------------------------------

PAIR_OF_RECORDING = [
    "WillStartRecordingAudio",
    "DidStartRecordingAudio",
    "WillStopRecordingAudio",
    "DidStopRecordingAudio",
]


async def test_recording_both_parties(pair: Pair, call: tuple[Session, Session], tmp_path: Path) -> None:
    outgoing, incoming = call
    audio_of(outgoing).tone(500)
    audio_of(incoming).tone(900)
    await heard(outgoing, 0.3)
    path = tmp_path / "both.wav"
    audio_of(outgoing).start_recording(path, channels="stereo")
    await outgoing.wait_for("SIPSessionDidStartRecordingAudio", timeout=10)
    assert outgoing.audio_recording_file_name == str(path)
    await heard(outgoing, 1.0)
    outgoing.stop_recording_audio()
    stopped = pair.watch.wait("SIPSessionDidStopRecordingAudio", outgoing)
    assert stopped.data.file_name == str(path)
    assert stopped.data.error is None
    assert [name for name in pair.watch.of(outgoing) if "Recording" in name] == PAIR_OF_RECORDING
    assert outgoing.audio_recording_file_name is None
    assert_tone(path, 900, channel=0)
    assert_tone(path, 500, channel=1)


def test_the_default_name_of_a_recording(pair: Pair, call: tuple[Session, Session], tmp_path: Path) -> None:
    outgoing, incoming = call
    outgoing.start_recording_audio()
    started = pair.watch.wait("SIPSessionDidStartRecordingAudio", outgoing)
    path = Path(started.data.file_name)
    assert path.parent == tmp_path
    assert re.fullmatch(r"\d{8}-\d{6}-bob@127\.0\.0\.1-outgoing\.wav", path.name)
    incoming.start_recording_audio("sub.wav")
    started = pair.watch.wait("SIPSessionDidStartRecordingAudio", incoming)
    assert started.data.file_name == str(tmp_path / "sub.wav")
    for _ in range(15):
        assert audio_of(outgoing).read(5) is not None
    outgoing.end()  # stops the recordings first
    pair.ended(outgoing, incoming)
    for session in (outgoing, incoming):
        names = pair.watch.of(session)
        assert [name for name in names if "Recording" in name] == PAIR_OF_RECORDING
        assert names.index("DidStopRecordingAudio") < names.index(
            "DidEnd local" if session is outgoing else "DidEnd remote"
        )
    assert read_wav(path).seconds > 0


@pytest.mark.parametrize(
    "user", ["../../etc/passwd", "a/b\\c", ".hidden", "x" * 500, "nul\x00byte", "\u202egnp.exe", "caf\u00e9", "a b"]
)
def test_default_names_are_harmless(pair: Pair, user: str, tmp_path: Path) -> None:
    session = Session(pair.alice)
    session.__class__ = type("Named", (Session,), {"remote_uri": type("URI", (), {"user": user, "host": "h/../x"})()})
    name = session._recording_name(str(tmp_path))
    assert len(name.encode()) <= 120
    assert re.fullmatch(r"\d{8}-\d{6}-[A-Za-z0-9@._+-]+\.wav", name)
    assert os.path.realpath(tmp_path / name).startswith(os.path.realpath(tmp_path) + os.sep)
    (tmp_path / name).touch()
    assert session._recording_name(str(tmp_path)) != name


def test_recordings_that_cannot_be(pair: Pair, call: tuple[Session, Session], tmp_path: Path) -> None:
    outgoing = call[0]
    (tmp_path / "there.wav").write_text("precious")
    for path in ("missing/folder/x.wav", "there.wav", "/proc/x.wav"):
        with pytest.raises(MediaError, match=re.escape(os.path.basename(path))):
            outgoing.start_recording_audio(path)
        name = str(tmp_path / path)
        stopped = pair.watch.wait(
            "SIPSessionDidStopRecordingAudio", outgoing, where=lambda one, name=name: one.data.file_name == name
        )
        assert stopped.data.error
    assert (tmp_path / "there.wav").read_text() == "precious"
    assert outgoing.state == "ESTABLISHED"
    with pytest.raises(ValueError, match="quadro"):
        audio_of(outgoing).start_recording("x.wav", channels="quadro")
    outgoing.start_recording_audio("good.wav")
    with pytest.raises(SessionStateError, match="recording"):
        outgoing.start_recording_audio("second.wav")
    assert not (tmp_path / "second.wav").exists()
    pair.watch.wait("SIPSessionDidStartRecordingAudio", outgoing)
    outgoing.stop_recording_audio()
    with pytest.raises(SessionStateError):
        outgoing.stop_recording_audio()
    pair.watch.wait("SIPSessionDidStopRecordingAudio", outgoing, where=lambda one: one.data.error is None)
    for verb in ("pause_recording", "resume_recording"):
        with pytest.raises(SessionStateError, match="no recording"):
            getattr(audio_of(outgoing), verb)()


async def test_pausing_a_recording_leaves_out_what_is_said(call: tuple[Session, Session], tmp_path: Path) -> None:
    outgoing = call[0]
    audio = audio_of(outgoing)
    audio.start_recording(tmp_path / "paused.wav")
    await heard(outgoing, 0.5)
    audio.pause_recording()
    await heard(outgoing, 1.0)
    audio.resume_recording()
    await heard(outgoing, 0.5)
    audio.stop_recording()
    await outgoing.wait_for("SIPSessionDidStopRecordingAudio", timeout=10)
    assert 0.7 < read_wav(tmp_path / "paused.wav").seconds < 1.4


# --- digits, bridges, numbers ----------------------------------------------------------------------------------------


async def test_collecting_digits(call: tuple[Session, Session]) -> None:
    outgoing, incoming = call
    audio = audio_of(incoming)
    for digit in "12#345":
        outgoing.send_dtmf(digit)
    assert await audio.collect_digits(max=4, timeout=10) == "12"
    assert await audio.collect_digits(max=2, timeout=10) == "34"
    assert await audio.collect_digits(max=2, timeout=2) == "5"
    assert await audio.collect_digits(max=2, timeout=0.05) == ""
    outgoing.end()
    assert await audio.collect_digits(max=2, timeout=10) == ""
    with pytest.raises(ValueError, match="0"):
        await audio.collect_digits(max=0, timeout=1)


async def test_a_bridge_between_two_calls(pair: Pair, call: tuple[Session, Session], watch: Watch) -> None:
    outgoing, incoming = call
    third = Engine("third")
    third.start(local_ip="127.0.0.1")
    carol = Session(Account("carol@127.0.0.1", engine=third))
    before = {notification.sender for notification in watch.heard}
    carol.connect(pair.uri, [pair.route], audio=True)
    second = watch.wait("SIPSessionNewIncoming", where=lambda one: one.sender not in before).sender
    second.accept(audio=True)
    watch.wait("SIPSessionDidStart", carol)
    watch.wait("SIPSessionDidStart", second)
    with audio_of(incoming).bridge(second):
        audio_of(outgoing).tone(740)
        assert_tone(Wav(16000, (await heard(carol, 1.5)).samples[8000:]), 740)
    quiet = Wav(16000, (await heard(carol, 1.5)).samples[16000:])
    assert max(abs(sample) for sample in quiet.samples) < 100
    carol.end()
    await carol.wait_for("SIPSessionDidEnd")
    third.stop()


async def test_statistics(call: tuple[Session, Session]) -> None:
    outgoing, incoming = call
    audio_of(outgoing).tone(500)
    await heard(incoming, 1.0)
    numbers = audio_of(incoming).statistics
    assert numbers.packets_received > 40
    assert numbers.bytes_received > numbers.packets_received
    assert numbers.packets_sent > 40
    assert numbers.lost == 0
    assert numbers.mos > 4
    assert (numbers.codec, numbers.encryption) == ("opus", "AES_CM_128_HMAC_SHA1_80")
    assert numbers.as_dict()["packets_received"] == numbers.packets_received
    assert audio_of(incoming).level > -30
    assert incoming.audio_was_received
    assert incoming.audio_remote_rtp_port_received == outgoing.audio_local_rtp_port


async def test_a_late_reader_is_counted(call: tuple[Session, Session]) -> None:
    stream = audio_of(call[0]).frames(capacity_ms=60)
    await heard(call[0], 0.5)  # meanwhile nobody reads the first one
    assert stream.overflow_ms > 100
    assert (await anext(stream)).timestamp > 0.1  # the jump tells what was lost


async def test_a_writer_that_runs_dry_is_told(pair: Pair, call: tuple[Session, Session]) -> None:
    audio = audio_of(call[0])
    await audio.write(tone_bytes(500, seconds=0.3))
    await heard(call[0], 0.5)  # meanwhile nobody writes
    await audio.write(tone_bytes(500, seconds=0.3))
    told = await call[0].wait_for("SIPSessionAudioUnderrun", timeout=10)
    assert told.data.missing_ms > 0
    assert audio.statistics.underruns > 0
    assert audio.statistics.underrun_ms >= told.data.missing_ms


async def test_the_numbers_stay_after_the_call(pair: Pair) -> None:
    """Also when nobody looked at the audio before."""
    outgoing, incoming = pair.established()
    await asyncio.sleep(0.1)
    outgoing.end()
    await incoming.wait_for("SIPSessionDidEnd")
    await outgoing.wait_for("SIPSessionDidEnd")
    assert audio_of(outgoing).statistics.packets_sent > 0
    assert audio_of(incoming).statistics.codec == "opus"


def test_wav_helpers(tmp_path: Path) -> None:
    write_wav(tmp_path / "stereo.wav", array.array("h", [1, -1] * 800).tobytes(), rate=8000, channels=2)
    assert list(read_wav(tmp_path / "stereo.wav", channel=1).samples[:3]) == [-1, -1, -1]
    with pytest.raises(ValueError, match="channel 2"):
        read_wav(tmp_path / "stereo.wav", channel=2)
    write_tone(tmp_path / "tone.wav", 440, seconds=0.5)
    assert_tone(tmp_path / "tone.wav", 440, snr_db=40)
    with pytest.raises(AssertionError, match="expected 441"):
        assert_tone(tmp_path / "tone.wav", 441, tolerance_hz=0.5)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"broken\.wav"):
        read_wav(tmp_path / "broken.wav")
