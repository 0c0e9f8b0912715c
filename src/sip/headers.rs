//! Typed header values, read on demand from a message's bytes. Nothing here copies; what allocates says so by its type.
//!
//! Values come out of [`Message`](super::message::Message) with folded lines already joined, so white space is SP and HT.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::net::IpAddr;

use super::message::Method;
use super::text::{cut, cut_once, find_outside, is_token, is_token_byte, number, quoted_end, unquoted};
use super::uri::{Host, Uri, UriError, UriRef, ipv6};

/// Elements of one comma list that are looked at; what follows is ignored. Real lists stay below twenty.
pub const MAX_LIST: usize = 64;

/// The elements of a comma list (RFC 3261 §7.3.1), trimmed; commas in quoted strings and `<…>` do not separate, empty
/// elements are skipped.
#[derive(Clone, Debug)]
pub struct List<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> List<'a> {
    pub fn new(value: &'a [u8]) -> Self {
        Self { rest: Some(value) }
    }
}

impl<'a> Iterator for List<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.rest.take()?;
            let element = match memchr::memchr(b',', rest).and_then(|_| find_outside(rest, b',', true)) {
                Some(at) => {
                    let (element, after) = cut(rest, at);
                    self.rest = Some(cut(after, 1).1);
                    element
                }
                None => rest,
            };
            let element = element.trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}

/// True when a token list (Require, Supported, Allow, …) holds `token`, in any case.
pub fn list_contains(value: &[u8], token: &str) -> bool {
    List::new(value).take(MAX_LIST).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// `;name=value` parameters after a header value, read in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    pub raw: &'a [u8],
}

impl<'a> Params<'a> {
    /// A parameter by name, in any case: `Some(b"")` when it has no value. Quotes stay.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value.unwrap_or_default())
    }

    /// The text of a parameter, its quotes and escapes removed.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(unquoted)
    }

    /// A number of seconds or the like; clamped to 2³²−1, `None` when absent or not a number.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.get(name).and_then(clamped)
    }

    /// Every parameter as (name, value), in order. Empty ones (`;;`) are skipped.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        self.pieces().filter(|piece| !piece.is_empty()).map(|piece| match cut_once(piece, b'=') {
            Some((name, value)) => (name.trim_ascii_end(), Some(value.trim_ascii_start())),
            None => (piece, None),
        })
    }

    /// False when a parameter is empty, has a name that is no token or a quote that never closes.
    pub fn is_well_formed(&self) -> bool {
        self.pieces().all(|piece| match cut_once(piece, b'=') {
            Some((name, value)) => {
                let value = value.trim_ascii_start();
                let quoted = value.first() == Some(&b'"');
                is_token(name.trim_ascii_end()) && (!quoted || quoted_end(value) == Some(value.len()))
            }
            None => is_token(piece),
        })
    }

    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.raw.trim_ascii().strip_prefix(b";");
        std::iter::from_fn(move || {
            let text = rest.take()?;
            // Parameters rarely hold quotes: the plain search decides unless one stands before the separator.
            let (piece, after) = match memchr::memchr2(b';', b'"', text) {
                None => (text, None),
                Some(at) if text.get(at) == Some(&b';') => cut_after(text, at),
                Some(_) => match find_outside(text, b';', false) {
                    Some(at) => cut_after(text, at),
                    None => (text, None),
                },
            };
            rest = after;
            Some(piece.trim_ascii())
        })
    }
}

/// What stands before the byte at `at`, and after it.
fn cut_after(text: &[u8], at: usize) -> (&[u8], Option<&[u8]>) {
    let (before, rest) = cut(text, at);
    (before, Some(cut(rest, 1).1))
}

