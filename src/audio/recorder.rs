//! Wav files as sinks: what the media thread gives, the disk thread writes.
//!
//! Each channel has a ring of more than two seconds between the two threads. When the disk is later than that, frames
//! are lost and counted, and silence stands in their place: both channels keep the time of the call. Header and data
//! are flushed every 250 ms, so a file whose writer was killed plays up to its last quarter of a second.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::MAX_FRAME;
use super::graph::Sink;
use super::ring::{Consumer, Producer, ring};
use crate::media::RecordingLayout;

/// What a disk may be late.
const RING_MS: u32 = 2_500;
/// The most a kill costs, beside what waits in the ring.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// Bytes of audio in one file: the sizes in a wav header have 32 bits, and hound wraps them without a word.
const MAX_DATA: u64 = 0xffff_0000;
/// Samples of each channel written at a time: less than the buffer of the file, so that an error leaves it consistent.
const BLOCK: usize = 1_024;
/// File names tried for the next part of a long recording.
const MAX_PARTS: u32 = 10_000;

/// Why a recording could not begin or go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {error}", path.display())]
pub struct RecorderError {
    pub path: PathBuf,
    /// "create", "write" or "finish".
    pub what: &'static str,
    pub error: io::Error,
}

/// The parts of a recording, each for its thread.
pub struct Recorder {
    /// For the graph.
    pub sinks: RecorderSinks,
    /// For the disk thread.
    pub feed: RecorderFeed,
    /// For the media thread, between two ticks: both channels must see a pause at the same time.
    pub control: RecorderControl,
}

/// The sinks of a recording; dropping them (removing them from the graph) ends it.
pub enum RecorderSinks {
    /// Connect both parties to it.
    Mix(RecorderSink),
    Stereo {
        remote: RecorderSink,
        local: RecorderSink,
    },
}

#[derive(Debug, Default)]
struct Shared {
    paused: AtomicBool,
    lost: AtomicU64,
}

/// Pauses a recording and counts its losses.
#[derive(Clone, Debug)]
pub struct RecorderControl {
    shared: Arc<Shared>,
    rate: u32,
}

impl RecorderControl {
    /// Leaves out what follows; the file goes on after [`Self::resume`] without a gap.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::Release);
    }

    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Release);
    }

    pub fn is_paused(&self) -> bool {
        self.shared.paused.load(Ordering::Acquire)
    }

    /// Milliseconds replaced by silence because the disk was too late, all channels together.
    pub fn lost_ms(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed) * 1_000 / u64::from(self.rate)
    }
}

/// What a recording is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Call [`RecorderFeed::run`] again, at least every 250 ms.
    Recording,
    /// The sinks are gone, everything is on disk and the files are closed.
    Finished,
}

/// Creates the file (which must not exist) and everything that writes it. `rate` is that of the call, a frame rate of
/// the graph.
///
/// # Errors
/// The file exists or cannot be created.
pub fn recorder(path: &Path, layout: RecordingLayout, rate: u32, now: Instant) -> Result<Recorder, RecorderError> {
    build(path, layout, rate, Box::new(create), now)
}

fn build(
    path: &Path,
    layout: RecordingLayout,
    rate: u32,
    create: Create,
    now: Instant,
) -> Result<Recorder, RecorderError> {
    let shared = Arc::new(Shared::default());
    let mut channels = Vec::new();
    let mut sink = || {
        let (producer, consumer) = ring((rate / 1_000 * RING_MS) as usize);
        channels.push(consumer);
        RecorderSink { ring: producer, shared: Arc::clone(&shared), rate, gap: 0 }
    };
    let sinks = match layout {
        RecordingLayout::Mix => RecorderSinks::Mix(sink()),
        RecordingLayout::Stereo => RecorderSinks::Stereo { remote: sink(), local: sink() },
    };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let spec = hound::WavSpec {
        channels: channels.len() as u16,
        sample_rate: rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut feed = RecorderFeed {
        path,
        parts: Vec::new(),
        spec,
        create,
        channels,
        output: None,
        max_data: MAX_DATA,
        blocks: vec![[0; BLOCK]; spec.channels.into()],
        flush_at: now,
    };
    feed.open()?;
    let control = RecorderControl { shared, rate };
    Ok(Recorder { sinks, feed, control })
}

/// One channel on the media thread.
#[derive(Debug)]
pub struct RecorderSink {
    ring: Producer,
    shared: Arc<Shared>,
    rate: u32,
    /// Samples of silence owed for frames that found no room.
    gap: usize,
}

impl RecorderSink {
    /// Pays back what can be of the silence owed.
    fn fill_gap(&mut self) {
        const SILENCE: [i16; MAX_FRAME] = [0; MAX_FRAME];
        while self.gap > 0 {
            let pushed = self.ring.push(&SILENCE[..self.gap.min(MAX_FRAME)]);
            self.gap -= pushed;
            if pushed == 0 {
                return;
            }
        }
    }
}

impl Sink for RecorderSink {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn push(&mut self, frame: &[i16], _active: bool, _now: Instant) {
        if self.shared.paused.load(Ordering::Acquire) {
            return;
        }
        if self.ring.is_closed() {
            return; // the file ended by itself, as its owner was told
        }
        self.fill_gap();
        if self.gap > 0 || self.ring.free() < frame.len() {
            self.gap += frame.len();
            self.ring.count_overrun(frame.len());
            self.shared.lost.fetch_add(frame.len() as u64, Ordering::Relaxed);
        } else {
            self.ring.push(frame);
        }
    }
}

/// Where the bytes go: a file, or in tests something that fails.
trait Target: Write + Seek + Send {}
impl<T: Write + Seek + Send> Target for T {}

/// An open target, and how to have everything on the disk itself once hound has let go of it.
struct Opened {
    target: Box<dyn Target>,
    sync: Sync,
}

type Sync = Box<dyn FnOnce() -> io::Result<()> + Send>;
type Create = Box<dyn FnMut(&Path) -> io::Result<Opened> + Send>;

/// Never opens what is there already, nor follows a link.
fn create(path: &Path) -> io::Result<Opened> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let handle = file.try_clone()?;
    Ok(Opened { target: Box::new(file), sync: Box::new(move || handle.sync_all()) })
}

