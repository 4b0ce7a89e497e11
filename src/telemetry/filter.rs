//! What is logged: `PORTOLAN_LOG`, read strictly.
//!
//! The filter's own reader takes any word for the name of a target, so that a misspelt level
//! would silence everything, warnings too.

use std::env::{self, VarError};

use tracing_subscriber::EnvFilter;

/// Why `PORTOLAN_LOG` is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{VARIABLE}: not LEVEL or TARGET=LEVEL: {}; write a level ({}), and others for targets \
     after it, such as info,portolan::mesh=debug,access=off",
    .0.join(" and "), LEVELS.join(", ")
)]
pub struct BadFilter(Vec<String>);

/// Reads the filter of this process; `info` while there is none.
pub fn filter() -> Result<EnvFilter, BadFilter> {
    match env::var(VARIABLE) {
        Ok(text) => read(&text),
        Err(VarError::NotPresent) => read(""),
        Err(VarError::NotUnicode(text)) => Err(BadFilter(vec![format!("{text:?}")])),
    }
}

fn read(text: &str) -> Result<EnvFilter, BadFilter> {
    let parts = || text.split(',').map(str::trim).filter(|it| !it.is_empty());
    let bad = |it: &&str| match it.split_once('=') {
        Some((target, level)) => !is_target(target) || !is_level(level),
        None => !is_level(it),
    };
    let bad: Vec<String> = parts().filter(bad).map(|it| format!("{it:?}")).collect();
    if !bad.is_empty() {
        return Err(BadFilter(bad));
    }
    let said = parts().collect::<Vec<_>>().join(",");
    let said = if said.is_empty() { "info".to_owned() } else { said };
    EnvFilter::builder().parse(&said).map_err(|_unread| BadFilter(vec![format!("{said:?}")]))
}

fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|it| it.eq_ignore_ascii_case(text))
}

/// Paths of modules, and names such as `access`.
fn is_target(text: &str) -> bool {
    let legal = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | ':' | '-' | '.');
    !text.is_empty() && text.chars().all(legal)
}

const VARIABLE: &str = "PORTOLAN_LOG";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, filter: &str) {
        assert_eq!(read(text).unwrap().to_string(), filter, "{text}");
    }

    #[track_caller]
    fn refused(text: &str, parts: &[&str]) {
        let said = read(text).unwrap_err().to_string();
        for part in parts {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
    }

    #[test]
    fn levels_and_targets_with_levels_are_taken() {
        check("", "info");
        check(" , ", "info");
        check("WARN", "warn");
        check("off", "off");
        check("info,", "info");
        check("info, access=off", "access=off,info");
        check("warn,portolan::mesh=debug", "portolan::mesh=debug,warn");
    }

    #[test]
    fn anything_else_is_named_with_what_is_allowed() {
        refused("inof", &["PORTOLAN_LOG", "\"inof\"", "error, warn, info", "access=off"]);
        refused("info,=,access=loud", &["\"=\" and \"access=loud\""]);
        refused("portolan::mesh", &["\"portolan::mesh\""]);
        refused("info,=debug", &["\"=debug\""]);
        refused("a b=info", &["\"a b=info\""]);
        refused("info,access=", &["\"access=\""]);
    }
}
