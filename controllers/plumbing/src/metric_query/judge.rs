//! What the last answers mean: a pure function of them.

use super::{Reading, Sample};
use crate::clock::after;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::common::{MetricGate, OnNoData};
use std::sync::Arc;

/// An answer may be so much older than twice its interval before it says nothing any more: it is asked for in turn, and
/// may take a while.
const AGE_MARGIN: SignedDuration = SignedDuration::from_secs(10);

/// What the answers to one query mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricVerdict {
    /// The last value is within its bound, or no value is taken for that.
    Passing,
    /// The last values are beyond the bound, but fewer than are a breach.
    Failing {
        /// How many, one after the other.
        failures: u32,
    },
    /// So many values one after the other are beyond the bound as are a breach.
    Breached {
        /// How many.
        failures: u32,
    },
    /// It is not known; why, in words.
    NoData {
        /// Such as an error of the last answer.
        problem: Arc<str>,
    },
}

/// Judges the answers to a query (the oldest first) that have come since an instant, such as the start of a run: what came
/// earlier says nothing of it.
///
/// Failures are counted backwards from the last answer up to a value within the bound. An answer without a value
/// (no data, or an error) is a failure where the gate says so; else it neither counts nor ends the count, and as
/// the last one it makes the verdict [`MetricVerdict::NoData`] where the gate holds for that. Where no answer has come for
/// more than two intervals, nobody asks (a process that has just begun to lead): that is no data, and never a failure.
pub fn judge(gate: &MetricGate, history: &[Sample], since: Timestamp, now: Timestamp) -> MetricVerdict {
    let interval = SignedDuration::from_secs(gate.interval_seconds.into());
    let oldest = after(now, -interval.saturating_mul(2).saturating_add(AGE_MARGIN));
    let counted: Vec<&Sample> = history.iter().filter(|sample| sample.time >= since).collect();
    let Some(last) = counted.last().filter(|sample| sample.time >= oldest) else {
        return match gate.on_no_data {
            OnNoData::Ignore => MetricVerdict::Passing,
            OnNoData::Hold | OnNoData::Fail => {
                MetricVerdict::NoData { problem: "no answer has come yet".into() }
            }
        };
    };
    let failures = failures(gate, &counted);
    if failures >= gate.failure_limit.max(1) {
        return MetricVerdict::Breached { failures };
    }
    match (problem(&last.reading), gate.on_no_data) {
        (Some(problem), OnNoData::Hold) => MetricVerdict::NoData { problem },
        (Some(_), OnNoData::Ignore | OnNoData::Fail) | (None, _) if failures > 0 => {
            MetricVerdict::Failing { failures }
        }
        (Some(_), OnNoData::Ignore | OnNoData::Fail) | (None, _) => MetricVerdict::Passing,
    }
}

/// How many failures there are up to the last value that is none.
fn failures(gate: &MetricGate, counted: &[&Sample]) -> u32 {
    let mut failures = 0u32;
    for sample in counted.iter().rev() {
        match &sample.reading {
            Reading::Value(value) if is_beyond(gate, *value) => failures = failures.saturating_add(1),
            Reading::Value(_) => break,
            Reading::NoData | Reading::Error(_) => match gate.on_no_data {
                OnNoData::Fail => failures = failures.saturating_add(1),
                OnNoData::Hold | OnNoData::Ignore => {}
            },
        }
    }
    failures
}

fn is_beyond(gate: &MetricGate, value: f64) -> bool {
    let bound =
        |decimal: &Option<springtide_crds::common::Decimal>| decimal.as_ref().and_then(|bound| bound.value());
    bound(&gate.failure_above).is_some_and(|bound| value > bound)
        || bound(&gate.failure_below).is_some_and(|bound| value < bound)
}

