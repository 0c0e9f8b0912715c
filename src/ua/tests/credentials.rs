//! Challenges to the user agent: who gets an answer, what it looks like, and what the application hears.

use super::harness::*;
use crate::sip::digest::answer::Answer;
use crate::sip::digest::arithmetic::{Ha1, Inputs};
use crate::sip::digest::{Algorithm, Credentials};
use crate::sip::message::{HeaderName, Message};
use crate::ua::AccountSettings;

const CONTACT: &str = "Contact: <sip:bob@192.0.2.9>";
const ASKED: &str = "Proxy-Authenticate: Digest realm=\"any name\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256";

/// Alice with a password.
fn phone(change: impl FnOnce(&mut AccountSettings)) -> Lone {
    let mut phone = Lone::new();
    let mut settings = AccountSettings::new(uri("sip:alice@example.com"));
    settings.credentials = Some(Credentials { username: "alice.auth".into(), password: "wondrous".into() });
    change(&mut settings);
    phone.side.ua.set_account(ACCOUNT, settings);
    phone
}

fn at_peer(settings: &mut AccountSettings) {
    settings.outbound_proxy = Some(route(PEER));
}

/// The credentials a request carries, checked against the password.
fn answers(request: &Message, header: HeaderName) -> Vec<Answer> {
    let read = request.header_lines(header).map(|line| Answer::parse(line).expect("credentials"));
    read.inspect(|answer| {
        assert_eq!(answer.uri.as_bytes(), request.request_uri_raw());
        let inputs = Inputs {
            algorithm: answer.algorithm,
            sess: answer.sess,
            qop: answer.qop,
            nonce: &answer.nonce,
            cnonce: answer.cnonce.as_deref().unwrap_or_default(),
            count: answer.count.unwrap_or(1),
            method: request.method().as_str(),
            uri: &answer.uri,
            body: request.body(),
        };
        let ha1 = Ha1::new(answer.algorithm, "alice.auth", &answer.realm, "wondrous");
        assert_eq!((answer.username.as_str(), &answer.response), ("alice.auth", &inputs.response(&ha1)));
    })
    .collect()
}

fn proxy_answers(request: &Message) -> Vec<Answer> {
    answers(request, HeaderName::ProxyAuthorization)
}

/// The request that follows a challenge, after its ACK.
fn again(phone: &mut Lone) -> Message {
    let mut sent = phone.take();
    let last = sent.pop().expect("the request again");
    assert!(last.is_request() && sent.iter().all(|message| *message.method() == "ACK".parse().unwrap()));
    last
}

fn carries_no_credentials(messages: &[Message]) {
    for message in messages {
        assert!(message.header(HeaderName::Authorization).is_none(), "{message:?}");
        assert!(message.header(HeaderName::ProxyAuthorization).is_none(), "{message:?}");
    }
}

#[test]
fn a_challenged_invite_goes_again_in_the_same_call_without_a_word_to_the_application() {
    let mut phone = phone(|_| ());
    let (_, first) = phone.call();
    carries_no_credentials(std::slice::from_ref(&first));
    phone.side.take_log();
    phone.respond(&first, 407, "p", &[ASKED], "");
    let second = again(&mut phone);
    assert_eq!(phone.side.take_log(), Vec::<String>::new());
    for same in ["Call-ID", "From", "To"] {
        assert_eq!(header(&first, same), header(&second, same));
    }
    assert_eq!(header(&second, "CSeq"), "2 INVITE");
    assert_ne!(first.top_via().unwrap().branch(), second.top_via().unwrap().branch());
    let answer = proxy_answers(&second).remove(0);
    assert_eq!((answer.realm.as_str(), answer.algorithm, answer.count), ("any name", Algorithm::Sha256, Some(1)));
    phone.respond(&second, 180, "b", &[CONTACT], "");
    phone.respond(&second, 200, "b", &[CONTACT], SDP);
    let expected = ["GotRingIndication", "WillStart", "GotStreamUpdate audio", "CALLING>ESTABLISHED", "DidStart"];
    assert_eq!(phone.side.take_log(), expected);
    let headers = phone.side.snapshot().request_headers.as_ref().map(crate::event::Headers::list);
    let shown = format!("{headers:?}");
    assert!(shown.contains("alice.auth") && !shown.contains(&answer.response), "{shown}");
}

