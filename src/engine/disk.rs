//! The disk lane: one thread that feeds players from files and recordings to files.
//!
//! It looks at each feed every 50 ms; rings of a second and more stand between it and the media threads, so a slow disk
//! delays nobody. Files are opened by the thread that asks for them, so that what is wrong is told at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use super::counters::QueueCounters;
use super::media::{MediaMessage, REQUEST_TIMEOUT, ToSignalling};
use super::sockets::words;
use super::stats::DiskStats;
use super::{EngineError, lock};
use crate::audio::player::PlayerFeed;
use crate::audio::recorder::{Recorder, RecorderControl, RecorderFeed, RecorderSinks, Status, recorder};
use crate::event::SessionId;
use crate::media::{MediaEvent, RecordingLayout};

/// How often feeds are looked at: well within the 250 ms of a recording's flush and the 300 ms after which a player is due.
const INTERVAL: Duration = Duration::from_millis(50);
/// Recordings and players that may begin within one interval.
const REQUEST_LIMIT: usize = 4096;

/// A recording whose file exists and whose verb is under way.
pub(super) struct NewRecording {
    recorder: Recorder,
    path: PathBuf,
}

impl NewRecording {
    /// Creates the file; `rate` is the call's.
    ///
    /// # Errors
    /// It exists or cannot be created.
    pub fn create(path: &Path, layout: RecordingLayout, rate: u32) -> Result<Self, EngineError> {
        let recorder = recorder(path, layout, rate, Instant::now())
            .map_err(|error| EngineError::File { path: error.path.clone(), what: words(&error.error) })?;
        let path = recorder.feed.paths().first().cloned().unwrap_or_else(|| path.to_owned());
        Ok(Self { recorder, path })
    }

    /// Absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file: the verb was refused.
    pub fn discard(self) {
        let path = self.path;
        drop(self.recorder);
        let _ = std::fs::remove_file(path);
    }
}

/// A recording's ends on the media thread.
pub(super) struct RecordingPorts {
    pub path: PathBuf,
    pub sinks: RecorderSinks,
    pub control: RecorderControl,
}

/// What the disk thread is asked.
pub(super) enum DiskRequest {
    Record {
        session: SessionId,
        feed: Box<RecorderFeed>,
    },
    /// `error` gets what goes wrong while reading.
    Play {
        feed: Box<PlayerFeed>,
        error: Arc<Mutex<Option<String>>>,
    },
    /// Finishes what can be finished, then ends the thread.
    Stop,
}

/// What other threads know of the disk thread.
#[derive(Debug, Default)]
struct Counters {
    recordings: AtomicUsize,
    players: AtomicUsize,
    requests: QueueCounters,
}

/// The way to the disk thread.
#[derive(Clone)]
pub(super) struct DiskView {
    requests: Sender<DiskRequest>,
    counters: Arc<Counters>,
}

/// Starts the thread.
pub(super) fn start(to_signalling: ToSignalling) -> std::io::Result<(DiskView, JoinHandle<()>)> {
    let (sender, requests) = bounded(REQUEST_LIMIT);
    let counters = Arc::new(Counters::default());
    let thread = DiskThread {
        requests,
        to_signalling: to_signalling.clone(),
        counters: counters.clone(),
        recordings: Vec::new(),
        players: Vec::new(),
    };
    let body = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| thread.run())).is_err() {
            to_signalling.send(MediaMessage::Fault("the disk thread ended by a fault of its own".to_owned()));
        }
        to_signalling.send(MediaMessage::DiskEnded);
    };
    let join = std::thread::Builder::new().name("sipwire-disk".to_owned()).spawn(body)?;
    Ok((DiskView { requests: sender, counters }, join))
}

impl DiskView {
    pub fn stats(&self) -> DiskStats {
        DiskStats {
            recordings: self.counters.recordings.load(Relaxed),
            players: self.counters.players.load(Relaxed),
            commands: self.counters.requests.stats(self.requests.len(), REQUEST_LIMIT),
        }
    }

    /// Hands a recording over without waiting, and gives back its ends for the media thread.
    ///
    /// # Errors
    /// When the disk thread is hopelessly behind or gone; the file is removed.
    pub fn start_recording(&self, session: SessionId, new: NewRecording) -> Result<RecordingPorts, &'static str> {
        let NewRecording { recorder: Recorder { sinks, feed, control }, path } = new;
        if self.requests.try_send(DiskRequest::Record { session, feed: Box::new(feed) }).is_err() {
            self.counters.requests.refused();
            let _ = std::fs::remove_file(&path);
            return Err("the disk is too far behind");
        }
        self.counters.requests.saw(self.requests.len());
        Ok(RecordingPorts { path, sinks, control })
    }

    /// Hands a player over.
    pub fn play(&self, feed: PlayerFeed, error: Arc<Mutex<Option<String>>>) -> Result<(), EngineError> {
        let request = DiskRequest::Play { feed: Box::new(feed), error };
        match self.requests.send_timeout(request, REQUEST_TIMEOUT) {
            Ok(()) => {
                self.counters.requests.saw(self.requests.len());
                Ok(())
            }
            Err(SendTimeoutError::Timeout(_)) => {
                self.counters.requests.refused();
                Err(EngineError::NoAnswer(1000))
            }
            Err(SendTimeoutError::Disconnected(_)) => Err(EngineError::Stopped),
        }
    }

    /// Tells the thread to end. It gets there: the queue is not left full by a running thread for long.
    pub fn stop(&self) {
        let _ = self.requests.send_timeout(DiskRequest::Stop, INTERVAL);
    }
}

struct Recording {
    session: SessionId,
    feed: Box<RecorderFeed>,
}

struct Playing {
    feed: Box<PlayerFeed>,
    error: Arc<Mutex<Option<String>>>,
}

struct DiskThread {
    requests: Receiver<DiskRequest>,
    to_signalling: ToSignalling,
    counters: Arc<Counters>,
    recordings: Vec<Recording>,
    players: Vec<Playing>,
}

impl DiskThread {
    fn run(mut self) {
        let mut look_at = Instant::now();
        loop {
            let idle = self.recordings.is_empty() && self.players.is_empty();
            let request = if idle {
                self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.requests.recv_deadline(look_at)
            };
            match request {
                Ok(DiskRequest::Record { session, feed }) => self.recordings.push(Recording { session, feed }),
                Ok(DiskRequest::Play { feed, error }) => self.players.push(Playing { feed, error }),
                Ok(DiskRequest::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.look(); // the media threads have ended: every recording is at its end
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    look_at = Instant::now() + INTERVAL;
                }
            }
        }
    }

    /// Lets every feed do its work; those that are done go.
    fn look(&mut self) {
        let to_signalling = &self.to_signalling;
        self.recordings.retain_mut(|Recording { session, feed }| {
            let error = match feed.run(Instant::now()) {
                Ok(Status::Recording) => return true,
                Ok(Status::Finished) => None,
                Err(error) => Some(error.to_string()),
            };
            let path = feed.paths().first().cloned().unwrap_or_default();
            to_signalling.event(*session, MediaEvent::RecordingDidStop { path, error });
            false
        });
        self.players.retain_mut(|Playing { feed, error }| match feed.run() {
            Ok(more) => more,
            Err(fault) => {
                *lock(error) = Some(fault.to_string());
                false
            }
        });
        self.counters.recordings.store(self.recordings.len(), Relaxed);
        self.counters.players.store(self.players.len(), Relaxed);
    }
}
