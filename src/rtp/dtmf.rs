//! Telephone events (RFC 4733).
