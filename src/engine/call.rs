//! One call on its media thread: sockets, RTP session, and its ports in the thread's graph.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use rand::RngExt;
use rand::rngs::StdRng;

use super::AudioStatistics;
use super::calls::{CallView, SILENCE_DB, level_db};
use super::disk::RecordingPorts;
use super::media::{PortId, ThreadCounters, ToSignalling};
use super::sockets::RtpSockets;
use crate::audio::graph::{Graph, GraphError, Sink, SinkId, Source, SourceId};
use crate::audio::recorder::{RecorderControl, RecorderSinks};
use crate::audio::ring::Monitor;
use crate::media::{AudioParams, MediaEvent};
use crate::rtp::session::{Channel, PacketTrace, Received, RtpSession};

/// Packets kept for plots: 20 minutes.
const TRACE_LIMIT: usize = 60_000;
/// Underruns are told at most this often.
const UNDERRUN_PAUSE: Duration = Duration::from_secs(1);
/// The rate of a call's ports before its codec is known, Hz.
const FIRST_RATE: u32 = 8000;

pub(super) struct Call {
    view: Arc<CallView>,
    rtp_socket: UdpSocket,
    rtcp_socket: UdpSocket,
    rtp: Option<RtpSession>,
    /// What the peer says.
    remote: SourceId,
    /// What the peer is to hear.
    encoder: SinkId,
    /// Everything connected to the encoder, …
    heard: Vec<SourceId>,
    /// We hold the call.
    held: bool,
    /// … and what of it is this call's own and goes with it.
    own: Vec<SourceId>,
    writers: Vec<Watched<SourceId>>,
    tone: Option<SourceId>,
    readers: Vec<(PortId, Watched<SinkId>)>,
    underruns: u64,
    underrun_ms: u64,
    reader_overflow_ms: u64,
    /// Underruns not yet told to signalling, and when that may be done next.
    untold_ms: u64,
    tell_at: Option<Instant>,
    recording: Option<Recording>,
    /// Numbers ports, so that their names differ.
    ports: u64,
}

/// A ring's port, and how much of the ring's losses has been counted.
struct Watched<T> {
    port: T,
    monitor: Monitor,
    rate: u32,
    counted: u64,
}

impl<T> Watched<T> {
    fn new(port: T, monitor: Monitor, rate: u32) -> Self {
        Self { port, monitor, rate, counted: 0 }
    }

    /// Milliseconds of `total` samples that were not counted before.
    fn more_ms(&mut self, total: u64) -> u64 {
        let ms = (total - self.counted) * 1000 / u64::from(self.rate.max(1));
        self.counted += ms * u64::from(self.rate) / 1000; // what is less than a millisecond waits for more
        ms
    }
}

/// A recording's sinks; in a mix both parties go into one.
struct Recording {
    remote: SinkId,
    local: SinkId,
    control: RecorderControl,
}

impl Call {
    pub fn new(view: Arc<CallView>, sockets: RtpSockets, graph: &mut Graph) -> Result<Self, String> {
        let name = view.session.0;
        let remote = graph
            .add_external_source(&format!("session/{name}/remote"), FIRST_RATE)
            .map_err(|error| error.to_string())?;
        let encoder =
            graph.add_external_sink(&format!("session/{name}/send"), FIRST_RATE).map_err(|error| error.to_string())?;
        Ok(Self {
            view,
            rtp_socket: sockets.rtp,
            rtcp_socket: sockets.rtcp,
            rtp: None,
            remote,
            encoder,
            heard: Vec::new(),
            held: false,
            own: Vec::new(),
            writers: Vec::new(),
            tone: None,
            readers: Vec::new(),
            underruns: 0,
            underrun_ms: 0,
            reader_overflow_ms: 0,
            untold_ms: 0,
            tell_at: None,
            recording: None,
            ports: 0,
        })
    }

    pub fn is_started(&self) -> bool {
        self.rtp.is_some()
    }

