//! Conformance to RFC 3261, one test for each purpose, with a peer that is played message by message.
//!
//! The numbers are those of the purposes our reliability promises list. Timers and matching (2–4, 6, 7, 15, 25) are
//! proven beside `sip::transaction`; whole calls (19, 41, 45) in `scenarios.rs`.

#[path = "support/mod.rs"]
mod support;

use sipwire::event::{Route, SessionId};
use sipwire::sip::message::{HeaderName, Message, Method};
use sipwire::sip::transport::Transport;

use sipwire::ua::Connect;
use support::peer::{Ask, Reply, SDP, ack, header, tag};
use support::{ACCOUNT, Action, SimNet, uri};

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
    let invite = net.came(CAROL).pop().expect("an INVITE");
    assert_eq!(*invite.method(), Method::Invite);
    (session, invite)
}

/// Carol calls bob, who takes the call: her INVITE and his 200.
fn carol_calls(net: &mut SimNet) -> (Ask, Message, SessionId) {
    let invite = Ask::new("INVITE");
    net.ask(CAROL, BOB, &invite);
    let session = net.incoming(BOB);
    net.accept(BOB, session);
    net.run_ms(50);
    let answer = net.came(CAROL).pop().expect("a 200");
    assert_eq!(answer.status(), Some(200));
    net.ask(CAROL, BOB, &ack(&invite, &answer));
    assert_eq!(net.words(BOB, session).last().map(String::as_str), Some("DidStart"));
    (invite, answer, session)
}

/// A request of carol's inside the dialog of that call.
fn inside(method: &'static str, cseq: u32, answer: &Message) -> Ask {
    Ask::new(method).with(|ask| {
        ask.to_tag = tag(answer);
        ask.cseq = cseq;
        ask.branch = format!("z9hG4bK-{method}-{cseq}");
    })
}

/// Bob's words for the whole call, once it is over.
fn last_words(net: &SimNet, session: SessionId, count: usize) -> Vec<String> {
    let words = net.words(BOB, session);
    words[words.len().saturating_sub(count)..].to_vec()
}

// --- originating -----------------------------------------------------------------------------------------------------

/// (1)
#[test]
fn an_invite_has_its_six_headers_a_contact_and_a_branch_of_its_own() {
    let mut net = net(1);
    let (_, first) = bob_calls(&mut net);
    let (_, second) = bob_calls(&mut net);
    for invite in [&first, &second] {
        assert_eq!(invite.max_forwards(), Ok(Some(70)));
        assert_eq!(invite.request_uri_raw(), b"sip:carol@example.com");
        assert_eq!(invite.to().expect("To").tag(), None);
        assert_eq!(invite.cseq().expect("CSeq").method, Method::Invite);
        let contact = invite.contact().expect("readable").expect("a Contact");
        assert_eq!(contact.uri().expect("a URI").port, Some(5060));
        let via = invite.top_via().expect("Via");
        assert!(via.branch().expect("a branch").starts_with(b"z9hG4bK"));
        assert_eq!(via.params.get("rport"), Some(&b""[..]));
        assert!(header(invite, "Allow").contains("CANCEL"));
    }
    let names = |message: &Message| {
        let via = message.top_via().expect("Via");
        let from = message.from().expect("From");
        [via.branch(), from.tag(), message.call_id().ok()].map(|name| name.expect("a name").to_vec())
    };
    for (one, other) in names(&first).iter().zip(names(&second)) {
        assert_ne!(*one, other);
        assert!(one.len() >= 16, "hard to guess: {}", String::from_utf8_lossy(one));
    }
}

/// (5), (67)
#[test]
fn the_ack_to_a_2xx_has_a_new_branch_the_number_the_contact_and_the_route_set_reversed() {
    let mut net = net(5);
    let (session, invite) = bob_calls(&mut net);
    let carol = net.nodes[CAROL].address;
    let record_route = format!("Record-Route: <sip:p2.example.com;lr>, <sip:{carol};lr>\n");
    net.reply(CAROL, &invite, &Reply::ok().with(|reply| reply.more.clone_from(&record_route)));
    let acks = net.came(CAROL);
    assert_eq!(acks.len(), 1);
    let ack = &acks[0];
    assert_eq!(*ack.method(), Method::Ack);
    assert_ne!(ack.top_via().expect("Via").branch(), invite.top_via().expect("Via").branch());
    assert_eq!(ack.cseq().expect("CSeq").number, invite.cseq().expect("CSeq").number);
    assert_eq!(ack.request_uri_raw(), format!("sip:carol@{carol}").as_bytes());
    let routes: Vec<_> = ack.header_values(HeaderName::Route).map(String::from_utf8_lossy).collect();
    assert_eq!(routes, [format!("<sip:{carol};lr>"), "<sip:p2.example.com;lr>".to_owned()]);
    net.end(BOB, session);
    net.run_ms(50);
    let bye = net.came(CAROL).remove(0);
    assert_eq!(bye.header_values(HeaderName::Route).count(), 2);
    assert!(bye.cseq().expect("CSeq").number > invite.cseq().expect("CSeq").number);
    net.reply(CAROL, &bye, &Reply::new(200));
    net.settle();
}

