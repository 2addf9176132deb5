//! The patterns of rules.

/// `*` stands for any text and `?` for any one character. The case of letters does not count.
#[derive(Debug, PartialEq)]
pub(super) struct Pattern(Vec<char>);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.chars().collect())
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        if self.0 == ['*'] {
            return true;
        }
        let mut text = text.chars();
        let mut at = 0;
        // What follows the last star, and the text from where it was tried.
        let mut star = None;
        loop {
            let mut rest = text.clone();
            match (self.0.get(at), rest.next()) {
                (Some('*'), _) => {
                    at += 1;
                    star = Some((at, text.clone()));
                }
                (Some(&expected), Some(found)) if expected == '?' || is_same(expected, found) => {
                    at += 1;
                    text = rest;
                }
                (None, None) => return true,
                // The last star takes one character more. Earlier ones need not: what is between them fits.
                _ => {
                    let Some((after, from)) = &mut star else {
                        return false;
                    };
                    if from.next().is_none() {
                        return false;
                    }
                    at = *after;
                    text = from.clone();
                }
            }
        }
    }
}

/// Whether two letters are the same, but for their case. A sigma at the end of a word is the same in upper case only.
fn is_same(one: char, other: char) -> bool {
    one.eq_ignore_ascii_case(&other)
        || one.to_lowercase().eq(other.to_lowercase())
        || one.to_uppercase().eq(other.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of the SDK for Go, and those of wildcards of the one for Java. Two
    /// that fit in Go do not here, `a*na*ha` and `*s`, because Go looks for them anywhere in the text.
    #[rustfmt::skip]
    const CASES: &[(&str, &str, bool)] = &[
        ("*", "", true), ("", "", true), ("*", "boo", true), ("a", "a", true), ("foo", "foo", true),
        ("foo*bar*?", "foodbaris", true), ("?o?", "foo", true), ("*oo", "foo", true), ("foo*", "foo", true),
        ("*o?", "foo", true), ("*a", "a", true), ("*a", "ba", true), ("a*", "a", true), ("a*", "ab", true),
        ("a*a", "aa", true), ("a*a", "aba", true), ("a*a*", "aaaaaaaaaaaaaaaaaaaaaaa", true),
        (
            "a*b*a*b*a*b*a*b*a*",
            "akljd9gsdfbkjhaabajkhbbyiaahkjbjhbuykjakjhabkjhbabjhkaabbabbaaakljdfsjklababkjbsdabab",
            true,
        ),
        ("a*na*ha", "anananahahanahana", false), ("***a", "a", true), ("**a**", "a", true), ("a**b", "ab", true),
        ("*?", "a", true), ("*??", "aa", true), ("*?*a*", "ba", true), ("?at", "bat", true), ("?at", "cat", true),
        ("?o?se", "horse", true), ("?o?se", "mouse", true), ("*s", "horse", false), ("*se", "horse", true),
        ("J*", "Jeep", true), ("J*", "jeep", true), ("*/foo", "/bar/foo", true), ("ÄÖ?", "äöß", true),
        ("?", "İ", true), ("ΟΔΟΣ", "οδος", true), ("i?", "İ", false),
        ("", "whatever", false), ("foo", "bar", false), ("f?o", "boo", false), ("f??", "boo", false),
        ("fo*", "boo", false), ("f?*", "boo", false), ("abcd", "abc", false), ("??", "a", false),
        ("*?*a", "a", false), ("?", "", false), ("abc", "abcd", false), ("a.c", "abc", false),
        ("*GET", "BADGET", true), ("*GET", "GETGET", true), ("*GET", "POST", false),
    ];

    #[test]
    fn patterns_match_as_in_go_and_java() {
        for &(pattern, text, expected) in CASES {
            let matches = Pattern::new(pattern).matches(text);
            assert_eq!(matches, expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn long_texts_end_soon() {
        let text = format!("a{}b", "abcd".repeat(2048));
        assert!(Pattern::new("a*b").matches(&text));
        assert!(!Pattern::new(&"a*".repeat(64).replace("**", "*")).matches(&"b".repeat(8192)));
        assert!(!Pattern::new("*a*a*a*a*a*a*a*c").matches(&"a".repeat(2048)));
    }
}
