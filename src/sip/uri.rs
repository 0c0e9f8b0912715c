//! SIP and SIPS URIs (RFC 3261 §19.1), and any other scheme kept as it came.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::text::{cut, cut_once, number};

/// A host as an address or a name. Names compare without case.
#[derive(Clone, Debug)]
pub enum Host {
    Ip(IpAddr),
    Name(String),
}

impl Host {
    /// Reads `example.com`, `192.0.2.1` or `[2001:db8::1]`; `None` when it is none of these.
    ///
    /// `[2001:db8:::192.0.2.1]`, which the grammar of RFC 3261 lets through, is read with two colons (RFC 5118 §4.10).
    pub fn parse(text: &[u8]) -> Option<Self> {
        if let Some(inner) = text.strip_prefix(b"[") {
            return ipv6(inner.strip_suffix(b"]")?).map(|ip| Self::Ip(ip.into()));
        }
        if let Some(ip) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Ipv4Addr>().ok()) {
            return Some(Self::Ip(ip.into()));
        }
        let named =
            !text.is_empty() && text.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        named.then(|| Self::Name(String::from_utf8_lossy(text).into_owned()))
    }

    /// The address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) => None,
        }
    }
}

/// An IPv6 address without brackets.
pub(crate) fn ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().or_else(|| text.contains(":::").then(|| text.replacen(":::", "::", 1).parse().ok())?)
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Name(a), Self::Name(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        }
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Ip(ip) => ip.hash(state),
            Self::Name(name) => name.bytes().for_each(|byte| byte.to_ascii_lowercase().hash(state)),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

/// With brackets around IPv6.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
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

/// A URI taken apart in place, nothing decoded: what the hot paths read without allocating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UriRef<'a> {
    /// As written.
    pub scheme: &'a [u8],
    pub user: Option<&'a [u8]>,
    pub password: Option<&'a [u8]>,
    /// With the brackets of an IPv6 reference; empty for schemes other than sip and sips.
    pub host: &'a [u8],
    pub port: Option<u16>,
    /// Between the first `;` and the `?`, without either.
    pub parameters: &'a [u8],
    /// After the `?`.
    pub headers: &'a [u8],
    /// The part after the colon of any other scheme.
    pub opaque: &'a [u8],
}

impl<'a> UriRef<'a> {
    /// Takes a URI without surrounding angle brackets apart.
    ///
    /// # Errors
    /// When it has no scheme, holds a character that must be escaped (space, control, `<>"`), or, for sip and sips, when its
    /// host or port cannot be read (RFC 3261 §25.1).
    pub fn parse(text: &'a [u8]) -> Result<Self, UriError> {
        Self::split(text).map_err(|(what, at)| UriError { what, at, uri: super::text::shown(text) })
    }

    pub fn is_sip(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(b"sip") || self.scheme.eq_ignore_ascii_case(b"sips")
    }

    fn split(text: &'a [u8]) -> Result<Self, (&'static str, usize)> {
        if let Some(at) = text.iter().position(|&b| b <= b' ' || matches!(b, 0x7f | b'<' | b'>' | b'"')) {
            return Err(("a character that must be escaped", at));
        }
        let Some((scheme, rest)) = cut_once(text, b':') else { return Err(("no scheme", 0)) };
        let legal = |&b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if !scheme.first().is_some_and(u8::is_ascii_alphabetic) || !scheme.iter().all(legal) {
            return Err(("not a scheme", 0));
        }
        let mut uri = Self { scheme, ..Self::default() };
        if !uri.is_sip() {
            uri.opaque = rest;
            return if rest.is_empty() { Err(("nothing after the scheme", text.len())) } else { Ok(uri) };
        }
        // A raw '@' is legal nowhere but after the user, whatever ';' or '?' the user part holds.
        let mut rest = rest;
        if let Some((userinfo, host)) = cut_once(rest, b'@') {
            let (user, password) = match cut_once(userinfo, b':') {
                Some((user, password)) => (user, Some(password)),
                None => (userinfo, None),
            };
            if user.is_empty() {
                return Err(("an empty user", scheme.len() + 1));
            }
            (uri.user, uri.password, rest) = (Some(user), password, host);
        }
        let host_at = text.len() - rest.len();
        let host_end = match rest.first() {
            Some(b'[') => memchr::memchr(b']', rest).map(|end| end + 1),
            _ => memchr::memchr3(b':', b';', b'?', rest),
        };
        (uri.host, rest) = cut(rest, host_end.unwrap_or(rest.len()));
        if !is_host(uri.host) {
            return Err(("not a host", host_at));
        }
        if let Some(after) = rest.strip_prefix(b":") {
            let (digits, tail) = cut(after, memchr::memchr2(b';', b'?', after).unwrap_or(after.len()));
            let port = number(digits).and_then(|port| u16::try_from(port).ok());
            uri.port = Some(port.ok_or(("not a port", text.len() - after.len()))?);
            rest = tail;
        }
        match rest.first() {
            None => {}
            Some(b';') => {
                let after = cut(rest, 1).1;
                (uri.parameters, uri.headers) = cut_once(after, b'?').unwrap_or((after, b""));
            }
            Some(b'?') => uri.headers = cut(rest, 1).1,
            Some(_) => return Err(("not a host", host_at)),
        }
        Ok(uri)
    }
}

