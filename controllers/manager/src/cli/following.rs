//! Follows one object until what is asked of it has come to its end.
#![allow(clippy::disallowed_types, reason = "a command of a person reads with that person's rights")]

use super::read::Cluster;
use super::screen::{Screen, Shown};
use super::text::span;
use anyhow::{Result, bail};
use futures::StreamExt;
use jiff::Timestamp;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use springtide_plumbing::key::ObjectKey;
use std::fmt::Debug;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// What needs a person for this long is the end: it may be what was mended a moment ago, or be asked for again.
const STALL_GRACE: Duration = Duration::from_secs(10);
/// Length of one watch in seconds: one whose connection has died is noticed a little later.
const WATCH_SECONDS: u32 = 30;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All is as it was asked for.
    Succeeded,
    /// It went wrong, and all is again as it was.
    RolledBack,
    /// Something needs a person.
    Stalled,
    /// The time that was given is over.
    TimeUp,
    /// Somebody has ended the command.
    Interrupted,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Succeeded => Self::SUCCESS,
            Ending::TimeUp => Self::from(2),
            Ending::Stalled => Self::from(3),
            Ending::RolledBack => Self::from(4),
            // As a shell has it of a process that SIGINT has ended.
            Ending::Interrupted => Self::from(130),
        }
    }
}

/// What is followed.
pub(super) struct Followed<'a> {
    /// Kind of the object.
    pub(super) kind: &'static str,
    /// The kind as command lines have it.
    pub(super) short: &'static str,
    /// The object.
    pub(super) key: &'a ObjectKey,
    /// What is said when it has succeeded.
    pub(super) succeeded: &'static str,
}

/// Follows, and shows what changes. `look` says what is shown of an object, and how it has ended, if it has.
///
/// # Errors
/// The API server refuses, or the object is deleted meanwhile.
pub(super) async fn run<O>(
    cluster: &Cluster,
    followed: &Followed<'_>,
    look: impl Fn(&O) -> (Shown, Option<Ending>),
    timeout: Duration,
    interrupted: impl Future<Output = Result<()>>,
) -> Result<Ending>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let begun = Instant::now();
    let mut screen = Screen::new(&followed.key.to_string());
    let mut last = Shown::default();
    let ending = tokio::select! {
        ended = follow(cluster, followed, &look, &mut screen, &mut last) => ended?,
        signal = interrupted => signal.map(|()| Ending::Interrupted)?,
        () = sleep(timeout) => Ending::TimeUp,
    };
    let took = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
    screen.end(&farewell(followed, ending, &last, took))?;
    Ok(ending)
}

/// Shows every change until the end. A watch that breaks is begun anew, where it was.
async fn follow<O>(
    cluster: &Cluster,
    followed: &Followed<'_>,
    look: &impl Fn(&O) -> (Shown, Option<Ending>),
    screen: &mut Screen,
    last: &mut Shown,
) -> Result<Ending>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let Followed { kind, key, .. } = followed;
    let api: Api<O> = Api::namespaced(cluster.client.clone(), &key.namespace);
    let config = Config::default().fields(&format!("metadata.name={}", key.name)).timeout(WATCH_SECONDS);
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut stalled_until: Option<Instant> = None;
    let (mut is_listed, mut is_lost) = (false, false);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            // There is nothing to wait for where nothing needs a person.
            () = sleep_until(stalled_until.unwrap_or_else(Instant::now)), if stalled_until.is_some() => {
                return Ok(Ending::Stalled);
            }
        };
        let object = match event {
            Some(Ok(Event::Apply(object) | Event::InitApply(object))) => object,
            Some(Ok(Event::Init)) => {
                is_listed = false;
                continue;
            }
            Some(Ok(Event::InitDone)) if is_listed => continue,
            Some(Ok(Event::InitDone | Event::Delete(_))) => bail!("{kind} {key} was deleted"),
            Some(Err(error)) => {
                if let Some(refusal) = refusal(&error) {
                    bail!("watch {kind} {key}: {refusal}");
                }
                if !is_lost {
                    screen
                        .remark(&format!("the watch broke and is begun anew: {error}"), Timestamp::now())?;
                }
                is_lost = true;
                continue;
            }
            None => bail!("watch {kind} {key}: it has ended"),
        };
        (is_listed, is_lost) = (true, false);
        let (shown, ended) = look(&object);
        *last = shown;
        screen.show(last, Timestamp::now())?;
        match ended {
            Some(Ending::Stalled) => {
                stalled_until.get_or_insert_with(|| Instant::now() + STALL_GRACE);
            }
            Some(ending) => return Ok(ending),
            None => stalled_until = None,
        }
    }
}

