//! RTCP reports (RFC 3550 §6).
