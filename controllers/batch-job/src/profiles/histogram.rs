//! What a value was over many runs: a histogram with exponential buckets, whose old samples fade.
//!
//! The buckets and the decay are those of the Vertical Pod Autoscaler (`exponentialHistogramOptions` and
//! `decayingHistogram` in `vertical-pod-autoscaler/pkg/recommender/util` of kubernetes/autoscaler, described in
//! Rzadca and others, "Autopilot: workload autoscaling at Google", EuroSys 2020): bucket `n` begins at
//! `first * (1.1^n - 1) / 0.1`, and the weight of a sample halves with each half life. Its checkpoint keeps weights
//! as whole numbers up to 10,000; ours takes one byte a bucket, on a logarithmic scale.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::fmt::Write as _;

/// Number of buckets; the last one has no end.
pub const BUCKETS: usize = 128;
/// How much wider each bucket is than the one before it.
const RATIO: f64 = 1.1;
/// Steps of a stored weight by which it halves: a weight is stored with a precision of 2.2 %.
const STEPS_PER_HALVING: f64 = 16.0;
/// Longest stored form of one histogram, in bytes: counts, time, weight, position and the base64 of all buckets.
pub const TEXT_MAX_BYTES: usize = 216;

/// What the buckets are of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Width of the first bucket, in the unit of the values.
    first: f64,
}

impl Scale {
    /// Thousandths of a core, up to some 1,800 cores.
    pub const CPU: Self = Self { first: 1.0 };
    /// Bytes, up to some 1.7 TiB.
    pub const MEMORY: Self = Self { first: 1_048_576.0 };
    /// Seconds, up to some 21 days.
    pub const SECONDS: Self = Self { first: 1.0 };

    /// Where a bucket begins.
    fn start(self, bucket: usize) -> f64 {
        self.first * (RATIO.powi(i32::try_from(bucket).unwrap_or(i32::MAX)) - 1.0) / (RATIO - 1.0)
    }

    /// The bucket of a value; what is negative or no number is in the first.
    fn bucket(self, value: f64) -> usize {
        if value.is_nan() || value < self.first {
            return 0;
        }
        let exponent = (value / self.first * (RATIO - 1.0) + 1.0).ln() / RATIO.ln();
        // Saturates; a value at the edge may be taken for either side.
        (exponent as usize).min(BUCKETS - 1)
    }
}

/// Weights of values by bucket, as they are at the time of the last sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    scale: Scale,
    weights: [f64; BUCKETS],
    /// Unix time in seconds at which the weights are right.
    reference: i64,
    /// Samples ever taken, however little they weigh by now.
    count: u32,
}

impl Histogram {
    /// One without samples.
    pub fn new(scale: Scale) -> Self {
        Self { scale, weights: [0.0; BUCKETS], reference: 0, count: 0 }
    }

    /// Number of samples ever taken.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Takes in a value seen at a time (Unix, seconds), with the weight of one sample at that time.
    pub fn add(&mut self, value: f64, at: i64, half_life_seconds: u32) {
        let halvings = |seconds: i64| seconds as f64 / f64::from(half_life_seconds.max(1));
        if self.count == 0 {
            self.reference = at;
        }
        // Nodes have clocks of their own, so that samples are not always in order.
        let weight = if at >= self.reference {
            let decay = (-halvings(at.saturating_sub(self.reference))).exp2();
            self.weights.iter_mut().for_each(|weight| *weight *= decay);
            self.reference = at;
            1.0
        } else {
            (-halvings(self.reference.saturating_sub(at))).exp2()
        };
        self.weights[self.scale.bucket(value)] += weight;
        self.count = self.count.saturating_add(1);
    }

    /// The value that `percent` of the weight does not exceed: the end of the bucket where that is reached, so
    /// that it is too high by a tenth (of small values: by the first bucket's width) at most. The start of the last bucket, which has no end. `None`
    /// without samples.
    pub fn percentile(&self, percent: u32) -> Option<f64> {
        let total: f64 = self.weights.iter().sum();
        let last = self.weights.iter().rposition(|weight| *weight > 0.0)?;
        let threshold = total * f64::from(percent.min(100)) / 100.0;
        let mut sum = 0.0;
        let reached = self.weights.iter().position(|weight| {
            sum += weight;
            *weight > 0.0 && sum >= threshold
        });
        let bucket = reached.unwrap_or(last);
        Some(self.scale.start(if bucket == BUCKETS - 1 { bucket } else { bucket + 1 }))
    }

