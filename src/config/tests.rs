//! The loader against connectors of its own, so that no real one's options decide what is tested here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use forebay_api::template::Template;
use forebay_api::units::{ByteSize, Period};
use forebay_api::{
    Delivery, Destination, DestinationConnector, DestinationSetting, Fault, Finding, Mistake, Op, Position,
    Registry, Source, SourceConnector, SourceContext, SourceSetting,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

#[cfg(feature = "default")]
mod journals;
#[cfg(feature = "default")]
mod shipped;

use super::{CheckpointKind, Environment, Settings, check_offline, load, read, schema};
use crate::format::Format;

/// Where the spring is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only decoding is tested")]
struct SpringConfig {
    /// How to reach it.
    url: String,
    /// Which tables to read.
    tables: Vec<String>,
    /// Port of its gauge.
    #[schemars(range(min = 1))]
    port: Option<u16>,
}

/// Where the lake is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only decoding is tested")]
struct LakeConfig {
    /// Its inlets.
    brokers: Vec<String>,
    /// Where records go.
    topic: Option<Template>,
    /// Who we are.
    sasl: Option<Sasl>,
    /// How it is divided.
    partitions: Option<Partitions>,
    /// Handed on as they are.
    #[serde(default)]
    options: BTreeMap<String, String>,
    /// How long to rest.
    linger: Option<Period>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "mechanism", rename_all = "snake_case", deny_unknown_fields)]
