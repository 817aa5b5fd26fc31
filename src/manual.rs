//! Whether the manual and what lies in `docker/` say what is so: names of metrics, configurations. Only tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use forebay_api::Measure;

use crate::admin::Status;
use crate::admin::tests::healthy;
use crate::config::{self, Environment};
use crate::connectors;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages for people.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).expect("the folder is there");
    let docs = docs.map(|entry| entry.expect("the folder can be read").path());
    let tops = ["README.md", "CHANGELOG.md"].map(|name| root().join(name));
    tops.into_iter().chain(docs.filter(|path| path.extension().is_some_and(|ext| ext == "md"))).collect()
}

/// A daemon of one source and one destination that tells all that there is to tell.
fn status() -> Status {
    let status = healthy(1);
    status.telemetry.reader("shop", "lake");
    status.telemetry.replay("shop", "lake");
    status.telemetry.dead_letters("lake");
    status.telemetry.invalid("shop");
    let sources = status.sources();
    let report = &sources[0].intake.as_ref().expect("the source is read").reports.source;
    Measure::ALL.into_iter().for_each(|measure| report.set(measure, Some(1.0)));
    status
}

/// Every word that begins as our metrics do.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
    words.filter(|word| word.starts_with("forebay_")).collect()
}

#[test]
fn the_manual_names_every_metric_and_nothing_names_one_that_is_not() {
    let page = status().metrics().unwrap();
    let mut printed = BTreeSet::new();
    let mut families = BTreeSet::new();
    for line in page.lines() {
        match line.strip_prefix("# TYPE ").map(|rest| rest.split_once(' ').unwrap()) {
            Some((family, "counter")) => drop(families.insert(format!("{family}_total"))),
            Some((family, _)) => drop(families.insert(family.to_owned())),
            None => printed.extend(metrics_in(line)),
        }
    }
    let manual = read("docs/metrics.md");
    let manual = metrics_in(&manual);
    let missing: Vec<&String> = families.iter().filter(|name| !manual.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
    for file in ["docs/metrics.md", "docker/alerts.yaml", "docker/dashboard.json"] {
        let text = read(file);
        let unknown: Vec<&str> = metrics_in(&text).difference(&printed).copied().collect();
        let unknown: Vec<&str> = unknown.into_iter().filter(|name| !families.contains(*name)).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which nobody prints");
    }
}

/// The text between lines that are ```` ```yaml ```` and ```` ``` ````.
fn yaml_blocks(text: &str) -> Vec<String> {
    let blocks = text.split("\n```yaml\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// The configuration in a ConfigMap, which is indented.
fn config_map(text: &str) -> String {
    let (_, inside) = text.split_once("  forebay.yaml: |\n").expect("the ConfigMap has that key");
    let lines = inside.lines().map_while(|line| line.strip_prefix("    "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_configuration_that_is_shown_is_one() {
    let mut shown = vec![("docker/forebay.yaml".to_owned(), read("docker/forebay.yaml"))];
    shown.push(("docker/kubernetes.yaml".to_owned(), config_map(&read("docker/kubernetes.yaml"))));
    for page in pages() {
        let whole = |block: &String| block.starts_with("sources:") && block.contains("\ndestinations:");
        let blocks = yaml_blocks(&fs::read_to_string(&page).unwrap()).into_iter().filter(whole);
        shown.extend(blocks.map(|block| (page.display().to_string(), block)));
    }
    assert!(shown.len() >= 5, "the blocks were not found");
    let url = "postgres://user:password@host/database";
    let environment: Environment = ["DATABASE_URL", "COPY_URL"].map(|name| (name, url)).into_iter().collect();
    for (name, text) in shown {
        if let Err(error) = config::read(&name, &text, &connectors::registry(), &environment) {
            panic!("{}", error.render(false));
        }
    }
}
