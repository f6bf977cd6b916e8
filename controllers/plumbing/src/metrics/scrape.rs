//! Values read at scrape time from whoever holds them anyway.

use crate::budget::{Limit, WindowStats, WriteBudget};
use crate::key::ObjectKey;
use crate::plan::WriteClass;
use crate::queue::{Priority, Stats, WorkQueue};
use crate::store::{Part, StoreView};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The figures of the queues, all in one collector: a family must not be begun twice in one scrape.
#[derive(Clone, Debug, Default)]
pub(super) struct Queues(Arc<Mutex<Vec<NamedQueue>>>);

/// A queue with the name of its controller.
type NamedQueue = (&'static str, WorkQueue<ObjectKey>);

impl Queues {
    pub(super) fn add(&self, controller: &'static str, queue: WorkQueue<ObjectKey>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((controller, queue));
    }
}

#[derive(Debug, EncodeLabelSet)]
struct QueueLabels {
    name: &'static str,
    controller: &'static str,
}

impl QueueLabels {
    fn of(controller: &'static str) -> Self {
        Self { name: controller, controller }
    }
}

#[derive(Debug, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

#[derive(Debug, EncodeLabelSet)]
struct DepthLabels {
    name: &'static str,
    controller: &'static str,
    priority: &'static str,
}

impl Collector for Queues {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        type Read<T> = fn(&Stats) -> T;
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stats: Vec<_> = queues.iter().map(|(controller, queue)| (*controller, queue.stats())).collect();

        let depth = stats.iter().flat_map(|(controller, stats)| {
            Priority::ALL.into_iter().zip(stats.depth).map(|(priority, keys)| {
                (DepthLabels { name: controller, controller, priority: priority.as_str() }, count(keys))
            })
        });
        gauge(&mut encoder, "workqueue_depth", "Keys ready to run", depth)?;

        let counters: [(&str, &str, Read<u64>); 2] = [
            ("workqueue_adds", "Times a key was made ready", |stats| stats.adds),
            ("workqueue_retries", "Passes that failed or met a conflict", |stats| stats.retries),
        ];
        for (name, help, read) in counters {
            let samples = stats.iter().map(|(controller, stats)| (QueueLabels::of(controller), read(stats)));
            counter(&mut encoder, name, help, samples)?;
        }
        let ages: [(&str, &str, Read<f64>); 2] = [
            ("workqueue_unfinished_work_seconds", "Sum of the ages of the passes under way", |stats| {
                stats.unfinished.as_secs_f64()
            }),
            ("workqueue_longest_running_processor_seconds", "Age of the longest pass under way", |stats| {
                stats.longest_run.as_secs_f64()
            }),
        ];
        for (name, help, read) in ages {
            let samples = stats.iter().map(|(controller, stats)| (QueueLabels::of(controller), read(stats)));
            gauge(&mut encoder, name, help, samples)?;
        }
        let waiting: [(&str, &str, Read<usize>); 3] = [
            ("springtide_keys_in_backoff", "Keys that wait for their backoff", |stats| stats.in_backoff),
            ("springtide_keys_throttled", "Keys that wait for write budget", |stats| stats.throttled),
            ("springtide_keys_gated", "Keys whose own writes the stores do not show yet", |stats| {
                stats.gated
            }),
        ];
        for (name, help, read) in waiting {
            let samples =
                stats.iter().map(|(controller, stats)| (ControllerLabel { controller }, count(read(stats))));
            gauge(&mut encoder, name, help, samples)?;
        }
        Ok(())
    }
}

/// Tokens, windows, waits and refusals of the write budget.
#[derive(Debug)]
pub struct BudgetSource {
    /// The budget.
    pub budget: Arc<WriteBudget>,
    /// Names of the controllers that it serves.
    pub controllers: Vec<&'static str>,
}

#[derive(Debug, EncodeLabelSet)]
struct BucketLabels {
    bucket: &'static str,
    controller: &'static str,
}

#[derive(Debug, EncodeLabelSet)]
struct LevelLabel {
    priority_level: String,
}

