//! The client's side: which challenges are answered and how often, and the nonces that later requests use at once.
//!
//! ```text
//! sent ── 401/407, new nonce ──▶ sent again ── stale, or another realm ──▶ sent a last time ── any challenge ──▶ failed
//!   │                               └── the same realm without stale: the password is wrong ──▶ failed
//!   └── nothing in the challenges that we may answer ──▶ failed
//! ```
//! Credentials that were sent unasked, out of the cache, do not count as a try: their nonce may be too old.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::net::SocketAddr;

use rand::RngExt;
use rand::rngs::StdRng;

use super::answer::Answer;
use super::arithmetic::{Ha1, Inputs};
use super::challenge::{Challenge, Read, next_nonce};
use super::{Algorithm, Asker, Credentials};
use crate::sip::message::Message;

/// How often a request is sent again because of challenges: two proxies in turn, or one and a nonce that ran out. More is
/// a loop.
pub const MAX_RETRIES: u8 = 2;

/// Realms whose nonces one account keeps; a path has a few. The oldest goes.
const MAX_REALMS: usize = 32;

/// Longest realm, nonce or opaque that is answered: it comes back in each request.
const MAX_VALUE: usize = 4096;

/// Where a request goes: what a nonce is good for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The server: host of the request URI, in lower case, and what else tells servers apart there. Its challenge is for all
    /// that goes to it.
    pub host: String,
    /// The next hop: a proxy's challenge is for what goes there.
    pub hop: SocketAddr,
}

/// What one request has met so far.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    retries: u8,
    /// Realms that challenged this very request.
    met: Vec<(Asker, String)>,
    /// What the last attempt carried.
    sent: Vec<Sent>,
}

#[derive(Clone, Debug)]
struct Sent {
    asker: Asker,
    realm: String,
    nonce: String,
    /// The nonce came from the cache, not from an answer to this request.
    unasked: bool,
}

/// What of a request the proof covers.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub method: &'a str,
    /// As it stands in the request line.
    pub uri: &'a str,
    pub body: &'a [u8],
}

/// The nonces that one account may use again.
#[derive(Clone, Debug, Default)]
pub struct Nonces {
    entries: VecDeque<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    challenge: Challenge,
    target: Target,
    /// One for the life of the nonce, as the `-sess` forms ask for (RFC 7616 §3.4.2).
    cnonce: String,
    count: u32,
    /// The password was taken here once.
    proven: bool,
}

impl Entry {
    fn is_for(&self, target: &Target) -> bool {
        match self.challenge.asker {
            Asker::Server => self.target.host == target.host,
            Asker::Proxy => self.target.hop == target.hop,
        }
    }

    fn is_of(&self, asker: Asker, realm: &str) -> bool {
        self.challenge.asker == asker && self.challenge.realm == realm
    }
}

