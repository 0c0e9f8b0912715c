//! Changes of a call that is up, from our side: hold, streams, and the re-INVITE that tells the peer (RFC 3261 §14.1).
//!
//! ```text
//! Idle ──something to tell──▶ Open ──2xx──▶ Idle
//!  ▲                         │   ╰─491, 500 with Retry-After─▶ Waiting ─timer─▶ Idle
//!  ╰─────any other refusal───╯
//! ```
//! The application's wishes are kept as what it wants now, not as a list: one offer is open at a time (ruling R18), and
//! the next tells whatever is still different by then. So two quick `hold()` make one re-INVITE, and `hold()` with
//! `unhold()` behind it none while the first could not leave yet.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::in_dialog::{Answer, Purpose};
use super::outgoing::{has_sdp, take_answer};
use super::table::{Permission, Verb};
use super::{Leg, Session, failure_reason, shown_sdp};
use crate::event::{CallDirection, EventKind, Originator, Streams};
use crate::media::{Direction, MediaCommand};
use crate::sdp::negotiation::{Agreed, Local, LocalAudio};
use crate::sip::headers::RetryAfter;
use crate::sip::message::{HeaderName, Message, Method};
use crate::ua::VerbError;
use crate::ua::core::{ALLOW, Core, SUPPORTED};
use crate::ua::dialog_request::DialogRequest;
use crate::ua::timers::Timer;

/// A peer that still asks for another time after so many has refused: RFC 3261 knows no end, but a person waits.
const MAX_TRIES: u8 = 8;

/// A Retry-After longer than this is a refusal: nobody waits that long for a hold.
const LONGEST_WAIT: u32 = 32;

/// How long a re-INVITE may ring after each provisional answer, before it is cancelled: the patience of proxies (timer C,
/// RFC 3261 §16.6).
const RINGING_PATIENCE: Duration = Duration::from_secs(180);

/// Where our side of the call is to go, and how far the peer knows.
#[derive(Debug, Default)]
pub(super) struct Modify {
    stage: Stage,
    wants_hold: bool,
    /// The peer has not taken our last offer, or a new one is needed for another reason.
    due: bool,
    /// The peer holds us by an offer of its own, not only by what it answered: we offer nothing it would have to refuse
    /// (RFC 3264 §8.4).
    pub(super) held_by_offer: bool,
    /// Streams that `add_audio()` or `add_chat()` wants, until the peer has decided.
    adding: Option<Adding>,
    /// Offers the peer has put off, one after the other.
    tries: u8,
}

/// A proposal of ours.
#[derive(Clone, Copy, Debug)]
struct Adding {
    streams: Streams,
    /// It is in the offer that is open, …
    told: bool,
    /// … with other changes, which a refusal of the stream must not take along.
    carries: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// An offer of ours is on its way.
    Open,
    /// The peer has put us off.
    Waiting,
}

impl Modify {
    /// An offer of ours is on its way: theirs must wait.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    pub(super) fn add(&mut self, streams: Streams) {
        self.adding = Some(Adding { streams, told: false, carries: false });
    }

    /// The proposal is off.
    pub(super) fn withdraw(&mut self) {
        self.adding = None;
    }

    /// There is nothing to hold any more.
    pub(super) fn forget_hold(&mut self) {
        (self.wants_hold, self.held_by_offer) = (false, false);
    }

    /// A proposal of ours that the peer has not heard of yet.
    fn has_untold(&self) -> bool {
        self.adding.is_some_and(|adding| !adding.told)
    }

    /// The same offer again, because a re-INVITE is needed.
    pub(super) fn offer_again_anyway(&mut self) {
        self.due = true;
    }
}

impl Session {
    /// M5, M6.
    ///
    /// # Errors
    /// Outside ESTABLISHED, or without audio.
    pub fn hold(&mut self, hold: bool, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let verb = if hold { Verb::Hold } else { Verb::Unhold };
        let Permission::Act = verb.check(self.state())? else { return Ok(()) };
        if !self.snapshot.has_audio {
            return Err(verb.impossible(self.state(), "the session has no audio"));
        }
        if let Leg::Confirmed(confirmed) = &mut self.leg {
            confirmed.modify.wants_hold = hold;
            self.tell_changes(core, now);
        }
        Ok(())
    }