    /// Whether a program both reads what the peer says and writes what it is to hear.
    pub fn hears_and_speaks(&self) -> bool {
        !self.readers.is_empty() && !self.writers.is_empty()
    }

    pub fn remote(&self) -> SourceId {
        self.remote
    }

    pub fn socket(&mut self, channel: Channel) -> &mut UdpSocket {
        match channel {
            Channel::Rtp => &mut self.rtp_socket,
            Channel::Rtcp => &mut self.rtcp_socket,
        }
    }

    /// Starts the stream, or changes the running one.
    pub fn start(&mut self, params: AudioParams, graph: &mut Graph, random: &mut StdRng, trace: bool, now: Instant) {
        let rtp = match &mut self.rtp {
            Some(rtp) => {
                rtp.update(params, now);
                rtp
            }
            None => {
                // A name that says nothing about user or machine (RFC 7022).
                let cname = format!("{:024x}", random.random::<u128>() >> 32);
                let rtp = self.rtp.insert(RtpSession::new(params, &cname, random, now));
                if trace {
                    rtp.trace(TRACE_LIMIT);
                }
                rtp
            }
        };
        let rate = rtp.sample_rate();
        self.view.set_sample_rate(rate);
        // Ports of this call's own making at a codec's rate: neither can be refused.
        let _ = graph.set_source_rate(self.remote, rate);
        let _ = graph.set_sink_rate(self.encoder, rate, now);
    }

    pub fn receive(&mut self, channel: Channel, packet: &mut [u8], from: SocketAddr, now: Instant) {
        if let Some(rtp) = &mut self.rtp {
            rtp.handle_packet(channel, packet, from, now);
        }
    }

    /// Puts one frame of what the peer says into the graph.
    pub fn pull(&mut self, graph: &mut Graph, now: Instant) {
        let Some(rtp) = &mut self.rtp else { return };
        let view = &self.view;
        let _ = graph.fill_source(self.remote, |frame| {
            let sounds = rtp.pull_frame(frame, now) != Received::Silence;
            view.set_level(if sounds { level_db(frame) } else { SILENCE_DB });
            sounds
        });
    }

    /// Sends one frame of what the graph gave, and whatever else is due.
    pub fn push(&mut self, graph: &Graph, now: Instant, counters: &ThreadCounters) {
        let Some(rtp) = &mut self.rtp else { return };
        if let Ok((frame, _)) = graph.sink_frame(self.encoder) {
            rtp.push_frame(frame, now);
        }
        if rtp.poll_timeout().is_some_and(|at| at <= now) {
            rtp.handle_timeout(now);
        }
        transmit(rtp, &self.rtp_socket, &self.rtcp_socket, counters);
    }

    /// Tells signalling what happened.
    pub fn report(&mut self, to_signalling: &ToSignalling, now: Instant) {
        let Some(rtp) = &mut self.rtp else { return };
        while let Some(event) = rtp.poll_event() {
            to_signalling.event(self.view.session, event);
        }
        self.count_losses();
        if self.untold_ms > 0 && self.tell_at.is_none_or(|at| at <= now) {
            let missing_ms = u32::try_from(std::mem::take(&mut self.untold_ms)).unwrap_or(u32::MAX);
            self.tell_at = Some(now + UNDERRUN_PAUSE);
            to_signalling.event(self.view.session, MediaEvent::Underrun { missing_ms });
        }
    }

    fn count_losses(&mut self) {
        for writer in &mut self.writers {
            let ms = writer.more_ms(writer.monitor.underrun());
            self.underruns += u64::from(ms > 0);
            self.underrun_ms += ms;
            self.untold_ms += ms;
        }
        for (_, reader) in &mut self.readers {
            self.reader_overflow_ms += reader.more_ms(reader.monitor.overrun());
        }
    }

    pub fn send_dtmf(&mut self, digit: char) {
        if let Some(rtp) = &mut self.rtp {
            rtp.send_dtmf(digit);
        }
    }

