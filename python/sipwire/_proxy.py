"""The registrar and proxy of :mod:`sipwire.testing`."""

from __future__ import annotations

import time
import types
import typing as t
from collections.abc import Callable, Iterable, Mapping

from sipwire import _core
from sipwire.core import Route

__all__ = ["Proxy", "ProxyMessage", "ProxyRegistration", "Registrar"]

Wrong = t.Literal["challenge", "answer", "loop", "drop", "delay", "other_port", "second_answer"]


class ProxyRegistration(t.NamedTuple):
    """One place where a user of a :class:`Proxy` is registered."""

    user: str
    contact: str
    transport: str
    address: str
    port: int
    expires: float
    """Seconds left."""
    instance: str | None
    """``+sip.instance`` (RFC 5626), without quotes."""


class ProxyMessage(t.NamedTuple):
    """A message that came to a :class:`Proxy` or left it."""

    time: float
    """Seconds since 1970."""
    received: bool
    """It came to the proxy."""
    transport: str
    address: str
    """The other side's."""
    port: int
    data: bytes
    dropped: bool
    """It was lost on purpose."""

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")

    @property
    def first_line(self) -> str:
        return self.text.split("\r\n", 1)[0]

    @property
    def code(self) -> int | None:
        """Of a response; ``None`` for requests."""
        words = self.first_line.split(" ")
        return int(words[1]) if words[0] == "SIP/2.0" else None

    @property
    def method(self) -> str:
        """Of a request, or the one that a response answers."""
        if self.code is None:
            return self.first_line.split(" ")[0]
        return (self.header("CSeq") or "").split(" ")[-1]

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case; its compact form is another name."""
        for line in self.text.split("\r\n\r\n", 1)[0].split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.strip().lower() == name.lower():
                return value.strip()
        return None


class Proxy:
    """A registrar and proxy for tests, on its own thread and on real sockets: it asks for passwords, forks, and
    misbehaves on request.

    ``users`` are names with their passwords. Ports that are 0 are chosen; a transport whose port is ``None`` is off
    (``tls_port`` and ``wss_port`` need ``tls_certificate``, a PEM file with the key in it or in ``tls_private_key``).
    ``auth_names`` gives users another name in credentials. ``second_realm`` is asked for in the same 407. ``hosts``
    says where other domains are: name → (IP address, port). REGISTER below ``min_expires`` seconds is answered 423.

    As a pytest fixture::

        @pytest.fixture
        def proxy():
            with sipwire.testing.Proxy(users={"alice": "wondrous", "bob": "zanzibar"}) as proxy:
                yield proxy

        def test_alice_is_asked_for_her_password(proxy):
            alice = Account(proxy.uri("alice"), "wondrous")  # of a running engine
            alice.sip.outbound_proxy = proxy.route()
            alice.sip.register = True
            alice.save()
            proxy.wait_for_registration("alice")
            assert proxy.count("REGISTER") == 2

    Made for tests: it forwards to anybody, and what it keeps is in memory. Raises :exc:`~sipwire.EngineError` when a
    port is taken, :exc:`ValueError` naming an argument that cannot be used.
    """

    def __init__(
        self,
        users: Mapping[str, str],
        *,
        domain: str = "example.com",
        host: str = "127.0.0.1",
        udp_port: int | None = 0,
        tcp_port: int | None = 0,
        tls_port: int | None = None,
        ws_port: int | None = None,
        wss_port: int | None = None,
        tls_certificate: str | None = None,
        tls_private_key: str | None = None,
        authenticate: bool = True,
        auth_names: Mapping[str, str] | None = None,
        algorithms: Iterable[str] = ("SHA-256", "MD5"),
        qops: Iterable[str] = ("auth",),
        nonce_life: float = 60.0,
        second_realm: str | None = None,
        record_route: bool = True,
        min_expires: int = 0,
        max_expires: int = 3600,
        service_route: bool = False,
        gruu: bool = False,
        outbound: bool = True,
        hosts: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        self.domain = domain
        self._settings: dict[str, t.Any] = {
            "domain": domain,
            "users": dict(users),
            "auth_names": dict(auth_names or {}),
            "authenticate": authenticate,
            "algorithms": list(algorithms),
            "qops": list(qops),
            "nonce_life": float(nonce_life),
            "second_realm": second_realm,
            "record_route": record_route,
            "min_expires": min_expires,
            "max_expires": max_expires,
            "service_route": service_route,
            "gruu": gruu,
            "outbound": outbound,
            "hosts": dict(hosts or {}),
        }
        self._transports: dict[str, t.Any] = {
            "local_ip": host,
            "udp_port": udp_port,
            "tcp_port": tcp_port,
            "tls_port": tls_port,
            "ws_port": ws_port,
            "wss_port": wss_port,
            "tls_certificate": tls_certificate,
            "tls_private_key": tls_private_key,
            "tls_verify": False,
            "websocket_origins": ["*"],
        }
        self._core: _core.TestProxy | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> t.Self:
        """Binds the ports and serves. Raises :exc:`RuntimeError` when it runs already."""
        if self._core is not None:
            raise RuntimeError("the proxy runs already")
        self._core = _core.TestProxy.start(self._settings, self._transports)
        return self

    def stop(self) -> None:
        """Closes everything. Registrations and messages seen are gone. Harmless when it does not run."""
        if self._core is not None:
            self._core.stop()
            self._core = None

    def __enter__(self) -> t.Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.stop()

    def _running(self) -> _core.TestProxy:
        if self._core is None:
            raise RuntimeError("the proxy does not run: use it in a with statement, or start() it")
        return self._core

    # --- where it is --------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Transport → (address, port)."""
        return self._running().addresses()

    def port(self, transport: str = "udp") -> int:
        """Where it listens. Raises :exc:`KeyError` for a transport that is off."""
        return self.addresses[transport][1]

    def route(self, transport: str = "udp") -> Route:
        """What ``outbound_proxy`` and ``routes`` take."""
        address, port = self.addresses[transport]
        return Route(address, port, transport)

    def uri(self, user: str) -> str:
        """``sip:user@domain``."""
        return f"sip:{user}@{self.domain}"

    # --- users --------------------------------------------------------------------------------------------------------

    def set_user(self, name: str, password: str, *, auth_name: str | None = None) -> None:
        """Adds a user or changes a password."""
        self._running().set_user(name, password, auth_name)

    def remove_user(self, name: str) -> None:
        """Raises :exc:`KeyError` for a user that is not there."""
        if not self._running().remove_user(name):
            raise KeyError(name)

    @property
    def registrations(self) -> list[ProxyRegistration]:
        """Who is registered where now."""
        return [ProxyRegistration(*row) for row in self._running().registrations()]

    def forget_registrations(self) -> None:
        """Forgets them all, as a registrar that was started again."""
        self._running().forget_registrations()

    def wait_for_registration(self, user: str, *, timeout: float = 10.0) -> ProxyRegistration:
        """The first registration of a user. Raises :exc:`TimeoutError`."""

        def find() -> ProxyRegistration | None:
            return next((one for one in self.registrations if one.user == user), None)

        return _wait(find, timeout, lambda: f"{user} is not registered; {self._summary()}")

    # --- what it saw --------------------------------------------------------------------------------------------------

    @property
    def messages(self) -> list[ProxyMessage]:
        """What came and went, oldest first; the last 20,000."""
        return [ProxyMessage(*row) for row in self._running().messages()]

    def clear_messages(self) -> None:
        self._running().clear_messages()

    def count(self, method: str, code: int | None = None, *, received: bool | None = None) -> int:
        """How many requests of this method it received, or responses to it with this code it sent.

        ``received`` tells the direction otherwise.
        """
        came = received if received is not None else code is None
        return sum(1 for one in self.messages if (one.method, one.code, one.received) == (method, code, came))

    def wait_for_message(
        self, method: str, code: int | None = None, *, received: bool | None = None, timeout: float = 10.0
    ) -> ProxyMessage:
        """The first message as :meth:`count` counts it. Raises :exc:`TimeoutError`."""
        came = received if received is not None else code is None

        def find() -> ProxyMessage | None:
            wanted = (method, code, came)
            return next((one for one in self.messages if (one.method, one.code, one.received) == wanted), None)

        return _wait(find, timeout, lambda: f"no {method} {code or ''}; {self._summary()}")

    def _summary(self) -> str:
        lines = [f"{'>' if one.received else '<'} {one.first_line}" for one in self.messages[-20:]]
        return "it saw " + ("; ".join(lines) if lines else "nothing")

    # --- what it does wrong -------------------------------------------------------------------------------------------

    def misbehave(
        self,
        what: Wrong,
        *,
        method: str | None = None,
        code: int | None = None,
        skip: int = 0,
        times: int | None = None,
        stale: bool = False,
        seconds: float = 0.0,
        status: int = 503,
        reason: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Does something wrong from now on, with messages of ``method`` (``None``: any): responses with ``code``, or
        requests when that is ``None``. ``skip`` of them pass first, ``times`` are treated (``None``: all).

        With requests that come:

        - ``"challenge"`` asks for credentials for ever, each time with another nonce; ``stale=True`` says that is why.
        - ``"answer"`` answers with ``status``, ``reason`` and ``headers``: 302 with a Contact, 503 with Retry-After, ….
        - ``"loop"`` sends the request to itself.

        With messages that it sends, its own and forwarded ones, repetitions included:

        - ``"drop"`` loses them.
        - ``"delay"`` holds them back for ``seconds``.
        - ``"other_port"`` sends them from another port (UDP).
        - ``"second_answer"`` adds to a 200 for INVITE another one, as from another phone.

        The first that takes a message has it. Raises :exc:`ValueError` for anything else.
        """
        self._running().misbehave(
            {
                "what": what,
                "method": method,
                "code": code,
                "skip": skip,
                "times": times,
                "stale": stale,
                "seconds": float(seconds),
                "status": status,
                "reason": reason,
                "headers": list((headers or {}).items()),
            }
        )

    def behave(self) -> None:
        """Is honest again. What is held back still comes."""
        self._running().behave()

    def __repr__(self) -> str:
        return f"<Proxy {self.domain} {self._core.addresses() if self._core else 'stopped'}>"


Registrar = Proxy
"""A proxy is a registrar too; the name tells what a test is about."""

Found = t.TypeVar("Found")


def _wait(find: Callable[[], Found | None], timeout: float, why: Callable[[], str]) -> Found:
    deadline = time.monotonic() + timeout
    while (found := find()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(why())
        time.sleep(0.01)
    return found
