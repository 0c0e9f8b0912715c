//! REFER and its reports, and calls that take the place of another, message by message (RFC 3515, RFC 3891, RFC 4488).

use std::time::Duration;

use super::harness::*;
use crate::event::SessionId;
use crate::sip::message::Message;
use crate::ua::{AccountSettings, VerbError};

const CAROL: &str = "Refer-To: <sip:carol@192.0.2.9>";
const NOTHING: [&str; 0] = [];
const LEAVES: [&str; 5] =
    ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate ", "TERMINATING>TERMINATED", "DidEnd local"];

fn refer(number: u32, ok: &Message) -> Draft {
    Draft::new("REFER", &format!("refer{number}")).in_dialog(number, ok)
}

fn notify(number: u32, ok: &Message, state: &str, frag: &str) -> Draft {
    let draft = Draft::new("NOTIFY", &format!("notify{number}")).in_dialog(number, ok).with("Event: refer");
    let draft = draft.with(&format!("Subscription-State: {state}"));
    if frag.is_empty() { draft } else { draft.with("Content-Type: message/sipfrag").body(frag) }
}

fn codes(messages: &[Message]) -> Vec<String> {
    messages.iter().map(first_line).collect()
}

// --- we are asked ----------------------------------------------------------------------------------------------------

#[test]
fn nothing_is_called_before_the_application_says_so() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let draft = refer(2, &ok).with(CAROL).with("Referred-By: \"Bob\" <sip:bob@example.com>");
    assert_eq!(codes(&phone.ask(&draft)), NOTHING);
    assert_eq!(phone.side.take_log(), ["GotTransferRequest sip:carol@192.0.2.9 by sip:bob@example.com"]);
    phone.pass(Duration::from_secs(19));
    assert_eq!(phone.take_lines(), NOTHING);
    phone.side.ua.reject_transfer(session, 603, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), ["603 REFER"]);
    assert!(matches!(phone.side.ua.reject_transfer(session, 603, phone.now), Err(VerbError::NotPossible { .. })));
    let error = phone.side.ua.accept_transfer(session, vec![route(PEER)], phone.now);
    assert!(matches!(error, Err(VerbError::NotPossible { .. })), "too late");
    assert_eq!(phone.side.take_log(), NOTHING);
}

#[test]
fn an_application_that_says_nothing_means_no() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    phone.ask(&refer(2, &ok).with(CAROL));
    phone.pass(Duration::from_secs(21));
    assert_eq!(phone.take_lines(), ["603 REFER"]);
}

#[test]
fn a_refer_that_cannot_be_followed_is_refused_at_once() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    let table: [(&str, &str); 9] = [
        ("Subject: nobody to call", "400 REFER"),
        ("Refer-To: <sip:carol@>", "400 REFER"),
        ("Refer-To: <tel:+1900premium>", "416 REFER"),
        ("Refer-To: <http://192.0.2.9/>", "416 REFER"),
        ("Refer-To: <sip:carol@192.0.2.9;method=BYE>", "403 REFER"),
        ("Refer-To: <sip:carol@192.0.2.9?Replaces=id%3Bto-tag%3D1>", "400 REFER"),
        ("Refer-To: <sip:c@192.0.2.9>\r\nRefer-To: <sip:d@192.0.2.9>", "400 REFER"),
        ("Refer-To: <sip:carol@192.0.2.9>\r\nRequire: x-unheard", "420 REFER"),
        ("Refer-To: <sip:carol@192.0.2.9>\r\nReferred-By: <sip:b@b>\r\nReferred-By: <sip:c@c>", "400 REFER"),
    ];
    for (number, (line, answer)) in (2..).zip(table) {
        assert_eq!(codes(&phone.ask(&refer(number, &ok).with(line))), [answer], "{line}");
    }
    assert_eq!(codes(&phone.ask(&Draft::new("REFER", "stray").with(CAROL))), ["403 REFER"], "outside of a call");
    assert_eq!(phone.side.take_log(), NOTHING);
}

