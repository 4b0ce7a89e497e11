//! The image filter behind `demo/image`: a small piece of real work without a GPU.

use std::io::Cursor;
use std::str::FromStr;

use png::BitDepth;
use png::ColorType;
use png::Decoder;
use png::Encoder;
use png::Limits;
use png::Transformations;

/// What is done to the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Brightness alone.
    Grayscale,
    /// Every channel negated.
    Invert,
    /// Contours: the magnitude of the Sobel gradient.
    Edge,
}

/// Why a picture is not filtered; all of them are the caller's to mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadImage {
    /// Not a filter.
    #[error("unknown filter; use grayscale, invert or edge")]
    Filter,
    /// More than [`MAX_PIXELS`].
    #[error("the image has more than {MAX_PIXELS} pixels")]
    TooLarge,
    /// Not a PNG image.
    #[error("the body is not a PNG image: {0}")]
    Png(String),
}

impl FromStr for Filter {
    type Err = BadImage;

    fn from_str(text: &str) -> Result<Self, BadImage> {
        match text {
            "grayscale" => Ok(Self::Grayscale),
            "invert" => Ok(Self::Invert),
            "edge" => Ok(Self::Edge),
            _ => Err(BadImage::Filter),
        }
    }
}

/// Applies `filter` to a PNG image and returns a PNG image of 8 bits per channel.
pub(crate) fn apply(filter: Filter, image: &[u8]) -> Result<Vec<u8>, BadImage> {
    let mut picture = decode(image)?;
    match filter {
        Filter::Grayscale => picture = picture.gray(),
        Filter::Invert => picture.invert(),
        Filter::Edge => picture = picture.gray().sobel(),
    }
    encode(&picture)
}

/// The most pixels of a picture: 2560 × 1600, about 0.1 s of work.
pub(crate) const MAX_PIXELS: u32 = 4_096_000;
/// The longest file, in bytes.
pub(crate) const MAX_FILE: usize = 16 << 20;
/// What the decoder may allocate, in bytes: two rows and the compressed data around them.
const MAX_ALLOCATION: usize = 64 << 20;

struct Picture {
    width: usize,
    height: usize,
    color: ColorType,
    pixels: Vec<u8>,
}

impl Picture {
    fn channels(&self) -> usize {
        self.color.samples()
    }

    fn has_alpha(&self) -> bool {
        matches!(self.color, ColorType::Rgba | ColorType::GrayscaleAlpha)
    }

    fn invert(&mut self) {
        let (channels, alpha) = (self.channels(), self.has_alpha());
        for pixel in self.pixels.chunks_exact_mut(channels) {
            let colors = if alpha { channels - 1 } else { channels };
            pixel[..colors].iter_mut().for_each(|it| *it = 255 - *it);
        }
    }

    /// Brightness by the weights of Rec. 601, in 256ths; transparency is dropped.
    fn gray(&self) -> Self {
        let bright = |pixel: &[u8]| match pixel {
            [r, g, b, ..] => {
                ((u32::from(*r) * 77 + u32::from(*g) * 150 + u32::from(*b) * 29) >> 8) as u8
            }
            [gray, ..] => *gray,
            [] => 0,
        };
        let pixels = self.pixels.chunks_exact(self.channels()).map(bright).collect();
        Self { pixels, color: ColorType::Grayscale, ..*self }
    }

    /// Of a gray picture; the border repeats.
    fn sobel(&self) -> Self {
        let at = |x: usize, y: usize| {
            // Coordinates are one too large, so that the border needs no signed numbers.
            let (x, y) = (x.clamp(1, self.width) - 1, y.clamp(1, self.height) - 1);
            i32::from(self.pixels[y * self.width + x])
        };
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 1..=self.height {
            for x in 1..=self.width {
                let column = |x| at(x, y - 1) + 2 * at(x, y) + at(x, y + 1);
                let row = |y| at(x - 1, y) + 2 * at(x, y) + at(x + 1, y);
                let (dx, dy) = (column(x + 1) - column(x - 1), row(y + 1) - row(y - 1));
                pixels.push((dx * dx + dy * dy).isqrt().min(255) as u8);
            }
        }
        Self { pixels, color: ColorType::Grayscale, ..*self }
    }
}

fn decode(image: &[u8]) -> Result<Picture, BadImage> {
    let bad = |reason: png::DecodingError| BadImage::Png(reason.to_string());
    let mut decoder =
        Decoder::new_with_limits(Cursor::new(image), Limits { bytes: MAX_ALLOCATION });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let (width, height) = decoder.read_header_info().map_err(bad)?.size();
    if width.checked_mul(height).is_none_or(|it| it > MAX_PIXELS) {
        return Err(BadImage::TooLarge);
    }
    let mut reader = decoder.read_info().map_err(bad)?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or(BadImage::TooLarge)?];
    let frame = reader.next_frame(&mut pixels).map_err(bad)?;
    pixels.truncate(frame.buffer_size());
    let (width, height) = (frame.width as usize, frame.height as usize);
    Ok(Picture { width, height, color: frame.color_type, pixels })
}

fn encode(picture: &Picture) -> Result<Vec<u8>, BadImage> {
    let bad = |reason: png::EncodingError| BadImage::Png(reason.to_string());
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, picture.width as u32, picture.height as u32);
    encoder.set_color(picture.color);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(bad)?;
    writer.write_image_data(&picture.pixels).map_err(bad)?;
    writer.finish().map_err(bad)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(color: ColorType, width: usize, pixels: &[u8]) -> Vec<u8> {
        let height = pixels.len() / color.samples() / width;
        encode(&Picture { width, height, color, pixels: pixels.to_vec() }).unwrap()
    }

    #[track_caller]
    fn check(filter: Filter, image: &[u8], expected: &[u8]) {
        assert_eq!(decode(&apply(filter, image).unwrap()).unwrap().pixels, expected);
    }

    #[test]
    fn filters_do_what_they_say() {
        let image = picture(ColorType::Rgba, 1, &[255, 255, 255, 9, 10, 20, 30, 200]);
        check(Filter::Invert, &image, &[0, 0, 0, 9, 245, 235, 225, 200]);
        check(Filter::Grayscale, &image, &[255, 18]);
        let flat = picture(ColorType::Grayscale, 3, &[7; 9]);
        check(Filter::Edge, &flat, &[0; 9]);
        let step = picture(ColorType::Grayscale, 4, &[0, 0, 255, 255, 0, 0, 255, 255]);
        check(Filter::Edge, &step, &[0, 255, 255, 0, 0, 255, 255, 0]);
    }

    #[test]
    fn what_is_no_picture_is_refused_with_its_reason() {
        assert!(matches!(apply(Filter::Edge, b"GIF89a"), Err(BadImage::Png(_))));
        assert!(matches!("blur".parse::<Filter>(), Err(BadImage::Filter)));
        let mut large = picture(ColorType::Grayscale, 1, &[0]);
        // Width and height stand at 16 and 20 of the file; the checksum behind them at 29.
        large[16..24].copy_from_slice(&[0, 0, 0x10, 0, 0, 0, 0x10, 0]);
        let refused = apply(Filter::Edge, &large);
        assert!(matches!(refused, Err(BadImage::TooLarge | BadImage::Png(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_filter_panic(mut bytes: Vec<u8>, at in 0_usize..80, byte: u8) {
            drop(apply(Filter::Edge, &bytes));
            bytes = picture(ColorType::Rgb, 2, &[1; 24]);
            let at = at % bytes.len();
            bytes[at] = byte;
            drop(apply(Filter::Edge, &bytes));
        }
    }
}
