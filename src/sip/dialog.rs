//! Dialogs (RFC 3261 §12): the state two user agents share, and the requests sent inside it.
//!
//! A dialog is *early* when a provisional response made it and *confirmed* once a 2xx did; the difference only matters to
//! its owner. Values that came from the peer are kept as the bytes they came in and written back unchanged.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::build::Builder;
use super::headers::NameAddr;
use super::message::{HeaderName, Message, Method};
use super::transport::{Flow, Transport};
use super::uri::{Host, Uri};

/// More Record-Route entries than any real path has; a message with more makes no dialog.
const MAX_ROUTE_SET: usize = 32;

/// Hops a request of ours may take (RFC 3261 §8.1.1.6).
pub const MAX_FORWARDS: u8 = 70;

/// Why a message makes no dialog; the text names the header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DialogError(pub String);

/// One dialog, seen from our side.
#[derive(Clone, Debug)]
pub struct Dialog {
    call_id: Box<[u8]>,
    local_tag: Box<str>,
    /// Empty when the peer gave none (RFC 2543).
    remote_tag: Box<[u8]>,
    /// From of our requests, with our tag.
    local: Box<[u8]>,
    /// To of our requests, with the peer's tag.
    remote: Box<[u8]>,
    local_seq: u32,
    remote_seq: Option<u32>,
    target: Uri,
    routes: Vec<Box<[u8]>>,
    /// Made by a `sips:` request over TLS (RFC 3261 §12.1.1): everything in it stays on TLS.
    secure: bool,
    /// The path the dialog's messages took so far.
    flow: Flow,
    /// Begun by a request of ours.
    ours: bool,
}

impl Dialog {
    /// The UAC's side, from a response to our INVITE that makes a dialog (RFC 3261 §12.1.2); it repeats our From, Call-ID
    /// and CSeq. `flow` is where it came from. A response without a usable Contact is answered at the URI of its To.
    ///
    /// # Errors
    /// When its headers cannot be read.
    pub fn uac(response: &Message, flow: Flow) -> Result<Self, DialogError> {
        let from = response.from().map_err(|error| DialogError(error.what))?;
        let to = response.to().map_err(|error| DialogError(error.what))?;
        let callee = to.uri().map_err(|error| DialogError(format!("To: {error}")))?;
        let secure = callee.is_secure() && is_secure(flow.transport);
        let mut routes = route_set(response)?;
        routes.reverse();
        Ok(Self {
            call_id: response.call_id().map_err(|error| DialogError(error.what))?.into(),
            local_tag: String::from_utf8_lossy(from.tag().unwrap_or_default()).into(),
            remote_tag: to.tag().unwrap_or_default().into(),
            local: response.header(HeaderName::From).unwrap_or_default().into(),
            remote: response.header(HeaderName::To).unwrap_or_default().into(),
            local_seq: response.cseq().map_err(|error| DialogError(error.what))?.number,
            remote_seq: None,
            target: contact(response).unwrap_or(callee),
            routes,
            secure,
            flow,
            ours: true,
        })
    }

    /// The subscriber's side, from the NOTIFY that makes the dialog (RFC 6665 §4.4.1) and the number of our SUBSCRIBE.
    ///
    /// # Errors
    /// When the request has no usable Contact or its headers cannot be read.
    pub fn uac_by_request(request: &Message, local_seq: u32, flow: Flow) -> Result<Self, DialogError> {
        let to = request.to().map_err(|error| DialogError(error.what))?;
        let local_tag = String::from_utf8_lossy(to.tag().unwrap_or_default()).into_owned();
        let secure = to.uri().is_ok_and(|uri| uri.is_secure()) && flow.transport == Transport::Tls;
        Ok(Self {
            local: request.header(HeaderName::To).unwrap_or_default().into(),
            local_seq,
            secure,
            ..Self::uas(request, &local_tag, flow)?
        })
    }

