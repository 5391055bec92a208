//! Words of advice that can be pasted: as they are typed at the prompt and in a shell.
//!
//! Invariant: a shell and the prompt read what comes out as the one word that went in.

use std::path::Path;

/// The shortest safe way to type a word.
pub(crate) fn quote_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@%+=,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A path, likewise.
pub(crate) fn quote_path(path: &Path) -> String {
    quote_word(&path.to_string_lossy())
}

/// The two words that name a file to a command: its group and its name there.
pub(crate) fn quote_file(group: &str, name: &str) -> String {
    format!("{} {}", quote_word(group), quote_word(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
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
