//! One SIP message over the bytes it came in: spans into the buffer, one allocation for the list of headers.
//!
//! Reading is one pass over the head. A header is looked at closer only when asked for, by the typed getters here and the
//! types of [`headers`](super::headers). Lines end at LF with or without CR before it; a CR anywhere else is an error, so
//! that no two readers see two different messages.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::borrow::Cow;
use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::headers::{CSeq, List, MAX_LIST, NameAddr, Via, clamped, list_contains};
use super::names::long_name;
pub use super::names::{HeaderName, Method};
use super::text::{cut, is_token_byte, number, offset_in, shown};
use super::uri::{Uri, UriRef};

/// Largest UDP payload over IPv4: 65,535 less the IP and UDP headers.
pub const MAX_DATAGRAM: usize = 65_507;
/// Start line and headers together; ten times what the longest routes and credentials of real networks need.
pub const MAX_HEAD: usize = 65_536;
/// Header lines; real messages have fewer than fifty.
pub const MAX_HEADERS: usize = 256;
/// Via values: Max-Forwards starts at 70, so more hops than that is a loop or a lie (RFC 3261 §8.1.1.6).
pub const MAX_VIA: usize = 70;
/// Body on a stream or WebSocket: far above any session description, low enough to hold for many connections.
pub const MAX_BODY: usize = 1 << 20;

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

/// A piece of the message's bytes. Both ends fit: a message is smaller than [`MAX_HEAD`] + [`MAX_BODY`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        let fit = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: fit(start), end: fit(end) }
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// One header line, joined from its folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    id: HeaderName,
    name: Span,
    value: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Request { uri: Span },
    Response { status: u16, reason: Span },
}

/// What is wrong with a head and which answer that gets.
#[derive(Debug)]
struct Fault {
    what: String,
    code: u16,
}

impl Fault {
    fn new(code: u16, what: impl Into<String>) -> Self {
        Self { what: what.into(), code }
    }
}

/// Start line and headers of one message, read but not yet tied to their bytes: datagrams and streams end differently.
#[derive(Debug)]
pub(super) struct Head {
    start: Start,
    method: Method,
    fields: Vec<Field>,
    folded: bool,
    /// Where the body begins.
    pub(super) end: usize,
    /// `Ok(None)` without Content-Length, `Err` when it cannot be used: no number, or two different ones.
    pub(super) length: Result<Option<usize>, ()>,
    fault: Option<Fault>,
}

/// Room for the headers of an ordinary request, so that their list is allocated once.
const USUAL_HEADERS: usize = 24;

