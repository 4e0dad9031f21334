//! Documents lead somewhere, and the protocol's names every command and every code.

use std::{collections::HashSet, path::Path};

use chappe_protocol::{CloseCode, Command, ErrorCode, EventBody};

use crate::tree::{self, Source};

/// The tests that a line of the guarantees names: long names in snake case.
fn tests_named(document: &str) -> Vec<&str> {
    let words = document.split('`').skip(1).step_by(2);
    let is_test = |word: &&str| {
        word.matches('_').count() >= 3
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    words.filter(is_test).collect()
}

#[test]
fn the_tests_that_hold_a_guarantee_exist() {
    let documents = tree::files(&["md"]);
    let guarantees = documents.iter().find(|file| file.path == "docs/guarantees.md").unwrap();
    let sources = tree::files(&["rs"]);
    let named = tests_named(&guarantees.text);
    assert!(named.len() > 30, "the tests are found");
    let missing = named.into_iter().filter(|name| {
        let signature = format!("fn {name}(");
        !sources.iter().any(|source| source.text.contains(&signature))
    });
    tree::none("tests that are named and not there", missing.map(str::to_owned).collect());
}

/// The last cells of the table under this heading.
fn last_column<'a>(document: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, section) = document.split_once(heading).unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("| "));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_end_matches(" |").rsplit(" | ").next().unwrap()).collect()
}

#[test]
fn each_row_of_the_failure_table_names_a_test_that_exists() {
    let documents = tree::files(&["md"]);
    let operating = documents.iter().find(|file| file.path == "docs/operating.md").unwrap();
    let sources = tree::files(&["rs"]);
    let faults = sources.iter().find(|file| file.path == "tests/tests/faults/fault.rs").unwrap();
    let cells = last_column(&operating.text, "## When something fails\n");
    assert!(cells.len() > 15, "the table is found");
    let mut wrong = Vec::new();
    for cell in cells {
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            wrong.push(format!("no test: {cell}"));
        }
        for name in names {
            let is_there = match name.strip_prefix("Fault::") {
                Some(fault) => faults.text.contains(&format!("    Self::{fault},\n")),
                None => sources.iter().any(|file| file.text.contains(&format!("fn {name}("))),
            };
            if !is_there {
                wrong.push(name.to_owned());
            }
        }
    }
    tree::none("rows without a test that is there", wrong);
}

#[test]
fn what_a_transcript_cannot_show_is_tested_where_it_says() {
    let transcripts = tree::files(&["json"]);
    let mut missing = Vec::new();
    for transcript in transcripts.iter().filter(|file| file.path.starts_with("protocol/golden/")) {
        let Some((_, after)) = transcript.text.split_once("\"covered\": \"") else { continue };
        let (covered, _) = after.split_once('"').unwrap();
        let (path, test) = covered.split_once("::").unwrap();
        let text = std::fs::read_to_string(tree::root().join(path)).unwrap_or_default();
        if !text.contains(&format!("fn {test}(")) {
            missing.push(format!("{}: {covered}", transcript.path));
        }
    }
    tree::none("tests that are named and not there", missing);
}

/// The targets of `[text](target)` outside code.
fn links(document: &Source) -> Vec<String> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in document.text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let mut rest = if fenced { "" } else { line };
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, next)) = after.split_once(')') else { break };
            links.push(target.to_owned());
            rest = next;
        }
    }
    links
}

/// The names by which a document's headings can be linked to.
fn anchors(document: &str) -> HashSet<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let words: String = heading.trim_start_matches('#').trim().chars().filter(kept).collect();
        words.to_lowercase().replace(' ', "-")
    };
    headings.map(slug).collect()
}

#[test]
fn links_lead_somewhere() {
    let documents = tree::files(&["md"]);
    let mut dead = Vec::new();
    for document in &documents {
        for link in links(document) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = Path::new(&document.path).parent().unwrap();
            let file =
                if path.is_empty() { Path::new(&document.path).into() } else { folder.join(path) };
            let target = tree::root().join(file);
            let leads = target.is_dir() && anchor.is_empty()
                || target.is_file() && anchor.is_empty()
                || std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).contains(anchor));
            if !leads {
                dead.push(format!("{}: {link}", document.path));
            }
        }
    }
    tree::none("links that lead nowhere", dead);
}

#[test]
fn the_protocol_document_names_every_command_event_and_code() {
    let documents = tree::files(&["md"]);
    let document = documents.iter().find(|file| file.path == "docs/protocol.md").unwrap();
    let codes = ErrorCode::ALL.iter().map(|code| code.name());
    let closes = CloseCode::ALL.iter().map(|code| code.name());
    let names = Command::NAMES.iter().chain(EventBody::KINDS).copied();
    let missing = names
        .chain(codes)
        .chain(closes)
        .filter(|name| !document.text.contains(&format!("`{name}`")))
        .map(str::to_owned);
    tree::none("names that docs/protocol.md lacks", missing.collect());
}
