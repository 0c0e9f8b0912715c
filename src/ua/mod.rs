//! The user agent: one sans-IO value that owns accounts, transactions, dialogs and sessions.
//!
//! After each verb or `handle_*`, the owner drains [`UserAgent::poll_output`] to `None`, then waits until
//! [`UserAgent::poll_timeout`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;

use crate::event::{AccountId, Event, RequestId, Route, SessionId, SessionState, Snapshot};
use crate::media::{CodecKind, LocalMedia, MediaCommand, MediaEvent, RecordingLayout, SrtpPolicy};
use crate::sip::message::{Message, ParseError};
use crate::sip::transaction::ClientId;
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::Uri;

/// What holds for the whole user agent.
#[derive(Clone, Debug)]
pub struct UaConfig {
    /// Our address per transport, as written into Via and Contact (advertised when there is one).
    pub local: Vec<(Transport, SocketAddr)>,
    pub user_agent: String,
    /// Codecs in order of preference.
    pub codecs: Vec<CodecKind>,
    pub max_sessions: usize,
    /// New sessions a second (all, per source); above it 503, then silence.
    pub invite_rate: u32,
    pub invite_rate_per_source: u32,
    /// Answer a new INVITE with 180 at once; otherwise the application rings itself.
    pub auto_ring: bool,
    /// True once the application takes calls (a SessionManager exists, ruling R21); otherwise 480.
    pub accepts_calls: bool,
}

/// One identity of ours.
#[derive(Clone, Debug)]
pub struct AccountSettings {
    /// Our address of record.
    pub uri: Uri,
    pub display_name: Option<String>,
    /// Takes calls to any user that no other account matches.
    pub catch_all: bool,
    pub outbound_proxy: Option<Route>,
    pub srtp: SrtpPolicy,
    /// `None`: the engine's.
    pub codecs: Option<Vec<CodecKind>>,
    pub symmetric_rtp: bool,
}

/// Arguments of [`UserAgent::connect`].
#[derive(Clone, Debug)]
pub struct Connect {
    pub account: AccountId,
    pub callee: Uri,
    /// Tried in order (ruling R19).
    pub routes: Vec<Route>,
    pub audio: bool,
    pub chat: bool,
    pub extra_headers: Vec<(String, String)>,
}

/// Why a verb was refused: nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerbError {
    #[error("{verb}() is not allowed in state {}: allowed in {}", state.name(), names(allowed))]
    WrongState { verb: &'static str, state: SessionState, allowed: Vec<SessionState> },
    /// Right state, but something it needs is missing ("no audio to record", "already recording to …").
    #[error("{verb}() is not possible now: {why}")]
    NotPossible { verb: &'static str, state: SessionState, why: String },
    #[error("{0}")]
    BadArgument(String),
    #[error("session {0:?} is unknown")]
    UnknownSession(SessionId),
    #[error("account {0:?} is unknown")]
    UnknownAccount(AccountId),
}

fn names(states: &[SessionState]) -> String {
    states.iter().map(|state| state.name()).collect::<Vec<_>>().join(", ")
}

/// Names a question to the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// What the owner does next.
#[derive(Debug)]
pub enum Output {
    /// Send to the network; on failure tell `handle_transport_error` when `client` is set.
    Transmit {
        flow: Flow,
        bytes: Bytes,
        client: Option<ClientId>,
    },
    /// Something to notify. Wall-clock times are added by the engine.
    Event(Event),
    Media(SessionId, MediaCommand),
    /// Look the host's addresses up and call `handle_resolved`.
    Resolve {
        query: QueryId,
        host: String,
    },
}

/// Counters (`Engine.stats()`); each limit has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UaStats {
    pub sessions: usize,
    pub dialogs: usize,
    pub client_transactions: usize,
    pub server_transactions: usize,
    pub messages_received: u64,
    pub messages_sent: u64,
    pub bad_messages: u64,
    pub refused_by_rate: u64,
    pub refused_by_limit: u64,
}

/// A SIP user agent (UAC and UAS).
#[derive(Debug)]
pub struct UserAgent {}

