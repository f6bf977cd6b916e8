//! The page's section on what follows a node, and a queue that is not there.

use std::fmt::Write as _;

use anyhow::Result;
use springtide_e2e::bench::report::quantile;

use crate::follows::{self, Follows};

/// The section.
pub(super) fn section(page: &mut String, follows: &Follows) -> Result<()> {
    let Follows { new_node, uncordoned, on_cordoned, missing_queue } = follows;
    writeln!(page, "\n## What follows a node, and a queue that is not there, in s\n")?;
    writeln!(page, "| from when | until | p50 | longest |\n|---|---|---|---|")?;
    for (from, until, spans) in [
        ("a new node takes pods", "a pod for it appears", &new_node.pod),
        ("a new node takes pods", "that pod is on a node", &new_node.bound),
        ("a cordoned node takes pods again", "a pod for it appears", &uncordoned.pod),
        ("a cordoned node takes pods again", "that pod is on a node", &uncordoned.bound),
        ("a job names a queue that is not there", "it is Stalled: QueueNotFound", missing_queue),
    ] {
        let [p50, longest] = [0.5, 1.0].map(|q| quantile(spans, q));
        writeln!(page, "| {from} | {until} | {p50:.2} | {longest:.2} |")?;
    }
    writeln!(page, "\nPods that were made for the room of a cordoned node: {on_cordoned}.")?;
    Ok(())
}

/// How it was measured.
pub(super) fn method() -> String {
    format!(
        "Nodes: jobs of one pod wait for nodes with room for one pod each. {tries} times the only one is cordoned, its pod ends \
         {} s later, {} s go by in which nothing may start, and it is uncordoned; then {tries} nodes come, one after the \
         other. A node takes pods from when a watch of the bench shows it Ready, not cordoned and without taints, which is \
         when its controllers have taken those off. {tries} jobs name a queue that is not there, one after the other; \
         such a job is Stalled after 3 s, as its queue may come right behind it.",
        follows::FOLLOWED.as_secs(),
        follows::QUIET.as_secs(),
        tries = follows::TRIES,
    )
}
