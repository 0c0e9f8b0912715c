//! Requests too large for a datagram go over TCP (RFC 3261 §18.1.1), and as datagrams after all where there is no TCP.
//!
//! Transactions know nothing of it: what they repeat is held back while the connection stands, and what they send with the
//! same branch (CANCEL, the ACK to a failure) follows the request. The answers come over the connection, so a dialog they
//! make stays on it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::sip::message::Message;
use crate::sip::transaction::ClientId;
use crate::sip::transport::ConnectionId;

/// The largest request for a path whose MTU is unknown.
const UNKNOWN_PATH: usize = 1300;
/// The same on this machine: 200 bytes below what a datagram holds.
const LOOPBACK: usize = 65_307;
/// Requests followed at once; further ones go as datagrams.
const FOLLOWED_LIMIT: usize = 1024;
/// How long a request is followed: as long as its transaction may last (timers B and D).
const FOLLOWED: Duration = Duration::from_secs(64);
/// How long a destination without TCP gets datagrams at once.
const AVOIDED: Duration = Duration::from_secs(300);
/// Destinations remembered for that.
const AVOIDED_LIMIT: usize = 1024;

/// What was sent over TCP in the place of UDP.
#[derive(Debug)]
pub(super) struct Large {
    followed: BTreeMap<ClientId, Followed>,
    avoided: HashMap<SocketAddr, Instant>,
    pub loopback_limit: usize,
}

#[derive(Debug)]
pub(super) struct Followed {
    pub original: Bytes,
    pub to: SocketAddr,
    pub connection: Option<ConnectionId>,
    branch: Box<[u8]>,
    since: Instant,
}

/// What becomes of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    Udp,
    /// Over TCP, for the first time, in these bytes.
    Switch(Bytes),
    /// Over the connection its request went over.
    Follow(Option<ConnectionId>, Bytes),
    /// It went already over this connection.
    Repeated(Option<ConnectionId>),
}

impl Default for Large {
    fn default() -> Self {
        Self { followed: BTreeMap::new(), avoided: HashMap::new(), loopback_limit: LOOPBACK }
    }
}

impl Large {
    /// Decides on a message that is to go over UDP.
    pub fn way(&self, bytes: &Bytes, to: SocketAddr, client: Option<ClientId>, now: Instant) -> Way {
        if let Some(followed) = client.and_then(|client| self.followed.get(&client)) {
            return Way::Repeated(followed.connection);
        }
        let limit = if to.ip().is_loopback() { self.loopback_limit } else { UNKNOWN_PATH };
        let large = client.is_some() && bytes.len() > limit;
        if (self.followed.is_empty() && !large) || bytes.starts_with(b"SIP/2.0 ") {
            return Way::Udp;
        }
        if let Some(branch) = branch(bytes)
            && let Some(followed) = self.followed.values().find(|followed| *followed.branch == *branch)
        {
            return over_tcp(bytes).map_or(Way::Udp, |bytes| Way::Follow(followed.connection, bytes));
        }
        let avoided = self.avoided.get(&to).is_some_and(|until| now < *until);
        match over_tcp(bytes).filter(|_| large && !avoided && self.followed.len() < FOLLOWED_LIMIT) {
            Some(bytes) => Way::Switch(bytes),
            None => Way::Udp,
        }
    }

    /// A request went over TCP.
    pub fn switched(
        &mut self,
        client: ClientId,
        original: Bytes,
        to: SocketAddr,
        connection: Option<ConnectionId>,
        now: Instant,
    ) {
        if let Some(branch) = branch(&original) {
            self.followed.insert(client, Followed { original, to, connection, branch, since: now });
        }
    }

    /// A request did not get through over TCP: it is to go as a datagram, and so are the next ones to the same place.
    pub fn give_up(&mut self, client: ClientId, now: Instant) -> Option<Followed> {
        let followed = self.followed.remove(&client)?;
        self.avoid(followed.to, now);
        Some(followed)
    }

    pub fn avoid(&mut self, to: SocketAddr, now: Instant) {
        if self.avoided.len() < AVOIDED_LIMIT {
            self.avoided.insert(to, now + AVOIDED);
        }
    }

    /// Forgets what is over. Called about once a second.
    pub fn tidy(&mut self, now: Instant) {
        self.followed.retain(|_, followed| now.saturating_duration_since(followed.since) < FOLLOWED);
        self.avoided.retain(|_, until| now < *until);
    }
}

fn branch(bytes: &Bytes) -> Option<Box<[u8]>> {
    let message = Message::parse(bytes.clone()).ok()?;
    message.top_via().ok()?.branch().map(Into::into)
}

/// The message with TCP in its Via, which is ours and written by us.
fn over_tcp(bytes: &Bytes) -> Option<Bytes> {
    const VIA: &[u8] = b"\r\nVia: SIP/2.0/UDP ";
    let at = memchr::memmem::find(bytes, VIA)? + VIA.len() - b"UDP ".len();
    let mut copy = bytes.to_vec();
    copy.get_mut(at..at + 3)?.copy_from_slice(b"TCP");
    Some(copy.into())
}
