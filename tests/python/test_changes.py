"""Changes of a call that is up: hold, and streams the peer proposes, engine against engine or against plain messages."""

from __future__ import annotations

import pytest

from sipwire import SessionStateError

from .conftest import Pair
from .test_session import ACCEPTED, CALLED, CALLING, ENDING, HUNG_UP, INCOMING


def test_hold_and_resume_from_both_sides(pair: Pair) -> None:
    outgoing, incoming = pair.established()
    outgoing.hold()
    outgoing.hold()
    pair.watch.wait("SIPSessionGotHoldRequest", incoming)
    assert (outgoing.on_hold_by_local, outgoing.on_hold_by_remote) == (True, False)
    assert (incoming.on_hold_by_local, incoming.on_hold_by_remote) == (False, True)
    incoming.hold()
    pair.watch.wait("SIPSessionGotHoldRequest", outgoing, lambda one: one.data.originator == "remote")
    assert outgoing.on_hold_by_remote and outgoing.on_hold
    outgoing.unhold()
    pair.watch.wait("SIPSessionGotUnholdRequest", incoming, lambda one: one.data.originator == "remote")
    incoming.unhold()
    pair.watch.wait("SIPSessionGotUnholdRequest", outgoing, lambda one: one.data.originator == "remote")
    assert not outgoing.on_hold and not incoming.on_hold
    outgoing.end()
    pair.ended(outgoing, incoming)
    held = ["GotHoldRequest", "GotHoldRequest", "GotUnholdRequest", "GotUnholdRequest"]
    assert pair.watch.of(outgoing) == CALLING + CALLED + held + ENDING
    assert pair.watch.of(incoming) == INCOMING + ACCEPTED + held + HUNG_UP


def test_hold_needs_a_call(pair: Pair) -> None:
    outgoing, incoming = pair.call()
    for verb in (outgoing.hold, outgoing.unhold, incoming.hold, outgoing.add_audio, outgoing.remove_audio):
        with pytest.raises(SessionStateError):
            verb()
    for verb in (outgoing.accept_proposal, outgoing.reject_proposal, outgoing.add_chat, outgoing.remove_chat):
        with pytest.raises(SessionStateError):
            verb()
    with pytest.raises(ValueError, match="is not a refusal"):
        outgoing.reject_proposal(200)
    outgoing.end()
    pair.ended(outgoing, incoming)


def test_streams_that_cannot_be_added_or_removed(pair: Pair) -> None:
    outgoing, incoming = pair.established()
    with pytest.raises(SessionStateError, match="audio already"):
        outgoing.add_audio()
    with pytest.raises(SessionStateError, match="last stream"):
        outgoing.remove_audio()
    with pytest.raises(SessionStateError, match="chat is not available"):
        outgoing.add_chat()
    with pytest.raises(SessionStateError, match="no chat"):
        outgoing.remove_chat()
    assert outgoing.proposed_streams == []
    outgoing.end()
    pair.ended(outgoing, incoming)
