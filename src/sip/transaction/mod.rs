//! The four transactions of RFC 3261 §17 with the corrections of RFC 6026, in one table with one timer queue.
//!
//! [`Transactions`] takes messages and time, and gives back bytes to send and what the transaction user (TU) must know.
//! It matches each message to its transaction (`key`), repeats what UDP may have lost, absorbs what was repeated, and
//! acknowledges failures. The machines are `client_invite`, `client`, `server_invite` and `server`; each holds its state,
//! its deadlines and only those bytes it may have to send again. The 2xx of an INVITE and its ACK are the TU's
//! (RFC 3261 §13.3.1.4).

mod client;
mod client_invite;
mod key;
mod server;
mod server_invite;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Instant;

use bytes::Bytes;

use self::client::Client;
use self::client_invite::ClientInvite;
pub use self::key::reply_flow;
use self::key::{Key, Keys};
use self::server::Server;
use self::server_invite::{AckIs, ServerInvite};
use self::timers::{Owner, TimerQueue};
pub use self::timers::{T1, T2, T4, TRANSACTION_TIMEOUT};
use super::message::{HeaderName, Message, Method};
use super::transport::Flow;

/// Most transactions at once, clients and servers together: at 3,000 calls a second about 32 s of INVITEs and BYEs, and
/// some 200 MB. A request beyond it is dropped without an answer and counted: under such a load an answer to each would
/// only add to it, and the peer's own retransmissions are its second chance.
pub const MAX_TRANSACTIONS: usize = 262_144;

/// How many of those a peer's requests cannot take: one BYE for each session there can be.
pub const RESERVED_FOR_CLIENTS: usize = 16_384;

/// Names a client transaction of this table; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Names a server transaction of this table; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u64);

/// What the transaction user must do or know, oldest first.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes. `client` is set for requests, so that a transport error can be told to that transaction.
    Transmit { flow: Flow, bytes: Bytes, client: Option<ClientId> },
    /// A new request (never an ACK to a failure, never a retransmission). `flow` is where its responses go, see
    /// [`reply_flow`].
    Request { server: ServerId, request: Message, flow: Flow },
    /// An ACK that matches no failure response: it confirms a 2xx (or nothing).
    Ack { request: Message, flow: Flow },
    /// A CANCEL; `invite` is the INVITE transaction it matches (RFC 3261 §9.2). The TU answers it through `server`.
    Cancel { server: ServerId, invite: Option<ServerId>, request: Message, flow: Flow },
    /// A response for a client transaction: each provisional, the first final, and every 2xx of an INVITE (RFC 6026 §7.2).
    /// Responses to a CANCEL of [`Transactions::cancel`] are not told.
    Response { client: ClientId, response: Message, flow: Flow },
    /// No final response in time (timers B, F, or 64·T1 after CANCEL): the TU treats it as 408.
    TimedOut { client: ClientId },
    /// The transport could not send; the TU treats it as 503.
    TransportFailed { client: ClientId, error: String },
    /// A failure response was never acknowledged (timer H).
    NoAck { server: ServerId },
    /// A 2xx whose INVITE transaction is over (timer M ran out) or unknown: the TU must still ACK and BYE strays.
    StrayResponse { response: Message, flow: Flow },
}

/// What the table has seen, for statistics. All but the last four are ordinary on a lossy network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub requests_resent: u64,
    pub responses_resent: u64,
    /// Requests and failures that came again.
    pub retransmissions_received: u64,
    /// Client transactions without a final response in time.
    pub timed_out: u64,
    /// Failures without an ACK (timer H).
    pub unacknowledged: u64,
    /// Responses of no transaction, or that its state has no use for; 2xx to INVITE are told instead.
    pub dropped_responses: u64,
    /// ACKs while there is nothing to acknowledge.
    pub dropped_acks: u64,
    /// Requests whose headers do not say to which transaction they belong.
    pub dropped_requests: u64,
    pub transport_errors: u64,
    /// Requests other than INVITE that the TU left without a final answer for 64·T1.
    pub unanswered: u64,
    /// Requests beyond [`MAX_TRANSACTIONS`].
    pub refused_by_limit: u64,
}

