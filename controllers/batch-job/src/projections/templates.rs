//! Pod templates that are alike are kept once.

use super::job::Template;
use springtide_plumbing::pool::Pool;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Of the process, as whoever decodes an object knows of nothing else.
static TEMPLATES: LazyLock<Mutex<Pool<Box<str>, Template>>> = LazyLock::new(Mutex::default);

/// The template of this hash and text; `make` makes one that is not there yet.
pub(super) fn shared(hash: &str, json: &str, make: impl FnOnce() -> Template) -> Arc<Template> {
    let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
    templates.get(hash.into(), |known| known.is(json), make)
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
}
