//! Load on a server of `springtide-box`, from the node's own network or from a pod's.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use serde::Deserialize;
use serde_json::json;

use super::NodeCluster;
use super::program::{BOX_IMAGE, box_program};

/// Keeps the status of a client that was told to end.
const FINALIZER: &str = "springtide.dev/load";
/// Bound for a pod to run, and to end.
const BOUND: Duration = Duration::from_secs(120);

/// Sends `rate` requests a second for `seconds` from the node to a server of the verb `serve`, and gives the latencies
/// in milliseconds, in no order. `by` is a command that runs the client, given after it; empty for none. Blocks the thread.
///
/// # Errors
/// The server is not there, or leaves a request without an answer.
pub fn latencies(
    cluster: &NodeCluster,
    by: &[&str],
    address: &str,
    rate: u32,
    seconds: u32,
) -> Result<Vec<f64>> {
    let program = box_program()?;
    let program = program.to_str().context("the path of springtide-box")?;
    let (rate, seconds) = (rate.to_string(), seconds.to_string());
    let line = [by, &[program, "ask", address, &rate, &seconds]].concat();
    let (program, args) = line.split_first().context("a command")?;
    milliseconds(&cluster.run_inside(program, args)?)
}

/// From microseconds, one a line.
fn milliseconds(printed: &str) -> Result<Vec<f64>> {
    let millis = |line: &str| anyhow::Ok(line.trim().parse::<f64>()? / 1000.0);
    let latencies: Vec<f64> = printed.lines().map(millis).collect::<Result<_>>()?;
    ensure!(!latencies.is_empty(), "no request was answered");
    Ok(latencies)
}

/// What clients have seen that treat connections alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Half {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not: refused, reset, or without an answer for five seconds. None was sent again.
    pub failed: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// The slowest request, in microseconds.
    pub slowest_micros: u64,
    /// Half of the requests that were answered took no longer, in microseconds.
    pub p50_micros: u64,
    /// And 99 of a hundred.
    pub p99_micros: u64,
    /// Answers by their text.
    pub texts: BTreeMap<String, u64>,
    /// The first failures.
    pub failures: Vec<String>,
}

/// What the clients of a [`Load`] have seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Seen {
    /// Those that open a connection for each request.
    pub new: Half,
    /// Those that keep theirs until the server ends it by `Connection: close`.
    pub kept: Half,
    /// From the first request to the last answer, in milliseconds.
    pub millis: u64,
}

impl Seen {
    /// Requests that were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.new.answered + self.kept.answered
    }

    /// Requests that were not.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.new.failed + self.kept.failed
    }

    /// Requests a second, answered or not.
    #[must_use]
    pub fn rate(&self) -> u64 {
        (self.answered() + self.failed()) * 1000 / self.millis.max(1)
    }

    /// # Errors
    /// A request was not answered.
    pub fn ensure_none_failed(&self) -> Result<()> {
        ensure!(self.failed() == 0, "requests failed: {self:?}");
        Ok(())
    }
}

/// A pod that sends requests from its own network namespace until it is told to end, or has sent all.
pub struct Load {
    pods: Api<Pod>,
    name: String,
    /// For how long it sends them.
    time: Duration,
}

impl Load {
    /// Starts the pod `name`, which sends `rate` requests a second to the server of the verb `http` at `address`, an IP
    /// address with a port; returns when it runs.
    ///
    /// # Errors
    /// It does not come to run.
    pub async fn start(
        client: kube::Client,
        namespace: &str,
        name: &str,
        address: &str,
        rate: u32,
    ) -> Result<Self> {
        // Longer than anything that is tested; `end` is its end.
        Self::start_for(client, namespace, name, address, rate, u32::MAX / rate.max(1)).await
    }

    /// As [`Load::start`], for so many seconds: `rate * seconds` requests, some of which come later where the machine has no
    /// time. [`Load::all_sent`] waits for the last one.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub async fn start_for(
        client: kube::Client,
        namespace: &str,
        name: &str,
        address: &str,
        rate: u32,
        seconds: u32,
    ) -> Result<Self> {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "finalizers": [FINALIZER]},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": BOX_IMAGE,
                    "args": ["load", address, rate.to_string(), seconds.to_string()],
                }],
            },
        }))
        .context("the manifest of the clients")?;
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        pods.create(&PostParams::default(), &pod).await.with_context(|| format!("create the pod {name}"))?;
        let load = Self { pods, name: name.to_owned(), time: Duration::from_secs(seconds.into()) };
        load.until(BOUND, conditions::is_pod_running()).await.context("the clients run")?;
        Ok(load)
    }

    /// Waits until it has sent all of its requests, and gives what its clients have seen.
    ///
    /// # Errors
    /// It takes more than thrice its time, or has not told what it has seen.
    pub async fn all_sent(self) -> Result<Seen> {
        let ended = |pod: Option<&Pod>| pod.is_some_and(|pod| end(pod).is_some());
        self.until(BOUND.saturating_add(self.time.saturating_mul(3)), ended)
            .await
            .context("all requests are sent")?;
        self.end().await
    }

    /// Ends it, and gives what its clients have seen.
    ///
    /// # Errors
    /// It does not end, or has not told what it has seen.
    pub async fn end(self) -> Result<Seen> {
        self.pods.delete(&self.name, &DeleteParams::default()).await?;
        let pod = self.until(BOUND, |pod: Option<&Pod>| pod.is_some_and(|pod| end(pod).is_some())).await;
        let release = json!({"metadata": {"finalizers": null}});
        self.pods.patch(&self.name, &PatchParams::default(), &Patch::Merge(release)).await?;
        let pod = pod.context("the clients end")?.context("the pod of the clients is gone")?;
        let end = end(&pod).context("an end")?;
        ensure!(end.exit_code == 0, "the clients failed: {end:?}");
        serde_json::from_str(end.message.as_deref().unwrap_or_default())
            .with_context(|| format!("not what clients say: {end:?}"))
    }

    async fn until(
        &self,
        bound: Duration,
        condition: impl kube::runtime::wait::Condition<Pod>,
    ) -> Result<Option<Pod>> {
        let waited = tokio::time::timeout(bound, await_condition(self.pods.clone(), &self.name, condition));
        Ok(waited.await.with_context(|| format!("not within {bound:?}"))??)
    }
}

fn end(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.first()?.state.as_ref()?.terminated.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_read_in_milliseconds() {
        assert_eq!(milliseconds("1500\n700\n\n".trim()).unwrap(), [1.5, 0.7]);
        milliseconds("").unwrap_err();
        milliseconds("soon").unwrap_err();
    }

    #[test]
    fn a_failed_request_of_either_half_is_an_error() {
        let half = r#"{"answered":7,"failed":0,"connections":1,"slowestMicros":9,"p50Micros":2,"p99Micros":8,"texts":{"v1":7},"failures":[]}"#;
        let mut seen: Seen =
            serde_json::from_str(&format!(r#"{{"new":{half},"kept":{half},"millis":500}}"#)).unwrap();
        assert_eq!((seen.answered(), seen.rate()), (14, 28));
        seen.ensure_none_failed().unwrap();
        seen.kept.failed = 1;
        seen.ensure_none_failed().unwrap_err();
    }
}
