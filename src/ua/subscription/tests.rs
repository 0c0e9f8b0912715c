//! Every arrow of the three machines, against a peer played by hand; then both roles against each other.

use std::time::Duration;

use super::*;
use crate::event::{EventKind, SubscriptionId};
use crate::sip::event_package::EndReason;
use crate::sip::message::Message;
use crate::ua::tests::harness::*;
use crate::ua::{AccountSettings, Output, RegistrationSettings, VerbError};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn watch(event: &str, expires: u32) -> Subscribe {
    Subscribe {
        account: ACCOUNT,
        event: event.into(),
        uri: Some(uri("sip:bob@example.com")),
        routes: vec![route(PEER)],
        expires,
        accept: Vec::new(),
    }
}

/// Alice with a subscription to presence, and the last SUBSCRIBE she sent.
struct Watching {
    phone: Lone,
    id: SubscriptionId,
    request: Message,
    number: u32,
}

impl Watching {
    fn new(expires: u32) -> Self {
        let mut phone = Lone::new();
        let id = phone.side.ua.subscribe(watch("presence", expires), phone.now).unwrap();
        phone.run();
        let request = phone.take().remove(0);
        assert_eq!(first_line(&request), "SUBSCRIBE");
        Self { phone, id, request, number: 0 }
    }

    /// Accepted and notified once: 600 seconds are granted.
    fn live() -> Self {
        let mut watching = Self::new(600);
        watching.answer(200, &["Expires: 600", "Contact: <sip:bob@192.0.2.9>"]);
        assert_eq!(watching.notify("active;expires=600"), 200);
        assert_eq!(watching.log(), ["DidStart active 600", "GotNotify presence active"]);
        watching
    }

    fn answer(&mut self, code: u16, headers: &[&str]) {
        let request = self.request.clone();
        self.phone.respond(&request, code, "peer", headers, "");
    }

