//! Audio as functions of frames and time: codecs, rings between threads, the port graph, player, recorder, measurements.
//!
//! A frame is 20 ms of interleaved-free mono `i16` at its port's rate: `rate / 50` samples.

pub mod analysis;
pub mod codec;
pub mod graph;
pub mod player;
pub mod ports;
pub mod recorder;
pub mod resample;
pub mod ring;
pub mod tone;
pub mod wav;

/// The length of every frame in the graph.
pub const FRAME_MS: u32 = 20;
/// The longest frame: 20 ms at 48 kHz.
pub const MAX_FRAME: usize = 960;
