//! Which source is believed: symmetric RTP with source lock.
