//! The [test proxy](crate::testing) over real sockets: a thread of its own, with the transports of an engine.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;

use super::counters::TransportCounters;
use super::transports::{Arrival, Bound, Transports};
use super::{Addresses, EngineError, EngineOptions, lock};
use crate::sip::transport::Transport;
use crate::testing::{Proxy, Seen, Settings, Transmit};

/// Verbs that wait for the thread; each comes with a thread that waits for its answer.
const COMMAND_LIMIT: usize = 64;

/// Messages taken before it looks after verbs and timers again.
const PORTION: usize = 64;

/// How often overdue connections are closed.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// How long a verb waits for the thread.
const PATIENCE: Duration = Duration::from_secs(10);

type Command = Box<dyn FnOnce(&mut Proxy, Instant) + Send>;

/// A running test proxy. Clones share it; it stops when the last one goes.
#[derive(Clone)]
pub struct TestProxy {
    shared: Arc<Shared>,
}

struct Shared {
    commands: Mutex<Option<Sender<Command>>>,
    wake: Arc<Notify>,
    addresses: Addresses,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for TestProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestProxy").field("addresses", &self.shared.addresses).finish_non_exhaustive()
    }
}

impl TestProxy {
    /// Binds the sockets and starts the thread; both are ready on return. Of the options those of transports count; the
    /// addresses bound become `settings.local`.
    ///
    /// # Errors
    /// As [`super::Engine::start`].
    pub fn start(options: &EngineOptions, mut settings: Settings) -> Result<Self, EngineError> {
        let bound = Bound::new(options)?;
        let (addresses, local) = (bound.addresses(), bound.local());
        let other_port = other_socket(&local);
        settings.local = local;
        let (commands, receiver) = bounded(COMMAND_LIMIT);
        let wake = Arc::new(Notify::new());
        let lane_wake = wake.clone();
        let thread = std::thread::Builder::new()
            .name("sipwire-proxy".to_owned())
            .spawn(move || {
                let body = AssertUnwindSafe(move || run(bound, settings, other_port, &receiver, &lane_wake));
                if catch_unwind(body).is_err() {
                    tracing::error!("the test proxy ended by a fault of its own");
                }
            })
            .map_err(|error| EngineError::Option { option: "threads", what: error.to_string() })?;
        let commands = Mutex::new(Some(commands));
        Ok(Self { shared: Arc::new(Shared { commands, wake, addresses, thread: Mutex::new(Some(thread)) }) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.shared.addresses
    }

    /// Lets the caller look at the proxy or change it, between two messages.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] after [`Self::stop`].
    pub fn with<R, F>(&self, act: F) -> Result<R, EngineError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Proxy, Instant) -> R + Send + 'static,
    {
        let commands = lock(&self.shared.commands).clone().ok_or(EngineError::Stopped)?;
        let (reply, answer) = bounded(1);
        let command: Command = Box::new(move |proxy, now| {
            let _ = reply.send(act(proxy, now)); // whoever asked may have given up
        });
        commands.send_timeout(command, PATIENCE).map_err(|_| EngineError::Stopped)?;
        self.shared.wake.notify_one();
        answer.recv_timeout(PATIENCE).map_err(|_| EngineError::Stopped)
    }

    /// What came and went, oldest first, by the wall clock.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn messages(&self) -> Result<Vec<(SystemTime, Seen)>, EngineError> {
        let (seen, now) = self.with(|proxy, now| (proxy.seen().cloned().collect::<Vec<_>>(), now))?;
        let wall = SystemTime::now();
        let at = |seen: &Seen| wall.checked_sub(now.saturating_duration_since(seen.at)).unwrap_or(wall);
        Ok(seen.into_iter().map(|seen| (at(&seen), seen)).collect())
    }

    /// Closes the sockets and ends the thread. Harmless when it is done already.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

impl Shared {
    fn stop(&self) {
        drop(lock(&self.commands).take());
        self.wake.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join(); // its faults are logged by itself
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A socket on another port of the address that UDP is bound to.
fn other_socket(local: &[(Transport, SocketAddr)]) -> Option<UdpSocket> {
    let (_, udp) = local.iter().find(|(transport, address)| *transport == Transport::Udp && address.port() != 0)?;
    let unbound: IpAddr = if udp.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((udp.ip(), 0)).or_else(|_| UdpSocket::bind((unbound, 0))).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// The thread's body.
fn run(bound: Bound, settings: Settings, other_port: Option<UdpSocket>, commands: &Receiver<Command>, wake: &Notify) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the test proxy has no runtime"),
    };
    runtime.block_on(async {
        let transports = Transports::new(bound, Arc::new(TransportCounters::default()));
        let random = StdRng::from_rng(&mut rand::rng());
        let proxy = Proxy::new(settings, random, Instant::now());
        Lane { proxy, transports, other_port }.run(commands, wake).await;
    });
}

struct Lane {
    proxy: Proxy,
    transports: Transports,
    other_port: Option<UdpSocket>,
}

impl Lane {
    async fn run(mut self, commands: &Receiver<Command>, wake: &Notify) {
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut tidy_at = Instant::now() + TIDY_EVERY;
        loop {
            let now = Instant::now();
            loop {
                match commands.try_recv() {
                    Ok(command) => command(&mut self.proxy, now),
                    Err(crossbeam_channel::TryRecvError::Empty) => break,
                    Err(crossbeam_channel::TryRecvError::Disconnected) => return,
                }
            }
            let more = self.take_arrivals(now);
            if self.proxy.poll_timeout().is_some_and(|at| at <= now) {
                self.proxy.handle_timeout(now);
            }
            self.drain(now);
            if tidy_at <= now {
                self.transports.tidy(now);
                tidy_at = now + TIDY_EVERY;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let until = self.proxy.poll_timeout().into_iter().fold(tidy_at, Instant::min);
            timer.as_mut().reset(until.into());
            tokio::select! {
                () = wake.notified() => {}
                () = self.transports.ready() => {}
                () = timer.as_mut() => {}
            }
        }
    }

    /// True when there may be more.
    fn take_arrivals(&mut self, now: Instant) -> bool {
        for _ in 0..PORTION {
            let Some(arrival) = self.transports.poll(now) else { return false };
            match arrival {
                Arrival::Message { message, flow, .. } => self.proxy.handle_message(message, flow, now),
                Arrival::Failed { client, error } => self.proxy.handle_transport_error(client, &error, now),
                // What is no message gets no answer from a test proxy; what is kept alive is none of its business.
                _ => {}
            }
            self.drain(now);
        }
        true
    }

    fn drain(&mut self, now: Instant) {
        while let Some(Transmit { flow, bytes, client, other_port }) = self.proxy.poll_output() {
            if let Some(socket) = self.other_port.as_ref().filter(|_| other_port && flow.transport == Transport::Udp) {
                let _ = socket.send_to(&bytes, flow.remote); // a datagram may be lost
                continue;
            }
            if let Err(error) = self.transports.send(flow, None, bytes, client, now)
                && let Some(client) = client
            {
                self.proxy.handle_transport_error(client, &error, now);
            }
        }
    }
}
