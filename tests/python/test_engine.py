"""Engines: options, start and stop, accounts, OPTIONS, counters, settings."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sipwire import (
    SIPURI,
    Account,
    AccountManager,
    ConfigurationManager,
    Engine,
    EngineError,
    Notification,
    NotificationCenter,
    Route,
    Session,
    SIPSimpleSettings,
)

from .conftest import Pair, Watch


@pytest.fixture
def engine(watch: Watch) -> Iterator[Engine]:
    engine = Engine("under test")
    yield engine
    engine.stop()
    for account in engine.accounts:
        account.delete()


def test_one_engine_for_each_name() -> None:
    assert Engine() is Engine("default")
    assert Engine("under test") is Engine("under test")
    assert Engine() is not Engine("under test")


def test_start_stop_and_again(engine: Engine, watch: Watch) -> None:
    assert not engine.is_running
    assert engine.addresses == {}
    for _ in range(3):
        engine.start(local_ip="127.0.0.1")
        assert engine.is_running
        assert {name: host for name, (host, _) in engine.addresses.items()} == {"udp": "127.0.0.1", "tcp": "127.0.0.1"}
        with pytest.raises(EngineError, match="running already"):
            engine.start()
        engine.stop()
        engine.stop()
        assert not engine.is_running
    assert watch.of(engine) == ["EngineWillStart", "EngineDidStart", "EngineWillEnd", "EngineDidEnd"] * 3


def test_a_port_in_use_is_named(engine: Engine, watch: Watch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=rf"udp_port.*{port}"):
            engine.start(local_ip="127.0.0.1", udp_port=port)
    assert not engine.is_running
    failed = watch.wait("SIPEngineDidFail", engine)
    assert str(port) in failed.data.error
    assert watch.of(engine) == ["EngineWillStart", "EngineDidFail"]
    engine.start(local_ip="127.0.0.1")


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("udp_prot", 5060, "udp_prot=5060"),
        ("udp_port", 70000, "udp_port=70000"),
        ("udp_port", "5060", "udp_port='5060'"),
        ("tcp_port", -1, "tcp_port=-1"),
        ("local_ip", "localhost", "local_ip='localhost'"),
        ("local_ip", "192.0.2.1", "192.0.2.1"),
        ("codecs", ("opus", "iLBC"), "iLBC"),
        ("codecs", (), "codecs"),
        ("rtp_port_range", (40000, 30000), "rtp_port_range"),
        ("rtp_port_range", 5, "rtp_port_range=5"),
        ("audio_device", "no such card", "no such card"),
        ("tls_port", 5061, "tls_port 5061 needs tls_certificate"),
        ("wss_port", "https", "wss_port='https'"),
        ("tls_certificate", "/nowhere/own.pem", "tls_certificate /nowhere/own.pem: no such file"),
        ("tls_ca", __file__, f"tls_ca {__file__}: holds no certificate"),
        ("tls_private_key", 5, "tls_private_key=5"),
        ("tls_verify", None, "tls_verify=None"),
        ("tls_verify_client", "maybe", "tls_verify_client='maybe'"),
        ("websocket_origins", ["example.com"], 'websocket_origins: "example.com"'),
        ("media_threads", "many", "media_threads='many'"),
        ("recordings_directory", 5, "recordings_directory=5"),
        ("trace_sip", "yes", "trace_sip='yes'"),
    ],
)
def test_a_bad_option_is_named_with_its_value(engine: Engine, option: str, value: Any, named: str) -> None:
    with pytest.raises(EngineError) as caught:
        engine.start(**{option: value})
    assert named in str(caught.value)
    assert not engine.is_running


def test_stop_in_a_handler_returns_and_happens_behind_it(pair: Pair) -> None:
    outgoing, incoming = pair.established()

    def observer(notification: Notification) -> None:
        pair.caller.stop()

    NotificationCenter().add_observer(observer, "SIPSessionWillEnd", outgoing)
    outgoing.end()
    pair.watch.wait("SIPEngineDidEnd", pair.caller)
    assert pair.watch.of(outgoing)[-1] == "DidEnd local"
    pair.ended(incoming)
    NotificationCenter().purge_observer(observer)


def test_stop_ends_calls_and_tells_the_peer(pair: Pair) -> None:
    outgoing, incoming = pair.established()
    ringing, rung = pair.call()
    pair.caller.stop()
    assert outgoing.state == ringing.state == "TERMINATED"
    assert pair.watch.of(outgoing)[-1] == pair.watch.of(ringing)[-1] == "DidEnd local"
    pair.ended(incoming, rung)
    assert pair.watch.of(incoming)[-1] == "DidEnd remote"
    outgoing.end()
    assert pair.watch.of(pair.caller) == ["EngineWillStart", "EngineDidStart", "EngineWillEnd", "EngineDidEnd"]


def test_options_given_with_the_name(watch: Watch) -> None:
    engine = Engine("under test", local_ip="127.0.0.1", udp_port=None)
    engine.start()
    assert list(engine.addresses) == ["tcp"]
    account = Account("alice@127.0.0.1", engine=engine)
    session = account.call("sip:bob@127.0.0.1:1").session
    assert session.state == "NULL"
    engine.stop()
    account.delete()
    engine.configured()


def test_calls_go_over_what_the_engine_has(pair: Pair) -> None:
    pair.caller.stop()
    pair.caller.start(local_ip="127.0.0.1", udp_port=None)
    host, port = pair.callee.addresses["tcp"]
    answer = pair.caller.options(f"sip:bob@{host}:{port}").wait(10)
    assert answer.code == 200


def test_run_blocks_until_stopped(engine: Engine, watch: Watch) -> None:
    thread = threading.Thread(target=engine.configured(local_ip="127.0.0.1").run)
    thread.start()
    watch.wait("SIPEngineDidStart", engine)
    engine.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_stats_have_names_and_values(pair: Pair) -> None:
    outgoing, incoming = pair.established()
    stats = pair.caller.stats()
    assert stats.ua.sessions == 1
    assert stats.transport.udp_sent >= 2
    assert stats.commands.refused == 0
    assert stats.events.posted >= 7
    assert sum(thread.calls for thread in stats.media) == 1
    assert stats.panics == 0
    assert json.dumps(stats.as_dict())
    assert "udp_sent=" in repr(stats)
    outgoing.end()
    pair.ended(outgoing, incoming)


def test_sip_trace(pair: Pair) -> None:
    pair.caller.stop()
    pair.caller.start(local_ip="127.0.0.1", trace_sip=True)
    outgoing, incoming = pair.established()
    outgoing.end()
    pair.ended(outgoing, incoming)
    sent = [one.data for one in pair.watch.heard if one.name == "SIPEngineSIPTrace" and one.sender is pair.caller]
    first = sent[0]
    assert (first.received, first.source, first.destination, first.transport) == (
        False,
        pair.caller.addresses["udp"],
        pair.callee.addresses["udp"],
        "udp",
    )
    assert first.data.startswith(b"INVITE sip:bob@")
    assert b"inline:" in first.data
    methods = [one.data.split(b" ")[0].decode() for one in sent if not one.received]
    assert methods == ["INVITE", "ACK", "BYE"]


def test_secrets_do_not_show(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Passwords and SRTP keys are in no log, no notification and no text of an object, with everything turned on."""
    caplog.set_level(0)
    pair.caller.stop()
    pair.caller.start(local_ip="127.0.0.1", trace_sip=True)
    carol = Account("carol@127.0.0.1", "hunter2", engine=pair.caller)
    out = io.StringIO()
    NotificationCenter().trace(out)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(20)
        session = Session(carol)
        session.connect(pair.uri, [Route(*peer.getsockname())], audio=True)
        keys = re.findall(r"inline:([A-Za-z0-9+/=]{20,})", peer.recv(65535).decode())
        assert len(keys) >= 2
        pair.watch.wait("SIPEngineSIPTrace", pair.caller)
        shown = [repr(one) for one in (carol, carol.sip, carol.rtp, session, session.audio, session.audio_transport)]
        shown += [session.local_sdp or "", repr(session.request_headers)]
        pair.caller.stop()
    NotificationCenter().trace(False)
    shown += [out.getvalue(), caplog.text, *(repr(one) for one in pair.watch.heard)]
    assert any("inline:" in text for text in shown), "the trace shows the line, masked"
    for secret in ("hunter2", *keys):
        assert not any(secret in text for text in shown)


