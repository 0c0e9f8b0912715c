//! G.722 at 64 kbit/s (ITU-T G.722, 11/1988 and 09/2012): two ADPCM bands of 8 kHz under a quadrature mirror filter.
//!
//! Blocks carry the names of the recommendation (§6.2), so the code can be read beside it. The arithmetic is the
//! recommendation's 16-bit fixed point, so two right implementations give the same bits; ffmpeg's agrees on every byte
//! and sample of `tests/data/audio/g722*`.

// Tables of the recommendation. Decision levels of the 6-bit quantiser (in 1/4096 of the scale).
const Q6: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121, 1219, 1339,
    1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
// Inverse quantisers: 6 and 4 bits of the lower band, 2 bits of the higher.
const QM6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360, -8576,
    -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688, -1360, -1040,
    -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456,
    4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];
const QM4: [i32; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];
const QM2: [i32; 4] = [-7408, -1616, 7408, 1616];
// How a code moves the logarithm of the scale.
const WL: [i32; 16] = [-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60];
const WH: [i32; 4] = [798, -214, 798, -214];
// Two to the power of n/32, times 2048.
const ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896, 2960, 3025,
    3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];
// Every second coefficient of the 24-tap mirror filter; the others are the same backwards.
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

// The two bands differ in these only.
const LOW_LOG_LIMIT: i32 = 18_432;
const LOW_SHIFT: i32 = 8;
const HIGH_LOG_LIMIT: i32 = 22_528;
const HIGH_SHIFT: i32 = 10;
/// Edge between the two magnitudes of the higher band, in 1/4096 of the scale.
const HIGH_DECISION: i32 = 564;

fn saturate(value: i32) -> i32 {
    value.clamp(-32_768, 32_767)
}

/// The adaptive quantiser scale and predictor of one band; encoder and decoder hold the same.
#[derive(Clone, Debug)]
struct Band {
    log_scale: i32,      // NBL, NBH
    scale: i32,          // DETL, DETH
    predicted: i32,      // SL, SH
    zeros_part: i32,     // SZL, SZH
    poles: [i32; 2],     // AL1, AL2
    zeros: [i32; 6],     // BL1 … BL6
    partial: [i32; 2],   // PLT1, PLT2
    rebuilt: i32,        // RLT1
    quantised: [i32; 6], // DLT1 … DLT6
}

impl Band {
    /// `scale` is the recommendation's reset value: 32 for the lower band, 8 for the higher.
    fn new(scale: i32) -> Self {
        Self {
            log_scale: 0,
            scale,
            predicted: 0,
            zeros_part: 0,
            poles: [0; 2],
            zeros: [0; 6],
            partial: [0; 2],
            rebuilt: 0,
            quantised: [0; 6],
        }
    }

    /// INVQAL, INVQAH: the difference a code stands for, `level` being its entry in the inverse quantiser.
    fn difference(&self, level: i32) -> i32 {
        (self.scale * level) >> 15
    }

    /// LOGSCL, SCALEL and their twins: the scale for the next code.
    fn adapt_scale(&mut self, weight: i32, limit: i32, shift: i32) {
        self.log_scale = (((self.log_scale * 127) >> 7) + weight).clamp(0, limit);
        let mantissa = ILB[(self.log_scale >> 6 & 31) as usize];
        let down = shift - (self.log_scale >> 11);
        self.scale = (if down < 0 { mantissa << -down } else { mantissa >> down }) << 2;
    }

