//! What a refusal of our INVITE allows (RFC 3261 §8.1.3.4, §8.1.3.5): another target, another destination, the same request
//! without what the peer does not bear; or the end of the call.
//!
//! A redirection is followed only as far as the account says: whoever may answer 302 may otherwise make us pay for calls
//! to anywhere. The application finds the targets in `redirect_targets` and calls them itself, or does not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Failure, Leg, Session};
use crate::event::Refusal;
use crate::sip::headers::RetryAfter;
use crate::sip::message::{HeaderName, Message};
use crate::sip::uri::Uri;
use crate::ua::core::{Core, RELIABLE};
use crate::ua::routing::RouteWalk;

/// Redirections followed in one call, whatever the account allows: a longer chain is a loop.
const MAX_HOPS: u8 = 5;

/// Targets of redirections that are kept: as many as a forking proxy would try.
const MAX_TARGETS: usize = 16;

/// Where redirections of one call have led.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    /// How many more are followed.
    left: u8,
    /// Every target there was, so that none is tried twice.
    visited: Vec<Uri>,
    /// Those still to be tried, the best first.
    next: VecDeque<Uri>,
}

impl Redirects {
    pub(super) fn new(allowed: u8, callee: &Uri) -> Self {
        Self { left: allowed.min(MAX_HOPS), visited: vec![callee.clone()], next: VecDeque::new() }
    }

    /// Puts new targets before the older ones; only those we may call: `sips:` stays `sips:`.
    fn add(&mut self, targets: &[Uri], secure: bool) {
        let mut fresh: VecDeque<Uri> = VecDeque::new();
        for target in targets {
            let callable = target.is_sip() && target.host.is_some() && (target.is_secure() || !secure);
            if callable && self.visited.len() < MAX_TARGETS && !self.visited.contains(target) {
                self.visited.push(target.clone());
                fresh.push_back(target.clone());
            }
        }
        fresh.append(&mut self.next);
        self.next = fresh;
    }
}

/// The Contacts of a 3xx, best first (RFC 3261 §8.1.3.4).
fn targets(response: &Message) -> Vec<Uri> {
    let mut contacts: Vec<(u16, Uri)> = response
        .contacts()
        .take(MAX_TARGETS)
        .filter_map(Result::ok)
        .filter(|contact| !contact.is_wildcard())
        .filter_map(|contact| Some((contact.q(), contact.uri().ok()?)))
        .collect();
    contacts.sort_by_key(|(q, _)| std::cmp::Reverse(*q)); // stable: as listed where equal
    contacts.into_iter().map(|(_, uri)| uri).collect()
}

impl Session {
    /// Shows what a refusal says beside its code.
    pub(super) fn note_refusal(&mut self, status: u16, response: &Message) {
        let retry_after = response.header(HeaderName::RetryAfter).and_then(RetryAfter::parse).map(|it| it.seconds);
        let redirect_targets = if (300..400).contains(&status) { targets(response) } else { Vec::new() };
        let refusal = Refusal { retry_after, redirect_targets };
        let refusal = (refusal != Refusal::default()).then(|| Arc::new(refusal));
        self.change(|snapshot| snapshot.refusal = refusal);
    }

    /// A final answer to our INVITE that is neither 2xx nor a challenge: on to what it allows, or DidFail.
    pub(super) fn take_refusal(
        &mut self,
        status: u16,
        failure: Failure,
        response: &Message,
        core: &mut Core,
        now: Instant,
    ) {
        self.note_refusal(status, response);
        match status {
            // Use Proxy and Alternative Service name no other place of the callee.
            300..=399 if !matches!(status, 305 | 380) => self.redirected(failure, core, now),
            420 if self.can_do_without(response, core) => self.send_invite(core, now),
            503 => {
                if let (Some(refusal), Some(peer)) = (&self.snapshot.refusal, self.snapshot.peer_address)
                    && let Some(seconds) = refusal.retry_after
                {
                    core.unavailable.avoid(peer, now + Duration::from_secs(seconds.into()), now);
                }
                self.try_next(failure, core, now);
            }
            // Everywhere: no other target is asked.
            600.. => self.fail(failure, core),
            _ => self.next_target(failure, core, now),
        }
    }

    fn redirected(&mut self, failure: Failure, core: &mut Core, now: Instant) {
        let refusal = self.snapshot.refusal.clone().unwrap_or_default();
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        if outgoing.redirects.left > 0 {
            outgoing.redirects.left -= 1;
            let secure = outgoing.callee.is_secure();
            outgoing.redirects.add(&refusal.redirect_targets, secure);
        }
        self.next_target(failure, core, now);
    }

    /// Calls the next target of a redirection; without any the call has failed.
    pub(super) fn next_target(&mut self, failure: Failure, core: &mut Core, now: Instant) {
        let account = self.account;
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        while let Some(target) = outgoing.redirects.next.pop_front() {
            let Ok(walk) = RouteWalk::locate(&target, account, core) else { continue };
            outgoing.change_target(target, walk, &failure);
            return self.begin_route(core, now);
        }
        self.fail(failure, core);
    }

    /// 420: true when the request can go again without what it names, because we only offered it.
    fn can_do_without(&mut self, response: &Message, core: &Core) -> bool {
        let required = core.accounts.get(self.account).is_some_and(|account| account.require_100rel);
        let named = response.lists(HeaderName::Unsupported, RELIABLE);
        let Leg::Outgoing(outgoing) = &mut self.leg else { return false };
        named && !required && !std::mem::replace(&mut outgoing.plain, true)
    }
}
