//! The published figures, the rows of the acceptance table by name, and a client against our own server.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use digest_auth::{AuthContext, HttpMethod};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use super::answer::{Answer, without_proof};
use super::arithmetic::{Ha1, Inputs};
use super::challenge::Challenge;
use super::client::{Nonces, Subject, Target, Tries};
use super::server::{NONCE_LIFE, Policy, Secret, Verdict, Verifier};
use super::{Algorithm, Asker, Credentials, Qop};
use crate::sip::message::Message;

const ALL: [Algorithm; 3] = [Algorithm::Sha512_256, Algorithm::Sha256, Algorithm::Md5];
const URI: &str = "sip:bob@example.com";

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/digest/digest.json")).unwrap()
}

fn start() -> Instant {
    #[allow(clippy::disallowed_methods)] // any moment will do
    Instant::now()
}

fn target() -> Target {
    Target { host: "example.com".into(), hop: "192.0.2.5:5060".parse().unwrap() }
}

/// A 401 or 407 with these header lines.
fn response(lines: &[String]) -> Message {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!(
        "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@example.com>;tag=1\r\n\
         To: <sip:b@example.com>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n{lines}Content-Length: 0\r\n\r\n"
    );
    Message::parse(Bytes::from(text)).unwrap()
}

fn asks(challenge: &str) -> Message {
    response(&[format!("WWW-Authenticate: {challenge}")])
}

/// One request of Alice's and what she knows.
struct Client {
    nonces: Nonces,
    tries: Tries,
    random: StdRng,
    credentials: Credentials,
    allowed: Vec<Algorithm>,
}

impl Client {
    fn new() -> Self {
        let credentials = Credentials { username: "alice".into(), password: "wondrous".into() };
        Self {
            nonces: Nonces::default(),
            tries: Tries::default(),
            random: StdRng::seed_from_u64(1),
            credentials,
            allowed: ALL.to_vec(),
        }
    }

    fn next_request(&mut self) {
        self.tries = Tries::default();
    }

    fn headers(&mut self, method: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        let subject = Subject { method, uri: URI, body };
        self.nonces.answers(&self.credentials, &target(), subject, &mut self.tries)
    }

    fn sends(&mut self, method: &str, body: &[u8]) -> Vec<Answer> {
        self.headers(method, body).into_iter().map(|(_, value)| Answer::parse(value.as_bytes()).unwrap()).collect()
    }

    fn gets(&mut self, response: &Message) -> Result<(), String> {
        self.nonces.challenged(response, &target(), &self.allowed, |_| Ok(()), &mut self.tries, &mut self.random)
    }

    fn succeeds(&mut self, response: &Message) {
        self.nonces.accepted(response, &target(), &self.tries, &mut self.random);
    }

    /// The answers to one challenge.
    fn answers(challenge: &str, method: &str, body: &[u8]) -> Vec<Answer> {
        let mut client = Self::new();
        assert!(client.sends(method, body).is_empty());
        client.gets(&asks(challenge)).unwrap_or_else(|why| panic!("{challenge}: {why}"));
        client.sends(method, body)
    }
}

/// What a crate of somebody else's says to the same challenge.
fn reference(challenge: &str, cnonce: Option<&str>, method: &str, body: &[u8]) -> String {
    let mut context =
        AuthContext::new_with_method("alice", "wondrous", URI, Some(body.to_vec()), HttpMethod(method.into()));
    if let Some(cnonce) = cnonce {
        context.set_custom_cnonce(cnonce.to_owned());
    }
    digest_auth::parse(challenge).unwrap().respond(&context).unwrap().response
}

#[test]
fn the_25_published_responses() {
    let vectors = vectors();
    let all = vectors["responses"].as_array().unwrap();
    assert_eq!(all.len(), 25);
    for vector in all {
        let text = |key: &str| vector[key].as_str().unwrap_or_default();
        let (algorithm, sess) =
            vector["alg"].as_str().map_or((Algorithm::Md5, false), |n| Algorithm::parse(n).unwrap());
        let count = vector["nc"].as_str().map_or(1, |digits| u32::from_str_radix(digits, 16).unwrap());
        let inputs = Inputs {
            algorithm,
            sess,
            qop: vector["qop"].as_str().map(|name| Qop::parse(name).unwrap()),
            nonce: text("nonce"),
            cnonce: text("cnonce"),
            count,
            method: text("method"),
            uri: text("uri"),
            body: text("body").as_bytes(),
        };
        let ha1 = Ha1::new(algorithm, text("user"), text("realm"), text("pw"));
        assert_eq!(inputs.response(&ha1), text("response"), "{}", text("name"));
    }
}

