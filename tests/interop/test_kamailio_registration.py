"""Registrations at Kamailio: digest, a call through it, a wrong password."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipwire import Account, Engine, NotificationCenter, RegistrationFailed, Route, Session, SessionState

from .kamailio import DOMAIN, USERS, Kamailio, why_no_kamailio

pytestmark = pytest.mark.skipif(why_no_kamailio() is not None, reason=str(why_no_kamailio()))

PATIENCE = 30.0


@pytest.fixture
def kamailio(tmp_path: Path) -> Iterator[Kamailio]:
    with Kamailio(tmp_path / "kamailio") as kamailio:
        yield kamailio


def account(engine: Engine, name: str, kamailio: Kamailio, transport: str) -> Account:
    account = Account(f"{name}@{DOMAIN}", USERS[name], engine=engine)
    account.sip.outbound_proxy = Route("127.0.0.1", kamailio.port, transport)
    return account


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_registers_is_called_and_unregisters(kamailio: Kamailio, transport: str) -> None:
    options = {"local_ip": "127.0.0.1"}
    async with Engine("caller", **options) as caller, Engine("callee", **options) as callee:
        alice, bob = account(caller, "alice", kamailio, transport), account(callee, "bob", kamailio, transport)
        await alice.register()
        await bob.register()
        incoming = callee.incoming()

        async def take() -> Session:
            session = await anext(incoming)
            session.accept(audio=True)
            return session

        taken = asyncio.ensure_future(take())
        async with asyncio.timeout(PATIENCE), alice.call(f"sip:bob@{DOMAIN}") as call:
            assert call.state == SessionState.ESTABLISHED
            assert (await taken).account is bob
        await bob.unregister()
        assert not bob.registered
        for one in (alice, bob):
            one.delete()


async def test_a_wrong_password_is_said_once(kamailio: Kamailio) -> None:
    async with Engine("caller", local_ip="127.0.0.1") as engine:
        alice = account(engine, "alice", kamailio, "udp")
        alice.password = "wrong"
        async with NotificationCenter().notifications(sender=alice) as inbox:
            with pytest.raises(RegistrationFailed) as caught:
                await alice.register()
            assert caught.value.code == 401
            alice.password = USERS["alice"]
            alice.save()
            async with asyncio.timeout(PATIENCE):
                async for notification in inbox:
                    if notification.name == "SIPAccountRegistrationDidFail":
                        assert notification.data.retry_after is None
                    if notification.name == "SIPAccountRegistrationDidSucceed":
                        break
        alice.delete()
