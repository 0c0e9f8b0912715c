//! Our INVITE and every kind of answer to it.

use std::time::Duration;

use super::harness::*;
use crate::media::{Direction, MediaCommand};
use crate::sip::message::Method;

const CONTACT: &str = "Contact: <sip:bob@192.0.2.9>";

/// What the media side was told to start.
fn started(phone: &Lone) -> Vec<u16> {
    let port = |command: &MediaCommand| match command {
        MediaCommand::Start(params) => Some(params.remote_rtp.port()),
        _ => None,
    };
    phone.side.media.iter().filter_map(port).collect()
}

#[test]
fn the_invite_carries_what_it_must() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    assert_eq!(invite.request_uri_raw(), b"sip:bob@example.com");
    assert_eq!(invite.max_forwards().unwrap(), Some(70));
    let via = invite.top_via().unwrap();
    assert_eq!(via.host, b"192.0.2.1");
    assert_eq!(via.params.get("rport"), Some(&b""[..]));
    let branch = via.branch().unwrap();
    assert!(branch.starts_with(b"z9hG4bK") && branch.len() == 7 + 16);
    assert_eq!(invite.call_id().unwrap().len(), 32);
    assert_eq!(invite.from().unwrap().tag().unwrap().len(), 16);
    assert_eq!(invite.to().unwrap().tag(), None);
    assert_eq!(header(&invite, "Contact"), "<sip:alice@192.0.2.1:5060>");
    assert_eq!(header(&invite, "CSeq"), "1 INVITE");
    assert_eq!(header(&invite, "Content-Type"), "application/sdp");
    assert!(invite.body().starts_with(b"v=0\r\n"));
}

#[test]
fn each_180_rings_and_a_183_does_not() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.side.take_log();
    phone.respond(&invite, 100, "", &[], "");
    phone.respond(&invite, 183, "b", &[CONTACT], "");
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    phone.respond(&invite, 180, "b", &[CONTACT], "");
    phone.respond(&invite, 180, "c", &[CONTACT], "");
    assert_eq!(phone.side.take_log(), ["GotRingIndication", "GotRingIndication"]);
}

#[test]
fn a_200_is_acknowledged_with_a_new_branch_the_same_number_and_the_route_set() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    let routes = ["Record-Route: <sip:p2.example.com;lr>, <sip:192.0.2.200;lr>", CONTACT];
    phone.respond(&invite, 200, "b", &routes, SDP);
    let ack = phone.take().remove(0);
    assert_eq!(*ack.method(), Method::Ack);
    assert_eq!(ack.request_uri_raw(), b"sip:bob@192.0.2.9");
    assert_ne!(ack.top_via().unwrap().branch(), invite.top_via().unwrap().branch());
    assert_eq!(header(&ack, "CSeq"), "1 ACK");
    let all: Vec<_> = ack.header_lines(crate::sip::message::HeaderName::Route).collect();
    assert_eq!(all, [&b"<sip:192.0.2.200;lr>"[..], b"<sip:p2.example.com;lr>"]);
    assert_eq!(ack.to().unwrap().tag(), Some(&b"b"[..]));
    // The same bytes again for each repetition, and no second start.
    phone.side.take_log();
    phone.respond(&invite, 200, "b", &routes, SDP);
    assert_eq!(phone.take(), [ack]);
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
}

#[test]
fn a_strict_router_is_named_in_the_request_line() {
    let mut phone = Lone::new();
    let (call, invite) = phone.call();
    phone.respond(&invite, 200, "b", &["Record-Route: <sip:192.0.2.201>", CONTACT], SDP);
    phone.take();
    phone.side.ua.end(call, None, phone.now).unwrap();
    phone.run();
    let bye = phone.take().remove(0);
    assert_eq!(bye.request_uri_raw(), b"sip:192.0.2.201");
    assert_eq!(header(&bye, "Route"), "<sip:bob@192.0.2.9>");
    assert_eq!(header(&bye, "CSeq"), "2 BYE");
}

