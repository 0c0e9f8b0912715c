//! Reliable provisional responses and early media in both roles (RFC 3262, RFC 3960).

use std::time::Duration;

use super::harness::*;
use crate::media::MediaCommand;
use crate::sip::message::{HeaderName, Message};
use crate::ua::AccountSettings;

const CONTACT: &str = "Contact: <sip:bob@192.0.2.9>";

fn rseq(message: &Message) -> u32 {
    message.number(HeaderName::RSeq).expect("readable").expect("an RSeq")
}

/// What the media side was told to start: remote ports.
fn started(side: &Side) -> Vec<u16> {
    let port = |command: &MediaCommand| match command {
        MediaCommand::Start(params) => Some(params.remote_rtp.port()),
        _ => None,
    };
    side.media.iter().filter_map(port).collect()
}

/// The PRACK of the caller for a response of ours.
fn prack(response: &Message, number: u32) -> Draft {
    let rack = format!("RAck: {} 1 INVITE", rseq(response));
    Draft::new("PRACK", &format!("prack{number}")).with(&rack).in_dialog(number, response)
}

fn requiring() -> Draft {
    Draft::invite().with("Require: 100rel")
}

fn supporting() -> Draft {
    Draft::invite().with("Supported: timer, 100rel")
}

fn sdp_body(draft: Draft, body: &str) -> Draft {
    draft.with("Content-Type: application/sdp").body(body)
}

// --- as UAS ----------------------------------------------------------------------------------------------------------

#[test]
fn a_caller_that_requires_100rel_gets_a_reliable_180_until_its_prack() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&requiring());
    assert_eq!(ringing.iter().map(first_line).collect::<Vec<_>>(), ["180 INVITE"]);
    assert_eq!(header(&ringing[0], "Require"), "100rel");
    assert!(rseq(&ringing[0]) >= 1 && rseq(&ringing[0]) < 1 << 31);
    // T1 doubling, without the ceiling of other responses.
    let mut at = Vec::new();
    for tenth in 1..=160 {
        phone.pass(Duration::from_millis(100));
        at.extend(phone.take().iter().filter(|again| **again == ringing[0]).map(|_| tenth * 100));
    }
    assert_eq!(at, [500, 1500, 3500, 7500, 15_500]);
    let answers = phone.ask(&prack(&ringing[0], 2));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 PRACK"]);
    phone.pass(Duration::from_secs(20));
    assert_eq!(phone.take_lines(), Vec::<String>::new());
    // Acknowledged once: the same number again is none of ours.
    assert_eq!(first_line(&phone.ask(&prack(&ringing[0], 3))[0]), "481 PRACK");
}

#[test]
fn without_a_prack_for_64_t1_the_call_is_refused_with_504() {
    let mut phone = Lone::new();
    phone.ask(&requiring());
    phone.side.take_log();
    phone.pass(Duration::from_millis(31_999));
    assert_eq!(phone.take_lines(), ["180 INVITE"; 6]);
    phone.pass(Duration::from_millis(1));
    assert_eq!(phone.take_lines(), ["504 INVITE"]);
    assert_eq!(phone.side.take_log(), ["INCOMING>TERMINATED", "DidFail local 504 No PRACK received", "DidEnd local"]);
    phone.expect_nothing_left();
}

#[test]
fn a_prack_that_matches_nothing_gets_481_and_one_that_cannot_be_read_400() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&requiring()).remove(0);
    let number = rseq(&ringing);
    for (rack, code) in [
        (format!("RAck: {} 1 INVITE", number + 1), "481"),
        (format!("RAck: {number} 2 INVITE"), "481"),
        ("RAck: 1".to_owned(), "400"),
        ("X-RAck: 1 1 INVITE".to_owned(), "400"),
    ] {
        let mut draft = prack(&ringing, 2);
        draft.branch = format!("branch{code}{rack}").replace(' ', "");
        draft.extra.pop();
        let answers = phone.ask(&draft.with(&rack));
        assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), [format!("{code} PRACK")], "{rack}");
    }
    // Outside the dialog there is nothing to acknowledge either.
    assert_eq!(first_line(&phone.ask(&Draft::new("PRACK", "o").with("RAck: 1 1 INVITE"))[0]), "481 PRACK");
    assert_eq!(first_line(&phone.ask(&prack(&ringing, 3))[0]), "200 PRACK");
}

