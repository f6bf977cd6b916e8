//! A case: which write, where on its way, and who goes on.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// Environment variable that names the one case to run, as [`Case`] is written.
pub const CASE_VARIABLE: &str = "SPRINGTIDE_CRASH_CASE";

/// Where on the way of a write its sender crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Nothing of it has left.
    BeforeSend,
    /// It is stored, and the sender does not know.
    Committed,
    /// The sender has the reply, and sends nothing more.
    AfterReply,
}

impl Point {
    /// All of them, in the order of a write's way.
    pub const ALL: [Self; 3] = [Self::BeforeSend, Self::Committed, Self::AfterReply];

    fn name(self) -> &'static str {
        match self {
            Self::BeforeSend => "before-send",
            Self::Committed => "committed",
            Self::AfterReply => "after-reply",
        }
    }
}

/// Who goes on, and how the first one ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The manager is dropped in its process; an empty one starts.
    Restart,
    /// The manager is dropped in its process; one that was ready takes the lease over.
    Failover,
    /// SIGKILL of a manager's own process; an empty one starts.
    Sigkill,
}

impl Recovery {
    const ALL: [Self; 3] = [Self::Restart, Self::Failover, Self::Sigkill];

    fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Failover => "failover",
            Self::Sigkill => "sigkill",
        }
    }
}

/// One crash. It is written `scenario:write:point:recovery`, such as `indexed:7:committed:restart`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Name of the scenario.
    pub scenario: String,
    /// Number of the manager's write in the scenario's namespace, from 1.
    pub write: u64,
    /// Where on its way.
    pub point: Point,
    /// Who goes on.
    pub recovery: Recovery,
}

impl Case {
    /// All cases of a scenario of so many writes: each point of each write, once with a restart and once with
    /// a standby. Every tenth case is a SIGKILL.
    #[must_use]
    pub fn all(scenario: &str, writes: u64) -> Vec<Self> {
        let mut cases = Vec::new();
        for write in 1..=writes {
            for point in Point::ALL {
                for recovery in [Recovery::Restart, Recovery::Failover] {
                    let recovery = if cases.len() % 10 == 0 { Recovery::Sigkill } else { recovery };
                    cases.push(Self { scenario: scenario.to_owned(), write, point, recovery });
                }
            }
        }
        cases
    }

    /// `count` of all cases, spread evenly over them.
    #[must_use]
    pub fn sample(scenario: &str, writes: u64, count: usize) -> Vec<Self> {
        let all = Self::all(scenario, writes);
        let places = (0..count.min(all.len())).map(|number| (2 * number + 1) * all.len() / (2 * count));
        places.filter_map(|place| all.get(place).cloned()).collect()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, write, point, recovery } = self;
        write!(f, "{scenario}:{write}:{}:{}", point.name(), recovery.name())
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split(':').collect();
        let [scenario, write, point, recovery] = parts.as_slice() else {
            bail!("{text:?} is no case: it must be scenario:write:point:recovery");
        };
        Ok(Self {
            scenario: (*scenario).to_owned(),
            write: write.parse().with_context(|| format!("{write:?} is no number of a write"))?,
            point: Point::ALL
                .into_iter()
                .find(|found| found.name() == *point)
                .with_context(|| format!("{point:?} is none of before-send, committed, after-reply"))?,
            recovery: Recovery::ALL
                .into_iter()
                .find(|found| found.name() == *recovery)
                .with_context(|| format!("{recovery:?} is none of restart, failover, sigkill"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_has_every_point_and_a_case_reads_as_it_is_written() {
        let all = Case::all("indexed", 20);
        assert_eq!(all.len(), 20 * 3 * 2);
        for case in &all {
            assert_eq!(&case.to_string().parse::<Case>().unwrap(), case);
        }
        let killed = all.iter().filter(|case| case.recovery == Recovery::Sigkill).count();
        assert_eq!(killed, 12);
        assert!("indexed:1:committed".parse::<Case>().is_err());
        assert!("indexed:1:later:restart".parse::<Case>().is_err());
    }

    #[test]
    fn a_sample_is_spread_over_all_writes() {
        let sample = Case::sample("single", 5, 3);
        assert_eq!(sample.iter().map(|case| case.write).collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!(Case::sample("single", 1, 100).len(), 6);
    }
}