#[test]
fn one_at_a_time() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    phone.ask(&refer(2, &ok).with(CAROL));
    assert_eq!(codes(&phone.ask(&refer(3, &ok).with(CAROL))), ["491 REFER"]);
    let error = phone.side.ua.transfer(session, Some(uri("sip:dave@192.0.2.9")), None, phone.now).unwrap_err();
    assert!(error.to_string().contains("another transfer of this session is under way"), "{error}");
    phone.side.ua.reject_transfer(session, 486, phone.now).unwrap();
    phone.run();
    phone.take();
    phone.side.take_log();
    phone.ask(&refer(4, &ok).with(CAROL));
    assert_eq!(phone.side.take_log(), ["GotTransferRequest sip:carol@192.0.2.9"]);
}

#[test]
fn a_peer_that_asks_without_end_is_refused_without_asking() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    for number in 2..102 {
        phone.ask(&refer(number, &ok).with(CAROL));
        let _ = phone.side.ua.reject_transfer(session, 603, phone.now);
        phone.run();
    }
    assert_eq!(phone.side.take_log().len(), 64);
    assert_eq!(codes(&phone.ask(&refer(200, &ok).with(CAROL))), ["403 REFER"]);
}

/// The peer asks for a call to Carol, who is the peer as well, and we make it; gives back the new call and its INVITE.
fn follow(phone: &mut Lone, session: SessionId, draft: &Draft) -> (SessionId, Message, Vec<Message>) {
    phone.ask(draft);
    let new = phone.side.ua.accept_transfer(session, vec![route(PEER)], phone.now).unwrap();
    phone.run();
    let mut sent = phone.take();
    let invite = sent.iter().position(|message| first_line(message) == "INVITE").expect("an INVITE");
    let invite = sent.remove(invite);
    (new, invite, sent)
}

#[test]
fn the_peer_hears_how_the_new_call_goes() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let draft = refer(2, &ok).with(CAROL).with("Referred-By: <sip:bob@example.com>");
    let (_, invite, sent) = follow(&mut phone, session, &draft);
    assert_eq!(codes(&sent), ["202 REFER", "NOTIFY"]);
    assert_eq!(header(&invite, "Referred-By"), "<sip:bob@example.com>");
    assert_eq!(header(&invite, "Replaces"), "");
    let log = ["GotTransferRequest sip:carol@192.0.2.9 by sip:bob@example.com", "NULL>CALLING", "NewOutgoing audio"];
    assert_eq!(phone.side.take_log(), [&log[..], &["TransferDidStart with 2"]].concat());
    let trying = &sent[1];
    assert_eq!(header(trying, "Event"), "refer");
    assert_eq!(header(trying, "Subscription-State"), "active;expires=300");
    assert_eq!(header(trying, "Content-Type"), "message/sipfrag;version=2.0");
    assert_eq!(trying.body(), b"SIP/2.0 100 Trying\r\n");

    // Nothing overtakes a report that is not answered yet; of those that wait the last one goes.
    phone.respond(&invite, 180, "carol", &["Contact: <sip:carol@192.0.2.9>"], "");
    phone.respond(&invite, 180, "carol", &["Contact: <sip:carol@192.0.2.9>"], "");
    assert_eq!(phone.take_lines(), NOTHING);
    phone.respond(trying, 200, "peer", &[], "");
    let ringing = phone.take().pop().expect("a report");
    assert_eq!(ringing.body(), b"SIP/2.0 180 Ringing\r\n");
    phone.respond(&ringing, 200, "peer", &[], "");
    phone.respond(&invite, 200, "carol", &["Contact: <sip:carol@192.0.2.9>"], SDP);
    let sent = phone.take();
    assert_eq!(codes(&sent), ["ACK", "NOTIFY"]);
    assert_eq!(header(&sent[1], "Subscription-State"), "terminated;reason=noresource");
    assert_eq!(sent[1].body(), b"SIP/2.0 200 OK\r\n");
    phone.respond(&sent[1], 200, "peer", &[], "");
    assert_eq!(phone.side.take_log().last().unwrap(), "TransferDidEnd 200 OK");

    // Another one in the same call has a name (RFC 3515 §2.4.6).
    let (_, _, sent) = follow(&mut phone, session, &refer(7, &ok).with(CAROL));
    assert_eq!(header(&sent[1], "Event"), "refer;id=7");
}

