//! Streams that come and go in a call that is up: every arrow of the table in `session-api` §2.1 that a proposal has.

use super::harness::*;
use crate::event::{SessionId, SessionState};
use crate::media::{MediaCommand, MediaEvent};
use crate::sip::message::Message;
use crate::ua::{Connect, VerbError};

const NOTHING: [&str; 0] = [];
const CONTACT: &str = "Contact: <sip:bob@192.0.2.9>";
const PROPOSES: [&str; 2] = ["ESTABLISHED>PROPOSING", "GotStreamProposal local audio"];
const PROPOSED: [&str; 2] = ["ESTABLISHED>PROPOSED", "GotStreamProposal remote audio"];

/// A chat of [`PEER`]'s, with more m-lines.
fn chat_sdp(version: u32, more: &str) -> String {
    format!(
        "v=0\r\no=bob 1 {version} IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
         m=message 2855 TCP/MSRP *\r\na=path:msrp://192.0.2.9:2855/sb1;tcp\r\na=accept-types:message/cpim text/plain\r\n\
         {more}"
    )
}

const AUDIO: &str = "m=audio 6000 RTP/AVP 0\r\n";

/// Alice in a chat with the peer, who called; our 200.
fn chat() -> (Lone, SessionId, Message) {
    let mut phone = Lone::new();
    let invite = Draft { body: chat_sdp(1, ""), ..Draft::invite() };
    phone.ask(&invite);
    assert_eq!(phone.side.take_log(), ["NULL>INCOMING", "NewIncoming chat"]);
    let session = phone.side.last();
    phone.side.ua.accept(session, false, true, phone.now).expect("accepted");
    phone.run();
    let ok = phone.take().pop().expect("a 200");
    phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
    let up = ["INCOMING>ACCEPTING", "WillStart", "ACCEPTING>ESTABLISHED", "DidStart", "GotStreamUpdate chat"];
    assert_eq!(phone.side.take_log(), up);
    phone.side.media.clear();
    (phone, session, ok)
}

/// Alice in a chat with Bob.
fn chatting() -> (Pair, SessionId, SessionId) {
    let mut pair = Pair::new();
    let call = Connect {
        account: ACCOUNT,
        callee: uri("sip:bob@example.com"),
        routes: vec![route(BOB)],
        audio: false,
        chat: true,
        extra_headers: Vec::new(),
        late_offer: false,
    };
    let alice = pair.alice.ua.connect(call, pair.now).expect("a call");
    pair.run();
    let bob = pair.bob.last();
    pair.bob.ua.accept(bob, false, true, pair.now).expect("accepted");
    pair.run();
    let called = ["NULL>CALLING", "NewOutgoing chat", "GotRingIndication", "WillStart"];
    let up = ["CALLING>ESTABLISHED", "DidStart", "GotStreamUpdate chat"];
    assert_eq!(pair.alice.take_log(), [&called[..], &up].concat());
    pair.bob.take_log();
    pair.take_wire();
    pair.alice.media.clear();
    pair.bob.media.clear();
    (pair, alice, bob)
}

fn reinvite(number: u32, ok: &Message, body: &str) -> Draft {
    let draft = Draft::new("INVITE", &format!("i{number}")).in_dialog(number, ok);
    draft.with("Content-Type: application/sdp").body(body)
}

fn ack(phone: &mut Lone, number: u32, ok: &Message) {
    phone.receive(Draft::new("ACK", &format!("a{number}")).in_dialog(number, ok).text());
}

