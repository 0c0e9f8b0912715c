//! Questions to name servers, off the lane: the hosts file first, then DNS with a cache.
//!
//! Without any name server configured, as in a sandbox, host names go to the system's own resolver and there is neither
//! NAPTR nor SRV.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver as Dns, TokioResolver};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::ua::QueryId;
use crate::ua::locate::{Answer, Naptr, Question, Srv};

/// Lookups by the system's resolver at once, a thread each.
pub(super) const LOOKUP_LIMIT: usize = 16;
/// Questions open at once, waiting ones included.
pub(super) const RESOLVED_LIMIT: usize = 1024;
/// Records taken from one answer.
const RECORD_LIMIT: usize = 64;
/// When a datagram to a name server counts as lost; the second try still fits into a question's 2 s.
const RETRY_AFTER: Duration = Duration::from_millis(900);
/// Answers kept, each at most a few kB.
const CACHE_SIZE: u64 = 1024;
/// The longest an answer is believed, whatever its TTL says: servers move.
const POSITIVE_LIMIT: Duration = Duration::from_secs(3600);
/// The longest the absence of a record is believed.
const NEGATIVE_LIMIT: Duration = Duration::from_secs(60);
/// How long addresses of one family wait for those of the other (RFC 8305 §3).
const OTHER_FAMILY: Duration = Duration::from_millis(50);
/// How often the system's configuration is read again: networks and their name servers change under a running program.
const CONFIGURATION_AGE: Duration = Duration::from_secs(30);

/// An answer for the user agent.
#[derive(Debug)]
pub(super) struct Resolved {
    pub query: QueryId,
    pub answer: Result<Answer, String>,
}

pub(super) struct Resolver {
    answers: mpsc::Sender<Resolved>,
    open: Arc<Semaphore>,
    running: Arc<Semaphore>,
    /// The option `nameservers`; `None`: the system's.
    nameservers: Option<Vec<SocketAddr>>,
    /// `None` when there is no name server.
    dns: Option<TokioResolver>,
    /// What the system's configuration said, and when.
    configured: (String, Instant),
}

impl Resolver {
    /// Call inside the runtime.
    pub fn new(answers: mpsc::Sender<Resolved>, nameservers: Option<Vec<SocketAddr>>, now: Instant) -> Self {
        let mut resolver = Self {
            answers,
            open: Arc::new(Semaphore::new(RESOLVED_LIMIT)),
            running: Arc::new(Semaphore::new(LOOKUP_LIMIT)),
            nameservers,
            dns: None,
            configured: (String::new(), now),
        };
        resolver.configure(now);
        resolver
    }

    /// Starts a lookup; the answer comes through the queue within `patience`.
    ///
    /// # Errors
    /// When too many are open.
    pub fn ask(&mut self, query: QueryId, question: Question, patience: Duration, now: Instant) -> Result<(), String> {
        let Ok(permit) = self.open.clone().try_acquire_owned() else {
            return Err(format!("too many lookups are open to resolve {}", question.name()));
        };
        if self.nameservers.is_none() && now.saturating_duration_since(self.configured.1) >= CONFIGURATION_AGE {
            self.configure(now);
        }
        let (answers, running, dns) = (self.answers.clone(), self.running.clone(), self.dns.clone());
        tokio::spawn(async move {
            let looked_up = async {
                match dns {
                    Some(dns) => look_up(&dns, &question).await,
                    None => ask_system(question, running).await,
                }
            };
            let answer = match timeout(patience, looked_up).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer within {} s", patience.as_secs_f32())),
            };
            let _ = answers.send(Resolved { query, answer }).await;
            drop(permit);
        });
        Ok(())
    }

    /// Reads which name servers to ask; the cache stays as long as they are the same.
    fn configure(&mut self, now: Instant) {
        let (config, found) = match &self.nameservers {
            Some(given) => {
                let servers = given.iter().map(|address| name_server(*address)).collect();
                (Ok(ResolverConfig::from_name_servers(servers)), ResolverOpts::default())
            }
            None => match hickory_resolver::system_conf::read_system_conf() {
                Ok((config, options)) => (Ok(config), options),
                Err(error) => (Err(error.to_string()), ResolverOpts::default()),
            },
        };
        let described = format!("{config:?}");
        let changed = described != self.configured.0;
        self.configured = (described, now);
        if !changed {
            return;
        }
        let built = config.and_then(|config| {
            if config.name_servers().is_empty() {
                return Err("no name server is configured".to_owned());
            }
            let mut builder = Dns::builder_with_config(config, TokioRuntimeProvider::default());
            *builder.options_mut() = options(found);
            builder.build().map_err(|error| error.to_string())
        });
        if let Err(error) = &built {
            tracing::warn!(error, "no DNS: host names go to the system's resolver, SRV and NAPTR are not looked up");
        }
        self.dns = built.ok();
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

fn options(found: ResolverOpts) -> ResolverOpts {
    let mut options = found;
    options.timeout = RETRY_AFTER;
    options.attempts = 2;
    options.use_hosts_file = ResolveHosts::Always;
    options.cache_size = CACHE_SIZE;
    options.positive_max_ttl = Some(POSITIVE_LIMIT);
    options.negative_max_ttl = Some(NEGATIVE_LIMIT);
    options
}

async fn look_up(dns: &TokioResolver, question: &Question) -> Result<Answer, String> {
    match question {
        Question::Naptr(name) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let records = records(dns, absolute(name)?, RecordType::NAPTR, |data| match data {
                RData::NAPTR(record) => Some(Naptr {
                    order: record.order,
                    preference: record.preference,
                    flags: text(&record.flags),
                    service: text(&record.services),
                    replacement: record.replacement.to_ascii(),
                }),
                _ => None,
            });
            records.await.map(Answer::Naptr)
        }
        Question::Srv(name) => {
            let records = records(dns, absolute(name)?, RecordType::SRV, |data| match data {
                RData::SRV(record) => Some(Srv {
                    priority: record.priority,
                    weight: record.weight,
                    port: record.port,
                    target: record.target.to_ascii(),
                }),
                _ => None,
            });
            records.await.map(Answer::Srv)
        }
        Question::Address { host, families } => {
            // A name without a dot may be one of the search domains.
            let name = if host.contains('.') { absolute(host)? } else { name(host)? };
            let ipv4 = records(dns, name.clone(), RecordType::A, |data| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                _ => None,
            });
            let ipv6 = records(dns, name, RecordType::AAAA, |data| match data {
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            });
            let found = match (families.ipv4, families.ipv6) {
                (true, true) => both(ipv6, ipv4).await,
                (true, false) => ipv4.await,
                (false, true) => ipv6.await,
                (false, false) => Ok(Vec::new()),
            };
            found.map(Answer::Address)
        }
    }
}

