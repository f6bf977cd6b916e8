//! The composition root: the one place that shows what runs in the process and what is joined to what.

mod shared;

use crate::logging::LogLevel;
use crate::options::{Configured, ControllerName, enabled, mode};
use crate::reload::{Live, Measures, Reloader};
use crate::tasks::{Joined, Tasks};
use anyhow::{Context, Result};
use futures::FutureExt;
use shared::{Part, Shared};
use springtide_batch_job::archive::{Delivery, DeliverySettings};
use springtide_batch_job::{
    BatchJobReconciler, BatchJobWarrants, BatchQueueReconciler, ProfileReconciler, Settings, Stores,
};
use springtide_in_place_upgrade::projections::upgrade::IN_PLACE_UPGRADE;
use springtide_in_place_upgrade::{GateKeeper, InPlaceUpgradeReconciler, InPlaceUpgradeWarrants};
use springtide_plumbing::brake::{self, Brake};
use springtide_plumbing::breaker::{self, Breaker, BreakerKeeper};
use springtide_plumbing::budget::WriteBudget;
use springtide_plumbing::client::{Connection, Reader};
use springtide_plumbing::clock::Clock;
use springtide_plumbing::config_map::ConfigMapView;
use springtide_plumbing::controller::Reconciler;
use springtide_plumbing::guard::Mode;
use springtide_plumbing::health::{Health, HealthServer};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::lease::{
    Elector, LEASE_NAME, Leadership, LeaseConfig, LeaseView, boot_clock, observe,
};
use springtide_plumbing::metric_query::{MetricQueries, Owner, QuerySettings};
use springtide_plumbing::metrics::{BudgetSource, GuardSource, LeaderSource, Metrics, StoreSource};
use springtide_plumbing::queue::WorkQueue;
use springtide_plumbing::rights::{self, Rights};
use springtide_plumbing::time_share::TIME_SHARE_GROUP;
use springtide_plumbing::warrant::NoWarrants;
use springtide_plumbing::watch::{RegistrationError, Scope, Selector, WatchSet};
use springtide_time_share_group::{TimeShareGroupReconciler, TimeShareGroupWarrants};
use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long passes under way may take to end after SIGTERM: a write takes 10 s at most.
const DRAIN_BOUND: Duration = Duration::from_secs(20);
/// How long all else may take after that, the release of the Lease above all. Both are within the 30 s
/// that a pod has by default.
const END_BOUND: Duration = Duration::from_secs(8);

impl ControllerName {
    /// The loops that it runs.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::BatchJob => {
                &[BatchJobReconciler::NAME, BatchQueueReconciler::NAME, ProfileReconciler::NAME]
            }
            Self::InPlaceUpgrade => &[InPlaceUpgradeReconciler::NAME, GateKeeper::NAME],
            Self::TimeShareGroup => {
                &[TimeShareGroupReconciler::NAME, springtide_time_share_group::GateKeeper::NAME]
            }
        }
    }

    /// What it may ask of the API server.
    fn rights(self) -> Rights {
        match self {
            Self::BatchJob => springtide_batch_job::RIGHTS,
            Self::InPlaceUpgrade => springtide_in_place_upgrade::RIGHTS,
            Self::TimeShareGroup => springtide_time_share_group::RIGHTS,
        }
    }

    /// Registers what it watches: of a controller that does not run nothing is kept in memory.
    fn register(self, watches: &mut WatchSet, scope: &Scope) -> Result<Registered, RegistrationError> {
        Ok(match self {
            Self::BatchJob => Registered::BatchJob(Stores::register(watches, scope)?),
            Self::InPlaceUpgrade => {
                Registered::InPlaceUpgrade(springtide_in_place_upgrade::Stores::register(watches, scope)?)
            }
            Self::TimeShareGroup => {
                Registered::TimeShareGroup(springtide_time_share_group::Stores::register(watches, scope)?)
            }
        })
    }
}

