//! How many messages wait in a mailbox: `application/simple-message-summary` (RFC 3842 §5).

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::sip::text::{cut_once, number};

pub const CONTENT_TYPE: &str = "application/simple-message-summary";

/// Classes that are kept: the RFC defines six.
const MAX_CLASSES: usize = 16;
/// Lines that are read; message headers may follow the counts, one block for each message.
const MAX_LINES: usize = 64;

/// Counts of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// "voice", "fax", "pager", "multimedia", "text", "none" or another, in lower case.
    pub class: String,
    pub new: u32,
    pub old: u32,
    pub urgent_new: u32,
    pub urgent_old: u32,
}

/// The state of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageSummary {
    pub messages_waiting: bool,
    /// The mailbox, as its server names it.
    pub account: Option<String>,
    pub counts: Vec<Count>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no Messages-Waiting")]
pub struct NoStatus;

impl MessageSummary {
    /// Reads a body; lines that say nothing known are passed over.
    ///
    /// # Errors
    /// Without `Messages-Waiting`, which is the one line that must be there.
    pub fn parse(body: &[u8]) -> Result<Self, NoStatus> {
        let mut waiting = None;
        let (mut account, mut counts) = (None, Vec::new());
        for line in body.split(|&byte| byte == b'\n').take(MAX_LINES) {
            let Some((name, value)) = cut_once(line, b':') else { continue };
            let (name, value) = (name.trim_ascii().to_ascii_lowercase(), value.trim_ascii());
            match name.as_slice() {
                b"messages-waiting" => waiting = waiting.or(Some(value.eq_ignore_ascii_case(b"yes"))),
                b"message-account" => account = Some(String::from_utf8_lossy(value).into_owned()),
                _ => {
                    let class = name.strip_suffix(b"-message");
                    let class = class.or((name == b"none").then_some(name.as_slice()));
                    if let Some(count) = class.and_then(|class| count(class, value))
                        && counts.len() < MAX_CLASSES
                    {
                        counts.push(count);
                    }
                }
            }
        }
        Ok(Self { messages_waiting: waiting.ok_or(NoStatus)?, account, counts })
    }
}

/// `new/old` and, in brackets, those of them that are urgent.
fn count(class: &[u8], value: &[u8]) -> Option<Count> {
    let (all, urgent) = match cut_once(value, b'(') {
        Some((all, urgent)) => (all, urgent.trim_ascii_end().strip_suffix(b")")),
        None => (value, None),
    };
    let (new, old) = pair(all)?;
    let (urgent_new, urgent_old) = urgent.and_then(pair).unwrap_or_default();
    let class = String::from_utf8_lossy(class).into_owned();
    Some(Count { class, new, old, urgent_new, urgent_old })
}

fn pair(text: &[u8]) -> Option<(u32, u32)> {
    let (new, old) = cut_once(text, b'/')?;
    let clamped = |text: &[u8]| number(text.trim_ascii()).map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    Some((clamped(new)?, clamped(old)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn count(class: &str, new: u32, old: u32, urgent_new: u32, urgent_old: u32) -> Count {
        Count { class: class.into(), new, old, urgent_new, urgent_old }
    }

    #[test]
    fn bodies_as_servers_write_them() {
        let table = [
            (
                "Messages-Waiting: yes\r\nMessage-Account: sip:alice@vmail.example.com\r\nVoice-Message: 2/8 (0/2)\r\n\r\n",
                (true, Some("sip:alice@vmail.example.com"), vec![count("voice", 2, 8, 0, 2)]),
            ),
            ("messages-waiting:no\nfax-message: 0 / 3\n", (false, None, vec![count("fax", 0, 3, 0, 0)])),
            (
                "Messages-Waiting: YES\r\nX: y\r\nvoice-message:1/0(1/0)\r\nNone: 4/5\r\nhello\r\n",
                (true, None, vec![count("voice", 1, 0, 1, 0), count("none", 4, 5, 0, 0)]),
            ),
            (
                "Messages-Waiting: yes\r\nVoice-Message: 99999999999/0\r\nText-Message: x/1\r\nPager-Message: 1\r\n",
                (true, None, vec![count("voice", u32::MAX, 0, 0, 0)]),
            ),
        ];
        for (text, (messages_waiting, account, counts)) in table {
            let expected = MessageSummary { messages_waiting, account: account.map(str::to_owned), counts };
            assert_eq!(MessageSummary::parse(text.as_bytes()), Ok(expected), "{text}");
        }
        for bad in ["", "Voice-Message: 1/2\r\n", "\u{0}\u{1}"] {
            assert_eq!(MessageSummary::parse(bad.as_bytes()), Err(NoStatus), "{bad}");
        }
        let many: String = (0..100).map(|number| format!("x{number}-Message: 1/1\r\n")).collect();
        let summary = MessageSummary::parse(format!("Messages-Waiting: yes\r\n{many}").as_bytes()).unwrap();
        assert_eq!(summary.counts.len(), MAX_CLASSES);
    }
}
