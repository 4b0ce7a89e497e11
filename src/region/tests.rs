use super::*;

fn id(text: &str) -> RegionId {
    text.parse().unwrap()
}

fn country(text: &str) -> Country {
    Country::parse(text).unwrap()
}

fn file(code: &str, changes: &[(&str, &str)]) -> String {
    let text = format!(
        "code = \"{code}\"\nname = \"Name\"\npoint = [50.0, 8.0]\ncountry = \"US\"\n\
         tags = []\nneighbours = []\n"
    );
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from));
        text.replace(from, to)
    })
}

#[track_caller]
fn check(files: &[(&str, String)], expected: Flaw) {
    let error = RegionMap::parse(files.iter().map(|(name, text)| (*name, &**text))).unwrap_err();
    let RegionError::Flawed { flaw, .. } = error else { panic!("{error}") };
    assert_eq!(flaw, expected);
}

#[test]
fn every_region_file_ships_with_the_program() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/regions");
    let names = std::fs::read_dir(directory).unwrap().map(|it| it.unwrap().file_name());
    let mut names: Vec<_> = names.map(|it| it.into_string().unwrap()).collect();
    names.retain(|it| it.ends_with(".toml"));
    names.sort();
    let mut shipped: Vec<_> = embedded::FILES.iter().map(|it| it.0.to_owned()).collect();
    shipped.sort();
    assert_eq!(shipped, names);
}

#[test]
fn the_shipped_regions_are_one_connected_map_with_every_livepeer_code() {
    let map = RegionMap::embedded().unwrap();
    assert!(map.len() <= RegionMap::MAX);
    for code in [
        "ATL", "ATL2", "MDW", "FRA", "HOU", "LON", "LAX", "MAD", "MIA", "MOS2", "ASH", "NYC",
        "PRG", "SJO", "SAO", "SEA", "SIN", "STO", "SYD", "HND", "TOR",
    ] {
        assert!(map.get(id(code)).is_some(), "{code}");
    }
    let mut reached = BTreeSet::from([id("FRA")]);
    let mut open = vec![id("FRA")];
    while let Some(next) = open.pop() {
        let fresh = map.get(next).unwrap().neighbours.iter().filter(|it| reached.insert(**it));
        open.extend(fresh.copied());
    }
    assert_eq!(reached.len(), map.len());
}

#[test]
fn regions_are_found_by_id_and_by_index_in_one_stable_order() {
    let map = RegionMap::embedded().unwrap();
    let ids: Vec<_> = map.iter().map(|it| it.id).collect();
    assert!(ids.is_sorted());
    for (at, region) in map.iter().enumerate() {
        assert_eq!(map.index_of(region.id).map(usize::from), Some(at));
        assert_eq!(map.get(region.id), Some(region));
    }
    assert_eq!(map.get(id("nowhere")), None);
}

#[test]
fn the_nearest_region_is_by_distance_and_then_by_id() {
    let map = RegionMap::embedded().unwrap();
    for (lat, lon, expected) in [
        (50.0, 8.3, "FRA"),
        (33.7, -84.4, "ATL"),
        // Fiji and Tonga lie on both sides of the antimeridian.
        (-17.8, 179.2, "AKL"),
        (-21.2, -175.2, "AKL"),
        (90.0, 0.0, "HEL"),
        (-90.0, 0.0, "MEL"),
        (6.45, 3.4, "LOS"),
    ] {
        let point = Point::new(lat, lon).unwrap();
        let least = map.iter().map(|it| it.point.distance_m(&point)).min();
        let nearest = map.nearest(&point);
        assert_eq!((nearest.id, Some(nearest.point.distance_m(&point))), (id(expected), least));
    }
}

