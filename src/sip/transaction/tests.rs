//! What the tests of the four machines share, and the tests of the table itself.

use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::transport::Transport;
use super::*;

/// The peer of all these tests.
pub(super) const PEER: &str = "192.0.2.2:5060";

#[expect(
    clippy::disallowed_methods,
    reason = "where time begins does not matter, and there is no other way to begin it"
)]
pub(super) fn start() -> Instant {
    Instant::now()
}

pub(super) fn message(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n"))).expect("a test writes readable messages")
}

/// A request with this branch; `more` are header lines.
pub(super) fn request_with(method: &str, branch: &str, more: &str) -> Message {
    message(&format!(
        "{method} sip:bob@example.com SIP/2.0\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;branch={branch};rport\n\
         Max-Forwards: 70\n\
         From: <sip:alice@example.com>;tag=a1\n\
         To: <sip:bob@example.com>\n\
         Call-ID: c1@192.0.2.1\n\
         CSeq: 7 {method}\n\
         {more}Content-Length: 0\n\n"
    ))
}

pub(super) fn request(method: &str) -> Message {
    request_with(method, "z9hG4bK1", "")
}

pub(super) fn response(code: u16, method: &str) -> Message {
    response_with(code, method, "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport")
}

pub(super) fn response_with(code: u16, method: &str, via: &str) -> Message {
    message(&format!(
        "SIP/2.0 {code} Text\n\
         Via: {via}\n\
         From: <sip:alice@example.com>;tag=a1\n\
         To: <sip:bob@example.com>;tag=b1\n\
         Call-ID: c1@192.0.2.1\n\
         CSeq: 7 {method}\n\
         Content-Length: 0\n\n"
    ))
}

/// A table, its time, and what came out of it, in words.
pub(super) struct Bench {
    pub tsx: Transactions,
    pub flow: Flow,
    pub start: Instant,
    pub now: Instant,
    /// The bytes of the last Transmit.
    pub sent: Bytes,
    pub server: Option<ServerId>,
}

impl Bench {
    pub fn new(transport: Transport) -> Self {
        let flow = Flow::to(transport, PEER.parse().expect("an address"));
        let start = start();
        Self { tsx: Transactions::new(), flow, start, now: start, sent: Bytes::new(), server: None }
    }

    pub fn udp() -> Self {
        Self::new(Transport::Udp)
    }

    pub fn tcp() -> Self {
        Self::new(Transport::Tcp)
    }

    /// Sends a request and forgets that it left.
    pub fn client(&mut self, method: &str) -> ClientId {
        let id = self.tsx.send_request(request(method), self.flow, self.now);
        assert_eq!(self.out(), [format!("send {method}")]);
        id
    }

    /// Takes a new request and returns the transaction the TU is told of.
    pub fn serve(&mut self, method: &str) -> ServerId {
        assert_eq!(self.gets(request(method)), [format!("request {method}")]);
        self.server.expect("the request's transaction")
    }

    pub fn gets(&mut self, message: Message) -> Vec<String> {
        self.tsx.handle_message(message, self.flow, self.now);
        self.out()
    }

    pub fn responds(&mut self, server: ServerId, code: u16) -> Vec<String> {
        let bytes = response(code, "X").as_bytes().clone();
        self.tsx.respond(server, code, bytes, self.now);
        self.out()
    }

