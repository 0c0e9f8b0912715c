//! The session's streams: audio opened, started, stopped; what the media side reports; and what holds for all streams.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Leg, Session};
use crate::event::{AccountId, AudioSnapshot, EventKind, SessionState, Streams};
use crate::media::{AudioParams, Direction, LocalMedia, MediaCommand, MediaEvent, SrtpPolicy};
use crate::sdp::negotiation::{Agreed, LocalAudio};
use crate::ua::Output;
use crate::ua::core::Core;

/// Our end of a stream.
#[derive(Debug, Default)]
pub(super) enum End<L, P> {
    #[default]
    Closed,
    /// Sockets are asked for.
    Opening { peer: SocketAddr },
    Open {
        peer: SocketAddr,
        local: L,
        /// What the stream runs with.
        running: Option<Box<P>>,
    },
}

/// Of the audio stream.
pub(super) type Media = End<LocalMedia, AudioParams>;

impl<L, P> End<L, P> {
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Open { running: Some(_), .. })
    }

    fn is_opening(&self) -> bool {
        matches!(self, Self::Opening { .. })
    }

    fn is_idle(&self) -> bool {
        matches!(self, Self::Open { running: None, .. })
    }
}

impl Session {
    fn command(&self, command: MediaCommand, core: &mut Core) {
        core.outputs.push_back(Output::Media(self.id, command));
    }

    /// Asks for sockets that `peer` can reach. True when those that are open will do.
    pub(super) fn open_media(&mut self, peer: SocketAddr, core: &mut Core) -> bool {
        match self.media {
            Media::Open { peer: old, .. } if same_side(old, peer) => return true,
            Media::Open { .. } => self.close_media(core),
            Media::Opening { .. } | Media::Closed => {}
        }
        self.media = Media::Opening { peer };
        self.command(MediaCommand::Open { peer }, core);
        false
    }

    pub(super) fn close_media(&mut self, core: &mut Core) {
        if !matches!(self.media, Media::Closed) {
            self.media = Media::Closed;
            self.command(MediaCommand::Close, core);
        }
    }

    /// Takes the answer to [`MediaCommand::Open`].
    pub fn handle_media_opened(&mut self, opened: Result<LocalMedia, String>, core: &mut Core, now: Instant) {
        let Media::Opening { peer } = self.media else { return };
        match opened {
            Ok(local) => {
                self.media = Media::Open { peer, local, running: None };
                let local_rtp = Some(SocketAddr::new(local.address, local.rtp_port));
                self.change(|snapshot| {
                    snapshot.audio = Some(Box::new(AudioSnapshot { local_rtp, ..AudioSnapshot::default() }));
                });
                self.stream_opened(core, now);
            }
            Err(error) => {
                self.media = Media::Closed;
                self.stream_failed(&error, core, now);
            }
        }
    }

    // --- all streams -------------------------------------------------------------------------------------------------

    /// Those that were agreed on.
    pub(super) fn running_streams(&self) -> Streams {
        Streams { audio: self.media.is_running(), chat: self.chat.end.is_running() }
    }

    pub(super) fn is_opening(&self) -> bool {
        self.media.is_opening() || self.chat.end.is_opening()
    }

    /// Gets streams ready. True when they are already.
    pub(super) fn open_streams(&mut self, wanted: Streams, peer: SocketAddr, core: &mut Core) -> bool {
        let audio = !wanted.audio || self.open_media(peer, core);
        let chat = !wanted.chat || self.open_chat(peer, core);
        audio && chat
    }

    /// One more stream is ready; when it was the last one, what waited for it goes on.
    pub(super) fn stream_opened(&mut self, core: &mut Core, now: Instant) {
        if self.is_opening() {
            return;
        }
        match &self.leg {
            Leg::Outgoing(_) => self.send_invite(core, now),
            Leg::Incoming(_) => self.incoming_media_opened(core, now),
            Leg::Confirmed(_) => self.streams_ready(core, now),
            Leg::Answered(_) | Leg::Ending(_) | Leg::Over => self.close_streams(core),
        }
    }

    pub(super) fn stream_failed(&mut self, error: &str, core: &mut Core, now: Instant) {
        match &self.leg {
            Leg::Outgoing(_) => self.outgoing_media_failed(error, core, now),
            Leg::Incoming(_) => self.incoming_media_failed(error, core, now),
            Leg::Confirmed(_) => self.stream_is_missing(error, core, now),
            Leg::Answered(_) | Leg::Ending(_) | Leg::Over => {}
        }
    }

    /// Puts what was agreed on to work, without a word about it.
    pub(super) fn start_streams(&mut self, agreed: Agreed, core: &mut Core) {
        if let Some(params) = agreed.audio {
            self.start_audio(params, core);
        }
        if let Some(params) = agreed.chat {
            self.start_chat(params, core);
        }
    }

    /// Closes what was got ready and is not used.
    pub(super) fn close_idle_streams(&mut self, core: &mut Core) {
        if self.media.is_idle() {
            self.close_media(core);
        }
        if self.chat.end.is_idle() {
            self.close_chat(core);
        }
    }

    pub(super) fn close_streams(&mut self, core: &mut Core) {
        self.close_media(core);
        self.close_chat(core);
    }

    /// Stops everything at the end of a call: one GotStreamUpdate when something was up, the end of the recording, then
    /// the sockets.
    pub(super) fn stop_streams(&mut self, core: &mut Core) {
        if self.snapshot.has_audio || self.snapshot.has_chat {
            self.change(|snapshot| (snapshot.has_audio, snapshot.has_chat) = (false, false));
            self.post_stream_update(core);
        }
        self.end_recording(core);
        self.close_streams(core);
    }