    /// The stored form: `samples,time,weight,first,bytes`. `weight` is that of the heaviest bucket, `first` the
    /// number of the first bucket that is not empty, and the bytes, in base64, are those from there on: 255 is
    /// the heaviest, sixteen less is half of that, 0 is empty. Empty without samples.
    pub fn encode(&self) -> String {
        let heaviest = self.weights.iter().copied().fold(0.0, f64::max);
        if heaviest <= 0.0 {
            return String::new();
        }
        let byte = |weight: f64| {
            let step = ((heaviest / weight).log2() * STEPS_PER_HALVING).round();
            // An empty bucket is infinitely many steps below.
            if step < 255.0 { 255 - step as u8 } else { 0 }
        };
        let bytes: Vec<u8> = self.weights.iter().map(|weight| byte(*weight)).collect();
        let first = bytes.iter().position(|byte| *byte > 0).unwrap_or(0);
        let end = bytes.iter().rposition(|byte| *byte > 0).map_or(first, |last| last + 1);
        let mut text = String::with_capacity(TEXT_MAX_BYTES);
        // A String takes all that is written.
        let _ = write!(text, "{},{},{heaviest:.4e},{first},", self.count, self.reference);
        STANDARD_NO_PAD.encode_string(&bytes[first..end], &mut text);
        text
    }

