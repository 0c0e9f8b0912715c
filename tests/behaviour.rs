//! What the RFCs say where stacks were seen to differ: each row of our behaviour table (the probes other stacks were put
//! to) as a test.
//!
//! | row | test |
//! |---|---|
//! | 100 Trying at once; To tag in 180 | `a_slow_answer_is_preceded_by_100_and_the_180_has_a_tag` |
//! | INVITE retransmitted while ringing | `an_invite_that_comes_again_while_it_rings_gets_its_180_again` |
//! | CANCEL → 200 and 487 | `cancel_gets_200_and_one_487_with_the_tag_of_the_180` |
//! | 200 retransmission until ACK | `a_200_is_repeated_at_t1_doubling_to_t2_for_64_t1` |
//! | BYE before ACK | `bye_before_the_ack_gets_200` |
//! | BYE with a CSeq gap, with a lower CSeq | `bye_with_a_gap_in_cseq_gets_200_and_with_a_lower_number_500` |
//! | unknown method | `an_unknown_method_gets_501_with_allow` |
//! | in-dialog UPDATE, INFO | `requests_inside_a_dialog_are_answered_as_allow_says` |
//! | merged, missing Call-ID, CSeq mismatch, unknown Require | `each_broken_request_gets_the_code_of_its_fault` |
//! | forks: 200 from two To tags | `two_200s_are_acknowledged_and_the_second_is_ended` |
//! | CANCEL from UAC | `our_cancel_has_the_branch_of_the_invite_and_its_487_an_ack` |
//! | non-INVITE retransmits | `our_bye_is_repeated_at_t1_doubling_to_t2` |
//! | INVITE retransmits; stop after 100 | `our_invite_is_repeated_at_t1_doubling_until_a_100` |
//! | 100rel as UAC | `a_reliable_180_gets_its_prack_by_itself`; both roles in `ua::tests::provisional` |
//! | session timer | `ua::tests::refresh` |
//! | glare 491 | `ua::tests::modify::glare_is_491_both_ways_and_whoever_called_waits_longer` |
//! | RFC 6026 Accepted state | `after_a_200_repeated_invites_are_absorbed_and_late_acks_counted` |
//! | TCP split at any octet, coalesced, 70 kB body | `a_stream_cut_at_any_octet_gives_the_same_answers`, `a_body_of_70_kb_passes` |
//! | TCP `Content-Length :`, folded | `a_spaced_and_a_folded_content_length_are_read` |
//! | TCP garbage or one bad message | `one_bad_message_is_answered_and_the_stream_goes_on` |
//! | CRLF keep-alive, ping in two segments | `a_ping_gets_its_pong_in_one_segment_or_two` |
//! | Content-Length 2⁶⁴−1 over UDP | `a_content_length_of_2_to_the_64_over_udp_is_400_and_harms_nobody` |
//! | WebSocket transport | `engine::transports::tests::websocket` |
//! | DNS | `ua::locate::tests` |
//! | testable without sockets and clock | `a_day_of_ringing_takes_no_time` |
//! | panics in API misuse | `misuse_is_an_error_and_never_a_panic` |

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use bytes::Bytes;

use sipwire::event::SessionId;
use sipwire::media::RecordingLayout;
use sipwire::sip::message::{Message, Method};
use sipwire::sip::stream::{Frame, StreamFramer};
use sipwire::sip::transport::{ConnectionId, Flow, Transport};
use sipwire::ua::Output;

use support::peer::{Ask, Reply, ack, header, tag};
use support::{SimNet, uri};

const BOB: usize = 0;
const CAROL: usize = 1;

/// Bob's user agent, and carol, whom the test plays.
fn net(seed: u64) -> SimNet {
    let mut net = SimNet::new(seed);
    net.add("bob", |_| {});
    net.add_raw("carol");
    net
}

/// Bob calls carol; the INVITE she got.
fn bob_calls(net: &mut SimNet) -> (SessionId, Message) {
    let session = net.call(BOB, CAROL, Transport::Udp);
    net.run_ms(50);
    (session, net.came(CAROL).pop().expect("an INVITE"))
}

