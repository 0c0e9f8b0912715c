//! What REFER and its reports say: Refer-To and Referred-By (RFC 3515, RFC 3892), the Replaces inside them (RFC 3891), and
//! the start line that a NOTIFY brings back (`message/sipfrag`, RFC 3420).

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt;

use super::build::reason_phrase;
use super::dialog::Dialog;
use super::headers::{NameAddr, Replaces};
use super::message::{HeaderName, Message};
use super::uri::Uri;

/// The body that reports how a transfer goes.
pub const SIPFRAG: &str = "message/sipfrag";

/// Longest reason phrase that is kept of a report.
const MAX_REASON: usize = 128;

/// Longest Referred-By or Replaces that is carried on into the new call.
const MAX_CARRIED: usize = 1024;

/// What a REFER asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferTo {
    /// Whom to call, without headers and `method`.
    pub target: Uri,
    /// The Replaces of the INVITE to send, as it is written in a message; it can be read.
    pub replaces: Option<String>,
}

/// Why a REFER cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRefer {
    /// No single Refer-To, or one that cannot be read.
    Malformed(&'static str),
    /// Something else than a SIP address.
    Scheme,
    /// Something else than a call.
    Method,
}

impl ReferTo {
    /// Reads the Refer-To of a REFER.
    ///
    /// # Errors
    /// [`BadRefer`] tells which rule it breaks.
    pub fn of(request: &Message) -> Result<Self, BadRefer> {
        let mut lines = request.header_lines(HeaderName::ReferTo);
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(BadRefer::Malformed("REFER needs one Refer-To"));
        };
        let address = NameAddr::parse(line).ok_or(BadRefer::Malformed("Refer-To cannot be read"))?;
        let uri = address.uri().map_err(|_| BadRefer::Malformed("the URI in Refer-To cannot be read"))?;
        if !uri.is_sip() {
            return Err(BadRefer::Scheme);
        }
        let method = uri.parameter("method").map(Option::unwrap_or_default);
        if method.is_some_and(|method| !method.eq_ignore_ascii_case("INVITE")) {
            return Err(BadRefer::Method);
        }
        let mut replaces = uri.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
        let (one, more) = (replaces.next().map(|(_, value)| value.clone()), replaces.next());
        if let Some(value) = &one
            && (more.is_some() || value.len() > MAX_CARRIED || !is_one_replaces(value))
        {
            return Err(BadRefer::Malformed("the Replaces in Refer-To cannot be read"));
        }
        let mut target = uri.without_parameter("method");
        target.headers.clear();
        Ok(Self { target, replaces: one })
    }
}

fn is_one_replaces(value: &str) -> bool {
    !value.contains([',', '\r', '\n', '\0']) && Replaces::parse(value.as_bytes()).is_some()
}

/// The Replaces with which a third party takes over our place in a dialog, as the peer of that dialog has to read it: its
/// own tag is the one in `to-tag` (RFC 3891 §3).
pub fn replaces_for_peer_of(dialog: &Dialog) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    // A peer of RFC 2543 has no tag: RFC 3891 §3 writes 0 for it.
    let to_tag = Some(text(dialog.remote_tag())).filter(|tag| !tag.is_empty()).unwrap_or_else(|| "0".into());
    format!("{};to-tag={to_tag};from-tag={}", text(dialog.call_id()), dialog.local_tag())
}

/// Referred-By as it goes into the new call, and the URI in it; nothing when it cannot be read.
pub fn referred_by(request: &Message) -> Option<(String, Uri)> {
    let line = request.header(HeaderName::ReferredBy).filter(|line| line.len() <= MAX_CARRIED)?;
    let uri = NameAddr::parse(line)?.uri().ok()?;
    Some((std::str::from_utf8(line).ok()?.to_owned(), uri))
}

/// A start line on its way back to who asked for a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sipfrag {
    pub code: u16,
    pub reason: String,
}

impl Sipfrag {
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// Reads the start of a fragment; headers after it say nothing about the transfer. `None` unless it is a status line
    /// with a code of 100 to 699.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let line = body.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.trim_ascii().is_empty())?;
        let rest = line.trim_ascii().strip_prefix(b"SIP/2.0")?;
        if !rest.first()?.is_ascii_whitespace() {
            return None;
        }
        let rest = rest.trim_ascii();
        let (digits, reason) = rest.split_at_checked(3)?;
        let code: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        if !(100..700).contains(&code) || reason.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return None;
        }
        let reason: String = String::from_utf8_lossy(reason.trim_ascii()).chars().take(MAX_REASON).collect();
        Some(Self { code, reason: if reason.is_empty() { reason_phrase(code).to_owned() } else { reason } })
    }

    pub fn is_final(&self) -> bool {
        self.code >= 200
    }
}

