//! What concerns several calls at once: transfers, and calls that take the place of another (RFC 3515, RFC 3891).

use std::time::Instant;

use bytes::Bytes;

use super::inbound::Refusal;
use super::{UserAgent, VerbError};
use crate::event::{AccountId, RequestId, Route, SessionId};
use crate::session::table::Verb;
use crate::session::{Named, Session, check_callee};
use crate::sip::headers::Replaces;
use crate::sip::message::{HeaderName, Message};
use crate::sip::refer::Sipfrag;
use crate::sip::uri::Uri;
use crate::ua::core::{Core, warning_header};

/// `end_reason` of a call whose place another has taken.
const REPLACED: &str = "Replaced by another call";

/// What a call has to tell another.
#[derive(Debug)]
pub(crate) enum Report {
    /// `call`, made for a REFER in `referrer`, has come this far.
    Referral { referrer: SessionId, call: SessionId, report: Sipfrag },
    /// This call's place was taken.
    Replaced(SessionId),
}

impl UserAgent {
    /// Sends an INFO inside the call; the answer is SIPSessionDidDeliverInfo or SIPSessionDidNotDeliverInfo with this
    /// number.
    ///
    /// # Errors
    /// Outside ESTABLISHED, PROPOSING and PROPOSED, for a type or package that is none, and where the peer takes no INFO or
    /// not this package.
    pub fn send_info(
        &mut self,
        session: SessionId,
        content: Bytes,
        content_type: &str,
        package: Option<&str>,
        now: Instant,
    ) -> Result<RequestId, VerbError> {
        self.asking(Verb::SendInfo, session, now, |session, core| {
            session.send_info(content, content_type, package, core, now)
        })
    }

    /// Asks the peer of a call to call `target` instead, in the place that we have in the call `replaces`; without a target
    /// it is the peer of that call.
    ///
    /// # Errors
    /// Outside ESTABLISHED, during another transfer, when the peer takes no REFER, for a target that cannot be called, and
    /// when the call to be replaced is not up.
    pub fn transfer(
        &mut self,
        session: SessionId,
        target: Option<Uri>,
        replaces: Option<SessionId>,
        now: Instant,
    ) -> Result<(), VerbError> {
        let place = match replaces {
            Some(other) if other == session => {
                return Err(VerbError::BadArgument("a call cannot take its own place".into()));
            }
            Some(other) => {
                let other = self.sessions.get(&other).ok_or(VerbError::UnknownSession(other))?;
                Some(other.place()?)
            }
            None => None,
        };
        let (target, replaces) = match (target, place) {
            (Some(target), place) => (target, place.map(|(_, replaces)| replaces)),
            (None, Some((contact, replaces))) => (contact, Some(replaces)),
            (None, None) => return Err(VerbError::BadArgument("a transfer needs a target".into())),
        };
        check_callee(&target)?;
        let mut refer_to = target.without_parameter("method");
        refer_to.headers = replaces.map(|value| ("Replaces".to_owned(), value)).into_iter().collect();
        self.verb(Verb::Transfer, session, now, |session, core| session.transfer(&refer_to, core, now))
    }

    /// Does what the peer's REFER asks for: the new call, over these routes.
    ///
    /// # Errors
    /// Without a REFER that waits, and as [`Self::connect`]; it waits on then.
    pub fn accept_transfer(
        &mut self,
        session: SessionId,
        routes: Vec<Route>,
        now: Instant,
    ) -> Result<SessionId, VerbError> {
        let asked = |session: &mut Session, _: &mut Core| Ok((session.asked_call(routes)?, session.next_hops()));
        let (call, hops) = self.asking(Verb::AcceptTransfer, session, now, asked)?;
        let new = self.connect(call, now)?;
        let there = self.with(new, |call, _| call.set_referrer(session, hops)).is_some();
        self.with(session, |session, core| session.follow(new, core, now));
        if !there {
            let report = Sipfrag::new(503, "the call could not be made");
            self.core.reports.push_back(Report::Referral { referrer: session, call: new, report });
        }
        self.drain_transactions(now);
        Ok(new)
    }

    /// Refuses the peer's REFER with a code of 400 to 699.
    ///
    /// # Errors
    /// Without one that waits, or for any other code.
    pub fn reject_transfer(&mut self, session: SessionId, code: u16, now: Instant) -> Result<(), VerbError> {
        self.verb(Verb::RejectTransfer, session, now, |session, core| session.reject_transfer(code, core, now))
    }

    /// A verb with a result.
    fn asking<T>(
        &mut self,
        verb: Verb,
        id: SessionId,
        now: Instant,
        act: impl FnOnce(&mut Session, &mut Core) -> Result<T, VerbError>,
    ) -> Result<T, VerbError> {
        let mut result = None;
        self.verb(verb, id, now, |session, core| {
            result = Some(act(session, core)?);
            Ok(())
        })?;
        result.ok_or(VerbError::UnknownSession(id))
    }

    pub(super) fn take_report(&mut self, report: Report, now: Instant) {
        match report {
            Report::Referral { referrer, call, report } => {
                self.with(referrer, |session, core| session.referral_went(call, report, core, now));
            }
            Report::Replaced(old) => {
                self.with(old, |session, core| session.end(Some(REPLACED), core, now));
            }
        }
    }

    /// The call whose place a new INVITE asks for. It rings like any other, and only if the application accepts it the old
    /// one ends: who knows the names of a call is not yet who may take it (RFC 3891 §3, §7).
    ///
    /// # Errors
    /// 400, 481, 486 and 603 as RFC 3891 §3 says.
    pub(super) fn find_replaced(
        &mut self,
        request: &Message,
        account: AccountId,
    ) -> Result<Option<SessionId>, Refusal> {
        let bad = |text: &str| Refusal::with(400, "Warning", warning_header(399, text));
        let mut lines = request.header_lines(HeaderName::Replaces);
        let line = match (lines.next(), lines.next()) {
            (None, _) => return Ok(None),
            (Some(line), None) => line,
            (Some(_), Some(_)) => return Err(bad("more than one Replaces")),
        };
        let replaces = Replaces::parse(line).ok_or_else(|| bad("Replaces cannot be read"))?;
        let tag = std::str::from_utf8(replaces.to_tag).unwrap_or_default();
        let named = self.core.tags.get(tag).copied().and_then(|id| Some((id, self.sessions.get_mut(&id)?)));
        let Some((id, session)) = named.filter(|(_, session)| session.snapshot().account == Some(account)) else {
            return Err(Refusal::new(481));
        };
        match session.named_by(&replaces) {
            Named::Confirmed if replaces.early_only => Err(Refusal::new(486)),
            Named::Confirmed | Named::Early => Ok(Some(id)),
            Named::Ended => Err(Refusal::new(603)),
            Named::Not => Err(Refusal::new(481)),
        }
    }
}
