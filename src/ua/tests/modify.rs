//! Changes of ours to a call that is up: hold and resume, glare, refusals, and what crosses them.

use std::time::Duration;

use super::harness::*;
use crate::event::SessionId;
use crate::media::{Direction, MediaCommand};
use crate::sip::message::Message;

const LOCAL_HOLD: &str = "GotHoldRequest local";
const LOCAL_UNHOLD: &str = "GotUnholdRequest local";
const REMOTE_HOLD: &str = "GotHoldRequest remote";
const REMOTE_UNHOLD: &str = "GotUnholdRequest remote";
const NOTHING: [&str; 0] = [];

fn direction(side: &Side) -> Direction {
    let started = side.media.iter().rev().find_map(|command| match command {
        MediaCommand::Start(params) => Some(params.direction),
        _ => None,
    });
    started.expect("the stream was started or changed")
}

fn says(message: &Message, what: &str) -> bool {
    String::from_utf8_lossy(message.body()).contains(what)
}

/// The o= version of a message's SDP.
fn version(message: &Message) -> u64 {
    let body = String::from_utf8_lossy(message.body()).into_owned();
    let origin = body.lines().find(|line| line.starts_with("o=")).expect("an o= line");
    origin.split(' ').nth(2).expect("a version").parse().expect("a number")
}

impl Pair {
    fn hold(&mut self, who: char, session: SessionId, hold: bool) {
        let side = if who == 'a' { &mut self.alice } else { &mut self.bob };
        side.ua.hold(session, hold, self.now).expect("allowed");
    }

    fn logs(&mut self) -> [Vec<String>; 2] {
        [self.alice.take_log(), self.bob.take_log()]
    }

    fn holds(&self) -> [(bool, bool); 2] {
        [&self.alice, &self.bob].map(|side| (side.snapshot().on_hold_by_local, side.snapshot().on_hold_by_remote))
    }
}

/// Our re-INVITE for a hold.
fn held(phone: &mut Lone, session: SessionId, hold: bool) -> Message {
    phone.side.ua.hold(session, hold, phone.now).expect("allowed");
    phone.run();
    let mut sent = phone.take();
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent.remove(0)
}

fn answer_with(phone: &mut Lone, invite: &Message, direction: &str, version: u32) {
    phone.respond(invite, 200, "peer", &["Contact: <sip:bob@192.0.2.9>"], &sdp(version, direction));
}

#[test]
fn hold_and_resume_are_one_reinvite_each() {
    let mut pair = Pair::new();
    let (alice, _) = pair.talk();
    pair.hold('a', alice, true);
    pair.run();
    assert_eq!(pair.take_wire(), ["> INVITE", "< 200 INVITE", "> ACK"]);
    assert_eq!(pair.logs(), [[LOCAL_HOLD], [REMOTE_HOLD]]);
    assert_eq!(pair.holds(), [(true, false), (false, true)]);
    assert_eq!([direction(&pair.alice), direction(&pair.bob)], [Direction::SendOnly, Direction::RecvOnly]);
    assert!(pair.alice.media.contains(&MediaCommand::Hold(true)));
    assert!(!pair.bob.media.contains(&MediaCommand::Hold(true)));
    pair.hold('a', alice, false);
    pair.run();
    assert_eq!(pair.take_wire(), ["> INVITE", "< 200 INVITE", "> ACK"]);
    assert_eq!(pair.logs(), [[LOCAL_UNHOLD], [REMOTE_UNHOLD]]);
    assert_eq!(pair.holds(), [(false, false); 2]);
    assert_eq!([direction(&pair.alice), direction(&pair.bob)], [Direction::SendRecv; 2]);
    assert!(pair.alice.media.contains(&MediaCommand::Hold(false)));
}

#[test]
fn hold_twice_is_one_change_and_unhold_without_hold_is_none() {
    let mut pair = Pair::new();
    let (alice, _) = pair.talk();
    pair.hold('a', alice, false);
    pair.run();
    assert_eq!(pair.take_wire(), NOTHING);
    pair.hold('a', alice, true);
    pair.hold('a', alice, true);
    pair.run();
    pair.hold('a', alice, true);
    pair.run();
    assert_eq!(pair.take_wire(), ["> INVITE", "< 200 INVITE", "> ACK"]);
    assert_eq!(pair.logs(), [[LOCAL_HOLD], [REMOTE_HOLD]]);
}

