//! Whole stacks against each other over a simulated network with virtual time. The seed in a failure's message replays it.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use sipwire::event::{Event, EventKind, Route, SessionId, SessionState};
use sipwire::media::{CodecKind, MediaCommand};
use sipwire::sip::message::{HeaderName, Method};
use sipwire::sip::transport::Transport;
use sipwire::ua::locate::Question;

use support::{ACCOUNT, Action, Link, SimNet, uri, word};

const ALICE: usize = 0;
const BOB: usize = 1;
const MINUTES: Duration = Duration::from_secs(600);
const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

const CALLER_RINGS: [&str; 3] = ["NULL>CALLING", "NewOutgoing(audio)", "GotRingIndication"];
const CALLER_STARTS: [&str; 4] = ["WillStart", "GotStreamUpdate(audio)", "CALLING>ESTABLISHED", "DidStart"];
const CALLEE_RINGS: [&str; 2] = ["NULL>INCOMING", "NewIncoming(audio)"];
const CALLEE_STARTS: [&str; 5] =
    ["INCOMING>ACCEPTING", "WillStart", "GotStreamUpdate(audio)", "ACCEPTING>ESTABLISHED", "DidStart"];
const ENDS: [&str; 5] =
    ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate()", "TERMINATING>TERMINATED", "DidEnd(local)"];
const ENDED: [&str; 3] = ["GotStreamUpdate()", "ESTABLISHED>TERMINATED", "DidEnd(remote)"];

/// Runs to the end and compares every notification of both sides, the media, and what is left.
fn assert_courses(net: &mut SimNet, alice: &[&[&str]], bob: &[&[&str]]) {
    net.run_to_the_end(MINUTES);
    assert_eq!(net.all_words(ALICE), alice.concat(), "alice, seed {}", net.seed);
    assert_eq!(net.all_words(BOB), bob.concat(), "bob, seed {}", net.seed);
    net.assert_good();
}

/// Alice and bob in a call that is up.
fn established(seed: u64, transport: Transport) -> (SimNet, [SessionId; 2]) {
    let mut net = SimNet::pair(seed);
    let alice = net.call(ALICE, BOB, transport);
    net.run_ms(1_000);
    let bob = net.incoming(BOB);
    net.accept(BOB, bob);
    net.run_ms(1_000);
    assert_eq!(net.all_words(ALICE).last().map(String::as_str), Some("DidStart"), "seed {seed}");
    assert_eq!(net.all_words(BOB).last().map(String::as_str), Some("DidStart"), "seed {seed}");
    (net, [alice, bob])
}

// --- calls that go as they should ------------------------------------------------------------------------------------

#[test]
fn a_call_that_the_caller_ends() {
    for transport in BOTH {
        let (mut net, [alice, _]) = established(1, transport);
        net.run_ms(5_000);
        net.end(ALICE, alice);
        assert_courses(&mut net, &[&CALLER_RINGS, &CALLER_STARTS, &ENDS], &[&CALLEE_RINGS, &CALLEE_STARTS, &ENDED]);
    }
}

#[test]
fn a_call_that_the_callee_ends() {
    for transport in BOTH {
        let (mut net, [_, bob]) = established(2, transport);
        net.run_ms(5_000);
        net.end(BOB, bob);
        assert_courses(&mut net, &[&CALLER_RINGS, &CALLER_STARTS, &ENDED], &[&CALLEE_RINGS, &CALLEE_STARTS, &ENDS]);
    }
}

#[test]
fn a_call_that_both_end_at_once() {
    for transport in BOTH {
        let (mut net, [alice, bob]) = established(3, transport);
        net.run_ms(5_000);
        net.end(ALICE, alice);
        net.end(BOB, bob);
        assert_courses(&mut net, &[&CALLER_RINGS, &CALLER_STARTS, &ENDS], &[&CALLEE_RINGS, &CALLEE_STARTS, &ENDS]);
    }
}

#[test]
fn both_sides_agree_on_codec_addresses_and_directions() {
    let (net, [alice, bob]) = established(4, Transport::Udp);
    let start = |node: usize| {
        let started = net.nodes[node].media.iter().find_map(|(_, command)| match command {
            MediaCommand::Start(params) => Some(params.clone()),
            _ => None,
        });
        started.expect("audio was started")
    };
    let (of_alice, of_bob) = (start(ALICE), start(BOB));
    assert_eq!(of_alice.send.codec, CodecKind::Opus);
    assert_eq!(of_alice.send, of_bob.receive[0]);
    assert_eq!(of_bob.send, of_alice.receive[0]);
    assert_eq!(of_alice.remote_rtp.ip(), net.nodes[BOB].address.ip());
    assert_eq!(of_bob.remote_rtp.ip(), net.nodes[ALICE].address.ip());
    let keys = [&of_alice, &of_bob].map(|params| params.srtp.expect("SRTP is optional and both have it"));
    assert!(keys[0].local == keys[1].remote && keys[0].remote == keys[1].local);
    for (node, session) in [(ALICE, alice), (BOB, bob)] {
        let ua = net.nodes[node].ua.as_ref().expect("a user agent");
        let snapshot = ua.snapshot(session).expect("a live session");
        assert!(snapshot.has_audio);
        assert_eq!(snapshot.audio.as_ref().and_then(|audio| audio.codec), Some(CodecKind::Opus));
    }
}

