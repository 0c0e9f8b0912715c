//! The media lane from outside: its threads, the requests they take, and what they report to signalling.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender, TrySendError, bounded};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;

use super::calls::{CallView, Calls};
use super::counters::{Counter, QueueCounters};
use super::devices::{Card, Devices};
use super::disk::{self, DiskView, NewRecording};
use super::media_thread::{self, MediaThread};
use super::sockets::{RtpSockets, words};
use super::stats::{DiskStats, MediaThreadStats};
use super::{AudioStatistics, EngineError, EngineOptions};
use crate::audio::graph::{Sink, Source};
use crate::audio::ring::Monitor;
use crate::event::SessionId;
use crate::media::{MediaCommand, MediaEvent};
use crate::rtp::session::PacketTrace;

/// Requests that wait for one media thread: it takes all of them every 20 ms at the latest.
pub(super) const REQUEST_LIMIT: usize = 8192;
/// How long an application waits for a media thread.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Media threads at most.
const THREAD_LIMIT: usize = 256;

/// What media and disk threads tell the signalling lane.
#[derive(Debug)]
pub(super) enum MediaMessage {
    Event(SessionId, MediaEvent),
    /// A panic that was caught.
    Fault(String),
    /// A media thread has ended.
    ThreadEnded,
    /// The disk thread has ended: all recordings are finished.
    DiskEnded,
}

/// The way from other lanes to signalling. Never waits.
#[derive(Clone)]
pub(super) struct ToSignalling {
    sender: Sender<MediaMessage>,
    wake: Arc<Notify>,
    counters: Arc<QueueCounters>,
}

impl ToSignalling {
    pub fn new(sender: Sender<MediaMessage>, wake: Arc<Notify>, counters: Arc<QueueCounters>) -> Self {
        Self { sender, wake, counters }
    }

    pub fn send(&self, message: MediaMessage) {
        if self.sender.try_send(message).is_err() {
            self.counters.refused(); // signalling is gone, or so far behind that one more event does not matter
        }
        self.wake.notify_one();
    }

    pub fn event(&self, session: SessionId, event: MediaEvent) {
        self.send(MediaMessage::Event(session, event));
    }
}

/// Names a reader of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortId(pub u64);

/// What a media thread is asked.
pub(super) enum Request {
    /// A new call with its sockets.
    Open {
        view: Arc<CallView>,
        sockets: RtpSockets,
    },
    /// Start, SendDtmf, pause and resume of recordings.
    Command(SessionId, MediaCommand),
    Record(SessionId, Box<disk::RecordingPorts>),
    StopRecording(SessionId),
    Close(SessionId),
    /// Adds a sink that hears the peer; `monitor` counts what it loses.
    AddReader {
        session: SessionId,
        id: PortId,
        sink: Box<dyn Sink>,
        monitor: Monitor,
    },
    RemoveReader(SessionId, PortId),
    /// Adds a source that the peer hears, until it is finished; `monitor` counts what it misses.
    AddSource {
        session: SessionId,
        source: Box<dyn Source>,
        monitor: Option<Monitor>,
    },
    Muted(SessionId, bool),
    /// Replaces the tone.
    Tone(SessionId, Option<Box<dyn Source>>),
    /// Connects what one call receives to what another (or the same: echo) sends, or ends that. Both live here.
    Bridge {
        from: SessionId,
        to: SessionId,
        on: bool,
    },
    Statistics(SessionId, Sender<AudioStatistics>),
    Trace(SessionId, Sender<Vec<PacketTrace>>),
    /// Ends all calls, then the thread.
    Stop,
}

/// Counters of one media thread, written by it alone.
#[derive(Debug, Default)]
pub(super) struct ThreadCounters {
    pub calls: AtomicUsize,
    pub ticks: Counter,
    pub late_ticks: Counter,
    pub skipped_ticks: Counter,
    pub worst_late_us: Counter,
    pub packets_received: Counter,
    pub packets_sent: Counter,
    pub packets_dropped: Counter,
    pub faults: Counter,
    pub requests: QueueCounters,
}

/// The way to one media thread.
pub(super) struct ThreadHandle {
    requests: Sender<Request>,
    waker: mio::Waker,
    counters: Arc<ThreadCounters>,
}

