//! Each arrow of the diagram, against a registrar played by hand.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::backoff;
use crate::event::AccountId;
use crate::sip::build::Builder;
use crate::sip::digest::Credentials;
use crate::sip::message::{HeaderName, Message};
use crate::sip::transport::{Flow, Transport};
use crate::ua::tests::harness::*;
use crate::ua::{AccountSettings, RegistrationSettings};

const INSTANCE: &str = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
const OK: &str = "Contact: <sip:alice@192.0.2.1:5060>;expires=600";

fn settings(change: impl FnOnce(&mut AccountSettings)) -> AccountSettings {
    let mut settings = AccountSettings::new(uri("sip:alice@example.com"));
    settings.registration = Some(RegistrationSettings {
        registrar: Some(uri("sip:192.0.2.9:5060")),
        expires: Duration::from_secs(600),
        instance: None,
    });
    change(&mut settings);
    settings
}

/// Alice with these settings, and the REGISTER she sends at once.
fn registering(change: impl FnOnce(&mut AccountSettings)) -> (Lone, Message) {
    let mut phone = Lone::new();
    phone.side.ua.set_account(ACCOUNT, settings(change));
    phone.side.ua.settings_changed(ACCOUNT, phone.now);
    phone.run();
    let sent = only(&mut phone);
    assert_eq!(phone.side.take_log(), ["AccountWillRegister"]);
    (phone, sent)
}

fn registered(change: impl FnOnce(&mut AccountSettings)) -> Lone {
    let (mut phone, register) = registering(change);
    phone.respond(&register, 200, "r", &[OK], "");
    assert_eq!(phone.side.take_log(), [success(600)]);
    phone
}

fn success(expires: u32) -> String {
    format!("AccountRegistrationDidSucceed sip:alice@192.0.2.1:5060 {expires}")
}

fn only(phone: &mut Lone) -> Message {
    let mut sent = phone.take();
    assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["REGISTER"]);
    sent.remove(0)
}

