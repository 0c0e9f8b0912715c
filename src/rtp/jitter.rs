//! The jitter buffer: orders packets, chooses how long they wait, says what is missing. Its clock is injected.
//!
//! **Delay.** Each packet's *transit* is its arrival minus its media time; the smallest of the last seconds is the base.
//! A histogram of transits over the base, forgetting slowly, yields the delay that 99.5 % of the packets keep within:
//! the *target*. Audio leaves in ticks of 20 ms, so the wait a packet really gets is the target rounded up to the next
//! tick: on a clean line the average is half a tick more than 3 ms. A schedule that comes too close to the target's edge
//! grows by a tick, one with a tick to spare shrinks ([`Adjustment`]); both are done on the samples (see
//! [`super::stretch`]), so nothing is lost or made up. A pause of the sender moves the schedule for free.
//!
//! **Time.** Media time is the RTP timestamp unwrapped to 64 bits. A jump of the timestamps, a new SSRC or a restarted
//! sequence is spliced on where the clock says it belongs, so that old packets still play out and the measurements stay.

use std::time::{Duration, Instant};

use super::packet::{Header, MAX_PAYLOAD, sequence_distance, timestamp_distance};

/// Packets held at most: 1.28 s of 20 ms packets, well beyond the longest delay.
pub const MAX_PACKETS: usize = 64;

const FIRST_BLOCKS: usize = 8; // 12 kB; only a line with a lot of jitter needs more, doubled three times at most
const MAX_PACKETS_I64: i64 = MAX_PACKETS as i64;
const TICK: i64 = 20_000; // µs; what is pulled at once
const MARGIN: i64 = 2_000; // over the measured transit: late ticks, rounding
const FIRST_TARGET: i64 = 10_000; // until enough packets are measured
const FIRST_PACKETS: u32 = 25; // "enough": half a second
const MAX_TARGET: i64 = 300_000; // a longer wait makes talking impossible; later packets count as lost
const QUANTILE_TAIL: f32 = 0.005; // part of the packets allowed to come later than the target
const PEAK_RISE: i64 = 15_000; // a lone late packet moves the target by this much at most
const BIN: i64 = 1_000; // µs per histogram bin
const BINS: usize = 320; // up to MAX_TARGET and a little more
const MEMORY: u32 = 1_000; // packets until the histogram has forgotten (1/e): 20 s
const BURST: i64 = 2_000; // packets so close were held up together: one delay, told by the first
const BASE_SPAN: i64 = 2_000_000; // window of the smallest transit: follows a drifting clock within 0.4 ms at 100 ppm
const PEAK_SPAN: i64 = 5_000_000;
const SHRINK_SPARE: i64 = 2_000; // beyond a whole tick to spare before the schedule shrinks
const SHRINK_AFTER: u32 = 50; // fetches measured before shrinking: 1 s
const SHRINK_AFTER_GROWTH: u32 = 500; // 10 s, so that the schedule does not swing to and fro
const SHRINK_FAST: i64 = 60_000; // so much to spare shrinks without such patience
const GROW_AFTER: u32 = 5;
const PAUSE_AFTER: i64 = 200_000; // nothing came for so long: concealment ends, silence begins
const JUMP: i64 = 1_000_000; // a transit so far from the base is a jump of the sender's clock
const SPLICE: i64 = 60_000; // a jump that lands so near the expected place continues there exactly
const SLACK: i64 = 10_000; // timestamps off by less are played as they come
const MAX_DROPOUT: i16 = 3000; // RFC 3550 §A.1
const MAX_MISORDER: i16 = 100;
const OLD_SSRC: i64 = 1_000_000; // stragglers of the SSRC before are dropped for so long after a change

/// What became of an inserted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    Kept,
    /// Its turn is over.
    Late,
    Duplicate,
    /// A sequence number out of nowhere (RFC 3550 §A.1) or a straggler of an older SSRC: not believed.
    Stray,
}

