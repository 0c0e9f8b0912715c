//! A network that exists only in memory: user agents, the wires between them, and a clock that jumps.
//!
//! Everything that happens has a time and a number, and happens in that order; the only chance is a generator with the
//! net's seed. So a run with the same seed is the same run, and an hour of it takes milliseconds.
//!
//! UDP loses, delays (and so reorders) and repeats datagrams as the [`Link`] of its direction says. TCP delays only, and
//! its bytes arrive cut at random places. Media are answered for, not sent: each `Open` gets ports at once.

#![allow(dead_code)] // each test program uses its part of it

pub mod peer;
pub mod registrar;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use sipwire::event::{AccountId, Event, EventKind, Originator, Route, SessionId, SessionState, Streams};
use sipwire::media::{CodecKind, LocalChat, LocalMedia, MediaCommand, MediaEvent};
use sipwire::sip::message::Message;
use sipwire::sip::stream::{Frame, StreamFramer};
use sipwire::sip::transaction::ClientId;
use sipwire::sip::transport::{ConnectionId, Flow, Transport};
use sipwire::sip::uri::Uri;
use sipwire::testing::{Proxy, Settings};
use sipwire::ua::locate::{Answer, Naptr, Question, Srv};
use sipwire::ua::{AccountSettings, Connect, Output, QueryId, UaConfig, UserAgent, VerbError};

/// The account each node has.
pub const ACCOUNT: AccountId = AccountId(1);

/// Most steps of one run: a net that does more is going in circles.
const MAX_STEPS: u64 = 1_000_000;

#[expect(clippy::disallowed_methods, reason = "where virtual time begins does not matter, and nothing else begins it")]
pub fn any_instant() -> Instant {
    Instant::now()
}

/// What a direction does to datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Percent.
    pub loss: u32,
    /// Percent of datagrams that come twice.
    pub duplicate: u32,
    /// Percent of datagrams that come with some bytes changed, left out or doubled (UDP's checksum is 16 bits, and not
    /// every fault is on the wire).
    pub corrupt: u32,
    /// One way, uniform between the two.
    pub delay: (Duration, Duration),
}

impl Link {
    pub const PERFECT: Self =
        Self { loss: 0, duplicate: 0, corrupt: 0, delay: (Duration::from_millis(10), Duration::from_millis(10)) };

    pub fn lossy(loss: u32, max_delay: Duration) -> Self {
        Self { loss, duplicate: 0, corrupt: 0, delay: (Duration::ZERO, max_delay) }
    }
}

/// What an application does at some time.
#[derive(Clone, Debug)]
pub enum Action {
    Ring(SessionId),
    Accept(SessionId),
    Reject(SessionId, u16),
    End(SessionId),
    /// These are ignored where the session does not allow them (now).
    Hold(SessionId, bool),
    AddChat(SessionId),
    RemoveChat(SessionId),
    AcceptProposal(SessionId),
    RejectProposal(SessionId),
}

/// Answers an event of its node with what to do how much later.
pub type React = Box<dyn FnMut(&Event, &mut StdRng) -> Vec<(Duration, Action)>>;

/// Answers what comes to a node without a user agent: (message, from, since the start).
pub type Serve = Box<dyn FnMut(&Message, SocketAddr, Duration) -> Vec<Bytes>>;

/// One user agent, or a peer played by the test itself (`ua` is `None`).
pub struct Node {
    pub name: &'static str,
    pub address: SocketAddr,
    pub ua: Option<UserAgent>,
    /// A test proxy, in the place of a user agent.
    pub proxy: Option<Proxy>,
    pub events: Vec<(Duration, Event)>,
    pub media: Vec<(SessionId, MediaCommand)>,
    /// Messages that came to a node without a user agent.
    pub inbox: Vec<Message>,
    /// What such a node answers at once, instead of collecting.
    pub serve: Option<Serve>,
    /// Flows a user agent wants kept open, or no longer.
    pub keep_alives: Vec<(Duration, Flow, Option<Duration>)>,
    pub react: Option<React>,
    /// Whether TCP connections are taken.
    pub listens: bool,
    /// Whether media can be opened.
    pub media_fails: bool,
    next_port: u16,
    recording: Option<PathBuf>,
}

enum Pending {
    Datagram { to: usize, from: SocketAddr, bytes: Bytes },
    Segment { connection: usize, to_opener: bool, bytes: Bytes },
    Refused { node: usize, client: ClientId },
    Resolved { node: usize, query: QueryId, answer: Result<Answer, String> },
    Act { node: usize, action: Action },
}

/// What name servers know. Names that are nowhere in it do not exist.
#[derive(Debug, Default)]
pub struct Zone {
    pub naptr: BTreeMap<String, Vec<Naptr>>,
    pub srv: BTreeMap<String, Vec<Srv>>,
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Names whose questions are never answered.
    pub silent: BTreeSet<String>,
    /// How long each answer takes.
    pub delay: Duration,
}

impl Zone {
    /// `SIP+D2U`, … of a domain, the first one best.
    pub fn naptr(&mut self, domain: &str, services: &[(&str, &str)]) {
        let record = |(order, (service, replacement)): (u16, &(&str, &str))| Naptr {
            order,
            preference: 0,
            flags: "s".to_owned(),
            service: (*service).to_owned(),
            replacement: (*replacement).to_owned(),
        };
        self.naptr.insert(domain.to_owned(), (0..).zip(services).map(record).collect());
    }

