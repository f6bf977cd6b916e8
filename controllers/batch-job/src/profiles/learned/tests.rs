use super::*;
use proptest::prelude::*;

const WEEK: u32 = 604_800;
const MI: i64 = 1 << 20;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn container(name: &str, cpu: Option<i64>, memory: Option<i64>) -> ContainerRun {
    ContainerRun { name: name.into(), usage: Usage { cpu, memory }, killed_at: None }
}

fn run(second: i64, containers: Vec<ContainerRun>) -> Run {
    Run { finished: at(second), seconds: Some(40.0), containers }
}

fn rule(bounds: Vec<Bound>) -> Rule {
    Rule { percentile: 95, margin_percent: 15, half_life_seconds: WEEK, bounds }
}

fn bound(container: &str, resource: Learnable, min: Option<i64>, max: Option<i64>) -> Bound {
    Bound { container: container.into(), resource, min, max }
}

fn learned(runs: i64, cpu: i64, memory: i64) -> Learned {
    let mut learned = Learned::default();
    for second in 0..runs {
        learned.record(&run(second, vec![container("main", Some(cpu), Some(memory))]), WEEK).unwrap();
    }
    learned
}

#[test]
fn twenty_samples_are_needed_and_each_resource_counts_its_own() {
    let mut learned = learned(19, 300, 800 * MI);
    let main = |learned: &Learned| learned.containers[0].clone();
    for resource in Learnable::ALL {
        assert_eq!(main(&learned).recommended(resource, &rule(Vec::new())), None);
    }
    learned.record(&run(20, vec![container("main", Some(300), None)]), WEEK).unwrap();
    let cpu = main(&learned).recommended(Learnable::Cpu, &rule(Vec::new())).unwrap();
    assert!((345..=345 + 35 + 2).contains(&cpu), "p95 of 300m and 15 %, no more than a bucket above: {cpu}");
    assert_eq!(main(&learned).recommended(Learnable::Memory, &rule(Vec::new())), None, "19 samples of it");
}

#[test]
fn amounts_are_whole_units_within_the_bounds_of_their_container() {
    let learned = learned(30, 300, 800 * MI);
    let main = &learned.containers[0];
    let of = |resource, bounds| main.recommended(resource, &rule(bounds)).unwrap();
    let free = of(Learnable::Memory, Vec::new());
    assert!(free % MI == 0 && free > 920 * MI && free < 1020 * MI, "{free}");
    for (min, max, expected) in [
        (None, Some(64 * MI), 64 * MI),
        (Some(4096 * MI), None, 4096 * MI),
        (Some(4096 * MI), Some(64 * MI), 64 * MI),
        (Some(64 * MI), Some(4096 * MI), free),
    ] {
        assert_eq!(of(Learnable::Memory, vec![bound("main", Learnable::Memory, min, max)]), expected);
    }
    let others =
        vec![bound("other", Learnable::Memory, None, Some(MI)), bound("main", Learnable::Cpu, None, Some(1))];
    assert_eq!(of(Learnable::Memory, others), free, "bounds of another container or resource say nothing");
}

#[test]
fn a_kill_teaches_more_memory_than_there_was_and_no_run_time() {
    let mut learned = learned(20, 300, 50 * MI);
    let before = learned.run_time.count();
    let killed = ContainerRun { killed_at: Some(64 * MI), ..container("main", Some(1), Some(60 * MI)) };
    for second in 0..20 {
        let run = Run { seconds: None, ..run(100 + second, vec![killed.clone()]) };
        learned.record(&run, WEEK).unwrap();
    }
    assert_eq!((learned.samples, learned.oom_kills, learned.run_time.count()), (40, 20, before));
    let memory = learned.containers[0].recommended(Learnable::Memory, &rule(Vec::new())).unwrap();
    assert!(memory >= (64 + 100) * MI, "{memory}");
    let large = ContainerRun { killed_at: Some(10_000 * MI), ..container("main", None, None) };
    assert_eq!(large.memory(), Some(12_000 * MI));
    let unknown = ContainerRun { killed_at: Some(0), ..container("main", None, None) };
    assert_eq!(unknown.memory(), None);
}

