//! Controller managers that come and go beside a running API server.

use std::path::Path;

use anyhow::Result;

use super::LocalCluster;
use super::components::{Component, Layout};
use crate::process::Child;

impl LocalCluster {
    /// Ends the cluster's own controller manager by SIGKILL. From now on service accounts of new namespaces are made by
    /// this library, where no other controller manager is faster.
    pub fn end_controller_manager(&mut self) {
        self.controller_manager = None;
    }

    /// Starts a controller manager by the way of `kubeconfig`, with `args` after all others: the last one counts. It is the
    /// caller's, who sees to it that there is one at a time, and drops it before the cluster.
    ///
    /// # Errors
    /// It does not start.
    pub fn controller_manager_through(&self, kubeconfig: &Path, args: &[&str]) -> Result<Child> {
        let way = format!("--kubeconfig={}", kubeconfig.display());
        let args = std::iter::once(way).chain(args.iter().map(|arg| (*arg).to_owned())).collect();
        let mut extra_args = self.extra_args.clone();
        extra_args.push((Component::ControllerManager, args));
        let layout = Layout { extra_args: &extra_args, ..self.layout() };
        layout.command(Component::ControllerManager)?.spawn()
    }
}
