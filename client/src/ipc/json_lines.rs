//! JSON lines over a stream, with a limit on the length of a line.

use std::io::{self, BufRead, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes one value as one line.
///
/// # Errors
/// Those of the stream.
pub(crate) fn write_line<T: Serialize>(stream: &mut impl Write, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line as one value; `None` at the end of the stream.
///
/// # Errors
/// `InvalidData` for a line that is too long, incomplete or another value; else those of the stream.
pub(crate) fn read_line<T: DeserializeOwned>(
    stream: &mut impl BufRead,
    max_bytes: u64,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let read = stream.by_ref().take(max_bytes).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let cause = if read as u64 == max_bytes { "a line is too long" } else { "a line was cut off" };
        return Err(io::Error::new(io::ErrorKind::InvalidData, cause));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_one_by_one() {
        let mut stream = Vec::new();
        write_line(&mut stream, &"a\nb").unwrap();
        write_line(&mut stream, &"c").unwrap();
        let mut reader = stream.as_slice();
        assert_eq!(read_line::<String>(&mut reader, 100).unwrap().as_deref(), Some("a\nb"));
        assert_eq!(read_line::<String>(&mut reader, 100).unwrap().as_deref(), Some("c"));
        assert_eq!(read_line::<String>(&mut reader, 100).unwrap(), None);
    }

    #[test]
    fn long_incomplete_and_invalid_lines_are_refused() {
        let refused = |mut bytes: &[u8], max| read_line::<u32>(&mut bytes, max).unwrap_err().kind();
        assert_eq!(refused(b"123456789\n", 5), io::ErrorKind::InvalidData);
        assert_eq!(refused(b"12", 5), io::ErrorKind::InvalidData);
        assert_eq!(refused(b"\"x\"\n", 5), io::ErrorKind::InvalidData);
    }
}
