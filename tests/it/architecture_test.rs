//! The module table of ARCHITECTURE.md, held against the code on every run.
//!
//! Imports are read as text: `crate::module` paths outside of test code, and foreign crates by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Foreign crates that may be named in one module only.
const DOORS: &[(&str, &[&str])] = &[
    ("axum", &["api"]),
    ("clap", &["cli", "main"]),
    ("redis", &["store"]),
    ("chacha20poly1305", &["record"]),
    ("tokio_rustls", &["proxy", "playback"]),
    ("tokio_tungstenite", &["playback"]),
    ("broker_mock", &["app"]),
    ("anyhow", &["cli", "main"]),
    ("rustix", &["cli", "proxy"]),
    ("rcgen", &["proxy"]),
    ("x509_parser", &["proxy"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The rows `| module, module | may use |` of the table in ARCHITECTURE.md.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text
        .split("| module | may use (of ours) |")
        .nth(1)
        .expect("the module table");
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split(',')
            .map(|name| name.trim().trim_matches('`').to_owned())
            .collect()
    };
    let mut table = BTreeMap::new();
    for row in rows
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
    {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        for module in names(cells[0]) {
            table.insert(module, names(cells[1]));
        }
    }
    assert!(
        table.len() > 12,
        "the table in ARCHITECTURE.md could not be read: {table:?}"
    );
    table
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// The code of a file without comments and without what follows `#[cfg(test)]`.
fn production_code(path: &Path) -> String {
    if path.file_name().is_some_and(|name| name == "tests.rs") {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The names of the modules that `code` reaches by `crate::name`, and by `crate::{a, b}`.
fn modules_used(code: &str) -> BTreeSet<String> {
    let identifier = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let mut name = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            used.insert(identifier(name.trim()));
                            name.clear();
                        }
                        c => name.push(c),
                    }
                }
                used.insert(identifier(name.trim()));
            }
            None => {
                used.insert(identifier(rest));
            }
        }
    }
    used.remove("");
    used
}

/// The module that a file under `src/` belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn every_import_follows_the_module_table() {
    let table = table();
    let everything: BTreeSet<String> = table.keys().cloned().collect();
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let code = production_code(&path);
        let Some(allowed) = table.get(&module) else {
            wrong.push(format!("{module} is not in the table ({})", path.display()));
            continue;
        };
        let mut used = modules_used(&code);
        used.retain(|name| everything.contains(name) && *name != module);
        if code.contains("qproxy_mqtt::") {
            used.insert("qproxy-mqtt".into());
        }
        if allowed.contains("all of the above") {
            continue;
        }
        for name in used.difference(allowed) {
            wrong.push(format!("{module} uses {name} in {}", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that ARCHITECTURE.md does not have:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn foreign_crates_stay_behind_their_door() {
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let (module, code) = (module_of(&path), production_code(&path));
        for (foreign, homes) in DOORS {
            let named = code.match_indices(&format!("{foreign}::")).any(|(at, _)| {
                !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            });
            if named && !homes.contains(&module.as_str()) {
                wrong.push(format!("{module} names {foreign} in {}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_mqtt_client_knows_nothing_of_the_rest() {
    for crate_folder in ["mqtt/src", "broker-mock/src"] {
        for path in rust_files(&root().join(crate_folder)) {
            let code = production_code(&path);
            assert!(!code.contains("qproxy::"), "{}", path.display());
        }
    }
    let manifest = fs::read_to_string(root().join("mqtt/Cargo.toml")).unwrap();
    assert!(
        !manifest.contains("broker-mock"),
        "qproxy-mqtt must not need the broker"
    );
}

#[test]
fn the_reader_of_imports_sees_what_it_should() {
    let code =
        "use crate::record::X; use crate::{store::{A, B}, sync};\nxcrate::no; crate::metrics::Y";
    let used: Vec<String> = modules_used(code).into_iter().collect();
    assert_eq!(used, ["metrics", "record", "store", "sync"]);
}

#[test]
fn main_holds_no_logic() {
    let main = fs::read_to_string(root().join("src/main.rs")).unwrap();
    assert!(
        main.lines().count() < 60,
        "src/main.rs has {} lines",
        main.lines().count()
    );
}
