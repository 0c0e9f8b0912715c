//! Tables of offers and answers, made ones and captured ones.

use std::net::SocketAddr;

use rand::{RngExt, SeedableRng};

use super::*;
use crate::media::Direction::{Inactive, RecvOnly, SendOnly, SendRecv};

const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

/// Audio alone.
impl Negotiator {
    fn answer_audio(
        &mut self,
        offer: &Description,
        audio: Option<&LocalAudio>,
        random: &mut StdRng,
    ) -> Result<(Description, Option<AudioParams>), NegotiationError> {
        self.answer(offer, audio, random).map(|(answer, agreed)| (answer, agreed.audio))
    }

    fn accept_audio(&mut self, answer: &Description) -> Result<Option<AudioParams>, NegotiationError> {
        self.accept_answer(answer).map(|agreed| agreed.audio)
    }
}

fn random() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn local() -> LocalAudio {
    LocalAudio {
        media: LocalMedia { address: "10.99.0.2".parse().unwrap(), rtp_port: 50_000, rtcp_port: 50_001 },
        codecs: CodecKind::ALL.to_vec(),
        srtp: SrtpPolicy::Disabled,
        direction: SendRecv,
        symmetric: true,
    }
}

fn with_srtp(srtp: SrtpPolicy) -> LocalAudio {
    LocalAudio { srtp, ..local() }
}

fn parse(text: &str) -> Description {
    Description::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// A description with these lines after the usual head.
fn peer(lines: &str) -> Description {
    version(1, lines)
}

fn version(version: u32, lines: &str) -> Description {
    let head = format!("v=0\r\no=- 9 {version} IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n");
    parse(&(head + &lines.trim().replace('\n', "\r\n") + "\r\n"))
}

fn answer(offer: &Description, audio: &LocalAudio) -> Result<(Description, Option<AudioParams>), NegotiationError> {
    Negotiator::new(&mut random()).answer_audio(offer, Some(audio), &mut random())
}

/// The answer's text from its first m-line on, and what was agreed.
fn agreed(offer: &Description, audio: &LocalAudio) -> (String, AudioParams) {
    let (description, params) = answer(offer, audio).unwrap_or_else(|error| panic!("{error}: {offer}"));
    (body(&description), params.expect("audio is taken"))
}

fn body(description: &Description) -> String {
    let text = description.to_string().replace("\r\n", "\n");
    text.find("m=").map_or(String::new(), |start| text[start..].to_owned())
}

fn version_of(description: &Description) -> String {
    description.origin().version
}

/// The Warning code of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, NegotiationError>) -> (u16, String) {
    match result {
        Err(NegotiationError::NotAcceptable { warning, text }) => (warning, text),
        other => panic!("not refused: {other:?}"),
    }
}

macro_rules! client {
    ($name:literal) => {
        Description::parse(include_bytes!(concat!("../../../tests/data/sdp/clients/", $name, ".sdp"))).expect($name)
    };
}

