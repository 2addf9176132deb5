//! The path of a request: processing options and the source, in imgproxy's syntax.
//!
//! ```text
//! rs:fit:300:200/q:80/f:webp/plain/http%3A%2F%2Forigin%2Fcat.jpg
//! rs:fit:300:200/q:80/f:webp/aHR0cDovL29yaWdpbi9jYXQuanBn
//! └──────── options ───────┘└──────────── source ───────┘
//! ```
//!
//! | option | arguments | default |
//! |---|---|---|
//! | `rs` (`resize`) | mode, width, height; the last ones may be left out | `fit:0:0` |
//! | `rt` (`resizing_type`) | `fit`, `fill` or `force` | `fit` |
//! | `w` (`width`), `h` (`height`) | pixels; 0 keeps the aspect ratio | 0 |
//! | `q` (`quality`) | 1 to 100, for JPEG only: PNG and the `image` crate's WebP are lossless | 80 |
//! | `f` (`format`, `ext`) | `jpg`, `png` or `webp` | the source's, or WebP, see [`Options::format_for`] |

use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use image::ImageFormat;

use super::url;

/// Longest side of a result, in pixels.
pub(crate) const MAX_SIDE: u32 = 4096;

/// imgproxy's URLs have no padding, but some clients write it.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// The largest picture that fits into the size, in the source's aspect ratio. Never enlarges.
    Fit,
    /// Exactly the size: scaled to cover it, then cut evenly on both sides.
    Fill,
    /// Exactly the size, in any aspect ratio.
    Force,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    Jpeg,
    Png,
    WebP,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "jpeg",
            Format::Png => "png",
            Format::WebP => "webp",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
            Format::WebP => "image/webp",
        }
    }

    /// The longest side that a picture of this format may have, in pixels.
    pub(crate) fn max_side(self) -> u32 {
        match self {
            // ITU-T T.81, table B.2: 16 bits.
            Format::Jpeg => 65_535,
            // PNG specification, "Integers and byte order".
            Format::Png => i32::MAX as u32,
            // libwebp's `WEBP_MAX_DIMENSION`: 14 bits.
            Format::WebP => 16_383,
        }
    }

    /// `None` for a format that this service does not support.
    pub(crate) fn from_image(format: ImageFormat) -> Option<Self> {
        match format {
            ImageFormat::Jpeg => Some(Format::Jpeg),
            ImageFormat::Png => Some(Format::Png),
            ImageFormat::WebP => Some(Format::WebP),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    /// In pixels; 0 keeps the aspect ratio.
    pub(crate) width: u32,
    /// In pixels; 0 keeps the aspect ratio.
    pub(crate) height: u32,
    pub(crate) quality: u8,
    /// `None` leaves the format to the source and the client.
    pub(crate) format: Option<Format>,
    /// The client accepts WebP, where the format is left to it.
    pub(crate) accepts_webp: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Fit,
            width: 0,
            height: 0,
            quality: 80,
            format: None,
            accepts_webp: false,
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("unknown option `{0}`: rs, rt, w, h, q and f are accepted")]
    UnknownOption(String),
    #[error("`{0}` has too many arguments")]
    TooManyArguments(String),
    #[error("`{0}` is not a resizing type: fit, fill and force are accepted")]
    Mode(String),
    #[error("`{0}` is not a side length: 0 to {MAX_SIDE} pixels are accepted")]
    Side(String),
    #[error("`{0}` is not a quality: 1 to 100 is accepted")]
    Quality(String),
    #[error("`{0}` is not a format of a result: jpg, png and webp are accepted")]
    Format(String),
    #[error(
        "the path names no source: it ends with `plain/` and a percent-encoded URL, or with a URL in URL-safe base64"
    )]
    NoSource,
    #[error("the source is neither `plain/` with a URL nor a URL in URL-safe base64")]
    Base64,
}

/// A parsed path.
#[derive(Debug)]
pub(crate) struct ImagePath {
    pub(crate) options: Options,
    /// The options as they were written.
    pub(crate) options_text: String,
    /// The source's URL, not checked yet.
    pub(crate) source: String,
}

