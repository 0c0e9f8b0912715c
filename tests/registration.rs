//! Registrations over the simulated network, against a registrar that keeps bindings as RFC 3261 §10.3 says: the
//! conformance purposes 55 to 64, the flows after RFC 3665 §2, and a simulated day of fifty accounts.

mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use sipwire::event::{AccountId, EventKind, Sender};
use sipwire::sip::digest::Credentials;
use sipwire::sip::message::{HeaderName, Message};
use sipwire::sip::transport::{Flow, Transport};
use sipwire::sip::uri::Uri;
use sipwire::ua::locate::{Answer, Question};
use sipwire::ua::{AccountSettings, Output, RegistrationSettings, UserAgent};

use support::registrar::{Register, Registrar};
use support::{ACCOUNT, Link, SimNet, any_instant, config, uri, word};

const ALICE: &str = "sip:alice@example.com";

struct Net {
    net: SimNet,
    registrar: Rc<RefCell<Registrar>>,
}

fn registration(registrar: &str) -> RegistrationSettings {
    let registrar = Some(Uri::parse(registrar.as_bytes()).expect("a URI"));
    RegistrationSettings { registrar, expires: Duration::from_secs(600), instance: None }
}

impl Net {
    /// Alice (0) and a registrar (1); she does not register yet.
    fn new(seed: u64) -> Self {
        let mut net = SimNet::new(seed);
        net.add("alice", |_| {});
        let node = net.add_raw("registrar");
        let registrar = Registrar::serve(&mut net, node);
        Self { net, registrar }
    }

    fn registering(change: impl FnOnce(&mut AccountSettings)) -> Self {
        let mut net = Self::new(1);
        net.register(change);
        net
    }

    fn register(&mut self, change: impl FnOnce(&mut AccountSettings)) {
        let mut settings = AccountSettings::new(uri("alice"));
        settings.registration = Some(registration(&format!("sip:{}", self.net.nodes[1].address)));
        change(&mut settings);
        self.net.with(0, |ua, now| {
            ua.set_account(ACCOUNT, settings);
            ua.settings_changed(ACCOUNT, now);
        });
    }

    fn run(&mut self, seconds: u64) {
        self.net.run_for(Duration::from_secs(seconds));
    }

    fn log(&self) -> Vec<Register> {
        self.registrar.borrow().log.clone()
    }

    fn script(&self, script: impl FnMut(&Register) -> support::registrar::Answer + 'static) {
        self.registrar.borrow_mut().script = Some(Box::new(script));
    }

    /// What the account posted: (seconds, short text).
    fn told(&self) -> Vec<(f64, String)> {
        let events = self.net.nodes[0].events.iter();
        let events = events.filter(|(_, event)| event.sender == Sender::Account(ACCOUNT));
        events.map(|(at, event)| (at.as_secs_f64(), short(&event.kind))).collect()
    }

    fn words(&self) -> Vec<String> {
        self.told().into_iter().map(|(_, word)| word).collect()
    }

    fn unregister(&mut self) {
        assert!(self.net.with(0, |ua, now| ua.unregister(ACCOUNT, now)).expect("an account"));
        self.run(100);
        self.net.assert_idle();
    }
}

fn short(kind: &EventKind) -> String {
    match kind {
        EventKind::AccountWillRegister => "will".into(),
        EventKind::AccountRegistrationDidSucceed { expires, .. } => format!("for {expires}"),
        EventKind::AccountRegistrationDidFail { code, .. } => format!("failed {code}"),
        EventKind::AccountRegistrationDidEnd => "end".into(),
        other => word(other),
    }
}

