//! Session descriptions (RFC 4566/8866, lines kept by `sdp-types`) and offer/answer for audio (RFC 3264).

#![forbid(unsafe_code)]

mod chat;
pub mod crypto;
pub mod description;
mod formats;
pub mod negotiation;
mod peer;
