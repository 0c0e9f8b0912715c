//! The counters behind [`super::EngineStats`], written by the lanes without locks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::stats::{QueueStats, TransportStats};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
    pub fn raise_to(&self, value: u64) {
        self.0.fetch_max(value, Relaxed);
    }
}

/// How full a queue was and what it refused; its depth is asked of the queue itself.
#[derive(Debug, Default)]
pub(crate) struct QueueCounters {
    high_water: AtomicUsize,
    refused: Counter,
}

impl QueueCounters {
    pub fn saw(&self, depth: usize) {
        self.high_water.fetch_max(depth, Relaxed);
    }
    pub fn refused(&self) {
        self.refused.add(1);
    }
    pub fn stats(&self, depth: usize, limit: usize) -> QueueStats {
        QueueStats { depth, high_water: self.high_water.load(Relaxed), limit, refused: self.refused.get() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct TransportCounters {
    pub stream_input: QueueCounters,
    pub udp_received: Counter,
    pub udp_sent: Counter,
    pub udp_queued: Counter,
    pub udp_dropped: Counter,
    pub tcp_received: Counter,
    pub tcp_sent: Counter,
    pub tcp_connections: AtomicUsize,
    pub tcp_accepted: Counter,
    pub tcp_connected: Counter,
    pub tcp_connect_failures: Counter,
    pub tcp_refused: Counter,
    pub tcp_idle_closed: Counter,
    pub tcp_lost: Counter,
    pub tcp_dropped: Counter,
}

impl TransportCounters {
    pub fn stats(&self) -> TransportStats {
        TransportStats {
            udp_received: self.udp_received.get(),
            udp_sent: self.udp_sent.get(),
            udp_queued: self.udp_queued.get(),
            udp_dropped: self.udp_dropped.get(),
            tcp_received: self.tcp_received.get(),
            tcp_sent: self.tcp_sent.get(),
            tcp_connections: self.tcp_connections.load(Relaxed),
            tcp_accepted: self.tcp_accepted.get(),
            tcp_connected: self.tcp_connected.get(),
            tcp_connect_failures: self.tcp_connect_failures.get(),
            tcp_refused: self.tcp_refused.get(),
            tcp_idle_closed: self.tcp_idle_closed.get(),
            tcp_lost: self.tcp_lost.get(),
            tcp_dropped: self.tcp_dropped.get(),
        }
    }
}
