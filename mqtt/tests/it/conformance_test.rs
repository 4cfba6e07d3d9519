//! `CONFORMANCE.md` keeps its word: it accounts for every numbered statement once, and the tests it names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How many statements each section of MQTT 3.1.1 numbers (its appendix B).
const SECTIONS: &[(&str, u32)] = &[
    ("1.5.3", 3),
    ("2.2.2", 2),
    ("2.3.1", 7),
    ("3.1.0", 2),
    ("3.1.2", 24),
    ("3.1.3", 11),
    ("3.1.4", 5),
    ("3.2.0", 1),
    ("3.2.2", 6),
    ("3.3.1", 12),
    ("3.3.2", 3),
    ("3.3.4", 1),
    ("3.3.5", 2),
    ("3.6.1", 1),
    ("3.8.1", 1),
    ("3.8.3", 4),
    ("3.8.4", 6),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.12.4", 1),
    ("3.14.1", 1),
    ("3.14.4", 3),
    ("4.1.0", 2),
    ("4.3.1", 1),
    ("4.3.2", 2),
    ("4.3.3", 2),
    ("4.4.0", 1),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.1", 3),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.0", 2),
    ("6.0.0", 4),
    ("7.0.0", 2),
    ("7.1.1", 2),
    ("7.1.2", 2),
];

/// The same of MQTT 5.0.
const SECTIONS_V5: &[(&str, u32)] = &[
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];

/// A number that MQTT 5.0 does not give out.
const ABSENT_V5: &str = "MQTT-2.2.1-1";

const PART_V5: &str = "# Conformance to MQTT 5.0";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    fs::read_to_string(root().join("CONFORMANCE.md")).unwrap()
}

/// Cells of the rows about statements.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let rows = document.lines().filter(|line| line.starts_with("| MQTT-"));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

fn rust_files(under: &Path, into: &mut Vec<PathBuf>) {
    // The workspace's tests are not there where the crate stands alone.
    let Ok(entries) = fs::read_dir(under) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Names of all functions marked as tests.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in ["src", "tests/it", "../tests/it"] {
        rust_files(&root().join(folder), &mut files);
    }
    let mut found = BTreeSet::new();
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        let mut marked = false;
        // Tests that a macro makes once for each broker are listed by name.
        let listed = source.split("on_every_broker!({").nth(1);
        let listed = listed.and_then(|rest| rest.split("});").next());
        found.extend(
            listed
                .into_iter()
                .flat_map(str::split_whitespace)
                .map(str::to_owned),
        );
        for line in source.lines().map(str::trim) {
            let name = line
                .trim_start_matches("async ")
                .strip_prefix("fn ")
                .and_then(|rest| rest.split('(').next());
            match name {
                Some(name) if marked => {
                    found.insert(name.to_owned());
                    marked = false;
                }
                _ if line.starts_with("#[test]") || line.starts_with("#[tokio::test") => {
                    marked = true;
                }
                _ => {}
            }
        }
    }
    found
}

fn numbered(sections: &[(&str, u32)]) -> BTreeSet<String> {
    let numbers = |(section, count): &(&str, u32)| {
        let section = (*section).to_owned();
        (1..=*count).map(move |number| format!("MQTT-{section}-{number}"))
    };
    sections.iter().flat_map(numbers).collect()
}

#[test]
fn every_statement_is_accounted_for_once() {
    let document = document();
    let (v311, v5) = document
        .split_once(PART_V5)
        .expect("the part about MQTT 5.0");
    let mut statements_v5 = numbered(SECTIONS_V5);
    assert!(statements_v5.remove(ABSENT_V5));
    for (part, server, expected) in [
        (v311, "## What binds only a server", numbered(SECTIONS)),
        (v5, "## 5.0: what binds only a server", statements_v5),
    ] {
        let (_, server) = part
            .split_once(server)
            .expect("the chapter of statements that bind only a server");
        let server = server
            .split_whitespace()
            .map(|word| word.trim_matches(['[', ']', ',', '.']))
            .filter(|word| word.starts_with("MQTT-"));
        let mut found = BTreeSet::new();
        for id in rows(part).iter().map(|row| row[0]).chain(server) {
            assert!(found.insert(id.to_owned()), "{id} stands twice");
        }
        let missing: Vec<_> = expected.difference(&found).collect();
        let unknown: Vec<_> = found.difference(&expected).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
        assert!(unknown.is_empty(), "no such statement: {unknown:?}");
    }
}

#[test]
fn every_row_names_tests_that_exist_or_says_that_none_covers_it() {
    let document = document();
    let tests = tests();
    assert!(tests.contains("every_row_names_tests_that_exist_or_says_that_none_covers_it"));
    let workspace = root().join("../tests/it/mqtt_test.rs").exists();
    for row in rows(&document) {
        let [id, statement, proof] = row[..] else {
            panic!("not three cells: {row:?}")
        };
        assert!(!statement.is_empty(), "{id}");
        if proof.starts_with("not covered: ") {
            continue;
        }
        let names: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        assert!(
            !names.is_empty(),
            "{id} has neither a test nor a confession"
        );
        for name in names {
            assert!(!workspace || tests.contains(name), "{id}: no test {name}");
        }
    }
}
