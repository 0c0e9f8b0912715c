"""The command line: exit codes, what is said when something is wrong, and that nothing wrong passes for a call."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sipwire import Account, Engine
from sipwire.testing import write_tone
from tests.interop.peers import Command, free_port

OK, LOCAL_ERROR, USAGE, REFUSED, TIMED_OUT = range(5)


def run(*arguments: str, cwd: Path | None = None) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, JSON lines and stderr of a command."""
    command = [sys.executable, "-m", "sipwire", *arguments, "--json"]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["call"], "URI"),
        (["call", "nonsense"], '"nonsense"'),
        (["call", "sip:x@127.0.0.1:99999"], "99999"),
        (["call", "sip:x@127.0.0.1", "--dtmf", "12x"], "'x'"),
        (["call", "sip:x@127.0.0.1", "--seconds", "0"], "'0'"),
        (["call", "sip:x@127.0.0.1", "--seconds", "soon"], "'soon' is not a number of seconds"),
        (["call", "sip:x@127.0.0.1", "--proxy", "two words"], "two words"),
        (["options", "tel:+49"], "tel:+49"),
        (["answer", "--reject", "200"], "'200'"),
        (["answer", "--reject", "9999"], "'9999'"),
        (["answer", "--count", "0"], "'0'"),
        (["answer", "--echo", "--reject", "486"], "--reject"),
    ],
)
def test_wrong_arguments_are_named_and_end_with_2(arguments: list[str], named: str) -> None:
    code, lines, errors = run(*arguments)
    assert code == USAGE, errors
    assert named in lines[-1]["result"]["error"]
    assert named in errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["sip:x@127.0.0.1:9", "--play", "missing.wav"], "missing.wav"),
        (["sip:x@127.0.0.1:9", "--record", "nowhere/call.wav"], "nowhere"),
        (["sip:x@127.0.0.1:9", "--codec", "nope"], "nope"),
        (["sip:x@nowhere.invalid"], "nowhere.invalid"),
        (["sip:x@127.0.0.1:9;transport=tcp"], "127.0.0.1:9"),
        (["sips:x@127.0.0.1:9"], "TLS to 127.0.0.1:9: connection refused"),
    ],
)
def test_what_cannot_be_called_from_here_ends_with_1(arguments: list[str], named: str, tmp_path: Path) -> None:
    code, lines, _ = run("call", *arguments, cwd=tmp_path)
    assert code == LOCAL_ERROR, lines
    result = lines[-1]["result"]
    assert named in result.get("error", result.get("reason"))
    assert result.get("reason", "").count("cannot resolve") <= 1


def test_options_without_an_answer() -> None:
    code, lines, _ = run("options", "sip:127.0.0.1:9;transport=tcp")
    assert (code, lines[-1]["result"]["code"]) == (LOCAL_ERROR, 503)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        code, lines, _ = run("options", f"sip:127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.5")
    assert (code, lines[-1]["result"]["code"]) == (TIMED_OUT, 408)


def test_refused_and_not_answered() -> None:
    port = free_port()
    with Command("answer", "--listen", f"udp:127.0.0.1:{port}", "--reject", "603", "--count", "1") as answer:
        answer.wait_for("SIPEngineDidStart")
        code, lines, _ = run("call", f"sip:x@127.0.0.1:{port}")
        assert (code, lines[-1]["result"]) == (REFUSED, {"code": 603, "reason": "Decline"})
        assert answer.finish() == OK
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        code, lines, _ = run("call", f"sip:x@127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.5")
    assert (code, lines[-1]["result"]["code"]) == (TIMED_OUT, 408)


