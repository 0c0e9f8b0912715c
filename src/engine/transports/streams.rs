//! SIP over TCP: a reader and a writer task for each connection, the table of connections in the signalling lane.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::engine::counters::TransportCounters;
use crate::engine::sockets::words;
use crate::sip::message::ParseError;
use crate::sip::stream::{Frame, StreamFramer};
use crate::sip::transaction::ClientId;
use crate::sip::transport::{ConnectionId, Flow, Transport};

/// What arrives from connections and waits for the lane. A full queue stops the readers, TCP stops the peers.
pub(in crate::engine) const INPUT_LIMIT: usize = 1024;
/// Open connections at most; a peer needs one.
const CONNECTION_LIMIT: usize = 4096;
/// Of these from one address (a trunk is one source).
const CONNECTION_LIMIT_PER_SOURCE: usize = 1024;
/// Messages that wait for one peer to read …
const OUTBOX_MESSAGES: usize = 1024;
/// … and their bytes.
const OUTBOX_BYTES: usize = 1 << 20;
/// Requests remembered for each connection until something comes back.
const UNANSWERED_LIMIT: usize = 64;
/// How long a connection may be open, or a message unfinished, without one whole message.
const FIRST_MESSAGE_WAIT: Duration = Duration::from_secs(30);
/// How long a connection that has carried messages is kept without any byte from the peer.
const IDLE_LIMIT: Duration = Duration::from_secs(900);
/// How long a connect may take: long before the transaction gives up (timer B, 32 s), so that the next route is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that takes no byte for this long is gone (reliability row 49).
const STALL_LIMIT: Duration = Duration::from_secs(32);
/// A peer that has closed its half still gets the answers of its requests for this long (timer H).
const HALF_CLOSED_LIMIT: Duration = Duration::from_secs(32);
/// Wait after a failed accept (no file descriptors left): they may come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// One read.
const READ_SIZE: usize = 16 << 10;
/// Bytes put together for one write.
const WRITE_SIZE: usize = 64 << 10;

/// What connections tell the lane.
#[derive(Debug)]
pub(super) enum StreamInput {
    Accepted {
        stream: TcpStream,
        peer: SocketAddr,
    },
    Connected {
        id: ConnectionId,
        local: SocketAddr,
    },
    Frame {
        id: ConnectionId,
        frame: Frame,
    },
    /// The peer sends no more; it may still read.
    HalfClosed {
        id: ConnectionId,
    },
    /// Nothing goes any more. `unsent` are the transactions whose requests did not leave.
    Closed {
        id: ConnectionId,
        error: String,
        unsent: Vec<ClientId>,
    },
}

#[derive(Debug)]
struct Outgoing {
    bytes: Bytes,
    client: Option<ClientId>,
}

#[derive(Debug)]
struct Connection {
    peer: SocketAddr,
    local: SocketAddr,
    outbox: mpsc::Sender<Outgoing>,
    queued_bytes: Arc<AtomicUsize>,
    close_at: Option<Instant>,
    /// Requests sent since anything came back: when the connection ends, they most likely never arrived.
    unanswered: VecDeque<ClientId>,
    /// Dropped with the connection: ends the reader.
    _reader: oneshot::Sender<()>,
}

/// The connections of the lane.
#[derive(Debug)]
pub(super) struct Streams {
    enabled: bool,
    connections: BTreeMap<ConnectionId, Connection>,
    by_peer: HashMap<SocketAddr, ConnectionId>,
    per_source: HashMap<IpAddr, usize>,
    next_id: u64,
    inputs: mpsc::Sender<StreamInput>,
    counters: Arc<TransportCounters>,
    /// Where connections are made from.
    bind_ip: Option<IpAddr>,
}

impl Streams {
    pub fn new(
        enabled: bool,
        inputs: mpsc::Sender<StreamInput>,
        counters: Arc<TransportCounters>,
        bind_ip: Option<IpAddr>,
    ) -> Self {
        let (connections, by_peer, per_source) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        Self { enabled, connections, by_peer, per_source, next_id: 1, inputs, counters, bind_ip }
    }

    /// Starts the task that accepts connections.
    pub fn listen(&self, listener: TcpListener) {
        tokio::spawn(accept_all(listener, self.inputs.clone()));
    }

