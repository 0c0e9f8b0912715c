//! A user agent with its media side played by hand, and two of them joined in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::event::{AccountId, Event, EventKind, Originator, Route, SessionId, SessionState, Snapshot, Streams};
use crate::media::{CodecKind, LocalChat, LocalMedia, MediaCommand, MediaEvent};
use crate::sip::build::Builder;
use crate::sip::message::Message;
use crate::sip::transaction::ClientId;
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::Uri;
use crate::ua::locate::Question;
use crate::ua::{AccountSettings, Connect, Output, QueryId, UaConfig, UserAgent, VerbError};

pub const ALICE: &str = "192.0.2.1:5060";
pub const BOB: &str = "192.0.2.2:5060";
pub const ACCOUNT: AccountId = AccountId(1);

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub fn uri(text: &str) -> Uri {
    Uri::parse(text.as_bytes()).expect("a URI")
}

pub fn route(text: &str) -> Route {
    let (host, port) = text.rsplit_once(':').expect("host:port");
    Route::new(host, port.parse().expect("a port"), Transport::Udp)
}

pub fn streams(streams: Streams) -> String {
    let names = [(streams.audio, "audio"), (streams.chat, "chat")];
    names.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect::<Vec<_>>().join("+")
}

fn by(originator: Originator) -> &'static str {
    match originator {
        Originator::Local => "local",
        Originator::Remote => "remote",
    }
}

fn again(retry_after: Option<f64>) -> String {
    retry_after.map_or("for good".to_owned(), |seconds| format!("again in {seconds:.0} s"))
}