fn format(codec: CodecKind, payload_type: u8) -> PayloadFormat {
    PayloadFormat { codec, payload_type }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn the_first_offer_lists_what_we_can_do() {
    let offer = Negotiator::new(&mut random()).offer(Some(&local()), &mut random());
    let id = offer.origin().session_id;
    let expected = format!(
        "v=0\no=- {id} 1 IN IP4 10.99.0.2\ns=-\nc=IN IP4 10.99.0.2\nt=0 0\n\
         m=audio 50000 RTP/AVP 96 9 0 8 97 101\n\
         a=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1;maxplaybackrate=48000\n\
         a=rtpmap:9 G722/8000\na=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\n\
         a=rtpmap:97 telephone-event/48000\na=fmtp:97 0-16\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\n\
         a=ptime:20\na=rtcp-mux\na=sendrecv\n"
    );
    assert_eq!(offer.to_string(), expected.replace('\n', "\r\n"));
}

#[test]
fn the_offer_follows_the_account() {
    let media = LocalMedia { address: "2001:db8::2".parse().unwrap(), rtp_port: 50_000, rtcp_port: 50_011 };
    let audio = LocalAudio {
        media,
        codecs: vec![CodecKind::Pcma],
        srtp: SrtpPolicy::Mandatory,
        direction: SendOnly,
        ..local()
    };
    let offer = Negotiator::new(&mut random()).offer(Some(&audio), &mut random());
    assert!(offer.to_string().contains("\r\nc=IN IP6 2001:db8::2\r\n"), "{offer}");
    let text = body(&offer);
    assert!(text.starts_with("m=audio 50000 RTP/SAVP 8 101\n"), "{text}");
    assert!(text.contains("a=rtcp:50011\n") && text.ends_with("a=sendonly\n"), "{text}");
    assert!(text.contains("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:"), "{text}");
    assert!(text.contains("a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:"), "{text}");
    let keys: Vec<_> = offer.media().next().unwrap().crypto().map(|line| line.unwrap().key).collect();
    assert_ne!(keys[0], keys[1], "each suite has its own key");

    let optional = Negotiator::new(&mut random()).offer(Some(&with_srtp(SrtpPolicy::Optional)), &mut random());
    assert!(body(&optional).starts_with("m=audio 50000 RTP/AVP 96") && body(&optional).contains("a=crypto:1 "));
}

#[test]
fn an_answer_takes_the_offerers_first_codec_and_numbers() {
    for (lines, codecs, text, send) in [
        (
            "m=audio 4000 RTP/AVP 0 8 111\na=rtpmap:111 opus/48000/2",
            CodecKind::ALL.to_vec(),
            "m=audio 50000 RTP/AVP 0\na=rtpmap:0 PCMU/8000\na=ptime:20\na=sendrecv\n",
            format(CodecKind::Pcmu, 0),
        ),
        (
            "m=audio 4000 RTP/AVP 18 111 0 110 126\na=rtpmap:111 OPUS/48000/2\na=rtpmap:110 telephone-event/48000\n\
             a=rtpmap:126 telephone-event/8000",
            CodecKind::ALL.to_vec(),
            "m=audio 50000 RTP/AVP 111 110\na=rtpmap:111 opus/48000/2\n\
             a=fmtp:111 useinbandfec=1;maxplaybackrate=48000\na=rtpmap:110 telephone-event/48000\na=fmtp:110 0-16\n\
             a=ptime:20\na=sendrecv\n",
            format(CodecKind::Opus, 111),
        ),
        (
            "m=audio 4000 RTP/AVP 111 0 9 101\na=rtpmap:111 opus/48000/2\na=rtpmap:101 telephone-event/8000",
            vec![CodecKind::G722],
            "m=audio 50000 RTP/AVP 9 101\na=rtpmap:9 G722/8000\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\n\
             a=ptime:20\na=sendrecv\n",
            format(CodecKind::G722, 9),
        ),
        (
            "m=audio 4000 RTP/AVPF 98 99\na=rtpmap:98 PCMU/16000\na=rtpmap:99 pcma/8000/1\na=ptime:30\na=rtcp-mux",
            CodecKind::ALL.to_vec(),
            "m=audio 50000 RTP/AVPF 99\na=rtpmap:99 PCMA/8000\na=ptime:30\na=rtcp-mux\na=sendrecv\n",
            format(CodecKind::Pcma, 99),
        ),
    ] {
        let (answer, params) = agreed(&peer(lines), &LocalAudio { codecs, ..local() });
        assert_eq!(answer, text, "{lines}");
        assert_eq!((params.send, params.receive), (send, vec![send]), "{lines}");
    }
}

#[test]
fn telephone_events_go_with_the_codec_clock() {
    for (lines, dtmf) in [
        (
            "m=audio 4000 RTP/AVP 96 100 101\na=rtpmap:96 opus/48000/2\na=rtpmap:100 telephone-event/8000\n\
          a=rtpmap:101 telephone-event/48000",
            Some(101),
        ),
        (
            "m=audio 4000 RTP/AVP 0 100 101\na=rtpmap:100 telephone-event/48000\na=rtpmap:101 telephone-event/8000",
            Some(101),
        ),
        ("m=audio 4000 RTP/AVP 96 100\na=rtpmap:96 opus/48000/2\na=rtpmap:100 telephone-event/8000", Some(100)),
        ("m=audio 4000 RTP/AVP 0 100\na=rtpmap:100 telephone-event/16000", None),
        ("m=audio 4000 RTP/AVP 0", None),
    ] {
        let (_, params) = agreed(&peer(lines), &local());
        assert_eq!((params.dtmf_send, params.dtmf_receive), (dtmf, dtmf), "{lines}");
    }
}

#[test]
fn directions_meet_in_answers_and_answered_offers() {
    // (theirs, ours, what remains for us)
    let table = [
        (SendRecv, SendRecv, SendRecv),
        (SendRecv, SendOnly, SendOnly),
        (SendRecv, RecvOnly, RecvOnly),
        (SendRecv, Inactive, Inactive),
        (SendOnly, SendRecv, RecvOnly),
        (SendOnly, SendOnly, Inactive),
        (SendOnly, RecvOnly, RecvOnly),
        (SendOnly, Inactive, Inactive),
        (RecvOnly, SendRecv, SendOnly),
        (RecvOnly, SendOnly, SendOnly),
        (RecvOnly, RecvOnly, Inactive),
        (RecvOnly, Inactive, Inactive),
        (Inactive, SendRecv, Inactive),
        (Inactive, SendOnly, Inactive),
        (Inactive, RecvOnly, Inactive),
        (Inactive, Inactive, Inactive),
    ];
    for (theirs, ours, expected) in table {
        let lines = format!("m=audio 4000 RTP/AVP 0\na={}", theirs.name());
        let audio = LocalAudio { direction: ours, ..local() };
        let (text, params) = agreed(&peer(&lines), &audio);
        assert_eq!(params.direction, expected, "offered {theirs:?}, we {ours:?}");
        assert!(text.ends_with(&format!("a={}\n", expected.name())), "{text}");
        assert_eq!(Negotiator::inspect(&peer(&lines)).audio_direction, theirs.reversed());

        let mut negotiator = Negotiator::new(&mut random());
        negotiator.offer(Some(&audio), &mut random());
        let params = negotiator.accept_audio(&peer(&lines)).unwrap().unwrap();
        assert_eq!(params.direction, expected, "we offered {ours:?}, answered {theirs:?}");
    }
}

#[test]
fn an_unspecified_address_is_an_old_style_hold() {
    let held = peer("m=audio 4000 RTP/AVP 0\nc=IN IP4 0.0.0.0");
    let (text, params) = agreed(&held, &local());
    assert_eq!(params.direction, RecvOnly);
    assert!(text.ends_with("a=recvonly\n") && params.remote_rtp.ip().is_unspecified(), "{text}");
    assert_eq!(Negotiator::inspect(&held).audio_direction, RecvOnly);

    let mut negotiator = Negotiator::new(&mut random());
    negotiator.offer(Some(&local()), &mut random());
    assert_eq!(negotiator.accept_audio(&held).unwrap().unwrap().direction, RecvOnly);
}

#[test]
fn addresses_are_checked() {
    let v6 = LocalAudio {
        media: LocalMedia { address: "2001:db8::2".parse().unwrap(), rtp_port: 50_000, rtcp_port: 50_001 },
        ..local()
    };
    for (audio, connection, port, warning) in [
        (local(), "IP4 224.2.1.1/127", 4000, 330),
        (local(), "IP4 255.255.255.255", 4000, 330),
        (local(), "IP4 phone.example.com", 4000, 301),
        (local(), "IP6 2001:db8::1", 4000, 301),
        (local(), "IP4 10.99.0.2", 50_000, 301),
        (local(), "IP4 10.99.0.2", 50_001, 301),
        (v6.clone(), "IP4 192.0.2.1", 4000, 301),
        (v6.clone(), "IP6 ff02::1", 4000, 330),
    ] {
        let offer = peer(&format!("m=audio {port} RTP/AVP 0\nc=IN {connection}"));
        assert_eq!(refusal(answer(&offer, &audio)).0, warning, "{connection} {port}");
    }
    let no_connection = parse("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n");
    assert_eq!(refusal(answer(&no_connection, &local())).0, 301);
    for (audio, connection) in [(local(), "IP4 10.99.0.2"), (v6, "IP6 2001:db8::1"), (local(), "IP6 ::ffff:192.0.2.9")]
    {
        let offer = peer(&format!("m=audio 4000 RTP/AVP 0\nc=IN {connection}"));
        assert!(answer(&offer, &audio).is_ok(), "{connection}");
    }
}

#[test]
fn rtcp_goes_where_the_peer_says() {
    for (lines, rtcp, mux) in [
        ("", "192.0.2.1:4001", false),
        ("a=rtcp:4500", "192.0.2.1:4500", false),
        ("a=rtcp:4500 IN IP4 192.0.2.8", "192.0.2.8:4500", false),
        ("a=rtcp:4500 IN IP4 224.0.0.1", "192.0.2.1:4500", false),
        ("a=rtcp:4500 IN IP6 2001:db8::1", "192.0.2.1:4500", false),
        ("a=rtcp:0", "192.0.2.1:4001", false),
        ("a=rtcp:4500\na=rtcp-mux", "192.0.2.1:4000", true),
    ] {
        let (text, params) = agreed(&peer(&format!("m=audio 4000 RTP/AVP 0\n{lines}")), &local());
        assert_eq!((params.remote_rtcp, params.rtcp_mux), (address(rtcp), mux), "{lines}");
        assert_eq!(text.contains("a=rtcp-mux"), mux, "{text}");
    }
    let (_, last) = agreed(&peer("m=audio 65535 RTP/AVP 0"), &local());
    assert_eq!(last.remote_rtcp, address("192.0.2.1:65535"));
    let (text, clash) = agreed(&peer("m=audio 4000 RTP/AVP 72\na=rtpmap:72 PCMU/8000\na=rtcp-mux"), &local());
    assert!(!clash.rtcp_mux && !text.contains("rtcp-mux"), "{text}");
}

#[test]
fn packet_times_are_honoured_within_bounds() {
    for (lines, codec, expected) in [
        ("", 0, 20),
        ("a=ptime:10", 0, 10),
        ("a=ptime:30", 0, 30),
        ("a=ptime:60", 0, 60),
        ("a=ptime:25", 0, 20),
        ("a=ptime:0", 0, 10),
        ("a=ptime:5", 0, 10),
        ("a=ptime:4000000000", 0, 60),
        ("a=ptime:x", 0, 20),
        ("a=ptime:40\na=maxptime:20", 0, 20),
        ("a=maxptime:10", 0, 10),
        ("a=maxptime:0", 0, 20),
        ("a=ptime:30", 96, 20),
        ("a=ptime:50", 96, 40),
        ("a=ptime:60", 96, 60),
    ] {
        let offer = peer(&format!("m=audio 4000 RTP/AVP {codec}\na=rtpmap:96 opus/48000/2\n{lines}"));
        assert_eq!(agreed(&offer, &local()).1.ptime_ms, expected, "{lines} {codec}");
    }
}

#[test]
fn every_m_line_is_answered_in_order() {
    let offer = peer(
        "m=video 5000 RTP/AVP 96 97\na=mid:v\nm=audio 4000 RTP/AVP 18\nm=audio 4002 RTP/AVP 8\na=mid:a\n\
         m=audio 4004 RTP/AVP 0\nm=message 7654 TCP/TLS/MSRP *\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\n\
         m=image 0 udptl t38",
    );
    let (text, params) = agreed(&offer, &local());
    assert_eq!(
        text,
        "m=video 0 RTP/AVP 96\na=mid:v\nm=audio 0 RTP/AVP 18\nm=audio 50000 RTP/AVP 8\na=mid:a\n\
         a=rtpmap:8 PCMA/8000\na=ptime:20\na=sendrecv\nm=audio 0 RTP/AVP 0\nm=message 0 TCP/TLS/MSRP *\n\
         m=application 0 UDP/DTLS/SCTP webrtc-datachannel\nm=image 0 udptl t38\n"
    );
    assert_eq!(params.remote_rtp, address("192.0.2.1:4002"));
}

#[test]
fn what_an_offer_holds() {
    for (lines, audio, chat) in [
        ("m=audio 4000 RTP/AVP 0", true, false),
        ("m=audio 4000 UDP/TLS/RTP/SAVPF 0", true, false),
        ("m=audio 0 RTP/AVP 0", false, false),
        ("m=audio 4000 TCP/RTP/AVP 0", false, false),
        ("m=message 7654 TCP/MSRP *\na=path:msrp://h:1/s;tcp\nm=AUDIO 4000 RTP/AVP 0", true, true),
        ("m=message 0 TCP/MSRP *", false, false),
        ("", false, false),
    ] {
        let summary = Negotiator::inspect(&peer(lines));
        assert_eq!((summary.audio, summary.chat), (audio, chat), "{lines}");
        assert_eq!(summary.audio_direction, if audio { SendRecv } else { Inactive });
    }
}

#[test]
fn offers_without_audio() {
    for lines in ["m=video 5000 RTP/AVP 96", "m=message 7654 TCP/MSRP *"] {
        assert_eq!(answer(&peer(lines), &local()), Err(NegotiationError::NoKnownMedia), "{lines}");
    }
    // A stream that is offered as gone is answered as gone; an empty offer is a legal one.
    for (lines, text) in [("m=audio 0 RTP/AVP 0", "m=audio 0 RTP/AVP 0\n"), ("", "")] {
        let (description, params) = answer(&peer(lines), &local()).unwrap();
        assert_eq!((body(&description).as_str(), params), (text, None));
    }
    // The application may refuse audio that could be had.
    let mut negotiator = Negotiator::new(&mut random());
    let (description, params) =
        negotiator.answer_audio(&peer("m=audio 4000 RTP/AVP 0 8"), None, &mut random()).unwrap();
    assert_eq!((body(&description).as_str(), params), ("m=audio 0 RTP/AVP 0\n", None));
}

#[test]
fn srtp_policies_meet_profiles() {
    use SrtpPolicy::{Disabled, Mandatory, Optional};
    let crypto =
        format!("a=crypto:1 F8_128_HMAC_SHA1_80 inline:{KEY}\na=crypto:4 AES_CM_128_HMAC_SHA1_32 inline:{KEY}");
    let weak = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTP");
    let mki = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4");
    let fingerprint = "a=fingerprint:sha-256 7B:7B\na=setup:actpass";
    for (profile, lines, policy, expected) in [
        ("RTP/AVP", "", Disabled, Ok(false)),
        ("RTP/AVP", "", Optional, Ok(false)),
        ("RTP/AVP", "", Mandatory, Err(399)),
        ("RTP/AVP", crypto.as_str(), Disabled, Ok(false)),
        ("RTP/AVP", crypto.as_str(), Optional, Ok(true)),
        ("RTP/AVPF", crypto.as_str(), Optional, Ok(true)),
        ("RTP/AVP", crypto.as_str(), Mandatory, Ok(true)),
        ("RTP/AVP", weak.as_str(), Optional, Ok(false)),
        ("RTP/AVP", weak.as_str(), Mandatory, Err(306)),
        ("RTP/SAVP", crypto.as_str(), Disabled, Err(302)),
        ("RTP/SAVP", crypto.as_str(), Optional, Ok(true)),
        ("RTP/SAVPF", crypto.as_str(), Mandatory, Ok(true)),
        ("RTP/SAVP", weak.as_str(), Optional, Err(306)),
        ("RTP/SAVP", mki.as_str(), Optional, Err(306)),
        ("RTP/SAVP", "", Optional, Err(306)),
        ("RTP/SAVP", fingerprint, Optional, Err(302)),
        ("RTP/SAVPF", fingerprint, Mandatory, Err(302)),
        ("UDP/TLS/RTP/SAVPF", fingerprint, Optional, Err(302)),
        ("UDP/TLS/RTP/SAVP", fingerprint, Disabled, Err(302)),
        ("TCP/RTP/AVP", "", Optional, Err(302)),
    ] {
        let result = answer(&peer(&format!("m=audio 4000 {profile} 0\n{lines}")), &with_srtp(policy));
        let seen = match result {
            Ok((description, params)) => {
                let line = description.media().next().unwrap();
                assert_eq!(line.protocol(), profile, "the profile is mirrored");
                let srtp = params.unwrap().srtp;
                let answered: Vec<_> = line.crypto().map(|line| line.unwrap()).collect();
                assert_eq!(answered.len(), usize::from(srtp.is_some()));
                for (answered, srtp) in answered.into_iter().zip(srtp) {
                    assert_eq!((answered.tag, answered.suite), (4, SrtpSuite::AesCm128HmacSha1_32));
                    assert_eq!((srtp.local, srtp.suite), (answered.key, answered.suite));
                    assert_eq!(srtp.remote.0.as_slice(), b"wDfvg&T+)xG7@fb5jU,RaA}\\|p0%*#");
                }
                Ok(srtp.is_some())
            }
            error => Err(refusal(error).0),
        };
        assert_eq!(seen, expected, "{profile} {lines} {policy:?}");
    }
    let dtls = refusal(answer(&peer(&format!("m=audio 4000 RTP/SAVP 0\n{fingerprint}")), &local()));
    assert!(dtls.1.contains("DTLS"), "{}", dtls.1);
}

/// Offers with this policy and takes this answer; `{1}` and `{2}` stand for our crypto lines' values.
fn answered(policy: SrtpPolicy, lines: &str) -> Result<Option<AudioParams>, NegotiationError> {
    let mut negotiator = Negotiator::new(&mut random());
    let offer = negotiator.offer(Some(&with_srtp(policy)), &mut random());
    let mut lines = lines.to_owned();
    for (index, value) in offer.media().next().unwrap().attributes("crypto").enumerate() {
        lines = lines.replace(&format!("{{{}}}", index + 1), value);
    }
    negotiator.accept_audio(&peer(&lines))
}

#[test]
fn answers_to_our_offer() {
    let params = answered(
        SrtpPolicy::Disabled,
        "m=audio 4000 RTP/AVP 8 111 126 100\na=rtpmap:111 opus/48000/2\na=rtpmap:126 telephone-event/8000\n\
         a=rtpmap:100 telephone-event/48000\na=rtcp-mux\na=ptime:30",
    );
    let expected = AudioParams {
        remote_rtp: address("192.0.2.1:4000"),
        remote_rtcp: address("192.0.2.1:4000"),
        rtcp_mux: true,
        direction: SendRecv,
        send: format(CodecKind::Pcma, 8),
        receive: vec![
            format(CodecKind::Opus, 96),
            format(CodecKind::G722, 9),
            format(CodecKind::Pcmu, 0),
            format(CodecKind::Pcma, 8),
            format(CodecKind::Opus, 111),
        ],
        dtmf_send: Some(126),
        dtmf_receive: Some(101),
        ptime_ms: 30,
        srtp: None,
        symmetric: true,
    };
    assert_eq!(params, Ok(Some(expected)));
    assert_eq!(answered(SrtpPolicy::Optional, "m=audio 0 RTP/AVP 0"), Ok(None), "refused");
}

#[test]
fn answers_that_break_our_offer() {
    use SrtpPolicy::{Disabled, Mandatory, Optional};
    let other = format!("AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
    for (policy, lines, warning) in [
        (Disabled, "m=audio 4000 RTP/AVP 18", 305),
        (Disabled, "m=audio 4000 RTP/AVP 101\na=rtpmap:101 telephone-event/8000", 305),
        (Disabled, "m=video 4000 RTP/AVP 31", 399),
        (Disabled, "", 399),
        (Disabled, "m=audio 4000 UDP/TLS/RTP/SAVPF 0", 302),
        (Disabled, "m=audio 4000 RTP/AVP 0\nc=IN IP4 224.0.0.1", 330),
        (Disabled, "m=audio 4000 RTP/AVP 0\nc=IN IP4 phone.example.com", 301),
        (Optional, "m=audio 4000 RTP/SAVP 0", 306),
        (Mandatory, "m=audio 4000 RTP/SAVP 0", 306),
        (Mandatory, "m=audio 4000 RTP/AVP 0", 306),
        (Optional, "m=audio 4000 RTP/AVP 0\na=crypto:3 KEY", 306),
        (Optional, "m=audio 4000 RTP/AVP 0\na=crypto:2 KEY", 306),
        (Optional, "m=audio 4000 RTP/AVP 0\na=crypto:1 KEY UNENCRYPTED_SRTP", 306),
        (Optional, "m=audio 4000 RTP/AVP 0\na=crypto:1 KEY|1:4", 306),
        (Optional, "m=audio 4000 RTP/AVP 0\na=crypto:{1}", 306), // our own key
    ] {
        assert_eq!(refusal(answered(policy, &lines.replace("KEY", &other))).0, warning, "{policy:?} {lines}");
    }
    let mut idle = Negotiator::new(&mut random());
    assert_eq!(refusal(idle.accept_audio(&peer("m=audio 4000 RTP/AVP 0"))).0, 399);
}

#[test]
fn keys_of_an_answer_pair_with_ours() {
    for policy in [SrtpPolicy::Optional, SrtpPolicy::Mandatory] {
        for (tag, suite) in [(1, SrtpSuite::AesCm128HmacSha1_80), (2, SrtpSuite::AesCm128HmacSha1_32)] {
            let mut negotiator = Negotiator::new(&mut random());
            let offer = negotiator.offer(Some(&with_srtp(policy)), &mut random());
            let ours = offer.media().next().unwrap().crypto().nth(tag - 1).unwrap().unwrap();
            let lines = format!("m=audio 4000 RTP/SAVP 0\na=crypto:{tag} {} inline:{KEY}", suite.name());
            let srtp = negotiator.accept_audio(&peer(&lines)).unwrap().unwrap().srtp.unwrap();
            assert_eq!((srtp.suite, srtp.local), (suite, ours.key));
            assert_ne!(srtp.local, srtp.remote);
        }
    }
    // Optional and a peer without SRTP: plain RTP.
    assert_eq!(answered(SrtpPolicy::Optional, "m=audio 4000 RTP/AVP 0").unwrap().unwrap().srtp, None);
}

#[test]
fn both_sides_agree_with_each_other() {
    for srtp in [SrtpPolicy::Disabled, SrtpPolicy::Optional, SrtpPolicy::Mandatory] {
        for codec in CodecKind::ALL {
            let (mut caller, mut callee) = (Negotiator::new(&mut random()), Negotiator::new(&mut random()));
            let ours = LocalAudio { codecs: vec![codec], ..with_srtp(srtp) };
            let media = LocalMedia { address: "10.99.0.3".parse().unwrap(), rtp_port: 6000, rtcp_port: 6007 };
            let theirs = LocalAudio { media, ..with_srtp(srtp) };
            let offer = parse(&caller.offer(Some(&ours), &mut random()).to_string());
            let (answer, callee_params) =
                callee.answer_audio(&offer, Some(&theirs), &mut StdRng::seed_from_u64(8)).unwrap();
            let caller_params = caller.accept_audio(&parse(&answer.to_string())).unwrap().unwrap();
            let callee_params = callee_params.unwrap();
            assert_eq!(caller_params.send, callee_params.send);
            assert_eq!((caller_params.dtmf_send, callee_params.dtmf_send.is_some()), (callee_params.dtmf_send, true));
            assert_eq!(caller_params.srtp.is_some(), srtp != SrtpPolicy::Disabled);
            assert_eq!(
                caller_params.srtp.map(|keys| (keys.local, keys.remote)),
                callee_params.srtp.map(|keys| (keys.remote, keys.local))
            );
            assert_eq!(caller_params.remote_rtp, address("10.99.0.3:6000"));
            assert_eq!(callee_params.remote_rtp, address("10.99.0.2:50000"));
            assert!(caller_params.rtcp_mux && callee_params.rtcp_mux);
        }
    }
}

#[test]
fn the_version_grows_only_with_a_change() {
    let mut negotiator = Negotiator::new(&mut random());
    let random = &mut random();
    let audio = with_srtp(SrtpPolicy::Optional);
    let first = negotiator.offer(Some(&audio), random);
    let answer = peer("m=audio 4000 RTP/AVP 0");
    negotiator.accept_audio(&answer).unwrap();
    let refresh = negotiator.offer(Some(&audio), random);
    assert_eq!(refresh, first, "a refresh repeats every byte, keys included");
    negotiator.accept_audio(&answer).unwrap();
    let hold = negotiator.offer(Some(&LocalAudio { direction: SendOnly, ..audio.clone() }), random);
    assert_eq!(version_of(&hold), "2");
    assert_eq!(hold.to_string().replace("sendonly", "sendrecv").replace(" 2 IN", " 1 IN"), first.to_string());
    negotiator.accept_audio(&answer).unwrap();
    let moved = LocalMedia { address: "10.99.0.77".parse().unwrap(), ..audio.media };
    let moved = negotiator.offer(Some(&LocalAudio { media: moved, ..audio }), random);
    assert_eq!((version_of(&moved).as_str(), moved.origin().address.as_str()), ("3", "10.99.0.2"));
    assert!(moved.to_string().contains("c=IN IP4 10.99.0.77"));
}

#[test]
fn a_repeated_offer_gets_the_same_answer() {
    let mut negotiator = Negotiator::new(&mut random());
    let offer = peer(&format!("m=audio 4000 RTP/AVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"));
    let audio = with_srtp(SrtpPolicy::Optional);
    let random = &mut random();
    let first = negotiator.answer_audio(&offer, Some(&audio), random).unwrap();
    assert_eq!(negotiator.answer_audio(&offer, Some(&audio), random), Ok(first.clone()));
    let hold =
        version(2, &format!("m=audio 4000 RTP/AVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\na=sendonly"));
    let (answer, params) = negotiator.answer_audio(&hold, Some(&audio), random).unwrap();
    assert_eq!(version_of(&answer), "2");
    assert_eq!(params.as_ref().unwrap().srtp, first.1.unwrap().srtp, "the keys stand");
    let rekey = version(
        3,
        &format!("m=audio 4000 RTP/AVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}", KEY.replace('d', "e")),
    );
    let (_, rekeyed) = negotiator.answer_audio(&rekey, Some(&audio), random).unwrap();
    assert_ne!(rekeyed.unwrap().srtp, params.unwrap().srtp, "a new remote key shows in the parameters");
}

#[test]
fn later_offers_that_contradict_are_refused_and_change_nothing() {
    let mut negotiator = Negotiator::new(&mut random());
    let random = &mut random();
    let audio = local();
    let two = "m=audio 4000 RTP/AVP 0\nm=video 5000 RTP/AVP 31";
    negotiator.answer_audio(&version(5, two), Some(&audio), random).unwrap();
    for (offer, what) in [
        (version(6, "m=audio 4000 RTP/AVP 0"), "fewer m-lines"),
        (version(6, "m=video 4000 RTP/AVP 31\nm=audio 5000 RTP/AVP 0"), "media type"),
        (version(5, "m=audio 4000 RTP/AVP 0\na=sendonly\nm=video 5000 RTP/AVP 31"), "did not"),
        (version(4, two), "backwards"),
        (version(6, "m=audio 4000 RTP/AVP 18\nm=video 5000 RTP/AVP 31"), "codecs"),
    ] {
        let before = format!("{negotiator:?}");
        let (_, text) = refusal(negotiator.answer_audio(&offer, Some(&audio), random));
        assert!(text.contains(what), "{text}");
        assert_eq!(format!("{negotiator:?}"), before, "{what}");
    }
    // Any increase will do, and a refused m-line may become something else.
    let (answer, _) = negotiator
        .answer_audio(&version(900, "m=audio 4000 RTP/AVP 0\nm=message 7 TCP/MSRP *"), Some(&audio), random)
        .unwrap();
    assert!(body(&answer).ends_with("m=message 0 TCP/MSRP *\n"));
    // A new author behind a back-to-back agent counts anew.
    let other = two.replace("4000", "4444");
    let text = format!("v=0\no=other 1 1 IN IP4 192.0.2.5\ns=-\nc=IN IP4 192.0.2.5\nt=0 0\n{other}\n");
    assert!(negotiator.answer_audio(&parse(&text), Some(&audio), random).is_ok());
}

#[test]
fn versions_compare_at_any_length() {
    for (left, right, expected) in [
        ("1", "2", Some(Ordering::Less)),
        ("10", "9", Some(Ordering::Greater)),
        ("007", "7", Some(Ordering::Equal)),
        ("99999999999999999999", "99999999999999999998", Some(Ordering::Greater)),
        ("", "1", None),
        ("x", "1", None),
        ("-1", "1", None),
    ] {
        assert_eq!(compare_numbers(left, right), expected, "{left} {right}");
    }
}

#[test]
fn payload_types_keep_their_meaning_through_a_session() {
    let mut negotiator = Negotiator::new(&mut random());
    let random = &mut random();
    let lines = "m=audio 4000 RTP/AVP 111 96\na=rtpmap:111 opus/48000/2\na=rtpmap:96 telephone-event/48000";
    negotiator.answer_audio(&version(1, lines), Some(&local()), random).unwrap();
    let ours = body(&negotiator.offer(Some(&local()), random));
    assert!(ours.starts_with("m=audio 50000 RTP/AVP 111 9 0 8 96 101\n"), "{ours}");
    negotiator.roll_back();
    // The peer breaks the rule and moves Opus to 96: we answer with our 111 and send with its 96.
    let lines = "m=audio 4000 RTP/AVP 96\na=rtpmap:96 opus/48000/2";
    let (answer, params) = negotiator.answer_audio(&version(2, lines), Some(&local()), random).unwrap();
    assert!(body(&answer).starts_with("m=audio 50000 RTP/AVP 111\n"), "{answer}");
    let params = params.unwrap();
    assert_eq!((params.send.payload_type, params.receive), (96, vec![format(CodecKind::Opus, 111)]));
}

#[test]
fn a_hold_of_ours_offers_the_running_codec_and_suite_first() {
    let mut negotiator = Negotiator::new(&mut random());
    let random = &mut random();
    let lines = format!("m=audio 4000 RTP/SAVPF 8 0\na=crypto:7 AES_CM_128_HMAC_SHA1_32 inline:{KEY}");
    let audio = with_srtp(SrtpPolicy::Optional);
    negotiator.answer_audio(&peer(&lines), Some(&audio), random).unwrap();
    let hold = negotiator.offer(Some(&LocalAudio { direction: SendOnly, ..audio }), random);
    let text = body(&hold);
    assert!(text.starts_with("m=audio 50000 RTP/SAVPF 8 96 9 0 97 101\n"), "{text}");
    let suites: Vec<_> = hold.media().next().unwrap().crypto().map(|line| line.unwrap().suite).collect();
    assert_eq!(suites, [SrtpSuite::AesCm128HmacSha1_32, SrtpSuite::AesCm128HmacSha1_80]);
}

#[test]
fn m_lines_never_vanish_and_audio_returns_to_its_place() {
    let mut negotiator = Negotiator::new(&mut random());
    let random = &mut random();
    let audio = with_srtp(SrtpPolicy::Mandatory);
    let offer = peer("m=video 5000 RTP/AVP 31\nm=audio 0 RTP/AVP 0");
    negotiator.answer_audio(&offer, None, random).unwrap();
    let added = negotiator.offer(Some(&audio), random);
    assert!(body(&added).starts_with("m=video 0 RTP/AVP 31\nm=audio 50000 RTP/SAVP 96 "), "{added}");
    let key = |description: &Description| description.media().nth(1).unwrap().crypto().next().unwrap().unwrap().key;
    let lines =
        format!("m=video 0 RTP/AVP 31\nm=audio 4000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
    assert!(negotiator.accept_audio(&peer(&lines)).unwrap().is_some());
    let removed = negotiator.offer(None, random);
    assert_eq!(body(&removed), "m=video 0 RTP/AVP 31\nm=audio 0 RTP/SAVP 0\n");
    assert_eq!(negotiator.accept_audio(&peer("m=video 0 RTP/AVP 31\nm=audio 0 RTP/SAVP 0")), Ok(None));
    let again = negotiator.offer(Some(&audio), random);
    assert_ne!(key(&again), key(&added), "a new stream has new keys");
    assert_eq!(again.media().len(), 2);
}

#[test]
fn a_refused_offer_is_rolled_back() {
    let mut negotiator = Negotiator::new(&mut random());
    let random = &mut random();
    negotiator.answer_audio(&peer("m=audio 4000 RTP/AVP 0"), Some(&local()), random).unwrap();
    let hold = negotiator.offer(Some(&LocalAudio { direction: SendOnly, ..local() }), random);
    assert_eq!(version_of(&hold), "2");
    negotiator.roll_back();
    assert!(negotiator.accept_audio(&peer("m=audio 4000 RTP/AVP 0")).is_err(), "no offer is open");
    // The peer saw version 2, so going back is version 3.
    let (answer, params) =
        negotiator.answer_audio(&version(2, "m=audio 4000 RTP/AVP 0\na=ptime:20"), Some(&local()), random).unwrap();
    assert_eq!((version_of(&answer).as_str(), params.unwrap().direction), ("3", SendRecv));
    // A refused first offer leaves no m-line behind.
    let mut fresh = Negotiator::new(random);
    fresh.offer(Some(&local()), random);
    fresh.roll_back();
    assert_eq!(body(&fresh.offer(None, random)), "");
}

#[test]
fn early_and_final_answers_and_forks() {
    let mut negotiator = Negotiator::new(&mut random());
    negotiator.offer(Some(&local()), &mut random());
    let mut fork = negotiator.clone();
    let early = negotiator.accept_audio(&peer("m=audio 4000 RTP/AVP 0")).unwrap().unwrap();
    let last = negotiator.accept_audio(&peer("m=audio 4000 RTP/AVP 0")).unwrap().unwrap();
    assert_eq!(early, last);
    let other = fork.accept_audio(&peer("m=audio 4444 RTP/AVP 8")).unwrap().unwrap();
    assert_eq!((other.remote_rtp, other.send.codec), (address("192.0.2.1:4444"), CodecKind::Pcma));
}

#[test]
fn captured_offers_are_answered() {
    let opus = CodecKind::Opus;
    for (name, offer, policy, send, dtmf, srtp) in [
        ("baresip", client!("baresip-call"), SrtpPolicy::Optional, format(opus, 96), Some(101), false),
        ("baresip", client!("baresip-pcmu"), SrtpPolicy::Optional, format(CodecKind::Pcmu, 0), Some(101), false),
        ("baresip", client!("baresip-srtp-optional"), SrtpPolicy::Optional, format(opus, 96), Some(101), true),
        ("baresip", client!("baresip-srtp-optional"), SrtpPolicy::Disabled, format(opus, 96), Some(101), false),
        ("baresip", client!("baresip-srtp-mandatory"), SrtpPolicy::Mandatory, format(opus, 96), Some(101), true),
        ("linphone", client!("linphone-call"), SrtpPolicy::Optional, format(opus, 96), Some(99), false),
        ("linphone", client!("linphone-srtp"), SrtpPolicy::Mandatory, format(opus, 96), Some(99), true),
        ("linphone", client!("linphone-zrtp"), SrtpPolicy::Optional, format(opus, 96), Some(99), false),
        ("twinkle", client!("twinkle-call"), SrtpPolicy::Optional, format(CodecKind::Pcma, 8), Some(101), false),
        ("sipp", client!("sipp-call"), SrtpPolicy::Optional, format(CodecKind::Pcmu, 0), None, false),
        ("rtpengine", client!("rtpengine-offer"), SrtpPolicy::Optional, format(opus, 111), Some(110), false),
    ] {
        let (_, params) = answer(&offer, &LocalAudio { media: home(&offer), ..with_srtp(policy) })
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let params = params.unwrap();
        assert_eq!((params.send, params.dtmf_send, params.srtp.is_some()), (send, dtmf, srtp), "{name}");
        assert_eq!(params.direction, SendRecv, "{name}");
    }
    for (name, offer) in [
        ("baresip", client!("baresip-dtls")),
        ("linphone", client!("linphone-dtls")),
        ("chromium", client!("chromium-call")),
        ("firefox", client!("firefox-mdns")),
    ] {
        let (code, text) = refusal(answer(&offer, &with_srtp(SrtpPolicy::Optional)));
        assert!(code == 302 && text.contains("DTLS"), "{name}: {text}");
        assert!(Negotiator::inspect(&offer).audio, "{name}");
    }
    // Mandatory refuses what has no keys.
    assert_eq!(refusal(answer(&client!("twinkle-call"), &with_srtp(SrtpPolicy::Mandatory))).0, 399);
}

/// An address of ours in the family of the offer.
fn home(offer: &Description) -> LocalMedia {
    let connection = offer.media().next().and_then(|media| media.connection());
    let v6 = matches!(connection, Some(crate::sdp::description::Connection::Ip(IpAddr::V6(_))));
    LocalMedia { address: if v6 { "2001:db8::2" } else { "10.99.0.2" }.parse().unwrap(), ..local().media }
}

#[test]
fn captured_holds_are_followed() {
    for (call, hold, resumed, directions) in [
        (client!("baresip-call"), client!("baresip-hold"), None, [RecvOnly, SendRecv]),
        (client!("linphone-call"), client!("linphone-pause"), Some(client!("linphone-resume")), [RecvOnly, SendRecv]),
        (client!("twinkle-call"), client!("twinkle-hold"), None, [RecvOnly, SendRecv]),
    ] {
        let mut negotiator = Negotiator::new(&mut random());
        let random = &mut random();
        let first = negotiator.answer_audio(&call, Some(&local()), random).unwrap().1.unwrap();
        let held = negotiator.answer_audio(&hold, Some(&local()), random).unwrap().1.unwrap();
        assert_eq!((held.direction, held.send), (directions[0], first.send), "{hold}");
        if let Some(resumed) = resumed {
            let again = negotiator.answer_audio(&resumed, Some(&local()), random).unwrap().1.unwrap();
            assert_eq!((again.direction, &again), (directions[1], &first));
        }
    }
}

#[test]
fn a_captured_answer_is_taken() {
    let mut negotiator = Negotiator::new(&mut random());
    negotiator.offer(Some(&local()), &mut random());
    let params = negotiator.accept_audio(&client!("baresip-answer")).unwrap().unwrap();
    assert_eq!(params.send, format(CodecKind::Opus, 111), "the answerer's own number");
    assert_eq!(params.receive[0], format(CodecKind::Opus, 96), "what we asked for");
    assert!(params.receive.contains(&format(CodecKind::Opus, 111)), "what it may send all the same");
}

#[test]
fn mutated_descriptions_do_no_harm() {
    let seeds = [
        include_bytes!("../../../tests/data/sdp/rfc4566-full.sdp").as_slice(),
        include_bytes!("../../../tests/data/sdp/chromium-av-offer.sdp"),
        include_bytes!("../../../tests/data/sdp/baresip-style.sdp"),
        include_bytes!("../../../tests/data/sdp/msrp.sdp"),
        include_bytes!("../../../tests/data/sdp/clients/linphone-srtp.sdp"),
        include_bytes!("../../../tests/data/sdp/clients/baresip-answer.sdp"),
    ];
    const PIECES: [&[u8]; 12] = [
        b"\r\n",
        b"=",
        b"/",
        b" ",
        b"65536",
        b"-1",
        b"0.0.0.0",
        b"\xff\x00",
        b"m=audio 5 RTP/AVP 0\r\n",
        b"inline:",
        b"|1:4",
        b"a=rtpmap:0 opus/48000/2\r\n",
    ];
    let rng = &mut StdRng::seed_from_u64(0x5d9);
    let (mut parsed, mut taken) = (0, 0);
    for round in 0..4_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] = rng.random(),
                1 => drop(bytes.splice(at..at, PIECES[rng.random_range(0..PIECES.len())].iter().copied())),
                2 => drop(bytes.drain(at..(at + rng.random_range(1..20)).min(bytes.len()))),
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                bytes.push(b'v');
            }
        }
        let Ok(description) = Description::parse(&bytes) else { continue };
        parsed += 1;
        // What was read prints to something that reads the same.
        let printed = description.to_string();
        let again =
            Description::parse(printed.as_bytes()).unwrap_or_else(|error| panic!("round {round}: {error}\n{printed}"));
        assert_eq!(again.to_string(), printed, "round {round}");
        Negotiator::inspect(&description);
        for policy in [SrtpPolicy::Optional, SrtpPolicy::Mandatory] {
            let mut negotiator = Negotiator::new(rng);
            negotiator.offer(Some(&with_srtp(policy)), rng);
            taken += usize::from(negotiator.accept_audio(&description).is_ok());
            taken += usize::from(negotiator.answer_audio(&description, Some(&with_srtp(policy)), rng).is_ok());
            negotiator.offer(Some(&with_srtp(policy)), rng);
        }
    }
    assert!(parsed > 1_000 && taken > 500, "the mutations leave something to test: {parsed} {taken}");
}
