//! The signalling lane: one thread that owns the user agent and every SIP socket.
//!
//! A turn takes what has arrived, in bounded portions so that no source starves another, lets the [`UserAgent`] work and
//! carries out everything it asks for. Only then the lane waits.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc};

use super::EngineError;
use super::counters::{Counter, QueueCounters, TransportCounters};
use super::disk::NewRecording;
use super::events::EventQueue;
use super::media::{MediaMessage, MediaPool};
use super::network::NetworkWatch;
use super::resolver::{RESOLVED_LIMIT, Resolved, Resolver};
use super::sockets::{Routes, RtpPorts};
use super::trace::masked;
use super::transports::{Arrival, Bound, Transports};
use crate::event::{Event, EventKind, SessionId, SessionState, Snapshot};
use crate::media::{LocalMedia, MediaCommand};
use crate::sip::transaction::ClientId;
use crate::sip::transport::Flow;
use crate::ua::{Output, UserAgent};

/// Verbs that wait for the lane; each comes with a thread that waits for its answer, so this is threads of the program.
pub(super) const COMMAND_LIMIT: usize = 1024;
/// What media threads and the disk thread tell signalling and has not been handled.
pub(super) const MEDIA_EVENT_LIMIT: usize = 65_536;
/// Things taken from one source in one turn.
const PORTION: usize = 64;
/// How often connections are looked over and ended sessions forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Of a stop's time-out, the share given to peers for their answers; the rest is for recordings and threads.
const PEERS_SHARE: f64 = 0.7;

/// Something an application asks: runs on the lane, drains the user agent, then answers the waiting thread.
pub(super) type Command = Box<dyn FnOnce(&mut Lane, Instant) + Send>;

/// What other threads share with the lane.
#[derive(Default)]
pub(super) struct LaneCounters {
    pub transport: Arc<TransportCounters>,
    pub commands: QueueCounters,
    pub media_events: Arc<QueueCounters>,
    pub panics: Counter,
}

/// The ends of the queues that lead into the lane.
pub(super) struct Inputs {
    pub commands: Receiver<Command>,
    pub media: Receiver<MediaMessage>,
    pub wake: Arc<Notify>,
}

/// What the lane is made of; moved into its thread.
pub(super) struct LaneParts {
    pub ua: UserAgent,
    pub bound: Bound,
    pub bind_ip: Option<std::net::IpAddr>,
    pub advertised_ip: Option<std::net::IpAddr>,
    pub ports: RtpPorts,
    pub media: MediaPool,
    pub events: Arc<EventQueue>,
    pub counters: Arc<LaneCounters>,
    pub trace: bool,
    pub nameservers: Option<Vec<SocketAddr>>,
    pub random: StdRng,
}

/// Everything the lane owns.
pub(super) struct Lane {
    pub ua: UserAgent,
    pub media: MediaPool,
    /// Files opened for recordings that have not begun (a call on hold begins later), by path.
    pub prepared: HashMap<PathBuf, (SessionId, NewRecording)>,
    pub events: Arc<EventQueue>,
    counters: Arc<LaneCounters>,
    transports: Transports,
    resolver: Resolver,
    routes: Routes,
    ports: RtpPorts,
    bind_ip: Option<std::net::IpAddr>,
    advertised_ip: Option<std::net::IpAddr>,
    random: StdRng,
    trace: bool,
    times: BTreeMap<SessionId, Times>,
    tidy_at: Instant,
    network: NetworkWatch,
    stopping: Option<Stopping>,
}

/// Wall-clock stamps of a session, and when it was over.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    start: Option<SystemTime>,
    stop: Option<SystemTime>,
    over_at: Option<Instant>,
}

/// How far the end of the engine has come.
#[derive(Debug)]
struct Stopping {
    phase: Phase,
    patience: Instant,
    deadline: Instant,
    reply: crossbeam_channel::Sender<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// BYE and CANCEL are out; their answers are awaited.
    Sessions,
    /// Streams are closed and recordings finished.
    Media,
    Over,
}

/// Runs the lane until a stop; the thread's body.
pub(super) fn run(parts: LaneParts, inputs: Inputs) {
    let (events, counters) = (parts.events.clone(), parts.counters.clone());
    let body = AssertUnwindSafe(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(super::resolver::LOOKUP_LIMIT)
            .thread_name("sipwire-dns")
            .build()
            .expect("a runtime needs only an epoll and an eventfd");
        runtime.block_on(async {
            let (lane, resolved) = Lane::new(parts);
            lane.run(inputs, resolved).await;
        });
        runtime.shutdown_background(); // a lookup that hangs must not hold up the end
    });
    if catch_unwind(body).is_err() {
        counters.panics.add(1);
        let error = "the signalling thread ended by a fault of its own".into();
        events.post_engine(EventKind::EngineGotException { error });
    }
    events.post_engine(EventKind::EngineDidEnd);
    events.end();
}

