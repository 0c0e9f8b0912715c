"""Calls over TLS and WebSockets, and certificates."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sipwire import Account, Engine, Route, Session, SessionManager
from sipwire.configuration import SIPSimpleSettings
from sipwire.errors import EngineError

from .conftest import Watch

DATA = Path(__file__).parents[1] / "data" / "tls"
OWN = DATA / "loopback.pem"
AUTHORITY = DATA / "authority.pem"


@pytest.fixture
def engines(watch: Watch) -> Iterator[tuple[Engine, Engine]]:
    caller, callee = Engine("secure-caller"), Engine("secure-callee")
    SessionManager()
    yield caller, callee
    for engine in (caller, callee):
        engine.stop()
        for account in engine.accounts:
            engine.remove_account(account)


def start(engine: Engine, **options: Any) -> None:
    engine.start(local_ip="127.0.0.1", **options)


def call(watch: Watch, caller: Engine, callee: Engine, transport: str) -> tuple[Session, Session]:
    alice, _ = Account("alice@127.0.0.1", engine=caller), Account("bob@127.0.0.1", engine=callee)
    outgoing = Session(alice)
    route = Route(*callee.addresses[transport], transport)
    outgoing.connect(callee.sip_uri("bob", transport), [route], audio=True)
    incoming = watch.wait("SIPSessionNewIncoming").sender
    incoming.accept(audio=True)
    watch.wait("SIPSessionDidStart", outgoing)
    watch.wait("SIPSessionDidStart", incoming)
    return outgoing, incoming


@pytest.mark.parametrize("transport", ["tls", "ws", "wss"])
@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_call_over_a_connection_that_only_one_side_can_make(
    watch: Watch, engines: tuple[Engine, Engine], transport: str, who: str
) -> None:
    caller, callee = engines
    start(callee, tls_port=0, ws_port=0, wss_port=0, tls_certificate=OWN)
    start(caller, tls_ca=AUTHORITY)  # listens on none of them
    assert set(callee.addresses) == {"udp", "tcp", "tls", "ws", "wss"}
    assert set(caller.addresses) == {"udp", "tcp"}
    outgoing, incoming = call(watch, caller, callee, transport)
    assert outgoing.transport == incoming.transport == transport
    (outgoing if who == "caller" else incoming).end()
    watch.wait("SIPSessionDidEnd", outgoing)
    watch.wait("SIPSessionDidEnd", incoming)
    stats = getattr(callee.stats().transport, transport)
    assert (stats.accepted, stats.connections, stats.handshake_failures) == (1, 1, 0)
    assert getattr(caller.stats().transport, transport).connected == 1


def test_a_certificate_that_nobody_vouches_for_fails_the_call_and_says_why(
    watch: Watch, engines: tuple[Engine, Engine]
) -> None:
    caller, callee = engines
    start(callee, tls_port=0, tls_certificate=OWN)
    start(caller, tls_ca=DATA / "weak-rsa-1024.pem")
    outgoing = Session(Account("alice@127.0.0.1", engine=caller))
    outgoing.connect(callee.sip_uri("bob", "tls"), [Route(*callee.addresses["tls"], "tls")], audio=True)
    failed = watch.wait("SIPSessionDidFail", outgoing)
    assert failed.data.originator == "local"
    assert "the certificate of 127.0.0.1 is signed by an authority that is not trusted" in failed.data.reason


def test_mutual_tls_both_ways(watch: Watch, engines: tuple[Engine, Engine]) -> None:
    caller, callee = engines
    files = {"tls_certificate": OWN, "tls_ca": AUTHORITY, "tls_verify_client": "required"}
    start(callee, tls_port=0, **files)
    start(caller, tls_port=0, **files)
    outgoing, incoming = call(watch, caller, callee, "tls")
    incoming.end()
    watch.wait("SIPSessionDidEnd", outgoing)


def test_certificates_are_reloaded_and_a_bad_file_is_named(tmp_path: Path, engines: tuple[Engine, Engine]) -> None:
    _, callee = engines
    own = tmp_path / "own.pem"
    shutil.copy(OWN, own)
    start(callee, tls_port=0, tls_certificate=str(own))
    callee.reload_certificates()
    own.write_text("nothing")
    with pytest.raises(EngineError, match=f"tls_certificate {own}: holds no certificate"):
        callee.reload_certificates()
    callee.stop()
    with pytest.raises(EngineError, match="not running"):
        callee.reload_certificates()


def test_an_expired_certificate_of_ours_is_told(watch: Watch, engines: tuple[Engine, Engine]) -> None:
    _, callee = engines
    start(callee, tls_port=0, tls_certificate=DATA / "expired.pem")
    told = watch.wait("SIPEngineCertificateWillExpire", callee)
    assert told.data.certificate == str(DATA / "expired.pem")
    assert told.data.expires == datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)


def test_settings_of_the_default_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIPWIRE_CONFIG", str(tmp_path / "config.json"))
    settings = SIPSimpleSettings()
    options = settings.engine_options()
    assert options["tls_verify"] is True
    assert options.get("tls_certificate") is None
    assert "wss_port" not in options or options["wss_port"] is None
