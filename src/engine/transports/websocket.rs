//! SIP over WebSockets (RFC 7118): both handshakes, one message in each frame, a ping each half minute.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as WsMessage, Utf8Bytes};

use super::connection::{End, FIRST_MESSAGE_WAIT, Link, Outgoing, STALL_LIMIT, StreamInput};
use super::tls;
use crate::engine::counters::StreamCounters;
use crate::engine::sockets::words;
use crate::sip::message::Message;
use crate::sip::stream::Frame;

/// The largest message (reliability row 32).
const MESSAGE_LIMIT: usize = 64 << 10;
/// The head of a handshake; browsers send cookies.
const HEAD_LIMIT: usize = 16 << 10;
/// Header lines of a handshake.
const HEADER_LIMIT: usize = 64;
/// How often a connection is asked whether it is still there; an unanswered ping ends it at the next one.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Pages that may connect: a browser says in `Origin` which one asks (RFC 6455 §10.2). Who is no browser says nothing and
/// may connect.
#[derive(Clone, Debug, Default)]
pub(super) enum Origins {
    /// Those of the host that the connection itself is made to.
    #[default]
    SameHost,
    /// These, as browsers write them ("https://phone.example.com"); "*" is any.
    List(Vec<String>),
}

impl Origins {
    fn allow(&self, origin: &str, host: &str) -> bool {
        match self {
            Self::SameHost => {
                let named = origin.split_once("://").map(|(_, rest)| without_port(rest));
                named.is_some_and(|named| named.eq_ignore_ascii_case(without_port(host)))
            }
            Self::List(list) => list.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(origin)),
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 << 10) // idle ones are many
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT))
}

// --- handshakes ------------------------------------------------------------------------------------------------------

/// Asks a server; `host` is what its certificate was checked for, with the port where that is not the usual one.
pub(super) async fn connect<S>(stream: S, host: &str, path: &str) -> Result<WebSocketStream<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    // The scheme only fills in a port that is not written; TLS, if any, is below this.
    let uri = format!("ws://{host}{path}").parse().map_err(|error| format!("{host}{path} is no address: {error}"))?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol("sip");
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config())).await;
    opened.map(|(stream, _)| stream).map_err(|error| match error {
        tungstenite::Error::Http(response) => {
            format!("the peer answers the WebSocket handshake with {}", response.status())
        }
        other => ws_words(&other),
    })
}

/// Answers a client; a bad handshake gets 400, 403 or 426 and its reason.
pub(super) async fn accept<S>(mut stream: S, origins: &Origins) -> Result<WebSocketStream<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
            break end + 4;
        }
        if head.len() > HEAD_LIMIT {
            return refuse(stream, Refusal::new(400, format!("a handshake of more than {HEAD_LIMIT} bytes"))).await;
        }
        let read = stream.read_buf(&mut head).await.map_err(|error| words(&error))?;
        if read == 0 {
            return Err("the peer closed the connection during the WebSocket handshake".to_owned());
        }
    };
    let rest = head.split_off(end);
    match check(&head, origins) {
        Ok(accept) => {
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.map_err(|error| words(&error))?;
            stream.flush().await.map_err(|error| words(&error))?;
            Ok(WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config())).await)
        }
        Err(refusal) => refuse(stream, refusal).await,
    }
}

struct Refusal {
    status: u16,
    header: &'static str,
    why: String,
}

impl Refusal {
    fn new(status: u16, why: impl Into<String>) -> Self {
        Self { status, header: "", why: why.into() }
    }
}

async fn refuse<S, T>(mut stream: S, refusal: Refusal) -> Result<T, String>
where
    S: AsyncWrite + Unpin,
{
    let Refusal { status, header, why } = refusal;
    let reason = match status {
        403 => "Forbidden",
        426 => "Upgrade Required",
        _ => "Bad Request",
    };
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\n{header}Connection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{why}\n",
        why.len() + 1
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    Err(format!("the WebSocket handshake was refused with {status}: {why}"))
}

