//! The port graph: named sources and sinks of typed formats; sinks mix what is connected to them.
//!
//! One media thread owns a [`Graph`] and calls [`Graph::tick`] every 20 ms:
//!
//! 1. put the frames of external sources (what calls received) with [`Graph::fill_source`];
//! 2. [`Graph::tick`] pulls every other source once, converts rates and mixes into every sink;
//! 3. take the frames of external sinks (what calls send) with [`Graph::sink_frame`].
//!
//! An owner that wants programs to answer what they hear within the same tick calls the halves of the second step with
//! a pause between: [`Graph::deliver`] serves the sinks that hear external sources alone, [`Graph::collect`] the rest.
//!
//! External ports belong to the owner of the graph, who has the RTP session they stand for; all others are boxed
//! [`Source`]s and [`Sink`]s made by the thread that asked for them. A tick allocates nothing: adding, connecting and
//! changing rates does. Ports are visited in the order of their ids, so the same ticks give the same samples.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use slab::Slab;

use super::MAX_FRAME;
use super::resample::{Resampler, is_frame_rate};

/// Frames a converter still runs after its source fell silent: its delay, and then it is all zeros.
const CONVERTER_TAIL: u8 = 2;
/// One in the fixed point of gains.
const UNITY: i32 = 1 << 12;
/// The largest gain of a connection (+18 dB); with it no sum of connections can overflow.
pub const MAX_GAIN: f32 = 8.0;

/// Gives frames of mono samples, pulled once a tick while anything is connected to it.
pub trait Source: Send {
    /// Its rate, Hz; it never changes.
    fn rate(&self) -> u32;
    /// Fills one frame of `rate / 50` samples; false: it is silence and `out` need not be filled.
    fn pull(&mut self, out: &mut [i16], now: Instant) -> bool;
    /// Its first sink was connected.
    fn start(&mut self, _now: Instant) {}
    /// Its last sink was disconnected.
    fn stop(&mut self, _now: Instant) {}
    /// It will never give sound again; reported once as [`Event::Finished`].
    fn is_finished(&self) -> bool {
        false
    }
}

/// Takes frames of mono samples, one every tick from when it is added.
pub trait Sink: Send {
    /// Its rate, Hz; it never changes.
    fn rate(&self) -> u32;
    /// Takes one frame of `rate / 50` samples; `active` is false when it is silence because nothing sounds.
    fn push(&mut self, frame: &[i16], active: bool, now: Instant);
}

/// A source in its graph; never valid again after it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId {
    index: u32,
    generation: u32,
}

/// A sink in its graph; never valid again after it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkId {
    index: u32,
    generation: u32,
}

/// Why a port could not be added, connected or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("there is already a source or sink named {0:?}")]
    NameTaken(String),
    #[error(
        "{name:?} cannot run at {rate} Hz: a frame of 20 ms must be an even number of samples, at most {MAX_FRAME}"
    )]
    Rate { name: String, rate: u32 },
    #[error("the port was removed")]
    NoPort,
    #[error("the port belongs to a source or sink of its own and is not external")]
    NotExternal,
}

/// What happened in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This source will never give sound again; the owner removes it.
    Finished(SourceId),
}

/// The level of a port's last frame, for other threads to read.
#[derive(Debug, Default)]
pub struct Meter(AtomicU32);

impl Meter {
    /// RMS and peak of the last frame, 0 to 32,768.
    pub fn level(&self) -> Level {
        let packed = self.0.load(Ordering::Relaxed);
        Level { rms: (packed >> 16) as u16, peak: packed as u16 }
    }

    fn set(&self, level: Level) {
        self.0.store(u32::from(level.rms) << 16 | u32::from(level.peak), Ordering::Relaxed);
    }
}

/// How loud a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub rms: u16,
    pub peak: u16,
}

impl Level {
    /// Measures samples.
    pub fn of(frame: &[i16]) -> Self {
        let energy: u64 = frame.iter().map(|&s| u64::from(s.unsigned_abs()).pow(2)).sum();
        let peak = frame.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
        Self { rms: (energy as f64 / frame.len().max(1) as f64).sqrt().round() as u16, peak }
    }

