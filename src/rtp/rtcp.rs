//! RTCP (RFC 3550 §6): reports, CNAME and BYE in both directions, without allocation.
//!
//! Own code rather than `rtcp-types` (which the tests compare with): its SDES parser allocates, and its cumulative loss
//! is unsigned. What is no use to an audio stream (APP, XR, feedback) is checked for its lengths and passed over.

use std::time::Duration;

use thiserror::Error;

use super::packet::{Header, sequence_distance};

/// Longest CNAME sent or kept (RFC 3550 §6.5: one length byte).
pub const MAX_CNAME: usize = 255;
/// The longest compound packet [`write`] makes: SR with a block, SDES, BYE.
pub const MAX_REPORT: usize = 28 + 24 + 12 + MAX_CNAME + 3 + 8;

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
const CNAME: u8 = 1;
const MAX_RTT: Duration = Duration::from_secs(60); // a longer one is a lie or a clock gone wrong

/// Why bytes are no RTCP. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtcpError {
    #[error("RTCP version is {0}, not 2")]
    Version(u8),
    #[error("RTCP packet at byte {0} reaches beyond the end")]
    Truncated(usize),
    #[error("RTCP packet at byte {0} contradicts itself")]
    Malformed(usize),
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    SenderReport {
        ssrc: u32,
        info: SenderInfo,
        blocks: Blocks<'a>,
    },
    ReceiverReport {
        ssrc: u32,
        blocks: Blocks<'a>,
    },
    /// The CNAME of the first source, when it has one.
    Description {
        ssrc: u32,
        cname: Option<&'a [u8]>,
    },
    /// Sources that leave.
    Bye(Sources<'a>),
    /// APP, XR, feedback and whatever comes later: its packet type.
    Other(u8),
}

/// Sender's part of an SR (§6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    pub ntp: u64,
    pub rtp: u32,
    pub packets: u32,
    pub octets: u32,
}

/// What a receiver says of one source (§6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Since the report before, in 1/256.
    pub fraction_lost: u8,
    /// 24 bits, negative with duplicates.
    pub cumulative_lost: i32,
    pub highest_sequence: u32,
    /// RTP clock units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last SR, 0 for none.
    pub last_sr: u32,
    /// Since then, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

const BLOCK_LEN: usize = 24;

impl ReportBlock {
    fn read(bytes: &[u8; BLOCK_LEN]) -> Self {
        let word = |n: usize| bytes.get(4 * n..).map_or(0, word);
        Self {
            ssrc: word(0),
            fraction_lost: (word(1) >> 24) as u8,
            cumulative_lost: (word(1) << 8).cast_signed() >> 8,
            highest_sequence: word(2),
            jitter: word(3),
            last_sr: word(4),
            delay_since_last_sr: word(5),
        }
    }

    fn words(&self) -> [u32; 6] {
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0xff_ffff;
        let loss = u32::from(self.fraction_lost) << 24 | lost;
        [self.ssrc, loss, self.highest_sequence, self.jitter, self.last_sr, self.delay_since_last_sr]
    }
}

/// The report blocks of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks<'a>(&'a [u8]);

impl Iterator for Blocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.0.split_first_chunk::<BLOCK_LEN>()?;
        self.0 = rest;
        Some(ReportBlock::read(block))
    }
}

/// The SSRCs of a BYE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources<'a>(&'a [u8]);

impl Iterator for Sources<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (source, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*source))
    }
}

