"""The settings of an account, in groups; each is checked when it is set and holds from :meth:`Account.save` on."""

from __future__ import annotations

import math
import re
import typing as t

from sipwire.core import SIPURI, Route

if t.TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MessageSummarySettings", "NATSettings", "PresenceSettings", "RTPSettings", "SIPSettings"]

_TOKEN: t.Final = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_CODECS: t.Final = ("opus", "G722", "PCMU", "PCMA")
_TRANSPORTS: t.Final = ("udp", "tcp", "tls", "ws", "wss")
_ALGORITHMS: t.Final = ("SHA-512-256", "SHA-256", "MD5")

_MOST_REDIRECTS = 10
"""A chain of redirections longer than this leads nowhere."""
_LEAST_SESSION_TIMER = 90.0
"""Seconds: no proxy takes less (RFC 4028 §4)."""
_MOST_SECONDS = float(2**31 - 1)


class _Group:
    """A group of settings: known names only, each checked when it is set."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = [name.removeprefix("_") for name in self.__slots__]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def _choice(name: str, value: Iterable[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Names out of those there are, in the spelling we use; at least one, none twice."""
    chosen = (value,) if isinstance(value, str) else tuple(value)
    spelled = {one.lower(): one for one in known}
    unknown = [one for one in chosen if not isinstance(one, str) or one.lower() not in spelled]
    if unknown or not chosen:
        raise ValueError(f"{name}={value!r}: choose from {', '.join(known)}")
    return tuple(dict.fromkeys(spelled[one.lower()] for one in chosen))


def _seconds(name: str, value: float, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r}: not a number of seconds")
    if not least <= value <= _MOST_SECONDS:
        raise ValueError(f"{name}={value!r}: not between {least:g} and {_MOST_SECONDS:.0f} s")
    return float(value)


def _not_there(name: str, value: object) -> None:
    """Refuses to switch on what this version does not have."""
    if value:
        raise ValueError(f"{name}={value!r}: this version does not have it yet")


class SIPSettings(_Group):
    """How an account signals."""

    __slots__ = (
        "_catch_all",
        "_digest_algorithms",
        "_follow_redirects",
        "_info_packages",
        "_instance_id",
        "_outbound_proxy",
        "_register",
        "_register_interval",
        "_registrar",
        "_require_100rel",
        "_session_timer",
        "_transport_list",
    )

    def __init__(self) -> None:
        self._register = False
        self._registrar: SIPURI | None = None
        self._outbound_proxy: Route | None = None
        self._register_interval = 600.0
        self._transport_list: tuple[str, ...] = ("udp", "tcp", "tls")
        self._follow_redirects = 0
        self._session_timer: float | None = 1800.0
        self._require_100rel = False
        self._digest_algorithms: tuple[str, ...] = _ALGORITHMS
        self._instance_id: str | None = None
        self._catch_all = False
        self._info_packages: tuple[str, ...] = ()

    @property
    def register(self) -> bool:
        """Registers while the engine runs, and keeps the registration up."""
        return self._register

    @register.setter
    def register(self, value: bool) -> None:
        self._register = bool(value)

    @property
    def registrar(self) -> SIPURI | None:
        """Where to register; a :class:`SIPURI`, its text or ``host[:port]``. ``None``: the domain of the account."""
        return self._registrar

    @registrar.setter
    def registrar(self, value: SIPURI | str | None) -> None:
        if isinstance(value, str):
            value = SIPURI(value if value.startswith(("sip:", "sips:")) else f"sip:{value}")
        if value is not None and not isinstance(value, SIPURI):
            raise ValueError(f"sip.registrar={value!r}: not a SIPURI")
        self._registrar = value

    @property
    def outbound_proxy(self) -> Route | None:
        """Where all requests go first; a :class:`Route` or its text, ``None`` for the host of the URI called."""
        return self._outbound_proxy

    @outbound_proxy.setter
    def outbound_proxy(self, value: Route | str | None) -> None:
        self._outbound_proxy = Route.parse(value) if isinstance(value, str) else value
        if self._outbound_proxy is not None and not isinstance(self._outbound_proxy, Route):
            raise ValueError(f"sip.outbound_proxy={value!r}: not a Route")

    @property
    def register_interval(self) -> float:
        """Seconds of registration to ask for; the registrar decides."""
        return self._register_interval

    @register_interval.setter
    def register_interval(self, value: float) -> None:
        self._register_interval = _seconds("sip.register_interval", value, 1.0)

    @property
    def transport_list(self) -> tuple[str, ...]:
        """Transports to use where a URI names none, in order of preference: udp, tcp, tls, ws, wss."""
        return self._transport_list

    @transport_list.setter
    def transport_list(self, value: Iterable[str]) -> None:
        self._transport_list = _choice("sip.transport_list", value, _TRANSPORTS)

    @property
    def follow_redirects(self) -> int:
        """So many redirections (3xx) are followed without asking; 0: a call or registration fails with the code."""
        return self._follow_redirects

    @follow_redirects.setter
    def follow_redirects(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_REDIRECTS:
            raise ValueError(f"sip.follow_redirects={value!r}: not a number from 0 to {_MOST_REDIRECTS}")
        self._follow_redirects = value

    @property
    def session_timer(self) -> float | None:
        """Seconds after which a call nobody refreshed is over (RFC 4028); ``None``: only when the peer asks for it."""
        return self._session_timer

    @session_timer.setter
    def session_timer(self, value: float | None) -> None:
        self._session_timer = None if value is None else _seconds("sip.session_timer", value, _LEAST_SESSION_TIMER)

    @property
    def require_100rel(self) -> bool:
        """Provisional answers have to be reliable (RFC 3262), in both directions."""
        return self._require_100rel

    @require_100rel.setter
    def require_100rel(self, value: bool) -> None:
        self._require_100rel = bool(value)

    @property
    def digest_algorithms(self) -> tuple[str, ...]:
        """What a password is proven with, strongest first; a challenge with none of these is not answered."""
        return self._digest_algorithms

    @digest_algorithms.setter
    def digest_algorithms(self, value: Iterable[str]) -> None:
        self._digest_algorithms = _choice("sip.digest_algorithms", value, _ALGORITHMS)

    @property
    def instance_id(self) -> str | None:
        """The name of this device at the registrar, ``urn:uuid:…`` (RFC 5626 §4.1).

        ``None`` chooses one: the same each time where the engine was given a port of its own, since only one program on
        this machine has that port; else a new one for each account object.
        """
        return self._instance_id

    @instance_id.setter
    def instance_id(self, value: str | None) -> None:
        if value is not None:
            import uuid

            try:
                value = uuid.UUID(value).urn
            except (AttributeError, TypeError, ValueError):
                raise ValueError(f"sip.instance_id={value!r}: not a urn:uuid:") from None
        self._instance_id = value

    @property
    def catch_all(self) -> bool:
        """Takes calls to any user that no other account matches."""
        return self._catch_all

    @catch_all.setter
    def catch_all(self, value: bool) -> None:
        self._catch_all = bool(value)

    @property
    def info_packages(self) -> tuple[str, ...]:
        """Info packages whose INFOs are taken (RFC 6086), as SIPSessionGotInfo; INFO without a package always is."""
        return self._info_packages

    @info_packages.setter
    def info_packages(self, value: Iterable[str]) -> None:
        names = (value,) if isinstance(value, str) else tuple(value)
        if not all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in names):
            raise ValueError(f"sip.info_packages={value!r}: not names of info packages")
        self._info_packages = names


