//! Routes tried in order (ruling R19), host names, and what makes a connect() refused.

use std::time::Duration;

use super::harness::*;
use crate::event::{AccountId, Route};
use crate::media::MediaCommand;
use crate::sip::transport::Transport;
use crate::ua::locate::{Answer, Question, Srv};
use crate::ua::{AccountSettings, Connect, VerbError};

#[test]
fn the_next_route_is_tried_when_one_cannot_be_reached() {
    let mut net = Pair::new();
    net.alice.call("sip:bob@example.com", &["192.0.2.77:5060", BOB], net.now).unwrap();
    net.run();
    assert_eq!(
        net.alice.take_log(),
        ["NULL>CALLING", "NewOutgoing audio", "DidChangeRoute 192.0.2.2 503 no route to host", "GotRingIndication"]
    );
    assert_eq!(net.alice.snapshot().route, Some(route(BOB)));
    net.bob.ua.accept(net.bob.last(), true, false, net.now).unwrap();
    net.run();
    net.alice.ua.shutdown(net.now);
    net.expect_nothing_left();
}

#[test]
fn the_next_route_is_tried_after_503_with_the_same_call_id_and_the_next_number() {
    let mut phone = Lone::new();
    phone.side.call("sip:bob@example.com", &[PEER, "192.0.2.10:5060"], phone.now).unwrap();
    phone.run();
    let first = phone.take().remove(0);
    phone.respond(&first, 503, "x", &["Retry-After: 60"], "");
    let sent = phone.take();
    assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["ACK", "INVITE"]);
    let second = &sent[1];
    assert_eq!(first.call_id().unwrap(), second.call_id().unwrap());
    assert_eq!(second.cseq().unwrap().number, 2);
    assert_ne!(first.top_via().unwrap().branch(), second.top_via().unwrap().branch());
    phone.respond(second, 486, "y", &[], "");
    assert_eq!(
        phone.side.take_log(),
        [
            "NULL>CALLING",
            "NewOutgoing audio",
            "DidChangeRoute 192.0.2.10 503 Service Unavailable",
            "CALLING>TERMINATED",
            "DidFail remote 486 Busy Here",
            "DidEnd remote"
        ]
    );
    phone.expect_nothing_left();
}

#[test]
fn a_refusal_that_is_no_503_ends_the_walk() {
    let mut phone = Lone::new();
    phone.side.call("sip:bob@example.com", &[PEER, "192.0.2.10:5060"], phone.now).unwrap();
    phone.run();
    let invite = phone.take().remove(0);
    phone.respond(&invite, 500, "x", &[], "");
    assert_eq!(phone.side.take_log().last().unwrap(), "DidEnd remote");
}

#[test]
fn silence_is_408_and_the_next_route_unless_somebody_was_heard() {
    let mut phone = Lone::new();
    phone.side.call("sip:bob@example.com", &[PEER, "192.0.2.10:5060"], phone.now).unwrap();
    phone.pass(Duration::from_secs(33));
    assert_eq!(phone.side.take_log()[2..], ["DidChangeRoute 192.0.2.10 408 Request Timeout"]);
    phone.pass(Duration::from_secs(33));
    assert_eq!(phone.side.take_log(), ["CALLING>TERMINATED", "DidFail local 408 Request Timeout", "DidEnd local"]);
    phone.expect_nothing_left();
}

#[test]
fn the_last_transport_error_fails_the_call() {
    let mut phone = Lone::new();
    phone.call();
    phone.fail_transport("connection refused");
    assert_eq!(
        phone.side.take_log()[2..],
        ["CALLING>TERMINATED", "DidFail local 503 connection refused", "DidEnd local"]
    );
    phone.expect_nothing_left();
}

#[test]
fn a_host_name_is_resolved_and_each_address_tried_before_the_next_route() {
    let mut phone = Lone::new();
    phone.side.call("sip:bob@example.com", &["proxy.example.com:5070", PEER], phone.now).unwrap();
    phone.run();
    let (query, question) = phone.side.queries.remove(0);
    assert_eq!(question.name(), "proxy.example.com");
    assert!(phone.take().is_empty());
    let addresses = vec!["192.0.2.50".parse().unwrap(), "192.0.2.51".parse().unwrap()];
    phone.side.ua.handle_resolved(query, Ok(Answer::Address(addresses)), phone.now);
    phone.run();
    assert_eq!(phone.take_lines(), ["INVITE"]);
    assert!(matches!(phone.side.media[0], MediaCommand::Open { peer } if peer == address("192.0.2.50:5070")));
    phone.fail_transport("unreachable");
    assert_eq!(phone.take_lines(), ["INVITE"], "the second address");
    assert_eq!(phone.side.take_log().len(), 2, "still the same route");
    phone.fail_transport("unreachable");
    assert_eq!(phone.side.take_log(), ["DidChangeRoute 192.0.2.9 503 unreachable"]);
    assert_eq!(phone.take_lines(), ["INVITE"]);
}

