"""baresip as caller and as callee: every codec, UDP and TCP, SRTP and plain; tones checked in both recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipwire.testing import assert_tone, write_tone

from .peers import Baresip, Command, free_port, why_no_baresip

pytestmark = pytest.mark.skipif(why_no_baresip() is not None, reason=str(why_no_baresip()))

OURS, THEIRS = 1000.0, 620.0  # Hz

CASES = [
    # codec, baresip's media encryption, our --srtp, transport
    ("opus", "srtp-mand", "mandatory", "udp"),
    ("opus", None, "disabled", "tcp"),
    ("G722", "srtp-mand", "mandatory", "tcp"),
    ("G722", None, "disabled", "udp"),
    ("PCMU", "srtp-mand", "mandatory", "udp"),
    ("PCMU", None, "disabled", "udp"),
    ("PCMA", "srtp-mand", "mandatory", "tcp"),
    ("PCMA", None, "disabled", "udp"),
    ("PCMU", "srtp", "optional", "udp"),
]


@pytest.mark.parametrize(("codec", "mediaenc", "srtp", "transport"), CASES)
def test_a_call_to_baresip_carries_both_tones(
    tmp_path: Path, codec: str, mediaenc: str | None, srtp: str, transport: str
) -> None:
    write_tone(tmp_path / "ours.wav", OURS, seconds=5, rate=16000, level_db=-9)
    with Baresip(tmp_path / "baresip", tone=THEIRS, codec=codec, srtp=mediaenc, transport=transport) as peer:
        uri = f"sip:baresip@127.0.0.1:{peer.port};transport={transport}"
        with Command(
            "call",
            uri,
            "--play",
            str(tmp_path / "ours.wav"),
            "--record",
            str(tmp_path / "call.wav"),
            "--stereo",
            "--codec",
            codec,
            "--srtp",
            srtp,
        ) as call:
            code = call.finish()
        assert code == 0, (call.lines, call.errors, peer.log()[-2000:])
        peer.wait_for("CALL_CLOSED")
        heard = peer.heard()
    assert call.result["codec"] == codec
    assert bool(call.result["encryption"]) == (srtp != "disabled")
    assert_tone(tmp_path / "call.wav", THEIRS, channel=0)
    assert_tone(tmp_path / "call.wav", OURS, channel=1)
    assert_tone(heard, OURS)


@pytest.mark.parametrize(("codec", "mediaenc", "srtp", "transport"), CASES)
def test_a_call_from_baresip_carries_both_tones(
    tmp_path: Path, codec: str, mediaenc: str | None, srtp: str, transport: str
) -> None:
    write_tone(tmp_path / "ours.wav", OURS, seconds=5, rate=16000, level_db=-9)
    port = free_port()
    with (
        Baresip(tmp_path / "baresip", tone=THEIRS, codec=codec, srtp=mediaenc, transport=transport) as peer,
        Command(
            "answer",
            "--listen",
            f"{transport}:127.0.0.1:{port}",
            "--play",
            str(tmp_path / "ours.wav"),
            "--record",
            str(tmp_path / "calls"),
            "--stereo",
            "--count",
            "1",
            "--srtp",
            srtp,
        ) as answer,
    ):
        answer.wait_for("SIPEngineDidStart")
        peer.dial(f"sip:sipwire@127.0.0.1:{port};transport={transport}")
        code = answer.finish()
        assert code == 0, (answer.lines, answer.errors, peer.log()[-2000:])
        peer.wait_for("CALL_CLOSED")
        heard = peer.heard()
    (recording,) = (tmp_path / "calls").glob("*.wav")
    assert_tone(recording, THEIRS, channel=0)
    assert_tone(recording, OURS, channel=1)
    assert_tone(heard, OURS)


def test_an_echo_comes_back_to_baresip(tmp_path: Path) -> None:
    port = free_port()
    with (
        Baresip(tmp_path / "baresip", tone=THEIRS, codec="opus") as peer,
        Command(
            "answer", "--echo", "--listen", f"udp:127.0.0.1:{port}", "--record", str(tmp_path / "calls"), "--count", "1"
        ) as answer,
    ):
        answer.wait_for("SIPEngineDidStart")
        peer.dial(f"sip:sipwire@127.0.0.1:{port}")
        peer.wait_for("CALL_ESTABLISHED")
        answer.wait_for("SIPSessionDidStartRecordingAudio")
        _let_it_record(tmp_path / "calls", seconds=4)
        peer.hang_up()
        assert answer.finish() == 0, (answer.lines, answer.errors)
        peer.wait_for("CALL_CLOSED")
        assert_tone(peer.heard(), THEIRS)
    assert [line["name"] for line in answer.lines if line.get("name", "").startswith("SIPSession")][-5:] == [
        "SIPSessionGotStreamUpdate",
        "SIPSessionWillStopRecordingAudio",
        "SIPSessionDidStopRecordingAudio",
        "SIPSessionChangedState",
        "SIPSessionDidEnd",
    ]


def test_baresip_refuses_plain_audio_when_we_must_encrypt(tmp_path: Path) -> None:
    with (
        Baresip(tmp_path / "baresip", tone=THEIRS, codec="PCMU") as peer,
        Command("call", f"sip:baresip@127.0.0.1:{peer.port}", "--srtp", "mandatory", "--seconds", "2") as call,
    ):
        assert call.finish() == 3, (call.lines, call.errors)
    assert call.result["code"] in (415, 488)


def _let_it_record(folder: Path, seconds: float) -> None:
    """Waits until the recording in `folder` holds that much audio (its file grows as the call goes on)."""
    import threading
    import wave

    pause = threading.Event()
    for _ in range(int(seconds * 20) + 200):
        for path in folder.glob("*.wav"):
            try:
                with wave.open(str(path)) as file:
                    if file.getnframes() >= seconds * file.getframerate():
                        return
            except (wave.Error, EOFError):
                pass
        pause.wait(0.05)
    raise AssertionError(f"no recording of {seconds} s in {folder}")