    fn draft(&self, tag: &str, number: u32, headers: &str, body: &str) -> String {
        let (local, call_id) = (header(&self.request, "From"), header(&self.request, "Call-ID"));
        format!(
            "NOTIFY sip:alice@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bK{call_id}{tag}{number}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:bob@example.com>;tag={tag}\r\nTo: {local}\r\nCall-ID: {call_id}\r\n\
             CSeq: {number} NOTIFY\r\nContact: <sip:bob@192.0.2.9>\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// The peer sends a NOTIFY; gives back our answer's code.
    fn notify(&mut self, state: &str) -> u16 {
        self.number += 1;
        let headers = format!("Event: presence\r\nSubscription-State: {state}\r\n");
        let text = self.draft("peer", self.number, &headers, "");
        self.send(text)
    }

    fn send(&mut self, text: String) -> u16 {
        let mut sent = self.phone.take();
        self.phone.receive(text);
        let answers = self.phone.take();
        let (answers, requests): (Vec<_>, Vec<_>) = answers.into_iter().partition(|message| !message.is_request());
        sent.extend(requests);
        self.phone.sent.extend(sent);
        answers.iter().filter_map(Message::status).next_back().unwrap_or_default()
    }

    /// The next request we sent, which becomes the one answered next.
    fn next(&mut self) -> Message {
        let mut sent = self.phone.take();
        sent.dedup_by_key(|sent| header(sent, "Via")); // repeated until it is answered
        assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["SUBSCRIBE"]);
        self.request = sent[0].clone();
        sent[0].clone()
    }

    fn log(&mut self) -> Vec<String> {
        self.phone.side.take_log()
    }

    fn pass(&mut self, time: Duration) {
        self.phone.pass(time);
    }
}

#[test]
fn a_subscription_is_accepted_notified_and_refreshed() {
    let mut watching = Watching::new(600);
    for (name, value) in [("Event", "presence"), ("Accept", "application/pidf+xml"), ("Expires", "600")] {
        assert_eq!(header(&watching.request, name), value);
    }
    assert!(header(&watching.request, "Contact").starts_with("<sip:alice@192.0.2.1:5060"));
    watching.answer(202, &["Expires: 300", "Contact: <sip:bob@192.0.2.9>"]);
    assert!(watching.log().is_empty(), "only a NOTIFY makes it");
    assert_eq!(watching.notify("pending"), 200);
    assert_eq!(watching.log(), ["DidStart pending 600", "GotNotify presence pending"]);
    assert_eq!(watching.notify("active;expires=200"), 200);
    assert_eq!(watching.log(), ["GotNotify presence active"]);
    watching.pass(seconds(179));
    assert!(watching.phone.take().is_empty());
    watching.pass(seconds(1));
    let first = header(&watching.request, "Call-ID");
    let refresh = watching.next();
    assert_eq!((header(&refresh, "Expires"), header(&refresh, "Call-ID")), ("600".into(), first));
    assert_eq!(refresh.cseq().unwrap().number, 2);
    assert!(header(&refresh, "To").ends_with(";tag=peer"));
    watching.answer(200, &["Expires: 1200"]);
    watching.pass(seconds(540));
    assert_eq!(header(&watching.next(), "Expires"), "600", "an answer grants no more than was asked");
}

#[test]
fn a_notify_may_come_before_the_answer() {
    let mut watching = Watching::new(600);
    assert_eq!(watching.notify("active;expires=100"), 200);
    assert_eq!(watching.log(), ["DidStart active 100", "GotNotify presence active"]);
    watching.answer(200, &["Expires: 600"]);
    watching.pass(seconds(89));
    assert!(watching.phone.take().is_empty());
    watching.pass(seconds(1));
    assert_eq!(watching.next().cseq().unwrap().number, 2);
}

#[test]
fn a_notify_without_a_time_leaves_it_to_the_answer() {
    let mut watching = Watching::new(600);
    assert_eq!(watching.notify("active"), 200);
    watching.answer(200, &["Expires: 100"]);
    watching.pass(seconds(90));
    watching.next();
}

#[test]
fn an_answer_that_is_lost_does_not_undo_a_subscription() {
    let mut watching = Watching::new(600);
    assert_eq!(watching.notify("active;expires=600"), 200);
    watching.log();
    watching.pass(seconds(40));
    assert!(watching.log().is_empty());
    watching.phone.take();
    watching.pass(seconds(500));
    watching.next();
}

#[test]
fn other_forks_are_sent_away() {
    let mut watching = Watching::live();
    let other = watching.draft("fork", 1, "Event: presence\r\nSubscription-State: active\r\n", "");
    assert_eq!(watching.send(other), 481);
    assert!(watching.log().is_empty());
}

#[test]
fn what_is_wrong_with_a_notify_is_said() {
    let state = "Event: presence\r\nSubscription-State: active\r\n";
    let large = "x".repeat(MAX_BODY + 1);
    let table: [(&str, &str, u32, &str, &str, u16); 8] = [
        ("an old number", "peer", 0, state, "", 500),
        ("another event", "peer", 5, "Event: dialog\r\nSubscription-State: active\r\n", "", 489),
        ("another id", "peer", 5, "Event: presence;id=2\r\nSubscription-State: active\r\n", "", 489),
        ("no event", "peer", 5, "Subscription-State: active\r\n", "", 400),
        ("no state", "peer", 5, "Event: presence\r\n", "", 400),
        ("an unknown state", "peer", 5, "Event: presence\r\nSubscription-State: asleep\r\n", "", 400),
        ("demands", "peer", 5, &format!("{state}Require: magic\r\n"), "", 420),
        ("too large", "peer", 5, state, &large, 413),
    ];
    for (what, tag, number, headers, body, code) in table {
        let mut watching = Watching::live();
        watching.notify("active;expires=600");
        watching.log();
        let text = watching.draft(tag, number, headers, body);
        assert_eq!(watching.send(text), code, "{what}");
        assert!(watching.log().is_empty(), "{what}");
    }
    let mut watching = Watching::live();
    let text = watching.draft("peer", 9, state, "").replace("Call-ID: ", "Call-ID: x");
    assert_eq!(watching.send(text), 481);
    let mut phone = Lone::new();
    let stranger = Draft { to_tag: Some("nobody".into()), ..Draft::new("NOTIFY", "n") }.with("Event: presence");
    assert_eq!(phone.ask(&stranger)[0].status(), Some(481));
    assert_eq!(phone.ask(&Draft::new("NOTIFY", "m").with("Event: presence"))[0].status(), Some(481));
}

#[test]
fn a_body_is_read_or_the_reason_told() {
    let cases = [
        ("application/pidf+xml", "<presence entity='sip:b@c'><note>hi</note></presence>", "parsed"),
        ("application/pidf+xml", "<presence", "error"),
        ("text/plain", "hello", "neither"),
    ];
    for (kind, body, expected) in cases {
        let mut watching = Watching::new(600);
        let headers = format!("Event: presence\r\nSubscription-State: active\r\nContent-Type: {kind}\r\n");
        let text = watching.draft("peer", 1, &headers, body);
        let message = Message::parse(text.into()).unwrap();
        watching.phone.side.ua.handle_message(message, Lone::flow(), watching.phone.now);
        let mut found = Vec::new();
        while let Some(output) = watching.phone.side.ua.poll_output() {
            if let Output::Event(event) = output
                && let EventKind::SubscriptionGotNotify { parsed, error, content_type, body: got, .. } = event.kind
            {
                assert_eq!((content_type.as_deref(), &got[..]), (Some(kind), body.as_bytes()));
                found.push(match (parsed, error) {
                    (Some(_), None) => "parsed",
                    (None, Some(_)) => "error",
                    _ => "neither",
                });
            }
        }
        assert_eq!(found, [expected]);
    }
}

#[test]
fn accepted_but_never_notified_is_tried_again() {
    let mut watching = Watching::new(600);
    watching.answer(200, &["Expires: 600"]);
    watching.pass(seconds(31));
    assert!(watching.log().is_empty());
    watching.pass(seconds(1));
    let log = watching.log();
    assert!(log[0].starts_with("DidFail 408 SUBSCRIBE was accepted, but no NOTIFY came, again in "), "{log:?}");
    let first = header(&watching.request, "Call-ID");
    watching.pass(seconds(30));
    assert_ne!(header(&watching.next(), "Call-ID"), first);
}

#[test]
fn each_reason_of_an_end_is_followed() {
    let again_at_once = ["deactivated", "timeout"];
    let later = ["probation", "giveup", "moved"];
    let over = ["rejected", "noresource", "invariant"];
    for reason in again_at_once {
        let mut watching = Watching::live();
        assert_eq!(watching.notify(&format!("terminated;reason={reason}")), 200);
        let fail = format!("DidFail 0 {reason}, again in 0 s");
        assert_eq!(watching.log(), ["GotNotify presence terminated".to_owned(), fail], "{reason}");
        watching.pass(seconds(0));
        watching.next();
        // A notifier that does it again and again is given time.
        watching.number = 0;
        assert_eq!(watching.notify(&format!("terminated;reason={reason}")), 200);
        assert!(!watching.log()[1].ends_with("again in 0 s"), "{reason}");
    }
    for reason in later {
        let mut watching = Watching::live();
        watching.notify(&format!("terminated;reason={reason};retry-after=77"));
        assert_eq!(watching.log()[1], format!("DidFail 0 {reason}, again in 77 s"));
        watching.pass(seconds(76));
        assert!(watching.phone.take().is_empty(), "{reason}");
        watching.pass(seconds(1));
        watching.next();
    }
    for reason in over {
        let mut watching = Watching::live();
        watching.notify(&format!("terminated;reason={reason}"));
        assert_eq!(watching.log(), ["GotNotify presence terminated".to_owned(), format!("DidEnd {reason}")]);
        watching.phone.expect_nothing_left();
    }
    let mut watching = Watching::live();
    watching.notify("terminated");
    assert!(watching.log()[1].starts_with("DidFail 0 terminated, again in "));
}

#[test]
fn refusals_end_it_or_are_waited_out() {
    for code in [400, 401, 403, 404, 405, 420, 489, 501, 603] {
        let mut watching = Watching::new(600);
        watching.answer(code, &[]);
        let log = watching.log();
        assert!(log[0].starts_with(&format!("DidFail {code} ")) && log[0].ends_with("for good"), "{log:?}");
        assert_eq!(log[1..], ["DidEnd failed"], "{code}");
        watching.phone.expect_nothing_left();
    }
    for (code, headers, wait) in [(480, &[][..], 30), (500, &[][..], 30), (503, &["Retry-After: 100 (busy)"][..], 100)]
    {
        let mut watching = Watching::new(600);
        watching.answer(code, headers);
        assert_eq!(watching.log().len(), 1, "{code}");
        watching.pass(seconds(wait));
        watching.next();
        watching.answer(code, &[]);
        watching.pass(seconds(30));
        assert!(watching.phone.take().is_empty(), "{code}: the second wait is longer");
    }
    let mut watching = Watching::new(600);
    watching.pass(seconds(33));
    assert!(watching.log()[0].starts_with("DidFail 408"));
}

#[test]
fn too_brief_is_asked_for_longer_once() {
    let mut watching = Watching::new(60);
    watching.answer(423, &["Min-Expires: 1800"]);
    assert_eq!(header(&watching.next(), "Expires"), "1800");
    watching.answer(423, &["Min-Expires: 1800"]);
    assert_eq!(watching.log().len(), 1, "it fails for now");
    let mut watching = Watching::live();
    watching.pass(seconds(540));
    watching.next();
    watching.answer(423, &["Min-Expires: 900"]);
    assert_eq!(header(&watching.next(), "Expires"), "900");
    let mut watching = Watching::new(60);
    watching.answer(423, &["Min-Expires: 4000000000"]);
    assert!(watching.phone.take().is_empty(), "nobody makes us ask for years");
}

#[test]
fn a_refresh_that_finds_nothing_makes_a_new_subscription() {
    let mut watching = Watching::live();
    watching.pass(seconds(540));
    let refresh = watching.next();
    watching.answer(481, &[]);
    assert_eq!(watching.log(), ["DidFail 481 Call/Transaction Does Not Exist, again in 0 s"]);
    watching.pass(seconds(0));
    let again = watching.next();
    assert_ne!(header(&again, "Call-ID"), header(&refresh, "Call-ID"));
    assert!(!header(&again, "To").contains("tag="));
    watching.answer(200, &["Expires: 600"]);
    watching.number = 0;
    assert_eq!(watching.notify("active;expires=600"), 200);
    assert_eq!(watching.log(), ["GotNotify presence active"], "it is the same subscription to the program");
}

#[test]
fn a_refresh_without_an_answer_is_repeated_while_there_is_time() {
    let mut watching = Watching::live();
    watching.pass(seconds(540));
    watching.next();
    watching.answer(500, &[]);
    assert!(watching.log().is_empty());
    watching.pass(seconds(30));
    watching.next();
    watching.answer(503, &["Retry-After: 600"]);
    watching.pass(seconds(29));
    assert!(watching.log().is_empty());
    watching.pass(seconds(1));
    assert_eq!(watching.log(), ["DidFail 0 not refreshed in time, again in 0 s"]);
    watching.next();
    let mut watching = Watching::live();
    watching.pass(seconds(540));
    watching.next();
    watching.answer(403, &[]);
    assert_eq!(watching.log(), ["DidFail 403 Forbidden, for good", "DidEnd failed"]);
    watching.phone.expect_nothing_left();
}

#[test]
fn unsubscribing_waits_for_the_last_notify() {
    let mut watching = Watching::live();
    let end = |watching: &mut Watching| {
        let (id, now) = (watching.id, watching.phone.now);
        watching.phone.side.ua.unsubscribe(id, now);
        watching.phone.run();
    };
    end(&mut watching);
    assert_eq!(header(&watching.next(), "Expires"), "0");
    assert_eq!(watching.notify("active;expires=5"), 200, "one that crossed it");
    watching.answer(200, &["Expires: 0"]);
    assert_eq!(watching.log(), ["GotNotify presence active"]);
    assert_eq!(watching.notify("terminated;reason=timeout"), 200);
    assert_eq!(watching.log(), ["GotNotify presence terminated", "DidEnd unsubscribed"]);
    end(&mut watching);
    watching.phone.expect_nothing_left();

    let mut watching = Watching::live();
    end(&mut watching);
    watching.next();
    watching.answer(200, &["Expires: 0"]);
    watching.pass(seconds(5));
    assert_eq!(watching.log(), ["DidEnd unsubscribed"], "the last NOTIFY is not waited for for ever");
    assert_eq!(watching.notify("terminated;reason=timeout"), 481);

    let mut watching = Watching::live();
    end(&mut watching);
    watching.next();
    watching.answer(481, &[]);
    assert_eq!(watching.log(), ["DidEnd unsubscribed"]);

    let mut watching = Watching::live();
    end(&mut watching);
    watching.pass(seconds(33));
    assert_eq!(watching.log(), ["DidEnd unsubscribed"], "nobody answers");
}

#[test]
fn unsubscribing_before_there_is_a_subscription() {
    let end = |watching: &mut Watching| {
        let (id, now) = (watching.id, watching.phone.now);
        watching.phone.side.ua.unsubscribe(id, now);
        watching.phone.run();
    };
    let mut watching = Watching::new(600);
    end(&mut watching);
    assert!(watching.phone.take().is_empty(), "the answer comes first");
    watching.answer(200, &["Expires: 600", "Contact: <sip:bob@192.0.2.9>"]);
    assert_eq!(header(&watching.next(), "Expires"), "0");
    watching.answer(200, &[]);
    assert_eq!(watching.notify("terminated;reason=timeout"), 200);
    assert_eq!(watching.log(), ["GotNotify presence terminated", "DidEnd unsubscribed"]);
    watching.phone.expect_nothing_left();

    let mut watching = Watching::new(600);
    end(&mut watching);
    watching.answer(404, &[]);
    assert_eq!(watching.log(), ["DidEnd unsubscribed"]);

    let mut watching = Watching::new(600);
    watching.answer(503, &[]);
    watching.log();
    end(&mut watching);
    assert_eq!(watching.log(), ["DidEnd unsubscribed"]);
    watching.phone.expect_nothing_left();

    let mut watching = Watching::live();
    watching.pass(seconds(540));
    watching.next();
    end(&mut watching);
    watching.answer(200, &["Expires: 600"]);
    assert_eq!(header(&watching.next(), "Expires"), "0", "a refresh was open");
}

#[test]
fn asking_once_gets_one_state() {
    let mut watching = Watching::new(0);
    assert_eq!(header(&watching.request, "Expires"), "0");
    watching.answer(200, &["Expires: 0"]);
    assert_eq!(watching.notify("terminated;reason=timeout"), 200);
    assert_eq!(watching.log(), ["GotNotify presence terminated", "DidEnd asked once"]);
    watching.phone.expect_nothing_left();
}

#[test]
fn subscriptions_end_with_their_account_and_their_engine() {
    let mut watching = Watching::live();
    let now = watching.phone.now;
    watching.phone.side.ua.remove_account(ACCOUNT, now);
    watching.phone.run();
    assert_eq!(header(&watching.next(), "Expires"), "0");
    watching.answer(200, &[]);
    watching.notify("terminated;reason=timeout");
    assert_eq!(watching.log(), ["GotNotify presence terminated", "DidEnd unsubscribed"]);

    let mut watching = Watching::live();
    let now = watching.phone.now;
    watching.phone.side.ua.shutdown(now);
    watching.phone.run();
    assert_eq!(watching.phone.side.ua.open_subscriptions(), 1);
    watching.next();
    watching.pass(SHORT_PATIENCE);
    assert_eq!(watching.log(), ["DidEnd unsubscribed"]);
    watching.phone.expect_nothing_left();
}

#[test]
fn what_cannot_be_subscribed_to_is_said_at_once() {
    let mut phone = Lone::new();
    let cases = [
        watch("two words", 600),
        watch("presence;id=1", 600),
        watch("", 600),
        Subscribe { accept: vec!["nonsense".into()], ..watch("presence", 600) },
        Subscribe { uri: Some(uri("tel:+1")), ..watch("presence", 600) },
    ];
    for case in cases {
        let refused = phone.side.ua.subscribe(case.clone(), phone.now);
        assert!(matches!(refused, Err(VerbError::BadArgument(_))), "{case:?}");
    }
    assert!(phone.side.ua.is_idle());
}

// --- the notifier ----------------------------------------------------------------------------------------------------

/// Alice serves presence; the peer has subscribed.
struct Serving {
    phone: Lone,
    ask: Draft,
}

impl Serving {
    fn new() -> Self {
        let mut phone = Lone::new();
        phone.side.ua.config_mut().event_packages = vec!["presence".into(), "x-state".into()];
        let ask = Draft::new("SUBSCRIBE", "s1").with("Event: presence").with("Expires: 300").with("Accept: a/b, c/d");
        Self { phone, ask }
    }

