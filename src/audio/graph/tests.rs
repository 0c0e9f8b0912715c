use std::sync::Mutex;

use super::*;

/// Gives its frames one after the other, then silence; notes when it is started and stopped.
struct Script {
    rate: u32,
    frames: VecDeque<Vec<i16>>,
    log: Arc<Mutex<Vec<&'static str>>>,
}

impl Source for Script {
    fn rate(&self) -> u32 {
        self.rate
    }
    fn pull(&mut self, out: &mut [i16], _now: Instant) -> bool {
        self.log.lock().unwrap().push("pull");
        let Some(frame) = self.frames.pop_front() else { return false };
        out.copy_from_slice(&frame);
        true
    }
    fn start(&mut self, _now: Instant) {
        self.log.lock().unwrap().push("start");
    }
    fn stop(&mut self, _now: Instant) {
        self.log.lock().unwrap().push("stop");
    }
    fn is_finished(&self) -> bool {
        self.frames.is_empty()
    }
}

/// What a sink was given: the first sample of each frame, its length, and whether it was active.
type Heard = Arc<Mutex<Vec<(i16, usize, bool)>>>;

struct Ear(u32, Heard);

impl Sink for Ear {
    fn rate(&self) -> u32 {
        self.0
    }
    fn push(&mut self, frame: &[i16], active: bool, _now: Instant) {
        self.1.lock().unwrap().push((frame[0], frame.len(), active));
    }
}

fn script(rate: u32, values: &[i16]) -> (Box<Script>, Arc<Mutex<Vec<&'static str>>>) {
    let log = Arc::default();
    let frames = values.iter().map(|&v| vec![v; rate as usize / 50]).collect();
    (Box::new(Script { rate, frames, log: Arc::clone(&log) }), log)
}

#[expect(clippy::disallowed_methods, reason = "any instant will do: nothing here measures time")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_sink_hears_the_sum_of_its_connections_with_their_gains() {
    let now = now();
    let mut graph = Graph::new();
    let a = graph.add_external_source("a", 8_000).unwrap();
    let b = graph.add_external_source("b", 8_000).unwrap();
    let sink = graph.add_external_sink("sink", 8_000).unwrap();
    let hear = |graph: &mut Graph, put: &[(SourceId, i16)]| {
        for &(id, value) in put {
            graph.put_source_frame(id, &[value; 160]).unwrap();
        }
        graph.tick(now);
        let (frame, active) = graph.sink_frame(sink).unwrap();
        assert!(frame.len() == 160 && frame.iter().all(|&s| s == frame[0]));
        (frame[0], active)
    };
    assert_eq!(hear(&mut graph, &[(a, 100)]), (0, false), "not connected");
    graph.connect(a, sink, 1.0, now).unwrap();
    assert_eq!(hear(&mut graph, &[(a, -32_768), (b, 7)]), (-32_768, true), "one at unity: exact");
    graph.connect(b, sink, 1.0, now).unwrap();
    assert_eq!(hear(&mut graph, &[(a, 1_000), (b, -300)]), (700, true));
    graph.connect(b, sink, 0.5, now).unwrap();
    assert_eq!(hear(&mut graph, &[(a, 1_000), (b, -300)]), (850, true));
    assert_eq!(hear(&mut graph, &[(b, 300)]), (150, true), "a put nothing: silence");
    assert_eq!(hear(&mut graph, &[]), (0, false));
    graph.connect(b, sink, 0.0, now).unwrap();
    assert_eq!(hear(&mut graph, &[(b, 300)]), (0, false), "muted");
    graph.disconnect(a, sink, now).unwrap();
    graph.disconnect(a, sink, now).unwrap();
    assert_eq!(hear(&mut graph, &[(a, 300)]), (0, false));
}

#[test]
fn loud_sums_bend_instead_of_wrapping() {
    assert_eq!((soft_clip(24_576), soft_clip(-24_576), soft_clip(0)), (24_576, -24_576, 0));
    let mut last = 24_576;
    for sum in (24_576..2_000_000).step_by(100) {
        let clipped = soft_clip(sum);
        assert!(clipped >= last && soft_clip(-sum) == -clipped);
        last = clipped;
    }
    assert!(last > 32_700);
}