    /// Lets time pass to `ms` after the start, each timer at its moment; what came out with its time in milliseconds.
    pub fn until(&mut self, ms: u64) -> Vec<(u128, String)> {
        let end = self.start + Duration::from_millis(ms);
        let mut seen = Vec::new();
        while let Some(at) = self.tsx.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.tsx.handle_timeout(at);
            assert_ne!(self.tsx.poll_timeout(), Some(at), "a timer that was handled does not wait any more");
            let ms = (at - self.start).as_millis();
            seen.extend(self.out().into_iter().map(|what| (ms, what)));
        }
        self.now = end;
        seen
    }

    pub fn out(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        while let Some(output) = self.tsx.poll_output() {
            words.push(match output {
                Output::Transmit { bytes, flow, .. } => {
                    assert_eq!(flow, self.flow);
                    let first_line = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or(b""));
                    let mut parts = first_line.split(' ');
                    let word = match parts.next() {
                        Some("SIP/2.0") => parts.next().unwrap_or("?").to_owned(),
                        first => first.unwrap_or("?").to_owned(),
                    };
                    self.sent = bytes.clone();
                    format!("send {word}")
                }
                Output::Request { server, request, .. } => {
                    self.server = Some(server);
                    format!("request {}", request.method().as_str())
                }
                Output::Ack { .. } => "ack".to_owned(),
                Output::Cancel { server, invite, .. } => {
                    self.server = Some(server);
                    if invite.is_some() { "cancel an INVITE" } else { "cancel nothing" }.to_owned()
                }
                Output::Response { response, .. } => format!("response {}", response.status().unwrap_or(0)),
                Output::TimedOut { .. } => "timed out".to_owned(),
                Output::TransportFailed { error, .. } => format!("failed: {error}"),
                Output::NoAck { .. } => "no ack".to_owned(),
                Output::StrayResponse { response, .. } => format!("stray {}", response.status().unwrap_or(0)),
            });
        }
        words
    }

    /// Nothing is left: no transaction, key or timer.
    pub fn assert_empty(&self) {
        assert!(self.tsx.is_empty(), "left over: {:?}", self.tsx);
        assert_eq!(
            (self.tsx.client_keys.len(), self.tsx.server_keys.len(), self.tsx.timers.len(), self.tsx.poll_timeout()),
            (0, 0, 0, None)
        );
    }
}

/// `times` in milliseconds, each with the same words.
pub(super) fn at(times: &[u128], what: &str) -> Vec<(u128, String)> {
    times.iter().map(|ms| (*ms, what.to_owned())).collect()
}

// --- matching --------------------------------------------------------------------------------------------------------

#[test]
fn a_response_belongs_to_the_client_with_its_branch_sent_by_and_cseq_method() {
    let table = [
        ("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport=9;received=192.0.2.9", "OPTIONS", true),
        ("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", "OPTIONS", true), // 5060 is what no port means
        ("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK2", "OPTIONS", false),
        ("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK", "OPTIONS", false),
        ("SIP/2.0/UDP 192.0.2.1:5060", "OPTIONS", false),
        ("SIP/2.0/UDP 192.0.2.3:5060;branch=z9hG4bK1", "OPTIONS", false),
        ("SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bK1", "OPTIONS", false),
        ("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1", "INFO", false),
        ("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1, SIP/2.0/UDP p;branch=z9hG4bK9", "OPTIONS", false),
    ];
    for (via, method, ours) in table {
        let mut bench = Bench::udp();
        bench.client("OPTIONS");
        let expected = if ours { vec!["response 200".to_owned()] } else { vec![] };
        assert_eq!(bench.gets(response_with(200, method, via)), expected, "{via} {method}");
        assert_eq!(bench.tsx.stats().dropped_responses, u64::from(!ours), "{via} {method}");
    }
}

#[test]
fn a_2xx_to_no_invite_of_ours_is_told_as_a_stray_and_other_strays_are_counted() {
    let mut bench = Bench::udp();
    assert_eq!(bench.gets(response(200, "INVITE")), ["stray 200"]);
    for (code, method) in [(180, "INVITE"), (486, "INVITE"), (200, "BYE"), (200, "OPTIONS")] {
        assert_eq!(bench.gets(response(code, method)), [""; 0], "{code} {method}");
    }
    assert_eq!(bench.tsx.stats().dropped_responses, 4);
    bench.assert_empty();
}

#[test]
fn a_request_with_a_cookie_belongs_to_the_server_with_its_branch_sent_by_and_method() {
    let table = [
        ("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1", true),
        ("SIP/2.0/UDP 192.0.2.1;BRANCH=z9hG4bK1;rport", true),
        ("SIP/2.0/UDP 192.0.2.1:5061;branch=z9hG4bK1", false),
        ("SIP/2.0/UDP 192.0.2.3:5060;branch=z9hG4bK1", false),
        ("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1x", false),
        ("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hg4bk1", false), // not the cookie, so an RFC 2543 request
    ];
    for (via, same) in table {
        let mut bench = Bench::udp();
        bench.serve("OPTIONS");
        let text = String::from_utf8_lossy(request("OPTIONS").as_bytes()).replace("\r\n", "\n");
        let again = message(&text.replace("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport", via));
        bench.flow = reply_flow(&again, bench.flow);
        let expected = if same { vec![] } else { vec!["request OPTIONS".to_owned()] };
        assert_eq!(bench.gets(again), expected, "{via}");
    }
}