def test_a_handler_that_hangs_does_not_hang_the_engine(engine: Engine, watch: Watch) -> None:
    release = threading.Event()

    def hang(notification: Notification) -> None:
        release.wait(30)

    NotificationCenter().add_observer(hang, "SIPEngineWillEnd", engine)
    engine.start(local_ip="127.0.0.1")
    began = time.monotonic()
    engine.stop(0.5)
    assert time.monotonic() - began < 3
    assert not engine.is_running
    release.set()
    watch.wait("SIPEngineDidEnd", engine)
    NotificationCenter().purge_observer(hang)
    engine.start(local_ip="127.0.0.1")
    assert engine.is_running


# --- accounts --------------------------------------------------------------------------------------------------------


def test_accounts_by_any_spelling(engine: Engine) -> None:
    for given in ("alice@example.com", "sip:alice@example.com", SIPURI("sip:alice@example.com")):
        account = Account(given, "hunter2", engine=engine, display_name="Alice")
        assert account.id == "alice@example.com"
        assert engine.accounts == [account], "the newest replaces the one before"
        assert account.enabled
        assert "hunter2" not in repr(account)


@pytest.mark.parametrize("given", ["example.com", "", "alice@", "alice@exa mple", 5])
def test_what_is_no_account_id_is_named(engine: Engine, given: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Account(given, engine=engine)
    assert engine.accounts == []


def test_settings_are_checked_when_they_are_set(engine: Engine) -> None:
    account = Account("alice@example.com", engine=engine)
    account.sip.outbound_proxy = "proxy.example.com:5070;transport=tcp"
    assert account.sip.outbound_proxy == Route("proxy.example.com", 5070, "tcp")
    account.rtp.audio_codec_list = ("pcma", "OPUS")
    assert account.rtp.audio_codec_list == ("PCMA", "opus")
    with pytest.raises(ValueError, match="sometimes"):
        account.rtp.srtp_encryption = "sometimes"
    with pytest.raises(ValueError, match="iLBC"):
        account.rtp.audio_codec_list = ("iLBC",)
    with pytest.raises(AttributeError):
        account.rtp.typo = 1
    assert "outbound_proxy" in repr(account.sip)


@pytest.mark.parametrize(
    ("mine", "theirs", "codec", "encrypted"),
    [
        (("PCMA",), None, "PCMA", True),
        (("PCMU", "opus"), ("opus", "PCMU"), "PCMU", True),
        (("G722",), None, "G722", False),
    ],
)
def test_settings_take_effect(pair: Pair, mine: Any, theirs: Any, codec: str, encrypted: bool) -> None:
    pair.alice.rtp.audio_codec_list = mine
    pair.bob.rtp.audio_codec_list = theirs
    pair.bob.rtp.srtp_encryption = "optional" if encrypted else "disabled"
    pair.alice.save()
    pair.bob.save()
    outgoing, incoming = pair.established()
    assert outgoing.audio_codec == incoming.audio_codec == codec
    assert outgoing.audio_srtp_active == incoming.audio_srtp_active == encrypted
    outgoing.end()
    pair.ended(outgoing, incoming)


def test_mandatory_encryption_refuses_and_is_refused(pair: Pair) -> None:
    pair.alice.rtp.srtp_encryption = "mandatory"
    pair.alice.save()
    pair.bob.rtp.srtp_encryption = "disabled"
    pair.bob.save()
    session = Session(pair.alice)
    session.connect(pair.uri, [pair.route], audio=True)
    pair.ended(session)
    assert "DidFail remote 488" in pair.watch.of(session)


def test_catch_all_takes_calls_to_anybody(pair: Pair) -> None:
    pair.bob.sip.catch_all = True
    pair.bob.save()
    session = Session(pair.alice)
    session.connect("sip:somebody@127.0.0.1", [pair.route], audio=True)
    incoming = pair.watch.wait("SIPSessionNewIncoming").sender
    assert incoming.account is pair.bob
    incoming.reject()
    pair.ended(session, incoming)


def test_the_account_manager(watch: Watch, tmp_path: Path) -> None:
    manager = AccountManager()
    assert manager is AccountManager()
    assert manager.get_accounts() == []
    alice = Account("alice@example.com")
    bob = Account("bob@example.com")
    assert [one.data.account for one in watch.heard if one.name == "SIPAccountManagerDidAddAccount"] == [alice, bob]
    assert manager.get_account("bob@example.com") is bob
    assert manager.get_account("carol@example.com") is None
    assert manager.find_account("sip:bob@EXAMPLE.com") is bob
    assert manager.default_account is alice
    manager.default_account = bob
    assert manager.default_account is bob
    watch.wait("SIPAccountManagerDidChangeDefaultAccount", manager)
    for account in (alice, bob):
        account.delete()
    assert manager.get_accounts() == []
    assert not alice.enabled
    with pytest.raises(ValueError, match="alice"):
        manager.default_account = alice


def test_settings_outlive_the_program(tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    monkeypatch.setenv("SIPWIRE_CONFIG", str(path))
    configuration = ConfigurationManager()
    configuration.start()
    settings = SIPSimpleSettings()
    settings.local_ip = "127.0.0.1"
    settings.audio.recordings_directory = str(tmp_path)
    settings.rtp.port_range = (40000, 40100)
    configuration.set("accounts/alice@127.0.0.1", {"display_name": "Alice"})
    settings.save()
    assert path.stat().st_mode & 0o077 == 0
    configuration.set("local_ip", None)
    configuration.start()
    assert settings.engine_options()["rtp_port_range"] == (40000, 40100)
    with pytest.raises(AttributeError, match="audio/typo"):
        settings.audio.typo = 1
    AccountManager().start()
    account = AccountManager().get_account("alice@127.0.0.1")
    assert account is not None
    assert account.display_name == "Alice"
    watch.wait("SIPAccountDidActivate", account)
    Engine().start_cfg()
    assert Engine().addresses["udp"][0] == "127.0.0.1"
    assert Engine().recordings_directory == str(tmp_path)
    Engine().stop()
    AccountManager().stop()
    account.delete()
    path.write_text("[]")
    with pytest.raises(Exception, match=r"config\.json"):
        configuration.start()
    path.unlink()
    configuration.start()


# --- OPTIONS ---------------------------------------------------------------------------------------------------------


def test_options(pair: Pair) -> None:
    answer = pair.caller.options(pair.uri).wait(10)
    assert answer.code == 200
    assert answer.rtt is not None
    assert 0 < answer.rtt < 5
    told = pair.watch.wait("SIPOptionsDidAnswer", pair.caller)
    assert told.data.code == 200


async def test_options_awaited(pair: Pair) -> None:
    answer = await pair.caller.options(pair.uri, account=pair.alice, routes=[pair.route])
    assert answer.code == 200


def test_options_nobody_answers_while_the_engine_stops(pair: Pair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        request = pair.caller.options(f"sip:127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(TimeoutError):
            request.wait(0.05)
        pair.caller.stop()
        with pytest.raises(EngineError, match="stopped"):
            request.wait(5)


def test_the_invite_rate_holds_for_one_source_too(pair: Pair) -> None:
    pair.callee.stop()
    pair.callee.start(local_ip="127.0.0.1", invite_rate=3)
    sessions = [Session(pair.alice) for _ in range(10)]
    for session in sessions:
        session.connect("sip:nobody@127.0.0.1", [pair.route], audio=True)
    pair.watch.wait("SIPSessionDidFail", where=lambda one: one.data.code == 503)
    assert pair.callee.stats().ua.refused_by_rate > 0
    for session in sessions:
        session.end()
