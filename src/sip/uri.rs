//! SIP and SIPS URIs (RFC 3261 §19.1), and any other scheme kept as it came.

use std::fmt;
use std::net::IpAddr;

/// A host as an address or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Ip(IpAddr),
    Name(String),
}

/// A URI, owned. `sip:` and `sips:` are taken apart; others (`tel:`, …) keep their text in `opaque`.
#[derive(Clone, Debug)]
pub struct Uri {
    /// Lower case: "sip", "sips", "tel", …
    pub scheme: String,
    /// Percent-decoded; raw octets that are not UTF-8 stay percent-encoded.
    pub user: Option<String>,
    pub password: Option<String>,
    /// `None` for schemes other than sip and sips.
    pub host: Option<Host>,
    pub port: Option<u16>,
    /// Names in the order they came, decoded; a parameter without a value has `None`.
    pub parameters: Vec<(String, Option<String>)>,
    pub headers: Vec<(String, String)>,
    /// The part after the colon of any other scheme.
    pub opaque: String,
}

/// What is wrong with a URI, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at} of URI {uri:?}")]
pub struct UriError {
    pub what: &'static str,
    pub at: usize,
    pub uri: String,
}

impl Uri {
    /// Reads a URI without surrounding angle brackets.
    pub fn parse(_text: &[u8]) -> Result<Self, UriError> {
        todo!()
    }

    /// `sip:user@host:port`.
    pub fn sip(_user: Option<&str>, _host: Host, _port: Option<u16>) -> Self {
        todo!()
    }

    pub fn is_sip(&self) -> bool {
        self.scheme == "sip" || self.scheme == "sips"
    }

    pub fn is_secure(&self) -> bool {
        self.scheme == "sips"
    }

    /// A parameter by name, in any case: `Some(None)` when it has no value.
    pub fn parameter(&self, _name: &str) -> Option<Option<&str>> {
        todo!()
    }
}

/// The comparison of RFC 3261 §19.1.4.
impl PartialEq for Uri {
    fn eq(&self, _other: &Self) -> bool {
        todo!()
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
