//! The region files that ship with the program.

macro_rules! files {
    ($($code:literal)*) => {
        &[$((concat!($code, ".toml"), include_str!(concat!("../../regions/", $code, ".toml")))),*]
    };
}

/// Every file of `regions/`, by name; a test compares this list with the directory.
#[rustfmt::skip]
pub(super) const FILES: &[(&str, &str)] = files![
    "AKL" "AMS" "ASH" "ATL" "ATL2" "BAH" "BKK" "BOG" "BOM" "CDG" "CGK" "CMH" "CPT" "DEL" "DFW"
    "DUB" "DXB" "EZE" "FRA" "HEL" "HKG" "HND" "HOU" "ICN" "JNB" "KIX" "LAX" "LON" "LOS" "MAA"
    "MAD" "MDW" "MEL" "MIA" "MOS2" "MXP" "NBO" "NYC" "OMA" "OSL" "PDX" "PER" "PRG" "QRO" "SAO"
    "SCL" "SEA" "SIN" "SJO" "STO" "SYD" "TLV" "TOR" "TPE" "WAW" "YUL" "YYC" "ZRH"
];
