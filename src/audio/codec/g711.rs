//! PCMU and PCMA (ITU-T G.711), by the formula of the ITU's own reference (G.191): exact at every decision value.

use crate::media::CodecKind;

/// The two ways of G.711 to put 14 (13) bits into 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// PCMU: 14 significant bits.
    Mu,
    /// PCMA: 13 significant bits, every second bit inverted.
    A,
}

/// What is added to a µ-law magnitude so that segments start at powers of two (G.711 table 2a).
const MU_BIAS: u16 = 33;

// Indexed by the sample without the bits its law drops, as an unsigned number.
static MU_ENCODE: [u8; 1 << 14] = encode_table(Law::Mu);
static A_ENCODE: [u8; 1 << 12] = encode_table(Law::A);
static MU_DECODE: [i16; 256] = decode_table(Law::Mu);
static A_DECODE: [i16; 256] = decode_table(Law::A);

impl Law {
    /// The codec of this law.
    pub fn codec(self) -> CodecKind {
        match self {
            Self::Mu => CodecKind::Pcmu,
            Self::A => CodecKind::Pcma,
        }
    }

    /// Encodes sample by sample; `payload` is as long as `frame`.
    pub fn encode(self, frame: &[i16], payload: &mut [u8]) {
        debug_assert_eq!(frame.len(), payload.len());
        match self {
            Self::Mu => {
                for (byte, &sample) in payload.iter_mut().zip(frame) {
                    *byte = MU_ENCODE[usize::from(sample as u16 >> 2)];
                }
            }
            Self::A => {
                for (byte, &sample) in payload.iter_mut().zip(frame) {
                    *byte = A_ENCODE[usize::from(sample as u16 >> 4)];
                }
            }
        }
    }

    /// Decodes byte by byte; `out` is as long as `payload`.
    pub fn decode(self, payload: &[u8], out: &mut [i16]) {
        debug_assert_eq!(payload.len(), out.len());
        let table = match self {
            Self::Mu => &MU_DECODE,
            Self::A => &A_DECODE,
        };
        for (sample, &byte) in out.iter_mut().zip(payload) {
            *sample = table[usize::from(byte)];
        }
    }
}

const fn encode_table<const N: usize>(law: Law) -> [u8; N] {
    let drop = 16 - N.trailing_zeros();
    let mut table = [0; N];
    let mut index = 0;
    while index < N {
        let sample = ((index as u16) << drop) as i16;
        table[index] = match law {
            Law::Mu => encode_mu(sample),
            Law::A => encode_a(sample),
        };
        index += 1;
    }
    table
}

const fn decode_table(law: Law) -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = match law {
            Law::Mu => decode_mu(code as u8),
            Law::A => decode_a(code as u8),
        };
        code += 1;
    }
    table
}

/// One's complement of a negative sample: the ITU's magnitude, so that -1 and 0 are equally small.
const fn magnitude(sample: i16) -> u16 {
    (if sample < 0 { !sample } else { sample }) as u16
}

const fn encode_mu(sample: i16) -> u8 {
    let biased = magnitude(sample) / 4 + MU_BIAS;
    let biased = if biased > 0x1fff { 0x1fff } else { biased };
    let segment = biased.ilog2() - 5; // 0 to 7: bit 5 is always or above
    let step = (biased >> (segment + 1)) & 0x0f;
    let code = !((segment as u8) << 4 | step as u8) & 0x7f;
    if sample < 0 { code } else { code | 0x80 }
}

const fn decode_mu(code: u8) -> i16 {
    let (segment, step) = (!code >> 4 & 7, (!code & 0x0f) as i16);
    // The middle of the step, without the bias, in units of 16 bits.
    let level = (((2 * step + MU_BIAS as i16) << segment) - MU_BIAS as i16) * 4;
    if code & 0x80 == 0 { -level } else { level }
}