#[allow(dead_code, reason = "only decoding is tested")]
enum Sasl {
    Plain { username: String, password: String },
    External {},
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only decoding is tested")]
enum Partitions {
    Count(u32),
    Named(Vec<String>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

struct Spring;
struct Lake;
struct Sink;

#[async_trait]
impl Source for Spring {
    async fn run(&mut self, _: SourceContext) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl SourceConnector for Spring {
    const TYPE: &'static str = "spring";
    const ABOUT: &'static str = "water from the mountain";
    type Config = SpringConfig;

    fn build(config: SpringConfig, _: &SourceSetting) -> Result<Box<dyn Source>, Vec<Mistake>> {
        if config.url.starts_with("spring://") {
            return Ok(Box::new(Spring));
        }
        Err(vec![Mistake {
            at: "/url".to_owned(),
            message: format!("`{}` is no address of a spring", config.url),
            help: Some("write it like `spring://host`".to_owned()),
        }])
    }

    async fn check(_: SpringConfig, _: &SourceSetting) -> Vec<Finding> {
        Vec::new()
    }

    fn position(_: &str, _: Option<&Position>) -> Result<Position, String> {
        Err("there are none".to_owned())
    }
}

#[async_trait]
impl Destination for Sink {
    async fn deliver(&self, _: Delivery) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl DestinationConnector for Lake {
    const TYPE: &'static str = "lake";
    const ABOUT: &'static str = "still water";
    type Config = LakeConfig;

    fn build(_: LakeConfig, _: &DestinationSetting) -> Result<Arc<dyn Destination>, Vec<Mistake>> {
        Ok(Arc::new(Sink))
    }

    async fn check(_: LakeConfig, _: &DestinationSetting) -> Vec<Finding> {
        Vec::new()
    }
}

#[async_trait]
impl DestinationConnector for Sink {
    const TYPE: &'static str = "sink";
    const ABOUT: &'static str = "no water";
    type Config = NoKeys;

    fn build(_: NoKeys, _: &DestinationSetting) -> Result<Arc<dyn Destination>, Vec<Mistake>> {
        Ok(Arc::new(Sink))
    }

    async fn check(_: NoKeys, _: &DestinationSetting) -> Vec<Finding> {
        Vec::new()
    }
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.source::<Spring>();
    registry.destination::<Lake>();
    registry.destination::<Sink>();
    registry
}

/// The smallest configuration, with more lines for its destination.
fn with(lines: &str) -> String {
    format!(
        "sources:\n  shop: {{type: spring, url: 'spring://a', tables: [t]}}\n\
         destinations:\n  lake:\n    type: lake\n    brokers: [b]\n{lines}"
    )
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().copied().collect()
}

fn good(text: &str, pairs: &[(&str, &str)]) -> Settings {
    read("forebay.yaml", text, &registry(), &environment(pairs))
        .unwrap_or_else(|error| panic!("{}", error.render(false)))
}

fn bad(text: &str, pairs: &[(&str, &str)]) -> String {
    match read("forebay.yaml", text, &registry(), &environment(pairs)) {
        Ok(settings) => panic!("it was read: {settings:?}"),
        Err(error) => error.render(false),
    }
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata")
}

#[test]
fn every_kind_of_mistake_has_its_message() {
    let mut files: Vec<PathBuf> = fs::read_dir(testdata())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() > 40, "the samples are in {}", testdata().display());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        // `# env: NAME=value` lines are the sample's environment
        let pairs: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.strip_prefix("# env: ")?.split_once('=')).collect();
        insta::assert_snapshot!(name, bad(&text, &pairs));
    }
}

#[test]
fn what_is_not_said_has_its_default() {
    let settings = good(&with(""), &[]);
    assert_eq!((settings.name.as_str(), settings.environment.as_str()), ("forebay", "development"));
    assert_eq!(settings.data_dir, Path::new("./data"));
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:9080");
    assert_eq!(settings.startup.wait, Period::seconds(30));
    assert_eq!(settings.checkpoints.kind, CheckpointKind::File);
    let source = &settings.sources[0];
    assert_eq!((source.name.as_str(), source.kind.as_str()), ("shop", "spring"));
    assert_eq!(source.setting(false).vendor, "local.shop");
    assert_eq!(source.own.0, json!({"url": "spring://a", "tables": ["t"]}));
    let lake = &settings.destinations[0];
    assert!(lake.required && lake.attempts().is_none());
    assert_eq!(lake.format, Format::Forebay);
    assert_eq!((lake.batch.records.get(), lake.batch.bytes), (10_000, ByteSize::mib(1)));
    assert_eq!(lake.setting(&settings).sources, ["shop"]);
}

#[test]
fn what_is_said_is_read() {
    let text = with(
        "    required: true\n    accept: valid\n    format: debezium\n    timeout: 5s\n    \
         where: {source: [shop], op: [insert, delete], table: ['o*']}\n    \
         batch: {records: 5, bytes: 64KiB, age: 5ms}\n    retry: {initial: 1s, max: 1m}\n    topic: '{source}.{table}'\n  \
         rest: {type: sink, required: false, retry: {attempts: 3}}\nlimits: {memory: 128MiB}\n\
         admin: {listen: '0.0.0.0:1', ready_max_lag: 1m}\n",
    );
    let settings = good(&text, &[]);
    assert_eq!(settings.limits.memory_budget(), ByteSize::mib(128));
    assert_eq!(settings.limits.events_budget(), ByteSize::mib(50));
    let [lake, rest] = &settings.destinations[..] else { panic!("{settings:?}") };
    assert_eq!(lake.filter.op.as_deref(), Some(&[Op::Insert, Op::Delete][..]));
    assert_eq!(lake.own.0, json!({"brokers": ["b"], "topic": "{source}.{table}"}));
    assert_eq!((lake.retry.initial, lake.timeout), (Period::seconds(1), Some(Period::seconds(5))));
    assert_eq!(rest.attempts().unwrap().get(), 3);
}

#[test]
fn an_anchor_is_copied_to_where_it_is_used() {
    let text = with("    batch: &small {records: 7}\n  rest: {type: sink, batch: *small}\n");
    assert_eq!(good(&text, &[]).destinations[1].batch.records.get(), 7);
}

#[test]
fn a_reference_is_replaced_and_never_read_as_yaml() {
    let text = with("    options: {user: \"${WHO}\", mixed: \"a-${WHO}-${NO:-b}\", literal: \"$${WHO}\"}\n");
    let settings = good(&text, &[("WHO", "{x: [1]}\n# y")]);
    let options = &settings.destinations[0].own.0["options"];
    assert_eq!(*options, json!({"user": "{x: [1]}\n# y", "mixed": "a-{x: [1]}\n# y-b", "literal": "${WHO}"}));
}

#[test]
fn a_reference_alone_takes_the_type_of_its_field() {
    let text =
        with("    required: ${YES}\n    batch: {records: \"${COUNT}\"}\n    options: {a: \"${COUNT}\"}\n");
    let settings = good(&text, &[("YES", "true"), ("COUNT", "12")]);
    let lake = &settings.destinations[0];
    assert!(lake.required);
    assert_eq!(lake.batch.records.get(), 12);
    assert_eq!(lake.own.0["options"]["a"], "12");
}

#[test]
fn a_default_stands_for_what_is_unset_or_empty() {
    let text = with("    options: {a: \"${A:-x}\", b: \"${B:-x}\", c: \"${B}\"}\n");
    let settings = good(&text, &[("B", "")]);
    assert_eq!(settings.destinations[0].own.0["options"], json!({"a": "x", "b": "x", "c": ""}));
}

#[test]
fn a_file_brings_its_text_without_the_last_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "p: #1\n\n").unwrap();
    let text = with(&format!("    options: {{a: \"${{file:{}}}\"}}\n", path.display()));
    assert_eq!(good(&text, &[]).destinations[0].own.0["options"]["a"], "p: #1\n");
}