    fn asked() -> (Self, SubscriptionId) {
        let mut serving = Self::new();
        let ask = serving.ask.clone();
        assert!(serving.phone.ask(&ask).is_empty(), "the program is asked first");
        let log = serving.log();
        assert_eq!(log, ["EngineGotSubscription presence sip:bob@example.com 300 a/b+c/d"]);
        let id = *serving.phone.side.ua.subscriptions.all_ids().last().unwrap();
        (serving, id)
    }

    fn active() -> (Self, SubscriptionId, Message, Message) {
        let (mut serving, id) = Self::asked();
        serving.decide(id, Verdict::Accept(Some(("a/b".into(), "one".into())))).unwrap();
        let sent = serving.phone.take();
        assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["200 SUBSCRIBE", "NOTIFY"]);
        (serving, id, sent[0].clone(), sent[1].clone())
    }

    fn decide(&mut self, id: SubscriptionId, verdict: Verdict) -> Result<(), VerbError> {
        let decided = self.phone.side.ua.decide_subscription(id, verdict, self.phone.now);
        self.phone.run();
        decided
    }

    fn tell(&mut self, id: SubscriptionId, body: &str) -> Result<(), VerbError> {
        let body = Some(("a/b".to_owned(), body.to_owned().into()));
        let told = self.phone.side.ua.notify_subscription(id, body, self.phone.now);
        self.phone.run();
        told
    }

