"""Two engines on loopback, and an observer that remembers what it heard and waits for what it has not."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sipwire import Account, Engine, Notification, NotificationCenter, Route, Session, SessionManager

PATIENCE = 20.0
"""Seconds until a test gives up waiting: far more than anything takes on a loaded machine."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background: programs under test would inherit that they do not hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Watch:
    """Hears everything, remembers it in order, and lets a test wait for it."""

    def __init__(self) -> None:
        self.heard: list[Notification] = []
        self._news = threading.Condition()
        NotificationCenter().add_observer(self)

    def handle_notification(self, notification: Notification) -> None:
        with self._news:
            self.heard.append(notification)
            self._news.notify_all()

    def close(self) -> None:
        NotificationCenter().discard_observer(self)

    def wait(
        self, name: str, sender: object = None, where: Callable[[Notification], bool] | None = None
    ) -> Notification:
        """The first such notification, heard already or not yet."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            seen = 0
            while True:
                for notification in self.heard[seen:]:
                    matches = notification.name == name and sender in (None, notification.sender)
                    if matches and (where is None or where(notification)):
                        return notification
                seen = len(self.heard)
                if not self._news.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"no {name} from {sender!r} in {[brief(one) for one in self.heard]}")

    def of(self, sender: object) -> list[str]:
        """What one sender posted, in order: names with the data that matters."""
        with self._news:
            return [brief(notification) for notification in self.heard if notification.sender is sender]


def brief(notification: Notification) -> str:
    """A notification as a short text: ``ChangedState NULL→CALLING``, ``DidEnd remote``."""
    data: Any = notification.data
    name = notification.name.removeprefix("SIPSession").removeprefix("SIP")
    match name:
        case "ChangedState":
            return f"{name} {data.prev_state}→{data.state}"
        case "NewIncoming" | "NewOutgoing" | "GotStreamUpdate":
            return f"{name} {'+'.join(data.streams) or 'nothing'}"
        case "DidFail":
            return f"{name} {data.originator} {data.code}"
        case "DidEnd":
            return f"{name} {data.originator}"
        case "GotDTMF":
            return f"{name} {data.digit}"
        case _:
            return name


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.close()


class Pair:
    """Alice at one engine and Bob at another, both on loopback; Bob's calls are taken by a session manager."""

    def __init__(self, watch: Watch, folder: Path, **options: Any) -> None:
        self.watch = watch
        self.caller, self.callee = Engine("caller"), Engine("callee")
        SessionManager()
        for engine in (self.caller, self.callee):
            engine.start(local_ip="127.0.0.1", recordings_directory=folder, **options)
        self.alice = Account("alice@127.0.0.1", engine=self.caller, display_name="Alice")
        self.bob = Account("bob@127.0.0.1", engine=self.callee)

    @property
    def uri(self) -> str:
        return str(self.callee.sip_uri("bob"))

    @property
    def route(self) -> Route:
        return Route(*self.callee.addresses["udp"])

    def call(self, **arguments: Any) -> tuple[Session, Session]:
        """A session in CALLING at Alice's, and the one it became at Bob's, in INCOMING."""
        before = {notification.sender for notification in self.watch.heard}
        outgoing = Session(self.alice)
        outgoing.connect(self.uri, [self.route], audio=True, **arguments)
        incoming = self.watch.wait("SIPSessionNewIncoming", where=lambda one: one.sender not in before).sender
        return outgoing, incoming

    def established(self) -> tuple[Session, Session]:
        """A call both sides know to be up."""
        outgoing, incoming = self.call()
        incoming.accept(audio=True)
        for session in (outgoing, incoming):
            self.watch.wait("SIPSessionDidStart", session)
        return outgoing, incoming

    def ended(self, *sessions: Session) -> None:
        """Waits until all have ended."""
        for session in sessions:
            self.watch.wait("SIPSessionDidEnd", session)

    def stop(self) -> None:
        for engine in (self.caller, self.callee):
            engine.stop()
            for account in engine.accounts:
                account.delete()


@pytest.fixture
def pair(watch: Watch, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(watch, tmp_path)
    yield pair
    pair.stop()