/// (67), a strict router: it is named in the request line, and the Contact comes last in Route.
#[test]
fn a_strict_router_is_addressed_in_the_request_line() {
    let mut net = net(67);
    let (_, invite) = bob_calls(&mut net);
    let carol = net.nodes[CAROL].address;
    net.reply(CAROL, &invite, &Reply::ok().with(|reply| reply.more = format!("Record-Route: <sip:{carol}>\n")));
    let ack = net.came(CAROL).remove(0);
    assert_eq!(ack.request_uri_raw(), format!("sip:{carol}").as_bytes());
    assert_eq!(ack.header(HeaderName::Route), Some(format!("<sip:carol@{carol}>").as_bytes()));
}

/// (8)
#[test]
fn each_repeated_200_gets_the_same_ack_again() {
    let mut net = net(8);
    let (session, invite) = bob_calls(&mut net);
    net.reply(CAROL, &invite, &Reply::ok());
    let first = net.came(CAROL).remove(0);
    for _ in 0..3 {
        net.run_ms(4_000);
        net.reply(CAROL, &invite, &Reply::ok());
        assert_eq!(net.came(CAROL), std::slice::from_ref(&first));
    }
    assert_eq!(net.words(BOB, session).iter().filter(|word| *word == "DidStart").count(), 1);
}

/// (9)
#[test]
fn a_200_of_another_fork_gets_ack_and_bye() {
    let mut net = net(9);
    let (session, invite) = bob_calls(&mut net);
    net.reply(CAROL, &invite, &Reply::ok());
    net.came(CAROL);
    net.reply(CAROL, &invite, &Reply::ok().with(|reply| reply.tag = Some("fork2")));
    let came = net.came(CAROL);
    assert_eq!(came.iter().map(|message| message.method().as_str()).collect::<Vec<_>>(), ["ACK", "BYE"]);
    assert!(came.iter().all(|message| message.to().expect("To").tag() == Some(b"fork2")));
    net.reply(CAROL, &came[1], &Reply::new(200));
    net.reply(CAROL, &invite, &Reply::ok().with(|reply| reply.tag = Some("fork2")));
    let came = net.came(CAROL);
    assert_eq!(came.iter().map(|message| message.method().as_str()).collect::<Vec<_>>(), ["ACK"], "BYE once");
    assert_eq!(net.words(BOB, session).last().map(String::as_str), Some("DidStart"), "the first call goes on");
}

/// (10), (11), (12), (16): each ends the call with its code; nothing is tried by itself.
#[test]
fn a_refusal_ends_the_call_with_its_code() {
    for code in [300, 302, 400, 401, 404, 407, 415, 420, 480, 486, 488, 499, 500, 504, 599, 600, 603, 699] {
        let mut net = net(16);
        let (session, invite) = bob_calls(&mut net);
        net.reply(CAROL, &invite, &Reply::new(code).with(|reply| reply.more = "Contact: <sip:x@192.0.2.77>\n".into()));
        let came: Vec<_> = net.came(CAROL).iter().map(|message| message.method().as_str().to_owned()).collect();
        assert_eq!(came, ["ACK"], "{code}");
        assert_eq!(last_words(&net, session, 2), [format!("DidFail(remote {code})"), "DidEnd(remote)".to_owned()]);
        net.settle();
    }
}

/// (13), (14)
#[test]
fn only_503_goes_on_to_the_next_route() {
    for (code, goes_on) in [(503, true), (486, false), (500, false), (603, false), (404, false)] {
        let mut net = net(13);
        let dave = net.add_raw("dave");
        let routes = [CAROL, dave].map(|node| net.route_to(node, Transport::Udp));
        net.connect(BOB, uri("carol"), routes.to_vec()).expect("connect is allowed");
        net.run_ms(50);
        let invite = net.came(CAROL).remove(0);
        net.reply(CAROL, &invite, &Reply::new(code));
        let second = net.came(dave);
        assert_eq!(!second.is_empty(), goes_on, "{code}");
        if let Some(second) = second.first() {
            assert_eq!(second.call_id(), invite.call_id());
            assert_ne!(second.top_via().expect("Via").branch(), invite.top_via().expect("Via").branch());
            net.reply(dave, second, &Reply::new(486));
        }
        net.settle();
    }
}

