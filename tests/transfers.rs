//! Transfers between three user agents over a simulated network, with and without loss. The seed in a failure's message
//! replays it.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use sipwire::event::{EventKind, SessionId, SessionState};
use sipwire::sip::transport::Transport;

use support::{Link, SimNet, uri};

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;

const CALLS: [&str; 2] = ["NULL>CALLING", "NewOutgoing(audio)"];
const STARTS: [&str; 4] = ["WillStart", "GotStreamUpdate(audio)", "CALLING>ESTABLISHED", "DidStart"];
const COMES: [&str; 2] = ["NULL>INCOMING", "NewIncoming(audio)"];
const ANSWERS: [&str; 5] =
    ["INCOMING>ACCEPTING", "WillStart", "GotStreamUpdate(audio)", "ACCEPTING>ESTABLISHED", "DidStart"];
const ENDS: [&str; 5] =
    ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate()", "TERMINATING>TERMINATED", "DidEnd(local)"];
const ENDED: [&str; 3] = ["GotStreamUpdate()", "ESTABLISHED>TERMINATED", "DidEnd(remote)"];
const RINGS: &str = "GotRingIndication";

/// Alice (0), Bob (1) and Carol (2).
fn three(seed: u64, loss: u32) -> SimNet {
    let mut net = SimNet::new(seed);
    for name in ["alice", "bob", "carol"] {
        net.add(name, |_| {});
    }
    net.link = Link::lossy(loss, Duration::from_millis(80));
    net
}

/// Runs until this holds, at most 60 s.
fn until(net: &mut SimNet, what: &str, holds: impl Fn(&SimNet) -> bool) {
    for _ in 0..6_000 {
        if holds(net) {
            return;
        }
        net.run_ms(10);
    }
    let words: Vec<_> = (0..net.nodes.len()).map(|node| net.all_words(node)).collect();
    panic!("seed {}: {what} never came, but {words:?}", net.seed);
}

fn heard(net: &SimNet, node: usize, session: SessionId, what: &str) -> bool {
    net.words(node, session).iter().any(|word| word == what)
}

fn incoming_count(net: &SimNet, node: usize) -> usize {
    net.all_words(node).iter().filter(|word| *word == "NewIncoming(audio)").count()
}

/// `from` calls `to` and is answered; their sessions.
fn talk(net: &mut SimNet, from: usize, to: usize) -> (SessionId, SessionId) {
    let before = incoming_count(net, to);
    let caller = net.call(from, to, Transport::Udp);
    until(net, "the call", |net| incoming_count(net, to) > before);
    let callee = net.incoming(to);
    net.accept(to, callee);
    until(net, "the caller's start", |net| heard(net, from, caller, "DidStart"));
    until(net, "the callee's start", |net| heard(net, to, callee, "DidStart"));
    (caller, callee)
}

/// Bob's request arrives at Alice's: she makes the call, Carol takes it. Alice's and Carol's new sessions.
fn follow(net: &mut SimNet, alice: SessionId) -> (SessionId, SessionId) {
    until(net, "the request", |net| net.words(ALICE, alice).iter().any(|word| word.starts_with("GotTransferRequest")));
    let before = incoming_count(net, CAROL);
    let routes = vec![net.route_to(CAROL, Transport::Udp)];
    let new = net.with(ALICE, |ua, now| ua.accept_transfer(alice, routes, now)).expect("a request waits");
    until(net, "the new call", |net| incoming_count(net, CAROL) > before);
    let carol = net.incoming(CAROL);
    net.run_ms(1_000); // it rings
    net.accept(CAROL, carol);
    until(net, "the start of the new call", |net| heard(net, CAROL, carol, "DidStart"));
    (new, carol)
}

/// The list without what loss may or may not let through: provisional answers and reports.
fn certain(words: Vec<String>) -> Vec<String> {
    let uncertain = |word: &String| word == RINGS || word.starts_with("TransferGotProgress");
    words.into_iter().filter(|word| !uncertain(word)).collect()
}

