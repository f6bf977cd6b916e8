//! What each BatchQueue uses, and what it may still be given: quota, what its cohort lends, live capacity.

mod capacity;
mod excess;
mod peak;
mod room;

use super::class::ClassKey;
use super::line::LineId;
use super::queue::{CohortScope, QueueFigures, QueueRules, QuotaRow};
use crate::ledger::{CapacityKey, CapacityTable, Ledger, NodeSelector, reading};
use crate::loads::{MOST_AGE, Reading, Usage};
use springtide_plumbing::resources::ResourceList;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::{QueuedReason, StopPolicy};
use springtide_crds::common::Tier;
use springtide_plumbing::key::ObjectKey;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use capacity::{capacity_key, capacity_keys, ceiling, measured_share, node_share, unmeasured_key, whole};
pub(super) use peak::{Drains, QueuePeak, Share};
pub(super) use room::{Bound, Fill, Room};

/// All BatchQueues that have rules or pods.
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_key: HashMap<ObjectKey, Queue>,
    cohorts: HashMap<CohortId, Cohort>,
    /// Stands for the namespace of every cohort where cohorts go beyond namespaces.
    anywhere: Option<Arc<str>>,
    /// One table for each way to count; queues share it.
    tables: HashMap<CapacityKey, CapacityTable>,
    /// What is in use on the nodes.
    usage: Arc<Usage>,
    /// What that means for some nodes, if it is not older than asked, and the look that it is of.
    readings: HashMap<(NodeSelector, SignedDuration), Option<Reading>>,
    readings_of: u64,
    /// When nodes and pods were last known to be current.
    seen: Option<Timestamp>,
    /// Queues whose peak windows mean something else since the last pass.
    turned: Vec<ObjectKey>,
    /// What is stored of pods of a class beyond their shape, at most: a sidecar, a LimitRange or the overhead of a
    /// RuntimeClass adds to them. Classes of which nothing is known are left out.
    added: HashMap<ClassKey, ResourceList>,
}

/// Namespace and name; the namespace is empty where cohorts go beyond it.
type CohortId = (Arc<str>, Arc<str>);

/// Queues that lend to each other.
#[derive(Debug, Default)]
struct Cohort {
    members: BTreeSet<ObjectKey>,
    /// By the resources of the members' quotas, counted as these name them.
    nominal: ResourceList,
    used: ResourceList,
}

/// One queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// `None` of one that is gone, or not seen yet, and has pods.
    rules: Option<Arc<QueueRules>>,
    /// What pods and grants hold, by tier, in the names of their own requests.
    used: [ResourceList; 3],
    /// What of it pods hold that are being deleted.
    leaving: [ResourceList; 3],
    pods: usize,
    /// What its source offers, in the names of the nodes.
    offered: Option<ResourceList>,
    /// What it would offer if what others really use were not looked at, where it is.
    unmeasured: Option<ResourceList>,
    stale: bool,
    /// It is stale, as its nodes were not measured lately.
    metrics_old: bool,
    /// Its peak windows; `None` of one without any.
    peak: Option<QueuePeak>,
    /// What is known of its pods is older than its rules allow.
    old: bool,
}

/// Why a line is closed to a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// There is no such queue.
    NotFound,
    /// The tier is too high for it.
    Tier {
        /// The highest that it takes.
        max: Tier,
    },
    /// Its stopPolicy says so.
    Stopped,
    /// A window or a load trigger says so, for this reason.
    Until(QueuedReason),
    /// What its source offers is not known.
    Stale,
    /// What is in use on its nodes is not known.
    MetricsOld,
}

impl Queue {
    fn used(&self, name: &str) -> i64 {
        self.used.iter().map(|used| used.get(name)).sum()
    }

    /// How much of a resource of the quota its pods hold, whatever they call it.
    fn counted(&self, resource: &str) -> i64 {
        self.used.iter().map(|used| counted(self.rules.as_deref(), used, resource)).sum()
    }

