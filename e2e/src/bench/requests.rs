//! Requests through a Service while something is done to its pods, and how many of them are lost.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::report::Goal;
use crate::node::load::{Load, Seen};
use crate::upgrade::Testbed;
use crate::upgrade::traffic::served;

/// Pods with clients. A connection that was closed keeps its port for a minute: each pod has ports of its own.
pub const CLIENTS: u32 = 2;
/// Requests a second of each of them. Half of them open a connection each: twice as many would use up the ports of a pod.
pub const RATE: u32 = 700;
/// Seconds that no control takes.
const LONG: u32 = 3600;

/// Seconds in which all clients send so many requests.
fn seconds_of(requests: u64) -> Result<u32> {
    Ok(u32::try_from(requests.div_ceil(u64::from(RATE * CLIENTS)))?)
}

/// A Service whose pods something is done to.
pub struct Asked<'a, 'b> {
    /// Where it is.
    pub test: &'a Testbed<'b>,
    /// Its name, which is not taken yet.
    pub name: &'a str,
    /// What it selects.
    pub selector: Value,
    /// Its pods when clients begin.
    pub pods: u32,
}

impl Asked<'_, '_> {
    /// Makes the Service, and does something to its pods again and again until so many requests were sent. `turn` gets the
    /// number of turns before it.
    ///
    /// # Errors
    /// A turn fails, or clients do not start, or do not say what they have seen.
    pub async fn until_sent(
        &self,
        requests: u64,
        mut turn: impl AsyncFnMut(u32) -> Result<()>,
    ) -> Result<Requests> {
        let clients = self.clients(seconds_of(requests)?).await?;
        let all_sent = Cell::new(false);
        let sent = async {
            let seen = try_join_all(clients.into_iter().map(Load::all_sent)).await;
            all_sent.set(true);
            seen
        };
        let turned = async {
            let mut turns = 0;
            while !all_sent.get() {
                turn(turns).await?;
                turns += 1;
            }
            anyhow::Ok(turns)
        };
        let (seen, turns) = tokio::try_join!(sent, turned)?;
        Ok(Requests::of(turns, seen))
    }

    /// As [`Asked::until_sent`], so often, beside requests without end.
    ///
    /// # Errors
    /// As [`Asked::until_sent`].
    pub async fn for_turns(
        &self,
        turns: u32,
        mut turn: impl AsyncFnMut(u32) -> Result<()>,
    ) -> Result<Requests> {
        let clients = self.clients(LONG).await?;
        for number in 0..turns {
            turn(number).await?;
        }
        Ok(Requests::of(turns, try_join_all(clients.into_iter().map(Load::end)).await?))
    }

    async fn clients(&self, seconds: u32) -> Result<Vec<Load>> {
        let Self { test, name, selector, pods } = self;
        let address = served(test, name, selector, *pods as usize).await?;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let pod = format!("{name}-clients-{number}");
            clients
                .push(Load::start_for(test.client(), &test.namespace, &pod, &address, RATE, seconds).await?);
        }
        Ok(clients)
    }
}

/// What clients have seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Requests {
    /// How often it was done to all pods meanwhile.
    pub turns: u32,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not, by clients that open a connection for each, and by those that keep theirs.
    pub failed: [u64; 2],
    /// Half of the answers took no longer, in seconds; of clients that open a connection for each, and of those that keep
    /// theirs, each time of the slowest pod of clients.
    pub p50: [f64; 2],
    /// As `p50`, 99 of a hundred answers.
    pub p99: [f64; 2],
    /// The slowest answer, in seconds.
    pub slowest: f64,
    /// Answers by their text.
    pub texts: BTreeMap<String, u64>,
    /// Some of the failures.
    pub failures: Vec<String>,
}

impl Requests {
    /// What all pods of clients have seen together.
    #[must_use]
    pub fn of(turns: u32, seen: Vec<Seen>) -> Self {
        let mut all = Self {
            turns,
            answered: 0,
            failed: [0; 2],
            p50: [0.0; 2],
            p99: [0.0; 2],
            slowest: 0.0,
            texts: BTreeMap::new(),
            failures: Vec::new(),
        };
        let seconds = |micros: u64| micros as f64 / 1e6;
        for Seen { new, kept, millis: _ } in seen {
            for (kind, half) in [new, kept].into_iter().enumerate() {
                all.answered += half.answered;
                all.failed[kind] += half.failed;
                all.p50[kind] = all.p50[kind].max(seconds(half.p50_micros));
                all.p99[kind] = all.p99[kind].max(seconds(half.p99_micros));
                all.slowest = all.slowest.max(seconds(half.slowest_micros));
                for (text, count) in half.texts {
                    *all.texts.entry(text).or_default() += count;
                }
                all.failures.extend(half.failures);
            }
        }
        all
    }

    /// All that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.answered + self.lost()
    }

    /// All that were not answered.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.failed.iter().sum()
    }
}

/// As it is meant, and a control that has to lose some, or else the clients would not see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compared {
    /// As it is meant.
    pub drained: Requests,
    /// The control.
    pub control: Requests,
}

