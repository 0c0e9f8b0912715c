//! How much a flood can take: new sessions a second, half-open INVITEs of one source.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Unanswered INVITEs one source may have open (a trunk is one source).
pub(crate) const MAX_HALF_OPEN_PER_SOURCE: usize = 4_096;

/// Sources whose rate is remembered. Beyond it the one that was quiet longest is forgotten: a flood from many addresses
/// meets the limit for all sources together.
const MAX_SOURCES: usize = 4_096;

/// What the limits say to a new INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    /// 503 with Retry-After.
    Refused,
}

/// `rate` tokens a second, at most one second's worth at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Tokens in nanoseconds of filling: one token is `1 s / rate`.
    filled: Duration,
    at: Instant,
}

const FULL: Duration = Duration::from_secs(1);

impl Bucket {
    pub fn new(now: Instant) -> Self {
        Self { filled: FULL, at: now }
    }

    fn fill(&mut self, now: Instant) {
        self.filled = (self.filled + now.saturating_duration_since(self.at)).min(FULL);
        self.at = now.max(self.at);
    }

    /// Takes one token; false when none is left.
    pub fn take(&mut self, rate: u32, now: Instant) -> bool {
        self.fill(now);
        let price = price(rate);
        let enough = self.filled >= price;
        if enough {
            self.filled -= price;
        }
        enough
    }
}

/// What one token costs. A rate of 0 admits nothing.
fn price(rate: u32) -> Duration {
    FULL.checked_div(rate).unwrap_or(Duration::MAX)
}

/// The limits of one user agent.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    all: Option<Bucket>,
    refusals: Option<Bucket>,
    sources: BTreeMap<IpAddr, Bucket>,
    half_open: BTreeMap<IpAddr, usize>,
}

impl Limits {
    /// Asks for one more session from `source`; `rate` and `rate_per_source` are sessions a second.
    pub fn admit(&mut self, source: IpAddr, rate: u32, rate_per_source: u32, now: Instant) -> Admission {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            let quietest = self.sources.iter().min_by_key(|(_, bucket)| bucket.at).map(|(source, _)| *source);
            if let Some(quietest) = quietest {
                self.sources.remove(&quietest);
            }
        }
        let from_source = self.sources.entry(source).or_insert_with(|| Bucket::new(now)).take(rate_per_source, now);
        if from_source && self.all.get_or_insert_with(|| Bucket::new(now)).take(rate, now) {
            Admission::Admitted
        } else {
            self.refusals.get_or_insert_with(|| Bucket::new(now)).take(rate, now);
            Admission::Refused
        }
    }

    /// True while so many are refused that answering each would only add to the flood: silence, until a second's worth
    /// of refusals has been saved up again.
    pub fn is_silent(&mut self, rate: u32, now: Instant) -> bool {
        self.refusals.as_mut().is_some_and(|bucket| {
            bucket.fill(now);
            bucket.filled < price(rate)
        })
    }

    /// Counts one more unanswered INVITE of a source; false when it has too many.
    pub fn open(&mut self, source: IpAddr) -> bool {
        let count = self.half_open.entry(source).or_insert(0);
        let free = *count < MAX_HALF_OPEN_PER_SOURCE;
        if free {
            *count += 1;
        }
        free
    }

    /// One of them was answered or is gone.
    pub fn close(&mut self, source: IpAddr) {
        if let Some(count) = self.half_open.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.half_open.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ua::tests::harness::start;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_source_meets_its_own_limit_first_and_recovers() {
        let mut limits = Limits::default();
        let mut now = start();
        let mut admitted = |source, now| limits.admit(source, 100, 5, now) == Admission::Admitted;
        assert_eq!((0..9).filter(|_| admitted(SOURCE, now)).count(), 5);
        assert!(admitted(OTHER, now), "another source is not hurt");
        now += Duration::from_millis(200);
        assert!(admitted(SOURCE, now));
        assert!(!admitted(SOURCE, now));
    }

    #[test]
    fn all_sources_together_meet_the_total_then_silence_then_answers_again() {
        let mut limits = Limits::default();
        let mut now = start();
        for last in 1..=10 {
            let source = IpAddr::from([192, 0, 2, last]);
            assert_eq!(limits.admit(source, 10, 10, now), Admission::Admitted);
        }
        for _ in 0..10 {
            assert!(!limits.is_silent(10, now));
            assert_eq!(limits.admit(SOURCE, 10, 10, now), Admission::Refused);
        }
        assert!(limits.is_silent(10, now));
        now += Duration::from_millis(100);
        assert!(!limits.is_silent(10, now));
    }

    #[test]
    fn a_rate_of_zero_admits_nothing() {
        assert_eq!(Limits::default().admit(SOURCE, 0, 0, start()), Admission::Refused);
    }

    #[test]
    fn half_open_calls_are_counted_down_again() {
        let mut limits = Limits::default();
        assert_eq!((0..MAX_HALF_OPEN_PER_SOURCE + 1).filter(|_| limits.open(SOURCE)).count(), MAX_HALF_OPEN_PER_SOURCE);
        assert!(limits.open(OTHER));
        limits.close(SOURCE);
        assert!(limits.open(SOURCE));
        assert!(!limits.open(SOURCE));
    }
}