fn ports(message: &Message) -> Vec<String> {
    let body = String::from_utf8_lossy(message.body()).into_owned();
    let media = body.lines().filter(|line| line.starts_with("m="));
    media.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// Our proposal on the wire.
fn added(phone: &mut Lone, session: SessionId) -> Message {
    phone.side.ua.add_audio(session, phone.now).expect("allowed");
    phone.run();
    assert_eq!(phone.side.take_log(), PROPOSES);
    assert!(phone.side.snapshot().proposed_streams.audio);
    let mut sent = phone.take();
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent.remove(0)
}

// --- ours ------------------------------------------------------------------------------------------------------------

#[test]
fn add_audio_is_accepted() {
    let (mut phone, session, _) = chat();
    let invite = added(&mut phone, session);
    assert_eq!(ports(&invite), ["m=message 2855", "m=audio 4000"]);
    phone.respond(&invite, 180, "peer", &[], "");
    assert_eq!(phone.side.take_log(), NOTHING, "no ring indication inside a call");
    phone.respond(&invite, 200, "peer", &[CONTACT], &chat_sdp(2, AUDIO));
    assert_eq!(phone.take_lines(), ["ACK"]);
    let accepted = ["PROPOSING>ESTABLISHED", "AcceptedStreamProposal local", "GotStreamUpdate audio+chat"];
    assert_eq!(phone.side.take_log(), accepted);
    assert!(!phone.side.snapshot().proposed_streams.audio);
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.run();
    let ends = ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate "];
    assert_eq!(phone.side.take_log(), ends);
    assert!(phone.side.media.ends_with(&[MediaCommand::Close, MediaCommand::CloseChat]));
}

#[test]
fn add_audio_is_refused_in_every_way_and_the_session_lives_on() {
    for (code, body, reason) in [
        (488, String::new(), "Not Acceptable Here (no)"),
        (603, String::new(), "Decline (no)"),
        (200, chat_sdp(2, "m=audio 0 RTP/AVP 0\r\n"), "the peer has refused the stream"),
        (200, String::new(), "the answer carries no SDP"),
    ] {
        let (mut phone, session, _) = chat();
        let invite = added(&mut phone, session);
        phone.respond(&invite, code, "peer", &[CONTACT, "Warning: 399 x \"no\""], &body);
        assert_eq!(phone.take_lines(), ["ACK"], "{code}");
        let rejected = format!("RejectedStreamProposal local {reason}");
        assert_eq!(phone.side.take_log(), ["PROPOSING>ESTABLISHED", &rejected]);
        assert!(phone.side.media.contains(&MediaCommand::Close), "what was got ready is closed");
        // The m-line stays, with port 0 (purpose 49), and the next proposal uses it again.
        let again = added(&mut phone, session);
        assert_eq!(ports(&again), ["m=message 2855", "m=audio 4000"]);
    }
}

#[test]
fn add_audio_that_meets_491_waits_and_proposes_again() {
    let (mut phone, session, ok) = chat();
    let invite = added(&mut phone, session);
    phone.respond(&invite, 491, "peer", &[], "");
    phone.take();
    // Their proposal has to wait for ours.
    let theirs = phone.ask(&reinvite(2, &ok, &chat_sdp(2, AUDIO)));
    assert_eq!(theirs.iter().map(first_line).collect::<Vec<_>>(), ["491 INVITE"]);
    phone.receive(Draft::new("ACK", "i2").in_dialog(2, &ok).text());
    phone.pass(std::time::Duration::from_millis(2_010));
    let again = phone.take().remove(0);
    phone.respond(&again, 200, "peer", &[CONTACT], &chat_sdp(2, AUDIO));
    let accepted = ["PROPOSING>ESTABLISHED", "AcceptedStreamProposal local", "GotStreamUpdate audio+chat"];
    assert_eq!(phone.side.take_log(), accepted);
}

#[test]
fn a_refused_stream_takes_no_other_change_along() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    phone.side.ua.hold(session, true, phone.now).unwrap();
    phone.run();
    let hold = phone.take().remove(0);
    phone.respond(&hold, 491, "peer", &[], "");
    phone.take();
    phone.side.ua.add_chat(session, phone.now).unwrap();
    phone.pass(std::time::Duration::from_millis(2_010));
    let both = phone.take().remove(0);
    assert_eq!(ports(&both), ["m=audio 4000", "m=message 2855"]);
    phone.respond(&both, 488, "peer", &[], "");
    let again = phone.take();
    assert_eq!(again.iter().map(first_line).collect::<Vec<_>>(), ["ACK", "INVITE"]);
    assert_eq!(ports(&again[1]), ["m=audio 4000"], "the hold alone");
    assert!(String::from_utf8_lossy(again[1].body()).contains("a=sendonly"));
    phone.respond(&again[1], 488, "peer", &[], "");
    assert_eq!(phone.take_lines(), ["ACK"], "ruling R10");
}

#[test]
fn add_audio_without_sockets_is_rejected_here() {
    let (mut phone, session, _) = chat();
    phone.side.media_error = Some("no port is free".into());
    phone.side.ua.add_audio(session, phone.now).expect("allowed");
    phone.run();
    assert_eq!(phone.take_lines(), NOTHING);
    let rejected = ["PROPOSING>ESTABLISHED", "RejectedStreamProposal local no port is free"];
    assert_eq!(phone.side.take_log(), [&PROPOSES[..], &rejected].concat());
}

