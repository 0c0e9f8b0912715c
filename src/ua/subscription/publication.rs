//! A state of ours at a server (RFC 3903).
//!
//! ```text
//!              2xx with SIP-ETag              refresh due, a new state
//!   Publishing ─────────────────▶ Published ──────────────────────────▶ Publishing
//!     ▲  │ ╰──412: without the tag, 423: longer──▶ Publishing
//!     │  │ a failure that may pass
//!     │  ▼                           remove()
//!   Waiting      any ───────────────────────────▶ Removing ──any answer──▶ Over
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{DAY, Publish, back_off, is_final, margin, retry_after};
use crate::event::{AccountId, EventKind, Route, Sender, SubscriptionId};
use crate::sip::event_package::EventPackage;
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::uri::Uri;
use crate::ua::core::Core;
use crate::ua::exchange::{Ask, Outcome, Owner};
use crate::ua::routing::RouteWalk;
use crate::ua::tokens;

/// Answers of 412 in a row after which the server is taken for broken.
const MAX_CONFLICTS: u32 = 3;
/// Longest entity-tag that is kept.
const MAX_TAG: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Publishing,
    Published { refresh_at: Instant },
    Waiting { until: Instant },
    Removing { until: Instant },
    Over,
}

#[derive(Debug)]
pub(super) struct Publication {
    id: SubscriptionId,
    account: AccountId,
    event: EventPackage,
    uri: Uri,
    routes: Vec<Route>,
    wanted: u32,
    min_expires: u32,
    content_type: String,
    body: Bytes,
    /// The server has another state than `body`.
    is_changed: bool,
    tag: Option<String>,
    call: (String, u32),
    state: State,
    is_asking: bool,
    /// The last request was the one that removes.
    asked_to_remove: bool,
    conflicts: u32,
    failures: u32,
}

impl Publication {
    pub fn start(id: SubscriptionId, what: Publish, uri: Uri, core: &mut Core, now: Instant) -> Self {
        let mut publication = Self {
            id,
            account: what.account,
            event: EventPackage::new(what.event),
            uri,
            routes: what.routes,
            wanted: what.expires,
            min_expires: 0,
            content_type: what.content_type,
            body: what.body,
            is_changed: true,
            tag: None,
            call: (tokens::call_id(&mut core.random), 0),
            state: State::Publishing,
            is_asking: false,
            asked_to_remove: false,
            conflicts: 0,
            failures: 0,
        };
        publication.publish(core, now);
        publication
    }