#[test]
fn what_the_challenged_attempt_had_begun_is_over() {
    let mut phone = phone(|_| ());
    let (_, first) = phone.call();
    phone.respond(&first, 183, "early", &[CONTACT], SDP);
    phone.respond(&first, 407, "p", &[ASKED], "");
    let second = again(&mut phone);
    phone.side.take_log();
    // An answer with another port: what early media of the first attempt agreed on is void.
    phone.respond(&second, 200, "b", &[CONTACT], &SDP.replace("6000", "6002"));
    assert_eq!(phone.side.take_log().last().map(String::as_str), Some("DidStart"));
    let audio = phone.side.snapshot().remote_sdp().unwrap();
    assert!(audio.contains("6002"), "{audio}");
}

#[test]
fn two_proxies_challenge_in_turn_and_the_third_invite_carries_both_answers() {
    let mut phone = phone(at_peer);
    let call = phone.side.call("sip:bob@biloxi.example.com", &[PEER], phone.now);
    call.expect("a call");
    phone.run();
    let first = phone.take().remove(0);
    phone.respond(&first, 407, "p", &["Proxy-Authenticate: Digest realm=\"atlanta\", nonce=\"a\""], "");
    let second = again(&mut phone);
    phone.respond(&second, 407, "p", &["Proxy-Authenticate: Digest realm=\"biloxi\", nonce=\"b\""], "");
    let third = again(&mut phone);
    let realms: Vec<String> = proxy_answers(&third).into_iter().map(|answer| answer.realm).collect();
    assert_eq!(
        (header(&third, "CSeq").as_str(), realms.as_slice()),
        ("3 INVITE", &["atlanta".into(), "biloxi".into()][..])
    );
}

#[test]
fn a_refusal_says_why() {
    let ends = |settings: fn(&mut AccountSettings), callee: &str, challenges: &[&str], expected: &str| {
        let mut phone = phone(settings);
        phone.side.call(callee, &[PEER], phone.now).expect("a call");
        phone.run();
        let mut request = phone.take().remove(0);
        for challenge in challenges {
            phone.respond(&request, 401, "p", &[&format!("WWW-Authenticate: {challenge}")], "");
            request = phone.take().pop().expect("something");
        }
        let log = phone.side.take_log();
        let reason = log.iter().find(|line| line.starts_with("DidFail")).unwrap_or_else(|| panic!("{log:?}"));
        assert!(reason.starts_with("DidFail remote 401 Unauthorized (") && reason.contains(expected), "{reason}");
        phone.expect_nothing_left();
    };
    let digest = "Digest realm=\"r\", nonce=\"n1\"";
    let home = "sip:bob@example.com";
    ends(|_| (), home, &[digest, "Digest realm=\"r\", nonce=\"n2\""], "wrong user name or password for realm \"r\"");
    ends(|settings| settings.credentials = None, home, &[digest], "the account has no password");
    ends(|_| (), home, &["Basic realm=\"r\""], "Basic is never answered");
    let strict = |settings: &mut AccountSettings| settings.digest_algorithms = vec![Algorithm::Sha256];
    ends(strict, home, &[digest], "algorithm MD5 is not allowed");
    let strangers = "192.0.2.9:5060 is not example.com, its registrar or its outbound proxy";
    ends(|_| (), "sip:bob@elsewhere.example", &[digest], strangers);
    ends(|_| (), "sip:bob@192.0.2.9", &["Digest realm=\"example.com\", nonce=\"n1\""], strangers);
    let stale = |number: u32| format!("Digest realm=\"r\", nonce=\"{number}\", stale=true");
    ends(|_| (), home, &[&stale(1), &stale(2), &stale(3)], "challenged again after 2 answers");
}