fn is_host(text: &[u8]) -> bool {
    match text.strip_prefix(b"[") {
        Some(inner) => inner.strip_suffix(b"]").is_some_and(|inner| ipv6(inner).is_some()),
        None => !text.is_empty() && text.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    }
}

impl Uri {
    /// Reads a URI without surrounding angle brackets.
    ///
    /// # Errors
    /// As [`UriRef::parse`]. A scheme other than sip and sips is no error: a UA answers it with 416.
    pub fn parse(text: &[u8]) -> Result<Self, UriError> {
        UriRef::parse(text).map(|parts| Self::from(&parts))
    }

    /// `sip:user@host:port`.
    pub fn sip(user: Option<&str>, host: Host, port: Option<u16>) -> Self {
        Self {
            scheme: "sip".into(),
            user: user.map(Into::into),
            password: None,
            host: Some(host),
            port,
            parameters: Vec::new(),
            headers: Vec::new(),
            opaque: String::new(),
        }
    }

    pub fn is_sip(&self) -> bool {
        self.scheme == "sip" || self.scheme == "sips"
    }

    pub fn is_secure(&self) -> bool {
        self.scheme == "sips"
    }

    /// A parameter by name, in any case: `Some(None)` when it has no value.
    pub fn parameter(&self, name: &str) -> Option<Option<&str>> {
        self.parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_deref())
    }

    /// The same URI with this parameter set, replaced where it stood if it was there.
    #[must_use]
    pub fn with_parameter(mut self, name: &str, value: Option<&str>) -> Self {
        let value = value.map(String::from);
        match self.parameters.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value,
            None => self.parameters.push((name.into(), value)),
        }
        self
    }

    /// The same URI without this parameter.
    #[must_use]
    pub fn without_parameter(mut self, name: &str) -> Self {
        self.parameters.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// The host as text, IPv6 in brackets; empty for schemes without one.
    pub fn host_str(&self) -> String {
        self.host.as_ref().map(Host::to_string).unwrap_or_default()
    }

    /// `host` or `host:port`; empty for schemes without a host.
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host_str()),
            None => self.host_str(),
        }
    }

    /// What names the user: `user@host` with the user escaped and no port, or the opaque part of other schemes.
    pub fn address(&self) -> String {
        let mut out = String::new();
        if let Some(user) = &self.user {
            escape_into(&mut out, user, USER);
            out.push('@');
        }
        out.push_str(&self.host_str());
        out.push_str(&self.opaque);
        out
    }
}

impl From<&UriRef<'_>> for Uri {
    fn from(parts: &UriRef<'_>) -> Self {
        let pairs = |text: &[u8], separator: u8| -> Vec<(String, Option<String>)> {
            text.split(|&b| b == separator)
                .filter(|pair| !pair.is_empty())
                .map(|pair| match cut_once(pair, b'=') {
                    Some((name, value)) => (unescaped(name), Some(unescaped(value))),
                    None => (unescaped(pair), None),
                })
                .collect()
        };
        Self {
            scheme: String::from_utf8_lossy(parts.scheme).to_ascii_lowercase(),
            user: parts.user.map(unescaped),
            password: parts.password.map(unescaped),
            host: Host::parse(parts.host),
            port: parts.port,
            parameters: pairs(parts.parameters, b';'),
            headers: pairs(parts.headers, b'&').into_iter().map(|(n, v)| (n, v.unwrap_or_default())).collect(),
            opaque: keep_utf8(parts.opaque),
        }
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text.as_bytes())
    }
}

