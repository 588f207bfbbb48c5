//! Numbers the contract: any difference in what the two sides could say to each other is another protocol.
//!
//! The number is a hash of this crate's sources without their comments and tests, so that nobody has to remember to count it up.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=src");
    // Cargo sets it.
    let sources = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("src");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&sources).expect("the sources").map(|entry| entry.expect("a source").path()).collect();
    files.sort();
    let mut hash = FNV_OFFSET;
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let lines = text.lines().map(str::trim).take_while(|line| *line != "#[cfg(test)]");
        for byte in lines.filter(|line| !line.starts_with("//")).flat_map(str::bytes) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }
    println!("cargo:rustc-env=LOCALVPC_PROTOCOL={hash}");
}

/// FNV-1a, 32 bits.
const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;
