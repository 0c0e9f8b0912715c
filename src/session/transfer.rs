//! Transfers of a call (RFC 3515, RFC 4488, RFC 5589), in both roles.
//!
//! ```text
//! REFER of ours    Asking ──2xx──▶ followed by NOTIFY ──final──▶ over; after 2xx we leave with BYE
//! REFER of theirs  Asked ──accept_transfer()──▶ Following (202, NOTIFY for what the new call does) ──final──▶ over
//!                    ╰─reject_transfer(), or nobody asked for 20 s──▶ refused
//! ```
//!
//! No call is ever placed for a peer unless the application says so. A session takes part in one transfer at a time, in
//! either role.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ending::check_refusal;
use super::in_dialog::{Answer, Purpose};
use super::outgoing::name_addr;
use super::table::Verb;
use super::{Leg, Session};
use crate::event::{EventKind, Route, SessionId};
use crate::sip::build::reason_phrase;
use crate::sip::event_package::{EndReason, EventPackage, SubscriptionState, notify_headers};
use crate::sip::headers::{ContentType, Replaces};
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::refer::{self, BadRefer, ReferTo, SIPFRAG, Sipfrag};
use crate::sip::transaction::{ServerId, TRANSACTION_TIMEOUT};
use crate::sip::transport::Flow;
use crate::sip::uri::Uri;
use crate::ua::core::{Core, warning_header};
use crate::ua::dialog_request::DialogRequest;
use crate::ua::timers::Timer;
use crate::ua::transfers::Report;
use crate::ua::{Connect, VerbError};

/// How long the application may think about a REFER: the peer gives up after 32 s, and at 20 % loss the refusal needs a
/// few of its repetitions to arrive.
const CONSENT_PATIENCE: Duration = Duration::from_secs(20);

/// REFERs that may lie behind one call before another is taken for a loop.
const MAX_HOPS: u8 = 5;

/// Life of the subscription a REFER makes (RFC 3515 §2.4.4): longer than any proxy lets a call ring (timer C).
const SUBSCRIPTION: Duration = Duration::from_secs(300);

/// Longest life of such a subscription that we believe a peer: the transfer is given up then.
const MAX_SUBSCRIPTION: Duration = Duration::from_secs(3600);

/// Provisional reports of one transfer that are passed on in either direction.
const MAX_REPORTS: u8 = 32;

/// REFERs of one call that the application is asked about; a peer that has more to ask is no phone.
const MAX_ASKED: u8 = 64;

const REFER_SUB: &str = "Refer-Sub";

/// Transfers of a session.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// The call whose REFER made this one; it hears how this one goes.
    referrer: Option<SessionId>,
    /// REFERs that lie behind this call.
    hops: u8,
    /// REFERs of the peer that the application was asked about.
    asked: u8,
    /// REFERs of the peer that were accepted: from the second on, reports name theirs.
    accepted: u32,
    /// A REFER of ours made a subscription here once: its last NOTIFY may still come.
    subscribed: bool,
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// Their REFER waits for the application's consent.
    Asked(Box<Asked>),
    /// Their REFER was accepted: the new call is under way, and they hear of it.
    Following(Box<Following>),
    /// Our REFER.
    Asking(Asking),
}

#[derive(Debug)]
struct Asked {
    server: ServerId,
    request: Bytes,
    flow: Flow,
    refer_to: ReferTo,
    referred_by: Option<String>,
    wants_reports: bool,
}

#[derive(Debug)]
struct Following {
    call: SessionId,
    event: EventPackage,
    until: Instant,
    wants_reports: bool,
    /// NOTIFYs follow each other, or they could overtake each other.
    in_flight: bool,
    next: Option<Sipfrag>,
    last: u16,
    told: u8,
}

#[derive(Clone, Copy, Debug)]
struct Asking {
    /// It was taken: by a 2xx, or by a NOTIFY that overtook it (RFC 3515 §2.4.4).
    accepted: bool,
    /// CSeq number of the REFER, once it is answered.
    number: Option<u32>,
    last: u16,
    told: u8,
}

