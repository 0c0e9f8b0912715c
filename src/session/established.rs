//! A call that is up, and every request the peer sends inside a dialog (RFC 3261 §12.2.2, §14, §15; RFC 3311).

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;

use super::modify::Modify;
use super::outgoing::{has_sdp, is_sdp, take_answer};
use super::proposal::Proposal;
use super::{BadOffer, Leg, Session, peer_reason, refresh, shown_sdp};
use crate::event::{EventKind, Originator, SessionState, Streams};
use crate::media::AudioParams;
use crate::sdp::description::Description;
use crate::sdp::negotiation::{Agreed, Local, NegotiationError};
use crate::sip::dialog::Dialog;
use crate::sip::headers::list_contains;
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transaction::{ServerId, T1, T2};
use crate::sip::transport::Flow;
use crate::ua::core::{ACCEPT, ALLOW, Core, SUPPORTED};
use crate::ua::messages::take_in_session;
use crate::ua::options::answer_options;

/// Both sides have confirmed the dialog.
#[derive(Debug)]
pub(super) struct Confirmed {
    pub(super) dialog: Dialog,
    /// Their re-INVITE, answered with 2xx but not acknowledged yet.
    pub(super) unacked: Option<Unacked>,
    /// What we want to change.
    pub(super) modify: Modify,
    /// Streams the peer wants to add; the application decides.
    pub(super) proposal: Option<Box<Proposal>>,
}

impl Confirmed {
    pub(super) fn new(dialog: Dialog) -> Self {
        Self { dialog, unacked: None, modify: Modify::default(), proposal: None }
    }
}

/// A 2xx of ours that is repeated until its ACK comes (RFC 3261 §13.3.1.4).
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) server: ServerId,
    /// Number of the INVITE, which its ACK bears too.
    number: u32,
    pub(super) response: Bytes,
    interval: Duration,
    /// The 2xx carries our offer: the ACK must bring the answer.
    pub(super) offered: bool,
}

impl Unacked {
    pub(super) fn new(server: ServerId, number: u32, response: &Bytes, offered: bool) -> Self {
        let response = Bytes::copy_from_slice(response); // it was written into a roomier buffer
        Self { server, number, response, interval: T1, offered }
    }

    /// How long to wait after the next repetition.
    pub(super) fn next_interval(&mut self) -> Duration {
        self.interval = (self.interval * 2).min(T2);
        self.interval
    }
}

/// What to do with an INVITE or UPDATE inside the dialog.
enum Verdict {
    Answer {
        sdp: String,
        agreed: Box<Agreed>,
    },
    Offer {
        sdp: String,
    },
    /// The call is not taken yet: answered, and put to work already.
    Early {
        sdp: String,
    },
    Refresh,
    /// It adds streams: the application is asked.
    Ask(Streams),
    Refuse {
        code: u16,
        headers: Vec<(&'static str, String)>,
    },
}

impl Session {
    /// Media is agreed on and the ACK has passed: the call is up.
    pub(super) fn establish(&mut self, core: &mut Core) {
        if self.media.is_running() && !self.snapshot.has_audio {
            self.post_audio_started(core); // early media of ours has told it
        }
        self.set_state(SessionState::Established, core);
        self.post(EventKind::SessionDidStart, core);
        if self.snapshot.on_hold_by_remote {
            self.post(EventKind::SessionGotHoldRequest { originator: Originator::Remote }, core);
        }
        self.post_chat_started(core);
    }

    /// An ACK with our tag.
    pub fn handle_ack(&mut self, ack: &Message, core: &mut Core, now: Instant) {
        let Ok(cseq) = ack.cseq() else { return };
        let expected = self.unacked_mut().is_some_and(|unacked| unacked.number == cseq.number);
        if !expected || self.dialog_mut(ack).is_none() {
            return; // the ACK to a repeated 2xx, come twice
        }
        match &mut self.leg {
            Leg::Answered(_) => self.acknowledged(ack, core, now),
            Leg::Confirmed(_) => self.reinvite_acknowledged(ack, core, now),
            Leg::Ending(_) => self.bye_after_ack(core, now),
            Leg::Outgoing(_) | Leg::Incoming(_) | Leg::Over => {}
        }
    }

