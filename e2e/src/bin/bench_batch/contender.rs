//! What the throughput runs are of: BatchJob and its peers, tuned and as they are shipped.

use serde::{Deserialize, Serialize};
use springtide_e2e::local_cluster::Component;

use crate::kueue::Tuning;
use crate::manifests::System;
use crate::{JOB_SYNCS, TUNED};

/// By how much the write budget is raised.
pub(crate) const RAISED: u32 = 10;
/// Workers beside it: a worker has one write under way, and with the eight that are shipped that is all there is. The
/// Jobs beside are synced fifty at a time.
pub(crate) const RAISED_WORKERS: usize = 32;

/// What a throughput run is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Contender {
    /// BatchJob as it is installed, beside a controller manager and a scheduler that are tuned.
    Shipped,
    /// BatchJob with the raised write budget, and more workers.
    Raised,
    /// The same with so many workers instead.
    Workers(usize),
    /// Job, its controller manager and scheduler tuned as all of this cluster.
    Job,
    /// The same behind Kueue, tuned too.
    Kueue,
    /// BatchJob as it is installed, beside a controller manager and a scheduler that are as shipped too.
    AllShipped,
    /// Job, with controller manager and scheduler as they are shipped.
    JobShipped,
    /// The same behind Kueue, as shipped too.
    KueueShipped,
}

impl Contender {
    /// All of a round, in their order. What changes the cluster comes last.
    pub(crate) fn all(without_peers: bool, workers: &[usize]) -> Vec<Self> {
        let mut all = vec![Self::Shipped, Self::Raised, Self::Job];
        all.extend(workers.iter().copied().map(Self::Workers));
        if !without_peers {
            all.extend([Self::Kueue, Self::AllShipped, Self::JobShipped, Self::KueueShipped]);
        }
        all
    }

    /// Whose jobs it runs.
    pub(crate) fn system(self) -> System {
        match self {
            Self::Shipped | Self::Raised | Self::Workers(_) | Self::AllShipped => System::BatchJob,
            Self::Job | Self::JobShipped => System::Job,
            Self::Kueue | Self::KueueShipped => System::KueueJob,
        }
    }

    /// Whether it is one of those that can be left out.
    pub(crate) fn is_peer(self) -> bool {
        match self {
            Self::Kueue | Self::AllShipped | Self::JobShipped | Self::KueueShipped => true,
            Self::Shipped | Self::Raised | Self::Workers(_) | Self::Job => false,
        }
    }

    /// How Kubernetes is set up beneath it, and Kueue.
    pub(crate) fn tuning(self) -> Tuning {
        match self {
            Self::Shipped | Self::Raised | Self::Workers(_) | Self::Job | Self::Kueue => Tuning::Tuned,
            Self::AllShipped | Self::JobShipped | Self::KueueShipped => Tuning::Shipped,
        }
    }

    /// What the report calls it.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Shipped => "BatchJob, write budget as shipped".to_owned(),
            Self::Raised => format!("BatchJob, write budget x {RAISED}, {RAISED_WORKERS} workers"),
            Self::Workers(workers) => format!("BatchJob, write budget x {RAISED}, {workers} workers"),
            Self::Job => "Kubernetes Job, tuned".to_owned(),
            Self::Kueue => "Kueue + Job, tuned".to_owned(),
            Self::AllShipped => "BatchJob, it and Kubernetes as shipped".to_owned(),
            Self::JobShipped => "Kubernetes Job, as shipped".to_owned(),
            Self::KueueShipped => "Kueue + Job, as shipped".to_owned(),
        }
    }

    /// A part of names of objects and files.
    pub(crate) fn id(self) -> String {
        match self {
            Self::Shipped => "shipped".to_owned(),
            Self::Raised => "raised".to_owned(),
            Self::Workers(workers) => format!("workers{workers}"),
            Self::Job => "job".to_owned(),
            Self::Kueue => "kueue".to_owned(),
            Self::AllShipped => "all-shipped".to_owned(),
            Self::JobShipped => "job-shipped".to_owned(),
            Self::KueueShipped => "kueue-shipped".to_owned(),
        }
    }

    /// Options of its manager; none where it has none, or is as shipped.
    pub(crate) fn manager_args(self) -> Vec<String> {
        let raised = |workers: usize| {
            let args = ["--write-budget-factor", &RAISED.to_string(), "--workers", &workers.to_string()];
            args.map(str::to_owned).to_vec()
        };
        match self {
            Self::Raised => raised(RAISED_WORKERS),
            Self::Workers(workers) => raised(workers),
            Self::Shipped
            | Self::Job
            | Self::Kueue
            | Self::AllShipped
            | Self::JobShipped
            | Self::KueueShipped => Vec::new(),
        }
    }
}

/// Flags of controller manager and scheduler. Those as shipped are the defaults of Kubernetes v1.37, given as flags
/// since the control plane of the tests has others; the last one counts.
pub(crate) fn flags(tuning: Tuning) -> [(Component, Vec<String>); 2] {
    let owned = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect();
    match tuning {
        Tuning::Tuned => [
            (Component::ControllerManager, owned(&[TUNED[0], TUNED[1], JOB_SYNCS])),
            (Component::Scheduler, owned(&TUNED)),
        ],
        Tuning::Shipped => [
            (
                Component::ControllerManager,
                owned(&["--kube-api-qps=20", "--kube-api-burst=30", "--concurrent-job-syncs=5"]),
            ),
            (Component::Scheduler, owned(&["--kube-api-qps=50", "--kube-api-burst=100"])),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_as_shipped_have_no_options_and_come_last() {
        for contender in [Contender::Shipped, Contender::AllShipped] {
            assert_eq!((contender.system(), contender.manager_args()), (System::BatchJob, Vec::new()));
        }
        let args = Contender::Workers(16).manager_args();
        assert_eq!(args, ["--write-budget-factor", "10", "--workers", "16"]);
        let all = Contender::all(false, &[16]);
        let is_shipped = |contender: &Contender| contender.tuning() == Tuning::Shipped;
        let first = all.iter().position(is_shipped).unwrap();
        assert!(all[first..].iter().all(is_shipped), "{all:?}");
        let alone = Contender::all(true, &[]);
        assert_eq!(alone, [Contender::Shipped, Contender::Raised, Contender::Job]);
        assert!(all.iter().filter(|contender| contender.is_peer()).count() == 4);
        assert!(!alone.iter().any(|contender| contender.is_peer()));
    }

    #[test]
    fn the_objects_of_contenders_are_told_apart_by_their_names() {
        let ids: Vec<String> =
            Contender::all(false, &[16, 1]).into_iter().map(|of| format!("{}1-", of.id())).collect();
        for (place, id) in ids.iter().enumerate() {
            let mut others = ids.iter().enumerate().filter(|(other, _)| *other != place);
            assert!(others.all(|(_, other)| !other.starts_with(id.as_str())), "{id}: {ids:?}");
        }
    }

    #[test]
    fn each_flag_that_is_tuned_has_its_default_where_it_is_as_shipped() {
        let names = |flags: &[String]| {
            flags.iter().map(|flag| flag.split('=').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for ((one, tuned), (other, shipped)) in flags(Tuning::Tuned).iter().zip(&flags(Tuning::Shipped)) {
            assert_eq!((one, names(tuned)), (other, names(shipped)));
            assert!(tuned.iter().all(|flag| !shipped.contains(flag)));
        }
    }
}