    /// Takes a connection in; over the limits it is closed.
    pub fn accepted(&mut self, stream: TcpStream, peer: SocketAddr) {
        if !self.has_room(peer.ip()) {
            self.counters.tcp_refused.add(1);
            return;
        }
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().unwrap_or(peer);
        let id = self.take_id();
        let (reader, writer) = stream.into_split();
        let (stop, stopped) = oneshot::channel();
        let (outbox, outgoing) = mpsc::channel(OUTBOX_MESSAGES);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        self.counters.tcp_accepted.add(1);
        tokio::spawn(read(id, reader, stopped, self.inputs.clone(), self.counters.clone()));
        tokio::spawn(write_accepted(
            id,
            writer,
            outgoing,
            queued_bytes.clone(),
            self.inputs.clone(),
            self.counters.clone(),
        ));
        self.add(
            id,
            Connection {
                peer,
                local,
                outbox,
                queued_bytes,
                close_at: None,
                unanswered: VecDeque::new(),
                _reader: stop,
            },
        );
    }

    /// Queues a message on the flow's connection, on another to the same peer, or on a new one. Only what is no request
    /// and whose connection is gone is given up: its peer has no port to connect to.
    /// Returns our address on it, unspecified while it is not connected.
    pub fn send(&mut self, flow: Flow, bytes: Bytes, client: Option<ClientId>) -> Result<SocketAddr, String> {
        if !self.enabled {
            return Err("the transport tcp is off".to_owned());
        }
        let open = flow
            .connection
            .filter(|id| self.connections.contains_key(id))
            .or_else(|| self.by_peer.get(&flow.remote).copied());
        let id = match open {
            Some(id) => id,
            None if client.is_some() || flow.connection.is_none() => self.connect(flow.remote)?,
            None => return Err("the connection is closed".to_owned()),
        };
        let connection = self.connections.get_mut(&id).expect("the connection was just found or made");
        let size = bytes.len();
        let waiting = connection.queued_bytes.fetch_add(size, Relaxed);
        let full = waiting > 0 && waiting + size > OUTBOX_BYTES; // one message of any size always fits
        if full || connection.outbox.try_send(Outgoing { bytes, client }).is_err() {
            connection.queued_bytes.fetch_sub(size, Relaxed);
            self.counters.tcp_dropped.add(1);
            return Err("the peer does not read".to_owned());
        }
        connection.unanswered.extend(client);
        if connection.unanswered.len() > UNANSWERED_LIMIT {
            connection.unanswered.pop_front(); // its own timers will tell
        }
        Ok(connection.local)
    }

