//! A process that is away over the edges of a peak window. What a window means follows from its spec and the clock, so
//! whoever comes back does at once what is still to be done, and nothing that is over:
//!
//! - inside the window the drain begins within a second, at the rate of the window and with the grace that is left, which
//!   is none beyond the start; the queue says that it misses its time; nothing of a drained tier starts;
//! - after the window nothing is ended for it any more, and what may start is what the ramp, counted from the end, has
//!   come to by then;
//! - while nobody is there, nothing is started or ended.

use crate::cluster::{is_deleting, is_terminal, text};
use crate::peaks::{
    CORES, JITTER, LEAD, PODS_PER_SECOND, RAMP, Random, kubelets, populate, queue, running, second, tier_of,
    uids,
};
use crate::world::World;
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Seconds of a play at which the window starts and ends.
const START: i64 = 600;
const END: i64 = 900;
/// The end of a play.
const LAST: i64 = 1100;
/// What Standard may use while the window is open.
const DEGRADED: usize = 36;

/// What a second of a play has come to.
#[derive(Clone, Debug)]
struct Second {
    /// Whether there was a process.
    is_there: bool,
    /// Pods that may run, by tier.
    low: usize,
    standard: usize,
    all: usize,
    /// Pods that may run no more since the second before.
    ended: usize,
    /// Pods that were told to go in this second.
    told: usize,
    /// Pods that came in this second: of BestEffort, and of all tiers that the window concerns.
    new_low: usize,
    new: usize,
    /// Whether condition DrainWillMiss of the queue holds.
    misses: bool,
}

/// One play: from when to when nobody is there.
struct Play {
    seed: u64,
    away: Vec<(i64, i64)>,
    seconds: Vec<Second>,
    world: World,
}

fn condition<'a>(world: &'a World, type_: &str) -> Option<&'a Value> {
    world.queue_status("q")["conditions"].as_array()?.iter().find(|found| found["type"] == type_)
}

impl Play {
    fn run(seed: u64, hours_ahead: i64, away: &[(i64, i64)]) -> Self {
        let mut random = Random(seed);
        let mut world = World::new(&CORES.to_string());
        world.put_clock_ahead(SignedDuration::from_hours(hours_ahead));
        let begins = world.now();
        world.set_queue("q", Some(queue(begins)));
        populate(&mut world, &mut random);
        let mut play = Self { seed, away: away.to_vec(), seconds: Vec::new(), world };
        let (mut known, mut before, mut deleting) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for at in 0..LAST {
            assert_eq!(play.world.now().duration_since(begins).as_secs(), at);
            let is_there = !away.iter().any(|(from, to)| (*from..*to).contains(&at));
            if away.iter().any(|(_, to)| *to == at) {
                // The one that went has taken what it knew with it.
                play.world.restart();
            }
            let world = &mut play.world;
            if is_there {
                second(world);
            } else {
                kubelets(world);
                // Tasks end meanwhile, whose places nobody fills and whose outcomes nobody counts.
                if at % 7 == 0
                    && let Some(pod) = any_running(world, &mut random)
                {
                    world.cluster.finish(&pod, 0);
                }
            }
            let live = uids(world, |pod| !is_terminal(pod));
            let is_new = |pod: &Value| !is_terminal(pod) && !known.contains(text(pod, "/metadata/uid"));
            let now_deleting = uids(world, is_deleting);
            let counts = running(world);
            let count = |tier: &str| counts.get(tier).copied().unwrap_or(0);
            play.seconds.push(Second {
                is_there,
                low: count("BestEffort"),
                standard: count("Standard"),
                all: live.len(),
                ended: before.difference(&live).count(),
                told: now_deleting.difference(&deleting).count(),
                new_low: uids(world, |pod| is_new(pod) && tier_of(pod) == "BestEffort").len(),
                new: uids(world, |pod| is_new(pod) && tier_of(pod) != "Guaranteed").len(),
                misses: condition(world, "DrainWillMiss").is_some_and(|found| found["status"] == "True"),
            });
            known.extend(live.iter().cloned());
            before = live;
            deleting = now_deleting;
            world.cluster.pass_time(1000);
        }
        play.holds_always();
        play
    }

    fn at(&self, second: i64) -> &Second {
        &self.seconds[usize::try_from(second).unwrap()]
    }

    fn context(&self, second: i64) -> String {
        format!("seed {}, away {:?}, second {second}: {:?}", self.seed, self.away, self.at(second))
    }

    /// What came since the end of the window, up to and with this second.
    fn came_back(&self, until: i64) -> i64 {
        let new: usize = (END..=until).map(|second| self.at(second).new).sum();
        i64::try_from(new).unwrap()
    }

