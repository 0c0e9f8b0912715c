//! The sending half of a stream: frames in, packets of the agreed length out, digits in between.

use crate::audio::codec::Encoder;
use crate::media::PayloadFormat;

use super::dtmf::{DtmfSender, Tick};
use super::outbox::{MAX_DATAGRAM, Outbox};
use super::packet::{HEADER_LEN, Header};
use super::rtcp::SenderInfo;
use super::session::Channel;
use super::srtp::{MAX_TAG, SrtpSender};

const FRAMES_PER_SECOND: u32 = 50;
/// Packet lengths the encoders take, ms; another `ptime` becomes the next shorter one.
const PACKET_MS: [u32; 4] = [60, 40, 20, 10];

/// Numbers packets and fills them.
#[derive(Debug)]
pub(super) struct Sending {
    encoder: Option<Encoder>,
    format: PayloadFormat,
    packet_ms: u32,
    samples: Vec<i16>, // not yet in a packet: less than one
    ssrc: u32,
    sequence: u16,
    timestamp: u32, // of the next frame
    marker: bool,   // the next audio packet begins a talkspurt (RFC 3551 §4.1)
    pub digits: DtmfSender,
    pub srtp: Option<SrtpSender>,
    pub packets: u64,
    pub octets: u64, // payload alone, for SR
    pub bytes: u64,
    loss: u32, // percent the peer reports, smoothed, in 1/16
}

impl Sending {
    /// `sequence` should be below 2^15, so that a lost first packet cannot hide a rollover (RFC 3711 §3.3.1).
    pub fn new(encoder: Option<Encoder>, format: PayloadFormat, ssrc: u32, sequence: u16, timestamp: u32) -> Self {
        Self {
            encoder,
            format,
            packet_ms: 20,
            samples: Vec::with_capacity(format.codec.sample_rate() as usize / 10),
            ssrc,
            sequence,
            timestamp,
            marker: true,
            digits: DtmfSender::default(),
            srtp: None,
            packets: 0,
            octets: 0,
            bytes: 0,
            loss: 0,
        }
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub fn format(&self) -> PayloadFormat {
        self.format
    }

    /// Another codec; numbers go on.
    pub fn set_format(&mut self, encoder: Option<Encoder>, format: PayloadFormat) {
        if format.codec != self.format.codec {
            self.encoder = encoder;
            self.samples = Vec::with_capacity(format.codec.sample_rate() as usize / 10);
            self.marker = true;
            self.loss = 0;
        }
        self.format = format;
    }

    /// The length of packets from now on.
    pub fn set_packet_ms(&mut self, ms: u32) {
        let ms = PACKET_MS.into_iter().find(|&known| known <= ms).unwrap_or(10);
        if ms != self.packet_ms {
            self.packet_ms = ms;
            self.samples.clear();
        }
    }

    /// What the peer lost of our packets, in 1/256.
    pub fn set_loss(&mut self, fraction: u8) {
        let before = self.loss / 16;
        self.loss = (self.loss * 3 + u32::from(fraction) * 100 / 256 * 16) / 4;
        if let Some(encoder) = self.encoder.as_mut().filter(|_| self.loss / 16 != before) {
            encoder.set_loss((self.loss / 16) as u8);
        }
    }

    /// Units of the RTP clock in a frame.
    fn frame_units(&self) -> u32 {
        self.format.codec.clock_rate() / FRAMES_PER_SECOND
    }

    /// Time goes on without sending.
    pub fn skip(&mut self) {
        self.samples.clear();
        self.marker = true;
        self.timestamp = self.timestamp.wrapping_add(self.frame_units());
    }

    /// Takes a frame; queues the packets it completes, or a telephone event in its place.
    pub fn push(&mut self, frame: &[i16], dtmf: Option<u8>, outbox: &mut Outbox) {
        let units = self.frame_units();
        let tick = if dtmf.is_some() { self.digits.tick(units) } else { Tick::Audio };
        match (tick, dtmf) {
            (Tick::Event { marker, back, payload }, Some(payload_type)) => {
                let timestamp = self.timestamp.wrapping_sub(back * units);
                let header = Header { marker, payload_type, timestamp, ..self.header() };
                self.send(header, outbox, |_, room| {
                    room.get_mut(..payload.len())?.copy_from_slice(&payload);
                    Some(payload.len())
                });
                self.skip();
            }
            (Tick::Event { .. } | Tick::Pause, _) => self.skip(),
            (Tick::Audio, _) => self.push_audio(frame, outbox),
        }
    }

    fn push_audio(&mut self, frame: &[i16], outbox: &mut Outbox) {
        let (rate, clock) = (self.format.codec.sample_rate(), self.format.codec.clock_rate());
        let packet = (rate * self.packet_ms / 1000) as usize;
        let frame_len = (rate / FRAMES_PER_SECOND) as usize;
        let units_of = |samples: usize| (samples as u64 * u64::from(clock) / u64::from(rate)) as u32;
        let start = self.timestamp.wrapping_sub(units_of(self.samples.len()));
        self.timestamp = self.timestamp.wrapping_add(self.frame_units());
        self.samples.extend(frame.iter().take(frame_len));
        let missing = frame_len.saturating_sub(frame.len());
        self.samples.extend(std::iter::repeat_n(0, missing)); // a short frame must not shift the clock
        let mut done = 0;
        while self.samples.len() - done >= packet {
            let header = Header { timestamp: start.wrapping_add(units_of(done)), ..self.header() };
            self.send(header, outbox, |sending, room| {
                let samples = sending.samples.get(done..done + packet)?;
                sending.encoder.as_mut()?.encode(samples, room).ok()
            });
            done += packet;
        }
        let left = self.samples.len() - done;
        self.samples.copy_within(done.., 0);
        self.samples.truncate(left);
    }

    fn header(&self) -> Header {
        Header {
            marker: self.marker,
            payload_type: self.format.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        }
    }

    /// Builds one packet in the queue; `fill` writes the payload and tells its length.
    fn send(&mut self, header: Header, outbox: &mut Outbox, fill: impl FnOnce(&mut Self, &mut [u8]) -> Option<usize>) {
        let mut payload_len = 0;
        let queued = outbox.push(Channel::Rtp, |buffer| {
            let (head, rest) = buffer.split_first_chunk_mut::<HEADER_LEN>()?;
            *head = header.to_bytes();
            let room = rest.get_mut(..MAX_DATAGRAM - HEADER_LEN - MAX_TAG)?;
            payload_len = fill(self, room).filter(|&len| len > 0)?;
            let len = HEADER_LEN + payload_len;
            match &mut self.srtp {
                Some(srtp) => srtp.protect(buffer, len).ok(),
                None => Some(len),
            }
        });
        if let Some(len) = queued {
            self.sequence = self.sequence.wrapping_add(1);
            self.marker = false;
            self.packets += 1;
            self.octets += payload_len as u64;
            self.bytes += len as u64;
        }
    }

    /// What an SR says; `units` is how far the clock has run since the last frame.
    pub fn info(&self, ntp: u64, units: u32) -> SenderInfo {
        let rtp = self.timestamp.wrapping_add(units);
        SenderInfo { ntp, rtp, packets: self.packets as u32, octets: self.octets as u32 }
    }
}
