//! Counters with named attributes.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engine::{
    AudioStatistics, DiskStats, EngineStats, EventQueueStats, MediaThreadStats, QueueStats, StreamStats, TransportStats,
};
use crate::media::CodecKind;
use crate::rtp::session::Statistics;
use crate::ua::UaStats;

/// Makes a frozen class of Python from a struct of counters; nested ones are converted too.
macro_rules! counters {
    ($($(#[$doc:meta])* $class:ident($name:literal) from $source:ty { $($field:ident : $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[pyclass(frozen, get_all, name = $name, module = "sipwire._core")]
            #[derive(Clone)]
            pub struct $class { $($field: $type),* }

            impl From<$source> for $class {
                fn from(source: $source) -> Self {
                    Self { $($field: source.$field.convert()),* }
                }
            }

            #[pymethods]
            impl $class {
                /// The counters as plain values, nested ones as dictionaries.
                fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
                    let all = PyDict::new(py);
                    $(all.set_item(stringify!($field), self.$field.plain(py)?)?;)*
                    Ok(all)
                }

                fn __repr__(&self) -> String {
                    let all: Vec<String> = vec![$(format!("{}={}", stringify!($field), self.$field.text())),*];
                    format!("{}({})", $name, all.join(", "))
                }
            }

            impl Counter for $class {
                fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                    Ok(self.as_dict(py)?.into_any())
                }
                fn text(&self) -> String {
                    self.__repr__()
                }
            }
        )*

        pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_class::<$class>()?;)*
            Ok(())
        }
    };
}

/// Shows a counter to Python.
trait Counter {
    fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;
    fn text(&self) -> String;
}

/// Turns a field of the core into a field of Python.
trait Convert<T> {
    fn convert(self) -> T;
}

macro_rules! plain {
    ($($type:ty),*) => {
        $(
            impl Counter for $type {
                fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                    pyo3::IntoPyObjectExt::into_bound_py_any(self.clone(), py)
                }
                fn text(&self) -> String {
                    format!("{self:?}")
                }
            }
            impl Convert<$type> for $type {
                fn convert(self) -> $type {
                    self
                }
            }
        )*
    };
}

plain!(u64, i64, f64, Option<f64>, Option<&'static str>);

impl Convert<u64> for usize {
    fn convert(self) -> u64 {
        self as u64
    }
}

impl Convert<PyQueueStats> for QueueStats {
    fn convert(self) -> PyQueueStats {
        self.into()
    }
}

impl Convert<PyEventQueueStats> for EventQueueStats {
    fn convert(self) -> PyEventQueueStats {
        self.into()
    }
}

impl Convert<PyStreamStats> for StreamStats {
    fn convert(self) -> PyStreamStats {
        self.into()
    }
}

impl Convert<PyTransportStats> for TransportStats {
    fn convert(self) -> PyTransportStats {
        self.into()
    }
}

impl Convert<PyDiskStats> for DiskStats {
    fn convert(self) -> PyDiskStats {
        self.into()
    }
}

impl Convert<PyUaStats> for UaStats {
    fn convert(self) -> PyUaStats {
        self.into()
    }
}

impl Convert<Vec<PyMediaThreadStats>> for Vec<MediaThreadStats> {
    fn convert(self) -> Vec<PyMediaThreadStats> {
        self.into_iter().map(Into::into).collect()
    }
}

impl Counter for Vec<PyMediaThreadStats> {
    fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let all: Vec<_> = self.iter().map(|one| one.plain(py)).collect::<PyResult<_>>()?;
        pyo3::IntoPyObjectExt::into_bound_py_any(all, py)
    }
    fn text(&self) -> String {
        format!("[{}]", self.iter().map(Counter::text).collect::<Vec<_>>().join(", "))
    }
}