impl Session {
    // --- REFER of ours -----------------------------------------------------------------------------------------------

    /// Asks the peer to call `refer_to` in place of this call.
    ///
    /// # Errors
    /// Outside ESTABLISHED, during another transfer, or when the peer has said that it takes no REFER.
    pub fn transfer(&mut self, refer_to: &Uri, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        Verb::Transfer.check(self.state())?;
        let impossible = |why: &str| Err(Verb::Transfer.impossible(self.state(), why));
        if !matches!(self.stage(), Stage::Idle) {
            return impossible("another transfer of this session is under way");
        }
        let Leg::Confirmed(confirmed) = &self.leg else { return impossible("the call is not confirmed") };
        if !self.peer_allows(&Method::Refer) {
            return impossible("the peer takes no REFER");
        }
        let contact = core.contact(self.account, confirmed.dialog.flow(), confirmed.dialog.is_secure());
        let account = core.accounts.get(self.account);
        let us = account.map(|account| account.uri.clone()).or_else(|| self.snapshot.local_uri.clone());
        let mut request = DialogRequest::new(Method::Refer, self.account)
            .header("Contact", contact)
            .header("Refer-To", format!("<{refer_to}>"));
        if let Some(us) = us {
            request = request.header("Referred-By", name_addr(None, &us));
        }
        if self.request_in_dialog(request, Purpose::Refer, core, now).is_none() {
            return Err(Verb::Transfer.impossible(self.state(), "too many requests are not answered yet"));
        }
        self.transfers.stage = Stage::Asking(Asking { accepted: false, number: None, last: 0, told: 0 });
        let mut target = refer_to.clone();
        let replaces = target.headers.iter().find(|(name, _)| name == "Replaces");
        let replaces = replaces.and_then(|(_, value)| replaced_call(value));
        target.headers.clear();
        self.post(EventKind::SessionTransferNewOutgoing { target: target.into(), replaces }, core);
        Ok(())
    }

    /// The place of this session in its call, for somebody else to take over: the peer's address and the Replaces.
    ///
    /// # Errors
    /// When the call is not up.
    pub fn place(&self) -> Result<(Uri, String), VerbError> {
        match &self.leg {
            Leg::Confirmed(confirmed) => {
                let dialog = &confirmed.dialog;
                Ok((dialog.remote_target().clone(), refer::replaces_for_peer_of(dialog)))
            }
            _ => Err(Verb::Transfer.impossible(self.state(), "the call to be replaced is not up")),
        }
    }

    /// The final answer to our REFER.
    pub(super) fn refer_answered(&mut self, answer: &Answer<'_>, core: &mut Core, now: Instant) {
        let Stage::Asking(mut asking) = *self.stage() else { return };
        if (200..300).contains(&answer.code) {
            let first = !asking.accepted;
            (asking.accepted, asking.number) = (true, Some(answer.number));
            self.transfers.stage = Stage::Asking(asking);
            if first {
                core.timers.set(self.id, Timer::Transfer, now + TRANSACTION_TIMEOUT);
                self.post(EventKind::SessionTransferDidStart { session: None }, core);
            }
            let response = answer.response.map(|(response, _)| response);
            if response.is_some_and(|response| says_false(response, REFER_SUB)) {
                // Nothing more will be heard of it (RFC 4488 §4).
                self.transfer_went(Sipfrag::new(answer.code, answer.reason.clone()), core, now);
            }
        } else if !asking.accepted {
            self.transfer_went(Sipfrag::new(answer.code, answer.reason.clone()), core, now);
        }
    }

