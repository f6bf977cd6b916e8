//! Which pods start now, and in which order.

use crate::verdict::Verdict;
use springtide_plumbing::disruption::InFlight;
use std::collections::HashMap;
use std::sync::Arc;

/// A pod that could start.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is to be done to it.
    pub verdict: Verdict,
    /// Whether it is available.
    pub is_available: bool,
    /// Whether it is in service by its condition Ready, for PodDisruptionBudgets.
    pub is_ready: bool,
    /// Whether a part of its change has been made already, such as the resize before the image.
    pub is_begun: bool,
    /// Its node; `None` while it has none.
    pub node: Option<&'a Arc<str>>,
    /// Value of the topology key on its node; empty where the node has none.
    pub topology: &'a str,
    /// Its number in a StatefulSet.
    pub ordinal: Option<u32>,
    /// Whether its node has the images that it will need.
    pub has_images: bool,
    /// PodDisruptionBudgets that select it, as places in [`Limits::budgets`].
    pub budgets: Vec<usize>,
}

/// What bounds how many pods start.
#[derive(Clone, Debug)]
pub struct Limits<'a> {
    /// Pods that the step has room for.
    pub room: usize,
    /// Pods of the workload that are unavailable or missing.
    pub unavailable: usize,
    /// Most that may be.
    pub max_unavailable: usize,
    /// What is in flight on each node, and how much may be.
    pub per_node: InFlight<Arc<str>>,
    /// The same for each value of the topology key, if there is one.
    pub per_topology: Option<InFlight<Arc<str>>>,
    /// PodDisruptionBudgets, and how many pods each allows to be taken out of service.
    pub budgets: Vec<Budget<'a>>,
}

/// A PodDisruptionBudget.
#[derive(Clone, Copy, Debug)]
pub struct Budget<'a> {
    /// Its name.
    pub name: &'a str,
    /// How many ready pods may be taken out of service.
    pub room: usize,
}

/// What keeps the next pod from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// As many pods are unavailable as may be.
    Unavailable,
    /// As many pods of its node or topology are in flight as may be.
    Place,
    /// A PodDisruptionBudget of this name.
    Budget(String),
    /// Its node lacks the images.
    Images,
}

/// What starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// Places of those that start in the list of candidates, first to start first.
    pub started: Vec<usize>,
    /// What keeps the first one that would start and does not; `None` where the step is full or nobody is left.
    pub obstacle: Option<Obstacle>,
}

/// Chooses who starts, within all limits at once.
pub fn starts(candidates: &[Candidate<'_>], mut limits: Limits<'_>) -> Starts {
    let mut starts = Starts::default();
    for index in order(candidates) {
        if starts.started.len() >= limits.room {
            break;
        }
        let Some(candidate) = candidates.get(index) else { continue };
        match limits.admit(candidate) {
            Ok(()) => starts.started.push(index),
            Err(obstacle) => {
                starts.obstacle.get_or_insert(obstacle);
            }
        }
    }
    if starts.started.len() >= limits.room {
        starts.obstacle = None;
    }
    starts
}

impl Limits<'_> {
    /// Takes room for a pod everywhere, or nowhere.
    fn admit(&mut self, candidate: &Candidate<'_>) -> Result<(), Obstacle> {
        let (restarts, moves) = match candidate.verdict {
            Verdict::InPlace | Verdict::Restart | Verdict::Recreate => (true, true),
            Verdict::Resize => (false, true),
            // Nothing of the pod is busy with it.
            Verdict::Metadata | Verdict::NextRestart | Verdict::UpToDate | Verdict::Blocked(_) => {
                (false, false)
            }
        };
        let topology = Arc::from(candidate.topology);
        if moves {
            let is_node_full = candidate.node.is_some_and(|node| !self.per_node.has_room(node));
            let is_topology_full = self.per_topology.as_ref().is_some_and(|limit| !limit.has_room(&topology));
            if is_node_full || is_topology_full {
                return Err(Obstacle::Place);
            }
        }
        // One that is unavailable takes nothing from anybody.
        let costs_available = restarts && candidate.is_available;
        if costs_available && self.unavailable >= self.max_unavailable {
            return Err(Obstacle::Unavailable);
        }
        let costs_ready = restarts && candidate.is_ready;
        if costs_ready {
            let budgets = candidate.budgets.iter().filter_map(|place| self.budgets.get(*place));
            if let Some(full) = budgets.into_iter().find(|budget| budget.room == 0) {
                return Err(Obstacle::Budget(full.name.to_owned()));
            }
        }
        if restarts && !candidate.has_images {
            return Err(Obstacle::Images);
        }
        if moves {
            if let Some(node) = candidate.node {
                self.per_node.count(Arc::clone(node));
            }
            if let Some(limit) = &mut self.per_topology {
                limit.count(topology);
            }
        }
        if costs_available {
            self.unavailable += 1;
        }
        if costs_ready {
            for place in &candidate.budgets {
                if let Some(budget) = self.budgets.get_mut(*place) {
                    budget.room = budget.room.saturating_sub(1);
                }
            }
        }
        Ok(())
    }
}

