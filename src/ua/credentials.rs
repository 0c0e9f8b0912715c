//! Answers to 401 and 407 (RFC 3261 §22): which credentials a request carries, and whether a challenge is answered.
//!
//! An answer to a challenge is worth something to whoever gets it: it can be guessed at, and a peer can pass on a challenge
//! of our own proxy to have it answered (ES2021-05). So a challenge is answered only where the account is at home:
//!
//! - **home by name**: the host of the account's URI, of its registrar or of its outbound proxy; a numeric host with its port.
//! - **home by address**: a next hop that is one of these, by name, by address, or as the domain its certificate stands for;
//!   or a next hop that has taken this account's password before (the registrar we are registered at).
//!
//! | request | answered when |
//! |---|---|
//! | outside dialogs, and the INVITE of a call of ours | its URI or its next hop is at home, whatever the realm is called |
//! | inside a dialog that we began | its next hop is at home: the URI is the peer's choice |
//! | inside a dialog that the peer began | its next hop is at home, and took our password for this very realm before |
//!
//! Everything else fails with a reason that says so. What the nonce cache holds is sent under the same rules.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::AccountSettings;
use super::core::Core;
use crate::event::AccountId;
use crate::sip::digest::client::{Nonces, Subject, Target, Tries};
use crate::sip::message::{Message, Method};
use crate::sip::transport::Flow;
use crate::sip::uri::{Host, Uri};

/// Next hops one account remembers to have taken its password; the oldest goes.
const MAX_HOPS: usize = 32;

/// The challenges that one request has met; empty for a request that is sent for the first time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts {
    tries: Tries,
    /// Where it was sent last.
    sent: Option<Sent>,
}

#[derive(Clone, Debug)]
struct Sent {
    target: Target,
    path: Path,
    home_uri: bool,
    home_hop: bool,
}

/// How a request relates to dialogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Outside dialogs, or the INVITE that makes one.
    Outside,
    /// In a dialog of ours.
    Ours,
    /// In a dialog the peer began.
    Theirs,
}

/// What an answer to a challenge is computed over, and where it would go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authorizable<'a> {
    pub account: AccountId,
    pub method: &'a Method,
    /// As it stands in the request line.
    pub uri: &'a str,
    pub body: &'a [u8],
    pub flow: Flow,
    pub path: Path,
    /// The next hop as the application's route names it.
    pub hop: Option<&'a str>,
}

/// What accounts have learned of those who ask for passwords.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    by_account: BTreeMap<AccountId, Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    nonces: Nonces,
    /// Next hops that have taken our password.
    hops: VecDeque<SocketAddr>,
}

impl Keyring {
    /// An account has gone, or has other credentials.
    pub fn forget(&mut self, account: AccountId) {
        self.by_account.remove(&account);
    }
}

impl Core {
    /// `Authorization` and `Proxy-Authorization` for a request about to be sent: for what this request was challenged
    /// with, and what the nonce cache holds for where it goes.
    pub fn authorize(&mut self, request: Authorizable<'_>, attempts: &mut Attempts) -> Vec<(&'static str, String)> {
        let Some(sent) = self.place(request) else { return Vec::new() };
        let account = self.accounts.get(request.account);
        let credentials = account.and_then(|account| account.credentials.as_ref());
        let keys = self.keyring.by_account.get_mut(&request.account);
        let mut headers = Vec::new();
        if let (Some(credentials), Some(keys), true) = (credentials, keys, sent.is_open()) {
            let subject = Subject { method: request.method.as_str(), uri: request.uri, body: request.body };
            headers = keys.nonces.answers(credentials, &sent.target, subject, &mut attempts.tries);
        }
        attempts.sent = Some(sent);
        headers
    }

