#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeMap;

use rand::SeedableRng;

use super::*;

const BOTH: Families = Families { ipv4: true, ipv6: true };
const IPV4: Families = Families { ipv4: true, ipv6: false };

/// Records as zone files write them, names relative to nothing; `!` after the type: the name server is silent about it.
struct Zone(BTreeMap<(String, &'static str), Vec<String>>);

impl Zone {
    fn new(lines: &str) -> Self {
        let mut records: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, rest) = line.split_once(' ').expect("a name and a type");
            let (kind, data) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
            let kind = match kind.trim_end_matches('!') {
                "NAPTR" => "NAPTR",
                "SRV" => "SRV",
                _ => "A",
            };
            let data = if rest.contains('!') { "!" } else { data.trim() };
            records.entry((name.to_owned(), kind)).or_default().push(data.to_owned());
        }
        Self(records)
    }

    fn answer(&self, question: &Question) -> Result<Answer, String> {
        let kind = match question {
            Question::Naptr(_) => "NAPTR",
            Question::Srv(_) => "SRV",
            Question::Address { .. } => "A",
        };
        let lines = self.0.get(&(question.name().to_owned(), kind)).cloned().unwrap_or_default();
        if lines.iter().any(|line| line == "!") {
            return Err("timed out".into());
        }
        let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Ok(match question {
            Question::Naptr(_) => Answer::Naptr(
                lines
                    .iter()
                    .map(words)
                    .map(|words| Naptr {
                        order: words[0].parse().unwrap(),
                        preference: words[1].parse().unwrap(),
                        flags: words[2].clone(),
                        service: words[3].clone(),
                        replacement: words[4].clone(),
                    })
                    .collect(),
            ),
            Question::Srv(_) => Answer::Srv(
                lines
                    .iter()
                    .map(words)
                    .map(|words| Srv {
                        priority: words[0].parse().unwrap(),
                        weight: words[1].parse().unwrap(),
                        port: words[2].parse().unwrap(),
                        target: words[3].clone(),
                    })
                    .collect(),
            ),
            Question::Address { .. } => Answer::Address(lines.iter().map(|line| line.parse().unwrap()).collect()),
        })
    }
}

/// Everything a location leads to, in words; the questions it asked; and why it leads nowhere.
fn run(mut locator: Locator, zone: &Zone, seed: u64) -> (Vec<String>, Vec<String>, Option<String>) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut hops, mut asked) = (Vec::new(), Vec::new());
    loop {
        let mut questions = Vec::new();
        while let Some(question) = locator.poll_question() {
            questions.push(question);
        }
        for question in questions {
            let kind = match &question {
                Question::Naptr(_) => "NAPTR",
                Question::Srv(_) => "SRV",
                Question::Address { families, .. } => match (families.ipv4, families.ipv6) {
                    (true, true) => "A+AAAA",
                    (true, false) => "A",
                    (false, true) => "AAAA",
                    (false, false) => "nothing",
                },
            };
            asked.push(format!("{kind} {}", question.name()));
            locator.handle_answer(&question, zone.answer(&question), &mut random);
        }
        match locator.next_hop() {
            Next::Hop(hop) => hops.push(format!("{} {}", hop.transport, hop.remote)),
            Next::Waiting => assert!(!locator.to_ask.is_empty(), "it waits for nothing: {locator:?}"),
            Next::Over(why) => return (hops, asked, why),
        }
    }
}

