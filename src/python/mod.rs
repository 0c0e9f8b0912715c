//! `sipwire._core`: arguments in, errors and events out. Nothing is decided here.
//!
//! Classes are frozen, waits run detached from the interpreter, [`error`] turns errors into exceptions and the one table
//! in [`event`] turns events into notifications.

mod analysis;
mod audio;
mod convert;
mod engine;
mod error;
mod event;
mod frame;
mod snapshot;
mod stats;
mod testing;
mod uri;
mod wake;

use pyo3::prelude::*;

/// The extension module. Private: programs use the package around it.
#[pymodule(name = "_core")]
mod core {
    #[pymodule_export]
    use super::analysis::{delay_ms, dominant_tone, find_breaks, level_dbfs, spectrogram, tone_at, voice};
    #[pymodule_export]
    use super::audio::{PyAudio, PyBridge, PyFrameReader, PyFrameWriter, PyPlayback};
    #[pymodule_export]
    use super::engine::PyEngine;
    #[pymodule_export]
    use super::event::{notification_table, presence_document};
    #[pymodule_export]
    use super::frame::PyFrame;
    #[pymodule_export]
    use super::snapshot::PySnapshot;
    #[pymodule_export]
    use super::testing::PyTestProxy;
    #[pymodule_export]
    use super::uri::PyUri;
    #[pymodule_export]
    use super::wake::{PyWakeHub, PyWakeToken};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::stats::add_to(module)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
