//! What scenarios come to without a crash.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;

use super::facts::Facts;
use super::in_process::{InProcess, panics};
use super::lane::{Ended, Lane};
use super::write_id::{Course, WriteId};
use super::writes_made::WritesMade;
use super::{Scenario, World};

/// What a scenario comes to without a crash.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Writes of the manager in the namespace, in their order; those of a second run that the first did not
    /// have come last.
    pub writes: Vec<WriteId>,
    /// Writes that were under way at the same time, in every run.
    pub stages: Vec<Vec<WriteId>>,
    pub(super) facts: Facts,
    /// The most of all runs.
    pub(super) writes_made: WritesMade,
}

impl Lane {
    /// Plays scenarios without a crash, side by side and as often as `watched` has entries; each time no
    /// write may come for so long once all is at rest.
    ///
    /// # Errors
    /// No manager starts, or one does not end. For each scenario: it does not come to its end, the oracles say
    /// something against it, or two runs of it come to different facts.
    pub async fn references<S: Scenario>(
        &self,
        scenarios: &[S],
        watched: &[Duration],
    ) -> Result<Vec<Result<Reference>>> {
        let mut runs: Vec<Vec<Result<Ended>>> = scenarios.iter().map(|_| Vec::new()).collect();
        for watched in watched {
            self.begin();
            let before = panics();
            let manager = InProcess::start(self.first(), &["--no-leader-election"]).await?;
            let ends = join_all(scenarios.iter().map(|scenario| self.undisturbed(scenario, *watched))).await;
            manager.crash().await?;
            let panicked = panics() - before;
            ensure!(panicked == 0, "{panicked} panics without a crash");
            runs.iter_mut().zip(ends).for_each(|(runs, ended)| runs.push(ended));
        }
        Ok(runs.into_iter().map(merged).collect())
    }

    async fn undisturbed<S: Scenario>(&self, scenario: &S, watched: Duration) -> Result<Ended> {
        let mark = self.mark()?;
        let world = scenario.open(self.cluster()).await?;
        scenario.play(&world).await?;
        self.rest(&world, std::time::Instant::now()).await?;
        let ended = self.judge(&world, mark, watched).await?;
        world.clear().await?;
        ensure!(ended.wrong.is_empty(), "{}", ended.wrong.join("\n"));
        Ok(ended)
    }
}

/// Several runs of one scenario.
fn merged(runs: Vec<Result<Ended>>) -> Result<Reference> {
    let mut runs = runs.into_iter();
    let first = runs.next().context("at least one run")??;
    let (mut course, mut writes_made) = (first.course, first.writes);
    for run in runs {
        let run = run?;
        let differences: BTreeSet<_> = first.facts.differences(&run.facts).into_values().collect();
        if !differences.is_empty() {
            let lines: Vec<_> = differences.into_iter().collect();
            bail!("two runs come to different facts:\n{}", lines.join("\n"));
        }
        writes_made = writes_made.most(&run.writes);
        course = Course::merged(course, &run.course);
    }
    Ok(Reference { writes: course.writes, stages: course.stages, facts: first.facts, writes_made })
}
