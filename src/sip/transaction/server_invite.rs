//! INVITE server transaction (RFC 3261 §17.2.1 with RFC 6026 §8.5).
//!
//! ```text
//! Proceeding ──300-699──▶ Completed ──ACK──▶ Confirmed ──timer I──▶ Terminated
//!     │                       ╰──timer H: NoAck────────────────────────▲
//!     ╰───────2xx──▶ Accepted ──timer L────────────────────────────────╯
//! ```
//! Proceeding lasts as long as the TU lets it ring. On reliable transports timer G never runs and timer I is nought.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::build::Builder;
use super::super::message::Message;
use super::super::transport::Flow;
use super::timers::{T1, T2, T4, TRANSACTION_TIMEOUT, TRYING_AFTER};
use super::{Output, ServerId, Sink};

#[derive(Debug)]
enum State {
    /// The request is kept only until there is a first answer: 100 Trying is made from it.
    Waiting {
        request: Bytes,
    },
    /// RFC 3261's Proceeding from its first response on.
    Proceeding {
        last: Bytes,
    },
    Completed {
        last: Bytes,
        interval: Duration,
    },
    Confirmed,
    Accepted,
    Terminated,
}

/// What becomes of an ACK that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckIs {
    /// For a failure: the transaction took it.
    Absorbed,
    /// For a 2xx: the TU's.
    ForTheUser,
}

/// One INVITE and its responses.
#[derive(Debug)]
pub(super) struct ServerInvite {
    id: ServerId,
    flow: Flow,
    state: State,
    resend_at: Option<Instant>, // 200 ms to 100 Trying, then timer G
    end_at: Option<Instant>,    // Timer H, I or L
}

impl ServerInvite {
    /// Takes a new INVITE; 100 Trying is due 200 ms from `now`.
    pub fn new(id: ServerId, request: Bytes, flow: Flow, now: Instant) -> Self {
        Self { id, flow, state: State::Waiting { request }, resend_at: Some(now + TRYING_AFTER), end_at: None }
    }

    /// Sends the TU's answer. In Accepted each further 2xx is sent too (RFC 6026 §7.1); after a failure nothing is.
    pub fn respond(&mut self, code: u16, response: Bytes, sink: &mut Sink, now: Instant) {
        let is_2xx = (200..300).contains(&code);
        match self.state {
            State::Waiting { .. } | State::Proceeding { .. } => {}
            State::Accepted if is_2xx => {}
            State::Accepted | State::Completed { .. } | State::Confirmed | State::Terminated => return,
        }
        sink.send(Output::Transmit { flow: self.flow, bytes: response.clone(), client: None });
        if is_2xx {
            if !matches!(self.state, State::Accepted) {
                self.state = State::Accepted;
                (self.resend_at, self.end_at) = (None, Some(now + TRANSACTION_TIMEOUT));
            }
        } else if code < 200 {
            self.state = State::Proceeding { last: response };
            self.resend_at = None;
        } else {
            self.state = State::Completed { last: response, interval: T1 };
            self.resend_at = (!self.flow.transport.is_reliable()).then_some(now + T1);
            self.end_at = Some(now + TRANSACTION_TIMEOUT);
        }
    }

    /// The same INVITE again. In Accepted it is absorbed: the TU repeats its 2xx by its own clock (RFC 6026 §7.1).
    pub fn handle_retransmission(&mut self, sink: &mut Sink) {
        sink.stats.retransmissions_received += 1;
        match &self.state {
            State::Waiting { .. } => self.send_trying(sink), // the peer is impatient; so need we be
            State::Proceeding { last } | State::Completed { last, .. } => {
                sink.stats.responses_resent += 1;
                sink.send(Output::Transmit { flow: self.flow, bytes: last.clone(), client: None });
            }
            State::Confirmed | State::Accepted | State::Terminated => {}
        }
    }

    /// An ACK with this transaction's branch.
    pub fn handle_ack(&mut self, sink: &mut Sink, now: Instant) -> AckIs {
        match self.state {
            State::Accepted => return AckIs::ForTheUser,
            State::Completed { .. } if self.flow.transport.is_reliable() => self.terminate(),
            State::Completed { .. } => {
                self.state = State::Confirmed;
                (self.resend_at, self.end_at) = (None, Some(now + T4));
            }
            State::Waiting { .. } | State::Proceeding { .. } => sink.stats.dropped_acks += 1, // of what answer?
            State::Confirmed | State::Terminated => {}
        }
        AckIs::Absorbed
    }

    pub fn handle_timeout(&mut self, sink: &mut Sink, now: Instant) {
        if self.end_at.is_some_and(|at| at <= now) {
            if matches!(self.state, State::Completed { .. }) {
                sink.stats.unacknowledged += 1;
                sink.send(Output::NoAck { server: self.id });
            }
            self.terminate();
        } else if self.resend_at.is_some_and(|at| at <= now) {
            match &mut self.state {
                State::Waiting { .. } => self.send_trying(sink),
                State::Completed { last, interval } => {
                    *interval = (*interval * 2).min(T2);
                    self.resend_at = Some(now + *interval);
                    sink.stats.responses_resent += 1;
                    sink.send(Output::Transmit { flow: self.flow, bytes: last.clone(), client: None });
                }
                State::Proceeding { .. } | State::Confirmed | State::Accepted | State::Terminated => {
                    self.resend_at = None;
                }
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.resend_at.into_iter().chain(self.end_at).min()
    }

    /// The failure that waits for its ACK.
    pub fn unacknowledged(&self) -> Option<&Bytes> {
        match &self.state {
            State::Completed { last, .. } => Some(last),
            _ => None,
        }
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    /// 100 Trying, with the request's Timestamp (RFC 3261 §8.2.6.1).
    fn send_trying(&mut self, sink: &mut Sink) {
        let State::Waiting { request } = &self.state else { return };
        self.resend_at = None;
        // Read again from its bytes: a TU that answers within 200 ms, as ours does, never needs this.
        let Ok(invite) = Message::parse(request.clone()) else { return };
        let mut builder = Builder::response(&invite, 100, "Trying", None, self.flow.remote);
        if let Some(timestamp) = invite.header_named("Timestamp") {
            builder = builder.header_bytes("Timestamp", timestamp);
        }
        let trying = builder.finish(None);
        sink.send(Output::Transmit { flow: self.flow, bytes: trying.clone(), client: None });
        self.state = State::Proceeding { last: trying };
    }

    fn terminate(&mut self) {
        self.state = State::Terminated;
        (self.resend_at, self.end_at) = (None, None);
    }
}
