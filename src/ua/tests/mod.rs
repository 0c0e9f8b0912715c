//! The user agent against another one, and against messages written by hand. Each test expects the full list of events.

mod broken;
mod callee;
mod caller;
mod calls;
mod credentials;
mod flows;
pub(crate) mod harness;
mod hostile;
mod in_dialog;
mod info;
mod messages;
mod modify;
mod ours_in_dialog;
mod proposals;
mod provisional;
mod recording;
mod refresh;
mod refusals;
mod routes;
mod transfers;
mod verbs;
