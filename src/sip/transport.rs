//! Where a message came from and where one goes: transports and flows.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;

/// A SIP transport (RFC 3261 §18, RFC 7118).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Transport {
    /// True when the transport itself delivers in order and without loss, so no request is retransmitted (RFC 3261 §17).
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// The name in a Via header: "UDP", "TCP", … (RFC 3261 §20.42).
    pub fn via_name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// The name in a `transport=` URI parameter and in our API: "udp", "tcp", ….
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Reads a transport name in any case; `None` when unknown.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss].into_iter().find(|t| t.name().eq_ignore_ascii_case(name))
    }

    /// 5060, or 5061 over TLS; 80 and 443 for WebSockets (RFC 3261 §19.1.2, RFC 7118 §5).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one stream connection of the engine for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names who is to be at the other end of a connection of ours: an entry of [`crate::ua::peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub NonZeroU32); // so that a flow without one is no larger

/// The path a message takes: transport, the peer's address and, on streams, the connection it arrived on.
///
/// A flow without a connection on a reliable transport asks the engine for an open connection to `remote` (of that peer,
/// when one is named), or a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub transport: Transport,
    pub remote: SocketAddr,
    pub connection: Option<ConnectionId>,
    /// Who a new TLS connection has to prove to be (RFC 5922) and a WebSocket asks for; `None`: its address.
    pub peer: Option<PeerId>,
}

impl Flow {
    /// A flow that is not yet bound to a connection.
    pub fn to(transport: Transport, remote: SocketAddr) -> Self {
        Self { transport, remote, connection: None, peer: None }
    }
}
