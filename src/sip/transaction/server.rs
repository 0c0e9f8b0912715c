//! Non-INVITE server transaction (RFC 3261 §17.2.2).
//!
//! ```text
//! Trying ──1xx──▶ Proceeding ──200-699──▶ Completed ──timer J──▶ Terminated
//!    ╰───────────────200-699────────────────▲
//! ```
//! A request the TU leaves unanswered is forgotten after 64·T1: its client has given up by then and an answer would only
//! do harm (RFC 4320 §4.2). On reliable transports timer J is nought.

use std::time::Instant;

use bytes::Bytes;

use super::super::transport::Flow;
use super::timers::TRANSACTION_TIMEOUT;
use super::{Output, Sink};

#[derive(Debug)]
enum State {
    Trying,
    Proceeding { last: Bytes },
    Completed { last: Bytes },
    Terminated,
}

/// One request other than INVITE, and the answer each of its repetitions gets.
#[derive(Debug)]
pub(super) struct Server {
    flow: Flow,
    state: State,
    end_at: Option<Instant>, // the client's timer F, then timer J
}

impl Server {
    pub fn new(flow: Flow, now: Instant) -> Self {
        Self { flow, state: State::Trying, end_at: Some(now + TRANSACTION_TIMEOUT) }
    }

    /// Sends the TU's answer; after the first final one there is no other.
    pub fn respond(&mut self, code: u16, response: Bytes, sink: &mut Sink, now: Instant) {
        if matches!(self.state, State::Completed { .. } | State::Terminated) {
            return;
        }
        sink.send(Output::Transmit { flow: self.flow, bytes: response.clone(), client: None });
        if code < 200 {
            self.state = State::Proceeding { last: response };
        } else if self.flow.transport.is_reliable() {
            (self.state, self.end_at) = (State::Terminated, None);
        } else {
            (self.state, self.end_at) = (State::Completed { last: response }, Some(now + TRANSACTION_TIMEOUT));
        }
    }

    /// The same request again: the last answer again, if there is one.
    pub fn handle_retransmission(&mut self, sink: &mut Sink) {
        sink.stats.retransmissions_received += 1;
        if let State::Proceeding { last } | State::Completed { last } = &self.state {
            sink.stats.responses_resent += 1;
            sink.send(Output::Transmit { flow: self.flow, bytes: last.clone(), client: None });
        }
    }

    pub fn handle_timeout(&mut self, sink: &mut Sink, now: Instant) {
        if self.end_at.is_some_and(|at| at <= now) {
            if !matches!(self.state, State::Completed { .. }) {
                sink.stats.unanswered += 1;
            }
            (self.state, self.end_at) = (State::Terminated, None);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.end_at
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }
}
