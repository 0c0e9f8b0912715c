//! The user agent against another one, and against messages written by hand. Each test expects the full list of events.

mod calls;
pub(crate) mod harness;
