//! Telephone events (RFC 4733): digits received once each, digits sent in packets of 20 ms.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::packet::timestamp_distance;

/// Digits waiting to be sent at most: longer than any number dialled, short enough to be over within 11 s.
pub const MAX_QUEUED: usize = 64;
/// Bytes of an event's payload.
pub const PAYLOAD_LEN: usize = 4;

const DIGITS: &[u8; 16] = b"0123456789*#ABCD"; // by event code (§3.2)
const VOLUME: u8 = 10; // -10 dBm0
const TONE_TICKS: u32 = 5; // 100 ms
const GAP_TICKS: u32 = 3; // 60 ms
const END_PACKETS: u32 = 3; // §2.5.1.4
/// More digits a second than anyone dials are a forgery or a fault; a burst after an outage is let through.
const MAX_RATE: u32 = 20;
const LONGEST_SEGMENT: u32 = 0xffff; // §2.5.1.3
const MISORDER_S: u32 = 10; // older timestamps are stragglers, still older ones a restarted clock

/// The digit of an event code; `None` for flash, tones and what else is no digit.
fn digit(event: u8) -> Option<char> {
    DIGITS.get(usize::from(event)).map(|&digit| char::from(digit))
}

/// The event code of a digit; letters in any case.
fn event_code(digit: char) -> Option<u8> {
    let digit = u8::try_from(digit.to_ascii_uppercase()).ok()?;
    DIGITS.iter().position(|&known| known == digit).map(|code| code as u8)
}

#[derive(Clone, Copy, Debug)]
struct Current {
    event: u8,
    timestamp: u32,
    duration: u32,
    ended: bool,
}

/// Turns event packets into digits: one per event, told by its timestamp, whichever of its packets come.
#[derive(Debug)]
pub struct DtmfReceiver {
    clock_rate: u32,
    current: Option<Current>,
    /// Digits that may still come in this second.
    allowed: u32,
    refilled: Option<Instant>,
}

impl DtmfReceiver {
    /// For timestamps of `clock_rate` Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate, current: None, allowed: MAX_RATE, refilled: None }
    }

    /// Takes the payload of an event packet; returns its digit the first time it is seen.
    pub fn handle(&mut self, marker: bool, timestamp: u32, payload: &[u8], now: Instant) -> Option<char> {
        let [event, flags, d0, d1] = *payload.first_chunk::<PAYLOAD_LEN>()?;
        let duration = u32::from(u16::from_be_bytes([d0, d1]));
        let ended = flags & 0x80 != 0;
        if let Some(current) = &mut self.current {
            let ahead = timestamp_distance(timestamp, current.timestamp);
            let straggler = ahead < 0 && ahead.unsigned_abs() < self.clock_rate.saturating_mul(MISORDER_S);
            if ahead == 0 || straggler {
                if ahead == 0 && current.event == event {
                    current.duration = current.duration.max(duration);
                    current.ended |= ended;
                }
                return None;
            }
            let segment = current.duration == LONGEST_SEGMENT && ahead.unsigned_abs() == LONGEST_SEGMENT;
            if segment && !marker && !current.ended && current.event == event {
                *current = Current { event, timestamp, duration, ended };
                return None;
            }
        }
        self.current = Some(Current { event, timestamp, duration, ended });
        let digit = digit(event)?;
        self.allow(now).then_some(digit)
    }

    fn allow(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(*self.refilled.get_or_insert(now));
        let earned = (since.as_millis() * u128::from(MAX_RATE) / 1000).min(MAX_RATE.into()) as u32;
        if earned > 0 {
            self.allowed = (self.allowed + earned).min(MAX_RATE);
            self.refilled = Some(now);
        }
        let allowed = self.allowed > 0;
        self.allowed = self.allowed.saturating_sub(1);
        allowed
    }
}

/// What a tick of 20 ms sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// No digit: audio goes out.
    Audio,
    /// The pause after a digit: nothing goes out.
    Pause,
    /// This payload, at the event's timestamp: `back` ticks before the current one.
    Event { marker: bool, back: u32, payload: [u8; PAYLOAD_LEN] },
}

/// Digits on their way out, a packet per tick of 20 ms: running, then the end three times (100 ms tone, 60 ms pause).
#[derive(Debug)]
pub struct DtmfSender {
    queue: VecDeque<u8>,
    current: Option<(u8, u32)>, // event, ticks done
}

impl Default for DtmfSender {
    fn default() -> Self {
        Self { queue: VecDeque::with_capacity(MAX_QUEUED), current: None }
    }
}

impl DtmfSender {
    /// Queues a digit; false when it is none or [`MAX_QUEUED`] are waiting.
    pub fn push(&mut self, digit: char) -> bool {
        let Some(event) = event_code(digit).filter(|_| self.queue.len() < MAX_QUEUED) else { return false };
        self.queue.push_back(event);
        true
    }

