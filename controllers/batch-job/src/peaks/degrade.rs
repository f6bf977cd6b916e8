//! Which pods exceed what Degrade leaves a tier.

use jiff::Timestamp;
use std::cmp::Reverse;

/// A job of a degraded tier, with its live pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DegradedJob {
    /// When it was created.
    pub created: Timestamp,
    /// With fewer pods than these it cannot run.
    pub min_parallelism: usize,
    /// Whether its interruption policy is FinishOrDontStart: such a job yields after all others.
    pub finishes: bool,
    /// Its pods.
    pub pods: Vec<DegradedPod>,
}

/// A pod of a degraded tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DegradedPod {
    /// When it was created.
    pub created: Timestamp,
    /// What it uses of each resource, in the order and units of the limit.
    pub uses: Vec<u64>,
}

/// A pod by its job's place in the list, and its own in the job.
pub type Place = (usize, usize);

/// The part of an amount that `percent` leaves.
#[must_use]
pub fn part(amount: u64, percent: u32) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(percent.min(100)) / 100).unwrap_or(amount)
}

/// The pods to end so that the others stay within the limit, in the order in which they yield: first jobs shrink
/// to their minimum, the newest first; then whole jobs go, the newest first. A pod that uses nothing of what is
/// exceeded stays, unless its job cannot run without those that go.
#[must_use]
pub fn surplus(jobs: &[DegradedJob], limit: &[u64]) -> Vec<Place> {
    choose(jobs, limit, &mut 0)
}

/// The same; `looks` counts the pods that are looked at.
fn choose(jobs: &[DegradedJob], limit: &[u64], looks: &mut usize) -> Vec<Place> {
    let mut used = vec![0_u64; limit.len()];
    for pod in jobs.iter().flat_map(|job| &job.pods) {
        for (sum, uses) in used.iter_mut().zip(&pod.uses) {
            *sum = sum.saturating_add(*uses);
        }
    }
    let mut yielding: Vec<usize> = (0..jobs.len()).collect();
    yielding.sort_by_key(|job| (jobs[*job].finishes, Reverse(jobs[*job].created), *job));
    let mut going: Vec<Place> = Vec::new();
    let mut goes: Vec<Vec<bool>> = jobs.iter().map(|job| vec![false; job.pods.len()]).collect();
    for job in &yielding {
        if !is_exceeded(&used, limit) {
            return going;
        }
        let mut pods: Vec<usize> = (0..jobs[*job].pods.len()).collect();
        pods.sort_by_key(|pod| (Reverse(jobs[*job].pods[*pod].created), *pod));
        let mut spare = pods.len().saturating_sub(jobs[*job].min_parallelism.max(1));
        for pod in pods {
            if spare == 0 {
                break;
            }
            *looks += 1;
            if helps(&used, limit, &jobs[*job].pods[pod]) {
                take(&mut used, &jobs[*job].pods[pod]);
                going.push((*job, pod));
                goes[*job][pod] = true;
                spare -= 1;
            }
        }
    }
    for job in &yielding {
        if !is_exceeded(&used, limit) {
            return going;
        }
        let rest: Vec<usize> = (0..jobs[*job].pods.len()).filter(|pod| !goes[*job][*pod]).collect();
        *looks += rest.len();
        if rest.iter().any(|pod| helps(&used, limit, &jobs[*job].pods[*pod])) {
            for pod in rest {
                take(&mut used, &jobs[*job].pods[pod]);
                going.push((*job, pod));
            }
        }
    }
    going
}

/// Whether anything is exceeded.
fn is_exceeded(used: &[u64], limit: &[u64]) -> bool {
    used.iter().zip(limit).any(|(used, limit)| used > limit)
}

/// Whether anything is exceeded that the pod uses.
fn helps(used: &[u64], limit: &[u64], pod: &DegradedPod) -> bool {
    used.iter().zip(limit).zip(&pod.uses).any(|((used, limit), uses)| used > limit && *uses > 0)
}

