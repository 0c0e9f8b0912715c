"""The engine: starts and stops the core, and delivers what it reports."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import threading
import time
import typing as t
from collections import deque

from sipwire import _core
from sipwire.core import SIPURI, Route
from sipwire.errors import DNSLookupError, EngineError
from sipwire.lookup import LookupRequest
from sipwire.messaging import MessageOutcome, MessageRequest
from sipwire.notification import Any, Notification, NotificationCenter, NotificationStream, viewing
from sipwire.notification_data import (
    DNSLookupDidFailData,
    DNSLookupDidSucceedData,
    SIPEngineDidFailData,
    SIPEngineGotMessageData,
    SIPEngineGotSubscriptionData,
    SIPEngineWillStartData,
    SIPSessionTransferDidStartData,
    TimestampedData,
)

if t.TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import AsyncIterator, Generator, Sequence

    from sipwire.account import Account
    from sipwire.lookup import DNSLookup
    from sipwire.session import Session
    from sipwire.subscription import IncomingSubscription, Publication, Subscription

__all__ = ["Engine", "IncomingSessions", "OptionsAnswer", "OptionsRequest"]

_SENDER_ENGINE, _SENDER_SESSION, _SENDER_ACCOUNT, _SENDER_SUBSCRIPTION = range(4)
"""Kinds of senders, as the core numbers them."""

_BATCH = 1000
"""Notifications taken from the core at once: enough to make taking cheap, few enough to start delivering soon."""

_HANDLER_PATIENCE = 5.0
"""Seconds a start waits for handlers of the run before."""

_LAG_LIMIT = 10_000
"""Notifications that may wait for slow handlers before a warning is logged. None is ever dropped."""

_EXIT_PATIENCE = 2.0
"""Seconds the end of the program waits for BYE and recordings, all engines together."""


class OptionsAnswer(t.NamedTuple):
    """What came back for an OPTIONS: a final code (408 when nothing came), its reason, the round trip in seconds."""

    code: int
    reason: str
    rtt: float | None


class OptionsRequest:
    """An OPTIONS on its way: ``await`` it, or :meth:`wait` for it."""

    def __init__(self) -> None:
        import concurrent.futures

        self._future: concurrent.futures.Future[OptionsAnswer] = concurrent.futures.Future()

    def wait(self, timeout: float | None = None) -> OptionsAnswer:
        """Blocks until the answer is there; raises :exc:`TimeoutError` after ``timeout`` seconds."""
        return self._future.result(timeout)

    def __await__(self) -> Generator[t.Any, None, OptionsAnswer]:
        import asyncio

        return asyncio.wrap_future(self._future).__await__()


class IncomingSessions:
    """Sessions as they come in, each in INCOMING (or further, if something was done already); made by
    :meth:`Engine.incoming`."""

    def __init__(self, engine: Engine) -> None:
        from sipwire.session import SessionManager

        self._engine = engine
        keys = (("SIPSessionNewIncoming", Any), ("SIPEngineDidEnd", engine))
        self._stream = NotificationStream(NotificationCenter(), keys)
        SessionManager()

    def __aiter__(self) -> AsyncIterator[Session]:
        return self

    async def __anext__(self) -> Session:
        async for notification in self._stream:
            if notification.name == "SIPEngineDidEnd":
                break
            session: Session = notification.sender
            if session.engine is self._engine:
                return session
        self._stream.close()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stops listening; later calls ring until somebody else takes them."""
        self._stream.close()


