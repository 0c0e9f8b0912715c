//! Instant message disposition notification (RFC 5438): what a sender asks to be told, and the reports.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt;

use crate::xml::{self, XmlError, escaped};

pub const CONTENT_TYPE: &str = "message/imdn+xml";

/// What the sender of a message wants to be told: `imdn.Disposition-Notification` (RFC 5438 §6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub positive_delivery: bool,
    pub negative_delivery: bool,
    pub processing: bool,
    pub display: bool,
}

impl Wanted {
    /// Reads the comma list; words of later RFCs are passed over.
    pub fn parse(text: &str) -> Self {
        let mut wanted = Self::default();
        for word in text.split(',') {
            match word.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                "positive-delivery" => wanted.positive_delivery = true,
                "negative-delivery" => wanted.negative_delivery = true,
                "processing" => wanted.processing = true,
                "display" => wanted.display = true,
                _ => {}
            }
        }
        wanted
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The words that apply.
    pub fn words(self) -> Vec<&'static str> {
        let all = [
            (self.positive_delivery, "positive-delivery"),
            (self.negative_delivery, "negative-delivery"),
            (self.processing, "processing"),
            (self.display, "display"),
        ];
        all.into_iter().filter_map(|(there, word)| there.then_some(word)).collect()
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(", "))
    }
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    Delivery,
    Processing,
    Display,
}

impl Disposition {
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Processing => "processing",
            Self::Display => "display",
        }
    }
}

/// What became of the message (RFC 5438 §7.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Delivered,
    Failed,
    Displayed,
    Processed,
    Stored,
    Forbidden,
    Error,
}

impl Status {
    pub const ALL: [Self; 7] =
        [Self::Delivered, Self::Failed, Self::Displayed, Self::Processed, Self::Stored, Self::Forbidden, Self::Error];

    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Displayed => "displayed",
            Self::Processed => "processed",
            Self::Stored => "stored",
            Self::Forbidden => "forbidden",
            Self::Error => "error",
        }
    }

    /// The report it goes into; `None` for those that fit several.
    pub fn disposition(self) -> Option<Disposition> {
        match self {
            Self::Delivered | Self::Failed => Some(Disposition::Delivery),
            Self::Displayed => Some(Disposition::Display),
            Self::Processed | Self::Stored => Some(Disposition::Processing),
            Self::Forbidden | Self::Error => None,
        }
    }
}

/// One report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `imdn.Message-ID` of the message it is about.
    pub message_id: String,
    /// DateTime of that message, as written; empty when it had none.
    pub date_time: String,
    pub disposition: Disposition,
    pub status: Status,
}

/// Why a body is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImdnError {
    #[error(transparent)]
    Xml(#[from] XmlError),
    #[error("the root is <{0}>, not <imdn>")]
    Root(String),
    #[error("there is no message-id")]
    NoMessageId,
    #[error("there is no notification with a status that is known")]
    NoStatus,
}

impl Report {
    /// Reads a `message/imdn+xml` body.
    ///
    /// # Errors
    /// When it is no XML, or none of RFC 5438 §11.1.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImdnError> {
        let root = xml::parse(bytes)?;
        if root.name != "imdn" {
            return Err(ImdnError::Root(root.name));
        }
        let message_id = root.text_of("message-id").ok_or(ImdnError::NoMessageId)?.to_owned();
        let kinds = [
            ("delivery-notification", Disposition::Delivery),
            ("processing-notification", Disposition::Processing),
            ("display-notification", Disposition::Display),
        ];
        let found = kinds.into_iter().find_map(|(name, disposition)| {
            let status = root.child(name)?.child("status")?;
            let known = Status::ALL.into_iter().find(|known| status.child(known.name()).is_some())?;
            Some((disposition, known))
        });
        let (disposition, status) = found.ok_or(ImdnError::NoStatus)?;
        let date_time = root.text_of("datetime").unwrap_or_default().to_owned();
        Ok(Self { message_id, date_time, disposition, status })
    }

    /// The report as XML.
    pub fn write(&self) -> String {
        let (kind, status) = (self.disposition.name(), self.status.name());
        let date_time = match self.date_time.as_str() {
            "" => String::new(),
            text => format!("<datetime>{}</datetime>", escaped(text)),
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\">\
             <message-id>{}</message-id>{date_time}\
             <{kind}-notification><status><{status}/></status></{kind}-notification></imdn>\r\n",
            escaped(&self.message_id)
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sip::cpim::Cpim;

    #[test]
    fn what_is_wanted() {
        let wanted = Wanted::parse(" Positive-Delivery, display;x=1,unheard-of,");
        assert_eq!(wanted, Wanted { positive_delivery: true, display: true, ..Wanted::default() });
        assert_eq!(wanted.to_string(), "positive-delivery, display");
        assert_eq!(Wanted::parse(&wanted.to_string()), wanted);
        assert!(Wanted::parse("").is_empty());
    }

    #[test]
    fn the_report_of_the_vectors() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cpim/imdn-report.cpim");
        let message = Cpim::parse(std::fs::read(path).unwrap().into()).unwrap();
        assert!(message.content_type().starts_with(CONTENT_TYPE));
        let report = Report::parse(&message.body).unwrap();
        let expected = Report {
            message_id: "Adk3".into(),
            date_time: "2026-11-21T02:30:00Z".into(),
            disposition: Disposition::Delivery,
            status: Status::Delivered,
        };
        assert_eq!(report, expected);
    }

    #[test]
    fn every_report_is_read_as_it_was_written() {
        for disposition in [Disposition::Delivery, Disposition::Processing, Disposition::Display] {
            for status in Status::ALL {
                for date_time in ["", "2026-11-21T02:30:00Z"] {
                    let message_id = "<a&\"b\">".to_owned();
                    let report = Report { message_id, date_time: date_time.into(), disposition, status };
                    assert_eq!(Report::parse(report.write().as_bytes()), Ok(report));
                }
            }
        }
    }

    #[test]
    fn what_is_no_report_says_why() {
        let table = [
            ("<x/>", ImdnError::Root("x".into())),
            ("<imdn/>", ImdnError::NoMessageId),
            ("<imdn><message-id>1</message-id></imdn>", ImdnError::NoStatus),
            (
                "<imdn><message-id>1</message-id><display-notification><status/></display-notification></imdn>",
                ImdnError::NoStatus,
            ),
            ("<!DOCTYPE imdn><imdn/>", ImdnError::Xml(XmlError::DocumentType)),
        ];
        for (text, expected) in table {
            assert_eq!(Report::parse(text.as_bytes()), Err(expected), "{text}");
        }
    }
}