#[test]
fn two_hundred_calls_at_once_between_two_user_agents() {
    let mut net = SimNet::pair(5);
    net.nodes[BOB].react = Some(Box::new(|event, random| match (&event.kind, event.session()) {
        (EventKind::SessionNewIncoming { .. }, Some(session)) => {
            vec![(Duration::from_millis(random.random_range(0..2_000)), Action::Accept(session))]
        }
        _ => Vec::new(),
    }));
    let calls: Vec<_> = (0..200).map(|_| net.call(ALICE, BOB, Transport::Udp)).collect();
    net.run_ms(10_000);
    for call in &calls {
        assert_eq!(net.words(ALICE, *call), [&CALLER_RINGS[..], &CALLER_STARTS].concat(), "{call:?}");
        net.end(ALICE, *call);
    }
    net.run_to_the_end(MINUTES);
    for call in calls {
        assert_eq!(net.words(ALICE, call), [&CALLER_RINGS[..], &CALLER_STARTS, &ENDS].concat(), "{call:?}");
    }
    net.assert_good();
}

// --- calls that do not come about ------------------------------------------------------------------------------------

#[test]
fn busy_and_reject_tell_the_caller_the_code() {
    for transport in BOTH {
        for code in [486, 480, 603] {
            let mut net = SimNet::pair(10);
            net.call(ALICE, BOB, transport);
            net.run_ms(1_000);
            let bob = net.incoming(BOB);
            net.reject(BOB, bob, code);
            let failed = format!("DidFail(remote {code})");
            assert_courses(
                &mut net,
                &[&CALLER_RINGS, &["CALLING>TERMINATED", &failed, "DidEnd(remote)"]],
                &[&CALLEE_RINGS, &["INCOMING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd(local)"]],
            );
        }
    }
}

/// A call that bob's side refuses by itself: the caller is told, bob's application is not.
fn assert_refused(net: &mut SimNet, code: u16) {
    let failed = format!("DidFail(remote {code})");
    let refused = ["NULL>CALLING", "NewOutgoing(audio)", "CALLING>TERMINATED", &failed, "DidEnd(remote)"];
    assert_courses(net, &[&refused], &[]);
}

#[test]
fn an_unknown_user_is_404() {
    for transport in BOTH {
        let mut net = SimNet::pair(11);
        let routes = vec![net.route_to(BOB, transport)];
        net.connect(ALICE, uri("nobody"), routes).expect("connect is allowed");
        assert_refused(&mut net, 404);
    }
}

#[test]
fn without_an_application_that_takes_calls_it_is_480() {
    let mut net = SimNet::new(12);
    net.add("alice", |_| {});
    net.add("bob", |config| config.accepts_calls = false);
    net.call(ALICE, BOB, Transport::Udp);
    assert_refused(&mut net, 480);
}

#[test]
fn without_a_common_codec_it_is_488() {
    let mut net = SimNet::new(13);
    net.add("alice", |config| config.codecs = vec![CodecKind::Pcmu]);
    net.add("bob", |config| config.codecs = vec![CodecKind::Opus]);
    net.call(ALICE, BOB, Transport::Udp);
    assert_refused(&mut net, 488);
}

/// An INVITE of a peer that the test plays, to bob.
fn raw_invite(net: &SimNet, from: usize, more: &str, body: &str) -> String {
    let address = net.nodes[from].address;
    format!(
        "INVITE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP {address};branch=z9hG4bKraw1;rport\nMax-Forwards: 70\n\
         From: <sip:carol@example.com>;tag=c1\nTo: <sip:bob@example.com>\nCall-ID: raw@{}\nCSeq: 1 INVITE\n\
         Contact: <sip:carol@{address}>\n{more}Content-Length: {}\n\n{body}",
        address.ip(),
        body.replace('\n', "\r\n").len()
    )
}

/// The status codes of what came back, without 100, and the last message.
fn raw_answers(net: &SimNet, node: usize) -> (Vec<u16>, Option<&sipwire::sip::message::Message>) {
    let inbox = &net.nodes[node].inbox;
    (inbox.iter().filter_map(|message| message.status()).filter(|code| *code != 100).collect(), inbox.last())
}

const AUDIO: &str = "v=0\no=carol 1 1 IN IP4 192.0.2.4\ns=-\nc=IN IP4 192.0.2.4\nt=0 0\nm=audio 4000 RTP/AVP 0\n";

