//! A case: which write, where on its way, and who goes on.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use super::write_id::WriteId;

/// Environment variable that names the one case to run, as [`Case`] is written.
pub const CASE_VARIABLE: &str = "SPRINGTIDE_CRASH_CASE";

/// Its value for each write of every scenario once: points and recoveries take turns.
pub const EACH_WRITE: &str = "each-write";

/// Where on the way of a write its sender crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Nothing of it has left.
    BeforeSend,
    /// It is stored, and the sender does not know.
    Committed,
    /// The sender has the reply, and sends nothing more.
    AfterReply,
    /// The writes are under way at the same time: some of them are stored, the others have not left, and the
    /// sender knows of none.
    Stage(Subset),
}

/// Which ones are stored of the writes that are under way at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subset {
    /// How many, at least 2 and at most [`Subset::SIZE_MAX`].
    size: usize,
    /// Which of them are stored: bit i is the i-th of the case's writes.
    committed: u64,
}

impl Subset {
    /// The most writes of one stage that are told apart.
    const SIZE_MAX: usize = 32;
    /// Up to this size every subset is a case; beyond it none, each, and all but each.
    const EXHAUSTIVE: usize = 3;

    /// Whether the i-th is stored.
    #[must_use]
    pub fn is_committed(self, number: usize) -> bool {
        self.committed >> number & 1 == 1
    }

    /// The subsets of a stage that are tried.
    fn all(size: usize) -> Vec<Self> {
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

    /// How many writes a case of it has.
    fn size(self) -> usize {
        match self {
            Self::BeforeSend | Self::Committed | Self::AfterReply => 1,
            Self::Stage(subset) => subset.size,
        }
    }
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
            let size = bits.len();
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
    /// As a restart, but the one that goes on is dropped as well, once its own first write is stored and
    /// before it knows; a third one goes on.
    Twice,
}

impl Recovery {
    const ALL: [Self; 4] = [Self::Restart, Self::Failover, Self::Sigkill, Self::Twice];

    fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Failover => "failover",
            Self::Sigkill => "sigkill",
            Self::Twice => "twice",
        }
    }
}

/// One crash. It is written `scenario:write:point:recovery`, such as
/// `indexed:create/pods/job-0-0:committed:restart`, or with the writes of a stage, here with the first one
/// stored, `indexed:create/pods/job-0-0+create/pods/job-1-0:stage-10:failover`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Name of the scenario.
    pub scenario: String,
    /// The write; of a stage all of them.
    pub writes: Vec<WriteId>,
    /// Where on its way.
    pub point: Point,
    /// Who goes on.
    pub recovery: Recovery,
}

impl Case {
    /// All cases of a scenario of these writes and stages: each point of each write, and each subset of each
    /// stage; once with a restart and once with a standby. Every tenth of them is a SIGKILL. Each write is
    /// stored once more before a manager crashes twice.
    #[must_use]
    pub fn all(scenario: &str, writes: &[WriteId], stages: &[Vec<WriteId>]) -> Vec<Self> {
        let single = |write: &WriteId| Point::SINGLE.map(|point| (vec![write.clone()], point));
        let subsets = stages.iter().flat_map(|stage| {
            let stage = &stage[..stage.len().min(Subset::SIZE_MAX)];
            Subset::all(stage.len()).into_iter().map(|subset| (stage.to_vec(), Point::Stage(subset)))
        });
        let mut cases = Vec::new();
        let mut add = |writes, point, recovery| {
            cases.push(Self { scenario: scenario.to_owned(), writes, point, recovery });
        };
        for (number, (writes, point)) in writes.iter().flat_map(single).chain(subsets).enumerate() {
            let first = if number % 5 == 0 { Recovery::Sigkill } else { Recovery::Restart };
            add(writes.clone(), point, first);
            add(writes, point, Recovery::Failover);
        }
        for write in writes {
            add(vec![write.clone()], Point::Committed, Recovery::Twice);
        }
        cases
    }
}

impl Case {
    /// One case of each of these writes of a scenario: points take turns, and so do a restart and a standby; every tenth is a
    /// SIGKILL.
    #[must_use]
    pub fn each(scenario: &str, writes: &[WriteId]) -> Vec<Self> {
        let case = |(number, write): (usize, &WriteId)| {
            // As many of each recovery at each point.
            let recovery = match number {
                number if number.is_multiple_of(10) => Recovery::Sigkill,
                number if (number / Point::SINGLE.len()).is_multiple_of(2) => Recovery::Restart,
                _ => Recovery::Failover,
            };
            let point = Point::SINGLE[number % Point::SINGLE.len()];
            Self { scenario: scenario.to_owned(), writes: vec![write.clone()], point, recovery }
        };
        writes.iter().enumerate().map(case).collect()
    }

