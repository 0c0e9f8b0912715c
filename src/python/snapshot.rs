//! What a session looks like right after an event.

use std::net::SocketAddr;
use std::sync::Arc;

use pyo3::prelude::*;

use super::convert;
use super::uri::PyUri;
use crate::event::{AudioSnapshot, CallDirection, Headers, Snapshot};
use crate::media::CodecKind;

/// An immutable view of a session; each attribute is one of the API's.
#[pyclass(frozen, name = "Snapshot", module = "sipwire._core")]
pub struct PySnapshot(Arc<Snapshot>);

impl PySnapshot {
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(snapshot)
    }

    fn audio<T>(&self, value: impl FnOnce(&AudioSnapshot) -> Option<T>) -> Option<T> {
        self.0.audio.as_deref().and_then(value)
    }

    fn audio_address(&self, value: impl FnOnce(&AudioSnapshot) -> Option<SocketAddr>) -> Option<(String, u16)> {
        self.audio(value).map(convert::address)
    }
}

#[pymethods]
impl PySnapshot {
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::state(py, self.0.state)
    }

    #[getter]
    fn direction(&self) -> Option<&'static str> {
        self.0.direction.map(|direction| match direction {
            CallDirection::Incoming => "incoming",
            CallDirection::Outgoing => "outgoing",
        })
    }

    #[getter]
    fn account(&self) -> Option<u64> {
        self.0.account.map(|account| account.0)
    }

    /// The call that this one takes the place of.
    #[getter]
    fn replaces(&self) -> Option<u64> {
        self.0.replaces.map(|session| session.0)
    }

    #[getter]
    fn call_id(&self) -> Option<&str> {
        self.0.call_id.as_deref()
    }

    #[getter]
    fn local_uri(&self) -> Option<PyUri> {
        self.0.local_uri.clone().map(PyUri)
    }

    #[getter]
    fn remote_uri(&self) -> Option<PyUri> {
        self.0.remote_uri.clone().map(PyUri)
    }

    #[getter]
    fn remote_display_name(&self) -> Option<&str> {
        self.0.remote_display_name.as_deref()
    }

    #[getter]
    fn remote_user_agent(&self) -> Option<&str> {
        self.0.remote_user_agent.as_deref()
    }

    #[getter]
    fn route<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.0.route.as_ref().map(|route| convert::route_object(py, route)).transpose()
    }

    #[getter]
    fn transport(&self) -> Option<&'static str> {
        self.0.transport.map(|transport| transport.name())
    }

    #[getter]
    fn peer_address(&self) -> Option<(String, u16)> {
        self.0.peer_address.map(convert::address)
    }

    /// Seconds since 1970.
    #[getter]
    fn start_time(&self) -> Option<f64> {
        self.0.start_time.map(convert::epoch)
    }

    /// Seconds since 1970.
    #[getter]
    fn stop_time(&self) -> Option<f64> {
        self.0.stop_time.map(convert::epoch)
    }

    #[getter]
    fn on_hold_by_local(&self) -> bool {
        self.0.on_hold_by_local
    }

    #[getter]
    fn on_hold_by_remote(&self) -> bool {
        self.0.on_hold_by_remote
    }

    #[getter]
    fn proposed_streams(&self) -> Vec<&'static str> {
        convert::streams(self.0.proposed_streams)
    }

    #[getter]
    fn has_audio(&self) -> bool {
        self.0.has_audio
    }

    #[getter]
    fn has_chat(&self) -> bool {
        self.0.has_chat
    }

    /// True from the moment the stream's sockets exist.
    #[getter]
    fn has_audio_transport(&self) -> bool {
        self.0.audio.is_some()
    }

    #[getter]
    fn audio_codec(&self) -> Option<&'static str> {
        self.audio(|audio| audio.codec).map(CodecKind::name)
    }

    #[getter]
    fn audio_sample_rate(&self) -> Option<u32> {
        self.audio(|audio| audio.sample_rate)
    }

    /// The suite's name while SRTP is in use.
    #[getter]
    fn audio_srtp_suite(&self) -> Option<&'static str> {
        self.audio(|audio| audio.srtp_suite)
    }

    #[getter]
    fn audio_local_rtp(&self) -> Option<(String, u16)> {
        self.audio_address(|audio| audio.local_rtp)
    }

    #[getter]
    fn audio_remote_rtp_sdp(&self) -> Option<(String, u16)> {
        self.audio_address(|audio| audio.remote_rtp_sdp)
    }

    #[getter]
    fn audio_remote_rtp_received(&self) -> Option<(String, u16)> {
        self.audio_address(|audio| audio.remote_rtp_received)
    }

    #[getter]
    fn audio_recording_file_name(&self) -> Option<String> {
        self.audio(|audio| audio.recording_file_name.as_deref().map(convert::path))
    }

    #[getter]
    fn local_sdp(&self) -> Option<&str> {
        self.0.local_sdp.as_deref()
    }

    #[getter]
    fn remote_sdp(&self) -> Option<String> {
        self.0.remote_sdp().as_deref().map(str::to_owned)
    }

    #[getter]
    fn request_headers(&self) -> Option<Vec<(String, String)>> {
        self.0.request_headers.as_ref().map(Headers::list)
    }

    #[getter]
    fn response_headers(&self) -> Option<Vec<(String, String)>> {
        self.0.response_headers.as_ref().map(Headers::list)
    }

    #[getter]
    fn end_reason(&self) -> Option<&str> {
        self.0.end_reason.as_deref()
    }

    #[getter]
    fn failure(&self) -> Option<(u16, &str)> {
        self.0.failure.as_ref().map(|(code, reason)| (*code, &**reason))
    }

    /// Seconds the peer asked us to stay away.
    #[getter]
    fn retry_after(&self) -> Option<u32> {
        self.0.refusal.as_ref().and_then(|refusal| refusal.retry_after)
    }

    #[getter]
    fn redirect_targets(&self) -> Vec<PyUri> {
        self.0.refusal.iter().flat_map(|refusal| refusal.redirect_targets.iter().cloned().map(PyUri)).collect()
    }

    fn __repr__(&self) -> String {
        format!("<Snapshot {}>", self.0.state.name())
    }
}
