//! Makes audio a little longer or shorter without changing its pitch: overlap-add at the lag where it is most alike.

use std::ops::RangeInclusive;

const OVERLAP_MS: usize = 5; // compared and cross-faded
const SEARCH_MS: usize = 10; // width of the range of lags: one period of the deepest voice
const SILENCE: i64 = 30; // RMS below which no seam is heard (-60 dB of full scale)
const ALIKE: f32 = 0.6; // correlation from which a seam is hardly heard

/// Where two stretches of `len` samples at `a` and at a lag from it are most alike.
struct Match {
    lag: usize,
    alike: bool,
}

/// Looks for the best of `lags`; `other` tells where the second stretch begins for a lag.
fn search(samples: &[i16], a: usize, lags: RangeInclusive<usize>, len: usize, other: impl Fn(usize) -> usize) -> Match {
    let step = (len / 40).max(1); // 8 kHz resolution first, then each sample around the best
    let score = |lag: usize| correlation(samples, a, other(lag), len, step);
    let coarse = lags.clone().step_by(step).max_by(|&x, &y| score(x).total_cmp(&score(y))).unwrap_or(*lags.start());
    let near = coarse.saturating_sub(step).max(*lags.start())..=(coarse + step).min(*lags.end());
    let lag = near.max_by(|&x, &y| score(x).total_cmp(&score(y))).unwrap_or(coarse);
    let quiet = |at: usize| energy(samples.get(at..at + len).unwrap_or_default()) <= SILENCE * SILENCE * len as i64;
    Match { lag, alike: score(lag) >= ALIKE || (quiet(a) && quiet(other(lag))) }
}

fn energy(samples: &[i16]) -> i64 {
    samples.iter().map(|&sample| i64::from(sample) * i64::from(sample)).sum()
}

/// Normalised cross-correlation, -1 to 1, of every `step`th sample.
fn correlation(samples: &[i16], a: usize, b: usize, len: usize, step: usize) -> f32 {
    let (Some(a), Some(b)) = (samples.get(a..a + len), samples.get(b..b + len)) else { return -1.0 };
    let (mut dot, mut aa, mut bb) = (0.0f32, 1.0f32, 1.0f32);
    for (&a, &b) in a.iter().zip(b).step_by(step) {
        let (a, b) = (f32::from(a), f32::from(b));
        dot += a * b;
        aa += a * a;
        bb += b * b;
    }
    dot / (aa * bb).sqrt()
}

/// Fades from the samples at `at` to those at `from`, in place at `at`.
fn fade(samples: &mut [i16], at: usize, from: usize, len: usize) {
    for n in 0..len {
        let (Some(&old), Some(&new)) = (samples.get(at + n), samples.get(from + n)) else { return };
        let mixed = (i64::from(old) * (len - n) as i64 + i64::from(new) * n as i64) / len.max(1) as i64;
        samples[at + n] = mixed as i16; // between two i16
    }
}

/// Inserts at least `least` samples at `at` by repeating what was before; `end` is where the samples end. Returns how many
/// came in, 0 when there is no room or too little history.
pub fn grow(samples: &mut [i16], at: usize, end: usize, least: usize, rate: usize) -> usize {
    let overlap = rate * OVERLAP_MS / 1000;
    let longest = (least + rate * SEARCH_MS / 1000).min(at).min(samples.len().saturating_sub(end));
    if longest < least.max(overlap) || end < at + overlap || least == 0 {
        return 0;
    }
    let lag = search(samples, at, least.max(overlap)..=longest, overlap, |lag| at - lag).lag;
    // What follows `at` stays as it is, later; the gap repeats the `lag` samples before, faded in from the continuation.
    samples.copy_within(at..end, at + lag);
    samples.copy_within(at - lag..at, at);
    for n in 0..overlap {
        let (old, new) = (i64::from(samples[at + lag + n]), i64::from(samples[at + n]));
        let (to, of) = (n as i64, overlap as i64);
        samples[at + n] = ((old * (of - to) + new * to) / of) as i16;
    }
    lag
}

/// Takes out up to `most` samples after `at`; `end` is where the samples end. Returns how many went, 0 when no place is
/// good enough (unless `urgent`) or there are too few.
pub fn shrink(samples: &mut [i16], at: usize, end: usize, most: usize, rate: usize, urgent: bool) -> usize {
    let overlap = rate * OVERLAP_MS / 1000;
    let most = most.min((end - at.min(end)).saturating_sub(overlap));
    let least = most.saturating_sub(rate * SEARCH_MS / 1000).max(overlap);
    if most < least {
        return 0;
    }
    let found = search(samples, at, least..=most, overlap, |lag| at + lag);
    if !found.alike && !urgent {
        return 0;
    }
    fade(samples, at, at + found.lag, overlap);
    samples.copy_within(at + found.lag + overlap..end, at + overlap);
    found.lag
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: usize = 8000;

    fn tone(frequency: f64, len: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * frequency / RATE as f64;
        (0..len).map(|n| (10_000.0 * (step * n as f64).sin()) as i16).collect()
    }

    /// The largest step between neighbours: a click shows as a larger one.
    fn steepest(samples: &[i16]) -> i32 {
        samples.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max().unwrap_or(0)
    }

    #[test]
    fn a_tone_stays_a_tone_when_it_grows_or_shrinks() {
        for frequency in [110.0, 200.0, 440.0, 1000.0] {
            let clean = tone(frequency, 1000);
            let mut samples = clean.clone();
            samples.resize(1500, 0);
            let grown = grow(&mut samples, 400, 1000, 160, RATE);
            assert!((160..=240).contains(&grown), "{frequency} Hz: {grown}");
            assert_eq!(samples[..400], clean[..400]);
            assert_eq!(samples[400 + grown..1000 + grown], clean[400..]);
            assert!(steepest(&samples[..1000 + grown]) <= steepest(&clean) * 6 / 5, "{frequency} Hz grown");

            let mut samples = clean.clone();
            let shrunk = shrink(&mut samples, 400, 1000, 160, RATE, false);
            assert!((80..=160).contains(&shrunk), "{frequency} Hz: {shrunk}");
            assert_eq!(samples[440..1000 - shrunk], clean[440 + shrunk..]);
            assert!(steepest(&samples[..1000 - shrunk]) <= steepest(&clean) * 6 / 5, "{frequency} Hz shrunk");
        }
    }

    #[test]
    fn noise_is_shortened_only_when_urgent_and_silence_at_once() {
        let mut seed = 1u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 18) as i16
        };
        let mut samples: Vec<i16> = (0..1000).map(|_| noise() - 8192).collect();
        assert_eq!(shrink(&mut samples, 400, 1000, 160, RATE, false), 0);
        assert!(shrink(&mut samples, 400, 1000, 160, RATE, true) > 0);
        assert!(shrink(&mut vec![5; 1000], 400, 1000, 160, RATE, false) > 0);
    }

    #[test]
    fn too_few_samples_are_left_alone() {
        for len in 0..60 {
            let mut samples = tone(440.0, len);
            assert_eq!(grow(&mut samples, len / 2, len, 160, RATE), 0);
            assert_eq!(shrink(&mut samples, len / 2, len, 160, RATE, true), 0);
        }
    }
}
