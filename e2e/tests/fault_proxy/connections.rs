//! Faults of whole connections, and whose name a request bears.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use springtide_e2e::fault_proxy::{FaultProxy, Handshake, Protocols};
use tokio::time::timeout;

use super::{Rig, cluster};

/// In which an answer would have come.
const MOMENT: Duration = Duration::from_secs(2);
/// Far more than an answer takes.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn connections_are_reset_freeze_and_fail_in_the_handshake() -> Result<()> {
    let rig = Rig::new("links").await?;
    rig.create("a").await?;
    // The pool has a connection that vanishes without a word.
    rig.proxy.freeze_connections();
    ensure!(timeout(MOMENT, rig.maps.get("a")).await.is_err(), "a frozen connection answers");
    // The next request takes a new one, as the frozen one is still in use.
    let frozen = rig.maps.get("a");
    tokio::pin!(frozen);
    rig.proxy.reset_connections();
    let answer = timeout(SOON, &mut frozen).await.context("a reset ends the wait")?;
    drop(answer);
    rig.maps.get("a").await?;

    rig.proxy.reset_connections();
    rig.proxy.on_connect(Handshake::Reset);
    let mut refused = rig.maps.get("a").await;
    if refused.is_ok() {
        // The reset of the old connection may come behind a request on it.
        refused = rig.maps.get("a").await;
    }
    ensure!(refused.is_err());
    rig.proxy.on_connect(Handshake::Silence);
    ensure!(timeout(MOMENT, rig.maps.get("a")).await.is_err(), "a silent server answers");
    rig.proxy.on_connect(Handshake::Complete);
    rig.maps.get("a").await?;
    Ok(())
}

#[tokio::test]
async fn kubectl_speaks_either_protocol_and_each_client_keeps_its_name() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.create_namespace("kubectl").await?;
    for (protocols, http2) in [(Protocols::All, true), (Protocols::Http1, false)] {
        let proxy = FaultProxy::start(cluster, protocols)?;
        let user = format!("user-{http2}");
        let kubeconfig = proxy.kubeconfig_for(cluster, &user, "system:masters")?;
        let mark = cluster.audit_log()?.mark()?;
        let name = format!("map-{http2}");
        let way = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--namespace", &namespace];
        let output = cluster.kubectl(&[&way[..], &["create", "configmap", &name]].concat()).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let whoami = cluster.kubectl(&[&way[..], &["auth", "whoami"]].concat()).await?;
        let whoami = String::from_utf8(whoami.stdout)?;
        ensure!(whoami.contains(&user), "{whoami}");
        ensure!(proxy.journal(|all| all.iter().all(|entry| entry.http2 == http2)));
        let (named, stored) = proxy.journal(|all| {
            // kubectl's bodies are protobuf, in which nobody looks for a name.
            let entry = all.iter().find(|entry| entry.request.resource == "configmaps").unwrap();
            (entry.request.user == user, entry.stored())
        });
        ensure!(named && stored);
        let audited = cluster.audit_log()?.since(mark)?.by_user(&user).writes();
        assert_eq!(audited.len(), 1, "{audited}");

        // Without a certificate a token counts, and a wrong one does not.
        let server = &kube::config::Kubeconfig::read_from(&kubeconfig)?.clusters[0];
        let server = server.cluster.as_ref().unwrap().server.clone().unwrap();
        let token = cluster.kubectl(&["create", "token", "default", "--namespace", &namespace]).await?;
        let token = String::from_utf8(token.stdout)?;
        let authority = cluster.pki().authority_certificate();
        let with = |token: &str| {
            [
                "--kubeconfig=/dev/null".to_owned(),
                format!("--server={server}"),
                format!("--certificate-authority={}", authority.display()),
                format!("--token={}", token.trim()),
                "auth".to_owned(),
                "whoami".to_owned(),
            ]
        };
        for (token, expected) in
            [(token.as_str(), "system:serviceaccount:kubectl"), ("wrong", "must be logged in")]
        {
            let args = with(token);
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            let output = cluster.kubectl(&args).await?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            ensure!(said.contains(expected), "{said}");
        }
    }
    Ok(())
}