class RTPSettings(_Group):
    """What the audio of an account is."""

    __slots__ = ("_audio_codec_list", "_srtp_encryption", "_symmetric")

    def __init__(self) -> None:
        self._srtp_encryption = "optional"
        self._audio_codec_list: tuple[str, ...] | None = None
        self._symmetric = True

    @property
    def srtp_encryption(self) -> str:
        """ "disabled", "optional" (used when both sides have it) or "mandatory" (calls without it fail)."""
        return self._srtp_encryption

    @srtp_encryption.setter
    def srtp_encryption(self, value: str) -> None:
        if value not in ("disabled", "optional", "mandatory"):
            raise ValueError(f"rtp.srtp_encryption={value!r}: not disabled, optional or mandatory")
        self._srtp_encryption = value

    @property
    def audio_codec_list(self) -> tuple[str, ...] | None:
        """Codecs in order of preference; ``None``: those of the engine."""
        return self._audio_codec_list

    @audio_codec_list.setter
    def audio_codec_list(self, value: Iterable[str] | None) -> None:
        self._audio_codec_list = None if value is None else _choice("rtp.audio_codec_list", value, _CODECS)

    @property
    def symmetric(self) -> bool:
        """Send to where packets come from rather than to where the SDP says."""
        return self._symmetric

    @symmetric.setter
    def symmetric(self, value: bool) -> None:
        self._symmetric = bool(value)


class NATSettings(_Group):
    """Ways through NATs beyond what a registration learns by itself; not part of this version."""

    __slots__ = ()

    @property
    def use_ice(self) -> bool:
        return False

    @use_ice.setter
    def use_ice(self, value: bool) -> None:
        _not_there("nat_traversal.use_ice", value)

    @property
    def stun_servers(self) -> tuple[str, ...]:
        return ()

    @stun_servers.setter
    def stun_servers(self, value: Iterable[str]) -> None:
        _not_there("nat_traversal.stun_servers", value)

    @property
    def turn_servers(self) -> tuple[str, ...]:
        return ()

    @turn_servers.setter
    def turn_servers(self, value: Iterable[str]) -> None:
        _not_there("nat_traversal.turn_servers", value)


class MessageSummarySettings(_Group):
    """Messages waiting (RFC 3842)."""

    __slots__ = ("_enabled",)

    def __init__(self) -> None:
        self._enabled = False

    @property
    def enabled(self) -> bool:
        """Asks for the state of the mailbox while the account is registered."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = bool(value)


class PresenceSettings(_Group):
    """Who is there; not done by itself in this version."""

    __slots__ = ()

    @property
    def enabled(self) -> bool:
        return False

    @enabled.setter
    def enabled(self, value: bool) -> None:
        _not_there("presence.enabled", value)
