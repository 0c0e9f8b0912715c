//! The SIP sockets of a lane: one owner for datagrams and connections of every transport.
//!
//! [`Transports`] lives on its lane's thread, inside a tokio runtime. The owner takes what has come with
//! [`Transports::poll`] until there is nothing, sends with [`Transports::send`], and then waits for
//! [`Transports::ready`]. The signalling lane is one owner, the test proxy another.

mod bind;
mod streams;
mod udp;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

pub(crate) use self::bind::Bound;
pub(super) use self::streams::INPUT_LIMIT;
use self::streams::{StreamInput, Streams};
use self::udp::Udp;
use super::counters::TransportCounters;
use crate::sip::message::{Message, ParseError};
use crate::sip::stream::Frame;
use crate::sip::transaction::ClientId;
use crate::sip::transport::{Flow, Transport};
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
    failed: VecDeque<(ClientId, String)>,
    /// Closed as soon as the owner has answered what was wrong with it.
    closing: Option<crate::sip::transport::ConnectionId>,
    counters: Arc<TransportCounters>,
}

impl Transports {
    /// Takes bound sockets; call inside the runtime.
    pub fn new(bound: Bound, counters: Arc<TransportCounters>) -> Self {
        let Bound { udp, tcp, bind_ip } = bound;
        let (sender, inputs) = mpsc::channel(INPUT_LIMIT);
        let streams = Streams::new(!tcp.is_empty(), sender, counters.clone(), bind_ip);
        for (listener, _) in tcp {
            streams.listen(tokio::net::TcpListener::from_std(listener).expect("a runtime with I/O takes a listener"));
        }
        let udp = udp.into_iter().map(|(socket, local)| {
            Udp::new(socket, local, counters.clone()).expect("a runtime with I/O takes a socket")
        });
        let udp = udp.collect();
        let (held, failed, closing) = (None, VecDeque::new(), None);
        Self { udp, streams, inputs, held, turn: 0, failed, closing, counters }
    }

    /// Sends or queues; returns our address on that path, unspecified while a connection is being made. `peer` is who
    /// [`Flow::peer`] means.
    ///
    /// # Errors
    /// Why the message does not leave, in words. What goes wrong later comes as [`Arrival::Failed`].
    pub fn send(
        &mut self,
        flow: Flow,
        _peer: Option<&Peer>,
        bytes: Bytes,
        client: Option<ClientId>,
        _now: Instant,
    ) -> Result<SocketAddr, String> {
        match flow.transport {
            Transport::Udp => {
                let udp = self.udp.iter_mut().find(|udp| udp.reaches(flow.remote));
                let udp = udp.ok_or_else(|| format!("there is no UDP socket that reaches {}", flow.remote.ip()))?;
                udp.send(flow.remote, bytes, client).map(|()| udp.local())
            }
            Transport::Tcp => self.streams.send(flow, bytes, client),
            transport => Err(format!("the transport {transport} is off")),
        }
    }

    /// What has come, a source after the other; `None` when there is nothing more now.
    pub fn poll(&mut self, now: Instant) -> Option<Arrival> {
        if let Some(id) = self.closing.take() {
            self.streams.close(id);
        }
        if let Some((client, error)) = self.failed.pop_front() {
            return Some(Arrival::Failed { client, error });
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
            StreamInput::Accepted { stream, peer } => self.streams.accepted(stream, peer),
            StreamInput::Connected { id, local } => self.streams.connected(id, local),
            StreamInput::HalfClosed { id } => {
                let lost = self.streams.half_closed(id, now);
                self.fail(lost, "the peer closed the connection");
            }
            StreamInput::Closed { id, error, unsent } => {
                let lost = self.streams.close(id);
                self.fail(unsent.into_iter().chain(lost), &error);
            }
            StreamInput::Frame { id, frame } => {
                let (flow, local) = self.streams.arrived(id)?;
                match frame {
                    Frame::Ping => self.streams.pong(id),
                    Frame::Pong => {}
                    Frame::Message(message) => return Some(Arrival::Message { message, flow, local }),
                    Frame::Bad(error) => return Some(Arrival::Bad { error, flow, local, bytes: Bytes::new() }),
                    Frame::Lost(error) => {
                        self.counters.tcp_lost.add(1);
                        self.closing = Some(id);
                        return Some(Arrival::Bad { error, flow, local, bytes: Bytes::new() });
                    }
                }
            }
        }
        self.failed.pop_front().map(|(client, error)| Arrival::Failed { client, error })
    }

    fn fail(&mut self, clients: impl IntoIterator<Item = ClientId>, error: &str) {
        self.failed.extend(clients.into_iter().map(|client| (client, error.to_owned())));
    }

    /// Waits until [`Self::poll`] may have something. May be given up on at any time.
    pub async fn ready(&mut self) {
        loop {
            if self.held.is_some() || !self.failed.is_empty() || self.closing.is_some() {
                return;
            }
            let Self { udp, inputs, .. } = self;
            tokio::select! {
                index = udp::ready(udp) => {
                    let Some(udp) = self.udp.get_mut(index) else { return };
                    self.failed.extend(udp.flush());
                    return;
                }
                input = inputs.recv() => self.held = input,
            }
        }
    }

    /// Closes what is overdue. Called about once a second.
    pub fn tidy(&mut self, now: Instant) {
        self.streams.close_overdue(now);
    }
}

/// CRLF, NUL and the like, which phones send to keep a NAT binding open.
fn is_keep_alive(bytes: &[u8]) -> bool {
    bytes.len() <= 4 && bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}
