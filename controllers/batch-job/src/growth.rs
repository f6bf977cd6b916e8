//! More memory for tasks that ran out of it: `spec.retry.onOOM`.
//!
//! How often a task did stands in the job's status: of several tasks in `status.indexes.retries`, of a single one as
//! the count of its `status.exitCodes` with reason OOMKilled. So a new manager goes on where the last one was.

use crate::projections::job::JobView;
use serde_json::{Map, Value, json};
use springtide_crds::batch_job::OnOom;
use springtide_plumbing::quantity::{MAX_AMOUNT, memory_bytes};

/// Memory is made whole multiples of this, which reads well.
const MEBIBYTE: u128 = 1 << 20;

/// By how many steps a task is larger than its template that ran out of memory so often.
pub fn steps(job: &JobView, times: u32) -> u32 {
    job.spec.retry.on_oom.as_ref().map_or(0, |on_oom| times.min(on_oom.max_steps))
}

/// Enlarges the memory that a pod spec requests, and to which it is limited, by so many steps: of all containers, as
/// nothing says which of them needs it, and of the pod as a whole. Where it sets none, nothing changes.
pub fn grow(spec: &mut Map<String, Value>, on_oom: &OnOom, steps: u32) {
    if steps == 0 {
        return;
    }
    let enlarge = |holder: &mut Map<String, Value>| {
        for kind in ["requests", "limits"] {
            let memory = holder
                .get_mut("resources")
                .and_then(|resources| resources.get_mut(kind))
                .and_then(|amounts| amounts.get_mut("memory"));
            if let Some(memory) = memory
                && let Some(grown) = grown(memory, on_oom, steps)
            {
                *memory = grown;
            }
        }
    };
    enlarge(spec);
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().filter_map(Value::as_object_mut).for_each(enlarge);
    }
}

/// The quantity after so many steps; `None` where it stays, or is no quantity.
fn grown(memory: &Value, on_oom: &OnOom, steps: u32) -> Option<Value> {
    let now = u128::try_from(memory_bytes(memory)).ok().filter(|bytes| *bytes > 0)?;
    let most = on_oom.max_memory.as_ref().map_or(MAX_AMOUNT, |most| memory_bytes(&json!(most)));
    // Never less than the template says, and a limit never below its request: both are bounded alike.
    let most = u128::try_from(most).unwrap_or(0).max(now);
    let factor = u128::from(on_oom.memory_percent).saturating_pow(steps);
    let wanted = now.saturating_mul(factor).div_ceil(100_u128.saturating_pow(steps));
    let bytes = wanted.checked_next_multiple_of(MEBIBYTE).unwrap_or(wanted).min(most);
    (bytes > now).then(|| match bytes % MEBIBYTE {
        0 => json!(format!("{}Mi", bytes / MEBIBYTE)),
        _ => json!(bytes.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_plumbing::resources::PodSpecRequests;
    use proptest::prelude::*;
    use serde::Deserialize;

    fn on_oom(rule: Value) -> OnOom {
        serde_json::from_value(rule).unwrap()
    }

    fn after(spec: &Value, rule: Value, steps: u32) -> Value {
        let mut spec = spec.as_object().unwrap().clone();
        grow(&mut spec, &on_oom(rule), steps);
        Value::Object(spec)
    }

    #[test]
    fn requests_and_limits_of_all_containers_grow_and_nothing_else() {
        let spec = json!({
            "resources": {"limits": {"memory": "1Gi", "cpu": "2"}},
            "initContainers": [{"name": "i", "resources": {"requests": {"memory": 134_217_728}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"memory": "100Mi", "cpu": "1"}, "limits": {"memory": "200Mi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "1"}}},
                {"name": "c"},
            ],
        });
        assert_eq!(after(&spec, json!({}), 0), spec);
        assert_eq!(
            after(&spec, json!({}), 2),
            json!({
                "resources": {"limits": {"memory": "2304Mi", "cpu": "2"}},
                "initContainers": [{"name": "i", "resources": {"requests": {"memory": "288Mi"}}}],
                "containers": [
                    {"name": "a", "resources": {"requests": {"memory": "225Mi", "cpu": "1"}, "limits": {"memory": "450Mi"}}},
                    {"name": "b", "resources": {"requests": {"cpu": "1"}}},
                    {"name": "c"},
                ],
            })
        );
    }

    #[test]
    fn no_container_grows_beyond_the_maximum_and_none_shrinks_to_it() {
        let of = |memory: &str| json!({"containers": [{"resources": {"limits": {"memory": memory}}}]});
        let memory = |spec: &Value| spec["containers"][0]["resources"]["limits"]["memory"].clone();
        let rule = || json!({"memoryPercent": 400, "maxMemory": "1000000000"});
        assert_eq!(memory(&after(&of("100Mi"), rule(), 1)), "400Mi");
        assert_eq!(memory(&after(&of("100Mi"), rule(), 2)), "1000000000");
        assert_eq!(memory(&after(&of("2Gi"), rule(), 2)), "2Gi");
        assert_eq!(memory(&after(&of("lots"), rule(), 2)), "lots", "the API server refuses it");
        assert_eq!(memory(&after(&of("100Mi"), json!({"maxMemory": 157_286_400}), 9)), "150Mi");
    }

    proptest! {
        #[test]
        fn a_request_stays_within_its_limit_and_grows_with_every_step(
            request in 1..1_i64 << 42, more in 0..1_i64 << 42, percent in 101..=400_u32, most in 0..1_i64 << 44,
        ) {
            let rule = || json!({"memoryPercent": percent, "maxMemory": most});
            let spec = json!({"containers": [{"resources": {
                "requests": {"memory": request}, "limits": {"memory": request + more}}}]});
            let mut before = 0;
            for steps in 0..=5 {
                let spec = after(&spec, rule(), steps);
                let of = |kind: &str| memory_bytes(&spec["containers"][0]["resources"][kind]["memory"]);
                prop_assert!(of("requests") <= of("limits"));
                prop_assert!(of("requests") >= before, "step {} takes memory away", steps);
                prop_assert!(of("limits") <= most.max(request + more));
                let charged = PodSpecRequests::deserialize(&spec).unwrap().of_template().memory;
                prop_assert_eq!(charged, of("requests"), "what is charged is what the pod requests");
                before = charged;
            }
        }
    }
}
