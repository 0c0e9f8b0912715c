"""Subscriptions in both roles, publications, and what they carry: message-summary, dialog-info, presence."""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections import deque

from sipwire.core import SIPURI
from sipwire.errors import EngineError

if t.TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterable, Sequence

    from sipwire.account import Account
    from sipwire.core import Route
    from sipwire.engine import Engine
    from sipwire.notification_data import SIPEngineGotSubscriptionData, SIPSubscriptionGotNotifyData

__all__ = [
    "DialogInfo",
    "IncomingSubscription",
    "MessageCount",
    "MessageSummary",
    "Presence",
    "PresenceTuple",
    "Publication",
    "Subscription",
    "SubscriptionState",
    "WatchedDialog",
]

_KEPT = 256
"""Updates kept for an iteration that is late; above it the oldest is left out."""

SubscriptionState = t.Literal["subscribing", "pending", "active", "waiting", "terminated"]
"""``waiting``: it failed, and is tried again by itself."""


# --- bodies ----------------------------------------------------------------------------------------------------------


class MessageCount(t.NamedTuple):
    """Messages of one class: "voice", "fax", …"""

    kind: str
    new: int
    old: int
    urgent_new: int
    urgent_old: int


class MessageSummary(t.NamedTuple):
    """The state of a mailbox (RFC 3842)."""

    messages_waiting: bool
    account: str | None
    counts: list[MessageCount]


class WatchedDialog(t.NamedTuple):
    """A call of somebody who is watched (RFC 4235)."""

    id: str
    state: str
    """"trying", "proceeding", "early", "confirmed" or "terminated"."""
    direction: str | None
    """"initiator" or "recipient"."""
    local_uri: str | None
    local_display_name: str | None
    remote_uri: str | None
    remote_display_name: str | None
    event: str | None
    """Why it is in that state: "cancelled", "rejected", "remote-bye", …"""
    code: int | None
    duration: int | None
    call_id: str | None
    local_tag: str | None
    remote_tag: str | None


class DialogInfo(t.NamedTuple):
    """The calls of somebody (RFC 4235): all of them when ``full``, else those that changed."""

    entity: str
    version: int
    full: bool
    dialogs: list[WatchedDialog]


class PresenceTuple(t.NamedTuple):
    """One way to reach somebody."""

    id: str
    is_open: bool | None
    contact: str | None
    note: str | None
    timestamp: str | None


class Presence(t.NamedTuple):
    """Whether somebody can be reached (RFC 3863), and what they do (RFC 4480)."""

    entity: str
    tuples: list[PresenceTuple]
    notes: list[str]
    activities: list[str]

    @property
    def is_open(self) -> bool:
        """One way is open."""
        return any(one.is_open for one in self.tuples)


Parsed = MessageSummary | DialogInfo | Presence


def _watched_dialog(*parts: tuple[t.Any, ...]) -> WatchedDialog:
    """For the core, which hands over tuples of bounded length."""
    return WatchedDialog(*(value for part in parts for value in part))


# --- subscriptions ---------------------------------------------------------------------------------------------------


class _Waiters:
    """Lets coroutines of any loop wait until something is so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                future.get_loop().call_soon_threadsafe(_finish, future)

    async def wait(self, is_so: t.Callable[[], bool]) -> None:
        import asyncio

        while True:
            with self._lock:
                if is_so():
                    return
                future = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
            await future


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Named:
    """What the core knows by a number and posts notifications of."""

    _END: t.ClassVar[tuple[str, ...]] = ("SIPSubscriptionDidEnd", "SIPPublicationDidEnd")

    def __init__(self, engine: Engine, number: int) -> None:
        self.engine = engine
        self._number = number
        self._over = threading.Event()
        self._waiters = _Waiters()
        self.end_reason: str | None = None
        """Why it ended; ``None`` before."""

    def _heard(self, name: str, data: t.Any) -> None:
        if name in self._END:
            self._close(data.reason)

    def _close(self, reason: str) -> None:
        if not self._over.is_set():
            self.end_reason = reason
            self._over.set()
        self._waiters.notify()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until it is over; false after ``timeout`` seconds."""
        return self._over.wait(timeout)

    async def ended(self) -> str:
        """Waits until it is over; gives the reason."""
        await self._waiters.wait(self._over.is_set)
        return self.end_reason or ""


