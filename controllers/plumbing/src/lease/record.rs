//! The Lease object as the election reads and writes it, and the decision of a standby.

use crate::key::{Resource, ResourceVersion};
use crate::projection::{Meta, NoLabels, Projection};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// What is read of a Lease.
#[derive(Clone, Debug, Deserialize)]
pub struct LeaseView {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    holder_identity: Option<String>,
    #[serde(default)]
    lease_duration_seconds: Option<u32>,
    #[serde(default)]
    lease_transitions: Option<u32>,
}

impl Projection for LeaseView {
    const RESOURCE: Resource = Resource::LEASE;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl LeaseView {
    /// Who holds it; `None` when it was released or never held.
    pub fn holder(&self) -> Option<&str> {
        self.spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    pub(crate) fn version(&self) -> ResourceVersion {
        self.metadata.resource_version
    }

    pub(crate) fn transitions(&self) -> u32 {
        self.spec.lease_transitions.unwrap_or(0)
    }
}

/// What a standby does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standby {
    /// No Lease exists: make it.
    Create,
    /// Released, expired, or our own from before: take it.
    Take,
    /// Held by another; it expires then unless it is renewed.
    WaitUntil(Duration),
}

/// Decides for a process that does not lead. `seen_at` is when this version of the Lease was first
/// seen *here*: the holder's clock is never compared with ours.
pub(crate) fn decide(
    lease: Option<(&LeaseView, Duration)>,
    identity: &str,
    default_duration: Duration,
    now: Duration,
) -> Standby {
    let Some((lease, seen_at)) = lease else { return Standby::Create };
    match lease.holder() {
        None => Standby::Take,
        Some(holder) if holder == identity => Standby::Take,
        Some(_) => {
            let duration = lease
                .spec
                .lease_duration_seconds
                .map_or(default_duration, |seconds| Duration::from_secs(seconds.into()));
            let expires = seen_at + duration;
            if now >= expires { Standby::Take } else { Standby::WaitUntil(expires) }
        }
    }
}

/// The manifest of a held (or, with an empty identity, released) Lease.
pub(crate) struct Manifest<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Replaces exactly this version; `None` creates.
    pub(crate) version: Option<ResourceVersion>,
    pub(crate) identity: &'a str,
    pub(crate) duration: Duration,
    pub(crate) transitions: u32,
    pub(crate) acquired: Timestamp,
    pub(crate) renewed: Timestamp,
}

impl Manifest<'_> {
    pub(crate) fn to_json(&self) -> Value {
        let mut metadata = json!({"namespace": self.namespace, "name": self.name});
        if let Some(version) = self.version {
            metadata["resourceVersion"] = version.to_string().into();
        }
        json!({
            "apiVersion": Resource::LEASE.api_version(),
            "kind": Resource::LEASE.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.identity,
                // The API refuses 0; a released lease says one second, as client-go does.
                "leaseDurationSeconds": self.duration.as_secs().max(1),
                "acquireTime": micro_time(self.acquired),
                "renewTime": micro_time(self.renewed),
                "leaseTransitions": self.transitions,
            },
        })
    }
}

/// `MicroTime` of the API: RFC 3339 with exactly six digits.
fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, seconds: u32) -> LeaseView {
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "l", "uid": "u", "resourceVersion": "5"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 2}
        }))
        .unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn verdict(lease: &LeaseView, seen: u64, now: u64) -> Standby {
        decide(Some((lease, Duration::from_secs(seen))), "me", HOUR, Duration::from_secs(now))
    }

    #[test]
    fn a_standby_takes_only_what_is_free_expired_or_its_own() {
        assert_eq!(decide(None, "me", HOUR, Duration::ZERO), Standby::Create);
        assert_eq!(verdict(&lease("", 1), 0, 0), Standby::Take);
        assert_eq!(verdict(&lease("me", 30), 0, 0), Standby::Take);
        assert_eq!(verdict(&lease("other", 30), 100, 129), Standby::WaitUntil(Duration::from_secs(130)));
        assert_eq!(verdict(&lease("other", 30), 100, 130), Standby::Take);
    }

    #[test]
    fn times_are_written_as_micro_time() {
        let time: Timestamp = "2026-11-11T00:00:00.5Z".parse().unwrap();
        assert_eq!(micro_time(time), "2026-11-11T00:00:00.500000Z");
    }
}