/// One Via value (RFC 3261 §20.42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// "UDP", "TCP", … as written.
    pub transport: &'a [u8],
    /// As written, IPv6 in brackets.
    pub host: &'a [u8],
    pub port: Option<u16>,
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one element: `SIP / 2.0 / transport sent-by *(;params)`, white space where the RFC allows it.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (protocol, rest) = cut_once(value, b'/')?;
        let (version, rest) = cut_once(rest, b'/')?;
        if !protocol.trim_ascii().eq_ignore_ascii_case(b"SIP") || !is_token(version.trim_ascii()) {
            return None;
        }
        let rest = rest.trim_ascii_start();
        let (transport, rest) = cut(rest, rest.iter().position(|&b| !is_token_byte(b))?);
        if transport.is_empty() || !rest.first().is_some_and(u8::is_ascii_whitespace) {
            return None;
        }
        let (sent_by, params) = cut(rest, memchr::memchr(b';', rest).unwrap_or(rest.len()));
        let (host, port) = host_port(sent_by)?;
        Some(Self { transport, host, port, params: Params { raw: params } })
    }

    pub fn branch(&self) -> Option<&'a [u8]> {
        self.params.get("branch")
    }

    /// Where the response was seen to come from, with or without brackets (RFC 5118 §4.5).
    pub fn received(&self) -> Option<IpAddr> {
        address(self.params.get("received")?)
    }

    /// `Some(None)` when the client asks for it with a bare `;rport`, `Some(Some(port))` when it is filled in (RFC 3581).
    pub fn rport(&self) -> Option<Option<u16>> {
        let value = self.params.get("rport")?;
        Some(number(value).and_then(|port| u16::try_from(port).ok()))
    }

    pub fn ttl(&self) -> Option<u8> {
        self.params.get("ttl").and_then(number).and_then(|ttl| u8::try_from(ttl).ok())
    }

    pub fn maddr(&self) -> Option<Host> {
        Host::parse(self.params.get("maddr")?)
    }

    /// Host and port the sender put there; the port is `None` when it left the default.
    pub fn sent_by(&self) -> Option<(Host, Option<u16>)> {
        Some((Host::parse(self.host)?, self.port))
    }
}

/// `host [: port]` with white space around the colon; the host keeps its brackets.
fn host_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let text = text.trim_ascii();
    let host_end = match text.first()? {
        b'[' => memchr::memchr(b']', text)? + 1,
        _ => text.iter().position(|&b| b == b':' || b.is_ascii_whitespace()).unwrap_or(text.len()),
    };
    let (host, rest) = cut(text, host_end);
    let legal = match host.strip_prefix(b"[") {
        Some(inner) => inner.strip_suffix(b"]").and_then(ipv6).is_some(),
        None => !host.is_empty() && host.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    };
    let rest = rest.trim_ascii_start();
    let port = match rest.strip_prefix(b":") {
        Some(digits) => Some(number(digits.trim_ascii()).and_then(|port| u16::try_from(port).ok())?),
        None if rest.is_empty() => None,
        None => return None,
    };
    legal.then_some((host, port))
}

/// An address with or without the brackets of an IPv6 reference.
fn address(text: &[u8]) -> Option<IpAddr> {
    match Host::parse(text).and_then(|host| host.ip()) {
        Some(ip) => Some(ip),
        None => ipv6(text).map(IpAddr::V6),
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
    /// Reads one element. Without `<…>`, parameters after `;` belong to the header, not to the URI, and a URI with `?` is
    /// refused (RFC 3261 §20).
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (display_name_raw, rest) = match value.first()? {
            b'"' => {
                let (name, rest) = cut(value, quoted_end(value)?);
                let rest = rest.trim_ascii_start();
                rest.starts_with(b"<").then_some((name, rest))?
            }
            _ => match memchr::memchr2(b'<', b';', value) {
                Some(at) if value.get(at) == Some(&b'<') => {
                    let (name, rest) = cut(value, at);
                    (name.trim_ascii_end(), rest)
                }
                semicolon => {
                    let (uri, params) = cut(value, semicolon.unwrap_or(value.len()));
                    let uri_raw = uri.trim_ascii_end();
                    let legal = !uri_raw.is_empty() && memchr::memchr3(b'?', b'"', b'>', uri_raw).is_none();
                    return legal.then_some(Self { display_name_raw: b"", uri_raw, params: Params { raw: params } });
                }
            },
        };
        let inner = cut(rest, 1).1;
        let (uri, params) = cut(inner, memchr::memchr(b'>', inner)?);
        let (uri_raw, raw) = (uri.trim_ascii(), cut(params, 1).1.trim_ascii());
        let legal = !uri_raw.is_empty() && (raw.is_empty() || raw.starts_with(b";"));
        legal.then_some(Self { display_name_raw, uri_raw, params: Params { raw } })
    }

    /// True for `Contact: *` (RFC 3261 §10.2.2).
    pub fn is_wildcard(&self) -> bool {
        self.uri_raw == b"*"
    }

    pub fn uri(&self) -> Result<Uri, UriError> {
        Uri::parse(self.uri_raw)
    }

    /// The URI in place: no allocation, nothing decoded.
    pub fn uri_ref(&self) -> Result<UriRef<'a>, UriError> {
        UriRef::parse(self.uri_raw)
    }

    /// Unquoted and unescaped; `None` when empty.
    pub fn display_name(&self) -> Option<String> {
        Some(unquoted(self.display_name_raw)).filter(|name| !name.is_empty())
    }

    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.get("tag")
    }

    /// The `expires` parameter of a Contact, in seconds, clamped to 2³²−1.
    pub fn expires(&self) -> Option<u32> {
        self.params.number("expires")
    }

    /// The `q` parameter of a Contact in thousandths; 1000 when it is absent or unreadable.
    pub fn q(&self) -> u16 {
        let read = || {
            let (whole, fraction) = match cut_once(self.params.get("q")?, b'.') {
                Some((whole, fraction)) => (whole, fraction),
                None => (self.params.get("q")?, &b""[..]),
            };
            let digits = fraction.iter().chain(b"000").take(3);
            let mut thousandths = digits.map(|d| d.is_ascii_digit().then(|| u16::from(d - b'0')));
            let thousandths = thousandths.try_fold(0, |sum, digit| digit.map(|digit| sum * 10 + digit))?;
            u16::try_from(number(whole)?)
                .ok()
                .map(|whole| whole.saturating_mul(1000).saturating_add(thousandths).min(1000))
        };
        read().unwrap_or(1000)
    }
}

