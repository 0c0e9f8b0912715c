//! A call of ours until it is answered: routes, the INVITE, early media, forks, refusals (RFC 3261 §13.2).

use std::sync::Arc;
use std::time::Instant;

use super::early::Forks;
use super::established::Confirmed;
use super::info::info_packages;
use super::refused::Redirects;
use super::{Failure, Leg, Session, failure_reason, shown_sdp, text};
use crate::event::{CallDirection, EventKind, Headers, SessionId, SessionState, Snapshot, Streams};
use crate::sdp::description::Description;
use crate::sdp::negotiation::{Agreed, Local, Negotiator};
use crate::sip::build::Builder;
use crate::sip::dialog::{Dialog, MAX_FORWARDS, request_line_uri};
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transaction::ClientId;
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::Uri;
use crate::ua::core::{ALLOW, ClientUse, Core, RELIABLE, SUPPORTED, quoted};
use crate::ua::credentials::{Attempts, Authorizable, Path};
use crate::ua::locate::{self, Question};
use crate::ua::routing::{Asker, RouteWalk, Step};
use crate::ua::{Connect, VerbError, tokens};

/// Headers the stack writes itself: `extra_headers` cannot name them, long or compact.
const RESERVED_HEADERS: &[&str] = &[
    "Via",
    "v",
    "From",
    "f",
    "To",
    "t",
    "Call-ID",
    "i",
    "CSeq",
    "Contact",
    "m",
    "Content-Length",
    "l",
    "Content-Type",
    "c",
    "Max-Forwards",
    "Allow",
    "User-Agent",
    "Route",
    "Session-Expires",
    "x",
    "Min-SE",
    "Record-Route",
    "Require",
    "Proxy-Require",
    "Content-Encoding",
    "e",
];

#[derive(Debug)]
pub(super) struct Outgoing {
    /// Where the INVITE is addressed to; a redirection moves it.
    pub(super) callee: Uri,
    extra_headers: Vec<(String, String)>,
    walk: RouteWalk,
    /// Why the attempt before failed.
    left_because: Option<(u16, Arc<str>)>,
    /// Where the next INVITE goes, from the moment the address is known.
    flow: Option<Flow>,
    /// Number of the last INVITE sent; each attempt has its own.
    pub(super) seq: u32,
    pub(super) invite: Option<Invite>,
    /// What is called for.
    streams: Streams,
    /// The INVITE makes no offer: the callee does.
    pub(super) late_offer: bool,
    /// The INVITE no longer mentions extensions: somebody on the way cannot bear them (420).
    pub(super) plain: bool,
    pub(super) redirects: Redirects,
    /// Challenges met on the current address.
    attempts: Attempts,
}

/// The INVITE on its way.
#[derive(Debug)]
pub(super) struct Invite {
    pub(super) client: ClientId,
    /// A response came, so the route works.
    heard: bool,
    pub(super) forks: Forks,
}

/// What a 2xx's body says about media.
pub(super) enum Answer {
    Agreed(Agreed),
    /// By an answer that early media runs by already.
    Running,
    /// It offers; our answer goes into the ACK.
    Offer {
        sdp: String,
        agreed: Agreed,
    },
}

impl Outgoing {
    pub(super) fn early_dialogs(&mut self) -> &mut [Dialog] {
        self.invite.as_mut().map_or(&mut [], |invite| &mut invite.forks.dialogs)
    }

    /// Addresses the next INVITE to a target of a redirection.
    pub(super) fn change_target(&mut self, target: Uri, walk: RouteWalk, because: &Failure) {
        (self.callee, self.walk, self.invite, self.plain) = (target, walk, None, false);
        self.attempts = Attempts::default();
        self.left_because = Some((because.code, Arc::clone(&because.reason)));
    }

    pub(super) fn client(&self) -> Option<ClientId> {
        self.invite.as_ref().map(|invite| invite.client)
    }
}

