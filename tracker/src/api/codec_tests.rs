//! Tests of the message reader: input cut anywhere, both forms, every refusal.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1_000;

/// All messages and refusals of `pieces`, in order, up to the first that ends the connection.
fn split<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<String, BadInput>> {
    let mut incoming = MessageReader::new();
    let mut found = Vec::new();
    for piece in pieces {
        incoming.extend(piece);
        loop {
            match incoming.next_message(LIMIT) {
                Ok(None) => break,
                Ok(Some(text)) => found.push(Ok(String::from_utf8_lossy(text).into_owned())),
                Err(bad) => {
                    found.push(Err(bad));
                    if bad.ends_connection() {
                        return found;
                    }
                }
            }
        }
    }
    found
}

fn framed(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_message(MessageForm::Framed, text.as_bytes(), &mut bytes);
    bytes
}

/// Objects whose strings could confuse a scanner.
const OBJECTS: [&str; 5] = [
    r#"{"a":"}{\"\\"}"#,
    "{\n  \"b\": [\n    1,\n    {}\n  ]\n}",
    r#"{"c":"ü\u007d\\\\"}"#,
    r"{}",
    r#"{"d":[["127.0.0.1","5001"],[]]}"#,
];

#[test]
fn both_forms_split_the_same_at_every_offset() {
    let wanted: Vec<_> = OBJECTS.iter().map(|text| Ok((*text).to_owned())).collect();
    let joined = OBJECTS.concat().into_bytes();
    let spaced = format!("\r\n {} \n", OBJECTS.join(" \t\n")).into_bytes();
    let frames: Vec<u8> = OBJECTS.iter().flat_map(|text| framed(text)).collect();
    for stream in [joined, spaced, frames] {
        for at in 0..=stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(split([head, tail]), wanted, "cut at {at}");
        }
        assert_eq!(split(stream.chunks(1)), wanted, "byte by byte");
    }
}

#[test]
fn the_first_byte_decides() {
    for (first, wanted) in [
        (b"\x16\x03\x01".as_slice(), BadInput::Tls),
        (b"T1", BadInput::Link),
        (b"GET / HTTP/1.1", BadInput::Form(b'G')),
        (b"\xff", BadInput::Form(0xff)),
        (b"[1]", BadInput::Form(b'[')),
    ] {
        assert_eq!(split([first]), [Err(wanted)]);
        assert_eq!(wanted.failure().code, FailureCode::Protocol);
    }
}

#[test]
fn a_stream_survives_size_and_depth_but_not_syntax() {
    let large = format!("{{\"a\":\"{}\"}}", "}".repeat(LIMIT));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(16), "]".repeat(16));
    let fits = format!("{{\"a\":{}{}}}", "[".repeat(15), "]".repeat(15));
    let stream = format!("{large}{{}}{deep}{fits} {{\"b\":1}} x {{}}");
    let wanted = [
        Err(BadInput::TooLarge { limit: LIMIT }),
        Ok("{}".to_owned()),
        Err(BadInput::TooDeep),
        Ok(fits.clone()),
        Ok("{\"b\":1}".to_owned()),
        Err(BadInput::NotAnObject(b'x')),
    ];
    for at in 0..=stream.len() {
        let (head, tail) = stream.as_bytes().split_at(at);
        assert_eq!(split([head, tail]), wanted, "cut at {at}");
    }
}

#[test]
fn frames_survive_everything_but_endless_lengths() {
    let mut stream = framed(&format!("{{\"a\":\"{}\"}}", "x".repeat(LIMIT)));
    for text in ["", "  ", "[]", "{", "x{}", "{\"ok\":1}"] {
        stream.extend(framed(text));
    }
    stream.extend(u64::MAX.to_be_bytes());
    let mut wanted = vec![Err(BadInput::TooLarge { limit: LIMIT })];
    wanted.extend(std::iter::repeat_n(Err(BadInput::Frame), 5));
    wanted.extend([Ok("{\"ok\":1}".to_owned()), Err(BadInput::Endless)]);
    for at in 0..=stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(split([head, tail]), wanted, "cut at {at}");
    }
}

#[test]
fn a_message_of_exactly_the_limit_passes() {
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(LIMIT - 8));
    assert_eq!(text.len(), LIMIT);
    assert_eq!(split([text.as_bytes()]), [Ok(text.clone())]);
    assert_eq!(split([framed(&text).as_slice()]), [Ok(text)]);
}

#[test]
fn what_is_refused_is_not_kept() {
    let mut incoming = MessageReader::new();
    incoming.extend(b"{\"a\":\"");
    let block = vec![b'x'; 10 * LIMIT];
    let mut refused = 0;
    for _ in 0..100 {
        incoming.extend(&block);
        refused += usize::from(incoming.next_message(LIMIT).is_err());
        assert!(incoming.held_bytes() < 64 * LIMIT, "{} bytes held", incoming.held_bytes());
    }
    assert_eq!(refused, 1, "one refusal for each request");
    assert!(incoming.is_inside_message());
}

#[test]
fn a_pause_inside_a_message_is_seen() {
    let mut incoming = MessageReader::new();
    assert!(!incoming.is_inside_message());
    incoming.extend(b"{} \n");
    assert!(incoming.is_inside_message());
    assert!(matches!(incoming.next_message(LIMIT), Ok(Some(b"{}"))));
    assert!(!incoming.is_inside_message());
    assert_eq!(incoming.next_message(LIMIT), Ok(None));
    incoming.extend(b"{\"a\"");
    assert_eq!(incoming.next_message(LIMIT), Ok(None));
    assert!(incoming.is_inside_message());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_cuts_change_nothing(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\"\\ \0T".to_vec())], 0..200),
        cut in 1_usize..20,
    ) {
        prop_assert_eq!(split([bytes.as_slice()]), split(bytes.chunks(cut)));
    }
}
