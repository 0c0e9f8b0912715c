//! Connections and datagrams: reuse, keep-alives, back-off, reports of the network, both address families.

use std::net::Ipv6Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[test]
fn a_closed_udp_port_fails_only_the_request_that_went_there() {
    run(async {
        let mut side = Side::new(|_| {});
        let mut other = Side::new(|_| {});
        let closed = std::net::UdpSocket::bind((LOOPBACK, 0)).expect("a free port").local_addr().expect("bound");
        side.request(Flow::to(Transport::Udp, other.at(Transport::Udp)), None, 1).expect("sent");
        side.request(Flow::to(Transport::Udp, closed), None, 2).expect("sent");
        let (client, error) = side.failure().await;
        assert_eq!((client, error), (ClientId(2), format!("UDP to {closed}: connection refused")));
        // The report is no hindrance for what follows.
        side.request(Flow::to(Transport::Udp, other.at(Transport::Udp)), None, 3).expect("sent");
        assert_eq!(other.message().await.0, 1);
        assert_eq!(other.message().await.0, 3);
        assert_eq!(side.counters.stats().udp_unreachable, 1);
    });
}

#[test]
fn a_kept_udp_flow_fails_when_its_port_closes() {
    run(async {
        let mut side = Side::new(|_| {});
        let closed = std::net::UdpSocket::bind((LOOPBACK, 0)).expect("a free port").local_addr().expect("bound");
        let flow = Flow::to(Transport::Udp, closed);
        let now = Instant::now();
        side.transports.keep_alive(flow, Some(Duration::from_secs(20)), now);
        side.transports.tidy(now + Duration::from_secs(21));
        let arrival = side.next().await;
        assert!(matches!(&arrival, Arrival::FlowFailed { flow: failed, .. } if *failed == flow), "{arrival:?}");
    });
}

#[test]
fn without_an_address_both_families_are_served_on_one_port() {
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return; // a machine without IPv6
    }
    run(async {
        let mut server = Side::new(|options| options.local_ip = None);
        let mut client = Side::new(|options| options.local_ip = None);
        let (udp, tcp) = (server.at(Transport::Udp).port(), server.at(Transport::Tcp).port());
        let loopbacks: [IpAddr; 2] = [LOOPBACK, Ipv6Addr::LOCALHOST.into()];
        for (number, ip) in (1..).zip(loopbacks) {
            for (transport, port) in [(Transport::Udp, udp), (Transport::Tcp, tcp)] {
                let flow = Flow::to(transport, (ip, port).into());
                let came = carry(&mut client, &mut server, flow, None, number).await.expect("it arrives");
                assert_eq!(came.remote.ip(), ip, "no mapped address");
            }
        }
        let bound = Bound::new(&EngineOptions { local_ip: None, ..EngineOptions::default() }).expect("free ports");
        let udp: Vec<_> = bound.local().into_iter().filter(|(transport, _)| *transport == Transport::Udp).collect();
        assert!(
            udp.len() == 2 && udp[0].1.is_ipv4() && udp[1].1.is_ipv6() && udp[0].1.port() == udp[1].1.port(),
            "{udp:?}"
        );
    });
}

#[test]
fn the_advertised_address_stands_for_its_family_only() {
    let advertised = "203.0.113.5".parse().ok();
    let options = EngineOptions { local_ip: None, advertised_ip: advertised, ..EngineOptions::default() };
    run(async move {
        for (transport, address) in Bound::new(&options).expect("free ports").local() {
            assert_eq!(Some(address.ip()) == advertised, address.is_ipv4(), "{transport} {address}");
        }
    });
}

#[test]
fn a_destination_that_refuses_is_left_alone_for_a_moment() {
    run(async {
        let mut side = Side::new(|_| {});
        let closed = std::net::TcpListener::bind((LOOPBACK, 0)).expect("a free port").local_addr().expect("bound");
        let flow = Flow::to(Transport::Tcp, closed);
        side.request(flow, None, 1).expect("it is tried");
        let (client, error) = side.failure().await;
        assert_eq!((client, error), (ClientId(1), format!("TCP to {closed}: connection refused")));
        let error = side.request(flow, None, 2).expect_err("too soon");
        assert!(error.starts_with(&format!("TCP to {closed}: connection refused (tried again in 0.")), "{error}");
        let later = Instant::now() + Duration::from_secs(1);
        side.transports.send(flow, None, request(3, ""), Some(ClientId(3)), later).expect("it is tried again");
        assert_eq!(side.failure().await.0, ClientId(3));
        assert_eq!(side.counters.of(Transport::Tcp).stats().connect_failures, 2);
    });
}

