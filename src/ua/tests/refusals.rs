//! What refusals of our INVITE lead to: redirections, other destinations, the same request with less (RFC 3261 §8.1.3).

use std::time::Duration;

use super::harness::*;
use crate::event::Refusal;
use crate::sip::message::{HeaderName, Message};
use crate::ua::AccountSettings;

const CAROL: &str = "Contact: <sip:carol@192.0.2.10>";

fn following(hops: u8) -> Lone {
    let mut phone = Lone::new();
    let settings = AccountSettings { follow_redirects: hops, ..AccountSettings::new(uri("sip:alice@example.com")) };
    phone.side.ua.set_account(ACCOUNT, settings);
    phone
}

/// Called next: request URI, CSeq, Call-ID and To of the INVITE that followed.
fn next_invite(phone: &mut Lone) -> Message {
    let mut sent = phone.take();
    assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["ACK", "INVITE"]);
    sent.remove(1)
}

fn refusal(phone: &Lone) -> Refusal {
    phone.side.snapshot().refusal.as_deref().cloned().unwrap_or_default()
}

#[test]
fn a_redirection_is_the_applications_to_follow() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.side.take_log();
    let contacts =
        "Contact: <sip:last@192.0.2.12>;q=0.1, <sip:dave@192.0.2.11>;q=0.9, <tel:+431>, <sip:carol@192.0.2.10>";
    phone.respond(&invite, 302, "b", &[contacts], "");
    assert_eq!(phone.take_lines(), ["ACK"], "nobody is called without consent");
    assert_eq!(phone.side.take_log(), ["CALLING>TERMINATED", "DidFail remote 302 Moved Temporarily", "DidEnd remote"]);
    let targets: Vec<String> = refusal(&phone).redirect_targets.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["tel:+431", "sip:carol@192.0.2.10", "sip:dave@192.0.2.11", "sip:last@192.0.2.12"]);
    phone.expect_nothing_left();
}

#[test]
fn an_account_may_follow_redirections_by_itself() {
    let mut phone = following(1);
    let (_, invite) = phone.call();
    phone.side.take_log();
    phone.respond(&invite, 302, "b", &[CAROL], "");
    let second = next_invite(&mut phone);
    assert_eq!(second.request_uri_raw(), b"sip:carol@192.0.2.10");
    assert_eq!(header(&second, "To"), "<sip:bob@example.com>", "still the one who was called");
    assert_eq!(header(&second, "CSeq"), "2 INVITE");
    assert_eq!(second.call_id().unwrap(), invite.call_id().unwrap());
    assert_ne!(second.top_via().unwrap().branch(), invite.top_via().unwrap().branch());
    assert_eq!(phone.side.take_log(), ["DidChangeRoute 192.0.2.10 302 Moved Temporarily"]);
    phone.respond(&second, 200, "c", &[CAROL], SDP);
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert_eq!(phone.side.take_log(), ["WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart"]);
}

#[test]
fn no_more_redirections_than_allowed_and_no_target_twice() {
    let mut phone = following(200);
    let (_, mut invite) = phone.call();
    for hop in 0..5 {
        phone.respond(&invite, 302, "b", &[&format!("Contact: <sip:hop{hop}@192.0.2.10>")], "");
        invite = next_invite(&mut phone);
    }
    phone.respond(&invite, 302, "b", &["Contact: <sip:hop6@192.0.2.10>"], "");
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert!(phone.side.take_log().contains(&"DidFail remote 302 Moved Temporarily".to_owned()));
    // A loop ends at once.
    let mut phone = following(5);
    let (_, invite) = phone.call();
    phone.respond(&invite, 302, "b", &[CAROL], "");
    let second = next_invite(&mut phone);
    phone.respond(&second, 302, "c", &["Contact: <sip:bob@example.com>, <sip:carol@192.0.2.10>"], "");
    assert_eq!(phone.take_lines(), ["ACK"]);
    assert!(phone.side.take_log().contains(&"DidFail remote 302 Moved Temporarily".to_owned()));
}

