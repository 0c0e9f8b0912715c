//! Payload types: which number means which format, ours for the life of a session and the peer's in one description.

use crate::media::CodecKind;

use super::description::Media;

/// What a payload type can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Codec(CodecKind),
    /// `telephone-event` (RFC 4733) at this clock rate in Hz.
    Events(u32),
}

/// A format under a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub format: Format,
    pub payload_type: u8,
}

/// Most formats of one m-line looked at: one for each of the 128 payload types.
const MAX_FORMATS: usize = 128;
/// The events we list: digits, `*`, `#`, A to D and flash.
const EVENTS: &str = "0-16";
/// Forward error correction repairs single losses; the rates are those we decode.
const OPUS_PARAMETERS: &str = "useinbandfec=1;maxplaybackrate=48000";

impl Format {
    /// The number to try first: static ones by RFC 3551, the others as most phones do.
    fn usual_number(self) -> u8 {
        match self {
            Self::Codec(codec) => codec.static_payload_type().unwrap_or(96),
            Self::Events(48_000) => 97,
            Self::Events(_) => 101,
        }
    }

    pub fn rtpmap(self) -> String {
        match self {
            Self::Codec(CodecKind::Opus) => "opus/48000/2".into(), // RFC 7587 §7: always two channels
            Self::Codec(codec) => format!("{}/{}", codec.name(), codec.clock_rate()),
            Self::Events(rate) => format!("telephone-event/{rate}"),
        }
    }

    pub fn fmtp(self) -> Option<&'static str> {
        match self {
            Self::Codec(CodecKind::Opus) => Some(OPUS_PARAMETERS),
            Self::Codec(_) => None,
            Self::Events(_) => Some(EVENTS),
        }
    }

    /// What a payload type of a description stands for; `None` for formats we do not know.
    fn of(media: &Media<'_>, payload_type: u8) -> Option<Self> {
        let Some(map) = media.rtpmap(payload_type) else {
            // A broken rtpmap is not a missing one, but static numbers mean the same with either.
            let is_static = |codec: &CodecKind| codec.static_payload_type() == Some(payload_type);
            return CodecKind::ALL.into_iter().find(is_static).map(Self::Codec);
        };
        if map.encoding.eq_ignore_ascii_case("telephone-event") {
            return Some(Self::Events(map.clock_rate));
        }
        let codec = CodecKind::from_name(map.encoding)?;
        // Opus is always signalled with two channels; old stacks leave the number out.
        let channels_fit = map.channels == 1 || (codec == CodecKind::Opus && map.channels == 2);
        (map.clock_rate == codec.clock_rate() && channels_fit).then_some(Self::Codec(codec))
    }
}

/// The formats of an m-line that we know, in its order.
pub(super) fn known(media: &Media<'_>) -> Vec<Numbered> {
    media
        .formats()
        .take(MAX_FORMATS)
        .filter_map(|number| number.parse::<u8>().ok().filter(|number| *number < 128))
        .filter_map(|payload_type| Some(Numbered { format: Format::of(media, payload_type)?, payload_type }))
        .collect()
}

/// The events to go with a codec: those at its clock, or else at 8000 Hz, which is all that some phones offer beside
/// Opus.
pub(super) fn events_for(codec: CodecKind, list: &[Numbered]) -> Option<Numbered> {
    [codec.clock_rate(), 8_000]
        .into_iter()
        .find_map(|rate| list.iter().find(|entry| entry.format == Format::Events(rate)))
        .copied()
}

/// The numbers we have given out in a session. One number never changes its meaning (RFC 3264 §8.3.2).
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// In order of use, the latest last. At most 128, one for each number.
    given: Vec<Numbered>,
}

impl Numbers {
    /// Our number for a format, in an answer preferably the offerer's. `None` when all are taken.
    pub fn assign(&mut self, format: Format, wish: Option<u8>) -> Option<u8> {
        let meaning = |number: u8| self.given.iter().find(|entry| entry.payload_type == number);
        let usable = |number: &u8| meaning(*number).is_none_or(|entry| entry.format == format);
        let used = || self.given.iter().rev().find(|entry| entry.format == format).map(|entry| entry.payload_type);
        // Fresh numbers: the dynamic ones, then those RFC 5761 §4 leaves free of RTCP.
        let fresh = || (96..128).chain(35..64).find(|number| meaning(*number).is_none());
        let payload_type =
            wish.filter(usable).or_else(used).or_else(|| Some(format.usual_number()).filter(usable)).or_else(fresh)?;
        let entry = Numbered { format, payload_type };
        self.given.retain(|given| *given != entry);
        self.given.push(entry);
        Some(payload_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPUS: Format = Format::Codec(CodecKind::Opus);

    #[test]
    fn numbers_keep_their_meaning() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.assign(OPUS, None), Some(96));
        assert_eq!(numbers.assign(Format::Events(8_000), None), Some(101));
        assert_eq!(numbers.assign(OPUS, Some(111)), Some(111), "the peer's wish");
        assert_eq!(numbers.assign(OPUS, None), Some(111), "the latest goes on");
        assert_eq!(numbers.assign(OPUS, Some(101)), Some(111), "101 stays events");
        assert_eq!(numbers.assign(Format::Events(48_000), Some(96)), Some(97), "96 stays Opus");
    }

    #[test]
    fn a_taken_usual_number_gives_way() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.assign(Format::Events(8_000), Some(96)), Some(96));
        assert_eq!(numbers.assign(OPUS, None), Some(97));
        for number in 0..=127 {
            numbers.assign(Format::Events(u32::from(number) + 1), Some(number));
        }
        assert_eq!(numbers.assign(Format::Codec(CodecKind::G722), None), None, "all 128 are taken");
        assert_eq!(numbers.given.len(), 128);
    }
}
