//! The application's side of a call's audio: frames out and in, players, tones, bridges, numbers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use crossbeam_channel::bounded;

use super::calls::{CallView, level_db};
use super::media::{MediaView, PortId, REQUEST_TIMEOUT, Request};
use super::sockets::words;
use super::{EngineError, lock};
use crate::audio::graph::{Sink, Source};
use crate::audio::player::{Player, PlayerControl, WavInput, player};
use crate::audio::ports::{RingSource, ring_sink, ring_source};
use crate::audio::resample::{Converter, FILE_RATES, is_frame_rate};
use crate::audio::ring::{Consumer, Monitor, Producer};
use crate::audio::tone::{Signal, ToneSource};
use crate::audio::wav::WavFault;
use crate::event::SessionId;
use crate::media::CodecKind;
use crate::rtp::session::{PacketTrace, Statistics};

/// Rates a reader may ask for, Hz.
const READER_RATES: std::ops::RangeInclusive<u32> = 8_000..=48_000;
/// Lengths of rings to and from the application, ms: a frame at least (two for a writer, one being played while the
/// next is written); a minute holds any prompt a program has at hand.
const RING_MS: std::ops::RangeInclusive<u32> = 20..=60_000;
const WRITER_LEAST_MS: u32 = 40;
/// What a bridge between two media threads holds at most, and the frame it begins with: their grids differ in phase.
const BRIDGE_MS: u32 = 100;

/// 20 ms of what the peer said.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioFrame {
    /// Mono, `rate / 50` samples.
    pub samples: Box<[i16]>,
    pub rate: u32,
    /// Since the reader was made, milliseconds; a jump of more than 20 tells what was dropped because nobody read.
    pub timestamp_ms: u64,
}

impl AudioFrame {
    /// RMS in dB below full scale (0 is the loudest); silence is -127.
    pub fn level(&self) -> f32 {
        level_db(&self.samples)
    }
}

/// A wav file to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaySource {
    Path(PathBuf),
    Bytes(Arc<[u8]>),
}

/// Both directions of the stream and of the rings to the application.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AudioStatistics {
    pub rtp: Statistics,
    /// What the stream sends, and whether under SRTP.
    pub codec: Option<CodecKind>,
    pub srtp_suite: Option<&'static str>,
    /// How often, and for how long, a writer that had begun to speak ran dry.
    pub underruns: u64,
    pub underrun_ms: u64,
    /// Milliseconds readers lost because they were late.
    pub reader_overflow_ms: u64,
}

/// Unparks a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits until `ready`, looking again whenever what `register` was given is woken; false at the deadline.
fn wait_until(timeout: Duration, register: impl Fn(&Waker), mut ready: impl FnMut() -> bool) -> bool {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let deadline = Instant::now().checked_add(timeout);
    loop {
        register(&waker); // first, so that nothing is missed between looking and waiting
        if ready() {
            return true;
        }
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return false,
            Some(left) => std::thread::park_timeout(left),
            None => std::thread::park(),
        }
    }
}

/// The audio of one session. Clones share it; callable from any thread; every wait is bounded.
#[derive(Clone)]
pub struct AudioHandle {
    call: Arc<CallView>,
    media: MediaView,
}

static NEXT_PORT: AtomicU64 = AtomicU64::new(1);

impl AudioHandle {
    pub(super) fn new(call: Arc<CallView>, media: MediaView) -> Self {
        Self { call, media }
    }

    pub fn session(&self) -> SessionId {
        self.call.session
    }

    /// False once the stream has ended.
    pub fn is_open(&self) -> bool {
        self.call.is_open()
    }

    /// The codec's sample rate, Hz. It may change with a re-INVITE; readers and writers convert.
    pub fn sample_rate(&self) -> u32 {
        self.call.sample_rate()
    }

    fn send(&self, request: Request) -> Result<(), EngineError> {
        self.media.send(&self.call, request)
    }