/// Carol calls bob, who answers: her INVITE and his 200, without an ACK.
fn bob_answers(net: &mut SimNet) -> (Ask, Message, SessionId) {
    let invite = Ask::new("INVITE");
    net.ask(CAROL, BOB, &invite);
    let session = net.incoming(BOB);
    net.accept(BOB, session);
    net.run_ms(50);
    let answer = net.came(CAROL).pop().expect("a 200");
    assert_eq!(answer.status(), Some(200));
    (invite, answer, session)
}

/// The same with the ACK.
fn bob_talks(net: &mut SimNet) -> (Message, SessionId) {
    let (invite, answer, session) = bob_answers(net);
    net.ask(CAROL, BOB, &ack(&invite, &answer));
    assert_eq!(net.words(BOB, session).last().map(String::as_str), Some("DidStart"));
    (answer, session)
}

fn inside(method: &'static str, cseq: u32, answer: &Message) -> Ask {
    Ask::new(method).with(|ask| {
        ask.to_tag = tag(answer);
        ask.cseq = cseq;
        ask.branch = format!("z9hG4bK-{method}-{cseq}");
    })
}

/// When messages that fit came to carol, in milliseconds after `net` began, looked at every 50 ms.
fn times(net: &mut SimNet, seconds: u64, fits: impl Fn(&Message) -> bool) -> Vec<u64> {
    let begin = net.elapsed();
    let mut at = Vec::new();
    while net.elapsed() < begin + Duration::from_secs(seconds) {
        net.run_ms(50);
        let ms = u64::try_from((net.elapsed() - begin).as_millis()).expect("few");
        at.extend(net.came(CAROL).iter().filter(|message| fits(message)).map(|_| ms));
    }
    at
}

/// The waits between them, in units of T1, rounded.
fn gaps(at: &[u64]) -> Vec<u64> {
    at.windows(2).map(|pair| (pair[1] - pair[0] + 100) / 500).collect()
}

// --- calls to us -----------------------------------------------------------------------------------------------------

#[test]
fn a_slow_answer_is_preceded_by_100_and_the_180_has_a_tag() {
    let mut net = SimNet::new(1);
    net.add("bob", |config| config.auto_ring = false);
    net.add_raw("carol");
    net.ask(CAROL, BOB, &Ask::new("INVITE"));
    net.run_ms(250);
    let first = net.came(CAROL);
    assert_eq!(first.iter().map(Message::status).collect::<Vec<_>>(), [Some(100)]);
    assert_eq!(first[0].to().expect("To").tag(), None);
    let session = net.incoming(BOB);
    net.with(BOB, |ua, now| ua.ring(session, now)).expect("it may ring");
    net.run_ms(50);
    let ringing = net.came(CAROL).remove(0);
    assert_eq!(ringing.status(), Some(180));
    assert!(!tag(&ringing).is_empty());
    assert!(ringing.contact().expect("readable").is_some());
}

#[test]
fn an_invite_that_comes_again_while_it_rings_gets_its_180_again() {
    let mut net = net(2);
    net.ask(CAROL, BOB, &Ask::new("INVITE"));
    let first = net.came(CAROL);
    net.ask(CAROL, BOB, &Ask::new("INVITE"));
    assert_eq!(net.came(CAROL), first);
    assert_eq!(net.all_words(BOB), ["NULL>INCOMING", "NewIncoming(audio)"], "one call, told once");
}

#[test]
fn cancel_gets_200_and_one_487_with_the_tag_of_the_180() {
    let mut net = net(3);
    let invite = Ask::new("INVITE");
    net.ask(CAROL, BOB, &invite);
    let ringing = net.came(CAROL).pop().expect("a 180");
    let cancel = Ask::new("CANCEL").with(|ask| {
        ask.branch.clone_from(&invite.branch);
        ask.contact = false;
    });
    net.ask(CAROL, BOB, &cancel);
    let answers = net.came(CAROL);
    let codes: Vec<_> = answers.iter().map(|answer| (answer.status(), answer.method().clone())).collect();
    assert_eq!(codes, [(Some(200), Method::Cancel), (Some(487), Method::Invite)]);
    assert_eq!(tag(&answers[1]), tag(&ringing));
    net.ask(CAROL, BOB, &ack(&invite, &answers[1]));
    net.run_ms(10_000);
    assert_eq!(net.codes(CAROL), [0u16; 0], "no copy of it is left in a queue");
    net.settle();
}

