"""Accounts: who one is, and how its calls are made."""

from __future__ import annotations

import threading
import typing as t

from sipwire.account_settings import (
    MessageSummarySettings,
    NATSettings,
    PresenceSettings,
    RTPSettings,
    SIPSettings,
)
from sipwire.core import SIPURI, Route
from sipwire.errors import CallCancelled, RegistrationFailed, call_failed
from sipwire.messaging import send_message, send_report
from sipwire.notification import Any, Notification, NotificationCenter, NotificationStream
from sipwire.notification_data import (
    SIPAccountDidActivateData,
    SIPAccountDidDeactivateData,
    SIPAccountManagerDidAddAccountData,
    SIPAccountManagerDidChangeDefaultAccountData,
    SIPAccountManagerDidRemoveAccountData,
    SIPAccountRegistrationDidSucceedData,
    TimestampedData,
)
from sipwire.subscription import publish_presence, subscribe

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipwire.engine import Engine
    from sipwire.messaging import MessageRequest, Report, ReportStatus
    from sipwire.notification_data import SIPEngineGotMessageData
    from sipwire.session import Session
    from sipwire.subscription import Publication, Subscription

__all__ = ["Account", "AccountManager", "CallAttempt"]

_END_PATIENCE = 2.0
"""Seconds leaving the block of a call waits for its end; the core gives up on the peer after one."""


