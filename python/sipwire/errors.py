"""The exceptions of the package, one tree under :exc:`SIPWireError`."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CallBusy",
    "CallCancelled",
    "CallDeclined",
    "CallFailed",
    "CallTimeout",
    "DNSLookupError",
    "EngineError",
    "IllegalStateError",
    "MediaError",
    "RegistrationFailed",
    "SIPWireError",
    "SessionStateError",
    "TransferFailed",
]


class SIPWireError(Exception):
    """Everything this package raises for reasons of its own. Bad arguments are ``ValueError`` and ``TypeError``."""


class EngineError(SIPWireError):
    """An option cannot be used, or the engine is not there; the text names the option, its value and the reason."""


class DNSLookupError(SIPWireError):
    """A URI leads to no address; the text names the host and the reason."""


class SessionStateError(SIPWireError, RuntimeError):
    """A method was called in a state that does not allow it: nothing was done and nothing is posted."""

    def __init__(self, message: str, state: str = "NULL", allowed: Iterable[str] = ()) -> None:
        super().__init__(message)
        from sipwire.notification_data import SessionState

        self.state = SessionState(state)
        """The state the session is in."""
        self.allowed = tuple(SessionState(name) for name in allowed)
        """The states the method is for; empty when the state is right and something else is missing."""

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (str(self), self.state, self.allowed)


IllegalStateError = SessionStateError


class UnknownSession(SIPWireError, KeyError):  # noqa: N818
    """The core has forgotten this session: it is over."""

    __str__ = Exception.__str__


class _Refused(SIPWireError):  # noqa: N818
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        """The SIP code; 0 when the cause is on this side."""
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code} {self.reason}" if self.code else self.reason


class CallFailed(_Refused):
    """A call was not established."""


class CallBusy(CallFailed):
    """486 or 600."""


class CallDeclined(CallFailed):
    """603."""


class CallTimeout(CallFailed):
    """408 or 504: nobody answered in time."""


class CallCancelled(CallFailed):
    """487, or ended from this side before it was answered."""


class RegistrationFailed(_Refused):
    """The registrar refused or did not answer."""


class TransferFailed(_Refused):
    """A transfer was refused."""


class MediaError(SIPWireError):
    """Audio that cannot be played, recorded or sent; the text names the file."""


_BY_CODE: dict[int, type[CallFailed]] = {
    408: CallTimeout,
    486: CallBusy,
    487: CallCancelled,
    504: CallTimeout,
    600: CallBusy,
    603: CallDeclined,
}


def call_failed(code: int, reason: str) -> CallFailed:
    """The exception for a code."""
    return _BY_CODE.get(code, CallFailed)(code, reason)
