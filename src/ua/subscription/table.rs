//! All subscriptions and publications of a user agent: verbs, what arrives for them, and when each is to be woken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::notifier::{Asking, Body, Notifier, grant};
use super::publication::Publication;
use super::subscriber::Subscriber;
use super::{MAX_BODY, MAX_INCOMING, MAX_INCOMING_PER_SOURCE, MAX_SUBSCRIPTIONS, Publish, Subscribe, Verdict};
use super::{SHORT_PATIENCE, TIMER_N};
use crate::event::{AccountId, EventKind, SubscriptionId};
use crate::session::{check_callee, required_extensions};
use crate::sip::dialog::Dialog;
use crate::sip::event_package::{EndReason, EventPackage};
use crate::sip::headers::ContentType;
use crate::sip::message::{HeaderName, Message, Method};
use crate::sip::transaction::{ClientId, ServerId};
use crate::sip::transport::Flow;
use crate::ua::core::{Core, warning_header};
use crate::ua::exchange::Outcome;
use crate::ua::inbound::{RETRY_AFTER, Refusal, sip_uri};
use crate::ua::messages::check_rate;
use crate::ua::routing::RouteWalk;
use crate::ua::{UserAgent, VerbError, tokens};

#[derive(Debug)]
enum Entry {
    Subscriber(Box<Subscriber>),
    Notifier(Box<Notifier>),
    Publication(Box<Publication>),
}

impl Entry {
    fn is_over(&self) -> bool {
        match self {
            Self::Subscriber(one) => one.is_over(),
            Self::Notifier(one) => one.is_over(),
            Self::Publication(one) => one.is_over(),
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Subscriber(one) => one.next_timeout(),
            Self::Notifier(one) => one.next_timeout(),
            Self::Publication(one) => one.next_timeout(),
        }
    }

    fn account(&self) -> AccountId {
        match self {
            Self::Subscriber(one) => one.account(),
            Self::Notifier(one) => one.account(),
            Self::Publication(one) => one.account(),
        }
    }

    /// Our tag; publications have no dialog.
    fn tag(&self) -> Option<&str> {
        match self {
            Self::Subscriber(one) => Some(one.tag()),
            Self::Notifier(one) => Some(one.tag()),
            Self::Publication(_) => None,
        }
    }

    fn end(&mut self, patience: Duration, core: &mut Core, now: Instant) {
        match self {
            Self::Subscriber(one) => one.unsubscribe(patience, core, now),
            Self::Notifier(one) => one.terminate(EndReason::NoResource, core, now),
            Self::Publication(one) => one.remove(patience, core, now),
        }
    }
}

/// All of them, by number.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    all: BTreeMap<SubscriptionId, Entry>,
    by_tag: HashMap<Box<str>, SubscriptionId>,
    due: BTreeSet<(Instant, SubscriptionId)>,
    armed: BTreeMap<SubscriptionId, Instant>,
    incoming: usize,
    by_source: BTreeMap<IpAddr, usize>,
    /// Those that follow the registration of an account; `None` once it was refused.
    pub(super) followed: BTreeMap<AccountId, Option<SubscriptionId>>,
}

