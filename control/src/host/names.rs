//! Writes and removes the `hosts` and `resolv.conf` of a namespace.
//!
//! For a namespace of ours they are in `/etc/netns/<ns>/`, where `ip netns exec` finds them, and nothing else
//! is: it binds every file it finds there. For an attached one they are in the run directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Error, IoContext};

/// Where `ip netns exec` looks for them.
pub const ETC_NETNS: &str = "/etc/netns";

const FILES: [&str; 2] = ["hosts", "resolv.conf"];

/// Writes both files.
///
/// A file that is there is changed in place: processes in the namespace hold on to it through a bind
/// mount, and are to see the change. A new one appears whole.
///
/// # Errors
///
/// [`Error::FileTaken`] when a file without this lab's mark is there; [`Error::Io`].
pub fn write(directory: &Path, lab: &str, hosts: &str, resolv_conf: &str) -> Result<(), Error> {
    make(directory).doing("make", directory)?;
    for (name, content) in FILES.into_iter().zip([hosts, resolv_conf]) {
        let path = directory.join(name);
        let content = format!("{}{content}", mark(lab));
        if !path.exists() {
            let aside = aside(directory, name);
            fs::write(&aside, content).doing("write", &aside)?;
            fs::rename(&aside, &path).doing("write", &path)?;
        } else if is_ours(&path, lab) {
            let mut file = File::options().write(true).open(&path).doing("write", &path)?;
            file.write_all(content.as_bytes()).doing("write", &path)?;
            file.set_len(content.len() as u64).doing("write", &path)?;
        } else {
            return Err(Error::FileTaken { path, lab: lab.to_owned() });
        }
    }
    Ok(())
}

/// Removes what [`write()`] wrote, and the directory if nothing else is in it.
///
/// # Errors
///
/// [`Error::Io`] when a file of ours cannot be removed.
pub fn remove(directory: &Path, lab: &str) -> Result<(), Error> {
    for name in FILES {
        let (path, aside) = (directory.join(name), aside(directory, name));
        let ours = is_ours(&path, lab).then_some(path);
        for path in ours.into_iter().chain(is_begun(&aside, lab).then_some(aside)) {
            fs::remove_file(&path).doing("remove", &path)?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(error).doing("remove", directory)
        }
        _ => Ok(()),
    }
}

/// Whether one of the files in this directory was written for this lab. Its name does not say so: both `a` and `a-b`
/// may have a namespace `a-b-c`. Nor does an empty directory, which another lab may be about to write to.
pub fn are_ours(directory: &Path, lab: &str) -> bool {
    FILES.iter().any(|name| is_ours(&directory.join(name), lab))
}

/// Makes the directory and the one above it, which labs going down may remove while it is empty.
fn make(directory: &Path) -> io::Result<()> {
    let mut made = fs::create_dir_all(directory);
    for _ in 1..ATTEMPTS {
        match &made {
            // `AlreadyExists`: the one above was there when it was to be made, and gone when it was looked at.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
                made = fs::create_dir_all(directory);
            }
            _ => break,
        }
    }
    made
}

/// More than the labs that go down within a millisecond: each removal fails at most one of them.
const ATTEMPTS: usize = 100;

/// Beside the directory, not in it: `ip netns exec` may look into it at any moment.
fn aside(directory: &Path, name: &str) -> PathBuf {
    let mut aside = directory.as_os_str().to_owned();
    aside.push(format!(".{name}.new"));
    aside.into()
}

fn mark(lab: &str) -> String {
    format!("# made by localvpc for lab {lab}\n")
}

fn is_ours(path: &Path, lab: &str) -> bool {
    fs::read(path).is_ok_and(|content| content.starts_with(mark(lab).as_bytes()))
}

/// Whether a file under the name that only [`write`] gives is one that it was killed over: it may not even have the
/// whole mark yet.
fn is_begun(aside: &Path, lab: &str) -> bool {
    let begun = |content: Vec<u8>| content.iter().zip(mark(lab).as_bytes()).all(|(is, should)| is == should);
    fs::read(aside).is_ok_and(begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_and_removed_with_their_directory() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("lab-web");
        write(&directory, "lab", "127.0.0.1 localhost\n", "").unwrap();
        write(&directory, "lab", "10.0.0.1 web\n", "options timeout:1\n").unwrap();
        assert_eq!(
            fs::read_to_string(directory.join("hosts")).unwrap(),
            "# made by localvpc for lab lab\n10.0.0.1 web\n"
        );
        remove(&directory, "lab").unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        remove(&directory, "lab").unwrap();
    }

    /// A lab that goes down once took away the empty directory of another whose name begins like its own, just
    /// before that one's files came.
    #[test]
    fn directories_are_known_by_their_files() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("lab-2-web");
        fs::create_dir(&directory).unwrap();
        assert!(!are_ours(&directory, "lab") && !are_ours(&directory, "lab-2"));
        write(&directory, "lab-2", "", "").unwrap();
        assert!(!are_ours(&directory, "lab") && are_ours(&directory, "lab-2"));
    }

    /// Labs that go down remove the directory above all of these while it is empty, each of them once.
    #[test]
    fn directories_are_made_while_the_one_above_comes_and_goes() {
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
        let root = tempfile::tempdir().unwrap();
        let above = root.path().join("netns");
        let directory = above.join("lab-web");
        for _ in 0..100 {
            let is_made = AtomicBool::new(false);
            let made = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut labs = ATTEMPTS - 1;
                    while labs > 0 && !is_made.load(Relaxed) {
                        labs -= usize::from(fs::remove_dir(&above).is_ok());
                    }
                });
                let made = make(&directory);
                is_made.store(true, Relaxed);
                made
            });
            made.unwrap();
            remove(&directory, "lab").unwrap();
            let _ = fs::remove_dir(&above);
        }
    }

    #[test]
    fn what_a_killed_write_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("lab-web");
        fs::write(aside(&directory, "hosts"), "").unwrap();
        fs::write(aside(&directory, "resolv.conf"), "# made by local").unwrap();
        remove(&directory, "lab").unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_others_wrote_stays() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path();
        fs::write(directory.join("hosts"), "10.9.9.9 theirs\n").unwrap();
        assert!(matches!(write(directory, "lab", "", ""), Err(Error::FileTaken { .. })));
        // Another lab whose name begins with ours.
        fs::write(directory.join("resolv.conf"), "# made by localvpc for lab lab-2\n").unwrap();
        remove(directory, "lab").unwrap();
        assert_eq!(fs::read_dir(directory).unwrap().count(), 2);
    }
}