impl Head {
    /// Reads up to the blank line. `text` starts at the start line.
    ///
    /// # Errors
    /// Only when this is not SIP at all; what is wrong with SIP is kept in `fault`, with the headers that could be read.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let mut fault = None;
        let mut bare_cr = false;
        let (head, beyond) = cut(text, MAX_HEAD);
        let (line_end, mut at) = line_end(head, 0, &mut bare_cr).unwrap_or((head.len(), head.len()));
        let (start, method) = start_line(cut(head, line_end).0, &mut fault)?;
        let mut fields = Vec::with_capacity(USUAL_HEADERS);
        let mut folded = false;
        loop {
            let rest = head.get(at..).unwrap_or_default();
            match rest {
                [b'\n', ..] => {
                    at += 1;
                    break;
                }
                [b'\r', b'\n', ..] => {
                    at += 2;
                    break;
                }
                [] => {
                    let missing = match beyond.is_empty() {
                        true => Fault::new(400, format!("no blank line after the headers, at byte {at}")),
                        false => Fault::new(513, format!("a head of more than {MAX_HEAD} bytes")),
                    };
                    fault.get_or_insert(missing);
                    break;
                }
                _ => {}
            }
            let line_start = at;
            let name_len = rest.iter().position(|&b| !is_token_byte(b)).unwrap_or(rest.len());
            let (mut content_end, mut next) =
                self::line_end(head, at, &mut bare_cr).unwrap_or((head.len(), head.len()));
            while matches!(head.get(next), Some(b' ' | b'\t')) {
                folded = true;
                (content_end, next) = self::line_end(head, next, &mut bare_cr).unwrap_or((head.len(), head.len()));
            }
            at = next;
            let (name, after) = cut(rest, name_len);
            let blanks = after.iter().take_while(|&&b| b == b' ' || b == b'\t').count();
            if name.is_empty() || after.get(blanks) != Some(&b':') {
                let line = head.get(line_start..content_end).unwrap_or_default();
                fault.get_or_insert_with(|| {
                    Fault::new(400, format!("no header at byte {line_start}: \"{}\"", shown(line)))
                });
                continue;
            }
            if fields.len() == MAX_HEADERS {
                fault.get_or_insert_with(|| Fault::new(513, format!("more than {MAX_HEADERS} header lines")));
                continue;
            }
            let value_start = line_start + name_len + blanks + 1;
            let value = head.get(value_start..content_end).unwrap_or_default();
            let lead = value.len() - value.trim_ascii_start().len();
            let value_start = value_start + lead;
            let value_end = value_start + value.trim_ascii().len();
            let name_span = Span::new(line_start, line_start + name_len);
            fields.push(Field { id: HeaderName::of(name), name: name_span, value: Span::new(value_start, value_end) });
        }
        if bare_cr {
            folded = true; // the values of an answer hold no line ends either
            fault.get_or_insert_with(|| Fault::new(400, "a CR that does not end a line"));
        }
        let mut head = Self { start, method, fields, folded, end: at, length: Ok(None), fault };
        head.read_length(text);
        head.read_response_method(text);
        Ok(head)
    }

    fn read_length(&mut self, text: &[u8]) {
        for field in self.fields.iter().filter(|field| field.id == HeaderName::ContentLength) {
            let value = field.value.of(text);
            let read = number(value).and_then(|length| usize::try_from(length).ok()).filter(|&length| length < 1 << 32);
            self.length = match (self.length, read) {
                (Ok(None), Some(length)) => Ok(Some(length)),
                (Ok(Some(before)), Some(length)) if before == length => Ok(Some(length)),
                _ => Err(()),
            };
            if self.length.is_err() {
                let at = field.value.start;
                let what = format!("Content-Length \"{}\" at byte {at} is not a number we can use", shown(value));
                self.fault.get_or_insert_with(|| Fault::new(400, what));
                return;
            }
        }
    }

    /// A response is to the method of its CSeq.
    fn read_response_method(&mut self, text: &[u8]) {
        if matches!(self.start, Start::Response { .. }) {
            let cseq = self.fields.iter().find(|field| field.id == HeaderName::CSeq);
            let method = cseq.and_then(|field| {
                let value = field.value.of(text);
                value.rsplit(u8::is_ascii_whitespace).next().and_then(Method::parse)
            });
            self.method = method.unwrap_or(Method::Other("".into()));
        }
    }

    /// Ties the head to its bytes; the body is what lies at `body` in them.
    pub(super) fn into_message(
        self,
        mut bytes: Bytes,
        body: std::ops::Range<usize>,
    ) -> Result<Message, Box<ParseError>> {
        if self.folded {
            // Joined in place, at the same length (RFC 3261 §7.3.1), so that nothing after this sees a line end in a value.
            let mut joined = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            for field in &self.fields {
                if let Some(value) = joined.get_mut(field.value.start as usize..field.value.end as usize) {
                    value.iter_mut().filter(|b| matches!(b, b'\r' | b'\n')).for_each(|b| *b = b' ');
                }
            }
            bytes = joined.freeze();
        }
        let Self { start, method, fields, fault, .. } = self;
        let message = Message { bytes, start, method, fields, body: Span::new(body.start, body.end) };
        match fault {
            None => Ok(message),
            Some(Fault { what, code }) => Err(message.error(code, what)),
        }
    }

    pub(super) fn has(&self, name: HeaderName) -> bool {
        self.fields.iter().any(|field| field.id == name)
    }

    /// Notes a fault unless there is one already.
    pub(super) fn blame(&mut self, code: u16, what: String) {
        self.fault.get_or_insert(Fault { what, code });
    }
}

