//! The proxy itself (RFC 3261 §16): who may send what, and where it goes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

use super::forking::{Branch, Forked};
use super::forwarding::{self, Changes};
use super::misbehaviour::{Match, Misbehaviour, Misbehaviours};
use super::registrar::{Registrar, Registration, Rules};
use crate::sip::build::Builder;
use crate::sip::digest::server::{Policy, Secret, Verdict, Verifier};
use crate::sip::digest::{Algorithm, Asker, Qop};
use crate::sip::headers::{NameAddr, Via};
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transaction::{self, ClientId, ServerId, Transactions};
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::{Host, Uri};

/// Timer C: an INVITE that nobody answers for so long is cancelled (RFC 3261 §16.6).
const TIMER_C: Duration = Duration::from_secs(185);

/// Messages the log keeps; the oldest go.
const MAX_SEEN: usize = 20_000;

/// Contacts whose connection is remembered; all are forgotten when there are more.
const MAX_CONTACTS: usize = 4096;

/// Phones one request is forwarded to.
const MAX_TARGETS: usize = 32;

/// The user of the phone that does not exist: see [`Misbehaviour::SecondAnswer`].
const GHOST: &str = "ghost";

/// Somebody who may register and call.
#[derive(Clone, Debug)]
pub struct User {
    pub secret: Secret,
    /// The name in credentials, when it is not the user's own.
    pub auth_name: Option<String>,
}

impl User {
    pub fn with_password(password: &str) -> Self {
        Self { secret: Secret::password(password), auth_name: None }
    }
}

/// What a proxy is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The domain it serves, and the realm it asks for passwords in.
    pub domain: String,
    /// Where it listens. Requests to these addresses are for its domain too.
    pub local: Vec<(Transport, SocketAddr)>,
    pub users: BTreeMap<String, User>,
    /// Asks REGISTER (401) and its users' requests outside dialogs (407) for a password.
    pub authenticate: bool,
    pub algorithms: Vec<Algorithm>,
    pub qops: Vec<Qop>,
    pub nonce_life: Duration,
    /// A second realm that is asked for in the same 407.
    pub second_realm: Option<String>,
    pub record_route: bool,
    /// Seconds; a shorter REGISTER is answered 423.
    pub min_expires: u32,
    /// Seconds; a longer one is shortened.
    pub max_expires: u32,
    /// Answers REGISTER with a Service-Route to itself.
    pub service_route: bool,
    pub gruu: bool,
    pub outbound: bool,
    /// Where other domains are.
    pub hosts: BTreeMap<String, SocketAddr>,
}

impl Settings {
    pub fn new(domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            local: Vec::new(),
            users: BTreeMap::new(),
            authenticate: true,
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            qops: vec![Qop::Auth],
            nonce_life: crate::sip::digest::server::NONCE_LIFE,
            second_realm: None,
            record_route: true,
            min_expires: 0,
            max_expires: 3600,
            service_route: false,
            gruu: false,
            outbound: true,
            hosts: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.insert(name.to_owned(), User::with_password(password));
        self
    }

    fn policy(&self, realm: &str, asker: Asker) -> Policy {
        Policy {
            algorithms: self.algorithms.clone(),
            qops: self.qops.clone(),
            nonce_life: self.nonce_life,
            max_failures: u32::MAX, // tests of wrong passwords come by the dozen
            ..Policy::new(realm, asker)
        }
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        let by_auth_name = || self.users.values().find(|user| user.auth_name.as_deref() == Some(name));
        let own = self.users.get(name).filter(|user| user.auth_name.is_none());
        own.or_else(by_auth_name).map(|user| user.secret.clone())
    }
}

/// Bytes to send.
#[derive(Debug)]
pub struct Transmit {
    pub flow: Flow,
    pub bytes: Bytes,
    /// For requests: who is told when they cannot be sent.
    pub client: Option<ClientId>,
    /// From another port than the one it listens on.
    pub other_port: bool,
}

/// A message that came or went.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    /// To the proxy.
    pub received: bool,
    pub flow: Flow,
    pub bytes: Bytes,
    /// It was lost on purpose.
    pub dropped: bool,
}

