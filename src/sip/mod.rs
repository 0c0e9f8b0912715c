//! SIP on the wire and its transactions (RFC 3261, RFC 6026): bytes in, values and bytes out.

pub mod build;
pub mod dialog;
pub mod headers;
pub mod message;
pub mod stream;
pub mod transaction;
pub mod transport;
pub mod uri;
