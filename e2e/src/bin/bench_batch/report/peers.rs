//! The page's paragraphs on the raw limits and on the peers.

use super::Asked;
use crate::comparison::{Sweep, listed};
use crate::kueue::VERSION;

/// How R and R' were found.
pub(super) fn limits(sweep: &Sweep) -> String {
    let which = if sweep.is_whole() { "The whole sweep was run" } else { "A short sweep for trials was run" };
    let median = if sweep.times > 1 { ", of which the median counts" } else { "" };
    let warm_up = Sweep::window(sweep.seconds).warm_up.as_secs();
    format!(
        "R: create, bind, two statuses and delete of a pod of nobody's, led side by side for {} s after a warm-up of \
         {warm_up} s; the highest rate whose lives have a p99 below 1 s, and that again beside watches that are read \
         and not decoded. R': create job, create pod, bind, two pod statuses, status, delete pod, delete job; \
         scheduler and KWOK do their part, the generator the controller's; a life ends when the watch shows both \
         objects gone. {which}: R with {} lives in flight, R' with {}, {} x {} s and {} x {} s each{median}. The best \
         of R' is led for {} s before and after each throughput run, and a share is that of the mean of the two, so \
         that a machine that becomes slower meanwhile is no merit and no fault.",
        sweep.seconds,
        listed(&sweep.bare_in_flight),
        listed(&sweep.in_flight),
        sweep.times,
        sweep.seconds,
        sweep.times,
        sweep.chain_seconds,
        sweep.chain_seconds,
    )
}

/// What ran beside BatchJob.
pub(super) fn peers(asked: &Asked) -> String {
    format!(
        "Peers: Kueue {VERSION} is its own manager beside the control plane, with the CRDs, webhooks and configuration of its \
         module; its webhooks are asked for by their Service, which leads to loopback, with the certificate that it \
         makes. Different from its installation are the addresses that it listens on, that its server for \
         `kubectl get` of pending Workloads is off, and that it acts as an administrator. Jobs name a LocalQueue of a \
         ClusterQueue with as much quota as all nodes have room; they are gone when their Workload is too. Tuned, its \
         client has no rate limit and all its controllers work on 50 objects at once; it runs {} jobs, as ten thousand at its \
         rate would take a quarter of an hour. As shipped, Kubernetes runs with \
         its defaults (20 requests a second for the controller manager, 50 for the scheduler, 5 Jobs at once), and so \
         does Kueue (50 requests a second): {} jobs a run, as these limits, and not their number, set the rate. A \
         few jobs go before each run for which something was started anew. Volcano, a peer as well, has no run here: no \
         goal is a ratio to it, and what its design costs is held by tests of the traps that are known of it.",
        asked.peer_jobs, asked.shipped_jobs
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::report::Measured;
    use clap::Parser;

    #[test]
    fn the_page_says_which_sweep_was_run() {
        let of = |args: &[&str]| {
            let args = ["bench-batch"].iter().chain(args);
            limits(&Measured::new(&Options::parse_from(args)).asked.sweep)
        };
        let whole = of(&[]);
        assert!(whole.contains("The whole sweep was run: R with 1, 32, 128, 256 lives in flight"), "{whole}");
        assert!(whole.contains("3 x 20 s and 3 x 30 s each, of which the median counts."), "{whole}");
        let short = of(&["--short-sweep"]);
        assert!(short.contains("A short sweep for trials was run"), "{short}");
        assert!(short.contains("1 x 8 s and 1 x 16 s each. The best"), "{short}");
    }

    #[test]
    fn the_page_says_how_many_jobs_slow_peers_ran() {
        let options = Options::parse_from(["bench-batch", "--peer-jobs", "1234", "--shipped-jobs", "567"]);
        let said = peers(&Measured::new(&options).asked);
        assert!(said.contains("it runs 1234 jobs,") && said.contains("567 jobs a run"), "{said}");
    }
}
