//! The counters behind [`super::EngineStats`], written by the lanes without locks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use std::sync::Arc;

use super::stats::{QueueStats, StreamStats, TransportStats};
use crate::sip::transport::Transport;

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

/// Connections of one transport.
#[derive(Debug, Default)]
pub(crate) struct StreamCounters {
    pub received: Counter,
    pub sent: Counter,
    pub connections: AtomicUsize,
    pub accepted: Counter,
    pub connected: Counter,
    pub connect_failures: Counter,
    pub handshake_failures: Counter,
    pub refused: Counter,
    pub idle_closed: Counter,
    pub lost: Counter,
    pub dropped: Counter,
}

impl StreamCounters {
    pub fn stats(&self) -> StreamStats {
        StreamStats {
            received: self.received.get(),
            sent: self.sent.get(),
            connections: self.connections.load(Relaxed),
            accepted: self.accepted.get(),
            connected: self.connected.get(),
            connect_failures: self.connect_failures.get(),
            handshake_failures: self.handshake_failures.get(),
            refused: self.refused.get(),
            idle_closed: self.idle_closed.get(),
            lost: self.lost.get(),
            dropped: self.dropped.get(),
        }
    }
}

/// Every SIP socket of a lane.
#[derive(Debug, Default)]
pub(crate) struct TransportCounters {
    pub stream_input: QueueCounters,
    pub udp_received: Counter,
    pub udp_sent: Counter,
    pub udp_queued: Counter,
    pub udp_dropped: Counter,
    pub udp_unreachable: Counter,
    tcp: Arc<StreamCounters>,
    tls: Arc<StreamCounters>,
    ws: Arc<StreamCounters>,
    wss: Arc<StreamCounters>,
}

impl TransportCounters {
    /// The counters of a transport with connections.
    pub fn of(&self, transport: Transport) -> &Arc<StreamCounters> {
        match transport {
            Transport::Udp | Transport::Tcp => &self.tcp,
            Transport::Tls => &self.tls,
            Transport::Ws => &self.ws,
            Transport::Wss => &self.wss,
        }
    }

    pub fn stats(&self) -> TransportStats {
        TransportStats {
            udp_received: self.udp_received.get(),
            udp_sent: self.udp_sent.get(),
            udp_queued: self.udp_queued.get(),
            udp_dropped: self.udp_dropped.get(),
            udp_unreachable: self.udp_unreachable.get(),
            tcp: self.tcp.stats(),
            tls: self.tls.stats(),
            ws: self.ws.stats(),
            wss: self.wss.stats(),
        }
    }
}
