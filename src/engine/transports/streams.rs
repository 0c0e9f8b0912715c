//! The connections of a lane: which message goes over which, how many there may be, and what keeps them open.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::rustls::pki_types::ServerName;

use super::connection::{self, Link, Outgoing, StreamInput, Taking, Target};
use super::tls::Tls;
use super::websocket::Origins;
use crate::engine::counters::TransportCounters;
use crate::sip::message::Message;
use crate::sip::transaction::ClientId;
use crate::sip::transport::{ConnectionId, Flow, PeerId, Transport};
use crate::sip::uri::Host;
use crate::ua::peers::Peer;

/// What arrives from connections and waits for the lane. A full queue stops the readers, TCP stops the peers.
pub(in crate::engine) const INPUT_LIMIT: usize = 1024;
/// Open connections at most; a peer needs one.
const CONNECTION_LIMIT: usize = 8192;
/// Of these from one address (a trunk is one source).
const CONNECTION_LIMIT_PER_SOURCE: usize = 1024;
/// Messages that wait for one peer to read …
const OUTBOX_MESSAGES: usize = 1024;
/// … on a WebSocket, behind which is one person (reliability row 32) …
const WEBSOCKET_OUTBOX_MESSAGES: usize = 256;
/// … and their bytes.
const OUTBOX_BYTES: usize = 1 << 20;
/// Requests remembered for each connection until something comes back.
const UNANSWERED_LIMIT: usize = 64;
/// A peer that has closed its half still gets the answers of its requests for this long (timer H).
const HALF_CLOSED_LIMIT: Duration = Duration::from_secs(32);
/// The answer to a ping of ours (RFC 5626 §4.4.1).
const PONG_WAIT: Duration = Duration::from_secs(10);
/// Ports that one peer says it can be reached at over its connection (RFC 5923); it has one for each of its domains.
const ALIAS_LIMIT: usize = 4;
/// After a failed connect: how long the next one waits, and how far that grows with each failure.
const BACK_OFF: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// How long a failure is remembered after its wait is over.
const BACK_OFF_MEMORY: Duration = Duration::from_secs(60);
/// Destinations remembered; when it is full, further ones are tried without a pause.
const BACK_OFF_LIMIT: usize = 1024;

/// What a connection can be used for again. One that was verified for a domain never serves another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    transport: Transport,
    remote: SocketAddr,
    /// Who the certificate was checked for; `None`: the address itself, or a transport without certificates.
    domain: Option<Arc<str>>,
    /// The resource of a WebSocket.
    path: Option<Arc<str>>,
}

impl Key {
    fn new(transport: Transport, remote: SocketAddr, peer: Option<&Peer>) -> Self {
        let (tls, websocket) = (is_secure(transport), is_websocket(transport));
        Self {
            transport,
            remote,
            domain: peer.filter(|_| tls || websocket).map(|peer| peer.domain.clone()),
            path: peer.filter(|_| websocket).map(|peer| peer.path.clone()),
        }
    }
}

fn is_secure(transport: Transport) -> bool {
    matches!(transport, Transport::Tls | Transport::Wss)
}

fn is_websocket(transport: Transport) -> bool {
    matches!(transport, Transport::Ws | Transport::Wss)
}

#[derive(Debug)]
struct Connection {
    transport: Transport,
    peer: SocketAddr,
    peer_id: Option<PeerId>,
    local: SocketAddr,
    /// What it is found by: its own destination, and aliases.
    keys: Vec<Key>,
    /// We made it.
    ours: bool,
    /// Handshakes are through.
    open: bool,
    /// Domains the peer proved on a connection it made.
    domains: Vec<Arc<str>>,
    outbox: mpsc::Sender<Outgoing>,
    queued_bytes: Arc<AtomicUsize>,
    pong_expected: Arc<AtomicBool>,
    close_at: Option<Instant>,
    keep_alive: Option<KeepAlive>,
    /// Requests sent since anything came back: when the connection ends, they most likely never arrived.
    unanswered: VecDeque<ClientId>,
    /// Dropped with the connection: ends the reader.
    _reader: oneshot::Sender<()>,
}

