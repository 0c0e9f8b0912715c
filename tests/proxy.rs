//! Phones behind the test registrar and proxy: what they do with an honest one, and what their applications hear when it
//! misbehaves.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use sipwire::event::{EventKind, SessionId};
use sipwire::media::CodecKind;
use sipwire::sip::digest::Credentials;
use sipwire::sip::message::{Message, Method};
use sipwire::sip::transport::Transport;
use sipwire::testing::{Match, Misbehaviour, Settings};
use sipwire::ua::RegistrationSettings;

use support::{ACCOUNT, SimNet, account, uri};

const PROXY: usize = 0;
const ALICE: usize = 1;
const BOB: usize = 2;
/// A second phone of Bob's.
const DESK: usize = 3;
const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

const CALLER_RINGS: [&str; 3] = ["NULL>CALLING", "NewOutgoing(audio)", "GotRingIndication"];
const CALLER_STARTS: [&str; 4] = ["WillStart", "GotStreamUpdate(audio)", "CALLING>ESTABLISHED", "DidStart"];
const CALLEE_STARTS: [&str; 7] = [
    "NULL>INCOMING",
    "NewIncoming(audio)",
    "INCOMING>ACCEPTING",
    "WillStart",
    "GotStreamUpdate(audio)",
    "ACCEPTING>ESTABLISHED",
    "DidStart",
];
const ENDS: [&str; 5] =
    ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate()", "TERMINATING>TERMINATED", "DidEnd(local)"];
const ENDED: [&str; 3] = ["GotStreamUpdate()", "ESTABLISHED>TERMINATED", "DidEnd(remote)"];

/// Adds a phone of this user that registers.
fn phone(net: &mut SimNet, name: &'static str, password: &str, transport: Transport) -> usize {
    // One codec: an INVITE of more than 1,300 bytes would go over TCP, where nothing is lost.
    let node = net.add(name, |config| config.codecs = vec![CodecKind::Pcmu]);
    let mut settings = account(name);
    settings.credentials = Some(Credentials { username: name.into(), password: password.into() });
    settings.outbound_proxy = Some(net.route_to(PROXY, transport));
    settings.transports = vec![transport];
    settings.registration =
        Some(RegistrationSettings { registrar: None, expires: Duration::from_secs(600), instance: None });
    net.with(node, |ua, now| {
        ua.set_account(ACCOUNT, settings);
        ua.settings_changed(ACCOUNT, now);
    });
    node
}

/// The proxy, Alice and Bob, both registered.
fn office_with(transport: Transport, change: impl FnOnce(&mut Settings)) -> SimNet {
    let mut net = SimNet::new(1);
    net.add_proxy("proxy", |settings| {
        *settings = settings.clone().user("alice", "wondrous").user("bob", "zanzibar");
        change(settings);
    });
    phone(&mut net, "alice", "wondrous", transport);
    phone(&mut net, "bob", "zanzibar", transport);
    net.run_ms(2_000);
    assert_eq!(registered(&mut net), ["alice", "bob"]);
    forget(&mut net);
    net
}

fn office() -> SimNet {
    office_with(Transport::Udp, |_| ())
}

fn registered(net: &mut SimNet) -> Vec<String> {
    let now = net.now;
    net.proxy(PROXY).registrations(now).into_iter().map(|one| one.user).collect()
}

fn forget(net: &mut SimNet) {
    for node in &mut net.nodes {
        node.events.clear();
    }
    net.proxy(PROXY).forget_seen();
}

fn call(net: &mut SimNet, from: usize, to: &str) -> SessionId {
    call_over(net, from, to, Transport::Udp)
}

fn call_over(net: &mut SimNet, from: usize, to: &str, transport: Transport) -> SessionId {
    let routes = vec![net.route_to(PROXY, transport)];
    net.connect(from, uri(to), routes).expect("a call")
}

/// Words of sessions only.
fn words(net: &SimNet, node: usize) -> Vec<String> {
    let events = net.nodes[node].events.iter().filter(|(_, event)| event.session().is_some());
    events.map(|(_, event)| support::word(&event.kind)).collect()
}