    /// Counters of the stream; the final ones after its end.
    pub fn statistics(&self) -> AudioStatistics {
        let (reply, answer) = bounded(1);
        match self.send(Request::Statistics(self.session(), reply)) {
            Ok(()) => answer.recv_timeout(REQUEST_TIMEOUT).unwrap_or_else(|_| self.call.last_statistics()),
            Err(_) => self.call.last_statistics(),
        }
    }

    /// Takes the packets traced since the last call, oldest first; empty unless `trace_rtp` is on.
    pub fn take_trace(&self) -> Vec<PacketTrace> {
        let (reply, answer) = bounded(1);
        match self.send(Request::Trace(self.session(), reply)) {
            Ok(()) => answer.recv_timeout(REQUEST_TIMEOUT).unwrap_or_else(|_| self.call.take_last_trace()),
            Err(_) => self.call.take_last_trace(),
        }
    }

    /// Opens a ring that gives what the peer says from now on, converted to `rate` Hz.
    ///
    /// When more than `capacity_ms` wait, the oldest are dropped and counted; the call is not disturbed.
    ///
    /// # Errors
    /// [`EngineError::Audio`] for a rate outside 8,000 to 48,000 (or without an even number of samples in 20 ms) or a
    /// capacity outside 20 to 60,000 ms; [`EngineError::NoAudio`] after the end.
    pub fn reader(&self, rate: u32, capacity_ms: u32) -> Result<FrameReader, EngineError> {
        if !READER_RATES.contains(&rate) || !is_frame_rate(rate) {
            return Err(EngineError::Audio(format!("rate {rate}: must be 8000 to 48000 Hz, a multiple of 100")));
        }
        if !RING_MS.contains(&capacity_ms) {
            return Err(EngineError::Audio(format!("capacity {capacity_ms} ms: must be 20 to 60000")));
        }
        let (sink, ring) = ring_sink(rate, capacity_ms);
        let (id, monitor) = (PortId(NEXT_PORT.fetch_add(1, Relaxed)), ring.monitor());
        self.send(Request::AddReader { session: self.session(), id, sink: Box::new(sink), monitor: monitor.clone() })?;
        let (call, media) = (self.call.clone(), self.media.clone());
        Ok(FrameReader { ring, rate, monitor, id, call, media, waker: Mutex::default() })
    }

    /// Opens a ring whose samples are sent to the peer; at most `max_ahead_ms` wait in it. Several writers mix.
    ///
    /// # Errors
    /// [`EngineError::Audio`] for a length outside 20 to 60,000 ms; [`EngineError::NoAudio`] after the end.
    pub fn writer(&self, max_ahead_ms: u32) -> Result<FrameWriter, EngineError> {
        if !RING_MS.contains(&max_ahead_ms) {
            return Err(EngineError::Audio(format!("max_ahead {max_ahead_ms} ms: must be 20 to 60000")));
        }
        if !self.is_open() {
            return Err(EngineError::NoAudio);
        }
        let max_ahead_ms = max_ahead_ms.max(WRITER_LEAST_MS);
        Ok(FrameWriter { handle: self.clone(), max_ahead_ms, state: Mutex::default() })
    }

    /// Plays a wav file to the peer `loops` times (0: until stopped), mixed with everything else.
    ///
    /// # Errors
    /// [`EngineError::File`] or [`EngineError::Audio`] at once when it is missing or no wav file.
    pub fn play(&self, source: PlaySource, loops: u32) -> Result<Playback, EngineError> {
        let input = match source {
            PlaySource::Path(path) => WavInput::Path(path),
            PlaySource::Bytes(bytes) => WavInput::Bytes(bytes),
        };
        let Player { source, feed, control } =
            player(&input, self.sample_rate(), loops).map_err(|error| match (&input, error.fault) {
                (WavInput::Path(path), WavFault::Io(fault)) => {
                    EngineError::File { path: path.clone(), what: words(&fault) }
                }
                (_, fault) => EngineError::Audio(format!("{}: {fault}", error.name)),
            })?;
        let (waiting, error) = (Arc::new(Waiting::default()), Arc::default());
        control.set_waker(Some(Waker::from(waiting.clone())));
        let playback = Playback { control, waiting, error };
        self.media.disk.play(feed, playback.error.clone())?;
        self.send(Request::AddSource { session: self.session(), source: Box::new(source), monitor: None })?;
        Ok(playback)
    }

