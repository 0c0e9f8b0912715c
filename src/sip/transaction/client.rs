//! Non-INVITE client transaction (RFC 3261 §17.1.2).
//!
//! ```text
//! Trying ──1xx──▶ Proceeding ──200-699──▶ Completed ──timer K──▶ Terminated
//!    ╰──────────200-699─────────────────────▲
//! ```
//! Timer F ends Trying and Proceeding. On reliable transports timers E and K are nought.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::message::Message;
use super::super::transport::Flow;
use super::timers::{T1, T2, T4, TRANSACTION_TIMEOUT};
use super::{ClientId, Output, Sink};

#[derive(Debug)]
enum State {
    Trying { request: Bytes, interval: Duration },
    Proceeding { request: Bytes },
    Completed,
    Terminated,
}

/// One request other than INVITE and ACK, and its retransmissions over UDP.
#[derive(Debug)]
pub(super) struct Client {
    id: ClientId,
    flow: Flow,
    /// A CANCEL: its fate is told by the INVITE it cancels, not to the TU.
    silent: bool,
    state: State,
    resend_at: Option<Instant>, // Timer E
    end_at: Option<Instant>,    // Timer F, then timer K
}

impl Client {
    /// Sends the request; timers E and F run from `now`.
    pub fn new(id: ClientId, request: Bytes, flow: Flow, silent: bool, sink: &mut Sink, now: Instant) -> Self {
        sink.send(Output::Transmit { flow, bytes: request.clone(), client: Some(id) });
        Self {
            id,
            flow,
            silent,
            state: State::Trying { request, interval: T1 },
            resend_at: (!flow.transport.is_reliable()).then_some(now + T1),
            end_at: Some(now + TRANSACTION_TIMEOUT),
        }
    }

    /// Takes a response of this transaction; false when it comes too late to matter.
    pub fn handle_response(
        &mut self,
        status: u16,
        response: Message,
        flow: Flow,
        sink: &mut Sink,
        now: Instant,
    ) -> bool {
        let request = match &self.state {
            State::Completed | State::Terminated => return false, // a repeated answer: absorbed
            State::Trying { request, .. } | State::Proceeding { request } => request,
        };
        if status < 200 {
            self.state = State::Proceeding { request: request.clone() };
        } else if self.flow.transport.is_reliable() {
            self.terminate();
        } else {
            self.state = State::Completed;
            (self.resend_at, self.end_at) = (None, Some(now + T4));
        }
        if !self.silent {
            sink.send(Output::Response { client: self.id, response, flow });
        }
        true
    }

    /// The transport gave up on the request (§17.1.4).
    pub fn handle_transport_error(&mut self, error: &str, sink: &mut Sink) {
        if matches!(self.state, State::Trying { .. } | State::Proceeding { .. }) {
            sink.stats.transport_errors += 1;
            if !self.silent {
                sink.send(Output::TransportFailed { client: self.id, error: error.to_owned() });
            }
            self.terminate();
        }
    }

    pub fn handle_timeout(&mut self, sink: &mut Sink, now: Instant) {
        if self.end_at.is_some_and(|at| at <= now) {
            if !matches!(self.state, State::Completed) {
                sink.stats.timed_out += 1;
                if !self.silent {
                    sink.send(Output::TimedOut { client: self.id });
                }
            }
            self.terminate();
        } else if self.resend_at.is_some_and(|at| at <= now) {
            let (request, wait) = match &mut self.state {
                State::Trying { request, interval } => {
                    *interval = (*interval * 2).min(T2);
                    (request.clone(), *interval)
                }
                State::Proceeding { request } => (request.clone(), T2),
                State::Completed | State::Terminated => return,
            };
            self.resend_at = Some(now + wait);
            sink.stats.requests_resent += 1;
            sink.send(Output::Transmit { flow: self.flow, bytes: request, client: Some(self.id) });
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.resend_at.into_iter().chain(self.end_at).min()
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    fn terminate(&mut self) {
        self.state = State::Terminated;
        (self.resend_at, self.end_at) = (None, None);
    }
}
