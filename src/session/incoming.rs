//! A call to us until it is answered and acknowledged (RFC 3261 §13.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::established::{Confirmed, Unacked};
use super::info::info_packages;
use super::media::local_audio;
use super::outgoing::{has_sdp, take_answer};
use super::provisional::{Early, PeerReliability};
use super::table::{Permission, Verb};
use super::{Failure, Leg, Session, peer_reason, shown_sdp, text};
use crate::event::{
    AccountId, CallDirection, EventKind, Headers, Originator, SessionId, SessionState, Snapshot, Streams,
};
use crate::media::LocalMedia;
use crate::sdp::description::Description;
use crate::sdp::negotiation::{Agreed, Local, NegotiationError, Negotiator};
use crate::sip::build::reason_phrase;
use crate::sip::dialog::Dialog;
use crate::sip::message::{HeaderName, Message};
use crate::sip::transaction::{ServerId, T1, TRANSACTION_TIMEOUT};
use crate::sip::transport::Flow;
use crate::sip::uri::Uri;
use crate::ua::VerbError;
use crate::ua::core::{ALLOW, Core, MergeKey, SUPPORTED, warning_header};
use crate::ua::timers::Timer;

/// Proxies give a ringing call up after three minutes of silence (RFC 3261 §13.3.1.1, §16.6 timer C).
pub(super) const KEEP_RINGING_EVERY: Duration = Duration::from_secs(60);

/// Targets of a redirection: as many as a forking proxy would try.
const MAX_TARGETS: usize = 16;

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
    /// The call of ours that this one is to take the place of (RFC 3891).
    pub replaces: Option<SessionId>,
}

#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) server: ServerId,
    /// The INVITE as it came: a call may ring for minutes, and its headers' places take more room than its bytes.
    invite: Bytes,
    /// Its CSeq number.
    pub(super) number: u32,
    pub(super) flow: Flow,
    pub(super) dialog: Dialog,
    /// It carries an offer, which is read again when it is answered; otherwise the peer wants us to offer.
    pub(super) offers: bool,
    proposed: Streams,
    pub(super) peer: PeerReliability,
    /// 180 was sent and is to be repeated.
    pub(super) ringing: bool,
    /// A provisional response describes our side already.
    pub(super) described: bool,
    pub(super) early: Option<Box<Early>>,
}

impl Incoming {
    pub(super) fn request(&self) -> Message {
        Message::parse(self.invite.clone()).expect("the INVITE of this session was read before")
    }

    pub(super) fn offer(&self) -> Option<Description> {
        let read = |request: Message| Description::parse(request.body()).expect("this offer was read before");
        self.offers.then(|| read(self.request()))
    }

    /// Offer and answer are over before the 200.
    pub(super) fn settled(&self) -> bool {
        self.early.as_ref().is_some_and(|early| early.settled)
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
    let offer = Description::parse(request.body()).map_err(|error| {
        core.stats.bad_descriptions += 1;
        NegotiationError::from(error)
    })?;
    let summary = Negotiator::inspect(&offer);
    let chat = summary.chat && core.config.chat;
    if summary.chat && !chat && !summary.audio {
        return Err(NegotiationError::NotAcceptable { warning: 304, text: "chat is not available".into() }.into());
    }
    let audio = local_audio(nowhere(peer), account, core);
    match Negotiator::new(&mut core.random).answer(&offer, Some(&audio), &mut core.random) {
        Ok((_, agreed)) if agreed.audio.is_some() || chat => Ok(Some(offer)),
        Ok(_) => {
            Err(NegotiationError::NotAcceptable { warning: 304, text: "no audio that can be answered".into() }.into())
        }
        Err(NegotiationError::Malformed(error)) => Err(NegotiationError::Malformed(error).into()),
        Err(_) if chat => Ok(Some(offer)),
        Err(error) => Err(error.into()),
    }
}

/// Stands for sockets that do not exist yet: of the family in which the peer speaks to us (a socket for both families
/// shows IPv4 peers as mapped addresses).
pub(super) fn nowhere(peer: SocketAddr) -> LocalMedia {
    let any: IpAddr =
        if peer.ip().to_canonical().is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    LocalMedia { address: any, rtp_port: 1, rtcp_port: 1 }
}

impl Session {
    /// A call arrives: 180, INCOMING, NewIncoming.
    pub fn arrive(id: SessionId, arrival: Arrival, core: &mut Core, now: Instant) -> Self {
        let Arrival { server, request, flow, account, merge_key, tag, dialog, offer, replaces } = arrival;
        let from = request.from().ok();
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
            request_headers: Some(Headers::of(&request)),
            replaces,
            ..Snapshot::default()
        };
        let expires = request.header(HeaderName::Expires).and_then(seconds);
        let proposed = match offer.as_ref().map(Negotiator::inspect) {
            Some(summary) => Streams { audio: summary.audio, chat: summary.chat && core.config.chat },
            None => Streams { audio: true, chat: false },
        };
        let incoming = Incoming {
            server,
            invite: request.as_bytes().clone(),
            number: request.cseq().map(|cseq| cseq.number).unwrap_or_default(),
            flow,
            dialog,
            offers: offer.is_some(),
            proposed,
            peer: PeerReliability::of(&request),
            ringing: false,
            described: false,
            early: None,
        };
        let mut session = Self::new(id, tag, snapshot, Leg::Incoming(Box::new(incoming)), core);
        session.half_open = Some(flow.remote.ip());
        session.merge_key = Some(merge_key);
        core.merge_keys.insert(merge_key, id);
        core.servers.insert(server, id);
        if let Some(expires) = expires {
            core.timers.set(id, Timer::Expires, now + expires);
        }
        if core.config.auto_ring {
            session.send_ringing(core, now);
        }
        session.set_state(SessionState::Incoming, core);
        session.post(EventKind::SessionNewIncoming { streams: proposed }, core);
        session
    }

