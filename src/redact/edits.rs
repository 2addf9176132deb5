//! Replacements in a text.

use std::{borrow::Cow, cmp::Reverse, ops::Range};

/// In place of a secret.
pub(super) const REDACTED: &str = "REDACTED";

/// Ranges of a text and what is to stand in their place.
#[derive(Debug, Default)]
pub(super) struct Edits(Vec<(Range<usize>, Cow<'static, str>)>);

impl Edits {
    pub(super) fn replace(&mut self, range: Range<usize>, new: impl Into<Cow<'static, str>>) {
        self.0.push((range, new.into()));
    }

    /// The text with all replacements; borrowed if they change nothing. Where ranges overlap, the
    /// first of them stands for all.
    pub(super) fn apply(mut self, text: &str) -> Cow<'_, str> {
        self.0
            .sort_by_key(|(range, _)| (range.start, Reverse(range.end)));
        let mut edited = String::new();
        let mut done = 0;
        let mut edits = self.0.into_iter().peekable();
        while let Some((Range { start, mut end }, mut new)) = edits.next() {
            while let Some((range, other)) = edits.next_if(|(range, _)| range.start < end) {
                if range.end > end {
                    end = range.end;
                    if new.is_empty() {
                        new = other;
                    }
                }
            }
            if text.get(start..end) == Some(&*new) {
                continue;
            }
            edited.push_str(text.get(done..start).unwrap_or_default());
            edited.push_str(&new);
            done = end;
        }
        if done == 0 && edited.is_empty() {
            return Cow::Borrowed(text);
        }
        edited.push_str(text.get(done..).unwrap_or_default());
        Cow::Owned(edited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, edits: &[(Range<usize>, &'static str)]) -> String {
        let mut all = Edits::default();
        for (range, new) in edits {
            all.replace(range.clone(), *new);
        }
        all.apply(text).into_owned()
    }

    #[test]
    fn ranges_are_replaced_in_any_order() {
        assert_eq!(edited("abcdef", &[(4..5, "X"), (0..2, "Y")]), "YcdXf");
        assert_eq!(edited("abc", &[(0..3, "")]), "");
        assert_eq!(edited("abc", &[]), "abc");
    }

    #[test]
    fn overlapping_ranges_are_replaced_once() {
        assert_eq!(edited("abcdef", &[(1..3, "X"), (2..4, "Y")]), "aXef");
        assert_eq!(edited("abcdef", &[(2..3, "X"), (1..5, "Y")]), "aYf");
        assert_eq!(edited("abcdef", &[(1..3, ""), (2..4, "Y")]), "aYef");
        assert_eq!(edited("abcdef", &[(1..3, "X"), (1..3, "X")]), "aXdef");
    }

    #[test]
    fn a_text_that_stays_the_same_is_borrowed() {
        let mut edits = Edits::default();
        edits.replace(1..2, "b");
        assert!(matches!(edits.apply("abc"), Cow::Borrowed("abc")));
    }
}
