//! I5: upgrades on a real node among names of equal and of changed content, and with containers that end just before they
//! are changed. It is the tests of U11 and U12 that run them.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::counted::{Count, passed};
use springtide_e2e::node::required_or_skipped;

/// The test program.
const PROGRAM: &str = "upgrade_real_node";
/// Equal digests under other names, digest pins, a tag with other content: U11. A container that ends by itself before the
/// change, and a new generation whose container is still the old one, as kubelet and containerd start again: U12.
pub(crate) const TESTS: [&str; 3] = [
    "names::another_name_of_the_same_content_restarts_each_pod_once_and_the_run_ends",
    "names::a_tag_that_gets_other_content_in_mid_run_is_an_upgrade_that_ends",
    "faults::versions_and_volumes_outlive_restarts_of_kubelet_containerd_and_node",
];

/// What was counted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Names {
    /// Tests, and those of them that have failed.
    pub(crate) ends: Count,
}

/// Runs them, where a real node can run.
pub(crate) async fn measure() -> Result<Option<Names>> {
    if !required_or_skipped().await? {
        return Ok(None);
    }
    Ok(Some(Names { ends: passed("upgrade-names", &[PROGRAM], &TESTS).await? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_e2e::bench::counted::is_test_of;

    #[test]
    fn all_of_them_are_there() {
        assert!(TESTS.iter().all(|test| is_test_of(PROGRAM, test)));
    }
}
