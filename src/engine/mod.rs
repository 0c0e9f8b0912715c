//! Sockets, clocks, threads and files: the only module that does I/O.
//!
//! [`Engine`] is a cheap handle; behind it run the lanes. *Signalling*: one thread with a tokio current-thread runtime
//! that owns the [`crate::ua::UserAgent`] and every SIP socket. *Media*: a few threads, each with its own poll over the
//! RTP sockets of its calls and one 20 ms tick. *Disk*: one thread that feeds players from files and recordings to
//! files. Between lanes there are only bounded queues; [`Engine::stats`] shows each.
#![allow(clippy::disallowed_methods)] // the one place with clocks and waits

mod audio;
mod call;
mod calls;
pub(crate) mod counters;
pub mod devices;
mod disk;
mod error;
mod events;
mod handle;
mod media;
mod media_thread;
mod network;
mod options;
mod resolver;
mod signalling;
mod sockets;
mod stats;
mod test_proxy;
mod trace;
pub(crate) mod transports;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use audio::{AudioFrame, AudioHandle, AudioStatistics, Bridge, FrameReader, FrameWriter, PlaySource, Playback};
pub use error::EngineError;
pub use handle::{Addresses, Engine, StopReport, TimedEvent};
pub use options::EngineOptions;
pub use stats::{DiskStats, EngineStats, EventQueueStats, MediaThreadStats, QueueStats, StreamStats, TransportStats};
pub use test_proxy::TestProxy;
pub use transports::ClientCertificates;

/// Locks; what a thread that panicked left behind is still whole, since nothing here is changed in steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
