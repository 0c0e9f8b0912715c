//! Transports against each other and against peers that misbehave, over loopback.

mod flows;
mod tls;
mod websocket;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use super::{Arrival, Bound, Transports};
use crate::engine::counters::TransportCounters;
use crate::engine::{Addresses, EngineError, EngineOptions};
use crate::sip::transaction::ClientId;
use crate::sip::transport::{Flow, PeerId, Transport};
use crate::ua::peers::Peer;

/// Longer than anything here may take, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs a test on a runtime like the lane's.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

struct Side {
    transports: Transports,
    counters: Arc<TransportCounters>,
    addresses: Addresses,
}

impl Side {
    fn new(change: impl FnOnce(&mut EngineOptions)) -> Self {
        Self::try_new(change).expect("free ports on loopback")
    }

    fn try_new(change: impl FnOnce(&mut EngineOptions)) -> Result<Self, EngineError> {
        let mut options = EngineOptions { local_ip: Some(LOOPBACK), ..EngineOptions::default() };
        change(&mut options);
        let bound = Bound::new(&options)?;
        let (addresses, counters) = (bound.addresses(), Arc::new(TransportCounters::default()));
        Ok(Self { transports: Transports::new(bound, counters.clone()), counters, addresses })
    }

    fn at(&self, transport: Transport) -> SocketAddr {
        self.addresses.get(transport).expect("it listens")
    }

    /// Sends a request of this number; its transaction has the number too.
    fn request(&mut self, flow: Flow, peer: Option<&Peer>, number: u64) -> Result<SocketAddr, String> {
        self.transports.send(flow, peer, request(number, ""), Some(ClientId(number)), Instant::now())
    }

    async fn next(&mut self) -> Arrival {
        let arrival = async {
            loop {
                if let Some(arrival) = self.transports.poll(Instant::now()) {
                    return arrival;
                }
                self.transports.ready().await;
            }
        };
        tokio::time::timeout(PATIENCE, arrival).await.expect("something arrives")
    }

    /// What the next request is about, and where it came from.
    async fn message(&mut self) -> (u64, Flow) {
        match self.next().await {
            Arrival::Message { message, flow, .. } => (u64::from(message.cseq().expect("a number").number), flow),
            other => panic!("no message but {other:?}"),
        }
    }

    async fn failure(&mut self) -> (ClientId, String) {
        match self.next().await {
            Arrival::Failed { client, error } => (client, error),
            other => panic!("no failure but {other:?}"),
        }
    }
}

/// The next thing that comes to one of two, while both work.
async fn both<'a>(one: &'a mut Side, two: &'a mut Side) -> (bool, Arrival) {
    tokio::select! {
        arrival = one.next() => (true, arrival),
        arrival = two.next() => (false, arrival),
    }
}

/// One request from a side to another: its number arrives; or why it does not.
async fn carry(from: &mut Side, to: &mut Side, flow: Flow, peer: Option<&Peer>, number: u64) -> Result<Flow, String> {
    from.request(flow, peer, number)?;
    match both(from, to).await {
        (false, Arrival::Message { message, flow, .. }) => {
            assert_eq!(u64::from(message.cseq().expect("a number").number), number);
            Ok(flow)
        }
        (true, Arrival::Failed { client, error }) => {
            assert_eq!(client, ClientId(number));
            Err(error)
        }
        (_, other) => panic!("neither: {other:?}"),
    }
}

fn request(number: u64, via_parameters: &str) -> Bytes {
    Bytes::from(format!(
        "OPTIONS sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:5999;branch=z9hG4bK{number}{via_parameters}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: {number}\r\n\
         CSeq: {number} OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ))
}

fn peer(domain: &str) -> Peer {
    Peer { domain: domain.into(), path: "/".into() }
}

/// A flow to a peer that has to prove who it is.
fn flow_to(transport: Transport, remote: SocketAddr, number: u32) -> Flow {
    Flow { peer: Some(PeerId(number.try_into().expect("a number above 0"))), ..Flow::to(transport, remote) }
}

// --- certificates ----------------------------------------------------------------------------------------------------

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sipwire-transports-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a temporary folder");
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate and its key, in PEM.
struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Pair {
    /// Both in one text.
    fn pem(&self) -> String {
        self.certificate.pem() + &self.key.serialize_pem()
    }
}

/// An authority of ours.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        Pair { certificate: params.signed_by(&key, &self.issuer).expect("a certificate"), key }
    }

    /// For a name.
    fn certify(&self, name: &str) -> Pair {
        self.sign(&params(&[dns(name)]))
    }
}

fn params(names: &[SanType]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a test");
    params.subject_alt_names = names.to_vec();
    params
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("ASCII"))
}
