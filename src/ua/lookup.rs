//! Look-ups for the application: a URI to its routes (RFC 3263), without sending anything.

use std::time::Instant;

use super::core::Core;
use super::locate::{Locator, Next};
use super::routing::{Asker, LOCATION_PATIENCE};
use super::{UserAgent, VerbError};
use crate::event::{EventKind, RequestId, Route};
use crate::sip::transport::Transport;
use crate::sip::uri::Uri;

/// One look-up on its way.
#[derive(Debug)]
pub(super) struct Lookup {
    pub locator: Locator,
    routes: Vec<Route>,
    deadline: Instant,
}

impl Lookup {
    /// Collects what is known; the event that tells of it once that is everything.
    pub fn step(&mut self, id: RequestId, core: &mut Core, now: Instant) -> Option<EventKind> {
        core.ask(&mut self.locator, Asker::Lookup(id), self.deadline, now);
        loop {
            match self.locator.next_hop() {
                Next::Waiting => return None,
                Next::Hop(hop) => {
                    self.routes.push(Route::new(hop.remote.ip().to_string(), hop.remote.port(), hop.transport));
                }
                Next::Over(why) if self.routes.is_empty() => {
                    let error = why.unwrap_or_else(|| "no address was found".into()).into();
                    return Some(EventKind::LookupDidFail { request: id, error });
                }
                Next::Over(_) => {
                    let result = std::mem::take(&mut self.routes);
                    return Some(EventKind::LookupDidSucceed { request: id, result });
                }
            }
        }
    }
}

impl UserAgent {
    /// Finds the routes to a URI, best first, over these transports; told by `LookupDidSucceed` or `LookupDidFail` within
    /// 5 s.
    ///
    /// # Errors
    /// For a URI without a host, or when this engine has none of the transports.
    pub fn lookup(&mut self, uri: &Uri, transports: &[Transport], now: Instant) -> Result<RequestId, VerbError> {
        let locator = self.core.locator(uri, transports)?;
        let id = RequestId(self.core.next_id());
        self.lookups.insert(id, Lookup { locator, routes: Vec::new(), deadline: now + LOCATION_PATIENCE });
        self.step_lookup(id, now);
        Ok(id)
    }

    pub(super) fn step_lookup(&mut self, id: RequestId, now: Instant) {
        if let Some(kind) = self.lookups.get_mut(&id).and_then(|lookup| lookup.step(id, &mut self.core, now)) {
            self.lookups.remove(&id);
            self.core.notify(kind);
        }
    }
}
