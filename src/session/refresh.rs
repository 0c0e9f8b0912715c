//! Session timers (RFC 4028), in both roles: a call that nobody refreshes ends, one that both still want goes on.
//!
//! The interval and who refreshes are settled anew with each INVITE or UPDATE that is answered with 2xx. Whoever refreshes
//! does so at half the interval, by UPDATE without a body when the peer takes UPDATE, else by a re-INVITE with the same
//! description. Both sides end the call a little before the interval is over (§10).

use std::time::{Duration, Instant};

use super::in_dialog::{Answer, Purpose};
use super::{Leg, Session};
use crate::event::Originator;
use crate::sip::headers::{clamped, value_and_params};
use crate::sip::message::{HeaderName, Message, Method};
use crate::ua::core::{ALLOW, Core, SUPPORTED};
use crate::ua::dialog_request::DialogRequest;
use crate::ua::timers::Timer;

/// The shortest interval we take, seconds: what RFC 4028 §5 has for everyone.
pub(crate) const MIN_SE: u32 = 90;

/// A day: nobody means more, and a number near 2³² must not overflow a clock.
const MAX_SE: u32 = 86_400;

/// The end comes this long before the interval is over, or a third of it (§10).
const BEFORE_THE_END: Duration = Duration::from_secs(32);

/// A refresh that failed, but not because the peer is gone, is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

const EXPIRED: &str = "Session timer expired";

/// What both sides settled on, and what the peer can do.
#[derive(Debug)]
pub(super) struct Refresh {
    /// `None`: the call has no end of its own.
    agreed: Option<Agreed>,
    /// The shortest interval that our requests may ask for, seconds; a 422 raises it.
    min: u32,
    /// Whether the peer lists UPDATE in Allow; `None` while it has not said.
    takes_update: Option<bool>,
    /// It has session timers of its own.
    has_timer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Agreed {
    /// Seconds.
    interval: u32,
    /// We refresh.
    ours: bool,
}

impl Default for Refresh {
    fn default() -> Self {
        Self { agreed: None, min: MIN_SE, takes_update: None, has_timer: false }
    }
}

/// `Session-Expires` of a message.
struct Asked {
    interval: u32,
    /// True for `refresher=uac`.
    by_uac: Option<bool>,
}

fn asked(message: &Message) -> Option<Asked> {
    let (value, params) = value_and_params(message.header(HeaderName::SessionExpires)?);
    let by_uac = match params.get("refresher") {
        Some(who) if who.eq_ignore_ascii_case(b"uac") => Some(true),
        Some(who) if who.eq_ignore_ascii_case(b"uas") => Some(false),
        _ => None,
    };
    Some(Asked { interval: clamped(value)?, by_uac })
}

fn min_se(message: &Message) -> Option<u32> {
    clamped(value_and_params(message.header_named("Min-SE")?).0).map(|seconds| seconds.min(MAX_SE))
}

/// True for a peer with session timers of its own.
fn has_timer(message: &Message) -> bool {
    message.lists(HeaderName::Supported, "timer") || message.lists(HeaderName::Require, "timer")
}

/// True for a request that asks for refreshes more often than we do them: 422 with our Min-SE. A peer without session
/// timers would not know what that means (§9): it was a proxy that asked.
pub(crate) fn is_too_short(request: &Message) -> bool {
    has_timer(request) && asked(request).is_some_and(|asked| asked.interval < MIN_SE)
}

impl Session {
    /// What the peer can do, as far as this message tells.
    pub(super) fn note_abilities(&mut self, message: &Message) {
        if message.header(HeaderName::Allow).is_some() {
            self.refresh.takes_update = Some(message.lists(HeaderName::Allow, "UPDATE"));
        }
        self.refresh.has_timer |= has_timer(message);
    }

    /// The peer takes UPDATE (RFC 3311 §4): it has said so, or it has session timers, which are made of UPDATEs.
    pub(super) fn takes_update(&self) -> bool {
        self.refresh.takes_update.unwrap_or(self.refresh.has_timer)
    }

    /// Headers of an INVITE or UPDATE of ours.
    pub(super) fn timer_headers(&self, core: &Core) -> Vec<(&'static str, String)> {
        let wanted = core.accounts.get(self.account).and_then(|account| account.session_timer);
        let wanted = wanted.map(|interval| u32::try_from(interval.as_secs()).unwrap_or(MAX_SE).min(MAX_SE));
        let (interval, refresher) = match self.refresh.agreed {
            Some(Agreed { interval, ours: true }) => (Some(interval), ";refresher=uac"),
            Some(Agreed { interval, ours: false }) => (Some(interval), ";refresher=uas"),
            None => (wanted, ""), // whoever answers decides
        };
        let mut headers = Vec::new();
        if let Some(interval) = interval {
            headers.push(("Session-Expires", format!("{}{refresher}", interval.max(self.refresh.min))));
            headers.push(("Min-SE", self.refresh.min.to_string()));
        }
        headers
    }

    /// A 2xx to an INVITE or UPDATE of ours: it says how long the session lasts from now on.
    pub(super) fn take_timer(&mut self, response: &Message, core: &mut Core, now: Instant) {
        self.note_abilities(response);
        self.refresh.agreed = asked(response)
            .map(|asked| Agreed { interval: asked.interval.clamp(MIN_SE, MAX_SE), ours: asked.by_uac.unwrap_or(true) });
        self.wind_timer(core, now);
    }