/// A registrar and proxy without sockets or a clock.
///
/// After each verb or `handle_*`, the owner drains [`Self::poll_output`], then waits until [`Self::poll_timeout`].
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    random: StdRng,
    transactions: Transactions,
    registrar: Registrar,
    registrar_verifier: Verifier,
    verifiers: Vec<Verifier>,
    forked: BTreeMap<ServerId, Forked>,
    clients: BTreeMap<ClientId, ServerId>,
    misbehaviours: Misbehaviours,
    /// Connections of those whose Contact is no address that can be sent to.
    contacts: HashMap<ContactKey, Flow>,
    outputs: VecDeque<Transmit>,
    held: BTreeMap<(Instant, u64), Transmit>,
    last_held: u64,
    seen: VecDeque<Seen>,
}

impl Proxy {
    pub fn new(settings: Settings, mut random: StdRng, now: Instant) -> Self {
        let registrar_policy = settings.policy(&settings.domain, Asker::Server);
        let registrar_verifier = Verifier::new(registrar_policy, &mut random, now);
        let realms = [Some(&settings.domain), settings.second_realm.as_ref()];
        let policies: Vec<Policy> =
            realms.into_iter().flatten().map(|realm| settings.policy(realm, Asker::Proxy)).collect();
        let verifiers = policies.into_iter().map(|policy| Verifier::new(policy, &mut random, now)).collect();
        Self {
            settings,
            random,
            transactions: Transactions::of_a_proxy(),
            registrar: Registrar::default(),
            registrar_verifier,
            verifiers,
            forked: BTreeMap::new(),
            clients: BTreeMap::new(),
            misbehaviours: Misbehaviours::default(),
            contacts: HashMap::new(),
            outputs: VecDeque::new(),
            held: BTreeMap::new(),
            last_held: 0,
            seen: VecDeque::new(),
        }
    }

    /// What it is like; users and the like may change while it runs, realms and addresses may not.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    // --- verbs -------------------------------------------------------------------------------------------------------

    /// Does this wrong from now on.
    pub fn misbehave(&mut self, what: Misbehaviour, which: Match) {
        self.misbehaviours.add(what, which);
    }

    /// Is honest again. What is delayed still comes.
    pub fn behave(&mut self) {
        self.misbehaviours.clear();
    }

    /// Who is registered where.
    pub fn registrations(&self, now: Instant) -> Vec<Registration> {
        self.registrar.all(now)
    }

    /// Forgets every binding, as a registrar does that was started again.
    pub fn forget_registrations(&mut self) {
        self.registrar.clear();
    }

