//! The handle applications hold.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crossbeam_channel::{RecvTimeoutError, SendTimeoutError, Sender, bounded};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;

use super::calls::Calls;
use super::disk::NewRecording;
use super::events::EventQueue;
use super::media::{MediaPool, MediaView, ToSignalling};
use super::signalling::{self, COMMAND_LIMIT, Command, Inputs, Lane, LaneCounters, LaneParts, MEDIA_EVENT_LIMIT};
use super::sockets::{RtpPorts, words};
use super::transports::{Bound, INPUT_LIMIT};
use super::{AudioHandle, EngineError, EngineOptions, EngineStats, lock};
use crate::event::{AccountId, Event, EventKind, RequestId, Route, SessionId, Snapshot, SubscriptionId};
use crate::media::{MediaCommand, RecordingLayout};
use crate::sip::event_package::EndReason;
use crate::sip::transport::Transport;
use crate::sip::uri::Uri;
use crate::ua::messages::{SendMessage, SendReport};
use crate::ua::subscription::{Publish, Subscribe, Verdict};
use crate::ua::{AccountSettings, Connect, UaConfig, UaStats, UserAgent, VerbError};

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
    pub tls: Option<SocketAddr>,
    pub ws: Option<SocketAddr>,
    pub wss: Option<SocketAddr>,
}

impl Addresses {
    /// Where a transport listens; `None` where it does not.
    pub fn get(&self, transport: Transport) -> Option<SocketAddr> {
        match transport {
            Transport::Udp => self.udp,
            Transport::Tcp => self.tcp,
            Transport::Tls => self.tls,
            Transport::Ws => self.ws,
            Transport::Wss => self.wss,
        }
    }
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
    shared: Arc<Shared>,
}

/// How long a verb waits for the signalling lane, which answers within microseconds unless the machine is overwhelmed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The least time a stop gets for its own threads, on top of what peers were given.
const JOIN_GRACE: Duration = Duration::from_millis(250);
/// What [`Drop`] gives peers.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// What the clones of a handle share; dropping the last one stops the engine.
struct Shared {
    commands: Sender<Command>,
    wake: Arc<Notify>,
    events: Arc<EventQueue>,
    counters: Arc<LaneCounters>,
    calls: Arc<Calls>,
    media: MediaView,
    addresses: Addresses,
    next_account: AtomicU64,
    running: AtomicBool,
    /// Held while the engine stops, so that a second stop waits for the first.
    ending: Mutex<Ending>,
    last_ua_stats: Mutex<UaStats>,
}

/// What is needed to end, until it has been used.
#[derive(Default)]
struct Ending {
    signalling: Option<JoinHandle<()>>,
    threads: Vec<JoinHandle<()>>,
    report: StopReport,
}

