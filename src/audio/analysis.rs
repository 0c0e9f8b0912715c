//! Measurements on recordings: tones, levels, delay, spectrogram, gaps.
//!
//! All take mono samples of a whole recording and its rate in Hz, and may allocate.

use std::f64::consts::TAU;
use std::time::Duration;

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// Samples looked at for a tone: 2^17 are 2.7 s at 48 kHz, enough for a tenth of a Hz.
const MAX_TONE_WINDOW: usize = 1 << 17;
/// Bins on either side of a peak that belong to it under a Blackman-Harris window.
const PEAK_BINS: usize = 4;
/// Range of a spectrogram, dB below its loudest point.
const SPECTROGRAM_RANGE: f32 = 80.0;
/// A column of a spectrogram looks at about this much sound.
const SPECTROGRAM_WINDOW: Duration = Duration::from_millis(32);

/// The loudest tone of a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tone {
    /// Frequency, Hz; better than ±0.5 for a second of it.
    pub hz: f64,
    /// RMS of the tone alone, dB below full scale (a full-scale sine is -3).
    pub level: f64,
    /// The tone against everything else, dB.
    pub snr: f64,
}

/// Finds the loudest tone between 20 Hz and half the rate, in the middle of what was recorded; `None` when it is silent
/// or shorter than 64 samples.
pub fn dominant_tone(pcm: &[i16], rate: u32) -> Option<Tone> {
    let length = pcm.len().min(MAX_TONE_WINDOW);
    if length < 64 || rate == 0 {
        return None;
    }
    let start = (pcm.len() - length) / 2;
    let pcm = &pcm[start..start + length];
    let size = length.next_power_of_two();
    let spectrum = spectrum(pcm, size);
    let lowest = (20.0 * size as f64 / f64::from(rate)).ceil() as usize;
    let magnitude = |bin: usize| spectrum.get(bin).map_or(0.0, |value| value.norm());
    let peak = (lowest.max(1)..size / 2).max_by(|&a, &b| magnitude(a).total_cmp(&magnitude(b)))?;
    if magnitude(peak) <= 0.0 {
        return None;
    }
    // A parabola through the logarithms of the three highest bins; then least squares around it, which also splits the
    // sound into the tone and the rest.
    let [before, at, after] = [peak - 1, peak, peak + 1].map(|bin| magnitude(bin).max(1e-9).ln());
    let curve = before - 2.0 * at + after;
    let offset = if curve == 0.0 { 0.0 } else { ((before - after) / (2.0 * curve)).clamp(-0.5, 0.5) };
    let hz = (peak as f64 + offset) * f64::from(rate) / size as f64;
    let (hz, tone, total) = refine(pcm, rate, hz);
    let rest = (total - tone).max(total * 1e-12).max(1e-9);
    let scale = 32_768.0f64.powi(2);
    Some(Tone { hz, level: 10.0 * (tone / scale).max(1e-13).log10(), snr: 10.0 * (tone / rest).max(1e-13).log10() })
}

/// The tone of a given frequency: its level, and how far it stands above everything else.
pub fn tone_at(pcm: &[i16], rate: u32, hz: f64) -> Tone {
    let (tone, total) = project(pcm, rate, hz);
    let rest = (total - tone).max(total * 1e-12).max(1e-9);
    let scale = 32_768.0f64.powi(2);
    Tone { hz, level: 10.0 * (tone / scale).max(1e-13).log10(), snr: 10.0 * (tone / rest).max(1e-13).log10() }
}

/// Mean powers of the part of `pcm` that is a sine of `hz`, and of all of it without its constant part.
fn project(pcm: &[i16], rate: u32, hz: f64) -> (f64, f64) {
    let count = pcm.len().max(1) as f64;
    let mean = pcm.iter().map(|&s| f64::from(s)).sum::<f64>() / count;
    let turn = Complex::from_polar(1.0, -TAU * hz / f64::from(rate));
    let (mut sum, mut squares, mut total) = (Complex::new(0.0, 0.0), Complex::new(0.0, 0.0), 0.0);
    let mut phase = Complex::new(1.0, 0.0);
    for (n, &sample) in pcm.iter().enumerate() {
        let value = f64::from(sample) - mean;
        sum += phase * value;
        squares += phase * phase;
        total += value * value;
        phase *= turn;
        if n % 1_024 == 0 {
            phase /= phase.norm(); // rounding must not make the oscillator grow
        }
    }
    // Least squares for a·cos + b·sin; `squares` corrects for a window that is not whole periods.
    let (cc, ss, cs) = ((count + squares.re) / 2.0, (count - squares.re) / 2.0, -squares.im / 2.0);
    let (c, s) = (sum.re, -sum.im);
    let determinant = cc * ss - cs * cs;
    if determinant.abs() < 1e-9 {
        return (0.0, total / count);
    }
    let (a, b) = ((c * ss - s * cs) / determinant, (s * cc - c * cs) / determinant);
    ((a * c + b * s) / count, total / count)
}

