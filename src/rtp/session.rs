//! One audio stream: what was negotiated, put to work (RFC 3550).
//!
//! The owner hands in datagrams ([`RtpSession::handle_packet`]), and every 20 ms takes a frame out
//! ([`RtpSession::pull_frame`]) and puts one in ([`RtpSession::push_frame`]); then it drains
//! [`RtpSession::poll_transmit`] and [`RtpSession::poll_event`]. Memory is taken when the stream starts, when it is
//! renegotiated, and when the peer first uses a codec; never per packet.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::dtmf::DtmfReceiver;
use super::jitter::{Arrival, Inserted};
use super::outbox::Outbox;
use super::packet::{Header, Packet, Protocol};
use super::playout::Playout;
pub use super::playout::Received;
use super::receiving::Decoders;
use super::rtcp::{self, Reception, Report};
use super::sending::Sending;
use super::source::{SourceLock, Verdict};
use super::srtp::{RTCP_OVERHEAD, SrtpReceiver, SrtpSender};
use crate::audio::MAX_FRAME;
use crate::audio::codec::{Encoder, payload_samples};
use crate::media::{AudioParams, CodecKind, MediaEvent, SrtpParams};

/// No valid packet for so long after the start is worth a word to the user.
pub const NO_AUDIO_AFTER: Duration = Duration::from_secs(5);

const RTCP_INTERVAL: Duration = Duration::from_secs(5); // RFC 3550 §6.2
/// Events waiting for the owner at most; further ones are lost. A second of digits at the highest rate, and others.
const MAX_EVENTS: usize = 32;
const MAX_TRACE: usize = 1 << 20; // 5.8 h of 20 ms packets

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
    /// Arrival minus RTP time, ms; 0 for the source's first packet.
    pub deviation_ms: f64,
    /// RFC 3550 jitter, ms.
    pub jitter_ms: f64,
    pub lost_before: u16,
}

/// A running RTP stream in both directions.
#[derive(Debug)]
pub struct RtpSession {
    params: AudioParams,
    cname: Box<str>,
    random: StdRng,
    start: Instant,
    sending: Sending,
    last_push: Option<Instant>,
    outbox: Outbox,
    lock: SourceLock,
    srtp: Option<SrtpReceiver>,
    playout: Playout,
    decoders: Decoders,
    codec: u8, // of the packets now coming: index into `params.receive`
    dtmf: DtmfReceiver,
    reception: Reception,
    rtcp_from: Option<SocketAddr>,
    rtcp_due: Instant,
    reported_packets: u64,
    silent_until: Option<Instant>, // when no packet at all becomes an event
    heard: bool,
    closed: bool,
    events: VecDeque<MediaEvent>,
    counts: Statistics, // what no part counts itself
    trace: Option<Trace>,
}

#[derive(Debug)]
struct Trace {
    ring: VecDeque<PacketTrace>,
    capacity: usize,
    first: Option<(u32, u32, f64)>, // SSRC, timestamp, ms
}

impl RtpSession {
    /// `ssrc`, first sequence number and timestamp come from `random`; `cname` goes into SDES.
    pub fn new(params: AudioParams, cname: &str, random: &mut StdRng, now: Instant) -> Self {
        let mut random = StdRng::from_rng(random);
        let mut events = VecDeque::with_capacity(MAX_EVENTS);
        let encoder = new_encoder(params.send.codec, &mut events);
        let first = random.random_range(0..0x8000);
        let mut sending = Sending::new(encoder, params.send, random.random(), first, random.random());
        sending.set_packet_ms(params.ptime_ms);
        sending.srtp = params.srtp.map(|srtp| SrtpSender::new(srtp.suite, &srtp.local));
        let (codec, incoming) = likely(&params);
        let rtcp_due = now + rtcp_interval(&mut random) / 2; // the first report sooner (§6.2)
        Self {
            sending,
            last_push: None,
            outbox: Outbox::new(),
            lock: SourceLock::new(params.remote_rtp, now),
            srtp: params.srtp.map(|srtp| SrtpReceiver::new(srtp.suite, &srtp.remote)),
            playout: Playout::new(incoming.clock_rate(), incoming.sample_rate(), now),
            decoders: Decoders::new(&params.receive, params.send.codec),
            codec,
            dtmf: DtmfReceiver::new(params.send.codec.clock_rate()),
            reception: Reception::default(),
            rtcp_from: None,
            rtcp_due,
            reported_packets: 0,
            silent_until: params.direction.receives().then_some(now + NO_AUDIO_AFTER),
            heard: false,
            closed: false,
            events,
            counts: Statistics::default(),
            trace: None,
            cname: cname.into(),
            random,
            start: now,
            params,
        }
    }

