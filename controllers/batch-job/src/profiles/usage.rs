//! What a task says it has used: the last line of its termination message.

use springtide_plumbing::quantity::parse_amount;

/// How the line begins.
const PREFIX: &str = "usage:";

/// The most that a container has used at a time; what is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Thousandths of a core.
    pub cpu: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
}

impl Usage {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.memory.is_none()
    }

    /// The same, with what is absent here taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { cpu: self.cpu.or(other.cpu), memory: self.memory.or(other.memory) }
    }

    /// Raises each amount to that of `other`.
    pub fn raise_to(&mut self, other: Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
    }
}

/// Reads `usage: cpu=350m memory=900Mi`, where that is the last line of a message that is not empty. Either
/// resource may be absent; what is unknown, no quantity or said twice is passed over. `None` where no amount is left.
pub fn parse(message: &str) -> Option<Usage> {
    let line = message.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let mut usage = Usage::default();
    for (name, amount) in
        line.strip_prefix(PREFIX)?.split_whitespace().filter_map(|pair| pair.split_once('='))
    {
        let place = match name {
            "cpu" => &mut usage.cpu,
            "memory" => &mut usage.memory,
            _ => continue,
        };
        *place = place.or(parse_amount(name, amount));
    }
    (!usage.is_empty()).then_some(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usage(cpu: Option<i64>, memory: Option<i64>) -> Option<Usage> {
        Some(Usage { cpu, memory })
    }

    #[test]
    fn the_last_line_says_what_was_used() {
        let memory = Some(900 << 20);
        for (message, expected) in [
            ("usage: cpu=350m memory=900Mi", usage(Some(350), memory)),
            ("12 rows written\nusage: cpu=350m memory=900Mi\n", usage(Some(350), memory)),
            ("x\r\n  usage:memory=900Mi\tcpu=0.35 \r\n\n  \n", usage(Some(350), memory)),
            ("usage: memory=900Mi", usage(None, memory)),
            ("usage: cpu=1 gpu=2 cpu=7 memory=-1", usage(Some(1000), None)),
            ("usage: cpu=1e99", usage(Some(springtide_plumbing::quantity::MAX_AMOUNT), None)),
            ("usage: cpu=350m\nall done", None),
            ("usage: cpu=x memory", None),
            ("usage", None),
            ("Usage: cpu=1", None),
            ("", None),
        ] {
            assert_eq!(parse(message), expected, "{message:?}");
        }
    }

    #[test]
    fn what_the_task_says_goes_before_what_was_measured() {
        let said = Usage { cpu: Some(5), memory: None };
        let measured = Usage { cpu: Some(9), memory: Some(7) };
        assert_eq!(said.or(measured), Usage { cpu: Some(5), memory: Some(7) });
        let mut peak = Usage { cpu: Some(5), memory: None };
        peak.raise_to(Usage { cpu: Some(4), memory: Some(2) });
        assert_eq!(peak, Usage { cpu: Some(5), memory: Some(2) });
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_a_panic(message in "(usage:)?[ =\\PC\\n]{0,80}") {
            if let Some(usage) = parse(&message) {
                prop_assert!(usage.cpu.is_none_or(|amount| amount >= 0));
                prop_assert!(usage.memory.is_none_or(|amount| amount >= 0));
            }
        }
    }
}