    /// A request with our tag in To: it is inside a dialog of this session, or answered with 481.
    pub fn handle_request(&mut self, server: ServerId, request: &Message, flow: Flow, core: &mut Core, now: Instant) {
        let number = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let Some(dialog) = self.dialog_mut(request) else { return core.answer(server, request, flow, 481, now) };
        if !dialog.take_remote_seq(number) {
            return core.answer(server, request, flow, 500, now);
        }
        if let Some(unsupported) = required_extensions(request) {
            return core.answer_with(server, request, flow, 420, &[("Unsupported", &unsupported)], now);
        }
        if matches!(request.method(), Method::Invite | Method::Update) && refresh::is_too_short(request) {
            let min = refresh::MIN_SE.to_string();
            return core.answer_with(server, request, flow, 422, &[("Min-SE", &min)], now);
        }
        match request.method() {
            Method::Bye => self.handle_bye(server, request, flow, core, now),
            _ if matches!(self.leg, Leg::Ending(_) | Leg::Over) => core.answer(server, request, flow, 481, now),
            Method::Invite => self.handle_reinvite(server, request, flow, core, now),
            Method::Prack => self.handle_prack(server, request, flow, core, now),
            Method::Update => self.handle_update(server, request, flow, core, now),
            Method::Message => {
                take_in_session(server, request, flow, (self.account, self.id), core, now);
            }
            Method::Info => self.handle_info(server, request, flow, core, now),
            Method::Refer => self.handle_refer(server, request, flow, core, now),
            Method::Notify => self.handle_notify(server, request, flow, core, now),
            Method::Options => answer_options(server, request, flow, core, now),
            method => {
                let code = if matches!(method, Method::Other(_)) { 501 } else { 405 };
                core.answer_with(server, request, flow, code, &[("Allow", ALLOW)], now);
            }
        }
    }

    /// The dialog a request belongs to.
    fn dialog_mut(&mut self, request: &Message) -> Option<&mut Dialog> {
        self.our_dialogs().iter_mut().find(|dialog| dialog.matches_request(request))
    }

    // --- BYE ---------------------------------------------------------------------------------------------------------

    fn handle_bye(&mut self, server: ServerId, bye: &Message, flow: Flow, core: &mut Core, now: Instant) {
        core.answer(server, bye, flow, 200, now);
        self.confirm_without_ack(core);
        match &self.leg {
            Leg::Incoming(_) => self.bye_while_ringing(bye, core, now),
            Leg::Answered(_) => self.bye_before_answer(core),
            Leg::Confirmed(_) => self.close_established(Originator::Remote, peer_reason(bye), core, now),
            Leg::Ending(_) => self.end_answered(core), // both hang up at once
            // A callee may not (RFC 3261 §15); its INVITE is still to be answered.
            Leg::Outgoing(_) | Leg::Over => {}
        }
    }

    // --- re-INVITE and UPDATE ----------------------------------------------------------------------------------------

    fn handle_reinvite(&mut self, server: ServerId, request: &Message, flow: Flow, core: &mut Core, now: Instant) {
        let verdict = match &self.leg {
            // Our own INVITE is open (RFC 3261 §14.2).
            Leg::Incoming(incoming) if incoming.settled() => early(self.answer_early_offer(request, core)),
            Leg::Outgoing(outgoing) if outgoing.has_settled(request) => early(self.answer_offer_of_fork(request, core)),
            Leg::Outgoing(_) => refuse(491),
            Leg::Confirmed(confirmed) if confirmed.modify.is_open() => refuse(491),
            Leg::Confirmed(confirmed) if confirmed.unacked.is_none() && confirmed.proposal.is_none() => {
                self.judge_offer(request, core)
            }
            _ => retry_after(core),
        };
        match verdict {
            Verdict::Answer { sdp, agreed } => {
                self.accept_reinvite(server, request, flow, &sdp, false, core, now);
                self.apply_offer(request, *agreed, core);
            }
            Verdict::Offer { sdp } => self.accept_reinvite(server, request, flow, &sdp, true, core, now),
            Verdict::Ask(streams) => self.take_proposal(server, request, flow, streams, core, now),
            Verdict::Refresh | Verdict::Early { .. } => {}
            Verdict::Refuse { code, headers } => send_refusal(server, request, flow, code, &headers, core, now),
        }
    }

