use std::path::Path;

use super::*;

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rtcp").join(name)).expect("vector file")
}

#[test]
fn every_vector_is_read_or_dropped_as_said() {
    let vectors: serde_json::Value = serde_json::from_slice(&vector("rtcp.json")).expect("JSON");
    let expect = vectors["expect"].as_object().expect("a table");
    assert_eq!(expect.len(), 19);
    for (name, verdict) in expect {
        let bytes = vector(&format!("{name}.bin"));
        let verdict = verdict.as_str().expect("text");
        let got = Compound::parse(&bytes);
        match name.as_str() {
            // Alone, as here, a padded packet is right; a cut or overrunning end spoils the whole.
            "padding-first-packet" => assert!(got.is_ok()),
            "second-packet-cut" => assert_eq!(got.unwrap_err(), RtcpError::Truncated(28)),
            _ if verdict.starts_with("drop") => assert!(got.is_err(), "{name}"),
            _ => {
                let packets = got.unwrap_or_else(|error| panic!("{name}: {error}")).count();
                assert_eq!(packets, if name.starts_with("compound") { 2 } else { 1 }, "{name}");
            }
        }
    }
    let padded_first = [vector("padding-first-packet.bin"), vector("rr-empty.bin")].concat();
    assert_eq!(Compound::parse(&padded_first).unwrap_err(), RtcpError::Malformed(0));
}

#[test]
fn the_numbers_of_the_vectors_are_read() {
    let bytes = vector("compound-sr-sdes.bin");
    let packets: Vec<_> = Compound::parse(&bytes).unwrap().collect();
    let [Packet::SenderReport { ssrc, info, blocks }, Packet::Description { cname, .. }] = packets[..] else {
        panic!("{packets:?}")
    };
    assert_eq!((ssrc, info.rtp, info.packets, info.octets), (0x1a2b_3c4d, 48_000, 100, 16_000));
    assert_eq!(cname, Some(b"alice@192.0.2.1".as_slice()));
    let block: Vec<_> = blocks.collect();
    let want = ReportBlock {
        ssrc: 0xdead_beef,
        fraction_lost: 25,
        cumulative_lost: 7,
        highest_sequence: 1 << 16 | 100,
        jitter: 12,
        last_sr: 0xf2a4_0000,
        delay_since_last_sr: 0x8000,
    };
    assert_eq!(block, [want]);

    let bytes = vector("negative-cumulative-loss.bin");
    let Some(Packet::ReceiverReport { mut blocks, .. }) = Compound::parse(&bytes).unwrap().next() else { panic!() };
    assert_eq!(blocks.next().map(|block| block.cumulative_lost), Some(-1));

    let bytes = vector("bye-reason.bin");
    let Some(Packet::Bye(mut sources)) = Compound::parse(&bytes).unwrap().next() else { panic!() };
    assert_eq!((sources.next(), sources.next()), (Some(0x1a2b_3c4d), None));
}

#[test]
fn what_is_written_is_read_by_us_and_by_rtcp_types() {
    let info = SenderInfo { ntp: 0x0102_0304_0506_0708, rtp: 9, packets: 10, octets: 1600 };
    let block = ReportBlock {
        ssrc: 77,
        fraction_lost: 3,
        cumulative_lost: -5,
        highest_sequence: 0x1_0002,
        jitter: 21,
        last_sr: 5,
        delay_since_last_sr: 6,
    };
    let long = "ö".repeat(200);
    for cname in ["", "a", "ab", "abc", "abcd", "sipwire@example.com", long.as_str()] {
        for (sender, block, bye) in [(Some(info), Some(block), true), (None, Some(block), false), (None, None, true)] {
            let mut out = [0; MAX_REPORT];
            let len = write(&Report { ssrc: 42, sender, block, cname, bye }, &mut out).expect("room");
            let out = &out[..len];
            let mut packets = Compound::parse(out).expect("our own packet");
            match packets.next() {
                Some(Packet::SenderReport { ssrc: 42, info, mut blocks }) => {
                    assert_eq!((Some(info), blocks.next()), (sender, block));
                }
                Some(Packet::ReceiverReport { ssrc: 42, mut blocks }) => {
                    assert_eq!((None, blocks.next()), (sender, block));
                }
                other => panic!("{other:?}"),
            }
            let Some(Packet::Description { ssrc: 42, cname: Some(read) }) = packets.next() else { panic!("{cname}") };
            let cut = if cname.len() > MAX_CNAME { &cname[..254] } else { cname };
            assert_eq!(read, cut.as_bytes());
            assert_eq!(packets.next().is_some(), bye);
            let theirs = rtcp_types::Compound::parse(out).expect("a compound packet");
            assert!(theirs.into_iter().all(|packet| packet.is_ok()), "rtcp-types refuses {out:02x?}");
        }
    }
    let mut short = [0; 40];
    assert_eq!(
        write(&Report { ssrc: 42, sender: Some(info), block: Some(block), cname: "x", bye: true }, &mut short),
        None
    );
}

