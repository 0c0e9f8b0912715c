//! What callees say before they answer (RFC 3261 §13.2.2.1, RFC 3262 §4, RFC 3960): early dialogs, one for each fork, their
//! reliable responses, and the media they bring.
//!
//! Media runs by the first description there is; when another fork answers the call, or the one that does changes its
//! mind, the 2xx decides.

use std::time::Instant;

use bytes::Bytes;

use super::in_dialog::Purpose;
use super::outgoing::{Answer, Outgoing, has_sdp, take_answer};
use super::{BadOffer, Failure, Leg, Session, shown_sdp};
use crate::event::{EventKind, Headers};
use crate::sdp::description::Description;
use crate::sdp::negotiation::{Agreed, Local, NegotiationError, Negotiator};
use crate::sip::dialog::Dialog;
use crate::sip::headers::clamped;
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transport::Flow;
use crate::ua::core::{Core, RELIABLE};
use crate::ua::dialog_request::DialogRequest;

/// Early dialogs of one call that are kept; a proxy forks to a handful.
const MAX_EARLY_DIALOGS: usize = 16;

/// Longest early answer that is kept for the 2xx that may stand on it.
const MAX_KEPT_ANSWER: usize = 16 * 1024;

/// One early dialog's offer, answer and numbers.
#[derive(Debug)]
pub(super) struct Fork {
    /// RSeq of its last reliable response.
    rseq: Option<u32>,
    /// Its answer to our offer, as it came.
    answer: Option<Bytes>,
    /// Offer and answer are over, because a reliable response has carried the second one.
    settled_reliably: bool,
    /// UPDATE has changed what was agreed on since: the 2xx has nothing to say about it.
    updated: bool,
    /// Its offer and our answer in PRACK, when the INVITE made none.
    settled: Option<Box<Settled>>,
}

/// What a fork's own offer led to.
#[derive(Debug)]
struct Settled {
    /// `None`: the session's own.
    negotiator: Option<Negotiator>,
    agreed: Agreed,
}

/// The forks of one INVITE.
#[derive(Debug, Default)]
pub(super) struct Forks {
    /// In the order they were first heard of; `forks` has the same order.
    pub(super) dialogs: Vec<Dialog>,
    forks: Vec<Fork>,
    /// The one that media runs by.
    running: Option<usize>,
}

impl Forks {
    /// The early dialog a response belongs to; a new one for a new To tag while there is room.
    fn find_or_add(&mut self, response: &Message, flow: Flow) -> Option<usize> {
        let to = response.to().ok()?;
        let tag = to.tag().filter(|tag| !tag.is_empty())?;
        let known = self.dialogs.iter().position(|dialog| dialog.remote_tag() == tag);
        if known.is_some() || self.dialogs.len() >= MAX_EARLY_DIALOGS {
            return known;
        }
        self.dialogs.push(Dialog::uac(response, flow).ok()?);
        self.forks.push(Fork { rseq: None, answer: None, settled_reliably: false, updated: false, settled: None });
        Some(self.forks.len() - 1)
    }

    fn find(&self, tag: &[u8]) -> Option<usize> {
        self.dialogs.iter().position(|dialog| dialog.remote_tag() == tag)
    }

    /// Takes the RSeq of a reliable response: false for one that came before, or too early (RFC 3262 §4).
    fn take_rseq(&mut self, index: usize, rseq: u32) -> bool {
        let Some(fork) = self.forks.get_mut(index) else { return false };
        let in_order = fork.rseq.is_none_or(|last| last.checked_add(1) == Some(rseq));
        if in_order {
            fork.rseq = Some(rseq);
        }
        in_order
    }
}

/// The RSeq of a response that wants a PRACK.
fn reliable(response: &Message) -> Option<u32> {
    let wanted = response.lists(HeaderName::Require, RELIABLE);
    response.header(HeaderName::RSeq).filter(|_| wanted).and_then(clamped)
}

impl Session {
    /// A provisional response to our INVITE, 100 excepted.
    pub(super) fn progress(&mut self, status: u16, response: &Message, flow: Flow, core: &mut Core, now: Instant) {
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        let Some(invite) = &mut outgoing.invite else { return };
        let fork = invite.forks.find_or_add(response, flow);
        let rseq = reliable(response);
        if let Some(rseq) = rseq
            && !fork.is_some_and(|fork| invite.forks.take_rseq(fork, rseq))
        {
            return; // it came before, or comes too early, or cannot be acknowledged: as if it were not there
        }
        let headers = Headers::of(response);
        self.change(|snapshot| snapshot.response_headers = Some(headers));
        let mut answer = None;
        if let Some(fork) = fork.filter(|_| has_sdp(response)) {
            match self.take_early_description(fork, rseq.is_some(), response, core) {
                Ok(ours) => answer = ours,
                Err(error) => return self.give_up_call(&error, core, now),
            }
        }
        if let (Some(fork), Some(rseq)) = (fork, rseq) {
            self.send_prack(fork, rseq, answer, core, now);
        }
        if status == 180 {
            self.post(EventKind::SessionGotRingIndication, core);
        }
    }

