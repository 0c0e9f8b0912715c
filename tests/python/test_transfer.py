"""INFO and transfers between three engines on loopback: both roles, both kinds, audio and all notifications."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sipwire import (
    SIPURI,
    Account,
    Engine,
    InfoOutcome,
    Route,
    Session,
    SessionManager,
    SessionStateError,
    TransferFailed,
)
from sipwire.testing import assert_tone, tone_bytes

from .conftest import PATIENCE, Pair, Watch, brief
from .test_audio import audio_of, heard

ENDED = ["GotStreamUpdate nothing", "ChangedState ESTABLISHED→TERMINATED", "DidEnd remote"]
ENDING = [
    "ChangedState ESTABLISHED→TERMINATING",
    "WillEnd",
    "GotStreamUpdate nothing",
    "ChangedState TERMINATING→TERMINATED",
    "DidEnd local",
]


class Three:
    """Alice, Bob and Carol, each at an engine of their own; who is called answers."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        SessionManager()
        self.accounts: dict[str, Account] = {}
        for name in ("alice", "bob", "carol"):
            engine = Engine(name)
            engine.start(local_ip="127.0.0.1")
            self.accounts[name] = Account(f"{name}@127.0.0.1", engine=engine)

    def uri(self, name: str) -> SIPURI:
        return self.accounts[name].engine.sip_uri(name)

    def incoming(self, name: str, known: int = 0) -> Session:
        """The next session that comes to this one."""
        account = self.accounts[name]
        came: list[Any] = []

        def is_new(notification: Any) -> bool:
            if notification.sender.account is account and notification.sender not in came:
                came.append(notification.sender)
            return len(came) > known and notification.sender is came[known]

        session: Session = self.watch.wait("SIPSessionNewIncoming", where=is_new).sender
        return session

    def talk(self, caller: str, callee: str, known: int = 0) -> tuple[Session, Session]:
        """An established call: the caller's session and the callee's."""
        outgoing = Session(self.accounts[caller])
        route = Route(*self.accounts[callee].engine.addresses["udp"])
        outgoing.connect(self.uri(callee), [route], audio=True)
        incoming = self.incoming(callee, known)
        incoming.accept(audio=True)
        for session in (outgoing, incoming):
            self.watch.wait("SIPSessionDidStart", session)
        return outgoing, incoming

    def since(self, session: Session, name: str) -> list[str]:
        """What a session posted from this notification on."""
        all_of_it = self.watch.of(session)
        return all_of_it[all_of_it.index(name) :]

    def stop(self) -> None:
        for account in self.accounts.values():
            account.engine.stop()
            account.delete()


@pytest.fixture
def three(watch: Watch) -> Iterator[Three]:
    three = Three(watch)
    yield three
    three.stop()


# --- transfers -------------------------------------------------------------------------------------------------------


async def test_a_blind_transfer(three: Three) -> None:
    bob, alice = three.talk("bob", "alice")
    transfer = bob.transfer(three.uri("carol"))
    asked = three.watch.wait("SIPSessionGotTransferRequest", alice).data
    assert (asked.target, asked.replaces) == (three.uri("carol"), None)
    assert asked.referred_by == SIPURI("sip:bob@127.0.0.1")
    new = alice.accept_transfer()
    assert (new.account, new.state, new.remote_uri) == (alice.account, "CALLING", three.uri("carol"))
    carol = three.incoming("carol")
    assert carol.replaces is None
    assert ("Referred-By", "<sip:bob@127.0.0.1>") in carol.request_headers
    carol.accept(audio=True)
    outcome = await asyncio.wait_for(transfer, PATIENCE)
    assert (outcome.code, outcome.reason) == (200, "OK")
    for session in (alice, bob):
        three.watch.wait("SIPSessionDidEnd", session)
    progress = [word for word in three.watch.of(bob) if not word.startswith("TransferGotProgress")]
    start = progress.index("TransferNewOutgoing")
    assert progress[start:] == ["TransferNewOutgoing", "TransferDidStart", "TransferDidEnd", *ENDING]
    assert three.since(alice, "GotTransferRequest") == [
        "GotTransferRequest",
        "TransferDidStart",
        "TransferDidEnd",
        *ENDED,
    ]
    assert three.watch.wait("SIPSessionTransferDidStart", alice).data.session is new
    assert three.watch.wait("SIPSessionTransferDidStart", bob).data.session is None
    assert (new.state, carol.state) == ("ESTABLISHED", "ESTABLISHED")


async def test_an_attended_transfer_is_heard_at_the_third_party(three: Three) -> None:
    bob, alice = three.talk("bob", "alice")
    asking, asked = three.talk("bob", "carol")
    transfer = bob.transfer(replaces=asking)
    request = three.watch.wait("SIPSessionGotTransferRequest", alice).data
    assert request.replaces == asking.call_id
    new = alice.accept_transfer()
    carol = three.incoming("carol", known=1)
    assert carol.replaces is asked
    carol.accept(audio=True)
    assert (await asyncio.wait_for(transfer, PATIENCE)).code == 200
    for session in (alice, bob, asking, asked):
        three.watch.wait("SIPSessionDidEnd", session)
    assert three.watch.of(asked)[-5:] == ENDING
    assert asked.end_reason == "Replaced by another call"
    assert three.watch.of(asking)[-3:] == ENDED
    assert (new.state, carol.state) == ("ESTABLISHED", "ESTABLISHED")
    for speaker, listener, hz in ((new, carol, 700), (carol, new, 900)):
        listening = asyncio.ensure_future(heard(listener, 1.2))
        await audio_of(speaker).write(tone_bytes(hz, seconds=1.5))
        assert_tone(await asyncio.wait_for(listening, PATIENCE), hz)
        audio_of(speaker).clear()