class Subscription(_Named):
    """What somebody else tells us, kept up until :meth:`unsubscribe`; made by :meth:`Account.subscribe`.

    ``async for update in subscription`` gives the data of each SIPSubscriptionGotNotify (event, state, content_type,
    body, parsed, error) and ends with the subscription. Posts SIPSubscriptionDidStart(state, expires),
    SIPSubscriptionGotNotify, SIPSubscriptionDidFail(code, reason, retry_after), which is tried again by itself unless
    ``retry_after`` is ``None``, and at last SIPSubscriptionDidEnd(reason).
    """

    def __init__(self, account: Account, event: str, uri: SIPURI, number: int) -> None:
        super().__init__(account.engine, number)
        self.account, self.event, self.uri = account, event, uri
        self.state: SubscriptionState = "subscribing"
        self.content_type: str | None = None
        """Of the last body."""
        self.body: bytes = b""
        """The last body that was not empty."""
        self.parsed: Parsed | None = None
        """That body, when its type is one that is read."""
        self._updates: deque[SIPSubscriptionGotNotifyData] = deque(maxlen=_KEPT)

    def _heard(self, name: str, data: t.Any) -> None:
        match name:
            case "SIPSubscriptionDidStart":
                self.state = data.state
            case "SIPSubscriptionDidFail":
                self.state = "waiting"
            case "SIPSubscriptionDidEnd":
                self.state = "terminated"
            case "SIPSubscriptionGotNotify":
                if data.state != "terminated":
                    self.state = data.state
                if data.body:
                    self.content_type, self.body, self.parsed = data.content_type, data.body, data.parsed
                self._updates.append(data)
                self._waiters.notify()
        super()._heard(name, data)

    def _close(self, reason: str) -> None:
        self.state = "terminated"
        super()._close(reason)

    def unsubscribe(self) -> None:
        """Ends it; SIPSubscriptionDidEnd follows when the peer has said so, or did not in time. Silent when over."""
        core = self.engine._core
        if core is not None and core.is_running and not self.is_over:
            core.unsubscribe(self._number)

    def __aiter__(self) -> AsyncIterator[SIPSubscriptionGotNotifyData]:
        return self

    async def __anext__(self) -> SIPSubscriptionGotNotifyData:
        await self._waiters.wait(lambda: bool(self._updates) or self.is_over)
        if self._updates:
            return self._updates.popleft()
        raise StopAsyncIteration

    def __repr__(self) -> str:
        return f"<Subscription to {self.event} of {self.uri} {self.state}>"


class IncomingSubscription(_Named):
    """Somebody who watches something of ours; comes with SIPEngineGotSubscription.

    It is to be accepted or refused within 5 s, else the subscriber is told that it is pending. The sender of its
    SIPSubscriptionDidEnd(reason).
    """

    def __init__(self, account: Account, data: SIPEngineGotSubscriptionData, number: int) -> None:
        super().__init__(account.engine, number)
        self.account = account
        self.event = data.event
        self.from_uri = data.from_uri
        self.from_display_name = data.from_display_name
        self.to_uri = data.to_uri
        self.accepted_types = data.accept
        """Body types the subscriber takes; empty: those every implementation of the package takes."""

    def _core(self) -> t.Any:
        core = self.engine._core
        if core is None:
            raise EngineError(f"engine {self.engine.name!r} is not running")
        return core

    def accept(self, body: str | bytes | None = None, content_type: str = "text/plain") -> None:
        """Accepts it, with the state as it is now.

        Raises :exc:`ValueError` when that was decided already, or it is over.
        """
        self._core().accept_subscription(self._number, _typed(body, content_type))

    def reject(self, code: int = 403) -> None:
        """Refuses it with a code of 400 to 699; raises :exc:`ValueError` as :meth:`accept`."""
        self._core().reject_subscription(self._number, code)

    def notify(self, body: str | bytes | None = None, content_type: str = "text/plain") -> None:
        """Tells the state as it is now; raises :exc:`ValueError` unless it was accepted and lasts."""
        self._core().notify_subscription(self._number, _typed(body, content_type))

    def terminate(self, reason: str = "noresource") -> None:
        """Ends it: "noresource", "deactivated" (subscribe again at once), "probation", "giveup", … Silent when over."""
        core = self.engine._core
        if core is not None and core.is_running and not self.is_over:
            core.terminate_subscription(self._number, reason)

    def __repr__(self) -> str:
        return f"<IncomingSubscription of {self.from_uri} to {self.event}{' over' if self.is_over else ''}>"


