//! Tests of the cache with a builder that writes small files.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::*;
use crate::tools::table::select;

/// A version for every module.
fn version(version: &str) -> impl Fn(&Module) -> Result<String> {
    let version = version.to_owned();
    move |_| Ok(version.clone())
}

/// A folder of its own for a test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = env::temp_dir().join(format!("springtide-xtask-{}-{test}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn sources(&self) -> Sources {
        Sources { given: None, assets: None, cache: self.0.join("cache") }
    }

    /// A folder with executable files of these names.
    fn with_executables(&self, folder: &str, names: &[&str]) -> PathBuf {
        let folder = self.0.join(folder);
        fs::create_dir_all(&folder).unwrap();
        for name in names {
            write_executable(&folder.join(name), "given");
        }
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn write_executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn tools(names: &[&str]) -> Vec<&'static Tool> {
    select(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// Counts the calls per tool; takes a while, so that callers overlap.
#[derive(Default)]
struct Counting {
    built: Mutex<HashMap<&'static str, usize>>,
    slow: bool,
    fails: bool,
}

impl Counting {
    fn calls(&self) -> Vec<(&'static str, usize)> {
        let mut calls: Vec<_> =
            self.built.lock().unwrap().iter().map(|(name, count)| (*name, *count)).collect();
        calls.sort_unstable();
        calls
    }
}

impl Build for Counting {
    fn build(&self, module: &Module, tools: &[&Tool], into: &Path) -> Result<()> {
        assert_eq!(fs::read_dir(into).unwrap().count(), 0, "the staging folder starts empty");
        for tool in tools {
            let of = module.tools.iter().find(|of| of.name == tool.name).unwrap();
            *self.built.lock().unwrap().entry(of.name).or_default() += 1;
            // Half written first: whoever looks now must not take it for whole.
            write_executable(&into.join(tool.name), "half");
            if self.slow {
                thread::sleep(Duration::from_millis(100));
            }
            if self.fails {
                bail!("the compiler is unhappy");
            }
            write_executable(&into.join(tool.name), "whole");
        }
        Ok(())
    }
}

/// A copy of the pinned modules, to change.
fn copy_of_modules(to: &Path) {
    for module in MODULES {
        fs::create_dir_all(to.join(module.folder)).unwrap();
        for name in ["go.mod", "go.sum"] {
            let from = crate::repository_root().join("hack/tools").join(module.folder).join(name);
            fs::copy(from, to.join(module.folder).join(name)).unwrap();
        }
    }
}

#[test]
fn the_hash_is_the_same_for_the_same_content_wherever_it_lies() {
    let folder = Folder::new("hash-same");
    copy_of_modules(&folder.0);
    let original = crate::repository_root().join("hack/tools");
    for module in MODULES {
        assert_eq!(hash(&folder.0, module).unwrap(), hash(&original, module).unwrap());
    }
}

#[test]
fn the_hash_changes_with_each_file_and_each_flag() {
    let folder = Folder::new("hash-changes");
    copy_of_modules(&folder.0);
    let mut seen = Vec::new();
    for module in MODULES {
        seen.push(hash(&folder.0, module).unwrap());
        for name in ["go.mod", "go.sum"] {
            let path = folder.0.join(module.folder).join(name);
            let mut text = fs::read_to_string(&path).unwrap();
            text.push('\n');
            fs::write(&path, text).unwrap();
            seen.push(hash(&folder.0, module).unwrap());
        }
    }
    let plain = || Module { folder: "etcd", ldflags: "", tags: "", cgo: false, tools: &[] };
    for module in [
        Module { ldflags: "-X a=b", ..plain() },
        Module { tags: "t", ..plain() },
        Module { cgo: true, ..plain() },
    ] {
        seen.push(hash(&folder.0, &module).unwrap());
    }
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all);
}

#[test]
fn a_missing_module_is_named() {
    let folder = Folder::new("hash-missing");
    let error = format!("{:#}", hash(&folder.0, &MODULES[0]).unwrap_err());
    assert!(error.contains("etcd/go.mod"), "{error}");
}

#[test]
fn the_environment_gives_the_sources_and_empty_counts_as_unset() {
    let sources = |pairs: &[(&str, &str)]| {
        Sources::from_lookup(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    };
    let plain = sources(&[("HOME", "/home/a"), ("SPRINGTIDE_BIN", ""), ("KUBEBUILDER_ASSETS", "")]).unwrap();
    assert_eq!(plain.cache, Path::new("/home/a/.cache/springtide"));
    assert_eq!((plain.given, plain.assets), (None, None));
    let full =
        sources(&[("XDG_CACHE_HOME", "/c"), ("SPRINGTIDE_BIN", "/b"), ("KUBEBUILDER_ASSETS", "/k")]).unwrap();
    assert_eq!(full.cache, Path::new("/c/springtide"));
    assert_eq!((full.given, full.assets), (Some("/b".into()), Some("/k".into())));
    let relative = sources(&[("XDG_CACHE_HOME", "c"), ("HOME", "/h")]).unwrap();
    assert_eq!(relative.cache, Path::new("/h/.cache/springtide"));
    assert!(sources(&[]).is_err());
}

#[test]
fn the_given_folder_comes_first_and_is_used_as_it_is() {
    let folder = Folder::new("given");
    let given = folder.with_executables("given", &["etcd", "kubectl"]);
    let assets = folder.with_executables("assets", &["etcd", "kubectl"]);
    let sources = Sources { given: Some(given.clone()), assets: Some(assets), ..folder.sources() };
    let builder = Counting::default();
    assert_eq!(sources.provide(version("h"), &tools(&["etcd", "kubectl"]), &builder).unwrap(), given);
    let error =
        sources.provide(version("h"), &tools(&["etcd", "kwok", "runc"]), &builder).unwrap_err().to_string();
    assert!(error.contains("SPRINGTIDE_BIN") && error.contains("lacks kwok, runc;"), "{error}");
    assert_eq!(builder.calls(), []);
}

#[test]
fn assets_are_linked_beside_what_is_built() {
    let folder = Folder::new("assets");
    let assets = folder.with_executables("assets", &["etcd", "kube-apiserver", "kubelet"]);
    let sources = Sources { assets: Some(assets.clone()), ..folder.sources() };
    let builder = Counting::default();
    let wanted = tools(&["etcd", "kube-apiserver", "kubectl", "kubelet"]);
    let bin = sources.provide(version("h"), &wanted, &builder).unwrap();
    // kubectl is not among these assets, and kubelet is not what assets are known for.
    assert_eq!(builder.calls(), [("kubectl", 1), ("kubelet", 1)]);
    assert_eq!(fs::read_link(bin.join("etcd")).unwrap(), assets.join("etcd"));
    assert_eq!(fs::read_to_string(bin.join("kubelet")).unwrap(), "whole");
    assert_eq!(missing(&bin, &wanted).len(), 0);
    // The same again changes nothing; without assets the links are not in the way.
    assert_eq!(sources.provide(version("h"), &wanted, &builder).unwrap(), bin);
    let plain = folder.sources().provide(version("h"), &wanted, &builder).unwrap();
    assert_ne!(plain, bin);
    assert_eq!(fs::read_to_string(plain.join("etcd")).unwrap(), "whole");
}

#[test]
fn assets_that_moved_are_linked_anew() {
    let folder = Folder::new("relink");
    let at = folder.0.join("link");
    symlink("/nowhere", &at).unwrap();
    link(&folder.0, &at).unwrap();
    assert_eq!(fs::read_link(&at).unwrap(), folder.0);
}

#[test]
fn a_second_run_builds_nothing_and_a_larger_one_only_the_rest() {
    let folder = Folder::new("second");
    let sources = folder.sources();
    let builder = Counting::default();
    let bin = sources.provide(version("h"), &tools(&["ctr", "kwok"]), &builder).unwrap();
    assert_eq!(fs::read_link(bin.join("ctr")).unwrap(), folder.0.join("cache/containerd-h/bin/ctr"));
    sources.provide(version("h"), &tools(&["ctr", "kwok"]), &builder).unwrap();
    sources.provide(version("h"), &tools(&["ctr", "kwok", "containerd"]), &builder).unwrap();
    assert_eq!(builder.calls(), [("containerd", 1), ("ctr", 1), ("kwok", 1)]);
    // Another version of one module leaves what is there of all others.
    let other = |module: &Module| Ok(if module.folder == "kwok" { "other" } else { "h" }.to_owned());
    let bin = sources.provide(other, &tools(&["kwok", "ctr"]), &builder).unwrap();
    assert_eq!(fs::read_link(bin.join("kwok")).unwrap(), folder.0.join("cache/kwok-other/bin/kwok"));
    assert_eq!(builder.calls(), [("containerd", 1), ("ctr", 1), ("kwok", 2)]);
}

#[test]
fn what_cannot_be_run_counts_as_missing() {
    let folder = Folder::new("presence");
    let bin = folder.with_executables("bin", &["etcd"]);
    fs::write(bin.join("kubectl"), "not executable").unwrap();
    write_executable(&bin.join("kwok"), "");
    fs::create_dir(bin.join("runc")).unwrap();
    symlink("nowhere", bin.join("ctr")).unwrap();
    let wanted = tools(&["etcd", "kubectl", "kwok", "runc", "ctr", "bridge"]);
    assert_eq!(names(&missing(&bin, &wanted)), "kubectl, kwok, ctr, bridge, runc");
}

#[test]
fn callers_at_the_same_time_build_once_and_see_only_whole_binaries() {
    let folder = Folder::new("parallel");
    let sources = folder.sources();
    let builder = Counting { slow: true, ..Counting::default() };
    let wanted = tools(&["containerd", "ctr", "kwok", "runc"]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let bin = sources.provide(version("h"), &wanted, &builder).unwrap();
                for tool in &wanted {
                    assert_eq!(fs::read_to_string(bin.join(tool.name)).unwrap(), "whole");
                }
            });
        }
    });
    assert_eq!(builder.calls(), [("containerd", 1), ("ctr", 1), ("kwok", 1), ("runc", 1)]);
}

#[test]
fn a_failed_build_leaves_no_half_binary_and_the_next_one_succeeds() {
    let folder = Folder::new("failed");
    let sources = folder.sources();
    let wanted = tools(&["kwok"]);
    let failing = Counting { fails: true, ..Counting::default() };
    let error = sources.provide(version("h"), &wanted, &failing).unwrap_err().to_string();
    assert_eq!(error, "the compiler is unhappy");
    assert!(!folder.0.join("cache/kwok-h/bin/kwok").exists());
    fs::create_dir(folder.0.join("cache/kwok-h/staging-0")).unwrap();
    let bin = sources.provide(version("h"), &wanted, &Counting::default()).unwrap();
    assert_eq!(fs::read_to_string(bin.join("kwok")).unwrap(), "whole");
    let mut left: Vec<_> = fs::read_dir(folder.0.join("cache/kwok-h"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["bin", "lock"], "what the failed and the killed builder left is gone");
}