    /// UPDATE is answered like a re-INVITE, at once and without ACK (RFC 3311 §5.2).
    fn handle_update(&mut self, server: ServerId, request: &Message, flow: Flow, core: &mut Core, now: Instant) {
        let verdict = match &self.leg {
            _ if request.body().is_empty() => Verdict::Refresh,
            Leg::Incoming(incoming) if incoming.settled() => early(self.answer_early_offer(request, core)),
            Leg::Outgoing(outgoing) if outgoing.has_settled(request) => early(self.answer_offer_of_fork(request, core)),
            Leg::Outgoing(_) => refuse(491),
            Leg::Confirmed(confirmed) if confirmed.modify.is_open() => refuse(491),
            Leg::Confirmed(confirmed) if confirmed.unacked.as_ref().is_some_and(|unacked| unacked.offered) => {
                refuse(491)
            }
            Leg::Confirmed(confirmed) if confirmed.proposal.is_none() => self.judge_offer(request, core),
            _ => retry_after(core), // an offer of theirs is not answered yet
        };
        let (sdp, agreed) = match verdict {
            Verdict::Answer { sdp, agreed } => (Some(sdp), Some(agreed)),
            // UPDATE cannot wait for a person (RFC 3311 §5.2).
            Verdict::Ask(_) => return core.answer(server, request, flow, 504, now),
            Verdict::Early { sdp } => (Some(sdp), None),
            Verdict::Offer { .. } | Verdict::Refresh => (None, None),
            Verdict::Refuse { code, headers } => {
                return send_refusal(server, request, flow, code, &headers, core, now);
            }
        };
        let contact = self.refresh_and_contact(request, flow, core);
        let timer = self.settle_timer(request, core, now);
        let response = core
            .response(request, 200, Some(&self.tag), flow)
            .header("Contact", contact)
            .header("Allow", ALLOW)
            .header("Supported", SUPPORTED);
        let response = timer.into_iter().fold(response, |response, (name, value)| response.header(name, value));
        let body = sdp.as_ref().map(|sdp| ("application/sdp", sdp.as_bytes()));
        core.transactions.respond(server, 200, response.finish(body), now);
        if let Some(sdp) = sdp {
            self.change(|snapshot| snapshot.local_sdp = Some(shown_sdp(&sdp)));
        }
        if let Some(agreed) = agreed {
            self.apply_offer(request, *agreed, core);
        }
    }

