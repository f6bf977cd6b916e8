//! Kubernetes quantities, exactly: the crates that know them go through floating point.

use super::MAX_AMOUNT;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use std::fmt;

/// A non-negative quantity as `numerator / denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity {
    numerator: u128,
    denominator: u128,
}

impl Quantity {
    const ZERO: Self = Self { numerator: 0, denominator: 1 };

    /// Reads `<digits>[.<digits>]<suffix>`, where the suffix is binary (`Ki`), decimal (`m`, `k`) or an
    /// exponent (`e3`). Anything else, and what is negative, is `None`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        /// More decimal places than this cannot be told from rounding up at a thousandth.
        const PLACES: usize = 12;
        let text = text.strip_prefix('+').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let kept = &fraction[..fraction.len().min(PLACES)];
        let mut numerator = whole
            .bytes()
            .chain(kept.bytes())
            .fold(0u128, |sum, digit| sum.saturating_mul(10).saturating_add(u128::from(digit - b'0')));
        if fraction[kept.len()..].bytes().any(|digit| digit != b'0') {
            numerator = numerator.saturating_add(1);
        }
        let mut denominator = 10u128.pow(u32::try_from(kept.len()).ok()?);
        match scale(suffix)? {
            Scale::Binary(power) => numerator = numerator.saturating_mul(1 << power),
            Scale::Decimal(power @ 0..) => {
                numerator = numerator.saturating_mul(10u128.saturating_pow(power.unsigned_abs()));
            }
            Scale::Decimal(power) => {
                denominator = denominator.saturating_mul(10u128.saturating_pow(power.unsigned_abs()));
            }
        }
        Some(Self { numerator, denominator })
    }

    /// The quantity in units of `1 / per_unit`, rounded up, at most [`MAX_AMOUNT`].
    pub(super) fn amount(&self, per_unit: u128) -> i64 {
        let amount = self.numerator.saturating_mul(per_unit).div_ceil(self.denominator);
        i64::try_from(amount).map_or(MAX_AMOUNT, |amount| amount.min(MAX_AMOUNT))
    }
}

enum Scale {
    Binary(u32),
    Decimal(i32),
}

fn scale(suffix: &str) -> Option<Scale> {
    Some(match suffix {
        "Ki" => Scale::Binary(10),
        "Mi" => Scale::Binary(20),
        "Gi" => Scale::Binary(30),
        "Ti" => Scale::Binary(40),
        "Pi" => Scale::Binary(50),
        "Ei" => Scale::Binary(60),
        "n" => Scale::Decimal(-9),
        "u" => Scale::Decimal(-6),
        "m" => Scale::Decimal(-3),
        "" => Scale::Decimal(0),
        "k" => Scale::Decimal(3),
        "M" => Scale::Decimal(6),
        "G" => Scale::Decimal(9),
        "T" => Scale::Decimal(12),
        "P" => Scale::Decimal(15),
        "E" => Scale::Decimal(18),
        exponent => Scale::Decimal(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct QuantityVisitor;
        impl Visitor<'_> for QuantityVisitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity")
            }

            fn visit_str<E>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity::parse(text).unwrap_or(Quantity::ZERO))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity { numerator: number.into(), denominator: 1 })
            }

            fn visit_i64<E>(self, number: i64) -> Result<Quantity, E> {
                Ok(u64::try_from(number)
                    .map_or(Quantity::ZERO, |number| Quantity { numerator: number.into(), denominator: 1 }))
            }

            /// A template may hold `cpu: 0.5`; its shortest decimal form is what the user wrote.
            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(QuantityVisitor)
    }
}