#[derive(Debug)]
struct KeepAlive {
    interval: Duration,
    next_at: Instant,
    /// When the answer to the last ping is overdue.
    pong_by: Option<Instant>,
}

#[derive(Debug)]
struct BackOff {
    until: Instant,
    wait: Duration,
    error: String,
}

/// A connection that is no more.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Requests that nothing came back for.
    pub unanswered: VecDeque<ClientId>,
    /// Its flow, when it was to be kept open.
    pub kept: Option<Flow>,
}

/// The connections of the lane.
#[derive(Debug)]
pub(super) struct Streams {
    tcp: bool,
    connections: BTreeMap<ConnectionId, Connection>,
    by_key: HashMap<Key, ConnectionId>,
    per_source: HashMap<IpAddr, usize>,
    back_off: HashMap<Key, BackOff>,
    next_id: u64,
    inputs: mpsc::Sender<StreamInput>,
    counters: Arc<TransportCounters>,
    pub tls: Tls,
    origins: Arc<Origins>,
    /// Where connections are made from.
    bind_ip: Option<IpAddr>,
}

impl Streams {
    pub fn new(
        tcp: bool,
        tls: Tls,
        origins: Origins,
        inputs: mpsc::Sender<StreamInput>,
        counters: Arc<TransportCounters>,
        bind_ip: Option<IpAddr>,
    ) -> Self {
        Self {
            tcp,
            connections: BTreeMap::new(),
            by_key: HashMap::new(),
            per_source: HashMap::new(),
            back_off: HashMap::new(),
            next_id: 1,
            inputs,
            counters,
            tls,
            origins: Arc::new(origins),
            bind_ip,
        }
    }

    /// Starts the task that accepts connections.
    pub fn listen(&self, transport: Transport, listener: TcpListener) {
        tokio::spawn(connection::accept_all(transport, listener, self.inputs.clone()));
    }

    /// Takes a connection in; over the limits it is closed.
    pub fn accepted(&mut self, transport: Transport, stream: TcpStream, peer: SocketAddr, now: Instant) {
        let counters = self.counters.of(transport).clone();
        if !self.has_room(peer.ip()) {
            counters.refused.add(1);
            return;
        }
        let tls = match is_secure(transport) {
            true => match self.tls.server(is_websocket(transport), now) {
                Some(config) => Some(config),
                None => return counters.refused.add(1), // not without a certificate
            },
            false => None,
        };
        let _ = stream.set_nodelay(true);
        counters.accepted.add(1);
        let local = stream.local_addr().unwrap_or(peer);
        let websocket = is_websocket(transport).then(|| self.origins.clone());
        // Who connects over TLS has proved nothing yet, and requests for a domain must not go to it.
        let key = (!is_secure(transport)).then(|| Key::new(transport, peer, None));
        let link = self.add(transport, peer, None, local, key, false);
        tokio::spawn(connection::serve(link, stream, local, Taking { tls, websocket }));
    }