    /// The RMS in dB below full scale; a full-scale sine is -3, silence is -127 (RFC 6464).
    pub fn dbfs(self) -> f32 {
        (20.0 * (f32::from(self.rms) / 32_768.0).log10()).max(-127.0)
    }
}

/// A frame that is there or is known to be silence.
struct Frame {
    samples: [i16; MAX_FRAME],
    length: usize,
    active: bool,
}

impl Frame {
    fn new(rate: u32) -> Self {
        Self { samples: [0; MAX_FRAME], length: rate as usize / 50, active: false }
    }

    fn samples(&self) -> &[i16] {
        &self.samples[..self.length]
    }

    fn samples_mut(&mut self) -> &mut [i16] {
        &mut self.samples[..self.length]
    }

    /// Lets somebody write the samples; what it wrote is zeroed again when it says it was silence.
    fn fill(&mut self, fill: impl FnOnce(&mut [i16]) -> bool) {
        self.active = true;
        if !fill(self.samples_mut()) {
            self.silence();
        }
    }

    fn silence(&mut self) {
        // Whoever leaves a frame inactive left zeros in it, so silence that goes on costs nothing.
        if self.active {
            self.samples_mut().fill(0);
            self.active = false;
        }
    }
}

/// A source's frame at another rate, shared by all sinks of that rate.
struct Converted {
    resampler: Resampler,
    frame: Frame,
    users: usize,
    tail: u8,
}

struct SourcePort {
    name: String,
    rate: u32,
    generation: u32,
    /// `None`: external.
    source: Option<Box<dyn Source>>,
    /// Pulled even when nothing is connected.
    drain: bool,
    finished: bool,
    /// The owner has put a frame since the last tick.
    fresh: bool,
    users: usize,
    frame: Box<Frame>,
    converted: Vec<Box<Converted>>,
    meter: Option<Arc<Meter>>,
}

struct Connection {
    source: u32,
    gain: i32,
}

struct SinkPort {
    name: String,
    rate: u32,
    generation: u32,
    /// `None`: external.
    sink: Option<Box<dyn Sink>>,
    /// It had this tick's frame in [`Graph::deliver`].
    served: bool,
    frame: Box<Frame>,
    connections: Vec<Connection>,
    meter: Option<Arc<Meter>>,
}