#[test]
fn a_second_fork_is_acknowledged_and_ended() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.respond(&invite, 180, "b", &[CONTACT], "");
    phone.respond(&invite, 180, "c", &[CONTACT], "");
    phone.respond(&invite, 200, "b", &[CONTACT], SDP);
    assert_eq!(phone.take_lines(), ["ACK"]);
    phone.side.take_log();
    phone.respond(&invite, 200, "c", &["Contact: <sip:carol@192.0.2.10>"], SDP);
    let sent = phone.take();
    assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["ACK", "BYE"]);
    assert!(sent.iter().all(|message| message.to().unwrap().tag() == Some(&b"c"[..])));
    assert!(sent.iter().all(|message| message.request_uri_raw() == b"sip:carol@192.0.2.10"));
    phone.respond(&invite, 200, "c", &["Contact: <sip:carol@192.0.2.10>"], SDP);
    assert_eq!(phone.take_lines(), ["ACK"], "one BYE is enough");
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    for tag in 0..40 {
        phone.respond(&invite, 200, &format!("invented{tag}"), &[CONTACT], SDP);
    }
    assert_eq!(phone.take().len(), 2 * 14, "forks have a limit");
}

#[test]
fn a_200_that_cannot_be_used_is_acknowledged_and_ended() {
    let refused = SDP.replace("m=audio 6000", "m=audio 0");
    for (body, reason) in [
        ("", "the answer carries no SDP"),
        (refused.as_str(), "audio was refused"),
        ("v=0\r\nnonsense\r\n", ""),
        (&SDP.replace("AVP 0", "AVP 99"), ""),
    ] {
        let mut phone = Lone::new();
        let (_, invite) = phone.call();
        phone.side.take_log();
        phone.respond(&invite, 200, "b", &[CONTACT], body);
        assert_eq!(phone.take_lines(), ["ACK", "BYE"], "{body}");
        let log = phone.side.take_log();
        assert_eq!(log[0], "CALLING>TERMINATED");
        assert!(log[1].starts_with(&format!("DidFail local 488 {reason}")), "{log:?}");
        assert!(log[1].len() > "DidFail local 488 ".len());
        assert_eq!(log[2], "DidEnd local");
        phone.expect_nothing_left();
    }
}

#[test]
fn refusals_fail_with_their_code_and_warning() {
    let cases: [(u16, &[&str], &str); 7] = [
        (486, &[], "486 Busy Here"),
        (404, &[], "404 Not Found"),
        (
            488,
            &["Warning: 305 example.com \"No \\\"codec\\\" in common\""],
            "488 Not Acceptable Here (No \"codec\" in common)",
        ),
        (302, &["Contact: <sip:else@where.example>"], "302 Moved Temporarily"),
        (401, &["WWW-Authenticate: Digest realm=\"r\", nonce=\"n\""], "401 Unauthorized (the account has no password)"),
        (407, &[], "407 Proxy Authentication Required (the account has no password)"),
        (603, &["Server: phone/1"], "603 Decline"),
    ];
    for (code, headers, failure) in cases {
        let mut phone = Lone::new();
        let (_, invite) = phone.call();
        phone.side.take_log();
        phone.respond(&invite, code, "b", headers, "");
        assert_eq!(phone.take_lines(), ["ACK"]);
        let failed = format!("DidFail remote {failure}");
        assert_eq!(phone.side.take_log(), ["CALLING>TERMINATED", failed.as_str(), "DidEnd remote"]);
        assert_eq!(phone.side.snapshot().failure.as_ref().unwrap().0, code);
        assert_eq!(phone.side.snapshot().remote_user_agent.is_some(), code == 603);
        assert_eq!(phone.side.media.last(), Some(&MediaCommand::Close));
        phone.expect_nothing_left();
    }
}

