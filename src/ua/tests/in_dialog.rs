//! Requests of the peer inside a dialog: BYE, re-INVITE, UPDATE, OPTIONS and those we do not take.

use std::time::Duration;

use super::harness::*;
use crate::media::{Direction, MediaCommand};
use crate::sip::message::Message;
use crate::ua::core::ALLOW;

fn lines(messages: &[Message]) -> Vec<String> {
    messages.iter().map(first_line).collect()
}

fn offer(method: &'static str, number: u32, ok: &Message, body: &str) -> Draft {
    let draft = Draft::new(method, &format!("{method}{number}")).in_dialog(number, ok);
    if body.is_empty() { draft } else { draft.with("Content-Type: application/sdp").body(body) }
}

fn ack(phone: &mut Lone, number: u32, ok: &Message) {
    phone.receive(Draft::new("ACK", &format!("ack{number}")).in_dialog(number, ok).text());
}

fn direction(phone: &Lone) -> Direction {
    match phone.side.media.last() {
        Some(MediaCommand::Start(params)) => params.direction,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bye_with_a_gap_in_its_number_ends_the_call() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    let bye = Draft::new("BYE", "bye").with("Reason: Q.850;cause=16;text=\"Terminated\"");
    assert_eq!(lines(&phone.ask(&bye.in_dialog(900, &ok))), ["200 BYE"]);
    assert_eq!(phone.side.take_log(), ["GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd remote Terminated"]);
    phone.expect_nothing_left();
}

#[test]
fn requests_that_come_too_late_or_from_strangers_change_nothing() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    phone.ask(&Draft::new("OPTIONS", "o").in_dialog(50, &ok));
    let late = Draft::new("BYE", "low").in_dialog(49, &ok);
    assert_eq!(lines(&phone.ask(&late)), ["500 BYE"]);
    let stranger = Draft::new("BYE", "str").in_dialog(60, &ok).text().replace("tag=peer", "tag=other");
    phone.receive(stranger);
    assert_eq!(phone.take_lines(), ["481 BYE"]);
    let other_call = Draft::new("BYE", "oth").in_dialog(60, &ok).text().replace("written-by-hand", "another");
    phone.receive(other_call);
    assert_eq!(phone.take_lines(), ["481 BYE"]);
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
}

#[test]
fn methods_we_do_not_take_are_refused_with_those_we_do() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    for (number, (method, answer)) in (2..).zip([("REGISTER", "405 REGISTER"), ("FLY", "501 FLY")]) {
        let answers = phone.ask(&Draft::new(method, method).in_dialog(number, &ok));
        assert_eq!(lines(&answers), [answer]);
        assert_eq!(header(&answers[0], "Allow"), ALLOW);
    }
    let options = phone.ask(&Draft::new("OPTIONS", "o").in_dialog(20, &ok));
    assert_eq!(lines(&options), ["200 OPTIONS"]);
    let needs = phone.ask(&Draft::new("OPTIONS", "n").in_dialog(21, &ok).with("Require: magic"));
    assert_eq!((&*lines(&needs)[0], &*header(&needs[0], "Unsupported")), ("420 OPTIONS", "magic"));
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
}

#[test]
fn a_refresh_changes_nothing_but_where_we_send() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let mut refresh = offer("INVITE", 2, &ok, SDP);
    refresh.extra[0] = "Contact: <sip:bob@192.0.2.99:5090>".into();
    let answers = phone.ask(&refresh);
    assert_eq!(lines(&answers), ["200 INVITE"]);
    assert_eq!(answers[0].body(), ok.body(), "the same answer to the same offer");
    ack(&mut phone, 2, &ok);
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    assert!(phone.side.media.is_empty());
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take()[0].request_uri_raw(), b"sip:bob@192.0.2.99:5090");
}

#[test]
fn the_answer_to_a_reinvite_is_repeated_until_its_ack() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    phone.ask(&offer("INVITE", 2, &ok, SDP));
    phone.pass(Duration::from_millis(1600));
    assert_eq!(phone.take_lines(), ["200 INVITE"; 2]);
    ack(&mut phone, 2, &ok);
    phone.pass(Duration::from_secs(60));
    assert_eq!(phone.take_lines(), Vec::<String>::new());
    assert_eq!(phone.side.ua.sessions().len(), 1);
}

#[test]
fn a_reinvite_that_is_never_acknowledged_ends_the_dialog() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    phone.ask(&offer("INVITE", 2, &ok, SDP));
    phone.pass(Duration::from_secs(33));
    assert_eq!(phone.take_lines().last().unwrap(), "BYE");
    assert_eq!(phone.side.take_log(), ["GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd local No ACK received"]);
    phone.expect_nothing_left();
}

