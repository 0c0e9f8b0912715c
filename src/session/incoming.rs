//! A call to us until it is answered and acknowledged (RFC 3261 §13.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::established::{Confirmed, Unacked};
use super::media::local_audio;
use super::outgoing::{has_sdp, take_answer};
use super::table::{Permission, Verb};
use super::{Failure, Leg, Session, header_list, peer_reason, shown_sdp, text};
use crate::event::{AccountId, CallDirection, EventKind, Originator, SessionId, SessionState, Snapshot, Streams};
use crate::media::{AudioParams, LocalMedia};
use crate::sdp::description::Description;
use crate::sdp::negotiation::{NegotiationError, Negotiator};
use crate::sip::build::reason_phrase;
use crate::sip::dialog::Dialog;
use crate::sip::message::{HeaderName, Message};
use crate::sip::transaction::{ServerId, T1, TRANSACTION_TIMEOUT};
use crate::sip::transport::Flow;
use crate::ua::VerbError;
use crate::ua::core::{ALLOW, Core, MergeKey, warning_header};
use crate::ua::timers::Timer;

/// Proxies give a ringing call up after three minutes of silence (RFC 3261 §13.3.1.1, §16.6 timer C).
const KEEP_RINGING_EVERY: Duration = Duration::from_secs(60);

/// An INVITE that has passed all checks.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub server: ServerId,
    pub request: Message,
    pub flow: Flow,
    pub account: AccountId,
    pub merge_key: MergeKey,
    /// Ours, for `dialog`.
    pub tag: String,
    pub dialog: Dialog,
    /// `None`: the peer wants us to offer.
    pub offer: Option<Description>,
}

#[derive(Debug)]
pub(super) struct Incoming {
    server: ServerId,
    /// The INVITE as it came: a call may ring for minutes, and its headers' places take more room than its bytes.
    invite: Bytes,
    flow: Flow,
    pub(super) dialog: Dialog,
    /// `None`: the peer wants us to offer.
    offer: Option<Description>,
    proposed: Streams,
    /// 180 was sent and is to be repeated.
    ringing: bool,
}

impl Incoming {
    fn request(&self) -> Message {
        Message::parse(self.invite.clone()).expect("the INVITE of this session was read before")
    }
}

/// Our 200 is on its way.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) dialog: Dialog,
    pub(super) unacked: Unacked,
}

/// Why an offer cannot be taken: the refusal to send.
#[derive(Debug)]
pub(crate) struct BadOffer {
    pub code: u16,
    pub warning: String,
}

impl From<NegotiationError> for BadOffer {
    fn from(error: NegotiationError) -> Self {
        let (code, warning) = match &error {
            NegotiationError::Malformed(_) => (400, 399),
            NegotiationError::NotAcceptable { warning, .. } => (488, *warning),
            NegotiationError::NoKnownMedia => (415, 304),
        };
        Self { code, warning: warning_header(warning, &error.to_string()) }
    }
}

/// Reads an offer and tries it out, so that only calls that can be answered become sessions.
pub(crate) fn check_offer(
    request: &Message,
    peer: SocketAddr,
    account: AccountId,
    core: &mut Core,
) -> Result<Option<Description>, BadOffer> {
    if request.body().is_empty() {
        return Ok(None);
    }
    let offer = Description::parse(request.body()).map_err(NegotiationError::from)?;
    let summary = Negotiator::inspect(&offer);
    if summary.chat && !summary.audio {
        return Err(NegotiationError::NotAcceptable { warning: 304, text: "chat is not available".into() }.into());
    }
    // The sockets do not exist yet; they will be of the family in which the peer speaks to us (a socket for both
    // families shows IPv4 peers as mapped addresses).
    let any: IpAddr =
        if peer.ip().to_canonical().is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let nowhere = LocalMedia { address: any, rtp_port: 1, rtcp_port: 1 };
    let audio = local_audio(nowhere, account, core);
    match Negotiator::new(&mut core.random).answer(&offer, Some(&audio), &mut core.random)? {
        (_, Some(_)) => Ok(Some(offer)),
        (_, None) => {
            Err(NegotiationError::NotAcceptable { warning: 304, text: "no audio that can be answered".into() }.into())
        }
    }
}

