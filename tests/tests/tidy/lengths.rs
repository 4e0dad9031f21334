//! Files have at most 600 lines and functions at most 70. What was longer when the rule came is
//! listed in `allowed-lengths.txt` and may only shrink; `UPDATE=1` writes down what shrank.

use std::{collections::BTreeMap, env, fs};

use crate::tree;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const ALLOWED: &str = "tests/tests/tidy/allowed-lengths.txt";

#[test]
fn files_and_functions_are_short_or_get_shorter() {
    let path = tree::root().join(ALLOWED);
    let allowed = parse(&fs::read_to_string(&path).unwrap());
    let long = too_long();
    let mut wrong = Vec::new();
    for (name, lines) in &long {
        match allowed.get(name) {
            None => wrong.push(format!("{name} has {lines} lines: split it where concepts part")),
            Some(most) if lines > most => wrong.push(format!("{name} grew from {most} to {lines}")),
            Some(_) => {}
        }
    }
    tree::none("too long", wrong);

    let shrunk = allowed != long;
    if shrunk && env::var_os("UPDATE").is_some() {
        let lines: Vec<_> = long.iter().map(|(name, lines)| format!("{lines} {name}\n")).collect();
        fs::write(&path, lines.concat()).unwrap();
    } else {
        assert!(!shrunk, "something of {ALLOWED} got shorter: run with UPDATE=1 to keep it so");
    }
}

fn parse(list: &str) -> BTreeMap<String, usize> {
    let entry = |line: &str| {
        let (lines, name) = line.split_once(' ').unwrap();
        (name.to_owned(), lines.parse().unwrap())
    };
    list.lines().map(entry).collect()
}

fn too_long() -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for source in tree::files(&["rs"]) {
        let lines: Vec<_> = source.text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            found.insert(source.path.clone(), lines.len());
        }
        for (start, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else { continue };
            let length = function_length(&lines[start..]);
            if length > FUNCTION_LINES_MAX {
                found.insert(format!("{}::{name}", source.path), length);
            }
        }
    }
    found
}

/// The name of the function whose signature starts on this line.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let qualified = before.split_whitespace().all(|word| {
        matches!(word, "pub" | "const" | "async" | "default") || word.starts_with("pub(")
    });
    let end = after.find(['(', '<'])?;
    qualified.then(|| &after[..end])
}

/// The lines of the function that starts at the first one. The code is formatted, so it ends with
/// a brace, or a semicolon, at the indentation of its first line.
fn function_length(lines: &[&str]) -> usize {
    let indent = lines[0].len() - lines[0].trim_start().len();
    let ends = |line: &str| {
        let own = line.len() - line.trim_start().len() == indent;
        own && (line.trim_start().starts_with('}') || line.ends_with(';') || line.ends_with(" }"))
    };
    1 + lines.iter().position(|line| ends(line)).unwrap_or(lines.len() - 1)
}

#[test]
fn a_function_is_measured_from_its_name_to_its_brace() {
    let lines = |text: &'static str| text.lines().collect::<Vec<_>>();
    assert_eq!(function_length(&lines("fn a() {\n    b();\n}\nfn c() {}")), 3);
    assert_eq!(function_length(&lines("fn a() { b() }\n\nfn c() {\n}")), 1);
    assert_eq!(
        function_length(&lines("    fn a(\n        b: u8,\n    ) {\n        c\n    }\n}")),
        5
    );
    assert_eq!(function_length(&lines("    fn a(&self);\n    fn b() {}")), 1);
    assert_eq!(function_name("    pub(crate) async fn run<T>(t: T) {"), Some("run"));
    assert_eq!(function_name("// the fn word (here) is no function"), None);
}
