//! Outputs of `explain` and `check`, to the letter: each file in `golden/` has commands and what they print.
//!
//! `GOLDEN=write cargo test -p localvpc --test golden` writes them anew; look at the difference before committing it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the commands of a file, each with its output and exit status below it.
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let written = fs::read_to_string(&path).expect("a file of commands");
    let mut played = String::new();
    for command in written.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let words = command.strip_prefix("localvpc ").expect("a command of localvpc");
        let done = Command::new(env!("CARGO_BIN_EXE_localvpc"))
            .args(words.split(' '))
            .current_dir(root())
            .env("LOCALVPC_RUN_DIR", "/nonexistent")
            .env_remove("LOCALVPC_LAB")
            .output()
            .expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let (stdout, stderr) = (timeless(&text(done.stdout)), text(done.stderr));
        let status = done.status.code().expect("it was not killed");
        // Writing to a String cannot fail.
        let _ = write!(played, "$ {command}\n{stdout}{stderr}[exit {status}]\n\n");
    }
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(&path, &played).expect("the file can be written");
    }
    assert_eq!(played, fs::read_to_string(&path).unwrap(), "{name} differs; see the top of this file");
}

/// The text without how long things took.
fn timeless(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((at, mark)) =
        ["time=\"", "\"took_ms\": "].iter().filter_map(|mark| Some((rest.find(mark)?, mark))).min()
    {
        let (before, after) = rest.split_at(at + mark.len());
        out += before;
        out.push('0');
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    }
    out + rest
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// RA-2 and RA-5: from and to ends of every kind, of every protocol, all that is in the way.
#[test]
fn explanations() {
    check("explain.txt");
}

#[test]
fn wrong_questions() {
    check("wrong.txt");
}

/// RA-9: headers among the rest; `api_shape.rs` compares names.
#[test]
fn the_shape_of_the_api() {
    check("api.txt");
}

#[test]
fn checks() {
    check("check.txt");
}

#[test]
fn matrices() {
    check("matrix.txt");
}