/// The frequency near `hz` that explains most of `pcm`, by golden section; with the powers of [`project`].
fn refine(pcm: &[i16], rate: u32, hz: f64) -> (f64, f64, f64) {
    let half_bin = f64::from(rate) / pcm.len() as f64 / 2.0;
    let (mut low, mut high) = (hz - half_bin, hz + half_bin);
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    for _ in 0..20 {
        let (a, b) = (high - golden * (high - low), low + golden * (high - low));
        if project(pcm, rate, a).0 > project(pcm, rate, b).0 { high = b } else { low = a }
    }
    let hz = f64::midpoint(low, high);
    let (tone, total) = project(pcm, rate, hz);
    (hz, tone, total)
}

/// The spectrum of samples under a Blackman-Harris window, padded with zeros to `size`.
fn spectrum(pcm: &[i16], size: usize) -> Vec<Complex<f64>> {
    let mean = pcm.iter().map(|&s| f64::from(s)).sum::<f64>() / pcm.len().max(1) as f64;
    let mut buffer: Vec<Complex<f64>> = pcm
        .iter()
        .enumerate()
        .map(|(n, &s)| Complex::new((f64::from(s) - mean) * blackman_harris(n, pcm.len()), 0.0))
        .collect();
    buffer.resize(size, Complex::new(0.0, 0.0));
    FftPlanner::new().plan_fft_forward(size).process(&mut buffer);
    buffer
}

fn blackman_harris(n: usize, length: usize) -> f64 {
    let x = TAU * n as f64 / length as f64;
    0.358_75 - 0.488_29 * x.cos() + 0.141_28 * (2.0 * x).cos() - 0.011_68 * (3.0 * x).cos()
}

/// RMS in dB below full scale; a full-scale sine is -3, silence is -127.
pub fn level_dbfs(pcm: &[i16]) -> f32 {
    let energy: f64 = pcm.iter().map(|&s| f64::from(s).powi(2)).sum();
    let rms = (energy / pcm.len().max(1) as f64).sqrt() / 32_768.0;
    (20.0 * rms.log10()).max(-127.0) as f32
}

/// How much later `recording` holds what `reference` does, ms (negative: earlier), by cross-correlation; both at
/// `rate`. `None` when one is silent or they have nothing in common.
pub fn delay_ms(reference: &[i16], recording: &[i16], rate: u32) -> Option<f64> {
    /// A peak this small against two equal signals is chance.
    const LEAST: f64 = 0.1;
    if reference.is_empty() || recording.is_empty() || rate == 0 {
        return None;
    }
    let size = (reference.len() + recording.len()).next_power_of_two();
    let mut planner = FftPlanner::new();
    let mut transform = |pcm: &[i16]| {
        let mut buffer: Vec<Complex<f64>> = pcm.iter().map(|&s| Complex::new(f64::from(s), 0.0)).collect();
        buffer.resize(size, Complex::new(0.0, 0.0));
        planner.plan_fft_forward(size).process(&mut buffer);
        buffer
    };
    let (reference_f, mut product) = (transform(reference), transform(recording));
    for (value, reference) in product.iter_mut().zip(&reference_f) {
        *value *= reference.conj();
    }
    planner.plan_fft_inverse(size).process(&mut product);
    let peak = (0..size).max_by(|&a, &b| product[a].re.total_cmp(&product[b].re))?;
    let energy = |pcm: &[i16]| pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>();
    let most = (energy(reference) * energy(recording)).sqrt() * size as f64;
    if most <= 0.0 || product[peak].re / most < LEAST {
        return None;
    }
    let at = |offset: usize| product[(peak + offset) % size].re;
    let [before, here, after] = [at(size - 1), at(0), at(1)];
    let curve = before - 2.0 * here + after;
    let offset = if curve == 0.0 { 0.0 } else { ((before - after) / (2.0 * curve)).clamp(-0.5, 0.5) };
    let lag = if peak > recording.len() { peak as f64 - size as f64 } else { peak as f64 };
    Some((lag + offset) * 1_000.0 / f64::from(rate))
}

