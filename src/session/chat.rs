//! The session's chat stream, as far as signalling knows it: got ready, started, stopped. What flows in it (MSRP) is the
//! media side's.

use std::net::SocketAddr;
use std::time::Instant;

use super::media::End;
use super::{Leg, Session};
use crate::event::SessionState;
use crate::media::{ChatParams, LocalChat, MediaCommand, MediaEvent};
use crate::ua::core::Core;

/// Our end of the stream.
#[derive(Debug, Default)]
pub(super) struct Chat {
    pub(super) end: End<LocalChat, ChatParams>,
    /// Its connection is up; told once the call is.
    up: bool,
}

impl Session {
    /// Asks for a chat stream that `peer` can reach. True when the one that is there will do.
    pub(super) fn open_chat(&mut self, peer: SocketAddr, core: &mut Core) -> bool {
        if let End::Open { .. } = self.chat.end {
            return true;
        }
        self.chat = Chat { end: End::Opening { peer }, up: false };
        self.send_media(MediaCommand::OpenChat { peer }, core);
        false
    }

    /// Takes the answer to [`MediaCommand::OpenChat`].
    pub fn handle_chat_opened(&mut self, opened: Result<LocalChat, String>, core: &mut Core, now: Instant) {
        let End::Opening { peer } = self.chat.end else { return };
        match opened {
            Ok(local) => {
                self.chat.end = End::Open { peer, local, running: None };
                self.stream_opened(core, now);
            }
            Err(error) => {
                self.chat.end = End::Closed;
                self.stream_failed(&error, core, now);
            }
        }
    }

    /// What we can do with chat now.
    pub(super) fn local_chat(&self) -> Option<LocalChat> {
        match &self.chat.end {
            End::Open { local, .. } => Some(local.clone()),
            End::Closed | End::Opening { .. } => None,
        }
    }

    /// Puts what was negotiated to work; a mere refresh does not disturb the stream.
    pub(super) fn start_chat(&mut self, params: ChatParams, core: &mut Core) {
        let params = Box::new(params);
        if let End::Open { running, .. } = &mut self.chat.end
            && running.as_ref() != Some(&params)
        {
            *running = Some(params.clone());
            self.send_media(MediaCommand::StartChat(params), core);
        }
    }

    /// Stops the stream in the middle of a call.
    pub(super) fn stop_chat(&mut self, core: &mut Core) {
        self.close_chat(core);
        if self.snapshot.has_chat {
            self.change(|snapshot| snapshot.has_chat = false);
            self.post_stream_update(core);
        }
    }

    pub(super) fn close_chat(&mut self, core: &mut Core) {
        if !matches!(std::mem::take(&mut self.chat).end, End::Closed) {
            self.send_media(MediaCommand::CloseChat, core);
        }
    }

    /// Tells that chat is up, once, and not before the call is.
    pub(super) fn post_chat_started(&mut self, core: &mut Core) {
        if self.chat.up && !self.snapshot.has_chat {
            self.change(|snapshot| snapshot.has_chat = true);
            self.post_stream_update(core);
        }
    }

    /// What the media side says of chat.
    pub(super) fn handle_chat_event(&mut self, event: MediaEvent, core: &mut Core, now: Instant) {
        match event {
            MediaEvent::ChatDidStart if self.chat.end.is_running() => {
                self.chat.up = true;
                if let Leg::Confirmed(_) = self.leg {
                    self.post_chat_started(core);
                }
            }
            MediaEvent::ChatFailed(error) if !matches!(self.chat.end, End::Closed) => match &self.leg {
                Leg::Outgoing(_) => self.outgoing_media_failed(&error, core, now),
                Leg::Incoming(_) => self.incoming_media_failed(&error, core, now),
                // The other stream goes on; the peer is told (ruling R16).
                Leg::Confirmed(_) if self.media.is_running() => {
                    self.stop_chat(core);
                    self.offer_anew(core, now);
                }
                Leg::Answered(_) | Leg::Confirmed(_) if self.state() != SessionState::Terminating => {
                    self.end(Some(&error), core, now);
                }
                Leg::Answered(_) | Leg::Confirmed(_) | Leg::Ending(_) | Leg::Over => {}
            },
            _ => {} // of a stream that is over
        }
    }
}
