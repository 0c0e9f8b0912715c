//! Our subscription to something of a peer's (RFC 6665 §4.1).
//!
//! ```text
//!              2xx: Timer N runs          NOTIFY active, pending        refresh accepted
//!   SUBSCRIBE ───────────────▶ NotifyWait ───────────────────▶ Live ───────────────────┐
//!      ▲  ╰────────────NOTIFY before the 2xx───────────────────▲ ╰◀──────────────────────╯
//!      │ time is up                                            │ NOTIFY terminated, 481, its time ran out
//!   Waiting ◀──a failure that may pass, Timer N────────────────┤
//!      │                                                       │ unsubscribe
//!      │ unsubscribe            a failure for good             ▼
//!      ╰──────────▶ Over ◀──────────────────────────────── Ending ──last NOTIFY, refusal, patience──▶ Over
//! ```
//!
//! The dialog is made by the first NOTIFY, whether it comes before or after the 2xx; NOTIFYs of other forks are answered
//! with 481 (RFC 6665 §4.4.1 leaves this to packages; ours have one state each). Every attempt has a Call-ID of its own.
//! SIPSubscriptionDidEnd is the last notification, whatever happened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{DAY, LAST_NOTIFY, MAX_BODY, Subscribe, TIMER_N, back_off, default_accept, is_final, margin, retry_after};
use crate::event::{AccountId, EventKind, Route, Sender, SubscriptionId};
use crate::session::required_extensions;
use crate::sip::bodies::Parsed;
use crate::sip::dialog::Dialog;
use crate::sip::event_package::{EndReason, EventPackage, SubscriptionState};
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transaction::{ClientId, ServerId};
use crate::sip::transport::Flow;
use crate::sip::uri::Uri;
use crate::ua::core::{ClientUse, Core, warning_header};
use crate::ua::dialog_request::DialogRequest;
use crate::ua::exchange::{Ask, Outcome, Owner};
use crate::ua::inbound::Refusal;
use crate::ua::routing::RouteWalk;
use crate::ua::tokens;

/// A subscription that lived this long was a good one: its end counts as the first failure.
const GOOD_LIFE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// SUBSCRIBE was sent; `until` is Timer N, from its 2xx on.
    NotifyWait {
        until: Option<Instant>,
    },
    Live,
    /// The next attempt is due then.
    Waiting {
        until: Instant,
    },
    /// We unsubscribe; over at the latest then.
    Ending {
        until: Instant,
    },
    Over,
}

#[derive(Debug)]
pub(super) struct Subscriber {
    id: SubscriptionId,
    account: AccountId,
    event: EventPackage,
    uri: Uri,
    routes: Vec<Route>,
    accept: String,
    /// Seconds we ask for; 0 asks once.
    wanted: u32,
    /// The least a notifier accepted (423).
    min_expires: u32,
    /// Our tag, for all attempts.
    tag: String,
    call_id: String,
    state: State,
    /// The SUBSCRIBE outside the dialog has no final answer yet.
    is_asking: bool,
    dialog: Option<Dialog>,
    /// A NOTIFY made the dialog.
    is_notified: bool,
    /// The request that is open inside the dialog.
    open: Option<(ClientId, DialogRequest)>,
    refresh_at: Option<Instant>,
    expires_at: Option<Instant>,
    live_since: Option<Instant>,
    failures: u32,
    /// The subscription that follows an account's registration: its notifications are the account's.
    is_followed: bool,
    has_started: bool,
}

impl Subscriber {
    /// Sends the first SUBSCRIBE.
    pub fn start(
        id: SubscriptionId,
        what: Subscribe,
        uri: Uri,
        is_followed: bool,
        core: &mut Core,
        now: Instant,
    ) -> Self {
        let accept = match what.accept.is_empty() {
            true => default_accept(&what.event).join(", "),
            false => what.accept.join(", "),
        };
        let mut subscriber = Self {
            id,
            account: what.account,
            event: EventPackage::new(what.event),
            uri,
            routes: what.routes,
            accept,
            wanted: what.expires,
            min_expires: 0,
            tag: tokens::tag(&mut core.random),
            call_id: String::new(),
            state: State::NotifyWait { until: None },
            is_asking: false,
            dialog: None,
            is_notified: false,
            open: None,
            refresh_at: None,
            expires_at: None,
            live_since: None,
            failures: 0,
            is_followed,
            has_started: false,
        };
        subscriber.subscribe(core, now);
        subscriber
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }

