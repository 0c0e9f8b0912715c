//! Opus (RFC 6716, RFC 7587) by libopus: 48 kHz, mono, voice, with in-band FEC and without DTX.
//!
//! The wrapper holds the one rule libopus has: a state is used by one thread at a time. All lengths handed over come
//! from slices, so C never sees a size that memory does not have.
#![allow(unsafe_code)] // the FFI below, each call with its reason

use std::ffi::c_int;
use std::ptr::NonNull;

use opusic_sys as sys;

use super::CodecError;
use crate::media::CodecKind;

const RATE: i32 = 48_000;
/// Samples of the shortest Opus frame, 2.5 ms; every length is a multiple of it.
const QUANTUM: usize = 120;
/// The longest Opus packet without padding: what 120 ms may take (RFC 6716 §3.4) is far beyond our 60 ms of voice.
const MAX_PAYLOAD: usize = 1_275;
/// Encoder effort of 0 to 10: 5 costs two thirds of 9 and sounds the same in voice.
const COMPLEXITY: c_int = 5;
/// Bits per second when the peer loses nothing, and when FEC has to fit in as well.
const BITRATE: c_int = 24_000;
const BITRATE_WITH_FEC: c_int = 32_000;
/// Losses beyond this are not what FEC can mend; libopus would starve the sound for it.
const MAX_LOSS_PERCENT: u8 = 30;

fn error(what: &'static str) -> CodecError {
    CodecError { codec: CodecKind::Opus, what }
}

/// libopus' codes (opus_defines.h) in words.
fn describe(code: c_int) -> CodecError {
    error(match code {
        sys::OPUS_BAD_ARG => "libopus was given a wrong argument",
        sys::OPUS_BUFFER_TOO_SMALL => "the buffer is too small",
        sys::OPUS_INVALID_PACKET => "the payload is not an Opus packet",
        sys::OPUS_ALLOC_FAIL => "no memory",
        _ => "libopus failed inside",
    })
}

/// A result of libopus: a count, or a negative code.
fn count(result: c_int) -> Result<usize, CodecError> {
    usize::try_from(result).map_err(|_| describe(result))
}

/// The samples at 48 kHz in a packet, from its first two bytes (RFC 6716 §3.1, §3.2); `None` when it says more than
/// 120 ms or nothing.
pub fn packet_samples(payload: &[u8]) -> Option<usize> {
    let toc = *payload.first()?;
    let frame = match toc >> 3 {
        config @ 0..12 => [480, 960, 1_920, 2_880][usize::from(config & 3)], // SILK
        config @ 12..16 => [480, 960][usize::from(config & 1)],              // hybrid
        config => [120, 240, 480, 960][usize::from(config & 3)],             // CELT
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => usize::from(payload.get(1)? & 0x3f),
    };
    let samples = frame * frames;
    (1..=super::MAX_PACKET_SAMPLES).contains(&samples).then_some(samples)
}

/// A libopus encoder.
#[derive(Debug)]
pub struct Encoder(NonNull<sys::OpusEncoder>);

// SAFETY: the state is plain memory without thread-locals or interior pointers to a thread; the wrapper owns it alone,
// and every use goes through `&mut self`.
unsafe impl Send for Encoder {}