    fn connect(&mut self, peer: SocketAddr) -> Result<ConnectionId, String> {
        if !self.has_room(peer.ip()) {
            self.counters.tcp_refused.add(1);
            return Err("too many connections are open".to_owned());
        }
        let id = self.take_id();
        let (stop, stopped) = oneshot::channel();
        let (outbox, outgoing) = mpsc::channel(OUTBOX_MESSAGES);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let local = SocketAddr::new(if peer.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() }, 0);
        let bind_ip = self.bind_ip.filter(|ip| ip.is_ipv4() == peer.is_ipv4() && !ip.is_unspecified());
        let task =
            Connecting { id, peer, bind_ip, stopped, inputs: self.inputs.clone(), counters: self.counters.clone() };
        tokio::spawn(task.run(outgoing, queued_bytes.clone()));
        self.add(
            id,
            Connection {
                peer,
                local,
                outbox,
                queued_bytes,
                close_at: None,
                unanswered: VecDeque::new(),
                _reader: stop,
            },
        );
        Ok(id)
    }

    fn has_room(&self, source: IpAddr) -> bool {
        self.connections.len() < CONNECTION_LIMIT
            && self.per_source.get(&source).is_none_or(|count| *count < CONNECTION_LIMIT_PER_SOURCE)
    }

    fn take_id(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        id
    }

    fn add(&mut self, id: ConnectionId, connection: Connection) {
        self.by_peer.insert(connection.peer, id);
        *self.per_source.entry(connection.peer.ip()).or_default() += 1;
        self.connections.insert(id, connection);
        self.counters.tcp_connections.store(self.connections.len(), Relaxed);
    }

    /// The flow of what has arrived on a connection, and our address on it; `None` once it is closed.
    pub fn arrived(&mut self, id: ConnectionId) -> Option<(Flow, SocketAddr)> {
        let connection = self.connections.get_mut(&id)?;
        connection.unanswered.clear();
        Some((Flow { connection: Some(id), ..Flow::to(Transport::Tcp, connection.peer) }, connection.local))
    }

    pub fn connected(&mut self, id: ConnectionId, local: SocketAddr) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.local = local;
        }
    }

    /// Answers a keep-alive (RFC 5626 §4.4.1).
    pub fn pong(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(&id) {
            connection.queued_bytes.fetch_add(2, Relaxed);
            if connection.outbox.try_send(Outgoing { bytes: Bytes::from_static(b"\r\n"), client: None }).is_err() {
                connection.queued_bytes.fetch_sub(2, Relaxed);
            }
        }
    }

    /// The peer has closed its half: no new requests go there, answers still may for a while. Returns the requests that
    /// nothing came back for.
    pub fn half_closed(&mut self, id: ConnectionId, now: Instant) -> VecDeque<ClientId> {
        let Some(connection) = self.connections.get_mut(&id) else { return VecDeque::new() };
        connection.close_at = Some(now + HALF_CLOSED_LIMIT);
        if self.by_peer.get(&connection.peer) == Some(&id) {
            self.by_peer.remove(&connection.peer);
        }
        std::mem::take(&mut connection.unanswered)
    }

    /// Forgets the connection; what is queued is still written, then the socket closes. Returns the requests that nothing
    /// came back for.
    pub fn close(&mut self, id: ConnectionId) -> VecDeque<ClientId> {
        let Some(connection) = self.connections.remove(&id) else { return VecDeque::new() };
        if self.by_peer.get(&connection.peer) == Some(&id) {
            self.by_peer.remove(&connection.peer);
        }
        let source = connection.peer.ip();
        if let Some(count) = self.per_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&source);
            }
        }
        self.counters.tcp_connections.store(self.connections.len(), Relaxed);
        connection.unanswered
    }

    /// Closes half-closed connections whose time is over. Called about once a second.
    pub fn close_overdue(&mut self, now: Instant) {
        let overdue = |(id, connection): (&ConnectionId, &Connection)| {
            connection.close_at.is_some_and(|at| at <= now).then_some(*id)
        };
        for id in self.connections.iter().filter_map(overdue).collect::<Vec<_>>() {
            self.close(id);
        }
    }
}

