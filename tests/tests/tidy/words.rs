//! What stays out of the code: names that say nothing, unfinished work, queues without a limit,
//! and the machine that it was written on.

use std::path::Path;

use crate::tree::{self, Source};

const FILE_NAMES: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "manager", "types", "misc"];

/// Written apart, so that this file does not hold them itself.
fn banned_in_code() -> Vec<(String, &'static str)> {
    let banned = [
        ("todo", "!(", "finish it"),
        ("unimplemented", "!(", "finish it"),
        ("dbg", "!(", "take it out"),
        ("FIX", "ME", "fix it"),
        ("TO", "DO", "do it"),
        ("XX", "X:", "fix it"),
        ("unbounded_", "channel", "every queue has a limit"),
        ("mpsc::unbounded", "()", "every queue has a limit"),
        ("#[ig", "nore", "a test that does not run is not there"),
    ];
    banned.map(|(a, b, reason)| (format!("{a}{b}"), reason)).to_vec()
}

fn banned_everywhere() -> Vec<(String, &'static str)> {
    let banned = [
        ("\"/wo", "rk/", "a path of one machine"),
        (" /wo", "rk/", "a path of one machine"),
        ("/ro", "ot/", "a path of one machine"),
        ("/ho", "me/", "a path of one machine"),
        ("/Us", "ers/", "a path of one machine"),
        ("index.crates", ".io", "a registry's host"),
        ("static.crates", ".io", "a registry's host"),
        ("pypi", ".org", "a registry's host"),
        ("registry.npm", "js.org", "a registry's host"),
        ("proxy.go", "lang.org", "a registry's host"),
    ];
    banned.map(|(a, b, reason)| (format!("{a}{b}"), reason)).to_vec()
}

fn find(sources: &[Source], banned: &[(String, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (index, line) in source.text.lines().enumerate() {
            for (word, reason) in banned {
                if line.contains(word.as_str()) {
                    found.push(format!("{}:{}: `{word}`: {reason}", source.path, index + 1));
                }
            }
        }
    }
    found
}

#[test]
fn nothing_is_unfinished_or_without_a_limit() {
    tree::none(
        "words that stay out",
        find(&tree::files(&["rs", "ts", "tsx", "js"]), &banned_in_code()),
    );
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    let sources =
        tree::files(&["rs", "toml", "md", "html", "js", "ts", "tsx", "json", "yaml", "yml"]);
    tree::none("words that stay out", find(&sources, &banned_everywhere()));
}

#[test]
fn files_are_named_after_a_concept() {
    let sources = tree::files(&["rs", "ts", "tsx", "js"]);
    let empty = sources.iter().filter(|source| {
        let path = Path::new(&source.path);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let folder = path.parent().and_then(|folder| folder.file_name()?.to_str());
        FILE_NAMES.contains(&stem) || folder.is_some_and(|folder| FILE_NAMES.contains(&folder))
    });
    tree::none("names that say nothing", empty.map(|source| source.path.clone()).collect());
}

#[test]
fn every_file_says_what_it_is_for() {
    let header = |source: &Source| {
        let first = source.text.lines().next().unwrap_or_default();
        first.strip_prefix("//! ").is_some_and(|words| words.len() > 8)
    };
    let without: Vec<_> =
        tree::files(&["rs"]).into_iter().filter(|source| !header(source)).map(|s| s.path).collect();
    tree::none("files whose first line is not `//!` and what they are for", without);
}

#[test]
fn public_contracts_warn_of_undocumented_items() {
    for folder in ["protocol", "storage", "uplink", "client"] {
        let path = format!("{folder}/src/lib.rs");
        let source = tree::files(&["rs"]).into_iter().find(|source| source.path == path).unwrap();
        assert!(source.text.contains("#![warn(missing_docs)]"), "{path}");
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let manifests = tree::files(&["toml"]).into_iter();
    let without = manifests
        .filter(|file| file.path.ends_with("/Cargo.toml"))
        .filter(|file| !file.text.contains("[lints]\nworkspace = true"))
        .map(|file| file.path);
    tree::none("manifests without the lints", without.collect());
}