#[test]
fn targets_are_tried_in_order_until_one_says_no_for_all() {
    let contacts = "Contact: <sip:one@192.0.2.11>;q=0.9, <sip:two@192.0.2.12>;q=0.5, <sip:three@192.0.2.13>;q=0.1";
    let mut phone = following(1);
    let (_, invite) = phone.call();
    phone.respond(&invite, 300, "b", &[contacts], "");
    let first = next_invite(&mut phone);
    assert_eq!(first.request_uri_raw(), b"sip:one@192.0.2.11");
    phone.respond(&first, 404, "c", &[], "");
    let second = next_invite(&mut phone);
    assert_eq!(second.request_uri_raw(), b"sip:two@192.0.2.12");
    phone.side.take_log();
    phone.respond(&second, 603, "d", &[], "");
    assert_eq!(phone.take_lines(), ["ACK"], "6xx holds everywhere");
    assert_eq!(phone.side.take_log(), ["CALLING>TERMINATED", "DidFail remote 603 Decline", "DidEnd remote"]);
}

#[test]
fn what_names_no_other_place_of_the_callee_is_not_followed() {
    for (code, contact) in [(305, CAROL), (380, CAROL), (302, "Contact: <tel:+431>"), (302, "Contact: <mailto:a@b>")] {
        let mut phone = following(5);
        let (_, invite) = phone.call();
        phone.respond(&invite, code, "b", &[contact], "");
        assert_eq!(phone.take_lines(), ["ACK"], "{code} {contact}");
        assert_eq!(phone.side.snapshot().failure.as_ref().unwrap().0, code);
    }
}

#[test]
fn retry_after_is_shown_and_keeps_us_from_a_peer_while_there_is_another() {
    let mut phone = Lone::new();
    let call = |phone: &mut Lone, routes: &[&str]| {
        let session = phone.side.call("sip:bob@example.com", routes, phone.now).expect("a call");
        phone.run();
        let peer = phone.side.ua.snapshot(session).expect("a session").peer_address.expect("a peer");
        (peer.to_string(), phone.take().pop().expect("an INVITE"))
    };
    let (to, invite) = call(&mut phone, &[PEER]);
    assert_eq!(to, PEER);
    phone.respond(&invite, 503, "b", &["Retry-After: 30 (busy);duration=5"], "");
    assert_eq!(refusal(&phone).retry_after, Some(30));
    assert_eq!(phone.side.snapshot().failure.as_ref().unwrap().0, 503);
    phone.take();
    let (to, _) = call(&mut phone, &[PEER, BOB]);
    assert_eq!(to, BOB, "the other route first");
    let (to, _) = call(&mut phone, &[PEER]);
    assert_eq!(to, PEER, "but rather this one than none");
    phone.pass(Duration::from_secs(30));
    phone.take();
    let (to, _) = call(&mut phone, &[PEER, BOB]);
    assert_eq!(to, PEER);
}

#[test]
fn only_what_we_merely_offered_is_left_out_after_420() {
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.side.take_log();
    phone.respond(&invite, 420, "b", &["Unsupported: x-else"], "");
    assert_eq!(phone.take_lines(), ["ACK"], "we never asked for that");
    let mut phone = Lone::new();
    let (_, invite) = phone.call();
    phone.respond(&invite, 420, "b", &["Unsupported: 100rel"], "");
    let second = next_invite(&mut phone);
    assert!(!second.lists(HeaderName::Supported, "100rel"));
    phone.respond(&second, 420, "b", &["Unsupported: 100rel"], "");
    assert_eq!(phone.take_lines(), ["ACK"], "once is enough");
}

#[test]
fn refusals_of_the_content_are_not_asked_again() {
    for code in [413, 415, 416, 421, 488] {
        let mut phone = Lone::new();
        let (_, invite) = phone.call();
        phone.respond(&invite, code, "b", &["Accept: text/plain", "Retry-After: 7"], "");
        assert_eq!(phone.take_lines(), ["ACK"], "{code}: there is nothing we could say otherwise");
        assert_eq!(phone.side.snapshot().failure.as_ref().unwrap().0, code);
        assert_eq!(refusal(&phone).retry_after, Some(7));
    }
}

#[test]
fn sips_is_reached_over_tls_only_and_never_redirected_to_less() {
    let mut phone = Lone::new();
    let error = phone.side.call("sips:bob@example.com", &[PEER], phone.now).unwrap_err();
    assert_eq!(error.to_string(), "sips:bob@example.com is called over TLS only, not over udp");
}