#[test]
fn the_peer_hears_when_the_new_call_fails_or_is_given_up() {
    for (code, end, report) in [
        (486, "TransferDidFail 486 Busy Here", "SIP/2.0 486 Busy Here\r\n"),
        (0, "TransferDidFail 487 Request Terminated", "SIP/2.0 487 Request Terminated\r\n"),
    ] {
        let mut phone = Lone::new();
        let (session, ok) = phone.talk();
        let (new, invite, sent) = follow(&mut phone, session, &refer(2, &ok).with(CAROL));
        phone.respond(&sent[1], 200, "peer", &[], "");
        match code {
            0 => phone.side.ua.end(new, None, phone.now).unwrap(),
            _ => phone.respond(&invite, code, "carol", &[], ""),
        }
        phone.run();
        let last = phone.take().pop().unwrap();
        assert_eq!((first_line(&last).as_str(), last.body()), ("NOTIFY", report.as_bytes()));
        phone.respond(&last, 200, "peer", &[], "");
        assert!(phone.side.take_log().contains(&end.to_owned()), "{end}");
        let snapshot = phone.side.ua.snapshot(session).expect("the call with who asked goes on");
        assert_eq!(snapshot.state.name(), "ESTABLISHED");
    }
}

#[test]
fn a_peer_that_wants_no_reports_gets_none() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let draft = refer(2, &ok).with(CAROL).with("Refer-Sub: false").with("Require: norefersub");
    let (_, invite, sent) = follow(&mut phone, session, &draft);
    assert_eq!(codes(&sent), ["202 REFER"]);
    assert_eq!(header(&sent[0], "Refer-Sub"), "false");
    phone.respond(&invite, 486, "carol", &[], "");
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert_eq!(phone.side.take_log().last().unwrap(), "TransferDidFail 486 Busy Here");
    // 481 to a report means the same.
    let (_, invite, sent) = follow(&mut phone, session, &refer(3, &ok).with(CAROL));
    phone.respond(&sent[1], 481, "peer", &[], "");
    phone.respond(&invite, 486, "carol", &[], "");
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert_eq!(phone.side.ua.sessions(), [session], "the call with who asked goes on");
}

#[test]
fn a_chain_of_transfers_ends() {
    let mut phone = Lone::new();
    let (mut session, ok) = phone.talk();
    let mut draft = refer(2, &ok).with(CAROL);
    for hop in 1..=5 {
        let (new, invite, sent) = follow(&mut phone, session, &draft);
        phone.respond(&sent[1], 200, "peer", &[], "");
        phone.respond(&invite, 200, "peer", &["Contact: <sip:c@192.0.2.9>"], SDP);
        phone.take();
        // The next REFER comes in the new call: its dialog is the one of the INVITE.
        let call_id = header(&invite, "Call-ID");
        let tag = String::from_utf8_lossy(invite.from().unwrap().tag().unwrap()).into_owned();
        let text = Draft::new("REFER", &format!("hop{hop}")).with(CAROL).text();
        let text = text.replace("written-by-hand", &call_id);
        let text = text.replace("To: <sip:alice@example.com>", &format!("To: <sip:alice@example.com>;tag={tag}"));
        if hop == 5 {
            phone.receive(text);
            assert_eq!(phone.take_lines(), ["483 REFER"]);
            return;
        }
        phone.receive(text);
        draft = Draft::new("OPTIONS", &format!("nothing{hop}"));
        session = new;
    }
}