    /// What was free when the window ended.
    fn free(&self) -> i64 {
        CORES - i64::try_from(self.at(END - 1).all).unwrap()
    }

    /// What has become free since while nobody was there.
    fn left_free(&self, until: i64) -> i64 {
        let ended: usize =
            (END..=until).filter(|at| !self.at(*at).is_there).map(|at| self.at(at).ended).sum();
        i64::try_from(ended).unwrap()
    }

    /// What the ramp has come to at the least and at the most, of what is free: each queue has its own delay.
    fn ramp(&self, second: i64) -> (i64, i64) {
        let of = |free: i64, elapsed: i64| free * elapsed.clamp(0, RAMP) / RAMP;
        let most = of(self.free() + self.left_free(second), second - END);
        (of(self.free(), second - END - JITTER), most)
    }

    /// What holds whoever is away when.
    fn holds_always(&self) {
        for at in 0..LAST {
            let second = self.at(at);
            if !second.is_there {
                assert_eq!((second.new, second.told), (0, 0), "{}", self.context(at));
            }
            if (START - LEAD..END).contains(&at) {
                assert_eq!(second.new_low, 0, "{}: a pod has started inside", self.context(at));
            } else {
                assert_eq!(second.told, 0, "{}: pods are ended outside", self.context(at));
            }
            assert!(second.told <= PODS_PER_SECOND, "{}", self.context(at));
        }
        // A task that ends while nobody is there may leave room which nobody can use before somebody is.
        for at in END..LAST {
            let most = self.ramp(at).1;
            assert!(self.came_back(at) <= most + 1, "{}: {most} may be back", self.context(at));
        }
        assert!(self.at(LAST - 1).all + 6 >= usize::try_from(CORES).unwrap(), "{}", self.context(LAST - 1));
        assert_eq!(self.world.cluster.violations, [] as [String; 0]);
        assert_eq!(self.world.queue_status("q")["conditions"][0]["reason"], "Admitting");
        for job in self.world.cluster.jobs.objects.values() {
            assert_eq!(job["status"]["failed"].as_u64().unwrap_or(0), 0, "a drained task has not failed");
        }
    }

    /// The state of a window that is open, and for which all has gone that has to.
    fn is_closed_from(&self, from: i64) {
        for at in from..END {
            let second = self.at(at);
            assert_eq!(second.low, 0, "{}", self.context(at));
            assert!(second.standard <= DEGRADED, "{}", self.context(at));
            assert_eq!((second.told, second.new_low), (0, 0), "{}", self.context(at));
        }
    }

    /// Whoever comes back inside the window then, when pods are there that ought to be gone, ends them at once. Returns
    /// the second from which on they are gone.
    fn drains_from(&self, back: i64) -> i64 {
        let before = self.at(back - 1);
        assert!(before.low > 2 * PODS_PER_SECOND, "{}: there is something to drain", self.context(back - 1));
        // The first look comes before the jobs are known whose pods these are, and the next a second later.
        let first = if self.at(back).told > 0 { back } else { back + 1 };
        let mut at = first;
        while self.at(at).told == PODS_PER_SECOND {
            at += 1;
        }
        assert!(at > first, "{}: the drain does not begin", self.context(first));
        // One second has what is left, and then no pod is told any more.
        let all: usize = (first..END).map(|at| self.at(at).told).sum();
        let within: usize = (first..=at).map(|at| self.at(at).told).sum();
        assert_eq!(all, within, "{}: the drain pauses", self.context(at));
        // No grace is left beyond the start but the one second without which objects would go before containers.
        at + 2
    }

    /// Whoever comes back after the end finds so much of the ramp behind it.
    fn ramps_from(&self, back: i64) {
        assert_eq!(self.came_back(back - 1), 0, "{}", self.context(back - 1));
        for at in back..LAST {
            let (least, _) = self.ramp(at);
            // Gangs, and classes whose first creates are to show that creates succeed, may miss a place or two; and
            // the tier that no window concerns may have filled the nodes.
            let is_full = i64::try_from(self.at(at).all).unwrap() + 6 >= CORES;
            assert!(
                is_full || self.came_back(at) + 6 >= least,
                "{}: {least} should be back",
                self.context(at)
            );
        }
    }
}

fn any_running(world: &World, random: &mut Random) -> Option<String> {
    let pods = world.cluster.pods.objects.values();
    let running = pods.filter(|pod| text(pod, "/status/phase") == "Running" && !is_deleting(pod));
    let names: Vec<&str> = running.map(|pod| text(pod, "/metadata/name")).collect();
    let place = random.below(names.len().max(1) as u64);
    names.get(usize::try_from(place).unwrap()).map(|name| (*name).to_owned())
}

