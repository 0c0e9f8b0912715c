"""Real SIP peers as context managers: baresip (wav files as microphone and speaker) and SIPp."""

from __future__ import annotations

import json
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sipwire.testing import tone_bytes, write_wav

MODULES = next(
    (
        str(path)
        for path in (Path("/usr/lib/baresip/modules"), *Path("/usr/lib").glob("*/baresip/modules"))
        if path.is_dir()
    ),
    "",
)


def free_port() -> int:
    """A UDP and TCP port that is free now, with the next one (SIP over TLS in baresip) free as well."""
    for _ in range(200):
        with socket.socket() as tcp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
        if port > 65000:
            continue
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                for number in (port, port + 1):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
    raise RuntimeError("no free port on 127.0.0.1")


def interface() -> str | None:
    """A network interface other than loopback with an IPv4 address: baresip refuses to start without one."""
    for _, name in socket.if_nameindex():
        if name != "lo" and not name.startswith("ifb"):
            shown = subprocess.run(["ip", "-4", "-brief", "address", "show", name], capture_output=True, text=True)
            if len(shown.stdout.split()) >= 3:
                return name
    return None


def why_no_baresip() -> str | None:
    """The reason why baresip cannot run here; None when it can."""
    if shutil.which("baresip") is None or not MODULES:
        return "baresip is not installed (Debian: baresip-core)"
    if shutil.which("ip") is None or interface() is None:
        return "baresip needs a network interface other than loopback"
    return None


def why_no_sipp() -> str | None:
    """The reason why SIPp cannot run here; None when it can."""
    return None if shutil.which("sipp") else "SIPp is not installed (Debian: sip-tester)"


