//! Values read at scrape time from whoever holds them anyway.

use crate::key::ObjectKey;
use crate::queue::{Priority, WorkQueue};
use crate::store::StoreView;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// The figures of one controller's queue.
#[derive(Debug)]
pub struct QueueSource {
    /// Name of the controller, and of its queue.
    pub controller: &'static str,
    /// The queue.
    pub queue: WorkQueue<ObjectKey>,
}

#[derive(Debug, EncodeLabelSet)]
struct QueueLabels {
    name: &'static str,
    controller: &'static str,
}

#[derive(Debug, EncodeLabelSet)]
struct DepthLabels {
    name: &'static str,
    controller: &'static str,
    priority: &'static str,
}

impl Collector for QueueSource {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let stats = self.queue.stats();
        let labels = QueueLabels { name: self.controller, controller: self.controller };

        let mut depth =
            encoder.encode_descriptor("workqueue_depth", "Keys ready to run", None, MetricType::Gauge)?;
        for (priority, keys) in Priority::ALL.into_iter().zip(stats.depth) {
            let labels = DepthLabels {
                name: self.controller,
                controller: self.controller,
                priority: priority.as_str(),
            };
            depth.encode_family(&labels)?.encode_gauge(&count(keys))?;
        }
        for (name, help, value) in [
            ("workqueue_adds", "Times a key was made ready", stats.adds),
            ("workqueue_retries", "Passes that failed or met a conflict", stats.retries),
        ] {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)?;
        }
        for (name, help, value) in [
            (
                "workqueue_unfinished_work_seconds",
                "Sum of the ages of the passes under way",
                stats.unfinished.as_secs_f64(),
            ),
            (
                "workqueue_longest_running_processor_seconds",
                "Age of the longest pass under way",
                stats.longest_run.as_secs_f64(),
            ),
            (
                "springtide_keys_in_backoff",
                "Keys that wait for their backoff",
                count(stats.in_backoff) as f64,
            ),
            ("springtide_keys_throttled", "Keys that wait for write budget", count(stats.throttled) as f64),
            (
                "springtide_keys_gated",
                "Keys whose own writes the stores do not show yet",
                count(stats.gated) as f64,
            ),
        ] {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
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
        type Read<T> = fn(&dyn StoreView) -> T;
        let counters: [(&str, &str, Read<u64>); 5] = [
            ("springtide_watch_events", "Watch events taken in", |store| store.stats().events()),
            ("springtide_watch_restarts", "Watch connections opened anew", |store| store.stats().restarts()),
            ("springtide_watch_relists", "Lists after the first one", |store| store.stats().relists()),
            ("springtide_watch_rv_regressions", "Events older than what was seen, not applied", |store| {
                store.stats().rv_regressions()
            }),
            ("springtide_watch_unreadable", "Objects that could not be decoded", |store| {
                store.stats().unreadable()
            }),
        ];
        for (name, help, read) in counters {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for store in self.0.iter() {
                let labels = ResourceLabel { resource: store.resource().to_string() };
                counter
                    .encode_family(&labels)?
                    .encode_counter::<[(&str, &str); 0], _, u64>(&read(store.as_ref()), None)?;
            }
        }
        let gauges: [(&str, &str, Read<f64>); 3] = [
            ("springtide_store_objects", "Objects stored", |store| count(store.object_count()) as f64),
            ("springtide_watch_last_frame_seconds", "Time since an event, bookmark or list", |store| {
                store.stats().since_last_frame().as_secs_f64()
            }),
            ("springtide_watch_stale", "1 while the store may be long out of date", |store| {
                f64::from(u8::from(store.is_stale()))
            }),
        ];
        for (name, help, read) in gauges {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for store in self.0.iter() {
                let labels = ResourceLabel { resource: store.resource().to_string() };
                gauge.encode_family(&labels)?.encode_gauge(&read(store.as_ref()))?;
            }
        }
        Ok(())
    }
}

fn count(number: usize) -> i64 {
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
        let source = QueueSource { controller: "c", queue: queue.clone() };
        metrics.register(|registry| registry.register_collector(Box::new(source)));
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
