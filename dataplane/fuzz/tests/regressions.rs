//! Replays what fuzzing has found, and a few inputs that reach far, through every target.

use std::path::{Path, PathBuf};

use localvpc_fuzz::TARGETS;

#[test]
fn whatever_fuzzing_has_found_stays_fixed() {
    for (name, target) in TARGETS {
        let files = files(name);
        assert!(!files.is_empty(), "no input for {name}: not even seeds");
        for file in files {
            let bytes = std::fs::read(&file).expect("a file that was just listed");
            // The file's name is on standard error, if the target panics with it.
            eprintln!("{}", file.display());
            target(&bytes);
        }
    }
}

#[test]
fn every_target_has_a_program_and_every_directory_a_target() {
    let names = |directory: &str| {
        let mut names: Vec<_> = std::fs::read_dir(root().join(directory))
            .expect("a directory of this crate")
            .map(|entry| entry.expect("an entry").path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        names
    };
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    targets.sort();
    assert_eq!(names("regressions"), targets);
    assert_eq!(names("libfuzzer/fuzz_targets"), targets);
    let manifest =
        std::fs::read_to_string(root().join("libfuzzer/Cargo.toml")).expect("the programs' manifest");
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no [[bin]]");
    }
}

#[test]
fn the_configurations_of_the_repository_pass_the_target_of_files() {
    let mut directories = vec![root().join("../../configs")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("the examples") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                localvpc_fuzz::config(&std::fs::read(path).expect("an example"));
            }
        }
    }
}

fn files(target: &str) -> Vec<PathBuf> {
    let directory = root().join("regressions").join(target);
    let Ok(entries) = std::fs::read_dir(&directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