fn problem(reading: &Reading) -> Option<Arc<str>> {
    match reading {
        Reading::Value(_) => None,
        Reading::NoData => Some("the expression gives no value".into()),
        Reading::Error(problem) => Some(Arc::clone(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn gate(on_no_data: &str, failure_limit: u32) -> MetricGate {
        serde_json::from_value(json!({"name": "errors", "prometheus": {"address": "http://prom", "query": "q"},
            "failureAbove": "0.5", "intervalSeconds": 30, "failureLimit": failure_limit, "onNoData": on_no_data}))
        .unwrap()
    }

    /// Answers every 30 s up to 1000 s: a number, nothing or an error.
    fn history(readings: &[Option<Result<f64, &str>>]) -> Vec<Sample> {
        let first = 1000 - 30 * (i64::try_from(readings.len()).unwrap() - 1);
        let samples = readings.iter().zip(0..).map(|(reading, number)| Sample {
            time: at(first + 30 * number),
            reading: match reading {
                Some(Ok(value)) => Reading::Value(*value),
                Some(Err(text)) => Reading::Error(Arc::from(*text)),
                None => Reading::NoData,
            },
        });
        samples.collect()
    }

    fn verdict(on_no_data: &str, limit: u32, readings: &[Option<Result<f64, &str>>]) -> MetricVerdict {
        judge(&gate(on_no_data, limit), &history(readings), at(0), at(1001))
    }

    fn no_data(problem: &str) -> MetricVerdict {
        MetricVerdict::NoData { problem: problem.into() }
    }

    const GOOD: Option<Result<f64, &str>> = Some(Ok(0.5));
    const BAD: Option<Result<f64, &str>> = Some(Ok(0.51));
    const ERROR: Option<Result<f64, &str>> = Some(Err("refused"));

    #[test]
    fn as_many_failures_in_a_row_as_the_limit_are_a_breach() {
        assert_eq!(verdict("Hold", 2, &[BAD, GOOD]), MetricVerdict::Passing);
        assert_eq!(verdict("Hold", 2, &[BAD, GOOD, BAD]), MetricVerdict::Failing { failures: 1 });
        assert_eq!(verdict("Hold", 2, &[GOOD, BAD, BAD]), MetricVerdict::Breached { failures: 2 });
        assert_eq!(verdict("Hold", 1, &[Some(Ok(f64::INFINITY))]), MetricVerdict::Breached { failures: 1 });
    }

    #[test]
    fn a_lower_bound_fails_below_it() {
        let below = MetricGate {
            failure_above: None,
            failure_below: Some(springtide_crds::common::Decimal::new("99.9")),
            ..gate("Hold", 1)
        };
        let judged = |value| judge(&below, &history(&[Some(Ok(value))]), at(0), at(1000));
        assert_eq!(judged(99.9), MetricVerdict::Passing);
        assert_eq!(judged(99.8), MetricVerdict::Breached { failures: 1 });
    }

    #[test]
    fn without_a_value_the_gate_says_what_holds() {
        assert_eq!(verdict("Hold", 2, &[GOOD, None]), no_data("the expression gives no value"));
        assert_eq!(verdict("Hold", 2, &[GOOD, ERROR]), no_data("refused"));
        assert_eq!(verdict("Ignore", 2, &[GOOD, None]), MetricVerdict::Passing);
        assert_eq!(verdict("Ignore", 2, &[GOOD, BAD, ERROR]), MetricVerdict::Failing { failures: 1 });
        assert_eq!(verdict("Fail", 2, &[GOOD, ERROR]), MetricVerdict::Failing { failures: 1 });
        assert_eq!(verdict("Fail", 2, &[GOOD, ERROR, None]), MetricVerdict::Breached { failures: 2 });
        // It neither counts nor ends the count.
        assert_eq!(verdict("Hold", 2, &[BAD, None, BAD]), MetricVerdict::Breached { failures: 2 });
    }

    #[test]
    fn before_the_first_answer_nothing_has_failed() {
        let early = history(&[BAD, BAD]);
        for (on_no_data, verdict) in [
            ("Hold", no_data("no answer has come yet")),
            ("Fail", no_data("no answer has come yet")),
            ("Ignore", MetricVerdict::Passing),
        ] {
            let gate = gate(on_no_data, 1);
            assert_eq!(judge(&gate, &[], at(0), at(1000)), verdict);
            // What came before the run, or long ago, is no answer.
            assert_eq!(judge(&gate, &early, at(1001), at(1002)), verdict);
            assert_eq!(judge(&gate, &early, at(0), at(1071)), verdict);
            assert_eq!(judge(&gate, &early, at(0), at(1070)), MetricVerdict::Breached { failures: 2 });
        }
    }

    proptest! {
        /// A breach is that many failures behind the last good value, whatever lies between.
        #[test]
        fn a_breach_needs_its_failures(
            readings in proptest::collection::vec((0..4u8).prop_map(|kind| match kind {
                0 => GOOD,
                1 => None,
                2 => ERROR,
                _ => BAD,
            }), 1..30),
            limit in 1..6u32,
        ) {
            let tail = readings.rsplit(|reading| *reading == GOOD).next().unwrap_or_default();
            let bad = u32::try_from(tail.iter().filter(|reading| **reading == BAD).count()).unwrap();
            let all = u32::try_from(tail.len()).unwrap();
            for (on_no_data, failures) in [("Hold", bad), ("Ignore", bad), ("Fail", all)] {
                let verdict = verdict(on_no_data, limit, &readings);
                let is_breach = verdict == MetricVerdict::Breached { failures };
                prop_assert_eq!(is_breach, failures >= limit, "{} {:?}", on_no_data, verdict);
            }
        }
    }
}
