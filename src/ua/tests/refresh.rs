//! Session timers (RFC 4028): who refreshes, when, by what, and what ends a call that nobody refreshes.

use std::time::Duration;

use super::harness::*;
use crate::event::SessionId;
use crate::sip::message::Message;
use crate::ua::AccountSettings;

const NOTHING: [&str; 0] = [];
const CONTACT: &str = "Contact: <sip:bob@192.0.2.9>";
const ALLOW_UPDATE: &str = "Allow: INVITE, ACK, BYE, UPDATE";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn set_timer(phone: &mut Lone, seconds: Option<u64>) {
    let settings = AccountSettings {
        session_timer: seconds.map(Duration::from_secs),
        ..AccountSettings::new(uri("sip:alice@example.com"))
    };
    phone.side.ua.set_account(ACCOUNT, settings);
}

/// We call; the peer answers with these headers.
fn called(phone: &mut Lone, headers: &[&str]) -> (SessionId, Message) {
    let (session, invite) = phone.call();
    let headers: Vec<&str> = [CONTACT].into_iter().chain(headers.iter().copied()).collect();
    phone.respond(&invite, 200, "peer", &headers, SDP);
    assert_eq!(phone.take_lines(), ["ACK"]);
    phone.side.take_log();
    (session, invite)
}

/// The peer calls with these headers; gives back our 200.
fn calls(phone: &mut Lone, headers: &[&str]) -> (SessionId, Message) {
    let invite = headers.iter().fold(Draft::invite(), |draft, header| draft.with(header));
    phone.ask(&invite);
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).expect("accepted");
    phone.run();
    let ok = phone.take().pop().expect("a 200");
    phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
    phone.side.take_log();
    (session, ok)
}

/// Passes time in steps until something is sent.
fn next(phone: &mut Lone, within: u64) -> (u64, Message) {
    for second in 1..=within {
        phone.pass(secs(1));
        if let Some(message) = phone.take().into_iter().next() {
            return (second, message);
        }
    }
    panic!("nothing was sent within {within} s");
}

#[test]
fn an_invite_asks_for_a_timer_as_the_account_says() {
    for (setting, expected) in [(Some(1_800), "1800"), (Some(600), "600"), (Some(20), "90"), (None, "")] {
        let mut phone = Lone::new();
        set_timer(&mut phone, setting);
        let (_, invite) = phone.call();
        assert_eq!(header(&invite, "Session-Expires"), expected);
        assert!(header(&invite, "Supported").split(", ").any(|name| name == "timer"));
        assert_eq!(header(&invite, "Min-SE"), if setting.is_some() { "90" } else { "" });
    }
}

#[test]
fn the_caller_refreshes_when_the_answer_says_uac_by_update_or_reinvite() {
    for (allow, method) in [(ALLOW_UPDATE, "UPDATE"), ("Allow: INVITE, ACK, BYE", "INVITE"), ("Foo: bar", "UPDATE")] {
        let mut phone = Lone::new();
        let (_, invite) = called(&mut phone, &["Session-Expires: 90;refresher=uac", "Require: timer", allow]);
        for round in 0..3 {
            let (after, refresh) = next(&mut phone, 50);
            assert_eq!((first_line(&refresh).as_str(), after), (method, 45), "round {round}");
            assert_eq!(header(&refresh, "Session-Expires"), "90;refresher=uac");
            assert_eq!(header(&refresh, "Contact"), header(&invite, "Contact"));
            let answer = ["Session-Expires: 90;refresher=uac", "Require: timer", CONTACT, allow];
            if method == "UPDATE" {
                assert!(refresh.body().is_empty());
                phone.respond(&refresh, 200, "peer", &answer, "");
                assert_eq!(phone.take_lines(), NOTHING);
            } else {
                let first = String::from_utf8_lossy(invite.body()).into_owned();
                let again = String::from_utf8_lossy(refresh.body()).into_owned();
                let origin = |body: &str| body.lines().nth(1).unwrap().to_owned();
                if round > 0 {
                    assert_eq!(origin(&again).split(' ').nth(1), origin(&first).split(' ').nth(1));
                }
                phone.respond(&refresh, 200, "peer", &answer, SDP);
                assert_eq!(phone.take_lines(), ["ACK"]);
            }
        }
        assert_eq!(phone.side.take_log(), NOTHING, "none of it is visible");
    }
}

