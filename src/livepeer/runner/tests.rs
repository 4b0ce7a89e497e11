use super::*;

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/livepeer/", $name, ".json"))
    };
}

fn list(runner: &str) -> Discovery {
    let body = format!(r#"[{{"address":"https://a:1","runners":[{runner}]}}]"#);
    parse_discovery(body.as_bytes()).unwrap()
}

#[test]
fn a_recorded_discovery_reads_whole() {
    let found = parse_discovery(recorded!("runner_discovery_offchain")).unwrap();
    assert_eq!((found.dropped_entries, found.dropped_runners), (0, 0));
    let runners = &found.entries[0].runners;
    assert_eq!((runners[0].app.as_str(), runners[0].mode), ("demo/echo", Mode::Persistent));
    assert_eq!((runners[1].app.as_str(), runners[1].mode), ("demo/once", Mode::SingleShot));
    assert_eq!(runners[0].capacity_available, 2);
    assert!(runners[0].price().is_none());
}

#[test]
fn a_recorded_remote_discovery_keeps_its_price_text() {
    let found = parse_discovery(recorded!("discover_orchestrators_response")).unwrap();
    let entry = &found.entries[0];
    assert_eq!(entry.capabilities, ["live-video-to-video/noop", "demo/echo"]);
    let price = entry.runners[0].price().unwrap();
    assert_eq!((price.wei, price.unit), (1200, PriceUnit::Seconds));
    let raw = entry.runners[0].price_info.as_ref().unwrap().get();
    assert!(serde_json::to_string(entry).unwrap().contains(raw));
}

#[test]
fn a_recorded_webhook_list_gives_addresses_and_scores() {
    let found = parse_webhook(recorded!("orch_webhook_response")).unwrap();
    let scores: Vec<_> = found.entries.iter().map(|it| it.score).collect();
    assert_eq!(scores, [Some(1.0), None]);
    assert_eq!(found.entries[1].address.as_str(), "https://127.0.0.2:8935");
}

#[test]
fn a_reservation_and_a_challenge_read_back() {
    let answer: ReserveAnswer = parse_answer(recorded!("runner_reserve_response")).unwrap();
    assert_eq!(answer.session_id, "session_abcdefgh");
    let challenge: Challenge = parse_answer(recorded!("runner_402_challenge")).unwrap();
    assert_eq!(challenge.manifest_id, "8fa2c1d0");
    let long = vec![b' '; MAX_ANSWER + 1];
    assert!(parse_answer::<Challenge>(&long).is_none());
}

#[test]
fn a_bad_row_costs_itself_alone() {
    let body = br#"[1, {"address":"ftp://x"}, {"address":"https://a:1","unknown":{}},
        {"address":"https://b:1","runners":[{"url":"x"}, 7, null]}]"#;
    let found = parse_discovery(body).unwrap();
    let addresses: Vec<_> = found.entries.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(addresses, ["https://a:1", "https://b:1"]);
    assert_eq!((found.dropped_entries, found.dropped_runners), (2, 3));
}

#[test]
fn an_empty_list_may_be_null() {
    assert!(parse_discovery(b"null").unwrap().entries.is_empty());
    assert!(parse_discovery(b"[]").unwrap().entries.is_empty());
    assert_eq!(parse_discovery(b"{}").unwrap_err(), BadDiscovery::NotAList);
    assert_eq!(parse_discovery(b"").unwrap_err(), BadDiscovery::NotAList);
}

#[test]
fn lists_are_bounded_in_length_and_number() {
    let long = vec![b' '; MAX_BODY + 1];
    assert_eq!(parse_discovery(&long).unwrap_err(), BadDiscovery::TooLong);
    let rows = vec![r#"{"address":"https://a:1"}"#; MAX_ENTRIES + 1].join(",");
    let found = parse_discovery(format!("[{rows}]").as_bytes()).unwrap();
    assert_eq!((found.entries.len(), found.dropped_entries), (MAX_ENTRIES, 1));
    let runner = r#"{"url":"https://a:1/apps/x/app","app":"x","mode":"single-shot"}"#;
    let found = list(&vec![runner; MAX_RUNNERS + 1].join(","));
    assert_eq!((found.entries[0].runners.len(), found.dropped_runners), (MAX_RUNNERS, 1));
}

#[test]
fn a_runner_with_an_overlong_or_unsafe_text_is_dropped() {
    let runner = |url: &str, app: &str, more: &str| {
        let row = format!(r#"{{"url":"{url}","app":"{app}","mode":"persistent"{more}}}"#);
        list(&row).dropped_runners
    };
    let url = "https://a:1/apps/x/session";
    assert_eq!(runner(url, "x", ""), 0);
    assert_eq!(runner("/apps/x/session", "x", ""), 1);
    assert_eq!(runner(url, "", ""), 1);
    assert_eq!(runner(url, &"x".repeat(MAX_TEXT), ""), 0);
    assert_eq!(runner(url, &"x".repeat(MAX_TEXT + 1), ""), 1);
    assert_eq!(runner(url, r"x\n", ""), 1);
    let metadata = |n: usize| format!(r#","metadata":"{}""#, "m".repeat(n));
    assert_eq!(runner(url, "x", &metadata(MAX_METADATA)), 0);
    assert_eq!(runner(url, "x", &metadata(MAX_METADATA + 1)), 1);
}

#[test]
fn the_region_is_read_from_metadata_that_is_a_json_object() {
    let region = |metadata: &str| {
        let text = serde_json::Value::from(metadata);
        let row =
            format!(r#"{{"url":"http://a/x","app":"x","mode":"single-shot","metadata":{text}}}"#);
        list(&row).entries[0].runners[0].region()
    };
    assert_eq!(region(r#"{"region":"FRA","deployment":1}"#).as_deref(), Some("FRA"));
    assert_eq!(region("FRA"), None);
    assert_eq!(region(r#"{"region":7}"#), None);
}

proptest::proptest! {
    #[test]
    fn no_body_makes_the_parser_panic(bytes: Vec<u8>) {
        drop(parse_discovery(&bytes));
        drop(parse_answer::<Challenge>(&bytes));
    }

    #[test]
    fn no_row_makes_the_parser_panic(key in "[a-z_]{1,12}", value in "[\"0-9a-z{}\\[\\]:,.-]{0,20}") {
        let row = format!(r#"{{"url":"https://a/x","app":"x","mode":"persistent","{key}":{value}}}"#);
        let body = format!(r#"[{{"address":"https://a:1","runners":[{row}]}}]"#);
        drop(parse_discovery(body.as_bytes()));
    }
}