/// (15)
#[test]
fn a_response_that_is_not_ours_changes_nothing() {
    let mut net = net(15);
    let (session, invite) = bob_calls(&mut net);
    let text = String::from_utf8_lossy(invite.as_bytes()).replace("\r\n", "\n");
    let from = String::from_utf8_lossy(invite.from().expect("From").tag().expect("a tag")).into_owned();
    let branch = String::from_utf8_lossy(invite.top_via().expect("Via").branch().expect("a branch")).into_owned();
    let call_id = String::from_utf8_lossy(invite.call_id().expect("Call-ID")).into_owned();
    for (old, new) in [(&branch, "z9hG4bKother"), (&from, "other"), (&call_id, "other"), (&"1 INVITE".into(), "1 INFO")]
    {
        let request = support::peer::parse(&text.replace(old.as_str(), new));
        net.reply(CAROL, &request, &Reply::ok());
        assert!(net.came(CAROL).iter().all(|message| *message.method() == Method::Invite), "{old} -> {new}");
        assert_eq!(net.words(BOB, session).len(), 2, "{old} -> {new}");
    }
    net.reply(CAROL, &invite, &Reply::ok());
    assert_eq!(net.words(BOB, session).last().map(String::as_str), Some("DidStart"));
}

/// (16)
#[test]
fn an_unknown_provisional_is_progress_and_only_180_rings() {
    let mut net = net(16);
    let (session, invite) = bob_calls(&mut net);
    for code in [100, 150, 183, 199] {
        net.reply(CAROL, &invite, &Reply::new(code));
    }
    assert_eq!(net.words(BOB, session).len(), 2);
    net.reply(CAROL, &invite, &Reply::new(180));
    assert_eq!(last_words(&net, session, 1), ["GotRingIndication"]);
    net.run_ms(120_000);
    assert_eq!(net.came(CAROL).len(), 0, "a provisional response stops the INVITE");
}

/// (17), (18)
#[test]
fn a_cancel_waits_for_a_provisional_and_has_the_invites_place() {
    let mut net = net(17);
    let (session, invite) = bob_calls(&mut net);
    net.end(BOB, session);
    net.run_ms(50);
    assert_eq!(net.came(CAROL).len(), 0);
    net.reply(CAROL, &invite, &Reply::new(100));
    let cancel = net.came(CAROL).remove(0);
    assert_eq!(*cancel.method(), Method::Cancel);
    assert_eq!(cancel.request_uri_raw(), invite.request_uri_raw());
    assert_eq!(cancel.header(HeaderName::Via), invite.header(HeaderName::Via));
    assert_eq!(cancel.header(HeaderName::To), invite.header(HeaderName::To));
    assert_eq!(cancel.cseq().expect("CSeq").number, invite.cseq().expect("CSeq").number);
    net.reply(CAROL, &cancel, &Reply::new(200));
    net.reply(CAROL, &invite, &Reply::new(487));
    assert_eq!(net.came(CAROL)[0].method().as_str(), "ACK");
    net.settle();
}

/// (43)
#[test]
fn a_bye_that_is_refused_ends_the_call_all_the_same() {
    for code in [408, 481, 500, 603] {
        let mut net = net(43);
        let (session, invite) = bob_calls(&mut net);
        net.reply(CAROL, &invite, &Reply::ok());
        net.end(BOB, session);
        net.run_ms(50);
        let bye = net.came(CAROL).pop().expect("a BYE");
        net.reply(CAROL, &bye, &Reply::new(code));
        assert_eq!(last_words(&net, session, 1), ["DidEnd(local)"], "{code}");
        net.settle();
    }
}

// --- terminating -----------------------------------------------------------------------------------------------------

/// (21)
#[test]
fn without_another_answer_100_leaves_after_200_ms() {
    let mut net = SimNet::new(21);
    net.add("bob", |config| config.auto_ring = false);
    net.add_raw("carol");
    net.ask(CAROL, BOB, &Ask::new("INVITE"));
    assert_eq!(net.came(CAROL).len(), 0);
    net.run_ms(149);
    assert_eq!(net.came(CAROL).len(), 0);
    net.run_ms(30);
    let came = net.came(CAROL);
    assert_eq!(came.iter().map(Message::status).collect::<Vec<_>>(), [Some(100)]);
    assert_eq!(came[0].to().expect("To").tag(), None);
}

/// (22)
#[test]
fn a_180_has_a_tag_and_a_contact_and_the_200_has_the_same() {
    let mut net = net(22);
    let invite = Ask::new("INVITE").with(|ask| ask.more = "Record-Route: <sip:p1.example.com;lr>\n".into());
    net.ask(CAROL, BOB, &invite);
    let ringing = net.came(CAROL).remove(0);
    assert_eq!(ringing.status(), Some(180));
    let session = net.incoming(BOB);
    net.accept(BOB, session);
    net.run_ms(50);
    let ok = net.came(CAROL).remove(0);
    for response in [&ringing, &ok] {
        assert!(tag(response).len() >= 16);
        assert!(response.contact().expect("readable").is_some());
        assert_eq!(header(response, "Record-Route"), "<sip:p1.example.com;lr>");
    }
    assert_eq!(tag(&ringing), tag(&ok));
}