    /// Servers of a service, in the order they are to be tried.
    pub fn srv(&mut self, name: &str, servers: &[(&str, u16)]) {
        let record = |(priority, (target, port)): (u16, &(&str, u16))| Srv {
            priority,
            weight: 0,
            port: *port,
            target: (*target).to_owned(),
        };
        self.srv.insert(name.to_owned(), (0..).zip(servers).map(record).collect());
    }

    pub fn host(&mut self, name: &str, addresses: &[IpAddr]) {
        self.hosts.insert(name.to_owned(), addresses.to_vec());
    }

    fn answer(&self, question: &Question) -> Option<Answer> {
        let name = question.name();
        (!self.silent.contains(name)).then(|| match question {
            Question::Naptr(_) => Answer::Naptr(self.naptr.get(name).cloned().unwrap_or_default()),
            Question::Srv(_) => Answer::Srv(self.srv.get(name).cloned().unwrap_or_default()),
            Question::Address { .. } => Answer::Address(self.hosts.get(name).cloned().unwrap_or_default()),
        })
    }
}

struct Scheduled {
    at: Instant,
    order: u64,
    what: Pending,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// One TCP connection: who opened it, from which port, and what is on the way in each direction.
struct Connection {
    opener: usize,
    opener_address: SocketAddr,
    acceptor: usize,
    framers: [StreamFramer; 2], // of the opener, of the acceptor
    last: [Instant; 2],         // bytes keep their order
}

/// Decides which datagram does not arrive: (message, from, to).
pub type DropRule = Box<dyn FnMut(&Message, usize, usize) -> bool>;

pub struct SimNet {
    pub seed: u64,
    pub start: Instant,
    pub now: Instant,
    pub random: StdRng,
    pub nodes: Vec<Node>,
    pub link: Link,
    /// Directions that differ from `link`.
    pub links: BTreeMap<(usize, usize), Link>,
    pub drop: Option<DropRule>,
    pub dns: Zone,
    /// What name servers were asked, by all nodes.
    pub asked: Vec<Question>,
    /// What went over the wires, when asked for.
    pub trace: Option<Vec<String>>,
    pub steps: u64,
    connections: Vec<Connection>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
}

/// The default configuration of the user agent at this address.
pub fn config(address: SocketAddr) -> UaConfig {
    UaConfig {
        local: vec![(Transport::Udp, address), (Transport::Tcp, address)],
        user_agent: "sipwire-test".to_owned(),
        codecs: CodecKind::ALL.to_vec(),
        max_sessions: 16_384,
        invite_rate: 2_000,
        invite_rate_per_source: 1_000,
        auto_ring: true,
        chat: true,
        accepts_calls: true,
        accepts_messages: true,
        event_packages: Vec::new(),
    }
}

/// The account `sip:name@example.com`.
pub fn account(name: &str) -> AccountSettings {
    AccountSettings::new(uri(name))
}

impl SimNet {
    pub fn new(seed: u64) -> Self {
        let start = any_instant();
        Self {
            seed,
            start,
            now: start,
            random: StdRng::seed_from_u64(seed),
            nodes: Vec::new(),
            link: Link::PERFECT,
            links: BTreeMap::new(),
            drop: None,
            dns: Zone::default(),
            asked: Vec::new(),
            trace: None,
            steps: 0,
            connections: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
        }
    }

    /// A net with alice (0) and bob (1).
    pub fn pair(seed: u64) -> Self {
        let mut net = Self::new(seed);
        net.add("alice", |_| {});
        net.add("bob", |_| {});
        net
    }

    fn add_node(&mut self, name: &'static str, ua: Option<UserAgent>, address: SocketAddr) -> usize {
        self.nodes.push(Node {
            name,
            address,
            ua,
            proxy: None,
            events: Vec::new(),
            media: Vec::new(),
            inbox: Vec::new(),
            serve: None,
            keep_alives: Vec::new(),
            react: None,
            listens: true,
            media_fails: false,
            next_port: 20_000,
            recording: None,
        });
        self.nodes.len() - 1
    }

    fn next_address(&self) -> SocketAddr {
        let last = u8::try_from(self.nodes.len() + 1).expect("few nodes");
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 5060)
    }

    /// Adds a user agent with the account `sip:name@example.com`, its configuration changed by `change`.
    pub fn add(&mut self, name: &'static str, change: impl FnOnce(&mut UaConfig)) -> usize {
        let address = self.next_address();
        let mut config = config(address);
        change(&mut config);
        let mut ua = UserAgent::new(config, StdRng::seed_from_u64(self.random.random()));
        ua.set_account(ACCOUNT, account(name));
        self.add_node(name, Some(ua), address)
    }

    /// Adds a peer that the test plays: it collects what comes and sends what [`Self::send_raw`] is given.
    pub fn add_raw(&mut self, name: &'static str) -> usize {
        let address = self.next_address();
        self.add_node(name, None, address)
    }

    /// Adds a test proxy for example.com.
    pub fn add_proxy(&mut self, name: &'static str, change: impl FnOnce(&mut Settings)) -> usize {
        let address = self.next_address();
        let mut settings = Settings::new("example.com");
        settings.local = vec![(Transport::Udp, address), (Transport::Tcp, address)];
        change(&mut settings);
        let node = self.add_node(name, None, address);
        self.nodes[node].proxy = Some(Proxy::new(settings, StdRng::seed_from_u64(self.random.random()), self.now));
        node
    }