/// The zone of RFC 3263 §4.1 and §4.2 (with NAPTR on example.com), and some others.
const ZONE: &str = "
    example.com NAPTR 50 50 s SIPS+D2T _sips._tcp.example.com.
    example.com NAPTR 90 50 s SIP+D2T _sip._tcp.example.com
    example.com NAPTR 100 50 S sip+d2u _sip._udp.example.com
    example.com NAPTR 40 50 s EM+D2U _em._udp.example.com
    _sips._tcp.example.com SRV 0 1 5061 server1.example.com.
    _sips._tcp.example.com SRV 1 1 5061 server2.example.com
    _sip._tcp.example.com SRV 0 1 5060 server1.example.com
    _sip._tcp.example.com SRV 0 0 5060 server2.example.com
    _sip._udp.example.com SRV 1 1 5060 server2.example.com
    _sip._udp.example.com SRV 0 1 5070 server1.example.com
    server1.example.com A 192.0.2.1
    server2.example.com A 192.0.2.2
    server2.example.com A 2001:db8::2
    example.com A 192.0.2.99

    preference.example NAPTR 10 20 s SIP+D2T _t.preference.example
    preference.example NAPTR 10 10 s SIP+D2U _u.preference.example
    _u.preference.example SRV 0 0 5060 a.preference.example
    _t.preference.example SRV 0 0 5062 a.preference.example
    a.preference.example A 192.0.2.10

    web.example NAPTR 10 0 s SIPS+D2W _sips._ws.web.example
    web.example NAPTR 20 0 s SIP+D2W _sip._ws.web.example
    web.example NAPTR 30 0 a SIP+D2U host.web.example
    _sips._ws.web.example SRV 0 0 443 host.web.example
    _sip._ws.web.example SRV 0 0 8080 host.web.example
    host.web.example A 192.0.2.20

    onlysrv.example A 192.0.2.30
    _sip._tcp.onlysrv.example SRV 0 0 5065 p.onlysrv.example
    p.onlysrv.example A 192.0.2.31

    onlya.example A 192.0.2.40
    onlya.example A 192.0.2.41

    six.example A 2001:db8::61
    six.example A 2001:db8::62
    six.example A 192.0.2.61
    six.example A 192.0.2.62

    silent.example NAPTR!
    _sip._udp.silent.example SRV!
    _sip._tcp.silent.example SRV!
    _sips._tcp.silent.example SRV!
    silent.example A 192.0.2.70
    dead.example NAPTR!
    _sip._udp.dead.example SRV!
    dead.example A!

    closed.example A 192.0.2.80
    _sip._udp.closed.example SRV 0 0 0 .
    _sip._tcp.closed.example SRV 0 0 0 .

    half.example NAPTR 1 1 s SIP+D2U _gone.half.example
    half.example A 192.0.2.90

    partly.example A 192.0.2.100
    _sip._udp.partly.example SRV 0 0 5060 missing.partly.example
    _sip._udp.partly.example SRV 1 0 5060 there.partly.example
    there.partly.example A 192.0.2.101

    bad.example A 0.0.0.0
    bad.example A 224.0.0.1
    bad.example A 255.255.255.255
";

/// URI, transports wanted, hops in order, questions in order (none: not looked at).
type Row = (&'static str, &'static [Transport], &'static [&'static str], &'static [&'static str]);

