//! Text for a terminal: harmless characters, display widths, and readable durations and sizes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::instrument::TextRules;

/// The most combining characters that are drawn onto one other. Languages need fewer, and more would
/// make a line of few columns and many bytes.
const MARKS: usize = 4;

/// Letters and marks that nothing is drawn for: the fillers of Hangul, the grapheme joiner, and two vowels of Khmer.
const HIDDEN: [char; 7] = [
    '\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}', '\u{34f}', '\u{17b4}', '\u{17b5}',
];

/// Makes any text fit for a terminal, and at most 4 KiB of it. All texts of spans, metrics and log
/// records go through here.
///
/// Credentials and signatures are redacted. Every character that a terminal would obey or hide is
/// escaped: control characters (escape sequences start with one), direction overrides, zero-width and
/// unassigned characters. A run of white space becomes one space, so that a message of several lines
/// becomes one line.
pub(super) fn printable(text: &str) -> String {
    let rules = TextRules::default();
    let text = rules.message(text);
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        for c in word.chars() {
            // `escape_debug` knows Unicode's unprintable characters. It also escapes quotes and
            // backslashes, which a terminal shows as they are.
            marks = if combines(c) { marks + 1 } else { 0 };
            if HIDDEN.contains(&c) {
                out.extend(c.escape_unicode());
            } else if matches!(c, '"' | '\'' | '\\') || (1..=MARKS).contains(&marks) {
                out.push(c);
            } else {
                out.extend(c.escape_debug());
            }
        }
    }
    out
}

/// `key=value` as [`printable`] text, with at most `columns` columns of the value. Key and value are
/// redacted together, so that the value of a sensitive key is not shown.
pub(super) fn pair(key: &str, value: &str, columns: usize) -> String {
    let columns = width(&printable(key)) + 1 + columns;
    cut(&printable(&format!("{key}={value}")), columns)
}

/// The number of terminal columns of a [`printable`] text. Wide characters are judged by Unicode
/// block, so a rare symbol may count as two columns where it takes one. A line is never longer than
/// measured.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    match c {
        ' '..='~' => 1,
        '\u{1100}'..='\u{115f}'
        | '\u{231a}'..='\u{23ff}'
        | '\u{25fd}'..='\u{25fe}'
        | '\u{2600}'..='\u{27bf}'
        | '\u{2b00}'..='\u{2bff}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe10}'..='\u{fe6f}'
        | '\u{ff01}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{16fe0}'..='\u{1b2ff}'
        | '\u{1d300}'..='\u{1d376}'
        | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ if combines(c) => 0,
        _ => 1,
    }
}

/// Whether `c` is drawn onto the character before it. The standard library escapes such a character
/// at the start of a string only.
fn combines(c: char) -> bool {
    if c.is_ascii() {
        return false;
    }
    let mut after_a_letter = String::from('a');
    after_a_letter.push(c);
    c.escape_debug().len() > 1 && after_a_letter.escape_debug().nth(1) == Some(c)
}

/// Cuts `text` to at most `columns` columns. A text that is longer ends with `…`.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let mut out: String = text
        .chars()
        .take_while(|&c| match left.checked_sub(char_width(c)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
        .collect();
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Fills `text` up with spaces to `columns` columns.
pub(super) fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(width(text));
    format!("{text}{:missing$}", "")
}

/// Lays `pieces` out in order, in as few lines of `columns` columns as possible.
pub(super) fn fill<'a>(
    pieces: impl IntoIterator<Item = &'a str>,
    separator: &str,
    columns: usize,
) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        let piece = cut(piece, columns);
        match lines.last_mut() {
            Some(line) if width(line) + width(separator) + width(&piece) <= columns => {
                line.push_str(separator);
                line.push_str(&piece);
            }
            _ => lines.push(piece),
        }
    }
    lines
}

