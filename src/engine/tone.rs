//! A sine as a source of the graph.

use std::f64::consts::TAU;
use std::time::Instant;

use crate::audio::graph::Source;

/// A tone that goes on for ever.
pub(super) struct Tone {
    rate: u32,
    phase: f64,
    step: f64,
    amplitude: f64,
}

/// A sine of `hz` with its peaks at `level` dB below full scale.
pub(super) fn source(hz: f64, level: f32, rate: u32) -> Tone {
    let amplitude = 32_767.0 * 10f64.powf(f64::from(level) / 20.0);
    Tone { rate, phase: 0.0, step: hz / f64::from(rate), amplitude }
}

impl Source for Tone {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn pull(&mut self, out: &mut [i16], _now: Instant) -> bool {
        for sample in out {
            *sample = ((self.phase * TAU).sin() * self.amplitude).round() as i16;
            self.phase = (self.phase + self.step).fract();
        }
        true
    }
}