#[test]
fn the_14_challenge_situations() {
    let vectors = vectors();
    let all = vectors["challenges"].as_array().unwrap();
    assert_eq!(all.len(), 14);
    for vector in all {
        let what = vector["what"].as_str().unwrap();
        let lines = vector["headers"].as_array().unwrap().iter();
        let lines: Vec<String> = lines.map(|line| format!("WWW-Authenticate: {}", line.as_str().unwrap())).collect();
        let mut client = Client::new();
        if vector["policy"] == "minimum=SHA-256" {
            client.allowed = vec![Algorithm::Sha512_256, Algorithm::Sha256];
        }
        // The last two are the second and third 401 of one request.
        let before = [("stale=true on the second", 1), ("the third 401", 2)];
        let before = before.iter().find(|(begins, _)| what.starts_with(begins)).map_or(0, |(_, number)| *number);
        client.sends("REGISTER", b"");
        for number in 0..before {
            client.gets(&asks(&format!("Digest realm=\"r\", nonce=\"before{number}\", stale=true"))).unwrap();
            client.sends("REGISTER", b"");
        }
        let took = client.gets(&response(&lines));
        match vector["answer"].as_str() {
            None => assert!(took.is_err(), "{what}"),
            Some(expected) => {
                took.unwrap_or_else(|why| panic!("{what}: {why}"));
                let answers = client.sends("REGISTER", b"");
                assert_eq!(answers.len(), 1, "{what}");
                let (name, qop) = expected.split_once(" qop=").map_or((expected, None), |(n, q)| (n, Qop::parse(q)));
                assert_eq!(answers[0].algorithm.name(), name, "{what}");
                if qop.is_some() {
                    assert_eq!(answers[0].qop, qop, "{what}");
                }
                assert!(answers[0].count.is_none_or(|count| count == 1), "{what}");
            }
        }
    }
}

// --- the acceptance table, row by row ----------------------------------------------------------------------------------

/// Our answer to a challenge is what the other crate computes, for several methods and bodies.
fn agrees(challenge: &str) {
    for (method, body) in [("INVITE", &b"v=0\r\n"[..]), ("BYE", b""), ("REGISTER", b"")] {
        let answer = Client::answers(challenge, method, body).remove(0);
        let expected = reference(challenge, answer.cnonce.as_deref(), method, body);
        assert_eq!(answer.response, expected, "{challenge} {method}");
    }
}

#[test]
fn md5_without_qop_and_with_auth() {
    agrees("Digest realm=\"r\", nonce=\"n\"");
    agrees("Digest realm=\"r\", nonce=\"n\", algorithm=MD5");
    agrees("Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=MD5");
}

#[test]
fn auth_is_preferred_to_auth_int_and_reuse_is_right() {
    let challenge = "Digest realm=\"r\", nonce=\"n\", qop=\"auth-int,auth\"";
    let mut client = Client::new();
    client.sends("INVITE", b"v=0\r\n");
    client.gets(&asks(challenge)).unwrap();
    for (count, method) in [(1, "INVITE"), (2, "BYE"), (3, "REGISTER")] {
        let answer = client.sends(method, b"").remove(0);
        assert_eq!((answer.qop, answer.count), (Some(Qop::Auth), Some(count)));
        let inputs = Inputs {
            algorithm: Algorithm::Md5,
            sess: false,
            qop: Some(Qop::Auth),
            nonce: "n",
            cnonce: answer.cnonce.as_deref().unwrap(),
            count,
            method,
            uri: URI,
            body: b"",
        };
        assert_eq!(answer.response, inputs.response(&Ha1::new(Algorithm::Md5, "alice", "r", "wondrous")));
        client.next_request();
    }
}

