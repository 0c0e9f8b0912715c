"""SIPp as caller and as callee, over UDP and TCP."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .peers import Command, free_port, sipp, why_no_sipp

pytestmark = pytest.mark.skipif(why_no_sipp() is not None, reason=str(why_no_sipp()))


def test_2000_calls_from_sipp_at_100_a_second_are_all_answered(tmp_path: Path) -> None:
    port = free_port()
    with Command("answer", "--echo", "--listen", f"udp:127.0.0.1:{port}") as answer:
        answer.wait_for("SIPEngineDidStart")
        result = sipp(tmp_path, "-sn", "uac", f"127.0.0.1:{port}", "-r", "100", "-m", "2000")
        code = answer.finish(interrupt=True)
    assert (result.returncode, result.count("FailedCall(C)")) == (0, 0), result.output
    assert result.count("SuccessfulCall(C)") == 2000
    assert code == 0
    assert answer.result == {"answered": 2000, "failed": 0}
    by_session: dict[str, list[str]] = {}
    for line in answer.lines:
        if line.get("name", "").startswith("SIPSession"):
            state = f" {line['state']}" if line["name"] == "SIPSessionChangedState" else ""
            by_session.setdefault(line["sender"], []).append(line["name"].removeprefix("SIPSession") + state)
    expected = [
        "ChangedState INCOMING",
        "NewIncoming",
        "ChangedState ACCEPTING",
        "WillStart",
        "GotStreamUpdate",
        "ChangedState ESTABLISHED",
        "DidStart",
        "GotStreamUpdate",
        "ChangedState TERMINATED",
        "DidEnd",
    ]
    assert len(by_session) == 2000
    assert {tuple(names) for names in by_session.values()} == {tuple(expected)}


def test_calls_from_sipp_over_tcp_are_answered(tmp_path: Path) -> None:
    port = free_port()
    with Command("answer", "--listen", f"tcp:127.0.0.1:{port}") as answer:
        answer.wait_for("SIPEngineDidStart")
        result = sipp(tmp_path, "-sn", "uac", f"127.0.0.1:{port}", "-t", "t1", "-r", "50", "-m", "200")
        assert answer.finish(interrupt=True) == 0
    assert (result.returncode, result.count("FailedCall(C)")) == (0, 0), result.output
    assert answer.result == {"answered": 200, "failed": 0}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_call_to_sipp_is_set_up_and_ended(tmp_path: Path, transport: str) -> None:
    port = free_port()
    command = [
        "sipp",
        "-sn",
        "uas",
        "-i",
        "127.0.0.1",
        "-p",
        str(port),
        "-m",
        "1",
        "-nostdin",
        "-t",
        "u1" if transport == "udp" else "t1",
        "-timeout",
        "30",
        # It lingers 4 s after BYE and would take the end of our program, which closes the connection, for a failure.
        "-reconnect_close",
        "false",
    ]
    peer = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with Command(
            "call", f"sip:service@127.0.0.1:{port};transport={transport}", "--seconds", "1", "--srtp", "disabled"
        ) as call:
            code = call.finish()
        assert code == 0, (call.lines, call.errors)
        assert call.result["code"] == 200
        assert call.result["codec"] == "PCMU"
        assert peer.wait(30) == 0  # SIPp saw INVITE, ACK and BYE as its scenario says
    finally:
        peer.kill()