fn take(used: &mut [u64], pod: &DegradedPod) {
    for (sum, uses) in used.iter_mut().zip(&pod.uses) {
        *sum = sum.saturating_sub(*uses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn job(created: i64, min_parallelism: usize, uses: &[&[u64]]) -> DegradedJob {
        let pods = uses.iter().zip(1..);
        let pods =
            pods.map(|(uses, age)| DegradedPod { created: second(created + age), uses: uses.to_vec() });
        DegradedJob { created: second(created), min_parallelism, finishes: false, pods: pods.collect() }
    }

    #[test]
    fn elastic_jobs_shrink_before_the_newest_goes() {
        let jobs = [job(10, 1, &[&[1], &[1], &[1]]), job(20, 2, &[&[1], &[1], &[1]]), job(30, 1, &[&[1]])];
        assert!(surplus(&jobs, &[7]).is_empty());
        assert_eq!(surplus(&jobs, &[6]), [(1, 2)]);
        assert_eq!(surplus(&jobs, &[4]), [(1, 2), (0, 2), (0, 1)]);
        assert_eq!(surplus(&jobs, &[3]), [(1, 2), (0, 2), (0, 1), (2, 0)]);
        // A gang goes as a whole.
        assert_eq!(surplus(&jobs, &[2]), [(1, 2), (0, 2), (0, 1), (2, 0), (1, 0), (1, 1)]);
        assert_eq!(surplus(&jobs, &[0]).len(), 7);
    }

    #[test]
    fn who_must_not_be_interrupted_yields_last() {
        let mut jobs = [job(10, 1, &[&[1]]), job(20, 1, &[&[1]])];
        jobs[1].finishes = true;
        assert_eq!(surplus(&jobs, &[1]), [(0, 0)]);
    }

    #[test]
    fn who_uses_nothing_of_what_is_exceeded_stays() {
        let jobs = [job(10, 1, &[&[4, 1]]), job(20, 1, &[&[0, 9]])];
        assert_eq!(surplus(&jobs, &[3, 100]), [(0, 0)]);
        assert_eq!(part(1000, 30), 300);
        assert_eq!(part(u64::MAX, 99), u64::MAX / 100 * 99 + 14);
    }

    #[test]
    fn no_more_pods_are_looked_at_than_it_takes() {
        let pods: Vec<&[u64]> = vec![&[1][..]; 1000];
        let jobs: Vec<DegradedJob> = (0..100).map(|age| job(age * 10_000, 1, &pods)).collect();
        for (limit, going) in [(100_000, 0), (99_999, 1), (99_001, 999), (50_000, 50_000), (100, 99_900)] {
            let mut looks = 0;
            assert_eq!(choose(&jobs, &[limit], &mut looks).len(), going);
            assert!(looks <= going + 1000, "{looks} looks for {going}");
        }
        let mut looks = 0;
        assert_eq!(choose(&jobs, &[0], &mut looks).len(), 100_000);
        assert_eq!(looks, 100_000, "each once");
    }

    proptest! {
        #[test]
        fn what_stays_is_within_the_limit_and_whole(
            jobs in vec((0..50_i64, 1..4_usize, any::<bool>(), vec(vec(0..9_u64, 2), 0..6)), 0..8),
            limit in vec(0..60_u64, 2),
        ) {
            let jobs: Vec<DegradedJob> = jobs
                .into_iter()
                .map(|(created, min_parallelism, finishes, uses)| {
                    let uses: Vec<&[u64]> = uses.iter().map(|uses| &**uses).collect();
                    DegradedJob { finishes, ..job(created, min_parallelism, &uses) }
                })
                .collect();
            let going = surplus(&jobs, &limit);
            let stays = |place: &Place| !going.contains(place);
            for (resource, limit) in limit.iter().enumerate() {
                let places = jobs.iter().enumerate().flat_map(|(j, job)| (0..job.pods.len()).map(move |p| (j, p)));
                let used: u64 = places.filter(stays).map(|(j, p)| jobs[j].pods[p].uses[resource]).sum();
                prop_assert!(used <= *limit);
            }
            for (place, job) in jobs.iter().enumerate() {
                let left = (0..job.pods.len()).filter(|pod| stays(&(place, *pod))).count();
                let whole = job.min_parallelism.min(job.pods.len());
                prop_assert!(left == 0 || left >= whole);
            }
            let once: std::collections::BTreeSet<&Place> = going.iter().collect();
            prop_assert_eq!(once.len(), going.len());
        }
    }
}
