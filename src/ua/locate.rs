//! Locating SIP servers (RFC 3263): from a URI to the list of addresses a request is sent to, best first.
//!
//! ```text
//! numeric host ──────────────────────────────────────────────────────────▶ one hop
//! explicit port ───────────────────────────────────────▶ addresses ──────▶ hops
//! transport parameter ──────────────────────▶ SRV of it ──▶ addresses ───▶ hops
//! neither ──▶ NAPTR ──▶ SRV of each service ────────────▶ addresses ─────▶ hops
//!               ╰─none─▶ SRV of each transport we have ─none─▶ addresses of the domain
//! ```
//! All questions of one step are asked together, and a hop is given as soon as those before it are known: a name server
//! that is slow about the third target does not hold up the first.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::sip::transport::Transport;
use crate::sip::uri::{Host, Uri};

/// NAPTR records of one domain that are read; a domain with every transport has five.
const MAX_NAPTR: usize = 16;
/// SRV records of one name that are read: the largest pools have a dozen.
const MAX_SRV: usize = 64;
/// Targets whose addresses are asked for; more could not be tried in the life of a call.
const MAX_TARGETS: usize = 16;
/// Addresses of one host name that are tried: enough for any pool of proxies, and 8 × 32 s is patience enough.
const MAX_ADDRESSES: usize = 8;
/// Hops one URI or host name leads to at most, whatever the records say.
const MAX_HOPS: usize = 16;

/// Address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Families {
    /// The families of these addresses; IPv4 in IPv6 clothes counts as IPv4.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        addresses.into_iter().fold(Self::default(), |families, ip| match ip.to_canonical() {
            IpAddr::V4(_) => Self { ipv4: true, ..families },
            IpAddr::V6(_) => Self { ipv6: true, ..families },
        })
    }

    fn or(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 | other.ipv4, ipv6: self.ipv6 | other.ipv6 }
    }

    fn has(self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        }
    }
}

/// What a name server is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// The services of a domain.
    Naptr(String),
    /// The servers of a service, `_sip._udp.example.com`.
    Srv(String),
    /// A and AAAA, as far as wanted; the hosts file comes first.
    Address { host: String, families: Families },
}

impl Question {
    /// The name that is looked up.
    pub fn name(&self) -> &str {
        match self {
            Self::Naptr(name) | Self::Srv(name) => name,
            Self::Address { host, .. } => host,
        }
    }
}

/// One NAPTR record (RFC 3403 §4.1). The regular expression has no use in SIP (RFC 3263 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    pub order: u16,
    pub preference: u16,
    pub flags: String,
    /// `SIP+D2U`, ….
    pub service: String,
    pub replacement: String,
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// "." says that the service is decidedly not offered.
    pub target: String,
}

/// What a name server answered. Empty: there is no such record, or no such name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Naptr(Vec<Naptr>),
    Srv(Vec<Srv>),
    Address(Vec<IpAddr>),
}

/// One address a request can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub transport: Transport,
    pub remote: SocketAddr,
}

/// The next hop, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Hop(Hop),
    /// An answer is needed first.
    Waiting,
    /// There are no more; why, when there was none at all.
    Over(Option<String>),
}

/// A server of some service.
#[derive(Debug)]
struct Target {
    transport: Transport,
    families: Families,
    host: String,
    port: u16,
    addresses: Option<Vec<IpAddr>>,
}

/// A service whose SRV records are asked for.
#[derive(Debug)]
struct Service {
    transport: Transport,
    name: String,
    found: Found,
}

#[derive(Debug)]
enum Found {
    Nothing,
    /// In the order they are tried.
    Servers(Vec<Srv>),
    /// A record says that there is no such service.
    Refused,
}

#[derive(Debug)]
enum Phase {
    Naptr,
    Srv(Vec<Service>),
    Addresses,
}