    /// A re-INVITE's result: address, codec, direction or keys changed. SSRC, sequence and timestamps go on.
    pub fn update(&mut self, params: AudioParams, now: Instant) {
        self.lock.update(params.remote_rtp, now);
        if params.remote_rtcp != self.params.remote_rtcp {
            self.rtcp_from = None;
        }
        if params.send != self.params.send {
            let other = params.send.codec != self.params.send.codec;
            let encoder = if other { new_encoder(params.send.codec, &mut self.events) } else { None };
            self.sending.set_format(encoder, params.send);
            self.dtmf = DtmfReceiver::new(params.send.codec.clock_rate());
        }
        self.sending.set_packet_ms(params.ptime_ms);
        if params.dtmf_send.is_none() {
            self.sending.digits.clear();
        }
        if params.receive != self.params.receive {
            self.decoders = Decoders::new(&params.receive, params.send.codec);
            let (codec, incoming) = likely(&params);
            self.codec = codec;
            self.playout.reset(incoming.clock_rate(), incoming.sample_rate());
        } else if !params.direction.receives() {
            self.playout.reset(self.incoming().clock_rate(), self.incoming().sample_rate());
        }
        if params.srtp != self.params.srtp {
            self.rekey(params.srtp);
        }
        if params.direction.receives() && !self.params.direction.receives() && !self.heard {
            self.silent_until = Some(now + NO_AUDIO_AFTER);
        } else if !params.direction.receives() {
            self.silent_until = None;
        }
        self.params = params;
    }

    fn rekey(&mut self, keys: Option<SrtpParams>) {
        match (keys, &mut self.sending.srtp) {
            (Some(keys), Some(srtp)) => srtp.rekey(keys.suite, &keys.local),
            (keys, srtp) => *srtp = keys.map(|keys| SrtpSender::new(keys.suite, &keys.local)),
        }
        match (keys, &mut self.srtp) {
            (Some(keys), Some(srtp)) => srtp.rekey(keys.suite, &keys.remote),
            (keys, srtp) => *srtp = keys.map(|keys| SrtpReceiver::new(keys.suite, &keys.remote)),
        }
    }

    /// What is in force.
    pub fn params(&self) -> &AudioParams {
        &self.params
    }

    /// Our SSRC.
    pub fn ssrc(&self) -> u32 {
        self.sending.ssrc()
    }

    /// Takes one datagram; decrypts in place.
    pub fn handle_packet(&mut self, channel: Channel, packet: &mut [u8], from: SocketAddr, now: Instant) {
        let done = match (Protocol::of(packet), channel) {
            (Some(Protocol::Rtp), Channel::Rtp) => self.handle_rtp(packet, from, now),
            (Some(Protocol::Rtcp), Channel::Rtcp) => self.handle_rtcp(packet, from, now),
            (Some(Protocol::Rtcp), Channel::Rtp) if self.params.rtcp_mux => self.handle_rtcp(packet, from, now),
            _ => None,
        };
        self.counts.discarded += u64::from(done.is_none());
    }