    /// What there is of a row of the quota, by itself and by the source.
    fn whole(&self, rules: &QueueRules, row: &QuotaRow) -> i64 {
        whole(rules, self.offered.as_ref(), row)
    }

    /// What its source offers to what runs already. Nothing ends on the word of measures: a node that is not told of, or
    /// pods of batch work that are not measured yet, would look as if others needed all of it.
    fn offered_to_running(&self) -> Option<&ResourceList> {
        self.unmeasured.as_ref().or(self.offered.as_ref())
    }

    /// The part of its capacity that a peak leaves to a tier, in percent.
    fn percent(&self, tier: Tier) -> Option<i64> {
        self.peak.as_ref()?.tier(tier)?.percent.map(i64::from)
    }

    /// What its rules let it have of a resource of its source; `None` is without bound.
    fn ceiling(&self, rules: &QueueRules, name: &str) -> Option<i64> {
        ceiling(rules, self.offered.as_ref(), name)
    }
}

/// `parts` of the `whole` equal parts of an amount, rounded down.
fn share_of(amount: i64, parts: i64, whole: i64) -> i64 {
    i64::try_from(i128::from(amount) * i128::from(parts) / i128::from(whole)).unwrap_or(i64::MAX)
}

/// How much of a resource of the quota an amount is, whatever it is called there.
fn counted(rules: Option<&QueueRules>, amount: &ResourceList, resource: &str) -> i64 {
    let own = amount.get(resource);
    let others = rules.into_iter().flat_map(|rules| &rules.counted_as);
    own + others
        .filter(|(name, counts)| counts.as_ref() == resource && name.as_ref() != resource)
        .map(|(name, _)| amount.get(name))
        .sum::<i64>()
}

/// What the rows of a quota see of an amount.
fn in_rows(rules: &QueueRules, amount: impl Fn(&QuotaRow) -> i64) -> ResourceList {
    rules.quota.iter().map(|row| (Arc::clone(&row.resource), amount(row))).collect()
}

impl Queues {
    /// Takes in new rules. Returns the ones before.
    pub(super) fn set_rules(
        &mut self,
        key: &ObjectKey,
        rules: Option<QueueRules>,
    ) -> Option<Arc<QueueRules>> {
        let queue = self.by_key.entry(key.clone()).or_default();
        let before = std::mem::replace(&mut queue.rules, rules.map(Arc::new));
        let now = queue.rules.clone();
        if now.is_none() && queue.pods == 0 && queue.used.iter().all(|used| used.iter().next().is_none()) {
            self.by_key.remove(key);
        }
        let cohort = |rules: &Option<Arc<QueueRules>>| self.cohort_of(key, rules.as_deref()?);
        let (left, joined) = (cohort(&before), cohort(&now));
        if let Some(id) = &left {
            if let Some(cohort) = self.cohorts.get_mut(id) {
                cohort.members.remove(key);
            }
            self.recount(id);
        }
        if let Some(id) = joined {
            self.cohorts.entry(id.clone()).or_default().members.insert(key.clone());
            self.recount(&id);
        }
        let keys: BTreeSet<CapacityKey> =
            self.by_key.values().filter_map(|queue| queue.rules.as_deref()).flat_map(capacity_keys).collect();
        self.tables.retain(|key, _| keys.contains(key));
        for key in keys {
            self.tables.entry(key).or_default();
        }
        before
    }

    /// Joins queues of one cohort's name over namespaces, or not. To be said before the first rules.
    pub(super) fn set_scope(&mut self, scope: CohortScope) {
        self.anywhere = match scope {
            CohortScope::Namespace => None,
            CohortScope::Cluster => Some(Arc::from("")),
        };
    }

