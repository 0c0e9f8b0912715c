"""The test registrar and proxy on real sockets, with accounts and sessions of ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sipwire import Account, Engine, EngineError, Session, SessionManager
from sipwire.testing import Proxy, Registrar

from .conftest import Watch

USERS = {"alice": "wondrous", "bob": "zanzibar"}


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(USERS) as proxy:
        yield proxy


def test_a_proxy_listens_where_it_was_told(proxy: Proxy) -> None:
    assert sorted(proxy.addresses) == ["tcp", "udp"]
    route = proxy.route("tcp")
    assert (route.address, route.port, route.transport) == ("127.0.0.1", proxy.port("tcp"), "tcp")
    assert proxy.uri("alice") == "sip:alice@example.com"
    assert proxy.registrations == []
    assert proxy.messages == []
    with pytest.raises(EngineError, match="udp_port"):
        Proxy(USERS, udp_port=proxy.port()).start()
    with pytest.raises(KeyError):
        proxy.route("tls")


def test_what_cannot_be_used_is_named(proxy: Proxy) -> None:
    for arguments, wrong in (
        ({"what": "explode"}, "explode"),
        ({"what": "answer", "status": 200}, "200"),
        ({"what": "drop", "method": "NO GOOD"}, "NO GOOD"),
    ):
        with pytest.raises(ValueError, match=wrong):
            proxy.misbehave(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="SHA-1"):
        Proxy(USERS, algorithms=["SHA-1"]).start()
    with pytest.raises(KeyError):
        proxy.remove_user("nobody")
    with pytest.raises(RuntimeError, match="does not run"):
        _ = Proxy(USERS).registrations
    assert Registrar is Proxy


@pytest.fixture
def phones() -> Iterator[list[Engine]]:
    """An engine for Alice and one for Bob."""
    SessionManager()
    engines = [Engine("alice"), Engine("bob")]
    for engine in engines:
        engine.start(local_ip="127.0.0.1")
    yield engines
    for engine in engines:
        engine.stop()
        for account in engine.accounts:
            account.delete()


def register(engine: Engine, proxy: Proxy, user: str, transport: str = "udp", password: str | None = None) -> Account:
    account = Account(proxy.uri(user), password or USERS[user], engine=engine)
    account.sip.outbound_proxy = proxy.route(transport)
    account.sip.register = True
    account.save()
    return account


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_account_registers_with_its_password(
    phones: list[Engine], watch: Watch, proxy: Proxy, transport: str
) -> None:
    alice = register(phones[0], proxy, "alice", transport)
    watch.wait("SIPAccountRegistrationDidSucceed", alice)
    found = proxy.wait_for_registration("alice")
    assert found.transport == transport
    assert 0 < found.expires <= 3600
    assert (proxy.count("REGISTER"), proxy.count("REGISTER", 401), proxy.count("REGISTER", 200)) == (2, 1, 1)
    assert all("wondrous" not in message.text for message in proxy.messages)


def test_a_wrong_password_is_asked_for_twice_and_no_more(phones: list[Engine], watch: Watch, proxy: Proxy) -> None:
    alice = register(phones[0], proxy, "alice", password="guess")
    failed = watch.wait("SIPAccountRegistrationDidFail", alice)
    assert failed.data.code == 401
    assert proxy.count("REGISTER", 401) == 2
    assert proxy.registrations == []


def test_a_call_through_the_proxy(phones: list[Engine], watch: Watch, proxy: Proxy) -> None:
    alice, bob = register(phones[0], proxy, "alice"), register(phones[1], proxy, "bob")
    for each in (alice, bob):
        watch.wait("SIPAccountRegistrationDidSucceed", each)
    outgoing = Session(alice)
    outgoing.connect(proxy.uri("bob"), [proxy.route()], audio=True)
    incoming = watch.wait("SIPSessionNewIncoming").sender
    assert isinstance(incoming, Session)
    incoming.accept(audio=True)
    watch.wait("SIPSessionDidStart", outgoing)
    outgoing.end()
    watch.wait("SIPSessionDidEnd", incoming)
    assert (proxy.count("INVITE"), proxy.count("INVITE", 407)) == (2, 1)
    assert proxy.wait_for_message("BYE").received


def test_misbehaviour_is_heard_of(phones: list[Engine], watch: Watch, proxy: Proxy) -> None:
    alice = register(phones[0], proxy, "alice")
    watch.wait("SIPAccountRegistrationDidSucceed", alice)
    proxy.misbehave("answer", method="INVITE", times=1, status=503, headers={"Retry-After": "5"})
    session = Session(alice)
    session.connect(proxy.uri("bob"), [proxy.route()], audio=True)
    failed = watch.wait("SIPSessionDidFail", session)
    assert failed.data.code == 503
    assert proxy.wait_for_message("INVITE", 503).header("Retry-After") == "5"
    proxy.misbehave("challenge", method="INVITE", stale=True)
    session = Session(alice)
    session.connect(proxy.uri("bob"), [proxy.route()], audio=True)
    assert watch.wait("SIPSessionDidFail", session).data.code == 407
    proxy.behave()
    session = Session(alice)
    session.connect(proxy.uri("bob"), [proxy.route()], audio=True)
    assert watch.wait("SIPSessionDidFail", session).data.code == 480
