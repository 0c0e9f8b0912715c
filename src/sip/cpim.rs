//! Common Presence and Instant Messaging: the `message/cpim` wrapper (RFC 3862), as MESSAGE and MSRP carry it.
//!
//! A wrapper has message headers, MIME headers of what it wraps, and the wrapped body. Reading forgives what programs
//! get wrong: bare line feeds, blank lines before the headers, no blank line before the MIME headers, no MIME headers at
//! all. Header values keep their escapes until they are asked for.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::text::{cut, quoted_end, shown};

pub const CONTENT_TYPE: &str = "message/cpim";

/// The namespace of instant message disposition notification (RFC 5438 §6).
pub const IMDN: &str = "urn:ietf:params:imdn";

/// Bytes of headers that are read: real ones stay below 2 kB.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Headers that are read, of both kinds together.
const MAX_HEADERS: usize = 64;

/// Header names of RFC 3862 §2.2 and §4, which a message may require to be understood.
const KNOWN: [&str; 7] = ["From", "To", "cc", "DateTime", "Subject", "NS", "Require"];

/// Header names of RFC 5438 §6 that we understand.
const KNOWN_IMDN: [&str; 4] = ["Message-ID", "Disposition-Notification", "Original-To", "IMDN-Record-Route"];

/// Why bytes are no CPIM message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpimError {
    #[error("the headers are longer than {MAX_HEADER_BYTES} bytes")]
    TooLong,
    #[error("there are more than {MAX_HEADERS} headers")]
    TooMany,
    #[error("line {0:?} is no header")]
    NotAHeader(String),
    #[error("there is no header at all")]
    Empty,
}

/// One message header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// As written, with the prefix of its namespace: "imdn.Message-ID".
    pub name: String,
    /// `;lang=fr` and the like, names in the order they came.
    pub params: Vec<(String, String)>,
    /// As written, escapes included.
    pub raw: String,
}

impl Header {
    /// A header whose value is any text.
    pub fn new(name: impl Into<String>, text: &str) -> Self {
        Self { name: name.into(), params: Vec::new(), raw: escaped(text) }
    }

    /// A header with an address: `"name" <uri>`.
    pub fn address(name: impl Into<String>, address: &Address) -> Self {
        let uri: String = address.uri.chars().filter(|letter| !letter.is_control() && *letter != '>').collect();
        let raw = match &address.name {
            Some(text) => format!("\"{}\" <{uri}>", escaped(text).replace('"', "\\\"")),
            None => format!("<{uri}>"),
        };
        Self { name: name.into(), params: Vec::new(), raw }
    }

    /// The value with its escapes resolved (RFC 3862 §2.3.1).
    pub fn text(&self) -> String {
        unescaped(&self.raw)
    }

    /// The value as an address, with or without a name.
    pub fn to_address(&self) -> Option<Address> {
        let raw = self.raw.trim();
        let (name, rest) = match raw.starts_with('"') {
            true => {
                let (quoted, rest) = raw.split_at_checked(quoted_end(raw.as_bytes())?)?;
                (unescaped(quoted.get(1..quoted.len() - 1)?), rest)
            }
            false => {
                let (name, rest) = raw.split_at_checked(raw.find('<')?)?;
                (unescaped(name.trim()), rest)
            }
        };
        let uri = rest.trim_start().strip_prefix('<')?;
        let uri = uri.get(..uri.find('>')?)?.trim();
        let name = Some(name).filter(|name| !name.is_empty());
        (!uri.is_empty()).then(|| Address { name, uri: unescaped(uri) })
    }
}

/// An address of From, To or cc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The formal name.
    pub name: Option<String>,
    /// `im:`, `sip:`, …
    pub uri: String,
}

/// A moment of DateTime (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DateTime {
    /// Seconds since 1970 in UTC. A leap second counts as the second before it.
    pub unix: f64,
    /// Minutes the sender's clock is ahead of UTC.
    pub offset: i32,
}