    fn log(&mut self) -> Vec<String> {
        self.phone.side.take_log()
    }

    fn notifies(&mut self) -> Vec<(String, String)> {
        let sent = self.phone.take().into_iter().filter(|sent| first_line(sent) == "NOTIFY");
        sent.map(|sent| (header(&sent, "Subscription-State"), String::from_utf8_lossy(sent.body()).into_owned()))
            .collect()
    }

    fn refresh(&mut self, ok: &Message, number: u32, expires: u32) -> Vec<Message> {
        let draft = Draft::new("SUBSCRIBE", &format!("r{number}")).with("Event: presence");
        let draft = draft.with(&format!("Expires: {expires}")).in_dialog(number, ok);
        self.phone.ask(&draft)
    }
}

fn pair(state: &str, body: &str) -> (String, String) {
    (state.to_owned(), body.to_owned())
}

#[test]
fn a_subscriber_is_accepted_told_refreshed_and_forgotten() {
    let (mut serving, id, ok, first) = Serving::active();
    assert_eq!((header(&ok, "Expires"), header(&first, "Event")), ("300".into(), "presence".into()));
    assert!(header(&ok, "Contact").contains("alice"));
    assert_eq!(header(&first, "Subscription-State"), "active;expires=300");
    assert_eq!((header(&first, "Content-Type"), first.body()), ("a/b".into(), &b"one"[..]));
    serving.phone.respond(&first, 200, "peer", &[], "");
    serving.tell(id, "two").unwrap();
    serving.tell(id, "three").unwrap();
    let sent = serving.phone.take();
    assert_eq!(sent.len(), 1, "one NOTIFY at a time");
    serving.phone.respond(&sent[0], 200, "peer", &[], "");
    assert_eq!(serving.notifies(), [pair("active;expires=300", "three")]);
    serving.phone.pass(seconds(20));
    let (mut serving, _, ok, first) = Serving::active();
    serving.phone.respond(&first, 200, "peer", &[], "");
    serving.phone.pass(seconds(200));
    let answers = serving.refresh(&ok, 2, 600);
    assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), ["200 SUBSCRIBE", "NOTIFY"]);
    assert_eq!(header(&answers[1], "Subscription-State"), "active;expires=600");
    assert_eq!(answers[1].body(), b"one", "the state as it was");
    serving.phone.respond(&answers[1], 200, "peer", &[], "");
    serving.phone.pass(seconds(600));
    assert_eq!(serving.notifies()[0], pair("terminated;reason=timeout", "one"));
    assert_eq!(serving.log(), ["DidEnd timeout"]);
    serving.phone.expect_nothing_left();
}