class Account:
    """An identity at an engine. ``id`` is ``user@domain``, a SIP URI or a :class:`SIPURI`.

    An account whose domain is an IP address needs no registrar: it calls and is called directly. With ``register=True``
    it registers while the engine runs, with ``password`` (for ``auth_username``, else the user of the id). Making an
    account with the id of another one of the engine replaces that one.

    Settings in the groups ``sip``, ``rtp``, ``nat_traversal``, ``message_summary`` and ``presence`` hold from
    :meth:`save` on: for new sessions, and at once for the registration.

    Posts SIPAccountWillRegister before a REGISTER that begins or renews the registration, and after it one of
    SIPAccountRegistrationDidSucceed(contact, expires, registrar), SIPAccountRegistrationDidFail(code, reason,
    retry_after) and SIPAccountRegistrationDidEnd.

    Raises :exc:`ValueError` for an id that is no URI.
    """

    def __init__(
        self,
        id: str | SIPURI,
        password: str | None = None,
        *,
        engine: Engine | None = None,
        display_name: str | None = None,
        auth_username: str | None = None,
        register: bool = False,
    ) -> None:
        if engine is None:
            from sipwire.engine import Engine

            engine = Engine()
        if isinstance(id, SIPURI):
            self.uri = id
        elif isinstance(id, str):
            self.uri = SIPURI(id if id.startswith(("sip:", "sips:")) else f"sip:{id}")
        else:
            raise TypeError(f"id {id!r} of an Account is neither a str nor a SIPURI")
        if self.uri.user is None:
            raise ValueError(f"id {str(id)!r} of an Account has no user: user@domain")
        self.engine = engine
        self.password = password
        self.display_name = display_name
        self.auth_username = auth_username
        self.sip = SIPSettings()
        self.sip.register = register
        self.rtp = RTPSettings()
        self.nat_traversal = NATSettings()
        self.message_summary = MessageSummarySettings()
        self.presence = PresenceSettings()
        self._number: int | None = None
        self._instance: str | None = None
        self._registration: SIPAccountRegistrationDidSucceedData | None = None
        engine._add_account(self)
        AccountManager()._added(self)

    @property
    def id(self) -> str:
        """``user@domain``, with the port where the URI has one."""
        host = f"[{self.uri.host}]" if ":" in self.uri.host else self.uri.host
        port = "" if self.uri.port is None else f":{self.uri.port}"
        return f"{self.uri.user}@{host}{port}"

    @property
    def enabled(self) -> bool:
        """Belongs to its engine: false once removed or replaced."""
        return self.engine._accounts.get(self.id) is self

    @property
    def registered(self) -> bool:
        """A registrar knows where this account is: between SIPAccountRegistrationDidSucceed and DidFail or DidEnd."""
        return self._registration is not None

    @property
    def contact(self) -> SIPURI:
        """Where this account is reached: as registered, which behind a NAT is the address outside, else directly.

        Raises :exc:`EngineError` when it is not registered and the engine does not run.
        """
        registration = self._registration
        return self.engine.sip_uri(self.uri.user or "") if registration is None else registration.contact

    async def register(self) -> None:
        """Registers now, or again, and returns when the registrar has agreed; from then on it is kept up.

        Sets ``sip.register``. Raises :exc:`RegistrationFailed` when the attempt fails; what may pass is tried again all
        the same (``retry_after`` of SIPAccountRegistrationDidFail), until :meth:`unregister`.
        """
        core, number = self.engine._running(), self.engine._account_number(self)
        self.sip.register = True
        async with self._told() as inbox:
            core.register(number, self._core_settings())
            async for notification in inbox:
                if notification.name == "SIPAccountRegistrationDidSucceed":
                    return
                if notification.name == "SIPAccountRegistrationDidFail":
                    raise RegistrationFailed(notification.data.code, notification.data.reason)
                if notification.name == "SIPEngineDidEnd" or not self.sip.register:
                    break
        raise RegistrationFailed(0, "ended from this side before the registrar answered")

    async def unregister(self) -> None:
        """Ends the registration and returns when the registrar was told; does nothing without one.

        Clears ``sip.register``. A registrar that does not answer lets the registration run out by itself.
        """
        self.sip.register = False
        core, number = self.engine._core, self._number
        if core is None or number is None or not core.is_running:
            return
        async with self._told() as inbox:
            follows = core.unregister(number)
            core.set_account(number, self._core_settings())
            if follows:
                async for notification in inbox:
                    if notification.name in ("SIPAccountRegistrationDidEnd", "SIPEngineDidEnd"):
                        return

    def _unregister(self) -> None:
        """Ends the registration without waiting, until the settings are saved again."""
        core = self.engine._core
        if core is not None and self._number is not None and core.is_running:
            core.unregister(self._number)

    def _told(self) -> NotificationStream:
        """What is posted about the registration from now on, and the end of the engine."""
        return NotificationStream(NotificationCenter(), ((Any, self), ("SIPEngineDidEnd", self.engine)))

    def _heard(self, notification: Notification) -> None:
        """The dispatcher has a notification of this account, not delivered yet."""
        if notification.name == "SIPAccountRegistrationDidSucceed":
            self._registration = notification.data
        elif notification.name in ("SIPAccountRegistrationDidFail", "SIPAccountRegistrationDidEnd"):
            self._registration = None

    def save(self) -> None:
        """Lets changed settings take effect: for new sessions, and at once for the registration.

        A changed password or interval registers again; another registrar gets the account after the old one was told.
        """
        core = self.engine._core
        if core is not None and self._number is not None:
            core.set_account(self._number, self._core_settings())

    def delete(self) -> None:
        """Takes the account away from its engine; its sessions go on."""
        if self.enabled:
            self.engine.remove_account(self)
            AccountManager()._removed(self)

    def _core_settings(self) -> dict[str, t.Any]:
        proxy = self.sip.outbound_proxy
        codecs = self.rtp.audio_codec_list
        return {
            "uri": self.uri,
            "display_name": self.display_name,
            "catch_all": self.sip.catch_all,
            "outbound_proxy": None if proxy is None else (proxy.address, proxy.port, proxy.transport),
            "srtp_encryption": self.rtp.srtp_encryption,
            "audio_codec_list": None if codecs is None else list(codecs),
            "symmetric": self.rtp.symmetric,
            "credentials": None if self.password is None else (self.auth_username or self.uri.user, self.password),
            "digest_algorithms": list(self.sip.digest_algorithms),
            "transport_list": list(self.sip.transport_list),
            "register": self.sip.register,
            "registrar": self.sip.registrar,
            "register_interval": self.sip.register_interval,
            "instance": self.sip.instance_id or self._device_name(),
            "follow_redirects": self.sip.follow_redirects,
            "session_timer": self.sip.session_timer,
            "require_100rel": self.sip.require_100rel,
            "message_summary": self.message_summary.enabled,
            "info_packages": list(self.sip.info_packages),
        }

    def _device_name(self) -> str:
        """A name of this device that a program with a port of its own keeps (RFC 5626 §4.1)."""
        import uuid

        port = self.engine._own_port
        if port is not None:
            return uuid.uuid5(uuid.NAMESPACE_OID, f"sipwire {_machine()} {port} {self.id}").urn
        if self._instance is None:
            self._instance = uuid.uuid4().urn
        return self._instance

    def call(
        self,
        uri: SIPURI | str,
        audio: bool = True,
        chat: bool = False,
        routes: Sequence[Route] | None = None,
        *,
        extra_headers: Sequence[tuple[str, str]] = (),
    ) -> CallAttempt:
        """Calls in an ``async with`` block: entering it waits for the answer, leaving it ends the call.

        Without ``routes`` the call goes to the outbound proxy, or where the URI itself points. Entering raises
        :exc:`CallFailed` (:exc:`CallBusy`, :exc:`CallDeclined`, :exc:`CallTimeout`, :exc:`CallCancelled`).
        """
        uri = uri if isinstance(uri, SIPURI) else SIPURI(uri)
        return CallAttempt(self, uri, audio, chat, routes_for(self, uri, routes), extra_headers)

    def send_message(
        self,
        uri: SIPURI | str,
        content: str | bytes,
        content_type: str | None = None,
        *,
        cpim: bool = False,
        subject: str | None = None,
        reports: Iterable[Report] = (),
        routes: Sequence[Route] | None = None,
    ) -> MessageRequest:
        """Sends an instant message (pager mode, RFC 3428): ``await`` the outcome or ``wait()`` for it.

        The type is ``text/plain`` for a str and ``application/octet-stream`` for bytes unless given. ``cpim`` wraps it
        (RFC 3862), as a ``subject`` and ``reports`` do: "positive-delivery", "negative-delivery", "processing",
        "display" (RFC 5438), which come as SIPMessageDidGetDeliveryReport(from_uri, message_id, disposition, status).
        Posts SIPMessageDidSucceed or SIPMessageDidFail(request, code, reason), the sender being this account.

        Raises :exc:`ValueError` for a URI, type or report that cannot be used and for more than 64 kB.
        """
        options: dict[str, t.Any] = {"cpim": cpim, "subject": subject, "reports": reports, "routes": routes}
        return send_message(self, uri, content, content_type, **options)

    def report_message(
        self,
        message: SIPEngineGotMessageData,
        status: ReportStatus = "displayed",
        *,
        routes: Sequence[Route] | None = None,
    ) -> MessageRequest:
        """Tells the sender of a message what became of it (RFC 5438); "delivered" was said by itself when asked for.

        Raises :exc:`ValueError` for a message without an id: its sender wants no reports.
        """
        return send_report(self, message, status, routes=routes)

    def subscribe(
        self,
        event: str,
        uri: SIPURI | str | None = None,
        expires: float = 600,
        accept: str | Iterable[str] | None = None,
        *,
        routes: Sequence[Route] | None = None,
    ) -> Subscription:
        """Watches something (RFC 6665): "message-summary", "dialog", "presence" or any other event package of ``uri``.

        Without ``uri`` it is this account's own; ``expires=0`` asks once; ``accept`` is the body types wanted. The
        subscription is refreshed until ``unsubscribe()``; ``async for update in subscription`` gives what it tells.

        Raises :exc:`ValueError` for an event, URI or type that cannot be used.
        """
        return subscribe(self, event, uri, expires, accept, routes)

    def publish_presence(
        self,
        is_open: bool = True,
        note: str | None = None,
        activities: Iterable[str] = (),
        contact: str | None = None,
        *,
        expires: float = 3600,
        routes: Sequence[Route] | None = None,
    ) -> Publication:
        """Publishes whether this account can be reached (RFC 3903, RFC 3863), and what its owner does: "away",
        "on-the-phone", … (RFC 4480); kept up until ``remove()``.
        """
        return publish_presence(self, is_open, note, activities, contact, expires, routes)

    def __repr__(self) -> str:
        return f"Account({self.id!r})"