/// Every address of a list (Contact, Route, Record-Route, Path, P-Asserted-Identity, …), at most [`MAX_LIST`]; `None` when
/// one of them cannot be read.
pub fn parse_name_addr_list(value: &[u8]) -> Option<Vec<NameAddr<'_>>> {
    List::new(value).take(MAX_LIST).map(NameAddr::parse).collect()
}

/// CSeq (RFC 3261 §20.16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    pub number: u32,
    pub method: Method,
}

impl CSeq {
    /// Reads `number method`; `None` when the number is 2³¹ or more (RFC 3261 §8.1.1.5) or the method no token.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (digits, method) = cut(value, value.iter().position(u8::is_ascii_whitespace)?);
        let number = number(digits).and_then(|number| u32::try_from(number).ok()).filter(|&number| number < 1 << 31)?;
        Some(Self { number, method: Method::parse(method.trim_ascii_start())? })
    }
}

impl std::fmt::Display for CSeq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

/// A number of seconds (Expires, Min-Expires, Session-Expires' value, Min-SE) or RSeq: digits, clamped to 2³²−1 as RFC 4475 §3.1.2.4
/// allows; `None` for anything else.
pub fn clamped(value: &[u8]) -> Option<u32> {
    number(value.trim_ascii()).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// Value and parameters of headers like Session-Expires, Event, Subscription-State, Content-Disposition or Accept's
/// elements: `value *(;param)`.
pub fn value_and_params(value: &[u8]) -> (&[u8], Params<'_>) {
    let (head, params) = cut(value, find_outside(value, b';', false).unwrap_or(value.len()));
    (head.trim_ascii(), Params { raw: params })
}

/// RAck: the RSeq and CSeq a PRACK acknowledges (RFC 3262 §7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RAck {
    pub rseq: u32,
    pub cseq: CSeq,
}

impl RAck {
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (digits, rest) = cut(value, value.iter().position(u8::is_ascii_whitespace)?);
        let rseq = number(digits).and_then(|number| u32::try_from(number).ok()).filter(|&number| number > 0)?;
        Some(Self { rseq, cseq: CSeq::parse(rest)? })
    }
}

/// Retry-After (RFC 3261 §20.33).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    /// Clamped to 2³²−1.
    pub seconds: u32,
    /// How long the callee will be reachable from then on, in seconds.
    pub duration: Option<u32>,
    pub comment: Option<String>,
}