#[test]
fn a_source_is_pulled_once_a_tick_from_its_first_sink_to_its_last() {
    let now = now();
    let mut graph = Graph::new();
    let (source, log) = script(8_000, &[1; 9]);
    let taken = |log: &Mutex<Vec<&'static str>>| std::mem::take(&mut *log.lock().unwrap());
    let source = graph.add_source("source", source, false).unwrap();
    let sinks = ["one", "two"].map(|name| graph.add_sink(name, Box::new(Ear(8_000, Heard::default()))).unwrap());
    graph.tick(now);
    assert!(taken(&log).is_empty() && !graph.is_needed(source));
    graph.connect(source, sinks[0], 1.0, now).unwrap();
    graph.connect(source, sinks[1], 1.0, now).unwrap();
    graph.tick(now);
    assert_eq!(taken(&log), ["start", "pull"]);
    graph.disconnect(source, sinks[0], now).unwrap();
    assert!(taken(&log).is_empty() && graph.is_needed(source));
    graph.remove_sink(sinks[1], now).unwrap();
    graph.tick(now);
    assert_eq!(taken(&log), ["stop"]);
    graph.connect(source, sinks[0], 1.0, now).unwrap();
    assert!(graph.remove_source(source, now).unwrap().is_some());
    assert_eq!(taken(&log), ["start", "stop"]);
}

#[test]
fn a_drained_source_is_pulled_without_sinks_and_tells_once_when_it_is_finished() {
    let now = now();
    let mut graph = Graph::new();
    let (source, log) = script(8_000, &[1, 2]);
    let source = graph.add_source("source", source, true).unwrap();
    for _ in 0..4 {
        graph.tick(now);
    }
    assert_eq!(*log.lock().unwrap(), ["pull", "pull"], "not asked again after its end");
    assert_eq!(graph.poll_event(), Some(Event::Finished(source)));
    assert_eq!(graph.poll_event(), None);
}

#[test]
fn rates_are_converted_once_for_all_sinks_of_a_rate() {
    let now = now();
    let mut graph = Graph::new();
    let source = graph.add_external_source("call", 8_000).unwrap();
    let ears: Vec<Heard> = (0..3).map(|_| Heard::default()).collect();
    for (n, (rate, ear)) in [48_000, 48_000, 8_000].into_iter().zip(&ears).enumerate() {
        let sink = graph.add_sink(&format!("ear{n}"), Box::new(Ear(rate, Arc::clone(ear)))).unwrap();
        graph.connect(source, sink, 1.0, now).unwrap();
    }
    assert_eq!(graph.source(source).unwrap().converted.len(), 1);
    for _ in 0..5 {
        graph.put_source_frame(source, &[1_000; 160]).unwrap();
        graph.tick(now);
    }
    for _ in 0..4 {
        graph.tick(now);
    }
    let heard = ears[0].lock().unwrap();
    assert_eq!(*heard, *ears[1].lock().unwrap());
    assert!(heard.iter().all(|&(_, length, _)| length == 960));
    assert!((heard[3].0 - 1_000).abs() < 5, "{heard:?}");
    let active: Vec<bool> = heard.iter().map(|&(.., active)| active).collect();
    assert_eq!(active, [true, true, true, true, true, true, true, false, false], "a tail, then silence");
    assert_eq!(heard[8].0, 0);
    assert_eq!(ears[2].lock().unwrap()[4], (1_000, 160, true));
}

#[test]
fn an_external_port_may_change_its_rate() {
    let now = now();
    let mut graph = Graph::new();
    let source = graph.add_external_source("call", 48_000).unwrap();
    let send = graph.add_external_sink("call", 48_000).unwrap();
    let ear = Heard::default();
    let sink = graph.add_sink("ear", Box::new(Ear(8_000, Arc::clone(&ear)))).unwrap();
    graph.connect(source, sink, 1.0, now).unwrap();
    graph.connect(source, send, 1.0, now).unwrap();
    for (rate, converters) in [(48_000, 1), (8_000, 1), (16_000, 2), (16_000, 2)] {
        graph.set_source_rate(source, rate).unwrap();
        assert_eq!(graph.source(source).unwrap().converted.len(), converters, "{rate}");
        for _ in 0..5 {
            graph.put_source_frame(source, &vec![500; rate as usize / 50]).unwrap();
            graph.tick(now);
        }
        let heard = ear.lock().unwrap().last().copied().unwrap();
        assert!((heard.0 - 500).abs() < 5 && heard.1 == 160, "{heard:?}");
        assert!((graph.sink_frame(send).unwrap().0[0] - 500).abs() < 5);
    }
    graph.set_sink_rate(send, 16_000, now).unwrap();
    assert_eq!(graph.source(source).unwrap().converted.len(), 1, "only for the ear");
    graph.put_source_frame(source, &[501; 320]).unwrap();
    graph.tick(now);
    assert_eq!(graph.sink_frame(send).unwrap().0, [501; 320]);
    for rate in [0, 22_050, 96_000] {
        assert!(matches!(graph.set_source_rate(source, rate), Err(GraphError::Rate { .. })));
        assert!(matches!(graph.set_sink_rate(send, rate, now), Err(GraphError::Rate { .. })));
    }
    assert_eq!(graph.set_sink_rate(sink, 8_000, now), Err(GraphError::NotExternal));
    graph.remove_sink(sink, now).unwrap();
    graph.remove_sink(send, now).unwrap();
    assert!(graph.source(source).unwrap().converted.is_empty() && !graph.is_needed(source));
}