/// Where the content of the line that holds `from` ends and the next line begins.
fn line_end(text: &[u8], from: usize, bare_cr: &mut bool) -> Option<(usize, usize)> {
    let mut at = from;
    loop {
        at += memchr::memchr2(b'\r', b'\n', text.get(at..)?)?;
        match text.get(at..)? {
            [b'\n', ..] => return Some((at, at + 1)),
            [b'\r', b'\n', ..] => return Some((at, at + 2)),
            _ => {
                *bare_cr = true;
                at += 1;
            }
        }
    }
}

/// Reads the start line. More than one space between its parts and spaces at its end are let through (RFC 4475 §3.1.2.9
/// and §3.1.2.10 leave the choice).
fn start_line(line: &[u8], fault: &mut Option<Fault>) -> Result<(Start, Method), String> {
    let span = |part: &[u8]| {
        let start = offset_in(part, line); // the line is at the start of the message
        Span::new(start, start + part.len())
    };
    let space = memchr::memchr(b' ', line).unwrap_or(line.len());
    let (first, rest) = cut(line, space);
    if first.get(..4).is_some_and(|four| four.eq_ignore_ascii_case(b"SIP/")) {
        let rest = rest.trim_ascii_start();
        let (digits, reason) = cut(rest, memchr::memchr(b' ', rest).unwrap_or(rest.len()));
        let status = number(digits).and_then(|code| u16::try_from(code).ok());
        let status = status.filter(|code| digits.len() == 3 && (100..700).contains(code));
        if status.is_none() || !first.eq_ignore_ascii_case(b"SIP/2.0") {
            *fault = Some(Fault::new(400, format!("not a status line: \"{}\"", shown(line))));
        }
        let reason = cut(reason, 1).1.trim_ascii_end();
        return Ok((Start::Response { status: status.unwrap_or(0), reason: span(reason) }, Method::Other("".into())));
    }
    let rest = rest.trim_ascii();
    let version_at = memchr::memrchr(b' ', rest).map_or(0, |at| at + 1);
    let (uri, version) = cut(rest, version_at);
    let uri = uri.trim_ascii_end();
    if !version.get(..4).is_some_and(|four| four.eq_ignore_ascii_case(b"SIP/")) {
        return Err(format!("not SIP: \"{}\"", shown(line)));
    }
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        let well_formed = version.iter().skip(4).all(|b| b.is_ascii_digit() || *b == b'.');
        let code = if well_formed { 505 } else { 400 };
        *fault = Some(Fault::new(code, format!("version \"{}\" is not SIP/2.0", shown(version))));
    }
    if uri.is_empty() || uri.iter().any(u8::is_ascii_whitespace) {
        fault.get_or_insert_with(|| Fault::new(400, format!("not a request URI: \"{}\"", shown(uri))));
    }
    let method = Method::parse(first).unwrap_or_else(|| {
        fault.get_or_insert_with(|| Fault::new(400, format!("not a method: \"{}\"", shown(first))));
        Method::Other(String::from_utf8_lossy(first).into())
    });
    Ok((Start::Request { uri: span(uri) }, method))
}

/// One request or response. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
    start: Start,
    method: Method,
    fields: Vec<Field>,
    body: Span,
}

/// What it is, without its values: credentials and addresses do not belong in a log.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (headers, body) = (self.fields.len(), self.body().len());
        match self.status() {
            Some(status) => write!(f, "Message({status} to {}, {headers} headers, {body} bytes of body)", self.method),
            None => write!(f, "Message({}, {headers} headers, {body} bytes of body)", self.method),
        }
    }
}

