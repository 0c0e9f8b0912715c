//! From the application's routes to flows: addresses at once, host names through the resolver (rulings R5, R8, R19).

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::core::Core;
use super::{Output, QueryId, VerbError};
use crate::event::{RequestId, Route, SessionId};
use crate::sip::transport::Flow;

/// Addresses of one host name that are tried: enough for any pool of proxies, and 8 × 32 s is patience enough.
const MAX_ADDRESSES: usize = 8;

/// Who asked the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Session(SessionId),
    Exchange(RequestId),
}

/// Questions that the resolver has not answered.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    open: BTreeMap<QueryId, Asker>,
}

impl Queries {
    pub fn take(&mut self, query: QueryId) -> Option<Asker> {
        self.open.remove(&query)
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

/// The way through a list of routes: each route's addresses in turn, then the next route.
#[derive(Debug)]
pub(crate) struct RouteWalk {
    routes: VecDeque<Route>,
    current: Route,
    addresses: VecDeque<IpAddr>,
}

/// Where a walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send here.
    To(Flow),
    /// The resolver was asked.
    Asked,
    /// No address is left on this route.
    Exhausted,
}

impl RouteWalk {
    /// # Errors
    /// [`VerbError::BadArgument`] without routes (ruling R8), or for one whose transport or address cannot be used.
    pub fn new(routes: Vec<Route>, core: &Core) -> Result<Self, VerbError> {
        for route in &routes {
            if core.local_address(route.transport, None).is_none() {
                return Err(VerbError::BadArgument(format!(
                    "route {}:{} needs transport {}, which this engine does not listen on",
                    route.address, route.port, route.transport
                )));
            }
            if route.address.is_empty() || route.port == 0 {
                return Err(VerbError::BadArgument(format!(
                    "route {:?} port {} is no destination",
                    route.address, route.port
                )));
            }
        }
        let mut routes = VecDeque::from(routes);
        let current = routes.pop_front().ok_or_else(|| VerbError::BadArgument("routes is empty".into()))?;
        Ok(Self { routes, current, addresses: VecDeque::new() })
    }

    /// The route in use now.
    pub fn current(&self) -> &Route {
        &self.current
    }

    /// Starts on the current route.
    pub fn start(&mut self, asker: Asker, core: &mut Core) -> Step {
        match numeric(&self.current.address) {
            Some(ip) => Step::To(self.flow(ip)),
            None => {
                let query = QueryId(core.next_id());
                core.queries.open.insert(query, asker);
                core.outputs.push_back(Output::Resolve { query, host: self.current.address.clone() });
                Step::Asked
            }
        }
    }

    /// Takes the resolver's answer.
    pub fn resolved(&mut self, addresses: Vec<IpAddr>) -> Step {
        self.addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
        self.next_address()
    }

    /// The current route's next address.
    pub fn next_address(&mut self) -> Step {
        match self.addresses.pop_front() {
            Some(ip) => Step::To(self.flow(ip)),
            None => Step::Exhausted,
        }
    }

    /// Goes on to the next route; false when there is none.
    pub fn next_route(&mut self) -> bool {
        self.addresses.clear();
        match self.routes.pop_front() {
            Some(route) => {
                self.current = route;
                true
            }
            None => false,
        }
    }

    fn flow(&self, ip: IpAddr) -> Flow {
        Flow::to(self.current.transport, SocketAddr::new(ip, self.current.port))
    }
}

/// An address as people write it: IPv6 with or without brackets.
fn numeric(address: &str) -> Option<IpAddr> {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    bare.parse().ok()
}
