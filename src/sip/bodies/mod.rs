//! What NOTIFY and PUBLISH carry in the event packages we know.

pub mod dialog_info;
pub mod message_summary;
pub mod presence;

use self::dialog_info::DialogInfo;
use self::message_summary::MessageSummary;
use self::presence::Presence;
use super::headers::ContentType;

/// A body, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    MessageSummary(MessageSummary),
    DialogInfo(DialogInfo),
    Presence(Presence),
}

impl Parsed {
    /// Reads a body of a type we know: `None` for any other, `Some(Err)` with the reason for one that cannot be read.
    pub fn read(content_type: &str, body: &[u8]) -> Option<Result<Self, String>> {
        let kind = ContentType::parse(content_type.as_bytes())?;
        if kind.is(message_summary::CONTENT_TYPE) {
            Some(MessageSummary::parse(body).map(Self::MessageSummary).map_err(|error| error.to_string()))
        } else if kind.is(dialog_info::CONTENT_TYPE) {
            Some(DialogInfo::parse(body).map(Self::DialogInfo).map_err(|error| error.to_string()))
        } else if kind.is(presence::CONTENT_TYPE) {
            Some(Presence::parse(body).map(Self::Presence).map_err(|error| error.to_string()))
        } else {
            None
        }
    }
}
