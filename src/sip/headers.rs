//! Typed header values, read on demand from a message's bytes.

use super::message::Method;
use super::uri::{Uri, UriError};

/// `;name=value` parameters after a header value, read in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    pub raw: &'a [u8],
}

impl<'a> Params<'a> {
    /// A parameter by name, in any case: `Some(b"")` when it has no value. Quotes stay.
    pub fn get(&self, _name: &str) -> Option<&'a [u8]> {
        todo!()
    }
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        [].into_iter()
    }
}

/// One Via value (RFC 3261 §20.42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// "UDP", "TCP", … as written.
    pub transport: &'a [u8],
    pub host: &'a [u8],
    pub port: Option<u16>,
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.params.get("branch")
    }
}

/// From, To, Contact, Route, …: an address with or without a display name (RFC 3261 §20.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// As written, with its quotes.
    pub display_name_raw: &'a [u8],
    pub uri_raw: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    pub fn parse(_value: &'a [u8]) -> Option<Self> {
        todo!()
    }
    pub fn uri(&self) -> Result<Uri, UriError> {
        Uri::parse(self.uri_raw)
    }
    /// Unquoted and unescaped; `None` when empty.
    pub fn display_name(&self) -> Option<String> {
        todo!()
    }
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.get("tag")
    }
}

/// CSeq (RFC 3261 §20.16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    pub number: u32,
    pub method: Method,
}