/// An event as one short line.
pub fn line(kind: &EventKind) -> String {
    match kind {
        EventKind::SessionChangedState { prev_state, state } => format!("{}>{}", prev_state.name(), state.name()),
        EventKind::SessionNewIncoming { streams: all } => format!("NewIncoming {}", streams(*all)),
        EventKind::SessionNewOutgoing { streams: all } => format!("NewOutgoing {}", streams(*all)),
        EventKind::SessionGotRingIndication => "GotRingIndication".into(),
        EventKind::SessionWillStart => "WillStart".into(),
        EventKind::SessionDidStart => "DidStart".into(),
        EventKind::SessionDidFail { originator, code, reason } => {
            format!("DidFail {} {code} {reason}", by(*originator))
        }
        EventKind::SessionWillEnd => "WillEnd".into(),
        EventKind::SessionDidEnd { originator, end_reason: None } => format!("DidEnd {}", by(*originator)),
        EventKind::SessionDidEnd { originator, end_reason: Some(why) } => format!("DidEnd {} {why}", by(*originator)),
        EventKind::SessionGotHoldRequest { originator } => format!("GotHoldRequest {}", by(*originator)),
        EventKind::SessionGotUnholdRequest { originator } => format!("GotUnholdRequest {}", by(*originator)),
        EventKind::SessionWillStartRecordingAudio { .. } => "WillStartRecordingAudio".into(),
        EventKind::SessionDidStartRecordingAudio { .. } => "DidStartRecordingAudio".into(),
        EventKind::SessionWillStopRecordingAudio { .. } => "WillStopRecordingAudio".into(),
        EventKind::SessionDidStopRecordingAudio { error: None, .. } => "DidStopRecordingAudio".into(),
        EventKind::SessionDidStopRecordingAudio { error: Some(error), .. } => {
            format!("DidStopRecordingAudio {error}")
        }
        EventKind::SessionGotNoAudio => "GotNoAudio".into(),
        EventKind::SessionGotDTMF { digit } => format!("GotDTMF {digit}"),
        EventKind::SessionGotStreamUpdate { streams: all } => format!("GotStreamUpdate {}", streams(*all)),
        EventKind::SessionGotStreamProposal { proposer, streams: all } => {
            format!("GotStreamProposal {} {}", by(*proposer), streams(*all))
        }
        EventKind::SessionAcceptedStreamProposal { proposer } => format!("AcceptedStreamProposal {}", by(*proposer)),
        EventKind::SessionRejectedStreamProposal { proposer, reason } => {
            format!("RejectedStreamProposal {} {reason}", by(*proposer))
        }
        EventKind::SessionDidChangeRoute { route, code, reason } => {
            format!("DidChangeRoute {} {code} {reason}", route.address)
        }
        EventKind::SessionAudioUnderrun { missing_ms } => format!("AudioUnderrun {missing_ms}"),
        EventKind::OptionsDidAnswer { code, reason, .. } => format!("OptionsDidAnswer {code} {reason}"),
        EventKind::AccountRegistrationDidSucceed { contact, expires, .. } => {
            format!("AccountRegistrationDidSucceed {contact} {expires}")
        }
        EventKind::AccountRegistrationDidFail { code, reason, retry_after } => {
            let again = retry_after.map_or("for good".to_owned(), |seconds| format!("again in {seconds:.1} s"));
            format!("AccountRegistrationDidFail {code} {reason} {again}")
        }
        EventKind::MessageDidSucceed { code, .. } => format!("MessageDidSucceed {code}"),
        EventKind::MessageDidFail { code, reason, .. } => format!("MessageDidFail {code} {reason}"),
        EventKind::MessageDidGetDeliveryReport { from_uri, message_id: _, disposition, status } => {
            format!("MessageDidGetDeliveryReport {from_uri} {disposition} {status}")
        }
        EventKind::EngineGotMessage { from_uri, content_type, content, session, disposition, .. } => {
            let (content, call) = (String::from_utf8_lossy(content), if session.is_some() { " in a call" } else { "" });
            let wanted = if disposition.is_empty() { String::new() } else { format!(" [{}]", disposition.join(" ")) };
            format!("EngineGotMessage {from_uri} {content_type} {content:?}{wanted}{call}")
        }
        EventKind::SubscriptionDidStart { state, expires } => format!("DidStart {state} {expires}"),
        EventKind::SubscriptionGotNotify { event, state, parsed, .. } => {
            format!("GotNotify {event} {state}{}", if parsed.is_some() { " parsed" } else { "" })
        }
        EventKind::SubscriptionDidFail { code, reason, retry_after } => {
            format!("DidFail {code} {reason}, {}", again(*retry_after))
        }
        EventKind::SubscriptionDidEnd { reason } => format!("DidEnd {reason}"),
        EventKind::EngineGotSubscription { event, from_uri, expires, accept, .. } => {
            format!("EngineGotSubscription {event} {from_uri} {expires} {}", accept.join("+"))
        }
        EventKind::AccountGotMessageSummary { messages_waiting, counts, .. } => {
            let counts = counts.iter().map(|count| {
                format!(" {} {}/{} ({}/{})", count.class, count.new, count.old, count.urgent_new, count.urgent_old)
            });
            format!("AccountGotMessageSummary {messages_waiting}{}", counts.collect::<String>())
        }
        EventKind::PublicationDidSucceed { expires } => format!("PublicationDidSucceed {expires}"),
        EventKind::PublicationDidFail { code, reason, retry_after } => {
            format!("PublicationDidFail {code} {reason}, {}", again(*retry_after))
        }
        EventKind::PublicationDidEnd { reason } => format!("PublicationDidEnd {reason}"),
        EventKind::SessionGotInfo { content, content_type, info_package } => {
            let of = info_package.as_ref().map(|package| format!(" of {package}")).unwrap_or_default();
            format!("GotInfo {content_type} {:?}{of}", String::from_utf8_lossy(content))
        }
        EventKind::SessionDidDeliverInfo { code, reason, .. } => format!("DidDeliverInfo {code} {reason}"),
        EventKind::SessionDidNotDeliverInfo { code, reason, .. } => format!("DidNotDeliverInfo {code} {reason}"),
        EventKind::SessionGotTransferRequest { target, replaces, referred_by } => {
            let replaces = replaces.as_ref().map(|call| format!(" replacing {call}")).unwrap_or_default();
            let by = referred_by.as_ref().map(|uri| format!(" by {uri}")).unwrap_or_default();
            format!("GotTransferRequest {target}{replaces}{by}")
        }
        EventKind::SessionTransferNewOutgoing { target, replaces } => {
            let replaces = replaces.as_ref().map(|call| format!(" replacing {call}")).unwrap_or_default();
            format!("TransferNewOutgoing {target}{replaces}")
        }
        EventKind::SessionTransferDidStart { session: None } => "TransferDidStart".into(),
        EventKind::SessionTransferDidStart { session: Some(new) } => format!("TransferDidStart with {}", new.0),
        EventKind::SessionTransferGotProgress { code, reason } => format!("TransferGotProgress {code} {reason}"),
        EventKind::SessionTransferDidEnd { code, reason } => format!("TransferDidEnd {code} {reason}"),
        EventKind::SessionTransferDidFail { code, reason } => format!("TransferDidFail {code} {reason}"),
        other => format!("{other:?}"),
    }
}