impl Session {
    /// A call arrives: 180, INCOMING, NewIncoming.
    pub fn arrive(id: SessionId, arrival: Arrival, core: &mut Core, now: Instant) -> Self {
        let Arrival { server, request, flow, account, merge_key, tag, dialog, offer } = arrival;
        let from = request.from().ok();
        let remote_sdp = offer.is_some().then(|| shown_sdp(&String::from_utf8_lossy(request.body())));
        let snapshot = Snapshot {
            direction: Some(CallDirection::Incoming),
            account: Some(account),
            call_id: Some(String::from_utf8_lossy(dialog.call_id()).into()),
            local_uri: request.to().ok().and_then(|to| to.uri().ok()),
            remote_uri: from.as_ref().and_then(|from| from.uri().ok()),
            remote_display_name: from.and_then(|from| from.display_name()).map(Into::into),
            remote_user_agent: text(&request, HeaderName::UserAgent),
            transport: Some(flow.transport),
            peer_address: Some(flow.remote),
            remote_sdp,
            request_headers: Some(header_list(&request)),
            ..Snapshot::default()
        };
        let expires = request.header(HeaderName::Expires).and_then(seconds);
        let proposed = Streams { audio: true, chat: false };
        let invite = request.as_bytes().clone();
        let incoming = Incoming { server, invite, flow, dialog, offer, proposed, ringing: false };
        let mut session = Self::new(id, tag, snapshot, Leg::Incoming(Box::new(incoming)), core);
        session.half_open = Some(flow.remote.ip());
        session.merge_key = Some(merge_key.clone());
        core.merge_keys.insert(merge_key, id);
        core.servers.insert(server, id);
        if let Some(expires) = expires {
            core.timers.set(id, Timer::Expires, now + expires);
        }
        if core.config.auto_ring {
            session.send_ringing(&request, core, now);
        }
        session.set_state(SessionState::Incoming, core);
        session.post(EventKind::SessionNewIncoming { streams: proposed }, core);
        session
    }

    // --- verbs -------------------------------------------------------------------------------------------------------

    /// Sends 180.
    ///
    /// # Errors
    /// Outside INCOMING.
    pub fn ring(&mut self, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let Permission::Act = Verb::Ring.check(self.state())? else { return Ok(()) };
        let Leg::Incoming(incoming) = &self.leg else { return Ok(()) };
        let request = incoming.request();
        self.send_ringing(&request, core, now);
        Ok(())
    }

    /// M3: asks for sockets; the 200 leaves when they are there.
    ///
    /// # Errors
    /// Outside INCOMING, or for streams that were not proposed.
    pub fn accept(&mut self, audio: bool, chat: bool, core: &mut Core) -> Result<(), VerbError> {
        let Permission::Act = Verb::Accept.check(self.state())? else { return Ok(()) };
        let Leg::Incoming(incoming) = &self.leg else {
            return Err(Verb::Accept.impossible(self.state(), "the call is not ringing"));
        };
        let proposed = incoming.proposed;
        for (name, wanted, proposed) in [("audio", audio, proposed.audio), ("chat", chat, proposed.chat)] {
            if wanted && !proposed {
                return Err(VerbError::BadArgument(format!("{name} was not proposed")));
            }
        }
        if !audio && !chat {
            return Err(VerbError::BadArgument("no stream is accepted: audio and chat are False".into()));
        }
        let peer = incoming.flow.remote;
        self.set_state(SessionState::Accepting, core);
        core.timers.cancel(self.id, Timer::KeepRinging);
        self.open_media(peer, core);
        Ok(())
    }

    // --- provisional responses ---------------------------------------------------------------------------------------

    fn send_ringing(&mut self, request: &Message, core: &mut Core, now: Instant) {
        let Leg::Incoming(incoming) = &mut self.leg else { return };
        incoming.ringing = true;
        let contact = core.contact(self.account, incoming.flow, incoming.dialog.is_secure());
        let ringing = core
            .response(request, 180, Some(&self.tag), incoming.flow)
            .header("Contact", contact)
            .header("Allow", ALLOW)
            .finish(None);
        core.transactions.respond(incoming.server, 180, ringing, now);
        core.timers.set(self.id, Timer::KeepRinging, now + KEEP_RINGING_EVERY);
    }

    pub(super) fn keep_ringing(&mut self, core: &mut Core, now: Instant) {
        if let Leg::Incoming(incoming) = &self.leg
            && incoming.ringing
        {
            let request = incoming.request();
            self.send_ringing(&request, core, now);
        }
    }

    // --- the answer --------------------------------------------------------------------------------------------------

