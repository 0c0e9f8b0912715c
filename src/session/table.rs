//! Which verb is legal in which state: data for the guards, the documentation and the tests.

use crate::event::SessionState;
use crate::ua::VerbError;

use SessionState::{Accepting, Calling, Established, Incoming, Null, Proposed, Proposing, Terminated, Terminating};

/// What the application can ask of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Connect,
    Accept,
    Reject,
    Redirect,
    Ring,
    EarlyMedia,
    End,
    Hold,
    Unhold,
    AddAudio,
    RemoveAudio,
    AddChat,
    RemoveChat,
    AcceptProposal,
    RejectProposal,
    StartRecordingAudio,
    StopRecordingAudio,
    SendDtmf,
    SendInfo,
    Transfer,
    AcceptTransfer,
    RejectTransfer,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub verb: Verb,
    /// The name in the API.
    pub name: &'static str,
    /// The states it acts in.
    pub allowed: &'static [SessionState],
    /// The states it does nothing in, without an error; in all others it is refused.
    pub silent: &'static [SessionState],
}

/// The state × verb table (`session-api` §1.2).
pub const TABLE: &[Row] = &[
    Row { verb: Verb::Connect, name: "connect", allowed: &[Null], silent: &[] },
    Row { verb: Verb::Accept, name: "accept", allowed: &[Incoming], silent: &[] },
    // A CANCEL may have come first: the application cannot know (M4).
    Row { verb: Verb::Reject, name: "reject", allowed: &[Incoming], silent: &[Terminated] },
    Row { verb: Verb::Redirect, name: "redirect", allowed: &[Incoming], silent: &[Terminated] },
    Row { verb: Verb::Ring, name: "ring", allowed: &[Incoming], silent: &[] },
    Row { verb: Verb::EarlyMedia, name: "early_media", allowed: &[Incoming], silent: &[] },
    // "end() at any time" scripts go on (ruling R14).
    Row {
        verb: Verb::End,
        name: "end",
        allowed: &[Calling, Incoming, Accepting, Established, Proposing, Proposed],
        silent: &[Null, Terminating, Terminated],
    },
    Row { verb: Verb::Hold, name: "hold", allowed: &[Established], silent: &[] },
    Row { verb: Verb::Unhold, name: "unhold", allowed: &[Established], silent: &[] },
    Row { verb: Verb::AddAudio, name: "add_audio", allowed: &[Established], silent: &[] },
    Row { verb: Verb::RemoveAudio, name: "remove_audio", allowed: &[Established], silent: &[] },
    Row { verb: Verb::AddChat, name: "add_chat", allowed: &[Established], silent: &[] },
    Row { verb: Verb::RemoveChat, name: "remove_chat", allowed: &[Established], silent: &[] },
    Row { verb: Verb::AcceptProposal, name: "accept_proposal", allowed: &[Proposed], silent: &[] },
    Row { verb: Verb::RejectProposal, name: "reject_proposal", allowed: &[Proposed], silent: &[] },
    Row { verb: Verb::StartRecordingAudio, name: "start_recording_audio", allowed: &[Established], silent: &[] },
    Row { verb: Verb::StopRecordingAudio, name: "stop_recording_audio", allowed: &[Established], silent: &[] },
    Row { verb: Verb::SendDtmf, name: "send_dtmf", allowed: &[Established, Proposing, Proposed], silent: &[] },
    Row { verb: Verb::SendInfo, name: "send_info", allowed: &[Established, Proposing, Proposed], silent: &[] },
    Row { verb: Verb::Transfer, name: "transfer", allowed: &[Established], silent: &[] },
    Row {
        verb: Verb::AcceptTransfer,
        name: "accept_transfer",
        allowed: &[Established, Proposing, Proposed],
        silent: &[],
    },
    Row {
        verb: Verb::RejectTransfer,
        name: "reject_transfer",
        allowed: &[Established, Proposing, Proposed],
        silent: &[],
    },
];

/// What the table says to a verb in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    Act,
    /// Nothing to do, no error.
    Silent,
}

impl Verb {
    /// This verb's line.
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.verb == self).expect("every verb has its row")
    }

    /// # Errors
    /// [`VerbError::WrongState`] where the table does not allow it.
    pub fn check(self, state: SessionState) -> Result<Permission, VerbError> {
        let row = self.row();
        if row.allowed.contains(&state) {
            Ok(Permission::Act)
        } else if row.silent.contains(&state) {
            Ok(Permission::Silent)
        } else {
            Err(VerbError::WrongState { verb: row.name, state, allowed: row.allowed.to_vec() })
        }
    }

    /// The error for a verb that its state allows, but something else does not.
    pub(crate) fn impossible(self, state: SessionState, why: impl Into<String>) -> VerbError {
        VerbError::NotPossible { verb: self.row().name, state, why: why.into() }
    }
}