    /// Reads the stored form; `None` for anything else.
    pub fn decode(scale: Scale, text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::new(scale));
        }
        let mut parts = text.splitn(5, ',');
        let count = parts.next()?.parse().ok().filter(|count| *count > 0)?;
        let reference = parts.next()?.parse().ok()?;
        let heaviest: f64 =
            parts.next()?.parse().ok().filter(|weight: &f64| weight.is_normal() && *weight > 0.0)?;
        let first: usize = parts.next()?.parse().ok()?;
        let bytes = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
        if !bytes.contains(&u8::MAX) {
            return None;
        }
        let mut weights = [0.0; BUCKETS];
        let places = weights.get_mut(first..first.checked_add(bytes.len())?)?;
        for (place, byte) in places.iter_mut().zip(bytes) {
            if byte > 0 {
                *place = heaviest * (-f64::from(u8::MAX - byte) / STEPS_PER_HALVING).exp2();
            }
        }
        Some(Self { scale, weights, reference, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEEK: u32 = 604_800;

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::new(Scale::CPU);
        for (at, value) in values.iter().enumerate() {
            histogram.add(*value, i64::try_from(at).unwrap(), WEEK);
        }
        histogram
    }

    #[test]
    fn buckets_begin_where_those_before_end_and_grow_by_a_tenth() {
        for scale in [Scale::CPU, Scale::MEMORY, Scale::SECONDS] {
            assert_eq!(scale.start(0), 0.0);
            for bucket in 1..BUCKETS {
                let width = |bucket| scale.start(bucket + 1) - scale.start(bucket);
                assert!((width(bucket) / width(bucket - 1) - RATIO).abs() < 1e-6);
                assert_eq!(scale.bucket(scale.start(bucket) * 1.000_001), bucket);
                assert_eq!(scale.bucket(scale.start(bucket) * 0.999_999), bucket - 1);
            }
        }
        assert!(Scale::SECONDS.start(BUCKETS - 1) > 20.0 * 86_400.0);
    }

    #[test]
    fn nonsense_and_extremes_have_a_bucket() {
        for (value, bucket) in [
            (f64::NAN, 0),
            (f64::NEG_INFINITY, 0),
            (-1.0, 0),
            (0.0, 0),
            (f64::INFINITY, 127),
            (f64::MAX, 127),
        ] {
            assert_eq!(Scale::CPU.bucket(value), bucket, "{value}");
        }
        assert_eq!(of(&[f64::MAX]).percentile(50), Some(Scale::CPU.start(127)), "the last bucket has no end");
    }

    #[test]
    fn percentiles_are_the_ends_of_the_buckets_that_reach_them() {
        let mut values = [100.0; 20];
        values[19] = 1000.0;
        let histogram = of(&values);
        let near = |percent, value: f64| {
            let found = histogram.percentile(percent).unwrap();
            assert!(value < found && found <= value * 1.11 + 1.0, "p{percent} is {found}");
        };
        near(50, 100.0);
        near(94, 100.0);
        near(99, 1000.0);
        assert_eq!(of(&[]).percentile(95), None);
    }

    #[test]
    fn a_sample_weighs_half_after_its_half_life() {
        let mut histogram = Histogram::new(Scale::CPU);
        for _ in 0..8 {
            histogram.add(1000.0, 0, 3600);
        }
        // Three half lives later the eight weigh as much as one, and the newer one is twice that.
        histogram.add(10.0, 3 * 3600, 3600);
        histogram.add(10.0, 3 * 3600, 3600);
        assert!(histogram.percentile(66).unwrap() < 13.0);
        assert!(histogram.percentile(68).unwrap() > 1000.0);
        // One that comes late weighs what it would weigh by now.
        histogram.add(5000.0, 0, 3600);
        assert!(histogram.percentile(95).unwrap() < 1200.0);
        assert!(histogram.percentile(99).unwrap() > 5000.0);
    }

    #[test]
    fn what_is_not_a_stored_form_is_told_from_one() {
        let text = of(&[5.0, 7.0]).encode();
        assert!(Histogram::decode(Scale::CPU, &text).is_some());
        for wrong in [
            "x",
            "1",
            "1,2",
            "0,1,1e0,0,/w",
            "1,1,1e0,0,AA",
            "1,1,1e0,128,/w",
            "1,1,nan,0,/w",
            "1,1,-1e0,0,/w",
            "1,1,1e0,18446744073709551615,/w",
            "1,1,1e0,0,?",
            "-1,1,1e0,0,/w",
            "1,1,1e0,0,/w,",
        ] {
            assert_eq!(Histogram::decode(Scale::CPU, wrong), None, "{wrong}");
        }
        assert_eq!(Histogram::decode(Scale::CPU, "").unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn the_stored_form_is_short_and_keeps_every_percentile(
            samples in prop::collection::vec((0.0..1e7_f64, -1_000_000..3_000_000_i64), 1..200),
            half_life in 3600..31_536_000_u32,
        ) {
            let mut histogram = Histogram::new(Scale::CPU);
            for (value, at) in samples {
                histogram.add(value, 1_800_000_000 + at, half_life);
            }
            let text = histogram.encode();
            prop_assert!(text.len() <= TEXT_MAX_BYTES && text.is_ascii(), "{}", text);
            let read = Histogram::decode(Scale::CPU, &text).unwrap();
            prop_assert_eq!(read.encode(), text, "a second round changes nothing");
            prop_assert_eq!(read.count(), histogram.count());
            for percent in [50, 75, 90, 95, 99] {
                let (kept, was) = (read.percentile(percent).unwrap(), histogram.percentile(percent).unwrap());
                // A weight is off by a fiftieth at most, so that a percentile lies within two of its neighbours.
                let low = histogram.percentile(percent.saturating_sub(3)).unwrap();
                let high = histogram.percentile(percent + 3).unwrap();
                prop_assert!((low..=high).contains(&kept), "p{}: {} was {}", percent, kept, was);
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[0-9,.e+/A-Za-z-]{0,64}") {
            if let Some(histogram) = Histogram::decode(Scale::MEMORY, &text) {
                prop_assert!(histogram.percentile(95).is_some() || histogram.count() == 0);
                prop_assert!(histogram.encode().len() <= TEXT_MAX_BYTES);
            }
        }

        #[test]
        fn a_percentile_grows_with_its_number_and_never_lies_below_the_smallest_value(
            values in prop::collection::vec(0.0..1e6_f64, 1..60),
        ) {
            let histogram = of(&values);
            let all: Vec<f64> = (0..=100).map(|percent| histogram.percentile(percent).unwrap()).collect();
            prop_assert!(all.windows(2).all(|pair| pair[0] <= pair[1]));
            let least = values.iter().copied().fold(f64::MAX, f64::min);
            prop_assert!(all[0] >= least * 0.999_999);
        }
    }
}