class Engine:
    """The protocol threads of one name: ``Engine()`` is the same object everywhere, ``Engine("second")`` another.

    Can be started again after it was stopped. Every method may be called in any thread and in any handler. Options for
    :meth:`run` and ``async with`` may be given here or to :meth:`configured`.
    """

    _engines: t.ClassVar[dict[str, Engine]] = {}
    _creating: t.ClassVar[threading.Lock] = threading.Lock()

    name: str

    def __new__(cls, name: str = "default", **options: t.Any) -> Engine:
        if not isinstance(name, str):
            raise TypeError(f"name {name!r} of an Engine is not a str")
        with cls._creating:
            engine = cls._engines.get(name)
            if engine is None:
                engine = super().__new__(cls)
                engine._prepare(name)
                cls._engines[name] = engine
        if options:
            engine._options = options
        return engine

    def _prepare(self, name: str) -> None:
        self.name = name
        self._options: dict[str, t.Any] = {}
        self._core: _core.Engine | None = None
        self._dispatcher: threading.Thread | None = None
        self._recordings_directory = "."
        self._forked_from: int | None = None
        self._accounts: dict[str, Account] = {}
        self._account_numbers: dict[int, Account] = {}
        self._own_port: int | None = None  # chosen by the application: no other program on this machine has it
        self._sessions: dict[int, Session] = {}
        self._subscriptions: dict[int, Subscription | IncomingSubscription | Publication] = {}
        self._event_packages: tuple[str, ...] = ()
        self._requests: dict[int, OptionsRequest | MessageRequest | LookupRequest] = {}
        self._posted: deque[tuple[Session, str, TimestampedData]] = deque()
        self._make_locks()

    def _make_locks(self) -> None:
        # Held while a new session or request gets its number from the core, so that the dispatcher meets no number
        # before its object. The core never waits for Python, so holding it is short.
        self._binding = threading.Lock()
        self._starting = threading.Lock()
        self._ended = threading.Event()
        self._ended.set()

    def __repr__(self) -> str:
        return f"<Engine {self.name!r} {'running' if self.is_running else 'stopped'}>"

    # --- start and stop ----------------------------------------------------------------------------------------------

    def start(self, **options: t.Any) -> None:
        """Binds the sockets and starts the threads; both are ready on return.

        Posts SIPEngineWillStart and SIPEngineDidStart, or SIPEngineDidFail(error). The options are those of the guide:
        ``local_ip`` (all addresses of both families), ``advertised_ip``, ``udp_port``, ``tcp_port``, ``tls_port``,
        ``ws_port``, ``wss_port``, ``tls_certificate``, ``tls_private_key``, ``tls_ca`` (PEM files), ``tls_verify``,
        ``tls_verify_client`` ("optional" or "required"), ``websocket_origins``, ``user_agent``, ``rtp_port_range``,
        ``audio_device``, ``codecs``, ``media_threads``, ``recordings_directory``, ``max_sessions``, ``invite_rate``,
        ``invite_rate_per_source``, ``trace_sip``, ``trace_rtp``, ``nameservers``, ``auto_ring``, ``accepts_messages``.

        Raises :exc:`EngineError` naming the option or socket at fault with its value.
        """
        with self._starting:
            if self.is_running:
                raise EngineError(f"engine {self.name!r} is running already")
            if threading.current_thread() is self._dispatcher:
                raise EngineError(f"engine {self.name!r} is still stopping: start it from another thread")
            if not self._ended.wait(_HANDLER_PATIENCE):  # an asynchronous stop that is not through yet
                raise EngineError(f"engine {self.name!r} is still stopping: a handler of the last run has not returned")
            options = {**self._options, **options}
            try:
                self._start(options)
            except EngineError as error:
                center = NotificationCenter()
                center.post_notification("SIPEngineWillStart", self, SIPEngineWillStartData(timestamp=_now()))
                data = SIPEngineDidFailData(timestamp=_now(), error=str(error))
                center.post_notification("SIPEngineDidFail", self, data)
                raise
        _catch_sigterm()

    def _start(self, options: dict[str, t.Any]) -> None:
        directory = options.pop("recordings_directory", ".")
        if not isinstance(directory, (str, os.PathLike)):
            raise EngineError(f"recordings_directory={directory!r}: not a path")
        if "invite_rate" in options:  # one knob: who turns it up has a trunk, which is one source
            options.setdefault("invite_rate_per_source", options["invite_rate"])
        device = options.get("audio_device", "null")
        if device != "null" and options.setdefault("devices_library", _devices_library()) is None:
            raise EngineError(f'audio_device={device!r}: this build has no sound cards, only "null"')
        from sipwire.session import SessionManager

        core = _core.Engine(**options)
        self._recordings_directory = os.fspath(directory)
        self._forked_from = None
        ports = [options.get(name) for name in ("udp_port", "tcp_port", "tls_port")]
        self._own_port = next((port for port in ports if port), None)
        self._core = core
        self._ended.clear()
        for account in self._accounts.values():
            self._activate(account)
        if SessionManager.exists():
            core.set_accepts_calls(True)
        if self._event_packages:
            core.set_event_packages(list(self._event_packages))
        self._dispatcher = threading.Thread(
            target=self._dispatch, args=(core,), name=f"sipwire-{self.name}", daemon=True
        )
        self._dispatcher.start()

    def configured(self, **options: t.Any) -> t.Self:
        """Keeps options for the next start: ``async with Engine("second").configured(udp_port=5070) as engine``."""
        self._options = options
        return self

    def start_cfg(self, **overrides: t.Any) -> None:
        """Starts with the options of :class:`~sipwire.configuration.SIPSimpleSettings`, changed by ``overrides``."""
        from sipwire.configuration import SIPSimpleSettings

        self.start(**{**SIPSimpleSettings().engine_options(), **overrides})

    def stop(self, timeout: float = 2.0) -> None:
        """Ends all sessions (BYE or CANCEL is sent), closes recordings and joins the threads.

        Posts SIPEngineWillEnd, what the sessions post, and SIPEngineDidEnd; on return all that is delivered, unless a
        handler takes longer than ``timeout``. In a handler of the engine it returns at once and the rest happens
        behind it. Does nothing when the engine does not run.
        """
        core = self._core
        if core is None:
            return
        if threading.current_thread() is self._dispatcher:
            threading.Thread(target=core.stop, args=(timeout,), name=f"sipwire-{self.name}-stop", daemon=True).start()
            return
        deadline = time.monotonic() + timeout
        core.stop(timeout)
        self._ended.wait(max(0.1, deadline - time.monotonic()))

    def run(self) -> None:
        """Starts the engine if it does not run, and blocks until it is stopped or Ctrl-C is pressed."""
        if not self.is_running:
            self.start()
        try:
            while not self._ended.wait(3600.0):
                pass
        except KeyboardInterrupt:
            self.stop()

    async def __aenter__(self) -> t.Self:
        import asyncio

        if not self.is_running:
            await asyncio.to_thread(self.start)
            _catch_sigterm()
        return self

    async def __aexit__(self, *exception: object) -> None:
        import asyncio

        await asyncio.shield(asyncio.to_thread(self.stop))

    @property
    def is_running(self) -> bool:
        core = self._core
        return core is not None and core.is_running

    def _running(self) -> _core.Engine:
        """The core, or an error that says why there is none."""
        core = self._core
        if core is None:
            if self._forked_from is not None:
                raise EngineError(
                    f"engine {self.name!r} runs in process {self._forked_from}, of which {os.getpid()} is a fork:"
                    " start it here too"
                )
            raise EngineError(f"engine {self.name!r} is not running")
        return core

    # --- what there is -----------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where the engine can be reached: transport → (host, port). Empty when it does not run."""
        core = self._core
        return {} if core is None else core.addresses()

    def stats(self) -> _core.EngineStats:
        """Counters of every queue, limit and transport; raises :exc:`EngineError` when the engine does not run."""
        return self._running().stats()

    def reload_certificates(self) -> None:
        """Reads ``tls_certificate``, ``tls_private_key`` and ``tls_ca`` again; connections that are open stay.

        A file that has changed is also noticed by itself, with the next connection. Raises :exc:`EngineError` naming
        the file that cannot be used; then those from before go on.
        """
        self._running().reload_certificates()

    @property
    def accounts(self) -> list[Account]:
        return list(self._accounts.values())

    @property
    def sessions(self) -> list[Session]:
        """The sessions that are neither new nor over."""
        core = self._core
        if core is None or not core.is_running:
            return []
        numbers = core.sessions()
        with self._binding:
            return [self._sessions[number] for number in numbers if number in self._sessions]

    @property
    def recordings_directory(self) -> str:
        return self._recordings_directory

    def sip_uri(self, user: str, transport: str | None = None) -> SIPURI:
        """The URI under which an account without a registrar is called at this engine."""
        addresses = self.addresses
        if not addresses:
            raise EngineError(f"engine {self.name!r} is not running")
        if transport is None:
            transport = next(iter(addresses))
        if transport not in addresses:
            raise EngineError(f"engine {self.name!r} does not listen on {transport!r}")
        host, port = addresses[transport]
        parameters = {} if transport == "udp" else {"transport": transport}
        return SIPURI(user=user, host=host, port=port, parameters=parameters)

    # --- accounts ----------------------------------------------------------------------------------------------------

    async def add_account(self, id: str | SIPURI, password: str | None = None, **settings: t.Any) -> Account:
        """A new account of this engine; takes what :class:`~sipwire.account.Account` takes."""
        from sipwire.account import Account

        return Account(id, password, engine=self, **settings)

    def remove_account(self, account: Account) -> None:
        """Takes the account away; its sessions go on. Does nothing when it is not there."""
        if self._accounts.get(account.id) is account:
            del self._accounts[account.id]
            self._deactivate(account)

    def _add_account(self, account: Account) -> None:
        old = self._accounts.get(account.id)
        self._accounts[account.id] = account
        core = self._core
        if core is None:
            return
        if old is None or old._number is None:
            self._activate(account)
            return
        # The same account for the core: ending one registration and beginning another of the same contact could cross.
        with self._binding:
            account._number, old._number = old._number, None
            account._registration, old._registration = old._registration, None
            self._account_numbers[account._number] = account
            core.set_account(account._number, account._core_settings())

    def _activate(self, account: Account) -> None:
        core = self._running()
        with self._binding:
            number = core.add_account(account._core_settings())
            self._account_numbers[number] = account
            account._number = number

    def _deactivate(self, account: Account) -> None:
        core, number = self._core, account._number
        account._number = None
        if core is not None and number is not None and core.is_running:
            core.remove_account(number)

    def _account_number(self, account: Account) -> int:
        self._running()
        if account._number is None:
            raise EngineError(f"account {account.id!r} was removed from engine {self.name!r}")
        return account._number

    # --- requests outside sessions -----------------------------------------------------------------------------------

    def options(
        self, uri: SIPURI | str, *, account: Account | None = None, routes: Sequence[Route] | None = None
    ) -> OptionsRequest:
        """Asks a peer what it can do; ``await`` the result or ``wait()`` for it.

        Posts SIPOptionsDidAnswer(request, code, reason, rtt) when it is there.
        """
        from sipwire.account import Account, routes_for

        core = self._running()
        uri = uri if isinstance(uri, SIPURI) else SIPURI(uri)
        if account is None:
            account = next(iter(self._accounts.values()), None) or Account(self.sip_uri("sipwire"), engine=self)
        number = self._account_number(account)
        chosen = [(route.address, route.port, route.transport) for route in routes_for(account, uri, routes)]
        request = OptionsRequest()
        with self._binding:
            self._requests[core.options(number, uri, chosen)] = request
        return request

    def message(
        self, account: Account, uri: SIPURI | str, text: str | bytes, content_type: str | None = None, **options: t.Any
    ) -> MessageRequest:
        """Sends an instant message; the same as :meth:`Account.send_message`."""
        return account.send_message(uri, text, content_type, **options)

    @property
    def event_packages(self) -> tuple[str, ...]:
        """Event packages that others may subscribe to, as ``Allow-Events`` lists them ("presence", "dialog", …).

        Who does comes as SIPEngineGotSubscription(subscription, …); other events are refused with 489. Kept over
        restarts.
        """
        return self._event_packages

    @event_packages.setter
    def event_packages(self, packages: Sequence[str]) -> None:
        chosen = (packages,) if isinstance(packages, str) else tuple(packages)
        for package in chosen:
            if not re.fullmatch(r"[\w.!%*+`'~-]+", package, re.ASCII):
                raise ValueError(f"event_packages={packages!r}: {package!r} is no event package")
        self._event_packages = chosen
        core = self._core
        if core is not None and core.is_running:
            core.set_event_packages(list(chosen))

    def incoming(self) -> IncomingSessions:
        """The sessions that come in from now on: ``async for session in engine.incoming()``.

        Must be called in a running loop; from this call on the engine takes calls. Ends with the engine.
        """
        return IncomingSessions(self)

    # --- delivery ----------------------------------------------------------------------------------------------------

    def _post(self, session: Session, name: str, data: TimestampedData) -> None:
        """Lets the dispatcher post something behind what it has already taken."""
        self._posted.append((session, name, data))
        core = self._core
        if core is not None:
            core.wake_events()

    def _dispatch(self, core: _core.Engine) -> None:
        center, lags = NotificationCenter(), False
        try:
            while True:
                events = core.next_events(_BATCH, 60.0)
                if len(events) == _BATCH:
                    lags = self._warn_of_lag(core, lags)
                for (kind, number), name, data, timestamp, snapshot in events:
                    notification = Notification(name, self, data)
                    notification.timestamp = timestamp
                    if kind == _SENDER_ENGINE:
                        if name == "SIPOptionsDidAnswer":
                            self._answered(data.request, OptionsAnswer(data.code, data.reason, data.rtt))
                        elif name == "SIPEngineGotMessage":
                            notification.data = self._got_message(data)
                        elif name == "SIPEngineGotSubscription":
                            notification.data = self._got_subscription(data)
                        elif name in ("DNSLookupDidSucceed", "DNSLookupDidFail"):
                            notification.sender = self._looked_up(data) or self
                        self._deliver(center, notification)
                    elif kind == _SENDER_ACCOUNT:
                        if name in ("SIPMessageDidSucceed", "SIPMessageDidFail"):
                            answered = getattr(data, "originator", "remote") == "remote"
                            self._answered(data.request, MessageOutcome(data.code, data.reason, answered))
                        with self._binding:
                            account = self._account_numbers.get(number)
                        if account is not None:
                            notification.sender = account
                            account._heard(notification)
                            self._deliver(center, notification)
                    elif kind == _SENDER_SUBSCRIPTION:
                        with self._binding:
                            subscription = self._subscriptions.get(number)
                        if subscription is not None:
                            notification.sender = subscription
                            subscription._heard(name, data)
                            self._deliver(center, notification)
                            if subscription.is_over:
                                with self._binding:
                                    self._subscriptions.pop(number, None)
                    elif kind == _SENDER_SESSION:
                        session = self._session(number, snapshot)
                        if session is not None:
                            notification.sender = session
                            notification._snapshot = snapshot
                            if name == "SIPSessionTransferDidStart":
                                notification.data = self._transfer_started(data)
                            session._heard(notification)
                            self._deliver(center, notification)
                            if name == "SIPSessionDidEnd":
                                self._forget(number)
                while self._posted:
                    session, name, data = self._posted.popleft()
                    notification = Notification(name, session, data)
                    session._heard(notification)
                    self._deliver(center, notification)
                if not events and not core.is_running:
                    break
        finally:
            self._over(core)

    def _warn_of_lag(self, core: _core.Engine, lags: bool) -> bool:
        """Says once that handlers cannot keep up, and again only after they had."""
        waiting = core.stats().events.depth
        if waiting > _LAG_LIMIT and not lags:
            import logging

            text = "engine %r: %d notifications wait for slow handlers"
            logging.getLogger("sipwire.engine").warning(text, self.name, waiting)
        return waiting > _LAG_LIMIT

    @staticmethod
    def _deliver(center: NotificationCenter, notification: Notification) -> None:
        viewing.sender, viewing.snapshot = notification.sender, notification._snapshot
        try:
            center.deliver(notification)
        except BaseException:  # logged by the center; SystemExit of a handler ends neither the engine nor this thread
            pass
        finally:
            viewing.sender = viewing.snapshot = None

    def _session(self, number: int, snapshot: _core.Snapshot | None) -> Session | None:
        with self._binding:
            session = self._sessions.get(number)
            if session is None and snapshot is not None and snapshot.account is not None:
                account = self._account_numbers.get(snapshot.account)
                if account is not None:
                    from sipwire.session import Session

                    session = self._sessions[number] = Session._arrived(account, self, number, snapshot)
        return session

    def _forget(self, number: int) -> None:
        with self._binding:
            self._sessions.pop(number, None)

    def _looked_up(self, data: DNSLookupDidSucceedData | DNSLookupDidFailData) -> DNSLookup | None:
        """Hands the routes, or why there are none, to who waits; returns who asked."""
        with self._binding:
            request = self._requests.pop(data.request, None)
        if not isinstance(request, LookupRequest):
            return None
        if not request._future.done():  # a cancelled await is done
            if isinstance(data, DNSLookupDidSucceedData):
                request._future.set_result(data.result)
            else:
                request._future.set_exception(DNSLookupError(data.error))
        return request._lookup

    def _answered(self, number: int, answer: OptionsAnswer | MessageOutcome) -> None:
        with self._binding:
            request = self._requests.pop(number, None)
        if request is not None and not request._future.done():  # a cancelled await is done
            request._future.set_result(t.cast("t.Any", answer))

    def _got_subscription(self, data: SIPEngineGotSubscriptionData) -> SIPEngineGotSubscriptionData:
        """The same with objects for the numbers of subscription and account."""
        from sipwire.subscription import IncomingSubscription

        with self._binding:
            account = self._account_numbers[data.account]
            subscription = IncomingSubscription(account, data, data.subscription)
            self._subscriptions[data.subscription] = subscription
        return type(data)(**{**dict(data.items()), "account": account, "subscription": subscription})

    def _got_message(self, data: SIPEngineGotMessageData) -> SIPEngineGotMessageData:
        """The same with objects for the numbers of account and session."""
        with self._binding:
            account, session = self._account_numbers.get(data.account), self._sessions.get(data.session)
        return type(data)(**{**dict(data.items()), "account": account, "session": session})

    def _transfer_started(self, data: SIPSessionTransferDidStartData) -> SIPSessionTransferDidStartData:
        """The same with the new session for its number."""
        with self._binding:
            session = self._sessions.get(data.session)
        return type(data)(timestamp=data.timestamp, session=session)

    def _over(self, core: _core.Engine) -> None:
        """The core has ended and everything it said was delivered."""
        with self._binding:
            requests, self._requests = self._requests, {}
            subscriptions, self._subscriptions = self._subscriptions, {}
            sessions = list(self._sessions.values())
            self._sessions.clear()
            self._account_numbers.clear()
            for account in self._accounts.values():
                account._number = account._registration = None
            if self._core is core:
                self._core = None
            self._dispatcher = None
        for session in sessions:
            session._no_outcome()
        for request in requests.values():
            if not request._future.done():
                request._future.set_exception(EngineError(f"engine {self.name!r} was stopped"))
        for subscription in subscriptions.values():
            subscription._close(f"engine {self.name!r} was stopped")
        self._ended.set()


