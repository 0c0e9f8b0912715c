//! What other threads may know of a call's audio: a few atomics, and the numbers left behind at its end.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use super::{AudioStatistics, lock};
use crate::event::SessionId;
use crate::rtp::session::PacketTrace;

/// Ended calls that can still be asked for their numbers.
const ENDED_LIMIT: usize = 256;

/// One call's audio, as its handles see it.
#[derive(Debug)]
pub(super) struct CallView {
    pub session: SessionId,
    /// The media thread it lives on.
    pub thread: usize,
    open: AtomicBool,
    sample_rate: AtomicU32,
    /// Bits of an `f32`, dB below full scale.
    level: AtomicU32,
    muted: AtomicBool,
    left: Mutex<Left>,
}

/// What a call leaves behind.
#[derive(Debug, Default)]
struct Left {
    statistics: AudioStatistics,
    trace: Vec<PacketTrace>,
}

impl CallView {
    pub fn new(session: SessionId, thread: usize) -> Self {
        Self {
            session,
            thread,
            open: AtomicBool::new(true),
            sample_rate: AtomicU32::new(8000),
            level: AtomicU32::new(SILENCE_DB.to_bits()),
            muted: AtomicBool::new(false),
            left: Mutex::default(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.open.load(SeqCst)
    }
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate.load(Relaxed)
    }
    pub fn set_sample_rate(&self, rate: u32) {
        self.sample_rate.store(rate, Relaxed);
    }
    pub fn level(&self) -> f32 {
        f32::from_bits(self.level.load(Relaxed))
    }
    pub fn set_level(&self, level: f32) {
        self.level.store(level.to_bits(), Relaxed);
    }
    pub fn muted(&self) -> bool {
        self.muted.load(Relaxed)
    }
    pub fn set_muted(&self, muted: bool) {
        self.muted.store(muted, Relaxed);
    }

    /// The stream is over; its last numbers stay.
    pub fn close(&self, statistics: AudioStatistics, trace: Vec<PacketTrace>) {
        *lock(&self.left) = Left { statistics, trace };
        self.open.store(false, SeqCst);
    }
    pub fn last_statistics(&self) -> AudioStatistics {
        lock(&self.left).statistics
    }
    pub fn take_last_trace(&self) -> Vec<PacketTrace> {
        std::mem::take(&mut lock(&self.left).trace)
    }
}

/// The level of silence, dB below full scale.
pub(super) const SILENCE_DB: f32 = -127.0;

/// RMS of samples in dB below full scale.
pub(super) fn level_db(samples: &[i16]) -> f32 {
    if samples.is_empty() {
        return SILENCE_DB;
    }
    let sum: i64 = samples.iter().map(|sample| i64::from(*sample).pow(2)).sum();
    let mean = sum as f64 / samples.len() as f64;
    ((10.0 * (mean / (32_768.0 * 32_768.0)).log10()) as f32).max(SILENCE_DB)
}

/// All calls with audio, and the last that ended. Written by the signalling lane only.
#[derive(Debug, Default)]
pub(super) struct Calls {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    views: HashMap<SessionId, Arc<CallView>>,
    ended: VecDeque<SessionId>,
}

impl Calls {
    pub fn get(&self, session: SessionId) -> Option<Arc<CallView>> {
        lock(&self.table).views.get(&session).cloned()
    }

    pub fn insert(&self, view: Arc<CallView>) {
        lock(&self.table).views.insert(view.session, view);
    }

    /// Marks a call as ended; the oldest of too many ended ones is forgotten.
    pub fn end(&self, session: SessionId) {
        let mut table = lock(&self.table);
        table.ended.push_back(session);
        if table.ended.len() > ENDED_LIMIT
            && let Some(oldest) = table.ended.pop_front()
            && !table.ended.contains(&oldest)
        {
            table.views.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_decibels_below_full_scale() {
        assert_eq!(level_db(&[0; 160]), SILENCE_DB);
        assert_eq!(level_db(&[]), SILENCE_DB);
        assert!(level_db(&[i16::MIN; 160]).abs() < 0.001);
        assert!((level_db(&[3277; 160]) + 20.0).abs() < 0.01);
    }

    #[test]
    fn ended_calls_are_remembered_up_to_a_limit() {
        let calls = Calls::default();
        for number in 0..ENDED_LIMIT as u64 + 5 {
            calls.insert(Arc::new(CallView::new(SessionId(number), 0)));
            calls.end(SessionId(number));
        }
        assert!(calls.get(SessionId(4)).is_none());
        assert!(calls.get(SessionId(5)).is_some());
        assert_eq!(lock(&calls.table).views.len(), ENDED_LIMIT);
    }
}
