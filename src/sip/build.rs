//! Requests and responses as bytes, in the order a reader of a trace expects.

use bytes::Bytes;

use super::message::{Message, Method};

/// Writes one message. `header` may be called in any order; `finish` adds Content-Length and the body.
///
/// Values never break a line: CR and LF in them become spaces.
#[derive(Debug)]
pub struct Builder {
    buffer: Vec<u8>,
}

impl Builder {
    /// Starts `METHOD uri SIP/2.0`.
    pub fn request(_method: &Method, _uri: impl std::fmt::Display) -> Self {
        todo!()
    }

    /// Starts `SIP/2.0 code reason`, then copies Via (all), From, To, Call-ID, CSeq and, for 1xx and 2xx that make a dialog,
    /// Record-Route from the request (RFC 3261 §8.2.6.2, §12.1.1). `to_tag` is added to To when it has none.
    /// `received`/`rport` of the top Via are filled in from `source` (RFC 3261 §18.2.1, RFC 3581 §4).
    pub fn response(
        _request: &Message,
        _code: u16,
        _reason: &str,
        _to_tag: Option<&str>,
        _source: std::net::SocketAddr,
    ) -> Self {
        todo!()
    }

    pub fn header(self, _name: &str, _value: impl std::fmt::Display) -> Self {
        todo!()
    }

    /// For values that are bytes as they came from the wire.
    pub fn header_bytes(self, _name: &str, _value: &[u8]) -> Self {
        todo!()
    }

    /// Ends with Content-Type (when there is a body) and Content-Length.
    pub fn finish(self, _body: Option<(&str, &[u8])>) -> Bytes {
        Bytes::from(self.buffer)
    }
}

/// The default reason phrase of a status code; "Unknown" for codes without one.
pub fn reason_phrase(_code: u16) -> &'static str {
    todo!()
}