#[test]
fn a_2xx_waits_for_no_plain_180_and_the_late_prack_is_still_taken() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&requiring()).remove(0);
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().remove(0);
    assert_eq!(first_line(&ok), "200 INVITE");
    assert!(!ok.body().is_empty(), "nothing was described before");
    assert_eq!(first_line(&phone.ask(&prack(&ringing, 2))[0]), "200 PRACK");
    phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
    phone.pass(Duration::from_secs(40));
    assert_eq!(phone.take_lines(), Vec::<String>::new(), "neither is repeated");
    assert_eq!(phone.side.snapshot().state, crate::event::SessionState::Established);
}

#[test]
fn early_media_answers_in_a_183_and_the_200_waits_for_its_prack() {
    let mut phone = Lone::new();
    assert_eq!(phone.ask(&supporting()).iter().map(first_line).collect::<Vec<_>>(), ["180 INVITE"]);
    let session = phone.side.last();
    phone.side.ua.early_media(session, phone.now).unwrap();
    phone.run();
    let progress = phone.take().remove(0);
    assert_eq!(first_line(&progress), "183 INVITE");
    assert_eq!(header(&progress, "Require"), "100rel");
    assert!(String::from_utf8_lossy(progress.body()).contains("m=audio 4000 RTP/AVP 0"));
    assert_eq!(started(&phone.side), [6000]);
    assert_eq!(phone.side.take_log(), ["NULL>INCOMING", "NewIncoming audio", "GotStreamUpdate audio"]);
    phone.side.ua.early_media(session, phone.now).unwrap();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), Vec::<String>::new(), "no 2xx before the PRACK");
    let answers = phone.ask(&prack(&progress, 2));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 PRACK", "200 INVITE"]);
    assert!(answers[1].body().is_empty(), "offer and answer are over");
    phone.receive(Draft::new("ACK", "ack").in_dialog(1, &answers[1]).text());
    assert_eq!(phone.side.take_log(), ["INCOMING>ACCEPTING", "WillStart", "ACCEPTING>ESTABLISHED", "DidStart"]);
    assert_eq!(started(&phone.side), [6000], "the stream runs on");
}

#[test]
fn early_media_for_a_caller_without_100rel_repeats_its_answer_in_the_200() {
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    let session = phone.side.last();
    phone.side.ua.early_media(session, phone.now).unwrap();
    phone.run();
    let progress = phone.take().remove(0);
    assert_eq!(first_line(&progress), "183 INVITE");
    assert!(progress.header(HeaderName::RSeq).is_none());
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().remove(0);
    assert_eq!(ok.body(), progress.body(), "the same answer (RFC 3261 §13.2.1)");
    phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
    assert_eq!(started(&phone.side), [6000]);
}

#[test]
fn one_response_at_a_time_waits_for_its_prack() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&requiring()).remove(0);
    let session = phone.side.last();
    for _ in 0..20 {
        phone.side.ua.ring(session, phone.now).unwrap();
    }
    phone.side.ua.early_media(session, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), Vec::<String>::new());
    let answers = phone.ask(&prack(&ringing, 2));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 PRACK", "180 INVITE"]);
    assert_eq!(rseq(&answers[1]), rseq(&ringing) + 1);
    let answers = phone.ask(&prack(&answers[1], 3));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 PRACK", "183 INVITE"]);
    assert_eq!(rseq(&answers[1]), rseq(&ringing) + 2);
    assert!(!answers[1].body().is_empty());
    let answers = phone.ask(&prack(&answers[1], 4));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 PRACK"]);
}