impl Session {
    /// `connect()`: the session in CALLING, with its first two notifications posted (ruling C3).
    ///
    /// # Errors
    /// [`VerbError::BadArgument`] and [`VerbError::UnknownAccount`]; nothing happened.
    pub fn connect(id: SessionId, call: Connect, core: &mut Core, now: Instant) -> Result<Self, VerbError> {
        let account = core.accounts.get(call.account).ok_or(VerbError::UnknownAccount(call.account))?;
        let local_uri = account.uri.clone();
        check_streams(call.audio, call.chat, core)?;
        check_callee(&call.callee)?;
        check_extra_headers(&call.extra_headers)?;
        check_security(&call)?;
        let walk = RouteWalk::to(call.routes, &call.callee, call.account, core)?;
        let redirects = Redirects::new(account.follow_redirects, &call.callee);
        let snapshot = Snapshot {
            direction: Some(CallDirection::Outgoing),
            account: Some(call.account),
            call_id: Some(tokens::call_id(&mut core.random).into()),
            local_uri: Some(local_uri),
            remote_uri: Some(call.callee.clone()),
            route: walk.current().cloned(),
            transport: walk.current().map(|route| route.transport),
            ..Snapshot::default()
        };
        let outgoing = Outgoing {
            callee: call.callee,
            extra_headers: call.extra_headers,
            walk,
            left_because: None,
            flow: None,
            seq: 0,
            invite: None,
            streams: Streams { audio: call.audio, chat: call.chat },
            late_offer: call.late_offer,
            plain: false,
            attempts: Attempts::default(),
            redirects,
        };
        let tag = tokens::tag(&mut core.random);
        let mut session = Self::new(id, tag, snapshot, Leg::Outgoing(Box::new(outgoing)), core);
        session.set_state(SessionState::Calling, core);
        let streams = Streams { audio: call.audio, chat: call.chat };
        session.post(EventKind::SessionNewOutgoing { streams }, core);
        session.start_route(core, now);
        Ok(session)
    }

    // --- routes ------------------------------------------------------------------------------------------------------

    fn start_route(&mut self, core: &mut Core, now: Instant) {
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        let step = outgoing.walk.start(Asker::Session(self.id), core, now);
        self.take_step(step, core, now);
    }

    /// The resolver has answered.
    pub fn handle_resolved(
        &mut self,
        question: &Question,
        answer: Result<locate::Answer, String>,
        core: &mut Core,
        now: Instant,
    ) {
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        match outgoing.walk.resolved(question, answer, Asker::Session(self.id), core, now) {
            Step::Exhausted(why) => {
                let failure = match (why, outgoing.left_because.take()) {
                    (None, Some((code, reason))) => Failure::local(code, reason),
                    (why, _) => Failure::local(503, why.unwrap_or_else(|| "no address is left".into())),
                };
                self.try_next(failure, core, now);
            }
            step => self.take_step(step, core, now),
        }
    }

    /// Lets `route` follow the walk; from the second one on that is told.
    fn follow_route(&mut self, core: &mut Core) {
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        let Some(route) = outgoing.walk.current().filter(|route| self.snapshot.route.as_ref() != Some(*route)) else {
            return;
        };
        let (route, because) = (route.clone(), outgoing.left_because.take());
        let is_first = self.snapshot.route.is_none();
        self.change(|snapshot| {
            snapshot.transport = Some(route.transport);
            snapshot.route = Some(route.clone());
        });
        if !is_first {
            let (code, reason) = because.unwrap_or_else(|| (0, "".into()));
            self.post(EventKind::SessionDidChangeRoute { route, code, reason }, core);
        }
    }

    fn take_step(&mut self, step: Step, core: &mut Core, now: Instant) {
        self.follow_route(core);
        let (Step::To(flow), Leg::Outgoing(outgoing)) = (step, &mut self.leg) else { return };
        if core.unavailable.is_avoided(flow.remote, now) && outgoing.walk.has_further_goal() {
            return self.try_next(Failure::local(503, "it asked not to be called for a while"), core, now);
        }
        outgoing.flow = Some(flow);
        let streams = outgoing.streams;
        self.change(|snapshot| {
            snapshot.transport = Some(flow.transport);
            snapshot.peer_address = Some(flow.remote);
        });
        if self.open_streams(streams, flow.remote, core) {
            self.send_invite(core, now);
        }
    }

    /// Starts on another target.
    pub(super) fn begin_route(&mut self, core: &mut Core, now: Instant) {
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        match outgoing.walk.start(Asker::Session(self.id), core, now) {
            Step::Exhausted(why) => {
                let why = why.unwrap_or_else(|| "no address is left".into());
                self.try_next(Failure::local(503, why), core, now);
            }
            step => self.take_step(step, core, now),
        }
    }

