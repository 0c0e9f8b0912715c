//! The jitter buffer: reorders, waits, conceals; its clock is injected.
