//! Concealment for codecs without their own: the last pitch period again and again, fading out (as G.711 Appendix I
//! does, but without its 3.75 ms of delay: the join is smoothed on the new side only).

/// History kept, ms: the longest pitch search (window plus longest lag) needs 35 ms, three longest periods 45 ms.
const HISTORY_MS: usize = 48;
/// Pitch periods looked for, ms: 66 to 200 Hz as in Appendix I; higher voices are found by a multiple.
const SHORTEST_MS: usize = 5;
const LONGEST_MS: usize = 15;
/// How much of the past is compared with itself a lag earlier.
const WINDOW_MS: usize = 20;
/// A loss plays at full level this long, then fades …
const FULL_MS: usize = 10;
/// … to silence at this age.
const SILENT_MS: usize = 60;
/// Cross-fade from the repetition into the first good packet.
const RETURN_MS: usize = 5;

const MAX_RATE_KHZ: usize = 16;

/// Watches decoded audio and makes up what follows it.
#[derive(Debug)]
pub struct Concealer {
    khz: usize,
    /// The last `HISTORY_MS` played, oldest first.
    history: [i16; HISTORY_MS * MAX_RATE_KHZ],
    /// The history as it was when the loss began: what is repeated.
    pattern: [i16; HISTORY_MS * MAX_RATE_KHZ],
    /// Samples of the present loss so far; 0 outside one.
    lost: usize,
    period: usize,
    /// Place in `pattern` of the next sample, and of the end of the round.
    next: usize,
    round_start: usize,
    /// Difference to the sample before at the start of a round, faded in over a quarter of a period.
    step: f32,
    last: f32,
}

impl Concealer {
    /// For audio of `rate` Hz, 8000 or 16000.
    pub fn new(rate: u32) -> Self {
        let khz = (rate as usize / 1000).clamp(1, MAX_RATE_KHZ);
        Self {
            khz,
            history: [0; HISTORY_MS * MAX_RATE_KHZ],
            pattern: [0; HISTORY_MS * MAX_RATE_KHZ],
            lost: 0,
            period: LONGEST_MS * khz,
            next: 0,
            round_start: 0,
            step: 0.0,
            last: 0.0,
        }
    }

    /// Takes decoded audio; the first after a loss is cross-faded with what was made up.
    pub fn handle_good(&mut self, pcm: &mut [i16]) {
        if self.lost > 0 {
            let fade = (RETURN_MS * self.khz).min(pcm.len());
            for (n, sample) in pcm[..fade].iter_mut().enumerate() {
                let made_up = self.next_sample();
                let weight = (n + 1) as f32 / (fade + 1) as f32;
                *sample = (made_up + (f32::from(*sample) - made_up) * weight) as i16;
            }
            self.lost = 0;
        }
        self.remember(pcm);
    }

    /// Makes up the next `out.len()` samples.
    pub fn fill(&mut self, out: &mut [i16]) {
        if self.lost == 0 {
            self.pattern = self.history;
            self.period = self.find_period();
            self.last = f32::from(self.pattern[self.length() - 1]);
            self.start_round();
        }
        for sample in out.iter_mut() {
            *sample = self.next_sample() as i16;
        }
        self.remember(out);
    }

    fn length(&self) -> usize {
        HISTORY_MS * self.khz
    }

    fn remember(&mut self, pcm: &[i16]) {
        let length = self.length();
        let pcm = &pcm[pcm.len().saturating_sub(length)..];
        let history = &mut self.history[..length];
        history.copy_within(pcm.len().., 0);
        history[length - pcm.len()..].copy_from_slice(pcm);
    }

    /// One, two, then three periods make a round, so that a long loss does not buzz (Appendix I §I.2.5).
    fn start_round(&mut self) {
        let periods = match self.lost / self.khz {
            0..10 => 1,
            10..20 => 2,
            _ => 3,
        };
        self.next = self.length() - periods * self.period;
        self.round_start = self.next;
        self.step = self.last - f32::from(self.pattern[self.next - 1]);
    }