    /// Whether each of its writes does something, so that every run has it: statuses and events can be more or
    /// fewer.
    #[must_use]
    pub fn is_deed(&self) -> bool {
        self.writes.iter().all(WriteId::is_deed)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, writes, point, recovery } = self;
        let writes: Vec<_> = writes.iter().map(WriteId::to_string).collect();
        write!(f, "{scenario}:{}:{point}:{}", writes.join("+"), recovery.name())
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split(':').collect();
        let [scenario, writes, point, recovery] = parts.as_slice() else {
            bail!("{text:?} is no case: it must be scenario:write:point:recovery");
        };
        let case = Self {
            scenario: (*scenario).to_owned(),
            writes: writes.split('+').map(str::parse).collect::<Result<_>>()?,
            point: point.parse()?,
            recovery: Recovery::ALL
                .into_iter()
                .find(|found| found.name() == *recovery)
                .with_context(|| format!("{recovery:?} is none of restart, failover, sigkill, twice"))?,
        };
        let size = case.point.size();
        ensure!(case.writes.len() == size, "{text:?} must name as many writes as {point} has, {size}");
        Ok(case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(count: u32) -> Vec<WriteId> {
        (0..count).map(|number| format!("create/pods/job-{number}-0").parse().unwrap()).collect()
    }

    #[test]
    fn every_write_has_every_point_and_a_case_reads_as_it_is_written() {
        let writes = writes(20);
        let stages = [writes[..2].to_vec(), writes[5..8].to_vec(), writes[9..13].to_vec()];
        let all = Case::all("indexed", &writes, &stages);
        let subsets = 4 + 8 + (2 + 4 + 4);
        let disturbed = (20 * 3 + subsets) * 2;
        assert_eq!(all.len(), disturbed + 20);
        for case in &all {
            assert_eq!(&case.to_string().parse::<Case>().unwrap(), case);
        }
        let count = |recovery| all.iter().filter(|case| case.recovery == recovery).count();
        assert_eq!(count(Recovery::Sigkill), disturbed.div_ceil(10));
        assert_eq!((count(Recovery::Failover), count(Recovery::Twice)), (disturbed / 2, 20));
        for wrong in [
            "indexed:create/pods/a:committed",
            "indexed:create/pods/a:later:restart",
            "indexed:create/pods/a+create/pods/b:stage-1:restart",
            "indexed:create/pods/a:stage-10:restart",
            "a:b:c:d",
        ] {
            assert!(wrong.parse::<Case>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_write_once_has_all_points_and_recoveries_in_turns() {
        let writes = writes(60);
        let each = Case::each("indexed", &writes);
        assert!(each.iter().zip(&writes).all(|(case, write)| case.writes == [write.clone()]));
        let count = |is: &dyn Fn(&Case) -> bool| each.iter().filter(|case| is(case)).count();
        for point in Point::SINGLE {
            assert_eq!(count(&|case| case.point == point), 20);
            for recovery in [Recovery::Restart, Recovery::Failover, Recovery::Sigkill] {
                assert!(
                    count(&|case| case.point == point && case.recovery == recovery) > 0,
                    "{point} {recovery:?}"
                );
            }
        }
        assert_eq!(count(&|case| case.recovery == Recovery::Sigkill), 6);
    }

    #[test]
    fn a_bit_of_a_stage_says_whether_its_write_is_stored() {
        let case: Case = "a:create/pods/a+create/pods/b+create/pods/c:stage-100:restart".parse().unwrap();
        let Point::Stage(stage) = case.point else { panic!("{case:?}") };
        let committed: Vec<_> = (0..stage.size).map(|number| stage.is_committed(number)).collect();
        assert_eq!(committed, [true, false, false]);
        let four: Vec<_> = Subset::all(4).into_iter().map(|stage| Point::Stage(stage).to_string()).collect();
        assert!(
            four.contains(&"stage-1011".to_owned()) && !four.contains(&"stage-1010".to_owned()),
            "{four:?}"
        );
    }
}
