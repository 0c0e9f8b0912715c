//! Registrations (RFC 3261 §10, RFC 5626, RFC 5627, RFC 3608): one machine for each account that registers.
//!
//! ```text
//!            register             2xx                      refresh due, address changed,
//!      Off ───────────► Registering ───────► Registered     flow lost, woken up
//!       ▲                │   ▲   ▲               │  ▲  └──────────────────┐
//!       │         failure│   │   │ time is up    │  │ 2xx                 ▼
//!       │                ▼   │   │               │  └──────────────── Refreshing
//!       │              Waiting───┘               │                        │
//!       │ nothing bound  │ ▲                     │                        │ failure
//!       │◄───────────────┤ └─────────────────────┼────────────────────────┘
//!       │                │ unregister            │ unregister
//!       │    any answer  ▼                       │
//!       └───────────── Unregistering ◄───────────┘
//! ```
//!
//! 423, 439, a 3xx that may be followed and an address learned from the answer stay in Registering or Refreshing and send once
//! more; challenges are answered below, by the [`exchange`](super::exchange). `unregister` while a REGISTER is out
//! waits for its answer (RFC 3261 §10.2). Each SIPAccountWillRegister is followed by exactly one of DidSucceed, DidFail and
//! DidEnd.

mod answer;
mod backoff;
mod table;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use rand::RngExt;

use self::answer::Granted;
pub(crate) use self::table::Registrations;
use super::accounts::Binding;
use super::core::Core;
use super::exchange::{Ask, Outcome, Owner};
use super::routing::RouteWalk;
use super::{AccountSettings, Output, tokens};
use crate::event::{AccountId, EventKind, Route, Sender};
use crate::sip::digest::Credentials;
use crate::sip::headers::RetryAfter;
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::{Host, Uri};

/// The extensions of a registration (RFC 3327, RFC 5626, RFC 5627), as `Supported` lists them.
const SUPPORTED: &str = "path, outbound, gruu";
/// Where the first proxy on the way does not do outbound (439, RFC 5626 §11.6).
const SUPPORTED_WITHOUT_OUTBOUND: &str = "path, gruu";
/// Of an account without a name for this device, which outbound and GRUU need.
const SUPPORTED_WITHOUT_INSTANCE: &str = "path";
/// After a change of our address or a sleep all accounts register again, spread over this time, so that they all did
/// within two seconds (reliability row 47).
const SPREAD: Duration = Duration::from_millis(1000);

/// The state, with the data it alone has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Off,
    Registering,
    Registered {
        refresh_at: Instant,
    },
    Refreshing,
    /// `None`: until the settings change or the application asks.
    Waiting {
        retry_at: Option<Instant>,
    },
    Unregistering,
}

/// Where an account registers.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    registrar: Uri,
    proxy: Option<Route>,
}

/// What the last REGISTER was made of; with other settings another one is due.
#[derive(Clone, Debug, PartialEq)]
struct Applied {
    target: Target,
    aor: Uri,
    expires: Duration,
    instance: Option<String>,
    credentials: Option<Credentials>,
    transports: Vec<Transport>,
}

/// What the registrar holds for us.
#[derive(Clone, Debug)]
struct Bound {
    contact: Uri,
    until: Instant,
    target: Target,
}

#[derive(Debug)]
pub(crate) struct Registration {
    account: AccountId,
    state: State,
    /// The application and the settings want it registered.
    is_wanted: bool,
    /// One for the life of the account (RFC 3261 §10.2), with the last CSeq number.
    call_id: String,
    seq: u32,
    /// The least time a registrar accepted (423).
    min_expires: u32,
    /// The way there does not do outbound (439).
    no_outbound: bool,
    applied: Option<Applied>,
    bound: Option<Bound>,
    failures: u32,
    /// The settings or our address changed while a REGISTER was out: its answer is followed by another one.
    is_outdated: bool,
    /// What this attempt may do once only.
    tries: Tries,
}

/// What one attempt has used up.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    interval_raised: bool,
    address_learned: bool,
    redirects: u8,
}