#[test]
fn what_cannot_be_a_region_is_refused() {
    check(&[("B.toml", file("A", &[]))], Flaw::FileName(id("A")));
    check(&[("A", file("A", &[]))], Flaw::FileName(id("A")));
    check(&[("A.toml", file("A", &[("Name", "")]))], Flaw::Name);
    check(&[("A.toml", file("A", &[("Name", &"é".repeat(65))]))], Flaw::Name);
    check(&[("A.toml", file("A", &[("[50.0, 8.0]", "[0.0, 0.0]")]))], Flaw::NullIsland);
    let many = format!("tags = [{}]", "\"x\",".repeat(17));
    check(&[("A.toml", file("A", &[("tags = []", &many)]))], Flaw::ListTooLong);
    check(&[("A.toml", file("A", &[])), ("A.toml", file("A", &[]))], Flaw::Twice(id("A")));
}

#[test]
fn residency_tags_agree_with_the_country() {
    let flaw = |tag, code| Flaw::Tag { tag, country: country(code) };
    let tagged = "tags = [\"eu\", \"eea\"]";
    check(&[("A.toml", file("A", &[("tags = []", tagged)]))], flaw("eu", "US"));
    check(&[("A.toml", file("A", &[("\"US\"", "\"DE\"")]))], flaw("eu", "DE"));
    check(&[("A.toml", file("A", &[("\"US\"", "\"NO\"")]))], flaw("eea", "NO"));
    let right = file("A", &[("\"US\"", "\"de\""), ("tags = []", tagged)]);
    assert!(RegionMap::parse([("A.toml", &*right)]).is_ok());
}

#[test]
fn neighbours_exist_and_are_mutual() {
    let to = |code: &str| format!("neighbours = [\"{code}\"]");
    let a = |code: &str| file("A", &[("neighbours = []", &to(code))]);
    check(&[("A.toml", a("B"))], Flaw::NoNeighbour(id("B")));
    check(&[("A.toml", a("A"))], Flaw::OneWay(id("A")));
    check(&[("A.toml", a("B")), ("B.toml", file("B", &[]))], Flaw::OneWay(id("B")));
    let twice = file("A", &[("neighbours = []", "neighbours = [\"B\", \"B\"]")]);
    let back = file("B", &[("neighbours = []", &to("A"))]);
    check(&[("A.toml", twice), ("B.toml", back.clone())], Flaw::Twice(id("B")));
    assert!(RegionMap::parse([("A.toml", &*a("B")), ("B.toml", &*back)]).is_ok());
}

#[test]
fn what_does_not_parse_names_its_file() {
    for text in
        ["", "code = 1", &file("A", &[("50.0", "91.0")]), &format!("{}x = 1\n", file("A", &[]))]
    {
        let error = RegionMap::parse([("A.toml", text)]).unwrap_err();
        assert!(matches!(&error, RegionError::Syntax { file, .. } if file == "A.toml"), "{error}");
    }
    assert_eq!(RegionMap::parse([]).unwrap_err(), RegionError::Empty);
}

#[test]
fn eighty_five_regions_are_a_map_and_one_more_is_not() {
    let texts: Vec<_> =
        (0..=RegionMap::MAX).map(|n| (format!("R{n}.toml"), file(&format!("R{n}"), &[]))).collect();
    let files = |n: usize| texts[..n].iter().map(|(name, text)| (&**name, &**text));
    assert_eq!(RegionMap::parse(files(85)).unwrap().len(), 85);
    assert_eq!(RegionMap::parse(files(86)).unwrap_err(), RegionError::TooMany(86));
}

#[test]
fn union_territory_with_its_own_code_is_union_and_overseas_countries_are_not() {
    for code in ["DE", "GR", "AX", "GF", "GP", "MF", "MQ", "RE", "YT"] {
        assert!(is_eu(country(code)) && is_eea(country(code)), "{code}");
    }
    for code in ["IS", "LI", "NO"] {
        assert!(!is_eu(country(code)) && is_eea(country(code)), "{code}");
    }
    for code in ["GB", "CH", "GL", "FO", "NC", "PF", "BL", "PM", "XK"] {
        assert!(!is_eea(country(code)), "{code}");
    }
    assert_eq!(EU.iter().collect::<BTreeSet<_>>().len(), 34);
}
