//! INVITE server transaction (RFC 3261 §17.2.1 with RFC 6026 §8.5).
//!
//! ```text
//! Proceeding ──300-699──▶ Completed ──ACK──▶ Confirmed ──timer I──▶ Terminated
//!     │                       ╰──timer H: NoAck────────────────────────▲
//!     ╰───────2xx──▶ Accepted ──timer L────────────────────────────────╯
//! ```
//! Proceeding lasts as long as the TU lets it ring. On reliable transports timer G never runs and timer I is nought.

use std::time::Instant;

use bytes::Bytes;

use super::super::build::Builder;
use super::super::message::Message;
use super::super::transport::Flow;
use super::timers::{T1, T2, T4, TRANSACTION_TIMEOUT, TRYING_AFTER};
use super::{Output, ServerId, Sink, kept};

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
    /// `resends` counts timer G.
    Completed {
        last: Bytes,
        resends: u8,
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
            self.state = State::Proceeding { last: kept(&response) };
            self.resend_at = None;
        } else {
            self.state = State::Completed { last: kept(&response), resends: 0 };
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
                State::Completed { last, resends } => {
                    *resends += 1; // T1 doubling to T2: at most ten in 64·T1
                    self.resend_at = Some(now + (T1 * (1 << (*resends).min(3))).min(T2));
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

    /// 100 Trying (RFC 3261 §8.2.6.1).
    fn send_trying(&mut self, sink: &mut Sink) {
        let State::Waiting { request } = &self.state else { return };
        self.resend_at = None;
        // Read again from its bytes: a TU that answers within 200 ms, as ours does, never needs this.
        let Ok(invite) = Message::parse(request.clone()) else { return };
        let trying = Builder::response(&invite, 100, "", None, self.flow.remote).finish(None);
        sink.send(Output::Transmit { flow: self.flow, bytes: trying.clone(), client: None });
        self.state = State::Proceeding { last: trying };
    }

    fn terminate(&mut self) {
        self.state = State::Terminated;
        (self.resend_at, self.end_at) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, at, message, request, request_with};

    #[test]
    fn proceeding_sends_100_after_200_ms() {
        for mut bench in [Bench::udp(), Bench::tcp()] {
            bench.gets(request_with("INVITE", "z9hG4bK1", "Timestamp: 54.2\nSubject: call\n"));
            assert_eq!(bench.until(60_000), at(&[200], "send 100"));
            let sent = super::Message::parse(bench.sent.clone()).expect("a readable 100");
            assert_eq!((sent.status(), sent.header_named("Timestamp")), (Some(100), Some(b"54.2".as_slice())));
            assert_eq!(sent.to().expect("a To").tag(), None);
        }
    }

    #[test]
    fn proceeding_sends_no_100_once_the_tu_has_answered() {
        for code in [100, 180, 183, 200] {
            let mut bench = Bench::udp();
            let id = bench.serve("INVITE");
            assert_eq!(bench.until(199), []);
            assert_eq!(bench.responds(id, code), [format!("send {code}")]);
            assert_eq!(bench.until(10_000), [], "{code}");
        }
    }

    #[test]
    fn proceeding_repeats_its_last_provisional() {
        let mut bench = Bench::udp();
        let id = bench.serve("INVITE");
        assert_eq!(bench.gets(request("INVITE")), ["send 100"], "none yet: Trying at once");
        assert_eq!(bench.gets(request("INVITE")), ["send 100"]);
        assert_eq!(bench.responds(id, 180), ["send 180"]);
        assert_eq!(bench.gets(request("INVITE")), ["send 180"]);
        assert_eq!(bench.responds(id, 183), ["send 183"]);
        assert_eq!(bench.until(3_600_000), [], "it may ring for an hour");
        assert_eq!(bench.gets(request("INVITE")), ["send 183"]);
    }

    #[test]
    fn proceeding_to_completed_on_each_failure_repeated_from_t1_to_t2_until_timer_h() {
        for code in [302, 404, 486, 503, 603] {
            let mut bench = Bench::udp();
            let id = bench.serve("INVITE");
            let sent = format!("send {code}");
            assert_eq!(bench.responds(id, code), std::slice::from_ref(&sent));
            let mut expected = at(&[500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500], &sent);
            expected.extend(at(&[32_000], "no ack"));
            assert_eq!(bench.until(100_000), expected);
            bench.assert_empty();
        }
    }

    #[test]
    fn completed_over_tcp_waits_for_the_ack_in_silence() {
        let mut bench = Bench::tcp();
        let id = bench.serve("INVITE");
        bench.responds(id, 486);
        assert_eq!(bench.until(100_000), at(&[32_000], "no ack"));
        bench.assert_empty();
    }

    #[test]
    fn completed_answers_each_repeated_invite_and_no_other_way() {
        let mut bench = Bench::udp();
        let id = bench.serve("INVITE");
        bench.responds(id, 486);
        assert_eq!(bench.gets(request("INVITE")), ["send 486"]);
        for code in [180, 200, 500] {
            assert_eq!(bench.responds(id, code), [""; 0], "{code}");
        }
    }

    #[test]
    fn completed_to_confirmed_on_ack_until_timer_i() {
        let mut bench = Bench::udp();
        let id = bench.serve("INVITE");
        bench.responds(id, 486);
        assert_eq!(bench.until(600), at(&[500], "send 486"));
        assert_eq!(bench.gets(request("ACK")), [""; 0]);
        assert_eq!(bench.until(5_599), []);
        assert_eq!(bench.gets(request("ACK")), [""; 0], "repeated ACKs are absorbed");
        assert_eq!(bench.gets(request("INVITE")), [""; 0], "and late INVITEs too");
        assert_eq!(bench.tsx.len(), (0, 1));
        assert_eq!(bench.until(5_600), []);
        bench.assert_empty();
    }

    #[test]
    fn over_tcp_the_ack_ends_it_at_once() {
        let mut bench = Bench::tcp();
        let id = bench.serve("INVITE");
        bench.responds(id, 486);
        assert_eq!(bench.gets(request("ACK")), [""; 0]);
        bench.assert_empty();
    }

    #[test]
    fn proceeding_to_accepted_on_2xx_until_timer_l() {
        for mut bench in [Bench::udp(), Bench::tcp()] {
            let id = bench.serve("INVITE");
            assert_eq!(bench.responds(id, 180), ["send 180"]);
            assert_eq!(bench.responds(id, 200), ["send 200"]);
            assert_eq!(bench.until(31_999), [], "the TU repeats it, not the transaction");
            assert_eq!(bench.gets(request("INVITE")), [""; 0], "repeated INVITEs are absorbed");
            assert_eq!(bench.responds(id, 200), ["send 200"]);
            assert_eq!(bench.until(32_000), [], "and sending it again does not prolong it");
            bench.assert_empty();
            assert_eq!(bench.responds(id, 200), [""; 0]);
        }
    }

    #[test]
    fn accepted_sends_no_other_answer_than_2xx() {
        let mut bench = Bench::udp();
        let id = bench.serve("INVITE");
        bench.responds(id, 200);
        for code in [180, 302, 486, 603] {
            assert_eq!(bench.responds(id, code), [""; 0], "{code}");
        }
    }

    #[test]
    fn accepted_passes_each_ack_to_the_tu() {
        let mut bench = Bench::udp();
        let id = bench.serve("INVITE");
        bench.responds(id, 200);
        assert_eq!(bench.gets(request_with("ACK", "z9hG4bK2", "")), ["ack"], "with a branch of its own");
        assert_eq!(bench.gets(request("ACK")), ["ack"], "or, wrongly, with the INVITE's");
    }

    #[test]
    fn proceeding_drops_an_ack() {
        let mut bench = Bench::udp();
        bench.serve("INVITE");
        assert_eq!(bench.gets(request("ACK")), [""; 0]);
        assert_eq!((bench.tsx.len(), bench.tsx.stats().dropped_acks), ((0, 1), 1));
    }

    #[test]
    fn a_new_invite_after_all_that_is_a_new_transaction() {
        let mut bench = Bench::udp();
        let id = bench.serve("INVITE");
        bench.responds(id, 486);
        bench.gets(request("ACK"));
        assert_eq!(bench.until(10_000), []);
        assert_eq!(
            bench.gets(message(&String::from_utf8_lossy(request("INVITE").as_bytes()).replace('\r', ""))),
            ["request INVITE"]
        );
    }
}
