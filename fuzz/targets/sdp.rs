//! A description: every line kept, and any offer is answered or refused, any answer taken or refused.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sipwire::media::{CodecKind, Direction, LocalMedia, SrtpPolicy};
use sipwire::sdp::description::Description;
use sipwire::sdp::negotiation::{LocalAudio, Negotiator};

fuzz_target!(|data: &[u8]| {
    let Ok(description) = Description::parse(data) else { return };
    let text = description.to_string();
    let again = Description::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(again.to_string(), text, "printing is stable");
    for media in description.media() {
        let _ = (media.connection(), media.direction(), media.ptime(), media.rtcp(), media.crypto().count());
        for payload_type in 0..=127 {
            let _ = (media.rtpmap(payload_type), media.fmtp(payload_type));
        }
    }
    let mut random = StdRng::seed_from_u64(1);
    for srtp in [SrtpPolicy::Disabled, SrtpPolicy::Optional, SrtpPolicy::Mandatory] {
        let audio = LocalAudio {
            media: LocalMedia { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), rtp_port: 20_000, rtcp_port: 20_001 },
            codecs: CodecKind::ALL.to_vec(),
            srtp,
            direction: Direction::SendRecv,
            symmetric: true,
        };
        let mut answerer = Negotiator::new(&mut random);
        let _ = Negotiator::inspect(&description);
        if let Ok((answer, _)) = answerer.answer(&description, Some(&audio), &mut random) {
            assert_eq!(answer.media().len(), description.media().len(), "an answer has the offer's media");
            Description::parse(answer.to_string().as_bytes()).expect("an answer of ours can be read");
        }
        let mut offerer = Negotiator::new(&mut random);
        let offer = offerer.offer(Some(&audio), &mut random);
        Description::parse(offer.to_string().as_bytes()).expect("an offer of ours can be read");
        let _ = offerer.accept_answer(&description);
    }
});