/// Answers every question that is open, as this zone says.
fn resolve(phone: &mut Lone, zone: impl Fn(&Question) -> Answer) {
    while !phone.side.queries.is_empty() {
        let (query, question) = phone.side.queries.remove(0);
        phone.side.ua.handle_resolved(query, Ok(zone(&question)), phone.now);
        phone.run();
    }
}

/// Servers .50 to .52 of one SRV record each, or of an A record.
fn three_servers(question: &Question) -> Answer {
    match question {
        Question::Srv(name) if name.starts_with("_sip._udp") || name.starts_with("_sips._tcp") => Answer::Srv(
            (50..53)
                .map(|at| Srv { priority: at, weight: 0, port: 5070, target: format!("{at}.example.com") })
                .collect(),
        ),
        Question::Srv(_) => Answer::Srv(vec![]),
        Question::Naptr(_) => Answer::Naptr(vec![]),
        Question::Address { host, .. } => {
            let at = host.split('.').next().and_then(|at| at.parse::<u8>().ok()).expect("a number");
            Answer::Address(vec![[192, 0, 2, at].into()])
        }
    }
}

#[test]
fn without_routes_every_server_of_the_domain_is_a_route_of_its_own() {
    let mut phone = Lone::new();
    phone.side.call("sip:bob@example.com", &[], phone.now).unwrap();
    phone.run();
    assert_eq!(phone.side.snapshot().route, None);
    assert_eq!(phone.side.take_log(), ["NULL>CALLING", "NewOutgoing audio"]);
    resolve(&mut phone, three_servers);
    let first = phone.take().remove(0);
    assert_eq!(phone.side.take_log(), [""; 0], "the first is no change");
    phone.respond(&first, 503, "x", &[], "");
    assert_eq!(phone.side.take_log(), ["DidChangeRoute 192.0.2.51 503 Service Unavailable"]);
    phone.take();
    phone.fail_transport("connection refused");
    assert_eq!(phone.side.take_log(), ["DidChangeRoute 192.0.2.52 503 connection refused"]);
    let third = phone.take().remove(0);
    assert_eq!(third.cseq().unwrap().number, 3);
    assert_ne!(first.top_via().unwrap().branch(), third.top_via().unwrap().branch());
    assert_eq!(phone.side.snapshot().route, Some(route("192.0.2.52:5070")));
    phone.pass(Duration::from_secs(33));
    assert_eq!(phone.side.take_log(), ["CALLING>TERMINATED", "DidFail local 408 Request Timeout", "DidEnd local"]);
    phone.expect_nothing_left();
}

#[test]
fn an_outbound_proxy_is_where_calls_without_routes_go() {
    let mut phone = Lone::new();
    let mut settings = AccountSettings::new(uri("sip:alice@example.com"));
    settings.outbound_proxy = Some(route(PEER));
    phone.side.ua.set_account(ACCOUNT, settings);
    phone.side.call("sip:bob@example.com", &[], phone.now).unwrap();
    phone.run();
    assert_eq!(phone.take_lines(), ["INVITE"]);
    assert_eq!(phone.side.snapshot().route, Some(route(PEER)));
}

#[test]
fn secure_hops_carry_the_domain_from_before_the_look_up() {
    let cases = [
        ("sips:bob@example.com", vec![], Some(("example.com", "/"))),
        ("sips:bob@192.0.2.9", vec![], None),
        (
            "sip:bob@example.com",
            vec![Route::new("51.proxy.example", 5061, Transport::Tls)],
            Some(("51.proxy.example", "/")),
        ),
        (
            "sip:bob@example.com",
            vec![Route { path: Some("/sip".into()), ..Route::new("51.web.example", 443, Transport::Wss) }],
            Some(("51.web.example", "/sip")),
        ),
        (
            "sip:bob@example.com",
            vec![Route { path: Some("/sip".into()), ..Route::new("192.0.2.9", 80, Transport::Ws) }],
            Some(("192.0.2.9", "/sip")),
        ),
        ("sip:bob@example.com", vec![Route::new("51.example.com", 5060, Transport::Udp)], None),
    ];
    for (callee, routes, expected) in cases {
        let mut side = Side::new("alice", ALICE, 1);
        let at = side.at;
        side.ua.config_mut().local.extend([Transport::Tls, Transport::Ws, Transport::Wss].map(|kind| (kind, at)));
        let call = Connect {
            account: ACCOUNT,
            callee: uri(callee),
            routes: routes.clone(),
            audio: true,
            chat: false,
            extra_headers: vec![],
            late_offer: false,
        };
        let now = start();
        side.ua.connect(call, now).unwrap();
        let mut sent = side.drain(now);
        while !side.queries.is_empty() {
            let (query, question) = side.queries.remove(0);
            side.ua.handle_resolved(query, Ok(three_servers(&question)), now);
            sent.extend(side.drain(now));
        }
        let flow = sent.first().expect("an INVITE").0;
        let peer = flow.peer.map(|peer| side.ua.peer(peer).expect("a known peer"));
        assert_eq!(peer.map(|peer| (&*peer.domain, &*peer.path)), expected, "{callee} {routes:?}");
    }
}