#[test]
fn the_peer_holds_and_resumes() {
    for (hold, ours) in [("sendonly", Direction::RecvOnly), ("inactive", Direction::Inactive)] {
        let mut phone = Lone::new();
        let (_, ok) = phone.talk();
        let answers = phone.ask(&offer("INVITE", 2, &ok, &sdp(2, hold)));
        assert!(String::from_utf8_lossy(answers[0].body()).contains(&format!("a={}", ours.name())));
        assert_eq!(direction(&phone), ours);
        ack(&mut phone, 2, &ok);
        assert_eq!(phone.side.take_log(), ["GotHoldRequest remote"]);
        assert!(phone.side.snapshot().on_hold_by_remote);
        phone.ask(&offer("INVITE", 3, &ok, &sdp(2, hold)));
        ack(&mut phone, 3, &ok);
        assert_eq!(phone.side.take_log(), Vec::<String>::new(), "held already");
        phone.ask(&offer("INVITE", 4, &ok, &sdp(3, "sendrecv")));
        ack(&mut phone, 4, &ok);
        assert_eq!(phone.side.take_log(), ["GotUnholdRequest remote"]);
        assert_eq!(direction(&phone), Direction::SendRecv);
    }
}

#[test]
fn hold_by_the_address_0_0_0_0_is_hold_too() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    let old = sdp(2, "sendrecv").replace("c=IN IP4 192.0.2.9", "c=IN IP4 0.0.0.0");
    assert_eq!(lines(&phone.ask(&offer("INVITE", 2, &ok, &old))), ["200 INVITE"]);
    assert_eq!(phone.side.take_log(), ["GotHoldRequest remote"]);
}

#[test]
fn hold_pauses_a_recording_and_one_asked_for_on_hold_waits_for_its_end() {
    use crate::media::RecordingLayout::Mix;
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    phone.side.ua.start_recording(session, "/tmp/a.wav".into(), Mix, phone.now).unwrap();
    phone.run();
    phone.side.take_log();
    phone.ask(&offer("INVITE", 2, &ok, &sdp(2, "sendonly")));
    ack(&mut phone, 2, &ok);
    assert_eq!(phone.side.media.last(), Some(&MediaCommand::PauseRecording));
    phone.ask(&offer("INVITE", 3, &ok, &sdp(3, "sendrecv")));
    ack(&mut phone, 3, &ok);
    assert_eq!(phone.side.media.last(), Some(&MediaCommand::ResumeRecording));
    phone.side.ua.stop_recording(session, phone.now).unwrap();
    phone.run();
    phone.ask(&offer("INVITE", 4, &ok, &sdp(4, "sendonly")));
    ack(&mut phone, 4, &ok);
    phone.side.take_log();
    phone.side.ua.start_recording(session, "/tmp/b.wav".into(), Mix, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    phone.ask(&offer("INVITE", 5, &ok, &sdp(5, "sendrecv")));
    assert_eq!(phone.side.take_log(), ["GotUnholdRequest remote", "WillStartRecordingAudio", "DidStartRecordingAudio"]);
}

#[test]
fn a_new_address_moves_the_stream() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    let moved = sdp(2, "sendrecv").replace("192.0.2.9", "192.0.2.44").replace("6000", "6100");
    phone.ask(&offer("INVITE", 2, &ok, &moved));
    let Some(MediaCommand::Start(params)) = phone.side.media.last() else { panic!("started") };
    assert_eq!(params.remote_rtp, address("192.0.2.44:6100"));
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
}

#[test]
fn an_offer_that_cannot_be_taken_keeps_the_old_session() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    let cases = [
        (SDP.replace("AVP 0", "AVP 99").replace("bob 1 1", "bob 1 2"), "488 INVITE"),
        ("v=0\r\nwhat\r\n".to_owned(), "400 INVITE"),
        (SDP.replace("6000", "6002"), "488 INVITE"), // the same version, another text
    ];
    for (number, (body, answer)) in (2..).zip(cases) {
        assert_eq!(lines(&phone.ask(&offer("INVITE", number, &ok, &body))), [answer]);
        ack(&mut phone, number, &ok);
    }
    let text = Draft::new("INVITE", "t").in_dialog(9, &ok).with("Content-Type: text/plain").body("hi");
    assert_eq!(lines(&phone.ask(&text)), ["415 INVITE"]);
    assert!(phone.side.media.is_empty());
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    assert_eq!(lines(&phone.ask(&offer("INVITE", 10, &ok, SDP))), ["200 INVITE"]);
}

