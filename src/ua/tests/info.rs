//! INFO inside a call, in both roles (RFC 6086).

use std::time::Duration;

use bytes::Bytes;

use super::harness::*;
use crate::event::SessionId;
use crate::media::MediaCommand;
use crate::sip::message::Message;
use crate::ua::{AccountSettings, VerbError};

const RELAY: &str = "Content-Type: application/dtmf-relay";

fn info(number: u32, ok: &Message) -> Draft {
    Draft::new("INFO", &format!("info{number}")).in_dialog(number, ok)
}

/// What is answered, with this header of it.
fn answer(phone: &mut Lone, draft: &Draft, name: &str) -> (u16, String) {
    let answers = phone.ask(draft);
    assert_eq!(answers.len(), 1);
    (answers[0].status().expect("a response"), header(&answers[0], name))
}

#[test]
fn a_digit_is_a_digit_whatever_way_it_comes() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    for (number, (kind, body)) in (2..).zip([
        ("application/dtmf-relay", "Signal=2\r\nDuration=100"),
        ("application/dtmf-relay;charset=utf-8", "Signal= #\r\n"),
        ("application/dtmf", "7"),
    ]) {
        let draft = info(number, &ok).with(&format!("Content-Type: {kind}")).body(body);
        assert_eq!(answer(&mut phone, &draft, "Warning").0, 200);
        assert_eq!(phone.take_lines(), Vec::<String>::new());
        phone.ask(&draft); // the same again is the same one
    }
    assert_eq!(phone.side.take_log(), ["GotDTMF 2", "GotDTMF #", "GotDTMF 7"]);
}

#[test]
fn at_most_twenty_digits_a_second_get_through() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    let mut codes = Vec::new();
    for number in 2..102 {
        let draft = info(number, &ok).with(RELAY).body("Signal=5");
        codes.push(answer(&mut phone, &draft, "Retry-After"));
    }
    assert_eq!(codes.iter().filter(|(code, _)| *code == 200).count(), 20);
    assert_eq!(codes.last(), Some(&(500, "1".into())));
    assert_eq!(phone.side.take_log(), ["GotDTMF 5"; 20]);
    phone.pass(Duration::from_secs(1));
    assert_eq!(answer(&mut phone, &info(102, &ok).with(RELAY).body("Signal=6"), "").0, 200);
    assert_eq!(phone.side.take_log(), ["GotDTMF 6"]);
}

#[test]
fn anything_else_is_for_the_application() {
    let mut phone = Lone::new();
    phone.side.ua.set_account(
        ACCOUNT,
        AccountSettings {
            info_packages: vec!["x-chess".into(), "x-go".into()],
            ..AccountSettings::new(uri("sip:alice@example.com"))
        },
    );
    let (_, ok) = phone.talk();
    assert_eq!(header(&ok, "Recv-Info"), "x-chess, x-go");
    let text = "Content-Type: text/plain";
    let package = |draft: Draft, name: &str| draft.with(&format!("Info-Package: {name}"));
    let table: [(Draft, u16, &str, &str); 11] = [
        (info(2, &ok).with(text).body("hello"), 200, "", ""),
        (info(3, &ok), 200, "", ""),
        (info(4, &ok).with(RELAY).body("Signal=!"), 200, "", ""),
        (package(info(5, &ok), "x-chess;v=1").with(text).body("e4"), 200, "", ""),
        (package(info(6, &ok), "x-go"), 200, "", ""),
        (package(info(7, &ok), "x-dice"), 469, "Recv-Info", "x-chess, x-go"),
        (package(info(8, &ok), "x go"), 400, "", ""),
        (package(package(info(9, &ok), "x-go"), "x-go"), 400, "", ""),
        (info(10, &ok).body("what is it?"), 415, "Accept", "*/*"),
        (info(11, &ok).with("Content-Type: nonsense").body("x"), 415, "Accept", "*/*"),
        (info(12, &ok).with(text).with("Content-Encoding: gzip").body("x"), 415, "Accept-Encoding", "identity"),
    ];
    for (draft, code, name, value) in table {
        assert_eq!(answer(&mut phone, &draft, name), (code, value.into()), "{}", draft.text());
    }
    assert_eq!(
        phone.side.take_log(),
        [
            "GotInfo text/plain \"hello\"",
            "GotInfo application/dtmf-relay \"Signal=!\"",
            "GotInfo text/plain \"e4\" of x-chess",
            "GotInfo  \"\" of x-go",
        ]
    );
}