/// The REGISTER to be sent, when a step asks for one.
type Next = Option<Ask>;

impl Registration {
    fn new(account: AccountId, core: &mut Core) -> Self {
        Self {
            account,
            state: State::Off,
            is_wanted: false,
            call_id: tokens::call_id(&mut core.random),
            seq: 0,
            min_expires: 0,
            no_outbound: false,
            applied: None,
            bound: None,
            failures: 0,
            is_outdated: false,
            tries: Tries::default(),
        }
    }

    fn is_off(&self) -> bool {
        self.state == State::Off
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Registered { refresh_at } => Some(refresh_at),
            State::Waiting { retry_at } => retry_at,
            State::Off | State::Registering | State::Refreshing | State::Unregistering => None,
        }
    }

    // --- verbs -------------------------------------------------------------------------------------------------------

    /// Registers now, whatever was waited for; follows changed settings.
    fn register(&mut self, core: &mut Core, now: Instant) -> Next {
        self.is_wanted = true;
        self.failures = 0;
        match self.state {
            State::Registering | State::Refreshing => {
                self.is_outdated |= self.is_changed(core);
                None
            }
            State::Unregistering => None, // goes on when the answer is there
            State::Off | State::Registered { .. } | State::Waiting { .. } => self.begin(core, now),
        }
    }

    /// Registers when the settings say something else than before.
    fn settings_changed(&mut self, core: &mut Core, now: Instant) -> Next {
        let wants = core.accounts.get(self.account).is_some_and(|settings| settings.registration.is_some());
        match (wants, self.is_wanted) {
            (false, false) => None,
            (false, true) => self.unregister(core, now),
            (true, true) if !self.is_changed(core) => None,
            (true, _) => self.register(core, now),
        }
    }

    fn unregister(&mut self, core: &mut Core, now: Instant) -> Next {
        self.is_wanted = false;
        match self.state {
            State::Off | State::Registering | State::Refreshing | State::Unregistering => None,
            State::Registered { .. } | State::Waiting { .. } => self.begin_unregister(core, now),
        }
    }

    /// Ends without another word to the registrar.
    fn abandon(&mut self, core: &mut Core, now: Instant) {
        self.is_wanted = false;
        if !self.is_off() {
            self.ended(core, now);
        }
    }

    // --- what happens ------------------------------------------------------------------------------------------------

    fn handle_timeout(&mut self, core: &mut Core, now: Instant) -> Next {
        match self.next_timeout() {
            Some(at) if at <= now => self.begin(core, now),
            _ => None,
        }
    }

    /// Our address is another one, or the machine slept: what the registrar holds may be worth nothing.
    fn handle_upheaval(&mut self, core: &mut Core, now: Instant) {
        let soon = now + SPREAD.mul_f64(core.random.random());
        self.failures = 0;
        match &mut self.state {
            State::Registered { refresh_at } => *refresh_at = soon.min(*refresh_at),
            State::Waiting { retry_at: Some(retry_at) } => *retry_at = soon.min(*retry_at),
            State::Registering | State::Refreshing => self.is_outdated = true,
            State::Off | State::Waiting { retry_at: None } | State::Unregistering => {}
        }
    }

    /// The connection we were registered over is gone (RFC 5626 §4.4.1, §4.5).
    fn handle_flow_failed(&mut self, core: &mut Core, now: Instant) {
        if let State::Registered { refresh_at } = &mut self.state {
            *refresh_at = (now + backoff::soon(&mut core.random)).min(*refresh_at);
        }
    }

    fn handle_outcome(&mut self, outcome: &Outcome, core: &mut Core, now: Instant) -> Next {
        self.seq = outcome.seq;
        if self.state == State::Unregistering {
            return self.ended(core, now); // whatever the answer is: the binding runs out by itself
        }
        let granted = match (outcome.code, &outcome.response) {
            (200..=299, Some((response, flow))) => Some(self.read(response, *flow, core)),
            _ => None,
        };
        if !self.is_wanted {
            if let Some(granted) = granted {
                self.note_bound(&granted, now);
            }
            return self.begin_unregister(core, now);
        }
        if std::mem::take(&mut self.is_outdated) {
            if let Some(granted) = granted {
                self.note_bound(&granted, now);
            }
            self.tries = Tries::default();
            return self.attempt(core, now);
        }
        match granted {
            Some(granted) => self.granted(granted, core, now),
            None => self.refused(outcome, core, now),
        }
    }

    // --- registering -------------------------------------------------------------------------------------------------

    fn is_changed(&self, core: &Core) -> bool {
        let wanted = core.accounts.get(self.account).and_then(Applied::of);
        wanted != self.applied
    }

    /// Begins an attempt: posts WillRegister.
    fn begin(&mut self, core: &mut Core, now: Instant) -> Next {
        let Some(applied) = core.accounts.get(self.account).and_then(Applied::of) else {
            return self.begin_unregister(core, now); // the settings do not ask for it any more
        };
        let elsewhere = self.bound.as_ref().is_some_and(|bound| bound.target != applied.target && bound.until > now);
        if elsewhere {
            return self.begin_unregister(core, now); // and on to the new place from there
        }
        self.tries = Tries::default();
        self.post(EventKind::AccountWillRegister, core);
        self.attempt(core, now)
    }

    /// One REGISTER of an attempt, to where the settings say.
    fn attempt(&mut self, core: &mut Core, now: Instant) -> Next {
        let Some(applied) = core.accounts.get(self.account).and_then(Applied::of) else {
            return self.begin_unregister(core, now);
        };
        let target = applied.target.clone();
        self.applied = Some(applied);
        self.send(target, core, now)
    }

    fn send(&mut self, target: Target, core: &mut Core, now: Instant) -> Next {
        let bound = self.bound.as_ref().filter(|bound| bound.until > now);
        let (state, old) = match bound {
            Some(bound) => (State::Refreshing, Some(bound.contact.clone())),
            None => (State::Registering, None),
        };
        self.state = state;
        let applied = self.applied.as_ref()?;
        let expires = self.min_expires.max(whole_seconds(applied.expires));
        let instance = applied.instance.clone();
        let reg_id = if self.no_outbound { "" } else { ";reg-id=1" };
        let parameters = instance.as_ref().map(|name| format!(";+sip.instance=\"<{name}>\"{reg_id}"));
        if let Some(registering) = core.accounts.registering_mut(self.account) {
            registering.parameters = parameters.unwrap_or_default();
            (registering.exact, registering.old) = (None, old);
        }
        match self.ask(&target, expires, instance.is_some(), core) {
            Ok(ask) => Some(ask),
            Err(error) => {
                self.failed(503, &error, None, core, now);
                None
            }
        }
    }

    fn ask(&self, target: &Target, expires: u32, has_instance: bool, core: &Core) -> Result<Ask, String> {
        let settings = core.accounts.get(self.account).ok_or("the account is gone")?;
        let walk = match &target.proxy {
            Some(proxy) => RouteWalk::new(vec![proxy.clone()], core),
            None => RouteWalk::towards(self.known_server(target, core), &target.registrar, &settings.transports, core),
        };
        let walk = walk.map_err(|error| error.to_string())?;
        let supported = match (has_instance, self.no_outbound) {
            (true, false) => SUPPORTED,
            (true, true) => SUPPORTED_WITHOUT_OUTBOUND,
            (false, _) => SUPPORTED_WITHOUT_INSTANCE,
        };
        Ok(Ask {
            owner: Owner::Registration(self.account),
            account: self.account,
            method: Method::Register,
            uri: target.registrar.clone(),
            to: Some(settings.uri.clone()),
            call: Some((self.call_id.clone(), self.seq)),
            tag: None,
            route_set: Vec::new(),
            headers: vec![("Expires", expires.to_string()), ("Supported", supported.to_owned())],
            with_contact: true,
            body: None,
            walk,
        })
    }

    /// The server of a name that holds our binding: registrars with several need not share what they know.
    fn known_server(&self, target: &Target, core: &Core) -> Option<Route> {
        let is_name = matches!(target.registrar.host, Some(Host::Name(_)));
        let is_good = self.failures == 0 && self.bound.as_ref().is_none_or(|bound| bound.target == *target);
        let flow = core.accounts.binding(self.account).filter(|_| is_name && is_good)?.flow;
        Some(Route::new(flow.remote.ip().to_string(), flow.remote.port(), flow.transport))
    }

    fn read(&self, response: &Message, flow: Flow, core: &Core) -> Granted {
        let asked = self.applied.as_ref().map_or(0, |applied| whole_seconds(applied.expires)).max(self.min_expires);
        let instance = self.applied.as_ref().and_then(|applied| applied.instance.as_deref());
        let sent = core.accounts.registering(self.account).and_then(|registering| registering.sent.clone());
        let (contact, sent_to) = sent.unwrap_or_else(|| (Uri::sip(None, flow.remote.ip().into(), None), flow));
        // A connection is known from its first answer on; a datagram's answer may come from anywhere.
        let flow = if flow.connection.is_some() { flow } else { sent_to };
        Granted::read(response, flow, contact, instance, asked)
    }

    fn note_bound(&mut self, granted: &Granted, now: Instant) {
        let Some(applied) = &self.applied else { return };
        let (contact, target) = (granted.contact.clone(), applied.target.clone());
        self.bound = Some(Bound { contact, until: now + granted.time(), target });
    }

    fn granted(&mut self, granted: Granted, core: &mut Core, now: Instant) -> Next {
        if granted.expires == 0 {
            self.bound = None;
            self.failed(200, "the registrar granted no time", None, core, now);
            return None;
        }
        self.note_bound(&granted, now);
        if let Some(seen) = granted.seen_as()
            && !std::mem::replace(&mut self.tries.address_learned, true)
        {
            core.accounts.learn(self.account, Some((granted.flow.transport, seen)));
            return self.attempt(core, now); // this Contact could not be reached
        }
        self.failures = 0;
        let refresh_after = granted.time().mul_f64(core.random.random_range(0.80..0.95));
        self.state = State::Registered { refresh_at: now + refresh_after.max(backoff::LEAST_REFRESH) };
        let flow = granted.flow;
        let registrar = Route::new(flow.remote.ip().to_string(), flow.remote.port(), flow.transport);
        let (contact, expires) = (granted.contact.clone(), granted.expires);
        let keep_alive = granted.keep_alive(&mut core.random);
        let binding = Binding {
            flow,
            service_route: granted.service_route,
            gruu: granted.gruu,
            temp_gruu: granted.temp_gruu,
            is_outbound: granted.is_outbound,
            keep_alive,
        };
        self.bind(Some(binding), core);
        self.post(EventKind::AccountRegistrationDidSucceed { contact: contact.into(), expires, registrar }, core);
        None
    }

    fn refused(&mut self, outcome: &Outcome, core: &mut Core, now: Instant) -> Next {
        let response = outcome.response.as_ref().map(|(response, _)| response);
        match (outcome.code, response) {
            (423, Some(response)) => {
                let least = response.number(HeaderName::MinExpires).ok().flatten().unwrap_or_default();
                let asked = self.applied.as_ref().map_or(0, |applied| whole_seconds(applied.expires));
                if least > asked.max(self.min_expires) && !std::mem::replace(&mut self.tries.interval_raised, true) {
                    self.min_expires = least;
                    return self.attempt(core, now);
                }
            }
            (439, _) if !self.no_outbound => {
                self.no_outbound = true;
                return self.attempt(core, now);
            }
            (300..=399, Some(response)) => {
                if let Some(registrar) = self.redirect(response, core) {
                    self.tries.redirects += 1;
                    // The proxy that sent us on is not asked again.
                    return self.send(Target { registrar, proxy: None }, core, now);
                }
            }
            _ => {}
        }
        let retry_after = response.and_then(|response| response.header(HeaderName::RetryAfter));
        let retry_after = retry_after.and_then(RetryAfter::parse).map(|after| after.seconds);
        self.failed(outcome.code, &outcome.reason, retry_after, core, now);
        None
    }

    /// Where a 3xx leads, when the account lets itself be led there: the first of its best contacts, never from `sips:` to
    /// `sip:` (RFC 3261 §8.1.3.4, §26.4.4).
    fn redirect(&self, response: &Message, core: &Core) -> Option<Uri> {
        let settings = core.accounts.get(self.account)?;
        if self.tries.redirects >= settings.follow_redirects {
            return None;
        }
        let is_secure = self.applied.as_ref().is_some_and(|applied| applied.target.registrar.is_secure());
        let contacts = response.contacts().flatten().take(crate::sip::headers::MAX_LIST);
        let usable = contacts.filter_map(|contact| Some((contact.q(), contact.uri().ok()?)));
        let usable = usable.filter(|(_, uri)| uri.is_sip() && uri.host.is_some() && (uri.is_secure() || !is_secure));
        let best = usable.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map(|(_, uri)| uri)
    }

    fn failed(&mut self, code: u16, reason: &str, retry_after: Option<u32>, core: &mut Core, now: Instant) {
        let wait = backoff::wait(code, self.failures, retry_after, &mut core.random);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { retry_at: wait.map(|wait| now + wait) };
        let retry_after = wait.map(|wait| wait.as_secs_f64());
        self.post(EventKind::AccountRegistrationDidFail { code, reason: reason.into(), retry_after }, core);
    }

    // --- unregistering -----------------------------------------------------------------------------------------------

    /// Takes our Contact away from where it is registered (RFC 3261 §10.2.2).
    fn begin_unregister(&mut self, core: &mut Core, now: Instant) -> Next {
        let Some(bound) = self.bound.take().filter(|bound| bound.until > now) else { return self.ended(core, now) };
        let has_instance = core.accounts.registering_mut(self.account).is_some_and(|registering| {
            (registering.exact, registering.old) = (Some(bound.contact), None);
            !registering.parameters.is_empty()
        });
        self.state = State::Unregistering;
        match self.ask(&bound.target, 0, has_instance, core) {
            Ok(ask) => Some(ask),
            Err(error) => {
                tracing::debug!(error, "a registration is left to run out");
                self.ended(core, now)
            }
        }
    }

    fn ended(&mut self, core: &mut Core, now: Instant) -> Next {
        self.state = State::Off;
        self.bound = None;
        self.applied = None;
        self.failures = 0;
        self.is_outdated = false;
        self.bind(None, core);
        self.post(EventKind::AccountRegistrationDidEnd, core);
        if self.is_wanted { self.begin(core, now) } else { None }
    }

    // --- what others see ---------------------------------------------------------------------------------------------

    /// Sets what the registrar granted, and what it takes to keep its flow open.
    fn bind(&self, binding: Option<Binding>, core: &mut Core) {
        let flow = binding.as_ref().map(|binding| binding.flow);
        let old = core.accounts.bind(self.account, binding).map(|old| old.flow);
        for flow in old.filter(|old| flow != Some(*old)).into_iter().chain(flow) {
            let interval = core.accounts.keep_alive(flow);
            core.outputs.push_back(Output::KeepAlive { flow, interval });
        }
    }

    fn post(&self, kind: EventKind, core: &mut Core) {
        core.notify_as(Sender::Account(self.account), kind);
    }
}

impl Applied {
    /// `None` when the account does not register.
    fn of(settings: &AccountSettings) -> Option<Self> {
        let registration = settings.registration.as_ref()?;
        let registrar = match &registration.registrar {
            Some(registrar) => registrar.clone(),
            None => domain(&settings.uri),
        };
        Some(Self {
            target: Target { registrar, proxy: settings.outbound_proxy.clone() },
            aor: settings.uri.clone(),
            expires: registration.expires,
            instance: registration.instance.clone(),
            credentials: settings.credentials.clone(),
            transports: settings.transports.clone(),
        })
    }
}

/// The domain of an address of record: the registrar's URI unless there is another (RFC 3261 §10.2).
fn domain(aor: &Uri) -> Uri {
    Uri { user: None, password: None, headers: Vec::new(), ..aor.clone() }
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