    /// Sends a sine of `hz` at `level` dBFS (0 is full scale) until replaced; `None` stops it.
    ///
    /// # Errors
    /// [`EngineError::Audio`] for a frequency outside 1 to 20,000 Hz or a level above 0.
    pub fn tone(&self, tone: Option<(f64, f32)>) -> Result<(), EngineError> {
        let source = tone.map(|(hz, level)| -> Result<Box<dyn Source>, EngineError> {
            if !(1.0..=20_000.0).contains(&hz) {
                return Err(EngineError::Audio(format!("tone {hz} Hz: must be 1 to 20000")));
            }
            if !(-127.0..=0.0).contains(&level) {
                return Err(EngineError::Audio(format!("level {level} dBFS: must be -127 to 0")));
            }
            Ok(Box::new(ToneSource::new(Signal::Sine(hz), self.sample_rate(), level)))
        });
        self.send(Request::Tone(self.session(), source.transpose()?))
    }

    /// Sends the peer what it says, inside the media thread.
    pub fn echo(&self, on: bool) -> Result<(), EngineError> {
        self.send(Request::Bridge { from: self.session(), to: self.session(), on })
    }

    /// Lets the two parties of two calls hear each other until the bridge is dropped or a call ends.
    ///
    /// Between calls of one media thread it costs nothing; between two threads the sound goes through a ring and is one
    /// frame (20 ms) later.
    ///
    /// # Errors
    /// [`EngineError::Audio`] for a call with itself ([`Self::echo`] does that); [`EngineError::NoAudio`] after the end.
    pub fn bridge(&self, other: &AudioHandle) -> Result<Bridge, EngineError> {
        if self.session() == other.session() {
            return Err(EngineError::Audio("a call cannot be bridged with itself".to_owned()));
        }
        if !other.is_open() {
            return Err(EngineError::NoAudio);
        }
        let mut bridge = Bridge { ends: [self.clone(), other.clone()], rings: Vec::new() };
        if self.call.thread == other.call.thread {
            bridge.connect(true)?;
        } else {
            bridge.join(self, other)?;
            bridge.join(other, self)?;
        }
        Ok(bridge)
    }

    /// Sends silence instead of everything this side would send; the recording hears it too.
    pub fn set_muted(&self, muted: bool) -> Result<(), EngineError> {
        self.send(Request::Muted(self.session(), muted))?;
        self.call.set_muted(muted);
        Ok(())
    }

    pub fn muted(&self) -> bool {
        self.call.muted()
    }

    /// The level of the last frame from the peer, dB below full scale; silence is -127.
    pub fn level(&self) -> f32 {
        self.call.level()
    }
}

/// What the peer says, for one reading thread or task.
pub struct FrameReader {
    ring: Consumer,
    rate: u32,
    monitor: Monitor,
    id: PortId,
    call: Arc<CallView>,
    media: MediaView,
    waker: Mutex<Option<Waker>>,
}

impl FrameReader {
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Waits up to `timeout` for the next frame. `None`: none came, or the stream is over ([`Self::is_over`]).
    pub fn read_frame(&mut self, timeout: Duration) -> Option<AudioFrame> {
        if let Some(frame) = self.pop() {
            return Some(frame);
        }
        let length = self.frame_length();
        let ring = &self.ring;
        wait_until(timeout, |waker| ring.register(waker), || ring.queued() >= length || ring.is_closed());
        self.pop()
    }