    /// The UAS's side, from a request that makes a dialog and the tag we answer it with (RFC 3261 §12.1.1).
    ///
    /// # Errors
    /// When the request has no usable Contact or its headers cannot be read.
    pub fn uas(request: &Message, local_tag: &str, flow: Flow) -> Result<Self, DialogError> {
        let from = request.from().map_err(|error| DialogError(error.what))?;
        let mut local = request.header(HeaderName::To).unwrap_or_default().to_vec();
        local.extend_from_slice(b";tag=");
        local.extend_from_slice(local_tag.as_bytes());
        Ok(Self {
            call_id: request.call_id().map_err(|error| DialogError(error.what))?.into(),
            local_tag: local_tag.into(),
            remote_tag: from.tag().unwrap_or_default().into(),
            local: local.into(),
            remote: request.header(HeaderName::From).unwrap_or_default().into(),
            local_seq: 0,
            remote_seq: Some(request.cseq().map_err(|error| DialogError(error.what))?.number),
            target: contact(request)?,
            routes: route_set(request)?,
            secure: is_secure(flow.transport) && starts_with_sips(request.request_uri_raw()),
            flow,
            ours: false,
        })
    }

    pub fn call_id(&self) -> &[u8] {
        &self.call_id
    }

    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    pub fn remote_tag(&self) -> &[u8] {
        &self.remote_tag
    }

    /// The peer's Contact: where requests of the dialog are addressed to.
    pub fn remote_target(&self) -> &Uri {
        &self.target
    }

    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// True when a request of ours began it.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// The number of the last request we sent.
    pub fn local_seq(&self) -> u32 {
        self.local_seq
    }

    /// Takes note that requests up to this number were sent outside the dialog, with its Call-ID and our tag.
    pub fn raise_local_seq(&mut self, number: u32) {
        self.local_seq = self.local_seq.max(number);
    }

    /// True for a request the peer sent inside this dialog.
    pub fn matches_request(&self, request: &Message) -> bool {
        let tag = |address: NameAddr<'_>| address.tag().unwrap_or_default().to_vec();
        request.call_id().is_ok_and(|id| id == &*self.call_id)
            && request.from().is_ok_and(|from| tag(from) == *self.remote_tag)
            && request.to().is_ok_and(|to| tag(to) == self.local_tag.as_bytes())
    }

    /// Takes the CSeq number of a request in this dialog. Gaps are legal; false for a number lower than one already seen,
    /// which is answered with 500 (RFC 3261 §12.2.2). ACK and CANCEL are not counted.
    pub fn take_remote_seq(&mut self, number: u32) -> bool {
        if self.remote_seq.is_some_and(|last| number < last) {
            return false;
        }
        self.remote_seq = Some(number);
        true
    }

    /// Goes on with the numbers of requests that an early dialog with the same tags has used up.
    pub fn continue_numbers(&mut self, early: &Self) {
        self.skip_numbers(early.local_seq);
        self.remote_seq = self.remote_seq.max(early.remote_seq);
    }

    /// Requests up to this number were sent already.
    pub fn skip_numbers(&mut self, last: u32) {
        self.local_seq = self.local_seq.max(last);
    }

    /// Takes the Contact of a target refresh (re-INVITE, UPDATE and their 2xx, RFC 3261 §12.2.1.2), and the path it came
    /// on. A message without a usable Contact changes nothing.
    pub fn refresh_target(&mut self, message: &Message, flow: Flow) {
        if let Ok(target) = contact(message) {
            self.target = target;
        }
        self.flow = flow;
    }

    /// Starts the next request of the dialog: request line, Via, Max-Forwards, Route, From, To, Call-ID, CSeq
    /// (RFC 3261 §12.2.1.1).
    pub fn request(&mut self, method: &Method, via: impl Display) -> Builder {
        self.local_seq = self.local_seq.saturating_add(1);
        self.start(method, self.local_seq, via)
    }

    /// The ACK to a 2xx of the INVITE with this CSeq number (RFC 3261 §13.2.2.4): a transaction of its own with a new
    /// branch in `via`, to be sent again for each repeated 2xx.
    pub fn ack(&self, number: u32, via: impl Display, body: Option<(&str, &[u8])>) -> Bytes {
        self.start(&Method::Ack, number, via).finish(body)
    }

    /// Where a request of this dialog goes: the address of the first route or of the remote target. A host name stands for
    /// the path the dialog took so far: its messages came from there, and a look-up could end at another machine.
    pub fn flow(&self) -> Flow {
        match self.routes.first().and_then(|route| route_uri(route)) {
            Some(first) => self.flow_to(&first),
            None => self.flow_to(&self.target),
        }
    }

