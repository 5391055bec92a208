//! A request's fields as they came, each with its type still open, and lookups that name the field in what they refuse.
//!
//! Fields that no command knows are passed over without being kept, so a hostile body costs no more memory than its
//! bytes. A field is looked for in `command_args` first, then beside it.

use std::collections::BTreeMap;

use engine::proto::units::Digest;
use serde::de::{DeserializeSeed as _, IgnoredAny, MapAccess, SeqAccess};

use super::failure::{Failure, FailureCode};
use super::hashes::{self, Hash20};
use super::limits::{PIECES_PER_MESSAGE, RANGES_PER_MESSAGE};
use super::loose::{Any, Loose, Scalar, drain};

/// The fields with a single value.
const SCALARS: [&str; 25] = [
    "command",
    "request_id",
    "session",
    "sender_ip",
    "sender_port",
    "user_id",
    "passwd",
    "new_passwd",
    "peer_key",
    "group_id",
    "policy",
    "file_name",
    "file_path",
    "file_size",
    "fileSha",
    "upload_id",
    "first",
    "more",
    "view",
    "count",
    "after",
    "complete",
    "ip",
    "port",
    "reason",
];

/// The fields with a list of 20-byte values.
const HASH_LISTS: [&str; 2] = ["piecewise_sha", "file_chain"];

/// A list of 20-byte values, or what is wrong with it.
struct Hashes(Result<Vec<[u8; 20]>, Problem>);

/// What is wrong with a list; the field's name is added when it is asked for.
struct Problem(FailureCode, String);

impl Problem {
    fn ill_typed(rule: &str) -> Problem {
        Problem(FailureCode::BadRequest, rule.to_owned())
    }

    fn too_many(limit: usize) -> Problem {
        Problem(FailureCode::TooLarge, format!("has more than the {limit} elements that one message carries"))
    }

    fn of_field(self, name: &str) -> Failure {
        Failure::new(self.0, format!("{name}: {}", self.1))
    }
}

/// A list of pairs of numbers, or the word that stands in its place, or what is wrong.
enum Pairs {
    List(Vec<(u64, u64)>),
    Word(String),
    Wrong(Problem),
}

/// Two numbers; `None` for anything else.
struct Pair(Option<(u64, u64)>);

/// The fields of one JSON object.
#[derive(Default)]
struct Object {
    scalars: BTreeMap<&'static str, Scalar>,
    hashes: BTreeMap<&'static str, Hashes>,
    ranges: Option<Pairs>,
    /// The object inside; `Some(None)` when something else stands there.
    args: Option<Option<Box<Object>>>,
}

/// All fields of a request.
pub(super) struct Fields {
    top: Object,
    args: Object,
    args_wrong: bool,
}

impl Fields {
    /// Reads the fields of one JSON object; fails on text that is no JSON.
    pub(super) fn read(text: &[u8]) -> Result<Fields, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let mut top: Object = Any::new().deserialize(&mut reader)?;
        reader.end()?;
        let (args, args_wrong) = match top.args.take() {
            Some(Some(args)) => (*args, false),
            Some(None) => (Object::default(), true),
            None => (Object::default(), false),
        };
        Ok(Fields { top, args, args_wrong })
    }

    /// Refuses `command_args` that are no object.
    pub(super) fn check_args(&self) -> Result<(), Failure> {
        if self.args_wrong {
            return Err(Failure::field("command_args", "must be an object, such as {\"group_id\": \"g\"}"));
        }
        Ok(())
    }

    /// A single value; null counts as missing.
    pub(super) fn scalar(&self, name: &'static str) -> Option<&Scalar> {
        debug_assert!(SCALARS.contains(&name), "{name} is not read");
        let found = self.args.scalars.get(name).or_else(|| self.top.scalars.get(name));
        found.filter(|scalar| **scalar != Scalar::Null)
    }

    /// A text that may be missing.
    pub(super) fn optional_text(&self, name: &'static str) -> Result<Option<&str>, Failure> {
        match self.scalar(name) {
            None => Ok(None),
            Some(Scalar::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Failure::field(name, "must be a string")),
        }
    }

    /// A text that must be there.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, Failure> {
        self.optional_text(name)?.ok_or_else(|| Failure::field(name, "is missing"))
    }

    /// A whole number that may be missing; digits in a string count, as the original client sends them.
    pub(super) fn optional_number(&self, name: &'static str) -> Result<Option<u64>, Failure> {
        match self.scalar(name) {
            None => Ok(None),
            Some(Scalar::Number(number)) => Ok(Some(*number)),
            Some(Scalar::Text(text))
                if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                text.parse().map(Some).map_err(|_| Failure::field(name, "is too large a number"))
            }
            Some(_) => Err(Failure::field(name, "must be a whole number, 0 or more")),
        }
    }

    /// The same where the number must fit 32 bits: indices and counts.
    pub(super) fn optional_u32(&self, name: &'static str) -> Result<Option<u32>, Failure> {
        let number = self.optional_number(name)?;
        number
            .map(|number| u32::try_from(number).map_err(|_| Failure::field(name, "is too large a number")))
            .transpose()
    }

    /// A truth value; missing means false.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Failure> {
        match self.scalar(name) {
            None => Ok(false),
            Some(Scalar::Bool(value)) => Ok(*value),
            Some(_) => Err(Failure::field(name, "must be true or false")),
        }
    }

    /// A list of 20-byte values that may be missing.
    pub(super) fn hashes<T: Hash20>(&mut self, name: &'static str) -> Result<Option<Vec<T>>, Failure> {
        let Some(Hashes(read)) = self.args.hashes.remove(name).or_else(|| self.top.hashes.remove(name))
        else {
            return Ok(None);
        };
        let values = read.map_err(|problem| problem.of_field(name))?;
        Ok(Some(values.into_iter().map(T::from_bytes).collect()))
    }

    /// The field `ranges`: its pairs, none when it is missing; `None` for the word `complete`.
    pub(super) fn ranges(&mut self) -> Result<Option<Vec<(u64, u64)>>, Failure> {
        match self.args.ranges.take().or_else(|| self.top.ranges.take()) {
            None => Ok(Some(Vec::new())),
            Some(Pairs::List(pairs)) => Ok(Some(pairs)),
            Some(Pairs::Word(word)) if word == "complete" => Ok(None),
            Some(Pairs::Word(_)) => Err(Failure::field("ranges", PAIR_LIST)),
            Some(Pairs::Wrong(problem)) => Err(problem.of_field("ranges")),
        }
    }
}

