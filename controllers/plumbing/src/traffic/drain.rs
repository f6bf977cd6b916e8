//! Whether a pod that was taken out of traffic is drained.

use super::endpoints::Exposure;
use crate::clock::after;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::common::{Drain, DrainConfirm, OnTimeout};
use std::sync::Arc;

/// Times of the API are cut to whole seconds.
const CUT: SignedDuration = SignedDuration::from_secs(1);

/// How pods are drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainRule {
    /// What the proof is.
    pub confirm: DrainConfirm,
    /// How long the pod still serves after the proof, for proxies and balancers that learn of it later.
    pub min: SignedDuration,
    /// How long after it was turned off the proof may come.
    pub timeout: SignedDuration,
    /// What follows when it does not.
    pub on_timeout: OnTimeout,
}

impl From<&Drain> for DrainRule {
    fn from(drain: &Drain) -> Self {
        let Drain { confirm, min_seconds, timeout_seconds, on_timeout } = drain;
        Self {
            confirm: *confirm,
            min: SignedDuration::from_secs((*min_seconds).into()),
            timeout: SignedDuration::from_secs((*timeout_seconds).into()),
            on_timeout: *on_timeout,
        }
    }
}

/// What is known of a pod that was turned off. `None` of a time means now: a wait only gets longer.
#[derive(Clone, Copy, Debug)]
pub struct Draining<'a> {
    /// Since when it is turned off.
    pub off_since: Option<Timestamp>,
    /// Whether its own condition Ready is true although its gate is not: the kubelet has not seen the gate, and slices
    /// that do not list the pod yet may still come to do so. Always `false` with a label, which makes nothing unready.
    pub is_still_ready: bool,
    /// Who sends traffic to it.
    pub exposure: &'a Exposure,
    /// Since when [`Draining::is_proved`] has been seen to hold ([`crate::first_seen::FirstSeen`]).
    pub proved_since: Option<Timestamp>,
}

/// Whether a pod is drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrainVerdict {
    /// It is.
    Drained,
    /// It gets traffic, or has got some a moment ago.
    Draining {
        /// When it is drained, or its time is over, if no event comes before.
        wake: Timestamp,
        /// Services that list it, at most [`DrainVerdict::NAMED_MAX`] of them; empty once the proof is there.
        waits_for: Vec<Arc<str>>,
    },
    /// The proof has not come in time, and the pod is not to go on.
    TimedOut {
        /// Whether it counts as failed; else it gets traffic again.
        is_failure: bool,
        /// Services that list it, at most [`DrainVerdict::NAMED_MAX`] of them.
        waits_for: Vec<Arc<str>>,
    },
}

impl DrainVerdict {
    /// So many Services are named at most.
    pub const NAMED_MAX: usize = 3;
}