#[test]
fn a_body_that_is_no_sdp_or_has_no_audio_is_415() {
    let video = AUDIO.replace("audio", "video");
    for (content_type, body) in [("text/plain", "hello\n"), ("application/sdp", &video)] {
        let mut net = SimNet::pair(14);
        let carol = net.add_raw("carol");
        let invite = raw_invite(&net, carol, &format!("Content-Type: {content_type}\n"), body);
        net.send_raw(carol, BOB, &invite);
        net.run_ms(100);
        let (codes, last) = raw_answers(&net, carol);
        assert_eq!(codes, [415], "{content_type}");
        let accept = last.and_then(|message| message.header(HeaderName::Accept)).unwrap_or_default();
        assert!(accept.windows(15).any(|part| part == b"application/sdp"), "{content_type}: Accept: {accept:?}");
        let to = last.map(|message| String::from_utf8_lossy(message.header(HeaderName::To).unwrap_or_default()));
        let ack = invite.split("Contact:").next().unwrap_or_default().replace("INVITE", "ACK");
        let ack = ack.replace("To: <sip:bob@example.com>", &format!("To: {}", to.unwrap_or_default()));
        net.send_raw(carol, BOB, &format!("{ack}Content-Length: 0\n\n"));
        net.run_to_the_end(MINUTES);
        assert_eq!(raw_answers(&net, carol).0, [415], "once acknowledged it is not repeated");
        assert_eq!(net.all_words(BOB), [""; 0]);
        net.assert_good();
    }
}

#[test]
fn no_answer_at_all_is_408_after_seven_invites_in_32_s() {
    let mut net = SimNet::pair(15);
    net.trace = Some(Vec::new());
    net.drop = Some(Box::new(|_, _, to| to == BOB));
    net.call(ALICE, BOB, Transport::Udp);
    let course = ["NULL>CALLING", "NewOutgoing(audio)", "CALLING>TERMINATED", "DidFail(local 408)", "DidEnd(local)"];
    assert_courses(&mut net, &[&course], &[]);
    let invites = net.trace.iter().flatten().filter(|line| line.contains("INVITE sip:")).count();
    assert_eq!(invites, 7);
    assert_eq!(net.time_of(ALICE, "DidFail(local 408)"), Some(Duration::from_secs(32)));
}

#[test]
fn a_refused_connection_is_503() {
    let mut net = SimNet::pair(16);
    let routes = vec![Route::new("192.0.2.99", 5060, Transport::Tcp)];
    net.connect(ALICE, uri("bob"), routes).expect("connect is allowed");
    let course = ["NULL>CALLING", "NewOutgoing(audio)", "CALLING>TERMINATED", "DidFail(local 503)", "DidEnd(local)"];
    assert_courses(&mut net, &[&course], &[]);
}

#[test]
fn the_next_route_is_tried_after_a_refused_connection_and_a_host_is_looked_up() {
    let mut net = SimNet::pair(17);
    let bob = net.nodes[BOB].address;
    net.dns.hosts.insert("bob.example.com".to_owned(), vec![bob.ip()]);
    let dead = Route::new("192.0.2.99", 5060, Transport::Tcp);
    let alive = Route::new("bob.example.com", 5060, Transport::Udp);
    let alice = net.connect(ALICE, uri("bob"), vec![dead, alive.clone()]).expect("connect is allowed");
    net.run_ms(2_000);
    let session = net.incoming(BOB);
    net.accept(BOB, session);
    net.run_ms(2_000);
    let changed = net.nodes[ALICE].events.iter().find_map(|(_, event)| match &event.kind {
        EventKind::SessionDidChangeRoute { route, code, .. } => Some((route.clone(), *code)),
        _ => None,
    });
    assert_eq!(changed, Some((alive, 503)));
    net.end(ALICE, alice);
    let tries = ["NULL>CALLING", "NewOutgoing(audio)", "DidChangeRoute(503)", "GotRingIndication"];
    assert_courses(&mut net, &[&tries, &CALLER_STARTS, &ENDS], &[&CALLEE_RINGS, &CALLEE_STARTS, &ENDED]);
}

#[test]
fn a_host_nobody_knows_ends_the_call() {
    let mut net = SimNet::pair(18);
    let routes = vec![Route::new("nowhere.example.com", 5060, Transport::Udp)];
    net.connect(ALICE, uri("bob"), routes).expect("connect is allowed");
    net.run_to_the_end(MINUTES);
    let words = net.all_words(ALICE);
    assert!(words.iter().any(|word| word.starts_with("DidFail(local")), "{words:?}");
    net.assert_good();
}

#[test]
fn media_that_cannot_be_opened_fail_the_call_on_either_side() {
    let mut net = SimNet::pair(19);
    net.nodes[ALICE].media_fails = true;
    net.call(ALICE, BOB, Transport::Udp);
    net.run_to_the_end(MINUTES);
    let words = net.all_words(ALICE);
    assert!(words.iter().any(|word| word.starts_with("DidFail(local")), "{words:?}");
    assert_eq!(net.all_words(BOB), [""; 0]);

    let mut net = SimNet::pair(19);
    net.nodes[BOB].media_fails = true;
    net.call(ALICE, BOB, Transport::Udp);
    net.run_ms(1_000);
    if net.all_words(BOB).len() == 2 {
        let bob = net.incoming(BOB);
        let _ = net.with(BOB, |ua, now| ua.accept(bob, true, false, now));
    }
    net.run_to_the_end(MINUTES);
    let words = net.all_words(ALICE);
    assert!(words.iter().any(|word| word.starts_with("DidFail(remote 5")), "{words:?}");
}

// --- calls that are given up -----------------------------------------------------------------------------------------

const GIVES_UP: [&str; 4] = ["CALLING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd(local)"];

