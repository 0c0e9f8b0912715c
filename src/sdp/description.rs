//! One session description: every line kept, typed getters on demand (RFC 8866).
//!
//! `sdp-types` is the line model. Lines it does not know (or would rewrite) are set aside before it parses and put back
//! in their place when the description is written.

use std::fmt;
use std::net::IpAddr;

use sdp_types::Session;

use super::crypto::{Crypto, CryptoError};
use crate::media::Direction;

/// Longest description read, in bytes: what one UDP datagram can hold.
const MAX_BYTES: usize = 65_536;
/// Most m-lines in one description: a call with audio, video, chat and files twice over.
pub const MAX_MEDIA: usize = 16;
/// Most a-lines in one description: a browser's offer of audio and video has about 200.
pub const MAX_ATTRIBUTES: usize = 512;
/// Most lines of other kinds (b=, c=, unknown ones, …).
const MAX_OTHER_LINES: usize = 128;
/// Most `a=crypto` lines looked at in one m-line; more are not read.
pub const MAX_CRYPTO_LINES: usize = 8;

/// What is wrong with a description, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SdpError {
    pub what: String,
}

impl SdpError {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// A line outside the model, and where it stood.
#[derive(Clone, Debug, PartialEq)]
struct KeptLine {
    /// 0 for the session part, n for the n-th m-line.
    section: usize,
    /// How many lines of the model stand before it in its section.
    after: usize,
    text: String,
}

/// A parsed description that prints back every line it was given.
#[derive(Clone, PartialEq)]
pub struct Description {
    model: Session,
    kept: Vec<KeptLine>,
    /// The o= line as it came, where the model cannot hold it (a version above 64 bits, blanks in the user name).
    origin_line: Option<String>,
}

/// The o= line: who made a description. Numbers stay text, they may be longer than any integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub username: String,
    pub session_id: String,
    pub version: String,
    pub address: String,
}

impl Description {
    /// Reads a description. Bare line feeds, a missing `s=` or `t=`, lines out of order and unknown lines are taken.
    ///
    /// # Errors
    /// When it does not begin with `v=0`, when a line is not `x=value`, when an m= or c= line cannot be read, and beyond
    /// the limits of this module.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        if bytes.len() > MAX_BYTES {
            return Err(SdpError::new(format!("description of {} bytes is longer than {MAX_BYTES}", bytes.len())));
        }
        // An octet that is not UTF-8 sits in a name or a comment; losing it must not lose the call.
        let text = String::from_utf8_lossy(bytes);
        let scan = Scan::run(&text)?;
        let model = Session::parse(scan.known.as_bytes()).map_err(|error| SdpError::new(error.to_string()))?;
        Ok(Self { model, kept: scan.kept, origin_line: scan.origin_line })
    }

    pub(super) fn from_model(model: Session) -> Self {
        Self { model, kept: Vec::new(), origin_line: None }
    }

    /// The o= line; empty fields when the description has none.
    pub fn origin(&self) -> Origin {
        let Some(line) = &self.origin_line else {
            let origin = &self.model.origin;
            return Origin {
                username: origin.username.clone().unwrap_or_else(|| "-".into()),
                session_id: origin.sess_id.clone(),
                version: origin.sess_version.to_string(),
                address: origin.unicast_address.clone(),
            };
        };
        // The user name is first and may hold blanks, so count from the end.
        let mut fields = line.rsplitn(6, ' ').map(str::to_owned);
        let address = fields.next().unwrap_or_default();
        let mut fields = fields.skip(2);
        let version = fields.next().unwrap_or_default();
        let session_id = fields.next().unwrap_or_default();
        let username = fields.next().unwrap_or_default();
        Origin { username, session_id, version, address }
    }

    /// The m-lines, in order.
    pub fn media(&self) -> impl ExactSizeIterator<Item = Media<'_>> {
        self.model.medias.iter().map(|media| Media { session: &self.model, media })
    }

    /// A session-level attribute: `Some("")` for a flag.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        attributes(&self.model.attributes, name).next()
    }

    fn write(&self, out: &mut impl fmt::Write, secrets: bool) -> fmt::Result {
        let text = self.model.to_string();
        let mut kept = self.kept.iter().peekable();
        let mut place = (0, 0); // section, lines of the model written in it
        for line in text.split_terminator("\r\n") {
            if line.starts_with("m=") {
                place = (place.0 + 1, 0);
            }
            while let Some(extra) = kept.next_if(|extra| (extra.section, extra.after) <= place) {
                write_line(out, &extra.text, secrets)?;
            }
            match &self.origin_line {
                Some(origin) if line.starts_with("o=") => write!(out, "o={origin}\r\n")?,
                _ => write_line(out, line, secrets)?,
            }
            place.1 += 1;
        }
        kept.try_for_each(|extra| write_line(out, &extra.text, secrets))
    }
}

