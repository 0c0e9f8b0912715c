//! Which source is believed: symmetric RTP with a source lock (against RTP bleed and injection).
//!
//! ```text
//!             packet from the SDP address: at once ────────────────────────┐
//! Learning ── 4 packets in sequence from one source within the window ───► Locked
//!             any authenticated packet (SRTP): at once ───────────────────┘
//! Locked ──── re-INVITE ► the window opens again: another source may win, but only while the locked one is silent
//!        ──── SRTP: 4 authenticated packets in sequence from elsewhere (the peer moved) ► Locked there
//! ```
//! Packets from strangers are dropped and counted. The window is 5 s from the start or the re-INVITE; what comes first
//! from the SDP address ends all learning.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::packet::sequence_distance;

/// How long after start or re-INVITE a source other than the SDP's may be learnt.
pub const WINDOW: Duration = Duration::from_secs(5);
/// Consecutive packets that make a source credible.
pub const PROBATION: u8 = 4;
/// Sources on probation at a time; an attacker with more of them only throws out his own.
const MAX_CANDIDATES: usize = 4;

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Believed.
    Accept,
    /// Believed, and from now on this is the peer: the first packet, or another address than before.
    Locked,
    /// A stranger, or not yet believed.
    Drop,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    from: SocketAddr,
    ssrc: u32,
    sequence: u16,
    run: u8,
    seen: Instant,
}

/// Keeps one peer per stream.
#[derive(Debug)]
pub struct SourceLock {
    signalled: SocketAddr,
    locked: Option<SocketAddr>,
    heard: bool, // from the locked source since the window opened
    opened: Instant,
    candidates: [Option<Candidate>; MAX_CANDIDATES],
}

impl SourceLock {
    /// `signalled` is the address in the peer's SDP.
    pub fn new(signalled: SocketAddr, now: Instant) -> Self {
        Self { signalled, locked: None, heard: false, opened: now, candidates: [None; MAX_CANDIDATES] }
    }

    /// After a re-INVITE: the window opens again. A new address in the SDP ends the old lock, for the peer has said where
    /// it is now.
    pub fn update(&mut self, signalled: SocketAddr, now: Instant) {
        if signalled != self.signalled {
            self.locked = None;
        }
        (self.signalled, self.heard, self.opened) = (signalled, false, now);
        self.candidates = [None; MAX_CANDIDATES];
    }

    /// The source believed, if any.
    pub fn locked(&self) -> Option<SocketAddr> {
        self.locked
    }

    /// Judges a packet. `authentic`: SRTP has proved that it comes from the peer.
    pub fn judge(&mut self, from: SocketAddr, ssrc: u32, sequence: u16, authentic: bool, now: Instant) -> Verdict {
        if self.locked == Some(from) {
            self.heard = true;
            return Verdict::Accept;
        }
        let open = now.saturating_duration_since(self.opened) <= WINDOW;
        let at_once = match self.locked {
            None => authentic || from == self.signalled,
            Some(_) => from == self.signalled && open, // preferred to what was learnt
        };
        let learnt = || match self.locked {
            _ if authentic => true,
            None => open,
            Some(_) => open && !self.heard,
        };
        if at_once || (learnt() && self.credible(from, ssrc, sequence, now)) {
            (self.locked, self.heard) = (Some(from), true);
            self.candidates = [None; MAX_CANDIDATES];
            return Verdict::Locked;
        }
        if authentic { Verdict::Accept } else { Verdict::Drop }
    }

