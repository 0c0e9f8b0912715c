//! OPTIONS: answered with what we can do (RFC 3261 §11.2), and sent as a ping.

use std::net::IpAddr;
use std::time::Instant;

use super::core::{ACCEPT, ALLOW, ClientUse, Core};
use super::routing::{Asker, RouteWalk, Step};
use super::{AccountId, RequestId, VerbError, tokens};
use crate::event::EventKind;
use crate::session::{check_callee, name_addr};
use crate::sip::build::Builder;
use crate::sip::dialog::{MAX_FORWARDS, request_line_uri};
use crate::sip::message::{Message, Method};
use crate::sip::transaction::ServerId;
use crate::sip::transport::Flow;
use crate::sip::uri::Uri;

/// Answers OPTIONS inside and outside dialogs.
pub(crate) fn answer_options(server: ServerId, request: &Message, flow: Flow, core: &mut Core, now: Instant) {
    let headers = [("Allow", ALLOW), ("Accept", ACCEPT), ("Supported", "")];
    core.answer_with(server, request, flow, 200, &headers, now);
}

/// An OPTIONS of the application on its way.
#[derive(Debug)]
pub(crate) struct Ping {
    request: RequestId,
    account: AccountId,
    uri: Uri,
    call_id: String,
    seq: u32,
    walk: RouteWalk,
    sent_at: Option<Instant>,
}

/// True when the ping has its result.
type Done = bool;

impl Ping {
    /// # Errors
    /// For an unknown account, a URI that cannot be called, or routes that cannot be used.
    pub fn new(account: AccountId, uri: Uri, walk: RouteWalk, core: &mut Core) -> Result<Self, VerbError> {
        core.accounts.get(account).ok_or(VerbError::UnknownAccount(account))?;
        check_callee(&uri)?;
        let request = RequestId(core.next_id());
        let call_id = tokens::call_id(&mut core.random);
        Ok(Self { request, account, uri, call_id, seq: 0, walk, sent_at: None })
    }

    pub fn id(&self) -> RequestId {
        self.request
    }

    pub fn start(&mut self, core: &mut Core, now: Instant) {
        let step = self.walk.start(Asker::Ping(self.request), core);
        self.take_step(step, core, now);
    }

    fn take_step(&mut self, step: Step, core: &mut Core, now: Instant) {
        if let Step::To(flow) = step {
            self.send(flow, core, now);
        }
    }

    fn send(&mut self, flow: Flow, core: &mut Core, now: Instant) {
        self.seq += 1;
        let via = core.via(flow);
        let contact = core.contact(self.account, flow, self.uri.is_secure());
        let tag = tokens::tag(&mut core.random);
        let account = core.accounts.get(self.account);
        let from = account.map(|account| name_addr(account.display_name.as_deref(), &account.uri)).unwrap_or_default();
        let request = Builder::request(&Method::Options, request_line_uri(&self.uri))
            .header("Via", via)
            .header("Max-Forwards", MAX_FORWARDS)
            .header("From", format_args!("{from};tag={tag}"))
            .header("To", name_addr(None, &self.uri))
            .header("Call-ID", &self.call_id)
            .header("CSeq", format_args!("{} OPTIONS", self.seq))
            .header("Contact", contact)
            .header("Accept", ACCEPT)
            .header("User-Agent", &core.config.user_agent)
            .finish(None);
        self.sent_at = Some(now);
        core.send(request, flow, Some(ClientUse::Options(self.request)), now);
    }

    pub fn handle_resolved(&mut self, found: Result<Vec<IpAddr>, String>, core: &mut Core, now: Instant) -> Done {
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                let step = self.walk.resolved(addresses);
                self.take_step(step, core, now);
                false
            }
            Ok(_) => self.try_next(503, "the host has no address", core, now),
            Err(error) => self.try_next(503, &error, core, now),
        }
    }

    /// A final answer.
    pub fn answered(&mut self, response: &Message, core: &mut Core, now: Instant) -> Done {
        let code = response.status().unwrap_or_default();
        let rtt = self.sent_at.map(|sent| now.saturating_duration_since(sent).as_secs_f64());
        self.post(code, &response.reason(), rtt, core)
    }

    /// No answer, or not even sent: the next address or route (ruling R19).
    pub fn try_next(&mut self, code: u16, why: &str, core: &mut Core, now: Instant) -> Done {
        match self.walk.next_address() {
            Step::To(flow) => {
                self.send(flow, core, now);
                false
            }
            Step::Asked | Step::Exhausted if self.walk.next_route() => {
                self.start(core, now);
                false
            }
            Step::Asked | Step::Exhausted => self.post(code, why, None, core),
        }
    }

    fn post(&self, code: u16, reason: &str, rtt: Option<f64>, core: &mut Core) -> Done {
        let reason = reason.into();
        core.notify(EventKind::OptionsDidAnswer { request: self.request, code, reason, rtt });
        true
    }
}