/// (55) One Call-ID and a CSeq number that rises by one, refresh after refresh and to the end.
#[test]
fn one_call_id_and_a_number_more_each_time() {
    let mut net = Net::registering(|_| {});
    net.run(4 * 3600);
    net.unregister();
    let log = net.log();
    assert!(log.len() > 24, "{}", log.len());
    for (index, register) in log.iter().enumerate() {
        assert_eq!(register.call_id, log[0].call_id);
        assert_eq!(register.number as usize, index + 1);
    }
    let branches: std::collections::BTreeSet<_> =
        log.iter().map(|register| register.message.top_via().unwrap().branch().unwrap().to_vec()).collect();
    assert_eq!(branches.len(), log.len(), "a branch of its own for each");
}

/// (56) Refreshed after 80 to 95 % of the time granted, never at the same point twice in a row, never late.
#[test]
fn refreshed_before_it_runs_out() {
    for granted in [60_u32, 600, 3600] {
        let mut net = Net::new(granted.into());
        net.register(|settings| {
            settings.registration.as_mut().unwrap().expires = Duration::from_secs(granted.into());
        });
        net.run(u64::from(granted) * 40);
        let log = net.log();
        let shares: Vec<f64> =
            log.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64() / f64::from(granted)).collect();
        assert!(shares.len() >= 40, "{shares:?}");
        assert!(shares.iter().all(|share| (0.80..=0.951).contains(share)), "{shares:?}");
        let (least, most) = (shares.iter().copied().fold(1.0, f64::min), shares.iter().copied().fold(0.0, f64::max));
        assert!(most - least > 0.05, "no two phones in step: {shares:?}");
    }
}

/// (57) The time is that of our contact in the 200, else that of Expires, else what was asked for.
#[test]
fn the_time_granted_is_that_of_contact_then_expires_then_what_was_asked() {
    let ours = "<sip:alice@192.0.2.1:5060>";
    let table = [
        (vec![("Contact", format!("{ours};expires=120")), ("Expires", "300".into())], 120),
        (vec![("Contact", ours.into()), ("Expires", "300".into())], 300),
        (vec![("Contact", ours.into())], 600),
        (vec![], 600),
    ];
    for (headers, expires) in table {
        let mut net = Net::new(1);
        net.script(move |_| Some((200, headers.clone())));
        net.register(|_| {});
        net.run(i64::from(expires).unsigned_abs());
        assert_eq!(net.words()[..2], ["will".to_owned(), format!("for {expires}")]);
        let log = net.log();
        let share = (log[1].at - log[0].at).as_secs_f64() / f64::from(expires);
        assert!((0.80..=0.951).contains(&share), "{share}");
    }
}

/// (58) 423 is answered once with what Min-Expires says, which is asked for from then on.
#[test]
fn an_interval_too_brief_is_raised_once() {
    let mut net = Net::new(1);
    net.script(|register| (register.expires < 1800).then(|| (423, vec![("Min-Expires", "1800".into())])));
    net.register(|_| {});
    net.run(3600);
    assert_eq!(net.words()[..4], ["will", "for 1800", "will", "for 1800"]);
    assert_eq!(net.log().iter().map(|register| register.expires).collect::<Vec<_>>()[..3], [600, 1800, 1800]);
    let mut net = Net::new(1);
    net.script(|_| Some((423, vec![("Min-Expires", "1800".into())])));
    net.register(|_| {});
    net.run(2);
    assert_eq!(net.words()[..2], ["will", "failed 423"]);
    assert_eq!(net.log().len(), 2);
}