def test_a_file_that_is_no_wav_is_no_call_that_went_well(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "bad.wav").write_text("no wav")
    with Command("answer", "--listen", f"udp:127.0.0.1:{port}", "--count", "1") as answer:
        answer.wait_for("SIPEngineDidStart")
        code, lines, errors = run("call", f"sip:x@127.0.0.1:{port}", "--play", "bad.wav", cwd=tmp_path)
        assert code == LOCAL_ERROR
        assert "bad.wav" in lines[-1]["result"]["error"]
        assert "bad.wav" in errors
        assert answer.finish() == OK
    with Command(
        "answer", "--listen", f"udp:127.0.0.1:{port}", "--play", "bad.wav", "--count", "1", cwd=tmp_path
    ) as answer:
        answer.wait_for("SIPEngineDidStart")
        code, lines, _ = run("call", f"sip:x@127.0.0.1:{port}", "--seconds", "20")
        assert code == OK
        assert lines[-1]["result"]["seconds"] < 10  # the answerer hung up
        assert answer.finish() == OK
        assert "bad.wav" in answer.errors
        assert "Traceback" not in answer.errors


def test_recordings_of_an_answerer_started_again_do_not_overwrite_older_ones(tmp_path: Path) -> None:
    write_tone(tmp_path / "tone.wav", 440, seconds=0.3, rate=16000)
    port = free_port()
    for _ in range(2):
        with Command(
            "answer", "--listen", f"udp:127.0.0.1:{port}", "--record", str(tmp_path / "calls"), "--count", "1"
        ) as answer:
            answer.wait_for("SIPEngineDidStart")
            assert run("call", f"sip:x@127.0.0.1:{port}", "--play", str(tmp_path / "tone.wav"))[0] == OK
            assert answer.finish() == OK
    names = [path.name for path in (tmp_path / "calls").iterdir()]
    assert len(names) == 2
    assert all(re.fullmatch(r"\d{8}-\d{6}-sipwire@[\d.]+-incoming(-2)?\.wav", name) for name in names), names


@pytest.mark.parametrize(("listen", "called"), [("[::1]", "[::1]"), ("[::]", "[::1]"), ("[::]", "127.0.0.1")])
def test_ipv6_and_both_families_at_once(listen: str, called: str) -> None:
    port = free_port()
    with Command("answer", "--listen", f"udp:{listen}:{port}", "--echo") as answer:
        answer.wait_for("SIPEngineDidStart")
        code, lines, errors = run("options", f"sip:{called}:{port}")
        assert code == OK, (lines[-1], errors)
        code, lines, errors = run("call", f"sip:x@{called}:{port}", "--seconds", "0.5")
        assert code == OK, (lines[-1], errors)
        assert lines[-1]["result"]["packets_received"] > 0
        answer.wait_for("SIPSessionDidStart")  # the ACK found its way
        answer.wait_for("SIPSessionDidEnd")
        assert answer.finish(interrupt=True) == OK
    assert answer.result == {"answered": 1, "failed": 0}


def test_messages_and_their_exit_codes() -> None:
    engine = Engine("takes messages")
    engine.start(local_ip="127.0.0.1")
    try:
        account = Account("bob@127.0.0.1", engine=engine)
        host, port = engine.addresses["udp"]
        code, lines, errors = run("message", f"sip:bob@{host}:{port}", "hello")
        assert (code, lines[-1]["result"]) == (OK, {"code": 200, "reason": "OK"}), errors
        code, lines, _ = run("message", f"sip:bob@{host}:{port}", "read me", "--delivered", "--local-ip", "127.0.0.1")
        assert (code, lines[-1]["result"]["status"]) == (OK, "delivered")
        code, lines, _ = run("message", f"sip:nobody@{host}:{port}", "hello")
        assert (code, lines[-1]["result"]["code"]) == (REFUSED, 404)
        account.delete()
    finally:
        engine.stop()
    code, lines, _ = run("message", "sip:x@127.0.0.1:9;transport=tcp", "hello")
    assert (code, lines[-1]["result"]["code"]) == (LOCAL_ERROR, 503)
    code, _, errors = run("message", "sip:x@127.0.0.1", "hello", "--content-type", "nonsense")
    assert (code, "nonsense" in errors) == (LOCAL_ERROR, True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        code, lines, _ = run("message", f"sip:127.0.0.1:{silent.getsockname()[1]}", "x", "--timeout", "0.5")
    assert (code, lines[-1]["result"]["code"]) == (TIMED_OUT, 408)
