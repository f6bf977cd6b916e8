//! Modes, brake and breaker, read at scrape time.

use super::scrape::{count, gauge};
use crate::brake::{Brake, Source};
use crate::breaker::Breaker;
use crate::guard::Mode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use std::fmt;
use std::sync::Arc;

/// Who may write, and what keeps them from it.
#[derive(Debug)]
pub struct GuardSource {
    /// The controllers and whether they act.
    pub modes: Vec<(&'static str, Mode)>,
    /// The brake of the process.
    pub brake: Brake,
    /// The breaker of the process.
    pub breaker: Arc<Breaker>,
}

#[derive(Debug, EncodeLabelSet)]
struct ModeLabels {
    controller: &'static str,
    mode: &'static str,
}

#[derive(Debug, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Debug, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

impl Collector for GuardSource {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let modes = self.modes.iter().flat_map(|&(controller, mode)| {
            let present = match (self.brake.engaged_by(controller), mode) {
                (Some(_), _) => "braked",
                (None, Mode::Observe) => "observe",
                (None, Mode::Act) => "act",
            };
            ["act", "observe", "braked"]
                .map(|mode| (ModeLabels { controller, mode }, i64::from(mode == present)))
        });
        gauge(&mut encoder, "springtide_mode", "1 for the mode that a controller is in", modes)?;
        let sources = Source::ALL.map(|source| {
            (SourceLabel { source: source.as_str() }, i64::from(self.brake.is_engaged_by(source)))
        });
        let help = "1 while this engages the brake, be it for one controller only";
        gauge(&mut encoder, "springtide_brake_engaged", help, sources)?;
        let open = self.breaker.open();
        let incidents = self.modes.iter().map(|&(controller, _)| {
            let mine = |id: &Option<String>| id.as_deref().is_none_or(|mine| mine == controller);
            let open = open.iter().filter(|incident| mine(&incident.controller)).count();
            (ControllerLabel { controller }, count(open))
        });
        gauge(&mut encoder, "springtide_breaker_open", "Open incidents of the breaker", incidents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::Limits;
    use crate::clock::Clock;
    use crate::metrics::Metrics;

    #[test]
    fn every_mode_and_source_is_shown_and_one_mode_holds() {
        let metrics = Metrics::new(&["a", "b"]);
        let (brake, breaker) = (Brake::new(), Arc::new(Breaker::new(Limits::default(), Clock::system())));
        let modes = vec![("a", Mode::Act), ("b", Mode::Observe)];
        let source = GuardSource { modes, brake: brake.clone(), breaker };
        metrics.register(|registry| registry.register_collector(Box::new(source)));
        let text = metrics.encode().unwrap();
        for line in [
            r#"springtide_mode{controller="a",mode="act"} 1"#,
            r#"springtide_mode{controller="a",mode="braked"} 0"#,
            r#"springtide_mode{controller="b",mode="observe"} 1"#,
            r#"springtide_brake_engaged{source="signal"} 0"#,
            r#"springtide_breaker_open{controller="a"} 0"#,
            r#"springtide_warrants_total{controller="a",warrant="none"} 0"#,
            r#"springtide_warrants_total{controller="b",warrant="owner_gone"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        brake.set_signal(true);
        let text = metrics.encode().unwrap();
        for line in [
            r#"springtide_mode{controller="a",mode="act"} 0"#,
            r#"springtide_mode{controller="b",mode="braked"} 1"#,
            r#"springtide_brake_engaged{source="signal"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
