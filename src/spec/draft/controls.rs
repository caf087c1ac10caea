//! What people set to steer.

use chrono::{DateTime, NaiveTime, Timelike, Utc};

use super::super::mistake::{Mistakes, quoted};
use super::super::{Controls, Freeze, duration};
use super::part;
use crate::crd::{Day, FreezeSpec};
use crate::yaml::node::Node;

/// Farthest that a clock is from UTC, in minutes.
const FARTHEST_OFFSET: i16 = 14 * 60;

/// Reads `paused`, `abort`, `retry`, `resume`, `freeze` and `rollbackWindow`.
pub(super) fn read(spec: &Node, mistakes: &mut Mistakes) -> Controls {
    let freezes = spec.get("freeze").map_or(&[][..], Node::items);
    Controls {
        paused: part(spec.get("paused")).unwrap_or(false),
        abort: part(spec.get("abort")).unwrap_or(false),
        retry: part(spec.get("retry")).unwrap_or(0),
        resume: part(spec.get("resume")).unwrap_or(0),
        freeze: freezes
            .iter()
            .filter_map(|item| freeze(item, mistakes))
            .collect(),
        rollback_window: part::<String>(spec.get("rollbackWindow"))
            .as_deref()
            .and_then(duration::read),
    }
}

fn freeze(item: &Node, mistakes: &mut Mistakes) -> Option<Freeze> {
    let freeze: FreezeSpec = part(Some(item))?;
    match &freeze.days {
        Some(days) => weekly(item, &freeze, days, mistakes),
        None => once(item, &freeze, mistakes),
    }
}

fn once(item: &Node, freeze: &FreezeSpec, mistakes: &mut Mistakes) -> Option<Freeze> {
    if let Some((key, _)) = item.entry("utcOffset") {
        mistakes.error(
            key,
            "`utcOffset` goes with `days`; a time such as `2026-12-24T18:00:00+01:00` carries its own offset",
        );
    }
    let mut instant = |key: &str, text: &str| {
        let read = DateTime::parse_from_rfc3339(text).ok();
        if read.is_none()
            && let Some(node) = item.get(key)
        {
            mistakes.error(
                node,
                format!(
                    "`{key}` is {}, expected a time such as `2026-12-24T18:00:00Z` (or a time of day, with `days`)",
                    quoted(text)
                ),
            );
        }
        read.map(|time| time.with_timezone(&Utc))
    };
    let from = instant("from", &freeze.from);
    let to = instant("to", &freeze.to);
    let (from, to) = (from?, to?);
    if from >= to {
        mistakes.error(item, "the freeze ends before it begins");
        return None;
    }
    Some(Freeze::Between { from, to })
}

fn weekly(
    item: &Node,
    freeze: &FreezeSpec,
    days: &[Day],
    mistakes: &mut Mistakes,
) -> Option<Freeze> {
    let mut minute = |key: &str, text: &str| {
        let time = (text.len() == 5).then(|| NaiveTime::parse_from_str(text, "%H:%M").ok());
        let minute = time
            .flatten()
            .map(|time| time.num_seconds_from_midnight() / 60);
        if minute.is_none()
            && let Some(node) = item.get(key)
        {
            mistakes.error(
                node,
                format!(
                    "`{key}` is {}, expected a time of day such as `16:00`",
                    quoted(text)
                ),
            );
        }
        minute.and_then(|minute| u16::try_from(minute).ok())
    };
    let from = minute("from", &freeze.from);
    let to = minute("to", &freeze.to);
    let offset = offset(item, freeze.utc_offset.as_deref(), mistakes);
    let mut days: Vec<u8> = days.iter().map(|day| *day as u8).collect();
    days.sort_unstable();
    days.dedup();
    Some(Freeze::Weekly {
        days,
        from: from?,
        to: to?,
        offset: offset?,
    })
}

fn offset(item: &Node, text: Option<&str>, mistakes: &mut Mistakes) -> Option<i16> {
    let Some(text) = text else {
        return Some(0);
    };
    let minutes = read_offset(text);
    if minutes.is_none()
        && let Some(node) = item.get("utcOffset")
    {
        mistakes.error(
            node,
            format!(
                "`utcOffset` is {}, expected an offset such as `+01:00`, `-05:30` or `Z`",
                quoted(text)
            ),
        );
    }
    minutes
}

fn read_offset(text: &str) -> Option<i16> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (i16, i16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    (hours >= 0 && (0..60).contains(&minutes) && total <= FARTHEST_OFFSET).then_some(sign * total)
}

#[cfg(test)]
mod tests {
    use super::read_offset;

    #[test]
    fn offsets_are_hours_and_minutes() {
        assert_eq!(read_offset("+01:00"), Some(60));
        assert_eq!(read_offset("-05:30"), Some(-330));
        assert_eq!(read_offset("Z"), Some(0));
        for bad in [
            "", "1:00", "+1:00", "+25:00", "+01:60", "é", "+-1:00", "UTC",
        ] {
            assert_eq!(read_offset(bad), None, "{bad}");
        }
    }
}
