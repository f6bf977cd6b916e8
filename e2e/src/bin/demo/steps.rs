//! Says what the demo does, in numbered steps with their seconds.

use std::time::Instant;

/// The steps so far. Output is whole lines, so that it reads well in a log too.
pub(crate) struct Steps {
    begun: Instant,
    number: u32,
    current: Option<Instant>,
}

impl Steps {
    /// Before the first step.
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), number: 0, current: None }
    }

    /// Ends the step before, and begins one.
    pub(crate) fn begin(&mut self, title: &str) {
        self.end();
        self.number += 1;
        println!("{}. {title}", self.number);
        self.current = Some(Instant::now());
    }

    /// A remark about the present step.
    pub(crate) fn note(&self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// Ends the present step, if there is one.
    pub(crate) fn end(&mut self) {
        if let Some(started) = self.current.take() {
            println!("   done in {:.1} s", started.elapsed().as_secs_f64());
        }
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }
}
