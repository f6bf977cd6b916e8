//! What can be done to etcd beneath a running API server.

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{LocalCluster, STOP, components};

impl LocalCluster {
    /// Ends etcd by `signal` and starts it again with the same state. Returns when it accepts connections;
    /// the API server finds it again by itself.
    ///
    /// # Errors
    /// It does not accept connections again.
    pub async fn restart_etcd(&mut self, signal: Signal) -> Result<()> {
        let Some(etcd) = self.etcd.take() else {
            bail!("etcd is not running");
        };
        etcd.stop(signal, STOP)?;
        self.start_etcd().await
    }

    /// Compacts etcd's history up to now, and gives the revision: nothing older can be read or watched
    /// from there any more. The API server's own watch cache keeps what it holds.
    ///
    /// # Errors
    /// etcd refuses it.
    pub async fn compact_etcd(&self) -> Result<u64> {
        let status = self.etcd_call("/v3/maintenance/status", &json!({})).await?;
        let revision = status["header"]["revision"].as_str().context("a status with its revision")?;
        self.etcd_call("/v3/kv/compaction", &json!({"revision": revision, "physical": true})).await?;
        revision.parse().context("a revision")
    }

    /// The alarms that etcd has raised, such as `NOSPACE`: while that one is up, nothing can be written.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn etcd_alarms(&self) -> Result<Vec<String>> {
        let alarms = self.alarms().await?;
        Ok(alarms.iter().filter_map(|alarm| alarm["alarm"].as_str()).map(str::to_owned).collect())
    }

    /// What an administrator does about a full etcd once things have been deleted: compacts its history,
    /// defragments its file, and takes its alarms back.
    ///
    /// # Errors
    /// etcd refuses one of them.
    pub async fn free_etcd(&self) -> Result<()> {
        self.compact_etcd().await?;
        self.etcd_call("/v3/maintenance/defragment", &json!({})).await?;
        for alarm in self.alarms().await? {
            let end = json!({"action": "DEACTIVATE", "memberID": alarm["memberID"], "alarm": alarm["alarm"]});
            self.etcd_call("/v3/maintenance/alarm", &end).await?;
        }
        Ok(())
    }

    async fn alarms(&self) -> Result<Vec<Value>> {
        let answer = self.etcd_call("/v3/maintenance/alarm", &json!({"action": "GET"})).await?;
        // Absent where there are none.
        Ok(answer["alarms"].as_array().cloned().unwrap_or_default())
    }

    /// A call of etcd's JSON gateway.
    async fn etcd_call(&self, path: &str, body: &Value) -> Result<Value> {
        let socket = components::etcd_socket(&self.folder);
        let mut stream =
            UnixStream::connect(&socket).await.with_context(|| format!("connect to {}", socket.display()))?;
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.0\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.context("send to etcd")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.context("read from etcd")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer of etcd")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("etcd {path}: {body}");
        }
        serde_json::from_str(body).context("etcd's JSON")
    }
}