    /// The next frame if it is there.
    pub fn try_read(&mut self) -> Option<AudioFrame> {
        self.arm();
        self.pop()
    }

    fn frame_length(&self) -> usize {
        self.rate as usize / 50
    }

    fn pop(&mut self) -> Option<AudioFrame> {
        let length = self.frame_length();
        if self.ring.queued() < length {
            return None;
        }
        let mut samples = vec![0; length].into_boxed_slice();
        let count = self.ring.pop(&mut samples); // the ring holds whole frames: all or nothing
        let begins = self.ring.position().saturating_sub(count as u64);
        (count == length).then(|| AudioFrame {
            samples,
            rate: self.rate,
            timestamp_ms: begins * 1000 / u64::from(self.rate),
        })
    }

    /// Wakes `waker` when a frame is there or the stream is over; it stays until replaced. It works once for each
    /// [`Self::try_read`], so read until nothing is there, then wait; read once after setting it, too.
    pub fn set_waker(&self, waker: &Waker) {
        *lock(&self.waker) = Some(waker.clone());
        self.arm();
    }

    fn arm(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            self.ring.register(waker);
        }
    }

    /// The stream has ended and everything was read.
    pub fn is_over(&self) -> bool {
        self.ring.is_closed() && self.ring.queued() < self.frame_length()
    }

    /// Milliseconds dropped so far because the ring was full.
    pub fn overflow_ms(&self) -> u64 {
        self.monitor.overrun() * 1000 / u64::from(self.rate)
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        self.media.send_now(&self.call, Request::RemoveReader(self.call.session, self.id));
    }
}

/// Samples for the peer, from one writing thread or task.
pub struct FrameWriter {
    handle: AudioHandle,
    max_ahead_ms: u32,
    state: Mutex<WriterState>,
}

#[derive(Default)]
struct WriterState {
    /// Made with the first samples, at their rate where the graph can take it.
    ring: Option<(Producer, u32)>,
    /// For samples at another rate than the ring's, and what it gave that did not fit yet.
    converter: Option<(u32, Converter)>,
    pending: Vec<i16>,
    waker: Option<Waker>,
}

impl FrameWriter {
    /// Takes as many samples (mono, at `rate` Hz, any number) as fit and returns how many; the rest is for later.
    ///
    /// # Errors
    /// [`EngineError::NoAudio`] after the end of the stream; [`EngineError::Audio`] for a rate no audio has.
    pub fn try_write(&mut self, samples: &[i16], rate: u32) -> Result<usize, EngineError> {
        let mut state = lock(&self.state);
        self.arm(&state);
        self.write_some(&mut state, samples, rate)
    }

    fn write_some(&self, state: &mut WriterState, samples: &[i16], rate: u32) -> Result<usize, EngineError> {
        if !FILE_RATES.contains(&rate) {
            return Err(EngineError::Audio(format!("rate {rate} Hz: must be {FILE_RATES:?}")));
        }
        if !self.handle.is_open() {
            return Err(EngineError::NoAudio);
        }
        if state.ring.is_none() {
            let ring_rate = if is_frame_rate(rate) { rate } else { self.handle.sample_rate() };
            let (producer, source) = ring_source(ring_rate, self.max_ahead_ms);
            let (session, monitor) = (self.handle.session(), Some(producer.monitor()));
            self.handle.send(Request::AddSource { session, source: Box::new(source), monitor })?;
            state.ring = Some((producer, ring_rate));
            self.arm(state);
        }
        state.push_pending();
        let WriterState { ring: Some((ring, ring_rate)), converter, pending, .. } = state else { return Ok(0) };
        if ring.is_closed() {
            return Err(EngineError::NoAudio);
        }
        if !pending.is_empty() {
            return Ok(0);
        }
        if rate == *ring_rate {
            if let Some((_, mut last)) = converter.take() {
                last.finish(pending);
                state.push_pending();
                return if state.pending.is_empty() { self.write_some(state, samples, rate) } else { Ok(0) };
            }
            return Ok(ring.push(samples));
        }
        if converter.as_ref().is_none_or(|(from, _)| *from != rate) {
            let fresh = Converter::new(rate, *ring_rate).map_err(|error| EngineError::Audio(error.to_string()))?;
            if let Some((_, mut last)) = converter.replace((rate, fresh)) {
                last.finish(pending);
            }
        }
        let room = ring.free() as u64 * u64::from(rate) / u64::from(*ring_rate);
        let count = samples.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if let (Some((_, converter)), Some(samples)) = (converter, samples.get(..count)) {
            converter.convert(samples, pending);
        }
        state.push_pending();
        Ok(count)
    }