    pub fn proxy(&mut self, node: usize) -> &mut Proxy {
        self.nodes[node].proxy.as_mut().expect("a node with a proxy")
    }

    pub fn ua(&mut self, node: usize) -> &mut UserAgent {
        self.nodes[node].ua.as_mut().expect("a node with a user agent")
    }

    /// One or more verbs at this moment, then everything they put out.
    pub fn with<T>(&mut self, node: usize, verb: impl FnOnce(&mut UserAgent, Instant) -> T) -> T {
        let now = self.now;
        let result = verb(self.ua(node), now);
        self.drain(node);
        result
    }

    pub fn route_to(&self, node: usize, transport: Transport) -> Route {
        let address = self.nodes[node].address;
        Route::new(address.ip().to_string(), address.port(), transport)
    }

    /// Calls `callee` with audio.
    pub fn call(&mut self, caller: usize, callee: usize, transport: Transport) -> SessionId {
        let callee_uri = uri(self.nodes[callee].name);
        let routes = vec![self.route_to(callee, transport)];
        self.connect(caller, callee_uri, routes).expect("connect is allowed")
    }

    pub fn connect(&mut self, caller: usize, callee: Uri, routes: Vec<Route>) -> Result<SessionId, VerbError> {
        self.with(caller, |ua, now| {
            ua.connect(
                Connect {
                    account: ACCOUNT,
                    callee,
                    routes,
                    audio: true,
                    chat: false,
                    late_offer: false,
                    extra_headers: Vec::new(),
                },
                now,
            )
        })
    }

    pub fn accept(&mut self, node: usize, session: SessionId) {
        self.with(node, |ua, now| ua.accept(session, true, false, now)).expect("accept is allowed");
    }

    pub fn end(&mut self, node: usize, session: SessionId) {
        self.with(node, |ua, now| ua.end(session, None, now)).expect("end is allowed");
    }

    pub fn reject(&mut self, node: usize, session: SessionId, code: u16) {
        self.with(node, |ua, now| ua.reject(session, code, None, now)).expect("reject is allowed");
    }

    /// Does it when its time has come, if it is still allowed then (a call may be over by then).
    pub fn plan(&mut self, node: usize, after: Duration, action: Action) {
        self.push(self.now + after, Pending::Act { node, action });
    }

    /// The session a node was last told of as incoming.
    pub fn incoming(&self, node: usize) -> SessionId {
        let is_new = |(_, event): &&(Duration, Event)| matches!(event.kind, EventKind::SessionNewIncoming { .. });
        let found = self.nodes[node].events.iter().rev().find(is_new);
        found.and_then(|(_, event)| event.session()).unwrap_or_else(|| panic!("seed {}: no incoming call", self.seed))
    }

    /// Sends text with `\n` line ends from a raw node as one datagram.
    pub fn send_raw(&mut self, from: usize, to: usize, text: &str) {
        let bytes = Bytes::from(text.replace('\n', "\r\n"));
        self.transmit_udp(from, self.nodes[to].address, bytes);
    }

    // --- time --------------------------------------------------------------------------------------------------------

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// When something next happens.
    fn next_time(&self) -> Option<Instant> {
        let queued = self.queue.peek().map(|event| event.0.at);
        let timers = self.nodes.iter().filter_map(|node| node.ua.as_ref()?.poll_timeout());
        let proxies = self.nodes.iter().filter_map(|node| node.proxy.as_ref()?.poll_timeout());
        timers.chain(proxies).chain(queued).min()
    }

    /// Does what is due first; false when nothing is before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let Some(at) = self.next_time().filter(|at| *at <= end) else { return false };
        self.steps += 1;
        assert!(self.steps < MAX_STEPS, "seed {}: going in circles at {:?}", self.seed, self.elapsed());
        self.now = self.now.max(at);
        if self.queue.peek().is_some_and(|event| event.0.at <= self.now) {
            if let Some(Reverse(event)) = self.queue.pop() {
                self.happen(event.what);
            }
            return true;
        }
        let now = self.now;
        for index in 0..self.nodes.len() {
            if let Some(ua) = &mut self.nodes[index].ua
                && ua.poll_timeout().is_some_and(|at| at <= now)
            {
                ua.handle_timeout(now);
                self.drain(index);
            }
            if let Some(proxy) = &mut self.nodes[index].proxy
                && proxy.poll_timeout().is_some_and(|at| at <= now)
            {
                proxy.handle_timeout(now);
                self.drain(index);
            }
        }
        true
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    pub fn run_ms(&mut self, ms: u64) {
        self.run_for(Duration::from_millis(ms));
    }

    /// Runs until nothing is left to happen, at most until `limit` from now.
    pub fn run_to_the_end(&mut self, limit: Duration) {
        let end = self.now + limit;
        while self.step(end) {}
        if let Some(next) = self.next_time() {
            panic!("seed {}: still busy, next {:?} after the limit of {limit:?}", self.seed, next - end);
        }
    }

