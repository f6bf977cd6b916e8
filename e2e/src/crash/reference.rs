//! What scenarios come to without a crash.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;

use super::facts::Facts;
use super::lane::{Ended, Lane};
use super::write_id::{Course, WriteId};
use super::writes_made::WritesMade;
use super::{Scenario, World};

/// What a scenario comes to without a crash.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Writes of the manager in the namespace, in the order of the first run; of several runs those that more
    /// than one has.
    pub writes: Vec<WriteId>,
    /// Writes that were under way at the same time, in every run.
    pub stages: Vec<Vec<WriteId>>,
    /// Writes that only one of several runs has, which are no cases.
    pub left_out: Vec<WriteId>,
    pub(super) facts: Facts,
    /// The most of all runs.
    pub(super) writes_made: WritesMade,
}

impl Reference {
    /// Of writes and stages those that every run has: what is done to objects, the status that stays, and what
    /// one plan creates at once.
    #[must_use]
    pub fn certain(&self) -> (Vec<WriteId>, Vec<Vec<WriteId>>) {
        let last = self.writes.iter().rfind(|write| write.is_status());
        let last = last.filter(|write| self.facts.say(write.says()));
        let writes = self.writes.iter().filter(|write| write.is_deed() || Some(*write) == last);
        let stages = self.stages.iter().filter(|stage| stage.iter().all(WriteId::is_create));
        (writes.cloned().collect(), stages.cloned().collect())
    }
}

impl Lane {
    /// Plays scenarios without a crash, side by side and as often as `watched` has entries; each time no
    /// write may come for so long once all is at rest.
    ///
    /// # Errors
    /// No manager starts or ends, or a namespace is not made or not emptied. For each scenario: it does not come to its end, the oracles say
    /// something against it, or two runs of it come to different facts.
    pub async fn references<S: Scenario>(
        &self,
        scenarios: &[&S],
        watched: &[Duration],
    ) -> Result<Vec<Result<Reference>>> {
        let mut runs: Vec<Vec<Result<Ended>>> = scenarios.iter().map(|_| Vec::new()).collect();
        for watched in watched {
            self.begin();
            let before = self.panics();
            let manager = self.manager(0).await?;
            let ends = join_all(scenarios.iter().map(|scenario| self.undisturbed(*scenario, *watched))).await;
            manager.crash().await?;
            let panicked = self.panics() - before;
            ensure!(panicked == 0, "{panicked} panics without a crash");
            for (runs, ended) in runs.iter_mut().zip(ends) {
                runs.push(ended?);
            }
        }
        Ok(runs.into_iter().map(merged).collect())
    }

    /// The outer error is that of what cannot be made or removed.
    async fn undisturbed<S: Scenario>(&self, scenario: &S, watched: Duration) -> Result<Result<Ended>> {
        let mark = self.mark()?;
        let world = scenario.open(self.cluster()).await?;
        let ended = async {
            scenario.play(&world).await?;
            self.rest(&world, std::time::Instant::now()).await?;
            let ended = self.judge(&world, mark, watched, 0).await?;
            ensure!(ended.wrong.is_empty(), "{}", ended.wrong.join("\n"));
            Ok(ended)
        };
        let ended = ended.await;
        world.clear().await.with_context(|| format!("after {} without a crash", scenario.name()))?;
        Ok(ended)
    }
}

/// Several runs of one scenario.
fn merged(runs: Vec<Result<Ended>>) -> Result<Reference> {
    let mut runs = runs.into_iter();
    let first = runs.next().context("at least one run")??;
    let (mut courses, mut writes_made) = (vec![first.course], first.writes);
    for run in runs {
        let run = run?;
        let differences: BTreeSet<_> = first.facts.differences(&run.facts).into_values().collect();
        if !differences.is_empty() {
            let lines: Vec<_> = differences.into_iter().collect();
            bail!("two runs come to different facts:\n{}", lines.join("\n"));
        }
        writes_made = writes_made.most(&run.writes);
        courses.push(run.course);
    }
    let Course { writes, stages } = Course::common(&courses);
    let every: BTreeSet<_> = courses.into_iter().flat_map(|course| course.writes).collect();
    let left_out = every.into_iter().filter(|write| !writes.contains(write)).collect();
    Ok(Reference { writes, stages, left_out, facts: first.facts, writes_made })
}
