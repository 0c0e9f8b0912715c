//! Framing of SIP on byte streams (RFC 3261 §18.3, RFC 5626 §4.4.1): cut and glue anywhere, the same messages come out.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use bytes::{Buf, Bytes, BytesMut};

use super::message::{Head, HeaderName, MAX_BODY, MAX_HEAD, Message, ParseError};
use super::text::cut;

/// A body over [`MAX_BODY`] is refused but read past up to this size, so that the connection and its other calls live on.
pub const MAX_SKIPPED: usize = 16 << 20;

/// One thing found in the stream.
#[derive(Debug)]
pub enum Frame {
    Message(Message),
    /// CRLF CRLF: to be answered with one CRLF.
    Ping,
    /// A single CRLF that answers our ping, announced with [`StreamFramer::expect_pong`].
    Pong,
    /// A message that cannot be used but whose end is known: answer it and go on.
    Bad(Box<ParseError>),
    /// The stream cannot be followed any more (no end in sight, over the limits): answer if there is an answer, then close.
    Lost(Box<ParseError>),
}

/// Collects bytes of one connection and gives back whole messages.
///
/// Drain [`Self::next_frame`] after each [`Self::push`]: then no more than one message and one read are ever held, at most
/// [`MAX_HEAD`] + [`MAX_BODY`] bytes and the last push.
#[derive(Debug, Default)]
pub struct StreamFramer {
    buffer: BytesMut,
    /// Bytes of the head that were already searched for its end.
    searched: usize,
    /// A head that is complete and waits for this many bytes of body.
    waiting: Option<(Head, usize)>,
    /// Bytes of a refused body still to come.
    skip: usize,
    pong_expected: bool,
    /// A CRLF came that may be the first half of a ping.
    half_ping: bool,
    lost: bool,
}

impl StreamFramer {
    /// Takes what one read gave. Ignored once the stream is lost.
    pub fn push(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        if !self.lost {
            self.buffer.extend_from_slice(cut(bytes, skipped).1);
        }
    }

    /// Our ping left: the next lone CRLF is its pong (RFC 5626 §4.4.1). Otherwise a CRLF is the first half of a ping.
    pub fn expect_pong(&mut self) {
        self.pong_expected = true;
    }

    /// The next whole thing; `None` until more bytes come.
    pub fn next_frame(&mut self) -> Option<Frame> {
        if self.lost {
            return None;
        }
        if self.waiting.is_none() {
            if let Some(frame) = self.line_ends() {
                return Some(frame);
            }
            if self.buffer.is_empty() {
                return None;
            }
            let Some(end) = self.head_end() else {
                return (self.buffer.len() > MAX_HEAD)
                    .then(|| self.lose(513, format!("a head of more than {MAX_HEAD} bytes")));
            };
            let head = match Head::read(cut(&self.buffer, end).0) {
                Ok(head) => head,
                Err(what) => return Some(self.lose_with(ParseError { what, answer: None, partial: None })),
            };
            if let Some(frame) = self.begin(head) {
                return Some(frame);
            }
        }
        let (head, length) = self.waiting.take()?;
        let total = head.end + length;
        if self.buffer.len() < total {
            self.waiting = Some((head, length));
            return None;
        }
        let body = head.end..total;
        let bytes = self.take(total);
        Some(match head.into_message(bytes, body) {
            Ok(message) => Frame::Message(message),
            Err(error) => Frame::Bad(error),
        })
    }

    #[doc(hidden)]
    pub fn buffered(&self) -> Bytes {
        Bytes::copy_from_slice(&self.buffer)
    }

    /// Takes the CRLFs before a message: keep-alives, or padding to be ignored (RFC 3261 §7.5).
    fn line_ends(&mut self) -> Option<Frame> {
        loop {
            match self.buffer.as_ref() {
                [b'\r', b'\n', ..] => {
                    self.buffer.advance(2);
                    if std::mem::take(&mut self.pong_expected) {
                        self.half_ping = true; // or the first half of a ping of theirs: answering one too many is harmless
                        return Some(Frame::Pong);
                    }
                    self.half_ping = !self.half_ping;
                    if !self.half_ping {
                        return Some(Frame::Ping);
                    }
                }
                [b'\r', ..] if self.buffer.len() == 1 => return None,
                [b'\n', ..] => self.buffer.advance(1),
                [] => return None,
                _ => {
                    self.half_ping = false;
                    return None;
                }
            }
        }
    }

