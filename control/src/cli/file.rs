//! Which file a verb is about, and reading it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use localvpc_api::Generation;

use super::client::Client;
use super::failure::Failure;
use super::{Global, lab};
use crate::lower::{IdRegistry, Lowered, lower};
use crate::model::Model;
use crate::view::ApplyRequest;

/// A document as read.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it came from, as the user would write it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Reads the file that was named, or the one in the working directory that is a lab.
///
/// # Errors
/// [`Failure::WhichFile`] where none or several could be meant, [`Failure::Read`] where it cannot be read.
pub fn read(named: Option<&Path>) -> Result<Document, Failure> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => find(Path::new("."))?,
    };
    let text = fs::read_to_string(&path).map_err(|source| Failure::Read { path: path.clone(), source })?;
    Ok(Document { path, text })
}

/// Reads the file that was named; else, where a lab was named, the one that it runs; else the one in the working
/// directory that is a lab; else the one of the running lab.
///
/// # Errors
/// As [`read`]; where a lab was named, why it cannot be asked.
pub fn read_or_running(named: Option<&Path>, global: &Global) -> Result<Document, Failure> {
    if named.is_some() {
        return read(named);
    }
    if global.lab.is_none() {
        match read(None) {
            Err(Failure::WhichFile(_)) if !lab::running().is_empty() => {}
            read => return read,
        }
    }
    let ApplyRequest { file, text, .. } = Client::of(global)?.ask("/v1/document")?;
    Ok(Document { path: file.into(), text })
}

/// A file as the lab that it would be.
#[derive(Debug)]
pub struct FileLab {
    /// Its rows, and the model behind them.
    pub lowered: Lowered,
}

impl FileLab {
    /// Reads the file that was named, or the one in the working directory that is a lab.
    ///
    /// # Errors
    /// Those of [`read`], and [`Failure::Config`] where the file is wrong.
    pub fn read(named: Option<&Path>) -> Result<Self, Failure> {
        Self::of(&read(named)?)
    }

    /// What a document describes.
    ///
    /// # Errors
    /// [`Failure::Config`] where it is wrong.
    pub fn of(document: &Document) -> Result<Self, Failure> {
        let (model, _) = Model::read(&document.path.display().to_string(), &document.text)
            .map_err(|errors| Failure::Config(errors.error_view()))?;
        let lowered = lower(&model, &mut IdRegistry::default(), Generation(0));
        Ok(Self { lowered })
    }
}

/// The `lab:` of the one file in the directory that is a lab.
pub fn lab_named_in(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(find(directory).ok()?).ok()?;
    lab_line(&text).map(str::to_owned)
}

/// The only `*.vpc.yaml`; else the only `*.yaml` that has a line `lab:`.
fn find(directory: &Path) -> Result<PathBuf, Failure> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .map_err(|source| Failure::Read { path: directory.to_owned(), source })?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"))
        .map(|path| path.strip_prefix("./").map(Path::to_owned).unwrap_or(path))
        .collect();
    files.sort();
    let ours =
        |path: &PathBuf| path.file_stem().map(Path::new).and_then(Path::extension) == Some(OsStr::new("vpc"));
    let mut candidates: Vec<PathBuf> = files.iter().filter(|path| ours(path)).cloned().collect();
    if candidates.is_empty() {
        let is_lab = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| lab_line(&text).is_some());
        candidates = files.into_iter().filter(is_lab).collect();
    }
    match candidates.len() {
        1 => Ok(candidates.remove(0)),
        0 => Err(Failure::WhichFile(
            "no file was named, and the working directory has neither a *.vpc.yaml nor a *.yaml with a line `lab:`; name one, e.g. `localvpc up two-tier.yaml`".into(),
        )),
        _ => {
            let names: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::WhichFile(format!(
                "no file was named, and several could be meant: {}; name one",
                names.join(", ")
            )))
        }
    }
}

/// The value of a line `lab: NAME`. A glance, not a parser: it decides which file is meant, never what it says.
fn lab_line(text: &str) -> Option<&str> {
    let value = text.lines().find_map(|line| line.strip_prefix("lab:"))?;
    let value = value.split('#').next().unwrap_or_default();
    Some(value.trim().trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_lab_in_a_directory_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let found = || find(dir.path()).map(|path| path.file_name().unwrap().to_owned());

        write("compose.yaml", "services: {}\n");
        assert!(found().unwrap_err().to_string().contains("neither a *.vpc.yaml"));
        write("one.yaml", "# a lab\nlab: \"one\" # name\n");
        assert_eq!(found().unwrap(), "one.yaml");
        assert_eq!(lab_named_in(dir.path()).as_deref(), Some("one"));
        write("two.yml", "lab: two\n");
        assert!(found().unwrap_err().to_string().contains("two.yml"));
        write("three.vpc.yaml", "lab: three\n");
        assert_eq!(found().unwrap(), "three.vpc.yaml");
    }
}
