//! Calls that change while they last, over a lossy network: hold, resume, chat that comes and goes, from both sides and
//! at the same time. The seed in a failure's message replays it.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use rand::RngExt;

use sipwire::event::{EventKind, Originator, SessionId};
use sipwire::sip::transport::Transport;

use support::{Action, Link, SimNet};

const ALICE: usize = 0;
const BOB: usize = 1;

/// Changes begin when the call is up; …
const FROM: Duration = Duration::from_secs(10);
/// … they end here, …
const UNTIL: Duration = Duration::from_secs(40);
/// … and what the network has delayed by then is through here.
const QUIET: Duration = Duration::from_secs(160);

/// What one application may do next.
fn change(session: SessionId, kind: u32) -> Action {
    match kind {
        0 | 1 => Action::Hold(session, true),
        2 | 3 => Action::Hold(session, false),
        4 => Action::AddChat(session),
        _ => Action::RemoveChat(session),
    }
}

/// What happened in a call, in numbers.
#[derive(Debug, Default)]
struct Tally {
    calls: u32,
    lasted: u32,
    glares: u32,
    accepted: u32,
    rejected: u32,
}

fn changing_call(seed: u64, loss: u32, tally: &mut Tally) -> Result<(), String> {
    let mut net = SimNet::pair(seed);
    net.link = Link::lossy(loss, Duration::from_millis(120));
    net.trace = Some(Vec::new());
    for node in [ALICE, BOB] {
        net.nodes[node].react = Some(Box::new(|event, random| match (&event.kind, event.session()) {
            (EventKind::SessionNewIncoming { .. }, Some(session)) => {
                vec![(Duration::from_millis(random.random_range(0..500)), Action::Accept(session))]
            }
            (EventKind::SessionGotStreamProposal { proposer: Originator::Remote, .. }, Some(session)) => {
                let soon = Duration::from_millis(random.random_range(0..3_000));
                match random.random_range(0..4) {
                    0 => vec![(soon, Action::RejectProposal(session))],
                    _ => vec![(soon, Action::AcceptProposal(session))],
                }
            }
            _ => Vec::new(),
        }));
    }
    let alice = net.call(ALICE, BOB, Transport::Udp);
    net.run_for(FROM);
    tally.calls += 1;
    let bob = net.nodes[BOB].events.iter().find_map(|(_, event)| event.session());
    if let Some(bob) = bob {
        for (node, session) in [(ALICE, alice), (BOB, bob)] {
            for _ in 0..net.random.random_range(1..6) {
                let after = net.random.random_range(Duration::ZERO..UNTIL - FROM);
                // Many at the same time as somebody else's.
                let after = Duration::from_millis(after.as_millis() as u64 / 1_000 * 1_000);
                let kind = net.random.random_range(0..6);
                net.plan(node, after, change(session, kind));
            }
        }
        net.run_for(QUIET - FROM);
        let both = [(ALICE, alice), (BOB, bob)].map(|(node, session)| {
            let ua = net.nodes[node].ua.as_ref().expect("a user agent");
            ua.snapshot(session)
        });
        if let [Some(a), Some(b)] = both {
            tally.lasted += 1;
            let facts = [
                (a.on_hold_by_local, b.on_hold_by_remote, "alice holds"),
                (b.on_hold_by_local, a.on_hold_by_remote, "bob holds"),
                (a.has_chat, b.has_chat, "there is chat"),
                (a.has_audio, b.has_audio, "there is audio"),
            ];
            for (one, other, what) in facts {
                if one != other {
                    let words = (net.words(ALICE, alice), net.words(BOB, bob));
                    return Err(format!("{what}: {one} for one, {other} for the other\n{words:?}"));
                }
            }
            if (a.state.name(), b.state.name()) != ("ESTABLISHED", "ESTABLISHED") {
                return Err(format!("still {} and {}", a.state.name(), b.state.name()));
            }
        }
    }
    net.end(ALICE, alice);
    net.run_to_the_end(Duration::from_secs(600));
    net.check()?;
    let trace = net.trace.take().unwrap_or_default();
    tally.glares += trace.iter().filter(|line| line.contains(" 491 ")).count() as u32;
    for node in [ALICE, BOB] {
        let words = net.all_words(node);
        let count = |what: &str| words.iter().filter(|word| word.starts_with(what)).count() as u32;
        tally.accepted += count("AcceptedStreamProposal");
        tally.rejected += count("RejectedStreamProposal");
    }
    Ok(())
}

fn changing_calls(seeds: std::ops::Range<u64>, loss: u32) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        if let Err(error) = changing_call(seed, loss, &mut tally) {
            panic!("seed {seed} at {loss} % loss: {error}");
        }
    }
    tally
}

#[test]
fn two_thousand_calls_that_change_at_10_percent_loss() {
    let tally = changing_calls(700_000..702_000, 10);
    assert!(tally.glares > 100 && tally.accepted > 500 && tally.rejected > 100, "{tally:?}");
    assert!(tally.lasted > tally.calls * 99 / 100, "{tally:?}");
}

#[test]
fn two_thousand_calls_that_change_at_20_percent_loss() {
    let tally = changing_calls(710_000..712_000, 20);
    assert!(tally.glares > 100 && tally.accepted > 500 && tally.rejected > 100, "{tally:?}");
    assert!(tally.lasted > tally.calls * 95 / 100, "{tally:?}");
}