/// One location on its way.
#[derive(Debug)]
pub struct Locator {
    /// The SIP domain, from before any look-up: what a certificate has to name (RFC 5922). `None` for addresses.
    domain: Option<String>,
    /// The name that is looked up: `maddr`, or the domain.
    host: String,
    secure: bool,
    /// Transports that may be used, in order of preference, with the families we have sockets for.
    transports: Vec<(Transport, Families)>,
    phase: Phase,
    to_ask: VecDeque<Question>,
    asked: Vec<Question>,
    targets: VecDeque<Target>,
    hops: VecDeque<Hop>,
    given: Vec<Hop>,
    failure: Option<String>,
}

impl Locator {
    /// Locates a URI. `wanted` are the transports to choose from when the URI names none, in order of preference; `have`
    /// those the engine has.
    ///
    /// # Errors
    /// When the URI names no host, or no transport for it is there; the text says which.
    pub fn for_uri(uri: &Uri, wanted: &[Transport], have: &[(Transport, Families)]) -> Result<Self, String> {
        let secure = uri.is_secure();
        let named = match uri.parameter("transport") {
            Some(Some(name)) => Some(transport_of(uri, name)?),
            Some(None) | None => None,
        };
        let families_of = |wanted: Transport| have.iter().find(|(transport, _)| *transport == wanted).copied();
        let transports: Vec<_> = match named {
            Some(transport) => families_of(transport).into_iter().collect(),
            None => {
                let fits = |transport: &&Transport| !secure || is_secure(**transport);
                wanted.iter().filter(fits).filter_map(|transport| families_of(*transport)).collect()
            }
        };
        let Some(default) = default_transport(&transports) else {
            let needed = match (named, secure) {
                (Some(transport), _) => transport.name(),
                (None, true) => "tls",
                (None, false) => "udp or tcp",
            };
            return Err(format!("{uri} needs transport {needed}, which this engine does not listen on"));
        };
        let host = uri.host.clone().ok_or_else(|| format!("{uri} names no host"))?;
        let maddr = uri.parameter("maddr").flatten().and_then(|maddr| Host::parse(maddr.as_bytes()));
        let domain = match &host {
            Host::Name(name) => Some(plain(name)),
            Host::Ip(_) => None,
        };
        let port = uri.port.filter(|port| *port != 0);
        let mut locator = Self::empty(domain, secure, transports);
        match (maddr.unwrap_or(host), port) {
            (Host::Ip(ip), port) => {
                let remote = SocketAddr::new(ip, port.unwrap_or(default.0.default_port()));
                locator.hops.push_back(Hop { transport: default.0, remote });
            }
            (Host::Name(name), Some(port)) => {
                locator.host = plain(&name);
                locator.add_target(default, &name, port);
                locator.ask_addresses();
            }
            (Host::Name(name), None) => {
                locator.host = plain(&name);
                match named {
                    Some(_) => locator.ask_services(),
                    None => {
                        locator.phase = Phase::Naptr;
                        locator.ask(Question::Naptr(locator.host.clone()));
                    }
                }
            }
        }
        Ok(locator)
    }

    /// Locates a host of which port and transport are known already.
    pub fn for_host(host: &str, port: u16, transport: Transport, families: Families) -> Self {
        if let Some(ip) = numeric(host) {
            let mut locator = Self::empty(None, false, vec![(transport, families)]);
            locator.hops.push_back(Hop { transport, remote: SocketAddr::new(ip, port) });
            return locator;
        }
        let mut locator = Self::empty(Some(plain(host)), false, vec![(transport, families)]);
        locator.host = plain(host);
        locator.add_target((transport, families), host, port);
        locator.ask_addresses();
        locator
    }

    fn empty(domain: Option<String>, secure: bool, transports: Vec<(Transport, Families)>) -> Self {
        Self {
            domain,
            host: String::new(),
            secure,
            transports,
            phase: Phase::Addresses,
            to_ask: VecDeque::new(),
            asked: Vec::new(),
            targets: VecDeque::new(),
            hops: VecDeque::new(),
            given: Vec::new(),
            failure: None,
        }
    }

