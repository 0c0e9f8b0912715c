//! What real clients sent must parse, and no bytes may harm: every vector cut at every byte, split anywhere on a stream,
//! and changed at random from a fixed seed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sipwire::sip::build::{self, Builder};
use sipwire::sip::headers::{ContentType, List, RAck, Reason, Replaces, RetryAfter, Via, Warning};
use sipwire::sip::message::{HeaderName, Message};
use sipwire::sip::stream::{Frame, StreamFramer};
use sipwire::sip::uri::Uri;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn files(folder: &str, ending: &str) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(data().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == ending))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), std::fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

fn vectors() -> Vec<(String, Vec<u8>)> {
    let all: Vec<_> =
        ["sip/everyday", "sip/rfc4475", "sip/rfc5118"].iter().flat_map(|folder| files(folder, "dat")).collect();
    assert_eq!(all.len(), 81);
    all
}

/// The SIP messages of one capture as (sent by the client, transport, bytes).
fn captured(text: &[u8]) -> Vec<(bool, String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = find(rest, b"@@ ") {
        let line_end = at + find(&rest[at..], b"\n").unwrap();
        let marker: Vec<&str> = std::str::from_utf8(&rest[at..line_end]).unwrap().split(' ').collect();
        let [_, side, transport, length] = marker[..] else { panic!("marker {marker:?}") };
        let end = line_end + 1 + length.parse::<usize>().unwrap();
        if transport != "http-upgrade" {
            found.push((side == "c2s", transport.to_string(), rest[line_end + 1..end].to_vec()));
        }
        rest = &rest[end..];
    }
    found
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[test]
fn every_message_of_real_clients_is_read() {
    let mut messages = 0;
    let captures = files("real-clients", "txt");
    assert_eq!(captures.len(), 38);
    for (name, text) in captures {
        let mut streams = [StreamFramer::default(), StreamFramer::default()];
        for (from_client, transport, bytes) in captured(&text) {
            if bytes.iter().all(|&b| b == b'\r' || b == b'\n') {
                continue;
            }
            let message = Message::parse(Bytes::from(bytes.clone())).unwrap_or_else(|error| panic!("{name}: {error}"));
            message.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
            messages += 1;
            // What they read in each other's messages has to be readable to us.
            for contact in message.contacts().map(|contact| contact.unwrap_or_else(|error| panic!("{name}: {error}"))) {
                assert!(contact.is_wildcard() || contact.uri().is_ok(), "{name}: {contact:?}");
            }
            for name in [HeaderName::Route, HeaderName::RecordRoute] {
                assert!(message.addresses(name).all(|route| route.is_ok_and(|route| route.uri().is_ok())));
            }
            if let Some(media) = message.header(HeaderName::ContentType) {
                assert!(ContentType::parse(media).is_some(), "{name}");
            }
            for expires in [HeaderName::Expires, HeaderName::MinExpires, HeaderName::SessionExpires, HeaderName::MinSE]
            {
                assert!(message.number(expires).is_ok(), "{name}");
            }
            if message.is_request() {
                assert_eq!(message.request_uri().unwrap().to_string().as_bytes(), message.request_uri_raw(), "{name}");
                let answer =
                    Builder::response(&message, 200, "", Some("t"), "192.0.2.9:9".parse().unwrap()).finish(None);
                assert_eq!(Message::parse(answer).unwrap().validate(), Ok(()), "{name}");
            }
            if transport == "tcp" {
                let stream = &mut streams[usize::from(from_client)];
                stream.push(&bytes);
                assert!(matches!(stream.next_frame(), Some(Frame::Message(framed)) if framed == message), "{name}");
            }
        }
    }
    assert!(messages > 350, "{messages} messages");
}

/// Reads everything there is to read, and answers.
fn exercise(bytes: Bytes) {
    let source = "192.0.2.9:9".parse().unwrap();
    let message = match Message::parse(bytes) {
        Ok(message) => message,
        Err(error) => match error.partial {
            Some(partial) => {
                if let Some(code) = error.answer {
                    assert!(partial.is_request(), "an answer to a response");
                    let answer = Builder::response(&partial, code, "", Some("t"), source).finish(None);
                    Message::parse(answer).expect("our answer is a message");
                }
                *partial
            }
            None => return,
        },
    };
    let verdict = message.validate();
    for (_, value) in message.headers() {
        assert!(!value.contains(&b'\n') && !value.contains(&b'\r'), "a line end in a value");
        for element in List::new(value) {
            if let Some(via) = Via::parse(element) {
                let _ = (via.sent_by(), via.received(), via.rport(), via.maddr(), via.ttl());
            }
            let _ = (Reason::parse(element), Warning::parse(element), ContentType::parse(element));
            if let Some(address) = sipwire::sip::headers::NameAddr::parse(element) {
                let _ = (address.display_name(), address.tag(), address.q(), address.expires());
                if let Ok(uri) = address.uri() {
                    let printed = uri.to_string();
                    let again: Uri = printed.parse().unwrap_or_else(|error| panic!("{printed:?}: {error}"));
                    assert_eq!(again.to_string(), printed, "printing is stable");
                    assert!(uri == again || uri.headers.len().max(uri.parameters.len()) > 64, "{printed}");
                }
            }
        }
        let _ = (RAck::parse(value), RetryAfter::parse(value), Replaces::parse(value));
    }
    let _ = (message.request_uri(), message.reason(), message.contact(), message.body_bytes());
    if message.is_request() {
        let answer = Builder::response(&message, 200, "", Some("t"), source).finish(Some(("a/b", b"c")));
        let answer = Message::parse(answer).expect("our answer is a message");
        assert_eq!(answer.body(), b"c");
        if verdict.is_ok() {
            assert_eq!(answer.validate(), Ok(()));
            for bytes in [build::ack_for_failure(&message, &answer), build::cancel_for(&message, &[])] {
                assert_eq!(Message::parse(bytes).expect("our request is a message").validate(), Ok(()));
            }
        }
    }
}

/// All frames of a stream, each as its bytes or its fault.
fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut framer = StreamFramer::default();
    let mut found = Vec::new();
    for piece in pieces {
        framer.push(piece);
        while let Some(frame) = framer.next_frame() {
            found.push(match frame {
                Frame::Message(message) => message.as_bytes().escape_ascii().to_string(),
                Frame::Ping => "ping".into(),
                Frame::Pong => "pong".into(),
                Frame::Bad(error) => format!("bad {:?} {}", error.answer, error.what),
                Frame::Lost(error) => format!("lost {:?} {}", error.answer, error.what),
            });
        }
    }
    found
}

