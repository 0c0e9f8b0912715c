//! Everything that becomes a notification: one enum, and the immutable snapshot of a session that travels with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::media::CodecKind;
use crate::session::shown_sdp;
use crate::sip::bodies::Parsed;
use crate::sip::bodies::message_summary::Count;
use crate::sip::digest::answer::without_proof;
use crate::sip::message::{HeaderName, Message};
use crate::sip::transport::Transport;
use crate::sip::uri::Uri;
use bytes::Bytes;

/// Names a session of one engine; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Names an account of one engine; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub u64);

/// Names an application's request outside sessions (OPTIONS, …); never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a subscription or publication of one engine; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// Whose notification an event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sender {
    #[default]
    Engine,
    Session(SessionId),
    Account(AccountId),
    Subscription(SubscriptionId),
}

/// The states of the Middleware API's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionState {
    #[default]
    Null,
    Calling,
    Incoming,
    Accepting,
    Established,
    Proposing,
    Proposed,
    Terminating,
    Terminated,
}

impl SessionState {
    /// The name in the API: "NULL", "CALLING", …
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Calling => "CALLING",
            Self::Incoming => "INCOMING",
            Self::Accepting => "ACCEPTING",
            Self::Established => "ESTABLISHED",
            Self::Proposing => "PROPOSING",
            Self::Proposed => "PROPOSED",
            Self::Terminating => "TERMINATING",
            Self::Terminated => "TERMINATED",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallDirection {
    Incoming,
    Outgoing,
}

/// Who caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Originator {
    Local,
    Remote,
}

/// Which stream types are meant; the API shows them as a list of "audio" and "chat".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub audio: bool,
    pub chat: bool,
}

/// The address, port and transport a request is sent to (the API's `Route`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// An IP address or a host name.
    pub address: String,
    pub port: u16,
    pub transport: Transport,
    /// What a WebSocket's GET names; `None`: "/".
    pub path: Option<String>,
}

impl Route {
    pub fn new(address: impl Into<String>, port: u16, transport: Transport) -> Self {
        Self { address: address.into(), port, transport, path: None }
    }
}

/// What a session looks like right after an event. Every field is an attribute of the API (`session-api` A1–A29).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub state: SessionState,
    pub direction: Option<CallDirection>,
    pub account: Option<AccountId>,
    pub call_id: Option<Arc<str>>,
    pub local_uri: Option<Uri>,
    pub remote_uri: Option<Uri>,
    pub remote_display_name: Option<Arc<str>>,
    pub remote_user_agent: Option<Arc<str>>,
    pub route: Option<Route>,
    pub transport: Option<Transport>,
    pub peer_address: Option<SocketAddr>,
    /// Set by the engine's wall clock with the event that starts or ends the call.
    pub start_time: Option<SystemTime>,
    pub stop_time: Option<SystemTime>,
    pub on_hold_by_local: bool,
    pub on_hold_by_remote: bool,
    pub proposed_streams: Streams,
    pub has_audio: bool,
    pub has_chat: bool,
    pub audio: Option<Box<AudioSnapshot>>,
    pub local_sdp: Option<Arc<str>>,
    /// `None` also while it is that of the INVITE to us: see [`Self::remote_sdp`].
    pub remote_sdp: Option<Arc<str>>,
    /// Headers of the INVITE and of its last response, in order, as they came.
    pub request_headers: Option<Headers>,
    pub response_headers: Option<Headers>,
    pub end_reason: Option<Arc<str>>,
    /// The call that this incoming one takes the place of once it is accepted (RFC 3891).
    pub replaces: Option<SessionId>,
    /// Code and reason of SIPSessionDidFail.
    pub failure: Option<(u16, Arc<str>)>,
    /// What the last refusal of our INVITE says beside its code, if anything.
    pub refusal: Option<Arc<Refusal>>,
}

impl Snapshot {
    /// What the peer described last, without keys. That of its INVITE is read from there, because few look at it.
    pub fn remote_sdp(&self) -> Option<Arc<str>> {
        let invite = self.request_headers.as_ref().filter(|_| self.direction == Some(CallDirection::Incoming));
        self.remote_sdp.clone().or_else(|| {
            let body = invite?.message().body_bytes();
            (!body.is_empty()).then(|| shown_sdp(&String::from_utf8_lossy(&body)))
        })
    }
}

/// What a refusal may say beside its code.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusal {
    /// Seconds to stay away (RFC 3261 §20.33).
    pub retry_after: Option<u32>,
    /// The Contacts of a 3xx, the best first.
    pub redirect_targets: Vec<Uri>,
}

/// The headers of a message: the message itself, taken apart only when somebody asks, because few do.
#[derive(Clone, PartialEq, Eq)]
pub struct Headers(Bytes);

impl Headers {
    pub fn of(message: &Message) -> Self {
        Self(message.as_bytes().clone())
    }

    /// Name and value of each line, in order, as they came; proofs of passwords are masked.
    pub fn list(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = |(name, value): (&[u8], &[u8])| match HeaderName::of(name) {
            HeaderName::Authorization | HeaderName::ProxyAuthorization => (text(name), without_proof(&text(value))),
            _ => (text(name), text(value)),
        };
        self.message().headers().map(shown).collect()
    }

