//! [`Path`]: which field a rule is about, as a small part of JSONPath: `$.payload.user.email`, `$.payload.items[*].ip`,
//! `$.payload['card number']`, `$.contexts[*].data.email`.

use std::str::FromStr;

/// A field below the payload or below each entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub(super) root: Root,
    pub(super) steps: Vec<Step>,
}

/// What a path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Payload,
    Contexts,
}

/// From a value to one inside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Member(String),
    EveryElement,
}

/// Steps of one path at most.
const MAX_STEPS: usize = 32;

/// A text that is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a path such as `$.payload.user.email`, `$.payload.items[*].ip` or `$.contexts[*].data.email`"
)]
pub struct NotAPath(String);

impl FromStr for Path {
    type Err = NotAPath;

    fn from_str(text: &str) -> Result<Path, NotAPath> {
        let refused = || NotAPath(text.to_owned());
        let steps = steps(text.strip_prefix('$').ok_or_else(refused)?).ok_or_else(refused)?;
        let member = |name: &str| Step::Member(name.to_owned());
        let (root, steps) = match &steps[..] {
            [first, rest @ ..] if *first == member("payload") && !rest.is_empty() => (Root::Payload, rest),
            [first, Step::EveryElement, rest @ ..] if *first == member("contexts") && !rest.is_empty() => {
                (Root::Contexts, rest)
            }
            _ => return Err(refused()),
        };
        if steps.len() > MAX_STEPS {
            return Err(refused());
        }
        Ok(Path { root, steps: steps.to_vec() })
    }
}

fn steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[*]") {
            steps.push(Step::EveryElement);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("['") {
            let (name, after) = after.split_once("']")?;
            steps.push(Step::Member(name.to_owned()));
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let name = &after[..end];
            if name.is_empty() || name.contains(['*', ']', '\'', '"', ' ']) {
                return None;
            }
            steps.push(Step::Member(name.to_owned()));
            rest = &after[end..];
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_nothing_else_is() {
        let path: Path = "$.payload.items[*]['card number']".parse().unwrap();
        assert_eq!(path.root, Root::Payload);
        let member = |name: &str| Step::Member(name.to_owned());
        assert_eq!(path.steps, [member("items"), Step::EveryElement, member("card number")]);
        assert_eq!("$.contexts[*].data.ip".parse::<Path>().unwrap().root, Root::Contexts);
        for wrong in [
            "",
            "$",
            "payload.a",
            "$.payload",
            "$.key.a",
            "$.contexts.a",
            "$.contexts[*]",
            "$.payload..a",
            "$.payload.*",
            "$.payload[0]",
            "$.payload['a",
        ] {
            assert!(wrong.parse::<Path>().is_err(), "{wrong}");
        }
    }
}
