//! Requests and responses as bytes, in the order a reader of a trace expects.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use bytes::Bytes;

use super::headers::{List, Via};
use super::message::{HeaderName, Message, Method};
use super::text::{cut, is_token_byte, offset_in};
use super::uri::{Host, Uri};

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

    /// Starts `SIP/2.0 code reason` and nothing more: for a response that is copied header by header.
    pub fn status(code: u16, reason: &str) -> Self {
        let mut builder = Self { buffer: Vec::with_capacity(USUAL_SIZE) };
        let reason = if reason.is_empty() { reason_phrase(code) } else { reason };
        builder.push_display(&format_args!("SIP/2.0 {code} {reason}"), b" ");
        builder.buffer.extend_from_slice(b"\r\n");
        builder
    }

    /// The first Via line of a request that came from `source`, with `received` and `rport` filled in (RFC 3261 §18.2.1,
    /// RFC 3581 §4).
    pub fn top_via(mut self, line: &[u8], source: SocketAddr) -> Self {
        self.buffer.extend_from_slice(b"Via: ");
        self.push_top_via(line, source);
        self.buffer.extend_from_slice(b"\r\n");
        self
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
        let end = offset_in(top, line) + top.len();
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

/// A request of ours as it goes over TCP instead of UDP (RFC 3261 §18.1.1): the top Via names that transport and our address
/// there, and so does Contact where it named the other one. A binding stays what it is: REGISTER keeps its Contact.
/// `None` when its Via does not begin with `udp`.
pub fn moved_to_tcp(request: &Message, udp: SocketAddr, tcp: SocketAddr) -> Option<Bytes> {
    let whole = request.as_bytes();
    let via = request.header_lines(HeaderName::Via).next()?;
    let old_via = format!("SIP/2.0/UDP {udp};");
    via.starts_with(old_via.as_bytes()).then_some(())?;
    let mut edits = vec![(offset_in(via, whole), old_via.len(), format!("SIP/2.0/TCP {tcp};"))];
    if *request.method() != Method::Register
        && let Some(line) = request.header_lines(HeaderName::Contact).next()
        && let Ok(Some(contact)) = request.contact()
        && let Ok(uri) = contact.uri()
        && !uri.is_secure()
        && uri.host == Some(Host::Ip(udp.ip()))
        && uri.port == Some(udp.port())
        && uri.parameter("transport").is_none()
    {
        let old = uri.to_string();
        let moved = Uri { host: Some(tcp.ip().into()), port: Some(tcp.port()), ..uri };
        let new = moved.with_parameter("transport", Some("tcp")).to_string();
        if let Some(at) = memchr::memmem::find(line, old.as_bytes()) {
            edits.push((offset_in(line, whole) + at, old.len(), new));
        }
    }
    edits.sort_unstable_by_key(|(at, ..)| *at);
    let mut moved = Vec::with_capacity(whole.len() + 64);
    let mut done = 0;
    for (at, size, new) in edits {
        moved.extend_from_slice(whole.get(done..at)?);
        moved.extend_from_slice(new.as_bytes());
        done = at + size;
    }
    moved.extend_from_slice(whole.get(done..)?);
    Some(moved.into())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::*;

    fn parse(bytes: Bytes) -> Message {
        let message = Message::parse(bytes).unwrap();
        assert_eq!(message.validate(), Ok(()));
        message
    }

    fn invite(via: &str) -> Message {
        let text = format!(
            "INVITE sip:bob@example.com;x SIP/2.0\r\n{via}Max-Forwards: 68\r\nRoute: <sip:p1;lr>\r\nRoute: <sip:p2;lr>\r\n\
             Record-Route: <sip:r1;lr>, <sip:r2;lr>\r\nf: \"A\" <sip:a@example.org>;tag=1\r\nTo: <sip:bob@example.com>\r\n\
             i: 1@x\r\nCSeq: 7 INVITE\r\nTimestamp: 54\r\nContact: <sip:a@192.0.2.1>\r\nContent-Length: 0\r\n\r\n"
        );
        parse(text.into())
    }

    fn source() -> SocketAddr {
        "192.0.2.1:5070".parse().unwrap()
    }

    const VIA: &str = "v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP h2, SIP/2.0/UDP h3\r\n";

    #[test]
    fn a_request_is_written_in_order() {
        let bytes = Builder::request(&Method::Message, "sip:bob@example.com")
            .header("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
            .header("Max-Forwards", 70)
            .header_bytes("Subject", b"caf\xe9")
            .finish(Some(("text/plain", b"hi\r\n")));
        assert_eq!(
            bytes,
            &b"MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
               Subject: caf\xe9\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nhi\r\n"[..]
        );
    }

    #[test]
    fn nothing_given_can_start_a_line_of_its_own() {
        let bytes = Builder::request(&Method::Other("A\r\nB".into()), "sip:x\r\nEvil: 1 SIP/2.0")
            .header("X\r\nEvil: 1", "a\r\nEvil: 1")
            .header_bytes("Y", b"b\nEvil: 1")
            .finish(Some(("text/plain\r\nEvil: 1", b"")));
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("Evil")).count(), 0, "{text}");
        let message = Message::parse(bytes).unwrap();
        assert_eq!(message.headers().count(), 4);
        assert_eq!(message.header_named("Y"), Some(&b"b Evil: 1"[..]));
    }

    #[test]
    fn a_response_copies_what_the_rfc_says() {
        let ringing = Builder::response(&invite(VIA), 180, "", Some("b7"), source()).finish(None);
        assert_eq!(
            String::from_utf8(ringing.to_vec()).unwrap(),
            "SIP/2.0 180 Ringing\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n\
             Via: SIP/2.0/UDP h2, SIP/2.0/UDP h3\r\nRecord-Route: <sip:r1;lr>, <sip:r2;lr>\r\n\
             From: \"A\" <sip:a@example.org>;tag=1\r\nTo: <sip:bob@example.com>;tag=b7\r\nCall-ID: 1@x\r\n\
             CSeq: 7 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        let text = |code, reason: &str, tag| {
            String::from_utf8(Builder::response(&invite(VIA), code, reason, tag, source()).finish(None).to_vec())
                .unwrap()
        };
        let trying = text(100, "", None);
        assert!(
            trying.contains("\r\nTimestamp: 54\r\n") && trying.contains("To: <sip:bob@example.com>\r\n"),
            "{trying}"
        );
        let busy = text(486, "In a meeting\r\nX: y", Some("t\r\n"));
        assert!(busy.starts_with("SIP/2.0 486 In a meeting  X: y\r\n"), "{busy}");
        assert!(
            !busy.contains("Record-Route") && !busy.contains("Timestamp") && busy.contains(";tag=t--\r\n"),
            "{busy}"
        );
    }

    #[test]
    fn the_top_via_says_where_the_request_really_came_from() {
        let via = |line: &str, source: &str| {
            let request = invite(&format!("Via: {line}\r\n"));
            let bytes = Builder::response(&request, 200, "OK", Some("t"), source.parse().unwrap()).finish(None);
            let response = parse(bytes);
            String::from_utf8(response.header(HeaderName::Via).unwrap().to_vec()).unwrap()
        };
        let table = [
            ("SIP/2.0/UDP 192.0.2.1;branch=z", "192.0.2.1:5060", "SIP/2.0/UDP 192.0.2.1;branch=z"),
            ("SIP/2.0/UDP 192.0.2.1;branch=z", "192.0.2.9:9", "SIP/2.0/UDP 192.0.2.1;branch=z;received=192.0.2.9"),
            ("SIP/2.0/UDP h.invalid;branch=z", "192.0.2.9:9", "SIP/2.0/UDP h.invalid;branch=z;received=192.0.2.9"),
            (
                "SIP/2.0/UDP 192.0.2.1;rport;branch=z",
                "192.0.2.1:9",
                "SIP/2.0/UDP 192.0.2.1;branch=z;rport=9;received=192.0.2.1",
            ),
            (
                "SIP/2.0/UDP 192.0.2.1:5 ; RPort=1 ; received=203.0.113.1; x=\"a,b\" , SIP/2.0/TCP h2;rport",
                "192.0.2.1:9",
                "SIP/2.0/UDP 192.0.2.1:5;x=\"a,b\";rport=9;received=192.0.2.1 , SIP/2.0/TCP h2;rport",
            ),
            ("SIP/2.0/TCP [2001:db8::1]:5;branch=z", "[2001:db8::1]:9", "SIP/2.0/TCP [2001:db8::1]:5;branch=z"),
            (
                "SIP/2.0/TCP [2001:db8::1];branch=z",
                "[2001:db8::2]:9",
                "SIP/2.0/TCP [2001:db8::1];branch=z;received=2001:db8::2",
            ),
            ("SIP/2.0/UDP 192.0.2.1;branch=z", "[::ffff:192.0.2.1]:9", "SIP/2.0/UDP 192.0.2.1;branch=z"),
        ];
        for (line, source, expected) in table {
            assert_eq!(via(line, source), expected);
        }
    }

    #[test]
    fn even_the_worst_request_is_answered_from_what_it_has() {
        let bytes = &b"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.15;;,;,,\r\nCSeq: nonsense\r\nContent-Length: -1\r\n\r\n"[..];
        let error = Message::parse(bytes.into()).expect_err("a bad length");
        let answer = Builder::response(&error.partial.unwrap(), 400, "", Some("t"), source()).finish(None);
        assert_eq!(
            String::from_utf8(answer.to_vec()).unwrap(),
            "SIP/2.0 400 Bad Request\r\nVia: SIP/2.0/UDP 192.0.2.15;received=192.0.2.1,;,,\r\nCSeq: nonsense\r\n\
             Content-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn ack_and_cancel_share_the_invites_transaction() {
        let invite = invite(VIA);
        let response = parse(Builder::response(&invite, 486, "", Some("b7"), source()).finish(None));
        assert_eq!(
            String::from_utf8(ack_for_failure(&invite, &response).to_vec()).unwrap(),
            "ACK sip:bob@example.com;x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
             Route: <sip:p1;lr>\r\nRoute: <sip:p2;lr>\r\nFrom: \"A\" <sip:a@example.org>;tag=1\r\n\
             To: <sip:bob@example.com>;tag=b7\r\nCall-ID: 1@x\r\nCSeq: 7 ACK\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(
            String::from_utf8(cancel_for(&invite, &[("Reason", "SIP;cause=200")]).to_vec()).unwrap(),
            "CANCEL sip:bob@example.com;x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
             Route: <sip:p1;lr>\r\nRoute: <sip:p2;lr>\r\nFrom: \"A\" <sip:a@example.org>;tag=1\r\n\
             To: <sip:bob@example.com>\r\nCall-ID: 1@x\r\nCSeq: 7 CANCEL\r\nReason: SIP;cause=200\r\nContent-Length: 0\r\n\r\n"
        );
    }
}
