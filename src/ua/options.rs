//! OPTIONS: answered with what we can do (RFC 3261 §11.2), and sent as a ping.

use std::time::Instant;

use super::core::{ACCEPT_ALL, ALLOW, Core, SUPPORTED};
use super::exchange::{Ask, Outcome, Owner};
use super::routing::RouteWalk;
use super::{AccountId, RequestId, VerbError};
use crate::event::EventKind;
use crate::session::check_callee;
use crate::sip::message::{Message, Method};
use crate::sip::transaction::ServerId;
use crate::sip::transport::Flow;
use crate::sip::uri::Uri;

/// Answers OPTIONS inside and outside dialogs.
pub(crate) fn answer_options(server: ServerId, request: &Message, flow: Flow, core: &mut Core, now: Instant) {
    let packages = core.allow_events();
    let mut headers = vec![("Allow", ALLOW), ("Accept", ACCEPT_ALL), ("Supported", SUPPORTED)];
    if !packages.is_empty() {
        headers.push(("Allow-Events", &packages));
    }
    core.answer_with(server, request, flow, 200, &headers, now);
}

/// An OPTIONS of the application.
///
/// # Errors
/// For an unknown account or a URI that cannot be called.
pub(super) fn ping(account: AccountId, uri: Uri, walk: RouteWalk, core: &Core) -> Result<Ask, VerbError> {
    core.accounts.get(account).ok_or(VerbError::UnknownAccount(account))?;
    check_callee(&uri)?;
    Ok(Ask {
        owner: Owner::Ping,
        account,
        method: Method::Options,
        uri,
        to: None,
        call: None,
        tag: None,
        route_set: Vec::new(),
        headers: vec![("Accept", ACCEPT_ALL.to_owned())],
        with_contact: true,
        body: None,
        walk,
    })
}

/// Tells the application what became of its OPTIONS.
pub(super) fn answered(request: RequestId, outcome: Outcome, core: &mut Core) {
    let Outcome { code, reason, rtt, .. } = outcome;
    let (reason, rtt) = (reason.into(), rtt.map(|rtt| rtt.as_secs_f64()));
    core.notify(EventKind::OptionsDidAnswer { request, code, reason, rtt });
}
