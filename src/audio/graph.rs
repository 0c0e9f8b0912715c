//! The port graph: named sources and sinks of typed formats; sinks mix what is connected to them.
