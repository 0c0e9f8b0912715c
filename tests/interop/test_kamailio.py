"""Kamailio as registrar, proxy and presence server, over UDP, TCP, TLS and WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sipwire import SIPURI, Account, Engine, NotificationCenter, Route, Session, SessionState

from .kamailio import DOMAIN, USERS, Kamailio, why_no_kamailio

pytestmark = pytest.mark.skipif(why_no_kamailio() is not None, reason=str(why_no_kamailio()))

TRANSPORTS = ["udp", "tcp", "tls", "ws", "wss"]
PATIENCE = 30.0


@pytest.fixture(scope="module")
def kamailio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kamailio]:
    with Kamailio(tmp_path_factory.mktemp("kamailio")) as kamailio:
        yield kamailio


def proxy(kamailio: Kamailio, transport: str) -> Route:
    ports = {"tls": kamailio.tls_port, "ws": kamailio.ws_port, "wss": kamailio.wss_port}
    return Route("127.0.0.1", ports.get(transport, kamailio.port), transport)


@contextlib.asynccontextmanager
async def registered(kamailio: Kamailio, transport: str, name: str) -> AsyncIterator[Account]:
    """An account of its own engine, registered."""
    async with Engine(name, local_ip="127.0.0.1", tls_ca=str(kamailio.ca)) as engine:
        account = Account(f"{name}@{DOMAIN}", USERS[name], engine=engine)
        account.sip.outbound_proxy = proxy(kamailio, transport)
        account.save()
        async with asyncio.timeout(PATIENCE):
            await account.register()
        yield account
        account.delete()


def answering(account: Account) -> asyncio.Task[Session]:
    """The next call to this account, taken."""
    calls = account.engine.incoming()

    async def take() -> Session:
        session = await anext(calls)
        session.accept(audio=True)
        await session.wait_for("SIPSessionDidStart")
        return session

    return asyncio.ensure_future(take())


async def told(name: str, sender: object) -> object:
    """The data of the next notification of that name."""
    async with NotificationCenter().notifications(name=name, sender=sender) as inbox:
        return (await anext(aiter(inbox))).data


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_through_it_is_held_resumed_and_ended(kamailio: Kamailio, transport: str) -> None:
    async with registered(kamailio, transport, "alice") as alice, registered(kamailio, transport, "bob") as bob:
        taken = answering(bob)
        async with asyncio.timeout(PATIENCE), alice.call(f"sip:bob@{DOMAIN}") as call:
            theirs = await taken
            assert call.state == theirs.state == SessionState.ESTABLISHED
            async with theirs.notifications() as inbox:
                call.hold()
                async for notification in inbox:
                    if notification.name == "SIPSessionGotHoldRequest":
                        assert notification.data.originator == "remote"
                        assert theirs.on_hold_by_remote
                        call.unhold()
                    if notification.name == "SIPSessionGotUnholdRequest":
                        break
            assert not theirs.on_hold
            theirs.end()
            await call.wait_for("SIPSessionDidEnd")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_messages_pass(kamailio: Kamailio, transport: str) -> None:
    async with (
        registered(kamailio, transport, "alice") as alice,
        registered(kamailio, transport, "bob") as bob,
        asyncio.timeout(PATIENCE),
        NotificationCenter().notifications(name="SIPEngineGotMessage", sender=bob.engine) as inbox,
    ):
        outcome = await alice.send_message(f"sip:bob@{DOMAIN}", "gruß")
        assert outcome.accepted
        message = (await anext(aiter(inbox))).data
        assert (message.content.decode(), message.from_uri.user) == ("gruß", "alice")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_presence_is_published_and_watched(tmp_path: Path, transport: str) -> None:
    # Its presence server sends to the Contact itself, so that has to be an address rather than a GRUU of its domain.
    async with contextlib.AsyncExitStack() as stack:
        kamailio = stack.enter_context(Kamailio(tmp_path / "kamailio", gruu=False))
        alice = await stack.enter_async_context(registered(kamailio, transport, "alice"))
        bob = await stack.enter_async_context(registered(kamailio, transport, "bob"))
        await stack.enter_async_context(asyncio.timeout(PATIENCE))
        watched = alice.subscribe("presence", f"sip:bob@{DOMAIN}", expires=600)
        publication = bob.publish_presence(True, note="here")
        async for update in watched:
            if update.parsed is not None and update.parsed.is_open:
                break
        publication.remove()
        watched.unsubscribe()
        await watched.ended()


@pytest.mark.parametrize("transport", ["udp", "tls", "ws"])
async def test_a_transfer_through_it_brings_the_third_party(kamailio: Kamailio, transport: str) -> None:
    async with (
        registered(kamailio, transport, "alice") as alice,
        registered(kamailio, transport, "bob") as bob,
        registered(kamailio, transport, "carol") as carol,
        asyncio.timeout(PATIENCE),
    ):
        taken, third = answering(bob), answering(carol)
        async with alice.call(f"sip:bob@{DOMAIN}") as call:
            theirs = await taken
            async with theirs.notifications() as inbox:
                asked = call.transfer(SIPURI(f"sip:carol@{DOMAIN}"))
                async for notification in inbox:
                    if notification.name == "SIPSessionGotTransferRequest":
                        new = theirs.accept_transfer()
                        break
            outcome = await asked
            assert outcome.code == 200
            session = await third
            assert session.state == new.state == SessionState.ESTABLISHED
            new.end()
