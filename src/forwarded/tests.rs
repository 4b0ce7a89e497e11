use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Trusts the proxies of 10/8 and fd00::/8.
fn trusted(written: Written) -> TrustedProxies {
    let blocks = ["10.0.0.0/8", "fd00::/8"].map(|it| it.parse().unwrap()).to_vec();
    TrustedProxies::new(blocks, written).unwrap()
}

fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
    lines.iter().map(|it| (name.parse().unwrap(), HeaderValue::from_str(it).unwrap())).collect()
}

fn expect(derived: Derivation, expected: Result<&str, Option<Ignored>>) -> ClientAddress {
    match expected {
        Ok(text) => ClientAddress { ip: ip(text), derived, ignored: None },
        Err(ignored) => ClientAddress { ip: ip("10.0.0.9"), derived: Derivation::Peer, ignored },
    }
}

/// What a trusted peer's `X-Forwarded-For` lines lead to.
#[track_caller]
fn check(lines: &[&str], expected: Result<&str, Option<Ignored>>) {
    let headers = headers("x-forwarded-for", lines);
    let found = client_address(ip("10.0.0.9"), &headers, &trusted(Written::XForwardedFor));
    let expected = expect(Derivation::XForwardedFor, expected);
    assert!(found == expected, "{lines:?}: {found:?} {}", found.ip);
}

/// What a trusted peer's `Forwarded` lines lead to.
#[track_caller]
fn check_rfc7239(lines: &[&str], expected: Result<&str, Option<Ignored>>) {
    let headers = headers("forwarded", lines);
    let found = client_address(ip("10.0.0.9"), &headers, &trusted(Written::Forwarded));
    let expected = expect(Derivation::Forwarded, expected);
    assert!(found == expected, "{lines:?}: {found:?} {}", found.ip);
}

#[test]
fn the_client_is_the_first_untrusted_hop_from_the_right() {
    check(&["203.0.113.5, 70.41.3.18, 150.172.238.178"], Ok("150.172.238.178"));
    check(&["203.0.113.5, 70.41.3.18,10.1.1.1 , fd00::1"], Ok("70.41.3.18"));
    check(&["203.0.113.5", "70.41.3.18, 10.1.1.1", "10.2.2.2"], Ok("70.41.3.18"));
    check(&["10.3.3.3, 10.2.2.2"], Ok("10.3.3.3"));
    check(&["garbage, \", 5.9.0.1"], Ok("5.9.0.1"));
    check(&["5.9.0.1, ,"], Ok("5.9.0.1"));
    check(&[], Err(None));
    check(&["", " , "], Err(None));
}

#[test]
fn nobody_but_a_trusted_peer_is_believed() {
    let headers = headers("x-forwarded-for", &["5.9.0.1"]);
    for (peer, ignored) in [("8.8.4.4", Some(Ignored::Untrusted)), ("::ffff:10.0.0.9", None)] {
        let found = client_address(ip(peer), &headers, &trusted(Written::XForwardedFor));
        assert_eq!(found.ignored, ignored);
    }
    let found = client_address(ip("::ffff:10.0.0.9"), &headers, &TrustedProxies::none());
    assert!(found.ip == ip("10.0.0.9") && found.ignored == Some(Ignored::Untrusted));
    let found = client_address(ip("8.8.4.4"), &HeaderMap::new(), &TrustedProxies::none());
    assert_eq!(found.ignored, None);
}

#[test]
fn the_header_the_proxies_do_not_write_is_the_clients_and_is_not_read() {
    let mut both = headers("x-forwarded-for", &["5.9.0.1"]);
    both.extend(headers("forwarded", &["for=192.0.2.1"]));
    for (written, expected) in
        [(Written::XForwardedFor, "5.9.0.1"), (Written::Forwarded, "192.0.2.1")]
    {
        assert!(client_address(ip("10.0.0.9"), &both, &trusted(written)).ip == ip(expected));
    }
}

#[test]
fn ports_brackets_quotes_and_zones_are_taken_off() {
    check(&["8.8.8.8:443"], Ok("8.8.8.8"));
    check(&["[2001:db8::1]:4711"], Ok("2001:db8::1"));
    check(&["2001:db8::1"], Ok("2001:db8::1"));
    check(&["\"[2001:db8::1]\""], Ok("2001:db8::1"));
    check(&["fe80::1%eth0"], Ok("fe80::1"));
    check(&["::ffff:5.9.0.1"], Ok("5.9.0.1"));
    check_rfc7239(&["for=\"[2001:db8:cafe::17]:4711\""], Ok("2001:db8:cafe::17"));
    check_rfc7239(&["For=192.0.2.43;proto=http;by=203.0.113.43"], Ok("192.0.2.43"));
    check_rfc7239(&["for=1.1.1.1, for=192.0.2.43:47011 ; by=\"a,b;c\""], Ok("192.0.2.43"));
    check_rfc7239(&["for=192.0.2.43, for=\"10.0.0.1:_hidden\""], Ok("192.0.2.43"));
}

