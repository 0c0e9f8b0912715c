//! The server's side: who a request is from (RFC 7616 §3.3–3.5, RFC 8760).
//!
//! A nonce is its time and number with an HMAC over them, the client's address and the realm, so that nothing is kept for
//! clients that never answer. What is kept is the last `nc` of each nonce that a right answer used: a request caught on the
//! wire is no use a second time. Unknown users cost the same work and get the same answer as known ones with a wrong
//! password.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use rand::rngs::StdRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::arithmetic::{Ha1, Inputs, hex, same};
use super::challenge::Challenge;
use super::{Algorithm, Asker, Qop};
use crate::sip::message::Message;
use crate::sip::uri::Uri;

/// How long a nonce may be used.
pub const NONCE_LIFE: Duration = Duration::from_secs(60);

/// Nonces whose `nc` is remembered: a thousand clients a second for a minute. Above it the oldest become stale, which costs
/// their clients one more exchange.
const MAX_NONCES: usize = 65_536;

/// [`Policy::max_failures`] unless it says otherwise: enough for typing errors of an office, too few to guess with.
const MAX_FAILURES: u32 = 10;

/// The time failures are counted over.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Addresses whose failures are counted; above it a new one takes the place of the one that is counted longest.
const MAX_SOURCES: usize = 4096;

/// What is known of a user.
#[derive(Clone)]
pub enum Secret {
    Password(Zeroizing<String>),
    /// H(user:realm:password), for this algorithm only.
    Ha1(Algorithm, Ha1),
}