#[test]
fn a_caller_without_offer_gets_ours_in_the_reliable_180_and_answers_it_in_prack() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&Draft::new("INVITE", "invite").with("Require: 100rel")).remove(0);
    assert_eq!(first_line(&ringing), "180 INVITE");
    assert!(String::from_utf8_lossy(ringing.body()).contains("m=audio 4000"));
    let answers = phone.ask(&sdp_body(prack(&ringing, 2), SDP));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 PRACK"]);
    assert_eq!(started(&phone.side), Vec::<u16>::new(), "nobody has taken the call yet");
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().remove(0);
    assert_eq!((first_line(&ok).as_str(), ok.body()), ("200 INVITE", &b""[..]));
    phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
    assert_eq!(started(&phone.side), [6000]);
    assert_eq!(
        phone.side.take_log()[2..],
        ["INCOMING>ACCEPTING", "WillStart", "GotStreamUpdate audio", "ACCEPTING>ESTABLISHED", "DidStart"]
    );
}

#[test]
fn a_prack_that_owes_an_answer_and_brings_none_ends_the_call() {
    let mut phone = Lone::new();
    let ringing = phone.ask(&Draft::new("INVITE", "invite").with("Require: 100rel")).remove(0);
    phone.side.take_log();
    let answers = phone.ask(&prack(&ringing, 2));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["488 PRACK", "488 INVITE"]);
    assert_eq!(
        phone.side.take_log(),
        ["INCOMING>TERMINATED", "DidFail local 488 the PRACK carries no answer to our offer", "DidEnd local"]
    );
    phone.receive(Draft::new("ACK", "invite").in_dialog(1, &ringing).text());
    phone.expect_nothing_left();
}

#[test]
fn a_prack_may_bring_a_new_offer_once_the_first_is_answered() {
    let mut phone = Lone::new();
    phone.ask(&supporting());
    let session = phone.side.last();
    phone.side.ua.early_media(session, phone.now).unwrap();
    phone.run();
    let progress = phone.take().remove(0);
    let moved = sdp(2, "sendrecv").replace("audio 6000", "audio 7000");
    let answers = phone.ask(&sdp_body(prack(&progress, 2), &moved));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 PRACK"]);
    assert!(String::from_utf8_lossy(answers[0].body()).contains("m=audio 4000"));
    assert_eq!(started(&phone.side), [6000, 7000]);
}

#[test]
fn cancel_and_bye_end_a_call_that_waits_for_its_prack() {
    for method in ["CANCEL", "BYE"] {
        let mut phone = Lone::new();
        phone.ask(&supporting());
        let session = phone.side.last();
        phone.side.ua.early_media(session, phone.now).unwrap();
        phone.run();
        phone.side.ua.accept(session, true, false, phone.now).unwrap();
        phone.run();
        let progress = phone.take().pop().expect("a 183");
        phone.side.take_log();
        let end = match method {
            "CANCEL" => Draft { branch: "invite".into(), ..Draft::new("CANCEL", "") },
            _ => Draft::new("BYE", "bye").in_dialog(2, &progress),
        };
        let answers = phone.ask(&end);
        let expected = [format!("200 {method}"), "487 INVITE".to_owned()];
        assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), expected);
        assert_eq!(
            phone.side.take_log(),
            ["GotStreamUpdate ", "ACCEPTING>TERMINATED", "DidFail remote 487 Request cancelled", "DidEnd remote"]
        );
        assert!(matches!(phone.side.media.last(), Some(MediaCommand::Close)));
        assert_eq!(first_line(&phone.ask(&prack(&progress, 3))[0]), "481 PRACK");
        phone.expect_nothing_left();
    }
}

#[test]
fn early_media_needs_an_offer_or_100rel() {
    let mut phone = Lone::new();
    phone.ask(&Draft::new("INVITE", "invite"));
    let session = phone.side.last();
    let error = phone.side.ua.early_media(session, phone.now).unwrap_err();
    assert!(error.to_string().contains("does not support 100rel"), "{error}");
}

#[test]
fn an_account_that_requires_100rel_refuses_callers_without_it() {
    let mut phone = Lone::new();
    let settings = AccountSettings { require_100rel: true, ..AccountSettings::new(uri("sip:alice@example.com")) };
    phone.side.ua.set_account(ACCOUNT, settings);
    let answer = phone.ask(&Draft::invite()).remove(0);
    assert_eq!((first_line(&answer).as_str(), header(&answer, "Require").as_str()), ("421 INVITE", "100rel"));
    let ringing = phone.ask(&Draft { branch: "2".into(), number: 2, ..supporting() }).remove(0);
    assert_eq!((first_line(&ringing).as_str(), header(&ringing, "Require").as_str()), ("180 INVITE", "100rel"));
}