    /// The SIP domain; `None` when an address was given.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The next question; its answer comes back through [`Self::handle_answer`].
    pub fn poll_question(&mut self) -> Option<Question> {
        let question = self.to_ask.pop_front()?;
        self.asked.push(question.clone());
        Some(question)
    }

    /// Takes the answer to one of the questions; any other is ignored. `random` decides between servers of the same
    /// priority (RFC 2782).
    pub fn handle_answer(&mut self, question: &Question, answer: Result<Answer, String>, random: &mut StdRng) {
        let Some(index) = self.asked.iter().position(|asked| asked == question) else { return };
        self.asked.swap_remove(index);
        match question {
            Question::Naptr(_) => self.take_naptr(answer),
            Question::Srv(name) => self.take_srv(name, answer, random),
            Question::Address { host, .. } => self.take_addresses(host, answer),
        }
    }

    /// The next hop. Drain the questions before.
    pub fn next_hop(&mut self) -> Next {
        loop {
            if self.given.len() >= MAX_HOPS {
                return Next::Over(None);
            }
            if let Some(hop) = self.hops.pop_front() {
                if self.given.contains(&hop) {
                    continue;
                }
                self.given.push(hop);
                return Next::Hop(hop);
            }
            if !matches!(self.phase, Phase::Addresses) {
                return Next::Waiting;
            }
            let Some(target) = self.targets.pop_front() else {
                return Next::Over(self.failure.take().filter(|_| self.given.is_empty()));
            };
            let Some(addresses) = &target.addresses else {
                self.targets.push_front(target);
                return Next::Waiting;
            };
            let usable = addresses.iter().copied().filter(|ip| target.families.has(*ip));
            let hop = |ip| Hop { transport: target.transport, remote: SocketAddr::new(ip, target.port) };
            self.hops = interleaved(usable).into_iter().take(MAX_ADDRESSES).map(hop).collect();
            if self.hops.is_empty() && self.failure.is_none() {
                self.failure = Some(format!("{} has no address", target.host));
            }
        }
    }

    // --- the steps ---------------------------------------------------------------------------------------------------

    fn ask(&mut self, question: Question) {
        if !self.to_ask.contains(&question) && !self.asked.contains(&question) {
            self.to_ask.push_back(question);
        }
    }

    /// Services we can use, best first; without any the transports we have are tried by their usual names.
    fn take_naptr(&mut self, answer: Result<Answer, String>) {
        let Ok(Answer::Naptr(mut records)) = answer else { return self.ask_services() };
        records.truncate(MAX_NAPTR);
        records.sort_by_key(|record| (record.order, record.preference)); // stable: ties as they came
        let mut services: Vec<Service> = Vec::new();
        for record in &records {
            let Some(transport) = transport_of_service(&record.service) else { continue };
            if !self.transports.iter().any(|(ours, _)| *ours == transport) {
                continue;
            }
            let name = plain(&record.replacement);
            let found = match record.flags.to_ascii_lowercase().as_str() {
                "s" => Found::Nothing,
                // Straight to a host, at the usual port.
                "a" => {
                    let port = transport.default_port();
                    Found::Servers(vec![Srv { priority: 0, weight: 0, port, target: name.clone() }])
                }
                _ => continue,
            };
            if !name.is_empty() && !services.iter().any(|known| known.transport == transport && known.name == name) {
                services.push(Service { transport, name, found });
            }
        }
        if services.is_empty() { self.ask_services() } else { self.ask_srv(services) }
    }

    fn ask_services(&mut self) {
        let service = |(transport, _): &(Transport, Families)| Service {
            transport: *transport,
            name: format!("{}.{}", service_name(*transport), self.host),
            found: Found::Nothing,
        };
        let services = self.transports.iter().map(service).collect();
        self.ask_srv(services);
    }

