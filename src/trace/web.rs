//! The frames of gRPC-Web (PROTOCOL-WEB), whose last one holds the trailers.

use arrayvec::ArrayVec;

use crate::semconv::GrpcCode;

/// A flag of one byte, and a length of four.
const HEAD: usize = 5;

/// Set in the flag of a frame of trailers.
const TRAILERS: u8 = 0x80;

/// Set in the flag of a frame whose content is compressed. There are no other flags.
const COMPRESSED: u8 = 1;

/// Of longer trailers only the first lines are kept; a status and its message are a few hundred bytes.
const MOST_TRAILERS: usize = 16 * 1024;

const STATUS: &[u8] = b"grpc-status:";

/// Follows the frames of a body in whatever pieces it comes.
#[derive(Debug, Default)]
pub(super) struct WebFrames {
    /// Content type `-web-text`: the frames are in base64.
    pub(super) is_text: bool,
    group: ArrayVec<u8, 4>,
    head: ArrayVec<u8, HEAD>,
    /// What is left of the frame after its head.
    left: usize,
    trailers: Vec<u8>,
    /// From a whole frame of trailers.
    code: Option<GrpcCode>,
}

/// The frames cannot be followed any further.
#[derive(Debug)]
struct Lost;

impl WebFrames {
    /// Reads the next bytes of the body.
    pub(super) fn read(&mut self, piece: &[u8]) {
        let followed = match self.is_text {
            true => self.text(piece),
            false => self.frames(piece),
        };
        if followed.is_err() {
            // The next piece may begin with a frame: most servers write each of them at once.
            self.group.clear();
            self.head.clear();
            self.left = 0;
        }
    }

    /// The status in the trailers, as soon as they are there.
    pub(super) fn code(&self) -> Option<GrpcCode> {
        self.code
    }

    /// Each group of four letters stands for itself: padding may come in between, where a message ends.
    fn text(&mut self, piece: &[u8]) -> Result<(), Lost> {
        for letter in piece {
            self.group.push(*letter);
            if let [a, b, c, d] = self.group[..] {
                self.group.clear();
                let (bytes, count) = decode([a, b, c, d]).ok_or(Lost)?;
                self.frames(&bytes[..count])?;
            }
        }
        Ok(())
    }

    fn frames(&mut self, mut bytes: &[u8]) -> Result<(), Lost> {
        while !bytes.is_empty() {
            bytes = match self.left {
                0 => self.frame_head(bytes)?,
                _ => self.frame_content(bytes),
            };
        }
        Ok(())
    }

    /// Takes what belongs to the head of a frame, and returns the rest.
    fn frame_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Lost> {
        let missing = self.head.remaining_capacity();
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        self.head.extend(part.iter().copied());
        if self.head[0] & !(TRAILERS | COMPRESSED) != 0 {
            return Err(Lost);
        }
        if let [_, a, b, c, d] = self.head[..] {
            self.trailers.clear();
            self.left = u32::from_be_bytes([a, b, c, d]) as usize;
            self.end_frame();
        }
        Ok(rest)
    }

    /// Takes what belongs to the content of the frame, and returns the rest.
    fn frame_content<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
        if self.head[0] & TRAILERS != 0 {
            let room = MOST_TRAILERS - self.trailers.len();
            self.trailers
                .extend_from_slice(&part[..part.len().min(room)]);
        }
        self.left -= part.len();
        self.end_frame();
        rest
    }

    fn end_frame(&mut self) {
        if self.left == 0 {
            if self.head[0] & TRAILERS != 0 {
                self.code = status(&self.trailers).or(self.code);
            }
            self.head.clear();
        }
    }
}

/// The status in a block of trailers, which are written as in HTTP/1.1.
fn status(mut trailers: &[u8]) -> Option<GrpcCode> {
    if trailers.len() == MOST_TRAILERS {
        // The last line may be cut, and with it the number.
        let end = trailers.iter().rposition(|byte| *byte == b'\n')?;
        trailers = &trailers[..end];
    }
    trailers.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(STATUS.len())?;
        name.eq_ignore_ascii_case(STATUS)
            .then(|| GrpcCode::parse(value.trim_ascii()))
    })
}

