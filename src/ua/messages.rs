//! MESSAGE in pager mode (RFC 3428), both roles: plain or of any type, wrapped in CPIM when asked (RFC 3862), with
//! disposition notifications (RFC 5438).
//!
//! A message that comes in is answered before the application hears of it: 200 means that it is in our hands. When its
//! sender asked for a positive delivery notification, that is sent by itself; that it was displayed only the application
//! knows and says with [`UserAgent::report`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::core::{Core, warning_header};
use super::exchange::{Ask, Outcome, Owner};
use super::inbound::{RETRY_AFTER, Refusal, sip_uri};
use super::limits::Admission;
use super::routing::RouteWalk;
use super::{UserAgent, VerbError, tokens};
use crate::event::{AccountId, EventKind, Originator, RequestId, Route, Sender, SessionId};
use crate::session::{check_callee, required_extensions};
use crate::sip::cpim::{self, Address, Cpim, DateTime, Header};
use crate::sip::headers::ContentType;
use crate::sip::imdn::{self, Disposition, Report, Status, Wanted};
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transaction::ServerId;
use crate::sip::transport::Flow;
use crate::sip::uri::Uri;

/// Largest body that is taken: pager mode is for short messages, a file goes another way.
pub const MAX_BODY: usize = 64 * 1024;

/// Delivery notifications on their way to one source, and to all: whoever asks for them and never answers them is not
/// sent more, so that nobody can aim them at a third.
const MAX_REPORTS_PER_SOURCE: usize = 16;
const MAX_REPORTS: usize = 256;

/// Longest message id and longest other text of a header that is repeated in a report.
const MAX_REPEATED: usize = 256;

/// Arguments of [`UserAgent::message`].
#[derive(Clone, Debug)]
pub struct SendMessage {
    pub account: AccountId,
    pub uri: Uri,
    /// Tried in order (ruling R19).
    pub routes: Vec<Route>,
    pub content_type: String,
    pub body: Bytes,
    /// Wrap it into CPIM.
    pub wrap: Option<Wrap>,
}

/// What the CPIM wrapper says.
#[derive(Clone, Debug)]
pub struct Wrap {
    /// When it was written.
    pub at: SystemTime,
    pub wanted: Wanted,
    pub subject: Option<String>,
}

/// Arguments of [`UserAgent::report`].
#[derive(Clone, Debug)]
pub struct SendReport {
    pub account: AccountId,
    /// Who sent the message.
    pub uri: Uri,
    pub routes: Vec<Route>,
    /// Of that message.
    pub message_id: String,
    /// DateTime of that message; empty when it had none.
    pub date_time: String,
    pub disposition: Disposition,
    pub status: Status,
}

/// Delivery notifications that nobody has answered yet.
#[derive(Debug, Default)]
pub(crate) struct OpenReports {
    by_source: BTreeMap<IpAddr, usize>,
}

impl OpenReports {
    fn open(&mut self, source: IpAddr) -> bool {
        let all: usize = self.by_source.values().sum();
        let count = self.by_source.get(&source).copied().unwrap_or_default();
        let free = all < MAX_REPORTS && count < MAX_REPORTS_PER_SOURCE;
        if free {
            self.by_source.insert(source, count + 1);
        }
        free
    }

    fn close(&mut self, source: IpAddr) {
        if let Some(count) = self.by_source.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_source.is_empty()
    }
}

impl UserAgent {
    /// Sends a message. Its outcome comes as [`EventKind::MessageDidSucceed`] or [`EventKind::MessageDidFail`]; the second
    /// value is its `imdn.Message-ID`, which reports will name, when it asks for any.
    ///
    /// # Errors
    /// For an unknown account, a URI, route or content type that cannot be used, or a body above [`MAX_BODY`].
    pub fn message(&mut self, message: SendMessage, now: Instant) -> Result<(RequestId, Option<String>), VerbError> {
        let SendMessage { account, uri, routes, content_type, body, wrap } = message;
        if ContentType::parse(content_type.as_bytes()).is_none() || content_type.contains(['\r', '\n']) {
            return Err(VerbError::BadArgument(format!("content type {content_type:?} is none")));
        }
        if body.len() > MAX_BODY {
            let size = body.len();
            return Err(VerbError::BadArgument(format!("a message of {size} bytes is larger than {MAX_BODY}")));
        }
        let (body, message_id) = match wrap {
            None => ((content_type, body), None),
            Some(wrap) => {
                let (wrapper, id) = self.wrapper(account, &uri, &content_type, body, wrap)?;
                ((cpim::CONTENT_TYPE.to_owned(), wrapper.write()), id)
            }
        };
        let ask = self.core.message_ask(Owner::Message(account), account, uri, routes, body)?;
        let id = self.start_exchange(ask, now);
        self.drain_transactions(now);
        Ok((id, message_id))
    }