    fn ask_srv(&mut self, services: Vec<Service>) {
        for service in &services {
            if matches!(service.found, Found::Nothing) {
                self.ask(Question::Srv(service.name.clone()));
            }
        }
        self.phase = Phase::Srv(services);
        self.end_of_srv();
    }

    fn take_srv(&mut self, name: &str, answer: Result<Answer, String>, random: &mut StdRng) {
        let Phase::Srv(services) = &mut self.phase else { return };
        if let Ok(Answer::Srv(mut records)) = answer {
            records.truncate(MAX_SRV);
            let refused = !records.is_empty() && records.iter().all(|record| plain(&record.target).is_empty());
            records.retain(|record| record.port != 0 && !plain(&record.target).is_empty());
            let ordered = by_priority_and_weight(records, random);
            for service in services.iter_mut().filter(|service| service.name == name) {
                service.found = match (refused, ordered.is_empty()) {
                    (true, _) => Found::Refused,
                    (false, true) => Found::Nothing,
                    (false, false) => Found::Servers(ordered.clone()),
                };
            }
        }
        self.end_of_srv();
    }

    /// Once every SRV question is answered: the servers, or the domain itself (RFC 3263 §4.2).
    fn end_of_srv(&mut self) {
        let waiting = |question: &Question| matches!(question, Question::Srv(_));
        if self.to_ask.iter().any(waiting) || self.asked.iter().any(waiting) {
            return;
        }
        let Phase::Srv(services) = std::mem::replace(&mut self.phase, Phase::Addresses) else { return };
        let mut refused = false;
        for service in services {
            let Some(with) = self.transports.iter().find(|(ours, _)| *ours == service.transport).copied() else {
                continue;
            };
            match service.found {
                Found::Nothing => {}
                Found::Refused => refused = true,
                Found::Servers(servers) => {
                    for server in servers {
                        self.add_target(with, &server.target, server.port);
                    }
                }
            }
        }
        if self.targets.is_empty() && refused {
            self.failure = Some(format!("{} offers no such service", self.host));
        } else if self.targets.is_empty() {
            let host = self.host.clone();
            for (transport, families) in self.usual_transports() {
                self.add_target((transport, families), &host, transport.default_port());
            }
        }
        self.ask_addresses();
    }

    /// What a domain without SRV records is tried over: UDP, then TCP, which every SIP element has (RFC 3261 §18); TLS when
    /// security is asked for. What we lack is left out, unless nothing else is left.
    fn usual_transports(&self) -> Vec<(Transport, Families)> {
        let usual: &[Transport] = if self.secure { &[Transport::Tls] } else { &[Transport::Udp, Transport::Tcp] };
        let have = |wanted: &Transport| self.transports.iter().find(|(transport, _)| transport == wanted).copied();
        let mut found: Vec<_> = usual.iter().filter_map(have).collect();
        if found.is_empty() {
            found.extend(self.transports.first());
        }
        found
    }

    fn add_target(&mut self, (transport, families): (Transport, Families), host: &str, port: u16) {
        if self.targets.len() < MAX_TARGETS {
            self.targets.push_back(Target { transport, families, host: plain(host), port, addresses: None });
        }
    }

    fn ask_addresses(&mut self) {
        let mut hosts: Vec<(String, Families)> = Vec::new();
        for target in &self.targets {
            match hosts.iter_mut().find(|(host, _)| *host == target.host) {
                Some((_, families)) => *families = families.or(target.families),
                None => hosts.push((target.host.clone(), target.families)),
            }
        }
        for (host, families) in hosts {
            self.ask(Question::Address { host, families });
        }
    }