/// How the schedule should move, to be done on the decoded samples and confirmed by [`JitterBuffer::adjusted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjustment {
    None,
    /// Repeat about 20 ms; packets will then have a tick more to arrive.
    Grow,
    /// Leave out about 20 ms. `urgent`: even where it can be heard.
    Shrink {
        urgent: bool,
    },
}

/// What to play next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Decode this packet; its bytes are [`JitterBuffer::payload`] until the next insertion.
    Packet(Taken),
    /// Make up for so many RTP clock units, 20 ms at most. `fec`: they are one packet and the one right after it is here,
    /// see [`JitterBuffer::following`].
    Missing { duration: u32, fec: bool },
    /// Nothing to play for the rest of this tick: not begun, or the sender pauses.
    Silence,
}

/// A packet that left the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What [`JitterBuffer::insert`] was given: tells the codec.
    pub codec: u8,
    /// RTP clock units of audio.
    pub duration: u32,
    block: u8,
    len: u16,
}

/// An incoming packet's part that matters here.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub header: Header,
    pub payload: &'a [u8],
    /// Audio in it, RTP clock units; 0 for what only fills its place in the sequence (telephone events).
    pub duration: u32,
    /// Comes back in [`Taken`].
    pub codec: u8,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    sequence: i64,
    media: i64, // unwrapped timestamp
    taken: Taken,
}

/// The smallest value of a sliding window, kept as the minima of two halves.
#[derive(Clone, Copy, Debug)]
struct WindowMin {
    span: i64,
    since: i64,
    current: i64,
    previous: i64,
}

impl WindowMin {
    fn new(span: i64) -> Self {
        Self { span, since: 0, current: i64::MAX, previous: i64::MAX }
    }

    fn add(&mut self, value: i64, now: i64) {
        let age = now - self.since;
        if age >= self.span {
            self.previous = if age < 2 * self.span { self.current } else { i64::MAX };
            self.current = i64::MAX;
            self.since = now;
        }
        self.current = self.current.min(value);
    }

    fn get(&self) -> Option<i64> {
        Some(self.current.min(self.previous)).filter(|&value| value < i64::MAX)
    }

    fn clear(&mut self, now: i64) {
        *self = Self { since: now, ..Self::new(self.span) };
    }
}

/// How late packets come: the base, the histogram over it and the target they give. All µs.
#[derive(Debug)]
struct Transit {
    base: WindowMin,
    peak: WindowMin, // of negated transits: the largest
    bins: [f32; BINS],
    origin: i64, // transit of the first bin's edge
    packets: u32,
    latest: i64,  // the packet before came then
    transit: i64, // and took so long
    late: i64,    // 99.5 % of the packets are not later than this over the base
}

impl Transit {
    fn new() -> Self {
        let (base, peak) = (WindowMin::new(BASE_SPAN), WindowMin::new(PEAK_SPAN));
        Self { base, peak, bins: [0.0; BINS], origin: 0, packets: 0, latest: 0, transit: 0, late: 0 }
    }

    fn base(&self) -> i64 {
        self.base.get().unwrap_or(0)
    }

    fn add(&mut self, transit: i64, now: i64) {
        self.base.add(transit, now);
        let queued = now - self.latest < BURST && self.packets > 0;
        self.latest = now;
        if queued && transit <= self.transit {
            self.transit = transit;
            return;
        }
        self.transit = transit;
        self.peak.add(-transit, now);
        let base = self.base();
        if self.packets == 0 {
            self.origin = base;
        }
        self.rebase(base);
        self.packets = self.packets.saturating_add(1);
        let weight = 1.0 / self.packets.min(MEMORY) as f32;
        self.bins.iter_mut().for_each(|bin| *bin *= 1.0 - weight);
        let bin = ((transit - self.origin).max(0) / BIN).min(BINS as i64 - 1) as usize;
        self.bins[bin] += weight;
        let over = transit - base;
        if self.packets.is_multiple_of(8) || self.packets < FIRST_PACKETS || over > self.late {
            self.late = self.quantile();
        }
    }

