//! Wav files and bytes as a source.
