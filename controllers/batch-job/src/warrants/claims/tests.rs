use super::*;
use crate::admission::{CapacitySource, TierRules};
use serde_json::{Value, json};

fn rules(nominal: i64, max: i64, cohort: Option<&str>) -> QueueRules {
    QueueRules {
        cohort: cohort.map(Arc::from),
        quota: vec![QuotaRow { resource: "cpu".into(), nominal: nominal * 1000, max: max * 1000 }],
        source: CapacitySource::Static,
        ..QueueRules::default()
    }
}

/// `name` is in namespace a, `b/name` in another.
fn key(name: &str) -> ObjectKey {
    let (namespace, name) = name.split_once('/').unwrap_or(("a", name));
    ObjectKey::new(namespace, name)
}

/// The queues, jobs and pods of a namespace.
#[derive(Default)]
struct Namespace {
    queues: BTreeMap<ObjectKey, QueueRules>,
    scope: CohortScope,
    jobs: Vec<Arc<JobView>>,
    pods: Vec<Arc<PodView>>,
}

impl Namespace {
    fn of<const N: usize>(queues: [(&str, QueueRules); N]) -> Self {
        Self {
            queues: queues.into_iter().map(|(name, rules)| (key(name), rules)).collect(),
            ..Self::default()
        }
    }

    /// A job of `parallelism` pods of one core, of which so many run.
    fn job(&mut self, name: &str, queue: &str, tier: &str, parallelism: u32, running: u32) {
        let ObjectKey { namespace, name: queue } = key(queue);
        let template = json!({"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}},
        ]}});
        self.jobs.push(object(json!({
            "metadata": {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"queueName": queue, "tier": tier, "completions": 100, "parallelism": parallelism,
                "template": template},
        })));
        for number in 0..running {
            self.pods.push(object(json!({
                "metadata": {
                    "namespace": namespace, "name": format!("{name}-{number}-0"), "uid": format!("{name}-{number}"),
                    "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": {"springtide.dev/queue": queue, "springtide.dev/tier": tier},
                    "ownerReferences": [{"apiVersion": "x", "kind": "BatchJob", "name": name, "uid": name,
                        "controller": true}],
                },
                "spec": {"nodeName": "n", "containers": [
                    {"name": "c", "resources": {"requests": {"cpu": "1"}}},
                ]},
                "status": {"phase": "Running"},
            })));
        }
    }

    /// How many pods of a job may be ended, one after the other, at so many seconds after their creation.
    fn claimed(&self, job: &str, seconds: i64) -> usize {
        let created: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let now = after(created, SignedDuration::from_secs(seconds));
        let mut going = HashSet::new();
        for pod in self.pods.iter().filter(|pod| pod.job_name().is_some_and(|name| &**name == job)) {
            let size = |job: &JobView, _: &ObjectKey| job.template.shape.requests.clone();
            let scene = Scene::new(&self.queues, self.scope, &self.pods, &self.jobs, &going, size, now);
            if scene.is_claimed(pod, 0) {
                going.insert(pod.meta().uid.clone());
            }
        }
        going.len()
    }
}

fn object<T: serde::de::DeserializeOwned>(object: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(object).unwrap())
}

#[test]
fn a_cut_quota_asks_for_what_exceeds_it() {
    for (max, claimed) in [(5, 0), (3, 2), (0, 5)] {
        let mut namespace = Namespace::of([("q", rules(max, max, None))]);
        namespace.job("j", "q", "BestEffort", 5, 5);
        assert_eq!(namespace.claimed("j", 0), claimed, "max {max}");
    }
    let mut alone = Namespace::of([("q", rules(2, 5, None))]);
    alone.job("j", "q", "BestEffort", 5, 5);
    assert_eq!(alone.claimed("j", 0), 3, "who is alone borrows nothing");
}