    /// Moves the histogram along with the base, whole bins at a time.
    fn rebase(&mut self, base: i64) {
        let shift = (base - self.origin) / BIN;
        let bins = shift.unsigned_abs().min(BINS as u64) as usize;
        if shift > 0 {
            let below: f32 = self.bins[..bins].iter().sum();
            self.bins.copy_within(bins.., 0);
            self.bins[BINS - bins..].fill(0.0);
            self.bins[0] += below;
        } else if shift < 0 {
            let above: f32 = self.bins[BINS - bins..].iter().sum();
            self.bins.copy_within(..BINS - bins, bins);
            self.bins[..bins].fill(0.0);
            self.bins[0] += above; // later than any wait could cover: they say nothing
        }
        self.origin += shift * BIN;
    }

    fn quantile(&self) -> i64 {
        let mut tail = 0.0;
        let bin = self.bins.iter().rposition(|weight| {
            tail += weight;
            tail > QUANTILE_TAIL
        });
        bin.map_or(0, |bin| (bin as i64 + 1) * BIN)
    }

    /// The least wait over the base that keeps nearly all packets in time, without margin.
    fn need(&self) -> i64 {
        let peak = self.peak.get().map_or(0, |negated| -negated - self.base());
        let need = self.late.max(peak.min(self.late + PEAK_RISE));
        if self.packets < FIRST_PACKETS { need.max(FIRST_TARGET - MARGIN) } else { need }.min(MAX_TARGET - MARGIN)
    }

    fn target(&self) -> i64 {
        self.need() + MARGIN
    }
}

/// Where the incoming stream stands, for unwrapping its numbers.
#[derive(Clone, Copy, Debug)]
struct Stream {
    header: Header, // of the newest packet
    sequence: i64,  // unwrapped
    media: i64,
    duration: u32,
    stray: Option<u16>,         // the number that would prove a jump of the sequence
    former: Option<(u32, i64)>, // the SSRC before and when it ended
}

/// Packets of one source waiting for their turn.
#[derive(Debug)]
pub struct JitterBuffer {
    clock_rate: i64,
    start: Instant,
    slots: [Option<Slot>; MAX_PACKETS], // by sequence number
    payloads: Vec<u8>, // blocks of MAX_PAYLOAD: as many as ever waited at once, the same few again and again
    free: [u8; MAX_PACKETS],
    free_len: usize,
    stream: Option<Stream>,
    transit: Transit,
    /// The next sequence number to play; those before are over.
    head: i64,
    /// Bit n: `head - 1 - n` was received.
    played: u64,
    playing: bool,
    quiet: bool, // the packet last taken held no audio
    begun: bool, // this stream has played
    /// Media time to play next, and how much was made up while holding there.
    position: i64,
    held: i64,
    last: u32,         // duration of the packet last played
    margin: WindowMin, // wait over the base that fetches had, µs
    fetches: u32,      // since the schedule last moved
    grown: bool,       // when it last moved it grew
    late: u64,
}

impl JitterBuffer {
    /// An empty buffer for timestamps of `clock_rate` Hz.
    pub fn new(clock_rate: u32, now: Instant) -> Self {
        Self {
            clock_rate: clock_rate.max(1).into(),
            start: now,
            slots: [None; MAX_PACKETS],
            payloads: vec![0; FIRST_BLOCKS * MAX_PAYLOAD],
            free: std::array::from_fn(|n| (MAX_PACKETS - 1 - n) as u8),
            free_len: MAX_PACKETS,
            stream: None,
            transit: Transit::new(),
            head: 0,
            played: 0,
            playing: false,
            begun: false,
            position: 0,
            held: 0,
            quiet: false,
            last: 0,
            margin: WindowMin::new(BASE_SPAN),
            fetches: 0,
            grown: false,
            late: 0,
        }
    }

    /// Forgets the stream and takes timestamps of another clock.
    pub fn reset(&mut self, clock_rate: u32) {
        self.drop_before(i64::MAX);
        self.clock_rate = clock_rate.max(1).into();
        (self.stream, self.transit) = (None, Transit::new());
        (self.playing, self.begun, self.held, self.played) = (false, false, 0, 0);
    }