    /// A NOTIFY inside the call's dialog: only a REFER of ours makes a subscription there.
    pub(super) fn handle_notify(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(event) = EventPackage::of(request).filter(|event| event.name.eq_ignore_ascii_case("refer")) else {
            return core.answer_with(server, request, flow, 489, &[("Allow-Events", "refer")], now);
        };
        let state = SubscriptionState::of(request);
        let Stage::Asking(asking) = *self.stage() else {
            let code = if self.transfers.subscribed { 200 } else { 481 };
            return core.answer(server, request, flow, code, now);
        };
        let number = event.id.map(|id| id.parse::<u32>().ok());
        if let (Some(named), Some(ours)) = (number, asking.number)
            && named != Some(ours)
        {
            return core.answer(server, request, flow, 481, now);
        }
        let Some(state) = state else { return core.answer(server, request, flow, 400, now) };
        let kind = request.header(HeaderName::ContentType).and_then(ContentType::parse);
        if !request.body().is_empty() && kind.is_none_or(|kind| !kind.is(SIPFRAG)) {
            return core.answer_with(server, request, flow, 415, &[("Accept", SIPFRAG)], now);
        }
        core.answer(server, request, flow, 200, now);
        self.transfers.subscribed = true;
        self.take_report(asking, Sipfrag::parse(request.body()), &state, core, now);
    }

    fn take_report(
        &mut self,
        mut asking: Asking,
        report: Option<Sipfrag>,
        state: &SubscriptionState,
        core: &mut Core,
        now: Instant,
    ) {
        if !asking.accepted {
            asking.accepted = true;
            self.post(EventKind::SessionTransferDidStart { session: None }, core);
        }
        match report {
            Some(report) if report.is_final() => return self.transfer_went(report, core, now),
            Some(report) if report.code != asking.last && asking.told < MAX_REPORTS => {
                (asking.last, asking.told) = (report.code, asking.told + 1);
                let (code, reason) = (report.code, report.reason.into());
                self.post(EventKind::SessionTransferGotProgress { code, reason }, core);
            }
            _ => {}
        }
        self.transfers.stage = Stage::Asking(asking);
        match state {
            SubscriptionState::Terminated { reason, .. } => {
                let why = reason.as_ref().map_or("no reason", EndReason::as_str);
                self.transfer_went(Sipfrag::new(487, format!("the peer reports no more ({why})")), core, now);
            }
            SubscriptionState::Active { expires } | SubscriptionState::Pending { expires } => {
                let seconds = expires.map_or(SUBSCRIPTION, |seconds| Duration::from_secs(seconds.into()));
                let life = seconds.clamp(TRANSACTION_TIMEOUT, MAX_SUBSCRIPTION);
                core.timers.set(self.id, Timer::Transfer, now + life);
            }
        }
    }

    /// Our transfer is over. After success we leave the call: the peer talks to somebody else now.
    fn transfer_went(&mut self, outcome: Sipfrag, core: &mut Core, now: Instant) {
        core.timers.cancel(self.id, Timer::Transfer);
        self.transfers.stage = Stage::Idle;
        let (code, reason) = (outcome.code, outcome.reason.into());
        if (200..300).contains(&code) {
            self.post(EventKind::SessionTransferDidEnd { code, reason }, core);
            self.end(None, core, now);
        } else {
            self.post(EventKind::SessionTransferDidFail { code, reason }, core);
        }
    }

    // --- REFER of theirs ---------------------------------------------------------------------------------------------

    /// A REFER in the dialog: whether to follow it is for the application to say.
    pub(super) fn handle_refer(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        core: &mut Core,
        now: Instant,
    ) {
        let refused = |code, text: &str, core: &mut Core| {
            core.answer_with(server, request, flow, code, &[("Warning", &warning_header(399, text))], now);
        };
        if !matches!(self.leg, Leg::Confirmed(_)) || !matches!(self.stage(), Stage::Idle) {
            return refused(491, "another transfer or the set-up of the call is under way", core);
        }
        let refer_to = match ReferTo::of(request) {
            Ok(refer_to) => refer_to,
            Err(BadRefer::Malformed(text)) => return refused(400, text, core),
            Err(BadRefer::Scheme) => return refused(416, "only SIP addresses can be called", core),
            Err(BadRefer::Method) => return refused(403, "only calls can be asked for", core),
        };
        if self.transfers.hops >= MAX_HOPS {
            return refused(483, "too many transfers lie behind this call", core);
        }
        if self.transfers.asked >= MAX_ASKED {
            return refused(403, "too many transfers were asked for in this call", core);
        }
        self.transfers.asked += 1;
        let (referred_by, who) = refer::referred_by(request).unzip();
        let event = EventKind::SessionGotTransferRequest {
            target: refer_to.target.clone().into(),
            replaces: refer_to.replaces.as_deref().and_then(replaced_call),
            referred_by: who.map(Into::into),
        };
        self.transfers.stage = Stage::Asked(Box::new(Asked {
            server,
            request: request.as_bytes().clone(),
            flow,
            refer_to,
            referred_by,
            wants_reports: !says_false(request, REFER_SUB),
        }));
        core.timers.set(self.id, Timer::Transfer, now + CONSENT_PATIENCE);
        self.post(event, core);
    }