    fn wrapper(
        &mut self,
        account: AccountId,
        uri: &Uri,
        content_type: &str,
        body: Bytes,
        wrap: Wrap,
    ) -> Result<(Cpim, Option<String>), VerbError> {
        let core = &mut self.core;
        let settings = core.accounts.get(account).ok_or(VerbError::UnknownAccount(account))?;
        let from = Address { name: settings.display_name.clone(), uri: plain_uri(&settings.uri) };
        let mut headers = vec![
            Header::address("From", &from),
            Header::address("To", &Address { name: None, uri: plain_uri(uri) }),
            Header::new("DateTime", &DateTime::text(wrap.at)),
        ];
        if let Some(subject) = &wrap.subject {
            headers.push(Header::new("Subject", subject));
        }
        let id = (!wrap.wanted.is_empty()).then(|| tokens::tag(&mut core.random));
        if let Some(id) = &id {
            headers.push(Header::new("NS", &format!("imdn <{}>", cpim::IMDN)));
            headers.push(Header::new("imdn.Message-ID", id));
            headers.push(Header::new("imdn.Disposition-Notification", &wrap.wanted.to_string()));
        }
        let content_headers = vec![
            ("Content-Type".to_owned(), content_type.to_owned()),
            ("Content-Length".to_owned(), body.len().to_string()),
        ];
        Ok((Cpim { headers, content_headers, body }, id))
    }

    /// Tells the sender of a message what became of it (RFC 5438 §7.2.1). The outcome comes as that of a message.
    ///
    /// # Errors
    /// For an unknown account, a URI or route that cannot be used, or without a message id.
    pub fn report(&mut self, report: SendReport, now: Instant) -> Result<RequestId, VerbError> {
        let owner = Owner::Message(report.account);
        if report.message_id.is_empty() || report.message_id.len() > MAX_REPEATED {
            return Err(VerbError::BadArgument(format!("{:?} is no message id", report.message_id)));
        }
        let ask = self.core.report_ask(owner, report)?;
        let id = self.start_exchange(ask, now);
        self.drain_transactions(now);
        Ok(id)
    }

    /// True for a message while refusing them is itself too much work.
    pub(super) fn is_flooded_by_messages(&mut self, message: &Message, now: Instant) -> bool {
        message.is_request()
            && matches!(message.method(), Method::Message | Method::Subscribe)
            && self.core.event_limits.is_silent(self.core.config.invite_rate, now)
    }
}

/// Tells the application what became of its message.
pub(super) fn answered(request: RequestId, account: AccountId, outcome: Outcome, core: &mut Core) {
    let Outcome { code, reason, response, .. } = outcome;
    let reason: Arc<str> = reason.into();
    let kind = match code {
        200..300 => EventKind::MessageDidSucceed { request, code, reason },
        _ => {
            let originator = if response.is_some() { Originator::Remote } else { Originator::Local };
            EventKind::MessageDidFail { request, originator, code, reason }
        }
    };
    core.notify_as(Sender::Account(account), kind);
}

/// A delivery notification of ours has been answered, or never will be.
pub(super) fn report_answered(source: IpAddr, core: &mut Core) {
    core.open_reports.close(source);
}

/// Takes a MESSAGE outside dialogs: finds its account and answers it.
pub(super) fn take_message(server: ServerId, request: &Message, flow: Flow, core: &mut Core, now: Instant) {
    let admitted = admit(request, flow, core, now).and_then(|account| receive(request, account, None, flow, core));
    answer(server, request, flow, admitted, core, now);
}

/// Takes a MESSAGE inside the dialog of a call (RFC 3428 §4).
pub(crate) fn take_in_session(
    server: ServerId,
    request: &Message,
    flow: Flow,
    (account, session): (AccountId, SessionId),
    core: &mut Core,
    now: Instant,
) {
    let admitted = check_rate(flow, core, now).and_then(|()| receive(request, account, Some(session), flow, core));
    answer(server, request, flow, admitted, core, now);
}