    /// Packets thrown away because a later one was played in their stead.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// The wait aimed at: from a packet's earliest arrival to its playing.
    pub fn target(&self) -> Duration {
        Duration::from_micros(self.transit.target().unsigned_abs())
    }

    /// Audio waiting here.
    pub fn buffered(&self) -> Duration {
        let units = self.slots.iter().flatten().map(|slot| u64::from(slot.taken.duration)).sum::<u64>();
        Duration::from_micros(units * 1_000_000 / self.clock_rate.unsigned_abs())
    }

    /// Takes a packet that has just come.
    pub fn insert(&mut self, arrival: Arrival<'_>, now: Instant) -> Inserted {
        let at = self.micros_of(now);
        let Some((sequence, media)) = self.unwrap_numbers(&arrival, at) else { return Inserted::Stray };
        if sequence < self.head && !self.begun {
            self.head = sequence; // overtaken by the packet that came first
        }
        if sequence < self.head {
            let behind = self.head - 1 - sequence;
            if behind < 64 && self.played >> behind & 1 == 1 {
                return Inserted::Duplicate;
            }
            self.measure(&arrival, media, at);
            self.late += 1;
            return Inserted::Late;
        }
        let place = Self::place(sequence);
        if self.slots[place].is_some_and(|slot| slot.sequence == sequence) {
            return Inserted::Duplicate;
        }
        self.measure(&arrival, media, at);
        if sequence >= self.head + MAX_PACKETS_I64 {
            self.drop_before(sequence + 1 - MAX_PACKETS_I64); // nobody pulls, or a great loss
        }
        let Some(&block) = self.free.get(self.free_len.wrapping_sub(1)) else { return Inserted::Late };
        self.free_len -= 1;
        let len = arrival.payload.len().min(MAX_PAYLOAD);
        let offset = usize::from(block) * MAX_PAYLOAD;
        if self.payloads.len() < offset + MAX_PAYLOAD {
            self.payloads.resize((2 * self.payloads.len()).max(offset + MAX_PAYLOAD), 0);
        }
        self.payloads[offset..offset + len].copy_from_slice(&arrival.payload[..len]);
        let taken = Taken { codec: arrival.codec, duration: arrival.duration, block, len: len as u16 };
        self.slots[place] = Some(Slot { sequence, media, taken });
        Inserted::Kept
    }

    /// Whether the schedule should move at this tick. Nothing to do before audio plays.
    pub fn adjustment(&self) -> Adjustment {
        let (Some(margin), true) = (self.margin.get(), self.playing) else { return Adjustment::None };
        let (need, target) = (self.transit.need(), self.transit.target());
        if margin < need + MARGIN / 2 && self.fetches >= GROW_AFTER {
            return Adjustment::Grow;
        }
        let spare = margin - target - TICK;
        let patience = if self.grown { SHRINK_AFTER_GROWTH } else { SHRINK_AFTER };
        let urgent = spare >= SHRINK_FAST;
        let measured = if urgent { GROW_AFTER } else { patience };
        if spare >= SHRINK_SPARE && self.fetches >= measured {
            // After some seconds without a good place, an audible one has to do.
            return Adjustment::Shrink { urgent: urgent || self.fetches >= measured + 250 };
        }
        Adjustment::None
    }

    /// The samples were stretched or shortened as [`Self::adjustment`] asked.
    pub fn adjusted(&mut self, adjustment: Adjustment, now: Instant) {
        self.moved(self.micros_of(now));
        self.grown = adjustment == Adjustment::Grow;
    }

    /// Whether the very next packet is here and its turn is next: taking it cannot yield a gap.
    pub fn ready(&self) -> bool {
        let slot = self.slots[Self::place(self.head)].filter(|slot| slot.sequence == self.head);
        let near = |slot: Slot| self.micros((slot.media - self.position).abs()) <= SLACK && slot.taken.duration > 0;
        self.playing && self.held == 0 && slot.is_some_and(near)
    }