impl DateTime {
    /// Reads `2026-11-21T08:00:00.123+05:30`; `None` for anything that is no date or time.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.trim().as_bytes();
        let number = |from: usize, to: usize, low: i64, high: i64| -> Option<i64> {
            let digits = bytes.get(from..to).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
            let value: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
            (low..=high).contains(&value).then_some(value)
        };
        let is = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|byte| any.contains(byte));
        let (year, month, day) = (number(0, 4, 1, 9999)?, number(5, 7, 1, 12)?, number(8, 10, 1, 31)?);
        let (hour, minute, second) = (number(11, 13, 0, 23)?, number(14, 16, 0, 59)?, number(17, 19, 0, 60)?);
        let separated = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
        if !separated || day > days_of(year, month) {
            return None;
        }
        let mut at = 19;
        let mut fraction = 0.0;
        if is(at, b".") {
            let mut worth = 0.1;
            at += 1;
            while let Some(digit) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
                fraction += f64::from(digit - b'0') * worth;
                worth /= 10.0;
                at += 1;
            }
        }
        let offset = match bytes.get(at)? {
            b'Z' | b'z' if bytes.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
                let minutes = number(at + 1, at + 3, 0, 23)? * 60 + number(at + 4, at + 6, 0, 59)?;
                i32::try_from(if *sign == b'+' { minutes } else { -minutes }).ok()?
            }
            _ => return None,
        };
        let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second.min(59);
        let unix = (seconds - i64::from(offset) * 60) as f64 + fraction;
        Some(Self { unix, offset })
    }

    /// `2026-11-21T02:30:00.123Z`. Moments before 1970 are written as its beginning.
    pub fn text(at: SystemTime) -> String {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let days = i64::try_from(since.as_secs() / 86_400).unwrap_or_default();
        let (mut year, mut rest) = (1970, days);
        while rest >= days_of_year(year) {
            rest -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while rest >= days_of(year, month) {
            rest -= days_of(year, month);
            month += 1;
        }
        let second = since.as_secs() % 86_400;
        let (hour, minute, second, milli) = (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
        format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", rest + 1)
    }
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_of_year(year: i64) -> i64 {
    365 + i64::from(is_leap(year))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to this one.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    years + (1..month).map(|month| days_of(year, month)).sum::<i64>() + day - 1
}

/// A whole message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpim {
    /// Message headers in order.
    pub headers: Vec<Header>,
    /// MIME headers of the body: `Content-Type`, `Content-ID`, …
    pub content_headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Cpim {
    /// Reads a message; the body is a slice of `bytes`.
    ///
    /// # Errors
    /// When a line of the headers is none, or there are too many.
    pub fn parse(bytes: Bytes) -> Result<Self, CpimError> {
        let mut message = Self::default();
        let mut lines = Lines { bytes: &bytes, at: 0 };
        let mut first = lines.next()?;
        while first.is_some_and(<[u8]>::is_empty) {
            first = lines.next()?;
        }
        if first.is_none() {
            return Err(CpimError::Empty);
        }
        let mut line = first;
        while let Some(text) = line.filter(|line| !line.is_empty()) {
            message.push(text)?;
            line = lines.next()?;
        }
        // MIME headers follow, unless they stood among the others or are not there.
        if message.content_headers.is_empty() {
            let before = lines.at;
            line = lines.next().ok().flatten();
            if line.is_some_and(is_content_header) {
                while let Some(text) = line.filter(|line| !line.is_empty()) {
                    message.push_content(text)?;
                    line = lines.next()?;
                }
            } else if line.is_some_and(|line| !line.is_empty()) {
                lines.at = before;
            }
        }
        message.body = bytes.slice(lines.at.min(bytes.len())..);
        Ok(message)
    }

    fn push(&mut self, line: &[u8]) -> Result<(), CpimError> {
        if is_content_header(line) || !self.content_headers.is_empty() {
            return self.push_content(line);
        }
        let (name, value) = split(line)?;
        self.make_room()?;
        let mut raw = value.trim();
        let mut params = Vec::new();
        // Parameters stand right behind the colon (RFC 3862 §2.3).
        while value.starts_with(';')
            && let Some(rest) = raw.strip_prefix(';')
        {
            let end = rest.find([' ', '\t', ';']).unwrap_or(rest.len());
            let (param, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            let (key, value) = param.split_once('=').unwrap_or((param, ""));
            params.push((key.to_owned(), value.trim_matches('"').to_owned()));
            raw = if after.starts_with(';') { after } else { after.trim_start() };
            if !after.starts_with(';') {
                break;
            }
        }
        self.headers.push(Header { name: name.to_owned(), params, raw: raw.to_owned() });
        Ok(())
    }

    fn push_content(&mut self, line: &[u8]) -> Result<(), CpimError> {
        if let (Some(b' ' | b'\t'), Some((_, value))) = (line.first(), self.content_headers.last_mut()) {
            value.push(' '); // MIME headers may be folded
            value.push_str(String::from_utf8_lossy(line).trim());
            return Ok(());
        }
        let (name, value) = split(line)?;
        self.make_room()?;
        self.content_headers.push((name, value.trim().to_owned()));
        Ok(())
    }

    fn make_room(&self) -> Result<(), CpimError> {
        let full = self.headers.len() + self.content_headers.len() >= MAX_HEADERS;
        if full { Err(CpimError::TooMany) } else { Ok(()) }
    }

    /// The first header of this name; names of RFC 3862 are told apart by case.
    pub fn header(&self, name: &str) -> Option<&Header> {
        self.headers.iter().find(|header| header.name == name)
    }

    /// All headers of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Header> {
        self.headers.iter().filter(move |header| header.name == name)
    }

    pub fn from(&self) -> Option<Address> {
        self.header("From")?.to_address()
    }

    pub fn to(&self) -> Option<Address> {
        self.header("To")?.to_address()
    }

    /// What DateTime says, if it is a time.
    pub fn date_time(&self) -> Option<DateTime> {
        DateTime::parse(&self.header("DateTime")?.text())
    }

    /// The type of the body; `text/plain` when it is not given.
    pub fn content_type(&self) -> &str {
        self.content_header("Content-Type").unwrap_or("text/plain;charset=utf-8")
    }

    /// A MIME header by name, in any case.
    pub fn content_header(&self, name: &str) -> Option<&str> {
        self.content_headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The text of a header of RFC 5438, whichever prefix its namespace has: `Message-ID`, `Disposition-Notification`.
    pub fn imdn(&self, name: &str) -> Option<String> {
        let is_it = |header: &&Header| self.namespaced(&header.name) == Some((IMDN, name));
        self.headers.iter().find(is_it).map(Header::text)
    }

    /// Namespace and bare name of a prefixed header. `imdn.` is understood without its NS: programs forget it.
    fn namespaced<'a>(&'a self, name: &'a str) -> Option<(&'a str, &'a str)> {
        let (prefix, bare) = name.split_once('.')?;
        let declared = self.all("NS").find_map(|header| {
            let (this, uri) = header.raw.split_once('<')?;
            (this.trim() == prefix).then(|| uri.split('>').next().unwrap_or(uri).trim())
        });
        declared.or((prefix == "imdn").then_some(IMDN)).map(|namespace| (namespace, bare))
    }

    /// Headers that have to be understood and are not (RFC 3862 §2.3.3, Require): then the message is not to be shown.
    pub fn not_understood(&self) -> Vec<String> {
        let required = self.all("Require").flat_map(|header| header.raw.split(','));
        let known = |name: &str| match self.namespaced(name) {
            Some((IMDN, bare)) => KNOWN_IMDN.contains(&bare),
            Some(_) => false,
            None => KNOWN.contains(&name),
        };
        required.map(str::trim).filter(|name| !name.is_empty() && !known(name)).map(str::to_owned).collect()
    }

    /// The message as bytes.
    pub fn write(&self) -> Bytes {
        let mut head = String::new();
        for header in &self.headers {
            let name: String =
                header.name.chars().filter(|letter| letter.is_ascii_graphic() && *letter != ':').collect();
            let params: String = header.params.iter().map(|(key, value)| format!(";{key}={value}")).collect();
            let _ = write!(head, "{name}:{} {}\r\n", one_line(&params), one_line(&header.raw));
        }
        head.push_str("\r\n");
        for (name, value) in &self.content_headers {
            let _ = write!(head, "{}: {}\r\n", one_line(name), one_line(value));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes.into()
    }
}

/// Lines of the headers, with their bound.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end; `None` at the end.
    fn next(&mut self) -> Result<Option<&'a [u8]>, CpimError> {
        let rest = cut(self.bytes, self.at).1;
        if rest.is_empty() {
            return Ok(None);
        }
        let (window, _) = cut(rest, MAX_HEADER_BYTES.saturating_sub(self.at));
        let end = match memchr::memchr(b'\n', window) {
            Some(end) => end,
            None if window.len() == rest.len() => rest.len(),
            None => return Err(CpimError::TooLong),
        };
        let (line, _) = cut(rest, end);
        self.at += end + 1;
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

fn is_content_header(line: &[u8]) -> bool {
    let starts = |name: &str| {
        let (head, rest) = cut(line, name.len());
        head.eq_ignore_ascii_case(name.as_bytes()) && rest.contains(&b':')
    };
    starts("Content-") || starts("MIME-Version")
}

/// `name: value`; the value keeps what stands right behind the colon.
fn split(line: &[u8]) -> Result<(String, String), CpimError> {
    let wrong = || CpimError::NotAHeader(shown(line));
    let (name, value) = super::text::cut_once(line, b':').ok_or_else(wrong)?;
    let name = name.trim_ascii_end();
    let legal = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic());
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if legal { Ok((text(name), text(value))) } else { Err(wrong()) }
}

fn one_line(text: &str) -> String {
    text.chars().map(|letter| if matches!(letter, '\r' | '\n') { ' ' } else { letter }).collect()
}

/// Text as a header value (RFC 3862 §2.3.1).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if letter.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            _ => out.push(letter),
        }
    }
    out
}