#[allow(unused_variables)]
impl UserAgent {
    pub fn new(config: UaConfig, random: StdRng) -> Self {
        todo!()
    }
    pub fn config_mut(&mut self) -> &mut UaConfig {
        todo!()
    }
    pub fn set_account(&mut self, id: AccountId, settings: AccountSettings) {
        todo!()
    }
    pub fn remove_account(&mut self, id: AccountId) {
        todo!()
    }

    // --- verbs -------------------------------------------------------------------------------------------------------
    /// Starts a call. On return the state is CALLING and SIPSessionChangedState and SIPSessionNewOutgoing are queued
    /// before anything the network can cause (ruling C3).
    pub fn connect(&mut self, call: Connect, now: Instant) -> Result<SessionId, VerbError> {
        todo!()
    }
    pub fn accept(&mut self, session: SessionId, audio: bool, chat: bool, now: Instant) -> Result<(), VerbError> {
        todo!()
    }
    pub fn reject(
        &mut self,
        session: SessionId,
        code: u16,
        reason: Option<&str>,
        now: Instant,
    ) -> Result<(), VerbError> {
        todo!()
    }
    /// Sends 180.
    pub fn ring(&mut self, session: SessionId, now: Instant) -> Result<(), VerbError> {
        todo!()
    }
    /// Silent in NULL, TERMINATING and TERMINATED (ruling R14).
    pub fn end(&mut self, session: SessionId, reason: Option<&str>, now: Instant) -> Result<(), VerbError> {
        todo!()
    }
    /// `path` is absolute.
    pub fn start_recording(
        &mut self,
        session: SessionId,
        path: PathBuf,
        layout: RecordingLayout,
        now: Instant,
    ) -> Result<(), VerbError> {
        todo!()
    }
    pub fn stop_recording(&mut self, session: SessionId, now: Instant) -> Result<(), VerbError> {
        todo!()
    }
    pub fn send_dtmf(&mut self, session: SessionId, digit: char, now: Instant) -> Result<(), VerbError> {
        todo!()
    }
    /// Pings a peer; answered by `EventKind::OptionsDidAnswer`.
    pub fn options(
        &mut self,
        account: AccountId,
        uri: Uri,
        routes: Vec<Route>,
        now: Instant,
    ) -> Result<RequestId, VerbError> {
        todo!()
    }
    /// Ends every session as `end` does; the owner goes on polling until `is_idle` or its patience ends.
    pub fn shutdown(&mut self, now: Instant) {
        todo!()
    }

    // --- what arrives ------------------------------------------------------------------------------------------------
    pub fn handle_message(&mut self, message: Message, flow: Flow, now: Instant) {
        todo!()
    }
    /// Bytes that are no usable message: answered when the error says so.
    pub fn handle_bad_message(&mut self, error: Box<ParseError>, flow: Flow, now: Instant) {
        todo!()
    }
    pub fn handle_transport_error(&mut self, client: ClientId, error: &str, now: Instant) {
        todo!()
    }
    pub fn handle_resolved(&mut self, query: QueryId, addresses: Result<Vec<IpAddr>, String>, now: Instant) {
        todo!()
    }
    pub fn handle_media_opened(&mut self, session: SessionId, media: Result<LocalMedia, String>, now: Instant) {
        todo!()
    }
    pub fn handle_media_event(&mut self, session: SessionId, event: MediaEvent, now: Instant) {
        todo!()
    }
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }

    // --- what leaves -------------------------------------------------------------------------------------------------
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    pub fn snapshot(&self, session: SessionId) -> Option<Arc<Snapshot>> {
        todo!()
    }
    /// Sessions not in NULL or TERMINATED.
    pub fn sessions(&self) -> Vec<SessionId> {
        todo!()
    }
    pub fn stats(&self) -> UaStats {
        todo!()
    }
    /// Nothing left: no session, dialog, transaction or timer.
    pub fn is_idle(&self) -> bool {
        todo!()
    }
}

/// How long `end()` waits for the answer to BYE before the session is over all the same (M17).
pub const BYE_PATIENCE: Duration = Duration::from_secs(1);
