"""Changes of a call that is up: hold, and streams the peer proposes."""

from __future__ import annotations

import socket

import pytest

from sipwire import SessionStateError

from .conftest import PATIENCE, Pair
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
    assert outgoing.on_hold_by_remote
    assert outgoing.on_hold
    outgoing.unhold()
    pair.watch.wait("SIPSessionGotUnholdRequest", incoming, lambda one: one.data.originator == "remote")
    incoming.unhold()
    pair.watch.wait("SIPSessionGotUnholdRequest", outgoing, lambda one: one.data.originator == "remote")
    assert not outgoing.on_hold
    assert not incoming.on_hold
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


class Phone:
    """Calls an engine with plain messages."""

    def __init__(self, pair: Pair) -> None:
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.settimeout(PATIENCE)
        self.udp.bind(("127.0.0.1", 0))
        self.to = pair.callee.addresses["udp"]
        self.tag = ""
        self.number = 0

    def send(self, method: str, port: int | None = None) -> None:
        """A request of the call; with audio at this port (0: none) when one is given."""
        if method != "ACK":
            self.number += 1
        here = f"127.0.0.1:{self.udp.getsockname()[1]}"
        head = f"v=0\r\no=- 1 {self.number} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        body = "" if port is None else f"{head}m=audio {port} RTP/AVP 0\r\n"
        lines = [
            f"{method} sip:bob@127.0.0.1 SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{self.number}{method if method == 'ACK' else ''}",
            "Max-Forwards: 70",
            "From: <sip:phone@127.0.0.1>;tag=phone",
            f"To: <sip:bob@127.0.0.1>{self.tag}",
            "Call-ID: proposals",
            f"CSeq: {self.number} {method}",
            f"Contact: <sip:phone@{here}>",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self.udp.sendto(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), self.to)

    def answer(self, code: int) -> str:
        """The next response with this code."""
        while True:
            text = self.udp.recv(65536).decode()
            if text.startswith(f"SIP/2.0 {code} "):
                to = next(line for line in text.split("\r\n") if line.startswith("To:"))
                self.tag = to[to.index(";tag=") :]
                return text


def test_a_stream_that_the_peer_takes_away_and_proposes_again(pair: Pair) -> None:
    phone = Phone(pair)
    phone.send("INVITE", 4000)
    session = pair.watch.wait("SIPSessionNewIncoming").sender
    session.accept(audio=True)
    phone.answer(200)
    phone.send("ACK")
    pair.watch.wait("SIPSessionDidStart", session)
    phone.send("INVITE", 0)
    phone.answer(200)
    phone.send("ACK")
    pair.watch.wait("SIPSessionGotStreamUpdate", session, lambda one: one.data.streams == [])
    phone.send("INVITE", 4000)
    phone.answer(180)
    proposal = pair.watch.wait("SIPSessionGotStreamProposal", session)
    assert (proposal.data.proposer, proposal.data.streams) == ("remote", ["audio"])
    assert (session.state, session.proposed_streams, session.proposed_audio) == ("PROPOSED", ["audio"], True)
    with pytest.raises(ValueError, match="no stream is accepted"):
        session.accept_proposal()
    with pytest.raises(ValueError, match="chat was not proposed"):
        session.accept_proposal(audio=True, chat=True)
    session.reject_proposal()
    assert " 488 " in phone.answer(488).split("\r\n")[0]
    phone.send("ACK")
    rejected = pair.watch.wait("SIPSessionRejectedStreamProposal", session)
    assert (rejected.data.proposer, rejected.data.reason) == ("remote", "Rejected by user")
    assert (session.state, session.proposed_streams, session.has_audio) == ("ESTABLISHED", [], False)
    phone.send("INVITE", 4000)
    phone.answer(180)
    pair.watch.wait("SIPSessionGotStreamProposal", session, lambda one: one is not proposal)
    session.accept_proposal(audio=True)
    assert "\r\nm=audio 0 " not in phone.answer(200)
    phone.send("ACK")
    pair.watch.wait("SIPSessionAcceptedStreamProposal", session)
    pair.watch.wait("SIPSessionGotStreamUpdate", session)
    phone.send("BYE")
    pair.ended(session)
    proposed = ["ChangedState ESTABLISHED→PROPOSED", "GotStreamProposal", "ChangedState PROPOSED→ESTABLISHED"]
    changes = [
        "GotStreamUpdate nothing",
        *proposed,
        "RejectedStreamProposal",
        *proposed,
        "AcceptedStreamProposal",
        "GotStreamUpdate audio",
    ]
    assert pair.watch.of(session) == INCOMING + ACCEPTED + changes + HUNG_UP
    phone.udp.close()