/// (23), (24), (40)
#[test]
fn a_200_is_repeated_from_t1_to_t2_for_32_s_then_bye() {
    let mut net = net(23);
    net.ask(CAROL, BOB, &Ask::new("INVITE"));
    let session = net.incoming(BOB);
    net.accept(BOB, session);
    net.run_ms(50);
    let first = net.came(CAROL).pop().expect("a 200");
    net.run_ms(31_900);
    let again = net.came(CAROL);
    assert_eq!(again.len(), 10, "after 0.5 1.5 3.5 7.5 11.5 … 31.5 s");
    assert!(again.iter().all(|message| *message == first));
    net.run_ms(1_000);
    assert_eq!(net.came(CAROL)[0].method().as_str(), "BYE");
    assert_eq!(last_words(&net, session, 2), ["DidFail(local 408)", "DidEnd(local)"]);
    net.run_to_the_end(std::time::Duration::from_secs(60));
    net.assert_good();
}

/// (26), (29) … (32), (36), (39), (42), (70): refusals before there is a call, each with what its header must say.
#[test]
fn requests_that_are_refused_at_once() {
    type Change = fn(&mut Ask);
    let table: [(&'static str, Change, u16, &str, &str); 17] = [
        ("INVITE", |ask| ask.more = "Require: 100rel, foo\n".into(), 420, "Unsupported", "foo"),
        ("OPTIONS", |ask| ask.more = "Require: foo\n".into(), 420, "Unsupported", "foo"),
        ("FROBNICATE", |_| {}, 501, "Allow", "INVITE"),
        ("SUBSCRIBE", |ask| ask.more = "Event: rain\n".into(), 489, "Allow-Events", ""),
        ("PUBLISH", |_| {}, 405, "Allow", "INVITE"),
        ("INVITE", |ask| ask.uri = "tel:+4711".into(), 416, "", ""),
        ("INVITE", |ask| ask.uri = "sip:nobody@example.com".into(), 404, "", ""),
        ("INVITE", |ask| ask.body.0 = "text/plain", 415, "Accept", "application/sdp"),
        ("INVITE", |ask| ask.more = "Content-Encoding: gzip\n".into(), 415, "Accept-Encoding", "identity"),
        ("INVITE", |ask| ask.body.1 = SDP.replace("AVP 0", "AVP 99"), 488, "Warning", "30"),
        ("INVITE", |ask| ask.body.1 = "v=0\nnot sdp\n".into(), 400, "", ""),
        ("INVITE", |ask| ask.contact = false, 400, "", ""),
        ("INVITE", |ask| ask.to_tag = "unknown".into(), 481, "", ""),
        ("BYE", |ask| ask.to_tag = "unknown".into(), 481, "", ""),
        ("BYE", |_| {}, 481, "", ""),
        ("CANCEL", |_| {}, 481, "", ""),
        ("OPTIONS", |ask| ask.version = "SIP/7.0", 505, "", ""),
    ];
    for (method, change, code, name, part) in table {
        let mut net = net(30);
        let ask = Ask::new(method).with(change);
        net.ask(CAROL, BOB, &ask);
        let answer = net.only_answer(CAROL, BOB, &ask);
        assert_eq!(answer.status(), Some(code), "{ask:?}");
        assert!(tag(&answer) == ask.to_tag || ask.to_tag.is_empty() && !tag(&answer).is_empty(), "{ask:?}: {answer:?}");
        assert!(header(&answer, name).contains(part), "{ask:?}: {name}: {}", header(&answer, name));
        net.settle();
        assert_eq!(net.came(CAROL).len(), 0, "acknowledged: {ask:?}");
        assert_eq!(net.all_words(BOB), [""; 0], "{ask:?}");
    }
}

/// (70)
#[test]
fn what_cannot_be_used_is_400_or_silence_and_goes_to_nobody_else() {
    let good = "OPTIONS sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bK1;rport\n\
                Max-Forwards: 70\nFrom: <sip:carol@example.com>;tag=1\nTo: <sip:bob@example.com>\nCall-ID: 1\n\
                CSeq: 1 OPTIONS\nContent-Length: 0\n\n";
    let table = [
        (good.to_owned(), Some(200)),
        (good.replace("Call-ID: 1\n", ""), Some(400)),
        (good.replace("1 OPTIONS", "1 INVITE"), Some(400)),
        (good.replace("1 OPTIONS", "x7 OPTIONS"), Some(400)),
        (good.replace("Length: 0", "Length: 9"), Some(400)),
        (good.replace("Length: 0", "Length: 18446744073709551615"), Some(400)),
        (good.replace("Via:", "Not-Via:"), None),
        (good.replace("OPTIONS", "ACK").replace("Call-ID: 1\n", ""), None),
        (good.replace("OPTIONS sip:bob@example.com SIP/2.0", "SIP/2.0 200 OK"), None),
        ("GET / HTTP/1.1\nHost: bob\n\n".to_owned(), None),
        ("\0\u{1}\u{2}".to_owned(), None),
        ("\n\n".to_owned(), None),
    ];
    for (text, expected) in table {
        let mut net = net(70);
        let dave = net.add_raw("dave");
        net.nodes[dave].address = "203.0.113.9:5060".parse().expect("an address");
        net.send_raw(CAROL, BOB, &text);
        net.run_ms(50);
        assert_eq!(net.came(CAROL).pop().and_then(|message| message.status()), expected, "{text}");
        assert_eq!(net.came(dave).len(), 0, "{text}");
        net.settle();
    }
}

/// (26)
#[test]
fn a_request_merged_on_its_way_is_482() {
    let mut net = net(26);
    let first = Ask::new("INVITE");
    net.ask(CAROL, BOB, &first);
    assert_eq!(net.codes(CAROL), [180]);
    let merged = first.clone().with(|ask| ask.branch = "z9hG4bK-other-path".into());
    net.ask(CAROL, BOB, &merged);
    assert_eq!(net.only_answer(CAROL, BOB, &merged).status(), Some(482));
    assert_eq!(net.all_words(BOB).len(), 2, "one call");
}

/// (27), (40)
#[test]
fn a_cancel_gets_200_and_its_invite_487() {
    let mut net = net(27);
    let invite = Ask::new("INVITE");
    net.ask(CAROL, BOB, &invite);
    let session = net.incoming(BOB);
    net.came(CAROL);
    let cancel = Ask { method: "CANCEL", cseq_method: "CANCEL", body: ("", String::new()), ..invite.clone() };
    net.ask(CAROL, BOB, &cancel);
    let mut came = net.came(CAROL);
    came.sort_by_key(Message::status);
    let seen: Vec<_> = came.iter().map(|message| (message.status(), message.method().as_str())).collect();
    assert_eq!(seen, [(Some(200), "CANCEL"), (Some(487), "INVITE")]);
    assert!(!tag(&came[1]).is_empty());
    net.ask(CAROL, BOB, &cancel);
    net.ask(CAROL, BOB, &invite);
    assert_eq!(net.codes(CAROL).iter().filter(|code| **code == 200).count(), 1, "the same answers again");
    net.ask(CAROL, BOB, &ack(&invite, &came[1]));
    assert_eq!(last_words(&net, session, 2), ["DidFail(remote 487)", "DidEnd(remote)"]);
    net.settle();
}

/// (28)
#[test]
fn a_cancel_after_the_final_response_has_no_effect() {
    let mut net = net(28);
    let (invite, answer, session) = carol_calls(&mut net);
    let cancel = Ask { method: "CANCEL", cseq_method: "CANCEL", body: ("", String::new()), ..invite };
    net.ask(CAROL, BOB, &cancel);
    assert_eq!(net.codes(CAROL), [200]);
    assert_eq!(last_words(&net, session, 1), ["DidStart"]);
    net.ask(CAROL, BOB, &inside("BYE", 2, &answer));
    net.settle();
}

/// (34)
#[test]
fn an_invite_whose_time_ran_out_is_487() {
    let mut net = net(34);
    let invite = Ask::new("INVITE").with(|ask| ask.more = "Expires: 5\n".into());
    net.ask(CAROL, BOB, &invite);
    assert_eq!(net.codes(CAROL), [180]);
    net.run_ms(4_900);
    assert_eq!(net.codes(CAROL), [0; 0]);
    net.run_ms(100);
    assert_eq!(net.only_answer(CAROL, BOB, &invite).status(), Some(487));
    net.settle();
}

/// (35)
#[test]
fn max_forwards_0_is_no_matter_for_whom_it_reaches() {
    let mut net = net(35);
    let ask = Ask::new("OPTIONS").with(|ask| ask.max_forwards = 0);
    net.ask(CAROL, BOB, &ask);
    assert_eq!(net.codes(CAROL), [200]);
}

/// (37)
#[test]
fn a_second_invite_while_one_is_open_is_500_with_retry_after() {
    let mut net = net(37);
    let invite = Ask::new("INVITE");
    net.ask(CAROL, BOB, &invite);
    let ringing = net.came(CAROL).remove(0);
    let second = inside("INVITE", 2, &ringing);
    net.ask(CAROL, BOB, &second);
    let answer = net.only_answer(CAROL, BOB, &second);
    assert_eq!(answer.status(), Some(500));
    assert!(header(&answer, "Retry-After").parse::<u32>().is_ok_and(|seconds| seconds <= 10), "{answer:?}");
}

/// (66)
#[test]
fn a_response_goes_where_the_request_came_from() {
    let mut net = net(66);
    let ask = Ask::new("OPTIONS");
    net.ask(CAROL, BOB, &ask);
    let answer = net.came(CAROL).remove(0);
    let via = answer.top_via().expect("Via");
    assert_eq!(via.params.get("rport"), Some(&b"5060"[..]));
    assert_eq!(via.params.get("received"), Some(net.nodes[CAROL].address.ip().to_string().as_bytes()));
}

/// (20): an INVITE without an offer is answered with ours, and its ACK brings the answer.
#[test]
fn a_late_offer_is_answered_in_the_ack() {
    let mut net = net(20);
    let invite = Ask::new("INVITE").with(|ask| ask.body = ("", String::new()));
    net.ask(CAROL, BOB, &invite);
    let session = net.incoming(BOB);
    net.accept(BOB, session);
    net.run_ms(50);
    let answer = net.came(CAROL).pop().expect("a 200");
    assert!(String::from_utf8_lossy(answer.body()).contains("m=audio"));
    let mut ack = ack(&invite, &answer);
    ack.body = ("application/sdp", SDP.to_owned());
    net.ask(CAROL, BOB, &ack);
    assert_eq!(last_words(&net, session, 1), ["DidStart"]);
    net.ask(CAROL, BOB, &inside("BYE", 2, &answer));
    net.settle();
}

// --- release ---------------------------------------------------------------------------------------------------------

/// (41), (42), (46)
#[test]
fn a_bye_is_200_a_lower_number_500_and_a_gap_legal() {
    let mut net = net(46);
    let (_, answer, session) = carol_calls(&mut net);
    net.ask(CAROL, BOB, &inside("OPTIONS", 17, &answer));
    assert_eq!(net.codes(CAROL), [200], "a gap");
    net.ask(CAROL, BOB, &inside("BYE", 16, &answer));
    assert_eq!(net.codes(CAROL), [500], "lower");
    assert_eq!(last_words(&net, session, 1), ["DidStart"]);
    net.ask(CAROL, BOB, &inside("BYE", 18, &answer));
    assert_eq!(net.codes(CAROL), [200]);
    net.ask(CAROL, BOB, &inside("BYE", 18, &answer));
    assert_eq!(net.codes(CAROL), [200], "the same answer to the same BYE");
    net.ask(CAROL, BOB, &inside("BYE", 19, &answer));
    assert_eq!(net.codes(CAROL), [481], "and then there is no such call");
    net.settle();
}

/// (42): somebody who guesses only some of a dialog's names cannot end it.
#[test]
fn a_bye_with_a_wrong_name_is_481_and_ends_nothing() {
    type Change = fn(&mut Ask);
    let table: [Change; 3] =
        [|ask| ask.from_tag = "other", |ask| ask.call_id = "other", |ask| ask.to_tag = ask.to_tag.to_uppercase() + "x"];
    for change in table {
        let mut net = net(42);
        let (_, answer, session) = carol_calls(&mut net);
        net.ask(CAROL, BOB, &inside("BYE", 2, &answer).with(change));
        assert_eq!(net.codes(CAROL), [481]);
        assert_eq!(last_words(&net, session, 1), ["DidStart"]);
    }
}

/// (44)
#[test]
fn a_caller_may_end_an_early_dialog_with_bye() {
    let mut net = net(44);
    let invite = Ask::new("INVITE");
    net.ask(CAROL, BOB, &invite);
    let ringing = net.came(CAROL).remove(0);
    let session = net.incoming(BOB);
    net.ask(CAROL, BOB, &inside("BYE", 2, &ringing));
    let mut codes = net.codes(CAROL);
    codes.sort_unstable();
    assert_eq!(codes, [200, 487]);
    assert_eq!(last_words(&net, session, 2), ["DidFail(remote 487)", "DidEnd(remote)"]);
    let answered = support::peer::parse(
        "SIP/2.0 487 X\nVia: SIP/2.0/UDP x;branch=z9hG4bK\nFrom: <sip:a@b>;tag=1\n\
         To: <sip:bob@example.com>;tag=x\nCall-ID: 1\nCSeq: 1 INVITE\n\n",
    );
    net.ask(CAROL, BOB, &ack(&invite, &answered).with(|ask| ask.to_tag = tag(&ringing)));
    net.settle();
}

/// (44): a callee sends BYE only after the ACK.
#[test]
fn a_callee_that_hangs_up_before_the_ack_waits_for_it() {
    let mut net = net(44);
    let invite = Ask::new("INVITE");
    net.ask(CAROL, BOB, &invite);
    let session = net.incoming(BOB);
    net.accept(BOB, session);
    net.run_ms(50);
    let answer = net.came(CAROL).pop().expect("a 200");
    net.end(BOB, session);
    net.run_ms(3_000);
    assert!(net.came(CAROL).iter().all(|message| message.status() == Some(200)));
    net.ask(CAROL, BOB, &ack(&invite, &answer));
    let bye = net.came(CAROL).remove(0);
    assert_eq!(*bye.method(), Method::Bye);
    net.reply(CAROL, &bye, &Reply::new(200));
    assert_eq!(last_words(&net, session, 1), ["DidEnd(local)"]);
    net.settle();
}

// --- modification ----------------------------------------------------------------------------------------------------

/// (47)
#[test]
fn a_reinvite_moves_the_remote_target() {
    let mut net = net(47);
    let (_, answer, session) = carol_calls(&mut net);
    let dave = net.add_raw("dave");
    let moved = net.nodes[dave].address;
    let mut reinvite = inside("INVITE", 2, &answer).with(|ask| ask.body.1 = SDP.replace("carol 1 1", "carol 1 2"));
    reinvite.contact = false;
    reinvite.more = format!("Contact: <sip:carol@{moved}>\n");
    net.ask(CAROL, BOB, &reinvite);
    let ok = net.came(CAROL).pop().expect("a 200");
    assert_eq!((ok.status(), tag(&ok)), (Some(200), tag(&answer)));
    net.ask(CAROL, BOB, &ack(&reinvite, &ok));
    net.end(BOB, session);
    net.run_ms(50);
    let bye = net.came(dave).pop().expect("a BYE at the new Contact");
    assert_eq!(bye.request_uri_raw(), format!("sip:carol@{moved}").as_bytes());
    net.reply(dave, &bye, &Reply::new(200));
    net.run_to_the_end(std::time::Duration::from_secs(100));
    net.assert_idle();
}

/// (50)
#[test]
fn a_reinvite_that_cannot_be_taken_leaves_the_call_as_it_was() {
    let mut net = net(50);
    let (_, answer, session) = carol_calls(&mut net);
    let reinvite = inside("INVITE", 2, &answer)
        .with(|ask| ask.body.1 = SDP.replace("carol 1 1", "carol 1 2").replace("AVP 0", "AVP 99"));
    net.ask(CAROL, BOB, &reinvite);
    let refusal = net.only_answer(CAROL, BOB, &reinvite);
    assert_eq!(refusal.status(), Some(488));
    assert!(!header(&refusal, "Warning").is_empty());
    assert_eq!(last_words(&net, session, 1), ["DidStart"]);
    net.ask(CAROL, BOB, &inside("BYE", 3, &answer));
    assert_eq!(net.codes(CAROL), [200]);
    net.settle();
}

/// (51)
#[test]
fn a_remote_hold_is_answered_with_the_other_direction_and_told() {
    let mut net = net(51);
    let (_, answer, session) = carol_calls(&mut net);
    let table =
        [("sendonly", "a=recvonly", "Hold"), ("sendrecv", "a=sendrecv", "Unhold"), ("inactive", "a=inactive", "Hold")];
    for (number, (offered, answered, told)) in (2..).zip(table) {
        let sdp = format!("{}a={offered}\n", SDP.replace("carol 1 1", &format!("carol 1 {number}")));
        let reinvite = inside("INVITE", number, &answer).with(|ask| ask.body.1 = sdp);
        net.ask(CAROL, BOB, &reinvite);
        let ok = net.came(CAROL).pop().expect("a 200");
        let body = String::from_utf8_lossy(ok.body()).into_owned();
        assert!(
            body.contains(answered) || answered == "a=sendrecv" && !body.contains("a=recvonly"),
            "{offered}: {body}"
        );
        net.ask(CAROL, BOB, &ack(&reinvite, &ok));
        let words = net.words(BOB, session);
        assert!(words.iter().rev().take(2).any(|word| *word == format!("Got{told}Request(remote)")), "{words:?}");
    }
}

/// (54)
#[test]
fn a_reinvite_without_sdp_is_answered_with_an_offer() {
    let mut net = net(54);
    let (_, answer, session) = carol_calls(&mut net);
    let reinvite = inside("INVITE", 2, &answer).with(|ask| ask.body = ("", String::new()));
    net.ask(CAROL, BOB, &reinvite);
    let ok = net.came(CAROL).pop().expect("a 200");
    assert!(String::from_utf8_lossy(ok.body()).contains("m=audio"));
    let mut ack = ack(&reinvite, &ok);
    ack.body = ("application/sdp", SDP.replace("carol 1 1", "carol 1 2"));
    net.ask(CAROL, BOB, &ack);
    assert_eq!(last_words(&net, session, 1), ["DidStart"]);
    net.ask(CAROL, BOB, &inside("BYE", 3, &answer));
    net.settle();
}

// --- other -----------------------------------------------------------------------------------------------------------

/// (65)
#[test]
fn options_tells_what_we_can_do_in_and_out_of_a_dialog() {
    let mut net = net(65);
    let (_, answer, _) = carol_calls(&mut net);
    for ask in [Ask::new("OPTIONS").with(|ask| ask.call_id = "other"), inside("OPTIONS", 2, &answer)] {
        net.ask(CAROL, BOB, &ask);
        let ok = net.only_answer(CAROL, BOB, &ask);
        assert_eq!(ok.status(), Some(200));
        assert!(header(&ok, "Allow").contains("INVITE") && header(&ok, "Accept").contains("application/sdp"));
        assert!(ok.header(HeaderName::Supported).is_some());
    }
}

/// Fast hands: ring, accept, and end in the order the calls came, a hundred at once from one source.
#[test]
fn a_hundred_calls_of_one_source_are_a_hundred_calls() {
    let mut net = net(100);
    net.nodes[BOB].react = Some(Box::new(|event, _| match (&event.kind, event.session()) {
        (sipwire::event::EventKind::SessionNewIncoming { .. }, Some(session)) => {
            vec![(std::time::Duration::from_millis(300), Action::Reject(session, 486))]
        }
        _ => Vec::new(),
    }));
    let calls: Vec<String> = (0..100).map(|call| format!("call-{call}")).collect();
    for call in &calls {
        let text = format!(
            "INVITE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{call};rport\nMax-Forwards: 70\n\
             From: <sip:carol@example.com>;tag=1\nTo: <sip:bob@example.com>\nCall-ID: {call}\nCSeq: 1 INVITE\n\
             Contact: <sip:carol@{address}>\nContent-Type: application/sdp\nContent-Length: {length}\n\n{SDP}",
            address = net.nodes[CAROL].address,
            length = SDP.replace('\n', "\r\n").len(),
        );
        net.send_raw(CAROL, BOB, &text);
    }
    net.run_ms(400);
    let busy = net.codes(CAROL).iter().filter(|code| **code == 486).count();
    assert_eq!(busy, 100);
    net.settle();
}

#[test]
fn without_routes_the_uri_is_located() {
    let mut net = net(101);
    let call = net.connect(BOB, uri("carol"), Vec::<Route>::new()).expect("connect is allowed");
    let failed = ["NULL>CALLING", "NewOutgoing(audio)", "CALLING>TERMINATED", "DidFail(local 503)", "DidEnd(local)"];
    assert_eq!(net.words(BOB, call), failed, "example.com has no record in this net");
    net.assert_idle();
}

// --- ways to the peer ------------------------------------------------------------------------------------------------

/// Bob calls carol with an INVITE of more than 1,300 bytes; carol's messages until then.
fn bob_calls_at_length(net: &mut SimNet, length: usize) -> (SessionId, Message) {
    let call = Connect {
        account: ACCOUNT,
        callee: uri("carol"),
        routes: vec![net.route_to(CAROL, Transport::Udp)],
        audio: true,
        chat: false,
        extra_headers: vec![("X-Long".to_owned(), "x".repeat(length))],
        late_offer: false,
    };
    let session = net.with(BOB, |ua, now| ua.connect(call, now)).expect("connect is allowed");
    net.run_ms(50);
    (session, net.came(CAROL).pop().expect("an INVITE"))
}

fn via_of(message: &Message) -> String {
    let via = header(message, "Via");
    via.split(';').next().unwrap_or_default().to_owned()
}

/// (69)
#[test]
fn a_request_over_1300_bytes_goes_over_tcp_with_its_dialog() {
    let mut net = net(69);
    let at = net.nodes[BOB].address;
    let (session, invite) = bob_calls_at_length(&mut net, 100);
    assert!(invite.as_bytes().len() <= 1300, "{}", invite.as_bytes().len());
    assert_eq!(via_of(&invite), format!("SIP/2.0/UDP {at}"), "up to there UDP serves");
    net.end(BOB, session);
    net.run_ms(40_000);
    net.came(CAROL);

    let (session, invite) = bob_calls_at_length(&mut net, 1300);
    assert!(invite.as_bytes().len() > 1300);
    assert_eq!(via_of(&invite), format!("SIP/2.0/TCP {at}"));
    assert_eq!(header(&invite, "Contact"), format!("<sip:bob@{at};transport=tcp>"));
    assert!(net.trace.is_none());
    net.run_ms(5_000);
    assert_eq!(net.came(CAROL).len(), 0, "nothing is repeated over TCP");
    net.end(BOB, session);
}

/// (69)
#[test]
fn a_request_over_1300_bytes_goes_over_udp_to_a_peer_without_tcp() {
    let mut net = net(69);
    net.nodes[CAROL].listens = false;
    let at = net.nodes[BOB].address;
    let (_, first) = bob_calls_at_length(&mut net, 1300);
    assert_eq!(via_of(&first), format!("SIP/2.0/UDP {at}"));
    assert_eq!(header(&first, "Contact"), format!("<sip:bob@{at}>"));
    net.run_ms(1_600);
    let again = net.came(CAROL);
    assert_eq!(again.len(), 2, "it is repeated as any over UDP");
    assert!(again.iter().all(|copy| copy.as_bytes() == first.as_bytes()));
    // The next one does not try TCP again.
    net.trace = Some(Vec::new());
    let (_, second) = bob_calls_at_length(&mut net, 1300);
    assert_eq!(via_of(&second), format!("SIP/2.0/UDP {at}"));
    assert!(net.trace.take().unwrap_or_default().iter().all(|line| !line.contains("refused")));
}
