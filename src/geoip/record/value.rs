//! A value of any type, read for what can be used of it.

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::geoip::centre;
use crate::unit::Country;

/// One value of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(f64),
    Map(Fields<'a>),
    /// Anything else, such as a list.
    Other,
}

/// What may be of use in a nested map.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) lat: Option<f64>,
    pub(super) lon: Option<f64>,
    pub(super) radius_km: Option<f64>,
    iso_code: Option<&'a str>,
    is_named: bool,
}

impl<'a> Value<'a> {
    /// Reads a country code, or the `iso_code` of a map.
    pub(super) fn country(self) -> Option<Country> {
        let code = match self {
            Self::Text(text) => Some(text),
            Self::Map(fields) => fields.iso_code,
            Self::Number(_) | Self::Other => None,
        };
        code.and_then(Country::parse).filter(|it| centre::is_country(*it))
    }

    /// Tells whether this is a name that is not empty, or a map with one.
    pub(super) fn is_named(self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Map(fields) => fields.is_named,
            Self::Number(_) | Self::Other => false,
        }
    }

    /// Reads a number, also one written as text.
    pub(super) fn number(self) -> Option<f64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(number),
            Self::Map(_) | Self::Other => None,
        }
    }

    /// Returns the fields of a map, and none of anything else.
    pub(super) fn fields(self) -> Fields<'a> {
        match self {
            Self::Map(fields) => fields,
            Self::Text(_) | Self::Number(_) | Self::Other => Fields::default(),
        }
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ValueVisitor { depth: 0 })
    }
}

/// Reads a value at a depth: 0 is `city`, 1 is `names` in it, and below that nothing is read.
#[derive(Clone, Copy)]
struct ValueVisitor {
    depth: u8,
}

impl<'de> serde::de::DeserializeSeed<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value<'de>, D::Error> {
        from.deserialize_any(self)
    }
}

macro_rules! numbers {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: Error>(self, number: $type) -> Result<Value<'de>, E> {
            Ok(Value::Number(number as f64))
        })*
    };
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    numbers!(visit_f64: f64, visit_u64: u64, visit_i64: i64, visit_u128: u128, visit_i128: i128);

    fn visit_bool<E: Error>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Value<'de>, E> {
        // A database lends its texts; one that does not outlive the call is none of them.
        Ok(Value::Other)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(text))
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut fields = Fields::default();
        let inner = Self { depth: self.depth + 1 };
        while let Some(key) = map.next_key::<&str>()? {
            match (self.depth, key) {
                (0, "iso_code") => {
                    if let Value::Text(code) = map.next_value_seed(inner)? {
                        fields.iso_code = Some(code);
                    }
                }
                (0, "names") => fields.is_named = map.next_value_seed(inner)?.is_named(),
                (0, "latitude") => fields.lat = map.next_value_seed(inner)?.number(),
                (0, "longitude") => fields.lon = map.next_value_seed(inner)?.number(),
                (0, "accuracy_radius") => {
                    fields.radius_km = map.next_value_seed(inner)?.number();
                }
                // Names by language: any one will do.
                (1, _) => fields.is_named |= map.next_value_seed(inner)?.is_named(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Map(fields))
    }
}
