//! What all sessions of a user agent share: settings, transactions, timers, names and the queue of outputs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use rand::rngs::StdRng;

use super::accounts::Accounts;
use super::credentials::Keyring;
use super::dialog_request::DialogRequest;
use super::exchange::Ask;
use super::forks::Forks;
use super::inbound::Refusal;
use super::large::WithoutTcp;
use super::limits::Limits;
use super::messages::OpenReports;
use super::peers::Peers;
use super::routing::Queries;
use super::timers::Timers;
use super::transfers::Report;
use super::unavailable::Unavailable;
use super::{AccountSettings, Output, UaConfig, UaStats, VerbError, tokens};
use crate::event::{AccountId, Event, EventKind, RequestId, Sender, SessionId, SubscriptionId};
use crate::sip::build::{Builder, reason_phrase};
use crate::sip::dialog::Dialog;
use crate::sip::message::{Message, Method};
use crate::sip::transaction::{ClientId, ServerId, Transactions};
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::{Host, Uri};

/// Methods we take, as `Allow` lists them.
pub(crate) const ALLOW: &str =
    "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, MESSAGE, SUBSCRIBE, NOTIFY, INFO, REFER";

/// Reliable provisional responses (RFC 3262), by their name in Supported, Require and Unsupported.
pub(crate) const RELIABLE: &str = "100rel";

/// Extensions we know, as `Supported` lists them: a request may require any of them.
pub(crate) const SUPPORTED: &str = "100rel, timer, replaces, norefersub";

/// Bodies we take, as `Accept` lists them.
pub(crate) const ACCEPT: &str = "application/sdp";

/// The same with the bodies of other requests, as the answer to OPTIONS lists them; MESSAGE may bring any other too.
pub(crate) const ACCEPT_ALL: &str = "application/sdp, text/plain, message/cpim, message/imdn+xml";

/// Which of our requests a client transaction carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientUse {
    Invite(SessionId),
    /// BYE, and who waits for its answer.
    Bye(Option<SessionId>),
    /// A re-INVITE: like [`Self::InDialog`], and each 2xx is acknowledged as it comes again.
    Reinvite(SessionId),
    /// Any other request of a session inside its dialog.
    InDialog(SessionId),
    /// A request outside dialogs and sessions.
    Exchange(RequestId),
    /// A request inside the dialog of a subscription.
    Subscription(SubscriptionId),
}

/// Names a copy of one request that came on several paths (RFC 3261 §8.2.2.2): From tag, Call-ID, CSeq number.
///
/// 128 bits of keyed hash over them: however long they are it takes 16 bytes, and nobody can make two of them meet.
pub(crate) type MergeKey = [u64; 2];

/// BYEs kept for a challenge; above it one that is challenged ends there, and the peer's session timer ends its half.
const MAX_FAREWELLS: usize = 4096;

/// No account has this number.
const NOBODY: AccountId = AccountId(0);

/// A BYE on its way; the session it ends may be gone.
#[derive(Debug)]
pub(crate) struct Farewell {
    dialog: Dialog,
    request: DialogRequest,
}

/// The shared part of a user agent; a session borrows it for each step.
#[derive(Debug)]
pub(crate) struct Core {
    pub config: UaConfig,
    pub random: StdRng,
    pub accounts: Accounts,
    pub keyring: Keyring,
    pub transactions: Transactions,
    pub clients: BTreeMap<ClientId, ClientUse>,
    /// INVITEs without a final answer yet.
    pub servers: BTreeMap<ServerId, SessionId>,
    pub forks: Forks,
    pub farewells: BTreeMap<ClientId, Farewell>,
    /// Sessions by our tag: every message inside a dialog of ours carries it.
    pub tags: HashMap<Box<str>, SessionId>,
    pub merge_keys: HashMap<MergeKey, SessionId>,
    merge_secrets: [RandomState; 2],
    pub timers: Timers,
    pub limits: Limits,
    pub unavailable: Unavailable,
    /// New messages and subscriptions a second.
    pub event_limits: Limits,
    pub open_reports: OpenReports,
    /// Requests that what arrived calls for; sent once it has been worked off.
    pub asks: Vec<Ask>,
    pub queries: Queries,
    pub without_tcp: WithoutTcp,
    pub peers: Peers,
    /// What calls have to tell each other.
    pub reports: VecDeque<Report>,
    pub outputs: VecDeque<Output>,
    pub stats: UaStats,
    /// What stands for us where nobody can connect to: a name that leads nowhere (RFC 7118 §5), the same all our life.
    unlistening: Box<str>,
    last_id: u64,
    last_session: u64,
}