impl Subscriptions {
    #[cfg(test)]
    pub fn all_ids(&self) -> Vec<SubscriptionId> {
        self.all.keys().copied().collect()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.by_tag.is_empty() && self.due.is_empty() && self.by_source.is_empty()
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn insert(&mut self, id: SubscriptionId, entry: Entry) {
        if let Some(tag) = entry.tag() {
            self.by_tag.insert(tag.into(), id);
        }
        if let Entry::Notifier(notifier) = &entry {
            self.incoming += 1;
            *self.by_source.entry(notifier.source).or_default() += 1;
        }
        self.all.insert(id, entry);
        self.settle(id);
    }

    /// After each step: forgets what is over, else arms its timer.
    fn settle(&mut self, id: SubscriptionId) {
        let Some(entry) = self.all.get(&id) else { return };
        let next = entry.next_timeout().filter(|_| !entry.is_over());
        if entry.is_over() {
            if let Some(tag) = entry.tag() {
                self.by_tag.remove(tag);
            }
            if let Entry::Notifier(notifier) = entry {
                self.incoming -= 1;
                if let Some(count) = self.by_source.get_mut(&notifier.source) {
                    *count -= 1;
                    if *count == 0 {
                        self.by_source.remove(&notifier.source);
                    }
                }
            }
            if let Some(followed) = self.followed.get_mut(&entry.account())
                && *followed == Some(id)
            {
                *followed = None;
            }
            self.all.remove(&id);
        }
        let armed = match next {
            Some(at) => self.armed.insert(id, at),
            None => self.armed.remove(&id),
        };
        if let Some(old) = armed {
            self.due.remove(&(old, id));
        }
        if let Some(at) = next {
            self.due.insert((at, id));
        }
    }
}

impl Core {
    /// `Allow-Events`: what others may subscribe to.
    pub(crate) fn allow_events(&self) -> String {
        self.config.event_packages.join(", ")
    }
}

impl UserAgent {
    // --- verbs -------------------------------------------------------------------------------------------------------

    /// Subscribes; told by SubscriptionDidStart, SubscriptionGotNotify, SubscriptionDidFail and, at last, SubscriptionDidEnd.
    ///
    /// # Errors
    /// For an unknown account, an event, URI, type or route that cannot be used, or too many subscriptions.
    pub fn subscribe(&mut self, what: Subscribe, now: Instant) -> Result<SubscriptionId, VerbError> {
        let id = self.open_subscription(what, false, now)?;
        self.drain_transactions(now);
        Ok(id)
    }

    pub(super) fn open_subscription(
        &mut self,
        what: Subscribe,
        is_followed: bool,
        now: Instant,
    ) -> Result<SubscriptionId, VerbError> {
        let uri = self.check_watch(what.account, &what.event, what.uri.as_ref())?;
        for kind in &what.accept {
            check_type(kind)?;
        }
        RouteWalk::to(what.routes.clone(), &uri, what.account, &self.core)?;
        let id = SubscriptionId(self.core.next_id());
        let subscriber = Subscriber::start(id, what, uri, is_followed, &mut self.core, now);
        self.subscriptions.insert(id, Entry::Subscriber(Box::new(subscriber)));
        Ok(id)
    }

    fn check_watch(
        &mut self,
        account: AccountId,
        event: &str,
        uri: Option<&crate::sip::uri::Uri>,
    ) -> Result<crate::sip::uri::Uri, VerbError> {
        let own = self.core.open_account(account)?.uri.clone();
        let uri = uri.cloned().unwrap_or(own);
        check_callee(&uri)?;
        if EventPackage::parse(event.as_bytes()).is_none_or(|read| read.name != event) {
            return Err(VerbError::BadArgument(format!("{event:?} is no event package")));
        }
        if self.subscriptions.all.len() - self.subscriptions.incoming >= MAX_SUBSCRIPTIONS {
            self.core.stats.refused_by_limit += 1;
            return Err(VerbError::BadArgument(format!("{MAX_SUBSCRIPTIONS} subscriptions exist already")));
        }
        Ok(uri)
    }

    /// Ends a subscription or a publication of ours; silent when it is over.
    pub fn unsubscribe(&mut self, id: SubscriptionId, now: Instant) {
        self.step_subscription(id, |entry, core| entry.end(TIMER_N, core, now));
        self.drain_transactions(now);
    }