    /// `None` when the packet was discarded.
    fn handle_rtp(&mut self, packet: &mut [u8], from: SocketAddr, now: Instant) -> Option<()> {
        let wire_len = packet.len();
        let len = match &mut self.srtp {
            Some(srtp) => srtp.unprotect(packet).ok()?,
            None => packet.len(),
        };
        let Packet { header, payload } = Packet::parse(packet.get(..len)?).ok()?;
        let format = self.params.receive.iter().position(|format| format.payload_type == header.payload_type);
        let event = self.params.dtmf_receive == Some(header.payload_type);
        let known = format.is_some() || event;
        if !known && self.lock.locked() != Some(from) {
            return None; // no proof of a source
        }
        let authentic = self.srtp.is_some();
        match self.lock.judge(from, header.ssrc, header.sequence, authentic, now) {
            Verdict::Accept => {}
            Verdict::Locked => self.post(MediaEvent::Received { from }),
            Verdict::Drop => return None,
        }
        self.silent_until = None;
        self.heard = true;
        self.counts.packets_received += 1;
        self.counts.bytes_received += wire_len as u64;
        self.count(&header, format.is_some(), now);
        if !self.params.direction.receives() {
            return Some(());
        }
        let codec = format.and_then(|index| self.params.receive.get(index)).map(|format| format.codec);
        let samples = codec.and_then(|codec| payload_samples(codec, payload)).filter(|&samples| samples > 0);
        let audio = format.zip(codec).zip(samples);
        if let Some(((index, codec), _)) = audio {
            self.follow_codec(index as u8, codec);
        }
        let duration = audio.map_or(0, |((_, codec), samples)| {
            (samples as u64 * u64::from(codec.clock_rate()) / u64::from(codec.sample_rate())) as u32
        });
        let arrival = Arrival { header, payload, duration, codec: self.codec };
        match self.playout.buffer.insert(arrival, now) {
            Inserted::Kept | Inserted::Late => {}
            Inserted::Duplicate => self.counts.duplicates += 1,
            Inserted::Stray => return None,
        }
        if event && let Some(digit) = self.dtmf.handle(header.marker, header.timestamp, payload, now) {
            self.post(MediaEvent::Dtmf(digit));
        }
        (known && (event || duration > 0)).then_some(())
    }

    /// The peer may change among the agreed codecs without a word.
    fn follow_codec(&mut self, index: u8, codec: CodecKind) {
        if index == self.codec {
            return;
        }
        let before = self.incoming();
        self.codec = index;
        if (codec.clock_rate(), codec.sample_rate()) != (before.clock_rate(), before.sample_rate()) {
            self.playout.reset(codec.clock_rate(), codec.sample_rate());
        }
    }

    fn incoming(&self) -> CodecKind {
        self.params.receive.get(usize::from(self.codec)).map_or(self.params.send.codec, |format| format.codec)
    }