    /// The cohort of a queue.
    fn cohort_of(&self, key: &ObjectKey, rules: &QueueRules) -> Option<CohortId> {
        let namespace = self.anywhere.as_ref().unwrap_or(&key.namespace);
        Some((Arc::clone(namespace), Arc::clone(rules.cohort.as_ref()?)))
    }

    fn recount(&mut self, id: &CohortId) {
        let Some(cohort) = self.cohorts.get_mut(id) else { return };
        (cohort.nominal, cohort.used) = Default::default();
        for queue in cohort.members.iter().filter_map(|key| self.by_key.get(key)) {
            let Some(rules) = queue.rules.as_deref() else { continue };
            cohort.nominal.add(&in_rows(rules, |row| row.nominal));
            cohort.used.add(&in_rows(rules, |row| queue.counted(&row.resource)));
        }
        if cohort.members.is_empty() {
            self.cohorts.remove(id);
        }
    }

    /// The rules of a queue.
    pub(super) fn rules(&self, key: &ObjectKey) -> Option<&Arc<QueueRules>> {
        self.by_key.get(key)?.rules.as_ref()
    }

    /// The rules of the queue of a line; `None` of the built-in queue, and of one that is not there.
    pub(super) fn rules_of(&self, line: &LineId) -> Option<&Arc<QueueRules>> {
        self.rules(&line.queue()?)
    }

    pub(super) fn max_queued_jobs(&self, line: &LineId) -> usize {
        self.rules_of(line).map_or(super::MAX_QUEUED_JOBS, |rules| rules.max_queued_jobs)
    }

    /// Pods of a line that may exist without room on a node.
    pub(super) fn max_pending(&self, line: &LineId) -> usize {
        self.rules_of(line).map_or(0, |rules| rules.max_pending)
    }

    /// Why jobs of a tier are not taken into a line at all.
    pub(super) fn refusal(&self, line: &LineId, tier: Tier) -> Option<Closed> {
        let key = line.queue()?;
        let Some(rules) = self.rules(&key) else { return Some(Closed::NotFound) };
        (tier > rules.max_tier).then_some(Closed::Tier { max: rules.max_tier })
    }

    /// Why nothing of a tier starts, whatever there is room for.
    pub(super) fn closed(&self, line: &LineId, tier: Tier) -> Option<Closed> {
        let key = line.queue()?;
        if let Some(refusal) = self.refusal(line, tier) {
            return Some(refusal);
        }
        let queue = self.by_key.get(&key)?;
        let rules = queue.rules.as_deref()?;
        match rules.stop {
            StopPolicy::Hold | StopPolicy::Drain => return Some(Closed::Stopped),
            StopPolicy::None => {}
        }
        let in_peak = queue.peak.as_ref().and_then(|peak| peak.tier(tier)).filter(|tier| !tier.may_start());
        let stale = if queue.metrics_old { Closed::MetricsOld } else { Closed::Stale };
        in_peak.map(|peak| Closed::Until(peak::reason(peak))).or(queue.stale.then_some(stale))
    }

    /// When nodes and pods were last known to be current.
    pub(super) fn seen_at(&mut self, at: Timestamp) {
        self.seen = self.seen.max(Some(at));
    }

