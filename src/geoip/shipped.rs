//! The country database that ships with the program. Its source stands in `geo/README.md`.

use std::io::Read;
use std::sync::LazyLock;

use bytes::Bytes;

use super::GeoError;
use super::GeoIp;

/// Returns the unpacked file, unpacked once and kept: 8 MB.
pub(super) fn bytes() -> Result<Bytes, GeoError> {
    static UNPACKED: LazyLock<Result<Bytes, String>> = LazyLock::new(unpack);
    UNPACKED.clone().map_err(|reason| GeoError::Damaged { file: "embedded".to_owned(), reason })
}

fn unpack() -> Result<Bytes, String> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(PACKED);
    let decoder = decoder.map_err(|error| error.to_string())?;
    let mut unpacked = Vec::new();
    let read = decoder.take(GeoIp::BYTES_MAX).read_to_end(&mut unpacked);
    read.map_err(|error| error.to_string())?;
    unpacked.shrink_to_fit();
    Ok(unpacked.into())
}

static PACKED: &[u8] = include_bytes!("../../geo/dbip-country.mmdb.zst");