impl Compared {
    /// Both, of which the former was to send so many requests.
    ///
    /// # Errors
    /// There were fewer, or the control has lost none.
    pub fn of(requests: u64, drained: Requests, control: Requests) -> Result<Self> {
        ensure!(drained.sent() >= requests, "only {} requests were sent", drained.sent());
        ensure!(control.lost() > 0, "the control has lost no request: the clients would not see it");
        Ok(Self { drained, control })
    }

    /// Its goals, whose identifiers begin with that of a row; `ways` are those of both.
    #[must_use]
    pub fn goals(&self, row: &str, ways: [&str; 2]) -> [Goal; 2] {
        let Self { drained, control } = self;
        let [meant, controlled] = ways;
        let of = |way: &str, sent: u64| format!("requests lost {way}, of {sent} through a Service");
        let seen = format!("{controlled}, which shows that the clients see it");
        let (drained_of, control_of) = (of(meant, drained.sent()), of(&seen, control.sent()));
        let goal = |id: &str| format!("{row}-{id}");
        [
            Goal::at_most(&goal("lost"), &drained_of, drained.lost() as f64, "requests", 0.0),
            Goal::at_least(&goal("control"), &control_of, control.lost() as f64, "requests", 1.0),
        ]
    }

    /// Writes the rows of a page's table, under its heading; `turns` is what was done, `text` what answers say.
    ///
    /// # Errors
    /// Never, as a page is a text.
    pub fn table(&self, page: &mut String, ways: [&str; 2], turns: &str, text: &str) -> fmt::Result {
        let Self { drained, control } = self;
        writeln!(
            page,
            "| | {turns} | requests | lost, a connection each | lost, connections kept | p50 of either, ms | p99 of either, \
             ms | slowest | answers by {text} |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|---|---|---|")?;
        for (way, requests) in ways.into_iter().zip([drained, control]) {
            let Requests { turns, failed: [new, kept], p50, p99, slowest, texts, .. } = requests;
            let texts: Vec<String> = texts.iter().map(|(text, count)| format!("{text} {count}")).collect();
            let millis = |both: &[f64; 2]| both.map(|seconds| format!("{:.1}", 1000.0 * seconds)).join(", ");
            writeln!(
                page,
                "| {way} | {turns} | {} | {new} | {kept} | {} | {} | {slowest:.2} s | {} |",
                requests.sent(),
                millis(p50),
                millis(p99),
                texts.join(", ")
            )?;
        }
        for failure in &drained.failures {
            writeln!(page, "\nLost {}: {failure}.", ways[0])?;
        }
        Ok(())
    }
}

/// How they are sent.
#[must_use]
pub fn method() -> String {
    format!(
        "{} requests a second from the networks of {CLIENTS} pods of the same node, half of them with a connection each, the \
         others on connections that are kept until the server ends them; none is sent again",
        RATE * CLIENTS
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::load::Half;

    fn half(answered: u64, failed: u64, p99_micros: u64) -> Half {
        Half {
            answered,
            failed,
            slowest_micros: 1_500_000,
            p50_micros: 500,
            p99_micros,
            texts: BTreeMap::from([("v1".to_owned(), answered)]),
            ..Half::default()
        }
    }

    #[test]
    fn all_clients_count_and_the_slowest_pod_of_them_is_told() {
        let seen = |new, kept| Seen { new, kept, millis: 1 };
        let requests = Requests::of(
            2,
            vec![seen(half(10, 1, 2000), half(20, 2, 1000)), seen(half(30, 0, 1000), half(40, 4, 3000))],
        );
        assert_eq!((requests.sent(), requests.lost(), requests.failed), (107, 7, [1, 6]));
        assert_eq!((requests.texts["v1"], requests.slowest, requests.p99), (100, 1.5, [0.002, 0.003]));
    }

    #[test]
    fn a_control_that_loses_nothing_is_an_error_and_misses() {
        let requests = |failed| Requests {
            failed: [failed, 0],
            ..Requests::of(1, vec![Seen { new: half(1_000_000, 0, 1), kept: half(0, 0, 1), millis: 1 }])
        };
        let met =
            |compared: &Compared| compared.goals("I8", ["drained", "at once"]).map(|goal| goal.is_met());
        let compared = Compared::of(1_000_000, requests(0), requests(7)).unwrap();
        assert_eq!(met(&compared), [true, true]);
        assert_eq!(met(&Compared { control: requests(0), ..compared.clone() }), [true, false]);
        assert_eq!(met(&Compared { drained: requests(1), ..compared }), [false, true]);
        Compared::of(1_000_000, requests(0), requests(0)).map(drop).unwrap_err();
        Compared::of(1_000_001, requests(0), requests(7)).map(drop).unwrap_err();
    }

    #[test]
    fn a_million_requests_take_less_than_a_quarter_of_an_hour() {
        assert!((700..900).contains(&seconds_of(1_000_000).unwrap()));
        assert_eq!(seconds_of(u64::from(RATE * CLIENTS) + 1).unwrap(), 2, "no fewer than are asked for");
    }
}