impl Secret {
    pub fn password(text: impl Into<String>) -> Self {
        Self::Password(Zeroizing::new(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where passwords are looked up. A closure of the user's name will do.
pub trait Passwords {
    /// What is known of this user; `None` for nobody.
    fn secret(&self, user: &str) -> Option<Secret>;
}

impl<F: Fn(&str) -> Option<Secret>> Passwords for F {
    fn secret(&self, user: &str) -> Option<Secret> {
        self(user)
    }
}

/// How a server asks.
#[derive(Clone, Debug)]
pub struct Policy {
    pub realm: String,
    /// 401 or 407.
    pub asker: Asker,
    /// Offered in this order; any of them will do.
    pub algorithms: Vec<Algorithm>,
    /// Offered in one challenge; empty asks without a quality, as before RFC 2617.
    pub qops: Vec<Qop>,
    pub nonce_life: Duration,
    /// Wrong answers of one address in a minute; what comes after them is not answered.
    pub max_failures: u32,
}

impl Policy {
    /// SHA-256, then MD5 for the phones that know nothing else; auth.
    pub fn new(realm: impl Into<String>, asker: Asker) -> Self {
        Self {
            realm: realm.into(),
            asker,
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            qops: vec![Qop::Auth],
            nonce_life: NONCE_LIFE,
            max_failures: MAX_FAILURES,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is from this user.
    Accepted { user: String },
    /// Answer with the asker's code and these values of its header, strongest first. `stale`: the password was right.
    Challenge { headers: Vec<String>, stale: bool },
    /// Do not answer: too many wrong passwords came from there.
    Drop,
}

/// Checks credentials for one realm.
pub struct Verifier {
    policy: Policy,
    key: Zeroizing<[u8; 32]>,
    /// What nonces count time from.
    epoch: Instant,
    last_number: u64,
    /// Nonces up to this number are stale: their `nc` had to be forgotten.
    forgotten: u64,
    /// Last `nc` by nonce number.
    counts: BTreeMap<u64, u32>,
    failures: HashMap<IpAddr, Failures>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Instant,
    number: u32,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("policy", &self.policy).field("nonces", &self.counts.len()).finish()
    }
}

impl Verifier {
    pub fn new(policy: Policy, random: &mut StdRng, now: Instant) -> Self {
        Self {
            policy,
            key: Zeroizing::new(random.random()),
            epoch: now,
            last_number: 0,
            forgotten: 0,
            counts: BTreeMap::new(),
            failures: HashMap::new(),
        }
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Checks a request that came from `source`.
    pub fn verify(
        &mut self,
        request: &Message,
        source: IpAddr,
        passwords: &(impl Passwords + ?Sized),
        now: Instant,
    ) -> Verdict {
        let source = source.to_canonical();
        if self.is_blocked(source, now) {
            return Verdict::Drop;
        }
        let answers =
            request.lines_named(self.policy.asker.answer_header()).filter_map(|line| Answer::parse(line).ok());
        let mut ours = answers.filter(|answer| answer.realm == self.policy.realm);
        let Some(answer) = ours.next() else { return self.challenge(source, false, now) };
        let proven = self.is_proven(&answer, request, passwords);
        let age = self.nonce_number(&answer.nonce, source, now);
        match (proven, age) {
            (false, _) => {
                self.note_failure(source, now);
                self.challenge(source, false, now)
            }
            (true, Some(number)) if self.take_count(number, answer.count.unwrap_or(1)) => {
                Verdict::Accepted { user: answer.username }
            }
            // Too old, used before, or made for somebody else.
            (true, _) => self.challenge(source, true, now),
        }
    }

    /// Asks for credentials with a new nonce.
    pub fn challenge(&mut self, source: IpAddr, stale: bool, now: Instant) -> Verdict {
        let nonce = self.nonce(source.to_canonical(), now);
        let challenges = self.policy.algorithms.iter().map(|algorithm| Challenge {
            asker: self.policy.asker,
            realm: self.policy.realm.clone(),
            nonce: nonce.clone(),
            opaque: None,
            algorithm: *algorithm,
            sess: false,
            spelled: None,
            qops: (!self.policy.qops.is_empty()).then(|| self.policy.qops.clone()),
            stale,
        });
        Verdict::Challenge { headers: challenges.map(|challenge| challenge.to_string()).collect(), stale }
    }

    /// The same work whether or not there is such a user.
    fn is_proven(&self, answer: &Answer, request: &Message, passwords: &(impl Passwords + ?Sized)) -> bool {
        let secret = passwords.secret(&answer.username);
        let known = secret.is_some();
        let nobody = Secret::password("");
        let ha1 = match secret.as_ref().unwrap_or(&nobody) {
            Secret::Password(password) => Ha1::new(answer.algorithm, &answer.username, &answer.realm, password),
            Secret::Ha1(_, ha1) => ha1.clone(),
        };
        let usable = match &secret {
            Some(Secret::Ha1(algorithm, _)) => *algorithm == answer.algorithm,
            _ => known,
        };
        let inputs = Inputs {
            algorithm: answer.algorithm,
            sess: answer.sess,
            qop: answer.qop,
            nonce: &answer.nonce,
            cnonce: answer.cnonce.as_deref().unwrap_or_default(),
            count: answer.count.unwrap_or(1),
            method: request.method().as_str(),
            uri: &answer.uri,
            body: request.body(),
        };
        let right = same(&inputs.response(&ha1), &answer.response);
        let offered = self.policy.algorithms.contains(&answer.algorithm)
            && answer.qop.is_none_or(|qop| self.policy.qops.contains(&qop))
            && (answer.qop.is_some() || self.policy.qops.is_empty() || !self.policy.qops.contains(&Qop::AuthInt));
        right && usable && offered && is_for(&answer.uri, request)
    }

    // --- nonces ------------------------------------------------------------------------------------------------------

    fn nonce(&mut self, source: IpAddr, now: Instant) -> String {
        self.last_number += 1;
        let millis = u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX);
        let head = format!("{millis:x}.{:x}", self.last_number);
        let seal = self.seal(&head, source);
        format!("{head}.{seal}")
    }

    /// 128 bits over the head of a nonce, the address and the realm.
    fn seal(&self, head: &str, source: IpAddr) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.key) else { return String::new() };
        let source = match source {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        for part in [head.as_bytes(), &[0], &source, &[0], self.policy.realm.as_bytes()] {
            mac.update(part);
        }
        hex(mac.finalize().into_bytes().get(..16).unwrap_or_default())
    }

    /// The number of a nonce that we made for this address and that is young enough.
    fn nonce_number(&self, nonce: &str, source: IpAddr, now: Instant) -> Option<u64> {
        let (head, seal) = nonce.rsplit_once('.')?;
        if !same(seal, &self.seal(head, source)) {
            return None;
        }
        let (millis, number) = head.split_once('.')?;
        let made = self.epoch + Duration::from_millis(u64::from_str_radix(millis, 16).ok()?);
        let number = u64::from_str_radix(number, 16).ok()?;
        let young = now.saturating_duration_since(made) < self.policy.nonce_life;
        (young && number > self.forgotten).then_some(number)
    }

    /// True for a count above the last one of this nonce.
    fn take_count(&mut self, number: u64, count: u32) -> bool {
        let last = self.counts.get(&number).copied().unwrap_or(0);
        if count <= last {
            return false;
        }
        self.counts.insert(number, count);
        if self.counts.len() > MAX_NONCES
            && let Some((oldest, _)) = self.counts.pop_first()
        {
            self.forgotten = oldest;
        }
        true
    }

    // --- guessing ----------------------------------------------------------------------------------------------------

    fn is_blocked(&self, source: IpAddr, now: Instant) -> bool {
        self.failures.get(&source).is_some_and(|failures| {
            failures.number >= self.policy.max_failures
                && now.saturating_duration_since(failures.since) < FAILURE_WINDOW
        })
    }

    fn note_failure(&mut self, source: IpAddr, now: Instant) {
        if self.failures.len() >= MAX_SOURCES && !self.failures.contains_key(&source) {
            self.failures.retain(|_, failures| now.saturating_duration_since(failures.since) < FAILURE_WINDOW);
            let oldest = self.failures.iter().min_by_key(|(ip, failures)| (failures.since, **ip)).map(|(ip, _)| *ip);
            if let Some(oldest) = oldest.filter(|_| self.failures.len() >= MAX_SOURCES) {
                self.failures.remove(&oldest);
            }
        }
        let failures = self.failures.entry(source).or_insert(Failures { since: now, number: 0 });
        if now.saturating_duration_since(failures.since) >= FAILURE_WINDOW {
            *failures = Failures { since: now, number: 0 };
        }
        failures.number += 1;
    }
}

/// True when `uri=` means the request URI (RFC 7616 §3.4.6): the same user at the same host. Parameters may differ, because
/// proxies add and take them.
fn is_for(uri: &str, request: &Message) -> bool {
    if uri.as_bytes() == request.request_uri_raw() {
        return true;
    }
    match (Uri::parse(uri.as_bytes()), request.request_uri()) {
        (Ok(one), Ok(other)) => one.user == other.user && one.host == other.host,
        _ => false,
    }
}