impl Core {
    pub fn new(config: UaConfig, mut random: StdRng) -> Self {
        let unlistening = format!("{}.invalid", tokens::tag(&mut random)).into();
        Self {
            unlistening,
            config,
            random,
            accounts: Accounts::default(),
            keyring: Keyring::default(),
            transactions: Transactions::new(),
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            forks: Forks::default(),
            farewells: BTreeMap::new(),
            tags: HashMap::new(),
            merge_keys: HashMap::new(),
            merge_secrets: Default::default(),
            timers: Timers::default(),
            limits: Limits::default(),
            unavailable: Unavailable::default(),
            event_limits: Limits::default(),
            open_reports: OpenReports::default(),
            asks: Vec::new(),
            queries: Queries::default(),
            without_tcp: WithoutTcp::default(),
            peers: Peers::default(),
            reports: VecDeque::new(),
            outputs: VecDeque::new(),
            stats: UaStats::default(),
            last_id: 0,
            last_session: 0,
        }
    }

    /// A number never given before.
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub fn next_session(&mut self) -> SessionId {
        self.last_session += 1;
        SessionId(self.last_session)
    }

    /// The key of a request, for [`Self::merge_keys`].
    pub fn merge_key(&self, request: &Message) -> MergeKey {
        let from = request.from().ok();
        let tag = from.as_ref().and_then(|from| from.tag()).unwrap_or_default();
        let number = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let names = (tag, request.call_id().unwrap_or_default(), number);
        [self.merge_secrets[0].hash_one(names), self.merge_secrets[1].hash_one(names)]
    }

    /// True for a session that exists or existed once.
    pub fn was_given(&self, session: SessionId) -> bool {
        (1..=self.last_session).contains(&session.0)
    }

    pub fn notify(&mut self, kind: EventKind) {
        self.notify_as(Sender::Engine, kind);
    }

    /// Posts an event of an account or a subscription.
    pub fn notify_as(&mut self, sender: Sender, kind: EventKind) {
        self.outputs.push_back(Output::Event(Event { sender, snapshot: None, kind }));
    }

    // --- our addresses -----------------------------------------------------------------------------------------------

    /// Our address on a transport; the first of the same family as `peer` when there are several.
    pub fn local_address(&self, transport: Transport, peer: Option<SocketAddr>) -> Option<SocketAddr> {
        let mut all = self.config.local.iter().filter(|(of, _)| *of == transport).map(|(_, address)| *address);
        let first = all.clone().next();
        peer.and_then(|peer| all.find(|address| address.is_ipv4() == peer.ip().to_canonical().is_ipv4())).or(first)
    }

    /// Our address for a flow; `None` on a transport that connects but does not listen.
    pub fn listening_address(&self, flow: Flow) -> Option<SocketAddr> {
        self.local_address(flow.transport, Some(flow.remote)).filter(|address| address.port() != 0)
    }

    /// A new Via of ours for a request on this flow.
    pub fn via(&mut self, flow: Flow) -> String {
        let branch = tokens::branch(&mut self.random);
        let transport = flow.transport.via_name();
        match self.listening_address(flow) {
            // Who knows us by our certificate may send its own requests over the same connection (RFC 5923).
            Some(address) if flow.transport == Transport::Tls => {
                format!("SIP/2.0/{transport} {address};branch={branch};rport;alias")
            }
            Some(address) => format!("SIP/2.0/{transport} {address};branch={branch};rport"),
            // The response comes back over the connection (RFC 7118 §5).
            None => format!("SIP/2.0/{transport} {};branch={branch};rport", self.unlistening),
        }
    }

    /// Our Contact for a dialog on this flow (RFC 3261 §8.1.1.8): the GRUU of a registered account, else its address.
    pub fn contact(&self, account: AccountId, flow: Flow, secure: bool) -> String {
        let binding = self.accounts.binding(account);
        if let Some(gruu) = binding.and_then(|binding| binding.gruu.as_ref()).filter(|gruu| gruu.is_secure() == secure)
        {
            return format!("<{gruu}>");
        }
        let uri = self.contact_uri(account, flow, secure);
        match binding.is_some_and(|binding| binding.is_outbound) {
            true => format!("<{}>", uri.with_parameter("ob", None)), // RFC 5626 §4.3
            false => format!("<{uri}>"),
        }
    }

