//! Which transaction a message belongs to (RFC 3261 §17.1.3, §17.2.3).

use std::net::SocketAddr;

use sha1::{Digest, Sha1};

use super::super::headers::Via;
use super::super::message::{HeaderName, Message, Method};
use super::super::transport::{Flow, Transport};

/// What a branch of RFC 3261 begins with (§8.1.1.7); without it the rules of RFC 2543 hold.
const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// Longer keys are kept as their digest, so that a peer cannot store its 64 kB branch in our table 262,144 times.
const MAX_KEY: usize = 256;

/// The method under which a request's transaction is filed: an ACK looks for its INVITE (§17.2.3).
fn filed_under(method: &Method) -> &Method {
    if *method == Method::Ack { &Method::Invite } else { method }
}

/// Writes the key of branch, sent-by and method: the client's key, and the server's when the branch has the cookie.
/// Only branches are compared to the letter; host names are not (§7.3.1, §19.1.4).
fn write_branch_key(key: &mut Vec<u8>, via: &Via<'_>, branch: &[u8], method: &Method) {
    key.extend_from_slice(method_text(method).as_bytes());
    key.push(0);
    key.extend_from_slice(branch);
    key.push(0);
    key.extend(via.host.iter().map(u8::to_ascii_lowercase));
    let default = if via.transport.eq_ignore_ascii_case(b"TLS") { 5061 } else { 5060 };
    key.extend_from_slice(&via.port.unwrap_or(default).to_be_bytes());
}

fn shorten(key: &mut Vec<u8>) {
    if key.len() > MAX_KEY {
        let digest = Sha1::digest(&key);
        key.clear();
        key.extend_from_slice(&digest);
    }
}

/// Writes the key of a client transaction, from its request or from a response to it. False when the message has no
/// readable top Via with a branch.
///
/// The sent-by is part of it: a response whose top Via is not the one we wrote is not ours (§18.1.2).
pub(super) fn write_client_key(key: &mut Vec<u8>, message: &Message, method: &Method) -> bool {
    key.clear();
    let Ok(via) = message.top_via() else { return false };
    let Some(branch) = via.branch().filter(|branch| !branch.is_empty()) else { return false };
    write_branch_key(key, &via, branch, method);
    shorten(key);
    true
}

/// True when the request is from before RFC 3261: its branch, if any, does not name the transaction.
pub(super) fn is_legacy(request: &Message) -> bool {
    !request.top_via().ok().and_then(|via| via.branch()).is_some_and(|branch| branch.starts_with(MAGIC_COOKIE))
}

/// Writes the key of the server transaction a request belongs to, as if its method were `method`. False when the headers
/// it needs cannot be read. `to_tag` replaces the request's own in RFC 2543 matching, where an ACK bears the tag of our
/// response (§17.2.3).
pub(super) fn write_server_key(key: &mut Vec<u8>, request: &Message, method: &Method, to_tag: Option<&[u8]>) -> bool {
    key.clear();
    let method = filed_under(method);
    let Ok(via) = request.top_via() else { return false };
    match via.branch() {
        Some(branch) if branch.starts_with(MAGIC_COOKIE) => write_branch_key(key, &via, branch, method),
        _ => {
            let (Ok(from), Ok(to), Ok(call_id), Ok(cseq)) =
                (request.from(), request.to(), request.call_id(), request.cseq())
            else {
                return false;
            };
            let top_via = request.header_values(HeaderName::Via).next().unwrap_or_default();
            let to_tag = to_tag.unwrap_or_else(|| to.tag().unwrap_or_default());
            key.extend_from_slice(method_text(method).as_bytes());
            for part in [request.request_uri_raw(), to_tag, from.tag().unwrap_or_default(), call_id, top_via] {
                key.push(0);
                key.extend_from_slice(part);
            }
            key.push(0);
            key.extend_from_slice(&cseq.number.to_be_bytes());
        }
    }
    shorten(key);
    true
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

/// The method as it is written.
pub(super) fn method_text(method: &Method) -> &str {
    match method {
        Method::Invite => "INVITE",
        Method::Ack => "ACK",
        Method::Bye => "BYE",
        Method::Cancel => "CANCEL",
        Method::Options => "OPTIONS",
        Method::Register => "REGISTER",
        Method::Prack => "PRACK",
        Method::Update => "UPDATE",
        Method::Info => "INFO",
        Method::Message => "MESSAGE",
        Method::Subscribe => "SUBSCRIBE",
        Method::Notify => "NOTIFY",
        Method::Publish => "PUBLISH",
        Method::Refer => "REFER",
        Method::Other(text) => text,
    }
}