impl Draining<'_> {
    /// Whether no traffic is sent to it by anything that can be asked.
    pub fn is_proved(&self) -> bool {
        self.exposure.is_clear() && !self.is_still_ready
    }

    /// Whether it is drained.
    ///
    /// A proof that came in time stays good for [`DrainRule::min`] however short the time-out is.
    pub fn verdict(&self, rule: &DrainRule, now: Timestamp) -> DrainVerdict {
        // A start in the future is a clock that was put back, or a node's that is ahead.
        let off_since = self.off_since.map_or(now, |since| since.min(now));
        let (wake, waits_for) = match rule.confirm {
            DrainConfirm::None => {
                let since = self.off_since.map_or(now, |since| after(since, CUT).min(now));
                (after(since, rule.min), Vec::new())
            }
            DrainConfirm::EndpointSlice if self.is_proved() => {
                let since = self.proved_since.map_or(now, |since| since.min(now));
                (after(since, rule.min), Vec::new())
            }
            DrainConfirm::EndpointSlice => {
                let waits_for: Vec<Arc<str>> =
                    self.exposure.listed_by.iter().take(DrainVerdict::NAMED_MAX).cloned().collect();
                let end = after(off_since, rule.timeout);
                if now >= end {
                    return match rule.on_timeout {
                        OnTimeout::Proceed => DrainVerdict::Drained,
                        OnTimeout::Skip => DrainVerdict::TimedOut { is_failure: false, waits_for },
                        OnTimeout::Fail => DrainVerdict::TimedOut { is_failure: true, waits_for },
                    };
                }
                return DrainVerdict::Draining { wake: end, waits_for };
            }
        };
        if now >= wake { DrainVerdict::Drained } else { DrainVerdict::Draining { wake, waits_for } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::first_seen::FirstSeen;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn exposure(listed_by: &[&str]) -> Exposure {
        let listed_by = listed_by.iter().map(|name| Arc::from(*name)).collect();
        Exposure { listed_by, left_out: ["peers".into()].into() }
    }

    fn rule(on_timeout: OnTimeout) -> DrainRule {
        DrainRule::from(&Drain {
            confirm: DrainConfirm::EndpointSlice,
            min_seconds: 5,
            timeout_seconds: 60,
            on_timeout,
        })
    }

    fn draining(exposure: &Exposure, proved_since: Option<i64>) -> Draining<'_> {
        let proved_since = proved_since.map(at);
        Draining { off_since: Some(at(100)), is_still_ready: false, exposure, proved_since }
    }

    #[test]
    fn it_is_drained_a_while_after_no_service_lists_it() {
        let (clear, rule) = (exposure(&[]), rule(OnTimeout::Skip));
        let waiting = DrainVerdict::Draining { wake: at(115), waits_for: Vec::new() };
        assert_eq!(draining(&clear, Some(110)).verdict(&rule, at(114)), waiting);
        assert_eq!(draining(&clear, Some(110)).verdict(&rule, at(115)), DrainVerdict::Drained);
        // The proof is seen for the first time: the wait begins now.
        let waiting = DrainVerdict::Draining { wake: at(116), waits_for: Vec::new() };
        assert_eq!(draining(&clear, None).verdict(&rule, at(111)), waiting);
    }

    #[test]
    fn the_services_that_still_list_it_are_named_until_the_time_is_over() {
        let listed = exposure(&["a", "b", "c", "d"]);
        let waits_for: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
        let waiting = DrainVerdict::Draining { wake: at(160), waits_for: waits_for.clone() };
        assert_eq!(draining(&listed, None).verdict(&rule(OnTimeout::Skip), at(159)), waiting);
        for (on_timeout, verdict) in [
            (OnTimeout::Proceed, DrainVerdict::Drained),
            (OnTimeout::Skip, DrainVerdict::TimedOut { is_failure: false, waits_for: waits_for.clone() }),
            (OnTimeout::Fail, DrainVerdict::TimedOut { is_failure: true, waits_for }),
        ] {
            assert_eq!(draining(&listed, None).verdict(&rule(on_timeout), at(160)), verdict);
        }
    }

    #[test]
    fn a_pod_whose_kubelet_has_not_seen_the_gate_is_not_proved_although_no_slice_lists_it() {
        let clear = exposure(&[]);
        let pod = Draining { is_still_ready: true, ..draining(&clear, None) };
        assert!(!pod.is_proved());
        let waiting = DrainVerdict::Draining { wake: at(160), waits_for: Vec::new() };
        assert_eq!(pod.verdict(&rule(OnTimeout::Fail), at(150)), waiting);
    }

    #[test]
    fn a_proof_in_time_stays_good_though_the_wait_after_it_is_longer_than_the_timeout() {
        let clear = exposure(&[]);
        let rule = DrainRule { min: SignedDuration::from_secs(600), ..rule(OnTimeout::Fail) };
        let waiting = DrainVerdict::Draining { wake: at(750), waits_for: Vec::new() };
        assert_eq!(draining(&clear, Some(150)).verdict(&rule, at(749)), waiting);
        assert_eq!(draining(&clear, Some(150)).verdict(&rule, at(750)), DrainVerdict::Drained);
    }

    #[test]
    fn without_proof_only_the_wait_counts_and_a_time_cut_to_seconds_does_not_shorten_it() {
        let listed = exposure(&["a"]);
        let rule = DrainRule { confirm: DrainConfirm::None, ..rule(OnTimeout::Fail) };
        let waiting = DrainVerdict::Draining { wake: at(106), waits_for: Vec::new() };
        assert_eq!(draining(&listed, None).verdict(&rule, at(105)), waiting);
        assert_eq!(draining(&listed, None).verdict(&rule, at(106)), DrainVerdict::Drained);
    }

    proptest! {
        /// Slices come and go as they like, the clock moves forward by any steps: a pod is drained only when the proof
        /// has stood for as long as asked, and every wait ends when it is said to.
        #[test]
        fn nothing_is_drained_before_its_proof_has_stood(
            steps in proptest::collection::vec((0..40i64, any::<bool>(), any::<bool>()), 1..40),
            min in 0..20i64,
            timeout in 1..120i64,
        ) {
            let rule = DrainRule {
                confirm: DrainConfirm::EndpointSlice,
                min: SignedDuration::from_secs(min),
                timeout: SignedDuration::from_secs(timeout),
                on_timeout: OnTimeout::Skip,
            };
            let mut seen = FirstSeen::default();
            let (mut now, mut proved) = (0, None);
            for (step, is_listed, is_still_ready) in steps {
                now += step;
                let exposure = exposure(if is_listed { &["a"] } else { &[] });
                let pod = Draining { off_since: Some(at(0)), is_still_ready, exposure: &exposure, proved_since: None };
                proved = if is_listed || is_still_ready { None } else { proved.or(Some(now)) };
                let pod = Draining { proved_since: seen.look((), pod.is_proved().then_some(()), at(now)).map(|seen| seen.since), ..pod };
                let verdict = pod.verdict(&rule, at(now));
                match &verdict {
                    DrainVerdict::Drained => prop_assert!(proved.is_some_and(|since| now - since >= min)),
                    DrainVerdict::TimedOut { .. } => prop_assert!(proved.is_none() && now >= timeout),
                    DrainVerdict::Draining { wake, .. } => {
                        prop_assert!(*wake > at(now));
                        let still_waits = matches!(pod.verdict(&rule, *wake), DrainVerdict::Draining { .. });
                        prop_assert!(!still_waits);
                    }
                }
            }
        }
    }
}