#[test]
fn what_is_asked_while_an_offer_is_open_is_told_after_it_and_only_what_is_left_of_it() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let first = held(&mut phone, session, true);
    phone.side.ua.hold(session, false, phone.now).unwrap();
    phone.side.ua.hold(session, true, phone.now).unwrap();
    phone.side.ua.hold(session, false, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), NOTHING, "one at a time");
    assert_eq!(phone.side.take_log(), [LOCAL_HOLD]);
    answer_with(&mut phone, &first, "recvonly", 2);
    let sent = phone.take();
    assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["ACK", "INVITE"]);
    assert!(says(&first, "a=sendonly") && says(&sent[1], "a=sendrecv"));
    assert_eq!(version(&sent[1]), version(&first) + 1);
    assert_eq!(phone.side.take_log(), [LOCAL_UNHOLD]);
    // The second ends where it began: nothing more to tell.
    phone.side.ua.hold(session, true, phone.now).unwrap();
    phone.side.ua.hold(session, false, phone.now).unwrap();
    answer_with(&mut phone, &sent[1], "sendrecv", 3);
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert_eq!(phone.side.take_log(), NOTHING);
}

#[test]
fn directions_of_both_holding_and_resuming_follow_rfc_3264() {
    let mut pair = Pair::new();
    let (alice, bob) = pair.talk();
    type OnHold = [(bool, bool); 2];
    let steps: [(char, bool, OnHold, [Direction; 2]); 8] = [
        ('b', true, [(false, true), (true, false)], [Direction::RecvOnly, Direction::SendOnly]),
        ('a', true, [(true, true), (true, true)], [Direction::Inactive; 2]),
        ('b', false, [(true, false), (false, true)], [Direction::SendOnly, Direction::RecvOnly]),
        ('a', false, [(false, false); 2], [Direction::SendRecv; 2]),
        ('a', true, [(true, false), (false, true)], [Direction::SendOnly, Direction::RecvOnly]),
        ('b', true, [(true, true); 2], [Direction::Inactive; 2]),
        ('b', false, [(true, false), (false, true)], [Direction::SendOnly, Direction::RecvOnly]),
        ('a', false, [(false, false); 2], [Direction::SendRecv; 2]),
    ];
    for (step, (who, hold, holds, directions)) in steps.into_iter().enumerate() {
        pair.hold(who, if who == 'a' { alice } else { bob }, hold);
        pair.run();
        assert_eq!(pair.holds(), holds, "step {step}");
        assert_eq!([direction(&pair.alice), direction(&pair.bob)], directions, "step {step}");
        let heard = match (who, hold) {
            ('a', true) => [LOCAL_HOLD, REMOTE_HOLD],
            ('a', false) => [LOCAL_UNHOLD, REMOTE_UNHOLD],
            (_, true) => [REMOTE_HOLD, LOCAL_HOLD],
            (_, false) => [REMOTE_UNHOLD, LOCAL_UNHOLD],
        };
        assert_eq!(pair.logs(), heard.map(|line| vec![line]), "step {step}");
    }
    assert_eq!(pair.take_wire().len(), 8 * 3);
}

#[test]
fn a_peer_that_answers_a_hold_with_inactive_is_offered_sound_again() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let hold = held(&mut phone, session, true);
    answer_with(&mut phone, &hold, "inactive", 2);
    phone.take();
    let resume = held(&mut phone, session, false);
    assert!(says(&resume, "a=sendrecv"));
    answer_with(&mut phone, &resume, "sendrecv", 3);
    assert_eq!(phone.side.take_log(), [LOCAL_HOLD, REMOTE_HOLD, LOCAL_UNHOLD, REMOTE_UNHOLD]);
}