#[test]
fn the_environment_overrides_any_key() {
    let text = with("    linger: 5s\n  my-rest: {type: sink}\n");
    let settings = good(
        &text,
        &[
            ("FOREBAY__NAME", "edge-1"),
            ("FOREBAY__LIMITS__MEMORY", "64MiB"),
            ("FOREBAY__DESTINATIONS__LAKE__BROKERS", "[x, y]"),
            ("FOREBAY__DESTINATIONS__LAKE__LINGER", "1s"),
            ("FOREBAY__DESTINATIONS__MY_REST__BATCH__RECORDS", "3"),
            ("FOREBAY__SOURCES__SHOP__PORT", "5432"),
            ("FOREBAY_LOG", "debug"),
        ],
    );
    assert_eq!(settings.name, "edge-1");
    assert_eq!(settings.limits.memory, Some(ByteSize::mib(64)));
    assert_eq!(settings.destinations[0].own.0, json!({"brokers": ["x", "y"], "linger": "1s"}));
    assert_eq!(settings.destinations[1].batch.records.get(), 3);
    assert_eq!(settings.sources[0].own.0["port"], 5432);
}

#[test]
fn an_override_that_is_text_keeps_every_character() {
    for (value, kept) in [
        ("12345", "12345"),
        ("a # b", "a # b"),
        ("a: b", "a: b"),
        ("[a", "[a"),
        ("${HOME}", "${HOME}"),
        ("'quoted # 1'", "quoted # 1"),
    ] {
        assert_eq!(good(&with(""), &[("FOREBAY__NAME", value)]).name, kept);
    }
}

#[test]
fn an_override_makes_a_missing_variable_unneeded() {
    let text = with("    linger: ${LINGER}\n");
    let settings = good(&text, &[("FOREBAY__DESTINATIONS__LAKE__LINGER", "2s")]);
    assert_eq!(settings.destinations[0].own.0["linger"], "2s");
}

#[test]
fn an_override_of_the_type_decides_which_keys_there_are() {
    let text = "sources: {shop: {type: spring, url: 'spring://a', tables: []}}\ndestinations: {lake: {type: sink}}\n";
    let pairs =
        [("FOREBAY__DESTINATIONS__LAKE__BROKERS", "[b]"), ("FOREBAY__DESTINATIONS__LAKE__TYPE", "lake")];
    assert_eq!(good(text, &pairs).destinations[0].kind, "lake");
}

#[test]
fn offline_lists_what_is_missing_and_refuses_only_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.yaml");
    fs::write(
        &path,
        with("    required: ${REQUIRED}\n    linger: ${LINGER}\n    options: {a: \"${file:/no/such}\"}\n"),
    )
    .unwrap();
    let missing = check_offline(&path, &registry(), &environment(&[("REQUIRED", "true")])).unwrap();
    let names: Vec<(&str, &str, usize, usize)> = missing
        .iter()
        .map(|missing| (missing.name.as_str(), missing.option.as_str(), missing.line, missing.column))
        .collect();
    assert_eq!(
        names,
        [
            ("LINGER", "destinations.lake.linger", 8, 13),
            ("file:/no/such", "destinations.lake.options.a", 9, 18)
        ]
    );
    fs::write(&path, with("    required: ${REQUIRED}\n    colour: blue\n")).unwrap();
    let error = check_offline(&path, &registry(), &environment(&[])).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{}", error.render(false));
}

