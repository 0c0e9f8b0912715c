//! Our identities, and which of them a request is for.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::AccountSettings;
use crate::event::AccountId;
use crate::sip::transport::Transport;
use crate::sip::uri::{Host, Uri};

/// All accounts, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    by_id: BTreeMap<AccountId, AccountSettings>,
}

impl Accounts {
    pub fn set(&mut self, id: AccountId, settings: AccountSettings) {
        self.by_id.insert(id, settings);
    }

    pub fn remove(&mut self, id: AccountId) {
        self.by_id.remove(&id);
    }

    pub fn get(&self, id: AccountId) -> Option<&AccountSettings> {
        self.by_id.get(&id)
    }

    /// The account a request URI means: the same user at the same host; else the same user when the host is an address of
    /// ours; else one that takes everything.
    pub fn find(&self, uri: &Uri, local: &[(Transport, SocketAddr)]) -> Option<AccountId> {
        let user = uri.user.as_deref();
        let same_user = |settings: &AccountSettings| settings.uri.user.as_deref() == user;
        let exact = |settings: &AccountSettings| same_user(settings) && same_host(&settings.uri, uri);
        let here = is_local(uri, local);
        self.first(exact)
            .or_else(|| self.first(|settings| here && user.is_some() && same_user(settings)))
            .or_else(|| self.first(|settings| settings.catch_all))
    }

    fn first(&self, fits: impl Fn(&AccountSettings) -> bool) -> Option<AccountId> {
        self.by_id.iter().find(|(_, settings)| fits(settings)).map(|(id, _)| *id)
    }
}

fn same_host(one: &Uri, other: &Uri) -> bool {
    match (&one.host, &other.host) {
        (Some(Host::Name(one)), Some(Host::Name(other))) => one.eq_ignore_ascii_case(other),
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

fn is_local(uri: &Uri, local: &[(Transport, SocketAddr)]) -> bool {
    let is_ours = |ip: IpAddr| local.iter().any(|(_, address)| address.ip() == ip);
    match &uri.host {
        Some(Host::Ip(ip)) => is_ours(*ip),
        Some(Host::Name(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
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
        let mut accounts = Accounts::default();
        accounts.set(AccountId(1), account("sip:all@192.0.2.1", true));
        accounts.set(AccountId(2), account("sip:alice@one.example", false));
        accounts.set(AccountId(3), account("sip:alice@two.example", false));
        accounts.set(AccountId(4), account("sip:one.example", false));
        for (uri, expected) in [
            ("sip:alice@two.example", 3),
            ("sip:alice@TWO.example;transport=tcp", 3),
            ("sips:alice@one.example:5061", 2),
            ("sip:alice@192.0.2.1:5070", 2),
            ("sip:alice@localhost", 2),
            ("sip:Alice@one.example", 1), // users are told apart by case
            ("sip:alice@three.example", 1),
            ("sip:one.example", 4),
            ("sip:192.0.2.1", 1),
        ] {
            let uri = Uri::parse(uri.as_bytes()).expect("a URI");
            assert_eq!(accounts.find(&uri, &local), Some(AccountId(expected)), "{uri}");
        }
        accounts.remove(AccountId(1));
        let stranger = Uri::parse(b"sip:alice@three.example").expect("a URI");
        assert_eq!(accounts.find(&stranger, &local), None);
    }
}
