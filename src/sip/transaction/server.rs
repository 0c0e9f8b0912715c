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
use super::{Output, Sink, kept};

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
            (self.state, self.end_at) = (State::Completed { last: kept(&response) }, Some(now + TRANSACTION_TIMEOUT));
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

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, request};

    #[test]
    fn trying_absorbs_repetitions() {
        let mut bench = Bench::udp();
        bench.serve("OPTIONS");
        assert_eq!(bench.gets(request("OPTIONS")), [""; 0]);
        assert_eq!(bench.tsx.len(), (0, 1));
    }

    #[test]
    fn trying_to_proceeding_on_1xx_which_is_repeated() {
        let mut bench = Bench::udp();
        let id = bench.serve("OPTIONS");
        assert_eq!(bench.responds(id, 183), ["send 183"]);
        assert_eq!(bench.gets(request("OPTIONS")), ["send 183"]);
        assert_eq!(bench.responds(id, 199), ["send 199"]);
        assert_eq!(bench.gets(request("OPTIONS")), ["send 199"], "the last one");
    }

    #[test]
    fn trying_and_proceeding_to_completed_on_each_final_until_timer_j() {
        for early in [None, Some(183)] {
            for code in [200, 302, 404, 500, 603] {
                let mut bench = Bench::udp();
                let id = bench.serve("OPTIONS");
                assert_eq!(bench.until(1_000), []);
                if let Some(early) = early {
                    bench.responds(id, early);
                }
                assert_eq!(bench.responds(id, code), [format!("send {code}")]);
                assert_eq!(bench.gets(request("OPTIONS")), [format!("send {code}")]);
                assert_eq!(bench.until(32_999), []);
                assert_eq!(bench.gets(request("OPTIONS")), [format!("send {code}")]);
                assert_eq!(bench.until(33_000), []);
                bench.assert_empty();
            }
        }
    }

    #[test]
    fn completed_sends_no_other_answer() {
        let mut bench = Bench::udp();
        let id = bench.serve("OPTIONS");
        assert_eq!(bench.responds(id, 200), ["send 200"]);
        for code in [100, 200, 486] {
            assert_eq!(bench.responds(id, code), [""; 0], "{code}");
        }
        assert_eq!(bench.gets(request("OPTIONS")), ["send 200"]);
    }

    #[test]
    fn over_tcp_a_final_ends_it_at_once() {
        let mut bench = Bench::tcp();
        let id = bench.serve("OPTIONS");
        assert_eq!(bench.responds(id, 200), ["send 200"]);
        bench.assert_empty();
    }

    #[test]
    fn what_the_tu_never_answers_is_forgotten() {
        for early in [None, Some(183)] {
            for mut bench in [Bench::udp(), Bench::tcp()] {
                let id = bench.serve("OPTIONS");
                if let Some(early) = early {
                    bench.responds(id, early);
                }
                assert_eq!(bench.until(32_000), []);
                bench.assert_empty();
                assert_eq!(bench.tsx.stats().unanswered, 1);
                assert_eq!(bench.responds(id, 200), [""; 0], "too late (RFC 4320)");
            }
        }
    }
}
