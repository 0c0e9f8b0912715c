//! Every verb in every state a real session can be in, against the table.

use super::harness::*;
use crate::event::{SessionId, SessionState};
use crate::media::RecordingLayout;
use crate::session::table::{Permission, TABLE, Verb};
use crate::ua::VerbError;

/// A session of Alice's in this state; `None` where this user agent cannot be yet.
fn session_in(state: SessionState) -> Option<(Pair, SessionId)> {
    let mut net = Pair::new();
    match state {
        SessionState::Calling => {
            let call = net.alice.call("sip:bob@example.com", &[BOB], net.now).unwrap();
            net.run();
            Some((net, call))
        }
        SessionState::Incoming | SessionState::Accepting => {
            net.bob.call("sip:alice@example.com", &[ALICE], net.now).unwrap();
            net.run();
            let incoming = net.alice.last();
            if state == SessionState::Accepting {
                net.lost = vec!["< ACK"];
                net.alice.ua.accept(incoming, true, false, net.now).unwrap();
                net.run();
            }
            Some((net, incoming))
        }
        SessionState::Established | SessionState::Terminating | SessionState::Terminated => {
            let (call, _) = net.talk();
            if state != SessionState::Established {
                net.lost = vec!["<"];
                net.alice.ua.end(call, None, net.now).unwrap();
                net.run();
            }
            if state == SessionState::Terminated {
                net.pass(crate::ua::BYE_PATIENCE);
            }
            Some((net, call))
        }
        SessionState::Proposing | SessionState::Proposed => {
            let (call, other) = net.talk();
            match state {
                SessionState::Proposing => net.alice.ua.add_chat(call, net.now).unwrap(),
                _ => net.bob.ua.add_chat(other, net.now).unwrap(),
            }
            net.run();
            Some((net, call))
        }
        SessionState::Null => None,
    }
}

fn ask(verb: Verb, net: &mut Pair, session: SessionId) -> Result<(), VerbError> {
    let (ua, now) = (&mut net.alice.ua, net.now);
    match verb {
        Verb::Connect => unreachable!("connect() makes the session it is called on"),
        Verb::Accept => ua.accept(session, true, false, now),
        Verb::Reject => ua.reject(session, 486, None, now),
        Verb::Redirect => ua.redirect(session, &[uri("sip:carol@192.0.2.10")], now),
        Verb::EarlyMedia => ua.early_media(session, now),
        Verb::Ring => ua.ring(session, now),
        Verb::End => ua.end(session, None, now),
        Verb::StartRecordingAudio => ua.start_recording(session, "/tmp/x.wav".into(), RecordingLayout::Mix, now),
        Verb::StopRecordingAudio => ua.stop_recording(session, now),
        Verb::SendDtmf => ua.send_dtmf(session, '5', now),
        Verb::Hold => ua.hold(session, true, now),
        Verb::Unhold => ua.hold(session, false, now),
        Verb::AddAudio => ua.add_audio(session, now),
        Verb::RemoveAudio => ua.remove_audio(session, now),
        Verb::AddChat => ua.add_chat(session, now),
        Verb::RemoveChat => ua.remove_chat(session, now),
        Verb::AcceptProposal => ua.accept_proposal(session, false, true, now),
        Verb::RejectProposal => ua.reject_proposal(session, 488, None, now),
        Verb::SendInfo => ua.send_info(session, "x".into(), "text/plain", None, now).map(|_| ()),
        Verb::Transfer => ua.transfer(session, Some(uri("sip:carol@example.com")), None, now),
        Verb::AcceptTransfer => ua.accept_transfer(session, vec![route(BOB)], now).map(|_| ()),
        Verb::RejectTransfer => ua.reject_transfer(session, 603, now),
    }
}

/// What a verb needs that a call with audio has not.
fn prepare(verb: Verb, net: &mut Pair, session: SessionId) {
    match verb {
        Verb::Unhold => ask(Verb::Hold, net, session).unwrap(),
        Verb::AddAudio | Verb::RemoveAudio | Verb::RemoveChat => {
            ask(Verb::AddChat, net, session).unwrap();
            net.run();
            net.bob.ua.accept_proposal(net.bob.last(), false, true, net.now).unwrap();
            net.run();
            if verb == Verb::AddAudio {
                ask(Verb::RemoveAudio, net, session).unwrap();
            }
        }
        Verb::AcceptTransfer | Verb::RejectTransfer => {
            let theirs = net.bob.last();
            net.bob.ua.transfer(theirs, Some(uri("sip:carol@example.com")), None, net.now).unwrap();
        }
        _ => return,
    }
    net.run();
}

#[test]
fn every_cell_does_what_the_table_says() {
    let states = [
        SessionState::Calling,
        SessionState::Incoming,
        SessionState::Accepting,
        SessionState::Established,
        SessionState::Proposing,
        SessionState::Proposed,
        SessionState::Terminating,
        SessionState::Terminated,
    ];
    let mut cells = 0;
    for row in TABLE.iter().filter(|row| row.verb != Verb::Connect) {
        for state in states {
            let (mut net, session) = session_in(state).expect("a reachable state");
            assert_eq!(net.alice.snapshot().state, state);
            if row.verb == Verb::StopRecordingAudio && state == SessionState::Established {
                ask(Verb::StartRecordingAudio, &mut net, session).unwrap();
                net.run();
            }
            if state == SessionState::Established {
                prepare(row.verb, &mut net, session);
            }
            net.alice.take_log();
            net.alice.media.clear();
            net.take_wire();
            let result = ask(row.verb, &mut net, session);
            net.run();
            let traces = net.alice.log.len() + net.alice.media.len() + net.wire.len();
            let cell = format!("{} in {}", row.name, state.name());
            let answers = matches!(row.verb, Verb::AcceptTransfer | Verb::RejectTransfer);
            match row.verb.check(state) {
                // Nobody asks for a transfer in the middle of a proposal; a request from before it may still wait.
                Ok(Permission::Act) if answers && state != SessionState::Established => {
                    assert!(matches!(result, Err(VerbError::NotPossible { .. })), "{cell}: {result:?}");
                    assert_eq!(traces, 0, "{cell}");
                }
                Ok(Permission::Act) => {
                    assert_eq!(result, Ok(()), "{cell}");
                    assert!(traces > 0, "{cell} does something");
                }
                Ok(Permission::Silent) => assert_eq!((result, traces), (Ok(()), 0), "{cell}"),
                Err(error) => assert_eq!((result, traces), (Err(error), 0), "{cell}"),
            }
            cells += 1;
        }
    }
    assert_eq!(cells, (TABLE.len() - 1) * states.len());
}

#[test]
fn a_session_that_never_was_is_unknown() {
    let mut net = Pair::new();
    for row in TABLE.iter().filter(|row| row.verb != Verb::Connect) {
        assert_eq!(ask(row.verb, &mut net, SessionId(7)), Err(VerbError::UnknownSession(SessionId(7))));
    }
}

#[test]
fn digits_are_checked_and_sent() {
    let mut net = Pair::new();
    let (call, _) = net.talk();
    for digit in "0123456789*#ABCD".chars() {
        net.alice.ua.send_dtmf(call, digit, net.now).unwrap();
    }
    for digit in "abdE x+\n٣".chars() {
        let error = net.alice.ua.send_dtmf(call, digit, net.now).unwrap_err();
        assert_eq!(error.to_string(), format!("{digit:?} is no DTMF digit: one of 0-9, *, #, A-D is"));
    }
    net.run();
    assert_eq!(net.alice.media.len(), 16);
}