    fn message(&self) -> Message {
        Message::parse(self.0.clone()).expect("the message was read before")
    }
}

/// Without its values: credentials do not belong in a log.
impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Headers({} bytes)", self.0.len())
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct AudioSnapshot {
    pub codec: Option<CodecKind>,
    pub sample_rate: Option<u32>,
    /// The suite's name while SRTP is in use.
    pub srtp_suite: Option<&'static str>,
    pub local_rtp: Option<SocketAddr>,
    pub remote_rtp_sdp: Option<SocketAddr>,
    pub remote_rtp_received: Option<SocketAddr>,
    pub recording_file_name: Option<PathBuf>,
}

/// One thing that happened, in the order it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub sender: Sender,
    /// The session right after the event, when it is the sender.
    pub snapshot: Option<Arc<Snapshot>>,
    pub kind: EventKind,
}

impl Event {
    /// The session it is about; `None` for any other sender.
    pub fn session(&self) -> Option<SessionId> {
        match self.sender {
            Sender::Session(session) => Some(session),
            Sender::Engine | Sender::Account(_) | Sender::Subscription(_) => None,
        }
    }
}

/// What happened. Names and data keys: `session-api` §1.3 and `python-api`; `src/python` holds the table to Python.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    // --- sessions ---
    SessionChangedState {
        prev_state: SessionState,
        state: SessionState,
    },
    SessionNewIncoming {
        streams: Streams,
    },
    SessionNewOutgoing {
        streams: Streams,
    },
    SessionGotRingIndication,
    SessionWillStart,
    SessionDidStart,
    SessionDidFail {
        originator: Originator,
        code: u16,
        reason: Arc<str>,
    },
    SessionWillEnd,
    SessionDidEnd {
        originator: Originator,
        end_reason: Option<Arc<str>>,
    },
    SessionGotHoldRequest {
        originator: Originator,
    },
    SessionGotUnholdRequest {
        originator: Originator,
    },
    SessionWillStartRecordingAudio {
        file_name: PathBuf,
    },
    SessionDidStartRecordingAudio {
        file_name: PathBuf,
    },
    SessionWillStopRecordingAudio {
        file_name: PathBuf,
    },
    SessionDidStopRecordingAudio {
        file_name: PathBuf,
        error: Option<Arc<str>>,
    },
    SessionGotNoAudio,
    SessionGotDTMF {
        digit: char,
    },
    SessionGotStreamUpdate {
        streams: Streams,
    },
    SessionGotStreamProposal {
        proposer: Originator,
        streams: Streams,
    },
    SessionAcceptedStreamProposal {
        proposer: Originator,
    },
    SessionRejectedStreamProposal {
        proposer: Originator,
        reason: Arc<str>,
    },
    /// The next route is tried (ruling R19); `code` and `reason` tell why the one before failed.
    SessionDidChangeRoute {
        route: Route,
        code: u16,
        reason: Arc<str>,
    },
    SessionAudioUnderrun {
        missing_ms: u32,
    },
    /// An INFO of the peer that is no digit (RFC 6086); without a package it is one of the older kind.
    SessionGotInfo {
        content: Bytes,
        content_type: Arc<str>,
        info_package: Option<Arc<str>>,
    },
    /// The answer to an INFO of ours.
    SessionDidDeliverInfo {
        request: RequestId,
        code: u16,
        reason: Arc<str>,
    },
    SessionDidNotDeliverInfo {
        request: RequestId,
        code: u16,
        reason: Arc<str>,
    },
    /// The peer asks us to call `target`, in place of its call with this Call-ID if there is one.
    SessionGotTransferRequest {
        target: Arc<Uri>,
        replaces: Option<Arc<str>>,
        referred_by: Option<Arc<Uri>>,
    },
    /// We ask the peer to.
    SessionTransferNewOutgoing {
        target: Arc<Uri>,
        replaces: Option<Arc<str>>,
    },
    /// It was accepted; on the side that was asked by this new call.
    SessionTransferDidStart {
        session: Option<SessionId>,
    },
    /// What the peer reports of its new call.
    SessionTransferGotProgress {
        code: u16,
        reason: Arc<str>,
    },
    /// The new call is up; with code 202 the peer has taken it on and what came of it is not known.
    SessionTransferDidEnd {
        code: u16,
        reason: Arc<str>,
    },
    SessionTransferDidFail {
        code: u16,
        reason: Arc<str>,
    },
    // --- requests outside sessions ---
    /// The answer to an application's OPTIONS: a final code (408 when none came) and the round trip in seconds.
    OptionsDidAnswer {
        request: RequestId,
        code: u16,
        reason: Arc<str>,
        rtt: Option<f64>,
    },
    /// The final answer to a MESSAGE or a report of the application was 2xx.
    MessageDidSucceed {
        request: RequestId,
        code: u16,
        reason: Arc<str>,
    },
    /// It was something else; 408 when none came, 503 when it could not be sent.
    MessageDidFail {
        request: RequestId,
        /// Local when there was no answer.
        originator: Originator,
        code: u16,
        reason: Arc<str>,
    },
    /// What became of a message of ours (RFC 5438).
    MessageDidGetDeliveryReport {
        from_uri: Arc<Uri>,
        /// `imdn.Message-ID` of that message.
        message_id: Arc<str>,
        /// "delivery", "processing" or "display".
        disposition: &'static str,
        /// "delivered", "failed", "displayed", "processed", "stored", "forbidden" or "error".
        status: &'static str,
    },
    /// A MESSAGE for one of our accounts, answered with 200.
    EngineGotMessage {
        account: AccountId,
        /// The call in whose dialog it came.
        session: Option<SessionId>,
        from_uri: Arc<Uri>,
        from_display_name: Option<Arc<str>>,
        to_uri: Arc<Uri>,
        /// Without its CPIM wrapper.
        content: Bytes,
        content_type: Arc<str>,
        /// Names and texts of the wrapper; those of a name that stands twice are joined with commas.
        cpim_headers: Option<Arc<BTreeMap<String, String>>>,
        /// `imdn.Message-ID`, to name it in a report.
        message_id: Option<Arc<str>>,
        /// Reports its sender asks for: "positive-delivery", "negative-delivery", "processing", "display".
        disposition: Vec<&'static str>,
    },
    /// The routes to the URI that was looked up, best first.
    LookupDidSucceed {
        request: RequestId,
        result: Vec<Route>,
    },
    LookupDidFail {
        request: RequestId,
        error: Arc<str>,
    },
    // --- accounts and their registrations ---
    /// A REGISTER leaves that begins or renews a registration; DidSucceed, DidFail or DidEnd follows.
    AccountWillRegister,
    /// Registered for so many seconds.
    AccountRegistrationDidSucceed {
        contact: Arc<Uri>,
        expires: u32,
        /// Where the request went: the registrar, or the proxy before it.
        registrar: Route,
    },
    /// Not registered, or not any longer. `retry_after`: seconds to the next try; `None`: no more tries by itself.
    AccountRegistrationDidFail {
        code: u16,
        reason: Arc<str>,
        retry_after: Option<f64>,
    },
    /// No registration is tried or kept any more.
    AccountRegistrationDidEnd,
    // --- subscriptions and publications ---
    /// The first NOTIFY of a subscription of ours.
    SubscriptionDidStart {
        /// "active" or "pending".
        state: &'static str,
        /// Seconds until it is to be refreshed.
        expires: u32,
    },
    SubscriptionGotNotify {
        event: Arc<str>,
        /// "active", "pending" or "terminated".
        state: &'static str,
        content_type: Option<Arc<str>>,
        body: Bytes,
        /// The body, when its type is one we read.
        parsed: Option<Arc<Parsed>>,
        /// Why such a body could not be read.
        error: Option<Arc<str>>,
    },
    /// A subscription was refused, lost or not renewed.
    SubscriptionDidFail {
        /// 0 when it was no answer of SIP.
        code: u16,
        reason: Arc<str>,
        /// Seconds until it is tried again by itself; `None`: it is over.
        retry_after: Option<f64>,
    },
    /// The last of every subscription, in both roles.
    SubscriptionDidEnd {
        reason: Arc<str>,
    },
    /// Somebody wants to subscribe to an event package the program announced.
    EngineGotSubscription {
        subscription: SubscriptionId,
        account: AccountId,
        event: Arc<str>,
        from_uri: Arc<Uri>,
        from_display_name: Option<Arc<str>>,
        to_uri: Arc<Uri>,
        /// Seconds granted; 0 asks once.
        expires: u32,
        /// Body types the subscriber takes.
        accept: Vec<String>,
    },
    /// What waits in the mailbox of an account (RFC 3842).
    AccountGotMessageSummary {
        messages_waiting: bool,
        /// The mailbox, as its server names it.
        account_uri: Option<Arc<str>>,
        counts: Arc<Vec<Count>>,
    },
    /// A state of ours is at the server for this many seconds, and refreshed before.
    PublicationDidSucceed {
        expires: u32,
    },
    PublicationDidFail {
        code: u16,
        reason: Arc<str>,
        /// Seconds until it is tried again by itself; `None`: it is over.
        retry_after: Option<f64>,
    },
    PublicationDidEnd {
        reason: Arc<str>,
    },
    // --- the engine ---
    EngineWillStart,
    EngineDidStart,
    EngineDidFail {
        error: Arc<str>,
    },
    EngineWillEnd,
    EngineDidEnd,
    /// Our TLS certificate (a file) ends within 7 days, or has ended.
    EngineCertificateWillExpire {
        certificate: PathBuf,
        expires: SystemTime,
    },
    /// One message sent or received, when tracing is on; keys and passwords are masked.
    EngineSIPTrace {
        received: bool,
        source: SocketAddr,
        destination: SocketAddr,
        transport: Transport,
        data: Bytes,
    },
    EngineGotException {
        error: Arc<str>,
    },
}
