//! What INFO carries (RFC 6086): info packages, and the two ways in which phones put a digit into it.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::headers::{ContentType, List, MAX_LIST, value_and_params};
use super::text::is_token;

/// One digit as gateways send it: `Signal=5` and `Duration=160` on lines of their own.
pub const DTMF_RELAY: &str = "application/dtmf-relay";
/// The digit alone.
pub const DTMF: &str = "application/dtmf";

/// The package an `Info-Package` header names; `None` when it is no token.
pub fn package(value: &[u8]) -> Option<&str> {
    let (name, _) = value_and_params(value);
    is_token(name).then(|| std::str::from_utf8(name).ok())?
}

/// True when a `Recv-Info` value lists this package: the names are compared as they are (RFC 6086 §4.2.1), without their
/// parameters.
pub fn receives(value: &[u8], wanted: &str) -> bool {
    List::new(value).take(MAX_LIST).any(|element| package(element) == Some(wanted))
}

/// The digit in a body of [`DTMF_RELAY`] or [`DTMF`]; `None` for any other body, and for what is no digit (a flash, a list of
/// digits). A pound sign may be written as 11, a star as 10, A to D as 12 to 15, as in RFC 4733 events.
pub fn dtmf_digit(content_type: ContentType<'_>, body: &[u8]) -> Option<char> {
    if !content_type.is(DTMF_RELAY) && !content_type.is(DTMF) {
        return None;
    }
    let lines =
        body.split(|byte| matches!(byte, b'\r' | b'\n')).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let mut signal = None;
    for line in lines {
        match line.iter().position(|byte| matches!(byte, b'=' | b':')) {
            Some(at) => {
                let (name, value) = line.split_at_checked(at)?;
                if name.trim_ascii().eq_ignore_ascii_case(b"signal") {
                    signal.get_or_insert(value.get(1..)?.trim_ascii());
                }
            }
            None if content_type.is(DTMF) => {
                signal.get_or_insert(line);
            }
            None => {}
        }
    }
    match signal? {
        [digit @ (b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D' | b'a'..=b'd')] => Some(digit.to_ascii_uppercase().into()),
        b"10" => Some('*'),
        b"11" => Some('#'),
        [b'1', letter @ b'2'..=b'5'] => Some((letter - b'2' + b'A').into()),
        _ => None,
    }
}

/// The body of [`DTMF_RELAY`] for one digit, `milliseconds` long.
pub fn dtmf_relay(digit: char, milliseconds: u32) -> String {
    format!("Signal={digit}\r\nDuration={milliseconds}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_as_phones_and_gateways_write_them() {
        let table: [(&str, &str, Option<char>); 24] = [
            ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", Some('5')),
            ("application/dtmf-relay", "Signal=2\r\nDuration=100", Some('2')),
            ("application/dtmf-relay", "Signal= 9 \nDuration= 250 \n", Some('9')),
            ("application/dtmf-relay", "signal=#", Some('#')),
            ("Application/DTMF-Relay; charset=utf-8", "Signal=*\r\n", Some('*')),
            ("application/dtmf-relay", "Duration=160\r\nSignal=d\r\n", Some('D')),
            ("application/dtmf-relay", "Signal=10", Some('*')),
            ("application/dtmf-relay", "Signal=11", Some('#')),
            ("application/dtmf-relay", "Signal=12", Some('A')),
            ("application/dtmf-relay", "Signal=15", Some('D')),
            ("application/dtmf-relay", "Signal=1\r\nSignal=2", Some('1')),
            ("application/dtmf", "7", Some('7')),
            ("application/dtmf", "\r\n#\r\n", Some('#')),
            ("application/dtmf", "Signal=3\r\nDuration=160", Some('3')),
            ("application/dtmf", "12", Some('A')),
            ("application/dtmf", "123", None),
            ("application/dtmf-relay", "5", None),
            ("application/dtmf-relay", "Signal=16", None), // a flash
            ("application/dtmf-relay", "Signal=!", None),
            ("application/dtmf-relay", "Signal=", None),
            ("application/dtmf-relay", "Signal=55", None),
            ("application/dtmf-relay", "", None),
            ("application/dtmf-relay", "=5", None),
            ("text/plain", "Signal=5", None),
        ];
        for (kind, body, expected) in table {
            let kind = ContentType::parse(kind.as_bytes()).expect("a content type");
            assert_eq!(dtmf_digit(kind, body.as_bytes()), expected, "{body:?}");
        }
        let relay = ContentType::parse(DTMF_RELAY.as_bytes()).expect("a content type");
        for digit in "0123456789*#ABCD".chars() {
            assert_eq!(dtmf_digit(relay, dtmf_relay(digit, 100).as_bytes()), Some(digit));
        }
    }

    #[test]
    fn packages_are_compared_as_they_are() {
        assert_eq!(package(b" conference-info;since=3 "), Some("conference-info"));
        assert_eq!(package(b"two words"), None);
        assert_eq!(package(b""), None);
        assert!(receives(b"foo;max=2, bar", "foo"));
        assert!(receives(b"foo, bar", "bar"));
        assert!(!receives(b"Foo, barbar", "foo"));
        assert!(!receives(b"", ""));
    }
}