#[test]
fn when_the_call_ends_the_question_is_answered() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    phone.ask(&refer(2, &ok).with(CAROL));
    assert_eq!(codes(&phone.ask(&Draft::new("BYE", "bye").in_dialog(3, &ok))), ["200 BYE", "487 REFER"]);
    phone.expect_nothing_left();
}

#[test]
fn a_peer_that_leaves_at_once_still_gets_its_call_made() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let (new, _, _) = follow(&mut phone, session, &refer(2, &ok).with(CAROL));
    phone.ask(&Draft::new("BYE", "bye").in_dialog(3, &ok));
    assert_eq!(phone.side.ua.sessions(), [new]);
}

// --- we ask ----------------------------------------------------------------------------------------------------------

/// We ask the peer to call Carol; gives back the REFER.
fn transfer(phone: &mut Lone, session: SessionId) -> Message {
    phone.side.ua.transfer(session, Some(uri("sip:carol@example.com;method=BYE?Subject=x")), None, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.side.take_log(), ["TransferNewOutgoing sip:carol@example.com"]);
    phone.take().pop().expect("a REFER")
}

#[test]
fn after_a_transfer_that_succeeds_we_leave() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let request = transfer(&mut phone, session);
    assert_eq!(first_line(&request), "REFER");
    assert_eq!(header(&request, "Refer-To"), "<sip:carol@example.com>");
    assert_eq!(header(&request, "Referred-By"), "<sip:alice@example.com>");
    assert_eq!(header(&request, "Contact"), "<sip:alice@192.0.2.1:5060>");
    phone.respond(&request, 202, "peer", &[], "");
    assert_eq!(phone.side.take_log(), ["TransferDidStart"]);
    for (number, state, frag, log) in [
        (2, "active;expires=60", "SIP/2.0 100 Trying\r\n", &["TransferGotProgress 100 Trying"][..]),
        (3, "active", "SIP/2.0 180 Ringing", &["TransferGotProgress 180 Ringing"]),
        (4, "active", "SIP/2.0 180 Ringing", &[]),
        (5, "pending", "", &[]),
    ] {
        assert_eq!(codes(&phone.ask(&notify(number, &ok, state, frag))), ["200 NOTIFY"]);
        assert_eq!(phone.side.take_log(), log);
    }
    let sent = phone.ask(&notify(6, &ok, "terminated;reason=noresource", "SIP/2.0 200 OK\r\n"));
    assert_eq!(codes(&sent), ["200 NOTIFY", "BYE"]);
    phone.respond(&sent[1], 200, "peer", &[], "");
    assert_eq!(phone.side.take_log(), [&["TransferDidEnd 200 OK"], &LEAVES[..]].concat());
    phone.expect_nothing_left();
}

#[test]
fn after_one_that_fails_the_call_goes_on() {
    // Refused, reported as failed, reported no more.
    let cases: [(Option<u16>, &str, &str, &str); 5] = [
        (Some(603), "", "", "TransferDidFail 603 Decline"),
        (None, "terminated;reason=noresource", "SIP/2.0 486 Busy Here", "TransferDidFail 486 Busy Here"),
        (None, "active", "SIP/2.0 503 Service Unavailable", "TransferDidFail 503 Service Unavailable"),
        (None, "terminated;reason=giveup", "", "TransferDidFail 487 the peer reports no more (giveup)"),
        (None, "terminated", "SIP/2.0 180 Ringing", "TransferDidFail 487 the peer reports no more (no reason)"),
    ];
    for (refused, state, frag, failure) in cases {
        let mut phone = Lone::new();
        let (session, ok) = phone.talk();
        let request = transfer(&mut phone, session);
        phone.respond(&request, refused.unwrap_or(202), "peer", &[], "");
        if refused.is_none() {
            assert_eq!(codes(&phone.ask(&notify(2, &ok, state, frag))), ["200 NOTIFY"]);
            let again = notify(3, &ok, "terminated;reason=noresource", "SIP/2.0 486 Busy Here");
            assert_eq!(codes(&phone.ask(&again)), ["200 NOTIFY"], "the end of a subscription that is over for us");
        }
        assert_eq!(phone.side.take_log().last().unwrap(), failure);
        assert_eq!(phone.side.ua.sessions(), [session]);
        transfer(&mut phone, session); // another one can be tried
    }
}