#[test]
fn a_refused_hold_stays_a_hold_for_us() {
    for code in [488, 403, 500, 503, 606] {
        let mut phone = Lone::new();
        let (session, ok) = phone.talk();
        let hold = held(&mut phone, session, true);
        phone.respond(&hold, code, "peer", &[], "");
        assert_eq!(phone.take_lines(), ["ACK"], "{code}");
        assert_eq!(phone.side.take_log(), [LOCAL_HOLD], "ruling R10");
        assert!(phone.side.snapshot().on_hold_by_local);
        phone.pass(Duration::from_secs(60));
        assert_eq!(phone.take_lines(), NOTHING);
        // What we answer says that we hold.
        let refresh = Draft::new("INVITE", "i2").in_dialog(2, &ok).with("Content-Type: application/sdp");
        let answers = phone.ask(&refresh.body(&sdp(2, "sendrecv")));
        assert!(says(&answers[0], "a=sendonly"));
        phone.receive(Draft::new("ACK", "a2").in_dialog(2, &ok).text());
        let resume = held(&mut phone, session, false);
        assert!(says(&resume, "a=sendrecv"));
        answer_with(&mut phone, &resume, "sendrecv", 3);
        assert_eq!(phone.side.take_log(), [LOCAL_UNHOLD]);
    }
}

#[test]
fn glare_is_491_both_ways_and_whoever_called_waits_longer() {
    let mut pair = Pair::new();
    let (alice, bob) = pair.talk();
    pair.hold('a', alice, true);
    pair.hold('b', bob, true);
    pair.run();
    let mut wire = pair.take_wire();
    wire.sort_unstable();
    assert_eq!(wire, ["< 491 INVITE", "< ACK", "< INVITE", "> 491 INVITE", "> ACK", "> INVITE"]);
    assert_eq!(pair.logs(), [[LOCAL_HOLD], [LOCAL_HOLD]]);
    pair.pass(Duration::from_millis(2_050));
    assert_eq!(pair.take_wire(), ["< INVITE", "> 200 INVITE", "< ACK"], "0 to 2 s");
    assert_eq!(pair.logs(), [vec![REMOTE_HOLD], vec![REMOTE_HOLD]], "Alice's answer tells that she holds too");
    pair.pass(Duration::from_millis(2_000));
    assert_eq!(pair.take_wire(), ["> INVITE", "< 200 INVITE", "> ACK"], "2.1 to 4 s");
    assert_eq!(pair.logs(), [NOTHING; 2]);
    assert_eq!(pair.holds(), [(true, true); 2]);
    assert_eq!([direction(&pair.alice), direction(&pair.bob)], [Direction::Inactive; 2]);
    pair.alice.ua.end(alice, None, pair.now).unwrap();
    pair.expect_nothing_left();
}

#[test]
fn the_pause_after_491_is_in_the_range_of_rfc_3261_14_1() {
    for (caller, range) in [(true, 2_100..=4_000), (false, 0..=2_000)] {
        let mut phone = Lone::new();
        let session = if caller {
            let (session, invite) = phone.call();
            phone.respond(&invite, 200, "peer", &["Contact: <sip:bob@192.0.2.9>"], SDP);
            phone.take();
            session
        } else {
            phone.talk().0
        };
        let mut invite = held(&mut phone, session, true);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            phone.respond(&invite, 491, "peer", &[], "");
            assert_eq!(phone.take_lines(), ["ACK"]);
            let before = phone.now;
            let at = loop {
                phone.pass(Duration::from_millis(10));
                if let Some(again) = phone.take().pop() {
                    invite = again;
                    break phone.now;
                }
            };
            pauses.push(at.duration_since(before).as_millis());
        }
        assert!(pauses.iter().all(|pause| range.contains(pause)), "{pauses:?}");
        pauses.dedup();
        assert!(pauses.len() > 3, "{pauses:?}");
        // Enough is enough.
        phone.respond(&invite, 491, "peer", &[], "");
        phone.take();
        phone.pass(Duration::from_secs(30));
        assert_eq!(phone.take_lines(), NOTHING);
        assert!(phone.side.snapshot().on_hold_by_local);
    }
}

