//! Traced messages without their secrets: SRTP keys and digest answers become stars of the same length.

use bytes::Bytes;

/// A copy of a SIP message with the keys of `a=crypto` lines and the proofs in (Proxy-)Authorization masked.
///
/// The length stays, so Content-Length still fits what is shown.
pub(super) fn masked(message: &[u8]) -> Bytes {
    let mut copy = message.to_vec();
    let mut start = 0;
    let mut in_authorization = false;
    while start < copy.len() {
        let end = memchr::memchr(b'\n', &copy[start..]).map_or(copy.len(), |at| start + at + 1);
        let line = &mut copy[start..end];
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        in_authorization = (folded && in_authorization) || is_authorization(line);
        if in_authorization {
            for name in ["response", "rspauth", "cnonce", "nonce", "opaque"] {
                mask_parameter(line, name.as_bytes());
            }
            mask_basic(line);
        } else if starts_with(line, b"a=crypto") {
            mask_after(line, b"inline:", |byte| byte != b'|' && byte != b' ' && byte != b';');
        }
        start = end;
    }
    Bytes::from(copy)
}

fn starts_with(line: &[u8], prefix: &[u8]) -> bool {
    line.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

fn is_authorization(line: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let name = line[..colon].trim_ascii();
    let all: [&[u8]; 4] =
        [b"authorization", b"proxy-authorization", b"authentication-info", b"proxy-authentication-info"];
    all.iter().any(|one| name.eq_ignore_ascii_case(one))
}

fn star(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| !matches!(byte, b'\r' | b'\n')) {
        *byte = b'*';
    }
}

/// Masks what follows each `marker` for as long as `secret` says so.
fn mask_after(line: &mut [u8], marker: &[u8], secret: impl Fn(u8) -> bool) {
    let mut at = 0;
    while let Some(found) = find_ignoring_case(&line[at..], marker) {
        let from = at + found + marker.len();
        let length = line[from..].iter().take_while(|byte| secret(**byte) && !matches!(byte, b'\r' | b'\n')).count();
        star(&mut line[from..from + length]);
        at = from + length;
    }
}

/// Masks the value of `name=value` or `name="value"`.
fn mask_parameter(line: &mut [u8], name: &[u8]) {
    let mut at = 0;
    while let Some(found) = find_ignoring_case(&line[at..], name) {
        let begins = at + found;
        at = begins + name.len();
        let whole_word = begins == 0 || matches!(line[begins - 1], b' ' | b'\t' | b',' | b':');
        let spaces = line[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if !whole_word || line.get(at + spaces) != Some(&b'=') {
            continue;
        }
        at += spaces + 1;
        at += line[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let quoted = line.get(at) == Some(&b'"');
        at += usize::from(quoted);
        let value = line[at..]
            .iter()
            .take_while(|byte| if quoted { **byte != b'"' } else { !matches!(byte, b',' | b' ' | b'\t') })
            .count();
        star(&mut line[at..at + value]);
        at += value;
    }
}

/// Masks the credentials of `Basic dXNlcjpwYXNz` and `Bearer …`.
fn mask_basic(line: &mut [u8]) {
    for scheme in [b"basic ".as_slice(), b"bearer "] {
        mask_after(line, scheme, |_| true);
    }
}

fn find_ignoring_case(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window.eq_ignore_ascii_case(needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_become_stars_and_the_length_stays() {
        let table: &[(&str, &str)] = &[
            (
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0a2V5|2^20|1:4\r\n",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:************|2^20|1:4\r\n",
            ),
            (
                "a=crypto:1 X inline:abc|2^20;inline:def UNKNOWN\r\n",
                "a=crypto:1 X inline:***|2^20;inline:*** UNKNOWN\r\n",
            ),
            (
                "Authorization: Digest username=\"bob\", nonce=\"n1\", response=\"0a1b\", nc=00000001\r\n",
                "Authorization: Digest username=\"bob\", nonce=\"**\", response=\"****\", nc=00000001\r\n",
            ),
            ("proxy-AUTHORIZATION : Digest response = 0a1b\r\n", "proxy-AUTHORIZATION : Digest response = ****\r\n"),
            ("Authorization: Digest a=1,\r\n response=\"x\"\r\n", "Authorization: Digest a=1,\r\n response=\"*\"\r\n"),
            (
                "Authentication-Info: qop=auth, rspauth=\"0a1b\", nextnonce=\"n2\"\r\n",
                "Authentication-Info: qop=auth, rspauth=\"****\", nextnonce=\"n2\"\r\n",
            ),
            ("Authorization: Basic Ym9iOnB3\r\n", "Authorization: Basic ********\r\n"),
            ("Subject: response=\"x\" inline:abc\r\n", "Subject: response=\"x\" inline:abc\r\n"),
            ("a=crypto:1 X inline:", "a=crypto:1 X inline:"),
        ];
        for (line, expected) in table {
            assert_eq!(std::str::from_utf8(&masked(line.as_bytes())), Ok(*expected));
        }
    }

    #[test]
    fn any_bytes_keep_their_length() {
        let seed = b"Authorization: Digest response=\"x\"\r\n\r\na=crypto:1 inline:\xff\xfe|\n".to_vec();
        for cut in 0..seed.len() {
            assert_eq!(masked(&seed[cut..]).len(), seed.len() - cut);
            assert_eq!(masked(&seed[..cut]).len(), cut);
        }
    }
}
