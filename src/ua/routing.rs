//! From the application's routes, or a URI, to flows: the way a request takes through all that it may be sent to
//! (rulings R5, R8, R19, RFC 3263 §4.3).

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::core::Core;
use super::locate::{Answer, Families, Locator, Next, Question};
use super::{Output, QueryId, VerbError};
use crate::event::{AccountId, RequestId, Route, SessionId};
use crate::sip::transport::{Flow, PeerId, Transport};
use crate::sip::uri::Uri;

/// How long one question may take (reliability row 51).
pub const QUESTION_PATIENCE: Duration = Duration::from_secs(2);
/// How long all questions about one route or URI may take together.
pub const LOCATION_PATIENCE: Duration = Duration::from_secs(5);

/// Who asked the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Session(SessionId),
    Exchange(RequestId),
    Lookup(RequestId),
}

/// Questions that the resolver has not answered.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    open: BTreeMap<QueryId, (Asker, Question)>,
}

impl Queries {
    pub fn take(&mut self, query: QueryId) -> Option<(Asker, Question)> {
        self.open.remove(&query)
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

/// What is tried in its turn.
#[derive(Debug)]
enum Goal {
    Route(Route),
    /// Each hop it leads to is a route of its own.
    Uri(Box<Locator>),
}

/// The way through a list of routes: each route's addresses in turn, then the next route.
#[derive(Debug)]
pub(crate) struct RouteWalk {
    goals: VecDeque<Goal>,
    current: Option<Route>,
    locator: Option<Box<Locator>>,
    /// The hops of the locator become routes.
    by_uri: bool,
    /// The next hop goes out as soon as it is known.
    waiting: bool,
    deadline: Option<Instant>,
}

/// Where a walk stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send here.
    To(Flow),
    /// The resolver was asked; or its answer is not needed yet.
    Asked,
    /// This route or URI leads nowhere (any more), for this reason if no address of it was found; from
    /// [`RouteWalk::next`]: none is left.
    Exhausted(Option<String>),
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
        if routes.is_empty() {
            return Err(VerbError::BadArgument("routes is empty".into()));
        }
        let current = routes.first().cloned();
        Ok(Self { current, ..Self::through(routes.into_iter().map(Goal::Route)) })
    }

    /// The way to a URI: over the account's outbound proxy when it has one, else where RFC 3263 leads.
    ///
    /// # Errors
    /// As [`Self::new`], or when no transport for the URI is there.
    pub fn locate(uri: &Uri, account: AccountId, core: &Core) -> Result<Self, VerbError> {
        let account = core.accounts.get(account);
        if let Some(proxy) = account.and_then(|account| account.outbound_proxy.clone()) {
            return Self::new(vec![proxy], core);
        }
        let wanted = account.map(|account| account.transports.clone()).unwrap_or_default();
        Self::towards(None, uri, &wanted, core)
    }

    /// Where RFC 3263 leads, after one try at a route that worked before.
    ///
    /// # Errors
    /// [`VerbError::BadArgument`] when no transport for the URI is there.
    pub fn towards(before: Option<Route>, uri: &Uri, wanted: &[Transport], core: &Core) -> Result<Self, VerbError> {
        let locator = core.locator(uri, wanted)?;
        let goals = before.map(Goal::Route).into_iter().chain([Goal::Uri(Box::new(locator))]);
        Ok(Self::through(goals))
    }

    /// Along the routes given; without any, where the URI leads.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Self::locate`].
    pub fn to(routes: Vec<Route>, uri: &Uri, account: AccountId, core: &Core) -> Result<Self, VerbError> {
        if routes.is_empty() { Self::locate(uri, account, core) } else { Self::new(routes, core) }
    }

    fn through(goals: impl IntoIterator<Item = Goal>) -> Self {
        Self {
            goals: goals.into_iter().collect(),
            current: None,
            locator: None,
            by_uri: false,
            waiting: false,
            deadline: None,
        }
    }

    /// The route in use now; `None` until a URI has been located.
    pub fn current(&self) -> Option<&Route> {
        self.current.as_ref()
    }

    /// True while another route or URI is to come after this one.
    pub fn has_further_goal(&self) -> bool {
        !self.goals.is_empty()
    }

    /// Starts on the first route.
    pub fn start(&mut self, asker: Asker, core: &mut Core, now: Instant) -> Step {
        self.next(asker, core, now)
    }

