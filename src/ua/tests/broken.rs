//! A fault of ours ends the session it happened in and nothing else.

use super::harness::*;
use crate::event::SessionId;

/// Something panics while a session is handled.
fn break_in(phone: &mut Lone, session: SessionId) {
    let nothing: Option<()> = phone.side.ua.with(session, |_, _| panic!("a fault of ours"));
    assert_eq!(nothing, None);
    phone.side.ua.handle_timeout(phone.now);
    phone.run();
}

#[test]
fn a_panic_in_a_call_is_its_did_fail_with_code_0_and_the_peer_is_told() {
    let failed = |state: &str| {
        let state = format!("{state}>TERMINATED");
        let why = "DidFail local 0 Internal error: a fault of ours";
        let exception = "EngineGotException { error: \"a fault of ours\" }";
        [&state, why, "DidEnd local", exception].map(str::to_owned).to_vec()
    };
    // Ringing for us.
    let mut phone = Lone::new();
    phone.ask(&Draft::invite());
    let session = phone.side.last();
    phone.side.take_log();
    break_in(&mut phone, session);
    assert_eq!(phone.take_lines(), ["500 INVITE"]);
    assert_eq!(phone.side.take_log(), failed("INCOMING"));
    // The user agent takes the next call.
    let next = Draft { branch: "next".into(), number: 2, ..Draft::invite() };
    assert_eq!(phone.ask(&next).iter().map(first_line).collect::<Vec<_>>(), ["180 INVITE"]);
    assert_eq!(phone.side.ua.stats().broken_sessions, 1);
    // Up.
    let mut phone = Lone::new();
    let (session, _) = phone.talk();
    break_in(&mut phone, session);
    let mut expected = failed("ESTABLISHED");
    expected.insert(0, "GotStreamUpdate ".to_owned());
    assert_eq!(phone.side.take_log(), expected);
    assert_eq!(phone.take_lines(), ["BYE"]);
    phone.expect_nothing_left();
    // Calling.
    let mut phone = Lone::new();
    let (session, invite) = phone.call();
    phone.respond(&invite, 180, "b", &[], "");
    phone.side.take_log();
    break_in(&mut phone, session);
    assert_eq!(phone.take_lines(), ["CANCEL"]);
    assert_eq!(phone.side.take_log(), failed("CALLING"));
    phone.respond(&invite, 487, "b", &[], "");
    phone.expect_nothing_left();
}

#[test]
fn other_calls_do_not_notice() {
    let mut pair = Pair::new();
    let (alice, _) = pair.talk();
    let second = pair.alice.call("sip:bob@example.com", &[BOB], pair.now).expect("a call");
    pair.run();
    let _: Option<()> = pair.alice.ua.with(second, |_, _| panic!("a fault of ours"));
    pair.alice.ua.handle_timeout(pair.now);
    pair.run();
    assert_eq!(pair.alice.snapshots[&alice].state, crate::event::SessionState::Established);
    assert!(pair.alice.ua.sessions().contains(&alice));
    pair.alice.ua.end(alice, None, pair.now).unwrap();
    pair.expect_nothing_left();
}