#[test]
fn no_secret_is_in_any_message() {
    let secret = "hunter2-and-more";
    let pairs = [("SECRET", secret)];
    for lines in [
        "    format: ${SECRET}\n",
        "    linger: ${SECRET}\n",
        "    topic: \"{${SECRET}}\"\n",
        "    partitions: ${SECRET}\n",
        "    where: {source: [\"${SECRET}\"], op: [\"${SECRET}\"]}\n",
        "    sasl: {mechanism: \"${SECRET}\"}\n",
        "    type: ${SECRET}\n",
        "admin: {listen: \"${SECRET}\"}\n",
        "    batch: {records: \"${SECRET}\"}\n",
    ] {
        let text = with(lines).replace("    type: lake\n    brokers: [b]\n    type", "    type");
        let shown = bad(&text, &pairs);
        assert!(!shown.contains(secret), "{shown}");
    }
    let url =
        "sources: {shop: {type: spring, url: \"${SECRET}\", tables: []}}\ndestinations: {x: {type: sink}}\n";
    assert!(!bad(url, &pairs).contains(secret));
    for name in
        ["FOREBAY__SOURCES__SHOP__URL", "FOREBAY__ADMIN__LISTEN", "FOREBAY__DESTINATIONS__LAKE__FORMAT"]
    {
        let shown = bad(&with(""), &[(name, secret)]);
        assert!(shown.contains(name) && !shown.contains(secret), "{shown}");
    }
    assert!(!format!("{:?}", good(&with("    options: {a: \"${SECRET}\"}\n"), &pairs)).contains(secret));
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.yaml");
    let message =
        |path: &Path| load(path, &registry(), &environment(&[])).unwrap_err().problems[0].message.clone();
    assert_eq!(message(&path), "reading the configuration failed: No such file or directory (os error 2)");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(message(&path), "the file is not UTF-8");
    fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert_eq!(message(&path), "the file is larger than 1MiB");
    fs::write(&path, format!("\u{feff}{}", with(""))).unwrap();
    load(&path, &registry(), &environment(&[])).unwrap();
}

#[test]
fn columns_count_characters_and_spans_count_bytes() {
    let error = read("f", &with("    options: {ä: b, ö: 1}\n"), &registry(), &environment(&[])).unwrap_err();
    let span = error.problems[0].span.clone().unwrap();
    assert_eq!(&error.text[span], "1");
    assert!(error.render(false).contains("f:7:24"), "{}", error.render(false));
}

#[test]
fn nesting_and_aliases_without_end_are_refused() {
    let deep = format!("a: {}1", "- ".repeat(100_000));
    assert!(bad(&deep.replace("a: ", "a:\n "), &[]).contains("nested deeper than 32"));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    assert!(bad(&bomb, &[]).contains("more than 100000 values"));
}

#[test]
fn the_schema_is_a_schema_and_describes_every_key() {
    let schema = schema(&registry());
    jsonschema::meta::validate(&schema).unwrap();
    let mut silent = Vec::new();
    undescribed("", &schema, &mut silent);
    assert_eq!(silent, Vec::<String>::new());
}

/// Properties without a description.
fn undescribed(path: &str, schema: &Value, out: &mut Vec<String>) {
    let Value::Object(map) = schema else { return };
    for (key, value) in map {
        let here = format!("{path}/{key}");
        if let (true, Some(properties)) = (key == "properties", value.as_object()) {
            for (name, property) in properties {
                let is_tag = property.get("const").is_some();
                if !is_tag && property.get("description").is_none() && !path.contains("Sasl") {
                    out.push(format!("{here}/{name}"));
                }
                undescribed(&format!("{here}/{name}"), property, out);
            }
        } else {
            undescribed(&here, value, out);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(48))]

    #[test]
    fn whatever_a_file_holds_it_is_answered(at in 0_usize..400, cut in 0_usize..40, new in "[a-zä0-9 :\\-{}\\[\\]$&*!|>\"'#\n~./,]{0,12}") {
        let text = fs::read_to_string(testdata().join("many_at_once.yaml")).unwrap();
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.min(characters.len());
        let end = (at + cut).min(characters.len());
        characters.splice(at..end, new.chars());
        let text: String = characters.into_iter().collect();
        if let Err(error) = read("forebay.yaml", &text, &registry(), &environment(&[])) {
            proptest::prop_assert!(!error.problems.is_empty());
            error.render(true);
        }
    }
}
