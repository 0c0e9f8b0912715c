//! Sounds made by formula: tones, sweeps, noise, keypad digits, and a voice that says nothing.

use std::f64::consts::TAU;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::graph::Source;

/// What a [`ToneSource`] gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Signal {
    Silence,
    /// One sine of this frequency, Hz.
    Sine(f64),
    /// Two sines of equal level.
    Dual(f64, f64),
    /// A sine that glides from one frequency to the other in so many seconds, again and again.
    Sweep {
        from: f64,
        to: f64,
        seconds: f64,
    },
    /// White noise, the same for the same seed.
    Noise {
        seed: u64,
    },
}

/// The two frequencies of a keypad digit, Hz (ITU-T Q.23); `None` for what no keypad has.
pub fn dtmf(digit: char) -> Option<Signal> {
    const LOW: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
    const HIGH: [f64; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];
    let at = "123A456B789C*0#D".find(digit.to_ascii_uppercase())?;
    Some(Signal::Dual(LOW[at / 4], HIGH[at % 4]))
}

/// Gives a signal for some time or without end.
#[derive(Debug)]
pub struct ToneSource {
    signal: Signal,
    rate: u32,
    /// Peak of the whole signal, 0 to 32,767.
    amplitude: f64,
    phases: [f64; 2],
    played: u64,
    length: Option<u64>,
    random: StdRng,
}

