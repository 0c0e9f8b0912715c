//! Who is where (RFC 3261 §10.3): bindings, their life, and what 200 to REGISTER says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::sip::headers::NameAddr;
use crate::sip::message::{HeaderName, Message};
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::{Host, Uri};

/// Bindings of one user; the oldest goes. A person has a few devices.
const MAX_BINDINGS: usize = 32;

/// How long a binding lasts when nobody says (RFC 3261 §10.3, step 6).
const DEFAULT_EXPIRES: u32 = 3600;

/// One place where a user is.
#[derive(Clone, Debug)]
pub struct Registration {
    pub user: String,
    pub contact: Uri,
    /// Where it is reached: the connection the REGISTER came on, or the Contact's address.
    pub flow: Flow,
    pub expires_at: Instant,
    pub call_id: String,
    pub cseq: u32,
    /// `+sip.instance`, without quotes.
    pub instance: Option<String>,
    /// RFC 5626.
    pub reg_id: Option<u32>,
    /// Route of requests to it (RFC 3327).
    pub path: Vec<String>,
    /// Thousandths.
    pub q: u16,
    pub temp_gruu: Option<String>,
}

/// What the registrar grants.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub domain: String,
    pub min_expires: u32,
    pub max_expires: u32,
    pub service_route: Vec<String>,
    pub gruu: bool,
    pub outbound: bool,
}

/// The answer to a REGISTER.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub code: u16,
    pub headers: Vec<(&'static str, String)>,
}

impl Answer {
    fn code(code: u16) -> Self {
        Self { code, headers: Vec::new() }
    }
}

/// Every binding there is.
#[derive(Debug, Default)]
pub(super) struct Registrar {
    by_user: BTreeMap<String, Vec<Registration>>,
}

impl Registrar {
    /// Takes a REGISTER of this user that may be obeyed.
    pub fn register(
        &mut self,
        user: &str,
        request: &Message,
        flow: Flow,
        rules: &Rules,
        random: &mut StdRng,
        now: Instant,
    ) -> Answer {
        self.forget_expired(now);
        let Ok(number) = request.cseq().map(|cseq| cseq.number) else { return Answer::code(400) };
        let call_id = String::from_utf8_lossy(request.call_id().unwrap_or_default()).into_owned();
        let Ok(header_expires) = request.number(HeaderName::Expires) else { return Answer::code(400) };
        let mut contacts = Vec::new();
        for contact in request.contacts() {
            let Ok(contact) = contact else { return Answer::code(400) };
            contacts.push(contact);
        }
        let bindings = self.by_user.entry(user.to_owned()).or_default();
        if contacts.iter().any(NameAddr::is_wildcard) {
            if contacts.len() != 1 || header_expires != Some(0) {
                return Answer::code(400);
            }
            bindings.retain(|one| one.call_id == call_id && one.cseq >= number);
            return self.granted(user, request, rules, now);
        }
        let lists_gruu = rules.gruu && request.lists(HeaderName::Supported, "gruu");
        let lists_outbound = rules.outbound && request.lists(HeaderName::Supported, "outbound");
        let mut fresh = Vec::new();
        for contact in &contacts {
            let Ok(uri) = contact.uri() else { return Answer::code(400) };
            let asked = contact.expires().or(header_expires).unwrap_or(DEFAULT_EXPIRES);
            if asked > 0 && asked < rules.min_expires {
                let headers = vec![("Min-Expires", rules.min_expires.to_string())];
                return Answer { code: 423, headers };
            }
            let instance = contact.params.text("+sip.instance");
            let reg_id = contact.params.number("reg-id").filter(|_| lists_outbound && instance.is_some());
            let same = |one: &Registration| match reg_id {
                Some(_) => one.reg_id == reg_id && one.instance == instance,
                None => one.contact == uri,
            };
            if bindings.iter().any(|one| same(one) && one.call_id == call_id && one.cseq >= number) {
                return Answer::code(500); // out of order (RFC 3261 §10.3, step 7)
            }
            let temp_gruu = (lists_gruu && instance.is_some())
                .then(|| format!("sip:tgruu-{:016x}@{};gr", random.random::<u64>(), rules.domain));
            let old = bindings.iter().position(same).map(|at| bindings.remove(at));
            if asked == 0 {
                continue;
            }
            fresh.push(Registration {
                user: user.to_owned(),
                flow: reach(&uri, flow),
                contact: uri,
                expires_at: now + Duration::from_secs(asked.min(rules.max_expires).into()),
                call_id: call_id.clone(),
                cseq: number,
                instance,
                reg_id,
                path: text_lines(request, "Path"),
                q: contact.q(),
                temp_gruu: old.and_then(|old| old.temp_gruu).or(temp_gruu),
            });
        }
        bindings.append(&mut fresh);
        let excess = bindings.len().saturating_sub(MAX_BINDINGS);
        bindings.drain(..excess);
        self.granted(user, request, rules, now)
    }

