"""What the notifications of the core carry: one frozen class for each name.

``NOTIFICATION_DATA`` is the table from name to class. The keys of each are promises; the core builds the values in this
order (``sipwire._core.notification_table()`` shows its side, and a test compares both with the specification).
"""

from __future__ import annotations

import enum
import typing as t

from sipwire.notification import NotificationData

if t.TYPE_CHECKING:
    import datetime

    from sipwire.core import SIPURI, Route
    from sipwire.subscription import MessageCount, Parsed


class SessionState(enum.StrEnum):
    """The states of a session. Each equals its name: ``session.state == "ESTABLISHED"``."""

    NULL = "NULL"
    CALLING = "CALLING"
    INCOMING = "INCOMING"
    ACCEPTING = "ACCEPTING"
    ESTABLISHED = "ESTABLISHED"
    PROPOSING = "PROPOSING"
    PROPOSED = "PROPOSED"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"


Originator = t.Literal["local", "remote"]


class _Timestamp:
    """The attribute ``timestamp``: kept as seconds, turned into a datetime when somebody looks."""

    def __init__(self, slot: t.Any) -> None:
        self._slot = slot

    def __get__(self, data: object, owner: type | None = None) -> t.Any:
        if data is None:
            return self
        value = self._slot.__get__(data, owner)
        if isinstance(value, (float, int)):
            import datetime

            value = datetime.datetime.fromtimestamp(value).astimezone()
            self._slot.__set__(data, value)
        return value

    def __set__(self, data: object, value: object) -> None:
        self._slot.__set__(data, value)


@t.dataclass_transform(kw_only_default=True, frozen_default=True)
class _Frozen(type):
    """Makes a class with slots, a constructor and nothing to change from the annotations of its body.

    `dataclasses` would do, but for its import time and its slow frozen constructor.
    """

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, t.Any]) -> t.Any:
        inherited: tuple[str, ...] = next((getattr(base, "_fields", ()) for base in bases), ())
        own = tuple(namespace.get("__annotations__", ()))
        keys = inherited + own
        namespace["__slots__"] = tuple("_timestamp" if key == "timestamp" else key for key in own)
        namespace["_fields"] = keys
        made: t.Any = super().__new__(cls, name, bases, namespace)
        if "timestamp" in own:
            made.timestamp = _Timestamp(made._timestamp)
        setters = {f"set_{key}": getattr(made, "_timestamp" if key == "timestamp" else key).__set__ for key in keys}
        body = "; ".join(f"set_{key}(self, {key})" for key in keys) or "pass"
        exec(f"def __init__(self, {', '.join(keys)}): {body}", setters)
        made.__init__ = setters["__init__"]
        return made


class TimestampedData(NotificationData, metaclass=_Frozen):
    """The keys all notifications of the core have."""

    timestamp: datetime.datetime

    if t.TYPE_CHECKING:
        _fields: t.ClassVar[tuple[str, ...]]
    else:

        def __setattr__(self, name, value):
            raise AttributeError(f"{type(self).__name__} is read-only: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is read-only: cannot delete {name!r}")

    def items(self) -> list[tuple[str, t.Any]]:
        return [(key, getattr(self, key)) for key in self._fields]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.items())})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.items() == other.items()

    __hash__ = None

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), tuple(getattr(self, key) for key in self._fields)


class SIPSessionChangedStateData(TimestampedData):
    prev_state: SessionState
    state: SessionState


class SIPSessionNewIncomingData(TimestampedData):
    streams: list[str]
    """What the peer offers: "audio", "chat"."""


class SIPSessionNewOutgoingData(TimestampedData):
    streams: list[str]


class SIPSessionGotRingIndicationData(TimestampedData):
    pass


class SIPSessionWillStartData(TimestampedData):
    pass


class SIPSessionDidStartData(TimestampedData):
    pass


class SIPSessionDidFailData(TimestampedData):
    originator: Originator
    code: int
    """The SIP code; 0 when the cause is on this side."""
    reason: str


class SIPSessionWillEndData(TimestampedData):
    pass


class SIPSessionDidEndData(TimestampedData):
    originator: Originator
    end_reason: str | None
    """What the Reason header of the peer or ``end(reason)`` said."""


class SIPSessionGotHoldRequestData(TimestampedData):
    originator: Originator