#[derive(Debug, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Debug, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

impl Collector for BudgetSource {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let stats = self.budget.stats(&self.controllers);
        let process =
            (BucketLabels { bucket: Limit::Process.as_str(), controller: "" }, stats.process_tokens);
        let controllers =
            self.controllers.iter().zip(&stats.controller_tokens).map(|(controller, tokens)| {
                (BucketLabels { bucket: Limit::Controller.as_str(), controller }, *tokens)
            });
        gauge(
            &mut encoder,
            "springtide_write_budget_tokens",
            "Writes that a bucket would let through at once",
            std::iter::once(process).chain(controllers),
        )?;
        type Read = fn(&WindowStats) -> u32;
        let gauges: [(&str, &str, Read); 2] = [
            (
                "springtide_write_budget_inflight",
                "Writes under way, by priority level of the server",
                |window| window.in_flight,
            ),
            (
                "springtide_write_budget_inflight_limit",
                "Writes that may be under way, by priority level of the server",
                |window| window.limit,
            ),
        ];
        for (name, help, read) in gauges {
            let samples = stats.windows.iter().map(|window| {
                (LevelLabel { priority_level: window.priority_level.to_string() }, i64::from(read(window)))
            });
            gauge(&mut encoder, name, help, samples)?;
        }
        let help = "Time in line of the writes that were admitted";
        let name = "springtide_write_budget_wait_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (class, waits) in self.budget.waits() {
            waits.encode(family.encode_family(&ClassLabel { class: class.as_str() })?)?;
        }
        let throttled = Limit::ALL.into_iter().zip(stats.throttled);
        counter(
            &mut encoder,
            "springtide_write_budget_throttled",
            "Writes put off, by what was short",
            throttled.map(|(limit, writes)| (LimitLabel { limit: limit.as_str() }, writes)),
        )?;
        let shed = WriteClass::ALL.into_iter().zip(stats.shed);
        let shed = shed.filter(|(class, _)| class.is_shed());
        counter(
            &mut encoder,
            "springtide_write_budget_shed",
            "Writes of the lowest classes that gave way: events dropped, others put off",
            shed.map(|(class, writes)| (ClassLabel { class: class.as_str() }, writes)),
        )
    }
}

/// Whether this process leads.
#[derive(Debug)]
pub struct LeaderSource {
    /// Name of the Lease.
    pub lease: String,
    /// What the election says.
    pub leading: watch::Receiver<bool>,
}

#[derive(Debug, EncodeLabelSet)]
struct LeaseLabel {
    name: String,
}

impl Collector for LeaderSource {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "1 while this process holds the lease";
        let mut gauge =
            encoder.encode_descriptor("leader_election_master_status", help, None, MetricType::Gauge)?;
        gauge
            .encode_family(&LeaseLabel { name: self.lease.clone() })?
            .encode_gauge(&i64::from(*self.leading.borrow()))
    }
}

/// The figures of all stores and of the watches behind them.
pub struct StoreSource(pub Arc<[Arc<dyn StoreView>]>);

impl fmt::Debug for StoreSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreSource").field(&self.0.len()).finish()
    }
}

#[derive(Debug, EncodeLabelSet)]
struct ResourceLabel {
    resource: String,
}