fn answer(server: ServerId, request: &Message, flow: Flow, taken: Result<(), Refusal>, core: &mut Core, now: Instant) {
    match taken {
        Ok(()) => core.answer(server, request, flow, 200, now),
        Err(refusal) => core.refuse(server, request, flow, &refusal, now),
    }
}

/// New messages and subscriptions a second, with counts of their own beside those of calls.
pub(super) fn check_rate(flow: Flow, core: &mut Core, now: Instant) -> Result<(), Refusal> {
    let (rate, per_source) = (core.config.invite_rate, core.config.invite_rate_per_source);
    if core.event_limits.admit(flow.remote.ip(), rate, per_source, now) == Admission::Refused {
        core.stats.refused_by_rate += 1;
        return Err(Refusal::with(503, "Retry-After", RETRY_AFTER));
    }
    Ok(())
}

fn admit(request: &Message, flow: Flow, core: &mut Core, now: Instant) -> Result<AccountId, Refusal> {
    check_rate(flow, core, now)?;
    let uri = sip_uri(request)?;
    let account = core.account_at(&uri).ok_or_else(|| Refusal::new(404))?;
    match required_extensions(request) {
        Some(unsupported) => Err(Refusal::with(420, "Unsupported", unsupported)),
        None => Ok(account),
    }
}

/// Reads the body and tells the application. `Err` is what the sender is answered.
fn receive(
    request: &Message,
    account: AccountId,
    session: Option<SessionId>,
    flow: Flow,
    core: &mut Core,
) -> Result<(), Refusal> {
    if request.body().len() > MAX_BODY {
        core.stats.refused_by_limit += 1;
        return Err(Refusal::new(413));
    }
    let encoded = request.header(HeaderName::ContentEncoding);
    if encoded.is_some_and(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::with(415, "Accept-Encoding", "identity"));
    }
    if !core.config.accepts_messages {
        return Err(Refusal::new(480));
    }
    let bad = |what: &str| Refusal::with(400, "Warning", warning_header(399, what));
    let written = request.header(HeaderName::ContentType).unwrap_or(b"text/plain");
    let outer = ContentType::parse(written).ok_or_else(|| bad("Content-Type cannot be read"))?;
    let from = request.from().map_err(|error| bad(&error.what))?;
    let from_uri = from.uri().map_err(|_| bad("From cannot be read"))?;
    let mut content = request.body_bytes();
    let mut content_type: Arc<str> = String::from_utf8_lossy(written).into();
    let mut wrapper = None;
    if outer.is(cpim::CONTENT_TYPE) {
        let read = Cpim::parse(content).map_err(|error| bad(&format!("CPIM: {error}")))?;
        let unknown = read.not_understood();
        if !unknown.is_empty() {
            // It must not be shown (RFC 3862 §2.3.3).
            let what = format!("CPIM headers not understood: {}", unknown.join(", "));
            return Err(Refusal::with(415, "Warning", warning_header(399, &what)));
        }
        (content, content_type) = (read.body.clone(), read.content_type().into());
        wrapper = Some(read);
    }
    if ContentType::parse(content_type.as_bytes()).is_some_and(|inner| inner.is(imdn::CONTENT_TYPE)) {
        let report = Report::parse(&content).map_err(|error| bad(&format!("IMDN: {error}")))?;
        let kind = EventKind::MessageDidGetDeliveryReport {
            from_uri: Arc::new(from_uri),
            message_id: report.message_id.into(),
            disposition: report.disposition.name(),
            status: report.status.name(),
        };
        core.notify_as(Sender::Account(account), kind);
        return Ok(());
    }
    let wanted = wrapper.as_ref().and_then(|read| read.imdn("Disposition-Notification"));
    let wanted = wanted.map(|text| Wanted::parse(&text)).unwrap_or_default();
    let message_id = wrapper.as_ref().and_then(|read| read.imdn("Message-ID"));
    let message_id = message_id.filter(|id| !id.is_empty() && id.len() <= MAX_REPEATED);
    let date_time = wrapper.as_ref().and_then(|read| read.header("DateTime")).map(Header::text);
    let date_time = date_time.filter(|text| text.len() <= MAX_REPEATED).unwrap_or_default();
    let to_uri = request.to().ok().and_then(|to| to.uri().ok());
    core.notify(EventKind::EngineGotMessage {
        account,
        session,
        from_uri: Arc::new(from_uri.clone()),
        from_display_name: from.display_name().map(Into::into),
        to_uri: Arc::new(to_uri.unwrap_or_else(|| from_uri.clone())),
        content,
        content_type,
        cpim_headers: wrapper.map(|read| Arc::new(by_name(&read))),
        message_id: message_id.clone().map(Into::into),
        disposition: wanted.words(),
    });
    if let Some(message_id) = message_id.filter(|_| wanted.positive_delivery) {
        core.report_delivery(account, from_uri, message_id, date_time, flow);
    }
    Ok(())
}