impl ThreadHandle {
    /// Hands a request over, or back when the queue is full; `None` when the thread has ended. Wake it after the last.
    fn try_send(&self, request: Request) -> Result<(), Option<Request>> {
        let sent = self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) => Some(request),
            TrySendError::Disconnected(_) => None,
        });
        self.counters.requests.saw(self.requests.len());
        sent
    }

    fn wake(&self) {
        let _ = self.waker.wake(); // it also wakes every 20 ms by itself while it has calls
    }

    fn send(&self, request: Request) -> Result<(), EngineError> {
        match self.requests.send_timeout(request, REQUEST_TIMEOUT) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(SendTimeoutError::Timeout(_)) => {
                self.counters.requests.refused();
                Err(EngineError::NoAnswer(1000))
            }
            Err(SendTimeoutError::Disconnected(_)) => Err(EngineError::Stopped),
        }
    }

    fn stats(&self) -> MediaThreadStats {
        let counters = &self.counters;
        MediaThreadStats {
            calls: counters.calls.load(Relaxed),
            ticks: counters.ticks.get(),
            late_ticks: counters.late_ticks.get(),
            skipped_ticks: counters.skipped_ticks.get(),
            worst_late_us: counters.worst_late_us.get(),
            packets_received: counters.packets_received.get(),
            packets_sent: counters.packets_sent.get(),
            packets_dropped: counters.packets_dropped.get(),
            commands: counters.requests.stats(self.requests.len(), REQUEST_LIMIT),
        }
    }
}

/// The media lane as handles of calls see it.
#[derive(Clone)]
pub(super) struct MediaView {
    threads: Arc<[ThreadHandle]>,
    pub disk: DiskView,
    events: Sender<MediaMessage>,
}

impl MediaView {
    /// Sends a request to the thread of a call, waiting a bounded time for room.
    pub fn send(&self, call: &CallView, request: Request) -> Result<(), EngineError> {
        if !call.is_open() {
            return Err(EngineError::NoAudio);
        }
        self.threads.get(call.thread).ok_or(EngineError::NoAudio)?.send(request)
    }

    /// Sends a request without waiting, for what is dropped.
    pub fn send_now(&self, call: &CallView, request: Request) {
        if let Some(thread) = self.threads.get(call.thread) {
            let _ = thread.try_send(request);
            thread.wake();
        }
    }

    pub fn stats(&self) -> (Vec<MediaThreadStats>, DiskStats, u64) {
        let faults = self.threads.iter().map(|thread| thread.counters.faults.get()).sum();
        (self.threads.iter().map(ThreadHandle::stats).collect(), self.disk.stats(), faults)
    }

    /// Messages that wait for signalling.
    pub fn waiting_events(&self) -> usize {
        self.events.len()
    }
}

/// The media lane as signalling sees it: places calls and never waits for a thread.
pub(super) struct MediaPool {
    view: MediaView,
    to_signalling: ToSignalling,
    calls: Arc<Calls>,
    open: HashMap<SessionId, Placed>,
    /// Requests for threads whose queue was full, in order.
    backlog: Vec<VecDeque<Request>>,
    /// Threads that were given something since they were last woken.
    unwoken: Vec<bool>,
    threads_left: usize,
    disk_left: bool,
    stopping: bool,
}

struct Placed {
    view: Arc<CallView>,
    port: u16,
}

