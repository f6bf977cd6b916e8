//! What the manager and the API server say of themselves at /metrics.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use anyhow::Result;
use kube::Client;
use serde::{Deserialize, Serialize};

use crate::manager::Manager;

/// Verbs that write.
const WRITES: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];
/// The same as the API server calls them.
const SERVER_WRITES: [&str; 6] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];

/// The metrics at one moment.
#[derive(Debug, Clone)]
pub struct Scrape(String);

impl From<String> for Scrape {
    /// Of the text that was answered.
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Scrape {
    /// Asks the manager.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn of(manager: &Manager) -> Result<Self> {
        Ok(Self(manager.metrics().await?))
    }

    /// Asks the API server.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn of_api_server(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Ok(Self(client.request_text(request).await?))
    }

    /// The sum over all samples of exactly this name that have all of these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has_all =
            |sample: &Sample<'_>| labels.iter().all(|(label, value)| sample.label(label) == Some(*value));
        self.samples(name).filter(has_all).map(|sample| sample.value).sum()
    }

    /// Writes that the API server has counted on these resources and their subresources, whoever sent them, refused ones
    /// too; a dry run is none.
    #[must_use]
    pub fn writes_on(&self, resources: &[&str]) -> f64 {
        let is_one = |[verb, resource, dry_run]: &[String; 3]| {
            SERVER_WRITES.contains(&&**verb) && resources.contains(&&**resource) && dry_run.is_empty()
        };
        let counted = self.by("apiserver_request_total", ["verb", "resource", "dry_run"]);
        counted.iter().filter(|(labels, _)| is_one(labels)).map(|(_, count)| count).sum()
    }

    /// The sums over all samples of exactly this name, by the values of these labels.
    fn by<const N: usize>(&self, name: &str, labels: [&str; N]) -> BTreeMap<[String; N], f64> {
        let mut sums = BTreeMap::new();
        for sample in self.samples(name) {
            let values = labels.map(|label| sample.label(label).unwrap_or_default().to_owned());
            *sums.entry(values).or_default() += sample.value;
        }
        sums
    }

    fn samples<'a>(&'a self, name: &str) -> impl Iterator<Item = Sample<'a>> {
        self.0.lines().filter_map(Sample::parse).filter(move |sample| sample.name == name)
    }
}

/// A line of the text format. No label that is asked for has a comma or an escaped character in its value.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        Some(Self { name, labels, value: value.parse().ok()? })
    }

    fn label(&self, label: &str) -> Option<&'a str> {
        self.labels.split(',').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (name == label).then(|| value.trim_matches('"'))
        })
    }
}

/// What a manager sent in a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Traffic {
    /// Writes that succeeded, by class and resource.
    pub writes: Vec<([String; 2], f64)>,
    /// Writes under way on average.
    pub in_flight: f64,
    /// From the sending of a write to the head of its answer, on average, in seconds; NaN where none was sent.
    #[serde(deserialize_with = "crate::bench::stored::nan_of_null")]
    pub latency: f64,
    /// How often a write was put off, by what was short.
    pub throttled: Vec<(String, f64)>,
}

impl Traffic {
    /// Between two moments that are `seconds` apart.
    #[must_use]
    pub fn between(before: &Scrape, after: &Scrape, seconds: f64) -> Self {
        let over_writes = |scrape: &Scrape, name: &str| -> f64 {
            WRITES.iter().map(|verb| scrape.sum(name, &[("verb", verb)])).sum()
        };
        let grown = |name: &str| over_writes(after, name) - over_writes(before, name);
        let spent = grown("rest_client_request_duration_seconds_sum");
        let sent = grown("rest_client_request_duration_seconds_count");
        let written =
            |scrape: &Scrape| scrape.by("springtide_writes_total", ["class", "resource", "outcome"]);
        let writes = growth(&written(before), &written(after));
        let throttled = |scrape: &Scrape| scrape.by("springtide_write_budget_throttled_total", ["limit"]);
        Self {
            writes: writes
                .into_iter()
                .filter(|([_, _, outcome], _)| outcome == "success")
                .map(|([class, resource, _], count)| ([class, resource], count))
                .collect(),
            in_flight: spent / seconds,
            latency: spent / sent,
            throttled: growth(&throttled(before), &throttled(after))
                .into_iter()
                .map(|([limit], count)| (limit, count))
                .collect(),
        }
    }

    /// Writes of each class on each resource, for each of so many things, in words.
    #[must_use]
    pub fn by_class(&self, things: f64) -> String {
        let each = |([class, resource], count): &([String; 2], f64)| {
            format!("{class} {resource} {:.2}", count / things)
        };
        listed(self.writes.iter().map(each))
    }

    /// How often a write was put off, by what was short, in words.
    #[must_use]
    pub fn put_off(&self) -> String {
        listed(self.throttled.iter().map(|(limit, count)| format!("{limit} {count:.0}")))
    }

    /// All writes that succeeded.
    #[must_use]
    pub fn written(&self) -> f64 {
        self.writes.iter().map(|(_, count)| count).sum()
    }
}

fn listed(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// What a manager sent in a run, for a page.
pub struct Sent<'a> {
    /// Which run.
    pub title: &'a str,
    /// Pods, or units, that it was about.
    pub things: usize,
    /// What the manager sent.
    pub traffic: &'a Traffic,
    /// What all components wrote on pods, by the API server's own count.
    pub served: f64,
}

