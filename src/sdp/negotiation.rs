//! Offer/answer for audio (RFC 3264): pure functions from descriptions and local capabilities to descriptions and
//! [`AudioParams`].

use rand::rngs::StdRng;

use super::description::{Description, SdpError};
use crate::media::{AudioParams, CodecKind, Direction, LocalMedia, SrtpPolicy};

/// What we can do, for one offer or answer.
#[derive(Clone, Debug)]
pub struct LocalAudio {
    pub media: LocalMedia,
    /// In order of preference.
    pub codecs: Vec<CodecKind>,
    pub srtp: SrtpPolicy,
    /// What we want to do now (hold: SendOnly or Inactive).
    pub direction: Direction,
    pub symmetric: bool,
}

/// Why an offer or an answer cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// 400 with this text.
    #[error(transparent)]
    Malformed(#[from] SdpError),
    /// 488 with a Warning 304/305/399 of this code and text.
    #[error("{text}")]
    NotAcceptable { warning: u16, text: String },
    /// 415: neither audio nor any stream we know is offered.
    #[error("no audio in the offer")]
    NoKnownMedia,
}

/// Our side of the descriptions of one session: o= identity and version, payload type numbers, keys we offered, m-line
/// order. One per session, used for every offer and answer of its life.
#[derive(Debug)]
pub struct Negotiator {}

#[allow(unused_variables)]
impl Negotiator {
    /// The o= session id comes from `random`.
    pub fn new(random: &mut StdRng) -> Self {
        todo!()
    }

    /// Writes an offer: the first, or a later one (same m-line order, version + 1 only when something changed).
    /// `audio` None keeps an existing audio m-line with port 0.
    pub fn offer(&mut self, audio: Option<&LocalAudio>, random: &mut StdRng) -> Description {
        todo!()
    }

    /// Takes the answer to our last offer. `Ok(None)`: audio was refused (port 0).
    pub fn accept_answer(&mut self, answer: &Description) -> Result<Option<AudioParams>, NegotiationError> {
        todo!()
    }

    /// What an offer holds, before the application decides: is there audio (or chat) that we could take?
    pub fn inspect(offer: &Description) -> OfferSummary {
        todo!()
    }

    /// Answers an offer. `audio` None refuses audio with port 0. Every m-line of the offer gets one line in the answer.
    /// Errors leave the state as it was.
    pub fn answer(
        &mut self,
        offer: &Description,
        audio: Option<&LocalAudio>,
        random: &mut StdRng,
    ) -> Result<(Description, Option<AudioParams>), NegotiationError> {
        todo!()
    }

    /// Forgets an offer that was refused or withdrawn.
    pub fn roll_back(&mut self) {
        todo!()
    }
}

/// What an offer contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferSummary {
    /// An active m=audio with RTP.
    pub audio: bool,
    /// An active m=message.
    pub chat: bool,
    /// The direction offered for audio, from our side.
    pub audio_direction: Direction,
}