    /// Forgets what is not sent yet.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.current = None;
    }

    /// Moves on by 20 ms, which are `units` of the RTP clock.
    pub fn tick(&mut self, units: u32) -> Tick {
        let Some((event, done)) = self.current.or_else(|| self.queue.pop_front().map(|event| (event, 0))) else {
            return Tick::Audio;
        };
        self.current = Some((event, done + 1)).filter(|_| done + 1 < TONE_TICKS + GAP_TICKS);
        if done >= TONE_TICKS - 1 + END_PACKETS {
            return Tick::Pause;
        }
        let end = done >= TONE_TICKS - 1;
        let [d0, d1] = (units * (done + 1).min(TONE_TICKS)).min(LONGEST_SEGMENT).to_be_bytes()[2..] else {
            return Tick::Pause;
        };
        let payload = [event, u8::from(end) << 7 | VOLUME, d0, d1];
        Tick::Event { marker: done == 0, back: done, payload }
    }
}

/// How long a digit keeps the line, pause included.
pub const DIGIT_TIME: Duration = Duration::from_millis(20 * (TONE_TICKS + GAP_TICKS) as u64);

#[cfg(test)]
mod tests {
    use super::super::packet::Packet;
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
    fn now() -> Instant {
        Instant::now()
    }

    fn digits<'a>(packets: impl Iterator<Item = &'a str>) -> String {
        let mut receiver = DtmfReceiver::new(8000);
        let (start, mut ms) = (now(), 0);
        packets
            .filter_map(|hex| {
                let bytes = unhex(hex);
                let Packet { header, payload } = Packet::parse(&bytes).expect("RTP");
                ms += 20;
                receiver.handle(header.marker, header.timestamp, payload, start + Duration::from_millis(ms))
            })
            .collect()
    }

    #[test]
    fn every_vector_yields_its_digits_once() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/rtp/dtmf/dtmf.json")).expect("JSON");
        let packets = vectors["packets"].as_array().expect("a list");
        assert_eq!(digits(packets.iter().map(|packet| packet["hex"].as_str().expect("hex"))), "5#");
        let variants = vectors["variants"].as_array().expect("a list");
        let want = ["5", "5#", "5", "5", "", "", "", "1", "3"];
        assert_eq!(variants.len(), want.len());
        for (variant, want) in variants.iter().zip(want) {
            let packets = variant["packets"].as_array().expect("a list").iter().map(|hex| hex.as_str().expect("hex"));
            assert_eq!(digits(packets), want, "{}", variant["what"]);
        }
    }

    #[test]
    fn a_flood_of_events_is_cut_to_twenty_a_second() {
        let (mut receiver, start) = (DtmfReceiver::new(8000), now());
        let heard = (0..10_000u32).filter(|n| {
            let at = start + Duration::from_millis(u64::from(*n));
            receiver.handle(true, n * 160, &[(n % 16) as u8, 0x8a, 0, 160], at).is_some()
        });
        assert!((200..=221).contains(&heard.count()));
    }

    #[test]
    fn what_is_sent_is_what_the_rfc_shows_and_is_received() {
        let mut sender = DtmfSender::default();
        assert!("5#aD".chars().all(|digit| sender.push(digit)));
        assert!(!sender.push('x') && !sender.push('E') && !sender.push('☎'));
        let (mut receiver, start) = (DtmfReceiver::new(8000), now());
        let mut heard = String::new();
        let mut first = Vec::new();
        for tick in 0..40u32 {
            match sender.tick(160) {
                Tick::Event { marker, back, payload } => {
                    let at = start + Duration::from_millis(20 * u64::from(tick));
                    heard.extend(receiver.handle(marker, (tick - back) * 160, &payload, at));
                    first.push((tick, marker, (tick - back) * 160, payload));
                }
                Tick::Pause => {}
                Tick::Audio => assert!(tick >= 32, "audio at tick {tick}"),
            }
        }
        assert_eq!(heard, "5#AD");
        let events: Vec<_> = first.iter().take(7).map(|&(tick, marker, _, payload)| (tick, marker, payload)).collect();
        assert_eq!(
            events,
            [
                (0, true, [5, 10, 0x00, 0xa0]),
                (1, false, [5, 10, 0x01, 0x40]),
                (2, false, [5, 10, 0x01, 0xe0]),
                (3, false, [5, 10, 0x02, 0x80]),
                (4, false, [5, 0x8a, 0x03, 0x20]),
                (5, false, [5, 0x8a, 0x03, 0x20]),
                (6, false, [5, 0x8a, 0x03, 0x20]),
            ]
        );
        assert!(first[..7].iter().all(|&(_, _, timestamp, _)| timestamp == 0));
        assert_eq!((first[7].0, first[7].2), (8, 8 * 160), "the next digit 160 ms later");
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut sender = DtmfSender::default();
        assert_eq!((0..1000).filter(|_| sender.push('1')).count(), MAX_QUEUED);
        sender.clear();
        assert_eq!(sender.tick(160), Tick::Audio);
    }
}
