//! Our identities, which of them a request is for, and what their registrations gave them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::StdRng;

use super::{AccountSettings, tokens};
use crate::event::AccountId;
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::{Host, Uri};

/// All accounts, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    by_id: BTreeMap<AccountId, Entry>,
}

#[derive(Debug)]
struct Entry {
    settings: AccountSettings,
    /// User part of our Contact where that of the account would not tell it from another account of ours.
    token: Option<String>,
    /// Removed, but its registrar has not been told yet.
    is_leaving: bool,
    /// Our address as the registrar sees it, where that is another than we have (a NAT), for this transport.
    learned: Option<(Transport, SocketAddr)>,
    registering: Registering,
    binding: Option<Binding>,
}

/// The Contact of a REGISTER: what to write, and what was written.
#[derive(Debug, Default)]
pub(crate) struct Registering {
    /// `;+sip.instance=…;reg-id=1`.
    pub parameters: String,
    /// Write this one whatever our address is now: it is to be taken away.
    pub exact: Option<Uri>,
    /// The Contact registered until now: taken away in the same request when ours is another one by now.
    pub old: Option<Uri>,
    /// What was written, and where it was sent.
    pub sent: Option<(Uri, Flow)>,
}

/// What a registrar granted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Binding {
    /// The path that was registered: our requests go over it.
    pub flow: Flow,
    /// RFC 3608: `Route` of our requests over that path, in order.
    pub service_route: Vec<String>,
    /// The name of this very device (RFC 5627), as Contact good from everywhere.
    pub gruu: Option<Uri>,
    pub temp_gruu: Option<Uri>,
    /// The registrar sends requests for us back over the flow (RFC 5626).
    pub is_outbound: bool,
    /// How often the flow is to be kept open.
    pub keep_alive: Option<Duration>,
}

impl Accounts {
    /// Adds an account or changes its settings.
    pub fn set(&mut self, id: AccountId, settings: AccountSettings, random: &mut StdRng) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.settings = settings;
            return;
        }
        let user = &settings.uri.user;
        let is_taken = user.is_some() && self.by_id.values().any(|entry| entry.settings.uri.user == *user);
        let entry = Entry {
            token: is_taken.then(|| tokens::tag(random)),
            settings,
            is_leaving: false,
            learned: None,
            registering: Registering::default(),
            binding: None,
        };
        self.by_id.insert(id, entry);
    }

    pub fn remove(&mut self, id: AccountId) {
        self.by_id.remove(&id);
    }

    /// No new call is taken or made; what is left to be said can still be said.
    pub fn leave(&mut self, id: AccountId) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.is_leaving = true;
        }
    }

    pub fn is_leaving(&self, id: AccountId) -> bool {
        self.by_id.get(&id).is_some_and(|entry| entry.is_leaving)
    }

    pub fn get(&self, id: AccountId) -> Option<&AccountSettings> {
        self.by_id.get(&id).map(|entry| &entry.settings)
    }

    /// The account a request URI means: the one whose Contact it is; else the same user at the same host; else the same
    /// user when the host is an address of ours; else one that takes everything.
    pub fn find(&self, uri: &Uri, local: &[(Transport, SocketAddr)], name: &str) -> Option<AccountId> {
        let user = uri.user.as_deref();
        let same_user = |entry: &Entry| entry.settings.uri.user.as_deref() == user;
        let exact = |entry: &Entry| same_user(entry) && same_host(&entry.settings.uri, uri);
        let is_seen_here = |entry: &Entry| {
            entry.learned.is_some_and(|(_, seen)| matches!(uri.host, Some(Host::Ip(ip)) if ip == seen.ip()))
        };
        let here = is_local(uri, local, name);
        self.first(|entry| entry.is_reached_by(uri))
            .or_else(|| self.first(exact))
            .or_else(|| self.first(|entry| (here || is_seen_here(entry)) && user.is_some() && same_user(entry)))
            .or_else(|| self.first(|entry| entry.settings.catch_all))
    }

    fn first(&self, fits: impl Fn(&Entry) -> bool) -> Option<AccountId> {
        self.by_id.iter().find(|(_, entry)| !entry.is_leaving && fits(entry)).map(|(id, _)| *id)
    }

    // --- registrations -----------------------------------------------------------------------------------------------

    /// User part of our Contacts.
    pub fn contact_user(&self, id: AccountId) -> Option<&str> {
        let entry = self.by_id.get(&id)?;
        entry.token.as_deref().or(entry.settings.uri.user.as_deref())
    }

    /// Our address as it is seen where this flow leads to, when that is known to be another than ours.
    ///
    /// The address that a registrar saw is good for everybody out there, but not for a neighbour behind the same NAT.
    pub fn learned(&self, id: AccountId, flow: Flow) -> Option<SocketAddr> {
        let entry = self.by_id.get(&id)?;
        let (transport, seen) = entry.learned?;
        let same_family = seen.is_ipv4() == flow.remote.ip().to_canonical().is_ipv4();
        let is_registrar = || match (&entry.binding, &entry.registering.sent) {
            (Some(Binding { flow: registered, .. }), _) | (None, Some((_, registered))) => {
                registered.remote == flow.remote
            }
            (None, None) => false,
        };
        let holds = transport == flow.transport && same_family && (!is_private(flow.remote.ip()) || is_registrar());
        holds.then_some(seen)
    }

    pub fn learn(&mut self, id: AccountId, learned: Option<(Transport, SocketAddr)>) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.learned = learned;
        }
    }

    pub fn registering(&self, id: AccountId) -> Option<&Registering> {
        self.by_id.get(&id).map(|entry| &entry.registering)
    }

    pub fn registering_mut(&mut self, id: AccountId) -> Option<&mut Registering> {
        self.by_id.get_mut(&id).map(|entry| &mut entry.registering)
    }

    pub fn binding(&self, id: AccountId) -> Option<&Binding> {
        self.by_id.get(&id)?.binding.as_ref()
    }

    /// Sets what the registrar granted and gives back what held before.
    pub fn bind(&mut self, id: AccountId, binding: Option<Binding>) -> Option<Binding> {
        let entry = self.by_id.get_mut(&id)?;
        std::mem::replace(&mut entry.binding, binding)
    }

    /// `Route` of a request outside dialogs that leaves on this flow (RFC 3608 §6.1): only what goes where the account is
    /// registered knows that way.
    pub fn route_set(&self, id: AccountId, flow: Flow) -> &[String] {
        match self.binding(id) {
            Some(binding) if leads_to_same(binding.flow, flow) => &binding.service_route,
            _ => &[],
        }
    }

    /// How often the flow is to be kept open: as the account that needs it most.
    pub fn keep_alive(&self, flow: Flow) -> Option<Duration> {
        let bindings = self.by_id.values().filter_map(|entry| entry.binding.as_ref());
        bindings.filter(|binding| is_same_flow(binding.flow, flow)).filter_map(|binding| binding.keep_alive).min()
    }

    /// A connection is gone: the accounts registered over it. Their next requests look for another.
    pub fn lose_flow(&mut self, flow: Flow) -> Vec<AccountId> {
        let mut lost = Vec::new();
        for (id, entry) in &mut self.by_id {
            if let Some(binding) = entry.binding.as_mut().filter(|binding| is_same_flow(binding.flow, flow)) {
                binding.flow.connection = None;
                binding.keep_alive = None;
                lost.push(*id);
            }
        }
        lost
    }
}