/// One user agent and what became of it.
pub struct Side {
    pub ua: UserAgent,
    pub at: SocketAddr,
    /// Events since the last [`Self::take_log`].
    pub log: Vec<String>,
    pub snapshots: BTreeMap<SessionId, Arc<Snapshot>>,
    pub media: Vec<MediaCommand>,
    /// Flows to be kept open, or no longer.
    pub keep_alives: Vec<(Flow, Option<Duration>)>,
    pub queries: Vec<(QueryId, Question)>,
    /// What the media side says to the next `Open`.
    pub media_error: Option<String>,
    /// Whether chat streams come up at once.
    pub chat_connects: bool,
    /// Whether the recorder reports start and stop at once.
    pub recorder_reports: bool,
    recording: Option<PathBuf>,
    states: BTreeMap<SessionId, SessionState>,
}

pub fn config(at: SocketAddr) -> UaConfig {
    UaConfig {
        local: vec![(Transport::Udp, at), (Transport::Tcp, at)],
        user_agent: "sipwire-test".into(),
        codecs: CodecKind::ALL.to_vec(),
        max_sessions: 1000,
        invite_rate: 1000,
        invite_rate_per_source: 1000,
        auto_ring: true,
        chat: true,
        accepts_calls: true,
        accepts_messages: true,
        event_packages: Vec::new(),
    }
}

/// A chat stream of this side.
pub fn local_chat(at: SocketAddr) -> LocalChat {
    LocalChat {
        address: at.ip(),
        port: 2855,
        path: format!("msrp://{}:2855/s1;tcp", at.ip()),
        tls: false,
        accept_types: "message/cpim text/plain".into(),
        accept_wrapped_types: None,
    }
}

impl Side {
    pub fn new(name: &str, at: &str, seed: u64) -> Self {
        let at = address(at);
        let mut ua = UserAgent::new(config(at), StdRng::seed_from_u64(seed));
        let settings = AccountSettings::new(uri(&format!("sip:{name}@example.com")));
        ua.set_account(ACCOUNT, settings);
        Self {
            ua,
            at,
            log: Vec::new(),
            snapshots: BTreeMap::new(),
            media: Vec::new(),
            queries: Vec::new(),
            keep_alives: Vec::new(),
            media_error: None,
            chat_connects: true,
            recorder_reports: true,
            recording: None,
            states: BTreeMap::new(),
        }
    }

    pub fn call(&mut self, callee: &str, routes: &[&str], now: Instant) -> Result<SessionId, VerbError> {
        let call = Connect {
            account: ACCOUNT,
            callee: uri(callee),
            routes: routes.iter().map(|text| route(text)).collect(),
            audio: true,
            chat: false,
            late_offer: false,
            extra_headers: Vec::new(),
        };
        self.ua.connect(call, now)
    }

    /// Does what the user agent asks for; gives back what it sends.
    pub fn drain(&mut self, now: Instant) -> Vec<(Flow, Bytes, Option<ClientId>)> {
        let mut sent = Vec::new();
        while let Some(output) = self.ua.poll_output() {
            match output {
                Output::Transmit { flow, bytes, client } => sent.push((flow, bytes, client)),
                Output::Event(event) => self.note(event),
                Output::Media(session, command) => {
                    self.play_media(session, &command, now);
                    self.media.push(command);
                }
                Output::KeepAlive { flow, interval } => self.keep_alives.push((flow, interval)),
                Output::Resolve { query, question, .. } => self.queries.push((query, question)),
            }
        }
        sent
    }

