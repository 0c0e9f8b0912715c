//! What arrives, told apart: which session, or which answer without one (RFC 3261 §8.2, §12.2.2).

use std::time::Instant;

use super::core::{ACCEPT, ALLOW, ClientUse, MergeKey, RELIABLE, warning_header};
use super::limits::Admission;
use super::messages::take_message;
use super::options::answer_options;
use super::{Output, UserAgent, tokens};
use crate::event::{AccountId, SessionId};
use crate::session::{Arrival, MIN_SE, Session, check_offer, is_sdp, is_too_short, required_extensions};
use crate::sip::dialog::Dialog;
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transaction::{self, ClientId, ServerId};
use crate::sip::transport::Flow;
use crate::sip::uri::Uri;

/// Seconds a caller above the limits is asked to stay away (RFC 3261 §20.33).
pub(super) const RETRY_AFTER: &str = "5";

/// A refusal before there is a session.
pub(crate) struct Refusal {
    pub code: u16,
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub fn new(code: u16) -> Self {
        Self { code, headers: Vec::new() }
    }

    pub fn with(code: u16, name: &'static str, value: impl Into<String>) -> Self {
        Self { code, headers: vec![(name, value.into())] }
    }
}

impl UserAgent {
    /// Works off what the transactions have to say.
    pub(super) fn drain_transactions(&mut self, now: Instant) {
        self.drain_outputs(now);
        loop {
            if !self.broken.is_empty() {
                self.bury_broken(now);
            } else if let Some(report) = self.core.reports.pop_front() {
                self.take_report(report, now);
            } else if !self.core.asks.is_empty() {
                for ask in std::mem::take(&mut self.core.asks) {
                    self.start_exchange(ask, now);
                }
            } else {
                return;
            }
            self.drain_outputs(now);
        }
    }

    fn drain_outputs(&mut self, now: Instant) {
        while let Some(output) = self.core.transactions.poll_output() {
            match output {
                transaction::Output::Transmit { flow, bytes, client } => {
                    self.core.outputs.push_back(Output::Transmit { flow, bytes, client });
                }
                transaction::Output::Request { server, request, flow } => self.take_request(server, request, flow, now),
                transaction::Output::Ack { request, flow: _ } => {
                    if let Some(id) = self.session_of(&request) {
                        self.with(id, |session, core| session.handle_ack(&request, core, now));
                    }
                }
                transaction::Output::Cancel { server, invite, request, flow } => {
                    self.take_cancel(server, invite, &request, flow, now);
                }
                transaction::Output::Response { client, response, flow } => {
                    self.take_response(client, &response, flow, now);
                }
                transaction::Output::TimedOut { client } => self.take_timeout(client, now),
                transaction::Output::TransportFailed { client, error } => {
                    self.take_transport_failure(client, &error, now);
                }
                // The failure was sent often enough; whoever sent the INVITE is gone.
                transaction::Output::NoAck { server: _ } => {}
                // Its INVITE was answered more than 32 s ago, or never existed: an answer to it could go anywhere.
                transaction::Output::StrayResponse { .. } => {}
            }
        }
    }

    /// The session whose tag a request carries in To.
    fn session_of(&self, request: &Message) -> Option<SessionId> {
        let to = request.to().ok()?;
        let tag = std::str::from_utf8(to.tag()?).ok()?;
        self.core.tags.get(tag).copied()
    }

    // --- requests ----------------------------------------------------------------------------------------------------

    fn take_request(&mut self, server: ServerId, request: Message, flow: Flow, now: Instant) {
        let in_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        if in_dialog {
            match self.session_of(&request) {
                Some(id) => {
                    self.with(id, |session, core| session.handle_request(server, &request, flow, core, now));
                }
                None => self.take_in_subscription(server, &request, flow, now),
            }
            return;
        }
        let refusal = match request.method() {
            Method::Invite => return self.take_invite(server, request, flow, now),
            Method::Options => match self.check_options(&request) {
                Ok(()) => return answer_options(server, &request, flow, &mut self.core, now),
                Err(refusal) => refusal,
            },
            Method::Message => return take_message(server, &request, flow, &mut self.core, now),
            Method::Subscribe => return self.take_subscribe(server, request, flow, now),
            // Of no dialog, of no transaction.
            Method::Bye | Method::Cancel | Method::Prack | Method::Notify | Method::Info => Refusal::new(481),
            Method::Refer => Refusal::with(403, "Warning", warning_header(399, "REFER is for calls only")),
            Method::Other(_) => Refusal::with(501, "Allow", ALLOW),
            _ => Refusal::with(405, "Allow", ALLOW),
        };
        self.core.refuse(server, &request, flow, &refusal, now);
    }

    /// The answer is that of an INVITE, as far as it can be told beforehand (RFC 3261 §11.2). A URI without a user means
    /// this machine.
    fn check_options(&self, request: &Message) -> Result<(), Refusal> {
        let uri = sip_uri(request)?;
        if let Some(unsupported) = required_extensions(request) {
            return Err(Refusal::with(420, "Unsupported", unsupported));
        }
        match self.core.account_at(&uri) {
            None if uri.user.is_some() => Err(Refusal::new(404)),
            _ => Ok(()),
        }
    }