#[test]
fn one_branch_serves_an_invite_its_cancel_and_its_ack() {
    let mut bench = Bench::udp();
    let invite = bench.serve("INVITE");
    assert_eq!(bench.gets(request("CANCEL")), ["cancel an INVITE"]);
    let cancel = bench.server.expect("the CANCEL's transaction");
    assert_ne!(invite, cancel);
    assert_eq!(bench.responds(cancel, 200), ["send 200"]);
    assert_eq!(bench.gets(request("CANCEL")), ["send 200"], "a repeated CANCEL is not told again");
    assert_eq!(bench.responds(invite, 487), ["send 487"]);
    assert_eq!(bench.gets(request("ACK")), [""; 0]);
    assert_eq!(bench.until(60_000), []);
    bench.assert_empty();
}

#[test]
fn a_cancel_of_nothing_says_so() {
    let mut bench = Bench::udp();
    assert_eq!(bench.gets(request("CANCEL")), ["cancel nothing"]);
}

#[test]
fn an_ack_of_nothing_is_for_the_tu() {
    let mut bench = Bench::udp();
    assert_eq!(bench.gets(request("ACK")), ["ack"]);
    bench.assert_empty();
}

/// A request from before RFC 3261 with this To parameter and CSeq number.
fn legacy(method: &str, to: &str, number: u32) -> Message {
    message(&format!(
        "{method} sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=1\n\
         From: <sip:alice@example.com>;tag=a1\nTo: <sip:bob@example.com>{to}\nCall-ID: c1@192.0.2.1\n\
         CSeq: {number} {method}\nContent-Length: 0\n\n"
    ))
}

#[test]
fn a_legacy_request_is_matched_by_uri_tags_call_id_cseq_and_via() {
    let mut bench = Bench::udp();
    assert_eq!(bench.gets(legacy("INVITE", "", 1)), ["request INVITE"]);
    let invite = bench.server.expect("the INVITE's transaction");
    assert_eq!(bench.gets(legacy("INVITE", "", 1)), ["send 100"], "the same again");
    assert_eq!(bench.gets(legacy("INVITE", "", 2)), ["request INVITE"], "another CSeq");
    assert_eq!(bench.gets(legacy("INVITE", ";tag=b9", 1)), ["request INVITE"], "another To tag");
    assert_eq!(bench.gets(legacy("CANCEL", "", 1)), ["cancel an INVITE"]);
    assert_eq!(bench.gets(legacy("CANCEL", "", 3)), ["cancel nothing"]);
    assert_eq!(bench.responds(invite, 486), ["send 486"]);
    assert_eq!(bench.gets(legacy("ACK", ";tag=other", 1)), ["ack"], "the tag of nobody's response");
    assert_eq!(bench.gets(legacy("INVITE", "", 1)), ["send 486"]);
    assert_eq!(bench.gets(legacy("ACK", ";tag=b1", 1)), [""; 0], "the tag of our response");
    assert_eq!(bench.gets(legacy("INVITE", "", 1)), [""; 0], "confirmed");
}

#[test]
fn a_legacy_ack_to_a_2xx_is_for_the_tu() {
    let mut bench = Bench::udp();
    assert_eq!(bench.gets(legacy("INVITE", "", 1)), ["request INVITE"]);
    let invite = bench.server.expect("the INVITE's transaction");
    assert_eq!(bench.responds(invite, 200), ["send 200"]);
    assert_eq!(bench.gets(legacy("ACK", ";tag=b1", 1)), ["ack"]);
}

#[test]
fn a_branch_of_60_kb_takes_no_more_room_than_a_short_one() {
    let mut bench = Bench::udp();
    for letter in ["a", "b", "a"] {
        bench.gets(request_with("OPTIONS", &format!("z9hG4bK{}", letter.repeat(60_000)), ""));
    }
    assert_eq!(bench.tsx.len(), (0, 2));
    assert_eq!(size_of::<Key>(), 16);
}

