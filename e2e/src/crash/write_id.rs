//! Which write: named by what it does, so that it is found again in a run whose writes come in another order
//! or in another number.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::fault_proxy::{Class, Entry};
use crate::upgrade::PULLER_PREFIX;
use crate::write_count::{Request, Verb};

/// Their names are made of random numbers, ...
const EVENTS: &str = "events";
/// ... and so is a part of these: digits of their job's UID.
const POD_GROUPS: &str = "podgroups";
/// The letters that the API server takes for the end of a name that it makes, and how many of them
/// (k8s.io/apimachinery/pkg/util/rand, k8s.io/apiserver/pkg/storage/names).
const RANDOM_LETTERS: &str = "bcdfghjklmnpqrstvwxz2456789";
const RANDOM_LENGTH: usize = 5;
/// In place of a name that a random number is part of.
const ANY_NAME: &str = "*";

/// One write of a manager in a scenario. It is written `verb/resource/name=says#occurrence`, such as
/// `create/pods/job-0-0`, `patch/batchjobs/status/job=Running#2` or `create/events/*=Completed`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId {
    verb: Verb,
    /// With its subresource.
    resource: String,
    /// Empty where names differ between runs.
    name: String,
    /// [`Request::says`].
    says: String,
    /// Which one of those that are alike otherwise, from 1.
    occurrence: u64,
}

impl WriteId {
    /// Names requests, given in the order of their arrival.
    pub(super) fn of_all<'a>(requests: impl Iterator<Item = &'a Request>) -> Vec<Self> {
        let mut occurrences: BTreeMap<Self, u64> = BTreeMap::new();
        let named = requests.map(|request| {
            let is_random = [EVENTS, POD_GROUPS].contains(&request.resource.as_str())
                || (is_of_pod(&request.resource) && is_made_up(&request.name));
            let alike = Self {
                verb: request.verb,
                resource: request.resource.clone(),
                name: if is_random { String::new() } else { request.name.clone() },
                says: request.says.clone(),
                occurrence: 0,
            };
            let count = occurrences.entry(alike.clone()).or_default();
            *count += 1;
            Self { occurrence: *count, ..alike }
        });
        named.collect()
    }

    /// Whether it is a status.
    pub(super) fn is_status(&self) -> bool {
        is_status(&self.resource)
    }

    /// Whether it is neither a status nor an event, of which there are more or fewer by the pace of changes.
    pub(super) fn is_deed(&self) -> bool {
        !self.is_status() && self.resource != EVENTS
    }

    /// What it tells users.
    pub(super) fn says(&self) -> &str {
        &self.says
    }

    /// Whether it makes an object.
    pub(super) fn is_create(&self) -> bool {
        self.verb == Verb::Create
    }

    /// Which one of those of [`WriteId::narrow`].
    pub(super) fn occurrence(&self) -> u64 {
        self.occurrence
    }

    /// Those of a class that are like this one but for their occurrence.
    pub(super) fn narrow(&self, class: Class) -> Class {
        let class = class.verb(self.verb).resource(&self.resource).says(&self.says);
        if self.name.is_empty() { class } else { class.name(&self.name) }
    }
}

/// Whether a resource is the status of a kind of ours, which tells what was done; that of a pod does something.
pub(super) fn is_status(resource: &str) -> bool {
    resource.ends_with("/status") && !is_of_pod(resource)
}

fn is_of_pod(resource: &str) -> bool {
    resource == "pods" || resource.starts_with("pods/")
}

/// Whether the API server has made the end of a pod's name, or it follows from the node that the scheduler has chosen.
fn is_made_up(name: &str) -> bool {
    if name.starts_with(PULLER_PREFIX) {
        return true;
    }
    let end = name.rsplit_once('-').map_or("", |(_, end)| end);
    end.len() == RANDOM_LENGTH && end.chars().all(|letter| RANDOM_LETTERS.contains(letter))
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, resource, name, says, occurrence } = self;
        let name = if name.is_empty() { ANY_NAME } else { name };
        write!(f, "{}/{resource}/{name}", verb.name())?;
        if !says.is_empty() {
            write!(f, "={says}")?;
        }
        if *occurrence > 1 {
            write!(f, "#{occurrence}")?;
        }
        Ok(())
    }
}

impl FromStr for WriteId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || format!("{text:?} is no write: it must be verb/resource/name=says#occurrence");
        let (what, occurrence) = text.split_once('#').unwrap_or((text, "1"));
        let (what, says) = what.split_once('=').unwrap_or((what, ""));
        let (verb, what) = what.split_once('/').with_context(wrong)?;
        let (resource, name) = what.rsplit_once('/').with_context(wrong)?;
        let occurrence = occurrence.parse().with_context(wrong)?;
        ensure!(occurrence > 0 && !resource.is_empty() && !name.is_empty(), wrong());
        Ok(Self {
            verb: Verb::WRITES.into_iter().find(|known| known.name() == verb).with_context(wrong)?,
            resource: resource.to_owned(),
            name: if name == ANY_NAME { String::new() } else { name.to_owned() },
            says: says.to_owned(),
            occurrence,
        })
    }
}

/// The writes of a run, and those that were under way at the same time.
#[derive(Debug, Clone, Default)]
pub(super) struct Course {
    /// In the order of their arrival.
    pub writes: Vec<WriteId>,
    /// Groups of two and more.
    pub stages: Vec<Vec<WriteId>>,
}

