//! A stream: however it is cut, the same frames come out, and what is held stays bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sipwire::sip::stream::{Frame, StreamFramer};

fuzz_target!(|data: &[u8]| {
    // The first bytes say where to cut.
    let (cuts, stream) = data.split_at(data.len().min(4));
    let whole = frames(&[stream]);
    let mut pieces = Vec::new();
    let mut rest = stream;
    for cut in cuts {
        let (piece, tail) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    assert_eq!(frames(&pieces), whole, "cut at {cuts:?}");
    if stream.len() < 600 {
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(frames(&single), whole, "one byte at a time");
    }
});

fn frames(pieces: &[&[u8]]) -> Vec<String> {
    let mut framer = StreamFramer::default();
    let mut found = Vec::new();
    for piece in pieces {
        framer.push(piece);
        while let Some(frame) = framer.next_frame() {
            found.push(match frame {
                Frame::Message(message) => format!("{:?}", message.as_bytes()),
                Frame::Ping => "ping".to_owned(),
                Frame::Pong => "pong".to_owned(),
                Frame::Bad(error) => format!("bad {:?}", error.answer),
                Frame::Lost(error) => format!("lost {:?}", error.answer),
            });
        }
    }
    found
}
