//! Recording a call's audio (`session-api` M7, M8).
//!
//! ```text
//! Off ─start─▶ Starting ─file open─▶ On ─stop─▶ Stopping ─file complete─▶ Off
//!  ╰─start while on hold─▶ Deferred ─unhold─▶ Starting
//! ```
//! Each WillX goes out with the command, its DidX when the recorder has done it: whoever hears
//! DidStopRecordingAudio finds a complete file. At the end of a call the session therefore waits for the recorder before
//! TERMINATED and DidEnd, but no longer than [`crate::ua::BYE_PATIENCE`].

use std::path::PathBuf;

use super::table::{Permission, Verb};
use super::{Leg, Session};
use crate::event::EventKind;
use crate::media::{MediaCommand, RecordingLayout};
use crate::ua::VerbError;
use crate::ua::core::Core;

#[derive(Debug, Default)]
pub(super) enum Recording {
    #[default]
    Off,
    /// Asked for while the call was on hold.
    Deferred {
        path: PathBuf,
        layout: RecordingLayout,
    },
    /// `stopping`: it was told to stop before its file was open.
    Starting {
        path: PathBuf,
        stopping: bool,
    },
    On {
        path: PathBuf,
    },
    Stopping {
        path: PathBuf,
    },
}

impl Recording {
    pub fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }
}

impl Session {
    /// M7.
    ///
    /// # Errors
    /// In any state but ESTABLISHED, without audio, or while a recording exists.
    pub fn start_recording(
        &mut self,
        path: PathBuf,
        layout: RecordingLayout,
        core: &mut Core,
    ) -> Result<(), VerbError> {
        let verb = Verb::StartRecordingAudio;
        let Permission::Act = verb.check(self.state())? else { return Ok(()) };
        let refuse = |why: String| Err(verb.impossible(self.state(), why));
        match &self.recording {
            _ if !self.snapshot.has_audio => return refuse("the session has no audio".into()),
            Recording::Off => {}
            Recording::Stopping { path } => return refuse(format!("{} is still being finished", path.display())),
            Recording::Deferred { path, .. } | Recording::Starting { path, .. } | Recording::On { path } => {
                return refuse(format!("already recording to {}", path.display()));
            }
        }
        self.change(|snapshot| snapshot.audio.get_or_insert_default().recording_file_name = Some(path.clone()));
        if self.is_on_hold() {
            self.recording = Recording::Deferred { path, layout };
        } else {
            self.begin_recording(path, layout, core);
        }
        Ok(())
    }

    /// M8.
    ///
    /// # Errors
    /// In any state but ESTABLISHED, or when nothing is recorded.
    pub fn stop_recording(&mut self, core: &mut Core) -> Result<(), VerbError> {
        let verb = Verb::StopRecordingAudio;
        let Permission::Act = verb.check(self.state())? else { return Ok(()) };
        match &self.recording {
            Recording::Off => Err(verb.impossible(self.state(), "nothing is being recorded")),
            Recording::Stopping { path } | Recording::Starting { path, stopping: true } => {
                Err(verb.impossible(self.state(), format!("{} is already being finished", path.display())))
            }
            Recording::Deferred { .. } | Recording::Starting { .. } | Recording::On { .. } => {
                self.end_recording(core);
                Ok(())
            }
        }
    }

    fn is_on_hold(&self) -> bool {
        self.snapshot.on_hold_by_local || self.snapshot.on_hold_by_remote
    }

    fn begin_recording(&mut self, path: PathBuf, layout: RecordingLayout, core: &mut Core) {
        self.post(EventKind::SessionWillStartRecordingAudio { file_name: path.clone() }, core);
        self.send_media(MediaCommand::StartRecording { path: path.clone(), layout }, core);
        self.recording = Recording::Starting { path, stopping: false };
    }

    /// Stops whatever is recorded: at the application's wish, or because audio or the call ends.
    pub(super) fn end_recording(&mut self, core: &mut Core) {
        match std::mem::take(&mut self.recording) {
            Recording::Off => {}
            Recording::Deferred { .. } => self.forget_recording(), // it never began: nothing to post
            Recording::Starting { path, stopping } => {
                if !stopping {
                    self.send_media(MediaCommand::StopRecording, core);
                }
                self.recording = Recording::Starting { path, stopping: true };
            }
            Recording::On { path } => {
                self.post(EventKind::SessionWillStopRecordingAudio { file_name: path.clone() }, core);
                self.send_media(MediaCommand::StopRecording, core);
                self.recording = Recording::Stopping { path };
            }
            stopping @ Recording::Stopping { .. } => self.recording = stopping,
        }
    }

    /// The recorder has opened the file.
    pub(super) fn recording_did_start(&mut self, core: &mut Core) {
        let Recording::Starting { path, stopping } = std::mem::take(&mut self.recording) else { return };
        self.post(EventKind::SessionDidStartRecordingAudio { file_name: path.clone() }, core);
        if stopping {
            self.post(EventKind::SessionWillStopRecordingAudio { file_name: path.clone() }, core);
            self.recording = Recording::Stopping { path };
        } else {
            self.recording = Recording::On { path };
        }
    }

    /// The file is complete, or could not be written: the call goes on.
    pub(super) fn recording_did_stop(&mut self, error: Option<&str>, core: &mut Core) {
        match std::mem::take(&mut self.recording) {
            Recording::Starting { path, .. } | Recording::On { path } | Recording::Stopping { path } => {
                self.forget_recording();
                let error = error.map(Into::into);
                self.post(EventKind::SessionDidStopRecordingAudio { file_name: path, error }, core);
                if let Leg::Ending(_) = self.leg {
                    self.finish_if_done(core);
                }
            }
            other @ (Recording::Off | Recording::Deferred { .. }) => self.recording = other,
        }
    }

    /// Hold pauses a recording, its end resumes or begins it.
    pub(super) fn hold_changed(&mut self, core: &mut Core) {
        let on_hold = self.is_on_hold();
        match std::mem::take(&mut self.recording) {
            Recording::Deferred { path, layout } if !on_hold => self.begin_recording(path, layout, core),
            recording @ (Recording::Starting { stopping: false, .. } | Recording::On { .. }) => {
                self.recording = recording;
                let command = if on_hold { MediaCommand::PauseRecording } else { MediaCommand::ResumeRecording };
                self.send_media(command, core);
            }
            recording => self.recording = recording,
        }
    }

    fn forget_recording(&mut self) {
        self.change(|snapshot| {
            if let Some(audio) = &mut snapshot.audio {
                audio.recording_file_name = None;
            }
        });
    }
}