    /// The attempt failed in a way another address or route may not (ruling R19).
    pub(super) fn try_next(&mut self, failure: Failure, core: &mut Core, now: Instant) {
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        outgoing.invite = None;
        outgoing.attempts = Attempts::default();
        match outgoing.walk.next(Asker::Session(self.id), core, now) {
            Step::Exhausted(_) => self.next_target(failure, core, now),
            step => {
                outgoing.left_because = Some((failure.code, failure.reason));
                self.take_step(step, core, now);
            }
        }
    }

    // --- the INVITE --------------------------------------------------------------------------------------------------

    pub(super) fn send_invite(&mut self, core: &mut Core, now: Instant) {
        let (audio, chat) = (self.local_audio(core), self.local_chat());
        let local = Local { audio: audio.as_ref(), chat: chat.as_ref() };
        let timer = self.timer_headers(core);
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        let Some(flow) = outgoing.flow else { return };
        if outgoing.seq > 0 {
            // Another attempt: the offer of the one before is void, and with it what early media agreed on.
            self.negotiator.roll_back();
        }
        outgoing.seq += 1;
        let offer = match outgoing.late_offer {
            true => None,
            false => Some(self.negotiator.offer(local, &mut core.random).to_string()),
        };
        let via = core.via(flow);
        let secure = outgoing.callee.is_secure();
        let contact = core.contact(self.account, flow, secure);
        let uri = request_line_uri(&outgoing.callee).to_string();
        let what = Authorizable {
            account: self.account,
            method: &Method::Invite,
            uri: &uri,
            body: offer.as_deref().unwrap_or_default().as_bytes(),
            flow,
            path: Path::Outside,
            hop: outgoing.walk.current().map(|route| route.address.as_str()),
        };
        let credentials = core.authorize(what, &mut outgoing.attempts);
        let account = core.accounts.get(self.account);
        let display_name = account.and_then(|account| account.display_name.as_deref());
        let must_be_reliable = account.is_some_and(|account| account.require_100rel);
        let local = self.snapshot.local_uri.as_ref().expect("an outgoing call has its own URI");
        let called = self.snapshot.remote_uri.as_ref().expect("an outgoing call has a callee");
        let mut request =
            Builder::request(&Method::Invite, &uri).header("Via", via).header("Max-Forwards", MAX_FORWARDS);
        for route in core.accounts.route_set(self.account, flow) {
            request = request.header("Route", route);
        }
        let mut request = request
            .header("From", format_args!("{};tag={}", name_addr(display_name, local), self.tag))
            .header("To", format_args!("<{}>", address_uri(called)))
            .header("Call-ID", self.snapshot.call_id.as_deref().unwrap_or_default())
            .header("CSeq", format_args!("{} INVITE", outgoing.seq))
            .header("Contact", contact)
            .header("Allow", ALLOW)
            .header("User-Agent", &core.config.user_agent);
        if must_be_reliable {
            request = request.header("Require", RELIABLE);
        }
        if !outgoing.plain {
            request = request.header("Supported", SUPPORTED);
        }
        if let Some(packages) = info_packages(self.account, core) {
            request = request.header("Recv-Info", packages);
        }
        for (name, value) in timer {
            request = request.header(name, value);
        }
        for (name, value) in &credentials {
            request = request.header(name, value);
        }
        for (name, value) in &outgoing.extra_headers {
            request = request.header(name, value);
            if name.eq_ignore_ascii_case("Replaces") {
                request = request.header("Require", "replaces"); // else it could ring beside the call it replaces
            }
        }
        let request = request.finish(offer.as_ref().map(|offer| ("application/sdp", offer.as_bytes())));
        let request = Message::parse(request).expect("an INVITE we built can be read");
        let headers = Headers::of(&request);
        let client = core.send_message(request, flow, Some(ClientUse::Invite(self.id)), now);
        outgoing.invite = Some(Invite { client, heard: false, forks: Forks::default() });
        self.change(|snapshot| {
            snapshot.request_headers = Some(headers);
            snapshot.local_sdp = offer.as_deref().map(shown_sdp);
        });
    }

    /// A response to an INVITE of this session, after repeated 2xx were dealt with.
    pub fn handle_invite_response(
        &mut self,
        client: ClientId,
        response: &Message,
        flow: Flow,
        core: &mut Core,
        now: Instant,
    ) {
        let status = response.status().unwrap_or_default();
        if !self.is_ours(response) {
            return;
        }
        match &mut self.leg {
            Leg::Outgoing(outgoing) if outgoing.client() == Some(client) => {
                if let Some(invite) = &mut outgoing.invite {
                    invite.heard = true;
                }
                match status {
                    ..=100 => {}
                    101..=199 => self.progress(status, response, flow, core, now),
                    200..=299 => self.answered(client, response, flow, core, now),
                    _ => self.refused(status, response, core, now),
                }
            }
            Leg::Ending(ending) if status >= 200 && ending.is_cancelling(client) => {
                self.cancelled(client, response, flow, core, now);
            }
            // Another fork, or an attempt on a route we have given up.
            _ if (200..300).contains(&status) => core.refuse_fork(client, response, flow, now),
            _ => {}
        }
    }