#[test]
fn a_cancel_while_it_rings() {
    for transport in BOTH {
        let mut net = SimNet::pair(20);
        let alice = net.call(ALICE, BOB, transport);
        net.run_ms(3_000);
        net.end(ALICE, alice);
        net.run_to_the_end(MINUTES);
        assert_eq!(net.all_words(ALICE), [&CALLER_RINGS[..], &GIVES_UP].concat());
        let bob = net.all_words(BOB);
        assert_eq!(bob[..2], CALLEE_RINGS);
        assert_eq!(bob[2], "INCOMING>TERMINATED");
        assert!(bob[3].starts_with("DidFail(remote "), "{bob:?}");
        assert_eq!(bob[4..], ["DidEnd(remote)"]);
        net.assert_good();
    }
}

#[test]
fn a_cancel_at_once_waits_for_the_provisional_response() {
    let mut net = SimNet::pair(21);
    net.trace = Some(Vec::new());
    let alice = net.call(ALICE, BOB, Transport::Udp);
    net.end(ALICE, alice);
    net.run_to_the_end(MINUTES);
    net.assert_good();
    let sent: Vec<_> = net.trace.iter().flatten().filter(|line| line.contains("alice -> bob")).collect();
    assert!(sent[0].contains("INVITE sip:") && sent[1].contains("CANCEL sip:"), "{sent:#?}");
    let course = ["NULL>CALLING", "NewOutgoing(audio)"];
    let words: Vec<_> = net.all_words(ALICE).into_iter().filter(|word| word != "GotRingIndication").collect();
    assert_eq!(words, [&course[..], &GIVES_UP].concat());
}

#[test]
fn a_cancel_that_crosses_the_200_ends_with_ack_and_bye() {
    for transport in BOTH {
        let mut net = SimNet::pair(22);
        net.trace = Some(Vec::new());
        let alice = net.call(ALICE, BOB, transport);
        net.run_ms(1_000);
        let bob = net.incoming(BOB);
        net.accept(BOB, bob);
        net.end(ALICE, alice);
        assert_courses(&mut net, &[&CALLER_RINGS, &GIVES_UP], &[&CALLEE_RINGS, &CALLEE_STARTS, &ENDED]);
        let trace = net.trace.unwrap_or_default().join("\n");
        assert!(trace.contains("ACK sip:") && trace.contains("BYE sip:"), "{trace}");
    }
}

#[test]
fn hanging_up_at_any_moment_leaves_nothing() {
    for transport in BOTH {
        for node in [ALICE, BOB] {
            for ms in 0..150 {
                let mut net = SimNet::pair(ms);
                let alice = net.call(ALICE, BOB, transport);
                net.nodes[BOB].react = Some(Box::new(move |event, _| match (&event.kind, event.session()) {
                    (EventKind::SessionNewIncoming { .. }, Some(session)) => {
                        let mut plan = vec![(Duration::from_millis(40), Action::Accept(session))];
                        if node == BOB {
                            plan.push((Duration::from_millis(ms), Action::End(session)));
                        }
                        plan
                    }
                    _ => Vec::new(),
                }));
                if node == ALICE {
                    net.plan(ALICE, Duration::from_millis(ms), Action::End(alice));
                }
                net.run_to_the_end(MINUTES);
                net.assert_good();
            }
        }
    }
}

// --- messages that are lost ------------------------------------------------------------------------------------------

#[test]
fn a_lost_ack_comes_again_with_the_repeated_200() {
    let mut net = SimNet::pair(30);
    let mut left = 2;
    net.drop = Some(Box::new(move |message, _, _| {
        let lost = message.is_request() && *message.method() == Method::Ack && left > 0;
        left -= i32::from(lost);
        lost
    }));
    let alice = net.call(ALICE, BOB, Transport::Udp);
    net.run_ms(1_000);
    let bob = net.incoming(BOB);
    net.accept(BOB, bob);
    net.run_ms(5_000);
    // Accepted at 1.0 s; the 200 leaves again at 1.5 and 2.5 s, each copy takes 10 ms there and its ACK 10 ms back.
    assert_eq!(net.time_of(BOB, "DidStart"), Some(Duration::from_millis(2_520)));
    net.end(ALICE, alice);
    assert_courses(&mut net, &[&CALLER_RINGS, &CALLER_STARTS, &ENDS], &[&CALLEE_RINGS, &CALLEE_STARTS, &ENDED]);
}

#[test]
fn without_any_ack_the_callee_gives_up_after_32_s_with_a_bye() {
    for transport in BOTH {
        let mut net = SimNet::pair(31);
        net.drop = Some(Box::new(|message, _, _| message.is_request() && *message.method() == Method::Ack));
        net.call(ALICE, BOB, transport);
        net.run_ms(1_000);
        let bob = net.incoming(BOB);
        net.accept(BOB, bob);
        net.run_to_the_end(MINUTES);
        assert_eq!(net.all_words(ALICE), [&CALLER_RINGS[..], &CALLER_STARTS, &ENDED].concat());
        let words = net.all_words(BOB);
        assert_eq!(words[..3], [CALLEE_RINGS[0], CALLEE_RINGS[1], "INCOMING>ACCEPTING"]);
        assert_eq!(words[words.len() - 3..], ["ACCEPTING>TERMINATED", "DidFail(local 408)", "DidEnd(local)"]);
        assert_eq!(net.time_of(BOB, "DidFail(local 408)"), Some(Duration::from_secs(33)));
        net.assert_good();
    }
}