#[test]
fn a_peer_that_asks_for_time_gets_it() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let hold = held(&mut phone, session, true);
    phone.respond(&hold, 500, "peer", &["Retry-After: 3"], "");
    assert_eq!(phone.take_lines(), ["ACK"]);
    phone.pass(Duration::from_millis(2_990));
    assert_eq!(phone.take_lines(), NOTHING);
    phone.pass(Duration::from_millis(520));
    assert_eq!(phone.take_lines(), ["INVITE"]);
    assert_eq!(phone.side.take_log(), [LOCAL_HOLD]);
}

#[test]
fn the_application_may_change_its_mind_while_it_waits() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let hold = held(&mut phone, session, true);
    phone.respond(&hold, 491, "peer", &[], "");
    phone.take();
    phone.side.ua.hold(session, false, phone.now).unwrap();
    phone.pass(Duration::from_millis(2_010));
    let again = phone.take().remove(0);
    assert!(says(&again, "a=sendrecv"));
    assert_eq!(phone.side.take_log(), [LOCAL_HOLD, LOCAL_UNHOLD]);
}

#[test]
fn their_offer_while_ours_is_open_is_491_and_ours_waits_for_the_ack_to_theirs() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let hold = held(&mut phone, session, true);
    for (number, method) in [(2, "INVITE"), (3, "UPDATE")] {
        let offer = Draft::new(method, method).in_dialog(number, &ok).with("Content-Type: application/sdp");
        let answers = phone.ask(&offer.body(&sdp(2, "sendonly")));
        assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), [format!("491 {method}")]);
    }
    phone.receive(Draft::new("ACK", "INVITE").in_dialog(2, &ok).text());
    answer_with(&mut phone, &hold, "recvonly", 2);
    phone.take();
    let offer = Draft::new("INVITE", "i4").in_dialog(4, &ok).with("Content-Type: application/sdp");
    phone.ask(&offer.body(&sdp(3, "recvonly")));
    phone.side.ua.hold(session, false, phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), NOTHING, "theirs is not acknowledged");
    phone.receive(Draft::new("ACK", "a4").in_dialog(4, &ok).text());
    assert_eq!(phone.take_lines(), ["INVITE"]);
}

#[test]
fn every_2xx_of_a_reinvite_is_acknowledged_again() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let hold = held(&mut phone, session, true);
    for _ in 0..3 {
        answer_with(&mut phone, &hold, "recvonly", 2);
        let acks = phone.take();
        assert_eq!(acks.iter().map(first_line).collect::<Vec<_>>(), ["ACK"]);
        assert_eq!(header(&acks[0], "CSeq").split(' ').next(), header(&hold, "CSeq").split(' ').next());
    }
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.run();
    phone.take();
    answer_with(&mut phone, &hold, "recvonly", 2);
    assert_eq!(phone.take_lines(), ["ACK"], "after the call too");
    phone.expect_nothing_left();
}

#[test]
fn silence_or_481_to_a_hold_ends_the_call() {
    for answer in [Some(481), Some(408), None] {
        let mut phone = Lone::new();
        let (session, _) = phone.talk();
        let hold = held(&mut phone, session, true);
        match answer {
            Some(code) => phone.respond(&hold, code, "peer", &[], ""),
            None => phone.pass(Duration::from_secs(33)),
        }
        assert_eq!(phone.take_lines().last().unwrap(), "BYE");
        let log = phone.side.take_log();
        assert_eq!(log[..3], [LOCAL_HOLD, "GotStreamUpdate ", "ESTABLISHED>TERMINATED"]);
        assert!(log[3].starts_with("DidEnd "), "{log:?}");
        assert_eq!(log.len(), 4);
        phone.expect_nothing_left();
    }
}

#[test]
fn bye_of_the_peer_while_ours_is_open_ends_the_call() {
    let mut phone = Lone::new();
    let (session, ok) = phone.talk();
    let hold = held(&mut phone, session, true);
    phone.respond(&hold, 100, "peer", &[], "");
    assert_eq!(phone.ask(&Draft::new("BYE", "bye").in_dialog(2, &ok)).len(), 2, "200 and a CANCEL");
    phone.respond(&hold, 487, "peer", &[], "");
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert_eq!(phone.side.take_log(), [LOCAL_HOLD, "GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd remote"]);
    phone.expect_nothing_left();
}

