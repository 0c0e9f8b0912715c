//! The user agent: one sans-IO value that owns accounts, transactions, dialogs and sessions.
//!
//! After each verb or `handle_*`, the owner drains [`UserAgent::poll_output`] to `None`, then waits until
//! [`UserAgent::poll_timeout`].

pub(crate) mod accounts;
pub(crate) mod core;
pub(crate) mod credentials;
pub(crate) mod dialog_request;
pub(crate) mod exchange;
mod forks;
mod inbound;
mod large;
pub(crate) mod limits;
pub mod locate;
mod lookup;
pub mod messages;
pub(crate) mod options;
pub mod peers;
pub(crate) mod registration;
pub(crate) mod routing;
pub mod subscription;
#[cfg(test)]
mod tests;
pub(crate) mod timers;
pub(crate) mod tokens;
pub(crate) mod transfers;
pub(crate) mod unavailable;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;

use self::core::{Core, warning_header};
use self::exchange::Exchange;
use self::locate::{Answer, Question};
use self::lookup::Lookup;
use self::messages::OpenReports;
use self::peers::Peer;
use self::registration::Registrations;
use self::routing::{Asker, RouteWalk};
use self::subscription::Subscriptions;
use crate::event::{AccountId, Event, EventKind, RequestId, Route, SessionId, SessionState, Snapshot};
use crate::media::{CodecKind, LocalChat, LocalMedia, MediaCommand, MediaEvent, RecordingLayout, SrtpPolicy};
use crate::session::Session;
use crate::session::table::Verb;
use crate::sip::digest::{Algorithm, Credentials};
use crate::sip::message::{Message, Method, ParseError};
use crate::sip::transaction::{ClientId, reply_flow};
use crate::sip::transport::{Flow, PeerId, Transport};
use crate::sip::uri::Uri;

/// What holds for the whole user agent.
#[derive(Clone, Debug)]
pub struct UaConfig {
    /// Our address per transport, as written into Via and Contact (advertised when there is one). Port 0 stands for a
    /// transport that connects to others but does not listen.
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
    /// The media side can run chat streams; otherwise they are refused by name.
    pub chat: bool,
    /// True once the application takes calls (a SessionManager exists, ruling R21); otherwise 480.
    pub accepts_calls: bool,
    /// False: whoever sends a MESSAGE is told 480.
    pub accepts_messages: bool,
    /// Event packages that others may subscribe to, as `Allow-Events` lists them.
    pub event_packages: Vec<String>,
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
    /// Answers to challenges; `None`: a challenge ends the request.
    pub credentials: Option<Credentials>,
    /// Algorithms a challenge is answered with, strongest first (RFC 8760).
    pub digest_algorithms: Vec<Algorithm>,
    /// Transports a look-up may lead to, in order of preference (RFC 3263 §4.1).
    pub transports: Vec<Transport>,
    /// `None`: the account does not register.
    pub registration: Option<RegistrationSettings>,
    /// Session-Expires of our calls (RFC 4028); `None`: no session timer unless the peer asks for one.
    pub session_timer: Option<Duration>,
    /// Provisional responses have to be reliable, in both roles (RFC 3262).
    pub require_100rel: bool,
    /// 3xx followed without asking the application, at most this many for one call; 0: the call fails with the code.
    pub follow_redirects: u8,
    /// Subscribe to message-summary while registered (RFC 3842).
    pub message_summary: bool,
    /// Info packages whose INFOs the application takes (RFC 6086); those without a package come in any case.
    pub info_packages: Vec<String>,
}

impl AccountSettings {
    /// The defaults: no registrar, optional SRTP, a session timer of 30 minutes.
    pub fn new(uri: Uri) -> Self {
        Self {
            uri,
            display_name: None,
            catch_all: false,
            outbound_proxy: None,
            srtp: SrtpPolicy::Optional,
            codecs: None,
            symmetric_rtp: true,
            credentials: None,
            digest_algorithms: vec![Algorithm::Sha512_256, Algorithm::Sha256, Algorithm::Md5],
            transports: vec![Transport::Udp, Transport::Tcp, Transport::Tls],
            registration: None,
            session_timer: Some(Duration::from_secs(1800)),
            require_100rel: false,
            follow_redirects: 0,
            message_summary: false,
            info_packages: Vec::new(),
        }
    }
}

