//! A line of the prompt as words: blanks separate, quotes and backslashes keep together.

use std::ops::Range;
use std::str::Chars;

/// A quote that was opened and not closed, or a backslash at the very end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    /// The quote that is missing.
    #[error("the quote {0} is not closed")]
    UnclosedQuote(char),
    /// Nothing follows the backslash.
    #[error("the line ends with a backslash")]
    TrailingBackslash,
}

impl LineError {
    /// What to type instead.
    pub(crate) fn fix(self) -> String {
        match self {
            LineError::UnclosedQuote(quote) => {
                format!("close it, or write \\{quote} for the character itself")
            }
            LineError::TrailingBackslash => "write \\\\ for the character itself".into(),
        }
    }
}

/// Splits a line into words. Between single quotes everything is itself; between double quotes a backslash makes `"`
/// and `\` themselves; outside of quotes it makes any character itself.
///
/// # Errors
/// [`LineError`] when a quote stays open or the line ends in a backslash.
pub(crate) fn split_words(line: &str) -> Result<Vec<String>, LineError> {
    let (words, whole) = split_unfinished(line);
    whole.map(|()| words.into_iter().map(|word| word.text).collect())
}

/// A word, and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LineWord {
    /// What it says.
    pub(crate) text: String,
    /// Its bytes in the line, quotes and backslashes among them.
    pub(crate) range: Range<usize>,
}

/// As [`split_words`], of a line that may not be finished: its last word goes on to its end then.
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
