//! What a plain scalar means, by the rules of the parser behind `kubectl` (YAML 1.1 words, Go number syntax).

use std::borrow::Cow;

use serde_json::{Number, Value};

/// Largest integer up to which a float is exact, and therefore written as an integer.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The JSON value of a scalar that is neither quoted nor tagged.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let first = text.bytes().next()?;
    if first == b'.' {
        return float(text);
    }
    if !matches!(first, b'0'..=b'9' | b'+' | b'-') {
        return None;
    }
    let digits = match text.contains('_') {
        true => Cow::Owned(text.replace('_', "")),
        false => Cow::Borrowed(text),
    };
    integer(&digits).or_else(|| float(&digits))
}

fn integer(text: &str) -> Option<Number> {
    let (negative, magnitude) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (digits, radix) = match magnitude.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&magnitude[2..], 16),
        [b'0', b'o' | b'O', ..] => (&magnitude[2..], 8),
        [b'0', b'b' | b'B', ..] => (&magnitude[2..], 2),
        [b'0', _, ..] => (&magnitude[1..], 8),
        _ => (magnitude, 10),
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        let value = i64::try_from(-i128::from(value)).ok()?;
        Some(value.into())
    } else {
        Some(value.into())
    }
}

fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let looks_like_one = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if !looks_like_one {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // JSON as Go writes it has no `6.0`; an image tag `6.10` that somebody forgot to quote becomes 6.1 there, too.
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Some((value as i64).into());
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::plain;

    #[test]
    fn plain_scalars_mean_what_kubectl_takes_them_for() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("NULL", json!(null)),
            ("nULL", json!("nULL")),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!(true)),
            ("oFF", json!("oFF")),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("+12", json!(12)),
            ("-7", json!(-7)),
            ("1_000", json!(1000)),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("017", json!(15)),
            ("0b101", json!(5)),
            ("089", json!(89)),
            (
                "18446744073709551615",
                json!(18_446_744_073_709_551_615_u64),
            ),
            ("-9223372036854775808", json!(i64::MIN)),
            ("6.10", json!(6.1)),
            ("6.0", json!(6)),
            ("1e3", json!(1000)),
            (".5", json!(0.5)),
            ("6.9.0", json!("6.9.0")),
            ("1.2.3-rc1", json!("1.2.3-rc1")),
            ("-", json!("-")),
            ("+", json!("+")),
            (".", json!(".")),
            ("1-2", json!("1-2")),
            ("12:30", json!("12:30")),
            ("2024-01-02", json!("2024-01-02")),
            (".nan", json!(".nan")),
            ("-.inf", json!("-.inf")),
            ("infinity", json!("infinity")),
            ("0x", json!("0x")),
            ("100m", json!("100m")),
            ("5s", json!("5s")),
            ("é", json!("é")),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
    }
}
