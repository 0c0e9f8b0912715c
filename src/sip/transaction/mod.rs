//! The four transactions of RFC 3261 §17 with the corrections of RFC 6026, in one table with one timer queue.

use std::time::Instant;

use bytes::Bytes;

use super::message::{Message, Method};
use super::transport::Flow;

/// Names a client transaction of this table; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Names a server transaction of this table; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u64);

/// What the transaction user must do or know, oldest first.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes. `client` is set for requests, so that a transport error can be told to that transaction.
    Transmit { flow: Flow, bytes: Bytes, client: Option<ClientId> },
    /// A new request (never an ACK to a failure, never a retransmission).
    Request { server: ServerId, request: Message, flow: Flow },
    /// An ACK that matches no failure response: it confirms a 2xx (or nothing).
    Ack { request: Message, flow: Flow },
    /// A CANCEL; `invite` is the INVITE transaction it matches (RFC 3261 §9.2). The TU answers it through `server`.
    Cancel { server: ServerId, invite: Option<ServerId>, request: Message, flow: Flow },
    /// A response for a client transaction: each provisional, the first final, and every 2xx of an INVITE (RFC 6026 §7.2).
    Response { client: ClientId, response: Message, flow: Flow },
    /// No final response in time (timers B, F): the TU treats it as 408.
    TimedOut { client: ClientId },
    /// The transport could not send; the TU treats it as 503.
    TransportFailed { client: ClientId, error: String },
    /// A failure response was never acknowledged (timer H).
    NoAck { server: ServerId },
    /// A 2xx whose INVITE transaction is over (timer M ran out) or unknown: the TU must still ACK and BYE strays.
    StrayResponse { response: Message, flow: Flow },
}

/// All transactions of one user agent.
#[derive(Debug, Default)]
pub struct Transactions {}

impl Transactions {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends a request that carries its own Via branch and starts its transaction (not for ACK to a 2xx: transmit that).
    pub fn send_request(&mut self, _request: Message, _flow: Flow, _now: Instant) -> ClientId {
        todo!()
    }

    /// CANCELs a client INVITE: sent when a provisional has come, withheld until then (RFC 3261 §9.1). When no final
    /// response follows within 64·T1 the INVITE times out. Nothing happens once it is completed.
    pub fn cancel(&mut self, _invite: ClientId, _extra_headers: &[(String, String)], _now: Instant) {
        todo!()
    }

    /// Answers a server transaction. The bytes are a whole response built from its request. A 2xx to INVITE moves the
    /// transaction to Accepted; retransmitting that 2xx is the TU's job (RFC 6026 §7.1): see `retransmit_2xx`.
    pub fn respond(&mut self, _server: ServerId, _code: u16, _response: Bytes, _now: Instant) {
        todo!()
    }

    /// Takes one valid message from the network.
    pub fn handle_message(&mut self, _message: Message, _flow: Flow, _now: Instant) {
        todo!()
    }

    /// The transport could not deliver a request of this transaction.
    pub fn handle_transport_error(&mut self, _client: ClientId, _error: &str, _now: Instant) {
        todo!()
    }

    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    /// Live transactions (client, server), for statistics and leak checks.
    pub fn len(&self) -> (usize, usize) {
        (0, 0)
    }
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }
    /// The method of a live client transaction.
    pub fn client_method(&self, _client: ClientId) -> Option<&Method> {
        None
    }
}
