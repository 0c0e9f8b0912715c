"""The notification center: who hears what, in which order and in which thread.

Everything the core reports arrives through one dispatcher thread per engine, in the order it happened. What Python code
posts itself is delivered in the posting thread before :meth:`NotificationCenter.post_notification` returns; a post made
inside a handler waits until the notification being delivered has reached all its observers (breadth first).

No lock of this module is held while an observer runs, so a handler may call anything, including this module.
"""

from __future__ import annotations

import threading
import time
import types
import typing as t
import weakref
from collections import deque

if t.TYPE_CHECKING:
    import asyncio
    import datetime as _datetime
    from collections.abc import AsyncIterator, Callable, Coroutine

__all__ = [
    "Any",
    "IObserver",
    "Notification",
    "NotificationCenter",
    "NotificationData",
    "NotificationStream",
    "ObserverWeakrefProxy",
    "UnknownSender",
]

_CACHED_NAMES = 4096
"""Dispatch lists kept per sender: far above the number of names in use, a bound for programs that invent names."""

_LOOP_BURST = 1000
"""Notifications handled in one turn of an asyncio loop before its other callbacks get theirs."""


@t.final
class _Constant:
    """A named constant that equals only itself."""

    __slots__ = ("__weakref__", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name


Any: t.Final = _Constant("Any")
"""Stands for every name or every sender in a registration."""

UnknownSender: t.Final = _Constant("UnknownSender")
"""The sender of a notification posted without one."""


class IObserver:
    """Marks a class whose instances take notifications through ``handle_notification``. Using it is optional."""

    __slots__ = ()

    def handle_notification(self, notification: Notification) -> object:
        raise NotImplementedError(f"{type(self).__name__} does not define handle_notification()")


class NotificationData:
    """What a notification carries: keywords that become attributes, to be read and written.

    The notifications of this package carry frozen subclasses of it, one for each name (``sipwire.notification_data``).
    """

    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> t.Self:
        # The typed subclasses have slots; only the plain bag (and subclasses of an application) has a dictionary.
        return t.cast("t.Self", object.__new__(_Bag)) if cls is NotificationData else object.__new__(cls)

    def __init__(self, **keywords: t.Any) -> None:
        self.__dict__.update(keywords)

    def items(self) -> list[tuple[str, t.Any]]:
        """The keys and their values."""
        return list(self.__dict__.items())

    def __repr__(self) -> str:
        return f"NotificationData({', '.join(f'{key}={value!r}' for key, value in self.items())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NotificationData):
            return NotImplemented
        return getattr(self, "__dict__", None) == getattr(other, "__dict__", None)

    __hash__ = None  # type: ignore[assignment]

    if t.TYPE_CHECKING:

        def __getattr__(self, name: str) -> t.Any: ...

        def __setattr__(self, name: str, value: t.Any) -> None: ...


class _Bag(NotificationData):
    pass


_Bag.__name__ = _Bag.__qualname__ = "NotificationData"


class Notification:
    """One thing that happened: ``name``, ``sender``, ``data``, ``timestamp`` and the ``center`` that delivers it."""

    __slots__ = ("_snapshot", "center", "data", "name", "sender", "timestamp")

    name: str
    sender: t.Any
    data: t.Any
    center: NotificationCenter
    timestamp: float
    """Seconds since 1970-01-01 UTC."""

    def __init__(self, name: str, sender: t.Any = UnknownSender, data: t.Any = None) -> None:
        self.name = name
        self.sender = sender
        self.data = data
        self.timestamp = time.time()
        self._snapshot: t.Any = None

    @property
    def datetime(self) -> _datetime.datetime:
        """The local time without a zone."""
        import datetime

        return datetime.datetime.fromtimestamp(self.timestamp)

    @property
    def utcdatetime(self) -> _datetime.datetime:
        """The time in UTC without a zone."""
        import datetime

        return datetime.datetime.fromtimestamp(self.timestamp, datetime.UTC).replace(tzinfo=None)

    def __repr__(self) -> str:
        return f"Notification(name={self.name!r}, sender={self.sender!r}, data={self.data!r})"


class _Viewing(threading.local):
    """What the handler that runs in this thread is looking at: a session reads its attributes as of that event."""

    sender: object = None
    snapshot: t.Any = None


viewing: t.Final = _Viewing()


def _log_failure(observer: object, notification: Notification) -> None:
    import logging

    logging.getLogger("sipwire.notification").exception(
        "observer %r failed while handling %s from %r", observer, notification.name, notification.sender
    )


class _Mailbox:
    """Hands notifications to one asyncio loop: one wake-up, however many wait."""

    __slots__ = ("__weakref__", "_armed", "_loop", "_pending")
    _boxes: t.ClassVar[weakref.WeakValueDictionary[int, _Mailbox]] = weakref.WeakValueDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pending: deque[tuple[Callable[[Notification], object], Notification]] = deque()
        self._armed = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Mailbox:
        """The mailbox all observers of this loop share, so that they hear in one order."""
        box = cls._boxes.get(id(loop))
        if box is None or box._loop is not loop:
            box = cls._boxes[id(loop)] = cls(loop)
        return box

    def put(self, call: Callable[[Notification], object], notification: Notification) -> bool:
        """Queues one delivery; false when the loop is closed."""
        self._pending.append((call, notification))
        if not self._armed:
            self._armed = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody is left to hear
                self._armed = False
                self._pending.clear()
                return False
        return True

    def _drain(self) -> None:
        self._armed = False  # first: what is put from here on asks for another turn
        pending = self._pending
        for _ in range(min(len(pending), _LOOP_BURST)):
            call, notification = pending.popleft()
            viewing.sender, viewing.snapshot = notification.sender, notification._snapshot
            try:
                call(notification)
            except Exception:
                _log_failure(call, notification)
            finally:
                viewing.sender = viewing.snapshot = None
        if pending and not self._armed:
            self._armed = True
            self._loop.call_soon(self._drain)


class _Serial:
    """Runs a coroutine observer in its loop, one notification after the other."""

    __slots__ = ("_function", "_loop", "_task", "_waiting")

    def __init__(
        self,
        function: Callable[[Notification], Coroutine[t.Any, t.Any, t.Any] | None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._function = function
        self._loop = loop
        self._waiting: deque[Notification] = deque()
        self._task: asyncio.Task[None] | None = None

    def __call__(self, notification: Notification) -> None:
        self._waiting.append(notification)
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        while self._waiting:
            notification = self._waiting.popleft()
            try:
                coroutine = self._function(notification)
                if coroutine is not None:  # a weak observer that is gone gives none
                    await coroutine
            except Exception:
                _log_failure(self._function, notification)


def _target(observer: t.Any) -> Callable[[Notification], t.Any]:
    """What is called with a notification: the observer's method, or the observer itself."""
    method = getattr(observer, "handle_notification", None)
    if callable(method):
        return t.cast("Callable[[Notification], t.Any]", method)
    if callable(observer):
        return t.cast("Callable[[Notification], t.Any]", observer)
    raise TypeError(f"observer {observer!r} has no handle_notification() and cannot be called")


def _is_coroutine_function(call: t.Any) -> bool:
    code = getattr(getattr(call, "__func__", call), "__code__", None)
    if code is not None:
        return bool(code.co_flags & 0x80)  # inspect.CO_COROUTINE; importing inspect costs more than this package
    method: t.Any = type(call).__call__
    return bool(getattr(getattr(method, "__code__", None), "co_flags", 0) & 0x80)


def _observer_key(observer: object) -> object:
    """Names an observer: by identity, bound methods by their object and function (each access makes a new one)."""
    if isinstance(observer, types.MethodType):
        return (id(observer.__self__), observer.__func__)
    return id(observer)


def _sender_key(sender: object) -> object:
    """Names a sender: strings (and string enums) by value, everything else by identity."""
    return sender if isinstance(sender, str) else id(sender)


class _Registration:
    """An observer under one key. ``call`` delivers to it, in this thread or through its loop."""

    __slots__ = ("call", "key", "live", "observer", "order")

    def __init__(self, observer: t.Any, loop: asyncio.AbstractEventLoop | None, center: NotificationCenter) -> None:
        self.observer = observer
        self.key = _observer_key(observer)
        self.order = 0
        self.live = True
        call = _target(observer)
        behind = observer._reference() if isinstance(observer, ObserverWeakrefProxy) else observer
        if _is_coroutine_function(_target(behind)):
            if loop is None:
                import asyncio

                try:
                    loop = asyncio.get_running_loop()
                except RuntimeError:
                    raise TypeError(f"coroutine observer {observer!r} needs loop=") from None
            call = _Serial(call, loop)
        self.call = call if loop is None else self._through(loop, call, center)

    def _through(
        self, loop: asyncio.AbstractEventLoop, call: Callable[[Notification], object], center: NotificationCenter
    ) -> Callable[[Notification], None]:
        mailbox = _Mailbox.of(loop)

        def hear(notification: Notification) -> None:
            if self.live:
                call(notification)

        def deliver(notification: Notification) -> None:
            if not mailbox.put(hear, notification):
                center.purge_observer(self.observer)

        return deliver


class _Slot:
    """The registrations for one sender, and the dispatch lists made from them."""

    __slots__ = ("lists", "names", "sender")

    def __init__(self, sender: Callable[[], object]) -> None:
        self.sender = sender  # a weak reference where the sender allows one
        self.names: dict[object, dict[object, _Registration]] = {}
        self.lists: dict[str, tuple[_Registration, ...]] = {}

    def belongs_to(self, sender: object) -> bool:
        known = self.sender()
        return known is sender or isinstance(sender, str)


class _Queue(threading.local):
    """Posts made while this thread delivers, for one center."""

    waiting: deque[Notification] | None = None


class NotificationCenter:
    """Takes notifications and hands them to the observers registered for their name and sender.

    There is one object for each ``name``; the engine posts to ``NotificationCenter()``.
    """

    _centers: t.ClassVar[dict[str, NotificationCenter]] = {}
    _creating: t.ClassVar[threading.Lock] = threading.Lock()

    name: str

    def __new__(cls, name: str = "default") -> NotificationCenter:
        with cls._creating:
            center = cls._centers.get(name)
            if center is None:
                center = cls._centers[name] = super().__new__(cls)
                center._prepare(name)
        return center

    def _prepare(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._everyone = _Slot(lambda: Any)
        self._slots: dict[object, _Slot] = {}
        self._order = 0
        self._queue = _Queue()
        self._gone: deque[tuple[str, object]] = deque()  # senders and weak observers that died while the lock was taken
        self._trace: Callable[[Notification], None] | None = None

    def __repr__(self) -> str:
        return f"NotificationCenter({self.name!r})"

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # a thread that is not here may have held the old one
        self._queue = _Queue()

    # --- registration ------------------------------------------------------------------------------------------------

    def add_observer(
        self,
        observer: t.Any,
        name: t.Any = Any,
        sender: t.Any = Any,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Registers an observer for a name and a sender; either may be ``Any``. Registering twice changes nothing.

        The observer is an object with ``handle_notification``, a callable or a coroutine function. It is kept alive
        until removed; wrap it in :class:`ObserverWeakrefProxy` to avoid that. The sender is not kept alive. With
        ``loop``, delivery happens in that asyncio loop; coroutine functions always run in one, by default the running
        one, one notification after the other.

        Raises :exc:`TypeError` when the observer cannot be called.
        """
        registration = _Registration(observer, loop, self)
        with self._lock:
            self._order += 1
            registration.order = self._order
            slot = self._slot(sender)
            slot.names.setdefault(name, {}).setdefault(registration.key, registration)
            self._changed(slot)
        self._sweep()

    def remove_observer(self, observer: t.Any, name: t.Any = Any, sender: t.Any = Any) -> None:
        """Takes back one registration; raises :exc:`KeyError` when there is none with exactly this key."""
        if not self._remove(_observer_key(observer), name, sender):
            raise KeyError(f"observer {observer!r} is not registered for name {name!r} and sender {sender!r}")

    def discard_observer(self, observer: t.Any, name: t.Any = Any, sender: t.Any = Any) -> None:
        """Takes back one registration if it is there."""
        self._remove(_observer_key(observer), name, sender)

    def purge_observer(self, observer: t.Any) -> None:
        """Takes back every registration of the observer. Slow with very many registrations."""
        self._purge(_observer_key(observer))

    def _remove(self, key: object, name: object, sender: object) -> bool:
        with self._lock:
            slot = self._everyone if sender is Any else self._slots.get(_sender_key(sender))
            if slot is None or not slot.belongs_to(sender):
                return False
            registrations = slot.names.get(name, {})
            registration = registrations.pop(key, None)
            if registration is None:
                return False
            registration.live = False
            if not registrations:
                del slot.names[name]
            if not slot.names and slot is not self._everyone:
                del self._slots[_sender_key(sender)]
            self._changed(slot)
        self._sweep()
        return True

    def _purge(self, key: object) -> None:
        with self._lock:
            self._purge_locked(key)
        self._sweep()

    def _purge_locked(self, key: object) -> None:
        for sender_key, slot in [(None, self._everyone), *self._slots.items()]:
            found = False
            for name, registrations in list(slot.names.items()):
                registration = registrations.pop(key, None)
                if registration is not None:
                    registration.live = False
                    found = True
                    if not registrations:
                        del slot.names[name]
            if found:
                if not slot.names and slot is not self._everyone:
                    del self._slots[sender_key]
                self._changed(slot)

    def _slot(self, sender: object) -> _Slot:
        if sender is Any:
            return self._everyone
        key = _sender_key(sender)
        slot = self._slots.get(key)
        if slot is None or not slot.belongs_to(sender):  # not: it died and its number was given to another object
            reference: Callable[[], object]
            try:
                reference = weakref.ref(sender, lambda _: self._note_gone("sender", key))
            except TypeError:  # strings and objects without weak references are kept
                reference = lambda: sender  # noqa: E731
            slot = self._slots[key] = _Slot(reference)
        return slot

    def _changed(self, slot: _Slot) -> None:
        if slot is self._everyone:
            for other in self._slots.values():
                other.lists = {}
        slot.lists = {}

    def _note_gone(self, what: str, key: object) -> None:
        # Runs wherever the garbage collector happens to run, even inside this class: never waits for the lock.
        self._gone.append((what, key))
        self._sweep()

    def _sweep(self) -> None:
        """Drops what belongs to dead senders and dead weak observers, now or when the lock is free."""
        while self._gone and self._lock.acquire(blocking=False):
            try:
                while self._gone:
                    what, key = self._gone.popleft()
                    if what == "observer":
                        self._purge_locked(key)
                    else:
                        slot = self._slots.get(key)
                        if slot is not None and slot.sender() is None:
                            del self._slots[key]
            finally:
                self._lock.release()

    # --- delivery ----------------------------------------------------------------------------------------------------

    def post_notification(self, name: t.Any, sender: t.Any = UnknownSender, data: t.Any = None) -> None:
        """Delivers a notification to its observers, in the order of their registration, in this thread.

        Inside a handler it is delivered after the current notification has reached all its observers. An observer that
        raises is logged and the next one still hears; an exception that is no :exc:`Exception` (``KeyboardInterrupt``)
        ends the delivery and reaches the caller. Raises :exc:`ValueError` when name or sender is ``Any``.
        """
        if name is Any or sender is Any:
            raise ValueError(f"a notification needs one name and one sender: got name {name!r}, sender {sender!r}")
        self.deliver(Notification(name, sender, NotificationData() if data is None else data))

    def deliver(self, notification: Notification) -> None:
        """Delivers a notification made before; see :meth:`post_notification`."""
        notification.center = self
        local = self._queue
        waiting = local.waiting
        if waiting is not None:
            waiting.append(notification)
            return
        waiting = local.waiting = deque()
        try:
            while True:
                self._dispatch(notification)
                if not waiting:
                    return
                notification = waiting.popleft()
        finally:
            local.waiting = None

    def _dispatch(self, notification: Notification) -> None:
        if self._trace is not None:
            self._trace(notification)
        sender = notification.sender
        slot = self._slots.get(sender if isinstance(sender, str) else id(sender))
        if slot is None or not slot.belongs_to(sender):
            slot = self._everyone
        registrations = slot.lists.get(notification.name)
        if registrations is None:
            registrations = self._collect(notification.name, sender)
        for registration in registrations:
            if not registration.live and not self._is_registered(registration, notification):
                continue  # removed by an observer that heard before it
            try:
                registration.call(notification)
            except Exception:
                _log_failure(registration.observer, notification)
            except BaseException:
                _log_failure(registration.observer, notification)
                raise

    def _collect(self, name: str, sender: object) -> tuple[_Registration, ...]:
        """Makes the dispatch list for a name and a sender, and keeps it until a registration changes."""
        with self._lock:
            key = _sender_key(sender)
            slot = self._slots.get(key)
            if slot is not None and not slot.belongs_to(sender):
                slot = None
            found: dict[object, _Registration] = {}
            for source in (self._everyone,) if slot is None else (slot, self._everyone):
                for wanted in (name, Any):
                    for registration in source.names.get(wanted, {}).values():
                        known = found.get(registration.key)
                        if known is None or registration.order < known.order:
                            found[registration.key] = registration
            registrations = tuple(sorted(found.values(), key=lambda registration: registration.order))
            lists = (slot or self._everyone).lists
            if len(lists) >= _CACHED_NAMES:
                lists.clear()
            lists[name] = registrations
        self._sweep()
        return registrations

    def _is_registered(self, registration: _Registration, notification: Notification) -> bool:
        now = self._collect(notification.name, notification.sender)
        return any(other.key == registration.key for other in now)

    # --- tools -------------------------------------------------------------------------------------------------------

    def trace(self, to: bool | t.TextIO = True) -> None:
        """Prints every notification with its time and thread to ``to`` (``True``: standard error) until ``False``."""
        if to is False:
            self._trace = None
            return

        def write(notification: Notification) -> None:
            import sys

            stream = sys.stderr if to is True else to
            clock = notification.datetime.isoformat(sep=" ", timespec="milliseconds")
            thread = threading.current_thread().name
            stream.write(f"{clock} [{thread}] {notification.name} {notification.sender!r} {notification.data!r}\n")

        self._trace = write

    def notifications(self, name: t.Any = Any, sender: t.Any = Any) -> NotificationStream:
        """An asynchronous iterator over what is posted from now on: ``async for notification in …``.

        Must be called in a running loop. It listens from this call until :meth:`NotificationStream.close`, the end of
        an ``async with`` block, or until it is forgotten.
        """
        return NotificationStream(self, ((name, sender),))


class NotificationStream:
    """Notifications as an asynchronous iterator, in order; made by :meth:`NotificationCenter.notifications`."""

    def __init__(
        self,
        center: NotificationCenter,
        keys: tuple[tuple[t.Any, t.Any], ...],
        last: Callable[[Notification], bool] | None = None,
    ) -> None:
        import asyncio

        self._center = center
        self._keys = keys
        self._last = last
        self._received: deque[Notification] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._observer = ObserverWeakrefProxy(self)
        for name, sender in keys:
            center.add_observer(self._observer, name, sender, loop=self._loop)

    def handle_notification(self, notification: Notification) -> None:
        if self._closed:
            return
        self._received.append(notification)
        if self._last is not None and self._last(notification):
            self.close()
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Stops listening; what was received before can still be read."""
        if not self._closed:
            self._closed = True
            for name, sender in self._keys:
                self._center.discard_observer(self._observer, name, sender)
            self._wake()

    async def aclose(self) -> None:
        self.close()

    async def __aenter__(self) -> t.Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Notification]:
        return self

    async def __anext__(self) -> Notification:
        while not self._received:
            if self._closed:
                raise StopAsyncIteration
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        return self._received.popleft()


class ObserverWeakrefProxy:
    """An observer that forwards to another one without keeping it alive; there is one proxy for each observer.

    When the observer is gone, its registrations go from all centers.
    """

    _proxies: t.ClassVar[dict[int, weakref.ref[ObserverWeakrefProxy]]] = {}

    _reference: Callable[[], t.Any]

    def __new__(cls, observer: t.Any) -> ObserverWeakrefProxy:
        known = cls._proxies.get(id(observer))
        proxy = known() if known is not None else None
        if proxy is not None and proxy._reference() is observer:
            return proxy
        _target(observer)  # raises TypeError
        proxy = super().__new__(cls)
        number, proxy_key = id(observer), id(proxy)

        def gone(_: object) -> None:
            if cls._proxies.get(number) is weak_proxy:
                del cls._proxies[number]
            for center in list(NotificationCenter._centers.values()):
                center._note_gone("observer", proxy_key)

        method = isinstance(observer, types.MethodType)
        proxy._reference = weakref.WeakMethod(observer, gone) if method else weakref.ref(observer, gone)
        weak_proxy = cls._proxies[number] = weakref.ref(proxy)
        return proxy

    def handle_notification(self, notification: Notification) -> object:
        observer = self._reference()
        return None if observer is None else _target(observer)(notification)
