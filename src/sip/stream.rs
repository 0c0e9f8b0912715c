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
                [b'\r', b'\n', b'\r', b'\n', ..] if !self.half_ping => {
                    self.buffer.advance(4);
                    return Some(Frame::Ping);
                }
                [b'\r', b'\n', ..] => {
                    self.buffer.advance(2);
                    if self.half_ping {
                        self.half_ping = false;
                        return Some(Frame::Ping);
                    }
                    self.half_ping = true;
                    if std::mem::take(&mut self.pong_expected) {
                        return Some(Frame::Pong);
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
