use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::geo::Point;
use crate::unit::Country;

mod edge_cases;
mod truth;

/// The day the fixtures were built, plus one.
const WALL: Duration = Duration::from_secs(1_780_272_000 + 86_400);

pub(super) fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data/geo", name].iter().collect()
}

fn open(names: &[&str]) -> GeoIp {
    let paths: Vec<_> = names.iter().map(|it| fixture(it)).collect();
    GeoIp::open(&paths, WALL).unwrap()
}

fn lookup(set: &GeoIp, ip: &str) -> Option<(Confidence, String, f64, f64)> {
    let place = set.lookup(ip.parse().unwrap()).place?;
    let country = place.country.map(|it| it.to_string()).unwrap_or_default();
    Some((place.confidence, country, place.point.lat(), place.point.lon()))
}

fn city(lat: f64, lon: f64) -> Option<(Confidence, String, f64, f64)> {
    Some((Confidence::City, "DE".to_owned(), lat, lon))
}

/// The centre of a country, with `code` as the country that is told.
fn centre(of: &str, code: &str) -> Option<(Confidence, String, f64, f64)> {
    let point = centre::of(Country::parse(of).unwrap()).unwrap();
    Some((Confidence::Country, code.to_owned(), point.lat(), point.lon()))
}

/// Opening these bytes as a file fails with this message.
#[track_caller]
fn check_refused(bytes: &[u8], message: &str) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let path = file.path().to_owned();
    let error = GeoIp::open(std::slice::from_ref(&path), WALL).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    assert!(error.contains(message), "{error}");
}

#[test]
fn a_nested_database_gives_cities_and_countries() {
    let set = open(&["nested-city.mmdb"]);
    assert_eq!(lookup(&set, "5.9.0.1"), city(50.5, 8.5));
    assert_eq!(lookup(&set, "2a01:4f8::1"), city(50.5, 12.5));
    assert_eq!(lookup(&set, "5.10.0.1"), centre("DE", "DE"));
    assert_eq!(lookup(&set, "5.11.0.1"), centre("DE", "DE"));
    assert_eq!(lookup(&set, "5.15.0.1"), centre("XK", "XK"));
    assert_eq!(lookup(&set, "5.16.0.1"), None);
    assert_eq!(lookup(&set, "5.17.0.1"), centre("AU", ""));
    assert_eq!(lookup(&set, "5.18.0.1"), None);
    assert_eq!(lookup(&set, "11.0.0.1"), None);
    let edition = set.editions().next().unwrap();
    assert!(edition.has_v4 && edition.has_v6 && edition.has_cities);
    assert_eq!(edition.kind, "GeoLite2-City");
}

#[test]
fn a_point_that_cannot_be_leaves_the_country() {
    let set = open(&["nested-city.mmdb"]);
    for ip in ["5.12.0.1", "5.13.0.1", "5.14.0.1"] {
        assert_eq!(lookup(&set, ip), centre("DE", "DE"), "{ip}");
    }
}

#[test]
fn flat_databases_split_by_family_answer_as_one() {
    let set = open(&["flat-city-ipv6.mmdb", "flat-city-ipv4.mmdb"]);
    assert_eq!(lookup(&set, "5.9.0.1"), city(50.5, 8.5));
    assert_eq!(lookup(&set, "::ffff:5.9.0.1"), city(50.5, 8.5));
    assert_eq!(lookup(&set, "2a01:4f8::1"), city(50.5, 12.5));
    assert_eq!(lookup(&set, "5.10.0.1"), centre("DE", "DE"));
    assert_eq!(lookup(&set, "5.11.0.1"), None);
    assert_eq!(lookup(&set, "5.12.0.1"), centre("DE", "DE"));
    let families: Vec<_> = set.editions().map(|it| (it.has_v4, it.has_v6)).collect();
    assert_eq!(families, [(false, true), (true, false)]);
    let v4_only = open(&["flat-city-ipv4.mmdb"]);
    assert_eq!(lookup(&v4_only, "2a01:4f8::1"), None);
}

#[test]
fn country_databases_give_the_centre() {
    for name in ["nested-country.mmdb", "flat-country.mmdb"] {
        let set = open(&[name]);
        assert_eq!(lookup(&set, "5.9.0.1"), centre("DE", "DE"));
        assert!(set.editions().all(|it| !it.has_cities));
    }
}

#[test]
fn texts_where_maps_and_numbers_are_expected_are_understood() {
    let set = open(&["string-country.mmdb"]);
    assert_eq!(lookup(&set, "5.9.0.1"), city(50.5, 8.5));
    assert_eq!(lookup(&set, "5.10.0.1"), centre("DE", "DE"));
    assert_eq!(lookup(&set, "5.11.0.1"), None);
    assert_eq!(lookup(&set, "5.12.0.1"), None);
}