async fn accept_all(listener: TcpListener, inputs: mpsc::Sender<StreamInput>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if inputs.send(StreamInput::Accepted { stream, peer }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "TCP accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

thread_local! {
    /// All readers run on the signalling thread and read one after the other: an idle connection costs no buffer.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// Why a reader stopped.
enum ReadEnd {
    HalfClosed,
    /// The lane already knows, or asked for it.
    Silent,
    Broken(String),
}

async fn read(
    id: ConnectionId,
    reader: OwnedReadHalf,
    mut stopped: oneshot::Receiver<()>,
    inputs: mpsc::Sender<StreamInput>,
    counters: Arc<TransportCounters>,
) {
    let end = tokio::select! {
        _ = &mut stopped => ReadEnd::Silent,
        end = read_frames(id, reader, &inputs, &counters) => end,
    };
    let input = match end {
        ReadEnd::Silent => return,
        ReadEnd::HalfClosed => StreamInput::HalfClosed { id },
        ReadEnd::Broken(error) => StreamInput::Closed { id, error, unsent: Vec::new() },
    };
    let _ = inputs.send(input).await;
}

async fn read_frames(
    id: ConnectionId,
    reader: OwnedReadHalf,
    inputs: &mpsc::Sender<StreamInput>,
    counters: &TransportCounters,
) -> ReadEnd {
    let mut framer = StreamFramer::default();
    let mut whole_at = tokio::time::Instant::now(); // when the stream last stood between two messages, or began
    let mut spoken = false;
    loop {
        let unfinished = !spoken || !framer.buffered().is_empty();
        let deadline =
            if unfinished { whole_at + FIRST_MESSAGE_WAIT } else { tokio::time::Instant::now() + IDLE_LIMIT };
        match tokio::time::timeout_at(deadline, reader.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return ReadEnd::Broken(words(&error)),
            Err(_) => {
                counters.tcp_idle_closed.add(1);
                return ReadEnd::Broken("idle".to_owned());
            }
        }
        if !unfinished {
            whole_at = tokio::time::Instant::now();
        }
        let end = READ_BUFFER.with_borrow_mut(|buffer| match reader.try_read(buffer) {
            Ok(0) => Some(ReadEnd::HalfClosed),
            // What a peer sends must not end the engine even if the framer is wrong.
            Ok(size) => catch_unwind(AssertUnwindSafe(|| framer.push(buffer.get(..size).unwrap_or_default())))
                .err()
                .map(|_| ReadEnd::Broken("the framer failed".to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => Some(ReadEnd::Broken(words(&error))),
        });
        if let Some(end) = end {
            return end;
        }
        loop {
            match catch_unwind(AssertUnwindSafe(|| framer.next_frame())) {
                Ok(Some(frame)) => {
                    whole_at = tokio::time::Instant::now();
                    spoken |= matches!(frame, Frame::Message(_));
                    let lost = matches!(frame, Frame::Lost(_));
                    counters.tcp_received.add(1);
                    if inputs.send(StreamInput::Frame { id, frame }).await.is_err() || lost {
                        return ReadEnd::Silent;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    let error =
                        ParseError { what: "the stream cannot be followed".to_owned(), answer: None, partial: None };
                    let _ = inputs.send(StreamInput::Frame { id, frame: Frame::Lost(Box::new(error)) }).await;
                    return ReadEnd::Silent;
                }
            }
        }
    }
}

/// A connection we make.
struct Connecting {
    id: ConnectionId,
    peer: SocketAddr,
    bind_ip: Option<IpAddr>,
    stopped: oneshot::Receiver<()>,
    inputs: mpsc::Sender<StreamInput>,
    counters: Arc<TransportCounters>,
}

impl Connecting {
    async fn run(self, outgoing: mpsc::Receiver<Outgoing>, queued_bytes: Arc<AtomicUsize>) {
        let Self { id, peer, bind_ip, stopped, inputs, counters } = self;
        let connect = async {
            let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(ip) = bind_ip {
                socket.bind((ip, 0).into())?;
            }
            let stream = socket.connect(peer).await?;
            let _ = stream.set_nodelay(true);
            stream.local_addr().map(|local| (stream, local))
        };
        let error = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok((stream, local))) => {
                counters.tcp_connected.add(1);
                if inputs.send(StreamInput::Connected { id, local }).await.is_err() {
                    return;
                }
                let (reader, writer) = stream.into_split();
                tokio::spawn(read(id, reader, stopped, inputs.clone(), counters.clone()));
                return write_accepted(id, writer, outgoing, queued_bytes, inputs, counters).await;
            }
            Ok(Err(error)) => words(&error),
            Err(_) => format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        counters.tcp_connect_failures.add(1);
        let error = format!("TCP to {peer}: {error}");
        let _ = inputs.send(StreamInput::Closed { id, error, unsent: left_over(outgoing) }).await;
    }
}

fn left_over(mut outgoing: mpsc::Receiver<Outgoing>) -> Vec<ClientId> {
    outgoing.close();
    let mut unsent = Vec::new();
    while let Ok(message) = outgoing.try_recv() {
        unsent.extend(message.client);
    }
    unsent
}

async fn write_accepted(
    id: ConnectionId,
    mut writer: OwnedWriteHalf,
    mut outgoing: mpsc::Receiver<Outgoing>,
    queued_bytes: Arc<AtomicUsize>,
    inputs: mpsc::Sender<StreamInput>,
    counters: Arc<TransportCounters>,
) {
    let mut buffer = Vec::new();
    let mut clients = Vec::new();
    while let Some(first) = outgoing.recv().await {
        let mut count = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            buffer.extend_from_slice(&message.bytes);
            clients.extend(message.client);
            count += 1;
            next = if buffer.len() < WRITE_SIZE { outgoing.try_recv().ok() } else { None };
        }
        let error = match timeout(STALL_LIMIT, writer.write_all(&buffer)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(words(&error)),
            Err(_) => Some("the peer does not read".to_owned()),
        };
        queued_bytes.fetch_sub(buffer.len(), Relaxed);
        if let Some(error) = error {
            clients.extend(left_over(outgoing));
            let _ = inputs.send(StreamInput::Closed { id, error, unsent: clients }).await;
            return;
        }
        counters.tcp_sent.add(count);
        buffer.clear();
        clients.clear();
    }
    let _ = timeout(STALL_LIMIT, writer.shutdown()).await;
}