    fn take_addresses(&mut self, host: &str, answer: Result<Answer, String>) {
        let found = match answer {
            Ok(Answer::Address(mut found)) => {
                found.retain(|ip| is_destination(*ip));
                found
            }
            Ok(_) => Vec::new(),
            Err(error) => {
                self.failure.get_or_insert_with(|| format!("cannot resolve {host}: {error}"));
                Vec::new()
            }
        };
        for target in self.targets.iter_mut().filter(|target| target.host == host) {
            target.addresses = Some(found.clone());
        }
    }
}

/// The transport a URI asks for; `sips` makes it the secure one of its kind (RFC 3261 §26.2.2).
fn transport_of(uri: &Uri, name: &str) -> Result<Transport, String> {
    let transport = Transport::from_name(name).ok_or_else(|| format!("the transport {name} of {uri} is unknown"))?;
    match transport {
        Transport::Udp if uri.is_secure() => Err(format!("{uri} asks for security over udp, which has none")),
        Transport::Tcp if uri.is_secure() => Ok(Transport::Tls),
        Transport::Ws if uri.is_secure() => Ok(Transport::Wss),
        transport => Ok(transport),
    }
}

fn is_secure(transport: Transport) -> bool {
    matches!(transport, Transport::Tls | Transport::Wss)
}

/// UDP, or TLS when only secure ones are there (RFC 3263 §4.1); else the one preferred.
fn default_transport(transports: &[(Transport, Families)]) -> Option<(Transport, Families)> {
    let find = |wanted: Transport| transports.iter().find(|(transport, _)| *transport == wanted);
    find(Transport::Udp).or_else(|| transports.first()).copied()
}

/// RFC 3263 §4.1, RFC 7118 §6.
fn transport_of_service(service: &str) -> Option<Transport> {
    match service.to_ascii_uppercase().as_str() {
        "SIP+D2U" => Some(Transport::Udp),
        "SIP+D2T" => Some(Transport::Tcp),
        "SIPS+D2T" => Some(Transport::Tls),
        "SIP+D2W" => Some(Transport::Ws),
        "SIPS+D2W" => Some(Transport::Wss),
        _ => None,
    }
}

/// What stands before the domain in the name of a service's SRV records.
fn service_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
        Transport::Ws => "_sip._ws",
        Transport::Wss => "_sips._ws",
    }
}

/// A name as it is compared: lower case, without the dot of the root.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// An address as people write it: IPv6 with or without brackets.
fn numeric(address: &str) -> Option<IpAddr> {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    bare.parse().ok()
}

fn is_destination(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::from([255; 4])
}

/// Families in turn, the first one first (RFC 8305 §4): when one of them leads nowhere, the next attempt has the other.
fn interleaved(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (mut first, mut second) = (VecDeque::new(), VecDeque::new());
    for ip in addresses {
        let same = first.front().is_none_or(|front: &IpAddr| front.is_ipv4() == ip.is_ipv4());
        if same { first.push_back(ip) } else { second.push_back(ip) }
    }
    let mut all = Vec::with_capacity(first.len() + second.len());
    while !(first.is_empty() && second.is_empty()) {
        all.extend(first.pop_front());
        all.extend(second.pop_front());
    }
    all
}

/// Lowest priority first; among equals by chance, in proportion to their weights, those without weight rarely first
/// (RFC 2782).
fn by_priority_and_weight(mut records: Vec<Srv>, random: &mut StdRng) -> Vec<Srv> {
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.iter().map(|record| record.priority).min() {
        let (mut equals, rest): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.priority == priority);
        records = rest;
        equals.sort_by_key(|record| record.weight != 0); // those of weight 0 stand in front of the draw
        while !equals.is_empty() {
            let total: u32 = equals.iter().map(|record| u32::from(record.weight)).sum();
            let drawn = random.random_range(0..=total);
            let mut sum = 0;
            let index = equals.iter().position(|record| {
                sum += u32::from(record.weight);
                sum >= drawn
            });
            ordered.push(equals.remove(index.unwrap_or_default()));
        }
    }
    ordered
}

#[cfg(test)]
mod tests;