#[test]
fn the_first_file_that_knows_a_place_answers() {
    let set = open(&["flat-country.mmdb", "nested-city.mmdb"]);
    assert_eq!(lookup(&set, "5.9.0.1"), centre("DE", "DE"));
    assert_eq!(lookup(&set, "5.10.0.1"), centre("DE", "DE"));
    assert_eq!(lookup(&GeoIp::nothing(), "5.9.0.1"), None);
}

#[test]
fn files_of_something_else_are_refused_with_the_remedy() {
    let refused = |name| std::fs::read(fixture(name)).unwrap();
    check_refused(&refused("asn.mmdb"), "type \"GeoLite2-ASN\" holds no places");
    check_refused(&refused("wrong.mmdb"), "16 of 16 well-known networks");
    check_refused(&refused("sparse.mmdb"), "15 of 16 well-known networks");
    check_refused(b"\x1f\x8b\x08\x00", "gunzip");
    check_refused(b"\x28\xb5\x2f\xfd", "zstd -d");
    check_refused(b"PK\x03\x04", "unzip");
    check_refused(b"\n<!DOCTYPE html><html>", "web page");
    check_refused(b"", "not an MMDB file");
    let missing = GeoIp::open(&[PathBuf::from("/nowhere/x.mmdb")], WALL).unwrap_err();
    assert!(matches!(missing, GeoError::Missing { .. }), "{missing}");
    let directory = GeoIp::open(&[fixture("")], WALL).unwrap_err();
    assert!(matches!(directory, GeoError::Unreadable { .. }), "{directory}");
}

#[test]
fn a_set_has_one_to_eight_files() {
    assert!(matches!(GeoIp::open(&[], WALL), Err(GeoError::NoFile)));
    let eight = vec![fixture("flat-country.mmdb"); 8];
    assert!(GeoIp::open(&eight, WALL).is_ok());
    let nine = vec![fixture("flat-country.mmdb"); 9];
    assert!(matches!(GeoIp::open(&nine, WALL), Err(GeoError::TooManyFiles(9))));
}

#[test]
fn a_file_cut_anywhere_is_refused_or_knows_less() {
    let whole = std::fs::read(fixture("nested-city.mmdb")).unwrap();
    for cut in (0..whole.len()).step_by(7) {
        check_refused(&whole[..cut], "fetch it again");
        let tail = Loaded::check("tail".to_owned(), whole[cut..].to_vec().into(), Some(WALL));
        if let Ok(tail) = tail.map(|it| GeoIp { files: vec![it] }) {
            lookup(&tail, "5.9.0.1");
        }
    }
}

#[test]
fn a_file_from_the_future_is_refused_except_for_two_days() {
    let path = [fixture("flat-country.mmdb")];
    let built = WALL - Duration::from_hours(24);
    assert!(GeoIp::open(&path, built - Duration::from_hours(48)).is_ok());
    let error = GeoIp::open(&path, built - Duration::from_hours(49)).unwrap_err();
    assert!(matches!(error, GeoError::Future { days: 2, .. }), "{error}");
}

#[test]
fn age_turns_into_doubt_after_35_and_90_days() {
    let days = |n: u64| Duration::from_hours(n * 24);
    let minute = Duration::from_secs(60);
    assert_eq!(Freshness::of(days(35) - minute), Freshness::Fresh);
    assert_eq!(Freshness::of(days(35)), Freshness::Ageing);
    assert_eq!(Freshness::of(days(90) - minute), Freshness::Ageing);
    assert_eq!(Freshness::of(days(90)), Freshness::Stale);
    assert_eq!(open(&["flat-country.mmdb"]).age(WALL), Some(days(1)));
    assert_eq!(GeoIp::nothing().age(WALL), None);
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(damage in prop::collection::vec((0_usize..3_508, any::<u8>()), 1..40)) {
        let mut bytes = std::fs::read(fixture("nested-city.mmdb")).unwrap();
        for (at, byte) in damage {
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
        }
        if let Ok(it) = Loaded::check("damaged".to_owned(), bytes.into(), Some(WALL)) {
            let set = GeoIp { files: vec![it] };
            for ip in ["5.9.0.1", "5.19.0.1", "2a01:4f8::1"] {
                if let Some((_, _, lat, lon)) = lookup(&set, ip) {
                    prop_assert!(Point::new(lat, lon).is_ok());
                }
            }
        }
    }
}