    /// Counts packets in sequence from one source; true with the fourth.
    fn credible(&mut self, from: SocketAddr, ssrc: u32, sequence: u16, now: Instant) -> bool {
        let known = self.candidates.iter_mut().flatten().find(|candidate| candidate.from == from);
        if let Some(candidate) = known {
            let follows = candidate.ssrc == ssrc && sequence_distance(sequence, candidate.sequence) == 1;
            let run = if follows { candidate.run + 1 } else { 1 };
            *candidate = Candidate { from, ssrc, sequence, run, seen: now };
            return run >= PROBATION;
        }
        let oldest = self.candidates.iter_mut().min_by_key(|slot| slot.as_ref().map(|candidate| candidate.seen));
        if let Some(slot) = oldest {
            *slot = Some(Candidate { from, ssrc, sequence, run: 1, seen: now });
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Accept, Drop, Locked};

    struct Bench {
        lock: SourceLock,
        start: Instant,
    }

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    const SDP: u16 = 4000;

    impl Bench {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
        fn new() -> Self {
            let start = Instant::now();
            Self { lock: SourceLock::new(address(SDP), start), start }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn packet(&mut self, port: u16, sequence: u16, ms: u64) -> Verdict {
            let now = self.at(ms);
            self.lock.judge(address(port), u32::from(port), sequence, false, now)
        }

        fn authentic(&mut self, port: u16, sequence: u16) -> Verdict {
            let now = self.at(60_000);
            self.lock.judge(address(port), 1, sequence, true, now)
        }
    }

    #[test]
    fn learning_to_locked_by_the_sdp_address_at_once_and_at_any_time() {
        for ms in [0, 4_999, 3_600_000] {
            let mut bench = Bench::new();
            assert_eq!([bench.packet(SDP, 9, ms), bench.packet(SDP, 10, ms)], [Locked, Accept]);
            assert_eq!(bench.lock.locked(), Some(address(SDP)));
        }
    }

    #[test]
    fn learning_to_locked_by_four_packets_in_sequence() {
        let mut bench = Bench::new();
        let verdicts: Vec<_> = (65_534..=65_539).map(|n| bench.packet(7, n as u16, 20 * (n - 65_534) as u64)).collect();
        assert_eq!(verdicts, [Drop, Drop, Drop, Locked, Accept, Accept]);
        let mut bench = Bench::new();
        let verdicts: Vec<_> = [1, 2, 3, 5, 6, 7, 8].into_iter().map(|n| bench.packet(7, n, 0)).collect();
        assert_eq!(verdicts, [Drop, Drop, Drop, Drop, Drop, Drop, Locked]); // the gap begins the count anew
    }

    #[test]
    fn learning_ends_with_the_window() {
        let mut bench = Bench::new();
        assert!((0..10).all(|n| bench.packet(7, n, 5_001 + u64::from(n)) == Drop));
        assert_eq!(bench.packet(SDP, 1, 6_000), Locked);
    }

    #[test]
    fn of_two_senders_the_sdp_address_wins_even_late_in_the_window() {
        let mut bench = Bench::new();
        for n in 0..4 {
            bench.packet(7, n, 0);
        }
        assert_eq!(bench.lock.locked(), Some(address(7)));
        assert_eq!(bench.packet(SDP, 100, 3_000), Locked);
        assert_eq!(bench.packet(7, 4, 3_001), Drop);
    }

    #[test]
    fn of_two_strangers_the_first_in_sequence_wins_and_the_other_stays_out() {
        let mut bench = Bench::new();
        let verdicts: Vec<_> = (0..5).flat_map(|n| [bench.packet(7, n, 0), bench.packet(8, 2 * n, 0)]).collect();
        assert_eq!(verdicts, [Drop, Drop, Drop, Drop, Drop, Drop, Locked, Drop, Accept, Drop]);
        assert!((0..100).all(|n| bench.packet(8, n, 4_000) == Drop));
    }

    #[test]
    fn a_flood_of_sources_does_not_keep_the_peer_out_once_it_is_heard() {
        let mut bench = Bench::new();
        assert_eq!(bench.packet(SDP, 1, 0), Locked);
        for n in 0..10_000u16 {
            assert_eq!(bench.packet(10_000 + n % 50_000, n, 1), Drop);
        }
        assert_eq!(bench.packet(SDP, 2, 2), Accept);
    }

    #[test]
    fn locked_to_locked_after_a_reinvite_only_while_the_old_source_is_silent() {
        let mut bench = Bench::new();
        for n in 0..4 {
            bench.packet(7, n, 0);
        }
        bench.lock.update(address(SDP), bench.at(60_000));
        assert_eq!(bench.packet(7, 4, 60_001), Accept);
        assert!((0..10).all(|n| bench.packet(8, n, 60_002) == Drop), "the old source was heard");
        bench.lock.update(address(SDP), bench.at(90_000));
        let verdicts: Vec<_> = (0..4).map(|n| bench.packet(8, n, 90_001)).collect();
        assert_eq!(verdicts, [Drop, Drop, Drop, Locked], "silent: it moved");
    }

    #[test]
    fn a_new_sdp_address_ends_the_old_lock() {
        let mut bench = Bench::new();
        bench.packet(SDP, 1, 0);
        bench.lock.update(address(4444), bench.at(60_000));
        assert_eq!(bench.lock.locked(), None);
        assert_eq!(bench.packet(4444, 1, 60_001), Locked);
        assert_eq!(bench.packet(SDP, 2, 60_002), Drop);
    }

    #[test]
    fn authentic_packets_lock_at_once_and_move_the_lock_when_the_peer_moves() {
        let mut bench = Bench::new();
        assert_eq!(bench.authentic(7, 1), Locked);
        let verdicts: Vec<_> = (2..6).map(|n| bench.authentic(8, n)).collect();
        assert_eq!(verdicts, [Accept, Accept, Accept, Locked]);
        assert_eq!(bench.lock.locked(), Some(address(8)));
    }
}
