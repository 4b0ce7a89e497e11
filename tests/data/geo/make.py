"""Makes the small databases of this directory: real shapes, invented places.

Needs the PyPI package mmdb-writer (0.2.7). Run in this directory: python make.py
"""

import mmdb_writer
from mmdb_writer import MMDBWriter
from netaddr import IPSet

# A fixed date, so that the files come out the same: 1 June 2026.
BUILT = 1780272000
mmdb_writer.time.time = lambda: BUILT

# The networks a file is checked by when it is loaded (src/geoip/edition.rs).
CANARIES = {
    "128.2.0.0/16": "US", "129.132.0.0/16": "CH", "130.89.0.0/16": "NL", "130.237.0.0/16": "SE",
    "131.111.0.0/16": "GB", "133.11.0.0/16": "JP", "137.158.0.0/16": "ZA", "143.107.0.0/16": "BR",
    "2001:200::/32": "JP", "2001:388::/32": "AU", "2001:468::/32": "US", "2001:620::/32": "CH",
    "2001:630::/32": "GB", "2001:638::/32": "DE", "2001:67c:2e8::/48": "NL", "2001:12ff::/32": "BR",
}


def is_v6(block):
    return ":" in block


def write(name, kind, rows, version=6, floats="f64"):
    # Sound files without a description exist, so these have none either.
    writer = MMDBWriter(version, kind, [], {}, ipv4_compatible=version == 6, float_type=floats)
    for block, record in rows.items():
        writer.insert_network(IPSet([block]), record)
    writer.to_db_file(name)


def nested(code):
    return {"country": {"iso_code": code, "names": {"en": code}}, "continent": {"code": "XX"}}


def place(lat, lon, code, city=None, radius=None):
    record = nested(code)
    record["location"] = {"latitude": lat, "longitude": lon}
    if radius is not None:
        record["location"]["accuracy_radius"] = radius
    if city is not None:
        record["city"] = {"names": {"en": city}}
    record["subdivisions"] = [{"iso_code": "XX"}]
    return record


def flat(code, city="", lat="", lon=""):
    return {"city": city, "country_code": code, "latitude": lat, "longitude": lon,
            "postcode": "", "state1": "", "state2": "", "timezone": ""}


canaries = {block: nested(code) for block, code in CANARIES.items()}
write("nested-city.mmdb", "GeoLite2-City", canaries | {
    "128.2.0.0/16": place(40.5, -80.0, "US", "Somewhere", 20),
    "5.9.0.0/16": place(50.5, 8.5, "DE", "Somewhere", 20),
    "5.10.0.0/16": place(50.5, 8.5, "DE", "Somewhere", 500),
    "5.11.0.0/16": place(51.0, 9.0, "DE", None, 1000),
    "5.12.0.0/16": place(0.0, 0.0, "DE", "Nowhere", 20),
    "5.13.0.0/16": place(float("nan"), 9.0, "DE", "Nowhere", 20),
    "5.14.0.0/16": place(50.0, 190.0, "DE", "Nowhere", 20),
    "5.15.0.0/16": nested("XK"),
    "5.16.0.0/16": nested("AQ"),
    "5.17.0.0/16": {"registered_country": {"iso_code": "AU"}},
    "5.18.0.0/16": {"traits": {"is_anonymous_proxy": True}},
    "5.19.0.0/16": place(-17.8, 178.0, "FJ", "Suva", 20),
    "8.8.8.0/24": place(37.751, -97.822, "US", None, 1000),
    "1.1.1.0/24": {"registered_country": {"iso_code": "AU"}},
    "98.97.0.0/16": place(47.6, -122.3, "US", "Seattle", 20),
    "2a01:4f8::/32": place(50.5, 12.5, "DE", "Somewhere", 20),
})
write("nested-country.mmdb", "GeoLite2-Country", canaries | {"5.9.0.0/16": nested("DE")})

flats = {block: flat(code) for block, code in CANARIES.items()}
cities = {
    "128.2.0.0/16": flat("US", "Somewhere", 40.5, -80.0),
    "5.9.0.0/16": flat("DE", "Somewhere", 50.5, 8.5),
    "5.10.0.0/16": flat("DE", "", 51.0, 9.0),
    "5.11.0.0/16": flat(""),
    "5.12.0.0/16": flat("DE", "Nowhere", 0.0, 0.0),
}
write("flat-city-ipv4.mmdb", "city ipv4",
      {b: r for b, r in flats.items() if not is_v6(b)} | cities, 4, "f32")
write("flat-city-ipv6.mmdb", "city ipv6",
      {b: r for b, r in flats.items() if is_v6(b)}
      | {"2a01:4f8::/32": flat("DE", "Somewhere", 50.5, 12.5)}, 6, "f32")
write("flat-country.mmdb", "country ipvAll",
      {b: {"country_code": c} for b, c in CANARIES.items()} | {"5.9.0.0/16": {"country_code": "DE"}})

# One vendor puts a code under `country`, another a name, and numbers come as text.
write("string-country.mmdb", "standard_location.mmdb",
      {b: {"country": c, "city": ""} for b, c in CANARIES.items()}
      | {"5.9.0.0/16": {"city": "Somewhere", "country": "DE", "lat": "50.5", "lng": "8.5"},
         "5.10.0.0/16": {"country": "Germany", "country_code": "DE", "continent_code": "EU"},
         "5.11.0.0/16": {"country": "Germany"},
         "5.12.0.0/16": {"country": ["DE"], "city": 7, "latitude": True, "location": "DE"}})

write("asn.mmdb", "GeoLite2-ASN",
      {b: {"autonomous_system_number": 64496} for b in CANARIES})
write("wrong.mmdb", "GeoLite2-Country", {b: nested("KP") for b in CANARIES})
write("sparse.mmdb", "GeoLite2-Country", {"5.9.0.0/16": nested("DE"), "128.2.0.0/16": nested("US")})
