//! The m-line of a chat (`m=message`, RFC 4975 §8) and who opens its connection (RFC 6135).

use super::description::Media;
use super::negotiation::NegotiationError;
use super::peer::{refused, warning};
use crate::media::{ChatParams, LocalChat};

/// Longer paths are no relays but an attack on whoever prints them.
const MAX_PATH: usize = 2_048;

pub(super) fn is_chat(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("message")
}

/// Who opens the connection, as `a=setup` of an offer or answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    Active,
    Passive,
    ActPass,
}

impl Setup {
    fn of(media: &Media<'_>) -> Option<Self> {
        match media.attribute("setup")?.trim() {
            "active" => Some(Self::Active),
            "passive" => Some(Self::Passive),
            "actpass" => Some(Self::ActPass),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
        }
    }
}

pub(super) fn protocol(tls: bool) -> &'static str {
    if tls { "TCP/TLS/MSRP" } else { "TCP/MSRP" }
}

/// Whether the protocol of an m-line is MSRP, and with TLS or without.
pub(super) fn tls_of(protocol: &str) -> Option<bool> {
    [false, true].into_iter().find(|tls| protocol.eq_ignore_ascii_case(self::protocol(*tls)))
}

/// Whether an m-line of the peer's can be a chat at all.
pub(super) fn is_usable(media: &Media<'_>) -> bool {
    tls_of(media.protocol()).is_some() && path_of(media).is_some()
}

fn path_of<'a>(media: &Media<'a>) -> Option<&'a str> {
    media.attribute("path").map(str::trim).filter(|path| path.starts_with("msrp") && path.len() <= MAX_PATH)
}

/// Fills an m-line of ours.
pub(super) fn write(mut media: sdp_types::Media, chat: &LocalChat, setup: Setup) -> sdp_types::Media {
    let mut attribute = |name: &str, value: &str| {
        let value = Some(value.to_owned());
        media.attributes.push(sdp_types::Attribute { attribute: name.to_owned(), value });
    };
    attribute("path", &chat.path);
    attribute("accept-types", &chat.accept_types);
    if let Some(types) = &chat.accept_wrapped_types {
        attribute("accept-wrapped-types", types);
    }
    attribute("setup", setup.name());
    media.port = chat.port;
    media.proto = protocol(chat.tls).to_owned();
    media.fmt = "*".to_owned();
    media
}

/// What both sides run from now on, by the peer's answer to our `actpass`. Without `a=setup` the offerer opens the
/// connection (RFC 4975 §5.4).
pub(super) fn answered(media: &Media<'_>, local: &LocalChat) -> Result<ChatParams, NegotiationError> {
    params(media, local, Setup::of(media) != Some(Setup::Active))
}

/// The same for an offer of theirs, and what our answer says about the connection.
pub(super) fn offered(media: &Media<'_>, local: &LocalChat) -> Result<(ChatParams, Setup), NegotiationError> {
    let ours = match Setup::of(media) {
        Some(Setup::Active) | None => Setup::Passive,
        Some(Setup::Passive | Setup::ActPass) => Setup::Active,
    };
    Ok((params(media, local, ours == Setup::Active)?, ours))
}

fn params(media: &Media<'_>, local: &LocalChat, active: bool) -> Result<ChatParams, NegotiationError> {
    if tls_of(media.protocol()) != Some(local.tls) {
        return Err(refused(warning::TRANSPORT, "chat over a protocol that is not ours"));
    }
    let path = path_of(media).ok_or_else(|| refused(warning::ATTRIBUTE, "chat without a usable a=path"))?;
    let types = |name| media.attribute(name).map(str::to_owned);
    Ok(ChatParams {
        remote_path: path.to_owned(),
        accept_types: types("accept-types").unwrap_or_else(|| "*".to_owned()),
        accept_wrapped_types: types("accept-wrapped-types"),
        active,
    })
}