impl Course {
    /// Of the writes in the journal, in its order. Those that were refused changed nothing, and come or not by
    /// who is faster.
    pub(super) fn of(writes: &[&Entry]) -> Self {
        let writes: Vec<_> = writes.iter().filter(|entry| entry.stored()).collect();
        let times: Vec<_> = writes.iter().map(|entry| (entry.at, entry.ended.unwrap_or(entry.at))).collect();
        let writes = WriteId::of_all(writes.iter().map(|entry| &entry.request));
        let stages = stages(&times).into_iter().filter_map(|range| writes.get(range).map(<[_]>::to_vec));
        Self { stages: stages.collect(), writes }
    }

    /// The writes that more than one of several courses has, and the stages of all: what one alone has will
    /// rarely be so again.
    pub(super) fn common(courses: &[Self]) -> Self {
        let mut counted: BTreeMap<&WriteId, usize> = BTreeMap::new();
        courses
            .iter()
            .flat_map(|course| &course.writes)
            .for_each(|write| *counted.entry(write).or_default() += 1);
        let mut writes: Vec<WriteId> = Vec::new();
        for write in courses.iter().flat_map(|course| &course.writes) {
            let is_common = counted.get(write).is_some_and(|count| *count >= courses.len().min(2));
            if is_common && !writes.contains(write) {
                writes.push(write.clone());
            }
        }
        let mut stages = courses.first().map(|course| course.stages.clone()).unwrap_or_default();
        for other in courses.iter().skip(1) {
            let shared = stages.iter().flat_map(|stage| {
                let shared = other.stages.iter().map(|other| {
                    stage.iter().filter(|write| other.contains(write)).cloned().collect::<Vec<_>>()
                });
                shared.filter(|stage| stage.len() > 1)
            });
            stages = shared.collect();
        }
        Self { writes, stages }
    }
}

/// Groups writes, given by beginning and end in the order of their beginnings, of which each one was under
/// way when the last one of its group began.
fn stages(writes: &[(Instant, Instant)]) -> Vec<std::ops::Range<usize>> {
    let mut stages = Vec::new();
    let (mut first, mut first_end) = (0, None::<Instant>);
    for (number, (at, ended)) in writes.iter().enumerate() {
        match first_end {
            Some(earliest) if *at < earliest => first_end = Some(earliest.min(*ended)),
            Some(_) | None => {
                stages.push(first..number);
                (first, first_end) = (number, Some(*ended));
            }
        }
    }
    stages.push(first..writes.len());
    stages.into_iter().filter(|stage| stage.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn writes_that_were_all_under_way_at_once_are_a_stage() {
        let start = Instant::now();
        let at = |(from, to): &(u64, u64)| {
            (start + Duration::from_millis(*from), start + Duration::from_millis(*to))
        };
        let of = |writes: &[(u64, u64)]| stages(&writes.iter().map(at).collect::<Vec<_>>());
        assert!(of(&[]).is_empty());
        assert!(of(&[(0, 5), (6, 9)]).is_empty());
        assert_eq!(of(&[(0, 5), (1, 9), (6, 12), (7, 8), (20, 21)]), [0..2, 2..4]);
        assert_eq!(of(&[(0, 1), (2, 9), (3, 8), (4, 7)]), std::slice::from_ref(&(1..4)));
    }

    #[test]
    fn a_write_reads_as_it_is_written() {
        for text in [
            "create/pods/job-0-0",
            "delete/pods/job-0-0#2",
            "patch/batchjobs/status/job=Running#3",
            "create/events/*=PodFailed",
            "create/podgroups/*",
        ] {
            assert_eq!(text.parse::<WriteId>().unwrap().to_string(), text);
        }
        for wrong in
            ["create", "create/pods", "get/pods/a", "create/pods/a#0", "create//a", "create/pods/a#x"]
        {
            assert!(wrong.parse::<WriteId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pod_whose_name_the_server_makes_is_any_of_its_kind() {
        let request = |resource: &str, name: &str| Request {
            user: String::new(),
            user_agent: String::new(),
            verb: Verb::Patch,
            group: String::new(),
            resource: resource.to_owned(),
            namespace: "a".to_owned(),
            name: name.to_owned(),
            code: 200,
            dry_run: false,
            query: String::new(),
            received: None,
            says: String::new(),
        };
        let requests = [
            request("pods/status", "web-7c9f21ab04-x2bqz"),
            request("pods/status", "web-7c9f21ab04-zzzzz"),
            request("pods", "db-0"),
            request("replicasets", "web-x2bqz"),
            request("pods", "job-0-worke"),
            request("pods", "ipu-pull-7c9f21ab04de-0a1b"),
        ];
        let named: Vec<_> = WriteId::of_all(requests.iter()).iter().map(WriteId::to_string).collect();
        assert_eq!(
            named,
            [
                "patch/pods/status/*",
                "patch/pods/status/*#2",
                "patch/pods/db-0",
                "patch/replicasets/web-x2bqz",
                "patch/pods/job-0-worke",
                "patch/pods/*",
            ]
        );
        assert!(WriteId::of_all(requests.iter()).iter().all(WriteId::is_deed));
    }

    fn course(writes: &[&str], stages: &[&[&str]]) -> Course {
        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        Course { writes: parsed(writes), stages: stages.iter().map(|stage| parsed(stage)).collect() }
    }

    #[test]
    fn several_courses_give_what_is_no_accident() {
        let (a, b, c, d) = ("create/pods/a", "create/pods/b", "create/pods/c", "create/pods/d");
        let first = course(&[a, b, c], &[&[a, b, c]]);
        let alone = Course::common(std::slice::from_ref(&first));
        assert_eq!((&alone.writes, &alone.stages), (&first.writes, &first.stages));
        let common =
            Course::common(&[first, course(&[b, d, c], &[&[c, b]]), course(&[d, b, a], &[&[a, d], &[b, c]])]);
        let expected = course(&[a, b, c, d], &[&[b, c]]);
        assert_eq!((common.writes, common.stages), (expected.writes, expected.stages));
    }
}