/// First lines of what the proxy sent or received: `> INVITE` came, `< 200 INVITE` went.
fn seen(net: &mut SimNet) -> Vec<String> {
    let line = |one: &sipwire::testing::Seen| {
        let message = Message::parse(one.bytes.clone()).expect("a message");
        let arrow = if one.received { '>' } else { '<' };
        match message.status() {
            Some(code) => format!("{arrow} {code} {}", message.method()),
            None => format!("{arrow} {}", message.method()),
        }
    };
    net.proxy(PROXY).seen().map(line).collect()
}

fn count(net: &mut SimNet, line: &str) -> usize {
    seen(net).iter().filter(|one| *one == line).count()
}

fn answer_soon(net: &mut SimNet, node: usize) {
    net.run_ms(1_000);
    let session = net.incoming(node);
    net.accept(node, session);
    net.run_ms(1_000);
}

fn reason(net: &SimNet, node: usize) -> (u16, String) {
    let failed = net.nodes[node].events.iter().find_map(|(_, event)| match &event.kind {
        EventKind::SessionDidFail { code, reason, .. } => Some((*code, reason.to_string())),
        _ => None,
    });
    failed.expect("a DidFail")
}

// --- honest ------------------------------------------------------------------------------------------------------------

#[test]
fn calls_both_ways_with_passwords() {
    for transport in BOTH {
        let mut net = office_with(transport, |_| ());
        for (from, to, name) in [(ALICE, BOB, "bob"), (BOB, ALICE, "alice")] {
            let session = call_over(&mut net, from, name, transport);
            answer_soon(&mut net, to);
            net.end(from, session);
            net.run_ms(1_000);
            assert_eq!(words(&net, from), [&CALLER_RINGS[..], &CALLER_STARTS, &ENDS].concat(), "{transport}");
            assert_eq!(words(&net, to), [&CALLEE_STARTS[..], &ENDED].concat(), "{transport}");
            // Challenged once, and BYE went through the proxy: it is on the route of the dialog.
            assert_eq!(count(&mut net, "< 407 INVITE"), 1, "{transport}");
            assert_eq!((count(&mut net, "> BYE"), count(&mut net, "< BYE")), (1, 1), "{transport}");
            forget(&mut net);
        }
        net.run_ms(40_000);
        assert!(net.proxy(PROXY).is_idle());
    }
}

#[test]
fn the_callee_ends_and_the_next_call_needs_no_challenge() {
    let mut net = office();
    for challenges in [1, 0] {
        call(&mut net, ALICE, "bob");
        answer_soon(&mut net, BOB);
        let session = net.incoming(BOB);
        net.end(BOB, session);
        net.run_ms(1_000);
        assert_eq!(words(&net, ALICE), [&CALLER_RINGS[..], &CALLER_STARTS, &ENDED].concat());
        assert_eq!(count(&mut net, "< 407 INVITE"), challenges);
        forget(&mut net);
    }
}

#[test]
fn without_the_proxy_on_the_route_bye_goes_straight() {
    let mut net = office_with(Transport::Udp, |settings| settings.record_route = false);
    let session = call(&mut net, ALICE, "bob");
    answer_soon(&mut net, BOB);
    net.end(ALICE, session);
    net.run_ms(1_000);
    assert_eq!(words(&net, BOB), [&CALLEE_STARTS[..], &ENDED].concat());
    assert_eq!(count(&mut net, "> BYE"), 0);
}

#[test]
fn a_caller_who_gives_up_and_a_callee_who_refuses() {
    let mut net = office();
    let session = call(&mut net, ALICE, "bob");
    net.run_ms(1_000);
    net.end(ALICE, session);
    net.run_ms(1_000);
    assert_eq!(words(&net, ALICE).last().map(String::as_str), Some("DidEnd(local)"));
    assert_eq!(words(&net, BOB).last().map(String::as_str), Some("DidEnd(remote)"));
    assert_eq!((count(&mut net, "< CANCEL"), count(&mut net, "> 487 INVITE")), (1, 1));
    forget(&mut net);
    call(&mut net, ALICE, "bob");
    net.run_ms(1_000);
    let session = net.incoming(BOB);
    net.reject(BOB, session, 486);
    net.run_ms(1_000);
    assert_eq!(reason(&net, ALICE).0, 486);
}

