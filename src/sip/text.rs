//! The character classes and small cuts the wire modules share. Nothing here allocates or can fail on any bytes.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

/// `token` of RFC 3261 §25.1, as a table because every byte of every header name passes here.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let extra = b"-.!%*_+`'~";
    let mut byte = 0;
    while byte < 256 {
        let mut is_token = (byte as u8).is_ascii_alphanumeric();
        let mut i = 0;
        #[allow(clippy::indexing_slicing)] // evaluated by the compiler
        while i < extra.len() {
            is_token |= extra[i] as usize == byte;
            i += 1;
        }
        #[allow(clippy::indexing_slicing)] // evaluated by the compiler
        {
            table[byte] = is_token;
        }
        byte += 1;
    }
    table
};

pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

/// True for a non-empty run of token characters (RFC 3261 §25.1).
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// The bytes before and from `at`; everything and nothing when `at` is past the end.
pub(crate) fn cut(text: &[u8], at: usize) -> (&[u8], &[u8]) {
    text.split_at(at.min(text.len()))
}

/// Where `part`, a piece of `whole`, begins in it; the end of `whole` for an empty slice from elsewhere.
pub(crate) fn offset_in(part: &[u8], whole: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize).min(whole.len())
}

/// The bytes before and after the first `byte`; `None` when it does not occur.
pub(crate) fn cut_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(byte, text)?;
    let (before, rest) = cut(text, at);
    Some((before, cut(rest, 1).1))
}

/// A decimal number of digits only; `None` for anything else, `u64::MAX` when it is larger than that.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

/// Where the quoted string that starts at `text[0]` ends, one past its closing quote; `None` when it never closes.
pub(crate) fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        let step = memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        at += step;
        if text.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2; // the backslash and what it escapes
    }
}

/// The first of `wanted` outside quoted strings and, when `angles`, outside `<…>`; `None` when there is none.
/// A quote or `<` that never closes swallows the rest.
pub(crate) fn find_outside(text: &[u8], wanted: u8, angles: bool) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte == wanted {
            return Some(at);
        }
        match byte {
            b'"' => at += quoted_end(text.get(at..)?)?,
            b'<' if angles => at += memchr::memchr(b'>', text.get(at..)?)? + 1,
            _ => at += 1,
        }
    }
    None
}

/// Text for people out of bytes from the wire, bounded, for error messages.
pub(crate) fn shown(text: &[u8]) -> String {
    const SHOWN: usize = 80; // enough to recognise a value, too little to fill a log
    let (head, rest) = cut(text, SHOWN);
    let mut shown = head.escape_ascii().to_string();
    if !rest.is_empty() {
        shown.push('…');
    }
    shown
}

/// Removes the quotes of a quoted string and its escapes; other text is returned trimmed. Lossy outside UTF-8.
pub(crate) fn unquoted(text: &[u8]) -> String {
    let text = text.trim_ascii();
    let Some(inner) = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return String::from_utf8_lossy(text).into_owned();
    };
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => plain.extend(bytes.next()),
            _ => plain.push(byte),
        }
    }
    String::from_utf8(plain).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_saturate_and_refuse_signs() {
        assert_eq!(number(b"0068"), Some(68));
        assert_eq!(number(b"99999999999999999999999999"), Some(u64::MAX));
        for bad in [&b""[..], b"-1", b"+1", b"1 ", b"0x1"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn quotes_end_after_escapes() {
        assert_eq!(quoted_end(br#""a\"b" c"#), Some(6));
        assert_eq!(quoted_end(br#""\\" c"#), Some(4));
        assert_eq!(quoted_end(br#""abc"#), None);
        assert_eq!(quoted_end(br#""abc\"#), None);
        assert_eq!(unquoted(br#" "a\"b\\" "#), r#"a"b\"#);
    }

    #[test]
    fn separators_inside_quotes_and_angles_do_not_count() {
        assert_eq!(find_outside(br#""a,b" <sip:c,d@e>,f"#, b',', true), Some(17));
        assert_eq!(find_outside(br#""a,b"#, b',', true), None);
        assert_eq!(find_outside(b"<a;b>;c", b';', false), Some(2));
    }
}