impl ToneSource {
    /// `level` is dB below full scale of the peak: 0 is as loud as it gets, -6 half of it.
    pub fn new(signal: Signal, rate: u32, level: f32) -> Self {
        let seed = if let Signal::Noise { seed } = signal { seed } else { 0 };
        Self {
            signal,
            rate,
            amplitude: 32_767.0 * 10f64.powf(f64::from(level.min(0.0)) / 20.0),
            phases: [0.0; 2],
            played: 0,
            length: None,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// The same for `ms` milliseconds; then it is finished.
    pub fn lasting(mut self, ms: u32) -> Self {
        self.length = Some(u64::from(self.rate) * u64::from(ms) / 1_000);
        self
    }

    /// The next samples, as many as `out` holds.
    pub fn fill(&mut self, out: &mut [i16]) {
        for sample in out {
            let value = if self.length.is_some_and(|length| self.played >= length) { 0.0 } else { self.next_value() };
            *sample = (self.amplitude * value).round() as i16;
            self.played += 1;
        }
    }

    /// The next value, -1 to 1.
    fn next_value(&mut self) -> f64 {
        let rate = f64::from(self.rate);
        let mut oscillate = |n: usize, hz: f64| {
            let value = (self.phases[n] * TAU).sin();
            self.phases[n] = (self.phases[n] + hz / rate).fract();
            value
        };
        match self.signal {
            Signal::Silence => 0.0,
            Signal::Sine(hz) => oscillate(0, hz),
            Signal::Dual(first, second) => (oscillate(0, first) + oscillate(1, second)) / 2.0,
            Signal::Sweep { from, to, seconds } => {
                let period = (seconds * rate).max(1.0);
                let place = (self.played as f64 % period) / period;
                oscillate(0, from + (to - from) * place)
            }
            Signal::Noise { .. } => self.random.random_range(-1.0..=1.0),
        }
    }
}

impl Source for ToneSource {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn pull(&mut self, out: &mut [i16], _now: Instant) -> bool {
        let active = self.signal != Signal::Silence && !self.is_finished();
        self.fill(out);
        active
    }

    fn is_finished(&self) -> bool {
        self.length.is_some_and(|length| self.played >= length)
    }
}

/// A sine of `hz` at `level` dBFS for `seconds`.
pub fn sine(hz: f64, level: f32, seconds: f64, rate: u32) -> Vec<i16> {
    let mut out = vec![0; (seconds * f64::from(rate)).round() as usize];
    ToneSource::new(Signal::Sine(hz), rate, level).fill(&mut out);
    out
}

/// A vowel: the resonances of the throat and mouth, Hz.
type Formants = [f64; 4];

/// Middle values for the vowels of a male voice (Peterson and Barney 1952), with a usual fourth.
const VOWELS: [Formants; 6] = [
    [730.0, 1_090.0, 2_440.0, 3_400.0], // a
    [530.0, 1_840.0, 2_480.0, 3_500.0], // e
    [270.0, 2_290.0, 3_010.0, 3_700.0], // i
    [570.0, 840.0, 2_410.0, 3_300.0],   // o
    [300.0, 870.0, 2_240.0, 3_300.0],   // u
    [490.0, 1_350.0, 1_690.0, 3_300.0], // er
];
const BANDWIDTHS: Formants = [70.0, 90.0, 130.0, 200.0];
const FORMANT_LEVELS: Formants = [1.0, 0.9, 0.8, 0.6];

/// A second-order resonance, re-tuned as the mouth moves.
#[derive(Clone, Copy, Default)]
struct Resonator {
    past: [f64; 2],
}

impl Resonator {
    fn run(&mut self, input: f64, hz: f64, bandwidth: f64, rate: f64) -> f64 {
        let radius = (-std::f64::consts::PI * bandwidth / rate).exp();
        let turn = 2.0 * radius * (TAU * hz / rate).cos();
        // The gain that leaves a resonance about as loud whatever its place.
        let gain = (1.0 - radius) * (1.0 - 2.0 * radius * (2.0 * TAU * hz / rate).cos() + radius * radius).sqrt();
        let output = gain * input + turn * self.past[0] - radius * radius * self.past[1];
        self.past = [output, self.past[0]];
        output
    }
}

/// One syllable: a consonant of noise, then a vowel that glides to the next mouth shape.
struct Syllable {
    seconds: f64,
    consonant: f64,
    hiss: f64,
    from: Formants,
    to: Formants,
    pause: f64,
}

/// Speech-like sound for demos and measurements: pulses of a voice with sentence melody through moving formants,
/// consonants of noise, syllables and pauses. The same for the same seed; peak about -6 dBFS.
pub fn voice(seconds: f64, rate: u32, seed: u64) -> Vec<i16> {
    let mut random = StdRng::seed_from_u64(seed);
    let (length, rate) = ((seconds * f64::from(rate)).round() as usize, f64::from(rate));
    let mut sound: Vec<f64> = vec![0.0; (0.05 * rate) as usize];
    while sound.len() < length {
        let syllables = random.random_range(4..=7);
        let pitch = random.random_range(105.0..130.0);
        let mut mouth = VOWELS[random.random_range(0..VOWELS.len())];
        for n in 0..syllables {
            let to = VOWELS[random.random_range(0..VOWELS.len())];
            let syllable = Syllable {
                seconds: random.random_range(0.14..0.24),
                consonant: random.random_range(0.02..0.07),
                hiss: random.random_range(1_800.0..5_000.0),
                from: mouth,
                to,
                pause: if n + 1 == syllables { random.random_range(0.18..0.35) } else { 0.02 },
            };
            // The melody falls over the sentence, each stressed syllable rising a little.
            let place = f64::from(n) / f64::from(syllables);
            let start = pitch * (1.25 - 0.4 * place + if n % 2 == 0 { 0.08 } else { 0.0 });
            speak(&syllable, start, rate, &mut random, &mut sound);
            mouth = to;
        }
    }
    sound.truncate(length);
    let peak = sound.iter().fold(1e-9f64, |peak, value| peak.max(value.abs()));
    let fade = (0.02 * rate) as usize;
    let gain = |n: usize| ((length - n) as f64 / fade as f64).min(1.0) * 16_400.0 / peak;
    sound.iter().enumerate().map(|(n, value)| (value * gain(n)).round() as i16).collect()
}

fn speak(syllable: &Syllable, pitch: f64, rate: f64, random: &mut StdRng, sound: &mut Vec<f64>) {
    let mut hiss = Resonator::default();
    let hiss_hz = syllable.hiss.min(rate * 0.4);
    for n in 0..(syllable.consonant * rate) as usize {
        let place = n as f64 / (syllable.consonant * rate);
        let envelope = (place * std::f64::consts::PI).sin();
        sound.push(1.5 * envelope * hiss.run(random.random_range(-1.0..1.0), hiss_hz, 900.0, rate));
    }
    let mut formants = [Resonator::default(); 4];
    let (mut phase, mut jitter) = (0.0, 1.0);
    let samples = (syllable.seconds * rate) as usize;
    for n in 0..samples {
        let place = n as f64 / samples as f64;
        phase += pitch * jitter * (1.0 - 0.08 * place) / rate;
        if phase >= 1.0 {
            phase -= 1.0;
            jitter = random.random_range(0.985..1.015); // no throat is a clock
        }
        // The slope of a glottal pulse, which is what the mouth hears: opens slowly, shuts at once, rests.
        let flow = match phase {
            p if p < 0.4 => 0.5 * (p / 0.4 * std::f64::consts::PI).sin(),
            p if p < 0.5 => -25.0 * (p - 0.4),
            _ => 0.0,
        };
        let source = flow + 0.02 * random.random_range(-1.0..1.0);
        let glide = place * place * (3.0 - 2.0 * place);
        let mut value = 0.0;
        for (k, formant) in formants.iter_mut().enumerate() {
            let hz = syllable.from[k] + (syllable.to[k] - syllable.from[k]) * glide;
            if hz < rate * 0.45 {
                let sign = if k % 2 == 0 { 1.0 } else { -1.0 }; // neighbours in parallel must not cancel
                value += sign * FORMANT_LEVELS[k] * formant.run(source, hz, BANDWIDTHS[k], rate);
            }
        }
        let attack = (place / 0.15).min(1.0);
        let decay = ((1.0 - place) / 0.3).min(1.0);
        sound.push(6.0 * value * (attack * decay).sqrt());
    }
    sound.resize(sound.len() + (syllable.pause * rate) as usize, 0.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::analysis::{dominant_tone, level_dbfs};

    #[expect(clippy::disallowed_methods, reason = "any instant will do: nothing here measures time")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_sine_has_its_frequency_and_level_at_every_rate() {
        for rate in [8_000, 16_000, 44_100, 48_000] {
            let pcm = sine(440.0, -6.0, 1.0, rate);
            let tone = dominant_tone(&pcm, rate).unwrap();
            assert!((tone.hz - 440.0).abs() < 0.1, "{rate}: {tone:?}");
            assert!((level_dbfs(&pcm) + 9.01).abs() < 0.05, "{rate}: {}", level_dbfs(&pcm));
        }
    }

    #[test]
    fn a_source_lasts_as_long_as_it_should() {
        let mut source = ToneSource::new(Signal::Sine(1_000.0), 8_000, 0.0).lasting(50);
        let mut out = [0; 160];
        for (active, finished, last) in [(true, false, true), (true, false, true), (true, true, false)] {
            assert_eq!(source.pull(&mut out, now()), active);
            assert_eq!(source.is_finished(), finished);
            assert_eq!(out[155..].iter().any(|&s| s != 0), last);
        }
        assert!(!source.pull(&mut out, now()));
        assert!(!ToneSource::new(Signal::Silence, 8_000, 0.0).pull(&mut out, now()));
    }

    #[test]
    fn digits_are_two_tones() {
        assert_eq!(dtmf('5'), Some(Signal::Dual(770.0, 1_336.0)));
        assert_eq!(dtmf('#'), Some(Signal::Dual(941.0, 1_477.0)));
        assert_eq!(dtmf('d'), Some(Signal::Dual(941.0, 1_633.0)));
        assert_eq!(dtmf('x'), None);
        let mut pcm = vec![0; 8_000];
        ToneSource::new(dtmf('1').unwrap(), 8_000, -3.0).fill(&mut pcm);
        let hz = dominant_tone(&pcm, 8_000).unwrap().hz;
        assert!((hz - 697.0).abs() < 1.0 || (hz - 1_209.0).abs() < 1.0, "{hz}");
    }

    #[test]
    fn a_sweep_goes_from_one_end_to_the_other() {
        let mut pcm = vec![0; 16_000];
        ToneSource::new(Signal::Sweep { from: 300.0, to: 3_000.0, seconds: 1.0 }, 16_000, -6.0).fill(&mut pcm);
        let start = dominant_tone(&pcm[..800], 16_000).unwrap().hz;
        let end = dominant_tone(&pcm[15_200..], 16_000).unwrap().hz;
        assert!((300.0..500.0).contains(&start) && (2_800.0..3_050.0).contains(&end), "{start} {end}");
    }

    #[test]
    fn noise_is_the_same_for_the_same_seed() {
        let noise = |seed| {
            let mut pcm = vec![0; 4_000];
            ToneSource::new(Signal::Noise { seed }, 8_000, 0.0).fill(&mut pcm);
            pcm
        };
        assert_eq!(noise(1), noise(1));
        assert_ne!(noise(1), noise(2));
        assert!((level_dbfs(&noise(1)) + 4.77).abs() < 0.5);
    }

    #[test]
    fn a_voice_sounds_like_one_by_its_numbers() {
        for rate in [8_000, 16_000, 48_000] {
            let pcm = voice(4.0, rate, 1);
            assert_eq!(pcm.len(), 4 * rate as usize);
            assert_eq!(pcm, voice(4.0, rate, 1));
            assert_ne!(pcm, voice(4.0, rate, 2));
            let peak = pcm.iter().map(|s| s.unsigned_abs()).max().unwrap();
            assert!((10_000..=16_500).contains(&peak), "{peak}");
            // Pauses and syllables: a good part of 50 ms blocks is nearly silent, most are not.
            let blocks: Vec<f32> = pcm.chunks(rate as usize / 20).map(level_dbfs).collect();
            let quiet = blocks.iter().filter(|&&level| level < -45.0).count();
            assert!((4..40).contains(&quiet), "{quiet} of {}", blocks.len());
            let loud = blocks.iter().filter(|&&level| level > -30.0).count();
            assert!(loud > blocks.len() / 3, "{loud} of {}", blocks.len());
        }
    }
}
