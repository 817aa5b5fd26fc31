use super::*;

fn fatal(blame: Blame) -> Failure {
    Fault::fatal("trying", blame, "it failed").into()
}

#[test]
fn every_ending_has_its_exit_code() {
    let refused = crate::config::load(
        std::path::Path::new("/nonexistent.yaml"),
        &crate::connectors::registry(),
        &crate::config::Environment::default(),
    );
    let codes = [
        (Ok(Finished::Drained), 0),
        (Ok(Finished::WorkLeft), 75),
        (Err(refused.unwrap_err().into()), 78),
        (Err(fatal(Blame::Configuration)), 78),
        (Err(Failure::Found(Blame::Configuration)), 78),
        (Err(fatal(Blame::Outside)), 69),
        (Err(Failure::Found(Blame::Outside)), 69),
        (Err(Fault::retryable("trying", "not now").into()), 69),
        (Err(fatal(Blame::Defect)), 1),
    ];
    for (ended, code) in codes {
        assert_eq!(exit_code(&ended), code, "{ended:?}");
    }
}

#[test]
fn the_arguments_contradict_nothing() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_teaches_with_an_example() {
    for command in Cli::command().get_subcommands() {
        if command.get_name() == "list" {
            continue; // it has no arguments
        }
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example = format!("forebay {}", command.get_name());
        assert!(examples.contains(&example), "`{example}` shows no example");
    }
}

#[test]
fn the_envelope_schema_is_a_schema_and_pretty() {
    let schema: serde_json::Value = serde_json::from_str(crate::schemas::ENVELOPE).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    assert_eq!(crate::schemas::ENVELOPE, format!("{schema:#}\n"));
    let schema: serde_json::Value = serde_json::from_str(crate::schemas::DEAD_LETTER).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    assert_eq!(crate::schemas::DEAD_LETTER, format!("{schema:#}\n"));
}
