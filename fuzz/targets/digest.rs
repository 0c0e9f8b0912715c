//! Challenges and their answers: whatever is asked, our answer can be read; whatever is answered, a server survives it.
#![no_main]

use std::time::Instant;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sipwire::sip::digest::answer::Answer;
use sipwire::sip::digest::challenge::Challenge;
use sipwire::sip::digest::client::{Nonces, Subject, Target, Tries};
use sipwire::sip::digest::server::{Policy, Secret, Verdict, Verifier};
use sipwire::sip::digest::{Algorithm, Asker, Credentials};
use sipwire::sip::message::Message;

fuzz_target!(|data: &[u8]| {
    let mut random = StdRng::seed_from_u64(1);
    let line: String = String::from_utf8_lossy(data).chars().filter(|letter| !"\r\n\0".contains(*letter)).collect();
    ask(&line, &mut random);
    prove(&line, &mut random);
});

fn message(start: &str, header: &str, line: &str) -> Option<Message> {
    let text = format!(
        "{start}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\n\
         Call-ID: c\r\nCSeq: 1 REGISTER\r\n{header}: {line}\r\nContent-Length: 0\r\n\r\n"
    );
    Message::parse(Bytes::from(text)).ok()
}

/// The line is a challenge.
fn ask(line: &str, random: &mut StdRng) {
    let _ = Challenge::parse_line(Asker::Server, line);
    let Some(response) = message("SIP/2.0 401 Unauthorized", "WWW-Authenticate", line) else { return };
    let credentials = Credentials { username: "alice".into(), password: "secret of alice".into() };
    let hop = "192.0.2.2:5060".parse().expect("an address");
    let target = Target { host: "h".into(), hop };
    let (mut nonces, mut tries) = (Nonces::default(), Tries::default());
    let every = [Algorithm::Sha512_256, Algorithm::Sha256, Algorithm::Md5];
    let subject = Subject { method: "REGISTER", uri: "sip:h", body: b"body" };
    let mut rounds = 0;
    while nonces.challenged(&response, &target, &every, |_| Ok(()), &mut tries, random).is_ok() {
        rounds += 1;
        assert!(rounds <= 2, "a loop of challenges");
        let answers = nonces.answers(&credentials, &target, subject, &mut tries);
        assert!(!answers.is_empty(), "{line:?} is to be answered, with nothing");
        for (_, value) in answers {
            assert!(!value.contains(&credentials.password) && !value.contains(['\r', '\n']), "{value:?}");
            Answer::parse(value.as_bytes()).unwrap_or_else(|error| panic!("{value:?}: {error}"));
        }
    }
}

/// The line is somebody's credentials.
fn prove(line: &str, random: &mut StdRng) {
    let now = Instant::now();
    let mut verifier = Verifier::new(Policy::new("h", Asker::Server), random, now);
    let Some(request) = message("REGISTER sip:h SIP/2.0", "Authorization", line) else { return };
    let source = "192.0.2.1".parse().expect("an address");
    let passwords = |user: &str| (user == "alice").then(|| Secret::password("another"));
    for _ in 0..2 {
        let verdict = verifier.verify(&request, source, &passwords, now);
        assert!(!matches!(verdict, Verdict::Accepted { .. }), "nobody knows the password: {line:?}");
    }
}