fn contacts(message: &Message) -> Vec<String> {
    message.header_lines(HeaderName::Contact).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

/// The next REGISTER, and how long it took to come.
fn wait_for_register(phone: &mut Lone, limit: Duration) -> (Message, Duration) {
    let begun = phone.now;
    while phone.now - begun < limit {
        let Some(at) = phone.side.ua.poll_timeout() else { break };
        let step = at.max(phone.now) - phone.now;
        phone.pass(step);
        if let Some(sent) = phone.take().pop() {
            return (sent, phone.now - begun);
        }
    }
    panic!("no REGISTER within {limit:?}");
}

/// The retransmissions of a request that nobody answers.
fn stay_silent(phone: &mut Lone) {
    phone.pass(Duration::from_secs(32));
    phone.take();
}

#[test]
fn off_to_registering_to_registered_to_refreshing_to_registered() {
    let (mut phone, first) = registering(|_| {});
    assert_eq!(first.request_uri_raw(), b"sip:192.0.2.9:5060");
    for (name, value) in [
        ("To", "<sip:alice@example.com>"),
        ("CSeq", "1 REGISTER"),
        ("Contact", "<sip:alice@192.0.2.1:5060>"),
        ("Expires", "600"),
        ("Supported", "path"),
    ] {
        assert_eq!(header(&first, name), value, "{name}");
    }
    phone.respond(&first, 200, "r", &[OK], "");
    assert_eq!(phone.side.take_log(), [success(600)]);
    let (second, after) = wait_for_register(&mut phone, Duration::from_secs(600));
    assert!((480.0..=570.0).contains(&after.as_secs_f64()), "{after:?}");
    assert_eq!(second.call_id().unwrap(), first.call_id().unwrap());
    assert_eq!(second.cseq().unwrap().number, 2);
    phone.respond(&second, 200, "r", &[OK], "");
    assert_eq!(phone.side.take_log(), ["AccountWillRegister".to_owned(), success(600)]);
}

#[test]
fn registering_to_waiting_to_registering() {
    let (mut phone, first) = registering(|_| {});
    phone.respond(&first, 500, "r", &[], "");
    let log = phone.side.take_log();
    assert!(log[0].starts_with("AccountRegistrationDidFail 500 Server Internal Error again in "), "{log:?}");
    let (second, after) = wait_for_register(&mut phone, Duration::from_secs(10));
    assert!((1.0..=3.0).contains(&after.as_secs_f64()), "{after:?}");
    assert_eq!((second.call_id().unwrap(), second.cseq().unwrap().number), (first.call_id().unwrap(), 2));
    phone.respond(&second, 500, "r", &[], "");
    let (third, after) = wait_for_register(&mut phone, Duration::from_secs(60));
    assert!((15.0..=30.0).contains(&after.as_secs_f64()), "{after:?}");
    phone.respond(&third, 200, "r", &[OK], "");
    assert_eq!(phone.side.take_log().last(), Some(&success(600)));
}

#[test]
fn refreshing_to_waiting_and_back_after_silence() {
    let mut phone = registered(|_| {});
    wait_for_register(&mut phone, Duration::from_secs(600));
    stay_silent(&mut phone);
    let log = phone.side.take_log();
    assert!(log[1].starts_with("AccountRegistrationDidFail 408 Request Timeout again in "), "{log:?}");
    let (again, _) = wait_for_register(&mut phone, Duration::from_secs(10));
    phone.respond(&again, 200, "r", &[OK], "");
    assert_eq!(phone.side.take_log(), ["AccountWillRegister".to_owned(), success(600)]);
}

#[test]
fn a_wrong_password_is_not_tried_again_until_it_changes() {
    let with = |password: &str| {
        let credentials = Credentials { username: "alice".into(), password: password.into() };
        move |settings: &mut AccountSettings| settings.credentials = Some(credentials)
    };
    let (mut phone, first) = registering(with("wrong"));
    // No challenge at all in it: nothing to answer.
    phone.respond(&first, 401, "r", &[], "");
    let log = phone.side.take_log();
    assert!(log[0].starts_with("AccountRegistrationDidFail 401 ") && log[0].ends_with(" for good"), "{log:?}");
    phone.pass(Duration::from_secs(7200));
    assert!(phone.take().is_empty());
    phone.side.ua.set_account(ACCOUNT, settings(with("wrong")));
    phone.side.ua.settings_changed(ACCOUNT, phone.now);
    phone.run();
    assert!(phone.take().is_empty(), "the same settings");
    phone.side.ua.set_account(ACCOUNT, settings(with("right")));
    phone.side.ua.settings_changed(ACCOUNT, phone.now);
    phone.run();
    let second = only(&mut phone);
    phone.respond(&second, 200, "r", &[OK], "");
    assert_eq!(phone.side.take_log(), ["AccountWillRegister".to_owned(), success(600)]);
}

#[test]
fn registered_to_unregistering_to_off() {
    let mut phone = registered(|_| {});
    phone.side.ua.unregister(ACCOUNT, phone.now).unwrap();
    phone.run();
    let goodbye = only(&mut phone);
    assert_eq!(contacts(&goodbye), ["<sip:alice@192.0.2.1:5060>"]);
    assert_eq!((header(&goodbye, "Expires"), goodbye.cseq().unwrap().number), ("0".into(), 2));
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    phone.respond(&goodbye, 200, "r", &[], "");
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidEnd"]);
    assert!(!phone.side.ua.unregister(ACCOUNT, phone.now).unwrap());
    assert_eq!(phone.side.take_log(), Vec::<String>::new(), "once");
    phone.expect_nothing_left();
}

#[test]
fn waiting_to_unregistering_while_the_binding_lives_and_to_off_without_one() {
    let mut phone = registered(|_| {});
    let (refresh, _) = wait_for_register(&mut phone, Duration::from_secs(600));
    phone.respond(&refresh, 500, "r", &[], "");
    phone.side.take_log();
    phone.side.ua.unregister(ACCOUNT, phone.now).unwrap();
    phone.run();
    let goodbye = only(&mut phone);
    phone.respond(&goodbye, 500, "r", &[], "");
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidEnd"], "it runs out by itself");
    phone.expect_nothing_left();

    let (mut phone, first) = registering(|_| {});
    phone.respond(&first, 500, "r", &[], "");
    phone.side.take_log();
    phone.side.ua.unregister(ACCOUNT, phone.now).unwrap();
    phone.run();
    assert!(phone.take().is_empty());
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidEnd"]);
    phone.expect_nothing_left();
}

#[test]
fn unregister_waits_for_the_answer_that_is_out() {
    for (code, sent) in [(200, 1), (500, 0)] {
        let (mut phone, first) = registering(|_| {});
        phone.side.ua.unregister(ACCOUNT, phone.now).unwrap();
        phone.run();
        assert!(phone.take().is_empty(), "one REGISTER at a time");
        phone.respond(&first, code, "r", &[OK], "");
        let goodbyes = phone.take();
        assert_eq!(goodbyes.len(), sent);
        for goodbye in goodbyes {
            assert_eq!(header(&goodbye, "Expires"), "0");
            phone.respond(&goodbye, 200, "r", &[], "");
        }
        assert_eq!(phone.side.take_log(), ["AccountRegistrationDidEnd"]);
        phone.expect_nothing_left();
    }
}

#[test]
fn register_during_unregistering_follows_it() {
    let mut phone = registered(|_| {});
    phone.side.ua.unregister(ACCOUNT, phone.now).unwrap();
    phone.side.ua.register(ACCOUNT, phone.now).unwrap();
    phone.run();
    let goodbye = only(&mut phone);
    phone.respond(&goodbye, 200, "r", &[], "");
    let again = only(&mut phone);
    assert_eq!(header(&again, "Expires"), "600");
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidEnd", "AccountWillRegister"]);
}

#[test]
fn another_registrar_gets_the_account_after_the_old_one_was_told() {
    let mut phone = registered(|_| {});
    let moved = settings(|settings| {
        settings.registration.as_mut().unwrap().registrar = Some(uri("sip:192.0.2.8:5080"));
    });
    phone.side.ua.set_account(ACCOUNT, moved);
    phone.side.ua.settings_changed(ACCOUNT, phone.now);
    phone.run();
    let goodbye = only(&mut phone);
    assert_eq!((goodbye.request_uri_raw(), header(&goodbye, "Expires")), (&b"sip:192.0.2.9:5060"[..], "0".into()));
    phone.respond(&goodbye, 200, "r", &[], "");
    let there = only(&mut phone);
    assert_eq!((there.request_uri_raw(), header(&there, "Expires")), (&b"sip:192.0.2.8:5080"[..], "600".into()));
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidEnd", "AccountWillRegister"]);
}

#[test]
fn settings_that_say_no_end_it_and_settings_of_something_else_change_nothing() {
    let mut phone = registered(|_| {});
    phone.side.ua.set_account(ACCOUNT, settings(|settings| settings.require_100rel = true));
    phone.side.ua.settings_changed(ACCOUNT, phone.now);
    phone.run();
    assert!(phone.take().is_empty());
    phone.side.ua.set_account(ACCOUNT, settings(|settings| settings.registration = None));
    phone.side.ua.settings_changed(ACCOUNT, phone.now);
    phone.run();
    assert_eq!(header(&only(&mut phone), "Expires"), "0");
    let error = phone.side.ua.register(ACCOUNT, phone.now).unwrap_err();
    assert_eq!(error.to_string(), "account sip:alice@example.com does not register");
}

#[test]
fn a_removed_account_is_unregistered_and_gone_then() {
    let mut phone = registered(|_| {});
    phone.side.ua.remove_account(ACCOUNT, phone.now);
    phone.run();
    let goodbye = only(&mut phone);
    assert_eq!(header(&goodbye, "Expires"), "0");
    assert!(phone.side.call("sip:bob@example.com", &[PEER], phone.now).is_err());
    assert_eq!(first_line(&phone.ask(&Draft::invite())[0]), "404 INVITE");
    phone.respond(&goodbye, 200, "r", &[], "");
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidEnd"]);
    assert!(phone.side.ua.unregister(ACCOUNT, phone.now).is_err());
    phone.expect_nothing_left();
}

#[test]
fn the_end_of_all_unregisters_and_waits_only_so_long() {
    let mut phone = registered(|_| {});
    phone.side.ua.shutdown(phone.now);
    phone.run();
    assert_eq!(header(&only(&mut phone), "Expires"), "0");
    assert!(phone.side.ua.is_registered());
    phone.side.ua.abandon_registrations(phone.now);
    assert!(!phone.side.ua.is_registered());
    phone.run();
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidEnd"]);
    phone.expect_nothing_left();
}

#[test]
fn a_redirection_is_followed_as_often_as_the_account_allows() {
    let moved = &["Contact: <sip:192.0.2.7:5070>;q=0.5, <mailto:a@example.com>, <sip:192.0.2.8>;q=0.9"];
    let (mut phone, first) = registering(|settings| settings.follow_redirects = 1);
    phone.respond(&first, 302, "r", moved, "");
    let second = only(&mut phone);
    assert_eq!((second.request_uri_raw(), second.cseq().unwrap().number), (&b"sip:192.0.2.8"[..], 2));
    phone.respond(&second, 302, "r", moved, "");
    assert!(phone.take().is_empty());
    assert!(phone.side.take_log()[0].starts_with("AccountRegistrationDidFail 302 "));

    let (mut phone, first) = registering(|_| {});
    phone.respond(&first, 302, "r", moved, "");
    assert!(phone.take().is_empty());
    assert!(phone.side.take_log()[0].starts_with("AccountRegistrationDidFail 302 "));
}

#[test]
fn a_sips_registrar_is_never_left_for_a_sip_one() {
    let change = |settings: &mut AccountSettings| {
        settings.registration.as_mut().unwrap().registrar = Some(uri("sips:192.0.2.9"));
        settings.follow_redirects = 3;
    };
    let mut phone = Lone::new();
    phone.side.ua.config_mut().local.push((Transport::Tls, address("192.0.2.1:5061")));
    phone.side.ua.set_account(ACCOUNT, settings(change));
    phone.side.ua.settings_changed(ACCOUNT, phone.now);
    phone.run();
    let register = only(&mut phone);
    assert_eq!(header(&register, "Contact"), "<sips:alice@192.0.2.1:5061>");
    phone.respond(&register, 302, "r", &["Contact: <sip:192.0.2.8>"], "");
    assert!(phone.take().is_empty());
}

#[test]
fn a_brief_interval_is_raised_once_and_remembered() {
    let (mut phone, first) = registering(|_| {});
    phone.respond(&first, 423, "r", &["Min-Expires: 1800"], "");
    let second = only(&mut phone);
    assert_eq!(header(&second, "Expires"), "1800");
    phone.respond(&second, 200, "r", &["Contact: <sip:alice@192.0.2.1:5060>;expires=1800"], "");
    assert_eq!(phone.side.take_log(), [success(1800)]);
    let (third, _) = wait_for_register(&mut phone, Duration::from_secs(1800));
    assert_eq!(header(&third, "Expires"), "1800");
    for stubborn in ["Min-Expires: 600", "Min-Expires: x", "X: 1"] {
        let (mut phone, first) = registering(|_| {});
        phone.respond(&first, 423, "r", &[stubborn], "");
        assert!(phone.take().is_empty(), "{stubborn}");
        assert!(phone.side.take_log()[0].starts_with("AccountRegistrationDidFail 423 "));
    }
}

#[test]
fn the_address_behind_a_nat_is_learned_registered_and_used_in_calls() {
    let seen: SocketAddr = address("203.0.113.5:40001");
    let answer = |phone: &mut Lone, request: &Message, headers: &[&str]| {
        let mut response = Builder::response(request, 200, "", Some("r"), seen);
        for header in headers {
            let (name, value) = header.split_once(": ").unwrap();
            response = response.header(name, value);
        }
        phone.receive(response.finish(None).to_vec());
    };
    let (mut phone, first) = registering(|_| {});
    answer(&mut phone, &first, &[OK]);
    let second = only(&mut phone);
    assert_eq!(contacts(&second), ["<sip:alice@203.0.113.5:40001>", "<sip:alice@192.0.2.1:5060>;expires=0"]);
    answer(&mut phone, &second, &["Contact: <sip:alice@203.0.113.5:40001>;expires=600"]);
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidSucceed sip:alice@203.0.113.5:40001 600"]);
    assert!(phone.take().is_empty(), "once");
    let (_, invite) = phone.call();
    assert_eq!(header(&invite, "Contact"), "<sip:alice@203.0.113.5:40001>");
    let ring = phone.ask(&Draft { uri: "sip:alice@203.0.113.5:40001", ..Draft::invite() });
    assert_eq!(first_line(&ring[0]), "180 INVITE", "who is called there is found");
    phone.side.ua.shutdown(phone.now);
}

#[test]
fn a_nat_that_gives_another_port_each_time_is_followed_once_an_attempt() {
    let (mut phone, mut register) = registering(|_| {});
    for port in [40_001, 40_002] {
        let seen = SocketAddr::new(address("203.0.113.5:1").ip(), port);
        let response = Builder::response(&register, 200, "", Some("r"), seen).header("Expires", 600).finish(None);
        phone.receive(response.to_vec());
        match port {
            40_001 => register = only(&mut phone),
            _ => assert!(phone.take().is_empty()),
        }
    }
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidSucceed sip:alice@203.0.113.5:40001 600"]);
}

#[test]
fn another_address_of_ours_is_registered_within_two_seconds_and_the_old_one_taken_back() {
    let mut phone = registered(|_| {});
    let moved = address("192.0.2.77:5060");
    phone.side.ua.set_local(vec![(Transport::Udp, moved)], phone.now);
    phone.side.at = moved;
    let (register, after) = wait_for_register(&mut phone, Duration::from_secs(10));
    assert!(after <= Duration::from_secs(2), "{after:?}");
    assert_eq!(contacts(&register), ["<sip:alice@192.0.2.77:5060>", "<sip:alice@192.0.2.1:5060>;expires=0"]);
    phone.respond(&register, 200, "r", &["Contact: <sip:alice@192.0.2.77:5060>;expires=600"], "");
    let log = phone.side.take_log();
    assert_eq!(log[1], "AccountRegistrationDidSucceed sip:alice@192.0.2.77:5060 600");
    phone.side.ua.set_local(vec![(Transport::Udp, moved)], phone.now);
    phone.pass(Duration::from_secs(10));
    assert!(phone.take().is_empty(), "the same address");
}

#[test]
fn a_change_while_a_register_is_out_is_followed_by_another_one() {
    let (mut phone, first) = registering(|_| {});
    phone.side.ua.set_local(vec![(Transport::Udp, address("192.0.2.77:5060"))], phone.now);
    phone.respond(&first, 200, "r", &[OK], "");
    let second = only(&mut phone);
    assert_eq!(contacts(&second)[0], "<sip:alice@192.0.2.77:5060>");
    phone.side.at = address("192.0.2.77:5060");
    phone.respond(&second, 200, "r", &["Contact: <sip:alice@192.0.2.77:5060>;expires=600"], "");
    assert_eq!(phone.side.take_log(), ["AccountRegistrationDidSucceed sip:alice@192.0.2.77:5060 600"]);
}

#[test]
fn a_machine_that_slept_refreshes_at_once() {
    let mut phone = registered(|_| {});
    phone.side.ua.handle_resumed(phone.now);
    let (_, after) = wait_for_register(&mut phone, Duration::from_secs(10));
    assert!(after <= Duration::from_secs(2), "{after:?}");
}

#[test]
fn two_accounts_with_one_user_are_told_apart_by_their_contacts() {
    let mut phone = Lone::new();
    for (number, host) in [(1, "one"), (2, "two")] {
        let settings = settings(|settings| settings.uri = uri(&format!("sip:alice@{host}.example")));
        phone.side.ua.set_account(AccountId(number), settings);
        phone.side.ua.settings_changed(AccountId(number), phone.now);
    }
    phone.run();
    let sent = phone.take();
    let registered = |at: usize| sent[at].contact().unwrap().unwrap().uri().unwrap();
    assert_eq!(registered(0).to_string(), "sip:alice@192.0.2.1:5060");
    let token = registered(1).user.unwrap();
    assert_eq!(token.len(), 16);
    for (at, account) in [(0, 1), (1, 2)] {
        let target: &'static str = registered(at).to_string().leak();
        phone.ask(&Draft { uri: target, branch: format!("b{at}"), number: account, ..Draft::invite() });
        assert_eq!(phone.side.snapshot().account, Some(AccountId(account.into())));
    }
}

#[test]
fn outbound_gruu_service_route_and_flow_timer() {
    let instance = |settings: &mut AccountSettings| {
        settings.registration.as_mut().unwrap().instance = Some(INSTANCE.into());
    };
    let (mut phone, register) = registering(instance);
    let ours = format!("<sip:alice@192.0.2.1:5060>;+sip.instance=\"<{INSTANCE}>\";reg-id=1");
    assert_eq!(contacts(&register), std::slice::from_ref(&ours));
    assert_eq!(header(&register, "Supported"), "path, outbound, gruu");
    let granted = format!("Contact: {ours};pub-gruu=\"sip:alice@example.com;gr=urn:x\";expires=600");
    let routes = "Service-Route: <sip:edge.example.com;lr>, <sip:core.example.com;lr>";
    phone.respond(&register, 200, "r", &[&granted, routes, "Require: outbound", "Flow-Timer: 100"], "");
    let (flow, interval) = phone.side.keep_alives.pop().expect("a flow to be kept open");
    assert_eq!(flow, Lone::flow());
    assert!((80.0..=100.0).contains(&interval.expect("an interval").as_secs_f64()), "{interval:?}");
    let (_, invite) = phone.call();
    assert_eq!(header(&invite, "Contact"), "<sip:alice@example.com;gr=urn:x>");
    let routes: Vec<_> = invite.header_lines(HeaderName::Route).map(String::from_utf8_lossy).collect();
    assert_eq!(routes, ["<sip:edge.example.com;lr>", "<sip:core.example.com;lr>"]);
    phone.side.call("sip:bob@example.com", &["192.0.2.55:5060"], phone.now).unwrap();
    phone.run();
    let direct = phone.take().pop().unwrap();
    assert_eq!(direct.header(HeaderName::Route), None, "a peer called directly is not behind our proxy");
    phone.side.ua.unregister(ACCOUNT, phone.now).unwrap();
    phone.run();
    let goodbye = only(&mut phone);
    assert_eq!(contacts(&goodbye), [ours]);
    phone.respond(&goodbye, 200, "r", &[], "");
    assert_eq!(phone.side.keep_alives.pop(), Some((Lone::flow(), None)));
}

#[test]
fn a_way_without_outbound_is_taken_without_it() {
    let (mut phone, first) = registering(|settings| {
        settings.registration.as_mut().unwrap().instance = Some(INSTANCE.into());
    });
    phone.respond(&first, 439, "r", &[], "");
    let second = only(&mut phone);
    assert_eq!(contacts(&second), [format!("<sip:alice@192.0.2.1:5060>;+sip.instance=\"<{INSTANCE}>\"")]);
    assert_eq!(header(&second, "Supported"), "path, gruu");
    phone.respond(&second, 439, "r", &[], "");
    assert!(phone.take().is_empty());
    assert!(phone.side.take_log()[0].starts_with("AccountRegistrationDidFail 439 "));
}

#[test]
fn a_lost_flow_is_registered_again_soon() {
    let mut phone = registered(|_| {});
    let other = Flow { transport: Transport::Tcp, ..Lone::flow() };
    phone.side.ua.handle_flow_failed(other, phone.now);
    phone.pass(Duration::from_secs(5));
    assert!(phone.take().is_empty(), "another flow");
    phone.side.ua.handle_flow_failed(Lone::flow(), phone.now);
    let (_, after) = wait_for_register(&mut phone, Duration::from_secs(10));
    assert!(after >= Duration::from_secs(1) && after <= Duration::from_secs(3), "{after:?}");
}

#[test]
fn what_a_200_grants() {
    let ours = "<sip:alice@192.0.2.1:5060>";
    for (headers, expires) in [
        (vec![format!("Contact: {ours};expires=300"), "Expires: 900".into()], Some(300)),
        (vec![format!("Contact: {ours}"), "Expires: 900".into()], Some(900)),
        (vec![format!("Contact: {ours}")], Some(600)),
        (vec![], Some(600)),
        (vec!["Expires: 120".into()], Some(120)),
        (vec![format!("Contact: <sip:alice@192.0.2.200>;expires=7, {ours};expires=90")], Some(90)),
        (vec!["Contact: <sip:alice@192.0.2.200>;expires=7".into()], Some(600)),
        (vec!["Contact: *".into(), format!("Contact: {ours};expires=90")], Some(90)),
        (vec!["Contact: <:::>;expires=7".into(), format!("Contact: {ours};expires=90")], Some(90)),
        (vec!["Contact: <sip:alice@192.0.2.1:5060;transport=udp;x=y>;expires=90".into()], Some(90)),
        (vec![format!("Contact: {ours};expires=x")], Some(600)),
        (vec![format!("Contact: {ours};expires=99999999999999")], Some(u32::MAX)),
        (vec![format!("Contact: {ours};expires=0")], None),
    ] {
        let (mut phone, register) = registering(|_| {});
        let mut text =
            String::from_utf8(Builder::response(&register, 200, "", Some("r"), phone.side.at).finish(None).to_vec())
                .unwrap();
        let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        text = text.replacen("Content-Length", &format!("{lines}Content-Length"), 1);
        let readable = Message::parse(Bytes::from(text.clone().into_bytes())).is_ok_and(|m| m.validate().is_ok());
        if !readable {
            continue; // answered by nobody: the request is sent again and fails in the end
        }
        phone.receive(text);
        let log = phone.side.take_log();
        match expires {
            Some(expires) => assert_eq!(log, [success(expires)], "{headers:?}"),
            None => {
                assert!(log[0].starts_with("AccountRegistrationDidFail 200 the registrar granted no time"), "{log:?}")
            }
        }
    }
}

#[test]
fn a_moment_is_never_nothing() {
    assert!(backoff::LEAST_REFRESH > Duration::ZERO);
    let (mut phone, register) = registering(|_| {});
    phone.respond(&register, 200, "r", &["Contact: <sip:alice@192.0.2.1:5060>;expires=1"], "");
    let (_, after) = wait_for_register(&mut phone, Duration::from_secs(5));
    assert!(after >= Duration::from_secs(1), "{after:?}");
}
