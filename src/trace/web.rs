//! The frames of gRPC-Web (PROTOCOL-WEB), whose last one holds the trailers.

use crate::semconv::GrpcCode;

/// A flag of one byte, and a length of four.
const HEAD: usize = 5;

/// Set in the flag of a frame of trailers.
const TRAILERS: u8 = 0x80;

/// Longer trailers are not kept; a status and its message are a few hundred bytes.
const MOST_TRAILERS: usize = 16 * 1024;

const STATUS: &[u8] = b"grpc-status:";

/// Follows the frames of a body in whatever pieces it comes.
#[derive(Debug, Default)]
pub(super) struct WebFrames {
    /// Content type `-web-text`: the frames are in base64.
    pub(super) is_text: bool,
    /// Up to three letters of a group of base64.
    letters: Vec<u8>,
    /// The head of a frame, as far as it was read.
    head: Vec<u8>,
    /// What is left of the frame.
    left: usize,
    trailers: Vec<u8>,
    code: Option<GrpcCode>,
}

impl WebFrames {
    pub(super) fn read(&mut self, piece: &[u8]) {
        if !self.is_text {
            self.note_whole(piece);
            return self.frames(piece);
        }
        self.note_whole(&piece.chunks(4).flat_map(group).collect::<Vec<_>>());
        for letter in piece {
            self.letters.push(*letter);
            if self.letters.len() == 4 {
                // Each group stands for itself: padding may come in between, where messages end.
                let bytes = group(&self.letters);
                self.letters.clear();
                self.frames(&bytes);
            }
        }
    }

    /// A piece that is a frame of trailers is one, even after a body that was no frames.
    fn note_whole(&mut self, piece: &[u8]) {
        if let [TRAILERS, a, b, c, d, block @ ..] = piece
            && u32::from_be_bytes([*a, *b, *c, *d]) as usize == block.len()
        {
            self.code = status(block).or(self.code);
        }
    }

    fn frames(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let missing = HEAD - self.head.len() % HEAD;
                if self.head.len() == HEAD {
                    self.head.clear();
                }
                let (head, rest) = bytes.split_at(missing.min(bytes.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                if let [_, a, b, c, d] = self.head[..] {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                }
                continue;
            }
            let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
            if self.head[0] & TRAILERS != 0 {
                let room = MOST_TRAILERS - self.trailers.len();
                self.trailers
                    .extend_from_slice(&part[..part.len().min(room)]);
            }
            self.left -= part.len();
            if self.left == 0 && self.head[0] & TRAILERS != 0 {
                self.code = status(&self.trailers).or(self.code);
            }
            bytes = rest;
        }
    }

    /// The status in the trailers, once they have come as a whole.
    pub(super) fn code(&self) -> Option<GrpcCode> {
        self.code
    }
}

/// The status in an HTTP/1.1 header block.
fn status(block: &[u8]) -> Option<GrpcCode> {
    block.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(STATUS.len())?;
        name.eq_ignore_ascii_case(STATUS)
            .then(|| GrpcCode::parse(value.trim_ascii()))
    })
}

/// The bytes of four letters of base64 (RFC 4648 §4); fewer with padding, none when it is no base64.
fn group(letters: &[u8]) -> Vec<u8> {
    let digits = letters.iter().map(|letter| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        b'=' => Some(0),
        _ => None,
    });
    let Some(digits) = digits.collect::<Option<Vec<u8>>>() else {
        return Vec::new();
    };
    let bits = digits
        .iter()
        .fold(0, |bits: u32, digit| bits << 6 | u32::from(*digit));
    let padding = letters
        .iter()
        .rev()
        .take_while(|letter| **letter == b'=')
        .count();
    let [_, bytes @ ..] = bits.to_be_bytes();
    bytes[..3_usize.saturating_sub(padding)].to_vec()
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    fn frame(flag: u8, content: &[u8]) -> Vec<u8> {
        let len = u32::try_from(content.len()).unwrap();
        [&[flag][..], &len.to_be_bytes(), content].concat()
    }

    fn code<'a>(is_text: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<GrpcCode> {
        let mut frames = WebFrames {
            is_text,
            ..WebFrames::default()
        };
        pieces.into_iter().for_each(|piece| frames.read(piece));
        frames.code()
    }

    // faults A10
    #[test]
    fn the_trailers_are_found_wherever_the_body_is_cut() {
        let messages = [
            frame(0, b"a message"),
            frame(0, b""),
            frame(1, b"\x80\0\0\0\x01"),
        ]
        .concat();
        let trailers = frame(0x80, b"grpc-message:none\r\nGrpc-Status: 5\r\n");
        let binary = [messages.clone(), trailers.clone()].concat();
        // As a whole, and with padding where the trailers begin.
        let whole = STANDARD.encode(&binary).into_bytes();
        let parts = [STANDARD.encode(&messages), STANDARD.encode(&trailers)]
            .concat()
            .into_bytes();
        for (is_text, body) in [(false, binary), (true, whole), (true, parts)] {
            for first in 0..=body.len() {
                for second in first..=body.len() {
                    let pieces = [&body[..first], &body[first..second], &body[second..]];
                    assert_eq!(
                        code(is_text, pieces),
                        Some(GrpcCode::NotFound),
                        "{first} {second}"
                    );
                }
            }
        }
    }

    #[test]
    fn bodies_that_are_no_frames_have_no_status() {
        for body in [
            &b""[..],
            b"<html>",
            &[0x80],
            &[0x80, 0xff, 0xff, 0xff, 0xff, b'g'],
            b"gA==%%%%",
        ] {
            for is_text in [false, true] {
                assert_eq!(code(is_text, [body]), None, "{body:?}");
            }
        }
        let long = frame(0x80, &[b'x'; 100_000]);
        assert_eq!(code(false, [&*long]), None);
    }
}
