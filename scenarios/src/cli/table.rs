//! Tables for the terminal.

use comfy_table::{ContentArrangement, Table, presets};

/// A table that fits the terminal; plain text when there is none.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// Bytes with a binary unit.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (0..units.len() - 1).take_while(|i| n >> (10 * (i + 1)) > 0).count();
    match step {
        0 => format!("{n} B"),
        step => format!("{:.1} {}", n as f64 / f64::powi(1024.0, step as i32), units[step]),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn units() {
        for (n, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 19, "1.5 MiB"), (1 << 40, "1.0 TiB")] {
            assert_eq!(bytes(n), text);
        }
    }
}
