//! What happens to the machine under us: its addresses change, it sleeps and wakes (reliability rows 46 and 47).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::sockets::default_address;
use crate::sip::transport::Transport;

/// A difference between the clocks that is no sleep: they are read one after the other, on a machine that may be busy.
const SLEPT: Duration = Duration::from_secs(2);

/// Watches the addresses of the default routes, and the clock that goes on while the machine sleeps.
pub(super) struct NetworkWatch {
    /// Of the families whose listeners hear on every address and show that of the default route.
    followed: Vec<(bool, IpAddr)>,
    clocks: Option<(Instant, Duration)>,
}

impl NetworkWatch {
    pub fn new(bind_ip: Option<IpAddr>, advertised_ip: Option<IpAddr>, now: Instant) -> Self {
        let follows = |ipv6: bool| {
            let bound = bind_ip.is_none_or(|ip| ip.is_unspecified() && (ip.is_ipv6() || !ipv6));
            bound && advertised_ip.is_none_or(|ip| ip.is_ipv6() != ipv6)
        };
        let followed = [false, true].into_iter().filter(|ipv6| follows(*ipv6));
        Self {
            followed: followed.map(|ipv6| (ipv6, default_address(ipv6))).collect(),
            clocks: boot_time().map(|boot| (now, boot)),
        }
    }

    /// Our addresses with what changed since the last time; `None` when nothing did.
    pub fn changed(&mut self, local: &[(Transport, SocketAddr)]) -> Option<Vec<(Transport, SocketAddr)>> {
        self.changed_to(local, default_address)
    }

    /// A machine without a network has no other address to tell of: the old one stays until there is one.
    fn changed_to(
        &mut self,
        local: &[(Transport, SocketAddr)],
        address: impl Fn(bool) -> IpAddr,
    ) -> Option<Vec<(Transport, SocketAddr)>> {
        let mut changed = None;
        for (ipv6, known) in &mut self.followed {
            let found = address(*ipv6);
            if found == *known || found.is_loopback() {
                continue;
            }
            let old = std::mem::replace(known, found);
            for (_, shown) in changed.get_or_insert_with(|| local.to_vec()) {
                if shown.ip() == old {
                    shown.set_ip(found);
                }
            }
        }
        changed
    }

    /// True once after the machine slept.
    pub fn has_slept(&mut self, now: Instant) -> bool {
        let Some((last, last_boot)) = self.clocks else { return false };
        let Some(boot) = boot_time() else { return false };
        self.clocks = Some((now, boot));
        boot.saturating_sub(last_boot) > now.saturating_duration_since(last) + SLEPT
    }
}

/// Time since the machine started, sleep included.
#[cfg(target_os = "linux")]
fn boot_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives through the call, which only writes to it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (result == 0).then(|| Duration::new(seconds, nanos))
}

/// Elsewhere the clock of [`Instant`] goes on, or nobody tells.
#[cfg(not(target_os = "linux"))]
fn boot_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const OLD: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const NEW: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn watch(known: IpAddr) -> NetworkWatch {
        NetworkWatch { followed: vec![(false, known)], clocks: None }
    }

    #[test]
    fn addresses_follow_the_default_route_and_stay_while_there_is_none() {
        let other = (Transport::Tcp, "198.51.100.1:5060".parse().expect("an address"));
        let local = vec![(Transport::Udp, SocketAddr::new(OLD, 5060)), other];
        let mut watch = watch(OLD);
        assert_eq!(watch.changed_to(&local, |_| OLD), None);
        assert_eq!(watch.changed_to(&local, |_| LOOPBACK), None);
        let moved = vec![(Transport::Udp, SocketAddr::new(NEW, 5060)), other];
        assert_eq!(watch.changed_to(&local, |_| NEW), Some(moved.clone()));
        assert_eq!(watch.changed_to(&moved, |_| NEW), None);
    }

    #[test]
    fn only_listeners_on_every_address_without_an_advertised_one_follow() {
        let now = Instant::now();
        let families = |bind: Option<&str>, advertised: Option<&str>| {
            let ip = |text: &str| text.parse().expect("an address");
            let watch = NetworkWatch::new(bind.map(ip), advertised.map(ip), now);
            watch.followed.iter().map(|(ipv6, _)| *ipv6).collect::<Vec<_>>()
        };
        assert_eq!(families(None, None), [false, true]);
        assert_eq!(families(Some("0.0.0.0"), None), [false]);
        assert_eq!(families(Some("::"), None), [false, true]);
        assert_eq!(families(Some("127.0.0.1"), None), Vec::<bool>::new());
        assert_eq!(families(None, Some("203.0.113.1")), [true]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_sleep_is_what_the_boot_clock_counts_and_the_other_does_not() {
        let now = Instant::now();
        let mut watch = NetworkWatch::new(None, None, now);
        assert!(!watch.has_slept(now));
        let (_, boot) = watch.clocks.expect("Linux has the clock");
        watch.clocks = Some((now, boot.saturating_sub(Duration::from_secs(60))));
        assert!(watch.has_slept(now));
        assert!(!watch.has_slept(now), "once");
    }
}