#[test]
fn a_reinvite_without_offer_gets_ours_and_its_ack_answers() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    let answers = phone.ask(&offer("INVITE", 2, &ok, ""));
    assert_eq!(lines(&answers), ["200 INVITE"]);
    assert!(answers[0].body().starts_with(b"v=0"));
    assert_eq!(lines(&phone.ask(&offer("INVITE", 3, &ok, SDP))), ["500 INVITE"], "one at a time");
    assert_eq!(lines(&phone.ask(&offer("UPDATE", 4, &ok, SDP))), ["491 UPDATE"]);
    let answer = Draft::new("ACK", "x").with("Content-Type: application/sdp").body(&sdp(2, "sendonly"));
    phone.receive(answer.in_dialog(2, &ok).text());
    assert_eq!(phone.side.take_log(), ["GotHoldRequest remote"]);
    assert_eq!(direction(&phone), Direction::RecvOnly);
}

#[test]
fn a_missing_answer_in_the_ack_leaves_things_as_they_were() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    phone.ask(&offer("INVITE", 2, &ok, ""));
    ack(&mut phone, 2, &ok);
    assert!(phone.side.media.is_empty());
    assert_eq!(lines(&phone.ask(&offer("INVITE", 3, &ok, SDP))), ["200 INVITE"]);
}

#[test]
fn the_peer_removes_audio_and_brings_it_back_when_it_is_asked() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let without = sdp(2, "sendrecv").replace("m=audio 6000", "m=audio 0");
    assert_eq!(lines(&phone.ask(&offer("INVITE", 2, &ok, &without))), ["200 INVITE"]);
    ack(&mut phone, 2, &ok);
    assert_eq!(phone.side.take_log(), ["GotStreamUpdate "]);
    assert_eq!(phone.side.media.last(), Some(&MediaCommand::Close));
    let answers = phone.ask(&offer("INVITE", 3, &ok, &sdp(3, "sendrecv")));
    assert_eq!(lines(&answers), ["180 INVITE"]);
    assert_eq!(phone.side.take_log(), ["ESTABLISHED>PROPOSED", "GotStreamProposal remote audio"]);
    phone.side.ua.accept_proposal(session, true, false, phone.now).unwrap();
    phone.run();
    ack(&mut phone, 3, &ok);
    let back = ["PROPOSED>ESTABLISHED", "AcceptedStreamProposal remote", "GotStreamUpdate audio"];
    assert_eq!(phone.side.take_log(), back);
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.side.take_log()[..2], ["ESTABLISHED>TERMINATING", "WillEnd"]);
}

#[test]
fn update_is_answered_at_once() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let refresh = phone.ask(&offer("UPDATE", 2, &ok, ""));
    assert_eq!(lines(&refresh), ["200 UPDATE"]);
    assert!(refresh[0].body().is_empty());
    let hold = phone.ask(&offer("UPDATE", 3, &ok, &sdp(2, "sendonly")));
    assert_eq!(lines(&hold), ["200 UPDATE"]);
    assert!(String::from_utf8_lossy(hold[0].body()).contains("a=recvonly"));
    assert_eq!(phone.side.take_log(), ["GotHoldRequest remote"]);
    phone.pass(Duration::from_secs(60));
    assert_eq!(phone.take_lines(), Vec::<String>::new());
    assert_eq!(phone.side.ua.sessions(), [session]);
}

#[test]
fn offers_before_the_answer_are_put_off() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&Draft::invite()).remove(0);
    let early = phone.ask(&offer("UPDATE", 2, &ringing, SDP));
    assert_eq!(lines(&early), ["500 UPDATE"]);
    assert!(header(&early[0], "Retry-After").parse::<u32>().unwrap() <= 10);
    assert_eq!(lines(&phone.ask(&offer("UPDATE", 3, &ringing, ""))), ["200 UPDATE"]);
    assert_eq!(lines(&phone.ask(&offer("INVITE", 4, &ringing, SDP))), ["500 INVITE"]);
    // As the caller, ours is the INVITE that is open.
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.respond(&invite, 180, "peer", &["Contact: <sip:bob@192.0.2.9>"], "");
    phone.take();
    let tag = String::from_utf8(invite.from().unwrap().tag().unwrap().to_vec()).unwrap();
    let draft = Draft { to_tag: Some(tag), ..Draft::invite() };
    phone.receive(draft.text().replace("written-by-hand", &header(&invite, "Call-ID")));
    assert_eq!(phone.take_lines(), ["491 INVITE"]);
}

#[test]
fn a_call_that_ends_takes_no_more_requests_but_bye() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.run();
    assert_eq!(lines(&phone.ask(&offer("INVITE", 2, &ok, SDP))), ["481 INVITE"]);
    assert_eq!(lines(&phone.ask(&offer("BYE", 3, &ok, ""))), ["200 BYE"]);
    assert_eq!(phone.side.take_log().last().unwrap(), "DidEnd local");
    assert_eq!(lines(&phone.ask(&offer("BYE", 4, &ok, ""))), ["481 BYE"]);
    phone.expect_nothing_left();
}
