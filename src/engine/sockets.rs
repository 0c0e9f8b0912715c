//! Binding: SIP sockets, RTP port pairs, and the question which of our addresses a peer sees.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::EngineError;

/// Room for a burst of SIP messages while the lane is busy: half a second of 3,000 calls a second.
const SIP_RECEIVE_BUFFER: usize = 4 << 20;
/// A closed RTP port is not given out again for this long: packets of the old call may still come.
const PORT_REST: Duration = Duration::from_secs(30);
/// Pairs tried at random before the range is searched from a random place.
const RANDOM_TRIES: usize = 16;
/// Listening TCP backlog.
const BACKLOG: i32 = 1024;
/// How long an answer of the routing table is believed.
const ROUTE_LIFE: Duration = Duration::from_secs(5);
/// Routes remembered at most; the memory is emptied when full.
const ROUTE_LIMIT: usize = 1024;

/// An operating system error in the words of our error texts.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        io::ErrorKind::AlreadyExists => "the file exists".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::DGRAM { Protocol::UDP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // IPv4 has a socket of its own, and no mapped address ever reaches a message
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_error(option: &'static str, address: SocketAddr, error: &io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            EngineError::Option { option: "local_ip", what: format!("{}: {}", address.ip(), words(error)) }
        }
        _ => EngineError::Option { option, what: format!("{} on {}: {}", address.port(), address.ip(), words(error)) },
    }
}

/// The SIP UDP socket, non-blocking.
pub(super) fn bind_sip_udp(address: SocketAddr) -> Result<UdpSocket, EngineError> {
    let bind = || {
        let socket = socket(address, Type::DGRAM)?;
        let _ = socket.set_recv_buffer_size(SIP_RECEIVE_BUFFER); // the kernel gives what it allows
        let _ = socket.set_send_buffer_size(SIP_RECEIVE_BUFFER);
        socket.bind(&address.into())?;
        Ok(UdpSocket::from(socket))
    };
    bind().map_err(|error| bind_error("udp_port", address, &error))
}

/// A listener for connections that carry SIP, non-blocking; `option` names its port.
pub(super) fn bind_sip_tcp(address: SocketAddr, option: &'static str) -> Result<TcpListener, EngineError> {
    let bind = || {
        let socket = socket(address, Type::STREAM)?;
        socket.set_reuse_address(true)?; // connections of an earlier run may wait in TIME_WAIT
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|error| bind_error(option, address, &error))
}

/// RTP and RTCP sockets of one stream, on an even port and the one after it.
#[derive(Debug)]
pub(super) struct RtpSockets {
    pub rtp: mio::net::UdpSocket,
    pub rtcp: mio::net::UdpSocket,
    pub port: u16,
}

/// Gives out RTP port pairs of a range, at random (reliability row 21).
#[derive(Debug)]
pub(super) struct RtpPorts {
    first: u16,
    pairs: u16,
    resting: VecDeque<(Instant, u16)>,
}

impl RtpPorts {
    /// # Errors
    /// When the range has no even port with its successor.
    pub fn new((first, last): (u16, u16)) -> Result<Self, EngineError> {
        let even = u32::from(first.max(2)).next_multiple_of(2);
        let pairs = (u32::from(last) + 1).saturating_sub(even) / 2;
        match (u16::try_from(even), u16::try_from(pairs)) {
            (Ok(first), Ok(pairs)) if pairs > 0 => Ok(Self { first, pairs, resting: VecDeque::new() }),
            _ => Err(EngineError::Option {
                option: "rtp_port_range",
                what: format!("({first}, {last}) holds no even port with the one after it"),
            }),
        }
    }

    /// Notes that a pair was closed.
    pub fn release(&mut self, port: u16, now: Instant) {
        self.resting.push_back((now + PORT_REST, port));
    }

    pub fn bind(&mut self, address: IpAddr, random: &mut StdRng, now: Instant) -> Result<RtpSockets, String> {
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            self.resting.pop_front();
        }
        // Half the range is always left to choose from; a range under pressure uses rested and unrested ports alike.
        while self.resting.len() > usize::from(self.pairs / 2) {
            self.resting.pop_front();
        }
        let start = random.random_range(0..self.pairs);
        let tries = (0..RANDOM_TRIES).map(|_| random.random_range(0..self.pairs)).collect::<Vec<_>>();
        let search = (0..self.pairs).map(|step| (u32::from(start) + u32::from(step)) % u32::from(self.pairs));
        let mut error = None;
        for index in tries.into_iter().map(u32::from).chain(search) {
            let port = self.first + 2 * u16::try_from(index).expect("an index is below the number of pairs");
            if self.resting.iter().any(|(_, resting)| *resting == port) {
                continue;
            }
            match bind_pair(address, port) {
                Ok(sockets) => return Ok(sockets),
                Err(busy) if busy.kind() == io::ErrorKind::AddrInUse => error = Some(busy),
                Err(other) => return Err(format!("RTP socket on {address}: {}", words(&other))),
            }
        }
        let last = self.first + 2 * self.pairs - 1;
        let why = error.map_or_else(|| "all ports rest".to_owned(), |error| words(&error));
        Err(format!("no free RTP port pair in {}-{last} on {address}: {why}", self.first))
    }
}

