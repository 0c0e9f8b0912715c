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
