//! Quoting of words in suggested commands.
//!
//! A shell and Shoal's prompt read the output as exactly one word, equal to the input.

use std::path::Path;

/// Quotes a word if it needs quotes.
pub(crate) fn quote_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@%+=,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

pub(crate) fn quote_path(path: &Path) -> String {
    quote_word(&path.to_string_lossy())
}

/// A group and a file name as two words of a command.
pub(crate) fn quote_file(group: &str, name: &str) -> String {
    format!("{} {}", quote_word(group), quote_word(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_words_are_quoted() {
        for word in [
            "a b", "a;b", "a&b", "a|b", "$a", "a*", "a?", "(a)", "<a>", "#a", "~a", "`a`", "{a}", "[a]",
            "!a", "",
        ] {
            assert_eq!(quote_word(word), format!("'{word}'"));
        }
        assert_eq!(quote_word("it's"), r"'it'\''s'");
        for word in ["plain", "a_b-c.d", "/a/b", "grün", "a=b"] {
            assert_eq!(quote_word(word), word);
        }
        assert_eq!(quote_file("g", "a b"), "g 'a b'");
    }
}
