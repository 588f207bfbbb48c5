//! What the programs here share: what becomes of many numbers, and how progress is told.

pub mod statistics;

/// One line to standard error. Where even that is closed, nobody is left to be told.
pub fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}
