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

use super::super::build::Builder;
use super::super::message::{HeaderName, Message, Method};
use super::super::transport::Flow;
use super::key::method_text;
use super::timers::{T1, TIMER_D, TRANSACTION_TIMEOUT};
use super::{ClientId, Output, Sink};

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
                    let ack = ack(request, &response);
                    sink.send(Output::Transmit { flow: self.flow, bytes: ack.clone(), client: None });
                    if self.flow.transport.is_reliable() {
                        self.terminate();
                    } else {
                        self.state = State::Completed { ack };
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
        let cancel = cancel(request, extra_headers);
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

/// The ACK to a failure: the INVITE's Request-URI, top Via, From, Call-ID, CSeq number and Route, and the response's To
/// (§17.1.1.3).
fn ack(request: &Bytes, response: &Message) -> Bytes {
    let to = response.header(HeaderName::To);
    hop(request, &Method::Ack, to).finish(None)
}

/// CANCEL: like the ACK, with the To of the INVITE (§9.1).
fn cancel(request: &Bytes, extra_headers: &[(String, String)]) -> Bytes {
    let start = hop(request, &Method::Cancel, None);
    extra_headers.iter().fold(start, |builder, (name, value)| builder.header(name, value)).finish(None)
}

/// A request to the next hop of the INVITE alone, in the INVITE's place: only CANCEL and the ACK to a failure are that.
fn hop(request: &Bytes, method: &Method, to: Option<&[u8]>) -> Builder {
    // Kept as bytes for 32 s and read again: smaller, and failures and CANCELs are few.
    let invite = Message::parse(request.clone()).expect("our own INVITE was read before it was sent");
    let number = invite.cseq().expect("our own INVITE has a CSeq").number;
    let header = |name| invite.header(name).unwrap_or_default();
    let mut builder = Builder::request(method, String::from_utf8_lossy(invite.request_uri_raw()));
    if let Some(via) = invite.header_values(HeaderName::Via).next() {
        builder = builder.header_bytes("Via", via);
    }
    builder = builder
        .header("Max-Forwards", 70)
        .header_bytes("From", header(HeaderName::From))
        .header_bytes("To", to.unwrap_or(header(HeaderName::To)))
        .header_bytes("Call-ID", header(HeaderName::CallId))
        .header("CSeq", format_args!("{number} {}", method_text(method)));
    for route in invite.header_lines(HeaderName::Route) {
        builder = builder.header_bytes("Route", route);
    }
    builder
}
