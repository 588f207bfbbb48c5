//! One file per verb.

/// Parses the command line, runs the verb, returns its exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