class Publication(_Named):
    """A state of ours at a server (RFC 3903), refreshed until :meth:`remove`; made by :meth:`Account.publish_presence`.

    Posts SIPPublicationDidSucceed(expires), SIPPublicationDidFail(code, reason, retry_after) and at last
    SIPPublicationDidEnd(reason).
    """

    def __init__(self, account: Account, event: str, number: int) -> None:
        super().__init__(account.engine, number)
        self.account, self.event = account, event
        self.published = False
        """The server has our state."""

    def _heard(self, name: str, data: t.Any) -> None:
        self.published = name == "SIPPublicationDidSucceed"
        super()._heard(name, data)

    def _close(self, reason: str) -> None:
        self.published = False
        super()._close(reason)

    def update(
        self, is_open: bool = True, note: str | None = None, activities: Iterable[str] = (), contact: str | None = None
    ) -> None:
        """Publishes another state; raises :exc:`ValueError` when it is over."""
        body = presence_body(self.account, is_open, note, activities, contact)
        core = self.engine._running()
        core.modify_publication(self._number, "application/pidf+xml", body)

    def remove(self) -> None:
        """Takes the state away from the server; SIPPublicationDidEnd follows. Silent when it is over."""
        core = self.engine._core
        if core is not None and core.is_running and not self.is_over:
            core.unsubscribe(self._number)

    def __repr__(self) -> str:
        state = "over" if self.is_over else "published" if self.published else "publishing"
        return f"<Publication of {self.event} of {self.account.id!r} {state}>"


def _typed(body: str | bytes | None, content_type: str) -> tuple[str, bytes] | None:
    if body is None:
        return None
    return content_type, body.encode() if isinstance(body, str) else bytes(body)


def presence_body(
    account: Account, is_open: bool, note: str | None, activities: Iterable[str], contact: str | None
) -> bytes:
    """A presence document about an account."""
    from sipwire import _core

    words = [activities] if isinstance(activities, str) else list(activities)
    return _core.presence_document(str(account.uri), is_open, contact, note, words).encode()


def subscribe(
    account: Account,
    event: str,
    uri: SIPURI | str | None,
    expires: float,
    accept: str | Iterable[str] | None,
    routes: Sequence[Route] | None,
) -> Subscription:
    """What :meth:`Account.subscribe` does."""
    engine = account.engine
    core = engine._running()
    target = account.uri if uri is None else uri if isinstance(uri, SIPURI) else SIPURI(uri)
    number = engine._account_number(account)
    types = [accept] if isinstance(accept, str) else list(accept or ())
    seconds = _seconds(expires)
    chosen = _routes(account, target, routes)
    with engine._binding:
        given = core.subscribe(number, event, target, chosen, seconds, types)
        subscription = engine._subscriptions[given] = Subscription(account, event, target, given)
    return subscription


def publish_presence(
    account: Account,
    is_open: bool,
    note: str | None,
    activities: Iterable[str],
    contact: str | None,
    expires: float,
    routes: Sequence[Route] | None,
) -> Publication:
    """What :meth:`Account.publish_presence` does."""
    engine = account.engine
    core = engine._running()
    number = engine._account_number(account)
    body = presence_body(account, is_open, note, activities, contact)
    seconds = max(1, _seconds(expires))
    chosen = _routes(account, account.uri, routes)
    with engine._binding:
        given = core.publish(number, "presence", chosen, seconds, "application/pidf+xml", body)
        publication = engine._subscriptions[given] = Publication(account, "presence", given)
    return publication


def _seconds(expires: float) -> int:
    if not 0 <= expires < 2**31:
        raise ValueError(f"expires={expires!r}: not a number of seconds from 0 up")
    return round(expires)


def _routes(account: Account, uri: SIPURI, routes: Sequence[Route] | None) -> list[tuple[str, int, str]]:
    from sipwire.account import routes_for

    return [(route.address, route.port, route.transport) for route in routes_for(account, uri, routes)]
