//! Streaming sample rate conversion.
