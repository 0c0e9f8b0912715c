//! Call flows after RFC 3665, RFC 5359 and later RFCs (`tests/data/sip/flows`): our user agent plays one party, the
//! messages of the others are replayed, and what it sends is compared with what the flow says.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::harness::*;
use crate::event::{Route, SessionId, SessionState};
use crate::sip::build::Builder;
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::refer::ReferTo;
use crate::sip::transport::{Flow, Transport};
use crate::ua::{AccountSettings, Connect};

const UP: [&str; 4] = ["WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart"];
const CALLING: [&str; 2] = ["NULL>CALLING", "NewOutgoing audio"];
const RINGS: [&str; 3] = ["NULL>CALLING", "NewOutgoing audio", "GotRingIndication"];
const ENDS: [&str; 5] =
    ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate ", "TERMINATING>TERMINATED", "DidEnd local"];
const ENDED: [&str; 3] = ["GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd remote"];
const COMES: [&str; 2] = ["NULL>INCOMING", "NewIncoming audio"];
const ANSWERS: [&str; 5] =
    ["INCOMING>ACCEPTING", "WillStart", "GotStreamUpdate audio", "ACCEPTING>ESTABLISHED", "DidStart"];
const REFUSES: [&str; 4] = ["INCOMING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd local"];

fn load(name: &str) -> Value {
    let path = format!("{}/tests/data/sip/flows/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("a flow")).expect("JSON")
}

/// One party of a flow, played by us.
struct Player {
    side: Side,
    /// Names of the flow and what ours are: branches, tags, Call-ID.
    names: Vec<(String, String)>,
    sent: VecDeque<Message>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

impl Player {
    /// Learns the name the flow has for something of ours.
    fn learn(&mut self, flow: Option<&[u8]>, ours: Option<&[u8]>) {
        if let (Some(flow), Some(ours)) = (flow, ours) {
            let pair = (text(flow), text(ours));
            if !self.names.contains(&pair) {
                self.names.insert(0, pair);
            }
        }
    }

    /// Compares a message of ours with the flow's, and learns its names.
    fn compare(&mut self, expected: &Message, sent: &Message, step: usize) {
        assert_eq!(first_line(sent), first_line(expected), "step {step}");
        if expected.is_request() {
            if sent.to().unwrap().tag().is_some() {
                assert_eq!(text(sent.request_uri_raw()), text(expected.request_uri_raw()), "step {step}");
            }
            let branches = [expected, sent].map(|message| message.top_via().unwrap().branch().unwrap().to_vec());
            self.learn(Some(&branches[0]), Some(&branches[1]));
            self.learn(expected.from().unwrap().tag(), sent.from().unwrap().tag());
            self.learn(expected.call_id().ok(), sent.call_id().ok());
            if *sent.method() != Method::Ack {
                let numbers = [expected, sent].map(|message| format!("CSeq: {}", header(message, "CSeq")));
                self.learn(Some(numbers[0].as_bytes()), Some(numbers[1].as_bytes()));
            }
        } else {
            let vias = [expected, sent].map(|message| message.header_values(HeaderName::Via).count());
            assert_eq!(vias[0], vias[1], "step {step}");
            self.learn(expected.to().unwrap().tag(), sent.to().unwrap().tag());
        }
        assert_eq!(sent.body().is_empty(), expected.body().is_empty(), "the body of step {step}");
        let names = |value: String| self.names.iter().fold(value, |value, (flow, ours)| value.replace(flow, ours));
        assert_eq!(header(sent, "Replaces"), names(header(expected, "Replaces")), "step {step}");
        let by = header(expected, "Referred-By");
        assert!(by.is_empty() || header(sent, "Referred-By") == by, "step {step}"); // where a flow leaves it out, we do not
        if expected.header_named("Refer-To").is_some() {
            let [flow, ours] = [expected, sent].map(|message| ReferTo::of(message).expect("whom to call"));
            assert_eq!(ours.target, flow.target, "step {step}");
            assert_eq!(ours.replaces, flow.replaces.map(names), "step {step}");
        }
    }

    /// We ring and report more than some flows show (`later` are the messages they still do): that is answered and
    /// forgotten. Of what both have, a report may come a little earlier or later than in the flow.
    fn pass_over(&mut self, later: &[Message], now: std::time::Instant) {
        let is_report = |message: &Message| message.is_request() && *message.method() == Method::Notify;
        let what = |message: &Message| message.body().get(..11).unwrap_or_default().to_vec();
        let shown: Vec<_> = later.iter().filter(|message| is_report(message)).map(what).collect();
        while let Some(at) = self.sent.iter().position(|sent| is_report(sent) && !shown.contains(&what(sent))) {
            let report = self.sent.remove(at).expect("it is there");
            let answer = Builder::response(&report, 200, "", None, self.side.at).finish(None);
            let target = report.request_uri().expect("a URI");
            let peer = address(&format!("{}:{}", target.host_str(), target.port.unwrap_or(5060)));
            let flow = Flow::to(Transport::Udp, peer);
            self.side.ua.handle_message(Message::parse(answer).expect("a response"), flow, now);
            self.drain(now);
        }
        let rings = |message: &Message| message.status() == Some(180);
        if !rings(&later[0]) && self.sent.front().is_some_and(rings) {
            self.sent.pop_front();
        }
        if is_report(&later[0])
            && let Some(at) = self.sent.iter().position(|sent| is_report(sent) && what(sent) == what(&later[0]))
            && let Some(report) = self.sent.remove(at)
        {
            self.sent.push_front(report);
        }
    }

    /// Makes our side send this re-INVITE.
    fn change(&mut self, expected: &Message, now: std::time::Instant) {
        let session = self.side.last();
        let snapshot = self.side.ua.snapshot(session).expect("a call");
        let body = text(expected.body());
        let ua = &mut self.side.ua;
        match (snapshot.has_audio, has_media(expected, "audio")) {
            (false, true) => ua.add_audio(session, now),
            (true, false) => ua.remove_audio(session, now),
            _ => ua.hold(session, ["sendonly", "inactive", "0.0.0.0"].iter().any(|held| body.contains(held)), now),
        }
        .expect("allowed");
        self.drain(now);
    }

    fn drain(&mut self, now: std::time::Instant) {
        let sent = self.side.drain(now);
        self.sent.extend(sent.into_iter().map(|(_, bytes, _)| Message::parse(bytes).expect("ours can be read")));
    }
}

/// Whether a stream of this kind is described and in use.
fn has_media(message: &Message, kind: &str) -> bool {
    let body = text(message.body());
    let mut lines = body.lines().filter_map(|line| line.strip_prefix("m=")?.strip_prefix(kind));
    lines.any(|line| !line.starts_with(" 0 "))
}

/// Plays `role`; gives back its notifications.
fn play(name: &str, role: &str) -> Vec<String> {
    let flow = load(name);
    let at = |host: &str| format!("{}:5060", flow["hosts"][host].as_str().expect("a host"));
    let steps: Vec<(&str, &str, &str)> = flow["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| (step["from"].as_str().unwrap(), step["to"].as_str().unwrap(), step["raw"].as_str().unwrap()))
        .filter(|(from, to, _)| *from == role || *to == role)
        .collect();
    let parse = |raw: &str| Message::parse(raw.as_bytes().to_vec().into()).expect("a message");
    let mut player = Player { side: Side::new(role, &at(role), 3), names: Vec::new(), sent: VecDeque::new() };
    player.side.ua.config_mut().auto_ring = steps.iter().any(|(_, _, raw)| raw.starts_with("SIP/2.0 180"));
    let mine = steps.iter().find(|(from, ..)| *from == role).expect("a part");
    let first = parse(mine.2);
    let own = if first.is_request() { first.from() } else { first.to() };
    let settings = AccountSettings {
        srtp: crate::media::SrtpPolicy::Disabled,
        ..AccountSettings::new(own.unwrap().uri().unwrap())
    };
    player.side.ua.set_account(ACCOUNT, settings);
    let mut now = start();
    for (index, (from, _, raw)) in steps.iter().enumerate() {
        if *from != role {
            let raw = player.names.iter().fold(raw.to_string(), |raw, (flow, ours)| raw.replace(flow, ours));
            let mine = steps.iter().skip(index).find(|(from, ..)| *from == role);
            if raw.starts_with("INVITE") && mine.is_some_and(|(_, _, raw)| raw.starts_with("INVITE")) {
                player.change(&parse(mine.expect("a step").2), now); // both at once
            }
            let flow = Flow::to(Transport::Udp, address(&at(from)));
            player.side.ua.handle_message(parse(&raw), flow, now);
            player.drain(now);
            continue;
        }
        let expected = parse(raw);
        let mine = steps.iter().skip(index).filter(|(from, ..)| *from == role);
        let later: Vec<Message> = mine.map(|(_, _, raw)| parse(raw)).collect();
        player.pass_over(&later, now);
        if player.sent.is_empty() {
            let session = player.side.snapshots.keys().next_back().copied();
            let session = session.unwrap_or(SessionId(0));
            let ua = &mut player.side.ua;
            let state = player.side.snapshots.get(&session).map(|snapshot| snapshot.state);
            let proposed = state == Some(SessionState::Proposed);
            match (expected.method(), expected.status()) {
                (Method::Invite, None) if expected.to().unwrap().tag().is_some() => player.change(&expected, now),
                (Method::Update, None) => {
                    while player.sent.is_empty() {
                        now = player.side.ua.poll_timeout().expect("a refresh is due");
                        player.side.ua.handle_timeout(now);
                        player.drain(now);
                    }
                }
                (Method::Invite, Some(200)) if proposed => {
                    ua.accept_proposal(session, true, false, now).expect("accepted");
                }
                (Method::Invite, Some(code)) if proposed => {
                    ua.reject_proposal(session, code, None, now).expect("rejected");
                }
                (Method::Invite, None) => {
                    // Every route the flow will try, in its order.
                    let after = steps.iter().skip(index);
                    let invites = after.filter(|(from, _, raw)| *from == role && raw.starts_with("INVITE"));
                    let routes: Vec<Route> = invites.map(|(_, to, _)| route(&at(to))).collect();
                    let callee = expected.request_uri().unwrap();
                    let call = Connect {
                        account: ACCOUNT,
                        callee,
                        routes,
                        audio: !has_media(&expected, "message"),
                        chat: has_media(&expected, "message"),
                        late_offer: false,
                        extra_headers: vec![],
                    };
                    let _ = ua.connect(call, now).expect("a call");
                }
                (Method::Invite, Some(200)) => {
                    let chat = has_media(&expected, "message");
                    ua.accept(session, !chat, chat, now).expect("accepted");
                }
                (Method::Invite, Some(code)) => ua.reject(session, code, None, now).expect("rejected"),
                (Method::Info, None) => {
                    let body = bytes::Bytes::copy_from_slice(expected.body());
                    let _ = ua.send_info(session, body, &header(&expected, "Content-Type"), None, now).expect("sent");
                }
                (Method::Refer, None) => {
                    // The call that asks is the first, the one to be replaced the last.
                    let first = *player.side.snapshots.keys().next().expect("a call");
                    let target = ReferTo::of(&expected).expect("a target");
                    let replaces = target.replaces.is_some().then_some(session);
                    ua.transfer(first, Some(target.target), replaces, now).expect("asked");
                }
                (Method::Refer, Some(202)) => {
                    let after = steps.iter().skip(index);
                    let invites = after.filter(|(from, _, raw)| *from == role && raw.starts_with("INVITE"));
                    let routes = invites.map(|(_, to, _)| route(&at(to))).collect();
                    let _ = ua.accept_transfer(session, routes, now).expect("accepted");
                }
                (Method::Refer, Some(code)) => ua.reject_transfer(session, code, now).expect("rejected"),
                (Method::Bye | Method::Cancel, None) => ua.end(session, None, now).expect("ended"),
                other => panic!("{name}: nothing makes {other:?} at step {index}"),
            }
            player.drain(now);
        }
        player.pass_over(&later, now);
        let sent = player.sent.pop_front().unwrap_or_else(|| panic!("{name}: nothing was sent at step {index}"));
        player.compare(&expected, &sent, index);
    }
    assert!(player.sent.is_empty(), "{name}: {:?}", player.sent);
    let mut later = now;
    while let Some(at) = player.side.ua.poll_timeout() {
        assert!(at < now + Duration::from_secs(200), "{name}: something goes on for ever");
        later = later.max(at);
        player.side.ua.handle_timeout(later);
        player.drain(later);
    }
    assert!(player.side.ua.is_idle(), "{name}: {:?}", player.side.ua);
    player.side.take_log()
}

#[test]
fn the_caller_in_each_flow() {
    let held = [&UP[..], &["GotHoldRequest remote"]].concat();
    let resumed = [&held[..], &["GotUnholdRequest remote"]].concat();
    let failed = |before: &[&'static str], failure: &'static str| {
        [before, &["CALLING>TERMINATED", failure, "DidEnd remote"]].concat()
    };
    let cancelled =
        [&RINGS[..], &["CALLING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd local"]].concat();
    let changed_route = ["DidChangeRoute 127.0.0.22 503 Service Unavailable"];
    let flows: [(&str, Vec<&str>); 18] = [
        ("3665-3.1-session", [&RINGS[..], &UP, &ENDED].concat()),
        ("early-media-183", [&CALLING[..], &UP, &ENDS].concat()),
        ("3665-3.4-first-route-503", [&CALLING[..], &changed_route, &UP, &ENDS].concat()),
        ("3665-3.6-redirect", failed(&CALLING, "DidFail remote 302 Moved Temporarily")),
        ("3665-3.7-reinvite-ip-change", [&RINGS[..], &UP, &ENDS].concat()),
        ("3665-3.8-no-answer-cancel", cancelled.clone()),
        ("cancel-crosses-200", cancelled),
        ("3665-3.9-busy", failed(&CALLING, "DidFail remote 486 Busy Here")),
        ("3665-3.11-unavailable", failed(&RINGS, "DidFail remote 480 Temporarily Unavailable")),
        ("declined", failed(&RINGS, "DidFail remote 603 Decline")),
        ("not-found", failed(&CALLING, "DidFail remote 404 Not Found")),
        ("not-acceptable", failed(&CALLING, "DidFail remote 488 Not Acceptable Here")),
        ("server-error", failed(&CALLING, "DidFail remote 500 Server Internal Error")),
        ("forked-two-200", [&RINGS[..], &UP, &ENDS].concat()),
        ("5359-2.1-hold", [&RINGS[..], &resumed, &ENDS].concat()),
        ("hold-old-0.0.0.0", [&RINGS[..], &held, &ENDS].concat()),
        ("5359-2.8-forward-busy", [&RINGS[..], &UP, &ENDS].concat()),
        ("dtmf-info", [&RINGS[..], &UP, &["DidDeliverInfo 200 OK"], &ENDS].concat()),
    ];
    for (name, expected) in flows {
        assert_eq!(play(name, "alice"), expected, "{name}");
    }
}

#[test]
fn the_callee_in_each_flow() {
    let cancelled = ["INCOMING>TERMINATED", "DidFail remote 487 Request cancelled", "DidEnd remote"];
    let flows: [(&str, Vec<&str>); 10] = [
        ("dtmf-info", [&COMES[..], &ANSWERS, &["GotDTMF 5"], &ENDED].concat()),
        ("3665-3.1-session", [&COMES[..], &ANSWERS, &ENDS].concat()),
        ("late-offer", [&COMES[..], &ANSWERS, &ENDED].concat()),
        ("3665-3.8-no-answer-cancel", [&COMES[..], &cancelled].concat()),
        ("3665-3.9-busy", [&COMES[..], &REFUSES].concat()),
        ("3665-3.11-unavailable", [&COMES[..], &REFUSES].concat()),
        ("declined", [&COMES[..], &REFUSES].concat()),
        ("not-found", [&COMES[..], &REFUSES].concat()),
        ("not-acceptable", [&COMES[..], &REFUSES].concat()),
        ("server-error", [&COMES[..], &REFUSES].concat()),
    ];
    for (name, expected) in flows {
        assert_eq!(play(name, "bob"), expected, "{name}");
    }
}

#[test]
fn changes_in_mid_call_in_both_roles() {
    const LOCAL: [&str; 2] = ["GotHoldRequest local", "GotUnholdRequest local"];
    const REMOTE: [&str; 2] = ["GotHoldRequest remote", "GotUnholdRequest remote"];
    let caller = [&RINGS[..], &UP].concat();
    let callee = [&COMES[..], &ANSWERS].concat();
    let chat_caller = [
        "NULL>CALLING",
        "NewOutgoing chat",
        "GotRingIndication",
        "WillStart",
        "CALLING>ESTABLISHED",
        "DidStart",
        "GotStreamUpdate chat",
    ];
    let chat_callee = [
        "NULL>INCOMING",
        "NewIncoming chat",
        "INCOMING>ACCEPTING",
        "WillStart",
        "ACCEPTING>ESTABLISHED",
        "DidStart",
        "GotStreamUpdate chat",
    ];
    let proposes = ["ESTABLISHED>PROPOSING", "GotStreamProposal local audio", "PROPOSING>ESTABLISHED"];
    let proposed = ["ESTABLISHED>PROPOSED", "GotStreamProposal remote audio", "PROPOSED>ESTABLISHED"];
    let both_hold = ["GotHoldRequest remote", LOCAL[0], "GotUnholdRequest remote", LOCAL[1]];
    let both_held = [LOCAL[0], REMOTE[0], LOCAL[1], REMOTE[1]];
    let audio = ["GotStreamUpdate audio+chat", "GotStreamUpdate chat"];
    let flows: [(&str, &str, Vec<&str>); 12] = [
        ("5359-2.1-hold", "bob", [&callee[..], &LOCAL, &ENDED].concat()),
        ("hold-old-0.0.0.0", "bob", [&callee[..], &LOCAL[..1], &ENDED].concat()),
        ("hold-both-sides", "alice", [&caller[..], &both_hold, &ENDED].concat()),
        ("hold-both-sides", "bob", [&callee[..], &both_held, &ENDS].concat()),
        ("reinvite-glare", "alice", [&caller[..], &LOCAL[..1], &ENDS].concat()),
        ("reinvite-glare", "bob", [&callee[..], &LOCAL[..1], &ENDED].concat()),
        ("session-timer", "alice", [&CALLING[..], &UP, &ENDS].concat()),
        ("session-timer", "bob", [&callee[..], &ENDED].concat()),
        (
            "add-audio-to-chat",
            "alice",
            [&chat_caller[..], &proposes, &["AcceptedStreamProposal local"], &audio, &ENDS].concat(),
        ),
        (
            "add-audio-to-chat",
            "bob",
            [&chat_callee[..], &proposed, &["AcceptedStreamProposal remote"], &audio, &ENDED].concat(),
        ),
        (
            "reject-proposal",
            "alice",
            [&chat_caller[..], &proposes, &["RejectedStreamProposal local Not Acceptable Here"], &ENDS].concat(),
        ),
        (
            "reject-proposal",
            "bob",
            [&chat_callee[..], &proposed, &["RejectedStreamProposal remote Rejected by user"], &ENDED].concat(),
        ),
    ];
    for (name, role, expected) in flows {
        assert_eq!(play(name, role), expected, "{name}, {role}");
    }
}

#[test]
fn who_is_transferred_in_each_flow() {
    let asked = |target: &'static str| {
        [&RINGS[..], &UP, &[target], &["NULL>CALLING", "NewOutgoing audio"], &["TransferDidStart with 2"]].concat()
    };
    let carol = "GotTransferRequest sip:carol@chicago.example.com by sip:bob@biloxi.example.com";
    let at_carol = "GotTransferRequest sip:carol@127.0.0.13:5060 replacing 878e6f29921b58e9@127.0.0.12 by \
                    sip:bob@biloxi.example.com";
    let park = "GotTransferRequest sip:park@server.example.com by sip:bob@biloxi.example.com";
    let done = ["TransferDidEnd 200 OK"];
    let mut attended = asked(at_carol);
    attended.insert(RINGS.len() + UP.len(), "GotHoldRequest remote");
    let flows = [
        ("5359-2.4-blind-transfer", [&asked(carol)[..], &["GotRingIndication"], &UP, &done, &ENDED, &ENDS].concat()),
        ("5359-2.5-attended-transfer", [&attended[..], &UP, &done, &ENDED, &ENDS].concat()),
        ("5359-2.15-park", [&asked(park)[..], &UP, &done, &ENDED, &ENDED].concat()),
        (
            "transfer-refused",
            [&RINGS[..], &UP, &["GotTransferRequest sip:+1900premium@pstn.example.com"], &ENDED].concat(),
        ),
    ];
    for (name, expected) in flows {
        assert_eq!(play(name, "alice"), expected, "{name}");
    }
}

#[test]
fn who_transfers_in_each_flow() {
    let asks = |target: &'static str| [&COMES[..], &ANSWERS, &[target]].concat();
    let succeeds = ["TransferDidEnd 200 OK"];
    let starts = ["TransferDidStart", "TransferGotProgress 100 Trying"];
    let carol = "TransferNewOutgoing sip:carol@chicago.example.com";
    let park = "TransferNewOutgoing sip:park@server.example.com";
    let premium = "TransferNewOutgoing sip:+1900premium@pstn.example.com";
    let flows = [
        ("5359-2.4-blind-transfer", [&asks(carol)[..], &starts, &succeeds, &ENDS].concat()),
        ("5359-2.15-park", [&asks(park)[..], &["TransferDidStart"], &succeeds, &ENDS].concat()),
        ("transfer-refused", [&asks(premium)[..], &["TransferDidFail 603 Decline"], &ENDS].concat()),
    ];
    for (name, expected) in flows {
        assert_eq!(play(name, "bob"), expected, "{name}");
    }
    let attended = play("5359-2.5-attended-transfer", "bob");
    let to_carol = attended.iter().find(|line| line.starts_with("TransferNewOutgoing")).expect("a transfer");
    assert!(to_carol.starts_with("TransferNewOutgoing sip:carol@127.0.0.13:5060 replacing "), "{to_carol}");
    let expected = [&COMES[..], &ANSWERS, &["GotHoldRequest local"], &RINGS, &UP, &[to_carol], &starts, &ENDED];
    assert_eq!(attended, [&expected.concat()[..], &succeeds, &ENDS].concat());
}

#[test]
fn whom_somebody_is_transferred_to_in_each_flow() {
    assert_eq!(play("5359-2.4-blind-transfer", "carol"), [&COMES[..], &ANSWERS, &ENDED].concat());
    assert_eq!(play("5359-2.15-park", "park"), [&COMES[..], &ANSWERS, &ENDS].concat());
    let replaced = ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate ", "TERMINATING>TERMINATED"];
    let replaced = [&replaced[..], &["DidEnd local Replaced by another call"]].concat();
    let expected = [&COMES[..], &ANSWERS, &COMES, &ANSWERS, &replaced, &ENDED];
    assert_eq!(play("5359-2.5-attended-transfer", "carol"), expected.concat());
}
