//! One media thread: a poll over the RTP sockets of its calls and one 20 ms tick for all of them.
//!
//! Between ticks packets go into their [`RtpSession`] as they arrive. At a tick every call gives one frame of what its
//! peer said to the graph, the graph mixes, and every call sends one frame of what it is to hear. When a program both
//! hears and speaks, sending follows [`ANSWER_TIME`] after delivery, so that its answer leaves in the same tick and not
//! 20 ms later. Nothing here allocates, locks or logs per packet or frame; requests may.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::{Events, Interest, Poll, Token};
use rand::rngs::StdRng;

use super::call::Call;
use super::devices::{Card, CardStream};
use super::disk::RecordingPorts;
use super::media::{MediaMessage, Request, ThreadCounters, ToSignalling};
use super::signalling::panic_text;
use crate::audio::graph::{Event as GraphEvent, Graph, SinkId, SourceId};
use crate::event::SessionId;
use crate::media::{MediaCommand, MediaEvent};
use crate::rtp::session::Channel;

/// The token of the waker; sockets of calls count from 0.
pub(super) const WAKE: Token = Token(usize::MAX);
/// The period of the grid.
const TICK: Duration = Duration::from_millis(20);
/// Frames of delay that are made up for at once; what is later than that is given up, so that a thread that was held up
/// sends a short burst and not a long one.
const CATCH_UP_LIMIT: u32 = 3;
/// From the delivery of frames to programs until their answers are sent. A program that needs longer loses one frame
/// once; from then on its ring holds one more, as without this.
const ANSWER_TIME: Duration = Duration::from_millis(5);
/// With more calls than this on a thread, programs (one interpreter, perhaps 0.1 ms a frame) would not answer all of
/// them in [`ANSWER_TIME`]; they get the whole tick then.
const ANSWER_CALLS: usize = 16;
/// Packets taken from one socket before the next one's turn.
const SOCKET_PORTION: usize = 32;
/// Requests taken in one turn.
const REQUEST_PORTION: usize = 256;
/// Readiness events taken at once.
const EVENTS: usize = 1024;
/// The largest UDP payload; anything longer than a packet of audio is dropped by the RTP session.
const DATAGRAM_LIMIT: usize = 65_535;
/// How often the sound card is asked whether it still works.
const CARD_CHECK: Duration = Duration::from_secs(1);
/// The lowest real-time priority: enough that no program of the machine, our own interpreter included, keeps its slice of
/// several ms while a tick is due. Allowed to root, or with RLIMIT_RTPRIO; the kernel keeps 5 % for everybody else.
#[cfg(target_os = "linux")]
const REAL_TIME: i32 = 1;
/// Where that is not allowed: how many nice levels before others (RLIMIT_NICE).
const NICE: i32 = -10;

pub(super) struct MediaThread {
    poll: Poll,
    requests: Receiver<Request>,
    to_signalling: ToSignalling,
    counters: Arc<ThreadCounters>,
    random: StdRng,
    trace: bool,
    graph: Graph,
    card: Option<CardPorts>,
    watch_card_at: Instant,
    calls: slab::Slab<Call>,
    by_session: HashMap<SessionId, usize>,
    /// Which call a source that ends by itself belongs to.
    sources: BTreeMap<SourceId, SessionId>,
    /// Sockets that had more than their portion.
    unread: Vec<Token>,
    buffer: Box<[u8]>,
    next_tick: Instant,
    /// When the second half of the current tick is due, if it is still to come.
    send_at: Option<Instant>,
    /// Whether ticks have a pause between their halves. Chosen once for as long as there are calls, except that too
    /// many end it: each change is one irregular packet.
    answers: Answers,
    stopping: bool,
}

/// Whether programs are given time to answer within a tick.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// No program both hears and speaks yet.
    NoneYet,
    SameTick,
    NextTick,
}

impl MediaThread {
    pub fn new(
        poll: Poll,
        requests: Receiver<Request>,
        to_signalling: ToSignalling,
        counters: Arc<ThreadCounters>,
        random: StdRng,
        trace: bool,
        card: Option<Card>,
    ) -> Self {
        let mut graph = Graph::new();
        let card = card.map(|card| CardPorts::new(card, &mut graph));
        Self {
            poll,
            requests,
            to_signalling,
            counters,
            random,
            trace,
            graph,
            card,
            watch_card_at: Instant::now(),
            calls: slab::Slab::new(),
            by_session: HashMap::new(),
            sources: BTreeMap::new(),
            unread: Vec::with_capacity(EVENTS),
            buffer: vec![0; DATAGRAM_LIMIT].into_boxed_slice(),
            next_tick: Instant::now(),
            send_at: None,
            answers: Answers::NoneYet,
            stopping: false,
        }
    }

