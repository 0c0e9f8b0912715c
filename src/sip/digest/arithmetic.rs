//! `response=` (RFC 7616 §3.4.1, RFC 3261 §22.4).

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt;

use md5::Md5;
use sha2::digest::Digest;
use sha2::{Sha256, Sha512_256};
use zeroize::Zeroizing;

use super::{Algorithm, Qop};

/// The digest of `parts` joined by colons, as lower-case hexadecimal digits.
fn hash(algorithm: Algorithm, parts: &[&[u8]]) -> String {
    match algorithm {
        Algorithm::Md5 => hex(&joined::<Md5>(parts)),
        Algorithm::Sha256 => hex(&joined::<Sha256>(parts)),
        Algorithm::Sha512_256 => hex(&joined::<Sha512_256>(parts)),
    }
}

fn joined<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = D::new();
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            digest.update(b":");
        }
        digest.update(part);
    }
    digest.finalize().to_vec()
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// H(user:realm:password): as good as the password within its realm, so it never shows and is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Ha1(Zeroizing<String>);

impl Ha1 {
    /// From a password.
    pub fn new(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> Self {
        Self(Zeroizing::new(hash(algorithm, &[user.as_bytes(), realm.as_bytes(), password.as_bytes()])))
    }

    /// From a table of hashes, in hexadecimal.
    pub fn from_hex(digits: &str) -> Self {
        Self(Zeroizing::new(digits.to_ascii_lowercase()))
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ha1(…)")
    }
}

/// What a response is computed over, besides the password.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub algorithm: Algorithm,
    /// The `-sess` form.
    pub sess: bool,
    pub qop: Option<Qop>,
    pub nonce: &'a str,
    /// Used with a qop and by the `-sess` forms.
    pub cnonce: &'a str,
    /// How often the nonce was used, this time included. Used with a qop.
    pub count: u32,
    pub method: &'a str,
    /// As it stands in the request line.
    pub uri: &'a str,
    /// Used by auth-int.
    pub body: &'a [u8],
}

impl Inputs<'_> {
    /// The 32 or 64 hexadecimal digits of `response=`.
    pub fn response(&self, ha1: &Ha1) -> String {
        let session;
        let ha1 = if self.sess {
            session = Zeroizing::new(self.hash(&[ha1.0.as_bytes(), self.nonce.as_bytes(), self.cnonce.as_bytes()]));
            &session
        } else {
            &ha1.0
        };
        let mut a2 = vec![self.method.as_bytes(), self.uri.as_bytes()];
        let body;
        if self.qop == Some(Qop::AuthInt) {
            body = self.hash(&[self.body]);
            a2.push(body.as_bytes());
        }
        let ha2 = self.hash(&a2);
        match self.qop {
            None => self.hash(&[ha1.as_bytes(), self.nonce.as_bytes(), ha2.as_bytes()]),
            Some(qop) => self.hash(&[
                ha1.as_bytes(),
                self.nonce.as_bytes(),
                count_digits(self.count).as_bytes(),
                self.cnonce.as_bytes(),
                qop.name().as_bytes(),
                ha2.as_bytes(),
            ]),
        }
    }

    fn hash(&self, parts: &[&[u8]]) -> String {
        hash(self.algorithm, parts)
    }
}

/// `nc=` (RFC 7616 §3.4): eight hexadecimal digits.
pub fn count_digits(count: u32) -> String {
    format!("{count:08x}")
}

/// Compares two responses in a time that does not tell where they differ.
pub fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