#[test]
fn auth_int_alone_is_answered_over_the_body() {
    agrees("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"");
    agrees("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\", algorithm=SHA-256");
    let with = |body: &[u8]| Client::answers("Digest realm=\"r\", nonce=\"n\", qop=auth-int", "INVITE", body).remove(0);
    assert_eq!(with(b"").qop, Some(Qop::AuthInt));
    assert_ne!(with(b"one").response, with(b"other").response);
}

#[test]
fn sha_256() {
    agrees("Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256");
    assert_eq!(Client::answers("Digest realm=\"r\", nonce=\"n\", algorithm=sha-256", "BYE", b"")[0].response.len(), 64);
}

#[test]
fn sha_512_256() {
    agrees("Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=SHA-512-256");
}

#[test]
fn the_sess_forms_hash_a1_with_nonce_and_cnonce() {
    for name in ["MD5-sess", "SHA-256-sess", "SHA-512-256-sess"] {
        agrees(&format!("Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm={name}"));
        agrees(&format!("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\", algorithm={name}"));
    }
}

#[test]
fn of_two_headers_the_strongest_is_answered_whatever_their_order() {
    let line = |algorithm: &str| format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm={algorithm}");
    for order in [["SHA-256", "MD5"], ["MD5", "SHA-256"], ["X-unknown", "SHA-256"]] {
        let mut client = Client::new();
        client.gets(&response(&order.map(line))).unwrap();
        let answers = client.sends("INVITE", b"");
        assert_eq!(answers.iter().map(|answer| answer.algorithm).collect::<Vec<_>>(), [Algorithm::Sha256], "{order:?}");
    }
    // The account's order decides.
    let mut client = Client::new();
    client.allowed = vec![Algorithm::Md5, Algorithm::Sha256];
    client.gets(&response(&["SHA-256", "MD5"].map(line))).unwrap();
    assert_eq!(client.sends("INVITE", b"")[0].algorithm, Algorithm::Md5);
}

#[test]
fn several_challenges_in_one_line_are_told_apart() {
    let line =
        "Digest realm=\"a, Digest b\", nonce = \"1\", algorithm=MD5, Basic realm=\"x\", Digest realm=\"c\",nonce=2 ,";
    let read = Challenge::parse_line(Asker::Server, line);
    assert_eq!(read.len(), 3, "{read:?}");
    assert_eq!(read[0].as_ref().map(|one| (one.realm.as_str(), one.nonce.as_str())), Ok(("a, Digest b", "1")));
    assert!(read[1].is_err());
    assert_eq!(read[2].as_ref().map(|one| (one.realm.as_str(), one.nonce.as_str())), Ok(("c", "2")));
}

#[test]
fn a_realm_with_commas_and_escaped_quotes_comes_back_as_it_is() {
    let challenge = r#"Digest realm="a, \"b\" c\\d", nonce="n,1", opaque="o\"p", qop="auth""#;
    agrees(challenge);
    let mut client = Client::new();
    client.gets(&asks(challenge)).unwrap();
    let (_, value) = client.headers("INVITE", b"").remove(0);
    for part in [r#"realm="a, \"b\" c\\d""#, r#"nonce="n,1""#, r#"opaque="o\"p""#] {
        assert!(value.contains(part), "{value}");
    }
}

#[test]
fn two_proxy_realms_in_one_407_are_both_answered() {
    let mut client = Client::new();
    client.sends("INVITE", b"");
    let both = ["one", "two"].map(|realm| format!("Proxy-Authenticate: Digest realm=\"{realm}\", nonce=\"{realm}\""));
    client.gets(&response(&both)).unwrap();
    let headers = client.headers("INVITE", b"");
    assert_eq!(headers.len(), 2);
    for ((name, value), realm) in headers.iter().zip(["one", "two"]) {
        assert_eq!(*name, "Proxy-Authorization");
        assert_eq!(Answer::parse(value.as_bytes()).unwrap().realm, realm);
    }
}

#[test]
fn two_proxies_in_turn_get_both_and_a_third_challenge_is_the_end() {
    let ask = |realm: &str| response(&[format!("Proxy-Authenticate: Digest realm=\"{realm}\", nonce=\"{realm}\"")]);
    let mut client = Client::new();
    client.sends("INVITE", b"");
    client.gets(&ask("one")).unwrap();
    assert_eq!(client.sends("INVITE", b"").len(), 1);
    client.gets(&ask("two")).unwrap();
    assert_eq!(client.sends("INVITE", b"").len(), 2);
    assert!(client.gets(&ask("three")).is_err());
}

#[test]
fn a_nonce_is_used_again_with_its_count_its_method_and_one_cnonce() {
    let challenge = "Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256";
    let mut client = Client::new();
    client.gets(&asks(challenge)).unwrap();
    let first = client.sends("REGISTER", b"").remove(0);
    client.next_request();
    let second = client.sends("INVITE", b"v=0").remove(0);
    assert_eq!((first.count, second.count), (Some(1), Some(2)));
    assert_eq!(first.cnonce, second.cnonce);
    let inputs = Inputs {
        algorithm: Algorithm::Sha256,
        sess: false,
        qop: Some(Qop::Auth),
        nonce: "n",
        cnonce: second.cnonce.as_deref().unwrap(),
        count: 2,
        method: "INVITE",
        uri: URI,
        body: b"v=0",
    };
    assert_eq!(second.response, inputs.response(&Ha1::new(Algorithm::Sha256, "alice", "r", "wondrous")));
    // Another host, or for a proxy another next hop, is another matter.
    let elsewhere = Target { host: "example.org".into(), ..target() };
    let subject = Subject { method: "INVITE", uri: URI, body: b"" };
    assert!(client.nonces.answers(&client.credentials, &elsewhere, subject, &mut Tries::default()).is_empty());
    let mut proxied = Client::new();
    proxied.gets(&response(&["Proxy-Authenticate: Digest realm=r, nonce=n".into()])).unwrap();
    assert_eq!(proxied.nonces.answers(&proxied.credentials, &elsewhere, subject, &mut Tries::default()).len(), 1);
    let other_hop = Target { hop: "192.0.2.6:5060".parse().unwrap(), ..target() };
    assert!(proxied.nonces.answers(&proxied.credentials, &other_hop, subject, &mut Tries::default()).is_empty());
}

#[test]
fn odd_spaces_and_unquoted_values() {
    for challenge in [
        "Digest  realm = \"r\" , nonce=n,qop=auth",
        "dIgEsT\trealm=r,  NONCE = \"n\" ,, Qop = \"auth\" , algorithm = \"MD5\"",
        "Digest realm=\"r\",nonce=\"n\",qop=\"auth\",algorithm=md5,stale=FALSE,domain=\"\"",
    ] {
        let answer = Client::answers(challenge, "INVITE", b"").remove(0);
        assert_eq!(
            (answer.realm.as_str(), answer.nonce.as_str(), answer.qop),
            ("r", "n", Some(Qop::Auth)),
            "{challenge}"
        );
    }
}

// --- stopping ----------------------------------------------------------------------------------------------------------

#[test]
fn a_second_401_with_another_nonce_means_a_wrong_password() {
    let mut client = Client::new();
    client.sends("REGISTER", b"");
    client.gets(&asks("Digest realm=\"r\", nonce=\"n1\"")).unwrap();
    client.sends("REGISTER", b"");
    let why = client.gets(&asks("Digest realm=\"r\", nonce=\"n2\"")).unwrap_err();
    assert!(why.contains("wrong user name or password"), "{why}");
    client.next_request();
    assert!(client.sends("REGISTER", b"").is_empty(), "what was refused is not sent unasked");
}

#[test]
fn the_same_nonce_again_is_never_answered_again() {
    for again in ["Digest realm=\"r\", nonce=\"n1\"", "Digest realm=\"r\", nonce=\"n1\", stale=true"] {
        let mut client = Client::new();
        client.sends("REGISTER", b"");
        client.gets(&asks("Digest realm=\"r\", nonce=\"n1\"")).unwrap();
        client.sends("REGISTER", b"");
        assert!(client.gets(&asks(again)).is_err(), "{again}");
    }
}

#[test]
fn a_server_that_always_says_stale_gets_two_answers() {
    let mut client = Client::new();
    let mut answers = 0;
    for number in 0.. {
        answers += client.sends("REGISTER", b"").len();
        if client.gets(&asks(&format!("Digest realm=\"r\", nonce=\"{number}\", stale=true"))).is_err() {
            break;
        }
    }
    assert_eq!(answers, 2);
}

#[test]
fn credentials_out_of_the_cache_that_are_too_old_cost_no_try() {
    for stale in ["", ", stale=true"] {
        let mut client = Client::new();
        client.gets(&asks("Digest realm=\"r\", nonce=\"n1\", qop=\"auth\"")).unwrap();
        client.sends("REGISTER", b"");
        client.next_request();
        assert_eq!(client.sends("REGISTER", b"")[0].count, Some(2));
        client.gets(&asks(&format!("Digest realm=\"r\", nonce=\"n2\", qop=\"auth\"{stale}"))).unwrap();
        let answer = client.sends("REGISTER", b"").remove(0);
        assert_eq!((answer.nonce.as_str(), answer.count), ("n2", Some(1)));
        assert!(client.gets(&asks("Digest realm=\"r\", nonce=\"n3\", qop=\"auth\"")).is_err());
    }
}

#[test]
fn nextnonce_is_used_from_its_first_count() {
    let mut client = Client::new();
    client.gets(&asks("Digest realm=\"r\", nonce=\"n1\", qop=\"auth\"")).unwrap();
    let first = client.sends("REGISTER", b"").remove(0);
    client.succeeds(&response(&["Authentication-Info: nextnonce=\"n2\", qop=auth".into()]));
    client.next_request();
    let second = client.sends("REGISTER", b"").remove(0);
    assert_eq!((second.nonce.as_str(), second.count), ("n2", Some(1)));
    assert_ne!(first.cnonce, second.cnonce);
}

#[test]
fn what_is_kept_for_servers_is_bounded() {
    let mut client = Client::new();
    for number in 0..1000 {
        client.next_request();
        client.gets(&asks(&format!("Digest realm=\"{number}\", nonce=\"n\""))).unwrap();
    }
    client.next_request();
    assert_eq!(client.sends("REGISTER", b"").len(), 32);
    client.next_request();
    let long = "n".repeat(10_000);
    assert!(client.gets(&asks(&format!("Digest realm=\"r\", nonce=\"{long}\""))).is_err());
}

#[test]
fn the_reason_says_why_nothing_was_answered() {
    for (challenge, expected) in [
        ("Basic realm=\"r\"", "Basic is never answered"),
        ("Digest realm=\"r\", nonce=\"n\", algorithm=AKAv1-MD5", "algorithm AKAv1-MD5 is unknown"),
        ("Digest realm=\"r\", nonce=\"n\", qop=\"auth-conf\"", "qop auth-conf is unknown"),
        ("Digest nonce=\"n\"", "without a realm"),
        ("Digest realm=\"r\"", "without a nonce"),
        ("NTLM x", "scheme NTLM is unknown"),
        ("", "no challenge"),
    ] {
        let why = Client::new().gets(&asks(challenge)).unwrap_err();
        assert!(why.contains(expected), "{challenge}: {why}");
    }
    assert!(Client::new().gets(&response(&[])).unwrap_err().contains("no challenge"));
}

// --- flows -------------------------------------------------------------------------------------------------------------

/// The digest answers of a captured flow are what we compute for its requests.
fn check_flow(text: &str, user: &str, password: &str, expected: usize) {
    let flow: Value = serde_json::from_str(text).unwrap();
    let mut seen = 0;
    for step in flow["steps"].as_array().unwrap() {
        let raw = step["raw"].as_str().unwrap();
        let message = Message::parse(Bytes::copy_from_slice(raw.as_bytes())).unwrap();
        for header in ["Authorization", "Proxy-Authorization"] {
            for line in message.lines_named(header) {
                let answer = Answer::parse(line).unwrap();
                let inputs = Inputs {
                    algorithm: answer.algorithm,
                    sess: answer.sess,
                    qop: answer.qop,
                    nonce: &answer.nonce,
                    cnonce: answer.cnonce.as_deref().unwrap_or_default(),
                    count: answer.count.unwrap_or(1),
                    method: message.method().as_str(),
                    uri: &answer.uri,
                    body: message.body(),
                };
                let ha1 = Ha1::new(answer.algorithm, user, &answer.realm, password);
                assert_eq!(inputs.response(&ha1), answer.response, "{raw}");
                assert_eq!(answer.to_string().len(), line.len(), "{answer}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, expected);
}

#[test]
fn the_answers_of_the_recorded_flows() {
    macro_rules! flow {
        ($name:literal) => {
            include_str!(concat!("../../../tests/data/flows/", $name, ".json"))
        };
    }
    check_flow(flow!("3665-2.1-register"), "bob", "zanzibar", 1);
    check_flow(flow!("register-stale"), "bob", "zanzibar", 2);
    check_flow(flow!("3665-3.3-two-proxy-challenges"), "alice", "wondrous", 3);
}

// --- the server --------------------------------------------------------------------------------------------------------

const SOURCE: &str = "192.0.2.1";

fn source() -> IpAddr {
    SOURCE.parse().unwrap()
}

fn people(user: &str) -> Option<Secret> {
    match user {
        "alice" => Some(Secret::password("wondrous")),
        "bob" => Some(Secret::Ha1(Algorithm::Sha256, Ha1::new(Algorithm::Sha256, "bob", "a \"b\", c", "zanzibar"))),
        _ => None,
    }
}

struct Server {
    verifier: Verifier,
    now: Instant,
}

impl Server {
    fn new(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy::new("a \"b\", c", Asker::Server);
        change(&mut policy);
        let now = start();
        Self { verifier: Verifier::new(policy, &mut StdRng::seed_from_u64(7), now), now }
    }

    fn request(headers: &[(&str, String)], body: &str) -> Message {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!(
            "INVITE {URI} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@example.com>;tag=1\r\n\
             To: <sip:b@example.com>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n{lines}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    fn gets(&mut self, headers: &[(&'static str, String)], body: &str) -> Verdict {
        self.verifier.verify(&Self::request(headers, body), source(), &people, self.now)
    }
}

fn challenges(verdict: &Verdict) -> (Message, bool) {
    let Verdict::Challenge { headers, stale } = verdict else { panic!("{verdict:?}") };
    let lines: Vec<String> = headers.iter().map(|value| format!("WWW-Authenticate: {value}")).collect();
    (response(&lines), *stale)
}

/// Sends as often as it takes; the verdicts.
fn talk(server: &mut Server, client: &mut Client, body: &str) -> Vec<Verdict> {
    client.next_request();
    let mut verdicts = Vec::new();
    loop {
        let headers = client.headers("INVITE", body.as_bytes());
        let verdict = server.gets(&headers, body);
        let challenged = matches!(verdict, Verdict::Challenge { .. });
        verdicts.push(verdict.clone());
        if !challenged || client.gets(&challenges(&verdict).0).is_err() {
            return verdicts;
        }
    }
}

#[test]
fn our_client_and_our_server_agree_on_everything_they_can() {
    for algorithm in ALL {
        for qops in [vec![], vec![Qop::Auth], vec![Qop::AuthInt], vec![Qop::AuthInt, Qop::Auth]] {
            let mut server = Server::new(|policy| {
                policy.algorithms = vec![algorithm];
                policy.qops = qops.clone();
            });
            let mut client = Client::new();
            let verdicts = talk(&mut server, &mut client, "v=0\r\n");
            assert_eq!(verdicts.len(), 2, "{algorithm:?} {qops:?}");
            assert_eq!(verdicts[1], Verdict::Accepted { user: "alice".into() }, "{algorithm:?} {qops:?}");
        }
    }
}

#[test]
fn a_password_may_be_kept_as_its_hash() {
    let mut server = Server::new(|_| ());
    let mut client = Client::new();
    client.credentials = Credentials { username: "bob".into(), password: "zanzibar".into() };
    assert_eq!(talk(&mut server, &mut client, "")[1], Verdict::Accepted { user: "bob".into() });
    // Not for another algorithm than it was made with.
    client = Client::new();
    client.credentials = Credentials { username: "bob".into(), password: "zanzibar".into() };
    client.allowed = vec![Algorithm::Md5];
    assert!(matches!(talk(&mut server, &mut client, "")[1], Verdict::Challenge { stale: false, .. }));
}

#[test]
fn the_strongest_algorithm_is_offered_first() {
    let mut server = Server::new(|policy| policy.algorithms = ALL.to_vec());
    let Verdict::Challenge { headers, .. } = server.gets(&[], "") else { panic!("no challenge") };
    let names: Vec<_> = headers.iter().map(|value| value.rsplit_once("algorithm=").unwrap().1.to_owned()).collect();
    assert_eq!(names, ["SHA-512-256", "SHA-256", "MD5"]);
}

#[test]
fn a_replay_is_stale_and_a_rising_count_is_not() {
    let mut server = Server::new(|_| ());
    let mut client = Client::new();
    let (asked, _) = challenges(&server.gets(&[], ""));
    client.gets(&asked).unwrap();
    let caught = client.headers("INVITE", b"");
    let alice = Verdict::Accepted { user: "alice".into() };
    assert_eq!(server.gets(&caught, ""), alice);
    assert!(challenges(&server.gets(&caught, "")).1, "the same nc again");
    client.next_request();
    let second = client.headers("INVITE", b"");
    let third = client.headers("INVITE", b"");
    assert_eq!(server.gets(&third, ""), alice);
    assert!(challenges(&server.gets(&second, "")).1, "a lower nc");
    // From another address the nonce is none of ours.
    let elsewhere = "192.0.2.77".parse().unwrap();
    let fourth = client.headers("INVITE", b"");
    let verdict = server.verifier.verify(&Server::request(&fourth, ""), elsewhere, &people, server.now);
    assert!(challenges(&verdict).1);
}

#[test]
fn a_nonce_lives_for_its_time() {
    let mut server = Server::new(|_| ());
    let mut client = Client::new();
    assert_eq!(talk(&mut server, &mut client, "").len(), 2);
    server.now += NONCE_LIFE - Duration::from_millis(1);
    assert_eq!(talk(&mut server, &mut client, "").len(), 1, "credentials in the first request");
    server.now += Duration::from_millis(1);
    let verdicts = talk(&mut server, &mut client, "");
    assert!(challenges(&verdicts[0]).1, "stale");
    assert_eq!(verdicts[1], Verdict::Accepted { user: "alice".into() });
}

#[test]
fn unknown_users_and_wrong_passwords_get_the_same_answer() {
    let shape = |user: &str| {
        let mut server = Server::new(|_| ());
        let mut client = Client::new();
        client.credentials = Credentials { username: user.into(), password: "guess".into() };
        let verdicts = talk(&mut server, &mut client, "");
        verdicts.into_iter().map(|verdict| format!("{verdict:?}")).collect::<Vec<_>>()
    };
    assert_eq!(shape("alice"), shape("nobody"));
    assert_eq!(shape("alice").len(), 2);
}

#[test]
fn an_unknown_user_costs_as_many_hashes_as_a_known_one() {
    // An empty password must not open the account of somebody who has none.
    let mut server = Server::new(|_| ());
    let mut client = Client::new();
    client.credentials = Credentials { username: "nobody".into(), password: String::new() };
    assert!(matches!(talk(&mut server, &mut client, "").last(), Some(Verdict::Challenge { stale: false, .. })));
}

#[test]
fn what_was_not_offered_is_not_taken() {
    let mut strong = Server::new(|policy| policy.algorithms = vec![Algorithm::Sha256]);
    let Verdict::Challenge { headers, .. } = strong.gets(&[], "") else { panic!("no challenge") };
    let weak = headers[0].replace("SHA-256", "MD5");
    let mut client = Client::new();
    client.gets(&asks(&weak)).unwrap();
    let answer = client.headers("INVITE", b"");
    assert!(matches!(strong.gets(&answer, ""), Verdict::Challenge { stale: false, .. }), "downgraded");
    // A body that was changed on its way, where the server asks for auth-int.
    let mut server = Server::new(|policy| policy.qops = vec![Qop::AuthInt]);
    let mut client = Client::new();
    client.gets(&challenges(&server.gets(&[], "")).0).unwrap();
    let answer = client.headers("INVITE", b"one");
    assert!(matches!(server.gets(&answer, "two"), Verdict::Challenge { stale: false, .. }));
    // Credentials made for another URI.
    let mut server = Server::new(|_| ());
    let mut client = Client::new();
    client.gets(&challenges(&server.gets(&[], "")).0).unwrap();
    let subject = Subject { method: "INVITE", uri: "sip:premium@example.com", body: b"" };
    let answer = client.nonces.answers(&client.credentials, &target(), subject, &mut Tries::default());
    assert!(matches!(server.gets(&answer, ""), Verdict::Challenge { stale: false, .. }));
}

#[test]
fn guessing_is_cut_off_and_the_cut_ends() {
    let mut server = Server::new(|_| ());
    let guess = |server: &mut Server| {
        let mut client = Client::new();
        client.credentials = Credentials { username: "alice".into(), password: "guess".into() };
        client.gets(&challenges(&server.gets(&[], "")).0).unwrap();
        let headers = client.headers("INVITE", b"");
        server.gets(&headers, "")
    };
    for _ in 0..10 {
        assert!(matches!(guess(&mut server), Verdict::Challenge { .. }));
    }
    assert_eq!(server.gets(&[], ""), Verdict::Drop);
    let elsewhere: SocketAddr = "192.0.2.77:5060".parse().unwrap();
    let verdict = server.verifier.verify(&Server::request(&[], ""), elsewhere.ip(), &people, server.now);
    assert!(matches!(verdict, Verdict::Challenge { .. }));
    server.now += Duration::from_secs(60);
    assert!(matches!(server.gets(&[], ""), Verdict::Challenge { .. }));
}

// --- secrets and hostile bytes -------------------------------------------------------------------------------------------

#[test]
fn nothing_that_proves_a_password_shows() {
    let mut client = Client::new();
    client.gets(&asks("Digest realm=\"r\", nonce=\"n\", qop=\"auth\"")).unwrap();
    let (_, value) = client.headers("INVITE", b"").remove(0);
    let answer = Answer::parse(value.as_bytes()).unwrap();
    let ha1 = Ha1::new(Algorithm::Md5, "alice", "r", "wondrous");
    let shown = format!(
        "{:?} {answer:?} {ha1:?} {:?} {:?} {:?} {}",
        client.credentials,
        Secret::password("wondrous"),
        client.nonces,
        Server::new(|_| ()).verifier,
        without_proof(&value)
    );
    for secret in ["wondrous", answer.response.as_str()] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert!(without_proof(&value).contains("username=\"alice\""));
    assert_eq!(without_proof("Basic abc"), "Basic …");
    assert_eq!(without_proof("Digest response=\"0a\", junk"), "Digest response=\"…\", …");
}

#[test]
fn any_bytes_are_read_without_a_panic() {
    let seeds = [
        r#"Digest realm="a\"b", nonce="n", opaque="o", qop="auth,auth-int", algorithm=SHA-256-sess, stale=true"#,
        r#"Digest username="a", realm="r", nonce="n", uri="sip:x", response="0", qop=auth, nc=00000001, cnonce="c""#,
        "Digest realm=\"ä, Digest ö=\\",
    ];
    for seed in seeds {
        for cut in 0..=seed.len() {
            for bytes in [&seed.as_bytes()[..cut], &seed.as_bytes()[cut..]] {
                let text = String::from_utf8_lossy(bytes);
                let _ = Challenge::parse_line(Asker::Proxy, &text);
                let _ = Challenge::parse(Asker::Proxy, &text);
                let _ = Answer::parse(bytes);
                let _ = without_proof(&text);
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn what_we_print_we_read_back(realm in ".{0,40}", nonce in "[!-~]{1,40}", opaque in ".{0,20}") {
        let plain = |text: &str| text.chars().filter(|letter| !letter.is_control()).collect::<String>();
        let challenge = Challenge {
            asker: Asker::Server, realm: plain(&realm), nonce, opaque: Some(plain(&opaque)), algorithm: Algorithm::Sha256,
            sess: true, spelled: Some("SHA-256-sess".into()), qops: Some(vec![Qop::Auth]), stale: true,
        };
        let read = Challenge::parse_line(Asker::Server, &challenge.to_string());
        proptest::prop_assert_eq!(read, vec![Ok(challenge)]);
    }
}
