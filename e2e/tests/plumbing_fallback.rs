//! An API server that cannot stream lists: each kind is listed once, by a consistent LIST that its watch cache serves
//! whole, and is watched from there.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use springtide_crds::batch_job::BatchJobSpec;
use springtide_e2e::batch::{GENERAL, Task, Testbed, pool};
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::manager::{Manager, USER_AGENT};
use springtide_e2e::write_count::Verb;

#[tokio::test]
async fn without_streaming_lists_each_kind_is_listed_once_and_whole() -> Result<()> {
    let builder = LocalCluster::builder().kwok(pool(GENERAL, 2, "32", 110));
    let cluster =
        builder.extra_args(Component::ApiServer, ["--feature-gates=WatchList=false"]).start().await?;
    cluster.install_crds().await?;
    let mut manager = Manager::start(&cluster, "manager", &[]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "plain").await?;
    test.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("job").await?;
    test.no_pods("job").await?;
    manager.stop()?;

    let own = cluster.audit_log()?.all()?.by_agent(USER_AGENT);
    let lists = own.of_verb(Verb::List).successful();
    let mut by_kind: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for list in lists.requests() {
        ensure!(!list.asks("limit=") && !list.asks("continue="), "a paged list: {}", list.query);
        ensure!(!list.asks("resourceVersion=0"), "a list of any age: {}", list.query);
        *by_kind.entry((&list.resource, list.field_selector())).or_default() += 1;
    }
    ensure!(by_kind.contains_key(&("pods", "")) && by_kind.contains_key(&("batchjobs", "")), "{lists}");
    ensure!(by_kind.values().all(|count| *count == 1), "{lists}");
    // The first refusal spares the other kinds theirs: all begin within an instant, so some may have asked too.
    let watches = own.of_verb(Verb::Watch).successful();
    let streamed = watches.filter(|watch| watch.query.contains("sendInitialEvents"));
    ensure!(streamed.is_empty(), "{streamed}");
    test.verify()
}
