//! The decoders of a stream, one per agreed format, made when the peer first uses it.

use crate::audio::codec::Decoder;
use crate::audio::resample::Resampler;
use crate::media::{CodecKind, PayloadFormat};

use super::playout::Decode;

#[derive(Debug)]
struct Format {
    codec: CodecKind,
    decoder: Option<Decoder>,
    resampler: Option<Resampler>, // to the rate of the send codec
}

/// Implements [`Decode`]; codecs are indices into the agreed formats.
#[derive(Debug)]
pub(super) struct Decoders {
    formats: Vec<Format>,
    latest: u8,
}

impl Decoders {
    /// The decoder of the codec we send is made at once: the peer will hardly use another.
    pub fn new(formats: &[PayloadFormat], likely: CodecKind) -> Self {
        let format = |format: &PayloadFormat| {
            let decoder = if format.codec == likely { Decoder::new(likely).ok() } else { None };
            Format { codec: format.codec, decoder, resampler: None }
        };
        Self { formats: formats.iter().map(format).collect(), latest: 0 }
    }

    fn decoder(&mut self, index: u8) -> Option<&mut Decoder> {
        let format = self.formats.get_mut(usize::from(index))?;
        if format.decoder.is_none() {
            format.decoder = Decoder::new(format.codec).ok();
        }
        format.decoder.as_mut()
    }

    /// Turns a frame of the latest codec's rate into one of another rate; silence when that cannot be.
    pub fn resample(&mut self, frame: &[i16], from: u32, out: &mut [i16], to: u32) {
        let format = self.formats.get_mut(usize::from(self.latest));
        let resampler = format.and_then(|format| {
            if format.resampler.as_ref().is_none_or(|resampler| resampler.rates() != (from, to)) {
                format.resampler = Resampler::new(from, to).ok();
            }
            format.resampler.as_mut()
        });
        match resampler {
            Some(resampler) => resampler.process(frame, out),
            None => out.fill(0),
        }
    }
}

impl Decode for Decoders {
    fn decode(&mut self, codec: u8, payload: &[u8], out: &mut [i16]) -> Option<usize> {
        let samples = self.decoder(codec)?.decode(payload, out).ok()?;
        self.latest = codec;
        Some(samples)
    }

    fn conceal(&mut self, next: Option<(u8, &[u8])>, out: &mut [i16]) {
        let latest = self.latest;
        let next = next.filter(|&(codec, _)| codec == latest).map(|(_, payload)| payload);
        match self.decoder(latest) {
            Some(decoder) => decoder.conceal(next, out),
            None => out.fill(0),
        }
    }
}