#[test]
fn the_next_request_to_the_same_proxy_carries_its_credentials_at_once() {
    let mut phone = phone(|_| ());
    let (call, first) = phone.call();
    phone.respond(&first, 407, "p", &[ASKED], "");
    let second = again(&mut phone);
    phone.respond(&second, 200, "b", &[CONTACT, "Record-Route: <sip:192.0.2.9;lr>"], SDP);
    phone.take();
    phone.side.ua.end(call, None, phone.now).unwrap();
    phone.run();
    let bye = phone.take().pop().unwrap();
    let answer = proxy_answers(&bye).remove(0);
    assert_eq!((header(&bye, "CSeq").as_str(), answer.count), ("3 BYE", Some(2)));
    phone.respond(&bye, 200, "b", &[], "");
    let (_, next) = phone.call();
    assert_eq!(proxy_answers(&next).remove(0).count, Some(3));
    // Another password is another account.
    let mut settings = AccountSettings::new(uri("sip:alice@example.com"));
    settings.credentials = Some(Credentials { username: "alice.auth".into(), password: "new".into() });
    phone.side.ua.set_account(ACCOUNT, settings);
    carries_no_credentials(&[phone.call().1]);
}

#[test]
fn nextnonce_is_taken_from_a_200() {
    let mut phone = phone(|_| ());
    let (_, first) = phone.call();
    phone.respond(&first, 401, "p", &["WWW-Authenticate: Digest realm=\"r\", nonce=\"n1\", qop=\"auth\""], "");
    let second = again(&mut phone);
    phone.respond(&second, 200, "b", &[CONTACT, "Authentication-Info: nextnonce=\"n2\""], SDP);
    phone.take();
    let (_, next) = phone.call();
    let answer = answers(&next, HeaderName::Authorization).remove(0);
    assert_eq!((answer.nonce.as_str(), answer.count), ("n2", Some(1)));
}

#[test]
fn whoever_called_us_gets_no_credentials() {
    // ES2021-05: the caller answers our BYE with a challenge of somebody's.
    for settings in [|_: &mut AccountSettings| (), at_peer] {
        let mut phone = phone(settings);
        let (call, _) = phone.talk();
        phone.side.ua.end(call, None, phone.now).unwrap();
        phone.run();
        let bye = phone.take().pop().unwrap();
        carries_no_credentials(std::slice::from_ref(&bye));
        phone.respond(&bye, 407, "x", &["Proxy-Authenticate: Digest realm=\"example.com\", nonce=\"n1\""], "");
        assert_eq!(phone.take_lines(), Vec::<String>::new());
        phone.expect_nothing_left();
    }
}

#[test]
fn the_proxy_that_knows_us_may_challenge_the_end_of_a_call_it_brought() {
    let mut phone = phone(at_peer);
    // A ping is authenticated: the proxy and its realm are proven.
    phone.side.ua.options(ACCOUNT, uri("sip:192.0.2.9"), vec![route(PEER)], phone.now).unwrap();
    phone.run();
    let ping = phone.take().remove(0);
    phone.respond(&ping, 407, "p", &[ASKED], "");
    let second = again(&mut phone);
    phone.respond(&second, 200, "p", &[], "");
    let (call, _) = phone.talk();
    phone.take();
    phone.side.ua.end(call, None, phone.now).unwrap();
    phone.run();
    let bye = phone.take().pop().unwrap();
    assert_eq!(proxy_answers(&bye).remove(0).count, Some(2), "it is asked for there");
    let stale = ASKED.replace("n1", "n2") + ", stale=true";
    phone.respond(&bye, 407, "p", &[&stale], "");
    let bye = again(&mut phone);
    assert_eq!(proxy_answers(&bye).remove(0).nonce, "n2");
    // Another realm is somebody else's.
    phone.respond(&bye, 407, "p", &["Proxy-Authenticate: Digest realm=\"other\", nonce=\"o\""], "");
    assert_eq!(phone.take_lines(), Vec::<String>::new());
}

#[test]
fn a_wrong_password_ends_a_ping_at_the_second_401() {
    let mut phone = phone(|_| ());
    phone.side.ua.options(ACCOUNT, uri("sip:example.com"), vec![route(PEER)], phone.now).unwrap();
    phone.run();
    let first = phone.take().remove(0);
    phone.respond(&first, 401, "p", &["WWW-Authenticate: Digest realm=\"biloxi.example.com\", nonce=\"n1\""], "");
    let second = again(&mut phone);
    phone.respond(&second, 401, "p", &["WWW-Authenticate: Digest realm=\"biloxi.example.com\", nonce=\"n2\""], "");
    assert_eq!(phone.take_lines(), Vec::<String>::new());
    let log = phone.side.take_log().pop().unwrap();
    assert!(log.starts_with("OptionsDidAnswer 401 Unauthorized (wrong user name or password"), "{log}");
}