#[test]
fn a_host_name_without_an_address_fails_the_route() {
    for (answer, reason) in [
        (Ok(Answer::Address(vec![])), "nowhere.example has no address"),
        (Err("timed out".to_owned()), "cannot resolve nowhere.example: timed out"),
    ] {
        let mut phone = Lone::new();
        phone.side.call("sip:bob@example.com", &["nowhere.example:5060"], phone.now).unwrap();
        phone.run();
        let (query, _) = phone.side.queries.remove(0);
        phone.side.ua.handle_resolved(query, answer, phone.now);
        phone.run();
        let failed = format!("DidFail local 503 {reason}");
        assert_eq!(phone.side.take_log()[2..], ["CALLING>TERMINATED", &failed, "DidEnd local"]);
        phone.expect_nothing_left();
    }
}

#[test]
fn a_call_ended_while_its_route_is_resolved_sends_nothing() {
    let mut phone = Lone::new();
    let call = phone.side.call("sip:bob@example.com", &["slow.example:5060"], phone.now).unwrap();
    phone.side.ua.end(call, None, phone.now).unwrap();
    phone.run();
    assert_eq!(
        phone.side.take_log()[2..],
        ["CALLING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd local"]
    );
    let (query, _) = phone.side.queries.remove(0);
    phone.side.ua.handle_resolved(query, Ok(Answer::Address(vec!["192.0.2.50".parse().unwrap()])), phone.now);
    phone.run();
    assert!(phone.take().is_empty());
    phone.expect_nothing_left();
}

#[test]
fn sockets_that_cannot_be_had_fail_the_call() {
    let mut phone = Lone::new();
    phone.side.media_error = Some("no port is free".into());
    phone.side.call("sip:bob@example.com", &[PEER], phone.now).unwrap();
    phone.run();
    assert!(phone.take().is_empty());
    assert_eq!(phone.side.take_log()[2..], ["CALLING>TERMINATED", "DidFail local 0 no port is free", "DidEnd local"]);
    phone.expect_nothing_left();
}

#[test]
fn bad_arguments_are_refused_at_once_and_named() {
    let mut phone = Lone::new();
    phone.side.ua.config_mut().chat = false;
    let good = || Connect {
        account: ACCOUNT,
        callee: uri("sip:bob@example.com"),
        routes: vec![route(PEER)],
        audio: true,
        chat: false,
        late_offer: false,
        extra_headers: vec![("X-Test".into(), "1".into())],
    };
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let tls = Route { transport: Transport::Tls, ..route(PEER) };
    let cases = [
        (Connect { audio: false, ..good() }, "no stream is asked for: audio is False"),
        (Connect { chat: true, ..good() }, "chat is not available: only audio is"),
        (Connect { routes: vec![route("h:0")], ..good() }, "route \"h\" port 0 is no destination"),
        (
            Connect { routes: vec![tls], ..good() },
            "route 192.0.2.9:5060 needs transport tls, which this engine does not listen on",
        ),
        (Connect { callee: uri("tel:+431"), ..good() }, "tel:+431 is no SIP URI that can be called"),
        (Connect { extra_headers: header("v", "x"), ..good() }, "header v is written by the stack"),
        (Connect { extra_headers: header("X Y", "x"), ..good() }, "\"X Y\" is no header name"),
        (
            Connect { extra_headers: header("Subject", "a\r\nVia: b"), ..good() },
            "the value of header Subject holds a line break: \"a\\r\\nVia: b\"",
        ),
        (Connect { account: AccountId(9), ..good() }, "account AccountId(9) is unknown"),
    ];
    for (call, expected) in cases {
        let error: VerbError = phone.side.ua.connect(call, phone.now).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert!(phone.side.ua.is_idle());
    phone.side.ua.connect(good(), phone.now).unwrap();
    phone.run();
    assert_eq!(header_of(&phone.take()[0]), "1");
}

fn header_of(message: &crate::sip::message::Message) -> String {
    header(message, "X-Test")
}
