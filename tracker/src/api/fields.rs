//! A request's fields with their types still open, and lookups whose errors name the field.
//!
//! Fields that no command knows are skipped, so a request costs no more memory than its bytes. A field is looked up in
//! `command_args` first, then beside it.

use std::collections::BTreeMap;

use engine::proto::units::Digest;
use serde::Deserializer;
use serde::de::{DeserializeSeed as _, IgnoredAny, MapAccess, SeqAccess};

use super::any_json::{AnyJson, FromAnyJson, JsonScalar, drain_array};
use super::failure::{FailureCode, RequestFailure};
use super::hashes::{self, HashValue};
use super::limits::{PIECES_PER_MESSAGE, RANGES_PER_MESSAGE};

/// Names of the fields with a single value.
const SCALARS: [&str; 26] = [
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
    "destination_path",
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

/// Names of the fields with a list of 20-byte values.
const HASH_LISTS: [&str; 2] = ["piecewise_sha", "file_chain"];

/// A list of 20-byte values, or why it is none.
struct HashesField(Result<Vec<[u8; 20]>, FieldProblem>);

/// What is wrong with a list. The field's name is added at lookup.
struct FieldProblem(FailureCode, String);

impl FieldProblem {
    fn ill_typed(rule: &str) -> FieldProblem {
        FieldProblem(FailureCode::BadRequest, rule.to_owned())
    }

    fn too_many(limit: usize) -> FieldProblem {
        FieldProblem(
            FailureCode::TooLarge,
            format!("has more than the {limit} elements that one message carries"),
        )
    }

    fn into_failure(self, name: &str) -> RequestFailure {
        RequestFailure::new(self.0, format!("{name}: {}", self.1))
    }
}

/// A list of pairs of numbers, a word in its place, or what is wrong.
enum PairsField {
    List(Vec<(u64, u64)>),
    Word(String),
    Wrong(FieldProblem),
}

/// Two numbers; `None` for anything else.
struct PairElement(Option<(u64, u64)>);

/// The known fields of one JSON object.
#[derive(Default)]
struct FieldObject {
    scalars: BTreeMap<&'static str, JsonScalar>,
    hashes: BTreeMap<&'static str, HashesField>,
    ranges: Option<PairsField>,
    /// The nested object; `Some(None)` when `command_args` is something else.
    args: Option<Option<Box<FieldObject>>>,
}

/// All fields of a request.
pub(super) struct RequestFields {
    top: FieldObject,
    args: FieldObject,
    args_wrong: bool,
}

impl RequestFields {
    /// Reads the fields of one JSON object. Fails only on text that is not JSON.
    pub(super) fn read(text: &[u8]) -> Result<RequestFields, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let fields = RequestFields::deserialize(&mut reader)?;
        reader.end()?;
        Ok(fields)
    }

    /// The same from any self-describing deserializer.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<RequestFields, D::Error> {
        let mut top: FieldObject = AnyJson::new().deserialize(from)?;
        let (args, args_wrong) = match top.args.take() {
            Some(Some(args)) => (*args, false),
            Some(None) => (FieldObject::default(), true),
            None => (FieldObject::default(), false),
        };
        Ok(RequestFields { top, args, args_wrong })
    }

    /// Refuses a request whose `command_args` is not an object.
    pub(super) fn check_args(&self) -> Result<(), RequestFailure> {
        if self.args_wrong {
            return Err(RequestFailure::field(
                "command_args",
                "must be an object, such as {\"group_id\": \"g\"}",
            ));
        }
        Ok(())
    }

    /// A single value; null counts as missing.
    pub(super) fn scalar(&self, name: &'static str) -> Option<&JsonScalar> {
        debug_assert!(SCALARS.contains(&name), "{name} is not read");
        let found = self.args.scalars.get(name).or_else(|| self.top.scalars.get(name));
        found.filter(|scalar| **scalar != JsonScalar::Null)
    }

    pub(super) fn optional_text(&self, name: &'static str) -> Result<Option<&str>, RequestFailure> {
        match self.scalar(name) {
            None => Ok(None),
            Some(JsonScalar::Text(text)) => Ok(Some(text)),
            Some(_) => Err(RequestFailure::field(name, "must be a string")),
        }
    }

    /// A text that must not be missing.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, RequestFailure> {
        self.optional_text(name)?.ok_or_else(|| RequestFailure::field(name, "is missing"))
    }

    /// A whole number. Digits in a string count, as the original client sends them.
    pub(super) fn optional_number(&self, name: &'static str) -> Result<Option<u64>, RequestFailure> {
        match self.scalar(name) {
            None => Ok(None),
            Some(JsonScalar::Number(number)) => Ok(Some(*number)),
            Some(JsonScalar::Text(text))
                if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                text.parse().map(Some).map_err(|_| RequestFailure::field(name, "is too large a number"))
            }
            Some(_) => Err(RequestFailure::field(name, "must be a whole number, 0 or more")),
        }
    }

    /// A number of at most 32 bits: an index or a count.
    pub(super) fn optional_u32(&self, name: &'static str) -> Result<Option<u32>, RequestFailure> {
        let number = self.optional_number(name)?;
        number
            .map(|number| {
                u32::try_from(number).map_err(|_| RequestFailure::field(name, "is too large a number"))
            })
            .transpose()
    }

    /// A boolean; missing means false.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, RequestFailure> {
        match self.scalar(name) {
            None => Ok(false),
            Some(JsonScalar::Bool(value)) => Ok(*value),
            Some(_) => Err(RequestFailure::field(name, "must be true or false")),
        }
    }

    /// A list of 20-byte values.
    pub(super) fn hashes<T: HashValue>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<Vec<T>>, RequestFailure> {
        let Some(HashesField(read)) = self.args.hashes.remove(name).or_else(|| self.top.hashes.remove(name))
        else {
            return Ok(None);
        };
        let values = read.map_err(|problem| problem.into_failure(name))?;
        assert!(values.len() <= PIECES_PER_MESSAGE, "{name} was bounded while it was read");
        Ok(Some(values.into_iter().map(T::from_bytes).collect()))
    }

    /// The pairs of the field `ranges`: empty when it is missing, `None` for the word `complete`.
    pub(super) fn ranges(&mut self) -> Result<Option<Vec<(u64, u64)>>, RequestFailure> {
        match self.args.ranges.take().or_else(|| self.top.ranges.take()) {
            None => Ok(Some(Vec::new())),
            Some(PairsField::List(pairs)) => {
                assert!(pairs.len() <= RANGES_PER_MESSAGE, "ranges were bounded while they were read");
                Ok(Some(pairs))
            }
            Some(PairsField::Word(word)) if word == "complete" => Ok(None),
            Some(PairsField::Word(_)) => Err(RequestFailure::field("ranges", PAIR_LIST)),
            Some(PairsField::Wrong(problem)) => Err(problem.into_failure("ranges")),
        }
    }
}