/// A compound packet; an iterator over its parts. After the first error it ends.
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Compound<'a> {
    /// Checks the whole datagram, so that a forged end cannot follow a believed beginning.
    ///
    /// # Errors
    /// The first [`RtcpError`]; an empty datagram is [`RtcpError::Truncated`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtcpError> {
        let compound = Self { bytes, at: 0 };
        if bytes.is_empty() {
            return Err(RtcpError::Truncated(0));
        }
        let mut check = compound.clone();
        while check.at < bytes.len() {
            check.advance()?;
        }
        Ok(compound)
    }

    fn advance(&mut self) -> Result<Packet<'a>, RtcpError> {
        let at = self.at;
        let rest = self.bytes.get(at..).unwrap_or_default();
        let [flags, kind, l0, l1] = *rest.first_chunk::<4>().ok_or(RtcpError::Truncated(at))?;
        if flags >> 6 != 2 {
            return Err(RtcpError::Version(flags >> 6));
        }
        let len = 4 + 4 * usize::from(u16::from_be_bytes([l0, l1]));
        let mut body = rest.get(4..len).ok_or(RtcpError::Truncated(at))?;
        if flags & 0x20 != 0 {
            // Only the last packet of a compound may be padded (§6.4.1).
            let padding = usize::from(body.last().copied().unwrap_or(0));
            let kept = body.len().checked_sub(padding).filter(|_| padding > 0 && padding % 4 == 0 && len == rest.len());
            body = kept.and_then(|kept| body.get(..kept)).ok_or(RtcpError::Malformed(at))?;
        }
        self.at = at + len;
        Self::read(kind, usize::from(flags & 0x1f), body).ok_or(RtcpError::Malformed(at))
    }

    fn read(kind: u8, count: usize, body: &'a [u8]) -> Option<Packet<'a>> {
        let ssrc = || body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        let blocks = |from: usize| body.get(from..from + count * BLOCK_LEN).map(Blocks);
        Some(match kind {
            SR => {
                let words = body.get(4..24)?;
                let word = |n: usize| words.get(4 * n..).map_or(0, word);
                let ntp = u64::from(word(0)) << 32 | u64::from(word(1));
                let info = SenderInfo { ntp, rtp: word(2), packets: word(3), octets: word(4) };
                Packet::SenderReport { ssrc: ssrc()?, info, blocks: blocks(24)? }
            }
            RR => Packet::ReceiverReport { ssrc: ssrc()?, blocks: blocks(4)? },
            SDES => Self::description(count, body)?,
            BYE => Packet::Bye(Sources(body.get(..4 * count)?)),
            other => Packet::Other(other),
        })
    }

    /// Walks all chunks, so that none reaches beyond the end; keeps the first one's CNAME (§6.5).
    fn description(count: usize, body: &'a [u8]) -> Option<Packet<'a>> {
        let mut found = None;
        let mut at = 0;
        for _ in 0..count {
            let ssrc = body.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))?;
            let mut cname = None;
            at += 4;
            loop {
                let kind = *body.get(at)?;
                if kind == 0 {
                    at = (at / 4 + 1) * 4;
                    break;
                }
                let len = usize::from(*body.get(at + 1)?);
                let value = body.get(at + 2..at + 2 + len)?;
                if kind == CNAME {
                    cname = cname.or(Some(value));
                }
                at += 2 + len;
            }
            found = found.or(Some((ssrc, cname)));
        }
        let (ssrc, cname) = found.unwrap_or((0, None));
        Some(Packet::Description { ssrc, cname })
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let packet = self.advance().ok();
        if packet.is_none() {
            self.at = self.bytes.len();
        }
        packet
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// What we report.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub ssrc: u32,
    /// An SR when something was sent since the report before, else an RR (§6.4).
    pub sender: Option<SenderInfo>,
    pub block: Option<ReportBlock>,
    /// Cut to [`MAX_CNAME`] bytes.
    pub cname: &'a str,
    /// Leave with BYE.
    pub bye: bool,
}

/// Writes a compound packet: SR or RR, SDES with CNAME, BYE when leaving. Returns its length; `None` when `out` is shorter
/// than [`MAX_REPORT`] and not enough.
pub fn write(report: &Report<'_>, out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer { out, at: 0 };
    let count = u8::from(report.block.is_some());
    let (kind, words) = if report.sender.is_some() { (SR, 6) } else { (RR, 1) };
    writer.header(count, kind, words + 6 * u16::from(count))?;
    writer.word(report.ssrc)?;
    if let Some(SenderInfo { ntp, rtp, packets, octets }) = report.sender {
        for word in [(ntp >> 32) as u32, ntp as u32, rtp, packets, octets] {
            writer.word(word)?;
        }
    }
    for word in report.block.iter().flat_map(ReportBlock::words) {
        writer.word(word)?;
    }
    let mut cut = report.cname.len().min(MAX_CNAME);
    while !report.cname.is_char_boundary(cut) {
        cut -= 1;
    }
    let cname = report.cname.as_bytes().get(..cut)?;
    let items = (2 + cname.len() + 1).next_multiple_of(4); // at least one null ends the list
    writer.header(1, SDES, 1 + (items / 4) as u16)?;
    writer.word(report.ssrc)?;
    writer.bytes(&[CNAME, cut as u8])?;
    writer.bytes(cname)?;
    writer.bytes([0; 4].get(..items - 2 - cname.len())?)?;
    if report.bye {
        writer.header(1, BYE, 1)?;
        writer.word(report.ssrc)?;
    }
    Some(writer.at)
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.out.get_mut(self.at..self.at + bytes.len())?.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }

    fn word(&mut self, word: u32) -> Option<()> {
        self.bytes(&word.to_be_bytes())
    }

    fn header(&mut self, count: u8, kind: u8, words: u16) -> Option<()> {
        let [l0, l1] = words.to_be_bytes();
        self.bytes(&[0x80 | count, kind, l0, l1])
    }
}