    /// What came and went, oldest first.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter()
    }

    pub fn forget_seen(&mut self) {
        self.seen.clear();
    }

    // --- what arrives ------------------------------------------------------------------------------------------------

    pub fn handle_message(&mut self, message: Message, flow: Flow, now: Instant) {
        self.note(true, flow, message.as_bytes().clone(), false, now);
        if message.validate().is_err() {
            return; // a test peer has its own parser to find out with
        }
        self.transactions.handle_message(message, flow, now);
        self.drain(now);
    }

    /// A request could not be sent.
    pub fn handle_transport_error(&mut self, client: ClientId, error: &str, now: Instant) {
        self.transactions.handle_transport_error(client, error, now);
        self.drain(now);
    }

    /// Moves time forward. Early or repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.transactions.handle_timeout(now);
        let late: Vec<ServerId> =
            self.forked.iter().filter(|(_, one)| one.deadline <= now).map(|(server, _)| *server).collect();
        for server in late {
            self.cancel_branches(server, &[], now);
            if let Some(forked) = self.forked.get_mut(&server) {
                forked.deadline = now + TIMER_C; // what is cancelled ends by itself within 32 s
            }
        }
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= now) {
            let transmit = entry.remove();
            self.outputs.push_back(transmit);
        }
        self.drain(now);
    }

    // --- what leaves -------------------------------------------------------------------------------------------------

    /// The next message to send; `None` when drained.
    pub fn poll_output(&mut self) -> Option<Transmit> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let held = self.held.keys().next().map(|(at, _)| *at);
        let deadline = self.forked.values().map(|one| one.deadline).min();
        [self.transactions.poll_timeout(), held, deadline].into_iter().flatten().min()
    }

    /// True when no request is on its way.
    pub fn is_idle(&self) -> bool {
        self.transactions.is_empty() && self.forked.is_empty() && self.held.is_empty() && self.outputs.is_empty()
    }

    // --- inside ------------------------------------------------------------------------------------------------------

    fn note(&mut self, received: bool, flow: Flow, bytes: Bytes, dropped: bool, now: Instant) {
        if self.seen.len() >= MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { at: now, received, flow, bytes, dropped });
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.transactions.poll_output() {
            match output {
                transaction::Output::Transmit { flow, bytes, client } => self.transmit(flow, bytes, client, now),
                transaction::Output::Request { server, request, flow } => self.take_request(server, request, flow, now),
                transaction::Output::Ack { request, flow } => self.take_ack(&request, flow, now),
                transaction::Output::Cancel { server, invite, request, flow } => {
                    self.answer(server, &request, flow, if invite.is_some() { 200 } else { 481 }, &[], now);
                    let reason: Vec<_> = request
                        .header(HeaderName::Reason)
                        .map(|reason| ("Reason".to_owned(), String::from_utf8_lossy(reason).into_owned()))
                        .into_iter()
                        .collect();
                    if let Some(invite) = invite {
                        self.cancel_branches(invite, &reason, now);
                    }
                }
                transaction::Output::Response { client, response, flow } => {
                    self.learn(&response, flow);
                    self.take_response(client, &response, now);
                }
                transaction::Output::TimedOut { client } => self.branch_ended(client, 408, None, now),
                transaction::Output::TransportFailed { client, .. } => self.branch_ended(client, 480, None, now),
                transaction::Output::NoAck { .. } => {}
                // A phone that repeats its 200 after the transaction is over: on to the next Via.
                transaction::Output::StrayResponse { response, .. } => self.pass_stray(&response, now),
            }
        }
    }

    /// Sends, loses or holds back.
    fn transmit(&mut self, flow: Flow, bytes: Bytes, client: Option<ClientId>, now: Instant) {
        let message = Message::parse(bytes.clone()).ok();
        let wrong = message.as_ref().and_then(|message| self.misbehaviours.for_sent(message));
        self.note(false, flow, bytes.clone(), wrong == Some(Misbehaviour::Drop), now);
        let honest = Transmit { flow, bytes, client, other_port: false };
        match wrong {
            Some(Misbehaviour::Drop) => {}
            Some(Misbehaviour::Delay(by)) => {
                self.last_held += 1;
                self.held.insert((now + by, self.last_held), honest);
            }
            Some(Misbehaviour::OtherPort) => self.outputs.push_back(Transmit { other_port: true, ..honest }),
            Some(Misbehaviour::SecondAnswer) => {
                let tag = self.tag();
                let contact = self.own_uri(flow).map(|uri| format!("<sip:{GHOST}@{}>", uri.trim_start_matches("sip:")));
                let second = message
                    .filter(|message| message.status().is_some_and(|code| (200..300).contains(&code)))
                    .and_then(|message| forwarding::from_another_phone(&message, &tag, &contact?));
                self.outputs.push_back(honest);
                if let Some(bytes) = second {
                    self.note(false, flow, bytes.clone(), false, now);
                    self.outputs.push_back(Transmit { flow, bytes, client: None, other_port: false });
                }
            }
            _ => self.outputs.push_back(honest),
        }
    }

    fn tag(&mut self) -> String {
        format!("{:016x}", self.random.random::<u64>())
    }

    // --- requests ----------------------------------------------------------------------------------------------------

    fn take_request(&mut self, server: ServerId, request: Message, flow: Flow, now: Instant) {
        self.learn(&request, flow);
        let in_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        match self.misbehaviours.for_received(&request) {
            Some(Misbehaviour::ChallengeForEver { stale }) => {
                return self.challenge(server, &request, flow, stale, now);
            }
            Some(Misbehaviour::Answer { code, reason, headers }) => {
                let headers: Vec<(&str, String)> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
                return self.answer_with(server, &request, flow, code, &reason, &headers, now);
            }
            Some(Misbehaviour::Loop) => return self.forward_to_self(server, request, flow, now),
            _ => {}
        }
        if *request.method() == Method::Register && self.is_ours(&request) {
            return self.take_register(server, &request, flow, now);
        }
        if request.max_forwards().ok().flatten() == Some(0) {
            return self.answer(server, &request, flow, 483, &[], now);
        }
        if self.has_looped(&request) {
            return self.answer(server, &request, flow, 482, &[], now);
        }
        let mut consumed = Vec::new();
        if !in_dialog && self.settings.authenticate && self.is_from_us(&request) {
            match self.check(&request, flow, now) {
                Checked::Passed => {
                    consumed = self.verifiers.iter().map(|one| one.policy().realm.clone()).collect();
                }
                Checked::Asked(headers) => {
                    return self.answer(server, &request, flow, 407, &headers, now);
                }
                Checked::Refused => return self.answer(server, &request, flow, 403, &[], now),
            }
        }
        if self.is_for_the_ghost(&request) {
            return self.answer(server, &request, flow, 200, &[], now);
        }
        match self.targets(&request, flow, now) {
            Ok(targets) if targets.is_empty() => self.answer(server, &request, flow, 480, &[], now),
            Ok(targets) => self.fork(server, request, flow, targets, &consumed, now),
            Err(code) => self.answer(server, &request, flow, code, &[], now),
        }
    }

    fn take_register(&mut self, server: ServerId, request: &Message, flow: Flow, now: Instant) {
        let user = request.to().ok().and_then(|to| to.uri().ok()).and_then(|uri| uri.user).unwrap_or_default();
        if self.settings.authenticate {
            let settings = &self.settings;
            let secret = |name: &str| settings.secret(name);
            match self.registrar_verifier.verify(request, flow.remote.ip(), &secret, now) {
                Verdict::Accepted { user: by } => {
                    let name = self.settings.users.get(&user).map(|one| one.auth_name.as_ref().unwrap_or(&user));
                    if name != Some(&by) {
                        return self.answer(server, request, flow, 403, &[], now);
                    }
                }
                Verdict::Challenge { headers, .. } => {
                    let headers: Vec<_> = headers.into_iter().map(|value| ("WWW-Authenticate", value)).collect();
                    return self.answer(server, request, flow, 401, &headers, now);
                }
                Verdict::Drop => return,
            }
        } else if !self.settings.users.contains_key(&user) {
            return self.answer(server, request, flow, 404, &[], now);
        }
        let own = self.own_uri(flow).unwrap_or_default();
        let rules = Rules {
            domain: self.settings.domain.clone(),
            min_expires: self.settings.min_expires,
            max_expires: self.settings.max_expires,
            service_route: self.settings.service_route.then(|| format!("<{own};lr>")).into_iter().collect(),
            gruu: self.settings.gruu,
            outbound: self.settings.outbound,
        };
        let answer = self.registrar.register(&user, request, flow, &rules, &mut self.random, now);
        self.answer(server, request, flow, answer.code, &answer.headers, now);
    }

    /// Whether every realm has taken the credentials.
    fn check(&mut self, request: &Message, flow: Flow, now: Instant) -> Checked {
        let settings = &self.settings;
        let secret = |name: &str| settings.secret(name);
        let mut asked = Vec::new();
        for verifier in &mut self.verifiers {
            match verifier.verify(request, flow.remote.ip(), &secret, now) {
                Verdict::Accepted { .. } => {}
                Verdict::Challenge { headers, .. } => {
                    asked.extend(headers.into_iter().map(|value| ("Proxy-Authenticate", value)));
                }
                Verdict::Drop => return Checked::Refused,
            }
        }
        if asked.is_empty() { Checked::Passed } else { Checked::Asked(asked) }
    }

    fn challenge(&mut self, server: ServerId, request: &Message, flow: Flow, stale: bool, now: Instant) {
        let is_register = *request.method() == Method::Register;
        let verifiers =
            if is_register { std::slice::from_mut(&mut self.registrar_verifier) } else { &mut self.verifiers };
        let mut headers = Vec::new();
        for verifier in verifiers {
            let name = verifier.policy().asker.challenge_header();
            if let Verdict::Challenge { headers: values, .. } = verifier.challenge(flow.remote.ip(), stale, now) {
                headers.extend(values.into_iter().map(|value| (name, value)));
            }
        }
        self.answer(server, request, flow, if is_register { 401 } else { 407 }, &headers, now);
    }

    fn fork(
        &mut self,
        server: ServerId,
        request: Message,
        flow: Flow,
        targets: Vec<Target>,
        consumed: &[String],
        now: Instant,
    ) {
        let is_invite = *request.method() == Method::Invite;
        if is_invite {
            self.answer(server, &request, flow, 100, &[], now);
        }
        // Timer C is the INVITE's; others end by themselves.
        let deadline = now + TIMER_C;
        let mut forked = Forked::new(request.clone(), flow, deadline);
        let mut copies = Vec::new();
        for target in targets.into_iter().take(MAX_TARGETS) {
            let bytes = self.copy(&request, flow, &target, consumed);
            copies.push((bytes, target.flow));
        }
        for (bytes, to) in copies {
            let Ok(copy) = Message::parse(bytes) else { continue };
            let client = self.transactions.send_request(copy, to, now);
            forked.branches.push(Branch { client, code: None });
            self.clients.insert(client, server);
        }
        self.forked.insert(server, forked);
    }

    fn forward_to_self(&mut self, server: ServerId, request: Message, flow: Flow, now: Instant) {
        if request.max_forwards().ok().flatten() == Some(0) {
            return self.answer(server, &request, flow, 483, &[], now);
        }
        if self.has_looped(&request) {
            return self.answer(server, &request, flow, 482, &[], now);
        }
        let Some(own) = self.local(flow.transport, flow.remote) else { return };
        let uri = String::from_utf8_lossy(request.request_uri_raw()).into_owned();
        let routes = Vec::new();
        let target = Target { uri, flow: Flow::to(flow.transport, own), routes };
        self.fork(server, request, flow, vec![target], &[], now);
    }

    /// The request as it goes to one target.
    fn copy(&mut self, request: &Message, source: Flow, target: &Target, consumed: &[String]) -> Bytes {
        let mut record_routes = Vec::new();
        let in_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        if self.settings.record_route && request.method().makes_dialog() && !in_dialog {
            let out = self.own_uri(target.flow).map(|uri| format!("<{uri};lr>"));
            let into = self.own_uri(source).map(|uri| format!("<{uri};lr>"));
            record_routes.extend(out.clone());
            record_routes.extend(into.filter(|_| source.transport != target.flow.transport && out.is_some()));
            record_routes.dedup();
        }
        let changes = Changes {
            uri: target.uri.clone(),
            via: self.via(target.flow, &loop_mark(request)),
            max_forwards: request.max_forwards().ok().flatten().unwrap_or(70).saturating_sub(1),
            record_routes,
            routes: target.routes.clone(),
            paths: Vec::new(),
            consumed: consumed.to_vec(),
        };
        forwarding::request(request, source.remote, &changes)
    }

    fn take_ack(&mut self, ack: &Message, flow: Flow, now: Instant) {
        if self.is_for_the_ghost(ack) || ack.max_forwards().ok().flatten() == Some(0) {
            return;
        }
        let Ok(targets) = self.targets(ack, flow, now) else { return };
        if let Some(target) = targets.first() {
            let bytes = self.copy(ack, flow, target, &[]);
            self.transmit(target.flow, bytes, None, now);
        }
    }

    // --- where it goes -----------------------------------------------------------------------------------------------

    fn targets(&mut self, request: &Message, source: Flow, now: Instant) -> Result<Vec<Target>, u16> {
        let uri = request.request_uri().map_err(|_| 400_u16)?;
        let mut routes: VecDeque<String> =
            request.header_values(HeaderName::Route).map(|route| String::from_utf8_lossy(route).into_owned()).collect();
        while let Some(top) = routes.front().and_then(|route| NameAddr::parse(route.as_bytes())?.uri().ok()) {
            if !self.is_own(&top) {
                break;
            }
            routes.pop_front();
        }
        let routes = Vec::from(routes);
        if let Some(next) = routes.first().and_then(|route| NameAddr::parse(route.as_bytes())?.uri().ok()) {
            let flow = self.resolve(&next, source).ok_or(502_u16)?;
            return Ok(vec![Target { uri: uri.to_string(), flow, routes }]);
        }
        // A Contact that we know the connection of, before its host is taken for ours.
        let known = self.known_flow(&uri);
        if known.is_none() && self.is_own(&uri) {
            return self.registered(&uri, now);
        }
        let flow = known.or_else(|| self.resolve(&uri, source)).ok_or(502_u16)?;
        Ok(vec![Target { uri: uri.to_string(), flow, routes }])
    }

    fn registered(&mut self, uri: &Uri, now: Instant) -> Result<Vec<Target>, u16> {
        let target = |one: Registration| Target { uri: one.contact.to_string(), flow: one.flow, routes: one.path };
        if uri.parameter("gr").is_some() {
            return Ok(self.registrar.find_gruu(uri, now).map(target).into_iter().collect());
        }
        let user = uri.user.clone().unwrap_or_default();
        let found: Vec<Target> = self.registrar.find(&user, now).into_iter().map(target).collect();
        match self.settings.users.contains_key(&user) || !found.is_empty() {
            true => Ok(found),
            false => Err(404),
        }
    }

    fn resolve(&self, uri: &Uri, source: Flow) -> Option<Flow> {
        let named = uri.parameter("transport").flatten().and_then(Transport::from_name);
        let transport = if uri.is_secure() { Transport::Tls } else { named.unwrap_or(Transport::Udp) };
        let port = uri.port.unwrap_or(transport.default_port());
        let remote = match uri.host.as_ref()? {
            Host::Ip(ip) => SocketAddr::new(*ip, port),
            Host::Name(name) if name.eq_ignore_ascii_case("localhost") => SocketAddr::new(source.remote.ip(), port),
            Host::Name(name) => *self.settings.hosts.get(&name.to_ascii_lowercase())?,
        };
        Some(Flow::to(transport, remote))
    }

    fn known_flow(&self, uri: &Uri) -> Option<Flow> {
        self.registrar.flow_of(uri).or_else(|| self.contacts.get(&contact_key(uri)).copied())
    }

    /// Remembers the connection of a Contact: requests of the dialog find their way back over it.
    fn learn(&mut self, message: &Message, flow: Flow) {
        if flow.transport == Transport::Udp {
            return;
        }
        // A message with two Via is another proxy's.
        let direct = message.header_values(HeaderName::Via).count() < if message.is_request() { 2 } else { 3 };
        if let Ok(Some(contact)) = message.contact()
            && let Ok(uri) = contact.uri()
            && direct
        {
            if self.contacts.len() >= MAX_CONTACTS {
                self.contacts.clear();
            }
            self.contacts.insert(contact_key(&uri), flow);
        }
    }

    // --- who we are --------------------------------------------------------------------------------------------------

    fn local(&self, transport: Transport, peer: SocketAddr) -> Option<SocketAddr> {
        let mut all = self.settings.local.iter().filter(|(of, _)| *of == transport).map(|(_, address)| *address);
        let first = all.clone().next();
        all.find(|address| address.is_ipv4() == peer.is_ipv4()).or(first)
    }

    /// `sip:` URI of ours for this path, without `lr`.
    fn own_uri(&self, flow: Flow) -> Option<String> {
        let address = self.local(flow.transport, flow.remote)?;
        Some(match flow.transport {
            Transport::Udp => format!("sip:{address}"),
            transport => format!("sip:{address};transport={transport}"),
        })
    }

    fn via(&mut self, flow: Flow, mark: &str) -> String {
        let name = flow.transport.via_name();
        let branch: u64 = self.random.random();
        match self.local(flow.transport, flow.remote) {
            Some(address) => format!("SIP/2.0/{name} {address};branch=z9hG4bK{branch:016x}.{mark};rport"),
            None => format!("SIP/2.0/{name} proxy.invalid;branch=z9hG4bK{branch:016x}.{mark};rport"),
        }
    }

    /// True for a URI of our domain or address.
    fn is_own(&self, uri: &Uri) -> bool {
        match &uri.host {
            Some(Host::Name(name)) => name.eq_ignore_ascii_case(&self.settings.domain),
            Some(Host::Ip(ip)) => {
                let port = uri.port;
                let here = |address: &SocketAddr| {
                    address.ip() == *ip && port.map_or(address.port() == 5060, |port| address.port() == port)
                };
                self.settings.local.iter().any(|(_, address)| here(address))
                    || (ip.to_string() == self.settings.domain && port.is_none())
            }
            None => false,
        }
    }

    fn is_ours(&self, request: &Message) -> bool {
        request.request_uri().is_ok_and(|uri| self.is_own(&uri))
    }

    fn is_from_us(&self, request: &Message) -> bool {
        request.from().ok().and_then(|from| from.uri().ok()).is_some_and(|uri| self.is_own(&uri))
    }

    fn is_for_the_ghost(&self, request: &Message) -> bool {
        request.request_uri().is_ok_and(|uri| self.is_own(&uri) && uri.user.as_deref() == Some(GHOST))
    }

    /// True when the very same request went through here before (RFC 3261 §16.3, step 4).
    fn has_looped(&self, request: &Message) -> bool {
        let mark = loop_mark(request);
        request.header_values(HeaderName::Via).filter_map(Via::parse).any(|via| {
            via.branch().is_some_and(|branch| branch.ends_with(format!(".{mark}").as_bytes()))
                && via.sent_by().is_some_and(|(host, port)| {
                    let ours = |address: &SocketAddr| Some(address.ip()) == host.ip() && Some(address.port()) == port;
                    self.settings.local.iter().any(|(_, address)| ours(address))
                })
        })
    }

    // --- responses ---------------------------------------------------------------------------------------------------

    fn take_response(&mut self, client: ClientId, response: &Message, now: Instant) {
        let code = response.status().unwrap_or_default();
        if code == 100 {
            return;
        }
        let Some(server) = self.clients.get(&client).copied() else {
            // A 2xx that is repeated until its ACK comes, or from a fork that was cancelled too late.
            if (200..300).contains(&code) && *response.method() == Method::Invite {
                self.pass_stray(response, now);
            }
            return;
        };
        if code >= 300 {
            return self.branch_ended(client, code, Some(response), now);
        }
        let Some(forked) = self.forked.get_mut(&server) else { return };
        let (is_invite, first) = (forked.is_invite(), !forked.answered);
        if code >= 200 {
            forked.note(client, code, None);
            forked.answered = true;
        }
        if code < 200 && !first {
            return;
        }
        if is_invite || first {
            self.transactions.respond(server, code, forwarding::response(response), now);
        }
        if code >= 200 {
            self.cancel_branches(
                server,
                &[("Reason".into(), "SIP;cause=200;text=\"Call completed elsewhere\"".into())],
                now,
            );
            self.settle(server);
        }
    }

    /// A branch has failed; the best failure goes back when no other branch can do better.
    fn branch_ended(&mut self, client: ClientId, code: u16, response: Option<&Message>, now: Instant) {
        let Some(server) = self.clients.get(&client).copied() else { return };
        let Some(forked) = self.forked.get_mut(&server) else { return };
        forked.note(client, code, response);
        if forked.answered {
            return self.settle(server);
        }
        if !forked.open().is_empty() {
            if code >= 600 {
                self.cancel_branches(server, &[], now);
            }
            return;
        }
        forked.answered = true;
        let best = forked.best().map(|(code, response)| (code, response.cloned()));
        let (request, flow, challenges) = (forked.request.clone(), forked.flow, std::mem::take(&mut forked.challenges));
        match best {
            // 503 would say that we are overloaded (§16.7, step 6).
            Some((503, _)) => self.answer(server, &request, flow, 500, &[], now),
            Some((code @ (401 | 407), Some(response))) => {
                let own = response.lines_named("WWW-Authenticate").chain(response.lines_named("Proxy-Authenticate"));
                let own: Vec<String> = own.map(|line| String::from_utf8_lossy(line).into_owned()).collect();
                let more: Vec<_> = challenges.into_iter().filter(|(_, value)| !own.contains(value)).collect();
                let whole = forwarding::with_headers(&response, &more);
                if let Ok(response) = Message::parse(whole) {
                    self.transactions.respond(server, code, forwarding::response(&response), now);
                }
            }
            Some((code, Some(response))) => {
                self.transactions.respond(server, code, forwarding::response(&response), now);
            }
            Some((code, None)) => self.answer(server, &request, flow, code, &[], now),
            None => {}
        }
        self.settle(server);
    }

    fn cancel_branches(&mut self, server: ServerId, headers: &[(String, String)], now: Instant) {
        let Some(forked) = self.forked.get_mut(&server) else { return };
        if !forked.is_invite() {
            return;
        }
        for client in forked.open() {
            self.transactions.cancel(client, headers, now);
        }
    }

    /// Forgets a request that is answered on every branch. An INVITE that was accepted is kept for more answers until its
    /// transactions are over; then its last branch times out or the table forgets them.
    fn settle(&mut self, server: ServerId) {
        let Some(forked) = self.forked.get(&server) else { return };
        if !forked.answered || !forked.open().is_empty() {
            return;
        }
        if let Some(forked) = self.forked.remove(&server) {
            for branch in forked.branches {
                self.clients.remove(&branch.client);
            }
        }
    }

    /// A response to no request we remember (RFC 3261 §16.7, step 2): statelessly to the next Via.
    fn pass_stray(&mut self, response: &Message, now: Instant) {
        let bytes = forwarding::response(response);
        let Ok(copy) = Message::parse(bytes.clone()) else { return };
        let Ok(via) = copy.top_via() else { return };
        let Some((host, port)) = via.sent_by() else { return };
        let Some(transport) = std::str::from_utf8(via.transport).ok().and_then(Transport::from_name) else { return };
        let ip = via.received().or_else(|| host.ip());
        let port = via.rport().flatten().or(port).unwrap_or(transport.default_port());
        if let Some(ip) = ip {
            self.transmit(Flow::to(transport, SocketAddr::new(ip, port)), bytes, None, now);
        }
    }

    fn answer(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        code: u16,
        headers: &[(&'static str, String)],
        now: Instant,
    ) {
        self.answer_with(server, request, flow, code, "", headers, now);
    }

    #[expect(clippy::too_many_arguments, reason = "what a response is made of")]
    fn answer_with(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        code: u16,
        reason: &str,
        headers: &[(&str, String)],
        now: Instant,
    ) {
        let tag = self.tag();
        let to_tag = (code > 100).then_some(tag.as_str());
        let mut response = Builder::response(request, code, reason, to_tag, flow.remote);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        self.transactions.respond(server, code, response.header("Server", "sipwire test proxy").finish(None), now);
    }
}

enum Checked {
    Passed,
    /// For credentials, with these headers.
    Asked(Vec<(&'static str, String)>),
    Refused,
}

/// Where one copy of a request goes.
#[derive(Debug)]
struct Target {
    uri: String,
    flow: Flow,
    routes: Vec<String>,
}

/// User, host and port.
type ContactKey = (Option<String>, Option<Host>, Option<u16>);

fn contact_key(uri: &Uri) -> ContactKey {
    (uri.user.clone(), uri.host.clone(), uri.port)
}

/// What is the same for a request that comes again, and another when something on its way has changed it (§16.6, step 8).
fn loop_mark(request: &Message) -> String {
    let mut hasher = DefaultHasher::new();
    request.request_uri_raw().hash(&mut hasher);
    request.call_id().unwrap_or_default().hash(&mut hasher);
    request.from().ok().and_then(|from| from.tag().map(<[u8]>::to_vec)).hash(&mut hasher);
    request.header(HeaderName::CSeq).hash(&mut hasher);
    request.header_lines(HeaderName::Route).for_each(|route| route.hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}