impl Lane {
    fn new(parts: LaneParts) -> (Self, mpsc::Receiver<Resolved>) {
        let LaneParts { ua, bound, bind_ip, advertised_ip, ports, media, events, counters, trace, nameservers, random } =
            parts;
        let (resolved_sender, resolved) = mpsc::channel(RESOLVED_LIMIT);
        let transports = Transports::new(bound, counters.transport.clone());
        let lane = Self {
            ua,
            media,
            prepared: HashMap::new(),
            events,
            counters,
            transports,
            resolver: Resolver::new(resolved_sender, nameservers, Instant::now()),
            routes: Routes::default(),
            ports,
            bind_ip,
            advertised_ip,
            random,
            trace,
            times: BTreeMap::new(),
            tidy_at: Instant::now() + HOUSEKEEPING,
            network: NetworkWatch::new(bind_ip, advertised_ip, Instant::now()),
            stopping: None,
        };
        (lane, resolved)
    }

    async fn run(mut self, inputs: Inputs, mut resolved: mpsc::Receiver<Resolved>) {
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut held_resolved = None;
        loop {
            let now = Instant::now();
            let mut more = self.take_commands(&inputs.commands, now);
            more |= self.take_media(&inputs.media, now);
            more |= self.take_arrivals(now);
            more |= self.take_resolved(&mut resolved, held_resolved.take(), now);
            if self.ua.poll_timeout().is_some_and(|at| at <= now) {
                self.guarded("a timer", now, |lane| lane.ua.handle_timeout(now));
            }
            if self.tidy_at <= now {
                self.tidy(now);
            }
            more |= self.media.flush();
            if self.is_stopped(now) {
                return;
            }
            if more {
                tokio::task::yield_now().await; // let readers, writers and the kernel have their turn
                continue;
            }
            let until = self.next_deadline();
            if timer.deadline() != until.into() {
                timer.as_mut().reset(until.into());
            }
            tokio::select! {
                () = inputs.wake.notified() => {}
                () = self.transports.ready() => {}
                answer = resolved.recv() => held_resolved = answer,
                () = timer.as_mut() => {}
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let stop = self.stopping.as_ref().map(|stopping| match stopping.phase {
            Phase::Sessions => stopping.patience,
            Phase::Media | Phase::Over => stopping.deadline,
        });
        self.ua.poll_timeout().into_iter().chain(stop).fold(self.tidy_at, Instant::min)
    }

    // --- what arrives ------------------------------------------------------------------------------------------------

    fn take_commands(&mut self, commands: &Receiver<Command>, now: Instant) -> bool {
        self.counters.commands.saw(commands.len());
        for _ in 0..PORTION {
            let Ok(command) = commands.try_recv() else { return false };
            self.guarded("a verb", now, |lane| command(lane, now));
        }
        true
    }

    fn take_media(&mut self, messages: &Receiver<MediaMessage>, now: Instant) -> bool {
        self.counters.media_events.saw(messages.len());
        for _ in 0..PORTION {
            let Ok(message) = messages.try_recv() else { return false };
            match message {
                MediaMessage::Event(session, event) => {
                    self.guarded("a media event", now, |lane| lane.ua.handle_media_event(session, event, now));
                }
                MediaMessage::Fault(error) => self.report_fault(error),
                MediaMessage::ThreadEnded => self.media.thread_ended(),
                MediaMessage::DiskEnded => self.media.disk_ended(),
            }
        }
        true
    }

    fn take_arrivals(&mut self, now: Instant) -> bool {
        for _ in 0..PORTION {
            let mut came = false;
            self.guarded("what arrived", now, |lane| {
                if let Some(arrival) = lane.transports.poll(now) {
                    came = true;
                    lane.take_arrival(arrival, now);
                }
            });
            if !came {
                return false;
            }
        }
        true
    }

    fn take_arrival(&mut self, arrival: Arrival, now: Instant) {
        match arrival {
            Arrival::Message { message, flow, local } => {
                if self.trace {
                    self.post_trace(true, flow, local, message.as_bytes());
                }
                self.ua.handle_message(message, flow, now);
            }
            Arrival::Bad { error, flow, local, bytes } => {
                if self.trace && !bytes.is_empty() {
                    self.post_trace(true, flow, local, &bytes);
                }
                self.ua.handle_bad_message(error, flow, now);
            }
            Arrival::Failed { client, error } => self.ua.handle_transport_error(client, &error, now),
            Arrival::FlowFailed { flow, error } => {
                tracing::debug!(transport = flow.transport.name(), remote = %flow.remote, error, "a flow has failed");
                self.ua.handle_flow_failed(flow, now);
            }
            Arrival::CertificateWillExpire { certificate, expires } => {
                tracing::warn!(certificate = %certificate.display(), ?expires, "the TLS certificate expires soon");
                self.events.post_engine(EventKind::EngineCertificateWillExpire { certificate, expires });
            }
        }
    }

    fn take_resolved(&mut self, answers: &mut mpsc::Receiver<Resolved>, held: Option<Resolved>, now: Instant) -> bool {
        let mut next = held.or_else(|| answers.try_recv().ok());
        while let Some(Resolved { query, answer }) = next {
            self.guarded("a resolved name", now, |lane| lane.ua.handle_resolved(query, answer, now));
            next = answers.try_recv().ok(); // bounded: the resolver has a limit on open questions
        }
        false
    }

    /// Lets `work` have the user agent, carries out what it asks, and survives a fault in either: the engine lives on and
    /// the application hears of it (reliability row 1).
    fn guarded(&mut self, source: &str, now: Instant, work: impl FnOnce(&mut Self)) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            work(self);
            self.drain(now);
        }));
        if let Err(panic) = result {
            self.report_fault(format!("a fault while handling {source}: {}", panic_text(&*panic)));
        }
    }

    fn report_fault(&mut self, error: String) {
        self.counters.panics.add(1);
        tracing::error!(error, "a fault of the engine");
        self.events.post_engine(EventKind::EngineGotException { error: error.into() });
    }

    // --- what leaves -------------------------------------------------------------------------------------------------

    /// Carries out everything the user agent asks for.
    pub fn drain(&mut self, now: Instant) {
        while let Some(output) = self.ua.poll_output() {
            match output {
                Output::Transmit { flow, bytes, client } => self.transmit(flow, bytes, client, now),
                Output::Event(event) => self.post(event, now),
                Output::Media(session, command) => self.media_command(session, command, now),
                Output::KeepAlive { flow, interval } => self.transports.keep_alive(flow, interval, now),
                Output::Resolve { query, question, patience } => {
                    if let Err(error) = self.resolver.ask(query, question, patience, now) {
                        self.ua.handle_resolved(query, Err(error), now);
                    }
                }
            }
        }
    }

    pub fn reload_certificates(&mut self) -> Result<(), EngineError> {
        self.transports.reload_certificates()
    }

    fn transmit(&mut self, flow: Flow, bytes: Bytes, client: Option<ClientId>, now: Instant) {
        let traced = self.trace.then(|| bytes.clone());
        let peer = flow.peer.and_then(|peer| self.ua.peer(peer));
        match self.transports.send(flow, peer, bytes, client, now) {
            Ok(local) => {
                if let Some(bytes) = traced {
                    self.post_trace(false, flow, local, &bytes);
                }
            }
            Err(error) => {
                tracing::debug!(transport = flow.transport.name(), remote = %flow.remote, error, "a message was not sent");
                if let Some(client) = client {
                    self.ua.handle_transport_error(client, &error, now);
                }
            }
        }
    }

    fn post(&mut self, mut event: Event, now: Instant) {
        let at = SystemTime::now();
        if let (Some(session), Some(snapshot)) = (event.session(), &mut event.snapshot) {
            let starts = event.kind == EventKind::SessionWillStart;
            let over = snapshot.state == SessionState::Terminated;
            if starts || over {
                let times = self.times.entry(session).or_default();
                if starts {
                    times.start.get_or_insert(at);
                }
                if over {
                    times.stop.get_or_insert(at);
                    times.over_at = Some(now);
                }
            }
            self.times.get(&session).copied().unwrap_or_default().stamp(snapshot);
        }
        self.events.post_at(event, at);
    }

    fn post_trace(&self, received: bool, flow: Flow, local: SocketAddr, bytes: &[u8]) {
        let (source, destination) = if received { (flow.remote, local) } else { (local, flow.remote) };
        let (transport, data) = (flow.transport, masked(bytes));
        self.events.post_engine(EventKind::EngineSIPTrace { received, source, destination, transport, data });
    }

    /// What a session looks like now, with its times.
    pub fn snapshot(&self, session: SessionId) -> Option<Arc<Snapshot>> {
        let mut snapshot = self.ua.snapshot(session)?;
        self.times.get(&session).copied().unwrap_or_default().stamp(&mut snapshot);
        Some(snapshot)
    }

    fn media_command(&mut self, session: SessionId, command: MediaCommand, now: Instant) {
        match command {
            MediaCommand::Open { peer } => {
                let opened = self.open_media(session, peer, now);
                self.ua.handle_media_opened(session, opened, now);
            }
            MediaCommand::OpenChat { .. } => {
                self.ua.handle_chat_opened(session, Err("chat is not available".into()), now);
            }
            MediaCommand::Close => {
                if let Some(port) = self.media.close(session) {
                    self.ports.release(port, now);
                }
            }
            MediaCommand::StartRecording { path, .. } => {
                let prepared = self.prepared.remove(&path).map(|(_, recording)| recording);
                self.media.start_recording(session, path, prepared);
            }
            other => self.media.command(session, other),
        }
    }

    fn open_media(&mut self, session: SessionId, peer: SocketAddr, now: Instant) -> Result<LocalMedia, String> {
        let local = match self.bind_ip {
            Some(ip) if !ip.is_unspecified() => ip,
            _ => self
                .routes
                .local_address(peer.ip().to_canonical(), now)
                .ok_or_else(|| format!("no route to {}", peer.ip()))?,
        };
        let sockets = self.ports.bind(local, &mut self.random, now)?;
        let rtp_port = sockets.port;
        self.media.open(session, sockets);
        // The advertised address stands for those of its family, and for the only one we were told to use.
        let one = self.bind_ip.is_some_and(|ip| !ip.is_unspecified());
        let address = self.advertised_ip.filter(|ip| one || ip.is_ipv4() == local.is_ipv4()).unwrap_or(local);
        Ok(LocalMedia { address, rtp_port, rtcp_port: rtp_port + 1 })
    }

    // --- care and end ------------------------------------------------------------------------------------------------

    fn tidy(&mut self, now: Instant) {
        self.tidy_at = now + HOUSEKEEPING;
        self.transports.tidy(now);
        if let Some(local) = self.network.changed(&self.ua.config_mut().local) {
            tracing::info!(?local, "the machine has another address");
            self.guarded("another address", now, |lane| lane.ua.set_local(local, now));
        }
        if self.network.has_slept(now) {
            tracing::info!("the machine slept");
            self.guarded("waking up", now, |lane| lane.ua.handle_resumed(now));
        }
        let ua = &self.ua;
        let wanted = |path: &PathBuf, session| {
            let snapshot = ua.snapshot(session);
            snapshot.and_then(|snapshot| snapshot.audio.as_ref()?.recording_file_name.clone()).as_ref() == Some(path)
        };
        for (_, (_, recording)) in self.prepared.extract_if(|path, (session, _)| !wanted(path, *session)) {
            recording.discard(); // the call or the wish for it ended before it began
        }
        self.times.retain(|session, times| match times.over_at {
            Some(at) => now.saturating_duration_since(at) < HOUSEKEEPING || ua.snapshot(*session).is_some(),
            None => true,
        });
    }

    /// Begins the end; `reply` gets the number of sessions that were alive, then, at the end, of those left unanswered.
    pub fn stop(&mut self, timeout: Duration, reply: crossbeam_channel::Sender<usize>, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        self.events.post_engine(EventKind::EngineWillEnd);
        let _ = reply.send(self.ua.sessions().len());
        self.ua.config_mut().accepts_calls = false; // whoever calls now is sent away with 480
        self.ua.shutdown(now);
        let patience = now + timeout.mul_f64(PEERS_SHARE);
        self.stopping = Some(Stopping { phase: Phase::Sessions, patience, deadline: now + timeout, reply });
    }

    fn is_stopped(&mut self, now: Instant) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        if stopping.phase == Phase::Sessions {
            let left = self.ua.sessions().len();
            let is_through = left == 0 && !self.ua.is_registered() && self.ua.open_subscriptions() == 0;
            if is_through || stopping.patience <= now {
                let _ = stopping.reply.send(left);
                self.media.stop();
                self.media.flush();
                stopping.phase = Phase::Media;
                self.guarded("the end of registrations", now, |lane| lane.ua.abandon_registrations(now));
            }
        }
        let Some(stopping) = &mut self.stopping else { return false };
        if stopping.phase == Phase::Media && (self.media.is_stopped() || stopping.deadline <= now) {
            stopping.phase = Phase::Over;
            return true;
        }
        false
    }
}

impl Times {
    fn stamp(self, snapshot: &mut Arc<Snapshot>) {
        if self.start.is_some() || self.stop.is_some() {
            let snapshot = Arc::make_mut(snapshot);
            // A call that never started has no stop time either (session-api A5).
            (snapshot.start_time, snapshot.stop_time) = (self.start, self.start.and(self.stop));
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