/// Unready ones first, then those that have begun, then StatefulSet ordinals from the top, then over all nodes in turn,
/// then by name.
fn order(candidates: &[Candidate<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let at = |index: &usize| &candidates[*index];
    order.sort_by(|a, b| at(a).name.cmp(at(b).name));
    let mut turns = vec![0_usize; candidates.len()];
    let mut on_node: HashMap<Option<&Arc<str>>, usize> = HashMap::new();
    for index in &order {
        let turn = on_node.entry(at(index).node).or_default();
        turns[*index] = *turn;
        *turn += 1;
    }
    // Stable, so that names decide last.
    order.sort_by_key(|index| {
        let candidate = at(index);
        let ordinal = candidate.ordinal.map(std::cmp::Reverse);
        (candidate.is_available, !candidate.is_begun, ordinal, turns[*index])
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(name: &'static str) -> Candidate<'static> {
        Candidate {
            name,
            verdict: Verdict::InPlace,
            is_available: true,
            is_ready: true,
            is_begun: false,
            node: None,
            topology: "",
            ordinal: None,
            has_images: true,
            budgets: Vec::new(),
        }
    }

    fn limits() -> Limits<'static> {
        Limits {
            room: usize::MAX,
            unavailable: 0,
            max_unavailable: usize::MAX,
            per_node: InFlight::new(usize::MAX),
            per_topology: None,
            budgets: Vec::new(),
        }
    }

    fn names(candidates: &[Candidate<'static>], limits: Limits<'_>) -> Vec<&'static str> {
        starts(candidates, limits).started.into_iter().map(|index| candidates[index].name).collect()
    }

    #[test]
    fn who_gives_nothing_up_goes_first_and_nodes_take_turns() {
        let (n1, n2): (Arc<str>, Arc<str>) = ("n1".into(), "n2".into());
        let on = |name, node| Candidate { node: Some(node), ..candidate(name) };
        let candidates = [
            on("a", &n1),
            on("b", &n1),
            on("c", &n2),
            Candidate { is_begun: true, ..on("x", &n2) },
            Candidate { is_available: false, is_ready: false, ..on("z", &n2) },
        ];
        // A node's pods have their turns in the order of their names.
        let expected = ["z", "x", "a", "c", "b"];
        let owned: Vec<&str> =
            starts(&candidates, limits()).started.iter().map(|at| candidates[*at].name).collect();
        assert_eq!(owned, expected);
    }

    #[test]
    fn ordinals_go_from_the_top() {
        let set = ["db-0", "db-10", "db-2"].map(|name| Candidate {
            ordinal: name.strip_prefix("db-").and_then(|ordinal| ordinal.parse().ok()),
            ..candidate(name)
        });
        assert_eq!(names(&set, limits()), ["db-10", "db-2", "db-0"]);
    }

    #[test]
    fn unavailable_pods_are_free_and_the_others_are_bounded() {
        let candidates = [
            candidate("a"),
            candidate("b"),
            Candidate { is_available: false, is_ready: false, ..candidate("c") },
        ];
        let tight = |unavailable| Limits { unavailable, max_unavailable: 1, ..limits() };
        assert_eq!(names(&candidates, tight(0)), ["c", "a"]);
        let full = starts(&candidates, tight(1));
        assert_eq!((full.started.len(), full.obstacle), (1, Some(Obstacle::Unavailable)));
    }

    #[test]
    fn who_is_made_anew_is_bounded_like_who_restarts() {
        let node: Arc<str> = "n1".into();
        let anew = |name, budgets: &[usize]| Candidate {
            verdict: Verdict::Recreate,
            node: Some(&node),
            budgets: budgets.to_vec(),
            ..candidate(name)
        };
        let candidates = [anew("a", &[0]), anew("b", &[])];
        let obstacle = |limits| starts(&candidates, limits).obstacle;
        let none = || Limits { budgets: vec![Budget { name: "pdb", room: 2 }], ..limits() };
        assert_eq!(obstacle(none()), None);
        assert_eq!(obstacle(Limits { max_unavailable: 1, ..none() }), Some(Obstacle::Unavailable));
        assert_eq!(obstacle(Limits { per_node: InFlight::new(1), ..none() }), Some(Obstacle::Place));
        let full = Limits { budgets: vec![Budget { name: "pdb", room: 0 }], ..limits() };
        assert_eq!(obstacle(full), Some(Obstacle::Budget("pdb".to_owned())));
    }

    #[test]
    fn a_budget_counts_ready_pods_of_all_that_it_selects() {
        let with = |name, budgets: &[usize]| Candidate { budgets: budgets.to_vec(), ..candidate(name) };
        let candidates = [with("a", &[0]), with("b", &[0, 1]), with("c", &[1]), with("d", &[])];
        let budgets = vec![Budget { name: "one", room: 1 }, Budget { name: "two", room: 1 }];
        let found = starts(&candidates, Limits { budgets, ..limits() });
        let started: Vec<_> = found.started.iter().map(|index| candidates[*index].name).collect();
        assert_eq!(
            (started, found.obstacle),
            (vec!["a", "c", "d"], Some(Obstacle::Budget("one".to_owned())))
        );
    }

    #[test]
    fn nodes_and_zones_bound_what_is_in_flight() {
        let nodes: [Arc<str>; 2] = ["n1".into(), "n2".into()];
        let on =
            |name, node: usize| Candidate { node: Some(&nodes[node]), topology: "zone", ..candidate(name) };
        let candidates = [on("a", 0), on("b", 0), on("c", 1)];
        let started = |limits| starts(&candidates, limits).started;
        assert_eq!(started(Limits { per_node: InFlight::new(1), ..limits() }), [0, 2]);
        let per_topology = Some(InFlight::new(1));
        assert_eq!(started(Limits { per_topology, ..limits() }), [0]);
        let mut per_node = InFlight::new(1);
        per_node.count(Arc::from("n2"));
        assert_eq!(started(Limits { per_node, ..limits() }), [0]);
    }

    #[test]
    fn metadata_needs_no_room_but_that_of_the_step() {
        let metadata = |name| Candidate { verdict: Verdict::Metadata, has_images: false, ..candidate(name) };
        let candidates = [metadata("a"), metadata("b"), metadata("c")];
        let tight =
            Limits { room: 2, unavailable: 9, max_unavailable: 1, per_node: InFlight::new(0), ..limits() };
        assert_eq!(names(&candidates, tight), ["a", "b"]);
    }

    #[test]
    fn a_pod_whose_node_lacks_the_image_waits_and_others_go_on() {
        let candidates = [Candidate { has_images: false, ..candidate("a") }, candidate("b")];
        let found = starts(&candidates, limits());
        assert_eq!((found.started, found.obstacle), (vec![1], Some(Obstacle::Images)));
    }

    fn any_candidate() -> impl Strategy<Value = (bool, bool, u8, u8, bool)> {
        (any::<bool>(), any::<bool>(), 0..3u8, 0..3u8, any::<bool>())
    }

    proptest! {
        /// Whatever is asked for: no limit is exceeded by those that start, and nobody is kept who could go.
        #[test]
        fn limits_hold_together(
            pods in proptest::collection::vec(any_candidate(), 0..40),
            room in 0..20usize,
            unavailable in 0..5usize,
            max_unavailable in 1..6usize,
            per_node in 1..3usize,
            budget_room in 0..5usize,
        ) {
            let nodes: Vec<Arc<str>> = (0..3).map(|node| Arc::from(format!("n{node}"))).collect();
            let candidates: Vec<Candidate<'_>> = pods.iter().map(|(available, budget, node, verdict, images)| Candidate {
                verdict: [Verdict::InPlace, Verdict::Resize, Verdict::Metadata][usize::from(*verdict)],
                is_available: *available,
                is_ready: *available,
                node: Some(&nodes[usize::from(*node)]),
                has_images: *images,
                budgets: if *budget { vec![0] } else { Vec::new() },
                ..candidate("p")
            }).collect();
            let limits = Limits {
                room,
                unavailable,
                max_unavailable,
                per_node: InFlight::new(per_node),
                per_topology: None,
                budgets: vec![Budget { name: "pdb", room: budget_room }],
            };
            let found = starts(&candidates, limits);
            let started: Vec<_> = found.started.iter().map(|index| &candidates[*index]).collect();
            let restarting = |of: &dyn Fn(&Candidate<'_>) -> bool| {
                started.iter().filter(|found| found.verdict.restarts() && of(found)).count()
            };
            prop_assert!(started.len() <= room);
            prop_assert!(unavailable + restarting(&|found| found.is_available) <= max_unavailable.max(unavailable));
            prop_assert!(restarting(&|found| found.is_ready && !found.budgets.is_empty()) <= budget_room);
            prop_assert!(restarting(&|found| !found.has_images) == 0);
            for node in &nodes {
                let on = started.iter().filter(|found| {
                    found.node == Some(node) && found.verdict != Verdict::Metadata
                });
                prop_assert!(on.count() <= per_node);
            }
            prop_assert!(found.obstacle.is_some() || started.len() == room.min(candidates.len()));
        }
    }
}