    /// Block 4: the predictor takes in a difference and predicts the next sample.
    fn predict(&mut self, difference: i32) {
        // RECONS and PARREC
        let rebuilt = saturate(self.predicted + difference);
        let partial = saturate(self.zeros_part + difference);
        let same_sign = |a: i32, b: i32| (a < 0) == (b < 0);

        // UPPOL2
        let wd = saturate(self.poles[0] << 2);
        let wd = if same_sign(partial, self.partial[0]) { (-wd).min(32_767) } else { wd };
        let step = if same_sign(partial, self.partial[1]) { 128 } else { -128 };
        let pole2 = ((wd >> 7) + step + ((self.poles[1] * 32_512) >> 15)).clamp(-12_288, 12_288);
        // UPPOL1
        let step = if same_sign(partial, self.partial[0]) { 192 } else { -192 };
        let limit = 15_360 - pole2;
        let pole1 = (step + ((self.poles[0] * 32_640) >> 15)).clamp(-limit, limit);
        // UPZERO
        let step = if difference == 0 { 0 } else { 128 };
        for (zero, &old) in self.zeros.iter_mut().zip(&self.quantised) {
            let step = if same_sign(old, difference) { step } else { -step };
            *zero = saturate(step + ((*zero * 32_640) >> 15));
        }

        // DELAYA
        self.quantised.copy_within(..5, 1);
        self.quantised[0] = difference;
        self.partial = [partial, self.partial[0]];
        self.poles = [pole1, pole2];
        let older = std::mem::replace(&mut self.rebuilt, rebuilt);

        // FILTEP, FILTEZ and PREDIC
        let poles_part = saturate(((pole1 * saturate(2 * rebuilt)) >> 15) + ((pole2 * saturate(2 * older)) >> 15));
        let products = self.zeros.iter().zip(&self.quantised).map(|(zero, &old)| (zero * saturate(2 * old)) >> 15);
        self.zeros_part = saturate(products.sum());
        self.predicted = saturate(poles_part + self.zeros_part);
    }

    /// Takes in the 6-bit code of the lower band (its upper 4 bits drive the adaptation).
    fn update_low(&mut self, code: usize) {
        let difference = self.difference(QM4[code >> 2]);
        self.adapt_scale(WL[code >> 2], LOW_LOG_LIMIT, LOW_SHIFT);
        self.predict(difference);
    }

    /// Takes in the 2-bit code of the higher band.
    fn update_high(&mut self, code: usize) {
        let difference = self.difference(QM2[code]);
        self.adapt_scale(WH[code], HIGH_LOG_LIMIT, HIGH_SHIFT);
        self.predict(difference);
    }
}

/// Pairs of 16 kHz samples to bytes.
#[derive(Clone, Debug)]
pub struct Encoder {
    low: Band,
    high: Band,
    delay: [i32; 24],
}

impl Default for Encoder {
    fn default() -> Self {
        Self { low: Band::new(32), high: Band::new(8), delay: [0; 24] }
    }
}

impl Encoder {
    /// Encodes two samples into each byte; `payload` is half as long as `frame`.
    pub fn encode(&mut self, frame: &[i16], payload: &mut [u8]) {
        debug_assert_eq!(frame.len(), payload.len() * 2);
        for (byte, pair) in payload.iter_mut().zip(frame.as_chunks::<2>().0) {
            *byte = self.encode_pair(*pair);
        }
    }

    fn encode_pair(&mut self, pair: [i16; 2]) -> u8 {
        // Transmit QMF (block 1)
        self.delay.copy_within(2.., 0);
        self.delay[22] = pair[0].into();
        self.delay[23] = pair[1].into();
        let (mut first, mut second) = (0, 0);
        for (i, taps) in self.delay.as_chunks::<2>().0.iter().enumerate() {
            first += taps[0] * QMF[i];
            second += taps[1] * QMF[11 - i];
        }
        let low = quantise_low(saturate(((second + first) >> 14) - self.low.predicted), self.low.scale);
        self.low.update_low(low);
        let high = quantise_high(saturate(((second - first) >> 14) - self.high.predicted), self.high.scale);
        self.high.update_high(high);
        (high << 6 | low) as u8
    }
}

/// QUANTL: the 6-bit code of a difference in the lower band (block 1L).
fn quantise_low(difference: i32, scale: i32) -> usize {
    let magnitude = if difference < 0 { !difference } else { difference };
    // Steps 1 to 30; the levels rise, so a binary search finds the first one above.
    let step = Q6.partition_point(|&level| magnitude >= (level * scale) >> 12);
    match (difference < 0, step) {
        (true, 0) => 63,
        (true, 1) => 62,
        (true, _) => 33 - step,
        (false, _) => 61 - step,
    }
}

