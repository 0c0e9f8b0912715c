//! 20 ms of audio as an object with the buffer protocol.

use std::ffi::c_int;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

use crate::engine::AudioFrame;

/// 20 ms of signed 16-bit mono audio. Supports the buffer protocol: `numpy.frombuffer(frame, "<i2")` copies nothing.
#[pyclass(frozen, name = "AudioFrame", module = "sipwire._core")]
pub struct PyFrame {
    frame: AudioFrame,
}

impl PyFrame {
    pub fn new(frame: AudioFrame) -> Self {
        Self { frame }
    }

    fn bytes(&self) -> &[u8] {
        let samples = &self.frame.samples;
        // SAFETY: the samples are initialised, `u8` has no alignment and twice as many fit in the same memory.
        unsafe { std::slice::from_raw_parts(samples.as_ptr().cast(), samples.len() * 2) }
    }
}

#[pymethods]
impl PyFrame {
    /// Seconds since the reader was made; a step of more than 0.02 tells what was dropped because nobody read.
    #[getter]
    fn timestamp(&self) -> f64 {
        self.frame.timestamp_ms as f64 / 1000.0
    }

    /// Samples per second.
    #[getter]
    fn rate(&self) -> u32 {
        self.frame.rate
    }

    /// RMS in dB below full scale: 0 is the loudest, silence is -127.
    #[getter]
    fn level(&self) -> f32 {
        self.frame.level()
    }

    /// Number of samples.
    fn __len__(&self) -> usize {
        self.frame.samples.len()
    }

    fn __bytes__(&self) -> &[u8] {
        self.bytes()
    }

    /// The memory of the frame, as Python 3.12 names it (PEP 688): type checkers ask for it.
    #[pyo3(signature = (flags, /))]
    fn __buffer__<'py>(slf: &Bound<'py, Self>, flags: c_int) -> PyResult<Bound<'py, PyMemoryView>> {
        let _ = flags; // a read-only view of bytes serves them all
        PyMemoryView::from(slf.as_any())
    }

    fn __repr__(&self) -> String {
        format!("<AudioFrame {:.2} s, {} samples at {} Hz>", self.timestamp(), self.__len__(), self.frame.rate)
    }

    /// # Safety
    /// `view` comes from the interpreter and is valid.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view given"));
        }
        let bytes = slf.get().bytes();
        // SAFETY: the view is valid; the samples neither move nor change while the frame lives, the view holds a
        // reference to it, and it is exported read-only (the frame is never written).
        let failed = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                bytes.as_ptr() as *mut _,
                bytes.len() as ffi::Py_ssize_t,
                1,
                flags,
            )
        };
        if failed == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
