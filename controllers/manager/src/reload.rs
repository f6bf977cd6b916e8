//! Hot reload: the configuration file is read again while the manager runs.
//!
//! Its text is looked at every few seconds. That needs no watch of a file system, and sees the swap of
//! the symbolic link by which a kubelet updates a mounted ConfigMap.

use crate::config::{Changes, ManagerConfiguration};
use crate::logging::LogLevel;
use crate::options::ManagerArgs;
use anyhow::Result;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use springtide_plumbing::budget::WriteBudget;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at the file. A kubelet takes about a minute to update it.
const PERIOD: Duration = Duration::from_secs(5);

/// What changes without a restart.
pub(crate) struct Live {
    /// The write budget of the process.
    pub budget: Arc<WriteBudget>,
    /// The level of its log.
    pub log_level: LogLevel,
}

impl Live {
    fn apply(&self, new: &ManagerConfiguration) -> Result<()> {
        self.log_level.set(&new.logging.level)?;
        self.budget.reconfigure(new.write_budget.clone());
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

const SUCCESS: ResultLabel = ResultLabel { result: "success" };
const FAILURE: ResultLabel = ResultLabel { result: "failure" };

/// What is measured of reloads.
#[derive(Debug, Default)]
pub struct Measures {
    reloads: Family<ResultLabel, Counter>,
    last_successful: Gauge,
}

impl Measures {
    /// Makes them part of what is scraped. The start was the first time that the file was read.
    pub fn register(&self, registry: &mut Registry) {
        for label in [SUCCESS, FAILURE] {
            drop(self.reloads.get_or_create(&label));
        }
        self.last_successful.set(1);
        registry.register(
            "springtide_config_reloads",
            "Times that the configuration file had changed while the manager ran, by whether it was valid",
            self.reloads.clone(),
        );
        registry.register(
            "springtide_config_last_reload_successful",
            "Whether the configuration file as it is now is valid: 1, or 0 while an older one is in force",
            self.last_successful.clone(),
        );
    }
}

/// The configuration that is in force, and the text that was looked at last.
pub(crate) struct Reloader {
    args: ManagerArgs,
    text: Option<String>,
    /// Live fields as they were applied last, all others as at the start.
    running: ManagerConfiguration,
    measures: Measures,
}

impl Reloader {
    /// Over the text from which `running` was made.
    pub(crate) fn new(
        args: ManagerArgs,
        text: Option<String>,
        running: ManagerConfiguration,
        measures: Measures,
    ) -> Self {
        Self { args, text, running, measures }
    }

    /// Looks at the file for ever; without one there is nothing to look at.
    pub(crate) async fn run(mut self, live: Live) {
        if self.args.config.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(PERIOD).await;
            self.look(|new| live.apply(new));
        }
    }

    /// Applies the file if it has changed. One that is not there for a moment, as some editors and copies do
    /// it, is a bad one until it is back.
    fn look(&mut self, apply: impl FnOnce(&ManagerConfiguration) -> Result<()>) {
        let read = self.args.read_file();
        let text = read.as_ref().ok().cloned().flatten();
        if text == self.text {
            return;
        }
        self.text = text;
        let outcome = read.and_then(|text| self.args.configuration(text.as_deref())).and_then(|new| {
            apply(&new)?;
            Ok(new)
        });
        match outcome {
            Ok(new) => {
                let Changes { live, restart } = Changes::between(&self.running, &new);
                tracing::info!(applied = live.join(" "), "the configuration file has changed");
                if !restart.is_empty() {
                    let fields = restart.join(" ");
                    tracing::warn!(fields, "these changes of the configuration wait for a restart");
                }
                self.running.write_budget = new.write_budget;
                self.running.logging.level = new.logging.level;
                self.measures.reloads.get_or_create(&SUCCESS).inc();
                self.measures.last_successful.set(1);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the changed configuration is refused; the one before stays in force");
                self.measures.reloads.get_or_create(&FAILURE).inc();
                self.measures.last_successful.set(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use std::path::{Path, PathBuf};

    /// A folder like that of a mounted ConfigMap: the file is a link into a folder that is itself a link,
    /// which is swapped.
    struct Mount {
        folder: PathBuf,
        versions: u32,
    }

    impl Mount {
        fn new(text: &str) -> Self {
            let name = format!("springtide-reload-{}-{:08x}", std::process::id(), rand::random::<u32>());
            let mut mount = Self { folder: std::env::temp_dir().join(name), versions: 0 };
            std::fs::create_dir(&mount.folder).unwrap();
            std::os::unix::fs::symlink("..data/config.yaml", mount.file()).unwrap();
            mount.swap(text);
            mount
        }

        fn file(&self) -> PathBuf {
            self.folder.join("config.yaml")
        }

        fn swap(&mut self, text: &str) {
            self.versions += 1;
            let version = self.versions.to_string();
            std::fs::create_dir(self.folder.join(&version)).unwrap();
            std::fs::write(self.folder.join(&version).join("config.yaml"), text).unwrap();
            std::os::unix::fs::symlink(Path::new(&version), self.folder.join("..new")).unwrap();
            std::fs::rename(self.folder.join("..new"), self.folder.join("..data")).unwrap();
        }
    }

    impl Drop for Mount {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }

    fn text(rest: &str) -> String {
        format!("apiVersion: config.springtide.dev/v1alpha1\nkind: ManagerConfiguration\n{rest}")
    }

    /// What was applied by one look, if anything.
    fn look(reloader: &mut Reloader) -> Option<ManagerConfiguration> {
        let mut applied = None;
        reloader.look(|new| {
            applied = Some(new.clone());
            Ok(())
        });
        applied
    }

    fn measured(reloader: &Reloader) -> (u64, u64, i64) {
        let Measures { reloads, last_successful } = &reloader.measures;
        let count = |label| reloads.get_or_create(label).get();
        (count(&SUCCESS), count(&FAILURE), last_successful.get())
    }

    #[test]
    fn a_swapped_file_is_applied_once_and_a_bad_one_never() {
        let mut mount = Mount::new(&text("logging: {level: warn}"));
        let file = mount.file();
        let line = ["--workers", "3", "--config", file.to_str().unwrap()];
        let args = ManagerArgs::of_line(line).unwrap();
        let first = args.read_file().unwrap();
        let running = args.configuration(first.as_deref()).unwrap();
        let mut reloader = Reloader::new(args, first, running, Measures::default());
        reloader.measures.register(&mut Registry::default());
        assert_eq!(look(&mut reloader), None, "nothing has changed");

        mount.swap(&text("logging: {level: debug}"));
        let applied = look(&mut reloader).unwrap();
        assert_eq!((&*applied.logging.level, applied.controllers.batch_job.workers), ("debug", 3));
        assert_eq!(look(&mut reloader), None);
        assert_eq!(measured(&reloader), (1, 0, 1));

        mount.swap(&text("logging: {level: trace, colour: blue}"));
        assert_eq!(look(&mut reloader), None);
        assert_eq!(look(&mut reloader), None);
        assert_eq!(measured(&reloader), (1, 1, 0), "refused once, and not in force");
        assert_eq!(reloader.running.logging.level, "debug");

        std::fs::remove_file(mount.folder.join("..data")).unwrap();
        assert_eq!(look(&mut reloader), None);
        assert_eq!(measured(&reloader), (1, 2, 0), "nothing to read is no configuration");
        mount.swap(&text("logging: {level: debug, format: Text}"));
        assert_eq!(look(&mut reloader).unwrap().logging.format, LogFormat::Text);
        assert_eq!(measured(&reloader), (2, 2, 1));
        assert_eq!(reloader.running.logging.format, LogFormat::Json, "that needs a restart");
    }
}