    fn play_media(&mut self, session: SessionId, command: &MediaCommand, now: Instant) {
        match command {
            MediaCommand::Open { .. } => {
                let opened = match self.media_error.take() {
                    Some(error) => Err(error),
                    None => Ok(LocalMedia { address: self.at.ip(), rtp_port: 4000, rtcp_port: 4001 }),
                };
                self.ua.handle_media_opened(session, opened, now);
            }
            MediaCommand::OpenChat { .. } => {
                let opened = match self.media_error.take() {
                    Some(error) => Err(error),
                    None => Ok(local_chat(self.at)),
                };
                self.ua.handle_chat_opened(session, opened, now);
            }
            MediaCommand::StartChat(_) if self.chat_connects => {
                self.ua.handle_media_event(session, MediaEvent::ChatDidStart, now);
            }
            MediaCommand::StartRecording { path, .. } => {
                self.recording = Some(path.clone());
                if self.recorder_reports {
                    self.recorder_starts(session, now);
                }
            }
            MediaCommand::StopRecording if self.recorder_reports => self.recorder_stops(session, None, now),
            _ => {}
        }
    }

    pub fn recorder_starts(&mut self, session: SessionId, now: Instant) {
        let path = self.recording.clone().expect("a recording was asked for");
        self.ua.handle_media_event(session, MediaEvent::RecordingDidStart { path }, now);
    }

    pub fn recorder_stops(&mut self, session: SessionId, error: Option<&str>, now: Instant) {
        let path = self.recording.take().expect("a recording was asked for");
        let error = error.map(str::to_owned);
        self.ua.handle_media_event(session, MediaEvent::RecordingDidStop { path, error }, now);
    }

    /// Writes an event down and checks what must hold for every one (`session-api` §2.1).
    fn note(&mut self, event: Event) {
        let session = event.session();
        let Event { snapshot, kind, .. } = event;
        self.log.push(line(&kind));
        let Some(session) = session else { return };
        let snapshot = snapshot.expect("a session's event carries its snapshot");
        let state = self.states.entry(session).or_default();
        match &kind {
            EventKind::SessionChangedState { prev_state, state: new } => {
                assert_eq!(prev_state, state, "the states of a session are a chain");
                *state = *new;
            }
            EventKind::SessionGotStreamUpdate { streams } => assert_eq!(streams.audio, snapshot.has_audio),
            EventKind::SessionDidFail { code, .. } => {
                assert_eq!(snapshot.failure.as_ref().map(|failure| failure.0), Some(*code));
            }
            EventKind::SessionDidEnd { .. } => assert_eq!(snapshot.state, SessionState::Terminated),
            EventKind::SessionGotHoldRequest { originator: Originator::Remote } => assert!(snapshot.on_hold_by_remote),
            EventKind::SessionGotHoldRequest { originator: Originator::Local } => assert!(snapshot.on_hold_by_local),
            EventKind::SessionGotUnholdRequest { originator: Originator::Remote } => {
                assert!(!snapshot.on_hold_by_remote);
            }
            EventKind::SessionGotUnholdRequest { originator: Originator::Local } => assert!(!snapshot.on_hold_by_local),
            _ => {}
        }
        assert_eq!(snapshot.state, *state, "the snapshot of {kind:?}");
        self.snapshots.insert(session, snapshot);
    }

    pub fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// The only session there was.
    pub fn last(&self) -> SessionId {
        *self.snapshots.keys().next_back().expect("there was a session")
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshots[&self.last()]
    }
}

/// Alice and Bob on a network without loss or delay.
pub struct Pair {
    pub alice: Side,
    pub bob: Side,
    pub now: Instant,
    /// Every message since the last [`Self::take_wire`]: the first line, with `>` from Alice and `<` from Bob.
    pub wire: Vec<String>,
    /// Messages that get lost: those whose line begins so.
    pub lost: Vec<&'static str>,
}