    fn take_invite(&mut self, server: ServerId, request: Message, flow: Flow, now: Instant) {
        if let Err(refusal) = self.open_session(server, &request, flow, now) {
            self.core.refuse(server, &request, flow, &refusal, now);
        }
    }

    /// All checks before the offer, in the order of RFC 3261 §8.2; the limits first, because they protect the rest.
    fn admit(&mut self, request: &Message, flow: Flow, now: Instant) -> Result<(AccountId, MergeKey), Refusal> {
        let core = &mut self.core;
        let (rate, per_source) = (core.config.invite_rate, core.config.invite_rate_per_source);
        if core.limits.admit(flow.remote.ip(), rate, per_source, now) == Admission::Refused {
            core.stats.refused_by_rate += 1;
            return Err(Refusal::with(503, "Retry-After", RETRY_AFTER));
        }
        let uri = sip_uri(request)?;
        let account = core.account_at(&uri).ok_or_else(|| Refusal::new(404))?;
        let merge_key = core.merge_key(request);
        if core.merge_keys.contains_key(&merge_key) {
            return Err(Refusal::new(482));
        }
        if let Some(unsupported) = required_extensions(request) {
            return Err(Refusal::with(420, "Unsupported", unsupported));
        }
        let must_be_reliable = core.accounts.get(account).is_some_and(|account| account.require_100rel);
        if must_be_reliable && !knows(request, RELIABLE) {
            return Err(Refusal::with(421, "Require", RELIABLE));
        }
        if is_too_short(request) {
            return Err(Refusal::with(422, "Min-SE", MIN_SE.to_string()));
        }
        if !matches!(request.contact(), Ok(Some(_))) {
            return Err(Refusal::new(400));
        }
        let encoded = request.header(HeaderName::ContentEncoding);
        if encoded.is_some_and(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity")) {
            return Err(Refusal::with(415, "Accept-Encoding", "identity"));
        }
        if !request.body().is_empty() && !request.header(HeaderName::ContentType).is_none_or(is_sdp) {
            return Err(Refusal::with(415, "Accept", ACCEPT));
        }
        if !core.config.accepts_calls {
            tracing::warn!("a call is refused with 480: the application does not take calls");
            return Err(Refusal::new(480));
        }
        if self.sessions.len() >= core.config.max_sessions {
            core.stats.refused_by_limit += 1;
            core.stats.refused_sessions += 1;
            return Err(Refusal::with(503, "Retry-After", RETRY_AFTER));
        }
        Ok((account, merge_key))
    }

    fn open_session(&mut self, server: ServerId, request: &Message, flow: Flow, now: Instant) -> Result<(), Refusal> {
        let (account, merge_key) = self.admit(request, flow, now)?;
        let replaces = self.find_replaced(request, account)?;
        let core = &mut self.core;
        let tag = tokens::tag(&mut core.random);
        let dialog = Dialog::uas(request, &tag, flow)
            .map_err(|error| Refusal::with(400, "Warning", warning_header(399, &error.to_string())))?;
        let offer = check_offer(request, flow.remote, account, core).map_err(|bad| {
            let mut refusal = Refusal::with(bad.code, "Warning", bad.warning);
            if bad.code == 415 {
                refusal.headers.push(("Accept", ACCEPT.into())); // RFC 3261 §21.4.13
            }
            refusal
        })?;
        if !core.limits.open(flow.remote.ip()) {
            core.stats.refused_by_limit += 1;
            core.stats.refused_half_open += 1;
            return Err(Refusal::with(503, "Retry-After", RETRY_AFTER));
        }
        let id = core.next_session();
        let arrival =
            Arrival { server, request: request.clone(), flow, account, merge_key, tag, dialog, offer, replaces };
        self.sessions.insert(id, Box::new(Session::arrive(id, arrival, core, now)));
        Ok(())
    }

    /// CANCEL is answered for itself; the INVITE it means, if still open, by its session (RFC 3261 §9.2).
    fn take_cancel(&mut self, server: ServerId, invite: Option<ServerId>, cancel: &Message, flow: Flow, now: Instant) {
        let Some(invite) = invite else { return self.core.answer(server, cancel, flow, 481, now) };
        self.core.answer(server, cancel, flow, 200, now);
        if let Some(id) = self.core.servers.get(&invite).copied() {
            self.with(id, |session, core| session.handle_cancel(cancel, core, now));
        }
    }

    // --- responses and what stands for them --------------------------------------------------------------------------

