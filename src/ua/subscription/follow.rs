//! The message-summary subscription of an account (RFC 3842): there while the account is registered and its settings say
//! so. Its notifications are the account's: [`crate::event::EventKind::AccountGotMessageSummary`].

use std::time::Instant;

use super::Subscribe;
use crate::event::{AccountId, Route};
use crate::ua::UserAgent;

/// What is asked for; the notifier decides.
const EXPIRES: u32 = 3600;

impl UserAgent {
    /// After each step of a registration: begins or ends what follows it.
    pub(in crate::ua) fn follow_registration(&mut self, account: AccountId, now: Instant) {
        let is_wanted = self.core.accounts.get(account).is_some_and(|settings| settings.message_summary)
            && !self.core.accounts.is_leaving(account);
        let flow = self.core.accounts.binding(account).map(|binding| binding.flow).filter(|_| is_wanted);
        match (flow, self.subscriptions.followed.contains_key(&account)) {
            (Some(flow), false) => {
                // Where the registration went, the state of the mailbox is known too.
                let route = Route::new(flow.remote.ip().to_string(), flow.remote.port(), flow.transport);
                let what = Subscribe {
                    account,
                    event: "message-summary".into(),
                    uri: None,
                    routes: vec![route],
                    expires: EXPIRES,
                    accept: Vec::new(),
                };
                let opened = self.open_subscription(what, true, now);
                if let Err(error) = &opened {
                    tracing::warn!(account = account.0, %error, "no message-summary");
                }
                self.subscriptions.followed.insert(account, opened.ok());
            }
            (None, true) => {
                if let Some(Some(id)) = self.subscriptions.followed.remove(&account) {
                    self.unsubscribe(id, now);
                }
            }
            _ => {}
        }
    }
}