    fn next_sample(&mut self) -> f32 {
        if self.next == self.length() {
            self.start_round();
        }
        let age = self.next - self.round_start;
        let smooth = (1.0 - age as f32 / (self.period / 4) as f32).max(0.0);
        self.last = f32::from(self.pattern[self.next]) + self.step * smooth;
        let fading = self.lost.saturating_sub(FULL_MS * self.khz);
        let gain = (1.0 - fading as f32 / ((SILENT_MS - FULL_MS) * self.khz) as f32).max(0.0);
        self.next += 1;
        self.lost = self.lost.saturating_add(1);
        (self.last * gain).clamp(-32_768.0, 32_767.0)
    }

    /// The lag with the best normalised correlation: every second lag first, then its neighbours.
    fn find_period(&self) -> usize {
        let (shortest, longest) = (SHORTEST_MS * self.khz, LONGEST_MS * self.khz);
        let best = |lags: &mut dyn Iterator<Item = usize>| {
            lags.map(|lag| (self.likeness(lag), lag)).fold((0.0, longest), |a, b| if b.0 > a.0 { b } else { a }).1
        };
        let coarse = best(&mut (shortest..=longest).step_by(2));
        best(&mut (coarse.saturating_sub(1).max(shortest)..=(coarse + 1).min(longest)))
    }

    fn likeness(&self, lag: usize) -> f32 {
        let length = self.length();
        let start = length - WINDOW_MS * self.khz;
        let now = &self.pattern[start..length];
        let before = &self.pattern[start - lag..length - lag];
        let (mut product, mut energy) = (0.0f32, 1.0f32);
        for (&a, &b) in now.iter().zip(before) {
            product += f32::from(a) * f32::from(b);
            energy += f32::from(b) * f32::from(b);
        }
        product / energy.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hz: f64, samples: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * hz / f64::from(rate);
        (0..samples).map(|n| (8_000.0 * (step * n as f64).sin()) as i16).collect()
    }

    #[test]
    fn a_periodic_signal_goes_on_as_it_was() {
        for rate in [8_000, 16_000] {
            for hz in [80.0, 100.0, 160.0, 250.0, 400.0] {
                let frame = rate as usize / 50;
                let whole = tone(rate, hz, 6 * frame);
                let mut concealer = Concealer::new(rate);
                concealer.handle_good(&mut whole[..5 * frame].to_vec());
                let mut out = vec![0; frame / 2];
                concealer.fill(&mut out);
                let error = out.iter().zip(&whole[5 * frame..]).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs());
                assert!(error.max().unwrap() < 1_600, "{rate} Hz, tone of {hz} Hz");
            }
        }
    }

    #[test]
    fn a_long_loss_is_silent_after_60_ms_and_never_clicks() {
        for rate in [8_000, 16_000] {
            let frame = rate as usize / 50;
            let mut concealer = Concealer::new(rate);
            let mut played = tone(rate, 150.0, 5 * frame);
            concealer.handle_good(&mut played);
            let largest_step =
                |pcm: &[i16]| pcm.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap();
            let natural = largest_step(&played);
            for _ in 0..5 {
                let mut out = vec![0; frame];
                concealer.fill(&mut out);
                played.extend(&out);
            }
            assert!(played[8 * frame..].iter().all(|&s| s == 0), "silent from 60 ms on");
            let mut back = tone(rate, 150.0, frame);
            concealer.handle_good(&mut back);
            played.extend(&back);
            assert!(largest_step(&played) < natural * 2, "{} against {natural}", largest_step(&played));
        }
    }

    #[test]
    fn a_loss_before_any_audio_and_odd_lengths_are_fine() {
        let mut concealer = Concealer::new(8_000);
        for length in [0, 1, 7, 160, 5_760] {
            let mut out = vec![1; length];
            concealer.fill(&mut out);
            assert!(out.iter().all(|&s| s == 0));
            concealer.handle_good(&mut vec![0; length]);
        }
    }
}