/// How an account registers (RFC 3261 §10, RFC 5626).
#[derive(Clone, Debug, PartialEq)]
pub struct RegistrationSettings {
    /// `None`: the domain of the account.
    pub registrar: Option<Uri>,
    /// What we ask for; the registrar decides.
    pub expires: Duration,
    /// Names this device across restarts: `urn:uuid:…` (RFC 5626 §4.1).
    pub instance: Option<String>,
}

/// Arguments of [`UserAgent::connect`].
#[derive(Clone, Debug)]
pub struct Connect {
    pub account: AccountId,
    pub callee: Uri,
    /// Tried in order (ruling R19); empty: the account's outbound proxy, or where RFC 3263 leads.
    pub routes: Vec<Route>,
    pub audio: bool,
    pub chat: bool,
    /// Make no offer: the callee does, and our ACK or PRACK answers it.
    pub late_offer: bool,
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
    /// Keep this flow open from now on with a keep-alive each `interval` (RFC 5626 §3.5, §4.4); `None`: no longer. When it
    /// breaks, tell `handle_flow_failed`.
    KeepAlive {
        flow: Flow,
        interval: Option<Duration>,
    },
    /// Ask a name server and call `handle_resolved`, with an error when there is no answer within `patience`.
    Resolve {
        query: QueryId,
        question: Question,
        patience: Duration,
    },
}

/// Counters (`Engine.stats()`); each limit has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UaStats {
    pub sessions: usize,
    /// Subscriptions in both roles, and publications.
    pub subscriptions: usize,
    pub dialogs: usize,
    pub client_transactions: usize,
    pub server_transactions: usize,
    pub messages_received: u64,
    pub messages_sent: u64,
    pub bad_messages: u64,
    /// New INVITEs above the rates: answered with 503, and those among them that met silence.
    pub refused_by_rate: u64,
    pub silenced: u64,
    /// What a bound of some table kept out, and among it: calls beyond `max_sessions`, half-open calls of one source.
    pub refused_by_limit: u64,
    pub refused_sessions: u64,
    pub refused_half_open: u64,
    /// Requests beyond [`crate::sip::transaction::MAX_TRANSACTIONS`]: dropped.
    pub refused_transactions: u64,
    /// Messages with too long a head or body, or too many headers (413, 513).
    pub too_large: u64,
    /// Offers that cannot be read or go beyond the limits of descriptions.
    pub bad_descriptions: u64,
    /// Sessions that a fault of ours ended.
    pub broken_sessions: u64,
}

/// A SIP user agent (UAC and UAS).
#[derive(Debug)]
pub struct UserAgent {
    core: Core,
    /// By number, so that whatever concerns all of them happens in the order they began.
    sessions: BTreeMap<SessionId, Box<Session>>,
    /// Sessions that something of ours broke in, and what it said; they end as soon as the time is known.
    broken: Vec<(SessionId, String)>,
    /// Requests of ours outside of sessions and dialogs, by number.
    exchanges: BTreeMap<RequestId, Exchange>,
    lookups: BTreeMap<RequestId, Lookup>,
    registrations: Registrations,
    subscriptions: Subscriptions,
}

impl UserAgent {
    pub fn new(config: UaConfig, random: StdRng) -> Self {
        Self {
            core: Core::new(config, random),
            sessions: BTreeMap::new(),
            broken: Vec::new(),
            exchanges: BTreeMap::new(),
            lookups: BTreeMap::new(),
            registrations: Registrations::default(),
            subscriptions: Subscriptions::default(),
        }
    }

    /// Changes hold from the next message on.
    pub fn config_mut(&mut self) -> &mut UaConfig {
        &mut self.core.config
    }

    /// Adds an account or changes it; calls in progress keep what they agreed on. Its registration follows with
    /// [`Self::settings_changed`].
    pub fn set_account(&mut self, id: AccountId, settings: AccountSettings) {
        let same = |before: &AccountSettings| before.credentials == settings.credentials;
        if !self.core.accounts.get(id).is_some_and(same) {
            self.core.keyring.forget(id);
        }
        self.core.accounts.set(id, settings, &mut self.core.random);
    }