#[test]
fn nobody_there_and_nobody_known() {
    let mut net = office_with(Transport::Udp, |settings| *settings = settings.clone().user("carol", "x"));
    for (callee, code) in [("carol", 480), ("nobody", 404)] {
        call(&mut net, ALICE, callee);
        net.run_ms(1_000);
        assert_eq!(reason(&net, ALICE).0, code, "{callee}");
        forget(&mut net);
    }
}

#[test]
fn a_wrong_password_registers_nowhere_and_calls_nobody() {
    let mut net = SimNet::new(1);
    net.add_proxy("proxy", |settings| *settings = settings.clone().user("alice", "wondrous"));
    phone(&mut net, "alice", "guess", Transport::Udp);
    net.run_ms(2_000);
    assert_eq!(registered(&mut net), Vec::<String>::new());
    assert_eq!(count(&mut net, "< 401 REGISTER"), 2, "one answer, then it is over");
    call(&mut net, ALICE, "alice");
    net.run_ms(1_000);
    let (code, why) = reason(&net, ALICE);
    assert!(code == 407 && why.contains("wrong user name or password"), "{code} {why}");
}

#[test]
fn a_brief_registration_is_made_longer_and_an_ended_one_is_gone() {
    let mut net = SimNet::new(1);
    net.add_proxy("proxy", |settings| {
        *settings = settings.clone().user("alice", "wondrous");
        settings.min_expires = 1800;
    });
    phone(&mut net, "alice", "wondrous", Transport::Udp);
    net.run_ms(2_000);
    assert_eq!(count(&mut net, "< 423 REGISTER"), 1);
    let now = net.now;
    let left = net.proxy(PROXY).registrations(now)[0].expires_at - now;
    assert!(left > Duration::from_secs(1700), "{left:?}");
    net.with(ALICE, |ua, now| ua.remove_account(ACCOUNT, now));
    net.run_ms(2_000);
    assert_eq!(registered(&mut net), Vec::<String>::new());
}

#[test]
fn a_registrar_that_forgot_everybody_learns_them_again() {
    let mut net = office();
    net.proxy(PROXY).forget_registrations();
    net.run_for(Duration::from_secs(600));
    assert_eq!(registered(&mut net), ["alice", "bob"]);
}

// --- forking -----------------------------------------------------------------------------------------------------------

/// Bob has two phones.
fn two_phones() -> SimNet {
    let mut net = office();
    phone(&mut net, "bob", "zanzibar", Transport::Udp);
    net.run_ms(2_000);
    assert_eq!(registered(&mut net), ["alice", "bob", "bob"]);
    forget(&mut net);
    net
}

#[test]
fn two_phones_ring_and_the_one_that_is_not_answered_stops() {
    let mut net = two_phones();
    let session = call(&mut net, ALICE, "bob");
    answer_soon(&mut net, DESK);
    assert_eq!(words(&net, DESK), CALLEE_STARTS);
    assert_eq!(
        words(&net, BOB),
        ["NULL>INCOMING", "NewIncoming(audio)", "INCOMING>TERMINATED", "DidFail(remote 487)", "DidEnd(remote)"]
    );
    net.end(ALICE, session);
    net.run_ms(1_000);
    let expected = [&CALLER_RINGS[..], &["GotRingIndication"], &CALLER_STARTS, &ENDS].concat();
    assert_eq!(words(&net, ALICE), expected);
}

#[test]
fn both_answer_at_once_and_one_of_them_is_ended() {
    let mut net = two_phones();
    call(&mut net, ALICE, "bob");
    net.run_ms(1_000);
    for phone in [BOB, DESK] {
        let session = net.incoming(phone);
        net.accept(phone, session);
    }
    net.run_ms(2_000);
    assert_eq!(words(&net, ALICE).last().map(String::as_str), Some("DidStart"));
    let ends: Vec<_> =
        [BOB, DESK].iter().map(|phone| words(&net, *phone).last().cloned().unwrap_or_default()).collect();
    assert!(ends.contains(&"DidStart".to_owned()) && ends.contains(&"DidEnd(remote)".to_owned()), "{ends:?}");
}

