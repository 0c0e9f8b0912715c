//! Opus, G.722, PCMU and PCMA: frames of mono `i16` to payload bytes and back.
//!
//! | part | what |
//! |---|---|
//! | [`opus`] | libopus behind a small safe wrapper: the only `unsafe` of the audio side |
//! | [`g711`] | both laws by the formula of ITU-T G.191, as tables |
//! | [`g722`] | ITU-T G.722 at 64 kbit/s, bit-exact |
//! | [`conceal`] | what fills a lost G.711 or G.722 packet |
//!
//! Encoders and decoders allocate when they are made and never again, and are `Send`: a call may move between threads.

pub mod conceal;
pub mod g711;
pub mod g722;
pub mod opus;

use crate::media::CodecKind;
use conceal::Concealer;

/// The longest audio in one payload: 120 ms at 48 kHz (RFC 6716 §3.2).
pub const MAX_PACKET_SAMPLES: usize = 5_760;

/// Turns frames into payloads.
#[derive(Debug)]
pub struct Encoder(Encode);

#[derive(Debug)]
enum Encode {
    Opus(opus::Encoder),
    G722(Box<g722::Encoder>),
    G711(g711::Law),
}

/// Turns payloads into frames, and makes up for missing ones.
#[derive(Debug)]
pub struct Decoder(Decode);

#[derive(Debug)]
enum Decode {
    Opus(opus::Decoder),
    G722(Box<g722::Decoder>, Box<Concealer>),
    G711(g711::Law, Box<Concealer>),
}

/// Why a payload could not be decoded or a frame encoded. Its text is static, so that a peer sending garbage costs no
/// allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{codec}: {what}")]
pub struct CodecError {
    pub codec: CodecKind,
    pub what: &'static str,
}

impl Encoder {
    /// Makes an encoder for one stream.
    ///
    /// # Errors
    /// Only Opus can fail, when there is no memory.
    pub fn new(codec: CodecKind) -> Result<Self, CodecError> {
        Ok(Self(match codec {
            CodecKind::Opus => Encode::Opus(opus::Encoder::new()?),
            CodecKind::G722 => Encode::G722(Box::default()),
            CodecKind::Pcmu => Encode::G711(g711::Law::Mu),
            CodecKind::Pcma => Encode::G711(g711::Law::A),
        }))
    }

    /// The codec this encoder speaks.
    pub fn codec(&self) -> CodecKind {
        match &self.0 {
            Encode::Opus(_) => CodecKind::Opus,
            Encode::G722(_) => CodecKind::G722,
            Encode::G711(law) => law.codec(),
        }
    }

    /// Encodes a frame of 10, 20, 40 or 60 ms at the codec's sample rate; returns the payload's length in bytes.
    ///
    /// # Errors
    /// A frame of another length, or a `payload` buffer too small for it.
    pub fn encode(&mut self, frame: &[i16], payload: &mut [u8]) -> Result<usize, CodecError> {
        let codec = self.codec();
        let error = |what| CodecError { codec, what };
        let per_10_ms = codec.sample_rate() as usize / 100;
        if ![1, 2, 4, 6].contains(&(frame.len() / per_10_ms)) || !frame.len().is_multiple_of(per_10_ms) {
            return Err(error("a frame to encode is not 10, 20, 40 or 60 ms long"));
        }
        let too_small = error("the payload buffer is too small for the frame");
        match &mut self.0 {
            Encode::Opus(encoder) => encoder.encode(frame, payload),
            Encode::G722(encoder) => {
                let payload = payload.get_mut(..frame.len() / 2).ok_or(too_small)?;
                encoder.encode(frame, payload);
                Ok(payload.len())
            }
            Encode::G711(law) => {
                let payload = payload.get_mut(..frame.len()).ok_or(too_small)?;
                law.encode(frame, payload);
                Ok(payload.len())
            }
        }
    }

    /// Loss the peer reports, percent: Opus adds that much in-band FEC. The others have nothing to add.
    pub fn set_loss(&mut self, percent: u8) {
        if let Encode::Opus(encoder) = &mut self.0 {
            encoder.set_loss(percent);
        }
    }
}

impl Decoder {
    /// Makes a decoder for one stream.
    ///
    /// # Errors
    /// Only Opus can fail, when there is no memory.
    pub fn new(codec: CodecKind) -> Result<Self, CodecError> {
        let concealer = || Box::new(Concealer::new(codec.sample_rate()));
        Ok(Self(match codec {
            CodecKind::Opus => Decode::Opus(opus::Decoder::new()?),
            CodecKind::G722 => Decode::G722(Box::default(), concealer()),
            CodecKind::Pcmu => Decode::G711(g711::Law::Mu, concealer()),
            CodecKind::Pcma => Decode::G711(g711::Law::A, concealer()),
        }))
    }

    /// The codec this decoder speaks.
    pub fn codec(&self) -> CodecKind {
        match &self.0 {
            Decode::Opus(_) => CodecKind::Opus,
            Decode::G722(..) => CodecKind::G722,
            Decode::G711(law, _) => law.codec(),
        }
    }

