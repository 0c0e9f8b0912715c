"""Registrations against a scripted registrar: notifications, awaitables, live settings, the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sipwire import SIPURI, Account, AccountManager, Engine, EngineError, RegistrationFailed, Route
from sipwire.account import routes_for

from .conftest import Watch
from .registrar import Registrar, Request

WILL, SUCCEEDED = "AccountWillRegister", "AccountRegistrationDidSucceed"
FAILED, ENDED = "AccountRegistrationDidFail", "AccountRegistrationDidEnd"


@pytest.fixture
def registrar() -> Iterator[Registrar]:
    registrar = Registrar()
    yield registrar
    registrar.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine("registering")
    engine.start(local_ip="127.0.0.1")
    yield engine
    engine.stop()
    for account in engine.accounts:
        account.delete()


def account(engine: Engine, registrar: Registrar, **arguments: Any) -> Account:
    account = Account("alice@example.com", engine=engine, **arguments)
    account.sip.registrar = f"127.0.0.1:{registrar.port}"
    return account


def test_registers_and_ends_with_the_engine(watch: Watch, registrar: Registrar) -> None:
    engine = Engine("registering")
    alice = account(engine, registrar, register=True)
    assert not alice.registered
    engine.start(local_ip="127.0.0.1")
    data = watch.wait("SIPAccountRegistrationDidSucceed", alice).data
    assert alice.registered
    assert (data.expires, data.registrar) == (600, Route("127.0.0.1", registrar.port))
    assert data.contact == alice.contact == engine.sip_uri("alice")
    engine.stop()
    assert watch.of(alice) == [WILL, SUCCEEDED, ENDED]
    assert [request.expires for request in registrar.requests] == [600, 0]
    assert not alice.registered
    first, last = registrar.requests
    assert first.header("Call-ID") == last.header("Call-ID")
    assert (first.header("CSeq"), last.header("CSeq")) == ("1 REGISTER", "2 REGISTER")
    assert '+sip.instance="<urn:uuid:' in first.header("Contact")
    alice.delete()


def test_stop_waits_only_so_long_for_a_dead_registrar(watch: Watch, registrar: Registrar, engine: Engine) -> None:
    alice = account(engine, registrar, register=True)
    registrar.script = lambda request: None if request.expires == 0 else registrar.grant(request)
    alice.save()
    watch.wait("SIPAccountRegistrationDidSucceed", alice)
    engine.stop(1.0)
    assert watch.of(alice)[-1] == ENDED
    assert not alice.registered


async def test_register_and_unregister_can_be_awaited(registrar: Registrar, engine: Engine) -> None:
    alice = account(engine, registrar)
    await alice.unregister()  # nothing to end
    assert registrar.requests == []
    await alice.register()
    assert alice.registered
    assert alice.sip.register
    await alice.register()  # again
    await alice.unregister()
    assert not alice.registered
    assert not alice.sip.register
    assert [request.expires for request in registrar.requests] == [600, 600, 0]


async def test_a_refusal_is_raised_with_its_code(watch: Watch, registrar: Registrar, engine: Engine) -> None:
    registrar.script = lambda _: (403, "Not You", [])
    alice = account(engine, registrar)
    with pytest.raises(RegistrationFailed, match="403 Not You") as caught:
        await alice.register()
    assert (caught.value.code, caught.value.reason) == (403, "Not You")
    data = watch.wait("SIPAccountRegistrationDidFail", alice).data
    assert 15 <= data.retry_after <= 30
    assert not alice.registered
    await alice.unregister()
    assert watch.of(alice) == [WILL, FAILED, ENDED]


async def test_nobody_to_ask(registrar: Registrar) -> None:
    engine = Engine("registering")
    alice = account(engine, registrar)
    with pytest.raises(EngineError, match="not running"):
        await alice.register()
    await alice.unregister()
    alice.delete()


async def test_stopping_the_engine_ends_a_wait(registrar: Registrar, engine: Engine) -> None:
    registrar.script = lambda _: None
    alice = account(engine, registrar)
    waiting = asyncio.ensure_future(alice.register())
    await asyncio.sleep(0)
    await asyncio.to_thread(engine.stop, 0.5)
    with pytest.raises(RegistrationFailed, match="ended from this side"):
        await waiting


def test_saved_settings_move_renew_and_end_the_registration(watch: Watch, registrar: Registrar, engine: Engine) -> None:
    other = Registrar()
    alice = account(engine, registrar)
    alice.sip.register = True
    alice.save()
    watch.wait("SIPAccountRegistrationDidSucceed", alice)
    alice.rtp.symmetric = False
    alice.save()  # concerns calls only
    alice.sip.register_interval = 1200
    alice.save()
    watch.wait("SIPAccountRegistrationDidSucceed", alice, lambda one: one.data.expires == 1200)
    alice.sip.registrar = f"127.0.0.1:{other.port}"
    alice.save()
    watch.wait("SIPAccountRegistrationDidSucceed", alice, lambda one: one.data.registrar.port == other.port)
    alice.sip.register = False
    alice.save()
    watch.wait("SIPAccountRegistrationDidEnd", alice, lambda _: not alice.registered)
    assert watch.of(alice)[:7] == [WILL, SUCCEEDED, WILL, SUCCEEDED, ENDED, WILL, SUCCEEDED]
    assert [request.expires for request in registrar.requests] == [600, 1200, 0]
    other.close()


def test_an_account_made_again_takes_the_registration_over(watch: Watch, registrar: Registrar, engine: Engine) -> None:
    first = account(engine, registrar)
    first.sip.register = True
    first.save()
    watch.wait("SIPAccountRegistrationDidSucceed", first)
    second = Account("alice@example.com", engine=engine)
    assert not first.enabled
    watch.wait("SIPAccountRegistrationDidEnd", second)
    assert [request.expires for request in registrar.requests] == [600, 0]


def test_a_deleted_account_is_unregistered(watch: Watch, registrar: Registrar, engine: Engine) -> None:
    alice = account(engine, registrar)
    alice.sip.register = True
    alice.save()
    watch.wait("SIPAccountRegistrationDidSucceed", alice)
    alice.delete()
    watch.wait("SIPAccountRegistrationDidEnd", alice)
    assert [request.expires for request in registrar.requests] == [600, 0]


def test_calls_of_a_registered_account_go_where_it_is_registered(
    watch: Watch, registrar: Registrar, engine: Engine
) -> None:
    alice = account(engine, registrar)
    bob, device = SIPURI("sip:bob@example.org"), SIPURI("sip:bob@192.0.2.1:5080")
    assert routes_for(alice, bob, None) == []  # none: the core locates it
    assert routes_for(alice, device, None) == []
    alice.sip.register = True
    alice.save()
    watch.wait("SIPAccountRegistrationDidSucceed", alice)
    assert routes_for(alice, bob, None) == [Route("127.0.0.1", registrar.port)]
    assert routes_for(alice, device, None) == []
    assert routes_for(alice, bob, [Route("192.0.2.2")]) == [Route("192.0.2.2")]


def test_the_manager_registers_and_unregisters(watch: Watch, registrar: Registrar) -> None:
    engine = Engine()
    engine.start(local_ip="127.0.0.1")
    manager = AccountManager()
    manager.start()
    alice = account(engine, registrar)
    alice.sip.register = True
    alice.save()
    watch.wait("SIPAccountRegistrationDidSucceed", alice)
    manager.stop()
    watch.wait("SIPAccountRegistrationDidEnd", alice)
    assert alice.sip.register
    manager.start()
    watch.wait("SIPAccountRegistrationDidSucceed", alice, lambda _: len(registrar.requests) > 2)
    manager.stop()
    engine.stop()
    alice.delete()


def test_a_nat_is_seen_through(watch: Watch, registrar: Registrar, engine: Engine) -> None:
    def behind_nat(request: Request) -> tuple[int, str, list[str]]:
        request.source = ("203.0.113.7", 40_000)
        return registrar.grant(request)

    send = registrar._socket.sendto
    port = engine.addresses["udp"][1]

    class Socket:
        """Answers go back to where the request really came from."""

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        def sendto(self, data: bytes, _: tuple[str, int]) -> int:
            return send(data, ("127.0.0.1", registrar.port if data == b"stop" else port))

    inner, registrar._socket = registrar._socket, Socket()  # type: ignore[assignment]
    registrar.script = behind_nat
    alice = account(engine, registrar)
    alice.sip.register = True
    alice.save()
    data = watch.wait("SIPAccountRegistrationDidSucceed", alice).data
    assert str(data.contact) == str(alice.contact) == "sip:alice@203.0.113.7:40000"
    assert len(registrar.requests) == 2
    registrar.script = registrar.grant
    alice.delete()
    watch.wait("SIPAccountRegistrationDidEnd", alice)


def test_the_name_of_the_device_is_kept_with_a_port_of_its_own(registrar: Registrar) -> None:
    engine = Engine("registering")
    names = []
    for port in (0, 0, registrar.port + 1, registrar.port + 1):
        alice = account(engine, registrar)
        engine._own_port = port or None
        names.append(alice._device_name())
        alice.delete()
    assert names[0] != names[1]
    assert names[2] == names[3] != names[0]


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("sip", "registrar", "two words"),
        ("sip", "registrar", 7),
        ("sip", "register_interval", 0),
        ("sip", "register_interval", float("nan")),
        ("sip", "transport_list", ()),
        ("sip", "transport_list", ("smoke",)),
        ("sip", "follow_redirects", -1),
        ("sip", "follow_redirects", 1.5),
        ("sip", "session_timer", 89),
        ("sip", "digest_algorithms", ("SHA-1",)),
        ("sip", "instance_id", "me"),
        ("nat_traversal", "use_ice", True),
        ("nat_traversal", "stun_servers", ("stun.example.com",)),
        ("nat_traversal", "turn_servers", ("turn.example.com",)),
        ("presence", "enabled", True),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(engine: Engine, group: str, name: str, value: Any) -> None:
    alice = Account("alice@example.com", engine=engine)
    with pytest.raises(ValueError, match=r"URI" if value == "two words" else f"{group}.{name}"):
        setattr(getattr(alice, group), name, value)


def test_settings_have_their_defaults_and_are_kept_as_said(engine: Engine) -> None:
    alice = Account("alice@example.com", engine=engine)
    assert (alice.sip.register, alice.sip.registrar, alice.sip.register_interval) == (False, None, 600)
    assert (alice.sip.transport_list, alice.sip.follow_redirects) == (("udp", "tcp", "tls"), 0)
    assert (alice.sip.session_timer, alice.sip.require_100rel) == (1800, False)
    assert alice.sip.digest_algorithms == ("SHA-512-256", "SHA-256", "MD5")
    assert (alice.nat_traversal.use_ice, alice.message_summary.enabled, alice.presence.enabled) == (False,) * 3
    alice.sip.transport_list = "TLS"
    alice.sip.digest_algorithms = ["md5"]
    alice.sip.registrar = SIPURI("sips:example.com")
    alice.sip.session_timer = None
    alice.sip.instance_id = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
    alice.message_summary.enabled = True
    assert (alice.sip.transport_list, alice.sip.digest_algorithms) == (("tls",), ("MD5",))
    alice.save()


def test_no_repr_shows_the_password(engine: Engine) -> None:
    alice = Account("alice@example.com", "s3cret", engine=engine, auth_username="a1", register=False)
    shown = [alice, alice.sip, alice.rtp, alice.nat_traversal, alice.message_summary, alice.presence, engine]
    assert "s3cret" not in "".join(map(repr, shown))


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sipwire", "register", "--local-ip", "127.0.0.1", *arguments, "--json"],
        env={**os.environ, "SIP_USER": "alice@example.com", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_registers_until_ctrl_c(registrar: Registrar) -> None:
    lines = []
    with command(f"127.0.0.1:{registrar.port}", "--expires", "300", SIP_PASSWORD="s3cret") as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(json.loads(line))
            if lines[-1].get("name") == "SIPAccountRegistrationDidSucceed":
                process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    names = [line["name"] for line in lines if "name" in line]
    assert names.index("SIPAccountRegistrationDidSucceed") < names.index("SIPAccountRegistrationDidEnd")
    assert lines[-1]["result"]["account"] == "alice@example.com"
    assert [request.expires for request in registrar.requests] == [300, 0]
    assert "s3cret" not in json.dumps(lines)


@pytest.mark.parametrize(
    ("answer", "arguments", "code", "said"),
    [
        ((403, "No", []), [], 3, 403),
        (None, ["--timeout", "0.5"], 4, 408),
        (None, ["--proxy", "nowhere.invalid"], 3, 503),
    ],
)
def test_the_command_says_what_went_wrong(
    registrar: Registrar, answer: Any, arguments: list[str], code: int, said: int
) -> None:
    registrar.script = lambda _: answer
    process = command(f"127.0.0.1:{registrar.port}", *arguments)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert json.loads(output.splitlines()[-1])["result"]["code"] == said


def test_the_command_refuses_what_is_no_registrar() -> None:
    process = command("two words")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "two words" in errors
