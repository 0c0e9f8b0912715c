//! Messages nobody should send. Whatever comes, nothing panics, and nothing is left when the time has run out.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::harness::*;
use crate::sip::message::Message;

/// Cuts, repeats, swaps and overwrites pieces of a message.
fn mutate(text: &str, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] = random.random(),
            1 => bytes.truncate(at.max(1)),
            2 => drop(bytes.drain(at..(at + random.random_range(1..30)).min(bytes.len()))),
            3 => {
                let piece = bytes[at..(at + 40).min(bytes.len())].to_vec();
                let to = random.random_range(0..bytes.len());
                bytes.splice(to..to, piece);
            }
            4 => bytes.splice(at..at, *b"\r\n").for_each(drop),
            _ => bytes[at] = *b"\r\n;,<>\":@=?0".get(random.random_range(0..12)).expect("one of them"),
        }
        if bytes.is_empty() {
            bytes.push(b'x');
        }
    }
    bytes
}

#[test]
fn mutated_requests_at_every_stage_of_a_call() {
    let mut random = StdRng::seed_from_u64(20);
    for round in 0..300 {
        let mut phone = Lone::new();
        let ringing = phone.ask(&Draft::invite()).remove(0);
        let session = phone.side.last();
        let drafts: Vec<String> = ["BYE", "CANCEL", "ACK", "UPDATE", "OPTIONS", "INFO", "INVITE", "FLY"]
            .into_iter()
            .map(|method| Draft { branch: format!("m{method}"), ..Draft::invite() }.method(method))
            .map(|draft| draft.in_dialog(random.random_range(0..4), &ringing).text())
            .chain([Draft::invite().text()])
            .collect();
        for stage in 0..4 {
            match stage {
                1 => drop(phone.side.ua.accept(session, true, false, phone.now)),
                2 => phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ringing).text()),
                3 => drop(phone.side.ua.end(session, None, phone.now)),
                _ => {}
            }
            phone.run();
            for _ in 0..6 {
                let draft = &drafts[random.random_range(0..drafts.len())];
                phone.receive(mutate(draft, &mut random));
            }
            phone.pass(Duration::from_millis(random.random_range(0..700)));
        }
        phone.side.ua.shutdown(phone.now);
        phone.pass(Duration::from_secs(200));
        assert!(phone.side.ua.is_idle(), "round {round}: {:?}", phone.side.ua);
    }
}

#[test]
fn mutated_responses_to_our_call() {
    let mut random = StdRng::seed_from_u64(21);
    for round in 0..300 {
        let mut phone = Lone::new();
        let (call, invite) = phone.call();
        for _ in 0..12 {
            let code = [100, 180, 183, 200, 200, 302, 401, 487, 503][random.random_range(0..9)];
            let response = crate::sip::build::Builder::response(&invite, code, "", Some("b"), phone.side.at)
                .header("Contact", "<sip:bob@192.0.2.9>")
                .header("Record-Route", "<sip:192.0.2.200;lr>")
                .finish(Some(("application/sdp", SDP.as_bytes())));
            let text = String::from_utf8(response.to_vec()).expect("text");
            phone.receive(if random.random_bool(0.2) { text.into_bytes() } else { mutate(&text, &mut random) });
        }
        phone.side.ua.end(call, None, phone.now).expect("end() never fails");
        phone.pass(Duration::from_secs(200));
        assert!(phone.side.ua.is_idle(), "round {round}: {:?}", phone.side.ua);
        assert_eq!(phone.side.take_log().iter().filter(|line| line.starts_with("DidEnd")).count(), 1);
    }
}

#[test]
fn five_thousand_half_open_calls_of_one_source_are_limited_and_go_away() {
    let mut phone = Lone::new();
    let config = phone.side.ua.config_mut();
    (config.max_sessions, config.invite_rate, config.invite_rate_per_source) = (16_384, 100_000, 100_000);
    let mut refused = 0;
    for number in 1..=5000 {
        let draft = Draft { number, branch: format!("f{number}"), ..Draft::invite() }.with("Expires: 30");
        refused += u32::from(phone.ask(&draft)[0].status() == Some(503));
    }
    assert_eq!(refused, 5000 - 4096);
    assert_eq!(phone.side.ua.sessions().len(), 4096);
    phone.expect_nothing_left();
}

#[test]
fn a_record_route_without_end_makes_no_call() {
    let mut phone = Lone::new();
    let routes = "Record-Route: ".to_owned() + &["<sip:192.0.2.5;lr>"; 33].join(",");
    let answer = phone.ask(&Draft::invite().with(&routes)).remove(0);
    assert_eq!(answer.status(), Some(400));
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
}

#[test]
fn a_contact_that_is_no_address_to_send_to_does_not_lead_anywhere_else() {
    for contact in ["<sip:bob@0.0.0.0>", "<sip:bob@224.0.0.1>", "<sip:bob@255.255.255.255>", "<sip:bob@host.example>"] {
        let mut phone = Lone::new();
        let mut draft = Draft::invite();
        draft.extra[0] = format!("Contact: {contact}");
        phone.ask(&draft);
        let session = phone.side.last();
        phone.side.ua.accept(session, true, false, phone.now).unwrap();
        phone.run();
        let ok = phone.take().pop().unwrap();
        phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
        phone.side.ua.end(session, None, phone.now).unwrap();
        let flows: Vec<_> = phone.side.drain(phone.now).into_iter().map(|(flow, ..)| flow.remote).collect();
        assert_eq!(flows, [address(PEER)], "{contact}");
    }
}

#[test]
fn text_of_the_application_cannot_break_a_line() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    phone.side.ua.end(session, Some("bye\r\nVia: \"x\" \u{7}"), phone.now).unwrap();
    phone.run();
    let bye: Message = phone.take().remove(0);
    assert_eq!(header(&bye, "Reason"), "SIP;text=\"bye  Via: \\\"x\\\"  \"");
    assert_eq!(bye.header_lines(crate::sip::message::HeaderName::Via).count(), 1);
}