    pub fn account(&self) -> AccountId {
        self.account
    }

    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::NotifyWait { until } => until,
            State::Live => [self.refresh_at, self.expires_at].into_iter().flatten().min(),
            State::Waiting { until } | State::Ending { until } => Some(until),
            State::Over => None,
        }
    }

    // --- asking ------------------------------------------------------------------------------------------------------

    fn expires(&self) -> u32 {
        if self.wanted == 0 { 0 } else { self.wanted.max(self.min_expires) }
    }

    /// A SUBSCRIBE that makes a new dialog.
    fn subscribe(&mut self, core: &mut Core, now: Instant) {
        self.call_id = tokens::call_id(&mut core.random);
        self.state = State::NotifyWait { until: None };
        (self.dialog, self.is_notified, self.open) = (None, false, None);
        (self.refresh_at, self.expires_at, self.live_since) = (None, None, None);
        let walk = match RouteWalk::to(self.routes.clone(), &self.uri, self.account, core) {
            Ok(walk) => walk,
            Err(error) => return self.fail(0, &error.to_string(), None, core, now),
        };
        let mut headers = self.headers();
        headers.push(("Expires", self.expires().to_string()));
        self.is_asking = true;
        core.asks.push(Ask {
            owner: Owner::Subscription(self.id),
            account: self.account,
            method: Method::Subscribe,
            uri: self.uri.clone(),
            to: None,
            call: Some((self.call_id.clone(), 0)),
            tag: Some(self.tag.clone()),
            route_set: Vec::new(),
            headers,
            with_contact: true,
            body: None,
            walk,
        });
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("Event", self.event.to_string())];
        if !self.accept.is_empty() {
            headers.push(("Accept", self.accept.clone()));
        }
        headers
    }

    /// A SUBSCRIBE inside the dialog: a refresh, or the end with 0 seconds.
    fn send(&mut self, expires: u32, core: &mut Core, now: Instant) {
        let Some(dialog) = &mut self.dialog else { return };
        let contact = core.contact(self.account, dialog.flow(), dialog.is_secure());
        let mut request = DialogRequest::new(Method::Subscribe, self.account).header("Contact", contact);
        request.headers.push(("Event", self.event.to_string()));
        if !self.accept.is_empty() {
            request.headers.push(("Accept", self.accept.clone()));
        }
        request.headers.push(("Expires", expires.to_string()));
        let client = request.send(dialog, ClientUse::Subscription(self.id), core, now);
        self.open = Some((client, request));
    }

    /// Ends it: SUBSCRIBE with 0 seconds and the wait for the last NOTIFY, `patience` altogether.
    pub fn unsubscribe(&mut self, patience: Duration, core: &mut Core, now: Instant) {
        match self.state {
            State::Over => {}
            State::Ending { until } => self.state = State::Ending { until: until.min(now + patience) },
            State::Waiting { .. } => self.end("unsubscribed", core),
            State::NotifyWait { .. } | State::Live => {
                self.state = State::Ending { until: now + patience };
                if self.wanted > 0 && !self.is_asking && self.open.is_none() {
                    self.send(0, core, now);
                }
            }
        }
    }

    // --- answers -----------------------------------------------------------------------------------------------------

    /// The answer to the SUBSCRIBE outside dialogs.
    pub fn handle_outcome(&mut self, outcome: &Outcome, core: &mut Core, now: Instant) {
        self.is_asking = false;
        let accepted = (200..300).contains(&outcome.code);
        if let Some(dialog) = self.dialog.as_mut().filter(|_| self.is_notified) {
            // NOTIFY came first: the subscription is there, whatever became of the answer.
            dialog.raise_local_seq(outcome.seq);
        } else if let Some((response, flow)) = outcome.response.as_ref().filter(|_| accepted) {
            self.dialog = Dialog::uac(response, *flow).ok();
        }
        let response = outcome.response.as_ref().map(|(response, _)| response);
        match self.state {
            State::Ending { .. } if accepted || self.is_notified => {
                if self.wanted > 0 {
                    self.send(0, core, now);
                }
            }
            State::Ending { .. } => self.end("unsubscribed", core),
            State::NotifyWait { .. } if accepted => {
                let granted = response.map(|response| self.granted(response)).unwrap_or_default();
                self.state = State::NotifyWait { until: Some(now + TIMER_N) };
                self.expires_at = Some(now + Duration::from_secs(granted.into()));
            }
            State::NotifyWait { .. } => self.refused(outcome.code, &outcome.reason, response, core, now),
            State::Live if accepted && self.expires_at.is_none() => {
                let granted = response.map(|response| self.granted(response)).unwrap_or_default();
                self.lasts(granted, now);
            }
            State::Live | State::Waiting { .. } | State::Over => {}
        }
    }

    /// The answer to a SUBSCRIBE inside the dialog.
    pub fn handle_response(&mut self, client: ClientId, response: &Message, flow: Flow, core: &mut Core, now: Instant) {
        let code = response.status().unwrap_or_default();
        let Some((_, mut request)) = self.open.take_if(|(open, _)| *open == client && code >= 200) else { return };
        if let (401 | 407, Some(dialog)) = (code, &mut self.dialog) {
            let why = match request.challenged(response, core) {
                Ok(()) => {
                    let client = request.send(dialog, ClientUse::Subscription(self.id), core, now);
                    self.open = Some((client, request));
                    return;
                }
                Err(why) => why,
            };
            return self.refresh_failed(code, &format!("{} ({why})", response.reason()), Some(response), core, now);
        }
        match (code, self.state) {
            (200..300, State::Ending { until }) => {
                if request.headers.iter().any(|(name, value)| *name == "Expires" && value == "0") {
                    self.state = State::Ending { until: until.min(now + LAST_NOTIFY) };
                } else {
                    self.send(0, core, now); // a refresh was open when it was to end
                }
            }
            (200..300, _) => {
                if let Some(dialog) = &mut self.dialog {
                    dialog.refresh_target(response, flow);
                }
                self.failures = 0;
                let granted = self.granted(response);
                self.lasts(granted, now);
            }
            _ => {
                let reason = response.reason().into_owned();
                self.refresh_failed(code, &reason, Some(response), core, now);
            }
        }
    }

    /// No answer inside the dialog came, or it could not be sent.
    pub fn handle_no_response(&mut self, client: ClientId, code: u16, why: &str, core: &mut Core, now: Instant) {
        if self.open.take_if(|(open, _)| *open == client).is_some() {
            self.refresh_failed(code, why, None, core, now);
        }
    }

    /// Seconds an answer grants; it may shorten what we asked for, never prolong it (RFC 6665 §4.1.2.1).
    fn granted(&self, response: &Message) -> u32 {
        let given = response.number(HeaderName::Expires).ok().flatten();
        given.map_or(self.expires(), |given| given.min(self.expires()))
    }

    fn lasts(&mut self, seconds: u32, now: Instant) {
        self.expires_at = Some(now + Duration::from_secs(seconds.into()));
        let early = seconds.saturating_sub(margin(seconds));
        self.refresh_at = (self.wanted > 0).then(|| now + Duration::from_secs(early.into()));
    }

    /// A refresh or an end did not go through (RFC 6665 §4.1.2.2, RFC 5057 §5.1).
    fn refresh_failed(&mut self, code: u16, reason: &str, response: Option<&Message>, core: &mut Core, now: Instant) {
        if matches!(self.state, State::Ending { .. }) {
            return self.end("unsubscribed", core);
        }
        if code == 423 && self.raise_interval(response) {
            let expires = self.expires();
            return self.send(expires, core, now);
        }
        match code {
            // The dialog is gone; whether the subscription can be had again another SUBSCRIBE tells.
            481 => self.again_at_once(code, reason, core, now),
            _ if is_final(code) => self.fail(code, reason, response, core, now),
            _ => {
                // The subscription lasts until its time is up: try again before that.
                self.failures = self.failures.saturating_add(1);
                let wait = back_off(self.failures - 1, &mut core.random);
                let asked = response.and_then(retry_after).map(|seconds| Duration::from_secs(seconds.into()));
                self.refresh_at = Some(now + asked.unwrap_or(wait));
            }
        }
    }

    /// Takes Min-Expires of a 423; false when there is nothing new in it.
    fn raise_interval(&mut self, response: Option<&Message>) -> bool {
        let least = response.and_then(|response| response.number(HeaderName::MinExpires).ok().flatten());
        let higher = least.filter(|&least| least > self.expires() && least <= DAY);
        self.min_expires = higher.unwrap_or(self.min_expires);
        higher.is_some()
    }

    /// The SUBSCRIBE outside dialogs was refused.
    fn refused(&mut self, code: u16, reason: &str, response: Option<&Message>, core: &mut Core, now: Instant) {
        if code == 423 && self.raise_interval(response) {
            return self.subscribe(core, now);
        }
        self.fail(code, reason, response, core, now);
    }

    // --- NOTIFY ------------------------------------------------------------------------------------------------------

    /// A NOTIFY with our tag.
    pub fn handle_notify(&mut self, server: ServerId, request: &Message, flow: Flow, core: &mut Core, now: Instant) {
        match self.check_notify(request, flow, core) {
            Ok(state) => {
                core.answer(server, request, flow, 200, now);
                self.take_notify(request, &state, core, now);
            }
            Err(refusal) => core.refuse(server, request, flow, &refusal, now),
        }
    }

    fn check_notify(&mut self, request: &Message, flow: Flow, core: &mut Core) -> Result<SubscriptionState, Refusal> {
        let bad = |what: &str| Refusal::with(400, "Warning", warning_header(399, what));
        if request.call_id().ok() != Some(self.call_id.as_bytes()) {
            return Err(Refusal::new(481));
        }
        let event = EventPackage::of(request).ok_or_else(|| bad("no Event that can be read"))?;
        if !event.matches(&self.event) {
            return Err(Refusal::with(489, "Allow-Events", self.event.name.clone()));
        }
        if let Some(unsupported) = required_extensions(request) {
            return Err(Refusal::with(420, "Unsupported", unsupported));
        }
        let number = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        match &mut self.dialog {
            Some(dialog) if self.is_notified => {
                if !dialog.matches_request(request) {
                    return Err(Refusal::new(481)); // another fork
                }
                if !dialog.take_remote_seq(number) {
                    return Err(Refusal::new(500));
                }
                dialog.refresh_target(request, flow);
            }
            _ if matches!(self.state, State::NotifyWait { .. } | State::Ending { .. }) => {
                let seq = self.dialog.as_ref().map_or(0, Dialog::local_seq);
                let made = Dialog::uac_by_request(request, seq, flow).map_err(|error| bad(&error.to_string()))?;
                self.dialog = Some(made);
                self.is_notified = true;
            }
            _ => return Err(Refusal::new(481)),
        }
        if request.body().len() > MAX_BODY {
            core.stats.refused_by_limit += 1;
            return Err(Refusal::new(413));
        }
        let encoded = request.header(HeaderName::ContentEncoding);
        if encoded.is_some_and(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity")) {
            return Err(Refusal::with(415, "Accept-Encoding", "identity"));
        }
        SubscriptionState::of(request).ok_or_else(|| bad("no Subscription-State that can be read"))
    }

    fn take_notify(&mut self, request: &Message, state: &SubscriptionState, core: &mut Core, now: Instant) {
        match state {
            SubscriptionState::Active { expires } | SubscriptionState::Pending { expires } => {
                if matches!(self.state, State::NotifyWait { .. }) {
                    self.state = State::Live;
                    self.live_since = Some(now);
                    let left = self.expires_at.map(|at| at.saturating_duration_since(now).as_secs());
                    let left = left.and_then(|left| u32::try_from(left).ok());
                    match expires.or(left) {
                        Some(seconds) => self.lasts(seconds.min(self.expires()), now),
                        None => self.lasts(self.expires(), now), // the 2xx will say it better
                    }
                    if expires.is_none() && self.is_asking {
                        (self.expires_at, self.refresh_at) = (None, None);
                    }
                } else if let (Some(seconds), State::Live) = (expires, self.state) {
                    // The notifier has the last word (RFC 6665 §4.1.3).
                    self.lasts((*seconds).min(self.expires()), now);
                }
                if !self.has_started {
                    self.has_started = true;
                    let expires = expires.unwrap_or(self.expires());
                    self.post(EventKind::SubscriptionDidStart { state: state.name(), expires }, core);
                }
                self.post_notify(request, state, core);
            }
            SubscriptionState::Terminated { reason, retry_after } => {
                self.post_notify(request, state, core);
                self.terminated(reason.as_ref(), *retry_after, core, now);
            }
        }
    }

    /// The notifier ended it (RFC 6665 §4.1.3).
    fn terminated(&mut self, reason: Option<&EndReason>, after: Option<u32>, core: &mut Core, now: Instant) {
        let word = reason.map_or("terminated", EndReason::as_str);
        if self.wanted == 0 || matches!(self.state, State::Ending { .. }) {
            return self.end(if self.wanted == 0 { "asked once" } else { "unsubscribed" }, core);
        }
        match reason {
            Some(EndReason::Rejected | EndReason::NoResource | EndReason::Invariant) => self.end(word, core),
            Some(EndReason::Deactivated | EndReason::Timeout) => self.again_at_once(0, word, core, now),
            _ => {
                let after = after.map(|seconds| Duration::from_secs(seconds.min(DAY).into()));
                self.again(0, word, after, core, now);
            }
        }
    }

    // --- failures ----------------------------------------------------------------------------------------------------

    fn fail(&mut self, code: u16, reason: &str, response: Option<&Message>, core: &mut Core, now: Instant) {
        let after = response.and_then(retry_after);
        if self.wanted == 0 || (is_final(code) && (after.is_none() || code < 500)) {
            let reason = reason.into();
            self.post(EventKind::SubscriptionDidFail { code, reason, retry_after: None }, core);
            return self.end("failed", core);
        }
        self.again(code, reason, after.map(|seconds| Duration::from_secs(seconds.into())), core, now);
    }

    /// Subscribes again: at once if the last subscription was a good one, else later.
    fn again_at_once(&mut self, code: u16, reason: &str, core: &mut Core, now: Instant) {
        let was_good = self.live_since.is_some_and(|since| now.saturating_duration_since(since) >= GOOD_LIFE);
        let at_once = (was_good || self.failures == 0).then_some(Duration::ZERO);
        self.again(code, reason, at_once, core, now);
    }

    /// Subscribes again after this time, or the wait that is due.
    fn again(&mut self, code: u16, reason: &str, after: Option<Duration>, core: &mut Core, now: Instant) {
        if self.live_since.is_some_and(|since| now.saturating_duration_since(since) >= GOOD_LIFE) {
            self.failures = 0;
        }
        let wait = after.unwrap_or_else(|| back_off(self.failures, &mut core.random));
        self.failures = self.failures.saturating_add(1);
        self.forget_dialog(core);
        self.state = State::Waiting { until: now + wait };
        let retry_after = Some(wait.as_secs_f64());
        self.post(EventKind::SubscriptionDidFail { code, reason: reason.into(), retry_after }, core);
    }

    fn end(&mut self, reason: &str, core: &mut Core) {
        self.forget_dialog(core);
        self.state = State::Over;
        self.post(EventKind::SubscriptionDidEnd { reason: reason.into() }, core);
    }

    fn forget_dialog(&mut self, core: &mut Core) {
        if let Some((client, _)) = self.open.take() {
            core.clients.remove(&client);
        }
        (self.dialog, self.is_notified, self.has_started) = (None, false, self.has_started);
        (self.refresh_at, self.expires_at) = (None, None);
    }

    // --- time --------------------------------------------------------------------------------------------------------

    pub fn handle_timeout(&mut self, core: &mut Core, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.state {
            State::NotifyWait { until } if due(until) => {
                self.fail(408, "SUBSCRIBE was accepted, but no NOTIFY came", None, core, now);
            }
            State::Live if due(self.expires_at) => self.again_at_once(0, "not refreshed in time", core, now),
            State::Live if due(self.refresh_at) => {
                self.refresh_at = None;
                if self.open.is_none() && !self.is_asking {
                    let expires = self.expires();
                    self.send(expires, core, now);
                }
            }
            State::Waiting { until } if until <= now => self.subscribe(core, now),
            State::Ending { until } if until <= now => self.end("unsubscribed", core),
            _ => {}
        }
    }

    // --- events ------------------------------------------------------------------------------------------------------

    fn post_notify(&self, request: &Message, state: &SubscriptionState, core: &mut Core) {
        let content_type: Option<Arc<str>> =
            request.header(HeaderName::ContentType).map(|kind| String::from_utf8_lossy(kind).into());
        let body: Bytes = request.body_bytes();
        let parsed = match &content_type {
            Some(kind) if !body.is_empty() => Parsed::read(kind, &body),
            _ => None,
        };
        if self.is_followed {
            if let Some(Ok(Parsed::MessageSummary(summary))) = parsed {
                let kind = EventKind::AccountGotMessageSummary {
                    messages_waiting: summary.messages_waiting,
                    account_uri: summary.account.as_deref().map(Into::into),
                    counts: Arc::new(summary.counts),
                };
                core.notify_as(Sender::Account(self.account), kind);
            }
            return;
        }
        let (parsed, error) = match parsed {
            Some(Ok(parsed)) => (Some(Arc::new(parsed)), None),
            Some(Err(error)) => (None, Some(error.into())),
            None => (None, None),
        };
        let event: Arc<str> = self.event.name.as_str().into();
        let kind = EventKind::SubscriptionGotNotify { event, state: state.name(), content_type, body, parsed, error };
        core.notify_as(Sender::Subscription(self.id), kind);
    }

    fn post(&self, kind: EventKind, core: &mut Core) {
        if self.is_followed {
            tracing::debug!(account = self.account.0, ?kind, "message-summary");
            return;
        }
        core.notify_as(Sender::Subscription(self.id), kind);
    }
}
