//! Provisional responses of ours, plain and reliable (RFC 3262), and the media that may come with them (RFC 3960).
//!
//! A reliable response is repeated until its PRACK comes; while one is open the next ones wait. What it describes settles
//! offer and answer once it is acknowledged, so that the 200 needs no description of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;

use super::outgoing::{has_sdp, take_answer};
use super::table::{Permission, Verb};
use super::{BadOffer, Failure, Leg, Session, shown_sdp};
use crate::event::SessionState;
use crate::media::AudioParams;
use crate::sdp::description::Description;
use crate::sdp::negotiation::{Agreed, NegotiationError};
use crate::sip::headers::RAck;
use crate::sip::message::{HeaderName, Message};
use crate::sip::transaction::{ServerId, T1, TRANSACTION_TIMEOUT};
use crate::sip::transport::Flow;
use crate::ua::VerbError;
use crate::ua::core::{ALLOW, Core, RELIABLE, SUPPORTED};
use crate::ua::timers::Timer;

/// Provisional responses that wait for the PRACK of the one before: an application that rings and plays sends two.
const MAX_QUEUED: usize = 8;

/// Largest RSeq to begin with (RFC 3262 §3): a call never comes near the end of the numbers.
const FIRST_RSEQ: std::ops::RangeInclusive<u32> = 1..=0x3fff_ffff;

/// What the caller says about reliable provisional responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PeerReliability {
    #[default]
    Unsupported,
    Supported,
    Required,
}

impl PeerReliability {
    pub(super) fn of(invite: &Message) -> Self {
        if invite.lists(HeaderName::Require, RELIABLE) {
            Self::Required
        } else if invite.lists(HeaderName::Supported, RELIABLE) {
            Self::Supported
        } else {
            Self::Unsupported
        }
    }
}

/// How far offer and answer are before the final response.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// The application has asked for early media: the stream runs as soon as it is agreed on.
    wanted: bool,
    /// Our description was acknowledged (and, if it was an offer, answered): the 200 carries none.
    pub(super) settled: bool,
    /// What was agreed on; used at once when early media is wanted, at the answer otherwise.
    pub(super) params: Option<Box<AudioParams>>,
}

/// What a response of ours describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Describes {
    Nothing,
    Offer,
    Answer,
}

/// A provisional response to be sent.
#[derive(Debug)]
struct Progress {
    code: u16,
    describes: Describes,
    sdp: Option<String>,
}

/// The reliable responses of one INVITE.
#[derive(Debug)]
pub(super) struct Reliable {
    /// CSeq number of the INVITE, which RAck names too.
    number: u32,
    /// RSeq of the next one.
    next: u32,
    open: Option<Open>,
    queue: VecDeque<Progress>,
}

/// Sent, not acknowledged yet.
#[derive(Debug)]
struct Open {
    rseq: u32,
    code: u16,
    response: Bytes,
    interval: Duration,
    /// When the call is given up.
    until: Instant,
    describes: Describes,
}

impl Session {
    // --- verbs -------------------------------------------------------------------------------------------------------

    /// Sends 180.
    ///
    /// # Errors
    /// Outside INCOMING.
    pub fn ring(&mut self, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let Permission::Act = Verb::Ring.check(self.state())? else { return Ok(()) };
        self.send_ringing(core, now);
        Ok(())
    }

    /// Sends 183 with our answer and lets audio run before the call is taken. A second time nothing happens.
    ///
    /// # Errors
    /// Outside INCOMING, or for a caller that made no offer and does not know PRACK: nothing could carry its answer.
    pub fn early_media(&mut self, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let Permission::Act = Verb::EarlyMedia.check(self.state())? else { return Ok(()) };
        let state = self.state();
        let Leg::Incoming(incoming) = &mut self.leg else { return Ok(()) };
        if !incoming.offers && incoming.peer == PeerReliability::Unsupported {
            let why = "the caller makes no offer and does not support 100rel";
            return Err(Verb::EarlyMedia.impossible(state, why));
        }
        let early = incoming.early.get_or_insert_default();
        if std::mem::replace(&mut early.wanted, true) {
            return Ok(());
        }
        if early.settled {
            self.run_early(core); // its ringing carried our offer
            return Ok(());
        }
        let peer = incoming.flow.remote;
        if self.open_media(peer, core) {
            self.incoming_media_opened(core, now);
        }
        Ok(())
    }