    fn count(&mut self, header: &Header, timed: bool, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start);
        let clock_rate = self.incoming().clock_rate();
        let counted = self.reception.count(header, clock_rate, timed, elapsed);
        let jitter_ms = f64::from(self.reception.jitter()) * 1000.0 / f64::from(clock_rate);
        let Some(trace) = self.trace.as_mut().filter(|_| timed) else { return };
        let ms = elapsed.as_secs_f64() * 1000.0;
        let first = trace.first.filter(|&(ssrc, ..)| ssrc == header.ssrc);
        let (_, timestamp, first_ms) = *trace.first.insert(first.unwrap_or((header.ssrc, header.timestamp, ms)));
        let media = f64::from(super::packet::timestamp_distance(header.timestamp, timestamp));
        let deviation_ms = ms - first_ms - media * 1000.0 / f64::from(clock_rate);
        if trace.ring.len() == trace.capacity {
            trace.ring.pop_front();
        }
        let lost_before = counted.lost_before;
        trace.ring.push_back(PacketTrace { at: ms / 1000.0, deviation_ms, jitter_ms, lost_before });
    }

    fn handle_rtcp(&mut self, packet: &mut [u8], from: SocketAddr, now: Instant) -> Option<()> {
        let len = match &mut self.srtp {
            Some(srtp) => srtp.unprotect_rtcp(packet).ok()?,
            None => packet.len(),
        };
        // Reports only from the source believed: the same address, or with a port of its own the same host.
        let believed = match self.lock.locked() {
            _ if self.srtp.is_some() => true,
            Some(locked) if self.params.rtcp_mux => locked == from,
            Some(locked) => locked.ip() == from.ip(),
            None => from == self.params.remote_rtcp,
        };
        if !believed {
            return None;
        }
        let compound = rtcp::Compound::parse(packet.get(..len)?).ok()?;
        self.rtcp_from = Some(from);
        let (elapsed, ssrc) = (now.saturating_duration_since(self.start), self.sending.ssrc());
        for packet in compound {
            let blocks = match packet {
                rtcp::Packet::SenderReport { ssrc, info, blocks } => {
                    if self.reception.ssrc() == Some(ssrc) {
                        self.reception.sender_report(&info, elapsed);
                    }
                    blocks
                }
                rtcp::Packet::ReceiverReport { blocks, .. } => blocks,
                _ => continue, // a BYE in particular: only signalling ends a stream
            };
            for block in blocks.filter(|block| block.ssrc == ssrc) {
                let clock_rate = self.sending.format().codec.clock_rate();
                self.counts.remote_lost = block.cumulative_lost.into();
                self.counts.remote_jitter_ms = f64::from(block.jitter) * 1000.0 / f64::from(clock_rate);
                let rtt = rtcp::round_trip(&block, rtcp::ntp_middle(rtcp::ntp(elapsed)));
                self.counts.rtt_ms = rtt.map(|rtt| rtt.as_secs_f64() * 1000.0).or(self.counts.rtt_ms);
                self.sending.set_loss(block.fraction_lost);
            }
        }
        Some(())
    }

    /// The sample rate of frames in both directions, Hz (the send codec's).
    pub fn sample_rate(&self) -> u32 {
        self.params.send.codec.sample_rate()
    }

    /// Fills one 20 ms frame of what the peer says (`sample_rate() / 50` samples).
    pub fn pull_frame(&mut self, out: &mut [i16], now: Instant) -> Received {
        let (from, to) = (self.playout.rate(), self.sample_rate());
        let mut room = [0; MAX_FRAME];
        let frame = room.get_mut(..from as usize / 50).unwrap_or_default();
        if !self.params.direction.receives() || out.len() != to as usize / 50 {
            out.fill(0);
            return Received::Silence;
        }
        if from == to {
            return self.playout.pull(out, &mut self.decoders, now);
        }
        let received = self.playout.pull(frame, &mut self.decoders, now);
        self.decoders.resample(frame, from, out, to);
        received
    }

    /// Takes one 20 ms frame to send; encodes and packs it (or a telephone event in its place) for `poll_transmit`.
    pub fn push_frame(&mut self, frame: &[i16], now: Instant) {
        self.last_push = Some(now);
        // 0.0.0.0 is the old way to say hold (RFC 3264 §8.4).
        if self.closed || !self.params.direction.sends() || self.rtp_address().ip().is_unspecified() {
            self.sending.skip();
        } else {
            self.sending.push(frame, self.params.dtmf_send, &mut self.outbox);
        }
    }

    /// Queues a digit (RFC 4733), 100 ms long with 60 ms pause after it. False when it cannot be sent: no digit, no
    /// telephone events agreed, or [`super::dtmf::MAX_QUEUED`] are waiting.
    pub fn send_dtmf(&mut self, digit: char) -> bool {
        self.params.dtmf_send.is_some() && self.sending.digits.push(digit)
    }

    /// RTCP reports and the 5 s without audio. Early or repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.silent_until.is_some_and(|at| at <= now) {
            self.silent_until = None;
            self.post(MediaEvent::NoAudio);
        }
        if self.rtcp_due <= now && !self.closed {
            self.report(false, now);
            self.rtcp_due = now + rtcp_interval(&mut self.random);
        }
    }

    /// When to call [`Self::handle_timeout`] at the latest; `None` once closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rtcp = Some(self.rtcp_due).filter(|_| !self.closed);
        rtcp.into_iter().chain(self.silent_until).min()
    }

    fn report(&mut self, bye: bool, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start);
        let since = self.last_push.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let clock_rate = u64::from(self.sending.format().codec.clock_rate());
        let units = (since.as_micros() as u64).saturating_mul(clock_rate) / 1_000_000;
        let sent = self.sending.packets > self.reported_packets;
        self.reported_packets = self.sending.packets;
        let report = Report {
            ssrc: self.sending.ssrc(),
            sender: sent.then(|| self.sending.info(rtcp::ntp(elapsed), units as u32)),
            block: self.reception.report(elapsed),
            cname: &self.cname,
            bye,
        };
        let srtp = &mut self.sending.srtp;
        self.outbox.push(Channel::Rtcp, |buffer| {
            let room = buffer.len() - RTCP_OVERHEAD;
            let len = rtcp::write(&report, buffer.get_mut(..room)?)?;
            match srtp {
                Some(srtp) => srtp.protect_rtcp(buffer, len).ok(),
                None => Some(len),
            }
        });
    }

    fn rtp_address(&self) -> SocketAddr {
        self.lock.locked().filter(|_| self.params.symmetric).unwrap_or(self.params.remote_rtp)
    }

    fn rtcp_address(&self) -> SocketAddr {
        if self.params.rtcp_mux {
            return self.rtp_address();
        }
        self.rtcp_from.filter(|_| self.params.symmetric).unwrap_or(self.params.remote_rtcp)
    }

    /// The next datagram to send and where; borrowed from an inner buffer. The channel is the socket to send it from.
    pub fn poll_transmit(&mut self) -> Option<(Channel, SocketAddr, &[u8])> {
        let (rtp, rtcp, mux) = (self.rtp_address(), self.rtcp_address(), self.params.rtcp_mux);
        let (channel, bytes) = self.outbox.pop()?;
        Some(match channel {
            Channel::Rtp => (Channel::Rtp, rtp, bytes),
            Channel::Rtcp if mux => (Channel::Rtp, rtcp, bytes),
            Channel::Rtcp => (Channel::Rtcp, rtcp, bytes),
        })
    }

    fn post(&mut self, event: MediaEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    /// What happened, oldest first; `None` when drained.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.pop_front()
    }

    /// The counts so far.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            packets_sent: self.sending.packets,
            bytes_sent: self.sending.bytes,
            lost: self.reception.lost(),
            late: self.playout.buffer.late(),
            concealed_ms: self.playout.concealed().as_millis() as u64,
            jitter_ms: f64::from(self.reception.jitter()) * 1000.0 / f64::from(self.incoming().clock_rate()),
            buffered_ms: self.playout.buffered().as_secs_f64() * 1000.0,
            ..self.counts
        }
    }

    /// The RTCP BYE to send last (RFC 3550 §6.6), for `poll_transmit`. Nothing is sent after it.
    pub fn close(&mut self, now: Instant) {
        if !self.closed {
            self.closed = true;
            self.silent_until = None;
            self.report(true, now);
        }
    }

    /// Keeps the last `capacity` packets for plots; 0 stops it.
    pub fn trace(&mut self, capacity: usize) {
        let capacity = capacity.min(MAX_TRACE);
        let ring = VecDeque::with_capacity(capacity);
        self.trace = (capacity > 0).then_some(Trace { ring, capacity, first: None });
    }

    /// What was traced since the last call, oldest first.
    pub fn take_trace(&mut self) -> Vec<PacketTrace> {
        self.trace.as_mut().map(|trace| trace.ring.drain(..).collect()).unwrap_or_default()
    }
}

/// 5 s times 0.5 to 1.5, divided by e - 1.5 (RFC 3550 §6.3.1).
fn rtcp_interval(random: &mut StdRng) -> Duration {
    RTCP_INTERVAL.mul_f64(random.random_range(0.5..1.5) / 1.21828)
}

/// The format the peer will most likely send: the codec we send, else the first.
fn likely(params: &AudioParams) -> (u8, CodecKind) {
    let same = params.receive.iter().position(|format| format.codec == params.send.codec).unwrap_or(0);
    (same as u8, params.receive.get(same).map_or(params.send.codec, |format| format.codec))
}

/// Failing is worth an event; the stream then goes on receiving.
fn new_encoder(codec: CodecKind, events: &mut VecDeque<MediaEvent>) -> Option<Encoder> {
    Encoder::new(codec).map_err(|error| events.push_back(MediaEvent::Failed(error.to_string()))).ok()
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
