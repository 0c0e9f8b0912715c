"""linphonec as a context manager: told what to do on its standard input, understood by what it prints."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from sipwire.testing import tone_bytes, write_wav

from .peers import free_port


def why_no_linphone() -> str | None:
    """The reason why linphonec cannot run here; None when it can."""
    return None if shutil.which("linphonec") else "linphonec is not installed (Debian: linphone-cli)"


class Linphone:
    """One linphonec that plays a tone from a file as its microphone and records what it hears.

    `account` is (domain, URI of the proxy, password): it registers there and calls through it. Over TLS it trusts `ca`
    but does not compare names: it knows no IP addresses in certificates.
    """

    def __init__(
        self,
        folder: Path,
        *,
        user: str = "linphone",
        tone: float = 700.0,
        auto_answer: bool = False,
        srtp: str = "none",
        transport: str = "udp",
        account: tuple[str, str, str] | None = None,
        ca: Path | None = None,
        seconds: int = 30,
    ) -> None:
        self.folder, self.user, self.transport, self._auto_answer = folder, user, transport, auto_answer
        self.port, self.tls_port = free_port(), free_port()
        (folder / ".local" / "share" / "linphone").mkdir(parents=True, exist_ok=True)  # else it opens no port
        write_wav(folder / "microphone.wav", tone_bytes(tone, seconds=seconds, rate=8000, level_db=-9), rate=8000)
        (folder / "rc").write_text(
            "\n".join(
                [
                    "[sip]",
                    f"sip_port={self.port if transport == 'udp' else 0}",
                    f"sip_tcp_port={self.port if transport == 'tcp' else 0}",
                    f"sip_tls_port={self.tls_port if transport == 'tls' else 0}",
                    "guess_hostname=0",
                    f'contact="{user}" <sip:{user}@127.0.0.1>',
                    f"root_ca={ca or '/nonexistent'}",
                    f"verify_server_certs={1 if ca else 0}",
                    "verify_server_cn=0",
                    f"media_encryption={srtp}",
                    "use_ipv6=0",
                    "register_only_when_network_is_up=0",
                    f"default_proxy={0 if account else -1}",
                    "[rtp]",
                    f"audio_rtp_port={free_port()}",
                    "[net]",
                    "firewall_policy=none",
                    "[misc]",
                    f"uuid={os.urandom(4).hex()}-0000-4000-8000-{os.urandom(6).hex()}",
                    *(_account(user, *account) if account else []),
                    "",
                ]
            )
        )
        self._read_to = 0

    def __enter__(self) -> Linphone:
        command = ["linphonec", "-c", str(self.folder / "rc"), "-d", "6", "-l", str(self.folder / "log")]
        home = {**os.environ, "HOME": str(self.folder)}
        self._process = subprocess.Popen(
            [*command, *(["-a"] if self._auto_answer else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env=home,
        )
        try:
            self.expect("SIP network reachability state is now .UP.")
        except BaseException:
            self._process.kill()
            raise
        self.tell("soundcard use files")
        self.tell(f"play {self.folder / 'microphone.wav'}")
        self.tell(f"record {self.folder / 'heard.wav'}")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.tell("quit")
            self._process.wait(5)
        except (subprocess.TimeoutExpired, OSError):
            self._process.kill()
            self._process.wait(5)

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def expect(self, pattern: str, timeout: float = 15.0) -> None:
        """Waits until its log has one more line that fits, behind the last one that was waited for."""
        deadline = time.monotonic() + timeout
        found = re.compile(pattern)
        while True:
            text = self.log()
            if match := found.search(text, self._read_to):
                self._read_to = match.end()
                return
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"linphonec logged no {pattern!r}, but:\n{text[self._read_to :][-8000:]}")
            self._process_wait()

    def _process_wait(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.05)

    def expect_registered(self) -> None:
        self.expect(r"moving from state \[LinphoneRegistrationProgress\] to \[LinphoneRegistrationOk\]")

    def expect_state(self, state: str, timeout: float = 15.0) -> None:
        """Waits for a call state: IncomingReceived, OutgoingRinging, Connected, StreamsRunning, Paused, End, …"""
        self.expect(rf"moving from state LinphoneCall\w+ to LinphoneCall{state}\b", timeout)

    def heard(self) -> Path:
        return self.folder / "heard.wav"

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""


def _account(user: str, domain: str, proxy: str, password: str) -> list[str]:
    return [
        "[proxy_0]",
        f"reg_proxy=<{proxy}>",
        f"reg_route=<{proxy};lr>",
        f"reg_identity=sip:{user}@{domain}",
        "reg_expires=600",
        "reg_sendregister=1",
        "publish=0",
        "[auth_info_0]",
        f"username={user}",
        f"passwd={password}",
        f"realm={domain}",
    ]
