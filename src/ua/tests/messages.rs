//! MESSAGE in both roles, and its delivery reports.

use std::time::{Duration, UNIX_EPOCH};

use super::harness::*;
use crate::event::{EventKind, RequestId};
use crate::sip::cpim::Cpim;
use crate::sip::imdn::{Disposition, Status, Wanted};
use crate::sip::message::Message;
use crate::ua::messages::{MAX_BODY, SendMessage, SendReport, Wrap};
use crate::ua::{Output, VerbError};

fn plain(text: &str) -> SendMessage {
    SendMessage {
        account: ACCOUNT,
        uri: uri("sip:bob@example.com"),
        routes: vec![route(BOB)],
        content_type: "text/plain".into(),
        body: text.to_owned().into(),
        wrap: None,
    }
}

fn wrapped(text: &str, wanted: &str) -> SendMessage {
    let wrap = Wrap { at: UNIX_EPOCH + Duration::from_secs(60), wanted: Wanted::parse(wanted), subject: None };
    SendMessage { wrap: Some(wrap), ..plain(text) }
}

fn cpim(headers: &str, body: &str) -> Draft {
    let text = format!("From: <sip:bob@example.com>\r\nTo: <sip:alice@example.com>\r\n{headers}\r\n{body}");
    Draft::new("MESSAGE", "m").with("Content-Type: message/cpim").body(&text)
}

fn text(text: &str) -> Draft {
    Draft::new("MESSAGE", "m").with("Content-Type: text/plain").body(text)
}

#[test]
fn a_message_is_delivered_and_its_sender_told() {
    let mut net = Pair::new();
    let (_, id) = net.alice.ua.message(plain("hello"), net.now).unwrap();
    assert_eq!(id, None);
    net.run();
    assert_eq!(net.take_wire(), ["> MESSAGE", "< 200 MESSAGE"]);
    assert_eq!(net.alice.take_log(), ["MessageDidSucceed 200"]);
    assert_eq!(net.bob.take_log(), ["EngineGotMessage sip:alice@example.com text/plain \"hello\""]);
    net.expect_nothing_left();
}

#[test]
fn delivery_and_display_are_reported_when_asked_for() {
    let mut net = Pair::new();
    let (_, id) = net.alice.ua.message(wrapped("grüße", "positive-delivery, display"), net.now).unwrap();
    net.run();
    assert_eq!(net.take_wire(), ["> MESSAGE", "< 200 MESSAGE", "< MESSAGE", "> 200 MESSAGE"]);
    let got = "EngineGotMessage sip:alice@example.com text/plain \"grüße\" [positive-delivery display]";
    assert_eq!(net.bob.take_log(), [got]);
    let report = "MessageDidGetDeliveryReport sip:bob@example.com delivery delivered";
    assert_eq!(net.alice.take_log(), ["MessageDidSucceed 200", report]);

    let report = SendReport {
        account: ACCOUNT,
        uri: uri("sip:alice@example.com"),
        routes: vec![route(ALICE)],
        message_id: id.expect("a message with reports has an id"),
        date_time: String::new(),
        disposition: Disposition::Display,
        status: Status::Displayed,
    };
    net.bob.ua.report(report.clone(), net.now).unwrap();
    net.run();
    assert_eq!(net.bob.take_log(), ["MessageDidSucceed 200"]);
    assert_eq!(net.alice.take_log(), ["MessageDidGetDeliveryReport sip:bob@example.com display displayed"]);
    let nameless = SendReport { message_id: String::new(), ..report };
    assert!(matches!(net.bob.ua.report(nameless, net.now), Err(VerbError::BadArgument(_))));
    net.expect_nothing_left();
}

#[test]
fn the_wrapper_says_who_when_and_what() {
    let mut phone = Lone::new();
    let mut message = wrapped("x", "display");
    message.wrap.as_mut().unwrap().subject = Some("two\r\nlines".into());
    message.routes = vec![route(PEER)];
    let (_, id) = phone.side.ua.message(message, phone.now).unwrap();
    phone.run();
    let sent = phone.take().remove(0);
    assert_eq!(header(&sent, "Content-Type"), "message/cpim");
    assert_eq!(header(&sent, "Contact"), "");
    let wrapper = Cpim::parse(sent.body_bytes()).unwrap();
    assert_eq!(wrapper.from().unwrap().uri, "sip:alice@example.com");
    assert_eq!(wrapper.to().unwrap().uri, "sip:bob@example.com");
    assert_eq!(wrapper.date_time().unwrap().unix, 60.0);
    assert_eq!(wrapper.header("Subject").unwrap().text(), "two\r\nlines");
    assert_eq!(wrapper.imdn("Message-ID"), id);
    assert_eq!(wrapper.imdn("Disposition-Notification").as_deref(), Some("display"));
    assert_eq!((wrapper.content_type(), &wrapper.body[..]), ("text/plain", &b"x"[..]));
    phone.respond(&sent, 200, "t", &[], "");
    phone.expect_nothing_left();
}