    /// Queues a message on the flow's connection, on another to the same peer, or on a new one. Only what is no request
    /// and whose connection is gone is given up: its peer has no port to connect to.
    /// Returns our address on it, unspecified while it is not connected.
    pub fn send(
        &mut self,
        flow: Flow,
        peer: Option<&Peer>,
        bytes: Bytes,
        client: Option<ClientId>,
        now: Instant,
    ) -> Result<SocketAddr, String> {
        if flow.transport == Transport::Tcp && !self.tcp {
            return Err("the transport tcp is off".to_owned());
        }
        let named = flow
            .connection
            .filter(|id| self.connections.get(id).is_some_and(|connection| connection.transport == flow.transport));
        let id = match named {
            Some(id) => id,
            None => {
                let key = Key::new(flow.transport, flow.remote, peer);
                match self.by_key.get(&key) {
                    Some(id) => *id,
                    None if client.is_some() || flow.connection.is_none() => self.connect(key, flow, peer, now)?,
                    None => return Err("the connection is closed".to_owned()),
                }
            }
        };
        let connection = self.connections.get_mut(&id).expect("the connection was just found or made");
        let size = bytes.len();
        let waiting = connection.queued_bytes.fetch_add(size, Relaxed);
        let full = waiting > 0 && waiting + size > OUTBOX_BYTES; // one message of any size always fits
        if full || connection.outbox.try_send(Outgoing { bytes, client }).is_err() {
            connection.queued_bytes.fetch_sub(size, Relaxed);
            self.counters.of(flow.transport).dropped.add(1);
            if is_websocket(flow.transport) {
                connection.close_at = Some(now); // reliability row 32
            }
            return Err("the peer does not read".to_owned());
        }
        connection.unanswered.extend(client);
        if connection.unanswered.len() > UNANSWERED_LIMIT {
            connection.unanswered.pop_front(); // its own timers will tell
        }
        Ok(connection.local)
    }

