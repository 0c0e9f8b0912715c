//! What SUBSCRIBE, NOTIFY and PUBLISH say about themselves: `Event` and `Subscription-State` (RFC 6665 §8.4, §4.1.3).
//!
//! Shared by subscriptions in both roles and by the implicit subscription of REFER (RFC 3515).

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt;

use super::headers::value_and_params;
use super::message::{HeaderName, Message};
use super::text::is_token;

/// Longest package name and `id` that are kept: real ones have a dozen letters.
const MAX_NAME: usize = 128;

/// The `Event` header: a package and, where one dialog carries several subscriptions, which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPackage {
    /// "message-summary", "dialog", "presence", "refer", …, with its templates ("presence.winfo").
    pub name: String,
    pub id: Option<String>,
}

impl EventPackage {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), id: None }
    }

    /// The same with an `id`.
    #[must_use]
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..self }
    }

    /// Reads a header value; `None` unless the package is a token. Parameters other than `id` belong to the package.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (name, params) = value_and_params(value);
        if !is_token(name) || name.len() > MAX_NAME {
            return None;
        }
        let id = params.text("id").filter(|id| !id.is_empty() && id.len() <= MAX_NAME);
        Some(Self { name: String::from_utf8_lossy(name).into_owned(), id })
    }

    /// The `Event` header of a message.
    pub fn of(message: &Message) -> Option<Self> {
        Self::parse(message.header(HeaderName::Event)?)
    }

    /// True when both mean the same subscription of a dialog: package and `id`, byte by byte (RFC 6665 §8.2.1).
    pub fn matches(&self, other: &Self) -> bool {
        self == other
    }
}

impl fmt::Display for EventPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.id {
            Some(id) => write!(f, ";id={id}"),
            None => Ok(()),
        }
    }
}

/// Why a subscription ended (RFC 6665 §4.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Subscribe again at once: the notifier moves.
    Deactivated,
    /// Subscribe again later.
    Probation,
    Rejected,
    /// It was not refreshed.
    Timeout,
    /// No authorization could be had in time; later perhaps.
    Giveup,
    /// What was watched is gone.
    NoResource,
    /// What was watched will not change any more (a call that ended).
    Invariant,
    Other(String),
}

impl EndReason {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Deactivated => "deactivated",
            Self::Probation => "probation",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Giveup => "giveup",
            Self::NoResource => "noresource",
            Self::Invariant => "invariant",
            Self::Other(text) => text,
        }
    }

    /// Reads a reason in any case.
    pub fn of(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "deactivated" => Self::Deactivated,
            "probation" => Self::Probation,
            "rejected" => Self::Rejected,
            "timeout" => Self::Timeout,
            "giveup" => Self::Giveup,
            "noresource" => Self::NoResource,
            "invariant" => Self::Invariant,
            other => Self::Other(other.chars().take(MAX_NAME).collect()),
        }
    }
}

/// The `Subscription-State` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Seconds left, when the notifier says so.
    Active {
        expires: Option<u32>,
    },
    /// Accepted, but not yet authorized: bodies tell nothing.
    Pending {
        expires: Option<u32>,
    },
    Terminated {
        reason: Option<EndReason>,
        retry_after: Option<u32>,
    },
}

impl SubscriptionState {
    /// `terminated` with this reason.
    pub fn ended(reason: EndReason) -> Self {
        Self::Terminated { reason: Some(reason), retry_after: None }
    }

    /// Reads a header value; `None` for a state of no RFC.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (state, params) = value_and_params(value);
        let expires = params.number("expires");
        match state.to_ascii_lowercase().as_slice() {
            b"active" => Some(Self::Active { expires }),
            b"pending" => Some(Self::Pending { expires }),
            b"terminated" => Some(Self::Terminated {
                reason: params.text("reason").filter(|text| !text.is_empty()).map(|text| EndReason::of(&text)),
                retry_after: params.number("retry-after"),
            }),
            _ => None,
        }
    }

    /// The `Subscription-State` header of a NOTIFY.
    pub fn of(message: &Message) -> Option<Self> {
        Self::parse(message.header(HeaderName::SubscriptionState)?)
    }

    /// "active", "pending" or "terminated".
    pub fn name(&self) -> &'static str {
        match self {
            Self::Active { .. } => "active",
            Self::Pending { .. } => "pending",
            Self::Terminated { .. } => "terminated",
        }
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self, Self::Terminated { .. })
    }
}

