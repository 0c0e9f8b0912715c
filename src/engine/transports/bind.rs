//! Binding the SIP sockets of an engine: every port on both address families where the machine has them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use super::tls::Tls;
use super::websocket::Origins;
use crate::engine::sockets::{bind_sip_tcp, bind_sip_udp, default_address};
use crate::engine::{Addresses, EngineError, EngineOptions};
use crate::sip::transport::Transport;

/// How often a free port is looked for that is free on both families.
const FREE_PORT_TRIES: usize = 16;

/// Sockets that are bound and not yet served, each with the address that peers are told.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(super) udp: Vec<(UdpSocket, SocketAddr)>,
    /// Whether TCP is used at all.
    pub(super) tcp: bool,
    pub(super) listeners: Vec<(Transport, TcpListener, SocketAddr)>,
    pub(super) tls: Tls,
    pub(super) origins: Origins,
    /// Where connections are made from.
    pub(super) bind_ip: Option<IpAddr>,
    /// What we are told by, one of each family.
    shown: Vec<IpAddr>,
}

impl Bound {
    /// Binds the ports and reads the certificates.
    ///
    /// # Errors
    /// [`EngineError::Option`] names the option at fault: "udp_port 5060 on 127.0.0.1: address in use".
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        let tls = Tls::new(options)?;
        let families = Families::new(options);
        let udp = match options.udp_port {
            Some(port) => families.bind(port, None, bind_sip_udp, UdpSocket::local_addr)?,
            None => Vec::new(),
        };
        // A free port: the UDP one when it is free for TCP too, so that the engine has one number to remember.
        let same = udp.first().map(|(_, local)| local.port());
        let mut listeners = Vec::new();
        for (transport, option, port, wish) in [
            (Transport::Tcp, "tcp_port", options.tcp_port, same),
            (Transport::Tls, "tls_port", options.tls_port, None),
            (Transport::Ws, "ws_port", options.ws_port, None),
            (Transport::Wss, "wss_port", options.wss_port, None),
        ] {
            let Some(port) = port else { continue };
            let bound = families.bind(port, wish, |at| bind_sip_tcp(at, option), TcpListener::local_addr)?;
            listeners.extend(bound.into_iter().map(|(listener, shown)| (transport, listener, shown)));
        }
        let origins = options.websocket_origins.clone().map_or(Origins::SameHost, Origins::List);
        let bind_ip = options.local_ip.filter(|ip| !ip.is_unspecified());
        let shown = families.addresses.iter().map(|ip| families.shown(*ip)).collect();
        let tcp = options.tcp_port.is_some();
        Ok(Self { udp, tcp, listeners, tls, origins, bind_ip, shown })
    }

    /// Every address with its transport, the preferred family first: what Via and Contact are written from. Port 0 stands
    /// for a transport that connects but does not listen.
    pub fn local(&self) -> Vec<(Transport, SocketAddr)> {
        let udp = self.udp.iter().map(|(_, address)| (Transport::Udp, *address));
        let listeners = self.listeners.iter().map(|(transport, _, address)| (*transport, *address));
        let mut local: Vec<_> = udp.chain(listeners).collect();
        for transport in [Transport::Tls, Transport::Ws, Transport::Wss] {
            if !local.iter().any(|(listening, _)| *listening == transport) {
                local.extend(self.shown.iter().map(|ip| (transport, SocketAddr::new(*ip, 0))));
            }
        }
        local
    }

    /// The first address of each transport that listens.
    pub fn addresses(&self) -> Addresses {
        let local = self.local();
        let first = |wanted| {
            let mut of = local.iter().filter(|(transport, address)| *transport == wanted && address.port() != 0);
            of.next().map(|(_, address)| *address)
        };
        Addresses {
            udp: first(Transport::Udp),
            tcp: first(Transport::Tcp),
            tls: first(Transport::Tls),
            ws: first(Transport::Ws),
            wss: first(Transport::Wss),
        }
    }
}

/// The addresses that are bound, the preferred one first, and what is shown for each.
struct Families {
    addresses: Vec<IpAddr>,
    advertised: Option<IpAddr>,
}

impl Families {
    fn new(options: &EngineOptions) -> Self {
        let (ipv4, ipv6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
        let addresses = match options.local_ip {
            None => vec![ipv4, ipv6],
            Some(ip) if ip == ipv6 => vec![ipv6, ipv4],
            Some(ip) => vec![ip],
        };
        Self { addresses, advertised: options.advertised_ip }
    }

    /// The advertised address stands for those of its family, and for the only one.
    fn shown(&self, bound: IpAddr) -> IpAddr {
        match self.advertised {
            Some(advertised) if self.addresses.len() == 1 || advertised.is_ipv4() == bound.is_ipv4() => advertised,
            _ if bound.is_unspecified() => default_address(bound.is_ipv6()),
            _ => bound,
        }
    }

    /// One socket for each family on the same port, `wish` if the port is free to choose and that one is free. The second
    /// family is left out where the machine does not have it.
    fn bind<S>(
        &self,
        port: u16,
        wish: Option<u16>,
        bind: impl Fn(SocketAddr) -> Result<S, EngineError>,
        local: impl Fn(&S) -> io::Result<SocketAddr>,
    ) -> Result<Vec<(S, SocketAddr)>, EngineError> {
        let wish = wish.filter(|_| port == 0);
        let mut tries = FREE_PORT_TRIES;
        loop {
            let wanted = if tries == FREE_PORT_TRIES { wish.unwrap_or(port) } else { port };
            match self.try_bind(wanted, &bind, &local) {
                Err(_) if port == 0 && tries > 0 => tries -= 1,
                result => return result,
            }
        }
    }

    fn try_bind<S>(
        &self,
        mut port: u16,
        bind: &impl Fn(SocketAddr) -> Result<S, EngineError>,
        local: &impl Fn(&S) -> io::Result<SocketAddr>,
    ) -> Result<Vec<(S, SocketAddr)>, EngineError> {
        let mut sockets = Vec::with_capacity(self.addresses.len());
        for ip in &self.addresses {
            match bind((*ip, port).into()) {
                Ok(socket) => {
                    port = local(&socket).map_or(port, |address| address.port());
                    sockets.push((socket, SocketAddr::new(self.shown(*ip), port)));
                }
                Err(error) if sockets.is_empty() || is_in_use(*ip, port) => return Err(error),
                Err(error) => tracing::debug!(%error, "the second address family is left out"),
            }
        }
        Ok(sockets)
    }
}

/// True when the machine has the family: then the port is what was wrong.
fn is_in_use(ip: IpAddr, port: u16) -> bool {
    port != 0 && UdpSocket::bind((ip, 0)).is_ok()
}
