//! The `localvpc` command: everything is in the library.

fn main() -> std::process::ExitCode {
    localvpc::cli::main()
}
