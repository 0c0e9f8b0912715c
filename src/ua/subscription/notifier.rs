//! A peer's subscription to something of ours (RFC 6665 §4.2).
//!
//! ```text
//!   SUBSCRIBE ─▶ Asked ──accept()──▶ Active ─────────────────terminate(), Expires 0, time is up────▶ Ended ──▶ Over
//!                  │ │                  ▲ ╰──────────────────NOTIFY refused or unanswered──────────────────────▶ Over
//!                  │ ╰─5 s─▶ Pending ───╯ accept()
//!                  │            ╰──reject(): NOTIFY terminated;reason=rejected────▶ Ended
//!                  ╰──reject(): refused──▶ Over
//! ```
//!
//! A SUBSCRIBE waits for the program's word only a moment, because its sender waits 32 s at most: then it is accepted as
//! pending. One NOTIFY is open at a time; those behind it wait their turn. A refresh is answered, and followed by the
//! last state, without asking the program. DidEnd is posted when the subscription ends; Ended waits for the answer to the
//! last NOTIFY.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::TIMER_N;
use crate::event::{AccountId, EventKind, Sender, SubscriptionId};
use crate::session::required_extensions;
use crate::sip::dialog::Dialog;
use crate::sip::event_package::{EndReason, EventPackage, SubscriptionState, notify_headers};
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transaction::{ClientId, ServerId};
use crate::sip::transport::Flow;
use crate::ua::core::{ClientUse, Core};
use crate::ua::dialog_request::DialogRequest;
use crate::ua::inbound::Refusal;

/// How long a SUBSCRIBE waits for the program.
const DECISION_TIME: Duration = Duration::from_secs(5);
/// What is granted to who names no time, and at most.
const LONGEST: u32 = 3600;
/// Shorter subscriptions are refused with 423: each refresh costs two transactions.
pub(super) const SHORTEST: u32 = 60;
/// NOTIFYs that may wait for the answer to the one before; above it the oldest is left out.
const MAX_WAITING: usize = 16;

/// Content type and bytes of a NOTIFY.
pub type Body = Option<(String, Bytes)>;

/// What the program says to a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With the state as it is now, when there is one to tell.
    Accept(Body),
    /// A code of 400 to 699.
    Reject(u16),
}

#[derive(Debug)]
enum State {
    /// The SUBSCRIBE has not been answered.
    Asked {
        server: ServerId,
        request: Box<Message>,
        flow: Flow,
        until: Instant,
    },
    Pending,
    Active,
    /// The last NOTIFY waits for its answer.
    Ended {
        until: Instant,
    },
    Over,
}

#[derive(Debug)]
pub(super) struct Notifier {
    id: SubscriptionId,
    account: AccountId,
    event: EventPackage,
    dialog: Dialog,
    pub source: IpAddr,
    state: State,
    /// Seconds granted; 0 asks once.
    granted: u32,
    expires_at: Instant,
    open: Option<(ClientId, DialogRequest)>,
    waiting: VecDeque<(SubscriptionState, Body)>,
    /// What was told last: repeated after a refresh.
    last: Body,
}

/// Seconds a SUBSCRIBE asks for, as far as they are granted.
///
/// # Errors
/// 423 when it is too short.
pub(super) fn grant(request: &Message) -> Result<u32, Refusal> {
    match request.number(HeaderName::Expires) {
        Ok(None) => Ok(LONGEST),
        Ok(Some(seconds)) if seconds > 0 && seconds < SHORTEST => {
            Err(Refusal::with(423, "Min-Expires", SHORTEST.to_string()))
        }
        Ok(Some(seconds)) => Ok(seconds.min(LONGEST)),
        Err(_) => Err(Refusal::new(400)),
    }
}

/// A SUBSCRIBE that has passed all checks.
pub(super) struct Asking {
    pub server: ServerId,
    pub request: Message,
    pub flow: Flow,
    pub account: AccountId,
    pub event: EventPackage,
    pub dialog: Dialog,
    pub granted: u32,
}

