//! A bounded, lock-free ring of samples between two threads.
//!
//! One side writes, the other reads; neither waits, locks or allocates. The read position moves by compare-and-swap, so
//! the writing side may take back what was not read yet ([`Producer::clear`]) or push out the oldest
//! ([`Producer::push_dropping`]), and both sides still know exactly how much was read. Who wants to wait leaves a
//! [`Waker`] and looks again after it was woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI16, AtomicU64, Ordering};
use std::task::Waker;

use arc_swap::ArcSwapOption;
use atomic_waker::AtomicWaker;

/// Who to wake about one direction: one waiter for the next time, and one for every time.
#[derive(Debug, Default)]
struct Wakers {
    next: AtomicWaker,
    every: ArcSwapOption<Waker>,
}

impl Wakers {
    fn wake(&self) {
        self.next.wake();
        if let Some(waker) = self.every.load().as_ref() {
            waker.wake_by_ref();
        }
    }
}

#[derive(Debug)]
struct Shared {
    samples: Box<[AtomicI16]>,
    /// Positions since the start; `written - read` samples wait, at most `samples.len()`.
    written: AtomicU64,
    read: AtomicU64,
    overrun: AtomicU64,
    underrun: AtomicU64,
    producer_gone: AtomicBool,
    consumer_gone: AtomicBool,
    data: Wakers,
    space: Wakers,
}

impl Shared {
    fn queued(&self) -> usize {
        // `read` first: a position read later can only be larger, so the difference is never negative.
        let read = self.read.load(Ordering::Acquire);
        let queued = self.written.load(Ordering::Acquire).saturating_sub(read);
        (queued as usize).min(self.samples.len())
    }

    /// The two stretches of the ring that hold `count` samples from `position` on.
    fn stretches(&self, position: u64, count: usize) -> (&[AtomicI16], &[AtomicI16]) {
        let start = (position % self.samples.len() as u64) as usize;
        let first = count.min(self.samples.len() - start);
        (&self.samples[start..start + first], &self.samples[..count - first])
    }
}

/// Makes a ring for `capacity` samples (at least one).
pub fn ring(capacity: usize) -> (Producer, Consumer) {
    let shared = Arc::new(Shared {
        samples: (0..capacity.max(1)).map(|_| AtomicI16::new(0)).collect(),
        written: AtomicU64::new(0),
        read: AtomicU64::new(0),
        overrun: AtomicU64::new(0),
        underrun: AtomicU64::new(0),
        producer_gone: AtomicBool::new(false),
        consumer_gone: AtomicBool::new(false),
        data: Wakers::default(),
        space: Wakers::default(),
    });
    (Producer { shared: Arc::clone(&shared), cleared_at: 0 }, Consumer { shared })
}

/// What became of the samples written since the last clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Samples the other side had read.
    pub played: u64,
    /// Samples taken back.
    pub dropped: u64,
}

/// The writing side. Dropping it ends the stream: the reader gets what is left.
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    cleared_at: u64,
}

impl Producer {
    /// Writes what fits and returns how much that was; the rest counts as overrun only if the caller says so
    /// ([`Self::count_overrun`]).
    pub fn push(&mut self, samples: &[i16]) -> usize {
        let written = self.shared.written.load(Ordering::Relaxed); // ours alone
        let free = self.shared.samples.len() - self.shared.queued();
        let count = samples.len().min(free);
        self.write(written, &samples[..count]);
        count
    }

    /// Writes all of `samples` (of a longer slice, the end), pushing out the oldest; returns how many samples were lost
    /// that way, which are counted as overrun.
    pub fn push_dropping(&mut self, samples: &[i16]) -> usize {
        let capacity = self.shared.samples.len();
        let too_many = samples.len().saturating_sub(capacity);
        let samples = &samples[too_many..];
        let written = self.shared.written.load(Ordering::Relaxed) + too_many as u64;
        let keep_from = (written + samples.len() as u64).saturating_sub(capacity as u64);
        let mut read = self.shared.read.load(Ordering::Acquire);
        let mut lost = 0;
        // Before overwriting: whoever reads these samples now finds its own swap fail and starts again.
        while read < keep_from {
            match self.shared.read.compare_exchange_weak(read, keep_from, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    lost = (keep_from - read) as usize;
                    break;
                }
                Err(moved) => read = moved,
            }
        }
        self.count_overrun(lost);
        self.write(written, samples);
        lost
    }

    fn write(&mut self, written: u64, samples: &[i16]) {
        if samples.is_empty() {
            return;
        }
        let (first, second) = self.shared.stretches(written, samples.len());
        for (slot, &sample) in first.iter().chain(second).zip(samples) {
            slot.store(sample, Ordering::Relaxed);
        }
        self.shared.written.store(written + samples.len() as u64, Ordering::Release);
        self.shared.data.wake();
    }

    /// Takes back everything not read yet and says how much of what was written since the last clear had been read.
    pub fn clear(&mut self) -> Cleared {
        let written = self.shared.written.load(Ordering::Relaxed);
        let read = self.shared.read.swap(written, Ordering::AcqRel); // the reader only ever moves it up to `written`
        let cleared = Cleared { played: read.saturating_sub(self.cleared_at), dropped: written - read };
        self.cleared_at = written;
        self.shared.space.wake();
        cleared
    }

    /// Samples that could be written now.
    pub fn free(&self) -> usize {
        self.shared.samples.len() - self.shared.queued()
    }

    /// Samples waiting to be read.
    pub fn queued(&self) -> usize {
        self.shared.queued()
    }

    /// Samples read, taken back or pushed out so far.
    pub fn position(&self) -> u64 {
        self.shared.read.load(Ordering::Acquire)
    }

    /// Adds to the count of lost samples.
    pub fn count_overrun(&self, samples: usize) {
        self.shared.overrun.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// Has `waker` woken once when something was read (or the reader went). Register first, then look, then wait.
    pub fn register(&self, waker: &Waker) {
        self.shared.space.next.register(waker);
    }

    /// Has `waker` woken every time something was read (or the reader went), until replaced.
    pub fn set_waker(&self, waker: Option<Waker>) {
        self.shared.space.every.store(waker.map(Arc::new));
    }

    /// Whether nobody will read any more.
    pub fn is_closed(&self) -> bool {
        self.shared.consumer_gone.load(Ordering::Acquire)
    }

    /// A handle for looking only.
    pub fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.shared))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.producer_gone.store(true, Ordering::Release);
        self.shared.data.wake();
    }
}

