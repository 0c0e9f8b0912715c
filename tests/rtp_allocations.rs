//! The media path of a running stream takes no memory: counted by an allocator that knows who asks.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use sipwire::media::{AudioParams, CodecKind, Direction, MediaEvent, PayloadFormat, SrtpKey, SrtpParams, SrtpSuite};
use sipwire::rtp::session::{Channel, Received, RtpSession};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator unchanged; the counter is a plain thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TICK: Duration = Duration::from_millis(20);

fn address(host: u8) -> SocketAddr {
    ([192, 0, 2, host], 4000).into()
}

fn session(codec: CodecKind, us: u8, peer: u8, suite: Option<SrtpSuite>, start: Instant) -> RtpSession {
    let send = PayloadFormat { codec, payload_type: codec.static_payload_type().unwrap_or(111) };
    let key = |host| SrtpKey([host; 30]);
    let params = AudioParams {
        remote_rtp: address(peer),
        remote_rtcp: address(peer),
        rtcp_mux: true,
        direction: Direction::SendRecv,
        send,
        receive: vec![send],
        dtmf_send: Some(101),
        dtmf_receive: Some(101),
        ptime_ms: 20,
        srtp: suite.map(|suite| SrtpParams { suite, local: key(us), remote: key(peer) }),
        symmetric: true,
    };
    RtpSession::new(params, "test@example.com", &mut StdRng::seed_from_u64(us.into()), start)
}

struct Datagram {
    bytes: [u8; 1500],
    len: usize,
}

struct Line {
    queue: Vec<Datagram>,
    used: usize,
    heard: u32,
    digits: u32,
}

impl Line {
    /// Lets both sessions run one tick each; `lossy` drops, doubles and delays packets. No memory is taken here either.
    fn tick(
        &mut self,
        n: u32,
        from: &mut RtpSession,
        to: &mut RtpSession,
        source: SocketAddr,
        lossy: bool,
        now: Instant,
    ) {
        let rate = from.sample_rate() as usize;
        let mut frame = [0i16; 960];
        for (at, sample) in frame.iter_mut().enumerate() {
            *sample = (((n as usize * rate / 50 + at) * 800 / rate % 2) * 8000) as i16;
        }
        from.push_frame(&frame[..rate / 50], now);
        from.handle_timeout(now);
        let hold = lossy && n % 13 < 2;
        while let Some((_, _, bytes)) = from.poll_transmit() {
            let slot = &mut self.queue[self.used];
            slot.bytes[..bytes.len()].copy_from_slice(bytes);
            slot.len = bytes.len();
            self.used += 1;
        }
        if !hold {
            for slot in self.queue[..self.used].iter_mut().rev() {
                if lossy && n.is_multiple_of(17) {
                    continue;
                }
                let mut copy = slot.bytes;
                to.handle_packet(Channel::Rtp, &mut copy[..slot.len], source, now + TICK / 4);
                if lossy && n.is_multiple_of(5) {
                    to.handle_packet(Channel::Rtp, &mut slot.bytes[..slot.len], source, now + TICK / 4);
                }
            }
            self.used = 0;
        }
        let mut out = [0; 960];
        let received = to.pull_frame(&mut out[..rate / 50], now + TICK / 2);
        self.heard += u32::from(received != Received::Silence);
        while let Some(event) = to.poll_event() {
            self.digits += u32::from(event == MediaEvent::Dtmf('5'));
        }
        assert!(to.poll_timeout().is_some() && to.statistics().packets_received <= 2 * u64::from(n) + 2);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
fn a_running_stream_allocates_nothing() {
    let start = Instant::now();
    for codec in CodecKind::ALL {
        for suite in [None, Some(SrtpSuite::AesCm128HmacSha1_80), Some(SrtpSuite::AesCm128HmacSha1_32)] {
            for lossy in [false, true] {
                let mut a = session(codec, 1, 2, suite, start);
                let mut b = session(codec, 2, 1, suite, start);
                a.trace(100);
                b.trace(100);
                let datagram = || Datagram { bytes: [0; 1500], len: 0 };
                let mut line =
                    Line { queue: std::iter::repeat_with(datagram).take(16).collect(), used: 0, heard: 0, digits: 0 };
                let mut after_warm_up = 0;
                for n in 0..1_500 {
                    if n == 250 {
                        after_warm_up = ALLOCATIONS.get();
                    }
                    if n == 1_000 {
                        assert!(a.send_dtmf('5'));
                    }
                    line.tick(n, &mut a, &mut b, address(1), lossy, start + TICK * n);
                }
                let allocations = ALLOCATIONS.get() - after_warm_up;
                assert_eq!(allocations, 0, "{codec}, {suite:?}, lossy: {lossy}");
                assert!(line.heard > 1_400, "{codec}, {suite:?}, lossy: {lossy}: {} frames heard", line.heard);
                assert_eq!(line.digits, 1, "{codec}, {suite:?}, lossy: {lossy}");
            }
        }
    }
}
