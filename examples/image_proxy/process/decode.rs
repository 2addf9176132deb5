//! Reads the header of a source, and later its pixels.

use std::io::Cursor;

use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, Limits,
    codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder},
    metadata::Orientation,
};

use super::{super::options::Format, ProcessError, check_pixels, cmyk, color::Icc, source_format};

/// Most bytes that reading a header takes. Larger ICC profiles in a PNG picture are not read.
const HEADER: u64 = 16 << 20;

/// A source whose header is read.
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    decoder: Box<dyn ImageDecoder + 'a>,
    icc: Option<Vec<u8>>,
    format: Format,
    animated: bool,
    orientation: Orientation,
}

impl<'a> Source<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ProcessError> {
        let format = source_format(bytes)?;
        let opened = (|| {
            let (mut decoder, animated) = decoder(bytes, format)?;
            let (orientation, icc) = (decoder.orientation()?, decoder.icc_profile()?);
            Ok((decoder, animated, orientation, icc))
        })();
        let (decoder, animated, orientation, icc) = opened.map_err(ProcessError::Decode)?;
        check_pixels(decoder.dimensions())?;
        Ok(Self {
            bytes,
            decoder,
            icc,
            format,
            animated,
            orientation,
        })
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Whether there are more frames than the one that is decoded.
    pub(super) fn animated(&self) -> bool {
        self.animated
    }

    pub(super) fn color(&self) -> ColorType {
        self.decoder.color_type()
    }

    /// Bytes of the encoded source.
    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes of the ICC profile.
    pub(super) fn icc_length(&self) -> u64 {
        self.icc.as_ref().map_or(0, Vec::len) as u64
    }

    /// Whether the picture is turned by a quarter, which needs a second copy of it.
    pub(super) fn lies_on_its_side(&self) -> bool {
        matches!(
            self.orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        )
    }

    /// Width and height of the upright picture, in pixels.
    pub(super) fn size(&self) -> (u32, u32) {
        match self.decoder.dimensions() {
            (width, height) if self.lies_on_its_side() => (height, width),
            upright => upright,
        }
    }

    /// The picture, turned upright as its Exif orientation says, and its ICC profile.
    ///
    /// [`memory::needed`](super::memory::needed) says before what this takes.
    pub(super) fn decode(self) -> Result<(DynamicImage, Icc), ProcessError> {
        let printed = match (&self.icc, self.format) {
            (Some(icc), Format::Jpeg) => cmyk::decode(self.bytes, icc),
            _ => None,
        };
        let (mut picture, icc) = match printed {
            Some(picture) => (picture.into(), Icc::Applied),
            None => {
                let decoded = DynamicImage::from_decoder(self.decoder);
                let icc = self.icc.map_or(Icc::None, Icc::Embedded);
                (decoded.map_err(ProcessError::Decode)?, icc)
            }
        };
        picture.apply_orientation(self.orientation);
        Ok((picture, icc))
    }
}

type Opened<'a> = (Box<dyn ImageDecoder + 'a>, bool);

/// The decoder, and whether the source is an animation.
fn decoder(bytes: &[u8], format: Format) -> Result<Opened<'_>, ImageError> {
    let bytes = Cursor::new(bytes);
    Ok(match format {
        Format::Jpeg => (Box::new(JpegDecoder::new(bytes)?), false),
        Format::Png => {
            let mut limits = Limits::default();
            limits.max_alloc = Some(HEADER);
            let decoder = PngDecoder::with_limits(bytes, limits)?;
            let animated = decoder.is_apng()?;
            (Box::new(decoder), animated)
        }
        Format::WebP => {
            let decoder = WebPDecoder::new(bytes)?;
            let animated = decoder.has_animation();
            (Box::new(decoder), animated)
        }
    })
}
