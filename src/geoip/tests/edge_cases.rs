//! Every row of `tests/data/edge_cases.csv`: what class an input has, and what follows.

use http::HeaderMap;

use super::*;
use crate::forwarded::Derivation;
use crate::forwarded::Ignored;
use crate::forwarded::TrustedProxies;
use crate::forwarded::Written;
use crate::forwarded::client_address;

struct Row {
    id: String,
    input: String,
    kind: String,
    class: String,
}

/// The file quotes fields that hold commas, and doubles quotes inside them.
fn rows() -> Vec<Row> {
    let text = include_str!("../../../tests/data/edge_cases.csv");
    let fields = |line: &str| {
        let (mut fields, mut quoted) = (vec![String::new()], false);
        let mut rest = line.chars().peekable();
        while let Some(it) = rest.next() {
            match it {
                '"' if quoted && rest.next_if_eq(&'"').is_some() => {
                    fields.last_mut().unwrap().push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                it => fields.last_mut().unwrap().push(it),
            }
        }
        fields
    };
    let row = |line: &str| {
        let mut fields = fields(line).into_iter();
        let mut next = || fields.next().unwrap();
        Row { id: next(), input: next(), kind: next(), class: next() }
    };
    text.lines().skip(1).map(row).collect()
}

#[test]
fn every_socket_address_has_its_class_and_only_public_ones_a_place() {
    let set = GeoIp::embedded().unwrap();
    for row in rows().iter().filter(|it| it.kind == "socket") {
        let Some(ip) = address::parse(&row.input) else {
            assert_eq!(row.class, "invalid", "{}", row.id);
            continue;
        };
        let (class, is_placed) = match row.class.as_str() {
            "loopback" => (Class::Loopback, false),
            "private-rfc1918" | "ipv4-mapped-private" => (Class::Private, false),
            "cgnat-rfc6598" => (Class::Cgnat, false),
            "link-local" => (Class::LinkLocal, false),
            "ula-fc00/7" => (Class::Ula, false),
            "documentation" => (Class::Documentation, false),
            "unspecified" => (Class::Unspecified, false),
            "broadcast" => (Class::Broadcast, false),
            "multicast" => (Class::Multicast, false),
            "teredo" => (Class::Teredo, false),
            "public" => (Class::Public, true),
            "satellite" => (Class::Satellite, true),
            // All three hold 8.8.8.8, which is a public resolver.
            "anycast" | "ipv4-mapped" | "6to4" | "nat64" => (Class::Anycast, true),
            other => panic!("{}: no test for class {other}", row.id),
        };
        let answer = set.lookup(ip);
        assert_eq!((answer.class, answer.place.is_some()), (class, is_placed), "{}", row.id);
        let place = answer.place;
        assert!(place.is_none_or(|it| it.confidence == Confidence::Country), "{}", row.id);
        if matches!(class, Class::Anycast | Class::Satellite) {
            assert!(place.is_some_and(|it| it.country.is_none()), "{}", row.id);
        }
    }
}

#[test]
fn a_city_of_an_anycast_or_satellite_address_is_not_believed() {
    let set = open(&["nested-city.mmdb"]);
    for (ip, point) in [
        // GeoLite2 puts a resolver into the middle of its country, DB-IP into a city.
        ("8.8.8.8", centre("US", "")),
        ("1.1.1.1", centre("AU", "")),
        ("98.97.37.1", Some((Confidence::Country, String::new(), 47.6, -122.3))),
    ] {
        assert_eq!(lookup(&set, ip), point, "{ip}");
    }
}

#[test]
fn every_header_leads_to_its_client() {
    let trusted = |written| TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()], written);
    let peer = "10.0.0.9".parse().unwrap();
    for row in rows() {
        let (name, value, written, derived) = match row.kind.as_str() {
            "xff" => {
                let derived = Derivation::XForwardedFor;
                ("x-forwarded-for", row.input.clone(), Written::XForwardedFor, derived)
            }
            "forwarded-for" => {
                let value = format!("for={}", row.input);
                ("forwarded", value, Written::Forwarded, Derivation::Forwarded)
            }
            _ => continue,
        };
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let found = client_address(peer, &headers, &trusted(written).unwrap());
        let (ip, ignored) = match row.class.as_str() {
            "invalid" => (None, Some(Ignored::Malformed)),
            "rfc7239-unknown" | "rfc7239-obfuscated" => (None, Some(Ignored::Hidden)),
            "list" => (Some("150.172.238.178"), None),
            "rfc7239-quoted" => (Some("2001:db8:cafe::17"), None),
            "ip-with-port" => (Some("8.8.8.8"), None),
            other => panic!("{}: no test for class {other}", row.id),
        };
        let expected = ip.map_or(peer, |it| it.parse().unwrap());
        assert_eq!((found.ip, found.ignored), (expected, ignored), "{}", row.id);
        assert_eq!(found.derived, if ip.is_some() { derived } else { Derivation::Peer });
    }
}

#[test]
fn every_row_has_a_test_but_those_of_the_dns_door() {
    // EDNS client subnets (p33, p34) are prefixes and opt-outs, which only DNS carries.
    let rows = rows();
    let rest = rows.iter().filter(|it| !matches!(&*it.kind, "socket" | "xff" | "forwarded-for"));
    assert_eq!(rest.map(|it| &*it.id).collect::<Vec<_>>(), ["p33", "p34"]);
    assert_eq!(rows.len(), 34);
}