#[test]
fn early_media_starts_before_the_call_and_is_not_started_twice() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.side.take_log();
    phone.respond(&invite, 183, "b", &[CONTACT], SDP);
    assert_eq!(started(&phone), [6000]);
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    phone.respond(&invite, 200, "b", &[CONTACT], SDP);
    assert_eq!(started(&phone), [6000]);
    assert_eq!(phone.side.take_log(), ["WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart"]);
}

#[test]
fn the_answer_of_the_fork_that_wins_replaces_early_media() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.respond(&invite, 183, "b", &[CONTACT], SDP);
    phone.respond(&invite, 200, "c", &[CONTACT], &SDP.replace("6000", "7000"));
    assert_eq!(started(&phone), [6000, 7000]);
    assert_eq!(phone.side.take_log().last().unwrap(), "DidStart");
}

#[test]
fn an_answer_on_hold_says_so_after_the_start() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.side.take_log();
    phone.respond(&invite, 200, "b", &[CONTACT], &sdp(1, "sendonly"));
    assert_eq!(
        phone.side.take_log(),
        ["WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart", "GotHoldRequest remote"]
    );
    let Some(MediaCommand::Start(params)) = phone.side.media.last() else { panic!("started") };
    assert_eq!(params.direction, Direction::RecvOnly);
}

#[test]
fn responses_that_are_not_ours_change_nothing() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.side.take_log();
    let ok = crate::sip::build::Builder::response(&invite, 200, "OK", Some("b"), phone.side.at)
        .header("Contact", "<sip:bob@192.0.2.9>")
        .finish(Some(("application/sdp", SDP.as_bytes())));
    let ok = String::from_utf8(ok.to_vec()).unwrap();
    let branch = String::from_utf8(invite.top_via().unwrap().branch().unwrap().to_vec()).unwrap();
    let call_id = header(&invite, "Call-ID");
    for (part, other) in [
        (branch.as_str(), "z9hG4bKguessed"),
        ("1 INVITE", "1 BYE"),
        (&call_id, "another"),
        ("SIP/2.0/UDP 192.0.2.1", "SIP/2.0/UDP 192.0.2.3"),
    ] {
        phone.receive(ok.replace(part, other));
        assert_eq!(phone.take_lines(), Vec::<String>::new(), "{other}");
        assert_eq!(phone.side.take_log(), Vec::<String>::new(), "{other}");
    }
}

#[test]
fn an_unknown_final_code_counts_as_its_class() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.respond(&invite, 499, "b", &[], "");
    let log = phone.side.take_log();
    assert!(log[3].starts_with("DidFail remote 499"), "{log:?}");
    phone.expect_nothing_left();
}

#[test]
fn a_bye_of_the_callee_before_its_answer_is_answered_and_changes_nothing() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.respond(&invite, 180, "peer", &[CONTACT], "");
    phone.side.take_log();
    phone.take();
    let tag = String::from_utf8(invite.from().unwrap().tag().unwrap().to_vec()).unwrap();
    let mut bye = Draft::new("BYE", "early");
    bye.to_tag = Some(tag);
    let text = bye.text().replace("written-by-hand", &header(&invite, "Call-ID"));
    phone.receive(text);
    assert_eq!(phone.take_lines(), ["200 BYE"]);
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    phone.respond(&invite, 200, "peer", &[CONTACT], SDP);
    assert_eq!(phone.side.take_log().last().unwrap(), "DidStart");
}

#[test]
fn a_call_that_rings_for_minutes_still_comes_up() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.respond(&invite, 180, "b", &[CONTACT], "");
    phone.pass(Duration::from_secs(600));
    assert_eq!(phone.take_lines(), Vec::<String>::new(), "180 stopped the repetitions");
    phone.respond(&invite, 200, "b", &[CONTACT], SDP);
    assert_eq!(phone.side.take_log().last().unwrap(), "DidStart");
}