    /// Decodes one payload of any legal length; returns the samples written at the codec's sample rate. A stereo Opus
    /// packet becomes mono.
    ///
    /// # Errors
    /// The payload is empty or not a packet of this codec, or longer than `out` ([`MAX_PACKET_SAMPLES`] holds any).
    /// The decoder stays usable.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        let codec = self.codec();
        let error = |what| CodecError { codec, what };
        if payload.is_empty() {
            return Err(error("the payload is empty"));
        }
        let too_long = error("the payload is longer than the buffer for its samples");
        match &mut self.0 {
            Decode::Opus(decoder) => decoder.decode(payload, out),
            Decode::G722(decoder, concealer) => {
                let out = out.get_mut(..payload.len() * 2).ok_or(too_long)?;
                decoder.decode(payload, out);
                concealer.handle_good(out);
                Ok(out.len())
            }
            Decode::G711(law, concealer) => {
                let out = out.get_mut(..payload.len()).ok_or(too_long)?;
                law.decode(payload, out);
                concealer.handle_good(out);
                Ok(out.len())
            }
        }
    }

    /// Fills `out` for a packet that is missing; `next` is the payload after it when it has come (Opus FEC reads it,
    /// and it is still to be decoded in its turn).
    pub fn conceal(&mut self, next: Option<&[u8]>, out: &mut [i16]) {
        match &mut self.0 {
            Decode::Opus(decoder) => decoder.conceal(next, out),
            Decode::G722(_, concealer) | Decode::G711(_, concealer) => concealer.fill(out),
        }
    }
}

/// The number of samples `payload` holds, at the codec's sample rate; `None` when it is no packet of this codec.
pub fn payload_samples(codec: CodecKind, payload: &[u8]) -> Option<usize> {
    match codec {
        _ if payload.is_empty() => None,
        CodecKind::Opus => opus::packet_samples(payload),
        CodecKind::G722 => Some(payload.len() * 2),
        CodecKind::Pcmu | CodecKind::Pcma => Some(payload.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hz: f64, amplitude: f64, samples: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * hz / f64::from(rate);
        (0..samples).map(|n| (amplitude * (step * n as f64).sin()).round() as i16).collect()
    }

    fn energy(pcm: &[i16]) -> f64 {
        pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / pcm.len() as f64
    }

    #[test]
    fn encoders_and_decoders_may_move_between_threads() {
        fn send<T: Send>() {}
        send::<Encoder>();
        send::<Decoder>();
    }

    #[test]
    fn every_codec_carries_a_tone_in_each_frame_length() {
        for codec in CodecKind::ALL {
            let rate = codec.sample_rate();
            for ms in [10, 20, 40, 60] {
                let mut encoder = Encoder::new(codec).unwrap();
                let mut decoder = Decoder::new(codec).unwrap();
                assert_eq!((encoder.codec(), decoder.codec()), (codec, codec));
                let size = (rate * ms / 1000) as usize;
                let input = tone(rate, 440.0, 10_000.0, size * 20);
                let (mut payload, mut out, mut heard) = ([0; 1500], [0; MAX_PACKET_SAMPLES], vec![]);
                for frame in input.chunks(size) {
                    let length = encoder.encode(frame, &mut payload).unwrap();
                    assert_eq!(payload_samples(codec, &payload[..length]), Some(size), "{codec} {ms} ms");
                    let samples = decoder.decode(&payload[..length], &mut out).unwrap();
                    assert_eq!(samples, size, "{codec} {ms} ms");
                    heard.extend_from_slice(&out[..samples]);
                }
                let half = heard.len() / 2;
                let ratio = energy(&heard[half..]) / energy(&input[half..]);
                assert!((0.8..1.2).contains(&ratio), "{codec} {ms} ms: energy ratio {ratio}");
            }
        }
    }

    #[test]
    fn wrong_lengths_are_errors_that_name_the_codec() {
        for codec in CodecKind::ALL {
            let mut encoder = Encoder::new(codec).unwrap();
            let frame = vec![0; codec.sample_rate() as usize / 50];
            for wrong in [0, 1, frame.len() - 1, frame.len() * 3 / 4] {
                let error = encoder.encode(&frame[..wrong], &mut [0; 1500]).unwrap_err();
                assert_eq!(error.codec, codec);
            }
            assert!(encoder.encode(&frame, &mut []).is_err(), "{codec}");
            let mut decoder = Decoder::new(codec).unwrap();
            assert!(decoder.decode(&[], &mut [0; 960]).is_err(), "{codec}");
            let length = encoder.encode(&frame, &mut [0; 1500]).unwrap();
            let mut payload = vec![0; 1500];
            assert_eq!(encoder.encode(&frame, &mut payload).unwrap().min(1), length.min(1));
            assert!(decoder.decode(&payload[..length.max(10)], &mut [0; 3]).is_err(), "{codec}");
        }
    }

    #[test]
    fn a_lost_packet_is_filled_with_something_like_what_was_there() {
        for codec in CodecKind::ALL {
            let size = codec.sample_rate() as usize / 50;
            let input = tone(codec.sample_rate(), 200.0, 8_000.0, size * 20);
            let mut encoder = Encoder::new(codec).unwrap();
            let mut decoder = Decoder::new(codec).unwrap();
            let (mut payload, mut out) = ([0; 1500], vec![0; size]);
            let mut reference = 0.0;
            for (n, frame) in input.chunks(size).enumerate() {
                let length = encoder.encode(frame, &mut payload).unwrap();
                if n == 15 {
                    reference = energy(&out);
                    decoder.conceal(None, &mut out);
                    let ratio = energy(&out) / reference;
                    assert!((0.4..1.5).contains(&ratio), "{codec}: energy ratio {ratio}");
                } else {
                    decoder.decode(&payload[..length], &mut out).unwrap();
                }
            }
            assert!(reference > 0.0);
        }
    }
}