    fn send_prack(&mut self, fork: usize, rseq: u32, answer: Option<String>, core: &mut Core, now: Instant) {
        let Leg::Outgoing(outgoing) = &self.leg else { return };
        let Some(dialog) = outgoing.invite.as_ref().and_then(|invite| invite.forks.dialogs.get(fork)) else { return };
        let tag = dialog.remote_tag().into();
        let rack = format!("{rseq} {} INVITE", outgoing.seq);
        let mut request = DialogRequest::new(Method::Prack, self.account).header("RAck", rack);
        if let Some(sdp) = answer {
            request = request.body("application/sdp", sdp.into_bytes());
        }
        self.request_in_fork(tag, request, Purpose::Prack, core, now);
    }

    /// A description in a provisional response: the answer to our offer, or the callee's offer, which our PRACK answers.
    ///
    /// # Errors
    /// For an offer that cannot be answered. A bad answer is no reason to end the call: the 2xx decides.
    fn take_early_description(
        &mut self,
        fork: usize,
        is_reliable: bool,
        response: &Message,
        core: &mut Core,
    ) -> Result<Option<String>, String> {
        let (audio, chat) = (self.local_audio(core), self.local_chat());
        let Leg::Outgoing(outgoing) = &mut self.leg else { return Ok(None) };
        let (late_offer, Some(invite)) = (outgoing.late_offer, &mut outgoing.invite) else { return Ok(None) };
        let is_first = invite.forks.running.is_none();
        let Some(state) = invite.forks.forks.get_mut(fork) else { return Ok(None) };
        if !late_offer {
            if state.answer.is_none() && response.body().len() <= MAX_KEPT_ANSWER {
                state.answer = Some(Bytes::copy_from_slice(response.body()));
            }
            state.settled_reliably |= is_reliable;
            if is_first && let Some(agreed) = take_something(&mut self.negotiator, response.body()) {
                invite.forks.running = Some(fork);
                self.show_remote_sdp(response.body());
                self.start_streams(agreed, core);
            }
            return Ok(None);
        }
        if !is_reliable || state.settled.is_some() {
            return Ok(None); // no offer can come this way (RFC 3261 §13.2.1), or it is answered already
        }
        let offer = Description::parse(response.body()).map_err(|error| error.to_string())?;
        let mut own = Negotiator::new(&mut core.random);
        let negotiator = if is_first { &mut self.negotiator } else { &mut own };
        let local = Local { audio: audio.as_ref(), chat: chat.as_ref() };
        let (sdp, agreed) = answer_offer(negotiator, &offer, local, core).map_err(|error| error.to_string())?;
        state.settled = Some(Box::new(Settled { negotiator: (!is_first).then_some(own), agreed: agreed.clone() }));
        if is_first {
            invite.forks.running = Some(fork);
            self.show_remote_sdp(response.body());
            self.change(|snapshot| snapshot.local_sdp = Some(shown_sdp(&sdp)));
            self.start_streams(agreed, core);
        }
        Ok(Some(sdp))
    }

    /// Answers the offer of an UPDATE in the early dialog that media runs by (RFC 3311 §5.2).
    pub(super) fn answer_offer_of_fork(&mut self, request: &Message, core: &mut Core) -> Result<String, BadOffer> {
        let (audio, chat) = (self.local_audio(core), self.local_chat());
        let offer = Description::parse(request.body()).map_err(NegotiationError::from)?;
        let local = Local { audio: audio.as_ref(), chat: chat.as_ref() };
        let (sdp, agreed) = answer_offer(&mut self.negotiator, &offer, local, core)?;
        if let Leg::Outgoing(outgoing) = &mut self.leg
            && let Some(forks) = outgoing.invite.as_mut().map(|invite| &mut invite.forks)
            && let Some(fork) = forks.running.and_then(|fork| forks.forks.get_mut(fork))
        {
            fork.updated = true;
        }
        self.show_remote_sdp(request.body());
        self.start_streams(agreed, core);
        Ok(sdp)
    }

