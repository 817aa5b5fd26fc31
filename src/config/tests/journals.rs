//! `journal:` in all its forms, with the journals of this build.

use super::super::{Environment, read};
use crate::config::{ConfigError, Role, Settings};
use crate::connectors::registry;

fn settings(top: &str, of_source: &str) -> Result<Settings, ConfigError> {
    let text = format!(
        "{top}
sources:
  shop: {{type: postgres, url: 'postgres://a@b/c', tables: ['public.*']{of_source}}}
destinations:
  files: {{type: file, path: ./out.ndjson}}
"
    );
    read("forebay.yaml", &text, &registry(), &Environment::default())
}

fn kind(top: &str, of_source: &str) -> Option<String> {
    let settings = settings(top, of_source).unwrap_or_else(|error| panic!("{}", error.render(false)));
    settings.journal_of(&settings.sources[0]).map(|journal| journal.kind.clone())
}

fn refused(top: &str, of_source: &str) -> String {
    settings(top, of_source).expect_err("it is wrong").render(false)
}

#[test]
fn a_journal_is_a_word_or_a_mapping_for_all_sources_or_for_one() {
    assert_eq!(kind("", ""), None);
    assert_eq!(kind("journal: none", ""), None);
    assert_eq!(kind("journal: disk", "").as_deref(), Some("disk"));
    assert_eq!(kind("journal: {type: disk, max_bytes: 1GiB}", "").as_deref(), Some("disk"));
    assert_eq!(kind("journal: disk", ", journal: none"), None);
    assert_eq!(kind("", ", journal: {type: disk}").as_deref(), Some("disk"));
    let settings = settings("journal: {type: disk, full: park}", "").unwrap();
    let journal = settings.journal_of(&settings.sources[0]).unwrap();
    assert_eq!((journal.role, &journal.own.0), (Role::Both, &serde_json::json!({"full": "park"})));
}

#[test]
fn what_is_no_journal_is_refused_where_it_stands() {
    for (top, of_source, said) in [
        ("journal: dsik", "", "dsik"),
        ("journal: {type: dsik}", "", "dsik"),
        ("journal: {type: disk, max_bites: 1GiB}", "", "`max_bytes`"),
        ("journal: {max_bytes: 1GiB}", "", "type"),
        ("journal: 5", "", "journal"),
        ("journal: {type: disk, segment: 1KiB}", "", "write a size from"),
        ("", ", journal: {type: disk, segment: 1KiB}", "write a size from"),
        ("journal: {type: disk, role: intake}", "", "one daemon's alone"),
    ] {
        let text = refused(top, of_source);
        assert!(text.contains(said), "{top}{of_source}: {text}");
    }
}

#[test]
fn no_destination_beside_a_journal_is_called_journal() {
    let text = "journal: disk
sources:
  shop: {type: postgres, url: 'postgres://a@b/c', tables: ['public.*']}
destinations:
  journal: {type: file, path: ./out.ndjson}
";
    let refused = |text: &str| read("forebay.yaml", text, &registry(), &Environment::default()).err();
    assert!(refused(text).unwrap().render(false).contains("another name"));
    assert!(refused(&text.replace("journal: disk", "journal: none")).is_none());
}
