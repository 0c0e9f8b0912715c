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

    /// Sends the request, before any response, in another form by another way; returns the way it was on.
    pub fn restart(&mut self, request: Bytes, flow: Flow, sink: &mut Sink, now: Instant) -> Flow {
        let fresh = Self::new(self.id, request, flow, self.silent, sink, now);
        std::mem::replace(self, fresh).flow
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

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, at, response};

    #[test]
    fn trying_repeats_from_t1_doubling_to_t2_until_timer_f() {
        let mut bench = Bench::udp();
        bench.client("OPTIONS");
        let mut expected =
            at(&[500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500], "send OPTIONS");
        expected.extend(at(&[32_000], "timed out"));
        assert_eq!(bench.until(100_000), expected);
        bench.assert_empty();
    }

    #[test]
    fn trying_over_tcp_sends_once_until_timer_f() {
        let mut bench = Bench::tcp();
        bench.client("OPTIONS");
        assert_eq!(bench.until(100_000), at(&[32_000], "timed out"));
        bench.assert_empty();
    }

    #[test]
    fn trying_to_proceeding_on_1xx_which_repeats_every_t2() {
        let mut bench = Bench::udp();
        bench.client("OPTIONS");
        assert_eq!(bench.until(600), at(&[500], "send OPTIONS"));
        assert_eq!(bench.gets(response(100, "OPTIONS")), ["response 100"]);
        let expected = at(&[1_500, 5_500, 9_500], "send OPTIONS");
        assert_eq!(bench.until(10_000), expected);
        assert_eq!(bench.gets(response(183, "OPTIONS")), ["response 183"], "each provisional is told");
    }

    #[test]
    fn proceeding_ends_at_timer_f() {
        let mut bench = Bench::udp();
        bench.client("OPTIONS");
        bench.gets(response(100, "OPTIONS"));
        assert_eq!(bench.until(100_000).last(), at(&[32_000], "timed out").last());
        bench.assert_empty();
    }

    #[test]
    fn trying_to_completed_on_each_final_and_timer_k_ends_it() {
        for code in [200, 302, 404, 503, 603] {
            let mut bench = Bench::udp();
            bench.client("OPTIONS");
            assert_eq!(bench.gets(response(code, "OPTIONS")), [format!("response {code}")]);
            assert_eq!(bench.until(4_999), []);
            assert_eq!(bench.tsx.len(), (1, 0));
            assert_eq!(bench.until(5_000), []);
            bench.assert_empty();
        }
    }

    #[test]
    fn proceeding_to_completed_on_final() {
        let mut bench = Bench::udp();
        bench.client("OPTIONS");
        bench.gets(response(100, "OPTIONS"));
        assert_eq!(bench.gets(response(200, "OPTIONS")), ["response 200"]);
        assert_eq!(bench.until(60_000), []);
        bench.assert_empty();
    }

    #[test]
    fn completed_absorbs_repeated_and_other_answers() {
        let mut bench = Bench::udp();
        bench.client("OPTIONS");
        bench.gets(response(200, "OPTIONS"));
        for code in [200, 100, 486] {
            assert_eq!(bench.gets(response(code, "OPTIONS")), [""; 0], "{code}");
        }
        assert_eq!(bench.tsx.stats().dropped_responses, 3);
    }

    #[test]
    fn over_tcp_a_final_ends_it_at_once() {
        let mut bench = Bench::tcp();
        bench.client("OPTIONS");
        assert_eq!(bench.gets(response(200, "OPTIONS")), ["response 200"]);
        bench.assert_empty();
    }

    #[test]
    fn trying_and_proceeding_end_on_a_transport_error() {
        for code in [None, Some(100)] {
            let mut bench = Bench::udp();
            let id = bench.client("OPTIONS");
            if let Some(code) = code {
                bench.gets(response(code, "OPTIONS"));
            }
            bench.tsx.handle_transport_error(id, "no route", bench.now);
            assert_eq!(bench.out(), ["failed: no route"]);
            bench.assert_empty();
        }
    }

    #[test]
    fn completed_does_not_care_about_a_transport_error() {
        let mut bench = Bench::udp();
        let id = bench.client("OPTIONS");
        bench.gets(response(200, "OPTIONS"));
        bench.tsx.handle_transport_error(id, "no route", bench.now);
        assert_eq!(bench.out(), [""; 0]);
    }
}