/// RFC 6455 §4.2.1 and RFC 7118 §4; the value of Sec-WebSocket-Accept.
fn check(head: &[u8], origins: &Origins) -> Result<String, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_LIMIT];
    let mut request = httparse::Request::new(&mut headers);
    if !request.parse(head).is_ok_and(|status| status.is_complete()) {
        return Err(Refusal::new(400, "this is no HTTP request"));
    }
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(Refusal::new(400, "a WebSocket begins with a GET of HTTP/1.1"));
    }
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let lists = |name: &str, wanted: &str| {
        let all = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        all.filter_map(|header| std::str::from_utf8(header.value).ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    if !lists("Upgrade", "websocket") {
        let why = "this port speaks SIP over WebSocket".to_owned();
        return Err(Refusal { status: 426, header: "Upgrade: websocket\r\n", why });
    }
    if !lists("Connection", "upgrade") {
        return Err(Refusal::new(400, "Connection does not say Upgrade"));
    }
    if header("Sec-WebSocket-Version") != Some("13") {
        let why = "only version 13 of WebSocket is spoken here".to_owned();
        return Err(Refusal { status: 426, header: "Sec-WebSocket-Version: 13\r\n", why });
    }
    let host = header("Host").ok_or_else(|| Refusal::new(400, "there is no Host"))?;
    let key = header("Sec-WebSocket-Key").filter(|key| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(key).is_ok_and(|key| key.len() == 16)
    });
    let key = key.ok_or_else(|| Refusal::new(400, "there is no Sec-WebSocket-Key of 16 bytes"))?;
    if !lists("Sec-WebSocket-Protocol", "sip") {
        return Err(Refusal::new(400, "Sec-WebSocket-Protocol does not offer sip"));
    }
    match header("Origin") {
        Some(origin) if !origins.allow(origin, host) => Err(Refusal::new(403, "this Origin is not allowed")),
        _ => Ok(derive_accept_key(key.as_bytes())),
    }
}

// --- an open connection ----------------------------------------------------------------------------------------------

/// Carries messages both ways until one side is through.
pub(super) async fn run<S>(link: &mut Link, stream: WebSocketStream<S>) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, source) = stream.split();
    let heard = AtomicBool::new(true);
    let Link { id, inputs, counters, stopped, outgoing, queued_bytes, .. } = link;
    let read = async {
        tokio::select! {
            // Closed by us: what is queued is still written, and that ends it.
            _ = stopped => std::future::pending().await,
            end = read(source, &heard, |frame| {
                counters.received.add(1);
                inputs.send(StreamInput::Frame { id: *id, frame })
            }) => end,
        }
    };
    let write = write(sink, &heard, outgoing, queued_bytes, counters);
    tokio::select! {
        end = read => end,
        end = write => end,
    }
}

async fn read<S, F>(mut source: S, heard: &AtomicBool, deliver: impl Fn(Frame) -> F) -> End
where
    S: Stream<Item = tungstenite::Result<WsMessage>> + Unpin,
    F: Future<Output = Result<(), mpsc::error::SendError<StreamInput>>>,
{
    let first = Instant::now() + FIRST_MESSAGE_WAIT;
    let mut spoken = false;
    loop {
        let next = match spoken {
            true => source.next().await, // pings watch over it from now on
            false => match timeout_at(first, source.next()).await {
                Ok(next) => next,
                Err(_) => return End::Idle,
            },
        };
        let message = match next {
            Some(Ok(message)) => message,
            Some(Err(error)) => return End::Broken(ws_words(&error)),
            None => return End::Broken("the peer closed the connection".to_owned()),
        };
        heard.store(true, Relaxed);
        let bytes = match message {
            WsMessage::Text(text) => Bytes::from(text),
            WsMessage::Binary(bytes) => bytes,
            WsMessage::Close(_) => return End::Broken("the peer closed the connection".to_owned()),
            WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_) => continue, // a ping is answered below us
        };
        // RFC 7118 §6 lets RFC 5626's keep-alives in as well.
        let frame = match &bytes[..] {
            b"\r\n\r\n" => Frame::Ping,
            b"\r\n" | b"" => continue,
            _ => match Message::parse(bytes) {
                Ok(message) => Frame::Message(message),
                Err(error) => Frame::Bad(error),
            },
        };
        spoken = true;
        if deliver(frame).await.is_err() {
            return End::Silent;
        }
    }
}

