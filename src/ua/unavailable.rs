//! Peers that asked to be left alone for a while (503 with Retry-After, RFC 3261 §21.5.4).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Peers that are remembered: a pool of proxies in trouble is smaller.
const MAX_PEERS: usize = 256;

/// Longest time one is avoided: what a peer says must not lock it out for good.
const LONGEST: Duration = Duration::from_secs(3600);

/// Until when each is avoided, as long as there is another way.
#[derive(Debug, Default)]
pub(crate) struct Unavailable {
    until: BTreeMap<SocketAddr, Instant>,
}

impl Unavailable {
    pub fn avoid(&mut self, peer: SocketAddr, until: Instant, now: Instant) {
        self.until.retain(|_, until| *until > now);
        if self.until.len() < MAX_PEERS || self.until.contains_key(&peer) {
            self.until.insert(peer, until.min(now + LONGEST));
        }
    }

    pub fn is_avoided(&self, peer: SocketAddr, now: Instant) -> bool {
        self.until.get(&peer).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ua::tests::harness::start;

    #[test]
    fn a_peer_is_avoided_for_its_time_and_at_most_an_hour() {
        let (mut peers, now) = (Unavailable::default(), start());
        let peer = SocketAddr::from(([192, 0, 2, 1], 5060));
        peers.avoid(peer, now + Duration::from_secs(10), now);
        assert!(peers.is_avoided(peer, now + Duration::from_secs(9)));
        assert!(!peers.is_avoided(peer, now + Duration::from_secs(10)));
        assert!(!peers.is_avoided(SocketAddr::from(([192, 0, 2, 1], 5061)), now));
        peers.avoid(peer, now + Duration::from_secs(1_000_000), now);
        assert!(!peers.is_avoided(peer, now + LONGEST));
    }

    #[test]
    fn only_so_many_are_remembered_and_old_ones_make_room() {
        let (mut peers, now) = (Unavailable::default(), start());
        let peer = |port: usize| SocketAddr::from(([192, 0, 2, 1], u16::try_from(port).unwrap()));
        for port in 0..2 * MAX_PEERS {
            peers.avoid(peer(port), now + Duration::from_secs(10), now);
        }
        assert_eq!(peers.until.len(), MAX_PEERS);
        let later = now + Duration::from_secs(11);
        peers.avoid(peer(9_999), later + Duration::from_secs(1), later);
        assert_eq!(peers.until.len(), 1);
    }
}
