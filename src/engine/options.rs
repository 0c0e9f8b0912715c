//! What an engine is started with.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::ClientCertificates;
use crate::media::CodecKind;

/// Options of [`super::Engine::start`]. The field names are the option names of the Python API.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// The address to bind; `None`: all addresses, IPv4 and IPv6.
    pub local_ip: Option<IpAddr>,
    /// The address peers are told (Via, Contact, SDP) instead of ours.
    pub advertised_ip: Option<IpAddr>,
    /// `Some(0)`: any free port; `None`: no UDP.
    pub udp_port: Option<u16>,
    /// `Some(0)`: any free port (the UDP one when that is free for TCP too); `None`: no TCP.
    pub tcp_port: Option<u16>,
    /// Where SIP over TLS is taken; `None`: nowhere. Connections to others can be made all the same, here and below.
    pub tls_port: Option<u16>,
    /// Where SIP over WebSocket is taken (RFC 7118).
    pub ws_port: Option<u16>,
    /// The same over TLS.
    pub wss_port: Option<u16>,
    /// Our certificate and those between it and its authority, PEM; shown by both sides of a connection.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM; `None`: it is in the same file.
    pub tls_private_key: Option<PathBuf>,
    /// Authorities we trust, PEM; `None`: the system's. A certificate that is no authority's is trusted for itself.
    pub tls_ca: Option<PathBuf>,
    /// False: any certificate of a server will do.
    pub tls_verify: bool,
    /// Whether clients on `tls_port` have to show a certificate, which is checked against `tls_ca`.
    pub tls_verify_client: ClientCertificates,
    /// Pages whose scripts may connect to `ws_port` and `wss_port`, as browsers name them ("https://phone.example.com",
    /// "*": any); `None`: those of the host that they connect to.
    pub websocket_origins: Option<Vec<String>>,
    pub user_agent: String,
    /// First and last port for RTP and RTCP, both included.
    pub rtp_port_range: (u16, u16),
    /// "null", "default" or the name of a sound card.
    pub audio_device: String,
    /// Codecs in order of preference.
    pub codecs: Vec<CodecKind>,
    /// `None`: one for each core.
    pub media_threads: Option<usize>,
    /// Sessions at once; above it 503.
    pub max_sessions: usize,
    /// New sessions a second from all sources together; above it 503, then silence.
    pub invite_rate: u32,
    /// New sessions a second from one source address.
    pub invite_rate_per_source: u32,
    /// Every SIP message becomes an event, keys and passwords masked.
    pub trace_sip: bool,
    /// Every call keeps its last received packets for [`super::AudioHandle::take_trace`].
    pub trace_rtp: bool,
    /// Answer a new INVITE with 180 at once; otherwise the application rings itself.
    pub auto_ring: bool,
    /// Name servers to ask; `None`: those of the system.
    pub nameservers: Option<Vec<SocketAddr>>,
    /// Take calls from the start; see [`super::Engine::set_accepts_calls`].
    pub accepts_calls: bool,
    /// False: whoever sends a MESSAGE is told 480.
    pub accepts_messages: bool,
    /// Event packages that others may subscribe to.
    pub event_packages: Vec<String>,
    /// The sound card library of the wheel; needed when `audio_device` is not "null".
    pub devices_library: Option<PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            local_ip: None,
            advertised_ip: None,
            udp_port: Some(0),
            tcp_port: Some(0),
            tls_port: None,
            ws_port: None,
            wss_port: None,
            tls_certificate: None,
            tls_private_key: None,
            tls_ca: None,
            tls_verify: true,
            tls_verify_client: ClientCertificates::Off,
            websocket_origins: None,
            user_agent: concat!("sipwire/", env!("CARGO_PKG_VERSION")).to_owned(),
            rtp_port_range: (16_384, 32_767),
            audio_device: "null".to_owned(),
            codecs: CodecKind::ALL.to_vec(),
            media_threads: None,
            max_sessions: 16_384,
            invite_rate: 2_000,
            invite_rate_per_source: 1_000,
            trace_sip: false,
            trace_rtp: false,
            auto_ring: true,
            nameservers: None,
            accepts_calls: false,
            accepts_messages: true,
            event_packages: Vec::new(),
            devices_library: None,
        }
    }
}