impl Entry {
    /// True for our registered Contact: its user is a token of this account, or it is a GRUU of its.
    fn is_reached_by(&self, uri: &Uri) -> bool {
        let is_token = self.token.is_some() && self.token == uri.user;
        let gruus = self.binding.iter().flat_map(|binding| [&binding.gruu, &binding.temp_gruu]).flatten();
        is_token || gruus.into_iter().any(|gruu| gruu == uri)
    }
}

/// The same connection, or the same peer on a transport without connections.
pub(crate) fn is_same_flow(one: Flow, other: Flow) -> bool {
    leads_to_same(one, other) && one.connection == other.connection
}

fn leads_to_same(one: Flow, other: Flow) -> bool {
    one.transport == other.transport && one.remote == other.remote
}

/// True for addresses that no NAT stands before: ours, and those of our own networks.
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

fn same_host(one: &Uri, other: &Uri) -> bool {
    match (&one.host, &other.host) {
        (Some(Host::Name(one)), Some(Host::Name(other))) => one.eq_ignore_ascii_case(other),
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// At an address of ours, or by the name that stands for us where nobody can connect to.
fn is_local(uri: &Uri, local: &[(Transport, SocketAddr)], own_name: &str) -> bool {
    let is_ours = |ip: IpAddr| local.iter().any(|(_, address)| address.ip() == ip);
    match &uri.host {
        Some(Host::Ip(ip)) => is_ours(*ip),
        Some(Host::Name(name)) => name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case(own_name),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::media::SrtpPolicy;

    fn account(uri: &str, catch_all: bool) -> AccountSettings {
        AccountSettings {
            catch_all,
            srtp: SrtpPolicy::Disabled,
            ..AccountSettings::new(Uri::parse(uri.as_bytes()).expect("a URI"))
        }
    }

    #[test]
    fn a_request_finds_its_account_by_user_and_host_then_by_user_here_then_by_catch_all() {
        let local = [(Transport::Udp, "192.0.2.1:5060".parse().expect("an address"))];
        let mut random = StdRng::seed_from_u64(1);
        let mut accounts = Accounts::default();
        accounts.set(AccountId(1), account("sip:all@192.0.2.1", true), &mut random);
        accounts.set(AccountId(2), account("sip:alice@one.example", false), &mut random);
        accounts.set(AccountId(3), account("sip:alice@two.example", false), &mut random);
        accounts.set(AccountId(4), account("sip:one.example", false), &mut random);
        for (uri, expected) in [
            ("sip:alice@two.example", 3),
            ("sip:alice@TWO.example;transport=tcp", 3),
            ("sips:alice@one.example:5061", 2),
            ("sip:alice@192.0.2.1:5070", 2),
            ("sip:alice@localhost", 2),
            ("sip:alice@ours.invalid;transport=wss", 2),
            ("sip:alice@other.invalid;transport=wss", 1),
            ("sip:Alice@one.example", 1), // users are told apart by case
            ("sip:alice@three.example", 1),
            ("sip:one.example", 4),
            ("sip:192.0.2.1", 1),
        ] {
            let uri = Uri::parse(uri.as_bytes()).expect("a URI");
            assert_eq!(accounts.find(&uri, &local, "ours.invalid"), Some(AccountId(expected)), "{uri}");
        }
        accounts.remove(AccountId(1));
        let stranger = Uri::parse(b"sip:alice@three.example").expect("a URI");
        assert_eq!(accounts.find(&stranger, &local, "ours.invalid"), None);
    }
}