impl Pair {
    pub fn new() -> Self {
        Self {
            alice: Side::new("alice", ALICE, 1),
            bob: Side::new("bob", BOB, 2),
            now: start(),
            wire: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Delivers until nothing moves.
    pub fn run(&mut self) {
        loop {
            let from_alice = self.alice.drain(self.now);
            let from_bob = self.bob.drain(self.now);
            if from_alice.is_empty() && from_bob.is_empty() {
                return;
            }
            for (arrow, source, sent) in [('>', ALICE, from_alice), ('<', BOB, from_bob)] {
                for (flow, bytes, client) in sent {
                    self.deliver(arrow, address(source), flow, bytes, client);
                }
            }
        }
    }

    fn deliver(&mut self, arrow: char, source: SocketAddr, flow: Flow, bytes: Bytes, client: Option<ClientId>) {
        let message = Message::parse(bytes).expect("what we send can be read");
        message.validate().expect("what we send is valid");
        let line = format!("{arrow} {}", first_line(&message));
        let is_lost = self.lost.iter().any(|lost| line.starts_with(lost));
        self.wire.push(line);
        let (from, to) = if arrow == '>' { (&mut self.alice, &mut self.bob) } else { (&mut self.bob, &mut self.alice) };
        if is_lost {
            return;
        }
        if flow.remote == to.at {
            to.ua.handle_message(message, Flow { remote: source, ..flow }, self.now);
        } else if let Some(client) = client {
            from.ua.handle_transport_error(client, "no route to host", self.now);
        }
    }

    /// Lets time pass, with every timer on the way.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.run();
            let next = [self.alice.ua.poll_timeout(), self.bob.ua.poll_timeout()].into_iter().flatten().min();
            match next {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.alice.ua.handle_timeout(self.now);
                    self.bob.ua.handle_timeout(self.now);
                }
                _ => break,
            }
        }
        self.now = end;
        self.run();
    }

    pub fn take_wire(&mut self) -> Vec<String> {
        std::mem::take(&mut self.wire)
    }

    /// Alice calls Bob; it rings.
    pub fn ring(&mut self) -> (SessionId, SessionId) {
        let call = self.alice.call("sip:bob@example.com", &[BOB], self.now).expect("a call");
        self.run();
        (call, self.bob.last())
    }

    /// Alice calls Bob; he answers.
    pub fn talk(&mut self) -> (SessionId, SessionId) {
        let (alice, bob) = self.ring();
        self.bob.ua.accept(bob, true, false, self.now).expect("accepted");
        self.run();
        assert_eq!(self.alice.snapshot().state, SessionState::Established);
        assert_eq!(self.bob.snapshot().state, SessionState::Established);
        self.alice.take_log();
        self.bob.take_log();
        self.take_wire();
        self.alice.media.clear();
        self.bob.media.clear();
        (alice, bob)
    }

    /// After every call: nothing is left once the transactions have run out.
    pub fn expect_nothing_left(&mut self) {
        self.pass(Duration::from_secs(70));
        assert!(self.alice.ua.is_idle(), "Alice: {:?}", self.alice.ua);
        assert!(self.bob.ua.is_idle(), "Bob: {:?}", self.bob.ua);
    }
}

/// `METHOD` of a request, `code METHOD` of a response.
pub fn first_line(message: &Message) -> String {
    match message.status() {
        Some(status) => format!("{status} {}", message.method()),
        None => message.method().to_string(),
    }
}

/// The peer of [`Lone`].
pub const PEER: &str = "192.0.2.9:5060";

/// PCMU offered or answered by [`PEER`].
pub const SDP: &str = "v=0\r\no=bob 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
                       m=audio 6000 RTP/AVP 0\r\n";

/// [`SDP`] with another o= version and a direction.
pub fn sdp(version: u32, direction: &str) -> String {
    format!("{}a={direction}\r\n", SDP.replace("bob 1 1", &format!("bob 1 {version}")))
}

/// One user agent against messages written by hand.
pub struct Lone {
    pub side: Side,
    pub now: Instant,
    pub sent: Vec<Message>,
    clients: Vec<ClientId>,
}

/// A request of [`PEER`] to Alice.
#[derive(Clone)]
pub struct Draft {
    pub method: &'static str,
    pub uri: &'static str,
    pub branch: String,
    pub to_tag: Option<String>,
    pub number: u32,
    pub extra: Vec<String>,
    pub body: String,
}

impl Draft {
    pub fn new(method: &'static str, branch: &str) -> Self {
        Self {
            method,
            uri: "sip:alice@192.0.2.1",
            branch: branch.into(),
            to_tag: None,
            number: 1,
            extra: vec!["Contact: <sip:bob@192.0.2.9>".into()],
            body: String::new(),
        }
    }

    pub fn invite() -> Self {
        Self { body: SDP.into(), ..Self::new("INVITE", "invite") }.with("Content-Type: application/sdp")
    }

    pub fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub fn with(mut self, header: &str) -> Self {
        self.extra.push(header.into());
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = body.into();
        self
    }

    /// The same in the dialog that this response made.
    pub fn in_dialog(mut self, number: u32, response: &Message) -> Self {
        let tag = response.to().expect("To").tag().expect("a To tag");
        (self.number, self.to_tag) = (number, Some(String::from_utf8(tag.to_vec()).expect("text")));
        self
    }