/// The comparison of RFC 3261 §19.1.4, after percent-decoding. It is not transitive (the RFC's own example), so there is
/// no `Eq` and no `Hash`.
impl PartialEq for Uri {
    fn eq(&self, other: &Self) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        if !self.is_sip() {
            return match self.scheme.as_str() {
                "tel" => tel_parts(&self.opaque) == tel_parts(&other.opaque),
                _ => self.opaque == other.opaque,
            };
        }
        // User and password are the only parts with case; a missing port is not 5060.
        self.user == other.user
            && self.password == other.password
            && self.host == other.host
            && self.port == other.port
            && parameters_match(self, other)
            && parameters_match(other, self)
            && headers_match(&self.headers, &other.headers)
    }
}

/// Each parameter of `a` that `b` has too is the same there; some may not be missing. Of a name that stands twice, the
/// first counts.
fn parameters_match(a: &Uri, b: &Uri) -> bool {
    const NEVER_IGNORED: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];
    let lower = |value: Option<&str>| value.map(str::to_ascii_lowercase);
    a.parameters.len() <= MAX_COMPARED
        && a.parameters.iter().all(|(name, _)| match (a.parameter(name), b.parameter(name)) {
            (Some(value), Some(other)) => lower(value) == lower(other),
            _ => !NEVER_IGNORED.iter().any(|never| never.eq_ignore_ascii_case(name)),
        })
}

/// URI headers are never ignored, and their order does not matter.
fn headers_match(a: &[(String, String)], b: &[(String, String)]) -> bool {
    let same =
        |x: &(String, String), y: &(String, String)| x.0.eq_ignore_ascii_case(&y.0) && x.1.eq_ignore_ascii_case(&y.1);
    let count = |list: &[(String, String)], wanted| list.iter().filter(|pair| same(pair, wanted)).count();
    a.len() == b.len() && a.len() <= MAX_COMPARED && a.iter().all(|pair| count(a, pair) == count(b, pair))
}

/// URIs with more parameters or headers than this are never equal: the comparison is quadratic in them, and no phone sends
/// that many.
const MAX_COMPARED: usize = 64;

/// Number and parameters of a `tel:` URI as they compare: no visual separators, no case, parameters in order of name
/// (RFC 3966 §4).
fn tel_parts(opaque: &str) -> (String, Vec<String>) {
    let mut parts = opaque.split(';');
    let digits = |text: &str| -> String {
        text.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).map(|c| c.to_ascii_lowercase()).collect()
    };
    let subscriber = digits(parts.next().unwrap_or_default());
    let mut rest: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    rest.sort_unstable();
    (subscriber, rest)
}

// What may stand unescaped besides letters, digits and the marks -_.!~*'() (RFC 3261 §25.1).
const USER: &[u8] = b"&=+$,;?/";
const PASSWORD: &[u8] = b"&=+$,";
const PARAMETER: &[u8] = b"[]/:&+$";
const HEADER: &[u8] = b"[]/?:+$";

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::with_capacity(64);
        out.push_str(&self.scheme);
        out.push(':');
        if let Some(user) = &self.user {
            escape_into(&mut out, user, USER);
            if let Some(password) = &self.password {
                out.push(':');
                escape_into(&mut out, password, PASSWORD);
            }
            out.push('@');
        }
        if let Some(host) = &self.host {
            write!(out, "{host}")?;
        }
        if let Some(port) = self.port {
            write!(out, ":{port}")?;
        }
        for (name, value) in &self.parameters {
            out.push(';');
            escape_into(&mut out, name, PARAMETER);
            if let Some(value) = value {
                out.push('=');
                escape_into(&mut out, value, PARAMETER);
            }
        }
        for (i, (name, value)) in self.headers.iter().enumerate() {
            out.push(if i == 0 { '?' } else { '&' });
            escape_into(&mut out, name, HEADER);
            out.push('=');
            escape_into(&mut out, value, HEADER);
        }
        // Text of an application may hold anything; a URI must not end the line or the angle brackets it stands in.
        for byte in self.opaque.bytes() {
            match byte {
                b'!'..=b'~' if !matches!(byte, b'<' | b'>' | b'"') => out.push(char::from(byte)),
                _ => write!(out, "%{byte:02X}")?,
            }
        }
        f.write_str(&out)
    }
}

