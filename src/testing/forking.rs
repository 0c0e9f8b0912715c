//! One request to several phones, and the one answer that goes back (RFC 3261 §16.7).

use std::time::Instant;

use crate::sip::message::{Message, Method};
use crate::sip::transaction::ClientId;
use crate::sip::transport::Flow;

/// A request on its way to one of its targets.
#[derive(Debug)]
pub(super) struct Branch {
    pub client: ClientId,
    /// The final answer; 408 or 480 when there was none.
    pub code: Option<u16>,
}

/// A request that was forwarded and not yet answered for good.
#[derive(Debug)]
pub(super) struct Forked {
    pub request: Message,
    /// Where its answers go.
    pub flow: Flow,
    pub branches: Vec<Branch>,
    /// The best failure so far: its code, and the response when one came.
    best: Option<(u16, Option<Message>)>,
    /// Challenges of all branches, for the one answer (§16.7, step 7).
    pub challenges: Vec<(&'static str, String)>,
    /// A final answer went back.
    pub answered: bool,
    /// Timer C (§16.6, step 11).
    pub deadline: Instant,
}

impl Forked {
    pub fn new(request: Message, flow: Flow, deadline: Instant) -> Self {
        Self { request, flow, branches: Vec::new(), best: None, challenges: Vec::new(), answered: false, deadline }
    }

    pub fn is_invite(&self) -> bool {
        *self.request.method() == Method::Invite
    }

    /// Those without a final answer.
    pub fn open(&self) -> Vec<ClientId> {
        self.branches.iter().filter(|branch| branch.code.is_none()).map(|branch| branch.client).collect()
    }

    /// Notes how a branch ended; a failure is kept if it is better than those before.
    pub fn note(&mut self, client: ClientId, code: u16, response: Option<&Message>) {
        if let Some(branch) = self.branches.iter_mut().find(|branch| branch.client == client) {
            branch.code = Some(code);
        }
        if code < 300 {
            return;
        }
        for asker in [crate::sip::digest::Asker::Server, crate::sip::digest::Asker::Proxy] {
            let name = asker.challenge_header();
            for line in response.into_iter().flat_map(|response| response.lines_named(name)) {
                self.challenges.push((name, String::from_utf8_lossy(line).into_owned()));
            }
        }
        if self.best.as_ref().is_none_or(|(best, _)| rank(code) < rank(*best)) {
            self.best = Some((code, response.cloned()));
        }
    }

    /// The failure to answer with, once nothing else can come.
    pub fn best(&self) -> Option<(u16, Option<&Message>)> {
        let (code, response) = self.best.as_ref()?;
        Some((*code, response.as_ref()))
    }
}

/// How good a failure is for the caller (§16.7, step 6): 6xx decides; else the lowest class, and in it what the caller can
/// do something about.
fn rank(code: u16) -> (u16, u16) {
    let tellings = [401, 407, 415, 420, 484];
    match code {
        600.. => (0, 0),
        _ => (code / 100, if tellings.contains(&code) { 0 } else { code }),
    }
}