#[test]
fn an_unsubscriber_gets_its_last_notify() {
    let (mut serving, id, ok, first) = Serving::active();
    serving.phone.respond(&first, 200, "peer", &[], "");
    let answers = serving.refresh(&ok, 2, 0);
    assert_eq!(header(&answers[0], "Expires"), "0");
    assert_eq!(header(&answers[1], "Subscription-State"), "terminated;reason=timeout");
    assert_eq!(serving.log(), ["DidEnd timeout"]);
    assert!(serving.tell(id, "late").is_err());
    assert_eq!(serving.refresh(&ok, 3, 300)[0].status(), Some(481));
    serving.phone.respond(&answers[1], 200, "peer", &[], "");
    assert!(serving.decide(id, Verdict::Accept(None)).is_err());
    serving.phone.expect_nothing_left();
}

#[test]
fn a_program_that_takes_its_time_finds_a_pending_subscriber() {
    for (verdict, state) in [
        (Verdict::Accept(Some(("a/b".into(), "x".into()))), pair("active;expires=295", "x")),
        (Verdict::Reject(403), pair("terminated;reason=rejected", "")),
    ] {
        let (mut serving, id) = Serving::asked();
        serving.phone.pass(seconds(5));
        let sent = serving.phone.take();
        assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["200 SUBSCRIBE", "NOTIFY"]);
        assert_eq!(header(&sent[1], "Subscription-State"), "pending;expires=295");
        serving.phone.respond(&sent[1], 200, "peer", &[], "");
        serving.decide(id, verdict.clone()).unwrap();
        assert_eq!(serving.notifies(), [state]);
        assert!(serving.decide(id, verdict).is_err(), "decided once");
    }
}

