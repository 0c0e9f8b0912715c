//! The one queue of session timers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::event::SessionId;

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Send the unacknowledged 2xx again (RFC 3261 §13.3.1.4).
    Resend2xx,
    /// The ACK to our 2xx never came (64·T1).
    NoAck,
    /// The caller's Expires ran out (RFC 3261 §13.3.1).
    Expires,
    /// Repeat the provisional response so that proxies go on waiting (RFC 3261 §13.3.1.1).
    KeepRinging,
    /// An offer the peer has put off may leave again (RFC 3261 §14.1).
    OfferAgain,
    /// The session is to be refreshed by us (RFC 4028 §10).
    Refresh,
    /// Nobody has refreshed the session.
    SessionExpires,
    /// A re-INVITE of ours has rung for too long.
    ReinviteRings,
    /// Send the unacknowledged provisional response again (RFC 3262 §3).
    Provisional,
    /// The end has taken long enough.
    Patience,
    /// The application has not said what to do with a REFER, or the peer reports no more of ours.
    Transfer,
}

const KINDS: [Timer; 11] = [
    Timer::Resend2xx,
    Timer::NoAck,
    Timer::Expires,
    Timer::KeepRinging,
    Timer::Provisional,
    Timer::OfferAgain,
    Timer::Refresh,
    Timer::SessionExpires,
    Timer::ReinviteRings,
    Timer::Patience,
    Timer::Transfer,
];

/// Deadlines of all sessions; equal times fire in the order of sessions and kinds.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Instant, SessionId, Timer)>,
    armed: BTreeMap<(SessionId, Timer), Instant>,
}

impl Timers {
    /// Sets or moves a timer.
    pub fn set(&mut self, session: SessionId, timer: Timer, at: Instant) {
        if let Some(old) = self.armed.insert((session, timer), at) {
            self.queue.remove(&(old, session, timer));
        }
        self.queue.insert((at, session, timer));
    }

    pub fn is_set(&self, session: SessionId, timer: Timer) -> bool {
        self.armed.contains_key(&(session, timer))
    }

    pub fn cancel(&mut self, session: SessionId, timer: Timer) {
        if let Some(old) = self.armed.remove(&(session, timer)) {
            self.queue.remove(&(old, session, timer));
        }
    }

    pub fn cancel_all(&mut self, session: SessionId) {
        for timer in KINDS {
            self.cancel(session, timer);
        }
    }

    /// Takes the earliest timer that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<(SessionId, Timer)> {
        let (at, session, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.cancel(session, timer);
        Some((session, timer))
    }

    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, ..)| *at)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
