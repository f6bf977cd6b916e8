//! A decimal number as text.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Longest decimal: a sign, 15 digits, a point and 9 digits.
const MAX_LENGTH: usize = 26;

/// The form of a decimal.
const PATTERN: &str = r"^-?[0-9]{1,15}(\.[0-9]{1,9})?$";

/// A decimal number such as `0.01` or `-3`, kept as it was written: the API has no floats, which come back from a server
/// other than they went in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Decimal(String);

impl Decimal {
    /// The decimal of this text, which is not checked: the API server's schema does that.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest number; none of a text that is no finite number.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.0.parse().ok().filter(|number: &f64| number.is_finite())
    }
}

impl JsonSchema for Decimal {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": MAX_LENGTH, "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_the_schema_has_a_value_and_another_one_has_none() {
        for (text, value) in [("0.01", 0.01), ("-3", -3.0), ("999999999999999.999999999", 1e15)] {
            assert_eq!(Decimal::new(text).value(), Some(value), "{text}");
        }
        for text in ["", "1/2", "NaN", "inf", "1e400"] {
            assert_eq!(Decimal::new(text).value(), None, "{text}");
        }
    }
}
