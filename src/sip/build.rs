//! Requests and responses as bytes, in the order a reader of a trace expects.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use bytes::Bytes;

use super::headers::{List, Via};
use super::message::{HeaderName, Message, Method};
use super::text::{cut, is_token_byte};
use super::uri::Host;

/// Room for an ordinary message without its body, so that it is written in one allocation.
const USUAL_SIZE: usize = 1024;

/// Writes one message: headers stand in the order they are given; `finish` adds Content-Length and the body.
///
/// Values never break a line: CR and LF in them become spaces, as do the characters of a name that no token may hold.
#[derive(Debug)]
pub struct Builder {
    buffer: Vec<u8>,
}

impl Builder {
    /// Starts `METHOD uri SIP/2.0`.
    pub fn request(method: &Method, uri: impl fmt::Display) -> Self {
        let mut builder = Self { buffer: Vec::with_capacity(USUAL_SIZE) };
        builder.push_name(method.as_str());
        builder.buffer.push(b' ');
        builder.push_display(&uri, b"%20"); // a space would end the URI
        builder.buffer.extend_from_slice(b" SIP/2.0\r\n");
        builder
    }

    /// Starts `SIP/2.0 code reason`, then copies Via (all), From, To, Call-ID, CSeq and, for 1xx and 2xx that make a dialog,
    /// Record-Route from the request (RFC 3261 §8.2.6.2, §12.1.1). `to_tag` is added to To when it has none.
    /// `received`/`rport` of the top Via are filled in from `source` (RFC 3261 §18.2.1, RFC 3581 §4).
    ///
    /// An empty `reason` stands for [`reason_phrase`] of the code. A 100 also carries the request's Timestamp.
    pub fn response(request: &Message, code: u16, reason: &str, to_tag: Option<&str>, source: SocketAddr) -> Self {
        let capacity = USUAL_SIZE.max(request.as_bytes().len() - request.body().len() + 128);
        let mut builder = Self { buffer: Vec::with_capacity(capacity) };
        let reason = if reason.is_empty() { reason_phrase(code) } else { reason };
        builder.push_display(&format_args!("SIP/2.0 {code} {reason}"), b" ");
        builder.buffer.extend_from_slice(b"\r\n");
        for (i, line) in request.header_lines(HeaderName::Via).enumerate() {
            builder.buffer.extend_from_slice(b"Via: ");
            match i {
                0 => builder.push_top_via(line, source),
                _ => builder.push_value(line),
            }
            builder.buffer.extend_from_slice(b"\r\n");
        }
        if (101..300).contains(&code) && request.method().makes_dialog() {
            builder = builder.copied(request, HeaderName::RecordRoute);
        }
        builder = builder.copied(request, HeaderName::From);
        for to in request.header_lines(HeaderName::To).take(1) {
            builder.buffer.extend_from_slice(b"To: ");
            builder.push_value(to);
            let tagged = request.to().is_ok_and(|to| to.tag().is_some());
            if let Some(tag) = to_tag.filter(|_| !tagged) {
                builder.buffer.extend_from_slice(b";tag=");
                builder.push_name(tag);
            }
            builder.buffer.extend_from_slice(b"\r\n");
        }
        builder = builder.copied(request, HeaderName::CallId).copied(request, HeaderName::CSeq);
        match request.header_named("Timestamp").filter(|_| code == 100) {
            Some(timestamp) => builder.header_bytes("Timestamp", timestamp), // RFC 3261 §8.2.6.1
            None => builder,
        }
    }

    pub fn header(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.push_name(name);
        self.buffer.extend_from_slice(b": ");
        self.push_display(&value, b" ");
        self.buffer.extend_from_slice(b"\r\n");
        self
    }