    /// What comes next at the tick at `now`. Called until the tick has its samples; `early` when it has enough of them and
    /// more are wanted for shortening.
    pub fn next(&mut self, early: bool, now: Instant) -> Next {
        let at = self.micros_of(now);
        loop {
            let Some(slot) = self.first() else {
                let hold = self.playing && !self.quiet && self.micros(self.held) < PAUSE_AFTER;
                return if hold { self.missing(false) } else { self.pause() };
            };
            if slot.taken.duration == 0 {
                self.remove(slot); // a telephone event or comfort noise: the audio pauses, none is lost
                self.quiet = true;
                continue;
            }
            if !self.playing {
                if !self.may_begin(&slot, at) {
                    return Next::Silence;
                }
                (self.playing, self.begun) = (true, true);
                (self.position, self.held) = (slot.media, 0);
                self.moved(at);
            }
            let overdue = at - self.micros(slot.media) - self.transit.base() > MAX_TARGET + TICK;
            if overdue && self.slots.iter().flatten().any(|other| other.media > slot.media) {
                self.remove(slot); // a burst after an outage: catch up at once
                (self.position, self.held) = (slot.media + i64::from(slot.taken.duration), 0);
                self.late += 1;
                continue;
            }
            let due = self.position + self.held;
            let ahead = self.micros(slot.media - due);
            if ahead > SLACK {
                if slot.sequence == self.head || ahead > JUMP {
                    self.playing = false; // the sender pauses: begin anew, at the best moment
                    continue;
                }
                return self.missing(slot.sequence == self.head + 1);
            }
            if ahead < -SLACK && self.held > 0 {
                // It came at last. Playing it costs delay; worth it if the schedule is too tight or nothing else is here.
                let margin = at - self.micros(due) - self.transit.base();
                let tight = margin < self.transit.need() + MARGIN / 2;
                if !tight && self.slots.iter().flatten().any(|other| other.media >= due && other.taken.duration > 0) {
                    self.remove(slot);
                    self.late += 1;
                    continue;
                }
                self.moved(at);
                self.grown = true;
            }
            self.remove(slot);
            (self.position, self.held) = (slot.media + i64::from(slot.taken.duration), 0);
            (self.last, self.quiet) = (slot.taken.duration, false);
            if !early {
                self.margin.add(at - self.micros(slot.media) - self.transit.base(), at);
                self.fetches += 1;
            }
            return Next::Packet(slot.taken);
        }
    }

    /// The bytes of a packet just taken.
    pub fn payload(&self, taken: &Taken) -> &[u8] {
        let offset = usize::from(taken.block) * MAX_PAYLOAD;
        &self.payloads[offset..offset + usize::from(taken.len)]
    }

    /// The packet that comes after a missing one, if it is here: codec and payload.
    pub fn following(&self) -> Option<(u8, &[u8])> {
        let slot = self.first()?;
        Some((slot.taken.codec, self.payload(&slot.taken)))
    }

    /// Begins when the packets that fill the first tick will have had the target's time to arrive.
    fn may_begin(&mut self, slot: &Slot, at: i64) -> bool {
        let shorter = (TICK - self.micros(slot.taken.duration.into())).max(0);
        let wait = at - self.micros(slot.media) - shorter - self.transit.base();
        wait >= self.transit.target() || self.buffered() >= Duration::from_micros(MAX_TARGET as u64)
    }

    fn missing(&mut self, fec: bool) -> Next {
        let tick = TICK * self.clock_rate / 1_000_000;
        let last = i64::from(self.last);
        let duration = if last > 0 { last.min(tick) } else { tick };
        self.held += duration;
        Next::Missing { duration: duration as u32, fec: fec && last > 0 && last <= tick }
    }

    fn pause(&mut self) -> Next {
        self.playing = false;
        Next::Silence
    }

    /// The schedule moved: what was measured about it is void.
    fn moved(&mut self, at: i64) {
        self.margin.clear(at);
        (self.fetches, self.grown) = (0, false);
    }

    fn first(&self) -> Option<Slot> {
        let in_order = (0..MAX_PACKETS_I64).map(|n| self.slots[Self::place(self.head + n)]);
        in_order.flatten().next()
    }

    fn remove(&mut self, slot: Slot) {
        self.drop_before(slot.sequence);
        self.release(Self::place(slot.sequence));
        self.advance(slot.sequence + 1, true);
    }