    // --- verbs -------------------------------------------------------------------------------------------------------

    /// Starts a call. On return the state is CALLING and SIPSessionChangedState and SIPSessionNewOutgoing are queued
    /// before anything the network can cause (ruling C3).
    ///
    /// # Errors
    /// For an unknown account, a stream, callee, route or header that cannot be used, or too many sessions.
    pub fn connect(&mut self, call: Connect, now: Instant) -> Result<SessionId, VerbError> {
        let max = self.core.config.max_sessions;
        if self.sessions.len() >= max {
            self.core.stats.refused_by_limit += 1;
            self.core.stats.refused_sessions += 1;
            return Err(Verb::Connect.impossible(SessionState::Null, format!("{max} sessions exist already")));
        }
        self.core.open_account(call.account)?;
        let id = self.core.next_session();
        let session = Session::connect(id, call, &mut self.core, now)?;
        self.sessions.insert(id, Box::new(session));
        self.settle(id);
        self.drain_transactions(now);
        Ok(id)
    }

    /// Takes a call: asks for sockets, then answers.
    ///
    /// # Errors
    /// Outside INCOMING, or for streams that were not proposed.
    pub fn accept(&mut self, session: SessionId, audio: bool, chat: bool, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::Accept, session, now, |session, core| session.accept(audio, chat, core, now))
    }

    /// Refuses a call with a code of 400 to 699.
    ///
    /// # Errors
    /// Outside INCOMING and TERMINATED, or for any other code.
    pub fn reject(
        &mut self,
        session: SessionId,
        code: u16,
        reason: Option<&str>,
        now: Instant,
    ) -> Result<(), VerbError> {
        self.verb(Verb::Reject, session, now, |session, core| session.reject(code, reason, core, now))
    }

    /// Sends 180.
    ///
    /// # Errors
    /// Outside INCOMING.
    pub fn ring(&mut self, session: SessionId, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::Ring, session, now, |session, core| session.ring(core, now))
    }

    /// Sends 183 with our answer and lets audio run before the call is taken.
    ///
    /// # Errors
    /// Outside INCOMING, or for a caller that made no offer and does not support 100rel.
    pub fn early_media(&mut self, session: SessionId, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::EarlyMedia, session, now, |session, core| session.early_media(core, now))
    }

    /// Sends the caller to other addresses (302), the first one preferred.
    ///
    /// # Errors
    /// Outside INCOMING and TERMINATED, or without a target.
    pub fn redirect(&mut self, session: SessionId, targets: &[Uri], now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::Redirect, session, now, |session, core| session.redirect(targets, core, now))
    }

    /// Ends a call in any state. Silent in NULL, TERMINATING and TERMINATED (ruling R14).
    ///
    /// # Errors
    /// For a session that never was.
    pub fn end(&mut self, session: SessionId, reason: Option<&str>, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::End, session, now, |session, core| {
            session.end(reason, core, now);
            Ok(())
        })
    }

    /// Holds the call, or resumes it: told to the peer as soon as no other offer is open.
    ///
    /// # Errors
    /// Outside ESTABLISHED, or without audio.
    pub fn hold(&mut self, session: SessionId, hold: bool, now: Instant) -> Result<(), VerbError> {
        let verb = if hold { Verb::Hold } else { Verb::Unhold };
        self.verb(verb, session, now, |session, core| session.hold(hold, core, now))
    }

    /// Proposes audio to the peer: PROPOSING until it has decided.
    ///
    /// # Errors
    /// Outside ESTABLISHED, or when there is audio.
    pub fn add_audio(&mut self, session: SessionId, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::AddAudio, session, now, |session, core| session.add_stream(Verb::AddAudio, core, now))
    }

    /// Stops audio at once and tells the peer.
    ///
    /// # Errors
    /// Outside ESTABLISHED, without audio, or when it is the last stream.
    pub fn remove_audio(&mut self, session: SessionId, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::RemoveAudio, session, now, |session, core| session.remove_stream(Verb::RemoveAudio, core, now))
    }

    /// As [`Self::add_audio`].
    ///
    /// # Errors
    /// Outside ESTABLISHED, or when there is chat or cannot be.
    pub fn add_chat(&mut self, session: SessionId, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::AddChat, session, now, |session, core| session.add_stream(Verb::AddChat, core, now))
    }

    /// As [`Self::remove_audio`].
    ///
    /// # Errors
    /// Outside ESTABLISHED, without chat, or when it is the last stream.
    pub fn remove_chat(&mut self, session: SessionId, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::RemoveChat, session, now, |session, core| session.remove_stream(Verb::RemoveChat, core, now))
    }

    /// Takes some or all of the streams the peer proposes.
    ///
    /// # Errors
    /// Outside PROPOSED, or for streams that were not proposed.
    pub fn accept_proposal(
        &mut self,
        session: SessionId,
        audio: bool,
        chat: bool,
        now: Instant,
    ) -> Result<(), VerbError> {
        self.verb(Verb::AcceptProposal, session, now, |session, core| session.accept_proposal(audio, chat, core, now))
    }

    /// Refuses them with a code of 400 to 699.
    ///
    /// # Errors
    /// Outside PROPOSED, or for any other code.
    pub fn reject_proposal(
        &mut self,
        session: SessionId,
        code: u16,
        reason: Option<&str>,
        now: Instant,
    ) -> Result<(), VerbError> {
        self.verb(Verb::RejectProposal, session, now, |session, core| session.reject_proposal(code, reason, core, now))
    }

    /// Records the call's audio. `path` is absolute.
    ///
    /// # Errors
    /// Outside ESTABLISHED, without audio, or while a recording exists.
    pub fn start_recording(
        &mut self,
        session: SessionId,
        path: PathBuf,
        layout: RecordingLayout,
        now: Instant,
    ) -> Result<(), VerbError> {
        self.verb(Verb::StartRecordingAudio, session, now, |session, core| session.start_recording(path, layout, core))
    }

    /// # Errors
    /// Outside ESTABLISHED, or while nothing is recorded.
    pub fn stop_recording(&mut self, session: SessionId, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::StopRecordingAudio, session, now, |session, core| session.stop_recording(core))
    }

    /// Sends one digit of `0-9*#A-D` (ruling R11): by RFC 4733, or in INFO where the peer takes no telephone events.
    ///
    /// # Errors
    /// Outside ESTABLISHED, PROPOSING and PROPOSED, without audio, for anything else, or when the peer takes neither.
    pub fn send_dtmf(&mut self, session: SessionId, digit: char, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::SendDtmf, session, now, |session, core| session.send_dtmf(digit, core, now))
    }

    /// Pings a peer; answered by `EventKind::OptionsDidAnswer`.
    ///
    /// # Errors
    /// For an unknown account, a URI that cannot be called, or routes that cannot be used.
    pub fn options(
        &mut self,
        account: AccountId,
        uri: Uri,
        routes: Vec<Route>,
        now: Instant,
    ) -> Result<RequestId, VerbError> {
        self.core.open_account(account)?;
        let walk = RouteWalk::to(routes, &uri, account, &self.core)?;
        let ping = options::ping(account, uri, walk, &self.core)?;
        let id = self.start_exchange(ping, now);
        self.drain_transactions(now);
        Ok(id)
    }

    /// Ends every session as `end` does, and every registration; the owner goes on polling until `is_idle` or its patience
    /// ends.
    pub fn shutdown(&mut self, now: Instant) {
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.with(id, |session, core| session.end(None, core, now));
        }
        self.unregister_all(now);
        self.core.open_reports = OpenReports::default(); // nobody waits for their answers any more
        self.end_all_subscriptions(now);
        self.drain_transactions(now);
    }

    // --- what arrives ------------------------------------------------------------------------------------------------

    pub fn handle_message(&mut self, message: Message, flow: Flow, now: Instant) {
        self.core.stats.messages_received += 1;
        if let Err(error) = message.validate() {
            return self.answer_bad(&error, flow);
        }
        if self.is_flooded(&message, now) || self.is_flooded_by_messages(&message, now) {
            self.core.stats.refused_by_rate += 1;
            self.core.stats.silenced += 1;
            return;
        }
        self.core.transactions.handle_message(message, flow, now);
        self.drain_transactions(now);
    }

    /// Bytes that are no usable message: answered when the error says so.
    #[allow(clippy::boxed_local)] // as the parser gives it
    pub fn handle_bad_message(&mut self, error: Box<ParseError>, flow: Flow, _now: Instant) {
        self.core.stats.messages_received += 1;
        self.answer_bad(&error, flow);
    }

    /// The message of this client transaction could not be sent.
    pub fn handle_transport_error(&mut self, client: ClientId, error: &str, now: Instant) {
        self.core.transport_failed(client, error, now);
        self.drain_transactions(now);
    }

    /// The answer to [`Output::Resolve`]; no such record or name is an answer too, an empty one.
    pub fn handle_resolved(&mut self, query: QueryId, answer: Result<Answer, String>, now: Instant) {
        let Some((asker, question)) = self.core.queries.take(query) else { return };
        match asker {
            Asker::Session(id) => {
                self.with(id, |session, core| session.handle_resolved(&question, answer, core, now));
            }
            Asker::Lookup(id) => {
                if let Some(lookup) = self.lookups.get_mut(&id) {
                    lookup.locator.handle_answer(&question, answer, &mut self.core.random);
                }
                self.step_lookup(id, now);
            }
            Asker::Exchange(id) => {
                self.step_exchange(id, now, |exchange, core| exchange.handle_resolved(&question, answer, core, now));
            }
        }
        self.drain_transactions(now);
    }

    /// The answer to [`MediaCommand::Open`].
    pub fn handle_media_opened(&mut self, session: SessionId, media: Result<LocalMedia, String>, now: Instant) {
        self.with(session, |session, core| session.handle_media_opened(media, core, now));
        self.drain_transactions(now);
    }

    /// The answer to [`MediaCommand::OpenChat`].
    pub fn handle_chat_opened(&mut self, session: SessionId, chat: Result<LocalChat, String>, now: Instant) {
        self.with(session, |session, core| session.handle_chat_opened(chat, core, now));
        self.drain_transactions(now);
    }

    pub fn handle_media_event(&mut self, session: SessionId, event: MediaEvent, now: Instant) {
        self.with(session, |session, core| session.handle_media_event(event, core, now));
        self.drain_transactions(now);
    }

    /// Moves time forward. Early or repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.transactions.handle_timeout(now);
        self.drain_transactions(now);
        while let Some((id, timer)) = self.core.timers.pop_due(now) {
            self.with(id, |session, core| session.handle_timer(timer, core, now));
        }
        for client in self.core.forks.handle_timeout(now) {
            self.core.clients.remove(&client);
        }
        self.registration_timeouts(now);
        self.subscription_timeouts(now);
        self.drain_transactions(now);
    }

    // --- what leaves -------------------------------------------------------------------------------------------------

    /// The next thing to do, oldest first; `None` when drained.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.core.outputs.pop_front();
        if let Some(Output::Transmit { .. }) = output {
            self.core.stats.messages_sent += 1;
        }
        output
    }

    /// When to call [`Self::handle_timeout`] at the latest; `None` when nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let core = &self.core;
        let registrations = self.registrations.next_timeout();
        let subscriptions = self.subscriptions.next_timeout();
        let all = [
            core.transactions.poll_timeout(),
            core.timers.next(),
            core.forks.next_timeout(),
            registrations,
            subscriptions,
        ];
        all.into_iter().flatten().min()
    }

    /// The session as it is now; `None` once it is over (its last event carries the last snapshot).
    pub fn snapshot(&self, session: SessionId) -> Option<Arc<Snapshot>> {
        self.sessions.get(&session).map(|session| session.snapshot())
    }

    /// Sessions not in NULL or TERMINATED.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, session)| session.is_active()).map(|(id, _)| *id).collect()
    }

    /// Who [`Flow::peer`] means.
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.core.peers.get(id)
    }

    pub fn stats(&self) -> UaStats {
        let (client_transactions, server_transactions) = self.core.transactions.len();
        UaStats {
            sessions: self.sessions.len(),
            subscriptions: self.subscriptions.len(),
            dialogs: self.core.tags.len(),
            client_transactions,
            server_transactions,
            refused_transactions: self.core.transactions.stats().refused_by_limit,
            ..self.core.stats
        }
    }

    /// Nothing left: no session, dialog, registration, transaction or timer.
    pub fn is_idle(&self) -> bool {
        let core = &self.core;
        self.sessions.is_empty()
            && self.exchanges.is_empty()
            && self.lookups.is_empty()
            && self.registrations.are_off()
            && self.subscriptions.is_empty()
            && core.transactions.is_empty()
            && core.clients.is_empty()
            && core.servers.is_empty()
            && core.forks.is_empty()
            && core.farewells.is_empty()
            && core.tags.is_empty()
            && core.merge_keys.is_empty()
            && core.timers.is_empty()
            && core.queries.is_empty()
            && core.asks.is_empty()
            && core.open_reports.is_empty()
            && core.reports.is_empty()
            && core.outputs.is_empty()
    }

    // --- inside ------------------------------------------------------------------------------------------------------

    /// Lets a session act; `None` when it does not exist. A session that is done is dropped right after.
    fn with<R>(&mut self, id: SessionId, act: impl FnOnce(&mut Session, &mut Core) -> R) -> Option<R> {
        let session = self.sessions.get_mut(&id)?;
        let core = &mut self.core;
        match catch_unwind(AssertUnwindSafe(|| act(session, core))) {
            Ok(result) => {
                self.settle(id);
                Some(result)
            }
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                self.broken.push((id, text.unwrap_or_else(|| "a panic without words".to_owned())));
                None
            }
        }
    }

    /// A fault of ours ends the session it happened in, and no other: DidFail with code 0.
    fn bury_broken(&mut self, now: Instant) {
        while let Some((id, why)) = self.broken.pop() {
            self.core.stats.broken_sessions += 1;
            tracing::error!(session = id.0, why, "a session is given up");
            let Some(mut session) = self.sessions.remove(&id) else { continue };
            let core = &mut self.core;
            // What it broke may be broken still: each step stands for itself.
            let _ = catch_unwind(AssertUnwindSafe(|| session.abandon_peer(core, now)));
            let _ = catch_unwind(AssertUnwindSafe(|| session.fail_broken(&why, core)));
            let _ = catch_unwind(AssertUnwindSafe(|| session.forget(core)));
            core.servers.retain(|_, owner| *owner != id);
            core.notify(EventKind::EngineGotException { error: why.into() });
        }
    }

    fn settle(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && session.is_finished()
        {
            session.forget(&mut self.core);
            self.sessions.remove(&id);
        }
    }

    /// A verb of the table. A session that is over stays TERMINATED for ever.
    fn verb(
        &mut self,
        verb: Verb,
        id: SessionId,
        now: Instant,
        act: impl FnOnce(&mut Session, &mut Core) -> Result<(), VerbError>,
    ) -> Result<(), VerbError> {
        let result = match self.with(id, act) {
            Some(result) => result,
            None if self.core.was_given(id) => verb.check(SessionState::Terminated).map(|_| ()),
            None => Err(VerbError::UnknownSession(id)),
        };
        self.drain_transactions(now);
        result
    }

    /// True for a new INVITE while refusing them is itself too much work.
    fn is_flooded(&mut self, message: &Message, now: Instant) -> bool {
        self.core.limits.is_silent(self.core.config.invite_rate, now)
            && message.is_request()
            && *message.method() == Method::Invite
            && message.to().is_ok_and(|to| to.tag().is_none())
    }

    /// Answers without state: what cannot be read cannot be matched to its repetition either.
    fn answer_bad(&mut self, error: &ParseError, flow: Flow) {
        self.core.stats.bad_messages += 1;
        self.core.stats.too_large += u64::from(matches!(error.answer, Some(413 | 513)));
        if let (Some(code), Some(partial)) = (error.answer, &error.partial) {
            let tag = tokens::tag(&mut self.core.random);
            let flow = reply_flow(partial, flow);
            let warning = warning_header(399, &error.what);
            let response = self.core.response(partial, code, Some(&tag), flow).header("Warning", warning).finish(None);
            self.core.transmit(flow, response);
        }
    }
}

/// How long `end()` waits for the answer to BYE or CANCEL, and for the recorder, before the session is over all the same
/// (M17).
pub const BYE_PATIENCE: Duration = Duration::from_secs(1);