    /// One past the blank line, searched on from where the last call stopped.
    fn head_end(&mut self) -> Option<usize> {
        let text: &[u8] = cut(&self.buffer, MAX_HEAD).0;
        while let Some(step) = memchr::memchr(b'\n', text.get(self.searched..)?) {
            let next = self.searched + step + 1;
            match text.get(next..)? {
                [b'\n', ..] => return Some(next + 1),
                [b'\r', b'\n', ..] => return Some(next + 2),
                [] | [b'\r'] => {
                    self.searched = next - 1; // look at this line end again
                    return None;
                }
                _ => self.searched = next,
            }
        }
        self.searched = text.len();
        None
    }

    /// Decides how the body of a complete head is delimited.
    fn begin(&mut self, mut head: Head) -> Option<Frame> {
        let length = match head.length {
            Ok(Some(length)) => length,
            // A stream needs Content-Length (RFC 3261 §20.14); without one a message that names no body has none.
            Ok(None) if !head.has(HeaderName::ContentType) => 0,
            Ok(None) => return Some(self.lose_head(head, 400, "no Content-Length on a stream".into())),
            Err(()) => return Some(self.lose_head(head, 400, "a Content-Length that is no length".into())),
        };
        if length <= MAX_BODY {
            self.waiting = Some((head, length));
            return None;
        }
        let what = format!("a body of {length} bytes is more than {MAX_BODY}");
        if length > MAX_SKIPPED {
            return Some(self.lose_head(head, 413, what));
        }
        head.blame(413, what);
        let end = head.end;
        let bytes = self.take(end);
        let here = length.min(self.buffer.len());
        self.buffer.advance(here);
        self.skip = length - here;
        match head.into_message(bytes, end..end) {
            Ok(message) => Some(Frame::Message(message)),
            Err(error) => Some(Frame::Bad(error)),
        }
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.searched = 0;
        self.half_ping = false;
        self.buffer.split_to(length).freeze()
    }

    fn lose_head(&mut self, mut head: Head, code: u16, what: String) -> Frame {
        head.blame(code, what.clone());
        let end = head.end;
        let bytes = self.take(end);
        match head.into_message(bytes, end..end) {
            Ok(message) => self.lose_with(*message.error(code, what)),
            Err(error) => self.lose_with(*error),
        }
    }

    /// Gives up before the head is complete; what is there may still be enough to answer.
    fn lose(&mut self, code: u16, what: String) -> Frame {
        match Head::read(&self.buffer) {
            Ok(head) => self.lose_head(head, code, what),
            Err(what) => self.lose_with(ParseError { what, answer: None, partial: None }),
        }
    }

