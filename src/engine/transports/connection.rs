//! One connection: making it or taking it, TLS and WebSocket handshakes, and the tasks that read and write.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tls;
use super::websocket::{self, Origins};
use crate::engine::counters::StreamCounters;
use crate::engine::sockets::words;
use crate::sip::message::ParseError;
use crate::sip::stream::{Frame, StreamFramer};
use crate::sip::transaction::ClientId;
use crate::sip::transport::{ConnectionId, Transport};

/// How long a connection may be open, or a message unfinished, without one whole message.
pub(super) const FIRST_MESSAGE_WAIT: Duration = Duration::from_secs(30);
/// How long a connection that has carried messages is kept without any byte from the peer.
const IDLE_LIMIT: Duration = Duration::from_secs(900);
/// How long a connect may take: long before the transaction gives up (timer B, 32 s), so that the next route is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the handshakes of TLS and WebSocket may take together (reliability row 32).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that takes no byte for this long is gone (reliability row 49).
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(32);
/// Wait after a failed accept (no file descriptors left): they may come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// One read.
const READ_SIZE: usize = 16 << 10;
/// Bytes put together for one write.
const WRITE_SIZE: usize = 64 << 10;

/// What connections tell the lane.
#[derive(Debug)]
pub(super) enum StreamInput {
    Accepted {
        transport: Transport,
        stream: TcpStream,
        peer: SocketAddr,
    },
    /// All handshakes are through.
    Open {
        id: ConnectionId,
        local: SocketAddr,
        /// SIP domains the peer's certificate proves, on connections we took.
        domains: Vec<String>,
    },
    Frame {
        id: ConnectionId,
        frame: Frame,
    },
    /// The peer sends no more; it may still read.
    HalfClosed {
        id: ConnectionId,
    },
    /// Nothing goes any more. `unsent` are the transactions whose requests did not leave.
    Closed {
        id: ConnectionId,
        error: String,
        unsent: Vec<ClientId>,
    },
}

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub bytes: Bytes,
    pub client: Option<ClientId>,
}

/// What the tasks of a connection have from the lane.
#[derive(Debug)]
pub(super) struct Link {
    pub id: ConnectionId,
    pub inputs: mpsc::Sender<StreamInput>,
    pub counters: Arc<StreamCounters>,
    /// Ends with the connection: nothing more is read.
    pub stopped: oneshot::Receiver<()>,
    pub outgoing: mpsc::Receiver<Outgoing>,
    pub queued_bytes: Arc<AtomicUsize>,
    /// A ping of ours left: the next lone CRLF is its answer.
    pub pong_expected: Arc<AtomicBool>,
}

/// Why a connection ended.
pub(super) enum End {
    HalfClosed,
    /// The lane already knows, or asked for it.
    Silent,
    /// Nothing came for too long.
    Idle,
    Broken(String),
    /// The same, and this request did not leave.
    Unsent(String, Option<ClientId>),
}

/// Where a connection of ours goes.
pub(super) struct Target {
    pub transport: Transport,
    pub peer: SocketAddr,
    pub bind_ip: Option<IpAddr>,
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Host and path.
    pub websocket: Option<(String, String)>,
}

/// How a connection is taken.
pub(super) struct Taking {
    pub tls: Option<Arc<ServerConfig>>,
    pub websocket: Option<Arc<Origins>>,
}

/// Anything bytes go through.
trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// A connection with its handshakes done.
enum Wire {
    Tcp(TcpStream),
    Tls(Box<dyn Pipe>),
    WebSocket(Box<tokio_tungstenite::WebSocketStream<Box<dyn Pipe>>>),
}

