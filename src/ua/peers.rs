//! Who is to be at the other end of the connections we open: the names that certificates are checked against.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::sip::transport::PeerId;

/// Names kept; above it the oldest goes, and a new connection to that peer fails until it is looked up again. Only names
/// that the application gave or a look-up of them led to come in.
const MAX_PEERS: usize = 16_384;

/// One entry: the SIP domain (RFC 5922 §7.1: before any SRV look-up) and the resource of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub domain: Arc<str>,
    /// What a WebSocket's GET names; "/" unless the route says otherwise.
    pub path: Arc<str>,
}

#[derive(Debug)]
pub(crate) struct Peers {
    by_id: HashMap<PeerId, Peer>,
    ids: HashMap<Peer, PeerId>,
    order: VecDeque<PeerId>,
    last: NonZeroU32,
}

impl Default for Peers {
    fn default() -> Self {
        Self { by_id: HashMap::new(), ids: HashMap::new(), order: VecDeque::new(), last: NonZeroU32::MIN }
    }
}

impl Peers {
    /// The number of a peer, the same each time.
    pub fn id(&mut self, domain: &str, path: &str) -> PeerId {
        let peer = Peer { domain: domain.to_ascii_lowercase().into(), path: path.into() };
        if let Some(id) = self.ids.get(&peer) {
            return *id;
        }
        if self.order.len() >= MAX_PEERS
            && let Some(oldest) = self.order.pop_front()
            && let Some(gone) = self.by_id.remove(&oldest)
        {
            self.ids.remove(&gone);
        }
        self.last = self.last.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let id = PeerId(self.last);
        self.by_id.insert(id, peer.clone());
        self.ids.insert(peer, id);
        self.order.push_back(id);
        id
    }

    pub fn get(&self, id: PeerId) -> Option<&Peer> {
        self.by_id.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_keeps_its_number_and_the_oldest_goes_when_there_are_too_many() {
        let mut peers = Peers::default();
        let first = peers.id("Example.com", "/");
        assert_eq!(peers.id("example.com", "/"), first);
        assert_ne!(peers.id("example.com", "/ws"), first);
        assert_eq!(&*peers.get(first).expect("known").domain, "example.com");
        for number in 0..MAX_PEERS {
            peers.id(&format!("{number}.example.com"), "/");
        }
        assert_eq!(peers.get(first), None);
        assert_eq!((peers.by_id.len(), peers.ids.len(), peers.order.len()), (MAX_PEERS, MAX_PEERS, MAX_PEERS));
    }
}