impl fmt::Display for Sipfrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason: String = self.reason.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        write!(f, "SIP/2.0 {} {reason}\r\n", self.code)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sip::transport::{Flow, Transport};

    fn refer(headers: &str) -> Message {
        let text = format!(
            "REFER sip:alice@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\n\
             From: Bob <sip:bob@b.example>;tag=theirs\r\nTo: <sip:alice@a.example>;tag=ours\r\nCall-ID: id\r\n\
             CSeq: 7 REFER\r\nContact: <sip:bob@192.0.2.9>\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        Message::parse(text.into_bytes().into()).unwrap()
    }

    #[test]
    fn whom_to_call() {
        type Read<'a> = Result<(&'a str, Option<&'a str>), BadRefer>;
        let table: [(&str, Read<'_>); 17] = [
            ("<sip:carol@chicago.example.com>", Ok(("sip:carol@chicago.example.com", None))),
            ("sip:carol@chicago.example.com", Ok(("sip:carol@chicago.example.com", None))),
            ("\"Carol\" <sips:carol@c.example;transport=tcp>;x=1", Ok(("sips:carol@c.example;transport=tcp", None))),
            ("<sip:carol@c.example;method=INVITE>", Ok(("sip:carol@c.example", None))),
            ("<sip:carol@c.example?Subject=hi>", Ok(("sip:carol@c.example", None))),
            (
                "<sip:carol@127.0.0.13:5060?Replaces=878e%40127.0.0.12%3Bto-tag%3D9cdb%3Bfrom-tag%3D020b>",
                Ok(("sip:carol@127.0.0.13:5060", Some("878e@127.0.0.12;to-tag=9cdb;from-tag=020b"))),
            ),
            (
                "<sip:carol@c.example?Require=replaces&replaces=a%3Bfrom-tag%3D1%3Bto-tag%3D2%3Bearly-only>",
                Ok(("sip:carol@c.example", Some("a;from-tag=1;to-tag=2;early-only"))),
            ),
            ("<tel:+1900555>", Err(BadRefer::Scheme)),
            ("<https://c.example/>", Err(BadRefer::Scheme)),
            ("<sip:carol@c.example;method=BYE>", Err(BadRefer::Method)),
            ("<sip:carol@c.example;method>", Err(BadRefer::Method)),
            ("<sip:carol@>", Err(BadRefer::Malformed("the URI in Refer-To cannot be read"))),
            ("<sip:carol@c.example", Err(BadRefer::Malformed("Refer-To cannot be read"))),
            ("", Err(BadRefer::Malformed("Refer-To cannot be read"))),
            (
                "<sip:c@c.example?Replaces=a%3Bto-tag%3D1>",
                Err(BadRefer::Malformed("the Replaces in Refer-To cannot be read")),
            ),
            (
                "<sip:c@c.example?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2%0D%0AX%3A%201>",
                Err(BadRefer::Malformed("the Replaces in Refer-To cannot be read")),
            ),
            (
                "<sip:c@c.example?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2&Replaces=b%3Bto-tag%3D1%3Bfrom-tag%3D2>",
                Err(BadRefer::Malformed("the Replaces in Refer-To cannot be read")),
            ),
        ];
        for (line, expected) in table {
            let read = ReferTo::of(&refer(&format!("Refer-To: {line}\r\n")));
            let read =
                read.as_ref().map(|read| (read.target.to_string(), read.replaces.clone())).map_err(|error| *error);
            assert_eq!(read, expected.map(|(uri, replaces)| (uri.to_owned(), replaces.map(str::to_owned))), "{line}");
        }
        let none = Err(BadRefer::Malformed("REFER needs one Refer-To"));
        assert_eq!(ReferTo::of(&refer("")), none);
        assert_eq!(ReferTo::of(&refer("Refer-To: <sip:a@b>\r\nr: <sip:c@d>\r\n")), none);
    }

    #[test]
    fn who_asked() {
        let read = |line: &str| referred_by(&refer(&format!("Referred-By: {line}\r\n")));
        let (line, uri) = read("<sip:bob@b.example>;cid=\"1@b.example\"").unwrap();
        assert_eq!(
            (line.as_str(), uri.to_string().as_str()),
            ("<sip:bob@b.example>;cid=\"1@b.example\"", "sip:bob@b.example")
        );
        assert_eq!(read("<sip:bob@"), None);
        assert_eq!(read(&format!("<sip:{}@b.example>", "b".repeat(MAX_CARRIED))), None);
        assert_eq!(referred_by(&refer("")), None);
    }

    #[test]
    fn reports_are_read_and_written() {
        for (body, expected) in [
            ("SIP/2.0 100 Trying\r\n", Some((100, "Trying"))),
            ("SIP/2.0 200 OK", Some((200, "OK"))),
            ("\r\nSIP/2.0  486  Busy Here \r\nTo: x\r\n", Some((486, "Busy Here"))),
            ("SIP/2.0 603", Some((603, "Decline"))),
            ("SIP/2.0 99 Less", None),
            ("SIP/2.0 700 More", None),
            ("SIP/2.0 2000 OK", None),
            ("SIP/3.0 200 OK", None),
            ("SIP/2.0200 OK", None),
            ("INVITE sip:a@b SIP/2.0", None),
            ("", None),
        ] {
            let read = Sipfrag::parse(body.as_bytes());
            assert_eq!(read, expected.map(|(code, reason)| Sipfrag::new(code, reason)), "{body:?}");
        }
        assert_eq!(Sipfrag::new(200, "OK").to_string(), "SIP/2.0 200 OK\r\n");
        assert_eq!(Sipfrag::new(200, "O\r\nK").to_string(), "SIP/2.0 200 O  K\r\n");
    }

    #[test]
    fn the_place_in_a_dialog_is_named_as_its_peer_knows_it() {
        let invite = "INVITE sip:alice@a.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\n\
                      From: <sip:bob@b.example>;tag=theirs\r\nTo: <sip:alice@a.example>\r\nCall-ID: id@x\r\n\
                      CSeq: 7 INVITE\r\nContact: <sip:bob@192.0.2.9>\r\nContent-Length: 0\r\n\r\n";
        let flow = Flow::to(Transport::Udp, "192.0.2.9:5060".parse().unwrap());
        let read = |text: String| Message::parse(text.into_bytes().into()).unwrap();
        let dialog = Dialog::uas(&read(invite.to_owned()), "ours", flow).unwrap();
        assert_eq!(replaces_for_peer_of(&dialog), "id@x;to-tag=theirs;from-tag=ours");
        let old = Dialog::uas(&read(invite.replace(";tag=theirs", "")), "ours", flow).unwrap();
        assert_eq!(replaces_for_peer_of(&old), "id@x;to-tag=0;from-tag=ours");
    }
}
