//! The words signalling and media share: what is negotiated, what the media side is told, what it reports.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// An audio codec we can send and receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CodecKind {
    Opus,
    G722,
    Pcmu,
    Pcma,
}

impl CodecKind {
    /// All codecs, best first: the engine's default order of preference.
    pub const ALL: [Self; 4] = [Self::Opus, Self::G722, Self::Pcmu, Self::Pcma];

    /// The name in `a=rtpmap` and in our API: "opus", "G722", "PCMU", "PCMA".
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::G722 => "G722",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// Reads a codec name in any case; `None` when unknown.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// The RTP clock in Hz. G.722 says 8000 although it samples at 16000 (RFC 3551 §4.5.2).
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::G722 | Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// The audio sample rate in Hz.
    pub fn sample_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::G722 => 16_000,
            Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// The static payload type (RFC 3551 §6); `None` for dynamic ones.
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Opus => None,
            Self::G722 => Some(9),
            Self::Pcmu => Some(0),
            Self::Pcma => Some(8),
        }
    }
}

impl fmt::Display for CodecKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec with the payload type one side wants it sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadFormat {
    pub codec: CodecKind,
    pub payload_type: u8,
}

/// The direction attribute of a stream, from our side (RFC 3264 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// From what each side may do.
    pub fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// The same stream seen by the other side.
    pub fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// The attribute's name: "sendrecv", …
    pub fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// How an account uses SRTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SrtpPolicy {
    /// Neither offered nor taken.
    Disabled,
    /// Offered as `RTP/AVP` with `a=crypto`; used when both sides have it.
    #[default]
    Optional,
    /// Offered as `RTP/SAVP`; a peer without it is refused with 488.
    Mandatory,
}

/// A crypto suite of SDES (RFC 4568 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtpSuite {
    AesCm128HmacSha1_80,
    AesCm128HmacSha1_32,
}

impl SrtpSuite {
    pub const ALL: [Self; 2] = [Self::AesCm128HmacSha1_80, Self::AesCm128HmacSha1_32];

    pub fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }
}

/// Master key (16 bytes) and salt (14 bytes) of one direction. Its `Debug` shows nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SrtpKey(pub [u8; 30]);

impl fmt::Debug for SrtpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SrtpKey(…)")
    }
}

/// Keys of a stream once both sides have agreed: `local` protects what we send, `remote` opens what we receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SrtpParams {
    pub suite: SrtpSuite,
    pub local: SrtpKey,
    pub remote: SrtpKey,
}

/// Our sockets for one audio stream, bound before the offer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalMedia {
    /// The address to write into the SDP (the advertised one when there is one).
    pub address: IpAddr,
    pub rtp_port: u16,
    pub rtcp_port: u16,
}

/// Our end of one chat stream (MSRP, RFC 4975), ready before the offer leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalChat {
    /// The address to write into the SDP.
    pub address: IpAddr,
    pub port: u16,
    /// `a=path`: our MSRP URI, behind those of our relays.
    pub path: String,
    /// `TCP/TLS/MSRP`.
    pub tls: bool,
    /// `a=accept-types`: what we take, in order of preference.
    pub accept_types: String,
    /// `a=accept-wrapped-types`: what we take inside message/cpim.
    pub accept_wrapped_types: Option<String>,
}

/// Everything the media side needs to run one negotiated chat stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatParams {
    /// The peer's `a=path`: MSRP URIs, the next hop first.
    pub remote_path: String,
    pub accept_types: String,
    pub accept_wrapped_types: Option<String>,
    /// We open the connection (RFC 6135 §4.2); otherwise the peer comes to us.
    pub active: bool,
}

/// Everything the media side needs to run one negotiated audio stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioParams {
    /// Where the SDP says the peer listens. An unspecified address (`0.0.0.0`) is an old-style hold: nothing, RTCP
    /// included, may be sent then (RFC 3264 §8.4).
    pub remote_rtp: SocketAddr,
    pub remote_rtcp: SocketAddr,
    pub rtcp_mux: bool,
    /// Ours: what we send and receive.
    pub direction: Direction,
    /// What we send, with the payload type the peer gave it.
    pub send: PayloadFormat,
    /// What we accept, with the payload types we gave them.
    pub receive: Vec<PayloadFormat>,
    /// Payload types of `telephone-event` (RFC 4733) at the send codec's clock: theirs to send, ours to receive.
    pub dtmf_send: Option<u8>,
    pub dtmf_receive: Option<u8>,
    /// Length of the packets we send, milliseconds (20 unless the peer asks otherwise).
    pub ptime_ms: u32,
    pub srtp: Option<SrtpParams>,
    /// Send to where packets come from rather than to where the SDP says (symmetric RTP, with source lock).
    pub symmetric: bool,
}

/// Channels of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordingLayout {
    /// One channel, both parties summed.
    #[default]
    Mix,
    /// Two channels: remote left, local right.
    Stereo,
}

/// What signalling asks of the media side, per session and in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaCommand {
    /// Bind sockets for one audio stream, reachable from `peer` (where signalling goes); answered by
    /// [`crate::ua::UserAgent::handle_media_opened`] in the same turn.
    Open {
        peer: SocketAddr,
    },
    /// Run the stream, or change the running one (hold, re-INVITE, new codec or address).
    Start(Box<AudioParams>),
    /// Stop the stream and close its sockets; recordings are finished first.
    Close,
    /// Get a chat stream ready, reachable from `peer`; answered by [`crate::ua::UserAgent::handle_chat_opened`] in the
    /// same turn.
    OpenChat {
        peer: SocketAddr,
    },
    /// Run the chat stream, or change the running one; [`MediaEvent::ChatDidStart`] when its connection is up.
    StartChat(Box<ChatParams>),
    CloseChat,
    StartRecording {
        path: PathBuf,
        layout: RecordingLayout,
    },
    StopRecording,
    PauseRecording,
    ResumeRecording,
    /// We hold the call: the peer hears silence until that ends. Players and writers go on unheard.
    Hold(bool),
    /// Send one digit as RFC 4733 events.
    SendDtmf(char),
}

/// What the media side tells signalling about one session.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaEvent {
    /// The first valid packet came, or the source changed after a lock, from here.
    Received { from: SocketAddr },
    /// No valid packet for 5 s after the start of the stream.
    NoAudio,
    /// One digit, once per event (RFC 4733 §2.5).
    Dtmf(char),
    /// The recording's file exists and frames go into it; `path` is absolute.
    RecordingDidStart { path: PathBuf },
    /// The file is complete. `error` when it ended by itself (disk full, …).
    RecordingDidStop { path: PathBuf, error: Option<String> },
    /// Python could not keep up: milliseconds of silence played since the last report.
    Underrun { missing_ms: u32 },
    /// The stream could not go on (device gone, socket error that stays).
    Failed(String),
    /// The chat stream's connection is up.
    ChatDidStart,
    /// It never came up, or broke.
    ChatFailed(String),
}
