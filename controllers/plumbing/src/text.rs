//! Texts that many objects have in common are kept once: namespaces, finalizers, kinds of owners, labels.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Texts from which on those that nobody uses are looked for.
const FIRST_SWEEP: usize = 256;

/// Of the process, as whoever decodes an object knows of nothing else.
static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);

#[derive(Debug, Default)]
struct Texts {
    known: HashSet<Arc<str>>,
    /// Texts after the last sweep.
    left: usize,
}

impl Texts {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        // Each time that they have doubled: a constant cost for each.
        if self.known.len() >= FIRST_SWEEP.max(2 * self.left) {
            self.known.retain(|text| Arc::strong_count(text) > 1);
            self.known.shrink_to(FIRST_SWEEP.max(2 * self.known.len()));
            self.left = self.known.len();
        }
        let text: Arc<str> = text.into();
        self.known.insert(Arc::clone(&text));
        text
    }
}

/// This text, as all share it who have got it here. Made for texts that recur: each costs a look-up under a lock.
pub fn shared_text(text: &str) -> Arc<str> {
    TEXTS.lock().unwrap_or_else(PoisonError::into_inner).share(text)
}

/// A text that is shared when it is decoded.
pub(crate) struct Shared(pub(crate) Arc<str>);

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl Visitor<'_> for Texts {
            type Value = Shared;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Shared, E> {
                Ok(Shared(shared_text(text)))
            }
        }

        deserializer.deserialize_str(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one() {
        let [one, same, other] = ["one", "one", "other"].map(shared_text);
        assert!(Arc::ptr_eq(&one, &same));
        assert_eq!((&*one, &*other), ("one", "other"));
        let decoded: Shared = serde_json::from_str(r#""one""#).unwrap();
        assert!(Arc::ptr_eq(&decoded.0, &one));
    }

    #[test]
    fn texts_that_nobody_uses_any_more_are_forgotten() {
        let mut texts = Texts::default();
        let used = texts.share("used");
        let most = (0..5000)
            .map(|number| {
                drop(texts.share(&number.to_string()));
                texts.known.len()
            })
            .max();
        assert!(most <= Some(2 * FIRST_SWEEP), "{most:?}");
        assert!(Arc::ptr_eq(&used, &texts.share("used")), "one that is used stays");
    }
}
