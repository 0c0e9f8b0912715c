//! Wav files and bytes as a source: a disk thread reads ahead, the media thread plays.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use arc_swap::ArcSwapOption;

use super::graph::Source;
use super::resample::Converter;
use super::ring::{Consumer, Producer, ring};
use super::wav::{WavError, WavFault, WavReader};

/// Audio kept ready: a disk may be this late, twice over, before the line hears it.
const AHEAD_MS: u32 = 1_000;
/// A feed with less than this ready is due; the disk thread looks at it more often than every 500 ms.
const REFILL_MS: u32 = 700;

/// What to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WavInput {
    Path(PathBuf),
    Bytes(Arc<[u8]>),
}

trait Input: Read + Seek + Send {}
impl<T: Read + Seek + Send> Input for T {}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    finished: AtomicBool,
    /// Samples at the port's rate given to the line.
    played: AtomicU64,
    waker: ArcSwapOption<Waker>,
}

/// What a player is doing, for any thread.
#[derive(Clone, Debug)]
pub struct PlayerControl {
    shared: Arc<Shared>,
    rate: u32,
}

impl PlayerControl {
    /// Ends it with the next tick.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Played to the end, stopped, or removed from its graph.
    pub fn is_finished(&self) -> bool {
        self.shared.finished.load(Ordering::Acquire)
    }

    /// Milliseconds played so far, loops included.
    pub fn position_ms(&self) -> u64 {
        self.shared.played.load(Ordering::Relaxed) * 1_000 / u64::from(self.rate)
    }

    /// Has `waker` woken when it is finished, until replaced. Ask [`Self::is_finished`] once after setting it.
    pub fn set_waker(&self, waker: Option<Waker>) {
        self.shared.waker.store(waker.map(Arc::new));
    }
}

/// The parts of a player, each for its thread.
pub struct Player {
    /// For the graph.
    pub source: PlayerSource,
    /// For the disk thread.
    pub feed: PlayerFeed,
    /// For whoever asked.
    pub control: PlayerControl,
}

/// Opens a wav file, converts it to `rate` Hz and plays it `loops` times (0: until stopped). The first second is read
/// here, so that it starts with the next tick.
///
/// # Errors
/// The file is not there, not readable or no wav file.
pub fn player(input: &WavInput, rate: u32, loops: u32) -> Result<Player, WavError> {
    let (input, name): (Box<dyn Input>, _) = match input {
        WavInput::Path(path) => {
            let name = path.display().to_string();
            match File::open(path) {
                Ok(file) => (Box::new(BufReader::new(file)), name),
                Err(error) => return Err(WavError { name, fault: WavFault::Io(error) }),
            }
        }
        WavInput::Bytes(bytes) => (Box::new(Cursor::new(Arc::clone(bytes))), "the wav data".to_owned()),
    };
    let reader = WavReader::new(input, name.clone())?;
    let converter = Converter::new(reader.rate(), rate)
        .map_err(|_| WavError { name, fault: WavFault::Rate(if rate == 0 { rate } else { reader.rate() }) })?;
    let (producer, consumer) = ring((rate / 1_000 * AHEAD_MS) as usize);
    let shared = Arc::new(Shared::default());
    let mut feed = PlayerFeed {
        reader,
        converter,
        ring: Some(producer),
        shared: Arc::clone(&shared),
        loops_left: (loops > 0).then_some(loops),
        heard: false,
        ready: Vec::new(),
        refill: (rate / 1_000 * REFILL_MS) as usize,
    };
    feed.fill()?;
    let control = PlayerControl { shared: Arc::clone(&shared), rate };
    Ok(Player { source: PlayerSource { ring: consumer, shared, rate, finished: false }, feed, control })
}

/// The media thread's side of a player.
#[derive(Debug)]
pub struct PlayerSource {
    ring: Consumer,
    shared: Arc<Shared>,
    rate: u32,
    finished: bool,
}

