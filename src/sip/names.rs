//! Names of methods and header fields.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use super::text::is_token;

/// A request method. Unknown ones keep their text; methods are case-sensitive (RFC 3261 §7.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Register,
    Prack,
    Update,
    Info,
    Message,
    Subscribe,
    Notify,
    Publish,
    Refer,
    Other(Box<str>),
}

impl Method {
    /// Reads a method as it stands in a message; `None` when it is no token.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"OPTIONS" => Self::Options,
            b"REGISTER" => Self::Register,
            b"PRACK" => Self::Prack,
            b"UPDATE" => Self::Update,
            b"INFO" => Self::Info,
            b"MESSAGE" => Self::Message,
            b"SUBSCRIBE" => Self::Subscribe,
            b"NOTIFY" => Self::Notify,
            b"PUBLISH" => Self::Publish,
            b"REFER" => Self::Refer,
            _ if is_token(text) => Self::Other(std::str::from_utf8(text).ok()?.into()),
            _ => return None,
        })
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Register => "REGISTER",
            Self::Prack => "PRACK",
            Self::Update => "UPDATE",
            Self::Info => "INFO",
            Self::Message => "MESSAGE",
            Self::Subscribe => "SUBSCRIBE",
            Self::Notify => "NOTIFY",
            Self::Publish => "PUBLISH",
            Self::Refer => "REFER",
            Self::Other(text) => text,
        }
    }

    /// True for the methods whose success makes a dialog (RFC 3261 §12.1, RFC 6665, RFC 3515).
    pub fn makes_dialog(&self) -> bool {
        matches!(self, Self::Invite | Self::Subscribe | Self::Refer)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text of the application: what is no token is kept, and a [`Builder`](super::build::Builder) makes it one.
impl FromStr for Method {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::parse(text.as_bytes()).unwrap_or_else(|| Self::Other(text.into())))
    }
}

macro_rules! header_names {
    ($($name:ident $text:literal,)*) => {
        /// A known header field, whatever its spelling (long, compact, any case); `Other` compares by text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum HeaderName {
            $($name,)*
            Other,
        }

        impl HeaderName {
            /// The long name as the RFCs write it; empty for `Other`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other => "",
                }
            }
        }

        #[cfg(test)]
        const ALL: &[HeaderName] = &[$(HeaderName::$name,)*];
    };
}

header_names! {
    Accept "Accept",
    Allow "Allow",
    AlertInfo "Alert-Info",
    Authorization "Authorization",
    CallId "Call-ID",
    Contact "Contact",
    ContentEncoding "Content-Encoding",
    ContentLength "Content-Length",
    ContentType "Content-Type",
    CSeq "CSeq",
    Date "Date",
    ErrorInfo "Error-Info",
    Event "Event",
    Expires "Expires",
    From "From",
    MaxForwards "Max-Forwards",
    MinExpires "Min-Expires",
    MinSE "Min-SE",
    ProxyAuthenticate "Proxy-Authenticate",
    ProxyAuthorization "Proxy-Authorization",
    ProxyRequire "Proxy-Require",
    RAck "RAck",
    Reason "Reason",
    RecordRoute "Record-Route",
    ReferTo "Refer-To",
    ReferredBy "Referred-By",
    Replaces "Replaces",
    Require "Require",
    RetryAfter "Retry-After",
    Route "Route",
    RSeq "RSeq",
    Server "Server",
    SessionExpires "Session-Expires",
    Subject "Subject",
    SubscriptionState "Subscription-State",
    Supported "Supported",
    To "To",
    Unsupported "Unsupported",
    UserAgent "User-Agent",
    Via "Via",
    Warning "Warning",
    WwwAuthenticate "WWW-Authenticate",
}