    /// Publishes a state; told by PublicationDidSucceed, PublicationDidFail and, at last, PublicationDidEnd.
    ///
    /// # Errors
    /// As [`Self::subscribe`], or for a body above [`MAX_BODY`].
    pub fn publish(&mut self, what: Publish, now: Instant) -> Result<SubscriptionId, VerbError> {
        let uri = self.check_watch(what.account, &what.event, None)?;
        check_type(&what.content_type)?;
        check_body(&what.body)?;
        RouteWalk::to(what.routes.clone(), &uri, what.account, &self.core)?;
        let id = SubscriptionId(self.core.next_id());
        let publication = Publication::start(id, what, uri, &mut self.core, now);
        self.subscriptions.insert(id, Entry::Publication(Box::new(publication)));
        self.drain_transactions(now);
        Ok(id)
    }

    /// Publishes another state in the place of the one before.
    ///
    /// # Errors
    /// When the publication is over, or for a body that cannot be used.
    pub fn modify_publication(
        &mut self,
        id: SubscriptionId,
        content_type: String,
        body: Bytes,
        now: Instant,
    ) -> Result<(), VerbError> {
        check_type(&content_type)?;
        check_body(&body)?;
        let done = self.step_subscription(id, |entry, core| match entry {
            Entry::Publication(one) => one.modify(content_type, body, core, now),
            Entry::Subscriber(_) | Entry::Notifier(_) => false,
        });
        self.drain_transactions(now);
        said(id, done)
    }

    /// Accepts or refuses a peer's subscription.
    ///
    /// # Errors
    /// When that has been decided already or the subscription is over, or for a code or body that cannot be used.
    pub fn decide_subscription(&mut self, id: SubscriptionId, verdict: Verdict, now: Instant) -> Result<(), VerbError> {
        match &verdict {
            Verdict::Accept(body) => check_notify_body(body)?,
            Verdict::Reject(code) if !(400..700).contains(code) => {
                return Err(VerbError::BadArgument(format!("code {code} refuses nothing: 400 to 699")));
            }
            Verdict::Reject(_) => {}
        }
        let done = self.step_subscription(id, |entry, core| match entry {
            Entry::Notifier(one) => one.decide(verdict, core, now),
            Entry::Subscriber(_) | Entry::Publication(_) => false,
        });
        self.drain_transactions(now);
        said(id, done)
    }

    /// Tells a subscriber the state as it is now.
    ///
    /// # Errors
    /// When its subscription is not active, or for a body that cannot be used.
    pub fn notify_subscription(&mut self, id: SubscriptionId, body: Body, now: Instant) -> Result<(), VerbError> {
        check_notify_body(&body)?;
        let done = self.step_subscription(id, |entry, core| match entry {
            Entry::Notifier(one) => one.notify(body, core, now),
            Entry::Subscriber(_) | Entry::Publication(_) => false,
        });
        self.drain_transactions(now);
        said(id, done)
    }

    /// Ends a peer's subscription; silent when it is over.
    pub fn terminate_subscription(&mut self, id: SubscriptionId, reason: EndReason, now: Instant) {
        self.step_subscription(id, |entry, core| {
            if let Entry::Notifier(one) = entry {
                one.terminate(reason, core, now);
            }
        });
        self.drain_transactions(now);
    }

    /// Ends all of an account that goes.
    pub(in crate::ua) fn end_subscriptions_of(&mut self, account: AccountId, now: Instant) {
        let all = self.subscriptions.all.iter().filter(|(_, entry)| entry.account() == account);
        let ids: Vec<SubscriptionId> = all.map(|(id, _)| *id).collect();
        for id in ids {
            self.step_subscription(id, |entry, core| entry.end(TIMER_N, core, now));
        }
        self.subscriptions.followed.remove(&account);
    }

    /// Ends all while the engine stops: soon.
    pub(in crate::ua) fn end_all_subscriptions(&mut self, now: Instant) {
        let ids: Vec<SubscriptionId> = self.subscriptions.all.keys().copied().collect();
        for id in ids {
            self.step_subscription(id, |entry, core| entry.end(SHORT_PATIENCE, core, now));
        }
        self.subscriptions.followed.clear();
    }

