//! One record as one line: the CRC-32 of its JSON in eight hexadecimal digits, a space, the
//! JSON, a newline.

use crate::journal::UsageRecord;

/// The longest line, newline included, in bytes: four clipped texts of which each byte is
/// escaped as six, and the fields of bounded length.
pub const LINE_MAX: usize = 8 * 1024;

/// Appends the line of `record` to `out`.
pub(crate) fn push(out: &mut Vec<u8>, record: &UsageRecord) -> Result<(), serde_json::Error> {
    let start = out.len();
    out.extend_from_slice(b"00000000 ");
    if let Err(error) = serde_json::to_writer(&mut *out, record) {
        out.truncate(start);
        return Err(error);
    }
    let sum = format!("{:08x}", crc32(&out[start + JSON_AT..]));
    out[start..start + sum.len()].copy_from_slice(sum.as_bytes());
    out.push(b'\n');
    Ok(())
}

/// Returns whether `line`, without its newline, is one that [`push`] could have written.
pub(crate) fn is_sound(line: &[u8]) -> bool {
    let Some((head, json)) = line.split_at_checked(JSON_AT) else { return false };
    head == format!("{:08x} ", crc32(json)).as_bytes()
        && serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok()
}

/// CRC-32 as in IEEE 802.3: reflected, polynomial 0x04c11db7, all ones before and after.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut crc, mut bit) = (i as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

/// Where the JSON of a line begins.
const JSON_AT: usize = 9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sum_is_the_one_of_ieee() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(line in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!is_sound(&line));
        }
    }
}