// --- as UAC ----------------------------------------------------------------------------------------------------------

fn reliably(number: u32) -> [String; 3] {
    [CONTACT.to_owned(), "Require: 100rel".to_owned(), format!("RSeq: {number}")]
}

fn answer(phone: &mut Lone, invite: &Message, code: u16, tag: &str, number: u32, body: &str) {
    let headers = reliably(number);
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    phone.respond(invite, code, tag, &headers, body);
}

#[test]
fn each_reliable_response_is_acknowledged_once_and_in_order() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    assert!(invite.lists(HeaderName::Supported, "100rel"));
    phone.side.take_log();
    answer(&mut phone, &invite, 180, "b", 4711, "");
    let prack = phone.take().remove(0);
    assert_eq!(first_line(&prack), "PRACK");
    assert_eq!(header(&prack, "RAck"), "4711 1 INVITE");
    assert_eq!(header(&prack, "CSeq"), "2 PRACK");
    assert_eq!(prack.request_uri_raw(), b"sip:bob@192.0.2.9");
    assert_eq!(prack.to().unwrap().tag(), Some(&b"b"[..]));
    assert_eq!(phone.side.take_log(), ["GotRingIndication"]);
    answer(&mut phone, &invite, 180, "b", 4711, ""); // again: the PRACK repeats itself
    answer(&mut phone, &invite, 180, "b", 4713, ""); // a gap
    assert_eq!(phone.take_lines(), Vec::<String>::new());
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    phone.respond(&prack, 200, "b", &[], "");
    answer(&mut phone, &invite, 183, "b", 4712, "");
    assert_eq!(header(&phone.take()[0], "RAck"), "4712 1 INVITE");
    // Requests of the confirmed dialog go on counting.
    phone.respond(&invite, 200, "b", &[CONTACT], SDP);
    assert_eq!(phone.take_lines(), ["ACK"]);
    let call = phone.side.last();
    phone.side.ua.end(call, None, phone.now).unwrap();
    phone.run();
    assert_eq!(header(&phone.take()[0], "CSeq"), "4 BYE");
}

#[test]
fn a_lost_prack_is_sent_again_by_its_transaction() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    answer(&mut phone, &invite, 180, "b", 1, "");
    assert_eq!(phone.take_lines(), ["PRACK"]);
    phone.pass(Duration::from_millis(500));
    assert_eq!(phone.take_lines(), ["PRACK"]);
}

#[test]
fn each_fork_counts_for_itself_and_a_late_one_is_ended_with_a_higher_number() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    answer(&mut phone, &invite, 180, "b", 10, "");
    answer(&mut phone, &invite, 180, "c", 900, "");
    answer(&mut phone, &invite, 180, "c", 901, "");
    let pracks = phone.take();
    let racks: Vec<_> = pracks.iter().map(|prack| header(prack, "RAck")).collect();
    assert_eq!(racks, ["10 1 INVITE", "900 1 INVITE", "901 1 INVITE"]);
    phone.respond(&invite, 200, "b", &[CONTACT], SDP);
    assert_eq!(phone.take_lines(), ["ACK"]);
    phone.respond(&invite, 200, "c", &[CONTACT], SDP);
    let sent = phone.take();
    assert_eq!(sent.iter().map(|message| header(message, "CSeq")).collect::<Vec<_>>(), ["1 ACK", "4 BYE"]);
}

#[test]
fn a_fork_that_crosses_our_cancel_is_ended_with_a_higher_number() {
    let mut phone = Lone::new();
    let (call, invite) = phone.call();
    answer(&mut phone, &invite, 180, "b", 10, "");
    phone.take();
    phone.side.ua.end(call, Some("enough"), phone.now).unwrap();
    phone.run();
    let cancel = phone.take().remove(0);
    assert_eq!(header(&cancel, "Reason"), "SIP;text=\"enough\"");
    phone.respond(&invite, 200, "b", &[CONTACT], SDP);
    let sent = phone.take();
    assert_eq!(sent.iter().map(|message| header(message, "CSeq")).collect::<Vec<_>>(), ["1 ACK", "3 BYE"]);
    phone.respond(&sent[1], 200, "b", &[], "");
    phone.expect_nothing_left();
}

