//! Tones and noise as sources.
