use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::ua::locate::Families;

const A: u16 = 1;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const NAPTR: u16 = 35;

const BOTH: Families = Families { ipv4: true, ipv6: true };
const IPV4: Families = Families { ipv4: true, ipv6: false };
const PATIENCE: Duration = Duration::from_secs(5);

/// What the name server does with a question.
#[derive(Clone)]
enum Reply {
    Records(Vec<Vec<u8>>),
    NoSuchName,
    Silence,
    /// "Ask over TCP", where the records are.
    Truncated(Vec<Vec<u8>>),
    /// First these under another id, then the true ones.
    Forged {
        forged: Vec<Vec<u8>>,
        records: Vec<Vec<u8>>,
    },
}

/// A name server on loopback.
struct Server {
    address: SocketAddr,
    /// What was asked, in order: name, type, and how.
    asked: Arc<Mutex<Vec<String>>>,
}

type Zone = BTreeMap<(&'static str, u16), Reply>;

impl Server {
    async fn start(zone: Zone) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("bound")).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("bound");
        let (zone, asked) = (Arc::new(zone), Arc::new(Mutex::new(Vec::new())));
        let (zone_of_tcp, asked_of_tcp, seen) = (zone.clone(), asked.clone(), asked.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok((size, from)) = udp.recv_from(&mut buffer).await {
                for answer in answers(&zone, &buffer[..size], &asked, "udp") {
                    udp.send_to(&answer, from).await.expect("sent");
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let (zone, asked) = (zone_of_tcp.clone(), asked_of_tcp.clone());
                tokio::spawn(async move {
                    while let Ok(size) = stream.read_u16().await {
                        let mut query = vec![0; size.into()];
                        stream.read_exact(&mut query).await.expect("a whole query");
                        for answer in answers(&zone, &query, &asked, "tcp") {
                            let size = u16::try_from(answer.len()).expect("a short answer");
                            stream.write_u16(size).await.expect("written");
                            stream.write_all(&answer).await.expect("written");
                        }
                    }
                });
            }
        });
        Self { address, asked: seen }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }
}

/// The messages one query is answered with.
fn answers(zone: &Zone, query: &[u8], asked: &Mutex<Vec<String>>, over: &str) -> Vec<Vec<u8>> {
    let (mut name, mut at) = (String::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name += &format!("{}.", std::str::from_utf8(&query[at + 1..end]).expect("a label"));
        at = end;
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let question = &query[12..at + 5];
    asked.lock().expect("no panic").push(format!("{name} {kind} {over}"));
    let id = [query[0], query[1]];
    let reply = |id: [u8; 2], flags: u16, records: &[Vec<u8>], authority: &[Vec<u8>]| {
        let count = |records: &[Vec<u8>]| u16::try_from(records.len()).expect("a few").to_be_bytes();
        let header = [id, flags.to_be_bytes(), [0, 1], count(records), count(authority), [0, 0]];
        [header.concat(), question.to_vec(), records.concat(), authority.concat()].concat()
    };
    // What is not there is denied with an SOA, so that it can be remembered.
    let soa = record(SOA, &[&[0, 0][..], &[0, 0, 1, 0].repeat(5)].concat());
    match zone.iter().find(|((known, of), _)| *known == name && *of == kind).map(|(_, reply)| reply.clone()) {
        Some(Reply::Records(records)) => vec![reply(id, 0x8180, &records, &[])],
        Some(Reply::Silence) => vec![],
        Some(Reply::Truncated(_)) if over == "udp" => vec![reply(id, 0x8380, &[], &[])],
        Some(Reply::Truncated(records)) => vec![reply(id, 0x8180, &records, &[])],
        Some(Reply::Forged { forged, records }) => {
            let other = [id[0] ^ 0x55, id[1]];
            vec![reply(other, 0x8180, &forged, &[]), reply(id, 0x8180, &records, &[])]
        }
        Some(Reply::NoSuchName) => vec![reply(id, 0x8183, &[], &[soa])],
        None => vec![reply(id, 0x8180, &[], &[soa])],
    }
}

/// A record of the name asked for, valid for 300 s.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let size = u16::try_from(data.len()).expect("a short record").to_be_bytes();
    [&[0xc0, 12][..], &kind.to_be_bytes(), &[0, 1], &300_u32.to_be_bytes(), &size, data].concat()
}

