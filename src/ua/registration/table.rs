//! The registrations of a user agent, and the verbs that reach them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use super::{Next, Registration};
use crate::event::AccountId;
use crate::sip::transport::{Flow, Transport};
use crate::ua::core::Core;
use crate::ua::exchange::{Outcome, Owner};
use crate::ua::{UserAgent, VerbError};

/// By account, with a queue of what is due next.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    by_account: BTreeMap<AccountId, Registration>,
    due: BTreeSet<(Instant, AccountId)>,
}

impl Registrations {
    /// Nobody is registered, tries to be, or is about to end it.
    pub fn are_off(&self) -> bool {
        self.by_account.values().all(Registration::is_off)
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn step(
        &mut self,
        account: AccountId,
        core: &mut Core,
        act: impl FnOnce(&mut Registration, &mut Core) -> Next,
    ) -> Next {
        core.accounts.get(account)?;
        let registration = self.by_account.entry(account).or_insert_with(|| Registration::new(account, core));
        if let Some(at) = registration.next_timeout() {
            self.due.remove(&(at, account));
        }
        let next = act(registration, core);
        if let Some(at) = registration.next_timeout() {
            self.due.insert((at, account));
        }
        if registration.is_off() && core.accounts.is_leaving(account) {
            self.by_account.remove(&account);
            core.accounts.remove(account);
            core.keyring.forget(account);
        }
        next
    }
}

impl UserAgent {
    // --- verbs -------------------------------------------------------------------------------------------------------

    /// Registers an account whose settings say where, or registers it again; answered by AccountRegistrationDidSucceed or
    /// AccountRegistrationDidFail. From then on the registration is kept up.
    ///
    /// # Errors
    /// For an unknown account, or one whose settings do not ask for a registration.
    pub fn register(&mut self, account: AccountId, now: Instant) -> Result<(), VerbError> {
        let settings = self.core.open_account(account)?;
        if settings.registration.is_none() {
            return Err(VerbError::BadArgument(format!("account {} does not register", settings.uri)));
        }
        self.step_registration(account, now, |registration, core| registration.register(core, now));
        Ok(())
    }

    /// Takes the Contact of an account back. True: AccountRegistrationDidEnd follows or has just been posted; false: there
    /// was nothing to end.
    ///
    /// # Errors
    /// For an unknown account.
    pub fn unregister(&mut self, account: AccountId, now: Instant) -> Result<bool, VerbError> {
        self.core.open_account(account)?;
        let mut was_off = true;
        self.step_registration(account, now, |registration, core| {
            was_off = registration.is_off();
            registration.unregister(core, now)
        });
        Ok(!was_off)
    }

    /// Lets the settings of an account take effect on its registration: begins, moves, renews or ends it.
    pub fn settings_changed(&mut self, account: AccountId, now: Instant) {
        self.step_registration(account, now, |registration, core| registration.settings_changed(core, now));
    }

    /// No new call is taken or made; those in progress go on. The registration is ended first, the account goes then.
    pub fn remove_account(&mut self, account: AccountId, now: Instant) {
        self.end_subscriptions_of(account, now);
        self.core.accounts.leave(account);
        self.step_registration(account, now, |registration, core| registration.unregister(core, now));
    }

    /// Our addresses are others now. Whoever is registered tells its registrar within two seconds.
    pub fn set_local(&mut self, local: Vec<(Transport, SocketAddr)>, now: Instant) {
        if self.core.config.local == local {
            return;
        }
        self.core.config.local = local;
        let accounts: Vec<AccountId> = self.registrations.by_account.keys().copied().collect();
        for account in accounts {
            self.core.accounts.learn(account, None);
            self.upheaval(account, now);
        }
    }

    // --- what arrives ------------------------------------------------------------------------------------------------

    /// The machine slept, for a time that `now` does not show: everything is refreshed at once.
    pub fn handle_resumed(&mut self, now: Instant) {
        let accounts: Vec<AccountId> = self.registrations.by_account.keys().copied().collect();
        for account in accounts {
            self.upheaval(account, now);
        }
    }

    /// A connection is closed, or its keep-alives are not answered: whoever was registered over it does so again.
    pub fn handle_flow_failed(&mut self, flow: Flow, now: Instant) {
        for account in self.core.accounts.lose_flow(flow) {
            self.step_registration(account, now, |registration, core| {
                registration.handle_flow_failed(core, now);
                None
            });
        }
    }

    /// True while an account is registered, tries to be, or has not heard of the end of its registration.
    pub fn is_registered(&self) -> bool {
        !self.registrations.are_off()
    }

    /// Waits no longer for registrars that do not answer the end of a registration: AccountRegistrationDidEnd is posted,
    /// the registrations run out by themselves.
    pub fn abandon_registrations(&mut self, now: Instant) {
        self.exchanges.retain(|_, exchange| !matches!(exchange.owner(), Owner::Registration(_)));
        let accounts: Vec<AccountId> = self.registrations.by_account.keys().copied().collect();
        for account in accounts {
            self.step_registration(account, now, |registration, core| {
                registration.abandon(core, now);
                None
            });
        }
    }

    // --- inside ------------------------------------------------------------------------------------------------------

    fn upheaval(&mut self, account: AccountId, now: Instant) {
        self.step_registration(account, now, |registration, core| {
            registration.handle_upheaval(core, now);
            None
        });
    }

    pub(in crate::ua) fn registration_answered(&mut self, account: AccountId, outcome: &Outcome, now: Instant) {
        self.step_registration(account, now, |registration, core| registration.handle_outcome(outcome, core, now));
    }

    pub(in crate::ua) fn registration_timeouts(&mut self, now: Instant) {
        while let Some((_, account)) = self.registrations.due.first().copied().filter(|(at, _)| *at <= now) {
            self.step_registration(account, now, |registration, core| registration.handle_timeout(core, now));
        }
    }

    /// Ends all registrations.
    pub(in crate::ua) fn unregister_all(&mut self, now: Instant) {
        let accounts: Vec<AccountId> = self.registrations.by_account.keys().copied().collect();
        self.exchanges.retain(|_, exchange| matches!(exchange.owner(), Owner::Registration(_)));
        for account in accounts {
            self.step_registration(account, now, |registration, core| registration.unregister(core, now));
        }
    }

    fn step_registration(
        &mut self,
        account: AccountId,
        now: Instant,
        act: impl FnOnce(&mut Registration, &mut Core) -> Next,
    ) {
        if let Some(ask) = self.registrations.step(account, &mut self.core, act) {
            self.start_exchange(ask, now);
        }
        self.follow_registration(account, now);
        self.drain_transactions(now);
    }
}