    /// What is left over in any user agent, in words; `Ok` when nothing is.
    pub fn check_idle(&self) -> Result<(), String> {
        for node in &self.nodes {
            if node.proxy.as_ref().is_some_and(|proxy| !proxy.is_idle()) {
                return Err(format!("{} is not idle", node.name));
            }
            let Some(ua) = &node.ua else { continue };
            let stats = ua.stats();
            let counts = (stats.sessions, stats.dialogs, stats.client_transactions, stats.server_transactions);
            if !ua.is_idle() || counts != (0, 0, 0, 0) || ua.poll_timeout().is_some() || !ua.sessions().is_empty() {
                return Err(format!("{} is not idle: {stats:?}, timer {:?}", node.name, ua.poll_timeout()));
            }
        }
        Ok(())
    }

    pub fn assert_idle(&self) {
        if let Err(error) = self.check_idle() {
            panic!("seed {}: {error}", self.seed);
        }
    }

    // --- the wires ---------------------------------------------------------------------------------------------------

    fn push(&mut self, at: Instant, what: Pending) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at, order: self.order, what }));
    }

    fn log(&mut self, from: &str, to: &str, bytes: &[u8], fate: &str) {
        let ms = self.elapsed().as_millis();
        if let Some(trace) = &mut self.trace {
            let text = String::from_utf8_lossy(bytes);
            let first = text.lines().next().unwrap_or("");
            let cseq = text.lines().find(|line| line.starts_with("CSeq:")).unwrap_or("");
            trace.push(format!("{ms:>8} ms  {from} -> {to}  {first}  [{cseq}] {fate}"));
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let ms = self.elapsed().as_millis();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{ms:>8} ms  {}", what()));
        }
    }

    fn find(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.address == address)
    }

    fn transmit_udp(&mut self, from: usize, to: SocketAddr, bytes: Bytes) {
        self.transmit_udp_from(from, self.nodes[from].address, to, bytes);
    }

    fn transmit_udp_from(&mut self, from: usize, source: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let name = self.nodes[from].name;
        let Some(target) = self.find(to) else {
            self.log(name, &to.to_string(), &bytes, "nobody there");
            return;
        };
        let link = self.links.get(&(from, target)).copied().unwrap_or(self.link);
        let lost = (self.random.random_range(0..100) < link.loss) | self.is_dropped(&bytes, from, target);
        self.log(name, self.nodes[target].name, &bytes, if lost { "LOST" } else { "" });
        if lost {
            return;
        }
        let copies = if self.random.random_range(0..100) < link.duplicate { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.random.random_range(link.delay.0..=link.delay.1);
            let damaged = link.corrupt > 0 && self.random.random_range(0..100) < link.corrupt;
            let bytes = if damaged { damage(&bytes, &mut self.random) } else { bytes.clone() };
            self.push(self.now + delay, Pending::Datagram { to: target, from: source, bytes });
        }
    }

    /// What `drop` says; over TCP, where nothing is lost, it stands for a peer that never wrote the message.
    fn is_dropped(&mut self, bytes: &Bytes, from: usize, to: usize) -> bool {
        let Some(drop) = &mut self.drop else { return false };
        Message::parse(bytes.clone()).is_ok_and(|message| drop(&message, from, to))
    }

    /// The connection a flow names, or one to its address, or a new one; `None` when nobody listens there.
    fn connection(&mut self, from: usize, flow: Flow) -> Option<(usize, bool)> {
        let open = |connection: &Connection| {
            if connection.opener == from && self.nodes[connection.acceptor].address == flow.remote {
                return Some(false); // away from the opener
            }
            (connection.acceptor == from && connection.opener_address == flow.remote).then_some(true)
        };
        if let Some(ConnectionId(id)) = flow.connection {
            let index = usize::try_from(id).expect("one of ours");
            return Some((index, self.connections[index].acceptor == from));
        }
        if let Some(found) = self.connections.iter().enumerate().find_map(|(at, one)| Some((at, open(one)?))) {
            return Some(found);
        }
        let acceptor = self.find(flow.remote).filter(|node| self.nodes[*node].listens)?;
        let port = 40_000 + u16::try_from(self.connections.len()).expect("few connections");
        self.connections.push(Connection {
            opener: from,
            opener_address: SocketAddr::new(self.nodes[from].address.ip(), port),
            acceptor,
            framers: Default::default(),
            last: [self.now; 2],
        });
        Some((self.connections.len() - 1, false))
    }

    fn transmit_tcp(&mut self, from: usize, flow: Flow, bytes: Bytes, client: Option<ClientId>) {
        let name = self.nodes[from].name;
        let Some((index, to_opener)) = self.connection(from, flow) else {
            self.log(name, &flow.remote.to_string(), &bytes, "connection refused");
            if let Some(client) = client {
                self.push(self.now + Duration::from_millis(1), Pending::Refused { node: from, client });
            }
            return;
        };
        let connection = &self.connections[index];
        let to = if to_opener { connection.opener } else { connection.acceptor };
        let dropped = self.is_dropped(&bytes, from, to);
        self.log(name, self.nodes[to].name, &bytes, if dropped { "DROPPED tcp" } else { "tcp" });
        if dropped {
            return;
        }
        let link = self.links.get(&(from, to)).copied().unwrap_or(self.link);
        let delay = self.random.random_range(link.delay.0..=link.delay.1);
        let last = &mut self.connections[index].last[usize::from(!to_opener)];
        *last = (*last).max(self.now + delay);
        let at = *last;
        let mut rest = bytes;
        while !rest.is_empty() {
            let cut = self.random.random_range(1..=rest.len());
            let segment = rest.split_to(cut);
            self.push(at, Pending::Segment { connection: index, to_opener, bytes: segment });
        }
    }

    /// What a node played by the test says to a message.
    fn serve(&mut self, node: usize, message: Message, from: SocketAddr) -> Vec<Bytes> {
        let elapsed = self.elapsed();
        match &mut self.nodes[node].serve {
            Some(serve) => serve(&message, from, elapsed),
            None => {
                self.nodes[node].inbox.push(message);
                Vec::new()
            }
        }
    }

    fn happen(&mut self, what: Pending) {
        let now = self.now;
        match what {
            Pending::Datagram { to, from, bytes } => {
                let flow = Flow::to(Transport::Udp, from);
                let parsed = Message::parse(bytes);
                if let Some(proxy) = &mut self.nodes[to].proxy {
                    if let Ok(message) = parsed {
                        proxy.handle_message(message, flow, now);
                    }
                    return self.drain(to);
                }
                match (&mut self.nodes[to].ua, parsed) {
                    (Some(ua), Ok(message)) => ua.handle_message(message, flow, now),
                    (Some(ua), Err(error)) => ua.handle_bad_message(error, flow, now),
                    (None, Ok(message)) => {
                        for answer in self.serve(to, message, from) {
                            self.transmit_udp(to, from, answer);
                        }
                    }
                    (None, Err(_)) => {}
                }
                self.drain(to);
            }
            Pending::Segment { connection: index, to_opener, bytes } => {
                let connection = &mut self.connections[index];
                let (to, remote, framer) = if to_opener {
                    let remote = self.nodes[connection.acceptor].address;
                    (connection.opener, remote, &mut connection.framers[0])
                } else {
                    (connection.acceptor, connection.opener_address, &mut connection.framers[1])
                };
                framer.push(&bytes);
                let id = ConnectionId(index as u64);
                let flow = Flow { connection: Some(id), ..Flow::to(Transport::Tcp, remote) };
                let mut frames = Vec::new();
                while let Some(frame) = framer.next_frame() {
                    frames.push(frame);
                }
                for frame in frames {
                    if let Some(proxy) = &mut self.nodes[to].proxy {
                        if let Frame::Message(message) = frame {
                            proxy.handle_message(message, flow, now);
                        }
                        self.drain(to);
                        continue;
                    }
                    match (&mut self.nodes[to].ua, frame) {
                        (Some(ua), Frame::Message(message)) => ua.handle_message(message, flow, now),
                        (Some(ua), Frame::Bad(error) | Frame::Lost(error)) => ua.handle_bad_message(error, flow, now),
                        (None, Frame::Message(message)) => {
                            for answer in self.serve(to, message, remote) {
                                self.transmit_tcp(to, flow, answer, None);
                            }
                        }
                        _ => {}
                    }
                    self.drain(to);
                }
            }
            Pending::Refused { node, client } => {
                match &mut self.nodes[node].proxy {
                    Some(proxy) => proxy.handle_transport_error(client, "connection refused", now),
                    None => self.ua(node).handle_transport_error(client, "connection refused", now),
                }
                self.drain(node);
            }
            Pending::Resolved { node, query, answer } => {
                self.ua(node).handle_resolved(query, answer, now);
                self.drain(node);
            }
            Pending::Act { node, action } => {
                self.note(|| format!("application {action:?}"));
                // Forbidden by now is fine: the call went another way meanwhile.
                let _ = match action {
                    Action::Ring(session) => self.with(node, |ua, now| ua.ring(session, now)),
                    Action::Accept(session) => self.with(node, |ua, now| ua.accept(session, true, false, now)),
                    Action::Reject(session, code) => self.with(node, |ua, now| ua.reject(session, code, None, now)),
                    Action::End(session) => self.with(node, |ua, now| ua.end(session, None, now)),
                    Action::Hold(session, hold) => self.with(node, |ua, now| ua.hold(session, hold, now)),
                    Action::AddChat(session) => self.with(node, |ua, now| ua.add_chat(session, now)),
                    Action::RemoveChat(session) => self.with(node, |ua, now| ua.remove_chat(session, now)),
                    Action::AcceptProposal(session) => {
                        self.with(node, |ua, now| ua.accept_proposal(session, false, true, now))
                    }
                    Action::RejectProposal(session) => {
                        self.with(node, |ua, now| ua.reject_proposal(session, 488, None, now))
                    }
                };
            }
        }
    }

    /// Does what a user agent asks for until it asks for nothing more.
    fn drain(&mut self, index: usize) {
        let now = self.now;
        while let Some(sent) = self.nodes[index].proxy.as_mut().and_then(Proxy::poll_output) {
            let own = self.nodes[index].address;
            match sent.flow.transport {
                Transport::Udp => {
                    let port = own.port() + u16::from(sent.other_port);
                    self.transmit_udp_from(index, SocketAddr::new(own.ip(), port), sent.flow.remote, sent.bytes);
                }
                _ => self.transmit_tcp(index, sent.flow, sent.bytes, sent.client),
            }
        }
        while let Some(output) = self.nodes[index].ua.as_mut().and_then(UserAgent::poll_output) {
            match output {
                Output::Transmit { flow, bytes, client } => match flow.transport {
                    Transport::Udp => self.transmit_udp(index, flow.remote, bytes),
                    _ => self.transmit_tcp(index, flow, bytes, client),
                },
                Output::Event(event) => {
                    let name = self.nodes[index].name;
                    self.note(|| format!("{name}: {}", word(&event.kind)));
                    let node = &mut self.nodes[index];
                    let actions = match &mut node.react {
                        Some(react) => react(&event, &mut self.random),
                        None => Vec::new(),
                    };
                    node.events.push((now - self.start, event));
                    for (after, action) in actions {
                        self.plan(index, after, action);
                    }
                }
                Output::Media(session, command) => self.answer_media(index, session, command),
                Output::KeepAlive { flow, interval } => {
                    self.nodes[index].keep_alives.push((now - self.start, flow, interval));
                }
                Output::Resolve { query, question, patience } => {
                    self.asked.push(question.clone());
                    let (after, answer) = match self.dns.answer(&question) {
                        Some(answer) => (self.dns.delay, Ok(answer)),
                        None => (patience, Err("no answer".to_owned())),
                    };
                    if after.is_zero() {
                        self.ua(index).handle_resolved(query, answer, now);
                    } else {
                        self.push(now + after, Pending::Resolved { node: index, query, answer });
                    }
                }
            }
        }
    }

    fn answer_media(&mut self, index: usize, session: SessionId, command: MediaCommand) {
        let now = self.now;
        let node = &mut self.nodes[index];
        node.media.push((session, command.clone()));
        let Some(ua) = &mut node.ua else { return };
        let event = match command {
            MediaCommand::Open { .. } => {
                node.next_port += 2;
                let media =
                    LocalMedia { address: node.address.ip(), rtp_port: node.next_port, rtcp_port: node.next_port + 1 };
                let answer = if node.media_fails { Err("no port is free".to_owned()) } else { Ok(media) };
                return ua.handle_media_opened(session, answer, now);
            }
            MediaCommand::OpenChat { .. } => {
                node.next_port += 2;
                let (address, port) = (node.address.ip(), node.next_port);
                let chat = LocalChat {
                    address,
                    port,
                    path: format!("msrp://{address}:{port}/{};tcp", session.0),
                    tls: false,
                    accept_types: "text/plain".into(),
                    accept_wrapped_types: None,
                };
                return ua.handle_chat_opened(session, Ok(chat), now);
            }
            MediaCommand::StartChat(_) => MediaEvent::ChatDidStart,
            MediaCommand::StartRecording { path, .. } => {
                node.recording = Some(path.clone());
                MediaEvent::RecordingDidStart { path }
            }
            MediaCommand::StopRecording => match node.recording.take() {
                Some(path) => MediaEvent::RecordingDidStop { path, error: None },
                None => return,
            },
            _ => return,
        };
        ua.handle_media_event(session, event, now);
    }

    // --- what was seen -----------------------------------------------------------------------------------------------

    /// The notifications of one session of a node, in words.
    pub fn words(&self, node: usize, session: SessionId) -> Vec<String> {
        let events = self.nodes[node].events.iter();
        events.filter(|(_, event)| event.session() == Some(session)).map(|(_, event)| word(&event.kind)).collect()
    }

    /// Every notification of a node, in words.
    pub fn all_words(&self, node: usize) -> Vec<String> {
        self.nodes[node].events.iter().map(|(_, event)| word(&event.kind)).collect()
    }

    /// When this notification came first.
    pub fn time_of(&self, node: usize, what: &str) -> Option<Duration> {
        self.nodes[node].events.iter().find(|(_, event)| word(&event.kind) == what).map(|(at, _)| *at)
    }
}

