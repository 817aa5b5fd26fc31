//! The manual promises only what a test proves.

use std::fs;
use std::path::Path;

/// Every `path/to/file.rs::name` of the text.
fn tests_in(text: &str) -> Vec<(&str, &str)> {
    let words = text.split(|char: char| char.is_whitespace() || matches!(char, '`' | '|' | ',' | '(' | ')'));
    words.filter_map(|word| word.split_once(".rs::")).collect()
}

/// Whether a source file has a test of that name.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let named =
        |line: &str| line.split_once("fn ").is_some_and(|(_, rest)| rest.split('(').next() == Some(name));
    let is_test = |at: usize| {
        let attributes =
            lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("///"));
        attributes.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    };
    // A property test stands in a macro of its own, with its attribute like any other.
    (0..lines.len()).any(|at| named(lines[at]) && is_test(at))
}

#[test]
fn every_test_that_the_manual_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manual = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let named = tests_in(&manual);
    assert!(named.len() >= 30, "only {} tests were found in the manual", named.len());
    let missing: Vec<String> = named
        .iter()
        .filter(|(file, name)| {
            let source = fs::read_to_string(root.join(format!("{file}.rs")));
            !source.is_ok_and(|source| has_test(&source, name))
        })
        .map(|(file, name)| format!("{file}.rs::{name}"))
        .collect();
    assert!(missing.is_empty(), "docs/guarantees.md names tests that are not there: {missing:#?}");
}
