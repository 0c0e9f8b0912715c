//! INVITE client transaction (RFC 3261 §17.1.1 with RFC 6026 §8.4) and its CANCEL (RFC 3261 §9.1).
//!
//! ```text
//! Calling ──1xx──▶ Proceeding ──300-699, ACK──▶ Completed ──timer D──▶ Terminated
//!    │ ╰───────────────│────────300-699, ACK────────▲                      ▲
//!    ╰──────2xx────────┴──2xx──▶ Accepted ──timer M────────────────────────╯
//! ```
//! Timer B ends Calling. Proceeding has no end of its own (§17.1.1.2) until the INVITE is cancelled.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::build::{ack_for_failure, cancel_for};
use super::super::message::Message;
use super::super::transport::Flow;
use super::timers::{T1, TIMER_D, TRANSACTION_TIMEOUT};
use super::{ClientId, Output, Sink, kept};

#[derive(Debug)]
enum State {
    Calling { request: Bytes, interval: Duration },
    Proceeding { request: Bytes },
    Completed { ack: Bytes },
    Accepted,
    Terminated,
}

/// How far our CANCEL is.
#[derive(Debug)]
enum Cancel {
    NotWanted,
    /// Withheld until a provisional response (§9.1); the extra headers it will carry.
    Wanted(Box<[(String, String)]>),
    Sent,
}

/// One INVITE, its retransmissions over UDP, and the ACK to its failure.
#[derive(Debug)]
pub(super) struct ClientInvite {
    id: ClientId,
    flow: Flow,
    state: State,
    cancel: Cancel,
    resend_at: Option<Instant>, // Timer A
    end_at: Option<Instant>,    // Timer B; 64·T1 after CANCEL; timer D; timer M
}

impl ClientInvite {
    /// Sends the INVITE; timers A and B run from `now`.
    pub fn new(id: ClientId, request: Bytes, flow: Flow, sink: &mut Sink, now: Instant) -> Self {
        sink.send(Output::Transmit { flow, bytes: request.clone(), client: Some(id) });
        Self {
            id,
            flow,
            state: State::Calling { request, interval: T1 },
            cancel: Cancel::NotWanted,
            resend_at: (!flow.transport.is_reliable()).then_some(now + T1),
            end_at: Some(now + TRANSACTION_TIMEOUT),
        }
    }

    /// Sends the INVITE, before any response, in another form by another way; returns the way it was on. A CANCEL that is
    /// wanted stays so.
    pub fn restart(&mut self, request: Bytes, flow: Flow, sink: &mut Sink, now: Instant) -> Flow {
        let mut fresh = Self::new(self.id, request, flow, sink, now);
        fresh.cancel = std::mem::replace(&mut self.cancel, Cancel::NotWanted);
        std::mem::replace(self, fresh).flow
    }

    /// Takes a response of this transaction; false when it says nothing new (it is dropped).
    pub fn handle_response(
        &mut self,
        status: u16,
        response: Message,
        flow: Flow,
        sink: &mut Sink,
        now: Instant,
    ) -> bool {
        match &self.state {
            State::Calling { request, .. } | State::Proceeding { request } => match status {
                ..200 => {
                    if matches!(self.state, State::Calling { .. }) {
                        self.state = State::Proceeding { request: request.clone() };
                        (self.resend_at, self.end_at) = (None, None);
                    }
                }
                200..300 => {
                    self.state = State::Accepted;
                    (self.resend_at, self.end_at) = (None, Some(now + TRANSACTION_TIMEOUT));
                }
                _ => {
                    let ack = ack_for_failure(&read(request), &response);
                    sink.send(Output::Transmit { flow: self.flow, bytes: ack.clone(), client: None });
                    if self.flow.transport.is_reliable() {
                        self.terminate();
                    } else {
                        self.state = State::Completed { ack: kept(&ack) };
                        (self.resend_at, self.end_at) = (None, Some(now + TIMER_D));
                    }
                }
            },
            State::Completed { ack } if status >= 300 => {
                sink.stats.retransmissions_received += 1;
                sink.send(Output::Transmit { flow: self.flow, bytes: ack.clone(), client: None });
                return true; // told once; the ACK may have been lost
            }
            State::Accepted if (200..300).contains(&status) => {} // a repetition or another fork: the TU acknowledges each
            State::Completed { .. } | State::Accepted | State::Terminated => return false,
        }
        sink.send(Output::Response { client: self.id, response, flow });
        true
    }