#[test]
fn a_reinvite_that_refreshes_keeps_the_version() {
    let mut phone = Lone::new();
    called(&mut phone, &["Session-Expires: 90;refresher=uac"]);
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let (_, refresh) = next(&mut phone, 50);
        bodies.push(refresh.body().to_vec());
        phone.respond(&refresh, 200, "peer", &["Session-Expires: 90;refresher=uac", CONTACT], SDP);
        phone.take();
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "purpose 48");
}

#[test]
fn the_callee_settles_interval_and_refresher() {
    let none = "";
    // Headers of the INVITE, our account's timer, the 200's Session-Expires, whether it requires timer.
    let cases: [(&[&str], Option<u64>, &str, bool); 9] = [
        (&["Supported: timer", "Session-Expires: 90"], Some(1_800), "90;refresher=uas", true),
        (&["Supported: timer", "Session-Expires: 90;refresher=uac"], Some(1_800), "90;refresher=uac", true),
        (&["Supported: timer", "x: 3600;refresher=uas"], Some(1_800), "1800;refresher=uas", true),
        (&["k: timer", "x: 3600", "Min-SE: 2000"], Some(1_800), "2000;refresher=uas", true),
        (&["Supported: timer", "Session-Expires: 3600;refresher=uac"], None, "3600;refresher=uac", true),
        (&["Supported: timer"], Some(1_800), "1800;refresher=uas", true),
        (&["Session-Expires: 600"], Some(1_800), "600;refresher=uas", false), // a proxy asks
        (&[], Some(1_800), "1800;refresher=uas", false),
        (&["Supported: timer"], None, none, false),
    ];
    for (headers, setting, expected, required) in cases {
        let mut phone = Lone::new();
        set_timer(&mut phone, setting);
        let (_, ok) = calls(&mut phone, headers);
        assert_eq!(header(&ok, "Session-Expires"), expected, "{headers:?}");
        assert_eq!(header(&ok, "Require"), if required { "timer" } else { none }, "{headers:?}");
    }
}

#[test]
fn the_callee_refreshes_when_it_said_so() {
    let mut phone = Lone::new();
    calls(&mut phone, &["Supported: timer", "Session-Expires: 90", ALLOW_UPDATE]);
    let (after, update) = next(&mut phone, 50);
    assert_eq!((first_line(&update).as_str(), after), ("UPDATE", 45));
    assert_eq!(header(&update, "Session-Expires"), "90;refresher=uac", "for this request it is the client");
    phone.respond(&update, 200, "peer", &["Session-Expires: 90;refresher=uac", CONTACT], "");
    assert_eq!(next(&mut phone, 50).0, 45);
}

#[test]
fn the_peer_refreshes_by_update_without_a_body_and_the_call_goes_on() {
    let mut phone = Lone::new();
    let (session, ok) =
        calls(&mut phone, &["Supported: timer", "Session-Expires: 90;refresher=uac", "User-Agent: JsSIP 3.13.8"]);
    for number in 2..12 {
        phone.pass(secs(45));
        assert_eq!(phone.take_lines(), NOTHING);
        let refresh = Draft::new("UPDATE", &format!("u{number}"))
            .in_dialog(number, &ok)
            .with("Supported: timer")
            .with("Session-Expires: 90;refresher=uac");
        let answers = phone.ask(&refresh);
        assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 UPDATE"]);
        assert_eq!(header(&answers[0], "Session-Expires"), "90;refresher=uac");
        assert_eq!(header(&answers[0], "Require"), "timer");
    }
    assert_eq!(phone.side.ua.sessions(), [session]);
    assert_eq!(phone.side.take_log(), NOTHING);
}

