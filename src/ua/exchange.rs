//! A request of ours outside of calls and dialogs, from its first attempt to its final answer: OPTIONS, REGISTER, MESSAGE,
//! PUBLISH, and the SUBSCRIBE that makes a dialog.
//!
//! It goes to the first route; on 503, a time-out or a transport error to the next address and then the next route (RFC
//! 3263 §4.3, ruling R19), each attempt with a branch and a CSeq number of its own; a challenge is answered as
//! [`super::credentials`] says.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::core::{ClientUse, Core};
use super::credentials::{Attempts, Authorizable, Path};
use super::locate::{Answer, Question};
use super::routing::{Asker, RouteWalk, Step};
use super::{UserAgent, messages, options, tokens};
use crate::event::{AccountId, RequestId, SubscriptionId};
use crate::session::name_addr;
use crate::sip::build::Builder;
use crate::sip::dialog::{MAX_FORWARDS, request_line_uri};
use crate::sip::message::{Message, Method};
use crate::sip::transport::Flow;
use crate::sip::uri::Uri;

/// Who asked, and so who gets the [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The application, for an OPTIONS.
    Ping,
    /// The registration of this account.
    Registration(AccountId),
    /// The application, for a MESSAGE.
    Message(AccountId),
    /// Nobody: a delivery notification for a message from this source.
    Report(IpAddr),
    /// A subscription whose dialog is to be made.
    Subscription(SubscriptionId),
    Publication(SubscriptionId),
}

/// What is to be sent.
#[derive(Debug)]
pub(crate) struct Ask {
    pub owner: Owner,
    pub account: AccountId,
    pub method: Method,
    /// The request URI; To as well, unless `to` says otherwise.
    pub uri: Uri,
    pub to: Option<Uri>,
    /// A Call-ID and the last CSeq number used with it; `None`: a new one.
    pub call: Option<(String, u32)>,
    /// Our From tag; `None`: a new one.
    pub tag: Option<String>,
    /// `Route` of the request, in order (a Service-Route).
    pub route_set: Vec<String>,
    /// Further headers; `Contact` is written when `with_contact` says so.
    pub headers: Vec<(&'static str, String)>,
    pub with_contact: bool,
    /// Content type and bytes.
    pub body: Option<(String, Bytes)>,
    pub walk: RouteWalk,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The final code; 408 when no answer came, 503 when it could not be sent.
    pub code: u16,
    pub reason: String,
    /// The final response and the path it came on; `None` when the failure is ours.
    pub response: Option<(Message, Flow)>,
    /// From the last attempt to its final response.
    pub rtt: Option<Duration>,
    /// CSeq number of the last attempt.
    pub seq: u32,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    id: RequestId,
    ask: Ask,
    call_id: String,
    tag: String,
    seq: u32,
    attempts: Attempts,
    flow: Option<Flow>,
    sent_at: Option<Instant>,
}

/// `Some` when the exchange is over.
pub(crate) type Progress = Option<Outcome>;

impl Exchange {
    fn new(ask: Ask, core: &mut Core) -> Self {
        let (call_id, seq) = match &ask.call {
            Some((call_id, seq)) => (call_id.clone(), *seq),
            None => (tokens::call_id(&mut core.random), 0),
        };
        Self {
            id: RequestId(core.next_id()),
            tag: ask.tag.clone().unwrap_or_else(|| tokens::tag(&mut core.random)),
            ask,
            call_id,
            seq,
            attempts: Attempts::default(),
            flow: None,
            sent_at: None,
        }
    }

    pub fn owner(&self) -> Owner {
        self.ask.owner
    }

    fn start(&mut self, core: &mut Core, now: Instant) -> Progress {
        match self.ask.walk.start(Asker::Exchange(self.id), core, now) {
            Step::Exhausted(why) => {
                let why = why.unwrap_or_else(|| "there is nowhere to send it".to_owned());
                self.over(503, why, None, now)
            }
            step => {
                self.take_step(step, core, now);
                None
            }
        }
    }

    fn take_step(&mut self, step: Step, core: &mut Core, now: Instant) {
        if let Step::To(flow) = step {
            self.flow = Some(flow);
            self.send(flow, core, now);
        }
    }