impl Nonces {
    /// The credentials a request carries: one header for each realm that is known to be asked for where it goes.
    pub fn answers(
        &mut self,
        credentials: &Credentials,
        target: &Target,
        subject: Subject<'_>,
        tries: &mut Tries,
    ) -> Vec<(&'static str, String)> {
        tries.sent.clear();
        let mut headers = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.is_for(target)) {
            entry.count = entry.count.saturating_add(1);
            let Challenge { asker, realm, nonce, algorithm, sess, .. } = &entry.challenge;
            let qop = entry.challenge.qop();
            let inputs = Inputs {
                algorithm: *algorithm,
                sess: *sess,
                qop,
                nonce,
                cnonce: &entry.cnonce,
                count: entry.count,
                method: subject.method,
                uri: subject.uri,
                body: subject.body,
            };
            let ha1 = Ha1::new(*algorithm, &credentials.username, realm, &credentials.password);
            let answer = Answer {
                username: credentials.username.clone(),
                realm: realm.clone(),
                nonce: nonce.clone(),
                opaque: entry.challenge.opaque.clone(),
                uri: subject.uri.to_owned(),
                algorithm: *algorithm,
                sess: *sess,
                spelled: entry.challenge.spelled.clone(),
                qop,
                cnonce: (qop.is_some() || *sess).then(|| entry.cnonce.clone()),
                count: qop.map(|_| entry.count),
                response: inputs.response(&ha1),
            };
            headers.push((asker.answer_header(), answer.to_string()));
            let unasked = !tries.met.iter().any(|(of, name)| of == asker && name == realm);
            tries.sent.push(Sent { asker: *asker, realm: realm.clone(), nonce: nonce.clone(), unasked });
        }
        headers
    }

    /// Takes the challenges of a 401 or 407. `Ok`: the request goes out once more, with what [`Self::answers`] gives then.
    ///
    /// `allowed` are the algorithms that may be used, best first; `may_answer` says whether a realm may have credentials.
    ///
    /// # Errors
    /// Why it ends here, for people.
    pub fn challenged(
        &mut self,
        response: &Message,
        target: &Target,
        allowed: &[Algorithm],
        may_answer: impl Fn(&Challenge) -> Result<(), String>,
        tries: &mut Tries,
        random: &mut StdRng,
    ) -> Result<(), String> {
        let mut why_not = Vec::new();
        let chosen = choose(Challenge::all(response), allowed, &mut why_not);
        let mut taken = Vec::new();
        for challenge in chosen {
            if let Err(why) = may_answer(&challenge) {
                why_not.push(why);
                continue;
            }
            let before = tries.sent.iter().find(|sent| sent.asker == challenge.asker && sent.realm == challenge.realm);
            if let Some(sent) = before
                && (sent.nonce == challenge.nonce || !(sent.unasked || challenge.stale))
            {
                self.forget(&challenge);
                let what =
                    if challenge.stale { "the same nonce is called stale" } else { "wrong user name or password" };
                return Err(format!("{what} for realm \"{}\"", challenge.shown_realm()));
            }
            taken.push(challenge);
        }
        if taken.is_empty() {
            why_not.dedup();
            return Err(match why_not.is_empty() {
                true => "there is no challenge in it".into(),
                false => why_not.join("; "),
            });
        }
        if tries.retries >= MAX_RETRIES {
            taken.iter().for_each(|challenge| self.forget(challenge));
            return Err(format!("challenged again after {MAX_RETRIES} answers"));
        }
        tries.retries += 1;
        for challenge in taken {
            let name = (challenge.asker, challenge.realm.clone());
            if !tries.met.contains(&name) {
                tries.met.push(name);
            }
            self.keep(challenge, target.clone(), random);
        }
        Ok(())
    }

    /// Takes a success: the realms that were answered are proven, and (Proxy-)Authentication-Info may name the next nonce.
    /// True when there was one.
    pub fn accepted(&mut self, response: &Message, target: &Target, tries: &Tries, random: &mut StdRng) -> bool {
        let mut proven = false;
        for sent in &tries.sent {
            let info = response.header_named(sent.asker.info_header()).and_then(next_nonce);
            // With several realms the header does not say whose it is.
            let alone = tries.sent.iter().filter(|other| other.asker == sent.asker).count() == 1;
            let wanted = |entry: &&mut Entry| {
                entry.is_of(sent.asker, &sent.realm) && entry.is_for(target) && entry.challenge.nonce == sent.nonce
            };
            let Some(entry) = self.entries.iter_mut().find(wanted) else { continue };
            entry.proven = true;
            proven = true;
            if let Some(nonce) = info.filter(|nonce| alone && nonce.len() <= MAX_VALUE && *nonce != sent.nonce) {
                entry.challenge.nonce = nonce;
                entry.cnonce = cnonce(random);
                entry.count = 0;
            }
        }
        proven
    }

    /// The realms that took our password at this hop.
    pub fn proven_at(&self, hop: SocketAddr) -> Vec<String> {
        let proven = self.entries.iter().filter(|entry| entry.proven && entry.target.hop == hop);
        proven.map(|entry| entry.challenge.realm.clone()).collect()
    }

    fn keep(&mut self, challenge: Challenge, target: Target, random: &mut StdRng) {
        let same = |entry: &Entry| entry.is_of(challenge.asker, &challenge.realm) && entry.is_for(&target);
        let at = self.entries.iter().position(same);
        let proven = at.and_then(|at| self.entries.remove(at)).is_some_and(|entry| entry.proven);
        if self.entries.len() >= MAX_REALMS {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { challenge, target, cnonce: cnonce(random), count: 0, proven });
    }

    fn forget(&mut self, challenge: &Challenge) {
        self.entries.retain(|entry| !entry.is_of(challenge.asker, &challenge.realm));
    }
}

/// 64 random bits: what keeps a server from choosing all that is hashed.
fn cnonce(random: &mut StdRng) -> String {
    format!("{:016x}", random.random::<u64>())
}

/// The best challenge of each realm: the algorithm that comes first in `allowed`, then the one that came first.
fn choose(all: Vec<Read>, allowed: &[Algorithm], why_not: &mut Vec<String>) -> Vec<Challenge> {
    let rank = |challenge: &Challenge| allowed.iter().position(|one| *one == challenge.algorithm);
    let mut best: Vec<(usize, Challenge)> = Vec::new();
    for read in all {
        let challenge = match read {
            Ok(challenge) => challenge,
            Err(why) => {
                why_not.push(why);
                continue;
            }
        };
        let opaque = challenge.opaque.as_deref().unwrap_or_default();
        if [&challenge.realm, &challenge.nonce, opaque].iter().any(|value| value.len() > MAX_VALUE) {
            why_not.push(format!("a challenge of more than {MAX_VALUE} bytes"));
            continue;
        }
        let Some(rank) = rank(&challenge) else {
            why_not.push(format!("algorithm {} is not allowed by digest_algorithms", challenge.algorithm.name()));
            continue;
        };
        let same =
            |(_, other): &&mut (usize, Challenge)| other.asker == challenge.asker && other.realm == challenge.realm;
        match best.iter_mut().find(same) {
            Some(other) if rank < other.0 => *other = (rank, challenge),
            Some(_) => {}
            None => best.push((rank, challenge)),
        }
    }
    best.into_iter().map(|(_, challenge)| challenge).collect()
}