impl Message {
    /// Reads one datagram or WebSocket message (RFC 3261 §18.3: the body ends at Content-Length, or with the datagram).
    ///
    /// # Errors
    /// When it is not SIP, not whole, over a limit of this module, or its start line, a header line or Content-Length cannot
    /// be read. Whether the headers make sense is for [`Self::validate`].
    pub fn parse(mut bytes: Bytes) -> Result<Self, Box<ParseError>> {
        let lead = bytes.iter().take_while(|&&b| b == b'\r' || b == b'\n').count();
        bytes.advance(lead); // RFC 3261 §7.5
        let mut head = Head::read(&bytes).map_err(|what| Box::new(ParseError { what, answer: None, partial: None }))?;
        let rest = bytes.len() - head.end;
        let length = match head.length {
            Ok(Some(length)) if length > rest => {
                head.blame(400, format!("Content-Length {length} is more than the {rest} bytes that came"));
                0
            }
            Ok(length) => length.unwrap_or(rest),
            Err(()) => 0,
        };
        if length > MAX_BODY {
            head.blame(413, format!("a body of {length} bytes is more than {MAX_BODY}"));
        }
        let body = head.end..head.end + length;
        head.into_message(bytes, body)
    }

    /// The message as it came, but for its folded lines, which are joined.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// The method of a request, or of a response's CSeq.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The raw request URI; empty for responses.
    pub fn request_uri_raw(&self) -> &[u8] {
        match self.start {
            Start::Request { uri } => uri.of(&self.bytes),
            Start::Response { .. } => b"",
        }
    }

    /// Headers in the URI (`?…`), which the grammar forbids here, are read but mean nothing (RFC 4475 §3.1.2.11).
    pub fn request_uri(&self) -> Result<Uri, Box<ParseError>> {
        Uri::parse(self.request_uri_raw()).map_err(|error| self.error(400, format!("request URI: {error}")))
    }

    /// The status code of a response; `None` for requests.
    pub fn status(&self) -> Option<u16> {
        match self.start {
            Start::Response { status, .. } => Some(status),
            Start::Request { .. } => None,
        }
    }

