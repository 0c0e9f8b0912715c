//! One audio stream: what was negotiated, put to work (RFC 3550).

use std::net::SocketAddr;
use std::time::Instant;

pub use super::playout::Received;
use crate::media::{AudioParams, MediaEvent};

/// RTP or RTCP (on its own port unless RTCP is multiplexed, RFC 5761).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Rtp,
    Rtcp,
}

/// Both directions of a stream. Durations in ms, levels as counts of packets; all since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    pub packets_sent: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub bytes_received: u64,
    pub lost: i64,
    pub late: u64,
    pub duplicates: u64,
    /// Wrong source, wrong payload type, failed authentication, replay, malformed.
    pub discarded: u64,
    pub concealed_ms: u64,
    pub jitter_ms: f64,
    /// From the peer's reports.
    pub remote_lost: i64,
    pub remote_jitter_ms: f64,
    pub rtt_ms: Option<f64>,
    /// Audio waiting in the jitter buffer now.
    pub buffered_ms: f64,
}

/// One received packet for jitter plots, kept in a bounded ring when tracing is on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacketTrace {
    /// Seconds since the stream began.
    pub at: f64,
    /// Arrival minus RTP time, ms.
    pub deviation_ms: f64,
    /// RFC 3550 jitter, ms.
    pub jitter_ms: f64,
    pub lost_before: u16,
}

/// A running RTP stream in both directions.
#[derive(Debug)]
pub struct RtpSession {}

#[allow(unused_variables)]
impl RtpSession {
    /// `ssrc`, first sequence number and timestamp come from `random`; `cname` goes into SDES.
    pub fn new(params: AudioParams, cname: &str, random: &mut rand::rngs::StdRng, now: Instant) -> Self {
        todo!()
    }
    /// A re-INVITE's result: address, codec, direction or keys changed.
    pub fn update(&mut self, params: AudioParams, now: Instant) {
        todo!()
    }
    pub fn params(&self) -> &AudioParams {
        todo!()
    }
    /// Takes one datagram; decrypts in place.
    pub fn handle_packet(&mut self, channel: Channel, packet: &mut [u8], from: SocketAddr, now: Instant) {
        todo!()
    }
    /// The sample rate of frames in both directions, Hz (the send codec's).
    pub fn sample_rate(&self) -> u32 {
        todo!()
    }
    /// Fills one 20 ms frame of what the peer says (`sample_rate() / 50` samples).
    pub fn pull_frame(&mut self, out: &mut [i16], now: Instant) -> Received {
        todo!()
    }
    /// Takes one 20 ms frame to send; encodes and packs it (or a telephone event in its place) for `poll_transmit`.
    pub fn push_frame(&mut self, frame: &[i16], now: Instant) {
        todo!()
    }
    /// Queues a digit (RFC 4733), 100 ms long with 60 ms pause after it by default.
    pub fn send_dtmf(&mut self, digit: char) {
        todo!()
    }
    /// RTCP reports, the 5 s without audio, timers of the source lock.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// The next datagram to send and where; borrowed from an inner buffer.
    pub fn poll_transmit(&mut self) -> Option<(Channel, SocketAddr, &[u8])> {
        todo!()
    }
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        todo!()
    }
    pub fn statistics(&self) -> Statistics {
        todo!()
    }
    /// The RTCP BYE to send last (RFC 3550 §6.6), for `poll_transmit`.
    pub fn close(&mut self, now: Instant) {
        todo!()
    }
    /// Keeps the last `capacity` packets for plots.
    pub fn trace(&mut self, capacity: usize) {
        todo!()
    }
    pub fn take_trace(&mut self) -> Vec<PacketTrace> {
        todo!()
    }
}
