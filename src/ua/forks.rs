//! What became of each 2xx to an INVITE of ours (RFC 3261 §13.2.2.4, RFC 6026 §7.2).
//!
//! A 2xx is repeated until its ACK arrives, and each fork of a call may send its own: both go on for up to 64·T1 after the
//! first one, when the session may be long over. The ACK to each is kept here for that time.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;

use crate::sip::dialog::Dialog;
use crate::sip::transaction::{ClientId, TRANSACTION_TIMEOUT};
use crate::sip::transport::Flow;

/// Branches of one call that may answer with 2xx; a peer that invents more gets no answer to them.
const MAX_FORKS: usize = 16;

#[derive(Debug)]
struct Ack {
    remote_tag: Box<[u8]>,
    flow: Flow,
    bytes: Bytes,
}

/// The last CSeq number used in an early dialog.
#[derive(Debug)]
struct Used {
    remote_tag: Box<[u8]>,
    number: u32,
}

/// ACKs sent, by INVITE.
#[derive(Debug, Default)]
pub(crate) struct Forks {
    acks: BTreeMap<ClientId, Vec<Ack>>,
    /// Numbers that PRACKs have used up in early dialogs, by INVITE and remote tag: a fork that answers late is ended with
    /// a higher one.
    used: BTreeMap<ClientId, Vec<Used>>,
    expiry: BTreeSet<(Instant, ClientId)>,
}

impl Forks {
    /// A 2xx came: from the first one on, the INVITE is remembered for 64·T1.
    pub fn note(&mut self, client: ClientId, now: Instant) {
        if let Entry::Vacant(entry) = self.acks.entry(client) {
            entry.insert(Vec::new());
            self.expiry.insert((now + TRANSACTION_TIMEOUT, client));
        }
    }

    /// Keeps the numbers that requests in early dialogs of this INVITE have used up, if any; `number` is its own.
    pub fn remember(&mut self, client: ClientId, number: u32, early: &[Dialog], now: Instant) {
        let used = early.iter().filter(|dialog| dialog.local_seq() > number).take(MAX_FORKS);
        let used: Vec<_> =
            used.map(|dialog| Used { remote_tag: dialog.remote_tag().into(), number: dialog.local_seq() }).collect();
        if !used.is_empty() {
            self.note(client, now);
            self.used.insert(client, used);
        }
    }

    /// The last number used in an early dialog; 0 when none is known.
    pub fn last_number(&self, client: ClientId, remote_tag: &[u8]) -> u32 {
        let used = self.used.get(&client).into_iter().flatten();
        used.filter(|used| *used.remote_tag == *remote_tag).map(|used| used.number).max().unwrap_or_default()
    }

    /// Keeps the ACK to the 2xx that carried `remote_tag`.
    pub fn keep(&mut self, client: ClientId, remote_tag: &[u8], flow: Flow, ack: Bytes) {
        if let Some(acks) = self.acks.get_mut(&client) {
            acks.push(Ack { remote_tag: remote_tag.into(), flow, bytes: ack });
        }
    }

    /// The ACK to a 2xx that comes again.
    pub fn ack(&self, client: ClientId, remote_tag: &[u8]) -> Option<(Flow, Bytes)> {
        let acks = self.acks.get(&client)?;
        acks.iter().find(|ack| *ack.remote_tag == *remote_tag).map(|ack| (ack.flow, ack.bytes.clone()))
    }

    /// True while one more fork of this INVITE is believed.
    pub fn has_room(&self, client: ClientId) -> bool {
        self.acks.get(&client).is_none_or(|acks| acks.len() < MAX_FORKS)
    }

    /// Forgets what is old enough, and says whose INVITE that was.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<ClientId> {
        let mut over = Vec::new();
        while let Some((at, client)) = self.expiry.first().copied().filter(|(at, _)| *at <= now) {
            self.expiry.remove(&(at, client));
            self.acks.remove(&client);
            self.used.remove(&client);
            over.push(client);
        }
        over
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.expiry.first().map(|(at, _)| *at)
    }

    pub fn is_empty(&self) -> bool {
        self.acks.is_empty()
    }
}