    /// Subscriptions and publications of ours whose end has not been posted.
    pub fn open_subscriptions(&self) -> usize {
        let alive = |entry: &&Entry| match entry {
            Entry::Notifier(notifier) => notifier.is_alive(),
            Entry::Subscriber(_) | Entry::Publication(_) => true,
        };
        self.subscriptions.all.values().filter(alive).count()
    }

    // --- what arrives ------------------------------------------------------------------------------------------------

    /// A request inside a dialog that is no call's: NOTIFY and SUBSCRIBE of a subscription, else 481.
    pub(in crate::ua) fn take_in_subscription(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        now: Instant,
    ) {
        let tag = request.to().ok().and_then(|to| std::str::from_utf8(to.tag()?).ok());
        let id = tag.and_then(|tag| self.subscriptions.by_tag.get(tag).copied());
        let taken = id.and_then(|id| {
            self.step_subscription(id, |entry, core| match (entry, request.method()) {
                (Entry::Subscriber(one), Method::Notify) => {
                    one.handle_notify(server, request, flow, core, now);
                    true
                }
                (Entry::Notifier(one), Method::Subscribe) => {
                    one.handle_subscribe(server, request, flow, core, now);
                    true
                }
                _ => false,
            })
        });
        if taken != Some(true) {
            self.core.answer(server, request, flow, 481, now);
        }
    }

    /// A SUBSCRIBE that wants a new subscription.
    pub(in crate::ua) fn take_subscribe(&mut self, server: ServerId, request: Message, flow: Flow, now: Instant) {
        let admitted = self.admit_subscribe(&request, flow, now);
        let (account, event, granted) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return self.core.refuse(server, &request, flow, &refusal, now),
        };
        let tag = tokens::tag(&mut self.core.random);
        let dialog = match Dialog::uas(&request, &tag, flow) {
            Ok(dialog) => dialog,
            Err(error) => {
                let refusal = Refusal::with(400, "Warning", warning_header(399, &error.to_string()));
                return self.core.refuse(server, &request, flow, &refusal, now);
            }
        };
        let id = SubscriptionId(self.core.next_id());
        let from = request.from().ok();
        let to = request.to().ok().and_then(|to| to.uri().ok());
        let accept = request.header_values(HeaderName::Accept);
        let accept: Vec<String> = accept.map(|kind| String::from_utf8_lossy(kind).into_owned()).collect();
        if let Some(from_uri) = from.as_ref().and_then(|from| from.uri().ok()) {
            self.core.notify(EventKind::EngineGotSubscription {
                subscription: id,
                account,
                event: event.name.as_str().into(),
                from_display_name: from.and_then(|from| from.display_name()).map(Into::into),
                to_uri: Arc::new(to.unwrap_or_else(|| from_uri.clone())),
                from_uri: Arc::new(from_uri),
                expires: granted,
                accept,
            });
        }
        let asking = Asking { server, flow, account, event, dialog, granted, request };
        self.subscriptions.insert(id, Entry::Notifier(Box::new(Notifier::arrive(id, asking, now))));
    }

    fn admit_subscribe(
        &mut self,
        request: &Message,
        flow: Flow,
        now: Instant,
    ) -> Result<(AccountId, EventPackage, u32), Refusal> {
        let core = &mut self.core;
        check_rate(flow, core, now)?;
        let uri = sip_uri(request)?;
        let account = core.account_at(&uri).ok_or_else(|| Refusal::new(404))?;
        if let Some(unsupported) = required_extensions(request) {
            return Err(Refusal::with(420, "Unsupported", unsupported));
        }
        let event = EventPackage::of(request).filter(|event| core.config.event_packages.contains(&event.name));
        let event = event.ok_or_else(|| match core.allow_events() {
            none if none.is_empty() => Refusal::new(489),
            all => Refusal::with(489, "Allow-Events", all),
        })?;
        let granted = grant(request)?;
        let table = &self.subscriptions;
        let of_source = table.by_source.get(&flow.remote.ip()).copied().unwrap_or_default();
        if table.incoming >= MAX_INCOMING || of_source >= MAX_INCOMING_PER_SOURCE {
            core.stats.refused_by_limit += 1;
            return Err(Refusal::with(503, "Retry-After", RETRY_AFTER));
        }
        Ok((account, event, granted))
    }

