//! The coming day of a group as text: who has the peak when, column by column and in words.

use crate::cli::text::{lines, paragraph, span};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::Override;
use springtide_plumbing::clock::after;
use springtide_time_share_group::rehearsal::{Day, DayPart};
use std::fmt::Write as _;

/// What one column stands for.
const COLUMN: SignedDuration = SignedDuration::from_mins(30);
/// Columns of a day.
const COLUMNS: i32 = 48;
/// Columns between two hours that are named.
const BETWEEN_HOURS: usize = 6;
/// Narrowest column of names.
const NAME_WIDTH: usize = 10;
/// Most stretches that are told in words.
const PARTS_TOLD: usize = 12;

/// The peak, the lead in which it is switched to, and the valley.
const PEAK: char = '#';
const LEAD: char = '>';
const VALLEY: char = '.';

/// The day with a row for each of these members, and then in words.
pub(super) fn text(text: &mut String, day: &Day, members: &[&str], forced: Option<&Override>) {
    if !day.problem.is_empty() {
        paragraph(text, "Schedule", &day.problem);
    }
    if day.parts.is_empty() {
        return;
    }
    let (zone, zone_name) = zone(day);
    let local = |at: Timestamp| zone.to_datetime(at);
    let width = members.iter().map(|member| member.chars().count() + 2).max().unwrap_or(0).max(NAME_WIDTH);
    let _ = writeln!(text);
    let _ = writeln!(
        text,
        "{:<width$}{} in {zone_name}: {PEAK} peak, {LEAD} switch to it, {VALLEY} valley; half an hour each",
        "Day",
        local(day.from).strftime("%a %Y-%m-%d"),
    );
    let begin = begin(day);
    let mut hours = String::new();
    for column in (0..COLUMNS).step_by(BETWEEN_HOURS) {
        let at = column_at(begin, column);
        let _ = write!(hours, "{:<6}", local(at).strftime("%H:%M").to_string());
    }
    let _ = writeln!(text, "{:<width$}{}", "", hours.trim_end());
    for member in members {
        let row: String = (0..COLUMNS).map(|column| sign(day, member, column_at(begin, column))).collect();
        let _ = writeln!(text, "{member:<width$}{row}");
    }
    let _ = writeln!(text);
    let told = day.parts.iter().take(PARTS_TOLD).map(|part| part_text(day, part, &zone, forced));
    let more = day.parts.len().saturating_sub(PARTS_TOLD);
    let more = (more > 0).then(|| format!("and {more} more until {}", local(day.until).strftime("%H:%M")));
    lines(text, "Times", told.chain(more));
    if !day.skip_dates.is_empty() {
        paragraph(text, "Skipped", &format!("no window starts on {}", day.skip_dates.join(", ")));
    }
}

/// The time zone of the day, and its name; UTC where nobody knows it.
fn zone(day: &Day) -> (TimeZone, &str) {
    match TimeZone::get(&day.time_zone) {
        Ok(zone) => (zone, &day.time_zone),
        Err(_) => (TimeZone::UTC, "UTC"),
    }
}

/// The column that the day begins in begins at a whole half hour.
fn begin(day: &Day) -> Timestamp {
    let seconds = COLUMN.as_secs();
    let into = day.from.as_second().rem_euclid(seconds);
    Timestamp::from_second(day.from.as_second() - into).unwrap_or(day.from)
}

/// When a column begins.
fn column_at(begin: Timestamp, column: i32) -> Timestamp {
    after(begin, COLUMN * column)
}

/// What a member has in the column that begins then: the most of what it has for any part of it.
fn sign(day: &Day, member: &str, from: Timestamp) -> char {
    let until = after(from, COLUMN);
    let own = day.parts.iter().filter(|part| part.member.as_deref() == Some(member));
    let overlaps = |begin: Timestamp, end: Timestamp| begin < until && from < end && begin < end;
    let signs = own.filter_map(|part| {
        let opens = opens(part);
        if overlaps(opens, part.until) { Some(PEAK) } else { overlaps(part.from, opens).then_some(LEAD) }
    });
    signs.fold(VALLEY, |most, sign| if most == PEAK { most } else { sign })
}

/// When the window of a part opens; where there is none, it begins so.
fn opens(part: &DayPart) -> Timestamp {
    part.window_start.map_or(part.from, |opens| opens.clamp(part.from, part.until))
}

