//! The audio of a session: frames out and in, players, bridges, numbers.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::convert;
use super::frame::PyFrame;
use super::stats::{AudioCounters, PyAudioStatistics};
use super::wake::PyWakeToken;
use crate::engine::{AudioHandle, Bridge, FrameReader, FrameWriter, PlaySource, Playback};

/// Locks what one thread at a time may use. Callers are detached from the interpreter, so nobody waits for it and this.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Signed 16-bit samples from a buffer of samples or of bytes.
pub fn samples(py: Python<'_>, pcm: &Bound<'_, PyAny>) -> PyResult<Vec<i16>> {
    if let Ok(buffer) = PyBuffer::<i16>::get(pcm) {
        return buffer.to_vec(py);
    }
    let bytes = PyBuffer::<u8>::get(pcm)
        .map_err(|_| PyTypeError::new_err(format!("audio of type {} is no buffer of 16-bit samples", pcm.get_type())))?
        .to_vec(py)?;
    if bytes.len() % 2 != 0 {
        return Err(PyValueError::new_err(format!("audio of {} bytes is not whole 16-bit samples", bytes.len())));
    }
    Ok(bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
}

/// The audio stream of one session. It outlives the call: the statistics are then the final ones.
#[pyclass(frozen, name = "Audio", module = "sipwire._core")]
pub struct PyAudio(pub AudioHandle);

#[pymethods]
impl PyAudio {
    #[getter]
    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    #[getter]
    fn sample_rate(&self) -> u32 {
        self.0.sample_rate()
    }

    fn statistics(&self, py: Python<'_>) -> PyAudioStatistics {
        AudioCounters::from(py.detach(|| self.0.statistics())).into()
    }

    /// Packets received since the last call: (seconds, deviation ms, jitter ms, packets lost before it).
    fn take_trace(&self, py: Python<'_>) -> Vec<(f64, f64, f64, u16)> {
        py.detach(|| self.0.take_trace())
            .into_iter()
            .map(|packet| (packet.at, packet.deviation_ms, packet.jitter_ms, packet.lost_before))
            .collect()
    }

    /// Opens a ring that gives what the peer says from now on.
    fn reader(&self, py: Python<'_>, rate: u32, capacity_ms: u32) -> PyResult<PyFrameReader> {
        let reader = py.detach(|| self.0.reader(rate, capacity_ms))?;
        Ok(PyFrameReader(Mutex::new(reader)))
    }

    /// Opens a ring whose samples are sent to the peer.
    fn writer(&self, py: Python<'_>, max_ahead_ms: u32) -> PyResult<PyFrameWriter> {
        let writer = py.detach(|| self.0.writer(max_ahead_ms))?;
        Ok(PyFrameWriter(Mutex::new(writer)))
    }

    /// Plays a wav file (a path, or bytes with its content) to the peer; `loops` 0 plays until stopped.
    fn play(&self, py: Python<'_>, source: &Bound<'_, PyAny>, loops: u32) -> PyResult<PyPlayback> {
        let source = match PyBuffer::<u8>::get(source) {
            Ok(buffer) => PlaySource::Bytes(buffer.to_vec(py)?.into()),
            Err(_) => PlaySource::Path(source.extract::<PathBuf>()?),
        };
        Ok(PyPlayback(py.detach(|| self.0.play(source, loops))?))
    }

    /// Sends a sine of `hz` at `level` dB below full scale until replaced; `None` stops it.
    fn tone(&self, py: Python<'_>, hz: Option<f64>, level: f32) -> PyResult<()> {
        Ok(py.detach(|| self.0.tone(hz.map(|hz| (hz, level))))?)
    }

    /// Sends the peer what it says.
    fn echo(&self, py: Python<'_>, on: bool) -> PyResult<()> {
        Ok(py.detach(|| self.0.echo(on))?)
    }

    /// Lets the two parties hear each other until the bridge is dropped.
    fn bridge(&self, py: Python<'_>, other: &Self) -> PyResult<PyBridge> {
        Ok(PyBridge(Mutex::new(Some(py.detach(|| self.0.bridge(&other.0))?))))
    }

    #[getter]
    fn muted(&self) -> bool {
        self.0.muted()
    }

    fn set_muted(&self, py: Python<'_>, muted: bool) -> PyResult<()> {
        Ok(py.detach(|| self.0.set_muted(muted))?)
    }

    /// Of the last frame from the peer, dB below full scale.
    #[getter]
    fn level(&self) -> f32 {
        self.0.level()
    }
}

/// What the peer says, for one reading thread or task.
#[pyclass(frozen, name = "FrameReader", module = "sipwire._core")]
pub struct PyFrameReader(Mutex<FrameReader>);

#[pymethods]
impl PyFrameReader {
    #[getter]
    fn rate(&self, py: Python<'_>) -> u32 {
        py.detach(|| lock(&self.0).rate())
    }

    /// Waits up to `timeout` seconds for the next frame; `None` when none came.
    fn read(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<PyFrame>> {
        let timeout = convert::seconds(timeout)?;
        Ok(py.detach(|| lock(&self.0).read_frame(timeout)).map(PyFrame::new))
    }

    /// The next frame if it is there.
    fn try_read(&self, py: Python<'_>) -> Option<PyFrame> {
        py.detach(|| lock(&self.0).try_read()).map(PyFrame::new)
    }

    /// Wakes the token's loop when a frame is there or the stream is over.
    fn set_waker(&self, py: Python<'_>, token: &PyWakeToken) {
        let waker = token.waker();
        py.detach(|| lock(&self.0).set_waker(&waker));
    }

    /// The stream has ended and everything was read.
    #[getter]
    fn is_over(&self, py: Python<'_>) -> bool {
        py.detach(|| lock(&self.0).is_over())
    }

    /// Milliseconds dropped because nobody read.
    #[getter]
    fn overflow_ms(&self, py: Python<'_>) -> u64 {
        py.detach(|| lock(&self.0).overflow_ms())
    }
}

/// Samples for the peer, from one writing thread or task.
#[pyclass(frozen, name = "FrameWriter", module = "sipwire._core")]
pub struct PyFrameWriter(Mutex<FrameWriter>);

#[pymethods]
impl PyFrameWriter {
    /// Takes as many samples as fit and returns how many.
    fn try_write(&self, py: Python<'_>, pcm: &Bound<'_, PyAny>, rate: u32) -> PyResult<usize> {
        let samples = samples(py, pcm)?;
        Ok(py.detach(|| lock(&self.0).try_write(&samples, rate))?)
    }

    /// Wakes the token's loop whenever samples were played or the stream is over.
    fn set_waker(&self, py: Python<'_>, token: &PyWakeToken) {
        let waker = token.waker();
        py.detach(|| lock(&self.0).set_waker(&waker));
    }

    #[getter]
    fn queued_ms(&self, py: Python<'_>) -> u32 {
        py.detach(|| lock(&self.0).queued_ms())
    }

    #[getter]
    fn is_drained(&self, py: Python<'_>) -> bool {
        py.detach(|| lock(&self.0).is_drained())
    }

    /// Drops what waits; returns (played, dropped) milliseconds since the last clear.
    fn clear(&self, py: Python<'_>) -> (u64, u64) {
        py.detach(|| lock(&self.0).clear())
    }

    #[getter]
    fn is_over(&self, py: Python<'_>) -> bool {
        py.detach(|| lock(&self.0).is_over())
    }
}

/// A wav file being played.
#[pyclass(frozen, name = "Playback", module = "sipwire._core")]
pub struct PyPlayback(Playback);

#[pymethods]
impl PyPlayback {
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }

    /// Played to the end, stopped, or its stream is over.
    #[getter]
    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for the end; false when `timeout` seconds came first.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = convert::seconds(timeout)?;
        Ok(py.detach(|| self.0.wait(timeout)))
    }

    fn set_waker(&self, token: &PyWakeToken) {
        self.0.set_waker(&token.waker());
    }

    /// What went wrong while reading the file.
    #[getter]
    fn error(&self) -> Option<String> {
        self.0.error()
    }
}

/// Two calls that hear each other.
#[pyclass(frozen, name = "Bridge", module = "sipwire._core")]
pub struct PyBridge(Mutex<Option<Bridge>>);

#[pymethods]
impl PyBridge {
    /// Separates them; a second call does nothing.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(lock(&self.0).take()));
    }
}