impl Encoder {
    /// Makes an encoder with the settings of this module.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> Result<Self, CodecError> {
        let mut code = sys::OPUS_OK;
        // SAFETY: constant, valid arguments; `code` outlives the call. Null is handled below.
        let state = unsafe { sys::opus_encoder_create(RATE, 1, sys::OPUS_APPLICATION_VOIP, &raw mut code) };
        let mut encoder = Self(NonNull::new(state).ok_or_else(|| describe(code))?);
        for (request, value) in [
            (sys::OPUS_SET_COMPLEXITY_REQUEST, COMPLEXITY),
            (sys::OPUS_SET_SIGNAL_REQUEST, sys::OPUS_SIGNAL_VOICE),
            (sys::OPUS_SET_INBAND_FEC_REQUEST, 1),
            (sys::OPUS_SET_DTX_REQUEST, 0),
            (sys::OPUS_SET_BITRATE_REQUEST, BITRATE),
        ] {
            encoder.set(request, value)?;
        }
        Ok(encoder)
    }

    fn set(&mut self, request: c_int, value: c_int) -> Result<(), CodecError> {
        // SAFETY: the state is alive and ours; each request used in this module takes one int by value.
        let result = unsafe { sys::opus_encoder_ctl(self.0.as_ptr(), request, value) };
        count(result).map(drop)
    }

    /// Encodes 10, 20, 40 or 60 ms at 48 kHz; returns the payload's length.
    pub(super) fn encode(&mut self, frame: &[i16], payload: &mut [u8]) -> Result<usize, CodecError> {
        if payload.is_empty() {
            return Err(error("the payload buffer is too small for the frame"));
        }
        let capacity = payload.len().min(MAX_PAYLOAD) as i32;
        // SAFETY: libopus reads `frame.len()` samples of the one channel and writes at most `capacity` bytes; both
        // lengths are those of live slices. It refuses frame lengths Opus does not have.
        let result = unsafe {
            sys::opus_encode(self.0.as_ptr(), frame.as_ptr(), frame.len() as c_int, payload.as_mut_ptr(), capacity)
        };
        count(result)
    }

    /// Loss the peer reports, percent: sets how much FEC is sent, and makes room for it.
    pub(super) fn set_loss(&mut self, percent: u8) {
        let percent = percent.min(MAX_LOSS_PERCENT);
        let bitrate = if percent == 0 { BITRATE } else { BITRATE_WITH_FEC };
        for (request, value) in
            [(sys::OPUS_SET_PACKET_LOSS_PERC_REQUEST, percent.into()), (sys::OPUS_SET_BITRATE_REQUEST, bitrate)]
        {
            let set = self.set(request, value);
            debug_assert!(set.is_ok(), "values in libopus' range are taken: {set:?}");
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: created by opus_encoder_create, destroyed once.
        unsafe { sys::opus_encoder_destroy(self.0.as_ptr()) }
    }
}

/// A libopus decoder; stereo packets come out as mono.
#[derive(Debug)]
pub struct Decoder(NonNull<sys::OpusDecoder>);

// SAFETY: as for the encoder.
unsafe impl Send for Decoder {}