#[test]
fn the_end_of_the_call_while_proposing_needs_no_answer() {
    let (mut phone, session, ok) = chat();
    added(&mut phone, session);
    phone.receive(Draft::new("BYE", "bye").in_dialog(2, &ok).text());
    assert_eq!(phone.side.take_log(), ["GotStreamUpdate ", "PROPOSING>TERMINATED", "DidEnd remote"], "ruling R23");
    phone.expect_nothing_left();
    let (mut phone, session, _) = chat();
    added(&mut phone, session);
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.side.take_log(), ["PROPOSING>TERMINATING", "WillEnd", "GotStreamUpdate "]);
    phone.expect_nothing_left();
}

#[test]
fn remove_audio_stops_at_once_and_tells_with_port_0() {
    let (mut pair, alice, bob) = chatting();
    pair.alice.ua.add_audio(alice, pair.now).unwrap();
    pair.run();
    pair.bob.ua.accept_proposal(bob, true, false, pair.now).unwrap();
    pair.run();
    pair.alice.take_log();
    pair.bob.take_log();
    pair.take_wire();
    pair.alice.ua.remove_audio(alice, pair.now).unwrap();
    assert!(matches!(pair.alice.ua.remove_chat(alice, pair.now), Err(VerbError::NotPossible { .. })), "ruling R13");
    pair.run();
    assert_eq!(pair.take_wire(), ["> INVITE", "< 200 INVITE", "> ACK"]);
    assert_eq!([pair.alice.take_log(), pair.bob.take_log()], [["GotStreamUpdate chat"], ["GotStreamUpdate chat"]]);
    assert!(pair.bob.media.contains(&MediaCommand::Close));
    // And once more, from the other side, in the same m-line.
    pair.bob.ua.add_audio(bob, pair.now).unwrap();
    pair.run();
    assert_eq!(pair.alice.take_log(), PROPOSED);
    pair.alice.ua.accept_proposal(alice, true, false, pair.now).unwrap();
    pair.run();
    let accepted = ["PROPOSED>ESTABLISHED", "AcceptedStreamProposal remote", "GotStreamUpdate audio+chat"];
    assert_eq!(pair.alice.take_log(), accepted);
    pair.alice.ua.end(alice, None, pair.now).unwrap();
    pair.expect_nothing_left();
}

#[test]
fn chat_is_added_to_audio_and_is_up_when_its_connection_is() {
    let mut pair = Pair::new();
    let (alice, bob) = pair.talk();
    pair.bob.chat_connects = false;
    pair.alice.ua.add_chat(alice, pair.now).unwrap();
    pair.run();
    assert_eq!(pair.bob.take_log(), ["ESTABLISHED>PROPOSED", "GotStreamProposal remote chat"]);
    pair.bob.ua.accept_proposal(bob, false, true, pair.now).unwrap();
    pair.run();
    assert_eq!(pair.bob.take_log(), ["PROPOSED>ESTABLISHED", "AcceptedStreamProposal remote"]);
    let accepted = ["PROPOSING>ESTABLISHED", "AcceptedStreamProposal local", "GotStreamUpdate audio+chat"];
    let proposed = ["ESTABLISHED>PROPOSING", "GotStreamProposal local chat"];
    assert_eq!(pair.alice.take_log(), [&proposed[..], &accepted].concat());
    pair.bob.ua.handle_media_event(bob, MediaEvent::ChatDidStart, pair.now);
    pair.run();
    assert_eq!(pair.bob.take_log(), ["GotStreamUpdate audio+chat"]);
    let active: Vec<bool> = [&pair.alice, &pair.bob]
        .iter()
        .flat_map(|side| &side.media)
        .filter_map(|command| match command {
            MediaCommand::StartChat(params) => Some(params.active),
            _ => None,
        })
        .collect();
    assert_eq!(active, [false, true], "the answerer of actpass connects (RFC 6135)");
    // It breaks: the call lives on with audio, and the peer is told.
    pair.take_wire();
    pair.bob.ua.handle_media_event(bob, MediaEvent::ChatFailed("reset".into()), pair.now);
    pair.run();
    assert_eq!(pair.take_wire(), ["< INVITE", "> 200 INVITE", "< ACK"]);
    assert_eq!([pair.alice.take_log(), pair.bob.take_log()], [["GotStreamUpdate audio"], ["GotStreamUpdate audio"]]);
}

