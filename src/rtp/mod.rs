//! RTP on the wire and the RTP session: packets, RTCP, SRTP, source lock, jitter buffer, RFC 4733 events.
//!
//! All sans-IO: packets and `now` in, packets, frames and events out. Nothing here allocates per packet.

#![forbid(unsafe_code)]

pub mod dtmf;
pub mod jitter;
mod outbox;
pub mod packet;
pub mod playout;
mod receiving;
pub mod rtcp;
mod sending;
pub mod session;
pub mod source;
pub mod srtp;
pub mod stretch;