impl Engine {
    /// Binds the sockets and starts the threads; both are ready on return.
    ///
    /// Posts EngineWillStart and EngineDidStart.
    ///
    /// # Errors
    /// [`EngineError::Option`] names the option or socket at fault: "udp_port 5060 on 127.0.0.1: address in use".
    pub fn start(options: EngineOptions) -> Result<Self, EngineError> {
        let ports = RtpPorts::new(options.rtp_port_range)?;
        let bound = Bound::new(&options)?;
        let (addresses, local) = (bound.addresses(), bound.local());
        let events = Arc::new(EventQueue::new());
        events.post_engine(EventKind::EngineWillStart);
        let counters = Arc::new(LaneCounters::default());
        let wake = Arc::new(Notify::new());
        let (commands, command_receiver) = bounded(COMMAND_LIMIT);
        let (media_sender, media_receiver) = bounded(MEDIA_EVENT_LIMIT);
        let to_signalling = ToSignalling::new(media_sender, wake.clone(), counters.media_events.clone());
        let calls = Arc::new(Calls::default());
        let mut random: StdRng = rand::make_rng();
        let (media, media_view, threads) = MediaPool::start(&options, to_signalling, calls.clone(), &mut random)?;
        let config = UaConfig {
            local,
            user_agent: options.user_agent,
            codecs: options.codecs,
            max_sessions: options.max_sessions,
            invite_rate: options.invite_rate,
            invite_rate_per_source: options.invite_rate_per_source,
            auto_ring: options.auto_ring,
            chat: false,
            accepts_calls: options.accepts_calls,
            accepts_messages: options.accepts_messages,
            event_packages: options.event_packages,
        };
        let parts = LaneParts {
            ua: UserAgent::new(config, StdRng::from_rng(&mut random)),
            bound,
            bind_ip: options.local_ip,
            advertised_ip: options.advertised_ip,
            ports,
            media,
            events: events.clone(),
            counters: counters.clone(),
            trace: options.trace_sip,
            nameservers: options.nameservers,
            random,
        };
        let inputs = Inputs { commands: command_receiver, media: media_receiver, wake: wake.clone() };
        let signalling = std::thread::Builder::new()
            .name("sipwire-sip".to_owned())
            .spawn(move || signalling::run(parts, inputs))
            .map_err(|error| EngineError::Option { option: "threads", what: words(&error) })?;
        events.post_engine(EventKind::EngineDidStart);
        tracing::info!(?addresses, "engine started");
        let shared = Shared {
            commands,
            wake,
            events,
            counters,
            calls,
            media: media_view,
            addresses,
            next_account: AtomicU64::new(1),
            running: AtomicBool::new(true),
            ending: Mutex::new(Ending { signalling: Some(signalling), threads, report: StopReport::default() }),
            last_ua_stats: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Ends all sessions (BYE and CANCEL are sent, their answers awaited), finishes recordings, joins the threads.
    ///
    /// Returns within about `timeout`, whatever peers and disks do. A second call, from any thread, waits for the first.
    /// The events of the ending can still be read with [`Self::next_events`]; the last one is EngineDidEnd.
    pub fn stop(&self, timeout: Duration) -> StopReport {
        self.shared.stop(timeout)
    }

    pub fn is_running(&self) -> bool {
        self.shared.running.load(SeqCst)
    }

    pub fn addresses(&self) -> Addresses {
        self.shared.addresses
    }

    /// Reads the certificates again (`tls_certificate`, `tls_private_key`, `tls_ca`); open connections stay as they are. A
    /// changed file is also noticed by itself, with the next connection.
    ///
    /// # Errors
    /// [`EngineError::Option`] names the file at fault; the certificates from before go on.
    pub fn reload_certificates(&self) -> Result<(), EngineError> {
        self.ask(|lane, _| lane.reload_certificates())?
    }

    /// Counters of every queue, limit and transport. Still answers after `stop`.
    pub fn stats(&self) -> EngineStats {
        let shared = &self.shared;
        let ua = match self.ask(|lane, _| lane.ua.stats()) {
            Ok(stats) => {
                *lock(&shared.last_ua_stats) = stats;
                stats
            }
            Err(_) => *lock(&shared.last_ua_stats),
        };
        let counters = &shared.counters;
        let (media, disk, media_faults) = shared.media.stats();
        EngineStats {
            ua,
            commands: counters.commands.stats(shared.commands.len(), COMMAND_LIMIT),
            media_events: counters.media_events.stats(shared.media.waiting_events(), MEDIA_EVENT_LIMIT),
            stream_input: counters.transport.stream_input.stats(0, INPUT_LIMIT),
            events: shared.events.stats(),
            transport: counters.transport.stats(),
            media,
            disk,
            panics: counters.panics.get() + media_faults,
        }
    }

    /// Waits up to `timeout` for events and takes at most `max`, oldest first.
    ///
    /// Returns early with nothing when [`Self::wake_events`] is called, and at once when the engine has stopped and
    /// nothing is left. One thread at a time should call it, or the order is lost.
    pub fn next_events(&self, max: usize, timeout: Duration) -> Vec<TimedEvent> {
        self.shared.events.next(max, timeout)
    }

    /// Makes a running or the next [`Self::next_events`] return at once.
    pub fn wake_events(&self) {
        self.shared.events.wake();
    }

    /// Runs `work` on the signalling lane and waits for its result; what it caused has been sent and posted by then.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Lane, Instant) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        self.shared.ask(work, ANSWER_TIMEOUT)
    }

    fn verb<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut UserAgent, Instant) -> Result<T, VerbError> + Send + 'static,
    ) -> Result<T, EngineError> {
        Ok(self.ask(move |lane, now| work(&mut lane.ua, now))??)
    }

    // --- accounts ----------------------------------------------------------------------------------------------------

    pub fn add_account(&self, settings: AccountSettings) -> Result<AccountId, EngineError> {
        let account = AccountId(self.shared.next_account.fetch_add(1, Relaxed));
        self.set_account(account, settings)?;
        Ok(account)
    }

    /// Replaces the settings of an account; running sessions keep the old ones. The registration follows at once.
    pub fn set_account(&self, account: AccountId, settings: AccountSettings) -> Result<(), EngineError> {
        self.ask(move |lane, now| {
            lane.ua.set_account(account, settings);
            lane.ua.settings_changed(account, now);
        })
    }

    /// The registration is ended first.
    pub fn remove_account(&self, account: AccountId) -> Result<(), EngineError> {
        self.ask(move |lane, now| lane.ua.remove_account(account, now))
    }

    /// Replaces the settings of an account and registers it now, even if it is; answered by
    /// AccountRegistrationDidSucceed or AccountRegistrationDidFail.
    ///
    /// # Errors
    /// When the settings do not ask for a registration.
    pub fn register(&self, account: AccountId, settings: AccountSettings) -> Result<(), EngineError> {
        self.verb(move |ua, now| {
            ua.set_account(account, settings);
            ua.register(account, now)
        })
    }

    /// Ends the registration of an account. True: AccountRegistrationDidEnd follows; false: there was nothing to end.
    pub fn unregister(&self, account: AccountId) -> Result<bool, EngineError> {
        self.verb(move |ua, now| ua.unregister(account, now))
    }

    /// True: calls come in as sessions; false: they are refused with 480 (ruling R21).
    pub fn set_accepts_calls(&self, accepts: bool) -> Result<(), EngineError> {
        self.ask(move |lane, _| lane.ua.config_mut().accepts_calls = accepts)
    }

    // --- sessions ----------------------------------------------------------------------------------------------------

    /// Starts a call: on return its state is CALLING and its first events are queued (ruling C3).
    pub fn connect(&self, call: Connect) -> Result<SessionId, EngineError> {
        self.verb(move |ua, now| ua.connect(call, now))
    }

    pub fn accept(&self, session: SessionId, audio: bool, chat: bool) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.accept(session, audio, chat, now))
    }

    pub fn hold(&self, session: SessionId, hold: bool) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.hold(session, hold, now))
    }

    pub fn add_audio(&self, session: SessionId) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.add_audio(session, now))
    }

    pub fn remove_audio(&self, session: SessionId) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.remove_audio(session, now))
    }

    pub fn add_chat(&self, session: SessionId) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.add_chat(session, now))
    }

    pub fn remove_chat(&self, session: SessionId) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.remove_chat(session, now))
    }

    pub fn accept_proposal(&self, session: SessionId, audio: bool, chat: bool) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.accept_proposal(session, audio, chat, now))
    }

    pub fn reject_proposal(&self, session: SessionId, code: u16, reason: Option<&str>) -> Result<(), EngineError> {
        let reason = reason.map(str::to_owned);
        self.verb(move |ua, now| ua.reject_proposal(session, code, reason.as_deref(), now))
    }

    pub fn reject(&self, session: SessionId, code: u16, reason: Option<&str>) -> Result<(), EngineError> {
        let reason = reason.map(str::to_owned);
        self.verb(move |ua, now| ua.reject(session, code, reason.as_deref(), now))
    }

    pub fn ring(&self, session: SessionId) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.ring(session, now))
    }

    pub fn early_media(&self, session: SessionId) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.early_media(session, now))
    }

    pub fn redirect(&self, session: SessionId, targets: Vec<Uri>) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.redirect(session, &targets, now))
    }

    pub fn end(&self, session: SessionId, reason: Option<&str>) -> Result<(), EngineError> {
        let reason = reason.map(str::to_owned);
        self.verb(move |ua, now| ua.end(session, reason.as_deref(), now))
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
        let rate = self.shared.calls.get(session).map_or(8000, |call| call.sample_rate());
        let recording = NewRecording::create(path, layout, rate)?;
        let path = recording.path().to_owned();
        let key = path.clone();
        let started = self.ask(move |lane, now| {
            lane.prepared.insert(key.clone(), (session, recording));
            let started = lane.ua.start_recording(session, key.clone(), layout, now);
            if started.is_err()
                && let Some((_, recording)) = lane.prepared.remove(&key)
            {
                recording.discard();
            }
            started
        });
        started??;
        Ok(path)
    }

    pub fn stop_recording(&self, session: SessionId) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.stop_recording(session, now))
    }

    pub fn pause_recording(&self, session: SessionId) -> Result<(), EngineError> {
        self.ask(move |lane, _| lane.media.command(session, MediaCommand::PauseRecording))
    }

    pub fn resume_recording(&self, session: SessionId) -> Result<(), EngineError> {
        self.ask(move |lane, _| lane.media.command(session, MediaCommand::ResumeRecording))
    }

    pub fn send_dtmf(&self, session: SessionId, digit: char) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.send_dtmf(session, digit, now))
    }

    /// Sends an INFO; the outcome comes as SessionDidDeliverInfo or SessionDidNotDeliverInfo.
    pub fn send_info(
        &self,
        session: SessionId,
        content: Bytes,
        content_type: String,
        package: Option<String>,
    ) -> Result<RequestId, EngineError> {
        self.verb(move |ua, now| ua.send_info(session, content, &content_type, package.as_deref(), now))
    }

    /// Asks the peer to call `target` in place of us.
    pub fn transfer(
        &self,
        session: SessionId,
        target: Option<Uri>,
        replaces: Option<SessionId>,
    ) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.transfer(session, target, replaces, now))
    }

    /// Makes the call that the peer's REFER asks for.
    pub fn accept_transfer(&self, session: SessionId, routes: Vec<Route>) -> Result<SessionId, EngineError> {
        self.verb(move |ua, now| ua.accept_transfer(session, routes, now))
    }

    pub fn reject_transfer(&self, session: SessionId, code: u16) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.reject_transfer(session, code, now))
    }

    /// Finds the routes to a URI (RFC 3263); told by LookupDidSucceed or LookupDidFail.
    pub fn lookup(&self, uri: Uri, transports: Vec<Transport>) -> Result<RequestId, EngineError> {
        self.verb(move |ua, now| ua.lookup(&uri, &transports, now))
    }

    /// Pings a peer; the answer comes as OptionsDidAnswer.
    pub fn options(&self, account: AccountId, uri: Uri, routes: Vec<Route>) -> Result<RequestId, EngineError> {
        self.verb(move |ua, now| ua.options(account, uri, routes, now))
    }

    /// Now, for what is dated; protocols go by a clock of their own.
    pub fn wall_clock() -> SystemTime {
        SystemTime::now()
    }

    /// Sends a message; see [`UserAgent::message`].
    pub fn message(&self, message: SendMessage) -> Result<(RequestId, Option<String>), EngineError> {
        self.verb(move |ua, now| ua.message(message, now))
    }

    /// Reports what became of a message that came in; see [`UserAgent::report`].
    pub fn report(&self, report: SendReport) -> Result<RequestId, EngineError> {
        self.verb(move |ua, now| ua.report(report, now))
    }

    /// Watches something of a peer's; see [`UserAgent::subscribe`].
    pub fn subscribe(&self, what: Subscribe) -> Result<SubscriptionId, EngineError> {
        self.verb(move |ua, now| ua.subscribe(what, now))
    }

    /// Ends a subscription or publication of ours.
    pub fn unsubscribe(&self, subscription: SubscriptionId) -> Result<(), EngineError> {
        self.ask(move |lane, now| lane.ua.unsubscribe(subscription, now))
    }

    /// Publishes a state; see [`UserAgent::publish`].
    pub fn publish(&self, what: Publish) -> Result<SubscriptionId, EngineError> {
        self.verb(move |ua, now| ua.publish(what, now))
    }

    pub fn modify_publication(
        &self,
        publication: SubscriptionId,
        content_type: String,
        body: Bytes,
    ) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.modify_publication(publication, content_type, body, now))
    }

    /// Event packages that others may subscribe to from now on.
    pub fn set_event_packages(&self, packages: Vec<String>) -> Result<(), EngineError> {
        self.ask(move |lane, _| lane.ua.config_mut().event_packages = packages)
    }

    /// Accepts or refuses a peer's subscription.
    pub fn decide_subscription(&self, subscription: SubscriptionId, verdict: Verdict) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.decide_subscription(subscription, verdict, now))
    }

    /// Tells a subscriber the state as it is now: content type and bytes.
    pub fn notify_subscription(
        &self,
        subscription: SubscriptionId,
        body: Option<(String, Bytes)>,
    ) -> Result<(), EngineError> {
        self.verb(move |ua, now| ua.notify_subscription(subscription, body, now))
    }

    pub fn terminate_subscription(&self, subscription: SubscriptionId, reason: EndReason) -> Result<(), EngineError> {
        self.ask(move |lane, now| lane.ua.terminate_subscription(subscription, reason, now))
    }

    /// Sessions that are neither new nor over.
    pub fn sessions(&self) -> Result<Vec<SessionId>, EngineError> {
        self.ask(|lane, _| lane.ua.sessions())
    }

    /// What a session looks like now; `None` once it is over and forgotten.
    pub fn snapshot(&self, session: SessionId) -> Result<Option<Arc<Snapshot>>, EngineError> {
        self.ask(move |lane, _| lane.snapshot(session))
    }

    /// Posts `count` SIPSessionGotDTMF of a session as if the peer had pressed a key that often; returns how many: none
    /// without the session. For measuring how fast an application takes events; nothing else uses it.
    #[doc(hidden)]
    pub fn flood(&self, session: SessionId, count: usize) -> Result<usize, EngineError> {
        let Some(snapshot) = self.snapshot(session)? else { return Ok(0) };
        for _ in 0..count {
            let kind = EventKind::SessionGotDTMF { digit: '5' };
            self.shared.events.post(Event {
                sender: crate::event::Sender::Session(session),
                snapshot: Some(snapshot.clone()),
                kind,
            });
        }
        Ok(count)
    }

    /// The audio stream of a session; `None` while it has none (it appears with SIPSessionWillStart at the latest).
    ///
    /// The handle outlives the call: afterwards its statistics are the final ones and everything else does nothing.
    pub fn audio(&self, session: SessionId) -> Option<AudioHandle> {
        self.shared.calls.get(session).map(|call| AudioHandle::new(call, self.shared.media.clone()))
    }
}

