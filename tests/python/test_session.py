"""Sessions over loopback: every path of a call, from both sides, in exact order."""

from __future__ import annotations

import datetime
import socket
import threading
import time
from typing import Any

import pytest

from sipwire import Account, Engine, Notification, NotificationCenter, Route, Session, SessionManager, SessionStateError
from sipwire.errors import EngineError

from .conftest import Pair, Watch

CALLING = ["ChangedState NULL→CALLING", "NewOutgoing audio", "GotRingIndication"]
CALLED = ["WillStart", "GotStreamUpdate audio", "ChangedState CALLING→ESTABLISHED", "DidStart"]
INCOMING = ["ChangedState NULL→INCOMING", "NewIncoming audio"]
ACCEPTED = [
    "ChangedState INCOMING→ACCEPTING",
    "WillStart",
    "GotStreamUpdate audio",
    "ChangedState ACCEPTING→ESTABLISHED",
    "DidStart",
]
ENDING = [
    "ChangedState ESTABLISHED→TERMINATING",
    "WillEnd",
    "GotStreamUpdate nothing",
    "ChangedState TERMINATING→TERMINATED",
    "DidEnd local",
]
HUNG_UP = ["GotStreamUpdate nothing", "ChangedState ESTABLISHED→TERMINATED", "DidEnd remote"]


# --- the paths of a call ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_call_and_its_end(pair: Pair, who: str) -> None:
    outgoing, incoming = pair.established()
    (outgoing if who == "caller" else incoming).end()
    pair.ended(outgoing, incoming)
    assert pair.watch.of(outgoing) == CALLING + CALLED + (ENDING if who == "caller" else HUNG_UP)
    assert pair.watch.of(incoming) == INCOMING + ACCEPTED + (HUNG_UP if who == "caller" else ENDING)


@pytest.mark.parametrize("code", [486, 603, 404])
def test_a_rejected_call(pair: Pair, code: int) -> None:
    outgoing, incoming = pair.call()
    incoming.reject(code, "Not now")
    pair.ended(outgoing, incoming)
    failure = ["ChangedState CALLING→TERMINATED", f"DidFail remote {code}", "DidEnd remote"]
    assert pair.watch.of(outgoing) == CALLING + failure
    refusal = ["ChangedState INCOMING→TERMINATING", "WillEnd", "ChangedState TERMINATING→TERMINATED", "DidEnd local"]
    assert pair.watch.of(incoming) == INCOMING + refusal
    assert outgoing.failure == (code, "Not now")
    assert outgoing.start_time is outgoing.stop_time is None


def test_a_call_cancelled_while_it_rings(pair: Pair) -> None:
    outgoing, incoming = pair.call()
    pair.watch.wait("SIPSessionGotRingIndication", outgoing)
    outgoing.end()
    pair.ended(outgoing, incoming)
    cancelled = ["ChangedState CALLING→TERMINATING", "WillEnd", "ChangedState TERMINATING→TERMINATED", "DidEnd local"]
    assert pair.watch.of(outgoing) == CALLING + cancelled
    missed = pair.watch.of(incoming)
    assert missed[:-2] == [*INCOMING, "ChangedState INCOMING→TERMINATED"]
    assert missed[-2].startswith("DidFail remote")
    assert missed[-1] == "DidEnd remote"


def test_a_call_declined_with_end(pair: Pair) -> None:
    outgoing, incoming = pair.call()
    incoming.end()
    pair.ended(outgoing, incoming)
    assert pair.watch.of(incoming)[-1] == "DidEnd local"
    assert "DidFail remote" in pair.watch.of(outgoing)[-2]


def test_nobody_there(pair: Pair) -> None:
    session = Session(pair.alice)
    session.connect("sip:nobody@127.0.0.1", [pair.route], audio=True)
    pair.ended(session)
    expected = ["ChangedState NULL→CALLING", "NewOutgoing audio", "ChangedState CALLING→TERMINATED"]
    assert pair.watch.of(session) == [*expected, "DidFail remote 404", "DidEnd remote"]


