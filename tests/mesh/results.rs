//! Figures for people: printed, and with `UPDATE_RESULTS=1` written into their place in `RESULTS.md`.

use crate::rig::tests;

/// Shows a table, and keeps it when that is asked for.
pub(crate) fn record(place: &str, table: &str) {
    println!("{place}:\n{table}");
    if std::env::var_os("UPDATE_RESULTS").is_none() {
        return;
    }
    let path = tests().join("mesh/RESULTS.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- {place} -->\n");
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("RESULTS.md has no place for {place}"));
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let new = format!("{before}{begin}{table}<!-- end -->{after}");
    std::fs::write(path, new).unwrap();
}