impl PlayerSource {
    fn finish(&mut self) {
        self.finished = true;
        if !self.shared.finished.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.shared.waker.load().as_ref()
        {
            waker.wake_by_ref();
        }
    }
}

impl Source for PlayerSource {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn pull(&mut self, out: &mut [i16], _now: Instant) -> bool {
        if self.finished {
            return false;
        }
        if self.shared.stop.load(Ordering::Acquire) {
            self.finish();
            return false;
        }
        let ended = self.ring.is_closed(); // before reading, or the last words could be missed
        let count = self.ring.pop(out);
        self.shared.played.fetch_add(count as u64, Ordering::Relaxed);
        out[count..].fill(0);
        if count < out.len() {
            if ended {
                self.finish();
            } else {
                self.ring.count_underrun(out.len() - count);
            }
        }
        count > 0
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}

impl Drop for PlayerSource {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The disk thread's side of a player.
pub struct PlayerFeed {
    reader: WavReader<Box<dyn Input>>,
    converter: Converter,
    /// `None` once everything was read.
    ring: Option<Producer>,
    shared: Arc<Shared>,
    /// `None`: endless.
    loops_left: Option<u32>,
    /// This round had at least one sample; an endless loop over nothing ends.
    heard: bool,
    /// Converted, and no room yet.
    ready: Vec<i16>,
    refill: usize,
}

impl PlayerFeed {
    /// Reads ahead where there is room. True while it wants to be called again, at least every 250 ms.
    ///
    /// # Errors
    /// The file cannot be read any more; what was read is still played. Told once.
    pub fn run(&mut self) -> Result<bool, WavError> {
        let done = self.shared.stop.load(Ordering::Acquire) || self.shared.finished.load(Ordering::Acquire);
        if done {
            self.ring = None;
        }
        match &self.ring {
            None => Ok(false),
            Some(ring) if ring.queued() > self.refill => Ok(true),
            Some(_) => {
                self.fill().inspect_err(|_| self.ring = None)?;
                Ok(self.ring.is_some())
            }
        }
    }

    fn fill(&mut self) -> Result<(), WavError> {
        while let Some(ring) = &mut self.ring {
            let pushed = ring.push(&self.ready);
            self.ready.drain(..pushed);
            if !self.ready.is_empty() {
                break; // full
            }
            self.read()?;
        }
        Ok(())
    }

    /// Reads a block, or begins the next round, or ends.
    fn read(&mut self) -> Result<(), WavError> {
        let mut block = Vec::new();
        if self.reader.read(&mut block)? > 0 {
            self.heard = true;
            self.converter.convert(&block, &mut self.ready);
            return Ok(());
        }
        if let Some(loops) = &mut self.loops_left {
            *loops -= 1;
        }
        if self.loops_left == Some(0) || !self.heard {
            self.converter.finish(&mut self.ready);
            if self.ready.is_empty() {
                self.ring = None; // the source plays what is queued and finishes
            } else {
                self.loops_left = Some(1); // come back for the end once the tail is queued
            }
            return Ok(());
        }
        self.heard = false;
        self.reader.rewind()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do: nothing here measures time")]
    fn now() -> Instant {
        Instant::now()
    }

    /// A wav file whose samples count upwards.
    fn counting(samples: i16, rate: u32) -> WavInput {
        wav(0..samples, rate)
    }

    fn wav(samples: impl Iterator<Item = i16>, rate: u32) -> WavInput {
        let mut bytes = Cursor::new(Vec::new());
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        samples.for_each(|sample| writer.write_sample(sample).unwrap());
        writer.finalize().unwrap();
        WavInput::Bytes(bytes.into_inner().into())
    }

    /// Plays to the end with a disk thread that is there at every tick; at most `most` frames.
    fn play(player: &mut Player, most: usize) -> Vec<i16> {
        let mut heard = vec![];
        let mut frame = vec![7; player.source.rate() as usize / 50];
        for _ in 0..most {
            let active = player.source.pull(&mut frame, now());
            if active {
                heard.extend(&frame);
            }
            if player.source.is_finished() {
                break;
            }
            player.feed.run().unwrap();
        }
        heard
    }

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_file_is_played_from_its_first_sample_to_its_last() {
        let mut player = player(&counting(20_000, 8_000), 8_000, 1).unwrap();
        let woken = Arc::new(Counter::default());
        player.control.set_waker(Some(woken.clone().into()));
        let heard = play(&mut player, 1_000);
        let expected: Vec<i16> = (0..20_000).collect();
        assert!(heard == expected, "{} samples", heard.len());
        assert!(player.control.is_finished() && !player.feed.run().unwrap());
        assert_eq!((player.control.position_ms(), woken.0.load(Ordering::SeqCst)), (2_500, 1));
        drop(player.source);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "told once");
    }

