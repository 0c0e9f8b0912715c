//! Python values into the core's words, each failure naming the argument and its value.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::event::{Route, SessionState, Streams};
use crate::sip::transport::Transport;

/// A time-out in seconds.
///
/// # Errors
/// `ValueError` unless it is finite and not negative.
pub fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("timeout {value} is not a number of seconds from 0 up")))
}

/// Seconds since 1970.
pub fn epoch(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A host and a port, as Python's sockets give them.
pub fn address(address: SocketAddr) -> (String, u16) {
    (address.ip().to_string(), address.port())
}

/// A transport by name.
///
/// # Errors
/// `ValueError` for an unknown one.
pub fn transport(name: &str) -> PyResult<Transport> {
    Transport::from_name(name).ok_or_else(|| {
        PyValueError::new_err(format!(
            "transport {name:?} is unknown: use \"udp\", \"tcp\", \"tls\", \"ws\" or \"wss\""
        ))
    })
}

/// A route from Python: (address, port, transport).
pub fn route((address, port, name): (String, u16, String)) -> PyResult<Route> {
    Ok(Route::new(address, port, transport(&name)?))
}

/// The names of the streams, as the API lists them.
pub fn streams(streams: Streams) -> Vec<&'static str> {
    [("audio", streams.audio), ("chat", streams.chat)]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
}

/// A path as text; bytes that are not UTF-8 are replaced.
pub fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The member of `SessionState` in Python.
pub fn state(py: Python<'_>, state: SessionState) -> PyResult<Bound<'_, PyAny>> {
    const STATES: [SessionState; 9] = [
        SessionState::Null,
        SessionState::Calling,
        SessionState::Incoming,
        SessionState::Accepting,
        SessionState::Established,
        SessionState::Proposing,
        SessionState::Proposed,
        SessionState::Terminating,
        SessionState::Terminated,
    ];
    static MEMBERS: PyOnceLock<Vec<Py<PyAny>>> = PyOnceLock::new();
    let members = MEMBERS.get_or_try_init(py, || -> PyResult<_> {
        let class = py.import("sipwire.notification_data")?.getattr("SessionState")?;
        STATES.iter().map(|state| Ok(class.getattr(state.name())?.unbind())).collect()
    })?;
    Ok(members[state as usize].bind(py).clone())
}

/// A `Route` of Python.
pub fn route_object<'py>(py: Python<'py>, route: &Route) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "sipwire.core", "Route")?.call1((&route.address, route.port, route.transport.name()))
}