impl Decoder {
    /// Makes a decoder.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> Result<Self, CodecError> {
        let mut code = sys::OPUS_OK;
        // SAFETY: constant, valid arguments; `code` outlives the call. Null is handled below.
        let state = unsafe { sys::opus_decoder_create(RATE, 1, &raw mut code) };
        NonNull::new(state).map(Self).ok_or_else(|| describe(code))
    }

    /// Decodes a packet into the start of `out`; returns its samples.
    pub(super) fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        let samples = packet_samples(payload).ok_or_else(|| describe(sys::OPUS_INVALID_PACKET))?;
        if samples > out.len() {
            return Err(error("the payload is longer than the buffer for its samples"));
        }
        self.call(Some(payload), out, false)
    }

    /// Fills `out` from the FEC of the packet after the gap when there is one, else by libopus' concealment.
    pub(super) fn conceal(&mut self, next: Option<&[u8]>, out: &mut [i16]) {
        // libopus conceals in whole quanta, up to 120 ms a call.
        let mut parts = out.chunks_mut(super::MAX_PACKET_SAMPLES).peekable();
        while let Some(part) = parts.next() {
            let whole = part.len() / QUANTUM * QUANTUM;
            let (whole, rest) = part.split_at_mut(whole);
            rest.fill(0);
            if whole.is_empty() {
                continue;
            }
            // Only the last 20 ms or so before `next` are in it; libopus itself conceals what comes earlier.
            let fec = next.filter(|next| parts.peek().is_none() && packet_samples(next).is_some());
            let made = match fec {
                Some(next) => self.call(Some(next), whole, true).or_else(|_| self.call(None, whole, false)),
                None => self.call(None, whole, false),
            };
            whole[made.unwrap_or(0)..].fill(0);
        }
    }

    fn call(&mut self, payload: Option<&[u8]>, out: &mut [i16], fec: bool) -> Result<usize, CodecError> {
        let (data, length) = payload.map_or((std::ptr::null(), 0), |p| (p.as_ptr(), p.len()));
        let length = i32::try_from(length).map_err(|_| describe(sys::OPUS_INVALID_PACKET))?;
        let capacity = out.len().min(super::MAX_PACKET_SAMPLES) as c_int;
        // SAFETY: libopus reads `length` bytes (null means a lost packet) and writes at most `capacity` samples of the
        // one channel; both lengths are those of live slices. It checks the packet against them before use.
        let result =
            unsafe { sys::opus_decode(self.0.as_ptr(), data, length, out.as_mut_ptr(), capacity, c_int::from(fec)) };
        count(result)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: created by opus_decoder_create, destroyed once.
        unsafe { sys::opus_decoder_destroy(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use ropus::DecodeMode;

    use super::*;
    use crate::audio::codec::MAX_PACKET_SAMPLES;

    const FRAME: usize = 960;

    /// Something voiced: harmonics of a gliding pitch with a moving envelope.
    fn voice(frames: usize) -> Vec<i16> {
        let mut phase = 0.0f64;
        (0..frames * FRAME)
            .map(|n| {
                let t = n as f64 / 48_000.0;
                phase += std::f64::consts::TAU * (130.0 + 30.0 * (t * 5.0).sin()) / 48_000.0;
                let harmonics: f64 = (1..12).map(|h| (phase * f64::from(h)).sin() / f64::from(h)).sum();
                (6_000.0 * harmonics * (0.6 + 0.4 * (t * 20.0).sin())) as i16
            })
            .collect()
    }

    fn snr(reference: &[i16], heard: &[i16]) -> f64 {
        let power = |x: f64| x * x;
        let signal: f64 = reference.iter().map(|&a| power(a.into())).sum();
        let noise: f64 = reference.iter().zip(heard).map(|(&a, &b)| power(f64::from(a) - f64::from(b))).sum();
        10.0 * (signal / noise.max(1.0)).log10()
    }

    fn encode(pcm: &[i16], loss: u8) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new().unwrap();
        encoder.set_loss(loss);
        let mut payload = [0; 1500];
        pcm.chunks(FRAME)
            .map(|frame| {
                let length = encoder.encode(frame, &mut payload).unwrap();
                payload[..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn the_bitrate_is_what_was_asked_for() {
        let pcm = voice(250);
        for (loss, low, high) in [(0, 15_000, 28_000), (10, 20_000, 36_000)] {
            let bits: usize = encode(&pcm, loss).iter().map(|payload| payload.len() * 8).sum();
            assert!((low..high).contains(&(bits / 5)), "{} bit/s at {loss} % loss", bits / 5);
        }
    }

    /// libopus' packets sound the same from `ropus`, an independent port, and the other way round.
    #[test]
    fn ropus_and_libopus_understand_each_other() {
        let pcm = voice(50);
        let mut theirs = ropus::Decoder::new(48_000, ropus::Channels::Mono).unwrap();
        let mut ours = Decoder::new().unwrap();
        let (mut heard_by_us, mut heard_by_them) = (vec![], vec![]);
        let mut out = [0; FRAME];
        for payload in encode(&pcm, 10) {
            assert_eq!(ours.decode(&payload, &mut out), Ok(FRAME));
            heard_by_us.extend(out);
            assert_eq!(theirs.decode(&payload, &mut out, DecodeMode::Normal).unwrap(), FRAME);
            heard_by_them.extend(out);
        }
        assert!(snr(&heard_by_them, &heard_by_us) > 45.0, "{}", snr(&heard_by_them, &heard_by_us));

        let mut encoder =
            ropus::Encoder::builder(48_000, ropus::Channels::Mono, ropus::Application::Voip).build().unwrap();
        let (mut theirs, mut ours) =
            (ropus::Decoder::new(48_000, ropus::Channels::Mono).unwrap(), Decoder::new().unwrap());
        let mut payload = [0; 1500];
        let (mut heard_by_us, mut heard_by_them) = (vec![], vec![]);
        for frame in pcm.chunks(FRAME) {
            let length = encoder.encode(frame, &mut payload).unwrap();
            assert_eq!(ours.decode(&payload[..length], &mut out), Ok(FRAME));
            heard_by_us.extend(out);
            theirs.decode(&payload[..length], &mut out, DecodeMode::Normal).unwrap();
            heard_by_them.extend(out);
        }
        assert!(snr(&heard_by_them, &heard_by_us) > 45.0, "{}", snr(&heard_by_them, &heard_by_us));
    }

    #[test]
    fn a_stereo_packet_becomes_mono() {
        let pcm = voice(50);
        let stereo: Vec<i16> = pcm.iter().flat_map(|&s| [s, s]).collect();
        let mut encoder = ropus::Encoder::builder(48_000, ropus::Channels::Stereo, ropus::Application::Audio)
            .force_channels(ropus::ForceChannels::Stereo)
            .bitrate(ropus::Bitrate::Bits(96_000))
            .build()
            .unwrap();
        let (mut payload, mut out, mut heard) = ([0; 1500], [0; MAX_PACKET_SAMPLES], vec![]);
        let mut decoder = Decoder::new().unwrap();
        for frame in stereo.chunks(2 * FRAME) {
            let length = encoder.encode(frame, &mut payload).unwrap();
            assert_eq!(payload[0] & 4, 4, "the TOC says stereo");
            assert_eq!(decoder.decode(&payload[..length], &mut out), Ok(FRAME));
            heard.extend(&out[..FRAME]);
        }
        let energy = |pcm: &[i16]| pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>();
        let ratio = energy(&heard) / energy(&pcm);
        assert!((0.8..1.2).contains(&ratio), "energy ratio {ratio}");
    }

    #[test]
    fn fec_brings_back_more_of_a_lost_packet_than_concealment() {
        let pcm = voice(100);
        let packets = encode(&pcm, 20);
        let play = |lost: &dyn Fn(usize) -> bool, fec: bool| {
            let (mut decoder, mut heard, mut out) = (Decoder::new().unwrap(), vec![], [0; FRAME]);
            for (n, payload) in packets.iter().enumerate() {
                if lost(n) {
                    decoder.conceal(packets.get(n + 1).filter(|_| fec).map(Vec::as_slice), &mut out);
                } else {
                    decoder.decode(payload, &mut out).unwrap();
                }
                heard.extend(out);
            }
            heard
        };
        let whole = play(&|_| false, false);
        let lost = |n: usize| n > 10 && n.is_multiple_of(10);
        let (with, without) = (snr(&whole, &play(&lost, true)), snr(&whole, &play(&lost, false)));
        assert!(with > without + 3.0, "FEC {with} dB, concealment {without} dB");
    }

    #[test]
    fn gaps_of_any_length_are_filled() {
        let packets = encode(&voice(20), 10);
        for length in [0, 1, 119, 120, 480, 961, 5_760, 5_761, 20_000] {
            for next in [None, Some(packets[19].as_slice()), Some(&[]), Some(&[0xff])] {
                let mut decoder = Decoder::new().unwrap();
                for payload in &packets[..19] {
                    decoder.decode(payload, &mut [0; FRAME]).unwrap();
                }
                let mut out = vec![1; length];
                decoder.conceal(next, &mut out);
                assert!(length < 120 || out.iter().any(|&s| s != 1), "{length}");
            }
        }
    }

    /// Packets mutated at random: an error or sound, nothing else, and the decoder still works afterwards.
    #[test]
    fn garbage_is_refused_and_does_no_lasting_harm() {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let packets = encode(&voice(50), 10);
        let (mut decoder, mut out) = (Decoder::new().unwrap(), [0; MAX_PACKET_SAMPLES]);
        for round in 0..5_000 {
            let mut payload = packets[round % packets.len()].clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..payload.len());
                payload[at] = random.random();
            }
            payload.truncate(random.random_range(1..=payload.len()));
            if let Ok(samples) = decoder.decode(&payload, &mut out) {
                assert_eq!(Some(samples), packet_samples(&payload));
            }
        }
        assert_eq!(decoder.decode(&packets[0], &mut out), Ok(FRAME));
        assert_eq!(decoder.decode(&[0xff; 3], &mut out).unwrap_err().codec, CodecKind::Opus);
    }

    #[test]
    fn packet_lengths_follow_the_toc() {
        for (payload, samples) in [
            (&[][..], None),
            (&[0b0000_0000], Some(480)),
            (&[0b0001_1000], Some(2_880)),
            (&[0b0110_1000], Some(960)),
            (&[0b0111_1001, 0], Some(1_920)),
            (&[0b1000_0000], Some(120)),
            (&[0b1111_1010, 0], Some(1_920)),
            (&[0b1111_1011], None),
            (&[0b1111_1011, 6], Some(5_760)),
            (&[0b1111_1011, 7], None),
            (&[0b1111_1011, 0], None),
        ] {
            assert_eq!(packet_samples(payload), samples, "{payload:?}");
        }
    }
}