/// Jobs that say this of a condition.
fn jobs_saying(world: &World, type_: &str, reason: &str) -> usize {
    let says = |job: &&String| world.reason(job, type_) == reason;
    world.cluster.jobs.objects.keys().filter(says).count()
}

#[test]
fn who_was_away_over_the_lead_and_the_start_drains_at_once_and_late() {
    // The window is a matter of the process's clock alone.
    for (seed, hours_ahead) in [(20, 0), (21, -2), (22, 2)] {
        let back = START + 40;
        let play = Play::run(seed, hours_ahead, &[(START - LEAD - 10, back)]);
        let gone = play.drains_from(back);
        assert!(gone < back + 60, "{}", play.context(gone));
        play.is_closed_from(gone);
        let told_so = (back..END).filter(|at| play.at(*at).misses).count();
        assert!(told_so > 0, "{}: nobody says that it is late", play.context(back));
        assert!(!play.at(END - 1).misses, "{}", play.context(END - 1));
        assert!(jobs_saying(&play.world, "Suspended", "Resumed") > 0);
    }
}

#[test]
fn who_was_away_in_the_lead_alone_makes_up_for_it_by_the_start() {
    let back = START - 50;
    let play = Play::run(23, 0, &[(START - LEAD - 10, back)]);
    // There is time for all of them: as many as have to go, none earlier than need be, and all by the start.
    assert!(play.at(back - 1).low > 2 * PODS_PER_SECOND, "{}", play.context(back - 1));
    play.is_closed_from(START);
}

#[test]
fn who_dies_amid_the_drain_goes_on_with_it_where_it_was() {
    // While all can still be done by the start, and beyond it.
    for (seed, from, back) in
        [(34, START - 30, START - 20), (25, START - 30, START + 5), (26, START - 25, START + 100)]
    {
        let play = Play::run(seed, 0, &[(from, back)]);
        let told: usize = (START - LEAD..from).map(|at| play.at(at).told).sum();
        assert!(told > 0, "{}: the drain has begun", play.context(from));
        let closed = if back < START { START } else { back + 30 };
        play.is_closed_from(closed);
        let first: usize = (back..back + 2).map(|at| play.at(at).told).sum();
        assert!(first > 0, "{}: it goes on at once", play.context(back));
    }
}

#[test]
fn who_was_away_over_the_end_finds_so_much_of_the_ramp_behind_it() {
    for (seed, from, back) in [(27, END - 50, END + 50), (28, END - 1, END + 21), (29, END - 250, END + 80)] {
        let play = Play::run(seed, 0, &[(from, back)]);
        assert!(play.at(back - 1).low == 0 && play.free() > 40, "{}", play.context(back - 1));
        play.ramps_from(back);
        assert!(play.at(back).new > 0, "{}: the ramp counts from the end", play.context(back));
    }
}

#[test]
fn who_was_away_over_the_end_and_all_of_the_ramp_finds_an_open_queue() {
    let back = END + JITTER + RAMP + 10;
    let play = Play::run(30, 0, &[(END - 50, back)]);
    play.ramps_from(back);
    let at_once = play.at(back + 1);
    assert!(at_once.all + 6 >= usize::try_from(CORES).unwrap(), "{}", play.context(back + 1));
}

#[test]
fn who_was_away_over_the_whole_window_ends_nothing_for_it_and_comes_back_along_its_ramp() {
    for (seed, back) in [(31, END + 10), (32, END + 60), (33, END + RAMP + JITTER + 10)] {
        let from = START - LEAD - 10;
        let play = Play::run(seed, 0, &[(from, back)]);
        let told: usize = (from..LAST).map(|at| play.at(at).told).sum();
        assert_eq!(told, 0, "{}: the window is over", play.context(back));
        assert!(play.at(back - 1).low > 2 * PODS_PER_SECOND, "{}: they ran on", play.context(back - 1));
        assert_eq!(jobs_saying(&play.world, "Suspended", "PeakWindow"), 0);
        play.ramps_from(back);
    }
}

#[test]
fn who_is_away_over_each_edge_by_itself_keeps_the_window_between() {
    let away = [(START - LEAD - 5, START - LEAD + 5), (START - 5, START + 5), (END - 5, END + 5)];
    let play = Play::run(34, 0, &away);
    play.is_closed_from(START + 15);
    play.ramps_from(END + 5);
    // At last nothing is left of it.
    assert_eq!(
        condition(&play.world, "PeakWindowActive").map(|found| &found["reason"]),
        Some(&json!("Idle"))
    );
}
