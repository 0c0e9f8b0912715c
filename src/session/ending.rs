//! How a call ends: `end()`, refusals, the peer's BYE, failures; and what the protocol still owes afterwards.

use std::sync::Arc;
use std::time::Instant;

use super::established::Unacked;
use super::recording::Recording;
use super::table::{Permission, Verb};
use super::{Failure, Leg, Session};
use crate::event::{EventKind, Originator, SessionState};
use crate::sip::dialog::Dialog;
use crate::sip::message::Message;
use crate::sip::transaction::ClientId;
use crate::sip::transport::Flow;
use crate::ua::core::Core;
use crate::ua::timers::Timer;
use crate::ua::{BYE_PATIENCE, VerbError};

/// A session that is over but for an answer or its recording.
#[derive(Debug)]
pub(super) struct Ending {
    originator: Originator,
    waits: Waits,
    /// The dialog, while the peer may still send requests in it.
    pub(super) dialog: Option<Dialog>,
    /// Our 2xx that must be acknowledged before BYE may leave (RFC 3261 §15): kept even after DidEnd.
    pub(super) unacked: Option<Unacked>,
    reason: Option<Arc<str>>,
}

/// What the protocol waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Nothing,
    /// The final answer to a cancelled INVITE.
    Cancelled(ClientId),
    Ack,
    Bye,
}

impl Ending {
    pub(super) fn is_cancelling(&self, client: ClientId) -> bool {
        self.waits == Waits::Cancelled(client)
    }
}

impl Session {
    /// M17.
    pub fn end(&mut self, reason: Option<&str>, core: &mut Core, now: Instant) {
        let Ok(Permission::Act) = Verb::End.check(self.state()) else { return };
        if let Leg::Ending(_) = self.leg {
            return; // the peer was first: only the recording is waited for
        }
        self.abandon_changes(core, now);
        let end_reason: Option<Arc<str>> = reason.map(Into::into);
        self.change(|snapshot| snapshot.end_reason = end_reason.clone());
        self.set_state(SessionState::Terminating, core);
        self.post(EventKind::SessionWillEnd, core);
        self.drop_unfinished(core, now);
        let mut ending = Ending {
            originator: Originator::Local,
            waits: Waits::Nothing,
            dialog: None,
            unacked: None,
            reason: end_reason,
        };
        match self.take_leg() {
            Leg::Outgoing(outgoing) => {
                if let Some(client) = outgoing.client() {
                    outgoing.abandon(reason.unwrap_or_default(), core, now);
                    ending.waits = Waits::Cancelled(client);
                }
            }
            Leg::Incoming(incoming) => self.refuse(*incoming, 603, reason, &[], core, now),
            Leg::Answered(answered) => {
                ending.waits = Waits::Ack;
                (ending.dialog, ending.unacked) = (Some(answered.dialog), Some(answered.unacked));
            }
            Leg::Confirmed(confirmed) => {
                let mut dialog = confirmed.dialog;
                if confirmed.unacked.is_some() {
                    // A re-INVITE of theirs we have answered: its ACK may be lost, BYE ends it all the same.
                    self.stop_2xx_timers(core);
                }
                core.send_bye(&mut dialog, Some(self.account), reason, Some(self.id), now);
                ending.waits = Waits::Bye;
                ending.dialog = Some(dialog);
            }
            Leg::Ending(_) | Leg::Over => {}
        }
        self.leg = Leg::Ending(Box::new(ending));
        self.stop_streams(core);
        core.timers.set(self.id, Timer::Patience, now + BYE_PATIENCE);
        self.finish_if_done(core);
    }

    /// M4, R9.
    ///
    /// # Errors
    /// Outside INCOMING, or for a code that is no refusal.
    pub fn reject(&mut self, code: u16, phrase: Option<&str>, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let Permission::Act = Verb::Reject.check(self.state())? else { return Ok(()) };
        check_refusal(code)?;
        self.set_state(SessionState::Terminating, core);
        self.post(EventKind::SessionWillEnd, core);
        if let Leg::Incoming(incoming) = self.take_leg() {
            self.refuse(*incoming, code, phrase, &[], core, now);
        }
        self.finish(Originator::Local, None, core);
        Ok(())
    }

    /// The peer has ended the dialog, or it has died: no WillEnd, no TERMINATING.
    pub(super) fn close_established(
        &mut self,
        originator: Originator,
        reason: Option<Arc<str>>,
        core: &mut Core,
        now: Instant,
    ) {
        self.abandon_changes(core, now);
        self.change(|snapshot| snapshot.end_reason = reason.clone());
        self.drop_unfinished(core, now);
        self.stop_2xx_timers(core);
        self.leg =
            Leg::Ending(Box::new(Ending { originator, waits: Waits::Nothing, dialog: None, unacked: None, reason }));
        self.stop_streams(core);
        core.timers.set(self.id, Timer::Patience, now + BYE_PATIENCE);
        self.finish_if_done(core);
    }

    /// What the application or the peer asked for inside the call and has no outcome yet.
    fn drop_unfinished(&mut self, core: &mut Core, now: Instant) {
        self.drop_infos(core);
        self.drop_transfer(core, now);
    }

    /// The call never came up.
    pub(super) fn fail(&mut self, failure: Failure, core: &mut Core) {
        let Failure { originator, code, reason } = failure;
        self.silence_early_media(core);
        self.close_streams(core);
        self.stop_2xx_timers(core);
        self.change(|snapshot| snapshot.failure = Some((code, Arc::clone(&reason))));
        self.set_state(SessionState::Terminated, core);
        self.post(EventKind::SessionDidFail { originator, code, reason }, core);
        let end_reason = self.snapshot.end_reason.clone();
        self.post(EventKind::SessionDidEnd { originator, end_reason }, core);
        self.over = true;
        self.leg = Leg::Over;
    }

