//! SIP for Python on a Rust core.
//!
//! Dependencies point one way: wire formats ([`sip`], [`sdp`], [`rtp`]) ← state machines ([`ua`], [`session`], [`testing`]) ←
//! [`engine`] ← `python` (feature `python`). Everything outside [`engine`] takes bytes and the time and gives back bytes
//! and events; it touches no socket, clock, thread or Python object.

pub mod audio;
pub mod engine;
pub mod event;
pub mod media;
pub mod rtp;
pub mod sdp;
pub mod session;
pub mod sip;
pub mod testing;
pub mod ua;
pub mod xml;

#[cfg(feature = "python")]
mod python;
