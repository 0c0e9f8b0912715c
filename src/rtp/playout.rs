//! From packets to frames: takes what the jitter buffer gives, decodes it, and cuts it into the frames that are asked for.

use std::time::{Duration, Instant};

use super::jitter::{Adjustment, JitterBuffer, Next};
use super::stretch;

const HISTORY_MS: usize = 40; // played audio kept for growing: the longest lag and the overlap
const STAGED_MS: usize = 80; // a frame, one more for shortening, and what growing adds
const PACKET_MS: usize = 200; // 1500 bytes of G.711 are 187 ms

/// What a pulled frame is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Decoded from packets.
    Decoded,
    /// At least partly made up for a lost or late packet.
    Concealed,
    /// The stream has not begun, pauses or does not receive: silence.
    Silence,
}

/// The decoders of a stream; the output has one sample rate whatever the codec.
pub trait Decode {
    /// Decodes a payload; returns the samples written, `None` when it cannot be decoded.
    fn decode(&mut self, codec: u8, payload: &[u8], out: &mut [i16]) -> Option<usize>;
    /// Fills `out` in place of a missing packet; `next` is the one after it (codec, payload), for its redundancy.
    fn conceal(&mut self, next: Option<(u8, &[u8])>, out: &mut [i16]);
}

/// A jitter buffer with its samples in wait.
#[derive(Debug)]
pub struct Playout {
    pub buffer: JitterBuffer,
    clock_rate: usize,
    rate: usize,
    samples: Vec<i16>, // history before `begin`, decoded and not yet played up to `end`
    begin: usize,
    end: usize,
    concealed: u64, // samples
    stretched: u64,
}

impl Playout {
    /// For timestamps of `clock_rate` Hz and audio of `rate` Hz.
    pub fn new(clock_rate: u32, rate: u32, now: Instant) -> Self {
        let rate = rate as usize;
        Self {
            buffer: JitterBuffer::new(clock_rate, now),
            clock_rate: clock_rate.max(1) as usize,
            rate,
            samples: vec![0; Self::capacity(rate)],
            begin: 0,
            end: 0,
            concealed: 0,
            stretched: 0,
        }
    }

    fn capacity(rate: usize) -> usize {
        rate * (HISTORY_MS + STAGED_MS + PACKET_MS) / 1000
    }

    /// Forgets stream and audio in wait; timestamps and audio have other rates from now on. Allocates only for a higher
    /// audio rate than ever before.
    pub fn reset(&mut self, clock_rate: u32, rate: u32) {
        let (concealed, old) = (self.concealed as usize, self.rate.max(1));
        self.buffer.reset(clock_rate);
        (self.clock_rate, self.rate) = (clock_rate.max(1) as usize, rate as usize);
        self.concealed = (concealed * self.rate / old) as u64;
        self.samples.resize(Self::capacity(self.rate), 0);
        (self.begin, self.end) = (0, 0);
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate as u32
    }

    /// Audio in wait, decoded or not.
    pub fn buffered(&self) -> Duration {
        self.buffer.buffered() + self.duration((self.end - self.begin) as u64)
    }

    /// Audio made up since the start.
    pub fn concealed(&self) -> Duration {
        self.duration(self.concealed)
    }

    /// How often audio was made longer or shorter to follow the network.
    pub fn stretched(&self) -> u64 {
        self.stretched
    }

    /// Fills `out`, one frame of 20 ms.
    pub fn pull(&mut self, out: &mut [i16], decode: &mut impl Decode, now: Instant) -> Received {
        let frame = out.len();
        let adjustment = self.buffer.adjustment();
        let mut made_up = 0;
        let mut silent = false;
        while self.end - self.begin < frame && !silent {
            match self.fetch(false, decode, now) {
                Fetched::Decoded => {}
                Fetched::Concealed(samples) => made_up += samples,
                Fetched::Silence => silent = true,
            }
        }
        if made_up == 0 && !silent {
            self.adjust(adjustment, frame, decode, now);
        }
        self.concealed += made_up as u64;
        let ready = (self.end - self.begin).min(frame);
        if let (Some(head), Some(samples)) = (out.get_mut(..ready), self.samples.get(self.begin..self.begin + ready)) {
            head.copy_from_slice(samples);
        }
        out.iter_mut().skip(ready).for_each(|sample| *sample = 0);
        self.begin += ready;
        match (made_up, ready) {
            (0, 0) => Received::Silence,
            (0, _) => Received::Decoded,
            _ => Received::Concealed,
        }
    }

    fn adjust(&mut self, adjustment: Adjustment, frame: usize, decode: &mut impl Decode, now: Instant) {
        let moved = match adjustment {
            Adjustment::None => 0,
            Adjustment::Grow => {
                // Enough that the next tick needs no packet.
                self.make_room();
                let least = (2 * frame).saturating_sub(self.end - self.begin);
                let grown = stretch::grow(&mut self.samples, self.begin, self.end, least, self.rate);
                self.end += grown;
                grown
            }
            Adjustment::Shrink { urgent } => {
                while self.end - self.begin < 2 * frame && self.buffer.ready() {
                    self.fetch(true, decode, now);
                }
                let staged = self.end - self.begin;
                if staged < 2 * frame {
                    return;
                }
                // One frame, and the part of one that lies over from earlier seams.
                let most = frame + staged % frame;
                let gone = stretch::shrink(&mut self.samples, self.begin, self.end, most, self.rate, urgent);
                self.end -= gone;
                gone
            }
        };
        if moved > 0 {
            self.stretched += 1;
            self.buffer.adjusted(adjustment, now);
        }
    }

    fn fetch(&mut self, early: bool, decode: &mut impl Decode, now: Instant) -> Fetched {
        self.make_room();
        let (duration, next) = match self.buffer.next(early, now) {
            Next::Silence => return Fetched::Silence,
            Next::Packet(taken) => {
                let room = self.samples.get_mut(self.end..).unwrap_or_default();
                let decoded = decode.decode(taken.codec, self.buffer.payload(&taken), room);
                if let Some(samples) = decoded.filter(|&samples| samples > 0) {
                    self.end = (self.end + samples).min(self.samples.len());
                    return Fetched::Decoded;
                }
                (taken.duration, None)
            }
            Next::Missing { duration, fec } => (duration, if fec { self.buffer.following() } else { None }),
        };
        let samples = (duration as usize * self.rate / self.clock_rate).max(1);
        let room = self.samples.get_mut(self.end..).unwrap_or_default();
        let samples = samples.min(room.len());
        decode.conceal(next, room.get_mut(..samples).unwrap_or_default());
        self.end += samples;
        Fetched::Concealed(samples)
    }

    /// Keeps the history to its length, so that a packet's samples fit at the end.
    fn make_room(&mut self) {
        let surplus = self.begin.saturating_sub(self.rate * HISTORY_MS / 1000);
        if surplus > 0 {
            self.samples.copy_within(surplus..self.end, 0);
            self.begin -= surplus;
            self.end -= surplus;
        }
    }

    fn duration(&self, samples: u64) -> Duration {
        Duration::from_micros(samples * 1_000_000 / self.rate.max(1) as u64)
    }
}

enum Fetched {
    Decoded,
    Concealed(usize),
    Silence,
}

#[cfg(test)]
#[path = "playout_tests.rs"]
mod tests;