#[test]
fn a_blind_transfer() {
    for (seed, loss) in [(1, 0)].into_iter().chain((2..42).map(|seed| (seed, 20))) {
        let mut net = three(seed, loss);
        let (bob, alice) = talk(&mut net, BOB, ALICE);
        net.with(BOB, |ua, now| ua.transfer(bob, Some(uri("carol")), None, now)).expect("asked");
        let (new, carol) = follow(&mut net, alice);
        until(&mut net, "the end of the old call", |net| heard(net, ALICE, alice, "DidEnd(remote)"));
        let up = net.ua(ALICE).snapshot(new).expect("the new call");
        assert_eq!(up.state, SessionState::Established, "seed {seed}");
        net.run_ms(5_000);
        net.end(CAROL, carol);
        net.run_to_the_end(Duration::from_secs(300));
        let words =
            |node, session| if loss == 0 { net.words(node, session) } else { certain(net.words(node, session)) };
        let rings = if loss == 0 { &[RINGS][..] } else { &[] };
        let asked = ["GotTransferRequest(blind)", "TransferDidStart", "TransferDidEnd(200)"];
        assert_eq!(words(ALICE, alice), [&COMES[..], &ANSWERS, &asked, &ENDED].concat(), "seed {seed}");
        assert_eq!(words(ALICE, new), [&CALLS[..], rings, &STARTS, &ENDED].concat(), "seed {seed}");
        assert_eq!(words(CAROL, carol), [&COMES[..], &ANSWERS, &ENDS].concat(), "seed {seed}");
        let mut asks = vec!["TransferNewOutgoing(blind)", "TransferDidStart"];
        if loss == 0 {
            asks.extend(["TransferGotProgress(100)", "TransferGotProgress(180)"]);
        }
        asks.push("TransferDidEnd(200)");
        assert_eq!(words(BOB, bob), [&CALLS[..], rings, &STARTS, &asks, &ENDS].concat(), "seed {seed}");
        net.assert_good();
    }
}

#[test]
fn an_attended_transfer() {
    for (seed, loss) in [(51, 0)].into_iter().chain((52..92).map(|seed| (seed, 20))) {
        let mut net = three(seed, loss);
        let (bob, alice) = talk(&mut net, BOB, ALICE);
        let (asking, asked) = talk(&mut net, BOB, CAROL);
        net.with(BOB, |ua, now| ua.transfer(bob, None, Some(asking), now)).expect("asked");
        let (new, carol) = follow(&mut net, alice);
        let replaces = net.nodes[CAROL].events.iter().rev().find_map(|(_, event)| {
            event.snapshot.as_ref().filter(|_| event.session() == Some(carol)).map(|snapshot| snapshot.replaces)
        });
        assert_eq!(replaces, Some(Some(asked)), "seed {seed}");
        until(&mut net, "the end of the old calls", |net| {
            heard(net, ALICE, alice, "DidEnd(remote)") && heard(net, BOB, asking, "DidEnd(remote)")
        });
        net.run_ms(5_000);
        net.end(ALICE, new);
        net.run_to_the_end(Duration::from_secs(300));
        let words = |node, session| certain(net.words(node, session));
        let request = ["GotTransferRequest(attended)", "TransferDidStart", "TransferDidEnd(200)"];
        assert_eq!(words(ALICE, alice), [&COMES[..], &ANSWERS, &request, &ENDED].concat(), "seed {seed}");
        assert_eq!(words(ALICE, new), [&CALLS[..], &STARTS, &ENDS].concat(), "seed {seed}");
        let asks = ["TransferNewOutgoing(attended)", "TransferDidStart", "TransferDidEnd(200)"];
        assert_eq!(words(BOB, bob), [&CALLS[..], &STARTS, &asks, &ENDS].concat(), "seed {seed}");
        assert_eq!(words(BOB, asking), [&CALLS[..], &STARTS, &ENDED].concat(), "seed {seed}");
        assert_eq!(words(CAROL, asked), [&COMES[..], &ANSWERS, &ENDS].concat(), "seed {seed}");
        assert_eq!(words(CAROL, carol), [&COMES[..], &ANSWERS, &ENDED].concat(), "seed {seed}");
        net.assert_good();
    }
}

