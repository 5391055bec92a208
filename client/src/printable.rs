//! Makes text from trackers, peers and the local file system safe to print on a terminal.
//!
//! The output has no control characters, line ends or bidirectional marks. Text from the network is also cut to
//! [`PRINTABLE_MAX_BYTES`](limits::PRINTABLE_MAX_BYTES).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use engine::proto::manifest::is_invisible;

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

/// Escapes harmful characters as Rust literals do.
pub(crate) fn escape_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    push_escaped(&mut shown, text);
    shown
}

/// A listed name for a table: characters that show nothing are escaped too, so that it looks like no other name.
pub(crate) fn show_name(name: &str) -> String {
    let mut shown = String::with_capacity(name.len());
    for c in make_printable(name).chars() {
        if is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Escapes harmful characters, except line ends.
pub(crate) fn escape_lines(text: &str) -> String {
    text.split('\n').map(escape_line).collect::<Vec<_>>().join("\n")
}

/// A local path as one line of text: harmful characters are escaped, and bytes that are not UTF-8 are shown as `\xE9`.
pub(crate) fn show_path(path: &Path) -> String {
    let mut shown = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        push_escaped(&mut shown, chunk.valid());
        shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    shown
}

fn push_escaped(shown: &mut String, text: &str) {
    for c in text.chars() {
        if is_harmful(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
}

/// Whether a character changes more of a terminal than its own cell: controls, line ends, changes of text direction.
pub(crate) fn is_harmful(c: char) -> bool {
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

    #[test]
    fn a_path_is_one_line_that_shows_every_byte() {
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/d/caf\xe9\x1b[31m\nx/\xc3\xa9 \xe2\x80\xae\xff"));
        assert_eq!(show_path(path), "/d/caf\\xE9\\u{1b}[31m\\nx/é \\u{202e}\\xFF");
        assert_eq!(show_path(Path::new("/plain/grün")), "/plain/grün");
        assert_eq!(escape_lines("one\u{7}\ntwo\r\n"), "one\\u{7}\ntwo\\r\n");
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