#[test]
fn a_bye_nobody_answers_ends_the_session_within_a_second() {
    let (mut net, [alice, _]) = established(32, Transport::Udp);
    net.drop = Some(Box::new(|_, _, _| true));
    let before = net.elapsed();
    net.end(ALICE, alice);
    net.run_ms(1_001);
    let ended = net.time_of(ALICE, "DidEnd(local)").expect("ended");
    assert_eq!(ended - before, Duration::from_secs(1));
    net.run_ms(60_000);
    let ua = net.nodes[ALICE].ua.as_ref().expect("a user agent");
    assert!(ua.is_idle(), "{:?}", ua.stats());
}

// --- OPTIONS ---------------------------------------------------------------------------------------------------------

fn options(net: &mut SimNet, transport: Transport) -> Vec<String> {
    let routes = vec![net.route_to(BOB, transport)];
    net.with(ALICE, |ua, now| ua.options(ACCOUNT, uri("bob"), routes, now)).expect("options is allowed");
    net.run_to_the_end(MINUTES);
    net.assert_good();
    net.all_words(ALICE)
}

#[test]
fn options_is_answered() {
    for transport in BOTH {
        assert_eq!(options(&mut SimNet::pair(40), transport), ["OptionsDidAnswer(200)"]);
    }
}

#[test]
fn options_is_answered_through_20_percent_loss() {
    for seed in 1..=1_000 {
        let mut net = SimNet::pair(seed);
        net.link = Link::lossy(20, Duration::from_millis(80));
        assert_eq!(options(&mut net, Transport::Udp), ["OptionsDidAnswer(200)"], "seed {seed}");
    }
}

#[test]
fn options_to_nobody_is_408() {
    let mut net = SimNet::pair(41);
    net.drop = Some(Box::new(|_, _, _| true));
    assert_eq!(options(&mut net, Transport::Udp), ["OptionsDidAnswer(408)"]);
}

// --- ten thousand calls ----------------------------------------------------------------------------------------------

/// What the callee's application does with the call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Accept,
    Reject(u16),
    /// Lets it ring.
    Nothing,
}

/// What both applications will do, drawn from the seed.
#[derive(Clone, Debug)]
struct Plan {
    link: Link,
    transport: Transport,
    auto_ring: bool,
    rings: Option<Duration>,
    answers_after: Duration,
    answer: Answer,
    caller_ends_after: Duration,
    callee_ends_after: Duration,
}

impl Plan {
    fn draw(random: &mut StdRng, loss: u32) -> Self {
        let mut ms = |range: std::ops::Range<u64>| Duration::from_millis(random.random_range(range));
        let answers_after = ms(0..6_000);
        let (short, long) = (ms(0..8_000), ms(8_000..60_000));
        let (soon, late) = (ms(0..10_000), ms(10_000..60_000));
        let rings = ms(0..1_500);
        Self {
            link: Link {
                loss,
                duplicate: [0, 0, 5][random.random_range(0..3)],
                corrupt: 0,
                delay: (Duration::ZERO, Duration::from_millis([5, 50, 200, 800, 3_000][random.random_range(0..5)])),
            },
            transport: if random.random_range(0..10) == 0 { Transport::Tcp } else { Transport::Udp },
            auto_ring: random.random(),
            rings: random.random::<bool>().then_some(rings),
            answers_after,
            answer: match random.random_range(0..10) {
                0 => Answer::Reject([486, 480, 603][random.random_range(0..3)]),
                1 => Answer::Nothing,
                _ => Answer::Accept,
            },
            caller_ends_after: if random.random_range(0..4) == 0 { short } else { long },
            callee_ends_after: if random.random_range(0..4) == 0 { soon } else { late },
        }
    }
}

/// How a call went for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Talked,
    GaveUp,
    Refused,
    TimedOut,
}

fn random_call(seed: u64, loss: u32, traced: bool) -> Result<Outcome, String> {
    let plan = Plan::draw(&mut StdRng::seed_from_u64(seed ^ 0x5ca1_ab1e), loss);
    let mut net = SimNet::new(seed);
    net.trace = traced.then(|| vec![format!("{plan:?}")]);
    net.link = plan.link;
    net.add("alice", |_| {});
    net.add("bob", |config| config.auto_ring = plan.auto_ring);
    let of_bob = plan.clone();
    net.nodes[BOB].react = Some(Box::new(move |event, _| {
        let (EventKind::SessionNewIncoming { .. }, Some(session)) = (&event.kind, event.session()) else {
            return Vec::new();
        };
        let mut actions = vec![(of_bob.callee_ends_after, Action::End(session))];
        actions.extend(of_bob.rings.map(|after| (after, Action::Ring(session))));
        match of_bob.answer {
            Answer::Accept => actions.push((of_bob.answers_after, Action::Accept(session))),
            Answer::Reject(code) => actions.push((of_bob.answers_after, Action::Reject(session, code))),
            Answer::Nothing => {}
        }
        actions
    }));
    let alice = net.call(ALICE, BOB, plan.transport);
    net.plan(ALICE, plan.caller_ends_after, Action::End(alice));
    net.run_to_the_end(MINUTES);
    let result = net.check().and_then(|()| agree(&net, &plan));
    result.map_err(|error| format!("{error}\n{}", net.trace.clone().unwrap_or_default().join("\n")))
}

