//! What moves the brake: a file, signals, a ConfigMap.

use super::{Brake, CONFIG_MAP};
use crate::config_map::ConfigMapView;
use crate::key::ObjectKey;
use crate::store::Store;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often the file is looked for.
pub const FILE_POLL: Duration = Duration::from_millis(250);

/// Looks for a file for ever: while it is there, whatever is in it, the brake is engaged. Where nobody can say
/// whether it is there, the last answer stands; before the first one, it is.
///
/// The first look is before this returns, so that no write can go before it.
pub fn watch_file(brake: &Brake, path: &Path) -> impl Future<Output = ()> + Send + use<> {
    let (brake, path) = (brake.clone(), path.to_owned());
    if !look(&brake, &path) {
        brake.set_file(true);
    }
    async move {
        let mut told = false;
        loop {
            tokio::time::sleep(FILE_POLL).await;
            let can_see = look(&brake, &path);
            if !can_see && !told {
                tracing::warn!(path = %path.display(), "cannot look for the brake's file: its last state stands");
            }
            told = !can_see;
        }
    }
}

/// Returns whether there was an answer.
fn look(brake: &Brake, path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(_) => brake.set_file(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            brake.set_file(false);
        }
        Err(_) => return false,
    }
    true
}

/// SIGUSR1 engages the brake and SIGUSR2 releases it. Not a toggle: whoever sends a signal cannot see the
/// present state, and sending one twice must be harmless.
#[derive(Debug)]
pub struct Signals {
    engage: Signal,
    release: Signal,
}

impl Signals {
    /// Takes the signals over, which would end the process otherwise.
    ///
    /// # Errors
    /// The system refuses.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            engage: signal(SignalKind::user_defined1())?,
            release: signal(SignalKind::user_defined2())?,
        })
    }

    /// Moves the brake as signals come.
    pub async fn follow(mut self, brake: Brake) {
        loop {
            let engaged = tokio::select! {
                Some(()) = self.engage.recv() => true,
                Some(()) = self.release.recv() => false,
                else => return,
            };
            brake.set_signal(engaged);
        }
    }
}

/// Reads the ConfigMap from its store once that is listed, and whenever it changes.
pub fn watch_config_map(
    brake: Brake,
    store: Store<ConfigMapView>,
    namespace: &str,
) -> impl Future<Output = ()> + Send + use<> {
    let key = ObjectKey::new(namespace, CONFIG_MAP);
    async move {
        store.synced().await;
        let moved = brake.clone();
        store.on_change(Arc::new(move |change| moved.read(change.present().map(|map| &**map))));
        // Where there is one it was the listener's to read; and so it is where one comes while this is asked.
        if store.get(&key).is_none() {
            brake.read_absent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brake::Source;
    use crate::key::ResourceVersion;
    use crate::projection::Projection;
    use crate::store::Trouble;
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    #[tokio::test(start_paused = true)]
    async fn a_file_brakes_for_as_long_as_it_is_there() {
        let folder = std::env::temp_dir().join(format!("springtide-brake-{:08x}", rand::random::<u32>()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("brake");
        // What it points to matters to nobody.
        symlink("/nowhere", &path).unwrap();
        let brake = Brake::new();
        let watching = watch_file(&brake, &path);
        assert_eq!(brake.engaged_by("any"), Some(Source::File), "before the first poll");
        let watching = tokio::spawn(watching);
        let after_a_second = async || tokio::time::sleep(Duration::from_secs(1)).await;
        for is_there in [false, true, false] {
            match is_there {
                true => std::fs::write(&path, "").unwrap(),
                false => std::fs::remove_file(&path).unwrap(),
            }
            after_a_second().await;
            assert_eq!(brake.engaged_by("any").is_some(), is_there);
        }
        watching.abort();
        // A name that the system cannot look up says nothing.
        let unreadable = folder.join("x".repeat(300));
        drop(watch_file(&brake, &unreadable));
        assert!(brake.is_engaged_by(Source::File), "nobody knows, so it brakes");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_config_map_counts_from_when_it_is_listed_and_its_absence_releases() {
        let map = |version: u32, value: &str| -> ConfigMapView {
            serde_json::from_value(serde_json::json!({
                "metadata": {
                    "namespace": "ns", "name": CONFIG_MAP, "uid": "u", "resourceVersion": version.to_string(),
                },
                "data": {"all": value},
            }))
            .unwrap()
        };
        let (store, mut writer) = Store::new(&[]);
        let brake = Brake::new();
        let reading = tokio::spawn(watch_config_map(brake.clone(), store, "ns"));
        tokio::task::yield_now().await;
        assert!(!brake.is_read() && brake.engaged_by("any").is_none());
        let engaged = map(1, "Engaged");
        let list = BTreeMap::from([(engaged.meta().key.clone(), Arc::new(engaged))]);
        writer.replace(list, ResourceVersion(1));
        reading.await.unwrap();
        assert!(brake.is_read());
        assert_eq!(brake.engaged_by("any"), Some(Source::ConfigMap));
        writer.apply(map(2, "Released"));
        assert_eq!(brake.engaged_by("any"), None);
        writer.apply(map(3, "Engaged"));
        // Who saw none before that says nothing of now.
        brake.read_absent();
        assert_eq!(brake.engaged_by("any"), Some(Source::ConfigMap));
        // Not served, not readable: the last value stands.
        writer.set_trouble(Trouble::NotServed);
        assert_eq!(brake.engaged_by("any"), Some(Source::ConfigMap));
        writer.delete(map(4, "Engaged"));
        assert_eq!(brake.engaged_by("any"), None);
    }
}