    /// The TU no longer wants the call. Nothing happens once a final response is here.
    pub fn cancel(&mut self, extra_headers: &[(String, String)]) {
        if matches!(self.state, State::Calling { .. } | State::Proceeding { .. })
            && matches!(self.cancel, Cancel::NotWanted)
        {
            self.cancel = Cancel::Wanted(extra_headers.into());
        }
    }

    /// The CANCEL, once, when it is wanted and a provisional response allows it. From then on the final response has
    /// 64·T1 (§9.1).
    pub fn poll_cancel(&mut self, now: Instant) -> Option<Bytes> {
        let (State::Proceeding { request }, Cancel::Wanted(extra_headers)) = (&self.state, &self.cancel) else {
            return None;
        };
        let extra: Vec<_> = extra_headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let cancel = cancel_for(&read(request), &extra);
        self.cancel = Cancel::Sent;
        self.end_at = Some(now + TRANSACTION_TIMEOUT);
        Some(cancel)
    }

    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// The transport gave up on the INVITE (§17.1.4).
    pub fn handle_transport_error(&mut self, error: &str, sink: &mut Sink) {
        if matches!(self.state, State::Calling { .. } | State::Proceeding { .. }) {
            sink.stats.transport_errors += 1;
            sink.send(Output::TransportFailed { client: self.id, error: error.to_owned() });
            self.terminate();
        }
    }