#[test]
fn the_best_refusal_is_told_when_all_phones_refuse() {
    for (codes, expected) in [([486, 503], 486), ([603, 486], 603), ([480, 415], 415), ([500, 503], 500)] {
        let mut net = two_phones();
        call(&mut net, ALICE, "bob");
        net.run_ms(1_000);
        for (phone, code) in [BOB, DESK].into_iter().zip(codes) {
            let session = net.incoming(phone);
            if !matches!(code, 603) || phone == BOB {
                net.reject(phone, session, code);
            }
        }
        net.run_ms(2_000);
        assert_eq!(reason(&net, ALICE).0, expected, "{codes:?}");
    }
}

// --- challenges --------------------------------------------------------------------------------------------------------

#[test]
fn two_realms_in_one_407_are_answered_together() {
    let mut net = office_with(Transport::Udp, |settings| settings.second_realm = Some("carrier \"B\", Ltd".into()));
    call(&mut net, ALICE, "bob");
    answer_soon(&mut net, BOB);
    assert_eq!(words(&net, ALICE), [&CALLER_RINGS[..], &CALLER_STARTS].concat());
    assert_eq!(count(&mut net, "< 407 INVITE"), 1);
}

#[test]
fn challenges_without_end_are_answered_twice_at_most() {
    for (stale, invites) in [(false, 2), (true, 3)] {
        let mut net = office();
        net.proxy(PROXY).misbehave(Misbehaviour::ChallengeForEver { stale }, Match::request(Method::Invite));
        call(&mut net, ALICE, "bob");
        net.run_ms(5_000);
        assert_eq!(count(&mut net, "> INVITE"), invites, "stale: {stale}");
        let log = words(&net, ALICE);
        assert_eq!(
            log,
            ["NULL>CALLING", "NewOutgoing(audio)", "CALLING>TERMINATED", "DidFail(remote 407)", "DidEnd(remote)"]
        );
        let why = reason(&net, ALICE).1;
        assert!(why.contains(if stale { "challenged again after 2 answers" } else { "wrong user name" }), "{why}");
    }
}

// --- misbehaviour ------------------------------------------------------------------------------------------------------

/// Alice calls Bob, who answers if it rings.
fn through(what: Misbehaviour, which: Match, seconds: u64) -> SimNet {
    let mut net = office();
    net.proxy(PROXY).misbehave(what, which);
    call(&mut net, ALICE, "bob");
    net.run_ms(1_500);
    if words(&net, BOB).contains(&"NewIncoming(audio)".to_owned()) {
        let session = net.incoming(BOB);
        net.accept(BOB, session);
    }
    net.run_for(Duration::from_secs(seconds));
    net
}

#[test]
fn a_redirect_ends_the_call_with_302() {
    let headers = vec![("Contact".into(), "<sip:carol@elsewhere.example>".into())];
    let what = Misbehaviour::Answer { code: 302, reason: String::new(), headers };
    let net = through(what, Match::request(Method::Invite).times(1), 5);
    assert_eq!(reason(&net, ALICE).0, 302);
}

#[test]
fn a_503_goes_to_the_next_route_and_without_one_it_is_the_end() {
    let what =
        || Misbehaviour::Answer { code: 503, reason: String::new(), headers: vec![("Retry-After".into(), "5".into())] };
    let net = through(what(), Match::request(Method::Invite).times(1), 5);
    assert_eq!(reason(&net, ALICE).0, 503);
    let mut net = office();
    net.proxy(PROXY).misbehave(what(), Match::request(Method::Invite).times(1));
    let routes = BOTH.map(|transport| net.route_to(PROXY, transport)).to_vec();
    net.connect(ALICE, uri("bob"), routes).expect("a call");
    answer_soon(&mut net, BOB);
    let expected =
        [&["NULL>CALLING", "NewOutgoing(audio)", "DidChangeRoute(503)", "GotRingIndication"][..], &CALLER_STARTS];
    assert_eq!(words(&net, ALICE), expected.concat());
}