impl fmt::Display for SubscriptionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Active { expires } | Self::Pending { expires } => {
                expires.map_or(Ok(()), |expires| write!(f, ";expires={expires}"))
            }
            Self::Terminated { reason, retry_after } => {
                if let Some(reason) = reason {
                    write!(f, ";reason={}", reason.as_str())?;
                }
                retry_after.map_or(Ok(()), |seconds| write!(f, ";retry-after={seconds}"))
            }
        }
    }
}

/// The headers every NOTIFY carries beside those of its dialog (RFC 6665 §4.2.2); `Contact` is the sender's to add.
pub fn notify_headers(event: &EventPackage, state: &SubscriptionState) -> [(&'static str, String); 2] {
    [("Event", event.to_string()), ("Subscription-State", state.to_string())]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn events_are_read_written_and_compared() {
        let table = [
            ("presence", Some(EventPackage::new("presence"))),
            (" message-summary ", Some(EventPackage::new("message-summary"))),
            ("refer;id=93809824", Some(EventPackage::new("refer").with_id("93809824"))),
            ("dialog ; sla;ID=7", Some(EventPackage::new("dialog").with_id("7"))),
            ("presence.winfo;id=", Some(EventPackage::new("presence.winfo"))),
            ("", None),
            (";id=1", None),
            ("two words", None),
        ];
        for (text, expected) in table {
            assert_eq!(EventPackage::parse(text.as_bytes()), expected, "{text}");
        }
        let long = "x".repeat(MAX_NAME + 1);
        assert_eq!(EventPackage::parse(long.as_bytes()), None);
        assert_eq!(EventPackage::parse(format!("refer;id={long}").as_bytes()), Some(EventPackage::new("refer")));
        let one = EventPackage::new("refer").with_id("1");
        assert!(one.matches(&one.clone()) && !one.matches(&EventPackage::new("refer")));
        assert_eq!(one.to_string(), "refer;id=1");
    }

    #[test]
    fn states_are_read_and_written_back() {
        use SubscriptionState as S;
        let ended = |reason| S::Terminated { reason: Some(reason), retry_after: None };
        let table = [
            ("active;expires=599", S::Active { expires: Some(599) }),
            ("active", S::Active { expires: None }),
            ("pending;expires=60", S::Pending { expires: Some(60) }),
            ("terminated", S::Terminated { reason: None, retry_after: None }),
            ("terminated;reason=deactivated", ended(EndReason::Deactivated)),
            (
                "terminated;reason=probation;retry-after=30",
                S::Terminated { reason: Some(EndReason::Probation), retry_after: Some(30) },
            ),
            ("terminated;reason=rejected", ended(EndReason::Rejected)),
            ("terminated;reason=timeout", ended(EndReason::Timeout)),
            ("terminated;reason=giveup", ended(EndReason::Giveup)),
            ("terminated;reason=noresource", ended(EndReason::NoResource)),
            ("terminated;reason=invariant", ended(EndReason::Invariant)),
            ("terminated;reason=moved", ended(EndReason::Other("moved".into()))),
        ];
        for (text, expected) in table {
            assert_eq!(S::parse(text.as_bytes()).as_ref(), Some(&expected), "{text}");
            assert_eq!(expected.to_string(), text);
        }
        assert_eq!(S::parse(b"Active ; EXPIRES=9999999999").unwrap(), S::Active { expires: Some(u32::MAX) });
        assert_eq!(S::parse(b"TERMINATED;Reason=NoResource").unwrap(), S::ended(EndReason::NoResource));
        assert_eq!(S::parse(b"terminated;reason").unwrap().to_string(), "terminated");
        for bad in ["", ";expires=1", "waiting", "active expires=3"] {
            assert_eq!(S::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_notify_says_what_it_is_about() {
        let headers = notify_headers(&EventPackage::new("refer"), &SubscriptionState::ended(EndReason::NoResource));
        assert_eq!(headers, [("Event", "refer".into()), ("Subscription-State", "terminated;reason=noresource".into())]);
    }
}