/// Sources, sinks and who hears whom.
pub struct Graph {
    sources: Slab<SourcePort>,
    sinks: Slab<SinkPort>,
    source_names: BTreeMap<String, SourceId>,
    sink_names: BTreeMap<String, SinkId>,
    generation: u32,
    events: VecDeque<Event>,
    sum: Box<[i32; MAX_FRAME]>,
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("sources", &self.source_names.keys())
            .field("sinks", &self.sink_names.keys())
            .finish_non_exhaustive()
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self {
            sources: Slab::new(),
            sinks: Slab::new(),
            source_names: BTreeMap::new(),
            sink_names: BTreeMap::new(),
            generation: 0,
            events: VecDeque::new(),
            sum: Box::new([0; MAX_FRAME]),
        }
    }

    /// Adds a source that is pulled while it has sinks, and with `drain` also while it has none.
    ///
    /// # Errors
    /// The name is taken or the rate makes no frame.
    pub fn add_source(&mut self, name: &str, source: Box<dyn Source>, drain: bool) -> Result<SourceId, GraphError> {
        self.new_source(name, source.rate(), Some(source), drain)
    }

    /// Adds a source whose frames the owner puts with [`Self::fill_source`].
    ///
    /// # Errors
    /// As [`Self::add_source`].
    pub fn add_external_source(&mut self, name: &str, rate: u32) -> Result<SourceId, GraphError> {
        self.new_source(name, rate, None, false)
    }

    fn new_source(
        &mut self,
        name: &str,
        rate: u32,
        source: Option<Box<dyn Source>>,
        drain: bool,
    ) -> Result<SourceId, GraphError> {
        self.check(name, rate, self.source_names.contains_key(name))?;
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.sources.insert(SourcePort {
            name: name.to_owned(),
            rate,
            generation,
            source,
            drain,
            finished: false,
            fresh: false,
            users: 0,
            frame: Box::new(Frame::new(rate)),
            converted: Vec::new(),
            meter: None,
        });
        let id = SourceId { index: index as u32, generation };
        self.source_names.insert(name.to_owned(), id);
        self.events.reserve(self.sources.len()); // each source finishes once, so a tick never has to grow this
        Ok(id)
    }

    /// Adds a sink.
    ///
    /// # Errors
    /// The name is taken or the rate makes no frame.
    pub fn add_sink(&mut self, name: &str, sink: Box<dyn Sink>) -> Result<SinkId, GraphError> {
        self.new_sink(name, sink.rate(), Some(sink))
    }

    /// Adds a sink whose frames the owner takes with [`Self::sink_frame`].
    ///
    /// # Errors
    /// As [`Self::add_sink`].
    pub fn add_external_sink(&mut self, name: &str, rate: u32) -> Result<SinkId, GraphError> {
        self.new_sink(name, rate, None)
    }

    fn new_sink(&mut self, name: &str, rate: u32, sink: Option<Box<dyn Sink>>) -> Result<SinkId, GraphError> {
        self.check(name, rate, self.sink_names.contains_key(name))?;
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.sinks.insert(SinkPort {
            name: name.to_owned(),
            rate,
            generation,
            sink,
            served: false,
            frame: Box::new(Frame::new(rate)),
            connections: Vec::new(),
            meter: None,
        });
        let id = SinkId { index: index as u32, generation };
        self.sink_names.insert(name.to_owned(), id);
        Ok(id)
    }

    fn check(&self, name: &str, rate: u32, taken: bool) -> Result<(), GraphError> {
        match (taken, is_frame_rate(rate)) {
            (true, _) => Err(GraphError::NameTaken(name.to_owned())),
            (_, false) => Err(GraphError::Rate { name: name.to_owned(), rate }),
            _ => Ok(()),
        }
    }

    /// Removes a source and its connections, and gives it back (to be dropped where that may take time). `None` inside
    /// for an external one.
    ///
    /// # Errors
    /// It is gone already.
    pub fn remove_source(&mut self, id: SourceId, now: Instant) -> Result<Option<Box<dyn Source>>, GraphError> {
        self.source(id)?;
        for (_, sink) in &mut self.sinks {
            sink.connections.retain(|connection| connection.source != id.index);
        }
        let mut port = self.sources.remove(id.index as usize);
        self.source_names.remove(&port.name);
        self.events.retain(|&Event::Finished(finished)| finished != id);
        if let (Some(source), true) = (&mut port.source, port.users > 0) {
            source.stop(now);
        }
        Ok(port.source)
    }

    /// Removes a sink and its connections, and gives it back. `None` inside for an external one.
    ///
    /// # Errors
    /// It is gone already.
    pub fn remove_sink(&mut self, id: SinkId, now: Instant) -> Result<Option<Box<dyn Sink>>, GraphError> {
        self.sink(id)?;
        let port = self.sinks.remove(id.index as usize);
        self.sink_names.remove(&port.name);
        for connection in &port.connections {
            self.release(connection.source, port.rate, now);
        }
        Ok(port.sink)
    }

    /// The source of this name.
    pub fn find_source(&self, name: &str) -> Option<SourceId> {
        self.source_names.get(name).copied()
    }

    /// The sink of this name.
    pub fn find_sink(&self, name: &str) -> Option<SinkId> {
        self.sink_names.get(name).copied()
    }

    /// All sources, by name.
    pub fn sources(&self) -> impl Iterator<Item = (&str, SourceId)> {
        self.source_names.iter().map(|(name, &id)| (name.as_str(), id))
    }

    /// All sinks, by name.
    pub fn sinks(&self) -> impl Iterator<Item = (&str, SinkId)> {
        self.sink_names.iter().map(|(name, &id)| (name.as_str(), id))
    }

    /// Lets `sink` hear `source`, `gain` times as loud (0 to [`MAX_GAIN`]). Connecting again changes the gain.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn connect(&mut self, source: SourceId, sink: SinkId, gain: f32, now: Instant) -> Result<(), GraphError> {
        self.source(source)?;
        let port = self.sink_mut(sink)?;
        let rate = port.rate;
        let gain = (gain.clamp(0.0, MAX_GAIN) * UNITY as f32).round() as i32;
        match port.connections.binary_search_by_key(&source.index, |connection| connection.source) {
            Ok(at) => port.connections[at].gain = gain,
            Err(at) => {
                port.connections.insert(at, Connection { source: source.index, gain });
                self.acquire(source.index, rate, now);
            }
        }
        Ok(())
    }

    /// Ends what [`Self::connect`] began; harmless when they are not connected.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn disconnect(&mut self, source: SourceId, sink: SinkId, now: Instant) -> Result<(), GraphError> {
        self.source(source)?;
        let port = self.sink_mut(sink)?;
        let rate = port.rate;
        if let Ok(at) = port.connections.binary_search_by_key(&source.index, |connection| connection.source) {
            port.connections.remove(at);
            self.release(source.index, rate, now);
        }
        Ok(())
    }

    /// Whether any sink hears this source.
    pub fn is_needed(&self, id: SourceId) -> bool {
        self.source(id).is_ok_and(|port| port.users > 0)
    }

    /// Lets the owner of an external source write this tick's frame (`rate / 50` samples) in place; false: it is silence
    /// and need not be written. Without a call before the tick, the frame is silence too.
    ///
    /// # Errors
    /// It is gone or not external.
    pub fn fill_source(&mut self, id: SourceId, fill: impl FnOnce(&mut [i16]) -> bool) -> Result<(), GraphError> {
        let port = self.source_mut(id)?;
        if port.source.is_some() {
            return Err(GraphError::NotExternal);
        }
        port.fresh = true;
        port.frame.fill(fill);
        Ok(())
    }

    /// Copies this tick's frame of an external source; a shorter frame is followed by silence.
    ///
    /// # Errors
    /// As [`Self::fill_source`].
    pub fn put_source_frame(&mut self, id: SourceId, frame: &[i16]) -> Result<(), GraphError> {
        self.fill_source(id, |to| {
            let length = frame.len().min(to.len());
            to[..length].copy_from_slice(&frame[..length]);
            to[length..].fill(0);
            true
        })
    }

    /// What an external sink heard in the last tick (`rate / 50` samples), and whether anything sounded.
    ///
    /// # Errors
    /// It is gone.
    pub fn sink_frame(&self, id: SinkId) -> Result<(&[i16], bool), GraphError> {
        let port = self.sink(id)?;
        Ok((port.frame.samples(), port.frame.active))
    }

    /// Changes the rate of an external source, as after a new codec.
    ///
    /// # Errors
    /// It is gone or not external, or the rate makes no frame.
    pub fn set_source_rate(&mut self, id: SourceId, rate: u32) -> Result<(), GraphError> {
        let port = self.source_mut(id)?;
        if port.source.is_some() {
            return Err(GraphError::NotExternal);
        }
        if !is_frame_rate(rate) {
            return Err(GraphError::Rate { name: port.name.clone(), rate });
        }
        if port.rate != rate {
            port.rate = rate;
            *port.frame = Frame::new(rate);
            port.fresh = false;
            // Sinks at the old rate need a converter now, and those at the new one none.
            let rates = self.rates_of_sinks(id.index).into_iter().filter(|&(to, _)| to != rate);
            let converted = rates.map(|(to, users)| Box::new(Converted::new(rate, to, users))).collect();
            self.sources[id.index as usize].converted = converted;
        }
        Ok(())
    }

    /// Changes the rate of an external sink.
    ///
    /// # Errors
    /// As [`Self::set_source_rate`].
    pub fn set_sink_rate(&mut self, id: SinkId, rate: u32, now: Instant) -> Result<(), GraphError> {
        let port = self.sink_mut(id)?;
        if port.sink.is_some() {
            return Err(GraphError::NotExternal);
        }
        if !is_frame_rate(rate) {
            return Err(GraphError::Rate { name: port.name.clone(), rate });
        }
        let old = std::mem::replace(&mut port.rate, rate);
        if old != rate {
            *port.frame = Frame::new(rate);
            let sources: Vec<u32> = port.connections.iter().map(|connection| connection.source).collect();
            for source in sources {
                self.acquire(source, rate, now); // first, so that the source is not stopped in between
                self.release(source, old, now);
            }
        }
        Ok(())
    }

    /// The level of a source's last frame, kept up to date for any thread from now on.
    ///
    /// # Errors
    /// It is gone.
    pub fn source_meter(&mut self, id: SourceId) -> Result<Arc<Meter>, GraphError> {
        Ok(Arc::clone(self.source_mut(id)?.meter.get_or_insert_default()))
    }

    /// The level of what a sink hears, likewise.
    ///
    /// # Errors
    /// It is gone.
    pub fn sink_meter(&mut self, id: SinkId) -> Result<Arc<Meter>, GraphError> {
        Ok(Arc::clone(self.sink_mut(id)?.meter.get_or_insert_default()))
    }

    /// Moves one frame from every source to every sink. Allocates nothing.
    pub fn tick(&mut self, now: Instant) {
        self.deliver(now);
        self.collect(now);
    }

    /// The first half of a tick: hands what external sources gave to the sinks that hear nothing else.
    pub fn deliver(&mut self, now: Instant) {
        for (_, port) in self.sources.iter_mut().filter(|(_, port)| port.source.is_none()) {
            if !std::mem::take(&mut port.fresh) {
                port.frame.silence();
            }
            port.finish();
        }
        for (_, port) in &mut self.sinks {
            let external = |connection: &Connection| self.sources[connection.source as usize].source.is_none();
            port.served = port.sink.is_some() && !port.connections.is_empty() && port.connections.iter().all(external);
            if port.served {
                port.serve(&self.sources, &mut self.sum, now);
            }
        }
    }

    /// The second half: pulls all other sources and serves all other sinks, also those that came since the first.
    pub fn collect(&mut self, now: Instant) {
        for (index, port) in &mut self.sources {
            let needed = port.users > 0 || port.drain;
            match &mut port.source {
                Some(source) if needed && !port.finished => {
                    port.frame.fill(|samples| source.pull(samples, now));
                    if source.is_finished() {
                        port.finished = true;
                        self.events
                            .push_back(Event::Finished(SourceId { index: index as u32, generation: port.generation }));
                    }
                }
                Some(_) => port.frame.silence(),
                None => continue,
            }
            port.finish();
        }
        for (_, port) in &mut self.sinks {
            if !std::mem::take(&mut port.served) {
                port.serve(&self.sources, &mut self.sum, now);
            }
        }
    }

    /// What happened in the ticks so far, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn source(&self, id: SourceId) -> Result<&SourcePort, GraphError> {
        let port = self.sources.get(id.index as usize);
        port.filter(|port| port.generation == id.generation).ok_or(GraphError::NoPort)
    }

    fn source_mut(&mut self, id: SourceId) -> Result<&mut SourcePort, GraphError> {
        let port = self.sources.get_mut(id.index as usize);
        port.filter(|port| port.generation == id.generation).ok_or(GraphError::NoPort)
    }

    fn sink(&self, id: SinkId) -> Result<&SinkPort, GraphError> {
        let port = self.sinks.get(id.index as usize);
        port.filter(|port| port.generation == id.generation).ok_or(GraphError::NoPort)
    }

    fn sink_mut(&mut self, id: SinkId) -> Result<&mut SinkPort, GraphError> {
        let port = self.sinks.get_mut(id.index as usize);
        port.filter(|port| port.generation == id.generation).ok_or(GraphError::NoPort)
    }

    /// The rates of the sinks that hear a source, each with their number.
    fn rates_of_sinks(&self, source: u32) -> Vec<(u32, usize)> {
        let mut rates = BTreeMap::new();
        for (_, sink) in &self.sinks {
            if sink.connections.iter().any(|connection| connection.source == source) {
                *rates.entry(sink.rate).or_insert(0) += 1;
            }
        }
        rates.into_iter().collect()
    }

    /// One more sink at `rate` hears the source.
    fn acquire(&mut self, source: u32, rate: u32, now: Instant) {
        let port = &mut self.sources[source as usize];
        port.users += 1;
        if let (1, Some(source)) = (port.users, &mut port.source) {
            source.start(now);
        }
        if rate != port.rate {
            match port.converted.iter_mut().find(|converted| converted.resampler.rates().1 == rate) {
                Some(converted) => converted.users += 1,
                None => port.converted.push(Box::new(Converted::new(port.rate, rate, 1))),
            }
        }
    }

    /// One sink at `rate` less hears the source.
    fn release(&mut self, source: u32, rate: u32, now: Instant) {
        let port = &mut self.sources[source as usize];
        port.users -= 1;
        if let (0, Some(source)) = (port.users, &mut port.source) {
            source.stop(now);
        }
        if let Some(at) = port.converted.iter().position(|converted| converted.resampler.rates().1 == rate) {
            port.converted[at].users -= 1;
            if port.converted[at].users == 0 {
                port.converted.swap_remove(at);
            }
        }
    }
}