impl RetryAfter {
    /// Reads `seconds [(comment)] *(;params)`.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (digits, rest) = cut(value, value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len()));
        let rest = rest.trim_ascii_start();
        let (comment, rest) = match rest.strip_prefix(b"(") {
            Some(inner) => {
                let (comment, rest) = cut(inner, memchr::memrchr(b')', inner)?);
                (Some(String::from_utf8_lossy(comment).into_owned()), cut(rest, 1).1)
            }
            None => (None, rest),
        };
        Some(Self { seconds: clamped(digits)?, duration: Params { raw: rest }.number("duration"), comment })
    }
}

/// Content-Type, or one element of Accept (RFC 3261 §20.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentType<'a> {
    pub kind: &'a [u8],
    pub subtype: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> ContentType<'a> {
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (media, params) = value_and_params(value);
        let (kind, subtype) = cut_once(media, b'/')?;
        let (kind, subtype) = (kind.trim_ascii(), subtype.trim_ascii());
        (is_token(kind) && is_token(subtype)).then_some(Self { kind, subtype, params })
    }

    /// True for this type and subtype, in any case: `is("application/sdp")`.
    pub fn is(&self, media: &str) -> bool {
        cut_once(media.as_bytes(), b'/').is_some_and(|(kind, subtype)| {
            self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
        })
    }

    /// True when this element of an Accept header takes `media`, wildcards counted.
    pub fn accepts(&self, media: &str) -> bool {
        cut_once(media.as_bytes(), b'/').is_some_and(|(kind, subtype)| {
            (self.kind == b"*" || self.kind.eq_ignore_ascii_case(kind))
                && (self.subtype == b"*" || self.subtype.eq_ignore_ascii_case(subtype))
        })
    }
}

/// Replaces (RFC 3891 §6.1), or the `replaces` of a Refer-To once unescaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaces<'a> {
    pub call_id: &'a [u8],
    pub to_tag: &'a [u8],
    pub from_tag: &'a [u8],
    pub early_only: bool,
}

impl<'a> Replaces<'a> {
    /// `None` without a Call-ID or one of the tags.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (call_id, params) = cut(value, memchr::memchr(b';', value)?);
        let (call_id, params) = (call_id.trim_ascii(), Params { raw: params });
        let (to_tag, from_tag) = (params.get("to-tag")?, params.get("from-tag")?);
        let early_only = params.get("early-only").is_some();
        (!call_id.is_empty()).then_some(Self { call_id, to_tag, from_tag, early_only })
    }
}

/// One Reason value (RFC 3326).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// "SIP", "Q.850", … as written.
    pub protocol: String,
    pub cause: Option<u32>,
    pub text: Option<String>,
}

impl Reason {
    /// Reads one element of the header's list.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (protocol, params) = value_and_params(value);
        let protocol = is_token(protocol).then(|| String::from_utf8_lossy(protocol).into_owned())?;
        Some(Self { protocol, cause: params.number("cause"), text: params.text("text") })
    }
}

/// One Warning value (RFC 3261 §20.43).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub code: u16,
    pub agent: String,
    pub text: String,
}