#[test]
fn a_200_is_repeated_at_t1_doubling_to_t2_for_64_t1() {
    let mut net = net(4);
    bob_answers(&mut net);
    let at = times(&mut net, 40, |message| message.status() == Some(200));
    assert_eq!(gaps(&at), [2, 4, 8, 8, 8, 8, 8, 8, 8], "{at:?}");
    let first = at[0];
    assert!((450..=550).contains(&first), "{at:?}");
}

#[test]
fn bye_before_the_ack_gets_200() {
    let mut net = net(5);
    let (_, answer, session) = bob_answers(&mut net);
    net.ask(CAROL, BOB, &inside("BYE", 2, &answer));
    assert_eq!(net.codes(CAROL), [200]);
    assert_eq!(net.words(BOB, session).last().map(String::as_str), Some("DidEnd(remote)"));
    net.settle();
}

#[test]
fn bye_with_a_gap_in_cseq_gets_200_and_with_a_lower_number_500() {
    let mut net = net(6);
    let (answer, session) = bob_talks(&mut net);
    net.ask(CAROL, BOB, &inside("OPTIONS", 10, &answer));
    net.ask(CAROL, BOB, &inside("BYE", 9, &answer));
    assert_eq!(net.codes(CAROL), [200, 500]);
    assert_eq!(net.words(BOB, session).last().map(String::as_str), Some("DidStart"), "the call goes on");
    net.ask(CAROL, BOB, &inside("BYE", 4000, &answer));
    assert_eq!(net.codes(CAROL), [200]);
    net.settle();
}

#[test]
fn an_unknown_method_gets_501_with_allow() {
    let mut net = net(7);
    let (answer, _) = bob_talks(&mut net);
    for ask in [Ask::new("SERVICE"), inside("SERVICE", 2, &answer)] {
        net.ask(CAROL, BOB, &ask);
        let refusal = net.came(CAROL).pop().expect("an answer");
        assert_eq!(refusal.status(), Some(501));
        assert!(header(&refusal, "Allow").contains("INVITE"));
    }
}

#[test]
fn requests_inside_a_dialog_are_answered_as_allow_says() {
    let mut net = net(8);
    let (answer, _) = bob_talks(&mut net);
    let allow = header(&answer, "Allow");
    assert!(allow.contains("UPDATE"));
    for (cseq, method) in (2..).zip(["UPDATE", "INFO", "MESSAGE", "REFER", "NOTIFY", "PRACK", "PUBLISH"]) {
        net.ask(CAROL, BOB, &inside(method, cseq, &answer));
        let codes = net.codes(CAROL);
        let refused_as_unknown = codes.contains(&405) || codes.contains(&501);
        assert_eq!(refused_as_unknown, !allow.contains(method), "{method}: {codes:?}, {allow}");
        assert!(!codes.is_empty(), "{method} is answered");
    }
    net.ask(CAROL, BOB, &inside("UPDATE", 20, &answer));
    assert_eq!(net.codes(CAROL), [200]);
}

#[test]
fn each_broken_request_gets_the_code_of_its_fault() {
    let mut net = net(9);
    net.ask(CAROL, BOB, &Ask::new("INVITE"));
    net.came(CAROL);
    let merged = Ask::new("INVITE").with(|ask| ask.branch = "z9hG4bK-other-path".into());
    net.ask(CAROL, BOB, &merged);
    assert_eq!(net.codes(CAROL), [482]);
    let nameless = Ask::new("OPTIONS").with(|ask| ask.call_id = "");
    net.ask(CAROL, BOB, &nameless);
    assert_eq!(net.codes(CAROL), [400]);
    let mixed = Ask::new("OPTIONS").with(|ask| ask.cseq_method = "INVITE");
    net.ask(CAROL, BOB, &mixed);
    assert_eq!(net.codes(CAROL), [400]);
    let demanding = Ask::new("INVITE").with(|ask| {
        (ask.branch, ask.call_id) = ("z9hG4bK-demanding".into(), "call-2@carol");
        ask.more = "Require: 100rel, x-magic\n".into();
    });
    net.ask(CAROL, BOB, &demanding);
    let refusal = net.came(CAROL).pop().expect("an answer");
    assert_eq!((refusal.status(), header(&refusal, "Unsupported").as_str()), (Some(420), "x-magic"));
}

