//! The handle applications hold.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{AudioHandle, EngineError, EngineOptions, EngineStats};
use crate::event::{AccountId, Event, RequestId, Route, SessionId, Snapshot};
use crate::media::RecordingLayout;
use crate::sip::uri::Uri;
use crate::ua::{AccountSettings, Connect};

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedEvent {
    pub at: SystemTime,
    pub event: Event,
}

/// Where the engine can be reached: the advertised address when there is one, never 0.0.0.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub udp: Option<SocketAddr>,
    pub tcp: Option<SocketAddr>,
}

/// What [`Engine::stop`] left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Sessions that were alive when the stop began.
    pub sessions: usize,
    /// Of those, how many got no answer to BYE or CANCEL within the time-out.
    pub unfinished: usize,
    /// False when a thread did not end in time and was left to itself.
    pub joined: bool,
}

/// A running engine. Clones share it; every method may be called from any thread and waits a bounded time.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<()>,
}

#[allow(unused_variables)]
impl Engine {
    /// Binds the sockets and starts the threads; both are ready on return.
    ///
    /// Posts EngineWillStart and EngineDidStart.
    ///
    /// # Errors
    /// [`EngineError::Option`] names the option or socket at fault: "udp_port 5060 on 127.0.0.1: address in use".
    pub fn start(options: EngineOptions) -> Result<Self, EngineError> {
        todo!()
    }

    /// Ends all sessions (BYE and CANCEL are sent, their answers awaited), finishes recordings, joins the threads.
    ///
    /// Returns within about `timeout`, whatever peers and disks do. A second call, from any thread, waits for the first.
    /// The events of the ending can still be read with [`Self::next_events`]; the last one is EngineDidEnd.
    pub fn stop(&self, timeout: Duration) -> StopReport {
        todo!()
    }

    pub fn is_running(&self) -> bool {
        todo!()
    }

    pub fn addresses(&self) -> Addresses {
        todo!()
    }

    /// Counters of every queue, limit and transport. Still answers after `stop`.
    pub fn stats(&self) -> EngineStats {
        todo!()
    }

    /// Waits up to `timeout` for events and takes at most `max`, oldest first.
    ///
    /// Returns early with nothing when [`Self::wake_events`] is called, and at once when the engine has stopped and
    /// nothing is left. One thread at a time should call it, or the order is lost.
    pub fn next_events(&self, max: usize, timeout: Duration) -> Vec<TimedEvent> {
        todo!()
    }

    /// Makes a running or the next [`Self::next_events`] return at once.
    pub fn wake_events(&self) {
        todo!()
    }

    // --- accounts ----------------------------------------------------------------------------------------------------

    pub fn add_account(&self, settings: AccountSettings) -> Result<AccountId, EngineError> {
        todo!()
    }

    /// Replaces the settings of an account; running sessions keep the old ones.
    pub fn set_account(&self, account: AccountId, settings: AccountSettings) -> Result<(), EngineError> {
        todo!()
    }

    pub fn remove_account(&self, account: AccountId) -> Result<(), EngineError> {
        todo!()
    }

    /// True: calls come in as sessions; false: they are refused with 480 (ruling R21).
    pub fn set_accepts_calls(&self, accepts: bool) -> Result<(), EngineError> {
        todo!()
    }

    // --- sessions ----------------------------------------------------------------------------------------------------

    /// Starts a call: on return its state is CALLING and its first events are queued (ruling C3).
    pub fn connect(&self, call: Connect) -> Result<SessionId, EngineError> {
        todo!()
    }

    pub fn accept(&self, session: SessionId, audio: bool, chat: bool) -> Result<(), EngineError> {
        todo!()
    }

    pub fn reject(&self, session: SessionId, code: u16, reason: Option<&str>) -> Result<(), EngineError> {
        todo!()
    }

    pub fn ring(&self, session: SessionId) -> Result<(), EngineError> {
        todo!()
    }

    pub fn end(&self, session: SessionId, reason: Option<&str>) -> Result<(), EngineError> {
        todo!()
    }

    /// Records the call into a new wav file and returns its absolute path.
    ///
    /// # Errors
    /// [`EngineError::File`] at once when the file exists or cannot be created; a file made for a verb that is refused is
    /// removed again.
    pub fn start_recording(
        &self,
        session: SessionId,
        path: &Path,
        layout: RecordingLayout,
    ) -> Result<PathBuf, EngineError> {
        todo!()
    }

    pub fn stop_recording(&self, session: SessionId) -> Result<(), EngineError> {
        todo!()
    }

    pub fn pause_recording(&self, session: SessionId) -> Result<(), EngineError> {
        todo!()
    }

    pub fn resume_recording(&self, session: SessionId) -> Result<(), EngineError> {
        todo!()
    }

    pub fn send_dtmf(&self, session: SessionId, digit: char) -> Result<(), EngineError> {
        todo!()
    }

    /// Pings a peer; the answer comes as OptionsDidAnswer.
    pub fn options(&self, account: AccountId, uri: Uri, routes: Vec<Route>) -> Result<RequestId, EngineError> {
        todo!()
    }

    /// Sessions that are neither new nor over.
    pub fn sessions(&self) -> Result<Vec<SessionId>, EngineError> {
        todo!()
    }

    /// What a session looks like now; `None` once it is over and forgotten.
    pub fn snapshot(&self, session: SessionId) -> Result<Option<Arc<Snapshot>>, EngineError> {
        todo!()
    }

    /// The audio stream of a session; `None` while it has none (it appears with SIPSessionWillStart at the latest).
    ///
    /// The handle outlives the call: afterwards its statistics are the final ones and everything else does nothing.
    pub fn audio(&self, session: SessionId) -> Option<AudioHandle> {
        todo!()
    }
}
