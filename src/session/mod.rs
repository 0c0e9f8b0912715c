//! The INVITE session: its states, verbs and notifications.
//!
//! A session is one call of the Middleware API. Its state is the API's:
//!
//! ```text
//! NULL ─connect()─▶ CALLING ────────2xx───────▶ ESTABLISHED ─end()─▶ TERMINATING ─▶ TERMINATED
//! NULL ─INVITE──▶ INCOMING ─accept()─▶ ACCEPTING ─ACK─▶ ESTABLISHED
//!                     ╰──reject(), end()──▶ TERMINATING
//! ESTABLISHED ─add_*()─▶ PROPOSING ─▶ ESTABLISHED,  ESTABLISHED ─re-INVITE that adds─▶ PROPOSED ─▶ ESTABLISHED
//! any active state ──refusal, time-out, CANCEL, BYE of the peer──▶ TERMINATED
//! ```
//!
//! Underneath it the [`Leg`] holds what the protocol needs at each stage. `outgoing`, `incoming`, `established` and
//! `ending` are the stages; `modify` (hold, re-INVITE), `proposal` and `refresh` change a call that is up; `recording`,
//! `media` and `chat` are the concerns that cut across; and `table` says which verb is legal where. Each step borrows the user agent's shared [`Core`]; the snapshot in an event is the session right after it.

mod chat;
mod early;
mod ending;
mod established;
mod in_dialog;
mod incoming;
mod info;
mod media;
mod modify;
mod outgoing;
mod proposal;
mod provisional;
mod recording;
mod refresh;
mod refused;
pub mod table;
#[cfg(test)]
mod tests;
mod transfer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use self::chat::Chat;
use self::ending::Ending;
pub(crate) use self::established::required_extensions;
use self::established::{Confirmed, Unacked};
use self::in_dialog::Requests;
use self::incoming::BadOffer;
use self::incoming::{Answered, Incoming};
pub(crate) use self::incoming::{Arrival, check_offer};
use self::info::Infos;
use self::media::Media;
use self::outgoing::Outgoing;
pub(crate) use self::outgoing::{check_callee, is_sdp, name_addr};
use self::provisional::Reliable;
use self::recording::Recording;
use self::refresh::Refresh;
pub(crate) use self::refresh::{MIN_SE, is_too_short};
pub(crate) use self::transfer::Named;
use self::transfer::Transfers;
use crate::event::{AccountId, Event, EventKind, Originator, Sender, SessionId, SessionState, Snapshot};
use crate::sdp::negotiation::Negotiator;
use crate::sip::headers::Params;
use crate::sip::message::{HeaderName, Message};
use crate::sip::transaction::give_back;
use crate::ua::Output;
use crate::ua::core::{Core, MergeKey};
use crate::ua::timers::Timer;

/// One call.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    account: AccountId,
    /// The attributes of the API; rebuilt only when one of them changed since the last event.
    snapshot: Arc<Snapshot>,
    /// Our tag.
    tag: Box<str>,
    negotiator: Negotiator,
    leg: Leg,
    media: Media,
    chat: Chat,
    recording: Recording,
    /// Requests of ours inside the dialog that wait for their final answer.
    requests: Requests,
    /// Reliable provisional responses of ours, until the last PRACK.
    reliable: Option<Box<Reliable>>,
    refresh: Refresh,
    /// What INFO needs, once there is one.
    infos: Option<Box<Infos>>,
    transfers: Transfers,
    /// The source whose half-open calls this one counts among.
    half_open: Option<IpAddr>,
    merge_key: Option<MergeKey>,
    /// DidEnd was posted: nothing is any more.
    over: bool,
}

/// What the protocol needs at each stage.
#[derive(Debug)]
enum Leg {
    /// Our INVITE, from `connect()` to its final answer.
    Outgoing(Box<Outgoing>),
    /// The peer's INVITE, until our final answer.
    Incoming(Box<Incoming>),
    /// Our 200 waits for its ACK.
    Answered(Box<Answered>),
    /// The dialog is confirmed on both sides.
    Confirmed(Box<Confirmed>),
    /// On the way out: for an answer to BYE or CANCEL, the ACK that must come before BYE, or the recording.
    Ending(Box<Ending>),
    Over,
}

