//! The SIP sockets of a lane: one owner for datagrams and connections of every transport.
//!
//! [`Transports`] lives on its lane's thread, inside a tokio runtime. The owner takes what has come with
//! [`Transports::poll`] until there is nothing, sends with [`Transports::send`], and then waits for
//! [`Transports::ready`]. The signalling lane is one owner, the test proxy another.

mod bind;
mod connection;
mod icmp;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
mod udp;
mod websocket;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;

pub(crate) use self::bind::Bound;
use self::connection::StreamInput;
pub(super) use self::streams::INPUT_LIMIT;
use self::streams::{Gone, Streams};
pub use self::tls::ClientCertificates;
use self::udp::Udp;
use super::EngineError;
use super::counters::TransportCounters;
use crate::sip::message::{Message, ParseError};
use crate::sip::stream::Frame;
use crate::sip::transaction::ClientId;
use crate::sip::transport::{ConnectionId, Flow, Transport};
use crate::ua::peers::Peer;

/// What has come.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A message, where it came from and our address there.
    Message { message: Message, flow: Flow, local: SocketAddr },
    /// Bytes that are no usable message: answered where the error says so. `bytes` are those of a datagram.
    Bad { error: Box<ParseError>, flow: Flow, local: SocketAddr, bytes: Bytes },
    /// A request that did not leave or most likely did not arrive, and why.
    Failed { client: ClientId, error: String },
    /// A flow that was to be kept open is gone.
    FlowFailed { flow: Flow, error: String },
    /// Our certificate ends within days, or has ended.
    CertificateWillExpire { certificate: PathBuf, expires: SystemTime },
}

/// Every SIP socket of a lane.
#[derive(Debug)]
pub(crate) struct Transports {
    udp: Vec<Udp>,
    streams: Streams,
    inputs: mpsc::Receiver<StreamInput>,
    /// What ended the last wait.
    held: Option<StreamInput>,
    /// The source that is asked first: each in turn, so that none starves another.
    turn: usize,
    /// What is to be told before anything else.
    news: VecDeque<Arrival>,
    /// Closed as soon as the owner has answered what was wrong with it.
    closing: Option<ConnectionId>,
    /// UDP destinations that get keep-alives: how often, and when next.
    kept: BTreeMap<SocketAddr, (Duration, Instant)>,
    counters: Arc<TransportCounters>,
}

impl Transports {
    /// Takes bound sockets; call inside the runtime.
    pub fn new(bound: Bound, counters: Arc<TransportCounters>) -> Self {
        let Bound { udp, tcp, listeners, tls, origins, bind_ip, .. } = bound;
        let (sender, inputs) = mpsc::channel(INPUT_LIMIT);
        let streams = Streams::new(tcp, tls, origins, sender, counters.clone(), bind_ip);
        for (transport, listener, _) in listeners {
            let listener = tokio::net::TcpListener::from_std(listener);
            streams.listen(transport, listener.expect("a runtime with I/O takes a listener"));
        }
        let udp = udp.into_iter().map(|(socket, local)| {
            Udp::new(socket, local, counters.clone()).expect("a runtime with I/O takes a socket")
        });
        let udp = udp.collect();
        let (held, news, closing, kept) = (None, VecDeque::new(), None, BTreeMap::new());
        Self { udp, streams, inputs, held, turn: 0, news, closing, kept, counters }
    }