    // --- audio -------------------------------------------------------------------------------------------------------

    /// What we can do with audio now; `None` while there is no socket.
    pub(super) fn local_audio(&self, core: &Core) -> Option<LocalAudio> {
        let Media::Open { local, .. } = &self.media else { return None };
        let direction = Direction::new(true, !self.snapshot.on_hold_by_local);
        Some(LocalAudio { direction, ..local_audio(*local, self.account, core) })
    }

    /// Puts what was negotiated to work; a mere refresh does not disturb the stream.
    pub(super) fn start_audio(&mut self, params: AudioParams, core: &mut Core) {
        self.change(|snapshot| {
            let audio = snapshot.audio.get_or_insert_default();
            audio.codec = Some(params.send.codec);
            audio.sample_rate = Some(params.send.codec.sample_rate());
            audio.srtp_suite = params.srtp.as_ref().map(|srtp| srtp.suite.name());
            audio.remote_rtp_sdp = Some(params.remote_rtp);
            snapshot.on_hold_by_remote = !params.direction.sends();
        });
        let params = Box::new(params);
        if let Media::Open { running, .. } = &mut self.media
            && running.as_ref() != Some(&params)
        {
            *running = Some(params.clone());
            self.command(MediaCommand::Start(params), core);
        }
    }

    /// Audio is up for the application too.
    pub(super) fn post_audio_started(&mut self, core: &mut Core) {
        self.change(|snapshot| snapshot.has_audio = true);
        self.post_stream_update(core);
    }

    /// Stops the stream in the middle of a call: GotStreamUpdate when it was up, then the end of its recording, then the
    /// sockets. Nothing is on hold any more.
    pub(super) fn stop_audio(&mut self, core: &mut Core) {
        if let Leg::Confirmed(confirmed) = &mut self.leg {
            confirmed.modify.forget_hold();
        }
        if self.snapshot.has_audio {
            self.change(|snapshot| {
                snapshot.has_audio = false;
                (snapshot.on_hold_by_local, snapshot.on_hold_by_remote) = (false, false);
            });
            self.post_stream_update(core);
        }
        self.end_recording(core);
        self.close_media(core);
    }

    /// Audio that ran before a call which never came up.
    pub(super) fn silence_early_media(&mut self, core: &mut Core) {
        if self.snapshot.has_audio {
            self.change(|snapshot| snapshot.has_audio = false);
            self.post_stream_update(core);
        }
    }

    pub(super) fn post_stream_update(&mut self, core: &mut Core) {
        let streams = Streams { audio: self.snapshot.has_audio, chat: self.snapshot.has_chat };
        self.post(EventKind::SessionGotStreamUpdate { streams }, core);
    }

    pub(super) fn send_media(&self, command: MediaCommand, core: &mut Core) {
        self.command(command, core);
    }

    /// Takes a report of the media side.
    pub fn handle_media_event(&mut self, event: MediaEvent, core: &mut Core, now: Instant) {
        if self.over {
            return;
        }
        match event {
            MediaEvent::Received { from } => {
                if let Media::Open { .. } = self.media {
                    self.change(|snapshot| {
                        snapshot.audio.get_or_insert_default().remote_rtp_received = Some(from);
                    });
                }
            }
            MediaEvent::NoAudio if self.snapshot.has_audio => self.post(EventKind::SessionGotNoAudio, core),
            MediaEvent::Dtmf(digit) if self.snapshot.has_audio => self.post(EventKind::SessionGotDTMF { digit }, core),
            MediaEvent::Underrun { missing_ms } if self.snapshot.has_audio => {
                self.post(EventKind::SessionAudioUnderrun { missing_ms }, core);
            }
            MediaEvent::NoAudio | MediaEvent::Dtmf(_) | MediaEvent::Underrun { .. } => {} // of a stream that is over
            MediaEvent::RecordingDidStart { .. } => self.recording_did_start(core),
            MediaEvent::RecordingDidStop { error, .. } => self.recording_did_stop(error.as_deref(), core),
            MediaEvent::Failed(error) => self.audio_failed(&error, core, now),
            MediaEvent::ChatDidStart | MediaEvent::ChatFailed(_) => self.handle_chat_event(event, core, now),
        }
    }

    fn audio_failed(&mut self, error: &str, core: &mut Core, now: Instant) {
        match &self.leg {
            Leg::Outgoing(_) => self.outgoing_media_failed(error, core, now),
            Leg::Incoming(_) => self.incoming_media_failed(error, core, now),
            Leg::Confirmed(_) if self.chat.end.is_running() => {
                self.stop_audio(core);
                self.offer_anew(core, now); // the other stream goes on
            }
            // No stream is left (ruling R16).
            Leg::Answered(_) | Leg::Confirmed(_) if self.state() != SessionState::Terminating => {
                self.end(Some(error), core, now);
            }
            Leg::Answered(_) | Leg::Confirmed(_) | Leg::Ending(_) | Leg::Over => {}
        }
    }
}

/// What an account lets us do with a stream.
pub(super) fn local_audio(local: LocalMedia, account: AccountId, core: &Core) -> LocalAudio {
    let account = core.accounts.get(account);
    LocalAudio {
        media: local,
        codecs: account.and_then(|account| account.codecs.clone()).unwrap_or_else(|| core.config.codecs.clone()),
        srtp: account.map_or(SrtpPolicy::default(), |account| account.srtp),
        direction: Direction::SendRecv,
        symmetric: account.is_none_or(|account| account.symmetric_rtp),
    }
}

/// True when sockets that reach one address also reach the other.
fn same_side(one: SocketAddr, other: SocketAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && one.ip().is_loopback() == other.ip().is_loopback()
}