#[test]
fn every_vector_cut_at_every_byte() {
    for (_, bytes) in vectors() {
        for end in 0..=bytes.len() {
            exercise(Bytes::copy_from_slice(&bytes[..end]));
        }
    }
}

#[test]
fn every_vector_split_at_every_byte_of_a_stream() {
    for (name, bytes) in vectors() {
        let whole = frames([&bytes[..]]);
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(frames([a, b]), whole, "{name} split at {at}");
        }
        assert_eq!(frames(bytes.chunks(1)), whole, "{name} byte by byte");
    }
}

/// A small generator of our own, so that a failure replays on every machine.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

#[test]
fn all_vectors_on_one_stream_split_at_random() {
    // Those whose length a stream can follow, glued together.
    let good: Vec<_> = vectors()
        .into_iter()
        .filter(|(_, bytes)| !frames([&bytes[..]]).iter().any(|f| f.starts_with("lost")))
        .collect();
    assert!(good.len() > 65, "{} vectors", good.len());
    let glued: Vec<u8> = good
        .iter()
        .filter(|(_, bytes)| frames([&bytes[..], b"OPTIONS "]).len() == 1)
        .flat_map(|(_, bytes)| bytes.clone())
        .collect();
    let whole = frames([&glued[..]]);
    assert!(whole.len() > 60 && !whole.iter().any(|frame| frame.starts_with("lost")), "{} frames", whole.len());
    for seed in 1..=200 {
        let mut random = Random::new(seed);
        let mut pieces = Vec::new();
        let mut rest = &glued[..];
        while !rest.is_empty() {
            let limit = [3, 40, 700, 9_000][random.below(4)];
            let (piece, after) = rest.split_at((1 + random.below(limit)).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        assert_eq!(frames(pieces), whole, "seed {seed}");
    }
}

#[test]
fn mutated_messages_harm_nothing() {
    const SPICE: [&[u8]; 24] = [
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"\"",
        b"<",
        b">",
        b",",
        b";",
        b":",
        b"@",
        b"%",
        b"%00",
        b"\\",
        b" ",
        b"\t",
        b"[",
        b"]",
        b"=",
        b"\xff",
        b"Content-Length: 99999999999999999999\r\n",
        b"\r\n ",
        b"SIP/2.0",
    ];
    let mut seeds: Vec<Vec<u8>> = vectors().into_iter().map(|(_, bytes)| bytes).collect();
    seeds.extend(
        files("real-clients", "txt").iter().flat_map(|(_, text)| captured(text)).map(|(_, _, bytes)| bytes).step_by(9),
    );
    for round in 1..=20_000u64 {
        let mut random = Random::new(round);
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len() + 1);
            let end = (at + random.below(12)).min(bytes.len());
            match random.below(6) {
                0 => drop(bytes.drain(at..end)),
                1 => drop(bytes.splice(at..end, SPICE[random.below(SPICE.len())].iter().copied())),
                2 if at < bytes.len() => bytes[at] = random.below(256) as u8,
                3 => {
                    let copied = bytes[at..(at + random.below(200)).min(bytes.len())].to_vec();
                    let to = random.below(bytes.len() + 1);
                    bytes.splice(to..to, copied);
                }
                4 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                _ => drop(bytes.splice(at..at, SPICE[random.below(SPICE.len())].iter().copied())),
            }
        }
        let outcome = std::panic::catch_unwind(|| {
            exercise(Bytes::copy_from_slice(&bytes));
            let (a, b) = bytes.split_at(bytes.len() / 3);
            assert_eq!(frames([a, b]), frames([&bytes[..]]));
        });
        assert!(outcome.is_ok(), "round {round}: {}", bytes.escape_ascii());
    }
}

