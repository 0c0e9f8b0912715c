//! WebSockets (RFC 7118, reliability row 32).

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;

use super::*;

fn listening() -> Side {
    Side::new(|options| options.ws_port = Some(0))
}

#[test]
fn messages_go_both_ways_over_ws_and_wss() {
    run(async {
        let authority = Authority::new("Ours");
        let folder = Folder::new();
        let ca = folder.write("ca.pem", &authority.pem);
        let own = folder.write("own.pem", &authority.certify("example.com").pem());
        let mut server = Side::new(|options| {
            (options.ws_port, options.wss_port) = (Some(0), Some(0));
            options.tls_certificate = Some(own);
        });
        let mut client = Side::new(|options| options.tls_ca = Some(ca));
        let example = Peer { domain: "example.com".into(), path: "/sip".into() };
        for (transport, number) in [(Transport::Ws, 1), (Transport::Wss, 3)] {
            let flow = flow_to(transport, server.at(transport), 1);
            let came = carry(&mut client, &mut server, flow, Some(&example), number).await.expect("it arrives");
            assert_eq!((came.transport, came.remote.ip()), (transport, LOOPBACK));
            let back = carry(&mut server, &mut client, came, None, number + 1).await.expect("it goes back");
            assert_eq!(back.peer, flow.peer);
            assert_eq!(server.counters.of(transport).stats().accepted, 1);
            // The same peer again uses the same connection.
            carry(&mut client, &mut server, flow, Some(&example), number + 10).await.expect("it arrives");
            assert_eq!(client.counters.of(transport).stats().connected, 1);
        }
    });
}

/// A browser's connection.
async fn browser(
    server: &Side,
    origin: Option<&str>,
) -> Result<tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>, u16> {
    let at = server.at(Transport::Ws);
    let stream = tokio::net::TcpStream::connect(at).await.expect("it listens");
    let mut request = ClientRequestBuilder::new(format!("ws://{at}/").parse().expect("a URI")).with_sub_protocol("sip");
    if let Some(origin) = origin {
        request = request.with_header("Origin", origin);
    }
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((stream, response)) => {
            assert_eq!(
                response.headers().get("Sec-WebSocket-Protocol").map(|value| value.as_bytes()),
                Some(&b"sip"[..])
            );
            Ok(stream)
        }
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

/// Lets a side work while a peer does something.
async fn while_working<T>(side: &mut Side, peer: impl Future<Output = T>) -> T {
    let mut peer = std::pin::pin!(peer);
    let all = async {
        loop {
            while side.transports.poll(Instant::now()).is_some() {}
            tokio::select! {
                result = &mut peer => return result,
                () = side.transports.ready() => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("it does not hang")
}

#[test]
fn origins_decide_which_pages_may_connect() {
    run(async {
        let mut server = listening();
        let at = server.at(Transport::Ws);
        for (origin, expected) in [
            (None, None),
            (Some("http://127.0.0.1:3000".to_owned()), None),
            (Some("https://evil.example".to_owned()), Some(403)),
        ] {
            let address = Side { addresses: server.addresses, ..listening() };
            let got = while_working(&mut server, browser(&address, origin.as_deref())).await;
            assert_eq!(got.err(), expected, "{origin:?} at {at}");
        }
    });
}

#[test]
fn bad_handshakes_are_answered() {
    run(async {
        let mut server = listening();
        let at = server.at(Transport::Ws);
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1 426 "),
            ("OPTIONS sip:bob@x SIP/2.0\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: msrp\r\n\r\n"
                    .to_owned(),
                "HTTP/1.1 400 ",
            ),
            (format!("GET / HTTP/1.1\r\nCookie: {}\r\n", "x".repeat(20_000)), "HTTP/1.1 400 "),
        ] {
            let talk = async {
                let mut stream = tokio::net::TcpStream::connect(at).await.expect("it listens");
                stream.write_all(bytes.as_bytes()).await.expect("it reads");
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await; // closed with bytes unread: a reset may follow the answer
                String::from_utf8_lossy(&answer).into_owned()
            };
            let answer = while_working(&mut server, talk).await;
            assert!(answer.starts_with(expected), "{bytes:.60}: {answer}");
        }
    });
}

#[test]
fn frames_are_messages_and_what_is_none_harms_nobody() {
    run(async {
        let mut server = listening();
        let address = Side { addresses: server.addresses, ..listening() };
        let mut page = while_working(&mut server, browser(&address, None)).await.expect("it may");
        // Text and binary are alike, and Content-Length may be missing (RFC 7118 §5).
        let text = String::from_utf8(request(1, "").to_vec()).expect("text").replace("Content-Length: 0\r\n", "");
        page.send(WsMessage::text(text)).await.expect("sent");
        assert_eq!(server.message().await.0, 1);
        page.send(WsMessage::binary(request(2, ""))).await.expect("sent");
        let (number, flow) = server.message().await;
        assert_eq!(number, 2);
        // A keep-alive of RFC 5626 is answered, an empty frame is nothing, garbage is a bad message.
        page.send(WsMessage::text("\r\n\r\n")).await.expect("sent");
        page.send(WsMessage::text("")).await.expect("sent");
        page.send(WsMessage::text("garbage")).await.expect("sent");
        let bad = server.next().await;
        assert!(matches!(bad, Arrival::Bad { .. }), "{bad:?}");
        let pong = while_working(&mut server, page.next()).await.expect("an answer").expect("a frame");
        assert_eq!(pong, WsMessage::text("\r\n"));
        // One message of ours is one frame of text.
        server.transports.send(flow, None, request(3, ""), None, Instant::now()).expect("it is open");
        let frame = while_working(&mut server, page.next()).await.expect("a message").expect("a frame");
        assert_eq!(frame, WsMessage::text(String::from_utf8(request(3, "").to_vec()).expect("text")));
        // More than 64 KiB ends the connection.
        let mut large = request(4, "").to_vec();
        large.resize(70 << 10, b'x');
        page.send(WsMessage::binary(large)).await.expect("sent");
        let end = while_working(&mut server, page.next()).await;
        assert!(!matches!(end, Some(Ok(WsMessage::Text(_) | WsMessage::Binary(_)))), "{end:?}");
        let gone = async {
            while server.counters.of(Transport::Ws).stats().connections > 0 {
                server.transports.ready().await;
                while server.transports.poll(Instant::now()).is_some() {}
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("the connection is given up");
    });
}

#[test]
fn who_does_not_shake_hands_or_is_no_websocket_is_told_so() {
    run(async {
        let mut client = Side::new(|_| {});
        let listener = tokio::net::TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
        let at = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        });
        client.request(Flow::to(Transport::Ws, at), None, 1).expect("it is tried");
        let (_, error) = client.failure().await;
        assert_eq!(error, format!("WS to {at}: the peer answers the WebSocket handshake with 404 Not Found"));
    });
}
