//! A request of ours inside a dialog, sent again with credentials when it is challenged: what sessions and subscriptions
//! share.

use std::time::Instant;

use bytes::Bytes;

use super::core::{ClientUse, Core};
use super::credentials::{Attempts, Authorizable, Path};
use crate::event::AccountId;
use crate::sip::dialog::{Dialog, request_line_uri};
use crate::sip::message::{Message, Method};
use crate::sip::transaction::ClientId;

/// What is sent; kept until its final answer.
#[derive(Debug)]
pub(crate) struct DialogRequest {
    pub method: Method,
    pub account: AccountId,
    /// Contact is among them when the method refreshes the target.
    pub headers: Vec<(&'static str, String)>,
    /// Content type and bytes.
    pub body: Option<(String, Bytes)>,
    attempts: Attempts,
    /// CSeq number of the last attempt.
    pub number: u32,
}

impl DialogRequest {
    pub fn new(method: Method, account: AccountId) -> Self {
        Self { method, account, headers: Vec::new(), body: None, attempts: Attempts::default(), number: 0 }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(mut self, kind: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        self.body = Some((kind.into(), bytes.into()));
        self
    }

    /// Sends it with the dialog's next CSeq number.
    pub fn send(&mut self, dialog: &mut Dialog, used: ClientUse, core: &mut Core, now: Instant) -> ClientId {
        let flow = dialog.flow();
        let via = core.via(flow);
        let uri = dialog.request_uri().to_string();
        let body = self.body.as_ref().map(|(kind, bytes)| (kind.as_str(), bytes.as_ref()));
        let what = Authorizable {
            account: self.account,
            method: &self.method,
            uri: &uri,
            body: body.map(|(_, bytes)| bytes).unwrap_or_default(),
            flow,
            path: if dialog.is_ours() { Path::Ours } else { Path::Theirs },
            hop: None,
        };
        let credentials = core.authorize(what, &mut self.attempts);
        let mut request = dialog.request(&self.method, via);
        self.number = dialog.local_seq();
        for (name, value) in credentials.iter().chain(&self.headers) {
            request = request.header(name, value);
        }
        let request = request.header("User-Agent", &core.config.user_agent).finish(body);
        core.send(request, flow, Some(used), now)
    }

    /// Takes a 401 or 407: `Ok` means it is to be sent again.
    ///
    /// # Errors
    /// Why the challenge cannot be answered.
    pub fn challenged(&mut self, response: &Message, core: &mut Core) -> Result<(), String> {
        core.challenged(self.account, response, &mut self.attempts)
    }

    /// Takes a 2xx, for the credentials it was sent with.
    pub fn accepted(&self, response: &Message, core: &mut Core) {
        core.accepted(self.account, response, &self.attempts);
    }
}

impl Dialog {
    /// What the next request's request line says (RFC 3261 §12.2.1.1).
    pub(crate) fn request_uri(&self) -> crate::sip::uri::Uri {
        request_line_uri(self.strict_route().as_ref().unwrap_or(self.remote_target()))
    }
}