#[test]
fn a_task_with_other_containers_teaches_nothing() {
    let mut learned = learned(3, 300, MI);
    let before = learned.clone();
    let error = learned.record(&run(9, vec![container("app", Some(1), None)]), WEEK).unwrap_err();
    assert_eq!(error.to_string(), "container main of the profile is not among those of a new task (app)");
    assert_eq!(learned, before);
    // A container that comes in addition is no contradiction.
    learned
        .record(&run(9, vec![container("main", None, None), container("log", Some(1), None)]), WEEK)
        .unwrap();
    assert_eq!(learned.containers.len(), 2);
}

#[test]
fn of_many_containers_the_first_eight_are_learned() {
    let mut learned = Learned::default();
    let containers = (0..12).map(|number| container(&format!("c{number}"), Some(1), None)).collect();
    learned.record(&run(0, containers), WEEK).unwrap();
    let names: Vec<_> = learned.containers.iter().map(|learned| learned.name.to_string()).collect();
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"]);
}

#[test]
fn run_times_are_whole_seconds() {
    let mut learned = Learned::default();
    assert_eq!(learned.run_seconds(95), None);
    for (second, seconds) in [10.0; 18].into_iter().chain([100.0, 100.0]).enumerate() {
        let run = Run { seconds: Some(seconds), ..run(i64::try_from(second).unwrap(), Vec::new()) };
        learned.record(&run, WEEK).unwrap();
    }
    assert!((10..=13).contains(&learned.run_seconds(50).unwrap()));
    assert!((100..=112).contains(&learned.run_seconds(95).unwrap()));
    let read = Learned::decode_run_time(&learned.encode_run_time());
    assert_eq!(read.count(), 20);
    assert!(learned.encode_run_time().len() <= RUN_TIME_TEXT_MAX_BYTES);
}

#[test]
fn a_form_that_is_not_known_begins_anew() {
    let text = learned(20, 300, MI).containers[0].encode();
    for wrong in [text.replacen('1', "2", 1), text.replace("cpu", "gpu"), "1".to_owned(), String::new()] {
        let read = LearnedContainer::decode("main".into(), &wrong);
        assert_eq!(read.histogram(Learnable::Cpu).count(), 0, "{wrong}");
    }
    let broken = text.replace("memory=", "memory=x");
    let read = LearnedContainer::decode("main".into(), &broken);
    let counts = Learnable::ALL.map(|resource| read.histogram(resource).count());
    assert_eq!(counts, [20, 0], "what can be read stays");
}

proptest! {
    #[test]
    fn what_is_stored_recommends_what_was_learned(
        runs in prop::collection::vec((0..4_000_000_i64, 0..1_i64 << 42, 0..5_000_000_i64), 20..120),
    ) {
        let mut learned = Learned::default();
        for (cpu, memory, second) in runs {
            learned.record(&run(second, vec![container("main", Some(cpu), Some(memory))]), WEEK).unwrap();
        }
        let container = &learned.containers[0];
        let text = container.encode();
        prop_assert!(text.len() <= CONTAINER_TEXT_MAX_BYTES && CONTAINER_TEXT_MAX_BYTES <= 512);
        let read = LearnedContainer::decode("main".into(), &text);
        prop_assert_eq!(read.encode(), text);
        for resource in Learnable::ALL {
            let at = |container: &LearnedContainer, percentile| {
                container.recommended(resource, &Rule { percentile, ..rule(Vec::new()) }).unwrap()
            };
            let kept = at(&read, 90);
            prop_assert!((at(container, 87)..=at(container, 93)).contains(&kept));
        }
    }
}
