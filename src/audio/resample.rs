//! Sample rate conversion: frame by frame for the graph, any length and rate for files.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{
    Async, Fft, FixedAsync, FixedSync, Resampler as _, SincInterpolationParameters, SincInterpolationType,
    WindowFunction, calculate_cutoff,
};

use super::MAX_FRAME;

/// Rates a file may have, Hz. Beyond them a header is nonsense rather than audio.
pub const FILE_RATES: std::ops::RangeInclusive<u32> = 1_000..=384_000;
/// The largest FFT block for a pair of rates with little in common; above it interpolation is cheaper.
const MAX_BLOCK: u32 = 4_096;
/// From this rate on blocks of the graph's converter are short: what the wider transition takes away is above 6 kHz.
const SHORT_FROM: u32 = 16_000;
/// Blocks a second of the graph's converter (its delay is half a block).
const BLOCKS: u32 = 100;
const SHORT_BLOCKS: u32 = 400;
/// Samples handed to the interpolating converter at a time.
const INTERPOLATED_CHUNK: usize = 512;

/// Why two rates cannot be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResampleError {
    #[error("a frame of 20 ms at {0} Hz is not a whole even number of samples, or longer than 20 ms at 48000 Hz")]
    Frame(u32),
    #[error("{0} Hz is not a sample rate of audio ({min} to {max})", min = FILE_RATES.start(), max = FILE_RATES.end())]
    Rate(u32),
}

/// Whether ports of the graph may run at this rate: 10 ms are a whole number of samples, 20 ms fit a frame.
pub fn is_frame_rate(rate: u32) -> bool {
    rate != 0 && rate.is_multiple_of(100) && rate as usize / 50 <= MAX_FRAME
}

/// Turns 20 ms frames at one rate into 20 ms frames at another, 5 ms late, or 1.25 ms when both rates are 16 kHz or more
/// and whole in 2.5 ms: a loop through two programs converts four times, and every 20 ms of delay in sum are a frame.
/// Allocates when made and never again.
#[derive(Debug)]
pub struct Resampler {
    from: u32,
    to: u32,
    blocks: u32,
    fft: Option<Box<Fft<f32>>>,
    input: [f32; MAX_FRAME / 2],
    output: [f32; MAX_FRAME / 2],
}

impl Resampler {
    /// For frames at `from` Hz into frames at `to` Hz.
    ///
    /// # Errors
    /// A rate that is no [frame rate](is_frame_rate).
    pub fn new(from: u32, to: u32) -> Result<Self, ResampleError> {
        for rate in [from, to] {
            if !is_frame_rate(rate) {
                return Err(ResampleError::Frame(rate));
            }
        }
        let short = [from, to].iter().all(|&rate| rate >= SHORT_FROM && rate.is_multiple_of(SHORT_BLOCKS));
        let blocks = if short { SHORT_BLOCKS } else { BLOCKS };
        let fft = (from != to).then(|| {
            let block = (from / blocks) as usize;
            // The steepest window there is room for in a block of 10 ms: 3.4 kHz must pass to 8 kHz, and images stay below -60 dB.
            let window = WindowFunction::Hann2;
            let fft = Fft::new_custom(from as usize, to as usize, block, 1, 1, window, FixedSync::Both);
            let fft = fft.expect("a block is a whole number of samples at both rates");
            assert_eq!((fft.fft_size_in(), fft.fft_size_out()), (block, (to / blocks) as usize), "one block at a time");
            Box::new(fft)
        });
        Ok(Self { from, to, blocks, fft, input: [0.0; MAX_FRAME / 2], output: [0.0; MAX_FRAME / 2] })
    }

    /// The rates it converts from and to, Hz.
    pub fn rates(&self) -> (u32, u32) {
        (self.from, self.to)
    }

