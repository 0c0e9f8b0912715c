//! Answers to 401 and 407 (RFC 3261 §22): which credentials a request carries, and whether a challenge is answered.

use super::core::Core;
use crate::event::AccountId;
use crate::sip::message::{Message, Method};
use crate::sip::transport::Flow;

/// The challenges that one request has met; empty for a request that is sent for the first time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts {}

/// What an answer to a challenge is computed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authorizable<'a> {
    pub account: AccountId,
    pub method: &'a Method,
    /// As it stands in the request line.
    pub uri: &'a str,
    pub body: &'a [u8],
    pub flow: Flow,
}

impl Core {
    /// `Authorization` and `Proxy-Authorization` for a request about to be sent: for what this request was challenged
    /// with, and what the nonce cache holds for where it goes.
    pub fn authorize(&mut self, _request: Authorizable<'_>, _attempts: &mut Attempts) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Takes a 401 or 407. `Ok`: the request is to be sent again with a new branch and the next CSeq number and what
    /// [`Self::authorize`] gives then.
    ///
    /// # Errors
    /// Why it cannot be answered, for the application: no password, a foreign realm, only algorithms we refuse, the same
    /// challenge again.
    pub fn challenged(
        &mut self,
        _account: AccountId,
        _response: &Message,
        _attempts: &mut Attempts,
    ) -> Result<(), String> {
        Err("credentials are not there yet".into())
    }
}