fn bind_pair(address: IpAddr, port: u16) -> io::Result<RtpSockets> {
    // Two sockets for each call: mio makes them non-blocking without a system call of their own, and their buffers stay at
    // the system's size, which holds seconds of a call.
    let bind = |port| -> io::Result<mio::net::UdpSocket> {
        let socket = mio::net::UdpSocket::bind(SocketAddr::new(address, port))?;
        // Expedited forwarding (RFC 4594): voice. Networks that do not care ignore it.
        if address.is_ipv4() {
            let _ = SockRef::from(&socket).set_tos_v4(0xb8);
        }
        Ok(socket)
    };
    Ok(RtpSockets { rtp: bind(port)?, rtcp: bind(port + 1)?, port })
}

/// Which of our addresses reach which peers.
#[derive(Debug, Default)]
pub(super) struct Routes {
    known: HashMap<IpAddr, (Instant, IpAddr)>,
}

impl Routes {
    /// Our address towards `peer`, by the kernel's routing table.
    pub fn local_address(&mut self, peer: IpAddr, now: Instant) -> Option<IpAddr> {
        if let Some((at, address)) = self.known.get(&peer)
            && now.saturating_duration_since(*at) < ROUTE_LIFE
        {
            return Some(*address);
        }
        let address = route_towards(peer)?;
        if self.known.len() >= ROUTE_LIMIT {
            self.known.clear();
        }
        self.known.insert(peer, (now, address));
        Some(address)
    }
}

/// Connecting a UDP socket sends nothing; it only makes the kernel choose the source address.
fn route_towards(peer: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((peer, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}

/// The address of the default route, or the loopback address where there is none.
pub(super) fn default_address(ipv6: bool) -> IpAddr {
    // Addresses for documentation (RFC 5737, RFC 3849): never on a local network, so the default route answers.
    let (anywhere, loopback): (IpAddr, IpAddr) = if ipv6 {
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into())
    } else {
        (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::LOCALHOST.into())
    };
    route_towards(anywhere).unwrap_or(loopback)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_range_without_a_pair_is_named() {
        for range in [(5000, 5000), (5001, 5002), (6000, 5000), (65_535, 65_535), (0, 1)] {
            let error = RtpPorts::new(range).expect_err("no pair");
            assert!(error.to_string().starts_with(&format!("rtp_port_range ({}, {})", range.0, range.1)), "{error}");
        }
        for range in [(5000, 5001), (5001, 5003), (0, 65_535), (65_534, 65_535)] {
            RtpPorts::new(range).expect("a pair");
        }
    }

    #[test]
    fn pairs_are_even_in_range_and_rest_after_use() {
        let mut random = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let mut ports = RtpPorts::new((41_000, 41_007)).expect("four pairs");
        let taken: Vec<_> = (0..4).map(|_| ports.bind(LOOPBACK, &mut random, now).expect("free")).collect();
        let mut numbers: Vec<_> = taken.iter().map(|sockets| sockets.port).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [41_000, 41_002, 41_004, 41_006]);
        for sockets in &taken {
            assert_eq!(
                sockets.rtp.local_addr().expect("bound").port() + 1,
                sockets.rtcp.local_addr().expect("bound").port()
            );
        }
        let error = ports.bind(LOOPBACK, &mut random, now).expect_err("all are taken");
        assert!(error.contains("41000-41007 on 127.0.0.1: address in use"), "{error}");
        drop(taken);
        ports.release(41_000, now);
        ports.release(41_002, now);
        for _ in 0..20 {
            let port = ports.bind(LOOPBACK, &mut random, now).expect("two pairs are left").port;
            assert!(port >= 41_004, "{port} rests");
        }
        ports.bind(LOOPBACK, &mut random, now + PORT_REST).expect("rested");
        assert!(ports.resting.is_empty());
    }

    #[test]
    fn a_busy_port_names_option_port_address_and_reason() {
        let taken = bind_sip_udp((LOOPBACK, 0).into()).expect("a free port");
        let address = taken.local_addr().expect("bound");
        let error = bind_sip_udp(address).expect_err("taken");
        assert_eq!(error.to_string(), format!("udp_port {} on 127.0.0.1: address in use", address.port()));
        let error = bind_sip_tcp("192.0.2.77:0".parse().expect("an address"), "tcp_port").expect_err("not ours");
        assert_eq!(error.to_string(), "local_ip 192.0.2.77: no such address on this machine");
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        assert_eq!(Routes::default().local_address(LOOPBACK, Instant::now()), Some(LOOPBACK));
        assert!(!default_address(false).is_unspecified());
    }
}