    /// The Contacts of a REGISTER: ours, and the one that was registered before when it was another.
    pub fn registering_contacts(&mut self, account: AccountId, flow: Flow, secure: bool) -> Vec<String> {
        // Where it is sent tells which of our addresses can be reached from there.
        let ours = self.contact_uri(account, flow, secure);
        let Some(registering) = self.accounts.registering_mut(account) else { return Vec::new() };
        let ours = registering.exact.clone().unwrap_or(ours);
        let parameters = &registering.parameters;
        let mut contacts = vec![format!("<{ours}>{parameters}")];
        if let Some(old) = registering.old.as_ref().filter(|old| **old != ours) {
            contacts.push(format!("<{old}>;expires=0"));
        }
        registering.sent = Some((ours, flow));
        contacts
    }

    /// The address of ours that reaches us over this flow, as a URI.
    fn contact_uri(&self, account: AccountId, flow: Flow, secure: bool) -> Uri {
        let user = self.accounts.contact_user(account);
        let learned = self.accounts.learned(account, flow);
        let mut uri = match learned.or_else(|| self.listening_address(flow)) {
            Some(address) => Uri::sip(user, Host::Ip(address.ip()), Some(address.port())),
            None => Uri::sip(user, Host::Name(self.unlistening.to_string()), None),
        };
        if secure {
            uri.scheme = "sips".into();
        }
        if flow.transport != Transport::Udp && !(secure && flow.transport == Transport::Tls) {
            uri.parameters.push(("transport".into(), Some(flow.transport.name().into())));
        }
        uri
    }

    /// The account a request with this URI is for.
    pub fn account_at(&self, uri: &Uri) -> Option<AccountId> {
        self.accounts.find(uri, &self.config.local, &self.unlistening)
    }

    /// An account that takes part: not one that was removed.
    ///
    /// # Errors
    /// [`VerbError::UnknownAccount`].
    pub fn open_account(&self, account: AccountId) -> Result<&AccountSettings, VerbError> {
        let open = self.accounts.get(account).filter(|_| !self.accounts.is_leaving(account));
        open.ok_or(VerbError::UnknownAccount(account))
    }

    // --- requests ----------------------------------------------------------------------------------------------------

    /// Sends a whole request of ours and remembers what its answer is for.
    pub fn send(&mut self, request: Bytes, flow: Flow, used: Option<ClientUse>, now: Instant) -> ClientId {
        let request = Message::parse(request).expect("a request we built can be read");
        self.send_message(request, flow, used, now)
    }

    /// Ends a dialog of ours with BYE; `waits` hears of its answer. A challenge is answered with the credentials of
    /// `account`, even when the session is over by then.
    pub fn send_bye(
        &mut self,
        dialog: &mut Dialog,
        account: Option<AccountId>,
        reason: Option<&str>,
        waits: Option<SessionId>,
        now: Instant,
    ) {
        let known = account.and_then(|account| self.accounts.get(account));
        let has_credentials = known.is_some_and(|account| account.credentials.is_some());
        let mut request = DialogRequest::new(Method::Bye, account.unwrap_or(NOBODY));
        if let Some(reason) = reason {
            request = request.header("Reason", reason_header(reason));
        }
        let client = request.send(dialog, ClientUse::Bye(waits), self, now);
        if has_credentials && self.farewells.len() < MAX_FAREWELLS {
            self.farewells.insert(client, Farewell { dialog: dialog.clone(), request });
        }
    }

    /// A final answer to BYE, `None` when none came. True when it was a challenge and BYE is on its way again.
    pub fn bye_answered(
        &mut self,
        client: ClientId,
        waits: Option<SessionId>,
        response: Option<&Message>,
        now: Instant,
    ) -> bool {
        let Some(mut farewell) = self.farewells.remove(&client) else { return false };
        let challenge = response.filter(|response| matches!(response.status(), Some(401 | 407)));
        let Some(challenge) = challenge else { return false };
        if farewell.request.challenged(challenge, self).is_err() {
            return false;
        }
        let again = farewell.request.send(&mut farewell.dialog, ClientUse::Bye(waits), self, now);
        self.farewells.insert(again, farewell);
        true
    }