#[test]
fn a_chat_that_breaks_as_the_last_stream_ends_the_session() {
    let (mut phone, session, _) = chat();
    phone.side.ua.handle_media_event(session, MediaEvent::ChatFailed("reset".into()), phone.now);
    phone.run();
    assert_eq!(phone.take_lines(), ["BYE"]);
    let log = phone.side.take_log();
    assert_eq!(log, ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate "], "ruling R16");
}

#[test]
fn verbs_that_make_no_sense_are_refused() {
    let (mut phone, session, _) = chat();
    let now = phone.now;
    let ua = &mut phone.side.ua;
    for (result, why) in [
        (ua.add_chat(session, now), "add_chat() is not possible now: the session has chat already"),
        (ua.remove_audio(session, now), "remove_audio() is not possible now: the session has no audio"),
        (ua.remove_chat(session, now), "remove_chat() is not possible now: chat is the session's last stream"),
        (ua.hold(session, true, now), "hold() is not possible now: the session has no audio"),
    ] {
        assert_eq!(result.unwrap_err().to_string(), why);
    }
    phone.side.ua.config_mut().chat = false;
    let mut phone = Lone::new();
    phone.side.ua.config_mut().chat = false;
    let (session, ok) = phone.talk();
    let error = phone.side.ua.add_chat(session, phone.now).unwrap_err();
    assert_eq!(error.to_string(), "add_chat() is not possible now: chat is not available");
    // And nobody can propose it to us.
    let offer = format!("{}m=message 2855 TCP/MSRP *\r\na=path:msrp://192.0.2.9:2855/s;tcp\r\n", sdp(2, "sendrecv"));
    let answers = phone.ask(&reinvite(2, &ok, &offer));
    assert_eq!(ports(&answers[0]), ["m=audio 4000", "m=message 0"]);
}

// --- theirs ----------------------------------------------------------------------------------------------------------

/// The peer proposes audio.
fn proposed() -> (Lone, SessionId, Message) {
    let (mut phone, session, ok) = chat();
    let answers = phone.ask(&reinvite(2, &ok, &chat_sdp(2, AUDIO)));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["180 INVITE"]);
    assert_eq!(phone.side.take_log(), PROPOSED);
    assert!(phone.side.snapshot().proposed_streams.audio);
    (phone, session, ok)
}

#[test]
fn a_proposal_of_theirs_is_accepted() {
    let (mut phone, session, ok) = proposed();
    for (audio, chat, why) in
        [(false, false, "no stream is accepted: audio and chat are False"), (true, true, "chat was not proposed")]
    {
        let error = phone.side.ua.accept_proposal(session, audio, chat, phone.now).unwrap_err();
        assert_eq!(error.to_string(), why);
    }
    phone.side.ua.accept_proposal(session, true, false, phone.now).unwrap();
    phone.run();
    let answers = phone.take();
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 INVITE"]);
    assert_eq!(ports(&answers[0]), ["m=message 2855", "m=audio 4000"]);
    let accepted = ["PROPOSED>ESTABLISHED", "AcceptedStreamProposal remote", "GotStreamUpdate audio+chat"];
    assert_eq!(phone.side.take_log(), accepted);
    ack(&mut phone, 2, &ok);
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.expect_nothing_left();
}

#[test]
fn a_proposal_of_two_is_accepted_in_part() {
    // A call with a refused video line only would be no call: it begins with audio, which goes, and both come back.
    let (mut phone, session, ok) = proposed();
    phone.side.ua.accept_proposal(session, true, false, phone.now).unwrap();
    phone.run();
    ack(&mut phone, 2, &ok);
    let gone = chat_sdp(3, AUDIO).replace("m=message 2855", "m=message 0");
    phone.ask(&reinvite(3, &ok, &gone));
    ack(&mut phone, 3, &ok);
    phone.side.take_log();
    let both = phone.ask(&reinvite(4, &ok, &chat_sdp(4, AUDIO)));
    assert_eq!(both.iter().map(first_line).collect::<Vec<_>>(), ["180 INVITE"]);
    assert_eq!(phone.side.take_log(), ["ESTABLISHED>PROPOSED", "GotStreamProposal remote chat"]);
    phone.side.ua.reject_proposal(session, 488, None, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), ["488 INVITE"]);
    let rejected = ["PROPOSED>ESTABLISHED", "RejectedStreamProposal remote Rejected by user"];
    assert_eq!(phone.side.take_log(), rejected);
    assert_eq!((phone.side.snapshot().has_audio, phone.side.snapshot().has_chat), (true, false));
}