    // --- what leaves -------------------------------------------------------------------------------------------------

    /// 180, reliably when the caller or the account wants that. Without an offer of the caller the first reliable response
    /// has to carry ours (RFC 3261 §13.2.1), so the sockets come first.
    pub(super) fn send_ringing(&mut self, core: &mut Core, now: Instant) {
        let reliable = self.rings_reliably(core);
        let Leg::Incoming(incoming) = &mut self.leg else { return };
        incoming.ringing = true;
        let describes_first = !incoming.offers && reliable && !incoming.described;
        let peer = incoming.flow.remote;
        if describes_first {
            if self.open_media(peer, core) {
                self.incoming_media_opened(core, now);
            }
            return;
        }
        self.progress_to(Progress { code: 180, describes: Describes::Nothing, sdp: None }, reliable, core, now);
    }

    fn rings_reliably(&self, core: &Core) -> bool {
        let Leg::Incoming(incoming) = &self.leg else { return false };
        match incoming.peer {
            PeerReliability::Unsupported => false,
            PeerReliability::Supported => core.accounts.get(self.account).is_some_and(|it| it.require_100rel),
            PeerReliability::Required => true,
        }
    }

    /// The sockets are there: for the answer, or for a provisional response that describes them.
    pub(super) fn incoming_media_opened(&mut self, core: &mut Core, now: Instant) {
        if self.state() == SessionState::Accepting {
            return self.answer_invite(core, now);
        }
        let Some(audio) = self.local_audio(core) else { return };
        let Leg::Incoming(incoming) = &mut self.leg else { return };
        if incoming.described {
            return;
        }
        let wanted = incoming.early.as_ref().is_some_and(|early| early.wanted);
        let code = if wanted { 183 } else { 180 };
        let (describes, sdp, params) = match incoming.offer() {
            None => (Describes::Offer, self.negotiator.offer(Some(&audio), &mut core.random), None),
            Some(offer) => match self.negotiator.answer(&offer, Some(&audio), &mut core.random) {
                Ok((answer, Agreed { audio: Some(params), .. })) => (Describes::Answer, answer, Some(Box::new(params))),
                Ok(_) => return self.refuse_and_fail(488, 488, "no audio that can be answered", core, now),
                Err(error) => return self.refuse_and_fail(488, 488, &error.to_string(), core, now),
            },
        };
        incoming.described = true;
        incoming.early.get_or_insert_default().params = params;
        let reliable = incoming.peer != PeerReliability::Unsupported;
        let sdp = sdp.to_string();
        self.change(|snapshot| snapshot.local_sdp = Some(shown_sdp(&sdp)));
        self.progress_to(Progress { code, describes, sdp: Some(sdp) }, reliable, core, now);
        self.run_early(core);
    }

    /// Starts the stream that was agreed on, if early media is wanted.
    fn run_early(&mut self, core: &mut Core) {
        let Leg::Incoming(incoming) = &self.leg else { return };
        let Some(early) = incoming.early.as_ref().filter(|early| early.wanted) else { return };
        let Some(params) = early.params.clone() else { return };
        self.start_audio(*params, core);
        if !self.snapshot.has_audio {
            self.post_audio_started(core);
        }
    }

    /// Sends a provisional response, or lets it wait for the PRACK of the one before.
    fn progress_to(&mut self, progress: Progress, reliable: bool, core: &mut Core, now: Instant) {
        if !reliable {
            return self.send_progress(progress, None, core, now);
        }
        let Leg::Incoming(incoming) = &self.leg else { return };
        let (number, first) = (incoming.number, core.random.random_range(FIRST_RSEQ));
        let reliable = self
            .reliable
            .get_or_insert_with(|| Box::new(Reliable { number, next: first, open: None, queue: VecDeque::new() }));
        if reliable.open.is_some() {
            let known = reliable.queue.iter().any(|one| one.sdp.is_none() && one.code == progress.code);
            if reliable.queue.len() < MAX_QUEUED && !(known && progress.sdp.is_none()) {
                reliable.queue.push_back(progress);
            }
            return;
        }
        let rseq = reliable.next;
        reliable.next += 1;
        self.send_progress(progress, Some(rseq), core, now);
    }