#[test]
fn what_is_not_an_address_ends_the_walk() {
    for bad in [
        "not-an-ip",
        "010.0.0.1",
        "167772161",
        "0x7f000001",
        "1.2.3",
        "1.2.3.4:",
        "1.2.3.4:x",
        "1.2.3.4:999999",
        "[::1",
        "[::1]x",
        "[1.2.3.4]",
        "\"1.2.3.4",
        "203.0.113.0/24",
        "1.2.3.4%e",
    ] {
        check(&[&format!("5.9.0.1, {bad}")], Err(Some(Ignored::Malformed)));
        check(&[&format!("{bad}, 5.9.0.1")], Ok("5.9.0.1"));
    }
    let mut raw = HeaderMap::new();
    raw.insert("x-forwarded-for", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    let found = client_address(ip("10.0.0.9"), &raw, &trusted(Written::XForwardedFor));
    assert_eq!(found.ignored, Some(Ignored::Malformed));
    for bad in ["for", "for=1.2.3.4;for=5.6.7.8", "for=\"1.2.3.4", "for=", "for=x"] {
        check_rfc7239(&[bad], Err(Some(Ignored::Malformed)));
    }
}

#[test]
fn a_proxy_that_hides_its_client_leaves_the_peer() {
    for hidden in ["unknown", "Unknown", "_hidden", "\"_x\""] {
        check(&[&format!("5.9.0.1, {hidden}, 10.0.0.1")], Err(Some(Ignored::Hidden)));
        check_rfc7239(&[&format!("for={hidden}")], Err(Some(Ignored::Hidden)));
    }
    check_rfc7239(&["for=5.9.0.1, proto=https"], Err(Some(Ignored::Hidden)));
}

#[test]
fn an_open_quote_cannot_swallow_what_the_proxy_appended() {
    check_rfc7239(&["for=\"6.6.6.6, for=5.9.0.1"], Ok("5.9.0.1"));
    check_rfc7239(&["for=\"6.6.6.6", "for=5.9.0.1"], Ok("5.9.0.1"));
    check_rfc7239(&["for=6.6.6.6;x=\"\\\", for=5.9.0.1;by=\"b\""], Ok("5.9.0.1"));
}

#[test]
fn five_hundred_and_twelve_blocks_are_held_and_no_more() {
    let blocks = |n| vec!["10.0.0.0/8".parse().unwrap(); n];
    assert!(TrustedProxies::new(blocks(512), Written::Forwarded).is_ok());
    let refused = TrustedProxies::new(blocks(513), Written::Forwarded).err();
    assert_eq!(refused, Some(TooManyBlocks(513)));
}

#[test]
fn thirty_two_hops_are_walked_and_no_more() {
    let chain = |n: usize| format!("5.9.0.1{}", ", 10.0.0.1".repeat(n));
    check(&[&chain(31)], Ok("5.9.0.1"));
    check(&[&chain(32)], Err(Some(Ignored::TooLong)));
    // A long left part is the client's and changes nothing.
    check(&[&format!("{}, 5.9.0.1", "x".repeat(100_000))], Ok("5.9.0.1"));
}

#[test]
fn four_kibibytes_are_walked_and_no_more() {
    let padded = |n: usize| format!("for=5.9.0.1;x={}", "x".repeat(n - 14));
    check_rfc7239(&[&padded(TrustedProxies::BYTES_MAX)], Ok("5.9.0.1"));
    check_rfc7239(&[&padded(TrustedProxies::BYTES_MAX + 1)], Err(Some(Ignored::TooLong)));
    let empty = ",".repeat(TrustedProxies::BYTES_MAX + 1);
    check(&[&empty], Err(Some(Ignored::TooLong)));
}

#[test]
fn an_address_does_not_show_in_logs() {
    let found = client_address(ip("5.9.0.1"), &HeaderMap::new(), &TrustedProxies::none());
    let shown = format!("{found:?}");
    assert!(shown.contains("Public") && !shown.contains("5.9"), "{shown}");
}

proptest! {
    #[test]
    fn no_header_panics(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4)) {
        let values = lines.iter().filter_map(|it| HeaderValue::from_bytes(it).ok());
        let values: Vec<_> = values.collect();
        for name in ["x-forwarded-for", "forwarded"] {
            let headers: HeaderMap =
                values.iter().map(|it| (name.parse().unwrap(), it.clone())).collect();
            for written in [Written::XForwardedFor, Written::Forwarded] {
                client_address(ip("10.0.0.9"), &headers, &trusted(written));
            }
        }
    }

    #[test]
    fn what_the_client_wrote_never_changes_who_it_is(left in "[ -~]{0,60}") {
        check(&[&format!("{left}, 5.9.0.1, 10.0.0.1")], Ok("5.9.0.1"));
        check_rfc7239(&[&format!("{left}, for=5.9.0.1;by=\"x\"")], Ok("5.9.0.1"));
    }
}
