//! Whether somebody can be reached: `application/pidf+xml` (RFC 3863) with the activities of RPID (RFC 4480).

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt::Write as _;

use crate::xml::{self, Element, XmlError, escaped};

pub const CONTENT_TYPE: &str = "application/pidf+xml";

/// One way to reach somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    pub id: String,
    /// True for "open"; `None` when nothing is said.
    pub is_open: Option<bool>,
    pub contact: Option<String>,
    pub note: Option<String>,
    pub timestamp: Option<String>,
}

/// A document about one presentity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    pub entity: String,
    pub tuples: Vec<Tuple>,
    /// What people wrote for people.
    pub notes: Vec<String>,
    /// What the person does: "on-the-phone", "away", "meeting", … (RFC 4480 §3.2).
    pub activities: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    #[error(transparent)]
    Xml(#[from] XmlError),
    #[error("the root is <{0}>, not <presence>")]
    Root(String),
}

impl Presence {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is no XML, or another document.
    pub fn parse(body: &[u8]) -> Result<Self, PresenceError> {
        let root = xml::parse(body)?;
        if root.name != "presence" {
            return Err(PresenceError::Root(root.name));
        }
        let persons = || root.all("person").chain(root.all("tuple"));
        let own_notes = root.all("note").chain(root.all("person").flat_map(|person| person.all("note")));
        let activities = persons().flat_map(|person| person.all("activities"));
        let activities = activities.flat_map(|all| all.children.iter()).filter(|child| child.name != "note");
        let mut presence = Self {
            entity: root.attribute("entity").unwrap_or_default().to_owned(),
            tuples: root.all("tuple").map(tuple).collect(),
            notes: own_notes.map(|note| note.text.clone()).filter(|text| !text.is_empty()).collect(),
            activities: activities.map(name).collect(),
        };
        presence.activities.dedup();
        Ok(presence)
    }

    /// True when one way is open: the person can be reached.
    pub fn is_open(&self) -> bool {
        self.tuples.iter().any(|tuple| tuple.is_open == Some(true))
    }

    /// The document.
    pub fn write(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n");
        let _ = write!(
            out,
            "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
             xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" entity=\"{}\">",
            escaped(&self.entity)
        );
        for tuple in &self.tuples {
            let _ = write!(out, "<tuple id=\"{}\"><status>", escaped(&tuple.id));
            if let Some(is_open) = tuple.is_open {
                let _ = write!(out, "<basic>{}</basic>", if is_open { "open" } else { "closed" });
            }
            out.push_str("</status>");
            let rest = [("contact", &tuple.contact), ("note", &tuple.note), ("timestamp", &tuple.timestamp)];
            for (name, text) in rest {
                if let Some(text) = text {
                    let _ = write!(out, "<{name}>{}</{name}>", escaped(text));
                }
            }
            out.push_str("</tuple>");
        }
        for note in &self.notes {
            let _ = write!(out, "<note>{}</note>", escaped(note));
        }
        if !self.activities.is_empty() {
            out.push_str("<dm:person id=\"person\"><rpid:activities>");
            for activity in &self.activities {
                if KNOWN.contains(&activity.as_str()) {
                    let _ = write!(out, "<rpid:{activity}/>");
                } else {
                    let _ = write!(out, "<rpid:other>{}</rpid:other>", escaped(activity));
                }
            }
            out.push_str("</rpid:activities></dm:person>");
        }
        out.push_str("</presence>\r\n");
        out
    }
}

/// The activities of RFC 4480 §3.2.
const KNOWN: [&str; 26] = [
    "appointment",
    "away",
    "breakfast",
    "busy",
    "dinner",
    "holiday",
    "in-transit",
    "looking-for-work",
    "lunch",
    "meal",
    "meeting",
    "on-the-phone",
    "performance",
    "permanent-absence",
    "playing",
    "presentation",
    "shopping",
    "sleeping",
    "spectator",
    "steering",
    "travel",
    "tv",
    "unknown",
    "vacation",
    "working",
    "worship",
];

fn tuple(element: &Element) -> Tuple {
    let basic = element.child("status").and_then(|status| status.text_of("basic"));
    let text = |name: &str| element.text_of(name).map(str::to_owned);
    Tuple {
        id: element.attribute("id").unwrap_or_default().to_owned(),
        is_open: basic.and_then(|basic| match basic.to_ascii_lowercase().as_str() {
            "open" => Some(true),
            "closed" => Some(false),
            _ => None,
        }),
        contact: text("contact"),
        note: text("note"),
        timestamp: text("timestamp"),
    }
}

/// The name of an activity, or what `<other>` says.
fn name(activity: &Element) -> String {
    if activity.name == "other" && !activity.text.is_empty() { activity.text.clone() } else { activity.name.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_document_of_a_phone() {
        let text = r#"<?xml version='1.0'?><presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:dm='urn:x' xmlns:r='urn:y'
            entity='pres:alice@example.com'><tuple id='t1'><status><basic>open</basic></status>
            <contact priority='0.8'>sip:alice@192.0.2.1</contact><note>phone</note>
            <timestamp>2026-11-21T02:30:00Z</timestamp></tuple><tuple id='t2'><status><basic>Closed</basic></status></tuple>
            <note xml:lang='en'>back soon</note><dm:person id='p'><r:activities><r:on-the-phone/><r:other>fencing</r:other>
            </r:activities><dm:note>hm</dm:note></dm:person></presence>"#;
        let presence = Presence::parse(text.as_bytes()).unwrap();
        assert_eq!(presence.entity, "pres:alice@example.com");
        assert!(presence.is_open());
        let first = presence.tuples.first().unwrap();
        assert_eq!((first.is_open, first.contact.as_deref()), (Some(true), Some("sip:alice@192.0.2.1")));
        assert_eq!((first.note.as_deref(), first.timestamp.as_deref()), (Some("phone"), Some("2026-11-21T02:30:00Z")));
        assert_eq!(presence.tuples.get(1).unwrap().is_open, Some(false));
        assert_eq!(presence.notes, ["back soon", "hm"]);
        assert_eq!(presence.activities, ["on-the-phone", "fencing"]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let presence = Presence {
            entity: "sip:a&b@example.com".into(),
            tuples: vec![
                Tuple { id: "1".into(), is_open: Some(true), note: Some("<x>".into()), ..Tuple::default() },
                Tuple { id: "2".into(), is_open: Some(false), contact: Some("sip:x@y".into()), ..Tuple::default() },
                Tuple { id: "3".into(), ..Tuple::default() },
            ],
            notes: vec!["grüße".into()],
            activities: vec!["away".into(), "juggling <3>".into()],
        };
        assert_eq!(Presence::parse(presence.write().as_bytes()), Ok(presence));
    }

    #[test]
    fn what_is_no_presence_says_so() {
        assert_eq!(Presence::parse(b"<x/>"), Err(PresenceError::Root("x".into())));
        assert!(matches!(Presence::parse(b"<!DOCTYPE a><presence/>"), Err(PresenceError::Xml(XmlError::DocumentType))));
        assert!(!Presence::parse(b"<presence/>").unwrap().is_open());
    }
}