#[test]
fn names_are_unique_and_old_ids_are_dead() {
    let now = now();
    let mut graph = Graph::new();
    let source = graph.add_external_source("session/1/remote", 8_000).unwrap();
    assert_eq!(
        graph.add_external_source("session/1/remote", 8_000),
        Err(GraphError::NameTaken("session/1/remote".into()))
    );
    assert_eq!(graph.find_source("session/1/remote"), Some(source));
    assert!(graph.remove_source(source, now).unwrap().is_none());
    assert_eq!(graph.find_source("session/1/remote"), None);
    let again = graph.add_external_source("session/1/remote", 8_000).unwrap();
    assert_eq!((again.index, again == source), (source.index, false));
    assert_eq!(graph.put_source_frame(source, &[]), Err(GraphError::NoPort));
    assert!(graph.remove_source(source, now).is_err());
    let sink = graph.add_external_sink("session/1/local", 8_000).unwrap();
    assert_eq!(graph.connect(source, sink, 1.0, now), Err(GraphError::NoPort));
    graph.remove_sink(sink, now).unwrap();
    assert_eq!(graph.connect(again, sink, 1.0, now), Err(GraphError::NoPort));
    assert_eq!(graph.sink_frame(sink).unwrap_err(), GraphError::NoPort);
    assert_eq!(graph.sources().map(|(name, _)| name).collect::<Vec<_>>(), ["session/1/remote"]);
    assert_eq!(graph.sinks().count(), 0);
}

#[test]
fn meters_show_the_last_frame() {
    let now = now();
    let mut graph = Graph::new();
    let source = graph.add_external_source("a", 8_000).unwrap();
    let sink = graph.add_external_sink("b", 8_000).unwrap();
    graph.connect(source, sink, 0.5, now).unwrap();
    let (in_meter, out_meter) = (graph.source_meter(source).unwrap(), graph.sink_meter(sink).unwrap());
    graph.put_source_frame(source, &[-16_384; 160]).unwrap();
    graph.tick(now);
    assert_eq!(in_meter.level(), Level { rms: 16_384, peak: 16_384 });
    assert_eq!(out_meter.level(), Level { rms: 8_192, peak: 8_192 });
    assert!((in_meter.level().dbfs() + 6.02).abs() < 0.01);
    graph.tick(now);
    assert_eq!((in_meter.level(), out_meter.level()), (Level::default(), Level::default()));
    assert_eq!(Level::default().dbfs(), -127.0);
    assert_eq!(Level::of(&[i16::MIN; 3]), Level { rms: 32_768, peak: 32_768 });
}

#[test]
fn what_was_delivered_can_be_answered_in_the_same_tick() {
    let now = now();
    let mut graph = Graph::new();
    let peer = graph.add_external_source("peer", 8_000).unwrap();
    let send = graph.add_external_sink("send", 8_000).unwrap();
    let (program, mut reader) = crate::audio::ports::ring_sink(8_000, 100);
    let (mut writer, answer) = crate::audio::ports::ring_source(8_000, 100);
    let ear = graph.add_sink("program", Box::new(program)).unwrap();
    let mouth = graph.add_source("answer", Box::new(answer), false).unwrap();
    let heard = Heard::default();
    let both = graph.add_sink("both", Box::new(Ear(8_000, heard.clone()))).unwrap();
    for (source, sink) in [(peer, ear), (mouth, send), (peer, both), (mouth, both)] {
        graph.connect(source, sink, 1.0, now).unwrap();
    }
    for value in 1..=3 {
        graph.put_source_frame(peer, &[value; 160]).unwrap();
        graph.deliver(now);
        let mut frame = [0; 160];
        assert_eq!(reader.pop(&mut frame), 160, "delivered before the second half");
        writer.push(&frame);
        let late = (value == 2).then(|| {
            let late = Heard::default();
            let sink = graph.add_sink("late", Box::new(Ear(8_000, late.clone()))).unwrap();
            graph.connect(peer, sink, 1.0, now).unwrap();
            (sink, late)
        });
        graph.collect(now);
        assert_eq!((graph.sink_frame(send).unwrap().0[0], reader.queued()), (value, 0), "answered, and served once");
        if let Some((sink, late)) = late {
            assert_eq!(*late.lock().unwrap(), [(2, 160, true)], "one frame every tick from when it is added");
            graph.remove_sink(sink, now).unwrap();
        }
    }
    assert_eq!(*heard.lock().unwrap(), [(2, 160, true), (4, 160, true), (6, 160, true)], "a mix waits for the answer");
}