class SIPSessionGotUnholdRequestData(TimestampedData):
    originator: Originator


class SIPSessionWillStartRecordingAudioData(TimestampedData):
    file_name: str


class SIPSessionDidStartRecordingAudioData(TimestampedData):
    file_name: str


class SIPSessionWillStopRecordingAudioData(TimestampedData):
    file_name: str


class SIPSessionDidStopRecordingAudioData(TimestampedData):
    file_name: str
    error: str | None
    """Why it stopped by itself (disk full, …); the file is valid up to there."""


class SIPSessionGotNoAudioData(TimestampedData):
    pass


class SIPSessionGotDTMFData(TimestampedData):
    digit: str


class SIPSessionGotStreamUpdateData(TimestampedData):
    streams: list[str]
    """All that are active now."""


class SIPSessionGotStreamProposalData(TimestampedData):
    proposer: Originator
    streams: list[str]
    """What is to be added."""


class SIPSessionAcceptedStreamProposalData(TimestampedData):
    proposer: Originator


class SIPSessionRejectedStreamProposalData(TimestampedData):
    proposer: Originator
    reason: str


class SIPSessionDidChangeRouteData(TimestampedData):
    route: Route
    """The one tried now."""
    code: int
    """Why the one before failed."""
    reason: str


class SIPSessionAudioUnderrunData(TimestampedData):
    missing_ms: int
    """Silence sent since the last report because Python was late."""


class SIPSessionGotInfoData(TimestampedData):
    content: bytes
    content_type: str
    """As it came; empty for an INFO without a body."""
    info_package: str | None
    """``None`` for INFO of the older kind."""


class SIPSessionDidDeliverInfoData(TimestampedData):
    request: int
    code: int
    reason: str


class SIPSessionDidNotDeliverInfoData(TimestampedData):
    request: int
    code: int
    """408 when no answer came, 487 when the call ended first."""
    reason: str


class SIPSessionGotTransferRequestData(TimestampedData):
    target: SIPURI
    """Whom the peer wants us to call."""
    replaces: str | None
    """The Call-ID of the call at the target that the new one takes over; ``None`` for a blind transfer."""
    referred_by: SIPURI | None
    """Who the peer says it is; anybody can say anything here."""


class SIPSessionTransferNewOutgoingData(TimestampedData):
    target: SIPURI
    replaces: str | None
    """The Call-ID of our call that the peer is to take over; ``None`` for a blind transfer."""


class SIPSessionTransferDidStartData(TimestampedData):
    session: t.Any
    """The new session on the side that was asked; ``None`` on the side that asks."""


class SIPSessionTransferGotProgressData(TimestampedData):
    code: int
    """100 to 199: how far the peer's new call is."""
    reason: str


class SIPSessionTransferDidEndData(TimestampedData):
    code: int
    """200, or 202 when the peer has taken it on and what came of it is not known."""
    reason: str


class SIPSessionTransferDidFailData(TimestampedData):
    code: int
    reason: str


class SIPOptionsDidAnswerData(TimestampedData):
    request: int
    code: int
    reason: str
    rtt: float | None


class DNSLookupDidSucceedData(TimestampedData):
    request: int
    result: list[Route]
    """Best first."""


class DNSLookupDidFailData(TimestampedData):
    request: int
    error: str


class SIPMessageDidSucceedData(TimestampedData):
    request: int
    code: int
    reason: str


class SIPMessageDidFailData(TimestampedData):
    request: int
    originator: Originator
    """"local" when there was no answer."""
    code: int
    """408 when no answer came, 503 when it could not be sent."""
    reason: str


class SIPMessageDidGetDeliveryReportData(TimestampedData):
    from_uri: SIPURI
    message_id: str
    """What ``send_message`` gave as ``message_id``."""
    disposition: str
    """"delivery", "processing" or "display"."""
    status: str
    """"delivered", "failed", "displayed", "processed", "stored", "forbidden" or "error"."""