/// A picture of the sound: `columns` × `rows` bytes, row by row from the highest frequency down to 0 Hz, time from left
/// to right; 255 is the loudest point, 0 is 80 dB or more below it.
pub fn spectrogram(pcm: &[i16], rate: u32, columns: usize, rows: usize) -> Vec<u8> {
    let mut picture = vec![0; columns * rows];
    if pcm.is_empty() || columns == 0 || rows == 0 {
        return picture;
    }
    let window = (f64::from(rate) * SPECTROGRAM_WINDOW.as_secs_f64()) as usize;
    let size = window.max(16).next_power_of_two();
    let fft = FftPlanner::<f32>::new().plan_fft_forward(size);
    let shape: Vec<f32> = (0..size).map(|n| blackman_harris(n, size) as f32).collect();
    let (mut buffer, mut levels) = (vec![Complex::new(0.0f32, 0.0); size], vec![0.0f32; columns * rows]);
    for column in 0..columns {
        let middle = (2 * column + 1) * pcm.len() / (2 * columns);
        for (n, value) in buffer.iter_mut().enumerate() {
            let at = (middle + n).checked_sub(size / 2);
            let sample = at.and_then(|at| pcm.get(at)).copied().unwrap_or(0);
            *value = Complex::new(f32::from(sample) * shape[n], 0.0);
        }
        fft.process(&mut buffer);
        for row in 0..rows {
            // The loudest of the bins a row stands for, so that a thin line is not lost in a small picture.
            let first = row * (size / 2) / rows;
            let last = ((row + 1) * (size / 2) / rows).max(first + 1);
            let power = buffer[first..last].iter().map(Complex::norm_sqr).fold(0.0, f32::max);
            levels[(rows - 1 - row) * columns + column] = 10.0 * power.max(1e-6).log10();
        }
    }
    let loudest = levels.iter().copied().fold(f32::MIN, f32::max);
    for (pixel, level) in picture.iter_mut().zip(&levels) {
        // The floor of a silent recording is not "the loudest point".
        let below = (loudest.max(60.0) - level) / SPECTROGRAM_RANGE;
        *pixel = ((1.0 - below) * 255.0).round() as u8; // saturates
    }
    picture
}

/// Breaks in what should be a steady sound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Breaks {
    /// Places of silence (at least 5 ms of zeros) with sound before and after: start in ms and length in ms.
    pub gaps: Vec<(f64, f64)>,
    /// Places in ms where the curve jumps, as it does at a lost, doubled or misplaced frame.
    pub clicks: Vec<f64>,
}

/// Looks for gaps and clicks in a tone or voice.
///
/// A click is a third difference far above what is usual around it: smooth sounds have small ones, a jump in value or
/// slope has a large one.
pub fn find_breaks(pcm: &[i16], rate: u32) -> Breaks {
    /// How far above the usual a click stands, and the least it must be to be heard.
    const RATIO: f64 = 12.0;
    const LEAST: f64 = 400.0;
    const SILENT: u16 = 2;
    let ms = |samples: usize| samples as f64 * 1_000.0 / f64::from(rate.max(1));
    let mut breaks = Breaks::default();
    let shortest = (rate as usize / 200).max(1);
    let (mut heard, mut zeros) = (false, 0);
    for (n, &sample) in pcm.iter().enumerate() {
        if sample.unsigned_abs() <= SILENT {
            zeros += 1;
        } else {
            if heard && zeros >= shortest {
                breaks.gaps.push((ms(n - zeros), ms(zeros)));
            }
            (heard, zeros) = (true, 0);
        }
    }
    let thirds: Vec<f64> = pcm
        .windows(4)
        .map(|w| (f64::from(w[3]) - 3.0 * f64::from(w[2]) + 3.0 * f64::from(w[1]) - f64::from(w[0])).abs())
        .collect();
    let around = (rate as usize / 50).max(8); // 20 ms
    let mut last_click = None;
    for (block, values) in thirds.chunks(around).enumerate() {
        let start = (block * around).saturating_sub(around);
        let mut near = thirds[start..(block * around + 2 * around).min(thirds.len())].to_vec();
        // Nine tenths of the values around say what is usual; a click is only a few samples.
        let place = near.len() * 9 / 10;
        let usual = *near.select_nth_unstable_by(place, f64::total_cmp).1;
        for (n, &value) in values.iter().enumerate() {
            let at = block * around + n;
            let fresh = last_click.is_none_or(|last| at > last + shortest);
            if value > LEAST && value > RATIO * usual.max(1.0) {
                if fresh {
                    breaks.clicks.push(ms(at));
                }
                last_click = Some(at);
            }
        }
    }
    breaks
}