/// Bytes that mean something to a parser.
const TELLING: &[u8] = b" \r\n\0;,:=<>\"@/9aZ";

/// One to four places changed: another byte, a piece missing, a piece twice.
fn damage(bytes: &Bytes, random: &mut StdRng) -> Bytes {
    let mut damaged = bytes.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..damaged.len().max(1)).min(damaged.len().saturating_sub(1));
        let end = (at + random.random_range(1..=8)).min(damaged.len());
        match random.random_range(0..4) {
            0 if at < damaged.len() => damaged[at] = random.random(),
            1 if at < damaged.len() => damaged[at] = TELLING[random.random_range(0..TELLING.len())],
            2 => drop(damaged.drain(at..end)),
            _ => {
                let piece = damaged[at..end].to_vec();
                damaged.splice(at..at, piece);
            }
        }
    }
    Bytes::from(damaged)
}

pub fn uri(user: &str) -> Uri {
    Uri::parse(format!("sip:{user}@example.com").as_bytes()).expect("a readable URI")
}

fn streams(streams: Streams) -> &'static str {
    match (streams.audio, streams.chat) {
        (true, true) => "audio,chat",
        (true, false) => "audio",
        (false, true) => "chat",
        (false, false) => "",
    }
}

fn originator(originator: Originator) -> &'static str {
    match originator {
        Originator::Local => "local",
        Originator::Remote => "remote",
    }
}