/// Writes the section of a page on what was written in runs; `what` is what each is about.
///
/// # Errors
/// Never, as a page is a text.
pub fn section(page: &mut String, what: &str, runs: &[Sent<'_>]) -> fmt::Result {
    writeln!(page, "\n## What was written in these runs\n")?;
    writeln!(
        page,
        "| | writes of the manager a {what}, by class and resource | under way on average | answer after, on average | put \
         off | writes of all on pods, a {what} |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|")?;
    for Sent { title, things, traffic, served } in runs {
        let things = *things as f64;
        writeln!(
            page,
            "| {title} | {} | {:.1} | {:.1} ms | {} | {:.2} |",
            traffic.by_class(things),
            traffic.in_flight,
            1000.0 * traffic.latency,
            traffic.put_off(),
            served / things
        )?;
    }
    Ok(())
}

/// By how much each has grown, as far as it has.
fn growth<K: Ord + Clone>(before: &BTreeMap<K, f64>, after: &BTreeMap<K, f64>) -> Vec<(K, f64)> {
    let grown =
        after.iter().map(|(key, now)| (key.clone(), now - before.get(key).copied().unwrap_or_default()));
    grown.filter(|(_, by)| *by > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(posts: u32, seconds: f64, pods: u32, refused: u32) -> Scrape {
        Scrape(format!(
            "# TYPE springtide_writes counter\n\
             springtide_writes_total{{controller=\"batch-job\",class=\"spec\",resource=\"pods\",outcome=\"success\"}} {pods}\n\
             springtide_writes_total{{controller=\"batch-job\",class=\"spec\",resource=\"pods\",outcome=\"refused\"}} {refused}\n\
             springtide_write_budget_throttled_total{{limit=\"process\"}} 0\n\
             springtide_write_budget_throttled_total{{limit=\"window\"}} {refused}\n\
             rest_client_request_duration_seconds_sum{{verb=\"POST\",host=\"api:6443\"}} {seconds}\n\
             rest_client_request_duration_seconds_count{{verb=\"POST\",host=\"api:6443\"}} {posts}\n\
             rest_client_request_duration_seconds_sum{{verb=\"GET\",host=\"api:6443\"}} 1000.0\n\
             rest_client_request_duration_seconds_count{{verb=\"GET\",host=\"api:6443\"}} 1\n\
             workqueue_depth{{name=\"batch-job\",priority=\"high\"}} 2\n\
             workqueue_depth{{name=\"batch-job\",priority=\"low\"}} 3\n\
             process_cpu_seconds_total 4.5\n# EOF\n"
        ))
    }

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let scrape = scrape(0, 0.0, 7, 1);
        assert_eq!(scrape.sum("workqueue_depth", &[]), 5.0);
        assert_eq!(scrape.sum("workqueue_depth", &[("priority", "low")]), 3.0);
        assert_eq!(scrape.sum("process_cpu_seconds_total", &[]), 4.5);
        assert_eq!(scrape.sum("springtide_writes", &[]), 0.0, "no prefix of a name is taken for it");
        assert_eq!(
            scrape.sum("springtide_writes_total", &[("outcome", "success"), ("resource", "pods")]),
            7.0
        );
    }

    #[test]
    fn the_api_server_counts_what_everybody_writes_on_resources() {
        let series = |labels: &str, count: u32| format!("apiserver_request_total{{{labels}}} {count}\n");
        let label = |code: u32, dry_run: &str, resource: &str, subresource: &str, verb: &str| {
            format!(
                "code=\"{code}\",component=\"apiserver\",dry_run=\"{dry_run}\",group=\"\",\
                 resource=\"{resource}\",scope=\"resource\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"v1\""
            )
        };
        let text = [
            (201, "", "pods", "", "POST", 10),
            (201, "", "pods", "binding", "POST", 10),
            (200, "", "pods", "status", "PATCH", 20),
            (409, "", "pods", "", "DELETE", 1),
            (200, "", "batchjobs", "status", "APPLY", 10),
            (200, "All", "batchjobs", "", "POST", 5),
            (200, "", "batchjobs", "", "WATCH", 3),
            (200, "", "leases", "", "PUT", 90),
            (201, "", "events", "", "POST", 4),
        ];
        let text = text.map(|(code, dry_run, resource, subresource, verb, count)| {
            series(&label(code, dry_run, resource, subresource, verb), count)
        });
        let scrape = Scrape::from(text.concat());
        assert_eq!(scrape.writes_on(&["pods", "batchjobs"]), 51.0);
        assert_eq!((scrape.writes_on(&["events"]), scrape.writes_on(&[])), (4.0, 0.0));
    }

    #[test]
    fn the_writes_under_way_follow_from_their_times() {
        // A hundred writes of 40 ms in two seconds: two at a time (Little's law).
        let traffic = Traffic::between(&scrape(50, 10.0, 5, 0), &scrape(150, 14.0, 105, 3), 2.0);
        assert!((traffic.in_flight - 2.0).abs() < 1e-9, "{}", traffic.in_flight);
        assert!((traffic.latency - 0.04).abs() < 1e-9, "{}", traffic.latency);
        assert_eq!(traffic.writes, [(["spec".to_owned(), "pods".to_owned()], 100.0)]);
        assert_eq!(traffic.throttled, [("window".to_owned(), 3.0)]);
        assert_eq!(traffic.written(), 100.0);
        let mut page = String::new();
        let sent = Sent { title: "with a gate", things: 50, traffic: &traffic, served: 350.0 };
        section(&mut page, "pod", &[sent]).unwrap();
        assert!(
            page.ends_with("| with a gate | spec pods 2.00 | 2.0 | 40.0 ms | window 3 | 7.00 |\n"),
            "{page}"
        );
    }
}