const fn encode_a(sample: i16) -> u8 {
    let magnitude = magnitude(sample) / 16; // 0 to 2047
    let code = if magnitude < 32 {
        magnitude as u8 // segments 0 and 1 have the same step
    } else {
        let segment = magnitude.ilog2() - 3;
        (segment as u8) << 4 | (magnitude >> (segment - 1) & 0x0f) as u8
    };
    (if sample < 0 { code } else { code | 0x80 }) ^ 0x55
}

const fn decode_a(code: u8) -> i16 {
    let bits = code ^ 0x55;
    let (segment, step) = (bits >> 4 & 7, (bits & 0x0f) as i16);
    let level = match segment {
        0 => step * 16 + 8,
        _ => (step * 16 + 0x108) << (segment - 1),
    };
    if bits & 0x80 == 0 { -level } else { level }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decision values of the positive half in the law's own units (G.711 tables 1a and 2a): widths of the steps.
    fn decisions(widths: impl Iterator<Item = i32>) -> Vec<i32> {
        widths.scan(0, |edge, width| Some(std::mem::replace(edge, *edge + width))).collect()
    }

    fn widths(law: Law) -> Box<dyn Iterator<Item = i32>> {
        let segments = |first: i32, count: u32| (0..count).flat_map(move |s| [first << s; 16]);
        match law {
            // The first step is half a step: 0 to 1, then 1 to 3 …
            Law::Mu => Box::new(std::iter::once(1).chain([2; 15]).chain(segments(4, 7))),
            Law::A => Box::new([1; 16].into_iter().chain(segments(1, 7))),
        }
    }

    /// All 65,536 samples of both laws against the decision values, written down as the tables print them.
    #[test]
    fn every_sample_falls_between_its_decision_values() {
        for (law, drop, invert) in [(Law::Mu, 2, 0x7f), (Law::A, 4, 0x55)] {
            let edges = decisions(widths(law));
            assert_eq!(edges.len(), 128);
            for sample in i16::MIN..=i16::MAX {
                let mut payload = [0];
                law.encode(&[sample], &mut payload);
                let magnitude = i32::from(if sample < 0 { !sample } else { sample }) >> drop;
                let step = edges.partition_point(|&edge| edge <= magnitude) as u8 - 1;
                let sign = if sample < 0 { 0 } else { 0x80 };
                assert_eq!(payload[0], (step | sign) ^ invert, "{law:?} of {sample}");
            }
        }
    }

    #[test]
    fn a_code_decodes_to_the_middle_of_its_step_and_back_to_itself() {
        for (law, unit, invert) in [(Law::Mu, 4, 0x7f), (Law::A, 16, 0x55)] {
            let edges = decisions(widths(law));
            let widths: Vec<_> = widths(law).collect();
            for code in 0..=255u8 {
                let mut out = [0];
                law.decode(&[code], &mut out);
                let step = usize::from((code ^ invert) & 0x7f);
                let middle = match (law, step) {
                    (Law::Mu, 0) => 0, // the half step stands for silence
                    _ => (2 * edges[step] + widths[step]) * unit / 2,
                };
                let positive = (code ^ invert) & 0x80 != 0;
                assert_eq!(i32::from(out[0]), if positive { middle } else { -middle }, "{law:?} {code:#x}");
                let mut again = [0];
                law.encode(&out, &mut again);
                if (law, code) != (Law::Mu, 0x7f) {
                    assert_eq!(again, [code], "{law:?}"); // -0 of the µ law comes back as +0
                }
            }
        }
    }

    /// ffmpeg's decoders say the same of all 256 codes.
    #[test]
    fn decoding_agrees_with_ffmpeg() {
        let codes: Vec<u8> = (0..=255).collect();
        for (law, reference) in [
            (Law::Mu, include_bytes!("../../../tests/data/audio/pcmu-all-codes.s16").as_slice()),
            (Law::A, include_bytes!("../../../tests/data/audio/pcma-all-codes.s16").as_slice()),
        ] {
            let mut out = [0; 256];
            law.decode(&codes, &mut out);
            let reference: Vec<i16> = reference.as_chunks().0.iter().map(|&b| i16::from_le_bytes(b)).collect();
            assert_eq!(out.as_slice(), reference, "{law:?}");
        }
    }
}
