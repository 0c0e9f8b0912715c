//! RTP packets (RFC 3550 §5.1) and what else may arrive on the same port (RFC 7983, RFC 5761).

use thiserror::Error;

/// The fixed header; CSRCs and an extension may follow.
pub const HEADER_LEN: usize = 12;
/// The longest payload taken from a packet: an Ethernet MTU leaves no room for more.
pub const MAX_PAYLOAD: usize = 1500;

/// Why bytes are no RTP packet. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PacketError {
    #[error("RTP version is {0}, not 2")]
    Version(u8),
    #[error("RTP packet of {0} bytes is shorter than its header")]
    Truncated(usize),
    #[error("RTP padding of {0} bytes is none or longer than the payload")]
    Padding(u8),
}

/// The fixed part of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl Header {
    /// Reads the header, CSRCs and extension included; returns it with the offset where the payload begins. Padding is
    /// left alone, for under SRTP it is still encrypted.
    ///
    /// # Errors
    /// [`PacketError::Version`] or [`PacketError::Truncated`].
    pub fn parse(packet: &[u8]) -> Result<(Self, usize), PacketError> {
        let truncated = PacketError::Truncated(packet.len());
        let fixed = packet.first_chunk::<HEADER_LEN>().ok_or(truncated)?;
        let [flags, kind, s0, s1, t0, t1, t2, t3, x0, x1, x2, x3] = *fixed;
        if flags >> 6 != 2 {
            return Err(PacketError::Version(flags >> 6));
        }
        let mut offset = HEADER_LEN + 4 * usize::from(flags & 0x0f);
        if flags & 0x10 != 0 {
            let words = packet.get(offset + 2..offset + 4).and_then(|b| b.first_chunk::<2>()).ok_or(truncated)?;
            offset += 4 + 4 * usize::from(u16::from_be_bytes(*words));
        }
        if offset > packet.len() {
            return Err(truncated);
        }
        let header = Self {
            marker: kind & 0x80 != 0,
            payload_type: kind & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([x0, x1, x2, x3]),
        };
        Ok((header, offset))
    }

    /// The twelve bytes of a header without CSRC, extension or padding.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [x0, x1, x2, x3] = self.ssrc.to_be_bytes();
        [0x80, u8::from(self.marker) << 7 | (self.payload_type & 0x7f), s0, s1, t0, t1, t2, t3, x0, x1, x2, x3]
    }
}

/// A packet with its payload, padding removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub header: Header,
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet that is not (or no longer) encrypted.
    ///
    /// # Errors
    /// [`PacketError`] for another version, lengths beyond the end, or padding that cannot be (RFC 3550 §A.1).
    pub fn parse(packet: &'a [u8]) -> Result<Self, PacketError> {
        let (header, offset) = Header::parse(packet)?;
        let mut payload = packet.get(offset..).unwrap_or_default();
        if packet.first().is_some_and(|flags| flags & 0x20 != 0) {
            let padding = payload.last().copied().unwrap_or(0);
            let kept = payload.len().checked_sub(usize::from(padding)).filter(|_| padding > 0);
            payload = kept.and_then(|kept| payload.get(..kept)).ok_or(PacketError::Padding(padding))?;
        }
        Ok(Self { header, payload })
    }
}

/// What a datagram on a media port is, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Stun,
    Zrtp,
    Dtls,
    TurnChannel,
    Rtp,
    Rtcp,
}

impl Protocol {
    /// Tells protocols that share a port apart (RFC 7983 §7; RTP from RTCP by RFC 5761 §4: payload types 64 to 95 belong
    /// to RTCP). `None` for what is nothing of these or too short to be: drop it.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        let (protocol, shortest) = match *datagram.first()? {
            0..=3 => (Self::Stun, 20),
            16..=19 => (Self::Zrtp, 12),
            20..=63 => (Self::Dtls, 13),
            64..=79 => (Self::TurnChannel, 4),
            128..=191 if matches!(datagram.get(1)? & 0x7f, 64..=95) => (Self::Rtcp, 8),
            128..=191 => (Self::Rtp, HEADER_LEN),
            _ => return None,
        };
        (datagram.len() >= shortest).then_some(protocol)
    }
}