#[test]
fn rfc_3263_row_by_row() {
    use Transport::{Tcp, Tls, Udp, Ws, Wss};
    const USUAL: &[Transport] = &[Udp, Tcp, Tls];
    let zone = Zone::new(ZONE);
    #[rustfmt::skip]
    let rows: &[Row] = &[
        // Numeric hosts ask nobody.
        ("sip:bob@192.0.2.5", USUAL, &["udp 192.0.2.5:5060"], &[]),
        ("sip:bob@192.0.2.5:5070", USUAL, &["udp 192.0.2.5:5070"], &[]),
        ("sip:bob@192.0.2.5;transport=tcp", USUAL, &["tcp 192.0.2.5:5060"], &[]),
        ("sip:bob@[2001:db8::5]", USUAL, &["udp [2001:db8::5]:5060"], &[]),
        ("sips:bob@192.0.2.5", USUAL, &["tls 192.0.2.5:5061"], &[]),
        ("sip:bob@192.0.2.5", &[Tcp, Tls], &["tcp 192.0.2.5:5060"], &[]),
        ("sip:bob@192.0.2.5;transport=ws", USUAL, &["ws 192.0.2.5:80"], &[]),
        ("sip:bob@example.com;maddr=192.0.2.6", USUAL, &["udp 192.0.2.6:5060"], &[]),
        // An explicit port: addresses only.
        ("sip:bob@example.com:5090", USUAL, &["udp 192.0.2.99:5090"], &["A+AAAA example.com"]),
        ("sips:bob@example.com:5090", USUAL, &["tls 192.0.2.99:5090"], &["A+AAAA example.com"]),
        ("sip:bob@EXAMPLE.com:5090;transport=TCP", USUAL, &["tcp 192.0.2.99:5090"], &["A+AAAA example.com"]),
        ("sip:bob@192.0.2.5:5090;maddr=onlya.example", USUAL, &["udp 192.0.2.40:5090", "udp 192.0.2.41:5090"], &["A+AAAA onlya.example"]),
        // A transport: its SRV records only.
        ("sip:bob@example.com;transport=udp", USUAL, &["udp 192.0.2.1:5070", "udp 192.0.2.2:5060", "udp [2001:db8::2]:5060"],
            &["SRV _sip._udp.example.com", "A+AAAA server1.example.com", "A+AAAA server2.example.com"]),
        ("sips:bob@example.com;transport=tcp", USUAL, &["tls 192.0.2.1:5061", "tls 192.0.2.2:5061", "tls [2001:db8::2]:5061"],
            &["SRV _sips._tcp.example.com", "A+AAAA server1.example.com", "A+AAAA server2.example.com"]),
        ("sip:bob@onlya.example;transport=tls", USUAL, &["tls 192.0.2.40:5061", "tls 192.0.2.41:5061"],
            &["SRV _sips._tcp.onlya.example", "A+AAAA onlya.example"]),
        ("sip:bob@web.example;transport=ws", USUAL, &["ws 192.0.2.20:8080"], &["SRV _sip._ws.web.example", "A+AAAA host.web.example"]),
        ("sips:bob@web.example;transport=ws", USUAL, &["wss 192.0.2.20:443"], &["SRV _sips._ws.web.example", "A+AAAA host.web.example"]),
        // NAPTR by order, then preference; what we lack is left out (the example of §4.1: TLS is not had, so TCP).
        ("sip:bob@example.com", &[Tcp, Udp],
            &["tcp 192.0.2.1:5060", "tcp 192.0.2.2:5060", "tcp [2001:db8::2]:5060", "udp 192.0.2.1:5070", "udp 192.0.2.2:5060", "udp [2001:db8::2]:5060"],
            &["NAPTR example.com", "SRV _sip._tcp.example.com", "SRV _sip._udp.example.com", "A+AAAA server1.example.com", "A+AAAA server2.example.com"]),
        ("sip:bob@example.com", &[Udp], &["udp 192.0.2.1:5070", "udp 192.0.2.2:5060", "udp [2001:db8::2]:5060"],
            &["NAPTR example.com", "SRV _sip._udp.example.com", "A+AAAA server1.example.com", "A+AAAA server2.example.com"]),
        ("sips:bob@example.com", USUAL, &["tls 192.0.2.1:5061", "tls 192.0.2.2:5061", "tls [2001:db8::2]:5061"],
            &["NAPTR example.com", "SRV _sips._tcp.example.com", "A+AAAA server1.example.com", "A+AAAA server2.example.com"]),
        ("sip:bob@preference.example", USUAL, &["udp 192.0.2.10:5060", "tcp 192.0.2.10:5062"],
            &["NAPTR preference.example", "SRV _u.preference.example", "SRV _t.preference.example", "A+AAAA a.preference.example"]),
        ("sip:bob@web.example", &[Udp, Ws, Wss], &["wss 192.0.2.20:443", "ws 192.0.2.20:8080", "udp 192.0.2.20:5060"],
            &["NAPTR web.example", "SRV _sips._ws.web.example", "SRV _sip._ws.web.example", "A+AAAA host.web.example"]),
        ("sips:bob@web.example", &[Udp, Ws, Wss, Tls], &["wss 192.0.2.20:443"],
            &["NAPTR web.example", "SRV _sips._ws.web.example", "A+AAAA host.web.example"]),
        // Without NAPTR each transport's SRV, as we prefer them; without SRV the domain itself.
        ("sip:bob@onlysrv.example", USUAL, &["tcp 192.0.2.31:5065"],
            &["NAPTR onlysrv.example", "SRV _sip._udp.onlysrv.example", "SRV _sip._tcp.onlysrv.example", "SRV _sips._tcp.onlysrv.example", "A+AAAA p.onlysrv.example"]),
        ("sip:bob@onlya.example", USUAL, &["udp 192.0.2.40:5060", "udp 192.0.2.41:5060", "tcp 192.0.2.40:5060", "tcp 192.0.2.41:5060"],
            &["NAPTR onlya.example", "SRV _sip._udp.onlya.example", "SRV _sip._tcp.onlya.example", "SRV _sips._tcp.onlya.example", "A+AAAA onlya.example"]),
        ("sips:bob@onlya.example", USUAL, &["tls 192.0.2.40:5061", "tls 192.0.2.41:5061"],
            &["NAPTR onlya.example", "SRV _sips._tcp.onlya.example", "A+AAAA onlya.example"]),
        ("sip:bob@onlya.example", &[Ws], &["ws 192.0.2.40:80", "ws 192.0.2.41:80"], &[]),
        // A NAPTR whose SRV is missing, and name servers that answer nothing but addresses.
        ("sip:bob@half.example", USUAL, &["udp 192.0.2.90:5060", "tcp 192.0.2.90:5060"], &["NAPTR half.example", "SRV _gone.half.example", "A+AAAA half.example"]),
        ("sip:bob@silent.example", USUAL, &["udp 192.0.2.70:5060", "tcp 192.0.2.70:5060"], &[]),
        // One server without an address does not stop the others.
        ("sip:bob@partly.example;transport=udp", USUAL, &["udp 192.0.2.101:5060"], &[]),
        // Families in turn, the first first.
        ("sip:bob@six.example:5060", USUAL,
            &["udp [2001:db8::61]:5060", "udp 192.0.2.61:5060", "udp [2001:db8::62]:5060", "udp 192.0.2.62:5060"], &["A+AAAA six.example"]),
    ];
    let have: Vec<_> = [Udp, Tcp, Tls, Ws, Wss].map(|transport| (transport, BOTH)).into();
    for (uri, wanted, hops, questions) in rows {
        let locator = Locator::for_uri(&Uri::parse(uri.as_bytes()).unwrap(), wanted, &have).expect(uri);
        // server2 has weight 0 beside server1's 1: the seed decides, and decides for server1 here.
        let is_numeric = locator.domain().is_none();
        let (found, asked, _) = run(locator, &zone, 3);
        assert_eq!(found, *hops, "{uri} over {wanted:?}");
        if !questions.is_empty() {
            assert_eq!(asked, *questions, "{uri} over {wanted:?}");
        }
        if is_numeric && questions.is_empty() {
            assert_eq!(asked, [""; 0], "{uri}");
        }
    }
}