    /// Brings what the sources offer up to date. Returns whether anything has changed.
    pub(super) fn refresh(&mut self, ledger: &Ledger, blind: bool, now: Timestamp) -> bool {
        let mut changed = false;
        for (key, table) in &mut self.tables {
            changed |= table.refresh(key, ledger, &self.usage);
        }
        if self.readings_of != self.usage.round {
            self.readings.clear();
            self.readings_of = self.usage.round;
        }
        for (key, queue) in &mut self.by_key {
            let Some(rules) = queue.rules.as_deref() else { continue };
            let mut read = |selector: &NodeSelector, most_age| {
                let new = || reading(selector, most_age, ledger, &self.usage);
                *self.readings.entry((selector.clone(), most_age)).or_insert_with(new)
            };
            if let Some(peak) = queue.peak.as_mut().filter(|peak| peak.has_triggers()) {
                peak.observe(read(&rules.load_nodes, MOST_AGE).as_ref(), now);
            }
            if queue.peak.as_mut().is_some_and(|peak| peak.refresh(now)) {
                self.turned.push(key.clone());
                changed = true;
            }
            let too_old = self.seen.is_some_and(|seen| now.duration_since(seen) > rules.stale_after);
            let share = node_share(rules);
            let view_old = too_old || share.is_some() && blind;
            let metrics_old = !view_old
                && measured_share(rules).is_some_and(|share| {
                    let reading = read(&share.selector, rules.stale_after);
                    reading.is_none_or(|reading| now.duration_since(reading.at).abs() > rules.stale_after)
                });
            let stale = view_old || metrics_old;
            changed |= (stale, metrics_old, too_old) != (queue.stale, queue.metrics_old, queue.old);
            (queue.stale, queue.metrics_old, queue.old) = (stale, metrics_old, too_old);
            let is_measured = measured_share(rules).is_some() && !blind;
            let table = || self.tables.get(&unmeasured_key(rules)?);
            let unmeasured = is_measured.then(table).flatten();
            if queue.unmeasured.as_ref() != unmeasured.map(CapacityTable::total) {
                queue.unmeasured = unmeasured.map(|table| table.total().clone());
                changed = true;
            }
            if metrics_old && queue.offered.is_some() {
                // What runs is not to suffer from what is not known.
                continue;
            }
            let table = share.filter(|_| !blind).and_then(|_| self.tables.get(&capacity_key(rules)?));
            match table {
                Some(table) if queue.offered.as_ref() != Some(table.total()) => {
                    queue.offered = Some(table.total().clone());
                    changed = true;
                }
                Some(_) => {}
                None => queue.offered = None,
            }
        }
        changed
    }

    /// Charges a queue with `amount`, or with less by a negative number of `times`.
    pub(super) fn charge(&mut self, key: &ObjectKey, tier: Tier, amount: &ResourceList, times: i64) {
        let queue = self.by_key.entry(key.clone()).or_default();
        let amount = amount.times(times);
        queue.used[rank(tier)].add(&amount);
        let Some(rules) = queue.rules.clone() else {
            self.forget_empty(key);
            return;
        };
        if let Some(id) = self.cohort_of(key, &rules)
            && let Some(cohort) = self.cohorts.get_mut(&id)
        {
            cohort.used.add(&in_rows(&rules, |row| counted(Some(&rules), &amount, &row.resource)));
        }
    }

    /// Charges the queue of a class with so many grants, or takes them off.
    pub(super) fn grant(&mut self, class: &ClassKey, grants: i64) {
        if let Some(key) = class.line.queue() {
            let wanted = self.wanted(class);
            if grants > 0
                && let Some(peak) = self.by_key.get_mut(&key).and_then(|queue| queue.peak.as_mut())
            {
                peak.starts(class.tier, &wanted.times(grants));
            }
            self.charge(&key, class.tier, &wanted, grants);
        }
    }