    /// The answer to an offer inside the dialog, or the offer a re-INVITE without one asks for. A refusal leaves the
    /// session as it was.
    fn judge_offer(&mut self, request: &Message, core: &mut Core) -> Verdict {
        let running = self.running_streams();
        let audio = self.local_audio(core).filter(|_| running.audio);
        let chat = self.local_chat().filter(|_| running.chat);
        let local = Local { audio: audio.as_ref(), chat: chat.as_ref() };
        if request.body().is_empty() {
            let sdp = self.negotiator.offer(local, &mut core.random).to_string();
            return Verdict::Offer { sdp };
        }
        if !request.header(HeaderName::ContentType).is_none_or(is_sdp) {
            return Verdict::Refuse { code: 415, headers: vec![("Accept", ACCEPT.into())] };
        }
        let offer = Description::parse(request.body()).map_err(NegotiationError::from);
        if let Ok(offer) = &offer {
            let added = self.proposed_by(offer, core);
            if added.audio || added.chat {
                // One question at a time: we have asked first.
                let may_ask = self.state() == SessionState::Established;
                return if may_ask { Verdict::Ask(added) } else { refuse(491) };
            }
        }
        match offer.and_then(|offer| self.negotiator.answer(&offer, local, &mut core.random)) {
            Ok((answer, agreed)) => Verdict::Answer { sdp: answer.to_string(), agreed: Box::new(agreed) },
            Err(error) => {
                let BadOffer { code, warning } = error.into();
                // Inside a session an offer without known media is just one that cannot be taken.
                let code = if code == 415 { 488 } else { code };
                Verdict::Refuse { code, headers: vec![("Warning", warning)] }
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // one response in one place
    pub(super) fn accept_reinvite(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        sdp: &str,
        offered: bool,
        core: &mut Core,
        now: Instant,
    ) {
        let contact = self.refresh_and_contact(request, flow, core);
        let timer = self.settle_timer(request, core, now);
        let response = core
            .response(request, 200, Some(&self.tag), flow)
            .header("Contact", contact)
            .header("Allow", ALLOW)
            .header("Supported", SUPPORTED);
        let response = timer.into_iter().fold(response, |response, (name, value)| response.header(name, value));
        let response = response.finish(Some(("application/sdp", sdp.as_bytes())));
        core.transactions.respond(server, 200, response.clone(), now);
        let number = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        if let Leg::Confirmed(confirmed) = &mut self.leg {
            confirmed.unacked = Some(Unacked::new(server, number, &response, offered));
        }
        self.start_2xx_timers(core, now);
        self.change(|snapshot| snapshot.local_sdp = Some(shown_sdp(sdp)));
    }

    fn refresh_and_contact(&mut self, request: &Message, flow: Flow, core: &Core) -> String {
        let secure = self.dialog_mut(request).is_some_and(|dialog| {
            dialog.refresh_target(request, flow);
            dialog.is_secure()
        });
        self.change(|snapshot| snapshot.peer_address = Some(flow.remote));
        core.contact(self.account, flow, secure)
    }

    fn reinvite_acknowledged(&mut self, ack: &Message, core: &mut Core, now: Instant) {
        self.stop_2xx_timers(core);
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        let Some(unacked) = confirmed.unacked.take() else { return };
        if !unacked.offered {
            return self.tell_changes(core, now);
        }
        match has_sdp(ack).then(|| take_answer(&mut self.negotiator, ack.body())) {
            Some(Ok(agreed)) => self.apply(ack, agreed, core),
            // No answer, or none we can use: what was agreed before holds.
            Some(Err(_)) | None => self.negotiator.roll_back(),
        }
        self.tell_changes(core, now);
    }

    /// The same for an offer of theirs, which says of itself whether they hold us.
    pub(super) fn apply_offer(&mut self, offer: &Message, agreed: Agreed, core: &mut Core) {
        self.apply(offer, agreed, core);
        if let Leg::Confirmed(confirmed) = &mut self.leg {
            confirmed.modify.held_by_offer = self.snapshot.on_hold_by_remote;
        }
    }

    /// Puts the outcome of a later offer/answer to work and tells what it means.
    pub(super) fn apply(&mut self, message: &Message, agreed: Agreed, core: &mut Core) {
        self.show_remote_sdp(message.body());
        match agreed.chat {
            Some(params) => self.start_chat(params, core),
            None if self.chat.end.is_running() => self.stop_chat(core),
            None => {}
        }
        match agreed.audio {
            Some(params) => self.apply_audio(params, core),
            None if self.media.is_running() => self.stop_audio(core),
            None => {}
        }
    }

    fn apply_audio(&mut self, params: AudioParams, core: &mut Core) {
        let was_on_hold = self.snapshot.on_hold_by_remote;
        self.start_audio(params, core);
        if !self.snapshot.has_audio {
            self.post_audio_started(core);
        }
        let originator = Originator::Remote;
        match (was_on_hold, self.snapshot.on_hold_by_remote) {
            (false, true) => self.post(EventKind::SessionGotHoldRequest { originator }, core),
            (true, false) => self.post(EventKind::SessionGotUnholdRequest { originator }, core),
            _ => return,
        }
        self.hold_changed(core);
    }
}

fn early(answer: Result<String, BadOffer>) -> Verdict {
    match answer {
        Ok(sdp) => Verdict::Early { sdp },
        Err(BadOffer { code, warning }) => Verdict::Refuse { code, headers: vec![("Warning", warning)] },
    }
}

fn refuse(code: u16) -> Verdict {
    Verdict::Refuse { code, headers: Vec::new() }
}

/// 500 with a random Retry-After of up to 10 s: another offer is open (RFC 3261 §14.2, RFC 3311 §5.2).
fn retry_after(core: &mut Core) -> Verdict {
    let seconds: u32 = core.random.random_range(0..=10);
    Verdict::Refuse { code: 500, headers: vec![("Retry-After", seconds.to_string())] }
}

fn send_refusal(
    server: ServerId,
    request: &Message,
    flow: Flow,
    code: u16,
    headers: &[(&'static str, String)],
    core: &mut Core,
    now: Instant,
) {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    core.answer_with(server, request, flow, code, &headers, now);
}

/// Extensions a request needs and we lack: all it names (RFC 3261 §8.2.2.3). Written back as they came.
pub(crate) fn required_extensions(request: &Message) -> Option<String> {
    let unknown =
        |name: &&[u8]| !name.is_empty() && !list_contains(SUPPORTED.as_bytes(), &String::from_utf8_lossy(name));
    let mut names = request.header_values(HeaderName::Require).filter(unknown).peekable();
    names.peek()?;
    let names: Vec<_> = names.take(16).map(String::from_utf8_lossy).collect();
    Some(names.join(", "))
}