def _devices_library() -> str | None:
    """The library for sound cards in this package; ``None`` where it was built without one."""
    folder = os.path.dirname(os.path.abspath(__file__))
    names = [name for name in os.listdir(folder) if name.startswith(("libsipwire_devices.", "sipwire_devices."))]
    return os.path.join(folder, names[0]) if names else None


def _now() -> t.Any:
    import datetime

    return datetime.datetime.now().astimezone()


# --- the end of the process, and its forks ---------------------------------------------------------------------------


_exiting = threading.Event()
"""Set while the engines end with the program: that takes :data:`_EXIT_PATIENCE` at most, however often it is asked."""


def _at_exit() -> None:
    """Ends calls and closes recordings of engines that still run when the program ends."""
    _exiting.set()
    deadline = time.monotonic() + _EXIT_PATIENCE
    for engine in list(Engine._engines.values()):
        if engine._core is not None:
            # Ctrl-C again: this core has stopped by the time it is raised, and the next one has to as well.
            with contextlib.suppress(KeyboardInterrupt):
                engine.stop(max(0.2, deadline - time.monotonic()))


def _on_sigterm(number: int, _: object) -> None:
    if _exiting.is_set():
        return
    if getattr(threading, "_SHUTTING_DOWN", False):  # main is through, other threads run on: nobody is left to raise to
        _at_exit()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    raise SystemExit(128 + number)


def _catch_sigterm() -> None:
    """Makes SIGTERM end the program like ``sys.exit``, so that calls end; only where nobody else cares for it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _after_fork() -> None:
    """In the child: the threads and the sockets are the parent's."""
    NotificationCenter._creating = threading.Lock()
    Engine._creating = threading.Lock()
    for center in NotificationCenter._centers.values():
        center._after_fork()
    for engine in Engine._engines.values():
        core = engine._core
        engine._make_locks()
        if core is not None:
            core.leak()  # dropping it here would wait for threads that this process does not have
            engine._forked_from = os.getppid()
            engine._core = engine._dispatcher = None
            engine._sessions.clear()
            engine._account_numbers.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
