//! Whether what was seen is as it should be.

use std::collections::BTreeMap;

use springtide_e2e::node::load::Seen;
use springtide_e2e::upgrade::pods::Identity;
use springtide_e2e::upgrade::traffic::server_text;

/// What was seen, as far as it is judged.
pub(crate) struct Record {
    /// What made each pod the same before.
    pub(crate) before: BTreeMap<String, Identity>,
    /// And in the end.
    pub(crate) after: BTreeMap<String, Identity>,
    /// Pods that ran the new version after the upgrade.
    pub(crate) versions: usize,
    /// What the volume of each pod has kept: the versions that have started on it.
    pub(crate) volumes: Vec<Vec<String>>,
    /// Requests by which a pod was made or ended.
    pub(crate) replaced: usize,
    /// What the clients have seen.
    pub(crate) seen: Seen,
}

/// One thing that had to be so.
pub(crate) struct Verdict {
    what: &'static str,
    expected: String,
    seen: String,
    well: bool,
}

impl Record {
    /// Says what was as it should be and what was not.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |what, expected: String, seen: String, well| Verdict { what, expected, seen, well };
        let pods = self.before.len();
        let same = self.before.iter().filter(|(name, pod)| self.after.get(*name) == Some(*pod)).count();
        let kept = self.volumes.iter().filter(|lines| has_both(lines)).count();
        let (answered, failed) = (self.seen.answered(), self.seen.failed());
        let of_version = |version: u32| {
            let text = server_text(version);
            [&self.seen.new, &self.seen.kept].iter().filter_map(|half| half.texts.get(&text)).sum::<u64>()
        };
        let [old, new] = [1, 2].map(of_version);
        vec![
            verdict(
                "every pod runs the new version",
                format!("{pods} pods"),
                format!("{} pods", self.versions),
                self.versions == pods,
            ),
            verdict(
                "they are the same pods, after the rollback too",
                format!("UID, IP and node of {pods} pods stay"),
                format!("those of {same} of {} pods are what they were", self.after.len()),
                same == pods && self.after.len() == pods,
            ),
            verdict(
                "their volumes are the same",
                format!("{pods} volumes know both versions"),
                format!("{kept} do"),
                kept == pods,
            ),
            verdict(
                "nobody makes or deletes a pod",
                "0 requests that do".to_owned(),
                format!("{} requests", self.replaced),
                self.replaced == 0,
            ),
            verdict(
                "no request is lost",
                "0 failed, answers of both versions".to_owned(),
                format!(
                    "{failed} failed of {} at {} a second; {old} answers of v1, {new} of v2",
                    answered + failed,
                    self.seen.rate()
                ),
                failed == 0 && old > 0 && new > 0,
            ),
        ]
    }
}

fn has_both(lines: &[String]) -> bool {
    [1, 2].iter().all(|version| lines.contains(&server_text(*version)))
}

/// Prints the summary. Returns whether all is well.
pub(crate) fn print(verdicts: &[Verdict]) -> bool {
    for Verdict { what, expected, seen, well } in verdicts {
        println!("{:<7} {what}", if *well { "ok" } else { "MISSED" });
        println!("          expected  {expected}");
        println!("          seen      {seen}");
    }
    verdicts.iter().all(|verdict| verdict.well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_promised_is_missed() {
        let pod = |ip: &str| Identity { uid: "u".into(), ip: ip.into(), node: "n".into() };
        let named = |ip| BTreeMap::from([("shop-1".to_owned(), pod(ip))]);
        let mut seen = Seen { millis: 1000, ..Seen::default() };
        seen.new.texts = BTreeMap::from([("v1".to_owned(), 5), ("v2".to_owned(), 5)]);
        let good = || Record {
            before: named("10.0.0.1"),
            after: named("10.0.0.1"),
            versions: 1,
            volumes: vec![vec!["v1".to_owned(), "v2".to_owned()]],
            replaced: 0,
            seen: seen.clone(),
        };
        let missed = |record: &Record| record.verdicts().iter().filter(|verdict| !verdict.well).count();
        assert_eq!(missed(&good()), 0);
        let mut lost = good();
        lost.seen.kept.failed = 1;
        for (record, count) in [
            (Record { after: named("10.0.0.2"), ..good() }, 1),
            (Record { after: BTreeMap::new(), versions: 0, ..good() }, 2),
            (Record { volumes: vec![vec!["v2".to_owned()]], replaced: 1, ..good() }, 2),
            (lost, 1),
        ] {
            assert_eq!(missed(&record), count);
        }
    }
}