    /// For values that are bytes as they came from the wire.
    pub fn header_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.push_name(name);
        self.buffer.extend_from_slice(b": ");
        self.push_value(value);
        self.buffer.extend_from_slice(b"\r\n");
        self
    }

    /// Every line of this header of `from`, under its long name. Headers that stand once are copied once.
    pub fn copied(mut self, from: &Message, name: HeaderName) -> Self {
        let lines = if name.is_single() { 1 } else { usize::MAX };
        for line in from.header_lines(name).take(lines) {
            self = self.header_bytes(name.as_str(), line);
        }
        self
    }

    /// Ends with Content-Type (when there is a body) and Content-Length.
    pub fn finish(mut self, body: Option<(&str, &[u8])>) -> Bytes {
        if let Some((content_type, _)) = body {
            self = self.header("Content-Type", content_type);
        }
        let body = body.map_or(&b""[..], |(_, body)| body);
        self.push_display(&format_args!("Content-Length: {}", body.len()), b" ");
        self.buffer.extend_from_slice(b"\r\n\r\n");
        self.buffer.extend_from_slice(body);
        Bytes::from(self.buffer)
    }

    /// The first line of Via with what we saw of its sender; what the sender claims about that is left out.
    fn push_top_via(&mut self, line: &[u8], source: SocketAddr) {
        let Some((top, via)) = List::new(line).next().and_then(|top| Some((top, Via::parse(top)?))) else {
            return self.push_value(line);
        };
        let ip = source.ip().to_canonical();
        let sent_by = Host::parse(via.host).and_then(|host| host.ip()).map(|ip| ip.to_canonical());
        let rport = via.rport().is_some();
        let protocol = cut(top, top.len() - via.params.raw.len()).0;
        self.push_value(protocol.trim_ascii_end());
        for (name, value) in via.params.iter() {
            if name.eq_ignore_ascii_case(b"received") || name.eq_ignore_ascii_case(b"rport") {
                continue;
            }
            self.buffer.push(b';');
            self.push_value(name);
            if let Some(value) = value {
                self.buffer.push(b'=');
                self.push_value(value);
            }
        }
        if rport {
            self.push_display(&format_args!(";rport={}", source.port()), b" ");
        }
        if rport || sent_by != Some(ip) {
            self.push_display(&format_args!(";received={ip}"), b" ");
        }
        // The elements after the first one of this line stay as they are.
        let end = top.as_ptr() as usize + top.len() - line.as_ptr() as usize; // `top` is a piece of `line`
        self.push_value(cut(line, end).1);
    }

    fn push_name(&mut self, name: &str) {
        self.buffer.extend(name.bytes().map(|byte| if is_token_byte(byte) { byte } else { b'-' }));
    }

    fn push_value(&mut self, value: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(value);
        let written = self.buffer.get_mut(start..).unwrap_or_default();
        if memchr::memchr2(b'\r', b'\n', written).is_some() {
            written.iter_mut().filter(|b| matches!(b, b'\r' | b'\n')).for_each(|b| *b = b' ');
        }
    }

    fn push_display(&mut self, value: &impl fmt::Display, for_space: &'static [u8]) {
        let mut line = OneLine { buffer: &mut self.buffer, for_space };
        let _ = write!(line, "{value}"); // writing to a buffer cannot fail
    }
}

/// Takes formatted text and keeps it on one line.
struct OneLine<'a> {
    buffer: &'a mut Vec<u8>,
    for_space: &'static [u8],
}

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.for_space == b" " && memchr::memchr2(b'\r', b'\n', text.as_bytes()).is_none() {
            self.buffer.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        for byte in text.bytes() {
            match byte {
                b'\r' | b'\n' | b' ' => self.buffer.extend_from_slice(self.for_space),
                _ => self.buffer.push(byte),
            }
        }
        Ok(())
    }
}

/// The ACK of a final response other than 2xx, which belongs to the INVITE's own transaction: its Request-URI, its top Via
/// alone, its Route, and the To of the response (RFC 3261 §17.1.1.3).
pub fn ack_for_failure(invite: &Message, response: &Message) -> Bytes {
    within_transaction(invite, &Method::Ack, response).finish(None)
}

/// The CANCEL of a pending INVITE (RFC 3261 §9.1). `extra` headers, such as Reason, come before Content-Length.
pub fn cancel_for(invite: &Message, extra: &[(&str, &str)]) -> Bytes {
    let builder = within_transaction(invite, &Method::Cancel, invite);
    extra.iter().fold(builder, |builder, (name, value)| builder.header(name, value)).finish(None)
}

fn within_transaction(invite: &Message, method: &Method, to_from: &Message) -> Builder {
    let uri = String::from_utf8_lossy(invite.request_uri_raw());
    let mut builder = Builder::request(method, uri);
    if let Some(via) = invite.header_values(HeaderName::Via).next() {
        builder = builder.header_bytes("Via", via);
    }
    builder = builder.header("Max-Forwards", 70);
    builder = builder.copied(invite, HeaderName::Route).copied(invite, HeaderName::From);
    builder = builder.copied(to_from, HeaderName::To).copied(invite, HeaderName::CallId);
    match invite.cseq() {
        Ok(cseq) => builder.header("CSeq", format_args!("{} {method}", cseq.number)),
        Err(_) => builder,
    }
}

/// The default reason phrase of a status code (RFC 3261 §21 and the IANA registry); "Unknown" for codes without one.
pub fn reason_phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        417 => "Unknown Resource-Priority",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        424 => "Bad Location Information",
        425 => "Bad Alert Message",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity-Info",
        437 => "Unsupported Certificate",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        555 => "Push Notification Service Not Supported",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        _ => "Unknown",
    }
}