pub(super) async fn accept_all(transport: Transport, listener: TcpListener, inputs: mpsc::Sender<StreamInput>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if inputs.send(StreamInput::Accepted { transport, stream, peer }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Makes a connection and serves it to its end.
pub(super) async fn connect(link: Link, target: Target) {
    let (name, peer) = (target.transport.via_name(), target.peer);
    match target.open().await {
        Ok((wire, local)) => {
            link.counters.connected.add(1);
            let open = StreamInput::Open { id: link.id, local, domains: Vec::new() };
            if link.inputs.send(open).await.is_ok() {
                wire.run(link).await;
            }
        }
        Err(error) => {
            link.counters.connect_failures.add(1);
            link.close(format!("{name} to {peer}: {error}"), None).await;
        }
    }
}

impl Target {
    async fn open(self) -> Result<(Wire, SocketAddr), String> {
        let Self { peer, bind_ip, tls, websocket, .. } = self;
        let connect = async {
            let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(ip) = bind_ip {
                socket.bind((ip, 0).into())?;
            }
            let stream = socket.connect(peer).await?;
            let _ = stream.set_nodelay(true);
            stream.local_addr().map(|local| (stream, local))
        };
        let (stream, local) = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(|error| words(&error))?,
            Err(_) => return Err(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())),
        };
        let shake = async {
            let stream: Box<dyn Pipe> = match tls {
                Some((config, name)) => {
                    let secured = TlsConnector::from(config).connect(name, stream).await;
                    Box::new(secured.map_err(|error| tls::error_words(&error))?)
                }
                None if websocket.is_none() => return Ok(Wire::Tcp(stream)),
                None => Box::new(stream),
            };
            Ok(match websocket {
                Some((host, path)) => Wire::WebSocket(Box::new(websocket::connect(stream, &host, &path).await?)),
                None => Wire::Tls(stream),
            })
        };
        Ok((in_time(shake).await?, local))
    }
}

/// Takes a connection and serves it to its end.
pub(super) async fn serve(link: Link, stream: TcpStream, local: SocketAddr, taking: Taking) {
    let Taking { tls, websocket } = taking;
    let shake = async {
        let mut domains = Vec::new();
        let stream: Box<dyn Pipe> = match tls {
            Some(config) => {
                let secured = TlsAcceptor::from(config).accept(stream).await;
                let secured = secured.map_err(|error| tls::error_words(&error))?;
                domains = tls::domains(secured.get_ref().1.peer_certificates());
                Box::new(secured)
            }
            None if websocket.is_none() => return Ok((Wire::Tcp(stream), domains)),
            None => Box::new(stream),
        };
        Ok(match websocket {
            Some(origins) => (Wire::WebSocket(Box::new(websocket::accept(stream, &origins).await?)), domains),
            None => (Wire::Tls(stream), domains),
        })
    };
    match in_time(shake).await {
        Ok((wire, domains)) => {
            if link.inputs.send(StreamInput::Open { id: link.id, local, domains }).await.is_ok() {
                wire.run(link).await;
            }
        }
        Err(error) => {
            link.counters.handshake_failures.add(1);
            link.close(error, None).await;
        }
    }
}

async fn in_time<T>(handshake: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(result) => result,
        Err(_) => Err(format!("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())),
    }
}

impl Link {
    /// Tells the lane that nothing goes any more.
    async fn close(self, error: String, unsent: Option<ClientId>) {
        let Self { id, inputs, mut outgoing, .. } = self;
        let mut unsent = Vec::from_iter(unsent);
        outgoing.close();
        while let Ok(message) = outgoing.try_recv() {
            unsent.extend(message.client);
        }
        let _ = inputs.send(StreamInput::Closed { id, error, unsent }).await;
    }
}

impl Wire {
    async fn run(self, mut link: Link) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                run_stream(link, reader, writer).await;
            }
            Self::Tls(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                run_stream(link, reader, writer).await;
            }
            Self::WebSocket(stream) => match websocket::run(&mut link, *stream).await {
                End::Idle => {
                    link.counters.idle_closed.add(1);
                    link.close("idle".to_owned(), None).await;
                }
                End::Broken(error) => link.close(error, None).await,
                End::Unsent(error, client) => link.close(error, client).await,
                End::HalfClosed | End::Silent => {}
            },
        }
    }
}

async fn run_stream<R, W>(link: Link, reader: R, writer: W)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Unpin,
{
    let Link { id, inputs, counters, stopped, outgoing, queued_bytes, pong_expected } = link;
    tokio::spawn(read(id, reader, stopped, inputs.clone(), counters.clone(), pong_expected));
    write(id, writer, outgoing, queued_bytes, inputs, counters).await;
}

