"""What went over the wire: collected, drawn, saved, read back, and understood by tshark."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sipwire import Account, Engine
from sipwire.report import LiveLadder, SIPMessageTrace
from sipwire.trace import SIPTrace, read_trace


def message(
    number: int, *, received: bool = False, transport: str = "udp", host: str = "127.0.0.1", size: int = 0
) -> SIPMessageTrace:
    body = b"x" * size
    head = f"MESSAGE sip:bob@{host} SIP/2.0\r\nVia: SIP/2.0/{transport.upper()} a;branch=z9hG4bK{number}\r\n"
    head += f"From: <sip:a@b>;tag=1\r\nTo: <sip:bob@{host}>\r\nCall-ID: c{number}\r\nCSeq: {number} MESSAGE\r\n"
    data = f"{head}Content-Type: text/plain\r\nContent-Length: {size}\r\n\r\n".encode() + body
    return SIPMessageTrace(1_700_000_000.25 + number, received, (host, 5060), (host, 5070), transport, data)


def fields(capture: Path, *names: str) -> list[list[str]]:
    """What tshark reads in each packet."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    command = ["tshark", "-r", str(capture), "-d", "udp.port==5060,sip", "-d", "tcp.port==5060,sip", "-T", "fields"]
    done = subprocess.run(
        [*command, *(word for name in names for word in ("-e", name))], capture_output=True, text=True, check=True
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tshark_reads_a_capture_of_datagrams(tmp_path: Path, host: str) -> None:
    trace = SIPTrace()
    for number in range(3):
        trace.add(message(number, host=host, size=number * 500))
    trace.to_pcap(tmp_path / "udp.pcap")
    found = fields(tmp_path / "udp.pcap", "sip.Method", "sip.CSeq.seq", "sip.Call-ID", "udp.srcport", "_ws.malformed")
    assert found == [["MESSAGE", str(number), f"c{number}", "5060", ""] for number in range(3)]


def test_tshark_puts_the_segments_of_a_stream_together(tmp_path: Path) -> None:
    trace = SIPTrace()
    for number in range(2):
        trace.add(message(number, transport="tls", size=100_000))
    trace.to_pcap(tmp_path / "tcp.pcap")
    found = fields(tmp_path / "tcp.pcap", "sip.CSeq.seq", "tcp.seq", "sip.Content-Length")
    assert [row[0] for row in found if row[0]] == ["0", "1"]
    assert [row[2] for row in found if row[2]] == ["100000", "100000"]


@pytest.mark.parametrize("kind", ["pcap", "jsonl"])
def test_what_was_saved_is_read_back(tmp_path: Path, kind: str) -> None:
    trace = SIPTrace()
    for number in range(4):
        trace.add(message(number, size=9))
    getattr(trace, f"to_{kind}")(tmp_path / "saved")
    again = read_trace(tmp_path / "saved")
    assert [(row.data, row.source, row.destination, row.timestamp) for row in again.messages] == [
        (row.data, row.source, row.destination, row.timestamp) for row in trace.messages
    ]
    assert again.to_text() == trace.to_text()


def test_a_file_of_another_kind_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("hello\n")
    with pytest.raises(ValueError, match="line 1 of .*notes is no message of a trace"):
        read_trace(tmp_path / "notes")


def test_only_the_newest_messages_are_kept_and_the_others_counted() -> None:
    trace = SIPTrace(limit=2)
    for number in range(5):
        trace.add(message(number))
    assert ([row.data[-60:] for row in trace.messages], trace.dropped) == (
        [message(number).data[-60:] for number in (3, 4)],
        3,
    )


def test_mermaid_has_an_arrow_for_each_message() -> None:
    trace = SIPTrace(names={("127.0.0.1", 5060): "alice; #1"})
    trace.add(message(1))
    text = trace.to_mermaid()
    assert text.splitlines()[0] == "sequenceDiagram"
    assert "participant P0 as alice#59; #35;1<br/>127.0.0.1#58;5060" in text
    assert "P0->>P1: MESSAGE [0.000 s]" in text


def test_a_live_ladder_prints_each_message_once_and_the_parties_when_they_come() -> None:
    ladder = LiveLadder()
    first, echo = ladder.add(message(1)), ladder.add(message(1, received=True))
    assert "127.0.0.1:5060" in first
    assert "MESSAGE" in first
    assert echo == ""
    assert "127.0.0.1:5060" not in ladder.add(message(2))


def test_the_messages_of_two_engines_are_one_ladder() -> None:
    alice, bob = Engine("trace-alice"), Engine("trace-bob")
    with SIPTrace(alice, bob) as trace:
        for engine in (alice, bob):
            engine.start(local_ip="127.0.0.1", trace_sip=True)
        try:
            account = Account("alice@127.0.0.1", engine=alice)
            bobs = Account("bob@127.0.0.1", engine=bob)
            answer = alice.options(bobs.contact, account=account).wait(10)
            assert answer.code == 200
        finally:
            alice.stop()
            bob.stop()
    ladder = trace.to_text()
    assert ladder.count("OPTIONS") == 2
    assert "200 OK (OPTIONS)" in ladder
    assert "<svg" in trace.to_svg()


def run(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sipwire", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, "NO_COLOR": "1"})


def test_the_command_draws_another_one_live_and_writes_every_kind_of_file(tmp_path: Path) -> None:
    engine = Engine("trace-peer")
    engine.start(local_ip="127.0.0.1")
    try:
        peer = Account("peer@127.0.0.1", engine=engine).contact
        files = [word for kind in ("svg", "mermaid", "pcap", "save") for word in (f"--{kind}", str(tmp_path / kind))]
        done = run("trace", *files, "options", str(peer), "--local-ip", "127.0.0.1")
    finally:
        engine.stop()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    asked = next(index for index, line in enumerate(lines) if "OPTIONS" in line)
    assert "200 OK (OPTIONS)" in lines[asked + 1]
    assert "200 OK in" in lines[-1]
    assert "<svg" in (tmp_path / "svg").read_text()
    assert "sequenceDiagram" in (tmp_path / "mermaid").read_text()
    drawn = run("trace", str(tmp_path / "save"))
    assert drawn.returncode == 0
    assert "200 OK (OPTIONS)" in drawn.stdout
    assert "OPTIONS" in run("trace", str(tmp_path / "pcap")).stdout


def test_the_command_says_what_it_cannot_draw() -> None:
    done = run("trace", "nothing-there")
    assert done.returncode == 1
    assert "is neither a file nor one of the commands answer, call" in done.stderr