class SIPEngineGotMessageData(TimestampedData):
    account: t.Any
    """The account it is for."""
    session: t.Any
    """The call in whose dialog it came; ``None`` outside calls."""
    from_uri: SIPURI
    from_display_name: str | None
    to_uri: SIPURI
    content: bytes
    """The message, out of its CPIM wrapper."""
    content_type: str
    cpim_headers: dict[str, str] | None
    """Those of the wrapper; ``None`` without one."""
    message_id: str | None
    """Names it in a report (:meth:`Account.report_message`)."""
    disposition: list[str]
    """Reports its sender asks for: "positive-delivery" (sent by itself), "display", …"""

    @property
    def text(self) -> str:
        """The content as text: of the charset its type names, else UTF-8; what cannot be read is replaced."""
        import email.message

        parsed = email.message.Message()
        parsed["Content-Type"] = self.content_type
        charset = parsed.get_content_charset("utf-8")
        try:
            return self.content.decode(charset, "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")


class SIPSubscriptionDidStartData(TimestampedData):
    state: str
    """"active" or "pending"."""
    expires: int
    """Seconds until it is refreshed."""


class SIPSubscriptionGotNotifyData(TimestampedData):
    event: str
    state: str
    """"active", "pending" or "terminated"."""
    content_type: str | None
    body: bytes
    parsed: Parsed | None
    """The body, when its type is one that is read: message-summary, dialog-info, presence."""
    error: str | None
    """Why such a body could not be read."""


class SIPSubscriptionDidFailData(TimestampedData):
    code: int
    """0 when it was no answer."""
    reason: str
    retry_after: float | None
    """Seconds until it is tried again by itself; ``None``: it is over."""


class SIPSubscriptionDidEndData(TimestampedData):
    reason: str


class SIPEngineGotSubscriptionData(TimestampedData):
    subscription: t.Any
    """The :class:`IncomingSubscription`, to be accepted or refused."""
    account: t.Any
    event: str
    from_uri: SIPURI
    from_display_name: str | None
    to_uri: SIPURI
    expires: int
    """Seconds granted; 0 asks once."""
    accept: list[str]
    """Body types the subscriber takes."""


class SIPAccountGotMessageSummaryData(TimestampedData):
    messages_waiting: bool
    account_uri: str | None
    """The mailbox, as its server names it."""
    counts: list[MessageCount]


class SIPPublicationDidSucceedData(TimestampedData):
    expires: int


class SIPPublicationDidFailData(TimestampedData):
    code: int
    reason: str
    retry_after: float | None
    """Seconds until it is tried again by itself; ``None``: it is over."""


class SIPPublicationDidEndData(TimestampedData):
    reason: str


class SIPEngineWillStartData(TimestampedData):
    pass


class SIPEngineDidStartData(TimestampedData):
    pass


class SIPEngineDidFailData(TimestampedData):
    error: str


class SIPEngineWillEndData(TimestampedData):
    pass


class SIPEngineDidEndData(TimestampedData):
    pass


class SIPEngineCertificateWillExpireData(TimestampedData):
    certificate: str
    """The file: ``tls_certificate``."""
    expires: datetime.datetime
    """When it ends: within seven days, or in the past. Told once for each certificate."""


class SIPEngineSIPTraceData(TimestampedData):
    received: bool
    source: tuple[str, int]
    destination: tuple[str, int]
    transport: str
    data: bytes
    """The message as it was on the wire, with keys and passwords masked."""


class SIPEngineGotExceptionData(TimestampedData):
    error: str


class SIPAccountDidActivateData(TimestampedData):
    pass


class SIPAccountDidDeactivateData(TimestampedData):
    pass


class SIPAccountWillRegisterData(TimestampedData):
    pass


class SIPAccountRegistrationDidSucceedData(TimestampedData):
    contact: SIPURI
    expires: int
    registrar: Route


class SIPAccountRegistrationDidFailData(TimestampedData):
    code: int
    reason: str
    retry_after: float | None


class SIPAccountRegistrationDidEndData(TimestampedData):
    pass


class SIPAccountManagerDidAddAccountData(TimestampedData):
    account: t.Any


class SIPAccountManagerDidRemoveAccountData(TimestampedData):
    account: t.Any


class SIPAccountManagerDidChangeDefaultAccountData(TimestampedData):
    old_account: t.Any
    account: t.Any


NOTIFICATION_DATA: t.Final[dict[str, type[TimestampedData]]] = {
    kind.__name__.removesuffix("Data"): kind for kind in TimestampedData.__subclasses__()
}
"""Name of a notification → the class of its data."""
