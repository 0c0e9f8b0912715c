//! A whole user agent on a hostile wire: any messages at any time between the application's verbs.
//!
//! The input is a script of steps, one a block, blocks apart by `0xFF`. A block that begins with `!` is a verb or a wait;
//! any other is a datagram. In it `$T` stands for the To tag the user agent gave last, `$F` for its From tag, `$B` for the
//! branch, `$C` for the Call-ID and `$N` for the CSeq number of its last request: so the fuzzer reaches into dialogs
//! without guessing 128 bits.
#![no_main]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sipwire::event::{AccountId, EventKind, Route, SessionId};
use sipwire::media::{CodecKind, LocalMedia, MediaCommand};
use sipwire::sip::message::Message;
use sipwire::sip::transport::{Flow, Transport};
use sipwire::sip::uri::Uri;
use sipwire::ua::{AccountSettings, Connect, Output, UaConfig, UserAgent};

const ACCOUNT: AccountId = AccountId(1);

#[derive(Default)]
struct Names {
    to_tag: Vec<u8>,
    from_tag: Vec<u8>,
    branch: Vec<u8>,
    call_id: Vec<u8>,
    number: u32,
}

struct Wire {
    ua: UserAgent,
    now: Instant,
    names: Names,
    sessions: Vec<SessionId>,
    sent: usize,
}

fuzz_target!(|data: &[u8]| {
    let local: SocketAddr = "192.0.2.1:5060".parse().expect("an address");
    let config = UaConfig {
        local: vec![(Transport::Udp, local), (Transport::Tcp, local)],
        user_agent: "fuzz".to_owned(),
        codecs: CodecKind::ALL.to_vec(),
        max_sessions: 8,
        invite_rate: 1000,
        invite_rate_per_source: 1000,
        auto_ring: true,
        accepts_calls: true,
        accepts_messages: true,
        chat: false,
        event_packages: Vec::new(),
    };
    let mut ua = UserAgent::new(config, StdRng::seed_from_u64(1));
    let uri = Uri::parse(b"sip:bob@192.0.2.1").expect("a URI");
    ua.set_account(ACCOUNT, AccountSettings { catch_all: true, ..AccountSettings::new(uri) });
    let mut wire = Wire { ua, now: Instant::now(), names: Names::default(), sessions: Vec::new(), sent: 0 };
    for block in data.split(|byte| *byte == 0xFF).take(64) {
        match block {
            [b'!', verb, ..] => wire.verb(*verb),
            [] => {}
            datagram => wire.receive(datagram),
        }
        wire.drain();
    }
    // Whatever happened, everything ends: an hour later nothing is left.
    let now = wire.now;
    wire.ua.shutdown(now);
    wire.drain();
    for _ in 0..4000 {
        let Some(at) = wire.ua.poll_timeout() else { break };
        wire.now = wire.now.max(at);
        let now = wire.now;
        wire.ua.handle_timeout(now);
        wire.drain();
    }
    assert!(wire.ua.is_idle(), "something is left: {:?}", wire.ua.stats());
});

impl Wire {
    fn verb(&mut self, verb: u8) {
        let now = self.now;
        let last = self.sessions.last().copied();
        match (verb, last) {
            (b'c' | b'l', _) => {
                let callee = Uri::parse(b"sip:alice@192.0.2.9").expect("a URI");
                let route = |last: u8, transport| Route { address: format!("192.0.2.{last}"), port: 5060, transport, path: None };
                let call = Connect {
                    account: ACCOUNT,
                    callee,
                    routes: vec![route(9, Transport::Udp), route(10, Transport::Tcp)],
                    audio: true,
                    chat: false,
                    late_offer: verb == b'l',
                    extra_headers: Vec::new(),
                };
                if let Ok(session) = self.ua.connect(call, now) {
                    self.sessions.push(session);
                }
            }
            (b'a', Some(session)) => drop(self.ua.accept(session, true, false, now)),
            (b'r', Some(session)) => drop(self.ua.reject(session, 486, None, now)),
            (b'e', Some(session)) => drop(self.ua.end(session, None, now)),
            (b'h', Some(session)) => drop(self.ua.hold(session, true, now)),
            (b'u', Some(session)) => drop(self.ua.hold(session, false, now)),
            (b'm', Some(session)) => drop(self.ua.early_media(session, now)),
            (b'o', _) => {
                let uri = Uri::parse(b"sip:alice@192.0.2.9").expect("a URI");
                drop(self.ua.options(ACCOUNT, uri, Vec::new(), now));
            }
            (b'1', _) => self.wait(Duration::from_millis(600)),
            (b'2', _) => self.wait(Duration::from_secs(5)),
            (b'3', _) => self.wait(Duration::from_secs(40)),
            _ => {}
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.ua.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let now = self.now;
            self.ua.handle_timeout(now);
            self.drain();
        }
        self.now = end;
    }

    fn receive(&mut self, template: &[u8]) {
        let mut bytes = Vec::with_capacity(template.len() + 64);
        let mut rest = template;
        while let Some((first, tail)) = rest.split_first() {
            let known = (*first == b'$').then(|| tail.first()).flatten();
            match known {
                Some(b'T') => bytes.extend_from_slice(&self.names.to_tag),
                Some(b'F') => bytes.extend_from_slice(&self.names.from_tag),
                Some(b'B') => bytes.extend_from_slice(&self.names.branch),
                Some(b'C') => bytes.extend_from_slice(&self.names.call_id),
                Some(b'N') => bytes.extend_from_slice(self.names.number.to_string().as_bytes()),
                _ => {
                    bytes.push(*first);
                    rest = tail;
                    continue;
                }
            }
            rest = &tail[1..];
        }
        let flow = Flow::to(Transport::Udp, "192.0.2.9:5060".parse().expect("an address"));
        let now = self.now;
        match Message::parse(Bytes::from(bytes)) {
            Ok(message) => self.ua.handle_message(message, flow, now),
            Err(error) => self.ua.handle_bad_message(error, flow, now),
        }
    }

    fn drain(&mut self) {
        let now = self.now;
        while let Some(output) = self.ua.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => {
                    self.sent += 1;
                    assert!(self.sent < 100_000, "the user agent talks without end");
                    self.learn(bytes);
                }
                Output::Event(event) => {
                    if let (EventKind::SessionNewIncoming { .. }, Some(session)) = (&event.kind, event.session()) {
                        self.sessions.push(session);
                    }
                }
                Output::Media(session, MediaCommand::Open { .. }) => {
                    let address = IpAddr::from([192, 0, 2, 1]);
                    let media = LocalMedia { address, rtp_port: 20_000, rtcp_port: 20_001 };
                    self.ua.handle_media_opened(session, Ok(media), now);
                }
                Output::Media(..) | Output::KeepAlive { .. } => {}
                Output::Resolve { query, .. } => self.ua.handle_resolved(query, Err("no such host".into()), now),
            }
        }
    }

    fn learn(&mut self, bytes: Bytes) {
        let message = Message::parse(bytes).expect("what we send can be read");
        message.validate().expect("what we send is valid");
        let owned = |tag: Option<&[u8]>| tag.unwrap_or_default().to_vec();
        if message.is_request() {
            self.names.from_tag = owned(message.from().expect("From").tag());
            self.names.branch = owned(message.top_via().expect("Via").branch());
            self.names.call_id = message.call_id().expect("Call-ID").to_vec();
            self.names.number = message.cseq().expect("CSeq").number;
        } else {
            self.names.to_tag = owned(message.to().expect("To").tag());
        }
    }
}
