"""Subscriptions served by the other engine, and publications at a server of a few lines."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sipwire import Account, Engine, IncomingSubscription, Presence, Route, Subscription
from sipwire._core import presence_document

from .conftest import PATIENCE, Pair, Watch

PIDF = "application/pidf+xml"


def presence(is_open: bool) -> str:
    return presence_document("sip:bob@127.0.0.1", is_open, None, "a note", ["away"])


def subscribed(pair: Pair, event: str = "presence", **options: Any) -> tuple[Subscription, IncomingSubscription]:
    pair.callee.event_packages = ("presence", "dialog", "x-weather")
    ours = pair.alice.subscribe(event, pair.uri, routes=[pair.route], **options)
    asked = pair.watch.wait("SIPEngineGotSubscription", pair.callee).data
    assert asked.account is pair.bob
    return ours, asked.subscription


def test_presence_is_watched_until_unsubscribed(pair: Pair) -> None:
    ours, theirs = subscribed(pair)
    assert (theirs.event, theirs.from_uri.user, theirs.accepted_types) == ("presence", "alice", [PIDF])
    assert ours.state == "subscribing"
    theirs.accept(presence(True), PIDF)
    started = pair.watch.wait("SIPSubscriptionDidStart", ours).data
    assert started.state == "active"
    assert 590 < started.expires <= 600
    first = pair.watch.wait("SIPSubscriptionGotNotify", ours).data
    assert (first.event, first.state, first.content_type, first.error) == ("presence", "active", PIDF, None)
    assert isinstance(first.parsed, Presence)
    assert (first.parsed.is_open, first.parsed.notes, first.parsed.activities) == (True, ["a note"], ["away"])
    theirs.notify(presence(False), PIDF)
    pair.watch.wait("SIPSubscriptionGotNotify", ours, where=lambda one: not one.data.parsed.is_open)
    assert isinstance(ours.parsed, Presence)
    assert (ours.state, ours.parsed.is_open) == ("active", False)
    ours.unsubscribe()
    assert pair.watch.wait("SIPSubscriptionDidEnd", ours).data.reason == "unsubscribed"
    assert pair.watch.wait("SIPSubscriptionDidEnd", theirs).data.reason == "timeout"
    assert (ours.state, ours.is_over, theirs.is_over) == ("terminated", True, True)
    ours.unsubscribe()
    with pytest.raises(ValueError, match="over"):
        theirs.notify("late")


async def test_updates_are_iterated(pair: Pair) -> None:
    ours, theirs = await asyncio.to_thread(subscribed, pair, "x-weather", accept="text/plain")
    theirs.accept("sun")
    theirs.notify("rain")
    told = []
    async for update in ours:
        told.append(update.body)
        if len(told) == 2:
            theirs.terminate()
    assert told == [b"sun", b"rain", b"rain"]
    assert await ours.ended() == "noresource"
    assert ours.body == b"rain"


def test_a_dialog_document_is_read(pair: Pair) -> None:
    ours, theirs = subscribed(pair, "dialog")
    theirs.accept(
        '<dialog-info entity="sip:bob@x" version="1" state="full"><dialog id="1" direction="recipient">'
        '<state code="180">early</state><remote><identity display="Carol">sip:carol@x</identity></remote></dialog>'
        "</dialog-info>",
        "application/dialog-info+xml",
    )
    parsed = pair.watch.wait("SIPSubscriptionGotNotify", ours).data.parsed
    dialog = parsed.dialogs[0]
    assert (parsed.entity, parsed.version, parsed.full) == ("sip:bob@x", 1, True)
    assert (dialog.state, dialog.direction, dialog.code) == ("early", "recipient", 180)
    assert (dialog.remote_uri, dialog.remote_display_name) == ("sip:carol@x", "Carol")


def test_refusals_end_a_subscription(pair: Pair) -> None:
    ours, theirs = subscribed(pair)
    theirs.reject(403)
    failed = pair.watch.wait("SIPSubscriptionDidFail", ours).data
    assert (failed.code, failed.reason, failed.retry_after) == (403, "Forbidden", None)
    assert pair.watch.wait("SIPSubscriptionDidEnd", ours).data.reason == "failed"
    unknown = pair.alice.subscribe("x-unknown", pair.uri, routes=[pair.route])
    assert pair.watch.wait("SIPSubscriptionDidFail", unknown).data.code == 489
    with pytest.raises(ValueError, match="two words"):
        pair.alice.subscribe("two words", pair.uri, routes=[pair.route])
    with pytest.raises(ValueError, match="expires"):
        pair.alice.subscribe("presence", pair.uri, expires=-1)
    with pytest.raises(ValueError, match="event_packages"):
        pair.callee.event_packages = ("no good",)


async def test_a_stop_ends_subscriptions(pair: Pair) -> None:
    ours, theirs = await asyncio.to_thread(subscribed, pair)
    theirs.accept()
    await asyncio.to_thread(pair.watch.wait, "SIPSubscriptionDidStart", ours)
    await asyncio.to_thread(pair.caller.stop)
    assert ours.is_over
    assert await ours.ended()
    assert await asyncio.to_thread(theirs.wait, PATIENCE)


class Server:
    """Answers PUBLISH with an entity-tag, and remembers what came."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.requests: list[tuple[str, str, str]] = []
        self._number = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def route(self) -> Route:
        host, port = self.socket.getsockname()
        return Route(host, port)

    def _serve(self) -> None:
        while True:
            try:
                data, source = self.socket.recvfrom(65536)
            except OSError:
                return
            head, _, body = data.decode().partition("\r\n\r\n")
            values = dict(re.findall(r"^([\w-]+): *(.*?)\r?$", head, re.MULTILINE))
            self.requests.append((values.get("SIP-If-Match", ""), values["Expires"], body))
            self._number += 1
            same = "".join(f"{name}: {values[name]}\r\n" for name in ("Via", "From", "Call-ID", "CSeq"))
            answer = f"SIP/2.0 200 OK\r\n{same}To: {values['To']};tag=s\r\nSIP-ETag: tag{self._number}\r\n"
            self.socket.sendto(f"{answer}Expires: {values['Expires']}\r\nContent-Length: 0\r\n\r\n".encode(), source)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_presence_is_published_changed_and_removed(server: Server, watch: Watch) -> None:
    engine = Engine("publisher")
    engine.start(local_ip="127.0.0.1")
    try:
        account = Account("alice@127.0.0.1", engine=engine)
        ours = account.publish_presence(True, "at my desk", routes=[server.route])
        assert watch.wait("SIPPublicationDidSucceed", ours).data.expires == 3600
        assert ours.published
        ours.update(False, activities=["on-the-phone"])
        watch.wait("SIPPublicationDidSucceed", ours, where=lambda _: len(server.requests) == 2)
        ours.remove()
        assert watch.wait("SIPPublicationDidEnd", ours).data.reason == "removed"
        (first, second, third) = server.requests
        assert first[:2] == ("", "3600")
        assert "<basic>open</basic>" in first[2]
        assert "at my desk" in first[2]
        assert second[:2] == ("tag1", "3600")
        assert "<basic>closed</basic>" in second[2]
        assert "on-the-phone" in second[2]
        assert third == ("tag2", "0", "")
        with pytest.raises(ValueError, match="over"):
            ours.update()
        account.delete()
    finally:
        engine.stop()