impl Loose for Object {
    fn single(_: Scalar) -> Object {
        Object::default()
    }

    fn object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Object, A::Error> {
        let mut object = Object::default();
        while let Some(key) = map.next_key::<String>()? {
            if let Some(name) = SCALARS.iter().find(|name| **name == key) {
                object.scalars.insert(name, map.next_value_seed(Any::new())?);
            } else if let Some(name) = HASH_LISTS.iter().find(|name| **name == key) {
                object.hashes.insert(name, map.next_value_seed(Any::new())?);
            } else if key == "ranges" {
                object.ranges = Some(map.next_value_seed(Any::new())?);
            } else if key == "command_args" {
                object.args = map.next_value_seed(Any::<Inner>::new())?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

/// What stands under `command_args`.
struct Inner(Option<Option<Box<Object>>>);

impl Loose for Inner {
    fn single(value: Scalar) -> Inner {
        Inner((value != Scalar::Null).then_some(None))
    }

    fn object<'de, A: MapAccess<'de>>(map: A) -> Result<Inner, A::Error> {
        Object::object(map).map(|object| Inner(Some(Some(Box::new(object)))))
    }
}

const HASH_LIST: &str =
    "must be an array of strings of 40 hex digits, or one base64 string of the joined 20-byte values";

impl Loose for Hashes {
    fn single(value: Scalar) -> Hashes {
        let Scalar::Text(text) = value else { return Hashes(Err(Problem::ill_typed(HASH_LIST))) };
        Hashes(match hashes::from_base64::<Digest>(&text) {
            Err(_) => Err(Problem::ill_typed(HASH_LIST)),
            Ok(values) if values.len() > PIECES_PER_MESSAGE => Err(Problem::too_many(PIECES_PER_MESSAGE)),
            Ok(values) => Ok(values.into_iter().map(|value| value.0).collect()),
        })
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Hashes, A::Error> {
        let mut values = Vec::new();
        while let Some(element) = list.next_element::<Scalar>()? {
            let digest = match &element {
                Scalar::Text(text) => text.parse::<Digest>().ok(),
                _ => None,
            };
            let problem = match digest {
                Some(digest) if values.len() < PIECES_PER_MESSAGE => {
                    values.push(digest.0);
                    continue;
                }
                Some(_) => Problem::too_many(PIECES_PER_MESSAGE),
                None => {
                    Problem::ill_typed(&format!("element {} is not a string of 40 hex digits", values.len()))
                }
            };
            return drain(list).map(|()| Hashes(Err(problem)));
        }
        Ok(Hashes(Ok(values)))
    }
}

const PAIR_LIST: &str = "must be an array of pairs of whole numbers, [[first, last], ...], or \"complete\"";

impl Loose for Pairs {
    fn single(value: Scalar) -> Pairs {
        match value {
            Scalar::Text(text) => Pairs::Word(text),
            _ => Pairs::Wrong(Problem::ill_typed(PAIR_LIST)),
        }
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(Pair(pair)) = list.next_element_seed(Any::new())? {
            let problem = match pair {
                Some(pair) if pairs.len() < RANGES_PER_MESSAGE => {
                    pairs.push(pair);
                    continue;
                }
                Some(_) => Problem::too_many(RANGES_PER_MESSAGE),
                None => Problem::ill_typed(PAIR_LIST),
            };
            return drain(list).map(|()| Pairs::Wrong(problem));
        }
        Ok(Pairs::List(pairs))
    }
}

impl Loose for Pair {
    fn single(_: Scalar) -> Pair {
        Pair(None)
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Pair, A::Error> {
        let both = (list.next_element::<Scalar>()?, list.next_element::<Scalar>()?);
        let more = list.next_element::<IgnoredAny>()?.is_some();
        drain(list)?;
        Ok(Pair(match both {
            (Some(Scalar::Number(first)), Some(Scalar::Number(last))) if !more => Some((first, last)),
            _ => None,
        }))
    }
}