/// A header value as text. An escape of no meaning stands for what follows the backslash; half a surrogate pair becomes
/// the replacement character.
fn unescaped(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        let plain = match letter {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('b') => '\u{8}',
                Some('u') => {
                    let digits = rest.as_str().get(..4).filter(|four| four.bytes().all(|b| b.is_ascii_hexdigit()));
                    if let Some(unit) = digits.and_then(|four| u16::from_str_radix(four, 16).ok()) {
                        units.push(unit);
                        rest.nth(3);
                        continue;
                    }
                    'u'
                }
                Some(other) => other,
                None => '\\',
            },
            other => other,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn vector(name: &str) -> Cpim {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cpim").join(format!("{name}.cpim"));
        Cpim::parse(std::fs::read(&path).unwrap().into()).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn address(name: &str, uri: &str) -> Option<Address> {
        Some(Address { name: Some(name).filter(|name| !name.is_empty()).map(str::to_owned), uri: uri.to_owned() })
    }

    #[test]
    fn the_example_of_the_rfc_and_what_it_requires() {
        let message = vector("rfc3862");
        assert_eq!(message.from(), address("MR SANDERS", "im:piglet@100akerwood.com"));
        assert_eq!(message.to(), address("Depressed Donkey", "im:eeyore@100akerwood.com"));
        let subjects: Vec<(String, &[(String, String)])> =
            message.all("Subject").map(|header| (header.text(), header.params.as_slice())).collect();
        let french = [("lang".to_owned(), "fr".to_owned())];
        assert_eq!(
            subjects,
            [
                ("the weather will be fine today".to_owned(), &[][..]),
                ("beau temps prevu pour aujourd'hui".to_owned(), &french[..]),
            ]
        );
        assert_eq!(message.not_understood(), ["MyFeatures.VitalMessageOption"]);
        assert_eq!(message.content_type(), "text/xml; charset=utf-8");
        assert_eq!(message.content_header("content-id"), Some("<1234567890@foo.com>"));
        assert!(message.body.starts_with(b"<body>\r\n"));
        assert_eq!(message.date_time(), Some(DateTime { unix: 976_743_600.0, offset: -480 }));
    }

    #[test]
    fn names_content_and_types_of_all_vectors() {
        let table: [(&str, &str, &str, &str, &[u8]); 13] = [
            ("plain-chat", "Alice", "sip:alice@example.com", "text/plain;charset=utf-8", b"Hello"),
            ("utf8", "Alice", "sip:alice@example.com", "text/plain", "Grüße 你好 🎉".as_bytes()),
            ("no-name", "", "sip:alice@example.com", "text/plain", b"x"),
            ("unquoted-name-with-spaces", "Winnie the Pooh", "im:pooh@100akerwood.com", "text/plain", b"x"),
            ("escaped-name", "say \"hi\" \\", "sip:alice@example.com", "text/plain", b"x"),
            ("header-unicode-escape", "René", "sip:rene@example.com", "text/plain", b"x"),
            ("cc-two", "Alice", "sip:alice@example.com", "text/plain", b"x"),
            ("empty-body", "Alice", "sip:alice@example.com", "text/plain", b""),
            ("html", "Alice", "sip:alice@example.com", "text/html; charset=utf-8", b"<p>hi</p>"),
            ("lf-only", "Alice", "sip:alice@example.com", "text/plain", b"x"),
            ("datetime-offset", "Alice", "sip:alice@example.com", "text/plain", b"x"),
            ("datetime-leap-second", "Alice", "sip:alice@example.com", "text/plain", b"x"),
            ("nested-multipart-image", "Alice", "sip:alice@example.com", "image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ];
        for (name, from, uri, content_type, content) in table {
            let message = vector(name);
            assert_eq!(message.from(), address(from, uri), "{name}");
            assert!(message.to().is_some(), "{name}");
            let kind = message.content_type().split(';').next().unwrap();
            assert_eq!(kind, content_type.split(';').next().unwrap(), "{name}");
            assert_eq!(&message.body[..], content, "{name}");
            assert!(message.not_understood().is_empty(), "{name}");
            assert_eq!(Cpim::parse(message.write()).unwrap(), message, "{name} written and read again");
        }
        let copies: Vec<String> = vector("cc-two").all("cc").map(|cc| cc.to_address().unwrap().uri).collect();
        assert_eq!(copies, ["sip:carol@example.org", "sip:dave@example.org"]);
        assert!(vector("iscomposing").content_type().starts_with("application/im-iscomposing+xml"));
    }

    #[test]
    fn what_imdn_adds_is_found_under_any_prefix() {
        let message = vector("imdn-request");
        assert_eq!(message.imdn("Message-ID").as_deref(), Some("Adk3"));
        assert_eq!(message.imdn("Disposition-Notification").as_deref(), Some("positive-delivery, display"));
        assert_eq!(vector("imdn-report").imdn("Message-ID").as_deref(), Some("bdk4"));
        let other = "From: <im:a@b>\r\nNS: x <urn:ietf:params:imdn>\r\nx.Message-ID: 7\r\nimdn.Foo: 1\r\n\
                     Require: x.Message-ID, imdn.Foo, y.Z\r\n\r\nContent-Type: text/plain\r\n\r\n";
        let other = Cpim::parse(other.into()).unwrap();
        assert_eq!(other.imdn("Message-ID").as_deref(), Some("7"));
        assert_eq!(other.not_understood(), ["imdn.Foo", "y.Z"]);
    }

    #[test]
    fn times() {
        let unix = |text: &str| DateTime::parse(text).map(|time| (time.unix, time.offset));
        let table = [
            ("1970-01-01T00:00:00Z", Some((0.0, 0))),
            ("2026-11-21T02:30:00.125Z", Some((1_795_228_200.125, 0))),
            ("2026-11-21T08:00:00+05:30", Some((1_795_228_200.0, 330))),
            ("2000-02-29t23:59:59z", Some((951_868_799.0, 0))),
            ("2016-12-31T23:59:60Z", Some((1_483_228_799.0, 0))),
            ("1900-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-21T24:00:00Z", None),
            ("2026-11-21T02:30:00", None),
            ("2026-11-21", None),
            ("yesterday", None),
            ("", None),
            ("2026-11-21T02:30:00.é", None),
        ];
        for (text, expected) in table {
            assert_eq!(unix(text), expected, "{text}");
        }
        for millis in [0, 951_868_799_000, 1_795_228_200_125, 4_102_444_800_000, 253_402_300_799_999u64] {
            let text = DateTime::text(UNIX_EPOCH + Duration::from_millis(millis));
            let read = DateTime::parse(&text).unwrap().unix;
            assert!((read - millis as f64 / 1000.0).abs() < 0.000_5, "{millis} {text}");
        }
    }

    #[test]
    fn blank_lines_are_forgiven() {
        let table = [
            ("\r\n\r\nFrom: <im:a@b>\r\n\r\nContent-Type: text/plain\r\n\r\nhi", "text/plain", "hi"),
            ("From: <im:a@b>\r\nContent-Type: text/html\r\n\r\nhi", "text/html", "hi"),
            ("From: <im:a@b>\r\n\r\nhi: there\r\n\r\nyou", "text/plain;charset=utf-8", "hi: there\r\n\r\nyou"),
            ("From: <im:a@b>\r\n\r\n\r\nhi", "text/plain;charset=utf-8", "hi"),
            ("From: <im:a@b>\r\n\r\nContent-Type: a/b;\r\n c=d\r\n\r\n", "a/b; c=d", ""),
            ("From: <im:a@b>", "text/plain;charset=utf-8", ""),
            ("From: <im:a@b>\r\n\r\n", "text/plain;charset=utf-8", ""),
            ("From:<im:a@b>\n\ncontent-type:text/x\n\nhi\n", "text/x", "hi\n"),
        ];
        for (text, content_type, body) in table {
            let message = Cpim::parse(text.into()).unwrap();
            assert_eq!(message.from(), address("", "im:a@b"), "{text:?}");
            assert_eq!((message.content_type(), &message.body[..]), (content_type, body.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_message_is_said_so_and_limits_hold() {
        let refused = |bytes: Vec<u8>| Cpim::parse(bytes.into()).unwrap_err();
        assert_eq!(refused(vec![]), CpimError::Empty);
        assert_eq!(refused(b"\r\n\r\n".to_vec()), CpimError::Empty);
        assert_eq!(refused(b"hello\r\n".to_vec()), CpimError::NotAHeader("hello".into()));
        assert_eq!(refused(b"\xff: x\r\n".to_vec()), CpimError::NotAHeader("\\xff: x".into()));
        assert_eq!(refused("A: b\r\n".repeat(MAX_HEADERS + 1).into()), CpimError::TooMany);
        assert_eq!(refused(format!("A: {}", "x".repeat(MAX_HEADER_BYTES)).into()), CpimError::TooLong);
        let long_body = format!("A: b\r\n\r\nContent-Type: a/b\r\n\r\n{}", "x".repeat(MAX_HEADER_BYTES * 2));
        assert_eq!(Cpim::parse(long_body.into()).unwrap().body.len(), MAX_HEADER_BYTES * 2);
        let unwrapped = format!("A: b\r\n\r\n{}", "x".repeat(MAX_HEADER_BYTES * 2));
        assert_eq!(Cpim::parse(unwrapped.into()).unwrap().body.len(), MAX_HEADER_BYTES * 2);
    }

    #[test]
    fn every_vector_cut_anywhere_is_read_or_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cpim");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let bytes = Bytes::from(std::fs::read(entry.unwrap().path()).unwrap());
            for end in 0..bytes.len() {
                if let Ok(message) = Cpim::parse(bytes.slice(..end)) {
                    let _ =
                        (message.from(), message.to(), message.date_time(), message.not_understood(), message.write());
                    count += 1;
                }
            }
        }
        assert!(count > 1000, "{count}");
    }

    #[test]
    fn nothing_given_starts_a_line_of_its_own() {
        let evil = Address { name: Some("a\"b\\\r\nEvil: 1".into()), uri: "sip:x@y>\r\nEvil: 1".into() };
        let message = Cpim {
            headers: vec![Header::address("From", &evil), Header::new("Subject", "x\r\nEvil: 1 é \u{7}")],
            content_headers: vec![("Content-Type".into(), "text/plain\r\nEvil: 1".into())],
            body: Bytes::from_static(b"hi"),
        };
        let read = Cpim::parse(message.write()).unwrap();
        assert_eq!((read.headers.len(), read.content_headers.len()), (2, 1));
        assert_eq!(read.from().unwrap().name.as_deref(), Some("a\"b\\\r\nEvil: 1"));
        assert_eq!(read.header("Subject").unwrap().text(), "x\r\nEvil: 1 é \u{7}");
        let lone =
            Header { name: "Subject".into(), params: vec![], raw: "\\ud83d\\ude00 \\ud83d! \\uZZ \\x \\".into() };
        assert_eq!(lone.text(), "😀 \u{fffd}! uZZ x \\");
    }
}