    /// The call that the waiting REFER asks for.
    ///
    /// # Errors
    /// Without a REFER that waits.
    pub fn asked_call(&self, routes: Vec<Route>) -> Result<Connect, VerbError> {
        Verb::AcceptTransfer.check(self.state())?;
        let Stage::Asked(asked) = self.stage() else {
            return Err(Verb::AcceptTransfer.impossible(self.state(), "no transfer request waits"));
        };
        let header = |name: &str, value: &Option<String>| value.clone().map(|value| (name.to_owned(), value));
        let referred_by = header("Referred-By", &asked.referred_by);
        let replaces = header("Replaces", &asked.refer_to.replaces);
        Ok(Connect {
            account: self.account,
            callee: asked.refer_to.target.clone(),
            routes,
            audio: true,
            chat: false,
            late_offer: false,
            extra_headers: referred_by.into_iter().chain(replaces).collect(),
        })
    }

    /// This call exists because of a REFER in another one.
    pub fn set_referrer(&mut self, referrer: SessionId, hops: u8) {
        self.transfers.referrer = Some(referrer);
        self.transfers.hops = hops;
    }

    /// For calls that this one's REFER makes.
    pub fn next_hops(&self) -> u8 {
        self.transfers.hops.saturating_add(1)
    }

    /// The waiting REFER is followed by this call.
    pub fn follow(&mut self, call: SessionId, core: &mut Core, now: Instant) {
        let Stage::Asked(asked) = std::mem::take(&mut self.transfers.stage) else { return };
        let request = Message::parse(asked.request.clone()).expect("the REFER of this session was read before");
        let secure = self.our_dialogs().first().is_some_and(|dialog| dialog.is_secure());
        let contact = core.contact(self.account, asked.flow, secure);
        let mut response = core.response(&request, 202, Some(&self.tag), asked.flow).header("Contact", contact);
        if !asked.wants_reports {
            response = response.header(REFER_SUB, "false");
        }
        core.transactions.respond(asked.server, 202, response.finish(None), now);
        // The first REFER of a dialog needs no name, each further one has its CSeq number for one (RFC 3515 §2.4.6).
        let number = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let event = EventPackage::new("refer");
        let event = if self.transfers.accepted == 0 { event } else { event.with_id(number.to_string()) };
        self.transfers.accepted = self.transfers.accepted.saturating_add(1);
        let until = now + SUBSCRIPTION;
        self.transfers.stage = Stage::Following(Box::new(Following {
            call,
            event,
            until,
            wants_reports: asked.wants_reports,
            in_flight: false,
            next: None,
            last: 100,
            told: 0,
        }));
        core.timers.set(self.id, Timer::Transfer, until);
        self.post(EventKind::SessionTransferDidStart { session: Some(call) }, core);
        self.report(Sipfrag::new(100, reason_phrase(100)), core, now);
    }

    /// Refuses the waiting REFER.
    ///
    /// # Errors
    /// Without one, or for a code that is no refusal.
    pub fn reject_transfer(&mut self, code: u16, core: &mut Core, now: Instant) -> Result<(), VerbError> {
        Verb::RejectTransfer.check(self.state())?;
        check_refusal(code)?;
        if !matches!(self.stage(), Stage::Asked(_)) {
            return Err(Verb::RejectTransfer.impossible(self.state(), "no transfer request waits"));
        }
        self.refuse_refer(code, core, now);
        Ok(())
    }

