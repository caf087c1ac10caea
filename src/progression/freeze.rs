//! Times in which no weight rises.

use chrono::{Datelike, Duration, FixedOffset, NaiveTime, TimeZone};

use crate::domain::Timestamp;
use crate::spec::Freeze;

/// The first instant after `now` at which nothing is frozen; `None` when nothing is frozen now.
///
/// Windows that follow one another count as one; the search is bounded by the number of windows in a year.
pub fn ends(freezes: &[Freeze], now: Timestamp) -> Option<Timestamp> {
    let mut until = None;
    let mut at = now;
    // 366 days of at most a few windows each: enough for any calendar, and an end for an endless one.
    for _ in 0..1_000 {
        match freezes.iter().filter_map(|freeze| end_of(freeze, at)).max() {
            Some(end) if end > at => {
                at = end;
                until = Some(end);
            }
            _ => break,
        }
    }
    until
}

fn end_of(freeze: &Freeze, at: Timestamp) -> Option<Timestamp> {
    match freeze {
        Freeze::Between { from, to } => (*from <= at && at < *to).then_some(*to),
        Freeze::Weekly {
            days,
            from,
            to,
            offset,
        } => {
            let zone = FixedOffset::east_opt(i32::from(*offset) * 60)?;
            let local = at.with_timezone(&zone);
            // A window that began yesterday may still be open.
            [0, 1].into_iter().find_map(|days_ago| {
                let date = local.date_naive() - Duration::days(days_ago);
                let weekday = u8::try_from(date.weekday().num_days_from_monday()).ok()?;
                if !days.contains(&weekday) {
                    return None;
                }
                let midnight = zone
                    .from_local_datetime(&date.and_time(NaiveTime::MIN))
                    .single()?;
                let begins = midnight + Duration::minutes(i64::from(*from));
                let length = if to > from {
                    i64::from(to - from)
                } else {
                    1_440 - i64::from(from - to)
                };
                let ends = begins + Duration::minutes(length);
                (begins <= local && local < ends).then(|| ends.to_utc())
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_weekend_is_one_freeze() {
        let friday_evening = Freeze::Weekly {
            days: vec![4],
            from: 16 * 60,
            to: 0,
            offset: 60,
        };
        let weekend = Freeze::Weekly {
            days: vec![5, 6],
            from: 0,
            to: 0,
            offset: 60,
        };
        let freezes = [friday_evening, weekend];
        assert_eq!(ends(&freezes, at("2026-11-20T14:59:59Z")), None);
        // Monday 00:00 in a zone one hour east of UTC.
        assert_eq!(
            ends(&freezes, at("2026-11-20T15:00:00Z")),
            Some(at("2026-11-22T23:00:00Z"))
        );
        assert_eq!(
            ends(&freezes, at("2026-11-22T22:59:59Z")),
            Some(at("2026-11-22T23:00:00Z"))
        );
        assert_eq!(ends(&freezes, at("2026-11-22T23:00:00Z")), None);
    }

    #[test]
    fn a_night_reaches_into_the_next_day() {
        let nights = [Freeze::Weekly {
            days: vec![0, 1, 2, 3, 4, 5, 6],
            from: 22 * 60,
            to: 6 * 60,
            offset: 0,
        }];
        assert_eq!(
            ends(&nights, at("2026-11-20T03:00:00Z")),
            Some(at("2026-11-20T06:00:00Z"))
        );
        assert_eq!(ends(&nights, at("2026-11-20T12:00:00Z")), None);
    }

    #[test]
    fn an_endless_freeze_is_answered() {
        let always = [Freeze::Weekly {
            days: vec![0, 1, 2, 3, 4, 5, 6],
            from: 0,
            to: 0,
            offset: 0,
        }];
        assert!(ends(&always, at("2026-11-20T03:00:00Z")).is_some());
    }
}
