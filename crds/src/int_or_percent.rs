//! A number of pods, or a part of them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Largest whole number; no workload that we take has more pods.
const MAX: u32 = 20_000;

/// The form of a part: `0%` to `100%`.
const PATTERN: &str = "^(100|[1-9]?[0-9])%$";

/// Bytes of the longest part, `100%`.
const MAX_LENGTH: usize = 4;

/// A whole number such as `3`, or a part such as `10%`, as the `IntOrString` fields of apps/v1 are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntOrPercent {
    /// That many.
    Int(u32),
    /// That many of a hundred.
    Percent(u32),
}

impl IntOrPercent {
    /// All of them.
    pub const ALL: Self = Self::Percent(100);

    /// The number for `total`, a part rounded up. A whole number may be more than `total`.
    #[must_use]
    pub fn round_up(self, total: u32) -> u32 {
        match self {
            Self::Int(number) => number,
            Self::Percent(percent) => narrow((u64::from(percent) * u64::from(total)).div_ceil(100)),
        }
    }

    /// The number for `total`, a part rounded down. A whole number may be more than `total`.
    #[must_use]
    pub fn round_down(self, total: u32) -> u32 {
        match self {
            Self::Int(number) => number,
            Self::Percent(percent) => narrow(u64::from(percent) * u64::from(total) / 100),
        }
    }
}

/// Percents above 100 do not come out of the API; one that did could exceed 32 bits.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for IntOrPercent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(number) => serializer.serialize_u32(*number),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrPercent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntOrPercentVisitor;
        impl Visitor<'_> for IntOrPercentVisitor {
            type Value = IntOrPercent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number up to {MAX}, or a text from 0% to 100%")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<IntOrPercent, E> {
                match u32::try_from(number) {
                    Ok(number) if number <= MAX => Ok(IntOrPercent::Int(number)),
                    Ok(_) | Err(_) => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<IntOrPercent, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<IntOrPercent, E> {
                let percent = text.strip_suffix('%').and_then(|number| number.parse::<u32>().ok());
                match percent {
                    // What is written back is what was read: no sign, no leading zero.
                    Some(percent) if percent <= 100 && text == format!("{percent}%") => {
                        Ok(IntOrPercent::Percent(percent))
                    }
                    Some(_) | None => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(IntOrPercentVisitor)
    }
}

impl JsonSchema for IntOrPercent {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "IntOrPercent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The API server holds the bounds against numbers alone, and the form against texts alone.
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maximum": MAX,
            "maxLength": MAX_LENGTH,
            "pattern": PATTERN,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_and_a_part_are_read_and_written_as_they_are() {
        for (value, expected) in [
            (json!(0), IntOrPercent::Int(0)),
            (json!(20_000), IntOrPercent::Int(20_000)),
            (json!("0%"), IntOrPercent::Percent(0)),
            (json!("100%"), IntOrPercent::ALL),
        ] {
            assert_eq!(serde_json::from_value::<IntOrPercent>(value.clone()).unwrap(), expected);
            assert_eq!(json!(expected), value);
        }
    }

    #[test]
    fn anything_else_is_refused_and_the_form_is_named() {
        for value in
            [json!(-1), json!(20_001), json!("101%"), json!("5"), json!("05%"), json!("+5%"), json!(1.5)]
        {
            let error = serde_json::from_value::<IntOrPercent>(value.clone()).unwrap_err().to_string();
            assert!(error.contains("from 0% to 100%"), "{value}: {error}");
        }
    }

    #[test]
    fn a_part_is_rounded_as_it_is_asked_for() {
        let third = IntOrPercent::Percent(33);
        assert_eq!((third.round_up(10), third.round_down(10)), (4, 3));
        assert_eq!((third.round_up(0), third.round_down(0)), (0, 0));
        assert_eq!(IntOrPercent::ALL.round_down(20_000), 20_000);
        assert_eq!(IntOrPercent::Int(7).round_up(3), 7);
        assert_eq!(IntOrPercent::Percent(u32::MAX).round_up(u32::MAX), u32::MAX);
    }
}
