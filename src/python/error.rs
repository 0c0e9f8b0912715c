//! Errors of the core as exceptions of `sipwire.errors`: one function.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::engine::EngineError;
use crate::event::SessionState;
use crate::ua::VerbError;

/// An exception class of `sipwire.errors`, looked up once.
struct Class {
    name: &'static str,
    class: PyOnceLock<Py<PyType>>,
}

impl Class {
    const fn new(name: &'static str) -> Self {
        Self { name, class: PyOnceLock::new() }
    }

    fn raise<A>(&self, py: Python<'_>, arguments: A) -> PyErr
    where
        A: pyo3::PyErrArguments + Send + Sync + 'static,
    {
        match self.class.import(py, "sipwire.errors", self.name) {
            Ok(class) => PyErr::from_type(class.clone(), arguments),
            Err(error) => error,
        }
    }
}

static ENGINE_ERROR: Class = Class::new("EngineError");
static MEDIA_ERROR: Class = Class::new("MediaError");
static STATE_ERROR: Class = Class::new("SessionStateError");
static UNKNOWN_SESSION: Class = Class::new("UnknownSession");

/// Says that an option or the engine itself is at fault.
pub fn engine_error(text: String) -> PyErr {
    Python::attach(|py| ENGINE_ERROR.raise(py, text))
}

impl From<EngineError> for PyErr {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        Python::attach(|py| match error {
            EngineError::Verb(VerbError::WrongState { state, allowed, .. }) => {
                let allowed: Vec<&str> = allowed.into_iter().map(SessionState::name).collect();
                STATE_ERROR.raise(py, (text, state.name(), allowed))
            }
            EngineError::Verb(VerbError::NotPossible { state, .. }) => {
                STATE_ERROR.raise(py, (text, state.name(), Vec::<&str>::new()))
            }
            EngineError::Verb(VerbError::BadArgument(_)) => PyValueError::new_err(text),
            EngineError::Verb(VerbError::UnknownSession(_)) => UNKNOWN_SESSION.raise(py, text),
            EngineError::File { .. } | EngineError::Audio(_) | EngineError::NoAudio => MEDIA_ERROR.raise(py, text),
            EngineError::Option { .. }
            | EngineError::Stopped
            | EngineError::NoAnswer(_)
            | EngineError::Verb(VerbError::UnknownAccount(_)) => ENGINE_ERROR.raise(py, text),
        })
    }
}