    fn send(&mut self, flow: Flow, core: &mut Core, now: Instant) {
        self.seq = self.seq.saturating_add(1);
        let ask = &self.ask;
        let via = core.via(flow);
        let uri = request_line_uri(&ask.uri).to_string();
        let account = core.accounts.get(ask.account);
        let from = account.map(|account| name_addr(account.display_name.as_deref(), &account.uri)).unwrap_or_default();
        let mut request = Builder::request(&ask.method, &uri).header("Via", via).header("Max-Forwards", MAX_FORWARDS);
        // A registrar is asked straight (RFC 3608 §5); everything else of a registered account goes its Service-Route.
        let service_route = match ask.owner {
            Owner::Registration(_) => &[],
            _ if ask.route_set.is_empty() => core.accounts.route_set(ask.account, flow),
            _ => ask.route_set.as_slice(),
        };
        for route in service_route {
            request = request.header("Route", route);
        }
        request = request
            .header("From", format_args!("{from};tag={}", self.tag))
            .header("To", name_addr(None, ask.to.as_ref().unwrap_or(&ask.uri)))
            .header("Call-ID", &self.call_id)
            .header("CSeq", format_args!("{} {}", self.seq, ask.method));
        if ask.with_contact {
            let secure = ask.uri.is_secure();
            let contacts = match ask.owner {
                Owner::Registration(account) => core.registering_contacts(account, flow, secure),
                _ => vec![core.contact(ask.account, flow, secure)],
            };
            for contact in contacts {
                request = request.header("Contact", contact);
            }
        }
        let body = ask.body.as_ref().map(|(kind, bytes)| (kind.as_str(), bytes.as_ref()));
        let what = Authorizable {
            account: ask.account,
            method: &ask.method,
            uri: &uri,
            body: body.map(|(_, bytes)| bytes).unwrap_or_default(),
            flow,
            path: Path::Outside,
            hop: ask.walk.current().map(|route| route.address.as_str()),
        };
        for (name, value) in core.authorize(what, &mut self.attempts) {
            request = request.header(name, value);
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        let request = request.header("User-Agent", &core.config.user_agent).finish(body);
        self.sent_at = Some(now);
        core.send(request, flow, Some(ClientUse::Exchange(self.id)), now);
    }

    pub fn handle_resolved(
        &mut self,
        question: &Question,
        answer: Result<Answer, String>,
        core: &mut Core,
        now: Instant,
    ) -> Progress {
        match self.ask.walk.resolved(question, answer, Asker::Exchange(self.id), core, now) {
            Step::Exhausted(why) => self.handle_failure(503, why.as_deref().unwrap_or("no address is left"), core, now),
            step => {
                self.take_step(step, core, now);
                None
            }
        }
    }

    /// A final response.
    pub fn handle_response(&mut self, response: &Message, flow: Flow, core: &mut Core, now: Instant) -> Progress {
        let code = response.status().unwrap_or_default();
        if code < 300 {
            core.accepted(self.ask.account, response, &self.attempts);
        }
        match code {
            401 | 407 => match core.challenged(self.ask.account, response, &mut self.attempts) {
                Ok(()) => {
                    if let Some(flow) = self.flow {
                        self.send(flow, core, now);
                    }
                    None
                }
                Err(why) => self.over(code, format!("{} ({why})", response.reason()), Some((response, flow)), now),
            },
            503 => match self.try_next(core, now) {
                true => None,
                false => self.over(code, response.reason().into_owned(), Some((response, flow)), now),
            },
            _ => self.over(code, response.reason().into_owned(), Some((response, flow)), now),
        }
    }

    /// No answer, or not even sent.
    pub fn handle_failure(&mut self, code: u16, why: &str, core: &mut Core, now: Instant) -> Progress {
        if self.try_next(core, now) { None } else { self.over(code, why.to_owned(), None, now) }
    }

    fn try_next(&mut self, core: &mut Core, now: Instant) -> bool {
        self.attempts = Attempts::default();
        match self.ask.walk.next(Asker::Exchange(self.id), core, now) {
            Step::Exhausted(_) => false,
            step => {
                self.take_step(step, core, now);
                true
            }
        }
    }

    fn over(&self, code: u16, reason: String, response: Option<(&Message, Flow)>, now: Instant) -> Progress {
        let rtt = self.sent_at.filter(|_| response.is_some()).map(|sent| now.saturating_duration_since(sent));
        Some(Outcome {
            code,
            reason,
            response: response.map(|(message, flow)| (message.clone(), flow)),
            rtt,
            seq: self.seq,
        })
    }
}

impl UserAgent {
    /// Sends a request; its outcome goes to its owner.
    pub(super) fn start_exchange(&mut self, ask: Ask, now: Instant) -> RequestId {
        let mut exchange = Exchange::new(ask, &mut self.core);
        let id = exchange.id;
        match exchange.start(&mut self.core, now) {
            Some(outcome) => self.take_outcome(id, exchange.owner(), outcome, now),
            None => drop(self.exchanges.insert(id, exchange)),
        }
        id
    }

    /// Lets an exchange act; when it is over its owner hears of it.
    pub(super) fn step_exchange(
        &mut self,
        id: RequestId,
        now: Instant,
        act: impl FnOnce(&mut Exchange, &mut Core) -> Progress,
    ) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let Some(outcome) = act(exchange, &mut self.core) else { return };
        let owner = exchange.ask.owner;
        self.exchanges.remove(&id);
        self.take_outcome(id, owner, outcome, now);
    }

    fn take_outcome(&mut self, id: RequestId, owner: Owner, outcome: Outcome, now: Instant) {
        match owner {
            Owner::Registration(account) => self.registration_answered(account, &outcome, now),
            Owner::Ping => options::answered(id, outcome, &mut self.core),
            Owner::Message(account) => messages::answered(id, account, outcome, &mut self.core),
            Owner::Subscription(id) => self.subscription_answered(id, &outcome, now),
            Owner::Publication(id) => self.publication_answered(id, &outcome, now),
            Owner::Report(source) => messages::report_answered(source, &mut self.core),
        }
    }
}