#[test]
fn the_answer_of_a_reliable_183_stands_when_the_200_has_none() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    answer(&mut phone, &invite, 183, "b", 1, SDP);
    let prack = phone.take().remove(0);
    assert!(prack.body().is_empty());
    assert_eq!(started(&phone.side), [6000]);
    phone.respond(&prack, 200, "b", &[], "");
    phone.respond(&invite, 200, "b", &[CONTACT], "");
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert_eq!(phone.side.take_log()[2..], ["WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart"]);
    assert_eq!(started(&phone.side), [6000]);
}

#[test]
fn the_first_fork_plays_and_the_one_that_answers_takes_over() {
    let other = SDP.replace("audio 6000", "audio 7000");
    for (last, ports) in [("", vec![6000, 7000]), (other.as_str(), vec![6000, 7000])] {
        let mut phone = Lone::new();
        let (_, invite) = phone.call();
        answer(&mut phone, &invite, 183, "b", 1, SDP);
        answer(&mut phone, &invite, 183, "c", 1, &other);
        assert_eq!(started(&phone.side), [6000], "the first one is heard");
        phone.take();
        phone.respond(&invite, 200, "c", &[CONTACT], last);
        assert_eq!(phone.take_lines(), ["ACK"]);
        assert_eq!(started(&phone.side), ports);
        assert!(phone.side.snapshot().remote_sdp().as_deref().unwrap().contains("7000"));
    }
}

#[test]
fn a_200_may_say_something_else_than_the_183_before() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.respond(&invite, 183, "b", &[CONTACT], SDP);
    phone.respond(&invite, 180, "b", &[CONTACT], "");
    phone.respond(&invite, 200, "b", &[CONTACT], &SDP.replace("audio 6000", "audio 7000"));
    assert_eq!(started(&phone.side), [6000, 7000]);
    assert_eq!(
        phone.side.take_log()[2..],
        ["GotRingIndication", "WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart"]
    );
}

#[test]
fn an_account_that_requires_100rel_says_so() {
    let mut phone = Lone::new();
    let settings = AccountSettings { require_100rel: true, ..AccountSettings::new(uri("sip:alice@example.com")) };
    phone.side.ua.set_account(ACCOUNT, settings);
    let (_, invite) = phone.call();
    assert!(invite.lists(HeaderName::Require, "100rel"));
    phone.side.take_log();
    phone.respond(&invite, 420, "b", &["Unsupported: 100rel"], "");
    assert_eq!(phone.side.take_log(), ["CALLING>TERMINATED", "DidFail remote 420 Bad Extension", "DidEnd remote"]);
}

// --- late offers of the callee ---------------------------------------------------------------------------------------

fn call_without_offer(phone: &mut Lone) -> Message {
    let call = crate::ua::Connect {
        account: ACCOUNT,
        callee: uri("sip:bob@example.com"),
        routes: vec![route(PEER)],
        audio: true,
        chat: false,
        late_offer: true,
        extra_headers: Vec::new(),
    };
    phone.side.ua.connect(call, phone.now).expect("a call");
    phone.run();
    let invite = phone.take().remove(0);
    assert!(invite.body().is_empty() && invite.header(HeaderName::ContentType).is_none());
    phone.side.take_log();
    invite
}

#[test]
fn the_offer_of_a_200_is_answered_in_the_ack() {
    let mut phone = Lone::new();
    let invite = call_without_offer(&mut phone);
    phone.respond(&invite, 180, "b", &[CONTACT], SDP); // no offer can come unreliably
    assert_eq!(started(&phone.side), Vec::<u16>::new());
    phone.respond(&invite, 200, "b", &[CONTACT], SDP);
    let ack = phone.take().remove(0);
    assert_eq!((first_line(&ack).as_str(), header(&ack, "Content-Type").as_str()), ("ACK", "application/sdp"));
    assert!(String::from_utf8_lossy(ack.body()).contains("m=audio 4000 RTP/AVP 0"));
    assert_eq!(started(&phone.side), [6000]);
    assert_eq!(
        phone.side.take_log(),
        ["GotRingIndication", "WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart"]
    );
    phone.respond(&invite, 200, "b", &[CONTACT], SDP);
    assert_eq!(phone.take(), [ack], "the same bytes for each repetition");
}