/// Where the machines put what they want done and what they have seen.
#[derive(Debug, Default)]
struct Sink {
    outputs: VecDeque<Output>,
    stats: Stats,
}

impl Sink {
    fn send(&mut self, output: Output) {
        self.outputs.push_back(output);
    }
}

/// The same bytes in a buffer of their own size, for those that wait 32 s: messages are written into roomier ones.
fn kept(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Shrinks a map that a rush of calls has left much too large. Each call moves at most as many entries as were removed
/// since the last one that moved any.
pub(crate) fn give_back<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    const WORTH_IT: usize = 1024;
    if map.capacity() > WORTH_IT && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}

#[derive(Debug)]
enum ClientMachine {
    Invite(ClientInvite),
    Other(Client),
}

impl ClientMachine {
    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Invite(machine) => machine.poll_timeout(),
            Self::Other(machine) => machine.poll_timeout(),
        }
    }

    fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(machine) => machine.is_terminated(),
            Self::Other(machine) => machine.is_terminated(),
        }
    }
}

#[derive(Debug)]
struct ClientEntry {
    machine: ClientMachine,
    method: Method,
    key: Key,
    /// The same request for another path, until anything has come back over the first.
    other: Option<Box<(Message, Flow)>>,
}

#[derive(Debug)]
enum ServerMachine {
    Invite(ServerInvite),
    Other(Server),
}

impl ServerMachine {
    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Invite(machine) => machine.poll_timeout(),
            Self::Other(machine) => machine.poll_timeout(),
        }
    }

    fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(machine) => machine.is_terminated(),
            Self::Other(machine) => machine.is_terminated(),
        }
    }
}

#[derive(Debug)]
struct ServerEntry {
    machine: ServerMachine,
    key: Key,
}

/// All transactions of one user agent.
#[derive(Debug, Default)]
pub struct Transactions {
    clients: HashMap<ClientId, ClientEntry>,
    client_keys: HashMap<Key, ClientId>,
    servers: HashMap<ServerId, ServerEntry>,
    server_keys: HashMap<Key, ServerId>,
    keys: Keys,
    timers: TimerQueue,
    sink: Sink,
    last_id: u64,
    /// Requests are those of others, sent on.
    forwards: bool,
}

impl Transactions {
    pub fn new() -> Self {
        Self::default()
    }

    /// The table of a proxy: responses to what it forwards have the Via of those before it below its own.
    pub fn of_a_proxy() -> Self {
        Self { forwards: true, ..Self::default() }
    }

    /// Sends a request that carries its own Via branch and starts its transaction (not for ACK to a 2xx: transmit that).
    /// When the table is full, [`Output::TransportFailed`] is all that comes of it.
    ///
    /// # Panics
    /// When the request has no top Via with a branch: a broken promise of our own code.
    pub fn send_request(&mut self, request: Message, flow: Flow, now: Instant) -> ClientId {
        self.send_request_or(request, flow, None, now)
    }

    /// The same with another form of the request, which is sent when the transport cannot deliver the first one and nothing
    /// has come back (RFC 3261 §18.1.1). It is one transaction to its user.
    ///
    /// # Panics
    /// As [`Self::send_request`].
    pub fn send_request_or(
        &mut self,
        request: Message,
        flow: Flow,
        other: Option<(Message, Flow)>,
        now: Instant,
    ) -> ClientId {
        let id = ClientId(self.next_id());
        let method = request.method().clone();
        let key = self.keys.client(&request, &method).expect("a request of ours has a top Via with a branch");
        if self.clients.len() + self.servers.len() >= MAX_TRANSACTIONS {
            self.sink.stats.refused_by_limit += 1;
            let error = format!("more than {MAX_TRANSACTIONS} transactions");
            self.sink.send(Output::TransportFailed { client: id, error });
            return id;
        }
        let bytes = request.as_bytes().clone();
        let machine = match method {
            Method::Invite => ClientMachine::Invite(ClientInvite::new(id, bytes, flow, &mut self.sink, now)),
            _ => ClientMachine::Other(Client::new(id, bytes, flow, false, &mut self.sink, now)),
        };
        self.insert_client(id, machine, method, key);
        if let Some(entry) = self.clients.get_mut(&id) {
            entry.other = other.map(Box::new);
        }
        id
    }