async fn write<S>(
    mut sink: S,
    heard: &AtomicBool,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    queued_bytes: &AtomicUsize,
    counters: &StreamCounters,
) -> End
where
    S: Sink<WsMessage, Error = tungstenite::Error> + Unpin,
{
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.tick().await; // the first is at once
    loop {
        let (message, size, client) = tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => (data(message.bytes.clone()), message.bytes.len(), message.client),
                None => break,
            },
            _ = pings.tick() => {
                if !heard.swap(false, Relaxed) {
                    return End::Broken(format!("the peer has not answered for {} s", PING_INTERVAL.as_secs()));
                }
                (WsMessage::Ping(Bytes::new()), 0, None)
            }
        };
        let sent = timeout(STALL_LIMIT, sink.send(message)).await;
        queued_bytes.fetch_sub(size, Relaxed);
        match sent {
            Ok(Ok(())) => counters.sent.add(u64::from(size > 0)),
            Ok(Err(error)) => return End::Unsent(ws_words(&error), client),
            Err(_) => return End::Unsent("the peer does not read".to_owned(), client),
        }
    }
    let goodbye = WsMessage::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }));
    let _ = timeout(STALL_LIMIT, sink.send(goodbye)).await;
    End::Silent
}

/// Text where the message is text (RFC 7118 §5.2): what scripts in browsers like best.
fn data(bytes: Bytes) -> WsMessage {
    match Utf8Bytes::try_from(bytes.clone()) {
        Ok(text) => WsMessage::Text(text),
        Err(_) => WsMessage::Binary(bytes),
    }
}

fn ws_words(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => tls::error_words(error),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            "the peer closed the connection".to_owned()
        }
        tungstenite::Error::Capacity(_) => format!("the peer sent a message of more than {MESSAGE_LIMIT} bytes"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn answer(change: impl Fn(&mut Vec<(&str, &str)>), origins: &Origins) -> Result<String, u16> {
        let mut headers = vec![
            ("Host", "sip.example.com:8080"),
            ("Upgrade", "WebSocket"),
            ("Connection", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Protocol", "msrp, sip"),
        ];
        change(&mut headers);
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        check(format!("GET /ws HTTP/1.1\r\n{lines}\r\n").as_bytes(), origins).map_err(|refusal| refusal.status)
    }

    #[test]
    fn a_whole_handshake_is_taken_and_each_missing_piece_has_its_answer() {
        let same = Origins::SameHost;
        assert_eq!(answer(|_| {}, &same).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for (missing, status) in [
            ("Host", 400),
            ("Upgrade", 426),
            ("Connection", 400),
            ("Sec-WebSocket-Version", 426),
            ("Sec-WebSocket-Key", 400),
            ("Sec-WebSocket-Protocol", 400),
        ] {
            let without = answer(|headers| headers.retain(|(name, _)| *name != missing), &same);
            assert_eq!(without, Err(status), "{missing}");
        }
        for (name, value, status) in
            [("Sec-WebSocket-Key", "c2hvcnQ=", 400), ("Sec-WebSocket-Version", "8", 426), ("Upgrade", "h2c", 426)]
        {
            let changed =
                answer(|headers| headers.iter_mut().filter(|(n, _)| *n == name).for_each(|(_, v)| *v = value), &same);
            assert_eq!(changed, Err(status), "{name}: {value}");
        }
        for bytes in ["POST / HTTP/1.1\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", "garbage\r\n\r\n", "\r\n\r\n"] {
            assert_eq!(check(bytes.as_bytes(), &same).map_err(|refusal| refusal.status), Err(400), "{bytes}");
        }
    }

    #[test]
    fn only_pages_of_the_same_host_or_of_the_list_may_connect() {
        let list = Origins::List(vec!["https://phone.example.com".to_owned()]);
        let any = Origins::List(vec!["*".to_owned()]);
        for (origins, origin, allowed) in [
            (&Origins::SameHost, "https://sip.example.com", true),
            (&Origins::SameHost, "http://SIP.example.com:3000", true),
            (&Origins::SameHost, "https://evil.example", false),
            (&Origins::SameHost, "https://sip.example.com.evil.example", false),
            (&Origins::SameHost, "null", false),
            (&list, "https://phone.example.com", true),
            (&list, "https://sip.example.com", false),
            (&any, "null", true),
        ] {
            let answer = answer(|headers| headers.push(("Origin", origin)), origins);
            assert_eq!(answer.err(), (!allowed).then_some(403), "{origin}");
        }
    }
}