/// Checks that what the two sides were told fits together and to what they did.
fn agree(net: &SimNet, plan: &Plan) -> Result<Outcome, String> {
    let (alice, bob) = (net.all_words(ALICE), net.all_words(BOB));
    let fail = |what: &str| Err(format!("{what}\n  alice {alice:?}\n  bob {bob:?}"));
    let told = |words: &[String], what: &str| words.iter().any(|word| word == what);
    if bob.iter().filter(|word| word.starts_with("NewIncoming")).count() > 1 {
        return fail("one call came twice");
    }
    let failure = alice.iter().find_map(|word| word.strip_prefix("DidFail("));
    let outcome = if told(&alice, "DidStart") {
        if !told(&bob, "INCOMING>ACCEPTING") {
            return fail("alice talks to nobody");
        }
        Outcome::Talked
    } else {
        match failure {
            None => Outcome::GaveUp,
            Some("local 408)") if plan.transport == Transport::Udp && plan.link.loss > 0 => Outcome::TimedOut,
            Some(failure) => {
                let code = failure.strip_prefix("remote ").and_then(|rest| rest.strip_suffix(')'));
                let Some(Ok(code)) = code.map(str::parse::<u16>) else { return fail("no reason to fail") };
                let ended_by_bob = told(&bob, "INCOMING>TERMINATING");
                let by_end = net.nodes[BOB].events.iter().any(|(at, event)| {
                    word(&event.kind) == "INCOMING>TERMINATING"
                        && (plan.answer == Answer::Nothing || *at >= plan.callee_ends_after)
                });
                if !ended_by_bob || !(by_end || plan.answer == Answer::Reject(code)) {
                    return fail("refused by nobody");
                }
                Outcome::Refused
            }
        }
    };
    if told(&bob, "DidStart") && outcome == Outcome::Refused {
        return fail("bob talks to somebody he refused");
    }
    if outcome == Outcome::Talked && told(&bob, "DidFail(local 408)") && plan.link.loss <= 20 {
        return fail("eleven 200s, each with its ACK, and none came through");
    }
    let end = |node: usize| net.nodes[node].events.last().map(|(at, _)| *at).unwrap_or_default();
    let bye_lives = Duration::from_secs(32) + plan.link.delay.1;
    let apart = match (outcome, net.time_of(BOB, "DidStart")) {
        (_, None) => Duration::ZERO,
        (Outcome::Talked, Some(_)) => end(ALICE).abs_diff(end(BOB)),
        (_, Some(started)) => end(BOB) - started, // a 200 that crossed CANCEL: ACK and BYE come together
    };
    if apart > bye_lives {
        return fail("eleven BYEs, and none came through");
    }
    Ok(outcome)
}

/// Makes a call of each seed; the first that goes wrong is shown message by message. Returns how many went each way.
fn calls(seeds: std::ops::Range<u64>, loss: impl Fn(u64) -> u32) -> BTreeMap<Outcome, u32> {
    let mut outcomes = BTreeMap::new();
    for seed in seeds {
        let loss = loss(seed);
        match random_call(seed, loss, false) {
            Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
            Err(_) => {
                let again = random_call(seed, loss, true);
                panic!("seed {seed} at {loss} % loss: {}", again.expect_err("a seed fails again"));
            }
        }
    }
    outcomes
}

/// Both kinds of luck must occur, or the test would prove little; and bad luck must be rare: an INVITE is sent seven times.
fn assert_usual(outcomes: &BTreeMap<Outcome, u32>, most_timed_out: u32) {
    for outcome in [Outcome::Talked, Outcome::GaveUp, Outcome::Refused] {
        assert!(outcomes.get(&outcome).is_some_and(|count| *count >= 200), "{outcomes:?}");
    }
    assert!(outcomes.get(&Outcome::TimedOut).is_none_or(|count| *count <= most_timed_out), "{outcomes:?}");
}

#[test]
fn ten_thousand_calls_at_10_percent_loss() {
    assert_usual(&calls(100_000..110_000, |_| 10), 5);
}

#[test]
fn ten_thousand_calls_at_20_percent_loss() {
    assert_usual(&calls(200_000..210_000, |_| 20), 50);
}

#[test]
fn two_thousand_calls_at_50_percent_loss_leave_nothing() {
    let outcomes = calls(400_000..402_000, |_| 50);
    assert!(outcomes.get(&Outcome::Talked).is_some_and(|count| *count >= 200), "{outcomes:?}");
}

#[test]
fn four_thousand_calls_at_0_to_30_percent_loss() {
    assert_usual(&calls(300_000..304_000, |seed| (seed % 31) as u32), 100);
}

// --- bad days --------------------------------------------------------------------------------------------------------