#[test]
fn a_session_that_the_peer_stops_refreshing_ends_a_little_before_its_time() {
    for (interval, end) in [(90, 60), (600, 568)] {
        let mut phone = Lone::new();
        calls(&mut phone, &["Supported: timer", &format!("Session-Expires: {interval};refresher=uac")]);
        let (after, bye) = next(&mut phone, interval);
        assert_eq!((first_line(&bye).as_str(), after), ("BYE", end), "min(32 s, a third) before");
        assert!(header(&bye, "Reason").contains("Session timer expired"));
        let log = phone.side.take_log();
        assert_eq!(log, ["GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd local Session timer expired"]);
        phone.expect_nothing_left();
    }
}

#[test]
fn a_refresh_without_an_answer_or_with_481_ends_the_call() {
    for code in [None, Some(481), Some(408)] {
        let mut phone = Lone::new();
        called(&mut phone, &["Session-Expires: 600;refresher=uac", ALLOW_UPDATE]);
        let (after, update) = next(&mut phone, 400);
        assert_eq!(after, 300);
        match code {
            Some(code) => phone.respond(&update, code, "peer", &[], ""),
            None => phone.pass(secs(32)),
        }
        assert_eq!(phone.take_lines().last().unwrap(), "BYE");
        let log = phone.side.take_log();
        assert_eq!(log[..2], ["GotStreamUpdate ", "ESTABLISHED>TERMINATED"]);
        assert!(log[2].starts_with("DidEnd "));
        phone.expect_nothing_left();
    }
}

#[test]
fn a_refresh_that_fails_otherwise_is_tried_again_until_the_end() {
    let mut phone = Lone::new();
    called(&mut phone, &["Session-Expires: 90;refresher=uac", ALLOW_UPDATE]);
    let (_, mut update) = next(&mut phone, 50);
    for _ in 0..2 {
        phone.respond(&update, 500, "peer", &[], "");
        let (after, again) = next(&mut phone, 20);
        assert_eq!((first_line(&again).as_str(), after), ("UPDATE", 5));
        update = again;
    }
    phone.respond(&update, 500, "peer", &[], "");
    phone.pass(Duration::from_millis(5_100));
    assert_eq!(phone.take_lines(), ["UPDATE", "BYE"]);
}

#[test]
fn a_peer_that_promised_update_and_refuses_it_gets_a_reinvite() {
    let mut phone = Lone::new();
    called(&mut phone, &["Session-Expires: 90;refresher=uac", ALLOW_UPDATE]);
    let (_, update) = next(&mut phone, 50);
    phone.respond(&update, 405, "peer", &[], "");
    assert_eq!(phone.take_lines(), ["INVITE"]);
}

#[test]
fn roles_change_with_each_refresh() {
    let mut phone = Lone::new();
    let (_, ok) = calls(&mut phone, &["Supported: timer", "Session-Expires: 90;refresher=uac"]);
    // Their re-INVITE hands the role to us.
    let handing = Draft::new("INVITE", "i2").in_dialog(2, &ok).with("Supported: timer").with(ALLOW_UPDATE);
    let handing = handing.with("Session-Expires: 90;refresher=uas").with("Content-Type: application/sdp").body(SDP);
    let answers = phone.ask(&handing);
    assert_eq!(header(&answers[0], "Session-Expires"), "90;refresher=uas");
    phone.receive(Draft::new("ACK", "a2").in_dialog(2, &ok).text());
    let (after, update) = next(&mut phone, 50);
    assert_eq!((first_line(&update).as_str(), after), ("UPDATE", 45));
    // They take it back.
    phone.respond(&update, 200, "peer", &["Session-Expires: 120;refresher=uas", CONTACT], "");
    let (after, bye) = next(&mut phone, 120);
    assert_eq!((first_line(&bye).as_str(), after), ("BYE", 88), "they did not do it");
}

#[test]
fn a_hold_is_a_refresh_and_keeps_the_roles() {
    let mut phone = Lone::new();
    let (session, _) = called(&mut phone, &["Session-Expires: 90;refresher=uas", ALLOW_UPDATE]);
    phone.pass(secs(40));
    phone.side.ua.hold(session, true, phone.now).unwrap();
    phone.run();
    let hold = phone.take().remove(0);
    assert_eq!(header(&hold, "Session-Expires"), "90;refresher=uas");
    phone.respond(&hold, 200, "peer", &["Session-Expires: 90;refresher=uas", CONTACT], &sdp(2, "recvonly"));
    phone.take();
    let (after, bye) = next(&mut phone, 90);
    assert_eq!((first_line(&bye).as_str(), after), ("BYE", 60));
}

