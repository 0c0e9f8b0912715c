"""SIP for Python on a Rust core: calls, audio, recording and named notifications.

Two faces over the same objects: the Middleware API (:class:`Session`, :class:`SessionManager`, observers of a
:class:`NotificationCenter`) and asyncio (``async with Engine()``, ``account.call``, ``engine.incoming()``).
"""

from sipwire._core import __version__
from sipwire.account import Account, AccountManager
from sipwire.audio import AudioBridge, AudioFrame, AudioStatistics, AudioStream
from sipwire.configuration import ConfigurationManager, SIPSimpleSettings
from sipwire.core import SIPURI, Credentials, Route
from sipwire.engine import Engine
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
from sipwire.lookup import DNSLookup
from sipwire.messaging import MessageOutcome, MessageRequest
from sipwire.notification import (
    Any,
    IObserver,
    Notification,
    NotificationCenter,
    NotificationData,
    ObserverWeakrefProxy,
    UnknownSender,
)
from sipwire.requests import InfoOutcome, InfoRequest, TransferOutcome, TransferRequest
from sipwire.session import Session, SessionManager, SessionState
from sipwire.subscription import (
    DialogInfo,
    IncomingSubscription,
    MessageCount,
    MessageSummary,
    Presence,
    PresenceTuple,
    Publication,
    Subscription,
    WatchedDialog,
)

__all__ = [
    "Account",
    "AccountManager",
    "Any",
    "AudioBridge",
    "AudioFrame",
    "AudioStatistics",
    "AudioStream",
    "CallBusy",
    "CallCancelled",
    "CallDeclined",
    "CallFailed",
    "CallTimeout",
    "ConfigurationManager",
    "Credentials",
    "DNSLookup",
    "DNSLookupError",
    "Engine",
    "DialogInfo",
    "EngineError",
    "IObserver",
    "IllegalStateError",
    "IncomingSubscription",
    "InfoOutcome",
    "InfoRequest",
    "MediaError",
    "MessageCount",
    "MessageOutcome",
    "MessageRequest",
    "MessageSummary",
    "Notification",
    "NotificationCenter",
    "NotificationData",
    "ObserverWeakrefProxy",
    "Presence",
    "PresenceTuple",
    "Publication",
    "RegistrationFailed",
    "Route",
    "SIPSimpleSettings",
    "SIPURI",
    "SIPWireError",
    "Session",
    "SessionManager",
    "SessionState",
    "SessionStateError",
    "Subscription",
    "TransferFailed",
    "TransferOutcome",
    "TransferRequest",
    "UnknownSender",
    "WatchedDialog",
    "__version__",
]