counters! {
    /// One bounded queue between two lanes.
    PyQueueStats("QueueStats") from QueueStats { depth: u64, high_water: u64, limit: u64, refused: u64 }

    /// The queue of events to Python: unbounded, watched.
    PyEventQueueStats("EventQueueStats") from EventQueueStats {
        depth: u64, high_water: u64, posted: u64, lag_warnings: u64,
    }

    /// Connections of one transport.
    PyStreamStats("StreamStats") from StreamStats {
        received: u64, sent: u64, connections: u64, accepted: u64, connected: u64, connect_failures: u64,
        handshake_failures: u64, refused: u64, idle_closed: u64, lost: u64, dropped: u64,
    }

    /// SIP over each transport.
    PyTransportStats("TransportStats") from TransportStats {
        udp_received: u64, udp_sent: u64, udp_queued: u64, udp_dropped: u64, udp_unreachable: u64,
        tcp: PyStreamStats, tls: PyStreamStats, ws: PyStreamStats, wss: PyStreamStats,
    }

    /// One media thread.
    PyMediaThreadStats("MediaThreadStats") from MediaThreadStats {
        calls: u64, ticks: u64, late_ticks: u64, skipped_ticks: u64, worst_late_us: u64, packets_received: u64,
        packets_sent: u64, packets_dropped: u64, commands: PyQueueStats,
    }

    /// The disk thread.
    PyDiskStats("DiskStats") from DiskStats { recordings: u64, players: u64, commands: PyQueueStats }

    /// Signalling: what exists and what was refused.
    PyUaStats("SignallingStats") from UaStats {
        sessions: u64, dialogs: u64, client_transactions: u64, server_transactions: u64, messages_received: u64,
        messages_sent: u64, bad_messages: u64, refused_by_rate: u64, silenced: u64, refused_by_limit: u64,
        refused_sessions: u64, refused_half_open: u64, refused_transactions: u64, too_large: u64, bad_descriptions: u64,
        broken_sessions: u64,
    }

    /// Counters of every queue, limit and transport of an engine.
    PyEngineStats("EngineStats") from EngineStats {
        ua: PyUaStats, commands: PyQueueStats, media_events: PyQueueStats, stream_input: PyQueueStats,
        events: PyEventQueueStats, transport: PyTransportStats, media: Vec<PyMediaThreadStats>, disk: PyDiskStats,
        panics: u64,
    }

    /// Both directions of an audio stream and of the rings to Python, since its start.
    PyAudioStatistics("AudioStatistics") from AudioCounters {
        codec: Option<&'static str>, encryption: Option<&'static str>, packets_sent: u64, bytes_sent: u64,
        packets_received: u64, bytes_received: u64, lost: i64, late: u64, duplicates: u64, discarded: u64,
        concealed_ms: u64, jitter_ms: f64, buffered_ms: f64, remote_lost: i64, remote_jitter_ms: f64,
        rtt_ms: Option<f64>, mos: f64, underruns: u64, underrun_ms: u64, reader_overflow_ms: u64,
    }
}

/// What the engine knows of a stream, with what Python calls differently.
pub struct AudioCounters {
    codec: Option<&'static str>,
    encryption: Option<&'static str>,
    mos: f64,
    underruns: u64,
    underrun_ms: u64,
    reader_overflow_ms: u64,
    rtp: Statistics,
}

impl std::ops::Deref for AudioCounters {
    type Target = Statistics;

    fn deref(&self) -> &Statistics {
        &self.rtp
    }
}

impl From<AudioStatistics> for AudioCounters {
    fn from(source: AudioStatistics) -> Self {
        Self {
            codec: source.codec.map(CodecKind::name),
            encryption: source.srtp_suite,
            mos: mos(&source.rtp),
            underruns: source.underruns,
            underrun_ms: source.underrun_ms,
            reader_overflow_ms: source.reader_overflow_ms,
            rtp: source.rtp,
        }
    }
}

/// Mean opinion score from 1 to 4.41 by the E-model (ITU-T G.107, default values): delay from the round trip and the
/// buffer, loss as concealment hears it (Bpl 25, packet loss concealment of a good codec).
fn mos(rtp: &Statistics) -> f64 {
    let delay = rtp.rtt_ms.unwrap_or(0.0) / 2.0 + rtp.buffered_ms + 20.0;
    let missing = (rtp.lost.max(0) as u64 + rtp.late) as f64;
    let expected = rtp.packets_received as f64 + rtp.lost.max(0) as f64;
    let loss = if expected > 0.0 { (100.0 * missing / expected).min(100.0) } else { 0.0 };
    let delay_impairment = 0.024 * delay + if delay > 177.3 { 0.11 * (delay - 177.3) } else { 0.0 };
    let loss_impairment = 95.0 * loss / (loss + 25.0);
    let rating = (93.2 - delay_impairment - loss_impairment).clamp(0.0, 100.0);
    1.0 + 0.035 * rating + 7e-6 * rating * (rating - 60.0) * (100.0 - rating)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mos_follows_the_e_model() {
        let clean = Statistics { packets_received: 1000, ..Statistics::default() };
        assert!((mos(&clean) - 4.4).abs() < 0.02, "{}", mos(&clean));
        let lossy = Statistics { packets_received: 900, lost: 100, ..clean };
        assert!((3.0..3.5).contains(&mos(&lossy)), "{}", mos(&lossy));
        let far = Statistics { rtt_ms: Some(1000.0), ..clean };
        assert!(mos(&far) < 3.0, "{}", mos(&far));
    }
}