    /// The reason phrase, lossily decoded; empty for requests.
    pub fn reason(&self) -> Cow<'_, str> {
        match self.start {
            Start::Response { reason, .. } => String::from_utf8_lossy(reason.of(&self.bytes)),
            Start::Request { .. } => Cow::Borrowed(""),
        }
    }

    /// The first line of a header, trimmed.
    pub fn header(&self, name: HeaderName) -> Option<&[u8]> {
        self.header_lines(name).next()
    }

    /// Every line of that header, in order, trimmed.
    pub fn header_lines(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| field.id == name).map(|field| field.value.of(&self.bytes))
    }

    /// Every element of that header's comma lists, over all its lines, in order: at most [`MAX_LIST`], of Via [`MAX_VIA`].
    /// Headers that are no lists (Call-ID, From, Subject, Authorization, …) give whole lines.
    pub fn header_values(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        let limit = if name == HeaderName::Via { MAX_VIA } else { MAX_LIST };
        self.elements(name).take(limit)
    }

    fn elements(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        let whole = !name.is_list();
        self.header_lines(name).flat_map(move |line| {
            let (line, list) = if whole { (Some(line), None) } else { (None, Some(List::new(line))) };
            line.into_iter().chain(list.into_iter().flatten())
        })
    }

    /// A header by any name, long or compact, in any case.
    pub fn header_named(&self, name: &str) -> Option<&[u8]> {
        self.lines_named(name).next()
    }

    /// Every line of a header by any name, long or compact, in any case.
    pub fn lines_named(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let id = HeaderName::of(name.as_bytes());
        let wanted = long_name(name.as_bytes()).to_ascii_lowercase();
        let same = move |field: &&Field| {
            field.id == id
                && (id != HeaderName::Other || long_name(field.name.of(&self.bytes)).eq_ignore_ascii_case(&wanted))
        };
        self.fields.iter().filter(same).map(|field| field.value.of(&self.bytes))
    }

    /// All headers in order as (name as written, value).
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name.of(&self.bytes), field.value.of(&self.bytes)))
    }

    /// True when a token list (Require, Supported, Allow, …) holds `token`, in any case.
    pub fn lists(&self, name: HeaderName, token: &str) -> bool {
        self.header_lines(name).any(|line| list_contains(line, token))
    }

    /// A header that is a number, possibly followed by parameters (Expires, Min-Expires, Session-Expires, RSeq, …): clamped to 2³²−1.
    /// `Ok(None)` when there is none.
    pub fn number(&self, name: HeaderName) -> Result<Option<u32>, Box<ParseError>> {
        self.header(name)
            .map(|value| {
                let digits = value.split(|&b| b == b';').next().unwrap_or_default();
                clamped(digits).ok_or_else(|| self.unreadable(name, value))
            })
            .transpose()
    }

    pub fn top_via(&self) -> Result<Via<'_>, Box<ParseError>> {
        self.via().ok_or_else(|| self.faulty(HeaderName::Via))
    }

    fn via(&self) -> Option<Via<'_>> {
        self.header_values(HeaderName::Via).next().and_then(Via::parse)
    }

    pub fn from(&self) -> Result<NameAddr<'_>, Box<ParseError>> {
        self.address(HeaderName::From)
    }

    pub fn to(&self) -> Result<NameAddr<'_>, Box<ParseError>> {
        self.address(HeaderName::To)
    }

    fn address(&self, name: HeaderName) -> Result<NameAddr<'_>, Box<ParseError>> {
        self.header(name).and_then(NameAddr::parse).ok_or_else(|| self.faulty(name))
    }

    /// The first Contact; `Ok(None)` when there is none. `Contact: *` gives one that [`NameAddr::is_wildcard`].
    pub fn contact(&self) -> Result<Option<NameAddr<'_>>, Box<ParseError>> {
        self.contacts().next().transpose()
    }

    /// Every Contact, in order.
    pub fn contacts(&self) -> impl Iterator<Item = Result<NameAddr<'_>, Box<ParseError>>> {
        self.addresses(HeaderName::Contact)
    }

    /// Every address of a list header (Contact, Route, Record-Route), in order.
    pub fn addresses(&self, name: HeaderName) -> impl Iterator<Item = Result<NameAddr<'_>, Box<ParseError>>> {
        self.header_values(name).map(move |value| NameAddr::parse(value).ok_or_else(|| self.unreadable(name, value)))
    }

    pub fn call_id(&self) -> Result<&[u8], Box<ParseError>> {
        let legal = |value: &&[u8]| !value.is_empty() && !value.iter().any(u8::is_ascii_whitespace);
        self.header(HeaderName::CallId).filter(legal).ok_or_else(|| self.faulty(HeaderName::CallId))
    }

    pub fn cseq(&self) -> Result<CSeq, Box<ParseError>> {
        self.header(HeaderName::CSeq).and_then(CSeq::parse).ok_or_else(|| self.faulty(HeaderName::CSeq))
    }

    /// `Ok(None)` when there is none.
    pub fn max_forwards(&self) -> Result<Option<u8>, Box<ParseError>> {
        self.header(HeaderName::MaxForwards)
            .map(|value| {
                let read = number(value).and_then(|hops| u8::try_from(hops).ok());
                read.ok_or_else(|| self.unreadable(HeaderName::MaxForwards, value))
            })
            .transpose()
    }

    /// Byte for byte as it came.
    pub fn body(&self) -> &[u8] {
        self.body.of(&self.bytes)
    }

    /// The body as a piece of the message's own buffer: no copy.
    pub fn body_bytes(&self) -> Bytes {
        self.bytes.slice_ref(self.body())
    }

    /// Checks what a UA needs before anything else (RFC 3261 §8.1.1, §8.2, RFC 4475): the mandatory headers once each and
    /// readable, CSeq's method equal to the request's, a readable request URI.
    ///
    /// # Errors
    /// 400 for requests, silence for responses and ACK. Max-Forwards may be missing, as from RFC 2543.
    pub fn validate(&self) -> Result<(), Box<ParseError>> {
        if let Some(twice) = self.repeated() {
            return Err(self.error(400, format!("more than one {twice}")));
        }
        let mut vias = 0;
        for value in self.elements(HeaderName::Via) {
            vias += 1;
            if vias > MAX_VIA {
                return Err(self.error(400, format!("more than {MAX_VIA} Via values")));
            }
            if !Via::parse(value).is_some_and(|via| via.params.is_well_formed()) {
                return Err(self.unreadable(HeaderName::Via, value));
            }
        }
        self.top_via()?;
        for name in [HeaderName::From, HeaderName::To] {
            let address = self.address(name)?;
            address.uri_ref().map_err(|error| self.error(400, format!("{}: {error}", name.as_str())))?;
        }
        self.call_id()?;
        let cseq = self.cseq()?;
        self.max_forwards()?;
        if self.is_request() {
            UriRef::parse(self.request_uri_raw()).map_err(|error| self.error(400, format!("request URI: {error}")))?;
            if cseq.method != self.method {
                return Err(self.error(400, format!("CSeq {cseq} in a request of method {}", self.method)));
            }
            if let Some(Err(error)) = self.contact().transpose() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// The first header that may stand only once but does not (RFC 3261 §7.3.1).
    fn repeated(&self) -> Option<&'static str> {
        let mut seen = 0u64;
        for field in self.fields.iter().filter(|field| field.id.is_single()) {
            let bit = 1 << (field.id as u8);
            if seen & bit != 0 {
                return Some(field.id.as_str());
            }
            seen |= bit;
        }
        None
    }

    fn faulty(&self, name: HeaderName) -> Box<ParseError> {
        match self.header(name) {
            Some(value) => self.unreadable(name, value),
            None => self.error(400, format!("no {}", name.as_str())),
        }
    }

    fn unreadable(&self, name: HeaderName, value: &[u8]) -> Box<ParseError> {
        let at = offset_in(value, &self.bytes);
        self.error(400, format!("{} \"{}\" at byte {at} cannot be read", name.as_str(), shown(value)))
    }

    /// An error that answers with `code`, where this message may be answered at all.
    pub(super) fn error(&self, code: u16, what: impl Into<String>) -> Box<ParseError> {
        let answered = self.is_request() && self.method != Method::Ack && self.via().is_some();
        Box::new(ParseError {
            what: what.into(),
            answer: answered.then_some(code),
            partial: Some(Box::new(self.clone())),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::*;

    const GOOD: &str = "OPTIONS sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
                        From: <sip:a@example.org>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: 1@x\r\nCSeq: 1 OPTIONS\r\n";

    fn parse(text: &str) -> Result<Message, Box<ParseError>> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn good(headers: &str, body: &str) -> Message {
        parse(&format!("{GOOD}{headers}\r\n{body}")).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_is_not_sip_gets_no_answer() {
        for text in [
            "",
            "\r\n\r\n",
            "\0\0\0",
            "hello\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "INVITE sip:bob@example.com\r\n\r\n",
            "SIP/2.0 200 OK", // a response is never answered
            "SIP/2.0 99 OK\r\n\r\n",
            "SIP/2.0 700 OK\r\n\r\n",
            "SIP/3.0 200 OK\r\n\r\n",
            "OPTIONS sip:x SIP/2.0\r\n\r", // no Via to answer to
        ] {
            assert_eq!(parse(text).expect_err(text).answer, None, "{text:?}");
        }
        let ack = GOOD.replace("OPTIONS", "ACK") + "Content-Length: -1\r\n\r\n";
        assert_eq!(parse(&ack).expect_err("a bad length").answer, None);
    }

    #[test]
    fn broken_requests_get_400_and_what_could_be_read() {
        for (broken, what) in [
            (format!("{GOOD}\rX: 1\r\n\r\n"), "no header at byte"),
            (format!("{GOOD}Subject: a\rb\r\n\r\n"), "a CR that does not end a line"),
            (format!("{GOOD}no colon here\r\n\r\n"), "no header at byte"),
            (format!("{GOOD}: nameless\r\n\r\n"), "no header at byte"),
            (format!("{GOOD}a b: c\r\n\r\n"), "no header at byte"),
            (GOOD.to_string(), "no blank line"),
            (format!("{GOOD}Content-Length: 5\r\n\r\n1234"), "Content-Length 5 is more than the 4 bytes"),
            (format!("{GOOD}Content-Length: 18446744073709551615\r\n\r\n"), "is not a number we can use"),
            (format!("{GOOD}Content-Length: 18446744073709551617\r\n\r\n"), "is not a number we can use"),
            (format!("{GOOD}Content-Length: 4, 4\r\n\r\n1234"), "is not a number we can use"),
            (format!("{GOOD}l: 4\r\nContent-Length: 5\r\n\r\n12345"), "is not a number we can use"),
            (GOOD.replace("sip:bob@example.com SIP", "sip:bob @example.com SIP") + "\r\n", "not a request URI"),
            (GOOD.replace("OPTIONS sip", "OPT\"IONS sip") + "\r\n", "not a method"),
            (GOOD.replace("SIP/2.0\r\nVia", "SIP/2.0x\r\nVia") + "\r\n", "version"),
        ] {
            let error = parse(&broken).expect_err(&broken);
            assert_eq!(error.answer, Some(400), "{error}");
            assert!(error.what.contains(what), "{error}");
            assert_eq!(error.partial.unwrap().call_id().unwrap(), b"1@x");
        }
        let newer = GOOD.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia") + "\r\n";
        assert_eq!(parse(&newer).expect_err("SIP/7.0").answer, Some(505));
    }

    #[test]
    fn limits_are_answered_with_513() {
        let many = format!("{GOOD}{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        assert_eq!(parse(&many).expect_err("too many headers").answer, Some(513));
        assert_eq!(good(&"X: y\r\n".repeat(MAX_HEADERS - 5), "").headers().count(), MAX_HEADERS);
        let long = format!("{GOOD}X: {}\r\n\r\n", "y".repeat(MAX_HEAD));
        assert_eq!(parse(&long).expect_err("too long a head").answer, Some(513));
        let vias = "Via: SIP/2.0/UDP h, SIP/2.0/UDP h, SIP/2.0/UDP h\r\n".repeat(24);
        let message = good(&vias, "");
        assert_eq!(message.header_values(HeaderName::Via).count(), MAX_VIA);
        assert_eq!(message.validate().expect_err("73 Via").answer, Some(400));
        let contacts = good(&format!("Contact: <sip:a@b>{}\r\n", ",<sip:a@b>".repeat(100)), "");
        assert_eq!(contacts.contacts().count(), MAX_LIST);
        let body = "x".repeat(MAX_BODY + 1);
        assert_eq!(parse(&format!("{GOOD}\r\n{body}")).expect_err("too long a body").answer, Some(413));
    }

    #[test]
    fn bodies_are_cut_at_content_length_and_kept_byte_for_byte() {
        assert_eq!(good("Content-Length: 3\r\n", "12345").body(), b"123");
        assert_eq!(good("", "12345").body(), b"12345");
        assert_eq!(good("Content-Length: 0\r\n", "12345").body(), b"");
        assert_eq!(good("Content-Length: 3\r\nl: 3\r\n", "12345").body(), b"123");
        let mut bytes = format!("{GOOD}Subject: a\r\n b\r\n\r\n").into_bytes();
        let body: Vec<u8> = (0..=255).chain(*b"\r\n \r\n\t").collect();
        bytes.extend_from_slice(&body);
        let message = Message::parse(bytes.into()).unwrap();
        assert_eq!(message.body(), body);
        assert_eq!(message.body_bytes(), body);
        assert_eq!(message.header(HeaderName::Subject), Some(&b"a   b"[..]));
    }

    #[test]
    fn headers_by_any_name() {
        let message = good("u: presence\r\nX-Thing: 1\r\nx-thing : 2\r\nk:a,b\r\nSupported: c\r\n", "");
        assert_eq!(message.header_named("allow-events"), Some(&b"presence"[..]));
        assert_eq!(message.lines_named("X-THING").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(message.header_named("i"), Some(&b"1@x"[..]));
        assert_eq!(message.header_named("X-Other"), None);
        assert_eq!(message.header_values(HeaderName::Supported).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert!(message.lists(HeaderName::Supported, "C") && !message.lists(HeaderName::Supported, "d"));
        assert_eq!(message.headers().next(), Some((&b"Via"[..], &b"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1"[..])));
    }

    #[test]
    fn octets_outside_utf8_hide_nothing() {
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes.extend_from_slice(b"Subject: caf\xe9 \xff\x00\r\nExpires: 60\r\n\r\n");
        let message = Message::parse(bytes.into()).unwrap();
        assert_eq!(message.header(HeaderName::Subject), Some(&b"caf\xe9 \xff\x00"[..]));
        assert_eq!(message.number(HeaderName::Expires), Ok(Some(60)));
        assert_eq!(message.validate(), Ok(()));
    }

    #[test]
    fn lines_may_end_in_lf_and_line_ends_may_lead() {
        let message = parse(&format!("\r\n\n\r\n{}\n12", GOOD.replace("\r\n", "\n"))).unwrap();
        assert_eq!((message.validate(), message.body()), (Ok(()), &b"12"[..]));
        assert_eq!(message.request_uri_raw(), b"sip:bob@example.com");
    }

    #[test]
    fn validate_names_the_fault() {
        assert_eq!(good("", "").validate(), Ok(()));
        let swap = |from: &str, to: &str| parse(&(GOOD.replace(from, to) + "\r\n")).unwrap().validate();
        for (from, to, what) in [
            ("Call-ID: 1@x\r\n", "", "no Call-ID"),
            ("1@x", "a b", "Call-ID \"a b\" at byte"),
            ("1 OPTIONS\r\n", "1 INVITE\r\n", "CSeq 1 INVITE in a request of method OPTIONS"),
            ("CSeq: 1", "CSeq: x7", "CSeq \"x7 OPTIONS\" at byte"),
            ("<sip:a@example.org>", "<sip:a@exam ple.org>", "From: a character that must be escaped at byte 10"),
            ("To: <sip:bob@example.com>", "To: \"<sip:bob@example.com>", "To \"\\\"<sip:bob@example.com>\" at byte"),
            ("To:", "f:", "more than one From"),
            ("CSeq:", "Max-Forwards: 256\r\nCSeq:", "Max-Forwards \"256\""),
            ("CSeq:", "Max-Forwards: 6\r\nmax-forwards: 6\r\nCSeq:", "more than one Max-Forwards"),
            ("CSeq:", "Contact: <sip:a@b\r\nCSeq:", "Contact \"<sip:a@b\""),
            ("branch=z9hG4bK1", ";;", "Via \""),
            ("OPTIONS sip:bob@example.com", "OPTIONS <sip:bob@example.com>", "request URI: "),
        ] {
            let error = swap(from, to).expect_err(to);
            assert!(error.what.starts_with(what), "{error}");
            assert_eq!(error.answer, Some(400), "{error}");
        }
        let no_via = swap("Via:", "X:").expect_err("no Via");
        assert_eq!((no_via.what.as_str(), no_via.answer), ("no Via", None));
        assert_eq!(swap("sip:bob@example.com SIP", "unknown:thing SIP"), Ok(()), "416 is for the UA");
    }

    #[test]
    fn responses() {
        let text = GOOD.replace("OPTIONS sip:bob@example.com SIP/2.0", "SIP/2.0 183 Session Progress, early") + "\r\n";
        let message = parse(&text).unwrap();
        assert_eq!((message.status(), &*message.reason()), (Some(183), "Session Progress, early"));
        assert_eq!((message.is_request(), message.method()), (false, &Method::Options));
        assert_eq!((message.request_uri_raw(), message.validate()), (&b""[..], Ok(())));
        assert_eq!(parse("sip/2.0 200\r\n\r\n").unwrap().status(), Some(200));
        assert_eq!(parse("SIP/2.0 200 \r\n\r\n").unwrap().reason(), "");
    }

    #[test]
    fn debug_shows_no_values() {
        let message = good("Authorization: Digest username=\"a\", response=\"secret\"\r\n", "body");
        assert_eq!(format!("{message:?}"), "Message(OPTIONS, 6 headers, 4 bytes of body)");
    }
}
