//! SIP on the wire and its transactions (RFC 3261, RFC 6026): bytes in, values and bytes out.

#![forbid(unsafe_code)]

pub mod bodies;
pub mod build;
pub mod cpim;
pub mod dialog;
pub mod digest;
pub mod event_package;
pub mod headers;
pub mod imdn;
pub mod info;
pub mod message;
mod names;
pub mod refer;
pub mod stream;
mod text;
pub mod transaction;
pub mod transport;
pub mod uri;