    fn connect(&mut self, key: Key, flow: Flow, peer: Option<&Peer>, now: Instant) -> Result<ConnectionId, String> {
        let (transport, remote) = (flow.transport, flow.remote);
        if let Some(failed) = self.back_off.get(&key)
            && let Some(left) = failed.until.checked_duration_since(now)
        {
            return Err(format!("{} (tried again in {:.1} s at the earliest)", failed.error, left.as_secs_f32()));
        }
        if !self.has_room(remote.ip()) {
            self.counters.of(transport).refused.add(1);
            return Err("too many connections are open".to_owned());
        }
        if flow.peer.is_some() && peer.is_none() {
            return Err("whom this connection is for is no longer known".to_owned());
        }
        let tls = match is_secure(transport) {
            true => {
                let name = match peer {
                    Some(peer) => ServerName::try_from(peer.domain.to_string())
                        .map_err(|_| format!("{} is no name that a certificate can be for", peer.domain))?,
                    None => ServerName::from(remote.ip()),
                };
                Some((self.tls.client(now)?, name))
            }
            false => None,
        };
        let websocket = is_websocket(transport).then(|| match peer {
            Some(peer) => (authority(&peer.domain, flow), peer.path.to_string()),
            None => (authority(&remote.ip().to_string(), flow), "/".to_owned()),
        });
        let local = SocketAddr::new(if remote.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() }, 0);
        let bind_ip = self.bind_ip.filter(|ip| ip.is_ipv4() == remote.is_ipv4());
        let link = self.add(transport, remote, flow.peer, local, Some(key), true);
        let id = link.id;
        tokio::spawn(connection::connect(link, Target { transport, peer: remote, bind_ip, tls, websocket }));
        Ok(id)
    }

    fn has_room(&self, source: IpAddr) -> bool {
        self.connections.len() < CONNECTION_LIMIT
            && self.per_source.get(&source).is_none_or(|count| *count < CONNECTION_LIMIT_PER_SOURCE)
    }

    fn add(
        &mut self,
        transport: Transport,
        peer: SocketAddr,
        peer_id: Option<PeerId>,
        local: SocketAddr,
        key: Option<Key>,
        ours: bool,
    ) -> Link {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let (stop, stopped) = oneshot::channel();
        let room = if is_websocket(transport) { WEBSOCKET_OUTBOX_MESSAGES } else { OUTBOX_MESSAGES };
        let (outbox, outgoing) = mpsc::channel(room);
        let (queued_bytes, pong_expected) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let counters = self.counters.of(transport).clone();
        if let Some(key) = &key {
            self.by_key.insert(key.clone(), id);
        }
        *self.per_source.entry(peer.ip()).or_default() += 1;
        counters.connections.fetch_add(1, Relaxed);
        let connection = Connection {
            transport,
            peer,
            peer_id,
            local,
            keys: Vec::from_iter(key),
            ours,
            open: false,
            domains: Vec::new(),
            outbox,
            queued_bytes: queued_bytes.clone(),
            pong_expected: pong_expected.clone(),
            close_at: None,
            keep_alive: None,
            unanswered: VecDeque::new(),
            _reader: stop,
        };
        self.connections.insert(id, connection);
        Link { id, inputs: self.inputs.clone(), counters, stopped, outgoing, queued_bytes, pong_expected }
    }

    /// Handshakes are through.
    pub fn opened(&mut self, id: ConnectionId, local: SocketAddr, domains: Vec<String>) {
        if let Some(connection) = self.connections.get_mut(&id) {
            (connection.local, connection.open) = (local, true);
            connection.domains =
                domains.into_iter().take(ALIAS_LIMIT).map(|domain| domain.to_lowercase().into()).collect();
            for key in &connection.keys {
                self.back_off.remove(key);
            }
        }
    }

    /// The flow of what has arrived on a connection, and our address on it; `None` once it is closed.
    pub fn arrived(&mut self, id: ConnectionId) -> Option<(Flow, SocketAddr)> {
        let connection = self.connections.get_mut(&id)?;
        connection.unanswered.clear();
        if let Some(keep_alive) = &mut connection.keep_alive {
            keep_alive.pong_by = None; // whatever came, it is alive
        }
        Some((connection.flow(id), connection.local))
    }

    /// Takes `alias` of a request's Via (RFC 5923): the peer's own port is reached over this connection from now on. Only
    /// for whom that is true beyond doubt: over TLS for the domains it has proved, without TLS for the address it really
    /// has, and never in the place of another connection.
    pub fn take_alias(&mut self, id: ConnectionId, request: &Message) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Ok(via) = request.top_via() else { return };
        let Some((host, port)) = via.sent_by().filter(|_| via.params.get("alias").is_some()) else { return };
        if is_websocket(connection.transport) {
            return;
        }
        let port = port.unwrap_or_else(|| connection.transport.default_port());
        let remote = SocketAddr::new(connection.peer.ip(), port);
        let key = |domain| Key { transport: connection.transport, remote, domain, path: None };
        let keys: Vec<Key> = if is_secure(connection.transport) {
            connection.domains.iter().map(|domain| key(Some(domain.clone()))).collect()
        } else {
            let same = matches!(host, Host::Ip(ip) if ip == connection.peer.ip());
            same.then(|| key(None)).into_iter().collect()
        };
        for key in keys {
            if connection.keys.len() <= ALIAS_LIMIT && !self.by_key.contains_key(&key) {
                self.by_key.insert(key.clone(), id);
                connection.keys.push(key);
            }
        }
    }

    /// Answers a keep-alive (RFC 5626 §4.4.1).
    pub fn pong(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(&id) {
            connection.send_line_ends(b"\r\n");
        }
    }

    /// Keeps a connection open with a ping each `interval`, or no longer. WebSockets have pings of their own; here they are
    /// only watched. False when it is not there.
    pub fn keep_alive(&mut self, flow: Flow, interval: Option<Duration>, now: Instant) -> bool {
        let Some(connection) = flow.connection.and_then(|id| self.connections.get_mut(&id)) else { return false };
        connection.keep_alive = interval.map(|interval| KeepAlive { interval, next_at: now + interval, pong_by: None });
        true
    }

    /// The peer has closed its half: no new requests go there, answers still may for a while.
    pub fn half_closed(&mut self, id: ConnectionId, now: Instant) -> Gone {
        let Some(connection) = self.connections.get_mut(&id) else { return Gone::default() };
        connection.close_at = Some(now + HALF_CLOSED_LIMIT);
        let kept = connection.keep_alive.take().map(|_| connection.flow(id));
        let gone = Gone { unanswered: std::mem::take(&mut connection.unanswered), kept };
        let keys = std::mem::take(&mut connection.keys);
        self.forget(id, keys);
        gone
    }

    /// Forgets the connection; what is queued is still written, then the socket closes. `error` is why, when it was not
    /// our wish: a destination that cannot be reached is left alone for a while.
    pub fn close(&mut self, id: ConnectionId, error: Option<&str>, now: Instant) -> Gone {
        let Some(connection) = self.connections.remove(&id) else { return Gone::default() };
        let kept = connection.keep_alive.as_ref().map(|_| connection.flow(id));
        let source = connection.peer.ip();
        if let Some(count) = self.per_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&source);
            }
        }
        self.counters.of(connection.transport).connections.fetch_sub(1, Relaxed);
        if let (Some(error), true, false, Some(key)) =
            (error, connection.ours, connection.open, connection.keys.first())
        {
            self.back_off(key.clone(), error, now);
        }
        self.forget(id, connection.keys);
        Gone { unanswered: connection.unanswered, kept }
    }

    fn forget(&mut self, id: ConnectionId, keys: Vec<Key>) {
        for key in keys {
            if self.by_key.get(&key) == Some(&id) {
                self.by_key.remove(&key);
            }
        }
    }

    fn back_off(&mut self, key: Key, error: &str, now: Instant) {
        let wait = match self.back_off.get(&key) {
            Some(failed) => (failed.wait * 2).min(BACK_OFF_MAX),
            None if self.back_off.len() >= BACK_OFF_LIMIT => return,
            None => BACK_OFF,
        };
        // Half of it at random: those who lost the same server do not come back at once together.
        let until = now + wait.mul_f64(rand::rng().random_range(0.5..1.0));
        self.back_off.insert(key, BackOff { until, wait, error: error.to_owned() });
    }

    /// Sends pings, and closes what is overdue: half-closed connections and those whose peer does not answer a ping. Called
    /// about once a second; returns those that had to be kept open.
    pub fn tidy(&mut self, now: Instant) -> Vec<(Gone, &'static str)> {
        self.back_off.retain(|_, failed| now < failed.until + BACK_OFF_MEMORY);
        let mut overdue = Vec::new();
        for (id, connection) in &mut self.connections {
            if connection.close_at.is_some_and(|at| at <= now) {
                overdue.push((*id, "the peer does not read"));
            }
            let websocket = is_websocket(connection.transport);
            let Some(keep_alive) = connection.keep_alive.as_mut().filter(|_| !websocket) else { continue };
            if keep_alive.pong_by.is_some_and(|at| at <= now) {
                overdue.push((*id, "the peer does not answer keep-alives"));
            } else if keep_alive.next_at <= now && connection.open {
                keep_alive.next_at = now + keep_alive.interval;
                keep_alive.pong_by.get_or_insert(now + PONG_WAIT);
                connection.pong_expected.store(true, Relaxed);
                connection.send_line_ends(b"\r\n\r\n");
            }
        }
        overdue.into_iter().map(|(id, why)| (self.close(id, None, now), why)).collect()
    }
}

impl Connection {
    fn flow(&self, id: ConnectionId) -> Flow {
        Flow { connection: Some(id), peer: self.peer_id, ..Flow::to(self.transport, self.peer) }
    }

    fn send_line_ends(&self, bytes: &'static [u8]) {
        self.queued_bytes.fetch_add(bytes.len(), Relaxed);
        if self.outbox.try_send(Outgoing { bytes: Bytes::from_static(bytes), client: None }).is_err() {
            self.queued_bytes.fetch_sub(bytes.len(), Relaxed);
        }
    }
}

/// What a WebSocket's `Host` says: the port where it is not the usual one.
fn authority(host: &str, flow: Flow) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if flow.remote.port() == flow.transport.default_port() { host } else { format!("{host}:{}", flow.remote.port()) }
}