fn encoded(name: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        data.push(u8::try_from(label.len()).expect("a label"));
        data.extend_from_slice(label.as_bytes());
    }
    data.push(0);
    data
}

fn a(address: [u8; 4]) -> Vec<u8> {
    record(A, &address)
}

fn aaaa(last: u16) -> Vec<u8> {
    record(AAAA, &std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).octets())
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    let numbers = [priority, weight, port].map(u16::to_be_bytes).concat();
    record(SRV, &[numbers, encoded(target)].concat())
}

fn naptr(order: u16, preference: u16, service: &str, replacement: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let numbers = [order, preference].map(u16::to_be_bytes).concat();
    record(NAPTR, &[numbers, text("s"), text(service), text(""), encoded(replacement)].concat())
}

fn address(host: &str, families: Families) -> Question {
    Question::Address { host: host.into(), families }
}

fn ips(addresses: &[&str]) -> Result<Answer, String> {
    Ok(Answer::Address(addresses.iter().map(|ip| ip.parse().expect("an address")).collect()))
}

/// A resolver that asks one server only.
struct Bench {
    server: Server,
    resolver: Resolver,
    answers: mpsc::Receiver<Resolved>,
}

impl Bench {
    async fn new(zone: impl IntoIterator<Item = ((&'static str, u16), Reply)>) -> Self {
        let server = Server::start(zone.into_iter().collect()).await;
        let (sender, answers) = mpsc::channel(RESOLVED_LIMIT);
        let resolver = Resolver::new(sender, Some(vec![server.address]), Instant::now());
        Self { server, resolver, answers }
    }

    async fn ask(&mut self, question: Question, patience: Duration) -> Result<Answer, String> {
        self.resolver.ask(QueryId(7), question, patience, Instant::now()).expect("there is room");
        let Resolved { query, answer } = self.answers.recv().await.expect("an answer");
        assert_eq!(query, QueryId(7));
        answer
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { timeout(Duration::from_secs(30), test).await.expect("the test takes too long") });
    runtime.shutdown_background();
}

#[test]
fn naptr_srv_and_addresses_come_as_they_are_written() {
    run(async {
        let mut bench = Bench::new([
            (("example.com", NAPTR), Reply::Records(vec![naptr(10, 20, "SIP+D2T", "_sip._tcp.example.com")])),
            (
                ("_sip._tcp.example.com", SRV),
                Reply::Records(vec![srv(1, 60, 5060, "a.example.com"), srv(2, 0, 5062, "")]),
            ),
            (("a.example.com", A), Reply::Records(vec![a([192, 0, 2, 1]), a([192, 0, 2, 2])])),
            (("a.example.com", AAAA), Reply::Records(vec![aaaa(1)])),
        ])
        .await;
        let found = bench.ask(Question::Naptr("example.com".into()), PATIENCE).await;
        let expected = Naptr {
            order: 10,
            preference: 20,
            flags: "s".into(),
            service: "SIP+D2T".into(),
            replacement: "_sip._tcp.example.com.".into(),
        };
        assert_eq!(found, Ok(Answer::Naptr(vec![expected])));
        let found = bench.ask(Question::Srv("_sip._tcp.example.com".into()), PATIENCE).await;
        let expected = vec![
            Srv { priority: 1, weight: 60, port: 5060, target: "a.example.com.".into() },
            Srv { priority: 2, weight: 0, port: 5062, target: ".".into() },
        ];
        assert_eq!(found, Ok(Answer::Srv(expected)));
        let all = ips(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        assert_eq!(bench.ask(address("a.example.com", BOTH), PATIENCE).await, all);
        assert_eq!(bench.ask(address("A.example.com", IPV4), PATIENCE).await, ips(&["192.0.2.1", "192.0.2.2"]));
    });
}

#[test]
fn what_was_answered_is_not_asked_again() {
    run(async {
        let mut bench = Bench::new([
            (("a.example.com", A), Reply::Records(vec![a([192, 0, 2, 1])])),
            (("gone.example.com", A), Reply::NoSuchName),
        ])
        .await;
        for _ in 0..3 {
            assert_eq!(bench.ask(address("a.example.com", IPV4), PATIENCE).await, ips(&["192.0.2.1"]));
            assert_eq!(bench.ask(address("gone.example.com", IPV4), PATIENCE).await, ips(&[]), "no such name");
            let none = bench.ask(Question::Srv("_sip._udp.a.example.com".into()), PATIENCE).await;
            assert_eq!(none, Ok(Answer::Srv(vec![])), "no such record");
        }
        let asked = ["a.example.com 1 udp", "gone.example.com 1 udp", "_sip._udp.a.example.com 33 udp"];
        assert_eq!(bench.server.asked(), asked);
    });
}

#[test]
fn a_silent_name_server_costs_the_patience_and_not_more() {
    run(async {
        let mut bench = Bench::new([(("a.example.com", A), Reply::Silence)]).await;
        let begun = Instant::now();
        let answer = bench.ask(address("a.example.com", IPV4), Duration::from_millis(300)).await;
        assert_eq!(answer, Err("no answer within 0.3 s".into()));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_silent_family_does_not_hold_up_the_other() {
    run(async {
        let mut bench = Bench::new([
            (("a.example.com", A), Reply::Records(vec![a([192, 0, 2, 1])])),
            (("a.example.com", AAAA), Reply::Silence),
            (("b.example.com", A), Reply::Silence),
            (("b.example.com", AAAA), Reply::Records(vec![aaaa(1)])),
        ])
        .await;
        let begun = Instant::now();
        assert_eq!(bench.ask(address("a.example.com", BOTH), PATIENCE).await, ips(&["192.0.2.1"]));
        assert_eq!(bench.ask(address("b.example.com", BOTH), PATIENCE).await, ips(&["2001:db8::1"]));
        assert!(begun.elapsed() < RETRY_AFTER, "{:?}", begun.elapsed());
    });
}

#[test]
fn a_truncated_answer_is_fetched_over_tcp() {
    run(async {
        let records = vec![srv(1, 60, 5060, "a.example.com")];
        let mut bench = Bench::new([(("_sip._udp.example.com", SRV), Reply::Truncated(records))]).await;
        let found = bench.ask(Question::Srv("_sip._udp.example.com".into()), PATIENCE).await;
        let expected = Srv { priority: 1, weight: 60, port: 5060, target: "a.example.com.".into() };
        assert_eq!(found, Ok(Answer::Srv(vec![expected])));
        assert_eq!(bench.server.asked(), ["_sip._udp.example.com 33 udp", "_sip._udp.example.com 33 tcp"]);
    });
}

#[test]
fn an_answer_under_another_id_is_not_believed() {
    run(async {
        let forged = vec![a([203, 0, 113, 66])];
        let records = vec![a([192, 0, 2, 1])];
        let mut bench = Bench::new([(("a.example.com", A), Reply::Forged { forged, records })]).await;
        assert_eq!(bench.ask(address("a.example.com", IPV4), PATIENCE).await, ips(&["192.0.2.1"]));
    });
}

#[test]
fn the_hosts_file_comes_first_and_open_questions_are_bounded() {
    run(async {
        let mut bench = Bench::new([(("a.example.com", A), Reply::Silence)]).await;
        assert_eq!(bench.ask(address("localhost", IPV4), PATIENCE).await, ips(&["127.0.0.1"]));
        assert_eq!(bench.server.asked(), [""; 0]);
        let mut ask = || {
            let question = address("a.example.com", IPV4);
            bench.resolver.ask(QueryId(1), question, Duration::from_millis(100), Instant::now())
        };
        for _ in 0..RESOLVED_LIMIT {
            ask().expect("there is room");
        }
        assert_eq!(ask(), Err("too many lookups are open to resolve a.example.com".into()));
    });
}
