//! Which processes the runs have.

use springtide_e2e::bench::processes::{BENCH, KWOK};
use springtide_e2e::manager::Manager;
use springtide_e2e::process::Child;

pub(crate) use springtide_e2e::bench::processes::{MANAGER, Meter, Spent};

use crate::kueue::Kueue;

/// Names of the processes in reports, in their order.
pub(crate) const NAMES: [&str; 8] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", KWOK, MANAGER, KUEUE, BENCH];
/// Kueue's among them.
pub(crate) const KUEUE: &str = "kueue";

/// The process of a batch system beside the control plane.
#[derive(Clone, Copy)]
pub(crate) enum Beside<'a> {
    /// The system is a part of the control plane.
    Nobody,
    /// Ours.
    Manager(&'a Manager),
    /// Kueue's.
    Kueue(&'a Kueue),
}

impl<'a> Beside<'a> {
    /// The manager, if it is ours.
    pub(crate) fn manager(self) -> Option<&'a Manager> {
        match self {
            Self::Manager(manager) => Some(manager),
            Self::Nobody | Self::Kueue(_) => None,
        }
    }

    /// The process, if there is one, with its name.
    pub(crate) fn process(self) -> Option<(&'static str, &'a Child)> {
        match self {
            Self::Nobody => None,
            Self::Manager(manager) => Some((MANAGER, manager.child())),
            Self::Kueue(kueue) => Some((KUEUE, kueue.child())),
        }
    }
}
