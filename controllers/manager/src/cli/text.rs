//! Pieces of text that several commands print.

use super::read::Unread;
use jiff::Timestamp;
use springtide_crds::reason::Reason;
use springtide_plumbing::rehearsal::{Basis, Reported, Said};
use std::fmt::Write as _;
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

/// Width of the words in front of a paragraph.
const LABEL: usize = 10;
/// Where paragraphs are broken.
const WIDTH: usize = 110;

/// A paragraph with a word in front.
pub(super) fn paragraph(text: &mut String, label: &str, content: &str) {
    let mut line = format!("{label:<LABEL$}");
    let mut is_first = true;
    for word in content.split_whitespace() {
        if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(LABEL);
            is_first = true;
        }
        if !is_first {
            line.push(' ');
        }
        line.push_str(word);
        is_first = false;
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// Lines under one word.
pub(super) fn lines(text: &mut String, label: &str, content: impl IntoIterator<Item = String>) {
    for (number, line) in content.into_iter().enumerate() {
        paragraph(text, if number == 0 { label } else { "" }, &line);
    }
}

/// A table as kubectl prints one.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut builder = Builder::default();
    builder.push_record(head);
    for row in rows {
        builder.push_record(row);
    }
    let table = builder.build().with(Style::empty()).with(Padding::new(0, 3, 0, 0)).to_string();
    let mut text = String::new();
    for line in table.lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// What could not be read, and what that means.
pub(super) fn unread(text: &mut String, unread: &[Unread]) {
    lines(
        text,
        "Not seen",
        unread.iter().map(|unread| {
            format!("{} of {}: {} ({})", unread.resource, unread.scope, unread.consequence, unread.problem)
        }),
    );
}

/// `5s`, `3m`, `2h30m`, `4d`: how kubectl tells ages.
pub(super) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => match seconds % 3600 / 60 {
            0 => format!("{}h", seconds / 3600),
            minutes => format!("{}h{minutes}m", seconds / 3600),
        },
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// An instant with its distance.
pub(super) fn instant(at: Timestamp, now: Timestamp) -> String {
    let distance = at.duration_since(now).as_secs();
    if distance >= 0 {
        format!("{at:.0} (in {})", span(distance))
    } else {
        format!("{at:.0} ({} ago)", span(-distance))
    }
}

/// A number with its noun.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A text, or a dash for none.
pub(super) fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A reason with what it means, and its words where they are not those that stand above already.
pub(super) fn spoken(said: &Said, above: &str) -> String {
    let meaning = said.meaning.trim_end_matches('.');
    if said.message.is_empty() || said.message == above {
        format!("{}: {meaning}", said.reason)
    } else {
        format!("{}: {} ({meaning})", said.reason, said.message)
    }
}

/// What a reason means; nothing for one that this program does not know.
pub(super) fn meaning<R: Reason>(reason: &str) -> String {
    let known = R::all().into_iter().find(|known| known.as_str() == reason);
    known.map(|known| known.doc().trim_end_matches('.').to_owned()).unwrap_or_default()
}

/// What an answer rests on, where it was not computed.
pub(super) fn basis(text: &mut String, basis: Basis, reported: Option<&Reported>, now: Timestamp) {
    match (basis, reported) {
        (Basis::Computed, _) | (Basis::Reported, None) => {}
        (Basis::Reported, Some(reported)) => {
            let since = instant(reported.since, now);
            let says = "by the manager's own word in the object's status";
            paragraph(text, "Rests on", &format!("{says}, {} since {since}", reported.reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_long_as_they_have_to_be() {
        let spans = [0, 119, 120, 7199, 7200, 9000, 172_799, 172_800].map(span);
        assert_eq!(spans, ["0s", "119s", "2m", "119m", "2h", "2h30m", "47h59m", "2d"]);
    }

    #[test]
    fn paragraphs_are_broken_behind_their_label() {
        let mut text = String::new();
        paragraph(&mut text, "Why", &"word ".repeat(40));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("Why       word") && lines[1].starts_with("          word"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
    }
}
