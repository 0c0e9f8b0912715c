//! Subscriptions in both roles (RFC 6665) and publications (RFC 3903): what others tell us about, and what we tell them.
//!
//! A [`subscriber`] watches something of a peer's; a [`notifier`] lets a peer watch something of ours, when the program
//! announced the event package; a [`publication`] keeps a state at a server. Each is named by a [`SubscriptionId`] and
//! owns one dialog or one entity-tag. The [`table`] finds them by the tag in To and wakes them; each has one time to be
//! woken at.

mod follow;
mod notifier;
mod publication;
mod subscriber;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

pub use self::notifier::Verdict;
pub(crate) use self::table::Subscriptions;
use crate::event::{AccountId, Route};
use crate::sip::headers::RetryAfter;
use crate::sip::message::{HeaderName, Message};
use crate::sip::uri::Uri;

/// Subscriptions and publications of ours: one for each contact of a large telephone system.
pub const MAX_SUBSCRIPTIONS: usize = 16_384;
/// Subscriptions of others at us, and of one source (a proxy is one source).
pub const MAX_INCOMING: usize = 16_384;
pub const MAX_INCOMING_PER_SOURCE: usize = 4_096;

/// Largest body of a NOTIFY or PUBLISH.
pub const MAX_BODY: usize = 64 * 1024;

/// How long the NOTIFY that makes a subscription may take after its SUBSCRIBE was accepted: Timer N (RFC 6665 §4.1.2.4).
const TIMER_N: Duration = Duration::from_secs(32);
/// How long the last NOTIFY may take once the peer accepted that we unsubscribe.
const LAST_NOTIFY: Duration = Duration::from_secs(5);
/// How long an end may take while the engine stops.
pub(crate) const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// The first wait after a failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(1800);
/// The longest time a peer can make us stay away, or make us ask for (423).
const DAY: u32 = 86_400;

/// What to watch.
#[derive(Clone, Debug)]
pub struct Subscribe {
    pub account: AccountId,
    pub event: String,
    /// What is watched; the account's own address when it is left out.
    pub uri: Option<Uri>,
    /// Tried in order (ruling R19); empty: where the URI leads.
    pub routes: Vec<Route>,
    /// Seconds; 0 asks once.
    pub expires: u32,
    /// Body types; those of the package when empty.
    pub accept: Vec<String>,
}

/// What to publish.
#[derive(Clone, Debug)]
pub struct Publish {
    pub account: AccountId,
    pub event: String,
    /// As those of a subscription; the URI is the account's own.
    pub routes: Vec<Route>,
    pub expires: u32,
    pub content_type: String,
    pub body: bytes::Bytes,
}

/// How long before its end something is refreshed: a tenth of its time, but enough for a transaction.
fn margin(expires: u32) -> u32 {
    if expires < 20 { expires / 2 } else { (expires / 10).clamp(10, 64) }
}

/// The wait after this many failures in a row, a fifth of it random so that not everybody comes back at once.
fn back_off(failures: u32, random: &mut StdRng) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.min(6)).min(LONGEST_WAIT);
    doubled.mul_f64(random.random_range(0.8..1.0))
}

/// `Retry-After` of an answer, at most a day.
fn retry_after(response: &Message) -> Option<u32> {
    let value = response.header(HeaderName::RetryAfter)?;
    RetryAfter::parse(value).map(|after| after.seconds.min(DAY))
}

/// True for failures that asking again does not change; the others are temporary.
fn is_final(code: u16) -> bool {
    match code {
        408 | 429 | 430 | 480 | 481 | 486 | 491 | 423 => false,
        501 | 505 | 513 | 580 => true,
        500..600 => false,
        _ => true,
    }
}

/// Body types of the packages we can read; empty for others.
fn default_accept(event: &str) -> &'static [&'static str] {
    match event {
        "message-summary" => &["application/simple-message-summary"],
        "dialog" => &["application/dialog-info+xml"],
        "presence" => &["application/pidf+xml"],
        _ => &[],
    }
}