fn challenge(nonce: &str, stale: bool) -> (u16, Vec<(&'static str, String)>) {
    let stale = if stale { ", stale=true" } else { "" };
    (401, vec![("WWW-Authenticate", format!("Digest realm=\"example.com\", nonce=\"{nonce}\", qop=\"auth\"{stale}"))])
}

fn with_password(settings: &mut AccountSettings) {
    settings.credentials = Some(Credentials { username: "alice".into(), password: "wondrous".into() });
}

fn nonce(register: &Register) -> Option<String> {
    let value = String::from_utf8_lossy(register.message.header(HeaderName::Authorization)?).into_owned();
    let (_, rest) = value.split_once("nonce=\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// (59) A stale nonce is replaced by the new one at once; nobody is told.
#[test]
fn a_stale_nonce_is_replaced_without_a_word() {
    let mut net = Net::new(1);
    net.script(|register| {
        // A nonce is good for half an hour.
        let current = format!("n{}", register.at.as_secs() / 1800);
        match nonce(register) {
            None => Some(challenge(&current, false)),
            Some(nonce) if nonce != current => Some(challenge(&current, true)),
            Some(_) => None,
        }
    });
    net.register(with_password);
    net.run(2 * 3600);
    let words = net.words();
    assert!(words.len() > 20 && words.chunks(2).all(|pair| pair[0] == "will" && pair[1] == "for 600"), "{words:?}");
    let refused = net.log().len() - words.len() / 2;
    assert!((4..=5).contains(&refused), "one try more for each new nonce, {refused}");
    net.script(|_| Some(challenge("other", false)));
    net.run(600);
    assert_eq!(net.words().last().map(String::as_str), Some("failed 401"), "a wrong password is no stale nonce");
    let tried = net.log().len();
    net.run(7200);
    assert_eq!(net.log().len(), tried, "and is not tried on and on");
}

/// (60) Our contact, and no other, is taken back with Expires 0: by unregister(), with the account, at the end of all.
#[test]
fn unregistered_by_the_verb_with_the_account_and_at_the_end() {
    for how in 0..3 {
        let mut net = Net::registering(|_| {});
        net.registrar
            .borrow_mut()
            .bindings
            .insert((ALICE.into(), "sip:alice@192.0.2.99".into()), Duration::from_secs(100_000));
        net.run(1);
        assert_eq!(net.registrar.borrow().bound(ALICE, net.net.elapsed()).len(), 2);
        net.net.with(0, |ua, now| match how {
            0 => drop(ua.unregister(ACCOUNT, now)),
            1 => ua.remove_account(ACCOUNT, now),
            _ => ua.shutdown(now),
        });
        net.run(100);
        net.net.assert_idle();
        assert_eq!(net.registrar.borrow().bound(ALICE, net.net.elapsed()), ["sip:alice@192.0.2.99"]);
        let last = net.log().pop().unwrap();
        assert_eq!((last.expires, last.contacts), (0, vec!["<sip:alice@192.0.2.1:5060>".to_owned()]));
        assert_eq!(net.words(), ["will", "for 600", "end"]);
    }
}

/// (61) Of several contacts in the 200 ours counts, by name of the device or by URI; `*` and nonsense disturb nobody.
#[test]
fn ours_is_found_among_several_contacts() {
    let others = "<sip:alice@192.0.2.50>;expires=30, \"A, \\\"quoted\\\"\" <sip:a@[2001:db8::1]>;q=0.1;expires=40";
    let name = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
    for ours in [
        "<sip:alice@192.0.2.1:5060>;expires=120".to_owned(),
        "<sip:alice@192.0.2.1:5060;ob>;expires=120".to_owned(),
        format!("<sip:x@203.0.113.1:999>;+sip.instance=\"<{name}>\";reg-id=1;expires=120"),
    ] {
        let mut net = Net::new(1);
        let answer = format!("{others}, {ours}, mailto:alice@example.com;expires=50");
        net.script(move |_| Some((200, vec![("Contact", "*".into()), ("Contact", answer.clone())])));
        net.register(|settings| settings.registration.as_mut().unwrap().instance = Some(name.into()));
        net.run(1);
        assert_eq!(net.words(), ["will", "for 120"], "{ours}");
    }
}

/// (62) Refusals and failures are tried again with growing waits; a redirection is followed when that is allowed.
#[test]
fn failures_are_tried_again_with_growing_waits() {
    for code in [302_u16, 403, 404, 500, 503, 600] {
        let mut net = Net::new(code.into());
        net.script(move |_| Some((code, vec![("Contact", "<sip:192.0.2.77>".into())])));
        net.register(|_| {});
        net.run(4 * 3600);
        let log = net.log();
        let waits: Vec<f64> = log.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect();
        let (soon, rest) = waits.split_at(usize::from((500..600).contains(&code)));
        assert!(soon.iter().all(|wait| (1.0..=3.1).contains(wait)), "{code}: {waits:?}");
        for (step, wait) in rest.iter().enumerate() {
            let upper = (30.0 * 2_f64.powi(i32::try_from(step).unwrap())).min(1800.0);
            assert!((upper / 2.0..=upper + 0.1).contains(wait), "{code}, wait {step}: {waits:?}");
        }
        assert!(rest.len() >= 12, "{code}: {waits:?}");
        let words = net.words();
        assert!(words.chunks(2).all(|pair| pair.len() < 2 || pair[1] == format!("failed {code}")), "{words:?}");
        net.registrar.borrow_mut().script = None;
        net.run(1800);
        assert_eq!(net.words().last().map(String::as_str), Some("for 600"), "it comes back by itself");
    }
}

/// (62) A Retry-After says when; silence and a registrar that is back are noticed.
#[test]
fn retry_after_is_honoured_and_silence_survived() {
    let mut net = Net::new(1);
    net.script(|register| (register.number < 3).then(|| (503, vec![("Retry-After", "200 (busy)".into())])));
    net.register(|_| {});
    net.run(600);
    let log = net.log();
    for pair in log.windows(2).take(2) {
        let wait = (pair[1].at - pair[0].at).as_secs_f64();
        assert!((201.0..=223.5).contains(&wait), "{wait}");
    }
    net.registrar.borrow_mut().is_dead = true;
    net.run(3600);
    assert_eq!(net.words().last().map(String::as_str), Some("failed 408"));
    net.registrar.borrow_mut().is_dead = false;
    net.run(1900);
    assert_eq!(net.words().last().map(String::as_str), Some("for 600"));
}

/// (62) A 302 leads to another registrar, with the same Call-ID and the next number, when the account lets itself be led.
#[test]
fn a_redirection_is_followed_when_allowed() {
    let mut net = Net::new(1);
    let other = net.net.add_raw("other");
    let there = Registrar::serve(&mut net.net, other);
    let contact = format!("<sip:{}>", net.net.nodes[other].address);
    net.script(move |_| Some((302, vec![("Contact", contact.clone())])));
    net.register(|settings| settings.follow_redirects = 1);
    net.run(1);
    assert_eq!(net.words(), ["will", "for 600"]);
    let (first, second) = (net.log().remove(0), there.borrow().log[0].clone());
    assert_eq!((second.call_id, second.number), (first.call_id, first.number + 1));
}

/// (63) Path is offered; Service-Route becomes the Route of what goes out over the registered flow.
#[test]
fn the_service_route_is_taken_and_path_offered() {
    let mut net = Net::new(1);
    net.registrar.borrow_mut().extra = vec![
        ("Path", "<sip:edge.example.com;lr>".into()),
        ("Service-Route", "<sip:one.example.com;lr>".into()),
        ("Service-Route", "<sip:two.example.com;lr>, <sip:three.example.com;lr>".into()),
    ];
    net.register(|_| {});
    net.run(1);
    assert!(net.log()[0].message.lists(HeaderName::Supported, "path"));
    assert_eq!(net.log()[0].message.header(HeaderName::Route), None);
    // From now on the node keeps what comes.
    net.net.nodes[1].serve = None;
    let route = net.net.route_to(1, Transport::Udp);
    net.net.connect(0, uri("bob"), vec![route.clone()]).expect("a call");
    net.net.with(0, |ua, now| ua.options(ACCOUNT, uri("bob"), vec![route], now)).expect("a ping");
    net.net.run_ms(100);
    for message in &net.net.nodes[1].inbox {
        let routes: Vec<_> = message.header_values(HeaderName::Route).map(String::from_utf8_lossy).collect();
        let expected = ["one", "two", "three"].map(|name| format!("<sip:{name}.example.com;lr>"));
        assert_eq!(routes, expected, "{}", message.method());
        assert_eq!(message.request_uri_raw(), b"sip:bob@example.com");
    }
    assert_eq!(net.net.nodes[1].inbox.len(), 2);
}

/// (64) The registered flow is kept open: as Flow-Timer says, else as RFC 5626 §4.4 has it; not for a plain datagram peer.
#[test]
fn the_registered_flow_is_kept_open_and_left_with_the_registration() {
    let timer = |seconds: &str| vec![("Require", "outbound".to_owned()), ("Flow-Timer", seconds.to_owned())];
    let table = [
        (Transport::Udp, timer("60"), Some((48.0, 60.0))),
        (Transport::Udp, vec![("Require", "outbound".into())], Some((24.0, 29.0))),
        (Transport::Udp, vec![], None),
        (Transport::Tcp, vec![], Some((95.0, 120.0))),
        (Transport::Tcp, timer("30"), Some((24.0, 30.0))),
        (Transport::Tcp, timer("1"), Some((5.0, 5.0))),
    ];
    for (transport, extra, interval) in table {
        let mut net = Net::new(1);
        net.registrar.borrow_mut().extra = extra;
        net.register(|settings| settings.transports = vec![transport]);
        net.run(1);
        let (_, flow, asked) = net.net.nodes[0].keep_alives.pop().expect("something about the flow");
        assert_eq!((flow.transport, flow.remote), (transport, net.net.nodes[1].address));
        assert_eq!(flow.connection.is_some(), transport == Transport::Tcp, "the very connection");
        match (asked, interval) {
            (Some(asked), Some((least, most))) => assert!((least..=most).contains(&asked.as_secs_f64()), "{asked:?}"),
            (asked, expected) => assert_eq!((asked, expected), (None, None)),
        }
        net.net.with(0, |ua, now| ua.handle_flow_failed(flow, now));
        net.run(5);
        assert_eq!(net.words(), ["will", "for 600", "will", "for 600"], "a lost flow is replaced soon");
        net.unregister();
        assert_eq!(net.net.nodes[0].keep_alives.pop().map(|(_, _, interval)| interval), Some(None));
    }
}

/// Reliability row 47: another address is registered within two seconds, and the old one is taken back.
#[test]
fn another_address_is_registered_within_two_seconds() {
    let mut net = Net::registering(|_| {});
    net.run(10);
    let moved = "192.0.2.200:5060".parse().unwrap();
    net.net.nodes[0].address = moved;
    let at = net.net.elapsed();
    net.net.with(0, |ua, now| ua.set_local(vec![(Transport::Udp, moved)], now));
    net.run(10);
    let log = net.log();
    assert!(log[1].at - at <= Duration::from_secs(2), "{:?}", log[1].at - at);
    assert_eq!(net.registrar.borrow().bound(ALICE, net.net.elapsed()), ["sip:alice@192.0.2.200:5060"]);
}

/// Reliability row 46: a machine that slept refreshes at once.
#[test]
fn a_machine_that_slept_refreshes_at_once() {
    let mut net = Net::registering(|_| {});
    net.run(10);
    net.net.with(0, |ua, now| ua.handle_resumed(now));
    net.run(2);
    assert_eq!(net.words(), ["will", "for 600", "will", "for 600"]);
}

/// The next proxy of a list is registered with when the first does not answer.
#[test]
fn names_with_several_addresses_fail_over() {
    let mut net = Net::new(1);
    let there = net.net.nodes[1].address.ip();
    net.net.dns.host("reg.example.com", &["192.0.2.240".parse().unwrap(), there]);
    net.register(|settings| settings.registration = Some(registration("sip:reg.example.com:5060")));
    net.run(40);
    assert_eq!(net.words(), ["will", "for 600"]);
    assert_eq!(net.log()[0].number, 2, "an attempt of its own");
    net.run(600);
    assert_eq!(net.words(), ["will", "for 600", "will", "for 600"]);
    assert_eq!(net.log()[1].number, 3, "the refresh goes to the one that answered");
}

// --- the flows after RFC 3665 §2 -------------------------------------------------------------------------------------

struct Flows {
    steps: Vec<(String, Message)>,
    ua: UserAgent,
    now: std::time::Instant,
    told: Vec<String>,
}

impl Flows {
    /// Bob as the flow has him, registering for what its first request asks for.
    fn new(name: &str, password: &str) -> Self {
        let path = format!("{}/tests/data/sip/flows/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let flow: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let steps = flow["steps"].as_array().unwrap().iter().map(|step| {
            let raw = Bytes::from(step["raw"].as_str().unwrap().to_owned());
            (step["from"].as_str().unwrap().to_owned(), Message::parse(raw).unwrap())
        });
        let steps: Vec<_> = steps.collect();
        let expires = String::from_utf8(steps[0].1.header(HeaderName::Expires).unwrap().to_vec()).unwrap();
        let mut ua = UserAgent::new(config("127.0.0.12:5060".parse().unwrap()), StdRng::seed_from_u64(1));
        let mut settings = AccountSettings::new(Uri::parse(b"sip:bob@biloxi.example.com").unwrap());
        settings.display_name = Some("Bob".into());
        settings.credentials = Some(Credentials { username: "bob".into(), password: password.into() });
        settings.registration = Some(RegistrationSettings {
            registrar: None,
            expires: Duration::from_secs(expires.parse().unwrap()),
            instance: None,
        });
        ua.set_account(ACCOUNT, settings);
        let now = any_instant();
        ua.settings_changed(ACCOUNT, now);
        Self { steps, ua, now, told: Vec::new() }
    }

    fn sent(&mut self) -> Vec<Message> {
        let mut sent = Vec::new();
        while let Some(output) = self.ua.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => sent.push(Message::parse(bytes).unwrap()),
                Output::Event(event) => self.told.push(short(&event.kind)),
                Output::Resolve { query, question, .. } => {
                    let answer = match question {
                        Question::Naptr(_) => Answer::Naptr(Vec::new()),
                        Question::Srv(_) => Answer::Srv(Vec::new()),
                        Question::Address { .. } => Answer::Address(vec!["127.0.0.31".parse().unwrap()]),
                    };
                    self.ua.handle_resolved(query, Ok(answer), self.now);
                }
                _ => {}
            }
        }
        sent
    }

    /// Plays the flow: what we send is compared, what we hear is the flow's answer with our names in it.
    fn play(mut self, first_number: u32) -> Vec<String> {
        let flow = Flow::to(Transport::Udp, "127.0.0.31:5060".parse().unwrap());
        let mut ours = self.sent();
        for (from, message) in std::mem::take(&mut self.steps) {
            if from == "bob" {
                assert_eq!(ours.len(), 1, "one REGISTER");
                let sent = &ours[0];
                assert_eq!(sent.request_uri_raw(), message.request_uri_raw());
                for name in [HeaderName::Contact, HeaderName::Expires, HeaderName::MaxForwards] {
                    let lines = |message: &Message| message.header_lines(name).map(<[u8]>::to_vec).collect::<Vec<_>>();
                    assert_eq!(lines(sent), lines(&message), "{name:?}");
                }
                assert_eq!(sent.to().unwrap().uri_raw, message.to().unwrap().uri_raw);
                assert_eq!(sent.from().unwrap().uri_raw, message.from().unwrap().uri_raw);
                assert_eq!(sent.cseq().unwrap().number + first_number - 1, message.cseq().unwrap().number);
                let answers = |message: &Message| message.header(HeaderName::Authorization).is_some();
                assert!(!answers(sent) || answers(&message), "credentials only where the flow has some");
                continue;
            }
            let sent = ours.pop().expect("a request");
            let mut text = String::from_utf8(message.as_bytes().to_vec()).unwrap();
            let line = |message: &Message, name: &str| {
                let all = String::from_utf8(message.as_bytes().to_vec()).unwrap();
                all.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
            };
            for name in ["From:", "Call-ID:", "CSeq:"] {
                text = text.replace(&line(&message, name), &line(&sent, name));
            }
            let branch =
                |message: &Message| String::from_utf8(message.top_via().unwrap().branch().unwrap().to_vec()).unwrap();
            text = text.replace(&branch(&message), &branch(&sent));
            self.ua.handle_message(Message::parse(Bytes::from(text)).unwrap(), flow, self.now);
            ours = self.sent();
        }
        assert!(ours.is_empty(), "nothing but what the flow has");
        self.told
    }
}