impl Collector for StoreSource {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        type Read<T> = fn(&Part) -> T;
        // A kind can have several stores, of one object each or of several projections, and a store one watch for
        // each namespace. All of it is one series: namespaces may be many.
        let mut kinds = BTreeMap::<String, Vec<&dyn StoreView>>::new();
        for store in self.0.iter() {
            kinds.entry(store.resource().to_string()).or_default().push(store.as_ref());
        }
        let labels = |resource: &str| ResourceLabel { resource: resource.to_owned() };
        let counters: [(&str, &str, Read<u64>); 6] = [
            ("springtide_watch_events", "Watch events taken in", |part| part.stats().events()),
            (
                "springtide_watch_spec_changes",
                "Objects that came, went or got another generation; a status alone does not count",
                |part| part.stats().spec_changes(),
            ),
            ("springtide_watch_restarts", "Watch connections opened anew", |part| part.stats().restarts()),
            ("springtide_watch_relists", "Lists after the first one", |part| part.stats().relists()),
            ("springtide_watch_rv_regressions", "Events older than what was seen, not applied", |part| {
                part.stats().rv_regressions()
            }),
            ("springtide_watch_unreadable", "Objects that could not be decoded", |part| {
                part.stats().unreadable()
            }),
        ];
        for (name, help, read) in counters {
            let sum = |stores: &Vec<&dyn StoreView>| parts(stores).map(read).sum();
            let samples = kinds.iter().map(|(resource, stores)| (labels(resource), sum(stores)));
            counter(&mut encoder, name, help, samples)?;
        }
        type Size = fn(&[&dyn StoreView]) -> usize;
        let sizes: [(&str, &str, Size); 2] = [
            ("springtide_store_objects", "Objects stored", |stores| {
                watched(stores).map(|store| store.object_count()).sum()
            }),
            (
                "springtide_store_bytes",
                "Memory that the stored objects take, estimated from their fields",
                |stores| stores.iter().map(|store| store.bytes()).sum(),
            ),
        ];
        for (name, help, read) in sizes {
            let sum = |stores: &Vec<&dyn StoreView>| count(read(stores));
            let samples = kinds.iter().map(|(resource, stores)| (labels(resource), sum(stores)));
            gauge(&mut encoder, name, help, samples)?;
        }
        let synced = |stores: &Vec<&dyn StoreView>| stores.iter().all(|store| store.is_synced());
        let samples = kinds.iter().map(|(resource, stores)| (labels(resource), i64::from(synced(stores))));
        let help = "1 while the store is complete; the process is ready when all of them are";
        gauge(&mut encoder, "springtide_store_synced", help, samples)?;
        let worst: [(&str, &str, Read<f64>); 2] = [
            ("springtide_watch_last_frame_seconds", "Time since an event, bookmark or list", |part| {
                part.stats().since_last_frame().as_secs_f64()
            }),
            ("springtide_watch_stale", "1 while the store may be long out of date", |part| {
                f64::from(u8::from(part.is_stale()))
            }),
        ];
        for (name, help, read) in worst {
            let most = |stores: &Vec<&dyn StoreView>| parts(stores).map(read).fold(0.0, f64::max);
            let samples = kinds.iter().map(|(resource, stores)| (labels(resource), most(stores)));
            gauge(&mut encoder, name, help, samples)?;
        }
        Ok(())
    }
}

/// One of the stores that the same watches fill, for each such group: they hold the same objects, and what the watches
/// have done counts once.
fn watched<'a>(stores: &'a [&'a dyn StoreView]) -> impl Iterator<Item = &'a dyn StoreView> {
    let is_first = move |(at, store): &(usize, &&dyn StoreView)| {
        !stores[..*at].iter().any(|before| std::ptr::eq(before.parts(), store.parts()))
    };
    stores.iter().enumerate().filter(is_first).map(|(_, store)| *store)
}

fn parts<'a>(stores: &'a [&'a dyn StoreView]) -> impl Iterator<Item = &'a Part> {
    watched(stores).flat_map(|store| store.parts())
}

/// Encodes one family of counters; the encoder appends `_total`.
fn counter<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

/// Encodes one family of gauges.
pub(super) fn gauge<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::queue::Urgency;

    #[tokio::test]
    async fn a_queue_is_read_at_scrape_time() {
        let queue = WorkQueue::new(1);
        let metrics = Metrics::new(&["c"]);
        metrics.add_queue("c", queue.clone());
        queue.add(ObjectKey::new("ns", "a"), Priority::High, Urgency::Routine);
        let text = metrics.encode().unwrap();
        for line in [
            r#"workqueue_depth{name="c",controller="c",priority="high"} 1"#,
            r#"workqueue_depth{name="c",controller="c",priority="low"} 0"#,
            r#"workqueue_adds_total{name="c",controller="c"} 1"#,
            r#"workqueue_unfinished_work_seconds{name="c",controller="c"} 0.0"#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
