//! Lives that are led side by side: chains of requests, whose rate is the raw limit of whoever sends as many.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::report::quantile;
use super::stats::sorted;
use crate::oracle::feed::{Feed, Fold};

/// Bound of one life: far above any that makes sense.
const LIFE: Duration = Duration::from_secs(120);

/// How the lives of a time went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lives {
    /// How many were led at once.
    pub in_flight: usize,
    /// Lives that ended a second.
    pub rate: f64,
    /// Their length in seconds: half of them, and 99 % of them, took no longer. NaN where none has ended.
    #[serde(deserialize_with = "crate::bench::stored::nan_of_null")]
    pub p50: f64,
    /// See `p50`.
    #[serde(deserialize_with = "crate::bench::stored::nan_of_null")]
    pub p99: f64,
}

/// For how long lives are led before any counts, and for how long they count. The first ones begin spread over half
/// of the time before: all at once they would also end together, and whether one more such wave falls into the
/// time that counts would be chance.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Before any counts.
    pub warm_up: Duration,
    /// In which those count that end.
    pub counted: Duration,
}

/// Leads `in_flight` lives at a time, each followed by another until the window is over. `life` gets a number
/// of its own from `first` on, which is raised by as many as there were.
///
/// # Errors
/// A life fails, or takes two minutes.
pub async fn lead<F>(
    in_flight: usize,
    window: Window,
    first: &mut usize,
    life: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Lives>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let from = Instant::now() + window.warm_up;
    let to = from + window.counted;
    let next = Arc::new(AtomicUsize::new(*first));
    let mut lanes = JoinSet::new();
    for lane in 0..in_flight {
        let (next, life) = (Arc::clone(&next), life.clone());
        let delay = window.warm_up.mul_f64(0.5 * lane as f64 / in_flight as f64);
        lanes.spawn(async move {
            tokio::time::sleep(delay).await;
            let mut lengths = Vec::new();
            while Instant::now() < to {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let began = Instant::now();
                let led = timeout(LIFE, life(number)).await;
                led.with_context(|| format!("life {number} does not end"))??;
                let ended = Instant::now();
                if (from..to).contains(&ended) {
                    lengths.push((ended - began).as_secs_f64());
                }
            }
            anyhow::Ok(lengths)
        });
    }
    let mut lengths = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        lengths.extend(lane??);
    }
    *first = next.load(Ordering::Relaxed);
    let lengths = sorted(lengths);
    Ok(Lives {
        in_flight,
        rate: lengths.len() as f64 / window.counted.as_secs_f64(),
        p50: quantile(&lengths, 0.5),
        p99: quantile(&lengths, 0.99),
    })
}

/// Leads lives as [`lead`] does with each number in flight, one after the other, and says so. `what` is what a life is about.
///
/// # Errors
/// As [`lead`].
pub async fn sweep<F>(
    in_flight: &[usize],
    window: Window,
    what: &str,
    life: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Vec<Lives>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (mut first, mut sweep) = (0, Vec::new());
    for in_flight in in_flight {
        let lives = lead(*in_flight, window, &mut first, life.clone()).await?;
        eprintln!("      raw, {in_flight} in flight: {:.1} {what}/s, p99 {:.2} s", lives.rate, lives.p99);
        sweep.push(lives);
    }
    Ok(sweep)
}

/// Things of which each rings a bell of its own when it has changed: of thousands who wait, each is woken for its own.
pub trait Belled {
    /// One of them.
    type Thing;

    /// The one of a UID.
    fn thing(&self, uid: &str) -> Option<&Self::Thing>;

    /// Its bell.
    fn bell(thing: &Self::Thing) -> &Arc<Notify>;
}

/// Waits until the thing of a UID is as `met` has it; a life that takes too long is ended from outside.
///
/// # Errors
/// It was not there when it began.
pub async fn until<F: Fold + Belled>(
    feed: &Feed<F>,
    uid: &str,
    met: impl Fn(&F::Thing) -> bool,
) -> Result<()> {
    let bell = feed.now().thing(uid).map(F::bell).cloned().context("what was there is gone")?;
    loop {
        let rung = bell.notified();
        tokio::pin!(rung);
        rung.as_mut().enable();
        if feed.now().thing(uid).is_some_and(&met) {
            return Ok(());
        }
        rung.await;
    }
}