#[test]
fn a_subscriber_can_be_refused_or_ended() {
    let (mut serving, id) = Serving::asked();
    assert!(matches!(serving.decide(id, Verdict::Reject(200)), Err(VerbError::BadArgument(_))));
    serving.decide(id, Verdict::Reject(403)).unwrap();
    assert_eq!(serving.phone.take_lines(), ["403 SUBSCRIBE"]);
    assert_eq!(serving.log(), ["DidEnd rejected"]);
    serving.phone.expect_nothing_left();

    let (mut serving, id, _, first) = Serving::active();
    serving.phone.respond(&first, 200, "peer", &[], "");
    serving.phone.side.ua.terminate_subscription(id, EndReason::NoResource, serving.phone.now);
    serving.phone.run();
    assert_eq!(serving.notifies(), [pair("terminated;reason=noresource", "one")]);
    assert_eq!(serving.log(), ["DidEnd noresource"]);

    let (mut serving, id) = Serving::asked();
    serving.phone.side.ua.terminate_subscription(id, EndReason::NoResource, serving.phone.now);
    serving.phone.run();
    assert_eq!(serving.phone.take_lines(), ["480 SUBSCRIBE"]);
    serving.phone.expect_nothing_left();
}

#[test]
fn a_subscriber_that_is_gone_is_forgotten() {
    let (mut serving, _, _, first) = Serving::active();
    serving.phone.respond(&first, 481, "peer", &[], "");
    assert_eq!(serving.log(), ["DidEnd 481 Call/Transaction Does Not Exist"]);
    serving.phone.expect_nothing_left();
    let (mut serving, ..) = Serving::active();
    serving.phone.pass(seconds(33));
    assert_eq!(serving.log(), ["DidEnd 408 Request Timeout"]);
    serving.phone.expect_nothing_left();
}

#[test]
fn who_asks_once_is_told_once() {
    let mut serving = Serving::new();
    let ask = Draft::new("SUBSCRIBE", "s1").with("Event: presence").with("Expires: 0");
    serving.phone.ask(&ask);
    let id = *serving.phone.side.ua.subscriptions.all_ids().last().unwrap();
    serving.decide(id, Verdict::Accept(Some(("a/b".into(), "x".into())))).unwrap();
    assert_eq!(serving.notifies(), [pair("terminated;reason=timeout", "x")]);
    assert_eq!(serving.log()[1..], ["DidEnd timeout"]);
}

#[test]
fn subscriptions_that_cannot_be_had_are_refused() {
    let presence = |branch: &str| Draft::new("SUBSCRIBE", branch).with("Event: presence");
    let table: Vec<(&str, Draft, &str, &str, &str)> = vec![
        ("another event", Draft::new("SUBSCRIBE", "s").with("o: dialog"), "489", "Allow-Events", "presence, x-state"),
        ("no event", Draft::new("SUBSCRIBE", "s"), "489", "Allow-Events", "presence, x-state"),
        ("too brief", presence("s").with("Expires: 59"), "423", "Min-Expires", "60"),
        ("demands", presence("s").with("Require: magic"), "420", "Unsupported", "magic"),
        ("for nobody", Draft { uri: "sip:carol@192.0.2.1", ..presence("s") }, "404", "", ""),
        ("for a telephone", Draft { uri: "tel:+1", ..presence("s") }, "416", "", ""),
        ("without Contact", Draft { extra: vec!["Event: presence".into()], ..presence("s") }, "400", "", ""),
        ("in no dialog", Draft { to_tag: Some("x".into()), ..presence("s") }, "481", "", ""),
    ];
    for (what, draft, code, name, value) in table {
        let mut serving = Serving::new();
        let answers = serving.phone.ask(&draft);
        assert_eq!(answers.iter().map(first_line).collect::<Vec<_>>(), [format!("{code} SUBSCRIBE")], "{what}");
        assert_eq!(header(&answers[0], name), value, "{what}");
        assert!(serving.log().is_empty(), "{what}");
        serving.phone.expect_nothing_left();
    }
    let mut phone = Lone::new();
    let answer = phone.ask(&presence("s")).remove(0);
    assert_eq!((answer.status(), answer.header_named("Allow-Events")), (Some(489), None));
}

#[test]
fn one_source_has_a_bounded_number_of_subscriptions() {
    let mut serving = Serving::new();
    serving.phone.side.ua.config_mut().invite_rate = u32::MAX;
    serving.phone.side.ua.config_mut().invite_rate_per_source = u32::MAX;
    let mut codes = Vec::new();
    for number in 0..=MAX_INCOMING_PER_SOURCE {
        let draft = Draft { branch: format!("s{number}"), ..serving.ask.clone() };
        codes.extend(serving.phone.ask(&draft).first().and_then(Message::status));
    }
    assert_eq!(codes, [503]);
    assert_eq!(serving.phone.side.ua.stats().subscriptions, MAX_INCOMING_PER_SOURCE);
    assert_eq!(serving.phone.side.ua.stats().refused_by_limit, 1);
    let now = serving.phone.now;
    serving.phone.side.ua.shutdown(now);
    serving.phone.expect_nothing_left();
}

