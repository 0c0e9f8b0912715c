//! Answers every call with 200 and audio (silence) at once and hangs up when the caller does: what the engine costs
//! without Python.
//!
//! `cargo run --release --example uas -- [PORT [SECONDS]]`, then for example
//! `sipp -sn uac 127.0.0.1:PORT -r 1000 -m 20000`. At the end it prints counters and the CPU time per call.

use std::time::{Duration, Instant};

use sipwire::engine::{Engine, EngineOptions};
use sipwire::event::EventKind;
use sipwire::sip::uri::Uri;
use sipwire::ua::AccountSettings;

#[expect(clippy::disallowed_methods, reason = "a program measures real time")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<_> = std::env::args().skip(1).collect();
    let port = numbers.first().map_or(Ok(5060), |port| port.parse())?;
    let seconds = numbers.get(1).map_or(Ok(3600), |seconds| seconds.parse())?;
    let engine = Engine::start(EngineOptions {
        local_ip: Some("127.0.0.1".parse()?),
        udp_port: Some(port),
        tcp_port: Some(port),
        auto_ring: false,
        accepts_calls: true,
        invite_rate: 100_000,
        invite_rate_per_source: 100_000,
        ..EngineOptions::default()
    })?;
    engine
        .add_account(AccountSettings { catch_all: true, ..AccountSettings::new(Uri::parse(b"sip:uas@127.0.0.1")?) })?;
    println!("listening on {:?}", engine.addresses());

    let (end, mut calls) = (Instant::now() + Duration::from_secs(seconds), 0u64);
    let before = cpu_time();
    while Instant::now() < end {
        for timed in engine.next_events(256, Duration::from_millis(200)) {
            match (&timed.event.kind, timed.event.session()) {
                (EventKind::SessionNewIncoming { streams }, Some(session)) => {
                    if let Err(error) = engine.accept(session, streams.audio, false) {
                        eprintln!("{error}");
                    }
                }
                (EventKind::SessionDidEnd { .. }, _) => calls += 1,
                (EventKind::SessionDidFail { code, reason, .. }, _) => eprintln!("a call failed: {code} {reason}"),
                (EventKind::EngineGotException { error }, _) => eprintln!("{error}"),
                _ => {}
            }
        }
    }
    let cpu = cpu_time() - before;
    let stats = engine.stats();
    println!("{calls} calls, {:.1} µs CPU a call", cpu.as_secs_f64() * 1e6 / calls.max(1) as f64);
    println!("{stats:#?}");
    println!("{:?}", engine.stop(Duration::from_secs(2)));
    Ok(())
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is a valid one, and getrusage only writes into it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
