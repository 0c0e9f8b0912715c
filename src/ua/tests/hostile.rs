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

#[test]
fn a_flood_of_20_000_invites_is_refused_then_ignored_and_a_call_goes_on() {
    let mut phone = Lone::new();
    phone.side.ua.config_mut().max_sessions = 10_000;
    let (_, ok) = phone.talk();
    let (mut refused, mut rang) = (0, 0);
    for number in 0..20_000 {
        let draft = Draft { branch: format!("flood{number}"), number: number + 2, ..Draft::invite() };
        let codes: Vec<_> = phone.ask(&draft).iter().filter_map(Message::status).collect();
        refused += usize::from(codes == [503]);
        rang += usize::from(codes == [180]);
        assert!(codes.len() <= 1, "one answer each: {codes:?}");
    }
    let stats = phone.side.ua.stats();
    assert_eq!(rang, 999, "the rate, and the call before it");
    assert_eq!(refused, 1000, "as many refusals as calls would have been taken");
    assert_eq!((stats.refused_by_rate, stats.silenced), (19_001, 18_001));
    assert_eq!(stats.sessions, 1000);
    let alive = phone.ask(&Draft::new("OPTIONS", "alive").in_dialog(99_999, &ok));
    assert_eq!(alive[0].status(), Some(200), "the call is not hurt");
    phone.pass(Duration::from_millis(500));
    phone.take();
    let later = Draft { branch: "later".into(), number: 30_000, ..Draft::invite() };
    assert_eq!(phone.ask(&later)[0].status(), Some(180), "and half a second later there is room again");
}

#[test]
fn each_limit_of_messages_and_tables_is_counted() {
    let mut phone = Lone::new();
    let count = |phone: &Lone| phone.side.ua.stats();
    // Headers, Via values, the head.
    let many = |line: &str, times: usize| {
        let text = Draft::new("OPTIONS", "many").text();
        text.replace("Content-Length", &format!("{}Content-Length", line.repeat(times)))
    };
    phone.receive(many("X: y\r\n", 300));
    assert_eq!((phone.take_lines(), count(&phone).too_large), (vec!["513 OPTIONS".to_owned()], 1));
    phone.receive(many(&format!("X: {}\r\n", "y".repeat(1000)), 70));
    assert_eq!((phone.take_lines(), count(&phone).too_large), (vec!["513 OPTIONS".to_owned()], 2));
    phone.receive(many("Via: SIP/2.0/UDP 192.0.2.8;branch=z9hG4bKx\r\n", 71));
    assert_eq!((phone.take_lines(), count(&phone).bad_messages), (vec!["400 OPTIONS".to_owned()], 3));
    // Descriptions.
    let media = "m=audio 6000 RTP/AVP 0\r\n".repeat(17);
    phone.ask(&Draft::invite().body(&format!("{SDP}{media}")));
    assert_eq!(count(&phone).bad_descriptions, 1);
    // Sessions.
    let mut phone = Lone::new();
    phone.side.ua.config_mut().max_sessions = 1;
    phone.ask(&Draft::invite());
    let second = Draft { branch: "second".into(), number: 2, ..Draft::invite() };
    assert_eq!(phone.ask(&second)[0].status(), Some(503));
    assert!(phone.side.call("sip:bob@example.com", &[PEER], phone.now).is_err());
    assert_eq!((count(&phone).refused_sessions, count(&phone).refused_by_limit), (2, 2));
    // Half-open calls of one source.
    let mut phone = Lone::new();
    let config = phone.side.ua.config_mut();
    (config.max_sessions, config.invite_rate, config.invite_rate_per_source) = (10_000, 100_000, 100_000);
    for number in 0..4_097 {
        let draft = Draft { branch: format!("half{number}"), number: number + 1, ..Draft::invite() };
        let code = phone.ask(&draft)[0].status();
        assert_eq!(code, Some(if number < 4_096 { 180 } else { 503 }), "{number}");
    }
    assert_eq!((count(&phone).refused_half_open, count(&phone).refused_by_limit), (1, 1));
}