    pub(in crate::ua) fn subscription_answered(&mut self, id: SubscriptionId, outcome: &Outcome, now: Instant) {
        self.step_subscription(id, |entry, core| {
            if let Entry::Subscriber(one) = entry {
                one.handle_outcome(outcome, core, now);
            }
        });
    }

    pub(in crate::ua) fn publication_answered(&mut self, id: SubscriptionId, outcome: &Outcome, now: Instant) {
        self.step_subscription(id, |entry, core| {
            if let Entry::Publication(one) = entry {
                one.handle_outcome(outcome, core, now);
            }
        });
    }

    pub(in crate::ua) fn subscription_response(
        &mut self,
        id: SubscriptionId,
        client: ClientId,
        response: &Message,
        flow: Flow,
        now: Instant,
    ) {
        self.step_subscription(id, |entry, core| match entry {
            Entry::Subscriber(one) => one.handle_response(client, response, flow, core, now),
            Entry::Notifier(one) => one.handle_response(client, response, core, now),
            Entry::Publication(_) => {}
        });
    }

    pub(in crate::ua) fn subscription_no_response(
        &mut self,
        id: SubscriptionId,
        client: ClientId,
        code: u16,
        why: &str,
        now: Instant,
    ) {
        self.step_subscription(id, |entry, core| match entry {
            Entry::Subscriber(one) => one.handle_no_response(client, code, why, core, now),
            Entry::Notifier(one) => one.handle_no_response(client, code, why, core),
            Entry::Publication(_) => {}
        });
    }

    pub(in crate::ua) fn subscription_timeouts(&mut self, now: Instant) {
        while let Some((_, id)) = self.subscriptions.due.first().copied().filter(|(at, _)| *at <= now) {
            self.step_subscription(id, |entry, core| match entry {
                Entry::Subscriber(one) => one.handle_timeout(core, now),
                Entry::Notifier(one) => one.handle_timeout(core, now),
                Entry::Publication(one) => one.handle_timeout(core, now),
            });
        }
    }

    fn step_subscription<R>(&mut self, id: SubscriptionId, act: impl FnOnce(&mut Entry, &mut Core) -> R) -> Option<R> {
        let entry = self.subscriptions.all.get_mut(&id)?;
        let result = act(entry, &mut self.core);
        self.subscriptions.settle(id);
        Some(result)
    }
}

fn said(id: SubscriptionId, done: Option<bool>) -> Result<(), VerbError> {
    match done {
        Some(true) => Ok(()),
        Some(false) => Err(VerbError::BadArgument(format!("subscription {} is not in a state for that", id.0))),
        None => Err(VerbError::BadArgument(format!("subscription {} is over", id.0))),
    }
}

fn check_type(kind: &str) -> Result<(), VerbError> {
    let legal = ContentType::parse(kind.as_bytes()).is_some() && !kind.contains(['\r', '\n']);
    if legal { Ok(()) } else { Err(VerbError::BadArgument(format!("content type {kind:?} is none"))) }
}

fn check_body(body: &[u8]) -> Result<(), VerbError> {
    match body.len() {
        size if size > MAX_BODY => {
            Err(VerbError::BadArgument(format!("a body of {size} bytes is larger than {MAX_BODY}")))
        }
        _ => Ok(()),
    }
}

fn check_notify_body(body: &Body) -> Result<(), VerbError> {
    body.as_ref().map_or(Ok(()), |(kind, bytes)| check_type(kind).and_then(|()| check_body(bytes)))
}