#[test]
fn silence_of_the_peer_is_a_failure_and_no_end() {
    // No answer to REFER; no report after 202; none after the subscription has run out.
    for (answered, reported, patience, failure) in [
        (false, None, 33, "TransferDidFail 408 Request Timeout"),
        (true, None, 33, "TransferDidFail 408 the peer does not report"),
        (true, Some("active;expires=60"), 61, "TransferDidFail 408 the peer does not report"),
        (true, Some("active;expires=4000000000"), 3601, "TransferDidFail 408 the peer does not report"),
    ] {
        let mut phone = Lone::new();
        let us = AccountSettings { session_timer: None, ..AccountSettings::new(uri("sip:alice@example.com")) };
        phone.side.ua.set_account(ACCOUNT, us);
        let (session, ok) = phone.talk();
        let request = transfer(&mut phone, session);
        if answered {
            phone.respond(&request, 202, "peer", &[], "");
        }
        if let Some(state) = reported {
            phone.ask(&notify(2, &ok, state, "SIP/2.0 100 Trying"));
        }
        phone.pass(Duration::from_secs(patience));
        assert_eq!(phone.side.take_log().last().unwrap(), failure);
        assert_eq!(phone.side.ua.sessions(), [session]);
    }
}

#[test]
fn a_report_may_overtake_the_answer() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let request = transfer(&mut phone, session);
    phone.ask(&notify(2, &ok, "active;expires=60", "SIP/2.0 100 Trying"));
    assert_eq!(phone.side.take_log(), ["TransferDidStart", "TransferGotProgress 100 Trying"]);
    phone.respond(&request, 202, "peer", &[], "");
    assert_eq!(phone.side.take_log(), NOTHING);
    phone.ask(&notify(3, &ok, "terminated;reason=noresource", "SIP/2.0 200 OK"));
    assert_eq!(phone.side.take_log()[0], "TransferDidEnd 200 OK");
}

#[test]
fn a_peer_without_reports_has_taken_it_on() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let request = transfer(&mut phone, session);
    phone.respond(&request, 202, "peer", &["Refer-Sub: false"], "");
    assert_eq!(phone.take_lines(), ["BYE"]);
    assert_eq!(phone.side.take_log()[..2], ["TransferDidStart", "TransferDidEnd 202 Accepted"]);
}

#[test]
fn reports_of_something_else_are_refused() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    assert_eq!(codes(&phone.ask(&notify(2, &ok, "active", "SIP/2.0 200 OK"))), ["481 NOTIFY"], "nothing was asked for");
    let request = transfer(&mut phone, session);
    phone.respond(&request, 202, "peer", &[], "");
    phone.side.take_log();
    let other = |number, event: &str| {
        let mut draft = notify(number, &ok, "active", "SIP/2.0 200 OK");
        draft.extra.retain(|line| !line.starts_with("Event"));
        draft.with(event)
    };
    for (draft, answer) in [
        (other(3, "Event: presence"), "489 NOTIFY"),
        (other(4, "Event: refer;id=99"), "481 NOTIFY"),
        (other(5, "X-Event: refer"), "489 NOTIFY"),
        (notify(6, &ok, "unheard", "SIP/2.0 200 OK"), "400 NOTIFY"),
    ] {
        assert_eq!(codes(&phone.ask(&draft)), [answer], "{}", draft.text());
    }
    let html = notify(7, &ok, "active", "").with("Content-Type: text/html").body("<p>200 OK</p>");
    assert_eq!(codes(&phone.ask(&html)), ["415 NOTIFY"]);
    assert_eq!(phone.side.take_log(), NOTHING);
    let number = header(&request, "CSeq").replace(" REFER", "");
    let named = other(8, &format!("Event: refer;id={number}"));
    assert_eq!(codes(&phone.ask(&named)), ["200 NOTIFY", "BYE"]);
}

