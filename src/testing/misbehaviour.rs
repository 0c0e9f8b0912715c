//! What the proxy can be told to do wrong, and to which messages.

use std::time::Duration;

use crate::sip::message::{Message, Method};

/// Which messages a misbehaviour is for. The default is every request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Only this method (of a response: the method it answers).
    pub method: Option<Method>,
    /// Responses with this code; `None` means requests.
    pub code: Option<u16>,
    /// How many that match are let through first.
    pub skip: u32,
    /// How many are then treated; `None` means all.
    pub times: Option<u32>,
}

impl Match {
    pub fn request(method: Method) -> Self {
        Self { method: Some(method), ..Self::default() }
    }

    pub fn response(code: u16, method: Method) -> Self {
        Self { method: Some(method), code: Some(code), ..Self::default() }
    }

    /// Only so many of them.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Lets so many pass first: `skip(2).times(1)` is the third.
    #[must_use]
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    fn fits(&self, message: &Message) -> bool {
        self.code == message.status() && self.method.as_ref().is_none_or(|method| method == message.method())
    }

    /// True when this message is to be treated; counts it.
    fn takes(&mut self, message: &Message) -> bool {
        if !self.fits(message) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.times {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

/// One thing done wrong. The first three are about requests that reach the proxy, the others about messages it sends, its
/// own or forwarded, repetitions included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Asks for credentials again and again, with another nonce each time.
    ChallengeForEver { stale: bool },
    /// Answers in the place of whoever it was for: 302 with a Contact, 503 with Retry-After, 483, ….
    Answer { code: u16, reason: String, headers: Vec<(String, String)> },
    /// Sends the request to itself.
    Loop,
    /// Loses it.
    Drop,
    /// Sends it so much later.
    Delay(Duration),
    /// Sends it from another port than the one it listens on (UDP).
    OtherPort,
    /// After a 2xx to INVITE, a second one, as from another phone: with a To tag and a Contact of its own. The proxy
    /// answers the BYE to that phone itself.
    SecondAnswer,
}

impl Misbehaviour {
    fn is_for_received(&self) -> bool {
        matches!(self, Self::ChallengeForEver { .. } | Self::Answer { .. } | Self::Loop)
    }
}

/// The misbehaviours in force, in the order they were asked for; the first that takes a message has it.
#[derive(Debug, Default)]
pub(super) struct Misbehaviours {
    rules: Vec<(Misbehaviour, Match)>,
}

impl Misbehaviours {
    pub fn add(&mut self, what: Misbehaviour, which: Match) {
        self.rules.push((what, which));
    }

    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// What to do with a request that came.
    pub fn for_received(&mut self, request: &Message) -> Option<Misbehaviour> {
        self.find(request, Misbehaviour::is_for_received)
    }

    /// What to do with a message about to be sent.
    pub fn for_sent(&mut self, message: &Message) -> Option<Misbehaviour> {
        self.find(message, |what| !what.is_for_received())
    }

    fn find(&mut self, message: &Message, kind: impl Fn(&Misbehaviour) -> bool) -> Option<Misbehaviour> {
        let mut rules = self.rules.iter_mut().filter(|(what, _)| kind(what));
        rules.find_map(|(what, which)| which.takes(message).then(|| what.clone()))
    }
}