/// The time of a message eight times as long may be eight times as long, not sixty-four.
#[test]
#[allow(clippy::disallowed_methods)] // measures
fn time_is_linear_in_the_size() {
    let head = "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:b@c>\r\n\
                Call-ID: 1\r\nCSeq: 1 OPTIONS\r\n";
    type Maker = fn(usize) -> String;
    let makers: [(&str, Maker); 9] = [
        ("commas", |n| format!("Contact: {}\r\n", ",".repeat(n))),
        ("quotes", |n| format!("Contact: {}\r\n", "\"".repeat(n))),
        ("open angles", |n| format!("Contact: {}\r\n", "<,".repeat(n / 2))),
        ("semicolons", |n| format!("Via: SIP/2.0/UDP h{}\r\n", ";a".repeat(n / 2))),
        ("escapes", |n| format!("Contact: \"{}\r\n", "\\\"".repeat(n / 2))),
        ("folds", |n| format!("Subject: {}\r\n", "\r\n x".repeat(n / 4))),
        ("lines", |n| "a:\r\n".repeat(n / 4)),
        ("carriage returns", |n| format!("a:{}\r\n", "\r".repeat(n))),
        ("URI parameters", |n| format!("Contact: <sip:a@b{}>\r\n", ";x".repeat(n / 2))),
    ];
    for (name, maker) in makers {
        let time = |size: usize| {
            let bytes = Bytes::from(format!("{head}{}\r\n", maker(size)));
            let once = || {
                let start = Instant::now();
                exercise(bytes.clone());
                start.elapsed()
            };
            (0..5).map(|_| once()).min().unwrap()
        };
        let (small, large) = (time(7_500), time(60_000));
        let bound = (small * 24).max(Duration::from_millis(20));
        assert!(large < bound, "{name}: {small:?} for 7.5 kB, {large:?} for 60 kB");
    }
}