    fn name(&mut self, what: &str) -> String {
        self.ports += 1;
        format!("session/{}/{what}/{}", self.view.session.0, self.ports)
    }

    /// Lets the peer (and the recording's local side) hear a source.
    pub fn hear(&mut self, source: SourceId, graph: &mut Graph, now: Instant) {
        let sinks = [Some(self.encoder), self.recorded(source)];
        for sink in sinks.into_iter().flatten() {
            let _ = graph.connect(source, sink, self.gain(), now);
        }
        if !self.heard.contains(&source) {
            self.heard.push(source);
        }
    }

    pub fn stop_hearing(&mut self, source: SourceId, graph: &mut Graph, now: Instant) {
        let sinks = [Some(self.encoder), self.recorded(source)];
        for sink in sinks.into_iter().flatten() {
            let _ = graph.disconnect(source, sink, now);
        }
        self.forget_source(source);
    }

    /// The source is gone from the graph, and with it its connections.
    pub fn forget_source(&mut self, source: SourceId) {
        self.heard.retain(|heard| *heard != source);
        self.own.retain(|own| *own != source);
        if self.writers.iter().any(|writer| writer.port == source) {
            self.count_losses();
            self.writers.retain(|writer| writer.port != source);
        }
        if self.tone == Some(source) {
            self.tone = None;
        }
    }

    fn gain(&self) -> f32 {
        if self.held || self.view.muted() { 0.0 } else { 1.0 }
    }

    /// Silences everything the peer (and the recording's local side) hears, or ends that. Players and writers go on.
    pub fn set_muted(&mut self, muted: bool, graph: &mut Graph, now: Instant) {
        self.view.set_muted(muted);
        self.set_gains(graph, now);
    }

    /// The same for a call we hold, whatever the application mutes.
    pub fn set_held(&mut self, held: bool, graph: &mut Graph, now: Instant) {
        self.held = held;
        self.set_gains(graph, now);
    }

    fn set_gains(&mut self, graph: &mut Graph, now: Instant) {
        for source in self.heard.clone() {
            self.hear(source, graph, now);
        }
    }

    /// Adds a source that the peer hears; with `monitor` its underruns are counted.
    pub fn add_source(
        &mut self,
        source: Box<dyn Source>,
        monitor: Option<Monitor>,
        graph: &mut Graph,
        now: Instant,
    ) -> Option<SourceId> {
        let (name, rate) = (self.name("source"), source.rate());
        let source = graph.add_source(&name, source, false).ok()?;
        self.own.push(source);
        self.writers.extend(monitor.map(|monitor| Watched::new(source, monitor, rate)));
        self.hear(source, graph, now);
        Some(source)
    }

    pub fn set_tone(&mut self, tone: Option<Box<dyn Source>>, graph: &mut Graph, now: Instant) {
        if let Some(old) = self.tone.take() {
            let _ = graph.remove_source(old, now);
            self.forget_source(old);
        }
        self.tone = tone.and_then(|tone| self.add_source(tone, None, graph, now));
    }

    /// Adds a sink that hears the peer.
    pub fn add_reader(&mut self, id: PortId, sink: Box<dyn Sink>, monitor: Monitor, graph: &mut Graph, now: Instant) {
        let (name, rate) = (self.name("reader"), sink.rate());
        if let Ok(sink) = graph.add_sink(&name, sink) {
            let _ = graph.connect(self.remote, sink, 1.0, now);
            self.readers.push((id, Watched::new(sink, monitor, rate)));
        }
    }

    pub fn remove_reader(&mut self, id: PortId, graph: &mut Graph, now: Instant) {
        self.count_losses();
        self.readers.retain(|(reader, watched)| {
            if *reader == id {
                let _ = graph.remove_sink(watched.port, now);
            }
            *reader != id
        });
    }

