//! Whole calls between two user agents.

use std::time::Duration;

use super::harness::*;

#[test]
fn a_call_is_made_answered_and_ended_by_the_caller() {
    let mut net = Pair::new();
    let (call, incoming) = net.ring();
    assert_eq!(net.alice.take_log(), ["NULL>CALLING", "NewOutgoing audio", "GotRingIndication"]);
    assert_eq!(net.bob.take_log(), ["NULL>INCOMING", "NewIncoming audio"]);
    net.bob.ua.accept(incoming, true, false, net.now).unwrap();
    net.run();
    assert_eq!(net.alice.take_log(), ["WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart"]);
    assert_eq!(
        net.bob.take_log(),
        ["INCOMING>ACCEPTING", "WillStart", "GotStreamUpdate audio", "ACCEPTING>ESTABLISHED", "DidStart"]
    );
    net.alice.ua.end(call, None, net.now).unwrap();
    net.run();
    assert_eq!(
        net.alice.take_log(),
        ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate ", "TERMINATING>TERMINATED", "DidEnd local"]
    );
    assert_eq!(net.bob.take_log(), ["GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd remote"]);
    let wire = ["> INVITE", "< 180 INVITE", "< 200 INVITE", "> ACK", "> BYE", "< 200 BYE"];
    assert_eq!(net.take_wire(), wire);
    net.expect_nothing_left();
    assert_eq!(net.take_wire(), Vec::<String>::new());
}

#[test]
fn the_callee_hangs_up() {
    let mut net = Pair::new();
    let (_, incoming) = net.talk();
    net.bob.ua.end(incoming, Some("lunch \"now\""), net.now).unwrap();
    net.pass(Duration::from_millis(10));
    assert_eq!(
        net.bob.take_log(),
        [
            "ESTABLISHED>TERMINATING",
            "WillEnd",
            "GotStreamUpdate ",
            "TERMINATING>TERMINATED",
            "DidEnd local lunch \"now\""
        ]
    );
    assert_eq!(net.alice.take_log(), ["GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd remote lunch \"now\""]);
    net.expect_nothing_left();
}

#[test]
fn both_hang_up_at_once() {
    let mut net = Pair::new();
    let (call, incoming) = net.talk();
    net.alice.ua.end(call, None, net.now).unwrap();
    net.bob.ua.end(incoming, None, net.now).unwrap();
    net.run();
    let ended = ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate ", "TERMINATING>TERMINATED", "DidEnd local"];
    assert_eq!(net.alice.take_log(), ended);
    assert_eq!(net.bob.take_log(), ended);
    assert_eq!(net.take_wire(), ["> BYE", "< BYE", "> 200 BYE", "< 200 BYE"]);
    net.expect_nothing_left();
}

#[test]
fn a_bye_nobody_answers_ends_the_call_after_a_second() {
    let mut net = Pair::new();
    let (call, _) = net.talk();
    net.lost = vec![">"];
    net.alice.ua.end(call, None, net.now).unwrap();
    net.pass(Duration::from_millis(999));
    assert_eq!(net.alice.take_log(), ["ESTABLISHED>TERMINATING", "WillEnd", "GotStreamUpdate "]);
    net.pass(Duration::from_millis(1));
    assert_eq!(net.alice.take_log(), ["TERMINATING>TERMINATED", "DidEnd local"]);
    net.lost = vec![]; // the transaction lives on
    net.pass(Duration::from_secs(1));
    assert_eq!(net.bob.take_log(), ["GotStreamUpdate ", "ESTABLISHED>TERMINATED", "DidEnd remote"]);
    net.expect_nothing_left();
}

#[test]
fn a_call_is_rejected_as_busy() {
    let mut net = Pair::new();
    let (_, incoming) = net.ring();
    net.alice.take_log();
    net.bob.take_log();
    net.bob.ua.reject(incoming, 486, None, net.now).unwrap();
    net.run();
    assert_eq!(net.bob.take_log(), ["INCOMING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd local"]);
    assert_eq!(net.alice.take_log(), ["CALLING>TERMINATED", "DidFail remote 486 Busy Here", "DidEnd remote"]);
    net.expect_nothing_left();
}

#[test]
fn ending_a_ringing_call_declines_it() {
    let mut net = Pair::new();
    let (_, incoming) = net.ring();
    net.alice.take_log();
    net.bob.take_log();
    net.bob.ua.end(incoming, Some("On holiday"), net.now).unwrap();
    net.run();
    assert_eq!(
        net.bob.take_log(),
        ["INCOMING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd local On holiday"]
    );
    assert_eq!(net.alice.take_log(), ["CALLING>TERMINATED", "DidFail remote 603 On holiday", "DidEnd remote"]);
    net.expect_nothing_left();
}