/// What no further attempt would change: the caller may not, or there is no such kind.
fn refusal(error: &watcher::Error) -> Option<String> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => return None,
    };
    [401, 403, 404].contains(&status.code).then(|| status.message.clone())
}

/// How it ended, in words.
fn farewell(followed: &Followed<'_>, ending: Ending, last: &Shown, seconds: i64) -> String {
    let Followed { kind, short, key, succeeded } = followed;
    let after = span(seconds);
    let how = match ending {
        Ending::Succeeded => format!("{succeeded} after {after}"),
        Ending::RolledBack => format!("rolled back after {after}"),
        Ending::Stalled => format!("needs a person after {after}"),
        Ending::TimeUp => format!("not at its end after {after}; it goes on without this command"),
        Ending::Interrupted => format!("left after {after}; it goes on without this command"),
    };
    let hint = match ending {
        Ending::Succeeded | Ending::Interrupted => String::new(),
        Ending::RolledBack | Ending::Stalled | Ending::TimeUp => {
            format!("\nsee: springtide explain {short}/{} -n {}", key.name, key.namespace)
        }
    };
    format!("{kind} {key}: {how}\n{}{hint}", last.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_further_attempt_changes_ends_a_watch() {
        let api = |code| {
            let status =
                kube::core::Status { code, message: "no".to_owned(), ..kube::core::Status::default() };
            watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
        };
        for code in [401, 403, 404] {
            assert_eq!(refusal(&api(code)).as_deref(), Some("no"), "{code}");
        }
        for code in [410, 429, 500, 503] {
            assert_eq!(refusal(&api(code)), None, "{code}");
        }
        assert_eq!(refusal(&watcher::Error::NoResourceVersion), None);
    }

    #[test]
    fn the_last_words_say_how_it_ended_and_where_there_is_more() {
        let key = ObjectKey::new("team-a", "web");
        let followed = Followed { kind: "InPlaceUpgrade", short: "ipu", key: &key, succeeded: "up to date" };
        let last = Shown { line: "Held: 1/3 pods".to_owned(), ..Shown::default() };
        let said = farewell(&followed, Ending::TimeUp, &last, 90);
        let expected = "\
InPlaceUpgrade team-a/web: not at its end after 90s; it goes on without this command
Held: 1/3 pods
see: springtide explain ipu/web -n team-a";
        assert_eq!(said, expected);
        let well = farewell(&followed, Ending::Succeeded, &last, 90);
        assert_eq!(well, "InPlaceUpgrade team-a/web: up to date after 90s\nHeld: 1/3 pods");
    }

    #[test]
    fn each_ending_has_the_documented_exit_code() {
        let page = include_str!("../../../../docs/cli.md");
        for (ending, code, word) in [
            (Ending::Succeeded, 0_u8, "up to date"),
            (Ending::TimeUp, 2, "`--timeout` is over"),
            (Ending::Stalled, 3, "something needs a person"),
            (Ending::RolledBack, 4, "rolled back"),
            (Ending::Interrupted, 130, "Ctrl-C"),
        ] {
            assert_eq!(format!("{:?}", ExitCode::from(ending)), format!("{:?}", ExitCode::from(code)));
            let row =
                page.lines().find(|line| line.starts_with(&format!("| {code} |")) && line.contains(word));
            assert!(row.is_some(), "docs/cli.md has no row of {code} with {word}");
        }
    }
}
