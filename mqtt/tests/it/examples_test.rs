//! Every public item of the crate is shown by an example.
//!
//! The sources are read as text, line by line, and the rule is kept simple for that. What counts is a line that begins
//! with `pub fn`, `pub struct`, `pub enum`, `pub trait`, `pub type` or `pub const`: restricted ones (`pub(crate)`)
//! begin otherwise, and that each plain `pub` can be reached from outside is the business of the lint
//! `unreachable_pub`. Fields, variants and what stands in a trait are shown with their type. An item is shown
//!
//! - by an example in its own doc comment, or
//! - by one of the public module it belongs to, which names it, or
//! - for a method or a constant of a type: by one of that type, which calls it.
//!
//! That the examples compile, and that what they assert is true, is for the documentation tests to say.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Fewer would say that the reader has gone blind.
const FEWEST_ITEMS: usize = 200;

#[test]
fn every_public_item_is_shown_by_an_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut crate_items = Sources::default();
    for path in sources(&root) {
        let text = fs::read_to_string(&path).unwrap();
        crate_items.read(path.strip_prefix(&root).unwrap(), &text);
    }
    let found = crate_items.items.len();
    assert!(found >= FEWEST_ITEMS, "only {found} items were found");
    let lacking = crate_items.not_shown();
    assert!(
        lacking.is_empty(),
        "without an example:\n{}",
        lacking.join("\n")
    );
}

#[test]
fn an_item_without_an_example_is_found() {
    let shown = "//! ```\n//! let it = Named::default();\n//! ```\n\
        /// ```\n/// Own::new().call();\n/// Own::MOST;\n/// ```\n\
        #[derive(\n    Debug,\n)]\npub struct Own;\n\
        impl<T> Own<T>\nwhere\n    T: Copy,\n{\n    pub const fn new() {}\n    pub fn call() {}\n    \
        pub const MOST: u8 = 0;\n    pub(crate) fn hidden() {}\n}\n\
        pub struct Named;\n";
    let lacking = |text: &str| {
        let mut sources = Sources::default();
        sources.read(Path::new("one/mod.rs"), text);
        sources.not_shown()
    };
    assert_eq!(lacking(shown), Vec::<String>::new());
    for (from, to, expected) in [
        (".call()", ".other()", "one/mod.rs: Own::call"),
        (".call()", ".call", "one/mod.rs: Own::call"),
        ("Own::MOST", "Own::LEAST", "one/mod.rs: Own::MOST"),
        ("it = Named", "it = NamedToo", "one/mod.rs: Named"),
        ("pub(crate) fn", "pub async fn", "one/mod.rs: Own::hidden"),
    ] {
        assert_eq!(lacking(&shown.replace(from, to)), [expected]);
    }
    // The words of a doc comment are no example.
    let told = "/// Has no example: `told()`.\npub fn told() {}\n";
    assert_eq!(lacking(told), ["one/mod.rs: told"]);
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
    found
}

struct Item {
    file: String,
    module: String,
    /// The type in whose `impl` it stands.
    owner: Option<String>,
    name: String,
    example: String,
}

#[derive(Default)]
struct Sources {
    items: Vec<Item>,
    /// Of public modules, by name.
    modules: HashMap<String, String>,
}

