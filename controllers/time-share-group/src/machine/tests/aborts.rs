//! Switches of random groups, cut or taken back at any time.

use super::world::{SMALL, World};
use crate::machine::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) nodes: Vec<(usize, usize)>,
    pub(super) peaks: [i64; 2],
    pub(super) spare: i64,
    pub(super) order: &'static str,
    pub(super) overlap: &'static str,
    pub(super) bars: bool,
    pub(super) abort: Abort,
    /// Of each second: how many writes arrive, and whether kubelets get on.
    pub(super) seconds: Vec<(usize, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    Never,
    /// Units of these ranks are given up.
    Marks(u8),
    /// The switch is taken back.
    Return,
}

fn setting() -> impl Strategy<Value = Setting> {
    let nodes = proptest::collection::vec((0..4_usize, 0..4_usize), 1..3);
    let peak = || prop::sample::select(vec![1000_i64, 2000, 3000]);
    let order = prop::sample::select(vec!["Pipelined", "ClaimFirst", "ShrinkFirst"]);
    let overlap = prop::sample::select(vec!["WhenFree", "Never"]);
    let abort = prop_oneof![Just(Abort::Never), any::<u8>().prop_map(Abort::Marks), Just(Abort::Return)];
    let seconds = proptest::collection::vec((0..6_usize, any::<bool>()), 0..30);
    let numbers = (nodes, (peak(), peak()), 0..3000_i64);
    (numbers, order, overlap, any::<bool>(), abort, seconds).prop_map(
        |((nodes, peaks, spare), order, overlap, bars, abort, seconds)| Setting {
            nodes,
            peaks: peaks.into(),
            spare,
            order,
            overlap,
            bars,
            abort,
            seconds,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Each write is planned once: after its effects another one is due, or none, and that comes to an end.
    #[test]
    fn planning_again_after_the_effects_comes_to_an_end_and_repeats_nothing(setting in setting()) {
        let mut world = World::new(&setting);
        for (writes, gets_on) in setting.seconds {
            world.pass(writes, gets_on);
            let mut before: Vec<String> = Vec::new();
            for round in 0.. {
                prop_assert!(round < 8, "{:?}", before);
                let steps = world.plan();
                let arrived = world.deliver(&steps, usize::MAX);
                for word in &arrived {
                    prop_assert!(!before.contains(word), "{} once more after {:?}", word, before);
                }
                if arrived.is_empty() {
                    break;
                }
                before.extend(arrived);
            }
            world.wait(1);
        }
    }

    #[test]
    fn whenever_a_switch_is_cut_or_taken_back_each_unit_ends_wholly_on_one_side(setting in setting()) {
        let mut world = World::new(&setting);
        for (writes, gets_on) in &setting.seconds {
            world.pass(*writes, *gets_on);
            world.wait(1);
        }
        world.abort(setting.abort);
        world.rest();
        for (kind, state, [from, to]) in world.sides() {
            let is_to = from.0 == 0 && to.1 == 0;
            let is_from = from.1 == 0 && to.0 == 0;
            prop_assert!(is_to || is_from, "{kind:?} {state:?}: {from:?} {to:?}");
            prop_assert!(state.is_settled(Side::AsIs, true), "{state:?}");
            if setting.abort == Abort::Never && !setting.bars {
                prop_assert_eq!(state, UnitState::Done);
            }
        }
        for (uid, pod) in &world.pods {
            prop_assert_eq!(pod.serves, pod.asked > SMALL, "{}: {:?}", uid, pod);
        }
    }
}