    pub fn account(&self) -> AccountId {
        self.account
    }

    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Publishing | State::Over => None,
            State::Published { refresh_at } => Some(refresh_at),
            State::Waiting { until } | State::Removing { until } => Some(until),
        }
    }

    /// Publishes a new state; false when it is being removed.
    pub fn modify(&mut self, content_type: String, body: Bytes, core: &mut Core, now: Instant) -> bool {
        if matches!(self.state, State::Removing { .. } | State::Over) {
            return false;
        }
        (self.content_type, self.body, self.is_changed) = (content_type, body, true);
        if matches!(self.state, State::Published { .. }) {
            self.publish(core, now);
        }
        true
    }

    /// Takes the state away from the server, within `patience`.
    pub fn remove(&mut self, patience: Duration, core: &mut Core, now: Instant) {
        match self.state {
            State::Over => {}
            State::Removing { until } => self.state = State::Removing { until: until.min(now + patience) },
            State::Waiting { .. } if self.tag.is_none() => self.end("removed", core),
            _ => {
                self.state = State::Removing { until: now + patience };
                if !self.is_asking {
                    self.ask(0, core, now);
                }
            }
        }
    }

    fn expires(&self) -> u32 {
        self.wanted.max(self.min_expires)
    }

    /// The state when the server does not have it, else a refresh (RFC 3903 §4.1).
    fn publish(&mut self, core: &mut Core, now: Instant) {
        self.state = State::Publishing;
        let expires = self.expires();
        self.ask(expires, core, now);
    }

    fn ask(&mut self, expires: u32, core: &mut Core, now: Instant) {
        let walk = match RouteWalk::to(self.routes.clone(), &self.uri, self.account, core) {
            Ok(walk) => walk,
            Err(error) => return self.failed(0, &error.to_string(), None, core, now),
        };
        let mut headers = vec![("Event", self.event.to_string()), ("Expires", expires.to_string())];
        if let Some(tag) = &self.tag {
            headers.push(("SIP-If-Match", tag.clone()));
        }
        let with_body = expires > 0 && (self.is_changed || self.tag.is_none());
        self.is_changed &= !with_body;
        self.is_asking = true;
        self.asked_to_remove = expires == 0;
        core.asks.push(Ask {
            owner: Owner::Publication(self.id),
            account: self.account,
            method: Method::Publish,
            uri: self.uri.clone(),
            to: None,
            call: Some(self.call.clone()),
            tag: None,
            route_set: Vec::new(),
            headers,
            with_contact: false,
            body: with_body.then(|| (self.content_type.clone(), self.body.clone())),
            walk,
        });
    }

    pub fn handle_outcome(&mut self, outcome: &Outcome, core: &mut Core, now: Instant) {
        self.is_asking = false;
        self.call.1 = outcome.seq;
        let response = outcome.response.as_ref().map(|(response, _)| response);
        let accepted = (200..300).contains(&outcome.code);
        if accepted {
            let tag = response.and_then(|response| response.header_named("SIP-ETag")).map(<[u8]>::trim_ascii);
            let tag = tag.filter(|tag| !tag.is_empty() && tag.len() <= MAX_TAG);
            self.tag = tag.map(|tag| String::from_utf8_lossy(tag).into_owned());
        }
        match self.state {
            // It was published while it was to go.
            State::Removing { .. } if accepted && self.tag.is_some() && !self.asked_to_remove => self.ask(0, core, now),
            State::Removing { .. } => self.end("removed", core),
            State::Publishing if accepted => {
                (self.conflicts, self.failures) = (0, 0);
                let given = response.and_then(|response| response.number(HeaderName::Expires).ok().flatten());
                let expires = given.unwrap_or(self.expires()).min(self.expires()).max(1);
                let early = expires.saturating_sub(margin(expires)).max(1);
                self.state = State::Published { refresh_at: now + Duration::from_secs(early.into()) };
                self.post(EventKind::PublicationDidSucceed { expires }, core);
                if self.is_changed {
                    self.publish(core, now);
                }
            }
            State::Publishing => self.failed(outcome.code, &outcome.reason, response, core, now),
            State::Published { .. } | State::Waiting { .. } | State::Over => {}
        }
    }

    fn failed(&mut self, code: u16, reason: &str, response: Option<&Message>, core: &mut Core, now: Instant) {
        if code == 412 && self.conflicts < MAX_CONFLICTS {
            self.conflicts += 1;
            self.tag = None;
            return self.publish(core, now);
        }
        let least = response.and_then(|response| response.number(HeaderName::MinExpires).ok().flatten());
        if let (423, Some(least)) = (code, least.filter(|&least| least > self.expires() && least <= DAY)) {
            self.min_expires = least;
            self.is_changed = true;
            return self.publish(core, now);
        }
        let (after, reason): (_, Arc<str>) = (response.and_then(retry_after), reason.into());
        (self.is_changed, self.tag) = (true, None);
        if is_final(code) && (after.is_none() || code < 500) {
            self.post(EventKind::PublicationDidFail { code, reason, retry_after: None }, core);
            return self.end("failed", core);
        }
        let wait = after.map(|seconds| Duration::from_secs(seconds.into()));
        let wait = wait.unwrap_or_else(|| back_off(self.failures, &mut core.random));
        self.failures = self.failures.saturating_add(1);
        self.conflicts = 0;
        self.state = State::Waiting { until: now + wait };
        self.post(EventKind::PublicationDidFail { code, reason, retry_after: Some(wait.as_secs_f64()) }, core);
    }

    pub fn handle_timeout(&mut self, core: &mut Core, now: Instant) {
        match self.state {
            State::Published { refresh_at } if refresh_at <= now => self.publish(core, now),
            State::Waiting { until } if until <= now => self.publish(core, now),
            State::Removing { until } if until <= now => self.end("removed", core),
            _ => {}
        }
    }

    fn end(&mut self, reason: &str, core: &mut Core) {
        self.state = State::Over;
        self.post(EventKind::PublicationDidEnd { reason: reason.into() }, core);
    }

    fn post(&self, kind: EventKind, core: &mut Core) {
        core.notify_as(Sender::Subscription(self.id), kind);
    }
}
