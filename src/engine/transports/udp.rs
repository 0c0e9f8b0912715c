//! SIP over UDP: a socket for each address family, a reused receive buffer, a small queue for when the kernel is full.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::icmp;
use crate::engine::counters::TransportCounters;
use crate::engine::sockets::words;
use crate::sip::transaction::ClientId;

/// Datagrams that wait for the socket; SIP repeats what is lost beyond that.
const WAITING_LIMIT: usize = 1024;
/// The largest UDP payload.
const DATAGRAM_LIMIT: usize = 65_535;
/// Requests remembered in case the network reports that they did not arrive …
const RECENT_LIMIT: usize = 1024;
/// … for this long: a neighbour that does not answer is given up after three seconds.
const RECENT_LIFE: Duration = Duration::from_secs(5);
/// Reports taken in one go.
const REPORTS: usize = 32;

#[derive(Debug)]
pub(super) struct Udp {
    socket: UdpSocket,
    /// What peers are told.
    local: SocketAddr,
    ipv6: bool,
    buffer: Box<[u8]>,
    waiting: VecDeque<Waiting>,
    /// The last requests sent.
    recent: VecDeque<Recent>,
    counters: Arc<TransportCounters>,
}

#[derive(Debug)]
struct Recent {
    at: Instant,
    to: SocketAddr,
    client: ClientId,
    bytes: Bytes,
}

/// A destination that the network reports as unreachable, and the requests that are lost by that.
#[derive(Debug)]
pub(super) struct Unreachable {
    pub to: SocketAddr,
    pub clients: Vec<ClientId>,
    pub error: String,
}

#[derive(Debug)]
struct Waiting {
    to: SocketAddr,
    bytes: Bytes,
    client: Option<ClientId>,
}

impl Udp {
    /// Takes a bound, non-blocking socket; call inside the runtime.
    pub fn new(socket: std::net::UdpSocket, local: SocketAddr, counters: Arc<TransportCounters>) -> io::Result<Self> {
        let buffer = vec![0; DATAGRAM_LIMIT].into_boxed_slice();
        let ipv6 = socket.local_addr()?.is_ipv6();
        let socket = UdpSocket::from_std(socket)?;
        icmp::enable(&socket, ipv6);
        Ok(Self { socket, local, ipv6, buffer, waiting: VecDeque::new(), recent: VecDeque::new(), counters })
    }

    /// True when the socket is of the peer's family.
    pub fn reaches(&self, peer: SocketAddr) -> bool {
        self.ipv6 == peer.is_ipv6()
    }

    /// Our address as peers are told.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next datagram; `None` when there is none.
    pub fn receive(&mut self) -> Option<(Bytes, SocketAddr)> {
        // An error is an earlier datagram's, told in full by `reports`; each read takes one away, so a few reads suffice.
        for _ in 0..8 {
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((size, from)) => {
                    self.counters.udp_received.add(1);
                    return Some((Bytes::copy_from_slice(self.buffer.get(..size)?), from));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => tracing::debug!(%error, "UDP receive failed"),
            }
        }
        None
    }

    /// Sends or queues.
    ///
    /// # Errors
    /// What the kernel said, in words.
    pub fn send(&mut self, to: SocketAddr, bytes: Bytes, client: Option<ClientId>, now: Instant) -> Result<(), String> {
        if let Some(client) = client {
            if self.recent.len() >= RECENT_LIMIT {
                self.recent.pop_front();
            }
            self.recent.push_back(Recent { at: now, to, client, bytes: bytes.clone() });
        }
        if self.waiting.is_empty() {
            match self.try_send(&bytes, to) {
                Ok(_) => {
                    self.counters.udp_sent.add(1);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.counters.udp_dropped.add(1);
                    return Err(format!("UDP to {to}: {}", words(&error)));
                }
            }
        }
        if self.waiting.len() >= WAITING_LIMIT {
            self.counters.udp_dropped.add(1);
            return Ok(()); // as if lost on the way: retransmission is the sender's business (RFC 3261 §17)
        }
        self.counters.udp_queued.add(1);
        self.waiting.push_back(Waiting { to, bytes, client });
        Ok(())
    }

    /// A send first fails with what the network reported about earlier datagrams, to whomever they went.
    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        let sent = self.socket.try_send_to(bytes, to);
        match &sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.socket.try_send_to(bytes, to),
            _ => sent,
        }
    }

    /// Takes the network's reports about datagrams that did not arrive. A report quotes the datagram it is about, so that
    /// nobody can end a request without having seen it; without a quote only the newest request to the address is meant.
    pub fn reports(&mut self) -> Vec<Unreachable> {
        let mut all = Vec::new();
        for _ in 0..REPORTS {
            let Some(report) = icmp::next(&self.socket, &mut self.buffer) else { break };
            self.counters.udp_unreachable.add(1);
            let quote = self.buffer.get(..report.quoted).unwrap_or_default();
            let meant = |recent: &Recent| {
                let same = quote.iter().zip(recent.bytes.iter()).all(|(quoted, sent)| quoted == sent);
                recent.to == report.to && same
            };
            let mut clients: Vec<ClientId> =
                self.recent.iter().rev().filter(|recent| meant(recent)).map(|recent| recent.client).collect();
            if quote.is_empty() {
                clients.truncate(1);
            }
            self.recent.retain(|recent| !clients.contains(&recent.client));
            clients.dedup();
            all.push(Unreachable {
                to: report.to,
                clients,
                error: format!("UDP to {}: {}", report.to, words(&report.error)),
            });
        }
        all
    }

    /// Forgets requests that no report is about any more. Called about once a second.
    pub fn tidy(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|recent| now.saturating_duration_since(recent.at) > RECENT_LIFE) {
            self.recent.pop_front();
        }
    }

    /// Sends what waits, as far as the kernel takes it; returns the requests it refused.
    pub fn flush(&mut self) -> Vec<(ClientId, String)> {
        let mut failed = Vec::new();
        while let Some(Waiting { to, bytes, client }) = self.waiting.front() {
            match self.try_send(bytes, *to) {
                Ok(_) => self.counters.udp_sent.add(1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.counters.udp_dropped.add(1);
                    failed.extend(client.map(|client| (client, format!("UDP to {to}: {}", words(&error)))));
                }
            }
            self.waiting.pop_front();
        }
        failed
    }
}

/// Waits until one of the sockets can be read, or written to if something waits; its place in the list.
pub(super) async fn ready(sockets: &[Udp]) -> usize {
    let one = async |at: usize| match sockets.get(at) {
        Some(udp) => {
            let write = if udp.waiting.is_empty() { Interest::READABLE } else { Interest::WRITABLE };
            let _ = udp.socket.ready(Interest::READABLE | Interest::ERROR | write).await;
        }
        None => std::future::pending().await,
    };
    // One socket for each address family is all there is.
    tokio::select! {
        () = one(0) => 0,
        () = one(1) => 1,
    }
}
