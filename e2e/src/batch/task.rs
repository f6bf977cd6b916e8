//! Pod templates of tasks that KWOK plays.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use springtide_crds::batch_job::PodTemplate;

use crate::kwok::{EXIT_CODE, RUN_SECONDS, TERMINATION_MESSAGE, TERMINATION_REASON};

/// Node label that says which pool a node belongs to. Every task names its pool, so
/// that tests that run side by side do not use each other's capacity.
pub const POOL: &str = "springtide.dev/pool";
/// The pool of tests that do not care about capacity.
pub const GENERAL: &str = "general";

/// What a task's only container does, and what it asks for.
#[derive(Debug, Clone)]
pub struct Task {
    /// Value of [`POOL`].
    pub pool: String,
    /// Seconds to its end, or `never`.
    pub run_seconds: String,
    /// Exit code.
    pub exit_code: i32,
    /// Reason of the end, such as `OOMKilled`.
    pub reason: Option<String>,
    /// Termination message.
    pub message: Option<String>,
    /// Requested CPU, a quantity.
    pub cpu: String,
    /// Requested memory, a quantity.
    pub memory: String,
}

impl Task {
    /// Ends well after a moment.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            pool: GENERAL.to_owned(),
            run_seconds: "0.2".to_owned(),
            exit_code: 0,
            reason: None,
            message: None,
            cpu: "100m".to_owned(),
            memory: "64Mi".to_owned(),
        }
    }

    /// Runs until somebody ends it.
    #[must_use]
    pub fn endless() -> Self {
        Self { run_seconds: "never".to_owned(), ..Self::quick() }
    }

    /// Fails with this code after a moment.
    #[must_use]
    pub fn failing(exit_code: i32) -> Self {
        Self { exit_code, ..Self::quick() }
    }

    /// The same on another pool.
    #[must_use]
    pub fn on(self, pool: &str) -> Self {
        Self { pool: pool.to_owned(), ..self }
    }

    /// The pod template.
    #[must_use]
    pub fn template(&self) -> PodTemplate {
        self.template_with(|_| {})
    }

    /// The pod template after a change.
    #[must_use]
    pub fn template_with(&self, change: impl FnOnce(&mut Value)) -> PodTemplate {
        let annotations: BTreeMap<&str, String> = [
            (RUN_SECONDS, Some(self.run_seconds.clone())),
            (EXIT_CODE, (self.exit_code != 0).then(|| self.exit_code.to_string())),
            (TERMINATION_REASON, self.reason.clone()),
            (TERMINATION_MESSAGE, self.message.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
        let mut template = json!({
            "metadata": {"annotations": annotations},
            "spec": {
                "nodeSelector": {POOL: self.pool},
                "containers": [{
                    "name": "main",
                    "image": "example.com/task:1",
                    "resources": {"requests": {"cpu": self.cpu, "memory": self.memory}},
                }],
            },
        });
        change(&mut template);
        match template {
            Value::Object(fields) => PodTemplate(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                PodTemplate::default()
            }
        }
    }
}
