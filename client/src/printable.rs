//! Makes text from trackers and peers safe to print on a terminal.
//!
//! The output has no control characters, line ends or bidirectional marks, and is at most
//! [`PRINTABLE_MAX_BYTES`](limits::PRINTABLE_MAX_BYTES) long.

use crate::limits;

/// Marks truncated text.
const ELLIPSIS: char = '…';

/// Escapes harmful characters as Rust literals do, and truncates long text.
pub(crate) fn make_printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        let before = shown.len();
        if is_harmful(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        if shown.len() > limits::PRINTABLE_MAX_BYTES - ELLIPSIS.len_utf8() {
            // Never cuts within an escape. Text that would just fit is cut too, which costs three bytes at most.
            shown.truncate(before);
            shown.push(ELLIPSIS);
            break;
        }
    }
    shown
}

fn is_harmful(c: char) -> bool {
    let direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || direction || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_escaped_and_the_rest_kept() {
        for (text, shown) in [
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("txt\u{202e}exe", "txt\\u{202e}exe"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("Grüße, 你好 “quoted”", "Grüße, 你好 “quoted”"),
        ] {
            assert_eq!(make_printable(text), shown);
        }
    }

    proptest! {
        #[test]
        fn output_is_harmless_and_short(text: String, times in 1_usize..200) {
            let shown = make_printable(&text.repeat(times));
            prop_assert!(shown.len() <= limits::PRINTABLE_MAX_BYTES);
            prop_assert!(!shown.chars().any(is_harmful));
            prop_assert!(text.is_empty() || !shown.is_empty());
        }
    }
}
