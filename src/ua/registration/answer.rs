//! What a registrar's 2xx says about us (RFC 3261 §10.2.4, RFC 3608, RFC 5626, RFC 5627).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::sip::headers::{List, MAX_LIST, NameAddr, clamped};
use crate::sip::message::{HeaderName, Message};
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::{Host, Uri};

/// Routes of a Service-Route that are used; networks have two or three.
const MAX_SERVICE_ROUTE: usize = 16;
/// Seconds between keep-alives of a NAT binding in UDP and of a connection, at least and at most (RFC 5626 §4.4.1, §4.4.2).
const UDP_KEEP_ALIVE: (f64, f64) = (24.0, 29.0);
const STREAM_KEEP_ALIVE: (f64, f64) = (95.0, 120.0);
/// A registrar cannot make us send keep-alives more often than this.
const LEAST_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A 2xx, read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Granted {
    /// What we asked to be registered.
    pub contact: Uri,
    /// Seconds; 0 when our contact is gone.
    pub expires: u32,
    pub flow: Flow,
    pub service_route: Vec<String>,
    pub gruu: Option<Uri>,
    pub temp_gruu: Option<Uri>,
    pub is_outbound: bool,
    /// Seconds (RFC 5626 §10).
    flow_timer: Option<u32>,
    /// Where the registrar saw the request come from, when it says so.
    seen: Option<SocketAddr>,
    /// That is not where our Via said it came from.
    is_behind_nat: bool,
}

impl Granted {
    /// Reads the answer to a REGISTER of `contact` for `asked` seconds.
    ///
    /// The time is that of our contact, found by the name of the device, else by its URI; without one that of Expires, else
    /// what was asked for. Contacts that cannot be read are somebody else's.
    pub fn read(response: &Message, flow: Flow, contact: Uri, instance: Option<&str>, asked: u32) -> Self {
        let contacts: Vec<NameAddr<'_>> = response.contacts().take(MAX_LIST).flatten().collect();
        let ours = find_ours(&contacts, &contact, instance);
        let header = response.header(HeaderName::Expires).and_then(clamped);
        let expires = ours.and_then(NameAddr::expires).or(header).unwrap_or(asked);
        let gruu = |name| {
            let uri = Uri::parse(ours?.params.text(name)?.as_bytes()).ok()?;
            (uri.is_sip() && uri.host.is_some()).then_some(uri)
        };
        let routes = response.lines_named("Service-Route").flat_map(List::new);
        let routes = routes.take(MAX_SERVICE_ROUTE).filter(|route| NameAddr::parse(route).is_some());
        let via = response.top_via().ok();
        let seen = via.as_ref().and_then(|via| {
            let ip = via.received()?;
            let port = via.rport().flatten().or(via.port).unwrap_or(flow.transport.default_port());
            (!ip.is_unspecified() && !ip.is_multicast() && port != 0).then(|| SocketAddr::new(ip.to_canonical(), port))
        });
        let is_behind_nat = seen.is_some_and(|seen| {
            let written = via.and_then(|via| via.sent_by()).and_then(|(host, port)| Some((host.ip()?, port)));
            let is_same = |(ip, port): (IpAddr, Option<u16>)| {
                let port = port.unwrap_or(flow.transport.default_port());
                ip.to_canonical() == seen.ip() && (flow.transport != Transport::Udp || port == seen.port())
            };
            !written.is_some_and(is_same)
        });
        Self {
            expires,
            flow,
            service_route: routes.map(|route| String::from_utf8_lossy(route).into_owned()).collect(),
            gruu: gruu("pub-gruu"),
            temp_gruu: gruu("temp-gruu"),
            is_outbound: response.lists(HeaderName::Require, "outbound"),
            flow_timer: response.header_named("Flow-Timer").and_then(clamped).filter(|seconds| *seconds > 0),
            seen,
            is_behind_nat,
            contact,
        }
    }

    pub fn time(&self) -> Duration {
        Duration::from_secs(self.expires.into())
    }

    /// Our address behind a NAT: where the registrar saw us when that is not what our Contact says. `None` when it does
    /// not matter: the registrar answers over the flow, or our Contact names no address.
    ///
    /// The port of a connection is no place to call; only another address tells of a NAT there.
    pub fn seen_as(&self) -> Option<SocketAddr> {
        let seen = self.seen?;
        let ip = self.contact.host.as_ref().and_then(Host::ip)?.to_canonical();
        let port = self.contact.port.unwrap_or(self.flow.transport.default_port());
        let differs = match self.flow.transport {
            Transport::Udp => (ip, port) != (seen.ip(), seen.port()),
            _ => ip != seen.ip(),
        };
        (differs && !self.is_outbound && ip.is_ipv4() == seen.is_ipv4()).then_some(seen)
    }

    /// How often the flow has to be used so that it stays open; `None` where nothing closes it.
    pub fn keep_alive(&self, random: &mut StdRng) -> Option<Duration> {
        if let Some(seconds) = self.flow_timer {
            let upper = Duration::from_secs(seconds.into());
            return Some(upper.mul_f64(random.random_range(0.8..1.0)).max(LEAST_KEEP_ALIVE));
        }
        let (least, most) = match self.flow.transport {
            Transport::Udp if !self.is_outbound && !self.is_behind_nat => return None,
            Transport::Udp => UDP_KEEP_ALIVE,
            _ => STREAM_KEEP_ALIVE,
        };
        Some(Duration::from_secs_f64(random.random_range(least..most)))
    }
}

/// Our contact among all of an address of record: the same URI, else the same device, else the same place (registrars
/// change parameters).
fn find_ours<'a>(contacts: &'a [NameAddr<'a>], ours: &Uri, instance: Option<&str>) -> Option<&'a NameAddr<'a>> {
    let uris: Vec<Option<Uri>> = contacts.iter().map(|contact| contact.uri().ok()).collect();
    let by_uri = |fits: &dyn Fn(&Uri) -> bool| {
        let at = uris.iter().position(|uri| uri.as_ref().is_some_and(fits))?;
        contacts.get(at)
    };
    let named = instance.map(|name| format!("<{name}>"));
    let is_named = |contact: &&NameAddr<'_>| named.is_some() && contact.params.text("+sip.instance") == named;
    let same_place = |uri: &Uri| (&uri.user, &uri.host, uri.port) == (&ours.user, &ours.host, ours.port);
    by_uri(&|uri| uri == ours).or_else(|| contacts.iter().find(is_named)).or_else(|| by_uri(&same_place))
}