impl SourcePort {
    /// Measures and converts the frame it has.
    fn finish(&mut self) {
        if let Some(meter) = &self.meter {
            meter.set(if self.frame.active { Level::of(self.frame.samples()) } else { Level::default() });
        }
        for converted in &mut self.converted {
            converted.run(&self.frame);
        }
    }
}

impl SinkPort {
    /// Mixes its frame and hands it over.
    fn serve(&mut self, sources: &Slab<SourcePort>, sum: &mut [i32; MAX_FRAME], now: Instant) {
        mix(sources, self, sum);
        if let Some(meter) = &self.meter {
            meter.set(if self.frame.active { Level::of(self.frame.samples()) } else { Level::default() });
        }
        if let Some(sink) = &mut self.sink {
            sink.push(self.frame.samples(), self.frame.active, now);
        }
    }
}

impl Converted {
    fn new(from: u32, to: u32, users: usize) -> Self {
        let resampler = Resampler::new(from, to).expect("the rates of ports were checked when they were added");
        Self { resampler, frame: Frame::new(to), users, tail: 0 }
    }

    fn run(&mut self, from: &Frame) {
        if from.active {
            self.tail = CONVERTER_TAIL;
        } else if self.tail == 0 {
            self.frame.silence();
            return;
        } else {
            self.tail -= 1;
        }
        self.resampler.process(from.samples(), self.frame.samples_mut());
        self.frame.active = true;
    }
}

