//! How results are shown: tables for people, JSON for programs, colours for terminals only.

use std::io::Write;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use localvpc_api::report::Traffic;
use serde::Serialize;

use super::failure::Failure;

/// Form of a result on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

/// Writes text to standard output; colours are dropped where it is no terminal.
///
/// # Errors
/// [`Failure::Output`], also for a closed pipe.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Writes JSON, indented, with a newline at the end.
///
/// # Errors
/// [`Failure::Output`], also for a closed pipe.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Output(error.into()))?;
    print(&(text + "\n"))
}

/// Writes one line to standard error. Where even that is closed, nobody is left to be told.
pub fn say(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// A table without lines, columns two spaces apart.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table as text, each line indented, nothing behind the last column.
pub fn lines(table: &Table, indent: &str) -> String {
    table.lines().map(|line| format!("{indent}{}\n", line.trim_end())).collect()
}

/// Cuts lines to the width of the terminal; whole where standard output is none.
pub fn cut(text: &str) -> String {
    let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdout()) else { return text.to_owned() };
    if size.ws_col == 0 { text.to_owned() } else { cut_to(text, size.ws_col.into()) }
}

fn cut_to(text: &str, width: usize) -> String {
    let cut = |line: &str| match line.char_indices().nth(width) {
        None => line.to_owned(),
        Some(_) => line.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    };
    text.lines().map(|line| cut(line) + "\n").collect()
}

/// `3.4 KiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `12 / 3.4 KiB`: packets and bytes.
pub fn traffic(traffic: Traffic) -> String {
    format!("{} / {}", traffic.packets, bytes(traffic.bytes))
}

/// `350 ms`, `12 s`, `3m 12s`, `2h 5m`, `4d 23h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if !time.is_zero() => format!("{} ms", time.as_millis()),
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `1 subnet`, `3 subnets`, `2 security group rules`.
pub fn count(number: impl Into<u64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}{}", if noun.ends_with('s') { "es" } else { "s" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_to_a_width() {
        assert_eq!(cut_to("abcdef\nab → c\n\n", 6), "abcdef\nab → c\n\n");
        assert_eq!(cut_to("abcdefg\nab → cde\n", 6), "abcde…\nab → …\n");
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(duration(Duration::from_millis(350)), "350 ms");
        assert_eq!(duration(Duration::from_secs(192)), "3m 12s");
        assert_eq!(duration(Duration::from_secs(432_000)), "5d 0h");
        assert_eq!(count(1_u32, "subnet"), "1 subnet");
        assert_eq!(count(2_u32, "address"), "2 addresses");
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let mut t = table(&["NAME", "ADDRESS"]);
        t.add_row(["a-longer-name", "10.0.0.1"]);
        t.add_row(["b", ""]);
        assert_eq!(lines(&t, " "), " NAME           ADDRESS\n a-longer-name  10.0.0.1\n b\n");
    }
}