    pub fn handle_timeout(&mut self, sink: &mut Sink, now: Instant) {
        if self.end_at.is_some_and(|at| at <= now) {
            if matches!(self.state, State::Calling { .. } | State::Proceeding { .. }) {
                sink.stats.timed_out += 1;
                sink.send(Output::TimedOut { client: self.id });
            }
            self.terminate();
        } else if self.resend_at.is_some_and(|at| at <= now)
            && let State::Calling { request, interval } = &mut self.state
        {
            *interval *= 2; // seven sends in 64·T1: no T2 here (§17.1.1.2)
            self.resend_at = Some(now + *interval);
            sink.stats.requests_resent += 1;
            sink.send(Output::Transmit { flow: self.flow, bytes: request.clone(), client: Some(self.id) });
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

/// Reads our INVITE again: kept as bytes it is smaller, and failures and CANCELs are few.
fn read(request: &Bytes) -> Message {
    Message::parse(request.clone()).expect("our own INVITE was read before it was sent")
}

#[cfg(test)]
mod tests {
    use super::super::super::transport::{Flow, Transport};
    use super::super::tests::{Bench, at, message, request_with, response};

    #[test]
    fn calling_sends_seven_times_until_timer_b() {
        let mut bench = Bench::udp();
        bench.client("INVITE");
        let mut expected = at(&[500, 1_500, 3_500, 7_500, 15_500, 31_500], "send INVITE");
        expected.extend(at(&[32_000], "timed out"));
        assert_eq!(bench.until(100_000), expected);
        bench.assert_empty();
    }

    #[test]
    fn calling_over_tcp_sends_once_until_timer_b() {
        let mut bench = Bench::tcp();
        bench.client("INVITE");
        assert_eq!(bench.until(100_000), at(&[32_000], "timed out"));
        bench.assert_empty();
    }

    #[test]
    fn calling_to_proceeding_on_1xx_which_never_repeats_nor_ends() {
        let mut bench = Bench::udp();
        bench.client("INVITE");
        assert_eq!(bench.gets(response(100, "INVITE")), ["response 100"]);
        assert_eq!(bench.gets(response(180, "INVITE")), ["response 180"]);
        assert_eq!(bench.gets(response(180, "INVITE")), ["response 180"]);
        assert_eq!(bench.until(3_600_000), []);
        assert_eq!(bench.tsx.len(), (1, 0));
    }

    #[test]
    fn calling_to_accepted_on_2xx_until_timer_m() {
        for mut bench in [Bench::udp(), Bench::tcp()] {
            bench.client("INVITE");
            assert_eq!(bench.gets(response(200, "INVITE")), ["response 200"]);
            assert_eq!(bench.until(31_999), []);
            assert_eq!(bench.gets(response(200, "INVITE")), ["response 200"]);
            assert_eq!(bench.until(32_000), []);
            bench.assert_empty();
            assert_eq!(bench.gets(response(200, "INVITE")), ["stray 200"]);
        }
    }

    #[test]
    fn proceeding_to_accepted_on_2xx() {
        let mut bench = Bench::udp();
        bench.client("INVITE");
        bench.gets(response(180, "INVITE"));
        assert_eq!(bench.until(60_000), []);
        assert_eq!(bench.gets(response(200, "INVITE")), ["response 200"]);
        assert_eq!(bench.until(91_999), []);
        assert_eq!(bench.tsx.len(), (1, 0));
        assert_eq!(bench.until(92_000), []);
        bench.assert_empty();
    }

    #[test]
    fn accepted_tells_each_2xx_and_drops_the_rest() {
        let mut bench = Bench::udp();
        bench.client("INVITE");
        assert_eq!(bench.gets(response(200, "INVITE")), ["response 200"]);
        assert_eq!(bench.gets(response(202, "INVITE")), ["response 202"]);
        for code in [100, 180, 302, 486, 500, 603] {
            assert_eq!(bench.gets(response(code, "INVITE")), [""; 0], "{code}");
        }
        assert_eq!(bench.tsx.stats().dropped_responses, 6);
    }

    #[test]
    fn calling_and_proceeding_to_completed_on_each_failure_with_an_ack() {
        for early in [None, Some(180)] {
            for code in [300, 302, 401, 486, 503, 603] {
                let mut bench = Bench::udp();
                bench.client("INVITE");
                if let Some(early) = early {
                    bench.gets(response(early, "INVITE"));
                }
                assert_eq!(bench.gets(response(code, "INVITE")), ["send ACK".to_owned(), format!("response {code}")]);
                assert_eq!(bench.until(60_000), []);
                bench.assert_empty();
            }
        }
    }

    #[test]
    fn completed_acknowledges_each_repetition_until_timer_d() {
        let mut bench = Bench::udp();
        bench.client("INVITE");
        bench.gets(response(486, "INVITE"));
        let first = bench.sent.clone();
        assert_eq!(bench.until(31_999), []);
        assert_eq!(bench.gets(response(486, "INVITE")), ["send ACK"]);
        assert_eq!(bench.sent, first);
        assert_eq!(bench.until(32_000), []);
        bench.assert_empty();
        assert_eq!(bench.gets(response(486, "INVITE")), [""; 0]);
    }

    #[test]
    fn completed_drops_what_is_no_failure() {
        let mut bench = Bench::udp();
        bench.client("INVITE");
        bench.gets(response(486, "INVITE"));
        for code in [100, 180, 200] {
            assert_eq!(bench.gets(response(code, "INVITE")), [""; 0], "{code}");
        }
        assert_eq!(bench.tsx.stats().dropped_responses, 3);
    }

    #[test]
    fn over_tcp_a_failure_is_acknowledged_and_ends_it_at_once() {
        let mut bench = Bench::tcp();
        bench.client("INVITE");
        assert_eq!(bench.gets(response(486, "INVITE")), ["send ACK", "response 486"]);
        bench.assert_empty();
    }

    #[test]
    fn calling_and_proceeding_end_on_a_transport_error() {
        for code in [None, Some(180)] {
            let mut bench = Bench::udp();
            let id = bench.client("INVITE");
            if let Some(code) = code {
                bench.gets(response(code, "INVITE"));
            }
            bench.tsx.handle_transport_error(id, "no route", bench.now);
            assert_eq!(bench.out(), ["failed: no route"]);
            bench.assert_empty();
        }
    }

    #[test]
    fn a_large_invite_goes_over_udp_when_there_is_no_tcp() {
        let mut bench = Bench::tcp();
        let udp = Flow { transport: Transport::Udp, ..bench.flow };
        let over_udp = request_with("INVITE", "z9hG4bK1", ROUTES);
        let text = String::from_utf8(over_udp.as_bytes().to_vec()).expect("text");
        let over_tcp = message(&text.replace("UDP 192.0.2.1:5060", "TCP 192.0.2.1:5070").replace('\r', ""));
        let tcp = bench.flow;
        let id = bench.tsx.send_request_or(over_tcp, tcp, Some((over_udp, udp)), bench.now);
        assert_eq!(bench.out(), ["send INVITE"]);
        bench.tsx.cancel(id, &[], bench.now);
        assert_eq!(bench.until(5_000), [], "nothing is repeated over TCP");
        bench.flow = udp;
        assert_eq!(bench.tsx.handle_transport_error(id, "refused", bench.now), Some(tcp));
        assert_eq!(bench.out(), ["send INVITE"]);
        assert!(bench.sent.windows(20).any(|part| part == b"UDP 192.0.2.1:5060;b"));
        assert_eq!(bench.until(5_600), at(&[5_500], "send INVITE"), "over UDP it is");
        assert_eq!(bench.gets(response(100, "INVITE")), ["response 100", "send CANCEL"]);
        assert_eq!(bench.gets(response(487, "INVITE")), ["send ACK", "response 487"]);
        bench.until(100_000);
        bench.assert_empty();
    }

    #[test]
    fn a_large_invite_that_was_answered_over_tcp_stays_there() {
        let mut bench = Bench::tcp();
        let udp = Flow { transport: Transport::Udp, ..bench.flow };
        let other = (request_with("INVITE", "z9hG4bK1", ROUTES), udp);
        let id = bench.tsx.send_request_or(request_with("INVITE", "z9hG4bK1", ""), bench.flow, Some(other), bench.now);
        bench.out();
        assert_eq!(bench.gets(response(100, "INVITE")), ["response 100"]);
        assert_eq!(bench.tsx.handle_transport_error(id, "reset", bench.now), None);
        assert_eq!(bench.out(), ["failed: reset"]);
        bench.assert_empty();
    }

    #[test]
    fn completed_and_accepted_do_not_care_about_a_transport_error() {
        for code in [200, 486] {
            let mut bench = Bench::udp();
            let id = bench.client("INVITE");
            bench.gets(response(code, "INVITE"));
            bench.tsx.handle_transport_error(id, "no route", bench.now);
            assert_eq!(bench.out(), [""; 0]);
            assert_eq!(bench.tsx.len(), (1, 0));
        }
    }

    const ROUTES: &str = "Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>\nRoute: <sip:p3.example.com;lr>\n\
                          Contact: <sip:alice@192.0.2.1>\nSubject: call\n";

    #[test]
    fn the_ack_to_a_failure_has_the_invites_place_and_the_responses_to() {
        let mut bench = Bench::udp();
        bench.tsx.send_request(request_with("INVITE", "z9hG4bK1", ROUTES), bench.flow, bench.now);
        bench.gets(response(486, "INVITE"));
        let expected = message(
            "ACK sip:bob@example.com SIP/2.0\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\n\
             Max-Forwards: 70\n\
             Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>\n\
             Route: <sip:p3.example.com;lr>\n\
             From: <sip:alice@example.com>;tag=a1\n\
             To: <sip:bob@example.com>;tag=b1\n\
             Call-ID: c1@192.0.2.1\n\
             CSeq: 7 ACK\n\
             Content-Length: 0\n\n",
        );
        assert_eq!(String::from_utf8_lossy(&bench.sent), String::from_utf8_lossy(expected.as_bytes()));
    }

    #[test]
    fn a_cancel_has_the_invites_place_and_to_and_the_extra_headers() {
        let mut bench = Bench::udp();
        let id = bench.tsx.send_request(request_with("INVITE", "z9hG4bK1", ROUTES), bench.flow, bench.now);
        bench.gets(response(180, "INVITE"));
        bench.tsx.cancel(id, &[("Reason".to_owned(), "SIP;cause=200".to_owned())], bench.now);
        assert_eq!(bench.out(), ["send CANCEL"]);
        let expected = message(
            "CANCEL sip:bob@example.com SIP/2.0\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\n\
             Max-Forwards: 70\n\
             Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>\n\
             Route: <sip:p3.example.com;lr>\n\
             From: <sip:alice@example.com>;tag=a1\n\
             To: <sip:bob@example.com>\n\
             Call-ID: c1@192.0.2.1\n\
             CSeq: 7 CANCEL\n\
             Reason: SIP;cause=200\n\
             Content-Length: 0\n\n",
        );
        assert_eq!(String::from_utf8_lossy(&bench.sent), String::from_utf8_lossy(expected.as_bytes()));
    }

    #[test]
    fn a_cancel_waits_for_a_provisional_response() {
        let mut bench = Bench::udp();
        let id = bench.client("INVITE");
        bench.tsx.cancel(id, &[], bench.now);
        assert_eq!(bench.out(), [""; 0]);
        assert_eq!(bench.until(600), at(&[500], "send INVITE"), "the INVITE is repeated until then");
        assert_eq!(bench.gets(response(100, "INVITE")), ["response 100", "send CANCEL"]);
        bench.tsx.cancel(id, &[], bench.now);
        assert_eq!(bench.out(), [""; 0], "once is enough");
        assert_eq!(bench.gets(response(180, "INVITE")), ["response 180"]);
        assert_eq!(bench.gets(response(200, "CANCEL")), [""; 0], "its answer is not told");
        assert_eq!(bench.gets(response(487, "INVITE")), ["send ACK", "response 487"]);
        assert_eq!(bench.until(100_000), []);
        bench.assert_empty();
    }

    #[test]
    fn a_cancel_is_repeated_like_any_request() {
        let mut bench = Bench::udp();
        let id = bench.client("INVITE");
        bench.gets(response(100, "INVITE"));
        bench.tsx.cancel(id, &[], bench.now);
        bench.out();
        assert_eq!(bench.until(4_000), at(&[500, 1_500, 3_500], "send CANCEL"));
    }

    #[test]
    fn a_cancelled_invite_without_a_final_response_times_out_64_t1_later() {
        for cancel_answer in [None, Some(200), Some(481)] {
            let mut bench = Bench::udp();
            let id = bench.client("INVITE");
            bench.gets(response(180, "INVITE"));
            assert_eq!(bench.until(50_000), []);
            bench.tsx.cancel(id, &[], bench.now);
            assert_eq!(bench.out(), ["send CANCEL"]);
            if let Some(code) = cancel_answer {
                bench.gets(response(code, "CANCEL"));
            }
            let mut seen = bench.until(200_000);
            seen.retain(|(_, what)| what != "send CANCEL");
            assert_eq!(seen, at(&[82_000], "timed out"), "CANCEL answered with {cancel_answer:?}");
            bench.assert_empty();
        }
    }

    #[test]
    fn a_cancel_never_allowed_ends_with_timer_b() {
        let mut bench = Bench::udp();
        let id = bench.client("INVITE");
        bench.tsx.cancel(id, &[], bench.now);
        let seen = bench.until(100_000);
        assert!(seen.iter().all(|(_, what)| what != "send CANCEL"), "{seen:?}");
        assert_eq!(seen.last(), at(&[32_000], "timed out").last());
        bench.assert_empty();
    }

    #[test]
    fn a_cancel_crossing_a_200_lets_the_200_win() {
        let mut bench = Bench::udp();
        let id = bench.client("INVITE");
        bench.gets(response(180, "INVITE"));
        bench.tsx.cancel(id, &[], bench.now);
        assert_eq!(bench.out(), ["send CANCEL"]);
        assert_eq!(bench.gets(response(200, "INVITE")), ["response 200"]);
        assert_eq!(bench.gets(response(200, "CANCEL")), [""; 0]);
        assert_eq!(bench.until(100_000), []);
        bench.assert_empty();
    }

    #[test]
    fn a_cancel_after_the_final_response_does_nothing() {
        for code in [200, 486] {
            let mut bench = Bench::udp();
            let id = bench.client("INVITE");
            bench.gets(response(code, "INVITE"));
            bench.tsx.cancel(id, &[], bench.now);
            assert_eq!(bench.out(), [""; 0], "{code}");
        }
    }

    #[test]
    fn a_failed_transport_of_the_cancel_is_the_invites_time_out() {
        let mut bench = Bench::udp();
        let id = bench.client("INVITE");
        bench.gets(response(180, "INVITE"));
        bench.tsx.cancel(id, &[], bench.now);
        bench.out();
        bench.tsx.handle_transport_error(super::ClientId(id.0 + 1), "no route", bench.now);
        assert_eq!(bench.out(), [""; 0]);
        assert_eq!(bench.until(100_000), at(&[32_000], "timed out"));
        bench.assert_empty();
    }
}
