//! The style of this house as a test: which way imports point, and what no file holds.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/lib.rs`, lowest first. A module names only modules of rows above its
/// own in this table; modules of one row do not name each other.
const LAYERS: &[&[&str]] = &[
    // 0  words
    &["text", "unit", "uri"],
    &["id"],
    // 1  domain
    &["address", "geo"],
    &["region", "score"],
    &["view"],
    &["policy"],
    // 2  protocols: codecs, then machines
    &[
        "ca",
        "forwarded",
        "health",
        "http1",
        "livepeer",
        "operator",
        "orders",
        "ticket",
        "trace",
        "wire",
    ],
    &["directory", "legs", "retry", "session", "suspension"],
    &["mesh"],
    &["orchestrator"],
    // 3  I/O
    &["clock", "socket"],
    &["geoip", "journal", "listen", "net", "upstream"],
    &["enroll"],
    // 4  actors
    &["actors"],
    // 5  edges
    &["devorch", "edge"],
    // 6  assembly
    &["telemetry"],
    &["config"],
    &["app"],
    &["demo"],
    &["cli"],
];

/// The first module that may touch the world.
const FIRST_IMPURE: &str = "clock";

/// What the layers below it do without.
const IMPURE: &[&str] =
    &["tokio", "quinn", "ractor", "rustls", "std::fs", "Instant::now", "SystemTime"];

/// Where chance comes from; a generator handed its seed is as pure as any function.
const CHANCE: &[&str] = &["rand::rng(", "rand::rng;", "rand::random", "rand::make_rng"];

/// What stands nowhere; written in halves, for this file is read too.
const NOWHERE: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("dbg", "!("), concat!("#[", "allow(")];

const LINES_MAX: usize = 600;

#[test]
fn the_source_keeps_the_rules_of_the_house() {
    let mut found = Vec::new();
    for path in files("src", "rs") {
        found.extend(breaches_in_source(&path, &fs::read_to_string(&path).unwrap()));
    }
    for path in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        found.extend(breaches_anywhere(&path, &fs::read_to_string(&path).unwrap()));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_region_file_is_named_after_its_code() {
    let paths = files("regions", "toml");
    assert!(!paths.is_empty());
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let region: toml::Table = text.parse().unwrap();
        assert_eq!(region["code"].as_str(), path.file_stem().unwrap().to_str(), "{path:?}");
    }
}

#[test]
fn each_rule_finds_what_it_forbids() {
    for (path, line) in [
        ("src/geo.rs", "use crate::view::Row;"),
        ("src/geo/arc.rs", "let row = crate::view::Row::new();"),
        ("src/geo.rs", "use crate::region::RegionMap;"),
        ("src/geo.rs", "use crate::nowhere::Thing;"),
        ("src/cli.rs", "use crate::{config, app};"),
        ("src/nowhere.rs", ""),
        ("src/mesh.rs", "use super::wire;"),
        ("src/mesh/peer.rs", "use super::super::wire;"),
        ("src/mesh/peer.rs", "let now = Instant::now();"),
        ("src/view.rs", "use tokio::sync::watch;"),
        ("src/mesh.rs", "let word = rand::rng().next_u64();"),
        ("src/net.rs", "bincode::encode_to_vec(it)"),
    ] {
        let text = format!("//! What it owns.\n{line}\n");
        assert_eq!(breaches_in_source(Path::new(path), &text).len(), 1, "{path}: {line}");
    }
    assert_eq!(breaches_in_source(Path::new("src/geo.rs"), "use std::fmt;\n").len(), 1);
    let long = "\n".repeat(LINES_MAX + 1);
    assert_eq!(breaches_anywhere(Path::new("src/geo.rs"), &long).len(), 1);
    for word in NOWHERE {
        assert_eq!(breaches_anywhere(Path::new("tests/it/x.rs"), word).len(), 1, "{word}");
    }
}

#[test]
fn what_is_allowed_passes() {
    for (path, line) in [
        ("src/view.rs", "use crate::geo::Point;"),
        ("src/view/row.rs", "use crate::view::Slot;"),
        ("src/view/row.rs", "use super::Slot;"),
        ("src/mesh.rs", "// tokio and crate::cli stand in a comment only"),
        ("src/mesh.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::clock;"),
        ("src/net.rs", "use tokio::net::UdpSocket;"),
        ("src/mesh.rs", "use rand::rngs::StdRng;"),
        ("src/wire/v1.rs", "use bincode::Encode;"),
    ] {
        let text = format!("//! What it owns.\n{line}\n");
        assert_eq!(breaches_in_source(Path::new(path), &text), [""; 0], "{path}: {line}");
    }
}

/// What `text`, the file at `path` below `src`, does against layers and purity.
fn breaches_in_source(path: &Path, text: &str) -> Vec<String> {
    let parts: Vec<&str> = path.iter().skip(1).map(|part| part.to_str().unwrap()).collect();
    let module = parts[0].trim_end_matches(".rs");
    if ["lib", "main"].contains(&module) || parts[1..].iter().any(|it| is_test(it)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut breach = |what: String| found.push(format!("{}: {what}", path.display()));
    if !text.starts_with("//!") {
        breach("does not begin with the sentence that says what it owns".into());
    }
    let Some(rank) = rank_of(module) else {
        breach(format!("{module} is missing from the table of layers"));
        return found;
    };
    let pure = rank < rank_of(FIRST_IMPURE).unwrap();
    for line in code(text) {
        for named in line.split("crate::").skip(1) {
            let name: String =
                named.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
            if named.starts_with('{') {
                breach(format!("several modules in one path: {line}"));
            } else if name != module && rank_of(&name).is_none_or(|other| other >= rank) {
                breach(format!("{module} may not name {name}: {line}"));
            }
        }
        if line.contains("super::super") || (parts.len() == 1 && line.contains("super::")) {
            breach(format!("say crate:: instead: {line}"));
        }
        let impure = IMPURE.iter().chain(CHANCE).find(|word| line.contains(**word));
        if pure && let Some(word) = impure {
            breach(format!("{module} is pure and may not name {word}: {line}"));
        }
        if module != "wire" && line.contains("bincode") {
            breach(format!("only wire names bincode: {line}"));
        }
    }
    found
}

/// What `text`, the file at `path`, holds that stands nowhere.
fn breaches_anywhere(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let n_lines = text.lines().count();
    if n_lines > LINES_MAX {
        found.push(format!("{}: {n_lines} lines, {LINES_MAX} at most", path.display()));
    }
    for word in NOWHERE.iter().filter(|word| text.contains(**word)) {
        found.push(format!("{}: {word} stands nowhere", path.display()));
    }
    found
}

/// Returns the lines of `text` above its tests, comments left out.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim).take_while(|line| *line != "#[cfg(test)]");
    lines.filter(|line| !line.starts_with("//"))
}

fn is_test(part: &str) -> bool {
    part == "tests" || part == "tests.rs"
}

fn rank_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Returns the files below `directory` whose names end in `.extension`, in order, by paths
/// relative to the package.
fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut left = vec![home.join(directory)];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path.strip_prefix(home).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
