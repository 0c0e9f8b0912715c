//! What an m-line of the peer asks for, checked: addresses, codecs, direction, keys.

use std::net::{IpAddr, SocketAddr};

use crate::media::{CodecKind, Direction, LocalMedia, SrtpPolicy};

use super::crypto::Crypto;
use super::description::{Connection, Media};
use super::formats::{self, Format, Numbered};
use super::negotiation::{LocalAudio, NegotiationError};

/// RFC 3261 §20.43: the codes of a Warning header.
pub(super) mod warning {
    pub const NETWORK_ADDRESS: u16 = 301;
    pub const TRANSPORT: u16 = 302;
    pub const MEDIA_FORMAT: u16 = 305;
    pub const ATTRIBUTE: u16 = 306;
    pub const MULTICAST: u16 = 330;
    pub const OTHER: u16 = 399;
}

pub(super) fn refused(warning: u16, text: impl Into<String>) -> NegotiationError {
    NegotiationError::NotAcceptable { warning, text: text.into() }
}

/// What the profile of an m-line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub secure: bool,
    pub dtls: bool,
}

impl Profile {
    /// `None` for anything but RTP over UDP.
    pub fn of(protocol: &str) -> Option<Self> {
        let (secure, dtls) = match protocol.to_ascii_uppercase().as_str() {
            "RTP/AVP" | "RTP/AVPF" => (false, false),
            "RTP/SAVP" | "RTP/SAVPF" => (true, false),
            "UDP/TLS/RTP/SAVP" | "UDP/TLS/RTP/SAVPF" => (true, true),
            _ => return None,
        };
        Some(Self { secure, dtls })
    }
}

/// Where the peer listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// The address is unspecified during an old-style hold: nothing may be sent then.
    pub rtp: SocketAddr,
    pub rtcp: SocketAddr,
}

/// Reads the addresses of an m-line whose port is not 0.
///
/// # Errors
/// Host names (resolving what a peer wrote is not our task), multicast and broadcast addresses, another family than
/// ours, and our own socket are refused.
pub(super) fn remote(media: &Media<'_>, local: &LocalMedia) -> Result<Remote, NegotiationError> {
    let address = match media.connection() {
        Some(Connection::Ip(address)) => address,
        Some(Connection::Name(name)) => {
            let name: String = name.chars().filter(char::is_ascii_graphic).take(64).collect();
            return Err(refused(warning::NETWORK_ADDRESS, format!("the c= line holds {name}, not an IP address")));
        }
        None => return Err(refused(warning::NETWORK_ADDRESS, "the audio stream has no c= line")),
    };
    let ours = local.address.to_canonical();
    if address.is_multicast() || is_broadcast(address) {
        return Err(refused(warning::MULTICAST, format!("{address} is not a unicast address")));
    }
    if !address.is_unspecified() && address.is_ipv4() != ours.is_ipv4() {
        return Err(refused(warning::NETWORK_ADDRESS, format!("{address} is not of the address family we use")));
    }
    let rtp = SocketAddr::new(address, media.port());
    if address == ours && [local.rtp_port, local.rtcp_port].contains(&rtp.port()) {
        return Err(refused(warning::NETWORK_ADDRESS, format!("{rtp} is our own socket")));
    }
    let usable = |candidate: IpAddr| {
        !(candidate.is_multicast() || is_broadcast(candidate) || candidate.is_unspecified())
            && candidate.is_ipv4() == address.is_ipv4()
            && !address.is_unspecified()
    };
    // Port 65535 leaves none for RTCP; its own is as good as any.
    let rtcp = match media.rtcp() {
        Some(rtcp) => SocketAddr::new(rtcp.address.filter(|ip| usable(*ip)).unwrap_or(address), rtcp.port),
        None => SocketAddr::new(address, rtp.port().saturating_add(1)),
    };
    Ok(Remote { rtp, rtcp })
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}

/// The direction the peer declares, `0.0.0.0` being "send me nothing" (RFC 3264 §8.4).
pub(super) fn direction(media: &Media<'_>) -> Direction {
    let declared = media.direction();
    let held = matches!(media.connection(), Some(Connection::Ip(address)) if address.is_unspecified());
    Direction::new(declared.sends(), declared.receives() && !held)
}

/// The length of the packets to send, milliseconds: what the peer asks for, as far as the codec can cut it.
pub(super) fn packet_time(media: &Media<'_>, codec: CodecKind) -> u32 {
    const USUAL: u32 = 20;
    let wish = media.ptime().unwrap_or(USUAL);
    let most = media.max_ptime().filter(|most| *most >= 10).unwrap_or(60);
    let time = wish.min(most).clamp(10, 60) / 10 * 10;
    match (codec, time) {
        (CodecKind::Opus, 30) => 20, // an Opus frame is 10, 20, 40 or 60 ms
        (CodecKind::Opus, 50) => 40,
        _ => time,
    }
}

/// An audio m-line of an offer that we can take.
#[derive(Clone, Debug)]
pub(super) struct Acceptable {
    pub remote: Remote,
    pub direction: Direction,
    pub codec: Numbered,
    pub kind: CodecKind,
    pub events: Option<Numbered>,
    pub crypto: Option<Crypto>,
    pub packet_time: u32,
}

impl Acceptable {
    /// Checks an offered audio m-line whose port is not 0 against what we can do.
    pub fn check(media: &Media<'_>, audio: &LocalAudio) -> Result<Self, NegotiationError> {
        let crypto = choose_crypto(media, audio.srtp)?;
        let known = formats::known(media);
        // The offerer's order counts (RFC 3264 §6.1): it lists first what it likes best.
        let chosen = known.iter().find_map(|entry| match entry.format {
            Format::Codec(codec) if audio.codecs.contains(&codec) => Some((codec, *entry)),
            _ => None,
        });
        let Some((kind, codec)) = chosen else {
            return Err(refused(warning::MEDIA_FORMAT, "none of the audio codecs offered is enabled here"));
        };
        Ok(Self {
            remote: remote(media, &audio.media)?,
            direction: direction(media),
            codec,
            kind,
            events: formats::events_for(kind, &known),
            crypto,
            packet_time: packet_time(media, kind),
        })
    }
}

/// The keys to use for an offered m-line; `None` for plain RTP.
fn choose_crypto(media: &Media<'_>, policy: SrtpPolicy) -> Result<Option<Crypto>, NegotiationError> {
    let Some(profile) = Profile::of(media.protocol()) else {
        return Err(refused(warning::TRANSPORT, "the transport protocol of the audio stream is not RTP over UDP"));
    };
    let lines: Vec<_> = media.crypto().collect();
    let usable = lines.iter().find_map(|line| line.ok());
    if profile.dtls || (profile.secure && lines.is_empty() && media.has_fingerprint()) {
        return Err(refused(warning::TRANSPORT, "DTLS-SRTP is not supported yet, SDES (a=crypto) is"));
    }
    match (policy, usable) {
        (SrtpPolicy::Disabled, _) if profile.secure => Err(refused(warning::TRANSPORT, "SRTP is disabled here")),
        (SrtpPolicy::Disabled, _) => Ok(None),
        (_, Some(crypto)) => Ok(Some(crypto)),
        (SrtpPolicy::Optional, None) if !profile.secure => Ok(None),
        (_, None) => Err(match lines.first() {
            Some(Err(error)) => refused(warning::ATTRIBUTE, format!("no usable a=crypto line: {error}")),
            _ if profile.secure => refused(warning::ATTRIBUTE, "RTP/SAVP without an a=crypto line"),
            _ => refused(warning::OTHER, "SRTP is required here"),
        }),
    }
}