thread_local! {
    /// All readers run on one thread and read one after the other: an idle connection costs no buffer.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

async fn read(
    id: ConnectionId,
    reader: impl AsyncRead + Unpin,
    mut stopped: oneshot::Receiver<()>,
    inputs: mpsc::Sender<StreamInput>,
    counters: Arc<StreamCounters>,
    pong_expected: Arc<AtomicBool>,
) {
    let end = tokio::select! {
        _ = &mut stopped => End::Silent,
        end = read_frames(id, reader, &inputs, &counters, &pong_expected) => end,
    };
    let input = match end {
        End::Silent => return,
        End::HalfClosed => StreamInput::HalfClosed { id },
        End::Idle => {
            counters.idle_closed.add(1);
            StreamInput::Closed { id, error: "idle".to_owned(), unsent: Vec::new() }
        }
        End::Broken(error) | End::Unsent(error, _) => StreamInput::Closed { id, error, unsent: Vec::new() },
    };
    let _ = inputs.send(input).await;
}

async fn read_frames(
    id: ConnectionId,
    mut reader: impl AsyncRead + Unpin,
    inputs: &mpsc::Sender<StreamInput>,
    counters: &StreamCounters,
    pong_expected: &AtomicBool,
) -> End {
    let mut framer = StreamFramer::default();
    let mut whole_at = tokio::time::Instant::now(); // when the stream last stood between two messages, or began
    let mut spoken = false;
    loop {
        let unfinished = !spoken || !framer.buffered().is_empty();
        let deadline =
            if unfinished { whole_at + FIRST_MESSAGE_WAIT } else { tokio::time::Instant::now() + IDLE_LIMIT };
        let pull = std::future::poll_fn(|context| {
            READ_BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                let Poll::Ready(read) = Pin::new(&mut reader).poll_read(context, &mut buffer) else {
                    return Poll::Pending;
                };
                Poll::Ready(match read {
                    Ok(()) if buffer.filled().is_empty() => Some(End::HalfClosed),
                    // What a peer sends must not end the engine even if the framer is wrong.
                    Ok(()) => catch_unwind(AssertUnwindSafe(|| framer.push(buffer.filled())))
                        .err()
                        .map(|_| End::Broken("the framer failed".to_owned())),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        Some(End::Broken("the peer closed the connection".to_owned()))
                    }
                    Err(error) => Some(End::Broken(tls::error_words(&error))),
                })
            })
        });
        match tokio::time::timeout_at(deadline, pull).await {
            Ok(None) => {}
            Ok(Some(end)) => return end,
            Err(_) => {
                return End::Idle;
            }
        }
        if !unfinished {
            whole_at = tokio::time::Instant::now();
        }
        if pong_expected.swap(false, Relaxed) {
            framer.expect_pong();
        }
        loop {
            match catch_unwind(AssertUnwindSafe(|| framer.next_frame())) {
                Ok(Some(frame)) => {
                    whole_at = tokio::time::Instant::now();
                    spoken |= matches!(frame, Frame::Message(_));
                    let lost = matches!(frame, Frame::Lost(_));
                    counters.received.add(1);
                    if inputs.send(StreamInput::Frame { id, frame }).await.is_err() || lost {
                        return End::Silent;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    let error =
                        ParseError { what: "the stream cannot be followed".to_owned(), answer: None, partial: None };
                    let _ = inputs.send(StreamInput::Frame { id, frame: Frame::Lost(Box::new(error)) }).await;
                    return End::Silent;
                }
            }
        }
    }
}

async fn write(
    id: ConnectionId,
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
    queued_bytes: Arc<AtomicUsize>,
    inputs: mpsc::Sender<StreamInput>,
    counters: Arc<StreamCounters>,
) {
    let mut buffer = Vec::new();
    let mut clients = Vec::new();
    while let Some(first) = outgoing.recv().await {
        let mut count = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            buffer.extend_from_slice(&message.bytes);
            clients.extend(message.client);
            count += 1;
            next = if buffer.len() < WRITE_SIZE { outgoing.try_recv().ok() } else { None };
        }
        let all = async {
            writer.write_all(&buffer).await?;
            writer.flush().await // TLS keeps a record back otherwise
        };
        let error = match timeout(STALL_LIMIT, all).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(tls::error_words(&error)),
            Err(_) => Some("the peer does not read".to_owned()),
        };
        queued_bytes.fetch_sub(buffer.len(), Relaxed);
        if let Some(error) = error {
            outgoing.close();
            while let Ok(message) = outgoing.try_recv() {
                clients.extend(message.client);
            }
            let _ = inputs.send(StreamInput::Closed { id, error, unsent: clients }).await;
            return;
        }
        counters.sent.add(count);
        buffer.clear();
        clients.clear();
    }
    let _ = timeout(STALL_LIMIT, writer.shutdown()).await;
}