#[test]
fn the_offer_of_a_reliable_183_is_answered_in_prack() {
    let mut phone = Lone::new();
    let invite = call_without_offer(&mut phone);
    answer(&mut phone, &invite, 183, "b", 7, SDP);
    let other = SDP.replace("audio 6000", "audio 7000");
    answer(&mut phone, &invite, 183, "c", 8, &other);
    let pracks = phone.take();
    for prack in &pracks {
        assert_eq!(first_line(prack), "PRACK");
        assert!(String::from_utf8_lossy(prack.body()).contains("m=audio 4000 RTP/AVP 0"));
    }
    assert_eq!((pracks.len(), started(&phone.side)), (2, vec![6000]));
    phone.respond(&invite, 200, "c", &[CONTACT], "");
    let ack = phone.take().remove(0);
    assert!(ack.body().is_empty());
    assert_eq!(started(&phone.side), [6000, 7000]);
}

#[test]
fn a_200_without_or_with_an_unusable_offer_is_acknowledged_and_ended() {
    for (body, why, answered) in [
        ("", "the 200 carries no offer", false),
        (&SDP.replace("AVP 0", "AVP 96"), "", true),
        ("v=0\r\nwhat\r\n", "", false),
    ] {
        let mut phone = Lone::new();
        let invite = call_without_offer(&mut phone);
        phone.respond(&invite, 200, "b", &[CONTACT], body);
        let sent = phone.take();
        assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["ACK", "BYE"], "{body}");
        assert_eq!(String::from_utf8_lossy(sent[0].body()).contains("m=audio 0 "), answered, "{body}");
        let log = phone.side.take_log();
        assert!(log[1].starts_with(&format!("DidFail local 488 {why}")), "{log:?}");
        phone.respond(&sent[1], 200, "b", &[], "");
        phone.expect_nothing_left();
    }
}

#[test]
fn an_early_offer_that_cannot_be_answered_ends_the_call() {
    let mut phone = Lone::new();
    let invite = call_without_offer(&mut phone);
    answer(&mut phone, &invite, 183, "b", 7, &SDP.replace("AVP 0", "AVP 96"));
    assert_eq!(phone.take_lines(), ["CANCEL"]);
    assert!(phone.side.take_log()[1].starts_with("DidFail local 488 "));
    phone.respond(&invite, 487, "b", &[], "");
    phone.expect_nothing_left();
}

// --- both ------------------------------------------------------------------------------------------------------------

#[test]
fn two_of_us_ring_play_and_talk_reliably() {
    for lost in [vec![], vec!["> PRACK"], vec!["< 183"], vec!["< 200 PRACK"]] {
        let mut pair = Pair::new();
        for (side, name) in [(&mut pair.alice, "alice"), (&mut pair.bob, "bob")] {
            let settings = AccountSettings {
                require_100rel: true,
                ..AccountSettings::new(uri(&format!("sip:{name}@example.com")))
            };
            side.ua.set_account(ACCOUNT, settings);
        }
        let (_, bob) = pair.ring();
        assert_eq!(pair.take_wire(), ["> INVITE", "< 180 INVITE", "> PRACK", "< 200 PRACK"]);
        pair.lost = lost;
        pair.bob.ua.early_media(bob, pair.now).unwrap();
        pair.run();
        pair.lost.clear();
        pair.bob.ua.accept(bob, true, false, pair.now).unwrap();
        pair.pass(Duration::from_secs(2));
        assert_eq!(pair.alice.snapshot().state, crate::event::SessionState::Established, "{:?}", pair.wire);
        assert_eq!(pair.bob.snapshot().state, crate::event::SessionState::Established);
        assert_eq!(
            pair.alice.take_log()[2..],
            ["GotRingIndication", "WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart"]
        );
        let alice = pair.alice.last();
        pair.alice.ua.end(alice, None, pair.now).unwrap();
        pair.expect_nothing_left();
    }
}