#[test]
fn a_transfer_to_somebody_who_does_not_want_it() {
    for (seed, loss) in [(101, 0), (102, 20), (103, 20), (104, 20)] {
        let mut net = three(seed, loss);
        let (bob, alice) = talk(&mut net, BOB, ALICE);
        net.with(BOB, |ua, now| ua.transfer(bob, Some(uri("carol")), None, now)).expect("asked");
        until(&mut net, "the request", |net| heard(net, ALICE, alice, "GotTransferRequest(blind)"));
        let routes = vec![net.route_to(CAROL, Transport::Udp)];
        net.with(ALICE, |ua, now| ua.accept_transfer(alice, routes, now)).expect("a request waits");
        until(&mut net, "the new call", |net| incoming_count(net, CAROL) > 0);
        let carol = net.incoming(CAROL);
        net.reject(CAROL, carol, 486);
        until(&mut net, "the outcome", |net| heard(net, BOB, bob, "TransferDidFail(486)"));
        assert!(heard(&net, ALICE, alice, "TransferDidFail(486)"), "seed {seed}");
        assert_eq!(net.ua(ALICE).sessions(), [alice], "seed {seed}: they go on talking");
        net.end(BOB, bob);
        net.run_to_the_end(Duration::from_secs(300));
        net.assert_good();
    }
}

#[test]
fn a_stranger_who_does_not_know_the_names_of_a_call_moves_nothing() {
    let mut net = three(111, 0);
    let mallory = net.add_raw("mallory");
    let (_, alice) = talk(&mut net, BOB, ALICE);
    let snapshot = net.ua(ALICE).snapshot(alice).expect("a call");
    let call_id = snapshot.call_id.clone().expect("a Call-ID");
    let address = net.nodes[mallory].address;
    let send = |net: &mut SimNet, first: &str, to_tag: &str, call_id: &str, more: &str| {
        let (method, _) = first.split_once(' ').expect("a method");
        let text = format!(
            "{first} SIP/2.0\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{method}{}\nMax-Forwards: 70\n\
             From: <sip:bob@example.com>;tag=guess\nTo: <sip:alice@example.com>{to_tag}\nCall-ID: {call_id}\n\
             CSeq: 5 {method}\nContact: <sip:mallory@{address}>\n{more}Content-Length: 0\n\n",
            to_tag.len() + call_id.len()
        );
        net.send_raw(mallory, ALICE, &text);
        net.run_ms(500);
        net.nodes[mallory].inbox.pop().and_then(|answer| answer.status())
    };
    let refer = "REFER sip:alice@192.0.2.1";
    let target = "Refer-To: <sip:mallory@192.0.2.4>\n";
    assert_eq!(send(&mut net, refer, "", "x", target), Some(403), "outside of a call");
    assert_eq!(send(&mut net, refer, ";tag=guess", &call_id, target), Some(481));
    let invite = "INVITE sip:alice@192.0.2.1";
    let replaces = format!("Replaces: {call_id};to-tag=guess;from-tag=guess\n");
    assert_eq!(send(&mut net, invite, "", "y", &replaces), Some(481));
    assert_eq!(net.ua(ALICE).sessions(), [alice]);
    let told = net.nodes[ALICE].events.iter().filter(|(_, event)| {
        matches!(event.kind, EventKind::SessionGotTransferRequest { .. } | EventKind::SessionNewIncoming { .. })
    });
    assert_eq!(told.count(), 1, "the first call");
}
