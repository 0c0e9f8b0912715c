"""Garbage at every port of an engine in a call: the call, its recording and the next calls are not harmed."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from sipwire import Engine, NotificationCenter, Route, Session, _core
from sipwire.notification import Notification
from sipwire.testing import assert_tone, read_wav

from .conftest import Pair, Watch

SECONDS = 3.0
DATA = Path(__file__).parent.parent / "data"


def samples() -> list[bytes]:
    """SIP messages of real clients and of the torture tests."""
    found = [path.read_bytes() for path in sorted((DATA / "sip").rglob("*")) if path.is_file()]
    return [data for data in found if 20 < len(data) < 20_000 and b"SIP/2.0" in data[:2000]]


def mangled(data: bytes, dice: random.Random) -> bytes:
    """A message with something wrong in it."""
    match dice.randrange(8):
        case 0:
            return data[: dice.randrange(len(data))]
        case 1:
            at = dice.randrange(len(data))
            return data[:at] + dice.randbytes(dice.randrange(1, 40)) + data[at + dice.randrange(20) :]
        case 2:
            length = dice.choice([b"-1", b"0", b"99999999999999999999", b"70000", b"4294967296", b"1e3", b""])
            return data.replace(b"Content-Length: ", b"Content-Length: " + length + b"\r\nX: ")
        case 3:
            line = dice.choice(data.split(b"\r\n"))
            return data.replace(line, (line + b"\r\n") * dice.randrange(2, 200), 1)
        case 4:
            return data.replace(b"\r\n", dice.choice([b"\n", b"\r", b"\r\n ", b"\0"]))
        case 5:
            return data.replace(b":", b": " + b"a" * dice.choice([300, 9000]), 1)
        case 6:
            changed = bytearray(data)
            for _ in range(dice.randrange(1, 30)):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
            return bytes(changed)
        case _:
            return data


def lying(dice: random.Random, session: Session) -> bytes:
    """Requests that look like the call's, from somebody who does not know its tags."""
    method = dice.choice(["BYE", "CANCEL", "INVITE", "UPDATE", "ACK", "INFO", "REFER", "PRACK"])
    tag = dice.choice(["", ";tag=", ";tag=x", ";tag=" + "y" * 400])
    body = dice.choice(["", "v=0\r\nm=audio 0 RTP/AVP 0\r\n", "m=audio 99999 X 1\r\n" * 300])
    lines = [
        f"{method} sip:bob@127.0.0.1 SIP/2.0",
        f"Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{dice.randrange(10**6)}",
        f"From: <sip:alice@127.0.0.1>{tag}",
        f"To: <sip:bob@127.0.0.1>{tag}",
        f"Call-ID: {session.call_id}",
        f"CSeq: {dice.choice(['1', '2', '4294967295', '99999999999', 'x'])} {method}",
        "Content-Type: application/sdp",
        f"Content-Length: {dice.choice([len(body), 0, 10, 99999])}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def packet(dice: random.Random) -> bytes:
    """RTP or RTCP of somebody else, right and wrong."""
    ssrc, number = dice.randrange(1 << 32), dice.randrange(1 << 16)
    payload = dice.randbytes(dice.choice([0, 1, 160, 1400]))
    match dice.randrange(7):
        case 0:
            return dice.randbytes(dice.randrange(1500))
        case 1:
            return struct.pack(">BBHII", 0x80, dice.choice([0, 8, 9, 96, 101]), number, number * 160, ssrc) + payload
        case 2:  # more sources, an extension and padding than there are bytes
            return struct.pack(">BBHII", 0xBF, 0, number, 0, ssrc) + dice.randbytes(dice.randrange(8)) + b"\xff\xff\xff"
        case 3:  # RTCP BYE
            return struct.pack(">BBHI", 0x81, 203, 1, ssrc)
        case 4:  # a report that lies about its length
            return (
                struct.pack(">BBHI", 0x9F, dice.choice([200, 201, 202, 205]), dice.choice([0, 1, 65535]), ssrc)
                + payload
            )
        case 5:
            return dice.randbytes(60_000)
        case _:
            return b""


@pytest.mark.parametrize("seed", [1])
def test_garbage_harms_neither_the_call_nor_the_next_ones(pair: Pair, tmp_path: Path, watch: Watch, seed: int) -> None:
    outgoing, incoming = pair.established()
    messages = samples()
    assert len(messages) > 20
    for session in (outgoing, incoming):
        session.audio.tone(500)
    while min(session.audio.level for session in (outgoing, incoming)) < -40:
        time.sleep(0.01)
    recordings = [tmp_path / "outgoing.wav", tmp_path / "incoming.wav"]
    for session, path in zip((outgoing, incoming), recordings, strict=True):
        session.audio.start_recording(path, channels="stereo")
    over = time.monotonic() + SECONDS
    counts = {"sip": 0, "rtp": 0, "tcp": 0}

    def sip(number: int) -> None:
        dice = random.Random(f"{seed} sip {number}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            while time.monotonic() < over:
                kind = dice.randrange(10)
                data = mangled(dice.choice(messages), dice)
                if kind == 0:
                    data = dice.randbytes(dice.choice([0, 1, 500, 65_000]))
                elif kind < 4:
                    data = mangled(lying(dice, incoming), dice)
                udp.sendto(data[:65_000], pair.callee.addresses["udp"])
                counts["sip"] += 1
                time.sleep(0.001)

    def rtp(number: int) -> None:
        dice = random.Random(f"{seed} rtp {number}")
        address, port = incoming.audio_local_rtp_address, incoming.audio_local_rtp_port
        assert port is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            while time.monotonic() < over:
                udp.sendto(packet(dice), (address, port + dice.randrange(2)))
                counts["rtp"] += 1
                time.sleep(0.001)

    def tcp(number: int) -> None:
        dice = random.Random(f"{seed} tcp {number}")
        while time.monotonic() < over:
            with contextlib.suppress(OSError), socket.create_connection(pair.callee.addresses["tcp"], 1) as stream:
                for _ in range(dice.randrange(1, 6)):
                    kind = dice.randrange(5)
                    data = mangled(dice.choice(messages), dice)
                    if kind == 0:
                        data = dice.randbytes(dice.choice([1, 5000, 300_000]))
                    elif kind == 1:
                        data = b"INVITE sip:a@b SIP/2.0\r\nX: " + b"y" * dice.choice([10, 70_000, 1_000_000])
                    for at in range(0, len(data), step := dice.choice([1_000_000, 700, len(data) // 3 + 1])):
                        stream.sendall(data[at : at + step])
                    counts["tcp"] += 1
                    time.sleep(0.002)
                if dice.randrange(2):  # a reset in place of an end
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    threads = [threading.Thread(target=part, args=(number,)) for part in (sip, rtp, tcp) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(counts.values()) > 100, counts
    for session in (outgoing, incoming):
        assert session.state == "ESTABLISHED"
        session.stop_recording_audio()
        watch.wait("SIPSessionDidStopRecordingAudio", session)
    for session, path in zip((outgoing, incoming), recordings, strict=True):
        assert session.audio.statistics.lost == 0
        wav = read_wav(path)
        assert wav.seconds > SECONDS - 0.5
        assert_tone(wav, 500, snr_db=20)
        assert _core.find_breaks(wav.samples, wav.rate) == ([], []), f"in what {session} heard"
    for engine in (pair.caller, pair.callee):
        stats = engine.stats()
        assert stats.panics == 0
    assert stats.ua.bad_messages > 100
    assert not [one for one in watch.heard if one.name == "SIPEngineGotException"]
    time.sleep(1.1)  # calls above invite_rate are refused for a second, whoever makes them
    NotificationCenter().add_observer(accepting, "SIPSessionNewIncoming")
    try:
        for transport in ("udp", "tcp"):
            route = Route(*pair.callee.addresses[transport], transport)
            again = Session(pair.alice)
            again.connect(pair.callee.sip_uri("bob", transport), [route], audio=True)
            watch.wait("SIPSessionDidStart", again)
            again.end()
            watch.wait("SIPSessionDidEnd", again)
    finally:
        NotificationCenter().remove_observer(accepting, "SIPSessionNewIncoming")


def accepting(notification: Notification) -> None:
    notification.sender.accept(audio=True)


def test_an_engine_started_fifty_times_leaves_nothing_behind(watch: Watch, tmp_path: Path) -> None:
    def open_now() -> tuple[int, int]:
        gc.collect()  # a session of an engine that has stopped keeps what is left of it
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    if not os.path.exists("/proc/self/task"):
        pytest.skip("needs /proc")
    for number in range(50):
        pair = Pair(watch, tmp_path)
        if number % 5 == 0:
            outgoing, _ = pair.established()
            outgoing.start_recording_audio(f"{number}.wav")
            del outgoing, _
        pair.stop()
        watch.heard.clear()
        if number == 5:
            before = open_now()
    assert open_now() == before
    assert not Engine("caller").is_running