impl Core {
    fn message_ask(
        &self,
        owner: Owner,
        account: AccountId,
        uri: Uri,
        routes: Vec<Route>,
        body: (String, Bytes),
    ) -> Result<Ask, VerbError> {
        self.accounts.get(account).ok_or(VerbError::UnknownAccount(account))?;
        check_callee(&uri)?;
        let walk = RouteWalk::to(routes, &uri, account, self)?;
        Ok(Ask {
            owner,
            account,
            method: Method::Message,
            uri,
            to: None,
            call: None,
            tag: None,
            route_set: Vec::new(),
            headers: Vec::new(),
            with_contact: false, // RFC 3428 §4: it makes no dialog
            body: Some(body),
            walk,
        })
    }

    fn report_ask(&mut self, owner: Owner, report: SendReport) -> Result<Ask, VerbError> {
        let SendReport { account, uri, routes, message_id, date_time, disposition, status } = report;
        let settings = self.accounts.get(account).ok_or(VerbError::UnknownAccount(account))?;
        let headers = vec![
            Header::address("From", &Address { name: None, uri: plain_uri(&settings.uri) }),
            Header::address("To", &Address { name: None, uri: plain_uri(&uri) }),
            Header::new("NS", &format!("imdn <{}>", cpim::IMDN)),
            Header::new("imdn.Message-ID", &tokens::tag(&mut self.random)),
        ];
        let body = Bytes::from(Report { message_id, date_time, disposition, status }.write());
        let content_headers = vec![
            ("Content-Type".to_owned(), imdn::CONTENT_TYPE.to_owned()),
            ("Content-Disposition".to_owned(), "notification".to_owned()),
            ("Content-Length".to_owned(), body.len().to_string()),
        ];
        let wrapper = Cpim { headers, content_headers, body };
        self.message_ask(owner, account, uri, routes, (cpim::CONTENT_TYPE.to_owned(), wrapper.write()))
    }

    /// Sends the positive delivery notification that the sender asked for: through the account's proxy, else back where
    /// the message came from.
    fn report_delivery(&mut self, account: AccountId, uri: Uri, message_id: String, date_time: String, flow: Flow) {
        let source = flow.remote.ip();
        let back = Route::new(source.to_string(), flow.remote.port(), flow.transport);
        let proxy = self.accounts.get(account).and_then(|account| account.outbound_proxy.clone());
        let report = SendReport {
            account,
            uri,
            routes: vec![proxy.unwrap_or(back)],
            message_id,
            date_time,
            disposition: Disposition::Delivery,
            status: Status::Delivered,
        };
        match self.report_ask(Owner::Report(source), report) {
            Ok(ask) if self.open_reports.open(source) => self.asks.push(ask),
            Ok(_) => self.stats.refused_by_limit += 1,
            Err(error) => tracing::debug!(%error, "a delivery notification cannot be sent"),
        }
    }
}

/// The headers of a wrapper for the application.
fn by_name(wrapper: &Cpim) -> BTreeMap<String, String> {
    let mut all = BTreeMap::<String, String>::new();
    for header in &wrapper.headers {
        let text = header.text();
        all.entry(header.name.clone())
            .and_modify(|before| {
                before.push_str(", ");
                before.push_str(&text);
            })
            .or_insert(text);
    }
    all
}

/// A URI as CPIM names people: scheme, user and host alone.
fn plain_uri(uri: &Uri) -> String {
    format!("{}:{}", uri.scheme, uri.address())
}