    /// What a queue is charged with for a pod of a class that does not exist yet: its shape, and what was added to those
    /// before it. By its shape alone a pod would be granted that has to go as soon as it is seen, again and again.
    pub(super) fn wanted<'a>(&self, class: &'a ClassKey) -> Cow<'a, ResourceList> {
        let mut wanted = Cow::Borrowed(&class.shape.requests);
        if let Some(added) = self.added.get(class) {
            wanted.to_mut().add(added);
        }
        wanted
    }

    /// A pod of a class is stored that requests this. `in_flight` further ones are granted.
    pub(super) fn stored(&mut self, class: &ClassKey, requests: &ResourceList, in_flight: usize) {
        let Some(key) = class.line.queue() else { return };
        let mut beyond = requests.clone();
        beyond.subtract(&self.wanted(class));
        let beyond = beyond.without_debts();
        if beyond != ResourceList::default() {
            self.added.entry(class.clone()).or_default().add(&beyond);
            self.charge(&key, class.tier, &beyond, super::pods::signed(in_flight));
        }
    }

    /// Nobody is left of a class.
    pub(super) fn forget_class(&mut self, class: &ClassKey) {
        self.added.remove(class);
    }

    /// What a pod of ours is charged with: what asks for nothing would else count as nothing, and any number of
    /// it would fit. What it asks for by another name is no less asked for.
    pub(super) fn charged(&self, queue: Option<&ObjectKey>, requests: &ResourceList) -> ResourceList {
        let mut charged = requests.clone().charged();
        let rules = queue.and_then(|queue| self.rules(queue));
        let names = rules.into_iter().flat_map(|rules| &rules.counted_as);
        for (_, base) in names.filter(|(name, _)| requests.get(name) > 0) {
            match &**base {
                "cpu" => charged.cpu = requests.cpu,
                "memory" => charged.memory = requests.memory,
                _ => {}
            }
        }
        charged
    }

    /// Counts a pod of a queue in or out.
    pub(super) fn count_pod(&mut self, key: &ObjectKey, by: i64) {
        let queue = self.by_key.entry(key.clone()).or_default();
        queue.pods = queue.pods.saturating_add_signed(isize::try_from(by).unwrap_or(0));
        self.forget_empty(key);
    }

    /// Counts what a pod of a queue holds as leaving, or no longer.
    pub(super) fn leaves(&mut self, key: &ObjectKey, tier: Tier, amount: &ResourceList, times: i64) {
        let queue = self.by_key.entry(key.clone()).or_default();
        queue.leaving[rank(tier)].add(&amount.times(times));
        self.forget_empty(key);
    }

    fn forget_empty(&mut self, key: &ObjectKey) {
        let is_empty = self.by_key.get(key).is_some_and(|queue| {
            queue.rules.is_none()
                && queue.pods == 0
                && queue.used.iter().all(|used| *used == ResourceList::default())
        });
        if is_empty {
            self.by_key.remove(key);
        }
    }

    /// The figures of a queue that it knows itself.
    pub(super) fn figures(&self, key: &ObjectKey, blind: bool) -> QueueFigures {
        let Some(queue) = self.by_key.get(key) else { return QueueFigures::default() };
        let mut figures =
            QueueFigures { running_pods: queue.pods, is_stale: queue.stale, ..QueueFigures::default() };
        figures.metrics_old = queue.metrics_old;
        let counted_as = |name: &str, rules: &QueueRules| {
            rules.counted_as.get(name).cloned().unwrap_or_else(|| Arc::from(name))
        };
        let Some(rules) = queue.rules.as_deref() else {
            for used in &queue.used {
                figures.used.add(used);
            }
            return figures;
        };
        let used = queue.used.iter().flat_map(ResourceList::iter);
        figures.used = used.map(|(name, amount)| (counted_as(name, rules), amount)).collect();
        figures.borrowed = self.borrowed(key);
        figures.peak = queue.peak.as_ref().and_then(QueuePeak::figures);
        if node_share(rules).is_some() && !blind {
            let offered = queue.offered.iter().flat_map(ResourceList::iter);
            let shares =
                offered.filter_map(|(name, _)| Some((counted_as(name, rules), queue.ceiling(rules, name)?)));
            figures.capacity = Some(shares.collect());
            figures.capacity_time = self.seen;
        }
        figures
    }
}

/// The most that a queue may ever use of a resource: alone, nobody lends to it.
fn most(rules: &QueueRules, row: &QuotaRow) -> i64 {
    if rules.cohort.is_some() { row.max } else { row.max.min(row.nominal) }
}

fn rank(tier: Tier) -> usize {
    match tier {
        Tier::BestEffort => 0,
        Tier::Standard => 1,
        Tier::Guaranteed => 2,
    }
}