/// What bob's application does with each call for `play` and after: takes most, and ends all of them in time.
fn takes_calls(net: &mut SimNet, node: usize, longest: Duration) {
    net.nodes[node].react = Some(Box::new(move |event, random| {
        let (EventKind::SessionNewIncoming { .. }, Some(session)) = (&event.kind, event.session()) else {
            return Vec::new();
        };
        let answer = match random.random_range(0..8) {
            0 => Action::Reject(session, 486),
            1 => Action::Ring(session),
            _ => Action::Accept(session),
        };
        let soon = random.random_range(Duration::ZERO..Duration::from_secs(8));
        vec![(soon, answer), (random.random_range(Duration::ZERO..longest), Action::End(session))]
    }));
}

#[test]
fn three_thousand_calls_with_damaged_messages_end_well() {
    for seed in 500_000..503_000 {
        let mut net = SimNet::pair(seed);
        net.link = Link { corrupt: 25, loss: 5, ..Link::lossy(0, Duration::from_millis(50)) };
        takes_calls(&mut net, BOB, Duration::from_secs(40));
        let alice = net.call(ALICE, BOB, Transport::Udp);
        let ends = Duration::from_millis(seed % 30_000);
        net.plan(ALICE, ends, Action::End(alice));
        net.run_to_the_end(MINUTES);
        net.assert_good();
    }
}

/// Four user agents call each other for a day, through loss, short outages, and now and then over TCP.
#[test]
fn a_day_of_calls_leaves_nothing() {
    const DAY: u64 = 24 * 3_600;
    const CALLS: u64 = 6_000;
    let mut net = SimNet::new(1_440);
    for name in ["alice", "bob", "carol", "dave"] {
        let node = net.add(name, |_| {});
        takes_calls(&mut net, node, Duration::from_secs(300));
    }
    net.link = Link { loss: 3, duplicate: 2, ..Link::lossy(0, Duration::from_millis(200)) };
    let mut calls = Vec::new();
    for call in 0..CALLS {
        let outage = call % 50 == 0;
        let good = net.link;
        if outage {
            net.link = Link { loss: 100, ..good };
            net.run_ms(4_000);
            net.link = good;
        }
        net.run_ms(DAY * 1_000 / CALLS - if outage { 4_000 } else { 0 });
        let caller = net.random.random_range(0..4);
        let callee = (caller + net.random.random_range(1..4)) % 4;
        let transport = if net.random.random_range(0..5) == 0 { Transport::Tcp } else { Transport::Udp };
        let session = net.call(caller, callee, transport);
        let ends = net.random.random_range(Duration::ZERO..Duration::from_secs(300));
        net.plan(caller, ends, Action::End(session));
        calls.push((caller, session));
        if call % 10 == 0 {
            let routes = vec![net.route_to(callee, transport)];
            let pinged = uri(net.nodes[callee].name);
            net.with(caller, |ua, now| ua.options(ACCOUNT, pinged, routes, now)).expect("options is allowed");
        }
    }
    net.run_to_the_end(MINUTES);
    net.assert_good();
    let talked =
        calls.iter().filter(|(node, session)| net.words(*node, *session).iter().any(|word| word == "DidStart"));
    assert!(talked.count() as u64 > CALLS / 2);
    let pings: usize =
        (0..4).map(|node| net.all_words(node).iter().filter(|word| word.starts_with("Options")).count()).sum();
    assert_eq!(pings as u64, CALLS / 10);
}

#[test]
fn an_outage_of_4_s_does_not_end_a_call_and_delays_its_end() {
    let (mut net, [alice, _]) = established(60, Transport::Udp);
    net.link = Link { loss: 100, ..Link::PERFECT };
    net.end(ALICE, alice);
    net.run_ms(4_000);
    net.link = Link::PERFECT;
    assert_eq!(net.time_of(ALICE, "DidEnd(local)"), Some(Duration::from_secs(3)), "BYE has a second");
    assert_eq!(net.time_of(BOB, "DidEnd(remote)"), None);
    net.run_ms(4_000);
    assert_eq!(net.time_of(BOB, "DidEnd(remote)"), Some(Duration::from_millis(9_510)), "the fifth BYE, after 7.5 s");
    net.run_to_the_end(MINUTES);
    net.assert_good();
}

#[test]
fn over_a_satellite_a_call_is_set_up_within_4_round_trips() {
    let one_way = Duration::from_millis(350);
    let mut net = SimNet::pair(61);
    net.link = Link { delay: (one_way, one_way), ..Link::PERFECT };
    net.nodes[BOB].react = Some(Box::new(|event, _| match (&event.kind, event.session()) {
        (EventKind::SessionNewIncoming { .. }, Some(session)) => vec![(Duration::ZERO, Action::Accept(session))],
        _ => Vec::new(),
    }));
    net.call(ALICE, BOB, Transport::Udp);
    net.run_ms(10_000);
    assert_eq!(net.time_of(ALICE, "DidStart"), Some(2 * one_way));
    assert_eq!(net.time_of(BOB, "DidStart"), Some(3 * one_way));
}

