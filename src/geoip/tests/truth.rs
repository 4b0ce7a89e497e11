//! The database that ships with the program, held against declared places.

use super::*;

#[test]
fn the_embedded_database_opens_and_says_what_it_is() {
    let set = GeoIp::embedded().unwrap();
    let edition = set.editions().next().unwrap();
    assert_eq!((&*edition.source, &*edition.kind), ("embedded", "country ipvAll"));
    assert!(edition.has_v4 && edition.has_v6 && !edition.has_cities);
    // 1 June 2026.
    assert_eq!(edition.built.as_secs() / 86_400, 20_605);
    // A clock that is behind does not take the embedded countries away.
    assert_eq!(set.age(Duration::ZERO), Some(Duration::ZERO));
}

#[test]
fn the_embedded_database_knows_the_country_of_most_declared_servers() {
    let set = GeoIp::embedded().unwrap();
    let rows = include_str!("../../../tests/data/geo/aws-mlab.csv").lines().skip(1);
    let (mut n_right, mut n_near, mut n_rows) = (0, 0, 0);
    for row in rows {
        let fields: Vec<_> = row.split(',').collect();
        let truth = Point::new(fields[1].parse().unwrap(), fields[2].parse().unwrap()).unwrap();
        let place = set.lookup(fields[0].parse().unwrap()).place;
        n_rows += 1;
        n_right += i32::from(place.is_some_and(|it| it.country == Country::parse(fields[3])));
        n_near += i32::from(place.is_some_and(|it| it.point.distance_m(&truth) < 2_500_000));
    }
    assert_eq!(n_rows, 100);
    // Measured: 89 countries of 100, 90 % of places within 2,509 km.
    assert!(n_right >= 85, "{n_right} countries right");
    assert!(n_near >= 85, "{n_near} places near");
}
