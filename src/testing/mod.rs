//! A registrar and proxy to test telephony programs against: honest by default, and misbehaving on request.
//!
//! [`Proxy`] is a value like [`UserAgent`](crate::ua::UserAgent): messages and time go in, messages come out, and it touches
//! no socket and no clock. The simulated tests drive it with virtual time; `engine` runs it over real sockets for
//! `sipwire.testing.Proxy`.
//!
//! - [`proxy`]: the value itself: who may send what, and where it goes (RFC 3261 §16).
//! - [`forwarding`]: the copies of requests and responses that a proxy sends on.
//! - [`forking`]: one request to several phones, and the one answer that goes back (RFC 3261 §16.7).
//! - [`registrar`]: REGISTER, bindings, outbound, GRUU, Path and Service-Route (RFC 3261 §10.3).
//! - [`misbehaviour`]: what it can be told to do wrong, and to which messages.
//!
//! It is made for tests: it keeps everything in memory, looks no names up but those it is given, and forwards to anybody.

pub mod forking;
pub mod forwarding;
pub mod misbehaviour;
pub mod proxy;
pub mod registrar;

pub use self::misbehaviour::{Match, Misbehaviour};
pub use self::proxy::{Proxy, Seen, Settings, Transmit, User};
pub use self::registrar::Registration;