#[test]
fn end_while_ours_is_open_sends_bye_and_a_late_200_gets_its_ack() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let hold = held(&mut phone, session, true);
    phone.respond(&hold, 100, "peer", &[], "");
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.run();
    let sent = phone.take();
    assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["CANCEL", "BYE"]);
    answer_with(&mut phone, &hold, "recvonly", 2);
    assert_eq!(phone.take_lines(), ["ACK"]);
    phone.respond(&sent[1], 200, "peer", &[], "");
    answer_with(&mut phone, &hold, "recvonly", 2);
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert_eq!(phone.side.take_log().last().unwrap(), "DidEnd local");
    phone.expect_nothing_left();
}

#[test]
fn an_answer_that_cannot_be_used_keeps_the_old_session() {
    for body in ["", "v=0\r\nwhat\r\n", &SDP.replace("AVP 0", "AVP 99")] {
        let mut phone = Lone::new();
        let (session, ok) = phone.talk();
        let hold = held(&mut phone, session, true);
        phone.respond(&hold, 200, "peer", &["Contact: <sip:bob@192.0.2.9>"], body);
        assert_eq!(phone.take_lines(), ["ACK"]);
        assert!(!phone.side.media.iter().any(|command| matches!(command, MediaCommand::Start(_))));
        assert_eq!(phone.side.ua.sessions(), [session]);
        let offer = Draft::new("INVITE", "i2").in_dialog(2, &ok).with("Content-Type: application/sdp");
        assert_eq!(phone.ask(&offer.body(&sdp(2, "sendrecv"))).len(), 1);
    }
}

#[test]
fn a_peer_that_answers_with_port_0_takes_the_stream_away() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let hold = held(&mut phone, session, true);
    let without = sdp(2, "recvonly").replace("m=audio 6000", "m=audio 0");
    phone.respond(&hold, 200, "peer", &["Contact: <sip:bob@192.0.2.9>"], &without);
    assert_eq!(phone.side.take_log(), [LOCAL_HOLD, "GotStreamUpdate "]);
    assert!(phone.side.ua.hold(session, false, phone.now).is_err(), "nothing to resume");
}

#[test]
fn a_2xx_moves_the_target_and_its_ack_goes_there() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let hold = held(&mut phone, session, true);
    phone.respond(&hold, 200, "peer", &["Contact: <sip:bob@192.0.2.99:5090>"], &sdp(2, "recvonly"));
    assert_eq!(phone.take()[0].request_uri_raw(), b"sip:bob@192.0.2.99:5090");
}

#[test]
fn our_hold_pauses_a_recording() {
    use crate::media::RecordingLayout::Mix;
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    phone.side.ua.start_recording(session, "/tmp/a.wav".into(), Mix, phone.now).unwrap();
    phone.run();
    phone.side.take_log();
    let hold = held(&mut phone, session, true);
    assert_eq!(phone.side.media.last(), Some(&MediaCommand::PauseRecording));
    answer_with(&mut phone, &hold, "recvonly", 2);
    phone.take();
    held(&mut phone, session, false);
    assert_eq!(phone.side.media.last(), Some(&MediaCommand::ResumeRecording));
    assert_eq!(phone.side.take_log(), [LOCAL_HOLD, LOCAL_UNHOLD]);
}

#[test]
fn a_reinvite_that_rings_for_ever_is_cancelled() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    let hold = held(&mut phone, session, true);
    phone.respond(&hold, 180, "peer", &[], "");
    phone.pass(Duration::from_secs(179));
    assert_eq!(phone.take_lines(), NOTHING);
    phone.pass(Duration::from_millis(1_100));
    assert_eq!(phone.take_lines(), ["CANCEL"]);
    phone.respond(&hold, 487, "peer", &[], "");
    assert_eq!(phone.side.ua.sessions(), [session]);
}