/// A connection to a side, from outside.
async fn stream_to(side: &Side) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(side.at(Transport::Tcp)).await.expect("it listens")
}

#[test]
fn an_alias_is_taken_from_the_address_it_names_and_nobody_else() {
    run(async {
        let mut side = Side::new(|_| {});
        let mut stream = stream_to(&side).await;
        stream.write_all(&request(1, ";alias")).await.expect("sent");
        assert_eq!(side.message().await.0, 1);
        // A request to the port that its Via names comes over the connection that is there.
        side.request(Flow::to(Transport::Tcp, (LOOPBACK, 5999).into()), None, 2).expect("sent");
        let mut buffer = vec![0; 4096];
        let size = stream.read(&mut buffer).await.expect("it comes");
        assert!(buffer[..size].starts_with(b"OPTIONS ") && size == request(2, "").len());
        // The name of another host is no alias, nor is a port that is served already.
        let mut thief = stream_to(&side).await;
        let forged =
            String::from_utf8(request(3, ";alias").to_vec()).expect("text").replace("127.0.0.1:5999", "127.0.0.2:5999");
        thief.write_all(forged.as_bytes()).await.expect("sent");
        thief.write_all(&request(4, ";alias")).await.expect("sent");
        assert_eq!((side.message().await.0, side.message().await.0), (3, 4));
        side.request(Flow::to(Transport::Tcp, (LOOPBACK, 5999).into()), None, 5).expect("sent");
        let size = stream.read(&mut buffer).await.expect("it comes to the first");
        assert_eq!(size, request(5, "").len());
        let error = side.request(
            Flow::to(Transport::Tcp, ("127.0.0.2".parse::<IpAddr>().expect("an address"), 5999).into()),
            None,
            6,
        );
        error.expect("a connection of its own is tried");
        assert_eq!(side.failure().await.0, ClientId(6), "nobody listens there");
    });
}

#[test]
fn kept_connections_are_pinged_and_closed_when_nothing_answers() {
    run(async {
        let mut side = Side::new(|_| {});
        let mut stream = stream_to(&side).await;
        stream.write_all(&request(1, "")).await.expect("sent");
        let (_, flow) = side.message().await;
        let interval = Duration::from_secs(20);
        let mut now = Instant::now();
        side.transports.keep_alive(flow, Some(interval), now);
        let mut buffer = [0; 16];
        for number in 2..4 {
            now += interval;
            side.transports.tidy(now);
            let size = stream.read(&mut buffer).await.expect("a ping");
            assert_eq!(&buffer[..size], b"\r\n\r\n");
            stream.write_all(b"\r\n").await.expect("sent");
            stream.write_all(&request(number, "")).await.expect("sent");
            assert_eq!(side.message().await.0, number);
            side.transports.tidy(now + Duration::from_secs(11));
        }
        // No answer within 10 s: the flow is lost.
        now += interval;
        side.transports.tidy(now);
        side.transports.tidy(now + Duration::from_secs(9));
        assert!(side.transports.poll(now).is_none());
        side.transports.tidy(now + Duration::from_secs(11));
        let arrival = side.next().await;
        let Arrival::FlowFailed { flow: failed, error } = arrival else { panic!("{arrival:?}") };
        assert_eq!((failed, error.as_str()), (flow, "the peer does not answer keep-alives"));
        // Keeping what is gone fails at once.
        side.transports.keep_alive(flow, Some(interval), now);
        assert!(matches!(side.next().await, Arrival::FlowFailed { .. }));
    });
}

#[test]
fn a_kept_connection_that_closes_is_told_with_its_requests() {
    run(async {
        let mut side = Side::new(|_| {});
        let mut stream = stream_to(&side).await;
        stream.write_all(&request(1, "")).await.expect("sent");
        let (_, flow) = side.message().await;
        side.transports.keep_alive(flow, Some(Duration::from_secs(20)), Instant::now());
        side.request(flow, None, 2).expect("sent");
        drop(stream);
        assert_eq!(side.failure().await.0, ClientId(2));
        let arrival = side.next().await;
        assert!(matches!(&arrival, Arrival::FlowFailed { flow: failed, .. } if *failed == flow), "{arrival:?}");
    });
}