class Baresip:
    """One baresip that plays a tone as its microphone and keeps what it hears in `heard()`."""

    def __init__(
        self,
        folder: Path,
        *,
        tone: float,
        codec: str = "PCMU",
        srtp: str | None = None,
        transport: str = "udp",
        answer: str = "auto",
        seconds: int = 20,
    ) -> None:
        self.folder = folder
        self.port, self.control = free_port(), free_port()
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._seen: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        pcm = tone_bytes(tone, seconds=seconds, rate=48000, level_db=-9)
        channels = 2 if codec == "opus" else 1  # its Opus wants a file of two
        if channels == 2:
            pcm = b"".join(pcm[at : at + 2] * 2 for at in range(0, len(pcm), 2))
        write_wav(folder / "microphone.wav", pcm, rate=48000, channels=channels)
        modules = ["opus", "g722", "g711", "aufile", "sndfile", "aubridge", "srtp"]
        lines = [
            "poll_method epoll",
            f"sip_listen 127.0.0.1:{self.port}",
            f"net_interface {interface()}",
            f"audio_source aufile,{folder}/microphone.wav",
            "audio_player aubridge,nil",
            "audio_alert aubridge,alert",
            "audio_channels 1",
            "audio_srate 48000",
            "ausrc_srate 48000",
            "auplay_srate 48000",
            "rtp_ports 34000-44000",
            "jitter_buffer_delay 2-6",
            f"snd_path {folder}",
            f"module_path {MODULES}",
            *(f"module {name}.so" for name in modules),
            "module_tmp account.so",
            "module_app menu.so",
            "module_app ctrl_tcp.so",
            f"ctrl_tcp_listen 127.0.0.1:{self.control}",
        ]
        (folder / "config").write_text("\n".join(lines) + "\n")
        media = f";mediaenc={srtp}" if srtp else ""
        codec = {"opus": "opus/48000/2", "G722": "G722/16000/1"}.get(codec, f"{codec}/8000/1")
        carrier = "" if transport == "udp" else f";transport={transport}"
        (folder / "accounts").write_text(
            f"<sip:baresip@127.0.0.1{carrier}>;regint=0;answermode={answer};audio_codecs={codec}{media}\n"
        )
        (folder / "contacts").write_text("")

    def __enter__(self) -> Baresip:
        self._log = open(self.folder / "log", "w+")
        self._process = subprocess.Popen(
            ["baresip", "-f", str(self.folder)], stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 15
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", self.control), timeout=1)
                break
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError(f"baresip did not start:\n{self.log()}") from None
                threading.Event().wait(0.05)
        self._socket.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._socket.close()
        self._log.close()

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _read(self) -> None:
        """Netstrings of JSON: events and answers to commands."""
        data = b""
        try:
            while chunk := self._socket.recv(65536):
                data += chunk
                while b":" in data:
                    length, rest = data.split(b":", 1)
                    if len(rest) <= int(length):
                        break
                    message = json.loads(rest[: int(length)])
                    data = rest[int(length) + 1 :]
                    if message.get("event"):
                        self.events.put(message)
        except (OSError, ValueError):
            pass

    def command(self, command: str, params: str = "") -> None:
        text = json.dumps({"command": command, "params": params})
        self._socket.sendall(f"{len(text)}:{text},".encode())

    def dial(self, uri: str) -> None:
        self.command("dial", uri)

    def hang_up(self) -> None:
        self.command("hangup")

    def wait_for(self, kind: str, timeout: float = 15) -> dict[str, Any]:
        """The next event of that kind ("CALL_ESTABLISHED", "CALL_CLOSED", …)."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self.events.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(
                    f"baresip told no {kind} within {timeout} s, only "
                    f"{[e['type'] for e in self._seen]}:\n{self.log()[-3000:]}"
                ) from None
            self._seen.append(event)
            if event["type"] == kind:
                return event

    def heard(self) -> Path:
        """The wav of what came from the other side (complete once the call is closed)."""
        return max(self.folder.glob("dump-*-dec.wav"), key=lambda path: path.stat().st_size)


class SippResult:
    """What SIPp's own statistics say of a run."""

    def __init__(self, returncode: int, row: dict[str, str], output: str) -> None:
        self.returncode, self.row, self.output = returncode, row, output

    def count(self, name: str) -> int:
        return int(self.row[name])


def sipp(folder: Path, *arguments: str, timeout: float = 120) -> SippResult:
    """Runs SIPp in `folder` to its end and reads the last line of its statistics."""
    folder.mkdir(parents=True, exist_ok=True)
    statistics = folder / "statistics.csv"
    command = [
        "sipp",
        *arguments,
        "-i",
        "127.0.0.1",
        "-trace_stat",
        "-stf",
        str(statistics),
        "-fd",
        "1",
        "-nostdin",
        "-timeout_error",
    ]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
    rows = [line.split(";") for line in statistics.read_text().splitlines()] if statistics.exists() else []
    row = dict(zip(rows[0], rows[-1], strict=False)) if len(rows) > 1 else {}
    return SippResult(run.returncode, row, run.stdout[-3000:] + run.stderr[-3000:])


class Command:
    """`python -m sipwire …` in the background; its JSON lines are read as they come, so that it never waits for us."""

    def __init__(self, *arguments: str, cwd: Path | None = None) -> None:
        self.arguments = arguments
        self.cwd = cwd
        self.lines: list[dict[str, Any]] = []
        self.errors = ""
        self._new: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def __enter__(self) -> Command:
        command = [sys.executable, "-m", "sipwire", *self.arguments, "--json"]
        self.process = subprocess.Popen(
            command, cwd=self.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_errors)]
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self.lines.append(json.loads(line))
                self._new.put(self.lines[-1])
        self._new.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            self.errors = self.process.stderr.read()

    def wait_for(self, name: str, timeout: float = 30) -> dict[str, Any]:
        """The next notification with that name."""
        while (line := self._new.get(timeout=timeout)) is not None:
            if line.get("name") == name:
                return line
        raise AssertionError(f"no {name} from {self.arguments}: {self.lines} {self.errors}")

    def finish(self, timeout: float = 60, interrupt: bool = False) -> int:
        """Waits for the end (after Ctrl-C when asked); returns the exit code. Every line is in `lines` then."""
        if interrupt:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join()
        return code

    @property
    def result(self) -> Any:
        return self.lines[-1]["result"]