#[test]
fn what_cannot_be_delivered_fails_with_the_code() {
    let mut phone = Lone::new();
    for (code, log) in [(404, "MessageDidFail 404 Not Found"), (202, "MessageDidSucceed 202")] {
        phone.side.ua.message(SendMessage { routes: vec![route(PEER)], ..plain("x") }, phone.now).unwrap();
        phone.run();
        let sent = phone.take().remove(0);
        phone.respond(&sent, code, "t", &[], "");
        assert_eq!(phone.side.take_log(), [log]);
    }
    phone.side.ua.message(SendMessage { routes: vec![route(PEER)], ..plain("x") }, phone.now).unwrap();
    phone.pass(Duration::from_secs(33));
    assert_eq!(phone.side.take_log(), ["MessageDidFail 408 Request Timeout"]);
    phone.expect_nothing_left();
}

#[test]
fn what_cannot_be_sent_is_said_at_once() {
    let mut phone = Lone::new();
    let cases = [
        SendMessage { content_type: "text".into(), ..plain("x") },
        SendMessage { content_type: "text/plain\r\nEvil: 1".into(), ..plain("x") },
        SendMessage { uri: uri("tel:+1"), ..plain("x") },
        SendMessage { body: vec![0; MAX_BODY + 1].into(), ..plain("") },
    ];
    for message in cases {
        let refused = phone.side.ua.message(message.clone(), phone.now);
        assert!(matches!(refused, Err(VerbError::BadArgument(_))), "{message:?}");
    }
    let stranger = SendMessage { account: crate::event::AccountId(99), ..plain("x") };
    assert!(matches!(phone.side.ua.message(stranger, phone.now), Err(VerbError::UnknownAccount(_))));
    assert!(phone.side.ua.is_idle());
}

#[test]
fn incoming_messages_are_taken_or_refused_with_the_right_code() {
    let got = |rest: &str| format!("EngineGotMessage sip:bob@example.com {rest}");
    let imdn = "Content-Type: message/imdn+xml\r\n\r\n<imdn><message-id>7</message-id><display-notification><status>\
                <displayed/></status></display-notification></imdn>";
    let table: Vec<(&str, Draft, &str, Option<String>)> = vec![
        ("plain", text("hi"), "200", Some(got("text/plain \"hi\""))),
        ("empty", Draft::new("MESSAGE", "m"), "200", Some(got("text/plain \"\""))),
        ("any type", Draft::new("MESSAGE", "m").with("c: x/y;z=1").body("b"), "200", Some(got("x/y;z=1 \"b\""))),
        ("CPIM", cpim("", "Content-Type: text/html\r\n\r\n<p>"), "200", Some(got("text/html \"<p>\""))),
        (
            "a report",
            cpim("NS: imdn <urn:ietf:params:imdn>\r\n", imdn),
            "200",
            Some("MessageDidGetDeliveryReport sip:bob@example.com display displayed".into()),
        ),
        ("a report that is none", cpim("", "Content-Type: message/imdn+xml\r\n\r\n<x/>"), "400", None),
        ("CPIM that is none", Draft::new("MESSAGE", "m").with("c: message/cpim").body("hello"), "400", None),
        ("CPIM with unknown demands", cpim("Require: x.Y\r\n", "Content-Type: a/b\r\n\r\n"), "415", None),
        ("a bad type", Draft::new("MESSAGE", "m").with("c: text").body("b"), "400", None),
        ("packed", text("x").with("Content-Encoding: gzip"), "415", None),
        ("too large", text(&"x".repeat(MAX_BODY + 1)), "413", None),
        ("for nobody here", Draft { uri: "sip:carol@192.0.2.1", ..text("x") }, "404", None),
        ("for a telephone", Draft { uri: "tel:+1234", ..text("x") }, "416", None),
        ("with demands", text("x").with("Require: magic"), "420", None),
        ("in no dialog", Draft { to_tag: Some("gone".into()), ..text("x") }, "481", None),
    ];
    for (what, draft, code, event) in table {
        let mut phone = Lone::new();
        let answers = phone.ask(&draft);
        let lines: Vec<String> = answers.iter().map(first_line).collect();
        assert_eq!(lines, [format!("{code} MESSAGE")], "{what}");
        assert_eq!(phone.side.take_log(), Vec::from_iter(event), "{what}");
        assert!(answers[0].body().is_empty(), "{what}");
        phone.expect_nothing_left();
    }
    let mut phone = Lone::new();
    phone.side.ua.config_mut().accepts_messages = false;
    assert_eq!(phone.ask(&text("x"))[0].status(), Some(480));
    assert!(phone.side.take_log().is_empty());
}

