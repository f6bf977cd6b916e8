//! What is known of a pod from before its patch, as an annotation of the pod.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most bytes of the annotation's value.
const MAX_BYTES: usize = 4096;
/// The most bytes of the name of a run that are read.
const RUN_MAX_BYTES: usize = 63;
/// Bytes of a fingerprint: with 40 bits two IDs of one container are the same once in 10^12 times.
const FINGERPRINT_BYTES: usize = 5;

/// A patch of a live pod, and what its containers were before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The run whose patch it is.
    pub run: Arc<str>,
    /// When the patch was made.
    pub at: Timestamp,
    /// `metadata.generation` of the pod before it.
    #[serde(rename = "g")]
    pub generation: i64,
    /// The containers that it changes, by name.
    pub base: BTreeMap<Arc<str>, Base>,
    /// The last restart for its own sake that the pod has had: what was created before this instant was to be restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted: Option<Timestamp>,
    /// Containers whose image stands in the pod under another of its names than in the wish, as they were restarted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub renamed: BTreeSet<Arc<str>>,
    /// [Marks](mark) of what this patch and those before it have added to the pod, such as labels.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub added: BTreeSet<Box<str>>,
}

/// A container before the patch: fingerprints of its `containerID` and its `imageID`, and its `restartCount`. They are
/// short, so that the annotation of a pod of many containers is. An ID that was not there is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base(Box<str>, Box<str>, #[serde(default)] u32);

impl Base {
    /// A container by the IDs of its status, empty if there are none, that was never restarted.
    pub fn of(container_id: &str, image_id: &str) -> Self {
        Self(fingerprint(container_id), fingerprint(digest_of(image_id)), 0)
    }

    /// The same, restarted so often.
    #[must_use]
    pub fn restarted(self, restarts: u32) -> Self {
        Self(self.0, self.1, restarts)
    }

    /// Whether this is the container.
    pub(super) fn is_container(&self, container_id: &str) -> bool {
        self.0 == fingerprint(container_id)
    }

    /// Whether this is surely another image. Where none was known before, the old one may have come in meanwhile.
    pub(super) fn has_other_image(&self, image_id: &str) -> bool {
        !self.1.is_empty() && !image_id.is_empty() && self.1 != fingerprint(digest_of(image_id))
    }
}

impl Record {
    /// How often a container has been restarted since the patch beside the one restart that the patch asks for, by the
    /// `restartCount` of its status. One that the patch did not touch is nobody's concern.
    pub fn further_restarts(&self, container: &str, restarts: u32) -> u32 {
        self.base.get(container).map_or(0, |base| restarts.saturating_sub(base.2).saturating_sub(1))
    }

    /// Whether this is the very container that ran before the patch. One that the patch did not touch has none.
    pub fn is_base(&self, container: &str, container_id: &str) -> bool {
        !container_id.is_empty()
            && self.base.get(container).is_some_and(|base| base.is_container(container_id))
    }

    /// The annotation's value; `None` if it would be longer than 4 KiB.
    pub fn encode(&self) -> Option<String> {
        let text = serde_json::to_string(self).ok()?;
        (text.len() <= MAX_BYTES).then_some(text)
    }

    /// Reads an annotation's value. What is damaged, or was written by somebody else, is none.
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let record: Self = serde_json::from_str(text).ok()?;
        let is_run = !record.run.is_empty() && record.run.len() <= RUN_MAX_BYTES;
        (is_run && record.generation >= 0).then_some(record)
    }
}

/// A short name of something long, for [`Record::added`]: two are the same once in 10^12 times.
pub fn mark(of: &str) -> Box<str> {
    fingerprint(of)
}

/// The digest in an image ID: one image may be known under several names, of which the runtime tells any.
fn digest_of(image_id: &str) -> &str {
    image_id.rsplit_once('@').map_or(image_id, |(_, digest)| digest)
}

fn fingerprint(id: &str) -> Box<str> {
    if id.is_empty() {
        return Box::default();
    }
    let digest = Sha256::digest(id.as_bytes());
    hex::encode(&digest[..FINGERPRINT_BYTES]).into()
}