async def test_a_transfer_that_is_refused(three: Three) -> None:
    bob, alice = three.talk("bob", "alice")
    transfer = bob.transfer("sip:+1900premium@127.0.0.1:1")
    three.watch.wait("SIPSessionGotTransferRequest", alice)
    with pytest.raises(SessionStateError, match="another transfer"):
        bob.transfer(three.uri("carol"))
    alice.reject_transfer()
    with pytest.raises(TransferFailed) as caught:
        await asyncio.wait_for(transfer, PATIENCE)
    assert (caught.value.code, caught.value.reason) == (603, "Decline")
    assert (bob.state, alice.state) == ("ESTABLISHED", "ESTABLISHED")
    with pytest.raises(SessionStateError, match="no transfer request waits"):
        alice.accept_transfer()
    with pytest.raises(SessionStateError, match="no transfer request waits"):
        alice.reject_transfer()


async def test_a_transfer_to_somebody_busy(three: Three) -> None:
    bob, alice = three.talk("bob", "alice")
    transfer = bob.transfer(three.uri("carol"))
    three.watch.wait("SIPSessionGotTransferRequest", alice)
    new = alice.accept_transfer()
    three.incoming("carol").reject(486)
    with pytest.raises(TransferFailed) as caught:
        await asyncio.wait_for(transfer, PATIENCE)
    assert caught.value.code == 486
    three.watch.wait("SIPSessionDidEnd", new)
    assert three.watch.wait("SIPSessionTransferDidFail", alice).data.code == 486
    assert (bob.state, alice.state) == ("ESTABLISHED", "ESTABLISHED")


async def test_a_call_that_ends_before_the_transfer(three: Three) -> None:
    bob, alice = three.talk("bob", "alice")
    transfer = bob.transfer(three.uri("carol"))
    three.watch.wait("SIPSessionGotTransferRequest", alice)
    alice.end()
    with pytest.raises(TransferFailed) as caught:
        await asyncio.wait_for(transfer, PATIENCE)
    assert caught.value.code == 487


def test_what_cannot_be_transferred(three: Three) -> None:
    bob, _ = three.talk("bob", "alice")
    with pytest.raises(ValueError, match="target"):
        bob.transfer()
    with pytest.raises(ValueError, match="neither sip nor sips"):
        bob.transfer("tel:+1900")
    with pytest.raises(ValueError, match="its own place"):
        bob.transfer(replaces=bob)
    with pytest.raises(SessionStateError, match="cannot replace"):
        bob.transfer(replaces=Session(three.accounts["bob"]))
    with pytest.raises(ValueError, match="another engine"):
        bob.transfer(replaces=Session(three.accounts["carol"]))
    session = Session(three.accounts["bob"])
    for verb in (session.accept_transfer, session.reject_transfer, lambda: session.transfer("sip:x@127.0.0.1")):
        with pytest.raises(SessionStateError, match="NULL"):
            verb()


# --- INFO ------------------------------------------------------------------------------------------------------------


async def test_info_both_ways(pair: Pair) -> None:
    pair.bob.sip.info_packages = ["x-chess"]
    pair.bob.save()
    outgoing, incoming = pair.established()
    assert await outgoing.send_info("grüße") == InfoOutcome(200, "OK")
    got = pair.watch.wait("SIPSessionGotInfo", incoming).data
    assert (got.content, got.content_type, got.info_package) == ("grüße".encode(), "text/plain", None)
    sent = outgoing.send_info(b"\x00e4", "application/x-chess", "x-chess").wait(PATIENCE)
    assert sent.delivered
    got = pair.watch.wait("SIPSessionGotInfo", incoming, where=lambda one: one.data.info_package == "x-chess").data
    assert (got.content, got.content_type) == (b"\x00e4", "application/x-chess")
    with pytest.raises(SessionStateError, match="does not take info package x-chess"):
        incoming.send_info("e5", info_package="x-chess")
    with pytest.raises(ValueError, match="no content type"):
        outgoing.send_info("x", "nonsense")
    with pytest.raises(ValueError, match="info_packages"):
        pair.bob.sip.info_packages = ["two words"]
    request = incoming.send_info("Signal=#\r\nDuration=100", "application/dtmf-relay")
    assert request.wait(PATIENCE).code == 200
    assert pair.watch.wait("SIPSessionGotDTMF", outgoing).data.digit == "#"
    told = [brief(one) for one in pair.watch.heard if one.sender is outgoing and "Info" in one.name]
    assert told == ["DidDeliverInfo", "DidDeliverInfo"]
    outgoing.end()
    pair.ended(outgoing, incoming)
    with pytest.raises(SessionStateError):
        outgoing.send_info("too late")
