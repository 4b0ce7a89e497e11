//! Serial numbers of certificates.

use std::fmt;
use std::str::FromStr;

use super::name::hex;

/// The number of one certificate, without leading zeros; at most [`Serial::MAX`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

/// Why something is not a [`Serial`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a serial number has 1 to {} hexadecimal digits", Serial::MAX * 2)]
pub struct BadSerial;

impl Serial {
    /// The longest serial number, in bytes (RFC 5280).
    pub const MAX: usize = 20;

    /// Takes the number as it stands in a certificate, zeros before it or not.
    pub fn new(bytes: &[u8]) -> Result<Self, BadSerial> {
        let zeros = bytes.iter().take_while(|it| **it == 0).count();
        let bytes = &bytes[zeros..];
        (bytes.len() <= Self::MAX).then(|| Self(bytes.to_vec())).ok_or(BadSerial)
    }

    /// Returns a number that was not given before, from 16 random bytes.
    pub fn random(mut bytes: [u8; 16]) -> Self {
        // A first bit set would cost a zero before it; a first byte of zero would be left out.
        bytes[0] = bytes[0] & 0x3f | 0x40;
        Self(bytes.to_vec())
    }

    /// Returns the number, the most significant byte first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = BadSerial;

    fn from_str(text: &str) -> Result<Self, BadSerial> {
        let digits: String = text.chars().filter(|it| *it != ':').take(Self::MAX * 2 + 1).collect();
        let legal = digits.bytes().all(|it| it.is_ascii_hexdigit());
        if digits.is_empty() || digits.len() > Self::MAX * 2 || !legal {
            return Err(BadSerial);
        }
        let digits = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16);
        let bytes: Result<Vec<u8>, _> = (0..digits.len()).step_by(2).map(byte).collect();
        Self::new(&bytes.map_err(|_digit| BadSerial)?)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("00") } else { f.write_str(&hex(&self.0)) }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Serial {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Serial {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_reads_back_however_it_is_written(
            bytes in prop::collection::vec(any::<u8>(), 1..=Serial::MAX),
        ) {
            let serial = Serial::new(&bytes).unwrap();
            prop_assert_eq!(serial.to_string().parse::<Serial>(), Ok(serial.clone()));
            let padded = [&[0, 0][..], &bytes].concat();
            prop_assert_eq!(Serial::new(&padded), Ok(serial.clone()));
            let colons: Vec<String> = bytes.iter().map(|it| format!("{it:02X}")).collect();
            prop_assert_eq!(colons.join(":").parse(), Ok(serial));
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,100}") {
            drop(text.parse::<Serial>());
        }

        #[test]
        fn random_ones_are_positive_and_of_one_length(bytes in any::<[u8; 16]>()) {
            let serial = Serial::random(bytes);
            prop_assert_eq!(serial.as_bytes().len(), 16);
            prop_assert!(serial.as_bytes()[0] < 0x80);
            prop_assert_eq!(Serial::new(serial.as_bytes()), Ok(serial.clone()));
        }
    }

    #[test]
    fn longer_ones_are_refused() {
        assert_eq!(Serial::new(&[1; Serial::MAX + 1]), Err(BadSerial));
        assert_eq!("1".repeat(41).parse::<Serial>(), Err(BadSerial));
        assert_eq!("".parse::<Serial>(), Err(BadSerial));
    }
}
