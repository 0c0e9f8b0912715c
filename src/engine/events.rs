//! The queue of events to the application: unbounded, so that none is ever dropped, and watched.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};

use super::TimedEvent;
use super::counters::Counter;
use super::stats::EventQueueStats;
use crate::event::{Event, EventKind};

/// Above this many waiting events the application is told (log and counter) that it lags (ruling C2).
const LAG_LIMIT: usize = 10_000;

enum Entry {
    Event(TimedEvent),
    Wake,
}

pub(super) struct EventQueue {
    sender: Sender<Entry>,
    receiver: Receiver<Entry>,
    ended: AtomicBool,
    high_water: AtomicUsize,
    lagging: AtomicBool,
    posted: Counter,
    lag_warnings: Counter,
}

impl EventQueue {
    pub fn new() -> Self {
        let (sender, receiver) = unbounded();
        Self {
            sender,
            receiver,
            ended: AtomicBool::new(false),
            high_water: AtomicUsize::new(0),
            lagging: AtomicBool::new(false),
            posted: Counter::default(),
            lag_warnings: Counter::default(),
        }
    }

    pub fn post(&self, event: Event) {
        self.post_at(event, SystemTime::now());
    }

    pub fn post_at(&self, event: Event, at: SystemTime) {
        self.posted.add(1);
        let _ = self.sender.send(Entry::Event(TimedEvent { at, event })); // we hold the receiver: it cannot fail
        let depth = self.receiver.len();
        self.high_water.fetch_max(depth, Relaxed);
        if depth <= LAG_LIMIT / 2 {
            self.lagging.store(false, Relaxed);
        } else if depth > LAG_LIMIT && !self.lagging.swap(true, Relaxed) {
            self.lag_warnings.add(1);
            tracing::warn!(depth, "the application is slow: events wait");
        }
    }

    pub fn post_engine(&self, kind: EventKind) {
        self.post(Event { sender: crate::event::Sender::Engine, snapshot: None, kind });
    }

    pub fn wake(&self) {
        let _ = self.sender.send(Entry::Wake);
    }

    /// Nothing will be posted any more.
    pub fn end(&self) {
        self.ended.store(true, SeqCst);
        self.wake();
    }

    pub fn next(&self, max: usize, timeout: Duration) -> Vec<TimedEvent> {
        let mut batch = Vec::new();
        if max == 0 {
            return batch;
        }
        match self.receiver.try_recv() {
            Ok(Entry::Event(event)) => batch.push(event),
            Ok(Entry::Wake) | Err(TryRecvError::Disconnected) => return batch,
            Err(TryRecvError::Empty) if self.ended.load(SeqCst) => return batch,
            Err(TryRecvError::Empty) => {
                let deadline = Instant::now().checked_add(timeout);
                let entry = match deadline {
                    Some(deadline) => self.receiver.recv_deadline(deadline).ok(),
                    None => self.receiver.recv().ok(),
                };
                match entry {
                    Some(Entry::Event(event)) => batch.push(event),
                    Some(Entry::Wake) | None => return batch,
                }
            }
        }
        while batch.len() < max {
            match self.receiver.try_recv() {
                Ok(Entry::Event(event)) => batch.push(event),
                Ok(Entry::Wake) => {
                    // The caller returns with this batch anyway; only the end has to be seen again.
                    break;
                }
                Err(_) => break,
            }
        }
        batch
    }

    pub fn stats(&self) -> EventQueueStats {
        EventQueueStats {
            depth: self.receiver.len(),
            high_water: self.high_water.load(Relaxed),
            posted: self.posted.get(),
            lag_warnings: self.lag_warnings.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(count: usize) -> EventQueue {
        let queue = EventQueue::new();
        for _ in 0..count {
            queue.post_engine(EventKind::EngineWillStart);
        }
        queue
    }

    #[test]
    fn batches_keep_to_the_maximum_and_lose_nothing() {
        let queue = queue_of(25);
        let sizes: Vec<_> = (0..4).map(|_| queue.next(10, Duration::ZERO).len()).collect();
        assert_eq!(sizes, [10, 10, 5, 0]);
    }

    #[test]
    fn a_wake_interrupts_the_wait_and_the_end_never_waits() {
        let queue = EventQueue::new();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.next(10, Duration::from_secs(60)));
            queue.wake();
            assert!(waiting.join().expect("the waiter lives").is_empty());
        });
        queue.post_engine(EventKind::EngineDidEnd);
        queue.end();
        assert_eq!(queue.next(10, Duration::from_secs(60)).len(), 1);
        assert!(queue.next(10, Duration::from_secs(60)).is_empty());
        assert!(queue.next(10, Duration::from_secs(60)).is_empty());
    }

    #[test]
    fn lag_is_counted_once_until_it_is_caught_up() {
        let queue = queue_of(LAG_LIMIT + 100);
        assert_eq!(queue.stats().lag_warnings, 1);
        queue.next(usize::MAX, Duration::ZERO);
        queue.post_engine(EventKind::EngineWillStart);
        for _ in 0..LAG_LIMIT + 1 {
            queue.post_engine(EventKind::EngineWillStart);
        }
        assert_eq!(queue.stats().lag_warnings, 2);
    }
}