def routes_for(account: Account, uri: SIPURI, routes: Sequence[Route] | None) -> list[Route]:
    """The routes given, or the account's proxy, or where it is registered; none to let the core locate the URI.

    A URI whose host is an address is called there, unless that is the account's own domain.
    """
    if routes is not None:
        return list(routes)
    proxy = account.sip.outbound_proxy
    if proxy is not None:
        return [proxy]
    registration = account._registration
    if registration is not None and (uri.host == account.uri.host or not _is_address(uri.host)):
        return [registration.registrar]
    return []  # located by the core (RFC 3263)


def _is_address(host: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _machine() -> str:
    """What tells this machine from others."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        import uuid

        return f"{uuid.getnode():012x}"


class CallAttempt:
    """A call as an ``async with`` block; made by :meth:`Account.call`."""

    def __init__(
        self,
        account: Account,
        uri: SIPURI,
        audio: bool,
        chat: bool,
        routes: list[Route],
        extra_headers: Sequence[tuple[str, str]],
    ) -> None:
        from sipwire.session import Session

        self.session = Session(account)
        self._arguments = (uri, routes, audio, chat, extra_headers)

    async def __aenter__(self) -> Session:
        session = self.session
        try:
            async with session.notifications() as inbox:  # listening before the first packet leaves
                session._call(*self._arguments)
                async for notification in inbox:
                    if notification.name == "SIPSessionDidStart":
                        return session
                    if notification.name == "SIPSessionDidFail":
                        raise call_failed(notification.data.code, notification.data.reason)
        except BaseException:
            session.end()  # cancelled while it rang: the peer is told
            raise
        raise CallCancelled(487, "ended before it was answered")

    async def __aexit__(self, *exception: object) -> None:
        import asyncio

        async with self.session.notifications() as inbox:
            self.session.end()
            try:
                async with asyncio.timeout(_END_PATIENCE):
                    async for _ in inbox:
                        pass
            except TimeoutError:  # a handler holds the notifications up; the call itself is ending
                pass


class AccountManager:
    """The accounts of the default engine. Always the same object."""

    _instance: t.ClassVar[AccountManager | None] = None
    _creating: t.ClassVar[threading.Lock] = threading.Lock()

    _default: str | None
    _started: bool

    def __new__(cls) -> AccountManager:
        with cls._creating:
            if cls._instance is None:
                cls._instance = super().__new__(cls)
                cls._instance._default = None
                cls._instance._started = False
            return cls._instance

    def start(self) -> None:
        """Makes the accounts of the configuration; posts SIPAccountDidActivate for each account.

        Those with ``register`` register, now or when the engine starts.
        """
        if self._started:
            return
        from sipwire.configuration import ConfigurationManager

        self._started = True
        configuration = ConfigurationManager()
        for name, settings in configuration.accounts().items():
            if self.get_account(name) is None:
                account = Account(
                    name,
                    settings.get("password"),
                    display_name=settings.get("display_name"),
                    auth_username=settings.get("auth_username"),
                )
                account.sip.outbound_proxy = settings.get("outbound_proxy")
                account.sip.registrar = settings.get("registrar")
                account.sip.register = settings.get("register", False)
                account.save()
        default = configuration.get("default_account", None)
        if isinstance(default, str):
            self._default = default
        for account in self.get_accounts():
            _post("SIPAccountDidActivate", account, SIPAccountDidActivateData(timestamp=_now()))
            account.save()  # one that stop() has unregistered comes back

    def stop(self) -> None:
        """Ends the registrations; posts SIPAccountDidDeactivate for each account."""
        if self._started:
            self._started = False
            for account in self.get_accounts():
                account._unregister()
                _post("SIPAccountDidDeactivate", account, SIPAccountDidDeactivateData(timestamp=_now()))

    def get_accounts(self) -> list[Account]:
        from sipwire.engine import Engine

        return Engine().accounts

    def get_account(self, id: str) -> Account | None:
        """The account with this id; ``None`` when there is none."""
        return next((account for account in self.get_accounts() if account.id == id), None)

    def find_account(self, uri: SIPURI | str) -> Account | None:
        """The account a call to this URI is for; ``None`` when there is none."""
        uri = uri if isinstance(uri, SIPURI) else SIPURI(uri)
        accounts = self.get_accounts()
        for account in accounts:
            if account.uri.user == uri.user and account.uri.host.lower() == uri.host.lower():
                return account
        same_user = [account for account in accounts if account.uri.user == uri.user]
        catch_all = [account for account in accounts if account.sip.catch_all]
        return next(iter(same_user + catch_all), None)

    @property
    def default_account(self) -> Account:
        """The one chosen, else the first; one for direct calls is made when there is none and the engine runs."""
        account = None if self._default is None else self.get_account(self._default)
        if account is None:
            account = next(iter(self.get_accounts()), None)
        if account is None:
            from sipwire.engine import Engine

            account = Account(Engine().sip_uri("sipwire"))
        return account

    @default_account.setter
    def default_account(self, account: Account) -> None:
        if not account.enabled:
            raise ValueError(f"account {account.id!r} does not belong to its engine any more")
        old = None if self._default is None else self.get_account(self._default)
        self._default = account.id
        if old is not account:
            data = SIPAccountManagerDidChangeDefaultAccountData(timestamp=_now(), old_account=old, account=account)
            _post("SIPAccountManagerDidChangeDefaultAccount", self, data)

    def _added(self, account: Account) -> None:
        data = SIPAccountManagerDidAddAccountData(timestamp=_now(), account=account)
        _post("SIPAccountManagerDidAddAccount", self, data)

    def _removed(self, account: Account) -> None:
        data = SIPAccountManagerDidRemoveAccountData(timestamp=_now(), account=account)
        _post("SIPAccountManagerDidRemoveAccount", self, data)


def _now() -> t.Any:
    import datetime

    return datetime.datetime.now().astimezone()


def _post(name: str, sender: object, data: TimestampedData) -> None:
    NotificationCenter().post_notification(name, sender, data)