impl FromAnyJson for FieldObject {
    fn from_scalar(_: JsonScalar) -> FieldObject {
        FieldObject::default()
    }

    fn from_object<'de, A: MapAccess<'de>>(mut map: A) -> Result<FieldObject, A::Error> {
        let mut object = FieldObject::default();
        while let Some(key) = map.next_key::<String>()? {
            if let Some(name) = SCALARS.iter().find(|name| **name == key) {
                object.scalars.insert(name, map.next_value_seed(AnyJson::new())?);
            } else if let Some(name) = HASH_LISTS.iter().find(|name| **name == key) {
                object.hashes.insert(name, map.next_value_seed(AnyJson::new())?);
            } else if key == "ranges" {
                object.ranges = Some(map.next_value_seed(AnyJson::new())?);
            } else if key == "command_args" {
                object.args = map.next_value_seed(AnyJson::<ArgsField>::new())?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

/// The value of `command_args`.
struct ArgsField(Option<Option<Box<FieldObject>>>);

impl FromAnyJson for ArgsField {
    fn from_scalar(value: JsonScalar) -> ArgsField {
        ArgsField((value != JsonScalar::Null).then_some(None))
    }

    fn from_object<'de, A: MapAccess<'de>>(map: A) -> Result<ArgsField, A::Error> {
        FieldObject::from_object(map).map(|object| ArgsField(Some(Some(Box::new(object)))))
    }
}

const HASH_LIST: &str =
    "must be an array of strings of 40 hex digits, or one base64 string of the joined 20-byte values";

impl FromAnyJson for HashesField {
    fn from_scalar(value: JsonScalar) -> HashesField {
        let JsonScalar::Text(text) = value else {
            return HashesField(Err(FieldProblem::ill_typed(HASH_LIST)));
        };
        HashesField(match hashes::from_base64::<Digest>(&text) {
            Err(_) => Err(FieldProblem::ill_typed(HASH_LIST)),
            Ok(values) if values.len() > PIECES_PER_MESSAGE => {
                Err(FieldProblem::too_many(PIECES_PER_MESSAGE))
            }
            Ok(values) => Ok(values.into_iter().map(|value| value.0).collect()),
        })
    }

    fn from_array<'de, A: SeqAccess<'de>>(mut list: A) -> Result<HashesField, A::Error> {
        let mut values = Vec::new();
        while let Some(element) = list.next_element::<JsonScalar>()? {
            let digest = match &element {
                JsonScalar::Text(text) => text.parse::<Digest>().ok(),
                _ => None,
            };
            let problem = match digest {
                Some(digest) if values.len() < PIECES_PER_MESSAGE => {
                    values.push(digest.0);
                    continue;
                }
                Some(_) => FieldProblem::too_many(PIECES_PER_MESSAGE),
                None => FieldProblem::ill_typed(&format!(
                    "element {} is not a string of 40 hex digits",
                    values.len()
                )),
            };
            return drain_array(list).map(|()| HashesField(Err(problem)));
        }
        Ok(HashesField(Ok(values)))
    }
}

const PAIR_LIST: &str = "must be an array of pairs of whole numbers, [[first, last], ...], or \"complete\"";

impl FromAnyJson for PairsField {
    fn from_scalar(value: JsonScalar) -> PairsField {
        match value {
            JsonScalar::Text(text) => PairsField::Word(text),
            _ => PairsField::Wrong(FieldProblem::ill_typed(PAIR_LIST)),
        }
    }

    fn from_array<'de, A: SeqAccess<'de>>(mut list: A) -> Result<PairsField, A::Error> {
        let mut pairs = Vec::new();
        while let Some(PairElement(pair)) = list.next_element_seed(AnyJson::new())? {
            let problem = match pair {
                Some(pair) if pairs.len() < RANGES_PER_MESSAGE => {
                    pairs.push(pair);
                    continue;
                }
                Some(_) => FieldProblem::too_many(RANGES_PER_MESSAGE),
                None => FieldProblem::ill_typed(PAIR_LIST),
            };
            return drain_array(list).map(|()| PairsField::Wrong(problem));
        }
        Ok(PairsField::List(pairs))
    }
}

impl FromAnyJson for PairElement {
    fn from_scalar(_: JsonScalar) -> PairElement {
        PairElement(None)
    }

    fn from_array<'de, A: SeqAccess<'de>>(mut list: A) -> Result<PairElement, A::Error> {
        let both = (list.next_element::<JsonScalar>()?, list.next_element::<JsonScalar>()?);
        let more = list.next_element::<IgnoredAny>()?.is_some();
        drain_array(list)?;
        Ok(PairElement(match both {
            (Some(JsonScalar::Number(first)), Some(JsonScalar::Number(last))) if !more => Some((first, last)),
            _ => None,
        }))
    }
}