#[test]
fn a_uri_that_leads_nowhere_says_why() {
    let zone = Zone::new(ZONE);
    let have = [(Transport::Udp, IPV4), (Transport::Tcp, IPV4)];
    let cases = [
        ("sip:bob@nowhere.example:5060", "nowhere.example has no address"),
        ("sip:bob@nowhere.example", "nowhere.example has no address"),
        ("sip:bob@dead.example:5060", "cannot resolve dead.example: timed out"),
        ("sip:bob@dead.example", "cannot resolve dead.example: timed out"),
        ("sip:bob@closed.example", "closed.example offers no such service"),
        ("sip:bob@bad.example", "bad.example has no address"),
    ];
    for (uri, expected) in cases {
        let uri = Uri::parse(uri.as_bytes()).unwrap();
        let locator = Locator::for_uri(&uri, &[Transport::Udp, Transport::Tcp], &have).unwrap();
        let (hops, _, why) = run(locator, &zone, 1);
        assert_eq!((hops, why.as_deref()), (vec![], Some(expected)), "{uri}");
    }
    let cases = [
        ("sips:bob@example.com", "sips:bob@example.com needs transport tls, which this engine does not listen on"),
        (
            "sip:bob@example.com;transport=ws",
            "sip:bob@example.com;transport=ws needs transport ws, which this engine does not listen on",
        ),
        ("sip:bob@example.com;transport=sctp", "the transport sctp of sip:bob@example.com;transport=sctp is unknown"),
        (
            "sips:bob@example.com;transport=udp",
            "sips:bob@example.com;transport=udp asks for security over udp, which has none",
        ),
    ];
    for (uri, expected) in cases {
        let uri = Uri::parse(uri.as_bytes()).unwrap();
        assert_eq!(Locator::for_uri(&uri, &[Transport::Udp], &have).unwrap_err(), expected);
    }
}

#[test]
fn only_families_with_a_socket_are_asked_for_and_used() {
    let zone = Zone::new(ZONE);
    for (families, question, hops) in [
        (IPV4, "A six.example", vec!["udp 192.0.2.61:5060", "udp 192.0.2.62:5060"]),
        (
            Families { ipv4: false, ipv6: true },
            "AAAA six.example",
            vec!["udp [2001:db8::61]:5060", "udp [2001:db8::62]:5060"],
        ),
    ] {
        let (found, asked, _) = run(Locator::for_host("six.example", 5060, Transport::Udp, families), &zone, 1);
        assert_eq!((found, asked), (hops.into_iter().map(str::to_owned).collect(), vec![question.to_owned()]));
    }
}

#[test]
fn the_domain_is_the_one_before_any_look_up() {
    let have = [(Transport::Udp, IPV4), (Transport::Tls, IPV4)];
    for (uri, domain) in [
        ("sips:bob@Example.com", Some("example.com")),
        ("sips:bob@example.com;maddr=192.0.2.1", Some("example.com")),
        ("sips:bob@192.0.2.1", None),
    ] {
        let uri = Uri::parse(uri.as_bytes()).unwrap();
        assert_eq!(Locator::for_uri(&uri, &[Transport::Tls], &have).unwrap().domain(), domain);
    }
    assert_eq!(Locator::for_host("Proxy.example.com", 5061, Transport::Tls, IPV4).domain(), Some("proxy.example.com"));
    assert_eq!(Locator::for_host("[2001:db8::1]", 5061, Transport::Tls, IPV4).domain(), None);
}