    /// The sockets are there: answer (or offer) in a 200, and listen at once, because the peer may speak before its ACK.
    pub(super) fn answer_invite(&mut self, core: &mut Core, now: Instant) {
        let Some(audio) = self.local_audio(core) else { return };
        let Leg::Incoming(incoming) = &self.leg else { return };
        let (sdp, params) = match &incoming.offer {
            None => (self.negotiator.offer(Some(&audio), &mut core.random), None),
            Some(offer) => match self.negotiator.answer(offer, Some(&audio), &mut core.random) {
                Ok((answer, Some(params))) => (answer, Some(params)),
                Ok((_, None)) => return self.refuse_and_fail(488, 488, "no audio that can be answered", core, now),
                Err(error) => return self.refuse_and_fail(488, 488, &error.to_string(), core, now),
            },
        };
        let Leg::Incoming(incoming) = self.take_leg() else { return };
        let request = incoming.request();
        let Incoming { server, flow, dialog, .. } = *incoming;
        let sdp = sdp.to_string();
        let contact = core.contact(self.account, flow, dialog.is_secure());
        let response = core
            .response(&request, 200, Some(&self.tag), flow)
            .header("Contact", contact)
            .header("Allow", ALLOW)
            .finish(Some(("application/sdp", sdp.as_bytes())));
        core.servers.remove(&server);
        core.timers.cancel(self.id, Timer::Expires);
        core.transactions.respond(server, 200, response.clone(), now);
        let number = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let unacked = Unacked::new(server, number, &response, params.is_none());
        self.leg = Leg::Answered(Box::new(Answered { dialog, unacked }));
        self.start_2xx_timers(core, now);
        self.change(|snapshot| snapshot.local_sdp = Some(shown_sdp(&sdp)));
        if let Some(params) = params {
            self.start_audio(params, core);
        }
    }

    /// The ACK to the first 2xx: the call is up.
    pub(super) fn acknowledged(&mut self, ack: &Message, core: &mut Core, now: Instant) {
        let Leg::Answered(answered) = self.take_leg() else { return };
        let Answered { mut dialog, unacked } = *answered;
        self.stop_2xx_timers(core);
        let late = unacked.offered.then(|| self.late_answer(ack));
        match late {
            Some(Err(error)) => {
                core.send_bye(&mut dialog, Some(self.account), Some(&error), None, now);
                return self.fail(Failure::local(488, error), core);
            }
            Some(Ok(params)) => {
                self.show_remote_sdp(ack.body());
                self.start_audio(params, core);
            }
            None => {}
        }
        self.confirm(dialog, core);
    }

    /// BYE in the dialog proves that our 200 arrived; its ACK was lost or overtaken.
    pub(super) fn confirm_without_ack(&mut self, core: &mut Core) -> bool {
        match self.take_leg() {
            Leg::Answered(answered) if !answered.unacked.offered => {
                self.stop_2xx_timers(core);
                self.confirm(answered.dialog, core);
                true
            }
            other => {
                self.leg = other;
                false
            }
        }
    }

    fn confirm(&mut self, dialog: Dialog, core: &mut Core) {
        self.close_half_open(core);
        let mut confirmed = Confirmed::new(dialog);
        confirmed.modify.held_by_offer = self.snapshot.on_hold_by_remote;
        self.leg = Leg::Confirmed(Box::new(confirmed));
        self.post(EventKind::SessionWillStart, core);
        self.establish(core);
    }

    fn late_answer(&mut self, ack: &Message) -> Result<AudioParams, String> {
        if !has_sdp(ack) {
            return Err("the ACK carries no answer to our offer".into());
        }
        take_answer(&mut self.negotiator, ack.body())?.ok_or_else(|| "audio was refused".to_owned())
    }

    // --- refusals and failures ---------------------------------------------------------------------------------------

    /// Sends the final refusal of an INVITE that waits for it; `phrase` in place of the code's own.
    pub(super) fn refuse(
        &mut self,
        incoming: Incoming,
        code: u16,
        phrase: Option<&str>,
        core: &mut Core,
        now: Instant,
    ) {
        let request = incoming.request();
        let Incoming { server, flow, .. } = incoming;
        let phrase = phrase.unwrap_or_else(|| reason_phrase(code));
        let response = core.response_with(&request, code, phrase, Some(&self.tag), flow);
        core.servers.remove(&server);
        core.timers.cancel(self.id, Timer::Expires);
        core.timers.cancel(self.id, Timer::KeepRinging);
        self.close_half_open(core);
        core.transactions.respond(server, code, response.finish(None), now);
    }

