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
    /// This write and those behind it are under way at the same time: some of them are stored, the others
    /// have not left, and the sender knows of none.
    Stage(Subset),
}

/// Which ones are stored of the writes that are under way at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subset {
    /// How many, at least 2 and at most [`Subset::SIZE_MAX`].
    pub size: u32,
    /// Which of them are stored: bit i is the i-th that arrives.
    pub committed: u64,
}

impl Subset {
    /// The most writes of one stage that are told apart.
    pub const SIZE_MAX: u32 = 32;
    /// Up to this size every subset is a case; beyond it none, each, and all but each.
    const EXHAUSTIVE: u32 = 3;

    /// Whether the i-th that arrives is stored.
    #[must_use]
    pub fn is_committed(self, number: u32) -> bool {
        self.committed >> number & 1 == 1
    }

    /// The subsets of a stage that are tried.
    fn all(size: u32) -> Vec<Self> {
        let size = size.min(Self::SIZE_MAX);
        let whole = (1_u64 << size) - 1;
        let subsets: Vec<u64> = if size <= Self::EXHAUSTIVE {
            (0..=whole).collect()
        } else {
            let each = (0..size).map(|number| 1 << number);
            let but_each = (0..size).map(|number| whole & !(1 << number));
            [0, whole].into_iter().chain(each).chain(but_each).collect()
        };
        subsets.into_iter().map(|committed| Self { size, committed }).collect()
    }
}

impl Point {
    /// Those of a single write, in the order of its way.
    pub const SINGLE: [Self; 3] = [Self::BeforeSend, Self::Committed, Self::AfterReply];
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeforeSend => f.write_str("before-send"),
            Self::Committed => f.write_str("committed"),
            Self::AfterReply => f.write_str("after-reply"),
            Self::Stage(stage) => {
                f.write_str("stage-")?;
                (0..stage.size).try_for_each(|number| write!(f, "{}", u32::from(stage.is_committed(number))))
            }
        }
    }
}

impl FromStr for Point {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(bits) = text.strip_prefix("stage-") {
            let size = u32::try_from(bits.len())?;
            let set = |(number, bit)| u64::from(bit == '1') << number;
            if (2..=Subset::SIZE_MAX).contains(&size) && bits.chars().all(|bit| matches!(bit, '0' | '1')) {
                let committed = bits.chars().enumerate().map(set).sum();
                return Ok(Self::Stage(Subset { size, committed }));
            }
        }
        let found = Self::SINGLE.into_iter().find(|point| point.to_string() == text);
        found.with_context(|| format!("{text:?} is none of before-send, committed, after-reply, stage-01…"))
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

/// One crash. It is written `scenario:write:point:recovery`, such as `indexed:7:committed:restart`, or
/// `indexed:1:stage-10:failover` where of the writes 1 and 2 the first one to arrive is stored.
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
    /// All cases of a scenario of so many writes, of which those of each stage (first one and size) are under
    /// way at the same time: each point of each write, and each subset of each stage; once with a restart and
    /// once with a standby. Every tenth case is a SIGKILL.
    #[must_use]
    pub fn all(scenario: &str, writes: u64, stages: &[(u64, u32)]) -> Vec<Self> {
        let single = (1..=writes).flat_map(|write| Point::SINGLE.map(|point| (write, point)));
        let subsets = stages.iter().flat_map(|(first, size)| {
            Subset::all(*size).into_iter().map(|stage| (*first, Point::Stage(stage)))
        });
        let mut cases = Vec::new();
        for (write, point) in single.chain(subsets) {
            for recovery in [Recovery::Restart, Recovery::Failover] {
                let recovery = if cases.len() % 10 == 0 { Recovery::Sigkill } else { recovery };
                cases.push(Self { scenario: scenario.to_owned(), write, point, recovery });
            }
        }
        cases
    }

    /// `count` of all cases, spread evenly over them.
    #[must_use]
    pub fn sample(scenario: &str, writes: u64, stages: &[(u64, u32)], count: usize) -> Vec<Self> {
        let all = Self::all(scenario, writes, stages);
        let places = (0..count.min(all.len())).map(|number| (2 * number + 1) * all.len() / (2 * count));
        places.filter_map(|place| all.get(place).cloned()).collect()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, write, point, recovery } = self;
        write!(f, "{scenario}:{write}:{point}:{}", recovery.name())
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
            point: point.parse()?,
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
        let all = Case::all("indexed", 20, &[(1, 2), (5, 3), (9, 4)]);
        let subsets = 4 + 8 + (2 + 4 + 4);
        assert_eq!(all.len(), (20 * 3 + subsets) * 2);
        for case in &all {
            assert_eq!(&case.to_string().parse::<Case>().unwrap(), case);
        }
        let killed = all.iter().filter(|case| case.recovery == Recovery::Sigkill).count();
        assert_eq!(killed, all.len().div_ceil(10));
        for wrong in
            ["indexed:1:committed", "indexed:1:later:restart", "indexed:1:stage-1:restart", "a:b:c:d"]
        {
            assert!(wrong.parse::<Case>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_bit_of_a_stage_is_the_first_write_to_arrive() {
        let case: Case = "indexed:4:stage-100:restart".parse().unwrap();
        let Point::Stage(stage) = case.point else { panic!("{case:?}") };
        let committed: Vec<_> = (0..stage.size).map(|number| stage.is_committed(number)).collect();
        assert_eq!(committed, [true, false, false]);
        let four: Vec<_> = Subset::all(4).into_iter().map(|stage| Point::Stage(stage).to_string()).collect();
        assert!(
            four.contains(&"stage-1011".to_owned()) && !four.contains(&"stage-1010".to_owned()),
            "{four:?}"
        );
    }

    #[test]
    fn a_sample_is_spread_over_all_writes() {
        let sample = Case::sample("single", 5, &[], 3);
        assert_eq!(sample.iter().map(|case| case.write).collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!(Case::sample("single", 1, &[], 100).len(), 6);
    }
}