    /// Gives up everything before `sequence`.
    fn drop_before(&mut self, sequence: i64) {
        for place in 0..MAX_PACKETS {
            if self.slots[place].is_some_and(|slot| slot.sequence < sequence) {
                self.release(place);
                self.late += u64::from(self.playing && sequence < i64::MAX);
            }
        }
        if sequence < i64::MAX && sequence > self.head {
            self.advance(sequence, false);
        }
    }

    fn advance(&mut self, head: i64, received: bool) {
        let steps = (head - self.head).clamp(0, 64) as u32;
        self.played = self.played.checked_shl(steps).unwrap_or(0) | u64::from(received);
        self.head = head;
    }

    fn release(&mut self, place: usize) {
        if let Some(slot) = self.slots[place].take() {
            self.free[self.free_len] = slot.taken.block;
            self.free_len += 1;
        }
    }

    fn place(sequence: i64) -> usize {
        sequence.rem_euclid(MAX_PACKETS_I64) as usize
    }

    fn measure(&mut self, arrival: &Arrival<'_>, media: i64, at: i64) {
        if arrival.duration > 0 {
            self.transit.add(at - self.micros(media), at);
        }
    }

    /// Unwraps sequence number and timestamp; `None` for a packet not to be believed.
    fn unwrap_numbers(&mut self, arrival: &Arrival<'_>, at: i64) -> Option<(i64, i64)> {
        let header = arrival.header;
        let Some(mut stream) = self.stream else {
            let media = self.units(at); // the transit of the first packet is 0
            let first = Stream { header, sequence: 0, media, duration: arrival.duration, stray: None, former: None };
            self.stream = Some(first);
            (self.head, self.played) = (0, 0);
            return Some((0, media));
        };
        let steps = sequence_distance(header.sequence, stream.header.sequence);
        let same = header.ssrc == stream.header.ssrc;
        if !same && stream.former.is_some_and(|(ssrc, until)| ssrc == header.ssrc && at < until) {
            return None;
        }
        if same && !(-MAX_MISORDER..=MAX_DROPOUT).contains(&steps) && stream.stray != Some(header.sequence) {
            stream.stray = Some(header.sequence.wrapping_add(1));
            self.stream = Some(stream);
            return None;
        }
        let restarted = !same || !(-MAX_MISORDER..=MAX_DROPOUT).contains(&steps);
        let sequence = stream.sequence + if restarted { 1 } else { i64::from(steps) };
        let mut media = stream.media + i64::from(timestamp_distance(header.timestamp, stream.header.timestamp));
        let off = at - self.micros(media) - self.transit.base();
        let expected = stream.media + i64::from(stream.duration);
        if arrival.duration == 0 {
            media = if restarted { expected } else { stream.media }; // an event's timestamp says nothing of its sending
        } else if restarted || (steps > 0 && off.abs() > JUMP) {
            let now = self.units(at - self.transit.base());
            media = if self.micros((now - expected).abs()) <= SPLICE { expected } else { now.max(expected) };
        } else if off.abs() > 2 * JUMP {
            return None; // out of order and out of time
        }
        if !same {
            stream.former = Some((stream.header.ssrc, at + OLD_SSRC));
        }
        if restarted || steps > 0 {
            let audio = arrival.duration > 0;
            let timestamp = if audio { header.timestamp } else { stream.header.timestamp };
            let duration = if audio { arrival.duration } else { stream.duration };
            let header = Header { timestamp, ..header };
            stream = Stream { header, sequence, media, duration, stray: None, ..stream };
        }
        self.stream = Some(stream);
        Some((sequence, media))
    }

    fn micros_of(&self, now: Instant) -> i64 {
        now.saturating_duration_since(self.start).as_micros().try_into().unwrap_or(i64::MAX / 4)
    }

    fn micros(&self, units: i64) -> i64 {
        units * 1_000 / (self.clock_rate / 1_000).max(1)
    }

    fn units(&self, micros: i64) -> i64 {
        micros * (self.clock_rate / 1_000) / 1_000
    }
}