    fn start(&self, method: &Method, number: u32, via: impl Display) -> Builder {
        let strict = self.strict_route();
        let mut builder = match &strict {
            Some(first) => Builder::request(method, request_line_uri(first)),
            None => Builder::request(method, request_line_uri(&self.target)),
        };
        builder = builder.header("Via", via).header("Max-Forwards", MAX_FORWARDS);
        for route in self.routes.iter().skip(usize::from(strict.is_some())) {
            builder = builder.header_bytes("Route", route);
        }
        if strict.is_some() {
            builder = builder.header("Route", format_args!("<{}>", self.target));
        }
        builder
            .header_bytes("From", &self.local)
            .header_bytes("To", &self.remote)
            .header_bytes("Call-ID", &self.call_id)
            .header("CSeq", format_args!("{number} {}", method.as_str()))
    }

    /// A first hop that is no loose router: it wants to be named in the request line (RFC 3261 §12.2.1.1).
    pub(crate) fn strict_route(&self) -> Option<Uri> {
        self.routes.first().and_then(|route| route_uri(route)).filter(|uri| uri.parameter("lr").is_none())
    }

    fn flow_to(&self, hop: &Uri) -> Flow {
        let secure = self.secure || hop.is_secure();
        let named = hop.parameter("transport").flatten().and_then(Transport::from_name);
        let transport = match named {
            _ if (self.secure || hop.is_secure()) && is_secure(self.flow.transport) => self.flow.transport,
            // URIs name both kinds of WebSocket "ws" (RFC 7118 §5.2.3): what came by the secure one goes back by it.
            Some(Transport::Ws | Transport::Wss) if secure || self.flow.transport == Transport::Wss => Transport::Wss,
            _ if secure => Transport::Tls,
            Some(transport) => transport,
            None => self.flow.transport, // the connection that is there serves better than a guess
        };
        let Some(ip) = hop_address(hop) else { return self.flow };
        let remote = SocketAddr::new(ip, hop.port.unwrap_or_else(|| transport.default_port()));
        // A peer that connected to us usually listens nowhere: its connection is used while it lasts.
        let connection = self.flow.connection.filter(|_| transport == self.flow.transport);
        let peer = self.flow.peer.filter(|_| connection.is_some() || remote == self.flow.remote);
        Flow { transport, remote, connection, peer }
    }
}

/// A transport of `sips:` (RFC 3261 §26.2, RFC 7118 §5).
fn is_secure(transport: Transport) -> bool {
    matches!(transport, Transport::Tls | Transport::Wss)
}

/// The numeric address of a hop; none for host names and for addresses a request must not go to.
fn hop_address(hop: &Uri) -> Option<IpAddr> {
    let ip = match &hop.host {
        Some(Host::Ip(ip)) => *ip,
        Some(Host::Name(_)) | None => return None,
    };
    let unusable = ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255; 4]);
    (!unusable).then_some(ip)
}

/// A URI as a request line may carry it: without headers and `method` (RFC 3261 §19.1.1, table 1).
pub(crate) fn request_line_uri(uri: &Uri) -> Uri {
    let mut uri = uri.clone();
    uri.headers.clear();
    uri.parameters.retain(|(name, _)| !name.eq_ignore_ascii_case("method"));
    uri
}

fn route_uri(route: &[u8]) -> Option<Uri> {
    NameAddr::parse(route)?.uri().ok().filter(Uri::is_sip)
}

fn route_set(message: &Message) -> Result<Vec<Box<[u8]>>, DialogError> {
    let routes: Vec<Box<[u8]>> =
        message.header_values(HeaderName::RecordRoute).take(MAX_ROUTE_SET + 1).map(Into::into).collect();
    if routes.len() > MAX_ROUTE_SET {
        return Err(DialogError(format!("more than {MAX_ROUTE_SET} Record-Route entries")));
    }
    match routes.iter().find(|route| route_uri(route).is_none()) {
        Some(route) => Err(DialogError(format!("Record-Route {:?} is no SIP URI", String::from_utf8_lossy(route)))),
        None => Ok(routes),
    }
}

fn contact(message: &Message) -> Result<Uri, DialogError> {
    let contact = message.contact().map_err(|error| DialogError(error.what))?;
    let contact = contact.ok_or_else(|| DialogError("no Contact header".into()))?;
    let uri = contact.uri().map_err(|error| DialogError(format!("Contact: {error}")))?;
    if uri.is_sip() { Ok(uri) } else { Err(DialogError(format!("Contact {uri} is no SIP URI"))) }
}