/// A peer that starts calls and says no more: each is taken, none is acknowledged, 32 s later nothing of it is left.
#[test]
fn five_thousand_calls_without_an_ack_are_forgotten() {
    let mut net = SimNet::pair(62);
    let carol = net.add_raw("carol");
    net.nodes[BOB].react = Some(Box::new(|event, _| match (&event.kind, event.session()) {
        (EventKind::SessionNewIncoming { .. }, Some(session)) => vec![(Duration::ZERO, Action::Accept(session))],
        _ => Vec::new(),
    }));
    for call in 0..5_000 {
        let invite = raw_invite(&net, carol, "Content-Type: application/sdp\n", AUDIO);
        let invite = invite.replace("raw1", &format!("raw{call}")).replace("raw@", &format!("raw{call}@"));
        net.send_raw(carol, BOB, &invite);
        net.run_ms(2);
    }
    let ua = net.nodes[BOB].ua.as_ref().expect("a user agent");
    assert_eq!(ua.sessions().len(), 4_096, "half-open calls of one source are limited");
    net.run_to_the_end(MINUTES);
    net.assert_good();
    let words = net.all_words(BOB);
    assert_eq!(words.iter().filter(|word| *word == "DidFail(local 408)").count(), 4_096);
}

// --- locating (RFC 3263) ---------------------------------------------------------------------------------------------

/// Alice, and bob's proxies one to three, at most one of which answers.
fn net_with_servers(seed: u64) -> SimNet {
    let mut net = SimNet::pair(seed);
    let addresses: Vec<_> = ["192.0.2.71", "192.0.2.72"].map(|text| text.parse().expect("an address")).into();
    let bob = net.nodes[BOB].address.ip();
    net.dns.host("one.example.com", &addresses[..1]);
    net.dns.host("two.example.com", &addresses[1..]);
    net.dns.host("three.example.com", &[bob]);
    net.nodes[BOB].react = Some(Box::new(|event, _| match (&event.kind, event.session()) {
        (EventKind::SessionNewIncoming { .. }, Some(session)) => vec![(Duration::ZERO, Action::Accept(session))],
        _ => Vec::new(),
    }));
    net
}

fn routes_tried(net: &SimNet, call: SessionId) -> Vec<String> {
    let changed = |event: &Event| match &event.kind {
        EventKind::SessionDidChangeRoute { route, code, .. } => {
            Some(format!("{} {}:{} {code}", route.transport, route.address, route.port))
        }
        _ => None,
    };
    let events = net.nodes[ALICE].events.iter().map(|(_, event)| event);
    events.filter(|event| event.session() == Some(call)).filter_map(changed).collect()
}

#[test]
fn a_call_without_routes_goes_along_all_servers_of_the_domain() {
    let mut net = net_with_servers(5);
    let at = net.nodes[BOB].address;
    net.dns.naptr("example.com", &[("SIP+D2T", "_sip._tcp.example.com"), ("SIP+D2U", "_sip._udp.example.com")]);
    // The first refuses the connection, the second is silent for 32 s, the third is bob.
    net.dns.srv("_sip._tcp.example.com", &[("one.example.com", 5060)]);
    net.dns.srv("_sip._udp.example.com", &[("two.example.com", 5060), ("three.example.com", at.port())]);
    let call = net.connect(ALICE, uri("bob"), Vec::new()).expect("a call");
    net.run_for(Duration::from_secs(40));
    assert_eq!(
        routes_tried(&net, call),
        ["udp 192.0.2.72:5060 503".to_owned(), format!("udp {}:{} 408", at.ip(), at.port()),]
    );
    let snapshot = net.ua(ALICE).snapshot(call).expect("a call");
    assert_eq!(snapshot.state, SessionState::Established);
    assert_eq!(snapshot.route, Some(Route::new(at.ip().to_string(), at.port(), Transport::Udp)));
    let asked: Vec<_> = net.asked.iter().map(Question::name).collect();
    let expected = [
        "example.com",
        "_sip._tcp.example.com",
        "_sip._udp.example.com",
        "one.example.com",
        "two.example.com",
        "three.example.com",
    ];
    assert_eq!(asked, expected);
    net.end(ALICE, call);
    net.run_to_the_end(Duration::from_secs(100));
    net.assert_idle();
}

#[test]
fn name_servers_that_do_not_answer_cost_five_seconds_at_most() {
    let mut net = net_with_servers(6);
    for name in ["example.com", "_sip._udp.example.com", "_sip._tcp.example.com"] {
        net.dns.silent.insert(name.to_owned());
    }
    let call = net.connect(ALICE, uri("bob"), Vec::new()).expect("a call");
    net.run_to_the_end(Duration::from_secs(10));
    assert_eq!(net.time_of(ALICE, "DidFail(local 503)"), Some(Duration::from_secs(5)));
    assert_eq!(routes_tried(&net, call), [""; 0]);
    net.assert_idle();
}

#[test]
fn an_options_without_routes_is_located_too() {
    let mut net = net_with_servers(7);
    let at = net.nodes[BOB].address;
    net.dns.srv("_sip._udp.example.com", &[("three.example.com", at.port())]);
    net.dns.delay = Duration::from_millis(100);
    net.with(ALICE, |ua, now| ua.options(ACCOUNT, uri("bob"), Vec::new(), now)).expect("a request");
    net.run_to_the_end(Duration::from_secs(100));
    assert_eq!(net.all_words(ALICE), ["OptionsDidAnswer(200)"]);
    net.assert_idle();
}