/// Formats a duration with three significant digits, in at most seven columns: `412 µs`, `38.2 ms`,
/// `1.20 s`, `2m 05s`, `1h 02m`, `4d 03h`, `120d`.
pub(super) fn duration(duration: Duration) -> String {
    if duration < Duration::from_millis(59_950) {
        return three_digits(duration.as_nanos() as f64, &["ns", "µs", "ms", "s"]);
    }
    let in_units_of = |seconds: u64| (duration.as_secs_f64() / seconds as f64).round() as u64;
    let (seconds, minutes, hours, days) = (
        in_units_of(1),
        in_units_of(60),
        in_units_of(3_600),
        in_units_of(86_400),
    );
    if seconds < 3_600 {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    } else if minutes < 100 * 60 {
        format!("{}h {:02}m", minutes / 60, minutes % 60)
    } else if hours < 100 * 24 {
        format!("{}d {:02}h", hours / 24, hours % 24)
    } else if days < 100_000 {
        format!("{days}d")
    } else {
        ">99999d".to_owned()
    }
}

/// The time of day in UTC: `06:17:25.120`.
pub(super) fn time_of_day(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// Formats a size with three significant digits in decimal units: `412 B`, `23.4 kB`, `1.20 MB`.
pub(super) fn bytes(bytes: i64) -> String {
    three_digits(bytes as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// Formats `value`, a whole number of the first of `units`. Each unit is 1,000 times the one before.
fn three_digits(value: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // From 999.5 on, rounding would show a fourth digit.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_significant_digits() {
        for (nanos, shown) in [
            (0, "0 ns"),
            (412, "412 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (412_000, "412 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (1_234_567, "1.23 ms"),
            (9_996_000, "10.0 ms"),
            (38_249_000, "38.2 ms"),
            (99_960_000, "100 ms"),
            (1_200_000_000, "1.20 s"),
            (59_949_000_000, "59.9 s"),
            (59_950_000_000, "1m 00s"),
            (125_400_000_000, "2m 05s"),
            (3_599_400_000_000, "59m 59s"),
            (3_599_600_000_000, "1h 00m"),
            (3_725_000_000_000, "1h 02m"),
            (359_969_000_000_000, "99h 59m"),
            (359_971_000_000_000, "4d 04h"),
            (8_640_000_000_000_000, "100d"),
            (u64::MAX, ">99999d"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), shown, "{nanos} ns");
        }
    }

    #[test]
    fn sizes_have_three_significant_digits() {
        for (size, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (23_449, "23.4 kB"),
            (999_600, "1.00 MB"),
            (i64::MAX, "9223372 TB"),
        ] {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn nothing_a_terminal_obeys_or_hides_is_left() {
        for (text, shown) in [
            ("plain 'text' \\ \"x\"", "plain 'text' \\ \"x\""),
            ("a\r\n\tb  c ", "a b c"),
            ("\x1b[31mred\x07\x7f", "\\u{1b}[31mred\\u{7}\\u{7f}"),
            ("c1 \u{9b}31m", "c1 \\u{9b}31m"),
            (
                "\u{202e}gpj.\u{200b}\u{2066}",
                "\\u{202e}gpj.\\u{200b}\\u{2066}",
            ),
            ("e\u{301} 猫 🐈", "e\u{301} 猫 🐈"),
            ("a\u{3164}b\u{34f}", "a\\u{3164}b\\u{34f}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn a_letter_has_a_few_marks_at_most() {
        let shown = printable(&format!("e{}x", "\u{301}".repeat(MARKS + 2)));
        let marks = "\u{301}".repeat(MARKS);
        assert_eq!(shown, format!("e{marks}\\u{{301}}\\u{{301}}x"));
    }

    #[test]
    fn texts_are_measured_and_cut_in_columns() {
        assert_eq!(width("e\u{301}x"), 2);
        assert_eq!(width("猫🐈"), 4);
        assert_eq!(width("\u{25fd}\u{25fe}\u{1d300}"), 6);
        for (text, columns, shown) in [
            ("cat", 3, "cat"),
            ("cats", 3, "ca…"),
            ("猫猫猫", 6, "猫猫猫"),
            ("猫猫猫", 5, "猫猫…"),
            ("猫猫猫", 4, "猫…"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("cat", 1, "…"),
            ("cat", 0, ""),
        ] {
            assert_eq!(cut(text, columns), shown);
        }
        assert_eq!(pad("猫", 4), "猫  ");
    }

    #[test]
    fn pieces_share_lines_as_long_as_they_fit() {
        let pieces = ["aaa", "bb", "cccc", "ddddddddddd"];
        assert_eq!(fill(pieces, " · ", 10), ["aaa · bb", "cccc", "ddddddddd…"]);
        assert!(fill([], " ", 10).is_empty());
    }
}