    fn lose_with(&mut self, error: ParseError) -> Frame {
        self.lost = true;
        self.buffer = BytesMut::new();
        self.waiting = None;
        Frame::Lost(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::*;

    /// Every frame after each piece, in words.
    fn frames(pieces: &[&[u8]]) -> Vec<String> {
        let mut framer = StreamFramer::default();
        let mut found = Vec::new();
        for piece in pieces {
            framer.push(piece);
            while let Some(frame) = framer.next_frame() {
                found.push(shown(&frame));
            }
        }
        found
    }

    fn shown(frame: &Frame) -> String {
        match frame {
            Frame::Message(message) => {
                format!("{} {}", message.method(), String::from_utf8_lossy(message.body()))
            }
            Frame::Ping => "ping".into(),
            Frame::Pong => "pong".into(),
            Frame::Bad(error) => format!("bad {:?}", error.answer),
            Frame::Lost(error) => format!("lost {:?}", error.answer),
        }
    }

    fn message(method: &str, length: &str, body: &str) -> String {
        format!(
            "{method} sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:b@c>\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\n{length}\r\n{body}"
        )
    }

    #[test]
    fn lengths_in_every_spelling() {
        for length in [
            "Content-Length: 4\r\n",
            "l:4\r\n",
            "L :\t4\r\n",
            "content-length  : 0004 \r\n",
            "Content-Length:\r\n 4\r\n",
        ] {
            let stream = message("INFO", length, "\r\n\r\n") + &message("BYE", "l: 0\r\n", "");
            assert_eq!(frames(&[stream.as_bytes()]), ["INFO \r\n\r\n", "BYE "], "{length:?}");
        }
    }

    #[test]
    fn cut_anywhere_the_same_frames_come_out() {
        let bad = message("OPTIONS", "no colon\r\nl: 3\r\n", "abc");
        let stream = format!(
            "\r\n\r\n{}\r\n{}{bad}\r\n\r\n{}",
            message("INFO", "Content-Length :\r\n 6\r\n", "\r\nl: 9"),
            message("BYE", "", ""),
            message("OPTIONS", "l: 1\n", "x"),
        );
        let expected = ["ping", "INFO \r\nl: 9", "BYE ", "bad Some(400)", "ping", "OPTIONS x"];
        assert_eq!(frames(&[stream.as_bytes()]), expected);
        for at in 0..=stream.len() {
            let (a, b) = stream.as_bytes().split_at(at);
            assert_eq!(frames(&[a, b]), expected, "cut at {at}");
        }
        let single: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(frames(&single), expected);
    }

    #[test]
    fn pings_come_whole_or_in_halves_and_pongs_when_expected() {
        assert_eq!(frames(&[b"\r\n\r\n"]), ["ping"]);
        assert_eq!(frames(&[b"\r", b"\n", b"\r\n"]), ["ping"]);
        assert_eq!(frames(&[b"\r\n\r\n\r\n\r\n"]), ["ping", "ping"]);
        assert_eq!(frames(&[b"\r\n"]), Vec::<String>::new());
        // A CRLF in front of a message is neither, and does not make half of a later ping.
        let bye = message("BYE", "l: 0\r\n", "");
        assert_eq!(frames(&[b"\r\n", bye.as_bytes(), b"\r\n"]), ["BYE "]);

        let mut framer = StreamFramer::default();
        for _ in 0..3 {
            framer.expect_pong();
            framer.push(b"\r\n");
            assert!(matches!(framer.next_frame(), Some(Frame::Pong)));
            assert!(framer.next_frame().is_none());
        }
        framer.expect_pong();
        framer.push(b"\r\n\r\n"); // their ping crosses ours in two segments or one: it is answered either way
        assert!(matches!(framer.next_frame(), Some(Frame::Pong)));
        assert!(matches!(framer.next_frame(), Some(Frame::Ping)));
    }

    #[test]
    fn a_bad_message_of_known_length_costs_only_itself() {
        let bye = message("BYE", "l: 0\r\n", "");
        for (bad, answer) in [
            (message("INFO", "l: 3\r\nnonsense\r\n", "abc"), "bad Some(400)"),
            (message("ACK", "l: 3\r\nnonsense\r\n", "abc"), "bad None"),
            (message("INFO", "l: 3\r\n", "abc").replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"), "bad Some(505)"),
            (message("INFO", &format!("l: 3\r\n{}", "X: y\r\n".repeat(300)), "abc"), "bad Some(513)"),
        ] {
            let found = frames(&[bad.as_bytes(), bye.as_bytes()]);
            assert_eq!(found, [answer, "BYE "]);
        }
        let long = MAX_BODY + 1;
        let head = message("INFO", &format!("l: {long}\r\n"), "");
        let body = vec![b'\n'; long];
        assert_eq!(frames(&[head.as_bytes(), &body, bye.as_bytes()]), ["bad Some(413)", "BYE "]);
        let glued = [head.as_bytes(), &body, bye.as_bytes()].concat();
        assert_eq!(frames(&[&glued]), ["bad Some(413)", "BYE "]);
        let pieces: Vec<&[u8]> = glued.chunks(65_521).collect();
        assert_eq!(frames(&pieces), ["bad Some(413)", "BYE "]);
    }

    #[test]
    fn without_an_end_in_sight_the_stream_is_lost() {
        let endless = format!("INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nX: {}", "y".repeat(MAX_HEAD));
        for (stream, expected) in [
            (message("INFO", "l: -999\r\n", "abc"), "lost Some(400)"),
            (message("INFO", "l: 18446744073709551615\r\n", "abc"), "lost Some(400)"),
            (message("INFO", "l: 3\r\nContent-Length: 4\r\n", "abcd"), "lost Some(400)"),
            (message("INFO", "l: 999999999\r\n", "abc"), "lost Some(413)"),
            (message("INFO", "Content-Type: text/plain\r\n", "abc"), "lost Some(400)"),
            (message("ACK", "l: -1\r\n", ""), "lost None"),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), "lost None"),
            ("\0".repeat(MAX_HEAD + 1), "lost None"),
            (endless, "lost Some(513)"),
        ] {
            let mut framer = StreamFramer::default();
            framer.push(stream.as_bytes());
            assert_eq!(shown(&framer.next_frame().unwrap()), expected, "{}", &stream[..40]);
            framer.push(message("BYE", "l: 0\r\n", "").as_bytes());
            assert!(framer.next_frame().is_none());
            assert!(framer.buffered().is_empty(), "nothing is kept of a lost stream");
        }
    }

    #[test]
    fn each_byte_of_a_head_is_searched_once() {
        let mut framer = StreamFramer::default();
        let line = b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n";
        framer.push(b"INVITE sip:x SIP/2.0\r\n");
        for _ in 0..1_000 {
            framer.push(line);
            assert!(framer.next_frame().is_none());
            assert!(framer.buffered().len() - framer.searched <= 2, "the next search starts at the end");
        }
    }
}