    /// Sends an offer when there is something to tell and nothing in the way.
    pub(super) fn tell_changes(&mut self, core: &mut Core, now: Instant) {
        let is_opening = self.is_opening();
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        let modify = &mut confirmed.modify;
        // Their re-INVITE has to be acknowledged first (RFC 3261 §14.1).
        let is_free = modify.stage == Stage::Idle && confirmed.unacked.is_none() && confirmed.proposal.is_none();
        if !is_free || is_opening {
            return;
        }
        let (wants_hold, held) = (modify.wants_hold, self.snapshot.on_hold_by_local);
        if wants_hold == held && !modify.due && !modify.has_untold() {
            return;
        }
        let carries = std::mem::take(&mut modify.due) || wants_hold != held;
        if let Some(adding) = &mut modify.adding {
            (adding.told, adding.carries) = (true, adding.carries || carries);
        }
        self.change(|snapshot| snapshot.on_hold_by_local = wants_hold);
        self.send_reinvite(core, now);
        if wants_hold != held {
            self.send_media(MediaCommand::Hold(wants_hold), core);
            let originator = Originator::Local;
            match wants_hold {
                true => self.post(EventKind::SessionGotHoldRequest { originator }, core),
                false => self.post(EventKind::SessionGotUnholdRequest { originator }, core),
            }
            self.hold_changed(core);
        }
    }

    /// A stream has gone: the peer is to hear of it.
    pub(super) fn offer_anew(&mut self, core: &mut Core, now: Instant) {
        if let Leg::Confirmed(confirmed) = &mut self.leg {
            confirmed.modify.due = true;
            self.tell_changes(core, now);
        }
    }

    /// What we offer now: whatever is there, in use or got ready for a proposal.
    fn offered_audio(&self, core: &Core) -> Option<LocalAudio> {
        let Leg::Confirmed(confirmed) = &self.leg else { return None };
        let direction = Direction::new(!confirmed.modify.held_by_offer, !self.snapshot.on_hold_by_local);
        Some(LocalAudio { direction, ..self.local_audio(core)? })
    }

    fn send_reinvite(&mut self, core: &mut Core, now: Instant) {
        let (audio, chat) = (self.offered_audio(core), self.local_chat());
        let local = Local { audio: audio.as_ref(), chat: chat.as_ref() };
        let timer = self.timer_headers(core);
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        let contact = core.contact(self.account, confirmed.dialog.flow(), confirmed.dialog.is_secure());
        let offer = self.negotiator.offer(local, &mut core.random).to_string();
        let request = DialogRequest::new(Method::Invite, self.account)
            .header("Contact", contact)
            .header("Allow", ALLOW)
            .header("Supported", SUPPORTED);
        let request = timer
            .into_iter()
            .fold(request, |request, (name, value)| request.header(name, value))
            .body("application/sdp", offer.clone());
        confirmed.modify.stage = Stage::Open;
        if self.request_in_dialog(request, Purpose::Reinvite, core, now).is_none() {
            return self.offer_was_refused("too many requests are open", core, now);
        }
        self.change(|snapshot| snapshot.local_sdp = Some(shown_sdp(&offer)));
    }

    /// A provisional answer to our re-INVITE: somebody may be thinking about it.
    pub(super) fn reinvite_rings(&mut self, core: &mut Core, now: Instant) {
        core.timers.set(self.id, Timer::ReinviteRings, now + RINGING_PATIENCE);
    }

    /// It has rung for too long.
    pub(super) fn cancel_reinvite(&mut self, core: &mut Core, now: Instant) {
        if let Some(client) = self.requests.reinvite() {
            core.transactions.cancel(client, &[], now);
        }
    }

    /// The final answer to our re-INVITE.
    pub(super) fn reinvite_answered(&mut self, answer: &Answer<'_>, core: &mut Core, now: Instant) {
        core.timers.cancel(self.id, Timer::ReinviteRings);
        let Leg::Confirmed(confirmed) = &mut self.leg else {
            // BYE has left since; the peer still wants its ACK.
            if let (200..=299, Some((response, flow))) = (answer.code, answer.response) {
                core.acknowledge_stray(answer.client, response, flow);
            }
            return;
        };
        if !confirmed.modify.is_open() {
            return;
        }
        confirmed.modify.stage = Stage::Idle;
        let reason = answer.response.map_or(answer.reason.clone(), |(response, _)| failure_reason(response));
        match (answer.code, answer.response) {
            (200..=299, Some((response, _))) => {
                core.acknowledge(answer.client, &confirmed.dialog, answer.number);
                confirmed.modify.tries = 0;
                self.take_timer(response, core, now);
                self.offer_was_answered(response, core);
                self.tell_changes(core, now);
            }
            (408 | 481, _) => self.negotiator.roll_back(), // the end of the dialog
            (491, _) => self.try_again(&reason, glare_pause(self.snapshot.direction, core), core, now),
            (500, Some((response, _))) => match retry_after(response) {
                Some(seconds) => {
                    let pause = Duration::from_secs(seconds.into()) + pause_of(0..=50, core);
                    self.try_again(&reason, pause, core, now);
                }
                None => self.offer_was_refused(&reason, core, now),
            },
            (422, Some((response, _))) if self.take_min_se(response) => {
                self.try_again(&reason, Duration::ZERO, core, now);
            }
            _ => self.offer_was_refused(&reason, core, now),
        }
    }

