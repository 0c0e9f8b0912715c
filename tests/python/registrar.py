"""A registrar in a thread, over UDP on loopback, that answers each request as the test says."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable

Answer = tuple[int, str, list[str]]
"""Code, reason, further header lines."""


class Request:
    """One REGISTER as it came."""

    def __init__(self, text: str, source: tuple[str, int]) -> None:
        self.text, self.source = text, source

    def header(self, name: str) -> str:
        """The value of the first line of this name; empty without one."""
        found = re.search(rf"(?mi)^{name}:[ \t]*(.*?)\r?$", self.text)
        return found[1] if found else ""

    @property
    def expires(self) -> int:
        return int(self.header("Expires"))

    def answer(self, code: int, reason: str, lines: list[str]) -> bytes:
        received = f";received={self.source[0]}"
        via = self.header("Via").replace(";rport", f";rport={self.source[1]}{received}", 1)
        head = [
            f"SIP/2.0 {code} {reason}",
            f"Via: {via}",
            *(f"{name}: {self.header(name)}" for name in ("From", "Call-ID", "CSeq")),
            f"To: {self.header('To')};tag=registrar",
            *lines,
            "Content-Length: 0",
        ]
        return ("\r\n".join(head) + "\r\n\r\n").encode()


class Registrar:
    """Grants what is asked unless `script` says otherwise; `requests` holds what came."""

    def __init__(self, script: Callable[[Request], Answer | None] | None = None) -> None:
        self.script = script or self.grant
        self.requests: list[Request] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @staticmethod
    def grant(request: Request) -> Answer:
        """200 for as long as was asked."""
        contacts = [] if request.expires == 0 else [f"Contact: {request.header('Contact')};expires={request.expires}"]
        return 200, "OK", contacts

    def _serve(self) -> None:
        while True:
            data, source = self._socket.recvfrom(65536)
            if data == b"stop":
                return
            if not data.startswith(b"REGISTER "):
                continue
            request = Request(data.decode(), source)
            self.requests.append(request)
            answer = self.script(request)
            if answer is not None:
                self._socket.sendto(request.answer(*answer), source)

    def close(self) -> None:
        self._socket.sendto(b"stop", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()