impl Sources {
    /// `path` is relative to the root of the sources; its first part names the public module.
    fn read(&mut self, path: &Path, text: &str) {
        let file = path.display().to_string();
        let module = file.split(['/', '.']).next().unwrap().to_owned();
        if path == Path::new(&module).join("mod.rs") || path == Path::new(&format!("{module}.rs")) {
            let example = example(text.lines().filter_map(|it| it.strip_prefix("//!")));
            self.modules.insert(module.clone(), example);
        }
        let mut docs = Vec::new();
        let mut owner: Option<(usize, String)> = None;
        // Brackets of an attribute that are open.
        let mut open = 0;
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for line in text.lines() {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            if let Some(doc) = trimmed.strip_prefix("///") {
                docs.push(doc);
                continue;
            }
            if open > 0 || trimmed.starts_with("#[") {
                open += trimmed.matches('[').count();
                open -= trimmed.matches(']').count();
                continue;
            }
            if trimmed.starts_with("impl") {
                owner = Some((indent, implemented(trimmed)));
            } else if let Some(name) = public_name(trimmed) {
                self.items.push(Item {
                    file: file.clone(),
                    module: module.clone(),
                    owner: owner.as_ref().map(|(_, name)| name.clone()),
                    name: name.to_owned(),
                    example: example(docs.iter().copied()),
                });
            } else if trimmed == "}" && owner.as_ref().is_some_and(|(at, _)| *at == indent) {
                owner = None;
            }
            docs.clear();
        }
    }

    fn not_shown(&self) -> Vec<String> {
        let mut lacking: Vec<_> = self
            .items
            .iter()
            .filter(|item| !self.is_shown(item))
            .map(|item| match &item.owner {
                None => format!("{}: {}", item.file, item.name),
                Some(owner) => format!("{}: {owner}::{}", item.file, item.name),
            })
            .collect();
        lacking.sort();
        lacking
    }

    fn is_shown(&self, item: &Item) -> bool {
        let by_module = self.modules.get(&item.module).map_or("", String::as_str);
        let Some(owner) = &item.owner else {
            return !item.example.is_empty() || names(by_module, &item.name);
        };
        let types = self.items.iter().filter(|other| {
            other.owner.is_none() && other.module == item.module && other.name == *owner
        });
        let mut examples = types.map(|it| it.example.as_str()).chain([by_module]);
        !item.example.is_empty() || examples.any(|it| calls(it, &item.name))
    }
}

/// The code in a doc comment.
fn example<'a>(docs: impl Iterator<Item = &'a str>) -> String {
    let mut code = String::new();
    let mut inside = false;
    for line in docs {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// Whether the word stands in the code.
fn names(code: &str, word: &str) -> bool {
    occurrences(code, word).next().is_some()
}

/// Whether the code has `.word(…)`, which a field of the same name has not, or `::word`.
fn calls(code: &str, word: &str) -> bool {
    occurrences(code, word).any(|(left, right)| {
        left.ends_with("::") || left.ends_with('.') && right.starts_with(['(', ':'])
    })
}

/// What stands before and behind the word, wherever it is a whole one.
fn occurrences<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let of_word = |it: char| it.is_alphanumeric() || it == '_';
    code.match_indices(word)
        .map(move |(at, _)| (&code[..at], &code[at + word.len()..]))
        .filter(move |(left, right)| !left.ends_with(of_word) && !right.starts_with(of_word))
}

/// The name of a public item that a line begins.
fn public_name(line: &str) -> Option<&str> {
    let mut rest = line.strip_prefix("pub ")?;
    for kind in [
        "const ", "async ", "fn ", "struct ", "enum ", "trait ", "type ",
    ] {
        rest = rest.strip_prefix(kind).unwrap_or(rest);
    }
    let begins = rest.len() < line.len() - "pub ".len();
    let end = rest.find(|it: char| !it.is_alphanumeric() && it != '_');
    begins.then_some(&rest[..end.unwrap_or(rest.len())])
}

/// The type that an `impl` is for.
fn implemented(line: &str) -> String {
    let rest = line.trim_start_matches("impl");
    let mut depth = 0;
    let behind = rest.find(|it| {
        match it {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        depth == 0 && (it == '>' || it == ' ')
    });
    let rest = rest[behind.unwrap_or(0)..].trim_start_matches(['>', ' ']);
    let rest = rest.rsplit(" for ").next().unwrap();
    rest.chars()
        .take_while(|it| it.is_alphanumeric() || *it == '_')
        .collect()
}
