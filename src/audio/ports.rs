//! The usual ports of the graph: rings to and from other threads, and nothing at all.

use std::time::Instant;

use super::graph::{Sink, Source};
use super::ring::{Consumer, Producer, ring};

/// A writer that ran dry this long ago has stopped speaking; before that it was late.
const LATE_FRAMES: u32 = 25; // 500 ms
/// Fade from the last sample when a writer runs dry in the middle of a sound, so that it does not click.
const FADE_MS: u32 = 3;

/// Plays what another thread writes into a ring (samples at `rate` Hz).
///
/// It waits for a whole frame, except when nothing more came for a tick: then the rest is played. When the writer runs
/// dry and goes on within 500 ms, the silence in between counts as underrun of the ring.
#[derive(Debug)]
pub struct RingSource {
    ring: Consumer,
    rate: u32,
    /// Written samples as of the last tick.
    written: u64,
    speaking: bool,
    /// Frames missed since the writer ran dry.
    missed: u32,
    last: i16,
}

/// Makes a source for `rate` Hz with a ring of `capacity_ms`.
pub fn ring_source(rate: u32, capacity_ms: u32) -> (Producer, RingSource) {
    let (producer, consumer) = ring((u64::from(rate) * u64::from(capacity_ms) / 1_000) as usize);
    (producer, RingSource::new(consumer, rate))
}

impl RingSource {
    /// Plays `ring` at `rate` Hz.
    pub fn new(ring: Consumer, rate: u32) -> Self {
        Self { ring, rate, written: 0, speaking: false, missed: 0, last: 0 }
    }

    fn fade(&mut self, out: &mut [i16]) {
        let length = (self.rate * FADE_MS / 1_000) as usize;
        let last = i32::from(std::mem::take(&mut self.last));
        for (n, sample) in out.iter_mut().enumerate() {
            *sample = (last * length.saturating_sub(n + 1) as i32 / length.max(1) as i32) as i16;
        }
    }
}

impl Source for RingSource {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn pull(&mut self, out: &mut [i16], _now: Instant) -> bool {
        let written = self.ring.written();
        let more_coming = written != self.written;
        self.written = written;
        let queued = self.ring.queued();
        if queued >= out.len() || (queued > 0 && !more_coming) {
            let count = self.ring.pop(out);
            if self.missed > 0 {
                self.ring.count_underrun(self.missed as usize * out.len());
                self.missed = 0;
            }
            self.speaking = true;
            self.last = out[..count].last().copied().unwrap_or(0);
            if count < out.len() {
                self.fade(&mut out[count..]);
            }
            return true;
        }
        if self.speaking {
            self.missed += 1;
            if self.missed > LATE_FRAMES {
                (self.speaking, self.missed) = (false, 0);
            }
        }
        if self.last == 0 {
            return false;
        }
        self.fade(out);
        true
    }

    fn is_finished(&self) -> bool {
        self.ring.is_closed() && self.ring.queued() == 0
    }
}

/// Hands what it hears to another thread through a ring of whole frames; when that thread is late, it loses the oldest.
#[derive(Debug)]
pub struct RingSink {
    ring: Producer,
    rate: u32,
}

/// Makes a sink for `rate` Hz with a ring of `capacity_ms` (in whole frames, at least one). The position of the consumer
/// is the time of a frame.
pub fn ring_sink(rate: u32, capacity_ms: u32) -> (RingSink, Consumer) {
    let (producer, consumer) = ring((capacity_ms / 20).max(1) as usize * rate as usize / 50);
    (RingSink { ring: producer, rate }, consumer)
}

impl Sink for RingSink {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn push(&mut self, frame: &[i16], _active: bool, _now: Instant) {
        self.ring.push_dropping(frame);
    }
}

/// Hears everything and keeps nothing: the speaker of a machine without one.
#[derive(Clone, Copy, Debug)]
pub struct NullSink(pub u32);

impl Sink for NullSink {
    fn rate(&self) -> u32 {
        self.0
    }

    fn push(&mut self, _frame: &[i16], _active: bool, _now: Instant) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do: nothing here measures time")]
    fn now() -> Instant {
        Instant::now()
    }

    const FRAME: usize = 160;

    fn pull(source: &mut RingSource) -> Option<Vec<i16>> {
        let mut out = vec![0; FRAME];
        source.pull(&mut out, now()).then_some(out)
    }

    #[test]
    fn a_writer_is_played_frame_by_frame_and_its_last_words_too() {
        let (mut writer, mut source) = ring_source(8_000, 200);
        assert_eq!(pull(&mut source), None);
        writer.push(&[1; FRAME + 100]);
        assert_eq!(pull(&mut source), Some(vec![1; FRAME]));
        let rest = pull(&mut source).expect("nothing more came in a tick: the rest is played");
        assert_eq!((rest[99], rest[FRAME - 1]), (1, 0));
        assert_eq!(pull(&mut source), None);
        assert!(!source.is_finished());
        drop(writer);
        assert!(source.is_finished());
    }

    #[test]
    fn a_late_writer_is_an_underrun_and_a_finished_one_is_not() {
        let (mut writer, mut source) = ring_source(8_000, 200);
        let monitor = writer.monitor();
        writer.push(&[1_000; FRAME]);
        pull(&mut source).unwrap();
        let fading = pull(&mut source).expect("a fade instead of a click");
        assert!(fading[0] > 900 && fading.is_sorted_by(|a, b| a >= b) && fading[FRAME - 1] == 0, "{fading:?}");
        assert_eq!(pull(&mut source), None);
        assert_eq!(monitor.underrun(), 0, "it may be over");
        writer.push(&[1_000; FRAME]);
        pull(&mut source).unwrap();
        assert_eq!(monitor.underrun(), 2 * FRAME as u64, "it was not");
        for _ in 0..LATE_FRAMES + 2 {
            pull(&mut source);
        }
        writer.push(&[1; FRAME]);
        pull(&mut source).unwrap();
        assert_eq!(monitor.underrun(), 2 * FRAME as u64, "a new beginning after 500 ms");
    }

    #[test]
    fn half_a_frame_waits_while_more_is_coming() {
        let (mut writer, mut source) = ring_source(8_000, 200);
        writer.push(&[1; 100]);
        assert_eq!(pull(&mut source), None, "it has just begun");
        writer.push(&[2; 60]);
        assert_eq!(pull(&mut source).unwrap()[99..101], [1, 2]);
    }

    #[test]
    fn a_late_reader_loses_whole_frames_and_can_tell() {
        let (mut sink, mut reader) = ring_sink(8_000, 70);
        for value in 1..=5 {
            sink.push(&[value; FRAME], true, now());
        }
        let mut out = [0; FRAME];
        assert_eq!(reader.pop_positioned(&mut out), (2 * FRAME as u64, FRAME));
        assert_eq!(out, [3; FRAME]);
        assert_eq!(reader.monitor().overrun(), 2 * FRAME as u64);
    }
}