/// NTP format: 32.32 fixed point seconds. We count from the start of the stream, not from 1900: RFC 3550 §6.4.1 allows
/// any clock of ours, and without the wall clock none of its steps can spoil a round trip.
pub fn ntp(elapsed: Duration) -> u64 {
    (elapsed.as_secs() << 32) | ((u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000)
}

/// The middle 32 bits: seconds in 16.16.
pub fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// Round trip from a report block that came at `now` (middle NTP); `None` when it answers no SR of ours or cannot be true.
pub fn round_trip(block: &ReportBlock, now: u32) -> Option<Duration> {
    if block.last_sr == 0 {
        return None;
    }
    let units = now.wrapping_sub(block.last_sr).checked_sub(block.delay_since_last_sr)?;
    Some(Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16)).filter(|&rtt| rtt <= MAX_RTT)
}

/// Reception of one source, counted as RFC 3550 §A.3 and §A.8 say. Feed it only packets that are believed.
#[derive(Clone, Debug, Default)]
pub struct Reception {
    ssrc: Option<u32>,
    first: u32,
    highest: u32, // with cycles
    received: u32,
    expected_before: u32,
    received_before: u32,
    transit: i64,
    jitter: u32, // in 1/16
    last_sr: u32,
    last_sr_at: Duration,
    lost_earlier: i64, // of the sources before
}

/// What one packet did to the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Packets missing right before it.
    pub lost_before: u16,
    /// A transit was measured against the packet before.
    pub in_order: bool,
}

impl Reception {
    /// Counts a packet that came `elapsed` after the start; `timed` unless its timestamp is not that of its sending.
    pub fn count(&mut self, header: &Header, clock_rate: u32, timed: bool, elapsed: Duration) -> Counted {
        let arrival = (elapsed.as_micros() as i64).wrapping_mul(i64::from(clock_rate) / 1000) / 1000;
        let transit = arrival.wrapping_sub(i64::from(header.timestamp));
        let steps = sequence_distance(header.sequence, self.highest as u16);
        let restarted = self.ssrc != Some(header.ssrc) || steps.unsigned_abs() > 3000;
        if restarted {
            let lost_earlier = self.lost();
            *self = Self { ssrc: Some(header.ssrc), transit, lost_earlier, ..Self::default() };
            (self.first, self.highest) = (header.sequence.into(), header.sequence.into());
            self.received = 1;
            return Counted { lost_before: 0, in_order: false };
        }
        self.received = self.received.saturating_add(1);
        if steps > 0 {
            self.highest = self.highest.wrapping_add(steps.unsigned_abs().into());
        }
        if timed {
            // Timestamps are 32 bits wide: so is the difference. A jump of the sender's clock is no jitter.
            let step = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
            self.transit = transit;
            if step < clock_rate * 2 {
                self.jitter = self.jitter.saturating_add(step) - ((self.jitter + 8) >> 4);
            }
        }
        let lost_before = if steps > 1 { steps.unsigned_abs() - 1 } else { 0 };
        Counted { lost_before, in_order: steps > 0 }
    }

    /// Notes an SR of the source.
    pub fn sender_report(&mut self, info: &SenderInfo, elapsed: Duration) {
        (self.last_sr, self.last_sr_at) = (ntp_middle(info.ntp), elapsed);
    }

    pub fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    fn expected(&self) -> u32 {
        self.ssrc.map_or(0, |_| self.highest.wrapping_sub(self.first).wrapping_add(1))
    }

    /// Packets that never came, all sources together; negative with duplicates.
    pub fn lost(&self) -> i64 {
        self.lost_earlier + i64::from(self.expected()) - i64::from(self.received)
    }

    /// Interarrival jitter, RTP clock units.
    pub fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    /// The block of our next report, and the beginning of a new interval.
    pub fn report(&mut self, elapsed: Duration) -> Option<ReportBlock> {
        let ssrc = self.ssrc?;
        let expected = self.expected().wrapping_sub(self.expected_before);
        let received = self.received.wrapping_sub(self.received_before);
        (self.expected_before, self.received_before) = (self.expected(), self.received);
        let lost = u64::from(expected.saturating_sub(received));
        let fraction = (lost << 8).checked_div(expected.into()).unwrap_or(0).min(255) as u8;
        let cumulative = i64::from(self.expected()) - i64::from(self.received);
        let since = if self.last_sr == 0 { 0 } else { ntp(elapsed.saturating_sub(self.last_sr_at)) };
        Some(ReportBlock {
            ssrc,
            fraction_lost: fraction,
            cumulative_lost: cumulative.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: self.highest,
            jitter: self.jitter(),
            last_sr: self.last_sr,
            delay_since_last_sr: ntp_middle(since),
        })
    }
}

#[cfg(test)]
#[path = "rtcp_tests.rs"]
mod tests;