    /// Converts one frame: `frame.len()` is `from / 50`, `out.len()` is `to / 50`.
    pub fn process(&mut self, frame: &[i16], out: &mut [i16]) {
        let (block_in, block_out) = ((self.from / self.blocks) as usize, (self.to / self.blocks) as usize);
        assert_eq!((frame.len(), out.len()), (self.from as usize / 50, self.to as usize / 50), "frames are 20 ms");
        let Some(fft) = &mut self.fft else {
            out.copy_from_slice(frame);
            return;
        };
        for (frame, out) in frame.chunks_exact(block_in).zip(out.chunks_exact_mut(block_out)) {
            for (to, &from) in self.input.iter_mut().zip(frame) {
                *to = from.into();
            }
            let input = SequentialSlice::new(&self.input[..block_in], 1, block_in).expect("one channel of a block");
            let mut output =
                SequentialSlice::new_mut(&mut self.output[..block_out], 1, block_out).expect("one channel of a block");
            fft.process_into_buffer(&input, &mut output, None).expect("buffers of the size the resampler asked for");
            for (to, &from) in out.iter_mut().zip(&self.output) {
                *to = to_sample(from);
            }
        }
    }

    /// Forgets the past, as if just made.
    pub fn reset(&mut self) {
        if let Some(fft) = &mut self.fft {
            fft.reset();
        }
    }
}

/// Rounds and limits; `as` saturates.
fn to_sample(value: f32) -> i16 {
    value.round_ties_even() as i16
}

/// Converts a stream of any rates without shifting it (by more than 50 µs): the converter's own delay is cut off. For
/// files and other places that may allocate.
pub struct Converter {
    ratio: f64,
    inner: Option<Box<dyn rubato::Resampler<f32>>>,
    pending: Vec<f32>,
    output: Vec<f32>,
    /// Samples of the converter's delay still to be cut off.
    skip: usize,
    taken: u64,
    given: u64,
}

impl Converter {
    /// From `from` Hz to `to` Hz.
    ///
    /// # Errors
    /// A rate outside [`FILE_RATES`].
    pub fn new(from: u32, to: u32) -> Result<Self, ResampleError> {
        for rate in [from, to] {
            if !FILE_RATES.contains(&rate) {
                return Err(ResampleError::Rate(rate));
            }
        }
        let inner = (from != to).then(|| converter(from, to));
        let (skip, room) = inner.as_ref().map_or((0, 0), |inner| (inner.output_delay(), inner.output_frames_max()));
        let ratio = f64::from(to) / f64::from(from);
        Ok(Self { ratio, inner, pending: Vec::new(), output: vec![0.0; room], skip, taken: 0, given: 0 })
    }

    /// Takes samples and appends to `out` what is ready.
    pub fn convert(&mut self, samples: &[i16], out: &mut Vec<i16>) {
        self.taken += samples.len() as u64;
        if self.inner.is_none() {
            self.given += samples.len() as u64;
            out.extend_from_slice(samples);
            return;
        }
        self.pending.extend(samples.iter().map(|&s| f32::from(s)));
        self.run(out);
    }

    /// Appends the rest: in all, the time that came in goes out.
    pub fn finish(&mut self, out: &mut Vec<i16>) {
        let total = (self.taken as f64 * self.ratio).round() as u64;
        while self.given < total {
            let missing = self.inner.as_ref().map_or(0, |inner| inner.input_frames_next());
            self.pending.resize(self.pending.len().max(missing), 0.0);
            let before = out.len();
            self.run(out);
            if self.given > total {
                let extra = (self.given - total) as usize;
                out.truncate((out.len() - extra).max(before));
                self.given = total;
            }
        }
    }

    fn run(&mut self, out: &mut Vec<i16>) {
        let Some(inner) = &mut self.inner else { return };
        let mut at = 0;
        loop {
            let need = inner.input_frames_next();
            let Some(chunk) = self.pending.get(at..at + need) else { break };
            let input = SequentialSlice::new(chunk, 1, need).expect("one channel of the length asked for");
            let room = self.output.len();
            let mut output = SequentialSlice::new_mut(&mut self.output, 1, room).expect("one channel of the room made");
            let (used, made) =
                inner.process_into_buffer(&input, &mut output, None).expect("buffers of the size it asked for");
            at += used;
            let skipped = self.skip.min(made);
            self.skip -= skipped;
            self.given += (made - skipped) as u64;
            out.extend(self.output[skipped..made].iter().map(|&s| to_sample(s)));
        }
        self.pending.drain(..at);
    }
}