    fn offer_was_answered(&mut self, response: &Message, core: &mut Core) {
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        let added = confirmed.modify.adding.take_if(|adding| adding.told).map(|adding| adding.streams);
        let agreed = match has_sdp(response).then(|| take_answer(&mut self.negotiator, response.body())) {
            Some(Ok(agreed)) => Ok(agreed),
            // What was agreed before holds.
            Some(Err(error)) => Err(error),
            None => Err("the answer carries no SDP".to_owned()),
        };
        if let Some(added) = added {
            let is_there =
                |agreed: &Agreed| (!added.audio || agreed.audio.is_some()) && (!added.chat || agreed.chat.is_some());
            let outcome = match &agreed {
                Ok(agreed) if is_there(agreed) => Ok(()),
                Ok(_) => Err("the peer has refused the stream".into()),
                Err(error) => Err(error.as_str().into()),
            };
            self.settle_proposal(outcome, core);
        }
        match agreed {
            Ok(agreed) => {
                self.apply(response, agreed, core);
                if let Leg::Confirmed(confirmed) = &mut self.leg {
                    confirmed.modify.held_by_offer &= self.snapshot.on_hold_by_remote;
                }
            }
            Err(_) => self.negotiator.roll_back(),
        }
    }

    /// The old session stays as it was (RFC 3261 §14.1); a hold of ours stays too (ruling R10).
    fn offer_was_refused(&mut self, reason: &str, core: &mut Core, now: Instant) {
        self.negotiator.roll_back();
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        confirmed.modify.stage = Stage::Idle;
        confirmed.modify.tries = 0;
        if let Some(adding) = confirmed.modify.adding.take_if(|adding| adding.told) {
            confirmed.modify.due |= adding.carries;
            self.settle_proposal(Err(reason.into()), core);
        }
        self.refresh_failed(core, now);
        self.tell_changes(core, now);
    }

    /// The same again, later.
    fn try_again(&mut self, reason: &str, pause: Duration, core: &mut Core, now: Instant) {
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        let modify = &mut confirmed.modify;
        modify.tries += 1;
        if modify.tries >= MAX_TRIES {
            return self.offer_was_refused(reason, core, now);
        }
        modify.stage = Stage::Waiting;
        match &mut modify.adding {
            Some(adding) if adding.told => adding.told = false,
            _ => modify.due = true,
        }
        self.negotiator.roll_back();
        core.timers.set(self.id, Timer::OfferAgain, now + pause);
    }

    /// The pause is over.
    pub(super) fn offer_again(&mut self, core: &mut Core, now: Instant) {
        if let Leg::Confirmed(confirmed) = &mut self.leg
            && confirmed.modify.stage == Stage::Waiting
        {
            confirmed.modify.stage = Stage::Idle;
            self.tell_changes(core, now);
        }
    }

    /// The dialog ends: what is open in it has no meaning any more. A re-INVITE that nobody has answered yet would wait
    /// for ever.
    pub(super) fn abandon_changes(&mut self, core: &mut Core, now: Instant) {
        self.cancel_reinvite(core, now);
        self.end_proposal(487, None, core, now);
        self.stop_timer(core);
        core.timers.cancel(self.id, Timer::OfferAgain);
        core.timers.cancel(self.id, Timer::ReinviteRings);
    }
}

/// How long to wait after 491: whoever made the call, and so its Call-ID, lets the other go first (RFC 3261 §14.1).
fn glare_pause(direction: Option<CallDirection>, core: &mut Core) -> Duration {
    match direction {
        Some(CallDirection::Outgoing) => pause_of(210..=400, core),
        Some(CallDirection::Incoming) | None => pause_of(0..=200, core),
    }
}

/// A random time in units of 10 ms.
fn pause_of(units: std::ops::RangeInclusive<u64>, core: &mut Core) -> Duration {
    Duration::from_millis(core.random.random_range(units) * 10)
}

/// The seconds to wait, when they are few enough to do so.
fn retry_after(response: &Message) -> Option<u32> {
    let retry = RetryAfter::parse(response.header(HeaderName::RetryAfter)?)?;
    (retry.seconds <= LONGEST_WAIT).then_some(retry.seconds)
}