#[test]
fn lost_acks_are_sent_again_when_the_200_is() {
    let mut net = through(Misbehaviour::Drop, Match::request(Method::Ack).times(3), 20);
    assert_eq!(words(&net, BOB).last().map(String::as_str), Some("DidStart"));
    assert!(count(&mut net, "> 200 INVITE") >= 3);
    let mut net = through(Misbehaviour::Drop, Match::request(Method::Ack), 40);
    assert_eq!(words(&net, BOB).last().map(String::as_str), Some("DidEnd(local)"), "64·T1 without an ACK");
    assert_eq!(words(&net, ALICE).last().map(String::as_str), Some("DidEnd(remote)"));
    assert!(count(&mut net, "> BYE") >= 1);
}

#[test]
fn a_late_200_still_starts_the_call() {
    let net = through(Misbehaviour::Delay(Duration::from_secs(6)), Match::response(200, Method::Invite), 15);
    assert_eq!(words(&net, ALICE), [&CALLER_RINGS[..], &CALLER_STARTS].concat());
    let started = net.time_of(ALICE, "DidStart").expect("it started");
    assert!(started > Duration::from_secs(9), "{started:?}");
}

#[test]
fn a_second_200_is_acknowledged_and_ended() {
    let mut net = through(Misbehaviour::SecondAnswer, Match::response(200, Method::Invite).times(1), 5);
    assert_eq!(words(&net, ALICE), [&CALLER_RINGS[..], &CALLER_STARTS].concat());
    assert_eq!(count(&mut net, "< 200 INVITE"), 2);
    assert_eq!((count(&mut net, "> BYE"), count(&mut net, "< 200 BYE")), (1, 1));
    assert_eq!(words(&net, BOB).last().map(String::as_str), Some("DidStart"), "the first one goes on");
}

#[test]
fn a_lost_invite_and_a_lost_answer_come_again() {
    for which in [Match::request(Method::Invite).times(1), Match::response(407, Method::Invite).times(1)] {
        let net = through(Misbehaviour::Drop, which.clone(), 5);
        assert_eq!(words(&net, ALICE), [&CALLER_RINGS[..], &CALLER_STARTS].concat(), "{which:?}");
    }
}

#[test]
fn loops_end_with_482_and_too_many_hops_with_483() {
    let net = through(Misbehaviour::Loop, Match::request(Method::Invite), 5);
    assert_eq!(reason(&net, ALICE).0, 482);
    let what = Misbehaviour::Answer { code: 483, reason: "Way Too Many".into(), headers: Vec::new() };
    let net = through(what, Match::request(Method::Invite), 5);
    assert_eq!(reason(&net, ALICE), (483, "Way Too Many".into()));
}

#[test]
fn answers_from_another_port_are_answers() {
    let mut net = office();
    let provisional = Match { method: Some(Method::Invite), code: Some(180), skip: 0, times: None };
    net.proxy(PROXY).misbehave(Misbehaviour::OtherPort, provisional);
    net.proxy(PROXY).misbehave(Misbehaviour::OtherPort, Match::response(200, Method::Invite));
    let session = call(&mut net, ALICE, "bob");
    answer_soon(&mut net, BOB);
    assert_eq!(words(&net, ALICE), [&CALLER_RINGS[..], &CALLER_STARTS].concat());
    net.end(ALICE, session);
    net.run_ms(2_000);
    assert_eq!(words(&net, BOB).last().map(String::as_str), Some("DidEnd(remote)"), "BYE goes where it should");
}

#[test]
fn slow_answers_to_register_are_waited_for() {
    let mut net = SimNet::new(1);
    net.add_proxy("proxy", |settings| *settings = settings.clone().user("alice", "wondrous"));
    let which = Match::response(200, Method::Register).times(1);
    net.proxy(PROXY).misbehave(Misbehaviour::Delay(Duration::from_secs(7)), which);
    phone(&mut net, "alice", "wondrous", Transport::Udp);
    net.run_ms(20_000);
    let words = net.all_words(ALICE);
    assert_eq!(words.iter().filter(|word| word.contains("DidSucceed")).count(), 1, "{words:?}");
}