/// A notification in a few characters; "DidFail(remote 486)" leaves out the reason's words.
pub fn word(kind: &EventKind) -> String {
    match kind {
        EventKind::SessionChangedState { prev_state, state } => format!("{}>{}", prev_state.name(), state.name()),
        EventKind::SessionNewIncoming { streams: what } => format!("NewIncoming({})", streams(*what)),
        EventKind::SessionNewOutgoing { streams: what } => format!("NewOutgoing({})", streams(*what)),
        EventKind::SessionGotRingIndication => "GotRingIndication".to_owned(),
        EventKind::SessionWillStart => "WillStart".to_owned(),
        EventKind::SessionDidStart => "DidStart".to_owned(),
        EventKind::SessionDidFail { originator: who, code, .. } => format!("DidFail({} {code})", originator(*who)),
        EventKind::SessionWillEnd => "WillEnd".to_owned(),
        EventKind::SessionDidEnd { originator: who, .. } => format!("DidEnd({})", originator(*who)),
        EventKind::SessionGotStreamUpdate { streams: what } => format!("GotStreamUpdate({})", streams(*what)),
        EventKind::SessionGotHoldRequest { originator: who } => format!("GotHoldRequest({})", originator(*who)),
        EventKind::SessionGotUnholdRequest { originator: who } => format!("GotUnholdRequest({})", originator(*who)),
        EventKind::SessionGotStreamProposal { proposer, streams: what } => {
            format!("GotStreamProposal({} {})", originator(*proposer), streams(*what))
        }
        EventKind::SessionAcceptedStreamProposal { proposer } => {
            format!("AcceptedStreamProposal({})", originator(*proposer))
        }
        EventKind::SessionRejectedStreamProposal { proposer, .. } => {
            format!("RejectedStreamProposal({})", originator(*proposer))
        }
        EventKind::SessionDidChangeRoute { code, .. } => format!("DidChangeRoute({code})"),
        EventKind::OptionsDidAnswer { code, .. } => format!("OptionsDidAnswer({code})"),
        EventKind::SessionGotTransferRequest { replaces, .. } => {
            format!("GotTransferRequest({})", if replaces.is_some() { "attended" } else { "blind" })
        }
        EventKind::SessionTransferNewOutgoing { replaces, .. } => {
            format!("TransferNewOutgoing({})", if replaces.is_some() { "attended" } else { "blind" })
        }
        EventKind::SessionTransferDidStart { .. } => "TransferDidStart".to_owned(),
        EventKind::SessionTransferGotProgress { code, .. } => format!("TransferGotProgress({code})"),
        EventKind::SessionTransferDidEnd { code, .. } => format!("TransferDidEnd({code})"),
        EventKind::SessionTransferDidFail { code, .. } => format!("TransferDidFail({code})"),
        other => format!("{other:?}"),
    }
}