    /// Where a recording hears what the peer is to hear. What the peer says itself (echo) is in a mix already.
    fn recorded(&self, source: SourceId) -> Option<SinkId> {
        let recording = self.recording.as_ref()?;
        (recording.remote != recording.local || source != self.remote).then_some(recording.local)
    }

    /// Lets a recording hear both parties.
    pub fn record(&mut self, ports: RecordingPorts, graph: &mut Graph, now: Instant) -> Result<(), GraphError> {
        self.stop_recording(graph, now);
        let RecordingPorts { sinks, control, .. } = ports;
        let name = self.name("recording");
        let (remote, local) = match sinks {
            RecorderSinks::Mix(sink) => {
                let sink = graph.add_sink(&name, Box::new(sink))?;
                (sink, sink)
            }
            RecorderSinks::Stereo { remote, local } => {
                let remote = graph.add_sink(&name, Box::new(remote))?;
                let name = self.name("recording");
                (remote, graph.add_sink(&name, Box::new(local))?)
            }
        };
        self.recording = Some(Recording { remote, local, control });
        let _ = graph.connect(self.remote, remote, 1.0, now);
        for source in self.heard.clone() {
            self.hear(source, graph, now);
        }
        Ok(())
    }

    pub fn pause_recording(&mut self, paused: bool) {
        match &self.recording {
            Some(recording) if paused => recording.control.pause(),
            Some(recording) => recording.control.resume(),
            None => {}
        }
    }

    /// Takes the recorder's ends out of the graph: dropping them tells the disk thread to finish the file.
    pub fn stop_recording(&mut self, graph: &mut Graph, now: Instant) {
        if let Some(recording) = self.recording.take() {
            let _ = graph.remove_sink(recording.remote, now);
            let _ = graph.remove_sink(recording.local, now);
        }
    }

    pub fn statistics(&self) -> AudioStatistics {
        let params = self.rtp.as_ref().map(RtpSession::params);
        AudioStatistics {
            rtp: self.rtp.as_ref().map(RtpSession::statistics).unwrap_or_default(),
            codec: params.map(|params| params.send.codec),
            srtp_suite: params.and_then(|params| params.srtp).map(|srtp| srtp.suite.name()),
            underruns: self.underruns,
            underrun_ms: self.underrun_ms,
            reader_overflow_ms: self.reader_overflow_ms,
        }
    }

    pub fn take_trace(&mut self) -> Vec<PacketTrace> {
        self.rtp.as_mut().map(RtpSession::take_trace).unwrap_or_default()
    }

    /// Says goodbye (RTCP BYE), leaves the graph and leaves the last numbers with the handles. The sockets leave the poll
    /// when they are closed.
    pub fn close(mut self, graph: &mut Graph, now: Instant, counters: &ThreadCounters) {
        self.stop_recording(graph, now);
        self.set_tone(None, graph, now);
        self.count_losses();
        for (_, reader) in std::mem::take(&mut self.readers) {
            let _ = graph.remove_sink(reader.port, now);
        }
        for source in std::mem::take(&mut self.own) {
            let _ = graph.remove_source(source, now); // dropping it tells whoever waits for its end
        }
        let _ = graph.remove_sink(self.encoder, now);
        let _ = graph.remove_source(self.remote, now);
        if let Some(rtp) = &mut self.rtp {
            rtp.close(now);
            transmit(rtp, &self.rtp_socket, &self.rtcp_socket, counters);
        }
        let (statistics, trace) = (self.statistics(), self.take_trace());
        self.view.close(statistics, trace);
    }
}

fn transmit(rtp: &mut RtpSession, rtp_socket: &UdpSocket, rtcp_socket: &UdpSocket, counters: &ThreadCounters) {
    while let Some((channel, to, packet)) = rtp.poll_transmit() {
        let socket = match channel {
            Channel::Rtp => rtp_socket,
            Channel::Rtcp => rtcp_socket,
        };
        match socket.send_to(packet, to) {
            Ok(_) => counters.packets_sent.add(1),
            Err(_) => counters.packets_dropped.add(1),
        }
    }
}