impl Warning {
    /// Reads `code agent "text"`; `None` unless the code has three digits.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (digits, rest) = cut(value, value.iter().position(u8::is_ascii_whitespace)?);
        let code = u16::try_from(number(digits)?).ok().filter(|code| digits.len() == 3 && *code >= 100)?;
        let rest = rest.trim_ascii_start();
        let (agent, text) = cut(rest, rest.iter().position(u8::is_ascii_whitespace)?);
        Some(Self { code, agent: String::from_utf8_lossy(agent).into_owned(), text: unquoted(text) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lists_respect_quotes_and_angles() {
        let line = br#""Doe, \"Al\" <x>" <sip:alice@192.0.2.10;a=1,2>;q=0.7 ,, <sip:b@c>;x="1,2",sip:d@e"#;
        let elements: Vec<_> = List::new(line).collect();
        assert_eq!(
            elements,
            [&br#""Doe, \"Al\" <x>" <sip:alice@192.0.2.10;a=1,2>;q=0.7"#[..], br#"<sip:b@c>;x="1,2""#, b"sip:d@e"]
        );
        assert_eq!(List::new(b" , ,").count(), 0);
        assert!(list_contains(b"100rel, Timer ,replaces", "timer"));
        assert!(!list_contains(b"100rel, timers", "timer"));
    }

    #[test]
    fn params() {
        let params = Params { raw: br#" ; Tag = "a;b=\"c" ;lr ;X=1;tag=second"# };
        assert_eq!(params.get("tag"), Some(&br#""a;b=\"c""#[..]));
        assert_eq!(params.text("tag").unwrap(), "a;b=\"c");
        assert_eq!(params.get("LR"), Some(&b""[..]));
        assert_eq!(params.get("absent"), None);
        assert_eq!(params.number("x"), Some(1));
        assert_eq!(params.iter().count(), 4);
        assert!(params.is_well_formed());
        assert!(Params { raw: b"" }.is_well_formed());
        for bad in [&b";;"[..], b";a;", b";=x", b";a b", b";a=\"x", b";a=\"x\"y"] {
            assert!(!Params { raw: bad }.is_well_formed(), "{bad:?}");
        }
        assert_eq!(Params { raw: b";expires=280297596632815" }.number("expires"), Some(u32::MAX));
    }

    #[test]
    fn vias() {
        let via = Via::parse(b"SIP  /    2.0   / UDP  192.168.255.111   ; branch= z9hG4bK30239").unwrap();
        assert_eq!((via.transport, via.host, via.port), (&b"UDP"[..], &b"192.168.255.111"[..], None));
        assert_eq!(via.branch(), Some(&b"z9hG4bK30239"[..]));
        let via =
            Via::parse(b"SIP/2.0/TLS [2001:db8::9:1] : 5061;received=2001:db8::9:255;rport=9;ttl=16;maddr=224.2.0.1")
                .unwrap();
        assert_eq!(via.sent_by(), Some((Host::parse(b"[2001:db8::9:1]").unwrap(), Some(5061))));
        assert_eq!(via.received(), "2001:db8::9:255".parse().ok());
        assert_eq!((via.rport(), via.ttl()), (Some(Some(9)), Some(16)));
        assert_eq!(via.maddr().unwrap().to_string(), "224.2.0.1");
        assert_eq!(Via::parse(b"SIP/2.0/UDP h;rport").unwrap().rport(), Some(None));
        assert_eq!(Via::parse(b"SIP/2.0/UDP h;received=[::1]").unwrap().received(), "::1".parse().ok());
        for bad in [
            "",
            "SIP/2.0",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "HTTP/1.1/TCP h",
            "SIP/2.0/UDP h:x",
            "SIP/2.0/UDP h:99999",
            "SIP/2.0/UDP [::1",
            "SIP/2.0/UDP h h",
            "SIP/2.0/ h",
            "SIP/2.0/UDP h\"",
        ] {
            assert_eq!(Via::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn addresses_with_and_without_angles() {
        let table: [(&str, Option<&str>, &str, Option<&str>); 9] = [
            ("sip:x@y;tag=z", None, "sip:x@y", Some("z")),
            ("<sip:x@y;tag=u>;tag=z", None, "sip:x@y;tag=u", Some("z")),
            (r#""A \"B\" <c>, d" <sip:x@y> ; TAG = z"#, Some(r#"A "B" <c>, d"#), "sip:x@y", Some("z")),
            ("Alice Liddell <sip:x@y>", Some("Alice Liddell"), "sip:x@y", None),
            ("caller<sip:x@y>;tag=3", Some("caller"), "sip:x@y", Some("3")),
            ("\"\"<sip:x@y>", None, "sip:x@y", None),
            ("< sip:x@y >", None, "sip:x@y", None),
            ("<tel:+1;phone-context=+44>", None, "tel:+1;phone-context=+44", None),
            (r#"<sip:x@y>;p="a>;tag=no";tag=yes"#, None, "sip:x@y", Some("yes")),
        ];
        for (text, name, uri, tag) in table {
            let address = NameAddr::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(address.display_name().as_deref(), name, "{text}");
            assert_eq!(address.uri_raw, uri.as_bytes(), "{text}");
            assert_eq!(address.tag(), tag.map(str::as_bytes), "{text}");
        }
        for bad in
            ["", "<>", "< >", "\"x <sip:a@b>", "<sip:a@b", "<sip:a@b>x", "sip:a@b?Route=x", "\"x\" sip:a@b", "sip:a@b>"]
        {
            assert_eq!(NameAddr::parse(bad.as_bytes()), None, "{bad}");
        }
        let list = parse_name_addr_list(b"<sip:p1;lr>,<sip:p2:5070;transport=tcp;lr=on>").unwrap();
        assert_eq!(list[1].uri_raw, b"sip:p2:5070;transport=tcp;lr=on");
        assert_eq!(parse_name_addr_list(b"<sip:p1;lr>, \"x"), None);
        assert!(NameAddr::parse(b" * ").unwrap().is_wildcard());
    }

    #[test]
    fn contact_parameters() {
        let q = |text: &str| NameAddr::parse(format!("<sip:a@b>;q={text}").as_bytes()).unwrap().q();
        let table = [
            ("0.7", 700),
            ("1", 1000),
            ("0", 0),
            ("0.05", 50),
            ("1.000", 1000),
            ("7", 1000),
            ("0.1239", 123),
            ("x", 1000),
            (".5", 1000),
        ];
        for (text, thousandths) in table {
            assert_eq!(q(text), thousandths, "{text}");
        }
        assert_eq!(NameAddr::parse(b"<sip:a@b>;expires=3600").unwrap().expires(), Some(3600));
    }

    #[test]
    fn numbers() {
        assert_eq!(CSeq::parse(b"0009   INVITE"), Some(CSeq { number: 9, method: Method::Invite }));
        for bad in ["", "1", "INVITE 1", "2147483648 INVITE", "36893488147419103232 REGISTER", "-1 BYE", "1 B YE"] {
            assert_eq!(CSeq::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(clamped(b" 10000000000000000000000000 "), Some(u32::MAX));
        assert_eq!(clamped(b"3600x"), None);
        let rack = RAck::parse(b"776656 1 INVITE").unwrap();
        assert_eq!((rack.rseq, rack.cseq.number, rack.cseq.method), (776656, 1, Method::Invite));
        assert_eq!(RAck::parse(b"0 1 INVITE"), None);
        let retry = RetryAfter::parse(b"18000 (I'm in (a) meeting) ;duration=3600").unwrap();
        assert_eq!((retry.seconds, retry.duration), (18000, Some(3600)));
        assert_eq!(retry.comment.unwrap(), "I'm in (a) meeting");
        assert_eq!(RetryAfter::parse(b"949302838503028349304023988").unwrap().seconds, u32::MAX);
        assert_eq!(RetryAfter::parse(b"soon"), None);
        let (value, params) = value_and_params(b"1800 ;refresher=uac");
        assert_eq!((clamped(value), params.get("refresher")), (Some(1800), Some(&b"uac"[..])));
    }

    #[test]
    fn media_types() {
        let mixed = ContentType::parse(br#"Multipart / Mixed ;boundary="a;b""#).unwrap();
        assert!(mixed.is("multipart/mixed"));
        assert_eq!(mixed.params.text("boundary").unwrap(), "a;b");
        assert!(ContentType::parse(b"application/*;q=0.5").unwrap().accepts("application/sdp"));
        assert!(ContentType::parse(b"*/*").unwrap().accepts("application/sdp"));
        assert!(!ContentType::parse(b"text/plain").unwrap().accepts("application/sdp"));
        for bad in ["", "application", "/", "a/", "a b/c"] {
            assert_eq!(ContentType::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn replaces_reason_and_warning() {
        let replaces = Replaces::parse(b"12345@192.0.2.30;to-tag=12345;from-tag=5FFE-3994;early-only").unwrap();
        assert_eq!((replaces.call_id, replaces.early_only), (&b"12345@192.0.2.30"[..], true));
        assert_eq!((replaces.to_tag, replaces.from_tag), (&b"12345"[..], &b"5FFE-3994"[..]));
        assert_eq!(Replaces::parse(b"12345;to-tag=1"), None);
        let reason = Reason::parse(br#"Q.850;cause=16;text="Normal, clearing""#).unwrap();
        assert_eq!(
            (reason.protocol.as_str(), reason.cause, reason.text.as_deref()),
            ("Q.850", Some(16), Some("Normal, clearing"))
        );
        let warning = Warning::parse(br#"399 example.com:5060 "No \"codec\"""#).unwrap();
        assert_eq!(
            (warning.code, warning.agent.as_str(), warning.text.as_str()),
            (399, "example.com:5060", "No \"codec\"")
        );
        assert_eq!(Warning::parse(b"1812 overture \"In Progress\""), None);
    }
}