impl HeaderName {
    /// The header field of this name, long or compact, in any case.
    pub fn of(name: &[u8]) -> Self {
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        // Length and first letter leave at most two candidates; the comparison decides.
        let candidates: [Self; 2] = match (name.len(), first) {
            (1, b'v') => return Self::Via,
            (1, b'f') => return Self::From,
            (1, b't') => return Self::To,
            (1, b'i') => return Self::CallId,
            (1, b'm') => return Self::Contact,
            (1, b'l') => return Self::ContentLength,
            (1, b'c') => return Self::ContentType,
            (1, b'e') => return Self::ContentEncoding,
            (1, b's') => return Self::Subject,
            (1, b'k') => return Self::Supported,
            (1, b'o') => return Self::Event,          // RFC 6665
            (1, b'r') => return Self::ReferTo,        // RFC 3515
            (1, b'b') => return Self::ReferredBy,     // RFC 3892
            (1, b'x') => return Self::SessionExpires, // RFC 4028
            (2, b't') => [Self::To; 2],
            (3, b'v') => [Self::Via; 2],
            (4, b'f') => [Self::From; 2],
            (4, b'c') => [Self::CSeq; 2],
            (4, b'd') => [Self::Date; 2],
            (4, b'r') => [Self::RAck, Self::RSeq],
            (5, b'a') => [Self::Allow; 2],
            (5, b'e') => [Self::Event; 2],
            (5, b'r') => [Self::Route; 2],
            (6, b'a') => [Self::Accept; 2],
            (6, b'm') => [Self::MinSE; 2],
            (6, b'r') => [Self::Reason; 2],
            (6, b's') => [Self::Server; 2],
            (7, b'c') => [Self::CallId, Self::Contact],
            (7, b'e') => [Self::Expires; 2],
            (7, b'r') => [Self::Require; 2],
            (7, b's') => [Self::Subject; 2],
            (7, b'w') => [Self::Warning; 2],
            (8, b'r') => [Self::ReferTo, Self::Replaces],
            (9, b's') => [Self::Supported; 2],
            (10, b'a') => [Self::AlertInfo; 2],
            (10, b'e') => [Self::ErrorInfo; 2],
            (10, b'u') => [Self::UserAgent; 2],
            (11, b'm') => [Self::MinExpires; 2],
            (11, b'r') => [Self::ReferredBy, Self::RetryAfter],
            (11, b'u') => [Self::Unsupported; 2],
            (12, b'c') => [Self::ContentType; 2],
            (12, b'm') => [Self::MaxForwards; 2],
            (12, b'r') => [Self::RecordRoute; 2],
            (13, b'a') => [Self::Authorization; 2],
            (13, b'p') => [Self::ProxyRequire; 2],
            (14, b'c') => [Self::ContentLength; 2],
            (15, b's') => [Self::SessionExpires; 2],
            (16, b'c') => [Self::ContentEncoding; 2],
            (16, b'w') => [Self::WwwAuthenticate; 2],
            (18, b'p') => [Self::ProxyAuthenticate; 2],
            (18, b's') => [Self::SubscriptionState; 2],
            (19, b'p') => [Self::ProxyAuthorization; 2],
            _ => return Self::Other,
        };
        let same = |id: &Self| id.as_str().as_bytes().eq_ignore_ascii_case(name);
        candidates.into_iter().find(same).unwrap_or(Self::Other)
    }

    /// True when its value is a comma list (RFC 3261 §7.3.1, §25.1).
    pub fn is_list(self) -> bool {
        use HeaderName as H;
        matches!(
            self,
            H::Accept
                | H::Allow
                | H::AlertInfo
                | H::Contact
                | H::ContentEncoding
                | H::ErrorInfo
                | H::ProxyRequire
                | H::Reason
                | H::RecordRoute
                | H::Require
                | H::Route
                | H::Supported
                | H::Unsupported
                | H::Via
                | H::Warning
        )
    }

    /// True when a message that has it twice cannot be understood: two readers could take two different ones.
    pub fn is_single(self) -> bool {
        use HeaderName as H;
        matches!(
            self,
            H::CallId
                | H::ContentLength
                | H::ContentType
                | H::CSeq
                | H::Event
                | H::Expires
                | H::From
                | H::MaxForwards
                | H::MinExpires
                | H::MinSE
                | H::RAck
                | H::ReferTo
                | H::ReferredBy
                | H::Replaces
                | H::RSeq
                | H::SessionExpires
                | H::SubscriptionState
                | H::To
        )
    }
}

/// The long name of a compact form without a [`HeaderName`]; any other name as it is.
pub(super) fn long_name(name: &[u8]) -> &[u8] {
    match name {
        [b'a' | b'A'] => b"Accept-Contact",      // RFC 3841
        [b'd' | b'D'] => b"Request-Disposition", // RFC 3841
        [b'j' | b'J'] => b"Reject-Contact",      // RFC 3841
        [b'n' | b'N'] => b"Identity-Info",       // RFC 4474
        [b'u' | b'U'] => b"Allow-Events",        // RFC 6665
        [b'y' | b'Y'] => b"Identity",            // RFC 8224
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for &id in ALL {
            let name = id.as_str();
            for spelling in [name.to_string(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                assert_eq!(HeaderName::of(spelling.as_bytes()), id, "{spelling}");
            }
            assert_eq!(HeaderName::of(format!("{name}x").as_bytes()), HeaderName::Other, "{name}x");
        }
        assert!(ALL.len() < 64, "repeated headers are counted in 64 bits");
    }

    #[test]
    fn compact_names() {
        let table = "vVia fFrom tTo iCall-ID mContact lContent-Length cContent-Type eContent-Encoding sSubject \
                     kSupported oEvent rRefer-To bReferred-By xSession-Expires";
        for entry in table.split_ascii_whitespace() {
            let (compact, long) = entry.split_at(1);
            for compact in [compact.to_string(), compact.to_ascii_uppercase()] {
                assert_eq!(HeaderName::of(compact.as_bytes()).as_str(), long);
            }
        }
        assert_eq!(long_name(b"U"), b"Allow-Events");
    }

    #[test]
    fn methods_are_case_sensitive_tokens() {
        assert_eq!(Method::parse(b"INVITE"), Some(Method::Invite));
        assert_eq!(Method::parse(b"invite"), Some(Method::Other("invite".into())));
        assert_eq!(Method::parse(b"IN VITE"), None);
        assert_eq!(Method::parse(b""), None);
        for name in [
            "INVITE",
            "ACK",
            "BYE",
            "CANCEL",
            "OPTIONS",
            "REGISTER",
            "PRACK",
            "UPDATE",
            "INFO",
            "MESSAGE",
            "SUBSCRIBE",
            "NOTIFY",
            "PUBLISH",
            "REFER",
        ] {
            let method: Method = name.parse().unwrap_or(Method::Ack);
            assert!(!matches!(method, Method::Other(_)), "{name}");
            assert_eq!(method.to_string(), name);
        }
    }
}
