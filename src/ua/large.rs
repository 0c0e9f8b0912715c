//! Requests of ours too large for a datagram go over TCP, and over UDP all the same to a peer without it (RFC 3261 §18.1.1).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::core::{ClientUse, Core};
use crate::sip::build::moved_to_tcp;
use crate::sip::message::Message;
use crate::sip::transaction::ClientId;
use crate::sip::transport::{Flow, Transport};

/// The largest request that goes over UDP, in bytes: the MTU of a path is not known to us (RFC 3261 §18.1.1).
pub(crate) const MAX_DATAGRAM: usize = 1300;
/// Peers without TCP that are remembered; one that is forgotten costs a try that fails.
const MAX_WITHOUT_TCP: usize = 256;
/// How long a peer is taken to have no TCP: a connect that nobody answers takes seconds, which not each request shall wait.
const WITHOUT_TCP_FOR: Duration = Duration::from_secs(600);

/// Peers where no TCP connection could be had, the latest last.
#[derive(Debug, Default)]
pub(crate) struct WithoutTcp {
    peers: VecDeque<(SocketAddr, Instant)>,
}

impl WithoutTcp {
    fn note(&mut self, peer: SocketAddr, now: Instant) {
        self.peers.retain(|(known, _)| *known != peer);
        if self.peers.len() >= MAX_WITHOUT_TCP {
            self.peers.pop_front();
        }
        self.peers.push_back((peer, now));
    }

    /// `now` is `None` where no time is at hand: what was noted once counts.
    fn has(&self, peer: SocketAddr, now: Option<Instant>) -> bool {
        let known = self.peers.iter().find(|(known, _)| *known == peer);
        known.is_some_and(|(_, at)| now.is_none_or(|now| now.saturating_duration_since(*at) < WITHOUT_TCP_FOR))
    }
}

impl Core {
    pub fn send_message(&mut self, request: Message, flow: Flow, used: Option<ClientUse>, now: Instant) -> ClientId {
        let client = match self.over_tcp(&request, flow, Some(now)) {
            Some((large, tcp)) => self.transactions.send_request_or(large, tcp, Some((request, flow)), now),
            None => self.transactions.send_request(request, flow, now),
        };
        if let Some(used) = used {
            self.clients.insert(client, used);
        }
        client
    }

    /// The request as it goes over TCP, when it is too large for UDP and TCP is there on both sides.
    pub fn over_tcp(&self, request: &Message, flow: Flow, now: Option<Instant>) -> Option<(Message, Flow)> {
        if flow.transport != Transport::Udp || request.as_bytes().len() <= MAX_DATAGRAM {
            return None;
        }
        let tcp = Flow::to(Transport::Tcp, flow.remote);
        let (from, to) = (self.listening_address(flow)?, self.listening_address(tcp)?);
        if self.without_tcp.has(flow.remote, now) {
            return None;
        }
        let large = moved_to_tcp(request, from, to)?;
        Some((Message::parse(large).ok()?, tcp))
    }

    /// A request could not be sent; one that has UDP left goes there.
    pub fn transport_failed(&mut self, client: ClientId, error: &str, now: Instant) {
        if let Some(given_up) = self.transactions.handle_transport_error(client, error, now) {
            self.without_tcp.note(given_up.remote, now);
        }
    }
}
