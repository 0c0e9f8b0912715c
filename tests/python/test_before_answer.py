"""What happens before a call is answered: early media, redirections, offers of the callee."""

from __future__ import annotations

import threading
import time

import pytest

from .conftest import Pair
from .test_session import ACCEPTED, CALLED, CALLING, INCOMING


def test_early_media_is_heard_before_the_call_is_taken(pair: Pair) -> None:
    outgoing, incoming = pair.call()
    incoming.early_media()
    pair.watch.wait("SIPSessionGotStreamUpdate", incoming)
    assert incoming.state == "INCOMING"
    assert incoming.has_audio
    assert incoming.audio is not None
    incoming.early_media()
    deadline = time.monotonic() + 10
    while outgoing.audio_remote_rtp_port_sdp is None and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert outgoing.audio_remote_rtp_port_sdp == incoming.audio_local_rtp_port
    assert outgoing.state == "CALLING"
    assert outgoing.audio is not None
    incoming.accept(audio=True)
    for session in (outgoing, incoming):
        pair.watch.wait("SIPSessionDidStart", session)
    taken = [line for line in ACCEPTED if not line.startswith("GotStreamUpdate")]
    assert pair.watch.of(incoming) == [*INCOMING, "GotStreamUpdate audio", *taken]
    assert pair.watch.of(outgoing) == CALLING + CALLED
    outgoing.end()
    pair.ended(outgoing, incoming)


def test_early_media_ends_with_a_call_that_is_not_taken(pair: Pair) -> None:
    outgoing, incoming = pair.call()
    incoming.early_media()
    pair.watch.wait("SIPSessionGotStreamUpdate", incoming)
    incoming.reject(480)
    pair.ended(outgoing, incoming)
    refusal = ["ChangedState INCOMING→TERMINATING", "WillEnd", "GotStreamUpdate nothing"]
    refusal += ["ChangedState TERMINATING→TERMINATED", "DidEnd local"]
    assert pair.watch.of(incoming) == [*INCOMING, "GotStreamUpdate audio", *refusal]


def test_a_redirected_caller_is_told_where_to_and_calls_nobody(pair: Pair) -> None:
    outgoing, incoming = pair.call()
    with pytest.raises(ValueError, match="targets"):
        incoming.redirect([])
    incoming.redirect(["sip:carol@127.0.0.1:5070", "sips:dave@example.com"])
    pair.ended(outgoing, incoming)
    refusal = ["ChangedState INCOMING→TERMINATING", "WillEnd", "ChangedState TERMINATING→TERMINATED", "DidEnd local"]
    assert pair.watch.of(incoming) == INCOMING + refusal
    failure = ["ChangedState CALLING→TERMINATED", "DidFail remote 302", "DidEnd remote"]
    assert pair.watch.of(outgoing) == CALLING + failure
    assert [str(target) for target in outgoing.redirect_targets] == [
        "sip:carol@127.0.0.1:5070",
        "sips:dave@example.com",
    ]
    assert incoming.redirect_targets == []
    incoming.redirect("sip:late@127.0.0.1")


def test_the_callee_makes_the_offer(pair: Pair) -> None:
    outgoing, incoming = pair.call(late_offer=True)
    assert incoming.remote_sdp is None
    incoming.accept(audio=True)
    for session in (outgoing, incoming):
        pair.watch.wait("SIPSessionDidStart", session)
    assert outgoing.audio_codec == incoming.audio_codec == "opus"
    outgoing.end()
    pair.ended(outgoing, incoming)
