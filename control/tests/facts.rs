//! Keeps `facts.toml` honest: every fact in scope is there, and every test that it names exists and names the fact.
//!
//! The table of RFC lines in DESIGN.md and the list of what is not there in README.md are made from it:
//! `FACTS=write cargo test -p localvpc --test facts` writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A test shows at most this many facts; one that shows more shows none of them well.
const FACTS_PER_TEST: usize = 3;

/// Where the text that is made from the facts begins and ends.
const TABLE: (&str, &str) =
    ("<!-- RFC lines: made from facts.toml by control/tests/facts.rs -->\n", "<!-- end of the RFC lines -->");
const LIST: (&str, &str) = (
    "<!-- not there: made from facts.toml by control/tests/facts.rs -->\n",
    "<!-- end of what is not there -->",
);

#[derive(Deserialize)]
struct Facts {
    /// Numbers of the facts in scope, by family: `VPC = ["1-33"]`.
    scope: BTreeMap<String, Vec<String>>,
    /// Families of which nothing is answered for yet.
    later: BTreeMap<String, Later>,
    #[serde(flatten)]
    facts: BTreeMap<String, Fact>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Later {
    /// As in `scope`.
    numbers: Vec<String>,
    /// What would have to be there first.
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fact {
    /// What it says, in a few words.
    fact: String,
    /// `path/of/file.rs::name_of_test`.
    #[serde(default)]
    tested: Vec<String>,
    /// Why we do otherwise. `tested` then shows what we do.
    differs: Option<String>,
    /// What is missing. `tested` then shows what is there.
    not_yet: Option<String>,
    /// Why it will not be.
    out_of_scope: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Tested,
    Differs,
    NotYet,
    OutOfScope,
}

impl Fact {
    /// Where it stands and why.
    fn standing(&self) -> Result<(Standing, &str), &'static str> {
        match (&self.differs, &self.not_yet, &self.out_of_scope, self.tested.is_empty()) {
            (None, None, None, false) => Ok((Standing::Tested, "")),
            (Some(why), None, None, _) => Ok((Standing::Differs, why)),
            (None, Some(what), None, _) => Ok((Standing::NotYet, what)),
            (None, None, Some(why), true) => Ok((Standing::OutOfScope, why)),
            (None, None, None, true) => Err("is neither tested, differs, not_yet nor out_of_scope"),
            (None, None, Some(_), false) => Err("is out_of_scope and tested"),
            _ => Err("has more than one of differs, not_yet and out_of_scope"),
        }
    }
}

#[test]
fn every_fact_in_scope_is_accounted_for() {
    let facts = read();
    let mut problems = Vec::new();
    let mut scope = BTreeSet::new();
    for (family, numbers) in &facts.scope {
        for id in numbers.iter().flat_map(|item| expand(item)).map(|number| format!("{family}-{number}")) {
            if !scope.insert(id.clone()) {
                problems.push(format!("{id} is twice in [scope]"));
            }
        }
    }
    let listed: BTreeSet<String> = facts.facts.keys().cloned().collect();
    problems.extend(scope.difference(&listed).map(|id| format!("{id} is in [scope] but has no entry")));
    problems.extend(listed.difference(&scope).map(|id| format!("{id} has an entry but is not in [scope]")));
    let mut counts: BTreeMap<Standing, usize> = BTreeMap::new();
    for (id, fact) in &facts.facts {
        match fact.standing() {
            Ok((standing, why)) => {
                *counts.entry(standing).or_default() += 1;
                if fact.fact.is_empty() || standing != Standing::Tested && why.is_empty() {
                    problems.push(format!("{id} says nothing"));
                }
            }
            Err(problem) => problems.push(format!("{id} {problem}")),
        }
    }
    println!("{} facts: {counts:?}", facts.facts.len());
    assert!(problems.is_empty(), "facts.toml: {problems:#?}");
}

/// The fact sheet is not part of this repository: so that its numbers are not lost, nor invented, whatever is cited
/// anywhere is accounted for, here or in a later issue.
#[test]
fn every_fact_that_is_cited_is_known() {
    let facts = read();
    let later = facts.later.iter().map(|(family, later)| (family, &later.numbers));
    let known: BTreeSet<String> = (facts.scope.iter().chain(later))
        .flat_map(|(family, numbers)| numbers.iter().map(move |item| (family, item)))
        .flat_map(|(family, item)| expand(item).map(move |number| format!("{family}-{number}")))
        .collect();
    let both = facts.later.iter().filter(|(family, _)| facts.scope.contains_key(*family));
    let mut problems: Vec<String> =
        both.map(|(family, _)| format!("{family} is in scope and later")).collect();
    let unsaid = facts.later.iter().filter(|(_, later)| later.why.is_empty());
    problems.extend(unsaid.map(|(family, _)| format!("{family} says nothing")));
    let families: Vec<&str> = facts.scope.keys().chain(facts.later.keys()).map(String::as_str).collect();
    let mut seen = 0;
    for path in texts() {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for id in families.iter().flat_map(|family| cited(&text, family)) {
            seen += 1;
            if !known.contains(&id) {
                problems.push(format!("{} cites {id}, which facts.toml does not know", path.display()));
            }
        }
    }
    assert!(seen > 500, "only {seen} facts are cited: are the texts where they were?");
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn every_test_named_exists_and_names_its_facts() {
    let facts = read();
    let mut problems = Vec::new();
    let mut shown_by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, fact) in &facts.facts {
        for test in &fact.tested {
            shown_by.entry(test).or_default().push(id);
        }
    }
    for (test, ids) in shown_by {
        if ids.len() > FACTS_PER_TEST {
            problems.push(format!("{test} is named for {} facts: {ids:?}", ids.len()));
        }
        match find(test) {
            Ok(source) => {
                let name = test.rsplit("::").next().unwrap_or_default();
                let silent = ids.iter().filter(|id| !named_by(id, name) && !mentions(&source, id));
                problems.extend(silent.map(|id| format!("{test} does not mention {id}")));
            }
            Err(problem) => problems.push(problem),
        }
    }
    assert!(problems.is_empty(), "facts.toml: {problems:#?}");
}

#[test]
fn the_table_in_the_design_is_that_of_the_facts() {
    is_made_from_the_facts("DESIGN.md", TABLE, &table(&read()));
}

#[test]
fn what_the_readme_says_is_not_there_is_what_the_facts_say() {
    is_made_from_the_facts("README.md", LIST, &list(&read()));
}

/// Requires that a file has this text between these marks, or writes it there.
#[track_caller]
fn is_made_from_the_facts(file: &str, (begin, end): (&str, &str), wanted: &str) {
    let path = root().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (before, rest) = text.split_once(begin).expect("the mark at the beginning");
    let (found, after) = rest.split_once(end).expect("the mark at the end");
    if std::env::var("FACTS").is_ok_and(|how| how == "write") {
        fs::write(&path, format!("{before}{begin}{wanted}{end}{after}")).expect("it can be written");
    } else {
        let odd = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
        assert!(
            found == wanted,
            "{file} and facts.toml differ, first in {odd:?}: run `FACTS=write cargo test -p localvpc --test facts`"
        );
    }
}

#[test]
fn ids_are_found_whole() {
    assert!(mentions("as NATGW-12 says", "NATGW-12") && !mentions("as NATGW-12 says", "NATGW-1"));
    assert!(mentions("RFC 6888 REQ-11D.", "RFC6888-11D") && !mentions("RFC 6888 REQ-11D.", "RFC6888-11"));
    assert!(named_by("NACL-16", "nacl_2_4_16_entries") && !named_by("NACL-1", "nacl_2_4_16_entries"));
    assert!(
        named_by("WALK-2", "walk_1_walk_2_the_stages") && !named_by("WALK-3", "walk_1_walk_2_the_stages")
    );
    assert!(named_by("RFC5508-1a", "rfc5508_1_rfc5508_1a_pings"));
    assert_eq!(
        cited("NATGW-7, XNATGW-8, RFC-NATGW-9 and NATGW-12.", "NATGW").collect::<Vec<_>>(),
        ["NATGW-7", "NATGW-12"]
    );
    assert_eq!(expand("9-11").collect::<Vec<_>>(), ["9", "10", "11"]);
    assert_eq!(expand("NO-ERROR").collect::<Vec<_>>(), ["NO-ERROR"]);
}

fn read() -> Facts {
    let text = fs::read_to_string(root().join("facts.toml")).expect("facts.toml");
    toml::from_str(&text).unwrap_or_else(|error| panic!("facts.toml: {error}"))
}

/// `3-5` is 3, 4 and 5; anything else is itself.
fn expand(item: &str) -> Box<dyn Iterator<Item = String> + '_> {
    let range = item.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    match range {
        Some((from, to)) => Box::new((from..=to).map(|number: u32| number.to_string())),
        None => Box::new(std::iter::once(item.to_owned())),
    }
}