impl Notifier {
    pub fn arrive(id: SubscriptionId, asking: Asking, now: Instant) -> Self {
        let Asking { server, request, flow, account, event, dialog, granted } = asking;
        Self {
            id,
            account,
            event,
            dialog,
            source: flow.remote.ip(),
            state: State::Asked { server, request: Box::new(request), flow, until: now + DECISION_TIME },
            granted,
            expires_at: now + Duration::from_secs(granted.into()),
            open: None,
            waiting: VecDeque::new(),
            last: None,
        }
    }

    pub fn tag(&self) -> &str {
        self.dialog.local_tag()
    }

    pub fn account(&self) -> AccountId {
        self.account
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// True until DidEnd has been posted.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, State::Ended { .. } | State::Over)
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Asked { until, .. } | State::Ended { until } => Some(*until),
            State::Pending | State::Active => Some(self.expires_at),
            State::Over => None,
        }
    }

    // --- verbs -------------------------------------------------------------------------------------------------------

    /// The program's word; false when it has been given already.
    pub fn decide(&mut self, verdict: Verdict, core: &mut Core, now: Instant) -> bool {
        match (&self.state, verdict) {
            (State::Asked { .. } | State::Pending, Verdict::Accept(body)) => {
                self.answer_subscribe(core, now);
                self.state = State::Active;
                self.last = body;
                self.tell(core, now);
            }
            (State::Asked { server, request, flow, .. }, Verdict::Reject(code)) => {
                core.answer(*server, request, *flow, code, now);
                self.over("rejected", core);
            }
            (State::Pending, Verdict::Reject(_)) => self.terminate(EndReason::Rejected, core, now),
            _ => return false,
        }
        true
    }

    /// Tells the subscriber a new state; false when it is not active.
    pub fn notify(&mut self, body: Body, core: &mut Core, now: Instant) -> bool {
        let is_active = matches!(self.state, State::Active);
        if is_active {
            self.last = body;
            self.tell(core, now);
        }
        is_active
    }

    /// Ends it.
    pub fn terminate(&mut self, reason: EndReason, core: &mut Core, now: Instant) {
        match &self.state {
            State::Asked { server, request, flow, .. } => {
                core.answer(*server, request, *flow, 480, now);
                self.over(reason.as_str(), core);
            }
            State::Pending | State::Active => {
                let word = reason.as_str().to_owned();
                let body = if matches!(self.state, State::Active) { self.last.clone() } else { None };
                self.waiting.push_back((SubscriptionState::ended(reason), body));
                self.post_end(&word, core);
                self.state = State::Ended { until: now + TIMER_N };
                self.send_next(core, now);
            }
            State::Ended { .. } | State::Over => {}
        }
    }

    // --- what arrives ------------------------------------------------------------------------------------------------

    /// A SUBSCRIBE inside the dialog: a refresh, or the end.
    pub fn handle_subscribe(&mut self, server: ServerId, request: &Message, flow: Flow, core: &mut Core, now: Instant) {
        match self.check(request, flow) {
            Ok(granted) => {
                self.granted = granted;
                self.expires_at = now + Duration::from_secs(granted.into());
                self.answer_ok(server, request, flow, core, now);
                if granted == 0 { self.terminate(EndReason::Timeout, core, now) } else { self.tell(core, now) }
            }
            Err(refusal) => core.refuse(server, request, flow, &refusal, now),
        }
    }

    fn check(&mut self, request: &Message, flow: Flow) -> Result<u32, Refusal> {
        if !self.dialog.matches_request(request) || !matches!(self.state, State::Pending | State::Active) {
            let code = if matches!(self.state, State::Asked { .. }) { 500 } else { 481 };
            return Err(Refusal::new(code));
        }
        let number = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        if !self.dialog.take_remote_seq(number) {
            return Err(Refusal::new(500));
        }
        if let Some(unsupported) = required_extensions(request) {
            return Err(Refusal::with(420, "Unsupported", unsupported));
        }
        // Without Event it can only be the one of this dialog; with another one it is not.
        if EventPackage::of(request).is_some_and(|event| !event.matches(&self.event)) {
            return Err(Refusal::with(489, "Allow-Events", self.event.name.clone()));
        }
        let granted = grant(request)?;
        self.dialog.refresh_target(request, flow);
        Ok(granted)
    }

    /// The answer to a NOTIFY.
    pub fn handle_response(&mut self, client: ClientId, response: &Message, core: &mut Core, now: Instant) {
        let code = response.status().unwrap_or_default();
        let Some((_, mut request)) = self.open.take_if(|(open, _)| *open == client && code >= 200) else { return };
        match code {
            200..300 => self.send_next(core, now),
            401 | 407 if request.challenged(response, core).is_ok() => {
                let client = request.send(&mut self.dialog, ClientUse::Subscription(self.id), core, now);
                self.open = Some((client, request));
            }
            // The subscriber does not know it any more, or cannot be told (RFC 6665 §4.2.2).
            _ => self.over(&format!("{code} {}", response.reason()), core),
        }
    }

    /// A NOTIFY was not answered or could not be sent.
    pub fn handle_no_response(&mut self, client: ClientId, code: u16, why: &str, core: &mut Core) {
        if self.open.take_if(|(open, _)| *open == client).is_some() {
            self.over(&format!("{code} {why}"), core);
        }
    }

    pub fn handle_timeout(&mut self, core: &mut Core, now: Instant) {
        match &self.state {
            State::Asked { until, .. } if *until <= now => {
                self.answer_subscribe(core, now);
                self.state = State::Pending;
                self.tell(core, now);
            }
            State::Pending | State::Active if self.expires_at <= now => self.terminate(EndReason::Timeout, core, now),
            State::Ended { until } if *until <= now => self.state = State::Over,
            _ => {}
        }
    }

    // --- inside ------------------------------------------------------------------------------------------------------

    /// 200 to the SUBSCRIBE that waits for it.
    fn answer_subscribe(&mut self, core: &mut Core, now: Instant) {
        if let State::Asked { server, request, flow, .. } = std::mem::replace(&mut self.state, State::Pending) {
            self.answer_ok(server, &request, flow, core, now);
        }
    }

    fn answer_ok(&self, server: ServerId, request: &Message, flow: Flow, core: &mut Core, now: Instant) {
        let contact = core.contact(self.account, self.dialog.flow(), self.dialog.is_secure());
        let response = core
            .response(request, 200, Some(self.dialog.local_tag()), flow)
            .header("Contact", contact)
            .header("Expires", self.granted);
        core.transactions.respond(server, 200, response.finish(None), now);
    }

    /// Sends the state as it is.
    fn tell(&mut self, core: &mut Core, now: Instant) {
        if self.granted == 0 {
            return self.terminate(EndReason::Timeout, core, now); // asked once
        }
        let left = self.expires_at.saturating_duration_since(now).as_secs();
        let expires = u32::try_from(left).ok();
        let (state, body) = match self.state {
            State::Active => (SubscriptionState::Active { expires }, self.last.clone()),
            _ => (SubscriptionState::Pending { expires }, None),
        };
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
            core.stats.refused_by_limit += 1;
        }
        self.waiting.push_back((state, body));
        self.send_next(core, now);
    }

    fn send_next(&mut self, core: &mut Core, now: Instant) {
        if self.open.is_some() {
            return;
        }
        let Some((state, body)) = self.waiting.pop_front() else {
            if matches!(self.state, State::Ended { .. }) {
                self.state = State::Over;
            }
            return;
        };
        let contact = core.contact(self.account, self.dialog.flow(), self.dialog.is_secure());
        let mut request = DialogRequest::new(Method::Notify, self.account).header("Contact", contact);
        request.headers.extend(notify_headers(&self.event, &state));
        request.body = body;
        let client = request.send(&mut self.dialog, ClientUse::Subscription(self.id), core, now);
        self.open = Some((client, request));
    }

    fn over(&mut self, reason: &str, core: &mut Core) {
        if let Some((client, _)) = self.open.take() {
            core.clients.remove(&client);
        }
        if self.is_alive() {
            self.post_end(reason, core);
        }
        self.state = State::Over;
    }

    fn post_end(&self, reason: &str, core: &mut Core) {
        let reason: Arc<str> = reason.into();
        core.notify_as(Sender::Subscription(self.id), EventKind::SubscriptionDidEnd { reason });
    }
}