fn write_line(out: &mut impl fmt::Write, line: &str, secrets: bool) -> fmt::Result {
    let hidden = ["a=crypto:", "k="].into_iter().find(|start| line.starts_with(start));
    match hidden {
        Some(start) if !secrets => write!(out, "{start}…\r\n"),
        _ => write!(out, "{line}\r\n"),
    }
}

/// The description as it goes on the wire, keys included.
impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, true)
    }
}

/// The lines with the keys left out.
impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text, false)?;
        f.debug_tuple("Description").field(&text).finish()
    }
}

/// The lines sorted into those for the model and those kept beside it.
struct Scan {
    /// Blank lines stand for kept ones, so that the model's errors name the right line.
    known: String,
    kept: Vec<KeptLine>,
    origin_line: Option<String>,
}

impl Scan {
    fn run(text: &str) -> Result<Self, SdpError> {
        let mut scan = Self { known: String::with_capacity(text.len() + 16), kept: Vec::new(), origin_line: None };
        let (mut section, mut in_section, mut attributes, mut others) = (0, 0, 0, 0);
        for (index, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                scan.known.push_str("\r\n");
                continue;
            }
            let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
                return Err(SdpError::new(format!("line {} is not of the form x=value", index + 1)));
            };
            match kind {
                "m" => (section, in_section) = (section + 1, 0),
                "a" => attributes += 1,
                _ => others += 1,
            }
            if section > MAX_MEDIA || attributes > MAX_ATTRIBUTES || others > MAX_OTHER_LINES {
                return Err(SdpError::new(format!(
                    "more than {MAX_MEDIA} media, {MAX_ATTRIBUTES} attributes or {MAX_OTHER_LINES} other lines"
                )));
            }
            match kind {
                "o" if !holds_origin(value) => {
                    scan.origin_line = Some(value.to_owned());
                    scan.known.push_str("o=- 0 0 IN IP4 0.0.0.0\r\n");
                }
                // Blanks doubled or at the end are seen from hand-written stacks.
                "m" | "c" => {
                    let fields: Vec<&str> = value.split_ascii_whitespace().collect();
                    scan.known.push_str(&format!("{kind}={}\r\n", fields.join(" ")));
                }
                _ if is_known(kind, value, section) => {
                    scan.known.push_str(line);
                    scan.known.push_str("\r\n");
                }
                _ => {
                    scan.kept.push(KeptLine { section, after: in_section, text: line.to_owned() });
                    scan.known.push_str("\r\n");
                    continue;
                }
            }
            in_section += 1;
        }
        Ok(scan)
    }
}

/// Whether the model can hold this o= line and write it back as it is.
fn holds_origin(value: &str) -> bool {
    let fields: Vec<&str> = value.split(' ').collect();
    let [username, session_id, version, network, family, address] = fields[..] else { return false };
    is_number(version) && [username, session_id, network, family, address].iter().all(|field| !field.is_empty())
}

/// Whether the model takes a line of this kind and writes it back as it is.
fn is_known(kind: &str, value: &str, section: usize) -> bool {
    match kind {
        "v" | "o" | "s" | "u" | "e" | "p" => section == 0,
        "i" | "k" | "a" => true,
        "b" => value.split_once(':').is_some_and(|(_, number)| is_number(number)),
        "t" => section == 0 && value.split_once(' ').is_some_and(|(start, stop)| is_number(start) && is_number(stop)),
        _ => false, // r= and z= would be rewritten, others forgotten
    }
}

/// A `u64` without sign or leading zeros.
fn is_number(text: &str) -> bool {
    text.parse::<u64>().is_ok_and(|number| number.to_string() == text)
}

fn attributes<'a>(list: &'a [sdp_types::Attribute], name: &str) -> impl Iterator<Item = &'a str> {
    list.iter()
        .filter(move |attribute| attribute.attribute.eq_ignore_ascii_case(name))
        .map(|attribute| attribute.value.as_deref().unwrap_or(""))
}

/// One m-line with its attributes, and the session's where it falls back to them.
#[derive(Clone, Copy)]
pub struct Media<'a> {
    session: &'a Session,
    media: &'a sdp_types::Media,
}