#[test]
fn when_the_call_ends_first_the_transfer_has_an_outcome_too() {
    for (answered, outcome) in
        [(true, "TransferDidEnd 202 Accepted"), (false, "TransferDidFail 487 the call ended first")]
    {
        let mut phone = Lone::new();
        let (session, ok) = phone.talk();
        let request = transfer(&mut phone, session);
        if answered {
            phone.respond(&request, 202, "peer", &[], "");
        }
        phone.side.take_log();
        phone.ask(&Draft::new("BYE", "bye").in_dialog(9, &ok));
        assert_eq!(phone.side.take_log()[0], outcome);
        phone.expect_nothing_left();
    }
}

#[test]
fn what_cannot_be_asked_for() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite().with("Allow: INVITE, ACK, BYE"));
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().pop().unwrap();
    phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
    phone.side.take_log();
    let now = phone.now;
    let mut ask = |target: Option<&str>, replaces| phone.side.ua.transfer(session, target.map(uri), replaces, now);
    assert!(matches!(ask(Some("sip:carol@example.com"), None), Err(VerbError::NotPossible { .. })), "no REFER there");
    assert!(matches!(ask(Some("tel:+1"), None), Err(VerbError::BadArgument(_))));
    assert!(matches!(ask(None, None), Err(VerbError::BadArgument(_))));
    assert!(matches!(ask(None, Some(session)), Err(VerbError::BadArgument(_))));
    assert_eq!(ask(None, Some(SessionId(99))), Err(VerbError::UnknownSession(SessionId(99))));
    phone.run();
    assert_eq!((phone.take_lines(), phone.side.take_log()), (vec![], vec![]));
}

// --- calls in the place of another -----------------------------------------------------------------------------------

/// An INVITE of the peer with this Replaces.
fn taking(replaces: &str) -> Draft {
    Draft { branch: "taking".into(), ..Draft::invite() }.with(&format!("Replaces: {replaces}"))
}

fn tags(ok: &Message) -> String {
    let tag = String::from_utf8_lossy(ok.to().unwrap().tag().unwrap()).into_owned();
    format!("written-by-hand;to-tag={tag};from-tag=peer")
}

/// The text with another Call-ID, as of another dialog.
fn elsewhere(draft: &Draft) -> String {
    draft.text().replace("Call-ID: written-by-hand", "Call-ID: another")
}

#[test]
fn a_call_takes_the_place_of_another_once_it_is_accepted() {
    let mut phone = Lone::new();
    let (old, ok) = phone.talk();
    phone.receive(elsewhere(&taking(&tags(&ok)).with("Require: replaces")));
    assert_eq!(phone.take_lines(), ["180 INVITE"]);
    let new = phone.side.last();
    assert_eq!(phone.side.snapshot().replaces, Some(old));
    assert_eq!(phone.side.ua.sessions(), [old, new], "it only rings");
    phone.side.take_log();
    phone.side.ua.accept(new, true, false, phone.now).unwrap();
    phone.run();
    let answer = phone.take().pop().unwrap();
    assert_eq!(phone.side.ua.sessions(), [old, new], "not up yet");
    phone.receive(elsewhere(&Draft::new("ACK", "ack2").in_dialog(1, &answer)));
    assert_eq!(phone.take_lines(), ["BYE"]);
    let log = phone.side.take_log();
    assert_eq!(log[1..5], ["WillStart", "GotStreamUpdate audio", "ACCEPTING>ESTABLISHED", "DidStart"]);
    assert_eq!(log[5..8], ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate "]);
    assert_eq!(phone.side.ua.sessions().last(), Some(&new));
    phone.pass(Duration::from_secs(2));
    assert_eq!(phone.side.take_log(), ["TERMINATING>TERMINATED", "DidEnd local Replaced by another call"]);
    assert_eq!(phone.side.ua.sessions(), [new]);
}

#[test]
fn one_that_is_rejected_leaves_the_other_alone() {
    let mut phone = Lone::new();
    let (old, ok) = phone.talk();
    phone.receive(elsewhere(&taking(&tags(&ok))));
    phone.side.ua.reject(phone.side.last(), 486, None, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), ["180 INVITE", "486 INVITE"]);
    assert_eq!(phone.side.ua.sessions(), [old]);
}