/// From when on who has the peak, and why.
fn part_text(day: &Day, part: &DayPart, zone: &TimeZone, forced: Option<&Override>) -> String {
    let DayPart { member, from, until, cause, window, window_start } = part;
    let time = |at: Timestamp| zone.to_datetime(at).strftime("%H:%M").to_string();
    let who = member.as_deref().unwrap_or("nobody");
    let begins = if *from == day.from { "now  ".to_owned() } else { time(*from) };
    let why = match (*cause, forced) {
        ("Override", Some(forced)) => format!("by spec.override: {}", forced.reason),
        ("Override", None) => "by spec.override".to_owned(),
        ("Window", _) => match window_start.filter(|opens| opens > from) {
            Some(opens) => {
                let lead = span(opens.duration_since(*from).as_secs());
                format!("by window {window}, which opens at {}: lead {lead}", time(opens))
            }
            None => format!("by window {window}"),
        },
        _ => "by default".to_owned(),
    };
    let ends = if *until >= day.until { String::new() } else { format!(", until {}", time(*until)) };
    format!("{begins} {who} {why}{ends}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-11, twenty past eight in the morning in Shanghai.
    const NOW: Timestamp = Timestamp::constant(1_794_356_400, 0);

    fn at(minutes: i64) -> Timestamp {
        NOW + SignedDuration::from_mins(minutes)
    }

    fn part(
        member: Option<&str>,
        from: i64,
        until: i64,
        cause: &'static str,
        window: &str,
        opens: Option<i64>,
    ) -> DayPart {
        DayPart {
            member: member.map(str::to_owned),
            from: at(from),
            until: at(until),
            cause,
            window: window.to_owned(),
            window_start: opens.map(at),
        }
    }

    fn day() -> Day {
        Day {
            from: NOW,
            until: at(24 * 60),
            time_zone: "Asia/Shanghai".to_owned(),
            parts: vec![
                part(Some("promo"), 0, 460, "Default", "", None),
                part(Some("payment"), 460, 760, "Window", "night", Some(520)),
                part(Some("promo"), 760, 24 * 60, "Default", "", None),
            ],
            skip_dates: vec!["2026-11-12".to_owned()],
            problem: String::new(),
        }
    }

    fn told(day: &Day, forced: Option<&Override>) -> String {
        let mut said = String::new();
        text(&mut said, day, &["payment", "promo"], forced);
        said
    }

    #[test]
    fn a_day_is_a_row_for_each_member_and_its_times_in_words() {
        let expected = "
Day       Wed 2026-11-11 in Asia/Shanghai: # peak, > switch to it, . valley; half an hour each
          08:00 11:00 14:00 17:00 20:00 23:00 02:00 05:00
payment   ................>##########.....................
promo     ################.........#######################

Times     now promo by default, until 16:00
          16:00 payment by window night, which opens at 17:00: lead 60m, until 21:00
          21:00 promo by default
Skipped   no window starts on 2026-11-12
";
        let said = told(&day(), None);
        // Of the rows it is the signs that count, which are compared below.
        assert_eq!(said.lines().count(), expected.lines().count(), "{said}");
        for line in expected.lines().filter(|line| !line.starts_with('p')) {
            assert!(said.contains(line), "no {line:?} in:\n{said}");
        }
    }

    #[test]
    fn a_column_shows_the_most_of_what_a_member_has_in_it() {
        let day = day();
        let signs = |member: &str| -> String {
            let begin = begin(&day);
            (0..COLUMNS).map(|column| sign(&day, member, column_at(begin, column))).collect()
        };
        let payment = signs("payment");
        assert_eq!(payment.len(), 48);
        // From 16:00 its switch, from 17:00 to 21:00 its peak.
        assert_eq!(&payment[15..28], ".>>########..");
        let promo = signs("promo");
        assert_eq!(
            (&promo[..16], &promo[16..26], &promo[26..]),
            ("################", "..........", "######################")
        );
        assert_eq!(signs("games"), ".".repeat(48));
    }

    #[test]
    fn an_override_is_told_with_its_reason_and_nobody_is_named_so() {
        let forced: Override = serde_json::from_value(serde_json::json!({
            "untilTime": at(60), "reason": "INC-4711",
        }))
        .unwrap();
        let mut day = day();
        day.parts = vec![
            part(None, 0, 60, "Override", "", None),
            part(Some("promo"), 60, 24 * 60, "Default", "", None),
        ];
        let said = told(&day, Some(&forced));
        assert!(said.contains("now nobody by spec.override: INC-4711, until 09:20\n"), "{said}");
    }

    #[test]
    fn what_is_wrong_with_a_schedule_is_said() {
        let day = Day { parts: Vec::new(), problem: "windows[night]: no such zone".to_owned(), ..day() };
        assert_eq!(told(&day, None), "Schedule  windows[night]: no such zone\n");
    }

    #[test]
    fn many_stretches_are_counted() {
        let mut day = day();
        day.parts =
            (0..20).map(|hour| part(Some("promo"), hour * 60, hour * 60 + 60, "Default", "", None)).collect();
        assert!(told(&day, None).contains("and 8 more until 08:20\n"), "{}", told(&day, None));
    }
}
