//! The timer values of RFC 3261 §17 and the one queue all transactions wait in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{ClientId, ServerId};

/// Round-trip estimate (RFC 3261 §17.1.1.1).
pub const T1: Duration = Duration::from_millis(500);
/// Longest wait between retransmissions of a non-INVITE request or a response (§17.1.2.2).
pub const T2: Duration = Duration::from_secs(4);
/// Longest life of a message in the network (§17.1.2.2).
pub const T4: Duration = Duration::from_secs(5);
/// 64·T1: timers B, F, H, J, L and M, and the wait for a final response after CANCEL (§9.1, §17, RFC 6026 §8.11, §8.12).
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(32);
/// Timer D on UDP: at least 32 s, so that each repeated failure still finds its ACK (§17.1.1.2).
pub const TIMER_D: Duration = Duration::from_secs(32);
/// An INVITE without an answer for this long gets 100 Trying (§17.2.1).
pub const TRYING_AFTER: Duration = Duration::from_millis(200);

/// Whose timer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Client(ClientId),
    Server(ServerId),
}

/// One entry a transaction at most: its next deadline. A deadline that moves takes its entry along, so nothing that was
/// cancelled stays behind; each step costs O(log n). Equal times fire in the order of the identifiers.
#[derive(Debug, Default)]
pub(super) struct TimerQueue {
    entries: BTreeSet<(Instant, Owner)>,
}

impl TimerQueue {
    /// Moves the owner's entry from the deadline it had to the one it has now.
    pub fn rearm(&mut self, owner: Owner, before: Option<Instant>, after: Option<Instant>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.entries.remove(&(before, owner));
        }
        if let Some(after) = after {
            self.entries.insert((after, owner));
        }
    }

    /// The owner of the earliest deadline that has come. The entry stays: the owner moves or removes it.
    pub fn first_due(&self, now: Instant) -> Option<Owner> {
        self.entries.first().filter(|(at, _)| *at <= now).map(|(_, owner)| *owner)
    }

    pub fn next(&self) -> Option<Instant> {
        self.entries.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