#[test]
fn a_slow_subscriber_makes_no_endless_queue() {
    let (mut serving, id, _, first) = Serving::active();
    for number in 0..100 {
        serving.tell(id, &number.to_string()).unwrap();
    }
    assert_eq!(serving.phone.side.ua.stats().refused_by_limit, 84);
    let mut open = first;
    let mut told = Vec::new();
    loop {
        serving.phone.take();
        serving.phone.respond(&open, 200, "peer", &[], "");
        match serving.phone.take().pop() {
            Some(next) => open = next,
            None => break,
        }
        told.push(String::from_utf8_lossy(open.body()).into_owned());
    }
    assert_eq!((told.len(), told.last().map(String::as_str)), (16, Some("99")));
}

#[test]
fn both_roles_understand_each_other() {
    let mut net = Pair::new();
    net.bob.ua.config_mut().event_packages = vec!["presence".into()];
    let what = Subscribe { routes: vec![route(BOB)], ..watch("presence", 600) };
    let ours = net.alice.ua.subscribe(what, net.now).unwrap();
    net.run();
    let theirs = *net.bob.ua.subscriptions.all_ids().last().unwrap();
    let body = |is_open: bool| {
        let tuple = crate::sip::bodies::presence::Tuple { is_open: Some(is_open), ..Default::default() };
        let presence = crate::sip::bodies::presence::Presence { tuples: vec![tuple], ..Default::default() };
        Some(("application/pidf+xml".to_owned(), presence.write().into()))
    };
    net.bob.ua.decide_subscription(theirs, Verdict::Accept(body(true)), net.now).unwrap();
    net.run();
    net.bob.ua.notify_subscription(theirs, body(false), net.now).unwrap();
    net.run();
    let told = ["DidStart active 600", "GotNotify presence active parsed", "GotNotify presence active parsed"];
    assert_eq!(net.alice.take_log(), told);
    net.pass(seconds(3000));
    assert_eq!(net.alice.take_log().len(), 5, "one NOTIFY for each refresh");
    net.alice.ua.unsubscribe(ours, net.now);
    net.run();
    assert_eq!(net.alice.take_log(), ["GotNotify presence terminated parsed", "DidEnd unsubscribed"]);
    assert_eq!(net.bob.take_log()[1..], ["DidEnd timeout"]);
    net.expect_nothing_left();
}

// --- publications ----------------------------------------------------------------------------------------------------

struct Publishing {
    phone: Lone,
    id: SubscriptionId,
    request: Message,
}

impl Publishing {
    fn new() -> Self {
        let mut phone = Lone::new();
        let what = Publish {
            account: ACCOUNT,
            event: "presence".into(),
            routes: vec![route(PEER)],
            expires: 600,
            content_type: "application/pidf+xml".into(),
            body: "one".into(),
        };
        let id = phone.side.ua.publish(what, phone.now).unwrap();
        phone.run();
        let request = phone.take().remove(0);
        Self { phone, id, request }
    }

    fn published() -> Self {
        let mut publishing = Self::new();
        publishing.answer(200, &["SIP-ETag: tag1", "Expires: 300"]);
        assert_eq!(publishing.phone.side.take_log(), ["PublicationDidSucceed 300"]);
        publishing
    }

    fn answer(&mut self, code: u16, headers: &[&str]) {
        let request = self.request.clone();
        self.phone.respond(&request, code, "peer", headers, "");
    }

    /// The next PUBLISH: its tag, time and body.
    fn next(&mut self) -> (String, String, String) {
        let sent = self.phone.take();
        assert_eq!(sent.iter().map(first_line).collect::<Vec<_>>(), ["PUBLISH"]);
        self.request = sent[0].clone();
        let body = String::from_utf8_lossy(sent[0].body()).into_owned();
        (header(&sent[0], "SIP-If-Match"), header(&sent[0], "Expires"), body)
    }

    fn log(&mut self) -> Vec<String> {
        self.phone.side.take_log()
    }

    fn modify(&mut self, body: &str) -> Result<(), VerbError> {
        let (ua, now) = (&mut self.phone.side.ua, self.phone.now);
        let changed = ua.modify_publication(self.id, "application/pidf+xml".into(), body.to_owned().into(), now);
        self.phone.run();
        changed
    }

    fn remove(&mut self) {
        self.phone.side.ua.unsubscribe(self.id, self.phone.now);
        self.phone.run();
    }
}

fn three(tag: &str, expires: &str, body: &str) -> (String, String, String) {
    (tag.into(), expires.into(), body.into())
}

#[test]
fn a_state_is_published_refreshed_changed_and_removed() {
    let mut publishing = Publishing::new();
    let first = publishing.request.clone();
    assert_eq!((header(&first, "Event"), header(&first, "SIP-If-Match")), ("presence".into(), String::new()));
    assert_eq!(header(&first, "Content-Type"), "application/pidf+xml");
    publishing.answer(200, &["SIP-ETag: tag1", "Expires: 300"]);
    assert_eq!(publishing.log(), ["PublicationDidSucceed 300"]);
    publishing.phone.pass(seconds(270));
    assert_eq!(publishing.next(), three("tag1", "600", ""), "a refresh has no body");
    publishing.answer(200, &["SIP-ETag: tag2", "Expires: 600"]);
    publishing.modify("two").unwrap();
    assert_eq!(publishing.next(), three("tag2", "600", "two"));
    publishing.modify("three").unwrap();
    assert!(publishing.phone.take().is_empty(), "one at a time");
    publishing.answer(200, &["SIP-ETag: tag3", "Expires: 600"]);
    assert_eq!(publishing.next(), three("tag3", "600", "three"));
    publishing.answer(200, &["SIP-ETag: tag4", "Expires: 600"]);
    publishing.remove();
    assert_eq!(publishing.next(), three("tag4", "0", ""));
    publishing.log();
    publishing.answer(200, &["SIP-ETag: tag5"]);
    assert_eq!(publishing.log(), ["PublicationDidEnd removed"]);
    assert!(publishing.modify("late").is_err());
    publishing.phone.expect_nothing_left();
}