/// The reading side.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
}

impl Consumer {
    /// Reads up to `out.len()` samples into its start; returns how many.
    pub fn pop(&mut self, out: &mut [i16]) -> usize {
        self.pop_positioned(out).1
    }

    /// As [`Self::pop`], with the position of the first sample in the stream: after a push that dropped, it jumps.
    pub fn pop_positioned(&mut self, out: &mut [i16]) -> (u64, usize) {
        loop {
            let read = self.shared.read.load(Ordering::Acquire);
            let written = self.shared.written.load(Ordering::Acquire);
            // The writer may have pushed `read` on between the two loads; then the swap below fails.
            let count = (written.saturating_sub(read) as usize).min(out.len()).min(self.shared.samples.len());
            if count == 0 {
                return (read, 0);
            }
            let (first, second) = self.shared.stretches(read, count);
            for (sample, slot) in out.iter_mut().zip(first.iter().chain(second)) {
                *sample = slot.load(Ordering::Relaxed);
            }
            // Release: the loads above happen before a writer sees the room. A failed swap means the writer took these
            // samples away meanwhile, and what was copied may be torn. It does so at most once a frame.
            let next = read + count as u64;
            if self.shared.read.compare_exchange(read, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.shared.space.wake();
                return (read, count);
            }
        }
    }

    /// Samples waiting to be read.
    pub fn queued(&self) -> usize {
        self.shared.queued()
    }

    /// Samples read, taken back or pushed out so far: the place in the stream of the next one, gaps counted.
    pub fn position(&self) -> u64 {
        self.shared.read.load(Ordering::Acquire)
    }

    /// Samples written so far.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }

    /// Adds to the count of samples that were missing when they were due.
    pub fn count_underrun(&self, samples: usize) {
        self.shared.underrun.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// Has `waker` woken once when something was written (or the writer went). Register first, then look, then wait.
    pub fn register(&self, waker: &Waker) {
        self.shared.data.next.register(waker);
    }

    /// Has `waker` woken every time something was written (or the writer went), until replaced.
    pub fn set_waker(&self, waker: Option<Waker>) {
        self.shared.data.every.store(waker.map(Arc::new));
    }

    /// Whether nothing will be written any more; what is queued can still be read.
    pub fn is_closed(&self) -> bool {
        self.shared.producer_gone.load(Ordering::Acquire)
    }

    /// A handle for looking only.
    pub fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.shared))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.consumer_gone.store(true, Ordering::Release);
        self.shared.space.wake();
    }
}

/// Looks at a ring without being part of it.
#[derive(Clone, Debug)]
pub struct Monitor(Arc<Shared>);

impl Monitor {
    /// Samples waiting to be read.
    pub fn queued(&self) -> usize {
        self.0.queued()
    }

    /// Samples lost because the ring was full.
    pub fn overrun(&self) -> u64 {
        self.0.overrun.load(Ordering::Relaxed)
    }