    /// What a 2xx says about media: our offer answered, at last or before, or its own offer, which our ACK answers.
    ///
    /// # Errors
    /// Why the call cannot go on with it; with the answer that refuses an offer.
    pub(super) fn final_answer(
        &mut self,
        response: &Message,
        core: &mut Core,
    ) -> Result<Answer, (String, Option<String>)> {
        let (audio, chat) = (self.local_audio(core), self.local_chat());
        let local = Local { audio: audio.as_ref(), chat: chat.as_ref() };
        let Leg::Outgoing(outgoing) = &mut self.leg else { return Err(("not calling".into(), None)) };
        let (late_offer, Some(invite)) = (outgoing.late_offer, &mut outgoing.invite) else {
            return Err(("no INVITE is open".into(), None));
        };
        let tag = response.to().ok().and_then(|to| to.tag()).unwrap_or_default();
        let fork = invite.forks.find(tag);
        let runs = fork.is_some() && fork == invite.forks.running;
        let state = fork.and_then(|fork| invite.forks.forks.get_mut(fork));
        if late_offer {
            let updated = state.as_ref().is_some_and(|fork| fork.updated);
            if let Some(settled) = state.and_then(|fork| fork.settled.take()) {
                if let Some(negotiator) = settled.negotiator {
                    self.negotiator = negotiator;
                }
                return Ok(if runs || updated { Answer::Running } else { Answer::Agreed(settled.agreed) });
            }
            if !has_sdp(response) {
                return Err(("the 200 carries no offer".into(), None));
            }
            if invite.forks.running.is_some() {
                self.negotiator = Negotiator::new(&mut core.random); // it speaks to another fork
            }
            let offer = Description::parse(response.body()).map_err(|error| (error.to_string(), None))?;
            return match answer_offer(&mut self.negotiator, &offer, local, core) {
                Ok((sdp, agreed)) => Ok(Answer::Offer { sdp, agreed }),
                Err(error) => {
                    // The ACK has to answer all the same, with nothing (RFC 3261 §13.2.2.4).
                    let refusal = self.negotiator.answer(&offer, None, &mut core.random).ok();
                    Err((error.to_string(), refusal.map(|(sdp, _)| sdp.to_string())))
                }
            };
        }
        if runs && state.as_ref().is_some_and(|fork| fork.updated) {
            return Ok(Answer::Running);
        }
        let kept = state.and_then(|fork| fork.answer.take());
        let body = match (&kept, has_sdp(response)) {
            // The same answer again, or none because the provisional one stands (RFC 3261 §13.2.1).
            (Some(kept), true) if runs && *kept == *response.body() => return Ok(Answer::Running),
            (Some(_), false) if runs && response.body().is_empty() => return Ok(Answer::Running),
            (Some(kept), false) if response.body().is_empty() => &kept[..],
            (_, true) => response.body(),
            (_, false) => return Err(("the answer carries no SDP".into(), None)),
        };
        match take_answer(&mut self.negotiator, body) {
            Ok(agreed) if agreed.is_something() => {
                self.show_remote_sdp(body);
                Ok(Answer::Agreed(agreed))
            }
            Ok(_) if local.chat.is_none() => Err(("audio was refused".into(), None)),
            Ok(_) => Err(("every stream was refused".into(), None)),
            Err(error) => Err((error, None)),
        }
    }

    /// Ends a call that has not been answered for a reason of ours: CANCEL, or ACK and BYE for the 2xx that crosses it.
    pub(super) fn give_up_call(&mut self, why: &str, core: &mut Core, now: Instant) {
        if let Leg::Outgoing(outgoing) = &self.leg {
            outgoing.abandon(why, core, now);
        }
        self.fail(Failure::local(488, why), core);
    }
}

impl Outgoing {
    /// True for a request in the early dialog that media runs by, once its offer and answer are over.
    pub(super) fn has_settled(&self, request: &Message) -> bool {
        let Some(forks) = self.invite.as_ref().map(|invite| &invite.forks) else { return false };
        let running = forks.running.and_then(|at| Some((forks.dialogs.get(at)?, forks.forks.get(at)?)));
        running.is_some_and(|(dialog, fork)| {
            dialog.matches_request(request) && (fork.settled_reliably || fork.settled.is_some())
        })
    }

    /// Takes the INVITE back. A fork that answers all the same is ended with a number after those of its PRACKs.
    pub(super) fn abandon(&self, why: &str, core: &mut Core, now: Instant) {
        let Some(invite) = &self.invite else { return };
        core.forks.remember(invite.client, self.seq, &invite.forks.dialogs, now);
        let headers = [("Reason".to_owned(), crate::ua::core::reason_header(why))];
        let headers = if why.is_empty() { &[][..] } else { &headers[..] };
        core.transactions.cancel(invite.client, headers, now);
    }
}

/// The answer to an offer, when a stream comes of it.
fn answer_offer(
    negotiator: &mut Negotiator,
    offer: &Description,
    local: Local<'_>,
    core: &mut Core,
) -> Result<(String, Agreed), NegotiationError> {
    match negotiator.answer(offer, local, &mut core.random)? {
        (answer, agreed) if agreed.is_something() => Ok((answer.to_string(), agreed)),
        _ => Err(NegotiationError::NoKnownMedia),
    }
}

/// An answer that leaves us a stream.
fn take_something(negotiator: &mut Negotiator, body: &[u8]) -> Option<Agreed> {
    take_answer(negotiator, body).ok().filter(Agreed::is_something)
}