/// QUANTH: the 2-bit code of a difference in the higher band (block 1H).
fn quantise_high(difference: i32, scale: i32) -> usize {
    let magnitude = if difference < 0 { !difference } else { difference };
    let large = magnitude >= (HIGH_DECISION * scale) >> 12;
    match (difference < 0, large) {
        (true, false) => 1,
        (true, true) => 0,
        (false, false) => 3,
        (false, true) => 2,
    }
}

/// Bytes to pairs of 16 kHz samples.
#[derive(Clone, Debug)]
pub struct Decoder {
    low: Band,
    high: Band,
    delay: [i32; 24],
}

impl Default for Decoder {
    fn default() -> Self {
        Self { low: Band::new(32), high: Band::new(8), delay: [0; 24] }
    }
}

impl Decoder {
    /// Decodes each byte into two samples; `out` is twice as long as `payload`.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) {
        debug_assert_eq!(out.len(), payload.len() * 2);
        for (pair, &byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(payload) {
            *pair = self.decode_byte(byte);
        }
    }

    fn decode_byte(&mut self, byte: u8) -> [i16; 2] {
        let (low_code, high_code) = (usize::from(byte & 63), usize::from(byte >> 6));
        // INVQBL, RECONS and LIMIT; the higher band the same with its 2 bits.
        let low = self.low.predicted + self.low.difference(QM6[low_code]);
        let low = low.clamp(-16_384, 16_383);
        self.low.update_low(low_code);
        let high = self.high.predicted + self.high.difference(QM2[high_code]);
        let high = high.clamp(-16_384, 16_383);
        self.high.update_high(high_code);

        // Receive QMF
        self.delay.copy_within(2.., 0);
        self.delay[22] = low + high;
        self.delay[23] = low - high;
        let (mut first, mut second) = (0, 0);
        for (i, taps) in self.delay.as_chunks::<2>().0.iter().enumerate() {
            first += taps[1] * QMF[11 - i];
            second += taps[0] * QMF[i];
        }
        [first, second].map(|sum| saturate(sum >> 11) as i16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &[u8] = include_bytes!("../../../tests/data/audio/g722-input.s16");
    const CODED: &[u8] = include_bytes!("../../../tests/data/audio/g722-input.g722");
    const DECODED: &[u8] = include_bytes!("../../../tests/data/audio/g722-decoded.s16");
    const NOISE: &[u8] = include_bytes!("../../../tests/data/audio/g722-noise.g722");
    const NOISE_DECODED: &[u8] = include_bytes!("../../../tests/data/audio/g722-noise-decoded.s16");

    fn samples(bytes: &[u8]) -> Vec<i16> {
        bytes.as_chunks().0.iter().map(|&b| i16::from_le_bytes(b)).collect()
    }

    #[test]
    fn encoding_gives_ffmpegs_bytes() {
        let input = samples(INPUT);
        let mut payload = vec![0; input.len() / 2];
        Encoder::default().encode(&input, &mut payload);
        assert_eq!(payload.len(), CODED.len());
        let wrong = payload.iter().zip(CODED).position(|(ours, theirs)| ours != theirs);
        assert_eq!(wrong, None, "first different byte");
    }

    #[test]
    fn decoding_gives_ffmpegs_samples() {
        for (coded, decoded) in [(CODED, DECODED), (NOISE, NOISE_DECODED)] {
            let mut out = vec![0; coded.len() * 2];
            Decoder::default().decode(coded, &mut out);
            let wrong = out.iter().zip(samples(decoded)).position(|(&ours, theirs)| ours != theirs);
            assert_eq!((out.len(), wrong), (decoded.len() / 2, None), "first different sample");
        }
    }

    #[test]
    fn extremes_overflow_nothing() {
        // Debug builds panic on overflow: square waves, clipping and every byte repeated must pass.
        for period in [1, 2, 3, 7, 40] {
            let input: Vec<i16> = (0..16_000).map(|n| if n / period % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
            Encoder::default().encode(&input, &mut vec![0; input.len() / 2]);
        }
        for byte in 0..=255 {
            let mut decoder = Decoder::default();
            decoder.decode(&[byte; 4000], &mut [0; 8000]);
            decoder.decode(&[!byte; 4000], &mut [0; 8000]);
        }
    }
}