    /// CANCELs a client INVITE: sent when a provisional has come, withheld until then (RFC 3261 §9.1). When no final
    /// response follows within 64·T1 the INVITE times out. Nothing happens once it is completed.
    pub fn cancel(&mut self, invite: ClientId, extra_headers: &[(String, String)], now: Instant) {
        self.step_client(invite, now, |machine, _| {
            if let ClientMachine::Invite(machine) = machine {
                machine.cancel(extra_headers);
            }
        });
    }

    /// Answers a server transaction; after its final answer, or once it is over, nothing happens. The bytes are a whole
    /// response built from its request. A 2xx to INVITE moves the transaction to Accepted (64·T1 long); repeating that 2xx
    /// until its ACK comes is the TU's job (RFC 6026 §7.1), and passing it here again sends it again.
    pub fn respond(&mut self, server: ServerId, code: u16, response: Bytes, now: Instant) {
        self.step_server(server, |machine, sink| match machine {
            ServerMachine::Invite(machine) => machine.respond(code, response, sink, now),
            ServerMachine::Other(machine) => machine.respond(code, response, sink, now),
        });
    }

    /// Takes one valid message from the network.
    pub fn handle_message(&mut self, message: Message, flow: Flow, now: Instant) {
        match message.status() {
            Some(status) => self.handle_response(status, message, flow, now),
            None if *message.method() == Method::Ack => self.handle_ack(message, flow, now),
            None => self.handle_request(message, flow, now),
        }
    }

    /// The transport could not deliver a request of this transaction. Returns the path that was given up for another
    /// one, see [`Self::send_request_or`].
    pub fn handle_transport_error(&mut self, client: ClientId, error: &str, now: Instant) -> Option<Flow> {
        if let Some(given_up) = self.go_another_way(client, now) {
            return Some(given_up);
        }
        self.step_client(client, now, |machine, sink| match machine {
            ClientMachine::Invite(machine) => machine.handle_transport_error(error, sink),
            ClientMachine::Other(machine) => machine.handle_transport_error(error, sink),
        });
        None
    }

    /// Sends the other form of a request and waits for its answer from now on.
    fn go_another_way(&mut self, id: ClientId, now: Instant) -> Option<Flow> {
        let entry = self.clients.get_mut(&id)?;
        let (request, flow) = *entry.other.take()?;
        let key = self.keys.client(&request, &entry.method)?;
        let (before, bytes) = (entry.machine.poll_timeout(), request.as_bytes().clone());
        self.sink.stats.transport_errors += 1;
        let given_up = match &mut entry.machine {
            ClientMachine::Invite(machine) => machine.restart(bytes, flow, &mut self.sink, now),
            ClientMachine::Other(machine) => machine.restart(bytes, flow, &mut self.sink, now),
        };
        self.timers.rearm(Owner::Client(id), before, entry.machine.poll_timeout());
        let old = std::mem::replace(&mut entry.key, key);
        self.client_keys.remove(&old);
        self.client_keys.insert(key, id);
        Some(given_up)
    }

