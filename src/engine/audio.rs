//! The application's side of a call's audio: frames out and in, players, tones, bridges, numbers.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::EngineError;
use crate::event::SessionId;
use crate::media::CodecKind;
use crate::rtp::session::{PacketTrace, Statistics};

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
        todo!()
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

/// The audio of one session. Clones share it; callable from any thread; every wait is bounded.
#[derive(Clone)]
pub struct AudioHandle {
    shared: Arc<()>,
}

#[allow(unused_variables)]
impl AudioHandle {
    pub fn session(&self) -> SessionId {
        todo!()
    }

    /// False once the stream has ended.
    pub fn is_open(&self) -> bool {
        todo!()
    }

    /// The codec's sample rate, Hz. It may change with a re-INVITE; readers and writers convert.
    pub fn sample_rate(&self) -> u32 {
        todo!()
    }

    /// Counters of the stream; the final ones after its end.
    pub fn statistics(&self) -> AudioStatistics {
        todo!()
    }

    /// Takes the packets traced since the last call, oldest first; empty unless `trace_rtp` is on.
    pub fn take_trace(&self) -> Vec<PacketTrace> {
        todo!()
    }

    /// Opens a ring that gives what the peer says from now on, converted to `rate` Hz.
    ///
    /// When more than `capacity_ms` wait, the newest are dropped and counted; the call is not disturbed.
    ///
    /// # Errors
    /// [`EngineError::Audio`] for a rate outside 8,000 to 48,000 or a capacity outside 20 to 60,000 ms;
    /// [`EngineError::NoAudio`] after the end.
    pub fn reader(&self, rate: u32, capacity_ms: u32) -> Result<FrameReader, EngineError> {
        todo!()
    }

    /// Opens a ring whose samples are sent to the peer; at most `max_ahead_ms` wait in it. Several writers mix.
    pub fn writer(&self, max_ahead_ms: u32) -> Result<FrameWriter, EngineError> {
        todo!()
    }

    /// Plays a wav file to the peer `loops` times (0: until stopped), mixed with everything else.
    ///
    /// # Errors
    /// [`EngineError::File`] or [`EngineError::Audio`] at once when it is missing or no wav file.
    pub fn play(&self, source: PlaySource, loops: u32) -> Result<Playback, EngineError> {
        todo!()
    }

    /// Sends a sine of `hz` at `level` dBFS (0 is full scale) until replaced; `None` stops it.
    pub fn tone(&self, tone: Option<(f64, f32)>) -> Result<(), EngineError> {
        todo!()
    }

    /// Sends the peer what it says, inside the media thread.
    pub fn echo(&self, on: bool) -> Result<(), EngineError> {
        todo!()
    }

    /// Lets the two parties of two calls hear each other until the bridge is dropped or a call ends.
    ///
    /// The other call moves to this one's media thread.
    pub fn bridge(&self, other: &AudioHandle) -> Result<Bridge, EngineError> {
        todo!()
    }

    /// Sends silence instead of everything this side would send; the recording hears it too.
    pub fn set_muted(&self, muted: bool) -> Result<(), EngineError> {
        todo!()
    }

    pub fn muted(&self) -> bool {
        todo!()
    }

    /// The level of the last frame from the peer, dB below full scale; silence is -127.
    pub fn level(&self) -> f32 {
        todo!()
    }
}

/// What the peer says, for one reading thread or task.
pub struct FrameReader {
    shared: Arc<()>,
}

#[allow(unused_variables)]
impl FrameReader {
    pub fn rate(&self) -> u32 {
        todo!()
    }

    /// Waits up to `timeout` for the next frame. `None`: none came, or the stream is over ([`Self::is_over`]).
    pub fn read_frame(&mut self, timeout: Duration) -> Option<AudioFrame> {
        todo!()
    }

    /// The next frame if it is there.
    pub fn try_read(&mut self) -> Option<AudioFrame> {
        todo!()
    }

    /// Wakes `waker` when a frame is there or the stream is over; it stays until replaced. Try to read once after
    /// setting it: what came before does not wake.
    pub fn set_waker(&self, waker: &Waker) {
        todo!()
    }

    /// The stream has ended and everything was read.
    pub fn is_over(&self) -> bool {
        todo!()
    }

    /// Milliseconds dropped so far because the ring was full.
    pub fn overflow_ms(&self) -> u64 {
        todo!()
    }
}

/// Samples for the peer, from one writing thread or task.
pub struct FrameWriter {
    shared: Arc<()>,
}

#[allow(unused_variables)]
impl FrameWriter {
    /// Takes as many samples (mono, at `rate` Hz, any number) as fit and returns how many; the rest is for later.
    ///
    /// # Errors
    /// [`EngineError::NoAudio`] after the end of the stream.
    pub fn try_write(&mut self, samples: &[i16], rate: u32) -> Result<usize, EngineError> {
        todo!()
    }

    /// Writes everything, waiting for space for at most `timeout`; returns how many samples were taken.
    pub fn write(&mut self, samples: &[i16], rate: u32, timeout: Duration) -> Result<usize, EngineError> {
        todo!()
    }

    /// Wakes `waker` whenever samples have been played, all have been played, or the stream is over; it stays until
    /// replaced.
    pub fn set_waker(&self, waker: &Waker) {
        todo!()
    }

    /// Milliseconds that wait to be sent.
    pub fn queued_ms(&self) -> u32 {
        todo!()
    }

    /// True when nothing waits to be sent.
    pub fn is_drained(&self) -> bool {
        todo!()
    }

    /// Waits until nothing is queued; false when that took longer than `timeout` or the stream ended first.
    pub fn wait_drained(&self, timeout: Duration) -> bool {
        todo!()
    }

    /// Drops what waits and returns (played, dropped) milliseconds since the last clear.
    pub fn clear(&mut self) -> (u64, u64) {
        todo!()
    }

    pub fn is_over(&self) -> bool {
        todo!()
    }
}

/// A wav file being played; dropping it does not stop it.
#[derive(Clone)]
pub struct Playback {
    shared: Arc<()>,
}

#[allow(unused_variables)]
impl Playback {
    /// Stops now.
    pub fn stop(&self) {
        todo!()
    }

    /// Played to the end, stopped, or its stream is over.
    pub fn is_finished(&self) -> bool {
        todo!()
    }

    /// Waits for the end; false when `timeout` came first.
    pub fn wait(&self, timeout: Duration) -> bool {
        todo!()
    }

    /// Wakes `waker` at the end. Ask [`Self::is_finished`] once after setting it.
    pub fn set_waker(&self, waker: &Waker) {
        todo!()
    }

    /// What went wrong while reading the file, once finished.
    pub fn error(&self) -> Option<String> {
        todo!()
    }
}

/// Two calls that hear each other; dropping it separates them.
pub struct Bridge {
    shared: Arc<()>,
}

impl Drop for Bridge {
    fn drop(&mut self) {}
}
