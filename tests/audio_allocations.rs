//! The 20 ms path of audio allocates nothing: codecs, graph, rate conversion, rings.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use sipwire::audio::codec::{Decoder, Encoder};
use sipwire::audio::graph::Graph;
use sipwire::audio::ports::{ring_sink, ring_source};
use sipwire::media::CodecKind;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands every call on to the system's allocator unchanged; counting touches no heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and frees of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn codecs_allocate_nothing_per_frame() {
    for codec in CodecKind::ALL {
        let (mut encoder, mut decoder) = (Encoder::new(codec).unwrap(), Decoder::new(codec).unwrap());
        let frame: Vec<i16> = (0..codec.sample_rate() as i32 / 50).map(|n| (n * 37 % 20_000) as i16).collect();
        let (mut payload, mut out) = ([0; 1500], [0; 5_760]);
        let count = allocations(|| {
            encoder.set_loss(10);
            for _ in 0..20 {
                let length = encoder.encode(&frame, &mut payload).unwrap();
                decoder.decode(&payload[..length], &mut out).unwrap();
                decoder.conceal(Some(&payload[..length]), &mut out[..frame.len()]);
                let _ = decoder.decode(&[0xff; 2], &mut out[..1]);
            }
        });
        assert_eq!(count, 0, "{codec}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn a_tick_of_the_graph_allocates_nothing() {
    let start = Instant::now();
    let mut graph = Graph::new();
    let remote = graph.add_external_source("session/1/remote", 8_000).unwrap();
    let local = graph.add_external_sink("session/1/local", 8_000).unwrap();
    let (mut writer, source) = ring_source(16_000, 400);
    let writer_port = graph.add_source("session/1/writer", Box::new(source), false).unwrap();
    let (sink, mut reader) = ring_sink(48_000, 400);
    let reader_port = graph.add_sink("session/1/reader", Box::new(sink)).unwrap();
    for (source, sink) in [(remote, local), (writer_port, local), (remote, reader_port)] {
        graph.connect(source, sink, 0.7, start).unwrap();
    }
    graph.source_meter(remote).unwrap();
    let (frame, mut read) = ([1_000; 320], [0; 960]);
    writer.push(&[0]); // arc-swap keeps a node for each thread, made on its first use
    let count = allocations(|| {
        for n in 0..100 {
            writer.push(&frame);
            graph.put_source_frame(remote, &frame[..160]).unwrap();
            graph.tick(start + n * Duration::from_millis(20));
            assert_eq!(reader.pop(&mut read), 960);
            assert!(graph.sink_frame(local).unwrap().1);
        }
    });
    assert_eq!(count, 0);
}