/// The legal courses of a call (session-api §1.2, §2.1), as a machine; the first line that fits counts: from, notification, to.
/// `*` stands for any characters.
const COURSES: &[(&str, &str, &str)] = &[
    ("new", "NULL>CALLING", "outgoing"),
    ("outgoing", "NewOutgoing(audio)", "calling"),
    ("calling", "GotRingIndication", "calling"),
    ("calling", "DidChangeRoute(*)", "calling"),
    ("calling", "WillStart", "will start"),
    ("will start", "GotStreamUpdate(audio)", "starting"),
    ("starting", "CALLING>ESTABLISHED", "did start"),
    ("did start", "DidStart", "up"),
    ("calling", "CALLING>TERMINATED", "failed"),
    ("calling", "CALLING>TERMINATING", "ending silent"),
    ("ending silent", "WillEnd", "gone local"),
    ("gone local", "TERMINATING>TERMINATED", "end local"),
    ("end local", "DidEnd(local)", "over"),
    ("failed", "DidFail(local *)", "end local"),
    ("failed", "DidFail(remote *)", "end remote"),
    ("end remote", "DidEnd(remote)", "over"),
    ("new", "NULL>INCOMING", "incoming"),
    ("incoming", "NewIncoming(audio)", "ringing"),
    ("ringing", "INCOMING>ACCEPTING", "accepting"),
    ("ringing", "INCOMING>TERMINATING", "ending silent"),
    ("ringing", "INCOMING>TERMINATED", "failed"),
    ("accepting", "WillStart", "will start"),
    ("starting", "ACCEPTING>ESTABLISHED", "did start"),
    ("accepting", "ACCEPTING>TERMINATING", "ending silent"),
    ("accepting", "ACCEPTING>TERMINATED", "failed"),
    ("up", "GotTransferRequest(*)", "up"),
    ("up", "TransferNewOutgoing(*)", "up"),
    ("up", "TransferDidStart", "up"),
    ("up", "TransferGotProgress(*)", "up"),
    ("up", "TransferDidEnd(*)", "up"),
    ("up", "TransferDidFail(*)", "up"),
    ("up", "GotHoldRequest(*)", "up"),
    ("up", "GotUnholdRequest(*)", "up"),
    ("up", "ESTABLISHED>PROPOSING", "asking"),
    ("asking", "GotStreamProposal(local *)", "proposing"),
    ("proposing", "GotHoldRequest(*)", "proposing"),
    ("proposing", "GotUnholdRequest(*)", "proposing"),
    ("proposing", "GotStreamUpdate()", "gone remote"),
    ("proposing", "GotStreamUpdate(*)", "proposing"),
    ("proposing", "PROPOSING>ESTABLISHED", "decided by them"),
    ("proposing", "PROPOSING>TERMINATING", "ending"),
    ("decided by them", "AcceptedStreamProposal(local)", "up"),
    ("decided by them", "RejectedStreamProposal(local)", "up"),
    ("up", "ESTABLISHED>PROPOSED", "asked"),
    ("asked", "GotStreamProposal(remote *)", "proposed"),
    ("proposed", "GotStreamUpdate()", "gone remote"),
    ("proposed", "GotStreamUpdate(*)", "proposed"),
    ("proposed", "PROPOSED>ESTABLISHED", "decided by us"),
    ("proposed", "PROPOSED>TERMINATING", "ending"),
    ("decided by us", "AcceptedStreamProposal(remote)", "up"),
    ("decided by us", "RejectedStreamProposal(remote)", "up"),
    ("up", "ESTABLISHED>TERMINATING", "ending"),
    ("ending", "WillEnd", "ending loud"),
    ("ending loud", "GotStreamUpdate()", "gone local"),
    ("up", "GotStreamUpdate()", "gone remote"),
    ("up", "GotStreamUpdate(*)", "up"),
    ("gone remote", "ESTABLISHED>TERMINATED", "end of a dialog"),
    ("gone remote", "PROPOSING>TERMINATED", "end of a dialog"),
    ("gone remote", "PROPOSED>TERMINATED", "end of a dialog"),
    ("end of a dialog", "DidEnd(remote)", "over"),
    ("end of a dialog", "DidEnd(local)", "over"), // it had died: a request of ours met silence
];