    fn answered(&mut self, client: ClientId, response: &Message, flow: Flow, core: &mut Core, now: Instant) {
        let headers = Headers::of(response);
        let agent = text(response, HeaderName::Server).or_else(|| text(response, HeaderName::UserAgent));
        self.change(|snapshot| {
            snapshot.response_headers = Some(headers);
            snapshot.remote_user_agent = agent;
        });
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        core.accepted(self.account, response, &outgoing.attempts);
        let mut dialog = match Dialog::uac(response, flow) {
            Ok(dialog) => dialog,
            // Neither ACK nor BYE could be addressed: the peer gives up by itself after 32 s.
            Err(error) => return self.fail(Failure::local(488, format!("unusable 200: {error}")), core),
        };
        let seq = outgoing.seq;
        let early = outgoing.early_dialogs();
        if let Some(early) = early.iter().find(|early| early.remote_tag() == dialog.remote_tag()) {
            dialog.continue_numbers(early);
        }
        core.forks.remember(client, seq, early, now);
        match self.final_answer(response, core) {
            Ok(answer) => {
                self.post(EventKind::SessionWillStart, core);
                let ours = match &answer {
                    Answer::Offer { sdp, .. } => Some(sdp.as_str()),
                    Answer::Agreed(_) | Answer::Running => None,
                };
                self.take_timer(response, core, now);
                core.acknowledge_with(client, &dialog, seq, ours);
                self.leg = Leg::Confirmed(Box::new(Confirmed::new(dialog)));
                match answer {
                    Answer::Agreed(agreed) => self.start_streams(agreed, core),
                    Answer::Running => {}
                    Answer::Offer { sdp, agreed } => {
                        self.show_remote_sdp(response.body());
                        self.change(|snapshot| snapshot.local_sdp = Some(shown_sdp(&sdp)));
                        self.start_streams(agreed, core);
                    }
                }
                self.establish(core);
            }
            Err((error, refusal)) => {
                core.acknowledge_with(client, &dialog, seq, refusal.as_deref());
                core.send_bye(&mut dialog, Some(self.account), Some(&error), None, now);
                self.fail(Failure::local(488, error), core);
            }
        }
    }

    fn refused(&mut self, status: u16, response: &Message, core: &mut Core, now: Instant) {
        let headers = Headers::of(response);
        let agent = text(response, HeaderName::Server).or_else(|| text(response, HeaderName::UserAgent));
        self.change(|snapshot| {
            snapshot.response_headers = Some(headers);
            snapshot.remote_user_agent = agent;
        });
        let failure = Failure::remote(status, failure_reason(response));
        match status {
            422 if self.take_min_se(response) => self.send_invite(core, now),
            401 | 407 => self.challenged(status, response, core, now),
            _ => self.take_refusal(status, failure, response, core, now),
        }
    }

    /// The same INVITE again with credentials (RFC 3261 §22.2), or the end of the call with a reason that says why not.
    fn challenged(&mut self, status: u16, response: &Message, core: &mut Core, now: Instant) {
        let Leg::Outgoing(outgoing) = &mut self.leg else { return };
        outgoing.invite = None;
        match core.challenged(self.account, response, &mut outgoing.attempts) {
            Ok(()) => self.send_invite(core, now),
            Err(why) => {
                let reason = format!("{} ({why})", failure_reason(response));
                self.fail(Failure::remote(status, reason), core);
            }
        }
    }

    /// No answer at all (timer B).
    pub fn handle_invite_timed_out(&mut self, client: ClientId, core: &mut Core, now: Instant) {
        match &self.leg {
            Leg::Outgoing(outgoing) if outgoing.client() == Some(client) => {
                let failure = Failure::local(408, "Request Timeout");
                if outgoing.invite.as_ref().is_some_and(|invite| invite.heard) {
                    self.fail(failure, core);
                } else {
                    self.try_next(failure, core, now);
                }
            }
            Leg::Ending(ending) if ending.is_cancelling(client) => self.end_answered(core),
            _ => {}
        }
    }

