//! Which transaction a message belongs to (RFC 3261 §17.1.3, §17.2.3).

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::net::SocketAddr;

use super::super::headers::Via;
use super::super::message::{HeaderName, Message, Method};
use super::super::transport::{Flow, Transport};

/// What a branch of RFC 3261 begins with (§8.1.1.7); without it the rules of RFC 2543 hold.
const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// The name of a transaction: 128 bits of keyed hash over what identifies it. However long a peer's branch, it takes
/// 16 bytes; and without the key of this table nobody can make two names meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u64; 2]);

/// Makes the keys of one table.
#[derive(Debug, Default)]
pub(super) struct Keys {
    secrets: [RandomState; 2],
}

struct KeyWriter([DefaultHasher; 2]);

impl KeyWriter {
    fn part(&mut self, part: &[u8]) {
        for hasher in &mut self.0 {
            hasher.write_usize(part.len()); // so that the parts cannot run into each other
            hasher.write(part);
        }
    }

    fn number(&mut self, number: u32) {
        self.0.iter_mut().for_each(|hasher| hasher.write_u32(number));
    }

    /// Branch, sent-by and method. Branches are compared to the letter; host names are not (RFC 3261 §7.3.1, §19.1.4).
    fn branch(&mut self, via: &Via<'_>, branch: &[u8], method: &Method) {
        self.part(method.as_str().as_bytes());
        self.part(branch);
        for hasher in &mut self.0 {
            via.host.iter().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
        }
        let default = if via.transport.eq_ignore_ascii_case(b"TLS") { Transport::Tls } else { Transport::Udp };
        self.number(u32::from(via.port.unwrap_or(default.default_port())));
    }

    fn finish(self) -> Key {
        Key(self.0.map(|hasher| hasher.finish()))
    }
}

impl Keys {
    fn writer(&self) -> KeyWriter {
        KeyWriter([self.secrets[0].build_hasher(), self.secrets[1].build_hasher()])
    }

    /// The client transaction of a request of ours, or of a response to it. `None` when the message has no readable top
    /// Via with a branch.
    ///
    /// The sent-by counts: a response whose top Via is not the one we wrote is not ours (§18.1.2).
    pub fn client(&self, message: &Message, method: &Method) -> Option<Key> {
        let via = message.top_via().ok()?;
        let branch = via.branch().filter(|branch| !branch.is_empty())?;
        let mut writer = self.writer();
        writer.branch(&via, branch, method);
        Some(writer.finish())
    }

    /// The server transaction a request belongs to, as if its method were `method`; an ACK looks for its INVITE (§17.2.3).
    /// `None` when the headers that takes cannot be read. `to_tag` replaces the request's own in RFC 2543 matching, where
    /// an ACK bears the tag of our response.
    pub fn server(&self, request: &Message, method: &Method, to_tag: Option<&[u8]>) -> Option<Key> {
        let method = if *method == Method::Ack { &Method::Invite } else { method };
        let via = request.top_via().ok()?;
        let mut writer = self.writer();
        match via.branch() {
            Some(branch) if branch.starts_with(MAGIC_COOKIE) => writer.branch(&via, branch, method),
            _ => {
                let (from, to, cseq) = (request.from().ok()?, request.to().ok()?, request.cseq().ok()?);
                writer.part(method.as_str().as_bytes());
                writer.part(request.request_uri_raw());
                writer.part(to_tag.unwrap_or_else(|| to.tag().unwrap_or_default()));
                writer.part(from.tag().unwrap_or_default());
                writer.part(request.call_id().ok()?);
                writer.part(request.header_values(HeaderName::Via).next().unwrap_or_default());
                writer.number(cseq.number);
            }
        }
        Some(writer.finish())
    }
}

/// True when the request is from before RFC 3261: its branch, if any, does not name the transaction.
pub(super) fn is_legacy(request: &Message) -> bool {
    !request.top_via().ok().and_then(|via| via.branch()).is_some_and(|branch| branch.starts_with(MAGIC_COOKIE))
}

/// Where the responses to a request go: back over its connection; on UDP to the address it came from, and there to the
/// port it came from when its Via has `rport` (RFC 3581 §4), else to the port of its Via (RFC 3261 §18.2.2).
///
/// Nothing a Via names as another host (sent-by, `maddr`, `received`) is ever a destination.
pub fn reply_flow(request: &Message, flow: Flow) -> Flow {
    if flow.transport != Transport::Udp {
        return flow;
    }
    match request.top_via() {
        Ok(via) if via.params.get("rport").is_none() => {
            let port = via.port.filter(|port| *port != 0).unwrap_or(Transport::Udp.default_port());
            Flow { remote: SocketAddr::new(flow.remote.ip(), port), ..flow }
        }
        _ => flow,
    }
}