#[test]
fn the_caller_cancels_a_ringing_call() {
    let mut net = Pair::new();
    let (call, _) = net.ring();
    net.alice.take_log();
    net.bob.take_log();
    net.take_wire();
    net.alice.ua.end(call, Some("wrong number"), net.now).unwrap();
    net.run();
    assert_eq!(
        net.alice.take_log(),
        ["CALLING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd local wrong number"]
    );
    assert_eq!(
        net.bob.take_log(),
        ["INCOMING>TERMINATED", "DidFail remote 487 Request cancelled", "DidEnd remote wrong number"]
    );
    assert_eq!(net.take_wire(), ["> CANCEL", "< 200 CANCEL", "< 487 INVITE", "> ACK"]);
    net.expect_nothing_left();
}

#[test]
fn a_cancel_that_crosses_the_200_is_followed_by_ack_and_bye() {
    let mut net = Pair::new();
    let (call, incoming) = net.ring();
    net.bob.ua.accept(incoming, true, false, net.now).unwrap();
    let crossing = net.bob.drain(net.now);
    net.alice.take_log();
    net.bob.take_log();
    net.take_wire();
    net.alice.ua.end(call, None, net.now).unwrap();
    net.run();
    assert_eq!(net.take_wire(), ["> CANCEL", "< 200 CANCEL"]);
    for (flow, bytes, _) in crossing {
        net.alice.ua.handle_message(
            crate::sip::message::Message::parse(bytes).unwrap(),
            crate::sip::transport::Flow { remote: address(BOB), ..flow },
            net.now,
        );
    }
    net.run();
    assert_eq!(net.take_wire(), ["> ACK", "> BYE", "< 200 BYE"]);
    assert_eq!(net.alice.take_log(), ["CALLING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd local"]);
    assert_eq!(
        net.bob.take_log(),
        [
            "WillStart",
            "GotStreamUpdate audio",
            "ACCEPTING>ESTABLISHED",
            "DidStart",
            "GotStreamUpdate ",
            "ESTABLISHED>TERMINATED",
            "DidEnd remote"
        ]
    );
    net.expect_nothing_left();
}

#[test]
fn a_200_after_the_cancelled_call_was_given_up_is_still_ended() {
    let mut net = Pair::new();
    let (call, incoming) = net.ring();
    net.lost = vec!["> CANCEL"];
    net.alice.ua.end(call, None, net.now).unwrap();
    net.pass(Duration::from_secs(2));
    assert_eq!(net.alice.take_log().last().unwrap(), "DidEnd local");
    net.bob.ua.accept(incoming, true, false, net.now).unwrap();
    net.take_wire();
    net.run();
    assert_eq!(net.take_wire(), ["< 200 INVITE", "> ACK", "> BYE", "< 200 BYE"]);
    net.expect_nothing_left();
}

#[test]
fn cancel_waits_for_a_provisional_response() {
    let mut net = Pair::new();
    net.lost = vec!["> INVITE"];
    let call = net.alice.call("sip:bob@example.com", &[BOB], net.now).unwrap();
    net.run();
    net.alice.ua.end(call, None, net.now).unwrap();
    net.run();
    assert_eq!(net.take_wire(), ["> INVITE"]);
    net.lost = vec![];
    net.pass(Duration::from_secs(1));
    let wire = ["> INVITE", "< 180 INVITE", "> CANCEL", "< 200 CANCEL", "< 487 INVITE", "> ACK"];
    assert_eq!(net.take_wire(), wire);
    assert_eq!(
        net.alice.take_log(),
        [
            "NULL>CALLING",
            "NewOutgoing audio",
            "CALLING>TERMINATING",
            "WillEnd",
            "TERMINATING>TERMINATED",
            "DidEnd local"
        ]
    );
    net.expect_nothing_left();
}

#[test]
fn a_lost_ack_is_sent_again_for_each_repeated_200() {
    let mut net = Pair::new();
    let (_, incoming) = net.ring();
    net.lost = vec!["> ACK"];
    net.take_wire();
    net.bob.ua.accept(incoming, true, false, net.now).unwrap();
    net.pass(Duration::from_millis(3600)); // 0, 0.5, 1.5, 3.5 s
    assert_eq!(net.take_wire(), ["< 200 INVITE", "> ACK"].repeat(4));
    assert_eq!(net.bob.take_log(), ["NULL>INCOMING", "NewIncoming audio", "INCOMING>ACCEPTING"]);
    net.lost = vec![];
    net.pass(Duration::from_secs(4));
    assert_eq!(net.take_wire(), ["< 200 INVITE", "> ACK"]);
    assert_eq!(net.bob.take_log(), ["WillStart", "GotStreamUpdate audio", "ACCEPTING>ESTABLISHED", "DidStart"]);
    net.pass(Duration::from_secs(60));
    assert_eq!(net.take_wire(), Vec::<String>::new());
}

