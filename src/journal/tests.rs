use proptest::prelude::*;

use super::*;
use crate::unit::Country;

fn record(at_ms: u64) -> UsageRecord {
    UsageRecord {
        at_ms,
        decision: Some(crate::id::DecisionId(at_ms)),
        trace: crate::trace::TraceId([0x0a; 16]),
        node: "fra-1".parse().unwrap(),
        door: "apps",
        method: "POST".into(),
        route: "/apps/{*rest}".into(),
        status: 200,
        capability: Some("live/echo".into()),
        orchestrator: None,
        region: None,
        home: "FRA".parse().unwrap(),
        country: Country::parse("DE"),
        attempts: 1,
        bytes_up: 3,
        bytes_down: 5,
        ttfb_us: 7,
        duration_us: 9,
        end: "whole",
        session: "session_1".parse().ok(),
    }
}

/// Writes records numbered by `at`, and closes.
async fn fill(path: &Path, at: std::ops::Range<u64>) {
    let journal = Journal::open(path, 1024).unwrap();
    for it in at {
        journal.admit().unwrap().write(Entry::of(&record(it)));
    }
    assert!(journal.close().await);
}

fn numbers(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(&line[9..]).unwrap();
    text.lines().map(|line| json(line)["at_ms"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn what_was_admitted_is_on_disk_in_order_after_close() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep/er/usage.log");
    fill(&path, 0..600).await;
    fill(&path, 600..700).await;
    assert_eq!(numbers(&path), (0..700).collect::<Vec<_>>());
    assert_eq!(verify(&path).unwrap(), Count { records: 700, torn_bytes: 0 });
}

#[tokio::test]
async fn a_line_holds_each_field_by_name() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("usage.log");
    fill(&path, 1..2).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text[9..]).unwrap();
    assert_eq!(line["decision"], "0000000000000001");
    assert_eq!(line["home"], "FRA");
    assert_eq!(line["country"], "DE");
    assert_eq!(line["capability"], "live/echo");
    assert_eq!(line["orchestrator"], serde_json::Value::Null);
    assert_eq!(line["session"], "session_1");
    assert_eq!(line.as_object().unwrap().len(), 20);
}

#[tokio::test]
async fn a_torn_line_is_cut_off_and_the_next_begins_afresh() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("usage.log");
    fill(&path, 0..3).await;
    let whole = std::fs::read(&path).unwrap();
    for torn in [whole.len() - 1, whole.len() - 40] {
        std::fs::write(&path, &whole[..torn]).unwrap();
        let count = verify(&path).unwrap();
        assert_eq!(count.records, 2);
        assert!(count.torn_bytes > 0);
        fill(&path, 9..10).await;
        assert_eq!(numbers(&path), [0, 1, 9]);
        assert_eq!(verify(&path).unwrap(), Count { records: 3, torn_bytes: 0 });
    }
    // Nothing but a torn line, longer than what is read at once.
    std::fs::write(&path, "x".repeat(10_000)).unwrap();
    fill(&path, 4..5).await;
    assert_eq!(numbers(&path), [4]);
}

#[tokio::test]
async fn any_flipped_bit_is_found() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("usage.log");
    fill(&path, 0..3).await;
    let whole = std::fs::read(&path).unwrap();
    // The very last newline apart: without it the line counts as torn.
    let damage = (0..whole.len() - 1, 0_u8..8);
    proptest!(|((at, bit) in damage)| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        let found = matches!(verify(&path), Err(JournalError::Damaged { line: 1..=3, .. }));
        prop_assert!(found, "bit {} of byte {}", bit, at);
    });
}

#[tokio::test]
async fn a_full_journal_refuses_and_a_slot_given_back_admits() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(&home.path().join("usage.log"), 2).unwrap();
    let (one, two) = (journal.admit().unwrap(), journal.admit().unwrap());
    assert!(journal.admit().is_none());
    drop(one);
    assert!(journal.admit().is_some());
    two.write(Entry::of(&record(1)));
    assert!(journal.close().await);
    assert!(journal.admit().is_none());
}

#[tokio::test]
async fn a_slot_given_before_the_end_still_writes() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("usage.log");
    let journal = Journal::open(&path, 2).unwrap();
    let late = journal.admit().unwrap();
    let write = async {
        while journal.admit().is_some() {
            tokio::task::yield_now().await;
        }
        late.write(Entry::of(&record(7)));
    };
    let (closed, ()) = tokio::join!(journal.close(), write);
    assert!(closed);
    assert_eq!(numbers(&path), [7]);
}

#[tokio::test]
async fn two_writers_of_one_file_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("usage.log");
    let journal = Journal::open(&path, 2).unwrap();
    assert!(matches!(Journal::open(&path, 2), Err(JournalError::Taken(_))));
    assert!(journal.close().await);
    assert!(Journal::open(&path, 2).is_ok());
}

#[tokio::test]
async fn texts_from_outside_are_clipped_and_still_metered() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("usage.log");
    let journal = Journal::open(&path, 2).unwrap();
    let worst = "\u{1}".repeat(100_000);
    let long = UsageRecord {
        method: worst.clone().into(),
        route: format!("x{}", "ä".repeat(1000)).into(),
        capability: Some(worst.into()),
        ..record(1)
    };
    journal.admit().unwrap().write(Entry::of(&long));
    assert!(journal.close().await);
    assert!(std::fs::metadata(&path).unwrap().len() <= LINE_MAX as u64);
    assert_eq!(verify(&path).unwrap().records, 1);
}

#[tokio::test]
async fn a_disk_that_is_full_stops_nothing() {
    let path = Path::new("/dev/full");
    if !path.exists() {
        return;
    }
    let journal = Journal::open(path, 4).unwrap();
    journal.admit().unwrap().write(Entry::of(&record(1)));
    journal.admit().unwrap().write(Entry::of(&record(2)));
    assert!(journal.close().await);
}

#[tokio::test]
async fn a_disabled_journal_admits_and_keeps_nothing() {
    let journal = Journal::disabled();
    journal.admit().unwrap().write(Entry::of(&record(1)));
    assert!(journal.close().await);
    assert!(journal.admit().is_some());
}

#[test]
fn a_path_that_cannot_be_is_refused_with_its_name() {
    let home = tempfile::tempdir().unwrap();
    let error = Journal::open(home.path(), 1).unwrap_err();
    assert!(error.to_string().contains(home.path().to_str().unwrap()), "{error}");
}
