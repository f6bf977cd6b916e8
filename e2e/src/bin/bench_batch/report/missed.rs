//! Why some goals may be missed: what keeps a figure from them, whatever it is in one run. The page tells it of those that
//! are.

use springtide_e2e::bench::report::Reason;

const SHARED_CORES: &str = "The server, who sends the requests, the control plane, the kubelet and the batch pods are on the \
    same cores. A request that comes while another process has the core waits until the time slice of that one is over, \
    however little weight it has, and a slice is longer than an answer takes. Where the server has a CPU of its own \
    (`online-beside`, `online-draining`) nothing is in its way.";

const NOTHING_MADE_UP: &str = "`drainPodsPerSecond` is a ceiling in every second, so a drain can lose time and never make it \
    up: whatever a look at the queue, a late answer or another process on the same cores takes of a second is missing in the \
    end. The queue is told a rate that is a little above the goal, and its pods are deleted within few seconds, so that one \
    such pause decides.";

/// By goal.
pub(crate) const REASONS: &[Reason] = &[
    Reason {
        goal: "G1-times-job",
        text: "R' is what the write chain of BatchJob comes to on this cluster without any controller. Where Kubernetes Job \
            reaches more than 1/1.7 of that, no controller can be faster by so much: on few cores, on which the API server, \
            etcd, the scheduler and KWOK run too, both are bound by these and not by themselves.",
    },
    Reason {
        goal: "G9-equal",
        text: "The decision is a few passes over one class, but each of the jobs is touched to be granted. They lie scattered \
            in memory, so that most of the time is that of cache misses: the figure is that of the machine's memory.",
    },
    Reason { goal: "G11-share-of-raw-by-few", text: NOTHING_MADE_UP },
    Reason { goal: "G11-share-of-raw", text: NOTHING_MADE_UP },
    Reason { goal: "online-shared-beside", text: SHARED_CORES },
    Reason { goal: "online-shared-draining", text: SHARED_CORES },
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{Parser, ValueEnum};
    use serde_json::Value;
    use springtide_e2e::bench::report::Goal;

    use super::*;
    use crate::report::{Measured, goals, page};
    use crate::{Options, Part, stored};

    /// What stands of parts in `docs`; of none that was stored with other figures than there are now.
    fn measured() -> Measured {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks/data/batch");
        let mut measured = Measured::new(&Options::parse_from(["bench-batch"]));
        for part in Part::value_variants() {
            let name = part.to_possible_value().unwrap();
            let Ok(text) = std::fs::read(folder.join(format!("{}.json", name.get_name()))) else { continue };
            let mut stored: Value = serde_json::from_slice(&text).unwrap();
            // Else it is measured anew, and its figures are not told.
            let _ = stored::put(*part, &mut measured, stored["result"].take());
        }
        measured
    }

    #[test]
    fn no_goal_that_is_missed_by_what_is_stored_lacks_a_reason() {
        let goals = goals::of(&measured()).unwrap();
        assert!(!goals.is_empty(), "parts are stored");
        let unexplained = goals.iter().filter(|goal| goal.is_missed_without_reason());
        assert_eq!(unexplained.map(Goal::id).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn each_reason_is_that_of_a_goal() {
        let goals = goals::of(&page::tests::measured()).unwrap();
        let unknown = REASONS.iter().filter(|reason| goals.iter().all(|goal| goal.id() != reason.goal));
        assert_eq!(unknown.map(|reason| reason.goal).collect::<Vec<_>>(), [""; 0]);
    }
}