#[test]
fn the_flows_of_registrations() {
    assert_eq!(Flows::new("register-423", "zanzibar").play(1), ["will", "for 300"]);
}

/// The 200s of the flows that we never ask for are read all the same: a second contact that is no SIP URI, and none at all.
#[test]
fn the_answers_of_the_other_flows() {
    for (name, told) in [("3665-2.2-update-contacts", "for 3530"), ("3665-2.3-query-contacts", "for 3500")] {
        let mut flows = Flows::new("3665-2.1-register", "zanzibar");
        let answer = Flows::answer_of(name);
        let first = flows.sent().remove(0);
        let mut response =
            sipwire::sip::build::Builder::response(&first, 200, "", Some("r"), "127.0.0.12:5060".parse().unwrap());
        for contact in answer.header_lines(HeaderName::Contact) {
            response = response.header_bytes("Contact", contact);
        }
        let flow = Flow::to(Transport::Udp, "127.0.0.31:5060".parse().unwrap());
        flows.ua.handle_message(Message::parse(response.finish(None)).unwrap(), flow, flows.now);
        flows.sent();
        assert_eq!(flows.told, ["will", told], "{name}");
    }
}

impl Flows {
    fn answer_of(name: &str) -> Message {
        let path = format!("{}/tests/data/sip/flows/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let flow: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        Message::parse(Bytes::from(flow["steps"][1]["raw"].as_str().unwrap().to_owned())).unwrap()
    }
}

// --- a day -----------------------------------------------------------------------------------------------------------

/// Fifty accounts for a day on a bad network, with a registrar that is away now and then: nobody stays unregistered for
/// long, and nothing is left over.
#[test]
fn fifty_accounts_for_a_day_on_a_bad_network() {
    const ACCOUNTS: u64 = 50;
    let mut net = Net::new(7);
    net.net.link = Link { duplicate: 5, ..Link::lossy(20, Duration::from_millis(200)) };
    let aor = |number: u64| format!("sip:user{number}@example.com");
    let registrar = format!("sip:{}", net.net.nodes[1].address);
    for number in 0..ACCOUNTS {
        let mut settings = AccountSettings::new(Uri::parse(aor(number).as_bytes()).unwrap());
        settings.registration = Some(registration(&registrar));
        net.net.with(0, |ua, now| {
            ua.set_account(AccountId(100 + number), settings);
            ua.settings_changed(AccountId(100 + number), now);
        });
    }
    for hour in 0..24 {
        net.run(1800);
        let bound = (0..ACCOUNTS)
            .filter(|number| !net.registrar.borrow().bound(&aor(*number), net.net.elapsed()).is_empty())
            .count();
        assert_eq!(bound as u64, ACCOUNTS, "hour {hour}");
        if hour % 6 == 5 {
            net.registrar.borrow_mut().is_dead = true;
            net.run(900);
            net.registrar.borrow_mut().is_dead = false;
            net.run(900);
        } else {
            net.run(1800);
        }
    }
    let registers = net.log().len();
    net.net.with(0, UserAgent::shutdown);
    net.run(200);
    net.net.assert_idle();
    assert!(net.registrar.borrow().bindings.is_empty(), "everybody said good-bye");
    assert!((7_000..=12_000).contains(&registers), "{registers} REGISTERs in a day");
}