/// An FFT converter where the rates have a common block, else an interpolating one.
fn converter(from: u32, to: u32) -> Box<dyn rubato::Resampler<f32>> {
    let divisor = gcd(from, to);
    if from.max(to) / divisor <= MAX_BLOCK {
        // About 20 ms; an even number of samples, or the delay would not be a whole number of them.
        let unit = from / divisor * 2;
        let chunk = (from / 50).next_multiple_of(unit) as usize;
        let fft = Fft::new(from as usize, to as usize, chunk, 1, FixedSync::Both);
        return Box::new(fft.expect("two rates of audio"));
    }
    let window = WindowFunction::BlackmanHarris2;
    let sinc_len = 128;
    let parameters = SincInterpolationParameters {
        sinc_len,
        f_cutoff: Some(calculate_cutoff(sinc_len, window)),
        oversampling_factor: 256,
        interpolation: SincInterpolationType::Linear,
        window,
    };
    let ratio = f64::from(to) / f64::from(from);
    let sinc = Async::new_sinc(ratio, 1.0, &parameters, INTERPOLATED_CHUNK, 1, FixedAsync::Input);
    Box::new(sinc.expect("a ratio of two rates of audio"))
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Converts a whole recording from one rate to another; its length in seconds stays.
///
/// # Errors
/// A rate outside [`FILE_RATES`].
pub fn resample_all(pcm: &[i16], from: u32, to: u32) -> Result<Vec<i16>, ResampleError> {
    let mut out = Vec::with_capacity((pcm.len() as u64 * u64::from(to) / u64::from(from.max(1))) as usize + 1);
    let mut converter = Converter::new(from, to)?;
    converter.convert(pcm, &mut out);
    converter.finish(&mut out);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hz: f64, samples: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * hz / f64::from(rate);
        (0..samples).map(|n| (10_000.0 * (step * n as f64).sin()).round() as i16).collect()
    }

    fn rms(pcm: &[i16]) -> f64 {
        (pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / pcm.len() as f64).sqrt()
    }

    /// The rms of what differs from a tone of this frequency, whatever its phase and size: least squares on sine and
    /// cosine.
    fn off_tone(pcm: &[i16], rate: u32, hz: f64) -> f64 {
        let step = std::f64::consts::TAU * hz / f64::from(rate);
        let (mut a, mut b) = (0.0, 0.0);
        for (n, &s) in pcm.iter().enumerate() {
            a += f64::from(s) * (step * n as f64).sin();
            b += f64::from(s) * (step * n as f64).cos();
        }
        let (a, b) = (2.0 * a / pcm.len() as f64, 2.0 * b / pcm.len() as f64);
        let rest = pcm
            .iter()
            .enumerate()
            .map(|(n, &s)| (f64::from(s) - a * (step * n as f64).sin() - b * (step * n as f64).cos()).powi(2));
        (rest.sum::<f64>() / pcm.len() as f64).sqrt()
    }

    const RATES: [u32; 6] = [8_000, 16_000, 24_000, 32_000, 44_100, 48_000];

    #[test]
    fn frames_keep_a_tone_between_all_rates() {
        for from in RATES {
            for to in RATES {
                let mut resampler = Resampler::new(from, to).unwrap();
                let (size, out_size) = (from as usize / 50, to as usize / 50);
                let mut heard = vec![];
                for frame in tone(from, 1_000.0, size * 50).chunks(size) {
                    let mut out = vec![0; out_size];
                    resampler.process(frame, &mut out);
                    heard.extend(out);
                }
                let steady = &heard[to as usize / 10..to as usize / 10 * 9];
                let (level, rest) = (rms(steady), off_tone(steady, to, 1_000.0));
                assert!((level - 7_071.0).abs() < 40.0, "{from} to {to}: level {level}");
                assert!(rest < 3.0, "{from} to {to}: {rest} beside the tone");
            }
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_carry_is_gone() {
        let mut resampler = Resampler::new(48_000, 8_000).unwrap();
        let mut out = [0; 160];
        for frame in tone(48_000, 5_000.0, 48_000).chunks(960) {
            resampler.process(frame, &mut out);
        }
        assert!(rms(&out) < 1.0, "{}", rms(&out));
    }

    #[test]
    fn telephone_speech_up_to_3_4_khz_passes_downwards() {
        let mut resampler = Resampler::new(48_000, 8_000).unwrap();
        let mut out = [0; 160];
        for frame in tone(48_000, 3_400.0, 48_000).chunks(960) {
            resampler.process(frame, &mut out);
        }
        assert!(rms(&out) > 0.7 * 7_071.0, "{}", rms(&out));
    }

    #[test]
    fn wideband_passes_up_to_6_khz_through_short_blocks() {
        let mut resampler = Resampler::new(48_000, 16_000).unwrap();
        let mut out = [0; 320];
        for (hz, level) in [(6_000.0, 0.7..1.01), (10_000.0, 0.0..0.001)] {
            for frame in tone(48_000, hz, 48_000).chunks(960) {
                resampler.process(frame, &mut out);
            }
            assert!(level.contains(&(rms(&out) / 7_071.0)), "{hz} Hz: {}", rms(&out));
        }
    }

    #[test]
    fn the_delay_is_half_a_block() {
        let cases = [(48_000, 8_000, 5.0), (8_000, 48_000, 5.0), (16_000, 48_000, 1.25), (48_000, 16_000, 1.25)];
        for (from, to, delay) in cases {
            let mut resampler = Resampler::new(from, to).unwrap();
            let mut frame = vec![0; from as usize / 50];
            frame[from as usize / 500] = 20_000; // at 2 ms
            let mut out = vec![0; to as usize / 50];
            resampler.process(&frame, &mut out);
            let peak = out.iter().enumerate().max_by_key(|(_, s)| s.unsigned_abs()).unwrap().0;
            let ms = peak as f64 * 1_000.0 / f64::from(to);
            assert!((ms - 2.0 - delay).abs() < 0.3, "{from} to {to}: {ms} ms");
        }
    }

    #[test]
    fn rates_that_make_no_frame_are_refused() {
        for rate in [0, 50, 11_025, 22_050, 48_001, 96_000] {
            assert_eq!(Resampler::new(rate, 8_000).unwrap_err(), ResampleError::Frame(rate));
            assert_eq!(Resampler::new(8_000, rate).unwrap_err(), ResampleError::Frame(rate));
        }
    }

    #[test]
    fn whole_recordings_keep_length_place_and_tone() {
        for (from, to) in [
            (11_025, 48_000),
            (22_050, 8_000),
            (44_100, 16_000),
            (8_000, 48_000),
            (48_000, 48_000),
            (47_999, 48_000),
            (96_000, 44_100),
            (8_001, 16_000),
            (47_999, 8_000),
            (31_999, 48_000),
        ] {
            let input = tone(from, 700.0, from as usize);
            let out = resample_all(&input, from, to).unwrap();
            assert_eq!(out.len(), to as usize, "{from} to {to}");
            let steady = to as usize / 10..to as usize / 10 * 9;
            let expected = tone(to, 700.0, to as usize);
            let difference: Vec<i16> = out.iter().zip(&expected).map(|(a, b)| a.saturating_sub(*b)).collect();
            let error = rms(&difference[steady]);
            // The interpolating converter, for rates with nothing in common, is up to 50 µs off its stated delay.
            let most = if gcd(from, to) < 20 { 7_071.0 * std::f64::consts::TAU * 700.0 * 50e-6 } else { 5.0 };
            assert!(error < most, "{from} to {to}: {error} off, so shifted or distorted");
        }
    }

    #[test]
    fn short_and_empty_recordings_are_fine() {
        for from in [8_000, 11_025, 47_999] {
            for length in [0, 1, 2, 100] {
                let out = resample_all(&vec![100; length], from, 48_000).unwrap();
                let expected = (length as f64 * 48_000.0 / f64::from(from)).round() as usize;
                assert_eq!(out.len(), expected, "{length} at {from}");
            }
        }
        assert_eq!(resample_all(&[], 0, 8_000), Err(ResampleError::Rate(0)));
        assert_eq!(resample_all(&[], u32::MAX, 8_000), Err(ResampleError::Rate(u32::MAX)));
    }
}