/// Sums what is connected to a sink into its frame.
fn mix(sources: &Slab<SourcePort>, sink: &mut SinkPort, sum: &mut [i32; MAX_FRAME]) {
    let rate = sink.rate;
    let heard = |connection: &Connection| {
        let port = &sources[connection.source as usize];
        let frame = if port.rate == rate {
            &port.frame
        } else {
            let converted = port.converted.iter().find(|converted| converted.resampler.rates().1 == rate);
            &converted.expect("a connection between two rates has its converter").frame
        };
        (frame.active && connection.gain != 0).then_some((frame.samples(), connection.gain))
    };
    let mut sounding = sink.connections.iter().filter_map(heard);
    let (Some(first), second) = (sounding.next(), sounding.next()) else {
        sink.frame.silence();
        return;
    };
    let to = sink.frame.samples_mut();
    let Some(second) = second.or((first.1 != UNITY).then_some((&[], UNITY))) else {
        to.copy_from_slice(first.0); // the usual case, and bit-exact
        sink.frame.active = true;
        return;
    };
    let sum = &mut sum[..to.len()];
    sum.fill(0);
    for (samples, gain) in [first, second].into_iter().chain(sounding) {
        for (sum, &sample) in sum.iter_mut().zip(samples) {
            *sum += (i32::from(sample) * gain) >> 12;
        }
    }
    for (to, &sum) in to.iter_mut().zip(&*sum) {
        *to = soft_clip(sum);
    }
    sink.frame.active = true;
}

/// Leaves three quarters of full scale alone and bends what is louder smoothly below full scale.
fn soft_clip(sum: i32) -> i16 {
    const KNEE: i32 = 24_576;
    const ROOM: i64 = 32_767 - KNEE as i64;
    let over = i64::from(sum.abs() - KNEE);
    if over <= 0 {
        return sum as i16;
    }
    let bent = KNEE as i64 + over * ROOM / (over + ROOM);
    (if sum < 0 { -bent } else { bent }) as i16
}

#[cfg(test)]
mod tests;
