//! Templates that are alike are kept once. Ten thousand jobs that wait are often of one template, and each job is read
//! anew with every change of its status.

use super::job::Template;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

/// Entries from which on those that nobody uses are looked for.
const FIRST_SWEEP: usize = 64;

/// Of the process, as whoever decodes an object knows of nothing else.
static TEMPLATES: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

#[derive(Debug, Default)]
struct Pool {
    by_hash: HashMap<Box<str>, Weak<Template>>,
    /// Entries after the last sweep.
    left: usize,
}

/// The template of this hash and text; `make` makes one that is not there yet.
pub(super) fn shared(hash: &str, json: &str, make: impl FnOnce() -> Template) -> Arc<Template> {
    TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner).get(hash, json, make)
}

impl Pool {
    fn get(&mut self, hash: &str, json: &str, make: impl FnOnce() -> Template) -> Arc<Template> {
        let known = self.by_hash.get(hash).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.is(json)) {
            return known;
        }
        let made = Arc::new(make());
        self.by_hash.insert(hash.into(), Arc::downgrade(&made));
        // Each time that they have doubled: a constant cost for each.
        if self.by_hash.len() >= FIRST_SWEEP.max(2 * self.left) {
            self.by_hash.retain(|_, template| template.strong_count() > 0);
            self.left = self.by_hash.len();
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use springtide_crds::batch_job::PodTemplate;

    fn template(image: usize) -> PodTemplate {
        let spec = json!({"spec": {"containers": [{"name": "main", "image": format!("app:{image}")}]}});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn equal_templates_are_one_and_others_are_not() {
        let [one, same, other] = [1, 1, 2].map(|image| Template::shared(&template(image)));
        assert!(Arc::ptr_eq(&one, &same));
        assert_ne!(one.hash, other.hash);
        assert_eq!(*one, Template::new(&template(1)), "it is what it would be alone");
    }

    #[test]
    fn what_has_another_text_under_the_same_hash_is_not_shared() {
        let mut pool = Pool::default();
        let make = |image| Template::new(&template(image));
        let one = pool.get("h", "one", || make(1));
        let other = pool.get("h", "other", || make(2));
        assert_ne!(*one, *other);
    }

    #[test]
    fn templates_that_nobody_uses_any_more_are_forgotten() {
        let mut pool = Pool::default();
        let mut get = |image: usize| {
            let made = Template::new(&template(image));
            let (hash, json) = (made.hash.clone(), serde_json::to_string(&template(image)).unwrap());
            let got = pool.get(&hash, &json, || made);
            (got, pool.by_hash.len())
        };
        let (used, _) = get(0);
        let most = (1..1000).map(|image| get(image).1).max();
        assert!(most < Some(2 * FIRST_SWEEP), "{most:?}");
        assert!(Arc::ptr_eq(&used, &get(0).0), "one that is used stays");
    }
}
