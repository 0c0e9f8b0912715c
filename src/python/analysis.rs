//! Measurements on recordings, for tests and reports.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::audio::samples;
use crate::audio::{analysis, tone};

/// The loudest tone: (Hz, RMS level in dB below full scale, dB above everything else); `None` when it is silent.
#[pyfunction]
pub fn dominant_tone(py: Python<'_>, pcm: &Bound<'_, PyAny>, rate: u32) -> PyResult<Option<(f64, f64, f64)>> {
    let pcm = samples(py, pcm)?;
    Ok(py.detach(|| analysis::dominant_tone(&pcm, rate)).map(|tone| (tone.hz, tone.level, tone.snr)))
}

/// The tone of `hz`: (Hz, RMS level in dB below full scale, dB above everything else).
#[pyfunction]
pub fn tone_at(py: Python<'_>, pcm: &Bound<'_, PyAny>, rate: u32, hz: f64) -> PyResult<(f64, f64, f64)> {
    let pcm = samples(py, pcm)?;
    let tone = py.detach(|| analysis::tone_at(&pcm, rate, hz));
    Ok((tone.hz, tone.level, tone.snr))
}

/// How much later `recording` holds what `reference` does, ms; `None` when they have nothing in common.
#[pyfunction]
pub fn delay_ms(
    py: Python<'_>,
    reference: &Bound<'_, PyAny>,
    recording: &Bound<'_, PyAny>,
    rate: u32,
) -> PyResult<Option<f64>> {
    let (reference, recording) = (samples(py, reference)?, samples(py, recording)?);
    Ok(py.detach(|| analysis::delay_ms(&reference, &recording, rate)))
}

/// RMS in dB below full scale; a full-scale sine is -3, silence is -127.
#[pyfunction]
pub fn level_dbfs(py: Python<'_>, pcm: &Bound<'_, PyAny>) -> PyResult<f32> {
    let pcm = samples(py, pcm)?;
    Ok(py.detach(|| analysis::level_dbfs(&pcm)))
}

/// `columns` × `rows` levels, row by row from the highest frequency down, 255 the loudest.
#[pyfunction]
pub fn spectrogram<'py>(
    py: Python<'py>,
    pcm: &Bound<'py, PyAny>,
    rate: u32,
    columns: usize,
    rows: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let pcm = samples(py, pcm)?;
    let picture = py.detach(|| analysis::spectrogram(&pcm, rate, columns, rows));
    Ok(PyBytes::new(py, &picture))
}

/// Gaps (start ms, length ms) and clicks (ms) in what should be a steady sound.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn find_breaks(py: Python<'_>, pcm: &Bound<'_, PyAny>, rate: u32) -> PyResult<(Vec<(f64, f64)>, Vec<f64>)> {
    let pcm = samples(py, pcm)?;
    let breaks = py.detach(|| analysis::find_breaks(&pcm, rate));
    Ok((breaks.gaps, breaks.clicks))
}

/// Speech-like sound, 16-bit mono; the same for the same seed. Raises `ValueError` for more than ten minutes.
#[pyfunction]
pub fn voice(py: Python<'_>, seconds: f64, rate: u32, seed: u64) -> PyResult<Bound<'_, PyBytes>> {
    if !(0.0..=600.0).contains(&seconds) || !(8_000..=48_000).contains(&rate) {
        let text = format!("a voice of {seconds} s at {rate} Hz: up to 600 s at 8000 to 48000 Hz");
        return Err(PyValueError::new_err(text));
    }
    let pcm: Vec<u8> = py.detach(|| tone::voice(seconds, rate, seed).iter().flat_map(|s| s.to_le_bytes()).collect());
    Ok(PyBytes::new(py, &pcm))
}