    /// Sends or queues; returns our address on that path, unspecified while a connection is being made. `peer` is who
    /// [`Flow::peer`] means.
    ///
    /// # Errors
    /// Why the message does not leave, in words. What goes wrong later comes as [`Arrival::Failed`].
    pub fn send(
        &mut self,
        flow: Flow,
        peer: Option<&Peer>,
        bytes: Bytes,
        client: Option<ClientId>,
        now: Instant,
    ) -> Result<SocketAddr, String> {
        match flow.transport {
            Transport::Udp => self.send_datagram(flow, bytes, client, now),
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                self.streams.send(flow, peer, bytes, client, now)
            }
        }
    }

    fn send_datagram(
        &mut self,
        flow: Flow,
        bytes: Bytes,
        client: Option<ClientId>,
        now: Instant,
    ) -> Result<SocketAddr, String> {
        let udp = self.udp.iter_mut().find(|udp| udp.reaches(flow.remote));
        let udp = udp.ok_or_else(|| format!("there is no UDP socket that reaches {}", flow.remote.ip()))?;
        udp.send(flow.remote, bytes, client, now).map(|()| udp.local())
    }

    /// What has come, a source after the other; `None` when there is nothing more now.
    pub fn poll(&mut self, now: Instant) -> Option<Arrival> {
        if let Some(id) = self.closing.take() {
            let gone = self.streams.close(id, None, now);
            self.lose(Gone { kept: gone.kept, ..Gone::default() }, "the stream could not be followed");
        }
        if let Some(news) = self.news.pop_front() {
            return Some(news);
        }
        let sources = self.udp.len() + 1;
        for step in 0..sources {
            let source = (self.turn + step) % sources;
            let arrival = if source < self.udp.len() { self.poll_udp(source) } else { self.poll_streams(now) };
            if arrival.is_some() {
                self.turn = source + 1;
                return arrival;
            }
        }
        None
    }

    fn poll_udp(&mut self, index: usize) -> Option<Arrival> {
        for unreachable in self.udp.get_mut(index)?.reports() {
            let udp::Unreachable { to, clients, error } = unreachable;
            let failed = |client| Arrival::Failed { client, error: error.clone() };
            self.news.extend(clients.into_iter().map(failed));
            if self.kept.remove(&to).is_some() {
                self.news.push_back(Arrival::FlowFailed { flow: Flow::to(Transport::Udp, to), error });
            }
        }
        if let Some(news) = self.news.pop_front() {
            return Some(news);
        }
        loop {
            let udp = self.udp.get_mut(index)?;
            let (bytes, from) = udp.receive()?;
            if is_keep_alive(&bytes) {
                continue;
            }
            let (flow, local) = (Flow::to(Transport::Udp, from), udp.local());
            return Some(match Message::parse(bytes.clone()) {
                Ok(message) => Arrival::Message { message, flow, local },
                Err(error) => Arrival::Bad { error, flow, local, bytes },
            });
        }
    }

    fn poll_streams(&mut self, now: Instant) -> Option<Arrival> {
        self.counters.stream_input.saw(self.inputs.len() + usize::from(self.held.is_some()));
        loop {
            let input = match self.held.take() {
                Some(input) => input,
                None => self.inputs.try_recv().ok()?,
            };
            if let Some(arrival) = self.take_stream(input, now) {
                return Some(arrival);
            }
        }
    }

    fn take_stream(&mut self, input: StreamInput, now: Instant) -> Option<Arrival> {
        match input {
            StreamInput::Accepted { transport, stream, peer } => self.streams.accepted(transport, stream, peer, now),
            StreamInput::Open { id, local, domains } => self.streams.opened(id, local, domains),
            StreamInput::HalfClosed { id } => {
                let gone = self.streams.half_closed(id, now);
                self.lose(gone, "the peer closed the connection");
            }
            StreamInput::Closed { id, error, unsent } => {
                tracing::debug!(connection = id.0, error, "a connection has ended");
                let mut gone = self.streams.close(id, Some(&error), now);
                gone.unanswered
                    .extend(unsent.into_iter().filter(|client| !gone.unanswered.contains(client)).collect::<Vec<_>>());
                self.lose(gone, &error);
            }
            StreamInput::Frame { id, frame } => {
                let (flow, local) = self.streams.arrived(id)?;
                match frame {
                    Frame::Ping => self.streams.pong(id),
                    Frame::Pong => {}
                    Frame::Message(message) => {
                        if message.is_request() {
                            self.streams.take_alias(id, &message);
                        }
                        return Some(Arrival::Message { message, flow, local });
                    }
                    Frame::Bad(error) => return Some(Arrival::Bad { error, flow, local, bytes: Bytes::new() }),
                    Frame::Lost(error) => {
                        self.counters.of(flow.transport).lost.add(1);
                        self.closing = Some(id);
                        return Some(Arrival::Bad { error, flow, local, bytes: Bytes::new() });
                    }
                }
            }
        }
        self.news.pop_front()
    }

    fn lose(&mut self, gone: Gone, error: &str) {
        for client in gone.unanswered {
            self.news.push_back(Arrival::Failed { client, error: error.to_owned() });
        }
        self.news.extend(gone.kept.map(|flow| Arrival::FlowFailed { flow, error: error.to_owned() }));
    }

    /// Keeps a flow open with a keep-alive each `interval` (RFC 5626 §4.4), or no longer. A connection that does not answer
    /// within 10 s is closed; over UDP, where a pong is none of SIP's, only the network's reports can tell. What fails
    /// comes as [`Arrival::FlowFailed`].
    pub fn keep_alive(&mut self, flow: Flow, interval: Option<Duration>, now: Instant) {
        if flow.transport != Transport::Udp {
            if !self.streams.keep_alive(flow, interval, now) && interval.is_some() {
                self.news.push_back(Arrival::FlowFailed { flow, error: "the connection is closed".to_owned() });
            }
            return;
        }
        match interval {
            Some(interval) => self.kept.insert(flow.remote, (interval, now + interval)),
            None => self.kept.remove(&flow.remote),
        };
    }

    /// Reads the certificates again.
    ///
    /// # Errors
    /// As [`Bound::new`]; the certificates from before go on.
    pub fn reload_certificates(&mut self) -> Result<(), EngineError> {
        self.streams.tls.reload()
    }

    /// Waits until [`Self::poll`] may have something. May be given up on at any time.
    pub async fn ready(&mut self) {
        loop {
            if self.held.is_some() || !self.news.is_empty() || self.closing.is_some() {
                return;
            }
            let Self { udp, inputs, .. } = self;
            tokio::select! {
                index = udp::ready(udp) => {
                    let Some(udp) = self.udp.get_mut(index) else { return };
                    let failed = udp.flush().into_iter().map(|(client, error)| Arrival::Failed { client, error });
                    self.news.extend(failed);
                    return;
                }
                input = inputs.recv() => self.held = input,
            }
        }
    }

    /// Sends keep-alives and closes what is overdue. Called about once a second.
    pub fn tidy(&mut self, now: Instant) {
        for (gone, why) in self.streams.tidy(now) {
            self.lose(gone, why);
        }
        for udp in &mut self.udp {
            udp.tidy(now);
        }
        for (remote, (interval, next_at)) in &mut self.kept {
            if *next_at <= now {
                *next_at = now + *interval;
                if let Some(udp) = self.udp.iter_mut().find(|udp| udp.reaches(*remote)) {
                    let _ = udp.send(*remote, Bytes::from_static(KEEP_ALIVE), None, now);
                }
            }
        }
        if let Some((certificate, expires)) = self.streams.tls.expiring(now) {
            self.news.push_back(Arrival::CertificateWillExpire { certificate, expires });
        }
    }
}

/// What keeps a NAT binding of a datagram's path open; every SIP server throws it away (RFC 3261 §7.5).
const KEEP_ALIVE: &[u8] = b"\r\n\r\n";

/// CRLF, NUL and the like, which phones send to keep a NAT binding open.
fn is_keep_alive(bytes: &[u8]) -> bool {
    bytes.len() <= 4 && bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}
