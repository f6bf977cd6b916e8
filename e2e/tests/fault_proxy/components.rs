//! Controller manager, scheduler and our manager through the proxy, with a fault in every tenth write.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode, Retry};
use springtide_e2e::batch::{self, GENERAL, Task, Testbed};
use springtide_e2e::fault_proxy::{Answer, At, Class, Fault, FaultProxy, Protocols, When};
use springtide_e2e::kwok::{Kwok, Stages};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{Manager, USER_AGENT};
use springtide_e2e::write_count::Verb;

const COMPLETIONS: u32 = 20;

/// Faults that any client of Kubernetes must live with.
fn faults() -> [Fault; 4] {
    [
        Fault::Refuse(Answer::unavailable()),
        Fault::Replace(Answer::gateway_timeout()),
        Fault::Reset(At::AfterCommit),
        Fault::Refuse(Answer::too_many_requests(Some(1))),
    ]
}

#[tokio::test]
async fn a_whole_control_plane_works_through_the_proxy_over_either_protocol() -> Result<()> {
    let mut cluster = LocalCluster::builder().without_controllers().start().await?;
    cluster.install_crds().await?;
    let proxies =
        [FaultProxy::start(&cluster, Protocols::All)?, FaultProxy::start(&cluster, Protocols::Http1)?];
    let mut kwok = None;
    for (round, proxy) in proxies.iter().enumerate() {
        cluster.run_controllers_through(proxy.kubeconfig()).await?;
        if kwok.is_none() {
            let nodes = batch::pool(GENERAL, 5, "32", 110);
            kwok = Some(Kwok::start(&cluster, &nodes, Stages::Lives).await?);
        }
        let name = format!("manager-{round}");
        let mut manager =
            Manager::start_with(&cluster, proxy.kubeconfig(), &name, &["--no-leader-election"]).await?;
        manager.wait_ready().await?;
        let test = Testbed::new(&cluster, "through").await?;
        let rules = (0..).zip(faults()).map(|(seed, fault)| {
            let class = Class::writes().namespace(&test.namespace);
            proxy.fault(class, When::Chance { probability: 0.025, seed }, fault)
        });
        let rules: Vec<_> = rules.collect();
        let spec = BatchJobSpec {
            completions: COMPLETIONS,
            parallelism: 5,
            completion_mode: CompletionMode::Indexed,
            retry: Retry { initial_backoff_seconds: 0, max_backoff_seconds: 0, ..Retry::default() },
            ..BatchJobSpec::new(Task::quick().template())
        };
        test.submit("job", spec).await?;
        let status = test.completed("job").await?.status.context("status")?;
        assert_eq!(status.succeeded, COMPLETIONS);
        let met: Vec<_> = rules.iter().map(|rule| proxy.hits(*rule).fired).collect();
        ensure!(met.iter().sum::<u64>() > 0, "no fault was met: {met:?}");
        proxy.clear();
        test.no_pods("job").await?;
        manager.stop()?;
        test.verify()?;

        // Each of them wrote through the proxy, the Go ones over HTTP/2 where it is offered.
        let agents: BTreeSet<_> = proxy.journal(|all| {
            let stored = all.iter().filter(|entry| entry.stored());
            stored.map(|entry| (entry.request.agent().to_owned(), entry.http2)).collect()
        });
        let http2 = round == 0;
        for (agent, http2) in [
            ("kube-controller-manager", http2),
            ("kube-scheduler", http2),
            (USER_AGENT.trim_end_matches('/'), false),
        ] {
            ensure!(agents.contains(&(agent.to_owned(), http2)), "{agent}: {agents:?}");
        }
        // Asked for, not known to be stored: a reset of the connection hides what became of its other requests.
        let bound: BTreeSet<_> = proxy.journal(|all| {
            let bindings = all.iter().filter(|entry| entry.request.resource == "pods/binding");
            let creates = bindings.filter(|entry| entry.request.verb == Verb::Create);
            creates.map(|entry| entry.request.name.clone()).collect()
        });
        ensure!(bound.len() >= COMPLETIONS as usize, "bound through the proxy: {bound:?}");
    }
    Ok(())
}