    /// Runs until told to stop.
    pub fn run(mut self) {
        raise_priority();
        let mut events = Events::with_capacity(EVENTS);
        while !self.stopping {
            let wait = if !self.unread.is_empty() {
                Some(Duration::ZERO)
            } else if self.calls.is_empty() {
                None
            } else {
                Some(self.until_due())
            };
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                // Only a fault of ours can cause it; going round at the pace of the grid keeps the calls alive.
                self.fault(&format!("poll failed: {error}"));
                std::thread::park_timeout(TICK);
            }
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn(&events)));
            if let Err(panic) = turn {
                self.fault(&format!("a fault in a media thread: {}", panic_text(&*panic)));
            }
        }
    }

    /// How long to poll before the next half of a tick. A poll counts whole milliseconds and rounds up, which the peer
    /// would see as jitter: so it gets the whole ones, and what is left (packets may wait that long) is slept exactly.
    fn until_due(&self) -> Duration {
        let wait = self.send_at.unwrap_or(self.next_tick).saturating_duration_since(Instant::now());
        let fraction = Duration::from_nanos(u64::from(wait.subsec_nanos() % 1_000_000));
        if wait == fraction {
            std::thread::sleep(fraction);
        }
        wait - fraction
    }

    fn fault(&mut self, error: &str) {
        self.counters.faults.add(1);
        self.to_signalling.send(MediaMessage::Fault(error.to_owned()));
    }

    fn turn(&mut self, events: &Events) {
        let idle = self.calls.is_empty();
        let mut unread = std::mem::take(&mut self.unread);
        for token in unread.drain(..) {
            self.read(token);
        }
        for event in events {
            if event.token() != WAKE {
                self.read(event.token());
            }
        }
        unread.append(&mut self.unread); // keeps the larger of the two allocations
        self.unread = unread;

        for _ in 0..REQUEST_PORTION {
            let Ok(request) = self.requests.try_recv() else { break };
            self.handle(request);
        }
        let now = Instant::now();
        if idle && !self.calls.is_empty() {
            self.next_tick = now + TICK; // the grid begins with the first call
        }
        self.tick_if_due(now);
    }

    fn tick_if_due(&mut self, now: Instant) {
        if self.calls.is_empty() {
            (self.send_at, self.answers) = (None, Answers::NoneYet);
            return;
        }
        if self.send_at.is_some_and(|at| at <= now) {
            self.send(now);
        }
        if now < self.next_tick {
            return;
        }
        let late = now.duration_since(self.next_tick);
        self.counters.worst_late_us.raise_to(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
        if late > TICK / 2 {
            self.counters.late_ticks.add(1);
        }
        let due = u32::try_from(late.as_micros() / TICK.as_micros()).unwrap_or(u32::MAX).saturating_add(1);
        let frames = due.min(CATCH_UP_LIMIT);
        let pause = self.answer_time();
        let last = self.next_tick + TICK * (due - 1);
        for left in (0..frames).rev() {
            self.deliver(now);
            if left == 0 && now < last + pause {
                self.send_at = Some(last + pause);
            } else {
                self.send(now); // what is late already does not wait
            }
        }
        self.counters.skipped_ticks.add(u64::from(due - frames));
        self.next_tick += TICK * due; // the grid stays absolute
    }

    fn answer_time(&mut self) -> Duration {
        if self.calls.len() > ANSWER_CALLS {
            self.answers = Answers::NextTick;
        } else if self.answers == Answers::NoneYet && self.calls.iter().any(|(_, call)| call.hears_and_speaks()) {
            self.answers = Answers::SameTick;
        }
        if self.answers == Answers::SameTick { ANSWER_TIME } else { Duration::ZERO }
    }

    /// The first half of a tick: one frame from every call, to whoever hears only calls.
    fn deliver(&mut self, now: Instant) {
        self.counters.ticks.add(1);
        for (_, call) in &mut self.calls {
            call.pull(&mut self.graph, now);
        }
        self.graph.deliver(now);
    }

    /// The second half: one frame to every call.
    fn send(&mut self, now: Instant) {
        self.send_at = None;
        self.graph.collect(now);
        for (_, call) in &mut self.calls {
            call.push(&self.graph, now, &self.counters);
            call.report(&self.to_signalling, now);
        }
        if self.watch_card_at <= now {
            self.watch_card_at = now + CARD_CHECK;
            self.watch_card();
        }
        while let Some(GraphEvent::Finished(source)) = self.graph.poll_event() {
            let session = self.sources.remove(&source);
            if let Some(call) = session.and_then(|session| find(&self.by_session, &mut self.calls, session)) {
                call.forget_source(source);
            }
            let _ = self.graph.remove_source(source, now); // dropping it tells whoever waits for the end
        }
    }

    /// Tells the application once when the sound card has gone; calls go on in silence.
    fn watch_card(&mut self) {
        let Some(card) = &mut self.card else { return };
        if !card.told
            && let Some(error) = card.stream.error()
        {
            card.told = true;
            let error = format!("the sound card stopped: {error}");
            self.to_signalling.send(MediaMessage::Fault(error));
        }
    }

    /// Reads one socket until it is empty or has had its portion.
    fn read(&mut self, token: Token) {
        let (index, channel) = (token.0 / 2, if token.0.is_multiple_of(2) { Channel::Rtp } else { Channel::Rtcp });
        let Some(call) = self.calls.get_mut(index) else { return };
        let now = Instant::now();
        for _ in 0..SOCKET_PORTION {
            match call.socket(channel).recv_from(&mut self.buffer) {
                Ok((size, from)) => {
                    self.counters.packets_received.add(1);
                    let Some(packet) = self.buffer.get_mut(..size) else { return };
                    let handled = catch_unwind(AssertUnwindSafe(|| call.receive(channel, packet, from, now)));
                    if let Err(panic) = handled {
                        self.counters.faults.add(1);
                        let error = format!("a fault while handling a packet: {}", panic_text(&*panic));
                        self.to_signalling.send(MediaMessage::Fault(error));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {} // the report of an earlier packet (ICMP): each read takes one away
            }
        }
        self.unread.push(token);
    }

    fn handle(&mut self, request: Request) {
        let now = Instant::now();
        match request {
            Request::Open { view, sockets } => self.open(view, sockets),
            Request::Command(session, command) => self.command(session, command, now),
            Request::Record(session, ports) => self.record(session, *ports, now),
            Request::StopRecording(session) => {
                if let Some((call, graph)) = self.find(session) {
                    call.stop_recording(graph, now);
                }
            }
            Request::Close(session) => self.close(session, now),
            Request::AddReader { session, id, sink, monitor } => {
                if let Some((call, graph)) = self.find(session) {
                    call.add_reader(id, sink, monitor, graph, now);
                }
            }
            Request::RemoveReader(session, id) => {
                if let Some((call, graph)) = self.find(session) {
                    call.remove_reader(id, graph, now);
                }
            }
            Request::AddSource { session, source, monitor } => {
                let added = self.find(session).and_then(|(call, graph)| call.add_source(source, monitor, graph, now));
                if let Some(source) = added {
                    self.sources.insert(source, session);
                }
            }
            Request::Tone(session, source) => {
                if let Some((call, graph)) = self.find(session) {
                    call.set_tone(source, graph, now);
                }
            }
            Request::Muted(session, muted) => {
                if let Some((call, graph)) = self.find(session) {
                    call.set_muted(muted, graph, now);
                }
            }
            Request::Bridge { from, to, on } => self.bridge(from, to, on, now),
            Request::Statistics(session, reply) => {
                if let Some((call, _)) = self.find(session) {
                    let _ = reply.try_send(call.statistics());
                }
            }
            Request::Trace(session, reply) => {
                if let Some((call, _)) = self.find(session) {
                    let _ = reply.try_send(call.take_trace());
                }
            }
            Request::Stop => {
                for session in self.by_session.keys().copied().collect::<Vec<_>>() {
                    self.close(session, now);
                }
                self.stopping = true;
            }
        }
    }

    fn find(&mut self, session: SessionId) -> Option<(&mut Call, &mut Graph)> {
        find(&self.by_session, &mut self.calls, session).map(|call| (call, &mut self.graph))
    }

    fn open(&mut self, view: Arc<super::calls::CallView>, sockets: super::sockets::RtpSockets) {
        let session = view.session;
        let entry = self.calls.vacant_entry();
        let index = entry.key();
        match Call::new(view, sockets, &mut self.graph) {
            Ok(mut call) => {
                if let Some(card) = &self.card {
                    card.join(&mut call, &mut self.graph);
                }
                entry.insert(call);
                self.by_session.insert(session, index);
            }
            Err(error) => {
                self.counters.calls.fetch_sub(1, Relaxed);
                self.to_signalling.event(session, MediaEvent::Failed(error));
            }
        }
    }

    fn command(&mut self, session: SessionId, command: MediaCommand, now: Instant) {
        let Some(&index) = self.by_session.get(&session) else { return };
        let Some(call) = self.calls.get_mut(index) else { return };
        match command {
            MediaCommand::Start(params) => {
                let first = !call.is_started();
                call.start(*params, &mut self.graph, &mut self.random, self.trace, now);
                if first {
                    let registry = self.poll.registry();
                    for channel in [Channel::Rtp, Channel::Rtcp] {
                        let token = Token(2 * index + usize::from(channel == Channel::Rtcp));
                        if let Err(error) = registry.register(call.socket(channel), token, Interest::READABLE) {
                            self.to_signalling.event(session, MediaEvent::Failed(error.to_string()));
                        }
                    }
                }
            }
            MediaCommand::SendDtmf(digit) => call.send_dtmf(digit),
            MediaCommand::Hold(held) => call.set_held(held, &mut self.graph, now),
            MediaCommand::PauseRecording => call.pause_recording(true),
            MediaCommand::ResumeRecording => call.pause_recording(false),
            MediaCommand::Open { .. }
            | MediaCommand::Close
            | MediaCommand::OpenChat { .. }
            | MediaCommand::StartChat(_)
            | MediaCommand::CloseChat
            | MediaCommand::StartRecording { .. }
            | MediaCommand::StopRecording => {} // these have requests of their own
        }
    }

    /// Without its call, the ports are dropped; the disk thread sees the end of its rings and finishes the file.
    fn record(&mut self, session: SessionId, ports: RecordingPorts, now: Instant) {
        let path = ports.path.clone();
        let Some((call, graph)) = self.find(session) else { return };
        let event = match call.record(ports, graph, now) {
            Ok(()) => MediaEvent::RecordingDidStart { path },
            Err(error) => MediaEvent::RecordingDidStop { path, error: Some(error.to_string()) },
        };
        self.to_signalling.event(session, event);
    }

    fn bridge(&mut self, from: SessionId, to: SessionId, on: bool, now: Instant) {
        let Some(source) = self.find(from).map(|(call, _)| call.remote()) else { return };
        if let Some((call, graph)) = self.find(to) {
            if on {
                call.hear(source, graph, now);
            } else {
                call.stop_hearing(source, graph, now);
            }
        }
    }

    fn close(&mut self, session: SessionId, now: Instant) {
        let Some(index) = self.by_session.remove(&session) else { return };
        let call = self.calls.remove(index);
        let remote = call.remote();
        call.close(&mut self.graph, now, &self.counters);
        self.sources.retain(|_, owner| *owner != session);
        for (_, other) in &mut self.calls {
            other.forget_source(remote); // it may have been bridged or be heard elsewhere
        }
        self.counters.calls.fetch_sub(1, Relaxed);
    }
}

/// A sound card's ends in the graph, shared by all calls.
struct CardPorts {
    microphone: Option<SourceId>,
    speaker: Option<SinkId>,
    stream: CardStream,
    told: bool,
}

impl CardPorts {
    fn new(card: Card, graph: &mut Graph) -> Self {
        // An empty graph knows neither name, and the card was opened at a rate of the graph: nothing is refused.
        let microphone = card.microphone.and_then(|port| graph.add_source("microphone", Box::new(port), false).ok());
        let speaker = card.speaker.and_then(|port| graph.add_sink("speaker", Box::new(port)).ok());
        Self { microphone, speaker, stream: card.stream, told: false }
    }

    /// Lets the peer hear the microphone and the speaker the peer.
    fn join(&self, call: &mut Call, graph: &mut Graph) {
        let now = Instant::now();
        if let Some(microphone) = self.microphone {
            call.hear(microphone, graph, now);
        }
        if let Some(speaker) = self.speaker {
            let _ = graph.connect(call.remote(), speaker, 1.0, now);
        }
    }
}

fn find<'a>(
    by_session: &HashMap<SessionId, usize>,
    calls: &'a mut slab::Slab<Call>,
    session: SessionId,
) -> Option<&'a mut Call> {
    calls.get_mut(*by_session.get(&session)?)
}

/// Asks to run before ordinary threads; without the right to, all goes on as it is.
#[cfg(target_os = "linux")]
fn raise_priority() {
    // SAFETY: `parameters` lives through the call; on Linux "process 0" names the calling thread alone.
    unsafe {
        let parameters = libc::sched_param { sched_priority: REAL_TIME };
        if libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) != 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn raise_priority() {
    let _ = NICE;
}