#[test]
fn a_response_goes_to_the_source_and_to_the_port_of_rport_or_via() {
    let from = Flow::to(Transport::Udp, "192.0.2.7:40000".parse().expect("an address"));
    let table = [
        ("SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1;rport", "192.0.2.7:40000"),
        ("SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1", "192.0.2.7:5070"),
        ("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1", "192.0.2.7:5060"),
        ("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1;maddr=224.2.0.1;received=203.0.113.9", "192.0.2.7:5060"),
    ];
    for (via, expected) in table {
        let text = String::from_utf8_lossy(request("OPTIONS").as_bytes()).replace("\r\n", "\n");
        let request = message(&text.replace("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport", via));
        assert_eq!(reply_flow(&request, from).remote.to_string(), expected, "{via}");
        let tcp = Flow { transport: Transport::Tcp, ..from };
        assert_eq!(reply_flow(&request, tcp), tcp, "{via}");
    }
}

// --- limits ----------------------------------------------------------------------------------------------------------

#[test]
fn beyond_the_limit_requests_are_dropped_and_counted_and_ours_still_find_room() {
    let mut bench = Bench::udp();
    let text = String::from_utf8_lossy(request("OPTIONS").as_bytes()).into_owned();
    for n in 0..=MAX_TRANSACTIONS - RESERVED_FOR_CLIENTS {
        let again = text.replace("z9hG4bK1", &format!("z9hG4bKn{n}"));
        let request = Message::parse(Bytes::from(again)).expect("a readable request");
        bench.tsx.handle_message(request, bench.flow, bench.now);
        bench.tsx.sink.outputs.clear();
    }
    assert_eq!(bench.tsx.len(), (0, MAX_TRANSACTIONS - RESERVED_FOR_CLIENTS));
    assert_eq!(bench.tsx.stats().refused_by_limit, 1);
    bench.client("BYE");
    assert_eq!(bench.until(33_000).last(), Some(&(32_000, "timed out".to_owned())));
    assert_eq!(bench.tsx.stats().unanswered, (MAX_TRANSACTIONS - RESERVED_FOR_CLIENTS) as u64);
    bench.assert_empty();
}

#[test]
fn a_full_table_refuses_our_own_requests_too() {
    let mut bench = Bench::udp();
    for n in 0..MAX_TRANSACTIONS {
        let request = request_with("OPTIONS", &format!("z9hG4bKn{n}"), "");
        bench.tsx.send_request(request, bench.flow, bench.now);
        bench.tsx.sink.outputs.clear();
    }
    bench.tsx.send_request(request("BYE"), bench.flow, bench.now);
    assert_eq!(bench.out(), ["failed: more than 262144 transactions"]);
    assert_eq!(bench.tsx.len(), (MAX_TRANSACTIONS, 0));
}

/// For 32 s a call as UAS leaves an INVITE in Accepted and a BYE in Completed, as UAC an INVITE in Accepted.
#[test]
fn a_finished_call_keeps_less_than_1_kb() {
    let in_maps = |entry| (entry + size_of::<(Key, u64)>() + 2) * 8 / 7 * 4 / 3; // 7/8 full at most, half of that at least
    let timer = size_of::<(Instant, Owner)>() * 3 / 2;
    let server = in_maps(size_of::<(ServerId, ServerEntry)>()) + timer;
    let client = in_maps(size_of::<(ClientId, ClientEntry)>()) + timer;
    let answer_to_bye = 350;
    assert!(2 * server + answer_to_bye < 1024, "{server} bytes a server transaction");
    assert!(client < 512, "{client} bytes a client transaction");
}

#[test]
fn what_is_kept_has_a_buffer_of_its_own_size() {
    let mut roomy = Vec::with_capacity(4096);
    roomy.extend_from_slice(b"SIP/2.0 200 OK");
    let kept = kept(&Bytes::from(roomy));
    assert_eq!(Vec::from(kept).capacity(), 14);
}

#[test]
fn a_late_timeout_sends_each_message_once() {
    let mut bench = Bench::udp();
    bench.client("OPTIONS");
    bench.now += Duration::from_secs(20);
    bench.tsx.handle_timeout(bench.now);
    assert_eq!(bench.out(), ["send OPTIONS"]);
    bench.tsx.handle_timeout(bench.now);
    assert_eq!(bench.out(), [""; 0], "and a repeated one nothing");
}