#[test]
fn a_call_without_any_ack_fails_with_408_and_bye() {
    let mut net = Pair::new();
    let (_, incoming) = net.ring();
    net.lost = vec!["> ACK"];
    net.bob.take_log();
    net.bob.ua.accept(incoming, true, false, net.now).unwrap();
    net.pass(Duration::from_secs(31));
    assert_eq!(net.bob.take_log(), ["INCOMING>ACCEPTING"]);
    net.take_wire();
    net.pass(Duration::from_secs(2));
    assert_eq!(net.bob.take_log(), ["ACCEPTING>TERMINATED", "DidFail local 408 No ACK received", "DidEnd local"]);
    assert_eq!(net.take_wire(), ["< 200 INVITE", "> ACK", "< BYE", "> 200 BYE"]);
    net.expect_nothing_left();
}

#[test]
fn the_callee_that_ends_before_the_ack_sends_bye_after_it() {
    let mut net = Pair::new();
    let (_, incoming) = net.ring();
    net.lost = vec!["> ACK"];
    net.bob.take_log();
    net.bob.ua.accept(incoming, true, false, net.now).unwrap();
    net.run();
    net.bob.ua.end(incoming, None, net.now).unwrap();
    net.take_wire();
    net.pass(Duration::from_millis(1200)); // DidEnd does not wait for the ACK longer than a second
    assert_eq!(
        net.bob.take_log(),
        ["INCOMING>ACCEPTING", "ACCEPTING>TERMINATING", "WillEnd", "TERMINATING>TERMINATED", "DidEnd local"]
    );
    assert!(net.bob.ua.sessions().is_empty());
    net.lost = vec![];
    net.take_wire();
    net.pass(Duration::from_secs(1));
    assert_eq!(net.take_wire(), ["< 200 INVITE", "> ACK", "< BYE", "> 200 BYE"]);
    net.expect_nothing_left();
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    let bytes = || {
        let mut side = Side::new("alice", ALICE, 99);
        side.call("sip:bob@example.com", &[BOB], start()).unwrap();
        side.drain(start()).into_iter().map(|(_, bytes, _)| bytes).collect::<Vec<_>>()
    };
    assert_eq!(bytes(), bytes());
    assert_eq!(bytes().len(), 1);
}

#[test]
fn a_session_tells_what_it_is_while_it_rings_and_runs() {
    let mut net = Pair::new();
    net.alice.call("sip:bob@example.com", &[BOB], net.now).unwrap();
    net.run();
    let (alice, bob) = (net.alice.snapshot(), net.bob.snapshot());
    assert_eq!(alice.call_id, bob.call_id);
    assert_eq!(alice.local_uri.as_ref(), bob.remote_uri.as_ref());
    assert_eq!(bob.remote_user_agent.as_deref(), Some("sipwire-test"));
    assert_eq!(bob.peer_address, Some(address(ALICE)));
    assert_eq!(alice.route, Some(route(BOB)));
    let headers = bob.request_headers.as_ref().map(crate::event::Headers::list).unwrap_or_default();
    let names: Vec<&str> = headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names[..6], ["Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq"]);
    let sdp = bob.remote_sdp().unwrap();
    assert!(sdp.contains("inline:…") && !sdp.contains('+') && sdp.contains("a=sendrecv"), "{sdp}");
    net.bob.ua.accept(net.bob.last(), true, false, net.now).unwrap();
    net.run();
    for side in [&net.alice, &net.bob] {
        let audio = side.snapshot().audio.clone().unwrap();
        assert_eq!(audio.codec, Some(crate::media::CodecKind::Opus));
        assert_eq!(audio.sample_rate, Some(48_000));
        assert_eq!(audio.srtp_suite, Some("AES_CM_128_HMAC_SHA1_80"));
        assert_eq!(audio.remote_rtp_sdp.map(|remote| remote.port()), Some(4000));
        assert!(side.snapshot().has_audio);
    }
    assert_eq!(net.alice.snapshot().remote_user_agent.as_deref(), Some("sipwire-test"));
}

#[test]
fn an_options_ping_tells_the_answer_or_that_none_came() {
    let mut net = Pair::new();
    let ping = |net: &mut Pair, target: &str| {
        net.alice.ua.options(ACCOUNT, uri(target), vec![route(BOB)], net.now).unwrap();
        net.pass(Duration::from_secs(33));
        net.alice.take_log()
    };
    assert_eq!(ping(&mut net, "sip:bob@example.com"), ["OptionsDidAnswer 200 OK"]);
    assert_eq!(ping(&mut net, "sip:nobody@192.0.2.2"), ["OptionsDidAnswer 404 Not Found"]);
    net.lost = vec![">"];
    assert_eq!(ping(&mut net, "sip:bob@example.com"), ["OptionsDidAnswer 408 Request Timeout"]);
    net.expect_nothing_left();
}

#[test]
fn shutting_down_ends_every_call() {
    let mut net = Pair::new();
    net.talk();
    net.alice.call("sip:bob@example.com", &[BOB], net.now).unwrap();
    net.run();
    assert_eq!(net.alice.ua.sessions().len(), 2);
    net.alice.ua.shutdown(net.now);
    net.run();
    assert!(net.alice.ua.sessions().is_empty() && net.bob.ua.sessions().is_empty());
    net.expect_nothing_left();
}
