//! Splits a line of the prompt into words: blanks separate, quotes and backslashes keep characters together.

use std::ops::Range;
use std::str::Chars;

/// Why a line is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    /// The quote character that was not closed.
    #[error("the quote {0} is not closed")]
    UnclosedQuote(char),
    #[error("the line ends with a backslash")]
    TrailingBackslash,
}

impl LineError {
    /// How to complete the line.
    pub(crate) fn fix(self) -> String {
        match self {
            LineError::UnclosedQuote(quote) => {
                format!("close it, or write \\{quote} for the character itself")
            }
            LineError::TrailingBackslash => "write \\\\ for the character itself".into(),
        }
    }
}

/// Splits a line into words. Between single quotes every character is literal; between double quotes a backslash escapes
/// `"` and `\`; outside of quotes it escapes any character.
///
/// # Errors
/// [`LineError`] for an unclosed quote or a final backslash.
pub(crate) fn split_words(line: &str) -> Result<Vec<String>, LineError> {
    let (words, whole) = split_unfinished(line);
    whole.map(|()| words.into_iter().map(|word| word.text).collect())
}

/// A word and its position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LineWord {
    /// The word without quotes and backslashes.
    pub(crate) text: String,
    /// Byte range in the line, including quotes and backslashes.
    pub(crate) range: Range<usize>,
}

/// Like [`split_words`], for a line that may be incomplete: an unclosed word extends to the end of the line.
pub(crate) fn split_unfinished(line: &str) -> (Vec<LineWord>, Result<(), LineError>) {
    let mut words: Vec<LineWord> = Vec::new();
    let mut characters = line.chars();
    let mut within = false;
    let mut whole = Ok(());
    loop {
        let start = line.len() - characters.as_str().len();
        let Some(c) = characters.next() else { break };
        if c.is_whitespace() {
            within = false;
            continue;
        }
        if !std::mem::replace(&mut within, true) {
            words.push(LineWord { text: String::new(), range: start..start });
        }
        let Some(word) = words.last_mut() else { continue };
        let taken = match c {
            quote @ ('\'' | '"') => take_quoted(&mut characters, quote, &mut word.text),
            '\\' => characters.next().map(|c| word.text.push(c)).ok_or(LineError::TrailingBackslash),
            c => {
                word.text.push(c);
                Ok(())
            }
        };
        word.range.end = line.len() - characters.as_str().len();
        whole = whole.and(taken);
    }
    (words, whole)
}

fn take_quoted(characters: &mut Chars<'_>, quote: char, word: &mut String) -> Result<(), LineError> {
    loop {
        match characters.next().ok_or(LineError::UnclosedQuote(quote))? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match characters.next().ok_or(LineError::UnclosedQuote(quote))? {
                c @ ('"' | '\\') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quoting::quote_word;

    #[test]
    fn quotes_and_backslashes_keep_words_together() {
        let cases: [(&str, &[&str]); 6] = [
            ("", &[]),
            ("  login  alice ", &["login", "alice"]),
            (r#"upload_file g "my file.bin""#, &["upload_file", "g", "my file.bin"]),
            (r"upload_file g my\ file.bin", &["upload_file", "g", "my file.bin"]),
            (r#"a '' "x\"y" 'p\q'"#, &["a", "", "x\"y", "p\\q"]),
            ("a'b c'd", &["ab cd"]),
        ];
        for (line, wanted) in cases {
            assert_eq!(split_words(line).unwrap(), wanted, "{line}");
        }
        assert_eq!(split_words("a 'b"), Err(LineError::UnclosedQuote('\'')));
        let at = |line| split_unfinished(line).0.into_iter().map(|word| word.range).collect::<Vec<_>>();
        assert_eq!(at(r#" "ä b"  c\ d 'e f"#), [1..7, 9..13, 14..18]);
        assert_eq!(split_words("a\\"), Err(LineError::TrailingBackslash));
    }

    proptest! {
        #[test]
        fn a_quoted_word_reads_back(word in any::<String>()) {
            prop_assert_eq!(split_words(&quote_word(&word)), Ok(vec![word]));
        }
    }
}