/// `a=rtpmap`: the encoding behind a payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpMap<'a> {
    pub encoding: &'a str,
    /// Hz.
    pub clock_rate: u32,
    pub channels: u8,
}

/// The address of a c= line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection<'a> {
    Ip(IpAddr),
    /// A host name, or an address of an unknown kind.
    Name(&'a str),
}

/// `a=rtcp`: where RTCP goes when it is not the port after RTP's (RFC 3605).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtcp {
    pub port: u16,
    pub address: Option<IpAddr>,
}

impl<'a> Media<'a> {
    /// "audio", "video", "message", "image", "application", …
    pub fn kind(&self) -> &'a str {
        &self.media.media
    }

    /// 0 when the stream is refused or gone.
    pub fn port(&self) -> u16 {
        self.media.port
    }

    /// `RTP/AVP`, `UDP/TLS/RTP/SAVPF`, `TCP/MSRP`, …
    pub fn protocol(&self) -> &'a str {
        &self.media.proto
    }

    /// The formats of the m-line as text: payload types for RTP, `*` for MSRP.
    pub fn formats(&self) -> impl Iterator<Item = &'a str> {
        self.media.fmt.split_ascii_whitespace()
    }

    /// An attribute of this m-line only: `Some("")` for a flag.
    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes(name).next()
    }

    /// All attributes of this name in this m-line.
    pub fn attributes(&self, name: &str) -> impl Iterator<Item = &'a str> {
        attributes(&self.media.attributes, name)
    }

    /// An attribute of this m-line, or else of the session.
    pub fn inherited(&self, name: &str) -> Option<&'a str> {
        self.attribute(name).or_else(|| attributes(&self.session.attributes, name).next())
    }

    /// The c= line of the m-line, or else of the session.
    pub fn connection(&self) -> Option<Connection<'a>> {
        let connection = self.media.connections.first().or(self.session.connection.as_ref())?;
        let text = connection.connection_address.as_str();
        // A suffix (`/ttl`) belongs to multicast, which is refused by the address itself.
        let address = text.split('/').next().unwrap_or(text);
        Some(address.parse::<IpAddr>().map_or(Connection::Name(text), |ip| Connection::Ip(ip.to_canonical())))
    }

    /// The direction as its author sees it; `sendrecv` when nothing is said (RFC 3264 §5.1).
    pub fn direction(&self) -> Direction {
        const ALL: [Direction; 4] =
            [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];
        [&self.media.attributes, &self.session.attributes]
            .into_iter()
            .find_map(|list| {
                list.iter().find_map(|attribute| {
                    ALL.into_iter().find(|direction| attribute.attribute.eq_ignore_ascii_case(direction.name()))
                })
            })
            .unwrap_or(Direction::SendRecv)
    }

    /// `a=rtpmap` of a payload type; the first one counts.
    pub fn rtpmap(&self, payload_type: u8) -> Option<RtpMap<'a>> {
        let value = self.parameters("rtpmap", payload_type)?;
        let mut parts = value.split('/').map(str::trim);
        let encoding = parts.next()?;
        let clock_rate = parts.next()?.parse().ok()?;
        let channels = parts.next().map_or(Some(1), |channels| channels.parse().ok())?;
        Some(RtpMap { encoding, clock_rate, channels })
    }

    /// `a=fmtp` of a payload type: its format parameters as text.
    pub fn fmtp(&self, payload_type: u8) -> Option<&'a str> {
        self.parameters("fmtp", payload_type)
    }

    /// The rest of an attribute that begins with a payload type.
    fn parameters(&self, name: &str, payload_type: u8) -> Option<&'a str> {
        self.attributes(name).find_map(|value| {
            let (number, rest) = value.trim_start().split_once([' ', '\t'])?;
            (number.parse() == Ok(payload_type)).then(|| rest.trim())
        })
    }

    /// `a=ptime`, milliseconds.
    pub fn ptime(&self) -> Option<u32> {
        self.inherited("ptime")?.trim().parse().ok()
    }

    /// `a=maxptime`, milliseconds.
    pub fn max_ptime(&self) -> Option<u32> {
        self.inherited("maxptime")?.trim().parse().ok()
    }

    /// `a=rtcp`; `None` when it is missing or makes no sense.
    pub fn rtcp(&self) -> Option<Rtcp> {
        let mut fields = self.attribute("rtcp")?.split_ascii_whitespace();
        let port = fields.next()?.parse().ok().filter(|port| *port != 0)?;
        let address = fields.nth(2).and_then(|address| address.parse::<IpAddr>().ok());
        Some(Rtcp { port, address: address.map(|address| address.to_canonical()) })
    }

    /// Whether `a=rtcp-mux` is there (RFC 5761).
    pub fn rtcp_mux(&self) -> bool {
        self.attribute("rtcp-mux").is_some()
    }

    /// `a=mid` (RFC 5888).
    pub fn mid(&self) -> Option<&'a str> {
        self.attribute("mid")
    }

    /// Whether a DTLS certificate fingerprint is given, here or for the session.
    pub fn has_fingerprint(&self) -> bool {
        self.inherited("fingerprint").is_some()
    }

    /// The `a=crypto` lines, the first [`MAX_CRYPTO_LINES`] of them.
    pub fn crypto(&self) -> impl Iterator<Item = Result<Crypto, CryptoError>> {
        self.attributes("crypto").take(MAX_CRYPTO_LINES).map(Crypto::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! vector {
        ($name:literal) => {
            ($name, include_bytes!(concat!("../../tests/data/sdp/", $name, ".sdp")).as_slice())
        };
    }

    /// Well-formed ones: every byte comes back.
    const EXACT: [(&str, &[u8]); 11] = [
        vector!("asterisk-style"),
        vector!("baresip-style"),
        vector!("big-origin-numbers"),
        vector!("chromium-av-offer"),
        vector!("datachannel"),
        vector!("empty-session-name"),
        vector!("gstreamer-rtsp"),
        vector!("linphone-style"),
        vector!("msrp"),
        vector!("rfc4566-full"),
        vector!("no-connection-port0"),
    ];

    fn parse(text: &str) -> Description {
        Description::parse(text.as_bytes()).expect("the description is fine")
    }

    #[test]
    fn well_formed_descriptions_print_back_byte_for_byte() {
        for (name, bytes) in EXACT.into_iter().chain([vector!("unknown-line-type")]) {
            let description = Description::parse(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(description.to_string(), String::from_utf8_lossy(bytes), "{name}");
        }
    }

    #[test]
    fn tolerated_descriptions_keep_every_line() {
        let (_, lf_only) = vector!("lf-only");
        let text = String::from_utf8_lossy(lf_only).replace('\n', "\r\n");
        assert_eq!(Description::parse(lf_only).unwrap().to_string(), text);

        let (_, missing) = vector!("missing-s-and-t");
        let text = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        assert_eq!(Description::parse(missing).unwrap().to_string(), text);

        let (_, disordered) = vector!("attribute-before-bandwidth");
        let printed = Description::parse(disordered).unwrap().to_string();
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&printed), sorted(&String::from_utf8_lossy(disordered)));
    }

    #[test]
    fn unknown_lines_stay_in_their_section() {
        let text = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\ny=1\r\nm=audio 4000 RTP/AVP 0\r\nf=first\r\n\
                    a=ptime:20\r\nf=second\r\nm=video 0 RTP/AVP 31\r\nb=AS:many\r\n";
        assert_eq!(parse(text).to_string(), text);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, expected) in [
            ("", "No version line"),
            ("hello", "line 1 is not of the form x=value"),
            ("v=1\r\n", "Invalid version at line 1: 1"),
            ("v=0\r\nzz=1\r\n", "line 2 is not of the form x=value"),
            ("v=0\r\ny=1\r\nm=audio x RTP/AVP 0\r\n", "Invalid field formatting in line 3 at Media port"),
            ("v=0\r\nm=audio 65536 RTP/AVP 0\r\n", "Invalid field formatting in line 2 at Media port"),
            ("v=0\r\nm=audio 4000\r\n", "Missing field Media proto in line 2"),
            ("v=0\r\nc=IN IP4\r\n", "Missing field Connection connection-address in line 2"),
        ] {
            let error = Description::parse(text.as_bytes()).expect_err(text);
            assert_eq!(error.what, expected, "{text}");
        }
    }

    #[test]
    fn limits_hold() {
        let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n";
        for (line, limit) in
            [("m=audio 0 RTP/AVP 0\r\n", MAX_MEDIA), ("a=x\r\n", MAX_ATTRIBUTES), ("y=x\r\n", MAX_OTHER_LINES - 4)]
        {
            assert!(Description::parse((head.to_owned() + &line.repeat(limit)).as_bytes()).is_ok(), "{limit} {line}");
            assert!(Description::parse((head.to_owned() + &line.repeat(limit + 1)).as_bytes()).is_err(), "{line}");
        }
        assert!(Description::parse((head.to_owned() + "i=" + &"x".repeat(MAX_BYTES)).as_bytes()).is_err());
        let many = head.to_owned() + "m=audio 4 RTP/SAVP 0\r\n" + &"a=crypto:1 x\r\n".repeat(20);
        assert_eq!(parse(&many).media().next().unwrap().crypto().count(), MAX_CRYPTO_LINES);
    }

    #[test]
    fn a_description_may_be_cut_anywhere() {
        for (name, bytes) in EXACT {
            for length in 0..bytes.len() {
                let Ok(description) = Description::parse(bytes.get(..length).unwrap()) else { continue };
                let printed = description.to_string();
                let again =
                    Description::parse(printed.as_bytes()).unwrap_or_else(|error| panic!("{name} {length}: {error}"));
                assert_eq!(again.to_string(), printed, "{name} cut to {length}");
            }
        }
    }

    #[test]
    fn getters_of_a_browser_offer() {
        let (_, bytes) = vector!("chromium-av-offer");
        let description = Description::parse(bytes).unwrap();
        let audio = description.media().next().unwrap();
        assert_eq!((audio.kind(), audio.port(), audio.protocol()), ("audio", 9, "UDP/TLS/RTP/SAVPF"));
        assert_eq!(audio.formats().collect::<Vec<_>>(), ["111", "63", "9", "0", "8", "13", "110", "126"]);
        assert_eq!(audio.rtpmap(111), Some(RtpMap { encoding: "opus", clock_rate: 48_000, channels: 2 }));
        assert_eq!(audio.rtpmap(126), Some(RtpMap { encoding: "telephone-event", clock_rate: 8_000, channels: 1 }));
        assert_eq!(audio.rtpmap(112), None);
        assert_eq!(audio.fmtp(111), Some("minptime=10;useinbandfec=1"));
        assert_eq!(audio.connection(), Some(Connection::Ip("0.0.0.0".parse().unwrap())));
        assert_eq!(audio.rtcp(), Some(Rtcp { port: 9, address: "0.0.0.0".parse().ok() }));
        assert!(audio.rtcp_mux() && audio.has_fingerprint());
        assert_eq!(audio.mid(), Some("0"));
        assert_eq!(description.attribute("group"), Some("BUNDLE 0 1"));
        assert_eq!(description.attribute("extmap-allow-mixed"), Some(""));
    }

    #[test]
    fn getters_fall_back_to_the_session() {
        let text = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\na=inactive\r\na=ptime:30\r\n\
                    m=audio 4000 RTP/AVP 0\r\nm=audio 4002 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\na=recvonly\r\n\
                    a=ptime:40\r\nm=audio 4004 RTP/AVP 0\r\nc=IN IP4 atlanta.example.com\r\n";
        let description = parse(text);
        let seen: Vec<_> = description.media().map(|m| (m.connection(), m.direction(), m.ptime())).collect();
        assert_eq!(
            seen,
            [
                (Some(Connection::Ip("192.0.2.1".parse().unwrap())), Direction::Inactive, Some(30)),
                (Some(Connection::Ip("2001:db8::1".parse().unwrap())), Direction::RecvOnly, Some(40)),
                (Some(Connection::Name("atlanta.example.com")), Direction::Inactive, Some(30)),
            ]
        );
    }

    #[test]
    fn origins_of_any_shape_are_read() {
        for (line, expected) in [
            ("jdoe 5 7 IN IP4 192.0.2.1", ["jdoe", "5", "7", "192.0.2.1"]),
            (
                "- 18446744073709551615 99999999999999999999 IN IP4 h",
                ["-", "18446744073709551615", "99999999999999999999", "h"],
            ),
            ("John Doe 5 007 IN IP6 ::1", ["John Doe", "5", "007", "::1"]),
            ("x", ["", "", "", "x"]),
        ] {
            let text = format!("v=0\r\no={line}\r\ns=-\r\nt=0 0\r\n");
            let description = parse(&text);
            let origin = description.origin();
            assert_eq!([origin.username, origin.session_id, origin.version, origin.address], expected);
            assert_eq!(description.to_string(), text);
        }
    }

    #[test]
    fn debug_holds_no_key() {
        let (_, bytes) = vector!("baresip-style");
        let shown = format!("{:?}", Description::parse(bytes).unwrap());
        assert!(shown.contains("a=crypto:…") && !shown.contains("d0Rmd"), "{shown}");
    }
}
