"""Every example of README.md runs as it is printed, against an answerer of our own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from sipwire.testing import write_tone
from tests.interop.peers import Command, free_port
from tests.python.registrar import Registrar

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of that language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def test_the_python_examples_run(tmp_path: Path) -> None:
    port = free_port()
    ten_lines, observer = blocks("python")
    assert "127.0.0.1:5070" in ten_lines
    write_tone(tmp_path / "hello.wav", 440, seconds=1, rate=16000)
    with Command("answer", "--listen", f"udp:127.0.0.1:{port}", "--count", "1") as answer:
        answer.wait_for("SIPEngineDidStart")
        program = (observer + ten_lines).replace("5070", str(port))
        run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        assert answer.finish() == 0
    printed = run.stdout.split()
    for name in re.findall(r"SIPSession\w+", re.findall(r"^# (.*)$", observer, re.MULTILINE)[0]):
        assert name in printed
    assert (tmp_path / "call.wav").stat().st_size > 16000


def test_the_commands_run(tmp_path: Path) -> None:
    (commands,) = (block for block in blocks("") if block.startswith("sipwire "))
    answer, *others, register = (shlex.split(line, comments=True)[1:] for line in commands.splitlines())
    assert [words[0] for words in others] == ["call", "options", "message", "trace"]
    port = str(free_port())
    write_tone(tmp_path / "hello.wav", 440, seconds=1, rate=16000)
    with Command(*(word.replace("5070", port) for word in answer)) as answerer:
        answerer.wait_for("SIPEngineDidStart")
        for arguments in others:
            with Command(*(word.replace("5070", port) for word in arguments), cwd=tmp_path) as command:
                assert command.finish() == 0, (command.lines, command.errors)
                assert command.result["code"] == 200
        assert answerer.finish(interrupt=True) == 0
    assert (tmp_path / "call.wav").stat().st_size > 16000
    assert "OPTIONS" in (tmp_path / "call.svg").read_text()

    registrar = Registrar()
    try:
        with Command(*(word.replace("5080", str(registrar.port)) for word in register)) as command:
            command.wait_for("SIPAccountRegistrationDidSucceed")
            assert command.finish(interrupt=True) == 0, (command.lines, command.errors)
            assert command.result["account"] == "alice@127.0.0.1"
    finally:
        registrar.close()
    *up, last = registrar.requests  # another once the answer has told the address it is seen under
    assert up
    assert all(request.expires == 600 for request in up)
    assert last.expires == 0
