//! Sockets, clocks, threads and files: the only module that does I/O.
#![allow(clippy::disallowed_methods)] // the one place with clocks and waits
