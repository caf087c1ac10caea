//! Durations as people write them: `500ms`, `90s`, `2m`, `1h30m`.

use std::time::Duration;

/// Units from long to short, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads `1h30m`, `90s`, `500ms`; whole numbers of d, h, m, s and ms, in any order, each at most once.
pub fn read(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0_u64;
    let mut used = Vec::new();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_len);
        let (name, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
        if used.contains(name) {
            return None;
        }
        used.push(name);
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*millis)?)?;
        rest = after;
    }
    (!used.is_empty()).then_some(Duration::from_millis(total))
}

/// The shortest form that [`read`] reads back: `1h30m`, `2m`, `500ms`, `0s`.
pub fn written(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, millis) in UNITS {
        if rest >= millis {
            text.push_str(&format!("{}{name}", rest / millis));
            rest %= millis;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["500ms", "90s", "2m", "1h30m", "1d", "0s", "0"] {
            let read_back = read(text).unwrap();
            assert_eq!(read(&written(read_back)), Some(read_back), "{text}");
        }
        assert_eq!(written(Duration::from_secs(90)), "1m30s");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "5",
            "m",
            "1x",
            "-1s",
            "1s1s",
            "1.5s",
            "99999999999999999999s",
            "1h 30m",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