#[test]
fn after_a_200_repeated_invites_are_absorbed_and_late_acks_counted() {
    let mut net = net(10);
    let (invite, answer, session) = bob_answers(&mut net);
    net.ask(CAROL, BOB, &invite);
    assert_eq!(net.codes(CAROL), [0u16; 0], "the 200 is repeated by its own clock only (RFC 6026)");
    net.ask(CAROL, BOB, &ack(&invite, &answer));
    let words = net.words(BOB, session);
    net.ask(CAROL, BOB, &ack(&invite, &answer));
    net.ask(CAROL, BOB, &invite);
    assert_eq!(net.codes(CAROL), [0u16; 0]);
    assert_eq!(net.words(BOB, session), words);
    net.run_ms(33_000); // timer L is over: the same INVITE would be a new one, but its dialog is there
    net.ask(CAROL, BOB, &invite);
    assert_eq!(net.codes(CAROL), [482]);
}

// --- calls of ours ---------------------------------------------------------------------------------------------------

#[test]
fn two_200s_are_acknowledged_and_the_second_is_ended() {
    let mut net = net(11);
    let (session, invite) = bob_calls(&mut net);
    net.reply(CAROL, &invite, &Reply::ok());
    net.reply(CAROL, &invite, &Reply::ok().with(|reply| reply.tag = Some("fork2")));
    let came = net.came(CAROL);
    let seen: Vec<_> = came.iter().map(|message| (message.method().clone(), tag(message))).collect();
    let (kept, other) = ("carol9".to_owned(), "fork2".to_owned());
    assert_eq!(seen, [(Method::Ack, kept), (Method::Ack, other.clone()), (Method::Bye, other)]);
    assert_eq!(net.words(BOB, session).last().map(String::as_str), Some("DidStart"));
}

#[test]
fn our_cancel_has_the_branch_of_the_invite_and_its_487_an_ack() {
    let mut net = net(12);
    let (session, invite) = bob_calls(&mut net);
    net.reply(CAROL, &invite, &Reply::new(180));
    net.end(BOB, session);
    net.run_ms(50);
    let cancel = net.came(CAROL).pop().expect("a CANCEL");
    assert_eq!(*cancel.method(), Method::Cancel);
    assert_eq!(cancel.top_via().expect("Via").branch(), invite.top_via().expect("Via").branch());
    assert_eq!(cancel.request_uri_raw(), invite.request_uri_raw());
    net.reply(CAROL, &cancel, &Reply::new(200));
    net.reply(CAROL, &invite, &Reply::new(487));
    let ack = net.came(CAROL).pop().expect("an ACK");
    assert_eq!(*ack.method(), Method::Ack);
    assert_eq!(ack.top_via().expect("Via").branch(), invite.top_via().expect("Via").branch());
    assert_eq!(net.words(BOB, session).last().map(String::as_str), Some("DidEnd(local)"));
    net.settle();
}

#[test]
fn our_bye_is_repeated_at_t1_doubling_to_t2() {
    let mut net = net(13);
    let (_, session) = bob_talks(&mut net);
    net.end(BOB, session);
    let at = times(&mut net, 40, |message| *message.method() == Method::Bye);
    assert_eq!(gaps(&at), [1, 2, 4, 8, 8, 8, 8, 8, 8, 8], "{at:?}");
    net.settle();
}

#[test]
fn our_invite_is_repeated_at_t1_doubling_until_a_100() {
    let mut silent = net(14);
    silent.call(BOB, CAROL, Transport::Udp);
    let at = times(&mut silent, 40, |message| *message.method() == Method::Invite);
    assert_eq!(gaps(&at), [1, 2, 4, 8, 16, 32], "{at:?}");
    let mut trying = net(15);
    let (_, invite) = bob_calls(&mut trying);
    trying.reply(CAROL, &invite, &Reply::new(100));
    let at = times(&mut trying, 40, |message| *message.method() == Method::Invite);
    assert_eq!(at, [0u64; 0]);
}