def test_a_route_nobody_listens_at_and_the_next_one(pair: Pair) -> None:
    session = Session(pair.alice)
    closed = Route("127.0.0.1", 1, "tcp")
    session.connect(pair.uri, [closed, pair.route], audio=True)
    incoming = pair.watch.wait("SIPSessionNewIncoming").sender
    changed = pair.watch.wait("SIPSessionDidChangeRoute", session)
    assert changed.data.route == pair.route
    assert session.route == pair.route
    incoming.accept(audio=True)
    pair.watch.wait("SIPSessionDidStart", session)
    session.end()
    pair.ended(session, incoming)


def test_no_route_leads_anywhere(pair: Pair) -> None:
    session = Session(pair.alice)
    session.connect(pair.uri, [Route("127.0.0.1", 1, "tcp")], audio=True)
    pair.ended(session)
    assert "DidFail local" in pair.watch.of(session)[-2]
    assert pair.watch.of(session)[-1] == "DidEnd local"


def test_a_name_that_does_not_resolve(pair: Pair) -> None:
    session = Session(pair.alice)
    session.connect(pair.uri, [Route("nowhere.invalid")], audio=True)
    pair.ended(session)
    failed = pair.watch.wait("SIPSessionDidFail", session)
    assert failed.data.originator == "local"


def test_over_tcp(pair: Pair) -> None:
    outgoing = Session(pair.alice)
    host, port = pair.callee.addresses["tcp"]
    outgoing.connect(f"sip:bob@{host}:{port};transport=tcp", [Route(host, port, "tcp")], audio=True)
    incoming = pair.watch.wait("SIPSessionNewIncoming").sender
    assert incoming.transport == outgoing.transport == "tcp"
    incoming.accept(audio=True)
    pair.watch.wait("SIPSessionDidStart", outgoing)
    incoming.end()
    pair.ended(outgoing, incoming)
    assert pair.watch.of(outgoing) == CALLING + CALLED + HUNG_UP


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_over_ipv6(watch: Watch, transport: str) -> None:
    caller, callee = Engine("caller-v6"), Engine("callee-v6")
    SessionManager()
    for engine in (caller, callee):
        engine.start(local_ip="::1")
    try:
        alice, bob = Account("alice@[::1]", engine=caller), Account("bob@[::1]", engine=callee)
        outgoing = Session(alice)
        outgoing.connect(callee.sip_uri("bob", transport), [Route(*callee.addresses[transport], transport)], audio=True)
        incoming = watch.wait("SIPSessionNewIncoming").sender
        incoming.accept(audio=True)
        watch.wait("SIPSessionDidStart", outgoing)
        watch.wait("SIPSessionDidStart", incoming)
        assert incoming.account is bob
        assert outgoing.audio_remote_rtp_address_sdp == incoming.audio_remote_rtp_address_sdp == "::1"
        deadline = time.monotonic() + 10
        while not (outgoing.audio_was_received and incoming.audio_was_received):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        outgoing.end()
        watch.wait("SIPSessionDidEnd", incoming)
    finally:
        for engine in (caller, callee):
            engine.stop()
            for account in engine.accounts:
                account.delete()


def test_digits_arrive_one_by_one(pair: Pair) -> None:
    outgoing, incoming = pair.established()
    for digit in "1*A#":
        outgoing.send_dtmf(digit)
    pair.watch.wait("SIPSessionGotDTMF", incoming, where=lambda heard: heard.data.digit == "#")
    heard = [name for name in pair.watch.of(incoming) if "DTMF" in name]
    assert heard == ["GotDTMF 1", "GotDTMF *", "GotDTMF A", "GotDTMF #"]
    outgoing.end()
    pair.ended(outgoing, incoming)