/// Every text of the project.
fn texts() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the project").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("the kind of a file");
            if kind.is_dir()
                && !name.starts_with('.')
                && !["target", "corpus", "artifacts"].contains(&name.as_str())
            {
                left.push(path);
            } else if kind.is_file()
                && path
                    .extension()
                    .is_some_and(|it| ["rs", "md", "toml", "yaml", "txt"].iter().any(|one| it == *one))
            {
                found.push(path);
            }
        }
    }
    found
}

/// The numbered facts of a family that a text cites.
fn cited<'a>(text: &'a str, family: &'a str) -> impl Iterator<Item = String> + 'a {
    let begins = format!("{family}-");
    let at: Vec<usize> = text.match_indices(&begins).map(|(at, _)| at).collect();
    at.into_iter().filter_map(move |at| {
        let inside = text[..at].ends_with(|last: char| last.is_ascii_alphanumeric() || last == '-');
        let rest = &text[at + family.len() + 1..];
        let number = &rest[..rest.find(|next: char| !next.is_ascii_alphanumeric()).unwrap_or(rest.len())];
        (!inside && number.starts_with(|first: char| first.is_ascii_digit()))
            .then(|| format!("{family}-{number}"))
    })
}

/// The source of a test, with the comments and attributes in front of it.
fn find(test: &str) -> Result<String, String> {
    let (path, name) = test.rsplit_once("::").ok_or(format!("`{test}` is not `file.rs::test`"))?;
    let text = fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))?;
    let lines: Vec<&str> = text.lines().collect();
    let begins = format!("fn {name}(");
    let at = lines.iter().position(|line| line.trim_start().starts_with(&begins));
    let at = at.ok_or(format!("{path} has no function `{name}`"))?;
    let is_head = |line: &&&str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
    let head: Vec<&str> = lines[..at].iter().rev().take_while(is_head).copied().collect();
    if !head.iter().any(|line| line.trim() == "#[test]") {
        return Err(format!("{test} is not a test"));
    }
    let indent = lines[at].len() - lines[at].trim_start().len();
    let end = format!("{}}}", &lines[at][..indent]);
    let body = lines[at..].iter().take_while(|line| **line != end).copied();
    Ok(head.into_iter().chain(body).collect::<Vec<_>>().join("\n"))
}

