//! Which CPUs there are, and on which of them this process and all that it starts may run.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Some CPUs by their numbers; as text a list as the kernel has it, such as `0-3,6` (`cpuset(7)`, formats).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(BTreeSet<usize>);

impl Cpus {
    /// All that work.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn online() -> Result<Self> {
        let list =
            fs::read_to_string("/sys/devices/system/cpu/online").context("read which CPUs there are")?;
        list.trim().parse()
    }

    /// Those on which this thread may run.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn allowed() -> Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0)).context("read on which CPUs this thread may run")?;
        // Beyond the size of the set there is none.
        Ok(Self((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The one of the highest number.
    #[must_use]
    pub fn last(&self) -> Option<usize> {
        self.0.last().copied()
    }

    /// All but this one.
    #[must_use]
    pub fn without(&self, cpu: usize) -> Self {
        Self(self.0.iter().copied().filter(|other| *other != cpu).collect())
    }
}

impl FromStr for Cpus {
    type Err = Error;

    fn from_str(list: &str) -> Result<Self> {
        let mut cpus = BTreeSet::new();
        for range in list.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| text.parse::<usize>().ok().filter(|cpu| *cpu < CpuSet::count());
            let (first, last) =
                number(first).zip(number(last)).with_context(|| format!("a list of CPUs: {list:?}"))?;
            anyhow::ensure!(first <= last, "a list of CPUs: {list:?}");
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

/// Keeps every thread of this process, and what it starts meanwhile, on some CPUs. On drop its threads are back where
/// the one that made it was.
#[derive(Debug)]
pub struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// Keeps them on `cpus`.
    ///
    /// # Errors
    /// The kernel allows none of them.
    pub fn to(cpus: &Cpus) -> Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0)).context("read on which CPUs this thread may run")?;
        let mut set = CpuSet::new();
        for cpu in &cpus.0 {
            set.set(*cpu).with_context(|| format!("CPU {cpu}"))?;
        }
        let pinned = Self { before };
        pin(&set).with_context(|| format!("keep all threads on CPUs {cpus}"))?;
        Ok(pinned)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = pin(&self.before) {
            eprintln!("threads stay on some CPUs: {error:#}");
        }
    }
}

/// Puts every thread of this process on these CPUs.
fn pin(set: &CpuSet) -> Result<()> {
    let mut pinned = BTreeSet::new();
    loop {
        let before = pinned.len();
        for task in fs::read_dir("/proc/self/task").context("list the threads of this process")? {
            let Some(thread) = task?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if !pinned.insert(thread) {
                continue;
            }
            match sched_setaffinity(Pid::from_raw(thread), set) {
                // It has ended.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("thread {thread}")),
            }
        }
        // A new thread begins where the one is that has made it, which may have been before its turn.
        if pinned.len() == before {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read_and_written() {
        let cpus = |list: &str| list.parse::<Cpus>();
        let some = cpus("0-3,6,8-9").unwrap();
        assert_eq!((some.len(), some.last(), some.to_string()), (7, Some(9), "0,1,2,3,6,8,9".to_owned()));
        assert_eq!(cpus(&some.to_string()).unwrap(), some);
        assert_eq!(some.without(9), cpus("0-3,6,8").unwrap());
        assert!(cpus("5").unwrap().without(5).is_empty());
        for wrong in ["", "3-1", "x", "0-4000000000", "1,,2"] {
            cpus(wrong).unwrap_err();
        }
        assert!(!Cpus::online().unwrap().is_empty());
    }

    #[test]
    fn what_is_started_while_threads_are_pinned_is_there_too_and_they_go_back() {
        let of_a_child = || -> Cpus {
            let status = std::process::Command::new("cat").arg("/proc/self/status").output().unwrap();
            let status = String::from_utf8(status.stdout).unwrap();
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
            list.trim().parse().unwrap()
        };
        let before = Cpus::allowed().unwrap();
        let one = Cpus([before.last().unwrap()].into());
        // A thread that was there before, as that is from which children are started.
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let (answer, answered) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            for () in asked {
                answer.send(of_a_child()).unwrap();
            }
        });
        let pinned = Pinned::to(&one).unwrap();
        ask.send(()).unwrap();
        assert_eq!((Cpus::allowed().unwrap(), answered.recv().unwrap()), (one.clone(), one));
        drop(pinned);
        ask.send(()).unwrap();
        assert_eq!((Cpus::allowed().unwrap(), answered.recv().unwrap()), (before.clone(), before));
        drop(ask);
        other.join().unwrap();
    }
}