impl ImagePath {
    /// Parses a path that is already percent-decoded.
    pub(crate) fn parse(path: &str) -> Result<Self, PathError> {
        let mut options = Options::default();
        let mut rest = path;
        let source = loop {
            if let Some(url) = rest.strip_prefix("plain/") {
                break url.to_owned();
            }
            let (segment, after) = rest.split_once('/').unwrap_or((rest, ""));
            // An option always has a colon, base64 never has one.
            if !segment.contains(':') {
                break decode_base64(rest)?;
            }
            options.apply(segment)?;
            rest = after;
        };
        if source.is_empty() {
            return Err(PathError::NoSource);
        }
        let options_text = path[..path.len() - rest.len()].trim_end_matches('/');
        Ok(Self {
            options,
            options_text: options_text.to_owned(),
            source,
        })
    }
}

/// Slashes may divide a long source, as in imgproxy, because some proxies limit the length of a segment.
fn decode_base64(text: &str) -> Result<String, PathError> {
    let bytes = URL_SAFE.decode(text.replace('/', ""));
    let bytes = bytes.map_err(|_| PathError::Base64)?;
    Ok(url::from_bytes(&bytes))
}

impl Options {
    /// The format of the result, whose longest side has this many pixels.
    ///
    /// PNG becomes WebP where the client accepts that: both are lossless, and WebP is mostly smaller. A JPEG stays
    /// one, because it would be larger as lossless WebP.
    pub(crate) fn format_for(&self, source: Format, longest: u32) -> Format {
        let fits = longest <= Format::WebP.max_side();
        match (self.format, source) {
            (Some(format), _) => format,
            (None, Format::Png) if self.accepts_webp && fits => Format::WebP,
            (None, format) => format,
        }
    }

    /// Applies one option, `name:argument:…`. A later option wins, and an empty argument changes nothing.
    fn apply(&mut self, option: &str) -> Result<(), PathError> {
        let mut arguments = option.split(':');
        let name = arguments.next().unwrap_or_default();
        let mut next = || arguments.next().filter(|argument| !argument.is_empty());
        match name {
            "rs" | "resize" => {
                set(&mut self.mode, next(), mode)?;
                set(&mut self.width, next(), side)?;
                set(&mut self.height, next(), side)?;
            }
            "rt" | "resizing_type" => set(&mut self.mode, next(), mode)?,
            "w" | "width" => set(&mut self.width, next(), side)?,
            "h" | "height" => set(&mut self.height, next(), side)?,
            "q" | "quality" => set(&mut self.quality, next(), quality)?,
            "f" | "format" | "ext" => set(&mut self.format, next(), format)?,
            _ => return Err(PathError::UnknownOption(name.to_owned())),
        }
        match arguments.next() {
            None => Ok(()),
            Some(_) => Err(PathError::TooManyArguments(option.to_owned())),
        }
    }
}

fn set<T>(
    value: &mut T,
    argument: Option<&str>,
    parse: fn(&str) -> Result<T, PathError>,
) -> Result<(), PathError> {
    if let Some(argument) = argument {
        *value = parse(argument)?;
    }
    Ok(())
}

fn mode(text: &str) -> Result<Mode, PathError> {
    match text {
        "fit" => Ok(Mode::Fit),
        "fill" => Ok(Mode::Fill),
        "force" => Ok(Mode::Force),
        _ => Err(PathError::Mode(text.to_owned())),
    }
}

fn side(text: &str) -> Result<u32, PathError> {
    let side = text.parse().ok().filter(|side| *side <= MAX_SIDE);
    side.ok_or_else(|| PathError::Side(text.to_owned()))
}

fn quality(text: &str) -> Result<u8, PathError> {
    let quality = text
        .parse()
        .ok()
        .filter(|quality| (1..=100).contains(quality));
    quality.ok_or_else(|| PathError::Quality(text.to_owned()))
}

fn format(text: &str) -> Result<Option<Format>, PathError> {
    match text {
        "jpg" | "jpeg" => Ok(Some(Format::Jpeg)),
        "png" => Ok(Some(Format::Png)),
        "webp" => Ok(Some(Format::WebP)),
        _ => Err(PathError::Format(text.to_owned())),
    }
}
