//! The disk lane.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use super::EngineError;
use super::audio::PlaySource;
use super::media::{MediaMessage, ToSignalling};
use super::stats::DiskStats;
use crate::audio::graph::{Sink, Source};
use crate::event::SessionId;
use crate::media::RecordingLayout;

pub(super) struct NewRecording {
    path: PathBuf,
}
impl NewRecording {
    pub fn create(path: &Path) -> Result<Self, EngineError> {
        Ok(Self { path: path.to_owned() })
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn discard(self) {}
}
pub(super) struct RecordingPorts {
    pub remote: Box<dyn Sink>,
    pub local: Box<dyn Sink>,
    pub paused: Arc<AtomicBool>,
}
pub(super) enum DiskRequest {
    Stop,
}
#[derive(Clone)]
pub(super) struct DiskView {
    sender: crossbeam_channel::Sender<DiskRequest>,
}
pub(super) fn start(to_signalling: ToSignalling) -> std::io::Result<(DiskView, JoinHandle<()>)> {
    let (sender, receiver) = crossbeam_channel::bounded(1024);
    let join = std::thread::Builder::new().name("sipwire-disk".to_owned()).spawn(move || {
        let _ = receiver.recv();
        to_signalling.send(MediaMessage::DiskEnded);
    })?;
    Ok((DiskView { sender }, join))
}
impl DiskView {
    pub fn stats(&self) -> DiskStats {
        DiskStats::default()
    }
    pub fn send(&self, request: DiskRequest) {
        let _ = self.sender.try_send(request);
    }
    pub fn start_recording(
        &self,
        _session: SessionId,
        _path: PathBuf,
        _layout: RecordingLayout,
        _prepared: Option<NewRecording>,
        _rate: u32,
    ) -> Option<RecordingPorts> {
        None
    }
    pub fn open_player(&self, _source: PlaySource, _loops: u32) -> Result<PlayerSource, EngineError> {
        Err(EngineError::NoAudio)
    }
}
pub(super) struct PlayerSource(Box<dyn Source>);
impl PlayerSource {
    pub fn error(&self) -> Option<String> {
        None
    }
}
impl Source for PlayerSource {
    fn rate(&self) -> u32 {
        self.0.rate()
    }
    fn pull(&mut self, out: &mut [i16], now: std::time::Instant) -> bool {
        self.0.pull(out, now)
    }
}