    /// Moves time forward. Early or repeated calls are harmless; a late one sends each message once, not once for each
    /// deadline it missed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(owner) = self.timers.first_due(now) {
            match owner {
                Owner::Client(id) => self.step_client(id, now, |machine, sink| match machine {
                    ClientMachine::Invite(machine) => machine.handle_timeout(sink, now),
                    ClientMachine::Other(machine) => machine.handle_timeout(sink, now),
                }),
                Owner::Server(id) => self.step_server(id, |machine, sink| match machine {
                    ServerMachine::Invite(machine) => machine.handle_timeout(sink, now),
                    ServerMachine::Other(machine) => machine.handle_timeout(sink, now),
                }),
            };
        }
    }

    /// The next thing to do, oldest first; `None` when drained.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.sink.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest; `None` when nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Live transactions (client, server), for statistics and leak checks.
    pub fn len(&self) -> (usize, usize) {
        (self.clients.len(), self.servers.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    pub fn stats(&self) -> Stats {
        self.sink.stats
    }

    /// The method of a live client transaction.
    pub fn client_method(&self, client: ClientId) -> Option<&Method> {
        self.clients.get(&client).map(|entry| &entry.method)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    // --- what arrives ------------------------------------------------------------------------------------------------

    fn handle_response(&mut self, status: u16, response: Message, flow: Flow, now: Instant) {
        let Some(id) = self.find_client(&response) else {
            if (200..300).contains(&status) && *response.method() == Method::Invite {
                self.sink.send(Output::StrayResponse { response, flow });
            } else {
                self.sink.stats.dropped_responses += 1;
            }
            return;
        };
        if let Some(entry) = self.clients.get_mut(&id) {
            entry.other = None; // this way works
        }
        self.step_client(id, now, |machine, sink| {
            let used = match machine {
                ClientMachine::Invite(machine) => machine.handle_response(status, response, flow, sink, now),
                ClientMachine::Other(machine) => machine.handle_response(status, response, flow, sink, now),
            };
            sink.stats.dropped_responses += u64::from(!used);
        });
    }

    /// By the top Via's branch and sent-by and CSeq's method (§17.1.3). A second Via means the response is somebody else's
    /// (§8.1.3.3).
    fn find_client(&self, response: &Message) -> Option<ClientId> {
        if !self.forwards && response.header_values(HeaderName::Via).nth(1).is_some() {
            return None;
        }
        let key = self.keys.client(response, response.method())?;
        self.client_keys.get(&key).copied()
    }

    fn handle_request(&mut self, request: Message, flow: Flow, now: Instant) {
        let Some(key) = self.keys.server(&request, request.method(), None) else {
            self.sink.stats.dropped_requests += 1;
            return;
        };
        if let Some(id) = self.server_keys.get(&key) {
            self.step_server(*id, |machine, sink| match machine {
                ServerMachine::Invite(machine) => machine.handle_retransmission(sink),
                ServerMachine::Other(machine) => machine.handle_retransmission(sink),
            });
            return;
        }
        if self.clients.len() + self.servers.len() >= MAX_TRANSACTIONS - RESERVED_FOR_CLIENTS {
            self.sink.stats.refused_by_limit += 1;
            return;
        }
        let id = ServerId(self.next_id());
        let flow = reply_flow(&request, flow);
        let machine = match request.method() {
            Method::Invite => ServerMachine::Invite(ServerInvite::new(id, request.as_bytes().clone(), flow, now)),
            _ => ServerMachine::Other(Server::new(flow, now)),
        };
        self.timers.rearm(Owner::Server(id), None, machine.poll_timeout());
        self.server_keys.insert(key, id);
        self.servers.insert(id, ServerEntry { machine, key });
        if *request.method() == Method::Cancel {
            let invite = self.keys.server(&request, &Method::Invite, None);
            let invite = invite.and_then(|key| self.server_keys.get(&key).copied());
            self.sink.send(Output::Cancel { server: id, invite, request, flow });
        } else {
            self.sink.send(Output::Request { server: id, request, flow });
        }
    }

    fn handle_ack(&mut self, request: Message, flow: Flow, now: Instant) {
        let absorbed = self.find_acknowledged(&request).and_then(|id| {
            self.step_server(id, |machine, sink| match machine {
                ServerMachine::Invite(machine) => machine.handle_ack(sink, now) == AckIs::Absorbed,
                ServerMachine::Other(_) => false,
            })
        });
        if absorbed != Some(true) {
            self.sink.send(Output::Ack { request, flow });
        }
    }

    /// The INVITE transaction an ACK names: by branch and sent-by, or by RFC 2543's rules, where the ACK bears the To tag
    /// of our response and the INVITE may have had none (§17.2.3).
    fn find_acknowledged(&self, ack: &Message) -> Option<ServerId> {
        let key = self.keys.server(ack, &Method::Ack, None)?;
        if let Some(id) = self.server_keys.get(&key) {
            return Some(*id);
        }
        if !key::is_legacy(ack) {
            return None;
        }
        let id = *self.server_keys.get(&self.keys.server(ack, &Method::Ack, Some(b""))?)?;
        let ServerMachine::Invite(machine) = &self.servers.get(&id)?.machine else { return None };
        let Some(response) = machine.unacknowledged() else { return Some(id) };
        let response = Message::parse(response.clone()).ok()?;
        (response.to().ok()?.tag() == ack.to().ok()?.tag()).then_some(id)
    }

    // --- the table ---------------------------------------------------------------------------------------------------

    fn insert_client(&mut self, id: ClientId, machine: ClientMachine, method: Method, key: Key) {
        self.timers.rearm(Owner::Client(id), None, machine.poll_timeout());
        self.client_keys.insert(key, id);
        self.clients.insert(id, ClientEntry { machine, method, key, other: None });
    }

    /// Lets something happen to a client transaction. Afterwards its CANCEL leaves if it may, and it waits for its next
    /// deadline, or leaves the table.
    fn step_client<T>(
        &mut self,
        id: ClientId,
        now: Instant,
        step: impl FnOnce(&mut ClientMachine, &mut Sink) -> T,
    ) -> Option<T> {
        let entry = self.clients.get_mut(&id)?;
        let before = entry.machine.poll_timeout();
        let result = step(&mut entry.machine, &mut self.sink);
        let cancel = match &mut entry.machine {
            ClientMachine::Invite(machine) => machine.poll_cancel(now).map(|bytes| (bytes, machine.flow())),
            ClientMachine::Other(_) => None,
        };
        self.timers.rearm(Owner::Client(id), before, entry.machine.poll_timeout());
        if entry.machine.is_terminated()
            && let Some(entry) = self.clients.remove(&id)
        {
            self.client_keys.remove(&entry.key);
            give_back(&mut self.clients);
            give_back(&mut self.client_keys);
        }
        if let Some((bytes, flow)) = cancel {
            self.send_cancel(bytes, flow, now);
        }
        Some(result)
    }

    /// Lets something happen to a server transaction, which then waits for its next deadline, or leaves the table.
    fn step_server<T>(&mut self, id: ServerId, step: impl FnOnce(&mut ServerMachine, &mut Sink) -> T) -> Option<T> {
        let entry = self.servers.get_mut(&id)?;
        let before = entry.machine.poll_timeout();
        let result = step(&mut entry.machine, &mut self.sink);
        self.timers.rearm(Owner::Server(id), before, entry.machine.poll_timeout());
        if entry.machine.is_terminated()
            && let Some(entry) = self.servers.remove(&id)
        {
            self.server_keys.remove(&entry.key);
            give_back(&mut self.servers);
            give_back(&mut self.server_keys);
        }
        Some(result)
    }

    /// Starts the transaction of a CANCEL. Its answers matter to nobody: the INVITE's final response tells what became
    /// of it.
    fn send_cancel(&mut self, bytes: Bytes, flow: Flow, now: Instant) {
        let cancel = Message::parse(bytes.clone()).expect("our own CANCEL can be read");
        let key = self.keys.client(&cancel, &Method::Cancel).expect("a CANCEL has its INVITE's Via with a branch");
        let id = ClientId(self.next_id());
        let machine = ClientMachine::Other(Client::new(id, bytes, flow, true, &mut self.sink, now));
        self.insert_client(id, machine, Method::Cancel, key);
    }
}