    fn send_progress(&mut self, progress: Progress, rseq: Option<u32>, core: &mut Core, now: Instant) {
        let Leg::Incoming(incoming) = &self.leg else { return };
        let Progress { code, describes, sdp } = progress;
        let (server, request) = (incoming.server, incoming.request());
        let contact = core.contact(self.account, incoming.flow, incoming.dialog.is_secure());
        let mut response = core.response(&request, code, Some(&self.tag), incoming.flow).header("Contact", contact);
        if rseq.is_some() || sdp.is_some() {
            // What may be sent in the early dialog (RFC 3311 §5.1). A plain 180 waits in thousands of copies, so it is short.
            response = response.header("Allow", ALLOW).header("Supported", SUPPORTED);
        }
        if let Some(rseq) = rseq {
            response = response.header("Require", RELIABLE).header("RSeq", rseq);
        }
        let response = response.finish(sdp.as_ref().map(|sdp| ("application/sdp", sdp.as_bytes())));
        core.transactions.respond(server, code, response.clone(), now);
        if let Some(rseq) = rseq {
            let response = Bytes::copy_from_slice(&response); // it was written into a roomier buffer
            let until = now + TRANSACTION_TIMEOUT;
            if let Some(reliable) = &mut self.reliable {
                reliable.open = Some(Open { rseq, code, response, interval: T1, until, describes });
            }
            core.timers.set(self.id, Timer::Provisional, now + T1);
        }
        core.timers.set(self.id, Timer::KeepRinging, now + super::incoming::KEEP_RINGING_EVERY);
    }

    // --- until the PRACK ---------------------------------------------------------------------------------------------

    /// No PRACK yet: the response is sent again, at T1 doubling (RFC 3262 §3). After 64·T1 the call is refused.
    pub(super) fn resend_provisional(&mut self, core: &mut Core, now: Instant) {
        let Leg::Incoming(incoming) = &self.leg else { return };
        let server = incoming.server;
        let Some(open) = self.reliable.as_mut().and_then(|reliable| reliable.open.as_mut()) else { return };
        if now >= open.until {
            return self.refuse_and_fail(504, 504, "No PRACK received", core, now);
        }
        open.interval *= 2;
        let (code, response) = (open.code, open.response.clone());
        let next = (now + open.interval).min(open.until);
        core.transactions.respond(server, code, response, now);
        core.timers.set(self.id, Timer::Provisional, next);
    }

    /// True while a description of ours waits for its PRACK: no 2xx may leave (RFC 3262 §3).
    pub(super) fn waits_for_prack(&self) -> bool {
        let open = self.reliable.as_ref().and_then(|reliable| reliable.open.as_ref());
        open.is_some_and(|open| open.describes != Describes::Nothing)
    }

    /// A final response has left: nothing is repeated or sent after it any more. The PRACK that is on its way is still
    /// taken.
    pub(super) fn end_provisionals(&mut self, core: &mut Core) {
        core.timers.cancel(self.id, Timer::Provisional);
        if let Some(reliable) = &mut self.reliable {
            reliable.queue.clear();
            match &mut reliable.open {
                Some(open) => open.response = Bytes::new(),
                None => self.reliable = None,
            }
        }
    }