/// Power in dB of the bins of one peak relative to the whole spectrum: how tonal a recording is (0 is a pure tone).
pub fn tonality_db(pcm: &[i16]) -> f64 {
    let length = pcm.len().min(MAX_TONE_WINDOW);
    if length < 64 {
        return f64::NEG_INFINITY;
    }
    let spectrum = spectrum(&pcm[..length], length);
    let powers: Vec<f64> = spectrum[..length / 2].iter().map(Complex::norm_sqr).collect();
    let total: f64 = powers.iter().sum();
    let Some(peak) = (1..powers.len()).max_by(|&a, &b| powers[a].total_cmp(&powers[b])) else {
        return f64::NEG_INFINITY;
    };
    let peak: f64 = powers[peak.saturating_sub(PEAK_BINS)..(peak + PEAK_BINS + 1).min(powers.len())].iter().sum();
    10.0 * (peak / total.max(1e-9)).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tone::{Signal, ToneSource, sine, voice};

    fn noise(samples: usize, level: f32, seed: u64) -> Vec<i16> {
        let mut pcm = vec![0; samples];
        ToneSource::new(Signal::Noise { seed }, 8_000, level).fill(&mut pcm);
        pcm
    }

    fn add(a: &[i16], b: &[i16]) -> Vec<i16> {
        a.iter().zip(b).map(|(a, b)| a.saturating_add(*b)).collect()
    }

    #[test]
    fn a_tone_is_found_to_a_tenth_of_a_hertz() {
        for rate in [8_000, 16_000, 48_000] {
            for hz in [50.0, 440.0, 1_000.3, 1_004.0, 3_333.3] {
                let tone = dominant_tone(&sine(hz, -10.0, 1.0, rate), rate).unwrap();
                assert!((tone.hz - hz).abs() < 0.1, "{hz} at {rate}: {tone:?}");
                assert!((tone.level + 13.01).abs() < 0.1 && tone.snr > 60.0, "{hz} at {rate}: {tone:?}");
            }
        }
        let short = dominant_tone(&sine(440.0, -10.0, 0.1, 8_000), 8_000).unwrap();
        assert!((short.hz - 440.0).abs() < 0.5, "{short:?}");
    }

    #[test]
    fn the_snr_is_that_of_the_noise_added() {
        // White noise with a peak of L has an rms of L - 4.77 dB, a sine one of L - 3.01 dB.
        let pcm = add(&sine(1_000.0, -10.0, 2.0, 8_000), &noise(16_000, -30.0, 1));
        let tone = dominant_tone(&pcm, 8_000).unwrap();
        assert!((tone.hz - 1_000.0).abs() < 0.5 && (tone.snr - 21.76).abs() < 0.5, "{tone:?}");
        let tone = tone_at(&pcm, 8_000, 1_000.0);
        assert!((tone.snr - 21.76).abs() < 0.5 && (tone.level + 13.01).abs() < 0.1, "{tone:?}");
        assert!(tone_at(&pcm, 8_000, 2_000.0).snr < -30.0);
        let in_noise = dominant_tone(&add(&sine(700.0, -30.0, 2.0, 8_000), &noise(16_000, -20.0, 2)), 8_000).unwrap();
        assert!((in_noise.hz - 700.0).abs() < 0.5 && in_noise.snr < -5.0, "{in_noise:?}");
    }

    #[test]
    fn silence_and_scraps_have_no_tone() {
        assert_eq!(dominant_tone(&[0; 8_000], 8_000), None);
        assert_eq!(dominant_tone(&[100; 8_000], 8_000), None, "a constant is no tone");
        assert_eq!(dominant_tone(&[1, 2, 3], 8_000), None);
        assert_eq!((level_dbfs(&[]), level_dbfs(&[0; 9])), (-127.0, -127.0));
        assert!((level_dbfs(&[i16::MIN; 9])).abs() < 0.001);
    }

    #[test]
    fn tones_and_voices_differ_in_tonality() {
        assert!(tonality_db(&sine(440.0, -6.0, 1.0, 8_000)) > -0.1);
        assert!(tonality_db(&voice(2.0, 8_000, 1)) < -3.0);
        assert!(tonality_db(&noise(8_000, -6.0, 1)) < -15.0);
    }

    #[test]
    fn a_delay_is_found_in_noise_and_with_other_levels() {
        let reference = voice(3.0, 8_000, 5);
        for delay in [-400i32, 0, 1, 160, 1_234] {
            let mut recording = noise(28_000, -40.0, 3);
            for (n, &sample) in reference.iter().enumerate() {
                if let Some(slot) = usize::try_from(n as i32 + delay).ok().and_then(|at| recording.get_mut(at)) {
                    *slot = slot.saturating_add(sample / 4);
                }
            }
            let found = delay_ms(&reference, &recording, 8_000).unwrap();
            assert!((found - f64::from(delay) / 8.0).abs() < 0.07, "{delay} samples: {found} ms");
        }
        assert_eq!(delay_ms(&reference, &[0; 8_000], 8_000), None);
        assert_eq!(delay_ms(&reference, &noise(24_000, -10.0, 4), 8_000), None, "nothing in common");
        assert_eq!(delay_ms(&[], &reference, 8_000), None);
    }

    #[test]
    fn a_spectrogram_shows_a_tone_as_a_line_and_low_sounds_at_the_bottom() {
        let (columns, rows) = (40, 32);
        let mut pcm = sine(500.0, -6.0, 1.0, 8_000);
        pcm.extend(sine(3_500.0, -6.0, 1.0, 8_000));
        let picture = spectrogram(&pcm, 8_000, columns, rows);
        assert_eq!(picture.len(), columns * rows);
        let brightest = |column: usize| (0..rows).max_by_key(|row| picture[row * columns + column]).unwrap();
        assert_eq!(brightest(10), rows - 1 - 4, "500 Hz of 4000 is the fifth row from the bottom");
        assert_eq!(brightest(30), rows - 1 - 28);
        assert!(picture[10] < 30, "nothing at the top while the low tone sounds");
        assert!(spectrogram(&[0; 8_000], 8_000, 10, 10).iter().all(|&pixel| pixel == 0));
        assert!(spectrogram(&[], 8_000, 3, 2) == [0; 6] && spectrogram(&pcm, 8_000, 0, 5).is_empty());
    }

    #[test]
    fn breaks_are_found_and_clean_sounds_have_none() {
        for clean in [sine(440.0, -6.0, 2.0, 8_000), sine(3_000.0, -6.0, 2.0, 48_000), voice(3.0, 8_000, 2)] {
            assert_eq!(find_breaks(&clean, 8_000).clicks, [0.0; 0]);
        }
        let tone = sine(440.0, -6.0, 2.0, 8_000);
        let mut gap = tone.clone();
        gap[4_000..4_160].fill(0);
        let found = find_breaks(&gap, 8_000);
        assert!(found.gaps.len() == 1 && (found.gaps[0].0 - 500.0).abs() < 1.0, "{found:?}");
        assert!((found.gaps[0].1 - 20.0).abs() < 1.0, "{found:?}");
        let mut missing = tone.clone();
        missing.drain(8_000..8_150);
        let found = find_breaks(&missing, 8_000);
        assert!(found.clicks.len() == 1 && (found.clicks[0] - 1_000.0).abs() < 1.0, "{found:?}");
        let mut spike = tone;
        spike[2_000] += 3_000;
        assert_eq!(find_breaks(&spike, 8_000).clicks.len(), 1);
    }
}
