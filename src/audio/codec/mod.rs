//! Opus, G.722, PCMU and PCMA: 20 ms of mono `i16` to payload bytes and back.

use crate::media::CodecKind;

/// Turns frames into payloads.
#[derive(Debug)]
pub struct Encoder {}

/// Turns payloads into frames, and makes up for missing ones.
#[derive(Debug)]
pub struct Decoder {}

/// Why a payload could not be decoded or a frame encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{codec}: {what}")]
pub struct CodecError {
    pub codec: CodecKind,
    pub what: String,
}

#[allow(unused_variables)]
impl Encoder {
    pub fn new(codec: CodecKind) -> Result<Self, CodecError> {
        todo!()
    }
    /// Encodes a frame of 10, 20, 40 or 60 ms at the codec's sample rate; returns the payload's length.
    pub fn encode(&mut self, frame: &[i16], payload: &mut [u8]) -> Result<usize, CodecError> {
        todo!()
    }
    /// Loss the peer reports, percent: Opus adds that much in-band FEC.
    pub fn set_loss(&mut self, percent: u8) {
        todo!()
    }
}

#[allow(unused_variables)]
impl Decoder {
    pub fn new(codec: CodecKind) -> Result<Self, CodecError> {
        todo!()
    }
    /// Decodes one payload of any legal length; returns the samples written at the codec's sample rate.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        todo!()
    }
    /// Fills `out` for a packet that is missing; `next` is the payload after it when it has come (Opus FEC reads it).
    pub fn conceal(&mut self, next: Option<&[u8]>, out: &mut [i16]) {
        todo!()
    }
}
