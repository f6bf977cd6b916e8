//! What the user types: it is shown, and done.

use anyhow::{Context, Result};
use springtide_e2e::time_share::node_stage::{GROUP, NodeStage};

use super::steps::Steps;

/// A terminal in the demo's namespace.
pub(crate) struct Terminal<'a, 'b> {
    stage: &'a NodeStage<'b>,
}

impl<'a, 'b> Terminal<'a, 'b> {
    /// One of a stage.
    pub(crate) fn new(stage: &'a NodeStage<'b>) -> Self {
        Self { stage }
    }

    /// Types a command of kubectl, and shows what it prints.
    pub(crate) async fn kubectl(&self, steps: &Steps, args: &[&str]) -> Result<()> {
        steps.note(&format!("$ {}", line(args)));
        steps.note(self.stage.test.kubectl(args).await?.trim_end());
        Ok(())
    }

    /// Writes a file of these documents, shows the first of them, and applies it.
    pub(crate) async fn apply(&self, steps: &Steps, file: &str, documents: &[String]) -> Result<()> {
        let path = self.stage.cluster.control_plane().folder().join(file);
        std::fs::write(&path, documents.join("---\n"))
            .with_context(|| format!("write {}", path.display()))?;
        steps.note(&format!("$ cat {file}"));
        steps.note(documents.first().context("a document")?.trim_end());
        if documents.len() > 1 {
            steps.note(&format!("# ... and {} more", documents.len() - 1));
        }
        steps.note(&format!("$ kubectl apply -f {file}"));
        let path = path.to_str().context("a path in UTF-8")?;
        let applied = self.stage.test.kubectl(&["apply", "-f", path]).await?;
        let lines: Vec<&str> = applied.lines().collect();
        match lines.as_slice() {
            [first, .., last] if lines.len() > 2 => steps.note(&format!("{first}\n...\n{last}")),
            lines => steps.note(&lines.join("\n")),
        }
        Ok(())
    }

    /// Shows the group as its user sees it.
    pub(crate) async fn get(&self, steps: &Steps) -> Result<()> {
        self.kubectl(steps, &["get", "tsg", GROUP]).await
    }

    /// Merges a change into the group.
    pub(crate) async fn patch(&self, steps: &Steps, change: &str) -> Result<()> {
        self.kubectl(steps, &["patch", "tsg", GROUP, "--type", "merge", "-p", change]).await
    }
}

/// A command line as a shell takes it.
fn line(args: &[&str]) -> String {
    let is_plain = |arg: &str| arg.chars().all(|c| c.is_ascii_alphanumeric() || "-_=/.:,".contains(c));
    let quoted = args.iter().map(|arg| if is_plain(arg) { (*arg).to_owned() } else { format!("'{arg}'") });
    std::iter::once("kubectl".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        let change = r#"{"spec":{"override":null}}"#;
        assert_eq!(
            line(&["patch", "tsg", "share", "--type", "merge", "-p", change]),
            r#"kubectl patch tsg share --type merge -p '{"spec":{"override":null}}'"#
        );
    }
}