    /// A 422 to a request of ours: true when a longer interval may do.
    pub(super) fn take_min_se(&mut self, response: &Message) -> bool {
        let Some(min) = min_se(response).filter(|min| *min > self.refresh.min) else { return false };
        self.refresh.min = min;
        true
    }

    /// Settles the timer with an INVITE or UPDATE of the peer's that is about to be answered with 2xx; gives back the
    /// headers of that answer (§9).
    pub(super) fn settle_timer(
        &mut self,
        request: &Message,
        core: &mut Core,
        now: Instant,
    ) -> Vec<(&'static str, String)> {
        self.note_abilities(request);
        let has_timer = has_timer(request);
        let wanted = core.accounts.get(self.account).and_then(|account| account.session_timer);
        let wanted = self
            .refresh
            .agreed
            .map(|agreed| agreed.interval)
            .or_else(|| wanted.map(|interval| u32::try_from(interval.as_secs()).unwrap_or(MAX_SE)));
        let least = min_se(request).unwrap_or(MIN_SE).max(MIN_SE);
        let asked = asked(request);
        let interval = match (&asked, wanted) {
            // It may become shorter, but not shorter than anybody on the way takes.
            (Some(asked), Some(wanted)) => Some(asked.interval.min(wanted.max(least))),
            (Some(asked), None) => Some(asked.interval),
            (None, wanted) => wanted.map(|wanted| wanted.max(least)),
        };
        let ours = match asked.and_then(|asked| asked.by_uac) {
            _ if !has_timer => true,
            Some(by_uac) => !by_uac,
            None => self.refresh.agreed.is_none_or(|agreed| agreed.ours),
        };
        self.refresh.agreed = interval.map(|interval| Agreed { interval: interval.clamp(MIN_SE, MAX_SE), ours });
        self.wind_timer(core, now);
        let mut headers = Vec::new();
        if let Some(Agreed { interval, ours }) = self.refresh.agreed {
            let refresher = if ours { "uas" } else { "uac" };
            headers.push(("Session-Expires", format!("{interval};refresher={refresher}")));
            if has_timer {
                headers.push(("Require", "timer".to_owned()));
            }
        }
        headers
    }

    /// The session lasts from now on.
    fn wind_timer(&mut self, core: &mut Core, now: Instant) {
        self.stop_timer(core);
        let Some(Agreed { interval, ours }) = self.refresh.agreed else { return };
        let interval = Duration::from_secs(interval.into());
        if ours {
            core.timers.set(self.id, Timer::Refresh, now + interval / 2);
        }
        core.timers.set(self.id, Timer::SessionExpires, now + interval - BEFORE_THE_END.min(interval / 3));
    }

    pub(super) fn stop_timer(&mut self, core: &mut Core) {
        core.timers.cancel(self.id, Timer::Refresh);
        core.timers.cancel(self.id, Timer::SessionExpires);
    }

    /// Half the interval has passed.
    pub(super) fn refresh_is_due(&mut self, core: &mut Core, now: Instant) {
        let takes_update = self.takes_update();
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        if confirmed.modify.is_open() {
            core.timers.set(self.id, Timer::Refresh, now + RETRY); // its 2xx is a refresh too
            return;
        }
        if !takes_update {
            confirmed.modify.offer_again_anyway();
            return self.tell_changes(core, now);
        }
        let contact = core.contact(self.account, confirmed.dialog.flow(), confirmed.dialog.is_secure());
        let request = DialogRequest::new(Method::Update, self.account)
            .header("Contact", contact)
            .header("Allow", ALLOW)
            .header("Supported", SUPPORTED);
        let headers = self.timer_headers(core).into_iter();
        let request = headers.fold(request, |request, (name, value)| request.header(name, value));
        if self.request_in_dialog(request, Purpose::Refresh, core, now).is_none() {
            core.timers.set(self.id, Timer::Refresh, now + RETRY);
        }
    }

    /// The answer to our UPDATE without a body. 408 and 481 end the call elsewhere.
    pub(super) fn refresh_answered(&mut self, answer: &Answer<'_>, core: &mut Core, now: Instant) {
        if !matches!(self.leg, Leg::Confirmed(_)) {
            return;
        }
        match (answer.code, answer.response) {
            (200..=299, Some((response, _))) => self.take_timer(response, core, now),
            (405 | 501, _) => {
                self.refresh.takes_update = Some(false); // Allow promised too much
                self.refresh_is_due(core, now);
            }
            (422, Some((response, _))) if self.take_min_se(response) => self.refresh_is_due(core, now),
            _ => core.timers.set(self.id, Timer::Refresh, now + RETRY),
        }
    }

    /// A re-INVITE of ours was refused: it refreshed nothing.
    pub(super) fn refresh_failed(&mut self, core: &mut Core, now: Instant) {
        if self.refresh.agreed.is_some_and(|agreed| agreed.ours) && !core.timers.is_set(self.id, Timer::Refresh) {
            core.timers.set(self.id, Timer::Refresh, now + RETRY);
        }
    }

    /// Nobody has refreshed the session (§10).
    pub(super) fn session_expired(&mut self, core: &mut Core, now: Instant) {
        let Leg::Confirmed(confirmed) = &mut self.leg else { return };
        core.send_bye(&mut confirmed.dialog, Some(self.account), Some(EXPIRED), None, now);
        self.close_established(Originator::Local, Some(EXPIRED.into()), core, now);
    }
}
