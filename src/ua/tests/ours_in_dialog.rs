//! Requests of ours inside the dialog of a call: what holds for all of them.

use std::time::Duration;

use super::harness::*;
use crate::event::SessionId;
use crate::sip::message::{Message, Method};

/// Sends a request that means nothing.
fn probe(phone: &mut Lone, session: SessionId) -> Message {
    let now = phone.now;
    let sent = phone.side.ua.with(session, |session, core| session.probe(Method::Info, core, now));
    phone.side.ua.drain_transactions(now);
    assert!(sent.flatten().is_some(), "there is a dialog");
    phone.run();
    phone.take().pop().expect("a request")
}

const DIED: [&str; 2] = ["GotStreamUpdate ", "ESTABLISHED>TERMINATED"];

#[test]
fn requests_count_on_in_the_dialog_and_most_answers_change_nothing() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    for (number, code) in (1..).zip([200, 202, 400, 404, 405, 488, 500, 603]) {
        let request = probe(&mut phone, session);
        assert_eq!(header(&request, "CSeq"), format!("{number} INFO"));
        phone.respond(&request, 100, "peer", &[], "");
        phone.respond(&request, code, "peer", &[], "");
    }
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    assert_eq!(phone.take_lines(), Vec::<String>::new());
}

#[test]
fn the_dialog_ends_when_a_request_meets_408_or_481_or_silence() {
    for (answer, originator, reason) in [
        (Some(481), "remote", "481 Call/Transaction Does Not Exist"),
        (Some(408), "remote", "408 Request Timeout"),
        (None, "local", "408 Request Timeout"),
    ] {
        let mut phone = Lone::new();
        let (session, _) = phone.talk();
        let request = probe(&mut phone, session);
        match answer {
            Some(code) => phone.respond(&request, code, "peer", &[], ""),
            None => phone.pass(Duration::from_secs(33)),
        }
        let bye = phone.take().pop().expect("BYE");
        assert_eq!((first_line(&bye), header(&bye, "CSeq")), ("BYE".into(), "2 BYE".into()));
        assert_eq!(phone.side.take_log(), [&DIED[..], &[&format!("DidEnd {originator} {reason}")]].concat());
        phone.expect_nothing_left();
    }
}

#[test]
fn a_transport_that_fails_is_no_reason_to_end_the_call() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    probe(&mut phone, session);
    phone.fail_transport("no route to host");
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    assert_eq!(phone.side.ua.sessions(), [session]);
}

#[test]
fn answers_after_the_end_of_the_call_are_nobodys() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let request = probe(&mut phone, session);
    phone.receive(Draft::new("BYE", "bye").in_dialog(2, &ok).text());
    phone.take();
    phone.respond(&request, 481, "peer", &[], "");
    assert_eq!(phone.take_lines(), Vec::<String>::new());
    phone.expect_nothing_left();
}

#[test]
fn more_requests_than_a_peer_can_answer_are_not_sent() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let now = phone.now;
    let sent = (0..40).filter(|_| {
        phone.side.ua.with(session, |session, core| session.probe(Method::Info, core, now)).flatten().is_some()
    });
    assert_eq!(sent.count(), 32);
}