#[test]
fn an_answer_without_session_expires_is_a_session_without_end() {
    let mut phone = Lone::new();
    let (session, _) = called(&mut phone, &[]);
    phone.pass(secs(10_000));
    assert_eq!(phone.take_lines(), NOTHING);
    assert_eq!(phone.side.ua.sessions(), [session]);
}

#[test]
fn an_interval_below_ours_is_422_for_those_who_know_it() {
    let mut phone = Lone::new();
    let short = Draft::invite().with("Supported: timer").with("Session-Expires: 60");
    let answers = phone.ask(&short);
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["422 INVITE"]);
    assert_eq!(header(&answers[0], "Min-SE"), "90");
    assert_eq!(phone.side.take_log(), NOTHING);
    let mut phone = Lone::new();
    let (_, ok) = calls(&mut phone, &["Session-Expires: 60"]);
    assert_eq!(header(&ok, "Session-Expires"), "90;refresher=uas");
    for (number, method) in [(2, "INVITE"), (3, "UPDATE")] {
        let short = Draft::new(method, method).in_dialog(number, &ok).with("Supported: timer").with("x: 5");
        assert_eq!(first_line(&phone.ask(&short)[0]), format!("422 {method}"));
    }
}

#[test]
fn a_422_is_answered_with_a_longer_interval() {
    let mut phone = Lone::new();
    set_timer(&mut phone, Some(100));
    let (_, invite) = phone.call();
    phone.respond(&invite, 422, "peer", &["Min-SE: 300"], "");
    let sent = phone.take();
    assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["ACK", "INVITE"]);
    assert_eq!((header(&sent[1], "Session-Expires"), header(&sent[1], "Min-SE")), ("300".into(), "300".into()));
    assert_eq!(header(&sent[1], "Call-ID"), header(&invite, "Call-ID"));
    assert_eq!(header(&sent[1], "CSeq"), "2 INVITE");
    phone.respond(&sent[1], 422, "peer", &["Min-SE: 300"], "");
    assert_eq!(phone.take_lines(), ["ACK"], "no loop");
    assert_eq!(phone.side.take_log().last().unwrap(), "DidEnd remote");
    // And so is one to a refresh.
    let mut phone = Lone::new();
    called(&mut phone, &["Session-Expires: 90;refresher=uac", ALLOW_UPDATE]);
    let (_, update) = next(&mut phone, 50);
    phone.respond(&update, 422, "peer", &["Min-SE: 200"], "");
    assert_eq!(header(&phone.take()[0], "Session-Expires"), "200;refresher=uac");
}

#[test]
fn two_of_us_refresh_for_hours_and_nobody_notices() {
    let mut pair = Pair::new();
    let (alice, bob) = pair.talk();
    pair.pass(secs(4 * 3_600));
    let refreshes: Vec<_> = pair.take_wire();
    assert!(refreshes.iter().all(|line| line.ends_with("UPDATE")), "{refreshes:?}");
    assert_eq!(refreshes.len(), 2 * 16, "every 15 minutes");
    assert_eq!([pair.alice.take_log(), pair.bob.take_log()], [NOTHING; 2]);
    assert_eq!((pair.alice.ua.sessions(), pair.bob.ua.sessions()), (vec![alice], vec![bob]));
    pair.alice.ua.end(alice, None, pair.now).unwrap();
    pair.expect_nothing_left();
}

#[test]
fn a_peer_that_vanishes_is_noticed_by_both() {
    let mut pair = Pair::new();
    pair.talk();
    pair.lost = vec!["<", ">"];
    pair.pass(secs(1_800));
    let log = pair.bob.take_log();
    assert_eq!(log, ["GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd local 408 Request Timeout"]);
    let log = pair.alice.take_log();
    assert_eq!(log, ["GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd local Session timer expired"]);
    pair.expect_nothing_left();
}