impl Shared {
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Lane, Instant) -> T + Send + 'static,
        timeout: Duration,
    ) -> Result<T, EngineError> {
        let (answer, answered) = bounded(1);
        let command: Command = Box::new(move |lane, now| {
            let result = work(lane, now);
            lane.drain(now); // first what the verb caused, then the caller goes on (ruling C3)
            let _ = answer.send(result);
        });
        let deadline = Instant::now() + timeout;
        match self.commands.send_deadline(command, deadline) {
            Ok(()) => self.wake.notify_one(),
            Err(SendTimeoutError::Timeout(_)) => {
                self.counters.commands.refused();
                return Err(no_answer(timeout));
            }
            Err(SendTimeoutError::Disconnected(_)) => return Err(EngineError::Stopped),
        }
        answered.recv_deadline(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => no_answer(timeout),
            // The lane is gone, or a fault ended the verb (then EngineGotException tells).
            RecvTimeoutError::Disconnected => EngineError::Stopped,
        })
    }

    fn stop(&self, timeout: Duration) -> StopReport {
        let mut ending = lock(&self.ending);
        let Some(signalling) = ending.signalling.take() else { return ending.report };
        self.running.store(false, SeqCst);
        if let Ok(stats) = self.ask(|lane, _| lane.ua.stats(), timeout) {
            *lock(&self.last_ua_stats) = stats;
        }
        let deadline = Instant::now() + timeout + JOIN_GRACE;
        let (reply, replies) = bounded(2);
        let asked = self.ask(move |lane, now| lane.stop(timeout, reply, now), timeout);
        let mut report = StopReport::default();
        if asked.is_ok() {
            report.sessions = replies.recv_deadline(deadline).unwrap_or_default();
            report.unfinished = replies.recv_deadline(deadline).unwrap_or(report.sessions);
        }
        let threads = std::mem::take(&mut ending.threads);
        report.joined = std::iter::once(signalling).chain(threads).all(|thread| join(thread, deadline));
        if !report.joined {
            tracing::warn!("a thread of the engine did not end in time and is left to itself");
            self.events.end();
        }
        ending.report = report;
        report
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop(DROP_TIMEOUT);
    }
}

fn no_answer(timeout: Duration) -> EngineError {
    EngineError::NoAnswer(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
}

/// Joins a thread that has been told to end; false when it is still there at the deadline.
fn join(thread: JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        // Threads end within moments of each other; there is nothing in std to wait on with a time-out.
        std::thread::park_timeout(Duration::from_millis(1));
    }
    thread.join().is_ok()
}