#[test]
fn weights_share_the_calls_in_proportion() {
    let servers = |weights: &[u16]| -> Vec<Srv> {
        let record =
            |(at, weight): (usize, &u16)| Srv { priority: 0, weight: *weight, port: 1, target: at.to_string() };
        weights.iter().enumerate().map(record).collect()
    };
    let mut random = StdRng::seed_from_u64(1);
    let mut first = [0_u32; 4];
    for _ in 0..10_000 {
        let order = by_priority_and_weight(servers(&[60, 30, 10, 0]), &mut random);
        assert_eq!(order.len(), 4, "each stays in the list");
        first[order[0].target.parse::<usize>().unwrap()] += 1;
    }
    for (count, expected) in first.into_iter().zip([6_000, 3_000, 1_000, 100]) {
        assert!(count.abs_diff(expected) < 250, "{first:?}");
    }
    assert!(first[3] > 0, "a weight of 0 still has a small chance");
    let mut records = servers(&[1, 100, 1]);
    records[0].priority = 20;
    records[2].priority = 10;
    let order: Vec<_> = by_priority_and_weight(records, &mut random).into_iter().map(|record| record.target).collect();
    assert_eq!(order, ["1", "2", "0"], "priority comes before weight");
}

#[test]
fn a_hop_is_given_while_the_addresses_of_later_ones_are_still_asked_for() {
    let zone = Zone::new(ZONE);
    let mut random = StdRng::seed_from_u64(1);
    let uri = Uri::parse(b"sips:bob@example.com;transport=tls").unwrap();
    let mut locator = Locator::for_uri(&uri, &[], &[(Transport::Tls, IPV4)]).unwrap();
    let srv = locator.poll_question().unwrap();
    locator.handle_answer(&srv, zone.answer(&srv), &mut random);
    let (first, second) = (locator.poll_question().unwrap(), locator.poll_question().unwrap());
    assert_eq!(locator.next_hop(), Next::Waiting);
    locator.handle_answer(&first, zone.answer(&first), &mut random);
    assert!(matches!(locator.next_hop(), Next::Hop(hop) if hop.remote == "192.0.2.1:5061".parse().unwrap()));
    assert_eq!(locator.next_hop(), Next::Waiting);
    locator.handle_answer(&first, Ok(Answer::Address(vec!["192.0.2.66".parse().unwrap()])), &mut random); // not asked
    assert_eq!(locator.next_hop(), Next::Waiting);
    locator.handle_answer(&second, Err("timed out".into()), &mut random);
    assert_eq!(locator.next_hop(), Next::Over(None), "there was one, so that is no reason");
}

#[test]
fn whatever_name_servers_say_the_work_is_bounded() {
    let mut random = StdRng::seed_from_u64(1);
    let uri = Uri::parse(b"sip:bob@evil.example").unwrap();
    let mut locator = Locator::for_uri(&uri, &[Transport::Udp], &[(Transport::Udp, BOTH)]).unwrap();
    let (mut questions, mut hops) = (0, 0);
    loop {
        while let Some(question) = locator.poll_question() {
            questions += 1;
            let answer = match &question {
                Question::Naptr(_) => Answer::Naptr(
                    (0..5_000)
                        .map(|number| Naptr {
                            order: number,
                            preference: 0,
                            flags: "s".into(),
                            service: "SIP+D2U".into(),
                            replacement: format!("_{number}.evil.example"),
                        })
                        .collect(),
                ),
                Question::Srv(name) => Answer::Srv(
                    (1..5_000)
                        .map(|port| Srv { priority: 0, weight: 65_535, port, target: format!("{port}.{name}") })
                        .collect(),
                ),
                Question::Address { .. } => Answer::Address(
                    (0..5_000_u32).map(|number| IpAddr::from((number + (11 << 24)).to_be_bytes())).collect(),
                ),
            };
            locator.handle_answer(&question, Ok(answer), &mut random);
        }
        match locator.next_hop() {
            Next::Hop(_) => hops += 1,
            Next::Waiting => {}
            Next::Over(_) => break,
        }
    }
    assert_eq!((questions, hops), (1 + MAX_NAPTR + MAX_TARGETS, MAX_HOPS));
}