    /// The INVITE could not be sent.
    pub fn handle_invite_transport_failed(&mut self, client: ClientId, error: &str, core: &mut Core, now: Instant) {
        match &self.leg {
            Leg::Outgoing(outgoing) if outgoing.client() == Some(client) => {
                self.try_next(Failure::local(503, error), core, now);
            }
            Leg::Ending(ending) if ending.is_cancelling(client) => self.end_answered(core),
            _ => {}
        }
    }

    pub(super) fn outgoing_media_failed(&mut self, error: &str, core: &mut Core, now: Instant) {
        if let Leg::Outgoing(outgoing) = &self.leg {
            outgoing.abandon("", core, now); // a 2xx that crosses it is acknowledged and ended like any fork
        }
        self.fail(Failure::local(0, error), core);
    }

    pub(super) fn show_remote_sdp(&mut self, sdp: &[u8]) {
        let shown = shown_sdp(&String::from_utf8_lossy(sdp));
        self.change(|snapshot| snapshot.remote_sdp = Some(shown));
    }
}

/// True when a message carries a session description; a body without a type can be nothing else here.
pub(super) fn has_sdp(message: &Message) -> bool {
    !message.body().is_empty() && message.header(HeaderName::ContentType).is_none_or(is_sdp)
}

/// True for `application/sdp` with or without parameters.
pub(crate) fn is_sdp(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/sdp")
}

/// Takes an answer's bytes.
pub(super) fn take_answer(negotiator: &mut Negotiator, body: &[u8]) -> Result<Agreed, String> {
    let answer = Description::parse(body).map_err(|error| error.to_string())?;
    negotiator.accept_answer(&answer).map_err(|error| error.to_string())
}

fn check_streams(audio: bool, chat: bool, core: &Core) -> Result<(), VerbError> {
    match (audio, chat) {
        (_, true) if !core.config.chat => Err(VerbError::BadArgument("chat is not available: only audio is".into())),
        (false, false) => Err(VerbError::BadArgument("no stream is asked for: audio is False".into())),
        (true, _) | (_, true) => Ok(()),
    }
}

pub(crate) fn check_callee(callee: &Uri) -> Result<(), VerbError> {
    if callee.is_sip() && callee.host.is_some() {
        Ok(())
    } else {
        Err(VerbError::BadArgument(format!("{callee} is no SIP URI that can be called")))
    }
}

/// What is called by `sips:` is reached over TLS or not at all (RFC 3261 §26.2.2).
fn check_security(call: &Connect) -> Result<(), VerbError> {
    let secure = |transport| matches!(transport, Transport::Tls | Transport::Wss);
    match call.routes.iter().find(|route| call.callee.is_secure() && !secure(route.transport)) {
        Some(route) => Err(VerbError::BadArgument(format!(
            "{} is called over TLS only, not over {}",
            call.callee, route.transport
        ))),
        None => Ok(()),
    }
}

fn check_extra_headers(headers: &[(String, String)]) -> Result<(), VerbError> {
    for (name, value) in headers {
        let is_token = |letter: u8| letter.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&letter);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(VerbError::BadArgument(format!("{name:?} is no header name")));
        }
        if RESERVED_HEADERS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(VerbError::BadArgument(format!("header {name} is written by the stack")));
        }
        if value.contains(['\r', '\n', '\0']) {
            return Err(VerbError::BadArgument(format!("the value of header {name} holds a line break: {value:?}")));
        }
    }
    Ok(())
}

/// A URI as From and To may carry it (RFC 3261 §19.1.1, table 1), but for the port, which names the peer when there is no
/// registrar between.
pub(crate) fn address_uri(uri: &Uri) -> Uri {
    const NOT_THERE: [&str; 5] = ["transport", "maddr", "ttl", "lr", "method"];
    let mut uri = uri.clone();
    uri.headers.clear();
    uri.password = None;
    uri.parameters.retain(|(name, _)| !NOT_THERE.iter().any(|not| not.eq_ignore_ascii_case(name)));
    uri
}

/// `"Display Name" <uri>`.
pub(crate) fn name_addr(display_name: Option<&str>, uri: &Uri) -> String {
    match display_name.filter(|name| !name.is_empty()) {
        Some(name) => format!("\"{}\" <{}>", quoted(name), address_uri(uri)),
        None => format!("<{}>", address_uri(uri)),
    }
}
