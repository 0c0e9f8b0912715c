//! `a=crypto` of SDES (RFC 4568).
