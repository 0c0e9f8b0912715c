//! The calls of somebody: `application/dialog-info+xml` (RFC 4235), what a busy lamp field is made of.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::xml::{self, Element, XmlError};

pub const CONTENT_TYPE: &str = "application/dialog-info+xml";

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchedDialog {
    pub id: String,
    pub call_id: Option<String>,
    pub local_tag: Option<String>,
    pub remote_tag: Option<String>,
    /// "initiator" or "recipient".
    pub direction: Option<String>,
    /// "trying", "proceeding", "early", "confirmed" or "terminated".
    pub state: String,
    /// Why it is in that state: "cancelled", "rejected", "replaced", "local-bye", "remote-bye", "error", "timeout".
    pub event: Option<String>,
    /// The code that brought the state.
    pub code: Option<u16>,
    /// Seconds.
    pub duration: Option<u32>,
    pub local_uri: Option<String>,
    pub local_display_name: Option<String>,
    pub remote_uri: Option<String>,
    pub remote_display_name: Option<String>,
}

/// A document: all calls, or those that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialogInfo {
    /// Whose calls.
    pub entity: String,
    pub version: u32,
    /// All there are; false: those that changed since the version before.
    pub is_full: bool,
    pub dialogs: Vec<WatchedDialog>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialogInfoError {
    #[error(transparent)]
    Xml(#[from] XmlError),
    #[error("the root is <{0}>, not <dialog-info>")]
    Root(String),
}

impl DialogInfo {
    /// Reads a document. A dialog without a state counts as terminated; a version that is none as 0.
    ///
    /// # Errors
    /// When it is no XML, or another document.
    pub fn parse(body: &[u8]) -> Result<Self, DialogInfoError> {
        let root = xml::parse(body)?;
        if root.name != "dialog-info" {
            return Err(DialogInfoError::Root(root.name));
        }
        Ok(Self {
            entity: root.attribute("entity").unwrap_or_default().to_owned(),
            version: root.attribute("version").and_then(|version| version.parse().ok()).unwrap_or_default(),
            is_full: root.attribute("state") != Some("partial"),
            dialogs: root.all("dialog").map(dialog).collect(),
        })
    }
}

fn dialog(element: &Element) -> WatchedDialog {
    let own = |name: &str| element.attribute(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let state = element.child("state");
    let (local, remote) = (element.child("local"), element.child("remote"));
    WatchedDialog {
        id: own("id").unwrap_or_default(),
        call_id: own("call-id"),
        local_tag: own("local-tag"),
        remote_tag: own("remote-tag"),
        direction: own("direction"),
        state: state.map(|state| state.text.as_str()).filter(|text| !text.is_empty()).unwrap_or("terminated").into(),
        event: state.and_then(|state| state.attribute("event")).map(str::to_owned),
        code: state.and_then(|state| state.attribute("code")?.parse().ok()),
        duration: element.text_of("duration").and_then(|text| text.parse().ok()),
        local_uri: local.and_then(uri),
        local_display_name: local.and_then(display_name),
        remote_uri: remote.and_then(uri),
        remote_display_name: remote.and_then(display_name),
    }
}

/// Who it is; some servers give only the target.
fn uri(party: &Element) -> Option<String> {
    let identity = party.text_of("identity");
    identity.or_else(|| party.child("target")?.attribute("uri")).map(str::to_owned)
}

fn display_name(party: &Element) -> Option<String> {
    let identity = party.child("identity")?;
    ["display", "display-name"].into_iter().find_map(|name| identity.attribute(name)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_ringing_phone_and_one_that_rests() {
        let text = r#"<?xml version="1.0"?>
            <dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="3" state="partial" entity="sip:alice@example.com">
              <dialog id="as7d900as8" call-id="a84b4c76e66710" local-tag="1928301774" remote-tag="" direction="recipient">
                <state event="rejected" code="486">early</state><duration>7</duration>
                <local><identity display="Alice">sip:alice@example.com</identity></local>
                <remote><identity display="B &amp; B">sip:bob@example.org</identity><target uri="sip:bob@192.0.2.1"/></remote>
              </dialog>
              <dialog id="2"><state>confirmed</state><remote><target uri="sip:carol@192.0.2.2"/></remote></dialog>
            </dialog-info>"#;
        let info = DialogInfo::parse(text.as_bytes()).unwrap();
        assert_eq!((info.entity.as_str(), info.version, info.is_full), ("sip:alice@example.com", 3, false));
        let first = WatchedDialog {
            id: "as7d900as8".into(),
            call_id: Some("a84b4c76e66710".into()),
            local_tag: Some("1928301774".into()),
            direction: Some("recipient".into()),
            state: "early".into(),
            event: Some("rejected".into()),
            code: Some(486),
            duration: Some(7),
            local_uri: Some("sip:alice@example.com".into()),
            local_display_name: Some("Alice".into()),
            remote_uri: Some("sip:bob@example.org".into()),
            remote_display_name: Some("B & B".into()),
            ..WatchedDialog::default()
        };
        assert_eq!(info.dialogs.first(), Some(&first));
        assert_eq!(info.dialogs.get(1).unwrap().remote_uri.as_deref(), Some("sip:carol@192.0.2.2"));
    }

    #[test]
    fn the_least_a_document_says_and_what_is_none() {
        let info = DialogInfo::parse(b"<dialog-info><dialog/></dialog-info>").unwrap();
        assert_eq!((info.version, info.is_full, info.dialogs.len()), (0, true, 1));
        assert_eq!(info.dialogs.first().unwrap().state, "terminated");
        assert_eq!(DialogInfo::parse(b"<presence/>"), Err(DialogInfoError::Root("presence".into())));
        assert!(matches!(DialogInfo::parse(b"<dialog-info>"), Err(DialogInfoError::Xml(_))));
    }
}
