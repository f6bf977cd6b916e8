//! What a Prometheus says of a service, as a guard of work on live pods.
//!
//! - [`Address`] is what an object may name, if the manager's configuration lists it.
//! - [`MetricQueries`] asks: a task beside the controllers, of which planners know nothing but the last answers.
//! - [`judge`] says what these answers mean for a [`MetricGate`].
//!
//! Answers are a memory of the process. A new leader has none, and asks at once.

mod address;
mod answer;
mod ask;
mod book;
mod judge;
mod measures;

pub use address::{Address, InvalidAddress, addresses_schema};
pub use judge::{MetricVerdict, judge};

use crate::clock::Clock;
use crate::key::{ObjectKey, Resource};
use crate::outbound::{AddressPolicy, Connector};
use ask::ask;
use book::{Book, Query};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use measures::Measures;
use prometheus_client::registry::Registry;
use springtide_crds::common::MetricGate;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// Queries of all objects together that are on their way at once.
const IN_FLIGHT_MAX: usize = 16;

/// Who wants to know: an object. Those of two kinds may bear one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Its kind.
    pub resource: Resource,
    /// Namespace and name.
    pub key: ObjectKey,
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it came.
    pub time: Timestamp,
    /// What it says.
    pub reading: Reading,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// A number, possibly infinite, never NaN.
    Value(f64),
    /// The expression gives nothing, or no number (as a rate of nothing over nothing does).
    NoData,
    /// There is no answer, or none that could be read; why, in words of bounded length.
    Error(Arc<str>),
}

/// What the manager's configuration says of queries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuerySettings {
    /// File of the certificates (PEM) of the authorities that a Prometheus is trusted by; those of the system where there
    /// is no such file.
    pub ca_file: PathBuf,
    /// The addresses that may be asked. What they resolve to is not judged.
    pub allowed: Vec<Address>,
}

/// Asks for as long as somebody wants to know. It is shared by the controllers, whose objects are the owners of queries.
pub struct MetricQueries {
    allowed: Vec<Address>,
    connector: Connector,
    book: Mutex<Book>,
    /// Another query may be due.
    news: Notify,
    measures: Measures,
}

impl MetricQueries {
    /// Nothing is asked before [`MetricQueries::run`].
    pub fn new(settings: QuerySettings) -> Self {
        let QuerySettings { ca_file, allowed } = settings;
        Self {
            allowed,
            connector: Connector::new(ca_file, AddressPolicy::unrestricted()),
            book: Mutex::default(),
            news: Notify::new(),
            measures: Measures::default(),
        }
    }

    /// Makes what is measured of queries part of what is scraped.
    pub fn register(&self, registry: &mut Registry) {
        self.measures.register(registry);
    }

    /// Why the Prometheus of an address is not asked, with the remedy; `None` if it may be.
    pub fn refusal(&self, address: &str) -> Option<String> {
        match address.parse::<Address>() {
            Err(error) => Some(error.to_string()),
            Ok(address) if self.allowed.contains(&address) => None,
            Ok(address) => Some(format!(
                "{address} is not among metricQueries.allowedAddresses of the manager's configuration"
            )),
        }
    }

    /// What an object wants to know from now on, in the place of what it wanted before; nothing ends it. What is
    /// [refused](MetricQueries::refusal) is not asked.
    ///
    /// Answers to a query whose address and expression stay are kept.
    pub fn want<'a>(&self, owner: &Owner, gates: impl IntoIterator<Item = &'a MetricGate>) {
        let queries = gates.into_iter().filter_map(|gate| {
            let address = gate.prometheus.address.parse().ok()?;
            self.allowed.contains(&address).then(|| {
                let interval = Duration::from_secs(gate.interval_seconds.into());
                let expression = Arc::from(gate.prometheus.query.as_str());
                let kept = gate.failure_limit as usize;
                (Arc::from(gate.name.as_str()), Query { address, expression, interval, kept })
            })
        });
        self.book().want(owner, queries.collect(), Instant::now());
        self.news.notify_one();
    }

    /// The last answers to a query of an object, the oldest first.
    pub fn history(&self, owner: &Owner, name: &str) -> Vec<Sample> {
        self.book().history(owner, name)
    }

    /// Asks for ever, while the process leads, and tells of each owner that has an answer.
    pub async fn run(
        self: Arc<Self>,
        clock: Clock,
        mut leading: watch::Receiver<bool>,
        tell: impl Fn(&Owner) + Send,
    ) {
        let mut asked = FuturesUnordered::new();
        loop {
            let leads = *leading.borrow_and_update();
            let mut wake = None;
            while leads && asked.len() < IN_FLIGHT_MAX {
                match self.book().next(Instant::now()) {
                    Ok(ticket) => {
                        let queries = Arc::clone(&self);
                        asked.push(async move {
                            let (query, begun) = (ticket.query(), Instant::now());
                            let reading = ask(&queries.connector, &query.address, &query.expression).await;
                            queries.measures.answered(&reading, begun.elapsed());
                            (ticket, reading)
                        });
                    }
                    Err(at) => {
                        wake = at;
                        break;
                    }
                }
            }
            tokio::select! {
                Some((ticket, reading)) = asked.next() => {
                    if self.book().answered(&ticket, Sample { time: clock.now(), reading }, Instant::now()) {
                        tell(ticket.owner());
                    }
                }
                () = self.news.notified() => {}
                changed = leading.changed() => {
                    if changed.is_err() {
                        // Nobody can lead any more: the process is ending.
                        return pending().await;
                    }
                }
                () = async {
                    match wake {
                        Some(at) => sleep_until(at).await,
                        None => pending().await,
                    }
                } => {}
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    fn gate(name: &str, address: &str) -> MetricGate {
        let prometheus = json!({"address": address, "query": "up"});
        serde_json::from_value(json!({"name": name, "prometheus": prometheus, "failureBelow": "1"})).unwrap()
    }

    #[tokio::test]
    async fn who_leads_asks_what_is_wanted_and_tells_the_owner_and_nobody_else_is_asked() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let allowed = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let body = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let settings = QuerySettings { allowed: vec![allowed.parse().unwrap()], ..QuerySettings::default() };
        let queries = Arc::new(MetricQueries::new(settings));
        assert_eq!(queries.refusal(&format!("{allowed}/")), None);
        assert!(queries.refusal("http://other").unwrap().contains("metricQueries.allowedAddresses"));
        assert!(queries.refusal("other").unwrap().contains("no address"));

        let owner = Owner { resource: Resource::POD, key: ObjectKey::new("ns", "web") };
        queries.want(&owner, &[gate("listed", &allowed), gate("other", "http://127.0.0.1:1")]);
        let (leads, leading) = watch::channel(false);
        let (told, mut tellings) = mpsc::unbounded_channel();
        let tell = move |owner: &Owner| drop(told.send(owner.clone()));
        let running = tokio::spawn(Arc::clone(&queries).run(Clock::system(), leading, tell));
        tokio::task::yield_now().await;
        assert!(queries.history(&owner, "listed").is_empty());
        leads.send(true).unwrap();
        assert_eq!(tellings.recv().await, Some(owner.clone()));
        let history = queries.history(&owner, "listed");
        assert!(matches!(history.as_slice(), [Sample { reading: Reading::Value(2.0), .. }]), "{history:?}");
        assert!(queries.history(&owner, "other").is_empty());
        queries.want(&owner, &[]);
        assert!(queries.history(&owner, "listed").is_empty());
        running.abort();
    }
}
