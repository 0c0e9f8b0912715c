//! Names that must not be guessed: tags, branches, Call-IDs (RFC 3261 §8.1.1.7, §19.3).

use rand::RngExt;
use rand::rngs::StdRng;

/// 16 hexadecimal digits: 64 random bits.
fn hex64(random: &mut StdRng) -> String {
    format!("{:016x}", random.random::<u64>())
}

/// A From or To tag of ours (64 bits; RFC 3261 §19.3 asks for 32).
pub(crate) fn tag(random: &mut StdRng) -> String {
    hex64(random)
}

/// A branch of ours: the cookie of RFC 3261 and 64 bits, so that a blind attacker cannot answer in a peer's place.
pub(crate) fn branch(random: &mut StdRng) -> String {
    format!("z9hG4bK{:016x}", random.random::<u64>())
}

/// A Call-ID: 128 bits and no host name, which would tell where we are.
pub(crate) fn call_id(random: &mut StdRng) -> String {
    format!("{:032x}", random.random::<u128>())
}