    fn refuse_refer(&mut self, code: u16, core: &mut Core, now: Instant) {
        core.timers.cancel(self.id, Timer::Transfer);
        let Stage::Asked(asked) = std::mem::take(&mut self.transfers.stage) else { return };
        let request = Message::parse(asked.request.clone()).expect("the REFER of this session was read before");
        core.answer(asked.server, &request, asked.flow, code, now);
    }

    /// What became of the call that a REFER in this one asked for.
    pub fn referral_went(&mut self, call: SessionId, outcome: Sipfrag, core: &mut Core, now: Instant) {
        let Stage::Following(following) = &mut self.transfers.stage else { return };
        if following.call != call || following.last >= 200 {
            return;
        }
        if !outcome.is_final() {
            if outcome.code != following.last && following.told < MAX_REPORTS {
                (following.last, following.told) = (outcome.code, following.told + 1);
                self.report(outcome, core, now);
            }
            return;
        }
        following.last = outcome.code;
        let (code, reason): (u16, Arc<str>) = (outcome.code, outcome.reason.as_str().into());
        let succeeded = (200..300).contains(&code);
        self.post(
            if succeeded {
                EventKind::SessionTransferDidEnd { code, reason }
            } else {
                EventKind::SessionTransferDidFail { code, reason }
            },
            core,
        );
        self.report(outcome, core, now);
    }

    /// Tells the peer, after what it was told before; of several reports that wait the last one goes.
    fn report(&mut self, report: Sipfrag, core: &mut Core, now: Instant) {
        let Stage::Following(following) = &mut self.transfers.stage else { return };
        if !following.wants_reports {
            if report.is_final() {
                self.stop_following(core);
            }
            return;
        }
        following.next = Some(report);
        self.send_report(core, now);
    }

    fn send_report(&mut self, core: &mut Core, now: Instant) {
        let Stage::Following(following) = &mut self.transfers.stage else { return };
        if following.in_flight {
            return;
        }
        let Some(report) = following.next.take() else { return };
        let left = following.until.saturating_duration_since(now).as_secs();
        let state = match report.is_final() {
            true => SubscriptionState::ended(EndReason::NoResource),
            false => SubscriptionState::Active { expires: Some(u32::try_from(left).unwrap_or(u32::MAX)) },
        };
        following.in_flight = true;
        let headers = notify_headers(&following.event, &state);
        let Leg::Confirmed(confirmed) = &self.leg else { return };
        let contact = core.contact(self.account, confirmed.dialog.flow(), confirmed.dialog.is_secure());
        let mut request = DialogRequest::new(Method::Notify, self.account).header("Contact", contact);
        request.headers.extend(headers);
        let request = request.body(format!("{SIPFRAG};version=2.0"), report.to_string());
        let purpose = Purpose::Report { last: report.is_final() };
        if self.request_in_dialog(request, purpose, core, now).is_none() {
            self.stop_following(core);
        }
    }

    /// The answer to a report. A peer that does not want it gets no more (RFC 6665 §4.2.2).
    pub(super) fn report_answered(&mut self, last: bool, answer: &Answer<'_>, core: &mut Core, now: Instant) {
        let Stage::Following(following) = &mut self.transfers.stage else { return };
        following.in_flight = false;
        if last {
            return self.stop_following(core);
        }
        if answer.code >= 300 {
            following.wants_reports = false;
            let over = following.next.take().is_some_and(|next| next.is_final());
            if over {
                self.stop_following(core);
            }
            return;
        }
        self.send_report(core, now);
    }

    fn stop_following(&mut self, core: &mut Core) {
        core.timers.cancel(self.id, Timer::Transfer);
        self.transfers.stage = Stage::Idle;
    }

    // --- both --------------------------------------------------------------------------------------------------------