    /// Acknowledges a 2xx to the INVITE of this number, now and each time it is repeated.
    pub fn acknowledge(&mut self, client: ClientId, dialog: &Dialog, number: u32) {
        self.acknowledge_with(client, dialog, number, None);
    }

    /// The same with our answer to the offer of the 2xx.
    pub fn acknowledge_with(&mut self, client: ClientId, dialog: &Dialog, number: u32, answer: Option<&str>) {
        let flow = dialog.flow();
        let via = self.via(flow);
        let ack = dialog.ack(number, via, answer.map(|sdp| ("application/sdp", sdp.as_bytes())));
        self.forks.keep(client, dialog.remote_tag(), flow, ack.clone());
        let large = Message::parse(ack.clone()).ok().and_then(|ack| self.over_tcp(&ack, flow, None));
        match large {
            // If it does not arrive the 2xx comes again, and then the one that was kept goes over UDP.
            Some((ack, tcp)) => self.transmit(tcp, ack.as_bytes().clone()),
            None => self.transmit(flow, ack),
        }
    }

    /// Acknowledges a 2xx that no session waits for: from another fork, or after CANCEL. The dialog it made is to be
    /// ended; `None` when the response makes none.
    pub fn acknowledge_stray(&mut self, client: ClientId, response: &Message, flow: Flow) -> Option<Dialog> {
        let mut dialog = Dialog::uac(response, flow).ok().filter(|_| self.forks.has_room(client))?;
        self.acknowledge(client, &dialog, dialog.local_seq());
        dialog.skip_numbers(self.forks.last_number(client, dialog.remote_tag()));
        Some(dialog)
    }

    /// ACK and BYE for a fork that answered too late (RFC 3261 §13.2.2.4).
    pub fn refuse_fork(&mut self, client: ClientId, response: &Message, flow: Flow, now: Instant) {
        if let Some(mut dialog) = self.acknowledge_stray(client, response, flow) {
            self.send_bye(&mut dialog, None, None, None, now);
        }
    }

    /// Sends bytes outside all transactions: an ACK to a 2xx, or an answer without state.
    pub fn transmit(&mut self, flow: Flow, bytes: Bytes) {
        self.outputs.push_back(Output::Transmit { flow, bytes, client: None });
    }

    // --- responses ---------------------------------------------------------------------------------------------------

    /// Starts a response of ours.
    pub fn response(&self, request: &Message, code: u16, to_tag: Option<&str>, flow: Flow) -> Builder {
        self.response_with(request, code, reason_phrase(code), to_tag, flow)
    }

    pub fn response_with(
        &self,
        request: &Message,
        code: u16,
        reason: &str,
        to_tag: Option<&str>,
        flow: Flow,
    ) -> Builder {
        Builder::response(request, code, reason, to_tag, flow.remote).header("Server", &self.config.user_agent)
    }

    /// Answers a request with a bare response; To gets a tag of its own when it has none.
    pub fn answer(&mut self, server: ServerId, request: &Message, flow: Flow, code: u16, now: Instant) {
        self.answer_with(server, request, flow, code, &[], now);
    }

    /// The same with further headers.
    pub fn answer_with(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        code: u16,
        headers: &[(&str, &str)],
        now: Instant,
    ) {
        let tag = tokens::tag(&mut self.random);
        let mut response = self.response(request, code, Some(&tag), flow);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        self.transactions.respond(server, code, response.finish(None), now);
    }
}

impl Core {
    /// Answers a request that is refused.
    pub fn refuse(&mut self, server: ServerId, request: &Message, flow: Flow, refusal: &Refusal, now: Instant) {
        let headers: Vec<(&str, &str)> = refusal.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.answer_with(server, request, flow, refusal.code, &headers, now);
    }
}

/// `end(reason=…)` as a header (RFC 3326).
pub(crate) fn reason_header(text: &str) -> String {
    format!("SIP;text=\"{}\"", quoted(text))
}

/// Text as it may stand between double quotes (RFC 3261 §25.1, `quoted-string`).
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => quoted.push(' '),
            _ => quoted.push(letter),
        }
    }
    quoted
}

/// `Warning` of ours (RFC 3261 §20.43).
pub(crate) fn warning_header(code: u16, text: &str) -> String {
    format!("{code} sipwire \"{}\"", quoted(text))
}