struct Output {
    writer: hound::WavWriter<BufWriter<Box<dyn Target>>>,
    sync: Sync,
    bytes: u64,
}

/// The disk thread's side of a recording.
pub struct RecorderFeed {
    /// As asked for; further parts add `-2`, `-3`, …
    path: PathBuf,
    parts: Vec<PathBuf>,
    spec: hound::WavSpec,
    create: Create,
    channels: Vec<Consumer>,
    /// `None` before the first part and after the end.
    output: Option<Output>,
    max_data: u64,
    blocks: Vec<[i16; BLOCK]>,
    flush_at: Instant,
}

impl RecorderFeed {
    /// The files so far, absolute; more than one when the recording is larger than 4 GiB.
    pub fn paths(&self) -> &[PathBuf] {
        &self.parts
    }

    /// Writes what has come, and flushes when it is time. Blocks as long as the disk does.
    ///
    /// # Errors
    /// The disk is full or broken. Told once: the recording is over, and its file is valid up to the last flush.
    pub fn run(&mut self, now: Instant) -> Result<Status, RecorderError> {
        let result = self.step(now);
        if result.is_err() {
            self.output = None;
            self.channels.clear();
        }
        result
    }

    fn step(&mut self, now: Instant) -> Result<Status, RecorderError> {
        loop {
            if self.output.is_none() {
                return Ok(Status::Finished);
            }
            // Open channels go together; a closed one is followed by silence until the others are closed too.
            let open = self.channels.iter().filter(|channel| !channel.is_closed()).map(Consumer::queued).min();
            let left = || self.channels.iter().map(Consumer::queued).max().unwrap_or(0);
            let count = open.unwrap_or_else(left).min(BLOCK);
            if count > 0 {
                self.write(count)?;
            } else if open.is_none() {
                return self.finish().map(|()| Status::Finished);
            } else {
                break;
            }
        }
        if now >= self.flush_at {
            self.flush_at = now + FLUSH_INTERVAL;
            if let Some(output) = &mut self.output {
                output.writer.flush().map_err(|error| failed(&self.parts, "write", error))?;
            }
        }
        Ok(Status::Recording)
    }

    fn write(&mut self, count: usize) -> Result<(), RecorderError> {
        let samples = count * self.channels.len();
        let bytes = 2 * samples as u64;
        if self.output.as_ref().is_some_and(|output| output.bytes + bytes > self.max_data) {
            self.finish()?;
            self.open()?;
        }
        for (channel, block) in self.channels.iter_mut().zip(&mut self.blocks) {
            let got = channel.pop(&mut block[..count]);
            block[got..count].fill(0);
        }
        let output = self.output.as_mut().expect("step() leaves when there is no output");
        output.bytes += bytes;
        let mut writer = output.writer.get_i16_writer(samples as u32);
        for at in 0..count {
            for block in &self.blocks {
                writer.write_sample(block[at]);
            }
        }
        writer.flush().map_err(|error| failed(&self.parts, "write", error))
    }

    /// Creates the next part; the first is named as asked for.
    fn open(&mut self) -> Result<(), RecorderError> {
        let first = self.parts.is_empty();
        let start = self.parts.len() as u32 + 1;
        for number in start..start + MAX_PARTS {
            let path = if first { self.path.clone() } else { numbered(&self.path, number) };
            match (self.create)(&path) {
                Ok(Opened { target, sync }) => {
                    self.parts.push(path);
                    let mut writer = hound::WavWriter::new(BufWriter::new(target), self.spec)
                        .map_err(|error| failed(&self.parts, "write", error))?;
                    // A header at once: a file that exists can be played.
                    writer.flush().map_err(|error| failed(&self.parts, "write", error))?;
                    self.output = Some(Output { writer, sync, bytes: 0 });
                    return Ok(());
                }
                Err(error) if !first && error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(RecorderError { path, what: "create", error }),
            }
        }
        Err(RecorderError { path: self.path.clone(), what: "create", error: io::ErrorKind::AlreadyExists.into() })
    }

    fn finish(&mut self) -> Result<(), RecorderError> {
        let Some(output) = self.output.take() else { return Ok(()) };
        output.writer.finalize().map_err(|error| failed(&self.parts, "finish", error))?;
        (output.sync)().map_err(|error| failed(&self.parts, "finish", hound::Error::IoError(error)))
    }
}

fn failed(parts: &[PathBuf], what: &'static str, error: hound::Error) -> RecorderError {
    let error = match error {
        hound::Error::IoError(error) => error,
        other => io::Error::other(other),
    };
    RecorderError { path: parts.last().cloned().unwrap_or_default(), what, error }
}

/// `call.wav` → `call-2.wav`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests;