    /// Writes everything, waiting for space for at most `timeout`; returns how many samples were taken.
    pub fn write(&mut self, samples: &[i16], rate: u32, timeout: Duration) -> Result<usize, EngineError> {
        let mut taken = 0;
        let mut failed = None;
        let state = &self.state;
        let register = |waker: &Waker| {
            if let Some((ring, _)) = &lock(state).ring {
                ring.register(waker);
            }
        };
        let mut registered = false;
        wait_until(timeout, register, || {
            let rest = samples.get(taken..).unwrap_or_default();
            let written = self.write_some(&mut lock(state), rest, rate);
            match written {
                Ok(count) => {
                    taken += count;
                    // The first write makes the ring: only then there is something to wait for.
                    if !std::mem::replace(&mut registered, true) && taken < samples.len() {
                        register(&Waker::from(Arc::new(Unpark(std::thread::current()))));
                    }
                }
                Err(error) => failed = Some(error),
            }
            failed.is_some() || taken == samples.len()
        });
        match failed {
            Some(error) if taken == 0 => Err(error),
            _ => Ok(taken),
        }
    }

    /// Wakes `waker` whenever samples have been played, all have been played, or the stream is over; it stays until
    /// replaced. It works once for each look at the writer, so look again after each wake-up.
    pub fn set_waker(&self, waker: &Waker) {
        let mut state = lock(&self.state);
        state.waker = Some(waker.clone());
        self.arm(&state);
    }

    fn arm(&self, state: &WriterState) {
        if let (Some(waker), Some((ring, _))) = (&state.waker, &state.ring) {
            ring.register(waker);
        }
    }

    /// Milliseconds that wait to be sent.
    pub fn queued_ms(&self) -> u32 {
        let mut state = lock(&self.state);
        self.arm(&state);
        state.push_pending();
        let WriterState { ring: Some((ring, rate)), pending, .. } = &*state else { return 0 };
        let ms = (ring.queued() + pending.len()) as u64 * 1000 / u64::from(*rate);
        u32::try_from(ms).unwrap_or(u32::MAX)
    }

    /// True when nothing waits to be sent.
    pub fn is_drained(&self) -> bool {
        let mut state = lock(&self.state);
        self.arm(&state);
        state.finish();
        state.is_drained()
    }

    /// Waits until nothing is queued; false when that took longer than `timeout` or the stream ended first.
    pub fn wait_drained(&self, timeout: Duration) -> bool {
        let register = |waker: &Waker| {
            if let Some((ring, _)) = &lock(&self.state).ring {
                ring.register(waker);
            }
        };
        wait_until(timeout, register, || self.is_over() || self.is_drained());
        self.is_drained()
    }

    /// Drops what waits and returns (played, dropped) milliseconds since the last clear.
    pub fn clear(&mut self) -> (u64, u64) {
        let mut state = lock(&self.state);
        let pending = std::mem::take(&mut state.pending).len() as u64;
        state.converter = None;
        let Some((ring, rate)) = &mut state.ring else { return (0, 0) };
        let cleared = ring.clear();
        let ms = |samples: u64| samples * 1000 / u64::from(*rate);
        (ms(cleared.played), ms(cleared.dropped + pending))
    }