/// `a - b` on a circle of 2^16: how far sequence number `a` is ahead of `b`, negative when behind.
pub fn sequence_distance(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b).cast_signed()
}

/// `a - b` on a circle of 2^32: how far timestamp `a` is ahead of `b`, negative when behind.
pub fn timestamp_distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn data(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rtp").join(name)
    }

    fn json(name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(data(name)).expect("vectors are in the tree")).expect("vectors are JSON")
    }

    #[test]
    fn every_header_vector_is_read_or_dropped_as_said() {
        let vectors = json("rtp.json");
        let packets = vectors["packets"].as_object().expect("a table");
        assert_eq!(packets.len(), 19);
        for (name, verdict) in packets {
            let bytes = std::fs::read(data(&format!("packets/{name}.bin"))).expect("vector file");
            let verdict = verdict.as_str().expect("text");
            match Packet::parse(&bytes) {
                Err(error) => assert_eq!(verdict, "drop", "{name}: {error}"),
                Ok(packet) => {
                    assert!(verdict.starts_with("ok"), "{name} read, but {verdict}");
                    assert_eq!(u64::from(packet.header.ssrc), vectors["ssrc"].as_u64().unwrap(), "{name}");
                    if verdict.contains("160 bytes") {
                        assert_eq!(packet.payload, [0xff; 160], "{name}");
                    } else if verdict.contains("empty") && !verdict.contains("Opus") {
                        assert!(packet.payload.is_empty(), "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_demultiplexing_vector_goes_where_said() {
        let vectors = json("demux/demux.json");
        let expect = vectors["expect"].as_object().expect("a table");
        assert_eq!(expect.len(), 13);
        for (name, verdict) in expect {
            let bytes = std::fs::read(data(&format!("demux/{name}.bin"))).expect("vector file");
            let verdict = verdict.as_str().expect("text");
            let want = match verdict.split([' ', '(']).next().expect("a word") {
                "STUN" => Some(Protocol::Stun),
                "ZRTP" => Some(Protocol::Zrtp),
                "DTLS" => Some(Protocol::Dtls),
                "TURN" => Some(Protocol::TurnChannel),
                "RTP" => Some(Protocol::Rtp),
                "RTCP" => Some(Protocol::Rtcp),
                _ => None,
            };
            assert_eq!(Protocol::of(&bytes), want, "{name}: {verdict}");
        }
    }

    #[test]
    fn a_built_header_reads_back() {
        let header = Header { marker: true, payload_type: 111, sequence: 65535, timestamp: 0xfedc_ba98, ssrc: 7 };
        assert_eq!(Header::parse(&header.to_bytes()), Ok((header, HEADER_LEN)));
    }

    #[test]
    fn every_vector_cut_anywhere_or_with_any_byte_changed_never_panics() {
        for folder in ["packets", "demux"] {
            for entry in std::fs::read_dir(data(folder)).expect("vectors") {
                let mut bytes = std::fs::read(entry.expect("entry").path()).expect("vector file");
                for end in 0..=bytes.len() {
                    let _ = Packet::parse(&bytes[..end]);
                    let _ = Protocol::of(&bytes[..end]);
                }
                for at in 0..bytes.len().min(40) {
                    let kept = bytes[at];
                    for value in [0, 1, 0x0f, 0x1f, 0x3f, 0x90, 0xbf, 0xff] {
                        bytes[at] = value;
                        let _ = Packet::parse(&bytes);
                    }
                    bytes[at] = kept;
                }
            }
        }
    }

    #[test]
    fn distances_cross_the_wrap() {
        assert_eq!(sequence_distance(2, 65534), 4);
        assert_eq!(sequence_distance(65534, 2), -4);
        assert_eq!(timestamp_distance(100, u32::MAX - 59), 160);
    }
}