def test_calls_are_refused_until_there_is_a_session_manager(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SessionManager() is SessionManager()
    pair.callee.stop()
    monkeypatch.setattr(SessionManager, "_instance", None)
    pair.callee.start(local_ip="127.0.0.1")
    session = Session(pair.alice)
    session.connect(pair.uri, [pair.route], audio=True)
    pair.ended(session)
    assert "DidFail remote 480" in pair.watch.of(session)
    SessionManager()
    outgoing, incoming = pair.established()
    assert set(SessionManager().sessions) == {outgoing, incoming}
    outgoing.end()
    pair.ended(outgoing, incoming)
    assert SessionManager().sessions == []


def test_no_audio_for_five_seconds(pair: Pair) -> None:
    """The peer answers and then sends no packet."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sip,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
    ):
        for one in (sip, rtp):
            one.bind(("127.0.0.1", 0))
            one.settimeout(20)
        session = Session(pair.alice)
        port = sip.getsockname()[1]
        session.connect(f"sip:silent@127.0.0.1:{port}", [Route("127.0.0.1", port)], audio=True)
        invite, source = sip.recvfrom(65535)
        sip.sendto(answer_to(invite.decode(), port, rtp.getsockname()[1]), source)
        started = pair.watch.wait("SIPSessionDidStart", session)
        told = pair.watch.wait("SIPSessionGotNoAudio", session)
        assert 4.5 < told.timestamp - started.timestamp < 8
        assert session.audio_was_received is False
        assert session.audio_remote_rtp_address_received is None
        session.end()  # and no answer to BYE either
        began = time.monotonic()
        pair.ended(session)
        assert time.monotonic() - began < 3
    assert pair.watch.of(session) == [*CALLING[:2], *CALLED, "GotNoAudio", *ENDING]


def answer_to(invite: str, port: int, rtp_port: int) -> bytes:
    """The least a UAS can say to take a call, without encryption."""
    copied = [line for line in invite.split("\r\n") if line.split(":")[0] in ("Via", "From", "Call-ID", "CSeq")]
    copied.append(next(line for line in invite.split("\r\n") if line.startswith("To:")) + ";tag=silent")
    body = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    body += f"m=audio {rtp_port} RTP/AVP 0\r\n"
    copied += [f"Contact: <sip:silent@127.0.0.1:{port}>", "Content-Type: application/sdp"]
    return "\r\n".join(["SIP/2.0 200 OK", *copied, f"Content-Length: {len(body)}", "", body]).encode()


# --- attributes ------------------------------------------------------------------------------------------------------


def test_attributes_before_anything_happened(pair: Pair) -> None:
    session = Session(pair.alice)
    assert session.state == "NULL"
    assert session.account is pair.alice
    none = "direction start_time stop_time remote_user_agent local_uri remote_uri caller_uri callee_uri route"
    none += " audio_transport audio_sample_rate audio_codec audio_local_rtp_address audio_local_rtp_port"
    none += " audio_remote_rtp_address_sdp audio_remote_rtp_port_sdp audio_remote_rtp_address_received"
    none += " audio_remote_rtp_port_received chat_transport audio_recording_file_name id call_id local_sdp remote_sdp"
    none += " remote_display_name end_reason failure audio peer_address transport"
    for name in none.split():
        assert getattr(session, name) is None, name
    false = "on_hold_by_local on_hold_by_remote on_hold has_audio has_chat audio_srtp_active audio_was_received"
    for name in f"{false} proposed_audio proposed_chat".split():
        assert getattr(session, name) is False, name
    assert session.request_headers == session.response_headers == session.proposed_streams == []


def test_attributes_of_a_call(pair: Pair) -> None:
    outgoing, incoming = pair.established()
    assert (outgoing.direction, incoming.direction) == ("outgoing", "incoming")
    assert outgoing.account is pair.alice
    assert incoming.account is pair.bob
    assert str(outgoing.local_uri) == "sip:alice@127.0.0.1"
    assert outgoing.remote_uri is not None
    assert outgoing.remote_uri.user == "bob"
    assert outgoing.caller_uri == outgoing.local_uri
    assert outgoing.callee_uri == outgoing.remote_uri
    assert incoming.caller_uri == incoming.remote_uri == outgoing.local_uri
    assert incoming.remote_display_name == "Alice"
    assert outgoing.route == pair.route
    assert incoming.route is None
    assert outgoing.call_id == incoming.call_id
    assert incoming.remote_user_agent is not None
    assert incoming.remote_user_agent.startswith("sipwire/")
    assert outgoing.remote_user_agent == incoming.remote_user_agent
    assert incoming.peer_address == pair.caller.addresses["udp"]
    assert ("Call-ID", incoming.call_id) in incoming.request_headers
    for session in (outgoing, incoming):
        assert session.state == "ESTABLISHED"
        assert session.has_audio is True
        assert (session.audio_codec, session.audio_sample_rate) == ("opus", 48000)
        assert session.audio_srtp_active is True
        assert session.audio is not None
        assert session.audio.encryption == "AES_CM_128_HMAC_SHA1_80"
        assert session.start_time is not None
        assert session.start_time.tzinfo is not None
        assert session.stop_time is None
        assert session.local_sdp is not None
        assert "m=audio" in session.local_sdp
        assert session.audio_local_rtp_address == "127.0.0.1"
    assert outgoing.local_sdp == incoming.remote_sdp
    assert outgoing.audio_local_rtp_port == incoming.audio_remote_rtp_port_sdp
    assert pair.caller.sessions == [outgoing]
    outgoing.end()
    pair.ended(outgoing, incoming)
    for session in (outgoing, incoming):
        assert session.state == "TERMINATED"
        assert session.start_time is not None
        assert session.stop_time is not None
        assert datetime.timedelta(0) <= session.stop_time - session.start_time < datetime.timedelta(seconds=30)
        assert session.has_audio is False
        assert str(session.local_uri)  # the last value stays
        assert session.audio is not None
        assert session.audio.statistics.codec == "opus"
    assert pair.caller.sessions == pair.callee.sessions == []


def test_attributes_in_a_handler_are_those_of_the_notification(pair: Pair) -> None:
    wrong: list[str] = []

    def observer(notification: Notification) -> None:
        session, data = notification.sender, notification.data
        if notification.name == "SIPSessionChangedState" and session.state != data.state:
            wrong.append(f"{session.state} in {data}")
        if notification.name == "SIPSessionGotStreamUpdate" and session.has_audio != ("audio" in data.streams):
            wrong.append(f"has_audio {session.has_audio} in {data}")
        if notification.name == "SIPSessionDidFail" and session.failure != (data.code, data.reason):
            wrong.append(f"{session.failure} in {data}")
        if notification.name == "SIPSessionNewIncoming":
            session.accept(audio=True)

    NotificationCenter().add_observer(observer)
    try:
        for _ in range(5):
            outgoing = Session(pair.alice)
            outgoing.connect(pair.uri, [pair.route], audio=True)
            pair.watch.wait("SIPSessionDidStart", outgoing)
            outgoing.end()
            pair.ended(outgoing)
    finally:
        NotificationCenter().remove_observer(observer)
    assert wrong == []


def test_extra_headers_arrive(pair: Pair) -> None:
    outgoing, incoming = pair.call(extra_headers=[("X-Ticket", "12;a=b"), ("Subject", "hello")])
    assert ("X-Ticket", "12;a=b") in incoming.request_headers
    assert ("Subject", "hello") in incoming.request_headers
    outgoing.end()
    pair.ended(outgoing, incoming)


# --- wrong states and bad arguments ----------------------------------------------------------------------------------

VERBS: dict[str, Any] = {
    "connect": lambda session: session.connect("sip:x@127.0.0.1", [Route("127.0.0.1")], audio=True),
    "accept": lambda session: session.accept(audio=True),
    "reject": lambda session: session.reject(),
    "redirect": lambda session: session.redirect("sip:carol@127.0.0.1"),
    "ring": lambda session: session.ring(),
    "early_media": lambda session: session.early_media(),
    "start_recording_audio": lambda session: session.start_recording_audio("never.wav"),
    "stop_recording_audio": lambda session: session.stop_recording_audio(),
    "send_dtmf": lambda session: session.send_dtmf("1"),
    "send_info": lambda session: session.send_info("hello"),
    "transfer": lambda session: session.transfer("sip:x@127.0.0.1"),
    "accept_transfer": lambda session: session.accept_transfer(),
    "reject_transfer": lambda session: session.reject_transfer(),
}
ALLOWED: dict[str, set[str]] = {
    "NULL": {"connect"},
    "CALLING": set(),
    "INCOMING": {"accept", "reject", "redirect", "ring", "early_media"},
    "ESTABLISHED": {"start_recording_audio", "send_dtmf", "send_info", "transfer"},
    "TERMINATED": {"reject", "redirect"},
}


def refused(session: Session, state: str) -> None:
    """Every verb that is not for this state raises, says so, and changes nothing."""
    assert session.state == state
    for name, verb in VERBS.items():
        if name in ALLOWED[state]:
            continue
        with pytest.raises(SessionStateError) as caught:
            verb(session)
        assert caught.value.state == state, name
        assert session.state == state


def test_verbs_in_the_wrong_state(pair: Pair) -> None:
    session = Session(pair.alice)
    refused(session, "NULL")
    session.end()
    assert session.state == "NULL"
    outgoing, incoming = pair.call()
    refused(outgoing, "CALLING")
    refused(incoming, "INCOMING")
    incoming.accept(audio=True)
    for session in (outgoing, incoming):
        pair.watch.wait("SIPSessionDidStart", session)
        refused(session, "ESTABLISHED")
    before = pair.watch.of(outgoing), pair.watch.of(incoming)
    assert before == (CALLING + CALLED, INCOMING + ACCEPTED), "refused verbs post nothing"
    outgoing.end()
    outgoing.end()
    pair.ended(outgoing, incoming)
    for session in (outgoing, incoming):
        refused(session, "TERMINATED")
        session.end()
        session.reject()
    assert pair.watch.of(outgoing) == before[0] + ENDING


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda session, pair: session.connect(pair.uri, [], audio=True), ValueError, "routes"),
        (lambda session, pair: session.connect(pair.uri, [pair.route]), ValueError, "stream"),
        (lambda session, pair: session.connect(pair.uri, [pair.route], chat=True), ValueError, "chat"),
        (lambda session, pair: session.connect("bob", [pair.route], audio=True), ValueError, "bob"),
        (lambda session, pair: session.connect(pair.uri, ["1.2.3.4"], audio=True), TypeError, "1.2.3.4"),
        (lambda session, pair: session.send_dtmf("12"), ValueError, "12"),
        (lambda session, pair: session.send_dtmf("a"), ValueError, "'a'"),
        (lambda session, pair: session.send_dtmf(""), ValueError, "''"),
        (lambda session, pair: session.reject(200), ValueError, "200"),
        (lambda session, pair: session.reject("486"), ValueError, "486"),
    ],
)
def test_bad_arguments_are_named(pair: Pair, call: Any, error: type[Exception], named: str) -> None:
    session = Session(pair.alice)
    with pytest.raises(error, match=named):
        call(session, pair)
    assert session.state == "NULL"


def test_accepting_nothing_or_what_was_not_offered(pair: Pair) -> None:
    outgoing, incoming = pair.call()
    for arguments in ({}, {"chat": True}, {"audio": True, "chat": True}):
        with pytest.raises(ValueError, match="chat|stream|audio"):
            incoming.accept(**arguments)
        assert incoming.state == "INCOMING"
    incoming.accept(audio=True)
    pair.watch.wait("SIPSessionDidStart", outgoing)
    outgoing.end()
    pair.ended(outgoing, incoming)


def test_connecting_without_an_engine_or_an_account(watch: Watch) -> None:
    engine = Engine("never started")
    account = Account("alice@127.0.0.1", engine=engine)
    session = Session(account)
    with pytest.raises(EngineError, match="'never started' is not running"):
        session.connect("sip:bob@127.0.0.1", [Route("127.0.0.1")], audio=True)
    engine.start(local_ip="127.0.0.1")
    account.delete()
    with pytest.raises(EngineError, match="alice@127.0.0.1"):
        session.connect("sip:bob@127.0.0.1", [Route("127.0.0.1")], audio=True)
    engine.stop()


# --- handlers --------------------------------------------------------------------------------------------------------


def test_an_observer_that_raises_at_everything_loses_no_call(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    def broken(notification: Notification) -> None:
        raise RuntimeError(f"at {notification.name}")

    caplog.set_level(100)
    center = NotificationCenter()
    center.remove_observer(pair.watch)
    center.add_observer(broken)  # first in line
    center.add_observer(pair.watch)
    try:
        outgoing, incoming = pair.established()
        outgoing.end()
        pair.ended(outgoing, incoming)
    finally:
        center.remove_observer(broken)
    assert pair.watch.of(outgoing) == CALLING + CALLED + ENDING


def test_handlers_may_call_anything(pair: Pair) -> None:
    """A handler accepts, another hangs up in DidStart and calls again in DidEnd."""
    count, done = 0, threading.Event()

    def observer(notification: Notification) -> None:
        nonlocal count
        session = notification.sender
        if notification.name == "SIPSessionNewIncoming":
            session.accept(audio=True)
        elif notification.name == "SIPSessionDidStart" and session.direction == "outgoing":
            session.end()
            assert session.state == "ESTABLISHED"  # what this notification says
        elif notification.name == "SIPSessionDidEnd" and session.direction == "outgoing":
            count += 1
            if count == 5:
                done.set()
            else:
                again = Session(pair.alice)
                again.connect(pair.uri, [pair.route], audio=True)
                assert again.state == "CALLING"

    NotificationCenter().add_observer(observer)
    try:
        Session(pair.alice).connect(pair.uri, [pair.route], audio=True)
        assert done.wait(30)
    finally:
        NotificationCenter().remove_observer(observer)


def test_a_slow_observer_delays_notifications_only(pair: Pair) -> None:
    outgoing, incoming = pair.established()
    release = threading.Event()

    def slow(notification: Notification) -> None:
        release.wait(20)

    NotificationCenter().add_observer(slow, sender=outgoing)
    try:
        outgoing.end()  # its first notification blocks Alice's dispatcher; Bob hears the BYE all the same
        pair.watch.wait("SIPSessionDidEnd", incoming)
        assert "DidEnd local" not in pair.watch.of(outgoing)
    finally:
        release.set()
        NotificationCenter().remove_observer(slow, sender=outgoing)
    pair.ended(outgoing)
    assert pair.watch.of(outgoing)[-5:] == ENDING


def test_many_threads_at_once(pair: Pair) -> None:
    """Sixteen threads call and end whatever they like; every session ends and the order is kept."""

    def accept(notification: Notification) -> None:
        notification.sender.accept(audio=True)

    NotificationCenter().add_observer(accept, "SIPSessionNewIncoming")
    sessions: list[Session] = []

    def work(index: int) -> None:
        for turn in range(3):
            session = Session(pair.alice)
            session.connect(pair.uri, [pair.route], audio=True)
            sessions.append(session)
            if (index + turn) % 2:
                pair.watch.wait("SIPSessionDidStart", session)
            session.end()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        pair.ended(*sessions)
    finally:
        NotificationCenter().remove_observer(accept, "SIPSessionNewIncoming")
    for session in sessions:
        heard = pair.watch.of(session)
        assert heard[:2] == CALLING[:2]
        assert heard[-1] == "DidEnd local"
        assert heard.count("DidEnd local") == 1