/// Percent-encodes for the wire. An escape that stands for an octet outside UTF-8 (see [`Uri::user`]) is left alone.
fn escape_into(out: &mut String, text: &str, legal: &[u8]) {
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) || legal.contains(&byte);
        let kept = || byte == b'%' && bytes.get(at + 1..at + 3).and_then(hex).is_some_and(|octet| octet >= 0x80);
        if plain || kept() {
            out.push(char::from(byte));
        } else {
            let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase();
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    match digits {
        [high, low] => {
            let nibble = |&digit: &u8| char::from(digit).to_digit(16);
            u8::try_from(nibble(high)? * 16 + nibble(low)?).ok()
        }
        _ => None,
    }
}

/// Percent-decodes once; a `%` without two digits stays as it is.
pub(crate) fn unescaped(text: &[u8]) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (before, escape) = cut(rest, at);
        octets.extend_from_slice(before);
        match escape.get(1..3).and_then(hex) {
            Some(octet) => {
                octets.push(octet);
                rest = cut(escape, 3).1;
            }
            None => {
                octets.push(b'%');
                rest = cut(escape, 1).1;
            }
        }
    }
    octets.extend_from_slice(rest);
    match String::from_utf8(octets) {
        Ok(text) => text,
        Err(error) => keep_utf8(error.as_bytes()),
    }
}

