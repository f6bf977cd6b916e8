//! Kubernetes quantities, exactly: the crates that know them go through floating point.
//!
//! The unit of cpu is a thousandth of a core, that of every other resource the whole number the API
//! means (bytes, pods, devices), rounded up: so does the scheduler.

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use std::fmt;

/// Largest amount of one resource; larger ones count as this. 2^50 is a pebibyte of memory, and leaves
/// room in an `i64` for the sum over 8,192 pods, so that sums are exact and can be taken back.
pub const MAX_AMOUNT: i64 = 1 << 50;

/// What the names of huge pages begin with, as resources; their amounts are bytes.
pub const HUGE_PAGES: &str = "hugepages-";

/// A non-negative quantity as `numerator / denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    numerator: u128,
    denominator: u128,
}

impl Quantity {
    const ZERO: Self = Self { numerator: 0, denominator: 1 };

    /// Reads `<digits>[.<digits>]<suffix>`, where the suffix is binary (`Ki`), decimal (`m`, `k`) or an
    /// exponent (`e3`). Anything else, and what is negative, is `None`.
    pub fn parse(text: &str) -> Option<Self> {
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
    pub fn amount(&self, per_unit: u128) -> i64 {
        let amount = self.numerator.saturating_mul(per_unit).div_ceil(self.denominator);
        i64::try_from(amount).map_or(MAX_AMOUNT, |amount| amount.min(MAX_AMOUNT))
    }
}

/// Bytes of a quantity of memory in a manifest; 0 of what is none.
pub fn memory_bytes(quantity: &serde_json::Value) -> i64 {
    Quantity::deserialize(quantity).map_or(0, |quantity| quantity.amount(1))
}

/// The amount of a resource that a quantity says, in the units of this module; `None` for what is no quantity.
pub fn parse_amount(resource: &str, quantity: &str) -> Option<i64> {
    let per_unit = if resource == "cpu" { 1000 } else { 1 };
    Some(Quantity::parse(quantity)?.amount(per_unit))
}

/// An amount as people write it: `1500m` and `2` of cpu, `512Mi`, `3`.
pub fn format_amount(resource: &str, amount: i64) -> String {
    const BINARY: [(&str, i64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    if resource == "cpu" {
        return if amount % 1000 == 0 { (amount / 1000).to_string() } else { format!("{amount}m") };
    }
    let bytes = matches!(resource, "memory" | "ephemeral-storage") || resource.starts_with(HUGE_PAGES);
    // Exact where it can be, else the whole number of the unit that leaves at least four digits: a message
    // is no place for twelve of them.
    let unit = BINARY.iter().find(|(_, unit)| {
        amount != 0 && (amount % unit == 0 || amount.unsigned_abs() / unit.unsigned_abs() >= 1000)
    });
    match unit {
        Some((suffix, unit)) if bytes => format!("{}{suffix}", amount / unit),
        Some(_) | None => amount.to_string(),
    }
}

/// An amount as a quantity that says exactly that: `1500m` of cpu, `512Mi`, `1572864`.
pub fn quantity_text(resource: &str, amount: i64) -> String {
    const MEBIBYTE: i64 = 1 << 20;
    match resource {
        "memory" if amount != 0 && amount % MEBIBYTE == 0 => format!("{}Mi", amount / MEBIBYTE),
        "cpu" => format_amount(resource, amount),
        _ => amount.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_follow_the_documented_grammar() {
        for (text, bytes) in [
            ("0", 0),
            ("128974848", 128_974_848),
            ("129e6", 129_000_000),
            ("129E6", 129_000_000),
            ("129M", 129_000_000),
            ("123Mi", 128_974_848),
            ("1.5Gi", 1_610_612_736),
            ("+1k", 1_000),
            (".5Ki", 512),
            ("5.", 5),
            ("2E", MAX_AMOUNT),
            ("1Ei", MAX_AMOUNT),
            ("99999999999999999999999999999999999999999999", MAX_AMOUNT),
            ("1e4000", MAX_AMOUNT),
            ("1e-4000", 1),
            // Rounded up, never down.
            ("1m", 1),
            ("1500m", 2),
            ("0.1", 1),
            ("1.00000000000000000001", 2),
        ] {
            assert_eq!(parse_amount("memory", text), Some(bytes), "{text}");
        }
        for (text, millis) in
            [("2", 2000), ("100m", 100), ("0.1", 100), ("0.1m", 1), ("1u", 1), ("1500000n", 2), ("1e-1", 100)]
        {
            assert_eq!(parse_amount("cpu", text), Some(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_has_no_amount_and_counts_as_nothing_in_a_manifest() {
        for text in ["", "Ki", ".", "-1", "1 Gi", "1.2.3", "1KI", "1e", "one", "+-1", "1e1.5"] {
            assert_eq!(parse_amount("memory", text), None, "{text}");
            assert_eq!(memory_bytes(&json!(text)), 0, "{text}");
        }
        assert_eq!((memory_bytes(&json!(1.5)), memory_bytes(&json!(-1)), memory_bytes(&json!(7))), (2, 0, 7));
    }

    #[test]
    fn amounts_read_as_people_write_them() {
        for (resource, amount, text) in [
            ("cpu", 1500, "1500m"),
            ("cpu", 2000, "2"),
            ("memory", 512 << 20, "512Mi"),
            ("memory", 3 << 30, "3Gi"),
            ("memory", (2000 << 20) + 1, "2000Mi"),
            ("memory", 1000, "1000"),
            ("memory", 0, "0"),
            ("hugepages-2Mi", 4 << 20, "4Mi"),
            ("nvidia.com/gpu", 1024, "1024"),
            ("pods", 110, "110"),
        ] {
            assert_eq!(format_amount(resource, amount), text);
        }
    }
}
