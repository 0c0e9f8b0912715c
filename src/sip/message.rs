//! One SIP message over the bytes it came in: spans into the buffer, one allocation for the list of headers.

use bytes::Bytes;

use super::headers::{CSeq, NameAddr, Via};
use super::uri::Uri;

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

/// A known header field, whatever its spelling (long, compact, any case); `Other` compares by text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderName {
    Accept,
    Allow,
    AlertInfo,
    Authorization,
    CallId,
    Contact,
    ContentEncoding,
    ContentLength,
    ContentType,
    CSeq,
    Date,
    ErrorInfo,
    Event,
    Expires,
    From,
    MaxForwards,
    MinExpires,
    MinSE,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyRequire,
    RAck,
    Reason,
    RecordRoute,
    ReferTo,
    ReferredBy,
    Replaces,
    Require,
    RetryAfter,
    Route,
    RSeq,
    Server,
    SessionExpires,
    Subject,
    SubscriptionState,
    Supported,
    To,
    Unsupported,
    UserAgent,
    Via,
    Warning,
    WwwAuthenticate,
    Other,
}

/// Why bytes are not a SIP message we can use, with what a reply needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ParseError {
    /// What failed, where, and the value, in words.
    pub what: String,
    /// The answer RFC 3261 gives (400, 505, 513, …); `None` when silence is the answer (not SIP, a response, an ACK).
    pub answer: Option<u16>,
    /// The headers as far as they could be read (Via, From, To, Call-ID, CSeq), to build that answer from.
    pub partial: Option<Box<Message>>,
}

/// One request or response. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
}

impl Message {
    /// Reads one datagram (RFC 3261 §18.3: the body ends at Content-Length, or with the datagram).
    pub fn parse(_bytes: Bytes) -> Result<Self, Box<ParseError>> {
        todo!()
    }
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
    pub fn is_request(&self) -> bool {
        todo!()
    }
    /// The method of a request, or of a response's CSeq.
    pub fn method(&self) -> &Method {
        todo!()
    }
    /// The raw request URI; empty for responses.
    pub fn request_uri_raw(&self) -> &[u8] {
        todo!()
    }
    pub fn request_uri(&self) -> Result<Uri, Box<ParseError>> {
        todo!()
    }
    /// The status code of a response; `None` for requests.
    pub fn status(&self) -> Option<u16> {
        todo!()
    }
    /// The reason phrase, lossily decoded.
    pub fn reason(&self) -> std::borrow::Cow<'_, str> {
        todo!()
    }
    /// The first value of a header, unfolded only when read typed; trimmed.
    pub fn header(&self, _name: HeaderName) -> Option<&[u8]> {
        todo!()
    }
    /// Every line of that header, in order.
    pub fn header_lines(&self, _name: HeaderName) -> impl Iterator<Item = &[u8]> {
        [].into_iter()
    }
    /// Every element of that header's comma lists, over all its lines, in order.
    pub fn header_values(&self, _name: HeaderName) -> impl Iterator<Item = &[u8]> {
        [].into_iter()
    }
    /// A header by any name, for those without a `HeaderName`.
    pub fn header_named(&self, _name: &str) -> Option<&[u8]> {
        todo!()
    }
    /// All headers in order as (name as written, value).
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        [].into_iter()
    }
    pub fn top_via(&self) -> Result<Via<'_>, Box<ParseError>> {
        todo!()
    }
    pub fn from(&self) -> Result<NameAddr<'_>, Box<ParseError>> {
        todo!()
    }
    pub fn to(&self) -> Result<NameAddr<'_>, Box<ParseError>> {
        todo!()
    }
    /// The first Contact; `Ok(None)` when there is none.
    pub fn contact(&self) -> Result<Option<NameAddr<'_>>, Box<ParseError>> {
        todo!()
    }
    pub fn call_id(&self) -> Result<&[u8], Box<ParseError>> {
        todo!()
    }
    pub fn cseq(&self) -> Result<CSeq, Box<ParseError>> {
        todo!()
    }
    /// `Ok(None)` when there is none.
    pub fn max_forwards(&self) -> Result<Option<u8>, Box<ParseError>> {
        todo!()
    }
    pub fn body(&self) -> &[u8] {
        todo!()
    }
    /// Checks what a UA needs before anything else (RFC 3261 §8.1.1, §8.2, RFC 4475): the mandatory headers once each and
    /// readable, CSeq's method equal to the request's, a readable request URI.
    pub fn validate(&self) -> Result<(), Box<ParseError>> {
        todo!()
    }
}