    /// Something of ours broke: the peer hears of it as far as it still can.
    pub fn abandon_peer(&mut self, core: &mut Core, now: Instant) {
        const WHY: &str = "Internal error";
        match self.take_leg() {
            Leg::Outgoing(outgoing) => outgoing.abandon(WHY, core, now),
            Leg::Incoming(incoming) => self.refuse(*incoming, 500, None, &[], core, now),
            Leg::Answered(answered) => {
                let mut dialog = answered.dialog;
                core.send_bye(&mut dialog, Some(self.account), Some(WHY), None, now);
            }
            Leg::Confirmed(confirmed) => {
                let mut dialog = confirmed.dialog;
                core.send_bye(&mut dialog, Some(self.account), Some(WHY), None, now);
            }
            Leg::Ending(_) | Leg::Over => {}
        }
    }

    /// The last notifications of a session that something of ours broke in (code 0).
    pub fn fail_broken(&mut self, why: &str, core: &mut Core) {
        if !self.over {
            self.fail(Failure::local(0, format!("Internal error: {why}")), core);
        }
    }

    /// BYE while the answer to our late offer is still out: there never was media.
    pub(super) fn bye_before_answer(&mut self, core: &mut Core) {
        self.fail(Failure::remote(487, "Call ended before its ACK"), core);
    }

    /// The final answer to an INVITE we have cancelled. A 2xx crossed the CANCEL: ACK, then BYE (RFC 3261 §9.1).
    pub(super) fn cancelled(
        &mut self,
        client: ClientId,
        response: &Message,
        flow: Flow,
        core: &mut Core,
        now: Instant,
    ) {
        let crossed = response.status().is_some_and(|status| status < 300);
        let dialog = if crossed { core.acknowledge_stray(client, response, flow) } else { None };
        let Some(mut dialog) = dialog else { return self.end_answered(core) };
        let Leg::Ending(ending) = &mut self.leg else { return };
        let reason = ending.reason.clone();
        core.send_bye(&mut dialog, Some(self.account), reason.as_deref(), Some(self.id), now);
        ending.waits = Waits::Bye;
        ending.dialog = Some(dialog);
    }

    /// The peer has answered BYE, or never will.
    pub fn handle_bye_answered(&mut self, core: &mut Core) {
        if let Leg::Ending(ending) = &self.leg
            && ending.waits == Waits::Bye
        {
            self.end_answered(core);
        }
    }

    /// Nothing is expected from the peer any more.
    pub(super) fn end_answered(&mut self, core: &mut Core) {
        if let Leg::Ending(ending) = &mut self.leg {
            ending.waits = Waits::Nothing;
            ending.dialog = None;
            ending.unacked = None;
            self.stop_2xx_timers(core);
            self.finish_if_done(core);
        }
    }

    /// The ACK that BYE had to wait for is there, or it never came: BYE may leave.
    pub(super) fn bye_after_ack(&mut self, core: &mut Core, now: Instant) {
        self.stop_2xx_timers(core);
        let Leg::Ending(ending) = &mut self.leg else { return };
        ending.unacked = None;
        let Some(dialog) = &mut ending.dialog else { return };
        let (id, account, reason) = (self.id, Some(self.account), ending.reason.clone());
        if self.over {
            core.send_bye(dialog, account, reason.as_deref(), None, now);
            self.leg = Leg::Over;
        } else {
            core.send_bye(dialog, account, reason.as_deref(), Some(id), now);
            ending.waits = Waits::Bye;
        }
    }

    /// The bounded time of M17 is over: the call ends here, whatever is still on its way.
    pub(super) fn lose_patience(&mut self, core: &mut Core) {
        if !matches!(self.leg, Leg::Ending(_)) || self.over {
            return;
        }
        if !self.recording.is_off() {
            self.give_up_recording(core);
        }
        if let Leg::Ending(ending) = &mut self.leg {
            ending.waits = Waits::Nothing;
            self.finish_if_done(core);
        }
    }

    fn give_up_recording(&mut self, core: &mut Core) {
        self.recording_did_stop(Some("the recorder has not finished the file in time"), core);
        self.recording = Recording::Off;
    }

    pub(super) fn finish_if_done(&mut self, core: &mut Core) {
        let Leg::Ending(ending) = &mut self.leg else { return };
        if ending.waits != Waits::Nothing || !self.recording.is_off() {
            return;
        }
        if self.over {
            if ending.unacked.is_none() {
                self.leg = Leg::Over;
            }
            return;
        }
        let (originator, reason) = (ending.originator, ending.reason.clone());
        if ending.unacked.is_some() {
            let leg = self.take_leg();
            self.finish(originator, reason, core);
            self.leg = leg; // until the ACK, so that BYE can follow it
        } else {
            self.finish(originator, reason, core);
        }
    }

    /// The last notifications.
    pub(super) fn finish(&mut self, originator: Originator, end_reason: Option<Arc<str>>, core: &mut Core) {
        self.silence_early_media(core);
        self.close_streams(core);
        core.timers.cancel(self.id, Timer::Patience);
        self.set_state(SessionState::Terminated, core);
        self.post(EventKind::SessionDidEnd { originator, end_reason }, core);
        self.over = true;
        self.leg = Leg::Over;
    }
}

pub(super) fn check_refusal(code: u16) -> Result<(), VerbError> {
    match code {
        400..=699 => Ok(()),
        _ => Err(VerbError::BadArgument(format!("{code} is no code to refuse a call with: 400 to 699 are"))),
    }
}