#[test]
fn bytes_that_are_no_text_arrive_as_they_are() {
    let mut net = Pair::new();
    let body: Vec<u8> = (0..=255).collect();
    let message =
        SendMessage { content_type: "application/octet-stream".into(), body: body.clone().into(), ..plain("") };
    net.alice.ua.message(message, net.now).unwrap();
    for (flow, bytes, _) in net.alice.drain(net.now) {
        let message = Message::parse(bytes).unwrap();
        net.bob.ua.handle_message(message, crate::sip::transport::Flow { remote: address(ALICE), ..flow }, net.now);
    }
    let mut contents = Vec::new();
    while let Some(output) = net.bob.ua.poll_output() {
        if let Output::Event(event) = output
            && let EventKind::EngineGotMessage { content, .. } = event.kind
        {
            contents.push(content);
        }
    }
    assert_eq!(contents, [body]);
}

#[test]
fn a_message_in_a_call_names_the_call() {
    let mut phone = Lone::new();
    let (_, ok) = phone.talk();
    let answers = phone.ask(&text("psst").in_dialog(5, &ok));
    assert_eq!(answers[0].status(), Some(200));
    assert_eq!(phone.side.take_log(), ["EngineGotMessage sip:bob@example.com text/plain \"psst\" in a call"]);
    let late = Draft { branch: "late".into(), ..text("late") };
    assert_eq!(phone.ask(&late.in_dialog(4, &ok))[0].status(), Some(500));
    assert!(phone.side.take_log().is_empty());
}

#[test]
fn a_flood_meets_503_then_silence_and_calls_are_not_hurt() {
    let mut phone = Lone::new();
    (phone.side.ua.config_mut().invite_rate, phone.side.ua.config_mut().invite_rate_per_source) = (10, 10);
    let mut codes = Vec::new();
    for number in 0..40 {
        let draft = Draft { branch: format!("m{number}"), ..text("x") };
        codes.push(phone.ask(&draft).first().and_then(Message::status));
    }
    let count = |code| codes.iter().filter(|&&one| one == code).count();
    assert_eq!((count(Some(200)), count(Some(503)), count(None)), (10, 10, 20));
    assert_eq!(phone.side.ua.stats().refused_by_rate, 30);
    assert_eq!(first_line(&phone.ask(&Draft::invite())[0]), "180 INVITE");
}

#[test]
fn nobody_is_sent_more_reports_than_are_answered() {
    let mut phone = Lone::new();
    let headers = "NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: 7\r\n\
                   imdn.Disposition-Notification: positive-delivery\r\n";
    let mut reports = Vec::new();
    for number in 0..30 {
        let draft = Draft { branch: format!("m{number}"), ..cpim(headers, "Content-Type: a/b\r\n\r\n") };
        reports.extend(phone.ask(&draft).into_iter().filter(Message::is_request));
    }
    assert_eq!(reports.len(), 16);
    assert_eq!(phone.side.ua.stats().refused_by_limit, 14);
    phone.respond(&reports[0], 200, "t", &[], "");
    let draft = Draft { branch: "again".into(), ..cpim(headers, "Content-Type: a/b\r\n\r\n") };
    assert_eq!(phone.ask(&draft).into_iter().filter(Message::is_request).count(), 1);
    assert!(phone.side.take_log().iter().all(|line| line.starts_with("EngineGotMessage")));
    phone.expect_nothing_left();
}

#[test]
fn requests_have_numbers_of_their_own() {
    let mut net = Pair::new();
    let numbers: Vec<RequestId> = (0..3).map(|_| net.alice.ua.message(plain("x"), net.now).unwrap().0).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next));
    net.run();
    assert_eq!(net.bob.take_log().len(), 3);
    net.expect_nothing_left();
}