    pub fn text(&self) -> String {
        let Self { method, uri, branch, number, body, .. } = self;
        let tag = self.to_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let mut text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
             From: \"Bob\" <sip:bob@example.com>;tag=peer\r\nTo: <sip:alice@example.com>{tag}\r\n\
             Call-ID: written-by-hand\r\nCSeq: {number} {method}\r\n"
        );
        for header in &self.extra {
            text += header;
            text += "\r\n";
        }
        text + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
    }
}

impl Lone {
    pub fn new() -> Self {
        Self { side: Side::new("alice", ALICE, 7), now: start(), sent: Vec::new(), clients: Vec::new() }
    }

    pub fn flow() -> Flow {
        Flow::to(Transport::Udp, address(PEER))
    }

    pub fn run(&mut self) {
        loop {
            let sent = self.side.drain(self.now);
            if sent.is_empty() {
                return;
            }
            for (_, bytes, client) in sent {
                let message = Message::parse(bytes).expect("what we send can be read");
                if !matches!(message.status(), Some(400 | 505 | 513)) {
                    message.validate().expect("what we send is valid"); // these repeat what was wrong
                }
                self.sent.push(message);
                self.clients.extend(client);
            }
        }
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run();
        while let Some(at) = self.side.ua.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.side.ua.handle_timeout(self.now);
            self.run();
        }
        self.now = end;
    }

    /// What was sent since the last time.
    pub fn take(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.sent)
    }

    /// Its lines.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.take().iter().map(first_line).collect()
    }

    pub fn receive(&mut self, text: impl Into<Vec<u8>>) {
        match Message::parse(Bytes::from(text.into())) {
            Ok(message) => self.side.ua.handle_message(message, Self::flow(), self.now),
            Err(error) => self.side.ua.handle_bad_message(error, Self::flow(), self.now),
        }
        self.run();
    }

    /// Sends a request of the peer's; gives back all that we send at once.
    pub fn ask(&mut self, draft: &Draft) -> Vec<Message> {
        self.take();
        self.receive(draft.text());
        self.take()
    }

    /// The peer answers a request of ours.
    pub fn respond(&mut self, request: &Message, code: u16, tag: &str, headers: &[&str], body: &str) {
        let mut response = Builder::response(request, code, "", Some(tag), self.side.at);
        for header in headers {
            let (name, value) = header.split_once(": ").expect("name: value");
            response = response.header(name, value);
        }
        let body = (!body.is_empty()).then_some(("application/sdp", body.as_bytes()));
        self.receive(response.finish(body).to_vec());
    }

    /// The transport fails for the last request.
    pub fn fail_transport(&mut self, error: &str) {
        let client = *self.clients.last().expect("a request was sent");
        self.side.ua.handle_transport_error(client, error, self.now);
        self.run();
    }

    /// Calls the peer; gives back the INVITE.
    pub fn call(&mut self) -> (SessionId, Message) {
        let call = self.side.call("sip:bob@example.com", &[PEER], self.now).expect("a call");
        self.run();
        let mut sent = self.take();
        assert_eq!(sent.len(), 1);
        (call, sent.remove(0))
    }

    /// The peer calls and is answered; gives back our 200.
    pub fn talk(&mut self) -> (SessionId, Message) {
        self.ask(&Draft::invite());
        let session = self.side.last();
        self.side.ua.accept(session, true, false, self.now).expect("accepted");
        self.run();
        let ok = self.take().pop().expect("a 200");
        assert_eq!(ok.status(), Some(200));
        self.receive(Draft::new("ACK", "ack").in_dialog(1, &ok).text());
        assert_eq!(self.side.snapshot().state, SessionState::Established);
        self.side.take_log();
        self.side.media.clear();
        (session, ok)
    }

    pub fn expect_nothing_left(&mut self) {
        self.pass(Duration::from_secs(100));
        assert!(self.side.ua.is_idle(), "{:?}", self.side.ua);
    }
}

/// An arbitrary origin of virtual time.
#[expect(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
pub fn start() -> Instant {
    Instant::now()
}

/// A header as text.
pub fn header(message: &Message, name: &str) -> String {
    String::from_utf8_lossy(message.header_named(name).unwrap_or_default()).into_owned()
}