#[test]
fn two_of_us_talk_by_a_late_offer() {
    for require_100rel in [false, true] {
        let mut pair = Pair::new();
        let settings = AccountSettings { require_100rel, ..AccountSettings::new(uri("sip:alice@example.com")) };
        pair.alice.ua.set_account(ACCOUNT, settings);
        let call = crate::ua::Connect {
            account: ACCOUNT,
            callee: uri("sip:bob@example.com"),
            routes: vec![route(BOB)],
            audio: true,
            chat: false,
            late_offer: true,
            extra_headers: Vec::new(),
        };
        pair.alice.ua.connect(call, pair.now).unwrap();
        pair.run();
        let bob = pair.bob.last();
        pair.bob.ua.accept(bob, true, false, pair.now).unwrap();
        pair.run();
        assert_eq!(pair.alice.snapshot().state, crate::event::SessionState::Established, "{:?}", pair.wire);
        assert_eq!(pair.bob.snapshot().state, crate::event::SessionState::Established);
        for side in [&pair.alice, &pair.bob] {
            assert_eq!(side.snapshot().audio.as_ref().unwrap().codec, Some(crate::media::CodecKind::Opus));
        }
    }
}

// --- UPDATE in early dialogs (RFC 3311) ------------------------------------------------------------------------------

#[test]
fn an_update_of_the_caller_is_answered_once_the_first_answer_is_acknowledged() {
    let mut phone = Lone::new();
    phone.ask(&supporting());
    let session = phone.side.last();
    phone.side.ua.early_media(session, phone.now).unwrap();
    phone.run();
    let progress = phone.take().remove(0);
    let moved = sdp(2, "sendrecv").replace("audio 6000", "audio 7000");
    let update = |branch| sdp_body(Draft::new("UPDATE", branch), &moved);
    let early = phone.ask(&update("u1").in_dialog(2, &progress)).remove(0);
    assert_eq!(first_line(&early), "500 UPDATE", "an offer of theirs is not answered yet");
    assert!(early.header(HeaderName::RetryAfter).is_some());
    phone.ask(&prack(&progress, 3));
    let answer = phone.ask(&update("u2").in_dialog(4, &progress)).remove(0);
    assert_eq!(first_line(&answer), "200 UPDATE");
    assert!(String::from_utf8_lossy(answer.body()).contains("m=audio 4000"));
    assert_eq!(started(&phone.side), [6000, 7000]);
    let again = sdp_body(Draft::new("UPDATE", "u3"), "v=0\r\nwhat\r\n").in_dialog(5, &progress);
    assert_eq!(first_line(&phone.ask(&again)[0]), "400 UPDATE");
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), ["200 INVITE"]);
    assert_eq!(started(&phone.side), [6000, 7000], "what UPDATE agreed on stands");
}

#[test]
fn an_update_of_the_callee_is_answered_once_its_reliable_answer_is_there() {
    let moved = sdp(2, "sendrecv").replace("audio 6000", "audio 7000");
    let update = |invite: &Message, branch: &str, number: u32| {
        let from = header(invite, "To");
        let text = format!(
            "UPDATE sip:alice@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
             From: {from};tag=b\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {number} UPDATE\r\n{CONTACT}\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{moved}",
            header(invite, "From"),
            header(invite, "Call-ID"),
            moved.len()
        );
        text
    };
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    answer(&mut phone, &invite, 180, "b", 1, "");
    phone.take();
    phone.receive(update(&invite, "u1", 1));
    assert_eq!(phone.take_lines(), ["491 UPDATE"], "our offer is open");
    answer(&mut phone, &invite, 183, "b", 2, SDP);
    phone.take();
    phone.receive(update(&invite, "u2", 2));
    assert_eq!(phone.take_lines(), ["200 UPDATE"]);
    assert_eq!(started(&phone.side), [6000, 7000]);
    phone.respond(&invite, 200, "b", &[CONTACT], SDP);
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert_eq!(started(&phone.side), [6000, 7000], "the old answer in the 200 means nothing any more");
    assert_eq!(phone.side.snapshot().state, crate::event::SessionState::Established);
}