    /// Samples missing when they were due.
    pub fn underrun(&self) -> u64 {
        self.0.underrun.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn pop(consumer: &mut Consumer, most: usize) -> Vec<i16> {
        let mut out = vec![0; most];
        let count = consumer.pop(&mut out);
        out.truncate(count);
        out
    }

    #[test]
    fn samples_come_out_in_order_across_the_wrap() {
        let (mut producer, mut consumer) = ring(5);
        assert_eq!(producer.push(&[1, 2, 3]), 3);
        assert_eq!(pop(&mut consumer, 2), [1, 2]);
        assert_eq!(producer.push(&[4, 5, 6, 7, 8]), 4, "only what fits");
        assert_eq!((producer.queued(), producer.free()), (5, 0));
        assert_eq!(pop(&mut consumer, 9), [3, 4, 5, 6, 7]);
        assert_eq!(pop(&mut consumer, 9), [0i16; 0]);
        assert_eq!((consumer.position(), consumer.written()), (7, 7));
    }

    #[test]
    fn dropping_keeps_the_newest_and_counts() {
        let (mut producer, mut consumer) = ring(4);
        assert_eq!(producer.push_dropping(&[1, 2, 3]), 0);
        assert_eq!(producer.push_dropping(&[4, 5, 6]), 2);
        assert_eq!(pop(&mut consumer, 9), [3, 4, 5, 6]);
        assert_eq!(producer.push_dropping(&[7, 8, 9, 10, 11, 12]), 2);
        assert_eq!(consumer.monitor().overrun(), 4);
        let mut out = [0; 3];
        assert_eq!((consumer.pop_positioned(&mut out), out), ((8, 3), [9, 10, 11]), "the position jumped");
    }

    #[test]
    fn clear_says_what_was_played_and_what_was_not() {
        let (mut producer, mut consumer) = ring(10);
        producer.push(&[1, 2, 3, 4, 5]);
        pop(&mut consumer, 2);
        assert_eq!(producer.clear(), Cleared { played: 2, dropped: 3 });
        assert_eq!(producer.clear(), Cleared::default());
        producer.push(&[6, 7]);
        assert_eq!(pop(&mut consumer, 9), [6, 7]);
        assert_eq!(producer.clear(), Cleared { played: 2, dropped: 0 });
    }

    #[test]
    fn each_side_wakes_the_other_and_tells_when_it_goes() {
        let (mut producer, mut consumer) = ring(4);
        let (data, space) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let woken = |counter: &Counter| counter.0.load(Ordering::SeqCst);
        consumer.register(&data.clone().into());
        producer.register(&space.clone().into());
        producer.push(&[]);
        assert_eq!(woken(&data), 0, "nothing came");
        producer.push(&[1]);
        producer.push(&[2]);
        assert_eq!(woken(&data), 1, "once for each registration");
        pop(&mut consumer, 1);
        assert_eq!(woken(&space), 1);
        consumer.set_waker(Some(space.clone().into()));
        producer.push(&[3]);
        producer.push(&[4]);
        assert_eq!(woken(&space), 3, "every time");
        consumer.set_waker(None);
        pop(&mut consumer, 2);
        consumer.register(&data.clone().into());
        drop(producer);
        assert!(consumer.is_closed());
        assert_eq!((woken(&data), pop(&mut consumer, 9).as_slice()), (2, [4].as_slice()));

        let (producer, consumer) = ring(4);
        producer.register(&space.clone().into());
        drop(consumer);
        assert_eq!((woken(&space), producer.is_closed()), (4, true));
    }

    /// A counting stream through a small ring, read at the same time: nothing lost, doubled or out of order.
    #[test]
    fn two_threads_lose_nothing() {
        const TOTAL: usize = 300_000;
        let (mut producer, mut consumer) = ring(64);
        let writer = thread::spawn(move || {
            let mut next = 0usize;
            while next < TOTAL {
                let chunk: Vec<i16> = (next..(next + 37).min(TOTAL)).map(|n| n as i16).collect();
                match producer.push(&chunk) {
                    0 => thread::yield_now(),
                    count => next += count,
                }
            }
        });
        let (mut seen, mut out) = (0usize, [0; 50]);
        while seen < TOTAL {
            let count = consumer.pop(&mut out);
            for &sample in &out[..count] {
                assert_eq!(sample, seen as i16);
                seen += 1;
            }
            if count == 0 {
                thread::yield_now();
            }
        }
        writer.join().unwrap();
    }

    /// The writer pushes out and clears while the reader reads: every block read is in one piece, and read, cleared and
    /// pushed-out samples add up to all that was written.
    #[test]
    fn two_threads_account_for_every_sample() {
        const ROUNDS: usize = 20_000;
        let (mut producer, mut consumer) = ring(100);
        let writer = thread::spawn(move || {
            let (mut next, mut lost) = (0usize, 0u64);
            for round in 0..ROUNDS {
                let chunk: Vec<i16> = (next..next + 30).map(|n| (n % 30_000) as i16).collect();
                next += 30;
                lost += producer.push_dropping(&chunk) as u64;
                if round % 7 == 0 {
                    lost += producer.clear().dropped;
                }
                if round % 5 == 0 {
                    thread::yield_now();
                }
            }
            (next as u64, lost)
        });
        let (mut read, mut out) = (0u64, [0; 40]);
        loop {
            let ended = consumer.is_closed();
            let count = consumer.pop(&mut out);
            read += count as u64;
            for pair in out[..count].windows(2) {
                assert_eq!(pair[1], (pair[0] + 1) % 30_000, "torn block");
            }
            if count == 0 && ended {
                break;
            }
        }
        let (written, lost) = writer.join().unwrap();
        assert_eq!(read + lost, written);
    }
}
