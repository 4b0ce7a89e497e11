use super::*;
use crate::geoip::tests::fixture;

/// Built on 1 June 2026, as the fixtures.
const BUILT: Duration = Duration::from_secs(1_780_272_000);

/// A directory with one file that starts as a fixture.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn with(name: &str) -> Self {
        let disk = Self { directory: tempfile::tempdir().unwrap() };
        disk.put(&std::fs::read(fixture(name)).unwrap());
        disk
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("geo.mmdb")
    }

    /// Replaces the file by rename, as a careful tool does.
    fn put(&self, bytes: &[u8]) {
        let fresh = self.directory.path().join("fresh");
        std::fs::write(&fresh, bytes).unwrap();
        std::fs::rename(fresh, self.path()).unwrap();
    }

    fn open(&self) -> GeoStore {
        let (store, error) = GeoStore::open(vec![self.path()], BUILT);
        assert!(error.is_none(), "{error:?}");
        store
    }
}

/// Writes another date into a file.
fn dated(name: &str, built: u64) -> Vec<u8> {
    let mut bytes = std::fs::read(fixture(name)).unwrap();
    let old = BUILT.as_secs().to_be_bytes();
    let at = bytes.windows(4).rposition(|it| it == &old[4..]).unwrap();
    bytes[at..at + 4].copy_from_slice(&built.to_be_bytes()[4..]);
    bytes
}

fn confidence(store: &GeoStore) -> Option<Confidence> {
    store.lookup("5.9.0.1".parse().unwrap()).place.map(|it| it.confidence)
}

fn kind(store: &GeoStore) -> String {
    store.current().editions().next().unwrap().kind.clone()
}

#[test]
fn a_new_file_is_noticed_loaded_and_used() {
    let disk = Disk::with("nested-country.mmdb");
    let store = disk.open();
    assert!(!store.changed());
    assert_eq!(confidence(&store), Some(Confidence::Country));
    disk.put(&std::fs::read(fixture("nested-city.mmdb")).unwrap());
    assert!(store.changed());
    store.reload(BUILT, Reload::NotOlder).unwrap();
    assert!(!store.changed());
    assert_eq!(confidence(&store), Some(Confidence::City));
}

#[test]
fn the_last_good_set_stays_whatever_happens_to_the_file() {
    let disk = Disk::with("nested-city.mmdb");
    let store = disk.open();
    let whole = std::fs::read(disk.path()).unwrap();
    let asn = std::fs::read(fixture("asn.mmdb")).unwrap();
    for bad in [&whole[..whole.len() / 2], b"<html>", b"", &asn] {
        disk.put(bad);
        assert!(store.changed());
        assert!(store.reload(BUILT, Reload::Forced).is_err());
        assert!(!store.changed(), "a bad file is tried once");
        assert_eq!(confidence(&store), Some(Confidence::City));
    }
    std::fs::remove_file(disk.path()).unwrap();
    assert!(store.changed());
    let error = store.reload(BUILT, Reload::NotOlder).unwrap_err();
    assert!(matches!(error, GeoError::Missing { .. }), "{error}");
    // Overwriting in place changes nothing either: the file was read, not mapped.
    std::fs::write(disk.path(), b"x").unwrap();
    assert_eq!(confidence(&store), Some(Confidence::City));
}

#[test]
fn an_older_file_of_the_same_type_needs_force() {
    let disk = Disk::with("nested-city.mmdb");
    let store = disk.open();
    disk.put(&dated("nested-city.mmdb", BUILT.as_secs() - 1));
    let error = store.reload(BUILT, Reload::NotOlder).unwrap_err();
    assert!(matches!(error, GeoError::Older { .. }), "{error}");
    assert_eq!(store.current().age(BUILT), Some(Duration::ZERO));
    store.reload(BUILT, Reload::Forced).unwrap();
    assert_eq!(store.current().age(BUILT), Some(Duration::from_secs(1)));
    // Another type is another product: its date says nothing.
    disk.put(&dated("nested-country.mmdb", BUILT.as_secs() - 5));
    store.reload(BUILT, Reload::NotOlder).unwrap();
    assert_eq!(kind(&store), "GeoLite2-Country");
}

#[test]
fn stale_cities_are_believed_as_countries() {
    let store = Disk::with("nested-city.mmdb").open();
    let day = |n: u64| BUILT + Duration::from_hours(24 * n);
    for (n, freshness, expected) in [
        (34, Freshness::Fresh, Confidence::City),
        (89, Freshness::Ageing, Confidence::City),
        (90, Freshness::Stale, Confidence::Country),
        (1, Freshness::Fresh, Confidence::City),
    ] {
        assert_eq!(store.tell_time(day(n)), Some(freshness));
        assert_eq!(confidence(&store), Some(expected));
    }
}

#[test]
fn a_store_starts_without_its_files_and_says_why() {
    let disk = Disk::with("asn.mmdb");
    let (store, error) = GeoStore::open(vec![disk.path()], BUILT);
    assert!(matches!(error, Some(GeoError::WrongKind { .. })));
    assert_eq!(kind(&store), "country ipvAll");
    assert!(store.lookup("5.9.0.1".parse().unwrap()).place.is_some());
    // The files may be older than what stood in for them.
    disk.put(&dated("nested-city.mmdb", BUILT.as_secs() - 86_400));
    store.reload(BUILT, Reload::NotOlder).unwrap();
    assert_eq!(kind(&store), "GeoLite2-City");
}

#[test]
fn a_store_without_files_uses_the_embedded_countries_and_has_nothing_to_reload() {
    let (store, error) = GeoStore::open(Vec::new(), BUILT);
    assert!(error.is_none() && !store.changed());
    store.reload(BUILT, Reload::Forced).unwrap();
    assert_eq!(kind(&store), "country ipvAll");
}