impl Session {
    fn new(id: SessionId, tag: String, snapshot: Snapshot, leg: Leg, core: &mut Core) -> Self {
        let tag: Box<str> = tag.into();
        core.tags.insert(tag.clone(), id);
        Self {
            id,
            account: snapshot.account.expect("a session has an account"),
            snapshot: Arc::new(snapshot),
            tag,
            negotiator: Negotiator::new(&mut core.random),
            leg,
            media: Media::default(),
            chat: Chat::default(),
            recording: Recording::default(),
            requests: Requests::default(),
            reliable: None,
            refresh: Refresh::default(),
            infos: None,
            transfers: Transfers::default(),
            half_open: None,
            merge_key: None,
            over: false,
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    pub fn state(&self) -> SessionState {
        self.snapshot.state
    }

    /// Not in NULL or TERMINATED.
    pub fn is_active(&self) -> bool {
        !matches!(self.state(), SessionState::Null | SessionState::Terminated)
    }

    /// True once nothing of it is needed any more, neither by the API nor by the protocol.
    pub fn is_finished(&self) -> bool {
        self.over && matches!(self.leg, Leg::Over)
    }

    /// Takes every trace of the session out of the shared tables.
    pub fn forget(&mut self, core: &mut Core) {
        core.tags.remove(&self.tag);
        give_back(&mut core.tags);
        if let Some(key) = self.merge_key.take() {
            core.merge_keys.remove(&key);
            give_back(&mut core.merge_keys);
        }
        self.close_half_open(core);
        core.timers.cancel_all(self.id);
    }

    pub fn handle_timer(&mut self, timer: Timer, core: &mut Core, now: Instant) {
        match timer {
            Timer::Resend2xx => self.resend_2xx(core, now),
            Timer::NoAck => self.no_ack(core, now),
            Timer::Expires => self.expired(core, now),
            Timer::KeepRinging if matches!(self.leg, Leg::Confirmed(_)) => self.ring_for_proposal(core, now),
            Timer::KeepRinging => self.keep_ringing(core, now),
            Timer::Refresh => self.refresh_is_due(core, now),
            Timer::SessionExpires => self.session_expired(core, now),
            Timer::OfferAgain => self.offer_again(core, now),
            Timer::ReinviteRings => self.cancel_reinvite(core, now),
            Timer::Provisional => self.resend_provisional(core, now),
            Timer::Patience => self.lose_patience(core),
            Timer::Transfer => self.transfer_timed_out(core, now),
        }
    }

    // --- notifications -----------------------------------------------------------------------------------------------

    fn post(&mut self, kind: EventKind, core: &mut Core) {
        debug_assert!(!self.over, "{kind:?} after DidEnd");
        self.tell_relatives(&kind, core);
        let snapshot = Some(Arc::clone(&self.snapshot));
        core.outputs.push_back(Output::Event(Event { sender: Sender::Session(self.id), snapshot, kind }));
    }

    /// Changes attributes; the next event shows them.
    fn change(&mut self, change: impl FnOnce(&mut Snapshot)) {
        change(Arc::make_mut(&mut self.snapshot));
    }

    fn set_state(&mut self, state: SessionState, core: &mut Core) {
        let prev_state = self.snapshot.state;
        debug_assert_ne!(prev_state, state, "a change of state changes it");
        self.change(|snapshot| snapshot.state = state);
        self.post(EventKind::SessionChangedState { prev_state, state }, core);
    }

    // --- shared between the stages -----------------------------------------------------------------------------------

    fn close_half_open(&mut self, core: &mut Core) {
        if let Some(source) = self.half_open.take() {
            core.limits.close(source);
        }
    }

    /// True for a response or request that bears the names of this call; a mere match of branches is not enough.
    fn is_ours(&self, response: &Message) -> bool {
        let call_id = self.snapshot.call_id.as_deref().unwrap_or_default();
        response.call_id().is_ok_and(|id| id == call_id.as_bytes())
            && response.from().is_ok_and(|from| from.tag() == Some(self.tag.as_bytes()))
    }

    /// The unacknowledged 2xx, whatever stage it belongs to.
    fn unacked_mut(&mut self) -> Option<&mut Unacked> {
        match &mut self.leg {
            Leg::Answered(answered) => Some(&mut answered.unacked),
            Leg::Confirmed(confirmed) => confirmed.unacked.as_mut(),
            Leg::Ending(ending) => ending.unacked.as_mut(),
            Leg::Outgoing(_) | Leg::Incoming(_) | Leg::Over => None,
        }
    }

    fn take_leg(&mut self) -> Leg {
        std::mem::replace(&mut self.leg, Leg::Over)
    }
}

fn text(message: &Message, name: HeaderName) -> Option<Arc<str>> {
    let value = message.header(name).filter(|value| !value.is_empty())?;
    Some(String::from_utf8_lossy(value).into())
}

/// Why the peer ends or cancels the call: the text of Reason (RFC 3326), or the whole header when it has none.
fn peer_reason(message: &Message) -> Option<Arc<str>> {
    let value = message.header(HeaderName::Reason)?;
    let params = value.iter().position(|byte| *byte == b';').and_then(|at| value.get(at..)).unwrap_or_default();
    let said = Params { raw: params }.get("text").unwrap_or(value);
    Some(unquote(said).into())
}

/// A quoted string without its quotes and escapes; anything else as it is.
fn unquote(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return text.into_owned() };
    let mut plain = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    plain
}

/// A failure's reason phrase with the text of its Warning in brackets.
fn failure_reason(response: &Message) -> String {
    let reason = response.reason();
    let warning = response.header(HeaderName::Warning).and_then(|value| {
        let start = value.iter().position(|byte| *byte == b'"')?;
        Some(unquote(value.get(start..)?))
    });
    match warning.filter(|text| !text.is_empty()) {
        Some(warning) => format!("{reason} ({warning})"),
        None => reason.into_owned(),
    }
}

/// SDP as the application may see it: keys (RFC 4568 `inline:`) are secrets.
pub(crate) fn shown_sdp(sdp: &str) -> Arc<str> {
    const KEY: &str = "inline:";
    if !sdp.contains(KEY) {
        return sdp.into();
    }
    let mut shown = String::with_capacity(sdp.len());
    let mut rest = sdp;
    while let Some(at) = rest.find(KEY) {
        let (before, after) = rest.split_at(at + KEY.len());
        shown.push_str(before);
        shown.push('…');
        rest = after.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || "+/=".contains(letter));
    }
    shown.push_str(rest);
    shown.into()
}

/// A failure on its way into `SIPSessionDidFail`.
#[derive(Debug)]
struct Failure {
    originator: Originator,
    code: u16,
    reason: Arc<str>,
}

impl Failure {
    fn local(code: u16, reason: impl Into<Arc<str>>) -> Self {
        Self { originator: Originator::Local, code, reason: reason.into() }
    }

    fn remote(code: u16, reason: impl Into<Arc<str>>) -> Self {
        Self { originator: Originator::Remote, code, reason: reason.into() }
    }
}
