//! Requests of ours inside the session's dialog, other than INVITE's own ACK and BYE.

use std::time::Instant;

use super::Session;
use crate::sip::message::Message;
use crate::sip::transaction::ClientId;
use crate::sip::transport::Flow;
use crate::ua::core::Core;

impl Session {
    /// A response to a request of ours inside the dialog.
    pub fn handle_response(
        &mut self,
        _client: ClientId,
        _response: &Message,
        _flow: Flow,
        _core: &mut Core,
        _now: Instant,
    ) {
    }

    /// No answer came (408), or it could not be sent (503).
    pub fn handle_no_response(&mut self, _client: ClientId, _code: u16, _why: &str, _core: &mut Core, _now: Instant) {}
}