impl MediaPool {
    /// Starts the media threads and the disk thread.
    pub fn start(
        options: &EngineOptions,
        to_signalling: ToSignalling,
        calls: Arc<Calls>,
        random: &mut StdRng,
    ) -> Result<(Self, MediaView, Vec<JoinHandle<()>>), EngineError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = match options.media_threads {
            Some(0) => return Err(EngineError::Option { option: "media_threads", what: "0: at least 1".to_owned() }),
            Some(count) => count,
            None => cores(),
        };
        // A card belongs to one thread, so all calls do.
        let (mut card, count) = match options.audio_device.as_str() {
            "null" => (None, count),
            name => (Some(open_card(name, options.devices_library.as_deref())?), 1),
        };
        let failed = |error: std::io::Error| EngineError::Option { option: "media_threads", what: words(&error) };
        let mut joins = Vec::new();
        let (disk, disk_join) = disk::start(to_signalling.clone()).map_err(failed)?;
        joins.push(disk_join);
        let mut threads = Vec::new();
        for number in 0..count.min(THREAD_LIMIT) {
            let poll = mio::Poll::new().map_err(failed)?;
            let waker = mio::Waker::new(poll.registry(), media_thread::WAKE).map_err(failed)?;
            let (requests, receiver) = bounded(REQUEST_LIMIT);
            let counters = Arc::new(ThreadCounters::default());
            let thread = MediaThread::new(
                poll,
                receiver,
                to_signalling.clone(),
                counters.clone(),
                StdRng::from_rng(random),
                options.trace_rtp,
                card.take(),
            );
            let ended = to_signalling.clone();
            let body = move || {
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| thread.run())).is_err() {
                    ended.send(MediaMessage::Fault("a media thread ended by a fault of its own".to_owned()));
                }
                ended.send(MediaMessage::ThreadEnded);
            };
            let builder = std::thread::Builder::new().name(format!("sipwire-media{number}"));
            joins.push(builder.spawn(body).map_err(failed)?);
            threads.push(ThreadHandle { requests, waker, counters });
        }
        let view = MediaView { threads: threads.into(), disk, events: to_signalling.sender.clone() };
        let pool = Self {
            to_signalling,
            calls,
            open: HashMap::new(),
            unwoken: vec![false; view.threads.len()],
            backlog: view.threads.iter().map(|_| VecDeque::new()).collect(),
            threads_left: view.threads.len(),
            disk_left: true,
            stopping: false,
            view: view.clone(),
        };
        Ok((pool, view, joins))
    }

    fn send(&mut self, thread: usize, request: Request) {
        let (Some(handle), Some(backlog)) = (self.view.threads.get(thread), self.backlog.get_mut(thread)) else {
            return;
        };
        if let Some(unwoken) = self.unwoken.get_mut(thread) {
            // A call that only opens its sockets has nothing to do until it starts or ends.
            *unwoken |= !matches!(request, Request::Open { .. });
        }
        if !backlog.is_empty() {
            backlog.push_back(request);
        } else if let Err(Some(request)) = handle.try_send(request) {
            backlog.push_back(request); // bounded by the calls there can be and what each is asked
        }
    }

    /// Sends what waits for room and wakes the threads that have something to do, once a turn; true when something
    /// still waits.
    pub fn flush(&mut self) -> bool {
        let mut waits = false;
        let threads = self.view.threads.iter().zip(&mut self.backlog).zip(&mut self.unwoken);
        for ((handle, backlog), unwoken) in threads {
            if std::mem::take(unwoken) || !backlog.is_empty() {
                handle.wake();
            }
            while let Some(request) = backlog.pop_front() {
                if let Err(Some(request)) = handle.try_send(request) {
                    backlog.push_front(request);
                    waits = true;
                    break;
                }
            }
        }
        waits
    }

    /// Gives a call to the thread with the fewest.
    pub fn open(&mut self, session: SessionId, sockets: RtpSockets) {
        let load = |thread: &ThreadHandle| thread.counters.calls.load(Relaxed);
        let threads = self.view.threads.iter().enumerate();
        let thread = threads.min_by_key(|(_, thread)| load(thread)).map_or(0, |(index, _)| index);
        if let Some(handle) = self.view.threads.get(thread) {
            handle.counters.calls.fetch_add(1, Relaxed); // the thread takes it off at the end
        }
        let view = Arc::new(CallView::new(session, thread));
        let port = sockets.port;
        self.calls.insert(view.clone());
        self.send(thread, Request::Open { view: view.clone(), sockets });
        if let Some(old) = self.open.insert(session, Placed { view, port }) {
            tracing::error!(?session, port = old.port, "a session opened a second stream; the first is closed");
        }
    }

    pub fn command(&mut self, session: SessionId, command: MediaCommand) {
        if let (MediaCommand::Start(params), Some(placed)) = (&command, self.open.get(&session)) {
            placed.view.set_sample_rate(params.send.codec.sample_rate()); // known before the thread gets to it
        }
        if let Some(thread) = self.thread(session) {
            self.send(
                thread,
                match command {
                    MediaCommand::StopRecording => Request::StopRecording(session),
                    other => Request::Command(session, other),
                },
            );
        }
    }

    /// Records into the file the verb has prepared.
    pub fn start_recording(&mut self, session: SessionId, path: PathBuf, prepared: Option<NewRecording>) {
        let Some(thread) = self.thread(session) else {
            return prepared.map(NewRecording::discard).unwrap_or_default();
        };
        let ports =
            prepared.ok_or("the recording has no file").and_then(|new| self.view.disk.start_recording(session, new));
        match ports {
            Ok(ports) => self.send(thread, Request::Record(session, Box::new(ports))),
            Err(error) => {
                let error = Some(error.to_owned());
                self.to_signalling.event(session, MediaEvent::RecordingDidStop { path, error });
            }
        }
    }

    fn thread(&self, session: SessionId) -> Option<usize> {
        self.open.get(&session).map(|placed| placed.view.thread)
    }

    /// Ends a call's stream; returns its RTP port.
    pub fn close(&mut self, session: SessionId) -> Option<u16> {
        let placed = self.open.remove(&session)?;
        self.send(placed.view.thread, Request::Close(session));
        self.calls.end(session);
        Some(placed.port)
    }

    /// Tells all threads to end: first the media threads, and after them the disk thread, which gets their last frames.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        for thread in 0..self.backlog.len() {
            self.send(thread, Request::Stop);
        }
    }

    pub fn thread_ended(&mut self) {
        self.threads_left = self.threads_left.saturating_sub(1);
        if self.threads_left == 0 {
            self.view.disk.stop();
        }
    }

    pub fn disk_ended(&mut self) {
        self.disk_left = false;
    }

    pub fn is_stopped(&self) -> bool {
        self.threads_left == 0 && !self.disk_left
    }
}

fn open_card(name: &str, library: Option<&Path>) -> Result<Card, EngineError> {
    let card = Devices::load(library).and_then(|devices| devices.open(name));
    card.map_err(|error| EngineError::Option { option: "audio_device", what: format!("{name:?}: {error}") })
}

impl Drop for MediaPool {
    /// A pool that was never told to stop (the engine could not start) takes its threads with it.
    fn drop(&mut self) {
        self.stop();
        self.flush();
        self.view.disk.stop();
    }
}
