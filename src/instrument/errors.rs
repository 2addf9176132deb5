//! Messages and sources of errors. `Display` and `source` are foreign code: they may panic, fail, or
//! go in a circle.

use std::{
    error::Error,
    fmt::{self, Write},
    io, iter,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub(crate) type DynError = dyn Error + 'static;

/// The most errors of a chain that are read: an error may be its own source.
const LONGEST_CHAIN: usize = 16;

/// The error and its sources. The source of an I/O error is the error in it, which `source()` skips.
pub(crate) fn chain(error: &DynError) -> impl Iterator<Item = &DynError> {
    iter::successors(Some(error), |&error| source(error)).take(LONGEST_CHAIN)
}

fn source(error: &DynError) -> Option<&DynError> {
    let io = error.downcast_ref::<io::Error>();
    match io.and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => catch_unwind(AssertUnwindSafe(|| error.source())).unwrap_or_default(),
    }
}

/// The text of an error, at most `longest` bytes. When its `Display` fails or panics, the text says so.
pub(crate) fn text(error: &(impl fmt::Display + ?Sized), longest: usize) -> String {
    let mut text = Bounded::new(longest);
    match catch_unwind(AssertUnwindSafe(|| write!(text, "{error}"))) {
        Ok(Ok(())) => {}
        Ok(Err(_)) => text.add("(the Display of this error failed)"),
        Err(_) => text.add("(the Display of this error panicked)"),
    }
    text.text
}

/// The message of an error and of what caused it, at most `longest` bytes: `outer: inner: innermost`.
pub(crate) fn message(error: &DynError, longest: usize) -> String {
    let mut message = Bounded::new(longest);
    for (depth, cause) in chain(error).enumerate() {
        let text = text(cause, longest);
        if depth == 0 {
            message.add(&text);
        } else if !message.text.ends_with(&text) {
            // Many errors already end with the text of their source.
            message.add(": ");
            message.add(&text);
        }
    }
    message.text
}

/// Keeps the beginning of what is written, and discards the rest without an error, because a `Display`
/// may panic when writing fails.
struct Bounded {
    text: String,
    longest: usize,
}

impl Bounded {
    fn new(longest: usize) -> Self {
        Self {
            text: String::new(),
            longest,
        }
    }

    fn add(&mut self, more: &str) {
        let room = self.longest.saturating_sub(self.text.len());
        let kept = beginning(more, room);
        self.text.push_str(kept);
        if kept.len() < more.len() {
            // Nothing is kept after a gap.
            self.longest = self.text.len();
        }
    }
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.add(more);
        Ok(())
    }
}

/// The first `longest` bytes of a text, or fewer where a character would be cut.
pub(crate) fn beginning(text: &str, longest: usize) -> &str {
    if text.len() <= longest {
        return text;
    }
    let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Strange(&'static str);

    impl fmt::Display for Strange {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                "panics" => panic!("in Display"),
                "fails" => {
                    f.write_str("half ")?;
                    Err(fmt::Error)
                }
                "unwraps" => {
                    for _ in 0..1000 {
                        f.write_str("né").expect("a string takes everything");
                    }
                    Ok(())
                }
                text => f.write_str(text),
            }
        }
    }

    impl Error for Strange {
        fn source(&self) -> Option<&DynError> {
            match self.0 {
                "circle" => Some(self),
                "source panics" => panic!("in source"),
                _ => None,
            }
        }
    }

    // faults F1
    #[test]
    fn a_chain_ends_even_if_it_is_a_circle() {
        assert_eq!(chain(&Strange("circle")).count(), LONGEST_CHAIN);
        assert_eq!(message(&Strange("circle"), 100), "circle");
        assert_eq!(chain(&Strange("source panics")).count(), 1);
    }

    // faults F2
    #[test]
    fn a_text_that_cannot_be_had_says_so() {
        let text = |kind| text(&Strange(kind), 100);
        assert_eq!(text("panics"), "(the Display of this error panicked)");
        assert_eq!(text("fails"), "half (the Display of this error failed)");
        assert_eq!(text("whole"), "whole");
    }

    // faults F3
    #[test]
    fn a_text_is_kept_up_to_its_bound() {
        let unwraps = |longest| text(&Strange("unwraps"), longest);
        assert_eq!(unwraps(0), "");
        assert_eq!(unwraps(1), "n");
        assert_eq!(unwraps(2), "n", "a character is not cut");
        assert_eq!(unwraps(7), "nénén");
        assert!(unwraps(1 << 20).capacity() < 1 << 13);
        let nested = io::Error::other(Strange("inner"));
        assert_eq!(message(&nested, 100), "inner");
        assert_eq!(message(&nested, 3), "inn");
    }
}