/// Whether the text has the id, also as `RFC 5508 REQ-4`.
fn mentions(text: &str, id: &str) -> bool {
    let text = text.replace("RFC ", "RFC").replace(" REQ-", "-");
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric());
    text.match_indices(id).any(|(at, _)| ends(&text[at + id.len()..]))
}

/// Whether the name of a test has the id, as `natgw_12` or in a row of numbers as `nacl_2_4_5`.
fn named_by(id: &str, name: &str) -> bool {
    let id = id.to_lowercase();
    let Some((family, number)) = id.split_once('-') else { return false };
    let words: Vec<&str> = name.split('_').collect();
    let rows = words.iter().enumerate().filter(|(_, word)| **word == family).map(|(at, _)| &words[at + 1..]);
    let is_number = |word: &&&str| word.starts_with(|first: char| first.is_ascii_digit());
    rows.into_iter().any(|row| row.iter().take_while(is_number).any(|word| *word == number))
}

fn table(facts: &Facts) -> String {
    let mut text = String::from("\n| line | asks | we | shown by |\n|---|---|---|---|\n");
    let rfcs = facts.scope.iter().filter(|(family, _)| family.starts_with("RFC"));
    for (family, numbers) in rfcs {
        for number in numbers.iter().flat_map(|item| expand(item)) {
            let Some(fact) = facts.facts.get(&format!("{family}-{number}")) else { continue };
            let (standing, why) =
                fact.standing().unwrap_or_else(|problem| panic!("{family}-{number} {problem}"));
            let standing = match standing {
                Standing::Tested => "**met**".to_owned(),
                Standing::Differs => format!("**differs**: {why}"),
                Standing::NotYet => format!("**not yet**: {why}"),
                Standing::OutOfScope => format!("**out of scope**: {why}"),
            };
            let tests: Vec<String> = fact
                .tested
                .iter()
                .map(|test| format!("`{}`", test.rsplit("::").next().unwrap_or(test)))
                .collect();
            let line = format!("{} {number}", family.replacen("RFC", "", 1));
            text += &format!("| {line} | {} | {standing} | {} |\n", fact.fact, tests.join(", "));
        }
    }
    text + "\n"
}

/// What is not there and what differs, of AWS's facts; RFC lines are in the table.
fn list(facts: &Facts) -> String {
    let mut missing: Vec<(&str, Vec<String>)> = Vec::new();
    let mut differs = String::new();
    let families = facts.scope.iter().filter(|(family, _)| !family.starts_with("RFC"));
    for (family, numbers) in families {
        for id in numbers.iter().flat_map(|item| expand(item)).map(|number| format!("{family}-{number}")) {
            let Some(fact) = facts.facts.get(&id) else { continue };
            let says = format!("{} ({id})", fact.fact);
            match fact.standing() {
                Ok((Standing::OutOfScope | Standing::NotYet, why)) => {
                    match missing.iter_mut().find(|(known, _)| *known == why) {
                        Some((_, all)) => all.push(says),
                        None => missing.push((why, vec![says])),
                    }
                }
                Ok((Standing::Differs, why)) => differs += &format!("- **{says}**: {why}.\n"),
                _ => {}
            }
        }
    }
    missing.sort_by_key(|(why, all)| (std::cmp::Reverse(all.len()), *why));
    let mut text = String::from("\nNot here, and why; in brackets the numbers of facts.toml:\n\n");
    for (why, all) in missing {
        text += &format!("- **{why}**: {}.\n", all.join(", "));
    }
    text + "\nOtherwise than AWS:\n\n" + &differs + "\n"
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}