#[test]
fn a_reliable_180_gets_its_prack_by_itself() {
    let mut net = net(16);
    let (session, invite) = bob_calls(&mut net);
    let reliable = |number| Reply::new(180).with(|reply| reply.more = format!("Require: 100rel\nRSeq: {number}\n"));
    net.reply(CAROL, &invite, &reliable(77));
    let prack = net.came(CAROL).pop().expect("a PRACK");
    assert_eq!(*prack.method(), Method::Prack);
    assert_eq!(header(&prack, "RAck"), "77 1 INVITE");
    net.reply(CAROL, &prack, &Reply::new(200));
    net.reply(CAROL, &invite, &reliable(77));
    assert_eq!(net.came(CAROL).len(), 0, "a repetition is absorbed");
    assert_eq!(net.words(BOB, session)[2..], ["GotRingIndication"]);
}

// --- framing ---------------------------------------------------------------------------------------------------------

/// Bob at the end of one TCP connection.
struct Stream {
    net: SimNet,
    framer: StreamFramer,
}

impl Stream {
    fn new() -> Self {
        Self { net: net(20), framer: StreamFramer::default() }
    }

    /// What bob writes back for one segment: status lines, and "pong".
    fn push(&mut self, segment: &[u8]) -> Vec<String> {
        let remote = self.net.nodes[CAROL].address;
        let flow = Flow { connection: Some(ConnectionId(1)), ..Flow::to(Transport::Tcp, remote) };
        let mut written = Vec::new();
        self.framer.push(segment);
        while let Some(frame) = self.framer.next_frame() {
            let now = self.net.now;
            let ua = self.net.ua(BOB);
            match frame {
                Frame::Message(message) => ua.handle_message(message, flow, now),
                Frame::Bad(error) => ua.handle_bad_message(error, flow, now),
                Frame::Ping => written.push("pong".to_owned()),
                Frame::Pong => {}
                Frame::Lost(error) => {
                    written.push("closed".to_owned());
                    ua.handle_bad_message(error, flow, now);
                }
            }
            while let Some(output) = ua.poll_output() {
                if let Output::Transmit { bytes, .. } = output {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let cseq = text.lines().find_map(|line| line.strip_prefix("CSeq: ")).unwrap_or_default();
                    written.push(format!("{} {cseq}", &text[8..11]));
                }
            }
        }
        written
    }
}

/// OPTIONS with this number; `length` is its Content-Length line.
fn options(number: u32, length: &str, body: &str) -> String {
    format!(
        "OPTIONS sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.4;branch=z9hG4bK-o{number}\r\n\
         Max-Forwards: 70\r\n{length}\r\nFrom: <sip:carol@example.com>;tag=c\r\nTo: <sip:bob@example.com>\r\n\
         Call-ID: o{number}\r\nCSeq: {number} OPTIONS\r\n\r\n{body}"
    )
}

#[test]
fn a_stream_cut_at_any_octet_gives_the_same_answers() {
    let text = options(1, "Content-Length: 5", "hello") + &options(2, "l:0", "") + "\r\n\r\n" + &options(3, "l: 0", "");
    let expected = ["200 1 OPTIONS", "200 2 OPTIONS", "pong", "200 3 OPTIONS"];
    assert_eq!(Stream::new().push(text.as_bytes()), expected, "in one piece");
    for cut in 1..text.len() {
        let mut stream = Stream::new();
        let mut written = stream.push(&text.as_bytes()[..cut]);
        written.extend(stream.push(&text.as_bytes()[cut..]));
        assert_eq!(written, expected, "cut at {cut}");
    }
    let mut stream = Stream::new();
    let single: Vec<String> = text.bytes().flat_map(|byte| stream.push(&[byte])).collect();
    assert_eq!(single, expected, "one octet at a time");
}

#[test]
fn a_body_of_70_kb_passes() {
    let body = "x".repeat(70 * 1024);
    let text = options(1, &format!("Content-Length: {}", body.len()), &body) + &options(2, "Content-Length: 0", "");
    let mut stream = Stream::new();
    let written: Vec<String> = text.as_bytes().chunks(1400).flat_map(|piece| stream.push(piece)).collect();
    assert_eq!(written, ["200 1 OPTIONS", "200 2 OPTIONS"]);
}