#[test]
fn a_proposal_of_theirs_is_rejected_with_488_or_another_code() {
    for (code, phrase) in [(488, None), (603, Some("Not now"))] {
        let (mut phone, session, ok) = proposed();
        phone.side.ua.reject_proposal(session, 200, None, phone.now).unwrap_err();
        phone.side.ua.reject_proposal(session, code, phrase, phone.now).unwrap();
        phone.run();
        let answers = phone.take();
        assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), [format!("{code} INVITE")]);
        ack(&mut phone, 2, &ok);
        let rejected = ["PROPOSED>ESTABLISHED", "RejectedStreamProposal remote Rejected by user"];
        assert_eq!(phone.side.take_log(), rejected);
        assert_eq!(phone.side.media, [], "nothing was opened");
        // Nothing has changed (purpose 50).
        let refresh = phone.ask(&reinvite(3, &ok, &chat_sdp(3, "")));
        assert_eq!(ports(&refresh[0]), ["m=message 2855"]);
    }
}

#[test]
fn a_proposal_that_is_cancelled_is_rejected() {
    let (mut phone, session, ok) = proposed();
    let answers = phone.ask(&reinvite(2, &ok, "").method("CANCEL"));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 CANCEL", "487 INVITE"]);
    let rejected = ["PROPOSED>ESTABLISHED", "RejectedStreamProposal remote Proposal cancelled"];
    assert_eq!(phone.side.take_log(), rejected, "ruling R15");
    let error = phone.side.ua.accept_proposal(session, true, false, phone.now).unwrap_err();
    assert!(matches!(error, VerbError::WrongState { state: SessionState::Established, .. }));
}

#[test]
fn a_proposal_whose_streams_cannot_be_had_is_answered_with_500() {
    let (mut phone, session, _) = proposed();
    phone.side.media_error = Some("no port is free".into());
    phone.side.ua.accept_proposal(session, true, false, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), ["500 INVITE"]);
    let rejected = ["PROPOSED>ESTABLISHED", "RejectedStreamProposal remote no port is free"];
    assert_eq!(phone.side.take_log(), rejected);
}

#[test]
fn a_proposal_rings_until_it_is_decided_and_other_offers_wait() {
    let (mut phone, _, ok) = proposed();
    phone.pass(std::time::Duration::from_secs(61));
    assert_eq!(phone.take_lines(), ["180 INVITE"]);
    let answers = phone.ask(&reinvite(3, &ok, &chat_sdp(3, "")));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["500 INVITE"]);
    let update = Draft::new("UPDATE", "u4").in_dialog(4, &ok).with("Content-Type: application/sdp");
    let answers = phone.ask(&update.body(&chat_sdp(4, "")));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["500 UPDATE"]);
    let refresh = phone.ask(&Draft::new("UPDATE", "u5").in_dialog(5, &ok));
    assert_eq!(refresh.iter().map(first_line).collect::<Vec<_>>(), ["200 UPDATE"]);
}

#[test]
fn the_end_of_the_call_while_proposed_answers_the_reinvite() {
    let (mut phone, _, ok) = proposed();
    let answers = phone.ask(&Draft::new("BYE", "bye").in_dialog(3, &ok));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 BYE", "487 INVITE"]);
    assert_eq!(phone.side.take_log(), ["GotStreamUpdate ", "PROPOSED>TERMINATED", "DidEnd remote"]);
    phone.expect_nothing_left();
    let (mut phone, session, _) = proposed();
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), ["487 INVITE", "BYE"]);
    assert_eq!(phone.side.take_log(), ["PROPOSED>TERMINATING", "WillEnd", "GotStreamUpdate "]);
    phone.expect_nothing_left();
}

#[test]
fn an_update_cannot_ask_a_person() {
    let (mut phone, _, ok) = chat();
    let update = Draft::new("UPDATE", "u2").in_dialog(2, &ok).with("Content-Type: application/sdp");
    let answers = phone.ask(&update.body(&chat_sdp(2, AUDIO)));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["504 UPDATE"]);
    assert_eq!(phone.side.take_log(), NOTHING);
}

#[test]
fn a_stream_nobody_could_run_is_refused_without_a_question() {
    let (mut phone, _, ok) = chat();
    let answers = phone.ask(&reinvite(2, &ok, &chat_sdp(2, "m=audio 6000 RTP/AVP 99\r\nm=video 7000 RTP/AVP 31\r\n")));
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 INVITE"]);
    assert_eq!(ports(&answers[0]), ["m=message 2855", "m=audio 0", "m=video 0"]);
    assert_eq!(phone.side.take_log(), NOTHING);
}
