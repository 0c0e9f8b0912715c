//! Measurements on recordings: tones, levels, delay, spectrogram.
