//! Parses one 1.2 kB INVITE and reads eight headers typed (Via branch, From, To, Call-ID, CSeq, Contact, Max-Forwards,
//! Content-Length) with sipwire, rsipstack and rsip, in turns in one process, and prints medians of the thread's CPU time and
//! the allocations of one message.
//!
//! `cargo run --release -p sipwire-compare [rounds]`; fails when sipwire is above 0.35 of rsipstack's time or two allocations.
//! `… diff` prints instead which of the test messages sipwire and rsipstack read differently.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::process::ExitCode;

use bytes::Bytes;

thread_local! {
    static ALLOCATIONS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, counting calls and bytes of this thread.
struct Counting;

fn count(bytes: usize) {
    let _ = ALLOCATIONS.try_with(|cell| cell.set((cell.get().0 + 1, cell.get().1 + bytes as u64)));
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a constant-initialised thread local, which
// neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// CPU time of this thread in nanoseconds: other processes on the machine do not show.
fn cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill in.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// An INVITE as phones send it: 14 headers and an SDP offer.
fn invite() -> Bytes {
    let sdp = "v=0\r\no=- 2157094222 1793891930 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
               m=audio 41034 RTP/AVP 96 9 0 8 101\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 stereo=1;useinbandfec=1\r\n\
               a=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
               a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=rtcp:41035 IN IP4 192.0.2.10\r\na=ssrc:466698177 cname:9c2d4a66d4076dde@192.0.2.10\r\n\
               a=label:1\r\na=rtcp-rsize\r\na=maxptime:60\r\na=ptime:20\r\na=sendrecv\r\n";
    let message = format!(
        "INVITE sip:bob@example.com;transport=udp SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK9c2d4a66d4076dde0a51;rport\r\n\
         Max-Forwards: 70\r\n\
         Route: <sip:proxy.example.com;lr>\r\n\
         From: \"Alice Liddell\" <sip:alice@example.com>;tag=13f00ee9476a0024\r\n\
         To: \"Bob\" <sip:bob@example.com>\r\n\
         Call-ID: b58cb9d50e237330f1a9c2d4a66d4076@192.0.2.10\r\n\
         CSeq: 35246 INVITE\r\n\
         Contact: <sip:alice@192.0.2.10:5060;transport=udp>;expires=3600\r\n\
         Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, NOTIFY, SUBSCRIBE, INFO, MESSAGE, REFER, UPDATE, PRACK\r\n\
         Supported: replaces, timer, outbound, 100rel\r\n\
         Session-Expires: 1800;refresher=uac\r\n\
         User-Agent: a phone of some kind 4.2.1 (x86_64/linux; built on a Tuesday)\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    Bytes::from(message)
}

/// What the eight headers hold, to prove that each parser read the same.
#[derive(Debug, PartialEq)]
struct Values {
    branch: String,
    from: (String, String, String),
    to: (String, String),
    call_id: String,
    cseq: (u32, String),
    contact: (String, u16),
    max_forwards: u32,
    content_length: u32,
}

mod wire {
    use super::*;
    use sipwire::sip::headers::{CSeq, Via};
    use sipwire::sip::message::{HeaderName, Message};
    use sipwire::sip::uri::{Uri, UriRef};

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Everything in place: nothing but the list of headers is allocated.
    pub fn read(bytes: &Bytes) {
        let message = Message::parse(bytes.clone()).expect("a good message");
        let via: Via<'_> = message.top_via().expect("Via");
        let (from, to) = (message.from().expect("From"), message.to().expect("To"));
        let contact = message.contact().expect("a readable Contact").expect("a Contact");
        let uris: [UriRef<'_>; 3] = [from, to, contact].map(|address| address.uri_ref().expect("a URI"));
        let cseq: CSeq = message.cseq().expect("CSeq");
        black_box((via.branch(), from.tag(), to.tag(), uris, message.call_id().expect("Call-ID"), cseq));
        black_box((
            message.max_forwards().expect("a number"),
            message.number(HeaderName::ContentLength).expect("a number"),
        ));
    }

    /// The same with owned, decoded URIs, which is what the peers' typed headers are.
    pub fn read_owned(bytes: &Bytes) {
        let message = Message::parse(bytes.clone()).expect("a good message");
        let via: Via<'_> = message.top_via().expect("Via");
        let (from, to) = (message.from().expect("From"), message.to().expect("To"));
        let contact = message.contact().expect("a readable Contact").expect("a Contact");
        let uris: [Uri; 3] = [from, to, contact].map(|address| address.uri().expect("a URI"));
        let cseq: CSeq = message.cseq().expect("CSeq");
        black_box((via.branch(), from.tag(), to.tag(), uris, message.call_id().expect("Call-ID"), cseq));
        black_box((
            message.max_forwards().expect("a number"),
            message.number(HeaderName::ContentLength).expect("a number"),
        ));
    }

    pub fn parse_only(bytes: &Bytes) {
        black_box(Message::parse(bytes.clone()).expect("a good message"));
    }

    pub fn values(bytes: &Bytes) -> Values {
        let message = Message::parse(bytes.clone()).expect("a good message");
        let (from, to) = (message.from().expect("From"), message.to().expect("To"));
        let (from_uri, to_uri) = (from.uri().expect("a URI"), to.uri().expect("a URI"));
        let contact = message.contact().expect("a readable Contact").expect("a Contact").uri().expect("a URI");
        let cseq = message.cseq().expect("CSeq");
        Values {
            branch: text(message.top_via().expect("Via").branch().expect("a branch")),
            from: (from_uri.user.clone().expect("a user"), from_uri.host_str(), text(from.tag().expect("a tag"))),
            to: (to_uri.user.clone().expect("a user"), to_uri.host_str()),
            call_id: text(message.call_id().expect("Call-ID")),
            cseq: (cseq.number, cseq.method.to_string()),
            contact: (contact.host_str(), contact.port.expect("a port")),
            max_forwards: message.max_forwards().expect("a number").expect("Max-Forwards").into(),
            content_length: message.number(HeaderName::ContentLength).expect("a number").expect("Content-Length"),
        }
    }
}

mod stack {
    use super::*;
    use rsipstack::sip::prelude::*;
    use rsipstack::sip::{Header, SipMessage};

    fn content_length(message: &SipMessage) -> u32 {
        let find = |header: &Header| match header {
            Header::ContentLength(length) => length.value().trim().parse().ok(),
            _ => None,
        };
        message.headers().iter().find_map(find).expect("Content-Length")
    }

    pub fn read(bytes: &Bytes) {
        let message = SipMessage::try_from(&bytes[..]).expect("a good message");
        let via = message.via_header().and_then(|via| via.typed()).expect("Via");
        let from = message.from_header().and_then(|from| from.typed()).expect("From");
        let to = message.to_header().and_then(|to| to.typed()).expect("To");
        let contact = message.contact_header().and_then(|contact| contact.typed()).expect("Contact");
        let cseq = message.cseq_header().and_then(|cseq| cseq.typed()).expect("CSeq");
        black_box((via.branch(), &from, &to, &contact, &cseq, message.call_id_header().expect("Call-ID").value()));
        let hops: u32 = message.max_forwards_header().expect("Max-Forwards").value().trim().parse().expect("a number");
        black_box((hops, content_length(&message)));
    }

    pub fn parse_only(bytes: &Bytes) {
        black_box(SipMessage::try_from(&bytes[..]).expect("a good message"));
    }

    pub fn values(bytes: &Bytes) -> Values {
        let message = SipMessage::try_from(&bytes[..]).expect("a good message");
        let via = message.via_header().and_then(|via| via.typed()).expect("Via");
        let from = message.from_header().and_then(|from| from.typed()).expect("From");
        let to = message.to_header().and_then(|to| to.typed()).expect("To");
        let contact = message.contact_header().and_then(|contact| contact.typed()).expect("Contact");
        let cseq = message.cseq_header().and_then(|cseq| cseq.typed()).expect("CSeq");
        Values {
            branch: via.branch().expect("a branch").to_string(),
            from: (
                from.uri.user().expect("a user").to_string(),
                from.uri.host().to_string(),
                from.tag().expect("a tag").to_string(),
            ),
            to: (to.uri.user().expect("a user").to_string(), to.uri.host().to_string()),
            call_id: message.call_id_header().expect("Call-ID").value().to_string(),
            cseq: (cseq.seq, cseq.method.to_string()),
            contact: (
                contact.uri.host().to_string(),
                contact.uri.host_with_port.port.as_ref().expect("a port").value(),
            ),
            max_forwards: message
                .max_forwards_header()
                .expect("Max-Forwards")
                .value()
                .trim()
                .parse()
                .expect("a number"),
            content_length: content_length(&message),
        }
    }
}

mod old {
    use super::*;
    use rsip::prelude::*;
    use rsip::{Header, SipMessage};

    pub fn read(bytes: &Bytes) {
        let message = SipMessage::try_from(&bytes[..]).expect("a good message");
        let via = message.via_header().and_then(|via| via.typed()).expect("Via");
        let from = message.from_header().and_then(|from| from.typed()).expect("From");
        let to = message.to_header().and_then(|to| to.typed()).expect("To");
        let contact = message.contact_header().and_then(|contact| contact.typed()).expect("Contact");
        let cseq = message.cseq_header().and_then(|cseq| cseq.typed()).expect("CSeq");
        black_box((via.branch(), &from, &to, &contact, &cseq, message.call_id_header().expect("Call-ID").value()));
        let hops = message.max_forwards_header().expect("Max-Forwards").num().expect("a number");
        let find = |header: &Header| match header {
            Header::ContentLength(length) => length.length().ok(),
            _ => None,
        };
        black_box((hops, message.headers().iter().find_map(find).expect("Content-Length")));
    }

    pub fn parse_only(bytes: &Bytes) {
        black_box(SipMessage::try_from(&bytes[..]).expect("a good message"));
    }
}

/// Prints where the two parsers read the test messages differently; `expected.json` beside them says who is right.
fn differ() {
    use rsipstack::sip::prelude::*;
    use sipwire::sip::message::Message;

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/sip");
    let folders = ["everyday", "rfc4475", "rfc5118"].map(|folder| root.join(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("the test data"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "dat"));
    paths.sort();
    let (mut same, mut different) = (0, 0);
    for path in paths {
        let bytes = Bytes::from(std::fs::read(&path).expect("a file"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ours = Message::parse(bytes.clone()).ok().map(|message| {
            [
                message.call_id().ok().map(text),
                message.cseq().ok().map(|cseq| cseq.to_string()),
                message.top_via().ok().and_then(|via| via.branch()).map(text),
                message.from().ok().and_then(|from| from.tag()).map(text),
                message.to().ok().and_then(|to| to.uri().ok()).and_then(|uri| uri.host).map(|host| host.to_string()),
                Some(message.body().len().to_string()),
            ]
        });
        let theirs = rsipstack::sip::SipMessage::try_from(&bytes[..]).ok().map(|message| {
            let body = match &message {
                rsipstack::sip::SipMessage::Request(request) => request.body().len(),
                rsipstack::sip::SipMessage::Response(response) => response.body().len(),
            };
            [
                message.call_id_header().ok().map(|id| id.value().to_string()),
                message
                    .cseq_header()
                    .and_then(|cseq| cseq.typed())
                    .ok()
                    .map(|cseq| format!("{} {}", cseq.seq, cseq.method)),
                message
                    .top_via_header()
                    .and_then(|via| via.typed())
                    .ok()
                    .and_then(|via| via.branch().map(|b| b.to_string())),
                message
                    .from_header()
                    .and_then(|from| from.typed())
                    .ok()
                    .and_then(|from| from.tag().map(|tag| tag.to_string())),
                message.to_header().and_then(|to| to.typed()).ok().map(|to| to.uri.host().to_string()),
                Some(body.to_string()),
            ]
        });
        if ours == theirs {
            same += 1;
        } else {
            different += 1;
            println!("{}\n  sipwire   {ours:?}\n  rsipstack {theirs:?}", path.file_name().expect("a name").display());
        }
    }
    println!("{same} read alike, {different} differently");
}

type Read = fn(&Bytes);

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() -> ExitCode {
    const BATCH: u32 = 2_000;
    let rounds: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(41);
    if std::env::args().nth(1).as_deref() == Some("diff") {
        differ();
        return ExitCode::SUCCESS;
    }
    let bytes = invite();
    assert_eq!(wire::values(&bytes), stack::values(&bytes), "both parsers read the same");

    let contenders: [(&str, Read); 7] = [
        ("sipwire", wire::read),
        ("sipwire, owned URIs", wire::read_owned),
        ("rsipstack 0.7.14", stack::read),
        ("rsip 0.4.0", old::read),
        ("sipwire, parse only", wire::parse_only),
        ("rsipstack, parse only", stack::parse_only),
        ("rsip, parse only", old::parse_only),
    ];
    let mut samples = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..=rounds {
        for ((_, read), samples) in contenders.iter().zip(&mut samples) {
            let start = cpu_time();
            for _ in 0..BATCH {
                read(black_box(&bytes));
            }
            let each = (cpu_time() - start) as f64 / f64::from(BATCH);
            if round > 0 {
                samples.push(each); // the first round warms up
            }
        }
    }
    let times: Vec<f64> = samples.into_iter().map(median).collect();
    let peer = times[2];
    println!("{}-byte INVITE, {rounds} rounds of {BATCH}, medians of CPU time\n", bytes.len());
    println!("{:<24} {:>10} {:>16} {:>12} {:>8}", "parser", "ns", "of rsipstack+8", "allocations", "bytes");
    let mut ours = 0;
    for (i, ((name, read), time)) in contenders.iter().zip(&times).enumerate() {
        let before = ALLOCATIONS.get();
        read(&bytes);
        let after = ALLOCATIONS.get();
        let (calls, size) = (after.0 - before.0, after.1 - before.1);
        if i == 0 {
            ours = calls;
        }
        println!("{name:<24} {time:>10.0} {:>16.2} {calls:>12} {size:>8}", time / peer);
    }
    match times[0] <= 0.35 * peer && ours <= 2 {
        true => ExitCode::SUCCESS,
        false => {
            eprintln!("above the goal of 0.35 and two allocations");
            ExitCode::FAILURE
        }
    }
}