    /// The stream has ended: nothing written is sent any more.
    pub fn is_over(&self) -> bool {
        !self.handle.is_open() || lock(&self.state).ring.as_ref().is_some_and(|(ring, _)| ring.is_closed())
    }
}

impl WriterState {
    /// Moves what a converter gave into the ring as far as it fits.
    fn push_pending(&mut self) {
        if let Some((ring, _)) = &mut self.ring {
            let count = ring.push(&self.pending);
            self.pending.drain(..count);
        }
    }

    /// Gets the last samples out of a converter.
    fn finish(&mut self) {
        if let Some((_, mut converter)) = self.converter.take() {
            converter.finish(&mut self.pending);
        }
        self.push_pending();
    }

    fn is_drained(&self) -> bool {
        self.pending.is_empty() && self.ring.as_ref().is_none_or(|(ring, _)| ring.queued() == 0)
    }
}

/// Who waits for the end of a playback.
#[derive(Default)]
struct Waiting {
    thread: AtomicWaker,
    task: AtomicWaker,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.thread.wake();
        self.task.wake();
    }
}

/// A wav file being played; dropping it does not stop it. One thread and one task may wait for its end.
#[derive(Clone)]
pub struct Playback {
    control: PlayerControl,
    waiting: Arc<Waiting>,
    error: Arc<Mutex<Option<String>>>,
}

impl Playback {
    /// Stops with the next frame.
    pub fn stop(&self) {
        self.control.stop();
    }

    /// Played to the end, stopped, or its stream is over.
    pub fn is_finished(&self) -> bool {
        self.control.is_finished()
    }

    /// Milliseconds played so far, loops included.
    pub fn position_ms(&self) -> u64 {
        self.control.position_ms()
    }

    /// Waits for the end; false when `timeout` came first.
    pub fn wait(&self, timeout: Duration) -> bool {
        wait_until(timeout, |waker| self.waiting.thread.register(waker), || self.is_finished())
    }

    /// Wakes `waker` at the end. Ask [`Self::is_finished`] once after setting it.
    pub fn set_waker(&self, waker: &Waker) {
        self.waiting.task.register(waker);
    }

    /// What went wrong while reading the file: what had been read until then was played.
    pub fn error(&self) -> Option<String> {
        lock(&self.error).clone()
    }
}

/// Two calls that hear each other; dropping it separates them.
pub struct Bridge {
    ends: [AudioHandle; 2],
    /// The listening ends of rings between threads, by call.
    rings: Vec<(AudioHandle, PortId)>,
}

impl Bridge {
    fn connect(&self, on: bool) -> Result<(), EngineError> {
        let [a, b] = [self.ends[0].session(), self.ends[1].session()];
        self.ends[0].send(Request::Bridge { from: a, to: b, on })?;
        self.ends[0].send(Request::Bridge { from: b, to: a, on })
    }

    /// Lets `to`'s peer hear `from`'s across their threads.
    fn join(&mut self, from: &AudioHandle, to: &AudioHandle) -> Result<(), EngineError> {
        let rate = from.sample_rate();
        let (mut sink, ring) = ring_sink(rate, BRIDGE_MS);
        let monitor = ring.monitor();
        sink.push(&vec![0; rate as usize / 50], false, Instant::now());
        let source = Box::new(RingSource::new(ring, rate));
        let id = PortId(NEXT_PORT.fetch_add(1, Relaxed));
        to.send(Request::AddSource { session: to.session(), source, monitor: None })?;
        from.send(Request::AddReader { session: from.session(), id, sink: Box::new(sink), monitor })?;
        self.rings.push((from.clone(), id));
        Ok(())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if self.rings.is_empty() {
            let _ = self.connect(false); // a call that has ended is separated already
        }
        for (from, id) in &self.rings {
            from.media.send_now(&from.call, Request::RemoveReader(from.session(), *id));
        }
    }
}