/// A controller that is to run, with the stores of its own. Those of several controllers may be filled by one watch.
enum Registered {
    BatchJob(Stores),
    InPlaceUpgrade(springtide_in_place_upgrade::Stores),
    TimeShareGroup(springtide_time_share_group::Stores),
}

/// Who is told that there is news of the metrics of an object.
type Told = Box<dyn Fn(&Owner) + Send + Sync>;

/// Runs the manager until `shutdown` resolves, then drains: passes under way end, the Lease is given back.
///
/// # Errors
/// A part of the process that cannot start, or that ended though nobody asked it to; the error names it.
/// Or that of `shutdown`.
pub async fn run(
    mut configured: Configured,
    log_level: LogLevel,
    shutdown: impl Future<Output = Result<()>>,
) -> Result<()> {
    // First of all: a process without these handlers dies of the signals.
    let signals = brake::Signals::install().context("handle SIGUSR1 and SIGUSR2")?;
    let identity = configured.identity().to_owned();
    let Configured { args, text, configuration } = configured;
    let controllers = enabled(&configuration);
    let agent = |purpose: &str| format!("springtide/{} {purpose} {identity}", env!("CARGO_PKG_VERSION"));
    let connection = Connection::load(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
    let keeper = BreakerKeeper::NAME;
    let names: Vec<_> =
        controllers.iter().flat_map(|controller| controller.names()).copied().chain([keeper]).collect();
    let metrics = Arc::new(Metrics::new(&names));
    let connection = connection.measured(&metrics);

    // Reads: one watch per kind (and namespace, where not all are in scope), shared by all controllers.
    let scope = configuration.scope.scope();
    if let Scope::Namespaces(_) = &scope {
        tracing::info!(
            %scope,
            "namespaced mode: nothing outside of these namespaces is seen or touched, and no node: a BatchJob has few \
             pods that wait for the scheduler in place of a count of what fits"
        );
    }
    let seed = rand::random();
    let tables = controllers.iter().map(|controller| controller.rights());
    let mut watches = WatchSet::new(seed).within([rights::OWN].into_iter().chain(tables));
    let registered = controllers
        .iter()
        .map(|controller| controller.register(&mut watches, &scope))
        .collect::<Result<Vec<_>, _>>()?;
    // Named objects of the manager's own namespace: watched by name, so that no right to others is needed.
    let leader_election = &configuration.leader_election;
    let namespace =
        leader_election.namespace.as_deref().unwrap_or_else(|| connection.default_namespace()).to_owned();
    let own = Scope::of([namespace.as_str()]);
    let named = Selector::named;
    let brake_map = watches.add::<ConfigMapView>(own.clone(), named(brake::CONFIG_MAP), &[])?;
    let breaker_map = watches.add::<ConfigMapView>(own.clone(), named(breaker::CONFIG_MAP), &[])?;
    let election = if !leader_election.enabled {
        None
    } else {
        let key = ObjectKey::new(namespace.as_str(), LEASE_NAME);
        let store = watches.add::<LeaseView>(own, named(LEASE_NAME), &[])?;
        let times = args.lease_times.unwrap_or_else(|| leader_election.times());
        Some((LeaseConfig { key, identity: identity.clone(), times }, store))
    };

    let stop = Stop::default();
    let mut services = Tasks::default();
    let mut running = watches.start(connection.client(&agent("watch"))?, &stop.end);
    let views = running.stores();
    metrics.register(|registry| registry.register_collector(Box::new(StoreSource(views.clone()))));
    let all_synced = running.all_synced();
    services.spawn("watches", async move { Ok(running.ended().await?) });

    let health = Health { metrics: metrics.clone(), stores: views, controllers: names.clone() };
    let address = configuration.health.address;
    let server =
        HealthServer::bind(address, health).await.with_context(|| format!("health.address {address}"))?;
    tracing::info!(
        health_address = %server.address()?, version = env!("CARGO_PKG_VERSION"), identity, "starting"
    );
    let serving = server.serve(stop.end.clone());
    services.spawn("health server", async move { Ok(serving.await?) });

    // Who may write.
    let leadership = match election {
        None => Leadership::without_election(),
        Some((config, lease)) => {
            let client = connection.client(&agent("lease"))?;
            let (elector, leadership) =
                Elector::new(client, config, boot_clock(), observe(&lease, boot_clock()));
            let source = LeaderSource { lease: LEASE_NAME.to_owned(), leading: leadership.leading.clone() };
            metrics.register(|registry| registry.register_collector(Box::new(source)));
            let (release, abandon) = (stop.release.clone(), stop.abandon.clone());
            services.spawn("leader election", async move {
                let election = async {
                    // Before its first list a held Lease would look like none.
                    if release.run_until_cancelled(lease.synced()).await.is_some() {
                        elector.run(release.clone()).await;
                    }
                };
                abandon.run_until_cancelled(election).await;
                Ok(())
            });
            leadership
        }
    };

    // What keeps them from it.
    let brake = Brake::new();
    if let Some(path) = &args.brake_file {
        let looking = brake::watch_file(&brake, path);
        services.spawn("brake file", until(&stop.end, looking));
    }
    services.spawn("brake signals", until(&stop.end, signals.follow(brake.clone())));
    let breaker = Arc::new(Breaker::new(configuration.breaker, Clock::system()));
    let modes = controllers.iter().flat_map(|controller| {
        controller.names().iter().map(|name| (*name, mode(*controller, &configuration)))
    });
    let modes = modes.chain([(BreakerKeeper::NAME, Mode::Act)]).collect();
    let source = GuardSource { modes, brake: brake.clone(), breaker: breaker.clone() };
    metrics.register(|registry| registry.register_collector(Box::new(source)));
    let reading = brake::watch_config_map(brake.clone(), brake_map, &namespace);
    services.spawn("brake ConfigMap", until(&stop.end, reading.then(|()| pending::<()>())));

    // Who writes what.
    let budget = Arc::new(WriteBudget::new(configuration.write_budget.clone()));
    let source = BudgetSource { budget: budget.clone(), controllers: names };
    metrics.register(|registry| registry.register_collector(Box::new(source)));
    let (granting, end) = (budget.clone(), stop.end.clone());
    services.spawn("write budget", async move {
        granting.run(end).await;
        Ok(())
    });
    let drain = stop.drain.clone();
    let measures = Measures::default();
    metrics.register(|registry| measures.register(registry));
    let live = Live { budget: budget.clone(), log_level };
    let reloader = Reloader::new(args, text, configuration.clone(), measures);
    let reloading = stop.end.clone().run_until_cancelled_owned(reloader.run(live));
    services.spawn("configuration", reloading.map(|_| Ok(())));
    let shared =
        Shared { connection, identity: identity.clone(), leadership, metrics, budget, brake, breaker, drain };
    let mut tasks = Tasks::default();
    {
        let reconciler = BreakerKeeper::new(shared.breaker.clone(), breaker_map, &namespace);
        let queue = WorkQueue::new(seed);
        let (views, wired) = (reconciler.views(), reconciler.wire(&queue, shared.leadership.leading.clone()));
        // It writes one object, and never but by an incident.
        let guard = shared.guard(Mode::Act, Arc::new(NoWarrants));
        shared.start(
            Part { reconciler, queue, views: &views, guard, workers: 1 },
            wired,
            &agent,
            &mut tasks,
        )?;
    }
    let queries = Arc::new(MetricQueries::new(QuerySettings::from(&configuration.metric_queries)));
    let mut told: Vec<Told> = Vec::new();
    for registered in registered {
        match registered {
            Registered::BatchJob(stores) => {
                let controller = ControllerName::BatchJob;
                let config = &configuration.controllers.batch_job;
                let settings = Settings::from(&config.settings);
                // They follow the stores from before the controller does.
                let warrants = BatchJobWarrants::new(stores.clone(), settings, Clock::system());
                let guard = shared.guard(mode(controller, &configuration), warrants.clone());
                let reconciler = BatchJobReconciler::with_settings(stores.clone(), settings);
                let budget = shared.budget.clone();
                reconciler.follow_budget(Arc::new(move || budget.rates()));
                let measured = Arc::downgrade(&reconciler);
                warrants.follow_load(Arc::new(move || Some(measured.upgrade()?.load_usage())));
                let reader = Reader::new(shared.connection.client(&agent("load"))?);
                let sampling = reconciler.clone().sample_load(
                    reader,
                    Clock::system(),
                    shared.leadership.leading.clone(),
                );
                services.spawn("load of nodes", until(&stop.end, sampling));
                let queue = WorkQueue::new(seed);
                shared.metrics.register(|registry| reconciler.register(registry));
                shared.metrics.add_population(reconciler.clone());
                match mode(controller, &configuration) {
                    Mode::Act => {
                        let settings = DeliverySettings::from(&config.settings.archive);
                        let leading = shared.leadership.leading.clone();
                        let delivery =
                            Delivery::new(reconciler.clone(), settings, leading, shared.brake.clone());
                        services.spawn("archive of finished jobs", until(&shared.drain, delivery.run()));
                    }
                    // No job is deleted, so none is written down.
                    Mode::Observe => {}
                }
                // First, so that it misses nothing that the other one tells it.
                let queues = BatchQueueReconciler::new(reconciler.clone());
                let queue_keys = WorkQueue::new(seed);
                queues.wire(&queue_keys);
                shared.metrics.add_population(queues.clone());
                let guard_of_queues = shared.guard(mode(controller, &configuration), Arc::new(NoWarrants));
                let views_of_queues = queues.views();
                let part = Part {
                    reconciler: queues,
                    queue: queue_keys,
                    views: &views_of_queues,
                    guard: guard_of_queues,
                    workers: 1,
                };
                shared.start(part, ready(()), &agent, &mut tasks)?;
                let wired = reconciler.wire(&queue);
                let (views, workers) = (&stores.views(), config.workers);
                let part = Part { reconciler, queue, views, guard, workers };
                shared.start(part, wired, &agent, &mut tasks)?;
                let profiles = ProfileReconciler::new(stores.clone(), Clock::system());
                shared.metrics.register(|registry| profiles.register(registry));
                shared.metrics.add_population(profiles.clone());
                let reader = Reader::new(shared.connection.client(&agent("usage"))?);
                let sampling = profiles.clone().sample(reader, shared.leadership.leading.clone());
                services.spawn("usage of pods", until(&stop.end, sampling));
                // It writes little, and destroys nothing.
                let guard = shared.guard(mode(controller, &configuration), Arc::new(NoWarrants));
                let queue = WorkQueue::new(seed);
                let (views, wired) = (profiles.views(), profiles.wire(&queue));
                let part = Part { reconciler: profiles, queue, views: &views, guard, workers: 1 };
                shared.start(part, wired, &agent, &mut tasks)?;
            }
            Registered::InPlaceUpgrade(stores) => {
                let controller = ControllerName::InPlaceUpgrade;
                let config = &configuration.controllers.in_place_upgrade;
                let mode = mode(controller, &configuration);
                let reconciler = InPlaceUpgradeReconciler::new(
                    stores.clone(),
                    Some(queries.clone()),
                    config.settings.puller_image.as_str(),
                );
                shared.metrics.register(|registry| reconciler.register(registry));
                shared.metrics.add_population(reconciler.clone());
                let asking = Arc::downgrade(&reconciler);
                told.push(Box::new(move |owner| {
                    if owner.resource == IN_PLACE_UPGRADE
                        && let Some(reconciler) = asking.upgrade()
                    {
                        reconciler.metric_has_news(&owner.key);
                    }
                }));
                // It destroys nothing, and works on pods of no object as well.
                let gates = GateKeeper::new(stores.clone());
                let keys = WorkQueue::new(seed);
                let (views, wired) = (gates.views(), gates.wire(&keys));
                let guard = shared.guard(mode, Arc::new(NoWarrants));
                let part =
                    Part { reconciler: gates, queue: keys, views: &views, guard, workers: config.workers };
                shared.start(part, wired, &agent, &mut tasks)?;
                let queue = WorkQueue::new(seed);
                let wired = reconciler.wire(&queue);
                let guard = shared.guard(mode, Arc::new(InPlaceUpgradeWarrants::new(stores.clone())));
                let (views, workers) = (&stores.views(), config.workers);
                let part = Part { reconciler, queue, views, guard, workers };
                shared.start(part, wired, &agent, &mut tasks)?;
            }
            Registered::TimeShareGroup(stores) => {
                let controller = ControllerName::TimeShareGroup;
                let config = &configuration.controllers.time_share_group;
                let (workers, settings) = (config.workers, (&config.settings).into());
                let mode = mode(controller, &configuration);
                let reconciler =
                    TimeShareGroupReconciler::with_settings(stores.clone(), Some(queries.clone()), settings);
                shared.metrics.register(|registry| reconciler.register(registry));
                shared.metrics.add_population(reconciler.clone());
                let asking = Arc::downgrade(&reconciler);
                told.push(Box::new(move |owner| {
                    if owner.resource == TIME_SHARE_GROUP
                        && let Some(reconciler) = asking.upgrade()
                    {
                        reconciler.metric_has_news(&owner.key);
                    }
                }));
                let reader = Reader::new(shared.connection.client(&agent("memory"))?);
                let leading = shared.leadership.leading.clone();
                let sampling = reconciler.clone().sample_usage(reader, Clock::system(), leading);
                services.spawn("memory of pods", until(&stop.end, sampling));
                // It destroys nothing, and works on pods of no group.
                let gates = springtide_time_share_group::GateKeeper::new(stores.clone());
                let keys = WorkQueue::new(seed);
                let (views, wired) = (gates.views(), gates.wire(&keys));
                let guard = shared.guard(mode, Arc::new(NoWarrants));
                let part = Part { reconciler: gates, queue: keys, views: &views, guard, workers };
                shared.start(part, wired, &agent, &mut tasks)?;
                let queue = WorkQueue::new(seed);
                let wired = reconciler.wire(&queue);
                let guard = shared.guard(mode, Arc::new(TimeShareGroupWarrants::new(stores.clone())));
                let views = &stores.views();
                let part = Part { reconciler, queue, views, guard, workers };
                shared.start(part, wired, &agent, &mut tasks)?;
            }
        }
    }
    if !told.is_empty() {
        shared.metrics.register(|registry| queries.register(registry));
        let leading = shared.leadership.leading.clone();
        let asking = queries.run(Clock::system(), leading, move |owner| told.iter().for_each(|tell| tell(owner)));
        services.spawn("metrics of services", until(&stop.end, asking));
    }
    tokio::spawn(async move {
        all_synced.await;
        tracing::info!("all stores are synced");
    });

    let ended = tokio::select! {
        asked = shutdown => asked,
        error = tasks.ended() => Err(error),
        error = services.ended() => Err(error),
    };
    tracing::info!("draining");
    stop.drain.cancel();
    // Only then: until the last pass has ended, its writes need the Lease. Those of a pass that was cut
    // off may still be under way in the server, and the Lease expires after they can be.
    match tasks.join(DRAIN_BOUND).await {
        Joined::All => stop.release.cancel(),
        Joined::CutOff => stop.abandon.cancel(),
    }
    stop.end.cancel();
    services.join(END_BOUND).await;
    ended
}

/// The steps of an orderly end.
#[derive(Default)]
struct Stop {
    /// Controllers take no further key.
    drain: CancellationToken,
    /// The Lease is given back.
    release: CancellationToken,
    /// The Lease is left to expire.
    abandon: CancellationToken,
    /// Everything else.
    end: CancellationToken,
}

/// A service that ends with the process.
fn until<F: Future<Output = ()> + Send + 'static>(
    end: &CancellationToken,
    service: F,
) -> impl Future<Output = Result<()>> + Send + use<F> {
    end.clone().run_until_cancelled_owned(service).map(|_| Ok(()))
}