    #[test]
    fn loops_follow_each_other_without_a_gap() {
        let mut player = player(&counting(150, 8_000), 8_000, 3).unwrap();
        let heard = play(&mut player, 100);
        let expected: Vec<i16> = (0..3).flat_map(|_| 0..150).collect();
        assert_eq!(heard[..450], expected);
        assert!(heard.len() == 480 && heard[450..].iter().all(|&s| s == 0));
    }

    #[test]
    fn an_endless_loop_ends_when_it_is_stopped_or_has_nothing_to_play() {
        let mut endless = player(&counting(100, 8_000), 8_000, 0).unwrap();
        assert_eq!(play(&mut endless, 500).len(), 500 * 160);
        endless.control.stop();
        assert!(play(&mut endless, 10).is_empty() && endless.control.is_finished());
        assert!(!endless.feed.run().unwrap());
        let mut empty = player(&counting(0, 8_000), 8_000, 0).unwrap();
        assert!(play(&mut empty, 10).is_empty() && empty.control.is_finished());
    }

    #[test]
    fn any_rate_is_converted_and_keeps_its_length() {
        for (from, to) in [(11_025, 8_000), (44_100, 48_000), (22_050, 16_000)] {
            let rising = (0..from).map(|n| (u64::from(n) * 20_000 / u64::from(from)) as i16);
            let mut player = player(&wav(rising, from), to, 1).unwrap();
            let heard = play(&mut player, 100);
            let end = heard.iter().rposition(|&s| s > 1_000).unwrap() as i64;
            assert!((end - i64::from(to)).abs() < i64::from(to / 100), "{from} to {to}: ends at {end}");
            let middle = heard[to as usize / 2];
            assert!((middle - 10_000).abs() < 10, "{from} to {to}: {middle}");
        }
    }

    #[test]
    fn a_late_disk_is_silence_and_counted_and_nothing_is_lost() {
        let mut player = player(&counting(16_000, 8_000), 8_000, 1).unwrap();
        let (mut frame, monitor) = (vec![0; 160], player.source.ring.monitor());
        for _ in 0..50 {
            assert!(player.source.pull(&mut frame, now()));
        }
        assert!(!player.source.pull(&mut frame, now()));
        assert_eq!((frame[0], monitor.underrun()), (0, 160));
        player.feed.run().unwrap();
        assert!(player.source.pull(&mut frame, now()));
        assert_eq!(frame[0], 8_000);
    }

    #[test]
    fn a_missing_or_wrong_file_is_told_at_once_by_name() {
        let missing = player(&WavInput::Path("/no/such.wav".into()), 8_000, 1).err().unwrap();
        assert_eq!(missing.to_string(), "/no/such.wav: No such file or directory (os error 2)");
        let folder = player(&WavInput::Path("/".into()), 8_000, 1).err().unwrap();
        assert!(folder.to_string().starts_with("/: "), "{folder}");
        let garbage = player(&WavInput::Bytes((*b"garbage").into()), 8_000, 1).err().unwrap();
        assert_eq!(garbage.to_string(), "the wav data: is not a wav file: it begins with garbage");
    }
}