    fn stage(&self) -> &Stage {
        &self.transfers.stage
    }

    pub(super) fn transfer_timed_out(&mut self, core: &mut Core, now: Instant) {
        match &mut self.transfers.stage {
            Stage::Idle => {}
            Stage::Asked(_) => self.refuse_refer(603, core, now),
            Stage::Following(following) => following.wants_reports = false, // the call goes on
            Stage::Asking(_) => self.transfer_went(Sipfrag::new(408, "the peer does not report"), core, now),
        }
    }

    /// The call ends in the middle of a transfer.
    pub(super) fn drop_transfer(&mut self, core: &mut Core, now: Instant) {
        match self.stage() {
            Stage::Idle => {}
            Stage::Asked(_) => self.refuse_refer(487, core, now),
            Stage::Following(_) => self.stop_following(core),
            Stage::Asking(asking) => {
                let accepted = asking.accepted;
                self.stop_following(core);
                // A peer that has taken the REFER and hangs up does what it was asked to; what came of it stays unknown.
                let kind = match accepted {
                    true => EventKind::SessionTransferDidEnd { code: 202, reason: reason_phrase(202).into() },
                    false => EventKind::SessionTransferDidFail { code: 487, reason: "the call ended first".into() },
                };
                self.post(kind, core);
            }
        }
    }

    /// Lets other sessions know what this one's events mean to them.
    pub(super) fn tell_relatives(&self, kind: &EventKind, core: &mut Core) {
        if let (EventKind::SessionDidStart, Some(replaced)) = (kind, self.snapshot.replaces) {
            core.reports.push_back(Report::Replaced(replaced));
        }
        let Some(referrer) = self.transfers.referrer else { return };
        let report = match kind {
            EventKind::SessionGotRingIndication => Sipfrag::new(180, reason_phrase(180)),
            EventKind::SessionDidStart => Sipfrag::new(200, reason_phrase(200)),
            // A code of ours (0, 408, …) or theirs; what is none to SIP is our failure.
            EventKind::SessionDidFail { code, reason, .. } if *code >= 300 => Sipfrag::new(*code, reason.as_ref()),
            EventKind::SessionDidFail { reason, .. } => Sipfrag::new(500, reason.as_ref()),
            EventKind::SessionWillEnd => Sipfrag::new(487, reason_phrase(487)), // before it was up
            _ => return,
        };
        core.reports.push_back(Report::Referral { referrer, call: self.id, report });
    }

    /// What a Replaces means to this call (RFC 3891 §3): it names a dialog by Call-ID, our tag and the peer's tag.
    pub fn named_by(&mut self, replaces: &Replaces<'_>) -> Named {
        let mut dialogs = self.our_dialogs().iter();
        let is_named = dialogs.any(|dialog| {
            let theirs = dialog.remote_tag();
            dialog.call_id() == replaces.call_id
                && dialog.local_tag().as_bytes() == replaces.to_tag
                && (theirs == replaces.from_tag || (theirs.is_empty() && replaces.from_tag == b"0"))
        });
        match &self.leg {
            _ if !is_named => Named::Not,
            Leg::Confirmed(_) | Leg::Answered(_) => Named::Confirmed,
            Leg::Outgoing(_) => Named::Early,
            Leg::Ending(_) => Named::Ended,
            // An early dialog that the peer began cannot be replaced.
            Leg::Incoming(_) | Leg::Over => Named::Not,
        }
    }
}

/// What a Replaces means to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Not,
    Confirmed,
    /// A call of ours that is not answered yet.
    Early,
    /// Its call has just ended.
    Ended,
}

/// The Call-ID in a Replaces.
fn replaced_call(value: &str) -> Option<Arc<str>> {
    let replaces = Replaces::parse(value.as_bytes())?;
    Some(String::from_utf8_lossy(replaces.call_id).into())
}

fn says_false(message: &Message, name: &str) -> bool {
    message
        .header_named(name)
        .is_some_and(|value| crate::sip::headers::value_and_params(value).0.eq_ignore_ascii_case(b"false"))
}