fn starts_with_sips(uri: &[u8]) -> bool {
    uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "198.51.100.1:5060";

    fn message(start: &str, more: &str) -> Message {
        let text = format!(
            "{start}\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nFrom: Bob <sip:bob@b.example>;tag=theirs\r\n\
             To: \"A\" <sip:alice@a.example>;x=1\r\nCall-ID: id\r\nCSeq: 7 INVITE\r\n{more}Content-Length: 0\r\n\r\n"
        );
        Message::parse(text.into_bytes().into()).expect("a message")
    }

    fn invite(more: &str) -> Message {
        message("INVITE sip:alice@a.example SIP/2.0", more)
    }

    fn flow(transport: Transport) -> Flow {
        Flow::to(transport, PEER.parse().expect("an address"))
    }

    fn uas(more: &str, transport: Transport) -> Dialog {
        Dialog::uas(&invite(more), "ours", flow(transport)).expect("a dialog")
    }

    fn text(request: Bytes) -> String {
        String::from_utf8(request.to_vec()).expect("text")
    }

    #[test]
    fn requests_of_the_uas_go_through_the_route_set_in_order() {
        let more = "Record-Route: <sip:192.0.2.1;lr>, <sip:p2.example;lr>\r\nRecord-Route: <sip:p3.example;lr>\r\n\
                    Contact: <sip:bob@192.0.2.9:5070;method=INVITE?Subject=x>\r\n";
        let mut dialog = uas(more, Transport::Udp);
        let bye = text(dialog.request(&Method::Bye, "SIP/2.0/UDP h;branch=z9hG4bKx").finish(None));
        let expected = "BYE sip:bob@192.0.2.9:5070 SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nMax-Forwards: 70\r\n\
                        Route: <sip:192.0.2.1;lr>\r\nRoute: <sip:p2.example;lr>\r\nRoute: <sip:p3.example;lr>\r\n\
                        From: \"A\" <sip:alice@a.example>;x=1;tag=ours\r\nTo: Bob <sip:bob@b.example>;tag=theirs\r\n\
                        Call-ID: id\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(bye, expected);
        assert_eq!(dialog.flow().remote, "192.0.2.1:5060".parse().unwrap());
        let next = text(dialog.request(&Method::Info, "v").finish(None));
        assert!(next.contains("CSeq: 2 INFO"));
    }

    #[test]
    fn an_ack_has_the_number_of_its_invite() {
        let dialog = uas("Contact: <sip:bob@192.0.2.9>\r\n", Transport::Udp);
        assert!(text(dialog.ack(7, "v", None)).contains("CSeq: 7 ACK"));
        assert_eq!(dialog.local_seq(), 0);
    }

    #[test]
    fn numbers_may_leave_gaps_but_not_go_back() {
        let mut dialog = uas("Contact: <sip:bob@192.0.2.9>\r\n", Transport::Udp);
        let taken = [8, 1000, 999, 7, 1000, u32::MAX, 0].map(|number| dialog.take_remote_seq(number));
        assert_eq!(taken, [true, true, false, false, true, true, false]);
    }

    #[test]
    fn a_refresh_moves_the_target_and_a_bad_contact_does_not() {
        let mut dialog = uas("Contact: <sip:bob@192.0.2.9>\r\n", Transport::Udp);
        for contact in ["<tel:+1>", "garbage <", "<sip:>"] {
            dialog.refresh_target(&invite(&format!("Contact: {contact}\r\n")), flow(Transport::Udp));
            assert_eq!(dialog.remote_target().to_string(), "sip:bob@192.0.2.9", "{contact}");
        }
        dialog.refresh_target(&invite("Contact: <sip:bob@192.0.2.10>\r\n"), flow(Transport::Udp));
        assert_eq!(dialog.flow().remote, "192.0.2.10:5060".parse().unwrap());
    }

    #[test]
    fn the_next_hop_is_the_route_or_the_target_or_the_path_so_far() {
        let connection = Some(crate::sip::transport::ConnectionId(4));
        for (contact, from, expected, transport, kept) in [
            ("sip:bob@192.0.2.9", Transport::Udp, "192.0.2.9:5060", Transport::Udp, false),
            ("sip:bob@[2001:db8::1]:99", Transport::Udp, "[2001:db8::1]:99", Transport::Udp, false),
            ("sip:bob@host.example", Transport::Udp, PEER, Transport::Udp, false),
            ("sip:bob@0.0.0.0", Transport::Udp, PEER, Transport::Udp, false),
            ("sip:bob@192.0.2.9;transport=tcp", Transport::Udp, "192.0.2.9:5060", Transport::Tcp, false),
            ("sip:bob@192.0.2.9;transport=tcp", Transport::Tcp, "192.0.2.9:5060", Transport::Tcp, true),
            ("sip:bob@192.0.2.9:5080", Transport::Tcp, "192.0.2.9:5080", Transport::Tcp, true),
            ("sips:bob@192.0.2.9", Transport::Tls, "192.0.2.9:5061", Transport::Tls, true),
            ("sip:bob@192.0.2.9:443;transport=ws", Transport::Wss, "192.0.2.9:443", Transport::Wss, true),
            ("sip:bob@192.0.2.9:443;transport=ws", Transport::Ws, "192.0.2.9:443", Transport::Ws, true),
            ("sip:bob@192.0.2.9;transport=bogus", Transport::Udp, "192.0.2.9:5060", Transport::Udp, false),
        ] {
            let invite = invite(&format!("Contact: <{contact}>\r\n"));
            let arrived = Flow { connection: connection.filter(|_| from.is_reliable()), ..flow(from) };
            let dialog = Dialog::uas(&invite, "ours", arrived).expect("a dialog");
            let flow = dialog.flow();
            assert_eq!((flow.remote, flow.transport), (expected.parse().unwrap(), transport), "{contact}");
            assert_eq!(flow.connection.is_some(), kept, "{contact}");
        }
    }

    #[test]
    fn a_strict_router_takes_the_request_line_and_the_target_goes_last() {
        let more = "Record-Route: <sip:192.0.2.1>, <sip:192.0.2.2;lr>\r\nContact: <sip:bob@192.0.2.9>\r\n";
        let mut dialog = uas(more, Transport::Udp);
        let bye = text(dialog.request(&Method::Bye, "v").finish(None));
        assert!(bye.starts_with("BYE sip:192.0.2.1 SIP/2.0\r\n"));
        assert!(bye.contains("Route: <sip:192.0.2.2;lr>\r\nRoute: <sip:bob@192.0.2.9>\r\nFrom"));
    }

    #[test]
    fn messages_that_make_no_dialog() {
        for (more, why) in [
            ("", "no Contact header"),
            ("Contact: <tel:+431>\r\n", "Contact tel:+431 is no SIP URI"),
            ("Contact: <sip:b@h>\r\nRecord-Route: <http://h>\r\n", "Record-Route \"<http://h>\" is no SIP URI"),
        ] {
            let error = Dialog::uas(&invite(more), "ours", flow(Transport::Udp)).expect_err("no dialog");
            assert_eq!(error.to_string(), why);
        }
    }

    #[test]
    fn the_uac_takes_the_routes_of_the_response_in_reverse() {
        let ok = message(
            "SIP/2.0 200 OK",
            "Record-Route: <sip:192.0.2.1;lr>, <sip:192.0.2.2;lr>\r\nContact: <sip:alice@192.0.2.8>\r\n",
        );
        let mut dialog = Dialog::uac(&ok, flow(Transport::Udp)).expect("a dialog");
        assert_eq!((dialog.local_tag(), dialog.local_seq()), ("theirs", 7));
        let bye = text(dialog.request(&Method::Bye, "v").finish(None));
        assert!(bye.contains("Route: <sip:192.0.2.2;lr>\r\nRoute: <sip:192.0.2.1;lr>\r\n"), "{bye}");
        assert!(bye.contains("CSeq: 8 BYE"));
        assert!(!dialog.is_secure());
        let bare = Dialog::uac(&message("SIP/2.0 200 OK", ""), flow(Transport::Udp)).expect("a dialog");
        assert_eq!(bare.remote_target().to_string(), "sip:alice@a.example");
    }

    #[test]
    fn a_sips_dialog_stays_on_tls() {
        let request = message("INVITE sips:alice@a.example SIP/2.0", "Contact: <sip:bob@192.0.2.9;transport=tcp>\r\n");
        let dialog = Dialog::uas(&request, "ours", flow(Transport::Tls)).expect("a dialog");
        assert!(dialog.is_secure());
        assert_eq!(dialog.flow().transport, Transport::Tls);
    }
}
