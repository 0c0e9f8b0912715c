//! Wav files as sinks: what the media thread gives, the disk thread writes.