// --- two tables over a network that loses ----------------------------------------------------------------------------

/// Two tables and a network between them that loses and delays, so also reorders.
struct SimNet {
    ends: [Transactions; 2],
    random: StdRng,
    loss: u32,
    delay: Duration,
    start: Instant,
    /// (due, order, to which end, bytes), as a heap whose top is the earliest.
    flying: BinaryHeap<std::cmp::Reverse<(Instant, u64, usize, Bytes)>>,
    sent: u64,
}

impl SimNet {
    fn new(seed: u64, loss: u32, delay: Duration) -> Self {
        Self {
            ends: Default::default(),
            random: StdRng::seed_from_u64(seed),
            loss,
            delay,
            start: start(),
            flying: BinaryHeap::new(),
            sent: 0,
        }
    }

    fn flow() -> Flow {
        Flow::to(Transport::Udp, PEER.parse().expect("an address"))
    }

    /// Drains both ends; end 1 answers each request with `answers`. What end 0 was told, in words.
    fn drain(&mut self, now: Instant, answers: &[u16], told: &mut Vec<String>) {
        for end in 0..2 {
            while let Some(output) = self.ends[end].poll_output() {
                match output {
                    Output::Transmit { bytes, .. } if self.random.random_range(0..100) >= self.loss => {
                        let delay = self.random.random_range(Duration::ZERO..=self.delay);
                        self.sent += 1;
                        self.flying.push(std::cmp::Reverse((now + delay, self.sent, 1 - end, bytes)));
                    }
                    Output::Transmit { .. } => {}
                    Output::Request { server, request, flow } => {
                        told.push(request.method().as_str().to_owned());
                        for code in answers {
                            let response = super::super::build::Builder::response(
                                &request,
                                *code,
                                "Text",
                                Some("b1"),
                                flow.remote,
                            );
                            self.ends[end].respond(server, *code, response.finish(None), now);
                        }
                    }
                    Output::Response { response, .. } => told.push(response.status().unwrap_or(0).to_string()),
                    other => told.push(format!("{other:?}")),
                }
            }
        }
    }

    fn run(&mut self, request: Message, answers: &[u16]) -> Vec<String> {
        let mut told = Vec::new();
        self.ends[0].send_request(request, Self::flow(), self.start);
        self.drain(self.start, answers, &mut told);
        loop {
            let arrival = self.flying.peek().map(|entry| entry.0.0);
            let timer = self.ends.iter().filter_map(Transactions::poll_timeout).min();
            let Some(now) = arrival.into_iter().chain(timer).min() else { return told };
            if arrival == Some(now) {
                let Some(std::cmp::Reverse((_, _, end, bytes))) = self.flying.pop() else { return told };
                let message = Message::parse(bytes).expect("our own message");
                self.ends[end].handle_message(message, Self::flow(), now);
            } else {
                self.ends.iter_mut().for_each(|end| end.handle_timeout(now));
            }
            self.drain(now, answers, &mut told);
        }
    }
}

#[test]
fn options_is_answered_through_20_percent_loss() {
    for seed in 1..=1000 {
        let mut net = SimNet::new(seed, 20, Duration::from_millis(80));
        assert_eq!(net.run(request("OPTIONS"), &[200]), ["OPTIONS", "200"], "seed {seed}");
        assert!(net.ends.iter().all(Transactions::is_empty), "seed {seed}");
    }
}

#[test]
fn an_invite_is_refused_once_through_20_percent_loss() {
    for seed in 1..=1000 {
        let mut net = SimNet::new(seed, 20, Duration::from_millis(80));
        let told = net.run(request("INVITE"), &[180, 486]);
        let finals: Vec<_> = told.iter().filter(|what| *what != "180").collect();
        assert_eq!(finals, ["INVITE", "486"], "seed {seed}");
        assert!(net.ends.iter().all(Transactions::is_empty), "seed {seed}");
    }
}

#[test]
fn nothing_gets_through_total_loss_and_nothing_is_left() {
    let mut net = SimNet::new(1, 100, Duration::from_millis(80));
    let told = net.run(request("INVITE"), &[180, 486]);
    assert_eq!(told, ["TimedOut { client: ClientId(1) }"]);
    assert!(net.ends.iter().all(Transactions::is_empty));
}