    /// Refuses an INVITE for a reason of ours that the application hears as a failure.
    fn refuse_and_fail(&mut self, wire: u16, code: u16, reason: &str, core: &mut Core, now: Instant) {
        if let Leg::Incoming(incoming) = self.take_leg() {
            self.refuse(*incoming, wire, None, core, now);
            self.fail(Failure::local(code, reason), core);
        }
    }

    pub(super) fn incoming_media_failed(&mut self, error: &str, core: &mut Core, now: Instant) {
        self.refuse_and_fail(500, 0, error, core, now);
    }

    /// CANCEL for an INVITE that is not answered yet; its own 200 has been sent.
    pub fn handle_cancel(&mut self, cancel: &Message, core: &mut Core, now: Instant) {
        if let Leg::Incoming(_) = self.leg {
            self.give_up(peer_reason(cancel), "Request cancelled", core, now);
        }
    }

    /// The caller's Expires has run out.
    pub(super) fn expired(&mut self, core: &mut Core, now: Instant) {
        if let Leg::Incoming(_) = self.leg {
            self.give_up(None, "Request expired", core, now);
        }
    }

    /// BYE in the early dialog: the caller may do that too (RFC 3261 §15).
    pub(super) fn bye_while_ringing(&mut self, bye: &Message, core: &mut Core, now: Instant) {
        self.give_up(peer_reason(bye), "Request cancelled", core, now);
    }

    /// The caller does not want the call any more: 487.
    fn give_up(&mut self, end_reason: Option<Arc<str>>, why: &str, core: &mut Core, now: Instant) {
        if let Leg::Incoming(incoming) = self.take_leg() {
            self.refuse(*incoming, 487, None, core, now);
            self.change(|snapshot| snapshot.end_reason = end_reason);
            self.fail(Failure::remote(487, why), core);
        }
    }

    // --- the 2xx and its ACK -----------------------------------------------------------------------------------------

    pub(super) fn start_2xx_timers(&mut self, core: &mut Core, now: Instant) {
        core.timers.set(self.id, Timer::Resend2xx, now + T1);
        core.timers.set(self.id, Timer::NoAck, now + TRANSACTION_TIMEOUT);
    }

    pub(super) fn stop_2xx_timers(&mut self, core: &mut Core) {
        core.timers.cancel(self.id, Timer::Resend2xx);
        core.timers.cancel(self.id, Timer::NoAck);
    }

    /// Sends the 2xx again, at T1 doubling to T2, on every transport (RFC 3261 §13.3.1.4).
    pub(super) fn resend_2xx(&mut self, core: &mut Core, now: Instant) {
        let Some(unacked) = self.unacked_mut() else { return };
        let next = unacked.next_interval();
        let (server, response) = (unacked.server, unacked.response.clone());
        core.transactions.respond(server, 200, response, now);
        core.timers.set(self.id, Timer::Resend2xx, now + next);
    }

    /// 64·T1 without an ACK: the dialog exists for the peer or not, BYE ends it (RFC 3261 §13.3.1.4).
    pub(super) fn no_ack(&mut self, core: &mut Core, now: Instant) {
        const REASON: &str = "No ACK received";
        self.stop_2xx_timers(core);
        match &self.leg {
            Leg::Answered(_) => {
                let Leg::Answered(mut answered) = self.take_leg() else { return };
                core.send_bye(&mut answered.dialog, Some(self.account), Some(REASON), None, now);
                self.fail(Failure::local(408, REASON), core);
            }
            Leg::Confirmed(_) => {
                let Leg::Confirmed(confirmed) = &mut self.leg else { return };
                core.send_bye(&mut confirmed.dialog, Some(self.account), Some(REASON), None, now);
                self.close_established(Originator::Local, Some(REASON.into()), core, now);
            }
            Leg::Ending(_) => self.bye_after_ack(core, now),
            Leg::Outgoing(_) | Leg::Incoming(_) | Leg::Over => {}
        }
    }
}

/// Delta-seconds; anything else is as if it were not there. More than a day is no limit worth a timer.
fn seconds(value: &[u8]) -> Option<Duration> {
    const DAY: u64 = 86_400;
    let seconds: u64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (seconds > 0 && seconds <= DAY).then(|| Duration::from_secs(seconds))
}