/// The records of a name; no such name or record is an empty answer.
async fn records<T>(
    dns: &TokioResolver,
    name: Name,
    kind: RecordType,
    read: impl Fn(&RData) -> Option<T>,
) -> Result<Vec<T>, String> {
    match dns.lookup(name, kind).await {
        Ok(found) => Ok(found.answers().iter().filter_map(|record| read(&record.data)).take(RECORD_LIMIT).collect()),
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok(Vec::new()),
        Err(NetError::Timeout) => Err("the name server does not answer".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The addresses of both families, IPv6 first; one that is late or fails is done without.
async fn both(
    ipv6: impl Future<Output = Result<Vec<IpAddr>, String>>,
    ipv4: impl Future<Output = Result<Vec<IpAddr>, String>>,
) -> Result<Vec<IpAddr>, String> {
    let (mut ipv6, mut ipv4) = (std::pin::pin!(ipv6), std::pin::pin!(ipv4));
    let (first, second) = tokio::select! {
        first = &mut ipv6 => (first, None),
        second = &mut ipv4 => (Err(String::new()), Some(second)),
    };
    let (first, second) = match (first, second) {
        (_, Some(Ok(second))) if !second.is_empty() => {
            (timeout(OTHER_FAMILY, ipv6).await.unwrap_or(Ok(vec![])), Ok(second))
        }
        (_, Some(second)) => (ipv6.await, second),
        (Ok(first), None) if !first.is_empty() => (Ok(first), timeout(OTHER_FAMILY, ipv4).await.unwrap_or(Ok(vec![]))),
        (first, None) => (first, ipv4.await),
    };
    match (first, second) {
        (Ok(mut all), Ok(rest)) => {
            all.extend(rest);
            Ok(all)
        }
        (Ok(found), Err(error)) | (Err(error), Ok(found)) => {
            if found.is_empty() {
                Err(error)
            } else {
                Ok(found)
            }
        }
        (Err(error), Err(_)) => Err(error),
    }
}

fn name(text: &str) -> Result<Name, String> {
    Name::from_utf8(text)
        .or_else(|_| Name::from_ascii(text))
        .map_err(|error| format!("{text:?} is no host name: {error}"))
}

/// A name that no search domain is added to.
fn absolute(text: &str) -> Result<Name, String> {
    let mut name = name(text)?;
    name.set_fqdn(true);
    Ok(name)
}

/// The system's resolver, which blocks a thread.
async fn ask_system(question: Question, running: Arc<Semaphore>) -> Result<Answer, String> {
    let Question::Address { host, families } = question else { return Err("no name server is configured".to_owned()) };
    // A lookup given up on still occupies its thread: the permit goes with it.
    let thread = running.acquire_owned().await.map_err(|error| error.to_string())?;
    let found = tokio::task::spawn_blocking(move || {
        let _thread = thread;
        std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), 0))
            .map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
    });
    let found = found.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        let wanted = if address.is_ipv4() { families.ipv4 } else { families.ipv6 };
        if wanted && !addresses.contains(&address) && addresses.len() < RECORD_LIMIT {
            addresses.push(address);
        }
    }
    Ok(Answer::Address(addresses))
}

#[cfg(test)]
mod tests;