    fn take_response(&mut self, client: ClientId, response: &Message, flow: Flow, now: Instant) {
        let status = response.status().unwrap_or_default();
        let Some(used) = self.core.clients.get(&client).copied() else {
            return self.take_unclaimed(client, response, flow, now);
        };
        match used {
            ClientUse::Invite(id) => {
                if (200..300).contains(&status) {
                    self.core.forks.note(client, now);
                    let tag = response.to().ok().and_then(|to| to.tag()).unwrap_or_default();
                    if let Some((flow, ack)) = self.core.forks.ack(client, tag) {
                        return self.core.transmit(flow, ack);
                    }
                } else if status >= 300 {
                    self.core.clients.remove(&client);
                }
                let handled = self.with(id, |session, core| {
                    session.handle_invite_response(client, response, flow, core, now);
                });
                if handled.is_none() {
                    self.take_unclaimed(client, response, flow, now);
                }
            }
            ClientUse::Bye(waits) if status >= 200 => {
                self.core.clients.remove(&client);
                self.take_bye_answer(client, waits, Some(response), now);
            }
            ClientUse::Reinvite(id) => {
                if (200..300).contains(&status) {
                    self.core.forks.note(client, now);
                    let tag = response.to().ok().and_then(|to| to.tag()).unwrap_or_default();
                    if let Some((flow, ack)) = self.core.forks.ack(client, tag) {
                        return self.core.transmit(flow, ack);
                    }
                } else if status >= 300 {
                    self.core.clients.remove(&client);
                }
                let known = self.with(id, |session, core| session.handle_response(client, response, flow, core, now));
                if known.is_none_or(|known| !known) && (200..300).contains(&status) {
                    self.core.acknowledge_stray(client, response, flow); // the call is over, BYE has left
                }
            }
            ClientUse::InDialog(id) => {
                if status >= 200 {
                    self.core.clients.remove(&client);
                }
                self.with(id, |session, core| session.handle_response(client, response, flow, core, now));
            }
            ClientUse::Exchange(id) if status >= 200 => {
                self.core.clients.remove(&client);
                self.step_exchange(id, now, |exchange, core| exchange.handle_response(response, flow, core, now));
            }
            ClientUse::Subscription(id) => {
                if status >= 200 {
                    self.core.clients.remove(&client);
                }
                self.subscription_response(id, client, response, flow, now);
            }
            ClientUse::Bye(_) | ClientUse::Exchange(_) => {}
        }
    }

    /// A response whose session is gone. A 2xx to INVITE makes a dialog that somebody must end.
    fn take_unclaimed(&mut self, client: ClientId, response: &Message, flow: Flow, now: Instant) {
        if *response.method() == Method::Invite && response.status().is_some_and(|status| (200..300).contains(&status))
        {
            self.core.refuse_fork(client, response, flow, now);
        }
    }

    fn take_bye_answer(&mut self, client: ClientId, waits: Option<SessionId>, answer: Option<&Message>, now: Instant) {
        if !self.core.bye_answered(client, waits, answer, now)
            && let Some(id) = waits
        {
            self.with(id, |session, core| session.handle_bye_answered(core));
        }
    }

    fn take_timeout(&mut self, client: ClientId, now: Instant) {
        match self.core.clients.remove(&client) {
            Some(ClientUse::Invite(id)) => {
                self.with(id, |session, core| session.handle_invite_timed_out(client, core, now));
            }
            Some(ClientUse::Bye(waits)) => self.take_bye_answer(client, waits, None, now),
            Some(ClientUse::InDialog(id) | ClientUse::Reinvite(id)) => {
                self.with(id, |session, core| session.handle_no_response(client, 408, "Request Timeout", core, now));
            }
            Some(ClientUse::Exchange(id)) => {
                let why = "Request Timeout";
                self.step_exchange(id, now, |exchange, core| exchange.handle_failure(408, why, core, now));
            }
            Some(ClientUse::Subscription(id)) => {
                self.subscription_no_response(id, client, 408, "Request Timeout", now);
            }
            None => {}
        }
    }

    fn take_transport_failure(&mut self, client: ClientId, error: &str, now: Instant) {
        match self.core.clients.remove(&client) {
            Some(ClientUse::Invite(id)) => {
                self.with(id, |session, core| session.handle_invite_transport_failed(client, error, core, now));
            }
            Some(ClientUse::Bye(waits)) => self.take_bye_answer(client, waits, None, now),
            Some(ClientUse::InDialog(id) | ClientUse::Reinvite(id)) => {
                self.with(id, |session, core| session.handle_no_response(client, 503, error, core, now));
            }
            Some(ClientUse::Exchange(id)) => {
                self.step_exchange(id, now, |exchange, core| exchange.handle_failure(503, error, core, now));
            }
            Some(ClientUse::Subscription(id)) => self.subscription_no_response(id, client, 503, error, now),
            None => {}
        }
    }
}

/// The request URI, if it is of a scheme we serve.
pub(super) fn sip_uri(request: &Message) -> Result<Uri, Refusal> {
    match request.request_uri() {
        Ok(uri) if uri.is_sip() => Ok(uri),
        Ok(_) => Err(Refusal::new(416)),
        Err(_) => Err(Refusal::new(400)),
    }
}

/// True when the sender says that it knows an extension.
fn knows(request: &Message, extension: &str) -> bool {
    request.lists(HeaderName::Supported, extension) || request.lists(HeaderName::Require, extension)
}
