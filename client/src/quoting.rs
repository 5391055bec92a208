//! Quoting of words in suggested commands.
//!
//! A shell and Shoal's prompt read the output as exactly one word, equal to the input. Only a path with bytes that a
//! terminal cannot show is quoted in a form that shells alone read.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use engine::proto::manifest::{BadFileName, FileName};

use crate::printable::is_harmful;

/// Quotes a word if it needs quotes.
pub(crate) fn quote_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@%+=,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Quotes a path for a shell. Bytes that cannot be shown are written as `$'\xE9'`.
pub(crate) fn quote_path(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.chars().any(is_harmful) => quote_word(text),
        _ => {
            let quote = |byte: &u8| match byte {
                b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
                b' '..=b'~' => char::from(*byte).to_string(),
                byte => format!("\\x{byte:02X}"),
            };
            let quoted: String = path.as_os_str().as_bytes().iter().map(quote).collect();
            format!("$'{quoted}'")
        }
    }
}

/// An `upload_file` command, between backticks, that lists a file under a name like its own that can be listed.
pub(crate) fn upload_as(group: &str, path: &Path) -> String {
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let name: String = own.chars().filter_map(listable_character).collect();
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_listable = FileName::new(&name).is_ok_and(|name| name.check_new().is_ok());
    let name = if is_listable { quote_word(&name) } else { "NAME".to_owned() };
    format!("`upload_file {} {} --as {name}`", quote_word(group), quote_path(path))
}

/// An `upload_file` command, between backticks, that lists a file under `name`.
pub(crate) fn upload_again(group: &str, name: &str, path: &Path) -> String {
    let (group, quoted) = (quote_word(group), quote_path(path));
    match path.file_name().is_some_and(|own| own == name) {
        true => format!("`upload_file {group} {quoted}`"),
        false => format!("`upload_file {group} {quoted} --as {}`", quote_word(name)),
    }
}

/// An `upload_file` command, between backticks, for a name that the user has yet to choose.
pub(crate) fn upload_renamed(group: &str, path: &Path) -> String {
    format!("`upload_file {} {} --as NEWNAME`", quote_word(group), quote_path(path))
}

/// The character itself, `_` for one that no name may have, and nothing for one that shows nothing.
fn listable_character(c: char) -> Option<char> {
    match FileName::new(c.encode_utf8(&mut [0; 4])).map(|name| name.check_new()) {
        Ok(Err(BadFileName::Invisible(_))) => None,
        Err(BadFileName::Forbidden(_)) => Some('_'),
        _ if c == char::REPLACEMENT_CHARACTER => Some('_'),
        _ => Some(c),
    }
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

    #[test]
    fn paths_that_cannot_be_shown_are_quoted_for_a_shell() {
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a/it's \xe9\n"));
        assert_eq!(quote_path(path), r"$'/a/it\'s \xE9\x0A'");
        assert_eq!(quote_path(Path::new("/a b")), "'/a b'");
    }
}