fn matches(pattern: &str, word: &str) -> bool {
    match pattern.split_once('*') {
        Some((head, tail)) => word.starts_with(head) && word.ends_with(tail) && word.len() >= pattern.len() - 1,
        None => pattern == word,
    }
}

/// Checks a session's whole list of notifications: one of the legal courses to its end, states that follow each other,
/// snapshots that agree with what is told.
pub fn check_course(events: &[&Event]) -> Result<(), String> {
    let words: Vec<_> = events.iter().map(|event| word(&event.kind)).collect();
    let fail = |what: String| Err(format!("{what}\n  in {words:?}"));
    let mut place = "new";
    let mut state = SessionState::Null;
    for (event, word) in events.iter().zip(&words) {
        let step = COURSES.iter().find(|(from, what, _)| *from == place && matches(what, word));
        match step {
            Some((_, _, to)) => place = to,
            None => return fail(format!("{word} is not legal in \"{place}\"")),
        }
        if let EventKind::SessionChangedState { prev_state, state: new } = event.kind {
            if prev_state != state {
                return fail(format!("{word} after state {}", state.name()));
            }
            state = new;
        }
        let Some(snapshot) = &event.snapshot else { return fail(format!("{word} without a snapshot")) };
        if snapshot.state != state {
            return fail(format!("{word} with a snapshot in state {}", snapshot.state.name()));
        }
        if let EventKind::SessionGotStreamUpdate { streams } = event.kind
            && (snapshot.has_audio, snapshot.has_chat) != (streams.audio, streams.chat)
        {
            return fail(format!("{word} with a snapshot that has audio: {}", snapshot.has_audio));
        }
    }
    if place == "over" { Ok(()) } else { fail(format!("never ended, still \"{place}\"")) }
}

/// Checks what a session asked of its media: one Open, Close after it, nothing outside.
pub fn check_media(commands: &[&MediaCommand]) -> Result<(), String> {
    let mut open = false;
    let mut opened = 0;
    let mut chat = false;
    for command in commands {
        match command {
            MediaCommand::OpenChat { .. } if chat => return Err(format!("chat opened twice: {commands:?}")),
            MediaCommand::OpenChat { .. } => chat = true,
            MediaCommand::CloseChat if chat => chat = false,
            MediaCommand::StartChat(_) if chat => {}
            MediaCommand::StartChat(_) | MediaCommand::CloseChat => {
                return Err(format!("{command:?} while there is no chat: {commands:?}"));
            }
            MediaCommand::Open { .. } if open => return Err(format!("opened twice: {commands:?}")),
            MediaCommand::Open { .. } => (open, opened) = (true, opened + 1),
            MediaCommand::Close if open => open = false,
            _ if !open => return Err(format!("{command:?} while closed: {commands:?}")),
            _ => {}
        }
    }
    if open || chat { Err(format!("never closed: {commands:?}")) } else { Ok(()) }
}

impl SimNet {
    /// Checks every session of every node, and that nothing is left of any.
    pub fn check(&self) -> Result<(), String> {
        for node in &self.nodes {
            let mut sessions: BTreeMap<SessionId, (Vec<&Event>, Vec<&MediaCommand>)> = BTreeMap::new();
            for (_, event) in &node.events {
                if let Some(session) = event.session() {
                    sessions.entry(session).or_default().0.push(event);
                }
            }
            for (session, command) in &node.media {
                sessions.entry(*session).or_default().1.push(command);
            }
            for (session, (events, commands)) in sessions {
                let whose = |error| format!("{} {session:?}: {error}", node.name);
                check_course(&events).map_err(whose)?;
                check_media(&commands).map_err(whose)?;
            }
        }
        self.check_idle()
    }

    pub fn assert_good(&self) {
        if let Err(error) = self.check() {
            panic!("seed {}: {error}\n{}", self.seed, self.trace.clone().unwrap_or_default().join("\n"));
        }
    }
}