    /// Goes on to the next address, or to the next route.
    pub fn next(&mut self, asker: Asker, core: &mut Core, now: Instant) -> Step {
        match self.step(asker, core, now) {
            Step::Exhausted(_) => {}
            step => return step,
        }
        let Some(goal) = self.goals.pop_front() else { return Step::Exhausted(None) };
        self.deadline = Some(now + LOCATION_PATIENCE);
        self.by_uri = matches!(goal, Goal::Uri(_));
        self.locator = Some(match goal {
            Goal::Uri(locator) => locator,
            Goal::Route(route) => {
                let Route { address, port, transport, .. } = &route;
                let locator = Locator::for_host(address, *port, *transport, core.families(*transport));
                self.current = Some(route);
                Box::new(locator)
            }
        });
        self.step(asker, core, now)
    }

    /// Takes the resolver's answer.
    pub fn resolved(
        &mut self,
        question: &Question,
        answer: Result<Answer, String>,
        asker: Asker,
        core: &mut Core,
        now: Instant,
    ) -> Step {
        if let Some(locator) = &mut self.locator {
            locator.handle_answer(question, answer, &mut core.random);
        }
        // An answer about a later hop is kept for the time when it is needed.
        if self.waiting { self.step(asker, core, now) } else { self.ask(asker, core, now) }
    }

    fn step(&mut self, asker: Asker, core: &mut Core, now: Instant) -> Step {
        self.ask(asker, core, now);
        let Some(locator) = &mut self.locator else { return Step::Exhausted(None) };
        let next = locator.next_hop();
        self.waiting = next == Next::Waiting;
        match next {
            Next::Waiting => Step::Asked,
            Next::Over(why) => Step::Exhausted(why),
            Next::Hop(hop) => {
                if self.by_uri {
                    self.current = Some(Route::new(hop.remote.ip().to_string(), hop.remote.port(), hop.transport));
                }
                let path = self.current.as_ref().and_then(|route| route.path.as_deref());
                let peer = core.peer_of(locator.domain(), hop.transport, hop.remote.ip(), path);
                Step::To(Flow { peer, ..Flow::to(hop.transport, hop.remote) })
            }
        }
    }

    /// Passes the questions on, those there is no time for excepted.
    fn ask(&mut self, asker: Asker, core: &mut Core, now: Instant) -> Step {
        let (Some(locator), Some(deadline)) = (&mut self.locator, self.deadline) else { return Step::Asked };
        core.ask(locator, asker, deadline, now);
        Step::Asked
    }
}

impl Core {
    /// The families this engine has sockets of a transport for.
    pub fn families(&self, transport: Transport) -> Families {
        Families::of(self.config.local.iter().filter(|(of, _)| *of == transport).map(|(_, address)| address.ip()))
    }

    /// The start of a location.
    ///
    /// # Errors
    /// [`VerbError::BadArgument`] when the URI has no host or needs a transport that is not there.
    pub fn locator(&self, uri: &Uri, wanted: &[Transport]) -> Result<Locator, VerbError> {
        let mut have: Vec<(Transport, Families)> = Vec::new();
        for (transport, _) in &self.config.local {
            if !have.iter().any(|(known, _)| known == transport) {
                have.push((*transport, self.families(*transport)));
            }
        }
        Locator::for_uri(uri, wanted, &have).map_err(VerbError::BadArgument)
    }

    /// Passes the questions of a location on to the resolver, with what is left of its time.
    pub fn ask(&mut self, locator: &mut Locator, asker: Asker, deadline: Instant, now: Instant) {
        while let Some(question) = locator.poll_question() {
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                let late = format!("no answer within {} s", LOCATION_PATIENCE.as_secs());
                locator.handle_answer(&question, Err(late), &mut self.random);
                continue;
            }
            let query = QueryId(self.next_id());
            self.queries.open.insert(query, (asker, question.clone()));
            self.outputs.push_back(Output::Resolve { query, question, patience: left.min(QUESTION_PATIENCE) });
        }
    }

    /// Who a connection of this transport has to reach: the SIP domain as it was before any look-up (RFC 5922 §7.1), and
    /// the resource of a WebSocket. An address stands for itself.
    fn peer_of(
        &mut self,
        domain: Option<&str>,
        transport: Transport,
        ip: IpAddr,
        path: Option<&str>,
    ) -> Option<PeerId> {
        if !matches!(transport, Transport::Tls | Transport::Ws | Transport::Wss) {
            return None;
        }
        match (domain, path.filter(|path| *path != "/")) {
            (Some(domain), path) => Some(self.peers.id(domain, path.unwrap_or("/"))),
            (None, Some(path)) => Some(self.peers.id(&ip.to_string(), path)),
            (None, None) => None,
        }
    }
}