/// The bytes of four letters of base64 (RFC 4648 §4), and how many they are: fewer with padding.
fn decode(group: [u8; 4]) -> Option<([u8; 3], usize)> {
    let mut bits = 0;
    for letter in group {
        let digit = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => 0,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
    }
    let count = match group {
        [_, _, b'=', _] => 1,
        [_, _, _, b'='] => 2,
        _ => 3,
    };
    let [_, bytes @ ..] = bits.to_be_bytes();
    Some((bytes, count))
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::{collection::vec, prelude::*};

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
    fn trailers_that_are_not_whole_have_no_status() {
        // Cut here, the status would be another one.
        let trailers = frame(0x80, b"grpc-status: 13\r\n");
        for end in 0..trailers.len() {
            assert_eq!(code(false, [&trailers[..end]]), None, "{end}");
        }
    }

    #[test]
    fn after_bytes_that_are_no_frame_the_next_piece_may_be_one() {
        let trailers = frame(0x80, b"grpc-status: 5\r\n");
        let found = code(false, [b"a message", &*trailers]);
        assert_eq!(found, Some(GrpcCode::NotFound));
        let trailers = STANDARD.encode(trailers);
        let found = code(true, [b"a message", trailers.as_bytes()]);
        assert_eq!(found, Some(GrpcCode::NotFound));
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

    #[test]
    fn a_status_that_the_bound_cuts_is_none() {
        for (before, expected) in [
            (0, Some(GrpcCode::Internal)),
            (
                MOST_TRAILERS - b"grpc-status: 13\r\n".len(),
                Some(GrpcCode::Internal),
            ),
            (MOST_TRAILERS - b"grpc-status: 1".len(), None),
        ] {
            let mut trailers = vec![b'x'; before.saturating_sub(1)];
            trailers.extend(vec![b'\n'; before.min(1)]);
            trailers.extend(b"grpc-status: 13\r\ngrpc-message: m\r\n");
            let trailers = frame(0x80, &trailers);
            assert_eq!(code(false, [&*trailers]), expected, "{before}");
        }
    }

    #[test]
    fn trailers_that_broke_off_are_forgotten() {
        let whole = STANDARD.encode(frame(0x80, b"grpc-status: 5\r\n"));
        let broken = STANDARD.encode(frame(0x80, b"grpc-message: ab"));
        let broken = format!("{}%%%%", &broken[..20]);
        let found = code(true, [broken.as_bytes(), whole.as_bytes()]);
        assert_eq!(found, Some(GrpcCode::NotFound));
    }

    proptest! {
        #[test]
        fn any_messages_may_come_before_the_trailers(
            messages in vec((0_u8..2, vec(any::<u8>(), 0..40)), 0..8),
            number in 0_usize..17,
            step in 1_usize..50,
            is_text in any::<bool>(),
        ) {
            let mut body: Vec<u8> = messages
                .iter()
                .flat_map(|(flag, message)| frame(*flag, message))
                .collect();
            body.extend(frame(0x80, format!("grpc-status:{number}\r\n").as_bytes()));
            if is_text {
                body = STANDARD.encode(body).into_bytes();
            }
            let expected = GrpcCode::parse(number.to_string().as_bytes());
            prop_assert_eq!(code(is_text, body.chunks(step)), Some(expected));
        }

        #[test]
        fn a_body_of_any_bytes_is_followed_within_bounds(
            pieces in vec(vec(any::<u8>(), 0..60), 0..20),
            is_text in any::<bool>(),
        ) {
            let mut frames = WebFrames { is_text, ..WebFrames::default() };
            for piece in &pieces {
                frames.read(piece);
                prop_assert!(frames.trailers.len() <= MOST_TRAILERS);
            }
        }
    }
}
