"""URIs, routes, credentials and errors: the small values everything else uses."""

from __future__ import annotations

import typing as t

from sipwire._core import SIPURI
from sipwire.errors import (
    CallBusy,
    CallCancelled,
    CallDeclined,
    CallFailed,
    CallTimeout,
    DNSLookupError,
    EngineError,
    IllegalStateError,
    MediaError,
    RegistrationFailed,
    SessionStateError,
    SIPWireError,
    TransferFailed,
)

__all__ = [
    "CallBusy",
    "CallCancelled",
    "CallDeclined",
    "CallFailed",
    "CallTimeout",
    "Credentials",
    "DNSLookupError",
    "EngineError",
    "IllegalStateError",
    "MediaError",
    "RegistrationFailed",
    "Route",
    "SIPURI",
    "SIPWireError",
    "SessionStateError",
    "TransferFailed",
]

TRANSPORTS: t.Final = ("udp", "tcp", "tls", "ws", "wss")


class Route:
    """Where requests are sent: an IP address (v4 or v6) or host name, a port and a transport. Immutable.

    ``port`` is 5060 unless given (5061 for TLS, 80 and 443 for WebSockets). Raises :exc:`ValueError` naming what cannot
    be used.
    """

    __slots__ = ("address", "port", "transport")

    address: str
    port: int
    transport: str

    def __init__(self, address: str, port: int | None = None, transport: str = "udp") -> None:
        if not isinstance(address, str):
            raise TypeError(f"address {address!r} of a Route is not a str")
        bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        if not bare or any(character.isspace() or character in '<>@;,/\\"' for character in bare):
            raise ValueError(f"address {address!r} of a Route is neither an IP address nor a host name")
        transport = str(transport).lower()
        if transport not in TRANSPORTS:
            raise ValueError(f"transport {transport!r} of a Route is none of {', '.join(TRANSPORTS)}")
        if port is None:
            port = {"tls": 5061, "ws": 80, "wss": 443}.get(transport, 5060)
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError(f"port {port!r} of a Route is not a number from 1 to 65535")
        _set(self, "address", bare)
        _set(self, "port", port)
        _set(self, "transport", transport)

    @classmethod
    def for_uri(cls, uri: SIPURI) -> Route:
        """The route a URI itself names: its host, port and transport."""
        transport = uri.transport or ("tls" if uri.secure else "udp")
        return cls(uri.host, uri.port, transport)

    @classmethod
    def parse(cls, text: str) -> Route:
        """From ``host``, ``host:port``, ``[IPv6]:port``, each with ``;transport=…``, or a SIP URI."""
        return cls.for_uri(SIPURI(text if text.startswith(("sip:", "sips:")) else f"sip:{text}"))

    if not t.TYPE_CHECKING:

        def __setattr__(self, name, value):
            raise AttributeError(f"a Route is read-only: cannot set {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Route):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, int, str]:
        return self.address.lower(), self.port, self.transport

    def __repr__(self) -> str:
        return f"Route({self.address!r}, port={self.port}, transport={self.transport!r})"

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.transport}:{host}:{self.port}"

    def __reduce__(self) -> tuple[t.Any, ...]:
        return Route, (self.address, self.port, self.transport)


_set = object.__setattr__


class Credentials:
    """Who one is to a server: ``uri`` and ``password``, or the hash ``ha1`` in its place, for one ``realm`` or any."""

    __slots__ = ("ha1", "password", "realm", "uri")

    def __init__(
        self, uri: SIPURI | str, password: str | None = None, *, realm: str | None = None, ha1: str | None = None
    ) -> None:
        self.uri = uri if isinstance(uri, SIPURI) else SIPURI(uri)
        self.password = password
        self.realm = realm
        self.ha1 = ha1

    def __repr__(self) -> str:
        return f"Credentials({str(self.uri)!r}, realm={self.realm!r})"  # never the secret
