//! A chunked body: where it ends, with nothing in it that can be read two ways.

use crate::http1::head::{self, Fault};

/// Where in a chunked body one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// Within a size; so many digits of it were read.
    Size {
        value: u64,
        digits: u8,
    },
    /// Within the extensions of a size; so many bytes of them were read.
    Extension {
        value: u64,
        read: u16,
    },
    /// Before the line feed that ends a size.
    SizeEnd {
        value: u64,
    },
    /// Within data.
    Data {
        left: u64,
    },
    /// After data: the carriage return, then the line feed.
    DataCr,
    DataLf,
    /// After the last chunk: fields, or the empty line; so many bytes searched in vain.
    Fields {
        searched: usize,
    },
    /// After all of it.
    Over,
}

impl Default for Chunked {
    fn default() -> Self {
        Self::Size { value: 0, digits: 0 }
    }
}

impl Chunked {
    /// Tells whether the body has ended.
    pub(crate) fn is_over(self) -> bool {
        self == Self::Over
    }

    /// Returns how many of `bytes` may be passed on. Fields after the last chunk are held
    /// back until all of them are there.
    ///
    /// A fault is told once it stands first: what came before it has passed then, so that
    /// whoever reads behind this is where this is, and in the midst of no data.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        while at < bytes.len() && !self.is_over() {
            match self.step(&bytes[at..]) {
                Ok(0) => break,
                Ok(n) => at += n,
                Err(_fault) if at > 0 => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok(at)
    }

    /// Takes a stretch of data, one byte of framing, or all fields; nothing where a fault is.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if let Self::Data { left } = self {
            let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            *left -= n as u64;
            if *left == 0 {
                *self = Self::DataCr;
            }
            return Ok(n);
        }
        let Self::Fields { searched } = self else {
            *self = self.after(bytes[0])?;
            return Ok(1);
        };
        // Without fields the body ends with an empty line.
        let end = match bytes {
            [b'\r', b'\n', ..] => Some(2),
            _ => head::end(bytes, *searched, FIELDS_MAX)?,
        };
        let Some(end) = end else {
            *searched = bytes.len();
            return Ok(0);
        };
        head::read_trailers(&bytes[..end])?;
        *self = Self::Over;
        Ok(end)
    }

    /// Returns where one byte outside of data and fields leads.
    fn after(self, byte: u8) -> Result<Self, Fault> {
        match (self, byte) {
            (Self::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == DIGITS_MAX {
                    return Err(Fault::Chunk("its size has more than 15 digits"));
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                Ok(Self::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (Self::Size { digits: 0, .. }, _) => Err(Fault::Chunk("its size is not hexadecimal")),
            (Self::Extension { read: 0, .. }, b'\r') => {
                Err(Fault::Chunk("its extension has no name"))
            }
            (Self::Size { value, .. } | Self::Extension { value, .. }, b'\r') => {
                Ok(Self::SizeEnd { value })
            }
            (Self::Size { value, .. }, b';') => Ok(Self::Extension { value, read: 0 }),
            (Self::Size { .. }, _) => Err(Fault::Chunk("its size is not hexadecimal")),
            (Self::Extension { read: EXTENSIONS_MAX, .. }, _) => {
                Err(Fault::Chunk("its extensions are longer than 4 KiB"))
            }
            (Self::Extension { value, read }, b' ' | b'\t' | 0x21..=0x7e) => {
                Ok(Self::Extension { value, read: read + 1 })
            }
            (Self::Extension { .. }, _) => Err(Fault::Chunk("its extension has a control byte")),
            (Self::SizeEnd { value: 0 }, b'\n') => Ok(Self::Fields { searched: 0 }),
            (Self::SizeEnd { value }, b'\n') => Ok(Self::Data { left: value }),
            (Self::DataCr, b'\r') => Ok(Self::DataLf),
            (Self::DataLf, b'\n') => Ok(Self::default()),
            (Self::SizeEnd { .. } | Self::DataLf, _) => Err(Fault::LineEnd),
            (Self::DataCr, _) => Err(Fault::Chunk("it is longer than its size says")),
            (Self::Data { .. } | Self::Fields { .. } | Self::Over, _) => Ok(self),
        }
    }
}

/// 15 digits are 2^60 bytes, and fit.
const DIGITS_MAX: u8 = 15;
/// Extensions of one chunk; nobody uses any.
const EXTENSIONS_MAX: u16 = 4 * 1024;
/// Fields after a body are a checksum or a status.
const FIELDS_MAX: usize = 8 * 1024;