/// The text of these octets, those outside UTF-8 percent-encoded.
fn keep_utf8(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn equal_and_different_as_in_rfc_3261_19_1_4() {
        let equal = [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            ),
            ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0:0::1]"),
            ("tel:+1-201-555-0123", "tel:+1(201)5550123"),
            ("tel:7042;phone-context=Example.com;x=1", "tel:7042;x=1;phone-context=example.com"),
            ("urn:service:sos", "URN:service:sos"),
        ];
        for (a, b) in equal {
            assert_eq!(uri(a), uri(b));
            assert_eq!(uri(b), uri(a));
        }
        let different = [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("sip:a@example.com", "sips:a@example.com"),
            ("sip:a@example.com", "sip:example.com"),
            ("sip:a:x@example.com", "sip:a:y@example.com"),
            ("sip:a:x@example.com", "sip:a@example.com"),
            ("sip:a@example.com;maddr=192.0.2.1", "sip:a@example.com"),
            ("sip:a@example.com;ttl=1", "sip:a@example.com"),
            ("sip:a@example.com;user=phone", "sip:a@example.com"),
            ("sip:a@example.com?a=1&a=2", "sip:a@example.com?a=1&a=1"),
            ("tel:+12015550123", "tel:2015550123"),
            ("urn:service:sos", "urn:service:SOS"),
        ];
        for (a, b) in different {
            assert_ne!(uri(a), uri(b));
            assert_ne!(uri(b), uri(a));
        }
    }

    #[test]
    fn taken_apart() {
        let full =
            uri("SIPS:bob;day=tuesday:se%63ret@192.0.2.20:5080;Transport=udp;lr?subject=lunch%20now&priority=urgent");
        assert_eq!(full.scheme, "sips");
        assert!(full.is_secure());
        assert_eq!(full.user.as_deref(), Some("bob;day=tuesday"));
        assert_eq!(full.password.as_deref(), Some("secret"));
        assert_eq!(full.authority(), "192.0.2.20:5080");
        assert_eq!(full.parameter("transport"), Some(Some("udp")));
        assert_eq!(full.parameter("LR"), Some(None));
        assert_eq!(full.parameter("maddr"), None);
        assert_eq!(full.headers, [("subject".into(), "lunch now".into()), ("priority".into(), "urgent".into())]);

        let semicolon = uri("sip:user;par=u%40example.net@example.com");
        assert_eq!(semicolon.user.as_deref(), Some("user;par=u@example.net"));
        assert_eq!((semicolon.host_str(), semicolon.parameters.len()), ("example.com".into(), 0));

        let escapes = uri("sip:a%00b@example.com;%6C%72;n%61me=v%61lue%25%34%31");
        assert_eq!(escapes.user.as_deref(), Some("a\0b"));
        assert_eq!(escapes.parameters, [("lr".into(), None), ("name".into(), Some("value%41".into()))]);

        let ambiguous = uri("sip:[2001:db8::10:5070]");
        assert_eq!((ambiguous.host, ambiguous.port), (Host::parse(b"[2001:db8::10:5070]"), None));
        assert_eq!(uri("sip:[2001:db8::10]:5070").port, Some(5070));
        assert_eq!(uri("sip:u@[2001:db8:::192.0.2.1]").host_str(), "[2001:db8::c000:201]");

        let tel = uri("tel:+1-201-555-0123;phone-context=example.com");
        assert_eq!((tel.scheme.as_str(), tel.host.as_ref()), ("tel", None));
        assert_eq!(tel.opaque, "+1-201-555-0123;phone-context=example.com");
        assert_eq!(uri("soap.beep://192.0.2.103:3002").scheme, "soap.beep");
    }

    #[test]
    fn printed_as_read() {
        for text in [
            "sip:example.com",
            "sip:alice@example.com",
            "sips:bob;day=tuesday:secret@192.0.2.20:5080;transport=udp?subject=lunch&priority=urgent",
            "sip:user;par=u%40example.net@example.com",
            "sip:sips%3Auser%40example.com@example.net",
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com",
            "sip:I%20have%20spaces@example.net",
            "sip:null-%00-null@example.com",
            "sip:zo%C3%AB@example.org",
            "sip:latin1-%E9@example.org",
            "sip:%25-sign@example.org",
            "sip:a@[2001:db8::1]:5062;maddr=[2001:db8::2];lr",
            "sip:carol@example.net?Replaces=12345%40192.0.2.30%3Bto-tag%3D12345%3Bfrom-tag%3D5FFE-3994&Require=replaces",
            "tel:+1-201-555-0123;phone-context=example.com",
            "nobodyknowsthisscheme:totallyopaquecontent",
        ] {
            assert_eq!(uri(text).to_string(), text);
        }
        assert_eq!(uri("sip:%61lice@EXAMPLE.com").to_string(), "sip:alice@EXAMPLE.com");
    }

    #[test]
    fn no_text_of_an_application_breaks_out_of_the_uri() {
        let mut made = Uri::sip(Some("a b>\r\nEvil: x@y"), Host::Name("example.com".into()), None);
        made = made.with_parameter("p", Some("v;w>\r\n")).with_parameter("P", Some("x?y")).with_parameter("lr", None);
        assert_eq!(made.to_string(), "sip:a%20b%3E%0D%0AEvil%3A%20x%40y@example.com;p=x%3Fy;lr");
        assert_eq!(uri(&made.to_string()), made);
        assert_eq!(made.clone().without_parameter("LR").parameter("lr"), None);
        let other =
            Uri { scheme: "x".into(), opaque: "a\r\n<b>".into(), host: None, user: None, parameters: vec![], ..made };
        assert_eq!(other.to_string(), "x:a%0D%0A%3Cb%3E");
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "sip",
            ":x",
            "1sip:x",
            "sip:",
            "sip:@host",
            "sip:user@",
            "sip:a@b@c",
            "sip:2001:db8::10",
            "sip:host:",
            "sip:host:99999",
            "sip:host:-1",
            "sip:[2001:db8::1",
            "sip:[2001:db8::1]x",
            "sip:[::1%25eth0]",
            "sip:ho st",
            "sip:user@example.com; lr",
            "<sip:user@example.com>",
            "sip:a\"b@c",
            "sip:höst",
            "tel:",
        ] {
            let error = Uri::parse(bad.as_bytes()).expect_err(bad);
            assert!(error.at <= bad.len(), "{error}");
        }
        let error = Uri::parse(b"sip:bob@example.com:port").expect_err("a port that is no number");
        assert_eq!(error.to_string(), "not a port at byte 20 of URI \"sip:bob@example.com:port\"");
    }

    #[test]
    fn the_address_names_user_and_host_only() {
        assert_eq!(uri("sip:a b@example.com:5070;lr".replace(' ', "%20").as_str()).address(), "a%20b@example.com");
        assert_eq!(uri("tel:+123").address(), "+123");
    }
}
