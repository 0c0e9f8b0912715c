//! What the network says about datagrams that did not arrive (ICMP), asked of the kernel.
//!
//! Linux keeps such reports, with the beginning of the datagram they are about, in an error queue of the socket
//! (`IP_RECVERR`); other systems tell an unconnected socket nothing, and the transaction's timers have to do.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

/// A datagram that did not arrive.
#[derive(Debug)]
pub(super) struct Report {
    pub to: SocketAddr,
    pub error: io::Error,
    /// How many of its bytes were put into the buffer; routers send back only the beginning, or nothing of it.
    pub quoted: usize,
}

#[cfg(not(target_os = "linux"))]
pub(super) fn enable(_socket: &UdpSocket, _ipv6: bool) {}

#[cfg(not(target_os = "linux"))]
pub(super) fn next(_socket: &UdpSocket, _buffer: &mut [u8]) -> Option<Report> {
    None
}

#[cfg(target_os = "linux")]
pub(super) use linux::{enable, next};

#[cfg(target_os = "linux")]
mod linux {
    use std::io::IoSliceMut;
    use std::net::{SocketAddrV4, SocketAddrV6};
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
    use tokio::io::Interest;

    use super::*;

    /// `ee_type` of "time exceeded": perhaps a passing loop, and no answer about the peer (RFC 3261 §18.4).
    const TIME_EXCEEDED: u8 = 11;
    const TIME_EXCEEDED_V6: u8 = 3;

    /// Asks the kernel to keep reports; a kernel that does not is none the worse.
    pub fn enable(socket: &UdpSocket, ipv6: bool) {
        let enabled = match ipv6 {
            true => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
            false => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        };
        if let Err(error) = enabled {
            tracing::debug!(%error, "no reports about lost datagrams");
        }
    }

    /// The next report that says a datagram did not arrive; `None` when there is none.
    pub fn next(socket: &UdpSocket, buffer: &mut [u8]) -> Option<Report> {
        loop {
            // Without an event of the kernel's this asks nothing, and an empty queue ends the event.
            match socket.try_io(Interest::ERROR, || receive(socket, buffer)) {
                Ok(Some(report)) => return Some(report),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    }

    fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Report>> {
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let to = message.address.and_then(|address| {
            let ipv4 = address.as_sockaddr_in().map(|address| SocketAddr::V4(SocketAddrV4::from(*address)));
            ipv4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6(SocketAddrV6::from(*address))))
        });
        let quoted = message.bytes;
        let error = message.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error),
                _ => None,
            })
        });
        Ok(to.zip(error).filter(|(_, error)| is_final(error)).map(|(to, error)| Report {
            to,
            error: io::Error::from_raw_os_error(i32::try_from(error.ee_errno).unwrap_or(libc::EHOSTUNREACH)),
            quoted,
        }))
    }

    /// Unreachable, for whatever reason; not "too big", after which the kernel sends smaller pieces.
    fn is_final(error: &libc::sock_extended_err) -> bool {
        let errno = i32::try_from(error.ee_errno).unwrap_or_default();
        let passing = match error.ee_origin {
            libc::SO_EE_ORIGIN_ICMP => error.ee_type == TIME_EXCEEDED,
            libc::SO_EE_ORIGIN_ICMP6 => error.ee_type == TIME_EXCEEDED_V6,
            _ => false,
        };
        let unreachable = [
            libc::ECONNREFUSED,
            libc::EHOSTUNREACH,
            libc::ENETUNREACH,
            libc::EHOSTDOWN,
            libc::ENOPROTOOPT,
            libc::EACCES,
        ];
        !passing && unreachable.contains(&errno)
    }
}