    // --- verbs -------------------------------------------------------------------------------------------------------

    /// M3: asks for sockets; the 200 leaves when they are there.
    ///
    /// # Errors
    /// Outside INCOMING, or for streams that were not proposed.
    pub fn accept(&mut self, audio: bool, chat: bool, core: &mut Core, now: Instant) -> Result<(), VerbError> {
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
        if self.open_streams(Streams { audio, chat }, peer, core) {
            self.answer_invite(core, now); // early media has opened them
        }
        Ok(())
    }

    /// Sends the caller elsewhere (302): what M4 does, with the addresses in Contact, the first one preferred.
    ///
    /// # Errors
    /// Outside INCOMING, or without a target.
    pub fn redirect(&mut self, targets: &[Uri], core: &mut Core, now: Instant) -> Result<(), VerbError> {
        let Permission::Act = Verb::Redirect.check(self.state())? else { return Ok(()) };
        if targets.is_empty() || targets.len() > MAX_TARGETS {
            return Err(VerbError::BadArgument(format!("a call is redirected to 1 to {MAX_TARGETS} targets")));
        }
        if let Some(target) = targets.iter().find(|target| target.is_sip() && target.host.is_none()) {
            return Err(VerbError::BadArgument(format!("{target} names no host to be redirected to")));
        }
        let contacts: Vec<(&str, String)> = match targets {
            [only] => vec![("Contact", format!("<{only}>"))],
            _ => (0..).zip(targets).map(|(at, uri)| ("Contact", format!("<{uri}>;q={}", q(at)))).collect(),
        };
        self.set_state(SessionState::Terminating, core);
        self.post(EventKind::SessionWillEnd, core);
        if let Leg::Incoming(incoming) = self.take_leg() {
            self.refuse(*incoming, 302, None, &contacts, core, now);
        }
        self.finish(Originator::Local, None, core);
        Ok(())
    }

    // --- provisional responses ---------------------------------------------------------------------------------------

    pub(super) fn keep_ringing(&mut self, core: &mut Core, now: Instant) {
        if let Leg::Incoming(incoming) = &self.leg
            && incoming.ringing
        {
            self.send_ringing(core, now);
        }
    }

    // --- the answer --------------------------------------------------------------------------------------------------