    /// PRACK: it acknowledges the open response, may answer our offer, and may bring an offer of its own once the first
    /// exchange is over (RFC 3262 §3, §5).
    pub(super) fn handle_prack(
        &mut self,
        server: ServerId,
        prack: &Message,
        flow: Flow,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(rack) = prack.header(HeaderName::RAck).and_then(RAck::parse) else {
            return core.answer(server, prack, flow, 400, now);
        };
        let open = self.reliable.as_mut().filter(|reliable| reliable.number == rack.cseq.number);
        let open = open.and_then(|reliable| reliable.open.take_if(|open| open.rseq == rack.rseq));
        let Some(open) = open else { return core.answer(server, prack, flow, 481, now) };
        core.timers.cancel(self.id, Timer::Provisional);
        let settled = matches!(&self.leg, Leg::Incoming(incoming) if incoming.settled());
        let mut reply = None;
        match open.describes {
            Describes::Offer => {
                if let Err(error) = self.take_prack_answer(prack, core) {
                    core.answer(server, prack, flow, 488, now);
                    return self.refuse_and_fail(488, 488, &error, core, now);
                }
            }
            Describes::Answer => self.settle_early(),
            Describes::Nothing => {}
        }
        if (settled || open.describes == Describes::Answer) && has_sdp(prack) {
            match self.answer_early_offer(prack, core) {
                Ok(sdp) => reply = Some(sdp),
                Err(BadOffer { code, warning }) => {
                    core.answer_with(server, prack, flow, code, &[("Warning", &warning)], now);
                    return self.after_prack(core, now);
                }
            }
        }
        let body = reply.as_ref().map(|sdp| ("application/sdp", sdp.as_bytes()));
        let response = core.response(prack, 200, Some(&self.tag), flow).finish(body);
        core.transactions.respond(server, 200, response, now);
        self.after_prack(core, now);
    }

    /// The next response leaves, or the 200 that had to wait.
    fn after_prack(&mut self, core: &mut Core, now: Instant) {
        let Leg::Incoming(_) = self.leg else { return };
        if self.state() == SessionState::Accepting {
            return self.answer_invite(core, now);
        }
        self.run_early(core);
        let next = self.reliable.as_mut().and_then(|reliable| reliable.queue.pop_front());
        if let Some(progress) = next {
            self.progress_to(progress, true, core, now);
        }
    }

    fn settle_early(&mut self) {
        if let Leg::Incoming(incoming) = &mut self.leg {
            incoming.early.get_or_insert_default().settled = true;
        }
    }

    /// The answer to the offer in our provisional response.
    fn take_prack_answer(&mut self, prack: &Message, core: &mut Core) -> Result<(), String> {
        if !has_sdp(prack) {
            return Err("the PRACK carries no answer to our offer".into());
        }
        let params =
            take_answer(&mut self.negotiator, prack.body())?.audio.ok_or_else(|| "audio was refused".to_owned())?;
        self.show_remote_sdp(prack.body());
        self.settle_early();
        self.keep_early(params, core);
        Ok(())
    }

    /// Answers an offer in PRACK or UPDATE before the call is taken.
    pub(super) fn answer_early_offer(&mut self, request: &Message, core: &mut Core) -> Result<String, BadOffer> {
        let audio = self.local_audio(core);
        let offer = Description::parse(request.body()).map_err(NegotiationError::from)?;
        let (answer, agreed) = self.negotiator.answer(&offer, audio.as_ref(), &mut core.random)?;
        let sdp = answer.to_string();
        self.show_remote_sdp(request.body());
        self.change(|snapshot| snapshot.local_sdp = Some(shown_sdp(&sdp)));
        match agreed.audio {
            Some(params) => self.keep_early(params, core),
            None => tracing::debug!("an early offer takes audio away"),
        }
        Ok(sdp)
    }

    fn keep_early(&mut self, params: AudioParams, core: &mut Core) {
        let Leg::Incoming(incoming) = &mut self.leg else { return };
        incoming.early.get_or_insert_default().params = Some(Box::new(params));
        self.run_early(core);
    }

    /// Refuses an INVITE for a reason of ours that the application hears as a failure.
    pub(super) fn refuse_and_fail(&mut self, wire: u16, code: u16, reason: &str, core: &mut Core, now: Instant) {
        if let Leg::Incoming(incoming) = self.take_leg() {
            self.refuse(*incoming, wire, None, &[], core, now);
            self.fail(Failure::local(code, reason), core);
        }
    }
}