#[test]
fn names_that_are_not_exactly_those_of_a_call_are_refused() {
    let mut phone = Lone::new();
    let (old, ok) = phone.talk();
    let right = tags(&ok);
    for (replaces, answer) in [
        (right.replace("written-by-hand", "other"), "481 INVITE"),
        (right.replace("from-tag=peer", "from-tag=pee"), "481 INVITE"),
        (right.replace("to-tag=", "to-tag=x"), "481 INVITE"),
        ("written-by-hand;to-tag=peer;from-tag=peer".into(), "481 INVITE"),
        (format!("{right};early-only"), "486 INVITE"),
        ("written-by-hand;to-tag=1".into(), "400 INVITE"),
        (format!("{right}\r\nReplaces: {right}"), "400 INVITE"),
    ] {
        phone.receive(elsewhere(&taking(&replaces)));
        assert_eq!(phone.take_lines(), [answer], "{replaces}");
        phone.pass(Duration::from_secs(40)); // so that the same branch is a new request
        phone.take();
    }
    assert_eq!(phone.side.take_log(), NOTHING);
    // A call of another account of ours is none of this one's.
    let mut other = AccountSettings::new(uri("sip:second@example.com"));
    other.catch_all = true;
    phone.side.ua.set_account(crate::event::AccountId(2), other);
    phone.receive(elsewhere(&Draft { uri: "sip:second@192.0.2.1", ..taking(&right) }));
    assert_eq!(phone.take_lines(), ["481 INVITE"]);
    assert_eq!(phone.side.ua.sessions(), [old]);
}

#[test]
fn a_call_that_has_just_ended_has_no_place_to_take() {
    let mut phone = Lone::new();
    let (old, ok) = phone.talk();
    phone.side.ua.end(old, None, phone.now).unwrap();
    phone.run();
    phone.take();
    phone.receive(elsewhere(&taking(&tags(&ok))));
    assert_eq!(phone.take_lines(), ["603 INVITE"]);
}

#[test]
fn a_call_of_ours_that_still_rings_can_be_taken_and_one_of_theirs_cannot() {
    let mut phone = Lone::new();
    let (ours, invite) = phone.call();
    phone.respond(&invite, 180, "ringing", &["Contact: <sip:bob@192.0.2.9>"], "");
    let tag = String::from_utf8_lossy(invite.from().unwrap().tag().unwrap()).into_owned();
    let named = format!("{};to-tag={tag};from-tag=ringing;early-only", header(&invite, "Call-ID"));
    phone.receive(elsewhere(&taking(&named)));
    assert_eq!(phone.take_lines(), ["180 INVITE"]);
    assert_eq!(phone.side.snapshot().replaces, Some(ours));
    phone.side.ua.accept(phone.side.last(), true, false, phone.now).unwrap();
    phone.run();
    let answer = phone.take().pop().unwrap();
    phone.receive(elsewhere(&Draft::new("ACK", "ack2").in_dialog(1, &answer)));
    assert_eq!(phone.take_lines(), ["CANCEL"]);

    let mut phone = Lone::new();
    let ringing = phone.ask(&Draft::invite()).pop().unwrap();
    phone.receive(elsewhere(&taking(&tags(&ringing))));
    assert_eq!(phone.take_lines(), ["481 INVITE"]);
}
