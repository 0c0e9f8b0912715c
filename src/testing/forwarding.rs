//! The copies of requests and responses that a proxy sends on (RFC 3261 §16.6, §16.7): every header and the body as they
//! came, but for what a proxy has to change.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::sip::build::Builder;
use crate::sip::digest::answer::Answer;
use crate::sip::headers::List;
use crate::sip::message::{HeaderName, Message};

/// What a forwarded request says otherwise than the one that came.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The request URI.
    pub uri: String,
    /// Our Via.
    pub via: String,
    pub max_forwards: u8,
    /// Record-Route values of ours, topmost first.
    pub record_routes: Vec<String>,
    /// Route, whole.
    pub routes: Vec<String>,
    /// Path values of ours.
    pub paths: Vec<String>,
    /// Realms whose credentials were for us and go no further.
    pub consumed: Vec<String>,
}

/// The request as it goes on; it came from `source`.
pub(super) fn request(came: &Message, source: SocketAddr, changes: &Changes) -> Bytes {
    let mut copy = Builder::request(came.method(), &changes.uri).header("Via", &changes.via);
    for (i, line) in came.header_lines(HeaderName::Via).enumerate() {
        copy = if i == 0 { copy.top_via(line, source) } else { copy.header_bytes("Via", line) };
    }
    copy = copy.header("Max-Forwards", changes.max_forwards);
    for path in &changes.paths {
        copy = copy.header("Path", path);
    }
    for route in &changes.record_routes {
        copy = copy.header("Record-Route", route);
    }
    for route in &changes.routes {
        copy = copy.header("Route", route);
    }
    for (name, value) in came.headers() {
        let keep = match HeaderName::of(name) {
            HeaderName::Via
            | HeaderName::MaxForwards
            | HeaderName::Route
            | HeaderName::ContentLength
            | HeaderName::ContentType => false,
            HeaderName::Authorization | HeaderName::ProxyAuthorization => {
                !Answer::parse(value).is_ok_and(|answer| changes.consumed.contains(&answer.realm))
            }
            _ => true,
        };
        if keep {
            copy = copy.header_bytes(&String::from_utf8_lossy(name), value);
        }
    }
    finish(copy, came)
}

/// The response as it goes back: without the Via that was ours.
pub(super) fn response(came: &Message) -> Bytes {
    let mut copy = Builder::status(came.status().unwrap_or_default(), &came.reason());
    let mut ours = true;
    for (name, value) in came.headers() {
        match HeaderName::of(name) {
            HeaderName::Via if ours => {
                ours = false;
                let rest: Vec<_> = List::new(value).skip(1).map(String::from_utf8_lossy).collect();
                if !rest.is_empty() {
                    copy = copy.header("Via", rest.join(", "));
                }
            }
            HeaderName::ContentLength | HeaderName::ContentType => {}
            _ => copy = copy.header_bytes(&String::from_utf8_lossy(name), value),
        }
    }
    finish(copy, came)
}

fn finish(copy: Builder, came: &Message) -> Bytes {
    match came.header(HeaderName::ContentType) {
        Some(kind) => copy.finish(Some((&String::from_utf8_lossy(kind), came.body()))),
        None if came.body().is_empty() => copy.finish(None),
        None => copy.finish(Some(("application/octet-stream", came.body()))),
    }
}

/// The same response with headers more.
pub(super) fn with_headers(response: &Message, headers: &[(&'static str, String)]) -> Bytes {
    let mut copy = Builder::status(response.status().unwrap_or_default(), &response.reason());
    for (name, value) in response.headers() {
        if !matches!(HeaderName::of(name), HeaderName::ContentLength | HeaderName::ContentType) {
            copy = copy.header_bytes(&String::from_utf8_lossy(name), value);
        }
    }
    for (name, value) in headers {
        copy = copy.header(name, value);
    }
    finish(copy, response)
}

/// A 2xx as another phone would have sent it.
pub(super) fn from_another_phone(response: &Message, tag: &str, contact: &str) -> Option<Bytes> {
    let mut copy = Builder::status(response.status()?, &response.reason());
    for (name, value) in response.headers() {
        copy = match HeaderName::of(name) {
            HeaderName::To => {
                let old = response.to().ok()?.tag()?;
                let text = String::from_utf8_lossy(value);
                copy.header("To", text.replace(&*String::from_utf8_lossy(old), tag))
            }
            HeaderName::Contact => copy.header("Contact", contact),
            HeaderName::ContentLength | HeaderName::ContentType => copy,
            _ => copy.header_bytes(&String::from_utf8_lossy(name), value),
        };
    }
    Some(finish(copy, response))
}