#[test]
fn a_flood_of_them_is_slowed_down() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    let mut refused = 0;
    for number in 2..202 {
        let draft = info(number, &ok).with("Content-Type: text/plain").body("x");
        refused += usize::from(answer(&mut phone, &draft, "").0 == 500);
    }
    assert_eq!((refused, phone.side.take_log().len()), (150, 50));
}

#[test]
fn outside_of_a_call_there_is_none() {
    let mut phone = Lone::new();
    assert_eq!(answer(&mut phone, &Draft::new("INFO", "stray"), "").0, 481);
}

fn send(phone: &mut Lone, session: SessionId, body: &str, package: Option<&str>) -> Result<Message, VerbError> {
    let now = phone.now;
    phone.side.ua.send_info(session, Bytes::copy_from_slice(body.as_bytes()), "text/plain", package, now)?;
    phone.run();
    Ok(phone.take().pop().expect("an INFO"))
}

#[test]
fn ours_have_an_outcome_each() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    for (number, (code, outcome)) in (1..).zip([
        (200, "DidDeliverInfo 200 OK"),
        (415, "DidNotDeliverInfo 415 Unsupported Media Type"),
        (469, "DidNotDeliverInfo 469 Bad Info Package"),
    ]) {
        let request = send(&mut phone, session, "hello", None).unwrap();
        assert_eq!(header(&request, "CSeq"), format!("{number} INFO"));
        assert_eq!(header(&request, "Content-Type"), "text/plain");
        assert_eq!(request.body(), b"hello");
        phone.respond(&request, code, "peer", &[], "");
        assert_eq!(phone.side.take_log(), [outcome]);
    }
    let empty = send(&mut phone, session, "", None).unwrap();
    assert_eq!((empty.body(), header(&empty, "Content-Type")), (&b""[..], String::new()));
    phone.side.ua.end(session, None, phone.now).unwrap();
    phone.run();
    let log = phone.side.take_log();
    assert_eq!(log[..3], ["ESTABLISHED>TERMINATING", "WillEnd", "DidNotDeliverInfo 487 the call ended first"]);
    phone.respond(&empty, 200, "peer", &[], "");
    assert!(!phone.side.take_log().iter().any(|line| line.contains("Info")), "there was an outcome already");
}

#[test]
fn a_peer_gets_only_what_it_takes() {
    let mut phone = Lone::new();
    let invite = Draft::invite().with("Allow: INVITE, ACK, BYE, INFO").with("Recv-Info: x-chess;v=2, x-go");
    phone.ask(&invite);
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().pop().unwrap();
    phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
    let request = send(&mut phone, session, "e4", Some("x-chess")).unwrap();
    assert_eq!(header(&request, "Info-Package"), "x-chess");
    assert_eq!(header(&request, "Content-Disposition"), "Info-Package");
    let error = send(&mut phone, session, "6", Some("x-dice")).unwrap_err();
    let why = "send_info() is not possible now: the peer does not take info package x-dice, but: x-chess;v=2, x-go";
    assert_eq!(error.to_string(), why);
    for (kind, package) in [("nonsense", None), ("text/plain\r\nX: y", None), ("text/plain", Some("x go"))] {
        let error = phone.side.ua.send_info(session, Bytes::new(), kind, package, phone.now).unwrap_err();
        assert!(matches!(error, VerbError::BadArgument(_)), "{error}");
    }

    let mut phone = Lone::new();
    phone.ask(&Draft::invite().with("Allow: INVITE, ACK, BYE"));
    let session = phone.side.last();
    phone.side.ua.accept(session, true, false, phone.now).unwrap();
    phone.run();
    let ok = phone.take().pop().unwrap();
    phone.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
    assert!(matches!(send(&mut phone, session, "x", None), Err(VerbError::NotPossible { .. })));
    // The SDP of this peer has no telephone events either.
    let error = phone.side.ua.send_dtmf(session, '5', phone.now).unwrap_err();
    assert!(error.to_string().contains("neither as telephone events nor in INFO"), "{error}");
}

#[test]
fn digits_go_in_info_where_there_are_no_telephone_events() {
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    phone.side.ua.send_dtmf(session, '#', phone.now).unwrap();
    phone.run();
    let request = phone.take().pop().expect("an INFO");
    assert_eq!(
        (first_line(&request), header(&request, "Content-Type")),
        ("INFO".into(), "application/dtmf-relay".into())
    );
    assert_eq!(request.body(), b"Signal=#\r\nDuration=100\r\n");
    assert!(!phone.side.media.contains(&MediaCommand::SendDtmf('#')));
    phone.respond(&request, 200, "peer", &[], "");
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
}