    fn granted(&self, user: &str, request: &Message, rules: &Rules, now: Instant) -> Answer {
        let mut headers = Vec::new();
        let mut by_outbound = false;
        for one in self.by_user.get(user).into_iter().flatten() {
            let left = one.expires_at.saturating_duration_since(now).as_secs();
            let mut value = format!("<{}>;expires={left}", one.contact);
            if let Some(instance) = &one.instance {
                value += &format!(";+sip.instance=\"{instance}\"");
                if let Some(temp) = &one.temp_gruu {
                    let urn = instance.trim_matches(['<', '>']);
                    value += &format!(";pub-gruu=\"sip:{user}@{};gr={urn}\";temp-gruu=\"{temp}\"", rules.domain);
                }
            }
            if let Some(reg_id) = one.reg_id {
                by_outbound = true;
                value += &format!(";reg-id={reg_id}");
            }
            headers.push(("Contact", value));
        }
        if by_outbound {
            headers.push(("Require", "outbound".to_owned()));
        }
        headers.extend(text_lines(request, "Path").into_iter().map(|path| ("Path", path)));
        headers.extend(rules.service_route.iter().map(|route| ("Service-Route", route.clone())));
        Answer { code: 200, headers }
    }

    /// Where a user is, most wanted first.
    pub fn find(&mut self, user: &str, now: Instant) -> Vec<Registration> {
        self.forget_expired(now);
        let mut found = self.by_user.get(user).cloned().unwrap_or_default();
        found.sort_by_key(|one| std::cmp::Reverse(one.q));
        // Several ways to one device are one phone (RFC 5626 §5.3): the newest is the one that works.
        let mut seen = Vec::new();
        found.reverse();
        found.retain(|one| match &one.instance {
            Some(instance) if one.reg_id.is_some() => {
                let first = !seen.contains(instance);
                seen.push(instance.clone());
                first
            }
            _ => true,
        });
        found.reverse();
        found
    }

    /// The one device that a GRUU names (RFC 5627).
    pub fn find_gruu(&mut self, uri: &Uri, now: Instant) -> Option<Registration> {
        let gr = uri.parameter("gr")?;
        self.forget_expired(now);
        let address = uri.to_string();
        self.by_user
            .values()
            .flatten()
            .rev()
            .find(|one| match gr {
                Some(urn) => {
                    uri.user.as_deref() == Some(&one.user)
                        && one.instance.as_deref().is_some_and(|instance| instance.trim_matches(['<', '>']) == urn)
                }
                None => one.temp_gruu.as_deref() == Some(&address),
            })
            .cloned()
    }

    /// The flow to the device with this Contact.
    pub fn flow_of(&self, contact: &Uri) -> Option<Flow> {
        let same = |one: &&Registration| {
            one.contact.user == contact.user && one.contact.host == contact.host && one.contact.port == contact.port
        };
        self.by_user.values().flatten().rev().find(same).map(|one| one.flow)
    }

    pub fn all(&self, now: Instant) -> Vec<Registration> {
        self.by_user.values().flatten().filter(|one| one.expires_at > now).cloned().collect()
    }

    /// Forgets everything, as after a restart without a database.
    pub fn clear(&mut self) {
        self.by_user.clear();
    }

    fn forget_expired(&mut self, now: Instant) {
        self.by_user.values_mut().for_each(|bindings| bindings.retain(|one| one.expires_at > now));
        self.by_user.retain(|_, bindings| !bindings.is_empty());
    }
}

/// Streams are used again in the other direction; a datagram goes where the Contact says, if that is an address.
fn reach(contact: &Uri, flow: Flow) -> Flow {
    match &contact.host {
        Some(Host::Ip(ip)) if flow.transport == Transport::Udp && !ip.is_unspecified() => {
            let port = contact.port.unwrap_or(Transport::Udp.default_port());
            Flow::to(Transport::Udp, std::net::SocketAddr::new(*ip, port))
        }
        _ => flow,
    }
}

fn text_lines(request: &Message, name: &str) -> Vec<String> {
    request.lines_named(name).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}
