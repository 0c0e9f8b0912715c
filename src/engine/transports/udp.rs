//! SIP over UDP: a socket for each address family, a reused receive buffer, a small queue for when the kernel is full.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::engine::counters::TransportCounters;
use crate::engine::sockets::words;
use crate::sip::transaction::ClientId;

/// Datagrams that wait for the socket; SIP repeats what is lost beyond that.
const WAITING_LIMIT: usize = 1024;
/// The largest UDP payload.
const DATAGRAM_LIMIT: usize = 65_535;

#[derive(Debug)]
pub(super) struct Udp {
    socket: UdpSocket,
    /// What peers are told.
    local: SocketAddr,
    ipv6: bool,
    buffer: Box<[u8]>,
    waiting: VecDeque<Waiting>,
    counters: Arc<TransportCounters>,
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
        Ok(Self { socket: UdpSocket::from_std(socket)?, local, ipv6, buffer, waiting: VecDeque::new(), counters })
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
        // An error is the report of an earlier datagram (ICMP); each read takes one away, so a few reads suffice.
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
    pub fn send(&mut self, to: SocketAddr, bytes: Bytes, client: Option<ClientId>) -> Result<(), String> {
        if self.waiting.is_empty() {
            match self.socket.try_send_to(&bytes, to) {
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

    /// Sends what waits, as far as the kernel takes it; returns the requests it refused.
    pub fn flush(&mut self) -> Vec<(ClientId, String)> {
        let mut failed = Vec::new();
        while let Some(Waiting { to, bytes, client }) = self.waiting.front() {
            match self.socket.try_send_to(bytes, *to) {
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
            let _ = udp.socket.ready(Interest::READABLE | write).await;
        }
        None => std::future::pending().await,
    };
    // One socket for each address family is all there is.
    tokio::select! {
        () = one(0) => 0,
        () = one(1) => 1,
    }
}