#[test]
fn a_spaced_and_a_folded_content_length_are_read() {
    for length in ["Content-Length : 5", "Content-Length:\r\n 5", "Content-Length\t:\r\n\t5", "l  :   5"] {
        let text = options(1, length, "hello") + &options(2, "Content-Length: 0", "");
        for cut in [1, text.find("ontent").unwrap_or(80), 200] {
            let mut stream = Stream::new();
            let mut written = stream.push(&text.as_bytes()[..cut]);
            written.extend(stream.push(&text.as_bytes()[cut..]));
            assert_eq!(written, ["200 1 OPTIONS", "200 2 OPTIONS"], "{length:?} cut at {cut}");
        }
    }
}

#[test]
fn one_bad_message_is_answered_and_the_stream_goes_on() {
    let bad = options(1, "Content-Length: 5", "hello").replace("CSeq: 1 OPTIONS", "CSeq: 1 BYE");
    let worse = options(2, "Content-Length: 0", "").replace("Max-Forwards: 70", "no colon here");
    let text = bad + &worse + &options(3, "Content-Length: 0", "");
    assert_eq!(Stream::new().push(text.as_bytes()), ["400 1 BYE", "400 2 OPTIONS", "200 3 OPTIONS"]);
    // What is no SIP cannot be followed: closed, never ignored.
    let written = Stream::new().push(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(written, ["closed"]);
}

#[test]
fn a_ping_gets_its_pong_in_one_segment_or_two() {
    for cut in 0..=4 {
        let mut stream = Stream::new();
        let mut written = stream.push(&b"\r\n\r\n"[..cut]);
        assert!(cut == 4 || written.is_empty(), "half a ping is no ping");
        written.extend(stream.push(&b"\r\n\r\n"[cut..]));
        written.extend(stream.push(options(1, "Content-Length: 0", "").as_bytes()));
        assert_eq!(written, ["pong", "200 1 OPTIONS"], "cut at {cut}");
    }
}

#[test]
fn a_content_length_of_2_to_the_64_over_udp_is_400_and_harms_nobody() {
    let mut net = net(21);
    for length in ["18446744073709551615", "18446744073709551616", "4294967296", "-1"] {
        let text = options(1, &format!("Content-Length: {length}"), "hello");
        let text = text.replace("TCP 192.0.2.4;", &format!("UDP {};", net.nodes[CAROL].address));
        net.send_raw(CAROL, BOB, &text.replace('\r', ""));
        net.run_ms(50);
        assert_eq!(net.codes(CAROL), [400], "{length}");
    }
    net.ask(CAROL, BOB, &Ask::new("OPTIONS"));
    assert_eq!(net.codes(CAROL), [200], "it answers as before");
}

// --- the shape of the thing ------------------------------------------------------------------------------------------

#[test]
fn a_day_of_ringing_takes_no_time() {
    let mut net = net(22);
    net.ask(CAROL, BOB, &Ask::new("INVITE"));
    net.run_for(Duration::from_secs(86_400));
    assert_eq!(net.codes(CAROL).len(), 1 + 1440, "a reminder each minute");
    let session = net.incoming(BOB);
    net.reject(BOB, session, 480);
    net.settle();
}

#[test]
fn misuse_is_an_error_and_never_a_panic() {
    let mut net = net(23);
    let (session, _) = bob_calls(&mut net);
    let nobody = SessionId(9_999);
    for id in [session, nobody] {
        net.with(BOB, |ua, now| {
            assert!(ua.accept(id, true, false, now).is_err());
            assert!(ua.reject(id, 486, None, now).is_err());
            assert!(ua.ring(id, now).is_err());
            assert!(ua.early_media(id, now).is_err());
            assert!(ua.redirect(id, &[uri("dave")], now).is_err());
            assert!(ua.send_dtmf(id, '1', now).is_err());
            assert!(ua.start_recording(id, "/x.wav".into(), RecordingLayout::Mix, now).is_err());
            assert!(ua.stop_recording(id, now).is_err());
        });
    }
    net.end(BOB, session);
    net.end(BOB, session);
    let garbage: [&[u8]; 4] = [b"", b"\r\n\r\n", b"\0\xff\xfe", b"SIP/2.0 200\r\n\r\n"];
    for bytes in garbage {
        let flow = Flow::to(Transport::Udp, net.nodes[CAROL].address);
        net.with(BOB, |ua, now| match Message::parse(Bytes::from_static(bytes)) {
            Ok(message) => ua.handle_message(message, flow, now),
            Err(error) => ua.handle_bad_message(error, flow, now),
        });
    }
}