    /// The sockets are there: answer (or offer) in a 200, and listen at once, because the peer may speak before its ACK.
    pub(super) fn answer_invite(&mut self, core: &mut Core, now: Instant) {
        let (audio, chat) = (self.local_audio(core), self.local_chat());
        let local = Local { audio: audio.as_ref(), chat: chat.as_ref() };
        if self.waits_for_prack() {
            return; // no 2xx before it; its coming brings us here again
        }
        let Leg::Incoming(incoming) = &mut self.leg else { return };
        let offer = incoming.offer();
        let settled = incoming.early.as_mut().filter(|early| early.settled);
        let (sdp, agreed) = match (offer, settled) {
            (_, Some(early)) => {
                let audio = early.params.take().map(|params| *params);
                (None, audio.map(|params| Agreed { audio: Some(params), chat: None }))
            }
            (None, None) => (Some(self.negotiator.offer(local, &mut core.random)), None),
            (Some(offer), None) => match self.negotiator.answer(&offer, local, &mut core.random) {
                Ok((answer, agreed)) if agreed.is_something() => (Some(answer), Some(agreed)),
                Ok(_) => return self.refuse_and_fail(488, 488, "no audio that can be answered", core, now),
                Err(error) => return self.refuse_and_fail(488, 488, &error.to_string(), core, now),
            },
        };
        let sdp = sdp.map(|sdp| sdp.to_string());
        let offered = sdp.is_some() && agreed.is_none();
        let Leg::Incoming(incoming) = self.take_leg() else { return };
        let request = incoming.request();
        let Incoming { server, number, flow, dialog, .. } = *incoming;
        let contact = core.contact(self.account, flow, dialog.is_secure());
        let timer = self.settle_timer(&request, core, now);
        let mut response = core
            .response(&request, 200, Some(&self.tag), flow)
            .header("Contact", contact)
            .header("Allow", ALLOW)
            .header("Supported", SUPPORTED);
        response = timer.into_iter().fold(response, |response, (name, value)| response.header(name, value));
        if let Some(packages) = info_packages(self.account, core) {
            response = response.header("Recv-Info", packages);
        }
        let response = response.finish(sdp.as_ref().map(|sdp| ("application/sdp", sdp.as_bytes())));
        core.servers.remove(&server);
        core.timers.cancel(self.id, Timer::Expires);
        core.timers.cancel(self.id, Timer::KeepRinging);
        self.end_provisionals(core);
        core.transactions.respond(server, 200, response.clone(), now);
        let unacked = Unacked::new(server, number, &response, offered);
        self.leg = Leg::Answered(Box::new(Answered { dialog, unacked }));
        self.start_2xx_timers(core, now);
        if let Some(sdp) = sdp {
            self.change(|snapshot| snapshot.local_sdp = Some(shown_sdp(&sdp)));
        }
        if let Some(agreed) = agreed {
            self.start_streams(agreed, core);
            self.close_idle_streams(core);
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
            Some(Ok(agreed)) => {
                self.show_remote_sdp(ack.body());
                self.start_streams(agreed, core);
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

    fn late_answer(&mut self, ack: &Message) -> Result<Agreed, String> {
        if !has_sdp(ack) {
            return Err("the ACK carries no answer to our offer".into());
        }
        let agreed = take_answer(&mut self.negotiator, ack.body())?;
        if agreed.is_something() { Ok(agreed) } else { Err("audio was refused".to_owned()) }
    }

    // --- refusals and failures ---------------------------------------------------------------------------------------

    /// Sends the final refusal of an INVITE that waits for it; `phrase` in place of the code's own.
    pub(super) fn refuse(
        &mut self,
        incoming: Incoming,
        code: u16,
        phrase: Option<&str>,
        headers: &[(&str, String)],
        core: &mut Core,
        now: Instant,
    ) {
        let request = incoming.request();
        let Incoming { server, flow, .. } = incoming;
        let phrase = phrase.unwrap_or_else(|| reason_phrase(code));
        let mut response = core.response_with(&request, code, phrase, Some(&self.tag), flow);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        core.servers.remove(&server);
        core.timers.cancel(self.id, Timer::Expires);
        core.timers.cancel(self.id, Timer::KeepRinging);
        self.end_provisionals(core);
        self.close_half_open(core);
        core.transactions.respond(server, code, response.finish(None), now);
    }

    pub(super) fn incoming_media_failed(&mut self, error: &str, core: &mut Core, now: Instant) {
        self.refuse_and_fail(500, 0, error, core, now);
    }

    /// CANCEL for an INVITE that is not answered yet; its own 200 has been sent.
    pub fn handle_cancel(&mut self, cancel: &Message, core: &mut Core, now: Instant) {
        if let Leg::Confirmed(_) = self.leg {
            return self.proposal_cancelled(core, now);
        }
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
            self.refuse(*incoming, 487, None, &[], core, now);
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

/// Weight of the target at this place, for callers that sort by it: 1.0, 0.9, … 0.1, and so on.
fn q(at: usize) -> String {
    format!("{:.1}", 1.0 - 0.1 * at.min(9) as f64)
}

/// Delta-seconds; anything else is as if it were not there. More than a day is no limit worth a timer.
fn seconds(value: &[u8]) -> Option<Duration> {
    const DAY: u64 = 86_400;
    let seconds: u64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (seconds > 0 && seconds <= DAY).then(|| Duration::from_secs(seconds))
}