#[test]
fn a_lender_asks_for_what_it_waits_for_within_its_own() {
    for (wanted, running, claimed) in [(0, 0, 0), (2, 0, 2), (9, 0, 3), (9, 2, 1), (9, 3, 0)] {
        let mut namespace =
            Namespace::of([("borrower", rules(1, 9, Some("c"))), ("lender", rules(3, 3, Some("c")))]);
        namespace.job("loan", "borrower", "Standard", 5, 5);
        namespace.job("own", "lender", "BestEffort", wanted, running);
        assert_eq!(namespace.claimed("loan", 0), claimed, "{wanted} wanted, {running} running");
        assert_eq!(namespace.claimed("own", 0), 0);
    }
    let mut strangers =
        Namespace::of([("borrower", rules(1, 9, Some("c"))), ("lender", rules(3, 3, Some("d")))]);
    strangers.job("loan", "borrower", "Standard", 5, 5);
    strangers.job("own", "lender", "BestEffort", 9, 0);
    assert_eq!(strangers.claimed("loan", 0), 0, "of another cohort");
}

#[test]
fn a_tier_yields_to_those_that_wait_and_are_named_once_it_has_run() {
    let tier = TierRules { preemptible_by: vec![Tier::Guaranteed], min_run: SignedDuration::from_secs(60) };
    let yielding = QueueRules { tiers: BTreeMap::from([(Tier::BestEffort, tier)]), ..rules(9, 9, None) };
    for (other, seconds, claimed) in [("Guaranteed", 60, 2), ("Guaranteed", 59, 0), ("Standard", 60, 0)] {
        let mut namespace = Namespace::of([("q", yielding.clone())]);
        namespace.job("low", "q", "BestEffort", 5, 5);
        namespace.job("high", "q", other, 2, 0);
        assert_eq!(namespace.claimed("low", seconds), claimed, "{other} after {seconds} s");
    }
}

#[test]
fn a_drained_queue_asks_for_all_and_one_that_is_gone_for_nothing() {
    let drained = QueueRules { stop: StopPolicy::Drain, ..rules(9, 9, None) };
    let mut namespace = Namespace::of([("q", drained)]);
    namespace.job("j", "q", "BestEffort", 5, 5);
    assert_eq!(namespace.claimed("j", 0), 5);
    namespace.queues.clear();
    assert_eq!(namespace.claimed("j", 0), 0);
}

#[test]
fn what_asks_by_another_name_asks_for_the_same() {
    let tier = TierRules { preemptible_by: vec![Tier::Guaranteed], ..TierRules::default() };
    let mapped = QueueRules {
        tiers: BTreeMap::from([(Tier::BestEffort, tier)]),
        counted_as: BTreeMap::from([("example.com/batch-cpu".into(), "cpu".into())]),
        ..rules(9, 9, None)
    };
    let mut namespace = Namespace::of([("q", mapped)]);
    namespace.job("low", "q", "BestEffort", 5, 5);
    for pod in &mut namespace.pods {
        let mut mapped = PodView::clone(pod);
        mapped.requests = [("example.com/batch-cpu".into(), 1000), ("pods".into(), 1)].into_iter().collect();
        *pod = Arc::new(mapped);
    }
    // One pod of three cores: three pods of one make room for it.
    namespace.job("high", "q", "Guaranteed", 1, 0);
    let mut high = JobView::clone(&namespace.jobs.pop().unwrap());
    let mut template = crate::projections::job::Template::clone(&high.template);
    let mut shape = crate::shape::Shape::clone(&template.shape);
    shape.requests.cpu = 3000;
    template.shape = Arc::new(shape);
    high.template = Arc::new(template);
    namespace.jobs.push(Arc::new(high));
    assert_eq!(namespace.claimed("low", 0), 3);
}

#[test]
fn a_lender_of_another_namespace_asks_where_cohorts_go_beyond_one() {
    for (scope, claimed) in [(CohortScope::Namespace, 0), (CohortScope::Cluster, 2)] {
        let queues = [("borrower", rules(1, 9, Some("c"))), ("b/lender", rules(3, 3, Some("c")))];
        let mut namespaces = Namespace { scope, ..Namespace::of(queues) };
        namespaces.job("loan", "borrower", "Standard", 5, 5);
        namespaces.job("own", "b/lender", "BestEffort", 2, 0);
        assert_eq!(namespaces.claimed("loan", 0), claimed, "{scope:?}");
    }
}