#[test]
fn any_bytes_are_read_or_refused_within_their_bounds() {
    let mut seed = 7u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let names = ["compound-sr-sdes", "bye-reason", "sr-1-block", "xr-voip", "app", "sdes-item-overrun"];
    for name in names {
        let bytes = vector(&format!("{name}.bin"));
        for end in 0..=bytes.len() {
            let _ = Compound::parse(&bytes[..end]).map(Iterator::count);
        }
        for _ in 0..5_000 {
            let mut bytes = bytes.clone();
            for _ in 0..3 {
                let at = usize::from(random()) % bytes.len();
                bytes[at] = random();
            }
            let _ = Compound::parse(&bytes).map(Iterator::count);
        }
    }
}

fn packet(sequence: u16, timestamp: u32) -> Header {
    Header { marker: false, payload_type: 0, sequence, timestamp, ssrc: 5 }
}

#[test]
fn reception_counts_loss_jitter_and_wraps() {
    let mut reception = Reception::default();
    let at = |n: u32| Duration::from_millis(20 * u64::from(n));
    for n in 0..200u32 {
        if n % 10 == 9 {
            continue; // every tenth is lost
        }
        let counted = reception.count(&packet((n as u16).wrapping_add(65_500), n * 160), 8000, true, at(n));
        assert_eq!(counted.lost_before, u16::from(n > 0 && n % 10 == 0));
    }
    assert_eq!((reception.lost(), reception.jitter()), (19, 0)); // the last one is not yet missed
    let block = reception.report(at(200)).expect("a source");
    assert_eq!((block.fraction_lost, block.cumulative_lost), (24, 19)); // 19/199 in 1/256
    assert_eq!(block.highest_sequence, 65_500 + 198);
    let block = reception.report(at(200)).expect("a source");
    assert_eq!(block.fraction_lost, 0);

    // 5 ms late every other packet: the mean difference is 5 ms, 40 units.
    for n in 200..600u32 {
        let late = Duration::from_millis(5 * u64::from(n % 2));
        reception.count(&packet((n as u16).wrapping_add(65_500), n * 160), 8000, true, at(n) + late);
    }
    assert!((35..=40).contains(&reception.jitter()), "{}", reception.jitter());

    // A new source begins its own count; what was lost stays known.
    let lost = reception.lost();
    let mut other = packet(7, 7);
    other.ssrc = 6;
    reception.count(&other, 8000, true, at(601));
    assert_eq!(reception.report(at(602)).map(|block| (block.ssrc, block.cumulative_lost)), Some((6, 0)));
    assert_eq!(reception.lost(), lost);
}

#[test]
fn duplicates_make_the_loss_negative_and_no_fraction() {
    let mut reception = Reception::default();
    for n in 0..10u16 {
        for _ in 0..2 {
            reception.count(&packet(n, u32::from(n) * 160), 8000, true, Duration::ZERO);
        }
    }
    let block = reception.report(Duration::ZERO).expect("a source");
    assert_eq!((block.fraction_lost, block.cumulative_lost, reception.lost()), (0, -10, -10));
}

#[test]
fn the_round_trip_is_ours_minus_theirs_and_lies_are_ignored() {
    let sent = ntp(Duration::from_millis(10_000));
    let block = |last_sr, delay| ReportBlock { last_sr, delay_since_last_sr: delay, ..ReportBlock::default() };
    let now = ntp_middle(ntp(Duration::from_millis(12_100)));
    let rtt = round_trip(&block(ntp_middle(sent), 2 << 16), now).expect("a round trip");
    assert!((99..=101).contains(&rtt.as_millis()), "{rtt:?}");
    assert_eq!(round_trip(&block(0, 0), now), None, "no SR seen");
    assert_eq!(round_trip(&block(ntp_middle(sent), 3 << 16), now), None, "held longer than it was away");
    assert_eq!(round_trip(&block(now.wrapping_add(1), 0), now), None, "from the future");
}
