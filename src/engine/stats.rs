//! Counters of every queue, limit and transport.

use crate::ua::UaStats;

/// One bounded queue between two lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Entries waiting now.
    pub depth: usize,
    /// The most that ever waited.
    pub high_water: usize,
    /// Entries it holds at most.
    pub limit: usize,
    /// Entries refused because it was full.
    pub refused: u64,
}

/// The queue of events to the application: unbounded, watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventQueueStats {
    pub depth: usize,
    pub high_water: usize,
    pub posted: u64,
    /// How often more than 10,000 events waited.
    pub lag_warnings: u64,
}

/// Connections of one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    pub received: u64,
    pub sent: u64,
    /// Open now.
    pub connections: usize,
    pub accepted: u64,
    pub connected: u64,
    pub connect_failures: u64,
    /// Peers that came and did not get through TLS or the WebSocket handshake.
    pub handshake_failures: u64,
    /// Connections refused by the cap, closed for idling, or closed because their stream could not be followed.
    pub refused: u64,
    pub idle_closed: u64,
    pub lost: u64,
    /// Messages not sent because a peer does not read.
    pub dropped: u64,
}

/// SIP over each transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportStats {
    pub udp_received: u64,
    pub udp_sent: u64,
    /// Datagrams that waited because the socket was full.
    pub udp_queued: u64,
    /// Datagrams given up because that wait was full too, or the kernel refused them.
    pub udp_dropped: u64,
    /// Datagrams that the network reported as not delivered (ICMP).
    pub udp_unreachable: u64,
    pub tcp: StreamStats,
    pub tls: StreamStats,
    pub ws: StreamStats,
    pub wss: StreamStats,
}

/// One media thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaThreadStats {
    pub calls: usize,
    pub ticks: u64,
    /// Ticks more than half a period late.
    pub late_ticks: u64,
    /// Ticks given up because the thread was more than the bounded catch-up behind.
    pub skipped_ticks: u64,
    /// The worst delay of a tick, microseconds.
    pub worst_late_us: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    /// Packets the kernel did not take.
    pub packets_dropped: u64,
    pub commands: QueueStats,
}

/// The disk thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    pub recordings: usize,
    pub players: usize,
    pub commands: QueueStats,
}

/// Everything [`super::Engine::stats`] knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    pub ua: UaStats,
    pub commands: QueueStats,
    pub media_events: QueueStats,
    pub stream_input: QueueStats,
    pub events: EventQueueStats,
    pub transport: TransportStats,
    pub media: Vec<MediaThreadStats>,
    pub disk: DiskStats,
    /// Panics caught at the border of a lane.
    pub panics: u64,
}