    /// Takes a 401 or 407. `Ok`: the request is to be sent again with a new branch and the next CSeq number and what
    /// [`Self::authorize`] gives then.
    ///
    /// # Errors
    /// Why it cannot be answered, for the application: no password, a foreign realm, only algorithms we refuse, the same
    /// challenge again.
    pub fn challenged(
        &mut self,
        account: AccountId,
        response: &Message,
        attempts: &mut Attempts,
    ) -> Result<(), String> {
        let settings = self.accounts.get(account).ok_or("the account is gone")?;
        if settings.credentials.is_none() {
            return Err("the account has no password".into());
        }
        let sent = attempts.sent.as_ref().ok_or("it was sent without an account")?;
        if !sent.is_open() {
            return Err(format!(
                "{} is not {}, its registrar or its outbound proxy: it gets no credentials",
                sent.target.hop,
                settings.uri.host_str()
            ));
        }
        let keys = self.keyring.by_account.entry(account).or_default();
        // The rule needs the nonces that the step changes.
        let known: Option<Vec<String>> = (sent.path == Path::Theirs).then(|| keys.nonces.proven_at(sent.target.hop));
        let may_answer = |realm: &str, shown: String| match &known {
            Some(proven) if !proven.iter().any(|one| one == realm) => {
                Err(format!("realm \"{shown}\" never asked for this account's password before the peer called"))
            }
            _ => Ok(()),
        };
        keys.nonces.challenged(
            response,
            &sent.target,
            &settings.digest_algorithms,
            |challenge| may_answer(&challenge.realm, challenge.shown_realm()),
            &mut attempts.tries,
            &mut self.random,
        )
    }

    /// Takes a 2xx: what was answered is proven, and it may name the next nonce.
    pub fn accepted(&mut self, account: AccountId, response: &Message, attempts: &Attempts) {
        let (Some(sent), Some(keys)) = (&attempts.sent, self.keyring.by_account.get_mut(&account)) else { return };
        if keys.nonces.accepted(response, &sent.target, &attempts.tries, &mut self.random)
            && !keys.hops.contains(&sent.target.hop)
        {
            if keys.hops.len() >= MAX_HOPS {
                keys.hops.pop_front();
            }
            keys.hops.push_back(sent.target.hop);
        }
    }

    /// Where a request goes, seen from its account.
    fn place(&self, request: Authorizable<'_>) -> Option<Sent> {
        let account = self.accounts.get(request.account)?;
        let uri = Uri::parse(request.uri.as_bytes()).ok()?;
        let hop = request.flow.remote;
        let learned = self.keyring.by_account.get(&request.account).is_some_and(|keys| keys.hops.contains(&hop));
        let named = [request.hop, request.flow.peer.and_then(|peer| self.peers.get(peer)).map(|peer| &*peer.domain)];
        let home = homes(account);
        let home_hop = learned
            || home.iter().any(|home| match home {
                Home::Address(address) => *address == hop,
                Home::Name(name) => named.iter().flatten().any(|given| given.eq_ignore_ascii_case(name)),
            });
        let home_uri = home.contains(&Home::of(&uri)?);
        let mut host = uri.host_str().to_ascii_lowercase();
        if *request.method == Method::Register {
            // A registrar's challenge is for REGISTER alone: calls would carry its answer to whoever is called, and grow
            // beyond what a datagram takes.
            host.insert_str(0, "registrar ");
        }
        let target = Target { host, hop };
        Some(Sent { target, path: request.path, home_uri, home_hop })
    }
}

impl Sent {
    /// True where a challenge may be answered, as far as the place decides it.
    fn is_open(&self) -> bool {
        match self.path {
            Path::Outside => self.home_uri || self.home_hop,
            Path::Ours | Path::Theirs => self.home_hop,
        }
    }
}

/// A place an account trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Home {
    /// In lower case.
    Name(String),
    Address(SocketAddr),
}

impl Home {
    fn of(uri: &Uri) -> Option<Self> {
        let default = if uri.is_secure() { 5061 } else { 5060 };
        Some(match uri.host.as_ref()? {
            Host::Ip(ip) => Self::Address(SocketAddr::new(*ip, uri.port.unwrap_or(default))),
            Host::Name(name) => Self::Name(name.to_ascii_lowercase()),
        })
    }
}

fn homes(account: &AccountSettings) -> Vec<Home> {
    let registrar = account.registration.as_ref().and_then(|registration| registration.registrar.as_ref());
    let mut homes: Vec<Home> = [Some(&account.uri), registrar].into_iter().flatten().filter_map(Home::of).collect();
    if let Some(proxy) = &account.outbound_proxy {
        let bare = proxy.address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&proxy.address);
        homes.push(match bare.parse() {
            Ok(ip) => Home::Address(SocketAddr::new(ip, proxy.port)),
            Err(_) => Home::Name(proxy.address.to_ascii_lowercase()),
        });
    }
    homes
}
