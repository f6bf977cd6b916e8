//! What stands between a plan and the wire besides leadership and budget: [brake](crate::brake), observe
//! mode, delete protection, [warrants](crate::warrant) and [breaker](crate::breaker).

use crate::brake::{Brake, Source};
use crate::breaker::{Breaker, Case, Limits};
use crate::clock::Clock;
use crate::plan::Write;
use crate::warrant::{NoWarrants, PROTECTION_LABEL, Target, Warrant, Warrants};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Whether a controller acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mode {
    /// Its plans are performed.
    #[default]
    Act,
    /// Its plans are made and counted; nothing is sent.
    Observe,
}

/// The guard of one controller's writes.
#[derive(Clone)]
pub struct Guard {
    /// Whether the controller acts at all.
    pub mode: Mode,
    /// The stop switch of the process.
    pub brake: Brake,
    /// The breaker of the process.
    pub breaker: Arc<Breaker>,
    /// Derives the warrants of this controller.
    pub warrants: Arc<dyn Warrants>,
}

/// What a write was let pass as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It destroys nothing.
    Harmless,
    /// It destroys, with this warrant.
    Warranted(Warrant),
    /// It destroys without a warrant, within the caps.
    Unwarranted,
}

/// Why a write was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// The stop switch is engaged.
    #[error("the brake is engaged by {0}")]
    Braked(Source),
    /// The controller only observes.
    #[error("observe mode: counted, not sent")]
    Observing,
    /// It destroys, and nobody knows yet whether it may: the switches have not been read.
    #[error("ConfigMap {0} has not been read yet, so nothing is destroyed")]
    Unread(&'static str),
    /// The object is protected.
    #[error("the object bears the label {PROTECTION_LABEL}: remove the label to have it deleted")]
    Protected,
    /// The breaker is open.
    #[error("the breaker is open: see incident {id} in ConfigMap {}", crate::breaker::CONFIG_MAP)]
    BreakerOpen {
        /// The incident.
        id: String,
    },
}

impl Withheld {
    /// The label value in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Braked(_) => "braked",
            Self::Observing => "observed",
            Self::Unread(_) => "switches_unread",
            Self::Protected => "protected",
            Self::BreakerOpen { .. } => "breaker_open",
        }
    }

    /// When to look again; `None` where only an event makes a difference. Nothing is sent for it.
    pub fn pause(&self) -> Option<Duration> {
        match self {
            Self::Observing => None,
            Self::Braked(_) | Self::Unread(_) => Some(Duration::from_secs(1)),
            Self::Protected | Self::BreakerOpen { .. } => Some(Duration::from_secs(30)),
        }
    }
}

impl Guard {
    /// A guard that lets everything pass, as in a cluster without the ConfigMaps of the switches and with a
    /// breaker without caps: for tests and benches of what comes after it.
    pub fn open() -> Self {
        let guard = Self {
            mode: Mode::Act,
            brake: Brake::new(),
            breaker: Arc::new(Breaker::new(Limits::NONE, Clock::system())),
            warrants: Arc::new(NoWarrants),
        };
        guard.brake.read(None);
        guard.breaker.read(None);
        guard
    }

    /// Whether the write may go on its way. What it destroys without a warrant is counted here, once for
    /// each object.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admit(&self, controller: &'static str, write: &Write) -> Result<Passage, Withheld> {
        if let Some(source) = self.brake.engaged_by(controller) {
            return Err(Withheld::Braked(source));
        }
        if self.mode == Mode::Observe {
            return Err(Withheld::Observing);
        }
        if !write.action.is_destructive() {
            return Ok(Passage::Harmless);
        }
        if !self.brake.is_read() {
            return Err(Withheld::Unread(crate::brake::CONFIG_MAP));
        }
        let target = Target {
            resource: write.resource,
            key: &write.key,
            uid: write.action.uid(),
            is_delete: write.action.is_delete(),
        };
        // Who takes the last finalizer of an object has been asked to delete it by somebody else.
        if target.is_delete && self.warrants.is_protected(&target) {
            return Err(Withheld::Protected);
        }
        let namespace = &write.key.namespace;
        // Before the warrant, which may be one of few.
        self.breaker.check(controller, namespace)?;
        if let Some(warrant) = self.warrants.warrant(&target) {
            return Ok(Passage::Warranted(warrant));
        }
        let case = Case { controller, write, uid: target.uid, at: Instant::now() };
        self.breaker.admit(&case, &|namespace| self.warrants.live(write.resource, namespace))?;
        Ok(Passage::Unwarranted)
    }
}