/// Writes the rows of a sweep under the head of a page's table, each with a title. `what` is what a life is about.
///
/// # Errors
/// Never, as a page is a text.
pub fn table(page: &mut String, what: &str, sweeps: &[(&str, &[Lives])]) -> fmt::Result {
    writeln!(page, "\n| without a controller | in flight | {what}s/s | p50 of a {what} | p99 |")?;
    writeln!(page, "|---|---|---|---|---|")?;
    for (title, sweep) in sweeps {
        for Lives { in_flight, rate, p50, p99 } in *sweep {
            writeln!(page, "| {title} | {in_flight} | {rate:.1} | {p50:.2} s | {p99:.2} s |")?;
        }
    }
    Ok(())
}

/// The best of a sweep: the highest rate whose lives are short enough; of none that is, none.
#[must_use]
pub fn best(sweep: &[Lives], longest_p99: f64) -> Option<&Lives> {
    let fitting = sweep.iter().filter(|lives| lives.p99 < longest_p99);
    fitting.max_by(|one, other| one.rate.total_cmp(&other.rate))
}

/// Of several tries of the same, the one whose rate is in the middle; of none, none.
#[must_use]
pub fn middle(mut tries: Vec<Lives>) -> Option<Lives> {
    tries.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let place = tries.len() / 2;
    tries.into_iter().nth(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(in_flight: usize, rate: f64, p99: f64) -> Lives {
        Lives { in_flight, rate, p50: p99 / 2.0, p99 }
    }

    #[test]
    fn the_best_is_the_fastest_that_is_quick_enough() {
        let sweep = [lives(8, 90.0, 0.2), lives(64, 140.0, 0.9), lives(256, 160.0, 2.0)];
        assert_eq!(best(&sweep, 1.0).map(|lives| lives.in_flight), Some(64));
        assert_eq!(best(&sweep, f64::INFINITY).map(|lives| lives.in_flight), Some(256));
        assert!(best(&sweep, 0.1).is_none());
        // Without a life there is no p99.
        assert!(best(&[lives(1, 0.0, f64::NAN)], f64::INFINITY).is_none());
    }

    #[test]
    fn the_try_in_the_middle_counts() {
        let tries = vec![lives(1, 30.0, 0.1), lives(1, 10.0, 0.3), lives(1, 20.0, 0.2)];
        assert_eq!(middle(tries).map(|lives| (lives.rate, lives.p99)), Some((20.0, 0.2)));
        assert!(middle(Vec::new()).is_none());
    }

    #[tokio::test]
    async fn every_life_has_a_number_of_its_own_and_the_next_run_goes_on_from_there() {
        let window = Window { warm_up: Duration::ZERO, counted: Duration::from_millis(50) };
        let numbers = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut first = 7;
        for _ in 0..2 {
            let numbers = Arc::clone(&numbers);
            let life = move |number| {
                let numbers = Arc::clone(&numbers);
                async move {
                    numbers.lock().unwrap().push(number);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok(())
                }
            };
            lead(3, window, &mut first, life).await.unwrap();
        }
        let mut numbers = numbers.lock().unwrap().clone();
        numbers.sort_unstable();
        assert_eq!(numbers, (7..first).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_sweep_goes_on_with_numbers_where_it_was() {
        let window = Window { warm_up: Duration::ZERO, counted: Duration::from_millis(30) };
        let most = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        let life = move |number| {
            // No number comes twice.
            assert!(number == 0 || seen.fetch_max(number, Ordering::Relaxed) < number);
            async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(())
            }
        };
        let sweep = sweep(&[1, 1], window, "pods", life).await.unwrap();
        assert!(sweep.iter().map(|lives| lives.in_flight).eq([1, 1]));
        let mut page = String::new();
        table(&mut page, "pod", &[("with a gate", &[lives(8, 90.0, 0.2)])]).unwrap();
        assert!(
            page.ends_with("| p99 |\n|---|---|---|---|---|\n| with a gate | 8 | 90.0 | 0.10 s | 0.20 s |\n")
        );
    }

    #[tokio::test]
    async fn a_life_that_fails_ends_the_run() {
        let window = Window { warm_up: Duration::ZERO, counted: Duration::from_secs(600) };
        let failed = lead(2, window, &mut 0, |number| async move { anyhow::bail!("life {number}") }).await;
        assert!(failed.unwrap_err().to_string().starts_with("life "));
    }

    #[test]
    fn a_figure_that_is_none_is_none_when_it_is_read() {
        let lives = Lives { in_flight: 8, rate: 0.0, p50: f64::NAN, p99: f64::NAN };
        let text = serde_json::to_string(&lives).unwrap();
        let read: Lives = serde_json::from_str(&text).unwrap();
        assert_eq!((read.in_flight, read.rate), (8, 0.0));
        assert!(read.p50.is_nan() && read.p99.is_nan(), "{text}");
        serde_json::from_str::<Lives>(&text.replace("p99", "p95")).map(drop).unwrap_err();
    }
}