#[test]
fn a_server_that_forgot_gets_the_whole_state_again() {
    let mut publishing = Publishing::published();
    publishing.phone.pass(seconds(270));
    publishing.next();
    publishing.answer(412, &[]);
    assert_eq!(publishing.next(), three("", "600", "one"));
    for _ in 0..2 {
        publishing.answer(412, &[]);
        publishing.next();
    }
    publishing.answer(412, &[]);
    assert_eq!(
        publishing.log(),
        ["PublicationDidFail 412 Conditional Request Failed, for good", "PublicationDidEnd failed"]
    );
    publishing.phone.expect_nothing_left();
}

#[test]
fn refusals_of_a_publication() {
    let mut publishing = Publishing::new();
    publishing.answer(423, &["Min-Expires: 900"]);
    assert_eq!(publishing.next(), three("", "900", "one"));
    publishing.answer(503, &["Retry-After: 50"]);
    assert_eq!(publishing.log(), ["PublicationDidFail 503 Service Unavailable, again in 50 s"]);
    publishing.modify("newer").unwrap();
    assert!(publishing.phone.take().is_empty());
    publishing.phone.pass(seconds(50));
    assert_eq!(publishing.next(), three("", "900", "newer"));
    publishing.answer(489, &["Allow-Events: dialog"]);
    assert_eq!(publishing.log(), ["PublicationDidFail 489 Bad Event, for good", "PublicationDidEnd failed"]);
    publishing.phone.expect_nothing_left();
}

#[test]
fn removing_while_the_state_is_on_its_way() {
    let mut publishing = Publishing::new();
    publishing.remove();
    assert!(publishing.phone.take().is_empty());
    publishing.answer(200, &["SIP-ETag: tag1", "Expires: 300"]);
    assert_eq!(publishing.next(), three("tag1", "0", ""));
    publishing.answer(412, &[]);
    assert_eq!(publishing.log(), ["PublicationDidEnd removed"]);
    publishing.phone.expect_nothing_left();

    let mut publishing = Publishing::published();
    let now = publishing.phone.now;
    publishing.phone.side.ua.shutdown(now);
    publishing.phone.run();
    publishing.next();
    publishing.phone.pass(SHORT_PATIENCE);
    assert_eq!(publishing.log(), ["PublicationDidEnd removed"]);
    publishing.phone.expect_nothing_left();
}

// --- message-summary of an account -----------------------------------------------------------------------------------

#[test]
fn the_mailbox_is_watched_while_the_account_is_registered() {
    let mut phone = Lone::new();
    let settings = AccountSettings {
        registration: Some(RegistrationSettings {
            registrar: Some(uri("sip:192.0.2.9")),
            expires: seconds(600),
            instance: None,
        }),
        message_summary: true,
        ..AccountSettings::new(uri("sip:alice@example.com"))
    };
    phone.side.ua.set_account(ACCOUNT, settings);
    phone.side.ua.settings_changed(ACCOUNT, phone.now);
    phone.run();
    let register = phone.take().remove(0);
    assert_eq!(first_line(&register), "REGISTER");
    let contact = format!("Contact: {};expires=600", header(&register, "Contact"));
    phone.respond(&register, 200, "r", &[&contact], "");
    let subscribe = phone.take().pop().unwrap();
    assert_eq!((first_line(&subscribe), header(&subscribe, "Event")), ("SUBSCRIBE".into(), "message-summary".into()));
    assert_eq!(header(&subscribe, "Accept"), "application/simple-message-summary");
    phone.respond(&subscribe, 200, "peer", &["Expires: 3600"], "");
    phone.side.take_log();
    let mut watching = Watching { phone, id: SubscriptionId(0), request: subscribe, number: 0 };
    let headers = "Event: message-summary\r\nSubscription-State: active;expires=3600\r\n\
                   Content-Type: application/simple-message-summary\r\n";
    let body = "Messages-Waiting: yes\r\nVoice-Message: 2/8 (0/2)\r\n";
    let text = watching.draft("peer", 1, headers, body);
    assert_eq!(watching.send(text), 200);
    assert_eq!(watching.log(), ["AccountGotMessageSummary true voice 2/8 (0/2)"]);
    let now = watching.phone.now;
    watching.phone.side.ua.unregister(ACCOUNT, now).unwrap();
    watching.phone.run();
    let register = watching.phone.take().into_iter().find(|sent| first_line(sent) == "REGISTER").unwrap();
    watching.phone.respond(&register, 200, "r", &[], "");
    let end = watching.phone.take().into_iter().find(|sent| first_line(sent) == "SUBSCRIBE");
    assert_eq!(end.map(|end| header(&end, "Expires")).as_deref(), Some("0"));
}
