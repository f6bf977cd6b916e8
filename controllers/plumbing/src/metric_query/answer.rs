//! Answers of the HTTP API of Prometheus to instant queries:
//! <https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>.

use super::Reading;
use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use springtide_crds::common::bounded_text;
use std::sync::Arc;

/// The most bytes of what is told of a failure.
const PROBLEM_MAX_BYTES: usize = 256;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: Box<str>,
    #[serde(default)]
    result: Value,
}

/// An instant and a value.
type Point = (IgnoredAny, String);

#[derive(Deserialize)]
struct Element {
    /// Absent in one of a histogram.
    #[serde(default)]
    value: Option<Point>,
}

/// What an answer says.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Reading {
    let answer = serde_json::from_slice::<Answer>(body);
    if !status.is_success() {
        let said = answer.ok().and_then(|answer| answer.error).unwrap_or_default();
        return problem(match (status.is_redirection(), said.is_empty()) {
            (true, _) => format!("it answers {}; redirects are not followed", status.as_u16()),
            (false, true) => format!("it answers {}", status.as_u16()),
            (false, false) => format!("it answers {}: {said}", status.as_u16()),
        });
    }
    match answer {
        Err(error) => problem(format!("its answer is not that of a Prometheus: {error}")),
        Ok(Answer { data: None, error }) => {
            problem(format!("it answers without data: {}", error.unwrap_or_default()))
        }
        Ok(Answer { data: Some(data), .. }) => value(data),
    }
}

/// A failure in words.
pub(super) fn problem(text: String) -> Reading {
    Reading::Error(Arc::from(bounded_text(&text, PROBLEM_MAX_BYTES)))
}

fn value(data: Data) -> Reading {
    let wrong =
        |kind: &str| problem(format!("the expression gives {kind}, not a scalar or a vector of one element"));
    let unreadable =
        |error: serde_json::Error| problem(format!("its answer is not that of a Prometheus: {error}"));
    match &*data.result_type {
        "scalar" => match serde_json::from_value::<Point>(data.result) {
            Ok((_, text)) => number(&text),
            Err(error) => unreadable(error),
        },
        "vector" => match serde_json::from_value::<Vec<Element>>(data.result) {
            Ok(elements) => match elements.as_slice() {
                [] => Reading::NoData,
                [Element { value: Some((_, text)) }] => number(text),
                [Element { value: None }] => wrong("a histogram"),
                several => wrong(&format!("a vector of {} elements", several.len())),
            },
            Err(error) => unreadable(error),
        },
        "matrix" => wrong("a range vector"),
        "string" => wrong("a string"),
        _ => wrong("what is none of Prometheus"),
    }
}

fn number(text: &str) -> Reading {
    match text.parse::<f64>() {
        Ok(number) if number.is_nan() => Reading::NoData,
        Ok(number) => Reading::Value(number),
        Err(_) => problem(format!("the expression gives {text:?}, which is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reading(result_type: &str, result: Value) -> Reading {
        let data = json!({"resultType": result_type, "result": result, "stats": {}});
        let answer = json!({"status": "success", "data": data, "warnings": ["w"]});
        read(StatusCode::OK, answer.to_string().as_bytes())
    }

    fn element(value: &str) -> Value {
        json!({"metric": {"job": "web"}, "value": [1_435_781_451.781, value]})
    }

    fn is_problem(reading: &Reading, words: &str) -> bool {
        matches!(reading, Reading::Error(text) if text.contains(words) && text.len() <= PROBLEM_MAX_BYTES)
    }

    #[test]
    fn a_scalar_and_a_vector_of_one_element_are_a_value() {
        assert_eq!(reading("scalar", json!([1_435_781_451, "0.25"])), Reading::Value(0.25));
        assert_eq!(reading("vector", json!([element("1e-05")])), Reading::Value(1e-5));
        assert_eq!(reading("vector", json!([element("+Inf")])), Reading::Value(f64::INFINITY));
        assert_eq!(reading("vector", json!([element("-Inf")])), Reading::Value(f64::NEG_INFINITY));
    }

    #[test]
    fn an_empty_vector_and_what_is_no_number_are_no_data() {
        assert_eq!(reading("vector", json!([])), Reading::NoData);
        assert_eq!(reading("vector", json!([element("NaN")])), Reading::NoData);
        assert_eq!(reading("scalar", json!([1, "NaN"])), Reading::NoData);
    }

    #[test]
    fn other_results_are_an_error_that_says_what_came() {
        for (result_type, result, words) in [
            ("vector", json!([element("1"), element("2")]), "a vector of 2 elements"),
            ("vector", json!([{"metric": {}, "histogram": [1, {"count": "3"}]}]), "a histogram"),
            ("matrix", json!([{"metric": {}, "values": [[1, "2"]]}]), "a range vector"),
            ("string", json!([1, "text"]), "a string"),
            ("scalar", json!([1, "one"]), "no number"),
            ("tensor", json!([]), "none of Prometheus"),
            ("scalar", json!("1"), "not that of a Prometheus"),
        ] {
            let reading = reading(result_type, result);
            assert!(is_problem(&reading, words), "{reading:?}");
        }
    }

    #[test]
    fn what_a_prometheus_says_of_an_error_is_told_and_bounded() {
        let body =
            json!({"status": "error", "errorType": "bad_data", "error": "invalid parameter \"query\": 1:3"});
        let bad = read(StatusCode::BAD_REQUEST, body.to_string().as_bytes());
        assert!(is_problem(&bad, "400: invalid parameter"), "{bad:?}");
        let moved = read(StatusCode::FOUND, b"elsewhere");
        assert!(is_problem(&moved, "302; redirects are not followed"), "{moved:?}");
        let down = read(StatusCode::SERVICE_UNAVAILABLE, b"<html>");
        assert!(is_problem(&down, "it answers 503"), "{down:?}");
        let long = json!({"error": "x\n".repeat(5000)}).to_string();
        assert!(is_problem(&read(StatusCode::UNPROCESSABLE_ENTITY, long.as_bytes()), "422: x x"));
    }

    proptest::proptest! {
        /// Whoever answers may say anything.
        #[test]
        fn no_answer_panics_or_is_a_nan(status in 100..1000u16, body in ".*") {
            let status = StatusCode::from_u16(status).unwrap();
            match read(status, body.as_bytes()) {
                Reading::Value(value) => proptest::prop_assert!(!value.is_nan()),
                Reading::NoData => {}
                Reading::Error(text) => proptest::prop_assert!(text.len() <= PROBLEM_MAX_BYTES),
            }
        }
    }
}
