//! Reads JSON values of any type, so that a value of the wrong type leads to a refusal that names the field and not to
//! a parser error. Values that are not needed are skipped and take no memory.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A JSON value that is neither array nor object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JsonScalar {
    Text(String),
    Number(u64),
    Negative(i64),
    Bool(bool),
    Null,
    /// A fraction, or an array or object where a single value is expected.
    NotAScalar,
}

/// A type that can be made from any JSON value.
pub(super) trait FromAnyJson: Sized {
    /// From a value that is neither array nor object.
    fn from_scalar(value: JsonScalar) -> Self;

    /// From an array. By default its elements are skipped and it counts as [`JsonScalar::NotAScalar`].
    fn from_array<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        drain_array(list).map(|()| Self::from_scalar(JsonScalar::NotAScalar))
    }

    /// From an object. By default its fields are skipped and it counts as [`JsonScalar::NotAScalar`].
    fn from_object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::from_scalar(JsonScalar::NotAScalar))
    }
}

impl FromAnyJson for JsonScalar {
    fn from_scalar(value: JsonScalar) -> JsonScalar {
        value
    }
}

/// Skips the rest of an array.
pub(super) fn drain_array<'de, A: SeqAccess<'de>>(mut list: A) -> Result<(), A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Seed that reads any value as a `T`. It fails only on text that is not JSON.
pub(super) struct AnyJson<T>(PhantomData<T>);

impl<T> AnyJson<T> {
    pub(super) fn new() -> AnyJson<T> {
        AnyJson(PhantomData)
    }
}

impl<'de, T: FromAnyJson> DeserializeSeed<'de> for AnyJson<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: FromAnyJson> Visitor<'de> for AnyJson<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::from_scalar(JsonScalar::Text(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<T, E> {
        Ok(T::from_scalar(JsonScalar::Text(text)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(T::from_scalar(JsonScalar::Number(number)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<T, E> {
        Ok(T::from_scalar(u64::try_from(number).map_or(JsonScalar::Negative(number), JsonScalar::Number)))
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::from_scalar(JsonScalar::NotAScalar))
    }

    fn visit_bool<E>(self, value: bool) -> Result<T, E> {
        Ok(T::from_scalar(JsonScalar::Bool(value)))
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::from_scalar(JsonScalar::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::from_array(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::from_object(map)
    }
}

impl<'de> Deserialize<'de> for JsonScalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JsonScalar, D::Error> {
        AnyJson::new().deserialize(deserializer)
    }
}
